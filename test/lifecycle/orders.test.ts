import { beforeEach, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { parameterStore } from '../../functions/aws/parameters.ts';
import { secretsManager as secretsManagerPorts } from '../../functions/aws/secrets.ts';
import { type DirectiveKind, directiveParameter } from '../../functions/core/directives.ts';
import type { IgnoredOrder, Invocation, RekeyEvent } from '../../functions/core/events.ts';
import { interpose, type Ports } from '../../functions/core/ports.ts';
import type { AnyProviderDefinition } from '../../functions/core/provider.ts';
import { createRedactor } from '../../functions/core/sensitive.ts';
import {
  buryCredential,
  forgetOrders,
  forgetTombstones,
  noteDeletion,
  noteOrder,
  notePause,
  pausedSince,
  readStandingOrders,
} from '../../functions/lifecycle/orders.ts';
import { renderPostgres } from '../../functions/providers/render-postgres/provider.ts';
import { clientOf } from '../../infra/local/aws/in-process-client.ts';
import { createParameters } from '../../infra/local/aws/parameters.ts';
import { createSecretsManager } from '../../infra/local/aws/secrets-manager.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const start = Date.parse('2026-03-01T12:00:00Z');

type Order = Extract<Invocation, { is: 'order' }>;
type PauseOrder = Extract<Invocation, { is: 'pause' }>;

/** A provider whose targets are called db-…. */
const acme: AnyProviderDefinition = {
  ...renderPostgres,
  id: 'acme',
  targetSchema: z.string().regex(/^db-/, { error: 'expected the id of a database, such as db-1' }),
  targetOf: ({ targetId }) => targetId,
};

/** Parameter Store and Secrets Manager, and a bus and a log that are only written to. */
function createWorld() {
  let nowMs = start;
  const clock = {
    now: () => new Date(nowMs),
    sleep: async (ms: number) => {
      nowMs += ms;
    },
  };
  const options = { account: '111122223333', region: 'eu-central-1', clock };
  const parameters = createParameters(options);
  const secretsManager = createSecretsManager({
    ...options,
    emit: () => undefined,
    invoke: async () => ({ ok: true }),
  });
  const published: RekeyEvent[] = [];
  const logged: string[] = [];
  let calls: (keyof Ports)[] = [];
  const around: { before: (name: keyof Ports, request: unknown) => Promise<void> } = {
    before: async () => undefined,
  };
  const ports = interpose(
    {
      ...secretsManagerPorts(clientOf(secretsManager), createRedactor()),
      ...parameterStore(clientOf(parameters), clock.now),
      publish: async (events) => void published.push(...events),
      now: async () => clock.now(),
      sleep: clock.sleep,
    } as Ports,
    async (name, request, call) => {
      if (name !== 'now' && name !== 'sleep') calls.push(name);
      await around.before(name, request);
      return call();
    },
  );
  const put = (Name: string, Value: string) =>
    parameters.call('PutParameter', { Name, Value, Type: 'String', Overwrite: true });
  return {
    clock,
    ports,
    published,
    logged,
    around,
    rekey: {
      ports,
      log: (level: string, message: string) => void logged.push(`${level} ${message}`),
      loadProvider: async (id: string) => (id === 'acme' ? acme : undefined),
    },
    move(ms: number) {
      nowMs += ms;
    },
    put,
    async read(Name: string): Promise<string | undefined> {
      const answer = await parameters.call('GetParameter', { Name }).catch(() => undefined);
      return (answer as { Parameter: { Value: string } } | undefined)?.Parameter.Value;
    },
    /** The spec is only looked for. */
    declare: (name = 'orders-api') => put(`/rekey/credentials/${name}`, '{}'),
    undeclare: (name = 'orders-api') =>
      parameters.call('DeleteParameter', { Name: `/rekey/credentials/${name}` }),
    makeSecret: (name = 'orders-api') =>
      secretsManager.call('CreateSecret', {
        Name: `rekey/${name}`,
        SecretString: 'first value',
        ClientRequestToken: 'f3c1a2b4-0000-4000-8000-000000000001',
      }),
    direct: (kind: DirectiveKind, at: string, name = 'orders-api') => put(directiveParameter(name, kind), at),
    /** The directives of the credential, as they stand. */
    async standing(name = 'orders-api') {
      return (await readStandingOrders(name, ports)).directives;
    },
    async callsOf(use: () => Promise<unknown>) {
      calls = [];
      await use();
      return [...calls];
    },
    ignored: (): readonly IgnoredOrder[] =>
      published.flatMap((event) => (event.type === 'OrderIgnored' ? [event.detail] : [])),
  };
}

let world: ReturnType<typeof createWorld>;
beforeEach(() => {
  world = createWorld();
});

const at = (ms: number): Date => new Date(start + ms);
const order = (name: Order['order'], orderedAt: Date, options: Partial<Order> = {}): Order => ({
  is: 'order',
  order: name,
  credential: 'orders-api',
  orderedAt,
  ...options,
});
const deletion = (orderedAt: Date, options: Partial<Order> = {}): Order =>
  order('CredentialDeletionRequested', orderedAt, options);
const pause = (name: PauseOrder['order'], orderedAt: Date, on?: PauseOrder['on']): PauseOrder => ({
  is: 'pause',
  order: name,
  on,
  orderedAt,
});

/** Every order in which these can arrive. */
const arrivals = <Item>(items: readonly Item[]): readonly (readonly Item[])[] =>
  items.length <= 1
    ? [items]
    : items.flatMap((item, index) => arrivals(items.toSpliced(index, 1)).map((rest) => [item, ...rest]));

describe('what stands for a credential', () => {
  test('is read in one call: its spec and every directive', async () => {
    await world.put('/rekey/credentials/orders-api', '{"name":"orders-api"}');
    await world.direct('changeBefore', '2026-02-01T00:00:00Z');
    await world.direct('deletedAt', '2026-01-01T00:00:00Z');
    const calls = await world.callsOf(async () => {
      expect(await readStandingOrders('orders-api', world.ports)).toEqual({
        document: '{"name":"orders-api"}',
        directives: {
          changeBefore: new Date('2026-02-01T00:00:00Z'),
          deletedAt: new Date('2026-01-01T00:00:00Z'),
        },
      });
    });
    expect(calls).toEqual(['readParameters']);
  });

  test('is nothing where nothing is stored', async () => {
    expect(await readStandingOrders('orders-api', world.ports)).toEqual({
      document: undefined,
      directives: {},
    });
  });

  test('cannot be told where one directive cannot be read, and that one is named', async () => {
    await world.direct('deleteSince', 'soon');
    await expect(readStandingOrders('orders-api', world.ports)).rejects.toThrow(
      'SPEC_INVALID: /rekey/directives/orders-api/deleteSince: expected',
    );
  });
});

describe('an order to rotate or to revoke', () => {
  test('I29: costs a fixed number of calls, and lists nothing', async () => {
    await world.declare();
    const first = () => noteOrder(order('CredentialCompromised', at(0)), world.rekey);
    const later = () => noteOrder(order('CredentialCompromised', at(1_000)), world.rekey);
    expect(await world.callsOf(first)).toEqual(['readParameters', 'createParameter']);
    expect(await world.callsOf(first)).toEqual(['readParameters']);
    world.move(1_000);
    expect(await world.callsOf(later)).toEqual(['readParameters', 'writeParameter', 'readParameter']);
  });

  test('I27: is stored, and answered with all that stands', async () => {
    await world.declare();
    await world.direct('changeBefore', '2026-02-01T00:00:00Z');
    expect(
      await noteOrder(order('CredentialCompromised', at(0), { evenIfLockedOut: true }), world.rekey),
    ).toEqual({
      credential: 'orders-api',
      document: '{}',
      noted: { revokeBefore: at(0), revokeAnyway: at(0) },
      directives: {
        changeBefore: new Date('2026-02-01T00:00:00Z'),
        revokeBefore: at(0),
        revokeAnyway: at(0),
      },
      isReadable: true,
    });
    expect(await world.standing()).toMatchObject({ revokeBefore: at(0), revokeAnyway: at(0) });
  });

  test('without the option leaves an earlier one with it as it is', async () => {
    await world.declare();
    await noteOrder(order('CredentialCompromised', at(-hourMs), { evenIfLockedOut: true }), world.rekey);
    await noteOrder(order('CredentialCompromised', at(0)), world.rekey);
    expect(await world.standing()).toEqual({ revokeBefore: at(0), revokeAnyway: at(-hourMs) });
  });

  const orders = [
    order('CredentialRotationRequested', at(-3 * minuteMs)),
    order('CredentialCompromised', at(-2 * minuteMs), { evenIfLockedOut: true }),
    order('CredentialCompromised', at(-1 * minuteMs)),
  ];
  test.each(arrivals(orders.map((_order, index) => index)))(
    'I18: arriving as %i, %i, %i, and each of them again, leaves what the latest of its kind says',
    async (...arriving) => {
      await world.declare();
      for (const index of [...arriving, ...arriving]) {
        const arrived = orders[index];
        if (arrived !== undefined) await noteOrder(arrived, world.rekey);
      }
      expect(await world.standing()).toEqual({
        rotateBefore: at(-3 * minuteMs),
        revokeBefore: at(-1 * minuteMs),
        revokeAnyway: at(-2 * minuteMs),
      });
      expect(world.published).toEqual([]);
    },
  );

  test('overwrites a directive of its kind that cannot be read, and is stored beside another one', async () => {
    await world.declare();
    await world.direct('revokeBefore', 'yesterday');
    await world.direct('rotateBefore', 'tomorrow');
    await noteOrder(order('CredentialCompromised', at(0)), world.rekey);
    expect(await world.read('/rekey/directives/orders-api/revokeBefore')).toBe('2026-03-01T12:00:00.000Z');
  });

  test('that another one overwrites at the same time is written again', async () => {
    await world.declare();
    await world.direct('revokeBefore', '2026-01-01T00:00:00Z');
    let isDisturbed = false;
    world.around.before = async (name) => {
      // Between what we wrote and our look at it: an older order that had read what stood before.
      if (name !== 'readParameter' || isDisturbed) return;
      isDisturbed = true;
      await world.direct('revokeBefore', '2026-02-01T00:00:00Z');
    };
    await noteOrder(order('CredentialCompromised', at(0)), world.rekey);
    expect(isDisturbed).toBe(true);
    expect(await world.standing()).toEqual({ revokeBefore: at(0) });
  });

  test('of a credential that there is none of is refused', async () => {
    await expect(noteOrder(order('CredentialCompromised', at(0)), world.rekey)).rejects.toMatchObject({
      code: 'SPEC_MISSING',
      effect: 'none',
    });
  });

  test('of a time to come is refused: versions made until then would be rotated again and again', async () => {
    await world.declare();
    await noteOrder(order('CredentialCompromised', at(9 * minuteMs)), world.rekey);
    await expect(
      noteOrder(order('CredentialCompromised', at(11 * minuteMs)), world.rekey),
    ).rejects.toMatchObject({ code: 'EVENT_INVALID' });
  });

  test('I20: by a clock that is ahead of ours covers every version that there is, and none that is made since', async () => {
    await world.declare();
    await world.makeSecret();
    // Our clock is two minutes behind that of Secrets Manager, by which the secret has just been made.
    world.move(-2 * minuteMs);
    await noteOrder(order('CredentialCompromised', at(3 * minuteMs)), world.rekey);
    expect(await world.standing()).toEqual({ revokeBefore: at(1) });
    await noteOrder(order('CredentialRotationRequested', at(-minuteMs)), world.rekey);
    expect(await world.standing()).toMatchObject({ rotateBefore: at(-minuteMs) });
  });

  test('to delete is none for the function that rotates', async () => {
    await world.declare();
    await expect(noteOrder(deletion(at(0)), world.rekey)).rejects.toThrow(
      'EVENT_INVALID: got CredentialDeletionRequested',
    );
  });

  test.each(['with', 'without'])(
    'I18: that was meant for a credential which was deleted changes nothing, %s another one of its name',
    async (which) => {
      if (which === 'with') await world.declare();
      await world.direct('deletedAt', '2026-03-01T11:00:00Z');
      const late = order('CredentialCompromised', new Date('2026-03-01T11:00:00Z'));
      expect(await noteOrder(late, world.rekey)).toBe('ignored');
      expect(await world.standing()).toEqual({ deletedAt: new Date('2026-03-01T11:00:00Z') });
      expect(world.ignored()).toEqual([
        {
          order: 'CredentialCompromised',
          credential: 'orders-api',
          orderedAt: '2026-03-01T11:00:00.000Z',
          because: 'the credential that it was meant for was deleted at 2026-03-01T11:00:00.000Z',
        },
      ]);
    },
  );
});

describe('an order to delete', () => {
  test('is stored before anything is done; the earliest counts, and one that comes twice is a success', async () => {
    await world.makeSecret();
    await world.declare();
    world.move(hourMs);
    expect(await noteDeletion(deletion(at(30 * minuteMs)), world.rekey)).toBe('noted');
    expect(await noteDeletion(deletion(at(30 * minuteMs)), world.rekey)).toBe('noted');
    expect(await noteDeletion(deletion(at(40 * minuteMs)), world.rekey)).toBe('noted');
    expect(await world.standing()).toEqual({ deleteSince: at(30 * minuteMs) });
    expect(await noteDeletion(deletion(at(20 * minuteMs)), world.rekey)).toBe('noted');
    expect(await world.standing()).toEqual({ deleteSince: at(20 * minuteMs) });
    expect(world.published).toEqual([]);
  });

  test('that says that the target is gone says so in a directive of its own, also where a deletion is under way', async () => {
    await world.makeSecret();
    await world.declare();
    await noteDeletion(deletion(at(0)), world.rekey);
    world.move(hourMs);
    await noteDeletion(deletion(at(hourMs), { targetIsGone: true }), world.rekey);
    expect(await world.standing()).toEqual({ deleteSince: at(0), targetIsGone: at(hourMs) });
  });

  test('is of now at the latest, as a clock ahead of ours must not put it off', async () => {
    await world.makeSecret();
    await world.declare();
    await noteDeletion(deletion(at(9 * minuteMs)), world.rekey);
    expect(await world.standing()).toEqual({ deleteSince: at(0) });
    await expect(noteDeletion(deletion(at(11 * minuteMs)), world.rekey)).rejects.toMatchObject({
      code: 'EVENT_INVALID',
    });
  });

  test('of the second in which the secret was made is younger: events have whole seconds', async () => {
    world.move(900);
    await world.makeSecret();
    await world.declare();
    expect(await noteDeletion(deletion(at(0)), world.rekey)).toBe('noted');
  });

  test('is stored where there is no secret', async () => {
    await world.declare();
    world.move(dayMs);
    expect(await noteDeletion(deletion(at(hourMs)), world.rekey)).toBe('noted');
    expect(await world.standing()).toEqual({ deleteSince: at(hourMs) });
  });

  test('that stands already stays so where there is no secret and a deployment has written the spec since', async () => {
    await world.declare();
    await noteDeletion(deletion(at(0)), world.rekey);
    world.move(hourMs);
    await world.declare();
    expect(await noteDeletion(deletion(at(0)), world.rekey)).toBe('noted');
    expect(await world.standing()).toEqual({ deleteSince: at(0) });
    expect(world.published).toEqual([]);
  });

  test('asks for the date of the spec only where there is no secret', async () => {
    await world.makeSecret();
    await world.declare();
    const calls = await world.callsOf(() => noteDeletion(deletion(at(0)), world.rekey));
    expect(calls).toEqual(['readParameters', 'describeSecret', 'createParameter']);
  });

  test('is refused where there is nothing to delete and never was', async () => {
    await expect(noteDeletion(deletion(at(0)), world.rekey)).rejects.toMatchObject({ code: 'SPEC_MISSING' });
    await expect(noteDeletion(order('CredentialCompromised', at(0)), world.rekey)).rejects.toThrow(
      'EVENT_INVALID: got CredentialCompromised',
    );
  });

  test('is refused while a directive cannot be read: it may be the tombstone', async () => {
    await world.makeSecret();
    await world.declare();
    await world.direct('deletedAt', 'long ago');
    await expect(noteDeletion(deletion(at(0)), world.rekey)).rejects.toMatchObject({ code: 'SPEC_INVALID' });
  });

  const deletedAt = '2026-03-01T11:00:00Z';
  interface Replay {
    readonly given: () => Promise<unknown>;
    readonly orderedAt: Date;
    readonly want: 'noted' | 'ignored';
    readonly because?: RegExp;
  }
  const replays: Record<string, Replay> = {
    'E2: older than the secret': {
      given: async () => {
        await world.makeSecret();
        await world.declare();
      },
      orderedAt: at(-60 * dayMs),
      want: 'ignored',
      because:
        /^it is older than the secret, which was made at 2026-03-01T12:00:00\.000Z; send the order again/,
    },
    'older than the spec of a credential whose secret is not made yet': {
      given: () => world.declare(),
      orderedAt: at(-minuteMs),
      want: 'ignored',
      because:
        /^it is older than the spec, which was stored at 2026-03-01T12:00:00\.000Z; send the order again/,
    },
    'older than a spec that a deployment has changed, while the secret is older': {
      given: async () => {
        world.move(-dayMs);
        await world.makeSecret();
        world.move(dayMs);
        await world.declare();
      },
      orderedAt: at(-minuteMs),
      want: 'noted',
    },
    'that was carried out, and nothing is left': {
      given: () => world.direct('deletedAt', deletedAt),
      orderedAt: at(-2 * hourMs),
      want: 'ignored',
      because: /was deleted at 2026-03-01T11:00:00\.000Z/,
    },
    'that was carried out, and the credential was requested anew with its old secret, which was restored': {
      given: async () => {
        world.move(-dayMs);
        await world.makeSecret();
        world.move(dayMs);
        await world.direct('deletedAt', deletedAt);
        await world.declare();
      },
      orderedAt: at(-2 * hourMs),
      want: 'ignored',
      because: /was deleted at/,
    },
    'of a later life of that credential': {
      given: async () => {
        world.move(-dayMs);
        await world.makeSecret();
        world.move(dayMs);
        await world.direct('deletedAt', deletedAt);
        await world.declare();
      },
      orderedAt: at(-30 * minuteMs),
      want: 'noted',
    },
    'at the very end of the deletion, when the spec is gone and the order still stands': {
      given: () => world.direct('deleteSince', deletedAt),
      orderedAt: new Date(deletedAt),
      want: 'noted',
    },
  };
  test.each(Object.entries(replays))(
    'I18: %s, comes again and again',
    async (_sentence, { given, orderedAt, want, because }) => {
      await given();
      const before = await world.standing();
      for (const _delivery of [1, 2])
        expect(await noteDeletion(deletion(orderedAt, { targetIsGone: true }), world.rekey)).toBe(want);
      if (want === 'ignored') expect(await world.standing()).toEqual(before);
      expect(world.ignored().map(({ because: why }) => why)).toEqual(
        because === undefined ? [] : [expect.stringMatching(because), expect.stringMatching(because)],
      );
    },
  );
});

describe('orders that are over', () => {
  /** As the deletion of a credential ends. */
  const end = async (ports: Ports): Promise<void> => {
    await buryCredential('orders-api', at(0), ports);
    await forgetOrders('orders-api', ports);
  };

  test('are forgotten, and the tombstone stays; nothing is deleted that is not there', async () => {
    await world.direct('deleteSince', '2026-03-01T11:00:00Z');
    await world.direct('targetIsGone', '2026-03-01T11:00:00Z');
    await world.direct('revokeBefore', 'what nobody can read');
    const calls = await world.callsOf(() => end(world.ports));
    expect(await world.standing()).toEqual({ deletedAt: at(0) });
    expect(calls).toEqual([
      'readParameters',
      'createParameter',
      'readParameters',
      'deleteParameter',
      'deleteParameter',
      'deleteParameter',
    ]);
    await buryCredential('orders-api', at(-dayMs), world.ports);
    await forgetOrders('orders-api', world.ports);
    expect(await world.standing()).toEqual({ deletedAt: at(0) });
  });

  test('I18: killed anywhere, they leave the order to delete or the tombstone for a request that comes again', async () => {
    for (let killed = 1; killed <= 5; killed += 1) {
      world = createWorld();
      await world.direct('deleteSince', '2026-03-01T11:00:00Z');
      await world.direct('rotateBefore', '2026-03-01T10:00:00Z');
      let calls = 0;
      const dying = interpose(world.ports, async (_name, _request, call) => {
        calls += 1;
        if (calls === killed) throw new Error('killed');
        return call();
      });
      await expect(end(dying)).rejects.toThrow('killed');
      const { deleteSince, deletedAt } = await world.standing();
      expect(deleteSince ?? deletedAt, `killed at call ${killed}`).toBeDefined();
      await end(world.ports);
      expect(await world.standing()).toEqual({ deletedAt: at(0) });
    }
  });

  test('tombstones stand for 400 days, and longer where the credential was deleted again', async () => {
    const old = at(-401 * dayMs).toISOString();
    await world.direct('deletedAt', old, 'old');
    await world.direct('deletedAt', old, 'again');
    await world.direct('deletedAt', at(-399 * dayMs).toISOString(), 'young');
    await world.direct('deletedAt', 'unreadable', 'broken');
    await world.direct('rotateBefore', old, 'old');
    const listed = await world.ports.listParameters({ path: '/rekey/directives/' });
    await world.direct('deletedAt', at(0).toISOString(), 'again');
    await forgetTombstones(listed, world.ports);
    const left = await world.ports.listParameters({ path: '/rekey/directives/' });
    expect(left.map(({ parameter }) => parameter)).toEqual([
      '/rekey/directives/again/deletedAt',
      '/rekey/directives/broken/deletedAt',
      '/rekey/directives/old/rotateBefore',
      '/rekey/directives/young/deletedAt',
    ]);
  });
});

describe('a pause', () => {
  const db = { provider: 'acme', targetId: 'db-1' };
  const other = { provider: 'acme', targetId: 'db-2' };
  const since = (target = db) => pausedSince(target, world.rekey);

  test('stops one target or every one, and is read in one call', async () => {
    expect(await since()).toBeUndefined();
    await notePause(pause('RekeyPaused', at(0), db), world.rekey);
    expect(await world.callsOf(() => since())).toEqual(['readParameters']);
    expect(await since()).toEqual(at(0));
    expect(await since(other)).toBeUndefined();
    await notePause(pause('RekeyPaused', at(-minuteMs)), world.rekey);
    expect([await since(), await since(other)]).toEqual([at(-minuteMs), at(-minuteMs)]);
    expect(await world.read('/rekey/pause/all')).toBe('{"state":"paused","at":"2026-03-01T11:59:00.000Z"}');
    expect(await world.read('/rekey/pause/acme/db-1')).toBe(
      '{"state":"paused","at":"2026-03-01T12:00:00.000Z"}',
    );
  });

  test('of everything ends without ending that of a target, and the other way round', async () => {
    await notePause(pause('RekeyPaused', at(-3 * minuteMs), db), world.rekey);
    await notePause(pause('RekeyPaused', at(-2 * minuteMs)), world.rekey);
    await notePause(pause('RekeyResumed', at(-1 * minuteMs)), world.rekey);
    expect([await since(), await since(other)]).toEqual([at(-3 * minuteMs), undefined]);
    await notePause(pause('RekeyPaused', at(0)), world.rekey);
    await notePause(pause('RekeyResumed', at(0), db), world.rekey);
    expect([await since(), await since(other)]).toEqual([at(0), at(0)]);
  });

  const ends: Record<string, { orders: readonly PauseOrder[]; want: string }> = {
    'the last one pauses': {
      orders: [
        pause('RekeyPaused', at(-3 * minuteMs)),
        pause('RekeyResumed', at(-2 * minuteMs)),
        pause('RekeyPaused', at(-minuteMs)),
      ],
      want: '{"state":"paused","at":"2026-03-01T11:59:00.000Z"}',
    },
    'the last one resumes': {
      orders: [
        pause('RekeyPaused', at(-3 * minuteMs)),
        pause('RekeyPaused', at(-2 * minuteMs)),
        pause('RekeyResumed', at(-minuteMs)),
      ],
      want: '{"state":"resumed","at":"2026-03-01T11:59:00.000Z"}',
    },
    'both are of one second': {
      orders: [
        pause('RekeyResumed', at(-3 * minuteMs)),
        pause('RekeyResumed', at(-minuteMs)),
        pause('RekeyPaused', at(-minuteMs)),
      ],
      want: '{"state":"paused","at":"2026-03-01T11:59:00.000Z"}',
    },
  };
  describe.each(Object.entries(ends))('I18: where %s', (_sentence, { orders, want }) => {
    test.each(arrivals([0, 1, 2]))(
      'it stands, arriving as %i, %i, %i and each once more',
      async (...indexes) => {
        for (const index of [...indexes, ...indexes]) {
          const arrived = orders[index];
          if (arrived !== undefined) await notePause(arrived, world.rekey);
        }
        expect(await world.read('/rekey/pause/all')).toBe(want);
      },
    );
  });

  test('that comes twice is a success, and one that a younger order has overtaken says so', async () => {
    const late = pause('RekeyPaused', at(-2 * minuteMs), db);
    expect(await notePause(late, world.rekey)).toBe('noted');
    expect(await notePause(late, world.rekey)).toBe('noted');
    expect(world.published).toEqual([]);
    await notePause(pause('RekeyResumed', at(-minuteMs), db), world.rekey);
    expect(await notePause(late, world.rekey)).toBe('ignored');
    expect(world.ignored()).toEqual([
      {
        order: 'RekeyPaused',
        provider: 'acme',
        target: 'db-1',
        orderedAt: '2026-03-01T11:58:00.000Z',
        because: 'a younger order of 2026-03-01T11:59:00.000Z stands: resumed',
      },
    ]);
    expect(await since()).toBeUndefined();
  });

  test('out of an archive stops nothing again, and ends no pause', async () => {
    expect(await notePause(pause('RekeyPaused', at(-dayMs - 1_000)), world.rekey)).toBe('ignored');
    expect(await since()).toBeUndefined();
    await world.put(
      '/rekey/pause/all',
      JSON.stringify({ state: 'paused', at: at(-9 * dayMs).toISOString() }),
    );
    expect(await notePause(pause('RekeyResumed', at(-2 * dayMs)), world.rekey)).toBe('ignored');
    expect(await since()).toEqual(at(-9 * dayMs));
    expect(world.ignored().map(({ because }) => because)).toEqual(
      Array(2).fill('it is older than a day; send it again if it is still meant'),
    );
    // It says what is so already.
    expect(await notePause(pause('RekeyPaused', at(-2 * dayMs)), world.rekey)).toBe('noted');
  });

  test('of a time to come is refused: nobody could end it before', async () => {
    await notePause(pause('RekeyPaused', at(9 * minuteMs)), world.rekey);
    await expect(notePause(pause('RekeyPaused', at(11 * minuteMs)), world.rekey)).rejects.toMatchObject({
      code: 'EVENT_INVALID',
    });
  });

  test.each(['', 'paused', '{"state":"stopped","at":"2026-03-01T12:00:00Z"}', '{"state":"resumed"}'])(
    'is what cannot be read: %j, until an order is sent again',
    async (document) => {
      await world.put('/rekey/pause/acme/db-1', document === '' ? ' ' : document);
      expect(await since()).toEqual(new Date(0));
      expect(await since(other)).toBeUndefined();
      expect(world.logged).toEqual([
        'error /rekey/pause/acme/db-1 cannot be read and counts as a pause; send RekeyPaused or RekeyResumed again',
      ]);
      await notePause(pause('RekeyResumed', at(0), db), world.rekey);
      expect(await since()).toBeUndefined();
    },
  );

  test('that an older order overwrites at the same time is written again', async () => {
    let isDisturbed = false;
    let reads = 0;
    world.around.before = async (name) => {
      if (name !== 'readParameter') return;
      reads += 1;
      // Not at the first look: between what we wrote and our look at it.
      if (reads !== 2 || isDisturbed) return;
      isDisturbed = true;
      await world.put('/rekey/pause/all', JSON.stringify({ state: 'resumed', at: at(-1_000).toISOString() }));
    };
    await notePause(pause('RekeyPaused', at(0)), world.rekey);
    expect(isDisturbed).toBe(true);
    expect(await since()).toEqual(at(0));
  });
});
