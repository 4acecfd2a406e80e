import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Invocation } from '../../functions/core/events.ts';
import { type Ports, SqlError } from '../../functions/core/ports.ts';
import type { Login } from '../../functions/core/provider.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { usernames } from '../../functions/core/username.ts';
import { type DeletionReport, deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { addCockroachdbOrders, addVultrOrders } from '../../infra/local/providers/fixtures.ts';
import { sha256 } from '../support/credentials.ts';
import { startTestRekey, type TestRekey, token } from '../support/rekey.ts';
import { useTestVendors } from '../support/vendors.ts';

// Each of these tests fails if one guard of delete-user is taken out: no other test noticed when that was done.

const vendors = useTestVendors();
const clusterId = '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10';
const databaseId = '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21';
const vectorsId = 'in01-108240180a4faf8';
const otherVectorsId = 'in01-208240180a4faf9';
const adminPassword = 'Root-password_00000000000000001';
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
/** The default grace and all that may be added to it. */
const graceOverMs = 25 * hourMs;
let rekey: TestRekey;

const secrets = (operation: string, input: object) => rekey.secretsManager.call(operation, input);
const parameters = (operation: string, input: object) => rekey.parameters.call(operation, input);

beforeAll(async () => {
  const { cockroachdb, vultr, zilliz } = vendors();
  await addCockroachdbOrders(cockroachdb.api, cockroachdb.postgres, { id: clusterId });
  await cockroachdb.postgres.query(`ALTER ROLE root PASSWORD '${adminPassword}'`);
  await addVultrOrders(vultr.api, vultr.engine, { id: databaseId });
  for (const id of [vectorsId, otherVectorsId])
    zilliz.api.addCluster({ id, name: 'orders', roles: ['orders_rw'] });
  rekey = await startTestRekey(vendors);
  await secrets('CreateSecret', {
    Name: 'rekey/admin/cockroachdb',
    SecretString: JSON.stringify({ username: 'root', password: adminPassword }),
    ClientRequestToken: token(),
  });
});
afterAll(() => rekey.stop());
beforeEach(() => {
  vendors().keepSecret(adminPassword);
  rekey.failures.length = 0;
});
afterEach(async () => {
  // What a test requested is nobody's in the next one.
  for (const { name } of made.splice(0))
    for (const parameter of [
      `/rekey/credentials/${name}`,
      ...['revokeBefore', 'deleteSince'].map((kind) => `/rekey/directives/${name}/${kind}`),
    ])
      await parameters('DeleteParameter', { Name: parameter }).catch(() => undefined);
});

const scenarios = {
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
};
type ProviderId = keyof typeof scenarios;

interface Made {
  readonly name: string;
  readonly prefix: string;
  readonly provider: ProviderId;
  readonly target: Readonly<Record<string, string>>;
}
let credentials = 0;
const made: Made[] = [];
interface Overrides {
  readonly target?: Made['target'];
  readonly usernamePrefix?: string;
  readonly [field: string]: unknown;
}
/** A credential of its own prefix with one user. */
async function credential(
  provider: ProviderId,
  { target = scenarios[provider].target, ...overrides }: Overrides = {},
): Promise<Made> {
  credentials += 1;
  const [name, prefix] = [`orders-${credentials}`, overrides.usernamePrefix ?? `o${credentials}`];
  const one = { name, prefix, provider, target };
  made.push(one);
  await rekey.request({
    provider,
    ...scenarios[provider],
    target,
    name,
    usernamePrefix: prefix,
    ...overrides,
  });
  await rekey.secretsManager.idle();
  expect(rekey.failures).toEqual([]);
  return one;
}
/** The same, rotated once and past its grace; answers the login of the user that may go. */
async function superseded(
  provider: ProviderId,
  overrides: Overrides = {},
): Promise<{ readonly one: Made; readonly old: Login }> {
  const one = await credential(provider, overrides);
  const old = await login(one);
  await rekey.rotate(one.name);
  move(graceOverMs);
  return { one, old };
}

const move = (ms: number): void => vendors().clock.move(ms);
const pass = { is: 'pass', dryRun: false } as const;
type Call = Extract<Invocation, { is: 'pass' | 'order' | 'rotated' }>;
const deletion = ({ name }: Made) =>
  ({
    is: 'order',
    order: 'CredentialDeletionRequested',
    credential: name,
    orderedAt: vendors().clock.now(),
  }) as const;
/** delete-user with some of its ways out changed. */
const passWith = (change: (ports: Ports) => Partial<Ports>, call: Call = pass): Promise<DeletionReport> =>
  rekey.invoke((inner, until) =>
    deleteUsers(call, until, { ...inner, ports: { ...inner.ports, ...change(inner.ports) } }),
  );

/** The outcome and reason of each user of these names. */
const outcomes = ({ targets }: DeletionReport, ...names: readonly string[]) =>
  Object.fromEntries(
    targets
      .flatMap(({ users }) => users)
      .filter(({ username }) => names.includes(username))
      .map(({ username, outcome, because }) => [username, `${outcome}: ${because}`]),
  );
const stages = ({ targets }: DeletionReport, { name }: Made) =>
  targets
    .flatMap(({ credentials: ending }) => ending)
    .filter((ending) => ending.credential === name)
    .map(({ stage }) => stage);
const published = (type: string, username: string) =>
  rekey
    .published()
    .filter((event) => event['detail-type'] === type)
    .map(({ detail }) => detail)
    .filter((detail) => detail['username'] === username);

async function usersAt({ provider, prefix, target }: Made): Promise<readonly string[]> {
  const names = await vendors().byProvider[provider]?.usernames(target);
  return (names ?? []).filter((username) => username.startsWith(`${prefix}_`)).toSorted();
}
async function login({ name }: Made, label = 'AWSCURRENT'): Promise<Login> {
  const found = await rekey.login(name, label);
  if (found === undefined) throw new Error(`${name} has no login`);
  return found;
}
const hasSpec = ({ name }: Made): Promise<boolean> =>
  parameters('GetParameter', { Name: `/rekey/credentials/${name}` }).then(
    () => true,
    () => false,
  );
/** Whether the secret is there and not scheduled for deletion. */
const hasSecret = async ({ name }: Made): Promise<boolean> =>
  !('DeletedDate' in (await rekey.describe(name)));
async function sweepUntilGone(one: Made): Promise<void> {
  for (let count = 0; count < 6 && (await hasSpec(one)); count += 1) {
    await rekey.sweep();
    move(16 * minuteMs);
  }
  expect(await hasSpec(one)).toBe(false);
  expect(await usersAt(one)).toEqual([]);
}
async function changeSpec({ name }: Made, change: (spec: Record<string, unknown>) => object): Promise<void> {
  const Name = `/rekey/credentials/${name}`;
  const { Parameter } = (await parameters('GetParameter', { Name })) as { Parameter: { Value: string } };
  await parameters('PutParameter', {
    Name,
    Value: JSON.stringify(change(JSON.parse(Parameter.Value))),
    Type: 'String',
    Overwrite: true,
  });
}
const revoke = ({ name }: Made) =>
  parameters('PutParameter', {
    Name: `/rekey/directives/${name}/revokeBefore`,
    Value: vendors().clock.now().toISOString(),
    Type: 'String',
    Overwrite: true,
  });
/** What somebody who may write the secret can put there: the login of `label`, as it would be at another host. */
async function pointElsewhere({ name }: Made, label: 'AWSCURRENT' | 'AWSPREVIOUS'): Promise<void> {
  const SecretId = `rekey/${name}`;
  const { SecretString } = (await secrets('GetSecretValue', { SecretId, VersionStage: label })) as {
    SecretString: string;
  };
  const changed = SecretString.replace('"host":"localhost"', '"host":"elsewhere.example"');
  expect(changed).not.toBe(SecretString);
  await secrets('PutSecretValue', {
    SecretId,
    SecretString: changed,
    ClientRequestToken: token(),
    VersionStages: [label],
  });
}

describe('I4, S9: an administrator’s password is sent to no host but the vendor’s', () => {
  /** A pass whose SQL sessions are noted by their host; nothing leaves for any other than the vendor's. */
  async function hostsOf(call: Call): Promise<{ report: DeletionReport; hosts: readonly string[] }> {
    const hosts: string[] = [];
    const report = await passWith(
      ({ sql }) => ({
        sql: async (session) => {
          hosts.push(session.host);
          if (session.host !== 'localhost') throw new SqlError('no route', {});
          return sql(session);
        },
      }),
      call,
    );
    return { report, hosts };
  }

  test('where AWSPREVIOUS was made to point elsewhere, the current login looks who is connected', async () => {
    const one = await credential('cockroachdb-cloud', { adminSecret: 'rekey/admin/cockroachdb' });
    const old = await login(one);
    await rekey.rotate(one.name);
    await pointElsewhere(one, 'AWSPREVIOUS');
    move(graceOverMs);
    const { report, hosts } = await hostsOf(pass);
    expect([...new Set(hosts)]).toEqual(['localhost']);
    expect(outcomes(report, old.username)).toEqual({ [old.username]: 'deleted: nobody-connected-twice' });
  });

  test('where AWSCURRENT was made to point elsewhere, the login before it looks who is connected', async () => {
    const one = await credential('cockroachdb-cloud', {
      adminSecret: 'rekey/admin/cockroachdb',
      strategy: 'reset-password',
    });
    const { username } = await login(one);
    await pointElsewhere(one, 'AWSCURRENT');
    move(hourMs);
    const { report, hosts } = await hostsOf(deletion(one));
    expect([...new Set(hosts)]).toEqual(['localhost']);
    expect(outcomes(report, username)).toEqual({ [username]: 'deleted: nobody-connected-twice' });
  });

  test('where AWSCURRENT was made to point elsewhere after a revocation under reset-password, nobody is asked to end sessions there', async () => {
    const one = await credential('cockroachdb-cloud', {
      adminSecret: 'rekey/admin/cockroachdb',
      strategy: 'reset-password',
    });
    move(minuteMs);
    await revoke(one);
    move(minuteMs);
    await pointElsewhere(one, 'AWSCURRENT');
    move(minuteMs);
    const { hosts } = await hostsOf(pass);
    expect(hosts.filter((host) => host !== 'localhost')).toEqual([]);
  });
});

describe('I4: before a superseded user is deleted', () => {
  test('five seconds lie between the two readings that see nobody connected', async () => {
    const { one, old } = await superseded('cockroachdb-cloud');
    const readAt: number[] = [];
    const report = await passWith(({ sql }) => ({
      sql: async (session) => {
        if (session.username === old.username) readAt.push(vendors().clock.now().getTime());
        return sql(session);
      },
    }));
    const [first = 0, second = 0] = readAt;
    expect(second - first).toBeGreaterThanOrEqual(5_000);
    expect(outcomes(report, old.username)).toEqual({ [old.username]: 'deleted: nobody-connected-twice' });
    expect(await usersAt(one)).toEqual([(await login(one)).username]);
  });

  test('a pool that is back within these five seconds keeps its user', async () => {
    const { old } = await superseded('cockroachdb-cloud');
    const report = await passWith(({ sleep }) => ({
      sleep: async (ms) => {
        await sleep(ms);
        if (ms >= 5_000) await vendors().connect(old, 'pool');
      },
    }));
    expect(outcomes(report, old.username)).toEqual({ [old.username]: 'kept: STILL_CONNECTED' });
    expect(await vendors().logsIn(old)).toBe(true);
  });

  test('rotation that somebody switched off meanwhile keeps it, as somebody is at work on the secret', async () => {
    const { one, old } = await superseded('cockroachdb-cloud');
    let readings = 0;
    const report = await passWith(({ sql }) => ({
      sql: async (session) => {
        const outcome = await sql(session);
        readings += 1;
        if (readings === 2) await secrets('CancelRotateSecret', { SecretId: `rekey/${one.name}` });
        return outcome;
      },
    }));
    expect(outcomes(report, old.username)).toEqual({ [old.username]: 'kept: LABELS_MOVED' });
    expect(await vendors().logsIn(old)).toBe(true);
    expect(published('DatabaseUserRetired', old.username)).toEqual([]);
  });

  test('a consumer whose platform fails counts as not moved, for users of one and of two rotations ago', async () => {
    const { render } = vendors();
    const service = render.api.addService({ name: 'orders-api', variables: { PORT: '8080' } });
    const one = await credential('zilliz-cloud', {
      consumers: [
        {
          kind: 'render-service',
          serviceId: service.id,
          environmentVariable: 'DATABASE_URL',
          apiKeySecret: 'rekey/api-keys/render',
        },
      ],
    });
    const [oldest] = await usersAt(one);
    await rekey.rotate(one.name);
    const older = await login(one);
    await rekey.rotate(one.name);
    await rekey.update(one.name);
    move(graceOverMs);
    const failed = await passWith(({ http }) => ({
      http: async (request) =>
        request.url.pathname.includes('/services/')
          ? { status: 500, headers: {}, body: new Sensitive('') }
          : http(request),
    }));
    const names = [oldest ?? '', older.username];
    expect(outcomes(failed, ...names)).toEqual({
      [names[0] ?? '']: 'kept: CONSUMERS_BEHIND',
      [names[1] ?? '']: 'kept: CONSUMERS_BEHIND',
    });
    expect(await usersAt(one)).toHaveLength(3);
    // It runs with the current login, so both go once it can be asked.
    await rekey.sweep();
    expect(await usersAt(one)).toEqual([(await login(one)).username]);
  });
});

describe('a credential that cannot be read', () => {
  const spoil = ({ name }: Made) =>
    secrets('PutSecretValue', {
      SecretId: `rekey/${name}`,
      SecretString: '{"by":"hand"}',
      ClientRequestToken: token(),
    });
  const passwordSecretOf = async (username: string, password: string): Promise<string> => {
    const Name = `rekey/adopt/${username}`;
    await secrets('CreateSecret', {
      Name,
      SecretString: JSON.stringify({ username, password }),
      ClientRequestToken: token(),
    });
    return Name;
  };

  test('I3: holds the superseded users of a neighbour that carry its prefix: its value may name one of them', async () => {
    const { old } = await superseded('cockroachdb-cloud', { usernamePrefix: 'billing_api' });
    const passwordSecret = await passwordSecretOf(old.username, old.password.reveal());
    const other = await credential('cockroachdb-cloud', {
      usernamePrefix: 'billing',
      adopt: { username: old.username, passwordSecret },
    });
    expect((await login(other)).username).toBe(old.username);
    await spoil(other);
    const report = await rekey.sweep();
    expect(outcomes(report, old.username)).toEqual({ [old.username]: 'kept: CREDENTIAL_UNREADABLE' });
    expect(await vendors().logsIn(old)).toBe(true);
  });

  test('I3: holds the superseded user of a neighbour that it adopted, whatever the prefix', async () => {
    const { old } = await superseded('zilliz-cloud');
    const passwordSecret = await passwordSecretOf(old.username, old.password.reveal());
    const other = await credential('zilliz-cloud', { adopt: { username: old.username, passwordSecret } });
    expect((await login(other)).username).toBe(old.username);
    await spoil(other);
    const report = await rekey.sweep();
    expect(outcomes(report, old.username)).toEqual({ [old.username]: 'kept: CREDENTIAL_UNREADABLE' });
    expect(await vendors().logsIn(old)).toBe(true);
  });

  test('I3: holds a user that its neighbour adopted and moved away from, as it may have adopted it, too', async () => {
    const password = 'Legacy-0123456789';
    vendors().keepSecret(password);
    await vendors().zilliz.api.actor.createUser(vectorsId, 'shared_login', password);
    const passwordSecret = await passwordSecretOf('shared_login', password);
    const { one } = await superseded('zilliz-cloud', {
      adopt: { username: 'shared_login', passwordSecret, retire: true },
    });
    const other = await credential('zilliz-cloud');
    await spoil(other);
    const held = await rekey.sweep();
    expect(outcomes(held, 'shared_login')).toEqual({ shared_login: 'kept: CREDENTIAL_UNREADABLE' });
    await parameters('DeleteParameter', { Name: `/rekey/credentials/${other.name}` });
    const free = await rekey.sweep();
    expect(outcomes(free, 'shared_login')).toEqual({ shared_login: 'deleted: not-observed' });
    expect(await vendors().logsIn(await login(one))).toBe(true);
  });
});

test('I29: targets of one API key share the writes that a pass may ask of their vendor', async () => {
  const [one, two, elsewhere] = [
    await superseded('zilliz-cloud'),
    await superseded('zilliz-cloud'),
    await superseded('zilliz-cloud', { target: { clusterId: otherVectorsId } }),
  ];
  const names = [one, two, elsewhere].map(({ old }) => old.username);
  // Four writes a minute, of which retirement may use two.
  const slow = (inner: Rekey): Rekey => ({
    ...inner,
    loadProvider: async (id) => {
      const definition = await inner.loadProvider(id);
      if (definition === undefined) return undefined;
      const { capabilities } = definition;
      return {
        ...definition,
        capabilities: { ...capabilities, writes: { perMinute: 4, perRotation: 1 } },
      };
    },
  });
  const report = await rekey.invoke((inner, until) => deleteUsers(pass, until, slow(inner)));
  expect(Object.values(outcomes(report, ...names)).toSorted()).toEqual([
    'deleted: not-observed',
    'deleted: not-observed',
    'kept: BUDGET',
  ]);
  const next = await rekey.sweep();
  expect(Object.values(outcomes(next, ...names))).toEqual(['deleted: not-observed']);
});

test('I14, I22: one list that lacks a user is not enough to say that it was deleted', async () => {
  const { one, old } = await superseded('zilliz-cloud');
  // A pass asks for the deletion in vain, so that the next one has an outcome to tell.
  await passWith(({ http }) => ({
    http: async (request) =>
      request.url.pathname.endsWith('/users/drop')
        ? {
            status: 200,
            headers: { 'content-type': 'application/json' },
            body: new Sensitive('{"code":1100,"message":"not now"}'),
          }
        : http(request),
  }));
  expect(published('DatabaseUserDeletionFailed', old.username)).toHaveLength(1);
  let lists = 0;
  await passWith(({ http }) => ({
    http: async (request) => {
      const answer = await http(request);
      if (!request.url.pathname.endsWith('/users/list')) return answer;
      lists += 1;
      return lists === 1 ? withoutUser(answer, old.username) : answer;
    },
  }));
  expect(lists).toBeGreaterThan(1);
  expect(await usersAt(one)).toContain(old.username);
  expect(published('DatabaseUserDeleted', old.username)).toEqual([]);
  await rekey.sweep();
  expect(await usersAt(one)).not.toContain(old.username);
  expect(published('DatabaseUserDeleted', old.username)).toMatchObject([{ outcome: 'deleted' }]);
});

/** The answer of a list that lags behind. */
function withoutUser(answer: Awaited<ReturnType<Ports['http']>>, username: string): typeof answer {
  const body = JSON.parse(answer.body.reveal()) as { data: readonly string[] };
  expect(body.data).toContain(username);
  const data = body.data.filter((listed) => listed !== username);
  return { ...answer, body: new Sensitive(JSON.stringify({ ...body, data })) };
}

test('after a revocation under reset-password, connections that were opened since the switch stay', async () => {
  const one = await credential('vultr-valkey', { strategy: 'reset-password' });
  move(minuteMs);
  await revoke(one);
  move(minuteMs);
  await rekey.rotate(one.name);
  const { LastRotatedDate } = (await rekey.describe(one.name)) as { LastRotatedDate?: number };
  const switchedAt = new Date((LastRotatedDate ?? 0) * 1000);
  // By the engine's own clock it is seconds old, and ten minutes have passed since the switch.
  const client = await vendors().connectToValkey(await login(one));
  move(10 * minuteMs);
  const { username } = await login(one);
  const report = await rekey.sweep();
  expect(outcomes(report, username)).toEqual({ [username]: 'sessions-ended: connections-ended' });
  expect(await client.get('orders:latest')).toBe('tea');
  expect(published('DatabaseSessionsEndPlanned', username)).toMatchObject([
    { openedBefore: switchedAt.toISOString() },
  ]);
});

describe('I3: a user that one credential made and another adopted stays when the first is deleted', () => {
  /** `one` made the user, `other` adopted it. */
  async function shared(): Promise<{ one: Made; other: Made; user: Login }> {
    const one = await credential('cockroachdb-cloud');
    const user = await login(one);
    const passwordSecret = `rekey/adopt/${user.username}`;
    await secrets('CreateSecret', {
      Name: passwordSecret,
      SecretString: JSON.stringify({ username: user.username, password: user.password.reveal() }),
      ClientRequestToken: token(),
    });
    const other = await credential('cockroachdb-cloud', {
      adopt: { username: user.username, passwordSecret },
    });
    expect((await login(other)).username).toBe(user.username);
    return { one, other, user };
  }
  async function deleteIt(one: Made, user: Login): Promise<void> {
    move(hourMs);
    await rekey.sweep(deletion(one));
    for (let count = 0; count < 4 && (await hasSpec(one)); count += 1) {
      move(16 * minuteMs);
      await rekey.sweep();
    }
    expect(await hasSpec(one)).toBe(false);
    expect(published('DatabaseUserRetired', user.username)).toEqual([]);
    expect(await vendors().logsIn(user)).toBe(true);
  }

  test('while the other one’s AWSCURRENT names it, though its spec does not say so any more', async () => {
    const { one, other, user } = await shared();
    await changeSpec(other, ({ adopt: _adopt, ...spec }) => spec);
    await deleteIt(one, user);
    expect(await vendors().logsIn(await login(other))).toBe(true);
  });

  test('while the other one’s spec names it, though its secret names another by now', async () => {
    const { one, other, user } = await shared();
    await rekey.rotate(other.name);
    await rekey.rotate(other.name);
    await deleteIt(one, user);
  });
});

describe('deleting a credential', () => {
  /** The name of a second user of the current version, as a step makes one that was still at work. */
  async function lateName({ name, prefix }: Made): Promise<string> {
    const { ARN: secretArn } = await rekey.describe(name);
    const { AWSCURRENT: versionId = '' } = await rekey.labels(name);
    return usernames({ secretArn, prefix }, sha256).generation(versionId, 1);
  }
  /** A pass that deletes the only user of a credential, with what happens while it is looked for twice. */
  function deleteWith(
    one: Made,
    happens: {
      readonly afterDeletion?: () => unknown;
      readonly betweenLooks?: () => unknown;
      readonly afterLooks?: () => unknown;
      readonly hiddenFromSecondLook?: string;
    },
  ): Promise<DeletionReport> {
    let has: 'begun' | 'deleted' | 'looked once' | 'looked twice' = 'begun';
    return passWith(
      ({ http, sleep }) => ({
        http: async (request) => {
          const answer = await http(request);
          const { pathname } = request.url;
          if (has === 'begun' && pathname.endsWith('/users/drop')) {
            has = 'deleted';
            await happens.afterDeletion?.();
          }
          if (has !== 'looked once' || !pathname.endsWith('/users/list')) return answer;
          has = 'looked twice';
          await happens.afterLooks?.();
          const { hiddenFromSecondLook: hidden } = happens;
          return hidden === undefined ? answer : withoutUser(answer, hidden);
        },
        sleep: async (ms) => {
          await sleep(ms);
          if (has !== 'deleted' || ms < 5_000) return;
          has = 'looked once';
          await happens.betweenLooks?.();
        },
      }),
      deletion(one),
    );
  }
  const createUser = (username: string) =>
    vendors().zilliz.api.actor.createUser(vectorsId, username, 'Late-0123456789');

  test('I17: a user that a late step makes after the last retirement keeps the secret, which alone proves whose it is', async () => {
    const one = await credential('zilliz-cloud');
    move(hourMs);
    const late = await lateName(one);
    const report = await deleteWith(one, { afterDeletion: () => createUser(late) });
    expect(stages(report, one)).toEqual(['users-left']);
    expect(await hasSecret(one)).toBe(true);
    expect(await usersAt(one)).toEqual([late]);
    await sweepUntilGone(one);
  });

  test('I14, I17: users must be absent twice: one that is seen by the second look only keeps the secret', async () => {
    const one = await credential('zilliz-cloud');
    move(hourMs);
    const late = await lateName(one);
    const report = await deleteWith(one, { betweenLooks: () => createUser(late) });
    expect(stages(report, one)).toEqual(['users-left']);
    expect(await hasSecret(one)).toBe(true);
    await sweepUntilGone(one);
  });

  test('I14, I17: users must be absent twice: one that the second look’s list lacks keeps the secret', async () => {
    const one = await credential('zilliz-cloud');
    move(hourMs);
    const late = await lateName(one);
    const report = await deleteWith(one, {
      afterDeletion: () => createUser(late),
      hiddenFromSecondLook: late,
    });
    expect(stages(report, one)).toEqual(['users-left']);
    expect(await hasSecret(one)).toBe(true);
    await sweepUntilGone(one);
  });

  test('I17: a rotation that is switched on after both looks keeps the secret', async () => {
    const one = await credential('zilliz-cloud');
    move(hourMs);
    const report = await deleteWith(one, {
      afterLooks: async () => {
        await secrets('RotateSecret', {
          SecretId: `rekey/${one.name}`,
          ClientRequestToken: token(),
          RotateImmediately: false,
        });
        await rekey.secretsManager.idle();
      },
    });
    expect(stages(report, one)).toEqual(['rotation-open']);
    expect(await hasSecret(one)).toBe(true);
    move(hourMs);
    await sweepUntilGone(one);
  });

  test('I17: a label that is moved after both looks keeps the secret', async () => {
    const one = await credential('zilliz-cloud');
    await rekey.rotate(one.name);
    move(hourMs);
    const { AWSCURRENT: current, AWSPREVIOUS: previous } = await rekey.labels(one.name);
    const report = await deleteWith(one, {
      afterLooks: () =>
        secrets('UpdateSecretVersionStage', {
          SecretId: `rekey/${one.name}`,
          VersionStage: 'AWSCURRENT',
          MoveToVersionId: previous,
          RemoveFromVersionId: current,
        }),
    });
    expect(stages(report, one)).toEqual(['rotation-open']);
    expect(await hasSecret(one)).toBe(true);
    await sweepUntilGone(one);
  });

  test('a time that is prolonged between the reading of the spec and the deletion is heeded', async () => {
    const expiresAt = new Date(vendors().clock.now().getTime() + 2 * hourMs).toISOString();
    const one = await credential('zilliz-cloud', { expiresAt });
    move(3 * hourMs);
    const prolonged = new Date(vendors().clock.now().getTime() + 24 * hourMs).toISOString();
    let isProlonged = false;
    const report = await passWith(({ describeSecret, readParameter }) => {
      // Whatever comes first after the specs were read.
      const prolong = async (): Promise<void> => {
        if (isProlonged) return;
        isProlonged = true;
        await changeSpec(one, (spec) => ({ ...spec, expiresAt: prolonged }));
      };
      return {
        describeSecret: async (request) => {
          await prolong();
          return describeSecret(request);
        },
        readParameter: async (request) => {
          await prolong();
          return readParameter(request);
        },
      };
    });
    expect(isProlonged).toBe(true);
    expect(stages(report, one)).toEqual(['stays']);
    expect(await usersAt(one)).toHaveLength(1);
    await expect(
      parameters('GetParameter', { Name: `/rekey/directives/${one.name}/deleteSince` }),
    ).rejects.toThrow();
    expect(await vendors().logsIn(await login(one))).toBe(true);
  });
});
