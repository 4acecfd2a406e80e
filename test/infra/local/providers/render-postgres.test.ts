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
import type {
  RenderDeploySwitches,
  RenderService,
} from '../../../../infra/local/providers/render-services.ts';
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

describe('services', () => {
  let service: RenderService;
  let here: string;
  beforeEach(() => {
    service = render.addService({ name: 'orders-api', variables: { PORT: '8080', DATABASE_URL: 'old' } });
    here = `/v1/services/${service.id}`;
  });
  const stages = async (times: number): Promise<readonly (string | undefined)[]> => {
    const seen: (string | undefined)[] = [];
    for (let turn = 0; turn < times; turn += 1) {
      seen.push(service.deploys()[0]?.status);
      clock.move(10_000);
    }
    return seen;
  };
  interface ListedDeploy {
    readonly deploy: { readonly id: string; readonly status: string; readonly createdAt?: string };
    readonly cursor: string;
  }
  const listDeploys = async (query = ''): Promise<readonly ListedDeploy[]> =>
    (await ask('GET', `${here}/deploys${query}`)).json as ListedDeploy[];

  test('are live with what they were made with', () => {
    expect(service.id).toMatch(/^srv-[a-z0-9]{20}$/);
    expect(service.running()).toEqual({ PORT: '8080', DATABASE_URL: 'old' });
    expect(service.deploys()).toEqual([{ id: expect.stringMatching(/^dep-[a-z0-9]{20}$/), status: 'live' }]);
  });

  test('have variables that are read and set one by one', async () => {
    expect(await ask('GET', `${here}/env-vars/PORT`)).toMatchObject({
      status: 200,
      json: { key: 'PORT', value: '8080' },
    });
    expect(await ask('PUT', `${here}/env-vars/DATABASE_URL`, { value: 'new' })).toMatchObject({
      status: 200,
      json: { key: 'DATABASE_URL', value: 'new' },
    });
    expect(service.variables()).toEqual({ PORT: '8080', DATABASE_URL: 'new' });
    expect((await ask('GET', `${here}/env-vars/NONE`)).status).toBe(404);
    expect((await ask('GET', `${here}/env-vars/constructor`)).status).toBe(404);
    expect((await ask('PUT', `${here}/env-vars/PORT`, {})).status).toBe(400);
    expect((await ask('GET', '/v1/services/srv-00000000000000000000/env-vars/PORT')).status).toBe(404);
  });

  test('run with a variable only once a deploy that started after it was set is live', async () => {
    await ask('PUT', `${here}/env-vars/DATABASE_URL`, { value: 'new' });
    const { status, json } = await ask('POST', `${here}/deploys`, { deployMode: 'deploy_only' });
    expect([status, json]).toEqual([201, expect.objectContaining({ status: 'created', trigger: 'api' })]);
    await ask('PUT', `${here}/env-vars/DATABASE_URL`, { value: 'newer' });
    expect(service.running()['DATABASE_URL']).toBe('old');
    expect(await stages(4)).toEqual(['created', 'build_in_progress', 'update_in_progress', 'live']);
    expect(service.running()['DATABASE_URL']).toBe('new');
    expect(service.deploys().map((deploy) => deploy.status)).toEqual(['live', 'deactivated']);
  });

  test('may as well run with what was set until the deploy is put in place', async () => {
    render.switches.deploys.variablesOf = 'update';
    await ask('POST', `${here}/deploys`);
    clock.move(15_000);
    render.actor.setVariable(service.id, 'DATABASE_URL', 'in time');
    clock.move(10_000);
    render.actor.setVariable(service.id, 'DATABASE_URL', 'too late');
    clock.move(10_000);
    expect(service.running()['DATABASE_URL']).toBe('in time');
  });

  const failures: Record<Exclude<RenderDeploySwitches['ends'], 'live'>, readonly string[]> = {
    build_failed: ['created', 'build_in_progress', 'build_failed', 'build_failed'],
    pre_deploy_failed: ['created', 'build_in_progress', 'pre_deploy_in_progress', 'pre_deploy_failed'],
    update_failed: ['created', 'build_in_progress', 'update_in_progress', 'update_failed'],
    canceled: ['created', 'build_in_progress', 'canceled', 'canceled'],
    never: ['created', 'build_in_progress', 'update_in_progress', 'update_in_progress'],
  };
  test.each(Object.entries(failures))(
    'keep what they run with where a deploy ends as %s',
    async (end, want) => {
      Object.assign(render.switches.deploys, { ends: end });
      await ask('PUT', `${here}/env-vars/DATABASE_URL`, { value: 'new' });
      await ask('POST', `${here}/deploys`);
      expect(await stages(4)).toEqual(want);
      expect(service.running()['DATABASE_URL']).toBe('old');
      expect(service.deploys()[1]?.status).toBe('live');
    },
  );

  test('list deploys from the newest on, page by page', async () => {
    const ids = [1, 2, 3].map(() => {
      clock.move(1_000);
      return render.actor.deploy(service.id);
    });
    const [first, second] = [await listDeploys('?limit=2'), await listDeploys()];
    expect(first.map(({ deploy }) => deploy.id)).toEqual([ids[2], ids[1]]);
    expect((await listDeploys(`?limit=2&cursor=${first[1]?.cursor}`))[0]?.deploy.id).toBe(ids[0]);
    expect(second).toHaveLength(4);
    expect(second[0]?.deploy.createdAt).toMatch(/^2026-.*\.\d{6}Z$/);
    expect((await ask('GET', `${here}/deploys?status=live`)).status).toBe(400);
    expect(await ask('GET', `${here}/deploys/${ids[0]}`)).toMatchObject({
      status: 200,
      json: { id: ids[0] },
    });
    expect((await ask('GET', `${here}/deploys/dep-none`)).status).toBe(404);
  });

  test('answer 202 without a body, list a deploy late, and refuse or queue a second one, as switched', async () => {
    render.switches.deploys.accepted = 202;
    render.switches.deploys.listed = { ms: 5_000 };
    expect(await ask('POST', `${here}/deploys`)).toMatchObject({ status: 202, text: '' });
    expect(await listDeploys()).toHaveLength(1);
    clock.move(5_000);
    expect(await listDeploys()).toHaveLength(2);
    render.switches.deploys.whileUnderWay = 'conflict';
    expect((await ask('POST', `${here}/deploys`)).status).toBe(409);
    render.switches.deploys.whileUnderWay = 'queue';
    expect((await ask('POST', `${here}/deploys`)).status).toBe(202);
    expect(await stages(7)).toEqual([
      'queued',
      'queued',
      'queued',
      'created',
      'build_in_progress',
      'update_in_progress',
      'live',
    ]);
  });

  test('take ten deploys a minute each, which count for nothing else', async () => {
    render.switches.limits = { reads: 5, writes: 1 };
    for (let turn = 0; turn < 10; turn += 1) expect((await ask('POST', `${here}/deploys`)).status).toBe(201);
    expect(await ask('POST', `${here}/deploys`)).toMatchObject({
      status: 429,
      headers: { 'ratelimit-limit': '10' },
    });
    const other = render.addService({ name: 'other' });
    expect((await ask('POST', `/v1/services/${other.id}/deploys`)).status).toBe(201);
    expect((await ask('PUT', `${here}/env-vars/PORT`, { value: '1' })).status).toBe(200);
    expect((await ask('PUT', `${here}/env-vars/PORT`, { value: '1' })).status).toBe(429);
  });

  test('lose every other variable to a PUT of the whole set, which is a catastrophe like a change of the service', async () => {
    const before = render.catastrophes.length;
    await ask('PUT', `${here}/env-vars`, [{ key: 'DATABASE_URL', value: 'new' }]);
    await ask('PATCH', here, { name: 'renamed' });
    await ask('DELETE', here);
    expect(render.catastrophes.slice(before).map(({ operation }) => operation)).toEqual([
      'replaceVariables',
      'changeService',
      'deleteService',
    ]);
    expect(service.variables()['PORT']).toBeUndefined();
    expect((await ask('GET', here)).status).toBe(404);
  });

  test('keep no value in the record of calls', async () => {
    await ask('PUT', `${here}/env-vars/DATABASE_URL`, { value: 'canaryValue0123456789' });
    await ask('GET', `${here}/env-vars/DATABASE_URL`);
    expect(JSON.stringify(render.calls)).not.toContain('canaryValue0123456789');
  });
});

describe('webhooks', () => {
  const types = (from: number) =>
    render.webhooks.events
      .slice(from)
      .map(({ type, serviceId, serviceName, username }) => [type, serviceId, serviceName, username]);
  const [created, deleted] = ['postgres_credentials_created', 'postgres_credentials_deleted'];

  test('tell of a user that was made or deleted, through the API or by somebody in the dashboard', async () => {
    const before = render.webhooks.events.length;
    const mine = await create();
    const theirs = freshName();
    await render.actor.createUser(database.id, theirs);
    expect((await remove(mine)).status).toBe(200);
    await supersede();
    await render.actor.deleteUser(database.id, theirs);
    expect(types(before)).toEqual([
      [created, database.id, 'orders', mine],
      [created, database.id, 'orders', theirs],
      [deleted, database.id, 'orders', mine],
      [created, database.id, 'orders', expect.any(String)],
      [deleted, database.id, 'orders', theirs],
    ]);
  });

  test('tell nothing of what was refused, and of what was done although the answer was lost', async () => {
    const name = await create();
    const before = render.webhooks.events.length;
    expect((await ask('POST', `${path}/credentials`, { username: name })).status).toBe(400);
    expect((await remove('nobody')).status).toBe(404);
    expect((await remove(name)).status).toBe(400);
    expect(types(before)).toEqual([]);
    render.faults.inject({ operation: 'createUser', kind: 'reset-after-apply' });
    const lost = freshName();
    await expect(ask('POST', `${path}/credentials`, { username: lost })).rejects.toThrow();
    expect(types(before)).toEqual([[created, database.id, 'orders', lost]]);
  });

  test('are managed under the same key as everything else', async () => {
    expect(await ask('GET', '/v1/webhooks?ownerId=tea-local0000000000000')).toMatchObject({
      status: 200,
      json: [],
    });
    expect(await ask('GET', '/v1/webhooks', undefined, { authorization: 'Bearer rnd_wrong' })).toMatchObject({
      status: 401,
    });
    expect(render.calls.at(-2)).toMatchObject({ operation: 'listWebhooks', status: 200 });
  });
});
