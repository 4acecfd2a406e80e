import { beforeEach, describe, expect, test } from 'vitest';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { StoreError } from '../../functions/core/errors.ts';
import { parseInvocation } from '../../functions/core/events.ts';
import { parseTargetTask, type QueuedTask } from '../../functions/core/fleet.ts';
import { jsonOf } from '../../functions/core/json.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { parseInstant } from '../../functions/core/webhook-watch.ts';
import { providerEventHeeder } from '../../functions/lifecycle/heed-provider-event.ts';
import { loadProvider } from '../../functions/providers/index.ts';

const postgresId = 'dpg-d1abc2d3e4f5g6h7i8j9-a';
const otherId = 'dpg-d9zyx8w7v6u5t4s3r2q1-a';
/** As a pass has noted them. */
const members: Readonly<Record<string, readonly string[]>> = {
  [`members/render-postgres/${postgresId}`]: ['orders-api', 'orders-jobs'],
  [`members/render-postgres/${otherId}`]: ['invoices'],
};

function startDispatcher() {
  let now = new Date('2026-07-15T12:00:00Z');
  let enqueue: Ports['enqueue'] = async (tasks) => void queued.push(...tasks);
  const queued: QueuedTask[] = [];
  const written: unknown[] = [];
  let write: Ports['writeNote'] = async (request) => {
    written.push(request);
    return 'written';
  };
  const waiting = new Map<string, Date>();
  let isRefused = false;
  const calls: string[] = [];
  const used: Partial<Ports> = {
    now: async () => now,
    readNote: async ({ place, key }) => {
      const credentials = members[`${place}/${key}`];
      if (isRefused) throw new StoreError('STORE_UNAVAILABLE', 'none', 'the table is out of reach');
      return credentials === undefined
        ? 'absent'
        : {
            key,
            document: JSON.stringify({ credentials, hasBrokenSpecs: false }),
            revision: 1,
            expiresAt: new Date('2026-08-01T00:00:00Z'),
          };
    },
    enqueue: (tasks) => enqueue(tasks),
    listNotes: async () => [],
    writeNote: (request) => write(request),
  };
  const ports = new Proxy(used as Ports, {
    get(target, name: keyof Ports) {
      calls.push(name);
      return target[name];
    },
  });
  const heed = providerEventHeeder(waiting);
  return {
    queued,
    written,
    waiting,
    calls,
    refuseNotes: () => {
      isRefused = true;
    },
    move: (ms: number) => {
      now = new Date(now.getTime() + ms);
    },
    queue: (next: Ports['enqueue']) => {
      enqueue = next;
    },
    store: (next: Ports['writeNote']) => {
      write = next;
    },
    told: (target: string | undefined, isCaughtUp?: boolean) =>
      heed(
        parseInvocation(
          {
            version: '0',
            source: 'rekey',
            'detail-type': 'ProviderEventReceived',
            detail: {
              provider: 'render',
              providerEventId: 'evt-cph1rs3idesc73a2b2mg',
              providerEventType: 'postgres_credentials_created',
              target,
              isCaughtUp,
            },
          },
          ['provider-event'],
        ),
        {
          ports,
          loadProvider,
          loadConsumer,
          sha256: () => new Uint8Array(32),
          log: () => undefined,
          measure: () => undefined,
        },
      ),
  };
}
let world: ReturnType<typeof startDispatcher>;
beforeEach(() => {
  world = startDispatcher();
});

const because = {
  endpoint: 'render',
  eventId: 'evt-cph1rs3idesc73a2b2mg',
  eventType: 'postgres_credentials_created',
};
const task = {
  provider: 'render-postgres',
  targetId: postgresId,
  because,
  delaySeconds: 60,
  urgent: true,
};
const note = {
  place: 'webhooks',
  key: 'render/received',
  document: '{"at":"2026-07-15T12:00:00.000Z"}',
  expiresAt: new Date('2026-10-13T12:00:00Z'),
};

describe('what a vendor told', () => {
  test('about a target of ours has it looked at in a minute, once however many credentials it has', async () => {
    await world.told(postgresId);
    expect(world.queued).toEqual([task]);
  });

  test.each([['dpg-c0000000000000000000-a'], ['srv-d1abc2d3e4f5g6h7i8j9'], [undefined]])(
    'about anything else does nothing: %s',
    async (target) => {
      await world.told(target);
      expect(world.queued).toEqual([]);
      expect(world.written).toEqual([]);
      expect(world.waiting.size).toBe(0);
    },
  );

  test('and reconcile found out by itself, while it looked at the target, does nothing', async () => {
    await world.told(postgresId, true);
    expect(world.calls).toEqual([]);
  });

  test('reads one note, of the provider that received the webhook, and does nothing more for an unknown target', async () => {
    await world.told('dpg-c0000000000000000000-a');
    expect(world.calls.filter((call) => call !== 'now')).toEqual(['readNote']);
    await world.told(postgresId);
    expect(world.calls.filter((call) => call !== 'now')).toEqual([
      'readNote',
      'readNote',
      'enqueue',
      'writeNote',
    ]);
  });

  test('has its target looked at, in one task, while the notes cannot be read', async () => {
    world.refuseNotes();
    await world.told(postgresId);
    expect(world.queued).toEqual([task]);
  });

  test('is a task that the worker reads, with the event that it is made because of', async () => {
    await world.told(postgresId);
    const [queued] = world.queued;
    expect(parseTargetTask(jsonOf(JSON.stringify(queued)))).toEqual({
      provider: 'render-postgres',
      targetId: postgresId,
      because,
    });
  });

  test('is noted when it came, as often as it is queued', async () => {
    await world.told(postgresId);
    await world.told(postgresId);
    expect(world.written).toEqual([note]);
    expect(parseInstant(note.document)).toEqual(new Date('2026-07-15T12:00:00Z'));
  });

  test('has its target looked at also where it cannot be noted that it came', async () => {
    world.store(async () => {
      throw new StoreError('STORE_UNAVAILABLE', 'unknown', 'PutItem failed');
    });
    await world.told(postgresId);
    expect(world.queued).toEqual([task]);
  });

  test('is one look while that is still to come, and another afterwards', async () => {
    await world.told(postgresId);
    world.move(59_999);
    await world.told(postgresId);
    expect(world.queued).toEqual([task]);
    world.move(1);
    await world.told(postgresId);
    expect(world.queued).toEqual([task, task]);
  });

  test('about one target does not keep another from being looked at', async () => {
    await world.told(postgresId);
    await world.told(otherId);
    expect(world.queued.map(({ targetId }) => targetId)).toEqual([postgresId, otherId]);
  });

  test('is not forgotten when the queue was out of reach', async () => {
    world.queue(async () => {
      throw new StoreError('STORE_UNAVAILABLE', 'unknown', 'SendMessageBatch failed');
    });
    await expect(world.told(postgresId)).rejects.toThrow('STORE_UNAVAILABLE');
    world.queue(async (tasks) => void world.queued.push(...tasks));
    await world.told(postgresId);
    expect(world.queued).toEqual([task]);
  });

  test('a thousand times leaves nothing behind but the targets that wait', async () => {
    for (let told = 0; told < 1_000; told += 1) {
      await world.told(told % 2 === 0 ? otherId : `dpg-${String(told).padStart(20, '0')}-a`);
      world.move(1_000);
    }
    expect(world.waiting.size).toBeLessThanOrEqual(1);
    expect(world.queued).toHaveLength(17);
  });
});

const whole = { provider: 'render', providerEventId: 'evt-1', providerEventType: 'users_created' };
test.each([
  { detail: undefined },
  { detail: { ...whole, target: 7 } },
  { detail: { ...whole, target: '' } },
  { detail: { ...whole, target: postgresId, providerEventId: undefined } },
  // It becomes a part of the name of a parameter.
  { detail: { ...whole, target: postgresId, provider: '../credentials' } },
])('an event of that type that is none is refused: %j', (event) => {
  expect(() =>
    parseInvocation({ 'detail-type': 'ProviderEventReceived', ...event }, ['provider-event']),
  ).toThrow(/^EVENT_INVALID: detail.*; this function takes an event of detail type ProviderEventReceived$/);
});
