import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Redis } from 'iovalkey';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  installedServers,
  startValkey,
  type Valkey,
  type ValkeyKind,
} from '../../../../infra/local/engines/valkey.ts';

const servers = await installedServers();
const kinds: readonly ValkeyKind[] = [...servers, 'stand-in'];

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe.each(kinds)('a Valkey of our own (%s)', (kind) => {
  let directory: string;
  let valkey: Valkey;
  const lines: string[] = [];
  const clients: Redis[] = [];
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'rekey-test-'));
    valkey = await startValkey({ directory, kind, log: (line) => lines.push(line) });
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.disconnect();
  });
  afterAll(async () => {
    await Promise.all([valkey.stop(), valkey.stop()]);
    const left = await readdir(directory);
    await rm(directory, { recursive: true, force: true });
    expect(left).toEqual([]);
    expect(lines.join('\n')).not.toContain(valkey.admin.password);
  });

  const connect = async (): Promise<Redis> => {
    const { host, port } = valkey;
    const client = new Redis({
      host,
      port,
      lazyConnect: true,
      enableReadyCheck: false,
      enableOfflineQueue: false,
      retryStrategy: () => null,
    });
    client.on('error', () => {});
    clients.push(client);
    await client.connect();
    return client;
  };
  /** What a client is told: the reply, or the text of the error. */
  const say = async (client: Redis, ...[name = '', ...rest]: string[]): Promise<unknown> =>
    client.call(name, ...rest).catch((error: Error) => error.message);
  const logIn = async (user: string, password: string): Promise<Redis> => {
    const client = await connect();
    expect(await say(client, 'AUTH', user, password)).toBe('OK');
    return client;
  };
  const tryIn = async (user: string, password: string) => say(await connect(), 'AUTH', user, password);
  let users = 0;
  const user = async (...rules: string[]): Promise<string> => {
    users += 1;
    const name = `app_${kind.replaceAll('-', '_')}_${users}`;
    await valkey.call('ACL', 'SETUSER', name, 'on', '>first-password', ...rules);
    return name;
  };
  const wrongPass = 'WRONGPASS invalid username-password pair or user is disabled.';

  test('says what it is', () => {
    expect(valkey.kind).toBe(kind);
  });

  test('answers nobody without a login', async () => {
    expect(await say(await connect(), 'GET', 'x')).toBe('NOAUTH Authentication required.');
    expect(await tryIn('default', '')).toBe(wrongPass);
  });

  test('takes the right password, and says one thing of a wrong one, an unknown and a disabled user', async () => {
    const name = await user('+@all', '~*');
    expect(await tryIn(name, 'first-password')).toBe('OK');
    expect(await tryIn(name, 'wrong')).toBe(wrongPass);
    expect(await tryIn('nobody', 'wrong')).toBe(wrongPass);
    await valkey.call('ACL', 'SETUSER', name, 'off');
    expect(await tryIn(name, 'first-password')).toBe(wrongPass);
  });

  test('takes HELLO with a login, too', async () => {
    const name = await user('-@all');
    expect(await say(await connect(), 'HELLO', '2', 'AUTH', name, 'first-password')).toContain('proto');
    expect(await say(await connect(), 'HELLO', '2', 'AUTH', name, 'wrong')).toBe(wrongPass);
  });

  test('lets a user do what its rules say and nothing else', async () => {
    const name = await user('-@all', '+@read', '+set', '-exists', '~orders:*');
    const client = await logIn(name, 'first-password');
    expect(await say(client, 'SET', 'orders:1', 'tea')).toBe('OK');
    expect(await say(client, 'GET', 'orders:1')).toBe('tea');
    for (const command of [
      ['PING'],
      ['EXISTS', 'orders:1'],
      ['DEL', 'orders:1'],
      ['ACL', 'WHOAMI'],
      ['CLIENT', 'INFO'],
    ])
      expect(await say(client, ...command), command.join(' ')).toMatch(/^NOPERM .*permissions to run the/);
    expect(await say(client, 'GET', 'customers:1')).toMatch(/^NOPERM .*key/);
  });

  test('knows no command of a made-up name, and no category either', async () => {
    const client = await logIn(await user('+@all', '~*'), 'first-password');
    expect(await say(client, 'NOSUCH', 'a')).toMatch(/^ERR unknown command 'NOSUCH'/);
    await expect(valkey.call('ACL', 'SETUSER', 'never_made', '+@nosuch')).rejects.toThrow(
      "ERR Error in ACL SETUSER modifier '+@nosuch'",
    );
    expect(await valkey.call('ACL', 'GETUSER', 'never_made')).toBeNull();
  });

  test('keeps several passwords of a user, and connections through a change of them', async () => {
    const name = await user('+@all', '~*');
    const client = await logIn(name, 'first-password');
    await valkey.call('ACL', 'SETUSER', name, '>second-password');
    expect([await tryIn(name, 'first-password'), await tryIn(name, 'second-password')]).toEqual(['OK', 'OK']);
    await valkey.call('ACL', 'SETUSER', name, '<first-password');
    expect(await tryIn(name, 'first-password')).toBe(wrongPass);
    await valkey.call('ACL', 'SETUSER', name, 'resetpass', '>third-password');
    expect(await tryIn(name, 'second-password')).toBe(wrongPass);
    expect(await say(client, 'PING')).toBe('PONG');
    expect(await say(client, 'AUTH', name, 'wrong')).toBe(wrongPass);
    expect(await say(client, 'PING'), 'a failed AUTH leaves a connection as it was').toBe('PONG');
    await expect(valkey.call('ACL', 'SETUSER', name, '<nothing')).rejects.toThrow(
      'The password you are trying to remove from the user does not exist',
    );
  });

  test('applies narrower rights to open connections at once', async () => {
    const name = await user('+@all', '~*');
    const client = await logIn(name, 'first-password');
    await valkey.call('ACL', 'SETUSER', name, '-@all');
    expect(await say(client, 'PING')).toMatch(/^NOPERM/);
  });

  test('ends the connections of a user who is deleted, and of nobody else', async () => {
    const [gone, stays] = [await user('+@all', '~*'), await user('+@all', '~*')];
    const [client, other] = [await logIn(gone, 'first-password'), await logIn(stays, 'first-password')];
    const ended = once(client, 'close');
    expect(await valkey.call('ACL', 'DELUSER', gone)).toBe(1);
    await ended;
    expect(await say(other, 'PING')).toBe('PONG');
    expect(await tryIn(gone, 'first-password')).toBe(wrongPass);
    expect(await valkey.call('ACL', 'DELUSER', gone)).toBe(0);
    await expect(valkey.call('ACL', 'DELUSER', 'default')).rejects.toThrow(
      "ERR The 'default' user cannot be removed",
    );
  });

  test('lists its clients and kills those of one user', async () => {
    const name = await user('+@all', '~*');
    const client = await logIn(name, 'first-password');
    await say(client, 'CLIENT', 'SETNAME', 'orders-api');
    const line = String(await valkey.call('CLIENT', 'LIST'))
      .split('\n')
      .find((text) => text.includes(`user=${name}`));
    expect(line).toMatch(/addr=127\.0\.0\.1:\d+ .*name=orders-api age=\d+ .*cmd=client\|setname/);
    const ended = once(client, 'close');
    expect(await valkey.call('CLIENT', 'KILL', 'USER', name)).toBe(1);
    await ended;
    await expect(valkey.call('CLIENT', 'KILL', 'USER', 'nobody')).rejects.toThrow(
      "ERR No such user 'nobody'",
    );
  });

  test('holds verifiers, never passwords', async () => {
    const name = await user('+@read', '~orders:*', '&news');
    const described = JSON.stringify(await valkey.call('ACL', 'GETUSER', name));
    expect(described).not.toContain('first-password');
    expect(described).toMatch(/[0-9a-f]{64}.*\+@read.*~orders:\*.*&news/);
    const listed = JSON.stringify(await valkey.call('ACL', 'LIST'));
    expect(listed).toContain(`user ${name} on`);
    expect(listed).not.toContain('first-password');
    await expect(valkey.call('ACL', 'SETUSER', 'with blank', 'on')).rejects.toThrow(/^ERR /);
  });
});

test.each(servers)('a %s whose first port is taken takes another', async (kind) => {
  const squatter = createServer().listen(0, '127.0.0.1');
  await once(squatter, 'listening');
  const address = squatter.address();
  const taken = typeof address === 'object' && address !== null ? address.port : 0;
  const valkey = await startValkey({ port: taken, kind });
  const answer = await valkey.call('PING');
  await valkey.stop();
  squatter.close();
  expect(valkey.port).not.toBe(taken);
  expect(answer).toBe('PONG');
});

test.each(servers)('a %s ends with the process that started it, however that ends', async (kind) => {
  const directory = await mkdtemp(join(tmpdir(), 'rekey-test-'));
  const source = `
    import { startValkey } from ${JSON.stringify(new URL('../../../../infra/local/engines/valkey.ts', import.meta.url).href)};
    const valkey = await startValkey({ directory: process.argv[1], kind: process.argv[2] });
    const info = await valkey.call('INFO', 'server');
    process.stdout.write(/process_id:(\\d+)/.exec(info)[1] + '\\n');
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', source, directory, kind], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  const pid = Number(line);
  expect(isAlive(pid)).toBe(true);
  child.kill('SIGKILL');
  await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false);
  await expect.poll(() => readdir(directory), { timeout: 10_000 }).toEqual([]);
  await rm(directory, { recursive: true, force: true });
});

test('a server that is not installed is no surprise', async () => {
  const path = process.env['PATH'];
  process.env['PATH'] = '';
  try {
    const valkey = await startValkey();
    expect(valkey.kind).toBe('stand-in');
    await valkey.stop();
    await expect(startValkey({ kind: 'valkey-server' })).rejects.toThrow(
      'valkey-server is not on the PATH, expected an installed server',
    );
  } finally {
    process.env['PATH'] = path;
  }
});
