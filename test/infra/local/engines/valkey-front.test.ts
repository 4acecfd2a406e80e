import { Redis } from 'iovalkey';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { installedServers, startValkey, type Valkey } from '../../../../infra/local/engines/valkey.ts';
import {
  startValkeyFront,
  type ValkeyFront,
  type ValkeyLoginFaultKind,
} from '../../../../infra/local/engines/valkey-front.ts';
import { createCertificateAuthority } from '../../../../infra/local/network.ts';

const kinds = [...(await installedServers()), 'stand-in'] as const;

describe.each(kinds)('the TLS front of a %s', (kind) => {
  let valkey: Valkey;
  let front: ValkeyFront;
  let ca: string;
  const clients: Redis[] = [];
  beforeAll(async () => {
    const authority = await createCertificateAuthority();
    ca = authority.caPem;
    valkey = await startValkey({ kind });
    front = await startValkeyFront({ valkey, certificate: await authority.certificate(['localhost']) });
    for (const name of ['orders', 'other'])
      await valkey.call('ACL', 'SETUSER', name, 'on', '>some-password', '+@all', '~*');
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.disconnect();
    front.faults.clear();
    front.rules.disabled = 'unknown';
  });
  afterAll(async () => {
    await front.close();
    await valkey.stop();
  });

  const connect = async (): Promise<Redis> => {
    const client = new Redis({
      host: front.host,
      port: front.port,
      tls: { ca },
      lazyConnect: true,
      enableReadyCheck: false,
      enableOfflineQueue: false,
      retryStrategy: () => null,
      connectTimeout: 300,
      commandTimeout: 300,
    });
    client.on('error', () => {});
    clients.push(client);
    await client.connect();
    return client;
  };
  const say = async (client: Redis, ...[name = '', ...rest]: string[]): Promise<unknown> =>
    client.call(name, ...rest).catch((error: Error) => error.message);
  const logIn = async (user = 'orders', password = 'some-password') => {
    const client = await connect();
    return { client, said: await say(client, 'AUTH', user, password) };
  };

  test('passes logins and commands on, many at once and in order', async () => {
    const { client, said } = await logIn();
    expect(said).toBe('OK');
    const values = ['one', 'two', 'x'.repeat(200_000), ''];
    await Promise.all(values.map((value, index) => client.set(`key:${index}`, value)));
    expect(await Promise.all(values.map((_value, index) => client.get(`key:${index}`)))).toEqual(values);
  });

  test('knows who is connected, and ends them', async () => {
    const mine = (await logIn()).client;
    await logIn('other');
    const ended = new Promise((resolve) => mine.once('close', resolve));
    expect(front.connections().map(({ user }) => user)).toEqual(['orders', 'other']);
    expect(front.connections('orders')[0]?.clientAddress).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(front.closeConnections('orders')).toBe(1);
    await ended;
    expect(front.connections().map(({ user }) => user)).toEqual(['other']);
  });

  test('counts nobody who was refused', async () => {
    expect((await logIn('orders', 'wrong')).said).toMatch(/^WRONGPASS/);
    expect(front.connections()).toEqual([]);
    expect(front.logins.at(-1)).toBe('orders');
  });

  test('takes HELLO for a login, too', async () => {
    const client = await connect();
    expect(await say(client, 'HELLO', '2', 'AUTH', 'orders', 'some-password')).toContain('proto');
    expect(front.connections('orders')).toHaveLength(1);
  });

  test('does not know the administrator of the engine', async () => {
    const { user, password } = valkey.admin;
    expect((await logIn(user, password)).said).toMatch(/^WRONGPASS/);
  });

  const refusals = {
    unknown: /^ERR unknown command 'ACL', with args beginning with: 'LIST' /,
    'no-permission': /^NOPERM User orders has no permissions to run the 'acl\|list' command$/,
    none: /^user default/,
  } as const;
  test.each(Object.entries(refusals))('keeps commands for itself: %s', async (disabled, says) => {
    const { client } = await logIn();
    front.rules.disabled = disabled as keyof typeof refusals;
    expect(String(await say(client, 'ACL', 'LIST'))).toMatch(says);
    expect(String(await say(client, 'CLIENT', 'LIST'))).toContain('user=orders');
  });

  const answers: Record<Exclude<ValkeyLoginFaultKind, 'no-answer' | 'reset'>, RegExp> = {
    'password-refused': /^WRONGPASS/,
    loading: /^LOADING/,
    'too-many-connections': /^ERR max number of clients reached/,
    'unknown-command': /^ERR unknown command 'AUTH'/,
    garbage: /Connection is closed|Protocol error/,
  };
  test.each(Object.entries(answers))(
    'answers a login with %s, as often as it is told to',
    async (fault, says) => {
      front.faults.inject({ kind: fault as ValkeyLoginFaultKind, times: 1 });
      expect((await logIn()).said).toMatch(says);
      expect((await logIn()).said).toBe('OK');
    },
  );

  test.each(['no-answer', 'reset'] as const)(
    'meets one user with %s after TLS, and all before it',
    async (fault) => {
      front.faults.inject({ kind: fault, user: 'orders' });
      expect((await logIn('orders')).said).not.toBe('OK');
      expect((await logIn('other')).said).toBe('OK');
      front.faults.clear();
      front.faults.inject({ kind: fault });
      await expect(connect()).rejects.toThrow();
    },
  );
});
