import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { interpose, type Ports } from '../../functions/core/ports.ts';
import type { IssuingProvider, Login } from '../../functions/core/provider.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { renderPostgres } from '../../functions/providers/render-postgres/provider.ts';
import type { Fault } from '../../infra/local/providers/faults.ts';
import { addRenderOrders } from '../../infra/local/providers/fixtures.ts';
import type {
  RenderDatabase,
  RenderOperation,
  RenderPostgres,
  RenderSwitches,
} from '../../infra/local/providers/render-postgres.ts';
import { holding, useTestVendors } from '../support/vendors.ts';
import {
  codeOf,
  failureOf,
  freshName,
  type IssuingSubject,
  issuingContract,
  type OpenOptions,
  type Operation,
  providerContract,
  type SqlSubject,
  sqlContract,
} from './contract.ts';

const vendors = useTestVendors();
let render: RenderPostgres;
let database: RenderDatabase;
let before = 0;
beforeAll(async () => {
  render = vendors().render.api;
  database = await addRenderOrders(render, vendors().render.postgres);
});
beforeEach(() => {
  render.actor.resume(database.id);
  before = render.calls.length;
});

/** What the vendor was asked in this test, oldest first. */
const calls = (operation?: RenderOperation) =>
  render.calls.slice(before).filter((call) => operation === undefined || call.operation === operation);
const inject = (fault: Fault<RenderOperation>): void => render.faults.inject(fault);

const open = ({
  budgetMs = 180_000,
  apiKey = vendors().apiKeys.render,
  http,
  sql,
  around = (_name, _request, call) => call(),
  postgresId = database.id,
}: OpenOptions & { postgresId?: string } = {}): IssuingProvider => {
  const { clock, ports } = vendors();
  const until = new Date(clock.now().getTime() + budgetMs);
  const replaced: Partial<Ports> = {
    ...(http === undefined ? {} : { http }),
    ...(sql === undefined ? {} : { sql }),
  };
  const provider = renderPostgres.open(
    { target: { postgresId }, privileges: {}, apiKey: new Sensitive(apiKey), until },
    interpose(ports(until, replaced), around),
  );
  if (provider.passwords !== 'chosen-by-provider') throw new Error('Render makes the passwords');
  return vendors().watch(provider);
};

const issue = async (provider = open(), username = freshName()): Promise<Login> => {
  const login = await provider.issueUser(username, holding);
  if (login === 'lost') throw new Error(`the password of ${username} is lost, expected a login`);
  return login;
};
/** Somebody makes another user, which becomes the default. */
const overtake = async (): Promise<string> => {
  const username = `${freshName()}_by_hand`;
  await render.actor.createUser(database.id, username);
  return username;
};
const anotherDatabase = () =>
  render.addDatabase({ name: freshName(), originalUser: `${freshName()}_original` });
const userOf = (username: string) => database.users().find((user) => user.username === username);
/** The list is empty so many times, as if it were older than every user. */
const listIsStale = (skip = 0, times = 1): void =>
  inject({ operation: 'listUsers', kind: 'status', status: 200, json: [], skip, times });

const operations: Record<Exclude<Operation, 'setPassword'>, RenderOperation> = {
  readiness: 'getDatabase',
  list: 'listUsers',
  create: 'createUser',
  remove: 'deleteUser',
};
const operationOf = (operation: Operation): RenderOperation => {
  if (operation === 'setPassword') throw new Error('Render sets no passwords');
  return operations[operation];
};

const states = [
  'creating',
  'unavailable',
  'config_restart',
  'maintenance_scheduled',
  'maintenance_in_progress',
  'recovery_failed',
  'recovery_in_progress',
  'unknown',
  'updating_instance',
  'a_state_of_tomorrow',
];

const subject = (): IssuingSubject & SqlSubject<IssuingProvider> => ({
  vendors: vendors(),
  host: 'api.render.com',
  front: vendors().render.front,
  engine: vendors().render.postgres,
  open,
  bring: (provider, username) => issue(provider, username),
  async supersede() {
    vendors().clock.move(1_000);
    await overtake();
  },
  inject: (operation, trouble) => inject({ ...trouble, operation: operationOf(operation) }),
  calls: (operation) => calls(operationOf(operation)).length,
  usernames: async () => database.users().map(({ username }) => username),
  deletedBySomebody: (username) => render.actor.deleteUser(database.id, username),
  listIsStale,
  listLagsMs(ms) {
    render.switches.delays.userUnlisted = { ms };
  },
  alsoListed(names) {
    render.switches.hostileNames = names;
  },
  protectedUsers: () =>
    database
      .users()
      .filter(({ isDefault }) => isDefault)
      .map(({ username }) => username),
  notReady: {
    ...Object.fromEntries(
      states.map((status) => [
        `status ${status}`,
        {
          given: () => render.actor.setStatus(database.id, status),
          reason: `its status is ${status}`,
        },
      ]),
    ),
    suspended: { given: () => render.actor.suspend(database.id), reason: 'it is suspended' },
  },
  rateLimitStatuses: [429],
  linger: (login) => vendors().connect(login, 'orders-api'),
  capabilities: renderPostgres.capabilities,
  readsCount: false,
  defaultUser: () => database.users().find(({ isDefault }) => isDefault)?.username,
  passwordReads: () => calls('connectionInfo').length,
  ending: open,
  blind() {
    render.switches.openConnections = 'missing';
    inject({ operation: 'listProcesses', kind: 'status', status: 500, times: Number.POSITIVE_INFINITY });
  },
});

providerContract('render-postgres', subject);
sqlContract('render-postgres', subject);
issuingContract('render-postgres', subject);

describe('issuing a user at Render', () => {
  test('looks twice, makes sure that the database is up, posts once, and reads the password once', async () => {
    await issue();
    expect(calls().map(({ operation }) => operation)).toEqual([
      'listUsers',
      'listUsers',
      'getDatabase',
      'createUser',
      'listUsers',
      'connectionInfo',
    ]);
  });

  test('reads host, port, database and password from one answer', async () => {
    const login = await issue();
    expect(login).toEqual({
      host: 'localhost',
      port: vendors().render.front.port,
      database: database.databaseName,
      username: login.username,
      password: login.password,
    });
    expect(login.password.reveal()).toMatch(/^[A-Za-z0-9]{32}$/);
  });

  test.each(states)('does not start while the status is %s', async (status) => {
    render.actor.setStatus(database.id, status);
    const error = await failureOf(open().issueUser(freshName(), holding));
    expect([error.code, error.effect]).toEqual(['TARGET_NOT_READY', 'none']);
    expect(error.message).toContain(`${database.id} is not ready: its status is ${status}`);
    expect(calls('createUser')).toEqual([]);
  });

  test('does not start on a replica, whose users are those of the primary', async () => {
    const replica = render.addReplica(database.id);
    expect(await open({ postgresId: replica.id }).readiness()).toEqual({
      ready: false,
      reason: 'its role is replica; users are managed on the primary',
    });
    expect(await codeOf(open({ postgresId: replica.id }).issueUser(freshName(), holding))).toMatch(
      /^(TARGET_NOT_READY|REJECTED) none$/,
    );
    expect(calls('createUser')).toEqual([]);
  });

  test('goes on when the database stops being up once the user was accepted', async () => {
    inject({
      operation: 'createUser',
      kind: 'meanwhile',
      run: async () => render.actor.changePlan(database.id, 'pro_4gb'),
    });
    expect(await open().verify(await issue())).toBe('accepted');
  });

  const slowness: Record<string, Partial<RenderSwitches['delays']>> = {
    'is listed late': { userListed: { ms: 30_000 } },
    'is listed before it is the default': { listedDefault: { ms: 30_000 } },
    'is the default before its password can be read': { connectionInfo: { ms: 30_000 } },
    'can be read before the list knows': { userListed: { ms: 30_000 }, listedDefault: { ms: 40_000 } },
    'settles everywhere at another time': {
      userListed: { ms: 5_000 },
      listedDefault: { ms: 15_000 },
      connectionInfo: { ms: 25_000 },
      databaseUser: { ms: 35_000 },
    },
    'settles after some polls': {
      userListed: { polls: 3 },
      listedDefault: { polls: 5 },
      connectionInfo: { polls: 2 },
    },
  };
  test.each(Object.entries(slowness))(
    'waits for a user that %s, and takes nobody else’s password for its own',
    async (_how, delays) => {
      await overtake();
      Object.assign(render.switches.delays, delays);
      const login = await issue();
      expect(await open().verify(login)).toBe('accepted');
      expect(calls('createUser')).toHaveLength(1);
    },
  );

  test('reads the password, which Render’s audit log shows, only once the list calls the user the default', async () => {
    render.switches.delays.listedDefault = { ms: 60_000 };
    await issue();
    expect(calls('connectionInfo')).toHaveLength(1);
  });

  test('reads the password ever more rarely where it is shown late', async () => {
    render.switches.delays.connectionInfo = { ms: 110_000 };
    await issue();
    expect(calls('connectionInfo').length).toBeLessThanOrEqual(20);
  });

  test('gives up within its time where the password is never shown, and finds the user next time', async () => {
    render.switches.delays.connectionInfo = { ms: 200_000 };
    const username = freshName();
    const error = await failureOf(open().issueUser(username, holding));
    expect([error.code, error.effect]).toEqual(['NOT_SETTLED', 'applied']);
    expect(error.message).toContain(`${username} is listed, but its password is not readable yet`);
    vendors().clock.move(100_000);
    expect(await open().verify(await issue(open(), username))).toBe('accepted');
    expect(calls('createUser')).toHaveLength(1);
  });

  test('ends before the invocation does', async () => {
    render.switches.delays.userListed = { ms: 86_400_000 };
    const start = vendors().clock.now().getTime();
    expect(await codeOf(open({ budgetMs: 20_000 }).issueUser(freshName(), holding))).toBe(
      'NOT_SETTLED unknown',
    );
    expect(vendors().clock.now().getTime() - start).toBeLessThanOrEqual(20_000);
  });

  test('reads again where the password field and the string disagree', async () => {
    render.switches.passwordMismatches = 2;
    await issue();
    expect(calls('connectionInfo')).toHaveLength(3);
  });

  test('does not claim a user that was accepted and never appears, and does not post twice', async () => {
    inject({ operation: 'createUser', kind: 'pretend' });
    const username = freshName();
    const error = await failureOf(open().issueUser(username, holding));
    expect([error.code, error.effect]).toEqual(['NOT_SETTLED', 'unknown']);
    expect(error.message).toContain(`${username} is not listed yet`);
    expect(calls('createUser')).toHaveLength(1);
  });

  const accepted: Record<string, Partial<Fault<RenderOperation>> & { status: number }> = {
    'without a body': { status: 202 },
    'with a message': { status: 202, json: { message: 'PostgreSQL user created successfully' } },
    'with a list': { status: 200, json: [] },
    'with a text': { status: 201, text: 'ok' },
    'with no content at all': { status: 204 },
  };
  test.each(Object.entries(accepted))('takes every success for a success: %s', async (_how, answer) => {
    inject({ ...answer, operation: 'createUser', kind: 'status', applied: true });
    expect(await open().verify(await issue())).toBe('accepted');
  });

  const oddities: Record<string, Partial<RenderSwitches>> = {
    'no "default" in the list': { defaultFlag: 'missing' },
    'no "openConnections" in the list': { openConnections: 'missing' },
    'the original user never listed': { originalListed: 'never' },
    'the original user always listed': { originalListed: 'always' },
    'ipAllowList null': { ipAllowList: 'null' },
    'no connectionPool': { connectionPool: 'missing' },
    'pool strings': { poolStrings: true },
    'the scheme postgres': { scheme: 'postgres' },
    'timestamps of 8 digits': { fractionDigits: 8 },
    'timestamps of 9 digits': { fractionDigits: 9 },
  };
  test.each(Object.entries(oddities))('takes answers with %s', async (_what, switches) => {
    await overtake();
    Object.assign(render.switches, switches);
    expect(await open().verify(await issue())).toBe('accepted');
  });

  test('takes a list that names users and says nothing else', async () => {
    const username = freshName();
    const json = [
      { username: 'somebody' },
      { username, default: null, createdAt: null, openConnections: null },
    ];
    inject({ operation: 'listUsers', kind: 'status', status: 200, json, skip: 2, times: 10 });
    expect((await issue(open(), username)).username).toBe(username);
  });

  test('takes 5432 where the string has no port', async () => {
    render.switches.portInExternal = false;
    expect((await issue()).port).toBe(5432);
  });

  const duplicates: readonly RenderSwitches['duplicate'][] = [400, 409, 'silent', 'silent-new-password'];
  test.each(duplicates)(
    'finds its own user behind a stale list where a name in use is answered %s',
    async (duplicate) => {
      render.switches.duplicate = duplicate;
      const { username } = await issue();
      listIsStale(0, 2);
      expect(await open().verify(await issue(open(), username))).toBe('accepted');
      expect(database.users().filter((user) => user.username === username)).toHaveLength(1);
    },
  );

  const refusals: Record<string, { given: () => void; want: string; says: RegExp }> = {
    'a user quota': {
      given: () => {
        render.switches.userLimit = 0;
      },
      want: 'REJECTED none',
      says: /status 400 \(user limit reached\)/,
    },
    'a user quota without a code': {
      given: () => Object.assign(render.switches, { userLimit: 0, userLimitCode: false }),
      want: 'REJECTED none',
      says: /status 400 \(user limit reached\)/,
    },
    '406': {
      given: () => inject({ operation: 'createUser', kind: 'status', status: 406 }),
      want: 'REJECTED none',
      says: /status 406/,
    },
    '410': {
      given: () => inject({ operation: 'createUser', kind: 'status', status: 410 }),
      want: 'NOT_FOUND none',
      says: /status 410/,
    },
  };
  test.each(Object.entries(refusals))('reports %s as it is', async (_what, { given, want, says }) => {
    given();
    const error = await failureOf(open().issueUser(freshName(), holding));
    expect(`${error.code} ${error.effect}`).toBe(want);
    expect(error.message).toMatch(says);
    expect(calls('createUser')).toHaveLength(1);
  });

  test('finds the user again after the API key was refused in the middle of it', async () => {
    const username = freshName();
    inject({ operation: 'listUsers', kind: 'status', status: 401, skip: 2 });
    expect((await failureOf(open().issueUser(username, holding))).code).toBe('UNAUTHORIZED');
    expect(await open().verify(await issue(open(), username))).toBe('accepted');
    expect(calls('createUser')).toHaveLength(1);
  });

  test('shows no password where only half of it could be read', async () => {
    inject({ operation: 'connectionInfo', kind: 'half-json', times: Number.POSITIVE_INFINITY });
    expect(await codeOf(open().issueUser(freshName(), holding))).toBe('UNREADABLE none');
  });
});

describe('a default user that somebody else makes', () => {
  const rivals: Record<string, { given?: Partial<RenderSwitches>; laterMs: number }> = {
    'a second later': { laterMs: 1_000 },
    'at the same instant': { laterMs: 0 },
    'with timestamps of another precision': { given: { fractionDigits: 9 }, laterMs: 1_000 },
  };
  test.each(Object.entries(rivals))(
    '%s takes the password with it: lost, and no second user',
    async (_when, { given = {}, laterMs }) => {
      Object.assign(render.switches, given);
      const username = freshName();
      const run = async () => {
        vendors().clock.move(laterMs);
        await overtake();
      };
      inject({ operation: 'createUser', kind: 'meanwhile', run });
      expect(await open().issueUser(username, holding)).toBe('lost');
      expect(calls('createUser')).toHaveLength(1);
      expect(calls('connectionInfo')).toEqual([]);
      expect(userOf(username)).toMatchObject({ isDefault: false });
    },
  );

  test('between the list and the password is not taken for ours', async () => {
    const username = freshName();
    const run = async () => {
      vendors().clock.move(1_000);
      await overtake();
    };
    inject({ operation: 'connectionInfo', kind: 'meanwhile', when: 'before', run });
    expect(await open().issueUser(username, holding)).toBe('lost');
  });

  test('leaves our password readable again once ours is the default again', async () => {
    const { username } = await issue();
    vendors().clock.move(1_000);
    await overtake();
    expect(await open().issueUser(username, holding)).toBe('lost');
    await render.actor.makeDefault(database.id, username);
    expect(await open().verify(await issue(open(), username))).toBe('accepted');
  });
});

describe('deleting a user at Render', () => {
  const retired = async (): Promise<string> => {
    const { username } = await issue();
    await subject().supersede(username);
    return username;
  };

  test('addresses the user and nothing above', async () => {
    const username = await retired();
    await open().deleteUser(username, holding);
    expect(calls('deleteUser')).toMatchObject([
      { method: 'DELETE', path: `/v1/postgres/${database.id}/credentials/${username}` },
    ]);
  });

  test('is not tried on the default', async () => {
    const { username } = await issue();
    const error = await failureOf(open().deleteUser(username, holding));
    expect([error.code, error.effect]).toEqual(['BLOCKED', 'none']);
    expect(error.message).toContain(`${username} is a default, original or built-in user`);
    expect(calls('deleteUser')).toEqual([]);
  });

  test('that Render refuses names what to run before the next one', async () => {
    const login = await issue();
    const client = await vendors().connect(login, 'orders-api');
    await client.query(`CREATE TABLE ${login.username}_notes (t text)`);
    await subject().supersede(login.username);
    const { message } = await failureOf(open().deleteUser(login.username, holding, login));
    expect(message).toBe(
      `BLOCKED: render-postgres failed deleteUser: got status 400 (role ${login.username} cannot be dropped because some objects depend on it); it is the default user, or owns something: as a user who is a member of both roles run REASSIGN OWNED BY "${login.username}" TO <a role that stays> and take away what was granted to it, then the next pass deletes it`,
    );
  });

  test('is not tried where Render does not say who the default is', async () => {
    const username = await retired();
    render.switches.defaultFlag = 'missing';
    expect(await codeOf(open().deleteUser(username, holding))).toBe('BLOCKED none');
    expect(calls('deleteUser')).toEqual([]);
  });

  const defaults: Record<RenderSwitches['deleteDefault'], string> = {
    400: 'BLOCKED none',
    403: 'UNAUTHORIZED none',
    409: 'BLOCKED none',
    500: 'UNAVAILABLE unknown',
  };
  test.each(Object.entries(defaults))(
    'of a user that becomes the default in between, refused with %s, leaves it',
    async (status, want) => {
      render.switches.deleteDefault = Number(status) as RenderSwitches['deleteDefault'];
      const username = await retired();
      const run = () => render.actor.makeDefault(database.id, username);
      inject({ operation: 'deleteUser', kind: 'meanwhile', when: 'before', run });
      expect(await codeOf(open({ budgetMs: 30_000 }).deleteUser(username, holding))).toBe(want);
      expect(userOf(username)).toMatchObject({ isDefault: true });
      expect(calls('deleteUser')).toHaveLength(1);
    },
  );

  const outcomes: Record<string, Partial<RenderSwitches>> = {
    'ends live connections': { connectionsOfDeleted: 'ended' },
    'keeps live connections': { connectionsOfDeleted: 'kept' },
    'reassigns what the user owned': { ownedObjects: 'reassign' },
    'drops what the user owned': { ownedObjects: 'lost' },
  };
  test.each(Object.entries(outcomes))('is done where Render %s', async (_what, switches) => {
    Object.assign(render.switches, switches);
    const login = await issue();
    const client = await vendors().connect(login, 'orders-api');
    if (switches.ownedObjects !== undefined)
      await client.query(`CREATE TABLE ${login.username}_notes (t text)`);
    await subject().supersede(login.username);
    expect(await open().deleteUser(login.username, holding)).toBe('deleted');
    expect(userOf(login.username)).toBeUndefined();
  });

  test.each([200, 404] as const)(
    'of a user whom somebody deleted just before is done, answered %d',
    async (deleteAbsent) => {
      render.switches.deleteAbsent = deleteAbsent;
      const username = await retired();
      const run = () => render.actor.deleteUser(database.id, username);
      inject({ operation: 'deleteUser', kind: 'meanwhile', when: 'before', run });
      expect(await open().deleteUser(username, holding)).toBe('deleted');
    },
  );

  const originals: Record<RenderSwitches['originalListed'], string> = {
    'until-deactivated': 'deleted',
    always: 'NOT_SETTLED unknown',
    never: 'absent',
  };
  test.each(Object.entries(originals))(
    'of the original user, which Render only deactivates and lists %s, ends %s',
    async (originalListed, want) => {
      const other = await render.addDatabase({ name: freshName(), originalUser: `${freshName()}_original` });
      await render.actor.createUser(other.id, freshName());
      render.switches.originalListed = originalListed as RenderSwitches['originalListed'];
      const original = other.users().find(({ isOriginal }) => isOriginal)?.username ?? '';
      const provider = open({ postgresId: other.id, budgetMs: 30_000 });
      const outcome = await provider
        .deleteUser(original, holding)
        .catch((error) => `${error.code} ${error.effect}`);
      expect(outcome).toBe(want);
      expect(other.users().find(({ isOriginal }) => isOriginal)?.isDeactivated).toBe(want !== 'absent');
    },
  );

  test.each([
    { status: 200, json: { message: 'PostgreSQL user deleted' } },
    { status: 202, text: 'ok' },
    { status: 204 },
  ])('takes every success for a success: %j', async (answer) => {
    const username = await retired();
    inject({ ...answer, operation: 'deleteUser', kind: 'status', applied: true });
    expect(await open().deleteUser(username, holding)).toBe('deleted');
  });
});

describe('placing a default user at Render', () => {
  const placed = freshName;

  test('looks twice, makes sure that the database is up, posts once, and believes the list', async () => {
    await open().placeDefault(placed(), holding);
    expect(calls().map(({ operation }) => operation)).toEqual([
      'listUsers',
      'listUsers',
      'getDatabase',
      'createUser',
      'listUsers',
    ]);
  });

  const slowness: Record<string, Partial<RenderSwitches['delays']>> = {
    'is listed late': { userListed: { ms: 30_000 } },
    'is listed before it is the default': { listedDefault: { ms: 30_000 } },
  };
  test.each(Object.entries(slowness))('waits for one that %s', async (_how, delays) => {
    Object.assign(render.switches.delays, delays);
    const username = placed();
    const start = vendors().clock.now().getTime();
    await open().placeDefault(username, holding);
    expect(vendors().clock.now().getTime() - start).toBeGreaterThanOrEqual(30_000);
    expect(userOf(username)).toMatchObject({ isDefault: true });
    expect(calls('createUser')).toHaveLength(1);
  });

  test('ends before the invocation does, and says what is known', async () => {
    render.switches.delays.listedDefault = { ms: 86_400_000 };
    const username = placed();
    const start = vendors().clock.now().getTime();
    const provider = open({ budgetMs: 20_000, postgresId: (await anotherDatabase()).id });
    const error = await failureOf(provider.placeDefault(username, holding));
    // The original user is still said to be the default.
    expect([error.code, error.effect]).toEqual(['CONFLICT', 'applied']);
    expect(vendors().clock.now().getTime() - start).toBeLessThanOrEqual(20_000);
  });

  test('does not claim what the list does not say', async () => {
    render.switches.defaultFlag = 'missing';
    const error = await failureOf(open().placeDefault(placed(), holding));
    expect([error.code, error.effect]).toEqual(['NOT_SETTLED', 'applied']);
    expect(error.message).toContain('listed, but not said to be the default; the next pass looks again');
    expect(calls('connectionInfo')).toEqual([]);
  });

  test('does not claim a user that was accepted and never appears', async () => {
    inject({ operation: 'createUser', kind: 'pretend' });
    expect(await codeOf(open().placeDefault(placed(), holding))).toBe('NOT_SETTLED unknown');
    expect(calls('createUser')).toHaveLength(1);
  });

  test('whom somebody overtakes in the same moment says so, having made it', async () => {
    const username = placed();
    const run = async () => {
      vendors().clock.move(1_000);
      await overtake();
    };
    inject({ operation: 'createUser', kind: 'meanwhile', run });
    expect(await codeOf(open().placeDefault(username, holding))).toBe('CONFLICT applied');
    expect(calls('createUser')).toHaveLength(1);
  });

  test('does not start while the database is not up', async () => {
    render.actor.setStatus(database.id, 'maintenance_in_progress');
    expect(await codeOf(open().placeDefault(placed(), holding))).toBe('TARGET_NOT_READY none');
    expect(calls('createUser')).toEqual([]);
  });
});

describe('where consumers of Render connect', () => {
  test('is read from the external string, without the login in it', async () => {
    await issue();
    const endpoint = await open().endpoint();
    expect(endpoint).toEqual({
      host: 'localhost',
      port: vendors().render.front.port,
      database: database.databaseName,
    });
  });

  test('is the port 5432 where the string has none', async () => {
    render.switches.portInExternal = false;
    expect(await open().endpoint()).toMatchObject({ port: 5432 });
  });

  test.each(['', 'localhost', 'mysql://u:p@localhost/db', 'postgresql:///db', 'postgresql://u:p@localhost/'])(
    'is not guessed from %j',
    async (externalConnectionString) => {
      const json = { password: 'p', externalConnectionString };
      inject({ operation: 'connectionInfo', kind: 'status', status: 200, json });
      const error = await failureOf(open().endpoint());
      expect([error.code, error.effect, error.facts.operation]).toEqual(['UNREADABLE', 'none', 'endpoint']);
    },
  );
});

describe('the list of Render', () => {
  test('says who the default is, and nothing of it where Render does not', async () => {
    const { username } = await issue();
    const listed = async () => (await open().listUsers()).find((user) => user.username === username);
    expect(await listed()).toMatchObject({ isDefault: true, isProtected: true });
    await subject().supersede(username);
    expect(await listed()).toMatchObject({ isDefault: false, isProtected: false });
    render.switches.defaultFlag = 'missing';
    expect(await listed()).toMatchObject({ isProtected: true });
    expect(await listed()).not.toHaveProperty('isDefault');
  });
});

describe('being asked too often at Render', () => {
  const resets: readonly RenderSwitches['resetHeader'][] = ['seconds', 'epoch'];
  test.each(resets)('waits for Ratelimit-Reset in %s where there is no Retry-After', async (resetHeader) => {
    render.switches.resetHeader = resetHeader;
    await open().listUsers();
    vendors().clock.move(20_000);
    inject({ operation: 'listUsers', kind: 'rate-limited' });
    await open().listUsers();
    // The minute began with the first of the two readings.
    expect(vendors().waits).toHaveLength(1);
    expect(vendors().waits[0]).toBeGreaterThan(38_000);
    expect(vendors().waits[0]).toBeLessThanOrEqual(41_000);
  });

  test('stays within a budget that other tools of the same key use up', async () => {
    render.switches.limits.reads = 4;
    const login = await issue();
    expect(await open().verify(login)).toBe('accepted');
    expect(calls().filter(({ status }) => status === 429).length).toBeGreaterThanOrEqual(1);
    expect(vendors().waits.some((ms) => ms > 50_000)).toBe(true);
  });
});

describe('sessions at Render', () => {
  const connected = async (): Promise<Login> => {
    const login = await issue();
    await vendors().connect(login, 'orders-api');
    return login;
  };

  test('are counted by the list alone where it says zero', async () => {
    const login = await issue();
    expect(await open().sessions(login.username, login)).toEqual({ observed: true, open: 0 });
    expect(calls('listProcesses')).toEqual([]);
  });

  test('come from the processes where the list does not count', async () => {
    render.switches.openConnections = 'missing';
    const login = await connected();
    expect(await open().sessions(login.username, login)).toEqual({
      observed: true,
      open: [{ applicationName: 'orders-api', clientAddress: '127.0.0.1', startedAt: expect.any(Date) }],
    });
  });

  test('of an intruder who calls himself rekey are told, and stay in what the list counts', async () => {
    const login = await connected();
    await vendors().connect(login, 'rekey');
    const seen = await open().sessions(login.username, login);
    if (!seen.observed || typeof seen.open === 'number') return expect.unreachable('expected sessions');
    expect(seen.open.map(({ applicationName }) => applicationName).sort()).toEqual(['orders-api', 'rekey']);
    const json = [{ username: login.username, default: true, openConnections: 5 }];
    inject({ operation: 'listUsers', kind: 'status', status: 200, json });
    expect(await open().sessions(login.username, login)).toEqual({ observed: true, open: 5 });
  });

  test('go where Render says, which is read once a visit', async () => {
    const login = await issue();
    const before = calls('connectionInfo').length;
    const provider = open();
    await provider.verify(login);
    await provider.endSessions(login.username, login, new Date('2100-01-01T00:00:00Z'), holding);
    await provider.endpoint();
    expect(calls('connectionInfo').length - before).toBe(1);
  });

  const blind: Record<string, Partial<Fault<RenderOperation>> & { status: number }> = {
    'see nobody': { status: 200, json: { processes: [] } },
    'are null': { status: 200, json: { processes: null } },
    'cannot be read': { status: 403 },
    'are no JSON': { status: 200, text: '<html>' },
  };
  test.each(Object.entries(blind))(
    'are as many as the list counts where the processes %s',
    async (_how, answer) => {
      const login = await connected();
      inject({ ...answer, operation: 'listProcesses', kind: 'status' });
      expect(await open().sessions(login.username, login)).toEqual({ observed: true, open: 1 });
    },
  );

  test('of nameless processes are nobody’s', async () => {
    render.switches.openConnections = 'missing';
    const login = await issue();
    const json = { processes: [{}, { username: null, query: 'SELECT 1' }] };
    inject({ operation: 'listProcesses', kind: 'status', status: 200, json });
    expect(await open().sessions(login.username, login)).toEqual({ observed: true, open: [] });
  });
});

describe('what rekey tells Render, and tells of it', () => {
  test('asks for JSON with the key, and for nothing in the query', async () => {
    await issue();
    for (const { headers, query } of calls()) {
      expect(headers).toMatchObject({ accept: 'application/json' });
      expect(query).toEqual({});
    }
  });

  test('names Render’s own id of the request in the error', async () => {
    inject({ operation: 'listUsers', kind: 'status', status: 404 });
    const { facts } = await failureOf(open().listUsers());
    expect(facts.requestId).toBe(calls('listUsers')[0]?.requestId);
    expect(facts.requestId).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('a database that was deleted is not found, and nothing of it is absent', async () => {
    const other = await render.addDatabase({ name: freshName() });
    render.actor.deleteDatabase(other.id);
    const provider = open({ postgresId: other.id });
    expect(await codeOf(provider.readiness())).toBe('NOT_FOUND none');
    expect(await codeOf(provider.listUsers())).toBe('NOT_FOUND none');
    expect(await codeOf(provider.deleteUser('orders_user', holding))).toBe('NOT_FOUND none');
    expect(await codeOf(provider.issueUser(freshName(), holding))).toBe('NOT_FOUND none');
  });

  test.each(['dpg-d1abc2d3e4f5g6h7i8j9-a', 'dpg-d1abc2d3e4f5g6h7i8j9-b'])(
    'takes %s for the id of a database',
    (postgresId) => {
      expect(renderPostgres.targetId(renderPostgres.targetSchema.parse({ postgresId }))).toBe(postgresId);
      expect(renderPostgres.targetOf({ targetId: postgresId, database: 'orders' })).toEqual({ postgresId });
    },
  );
  test.each(['', '..', 'dpg-', 'dpg-d1abc2d3e4f5g6h7i8j9-a/..', 'DPG-D1ABC2D3E4F5G6H7I8J9-A', 'srv-1'])(
    'refuses %j as the id of a database',
    (postgresId) => {
      expect(renderPostgres.targetSchema.safeParse({ postgresId }).success).toBe(false);
    },
  );

  test('gives consumers a URL in which any password is safe', () => {
    const login = {
      host: 'dpg-d1abc2d3e4f5g6h7i8j9-a.oregon-postgres.render.com',
      port: 5432,
      database: 'orders_ehyv',
      username: 'orders_api',
      password: new Sensitive('p@ss/w:rd?#%'),
    };
    expect(renderPostgres.ready(login).url).toBe(
      'postgresql://orders_api:p%40ss%2Fw%3Ard%3F%23%25@dpg-d1abc2d3e4f5g6h7i8j9-a.oregon-postgres.render.com:5432/orders_ehyv?sslmode=require',
    );
  });
});
