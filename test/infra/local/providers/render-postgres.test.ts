import type { Dispatcher } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Network, startNetwork } from '../../../../infra/local/network.ts';
import { addRenderOrders } from '../../../../infra/local/providers/fixtures.ts';
import {
  createRenderPostgres,
  type RenderDatabase,
  type RenderPostgres,
  type RenderSwitches,
} from '../../../../infra/local/providers/render-postgres.ts';
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

let ground: Ground;
let render: RenderPostgres;
let database: RenderDatabase;
let network: Network;
let dispatcher: Dispatcher;
let ask: Ask;
let defaults: RenderSwitches;
let path: string;
const clock = createMovableClock('2026-03-01T12:00:00.123Z');
let made = 0;
const freshName = (): string => {
  made += 1;
  return `orders_api_${made}`;
};

interface Listed {
  readonly username: string;
  readonly default?: boolean;
  readonly createdAt: string;
  readonly openConnections?: number;
}
const list = async (): Promise<readonly Listed[]> =>
  (await ask('GET', `${path}/credentials`)).json as Listed[];
const names = async (): Promise<readonly string[]> => (await list()).map(({ username }) => username);
const defaultOf = async (): Promise<string | undefined> =>
  (await list()).find((user) => user.default)?.username;
const create = async (username = freshName()): Promise<string> => {
  expect(await ask('POST', `${path}/credentials`, { username })).toMatchObject({ status: 202, text: '' });
  return username;
};
const remove = (username: string) => ask('DELETE', `${path}/credentials/${username}`);

interface Info {
  readonly password: string;
  readonly externalConnectionString: string;
}
const info = async () => {
  const { json } = await ask('GET', `${path}/connection-info`);
  const { password, externalConnectionString } = json as Info;
  const url = new URL(externalConnectionString);
  return {
    field: password,
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: url.pathname.slice(1),
    url,
  };
};
/** Ends with a fresh user as the default, so that the given one may be deleted. */
const supersede = async (): Promise<void> => {
  await create();
};

beforeAll(async () => {
  ground = await startGround();
  render = createRenderPostgres({
    postgres: ground.postgres,
    front: ground.front,
    clock,
    apiKeys: ['rnd_1', 'rnd_2'],
  });
  network = await startNetwork({ authority: ground.authority, hosts: { [render.host]: render.listener } });
  dispatcher = proxied(network);
  ask = createAsk({
    base: 'https://api.render.com',
    dispatcher,
    headers: { authorization: 'Bearer rnd_1', accept: 'application/json' },
  });
  database = await addRenderOrders(render, ground.postgres);
  path = `/v1/postgres/${database.id}`;
  defaults = structuredClone(render.switches);
});
beforeEach(() => {
  clock.move(60_000); // a full budget of calls
});
afterEach(() => {
  Object.assign(render.switches, structuredClone(defaults));
  render.faults.clear();
});
afterAll(async () => {
  expect(render.calls.filter(({ defect }) => defect !== undefined)).toEqual([]);
  await dispatcher.destroy();
  await network.close();
  await ground.stop();
});

describe('users', () => {
  test('the original user is the default of a new database and logs in', async () => {
    const fresh = await render.addDatabase({ name: 'fresh' });
    expect(fresh.id).toMatch(/^dpg-[a-z0-9]{20}-a$/);
    expect(fresh.databaseName).toMatch(/^fresh_[a-z0-9]{4}$/);
    expect(fresh.users()).toEqual([
      { username: 'fresh_user', isDefault: true, isOriginal: true, isDeactivated: false },
    ]);
    const { json } = await ask('GET', `/v1/postgres/${fresh.id}/connection-info`);
    const url = new URL((json as Info).externalConnectionString);
    expect(
      await tryLogIn(ground, { user: 'fresh_user', password: url.password, database: fresh.databaseName }),
    ).toBe('logged in as fresh_user');
  });

  test('a new user becomes the default, and only its password can be read', async () => {
    const first = await create();
    const before = await info();
    const second = await create();
    const after = await info();
    expect([before.user, after.user, await defaultOf()]).toEqual([first, second, second]);
    expect(after.password).toMatch(/^[A-Za-z0-9]{32}$/);
    expect(after.field).toBe(after.password);
    const { text } = await ask('GET', `${path}/connection-info`);
    expect(text).not.toContain(before.password);
    expect(await tryLogIn(ground, before)).toBe(`logged in as ${first}`);
    expect(await tryLogIn(ground, after)).toBe(`logged in as ${second}`);
  });

  test('every user reads and writes the orders of its own database and no other one', async () => {
    await create();
    const login = await info();
    const client = await logIn(ground, login);
    await client.query("INSERT INTO orders (item) VALUES ('tea')");
    expect((await client.query('SELECT item FROM orders')).rows).toEqual([{ item: 'tea' }]);
    await client.end();
    const elsewhere = await render.addDatabase({ name: 'elsewhere' });
    expect(await tryLogIn(ground, { ...login, database: elsewhere.databaseName })).toBe('42501');
  });

  test('the list counts open connections', async () => {
    const username = await create();
    const client = await logIn(ground, await info());
    const count = async () => (await list()).find((user) => user.username === username)?.openConnections;
    expect(await count()).toBe(1);
    await client.end();
    await expect.poll(count).toBe(0);
  });

  test('processes name who is connected', async () => {
    const username = await create();
    const client = await logIn(ground, { ...(await info()), applicationName: 'orders-api' });
    const { json } = await ask('GET', `${path}/query/processes`);
    await client.end();
    expect(json).toEqual({
      processes: [
        expect.objectContaining({
          username,
          applicationName: 'orders-api',
          databaseName: database.databaseName,
          clientAddr: '127.0.0.1',
          backendStart: expect.any(String),
        }),
      ],
    });
  });

  test('a deleted user leaves the list and the engine', async () => {
    const username = await create();
    const login = await info();
    await supersede();
    const answer = await remove(username);
    expect([answer.status, answer.text]).toEqual([200, '']);
    expect(await names()).not.toContain(username);
    expect(await tryLogIn(ground, login)).toBe('28P01');
  });

  test('live connections outlive the deletion, or end with it', async () => {
    const [first, kept] = [await create(), await info()];
    const client = await logIn(ground, kept);
    await supersede();
    await remove(first);
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await client.end();

    render.switches.connectionsOfDeleted = 'ended';
    const [second, ended] = [await create(), await info()];
    const other = await logIn(ground, ended);
    const end = new Promise((resolve) => other.once('end', resolve));
    await supersede();
    await remove(second);
    await end;
  });

  test('the original user is only deactivated', async () => {
    const fresh = await render.addDatabase({ name: 'veteran' });
    const at = `/v1/postgres/${fresh.id}`;
    const { json } = await ask('GET', `${at}/connection-info`);
    const url = new URL((json as Info).externalConnectionString);
    const login = { user: 'veteran_user', password: url.password, database: fresh.databaseName };
    const listed = async () =>
      ((await ask('GET', `${at}/credentials`)).json as Listed[]).map((user) => user.username);
    await ask('POST', `${at}/credentials`, { username: 'successor' });
    expect(await listed()).toEqual(['veteran_user', 'successor']);
    expect(await ask('DELETE', `${at}/credentials/veteran_user`)).toMatchObject({ status: 200 });
    expect(await tryLogIn(ground, login)).toBe('28000');
    expect(await listed()).toEqual(['successor']);
    render.switches.originalListed = 'always';
    expect(await listed()).toEqual(['veteran_user', 'successor']);
    render.switches.originalListed = 'never';
    expect(await listed()).toEqual(['successor']);
    expect(fresh.users()[0]).toEqual({
      username: 'veteran_user',
      isDefault: false,
      isOriginal: true,
      isDeactivated: true,
    });
  });
});

describe('what is slow', () => {
  test('each reading follows a creation in its own time', async () => {
    const before = await create();
    render.switches.delays = {
      ...render.switches.delays,
      userListed: { polls: 1 },
      listedDefault: { polls: 2 },
      connectionInfo: { ms: 4_000 },
      databaseUser: { ms: 9_000 },
    };
    const username = await create();
    const seen = async () => {
      const ours = (await list()).find((user) => user.username === username);
      return ours === undefined ? 'missing' : ours.default;
    };
    expect([await seen(), await seen(), await seen()]).toEqual(['missing', false, true]);
    expect((await info()).user).toBe(before);
    clock.move(4_000);
    expect((await info()).user).toBe(username);
    expect((await ask('GET', path)).json).toMatchObject({ databaseUser: before });
    clock.move(5_000);
    expect((await ask('GET', path)).json).toMatchObject({ databaseUser: username });
  });

  test('a deleted user can still be listed for a while', async () => {
    const username = await create();
    await supersede();
    render.switches.delays = { ...render.switches.delays, userUnlisted: { polls: 1 } };
    await remove(username);
    expect([await names(), await names()].map((seen) => seen.includes(username))).toEqual([true, false]);
  });

  test('an accepted user may never appear', async () => {
    render.faults.inject({ operation: 'createUser', kind: 'pretend' });
    const username = await create();
    expect(await names()).not.toContain(username);
  });

  test('a plan change puts the status back to creating for a while', async () => {
    render.actor.changePlan(database.id, 'pro_4gb', { ms: 40_000 });
    const status = async () => ((await ask('GET', path)).json as { status: string }).status;
    expect(await status()).toBe('creating');
    clock.move(40_000);
    expect(await status()).toBe('available');
  });
});

describe('what the documents leave open', () => {
  const duplicates: Record<string, { given: RenderSwitches['duplicate']; status: number; changes: boolean }> =
    {
      'with 400': { given: 400, status: 400, changes: false },
      'with 409': { given: 409, status: 409, changes: false },
      'as if it were new, changing nothing': { given: 'silent', status: 202, changes: false },
      'as if it were new, with a new password': { given: 'silent-new-password', status: 202, changes: true },
    };
  test.each(Object.entries(duplicates))(
    'a name in use is answered %s',
    async (_how, { given, status, changes }) => {
      const username = await create();
      const before = await info();
      render.switches.duplicate = given;
      expect((await ask('POST', `${path}/credentials`, { username })).status).toBe(status);
      const after = await info();
      expect(after.password === before.password).toBe(!changes);
      expect(await tryLogIn(ground, after)).toBe(`logged in as ${username}`);
    },
  );

  test.each([400, 403, 409, 500] as const)('the default user cannot be deleted: %i', async (status) => {
    render.switches.deleteDefault = status;
    const username = await create();
    expect((await remove(username)).status).toBe(status);
    expect(await defaultOf()).toBe(username);
  });

  test('a deletion of an absent user is answered 404, or 200', async () => {
    expect(await remove('never_made')).toMatchObject({
      status: 404,
      json: { message: 'not found: never_made' },
    });
    render.switches.deleteAbsent = 200;
    expect((await remove('never_made')).status).toBe(200);
  });

  test('one user too many is refused, with or without a code', async () => {
    render.switches.userLimit = 1;
    const refused = () => ask('POST', `${path}/credentials`, { username: freshName() });
    expect(await refused()).toMatchObject({ status: 400, json: { code: 'too_many_resources' } });
    render.switches.userLimitCode = false;
    expect((await refused()).json).not.toHaveProperty('code');
  });

  test('a name of 64 bytes is cut, or refused', async () => {
    const long = `${freshName()}_`.padEnd(64, 'x');
    render.switches.longNames = 'refuse';
    expect((await ask('POST', `${path}/credentials`, { username: long })).status).toBe(400);
    render.switches.longNames = 'cut';
    await create(long);
    expect(await names()).toContain(long.slice(0, 63));
  });

  test('a creation while the database is not available is refused, or accepted', async () => {
    render.actor.setStatus(database.id, 'maintenance_in_progress');
    expect((await ask('POST', `${path}/credentials`, { username: freshName() })).status).toBe(400);
    render.switches.createWhileNotAvailable = 'allow';
    await create();
    render.actor.setStatus(database.id, 'available');
  });

  const owned: Record<string, { given: RenderSwitches['ownedObjects']; status: number; table: number }> = {
    'is refused': { given: 'refuse', status: 400, table: 1 },
    'gives its tables to the owner role': { given: 'reassign', status: 200, table: 1 },
    'loses its tables': { given: 'lost', status: 200, table: 0 },
  };
  test.each(Object.entries(owned))('the deletion of an owner %s', async (_what, { given, status, table }) => {
    const username = await create();
    const client = await logIn(ground, await info());
    await client.query(`CREATE TABLE ${username}_notes (text text)`);
    await client.end();
    await supersede();
    render.switches.ownedObjects = given;
    expect((await remove(username)).status).toBe(status);
    const rows = await ground.postgres.query(
      'SELECT FROM pg_tables WHERE tablename = $1',
      [`${username}_notes`],
      database.databaseName,
    );
    expect(rows).toHaveLength(table);
  });

  test('credentials of a replica are refused, unknown, or those of the primary', async () => {
    const replica = render.addReplica(database.id);
    expect(replica.id).toBe(database.id.replace(/a$/, 'b'));
    const call = () => ask('GET', `/v1/postgres/${replica.id}/credentials`);
    expect((await call()).status).toBe(400);
    render.switches.replicas = 'not-found';
    expect((await call()).status).toBe(404);
    render.switches.replicas = 'accept';
    expect(((await call()).json as Listed[]).map((user) => user.username)).toEqual(await names());
    expect((await ask('GET', `/v1/postgres/${replica.id}`)).json).toMatchObject({
      role: 'replica',
      primaryPostgresID: database.id,
    });
  });
});

describe('what deviates from the schema', () => {
  test('fields can be missing from the list and hostile names be in it', async () => {
    render.switches.openConnections = 'missing';
    render.switches.defaultFlag = 'missing';
    render.switches.hostileNames = ['..', '.', 'a/b', 'x y', '', 'x'.repeat(64)];
    const seen = await list();
    expect(Object.keys(seen[0] ?? {})).toEqual(['username', 'createdAt']);
    expect(seen.map((user) => user.username)).toEqual(expect.arrayContaining(['..', '.', 'a/b', 'x y', '']));
  });

  test.each([
    [6, '.123456Z'],
    [8, '.12345678Z'],
    [9, '.123456789Z'],
  ] as const)('timestamps have %i digits', async (digits, end) => {
    render.switches.fractionDigits = digits;
    expect((await list())[0]?.createdAt.slice(19)).toBe(end);
  });

  test('the allow-list can be null and the pool unmentioned', async () => {
    expect((await ask('GET', path)).json).toMatchObject({ connectionPool: 'none', ipAllowList: [{}] });
    render.switches.ipAllowList = 'null';
    render.switches.connectionPool = 'missing';
    const { json } = await ask('GET', path);
    expect(json).toMatchObject({ ipAllowList: null });
    expect(json).not.toHaveProperty('connectionPool');
  });

  test('connection-info can have pool strings, the other scheme, no port, and a password that disagrees', async () => {
    render.switches.poolStrings = true;
    render.switches.scheme = 'postgres';
    render.switches.portInExternal = false;
    render.switches.passwordMismatches = 1;
    const { json } = await ask('GET', `${path}/connection-info`);
    expect(json).toHaveProperty('externalConnectionPoolString');
    const url = new URL((json as Info).externalConnectionString);
    expect([url.protocol, url.port]).toEqual(['postgres:', '']);
    expect((json as Info).password).not.toBe(url.password);
    const again = await info();
    expect(again.field).toBe(again.password);
  });
});

describe('the database', () => {
  test('it is described with status, suspension, role and current user', async () => {
    const username = await create();
    expect((await ask('GET', path)).json).toMatchObject({
      id: database.id,
      databaseName: database.databaseName,
      databaseUser: username,
      status: 'available',
      suspended: 'not_suspended',
      role: 'primary',
      version: '18',
    });
  });

  test('an unknown one is not found', async () => {
    expect(await ask('GET', '/v1/postgres/dpg-unknown')).toMatchObject({
      status: 404,
      text: '{"message":"not found: dpg-unknown"}\n',
    });
  });

  test('databases are listed page by page', async () => {
    await Promise.all(['page_a', 'page_b', 'page_c'].map((name) => render.addDatabase({ name })));
    const seen: string[] = [];
    for (let cursor = ''; ; ) {
      const { json } = await ask('GET', `/v1/postgres?limit=2&includeReplicas=false&cursor=${cursor}`);
      const page = json as { cursor: string; postgres: { id: string } }[];
      seen.push(...page.map((item) => item.postgres.id));
      cursor = page.at(-1)?.cursor ?? '';
      if (page.length < 2) break;
    }
    expect(seen).toContain(database.id);
    expect(seen).toEqual([...new Set(seen)]);
    const { json } = await ask('GET', '/v1/postgres?name=page_b');
    expect(json).toMatchObject([{ postgres: { name: 'page_b' } }]);
  });
});

describe('people at the vendor', () => {
  test('a person takes the default away between our creation and our reading', async () => {
    render.faults.inject({
      operation: 'createUser',
      kind: 'meanwhile',
      run: () => render.actor.createUser(database.id, 'jane'),
    });
    const username = await create();
    expect([await defaultOf(), (await info()).user]).toEqual(['jane', 'jane']);
    await render.actor.makeDefault(database.id, username);
    expect((await info()).user).toBe(username);
    await render.actor.deleteUser(database.id, 'jane');
    expect(await names()).not.toContain('jane');
  });

  test('a suspended database says so and lets nobody in', async () => {
    await create();
    const login = await info();
    render.actor.suspend(database.id);
    expect((await ask('GET', path)).json).toMatchObject({ suspended: 'suspended', status: 'suspended' });
    expect(await tryLogIn(ground, login)).toBe('3D000');
    render.actor.resume(database.id);
    expect(await tryLogIn(ground, login)).toBe(`logged in as ${login.user}`);
  });

  test('a deleted database is not found until it is restored', async () => {
    render.actor.deleteDatabase(database.id);
    expect((await ask('GET', path)).status).toBe(404);
    expect((await ask('GET', `${path}/credentials`)).status).toBe(404);
    render.actor.restoreDatabase(database.id);
    expect((await ask('GET', path)).status).toBe(200);
  });
});

describe('gates', () => {
  test('a call without a known key is refused, and so is one whose key was revoked', async () => {
    expect((await ask('GET', path, undefined, { authorization: '' })).status).toBe(401);
    const second = { authorization: 'Bearer rnd_2' };
    expect((await ask('GET', path, undefined, second)).status).toBe(200);
    render.actor.revokeKey('rnd_2');
    expect((await ask('GET', path, undefined, second)).status).toBe(401);
  });

  test('every answer carries the state of the budget and a request id', async () => {
    for (const { headers } of [await ask('GET', path), await remove('never_made')])
      expect(headers).toMatchObject({
        'ratelimit-limit': expect.stringMatching(/^(400|30)$/),
        'ratelimit-remaining': expect.stringMatching(/^\d+$/),
        'ratelimit-reset': '60',
        'render-request-id': expect.stringMatching(/^[0-9a-f-]{36}$/),
      });
    render.switches.resetHeader = 'epoch';
    const { headers } = await ask('GET', path);
    expect(Number(headers['ratelimit-reset'])).toBeGreaterThan(1e9);
  });

  test('writes and reads have budgets of their own, for a minute', async () => {
    render.switches.limits = { reads: 5, writes: 2 };
    await remove('never_made');
    await remove('never_made');
    const over = await remove('never_made');
    expect(over).toMatchObject({
      status: 429,
      json: { message: 'rate limit exceeded' },
      headers: { 'retry-after': '60', 'ratelimit-remaining': '0' },
    });
    expect((await ask('GET', path)).status).toBe(200);
    clock.move(60_000);
    expect((await remove('never_made')).status).toBe(404);
  });
});

describe('catastrophes', () => {
  test.each(['', '/'])(
    'a DELETE of the database itself with "%s" at its end is recorded and carried out',
    async (end) => {
      const doomed = await render.addDatabase({ name: `doomed${end === '' ? '' : '_slash'}` });
      const before = render.catastrophes.length;
      const answer = await ask('DELETE', `/v1/postgres/${doomed.id}${end}`);
      expect([answer.status, answer.text]).toEqual([204, '']);
      expect(render.catastrophes.slice(before)).toMatchObject([
        { operation: 'deleteDatabase', path: `/v1/postgres/${doomed.id}${end}`, status: 204 },
      ]);
      expect(doomed.isDeleted).toBe(true);
      expect((await ask('GET', `/v1/postgres/${doomed.id}/credentials`)).status).toBe(404);
    },
  );

  test('a folded name reaches the database, and a PATCH is recorded too', async () => {
    const doomed = await render.addDatabase({ name: 'folded' });
    const before = render.catastrophes.length;
    await ask('PATCH', `/v1/postgres/${doomed.id}`, { plan: 'free' });
    await ask('DELETE', `/v1/postgres/${doomed.id}/credentials/${encodeURIComponent('..')}`);
    expect(render.catastrophes.slice(before).map(({ operation }) => operation)).toEqual([
      'changeDatabase',
      'deleteDatabase',
    ]);
    expect(doomed.isDeleted).toBe(true);
  });

  test('nothing in the record of calls is a key or a password', async () => {
    await create();
    const { password } = await info();
    const record = JSON.stringify(render.calls);
    expect(record).not.toContain('rnd_1');
    expect(record).not.toContain(password);
  });
});
