import { createHash } from 'node:crypto';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { interpose, TransportError } from '../../functions/core/ports.ts';
import type { ChoosingProvider, Login } from '../../functions/core/provider.ts';
import { parseSecretValue, secretString } from '../../functions/core/secret-value.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { zillizCloud } from '../../functions/providers/zilliz-cloud/provider.ts';
import type { Fault, FaultKind } from '../../infra/local/providers/faults.ts';
import type {
  ZillizCloud,
  ZillizCluster,
  ZillizOperation,
  ZillizSwitches,
} from '../../infra/local/providers/zilliz-cloud.ts';
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
} from './contract.ts';

const vendors = useTestVendors();
const exampleId = 'in01-108240180a4faf8';
let cloud: ZillizCloud;
let cluster: ZillizCluster;
let clusterId = '';
let before = 0;
let clusters = 0;
beforeAll(() => {
  cloud = vendors().zilliz.api;
});
// One a test: a cluster has room for a hundred users.
beforeEach(() => {
  clusters += 1;
  clusterId = `in01-${clusters}`;
  cluster = cloud.addCluster({ id: clusterId, name: 'orders', roles: ['orders_rw', 'orders_ro'] });
  before = cloud.calls.length;
});

/** What the vendor was asked in this test, oldest first. */
const calls = (operation?: ZillizOperation) =>
  cloud.calls.slice(before).filter((call) => operation === undefined || call.operation === operation);
const inject = (fault: Fault<ZillizOperation>): void => cloud.faults.inject(fault);

interface Options extends OpenOptions {
  readonly clusterId?: string;
  readonly roles?: readonly string[];
}
const open = ({
  budgetMs = 180_000,
  apiKey = vendors().apiKeys.zilliz,
  clusterId: id = clusterId,
  roles = ['orders_rw'],
  http,
  around = (_name, _request, call) => call(),
}: Options = {}): ChoosingProvider => {
  const { clock, ports } = vendors();
  const until = new Date(clock.now().getTime() + budgetMs);
  const provider = zillizCloud.open(
    { target: { clusterId: id }, privileges: { roles: [...roles] }, apiKey: new Sensitive(apiKey), until },
    interpose(ports(until, http === undefined ? {} : { http }), around),
  );
  if (provider.passwords !== 'chosen-by-us') throw new Error('Zilliz Cloud takes our passwords');
  return provider;
};

const passwordOf = (username: string): Sensitive =>
  new Sensitive(`Pw-${createHash('sha256').update(username).digest('base64url').slice(0, 29)}`);
const loginOf = async (username: string): Promise<Login> => ({
  ...(await open().endpoint()),
  username,
  password: passwordOf(username),
});
/** A user with the declared roles. */
const made = async (username = freshName()): Promise<Login> => {
  const login = await loginOf(username);
  await open().createUser(login, holding);
  await open().applyPrivileges(login, holding);
  return login;
};

const userOf = (username: string) => cluster.users().find((user) => user.username === username);
const other = new Sensitive('Other-password_00000000000000001');

const operations: Record<Operation, ZillizOperation> = {
  readiness: 'getCluster',
  list: 'listUsers',
  create: 'createUser',
  remove: 'deleteUser',
  setPassword: 'setPassword',
};

const subject = (): ChoosingSubject => ({
  vendors: vendors(),
  host: 'api.cloud.zilliz.com',
  otherHosts: [`${cluster.host}:${cluster.port}`],
  open,
  async bring(provider, username) {
    const login = { ...(await provider.endpoint()), username, password: passwordOf(username) };
    await bringChosen(provider, login);
    return login;
  },
  // Nothing at Zilliz Cloud keeps a user because of what others are.
  supersede: async () => undefined,
  inject: (operation, trouble) => inject({ ...trouble, operation: operations[operation] }),
  calls: (operation) => calls(operations[operation]).length,
  usernames: async () => cluster.users().map(({ username }) => username),
  deletedBySomebody: async (username) => cloud.actor.deleteUser(clusterId, username),
  listIsStale: (skip = 0) =>
    inject({
      operation: 'listUsers',
      kind: 'status',
      status: 200,
      json: { code: 0, data: ['db_admin'] },
      skip,
    }),
  listLagsMs(ms) {
    cloud.switches.delays.userUnlisted = { ms };
  },
  alsoListed(names) {
    cloud.switches.listedOnly = names;
  },
  protectedUsers: () => ['db_admin'],
  notReady: {
    ...Object.fromEntries(
      [
        'SUSPENDED',
        'STOPPED',
        'STOPPING',
        'INITIALIZING',
        'RESUMING',
        'DELETED',
        'Deleted',
        'A_STATUS_OF_TOMORROW',
      ].map((status) => [
        status,
        {
          given: () => cloud.actor.setStatus(clusterId, status),
          reason: `its status is ${status}`,
          ...(status.toUpperCase() === 'DELETED' ? { isGone: true as const } : {}),
        },
      ]),
    ),
    ...Object.fromEntries(
      ['Free', 'Serverless'].map((plan) => [
        plan,
        {
          given: () => cloud.actor.setPlan(clusterId, plan),
          reason: `its plan is ${plan}, which has no users; a dedicated cluster has`,
        },
      ]),
    ),
  },
  rateLimitStatuses: [429],
  // Every request logs in by itself: nobody stays.
  linger: async () => undefined,
  capabilities: zillizCloud.capabilities,
  readsCount: true,
  drift: async (username) => cloud.actor.grantRole(clusterId, username, 'orders_ro'),
  passwordOf,
  async overreach({ username, password }) {
    if (!cluster.authenticates(username, password.reveal())) return undefined;
    return userOf(username)?.roles.find((role) => role !== 'orders_rw');
  },
  openUnknown: (options) => open({ ...options, roles: ['orders_rw', 'no_such_role'] }),
  createdBySomebody: async ({ username, password }) =>
    cloud.actor.createUser(clusterId, username, password.reveal()),
  // An unchanged password is always taken; what may be refused is a current one that is no longer so.
  refusesSamePassword: () => undefined,
});

providerContract('zilliz-cloud', subject);
choosingContract('zilliz-cloud', subject);

/** Every line of Milvus that a cluster may run, with and without real HTTP statuses. */
const lines: readonly Partial<ZillizSwitches>[] = (['2.x', '3.x', 'legacy'] as const).flatMap((profile) =>
  (['mostly-200', 'real'] as const).flatMap((statuses) =>
    ([65_535, 65_536] as const).map((absentInGrant) => ({ profile, statuses, absentInGrant })),
  ),
);

describe.each(lines)(
  'a cluster of the line $profile with statuses $statuses, absent in a grant $absentInGrant',
  (line) => {
    beforeEach(() => void Object.assign(cloud.switches, line));

    test('takes a user through its life', async () => {
      const provider = open();
      const login = await made();
      expect(await provider.verify(login)).toBe('accepted');
      expect(await provider.privilegeDifferences(login)).toEqual([]);
      const { username, password: current } = login;
      await provider.setPassword({ username, current: [current], next: other }, holding);
      expect(await provider.verify({ ...login, password: other })).toBe('accepted');
      expect(await provider.verify(login)).toBe('rejected');
      expect(userOf(username)?.roles).toEqual(['orders_rw']);
      expect(await provider.deleteUser(username, holding)).toBe('deleted');
      expect(await provider.verify({ ...login, password: other })).toBe('rejected');
    });

    test('has a user that is not listed: it is found when it is created, and left untouched', async () => {
      const theirs = await made();
      cloud.switches.unlisted = [theirs.username];
      expect(await open().createUser({ ...theirs, password: other }, holding)).toBe('exists');
      expect(await open().verify(theirs)).toBe('accepted');
      expect(calls('createUser')).toHaveLength(2);
    });

    test('refuses a wrong current password: an idle user is made anew, and gets its roles back', async () => {
      const { username } = await made();
      const login = { ...(await loginOf(username)), password: other };
      const wrong = new Sensitive('Wrong-password_0000000000000001');
      const provider = open();
      await provider.setPassword({ username, current: [wrong], next: other, isIdle: true }, holding);
      await provider.applyPrivileges(login, holding);
      expect(await provider.verify(login)).toBe('accepted');
      expect(userOf(username)?.roles).toEqual(['orders_rw']);
      expect([calls('deleteUser').length, calls('createUser').length]).toEqual([1, 2]);
    });

    test('refuses a wrong current password: a user that somebody may be using is left as it is', async () => {
      const login = await made();
      const { username } = login;
      const wrong = new Sensitive('Wrong-password_0000000000000001');
      for (const current of [[wrong], []]) {
        const error = await failureOf(open().setPassword({ username, current, next: other }, holding));
        expect([error.code, error.effect]).toEqual(['REJECTED', 'none']);
        expect(error.message).toContain('a password that no version of its secret holds, or is gone');
      }
      expect(await open().verify(login)).toBe('accepted');
      expect(calls('deleteUser')).toEqual([]);
    });

    test('says of an absent user what it says of a wrong password: the idle one is made, the other one is not', async () => {
      const login = { ...(await loginOf(freshName())), password: other };
      const { username } = login;
      const change = { username, current: [passwordOf(username)], next: other };
      expect(await codeOf(open().setPassword(change, holding))).toBe('REJECTED none');
      expect(userOf(username)).toBeUndefined();
      await open().setPassword({ ...change, isIdle: true }, holding);
      expect(await open().verify(login)).toBe('accepted');
      expect(calls('deleteUser')).toEqual([]);
    });

    test('does not know a declared role: the error names it', async () => {
      const login = await made();
      const provider = open({ roles: ['orders_rw', 'reports_rw'] });
      await expect(provider.applyPrivileges(login, holding)).rejects.toThrow(
        expect.objectContaining({
          code: 'ROLE_UNKNOWN',
          message: expect.stringContaining(`${clusterId} has no role reports_rw; create`),
        }),
      );
      expect(userOf(login.username)?.roles).toEqual(['orders_rw']);
      const fresh = await loginOf(freshName());
      expect(await codeOf(provider.createUser(fresh, holding))).toBe('ROLE_UNKNOWN none');
      expect(userOf(fresh.username)).toBeUndefined();
    });

    test('is full: asked once, and never again', async () => {
      cloud.switches.mostUsers = 1;
      const error = await failureOf(open().createUser(await loginOf(freshName()), holding));
      expect([error.code, error.effect]).toEqual(['REJECTED', 'none']);
      expect(error.message).toContain('the number of users has reached the limit');
      expect(calls('createUser')).toHaveLength(1);
    });

    test.each(['short_1A', 'NoDigits_but_long_enough'])(
      'refuses %s or takes it, as Milvus does',
      async (text) => {
        cloud.switches.passwordRule = 'milvus';
        const login = { ...(await loginOf(freshName())), password: new Sensitive(text) };
        expect(await open().createUser(login, holding)).toBe('created');
      },
    );

    test('is asked to drop a user that is gone already', async () => {
      cloud.switches.absentUser = 'not-found';
      const { username } = await made();
      const run = async () => cloud.actor.deleteUser(clusterId, username);
      inject({ operation: 'deleteUser', kind: 'meanwhile', when: 'before', run });
      expect(await open().deleteUser(username, holding)).toBe('deleted');
    });
  },
);

describe('an answer of the cluster', () => {
  const said = 'of the vendor';
  interface Case {
    readonly code: number;
    readonly message?: string;
    /** The HTTP status that goes with it where statuses are real. */
    readonly real: number;
    readonly want: string;
  }
  const cases: Record<string, Case> = {
    'not authenticated': {
      code: 1800,
      message: "user hasn't authenticated",
      real: 401,
      want: 'UNAUTHORIZED none',
    },
    'a privilege is missing': {
      code: 1401,
      message: 'CreateUser: privilege not permitted',
      real: 403,
      want: 'UNAUTHORIZED none',
    },
    'a protected user': {
      code: 1401,
      message: 'root user cannot be deleted',
      real: 403,
      want: 'BLOCKED none',
    },
    'a protected user, in an older text': {
      code: 65_535,
      message: 'user root cannot be deleted',
      real: 500,
      want: 'BLOCKED none',
    },
    'a built-in role': {
      code: 1401,
      message: "the role[admin] is a default role, which can't be dropped",
      real: 403,
      want: 'BLOCKED none',
    },
    'a built-in role, by the general number': {
      code: 65_535,
      message: 'the role[admin] is a default role',
      real: 500,
      want: 'BLOCKED none',
    },
    'a role that has privileges': {
      code: 36,
      message: 'fail to drop the role that it has privileges. Use REVOKE API to revoke privileges',
      real: 500,
      want: 'BLOCKED none',
    },
    'a role that has privileges, by the general number': {
      code: 65_535,
      message: 'fail to drop the role that it has privileges. Use REVOKE API to revoke privileges',
      real: 500,
      want: 'BLOCKED none',
    },
    'no such user (2.x)': {
      code: 65_535,
      message: "not found the user, maybe the user isn't existed or internal system error",
      real: 500,
      want: 'NOT_FOUND none',
    },
    'no such user (2.x, by its tests)': {
      code: 65_536,
      message: "not found the user, maybe the user isn't existed or internal system error",
      real: 500,
      want: 'NOT_FOUND none',
    },
    'no such user (3.x)': { code: 1100, message: 'user "x" not found', real: 400, want: 'NOT_FOUND none' },
    'no such role (to 2.5)': {
      code: 65_536,
      message: "not found the role, maybe the role isn't existed or internal system error",
      real: 500,
      want: 'NOT_FOUND none',
    },
    'no such role (from 2.6)': {
      code: 65_535,
      message: 'role not exists',
      real: 500,
      want: 'NOT_FOUND none',
    },
    'a bad name': {
      code: 1100,
      message: 'invalid parameter[expected=a letter first]',
      real: 400,
      want: 'REJECTED none',
    },
    'a bad password': { code: 1100, message: 'invalid password length', real: 400, want: 'REJECTED none' },
    'a bad password, which is never somebody’s user': {
      code: 1100,
      message: 'password already exists in a list of bad ones',
      real: 400,
      want: 'REJECTED none',
    },
    'a missing field': {
      code: 1802,
      message: "missing required parameters, error: Key: 'Req.Password'",
      real: 400,
      want: 'REJECTED none',
    },
    'no JSON': {
      code: 1801,
      message: 'can only accept json format request',
      real: 400,
      want: 'REJECTED none',
    },
    'too many users (2.x)': {
      code: 65_535,
      message: 'unable to add user because the number of users has reached the limit',
      real: 500,
      want: 'REJECTED none',
    },
    'too many users (3.x)': {
      code: 9,
      message: 'unable to add user because the number of users has reached the limit',
      real: 500,
      want: 'REJECTED none',
    },
    'too many roles': {
      code: 35,
      message: 'unable to add role because the number of roles has reached the limit',
      real: 500,
      want: 'REJECTED none',
    },
    'a rate limit': { code: 8, message: 'rate limit exceeded', real: 500, want: 'RATE_LIMITED unknown' },
    'a quota': { code: 9, message: 'quota exceeded', real: 500, want: 'RATE_LIMITED unknown' },
    'a request limit': {
      code: 4,
      message: 'request limit exceeded',
      real: 500,
      want: 'RATE_LIMITED unknown',
    },
    'not ready': { code: 1, message: 'service not ready', real: 500, want: 'UNAVAILABLE unknown' },
    unavailable: { code: 2, message: 'service unavailable', real: 500, want: 'UNAVAILABLE unknown' },
    cancelled: { code: 10_000, message: 'context canceled', real: 500, want: 'UNAVAILABLE unknown' },
    'its own time is over': {
      code: 10_001,
      message: 'request timeout',
      real: 408,
      want: 'UNAVAILABLE unknown',
    },
    'a panic': { code: 500, real: 500, want: 'UNAVAILABLE unknown' },
    'something of tomorrow': { code: 4711, message: said, real: 500, want: 'UNAVAILABLE unknown' },
    'something general': { code: 65_535, message: said, real: 500, want: 'UNAVAILABLE unknown' },
  };
  const withStatuses = Object.entries(cases).flatMap(([what, one]) =>
    [...new Set([200, one.real])].map((status) => ({ ...one, what, status })),
  );
  /** Unknown numbers have no meaning of their own, so there the status counts. */
  const wanted = ({ code, message, status, want }: (typeof withStatuses)[number]): string =>
    status === 200 && (code === 4711 || message === said) ? 'REJECTED unknown' : want;

  test.each(withStatuses)('$what ($code, status $status) says what became of a change', async (one) => {
    const { code, message, status } = one;
    const login = await loginOf(freshName());
    const json = { code, ...(message === undefined ? {} : { message }) };
    inject({ operation: 'createUser', kind: 'status', status, json, times: Number.POSITIVE_INFINITY });
    const error = await failureOf(open().createUser(login, holding));
    expect(`${error.code} ${error.effect}`).toBe(wanted(one));
    expect(error.facts).toMatchObject({ status, vendorCode: code, provider: 'zilliz-cloud' });
    expect(error.facts.requestId).toMatch(/^[0-9a-f-]{36}$/);
    expect(error.message).toContain(`(code ${code}: ${(message ?? '').replaceAll('"', '\\"')}`);
    expect(calls('createUser')).toHaveLength(1);
  });

  test.each([200, 429])('1807 (status %i) came before the change, which is sent again', async (status) => {
    const json = { code: 1807, message: 'request is rejected by limiter' };
    inject({ operation: 'createUser', kind: 'status', status, json });
    expect(await open().createUser(await loginOf(freshName()), holding)).toBe('created');
    expect(calls('createUser')).toHaveLength(2);
  });

  test.each([1, 2, 4, 8, 9, 1807, 10_000, 10_001])('%i in reading is asked again', async (code) => {
    inject({ operation: 'listUsers', kind: 'status', status: 200, json: { code, message: 'busy' } });
    expect((await open().listUsers()).map(({ username }) => username)).toEqual(['db_admin']);
    expect(calls('listUsers')).toHaveLength(2);
  });

  test.each([1100, 1400, 1401, 1800, 1801, 1802])('%i in reading is not', async (code) => {
    inject({ operation: 'listUsers', kind: 'status', status: 200, json: { code, message: 'no' }, times: 9 });
    expect((await failureOf(open().listUsers())).effect).toBe('none');
    expect(calls('listUsers')).toHaveLength(1);
  });

  test.each([400, 403, 404, 418])(
    'of a gateway, a page with status %i, does not say that nothing changed',
    async (status) => {
      inject({ operation: 'createUser', kind: 'html-body', status });
      const error = await failureOf(open().createUser(await loginOf(freshName()), holding));
      expect([error.effect, error.facts.status]).toEqual(['unknown', status]);
    },
  );

  test('keeps an unclassified text without what is secret in it', async () => {
    const login = await loginOf(freshName());
    const json = { code: 65_535, message: `cannot hash ${login.password.reveal()}` };
    inject({ operation: 'createUser', kind: 'status', status: 200, json });
    expect((await failureOf(open().createUser(login, holding))).message).toContain(
      '(code 65535: cannot hash ‹redacted›)',
    );
  });
});

describe('a change whose outcome is unclear', () => {
  const answers: Record<string, { status: number; code: number; message: string }> = {
    'the push to the proxies failed': { status: 200, code: 65_535, message: 'failed to refresh the cache' },
    'the handler timed out': { status: 408, code: 10_001, message: 'request timeout' },
    'the service is not ready': { status: 200, code: 1, message: 'service not ready' },
    'the rate limit was met on the way': { status: 500, code: 8, message: 'rate limit exceeded' },
  };
  test.each(Object.entries(answers))(
    'is a new user all the same where %s',
    async (_how, { status, ...json }) => {
      inject({ operation: 'createUser', kind: 'status', status, json, applied: true });
      expect(await open().createUser(await loginOf(freshName()), holding)).toBe('created');
      expect(calls('createUser')).toHaveLength(1);
    },
  );

  test.each(Object.entries(answers))(
    'is a new password all the same where %s',
    async (_how, { status, ...json }) => {
      const login = await made();
      inject({ operation: 'setPassword', kind: 'status', status, json, applied: true });
      await open().setPassword({ username: login.username, current: [login.password], next: other }, holding);
      expect(await open().verify({ ...login, password: other })).toBe('accepted');
      expect(calls('setPassword')).toHaveLength(1);
    },
  );

  test.each(Object.entries(answers))(
    'is no new password where %s and nothing was stored',
    async (_how, { status, ...json }) => {
      const login = await made();
      inject({ operation: 'setPassword', kind: 'status', status, json });
      const change = { username: login.username, current: [login.password], next: other };
      expect((await failureOf(open({ budgetMs: 600_000 }).setPassword(change, holding))).effect).toBe(
        'unknown',
      );
      expect(await open().verify(login)).toBe('accepted');
      expect(calls('setPassword')).toHaveLength(1);
    },
  );

  test('whose answer stalls in the middle is found by a login', async () => {
    const login = await made();
    const at = vendors().clock.now().getTime();
    inject({ operation: 'setPassword', kind: 'stall-mid-body' });
    const send = vendors().http(vendors().network.proxyUrl);
    const provider = open({
      http: (request) => send({ ...request, timeoutMs: Math.min(request.timeoutMs, 400) }),
    });
    await provider.setPassword({ username: login.username, current: [login.password], next: other }, holding);
    expect(await open().verify({ ...login, password: other })).toBe('accepted');
    expect(vendors().clock.now().getTime() - at).toBeLessThan(60_000);
  });

  test('that was stored, and reached no proxy, is told to all of them again by the next run', async () => {
    const login = await made();
    const change = { username: login.username, current: [login.password], next: other };
    cloud.switches.passwordReaches = { proxies: 'all', afterMs: Number.POSITIVE_INFINITY };
    inject({
      operation: 'setPassword',
      kind: 'status',
      status: 200,
      json: { code: 65_535, message: 'push' },
      applied: true,
    });
    expect((await failureOf(open({ budgetMs: 600_000 }).setPassword(change, holding))).effect).toBe(
      'unknown',
    );
    expect(await open().verify(login)).toBe('accepted');
    cloud.switches.passwordReaches = { proxies: 'all', afterMs: 0 };
    await open().setPassword(change, holding);
    expect(cluster.authenticates(login.username, other.reveal())).toBe(true);
    // The one that was lost, the one that was refused, and the one that changes nothing.
    const digest = (text: Sensitive) => createHash('sha256').update(text.reveal()).digest('hex');
    const [old, next] = [digest(login.password), digest(other)];
    expect(calls('setPassword').map(({ body }) => [body?.['password'], body?.['newPassword']])).toEqual([
      [old, next],
      [old, next],
      [next, next],
    ]);
    expect(calls('deleteUser')).toEqual([]);
  });

  test('that reached one proxy and not the other is refused now and then, and taken in the end', async () => {
    const login = await made();
    cloud.switches.passwordReaches = { proxies: 'one-late', afterMs: 20_000 };
    await open().setPassword({ username: login.username, current: [login.password], next: other }, holding);
    const now = { ...login, password: other };
    const answers = [await open().verify(now), await open().verify(now)];
    expect(answers.toSorted()).toEqual(['accepted', 'rejected']);
    vendors().clock.move(20_000);
    expect([await open().verify(now), await open().verify(now)]).toEqual(['accepted', 'accepted']);
  });

  test('tries every password that it may have, each once, and a few only', async () => {
    const login = await made();
    const wrong = (number: number) => new Sensitive(`Wrong-password_000000000000000${number}`);
    const change = { username: login.username, next: other };
    await open().setPassword({ ...change, current: [wrong(1), wrong(1), other, login.password] }, holding);
    expect(calls('setPassword')).toHaveLength(2);
    expect(await open().verify({ ...login, password: other })).toBe('accepted');
    const many = [1, 2, 3, 4, 5, 6].map(wrong);
    const next = passwordOf('next');
    expect(await codeOf(open().setPassword({ ...change, next, current: many }, holding))).toBe(
      'REJECTED none',
    );
    // Four of them, and the one that changes nothing.
    expect(calls('setPassword')).toHaveLength(2 + 5);
  });

  test('of a user that another run made anew meanwhile drops nobody', async () => {
    const login = await made();
    // Another run of the same step is done right before the drop of this one leaves.
    const around: OpenOptions['around'] = async (name, request, call) => {
      const isDrop = name === 'http' && (request as { url: URL }).url.pathname.endsWith('/users/drop');
      if (isDrop) cloud.actor.setPassword(clusterId, login.username, other.reveal());
      return call();
    };
    const work = open({ around }).setPassword(
      { username: login.username, current: [], next: other, isIdle: true },
      holding,
    );
    await expect(work).rejects.toThrow(
      expect.objectContaining({
        code: 'SUPERSEDED',
        message: expect.stringContaining(
          `${login.username} has its new password by now; this write was not sent`,
        ),
      }),
    );
    expect(calls('deleteUser')).toEqual([]);
    expect(await open().verify({ ...login, password: other })).toBe('accepted');
  });

  test('of a user that is to be made anew drops nobody where a login cannot tell', async () => {
    const login = await made();
    // The second trial of the new password is the one right before the drop.
    let trials = 0;
    const around: OpenOptions['around'] = async (name, request, call) => {
      if (name !== 'http' || !(request as { url: URL }).url.pathname.endsWith('/collections/list'))
        return call();
      trials += 1;
      if (trials > 1) throw new TransportError('no connection (ECONNREFUSED)', false);
      return call();
    };
    const work = open({ around }).setPassword(
      { username: login.username, current: [], next: other, isIdle: true },
      holding,
    );
    await expect(work).rejects.toThrow(/SUPERSEDED: whether .* cannot be told; this write was not sent/);
    expect(calls('deleteUser')).toEqual([]);
  });

  test('of an idle user takes roles away before, and grants after it', async () => {
    const login = await made();
    cloud.actor.grantRole(clusterId, login.username, 'orders_ro');
    cloud.actor.revokeRole(clusterId, login.username, 'orders_rw');
    await open().setPassword(
      { username: login.username, current: [login.password], next: other, isIdle: true },
      holding,
    );
    const order = calls().flatMap(({ operation }) =>
      ['revokeRole', 'setPassword', 'grantRole'].includes(operation) ? [operation] : [],
    );
    expect(order.slice(-3)).toEqual(['revokeRole', 'setPassword', 'grantRole']);
    expect(userOf(login.username)?.roles).toEqual(['orders_rw']);
  });

  test('with a role that the cluster does not have changes nothing', async () => {
    const login = await made();
    const change = { username: login.username, current: [login.password], next: other, isIdle: true };
    const provider = open({ roles: ['orders_rw', 'no_such_role'] });
    expect(await codeOf(provider.setPassword(change, holding))).toBe('ROLE_UNKNOWN none');
    expect(await open().verify(login)).toBe('accepted');
  });

  test('of a user that is made anew stops at whatever is not clear', async () => {
    const login = await made();
    const change = { username: login.username, current: [], next: other, isIdle: true };
    inject({ operation: 'deleteUser', kind: 'reset-before' });
    expect(await codeOf(open({ budgetMs: 30_000 }).setPassword(change, holding))).toBe('UNAVAILABLE unknown');
    expect(await open().verify(login)).toBe('accepted');
    inject({ operation: 'createUser', kind: 'reset-before' });
    expect(await codeOf(open().setPassword(change, holding))).toBe('UNAVAILABLE unknown');
    expect(userOf(login.username)).toBeUndefined();
    // The next run of the step creates it, as it would any new user.
    expect(await open().createUser({ ...login, password: other }, holding)).toBe('created');
  });
});

describe('whom and what Zilliz Cloud is never asked for', () => {
  const reserved = [
    'root',
    'db_admin',
    'db_1a2b3c4d',
    'Orders',
    '_orders',
    '1orders',
    'orders-api',
    'a'.repeat(33),
  ];
  test.each(reserved)('the user %s is refused before any request', async (username) => {
    const login = { host: 'x.zillizcloud.com', port: 443, database: 'default', username, password: other };
    const provider = open();
    expect(await codeOf(provider.createUser(login, holding))).toBe('NAME_REFUSED none');
    expect(
      await codeOf(provider.setPassword({ username, current: [], next: other, isIdle: true }, holding)),
    ).toBe('NAME_REFUSED none');
    expect(await codeOf(provider.applyPrivileges(login, holding))).toBe('NAME_REFUSED none');
    expect(await codeOf(provider.deleteUser(username, holding))).toBe('NAME_REFUSED none');
    expect(vendors().requests).toEqual([]);
  });

  test('built-in users, of Milvus too, and the generated one are listed as protected', async () => {
    cloud.switches.listedOnly = ['root', 'db_1a2b3c4d', 'Orders', 'orders_x'];
    expect(await open().listUsers()).toEqual([
      { username: 'db_admin', isProtected: true },
      { username: 'root', isProtected: true },
      { username: 'db_1a2b3c4d', isProtected: true },
      { username: 'Orders', isProtected: true },
      { username: 'orders_x', isProtected: false },
    ]);
  });

  const passwords: Record<string, string> = {
    'less than 8 characters': 'Ab3_567',
    'more than 64': `Ab3_${'x'.repeat(61)}`,
    'two classes': 'abcdefgh12345678',
    'a colon': 'Abcdefgh:1234567',
    'a blank': 'Abcdefgh 1234567',
    'a special character of another list': 'Abcdefgh~1234567',
    'a letter of another alphabet': 'Abcdefghä1234567',
    nothing: '',
  };
  test.each(Object.entries(passwords))('a password with %s is not sent', async (_what, text) => {
    const login = { ...(await loginOf(freshName())), password: new Sensitive(text) };
    const before = vendors().requests.length;
    const error = await failureOf(open().createUser(login, holding));
    expect([error.code, error.effect]).toEqual(['REJECTED', 'none']);
    expect(
      await codeOf(
        open().setPassword({ username: login.username, current: [], next: login.password }, holding),
      ),
    ).toBe('REJECTED none');
    expect(vendors().requests.length).toBe(before);
  });

  test.each(['Aa1!@#$%^&*()_+-=', 'aaaaaaa1!', 'A1a45678', `Aa1_${'x'.repeat(60)}`])(
    'the password %s is',
    async (text) => {
      const login = { ...(await loginOf(freshName())), password: new Sensitive(text) };
      expect(await open().createUser(login, holding)).toBe('created');
      expect(await open().verify(login)).toBe('accepted');
    },
  );

  test('a user beyond the hundred that a cluster may have', async () => {
    for (let count = cluster.users().length; count < 100; count += 1)
      cloud.actor.createUser(clusterId, `filler_${count}`, 'Filler-password_1');
    const error = await failureOf(open().createUser(await loginOf(freshName()), holding));
    expect([error.code, error.effect]).toEqual(['REJECTED', 'none']);
    expect(error.message).toContain('has 100 users, of 100 at most');
    expect(calls('createUser')).toEqual([]);
  });

  const without: Record<string, { plan?: string; status?: string }> = {
    'on the plan Free': { plan: 'Free' },
    'on the plan Serverless': { plan: 'Serverless' },
    'on a suspended cluster': { status: 'SUSPENDED' },
    'on a stopped cluster': { status: 'STOPPED' },
  };
  test.each(Object.entries(without))('anything about users %s', async (_where, { plan, status }) => {
    const login = await made();
    const before = calls().length;
    if (plan !== undefined) cloud.actor.setPlan(clusterId, plan);
    if (status !== undefined) cloud.actor.setStatus(clusterId, status);
    const change = { username: login.username, current: [login.password], next: other };
    const asked: readonly ((provider: ChoosingProvider) => Promise<unknown>)[] = [
      (provider) => provider.endpoint(),
      (provider) => provider.listUsers(),
      (provider) => provider.createUser(login, holding),
      (provider) => provider.setPassword(change, holding),
      (provider) => provider.deleteUser(login.username, holding),
      (provider) => provider.verify(login),
      (provider) => provider.applyPrivileges(login, holding),
      (provider) => provider.privilegeDifferences(login),
    ];
    for (const ask of asked) expect(await codeOf(ask(open()))).toBe('TARGET_NOT_READY none');
    expect(
      new Set(
        calls()
          .slice(before)
          .map(({ operation }) => operation),
      ),
    ).toEqual(new Set(['getCluster']));
  });

  test.each([
    'Standard',
    'Enterprise',
    'BusinessCritical',
    'Business Critical',
    'BYOC',
    'BYOC-I',
    'enterprise',
  ])('but the plan %s has users', async (plan) => {
    cloud.actor.setPlan(clusterId, plan);
    expect(await open().readiness()).toEqual({ ready: true });
    expect((await open().listUsers()).map(({ username }) => username)).toEqual(['db_admin']);
  });

  test.each(['Hyper', ''])(
    'nor does a plan that nobody here knows (%j) keep anybody from asking',
    async (plan) => {
      cloud.actor.setPlan(clusterId, plan);
      expect(await open().readiness()).toEqual({
        ready: true,
        doubt: `its plan is ${plan}, which rekey does not know; it is tried whether it has users`,
      });
      expect((await open().listUsers()).map(({ username }) => username)).toEqual(['db_admin']);
    },
  );
});

describe('the address of a cluster', () => {
  const wrong = [
    'http://in01-108240180a4faf8.aws-us-west-2.vectordb.zillizcloud.com:19539',
    'https://127.0.0.1:19539',
    'https://[::1]:19539',
    'https://zillizcloud.com:19539',
    'https://evilzillizcloud.com:19539',
    'https://x.zillizcloud.com.elsewhere.example:19539',
    'https://elsewhere.example:19539/x.zillizcloud.com',
    'https://elsewhere.example#.zillizcloud.com',
    'https://elsewhere.example\\.zillizcloud.com',
    'https://user:password@x.zillizcloud.com:19539',
    'https://x.zillizcloud.com@elsewhere.example',
    'https://x.zillizcloud.com:19539/v2',
    'https://x.zillizcloud.com:19539?a=b',
    'https://x.zillizcloud.com:0',
    'https://x.zillizcloud.com:65536',
    'https://-x.zillizcloud.com',
    'https://..zillizcloud.com',
    ' https://x.zillizcloud.com',
    'https://x.zillizcloud.com\n',
    'x.zillizcloud.com:19539',
    '',
  ];
  test.each(wrong)('%j is not gone to', async (address) => {
    cloud.actor.setAddress(clusterId, address);
    const error = await failureOf(open().listUsers());
    expect([error.code, error.effect]).toEqual(['UNREADABLE', 'none']);
    expect(vendors().requests.map(({ url }) => new URL(url).host)).toEqual(['api.cloud.zilliz.com']);
  });

  test.each([
    [`https://${exampleId}.aws-us-west-2.vectordb.zillizcloud.com:19539/`, 19_539],
    [`https://${exampleId}.aws-us-west-2.vectordb.zillizcloud.com:443`, 443],
    [`https://${exampleId}.aws-us-west-2.vectordb.zillizcloud.com`, 443],
  ])('%s is taken as it is', async (address, port) => {
    cloud.actor.setAddress(clusterId, address);
    const host = `${exampleId}.aws-us-west-2.vectordb.zillizcloud.com`;
    expect(await open().endpoint()).toEqual({ host, port, database: 'default' });
  });

  test('is the only one that a login is tried at, whatever a stored login says', async () => {
    const login = await made();
    const before = vendors().requests.length;
    for (const elsewhere of [{ host: 'other.zillizcloud.com' }, { port: 443 }])
      expect(await open().verify({ ...login, ...elsewhere })).toBe('accepted');
    const hosts = vendors()
      .requests.slice(before)
      .map(({ url }) => new URL(url).host);
    expect(new Set(hosts)).toEqual(new Set(['api.cloud.zilliz.com', `${cluster.host}:${cluster.port}`]));
  });
});

describe('a cluster that rekey cannot work on', () => {
  test('is one in China, which is a service of its own', async () => {
    cloud.actor.setAddress(
      clusterId,
      'https://in01-108240180a4faf8.ali-cn-hangzhou.vectordb.zilliz.com.cn:19530',
    );
    const reason = 'it is in China, where Zilliz Cloud is a service of its own that rekey does not support';
    expect(await open().readiness()).toEqual({ ready: false, reason });
    expect((await failureOf(open().listUsers())).message).toContain(reason);
  });

  test('is one whose id is that of a cluster without users, whatever its plan', async () => {
    const id = 'in03-108240180a4faf8';
    cloud.addCluster({ id, name: 'shared', plan: 'Standard' });
    const readiness = await open({ clusterId: id }).readiness();
    expect(readiness).toMatchObject({ ready: false, reason: expect.stringContaining('begins with in03-') });
  });
});

describe('the control plane', () => {
  const refused: readonly [number, string, string][] = [
    [21_119, 'The apikey is illegal.', 'UNAUTHORIZED none'],
    [96_014, 'You have no permission to access this cluster.', 'UNAUTHORIZED none'],
    [96_015, 'You have no permission.', 'UNAUTHORIZED none'],
    [96_016, 'The key has another scope.', 'UNAUTHORIZED none'],
    [80_001, 'token illegal', 'UNAUTHORIZED none'],
    [80_002, 'token invalid', 'UNAUTHORIZED none'],
    [96_010, 'Cluster not found.', 'NOT_FOUND none'],
    [96_000, 'Invalid parameter.', 'REJECTED none'],
  ];
  test.each(refused)('says %i, under status 200 too', async (code, message, want) => {
    const real = { 'UNAUTHORIZED none': 401, 'NOT_FOUND none': 404 }[want] ?? 400;
    for (const status of [200, real]) {
      inject({ operation: 'getCluster', kind: 'status', status, json: { code, message } });
      const error = await failureOf(open().readiness());
      expect(`${error.code} ${error.effect}`, `status ${status}`).toBe(want);
      expect(error.facts.vendorCode).toBe(code);
    }
  });

  test.each(['real-status', '200'] as const)('does not know the cluster, or the key (%s)', async (how) => {
    cloud.switches.controlPlaneErrors = how;
    expect(await codeOf(open({ clusterId: 'in01-0' }).readiness())).toBe('NOT_FOUND none');
    expect(await codeOf(open({ apiKey: 'illegal_canary_key_1' }).readiness())).toBe('UNAUTHORIZED none');
  });

  test('is not believed where it tells of another cluster', async () => {
    const data = {
      clusterId: 'in01-0',
      plan: 'Enterprise',
      status: 'RUNNING',
      connectAddress: `https://${cluster.host}`,
    };
    inject({ operation: 'getCluster', kind: 'status', status: 200, json: { code: 0, data } });
    expect(await codeOf(open().listUsers())).toBe('UNREADABLE none');
  });

  test('is asked once for all that an invocation does, and never more than ten times a second', async () => {
    const provider = open();
    const login = { ...(await provider.endpoint()), username: freshName(), password: other };
    await provider.createUser(login, holding);
    await provider.applyPrivileges(login, holding);
    await provider.verify(login);
    expect(calls('getCluster')).toHaveLength(1);
  });
});

describe('a trial login at Zilliz Cloud', () => {
  const proofs: Record<string, { status: number; json: object; want: string }> = {
    'not authenticated': {
      status: 401,
      json: { code: 1800, message: "user hasn't authenticated" },
      want: 'rejected',
    },
    'not authenticated, under status 200': { status: 200, json: { code: 1800 }, want: 'rejected' },
    'known, and without the right': {
      status: 403,
      json: { code: 1401, message: 'privilege not permitted' },
      want: 'accepted',
    },
    'known, and without the right, under status 200': { status: 200, json: { code: 1401 }, want: 'accepted' },
    'success of an early server': { status: 200, json: { code: 200, data: [] }, want: 'accepted' },
  };
  test.each(Object.entries(proofs))('takes %s for an answer', async (_what, { status, json, want }) => {
    const login = await made();
    inject({ operation: 'listCollections', kind: 'status', status, json });
    expect(await open().verify(login)).toBe(want);
  });

  const unclear: Record<string, FaultKind> = {
    'a page with 401, as of a gateway': { kind: 'html-body', status: 401 },
    'a page with 403, as of an IP allow-list': { kind: 'html-body', status: 403 },
    'a 403 that names no reason': { kind: 'status', status: 403, json: { message: 'forbidden' } },
    'a page with 200': { kind: 'html-body', status: 200 },
    'an empty answer': { kind: 'empty-body' },
    'half an answer': { kind: 'half-json' },
    'another number': { kind: 'status', status: 200, json: { code: 1100, message: 'no' } },
    'a wrong old password, which was not asked for': {
      kind: 'status',
      status: 401,
      json: { code: 1400 },
    },
    'a server error': { kind: 'status', status: 500, json: { code: 500 } },
    'a rate limit': { kind: 'status', status: 429 },
    'a redirect': { kind: 'redirect-307' },
    'a cut connection': { kind: 'reset-before' },
  };
  test.each(Object.entries(unclear))('takes %s for none', async (_what, fault) => {
    const login = await made();
    inject({ ...fault, operation: 'listCollections', times: Number.POSITIVE_INFINITY });
    await expect(open().verify(login)).rejects.toThrow(
      expect.objectContaining({ name: 'VerificationFailed', code: 'LOGIN_UNREACHABLE' }),
    );
  });

  test.each(['reset-before', 'html-body', 'rate-limited'] as const)(
    'is tried again after %s',
    async (kind) => {
      const login = await made();
      inject({ operation: 'listCollections', kind });
      expect(await open().verify(login)).toBe('accepted');
    },
  );

  test('needs no role', async () => {
    const login = await loginOf(freshName());
    await open().createUser(login, holding);
    expect(await open().verify(login)).toBe('accepted');
  });

  test('is refused until a new user has reached the proxies', async () => {
    cloud.switches.passwordReaches = { proxies: 'all', afterMs: 5_000 };
    const login = await loginOf(freshName());
    expect(await open().createUser(login, holding)).toBe('created');
    expect(await open().verify(login)).toBe('rejected');
    vendors().clock.move(5_000);
    expect(await open().verify(login)).toBe('accepted');
  });

  test('leaves no trace of the password where the vendor repeats it', async () => {
    const login = await made();
    const json = { code: 500, message: `no ${login.password.reveal()}` };
    inject({ operation: 'listCollections', kind: 'status', status: 500, json, times: 99 });
    await expect(open().verify(login)).rejects.toThrow('no ‹redacted›');
  });
});

describe('the roles of a user of Zilliz Cloud', () => {
  test('are exactly the declared ones afterwards', async () => {
    const login = await made();
    cloud.actor.grantRole(clusterId, login.username, 'db_admin');
    const provider = open({ roles: ['orders_ro', 'orders_ro'] });
    expect(await provider.privilegeDifferences(login)).toEqual([
      'role orders_ro is declared but not held',
      'role orders_rw is held but not declared',
      'role db_admin is held but not declared',
    ]);
    await provider.applyPrivileges(login, holding);
    expect(userOf(login.username)?.roles).toEqual(['orders_ro']);
    expect(await provider.privilegeDifferences(login)).toEqual([]);
  });

  test('that are right already are not sent again', async () => {
    const login = await made();
    const before = calls('grantRole').length;
    cloud.switches.repeatedGrant = 'refuse';
    await open().applyPrivileges(login, holding);
    expect(calls('grantRole').length).toBe(before);
  });

  test.each<Partial<ZillizSwitches>>([
    { emptyRole: true },
    { noRoles: 'null' },
    { isShuffled: true },
    { extraFields: true },
    { profile: '3.x', extraFields: true, isShuffled: true, emptyRole: true },
  ])('are read from every shape of an answer (%j)', async (shape) => {
    Object.assign(cloud.switches, shape);
    const login = await loginOf(freshName());
    const provider = open({ roles: ['orders_ro', 'orders_rw'] });
    await provider.createUser(login, holding);
    await provider.applyPrivileges(login, holding);
    expect(await provider.privilegeDifferences(login)).toEqual([]);
    expect(await open({ roles: [] }).privilegeDifferences(login)).toHaveLength(2);
  });

  test('are waited for, as grants take seconds', async () => {
    cloud.switches.grantsSeenAfterMs = 10_000;
    const login = await loginOf(freshName());
    const start = vendors().clock.now().getTime();
    await open().createUser(login, holding);
    expect(vendors().clock.now().getTime() - start).toBeGreaterThanOrEqual(10_000);
    await open().applyPrivileges(login, holding);
    expect(calls('grantRole')).toHaveLength(1);
  });

  test('are compared for fifteen seconds before they are said to differ', async () => {
    cloud.switches.grantsSeenAfterMs = 10_000;
    const login = await made();
    cloud.actor.revokeRole(clusterId, login.username, 'orders_rw');
    cloud.actor.grantRole(clusterId, login.username, 'orders_rw');
    expect(await open().privilegeDifferences(login)).toEqual([]);
    cloud.switches.grantsSeenAfterMs = 3_600_000;
    cloud.actor.grantRole(clusterId, login.username, 'orders_ro');
    vendors().clock.move(3_600_000);
    const start = vendors().clock.now().getTime();
    expect(await open().privilegeDifferences(login)).toEqual(['role orders_ro is held but not declared']);
    const waited = vendors().clock.now().getTime() - start;
    expect([waited >= 15_000, waited < 20_000]).toEqual([true, true]);
  });

  test('that are never seen are an error in the end', async () => {
    cloud.switches.grantsSeenAfterMs = 3_600_000;
    const login = await loginOf(freshName());
    await expect(open().createUser(login, holding)).rejects.toThrow(
      expect.objectContaining({
        code: 'PRIVILEGES_DIFFER',
        message: expect.stringContaining('differs in orders_rw'),
      }),
    );
  });

  test.each(['timeout-after-apply', 'reset-after-apply', 'reset-mid-body', 'empty-body'] as const)(
    'are right where a grant ended in %s: what is held decides',
    async (kind) => {
      const login = await loginOf(freshName());
      inject({ operation: 'grantRole', kind });
      await open().createUser(login, holding);
      expect(userOf(login.username)?.roles).toEqual(['orders_rw']);
      expect(calls('grantRole')).toHaveLength(1);
    },
  );

  test('are not claimed where a grant was lost, and the next run grants them', async () => {
    const login = await loginOf(freshName());
    inject({ operation: 'grantRole', kind: 'reset-before' });
    expect(await codeOf(open().createUser(login, holding))).toBe('UNAVAILABLE unknown');
    await open().applyPrivileges(login, holding);
    expect(userOf(login.username)?.roles).toEqual(['orders_rw']);
  });

  test('may be granted by whoever has the right only', async () => {
    const login = await loginOf(freshName());
    const json = { code: 1401, message: 'OperateUserRole: privilege not permitted' };
    inject({ operation: 'grantRole', kind: 'status', status: 403, json });
    expect(await codeOf(open().createUser(login, holding))).toBe('UNAUTHORIZED applied');
  });
});

describe('a cluster that has just been made', () => {
  const young = () => {
    const { clock } = vendors();
    return cloud.addCluster({ name: 'young', createdAt: clock.now(), roles: ['orders_rw'] });
  };

  test('authenticates nobody for a while, which the key is forgiven', async () => {
    cloud.switches.authenticatesAfterMs = 60_000;
    const { id } = young();
    expect((await open({ clusterId: id }).listUsers()).map(({ username }) => username)).toEqual(['db_admin']);
    expect(vendors().waits.filter((ms) => ms >= 2_000)).toEqual([2_000, 4_000, 8_000, 16_000, 30_000]);
  });

  test('is not waited for longer than two minutes', async () => {
    cloud.switches.authenticatesAfterMs = 3_600_000;
    const { id } = young();
    const start = vendors().clock.now().getTime();
    expect(await codeOf(open({ clusterId: id, budgetMs: 600_000 }).listUsers())).toBe('UNAUTHORIZED none');
    expect(vendors().clock.now().getTime() - start).toBeLessThanOrEqual(122_000);
  });

  test('is believed about a managed user at once', async () => {
    const { id } = young();
    const provider = open({ clusterId: id });
    const login = { ...(await provider.endpoint()), username: freshName(), password: other };
    expect(await provider.verify(login)).toBe('rejected');
    expect(vendors().waits).toEqual([]);
  });
});

describe('what goes over the wire to Zilliz Cloud', () => {
  test('is JSON by POST with a body, even where nothing is asked, and no header that would change another’s time-out', async () => {
    const provider = open();
    const login = await made();
    await provider.listUsers();
    await provider.verify(login);
    const sent = calls().filter(({ operation }) => operation !== 'getCluster');
    expect(sent.length).toBeGreaterThan(5);
    for (const { method, headers, path } of sent) {
      expect([method, headers['content-type']], path).toEqual(['POST', 'application/json']);
      expect(Number(headers['content-length']), path).toBeGreaterThanOrEqual(2);
      expect(headers, path).not.toHaveProperty('request-timeout');
    }
    expect(sent.find(({ operation }) => operation === 'listUsers')?.body).toEqual({});
  });

  test('is recorded by the stand-in without a password', async () => {
    const login = await made();
    await open().setPassword({ username: login.username, current: [login.password], next: other }, holding);
    const recorded = JSON.stringify(calls());
    expect(recorded).toContain(login.username);
    expect([recorded.includes(login.password.reveal()), recorded.includes(other.reveal())]).toEqual([
      false,
      false,
    ]);
  });
});

test('nobody is said to be connected or not at Zilliz Cloud: it cannot be seen', async () => {
  const login = await made();
  expect(await open().sessions(login.username, login)).toEqual({
    observed: false,
    reason: 'Zilliz Cloud does not tell who is connected, as every request logs in by itself',
  });
  expect(zillizCloud.capabilities.drainObservedBy).toBe('nothing');
});

describe('what a consumer of a Zilliz credential reads', () => {
  const login = {
    host: `${exampleId}.aws-us-west-2.vectordb.zillizcloud.com`,
    port: 19_539,
    database: 'default',
    username: 'orders_x',
    password: new Sensitive('Canary-password_000000000000001'),
  };

  test('is the URI and the token that Milvus clients ask for, beside AWS’s fields', () => {
    const text = secretString(login, { definition: zillizCloud, targetId: exampleId }).reveal();
    expect(JSON.parse(text)).toEqual({
      engine: 'milvus',
      host: `${exampleId}.aws-us-west-2.vectordb.zillizcloud.com`,
      port: 19_539,
      username: 'orders_x',
      password: 'Canary-password_000000000000001',
      dbname: 'default',
      url: `https://${exampleId}.aws-us-west-2.vectordb.zillizcloud.com:19539`,
      uri: `https://${exampleId}.aws-us-west-2.vectordb.zillizcloud.com:19539`,
      token: 'orders_x:Canary-password_000000000000001',
      provider: 'zilliz-cloud',
      target: exampleId,
    });
    expect(parseSecretValue(new Sensitive(text), 'here')).toMatchObject({ kind: 'login', login });
  });
});

describe('a spec for Zilliz Cloud', () => {
  test.each(['in01-108240180a4faf8', 'in03-0', 'in05-abcdef'])('may name the cluster %s', (id) => {
    expect(zillizCloud.targetSchema.safeParse({ clusterId: id }).success).toBe(true);
  });
  test.each(['', 'in1-x', 'IN01-X', 'in01-', 'in01-a/../b', 'in01-a b', '..', 'in01-ä'])(
    'may not name the cluster %j',
    (id) => {
      expect(zillizCloud.targetSchema.safeParse({ clusterId: id }).success).toBe(false);
    },
  );
  test.each(['orders_rw', '_internal', 'A', 'a'.repeat(255)])('may name the role %s', (role) => {
    expect(zillizCloud.privilegesSchema.safeParse({ roles: [role] }).success).toBe(true);
  });
  test.each(['', '123n', 'test-role', 'a'.repeat(256), 'a b', 'ä'])('may not name the role %j', (role) => {
    expect(zillizCloud.privilegesSchema.safeParse({ roles: [role] }).success).toBe(false);
  });
  test('says nothing more than that', () => {
    expect(zillizCloud.targetSchema.safeParse({ clusterId: 'in01-0', region: 'x' }).success).toBe(false);
    expect(zillizCloud.privilegesSchema.parse({})).toEqual({ roles: [] });
  });
});

test('there are no sessions to end, as every request logs in by itself', async () => {
  const provider = open();
  expect(
    await provider.endSessions('orders_x', {} as Login, new Date('2026-03-01T12:00:00Z'), holding),
  ).toEqual({
    ended: true,
    because: 'every request to Zilliz Cloud logs in by itself',
  });
  expect(vendors().requests).toEqual([]);
});

test('the target of a stored login is its cluster', () => {
  expect(zillizCloud.targetOf({ targetId: clusterId, database: 'default' })).toEqual({ clusterId });
});
