import { HttpClient } from '@zilliz/milvus2-sdk-node';
import { type Dispatcher, fetch } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Network, startNetwork } from '../../../../infra/local/network.ts';
import {
  createZillizCloud,
  type ZillizCloud,
  type ZillizCluster,
  type ZillizSwitches,
} from '../../../../infra/local/providers/zilliz-cloud.ts';
import { type Ask, createAsk, createMovableClock, proxied, type Seen } from './stand-in.ts';

const key = 'key0123456789abcdef';
const password = 'correct-Horse-7-battery';
const other = 'another-Horse-8-battery';

let cloud: ZillizCloud;
let cluster: ZillizCluster;
let network: Network;
let dispatcher: Dispatcher;
let defaults: ZillizSwitches;
let askControlPlane: Ask;
const clock = createMovableClock('2026-03-01T12:00:00Z');
let made = 0;
const freshName = (): string => {
  made += 1;
  return `orders_${made}`;
};

/** Asks the cluster's own API, as whoever holds the token. */
const ask = (
  path: string,
  body: unknown = {},
  { token = key, at = cluster }: { token?: string; at?: ZillizCluster } = {},
): Promise<Seen> =>
  createAsk({
    base: `https://${at.host}:${at.port}/v2/vectordb`,
    dispatcher,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
  })('POST', `/${path}`, body);
/** Status and body. */
const answerOf = async (...asked: Parameters<typeof ask>): Promise<readonly [number, unknown]> => {
  const { status, json } = await ask(...asked);
  return [status, json];
};
const done = [200, { code: 0, data: {} }];
const create = async (userName = freshName()): Promise<string> => {
  expect(await answerOf('users/create', { userName, password })).toEqual(done);
  return userName;
};
const listed = async (): Promise<unknown> => ((await ask('users/list')).json as { data: unknown }).data;
const logsIn = async (userName: string, secret = password): Promise<number> =>
  (await ask('collections/list', {}, { token: `${userName}:${secret}` })).status;
const rolesOf = async (userName: string): Promise<unknown> =>
  ((await ask('users/describe', { userName })).json as { data: unknown }).data;

beforeAll(async () => {
  cloud = createZillizCloud({ clock, apiKeys: [key, 'key-2'] });
  network = await startNetwork({
    hosts: { [cloud.host]: cloud.listener, [cloud.clusterHosts]: cloud.clusterListener },
  });
  dispatcher = proxied(network);
  askControlPlane = createAsk({
    base: 'https://api.cloud.zilliz.com',
    dispatcher,
    headers: { authorization: `Bearer ${key}` },
  });
  defaults = structuredClone(cloud.switches);
});
beforeEach(() => {
  clock.move(60_000);
  cluster = cloud.addCluster({ name: 'orders', roles: ['orders_rw'] });
});
afterEach(() => {
  Object.assign(cloud.switches, structuredClone(defaults));
  cloud.faults.clear();
});
afterAll(async () => {
  expect(cloud.calls.filter(({ defect }) => defect !== undefined)).toEqual([]);
  await dispatcher.destroy();
  await network.close();
});

describe('the control plane', () => {
  test('describes a cluster as the documents do', async () => {
    const { id } = cloud.addCluster({
      id: 'in01-108240180a4faf8',
      name: 'dedicated-test',
      createdAt: new Date('2024-06-30T16:34:09Z'),
    });
    expect(await askControlPlane('GET', `/v2/clusters/${id}`)).toMatchObject({
      status: 200,
      headers: { requestid: expect.any(String) },
      json: {
        code: 0,
        data: {
          clusterId: 'in01-108240180a4faf8',
          clusterName: 'dedicated-test',
          regionId: 'aws-us-west-2',
          cuType: 'Performance-optimized',
          plan: 'Enterprise',
          status: 'RUNNING',
          connectAddress: 'https://in01-108240180a4faf8.aws-us-west-2.vectordb.zillizcloud.com:19539',
          privateLinkAddress: '',
          createTime: '2024-06-30T16:34:09Z',
        },
      },
    });
  });

  test('lists clusters in pages of 1 to 100', async () => {
    const page = await askControlPlane('GET', '/v2/clusters?pageSize=1&currentPage=1');
    expect(page.json).toMatchObject({ code: 0, data: { currentPage: 1, pageSize: 1, clusters: [{}] } });
    for (const pageSize of [0, 101])
      expect((await askControlPlane('GET', `/v2/clusters?pageSize=${pageSize}`)).json).toMatchObject({
        code: 96_008,
      });
  });

  test.each(['real-status', '200'] as const)(
    'refuses a user’s token and an unknown cluster (%s)',
    async (how) => {
      cloud.switches.controlPlaneErrors = how;
      const [unauthorized, absent] = how === '200' ? [200, 200] : [401, 404];
      const username = await create();
      const token = { authorization: `Bearer ${username}:${password}` };
      expect(await askControlPlane('GET', `/v2/clusters/${cluster.id}`, undefined, token)).toMatchObject({
        status: unauthorized,
        json: { code: 21_119, message: 'The apikey is illegal.' },
      });
      expect((await askControlPlane('GET', '/v2/clusters/in01-none')).status).toBe(absent);
    },
  );

  test('answers twenty calls a second and key', async () => {
    const path = `/v2/clusters/${cluster.id}`;
    for (let call = 1; call <= 20; call += 1) expect((await askControlPlane('GET', path)).status).toBe(200);
    expect((await askControlPlane('GET', path)).status).toBe(429);
    const asOther = { authorization: 'Bearer key-2' };
    expect((await askControlPlane('GET', path, undefined, asOther)).status).toBe(200);
    clock.move(1_000);
    expect((await askControlPlane('GET', path)).status).toBe(200);
  });

  test('takes whatever would change a cluster for a catastrophe', async () => {
    const before = cloud.catastrophes.length;
    await askControlPlane('DELETE', `/v2/clusters/${cluster.id}`);
    await ask('users/drop', { userName: 'db_admin' });
    await ask('roles/drop', { roleName: 'db_rw' });
    expect(cloud.catastrophes.slice(before).map(({ operation }) => operation)).toEqual([
      'changeCluster',
      'deleteUser',
      'dropRole',
    ]);
  });
});

describe('users of a cluster', () => {
  test('are created, listed by bare name, and log in', async () => {
    const username = await create();
    expect(await listed()).toEqual(['db_admin', username]);
    expect([await logsIn(username), await logsIn(username, other), await logsIn('nobody')]).toEqual([
      200, 401, 401,
    ]);
  });

  test('are of one cluster only', async () => {
    const username = await create();
    const at = cloud.addCluster({ name: 'other' });
    expect((await ask('collections/list', {}, { at, token: `${username}:${password}` })).status).toBe(401);
  });

  test('have a token that is split at its first colon', async () => {
    const userName = freshName();
    await ask('users/create', { userName, password: 'with:Colon:7:s' });
    expect(await logsIn(userName, 'with:Colon:7:s')).toBe(200);
  });

  test('change their password, and the old one is dead at once', async () => {
    const userName = await create();
    const change = { userName, password, newPassword: other };
    expect(await answerOf('users/update_password', change)).toEqual(done);
    expect([await logsIn(userName), await logsIn(userName, other)]).toEqual([401, 200]);
    // The same change again meets another current password; one that changes nothing is taken.
    const refused = { code: 1400, message: `old password not correct for ${userName}: not authenticated` };
    expect(await answerOf('users/update_password', change)).toEqual([200, refused]);
    expect(
      await answerOf('users/update_password', { userName, password: other, newPassword: other }),
    ).toEqual(done);
  });

  test('that are absent: a change is refused in the same words, a drop succeeds, a description is empty', async () => {
    const change = { userName: 'nobody', password, newPassword: other };
    expect(await answerOf('users/update_password', change)).toEqual([
      200,
      { code: 1400, message: 'old password not correct for nobody: not authenticated' },
    ]);
    expect(await answerOf('users/drop', { userName: 'nobody' })).toEqual(done);
    expect(await answerOf('users/describe', { userName: 'nobody' })).toEqual([200, { code: 0, data: [] }]);
    expect(await answerOf('users/revoke_role', { userName: 'nobody', roleName: 'orders_rw' })).toEqual(done);
  });

  test('hold roles until these are revoked, or the user is dropped', async () => {
    const userName = await create();
    await ask('users/grant_role', { userName, roleName: 'orders_rw' });
    await ask('users/grant_role', { userName, roleName: 'db_ro' });
    expect(await rolesOf(userName)).toEqual(['orders_rw', 'db_ro']);
    await ask('users/revoke_role', { userName, roleName: 'db_ro' });
    expect(await rolesOf(userName)).toEqual(['orders_rw']);
    await ask('users/drop', { userName });
    await create(userName);
    expect(await rolesOf(userName)).toEqual([]);
  });

  test('may do nothing with users, may only look with db_ro, and everything with db_admin', async () => {
    const userName = await create();
    const token = `${userName}:${password}`;
    const [list, make] = [
      () => ask('users/list', {}, { token }),
      () => ask('users/create', { userName: freshName(), password }, { token }),
    ];
    expect((await list()).status).toBe(403);
    cloud.actor.grantRole(cluster.id, userName, 'db_ro');
    expect([(await list()).status, (await make()).status]).toEqual([200, 403]);
    cloud.actor.grantRole(cluster.id, userName, 'db_admin');
    expect([(await list()).status, (await make()).status]).toEqual([200, 200]);
  });
});

describe('what is refused, by the line of Milvus and its statuses', () => {
  type Line = Pick<ZillizSwitches, 'profile' | 'statuses'>;
  type Refusal = readonly [status: number, code: number, message: string];
  interface Case {
    readonly given?: () => Promise<unknown> | unknown;
    readonly path: string;
    readonly body: unknown;
    /** By line, then with real statuses. */
    readonly two: Refusal;
    readonly three: Refusal;
    readonly real: readonly [two: number, three: number];
  }
  const limit = 'unable to add user because the number of users has reached the limit';
  const noUser = "not found the user, maybe the user isn't existed or internal system error";
  const noRole = "not found the role, maybe the role isn't existed or internal system error";
  const same = (refusal: Refusal, real: number) => ({
    two: refusal,
    three: refusal,
    real: [real, real] as const,
  });
  const missing = (field: string): string =>
    `missing required parameters, error: Key: 'Req.${field}' Error:Field validation for '${field}' failed on the 'required' tag`;
  const cases: Record<string, Case> = {
    'a user that exists': {
      given: () => cloud.actor.createUser(cluster.id, 'taken', password),
      path: 'users/create',
      body: { userName: 'taken', password },
      two: [200, 65_535, 'user already exists'],
      three: [200, 1100, 'user already exists: taken'],
      real: [500, 400],
    },
    'too many users': {
      given: () => {
        cloud.switches.mostUsers = 1;
      },
      path: 'users/create',
      body: { userName: 'one_more', password },
      two: [200, 65_535, limit],
      three: [200, 9, limit],
      real: [500, 500],
    },
    'a grant to an absent user': {
      path: 'users/grant_role',
      body: { userName: 'nobody', roleName: 'orders_rw' },
      two: [200, 65_535, noUser],
      three: [200, 1100, 'user "nobody" not found'],
      real: [500, 400],
    },
    'a grant of an absent role': {
      path: 'users/grant_role',
      body: { userName: 'db_admin', roleName: 'nothing' },
      two: [200, 65_535, noRole],
      three: [200, 65_535, 'role not exists'],
      real: [500, 500],
    },
    'the drop of the built-in user': {
      path: 'users/drop',
      body: { userName: 'db_admin' },
      ...same([200, 1401, 'db_admin user cannot be deleted'], 403),
    },
    'the drop of a built-in role': {
      path: 'roles/drop',
      body: { roleName: 'db_rw' },
      ...same([200, 1401, "the role[db_rw] is a default role, which can't be dropped"], 403),
    },
    'a wrong current password': {
      path: 'users/update_password',
      body: { userName: 'db_admin', password, newPassword: other },
      ...same([200, 1400, 'old password not correct for db_admin: not authenticated'], 401),
    },
    'a password that is too short': {
      path: 'users/create',
      body: { userName: 'u', password: 'Ab3_567' },
      ...same([200, 1100, 'invalid password length: invalid parameter[expected=between 8 and 64]'], 400),
    },
    'a password of two classes': {
      path: 'users/create',
      body: { userName: 'u', password: 'abcdefgh1' },
      ...same([200, 1100, 'invalid password: expected three of upper, lower, digit, special'], 400),
    },
    'a name that is none': {
      path: 'users/create',
      body: { userName: '1x', password },
      ...same(
        [
          200,
          1100,
          'invalid parameter: the first character of a user name must be a letter, then letters, digits, underscores, 32 at most',
        ],
        400,
      ),
    },
    'a missing name': {
      path: 'users/create',
      body: { password },
      ...same([200, 1802, missing('UserName')], 400),
    },
    'a missing password': {
      path: 'users/create',
      body: { userName: 'u' },
      ...same([200, 1802, missing('Password')], 400),
    },
    'an empty body': {
      path: 'users/list',
      body: undefined,
      ...same([200, 1801, 'the request body should be nil, however {} is valid'], 400),
    },
  };
  const lines: readonly Line[] = (['2.x', '3.x', 'legacy'] as const).flatMap((profile) =>
    (['mostly-200', 'real'] as const).map((statuses) => ({ profile, statuses })),
  );
  const all = lines.flatMap((line) =>
    Object.entries(cases).map(([what, one]) => ({ ...line, ...one, what })),
  );

  test.each(all)('$what ($profile, statuses $statuses)', async (one) => {
    const { profile, statuses, path, body, given, what } = one;
    Object.assign(cloud.switches, { profile, statuses });
    await given?.();
    const isThree = profile === '3.x';
    const [status, code, message] = isThree ? one.three : one.two;
    const wanted = statuses === 'real' ? one.real[isThree ? 1 : 0] : status;
    const seen = what === 'an empty body' ? await askEmpty(path) : await ask(path, body);
    expect([seen.status, seen.json]).toEqual([wanted, { code, message }]);
  });

  const askEmpty = (path: string): Promise<Seen> =>
    createAsk({
      base: `https://${cluster.host}:${cluster.port}/v2/vectordb`,
      dispatcher,
      headers: { authorization: `Bearer ${key}` },
    })('POST', `/${path}`);

  test('success of an early server is 200', async () => {
    cloud.switches.profile = 'legacy';
    expect((await ask('users/list')).json).toEqual({ code: 200, data: ['db_admin'] });
  });

  test('a description stands beside the data of 3.x, and its password may stay what it is', async () => {
    cloud.switches.profile = '3.x';
    const userName = await create();
    expect(await answerOf('users/update_password', { userName, description: 'of orders' })).toEqual(done);
    expect(await answerOf('users/describe', { userName })).toEqual([
      200,
      { code: 0, data: [], description: 'of orders' },
    ]);
    expect(await logsIn(userName)).toBe(200);
    expect((await ask('users/update_password', { userName, newPassword: other })).json).toMatchObject({
      code: 1802,
    });
    expect(await answerOf('roles/alter', { roleName: 'orders_rw', description: 'x' })).toEqual(done);
    cloud.switches.profile = '2.x';
    expect((await ask('roles/alter', { roleName: 'orders_rw' })).status).toBe(404);
  });

  test.each([
    [401, 401],
    [200, 200],
  ] as const)('whoever is not authenticated meets 1800 under %i', async (unauthenticated, status) => {
    cloud.switches.unauthenticated = unauthenticated;
    for (const token of ['wrong', 'db_admin:wrong'])
      expect(await answerOf('users/list', {}, { token })).toEqual([
        status,
        { code: 1800, message: "user hasn't authenticated" },
      ]);
  });

  test.each([401, 403, 404, 200] as const)(
    'user calls on plans without users are answered with %i',
    async (status) => {
      cloud.switches.withoutUsers = status;
      const at = cloud.addCluster({ name: 'small', plan: 'Free' });
      expect((await ask('users/list', {}, { at })).status).toBe(status);
      expect((await ask('collections/list', {}, { at })).status).toBe(200);
    },
  );

  test('a suspended cluster answers with a page, or not at all', async () => {
    cloud.actor.setStatus(cluster.id, 'SUSPENDED');
    expect(await ask('users/list')).toMatchObject({ status: 503, json: undefined });
    cloud.switches.suspended = 'refuse-connection';
    await expect(ask('users/list')).rejects.toThrow('fetch failed');
  });

  test.each([
    ['a wrong path', 'users/everything'],
    ['the parent of a path', 'users'],
  ])('%s is not found', async (_what, path) => {
    expect(await ask(path)).toMatchObject({ status: 404, text: '404 page not found' });
  });
});

describe('other shapes of the same', () => {
  test('an empty name among the roles, no array at all, another order, fields that nobody knows', async () => {
    const userName = await create();
    cloud.switches.noRoles = 'null';
    expect((await ask('users/describe', { userName })).json).toEqual({ code: 0, data: null });
    cloud.switches.emptyRole = true;
    expect(await rolesOf(userName)).toEqual(['']);
    cloud.switches.emptyRole = false;
    for (const roleName of ['orders_rw', 'db_ro']) await ask('users/grant_role', { userName, roleName });
    cloud.switches.isShuffled = true;
    const orders = new Set([
      JSON.stringify(await rolesOf(userName)),
      JSON.stringify(await rolesOf(userName)),
    ]);
    expect(orders).toEqual(new Set(['["orders_rw","db_ro"]', '["db_ro","orders_rw"]']));
    cloud.switches.extraFields = true;
    expect(Object.keys((await ask('users/list')).json as object).toSorted()).toEqual([
      'code',
      'cost',
      'data',
      'requestId',
    ]);
  });

  test('privileges of a role, in camel case, granted in both ways', async () => {
    await ask('roles/create', { roleName: 'reports', description: 'd' });
    const grant = {
      roleName: 'reports',
      objectType: 'Collection',
      objectName: 'orders',
      privilege: 'Search',
    };
    await ask('roles/grant_privilege', grant);
    await ask('roles/grant_privilege_v2', { roleName: 'reports', privilege: 'Query', collectionName: '*' });
    expect((await ask('roles/describe', { roleName: 'reports' })).json).toEqual({
      code: 0,
      data: [
        {
          objectType: 'Collection',
          objectName: 'orders',
          privilege: 'Search',
          dbName: 'default',
          grantor: 'zcloud_root',
        },
        {
          objectType: 'Global',
          objectName: '*',
          privilege: 'Query',
          dbName: 'default',
          grantor: 'zcloud_root',
        },
      ],
    });
    expect((await ask('roles/drop', { roleName: 'reports' })).json).toMatchObject({
      code: 65_535,
      message: expect.stringContaining('Use REVOKE API'),
    });
    await ask('roles/revoke_privilege', grant);
    await ask('roles/revoke_privilege_v2', { roleName: 'reports', privilege: 'Query' });
    expect((await ask('roles/describe', { roleName: 'reports' })).json).toEqual({ code: 0, data: [] });
  });

  test('privilege groups, as texts and as arrays', async () => {
    const privilegeGroupName = 'g';
    await ask('privilege_groups/create', { privilegeGroupName, privileges: ['Ignored'] });
    const privileges = ['Search', 'Query'];
    await ask('privilege_groups/add_privileges_to_group', { privilegeGroupName, privileges });
    const list = async () => ((await ask('privilege_groups/list')).json as { data: unknown }).data;
    expect(await list()).toEqual({
      privilegeGroups: [{ privilegeGroupName: 'g', privileges: 'Search,Query' }],
    });
    cloud.switches.privilegeGroups = 'array-of-arrays';
    expect(await list()).toEqual([{ privilegeGroupName: 'g', privileges }]);
    await ask('privilege_groups/remove_privileges_from_group', { privilegeGroupName, privileges: ['Query'] });
    expect(await list()).toEqual([{ privilegeGroupName: 'g', privileges: ['Search'] }]);
    await ask('privilege_groups/drop', { privilegeGroupName });
    expect(await list()).toEqual([]);
  });

  test('a cluster of Milvus itself has root, admin and public', async () => {
    const at = cloud.addCluster({ name: 'milvus', builtIns: 'milvus' });
    expect((await ask('users/list', {}, { at, token: 'root:Milvus' })).json).toEqual({
      code: 0,
      data: ['root'],
    });
    expect((await ask('roles/list', {}, { at })).json).toEqual({ code: 0, data: ['admin', 'public'] });
    cloud.switches.builtInRoleDrop = 65_535;
    expect((await ask('roles/drop', { roleName: 'admin' }, { at })).json).toMatchObject({ code: 65_535 });
  });

  test('an administrator may do without the current password, where that is so', async () => {
    const userName = await create();
    const change = { userName, newPassword: other };
    expect((await ask('users/update_password', change)).json).toMatchObject({ code: 1802 });
    cloud.switches.currentPassword = 'skipped-for-admins';
    expect(await answerOf('users/update_password', change)).toEqual(done);
    expect(await logsIn(userName, other)).toBe(200);
  });
});

describe('what takes time', () => {
  test('a password that reaches all proxies late: the old one works until then', async () => {
    const userName = await create();
    cloud.switches.passwordReaches = { proxies: 'all', afterMs: 3_000 };
    await ask('users/update_password', { userName, password, newPassword: other });
    expect([await logsIn(userName), await logsIn(userName, other)]).toEqual([200, 401]);
    clock.move(3_000);
    expect([await logsIn(userName), await logsIn(userName, other)]).toEqual([401, 200]);
  });

  test('a proxy that missed a change takes the old one until it restarts', async () => {
    const userName = await create();
    cloud.switches.passwordReaches = { proxies: 'one-late', afterMs: Number.POSITIVE_INFINITY };
    await ask('users/update_password', { userName, password, newPassword: other });
    const twice = async () => [await logsIn(userName), await logsIn(userName)].toSorted();
    clock.move(86_400_000);
    expect(await twice()).toEqual([200, 401]);
    cloud.actor.restart(cluster.id);
    expect(await twice()).toEqual([401, 401]);
  });

  test('a grant is described late, and a list lags behind', async () => {
    cloud.switches.grantsSeenAfterMs = 5_000;
    cloud.switches.delays = { userListed: { ms: 5_000 }, userUnlisted: { ms: 5_000 } };
    const userName = await create();
    await ask('users/grant_role', { userName, roleName: 'orders_rw' });
    expect([await rolesOf(userName), await listed()]).toEqual([[], ['db_admin']]);
    clock.move(5_000);
    expect([await rolesOf(userName), await listed()]).toEqual([['orders_rw'], ['db_admin', userName]]);
    await ask('users/drop', { userName });
    expect(await listed()).toEqual(['db_admin', userName]);
    clock.move(5_000);
    expect(await listed()).toEqual(['db_admin']);
  });

  test('a new cluster authenticates nobody at first', async () => {
    cloud.switches.authenticatesAfterMs = 60_000;
    const at = cloud.addCluster({ name: 'new', createdAt: clock.now() });
    expect((await ask('users/list', {}, { at })).status).toBe(401);
    clock.move(60_000);
    expect((await ask('users/list', {}, { at })).status).toBe(200);
  });

  test('a change that lands after its 408', async () => {
    const userName = await create();
    cloud.faults.inject({ operation: 'setPassword', kind: 'timeout-apply-later', ms: 40_000 });
    await expect(ask('users/update_password', { userName, password, newPassword: other })).rejects.toThrow();
    expect(await logsIn(userName)).toBe(200);
    clock.move(40_000);
    await expect.poll(() => logsIn(userName, other)).toBe(200);
  });

  test('an answer that begins and never ends', async () => {
    const userName = await create();
    cloud.faults.inject({ operation: 'setPassword', kind: 'stall-mid-body' });
    await expect(ask('users/update_password', { userName, password, newPassword: other })).rejects.toThrow();
    expect(await logsIn(userName, other)).toBe(200);
  });
});

test('every call is on record, with a digest in place of a password', async () => {
  const userName = await create();
  expect(cloud.calls.at(-1)).toMatchObject({
    operation: 'createUser',
    username: userName,
    body: { userName, password: expect.stringMatching(/^[0-9a-f]{64}$/) },
    status: 200,
  });
  expect(JSON.stringify(cloud.calls)).not.toContain(password);
  expect(JSON.stringify(cloud.calls)).not.toContain(key);
});

describe('the official SDK, as it comes from npm', () => {
  const sdk = (token = key): HttpClient =>
    new HttpClient({
      endpoint: `https://${cluster.host}:${cluster.port}`,
      token,
      // Only the way there is ours: the host exists on this machine alone.
      fetch: (url: unknown, init: unknown) =>
        fetch(String(url), { ...(init as object), dispatcher }) as never,
    });

  test.each(['2.x', '3.x', 'legacy'] as const)('takes a user through its life on %s', async (profile) => {
    cloud.switches.profile = profile;
    const code = profile === 'legacy' ? 200 : 0;
    const ok = { code, data: {} };
    const admin = sdk();
    const userName = freshName();
    expect(await admin.createUser({ userName, password })).toEqual(ok);
    expect(await admin.listUsers()).toEqual({ code, data: ['db_admin', userName] });
    expect(await admin.listRoles()).toEqual({ code, data: ['db_admin', 'db_ro', 'db_rw', 'orders_rw'] });
    expect(await admin.grantRoleToUser({ userName, roleName: 'orders_rw' })).toEqual(ok);
    expect(await admin.describeUser({ userName })).toMatchObject({ code, data: ['orders_rw'] });
    expect(await sdk(`${userName}:${password}`).listCollections()).toMatchObject({ code });

    const change = { userName, password, newPassword: other };
    expect(await admin.updateUserPassword(change)).toEqual(ok);
    expect(await sdk(`${userName}:${other}`).listCollections()).toMatchObject({ code });
    await expect(sdk(`${userName}:${password}`).listCollections()).rejects.toMatchObject({ status: 401 });
    expect(await admin.updateUserPassword(change)).toMatchObject({ code: 1400 });

    expect(await admin.revokeRoleFromUser({ userName, roleName: 'orders_rw' })).toEqual(ok);
    expect(await admin.describeUser({ userName })).toMatchObject({ code, data: [] });
    expect(await admin.dropUser({ userName })).toEqual(ok);
    expect(await admin.listUsers()).toEqual({ code, data: ['db_admin'] });
    await expect(sdk(`${userName}:${other}`).listCollections()).rejects.toMatchObject({ status: 401 });
  });

  test('sends what no other client does, and is understood: text/plain, and a database that nobody asked for', async () => {
    await sdk().createUser({ userName: freshName(), password });
    expect(cloud.calls.at(-1)).toMatchObject({
      headers: { 'content-type': 'text/plain;charset=UTF-8' },
      body: { dbName: 'default' },
      status: 200,
    });
  });
});
