import { createHash } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { StoreError } from '../../functions/core/errors.ts';
import type { RekeyEvent } from '../../functions/core/events.ts';
import type { FormerTarget } from '../../functions/core/fleet.ts';
import type { Ports, SecretDescription } from '../../functions/core/ports.ts';
import { parseSpec } from '../../functions/core/spec.ts';
import {
  forgetTargets,
  keepFormerTargets,
  readFormerTargets,
} from '../../functions/lifecycle/former-targets.ts';
import { noteGone, noteThere } from '../../functions/lifecycle/gone-targets.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { startRotations } from '../../functions/lifecycle/start-rotations.ts';
import { Unwritten } from '../../functions/lifecycle/unwritten.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import { startNotes } from '../support/notes.ts';
import { startTestRekey, type TestRekey, token } from '../support/rekey.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
let rekey: TestRekey;
beforeAll(async () => {
  rekey = await startTestRekey(vendors);
});
afterAll(() => rekey.stop());

// A cluster a test.
let clusters = 0;
let clusterId = '';
beforeEach(() => addCluster());
function addCluster(): void {
  clusters += 1;
  clusterId = `in01-${String(clusters).padStart(16, '0')}`;
  vendors().zilliz.api.addCluster({ id: clusterId, name: 'orders', roles: ['orders_rw'] });
}
afterEach(async () => {
  rekey.refuse();
  rekey.interruptAt(undefined);
  for (const { parameter } of await kept('/rekey/'))
    await rekey.parameters.call('DeleteParameter', { Name: parameter });
});

const kept = (path: string) => rekey.invoke(({ ports }) => ports.listParameters({ path }));
const move = (ms: number) => vendors().clock.move(ms);
const usernames = (): readonly string[] =>
  (vendors().zilliz.api.clusters.get(clusterId)?.users() ?? []).map(({ username }) => username);
const create = (user: string) =>
  vendors().zilliz.api.actor.createUser(clusterId, user, 'Somebodys-password_000000000001');
const remove = (user: string) => vendors().zilliz.api.actor.deleteUser(clusterId, user);
const published = (type: string, credential?: string) =>
  rekey
    .published()
    .filter(({ 'detail-type': each }) => each === type)
    .map(({ detail }) => detail)
    .filter((detail) => credential === undefined || detail['credential'] === credential);

/** A credential on the cluster of this test, with a superseded user beside the current one. */
async function rotated(name = `orders-${clusters}`): Promise<{ name: string; old: string; current: string }> {
  await rekey.request({
    name,
    provider: 'zilliz-cloud',
    target: { clusterId },
    apiKeySecret: 'rekey/api-keys/zilliz',
    usernamePrefix: name.replaceAll('-', '_'),
    strategy: 'replace-user',
    grace: 'PT1H',
    privileges: { roles: ['orders_rw'] },
  });
  await rekey.secretsManager.idle();
  const userOf = async () => (await rekey.login(name, 'AWSCURRENT'))?.username ?? 'nobody';
  const old = await userOf();
  await rekey.rotate(name);
  return { name, old, current: await userOf() };
}
/** One pass of reconcile-users over the cluster of this test. */
const look = () =>
  rekey.reconcile({
    is: 'messages',
    messages: [{ id: token(), body: JSON.stringify({ provider: 'zilliz-cloud', targetId: clusterId }) }],
  });

const ways: readonly (readonly [string, readonly (keyof Ports)[]])[] = [
  ['cannot be written', ['writeNote', 'deleteNote']],
  ['cannot be read', ['readNote', 'listNotes']],
  ['cannot be reached', ['readNote', 'listNotes', 'writeNote', 'deleteNote']],
];
describe.each(ways)('while the table of notes %s', (way, refused) => {
  test('I28: a credential whose user was dropped by hand is repaired in the first pass, and the bus is not flooded', async () => {
    const { name, current } = await rotated();
    await look();
    remove(current);
    rekey.refuse(...refused);
    for (let pass = 1; pass <= 3; pass += 1) {
      expect(await look()).toEqual({ batchItemFailures: [] });
      expect(await rekey.parameter(`/rekey/directives/${name}/rotateBefore`), `pass ${pass}`).toBeDefined();
      move(hourMs);
    }
    // Once a pass at most where nobody can know what was published before.
    const found = published('DriftFound', name);
    expect(found.map(({ kind }) => kind)).toEqual(
      Array.from({ length: way === 'cannot be written' ? 1 : 3 }, () => 'SecretWithoutUser'),
    );
    expect(published('DriftRepaired', name)).toHaveLength(1);
  });

  test('a superseded user is retired, with its intent and its outcome', async () => {
    const { name, old, current } = await rotated();
    move(2 * dayMs);
    rekey.refuse(...refused);
    const { targets } = await rekey.sweep();
    expect(targets.flatMap(({ users }) => users)).toMatchObject([{ username: old, outcome: 'deleted' }]);
    expect(usernames()).toEqual(['db_admin', current]);
    expect(published('DatabaseUserRetired', name)).toHaveLength(1);
    expect(published('DatabaseUserDeleted', name)).toHaveLength(1);
  });

  test('a compromised login is rotated away from, and both of its users are deleted', async () => {
    const { name, current } = await rotated();
    rekey.refuse(...refused);
    const order = {
      is: 'order',
      order: 'CredentialCompromised',
      credential: name,
      orderedAt: vendors().clock.now(),
    } as const;
    await rekey.order(order);
    await rekey.secretsManager.idle();
    move(30 * 60_000);
    await rekey.sweep(order);
    const { username = '' } = (await rekey.login(name, 'AWSCURRENT')) ?? {};
    expect(username).not.toBe(current);
    expect(usernames()).toEqual(['db_admin', username]);
  });

  test('a credential is deleted with its users', async () => {
    const { name } = await rotated();
    move(hourMs);
    rekey.refuse(...refused);
    const orderedAt = vendors().clock.now();
    await rekey.sweep({ is: 'order', order: 'CredentialDeletionRequested', credential: name, orderedAt });
    for (let pass = 1; pass <= 3; pass += 1) {
      move(hourMs);
      await rekey.sweep();
    }
    expect(usernames()).toEqual(['db_admin']);
    expect(await rekey.parameter(`/rekey/credentials/${name}`)).toBeUndefined();
    expect(published('CredentialDeleted', name)).toHaveLength(1);
  });

  test('a pass measures what it measures otherwise, and queues every target', async () => {
    const { name } = await rotated();
    rekey.refuse(...refused);
    rekey.measured.length = 0;
    await rekey.reconcile();
    expect(rekey.takeMessages().messages).toHaveLength(1);
    await look();
    await rekey.start();
    await rekey.sweep();
    const metrics = new Set(rekey.measured.map(({ metric }) => metric));
    for (const metric of [
      ...(['OpenFindings', 'OrphanedUsers', 'ForeignUsers', 'RotationsStuck'] as const),
      ...(['RotationOverdueAge', 'BreakersOpen', 'PausedAge', 'RetiredStillConnectedAge'] as const),
    ])
      expect(metrics, name).toContain(metric);
  });

  test('nobody is taken for new or gone who was there before', async () => {
    create('colleague');
    await rotated();
    await look();
    rekey.refuse(...refused);
    await look();
    rekey.refuse();
    await look();
    const told = [...published('DatabaseUserAppeared'), ...published('DatabaseUserDisappeared')];
    expect(told.filter(({ target }) => target === clusterId)).toEqual([]);
  });
});

test('a failure of the table is logged where it happens, with what it is about', async () => {
  await rotated();
  rekey.refuse('readNote', 'listNotes');
  rekey.logged.length = 0;
  await rekey.reconcile();
  await rekey.reconcile(rekey.takeMessages());
  await rekey.sweep();
  const lines = rekey.logged.filter((line) => line.includes('is told to fail'));
  expect(lines).toEqual(
    expect.arrayContaining([
      expect.stringContaining('"place":"looks"'),
      expect.stringContaining('"place":"settled"'),
      expect.stringContaining('"place":"findings/reconcile"'),
      expect.stringContaining('"place":"users"'),
      expect.stringContaining('"place":"former-targets"'),
    ]),
  );
});

test.each([
  ['takes no writes', ['writeNote', 'deleteNote']],
  ['cannot be reached', ['readNote', 'listNotes', 'writeNote', 'deleteNote']],
] as const)(
  'while the table %s, after seeing a target settled twice, an instance visits it again only if something changes',
  async (_way, refused) => {
    const { name } = await rotated();
    move(dayMs);
    await rekey.sweep();
    rekey.refuse(...refused);
    const visited = async () => (await rekey.sweep()).targets.some(({ target }) => target === clusterId);
    const visits: boolean[] = [];
    for (let pass = 0; pass < 4; pass += 1) {
      move(15 * 60_000);
      visits.push(await visited());
    }
    expect(visits.slice(2)).toEqual([false, false]);
    await rekey.rotate(name);
    expect(await visited()).toBe(true);
  },
);

test('a bus that takes no finding keeps no repair away: the task comes again, and then the finding is published', async () => {
  const { name, current } = await rotated();
  await look();
  remove(current);
  rekey.refuse('publish');
  expect((await look()).batchItemFailures).toHaveLength(1);
  expect(await rekey.parameter(`/rekey/directives/${name}/rotateBefore`)).toBeDefined();
  rekey.refuse();
  expect((await look()).batchItemFailures).toEqual([]);
  await look();
  expect(published('DriftFound', name)).toHaveLength(1);
});

test('I8: a credential whose secret somebody scheduled for deletion stays while nobody can say where else it has users', async () => {
  const { name } = await rotated();
  await rekey.secretsManager.call('DeleteSecret', { SecretId: `rekey/${name}` });
  rekey.refuse('listNotes');
  const orderedAt = vendors().clock.now();
  await rekey.sweep({ is: 'order', order: 'CredentialDeletionRequested', credential: name, orderedAt });
  move(hourMs);
  await rekey.sweep();
  expect(await rekey.parameter(`/rekey/credentials/${name}`)).toBeDefined();
  rekey.refuse();
  for (let pass = 1; pass <= 2; pass += 1) {
    move(hourMs);
    await rekey.sweep();
  }
  expect(await rekey.parameter(`/rekey/credentials/${name}`)).toBeUndefined();
});

test('the list of users of a slower look does not take the place of a newer one', async () => {
  await rotated();
  await look();
  create('early');
  const by = async (): Promise<void> => {
    create('late');
    await look();
  };
  rekey.interruptAt({ call: 'writeNote', when: 'before', by });
  await look();
  await look();
  const told = published('DatabaseUserAppeared').filter(({ target }) => target === clusterId);
  // Of the first one two looks at once tell.
  expect(told.map(({ username }) => username).toSorted()).toEqual(['early', 'early', 'late']);
  const note = (await rekey.notes.stored('users'))[`zilliz-cloud/${clusterId}`];
  expect(note).toContain('late');
});

describe('two passes at once', () => {
  const target = { provider: 'zilliz-cloud', targetId: 'in01-gone' };
  /** The other pass comes between reading and writing. */
  const overtaken = (inner: Rekey, by: () => Promise<unknown>): Rekey => ({
    ...inner,
    ports: {
      ...inner.ports,
      async writeNote(request) {
        await by();
        return inner.ports.writeNote(request);
      },
    },
  });

  test('of which one finds the target that the other has seen gone: what was seen before proves nothing', async () => {
    const said = { said: 'gone', orderedAt: undefined, dryRun: false };
    const see = (pass: Rekey) => noteGone('goes', target, said, pass);
    await rekey.invoke(async (pass) => {
      await see(pass);
      move(12 * hourMs);
      await see(pass);
      move(12 * hourMs);
      await see(overtaken(pass, () => noteThere('goes', target, pass)));
      move(hourMs);
      const { gone, isProven } = await see(pass);
      expect([gone.sightings, isProven]).toEqual([1, false]);
      await forgetTargets('goes', pass);
    });
  });

  test('that find two former targets of one credential note both of them', async () => {
    const spec = await parseSpec(
      {
        name: 'moves',
        provider: 'zilliz-cloud',
        target: { clusterId: 'in01-now' },
        apiKeySecret: 'rekey/api-keys/zilliz',
        usernamePrefix: 'moves',
      },
      { loadProvider, loadConsumer },
    );
    const former = (targetId: string, versionId: string): FormerTarget => ({
      provider: 'zilliz-cloud',
      targetId,
      database: '',
      versionId,
      username: `moves_${versionId}`,
      labels: ['AWSCURRENT'],
      isAdopted: false,
    });
    const versions = ['v1', 'v2'].map((versionId) => ({
      versionId,
      labels: new Set<string>(),
      createdAt: vendors().clock.now(),
    }));
    const keep = (one: FormerTarget, pass: Rekey) =>
      keepFormerTargets({ name: 'moves', spec, directives: {} }, [one], { versions }, pass);
    await rekey.invoke(async (pass) => {
      let isOvertaken = false;
      const other = async () => {
        if (isOvertaken) return;
        isOvertaken = true;
        await keep(former('in01-two', 'v2'), pass);
      };
      await keep(former('in01-one', 'v1'), overtaken(pass, other));
      const noted = await readFormerTargets(pass);
      const known = noted === 'unreadable' ? [] : (noted.get('moves') ?? []);
      expect(known.map(({ targetId }) => targetId)).toEqual(['in01-one', 'in01-two']);
      await forgetTargets('moves', pass);
    });
  });
});

test('nothing is left of three previews that were made, looked at and deleted', async () => {
  const places = [
    ...['findings/reconcile', 'findings/retire', 'findings/consumers'],
    ...['users', 'former-targets', 'gone-targets'],
  ];
  const left = async () =>
    (await Promise.all(places.map(async (place) => Object.keys(await rekey.notes.stored(place))))).flat();
  const before = await left();
  const names: string[] = [];
  for (let preview = 1; preview <= 3; preview += 1) {
    addCluster();
    create('developer');
    const { name } = await rotated(`preview-${preview}`);
    names.push(name);
    places.push(`deletions/zilliz-cloud/${clusterId}`, `sessions/zilliz-cloud/${clusterId}`);
    await rekey.reconcile();
    await rekey.reconcile(rekey.takeMessages());
    expect(await rekey.notes.stored('users')).toHaveProperty([`zilliz-cloud/${clusterId}`]);
    move(hourMs);
    const orderedAt = vendors().clock.now();
    await rekey.sweep({ is: 'order', order: 'CredentialDeletionRequested', credential: name, orderedAt });
    for (let pass = 1; pass <= 3; pass += 1) {
      move(hourMs);
      await rekey.sweep();
      await rekey.reconcile();
      await rekey.reconcile(rekey.takeMessages());
    }
  }
  const parameters = (await kept('/rekey/')).map(({ parameter }) => parameter);
  // A late copy of the request or of an order must not bring it back: for more than a year.
  expect(parameters.toSorted()).toEqual(names.map((name) => `/rekey/directives/${name}/deletedAt`));
  expect(await left()).toEqual(before);
  move(401 * dayMs);
  await rekey.sweep();
  expect(await kept('/rekey/')).toEqual([]);
  const live = await rekey.invoke(({ ports }) =>
    Promise.all(places.map((place) => ports.listNotes({ place }))),
  );
  expect(live.flat()).toEqual([]);
});

test('what a pass that was killed leaves of a target expires', async () => {
  const { name } = await rotated();
  await look();
  const key = `zilliz-cloud/${clusterId}`;
  // The target is visited no more, as if the pass that deleted its last credential had died after that.
  await rekey.parameters.call('DeleteParameter', { Name: `/rekey/credentials/${name}` });
  const read = () => rekey.invoke(({ ports }) => ports.readNote({ place: 'users', key }));
  move(89 * dayMs);
  expect(await read()).not.toBe('absent');
  move(2 * dayMs);
  expect(await read()).toBe('absent');
});

describe('the breakers of 1,000 targets', () => {
  const targets = 1_000;
  /** start-rotations between specs, secrets and rotations that are told, not played: an outage of one vendor. */
  function outage() {
    let nowMs = Date.parse('2026-03-01T12:00:00Z');
    let isOver = false;
    const now = () => new Date(nowMs);
    const notes = startNotes(now);
    const published: RekeyEvent[] = [];
    // Two a target: one alone is quarantined, and opens no breaker.
    const names = Array.from({ length: targets }, (_, index) => [`a${index}`, `b${index}`]).flat();
    const specs = names.map((name) => ({
      parameter: `/rekey/credentials/${name}`,
      document: JSON.stringify({
        name,
        provider: 'cockroachdb-cloud',
        usernamePrefix: name,
        apiKeySecret: 'rekey/api-keys/cockroachdb',
        target: { clusterId: `0b7c5a2e-6d2f-4b53-9d1a-${name.slice(1).padStart(12, '0')}` },
      }),
    }));
    const hoursAgo = (hours: number) => new Date(nowMs - hours * hourMs);
    const described = (secretId: string): SecretDescription => ({
      arn: `arn:${secretId}`,
      name: secretId,
      rotationEnabled: true,
      lastRotatedAt: hoursAgo(800),
      changedAt: hoursAgo(0.5),
      labelsByVersion: new Map([
        ['v0', new Set(['AWSPREVIOUS'])],
        ['v1', new Set(['AWSCURRENT'])],
      ]),
    });
    const ports: Partial<Ports> = {
      ...notes.ports,
      now: async () => now(),
      sleep: async (ms) => {
        nowMs += ms;
      },
      listParameters: async ({ path }) => (path === '/rekey/credentials/' ? specs : []),
      readParameters: async ({ parameters }) =>
        new Map(
          specs
            .filter(({ parameter }) => parameters.includes(parameter))
            .map((each) => [each.parameter, each.document]),
        ),
      listSecrets: async () => names.map((name) => ({ ...described(`rekey/${name}`), isManaged: false })),
      describeSecret: async ({ secretId }) => described(secretId),
      listVersions: async () => [
        { versionId: 'v0', labels: new Set(['AWSPREVIOUS']), createdAt: hoursAgo(900) },
        { versionId: 'v1', labels: new Set(['AWSCURRENT']), createdAt: hoursAgo(800) },
        ...(isOver
          ? []
          : [0.5, 0.4, 0.3].map((hours, index) => ({
              versionId: `f${index}`,
              labels: new Set<string>(),
              createdAt: hoursAgo(hours),
            }))),
      ],
      startRotation: async () => 'in-progress',
      publish: async (events) => void published.push(...events),
    };
    const world: Rekey = {
      ports: ports as Ports,
      loadProvider,
      loadConsumer,
      sha256: (text) => createHash('sha256').update(text).digest(),
      log: () => undefined,
      measure: () => undefined,
      unwritten: new Unwritten(),
    };
    return {
      ports,
      notes,
      states: () => {
        const told = published
          .splice(0)
          .flatMap(({ type, detail }) => (type === 'BreakerChanged' ? [detail.state] : []));
        return Object.fromEntries(
          [...Map.groupBy(told, (state) => state)].map(([state, all]) => [state, all.length]),
        );
      },
      end: () => {
        isOver = true;
      },
      pass: async () => {
        await startRotations(
          { is: 'pass', dryRun: false },
          { rotationFunctionArn: 'arn' },
          new Date(nowMs + 590_000),
          world,
        );
        nowMs += 300_000;
      },
    };
  }

  test('are told of once when they open and once when they close, and every pass ends well', async () => {
    const { pass, states, end, notes } = outage();
    await pass();
    expect(states()).toEqual({ opened: targets });
    await pass();
    await pass();
    expect(states()).toEqual({});
    expect(Object.keys(await notes.stored('breakers'))).toHaveLength(targets);
    end();
    await pass();
    expect(states()).toEqual({ closed: targets });
    await pass();
    expect(states()).toEqual({});
    expect(await notes.stored('breakers')).toEqual({});
  });

  test('are told of once by a function instance that can note none of them', async () => {
    const { ports, pass, states, notes } = outage();
    let writes = 0;
    Object.assign(ports, {
      writeNote: async () => {
        writes += 1;
        throw new StoreError('STORE_UNAVAILABLE', 'none', 'PutItem is told to fail');
      },
    });
    await pass();
    await pass();
    await pass();
    expect(states()).toEqual({ opened: targets });
    // A table that does not answer is not asked a thousand times.
    expect(writes).toBeLessThan(100);
    Object.assign(ports, notes.ports);
    await pass();
    expect(states()).toEqual({});
    expect(Object.keys(await notes.stored('breakers'))).toHaveLength(targets);
  });
});
