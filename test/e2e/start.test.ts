import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  GetSecretValueCommand,
  ListSecretsCommand,
  RotateSecretCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { idlePermissions, sometimesIdlePermissions } from './idle-permissions.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Everything that a run leaves on disk would be in here. */
let temporary = '';
beforeEach(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'start-test-'));
  await chmod(temporary, 0o711);
});
afterEach(() => rm(temporary, { recursive: true, force: true }));

/** `npm start` as its script has it, as the leader of a process group, as in a terminal. */
function start(...options: readonly string[]) {
  const child = spawn(process.execPath, ['infra/local/main.ts', ...options], {
    cwd: root,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: temporary },
  });
  return { child, ended: once(child, 'close'), output: text(child.stdout), errors: text(child.stderr) };
}

/** Logical ids end in eight characters that CDK makes of the path. */
const withoutHashes = (text: string): string => text.replaceAll(/(?:[0-9A-F]{8})+(?=[ .])/g, '');

const pressCtrlC = (child: ChildProcess): void => {
  process.kill(-(child.pid ?? 0), 'SIGINT');
};

/** Processes of the run that are still there: in its group, or with its directory on their command line. */
async function leftOver(child: ChildProcess): Promise<readonly string[]> {
  const listing = spawn('ps', ['-A', '-o', 'pgid=,args='], { stdio: ['ignore', 'pipe', 'ignore'] });
  const lines = (await text(listing.stdout)).split('\n');
  return lines.filter((line) => line.includes(temporary) || line.trim().startsWith(`${child.pid} `));
}

async function expectNothingLeft(child: ChildProcess): Promise<void> {
  await expect.poll(() => leftOver(child), { timeout: 5_000 }).toEqual([]);
  expect(await readdir(temporary)).toEqual([]);
}

test('npm start -- --json tells the whole life of each credential in one document, and leaves nothing behind', async () => {
  const { child, ended, output, errors } = start('--json');
  const [code] = await ended;
  expect(await errors).toBe('');
  const outcome: {
    providers: Record<string, unknown>[];
    resetPassword: { refusedLogins: number; refusedForMs: number; atMostMs: number };
    webhooks: Record<string, number>;
    audit: { records: number; verified: boolean };
    access: { judged: number; refused: string[]; idle: string[] };
    days: number;
  } = JSON.parse(await output);
  const life = (provider: string, drift: { found: number; repaired: number }, users: number) => ({
    provider,
    strategy: 'replace-user',
    logins: expect.toSatisfy((logins: number) => logins >= 500),
    failedLogins: 0,
    created: 1,
    rotated: 3,
    retired: 2,
    driftFound: drift.found,
    driftRepaired: drift.repaired,
    deleted: 1,
    users,
  });
  expect(outcome.providers).toEqual([
    // Found: somebody's default user, which stays, and a service pointed elsewhere. Left: the default that nobody can log in as.
    life('render-postgres', { found: 2, repaired: 1 }, 1),
    life('cockroachdb-cloud', { found: 1, repaired: 1 }, 0),
    life('vultr-valkey', { found: 1, repaired: 1 }, 0),
    life('zilliz-cloud', { found: 1, repaired: 1 }, 0),
  ]);
  expect(code).toBe(0);
  const atLeast = (least: number) => expect.toSatisfy((count: number) => count >= least);
  expect(outcome.webhooks).toEqual({
    received: atLeast(6),
    expected: atLeast(4),
    // One that somebody made while the webhook worked, and one while it did not.
    foreign: 2,
    // The user that was made while the webhook failed, and the event about it.
    caughtUp: atLeast(2),
  });
  expect(outcome.audit).toEqual({
    records: expect.toSatisfy((records: number) => records > 60),
    verified: true,
  });
  expect(outcome.access.refused).toEqual([]);
  expect(outcome.access.judged).toBeGreaterThan(3_000);
  // Without any other permission, or with a statement less, this run would have been refused something.
  const idle = outcome.access.idle.map(withoutHashes).filter((one) => !(one in sometimesIdlePermissions));
  expect(idle.toSorted()).toEqual(Object.keys(idlePermissions).toSorted());
  expect(outcome.days).toBeGreaterThan(28);
  expect(outcome.resetPassword).toMatchObject({ provider: 'cockroachdb-cloud' });
  // Somebody with one user only is refused for a while, and is told for how long.
  expect(outcome.resetPassword.refusedLogins).toBeGreaterThan(0);
  expect(outcome.resetPassword.refusedForMs).toBeGreaterThan(0);
  expect(outcome.resetPassword.atMostMs).toBeGreaterThan(0);
  await expectNothingLeft(child);
}, 300_000);

describe('npm start ends cleanly on Ctrl-C', () => {
  test.each([300, 2_500, 7_000])('after %i ms', async (ms) => {
    const { child, ended } = start();
    await pause(ms);
    pressCtrlC(child);
    const [code, signal] = await ended;
    // A shell reports 130 for both: ended by our handler, or before there was one.
    expect(signal === 'SIGINT' || code === 130).toBe(true);
    await expectNothingLeft(child);
  });
});

test('an unknown option is answered with the usage, and nothing is started', async () => {
  const { ended, errors } = start('--jsno');
  expect((await ended)[0]).toBe(2);
  expect(await errors).toMatch(/--jsno[\s\S]*usage: npm start/);
});

test('npm start -- --stay can be used with the plain AWS SDK: list, read, log in, rotate, log in again', async () => {
  const { child, ended } = start('--stay');
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  await expect.poll(() => said, { timeout: 240_000, interval: 200 }).toContain('rotate-secret');
  const setting = (name: string): string => new RegExp(`${name}=(\\S+)`).exec(said)?.[1] ?? '';
  const client = new SecretsManagerClient({
    endpoint: setting('AWS_ENDPOINT_URL'),
    region: setting('AWS_REGION'),
    credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
  });
  const ca = await readFile(setting('PGSSLROOTCERT'), 'utf8');

  const { SecretList = [] } = await client.send(new ListSecretsCommand({}));
  const names = SecretList.map(({ Name }) => Name);
  expect(names).toEqual(expect.arrayContaining(['rekey/orders-render', 'rekey/orders-cockroach']));

  const read = async (name: string): Promise<Record<string, string>> =>
    JSON.parse((await client.send(new GetSecretValueCommand({ SecretId: name }))).SecretString ?? '');
  const logIn = async (value: Record<string, string>): Promise<unknown> => {
    const session = new pg.Client({
      host: value['host'] ?? '',
      port: Number(value['port']),
      user: value['username'] ?? '',
      password: value['password'] ?? '',
      database: value['dbname'] ?? '',
      ssl: { ca },
    });
    await session.connect();
    const { rows } = await session.query('SELECT current_user AS name');
    await session.end();
    return rows[0]?.name;
  };
  for (const name of ['rekey/orders-render', 'rekey/orders-cockroach']) {
    const before = await read(name);
    expect(await logIn(before)).toBe(before['username']);
    await client.send(new RotateSecretCommand({ SecretId: name }));
    await expect
      .poll(async () => (await read(name))['username'], { timeout: 30_000, interval: 200 })
      .not.toBe(before['username']);
    const after = await read(name);
    expect(await logIn(after)).toBe(after['username']);
    expect(await logIn(before)).toBe(before['username']);
  }
  client.destroy();
  pressCtrlC(child);
  await ended;
  await expectNothingLeft(child);
}, 300_000);
