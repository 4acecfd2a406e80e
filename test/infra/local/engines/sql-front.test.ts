import { connect } from 'node:net';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { scramVerifier } from '../../../../infra/local/engines/scram.ts';
import type { LoginFaultKind } from '../../../../infra/local/engines/sql-front.ts';
import { type Ground, logIn, startGround, tryLogIn } from '../providers/stand-in.ts';

let ground: Ground;
const password = 'a password of the front';
const app = { user: 'app', password, database: 'postgres' };
beforeAll(async () => {
  ground = await startGround();
  await ground.postgres.query(`CREATE ROLE app LOGIN PASSWORD '${scramVerifier(password)}'`);
});
afterEach(() => {
  ground.front.faults.clear();
  Object.assign(ground.front.rules, { foldUsernames: false });
  delete ground.front.rules.hasDatabase;
  delete ground.front.rules.beforeLogin;
  delete ground.front.rules.afterRoleChange;
});
afterAll(() => ground.stop());

describe('logging in through the front', () => {
  test('works with verified TLS, by name and by address', async () => {
    for (const host of ['localhost', '127.0.0.1']) {
      const client = new pg.Client({
        ...app,
        host,
        port: ground.front.port,
        ssl: { ca: ground.authority.caPem },
      });
      await client.connect();
      expect((await client.query('SELECT current_user AS me')).rows).toEqual([{ me: 'app' }]);
      await client.end();
    }
  });

  test('fails without TLS, and where the authority is not trusted', async () => {
    const plain = new pg.Client({ ...app, host: 'localhost', port: ground.front.port });
    await expect(plain.connect()).rejects.toMatchObject({ code: '28000', message: 'SSL/TLS required' });
    const wary = new pg.Client({ ...app, host: 'localhost', port: ground.front.port, ssl: {} });
    await expect(wary.connect()).rejects.toThrow(/self-signed|unable to verify|issuer/i);
  });

  test('a wrong password and an unknown user are refused alike', async () => {
    expect(await tryLogIn(ground, { ...app, password: 'wrong' })).toBe('28P01');
    expect(await tryLogIn(ground, { ...app, user: 'nobody' })).toBe('28P01');
  });

  test('names are folded only where the vendor folds them', async () => {
    expect(await tryLogIn(ground, { ...app, user: 'APP' })).toBe('28P01');
    ground.front.rules.foldUsernames = true;
    expect(await tryLogIn(ground, { ...app, user: 'APP' })).toBe('logged in as app');
  });

  test('databases can be hidden', async () => {
    ground.front.rules.hasDatabase = (name) => name === 'orders';
    expect(await tryLogIn(ground, app)).toBe('3D000');
  });

  test('a vendor rule can refuse a login', async () => {
    ground.front.rules.beforeLogin = async ({ user }) => ({ code: '28000', message: `not ${user}` });
    await expect(logIn(ground, app)).rejects.toMatchObject({ code: '28000', message: 'not app' });
  });

  test('garbage and early leavers do no harm', async () => {
    for (const bytes of [
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      Buffer.alloc(0),
      Buffer.from([0, 0, 0, 8, 4]),
    ]) {
      const socket = connect(ground.front.port, '127.0.0.1');
      socket.on('error', () => {});
      await new Promise((resolve) => socket.once('connect', resolve));
      socket.end(bytes);
      socket.resume();
      await new Promise((resolve) => socket.once('close', resolve));
    }
    expect(await tryLogIn(ground, app)).toBe('logged in as app');
  });
});

describe('live connections', () => {
  test('are listed with who, from where, with what and since when, until they end', async () => {
    const client = await logIn(ground, { ...app, applicationName: 'orders-api' });
    const [connection] = ground.front.connections('app');
    expect(connection).toMatchObject({
      user: 'app',
      database: 'postgres',
      applicationName: 'orders-api',
      clientAddress: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      startedAt: expect.any(Date),
    });
    expect(ground.front.connections('other')).toEqual([]);
    await client.end();
    await expect.poll(() => ground.front.connections('app')).toEqual([]);
    await expect
      .poll(() => ground.postgres.query("SELECT FROM pg_stat_activity WHERE usename = 'app'"))
      .toEqual([]);
  });

  test('can be cut, by user', async () => {
    const client = await logIn(ground, app);
    const ended = new Promise((resolve) => client.once('end', resolve));
    expect([ground.front.closeConnections('other'), ground.front.closeConnections('app')]).toEqual([0, 1]);
    await ended;
  });

  test('carry answers of any size in both directions', async () => {
    const client = await logIn(ground, app);
    const text = 'x'.repeat(3_000_000);
    const { rows } = await client.query('SELECT $1::text AS text, generate_series(1, 3) AS n', [text]);
    await client.end();
    expect(rows.map((row) => row.text.length)).toEqual([3_000_000, 3_000_000, 3_000_000]);
  });

  test('can have a running query cancelled', async () => {
    const client = await logIn(ground, app);
    const query = client.query('SELECT pg_sleep(30)');
    await expect
      .poll(() => ground.postgres.query("SELECT FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'"))
      .toHaveLength(1);
    const { processID, secretKey } = client as unknown as { processID: number; secretKey: number };
    const message = Buffer.alloc(16);
    for (const [at, value] of [16, 80_877_102, processID, secretKey].entries())
      message.writeInt32BE(value, at * 4);
    const socket = connect(ground.front.port, '127.0.0.1').on('error', () => {});
    socket.end(message);
    await expect(query).rejects.toMatchObject({ code: '57014' });
    await client.end();
  });
});

describe('rules while connected', () => {
  test('the vendor hears of role changes once they are committed, before the client goes on', async () => {
    const order: string[] = [];
    ground.front.rules.afterRoleChange = async () => void order.push('heard');
    const client = await logIn(ground, {
      user: ground.postgres.superuser.user,
      password: ground.postgres.superuser.password,
      database: 'postgres',
    });
    const step = async (sql: string): Promise<void> => {
      await client.query(sql);
      order.push(sql);
    };
    await step('BEGIN');
    await step('CREATE ROLE clerk');
    await step('COMMIT');
    await step('GRANT clerk TO app');
    await step('SELECT 1');
    await client.end();
    expect(order).toEqual([
      'BEGIN',
      'CREATE ROLE clerk',
      'heard',
      'COMMIT',
      'heard',
      'GRANT clerk TO app',
      'SELECT 1',
    ]);
  });
});

describe('login faults', () => {
  const refusals: Record<string, { kind: LoginFaultKind; code: string; message: RegExp }> = {
    'a password that is not valid yet': {
      kind: 'password-refused',
      code: '28P01',
      message: /^password authentication failed for user app$/,
    },
    'no login privilege, as CockroachDB says it': {
      kind: 'no-login-privilege',
      code: '28000',
      message: /^app does not have login privilege$/,
    },
    'no login privilege, as PostgreSQL says it': {
      kind: 'not-permitted',
      code: '28000',
      message: /^role "app" is not permitted to log in$/,
    },
    'host-based rules': {
      kind: 'rejected-by-configuration',
      code: '28000',
      message: /^authentication rejected by configuration$/,
    },
    'an unknown cluster': { kind: 'routing-failed', code: '08004', message: /^CodeParamsRoutingFailed: / },
    'too many clients': { kind: 'too-many-connections', code: '53300', message: /too many clients/ },
    'a server that is still starting': { kind: 'starting-up', code: '57P03', message: /starting up/ },
  };
  test.each(Object.entries(refusals))('%s', async (_what, { kind, code, message }) => {
    ground.front.faults.inject({ kind, user: 'app', times: 1 });
    await expect(logIn(ground, app)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    expect(await tryLogIn(ground, app)).toBe('logged in as app');
  });

  test.each([undefined, 'app'])('no answer at all, for user %s', async (user) => {
    ground.front.faults.inject({ kind: 'no-answer', times: 1, ...(user === undefined ? {} : { user }) });
    expect(await tryLogIn(ground, app, 200)).toMatch(/timeout/i);
    expect(await tryLogIn(ground, app)).toBe('logged in as app');
  });

  test.each([undefined, 'app'])('a cut connection, for user %s', async (user) => {
    ground.front.faults.inject({ kind: 'reset', times: 1, ...(user === undefined ? {} : { user }) });
    expect(await tryLogIn(ground, app)).toMatch(/ECONNRESET|Connection terminated/);
    expect(await tryLogIn(ground, app)).toBe('logged in as app');
  });

  test('other users are spared, and a fault ends at its time', async () => {
    ground.front.faults.inject({ kind: 'password-refused', user: 'other' });
    ground.front.faults.inject({ kind: 'password-refused', until: new Date(0) });
    expect(await tryLogIn(ground, app)).toBe('logged in as app');
    ground.front.faults.inject({ kind: 'password-refused', user: 'app' });
    expect([await tryLogIn(ground, app), await tryLogIn(ground, app)]).toEqual(['28P01', '28P01']);
  });
});
