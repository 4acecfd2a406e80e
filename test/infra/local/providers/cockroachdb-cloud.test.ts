import type { Dispatcher } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Network, startNetwork } from '../../../../infra/local/network.ts';
import {
  type CockroachdbCloud,
  type CockroachdbCluster,
  type CockroachdbSwitches,
  createCockroachdbCloud,
} from '../../../../infra/local/providers/cockroachdb-cloud.ts';
import { addCockroachdbOrders } from '../../../../infra/local/providers/fixtures.ts';
import {
  type Ask,
  createAsk,
  createMovableClock,
  type Ground,
  logIn,
  proxied,
  startGround,
  tryLogIn,
} from './stand-in.ts';

const password = 'correct-Horse-7-battery';
const other = 'another-Horse-8-battery';
const clusterId = '5b2e0f0a-9c0d-4a6e-8f53-1f2d3c4b5a69';

let ground: Ground;
let cloud: CockroachdbCloud;
let cluster: CockroachdbCluster;
let network: Network;
let dispatcher: Dispatcher;
let ask: Ask;
let defaults: CockroachdbSwitches;
const clock = createMovableClock('2026-03-01T12:00:00Z');
const users = `/api/v1/clusters/${clusterId}/sql-users`;
let made = 0;
const freshName = (): string => {
  made += 1;
  return `orders_api_${made}`;
};
const create = async (name = freshName()): Promise<string> => {
  expect(await ask('POST', users, { name, password })).toMatchObject({ status: 200 });
  return name;
};
const listed = async (): Promise<readonly string[]> => {
  const { json } = await ask('GET', users);
  return (json as { users: { name: string }[] }).users.map(({ name }) => name);
};
const login = (user: string, secret = password) =>
  tryLogIn(ground, { user, password: secret, database: 'defaultdb' });
const connect = (user: string, applicationName = 'test') =>
  logIn(ground, { user, password, database: 'defaultdb', applicationName });

beforeAll(async () => {
  ground = await startGround();
  cloud = createCockroachdbCloud({
    postgres: ground.postgres,
    front: ground.front,
    clock,
    apiKeys: ['key-1', 'key-2'],
    caPem: ground.authority.caPem,
  });
  cluster = await addCockroachdbOrders(cloud, ground.postgres, { id: clusterId });
  network = await startNetwork({ authority: ground.authority, hosts: { [cloud.host]: cloud.listener } });
  dispatcher = proxied(network);
  ask = createAsk({
    base: 'https://cockroachlabs.cloud',
    dispatcher,
    headers: { authorization: 'Bearer key-1', 'cc-version': '2024-09-16' },
  });
  defaults = structuredClone(cloud.switches);
});
beforeEach(() => {
  clock.move(60_000); // a full budget of calls
});
afterEach(() => {
  Object.assign(cloud.switches, structuredClone(defaults));
  cloud.faults.clear();
  ground.front.faults.clear();
});
afterAll(async () => {
  expect(cloud.calls.filter(({ defect }) => defect !== undefined)).toEqual([]);
  await dispatcher.destroy();
  await network.close();
  await ground.stop();
});

describe('users over the API', () => {
  test('a created user is answered by name, listed, and logs in', async () => {
    const name = freshName();
    const answer = await ask('POST', users, { name, password });
    expect([answer.status, answer.json]).toEqual([200, { name }]);
    expect(await listed()).toContain(name);
    expect(await login(name)).toBe(`logged in as ${name}`);
  });

  test('admin, root and a user that a person made are there from the start', async () => {
    expect(await listed()).toEqual(expect.arrayContaining(['admin', 'reporting', 'root']));
  });

  test('a changed password replaces the old one at once', async () => {
    const name = await create();
    expect(await ask('PUT', `${users}/${name}/password`, { password: other })).toMatchObject({
      json: { name },
    });
    expect([await login(name, other), await login(name)]).toEqual([`logged in as ${name}`, '28P01']);
  });

  test('a deleted user is gone from the list and refused like an unknown one', async () => {
    const name = await create();
    expect(await ask('DELETE', `${users}/${name}`)).toMatchObject({ status: 200, json: { name } });
    expect(await listed()).not.toContain(name);
    expect([await login(name), await login('never_made')]).toEqual(['28P01', '28P01']);
  });

  test('a missing user and a missing cluster look alike', async () => {
    const noUser = await ask('DELETE', `${users}/never_made`);
    const noCluster = await ask(
      'DELETE',
      '/api/v1/clusters/00000000-0000-4000-8000-000000000000/sql-users/x',
    );
    expect([noUser.status, noCluster.status]).toEqual([404, 404]);
    expect(noUser.json).toMatchObject({ code: 5 });
  });

  test('names are folded and normalised', async () => {
    const answer = await ask('POST', users, { name: 'Ame\u0301lie_X', password });
    expect(answer.json).toEqual({ name: 'am\u00e9lie_x' });
    expect(await login('AM\u00c9LIE_x')).toBe('logged in as am\u00e9lie_x');
  });

  const refusedNames: Record<string, string> = {
    'a leading dot': '.x',
    'a slash': 'a/b',
    'a reserved word': 'none',
    'a reserved prefix': 'crdb_internal_x',
    'the built-in user': 'root',
    'more than 63 bytes': 'x'.repeat(64),
  };
  test.each(Object.entries(refusedNames))('a name with %s is refused', async (_what, name) => {
    expect(await ask('POST', users, { name, password })).toMatchObject({ status: 400, json: { code: 3 } });
  });

  test('a password of eleven characters is refused without being echoed', async () => {
    const { status, text } = await ask('POST', users, { name: freshName(), password: 'elevenchars' });
    expect(status).toBe(400);
    expect(text).not.toContain('elevenchars');
  });

  test('root and admin can be neither deleted nor, for admin, given a password', async () => {
    expect(await ask('DELETE', `${users}/root`)).toMatchObject({ status: 400 });
    expect(await ask('PUT', `${users}/admin/password`, { password })).toMatchObject({ status: 400 });
  });
});

describe('admin at birth', () => {
  test('a new user is an admin with the admin option, and still itself', async () => {
    const name = await create();
    const client = await connect(name);
    const { rows } = await client.query(
      `SELECT held.rolname AS role, m.admin_option, current_user AS me
         FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles held ON held.oid = m.roleid
         JOIN pg_catalog.pg_roles u ON u.oid = m.member WHERE u.rolname = $1`,
      [name],
    );
    await client.end();
    expect(rows).toEqual([{ role: 'admin', admin_option: true, me: name }]);
  });

  test('a new user gives itself a role and gives up admin in one transaction', async () => {
    const name = await create();
    const client = await connect(name);
    await client.query('BEGIN');
    await client.query(`GRANT "orders_rw" TO "${name}"`);
    await client.query(`REVOKE admin FROM "${name}"`);
    await client.query('COMMIT');
    // In the very same session, too.
    await expect(client.query('CREATE ROLE somebody')).rejects.toMatchObject({ code: '42501' });
    await client.end();

    const again = await connect(name);
    await again.query("INSERT INTO orders (item) VALUES ('tea')");
    expect((await again.query('SELECT count(*)::int AS n FROM orders')).rows[0].n).toBeGreaterThan(0);
    await expect(again.query('CREATE ROLE somebody')).rejects.toMatchObject({ code: '42501' });
    await expect(again.query('SELECT * FROM pg_authid')).rejects.toMatchObject({ code: '42501' });
    await expect(again.query(`GRANT admin TO "${name}"`)).rejects.toMatchObject({ code: '42501' });
    await again.end();
    expect((await cluster.users()).find(({ username }) => username === name)).toEqual({
      username: name,
      isAdmin: false,
      roles: ['orders_rw'],
    });
  });

  test('a transaction that is rolled back leaves the user an admin', async () => {
    const name = await create();
    const client = await connect(name);
    await client.query(`BEGIN; REVOKE admin FROM "${name}"; ROLLBACK`);
    await client.end();
    expect((await cluster.users()).find(({ username }) => username === name)).toMatchObject({
      isAdmin: true,
    });
  });

  test('an admin takes admin from another user, whose open session feels it', async () => {
    const [one, two] = [await create(), await create()];
    const [first, second] = [await connect(one), await connect(two)];
    await first.query(`REVOKE admin FROM "${two}"`);
    await expect(second.query('CREATE ROLE somebody')).rejects.toMatchObject({ code: '42501' });
    await Promise.all([first.end(), second.end()]);
  });

  test('a password change grants admin again when the old fault is switched on', async () => {
    const name = await create();
    const client = await connect(name);
    await client.query(`REVOKE admin FROM "${name}"`);
    await client.end();
    await ask('PUT', `${users}/${name}/password`, { password: other });
    expect((await cluster.users()).find(({ username }) => username === name)).toMatchObject({
      isAdmin: false,
    });
    cloud.switches.passwordGrantsAdmin = true;
    await ask('PUT', `${users}/${name}/password`, { password });
    expect((await cluster.users()).find(({ username }) => username === name)).toMatchObject({
      isAdmin: true,
    });
  });
});

describe('sessions', () => {
  const sessions =
    'SELECT user_name, application_name, client_address, session_start, status FROM crdb_internal.cluster_sessions WHERE user_name = $1';

  test('an ordinary user sees its own sessions only, an admin sees all', async () => {
    const [plain, admin] = [await create(), await create()];
    const first = await connect(plain, 'orders-api');
    await first.query(`REVOKE admin FROM "${plain}"`);
    const second = await connect(admin, 'console');
    const own = await first.query(sessions, [plain]);
    const hidden = await first.query(sessions, [admin]);
    const all = await second.query(sessions, [plain]);
    await Promise.all([first.end(), second.end()]);
    expect(own.rows).toMatchObject([{ user_name: plain, application_name: 'orders-api', status: 'ACTIVE' }]);
    expect(own.rows[0].session_start).toBeInstanceOf(Date);
    expect(own.rows[0].client_address).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(hidden.rows).toEqual([]);
    expect(all.rows).toMatchObject([{ user_name: plain, status: 'IDLE' }]);
  });

  test('are cancelled by an admin, who can leave out the very one that asks by its id', async () => {
    const name = await create();
    const [first, asking] = [await connect(name, 'console'), await connect(name, 'console')];
    const ended = new Promise((resolve) => first.once('end', resolve));
    const { rows } = await asking.query('SHOW session_id');
    expect(rows).toEqual([{ session_id: expect.stringMatching(/^[0-9a-f]{32}$/) }]);
    await asking.query(
      `CANCEL SESSIONS (SELECT session_id FROM crdb_internal.cluster_sessions WHERE user_name = '${name}' AND session_id NOT IN (SELECT session_id FROM [SHOW session_id]))`,
    );
    await ended;
    expect((await asking.query(sessions, [name])).rows).toHaveLength(1);
    await asking.end();
  });

  test('open connections outlive a password change and a deletion, and stay countable by name', async () => {
    const [name, admin] = [await create(), await create()];
    const client = await connect(name);
    await ask('PUT', `${users}/${name}/password`, { password: other });
    await ask('DELETE', `${users}/${name}`);
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    const watcher = await connect(admin);
    expect((await watcher.query(sessions, [name])).rows).toHaveLength(1);
    expect(ground.front.connections(name)).toMatchObject([{ user: name, applicationName: 'test' }]);
    await Promise.all([client.end(), watcher.end()]);
  });

  test.each(['setPassword', 'deleteUser'] as const)(
    'open connections end at %s when so switched',
    async (call) => {
      cloud.switches.connectionsAfterPassword = 'ended';
      cloud.switches.connectionsOfDeleted = 'ended';
      const name = await create();
      const client = await connect(name);
      const ended = new Promise((resolve) => client.once('end', resolve));
      if (call === 'deleteUser') await ask('DELETE', `${users}/${name}`);
      else await ask('PUT', `${users}/${name}/password`, { password: other });
      await ended;
    },
  );

  test('a user without login privilege is told so', async () => {
    const name = await create();
    await ground.postgres.query(`ALTER ROLE ${name} NOLOGIN`);
    await expect(connect(name)).rejects.toMatchObject({
      code: '28000',
      message: `${name} does not have login privilege`,
    });
    expect(await listed()).toContain(name);
  });
});

describe('paging', () => {
  const pages = async (): Promise<readonly string[][]> => {
    const seen: string[][] = [];
    for (let token = ''; ; ) {
      clock.move(1_000);
      const { json } = await ask('GET', `${users}?pagination.page=${token}&pagination.limit=500`);
      const body = json as { users: { name: string }[]; pagination?: { next_page?: string | null } };
      seen.push(body.users.map(({ name }) => name));
      token = body.pagination?.next_page ?? '';
      if (token === '' || seen.length > 100) return seen;
    }
  };

  test.each(['absent-pagination', 'absent', 'null', 'empty'] as const)(
    'small pages hold every user once and the list ends with %s',
    async (end) => {
      cloud.switches.pageSize = 2;
      cloud.switches.endOfList = end;
      const seen = await pages();
      expect(seen[0]).toHaveLength(2);
      expect(seen.flat()).toEqual([...new Set(seen.flat())].sort());
      expect(seen.flat()).toContain('reporting');
    },
  );

  test('the order can be turned round', async () => {
    const { json } = await ask('GET', `${users}?pagination.sort_order=DESC`);
    const names = (json as { users: { name: string }[] }).users.map(({ name }) => name);
    expect(names).toEqual([...(await listed())].reverse());
  });

  test('a token can come back for ever', async () => {
    cloud.switches.repeatedToken = true;
    expect(await pages()).toHaveLength(101);
  });

  test('foreign names can be listed and real ones hidden', async () => {
    cloud.switches.listedOnly = ['sso_jane'];
    cloud.switches.unlisted = ['admin'];
    const names = await listed();
    expect(names).toContain('sso_jane');
    expect(names).not.toContain('admin');
  });

  test('the list can follow a creation and a deletion late', async () => {
    cloud.switches.delays = { userListed: { polls: 1 }, userUnlisted: { ms: 5_000 } };
    const name = await create();
    expect([await listed(), await listed()].map((names) => names.includes(name))).toEqual([false, true]);
    await ask('DELETE', `${users}/${name}`);
    expect(await listed()).toContain(name);
    clock.move(5_000);
    expect(await listed()).not.toContain(name);
  });
});

describe('what the documents leave open', () => {
  const duplicates: Record<string, { given: CockroachdbSwitches['duplicate']; want: object }> = {
    'as a conflict': { given: '409', want: { status: 409, json: { code: 6 } } },
    'as a bad request': { given: '400', want: { status: 400 } },
    'as a server error': { given: '500', want: { status: 500 } },
    'by changing the password': { given: 'changes-password', want: { status: 200 } },
  };
  test.each(Object.entries(duplicates))(
    'a second user of a name is answered %s',
    async (_how, { given, want }) => {
      cloud.switches.duplicate = given;
      const name = await create();
      expect(await ask('POST', users, { name, password: other })).toMatchObject(want);
      const secret = given === 'changes-password' ? other : password;
      expect(await login(name, secret)).toBe(`logged in as ${name}`);
    },
  );

  test('the password in use is accepted again, or refused', async () => {
    const name = await create();
    expect(await ask('PUT', `${users}/${name}/password`, { password })).toMatchObject({ status: 200 });
    cloud.switches.samePassword = 'refuse';
    expect(await ask('PUT', `${users}/${name}/password`, { password })).toMatchObject({ status: 400 });
    expect(await ask('PUT', `${users}/${name}/password`, { password: other })).toMatchObject({ status: 200 });
  });

  test('a password change keeps VALID UNTIL, or clears it', async () => {
    const name = await create();
    const until = async () =>
      (
        await ground.postgres.query(
          `SELECT rolvaliduntil::text AS until FROM pg_roles WHERE rolname = '${name}'`,
        )
      )[0];
    await ground.postgres.query(`ALTER ROLE ${name} VALID UNTIL '2027-01-01'`);
    await ask('PUT', `${users}/${name}/password`, { password: other });
    expect(await until()).toEqual({ until: '2027-01-01 00:00:00+00' });
    cloud.switches.passwordClearsValidUntil = true;
    await ask('PUT', `${users}/${name}/password`, { password });
    expect(await until()).toEqual({ until: 'infinity' });
  });

  const dependent: Record<
    string,
    { given: CockroachdbSwitches['dependencies']; status: number; remains: boolean }
  > = {
    'is refused as a failed precondition': { given: '400', status: 400, remains: true },
    'is refused as a server error': { given: '500', status: 500, remains: true },
    'cleans up': { given: 'clean-up', status: 200, remains: false },
  };
  test.each(Object.entries(dependent))(
    'the deletion of an owner %s',
    async (_what, { given, status, remains }) => {
      cloud.switches.dependencies = given;
      const name = await create();
      const client = await connect(name);
      await client.query(`CREATE TABLE ${name}_notes (text text)`);
      await client.end();
      const answer = await ask('DELETE', `${users}/${name}`);
      expect(answer.status).toBe(status);
      if (remains) expect(answer.text).toContain('2BP01');
      expect((await listed()).includes(name)).toBe(remains);
    },
  );

  const obstacles: Record<string, { given: (name: string) => string; says: (name: string) => string }> = {
    'a table': {
      given: (name) => `CREATE TABLE ${name}_notes (text text); ALTER TABLE ${name}_notes OWNER TO ${name}`,
      says: (name) =>
        `role ${name} cannot be dropped because some objects depend on it\nowner of table defaultdb.public.${name}_notes (SQLSTATE 2BP01)`,
    },
    'a grant, which is named before any table': {
      given: (name) =>
        `CREATE TABLE ${name}_notes (text text); ALTER TABLE ${name}_notes OWNER TO ${name}; GRANT SELECT ON orders TO ${name}`,
      says: (name) =>
        `cannot drop role/user ${name}: grants still exist on defaultdb.public.orders (SQLSTATE 2BP01)`,
    },
    'default privileges': {
      given: (name) => `ALTER DEFAULT PRIVILEGES FOR ROLE ${name} GRANT SELECT ON TABLES TO orders_rw`,
      says: (name) =>
        `role ${name} cannot be dropped because some objects depend on it\nowner of default privileges on new relations belonging to role ${name} (SQLSTATE 2BP01)`,
    },
  };
  test.each(Object.entries(obstacles))(
    'a deletion is refused because of %s, in CockroachDB’s words',
    async (_what, { given, says }) => {
      const name = await create();
      await ground.postgres.query(given(name), [], 'defaultdb');
      const { json } = await ask('DELETE', `${users}/${name}`);
      expect(json).toMatchObject({ code: 9, message: says(name) });
    },
  );

  test('a deletion is refused because of a table in another database', async () => {
    const name = await create();
    await ground.postgres.createDatabase(`${name}_reports`);
    const sql = `CREATE TABLE notes (text text); ALTER TABLE notes OWNER TO ${name}`;
    await ground.postgres.query(sql, [], `${name}_reports`);
    const { json } = await ask('DELETE', `${users}/${name}`);
    expect(json).toMatchObject({
      message: expect.stringContaining(`owner of table ${name}_reports.public.notes`),
    });
  });

  test('DROP OWNED in a transaction is refused, or takes grants away', async () => {
    const name = await create();
    await ground.postgres.query(`GRANT SELECT ON orders TO ${name}`, [], 'defaultdb');
    const dropOwned = async () => {
      const client = await connect(name);
      const end = (error: { code: string }) => error.code;
      await client.query('BEGIN');
      const outcome = await client.query(`DROP OWNED BY "${name}"`).then(() => 'done', end);
      await client.query('COMMIT');
      await client.end();
      return outcome;
    };
    expect(await dropOwned()).toBe('0A000');
    expect(await ask('DELETE', `${users}/${name}`)).toMatchObject({ status: 400 });
    cloud.switches.dropOwned = 'works';
    expect(await dropOwned()).toBe('done');
    expect(await ask('DELETE', `${users}/${name}`)).toMatchObject({ status: 200 });
  });

  test('a password that takes effect late leaves the old one working until then', async () => {
    const name = await create();
    cloud.switches.effectAfterMs.setPassword = 30_000;
    await ask('PUT', `${users}/${name}/password`, { password: other });
    expect([await login(name, other), await login(name)]).toEqual(['28P01', `logged in as ${name}`]);
    clock.move(30_000);
    await expect.poll(() => login(name, other)).toBe(`logged in as ${name}`);
    expect(await login(name)).toBe('28P01');
  });

  test('a locked cluster lets user calls work, or refuses them', async () => {
    cloud.actor.setState(clusterId, 'LOCKED');
    expect(await ask('GET', `/api/v1/clusters/${clusterId}`)).toMatchObject({ json: { state: 'LOCKED' } });
    expect(await ask('GET', users)).toMatchObject({ status: 200 });
    cloud.switches.whileLocked = 'refuse';
    expect(await ask('GET', users)).toMatchObject({ status: 400, json: { code: 9 } });
    cloud.actor.setState(clusterId, 'CREATED');
  });

  const errorBodies: Record<CockroachdbSwitches['errorBody'], unknown> = {
    'object-details': {
      code: 5,
      message: 'user not found',
      details: [expect.objectContaining({ '@type': expect.any(String) })],
    },
    'string-details': { code: 5, message: 'user not found', details: ['user not found'] },
    'no-code': { message: 'user not found' },
    'empty-object': {},
    empty: undefined,
    html: undefined,
  };
  test.each(Object.entries(errorBodies))('an error comes in the shape %s', async (shape, want) => {
    cloud.switches.errorBody = shape as CockroachdbSwitches['errorBody'];
    const { status, json } = await ask('DELETE', `${users}/never_made`);
    expect([status, json]).toEqual([404, want]);
  });
});

describe('cluster and connection', () => {
  test('the cluster is described with its state and plan', async () => {
    const { json } = await ask('GET', `/api/v1/clusters/${clusterId}`);
    expect(json).toMatchObject({ id: clusterId, state: 'CREATED', plan: 'STANDARD', sql_dns: 'localhost' });
    cloud.switches.sqlDns = 'absent';
    expect((await ask('GET', `/api/v1/clusters/${clusterId}`)).json).not.toHaveProperty('sql_dns');
  });

  test('connection parameters have capitalised names, lead to the front, and name a user only when asked', async () => {
    const path = `/api/v1/clusters/${clusterId}/connection-string?database=defaultdb&os=LINUX`;
    const { port } = ground.front;
    expect((await ask('GET', path)).json).toEqual({
      connection_string: `postgresql://localhost:${port}/defaultdb?sslmode=verify-full`,
      params: { Host: 'localhost', Port: String(port), Database: 'defaultdb' },
    });
    expect((await ask('GET', `${path}&sql_user=u`)).json).toMatchObject({ params: { Username: 'u' } });
  });

  test('the certificate authority is served without authentication', async () => {
    const { text } = await ask('GET', `/clusters/${clusterId}/cert`, undefined, { authorization: '' });
    expect(text).toBe(ground.authority.caPem);
  });
});

describe('gates', () => {
  test('a call without a known key is refused, and so is one whose key was revoked', async () => {
    expect(await ask('GET', users, undefined, { authorization: 'Bearer nobody' })).toMatchObject({
      status: 401,
    });
    const second = { authorization: 'Bearer key-2' };
    expect(await ask('GET', users, undefined, second)).toMatchObject({ status: 200 });
    cloud.actor.revokeKey('key-2');
    expect(await ask('GET', users, undefined, second)).toMatchObject({ status: 401, json: { code: 16 } });
  });

  test('an invalid version is refused and a valid one is recorded', async () => {
    expect(await ask('GET', users, undefined, { 'cc-version': 'newest' })).toMatchObject({
      status: 400,
      json: { message: 'invalid Cc-Version' },
    });
    await ask('GET', users);
    expect(cloud.calls.at(-1)?.headers).toMatchObject({ 'cc-version': '2024-09-16' });
    expect(cloud.calls.at(-1)?.headers).not.toHaveProperty('authorization');
  });

  const limits: Record<string, { given: CockroachdbSwitches['rateLimited']; want: string | undefined }> = {
    'with seconds to wait': { given: { status: 429, retryAfter: 2 }, want: '2' },
    'with a date': {
      given: { status: 503, retryAfter: new Date('2026-03-01T13:00:00Z') },
      want: 'Sun, 01 Mar 2026 13:00:00 GMT',
    },
    'with an absurd wait': { given: { status: 400, retryAfter: '99999999999' }, want: '99999999999' },
    'without a wait': { given: { status: 429, retryAfter: undefined }, want: undefined },
  };
  test.each(Object.entries(limits))(
    'the eleventh call in a second is refused %s',
    async (_how, { given, want }) => {
      cloud.switches.rateLimited = given;
      for (let call = 0; call < 10; call += 1) expect((await ask('GET', users)).status).toBe(200);
      const { status, headers, json } = await ask('GET', users);
      expect([status, headers['retry-after'], json]).toMatchObject([
        given.status,
        want,
        { code: 8, message: 'rate limit exceeded' },
      ]);
      clock.move(1_000);
      expect((await ask('GET', users)).status).toBe(200);
    },
  );
});

describe('the audit log', () => {
  interface Page {
    readonly entries: readonly {
      id: string;
      action: string;
      created_at: string;
      error?: string;
      user_email?: string;
    }[];
    readonly next_starting_from?: string;
  }
  const page = async (query: string): Promise<Page> =>
    (await ask('GET', `/api/v1/auditlogevents?${query}`)).json as Page;

  test('it tells our changes from those of a person, and failed ones by their error', async () => {
    const start = clock.now().toISOString();
    clock.move(1);
    const name = await create();
    await cloud.actor.setPassword(clusterId, name, other);
    await ask('DELETE', `${users}/never_made`);
    const { entries } = await page(`starting_from=${start}`);
    expect(entries).toMatchObject([
      {
        action: 'AUDIT_LOG_ACTION_CREATE_SQL_USER',
        source: 'AUDIT_LOG_SOURCE_CC_API',
        service_account_name: 'rekey',
      },
      { action: 'AUDIT_LOG_ACTION_CHANGE_SQL_USER_PASSWORD', user_email: 'jane@example.com' },
      { action: 'AUDIT_LOG_ACTION_DELETE_SQL_USER', error: 'user not found' },
    ]);
  });

  test('a page holds whole instants and names where the next one starts', async () => {
    const start = clock.now().toISOString();
    clock.move(1);
    const first = clock.now().toISOString();
    await create();
    await create();
    clock.move(1_000);
    await create();
    const cut = await page(`starting_from=${start}&limit=1`);
    expect([cut.entries.length, cut.next_starting_from]).toEqual([2, first]);
    const next = await page(`starting_from=${cut.next_starting_from}&limit=5`);
    expect([next.entries.length, next.next_starting_from]).toEqual([1, undefined]);
    cloud.switches.startingFrom = 'inclusive';
    expect((await page(`starting_from=${first}`)).entries).toHaveLength(3);
    expect((await page(`starting_from=${first}&sort_order=DESC`)).entries.slice(0, 2)).toHaveLength(2);
  });
});

describe('people at the vendor', () => {
  test('a person makes, changes and deletes a user past rekey', async () => {
    const name = freshName();
    await cloud.actor.createUser(clusterId, name, password);
    expect(await login(name)).toBe(`logged in as ${name}`);
    const client = await connect(name);
    await client.query(`REVOKE admin FROM "${name}"`);
    await client.end();
    await cloud.actor.grantAdmin(clusterId, name);
    expect((await cluster.users()).find(({ username }) => username === name)).toMatchObject({
      isAdmin: true,
    });
    await cloud.actor.deleteUser(clusterId, name);
    expect(await listed()).not.toContain(name);
  });
});

describe('catastrophes', () => {
  test.each(['', '/'])(
    'a DELETE of the cluster itself with "%s" at its end is recorded and carried out',
    async (end) => {
      const doomed = await cloud.addCluster({ name: 'doomed' });
      const before = cloud.catastrophes.length;
      expect(await ask('DELETE', `/api/v1/clusters/${doomed.id}${end}`)).toMatchObject({ status: 200 });
      expect(cloud.catastrophes.slice(before)).toMatchObject([
        { operation: 'deleteCluster', path: `/api/v1/clusters/${doomed.id}${end}` },
      ]);
      expect(doomed.isDeleted).toBe(true);
      expect(await ask('GET', `/api/v1/clusters/${doomed.id}/sql-users`)).toMatchObject({ status: 404 });
    },
  );

  test('a folded name reaches the cluster, as it would at the vendor', async () => {
    const doomed = await cloud.addCluster({ name: 'doomed' });
    await ask('DELETE', `/api/v1/clusters/${doomed.id}/sql-users/${encodeURIComponent('..')}`);
    expect(doomed.isDeleted).toBe(true);
  });
});
