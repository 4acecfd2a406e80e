import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Postgres, quoteIdentifier, startPostgres } from '../../../../infra/local/engines/postgres.ts';
import { scramVerifier } from '../../../../infra/local/engines/scram.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'rekey-test-'));
  await chmod(directory, 0o755);
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};
const serverPid = async (postgres: Postgres): Promise<number> => {
  const [row] = await postgres.query(
    "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int AS pid",
  );
  return Number(row?.['pid']);
};
const connectAs = async (postgres: Postgres, user: string, password: string): Promise<pg.Client> => {
  const client = new pg.Client({
    host: postgres.host,
    port: postgres.port,
    user,
    password,
    database: 'postgres',
  });
  await client.connect();
  return client;
};

describe('a PostgreSQL of our own', () => {
  test('answers, makes databases, and leaves neither process nor file behind', async () => {
    const postgres = await startPostgres({ directory });
    const pid = await serverPid(postgres);
    await postgres.createDatabase('a "quoted" name');
    expect(await postgres.query('SELECT current_database() AS name', [], 'a "quoted" name')).toEqual([
      { name: 'a "quoted" name' },
    ]);
    expect(await postgres.query('SELECT $1::int + 1 AS two', [1])).toEqual([{ two: 2 }]);
    await Promise.all([postgres.stop(), postgres.stop()]);
    expect(isAlive(pid)).toBe(false);
    expect(await readdir(directory)).toEqual([]);
  });

  test('stops although clients are still connected', async () => {
    const postgres = await startPostgres({ directory });
    const client = await connectAs(postgres, postgres.superuser.user, postgres.superuser.password);
    client.on('error', () => {});
    const ended = new Promise((resolve) => client.once('end', resolve));
    await postgres.stop();
    await ended;
  });

  test('takes another port when the first one is taken', async () => {
    const squatter = createServer().listen(0, '127.0.0.1');
    await once(squatter, 'listening');
    const address = squatter.address();
    const taken = typeof address === 'object' && address !== null ? address.port : 0;
    const postgres = await startPostgres({ directory, port: taken });
    const answer = await postgres.query('SELECT 1 AS one');
    await postgres.stop();
    squatter.close();
    expect(postgres.port).not.toBe(taken);
    expect(answer).toEqual([{ one: 1 }]);
  });

  test('its log holds no password, not even one from a statement that failed', async () => {
    const lines: string[] = [];
    const postgres = await startPostgres({ directory, log: (line) => lines.push(line) });
    await expect(postgres.query("ALTER ROLE nobody_here PASSWORD 'clear-text'")).rejects.toMatchObject({
      code: '42704',
    });
    await expect(connectAs(postgres, 'nobody_here', 'clear-text')).rejects.toMatchObject({ code: '28P01' });
    const { password } = postgres.superuser;
    await postgres.stop();
    const log = lines.join('\n');
    expect(log).toContain('ready to accept connections');
    expect(log).not.toContain('clear-text');
    expect(log).not.toContain(password);
  });

  test('a role with a SCRAM verifier logs in with the password that it was made from', async () => {
    const postgres = await startPostgres({ directory });
    const role = quoteIdentifier('Odd "name"');
    await postgres.query(`CREATE ROLE ${role} LOGIN PASSWORD '${scramVerifier('p\u00e4ss w\u00f6rd')}'`);
    const client = await connectAs(postgres, 'Odd "name"', 'p\u00e4ss w\u00f6rd');
    const { rows } = await client.query('SELECT current_user AS me');
    await client.end();
    await expect(connectAs(postgres, 'Odd "name"', 'other')).rejects.toMatchObject({ code: '28P01' });
    await postgres.stop();
    expect(rows).toEqual([{ me: 'Odd "name"' }]);
  });
});

describe('whoever starts it', () => {
  test('the server does not run as root', async () => {
    const postgres = await startPostgres({ directory });
    const { stdout } = await promisify(execFile)('ps', [
      '-o',
      'uid=',
      '-p',
      String(await serverPid(postgres)),
    ]);
    await postgres.stop();
    expect(Number(stdout)).toBeGreaterThan(0);
  });

  test('a directory that is closed to other users is no obstacle', async () => {
    await chmod(directory, 0o700);
    const postgres = await startPostgres({ directory });
    const answer = await postgres.query('SELECT 1 AS one');
    await postgres.stop();
    expect([answer, await readdir(directory)]).toEqual([[{ one: 1 }], []]);
  });
});

describe('when the process that started it is killed', () => {
  const source = `
    import { startPostgres } from ${JSON.stringify(new URL('../../../../infra/local/engines/postgres.ts', import.meta.url).href)};
    const postgres = await startPostgres({ directory: process.argv[1] });
    const [row] = await postgres.query("SELECT split_part(pg_read_file('postmaster.pid'), E'\\\\n', 1) AS pid");
    process.stdout.write(row.pid + '\\n');
    setInterval(() => {}, 1000);`;
  const startChild = async (): Promise<{ child: ChildProcess; pid: number }> => {
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', source, directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    return { child, pid: Number(line) };
  };

  test('the server ends and its directory goes', async () => {
    const { child, pid } = await startChild();
    expect(isAlive(pid)).toBe(true);
    child.kill('SIGKILL');
    await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false);
    await expect.poll(() => readdir(directory), { timeout: 10_000 }).toEqual([]);
  });
});
