import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Webhook } from 'standardwebhooks';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createMovableClock, type MovableClock } from '../../../../infra/local/clock.ts';
import {
  createRenderWebhooks,
  type RenderWebhookSwitches,
  type RenderWebhooks,
  signatureOf,
  webhookSwitches,
} from '../../../../infra/local/providers/render-webhooks.ts';
import { Refused } from '../../../../infra/local/providers/vendor-http.ts';

const minute = 60_000;
const hour = 60 * minute;
const startedAt = '2026-03-01T12:00:00.000Z';

interface Received {
  readonly at: string;
  readonly body: Buffer;
  readonly id: string;
  readonly timestamp: string;
  readonly signature: string | undefined;
  readonly raw: readonly string[];
}

interface Stage {
  readonly webhooks: RenderWebhooks;
  readonly happened: (type: 'created' | 'deleted', username: string, by?: 'api' | 'dashboard') => void;
  readonly ask: (method: string, path: string, json?: unknown) => Promise<{ status: number; json?: unknown }>;
  readonly received: readonly Received[];
  readonly clock: MovableClock;
  readonly url: string;
  /** Moves the clock and waits until nothing is being sent any more. */
  readonly pass: (ms: number) => Promise<void>;
  /** What the receiver answers from now on; 0 is no answer but a broken connection. */
  answer: number;
}

/** Render's side, and a receiver at the other end of a socket. */
async function stage(switches: Partial<RenderWebhookSwitches> = {}): Promise<Stage> {
  const clock = createMovableClock(new Date(startedAt));
  const received: Received[] = [];
  let made = 0;
  const all = { ...webhookSwitches(), ...switches };
  const { route, happened, ofOwner } = createRenderWebhooks({
    clock,
    switches: () => all,
    freshId: () => {
      made += 1;
      return String(made).padStart(20, '0');
    },
  });
  const server = createServer(async (request: IncomingMessage, response) => {
    const header = (name: string) => request.headers[name] as string | undefined;
    received.push({
      at: clock.now().toISOString().slice(0, 16),
      body: await buffer(request),
      id: header('webhook-id') ?? '',
      timestamp: header('webhook-timestamp') ?? '',
      signature: header('webhook-signature'),
      raw: request.rawHeaders,
    });
    if (result.answer === 0) request.socket.destroy();
    else response.writeHead(result.answer).end('noted');
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  onTestFinished(async () => {
    await ofOwner.stop();
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/webhooks/render`;
  const result: Stage = {
    webhooks: ofOwner,
    happened: (type, username, by = 'api') =>
      happened(
        `postgres_credentials_${type}`,
        { serviceId: 'dpg-d7sg9ln7f7vs73d9bg5g-a', serviceName: 'orders', username },
        by,
      ),
    async ask(method, path, json) {
      const [pathname = '', search = ''] = path.split('?');
      const handling = route({
        method,
        path: pathname,
        segments: pathname.split('/').slice(1),
        query: new URLSearchParams(search),
        headers: {},
        json,
      });
      try {
        return (await handling?.act()) ?? { status: 0 };
      } catch (error) {
        if (error instanceof Refused) return error.answer;
        throw error;
      }
    },
    received,
    clock,
    url,
    async pass(ms) {
      const until = clock.now().getTime() + ms;
      for (;;) {
        for (let turns = 0; turns < 5; turns += 1) {
          await nextTurn();
          while (ofOwner.isBusy()) {
            turns = 0;
            await ofOwner.oneEnded();
          }
        }
        const now = clock.now().getTime();
        if (now >= until) return;
        clock.move(Math.max(0, Math.min(until, clock.nextWake()?.getTime() ?? until) - now));
      }
    },
    answer: 200,
  };
  return result;
}

const jsonOf = ({ body }: Received) => JSON.parse(body.toString('utf8')) as Record<string, unknown>;

describe('a delivery', () => {
  test('is signed as Standard Webhooks wants it (the published vector)', () => {
    expect(
      signatureOf(
        'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
        'msg_p5jXN8AQM9LWM0D4loKWxJek',
        '1614265330',
        Buffer.from('{"test": 2432232314}'),
      ),
    ).toBe('v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=');
  });

  test('says what happened to which database, not who did it to whom, and proves to be from Render', async () => {
    const { webhooks, happened, received, pass, url } = await stage();
    const { secret } = webhooks.add({ url });
    happened('created', 'orders_1');
    await pass(0);
    const [delivery] = received;
    if (delivery === undefined) throw new Error('nothing was delivered');
    expect(jsonOf(delivery)).toEqual({
      type: 'postgres_credentials_created',
      timestamp: expect.stringMatching(/^2026-03-01T12:00:0\d\.\d{9}Z$/),
      data: {
        id: webhooks.events[0]?.id,
        serviceId: 'dpg-d7sg9ln7f7vs73d9bg5g-a',
        serviceName: 'orders',
      },
    });
    expect(delivery.id).toMatch(/^evt-[0-9a-z]{20}$/);
    expect(Number(delivery.timestamp)).toBeCloseTo(1_772_366_400, -1);
    // The library's own clock is not ours: it is asked for the signature, and that is all there is to it.
    expect(
      new Webhook(secret).sign(
        delivery.id,
        new Date(Number(delivery.timestamp) * 1000),
        delivery.body.toString(),
      ),
    ).toBe(delivery.signature);
  });

  test('carries a signature with each secret while there are two', async () => {
    const { webhooks, happened, received, pass, url } = await stage();
    const { id, secret } = webhooks.add({ url });
    const second = `whsec_${Buffer.alloc(24, 7).toString('base64')}`;
    webhooks.addSecret(id, second);
    happened('created', 'orders_1');
    await pass(0);
    const { id: eventId = '', timestamp = '', signature, body = Buffer.of() } = received[0] ?? {};
    expect(signature).toBe(
      `${signatureOf(secret, eventId, timestamp, body)} ${signatureOf(second, eventId, timestamp, body)}`,
    );
  });

  test('goes to both webhooks while one replaces the other, with one id', async () => {
    const { webhooks, happened, received, pass, url } = await stage();
    webhooks.add({ url });
    webhooks.add({ url });
    happened('deleted', 'orders_1');
    await pass(0);
    expect(received).toHaveLength(2);
    expect(new Set(received.map(({ id }) => id)).size).toBe(1);
    expect(new Set(received.map(({ signature }) => signature)).size).toBe(2);
  });

  const ways: Record<string, { switches: Partial<RenderWebhookSwitches>; want: object }> = {
    'without a name of the database': {
      switches: { serviceName: 'missing' },
      want: { data: { id: expect.any(String), serviceId: expect.any(String) } },
    },
    'in the spelling of the display': {
      switches: { spelling: 'display' },
      want: { type: 'PostgresCredentialsCreated' },
    },
    'with whole seconds': {
      switches: { fractionDigits: 0 },
      want: { timestamp: expect.stringMatching(/:\d\dZ$/) },
    },
    'with another id in its body': {
      switches: { dataId: 'another' },
      want: { data: expect.objectContaining({ id: 'evt-00000000000000000003' }) },
    },
  };
  test.each(Object.entries(ways))('comes %s', async (_sentence, { switches, want }) => {
    const { webhooks, happened, received, pass, url } = await stage(switches);
    webhooks.add({ url });
    happened('created', 'orders_1');
    await pass(0);
    expect(received.map((each) => ({ ...jsonOf(each) }))).toEqual([expect.objectContaining(want)]);
    expect(received[0]?.id).toBe('evt-00000000000000000002');
  });

  test('can be unsigned, or signed by nobody we know', async () => {
    const { webhooks, happened, received, pass, url } = await stage({ signs: 'not-at-all' });
    const { secret } = webhooks.add({ url });
    happened('created', 'orders_1');
    await pass(0);
    webhooks.switches.signs = 'with-another-secret';
    happened('created', 'orders_2');
    await pass(0);
    expect(received[0]?.signature).toBeUndefined();
    const { id = '', timestamp = '', signature, body = Buffer.of() } = received[1] ?? {};
    expect(signature).toMatch(/^v1,[A-Za-z0-9+/]{43}=$/);
    expect(signature).not.toBe(signatureOf(secret, id, timestamp, body));
  });

  test('can be of any bytes, under any headers', async () => {
    const { webhooks, received, pass, url } = await stage();
    const { secret } = webhooks.add({ url });
    const body = Buffer.from('fffe7b', 'hex');
    webhooks.send(
      { type: 'server_failed', id: 'evt-x' },
      { body, headers: (right) => [...right, ['webhook-id', 'evt-y']] },
    );
    await pass(0);
    const { raw = [], timestamp = '', signature, body: arrived } = received[0] ?? {};
    expect(raw.filter((_, at) => raw[at - 1] === 'webhook-id')).toEqual(['evt-x', 'evt-y']);
    expect(arrived).toEqual(body);
    expect(signature).toBe(signatureOf(secret, 'evt-x', timestamp, body));
  });

  test('can come late, several times, and after the next one', async () => {
    const { webhooks, happened, received, pass, url } = await stage({
      delayMs: 10 * minute,
      copies: 2,
      order: 'swapped',
    });
    webhooks.add({ url });
    happened('created', 'orders_1');
    await pass(hour);
    expect(received).toEqual([]);
    happened('deleted', 'orders_2');
    await pass(9 * minute);
    expect(received).toEqual([]);
    await pass(2 * minute);
    expect(
      received
        .map(jsonOf)
        .map(({ type }) => type)
        .sort(),
    ).toEqual([
      'postgres_credentials_created',
      'postgres_credentials_created',
      'postgres_credentials_deleted',
      'postgres_credentials_deleted',
    ]);
    expect(webhooks.attempts.map(({ eventType }) => eventType)).toHaveLength(4);
  });

  test('of the last event before a silence can be let go', async () => {
    const { webhooks, happened, received, pass, url } = await stage({ order: 'swapped' });
    webhooks.add({ url });
    happened('created', 'orders_1');
    await pass(hour);
    webhooks.release();
    await pass(0);
    expect(received).toHaveLength(1);
  });

  test('depends on whether the vendor thinks the action worth one', async () => {
    const cases = { always: 2, 'for-api': 1, 'for-dashboard': 1, never: 0 } as const;
    for (const [fires, want] of Object.entries(cases)) {
      const { webhooks, happened, received, pass, url } = await stage({ fires: fires as keyof typeof cases });
      webhooks.add({ url });
      happened('created', 'orders_1', 'api');
      happened('created', 'orders_2', 'dashboard');
      await pass(0);
      expect(received).toHaveLength(want);
      expect(webhooks.events).toHaveLength(2);
    }
  });
});

describe('an event that is not taken', () => {
  test('is sent eight times in 33 hours, with one id and the time of each attempt; then the webhook is disabled', async () => {
    const s = await stage();
    s.webhooks.add({ url: s.url });
    s.answer = 503;
    s.happened('created', 'orders_1');
    await s.pass(40 * hour);
    expect(s.received.map(({ at }) => at)).toEqual([
      '2026-03-01T12:00',
      '2026-03-01T12:00',
      '2026-03-01T12:01',
      '2026-03-01T12:07',
      '2026-03-01T12:31',
      '2026-03-01T14:05',
      '2026-03-01T20:20',
      '2026-03-02T21:22',
    ]);
    expect(new Set(s.received.map(({ id }) => id)).size).toBe(1);
    expect(new Set(s.received.map(({ timestamp }) => timestamp)).size).toBe(8);
    expect(s.webhooks.list()).toMatchObject([{ isEnabled: false }]);
    expect(s.webhooks.mails.map(({ about, at }) => `${about} ${at.toISOString().slice(0, 16)}`)).toEqual([
      'failing 2026-03-01T12:01',
      'disabled 2026-03-02T21:22',
    ]);
    expect(s.webhooks.attempts.map(({ statusCode, responseBody }) => [statusCode, responseBody])).toEqual(
      Array.from({ length: 8 }, () => [503, 'noted']),
    );
  });

  test('while the webhook is disabled is not sent, nor afterwards', async () => {
    const s = await stage({ retryDelaysMs: [1000] });
    const { id } = s.webhooks.add({ url: s.url });
    s.answer = 500;
    s.happened('created', 'orders_1');
    await s.pass(hour);
    s.answer = 200;
    s.happened('created', 'orders_2');
    await s.pass(hour);
    s.webhooks.enable(id);
    s.happened('created', 'orders_3');
    await s.pass(hour);
    const [first, , third] = s.webhooks.events.map((event) => event.id);
    expect(s.received.map((each) => each.id)).toEqual([first, first, third]);
    expect(s.webhooks.events).toHaveLength(3);
  });

  test('is not sent again either once another event has disabled the webhook', async () => {
    const s = await stage();
    s.webhooks.add({ url: s.url });
    s.answer = 500;
    s.happened('created', 'orders_1');
    await s.pass(30 * hour);
    s.happened('created', 'orders_2');
    await s.pass(60 * hour);
    const [, second] = s.webhooks.events.map((event) => event.id);
    // At once, and 22 s, 110 s, 8 min, 31 min and 2 h later; its seventh would have come after 8 h, when all was over.
    expect(s.received.filter(({ id }) => id === second)).toHaveLength(6);
    expect(s.webhooks.mails.map(({ about }) => about)).toEqual(['failing', 'failing', 'disabled']);
  });

  test('because nobody answers leaves an error where the status would be, and is sent again', async () => {
    const s = await stage();
    s.webhooks.add({ url: s.url });
    s.answer = 0;
    s.happened('created', 'orders_1');
    await s.pass(0);
    s.answer = 204;
    await s.pass(minute);
    expect(s.webhooks.attempts).toMatchObject([{ error: expect.any(String) }, { statusCode: 204 }]);
    expect(s.webhooks.attempts[0]).not.toHaveProperty('statusCode');
    expect(s.webhooks.list()).toMatchObject([{ isEnabled: true }]);
  });

  test('with 410 counts as any other failure, or ends everything', async () => {
    for (const [gone, attempts, isEnabled] of [
      ['counts-as-failure', 2, true],
      ['disables', 1, false],
    ] as const) {
      const s = await stage({ gone });
      s.webhooks.add({ url: s.url });
      s.answer = 410;
      s.happened('created', 'orders_1');
      await s.pass(minute);
      expect(s.webhooks.attempts).toHaveLength(attempts);
      expect(s.webhooks.list()).toMatchObject([{ isEnabled }]);
    }
  });

  test('is given up when the stand-in is stopped, and leaves no timer', async () => {
    const s = await stage();
    s.webhooks.add({ url: s.url });
    s.answer = 500;
    s.happened('created', 'orders_1');
    await s.pass(0);
    expect(s.clock.nextWake()).toBeDefined();
    await s.webhooks.stop();
    expect(s.clock.nextWake()).toBeUndefined();
  });
});

describe('the management API', () => {
  const wanted = (url: string, more: object = {}) => ({
    ownerId: 'tea-local0000000000000',
    url,
    name: 'rekey',
    enabled: true,
    eventFilter: [],
    ...more,
  });

  test('makes a webhook, shows it, changes it and deletes it', async () => {
    const { ask, url } = await stage();
    const made = await ask('POST', '/v1/webhooks', wanted(url));
    expect(made).toEqual({
      status: 201,
      json: {
        id: expect.stringMatching(/^whk-[0-9a-z]{20}$/),
        url,
        name: 'rekey',
        secret: expect.stringMatching(/^whsec_/),
        enabled: true,
        eventFilter: [],
      },
    });
    const { id } = made.json as { id: string };
    expect(await ask('GET', `/v1/webhooks/${id}`)).toEqual({ status: 200, json: made.json });
    expect(await ask('GET', '/v1/webhooks?ownerId=tea-local0000000000000')).toEqual({
      status: 200,
      json: [{ webhook: made.json, cursor: `cursor-${id}` }],
    });
    expect(await ask('PATCH', `/v1/webhooks/${id}`, { enabled: false })).toMatchObject({
      status: 200,
      json: { enabled: false },
    });
    expect(await ask('DELETE', `/v1/webhooks/${id}`)).toEqual({ status: 204 });
    expect(await ask('GET', `/v1/webhooks/${id}`)).toMatchObject({ status: 404 });
  });

  test('shows no secret, or one without its prefix, where the vendor does so', async () => {
    const s = await stage({ secretShown: 'empty' });
    const { id, secret } = s.webhooks.add({ url: s.url });
    expect(await s.ask('GET', `/v1/webhooks/${id}`)).toMatchObject({ json: { secret: '' } });
    s.webhooks.switches.secretShown = 'without-prefix';
    expect(await s.ask('GET', `/v1/webhooks/${id}`)).toMatchObject({ json: { secret: secret.slice(6) } });
  });

  test('refuses those who are no admins, a second URL on the small plan, and names that its list lacks', async () => {
    const s = await stage({ credentialFilter: 'refused' });
    expect(
      await s.ask('POST', '/v1/webhooks', wanted(s.url, { eventFilter: ['postgres_credentials_created'] })),
    ).toMatchObject({ status: 400 });
    expect(await s.ask('POST', '/v1/webhooks', { url: s.url })).toMatchObject({ status: 400 });
    expect(await s.ask('POST', '/v1/webhooks', wanted(s.url, { eventFilter: null }))).toMatchObject({
      status: 201,
    });
    expect(await s.ask('POST', '/v1/webhooks', wanted(s.url))).toMatchObject({ status: 400 });
    s.webhooks.switches.keyIsAdmin = false;
    expect(await s.ask('GET', '/v1/webhooks')).toMatchObject({ status: 403 });
  });

  test('shows those of the workspaces that are asked for, and all where none is', async () => {
    const { ask, url, webhooks } = await stage();
    const { id } = webhooks.add({ url });
    const other = webhooks.add({ url, ownerId: 'tea-other000000000000' });
    const ids = async (query: string) => {
      const { json } = await ask('GET', `/v1/webhooks${query}`);
      return (json as { webhook: { id: string } }[]).map(({ webhook }) => webhook.id);
    };
    expect(await ids('?ownerId=tea-local0000000000000')).toEqual([id]);
    expect(await ids('?ownerId=tea-other000000000000')).toEqual([other.id]);
    expect(await ids('?ownerId=tea-local0000000000000,tea-other000000000000')).toEqual([id, other.id]);
    expect(await ids('?ownerId=tea-none0000000000000')).toEqual([]);
    expect(await ids('')).toEqual([id, other.id]);
  });

  test('sends only what the filter wants', async () => {
    const s = await stage();
    await s.ask('POST', '/v1/webhooks', wanted(s.url, { eventFilter: ['postgres_credentials_deleted'] }));
    s.happened('created', 'orders_1');
    s.happened('deleted', 'orders_1');
    await s.pass(0);
    expect(s.received.map(jsonOf).map(({ type }) => type)).toEqual(['postgres_credentials_deleted']);
  });

  test('lists every attempt of a span of time, the newest first, in pages', async () => {
    const s = await stage();
    const { id } = s.webhooks.add({ url: s.url });
    s.answer = 500;
    s.happened('created', 'orders_1');
    await s.pass(100 * minute);
    const rows = async (query: string) => {
      const { json } = await s.ask('GET', `/v1/webhooks/${id}/events?${query}`);
      return json as { webhookEvent: { id: string; sentAt: string; statusCode: number }; cursor: string }[];
    };
    const all = await rows('');
    expect(all.map(({ webhookEvent }) => webhookEvent.sentAt.slice(11, 16))).toEqual([
      '12:31',
      '12:07',
      '12:01',
      '12:00',
      '12:00',
    ]);
    expect(all[0]?.webhookEvent).toEqual({
      id: expect.any(String),
      eventId: s.webhooks.events[0]?.id,
      eventType: 'postgres_credentials_created',
      sentAt: expect.any(String),
      statusCode: 500,
      responseBody: 'noted',
    });
    expect(await rows('sentAfter=2026-03-01T12:01:00Z&sentBefore=2026-03-01T12:10:00Z')).toEqual(
      all.slice(1, 3),
    );
    s.webhooks.switches.attemptOrder = 'oldest-first';
    expect(await rows('')).toEqual(all.toReversed());
    s.webhooks.switches.attemptOrder = 'newest-first';
    const page = await rows('limit=2');
    expect([...page, ...(await rows(`limit=20&cursor=${page.at(-1)?.cursor}`))]).toEqual(all);
    expect(await s.ask('GET', `/v1/webhooks/${id}/events?sentAfter=yesterday`)).toMatchObject({
      status: 400,
    });
  });

  test('says of an event what it likes to say', async () => {
    const s = await stage();
    s.happened('created', 'orders_1');
    const path = `/v1/events/${s.webhooks.events[0]?.id}`;
    expect(await s.ask('GET', path)).toEqual({
      status: 200,
      json: {
        id: s.webhooks.events[0]?.id,
        type: 'postgres_credentials_created',
        timestamp: expect.any(String),
        serviceId: 'dpg-d7sg9ln7f7vs73d9bg5g-a',
        details: {},
      },
    });
    s.webhooks.switches.details = 'username';
    expect(await s.ask('GET', path)).toMatchObject({ json: { details: { username: 'orders_1' } } });
    for (const status of [404, 406, 410, 429, 500] as const) {
      s.webhooks.switches.details = status;
      expect(await s.ask('GET', path)).toMatchObject({ status });
    }
    expect(await s.ask('GET', '/v1/events/evt-none')).toMatchObject({ status: 404 });
  });

  test('leaves other requests to others', async () => {
    const { ask } = await stage();
    for (const [method, path] of [
      ['GET', '/v1/postgres'],
      ['POST', '/v1/events/evt-1'],
      ['GET', '/v2/webhooks'],
    ] as const)
      expect(await ask(method, path)).toEqual({ status: 0 });
  });
});
