import { beforeEach, describe, expect, test } from 'vitest';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { ProviderError, StoreError } from '../../functions/core/errors.ts';
import type { RekeyEvent } from '../../functions/core/events.ts';
import { targetsOf } from '../../functions/core/fleet.ts';
import { interpose, type Ports } from '../../functions/core/ports.ts';
import type {
  VendorEvent,
  VendorWebhooks,
  WebhookDelivery,
  WebhookStanding,
} from '../../functions/core/provider.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import {
  noteReceived,
  type OpenedWebhooks,
  watchersOf,
  watchWebhook,
  webhookUse,
} from '../../functions/lifecycle/watch-webhooks.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import { credentialState, sha256 } from '../support/credentials.ts';
import { startNotes } from '../support/notes.ts';

const webhookBaseUrl = 'https://example.com/webhooks/';
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const unavailable = new ProviderError('acme is away', {
  code: 'UNAVAILABLE',
  effect: 'none',
  provider: 'acme-postgres',
  operation: 'readEvent',
});

/** A vendor with one webhook, a table of notes and a bus, on a clock of their own. */
function startWorld() {
  let now = new Date('2026-07-15T12:00:00Z');
  const notes = startNotes(() => now);
  const published: RekeyEvent[] = [];
  const measured: [string, number][] = [];
  const logged: string[] = [];
  const calls: string[] = [];
  const asked: string[] = [];
  const vendor: {
    standing: WebhookStanding | Error;
    deliveries: WebhookDelivery[] | Error;
    events: Map<string, VendorEvent | Error>;
  } = { standing: { is: 'enabled', id: 'whk-1' }, deliveries: [], events: new Map() };
  const orThrow = <T>(answer: T | Error): T => {
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const ports: Partial<Ports> = {
    now: async () => now,
    ...notes.ports,
    publish: async (events) => void published.push(...events),
  };
  /** Those that say how a call goes, if it does. */
  let around: Parameters<typeof interpose>[1] = async (_name, _request, call) => call();
  const led = interpose(ports as Ports, async (name, request, call) => {
    if (name !== 'now') calls.push(name);
    return around(name, request, call);
  });
  const webhooks: VendorWebhooks = {
    endpoint: 'acme',
    standing: async (url) => {
      asked.push(`standing ${url}`);
      return orThrow(vendor.standing);
    },
    deliveries: async (id, { after, before }) => {
      asked.push(`deliveries of ${id} from ${after.toISOString()} to ${before.toISOString()}`);
      return orThrow(vendor.deliveries).filter(
        ({ firstSentAt }) => firstSentAt >= after && firstSentAt <= before,
      );
    },
    event: async (id) => {
      asked.push(`event ${id}`);
      return orThrow(vendor.events.get(id) ?? 'absent');
    },
  };
  const opened: OpenedWebhooks = {
    webhooks,
    provider: 'acme-postgres',
    apiKeySecret: 'rekey/api-keys/acme',
  };
  const rekey: Rekey = {
    ports: led,
    loadProvider,
    loadConsumer,
    sha256,
    log: (_level, message, fields) => logged.push(`${message} ${JSON.stringify(fields ?? {})}`),
    measure: (metric, value) => void measured.push([metric, value]),
  };
  return {
    vendor,
    notes,
    published,
    measured,
    logged,
    calls,
    asked,
    opened,
    rekey,
    interpose: (next: typeof around) => {
      around = next;
    },
    now: () => now,
    move: (ms: number) => {
      now = new Date(now.getTime() + ms);
    },
    watch: () => watchWebhook(opened, { webhookBaseUrl }, rekey),
    received: () => noteReceived('acme', rekey),
    use: () => webhookUse(opened, rekey),
    /** An event that the vendor could not deliver, so long ago. */
    lost: (eventId: string, msAgo: number, isDelivered = false): WebhookDelivery => ({
      eventId,
      eventType: 'users_created',
      firstSentAt: new Date(now.getTime() - msAgo),
      isDelivered,
    }),
    findings: () =>
      published.flatMap(({ type, detail }) =>
        type === 'DriftFound' ? [detail.details.replace(/ of acme/, '')] : [],
      ),
    caughtUp: () =>
      published.flatMap(({ type, detail }) => (type === 'ProviderEventReceived' ? [detail] : [])),
  };
}
let world: ReturnType<typeof startWorld>;
beforeEach(() => {
  world = startWorld();
});

describe('a webhook of ours', () => {
  test('is asked for by its whole URL, and is found well', async () => {
    await world.watch();
    expect(world.asked[0]).toBe('standing https://example.com/webhooks/acme');
    expect(world.published).toEqual([]);
    expect(world.measured).toEqual([['WebhooksDisabled', 0]]);
  });

  test('that was switched off is found once, and again after it was mended', async () => {
    world.vendor.standing = { is: 'disabled', id: 'whk-1' };
    for (let pass = 1; pass <= 3; pass += 1) await world.watch();
    expect(world.findings()).toEqual(['the webhook whk-1 is switched off']);
    world.vendor.standing = { is: 'enabled', id: 'whk-1' };
    await world.watch();
    expect(await world.notes.stored('findings/reconcile')).toEqual({});
    world.vendor.standing = { is: 'disabled', id: 'whk-1' };
    await world.watch();
    expect(world.findings()).toHaveLength(2);
    expect(world.measured.map(([, value]) => value)).toEqual([1, 1, 1, 0, 1]);
  });

  test('that somebody deleted is found until it is made again, or forgotten', async () => {
    await world.watch();
    world.vendor.standing = { is: 'absent' };
    await world.watch();
    world.move(400 * hourMs);
    await world.watch();
    expect(world.findings()).toEqual(['the webhook whk-1 is not there any more']);
    world.vendor.standing = { is: 'enabled', id: 'whk-2' };
    await world.watch();
    world.vendor.standing = { is: 'absent' };
    await world.watch();
    expect(world.findings()).toEqual([
      'the webhook whk-1 is not there any more',
      'the webhook whk-2 is not there any more',
    ]);
    // As the remedy says.
    const remedies = world.published.flatMap(({ type, detail }) =>
      type === 'DriftFound' ? [detail.remedy] : [],
    );
    const [, place = '', key = ''] =
      /delete the item with the place (\S+) and the key (\S+) from the DynamoDB table rekey$/.exec(
        remedies[0] ?? '',
      ) ?? [];
    expect(await world.notes.ports.deleteNote({ place, key })).toBe('deleted');
    world.measured.length = 0;
    await world.watch();
    for (const each of ['webhooks', 'findings/reconcile']) expect(await world.notes.stored(each)).toEqual({});
    expect(world.measured).toEqual([]);
  });

  test('that never was there is nothing to say, and nothing to remember', async () => {
    world.vendor.standing = { is: 'absent' };
    await world.watch();
    expect(world.published).toEqual([]);
    expect(world.measured).toEqual([]);
    expect(await world.notes.stored('webhooks')).toEqual({});
    expect((await world.use()).shouldHaveTold).toBe(false);
  });

  test('that the key may not see is judged by what is received', async () => {
    world.vendor.standing = { is: 'unreadable', reason: 'only the key of an admin may see webhooks' };
    await world.watch();
    expect(world.measured).toEqual([]);
    expect((await world.use()).shouldHaveTold).toBe(false);
    await world.received();
    world.move(24 * hourMs);
    await world.watch();
    expect(world.measured).toEqual([['WebhooksDisabled', 0]]);
    // A change that nothing told of; a second one does not make it younger.
    const missed = await world.use();
    expect(missed.shouldHaveTold).toBe(true);
    await missed.noteMissed();
    world.move(30 * minuteMs);
    await (await world.use()).noteMissed();
    await world.watch();
    expect(world.findings()).toEqual([]);
    world.move(30 * minuteMs);
    await world.watch();
    await world.watch();
    expect(world.findings()).toEqual(['users have changed, and no webhook has told of it']);
    await world.received();
    await world.watch();
    expect(world.measured.at(-1)).toEqual(['WebhooksDisabled', 0]);
    // The next change that is missed counts anew.
    world.move(2 * hourMs);
    await (await world.use()).noteMissed();
    await world.watch();
    expect(world.findings()).toHaveLength(1);
    world.move(hourMs);
    await world.watch();
    expect(world.findings()).toHaveLength(2);
  });

  test('that was seen before the key lost its rights is still known to be in use', async () => {
    await world.watch();
    world.vendor.standing = { is: 'unreadable', reason: 'only the key of an admin may see webhooks' };
    await world.watch();
    expect((await world.use()).shouldHaveTold).toBe(true);
    world.vendor.standing = { is: 'absent' };
    await world.watch();
    expect(world.findings()).toEqual(['the webhook whk-1 is not there any more']);
  });

  test('makes no call more often than it must: a watch reads four notes and writes one', async () => {
    await world.watch();
    world.calls.length = 0;
    world.move(hourMs);
    await world.watch();
    expect(world.calls).toEqual([...['readNote', 'readNote', 'readNote', 'readNote'], 'writeNote']);
    world.vendor.standing = { is: 'unreadable', reason: 'no' };
    await world.watch();
    world.calls.length = 0;
    await world.watch();
    expect(world.calls).not.toContain('writeNote');
  });
});

describe('events that the vendor could not deliver', () => {
  test.each(['enabled', 'disabled'] as const)(
    'are published with what it says of them, each once, where the webhook is %s',
    async (is) => {
      world.vendor.standing = { is, id: 'whk-1' };
      world.vendor.deliveries = [
        world.lost('evt-3', 10 * minuteMs),
        world.lost('evt-2', 2 * hourMs),
        world.lost('evt-0', 3 * hourMs, true),
        world.lost('evt-1', 30 * hourMs),
      ];
      const happenedAt = '2026-07-14T06:00:00.123456789Z';
      world.vendor.events.set('evt-1', { id: 'evt-1', type: 'users_created', happenedAt, target: 'db-1' });
      await world.watch();
      await world.watch();
      expect(world.caughtUp()).toEqual([
        {
          provider: 'acme',
          providerEventId: 'evt-1',
          providerEventType: 'users_created',
          happenedAt,
          target: 'db-1',
          isCaughtUp: true,
        },
        {
          provider: 'acme',
          providerEventId: 'evt-2',
          providerEventType: 'users_created',
          isCaughtUp: true,
        },
      ]);
      world.move(50 * minuteMs);
      await world.watch();
      expect(world.caughtUp().map(({ providerEventId }) => providerEventId)).toEqual([
        'evt-1',
        'evt-2',
        'evt-3',
      ]);
      expect(world.measured.filter(([name]) => name === 'WebhooksMissed')).toEqual([
        ['WebhooksMissed', 2],
        ['WebhooksMissed', 1],
      ]);
    },
  );

  test('are not told again when the vendor tries again in vain', async () => {
    world.vendor.deliveries = [world.lost('evt-1', 2 * hourMs)];
    await world.watch();
    // The first of its attempts is out of the time that is asked for by then, so a later one looks like the first.
    world.move(10 * hourMs);
    world.vendor.deliveries = [world.lost('evt-1', 2 * hourMs)];
    await world.watch();
    expect(world.caughtUp()).toHaveLength(1);
  });

  test('are found whenever the passes come, each exactly once', async () => {
    const all = Array.from({ length: 60 }, (_, index) => world.lost(`evt-${index}`, -index * 97 * minuteMs));
    world.vendor.deliveries = all;
    const pauses = [1, 60, 61, 7, 1_500, 59, 0, 180, 2_900, 60];
    for (let pass = 0; pass < 60; pass += 1) {
      world.move((pauses[pass % pauses.length] ?? 0) * minuteMs);
      await world.watch();
    }
    expect(world.caughtUp().map(({ providerEventId }) => providerEventId)).toEqual(
      all.map(({ eventId }) => eventId),
    );
  });

  test('wait for a vendor that says nothing of them for the moment, but not for ever', async () => {
    world.vendor.deliveries = [
      world.lost('evt-1', 3 * hourMs),
      world.lost('evt-2', 2 * hourMs),
      world.lost('evt-3', 2 * hourMs - 1),
    ];
    world.vendor.events.set('evt-2', unavailable);
    await world.watch();
    expect(world.caughtUp().map(({ providerEventId }) => providerEventId)).toEqual(['evt-1']);
    world.vendor.events.set('evt-2', { id: 'evt-2', type: 'users_created', target: 'db-1' });
    await world.watch();
    expect(world.caughtUp().slice(1)).toMatchObject([
      { providerEventId: 'evt-2', target: 'db-1' },
      { providerEventId: 'evt-3' },
    ]);
    world.vendor.deliveries.push(world.lost('evt-4', hourMs));
    world.vendor.events.set('evt-4', unavailable);
    world.move(4 * hourMs);
    await world.watch();
    expect(world.caughtUp()).toHaveLength(3);
    world.move(2 * hourMs);
    await world.watch();
    expect(world.caughtUp().slice(3)).toMatchObject([{ providerEventId: 'evt-4' }]);
  });

  test('by the hundred are told a part in each pass, and none is left out', async () => {
    const all = Array.from({ length: 120 }, (_, index) => world.lost(`evt-${index}`, 20 * hourMs - index));
    world.vendor.deliveries = all;
    await world.watch();
    expect(world.caughtUp()).toHaveLength(50);
    await world.watch();
    await world.watch();
    expect(world.caughtUp().map(({ providerEventId }) => providerEventId)).toEqual(
      all.map(({ eventId }) => eventId),
    );
  });

  test('are not lost when a note was spoiled: they are told once more', async () => {
    world.vendor.deliveries = [world.lost('evt-1', 2 * hourMs)];
    await world.watch();
    for (const key of Object.keys(await world.notes.stored('webhooks')))
      await world.notes.put('webhooks', key, 'no JSON');
    await world.watch();
    expect(world.caughtUp().map(({ providerEventId }) => providerEventId)).toEqual(['evt-1', 'evt-1']);
    await world.watch();
    expect(world.caughtUp()).toHaveLength(2);
  });
});

describe('what fails', () => {
  test.each(['standing', 'deliveries'] as const)(
    'fails alone, and comes with the next pass: the vendor says nothing of %s',
    async (what) => {
      world.vendor.deliveries = [world.lost('evt-1', 2 * hourMs)];
      world.vendor.standing = { is: 'disabled', id: 'whk-1' };
      const before = world.vendor[what];
      Object.assign(world.vendor, { [what]: unavailable });
      await world.watch();
      // What can be said already is said.
      expect(world.findings()).toHaveLength(what === 'standing' ? 0 : 1);
      expect(world.caughtUp()).toEqual([]);
      Object.assign(world.vendor, { [what]: before });
      await world.watch();
      expect(world.findings()).toHaveLength(1);
      expect(world.caughtUp()).toHaveLength(1);
    },
  );

  test('is no reason to call a webhook mended that was found switched off', async () => {
    world.vendor.standing = { is: 'disabled', id: 'whk-1' };
    await world.watch();
    world.vendor.standing = unavailable;
    await world.watch();
    world.vendor.standing = { is: 'disabled', id: 'whk-1' };
    await world.watch();
    expect(world.findings()).toHaveLength(1);
    expect(world.measured).toEqual([
      ['WebhooksDisabled', 1],
      ['WebhooksDisabled', 1],
    ]);
  });

  test('of a defect is thrown: it must be seen', async () => {
    world.vendor.standing = new TypeError('cannot read properties of undefined');
    await expect(world.watch()).rejects.toThrow(TypeError);
  });

  test('at any call, before or after it took effect, costs nothing: it is told once or twice, and noted', async () => {
    const wrong: string[] = [];
    const play = async (fails?: { readonly call: number; readonly when: 'before' | 'after' }) => {
      world = startWorld();
      await world.watch();
      world.move(2 * hourMs);
      world.vendor.standing = { is: 'disabled', id: 'whk-1' };
      world.vendor.deliveries = [world.lost('evt-1', 2 * hourMs), world.lost('evt-2', hourMs)];
      world.calls.length = 0;
      world.interpose(async (name, _request, call) => {
        if (name === 'now' || world.calls.length !== fails?.call) return call();
        if (fails.when === 'after') await call();
        throw new StoreError('STORE_UNAVAILABLE', 'unknown', 'the store is away');
      });
      await world.watch();
      const { length } = world.calls;
      world.interpose(async (_name, _request, call) => call());
      await world.watch();
      const [findings, told] = [world.findings().length, world.caughtUp().length];
      await world.watch();
      const isQuiet = world.findings().length === findings && world.caughtUp().length === told;
      if (findings < 1 || findings > 2 || told < 2 || told > 4 || !isQuiet)
        wrong.push(`${fails?.when} ${fails?.call}: ${findings} findings, ${told} told, quiet: ${isQuiet}`);
      return length;
    };
    const calls = await play();
    for (let call = 1; call <= calls; call += 1)
      for (const when of ['before', 'after'] as const) await play({ call, when });
    expect(calls).toBeGreaterThan(5);
    expect(wrong).toEqual([]);
  });
});

test('the first target of those that share a key looks after the webhook, and nobody else', async () => {
  const render = (name: string, postgresId: string, apiKeySecret = 'rekey/api-keys/render') =>
    credentialState({
      name,
      provider: 'render-postgres',
      spec: { target: { postgresId }, apiKeySecret },
      versions: {},
    });
  const [one, two, three] = ['1', '2', '3'].map((digit) => `dpg-d${digit}abc2d3e4f5g6h7i8j9-a`);
  const targets = targetsOf([
    await credentialState({
      name: 'aaa',
      provider: 'zilliz-cloud',
      spec: { apiKeySecret: 'rekey/api-keys/render' },
      versions: {},
    }),
    await render('billing', two ?? '', 'rekey/api-keys/other'),
    await render('catalog', one ?? ''),
    await render('orders', three ?? ''),
    await render('shipping', two ?? ''),
  ]);
  const looking = (apiKeySecret: string) =>
    [...watchersOf(targets)]
      .filter(([, watched]) => watched.includes(apiKeySecret))
      .map(([target]) => target)
      .map(({ provider, targetId }) => [provider, targetId]);
  // Of the targets that the provider of the webhook is asked for: the keys of another one open nothing here.
  expect(looking('rekey/api-keys/render').filter(([provider]) => provider === 'render-postgres')).toEqual([
    ['render-postgres', two],
  ]);
  expect(looking('rekey/api-keys/other')).toEqual([['render-postgres', two]]);
});
