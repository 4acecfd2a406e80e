import { createHash } from 'node:crypto';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type HttpRequest, interpose, type Ports, SqlError } from '../../functions/core/ports.ts';
import type { ChoosingProvider, Login, OpenTarget } from '../../functions/core/provider.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { failureOf as meaningOf } from '../../functions/providers/cockroachdb-cloud/api.ts';
import { cockroachdbCloud } from '../../functions/providers/cockroachdb-cloud/provider.ts';
import type { VendorResponse } from '../../functions/providers/http.ts';
import { createCertificateAuthority } from '../../infra/local/network.ts';
import type {
  CockroachdbCloud,
  CockroachdbCluster,
  CockroachdbOperation,
  CockroachdbSwitches,
} from '../../infra/local/providers/cockroachdb-cloud.ts';
import type { Fault } from '../../infra/local/providers/faults.ts';
import { addCockroachdbOrders } from '../../infra/local/providers/fixtures.ts';
import { holding, useTestVendors } from '../support/vendors.ts';
import {
  bringChosen,
  type ChoosingSubject,
  choosingContract,
  codeOf,
  failureOf,
  freshName,
  type OpenOptions,
  type Operation,
  providerContract,
  type SqlSubject,
  sqlContract,
} from './contract.ts';

const vendors = useTestVendors();
let cloud: CockroachdbCloud;
let cluster: CockroachdbCluster;
let before = 0;
const root = { username: 'root', password: new Sensitive('Root-password_00000000000000001') };
beforeAll(async () => {
  const { api, postgres } = vendors().cockroachdb;
  cloud = api;
  cluster = await addCockroachdbOrders(cloud, postgres);
  await postgres.query('CREATE ROLE orders_ro NOLOGIN');
  await postgres.query('CREATE ROLE orders_owner NOLOGIN');
  await postgres.createDatabase('reports');
  await postgres.query('GRANT CREATE ON SCHEMA public TO PUBLIC', [], 'reports');
  await postgres.query(`ALTER ROLE root PASSWORD '${root.password.reveal()}'`);
});
beforeEach(() => {
  cloud.actor.setState(cluster.id, 'CREATED');
  before = cloud.calls.length;
});

/** What the vendor was asked in this test, oldest first. */
const calls = (operation?: CockroachdbOperation) =>
  cloud.calls.slice(before).filter((call) => operation === undefined || call.operation === operation);
const inject = (fault: Fault<CockroachdbOperation>): void => cloud.faults.inject(fault);
const engine = (sql: string) => vendors().cockroachdb.postgres.query(sql);

interface Options extends OpenOptions {
  readonly clusterId?: string;
  readonly roles?: readonly string[];
  readonly objectsOwner?: string;
  readonly admin?: OpenTarget<unknown, unknown>['admin'];
}
const open = ({
  budgetMs = 180_000,
  apiKey = vendors().apiKeys.cockroachdb,
  clusterId = cluster.id,
  roles = ['orders_rw'],
  objectsOwner,
  admin,
  http,
  sql,
  around = (_name, _request, call) => call(),
}: Options = {}): ChoosingProvider => {
  const { clock, ports } = vendors();
  const until = new Date(clock.now().getTime() + budgetMs);
  const provider = cockroachdbCloud.open(
    {
      target: { clusterId, database: 'defaultdb' },
      privileges: { roles: [...roles], ...(objectsOwner === undefined ? {} : { objectsOwner }) },
      apiKey: new Sensitive(apiKey),
      until,
      ...(admin === undefined ? {} : { admin }),
    },
    interpose(
      ports(until, { ...(http === undefined ? {} : { http }), ...(sql === undefined ? {} : { sql }) }),
      around,
    ),
  );
  if (provider.passwords !== 'chosen-by-us') throw new Error('CockroachDB Cloud takes our passwords');
  return vendors().watch(provider);
};

const passwordOf = (username: string): Sensitive =>
  new Sensitive(`Pw-${createHash('sha256').update(username).digest('base64url').slice(0, 29)}`);
const loginOf = async (username: string): Promise<Login> => ({
  ...(await open().endpoint()),
  username,
  password: passwordOf(username),
});
/** A user as the vendor leaves it, made by somebody: an administrator. */
const born = async (username = freshName()): Promise<Login> => {
  const login = await loginOf(username);
  await cloud.actor.createUser(cluster.id, username, login.password.reveal());
  return login;
};
/** A user with the declared rights. */
const made = async (username = freshName()): Promise<Login> => {
  const login = await loginOf(username);
  await open().createUser(login, holding);
  return login;
};
const userOf = async (username: string) => (await cluster.users()).find((user) => user.username === username);

const operations: Record<Operation, CockroachdbOperation> = {
  readiness: 'getCluster',
  list: 'listUsers',
  create: 'createUser',
  remove: 'deleteUser',
  setPassword: 'setPassword',
};

const subject = (): ChoosingSubject & SqlSubject<ChoosingProvider> => ({
  vendors: vendors(),
  host: 'cockroachlabs.cloud',
  front: vendors().cockroachdb.front,
  engine: vendors().cockroachdb.postgres,
  open,
  async bring(provider, username) {
    const login = { ...(await provider.endpoint()), username, password: passwordOf(username) };
    await bringChosen(provider, login);
    return login;
  },
  // Nothing at CockroachDB Cloud keeps a user because of what others are.
  supersede: async () => undefined,
  inject: (operation, trouble) => inject({ ...trouble, operation: operations[operation] }),
  calls: (operation) => calls(operations[operation]).length,
  usernames: async () => (await cluster.users()).map(({ username }) => username),
  deletedBySomebody: (username) => cloud.actor.deleteUser(cluster.id, username),
  listIsStale: (skip = 0) =>
    inject({ operation: 'listUsers', kind: 'status', status: 200, json: { users: [] }, skip }),
  listLagsMs(ms) {
    cloud.switches.delays.userUnlisted = { ms };
  },
  alsoListed(names) {
    cloud.switches.listedOnly = names;
  },
  protectedUsers: () => ['root', 'admin'],
  notReady: Object.fromEntries(
    ['LOCKED', 'CREATING', 'CREATION_FAILED', 'DELETED', 'Deleted', 'A_STATE_OF_TOMORROW'].map((state) => [
      state,
      {
        given: () => cloud.actor.setState(cluster.id, state),
        reason: `its state is ${state}`,
        ...(state.toUpperCase() === 'DELETED' ? { isGone: true as const } : {}),
      },
    ]),
  ),
  rateLimitStatuses: [429, 503, 400],
  linger: (login) => vendors().connect(login, 'orders-api'),
  capabilities: cockroachdbCloud.capabilities,
  readsCount: true,
  drift: (username) => engine(`GRANT orders_ro TO ${username}`),
  ending: (options) => open({ ...options, admin: root }),
  blind: () => vendors().faultLogins(vendors().cockroachdb.front, { kind: 'routing-failed' }),
  passwordOf,
  async overreach(login) {
    const client = await vendors()
      .connect(login, 'overreach')
      .catch(() => undefined);
    await client?.end();
    const user = client === undefined ? undefined : await userOf(login.username);
    if (user === undefined) return undefined;
    const extra = user.roles.filter((role) => role !== 'orders_rw');
    return user.isAdmin ? 'admin' : extra[0];
  },
  openUnknown: (options) => open({ ...options, roles: ['orders_rw', 'no_such_role'] }),
  createdBySomebody: ({ username, password }) =>
    cloud.actor.createUser(cluster.id, username, password.reveal()),
  refusesSamePassword(isRefused) {
    cloud.switches.samePassword = isRefused ? 'refuse' : 'accept';
  },
});

providerContract('cockroachdb-cloud', subject);
sqlContract('cockroachdb-cloud', subject);
choosingContract('cockroachdb-cloud', subject);

describe('the list of CockroachDB Cloud', () => {
  const ends: readonly CockroachdbSwitches['endOfList'][] = ['absent-pagination', 'absent', 'null', 'empty'];
  const pages = ends.flatMap((endOfList) => [1, 2, 500].map((pageSize) => ({ endOfList, pageSize })));
  test.each(pages)(
    'is read to its end, marked as $endOfList, in pages of $pageSize',
    async ({ endOfList, pageSize }) => {
      const { username } = await made();
      const whole = await open().listUsers();
      Object.assign(cloud.switches, { endOfList, pageSize });
      const first = calls('listUsers').length;
      const listed = await open().listUsers();
      expect(listed).toContainEqual({ username, isProtected: false });
      expect(listed).toEqual(whole);
      const pagesRead = calls('listUsers')
        .slice(first)
        .map(({ query }) => query['pagination.page']);
      expect(new Set(pagesRead).size).toBe(pagesRead.length);
    },
  );

  test('is asked for with an empty page token and 500 users a page', async () => {
    await open().listUsers();
    expect(calls('listUsers')[0]?.query).toEqual({ 'pagination.page': '', 'pagination.limit': '500' });
  });

  test('that never ends, as its page token comes again, is an error', async () => {
    Object.assign(cloud.switches, { repeatedToken: true, pageSize: 1 });
    const error = await failureOf(open().listUsers());
    expect([error.code, error.effect]).toEqual(['UNREADABLE', 'none']);
    expect(error.message).toContain('the user list never ends (a page token came twice)');
    expect(calls('listUsers').length).toBeLessThanOrEqual(3);
  });

  test('is not cut short where a later page fails', async () => {
    await made();
    cloud.switches.pageSize = 2;
    const always = { times: Number.POSITIVE_INFINITY };
    inject({ operation: 'listUsers', kind: 'status', status: 500, skip: 1, ...always });
    expect(await codeOf(open().listUsers())).toBe('UNAVAILABLE none');
  });

  test('is complete where a later page fails once', async () => {
    const { username } = await made();
    cloud.switches.pageSize = 2;
    inject({ operation: 'listUsers', kind: 'reset-mid-body', skip: 1 });
    const listed = (await open().listUsers()).map((user) => user.username);
    expect(listed).toEqual(expect.arrayContaining(['root', username]));
  });

  test('holds a user once that moved between pages while they were read', async () => {
    cloud.switches.listedOnly = ['moved', 'moved'];
    const listed = (await open().listUsers()).map(({ username }) => username);
    expect(listed.filter((username) => username === 'moved')).toEqual(['moved']);
  });

  test('holds names as the cluster compares them: folded, and in one normal form', async () => {
    const number = freshName();
    cloud.switches.listedOnly = [`App_${number}`, 'cafe\u0301', 'CAFÉ'];
    const listed = await open().listUsers();
    expect(listed).toEqual(
      expect.arrayContaining([
        { username: `app_${number}`, isProtected: false },
        { username: 'caf\u00e9', isProtected: true },
      ]),
    );
    expect(listed.filter(({ username }) => username === 'caf\u00e9')).toHaveLength(1);
    expect(await open().createUser(await loginOf(`app_${number}`), holding)).toBe('exists');
    expect(calls('createUser')).toEqual([]);
  });

  test('marks reserved names and people who sign in through SSO', async () => {
    cloud.switches.listedOnly = ['sso_jane', 'pg_monitor', 'crdb_internal_x', 'node', 'public', 'none'];
    const users = await open().listUsers();
    const marked = users.filter(({ isProtected }) => isProtected).map(({ username }) => username);
    expect(marked).toEqual(expect.arrayContaining(['admin', 'root', ...cloud.switches.listedOnly]));
    expect(users).toContainEqual({ username: 'reporting', isProtected: false });
  });
});

describe('what a failure of CockroachDB Cloud means', () => {
  const rows: readonly [status: number, body: unknown, post: string, get?: string][] = [
    [400, { code: 3 }, 'REJECTED none'],
    [400, { code: 9 }, 'TARGET_NOT_READY none'],
    [412, { code: 9 }, 'TARGET_NOT_READY none'],
    [412, undefined, 'TARGET_NOT_READY none'],
    [401, { code: 16 }, 'UNAUTHORIZED none'],
    [403, { code: 7 }, 'UNAUTHORIZED none'],
    [403, { code: 8 }, 'RATE_LIMITED none'],
    [429, { code: 8 }, 'RATE_LIMITED none'],
    [403, { message: 'rate limit exceeded' }, 'RATE_LIMITED none'],
    [404, { code: 5 }, 'NOT_FOUND none'],
    [409, { code: 6 }, 'CONFLICT none'],
    [409, { message: 'user already exists' }, 'CONFLICT none'],
    [500, { message: 'user already exists' }, 'CONFLICT none'],
    [
      409,
      { code: 10, message: 'cluster is being modified, retry' },
      'UNAVAILABLE unknown',
      'UNAVAILABLE none',
    ],
    [409, undefined, 'UNAVAILABLE unknown', 'UNAVAILABLE none'],
    [499, { code: 1, message: 'context canceled' }, 'UNAVAILABLE unknown', 'UNAVAILABLE none'],
    [499, undefined, 'UNAVAILABLE unknown', 'UNAVAILABLE none'],
    [408, { code: 1 }, 'UNAVAILABLE unknown', 'UNAVAILABLE none'],
    [500, { code: 2 }, 'UNAVAILABLE unknown', 'UNAVAILABLE none'],
    [400, { code: 11 }, 'REJECTED none'],
    [501, { code: 12 }, 'REJECTED unknown', 'REJECTED none'],
    [500, { code: 13 }, 'UNAVAILABLE unknown', 'UNAVAILABLE none'],
    [500, { code: 15 }, 'UNAVAILABLE unknown', 'UNAVAILABLE none'],
    [503, { code: 14 }, 'UNAVAILABLE unknown', 'UNAVAILABLE none'],
    [504, { code: 4 }, 'UNAVAILABLE unknown', 'UNAVAILABLE none'],
  ];
  test.each(rows)('%i %j: %s of a change, %s of a question', (status, json, post, get = post) => {
    const meant = (method: 'GET' | 'POST'): string => {
      const failure = meaningOf({ method, status, headers: {}, json } as VendorResponse, new Date());
      return `${failure?.code} ${failure?.effect}`;
    };
    expect([meant('POST'), meant('GET')]).toEqual([post, get]);
  });

  test('a conflict that is none is not taken for somebody’s user: the list decides', async () => {
    const json = { code: 10, message: 'cluster is being modified, retry' };
    inject({ operation: 'createUser', kind: 'status', status: 409, json });
    const login = await loginOf(freshName());
    expect(await codeOf(open().createUser(login, holding))).toBe('UNAVAILABLE unknown');
    expect(await open().createUser(login, holding)).toBe('created');
  });

  test('a change that was cancelled and carried out all the same is found in the list', async () => {
    const login = await born();
    const json = { code: 1, message: 'context canceled' };
    inject({ operation: 'deleteUser', kind: 'status', status: 499, applied: true, json });
    expect(await open().deleteUser(login.username, holding)).toBe('deleted');
  });
});

describe('creating a user at CockroachDB Cloud', () => {
  const duplicates: readonly CockroachdbSwitches['duplicate'][] = ['409', '400', '500'];
  test.each(duplicates)(
    'that the list does not show, refused with a %s, finds somebody’s user and leaves it untouched',
    async (duplicate) => {
      const theirs = await born();
      Object.assign(cloud.switches, { duplicate, unlisted: [theirs.username] });
      const ours = { ...theirs, password: new Sensitive('Ours-password_000000000000000001') };
      expect(await open().createUser(ours, holding)).toBe('exists');
      expect(await open().verify(theirs)).toBe('accepted');
      expect(await open().verify(ours)).toBe('rejected');
    },
  );

  test('whose answer was lost is finished: nobody else knows the throw-away password', async () => {
    inject({ operation: 'createUser', kind: 'reset-after-apply' });
    const login = await loginOf(freshName());
    expect(await open().createUser(login, holding)).toBe('created');
    expect(await open().verify(login)).toBe('accepted');
    expect(await open().privilegeDifferences(login)).toEqual([]);
  });

  test('never posts a listed name, which might change its password', async () => {
    const theirs = await born();
    cloud.switches.duplicate = 'changes-password';
    const ours = { ...theirs, password: new Sensitive('Ours-password_000000000000000001') };
    expect(await open().createUser(ours, holding)).toBe('exists');
    expect(await open().verify(theirs)).toBe('accepted');
    expect(calls('createUser')).toEqual([]);
  });

  test('takes the same name in other letters for the same', async () => {
    const login = await loginOf(freshName());
    const json = { name: login.username.toUpperCase() };
    inject({ operation: 'createUser', kind: 'status', status: 200, applied: true, json });
    expect(await open().createUser(login, holding)).toBe('created');
  });

  test('does not accept another user than it asked for', async () => {
    inject({ operation: 'createUser', kind: 'status', status: 200, json: { name: 'somebody' } });
    const login = await loginOf(freshName());
    const error = await failureOf(open().createUser(login, holding));
    expect([error.code, error.effect]).toEqual(['UNREADABLE', 'applied']);
    expect(error.message).toContain(`asked for ${login.username}, was given another name`);
  });

  const reserved = ['root', 'admin', 'node', 'public', 'none', 'pg_x', 'crdb_internal_x', 'sso_jane'];
  test.each([...reserved, 'Orders_Api', 'a'.repeat(33)])(
    'is refused for %s before any request',
    async (username) => {
      const password = new Sensitive('Ours-password_000000000000000001');
      const login = { host: 'localhost', port: 1, database: 'defaultdb', username, password };
      const provider = open();
      expect(await codeOf(provider.createUser(login, holding))).toBe('NAME_REFUSED none');
      expect(await codeOf(provider.setPassword({ username, current: [], next: password }, holding))).toBe(
        'NAME_REFUSED none',
      );
      expect(await codeOf(provider.applyPrivileges(login, holding))).toBe('NAME_REFUSED none');
      expect(await codeOf(provider.deleteUser(username, holding))).toBe('NAME_REFUSED none');
      expect([vendors().requests, vendors().statements]).toEqual([[], []]);
    },
  );

  test('with a password of less than 12 characters is refused in the vendor’s words', async () => {
    const login = { ...(await loginOf(freshName())), password: new Sensitive('Short-pw_01') };
    const error = await failureOf(open().createUser(login, holding));
    expect([error.code, error.effect]).toEqual(['REJECTED', 'none']);
    expect(error.message).toContain('got status 400 (password must be at least 12 characters)');
    expect(await userOf(login.username)).toBeUndefined();
  });

  test('gives the vendor longer than the 60 seconds after which its own calls time out', async () => {
    const patience: [HttpRequest['method'], number][] = [];
    const wire = vendors().http(vendors().network.proxyUrl);
    const http: Ports['http'] = (request) => {
      if (request.method !== 'GET') patience.push([request.method, request.timeoutMs]);
      return wire(request);
    };
    const login = await loginOf(freshName());
    const provider = open({ http });
    await provider.createUser(login, holding);
    await provider.setPassword(
      { username: login.username, current: [], next: passwordOf(freshName()) },
      holding,
    );
    await provider.deleteUser(login.username, holding);
    expect(patience).toEqual([
      ['POST', 75_000],
      ['PUT', 75_000],
      ['PUT', 75_000],
      ['DELETE', 75_000],
    ]);
  });

  test('whose password takes effect late is waited for', async () => {
    cloud.switches.effectAfterMs.createUser = 5_000;
    const login = await made();
    expect(await open().verify(login)).toBe('accepted');
    expect(await userOf(login.username)).toMatchObject({ isAdmin: false, roles: ['orders_rw'] });
  });
});

describe('the rights of a user of CockroachDB Cloud', () => {
  const writesOf = () =>
    vendors()
      .statements.flat()
      .filter((text) => /^(GRANT|REVOKE|BEGIN|COMMIT)/.test(text));

  test('are those of an administrator at birth, and the declared ones afterwards', async () => {
    const login = await born();
    expect(await userOf(login.username)).toMatchObject({ isAdmin: true });
    expect(await open().privilegeDifferences(login)).toEqual([
      'role orders_rw is declared but not held',
      'role admin is held but not declared',
    ]);
    await open().applyPrivileges(login, holding);
    expect(await open().privilegeDifferences(login)).toEqual([]);
    expect(await userOf(login.username)).toEqual({
      username: login.username,
      isAdmin: false,
      roles: ['orders_rw'],
    });
    const client = await vendors().connect(login, 'orders-api');
    await client.query("INSERT INTO orders (item) VALUES ('tea')");
    await expect(client.query('CREATE ROLE somebody')).rejects.toThrow('permission denied');
  });

  test('are put right by an administrator’s secret where there is one', async () => {
    const login = await born();
    const provider = open({ admin: root });
    await provider.applyPrivileges(login, holding);
    expect(await provider.privilegeDifferences(login)).toEqual([]);
    expect(vendors().cockroachdb.front.logins.map(({ user }) => user)).toContain('root');
  });

  test('are not written where they are right', async () => {
    const login = await made();
    const writesBefore = writesOf().length;
    await open().applyPrivileges(login, holding);
    await open({ admin: root }).applyPrivileges(login, holding);
    expect(writesOf()).toHaveLength(writesBefore);
  });

  test('change in one transaction, so that no crash leaves a user who can neither work nor be mended', async () => {
    const login = await born();
    await open().applyPrivileges(login, holding);
    expect(writesOf()).toEqual([
      'BEGIN',
      `GRANT "orders_rw" TO "${login.username}"`,
      `REVOKE "admin" FROM "${login.username}"`,
      'COMMIT',
    ]);
  });

  test('that were declared and do not exist are named; nobody is left with any', async () => {
    const fresh = await loginOf(freshName());
    for (const admin of [undefined, root]) {
      const provider = open({ roles: ['orders_rw', 'no_such_role'], ...(admin ? { admin } : {}) });
      const error = await failureOf(provider.createUser(fresh, holding));
      expect([error.code, error.effect]).toEqual(['ROLE_UNKNOWN', 'none']);
      expect(error.message).toContain('the cluster has no role no_such_role; create it');
      expect(await userOf(fresh.username)).toBeUndefined();
    }
    // An administrator sees it before the user is made.
    expect(calls('createUser')).toHaveLength(1);
  });

  test('that were declared and do not exist do not keep admin from being taken away', async () => {
    const login = await born();
    const provider = open({ roles: ['orders_rw', 'no_such_role'] });
    expect(await codeOf(provider.applyPrivileges(login, holding))).toBe('ROLE_UNKNOWN applied');
    expect(await userOf(login.username)).toEqual({ username: login.username, isAdmin: false, roles: [] });
  });

  test('that are refused while they are given do not keep admin from being taken away', async () => {
    const login = await born();
    const { sql: wire } = vendors().ports(new Date('2030-01-01T00:00:00Z'));
    // The role goes between the look and the grant.
    const sql: Ports['sql'] = async (session) => {
      const isGrant = session.statements.some(({ text }) => text.startsWith('GRANT'));
      if (!isGrant) return wire(session);
      throw new SqlError('statement 2 failed (42704)', { sqlState: '42704', statement: 1 });
    };
    await expect(open({ sql }).applyPrivileges(login, holding)).rejects.toThrow(
      expect.objectContaining({
        code: 'PRIVILEGES_DIFFER',
        message: expect.stringContaining('(42704); grant'),
      }),
    );
    expect(await userOf(login.username)).toEqual({ username: login.username, isAdmin: false, roles: [] });
    const fresh = await loginOf(freshName());
    await expect(open({ sql }).createUser(fresh, holding)).rejects.toThrow('PRIVILEGES_DIFFER');
    expect(await userOf(fresh.username)).toBeUndefined();
  });

  const drifts: Record<string, { change: (user: string) => string; want: string }> = {
    'a role too many': {
      change: (user) => `GRANT orders_ro TO ${user}`,
      want: 'role orders_ro is held but not declared',
    },
    'a role too few': {
      change: (user) => `REVOKE orders_rw FROM ${user}`,
      want: 'role orders_rw is declared but not held',
    },
  };
  test.each(Object.entries(drifts))(
    'with %s later are found; only an administrator’s secret can mend them',
    async (_what, { change, want }) => {
      const login = await made();
      await engine(change(login.username));
      expect(await open().privilegeDifferences(login)).toEqual([want]);
      await expect(open().applyPrivileges(login, holding)).rejects.toThrow(
        expect.objectContaining({
          code: 'PRIVILEGES_DIFFER',
          message: expect.stringContaining('(42501); grant or revoke it yourself, or name an administrator'),
        }),
      );
      await open({ admin: root }).applyPrivileges(login, holding);
      expect(await open().privilegeDifferences(login)).toEqual([]);
    },
  );

  test.each([false, true])(
    'are taken away again after a password change that gave admin back (idle: %s)',
    async (isIdle) => {
      const login = await made();
      cloud.switches.passwordGrantsAdmin = true;
      const next = passwordOf(freshName());
      await open().setPassword({ username: login.username, current: [], next, isIdle }, holding);
      expect(await userOf(login.username)).toMatchObject({ isAdmin: false, roles: ['orders_rw'] });
      expect(await open().verify({ ...login, password: next })).toBe('accepted');
    },
  );

  test('that cannot be taken away after the password are left to nobody who could log in', async () => {
    const login = await loginOf(freshName());
    cloud.switches.passwordGrantsAdmin = true;
    const { sql: wire } = vendors().ports(new Date('2030-01-01T00:00:00Z'));
    const sql: Ports['sql'] = async (session) => {
      const isRevoke = session.statements.some(({ text }) => text.startsWith('REVOKE "admin"'));
      const isGrant = session.statements.some(({ text }) => text.startsWith('GRANT'));
      if (!isRevoke || isGrant) return wire(session);
      throw new SqlError('statement 1 failed (42501)', { sqlState: '42501', statement: 0 });
    };
    await engine(`CREATE ROLE ${login.username} LOGIN`);
    const change = { username: login.username, current: [], next: login.password, isIdle: true };
    await expect(open({ sql }).setPassword(change, holding)).rejects.toThrow('was made an admin again');
    expect(await open().verify(login)).toBe('rejected');
  });

  test('cannot be compared by a user who is refused', async () => {
    const login = { ...(await made()), password: passwordOf('another') };
    const refused = expect.objectContaining({ code: 'CREDENTIAL_REJECTED' });
    await expect(open().privilegeDifferences(login)).rejects.toThrow(refused);
    await expect(open().applyPrivileges(login, holding)).rejects.toThrow(refused);
  });

  test('name the administrator where it is the one who is refused', async () => {
    const login = await born();
    const admin = { ...root, password: passwordOf('another') };
    await expect(open({ admin }).applyPrivileges(login, holding)).rejects.toThrow(
      expect.objectContaining({
        code: 'CREDENTIAL_REJECTED',
        message: expect.stringContaining('root could not log in'),
      }),
    );
  });

  test.each(['no-answer', 'routing-failed', 'reset'] as const)(
    'that cannot be read over %s are not said to differ',
    async (kind) => {
      const login = await made();
      vendors().faultLogins(vendors().cockroachdb.front, { kind });
      const unreachable = expect.objectContaining({ code: 'LOGIN_UNREACHABLE' });
      await expect(open().privilegeDifferences(login)).rejects.toThrow(unreachable);
      await expect(open().applyPrivileges(login, holding)).rejects.toThrow(unreachable);
    },
  );

  const commits: Record<string, { isApplied: boolean; want: string }> = {
    'and was applied are right': { isApplied: true, want: 'fine' },
    'and was not applied still differ': { isApplied: false, want: 'PRIVILEGES_DIFFER' },
  };
  test.each(Object.entries(commits))('whose COMMIT got no answer %s', async (_what, { isApplied, want }) => {
    const login = await born();
    const { sql: wire } = vendors().ports(new Date('2030-01-01T00:00:00Z'));
    const sql: Ports['sql'] = async (session) => {
      if (session.statements.length === 1) return wire(session);
      if (isApplied) await wire(session);
      throw new SqlError('statement 4 failed (ECONNRESET)', { statement: 3 });
    };
    const end = await open({ sql })
      .applyPrivileges(login, holding)
      .then(
        () => 'fine',
        (error) => error.code,
      );
    expect(end).toBe(want);
  });
});

describe('a password change at CockroachDB Cloud', () => {
  test('that takes effect late is waited for', async () => {
    const login = await made();
    cloud.switches.effectAfterMs.setPassword = 5_000;
    const next = { ...login, password: passwordOf(freshName()) };
    const start = vendors().clock.now().getTime();
    await open().setPassword({ username: login.username, current: [], next: next.password }, holding);
    expect(vendors().clock.now().getTime() - start).toBeGreaterThanOrEqual(5_000);
    expect([await open().verify(login), await open().verify(next)]).toEqual(['rejected', 'accepted']);
  });

  test('keeps sessions that are open', async () => {
    const login = await made();
    const client = await vendors().connect(login, 'orders-api');
    await open().setPassword(
      { username: login.username, current: [], next: passwordOf(freshName()) },
      holding,
    );
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  });

  test('of a user who is not there is not found', async () => {
    const change = { username: freshName(), current: [], next: passwordOf('next') };
    expect(await codeOf(open().setPassword(change, holding))).toBe('NOT_FOUND none');
  });

  test('with an unclear answer is not said to have failed where no login can tell', async () => {
    const login = await made();
    inject({ operation: 'setPassword', kind: 'reset-after-apply' });
    vendors().faultLogins(vendors().cockroachdb.front, { kind: 'routing-failed' });
    await expect(
      open().setPassword({ username: login.username, current: [], next: passwordOf(freshName()) }, holding),
    ).rejects.toThrow(expect.objectContaining({ code: 'LOGIN_UNREACHABLE' }));
  });
});

describe('deleting a user at CockroachDB Cloud', () => {
  test('addresses the user and nothing above', async () => {
    const { username } = await made();
    await open().deleteUser(username, holding);
    expect(calls('deleteUser')).toMatchObject([
      { method: 'DELETE', path: `/api/v1/clusters/${cluster.id}/sql-users/${username}`, query: {} },
    ]);
  });

  const owners = (['400', '500'] as const).flatMap((dependencies) =>
    (['object-details', 'string-details', 'no-code'] as const).map((errorBody) => ({
      dependencies,
      errorBody,
    })),
  );
  test.each(owners)(
    'of an owner, refused with $dependencies and $errorBody, is blocked and not tried again',
    async ({ dependencies, errorBody }) => {
      const login = await made();
      const client = await vendors().connect(login, 'orders-api');
      await client.query(`CREATE TABLE ${login.username}_notes (text text)`);
      Object.assign(cloud.switches, { dependencies, errorBody });
      const error = await failureOf(open().deleteUser(login.username, holding));
      expect([error.code, error.effect]).toEqual(['BLOCKED', 'none']);
      expect(error.message).toContain('cannot be dropped because some objects depend on it');
      expect(calls('deleteUser')).toHaveLength(1);
    },
  );

  test('of an owner is done where the vendor cleans up', async () => {
    const login = await made();
    const client = await vendors().connect(login, 'orders-api');
    await client.query(`CREATE TABLE ${login.username}_notes (text text)`);
    cloud.switches.dependencies = 'clean-up';
    expect(await open().deleteUser(login.username, holding)).toBe('deleted');
  });

  const grants: readonly string[] = [
    'cannot drop role/user u: grants still exist on defaultdb.public.orders',
    'role u cannot be dropped because some objects depend on it',
    'cannot drop role/user u; it owns 2 scheduled jobs.',
    'pq: refused (SQLSTATE 2BP01)',
  ];
  test.each(grants)('is blocked where the vendor says: %s', async (message) => {
    const { username } = await made();
    inject({ operation: 'deleteUser', kind: 'status', status: 400, json: { code: 9, message } });
    expect(await codeOf(open().deleteUser(username, holding))).toBe('BLOCKED none');
  });

  const remedies: Record<string, { says: string; want: (user: string) => string }> = {
    grants: {
      says: 'cannot drop role/user u: grants still exist on defaultdb.public.orders, defaultdb.public.items',
      want: (user) => `as an administrator run REVOKE ALL ON defaultdb.public.orders FROM "${user}"; then`,
    },
    'owned objects': {
      says: 'role u cannot be dropped because some objects depend on it\nowner of table defaultdb.public.notes',
      want: (user) =>
        `as an administrator run REASSIGN OWNED BY "${user}" TO <a role that stays> (in every database where it owns something); then`,
    },
    'default privileges that it gave': {
      says: 'role u cannot be dropped because some objects depend on it\nowner of default privileges on new relations belonging to role USER in database test',
      want: (user) =>
        `as an administrator run ALTER DEFAULT PRIVILEGES FOR ROLE "${user}" REVOKE ALL ON TABLES FROM …; then`,
    },
    'default privileges that it has': {
      says: 'role u cannot be dropped because some objects depend on it\nprivileges for default privileges on new relations belonging to role migrator in database test',
      want: (user) =>
        `as an administrator run ALTER DEFAULT PRIVILEGES FOR ROLE "migrator" REVOKE ALL ON TABLES FROM "${user}"; then`,
    },
    schedules: {
      says: 'cannot drop role/user u; it owns 2 scheduled jobs.',
      want: (user) =>
        `as an administrator run DROP SCHEDULES WITH s AS (SHOW SCHEDULES) SELECT id FROM s WHERE owner = '${user}'; then`,
    },
    'what it does not name': {
      says: 'pq: refused (SQLSTATE 2BP01)',
      want: (user) =>
        `run REASSIGN OWNED BY "${user}" TO <a role that stays> (in every database where it owns something); REVOKE ALL ON … FROM "${user}"; ALTER DEFAULT`,
    },
  };
  test.each(Object.entries(remedies))(
    'that is blocked by %s says what to run',
    async (_what, { says, want }) => {
      const { username } = await made();
      const json = { code: 9, message: says.replace('USER', username) };
      inject({ operation: 'deleteUser', kind: 'status', status: 400, json });
      const { message } = await failureOf(open().deleteUser(username, holding));
      expect(message).toContain(want(username));
      expect(message).toContain('or name in the spec\'s privileges the "objectsOwner"');
    },
  );

  test.each(['kept', 'ended'] as const)('is done where live connections are %s', async (connections) => {
    cloud.switches.connectionsOfDeleted = connections;
    const login = await made();
    await vendors().connect(login, 'orders-api');
    expect(await open().deleteUser(login.username, holding)).toBe('deleted');
  });
});

describe('what a user of CockroachDB Cloud leaves behind', () => {
  const ownerOf = async (table: string, database = 'defaultdb') => {
    const sql = `SELECT tableowner FROM pg_tables WHERE tablename = $1`;
    const rows = await vendors().cockroachdb.postgres.query(sql, [table], database);
    return rows.map((row) => row['tableowner']);
  };
  /** A user who made a table with a row in it, in one database or in several. */
  const keeper = async ({ in: databases = ['defaultdb'] }: { in?: readonly string[] } = {}) => {
    const login = await made();
    const table = `${login.username}_notes`;
    for (const database of databases) {
      const client = await vendors().connect({ ...login, database }, 'orders-api');
      await client.query(`CREATE TABLE ${table} (text text)`);
      await client.query(`INSERT INTO ${table} VALUES ('tea')`);
      await client.end();
    }
    return { login, table };
  };
  const estate = () => vendors().statements.filter((texts) => texts.some((text) => /OWNED BY/.test(text)));
  const grantToUser = (username: string) =>
    vendors().cockroachdb.postgres.query(`GRANT SELECT ON orders TO ${username}`, [], 'defaultdb');

  test('stays its own, and keeps it, where the spec names no owner', async () => {
    const { login, table } = await keeper();
    const error = await failureOf(open({ admin: root }).deleteUser(login.username, holding, login));
    expect([error.code, error.effect]).toEqual(['BLOCKED', 'none']);
    expect(error.message).toContain(`owner of table defaultdb.public.${table}`);
    expect([await ownerOf(table), estate(), calls('deleteUser').length]).toEqual([[login.username], [], 1]);
  });

  test.each(['400', '500'] as const)(
    'goes to the owner role by an administrator’s hand, refused with a %s before',
    async (dependencies) => {
      cloud.switches.dependencies = dependencies;
      const { login, table } = await keeper();
      const provider = open({ admin: root, objectsOwner: 'orders_owner' });
      expect(await provider.deleteUser(login.username, holding)).toBe('deleted');
      expect(await ownerOf(table)).toEqual(['orders_owner']);
      const kept = await vendors().cockroachdb.postgres.query(`SELECT text FROM ${table}`, [], 'defaultdb');
      expect(kept).toEqual([{ text: 'tea' }]);
      expect(estate()).toEqual([[`REASSIGN OWNED BY "${login.username}" TO "orders_owner"`]]);
      expect(calls('deleteUser')).toHaveLength(2);
    },
  );

  test('goes to the owner role by its own hand, where it is a member of it', async () => {
    const { login, table } = await keeper();
    await engine(`GRANT orders_owner TO ${login.username}`);
    expect(await open({ objectsOwner: 'orders_owner' }).deleteUser(login.username, holding, login)).toBe(
      'deleted',
    );
    expect(await ownerOf(table)).toEqual(['orders_owner']);
  });

  const powerless: Record<string, { login: (own: Login) => Login | undefined; says: string }> = {
    'its own login may not': { login: (own) => own, says: 'ended in 42501' },
    'its own password is not right': {
      login: (own) => ({ ...own, password: passwordOf('another') }),
      says: 'could not log in',
    },
    'nobody knows a login': { login: () => undefined, says: 'neither its own password nor an administrator' },
    'the login is another user’s': {
      login: (own) => ({ ...own, username: 'reporting' }),
      says: 'neither its own password nor an administrator',
    },
  };
  test.each(Object.entries(powerless))(
    'stays where it is, and nobody is made a member of anything, where %s',
    async (_why, { login: loginOf, says }) => {
      const { login, table } = await keeper();
      const error = await failureOf(
        open({ objectsOwner: 'orders_owner' }).deleteUser(login.username, holding, loginOf(login)),
      );
      expect([error.code, error.effect]).toEqual(['BLOCKED', 'none']);
      expect(error.message).toContain(says);
      expect(error.message).toContain(
        `run REASSIGN OWNED BY "${login.username}" TO "orders_owner" (in every`,
      );
      expect(await ownerOf(table)).toEqual([login.username]);
      expect((await userOf(login.username))?.roles).toEqual(['orders_rw']);
      expect(calls('deleteUser')).toHaveLength(1);
    },
  );

  test('stays where it is where no session can be had', async () => {
    const { login, table } = await keeper();
    vendors().faultLogins(vendors().cockroachdb.front, { kind: 'routing-failed' });
    const error = await failureOf(
      open({ admin: root, objectsOwner: 'orders_owner' }).deleteUser(login.username, holding, login),
    );
    expect([error.code, error.message.includes('no session with')]).toEqual(['BLOCKED', true]);
    expect(await ownerOf(table)).toEqual([login.username]);
  });

  test('in another database keeps the user, with the remedy; nothing is dropped anywhere', async () => {
    cloud.switches.dropOwned = 'works';
    const { login, table } = await keeper({ in: ['defaultdb', 'reports'] });
    const provider = open({ admin: root, objectsOwner: 'orders_owner' });
    const error = await failureOf(provider.deleteUser(login.username, holding, login));
    expect([error.code, error.effect]).toEqual(['BLOCKED', 'none']);
    expect(error.message).toContain('owner of table reports.public.');
    expect(error.message).toContain('in every database where it owns something');
    expect([await ownerOf(table), await ownerOf(table, 'reports')]).toEqual([
      ['orders_owner'],
      [login.username],
    ]);
    expect(calls('deleteUser')).toHaveLength(3);
  });

  test('goes without what was granted to it where the server takes DROP OWNED in a transaction', async () => {
    cloud.switches.dropOwned = 'works';
    const { login, table } = await keeper();
    await grantToUser(login.username);
    const provider = open({ admin: root, objectsOwner: 'orders_owner' });
    expect(await provider.deleteUser(login.username, holding, login)).toBe('deleted');
    expect(await ownerOf(table)).toEqual(['orders_owner']);
    const reassign = `REASSIGN OWNED BY "${login.username}" TO "orders_owner"`;
    expect(estate()).toEqual([
      [reassign],
      ['BEGIN', reassign, `DROP OWNED BY "${login.username}"`, 'COMMIT'],
    ]);
  });

  test('keeps what was granted to it where the server takes none, and says what to revoke', async () => {
    const { login, table } = await keeper();
    await grantToUser(login.username);
    const provider = open({ admin: root, objectsOwner: 'orders_owner' });
    const error = await failureOf(provider.deleteUser(login.username, holding, login));
    expect([error.code, error.effect]).toEqual(['BLOCKED', 'none']);
    expect(error.message).toContain(`DROP OWNED BY "${login.username}" as root ended in 0A000`);
    expect(error.message).toContain(`REVOKE ALL ON defaultdb.public.orders FROM "${login.username}"`);
    expect(await ownerOf(table)).toEqual(['orders_owner']);
    await vendors().cockroachdb.postgres.query(
      `REVOKE ALL ON orders FROM ${login.username}`,
      [],
      'defaultdb',
    );
    expect(await provider.deleteUser(login.username, holding, login)).toBe('deleted');
  });

  test('is never dropped: where nothing could get another owner, DROP OWNED is not sent', async () => {
    cloud.switches.dropOwned = 'works';
    const { login, table } = await keeper();
    await grantToUser(login.username);
    const refused = await failureOf(
      open({ admin: root, objectsOwner: 'no_such_role' }).deleteUser(login.username, holding, login),
    );
    expect([refused.code, refused.effect]).toEqual(['BLOCKED', 'none']);
    expect(refused.message).toContain('ended in 42704');
    expect(estate().flat()).toEqual([`REASSIGN OWNED BY "${login.username}" TO "no_such_role"`]);
    expect(await ownerOf(table)).toEqual([login.username]);
  });

  test('is left to the vendor’s word where the answer about it was lost', async () => {
    const { login } = await keeper();
    const { sql: wire } = vendors().ports(new Date('2030-01-01T00:00:00Z'));
    const sql: Ports['sql'] = async (session) => {
      await wire(session);
      throw new SqlError('statement 1 failed (ECONNRESET)', { statement: 0 });
    };
    const provider = open({ admin: root, objectsOwner: 'orders_owner', sql });
    expect(await provider.deleteUser(login.username, holding, login)).toBe('deleted');
  });
});

describe('sessions at CockroachDB Cloud', () => {
  test('of another user are not seen, and not said to be none, without an administrator', async () => {
    const [gone, current] = [await made(), await made()];
    await vendors().connect(gone, 'orders-api');
    const reason = `${current.username} sees no sessions but its own; name an administrator's secret as "adminSecret" in the spec`;
    const before = vendors().statements.length;
    expect(await open().sessions(gone.username, current)).toEqual({ observed: false, reason });
    // Nor are they said to be ended: a statement that finds none would succeed.
    const openedBefore = new Date('2100-01-01T00:00:00Z');
    expect(await open().endSessions(gone.username, current, openedBefore, holding)).toEqual({
      ended: false,
      reason,
    });
    expect(vendors().statements.slice(before)).toEqual([]);
    expect(await open({ admin: root }).sessions(gone.username, current)).toEqual({
      observed: true,
      open: [expect.objectContaining({ applicationName: 'orders-api' })],
    });
  });

  test('are not said to be none by an administrator’s secret that holds somebody else’s login', async () => {
    const [gone, current, plain] = [await made(), await made(), await made()];
    await vendors().connect(gone, 'orders-api');
    expect(await open({ admin: plain }).sessions(gone.username, current)).toEqual({
      observed: false,
      reason: expect.stringContaining(`${plain.username} sees no sessions but its own`),
    });
  });

  test('are not said to have ended by an administrator’s secret that holds somebody else’s login', async () => {
    const [gone, plain] = [await made(), await made()];
    await vendors().connect(gone, 'orders-api');
    // A server that lets it find none to cancel, and calls that a success.
    const { sql: wire } = vendors().ports(new Date('2030-01-01T00:00:00Z'));
    const sql: Ports['sql'] = async (session) =>
      session.guard === 'reads-only' ? wire(session) : { say: 'accepted', rows: [[]] };
    const later = new Date('2100-01-01T00:00:00Z');
    expect(await open({ admin: plain, sql }).endSessions(gone.username, gone, later, holding)).toEqual({
      ended: false,
      reason: expect.stringContaining(`${plain.username} sees no sessions but its own`),
    });
  });

  test('are told with their start', async () => {
    const login = await made();
    await vendors().connect(login, 'orders-api');
    expect(await open().sessions(login.username, login)).toEqual({
      observed: true,
      open: [
        {
          applicationName: 'orders-api',
          clientAddress: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
          startedAt: expect.any(Date),
        },
      ],
    });
  });

  test('are seen by an administrator where the user’s own password no longer works, or the user is gone', async () => {
    const login = await made();
    await vendors().connect(login, 'orders-api');
    const stale = { ...login, password: passwordOf('another') };
    expect(await open().sessions(login.username, stale)).toEqual({
      observed: false,
      reason: `${login.username} could not log in to look`,
    });
    const seen = { observed: true, open: [expect.objectContaining({ applicationName: 'orders-api' })] };
    expect(await open({ admin: root }).sessions(login.username, stale)).toEqual(seen);
    await open().deleteUser(login.username, holding);
    expect(await open({ admin: root }).sessions(login.username, stale)).toEqual(seen);
  });
});

describe('what CockroachDB Cloud says when it fails', () => {
  const shapes: readonly CockroachdbSwitches['errorBody'][] = [
    'object-details',
    'string-details',
    'no-code',
    'empty-object',
    'empty',
    'html',
  ];
  test.each(shapes)('is understood with an error body of %s', async (errorBody) => {
    cloud.switches.errorBody = errorBody;
    const elsewhere = open({ clusterId: '00000000-0000-4000-8000-000000000000' });
    const login = await made();
    const short = { ...login, username: freshName(), password: new Sensitive('Short-pw_01') };
    const missing = { username: freshName(), current: [], next: passwordOf('next') };
    expect(await codeOf(open({ apiKey: 'CCDB1_unknown' }).listUsers())).toBe('UNAUTHORIZED none');
    expect(await codeOf(elsewhere.readiness())).toBe('NOT_FOUND none');
    expect(await codeOf(elsewhere.deleteUser(login.username, holding))).toBe('NOT_FOUND none');
    expect(await codeOf(open().setPassword(missing, holding))).toBe('NOT_FOUND none');
    expect(await codeOf(open().createUser(short, holding))).toBe('REJECTED none');
    cloud.switches.unlisted = [login.username];
    // A 409 without a word may be ABORTED as well: without the list, nobody knows.
    const isTold = !['empty', 'empty-object', 'html'].includes(errorBody);
    const created = open().createUser(login, holding);
    if (isTold) expect(await created).toBe('exists');
    else expect(await codeOf(created)).toBe('UNAVAILABLE unknown');
  });

  // Under these statuses, the read is repeated or not; the write may or may not have been applied.
  const codes: Record<string, { status: number; json: unknown; read: string; write: string }> = {
    'a 500 with code 5': {
      status: 500,
      json: { code: 5 },
      read: 'NOT_FOUND none',
      write: 'NOT_FOUND unknown',
    },
    'a 400 with code 16': {
      status: 400,
      json: { code: 16 },
      read: 'UNAUTHORIZED none',
      write: 'UNAUTHORIZED none',
    },
    'a 500 with code 7': {
      status: 500,
      json: { code: 7 },
      read: 'UNAUTHORIZED none',
      write: 'UNAUTHORIZED unknown',
    },
    'a 400 with code 9': {
      status: 400,
      json: { code: 9 },
      read: 'TARGET_NOT_READY none',
      write: 'TARGET_NOT_READY none',
    },
    'a 400 with code 4': {
      status: 400,
      json: { code: 4 },
      read: 'UNAVAILABLE none',
      write: 'UNAVAILABLE unknown',
    },
    'a 400 with code 13': {
      status: 400,
      json: { code: 13 },
      read: 'UNAVAILABLE none',
      write: 'UNAVAILABLE unknown',
    },
    'a 504 without a code': {
      status: 504,
      json: {},
      read: 'UNAVAILABLE none',
      write: 'UNAVAILABLE unknown',
    },
    'a 400 with an unknown code': {
      status: 400,
      json: { code: 4711, message: 'no', details: 'none' },
      read: 'REJECTED none',
      write: 'REJECTED none',
    },
    'a 403 with a code that is no number': {
      status: 403,
      json: { code: 'PERMISSION_DENIED' },
      read: 'UNAUTHORIZED none',
      write: 'UNAUTHORIZED none',
    },
  };
  test.each(Object.entries(codes))(
    'is decided by the code, then by the status: %s',
    async (_what, { status, json, read, write }) => {
      const fault = { kind: 'status', status, json, times: Number.POSITIVE_INFINITY } as const;
      const login = await loginOf(freshName());
      inject({ ...fault, operation: 'getCluster' });
      inject({ ...fault, operation: 'createUser' });
      expect(await codeOf(open().readiness())).toBe(read);
      expect(await codeOf(open().createUser(login, holding))).toBe(write);
    },
  );

  const limits: Record<string, Partial<Fault<CockroachdbOperation>> & { status: number }> = {
    'a bare 429': { status: 429 },
    'a 400 with Retry-After': { status: 400, headers: { 'retry-after': '3' }, json: {} },
    'a 500 with code 8': { status: 500, json: { code: 8 } },
    'a 403 with the words': { status: 403, json: { message: 'Rate limit exceeded' } },
  };
  test.each(Object.entries(limits))('is a rate limit where it is %s', async (_what, answer) => {
    const login = await loginOf(freshName());
    inject({ ...answer, operation: 'createUser', kind: 'status' });
    expect(await open().createUser(login, holding)).toBe('created');
    expect(calls('createUser')).toHaveLength(2);
    inject({ ...answer, operation: 'createUser', kind: 'status', times: Number.POSITIVE_INFINITY });
    expect(await codeOf(open().createUser(await loginOf(freshName()), holding))).toMatch(
      /^RATE_LIMITED none$/,
    );
  });

  test('is a rate limit under 503 and Retry-After too, but a write may have been applied all the same', async () => {
    const answer = { kind: 'status', status: 503, headers: { 'retry-after': '3' } } as const;
    inject({ ...answer, operation: 'listUsers' });
    await open().listUsers();
    expect(vendors().waits).toEqual([3_000]);
    inject({ ...answer, operation: 'createUser' });
    const error = await failureOf(open().createUser(await loginOf(freshName()), holding));
    expect([error.code, error.effect, error.facts.retryAfterMs]).toEqual(['RATE_LIMITED', 'unknown', 3_000]);
    expect(calls('createUser')).toHaveLength(1);
  });

  test('stays within a budget of requests that is used up', async () => {
    Object.assign(cloud.switches, { limit: 2, rateLimited: { status: 503, retryAfter: 1 } });
    await open().endpoint();
    await open().listUsers();
    expect(calls().map(({ status }) => status)).toEqual([200, 200, 503, 200]);
    expect(vendors().waits).toEqual([1_000]);
  });

  test('is told with the vendor’s own id of the request', async () => {
    inject({ operation: 'listUsers', kind: 'status', status: 404 });
    const { facts } = await failureOf(open().listUsers());
    expect(facts.requestId).toBe(calls('listUsers')[0]?.requestId);
    expect(facts.requestId).toMatch(/^[0-9a-f-]{36}$/);
  });
});

describe('a locked cluster of CockroachDB Cloud', () => {
  test('that refuses user calls is not ready, for each of them', async () => {
    const login = await made();
    cloud.actor.setState(cluster.id, 'LOCKED');
    cloud.switches.whileLocked = 'refuse';
    const provider = open();
    const want = 'TARGET_NOT_READY none';
    expect(await codeOf(provider.listUsers())).toBe(want);
    expect(await codeOf(provider.createUser({ ...login, username: freshName() }, holding))).toBe(want);
    expect(
      await codeOf(
        provider.setPassword({ username: login.username, current: [], next: login.password }, holding),
      ),
    ).toBe(want);
    expect(await codeOf(provider.deleteUser(login.username, holding))).toBe(want);
  });
});

describe('where consumers of CockroachDB Cloud connect', () => {
  test('is what the vendor says, with the port as a number', async () => {
    expect(await open().endpoint()).toEqual({
      host: 'localhost',
      port: vendors().cockroachdb.front.port,
      database: 'defaultdb',
    });
    expect(calls('getConnectionString')[0]?.query).toEqual({ database: 'defaultdb', os: 'LINUX' });
  });

  test.each(['STANDARD', 'BASIC', 'A_PLAN_OF_TOMORROW'])('needs no CA on the plan %s', async (plan) => {
    Object.assign(cloud.switches, { plan, sqlDns: 'absent' });
    expect(await open().endpoint()).not.toHaveProperty('ca');
    expect(calls('getCertificate')).toEqual([]);
  });

  test('comes with the CA of the cluster on the plan ADVANCED, and is trusted by it alone', async () => {
    cloud.switches.plan = 'ADVANCED';
    const login = await made();
    expect(login.ca).toBe(vendors().network.caPem);
    expect(await open().verify(login)).toBe('accepted');
    const { caPem: ca } = await createCertificateAuthority();
    const { sql: wire } = vendors().ports(new Date('2030-01-01T00:00:00Z'));
    const mistrusting = open({ sql: (session) => wire({ ...session, ca }) });
    await expect(mistrusting.verify(login)).rejects.toThrow(
      expect.objectContaining({ code: 'LOGIN_UNREACHABLE' }),
    );
  });

  const certificates: Record<
    string,
    Partial<Fault<CockroachdbOperation>> & { status: number; want: string }
  > = {
    'a page': { status: 200, text: '<!doctype html>', want: 'UNREADABLE none' },
    nothing: { status: 200, want: 'UNREADABLE none' },
    'not found': { status: 404, want: 'NOT_FOUND none' },
  };
  test.each(Object.entries(certificates))(
    'is unknown where the answer for the CA is %s',
    async (_what, { want, ...answer }) => {
      cloud.switches.plan = 'ADVANCED';
      inject({ ...answer, operation: 'getCertificate', kind: 'status' });
      expect(await codeOf(open().endpoint())).toBe(want);
    },
  );

  test.each([
    {},
    { params: {} },
    { params: { Host: '', Port: '26257', Database: 'defaultdb' } },
    { params: { Host: 'h', Port: 26257, Database: 'defaultdb' } },
    { params: { Host: 'h', Port: '26257x', Database: 'defaultdb' } },
    { params: { host: 'h', port: '26257', database: 'defaultdb' } },
    // Users and the administrator send their passwords there: a DNS name, and nothing that leads elsewhere.
    ...[
      '127.0.0.1',
      '0x7f.1',
      '[::1]',
      'h:26257',
      'user@h',
      'h/x',
      'h?x',
      'h x',
      '-h',
      'h..x',
      '.h',
      'h.1',
    ].map((Host) => ({
      params: { Host, Port: '26257', Database: 'defaultdb' },
    })),
  ])('is not guessed from %j', async (json) => {
    inject({ operation: 'getConnectionString', kind: 'status', status: 200, json });
    const error = await failureOf(open().endpoint());
    expect([error.code, error.facts.operation]).toEqual(['UNREADABLE', 'endpoint']);
    expect(error.message).toMatch(/params/);
  });

  test('is a URL in which any password is safe', () => {
    const login = {
      host: 'orders-1234.aws-eu-central-1.cockroachlabs.cloud',
      port: 26257,
      database: 'defaultdb',
      username: 'orders_api',
      password: new Sensitive('p@ss/w:rd?#%'),
    };
    expect(cockroachdbCloud.ready(login).url).toBe(
      'postgresql://orders_api:p%40ss%2Fw%3Ard%3F%23%25@orders-1234.aws-eu-central-1.cockroachlabs.cloud:26257/defaultdb?sslmode=verify-full',
    );
  });
});

describe('what rekey tells CockroachDB Cloud', () => {
  test('names the version of the API that it was written for, on every call', async () => {
    const login = await made();
    const provider = open();
    await provider.readiness();
    await provider.setPassword({ username: login.username, current: [], next: passwordOf('next') }, holding);
    await provider.deleteUser(login.username, holding);
    const asked = new Set(calls().map(({ operation }) => operation));
    expect([...asked].sort()).toEqual([
      'createUser',
      'deleteUser',
      'getCluster',
      'getConnectionString',
      'listUsers',
      'setPassword',
    ]);
    for (const { headers, path } of calls()) {
      expect(headers).toMatchObject({ 'cc-version': '2024-09-16', accept: 'application/json' });
      expect(path).toMatch(/^\/api\/v1\/clusters\//);
    }
  });

  test('takes the UUID of a cluster and nothing else for its id', () => {
    const { targetSchema, targetId, targetOf } = cockroachdbCloud;
    const clusterId = '3f5a9c1e-7d2b-4c8e-9f10-2a4b6c8d0e1f';
    const target = targetSchema.parse({ clusterId });
    expect([targetId(target), target]).toEqual([clusterId, { clusterId, database: 'defaultdb' }]);
    expect(targetOf({ targetId: clusterId, database: 'orders' })).toEqual({ clusterId, database: 'orders' });
    for (const wrong of ['', '..', 'orders-1234', `${clusterId}/..`, `${clusterId}?x`])
      expect(targetSchema.safeParse({ clusterId: wrong }).success, wrong).toBe(false);
  });

  test('declares roles by name, and never admin', () => {
    const { privilegesSchema } = cockroachdbCloud;
    expect(privilegesSchema.parse({})).toEqual({ roles: [] });
    expect(privilegesSchema.parse({ roles: ['orders_rw'] })).toEqual({ roles: ['orders_rw'] });
    for (const role of ['admin', 'Orders', 'a"b', '', 'orders-rw'])
      expect(privilegesSchema.safeParse({ roles: [role] }).success, role).toBe(false);
  });

  test('lets a role of one’s own get what retired users own, and no built-in one', () => {
    const { privilegesSchema } = cockroachdbCloud;
    expect(privilegesSchema.parse({ objectsOwner: 'orders_owner' })).toEqual({
      roles: [],
      objectsOwner: 'orders_owner',
    });
    for (const objectsOwner of [
      'admin',
      'root',
      'public',
      'pg_monitor',
      'crdb_internal_x',
      'Owner',
      'a"b',
      '',
    ])
      expect(privilegesSchema.safeParse({ objectsOwner }).success, objectsOwner).toBe(false);
  });
});

test('a user may not cancel its own sessions: it takes an administrator, and is said so', async () => {
  const login = await made();
  expect(await open().endSessions(login.username, login, new Date('2100-01-01T00:00:00Z'), holding)).toEqual({
    ended: false,
    reason: expect.stringContaining('42501'),
  });
});
