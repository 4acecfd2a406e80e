import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Invocation } from '../../functions/core/events.ts';
import type { Login } from '../../functions/core/provider.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import { notePause } from '../../functions/lifecycle/orders.ts';
import {
  addCockroachdbOrders,
  addRenderOrders,
  addVultrOrders,
} from '../../infra/local/providers/fixtures.ts';
import { type deaths, startTestRekey, type TestRekey, token, withoutEvent } from '../support/rekey.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const postgresId = 'dpg-d1abc2d3e4f5g6h7i8j9-a';
const clusterId = '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10';
const databaseId = '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21';
const vectorsId = 'in01-108240180a4faf8';
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
let rekey: TestRekey;

beforeAll(async () => {
  const { render, cockroachdb, vultr, zilliz } = vendors();
  await addRenderOrders(render.api, render.postgres, { id: postgresId });
  await addCockroachdbOrders(cockroachdb.api, cockroachdb.postgres, { id: clusterId });
  await addVultrOrders(vultr.api, vultr.engine, { id: databaseId });
  zilliz.api.addCluster({ id: vectorsId, name: 'orders', roles: ['orders_rw'] });
  rekey = await startTestRekey(vendors);
});
afterAll(() => rekey.stop());
beforeEach(() => {
  rekey.failures.length = 0;
  rekey.measured.length = 0;
  rekey.killAt(undefined);
});
afterEach(async () => {
  // What a test requested is nobody's in the next one.
  for (const { name } of made.splice(0))
    for (const parameter of [
      `/rekey/credentials/${name}`,
      ...['revokeBefore', 'deleteSince', 'rotateBefore'].map((kind) => `/rekey/directives/${name}/${kind}`),
    ])
      await parameters('DeleteParameter', { Name: parameter }).catch(() => undefined);
});

const scenarios = {
  'render-postgres': { target: { postgresId }, apiKeySecret: 'rekey/api-keys/render' },
  'cockroachdb-cloud': {
    target: { clusterId },
    apiKeySecret: 'rekey/api-keys/cockroachdb',
    privileges: { roles: ['orders_rw'] },
  },
  'vultr-valkey': {
    target: { databaseId },
    apiKeySecret: 'rekey/api-keys/vultr',
    privileges: { categories: ['+@read'], keys: ['orders:*'], commands: ['+client|list', '+client|kill'] },
  },
  'zilliz-cloud': {
    target: { clusterId: vectorsId },
    apiKeySecret: 'rekey/api-keys/zilliz',
    privileges: { roles: ['orders_rw'] },
  },
} as const;
type ProviderId = keyof typeof scenarios;
const providers = Object.keys(scenarios) as readonly ProviderId[];

const parameters = (operation: string, input: object) => rekey.parameters.call(operation, input);
/** A value that somebody puts there by hand. */
const put = ({ name }: Made, SecretString: string) =>
  secrets('PutSecretValue', { SecretId: `rekey/${name}`, SecretString, ClientRequestToken: token() });
const secrets = (operation: string, input: object) => rekey.secretsManager.call(operation, input);

interface Made {
  readonly name: string;
  readonly prefix: string;
  readonly provider: ProviderId;
  /** When it was made, as events are looked at from there. */
  readonly events: number;
}
let credentials = 0;
const made: Made[] = [];
/** A credential of its own prefix with one user. */
async function credential(provider: ProviderId, overrides: object = {}): Promise<Made> {
  credentials += 1;
  const [name, prefix] = [`orders-${credentials}`, `o${credentials}`];
  const one = { name, prefix, provider, events: rekey.published().length };
  made.push(one);
  await rekey.request({ provider, ...scenarios[provider], name, usernamePrefix: prefix, ...overrides });
  await rekey.secretsManager.idle();
  expect(rekey.failures).toEqual([]);
  return one;
}

const move = (ms: number): void => vendors().clock.move(ms);
/** The default grace and all that may be added to it. */
const graceOverMs = 25 * hourMs;

const pass = { is: 'pass', dryRun: false } as const;
const sweep = (call?: Extract<Invocation, { is: 'pass' | 'order' | 'rotated' }>) => rekey.sweep(call);
/** A pass while the bus takes no event of this type: whatever must not happen untold does not happen. */
const sweepWithout = (type: string) =>
  rekey
    .invoke((inner, until) => deleteUsers(pass, until, { ...inner, ports: withoutEvent(type, inner.ports) }))
    .catch((error: unknown) => error);
/** The outcome and reason of each user of a credential. */
const outcomes = ({ targets }: Awaited<ReturnType<TestRekey['sweep']>>, { prefix }: Made) =>
  Object.fromEntries(
    targets
      .flatMap(({ users }) => users)
      .filter(({ username }) => username.startsWith(`${prefix}_`))
      .map(({ username, outcome, because }) => [username, `${outcome}: ${because}`]),
  );
const stages = ({ targets }: Awaited<ReturnType<TestRekey['sweep']>>, { name }: Made) =>
  targets.flatMap(({ credentials }) => credentials).filter(({ credential }) => credential === name);

async function usersAt({ provider, prefix }: Pick<Made, 'provider' | 'prefix'>): Promise<readonly string[]> {
  const names = await vendors().byProvider[provider]?.usernames(scenarios[provider].target);
  return (names ?? []).filter((username) => username.startsWith(prefix)).toSorted();
}

const published = (type: string, { name, events }: Made) =>
  rekey
    .published()
    .slice(events)
    .filter((event) => event['detail-type'] === type)
    .map(({ detail }) => detail)
    .filter((detail) => detail['credential'] === name);

async function login({ name }: Made, label = 'AWSCURRENT'): Promise<Login> {
  const found = await rekey.login(name, label);
  if (found === undefined) throw new Error(`${name} has no login`);
  return found;
}

/** Where the sweep can die, but for deaths after a call that only reads: they leave the same world as one before it. */
async function placesToDie(sweepOnce: () => Promise<unknown>): Promise<ReturnType<typeof deaths>> {
  rekey.killAt(undefined);
  await sweepOnce();
  return rekey.deaths();
}

interface Client {
  close(): Promise<void>;
  isOpen(): Promise<boolean>;
}
/** A client that somebody forgot, connected with this login; undefined where nobody can see it. */
async function linger(provider: ProviderId, old: Login): Promise<Client | undefined> {
  if (provider === 'zilliz-cloud') return undefined;
  if (provider === 'vultr-valkey') {
    const client = await vendors().connectToValkey(old);
    await client.call('CLIENT', 'SETNAME', 'forgotten-worker').catch(() => undefined);
    const isOpen = () =>
      client.call('PING').then(
        () => true,
        (error: unknown) => String(error).includes('NOPERM'),
      );
    return { close: async () => client.disconnect(), isOpen };
  }
  const client = await vendors().connect(old, 'forgotten-worker');
  const isOpen = () =>
    client.query('SELECT 1').then(
      () => true,
      () => false,
    );
  const close = async (): Promise<void> => {
    await client.end();
    // The server's process outlives the connection by a moment, and is listed as long as it does.
    const { render, cockroachdb } = vendors();
    const { postgres } = provider === 'render-postgres' ? render : cockroachdb;
    await expect
      .poll(() => postgres.query('SELECT FROM pg_stat_activity WHERE usename = $1', [old.username]))
      .toEqual([]);
  };
  return { close, isOpen };
}

/** Sweeps as the schedule would, until the credential is gone. */
async function sweepUntilGone(one: Made, passes = 6): Promise<void> {
  for (let count = 0; count < passes && (await hasSpec(one)); count += 1) {
    await sweep(pass);
    move(16 * minuteMs);
  }
}
const hasSpec = ({ name }: Made): Promise<boolean> =>
  parameters('GetParameter', { Name: `/rekey/credentials/${name}` }).then(
    () => true,
    () => false,
  );
const deletion = ({ name }: Made, at = vendors().clock.now()) =>
  ({ is: 'order', order: 'CredentialDeletionRequested', credential: name, orderedAt: at }) as const;
const directive = async ({ name }: Made, kind: string, value?: string): Promise<string | undefined> => {
  const Name = `/rekey/directives/${name}/${kind}`;
  if (value !== undefined)
    await parameters('PutParameter', { Name, Value: value, Type: 'String', Overwrite: true });
  const answer = await parameters('GetParameter', { Name }).catch(() => undefined);
  return (answer as { Parameter: { Value: string } } | undefined)?.Parameter.Value;
};

describe.each(providers)('%s', (provider) => {
  test('a superseded user lives through its grace, while somebody is connected, and goes after two readings of nobody', async () => {
    const one = await credential(provider);
    const old = await login(one);
    await rekey.rotate(one.name);
    move(24 * hourMs);
    expect(outcomes(await sweep(), one)).toEqual({ [old.username]: 'kept: GRACE_RUNNING' });
    const client = await linger(provider, old);
    move(20 * minuteMs);

    if (client !== undefined) {
      expect(outcomes(await sweep(), one)).toEqual({ [old.username]: 'kept: STILL_CONNECTED' });
      await sweep();
      const [finding, ...more] = published('DriftFound', one);
      expect(more).toEqual([]);
      expect(finding).toMatchObject({ kind: 'RetiredStillConnected', username: old.username });
      expect(finding?.['details']).toContain(
        provider === 'vultr-valkey' ? '127.0.0.1' : 'forgotten-worker from ',
      );
      expect(await usersAt(one)).toContain(old.username);
      expect(published('DatabaseUserRetired', one)).toEqual([]);
      await client.close();
    }

    const isObserved = provider !== 'zilliz-cloud';
    expect(outcomes(await sweep(), one)).toEqual({
      [old.username]: `deleted: ${isObserved ? 'nobody-connected-twice' : 'not-observed'}`,
    });
    const current = await login(one);
    expect(await usersAt(one)).toEqual([current.username]);
    expect(await vendors().logsIn(current)).toBe(true);
    expect(published('DatabaseUserRetired', one)).toMatchObject([
      {
        username: old.username,
        reason: 'superseded',
        evidence: { drain: isObserved ? 'nobody-connected-twice' : 'not-observed' },
      },
    ]);
    expect(published('DatabaseUserDeleted', one)).toMatchObject([
      { username: old.username, outcome: 'deleted' },
    ]);
    expect(outcomes(await sweep(), one)).toEqual({});
    expect(published('DatabaseUserDeleted', one)).toHaveLength(1);
  });

  test('after an order to revoke, connections are ended and the user goes without grace', async () => {
    const one = await credential(provider);
    const old = await login(one);
    const client = await linger(provider, old);
    move(minuteMs);
    await directive(one, 'revokeBefore', vendors().clock.now().toISOString());
    move(minuteMs);
    await rekey.rotate(one.name);
    await sweepWithout('DatabaseUserRetired');
    expect(await usersAt(one)).toContain(old.username);
    expect(await client?.isOpen()).not.toBe(false);

    const report = outcomes(await sweep({ is: 'rotated', credential: one.name }), one);

    // CockroachDB lets only an administrator cancel sessions; on Zilliz every request is authenticated, so there are none.
    const ended = {
      'render-postgres': 'connections-ended',
      'cockroachdb-cloud': 'connections-not-ended',
      'vultr-valkey': 'connections-ended',
      'zilliz-cloud': 'no-connections',
    }[provider];
    expect(report).toEqual({ [old.username]: `deleted: ${ended}` });
    expect(await usersAt(one)).toEqual([(await login(one)).username]);
    expect(published('DatabaseUserRetired', one)).toMatchObject([
      { reason: 'revoked', evidence: { drain: 'connections-to-be-ended' } },
    ]);
    expect(published('DatabaseUserDeleted', one)).toMatchObject([
      { reason: 'revoked', evidence: { drain: ended } },
    ]);
    if (provider === 'zilliz-cloud')
      expect(published('DatabaseUserDeleted', one)[0]?.['evidence']).toEqual({
        drain: 'no-connections',
        because: 'every request to Zilliz Cloud logs in by itself',
      });
    // Where nothing can end them, they end with their client.
    if (client !== undefined) expect(await client.isOpen()).toBe(provider === 'cockroachdb-cloud');
    await client?.close().catch(() => undefined);
  });

  test('a credential goes as a whole: rotation, users, secret, spec, order', async () => {
    const one = await credential(provider);
    await rekey.rotate(one.name);
    move(hourMs);

    await sweep(deletion(one));
    await sweepUntilGone(one);

    expect(await usersAt(one)).toEqual([]);
    expect(await secrets('DescribeSecret', { SecretId: `rekey/${one.name}` })).toMatchObject({
      RotationEnabled: false,
      DeletedDate: expect.anything(),
    });
    expect(await hasSpec(one)).toBe(false);
    expect(await directive(one, 'deleteSince')).toBeUndefined();
    expect(published('CredentialDeleted', one)).toMatchObject([{ reason: 'requested', provider }]);
    expect(published('DatabaseUserDeleted', one)).toHaveLength(2);
  });
});

describe.each(providers)('%s, killed at any call', (provider) => {
  test('retires a superseded user in the end, and tells of it', async () => {
    const one = await credential(provider);
    const superseded = async (): Promise<string> => {
      const { username } = await login(one);
      await rekey.rotate(one.name);
      move(graceOverMs);
      return username;
    };
    // What other tests left at the provider goes first.
    await sweep();
    await superseded();
    const places = await placesToDie(sweep);
    expect(places.length).toBeGreaterThan(5);

    for (const { name, ...death } of places) {
      const username = await superseded();
      rekey.killAt(death);
      const end = await sweep().then(
        () => 'it ended before',
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      );
      expect(end, name).toMatch(/^(killed|it ended before)$/);
      rekey.killAt(undefined);
      await sweep();
      const current = await login(one);
      expect(await usersAt(one), `killed ${death.when} ${name}`).toEqual([current.username]);
      expect(await vendors().logsIn(current)).toBe(true);
      const told = published('DatabaseUserDeleted', one).filter((detail) => detail['username'] === username);
      expect(told.length, `killed ${death.when} ${name}`).toBeGreaterThan(0);
      const announced = published('DatabaseUserRetired', one).filter(
        (detail) => detail['username'] === username,
      );
      expect(announced.length).toBeGreaterThan(0);
    }
    expect((await sweep()).targets.flatMap(({ users }) => users)).toEqual([]);
  }, 300_000);

  test('deletes a credential in the end, and no secret ever promises a user that is gone', async () => {
    const fresh = async (): Promise<Made> => {
      const one = await credential(provider);
      await rekey.rotate(one.name);
      move(hourMs);
      return one;
    };
    const first = await fresh();
    await sweep();
    const places = await placesToDie(() => sweep(deletion(first)));
    expect(await hasSpec(first)).toBe(false);
    expect(places.length).toBeGreaterThan(15);

    const wrong: string[] = [];
    for (const { name, ...death } of places) {
      const one = await fresh();
      const look = async (): Promise<void> => {
        const users = await usersAt(one);
        const described = (await rekey.describe(one.name)) as {
          DeletedDate?: number;
          RotationEnabled?: boolean;
        };
        const current = await rekey.login(one.name, 'AWSCURRENT');
        const stands = (await directive(one, 'deleteSince')) !== undefined;
        if (users.length > 0 && described.DeletedDate !== undefined)
          wrong.push(`${name}: a user without a secret`);
        if (current !== undefined && !users.includes(current.username))
          if (described.RotationEnabled === true || !stands) wrong.push(`${name}: a secret without a user`);
      };
      rekey.killAt({ ...death, look });
      await expect(sweep(deletion(one)), name).rejects.toThrow('killed');
      rekey.killAt(undefined);
      // The order itself may be what was lost, before anything was done: then it comes again, as nobody took it.
      const isBegun = published('DatabaseUserRetired', one).length > 0;
      if (!isBegun && (await directive(one, 'deleteSince')) === undefined) await sweep(deletion(one));
      await sweepUntilGone(one);
      await sweep();
      expect(await usersAt(one), `killed ${death.when} ${name}`).toEqual([]);
      expect(await hasSpec(one), `killed ${death.when} ${name}`).toBe(false);
      expect(await directive(one, 'deleteSince')).toBeUndefined();
      expect(published('CredentialDeleted', one).length, `killed ${death.when} ${name}`).toBeGreaterThan(0);
    }
    expect(wrong).toEqual([]);
  }, 300_000);
});

describe('Render', () => {
  test('is left with a default user whose password is stored nowhere, which goes when another one is the default', async () => {
    const one = await credential('render-postgres');
    move(hourMs);
    const standIns = () => usersAt({ provider: 'render-postgres', prefix: 'rekey_placeholder_' });
    await sweep();
    const there = await standIns();
    await directive(one, 'deleteSince', vendors().clock.now().toISOString());
    await sweepWithout('DatabaseUserPlanned');
    expect(await standIns()).toEqual(there);
    expect(await usersAt(one)).toHaveLength(1);
    await sweep(deletion(one));
    await sweepUntilGone(one);

    expect(await usersAt(one)).toEqual([]);
    const { databases } = vendors().render.api;
    const [standIn] = (databases.get(postgresId)?.users() ?? []).filter(({ isDefault }) => isDefault);
    expect(standIn?.username).toMatch(/^rekey_placeholder_[a-z2-7]{12}$/);
    for (const type of ['DatabaseUserPlanned', 'DatabaseUserCreated'])
      expect(published(type, one).at(-1)).toMatchObject({ username: standIn?.username });

    const next = await credential('render-postgres');
    await sweep();
    expect(await usersAt({ provider: 'render-postgres', prefix: 'rekey_placeholder_' })).toEqual([]);
    expect(await usersAt(next)).toHaveLength(1);
  });
});

describe('a client that stays connected', () => {
  test('is cut at the deadline, and not before, where the spec says so', async () => {
    const one = await credential('render-postgres', { drain: { deadline: 'P2D', force: true } });
    const old = await login(one);
    const client = await vendors().connect(old, 'forgotten-worker');
    await rekey.rotate(one.name);
    move(graceOverMs + 47 * hourMs);
    expect(outcomes(await sweep(), one)).toEqual({ [old.username]: 'kept: STILL_CONNECTED' });
    move(hourMs);
    expect(outcomes(await sweep(), one)).toEqual({ [old.username]: 'deleted: connections-ended' });
    await expect(client.query('SELECT 1')).rejects.toThrow();
    expect(published('DatabaseUserRetired', one)).toMatchObject([
      { reason: 'superseded', evidence: { drain: 'connections-to-be-ended' } },
    ]);
    expect(published('DatabaseUserDeleted', one)).toMatchObject([
      { reason: 'superseded', evidence: { drain: 'connections-ended' } },
    ]);
  });

  test('keeps its user for ever without that, and how long past the deadline is measured', async () => {
    const one = await credential('cockroachdb-cloud');
    const old = await login(one);
    const client = await vendors().connect(old, 'forgotten-worker');
    await rekey.rotate(one.name);
    move(60 * 24 * hourMs);
    expect(outcomes(await sweep(), one)).toEqual({ [old.username]: 'kept: STILL_CONNECTED' });
    const [age] = rekey.measured.filter(({ metric }) => metric === 'RetiredStillConnectedAge');
    // Sixty days less a day of grace and seven until the deadline.
    expect(age?.value).toBeGreaterThan(51 * 24 * 3600);
    expect(age?.value).toBeLessThan(52 * 24 * 3600);
    await client.end();
    await sweep();
    await sweep();
    expect(rekey.measured.at(-1)).toEqual({ metric: 'RetiredStillConnectedAge', value: 0 });
  });

  test('also keeps a credential that is to go, until it leaves', async () => {
    const one = await credential('render-postgres');
    const current = await login(one);
    const client = await vendors().connect(current, 'forgotten-worker');
    move(hourMs);
    const report = await sweep(deletion(one));
    expect(stages(report, one)).toEqual([{ credential: one.name, stage: 'users-left' }]);
    expect(await usersAt({ provider: 'render-postgres', prefix: 'rekey_placeholder_' })).toEqual([]);
    expect(await vendors().logsIn(current)).toBe(true);
    await client.end();
    await sweepUntilGone(one);
    expect(await usersAt(one)).toEqual([]);
  });
});

describe('never touched are', () => {
  test('users of others, of no known version, and protected ones, whatever is retired or deleted beside them', async () => {
    const one = await credential('cockroachdb-cloud');
    const { api } = vendors().cockroachdb;
    const others = ['billing', `${one.prefix}_admin`, `${one.prefix}_abcdefghijkl`];
    for (const username of others) await api.actor.createUser(clusterId, username, 'Foreign-0123456789');
    await rekey.rotate(one.name);
    move(graceOverMs);
    await sweep();
    move(hourMs);
    await sweep(deletion(one));
    await sweepUntilGone(one);
    const left = await vendors().byProvider['cockroachdb-cloud']?.usernames({ clusterId });
    expect(left).toEqual(expect.arrayContaining(others));
    expect(await hasSpec(one)).toBe(false);
    for (const username of others) await api.actor.deleteUser(clusterId, username);
  });

  test('the users of a credential that cannot be read, and those of its neighbour go all the same', async () => {
    const [one, neighbour] = [await credential('zilliz-cloud'), await credential('zilliz-cloud')];
    for (const { name } of [one, neighbour]) await rekey.rotate(name);
    move(graceOverMs);
    const value = (await secrets('GetSecretValue', { SecretId: `rekey/${one.name}` })) as {
      SecretString: string;
    };
    await put(one, '{"by":"hand"}');
    move(graceOverMs);
    await sweep();
    expect(await usersAt(one)).toHaveLength(2);
    expect(await usersAt(neighbour)).toHaveLength(1);
    await put(one, value.SecretString);
    move(graceOverMs);
    await sweep();
    expect(await usersAt(one)).toEqual([(await login(one)).username]);
  });

  test('those of a version that becomes current again while it is being looked at', async () => {
    const one = await credential('cockroachdb-cloud');
    const old = await login(one);
    const before = (await rekey.labels(one.name))['AWSCURRENT'];
    const after = await rekey.rotate(one.name);
    move(graceOverMs);
    rekey.killAt(undefined);
    await sweep({ is: 'pass', dryRun: true });
    // Somebody takes the rotation back between the second reading and the deletion.
    const readings = rekey.calls.lastIndexOf('sql');
    let moved = false;
    const report = await rekey.invoke(async (inner, until) => {
      const { deleteUsers } = await import('../../functions/lifecycle/delete-user.ts');
      let sessions = 0;
      const ports = {
        ...inner.ports,
        sql: async (session: Parameters<typeof inner.ports.sql>[0]) => {
          const outcome = await inner.ports.sql(session);
          sessions += 1;
          if (sessions === 2) {
            moved = true;
            await secrets('UpdateSecretVersionStage', {
              SecretId: `rekey/${one.name}`,
              VersionStage: 'AWSCURRENT',
              MoveToVersionId: before,
              RemoveFromVersionId: after,
            });
          }
          return outcome;
        },
      };
      return deleteUsers(pass, until, { ...inner, ports });
    });
    expect(readings).toBeGreaterThan(0);
    expect(moved).toBe(true);
    expect(outcomes(report, one)).toEqual({ [old.username]: 'kept: LABELS_MOVED' });
    expect(await vendors().logsIn(old)).toBe(true);
    expect(published('DatabaseUserRetired', one)).toEqual([]);
  });
});

describe('an adopted user', () => {
  const adopt = async (retire: boolean): Promise<{ one: Made; username: string }> => {
    const { api } = vendors().cockroachdb;
    const username = `legacy_${retire ? 'retired' : 'kept'}`;
    await api.actor.createUser(clusterId, username, 'Legacy-0123456789');
    const passwordSecret = `rekey/adopt/${username}`;
    await secrets('CreateSecret', {
      Name: passwordSecret,
      SecretString: JSON.stringify({ username, password: 'Legacy-0123456789' }),
      ClientRequestToken: token(),
    });
    vendors().keepSecret('Legacy-0123456789');
    const one = await credential('cockroachdb-cloud', { adopt: { username, passwordSecret, retire } });
    return { one, username };
  };
  const exists = async (username: string): Promise<boolean> =>
    (await vendors().byProvider['cockroachdb-cloud']?.usernames({ clusterId }))?.includes(username) === true;

  test('is left alone after the first rotation and when the credential goes, unless the spec says otherwise', async () => {
    const { one, username } = await adopt(false);
    await rekey.rotate(one.name);
    move(graceOverMs);
    await sweep();
    expect(await exists(username)).toBe(true);
    await sweep(deletion(one));
    await sweepUntilGone(one);
    expect(await hasSpec(one)).toBe(false);
    expect(await usersAt(one)).toEqual([]);
    expect(await exists(username)).toBe(true);
    await vendors().cockroachdb.api.actor.deleteUser(clusterId, username);
  });

  test('goes after the first rotation like any superseded one where the spec says so', async () => {
    const { one, username } = await adopt(true);
    move(graceOverMs);
    await sweep();
    expect(await exists(username)).toBe(true);
    await rekey.rotate(one.name);
    move(hourMs);
    await sweep();
    expect(await exists(username)).toBe(true);
    move(graceOverMs);
    await sweep();
    expect(await exists(username)).toBe(false);
  });
});

describe('a user that is to be adopted, as long as that has not come about', () => {
  test('stays through every grace and the deletion of the credential, although the spec says that it goes', async () => {
    const { api } = vendors().zilliz;
    await api.actor.createUser(vectorsId, 'in_use', 'Legacy-0123456789');
    credentials += 1;
    const [name, prefix] = [`orders-${credentials}`, `o${credentials}`];
    const one: Made = { name, prefix, provider: 'zilliz-cloud', events: rekey.published().length };
    made.push(one);
    // As a deployment declares it; the secret with the password is forgotten.
    await secrets('CreateSecret', {
      Name: `rekey/${name}`,
      SecretString: '{"rekey":"no user yet; the first rotation makes one"}',
      ClientRequestToken: token(),
    });
    await parameters('PutParameter', {
      Name: `/rekey/credentials/${name}`,
      Value: JSON.stringify({
        ...scenarios['zilliz-cloud'],
        name,
        provider: 'zilliz-cloud',
        usernamePrefix: prefix,
        adopt: { username: 'in_use', passwordSecret: 'rekey/adopt/forgotten', retire: true },
      }),
      Type: 'String',
    });
    const users = () => vendors().byProvider['zilliz-cloud']?.usernames({ clusterId: vectorsId });
    move(graceOverMs);
    await sweep();
    expect(await users()).toContain('in_use');
    await sweep(deletion(one));
    move(hourMs);
    await sweepUntilGone(one);
    expect(await hasSpec(one)).toBe(false);
    expect(await users()).toContain('in_use');
    await api.actor.deleteUser(vectorsId, 'in_use');
  });
});

describe('a credential with an end', () => {
  test('goes by itself when its time is over, and its end is told as such', async () => {
    const expiresAt = new Date(vendors().clock.now().getTime() + 2 * hourMs).toISOString();
    const one = await credential('zilliz-cloud', { expiresAt });
    move(hourMs);
    await sweep();
    expect(await usersAt(one)).toHaveLength(1);
    move(hourMs + minuteMs);
    await sweepUntilGone(one);
    expect(await usersAt(one)).toEqual([]);
    expect(published('CredentialDeleted', one)).toMatchObject([{ reason: 'expired' }]);
  });

  test('can be prolonged while it lives, and not any more once it is being deleted', async () => {
    const expiresAt = new Date(vendors().clock.now().getTime() + 2 * hourMs).toISOString();
    const one = await credential('render-postgres', { expiresAt });
    const prolong = async (ms: number): Promise<void> => {
      const Name = `/rekey/credentials/${one.name}`;
      const { Parameter } = (await parameters('GetParameter', { Name })) as { Parameter: { Value: string } };
      const later = new Date(vendors().clock.now().getTime() + ms).toISOString();
      await parameters('PutParameter', {
        Name,
        Value: JSON.stringify({ ...JSON.parse(Parameter.Value), expiresAt: later }),
        Type: 'String',
        Overwrite: true,
      });
    };
    await prolong(4 * hourMs);
    move(3 * hourMs);
    await sweep();
    expect(await directive(one, 'deleteSince')).toBeUndefined();
    // Somebody is still connected when the time is over: the deletion has begun all the same.
    const client = await vendors().connect(await login(one), 'migration');
    move(2 * hourMs);
    await sweep();
    expect(await directive(one, 'deleteSince')).toBeDefined();
    await prolong(24 * hourMs);
    await client.end();
    await sweepUntilGone(one);
    expect(await usersAt(one)).toEqual([]);
    expect(await hasSpec(one)).toBe(false);
  });
});

describe('deleting a credential', () => {
  test('stops a rotation that is under way, and waits until none of its steps can be at work', async () => {
    const one = await credential('cockroachdb-cloud');
    move(hourMs);
    const { cockroachdb } = vendors();
    cockroachdb.front.faults.inject({ kind: 'refuse', times: 20 } as never);
    await rekey.rotate(one.name).catch(() => undefined);
    cockroachdb.front.faults.clear();
    const pending = (await rekey.labels(one.name))['AWSPENDING'];
    expect(pending).toBeDefined();
    const report = await sweep(deletion(one));
    expect(stages(report, one)).toEqual([{ credential: one.name, stage: 'rotation-open' }]);
    expect((await rekey.labels(one.name))['AWSPENDING']).toBeUndefined();
    await expect(rekey.step(one.name, 'createSecret', pending ?? '')).rejects.toThrow('ROTATION_DISABLED');
    await sweepUntilGone(one);
    expect(await usersAt(one)).toEqual([]);
    expect(await hasSpec(one)).toBe(false);
  });

  test('goes on from a secret that somebody has scheduled already', async () => {
    const one = await credential('zilliz-cloud');
    await rekey.rotate(one.name);
    move(graceOverMs);
    await secrets('DeleteSecret', { SecretId: `rekey/${one.name}`, RecoveryWindowInDays: 7 });
    move(graceOverMs);
    // Without an order it may be restored, so everybody stays.
    await sweep();
    expect(await usersAt(one)).toHaveLength(2);
    await sweep(deletion(one));
    await sweepUntilGone(one);
    expect(await usersAt(one)).toEqual([]);
    expect(published('CredentialDeleted', one)).toHaveLength(1);
  });

  test('whose secret is gone takes away the spec and the order, and is told', async () => {
    const one = await credential('zilliz-cloud');
    await secrets('DeleteSecret', { SecretId: `rekey/${one.name}`, ForceDeleteWithoutRecovery: true });
    const users = await usersAt(one);
    expect(stages(await sweep(deletion(one)), one)).toEqual([{ credential: one.name, stage: 'users-left' }]);
    expect(published('DriftFound', one)).toMatchObject([{ kind: 'DeletionBlocked', username: users[0] }]);
    for (const username of users) vendors().zilliz.api.actor.deleteUser(vectorsId, username);
    await sweep();
    expect(await hasSpec(one)).toBe(false);
    expect(await directive(one, 'deleteSince')).toBeUndefined();
    expect(published('CredentialDeleted', one)).toMatchObject([{ reason: 'requested' }]);
  });

  test('works although its values cannot be read, as is the remedy for that', async () => {
    const one = await credential('zilliz-cloud');
    await put(one, '{"by":"hand"}');
    move(hourMs);
    await sweep(deletion(one));
    await sweepUntilGone(one);
    expect(await usersAt(one)).toEqual([]);
    expect(await hasSpec(one)).toBe(false);
  });

  test('ordered twice counts from the first order, and an order for nobody is refused', async () => {
    const one = await credential('cockroachdb-cloud');
    const client = await vendors().connect(await login(one), 'worker');
    vendors().clock.move(2 * minuteMs);
    const first = new Date(vendors().clock.now().getTime() - minuteMs);
    await sweep(deletion(one, first));
    await sweep(deletion(one));
    expect(await directive(one, 'deleteSince')).toBe(first.toISOString());
    await expect(sweep({ ...deletion(one), credential: 'nobody' })).rejects.toThrow('SPEC_MISSING');
    await expect(sweep({ ...deletion(one), order: 'CredentialRotationRequested' })).rejects.toThrow(
      'EVENT_INVALID',
    );
    await client.end();
    await sweepUntilGone(one);
  });
});

describe('a pass', () => {
  test('that only rehearses says what it would do and changes nothing', async () => {
    const [one, going] = [await credential('cockroachdb-cloud'), await credential('cockroachdb-cloud')];
    const old = await login(one);
    await rekey.rotate(one.name);
    await directive(going, 'deleteSince', vendors().clock.now().toISOString());
    move(graceOverMs);
    const events = rekey.published().length;
    rekey.measured.length = 0;
    rekey.killAt(undefined);
    const report = await sweep({ is: 'pass', dryRun: true });
    expect(outcomes(report, one)).toEqual({ [old.username]: 'would-retire: nobody-connected-twice' });
    expect(stages(report, going)).toEqual([{ credential: going.name, stage: 'would-delete' }]);
    const reading = [
      'describeSecret',
      'readSecret',
      'listVersions',
      'readParameter',
      'readParameters',
      'listParameters',
      'http',
      'readNote',
      'listNotes',
      'sql',
    ];
    expect([...new Set(rekey.calls)].filter((call) => !reading.includes(call))).toEqual([]);
    expect(vendors().requests.filter(({ method }) => method === 'DELETE')).toEqual([]);
    expect(rekey.published()).toHaveLength(events);
    expect(rekey.measured).toEqual([]);
  });

  test('that only rehearses says of each user that would go whether writes are paused, and since when', async () => {
    const [one, going] = [await credential('zilliz-cloud'), await credential('zilliz-cloud')];
    const old = await login(one);
    await rekey.rotate(one.name);
    await directive(going, 'deleteSince', vendors().clock.now().toISOString());
    move(graceOverMs);
    const pauseOf = (order: 'RekeyPaused' | 'RekeyResumed') =>
      rekey.invoke((inner) =>
        notePause(
          {
            is: 'pause',
            order,
            on: { provider: 'zilliz-cloud', targetId: vectorsId },
            orderedAt: vendors().clock.now(),
          },
          inner,
        ),
      );
    const since = vendors().clock.now().toISOString();
    await pauseOf('RekeyPaused');
    move(minuteMs);
    const paused = await sweep({ is: 'pass', dryRun: true });
    expect(
      paused.targets.flatMap(({ users }) => users).filter(({ username }) => username === old.username),
    ).toEqual([{ username: old.username, credential: one.name, outcome: 'kept', because: 'PAUSED', since }]);
    expect(stages(paused, going)).toEqual([
      {
        credential: going.name,
        stage: 'would-delete',
        because: `its users stay while writes are paused, since ${since}`,
      },
    ]);
    await pauseOf('RekeyResumed');
    const resumed = await sweep({ is: 'pass', dryRun: true });
    expect(outcomes(resumed, one)).toEqual({ [old.username]: 'would-retire: not-observed' });
    expect(stages(resumed, going)).toEqual([{ credential: going.name, stage: 'would-delete' }]);
  });

  test('and another at the same time delete the same user once, and both succeed', async () => {
    const one = await credential('zilliz-cloud');
    await rekey.rotate(one.name);
    move(graceOverMs);
    await Promise.all([sweep(), sweep()]);
    expect(await usersAt(one)).toEqual([(await login(one)).username]);
    await Promise.all([sweep(deletion(one)), sweep(pass)]);
    await sweepUntilGone(one);
    expect(await usersAt(one)).toEqual([]);
    expect(await hasSpec(one)).toBe(false);
  });

  test('finds a user that cannot be deleted once, with the remedy', async () => {
    const one = await credential('cockroachdb-cloud');
    const old = await login(one);
    const { cockroachdb } = vendors();
    await cockroachdb.postgres.query('GRANT CREATE ON SCHEMA public TO orders_rw', [], 'defaultdb');
    await cockroachdb.postgres.query(`CREATE TABLE ledger (id int)`, [], 'defaultdb');
    await cockroachdb.postgres.query(`ALTER TABLE ledger OWNER TO "${old.username}"`, [], 'defaultdb');
    await rekey.rotate(one.name);
    move(graceOverMs);
    expect(outcomes(await sweep(), one)).toEqual({ [old.username]: 'failed: BLOCKED' });
    await sweep();
    expect(published('DriftFound', one)).toMatchObject([{ kind: 'DeletionBlocked', username: old.username }]);
    expect(published('DriftFound', one)[0]?.['details']).toContain('REASSIGN OWNED');
    await cockroachdb.postgres.query('DROP TABLE ledger', [], 'defaultdb');
    await sweep();
    expect(await usersAt(one)).toEqual([(await login(one)).username]);
  });

  test('that cannot look at a user forgets nothing: what was found before is not published again', async () => {
    const one = await credential('render-postgres');
    const client = await linger('render-postgres', await login(one));
    await rekey.rotate(one.name);
    move(graceOverMs);
    await sweep();
    const report = await rekey.invoke(async (inner, until) => {
      const { deleteUsers } = await import('../../functions/lifecycle/delete-user.ts');
      let lists = 0;
      const http: typeof inner.ports.http = async (request) => {
        lists += request.url.pathname.endsWith('/credentials') ? 1 : 0;
        // Gone once the target was opened.
        return lists < 2 ? inner.ports.http(request) : { status: 503, headers: {}, body: new Sensitive('') };
      };
      return deleteUsers(pass, until, { ...inner, ports: { ...inner.ports, http } });
    });
    expect(Object.values(outcomes(report, one))).toEqual(['failed: UNAVAILABLE']);
    await sweep();
    expect(published('DriftFound', one)).toMatchObject([{ kind: 'RetiredStillConnected' }]);
    await client?.close();
  });

  test('keeps the users that a consumer may still run with', async () => {
    const consumers = [
      {
        kind: 'render-service',
        serviceId: 'srv-d1abc2d3e4f5g6h7i8j9',
        environmentVariable: 'DATABASE_URL',
        apiKeySecret: 'rekey/api-keys/render',
      },
    ];
    const one = await credential('zilliz-cloud', { consumers });
    const old = await login(one);
    await rekey.rotate(one.name);
    move(graceOverMs);
    // There is no such service: whatever runs there, nobody can say that it has moved.
    expect(outcomes(await sweep(), one)).toEqual({ [old.username]: 'kept: CONSUMERS_BEHIND' });
    expect(await usersAt(one)).toContain(old.username);
  });
});

test('users that the vendor does not let go, however many, keep no other from going', async () => {
  // Of one credential there are never so many: fourteen of them, each with two users of earlier rotations.
  const many: Made[] = [];
  for (let count = 1; count <= 14; count += 1) {
    credentials += 1;
    // The longest names there are, so that what is noted of them is as long as it gets.
    const name = `orders-${credentials}`.padEnd(63, '-long');
    const prefix = `o${credentials}`.padEnd(19, 'x');
    const one: Made = { name, prefix, provider: 'zilliz-cloud', events: rekey.published().length };
    made.push(one);
    many.push(one);
    await rekey.request({
      ...scenarios['zilliz-cloud'],
      name,
      provider: 'zilliz-cloud',
      usernamePrefix: prefix,
    });
    await rekey.secretsManager.idle();
    for (let rotation = 1; rotation <= 2; rotation += 1) await rekey.rotate(name);
  }
  expect(rekey.failures).toEqual([]);
  const current = await Promise.all(many.map(async (one) => (await login(one)).username));
  const all = async () =>
    (await vendors().byProvider['zilliz-cloud']?.usernames({ clusterId: vectorsId })) ?? [];
  const [free = '', ...held] = (await all())
    .filter(
      (username) => many.some(({ prefix }) => username.startsWith(prefix)) && !current.includes(username),
    )
    .toReversed();
  expect(held.length).toBe(27);
  move(graceOverMs);
  for (let count = 1; count <= 8; count += 1) {
    const report = await rekey.invoke(async (inner, until) => {
      const { deleteUsers } = await import('../../functions/lifecycle/delete-user.ts');
      const http: typeof inner.ports.http = async (request) => {
        const isHeld =
          request.url.pathname.endsWith('/users/drop') &&
          held.some((username) => request.body?.reveal().includes(username));
        return isHeld
          ? {
              status: 200,
              headers: { 'content-type': 'application/json' },
              body: new Sensitive('{"code":1100,"message":"not now"}'),
            }
          : inner.ports.http(request);
      };
      return deleteUsers(pass, until, { ...inner, ports: { ...inner.ports, http } });
    });
    expect(report.targets.filter(({ skipped }) => skipped !== undefined)).toEqual([]);
    move(16 * minuteMs);
  }
  expect(await all()).not.toContain(free);
  expect(await all()).toContain(held[0]);
  await sweep();
  await sweep();
  expect(
    (await all()).filter((username) => many.some(({ prefix }) => username.startsWith(prefix))).toSorted(),
  ).toEqual(current.toSorted());
});

test('a connection that comes back between the two readings keeps its user', async () => {
  const one = await credential('render-postgres');
  const old = await login(one);
  await rekey.rotate(one.name);
  move(graceOverMs);
  let reads = 0;
  const report = await rekey.invoke(async (inner, until) => {
    const { deleteUsers } = await import('../../functions/lifecycle/delete-user.ts');
    const http: typeof inner.ports.http = async (request) => {
      const answer = await inner.ports.http(request);
      if (request.method === 'GET' && request.url.pathname.endsWith('/credentials')) {
        reads += 1;
        // The list that everything is judged by, the first reading, and from now on the second.
        if (reads === 2) await vendors().connect(old, 'pool');
      }
      return answer;
    };
    return deleteUsers(pass, until, { ...inner, ports: { ...inner.ports, http } });
  });
  expect(reads).toBeGreaterThan(2);
  expect(outcomes(report, one)).toEqual({ [old.username]: 'kept: STILL_CONNECTED' });
  expect(await usersAt(one)).toContain(old.username);
});

test('under reset-password the connections of a revoked password end after the switch, and the user stays', async () => {
  const one = await credential('vultr-valkey', { strategy: 'reset-password' });
  const client = await linger('vultr-valkey', await login(one));
  move(minuteMs);
  await directive(one, 'revokeBefore', vendors().clock.now().toISOString());
  move(minuteMs);
  await rekey.rotate(one.name);
  const current = await login(one);
  await sweepWithout('DatabaseSessionsEndPlanned');
  expect(await client?.isOpen()).toBe(true);
  expect(outcomes(await sweep({ is: 'rotated', credential: one.name }), one)).toEqual({
    [current.username]: 'sessions-ended: connections-ended',
  });
  expect(await client?.isOpen()).toBe(false);
  expect(await vendors().logsIn(current)).toBe(true);
  const { AWSCURRENT: versionId } = await rekey.labels(one.name);
  const told = { versionId, username: current.username, openedBefore: expect.any(String) };
  expect(published('DatabaseSessionsEndPlanned', one)).toMatchObject([told]);
  expect(published('DatabaseSessionsEnded', one)).toMatchObject([{ ...told, outcome: 'ended' }]);
  move(2 * hourMs);
  expect(outcomes(await sweep(), one)).toEqual({});
  expect(published('DatabaseSessionsEndPlanned', one)).toHaveLength(1);
});

test('the idle user of a revoked password goes once the next one is current', async () => {
  const one = await credential('zilliz-cloud', { strategy: 'alternate-users', grace: 'PT0S' });
  await rekey.rotate(one.name);
  const old = await login(one);
  move(minuteMs);
  await directive(one, 'revokeBefore', vendors().clock.now().toISOString());
  move(minuteMs);
  expect(outcomes(await sweep(), one)).toEqual({});
  await rekey.rotate(one.name);
  // The other one may have had a revoked password, too: sessions that were opened with it would outlive the new password.
  expect(outcomes(await sweep(), one)).toEqual({
    [old.username]: 'deleted: no-connections',
    [(await login(one)).username]: 'sessions-ended: no-connections',
  });
  await rekey.rotate(one.name);
  expect(rekey.failures).toEqual([]);
  expect(await vendors().logsIn(await login(one))).toBe(true);
});
