import { createHash } from 'node:crypto';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { interpose, type Ports, type ValkeyReply } from '../../functions/core/ports.ts';
import type { ChoosingProvider, Login } from '../../functions/core/provider.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { parseSpec } from '../../functions/core/spec.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import { vultrValkey } from '../../functions/providers/vultr-valkey/provider.ts';
import type { ValkeyLoginFaultKind } from '../../infra/local/engines/valkey-front.ts';
import type { Fault } from '../../infra/local/providers/faults.ts';
import { addVultrOrders } from '../../infra/local/providers/fixtures.ts';
import type {
  VultrAcl,
  VultrDatabaseView,
  VultrOperation,
  VultrSwitches,
  VultrValkey,
} from '../../infra/local/providers/vultr-valkey.ts';
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
const databaseId = '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21';
let vultr: VultrValkey;
let database: VultrDatabaseView;
let before = 0;
beforeAll(async () => {
  const { api, engine } = vendors().vultr;
  vultr = api;
  database = await addVultrOrders(vultr, engine, { id: databaseId });
});
beforeEach(() => {
  vultr.actor.setStatus(databaseId, 'Running');
  vultr.actor.allowAddress(true);
  vendors().vultr.front.rules.disabled = 'unknown';
  before = vultr.calls.length;
});

/** What the vendor was asked in this test, oldest first. */
const calls = (operation?: VultrOperation) =>
  vultr.calls.slice(before).filter((call) => operation === undefined || call.operation === operation);
const inject = (fault: Fault<VultrOperation>): void => vultr.faults.inject(fault);
const set = (switches: Partial<VultrSwitches>): void => void Object.assign(vultr.switches, switches);
const always = { times: Number.POSITIVE_INFINITY };

const declared: VultrAcl = {
  categories: ['+@read', '+@write', '-@dangerous'],
  commands: ['+client|list', '+client|setname'],
  keys: ['orders:*'],
  channels: [],
};
interface Options extends OpenOptions {
  readonly id?: string;
  readonly privileges?: VultrAcl;
  readonly valkey?: Ports['valkey'];
}
const open = ({
  budgetMs = 180_000,
  apiKey = vendors().apiKeys.vultr,
  id = databaseId,
  privileges = declared,
  http,
  valkey,
  around = (_name, _request, call) => call(),
}: Options = {}): ChoosingProvider => {
  const { clock, ports } = vendors();
  const until = new Date(clock.now().getTime() + budgetMs);
  const provider = vultrValkey.open(
    {
      target: { databaseId: id },
      privileges: {
        categories: [...privileges.categories],
        commands: [...privileges.commands],
        keys: [...privileges.keys],
        channels: [...privileges.channels],
      },
      apiKey: new Sensitive(apiKey),
      until,
    },
    interpose(
      ports(until, { ...(http === undefined ? {} : { http }), ...(valkey === undefined ? {} : { valkey }) }),
      around,
    ),
  );
  if (provider.passwords !== 'chosen-by-us') throw new Error('Vultr takes our passwords');
  return vendors().watch(provider);
};

const passwordOf = (username: string): Sensitive =>
  new Sensitive(`Pw-${createHash('sha256').update(username).digest('base64url').slice(0, 29)}`);
const loginOf = async (username = freshName()): Promise<Login> => ({
  ...(await open().endpoint()),
  username,
  password: passwordOf(username),
});
/** A user as the vendor leaves it, made by somebody: with every right. */
const born = async (username = freshName()): Promise<Login> => {
  const login = await loginOf(username);
  await vultr.actor.createUser(username, login.password.reveal());
  return login;
};
/** A user with the declared rights. */
const made = async (username = freshName()): Promise<Login> => {
  const login = await loginOf(username);
  await open().createUser(login, holding);
  return login;
};
const front = () => vendors().vultr.front;
const another = new Sensitive('Another-password_0000000000000001');

const operations: Record<Operation, VultrOperation> = {
  readiness: 'getDatabase',
  list: 'listUsers',
  create: 'createUser',
  remove: 'deleteUser',
  setPassword: 'setPassword',
};

const subject = (): ChoosingSubject => ({
  vendors: vendors(),
  host: 'api.vultr.com',
  open,
  async bring(provider, username) {
    const login = { ...(await provider.endpoint()), username, password: passwordOf(username) };
    await bringChosen(provider, login);
    return login;
  },
  // Nothing at Vultr keeps a user because of what others are.
  supersede: async () => undefined,
  inject: (operation, trouble) => inject({ ...trouble, operation: operations[operation] }),
  calls: (operation) => calls(operations[operation]).length,
  usernames: () => database.users(),
  deletedBySomebody: (username) => vultr.actor.deleteUser(username),
  listIsStale: (skip = 0) =>
    inject({
      operation: 'listUsers',
      kind: 'status',
      status: 200,
      json: { users: [], meta: { total: 0 } },
      skip,
    }),
  listLagsMs(ms) {
    vultr.switches.delays.userUnlisted = { ms };
  },
  alsoListed(names) {
    vultr.switches.listedOnly = names;
  },
  protectedUsers: () => ['default'],
  notReady: Object.fromEntries(
    ['Rebuilding', 'Rebalancing', 'Configuring', 'Error', 'poweroff', 'A status of tomorrow'].map(
      (status) => [
        status,
        { given: () => vultr.actor.setStatus(databaseId, status), reason: `its status is ${status}` },
      ],
    ),
  ),
  rateLimitStatuses: [429],
  linger: (login) => vendors().connectToValkey(login),
  capabilities: vultrValkey.capabilities,
  readsCount: true,
  drift: (username) =>
    vultr.actor.setAccessControl(username, {
      categories: ['+@all'],
      commands: [],
      keys: ['*'],
      channels: [],
    }),
  passwordOf,
  async overreach(login) {
    const client = await vendors()
      .connectToValkey(login)
      .catch(() => undefined);
    const read = await client?.call('GET', 'customers:1').then(
      () => 'customers:1',
      () => undefined,
    );
    client?.disconnect();
    return read;
  },
  openUnknown: (options) =>
    open({ ...options, privileges: { ...declared, categories: ['+@read', '+@nosuch'] } }),
  createdBySomebody: ({ username, password }) => vultr.actor.createUser(username, password.reveal()),
  refusesSamePassword(isRefused) {
    vultr.switches.samePassword = isRefused ? 422 : 'accept';
  },
});

providerContract('vultr-valkey', subject);
choosingContract('vultr-valkey', subject);

describe('what Vultr says of a database', () => {
  test.each(['Running', 'running', 'RUNNING'])('with %s means that users may be changed', async (status) => {
    vultr.actor.setStatus(databaseId, status);
    expect(await open().readiness()).toEqual({ ready: true });
  });

  test.each(['mysql', 'pg', 'kafka', 'redis'])('with the engine %s is none of ours', async (engine) => {
    set({ engine });
    expect(await open().readiness()).toEqual({
      ready: false,
      reason: `its engine is ${engine}, expected valkey`,
    });
    expect(await codeOf(open().createUser({ ...(await loginOf()) }, holding))).toBe('TARGET_NOT_READY none');
  });

  test.each(['text', 'number'] as const)('tells the port as a %s', async (port) => {
    set({ port });
    expect(await open().endpoint()).toEqual({
      host: 'localhost',
      port: front().port,
      database: '0',
      ca: expect.stringMatching(/^-----BEGIN CERTIFICATE-----/),
    });
  });

  test('with a VPC is reached under its public name', async () => {
    set({ host: 'private' });
    expect((await open().endpoint()).host).toBe('localhost');
    expect(await open().verify(await made())).toBe('accepted');
  });

  test.each(['absent', 'empty'] as const)('may tell no CA (%s): then the public ones count', async (ca) => {
    set({ ca });
    expect(await open().endpoint()).toEqual({ host: 'localhost', port: front().port, database: '0' });
  });

  const wrong: Record<string, { given: object; says: RegExp }> = {
    'a port that is none': { given: { port: 'soon' }, says: /database\.port: / },
    'a CA that is no certificate': {
      given: { ca_certificate: 'see console' },
      says: /database\.ca_certificate: /,
    },
    'no status': { given: { status: undefined }, says: /database\.status: / },
  };
  test.each(Object.entries(wrong))(
    'with %s is unreadable, and no word of it is shown',
    async (_what, { given, says }) => {
      const whole = {
        ...{ status: 'Running', database_engine: 'valkey', host: 'localhost', port: '1' },
        ...{ user: 'default', password: 'AVNS_canaryOfTheDefaultUser' },
      };
      inject({
        operation: 'getDatabase',
        kind: 'status',
        status: 200,
        json: { database: { ...whole, ...given } },
      });
      const error = await failureOf(open().endpoint());
      expect([error.code, error.effect]).toEqual(['UNREADABLE', 'none']);
      expect(error.message).toMatch(says);
    },
  );

  test('may not say yet where to connect', async () => {
    const json = {
      database: { status: 'Configuring', database_engine: 'valkey', host: '', port: '0', user: null },
    };
    inject({ operation: 'getDatabase', kind: 'status', status: 200, json });
    expect(await codeOf(open().endpoint())).toBe('TARGET_NOT_READY none');
  });
});

describe('the list of Vultr', () => {
  test('says nothing about absence where it tells of more users than it holds', async () => {
    const { username } = await made();
    set({ total: 'one-more', unlisted: [username] });
    for (const work of [
      () => open().listUsers(),
      () => open().deleteUser(username, holding),
      async () => open().createUser(await loginOf(username), holding),
    ]) {
      const error = await failureOf(work());
      expect([error.code, error.effect]).toEqual(['UNREADABLE', 'none']);
      expect(error.message).toMatch(/the user list is incomplete: got \d+ of \d+ users/);
    }
    expect([calls('createUser').length, calls('deleteUser').length]).toEqual([1, 0]);
  });

  const nothing: readonly unknown[] = [[], {}, null, undefined];
  const odd = {
    'access_control of somebody else': nothing.map((access_control) => ({
      users: [{ username: 'somebody', access_control }],
    })),
    'access_control of somebody else, that nobody can read': [
      'none',
      { acl_categories: '+@read' },
      { acl_keys: [7] },
    ].map((access_control) => ({ users: [{ username: 'somebody', access_control }] })),
    meta: nothing.map((meta) => ({ users: [{ username: 'somebody' }], meta })),
    'links in meta': nothing.map((links) => ({
      users: [{ username: 'somebody' }],
      meta: { total: 1, links },
    })),
    'total as text': [{ users: [{ username: 'somebody' }], meta: { total: '1' } }],
  };
  test.each(
    Object.entries(odd).flatMap(([what, answers]) =>
      answers.map((json): [string, string, unknown] => [what, JSON.stringify(json), json]),
    ),
  )('is read whatever stands for nothing where nothing is needed: %s, %s', async (_what, _text, json) => {
    inject({ operation: 'listUsers', kind: 'status', status: 200, json });
    expect((await open().listUsers()).map(({ username }) => username)).toEqual(['somebody']);
  });

  test('of which the total is no number is unreadable', async () => {
    const json = { users: [{ username: 'somebody' }], meta: { total: 'many' } };
    inject({ operation: 'listUsers', kind: 'status', status: 200, json });
    const error = await failureOf(open().listUsers());
    expect([error.code, error.effect]).toEqual(['UNREADABLE', 'none']);
    expect(error.message).toContain('meta.total');
  });

  test('needs no total', async () => {
    const { username } = await made();
    set({ total: 'absent' });
    expect(await open().listUsers()).toContainEqual({ username, isProtected: false });
  });

  test.each([1, 2, 500])('is read to its end where it has pages, of %d', async (pageSize) => {
    const { username } = await made();
    const whole = await open().listUsers();
    set({ pageSize });
    const first = calls('listUsers').length;
    expect(await open().listUsers()).toEqual(whole);
    expect(whole).toContainEqual({ username, isProtected: false });
    const cursors = calls('listUsers')
      .slice(first)
      .map(({ query }) => query['cursor'] ?? '');
    expect(new Set(cursors).size).toBe(cursors.length);
    expect(cursors[0]).toBe('');
  });

  test('that never ends, as its cursor comes again, is an error', async () => {
    set({ pageSize: 1, repeatedCursor: true });
    const error = await failureOf(open().listUsers());
    expect([error.code, error.effect]).toEqual(['UNREADABLE', 'none']);
    expect(error.message).toContain('the user list never ends (a cursor came twice)');
  });

  test('may come in any order', async () => {
    const { username } = await made();
    set({ order: 'reversed' });
    expect(await open().listUsers()).toContainEqual({ username, isProtected: false });
  });

  test('marks the default users, under whatever name the database has its own', async () => {
    const own = freshName();
    set({ listedOnly: ['vultradmin', own] });
    const json = {
      database: { status: 'Running', database_engine: 'valkey', host: 'localhost', port: 1, user: own },
    };
    inject({ operation: 'getDatabase', kind: 'status', status: 200, json, ...always });
    const marked = (await open().listUsers()).filter(({ isProtected }) => isProtected);
    expect(marked.map(({ username }) => username)).toEqual(
      expect.arrayContaining(['default', 'vultradmin', own]),
    );
    const login = { host: 'localhost', port: 1, database: '0', username: own, password: another };
    for (const write of [
      () => open().createUser(login, holding),
      () => open().setPassword({ username: own, current: [], next: another }, holding),
      () => open().applyPrivileges(login, holding),
      () => open().deleteUser(own, holding),
    ])
      expect(await codeOf(write())).toBe('NAME_REFUSED none');
    expect(vendors().requests.filter(({ method }) => method !== 'GET')).toEqual([]);
  });

  test.each(['default', 'vultradmin', 'Orders', 'a'.repeat(33)])(
    '%s is refused before any request, also where Vultr would take it',
    async (username) => {
      set({ defaultUser: 'allowed' });
      const login = { host: 'localhost', port: 1, database: '0', username, password: another };
      const provider = open();
      expect(await codeOf(provider.createUser(login, holding))).toBe('NAME_REFUSED none');
      expect(await codeOf(provider.setPassword({ username, current: [], next: another }, holding))).toBe(
        'NAME_REFUSED none',
      );
      expect(await codeOf(provider.applyPrivileges(login, holding))).toBe('NAME_REFUSED none');
      expect(await codeOf(provider.deleteUser(username, holding))).toBe('NAME_REFUSED none');
      expect(vendors().requests).toEqual([]);
    },
  );
});

describe('creating a user at Vultr', () => {
  test.each([400, 422] as const)(
    'whom the list does not show, refused with a %d, finds somebody’s user and leaves it untouched',
    async (duplicate) => {
      const theirs = await born();
      set({ duplicate, unlisted: [theirs.username] });
      expect(await open().createUser({ ...theirs, password: another }, holding)).toBe('exists');
      expect(await open().verify(theirs)).toBe('accepted');
      // The user's own page is asked before anything is sent.
      expect(calls('createUser')).toEqual([]);
    },
  );

  test.each([400, 422] as const)(
    'who comes into being in between, refused with a %d, is found the same way',
    async (duplicate) => {
      const login = await loginOf();
      set({ duplicate });
      const run = () => vultr.actor.createUser(login.username, another.reveal());
      inject({ operation: 'createUser', kind: 'meanwhile', when: 'before', run });
      expect(await open().createUser(login, holding)).toBe('exists');
      expect(await open().verify({ ...login, password: another })).toBe('accepted');
      expect(calls('createUser')).toHaveLength(1);
    },
  );

  test('never posts a name that exists, which might change its password', async () => {
    const theirs = await born();
    set({ duplicate: 'changes-password', unlisted: [theirs.username] });
    expect(await open().createUser({ ...theirs, password: another }, holding)).toBe('exists');
    expect(await open().verify(theirs)).toBe('accepted');
    expect(calls('createUser')).toEqual([]);
  });

  test('refused as one too many although it was done, is not done again: its password tells whose it is', async () => {
    const login = await loginOf();
    const json = { status: 429, error: 'rate limit exceeded' };
    inject({ operation: 'createUser', kind: 'status', status: 429, applied: true, json });
    expect(await open().createUser(login, holding)).toBe('created');
    expect(await open().verify(login)).toBe('accepted');
    expect(calls('createUser')).toHaveLength(1);
  });

  test('refused as one too many and done meanwhile by somebody, is not done again', async () => {
    const login = await loginOf();
    inject({ operation: 'createUser', kind: 'rate-limited', retryAfter: 3 });
    const run = () => vultr.actor.createUser(login.username, another.reveal());
    // Two readings of the list, one of the user, and the look after the refusal come first.
    inject({ operation: 'getUser', kind: 'meanwhile', when: 'before', run, skip: 2 });
    expect(await open().createUser(login, holding)).toBe('exists');
    expect(calls('createUser')).toHaveLength(1);
  });

  test('is not tried for ever where it is always refused as one too many', async () => {
    const login = await loginOf();
    inject({ operation: 'createUser', kind: 'rate-limited', ...always });
    const error = await failureOf(open({ budgetMs: 900_000 }).createUser(login, holding));
    expect([error.code, error.effect]).toEqual(['RATE_LIMITED', 'none']);
    expect(error.message).toContain('who is not there; Secrets Manager tries again');
    expect(calls('createUser')).toHaveLength(6);
  });

  test('is unclear where it was refused as one too many and the user cannot be asked for', async () => {
    const login = await loginOf();
    inject({ operation: 'createUser', kind: 'rate-limited' });
    inject({ operation: 'getUser', kind: 'status', status: 500, skip: 1, ...always });
    expect(await codeOf(open({ budgetMs: 60_000 }).createUser(login, holding))).toBe('RATE_LIMITED unknown');
    expect(calls('createUser')).toHaveLength(1);
  });

  test('does not accept another user than it asked for', async () => {
    const login = await loginOf();
    inject({
      operation: 'createUser',
      kind: 'status',
      status: 202,
      json: { user: { username: 'somebody' } },
    });
    const error = await failureOf(open().createUser(login, holding));
    expect([error.code, error.effect]).toEqual(['UNREADABLE', 'applied']);
    expect(error.message).toContain(`asked for ${login.username}, was answered with another name`);
  });

  test.each([200, 201, 202])('takes a %d for a success', async (status) => {
    const login = await loginOf();
    inject({
      operation: 'createUser',
      kind: 'status',
      status,
      applied: true,
      json: { user: { username: login.username, permission: 'of a field that we do not know' } },
    });
    expect(await open().createUser(login, holding)).toBe('created');
  });

  test('sends our password, never the wish for one', async () => {
    const login = await made();
    expect(await open().verify(login)).toBe('accepted');
    expect(calls('createUser')).toMatchObject([
      { method: 'POST', path: `/v2/databases/${databaseId}/users` },
    ]);
  });

  test('that reaches the engine late is refused until then', async () => {
    const lag = { createUser: 300_000, setPassword: 300_000, setAccessControl: 300_000 };
    set({ engineAfterMs: { ...vultr.switches.engineAfterMs, ...lag } });
    const login = await made();
    expect(await open().verify(login)).toBe('rejected');
    vendors().clock.move(300_000);
    await expect.poll(() => open().verify(login)).toBe('accepted');
  });
});

describe('a database that is not running', () => {
  const writes: Record<string, (login: Login) => Promise<unknown>> = {
    create: (login) => open().createUser(login, holding),
    'set the password of': ({ username }) =>
      open().setPassword({ username, current: [], next: another }, holding),
    'change the rights of': (login) => open().applyPrivileges(login, holding),
    delete: ({ username }) => open().deleteUser(username, holding),
  };

  test.each(Object.entries(writes))('is not asked to %s a user', async (_what, write) => {
    const login = await born();
    vultr.actor.setStatus(databaseId, 'Rebuilding');
    const first = vendors().requests.length;
    const error = await failureOf(write(login));
    expect([error.code, error.effect]).toEqual(['TARGET_NOT_READY', 'none']);
    expect(error.message).toContain('its status is Rebuilding; try again later');
    expect(
      vendors()
        .requests.slice(first)
        .filter(({ method }) => method !== 'GET'),
    ).toEqual([]);
  });

  const refusals = (['refuse-400', 'refuse-422', 'call-names-invalid'] as const).flatMap((whileNotRunning) =>
    Object.keys(writes).map((what) => ({ whileNotRunning, what })),
  );
  test.each(refusals)(
    'from the middle of a call on is not believed ($whileNotRunning) when it refuses to $what a user',
    async ({ whileNotRunning, what }) => {
      const login = await born();
      set({ whileNotRunning });
      const run = async () => vultr.actor.setStatus(databaseId, 'Rebalancing');
      inject({ operation: 'getDatabase', kind: 'meanwhile', run });
      expect(await codeOf(writes[what]?.(login) ?? Promise.resolve())).toBe('TARGET_NOT_READY none');
    },
  );
});

describe('a password at Vultr', () => {
  test('that is recorded and works is not sent again', async () => {
    const login = await made();
    const sent = calls('setPassword').length;
    await open().setPassword({ username: login.username, current: [], next: login.password }, holding);
    expect(calls('setPassword')).toHaveLength(sent);
  });

  test('that is recorded and never reached the engine is sent again', async () => {
    const login = await born();
    set({ engineAfterMs: { ...vultr.switches.engineAfterMs, setPassword: Number.POSITIVE_INFINITY } });
    await open().setPassword({ username: login.username, current: [], next: another }, holding);
    expect(await open().verify({ ...login, password: another })).toBe('rejected');
    set({ engineAfterMs: { ...vultr.switches.engineAfterMs, setPassword: 0 } });
    await open().setPassword({ username: login.username, current: [], next: another }, holding);
    expect(await open().verify({ ...login, password: another })).toBe('accepted');
    expect(calls('setPassword')).toHaveLength(2);
  });

  test('that is recorded is left alone where no login can tell more', async () => {
    const login = await born();
    vendors().faultLogins(front(), { kind: 'no-answer' });
    await open().setPassword({ username: login.username, current: [], next: login.password }, holding);
    expect(calls('setPassword')).toEqual([]);
  });

  test.each([400, 422] as const)('that is refused with a %d as the same one is set', async (samePassword) => {
    const login = await made();
    set({ samePassword });
    // Recorded between our look and our change, and not known to the engine yet.
    const run = async () => {
      set({ engineAfterMs: { ...vultr.switches.engineAfterMs, setPassword: 0 } });
      await vultr.actor.setPassword(login.username, another.reveal());
    };
    inject({ operation: 'setPassword', kind: 'meanwhile', when: 'before', run });
    await open().setPassword({ username: login.username, current: [], next: another }, holding);
    expect(await open().verify({ ...login, password: another })).toBe('accepted');
  });

  test('takes effect late, and the old one works until then', async () => {
    const login = await made();
    set({ engineAfterMs: { ...vultr.switches.engineAfterMs, setPassword: 90_000 } });
    const next = { ...login, password: another };
    await open().setPassword({ username: login.username, current: [], next: another }, holding);
    expect([await open().verify(login), await open().verify(next)]).toEqual(['accepted', 'rejected']);
    vendors().clock.move(90_000);
    await expect.poll(() => open().verify(next)).toBe('accepted');
    expect(await open().verify(login)).toBe('rejected');
  });

  test('is put, never patched, and without one nothing is sent', async () => {
    const { username } = await born();
    await open().setPassword({ username, current: [], next: another }, holding);
    expect(calls('setPassword')).toMatchObject([
      { method: 'PUT', path: `/v2/databases/${databaseId}/users/${username}` },
    ]);
    expect(
      await codeOf(open().setPassword({ username, current: [], next: new Sensitive('') }, holding)),
    ).toBe('REJECTED none');
    expect(calls('setPassword')).toHaveLength(1);
  });

  test.each([
    ['kept', true],
    ['ended', false],
  ] as const)('is changed where live connections are %s', async (connectionsAfterPassword, lives) => {
    const login = await made();
    const client = await vendors().connectToValkey(login);
    set({ connectionsAfterPassword });
    await open().setPassword({ username: login.username, current: [], next: another }, holding);
    const works = await client.call('GET', 'orders:latest').then(
      () => true,
      () => false,
    );
    expect(works).toBe(lives);
  });

  test.each([400, 404, 422] as const)('of a user who is not there is not found (%d)', async (missingUser) => {
    set({ missingUser });
    const error = await failureOf(
      open().setPassword({ username: freshName(), current: [], next: another }, holding),
    );
    expect([error.code, error.effect, error.facts.status]).toEqual(['NOT_FOUND', 'none', missingUser]);
    expect(error.message).toContain('(Not a valid database user)');
    expect(calls('setPassword')).toEqual([]);
  });

  test('for whose user another one is answered is not said to be set', async () => {
    const { username } = await made();
    inject({
      operation: 'setPassword',
      kind: 'status',
      status: 202,
      json: { user: { username: 'somebody' } },
    });
    expect(await codeOf(open().setPassword({ username, current: [], next: another }, holding))).toBe(
      'UNREADABLE applied',
    );
  });

  test('is not shown where Vultr shows it, and that of nobody else', async () => {
    await made();
    await open().listUsers();
    // The leak check after each test knows every password of every answer.
    expect(await open().listUsers()).toContainEqual({ username: 'default', isProtected: true });
  });
});

describe('the rights of a user at Vultr', () => {
  const lists = { categories: ['+@read'], commands: [], keys: ['orders:*'], channels: [] };

  test('are everything at birth and the declared ones afterwards, on the engine too', async () => {
    const login = await born();
    expect(database.recorded(login.username)?.categories).toEqual(['+@all']);
    expect(await open().privilegeDifferences(login)).toEqual([
      'category +@read is declared but not held',
      'category +@write is declared but not held',
      'category -@dangerous is declared but not held',
      'category +@all is held but not declared',
      'command +client|list is declared but not held',
      'command +client|setname is declared but not held',
      'key pattern orders:* is declared but not held',
      'key pattern * is held but not declared',
      'channel pattern * is held but not declared',
    ]);
    await open().applyPrivileges(login, holding);
    expect(await open().privilegeDifferences(login)).toEqual([]);
    const client = await vendors().connectToValkey(login);
    expect(await client.call('GET', 'orders:latest')).toBe('tea');
    await expect(client.call('GET', 'customers:1')).rejects.toThrow('NOPERM');
    await expect(client.call('PING')).rejects.toThrow('NOPERM');
  });

  test('are put right where a new user has none', async () => {
    set({ defaultAcl: 'empty' });
    const login = await made();
    expect(await open().privilegeDifferences(login)).toEqual([]);
  });

  test('are sent in full, so that it does not matter whether a list that is left out stays', async () => {
    const login = await made();
    for (const omittedAcl of ['keeps', 'resets'] as const) {
      set({ omittedAcl });
      await open({ privileges: lists }).applyPrivileges(login, holding);
      expect(database.recorded(login.username)).toEqual(lists);
      await open().applyPrivileges(login, holding);
      expect(database.recorded(login.username)).toEqual({
        ...declared,
        channels: [],
      });
    }
  });

  test('are sent with what takes away at the end', async () => {
    const privileges = { ...lists, categories: ['-@dangerous', '+@read', '-@keyspace', '+@write'] };
    const login = await born();
    await open({ privileges }).applyPrivileges(login, holding);
    expect(database.recorded(login.username)?.categories).toEqual([
      '+@read',
      '+@write',
      '-@dangerous',
      '-@keyspace',
    ]);
  });

  const spellings: Record<string, Partial<VultrSwitches>> = {
    'under their old names': { aclNames: 'redis_acl' },
    'in another order': { order: 'reversed' },
    'with null for what is empty': { emptyList: 'null' },
    'in the list alone': { accessControl: 'in-list-only' },
  };
  test.each(Object.entries(spellings))('are read %s', async (_how, switches) => {
    const login = await made();
    set(switches);
    expect(await open().privilegeDifferences(login)).toEqual([]);
    await open({ privileges: lists }).applyPrivileges(login, holding);
    expect(await open({ privileges: lists }).privilegeDifferences(login)).toEqual([]);
  });

  test('are not written where they are right', async () => {
    const login = await made();
    const sent = calls('setAccessControl').length;
    await open().applyPrivileges(login, holding);
    expect(calls('setAccessControl')).toHaveLength(sent);
  });

  test('that are told nowhere are never said to agree', async () => {
    const login = await made();
    set({ accessControl: 'nowhere' });
    expect(await open().privilegeDifferences(login)).toEqual(['Vultr does not tell the access control']);
    await expect(open().applyPrivileges(login, holding)).rejects.toThrow(
      expect.objectContaining({ code: 'PRIVILEGES_DIFFER' }),
    );
  });

  test('that are told in no way that can be read are told by user and field', async () => {
    const login = await made();
    const json = { user: { username: login.username, access_control: { acl_categories: '+@read' } } };
    inject({ operation: 'getUser', kind: 'status', status: 200, json });
    const error = await failureOf(open().privilegeDifferences(login));
    expect([error.code, error.effect]).toEqual(['UNREADABLE', 'none']);
    expect(error.message).toContain(`access_control of ${login.username}: acl_categories: `);
  });

  test('of which a list is not told are not said to agree either', async () => {
    const login = await made();
    const access_control = { acl_categories: ['+@read'], acl_commands: [], acl_keys: ['orders:*'] };
    const json = { user: { username: login.username, access_control } };
    inject({ operation: 'getUser', kind: 'status', status: 200, json });
    set({ accessControl: 'nowhere' });
    expect(await open({ privileges: lists }).privilegeDifferences(login)).not.toEqual([]);
  });

  const unclear = [
    'timeout-after-apply',
    'reset-after-apply',
    'reset-mid-body',
    'half-json',
    'empty-body',
  ] as const;
  test.each(unclear)('are right when they were set and the answer is lost (%s)', async (kind) => {
    const login = await born();
    inject({ operation: 'setAccessControl', kind });
    await open().applyPrivileges(login, holding);
    expect(await open().privilegeDifferences(login)).toEqual([]);
    expect(calls('setAccessControl')).toHaveLength(1);
  });

  test.each(['reset-before', 'html-body', 'timeout-before'] as const)(
    'that were not set (%s) are not said to be right, and the next call sets them',
    async (kind) => {
      const login = await born();
      inject({ operation: 'setAccessControl', kind });
      expect((await failureOf(open().applyPrivileges(login, holding))).effect).toBe('unknown');
      await open().applyPrivileges(login, holding);
      expect(await open().privilegeDifferences(login)).toEqual([]);
    },
  );

  const nothing = { categories: ['-@all'], commands: [], keys: [], channels: [] };
  const unknown = { ...lists, categories: ['+@read', '+@nosuch'] };

  test('that Vultr does not know are named, and no new user is left with any', async () => {
    const fresh = await loginOf();
    const provider = open({ privileges: unknown });
    const error = await failureOf(provider.createUser(fresh, holding));
    expect([error.code, error.effect]).toEqual(['ROLE_UNKNOWN', 'none']);
    expect(error.message).toContain('the access control that the spec declares was refused');
    expect(await database.users()).not.toContain(fresh.username);
  });

  const everything: VultrAcl = { categories: ['+@all'], commands: [], keys: ['*'], channels: ['*'] };
  test.each<[string, VultrAcl, VultrAcl]>([
    ['everything', everything, everything],
    ['more keys', { ...lists, keys: [...lists.keys, 'others:*'] }, lists],
    ['nothing too much', lists, lists],
  ])(
    'that Vultr does not know do not keep from a user who holds %s what is too much, unless nothing would be left',
    async (_what, held, left) => {
      const login = await born();
      await vultr.actor.setAccessControl(login.username, held);
      const sent = calls('setAccessControl').length;
      const work = open({ privileges: unknown }).applyPrivileges(login, holding);
      expect(await codeOf(work)).toBe(`ROLE_UNKNOWN ${held === left ? 'none' : 'applied'}`);
      expect(database.recorded(login.username)).toEqual(left);
      expect(calls('setAccessControl').length - sent).toBe(held === left ? 1 : 2);
    },
  );

  test.each<[string, VultrAcl, Partial<VultrAcl>]>([
    ['where it holds everything', everything, {}],
    ['where a right is to be taken away', lists, { commands: ['-get'] }],
  ])('that Vultr does not know leave an idle user none %s', async (_what, held, declared) => {
    const login = await born();
    await vultr.actor.setAccessControl(login.username, held);
    const change = { username: login.username, current: [], next: (await loginOf()).password, isIdle: true };
    const work = open({ privileges: { ...unknown, ...declared } }).setPassword(change, holding);
    expect(await codeOf(work)).toBe('ROLE_UNKNOWN applied');
    expect(database.recorded(login.username)).toEqual(nothing);
  });

  test('are the declared ones before an idle user gets its password', async () => {
    const login = await born();
    const change = { username: login.username, current: [], next: another, isIdle: true };
    await open().setPassword(change, holding);
    expect(calls().flatMap(({ operation }) => (/^set/.test(operation) ? [operation] : []))).toEqual([
      'setAccessControl',
      'setPassword',
    ]);
    expect(await open().privilegeDifferences(login)).toEqual([]);
  });

  test('that were accepted and never recorded are not said to be right', async () => {
    const login = await born();
    inject({ operation: 'setAccessControl', kind: 'pretend' });
    await expect(open().applyPrivileges(login, holding)).rejects.toThrow(
      expect.objectContaining({
        code: 'PRIVILEGES_DIFFER',
        message: expect.stringContaining('category +@all is held but not declared'),
      }),
    );
  });

  test('that somebody changed are found, and put right again', async () => {
    const login = await made();
    await vultr.actor.setAccessControl(login.username, { ...declared, keys: ['*'] });
    expect(await open().privilegeDifferences(login)).toEqual([
      'key pattern orders:* is declared but not held',
      'key pattern * is held but not declared',
    ]);
    await open().applyPrivileges(login, holding);
    expect(await open().privilegeDifferences(login)).toEqual([]);
  });

  test('need no login: they are right where the database cannot be reached', async () => {
    const login = await born();
    vendors().faultLogins(front(), { kind: 'no-answer' });
    await open().applyPrivileges(login, holding);
    expect(await open().privilegeDifferences(login)).toEqual([]);
    expect(vultrValkey.capabilities.privilegesNeedLogin).toBe(false);
  });

  test('of a user who is not there are not compared', async () => {
    expect(await codeOf(open().privilegeDifferences(await loginOf()))).toBe('NOT_FOUND none');
    expect(await codeOf(open().applyPrivileges(await loginOf(), holding))).toBe('NOT_FOUND none');
  });
});

describe('deleting a user at Vultr', () => {
  test('addresses the user and nothing above', async () => {
    const { username } = await made();
    await open().deleteUser(username, holding);
    expect(calls('deleteUser')).toMatchObject([
      { method: 'DELETE', path: `/v2/databases/${databaseId}/users/${username}`, query: {} },
    ]);
  });

  test.each([400, 404, 422] as const)(
    'whom somebody deleted in between (%d) is done',
    async (missingUser) => {
      const { username } = await made();
      set({ missingUser });
      const run = () => vultr.actor.deleteUser(username);
      inject({ operation: 'deleteUser', kind: 'meanwhile', when: 'before', run });
      expect(await open().deleteUser(username, holding)).toBe('deleted');
    },
  );

  test('ends the connections of the user', async () => {
    const login = await made();
    const client = await vendors().connectToValkey(login);
    await open().deleteUser(login.username, holding);
    await expect(client.call('GET', 'orders:latest')).rejects.toThrow();
  });

  test('that is refused is not tried again', async () => {
    const { username } = await made();
    inject({ operation: 'deleteUser', kind: 'status', status: 400, json: { error: 'no' }, ...always });
    expect(await codeOf(open().deleteUser(username, holding))).toBe('REJECTED none');
    expect(calls('deleteUser')).toHaveLength(1);
  });
});

describe('what Vultr says when it refuses', () => {
  const missing = [400, 404, 422] as const;
  const cases = missing.flatMap((status) =>
    ['Not a valid Database Subscription UUID', 'invalid database ID'].map((error) => ({ status, error })),
  );
  test.each(cases)(
    'that the database is missing ($status, $error) is no missing user',
    async ({ status, error }) => {
      set({ missingDatabase: { status, error } });
      const provider = open({ id: '99999999-9d0c-4a53-8a2e-5b1f7c3d9e21' });
      const login = await loginOf();
      for (const work of [
        () => provider.readiness(),
        () => provider.listUsers(),
        () => provider.createUser(login, holding),
        () => provider.deleteUser(login.username, holding),
        () => provider.privilegeDifferences(login),
      ]) {
        const failure = await failureOf(work());
        expect([failure.code, failure.effect, failure.facts.status]).toEqual(['NOT_FOUND', 'none', status]);
        expect(failure.message).toContain(`(${error}); check the target`);
      }
    },
  );

  const bodies: readonly VultrSwitches['errorBody'][] = [
    'error',
    'error-and-status',
    'empty',
    'html',
    'text',
  ];
  test.each(bodies)('with a body of the kind %s is understood by its status', async (errorBody) => {
    set({ errorBody });
    expect(
      await codeOf(open().setPassword({ username: freshName(), current: [], next: another }, holding)),
    ).toBe('NOT_FOUND none');
    expect(await open().createUser(await loginOf(), holding)).toBe('created');
    const { username } = await made();
    const run = () => vultr.actor.deleteUser(username);
    inject({ operation: 'deleteUser', kind: 'meanwhile', when: 'before', run });
    expect(await open().deleteUser(username, holding)).toBe('deleted');
  });

  test.each([401, 403] as const)(
    'the address under %d, names the address, and never means absence',
    async (refusedKey) => {
      const login = await made();
      set({ refusedKey });
      vultr.actor.allowAddress(false);
      for (const work of [
        () => open().listUsers(),
        () => open().createUser(login, holding),
        () => open().deleteUser(login.username, holding),
      ]) {
        const error = await failureOf(work());
        expect([error.code, error.effect, error.facts.status]).toEqual(['UNAUTHORIZED', 'none', refusedKey]);
        expect(error.message).toContain(
          'Your IP (127.0.0.1) is not authorized to use this API key; the key or the address it came from is refused',
        );
      }
      expect(await database.users()).toContain(login.username);
    },
  );

  test.each([7, undefined])(
    'with a 503 (Retry-After %s), that it was asked too often',
    async (retryAfter) => {
      set({ limit: 1, rateLimited: { status: 503, retryAfter } });
      vendors().clock.move(1_000);
      await open().listUsers();
      const [waited = 0] = vendors().waits;
      expect(waited).toBeGreaterThanOrEqual(retryAfter === undefined ? 500 : 7_000);
    },
  );

  test('is waited for where thirty calls a second were too many', async () => {
    set({ limit: 1 });
    vendors().clock.move(1_000);
    expect(await open().listUsers()).not.toEqual([]);
    expect(vendors().waits).not.toEqual([]);
  });
});

describe('a login to Vultr', () => {
  test('is AUTH alone, so that a user without any right is accepted', async () => {
    const login = await born();
    await vultr.actor.setAccessControl(login.username, {
      categories: ['-@all'],
      commands: [],
      keys: [],
      channels: [],
    });
    expect(await open().verify(login)).toBe('accepted');
  });

  test('is rejected for a user that may not log in', async () => {
    const login = await made();
    await vultr.actor.allowLogins(login.username, false);
    expect(await open().verify(login)).toBe('rejected');
    await vultr.actor.allowLogins(login.username, true);
    expect(await open().verify(login)).toBe('accepted');
  });

  test('is rejected where the engine says WRONGPASS', async () => {
    const login = await made();
    vendors().faultLogins(front(), { kind: 'password-refused', times: 1 });
    expect(await open().verify(login)).toBe('rejected');
    expect(await open().verify(login)).toBe('accepted');
  });

  const unclear: readonly ValkeyLoginFaultKind[] = [
    'no-answer',
    'reset',
    'loading',
    'too-many-connections',
    'unknown-command',
    'garbage',
  ];
  test.each(unclear)('that meets %s is no rejection', async (kind) => {
    const login = await made();
    for (const fault of [{ kind }, { kind, user: login.username }]) {
      vendors().faultLogins(front(), fault);
      await expect(open().verify(login)).rejects.toThrow(
        expect.objectContaining({ name: 'VerificationFailed', code: 'LOGIN_UNREACHABLE' }),
      );
      front().faults.clear();
    }
  });
});

describe('sessions at Vultr', () => {
  const connected = async (login: Login, name: string) => {
    const client = await vendors().connectToValkey(login);
    await client.call('CLIENT', 'SETNAME', name);
    return client;
  };

  test('are told by name, address and start, and our own look is none', async () => {
    const login = await made();
    await connected(login, 'orders-api');
    await connected(login, 'orders-worker');
    await connected(await made(), 'somebody-else');
    await open().verify(login);
    const seen = async () => {
      const sessions = await open().sessions(login.username, login);
      if (!sessions.observed || typeof sessions.open === 'number') return sessions;
      return sessions.open
        .map(({ applicationName, clientAddress, startedAt }) => [
          applicationName,
          /^127\.0\.0\.1:\d+$/.test(clientAddress),
          startedAt instanceof Date,
        ])
        .sort();
    };
    // The server needs a moment to let go of a session that has left.
    await expect.poll(seen).toEqual([
      ['orders-api', true, true],
      ['orders-worker', true, true],
    ]);
  });

  test('of nobody are none', async () => {
    const login = await made();
    await expect.poll(() => open().sessions(login.username, login)).toEqual({ observed: true, open: [] });
  });

  const blind: Record<
    string,
    { given: (login: Login) => Promise<Login>; reason: string | RegExp; isUnreachable?: true }
  > = {
    'the user may not list clients': {
      given: async (login) => {
        await vultr.actor.setAccessControl(login.username, { ...declared, commands: [] });
        return login;
      },
      reason: 'CLIENT LIST was answered with NOPERM; declare the command +client|list to see sessions',
    },
    'the password no longer works': {
      given: async (login) => ({ ...login, password: another }),
      reason: /^orders_\d+ could not log in to look$/,
    },
    'the engine cannot be reached': {
      given: async (login) => {
        vendors().faultLogins(front(), { kind: 'reset' });
        return login;
      },
      reason: /^no session with localhost:\d+ \(/,
      isUnreachable: true,
    },
  };
  test.each(Object.entries(blind))(
    'are not said to be none where %s',
    async (_why, { given, reason, ...more }) => {
      const login = await made();
      await connected(login, 'orders-api');
      const sessions = await open().sessions(login.username, await given(login));
      expect(sessions).toEqual({
        observed: false,
        reason: typeof reason === 'string' ? reason : expect.stringMatching(reason),
        ...more,
      });
    },
  );

  const replies: Record<string, { value: unknown; want: object }> = {
    'lines of an older engine, without fields that newer ones have': {
      value: 'id=3 addr=192.0.2.7:1 cmd=get user=USER\nid=4 addr=192.0.2.7:2 cmd=client user=USER\n',
      want: { observed: true, open: [{ applicationName: '', clientAddress: '192.0.2.7:1' }] },
    },
    'a library’s name where the application gave none': {
      value: 'id=3 addr=192.0.2.7:1 name= lib-name=valkey-py age=60 cmd=get user=USER\n',
      want: {
        observed: true,
        open: [{ applicationName: 'valkey-py', clientAddress: '192.0.2.7:1', startedAt: expect.any(Date) }],
      },
    },
    'lines that name no users': {
      value: 'id=3 addr=192.0.2.7:1 cmd=get\n',
      want: { observed: false, reason: 'CLIENT LIST does not say who is connected as whom' },
    },
    'something that is no text': {
      value: 7,
      want: { observed: false, reason: 'CLIENT LIST was answered with something else than lines' },
    },
  };
  test.each(Object.entries(replies))('are understood from %s', async (_what, { value, want }) => {
    const login = await made();
    const told = typeof value === 'string' ? value.replaceAll('USER', login.username) : value;
    const refused = { error: 'NOPERM User x has no permissions' };
    const valkey: Ports['valkey'] = async () => ({ say: 'accepted', replies: [refused, { value: told }] });
    expect(await open({ valkey }).sessions(login.username, login)).toEqual(want);
  });
});

describe('sessions at Vultr of intruders', () => {
  const intrude = async (login: Login) => {
    const client = await vendors().connectToValkey(login);
    await client.call('CLIENT', 'SETNAME', 'rekey');
    await client.call('CLIENT', 'LIST');
    return client;
  };
  const mightier = {
    ...declared,
    commands: ['+client|list', '+client|kill', '+client|setname', '+client|id'],
  };
  const counted = async (login: Login) => {
    const seen = await open().sessions(login.username, login);
    return seen.observed && typeof seen.open !== 'number' ? seen.open.length : seen;
  };

  test('are counted, whatever they call themselves and whatever they run', async () => {
    const login = await made();
    await intrude(login);
    await intrude(login);
    await expect.poll(() => counted(login)).toBe(2);
    await vultr.actor.setAccessControl(login.username, mightier);
    await expect.poll(() => counted(login)).toBe(2);
  });

  test('are ended, and counted until they are', async () => {
    const login = await made();
    await vultr.actor.setAccessControl(login.username, mightier);
    const client = await intrude(login);
    const closed = new Promise((resolve) => client.once('close', resolve));
    const now = vendors().clock.now();
    expect(await open().endSessions(login.username, login, now, holding)).toEqual({ ended: true });
    await closed;
    await expect.poll(() => counted(login)).toBe(0);
  });
});

describe('sessions of a database at Vultr that has replicas', () => {
  test('are told with what is not seen, and not said to have ended', async () => {
    const login = await made();
    await vultr.actor.setAccessControl(login.username, {
      ...declared,
      commands: ['+client|list', '+client|kill'],
    });
    set({ readReplicas: 2 });
    expect(await open().sessions(login.username, login)).toMatchObject({
      observed: true,
      unseen: 'connections to its 2 read replicas are not shown',
    });
    const now = vendors().clock.now();
    expect(await open().endSessions(login.username, login, now, holding)).toEqual({
      ended: false,
      reason: 'connections to its 2 read replicas cannot be ended',
    });
  });

  test.each([[[]], [{}], [null], [undefined]])(
    'are all of them where the replicas are %j',
    async (read_replicas) => {
      const login = await made();
      const known = { status: 'Running', database_engine: 'valkey', user: 'default' };
      const { host, port, ca } = login;
      const json = { database: { ...known, host, port, ca_certificate: ca, read_replicas } };
      inject({ operation: 'getDatabase', kind: 'status', status: 200, json });
      expect(await open().sessions(login.username, login)).not.toHaveProperty('unseen');
    },
  );
});

describe('sessions at Vultr seen with another user’s login', () => {
  test('are all there: only the connection that asks is left out, and it is not theirs', async () => {
    const [gone, current] = [await made(), await made()];
    const line = `id=3 addr=192.0.2.7:1 cmd=client|list user=${gone.username}\n`;
    const own = `id=4 addr=192.0.2.7:2 cmd=client|list user=${current.username}\n`;
    const replies = [{ value: 4 }, { value: line + own }];
    const valkey: Ports['valkey'] = async () => ({ say: 'accepted', replies });
    expect(await open({ valkey }).sessions(gone.username, current)).toEqual({
      observed: true,
      open: [{ applicationName: '', clientAddress: '192.0.2.7:1' }],
    });
  });

  test('are not said to be none where that user may not list clients', async () => {
    const [gone, current] = [await made(), await made()];
    await vendors().connectToValkey(gone);
    await vultr.actor.setAccessControl(current.username, { ...declared, commands: [] });
    expect(await open().sessions(gone.username, current)).toEqual({
      observed: false,
      reason: 'CLIENT LIST was answered with NOPERM; declare the command +client|list to see sessions',
    });
  });
});

describe('a spec for Vultr', () => {
  const spec = {
    name: 'orders-valkey',
    provider: 'vultr-valkey',
    target: { databaseId },
    apiKeySecret: 'rekey/api-keys/vultr',
    usernamePrefix: 'orders',
    privileges: { categories: ['+@read'], keys: ['orders:*'] },
  };
  const faultsOf = async (change: object): Promise<string> =>
    parseSpec({ ...spec, ...change }, { loadProvider, loadConsumer }).then(
      () => 'fine',
      (error: Error) => error.message,
    );

  test('says what a user may do, and to which keys; the rest is nothing', async () => {
    expect((await parseSpec(spec, { loadProvider, loadConsumer })).privileges).toEqual({
      categories: ['+@read'],
      commands: [],
      keys: ['orders:*'],
      channels: [],
    });
  });

  test('may leave the login out, as rights are applied through the API', async () => {
    expect(await faultsOf({ verify: 'none' })).toBe('fine');
  });

  const wrong: Record<string, { given: object; says: RegExp }> = {
    'no rights at all: nothing said might mean everything': {
      given: { privileges: {} },
      says: /privileges\.categories: .*privileges\.keys: /,
    },
    'empty lists, which might mean everything as well': {
      given: { privileges: { categories: [], keys: [] } },
      says: /categories: expected at least one category.*keys: expected at least one pattern/,
    },
    'a category without its sign': {
      given: { privileges: { ...spec.privileges, categories: ['@read'] } },
      says: /privileges\.categories\.0: expected a category with \+@ or -@ in front/,
    },
    'a command without its sign': {
      given: { privileges: { ...spec.privileges, commands: ['get'] } },
      says: /privileges\.commands\.0: expected a command with/,
    },
    'a rule that is granted and taken': {
      given: { privileges: { ...spec.privileges, commands: ['+get', '-get'] } },
      says: /privileges\.commands: expected no rule that is both granted and taken/,
    },
    'a key in Valkey’s own spelling': {
      given: { privileges: { ...spec.privileges, keys: ['~orders:*'] } },
      says: /privileges\.keys\.0: expected a glob pattern without ~/,
    },
    'a channel with a blank': {
      given: { privileges: { ...spec.privileges, channels: ['a b'] } },
      says: /privileges\.channels\.0: expected a glob pattern/,
    },
    'a field that there is not': {
      given: { privileges: { ...spec.privileges, roles: ['admin'] } },
      says: /privileges: unrecognized key/,
    },
    'a database that is no UUID': {
      given: { target: { databaseId: '..' } },
      says: /target\.databaseId: expected the UUID of the database/,
    },
  };
  test.each(Object.entries(wrong))('is refused with %s', async (_what, { given, says }) => {
    expect(await faultsOf(given)).toMatch(says);
  });
});

test('a consumer gets a URL that holds the login, whatever is in it', () => {
  const login = {
    ...{ host: 'vultr-prod-7f3a.vultrdb.com', port: 16752, database: '0', username: 'orders_api' },
    password: new Sensitive('p@ss/w:rd?#%'),
  };
  expect(vultrValkey.ready(login)).toEqual({
    url: 'rediss://orders_api:p%40ss%2Fw%3Ard%3F%23%25@vultr-prod-7f3a.vultrdb.com:16752/0',
  });
  expect(vultrValkey.engine).toBe('valkey');
});

describe('ending sessions at Vultr', () => {
  const longAgo = new Date('2000-01-01T00:00:00Z');
  /** What the engine is asked, with the replies that it gives. */
  const asking = (...replies: readonly (readonly ValkeyReply[])[]) => {
    const asked: (readonly string[])[] = [];
    let next = 0;
    const valkey: Ports['valkey'] = async ({ commands }) => {
      asked.push(...commands);
      next = Math.min(next + 1, replies.length);
      return { say: 'accepted', replies: replies[next - 1] ?? [] };
    };
    return { asked, provider: open({ valkey }) };
  };

  /** A user that may end connections. */
  const mighty = async (): Promise<Login> => {
    const login = await made();
    const provider = open({ privileges: { ...declared, commands: ['+client|list', '+client|kill'] } });
    await provider.applyPrivileges(login, holding);
    return login;
  };

  test('ends all of a user that nobody can use any more, and its own connection last', async () => {
    const login = await mighty();
    const client = await vendors().connectToValkey(login);
    const closed = new Promise((resolve) => client.once('close', resolve));
    const now = vendors().clock.now();
    expect(await open().endSessions(login.username, login, now, holding)).toEqual({ ended: true });
    await closed;
    expect(await open().verify(login)).toBe('accepted');
  });

  test('spares who connected after the switch, which only the age tells', async () => {
    const login = await mighty();
    const client = await vendors().connectToValkey(login);
    expect(await open().endSessions(login.username, login, longAgo, holding)).toEqual({ ended: true });
    expect(await client.call('GET', 'orders:none')).toBeNull();
  });

  test('asks with MAXAGE, in whole seconds since then', async () => {
    const login = await made();
    const { asked, provider } = asking([{ value: 2 }], [{ value: 9 }, { value: '' }]);
    const then = new Date(vendors().clock.now().getTime() - 90_500);
    expect(await provider.endSessions(login.username, login, then, holding)).toEqual({ ended: true });
    expect(asked).toEqual([
      ['CLIENT', 'KILL', 'USER', login.username, 'MAXAGE', expect.stringMatching(/^9[01]$/)],
      ['CLIENT', 'ID'],
      ['CLIENT', 'LIST'],
    ]);
  });

  test('is not said to be done while a look still finds one, or none may look', async () => {
    const login = await made();
    const line = `id=7 addr=192.0.2.7:1 name=rekey age=300 cmd=get user=${login.username}`;
    const then = new Date(vendors().clock.now().getTime() - 60_000);
    const stubborn = asking([{ value: 0 }], [{ value: 9 }, { value: line }]).provider;
    expect(await stubborn.endSessions(login.username, login, then, holding)).toEqual({
      ended: false,
      reason: '1 session that was opened before is still open',
    });
    const blind = asking([{ value: 1 }], [{ error: 'NOPERM' }, { error: 'NOPERM' }]).provider;
    expect(await blind.endSessions(login.username, login, then, holding)).toEqual({
      ended: false,
      reason: expect.stringContaining('they may not have ended: CLIENT LIST was answered with NOPERM'),
    });
  });

  test('is not said to be done where an old connection runs CLIENT LIST as well: only the youngest can be the asking one', async () => {
    const login = await made();
    const line = (id: number, age: number) =>
      `id=${id} addr=192.0.2.${id}:1 age=${age} cmd=client|list user=${login.username}`;
    const refused = { error: 'NOPERM User x has no permissions' };
    const list = { value: [line(7, 300), line(9, 0), line(8, 0)].join('\n') };
    const { provider } = asking([{ value: 0 }], [refused, list]);
    const then = new Date(vendors().clock.now().getTime() - 60_000);
    expect(await provider.endSessions(login.username, login, then, holding)).toEqual({
      ended: false,
      reason: '1 session that was opened before is still open',
    });
    const seen = await asking([refused, list]).provider.sessions(login.username, login);
    if (!seen.observed || typeof seen.open === 'number') throw new Error('expected each session');
    expect(seen.open.map(({ clientAddress }) => clientAddress)).toEqual(['192.0.2.7:1', '192.0.2.8:1']);
  });

  test('goes one by one where the engine is older than MAXAGE', async () => {
    const login = await made();
    const line = (id: number, age: number, user = login.username) =>
      `id=${id} addr=192.0.2.7:1 age=${age} cmd=get user=${user}`;
    // Nobody is spared: one that runs CLIENT LIST itself, and one that does not say how old it is.
    const listing = `id=11 addr=192.0.2.7:1 cmd=client|list user=${login.username}`;
    const { asked, provider } = asking(
      [{ error: 'ERR syntax error' }],
      [{ value: [line(7, 300), line(8, 10), line(9, 400, 'somebody'), listing].join('\n') }],
      [{ value: 1 }, { value: 1 }],
      [{ value: 12 }, { value: line(8, 10) }],
    );
    const then = new Date(vendors().clock.now().getTime() - 60_000);
    expect(await provider.endSessions(login.username, login, then, holding)).toEqual({ ended: true });
    expect(asked.slice(1)).toEqual([
      ['CLIENT', 'LIST'],
      ['CLIENT', 'KILL', 'ID', '7'],
      ['CLIENT', 'KILL', 'ID', '11'],
      ['CLIENT', 'ID'],
      ['CLIENT', 'LIST'],
    ]);
  });

  test.each(['NOPERM User x has no permissions', "ERR unknown command 'CLIENT'"])(
    'says so where the engine answers %s',
    async (error) => {
      const login = await made();
      expect(await asking([{ error }]).provider.endSessions(login.username, login, longAgo, holding)).toEqual(
        {
          ended: false,
          reason: expect.stringMatching(/^CLIENT KILL was answered with (NOPERM|ERR); declare/),
        },
      );
    },
  );
});

test('the target of a stored login is its database', () => {
  expect(vultrValkey.targetOf({ targetId: databaseId, database: '0' })).toEqual({ databaseId });
});
