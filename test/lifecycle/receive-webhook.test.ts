import { createHash, createHmac } from 'node:crypto';
import { EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge';
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { mockClient } from 'aws-sdk-client-mock';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { eventBridge } from '../../functions/aws/bus.ts';
import { secretsManager } from '../../functions/aws/secrets.ts';
import { StoreError } from '../../functions/core/errors.ts';
import type { ProviderEvent, RekeyEvent } from '../../functions/core/events.ts';
import type { MetricName } from '../../functions/core/metrics.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { createRedactor, Sensitive, spellings } from '../../functions/core/sensitive.ts';
import {
  type LoadWebhook,
  parseWebhookRequest,
  type WebhookDefinition,
} from '../../functions/core/webhook.ts';
import { type Known, webhookReceiver } from '../../functions/lifecycle/receive-webhook.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { createLog } from '../../functions/runtime/logger.ts';
import { loadWebhook } from '../../functions/webhooks/index.ts';
import { renderWebhook } from '../../functions/webhooks/render.ts';

const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const nextSecret = 'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz';
const postgresId = 'dpg-d7sg9ln7f7vs73d9bg5g-a';
const start = new Date('2026-07-15T12:00:00Z');

/** A warm function between a secret store and a bus that can fail. */
function startReceiver(
  definitions: LoadWebhook = loadWebhook,
  replaced: Partial<Pick<Ports, 'readSecret'> & Pick<Rekey, 'log'>> = {},
) {
  let now = start;
  let stored: string | StoreError | 'absent' = secret;
  let publish: Ports['publish'] = async (events) => void published.push(...events);
  const published: RekeyEvent[] = [];
  const reads: unknown[] = [];
  const calls = new Set<string>();
  const measured: Partial<Record<MetricName, number>> = {};
  const logged: string[] = [];
  const used: Partial<Ports> = {
    now: async () => now,
    readSecret: async (request) => {
      reads.push(request);
      if (replaced.readSecret !== undefined) return replaced.readSecret(request);
      if (stored instanceof StoreError) throw stored;
      return stored === 'absent' ? 'absent' : { versionId: 'version-1', value: new Sensitive(stored) };
    },
    publish: (events) => publish(events),
  };
  const ports = new Proxy(used as Ports, {
    get(target, name: keyof Ports) {
      calls.add(name);
      return target[name];
    },
  });
  const known = new Map<string, Known>();
  const receive = webhookReceiver(known);
  const rekey = {
    ports,
    loadProvider: async () => undefined,
    loadConsumer: async () => undefined,
    loadWebhook: definitions,
    sha256: (text: string) => createHash('sha256').update(text).digest(),
    log:
      replaced.log ??
      ((level: string, message: string, fields = {}) =>
        void logged.push(`${level} ${message} ${JSON.stringify(fields)}`)),
    measure: (metric: MetricName, value: number) => {
      measured[metric] = (measured[metric] ?? 0) + value;
    },
  };
  return {
    known,
    published,
    reads,
    calls,
    measured,
    logged,
    at: (instant: Date) => {
      now = instant;
    },
    move: (ms: number) => {
      now = new Date(now.getTime() + ms);
    },
    now: () => now,
    store: (next: typeof stored) => {
      stored = next;
    },
    bus: (next: Ports['publish']) => {
      publish = next;
    },
    /** The status of the answer, which has nothing else. */
    async send(event: object): Promise<number> {
      const { statusCode, ...rest } = await receive(parseWebhookRequest(event), rekey);
      expect(rest).toEqual({});
      return statusCode;
    },
  };
}
let world: ReturnType<typeof startReceiver>;
beforeEach(() => {
  world = startReceiver();
});

interface Sent {
  readonly id?: string;
  readonly body?: string | Uint8Array;
  readonly sentAt?: Date;
  readonly secret?: string;
  readonly base64?: boolean;
}
const idOf = (number: number): string => `evt-${String(number).padStart(20, '0')}`;
const bodyOf = (id: string, type = 'postgres_credentials_created'): string =>
  JSON.stringify({ type, timestamp: '2026-07-15T12:00:00.979294509Z', data: { id, serviceId: postgresId } });

/** What the HTTP API makes of a delivery. */
function delivery(given: Sent = {}) {
  const { id = idOf(1), sentAt = world.now(), base64 = false } = given;
  const body = Buffer.from(given.body ?? bodyOf(id));
  const timestamp = String(Math.floor(sentAt.getTime() / 1000));
  const key = Buffer.from((given.secret ?? secret).replace('whsec_', ''), 'base64');
  const mac = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64');
  return {
    version: '2.0',
    routeKey: 'POST /webhooks/render',
    rawPath: '/webhooks/render',
    rawQueryString: '',
    headers: { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${mac}` },
    requestContext: { requestId: 'request-1' },
    body: body.toString(base64 ? 'base64' : 'utf8'),
    isBase64Encoded: base64,
  };
}
const ids = (): readonly string[] =>
  world.published.map(({ detail }) => (detail as ProviderEvent).providerEventId);

describe('an authentic delivery', () => {
  test.each([false, true])('is on the bus before it is answered with 200 (in base64: %s)', async (base64) => {
    expect(await world.send(delivery({ base64 }))).toBe(200);
    expect(world.published).toEqual([
      {
        type: 'ProviderEventReceived',
        detail: {
          provider: 'render',
          providerEventId: 'evt-00000000000000000001',
          providerEventType: 'postgres_credentials_created',
          happenedAt: '2026-07-15T12:00:00.979294509Z',
          target: postgresId,
        },
      },
    ]);
    expect(world.measured).toEqual({});
  });

  test('makes no other call than those to the secret and the bus', async () => {
    await world.send(delivery());
    expect([...world.calls].toSorted()).toEqual(['now', 'publish', 'readSecret']);
    expect(world.reads).toEqual([{ secretId: 'rekey/webhooks/render' }]);
  });

  test.each([bodyOf(idOf(1), 'something_of_tomorrow'), 'not json', '', '{}', '\uFEFF{}'])(
    'is answered with 200 whatever it says, as the vendor would switch the webhook off: %j',
    async (body) => {
      expect(await world.send(delivery({ body }))).toBe(200);
      expect(ids()).toEqual(['evt-00000000000000000001']);
    },
  );

  test('whose body is left out, as the HTTP API does with an empty one, is of no bytes', async () => {
    const { body: _empty, ...event } = delivery({ body: '' });
    expect(await world.send(event)).toBe(200);
  });

  test('that is not as its vendor describes it is counted and logged, for somebody to look', async () => {
    const body = bodyOf('evt-99999999999999999999');
    expect(await world.send(delivery({ id: 'msg_1', body }))).toBe(200);
    expect(world.measured).toEqual({ WebhooksOdd: 1 });
    expect(world.logged[0]).toContain('"oddities":["OTHER_ID_IN_BODY","UNUSUAL_ID"]');
    expect(ids()).toEqual(['msg_1']);
  });

  test('that comes twice is on the bus twice, with one id', async () => {
    await world.send(delivery());
    await world.send(delivery());
    expect(ids()).toEqual(['evt-00000000000000000001', 'evt-00000000000000000001']);
  });
});

describe('a delivery that cannot be kept is asked for again with 503, and counted', () => {
  const busError = new StoreError(
    'STORE_UNAVAILABLE',
    'unknown',
    'PutEvents on rekey-bus failed; it is tried again',
  );

  test('when the bus is out of reach', async () => {
    world.bus(async () => {
      throw busError;
    });
    expect(await world.send(delivery())).toBe(503);
    expect(world.measured).toEqual({ WebhooksDeferred: 1 });
    expect(world.logged[0]).toMatch(/^error STORE_UNAVAILABLE: PutEvents on rekey-bus failed/);
  });

  test('when the bus answers 200 and took nothing', async () => {
    const client = new EventBridgeClient({ region: 'eu-central-1' });
    const mock = mockClient(client);
    mock
      .on(PutEventsCommand)
      .resolvesOnce({
        FailedEntryCount: 1,
        Entries: [{ ErrorCode: 'AccessDeniedException', ErrorMessage: 'no' }],
      })
      .resolves({ FailedEntryCount: 0, Entries: [{ EventId: 'e-1' }] });
    world.bus(eventBridge(client, 'rekey-bus', { sleep: async () => undefined }));
    expect(await world.send(delivery())).toBe(503);
    expect(await world.send(delivery())).toBe(200);
    const [, taken] = mock.commandCalls(PutEventsCommand);
    expect(taken?.args[0].input.Entries?.[0]).toMatchObject({
      EventBusName: 'rekey-bus',
      Source: 'rekey',
      DetailType: 'ProviderEventReceived',
    });
  });

  test('when Secrets Manager is out of reach, and is good as soon as that is back', async () => {
    world.store(new StoreError('STORE_UNAVAILABLE', 'none', 'GetSecretValue failed; it is tried again'));
    expect(await world.send(delivery())).toBe(503);
    world.store(secret);
    world.move(10_000);
    expect(await world.send(delivery())).toBe(200);
    expect(world.measured).toEqual({ WebhooksDeferred: 1 });
  });

  test.each([
    ['absent', /^error SECRET_INVALID: there is no rekey\/webhooks\/render; create it/],
    ['', /^error SECRET_INVALID: signing secrets of a webhook: there is none; store/],
    ['whsec_', /^error SECRET_INVALID: signing secrets of a webhook: 1 of 1: is not base64/],
  ])('when the stored secret is none: %j', async (stored, says) => {
    world.store(stored);
    expect(await world.send(delivery())).toBe(503);
    expect(world.logged[0]).toMatch(says);
    expect(world.published).toEqual([]);
  });

  test('and a defect is no answer at all: it is thrown, and the HTTP API answers for it', async () => {
    world.bus(async () => {
      throw new TypeError('a defect');
    });
    await expect(world.send(delivery())).rejects.toThrow('a defect');
  });
});

describe('a delivery that nobody we know has signed', () => {
  const forgeries: Record<string, { make: () => object; reason: string }> = {
    'with another secret': { make: () => delivery({ secret: nextSecret }), reason: 'NO_MATCH' },
    'not at all': { make: () => ({ ...delivery(), headers: {} }), reason: 'HEADER_MISSING' },
    'long ago': {
      make: () => delivery({ sentAt: new Date('2026-07-15T11:54:59Z') }),
      reason: 'OUTSIDE_WINDOW',
    },
    'over another body': { make: () => ({ ...delivery(), body: bodyOf(idOf(2)) }), reason: 'NO_MATCH' },
    'with a body that is too large': {
      make: () => delivery({ body: 'a'.repeat(65_537) }),
      reason: 'TOO_LARGE',
    },
    'with a body that is far too large': {
      make: () => ({ ...delivery(), body: 'a'.repeat(6_000_000) }),
      reason: 'TOO_LARGE',
    },
    'with a large body in base64': {
      make: () => delivery({ body: Buffer.alloc(65_537), base64: true }),
      reason: 'TOO_LARGE',
    },
    'with a body that is not UTF-8': {
      make: () => delivery({ body: Uint8Array.of(0xff), base64: true }),
      reason: 'NOT_UTF8',
    },
    'with half a character': { make: () => ({ ...delivery(), body: '"\ud800"' }), reason: 'NOT_UTF8' },
    'with a body that is not base64 and says so': {
      make: () => ({ ...delivery(), isBase64Encoded: true }),
      reason: 'NOT_BASE64',
    },
    'with base64 that another body is written in, too': {
      make: () => {
        const event = delivery({ body: '{}', base64: true });
        return { ...event, body: event.body.replace('e30=', 'e31=') };
      },
      reason: 'NOT_BASE64',
    },
  };
  test.each(Object.entries(forgeries))(
    '%s is answered with 401, counted, and logged by its reason alone',
    async (_sentence, { make, reason }) => {
      expect(await world.send(make())).toBe(401);
      expect(world.published).toEqual([]);
      expect(world.measured).toEqual({ WebhooksRejected: 1 });
      expect(world.logged).toEqual([
        `warn a webhook was rejected {"endpoint":"render","reason":"${reason}"}`,
      ]);
    },
  );

  test('is refused whatever the environment says', async () => {
    for (const name of ['DEBUG', 'NODE_ENV', 'WEBHOOK_VERIFICATION', 'REKEY_SKIP_VERIFICATION'])
      vi.stubEnv(name, 'development');
    expect(await world.send({ ...delivery(), headers: {} })).toBe(401);
    vi.unstubAllEnvs();
  });
});

describe('the secret', () => {
  test('is read once in five minutes', async () => {
    for (let sent = 0; sent < 30; sent += 1) {
      expect(await world.send(delivery())).toBe(200);
      world.move(10_000);
    }
    expect(world.reads).toHaveLength(1);
    await world.send(delivery());
    expect(world.reads).toHaveLength(2);
  });

  test('that was taken away does not count any more after five minutes', async () => {
    await world.send(delivery());
    world.store(nextSecret);
    world.move(300_000);
    expect(await world.send(delivery())).toBe(401);
  });

  test('that was replaced is read again when a delivery does not match, and that delivery is good', async () => {
    await world.send(delivery());
    world.store(`${secret}\n${nextSecret}`);
    world.move(10_000);
    expect(await world.send(delivery({ secret: nextSecret }))).toBe(200);
    expect(await world.send(delivery({ secret }))).toBe(200);
    expect(world.reads).toHaveLength(2);
  });

  test('is not read again for each forgery: once in ten seconds at most', async () => {
    for (let sent = 0; sent < 1_000; sent += 1) {
      expect(await world.send(delivery({ secret: nextSecret }))).toBe(401);
      world.move(100);
    }
    expect(world.reads).toHaveLength(10);
  });

  test('is not read again for what another secret would not make good', async () => {
    await world.send(delivery());
    world.move(10_000);
    await world.send({ ...delivery(), headers: {} });
    await world.send(delivery({ sentAt: start, body: 'a'.repeat(65_537) }));
    world.move(300_000 - 10_001);
    await world.send(delivery({ sentAt: new Date(start.getTime() - 2_000) }));
    expect(world.measured).toEqual({ WebhooksRejected: 3 });
    expect(world.reads).toHaveLength(1);
  });

  test('stays good while Secrets Manager is out of reach, as long as it would have anyway', async () => {
    await world.send(delivery());
    world.store(new StoreError('STORE_UNAVAILABLE', 'none', 'GetSecretValue failed; it is tried again'));
    world.move(20_000);
    expect(await world.send(delivery({ secret: nextSecret }))).toBe(401);
    expect(await world.send(delivery())).toBe(200);
    world.move(280_000);
    expect(await world.send(delivery())).toBe(503);
  });

  test('that cannot be read is not asked for by each delivery either', async () => {
    world.store('absent');
    for (let sent = 0; sent < 100; sent += 1) {
      expect(await world.send(delivery())).toBe(503);
      world.move(100);
    }
    expect(world.reads).toHaveLength(1);
  });

  test('is nowhere in what is logged and published, in no spelling', async () => {
    await world.send(delivery());
    await world.send(delivery({ secret: nextSecret }));
    for (const stored of [`v1,${secret}`, `["${secret}`, `${secret}!`]) {
      world.store(stored);
      world.move(300_000);
      await world.send(delivery());
    }
    const seen = world.logged.join('\n') + JSON.stringify(world.published);
    expect(world.logged.length).toBeGreaterThan(4);
    expect(spellings(secret.slice('whsec_'.length)).filter((spelling) => seen.includes(spelling))).toEqual(
      [],
    );
    expect(seen).not.toContain('v1,');
  });
});

describe('of two secrets that are stored as one', () => {
  const stored = [`${secret}\n${nextSecret}\n`, JSON.stringify([secret, nextSecret])];
  const lines = [secret, nextSecret].flatMap((line) => [line, line.slice('whsec_'.length)]);

  test.each(stored)('neither is seen in a log, though a defect prints one of them (%j)', async (value) => {
    const client = new SecretsManagerClient({ region: 'eu-central-1' });
    mockClient(client).on(GetSecretValueCommand).resolves({ VersionId: 'version-1', SecretString: value });
    const redactor = createRedactor();
    const ports = secretsManager(client, redactor, () => new Date());
    let written = '';
    const keep = (chunk: string | Uint8Array): boolean => {
      written += String(chunk);
      return true;
    };
    const spies = [process.stdout, process.stderr].map((stream) =>
      vi.spyOn(stream, 'write').mockImplementation(keep),
    );
    const log = createLog('INFO', redactor);
    for (const leak of lines) {
      /** Says a part of its secret wherever it can. */
      const leaking: LoadWebhook = async () => ({
        verifierOf: (given) => {
          const definition = renderWebhook.verifierOf(given);
          log('warn', `the keys are ${leak}`, { [`at ${leak.length}`]: leak, deep: { list: [leak] } });
          return definition;
        },
        read: (authentic) => {
          const { event } = renderWebhook.read(authentic);
          return { event: { ...event, happenedAt: leak }, oddities: [leak as 'UNPARSABLE'] };
        },
      });
      const leaky = startReceiver(leaking, { readSecret: ports.readSecret, log });
      leaky.bus(async () => {
        throw new StoreError('STORE_UNAVAILABLE', 'unknown', `PutEvents of ${leak} failed`);
      });
      expect(await leaky.send(delivery({ secret: nextSecret }))).toBe(503);
    }
    for (const spy of spies) spy.mockRestore();
    expect(written.match(/‹redacted›/g)?.length).toBeGreaterThanOrEqual(5 * lines.length);
    for (const line of lines)
      expect(spellings(line).filter((spelling) => written.includes(spelling))).toEqual([]);
  });
});

describe('a request', () => {
  const wrong: Record<string, { event: unknown; says: RegExp }> = {
    'that is none': { event: undefined, says: /^EVENT_INVALID: document: / },
    'of another format': { event: { version: '1.0', body: null }, says: /version: .*routeKey: .*headers: / },
    'of another route': {
      event: { version: '2.0', routeKey: '$default', headers: {}, isBase64Encoded: false },
      says: /^EVENT_INVALID: routeKey: expected POST \/webhooks\/<endpoint>; /,
    },
  };
  test.each(Object.entries(wrong))('%s is refused with what is wrong', (_sentence, { event, says }) => {
    expect(() => parseWebhookRequest(event)).toThrow(says);
  });

  test('for an endpoint that rekey has not is refused, and no secret is read for it', async () => {
    const event = { ...delivery(), routeKey: 'POST /webhooks/acme' };
    await expect(world.send(event)).rejects.toThrow('EVENT_INVALID: routeKey: rekey has no webhooks of acme');
    expect(world.reads).toEqual([]);
  });
});

/** A sequence of numbers that is the same in each run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test('of ten thousand deliveries exactly the genuine ones of now are let in, and nothing is kept of any', async () => {
  const verified: string[] = [];
  let verifiers = 0;
  const counting: LoadWebhook = async (endpoint) => {
    const definition = await loadWebhook(endpoint);
    if (definition === undefined) return undefined;
    const counted: WebhookDefinition = {
      verifierOf(stored) {
        verifiers += 1;
        return definition.verifierOf(stored);
      },
      read(authentic) {
        verified.push(authentic.id);
        return definition.read(authentic);
      },
    };
    return counted;
  };
  world = startReceiver(counting);

  const pick = numbers(7);
  const genuine = Array.from({ length: 2_000 }, (_, index) => idOf(index));
  /** What is still to be sent of each genuine event: once at least, some again and again, out of order. */
  const queue = genuine.flatMap((id) => Array.from({ length: 1 + pick(3) }, () => id));
  for (let at = queue.length - 1; at > 0; at -= 1) {
    const other = pick(at + 1);
    [queue[at], queue[other]] = [queue[other] ?? '', queue[at] ?? ''];
  }
  const expected: string[] = [];
  const junk: readonly (() => object)[] = [
    () => delivery({ id: idOf(90_000 + pick(1_000)), secret: nextSecret }),
    () => delivery({ id: idOf(pick(2_000)), secret: nextSecret }),
    () => delivery({ id: idOf(pick(2_000)), sentAt: new Date(world.now().getTime() - 301_000) }),
    () => delivery({ id: idOf(pick(2_000)), sentAt: new Date(world.now().getTime() + 302_000) }),
    () => delivery({ id: idOf(90_000), body: 'a'.repeat(65_537) }),
    () => delivery({ id: idOf(90_000), body: Uint8Array.of(0x7b, 0xff, 0x7d), base64: true }),
    () => ({ ...delivery({ id: idOf(90_000) }), body: '{}' }),
    () => ({ ...delivery({ id: idOf(90_000) }), headers: {} }),
    () => ({ ...delivery({ id: idOf(90_000) }), isBase64Encoded: true }),
  ];
  let rejected = 0;
  for (let sent = 0; sent < 10_000; sent += 1) {
    world.move(pick(50));
    const isLate = queue.length >= 10_000 - sent;
    const id = isLate || pick(10_000 - sent) < queue.length ? queue.pop() : undefined;
    if (id !== undefined) {
      const sentAt = new Date(world.now().getTime() - pick(300) * 1000);
      expect(await world.send(delivery({ id, sentAt, base64: pick(2) === 0 }))).toBe(200);
      expected.push(id);
    } else {
      rejected += 1;
      expect(await world.send(junk[pick(junk.length)]?.() ?? {})).toBe(401);
    }
  }
  expect(queue).toEqual([]);
  expect(verified).toEqual(expected);
  expect(ids()).toEqual(expected);
  expect([...new Set(ids())].toSorted()).toEqual(genuine);
  expect(world.measured).toEqual({ WebhooksRejected: rejected });
  expect(rejected).toBeGreaterThan(3_000);
  expect([...world.calls].toSorted()).toEqual(['now', 'publish', 'readSecret']);
  // 250 seconds of them: at most one reading in ten seconds.
  expect(verifiers).toBe(world.reads.length);
  expect(verifiers).toBeLessThanOrEqual(26);
  // All that is remembered of them: the secret of the one endpoint.
  expect([...world.known.keys()]).toEqual(['render']);
});
