import { createHash } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { auditRecord, parseAuditInvocation } from '../../functions/core/audit.ts';
import { StoreError } from '../../functions/core/errors.ts';
import { places } from '../../functions/core/notes.ts';
import type { Login } from '../../functions/core/provider.ts';
import { secretString } from '../../functions/core/secret-value.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { usernames } from '../../functions/core/username.ts';
import { readFleet } from '../../functions/lifecycle/fleet.ts';
import { forgetTargets } from '../../functions/lifecycle/former-targets.ts';
import { noteGone } from '../../functions/lifecycle/gone-targets.ts';
import { listMemberNotes, noteMembers } from '../../functions/lifecycle/members.ts';
import { reconcileUsers } from '../../functions/lifecycle/reconcile-users.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import type { BusEvent } from '../../infra/local/aws/bus-event.ts';
import {
  addCockroachdbOrders,
  addRenderOrders,
  addVultrOrders,
} from '../../infra/local/providers/fixtures.ts';
import { deaths, startTestRekey, type TestRekey, token, webhookBaseUrl } from '../support/rekey.ts';
import { isWrite, useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
let rekey: TestRekey;

/** Two targets each, and what people do to them. */
const scenarios = {
  'render-postgres': {
    ids: ['dpg-d1abc2d3e4f5g6h7i8j9-a', 'dpg-d2abc2d3e4f5g6h7i8j9-a'],
    field: 'postgresId',
    rest: { apiKeySecret: 'rekey/api-keys/render' },
    shut: (id: string) => vendors().render.api.actor.suspend(id),
    open: (id: string) => vendors().render.api.actor.resume(id),
    remove: (id: string) => vendors().render.api.actor.deleteDatabase(id),
    restore: (id: string) => vendors().render.api.actor.restoreDatabase(id),
    said: /^NOT_FOUND/,
  },
  'cockroachdb-cloud': {
    ids: ['0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10', '1b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10'],
    field: 'clusterId',
    rest: { apiKeySecret: 'rekey/api-keys/cockroachdb', privileges: { roles: ['orders_rw'] } },
    shut: (id: string) => vendors().cockroachdb.api.actor.setState(id, 'LOCKED'),
    open: (id: string) => vendors().cockroachdb.api.actor.setState(id, 'CREATED'),
    remove: (id: string) => vendors().cockroachdb.api.actor.setState(id, 'DELETED'),
    restore: (id: string) => vendors().cockroachdb.api.actor.setState(id, 'CREATED'),
    said: /^its state is DELETED$/,
  },
  'vultr-valkey': {
    ids: ['6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21', '7f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21'],
    field: 'databaseId',
    rest: {
      apiKeySecret: 'rekey/api-keys/vultr',
      privileges: { categories: ['+@read'], keys: ['orders:*'] },
    },
    shut: (id: string) => vendors().vultr.api.actor.setStatus(id, 'Rebuilding'),
    open: (id: string) => vendors().vultr.api.actor.setStatus(id, 'Running'),
    remove: () =>
      vendors().vultr.api.faults.inject({
        operation: 'getDatabase',
        kind: 'status',
        status: 404,
        json: { error: 'Not a valid Database Subscription UUID', status: 404 },
        times: 10_000,
      }),
    restore: () => vendors().vultr.api.faults.clear(),
    said: /^NOT_FOUND/,
  },
  'zilliz-cloud': {
    ids: ['in01-108240180a4faf8', 'in01-208240180a4faf8'],
    field: 'clusterId',
    rest: { apiKeySecret: 'rekey/api-keys/zilliz', privileges: { roles: ['orders_rw'] } },
    shut: (id: string) => vendors().zilliz.api.actor.setStatus(id, 'SUSPENDED'),
    open: (id: string) => vendors().zilliz.api.actor.setStatus(id, 'RUNNING'),
    remove: (id: string) => vendors().zilliz.api.actor.setStatus(id, 'DELETED'),
    restore: (id: string) => vendors().zilliz.api.actor.setStatus(id, 'RUNNING'),
    said: /^its status is DELETED$/,
  },
} as const;
type ProviderId = keyof typeof scenarios;
const providers = Object.keys(scenarios) as readonly ProviderId[];
const [one, two] = scenarios['zilliz-cloud'].ids;

beforeAll(async () => {
  const { render, cockroachdb, vultr, zilliz } = vendors();
  for (const [index, id] of scenarios['render-postgres'].ids.entries())
    await addRenderOrders(render.api, render.postgres, { id, name: `orders-${index}` });
  const [cluster, otherCluster] = scenarios['cockroachdb-cloud'].ids;
  await addCockroachdbOrders(cockroachdb.api, cockroachdb.postgres, { id: cluster });
  await cockroachdb.api.addCluster({ id: otherCluster, name: 'other' });
  for (const id of scenarios['vultr-valkey'].ids) await addVultrOrders(vultr.api, vultr.engine, { id });
  for (const id of [one, two]) zilliz.api.addCluster({ id, name: id, roles: ['orders_rw'] });
  rekey = await startTestRekey(vendors);
});
afterAll(() => rekey.stop());
beforeEach(() => {
  rekey.failures.length = 0;
  rekey.killAt(undefined);
  begin = rekey.published().length;
});
afterEach(async () => {
  vendors().zilliz.api.faults.clear();
  for (const provider of providers) {
    const { ids, open, restore } = scenarios[provider];
    for (const id of ids) {
      restore(id);
      open(id);
    }
  }
  for (const name of made.splice(0)) {
    const parameter = `/rekey/credentials/${name}`;
    await rekey.parameters.call('DeleteParameter', { Name: parameter }).catch(() => undefined);
    await rekey.notes.ports.deleteNote({ place: 'former-targets', key: name });
  }
});

let begin = 0;
let count = 0;
const made: string[] = [];
const specOf = (name: string, provider: ProviderId, id: string, more: object = {}) => {
  const { field, rest } = scenarios[provider];
  const target = { [field]: id, ...(provider === 'cockroachdb-cloud' ? { database: 'defaultdb' } : {}) };
  return { name, usernamePrefix: name.replace('-', '_'), provider, target, ...rest, ...more };
};
async function credential(provider: ProviderId = 'zilliz-cloud', id = scenarios[provider].ids[0], more = {}) {
  count += 1;
  const name = `moves-${count}`;
  made.push(name);
  await rekey.request(specOf(name, provider, id, more));
  await rekey.secretsManager.idle();
  expect(rekey.failures).toEqual([]);
  return name;
}
const put = (Name: string, Value: string) =>
  rekey.parameters.call('PutParameter', { Name, Value, Type: 'String', Overwrite: true });
/** The stored spec changed by hand, where README.md says that changes are made. */
const moveTo = (name: string, id: string, provider: ProviderId = 'zilliz-cloud', more: object = {}) =>
  put(`/rekey/credentials/${name}`, JSON.stringify(specOf(name, provider, id, more)));
const move = (ms: number): void => vendors().clock.move(ms);
const order = (name: string, more: { readonly targetIsGone?: true } = {}) =>
  rekey.sweep({
    is: 'order',
    order: 'CredentialDeletionRequested',
    credential: name,
    orderedAt: vendors().clock.now(),
    ...more,
  });
async function reconcile(): Promise<void> {
  await rekey.reconcile();
  await rekey.reconcile(rekey.takeMessages());
}
const stages = ({ targets }: Awaited<ReturnType<TestRekey['sweep']>>, name: string) =>
  targets
    .flatMap(({ credentials }) => credentials)
    .filter((each) => each.credential === name)
    .map(({ stage }) => stage);
const outcomes = ({ targets }: Awaited<ReturnType<TestRekey['sweep']>>) =>
  Object.fromEntries(
    targets
      .flatMap(({ users }) => users)
      .map(({ username, outcome, because }) => [username, `${outcome}: ${because}`]),
  );
const told = (type: string) =>
  rekey
    .published()
    .slice(begin)
    .filter((event) => event['detail-type'] === type)
    .map(({ detail }) => detail);
const found = (kind: string) => told('DriftFound').filter((detail) => detail['kind'] === kind);
async function login(name: string, label = 'AWSCURRENT'): Promise<Login> {
  const value = await rekey.login(name, label);
  if (value === undefined) throw new Error(`${name} has no login`);
  return value;
}
const hasSpec = async (name: string) => (await rekey.parameter(`/rekey/credentials/${name}`)) !== undefined;
const isScheduled = async (name: string) => 'DeletedDate' in (await rekey.describe(name));
/** All that rekey keeps about the credential in Parameter Store, but for its tombstone, and about its targets. */
async function kept(name: string): Promise<readonly string[]> {
  const listed = await rekey.invoke(({ ports }) => ports.listParameters({ path: '/rekey/' }));
  const parameters = listed
    .map(({ parameter }) => parameter)
    .filter((parameter) => parameter.includes(`/${name}/`) && !parameter.endsWith('/deletedAt'));
  const notes = await Promise.all(
    ['former-targets', 'gone-targets'].map(async (place) =>
      Object.keys(await rekey.notes.stored(place)).flatMap((key) =>
        key.split('/')[0] === name ? [`${place} ${key}`] : [],
      ),
    ),
  );
  return [...parameters, ...notes.flat()];
}
const usersAt = (id: string, name: string) =>
  (vendors().zilliz.api.clusters.get(id)?.users() ?? [])
    .map(({ username }) => username)
    .filter((username) => username.startsWith(name.replace('-', '_')));
async function sweepUntilGone(name: string, passes = 6): Promise<void> {
  for (let pass = 0; pass < passes && (await hasSpec(name)); pass += 1) {
    move(hourMs / 2);
    await rekey.sweep();
  }
}

describe.each(providers)('%s', (provider) => {
  const { ids, shut, open, remove, said } = scenarios[provider];
  const [former, declared] = ids;

  test('I8: a login stays looked after on the target that the spec no longer names, and deletion empties that one as well (E31)', async () => {
    const name = await credential(provider);
    const old = await login(name);
    await moveTo(name, declared, provider);
    move(2 * hourMs);
    await reconcile();

    const [finding, ...more] = found('TargetMoved');
    expect(more).toEqual([]);
    expect(finding).toMatchObject({ credential: name, target: declared, username: old.username });
    expect(String(finding?.['details'])).toContain(former);
    expect(found('ForeignUser').filter(({ username }) => username === old.username)).toEqual([]);
    expect(found('CurrentRejected')).toEqual([]);
    expect(await vendors().logsIn(old)).toBe(true);

    shut(former);
    await order(name);
    move(hourMs);
    // The stand-in of CockroachDB has the users of all clusters in one engine: there it is seen on the other one, and not who is connected.
    const stage = provider === 'cockroachdb-cloud' ? 'users-left' : 'other-targets-left';
    expect(stages(await rekey.sweep(), name)).toEqual([stage]);
    expect([await hasSpec(name), await isScheduled(name)]).toEqual([true, false]);
    open(former);
    await sweepUntilGone(name);

    expect([await hasSpec(name), await isScheduled(name)]).toEqual([false, true]);
    expect(
      await vendors().byProvider[provider]?.usernames({ [scenarios[provider].field]: former }),
    ).not.toContain(old.username);
    expect(await vendors().logsIn(old)).toBe(false);
    expect(told('CredentialDeleted')).toMatchObject([{ credential: name, target: declared }]);
    expect(told('CredentialDeleted')[0]).not.toHaveProperty('targetsGone');
    expect(await kept(name)).toEqual([]);
  });

  test('the deletion of a credential whose target is gone for good ends by itself within a day, and says how that was known (E32)', async () => {
    const name = await credential(provider);
    move(hourMs);
    remove(former);
    const since = vendors().clock.now().getTime();
    expect(stages(await order(name), name)).toEqual(['target-gone']);
    for (let passes = 0; passes < 3; passes += 1) {
      move(7.9 * hourMs);
      expect(stages(await rekey.sweep(), name)).toEqual(['target-gone']);
    }
    expect([await hasSpec(name), await isScheduled(name)]).toEqual([true, false]);
    expect(found('DeletionBlocked')).toMatchObject([{ credential: name, target: former }]);

    move(4 * hourMs);
    await rekey.sweep();
    await sweepUntilGone(name, 2);

    expect([await hasSpec(name), await isScheduled(name)]).toEqual([false, true]);
    const [event, ...more] = rekey
      .published()
      .slice(begin)
      .filter((each) => each['detail-type'] === 'CredentialDeleted');
    expect(more).toEqual([]);
    const evidence = {
      target: former,
      since: expect.any(String),
      lastSeenGoneAt: expect.any(String),
      sightings: 5,
      evidence: expect.stringMatching(said),
    };
    expect(event?.detail).toMatchObject({ credential: name, reason: 'requested', targetsGone: [evidence] });
    const gone = z
      .array(z.object({ since: z.string(), lastSeenGoneAt: z.string() }))
      .parse(event?.detail['targetsGone']);
    const { since: from = '', lastSeenGoneAt = '' } = gone[0] ?? {};
    expect(Date.parse(from) - since).toBeLessThan(60_000);
    expect(Date.parse(lastSeenGoneAt) - Date.parse(from)).toBeGreaterThanOrEqual(dayMs);
    expect(await kept(name)).toEqual([]);
    expect(evidenceIn(event)).toEqual(event?.detail['targetsGone']);
  });

  test('with targetIsGone in the order the vendor has to say so only once', async () => {
    const name = await credential(provider);
    move(hourMs);
    remove(former);
    const orderedAt = vendors().clock.now().toISOString();
    await order(name, { targetIsGone: true });
    await sweepUntilGone(name);
    expect([await hasSpec(name), await isScheduled(name)]).toEqual([false, true]);
    expect(told('CredentialDeleted')).toMatchObject([
      {
        credential: name,
        targetsGone: [{ target: former, orderedAt, evidence: expect.stringMatching(said) }],
      },
    ]);
    expect(await kept(name)).toEqual([]);
  });
});

/** What the audit trail keeps of how it was known. */
function evidenceIn(event: BusEvent | undefined): unknown {
  const invocation = parseAuditInvocation(event);
  if (invocation.is !== 'event') throw new Error('expected an event');
  return auditRecord(invocation.event, vendors().clock.now()).evidence['targetsGone'];
}

describe('a target that is gone', () => {
  const { shut, open, remove, restore } = scenarios['zilliz-cloud'];
  const fail = (status: number) =>
    vendors().zilliz.api.faults.inject({ operation: '*', kind: 'status', status, times: 1_000 });
  const mend = () => vendors().zilliz.api.faults.clear();
  /** Sightings by passes, so many hours apart. */
  async function look(passes: number, hours: number): Promise<void> {
    for (let pass = 0; pass < passes; pass += 1) {
      move(hours * hourMs);
      await rekey.sweep();
    }
  }
  const noted = async (name: string) => {
    const document = (await rekey.notes.stored('gone-targets'))[`${name}/zilliz-cloud/${one}`];
    return document === undefined ? undefined : JSON.parse(document);
  };

  test('is believed after three sightings at least, and a day', async () => {
    const name = await credential();
    remove(one);
    await order(name);
    await look(1, 30);
    expect([(await noted(name)).sightings, await hasSpec(name)]).toEqual([2, true]);
    await look(2, 1);
    expect(await hasSpec(name)).toBe(false);
  });

  test('is counted for itself: two passes at once, each at another target of the credential, lose no sighting', async () => {
    const name = 'moves-nowhere';
    await rekey.invoke(async ({ ports, log }) => {
      const see = (targetId: string, through = ports) =>
        noteGone(
          name,
          { provider: 'zilliz-cloud', targetId },
          { said: 'gone', orderedAt: undefined, dryRun: false },
          { ports: through, log },
        );
      // The other pass comes between reading and writing.
      const overtaken: typeof ports = {
        ...ports,
        async writeNote(request) {
          await see(two);
          return ports.writeNote(request);
        },
      };
      await see(one, overtaken);
      const sightings = [await see(one), await see(two)].map(({ gone }) => gone.sightings);
      expect(sightings).toEqual([2, 2]);
      await forgetTargets(name, { ports, log });
    });
    expect(await kept(name)).toEqual([]);
  });

  test('that is there again, if only suspended, begins anew', async () => {
    const name = await credential();
    remove(one);
    await order(name);
    await look(3, 7);
    shut(one);
    await look(1, 1);
    expect(await noted(name)).toBeUndefined();
    remove(one);
    await look(4, 7);
    expect([(await noted(name)).sightings, await hasSpec(name)]).toEqual([4, true]);
    await look(2, 2);
    expect(await hasSpec(name)).toBe(false);
  });

  test('that is there again is emptied like any other', async () => {
    const name = await credential();
    const current = await login(name);
    remove(one);
    await order(name);
    await look(3, 7);
    restore(one);
    await sweepUntilGone(name);
    expect([await hasSpec(name), usersAt(one, name)]).toEqual([false, []]);
    expect(await vendors().logsIn(current)).toBe(false);
    expect(told('CredentialDeleted')[0]).not.toHaveProperty('targetsGone');
    expect(await kept(name)).toEqual([]);
  });

  test.each([503, 429, 401, 403])(
    'is not what an answer of %i says, and that neither counts nor begins anew',
    async (status) => {
      const name = await credential();
      remove(one);
      await order(name);
      const before = await noted(name);
      fail(status);
      await look(3, 12);
      expect([await noted(name), await hasSpec(name)]).toEqual([before, true]);
      mend();
      await look(1, 1);
      expect([(await noted(name)).sightings, await hasSpec(name)]).toEqual([2, true]);
      await look(2, 1);
      expect(await hasSpec(name)).toBe(false);
    },
  );

  test('is not what is suspended, forbidden or unreachable, whatever the order says', async () => {
    for (const [what, undo] of [
      [() => shut(one), () => open(one)],
      [() => fail(403), mend],
      [() => fail(503), mend],
    ] as const) {
      const name = await credential();
      const current = await login(name);
      what();
      await order(name, { targetIsGone: true });
      await look(4, 12);
      expect([await hasSpec(name), await isScheduled(name)]).toEqual([true, false]);
      undo();
      await sweepUntilGone(name);
      expect(await hasSpec(name)).toBe(false);
      expect(usersAt(one, name)).not.toContain(current.username);
      expect(await vendors().logsIn(current)).toBe(false);
    }
  });

  test('while the vendor still has it: the order is refused in so many words, and its users go with it', async () => {
    const name = await credential();
    const current = await login(name);
    const orderedAt = vendors().clock.now().toISOString();
    move(hourMs);
    await order(name, { targetIsGone: true });
    await sweepUntilGone(name);
    expect(told('OrderIgnored')).toMatchObject([
      {
        order: 'CredentialDeletionRequested',
        credential: name,
        target: one,
        because: expect.stringContaining('the vendor still has'),
      },
    ]);
    expect(orderedAt).not.toBe(told('OrderIgnored')[0]?.['orderedAt']);
    expect(await hasSpec(name)).toBe(false);
    expect(told('DatabaseUserDeleted')).toMatchObject([{ username: current.username, outcome: 'deleted' }]);
    expect(told('CredentialDeleted')[0]).not.toHaveProperty('targetsGone');
    expect(await kept(name)).toEqual([]);
  });

  test('with two credentials lets each go by its own order, and says of the other what to do', async () => {
    const [ending, living] = [await credential(), await credential()];
    remove(one);
    await order(ending);
    await reconcile();
    expect(found('TargetNotReady')).toMatchObject([
      { target: one, remedy: expect.stringContaining('"targetIsGone": true') },
    ]);
    await look(3, 13);
    expect([await hasSpec(ending), await hasSpec(living)]).toEqual([false, true]);
    expect(await isScheduled(living)).toBe(false);
    await order(living, { targetIsGone: true });
    await sweepUntilGone(living);
    expect(await hasSpec(living)).toBe(false);
  });

  test('a dry run tells how far it is, and keeps nothing', async () => {
    const name = await credential();
    remove(one);
    await order(name);
    const before = await noted(name);
    move(hourMs);
    const { targets } = await rekey.sweep({ is: 'pass', dryRun: true });
    expect(targets.flatMap(({ credentials }) => credentials)).toContainEqual({
      credential: name,
      stage: 'target-gone',
      because: `gone since ${before.since}, seen 2 times: its status is DELETED`,
    });
    expect(await noted(name)).toEqual(before);
    await look(3, 13);
  });

  test('I1: a pass that is killed anywhere delays the end, and tells it at least once', async () => {
    const prepared = async () => {
      const name = await credential();
      move(hourMs);
      remove(one);
      await order(name);
      await look(1, 20);
      move(5 * hourMs);
      return name;
    };
    const name = await prepared();
    rekey.killAt(undefined);
    await rekey.sweep();
    const writes = deaths(rekey.calls).filter(({ call }) => !isReading(rekey.calls[call - 2]));
    expect(await hasSpec(name)).toBe(false);
    expect(writes.length).toBeGreaterThan(5);
    for (const death of writes) {
      restore(one);
      const other = await prepared();
      begin = rekey.published().length;
      rekey.killAt(death);
      await expect(rekey.sweep(), death.name).rejects.toThrow('killed');
      rekey.killAt(undefined);
      await sweepUntilGone(other);
      expect([await hasSpec(other), await isScheduled(other)], death.name).toEqual([false, true]);
      expect(told('CredentialDeleted').length, death.name).toBeGreaterThan(0);
      move(hourMs);
      await rekey.sweep();
      expect(await kept(other), death.name).toEqual([]);
    }
  });
});

const isReading = (call: string | undefined): boolean => /^(read|list|describe|http$)/.test(call ?? '');

describe('a spec that names another target than its secret', () => {
  test('refuses rotation, and all is as before once the former target is put back', async () => {
    const name = await credential();
    const current = await login(name);
    await moveTo(name, two);
    await rekey.rotate(name);
    expect(rekey.failures[0]).toMatchObject({ code: 'SECRET_MISMATCH', effect: 'none' });
    expect(usersAt(two, name)).toEqual([]);
    await rekey.sweep();
    expect(await kept(name)).toEqual([`former-targets ${name}`]);
    await moveTo(name, one);
    await rekey.sweep();
    expect(await kept(name)).toEqual([]);
    expect(await login(name)).toEqual(current);
  });

  test('is still noted among the credentials of the former target while former targets cannot be read', async () => {
    const name = await credential();
    await moveTo(name, two);
    await rekey.sweep();
    await rekey.invoke(async (context) => {
      const before = await listMemberNotes(context);
      await noteMembers(await readFleet(context), before, context);
    });
    const noted = await rekey.notes.stored('members');
    expect(JSON.parse(noted[`zilliz-cloud/${one}`] ?? '')).toMatchObject({
      credentials: expect.arrayContaining([name]),
    });
    await rekey.invoke(async (context) => {
      const listNotes: typeof context.ports.listNotes = async (request) => {
        if (request.place === places.formerTargets)
          throw new StoreError('STORE_UNAVAILABLE', 'none', 'told to fail');
        return context.ports.listNotes(request);
      };
      // An instance that has just started, and keeps nothing in mind.
      const { unwritten: _, ...fresh } = context;
      const before = await listMemberNotes(context);
      await noteMembers(await readFleet(context), before, {
        ...fresh,
        ports: { ...context.ports, listNotes },
      });
    });
    expect(await rekey.notes.stored('members')).toEqual(noted);
  });

  test('I8: superseded users of the former target are retired there, once the login in AWSCURRENT was accepted in the same visit', async () => {
    const name = await credential();
    const old = await login(name);
    await rekey.rotate(name);
    const current = await login(name);
    await moveTo(name, two);
    move(hourMs);
    // Notes where its logins are.
    await rekey.sweep();
    expect(outcomes(await rekey.sweep())[old.username]).toBe('kept: GRACE_RUNNING');
    move(25 * hourMs);
    await vendors().zilliz.api.actor.setPassword(one, current.username, 'Another-password-1');
    expect(outcomes(await rekey.sweep())[old.username]).toBe('kept: CURRENT_UNPROVED');
    await vendors().zilliz.api.actor.setPassword(one, current.username, current.password.reveal());
    move(hourMs);
    expect(outcomes(await rekey.sweep())[old.username]).toBe('deleted: not-observed');
    expect(usersAt(one, name)).toEqual([current.username]);
    expect(await vendors().logsIn(current)).toBe(true);
  });

  test('I8: where AWSCURRENT was moved to the new target by hand, the users of the former one are retired once it is accepted there', async () => {
    const name = await credential();
    const old = await login(name);
    await moveTo(name, two);
    const current = await makeByHand(name, two);
    move(hourMs);
    await rekey.sweep();
    expect(found('TargetMoved')).toEqual([]);
    move(25 * hourMs);
    await vendors().zilliz.api.actor.setPassword(two, current.username, 'Another-password-1');
    expect(outcomes(await rekey.sweep())[old.username]).toBe('kept: CURRENT_UNPROVED');
    await vendors().zilliz.api.actor.setPassword(two, current.username, current.password.reveal());
    move(hourMs);
    expect(outcomes(await rekey.sweep())[old.username]).toBe('deleted: not-observed');
    expect(usersAt(one, name)).toEqual([]);
    expect(usersAt(two, name)).toEqual([current.username]);
  });

  test('that cannot be entered is found to have moved all the same, by its neighbours, too', async () => {
    const name = await credential();
    const neighbour = await credential();
    const old = await login(name);
    await moveTo(name, 'in01-308240180a4faf8');
    await rekey.sweep();
    await reconcile();
    expect(found('TargetMoved')).toMatchObject([{ credential: name, username: old.username }]);
    expect(told('DatabaseUserDisappeared')).toEqual([]);
    expect(found('ForeignUser').map(({ username }) => username)).not.toContain(old.username);
    expect(await vendors().logsIn(await login(neighbour))).toBe(true);
  });

  test('whose user is deleted at the vendor is found, and no rotation is ordered that would be refused', async () => {
    const name = await credential();
    const { username } = await login(name);
    await moveTo(name, two);
    await rekey.sweep();
    await reconcile();
    vendors().zilliz.api.actor.deleteUser(one, username);
    move(hourMs);
    await reconcile();
    expect(found('SecretWithoutUser')).toMatchObject([
      {
        credential: name,
        target: one,
        username,
        remedy: expect.stringContaining('put the former target back'),
      },
    ]);
    expect(found('SecretWithoutUser')[0]).not.toHaveProperty('repair');
    expect(await kept(name)).not.toContain(`/rekey/directives/${name}/rotateBefore`);
  });

  /** A credential that has adopted a user and was rotated away from it, and somebody else's user of that name on the other target. */
  async function adopting(username: string, more: object = {}) {
    const adopt = { username, passwordSecret: `rekey/adopt/${username}`, retire: true };
    vendors().zilliz.api.actor.createUser(one, username, 'Adopted-password-1');
    vendors().zilliz.api.actor.createUser(two, username, 'Somebody-elses-1');
    await rekey.secretsManager.call('CreateSecret', {
      Name: adopt.passwordSecret,
      SecretString: JSON.stringify({ username, password: 'Adopted-password-1' }),
      ClientRequestToken: token(),
    });
    const name = await credential('zilliz-cloud', one, { adopt, ...more });
    await rekey.rotate(name);
    // Its grace is over when the first pass sees what was changed.
    move(26 * hourMs);
    return { name, adopt };
  }
  const everybodyAt = (id: string) =>
    vendors()
      .zilliz.api.clusters.get(id)
      ?.users()
      .map(({ username }) => username);

  /** A Render service that wants the login; nobody has told it yet. */
  async function service(serviceId: string) {
    const settings = {
      kind: 'render-service',
      serviceId,
      environmentVariable: 'DATABASE_URL',
      apiKeySecret: 'rekey/api-keys/render',
    };
    await vendors().byConsumer['render-service']?.prepare(settings);
    return { consumers: [settings] };
  }
  const advanced = (name: string) =>
    told('DriftRepaired').filter(
      ({ credential: of, repair }) => of === name && repair === 'advance-consumer',
    );

  test('does not keep a consumer of the login at the former target from getting it', async () => {
    const consumers = await service('srv-d0moved00000000demo0');
    const name = await credential('zilliz-cloud', one, consumers);
    await moveTo(name, two, 'zilliz-cloud', consumers);
    await rekey.sweep();
    move(hourMs);
    await reconcile();
    expect(found('ConsumerBehind')).toMatchObject([{ credential: name, target: one }]);
    expect(advanced(name)).toHaveLength(1);
  });

  test('does not keep a consumer of a login that was moved by hand from getting it, where a user was adopted', async () => {
    const consumers = await service('srv-d0moved00000000demo1');
    const { name, adopt } = await adopting('orders_oldest', consumers);
    await moveTo(name, two, 'zilliz-cloud', { adopt, ...consumers });
    await makeByHand(name, two);
    await rekey.sweep();
    move(hourMs);
    await reconcile();
    expect(advanced(name)).toMatchObject([{ target: two }]);
  });

  test('sends a consumer nothing once the spec was changed again, as the consumer may be another one', async () => {
    const consumers = await service('srv-d0moved00000000demo2');
    const name = await credential('zilliz-cloud', one, consumers);
    await moveTo(name, two, 'zilliz-cloud', consumers);
    await rekey.sweep();
    move(hourMs);
    await rekey.reconcile();
    const messages = rekey.takeMessages();
    await rekey.invoke((inner, until) =>
      reconcileUsers(messages, { webhookBaseUrl }, until, {
        ...inner,
        ports: {
          ...inner.ports,
          // Right before the first write to the consumer.
          async publish(events) {
            if (events.some(({ type }) => type === 'ConsumerUpdatePlanned')) await moveTo(name, two);
            return inner.ports.publish(events);
          },
        },
      }),
    );
    expect(told('DriftRepairFailed')).toMatchObject([
      { credential: name, repair: 'advance-consumer', code: 'SUPERSEDED', effect: 'none' },
    ]);
    expect(vendors().requests.filter((each) => isWrite(each) && each.url.includes('/services/'))).toEqual([]);
  });

  test('I3: never takes a user of the new target for the one that it adopted on the former', async () => {
    const { name, adopt } = await adopting('orders_old');
    await moveTo(name, two, 'zilliz-cloud', { adopt });
    await rekey.sweep();
    move(hourMs);
    await rekey.sweep();
    await order(name);
    await sweepUntilGone(name);
    expect(await hasSpec(name)).toBe(false);
    expect(everybodyAt(two)).toContain(adopt.username);
    expect(everybodyAt(one)).not.toContain(adopt.username);
    expect(usersAt(one, name)).toEqual([]);
  });

  test('I3: a value that somebody writes sends nobody after the adopted name on another target', async () => {
    const { name, adopt } = await adopting('orders_older');
    await putByHand(name, two, { username: adopt.username, versionId: token() });
    await rekey.sweep();
    move(26 * hourMs);
    await rekey.sweep();
    await order(name);
    await sweepUntilGone(name);
    expect(await hasSpec(name)).toBe(false);
    expect(everybodyAt(two)).toContain(adopt.username);
  });

  test('I8: is deleted only after a target that no label, and only an old version names is empty', async () => {
    const name = await credential();
    const old = await login(name);
    await moveTo(name, two);
    const { AWSCURRENT: first } = await rekey.labels(name);
    await makeByHand(name, two);
    await makeByHand(name, two);
    const { AWSCURRENT: last } = await rekey.labels(name);
    await rekey.secretsManager.call('UpdateSecretVersionStage', {
      SecretId: `rekey/${name}`,
      VersionStage: 'REKEY_PUBLISHED',
      RemoveFromVersionId: first,
      MoveToVersionId: last,
    });
    scenarios['zilliz-cloud'].shut(one);
    await order(name);
    move(hourMs);
    expect(stages(await rekey.sweep(), name)).toEqual(['other-targets-left']);
    scenarios['zilliz-cloud'].open(one);
    await sweepUntilGone(name);
    expect(await hasSpec(name)).toBe(false);
    expect([usersAt(one, name), usersAt(two, name)]).toEqual([[], []]);
    expect(await vendors().logsIn(old)).toBe(false);
  });

  test('I8: of another provider keeps the credential until somebody puts the former one back', async () => {
    const name = await credential();
    await moveTo(name, scenarios['vultr-valkey'].ids[0], 'vultr-valkey');
    move(hourMs);
    await order(name);
    await sweepUntilGone(name);
    expect([await hasSpec(name), await isScheduled(name)]).toEqual([true, false]);
    expect(found('DeletionBlocked')).toMatchObject([
      { credential: name, details: expect.stringContaining(`zilliz-cloud ${one}`) },
    ]);
    await moveTo(name, one);
    await sweepUntilGone(name);
    expect(await hasSpec(name)).toBe(false);
    expect(usersAt(one, name)).toEqual([]);
  });
});

/** What an operator may do in an emergency: a user as rekey would name it, and AWSCURRENT moved to its login. */
async function makeByHand(name: string, id: string): Promise<Login> {
  const { ARN } = await rekey.describe(name);
  const versionId = token();
  const sha256 = (text: string) => createHash('sha256').update(text).digest();
  const names = usernames({ secretArn: ARN, prefix: name.replace('-', '_') }, sha256);
  const username = names.generation(versionId, 0);
  vendors().zilliz.api.actor.createUser(id, username, passwordByHand);
  return putByHand(name, id, { username, versionId });
}

const passwordByHand = 'By-hand-password-1';

async function putByHand(
  name: string,
  id: string,
  { username, versionId }: { readonly username: string; readonly versionId: string },
): Promise<Login> {
  const definition = await loadProvider('zilliz-cloud');
  const cluster = vendors().zilliz.api.clusters.get(id);
  if (definition === undefined || cluster === undefined) throw new Error('expected a cluster');
  const { host, port } = cluster;
  const byHand = { ...(await login(name)), host, port, username, password: new Sensitive(passwordByHand) };
  await rekey.secretsManager.call('PutSecretValue', {
    SecretId: `rekey/${name}`,
    SecretString: secretString(byHand, { definition, targetId: id }).reveal(),
    ClientRequestToken: versionId,
  });
  return byHand;
}
