import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import vultrNode from '@vultr/vultr-node';
import { Redis } from 'iovalkey';
import type { Dispatcher } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { installedServers, startValkey, type Valkey } from '../../../../infra/local/engines/valkey.ts';
import { startValkeyFront, type ValkeyFront } from '../../../../infra/local/engines/valkey-front.ts';
import { createCertificateAuthority, type Network, startNetwork } from '../../../../infra/local/network.ts';
import { addVultrOrders } from '../../../../infra/local/providers/fixtures.ts';
import {
  createVultrValkey,
  type VultrDatabaseView,
  type VultrSwitches,
  type VultrValkey,
} from '../../../../infra/local/providers/vultr-valkey.ts';
import { type Ask, createAsk, createMovableClock, proxied } from './stand-in.ts';

const password = 'correct-Horse-7-battery';
const other = 'another-Horse-8-battery';
const databaseId = '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21';
const here = `/v2/databases/${databaseId}`;
const users = `${here}/users`;
const kinds = [...(await installedServers()), 'stand-in'] as const;

describe.each(kinds)('Vultr before a %s', (kind) => {
  let valkey: Valkey;
  let front: ValkeyFront;
  let vultr: VultrValkey;
  let database: VultrDatabaseView;
  let network: Network;
  let dispatcher: Dispatcher;
  let site: Server;
  let ask: Ask;
  let caPem: string;
  let defaults: VultrSwitches;
  const clock = createMovableClock('2026-03-01T12:00:00Z');
  const clients: Redis[] = [];
  let made = 0;
  const freshName = (): string => {
    made += 1;
    return `orders_api_${made}`;
  };

  beforeAll(async () => {
    const authority = await createCertificateAuthority();
    caPem = authority.caPem;
    valkey = await startValkey({ kind });
    front = await startValkeyFront({ valkey, certificate: await authority.certificate(['localhost']) });
    vultr = createVultrValkey({ valkey, front, clock, apiKeys: ['KEY1', 'KEY2'], caPem });
    database = await addVultrOrders(vultr, valkey, { id: databaseId });
    network = await startNetwork({ authority, hosts: { [vultr.host]: vultr.listener } });
    dispatcher = proxied(network);
    ask = createAsk({
      base: 'https://api.vultr.com',
      dispatcher,
      headers: { authorization: 'Bearer KEY1' },
    });
    site = createServer(vultr.listener).listen(0, '127.0.0.1');
    await once(site, 'listening');
    defaults = structuredClone(vultr.switches);
  });
  beforeEach(() => {
    clock.move(60_000); // a full budget of calls
  });
  afterEach(() => {
    Object.assign(vultr.switches, structuredClone(defaults));
    vultr.faults.clear();
    front.faults.clear();
    for (const client of clients.splice(0)) client.disconnect();
  });
  afterAll(async () => {
    expect(vultr.calls.filter(({ defect }) => defect !== undefined)).toEqual([]);
    site.close();
    await dispatcher.destroy();
    await network.close();
    await front.close();
    await valkey.stop();
  });

  const set = (switches: Partial<VultrSwitches>): void => void Object.assign(vultr.switches, switches);
  const create = async (username = freshName()): Promise<string> => {
    expect(await ask('POST', users, { username, password })).toMatchObject({ status: 202 });
    return username;
  };
  const userOf = async (username: string): Promise<unknown> => {
    const { json } = await ask('GET', `${users}/${username}`);
    return (json as { user: unknown }).user;
  };
  const connect = async (username: string, secret = password): Promise<Redis> => {
    const client = new Redis({
      host: front.host,
      port: front.port,
      tls: { ca: caPem },
      lazyConnect: true,
      enableReadyCheck: false,
      retryStrategy: () => null,
    });
    client.on('error', () => {});
    clients.push(client);
    await client.connect();
    await client.call('AUTH', username, secret);
    return client;
  };
  /** What AUTH is answered with. */
  const login = (username: string, secret = password): Promise<string> =>
    connect(username, secret).then(
      () => 'OK',
      (error: Error) => error.message.split(' ', 1)[0] ?? '',
    );

  describe('the eight operations', () => {
    test('answer with their own codes and bodies, passwords in clear, the port as text', async () => {
      const username = freshName();
      const acl = { acl_categories: ['+@all'], acl_channels: ['*'], acl_commands: [], acl_keys: ['*'] };
      const user = { username, password, access_control: acl };
      expect(await ask('GET', '/v2/databases?label=orders')).toMatchObject({
        status: 200,
        json: { databases: [{ id: databaseId, label: 'orders' }], meta: { total: 1 } },
      });
      expect(await ask('GET', here)).toMatchObject({
        status: 200,
        json: {
          database: {
            ...{ id: databaseId, status: 'Running', database_engine: 'valkey', user: 'default' },
            ...{ host: 'localhost', port: String(front.port), ca_certificate: caPem },
            password: expect.stringMatching(/^AVNS_/),
          },
        },
      });
      expect(await ask('POST', users, { username, password })).toMatchObject({ status: 202, json: { user } });
      expect(await ask('GET', `${users}/${username}`)).toMatchObject({ status: 200, json: { user } });
      const { json } = await ask('GET', users);
      const names = ((json as { users: { username: string }[] }).users ?? []).map(
        (listed) => listed.username,
      );
      expect(names).toEqual(['default', 'reporting', ...names.slice(2, -1), username]);
      expect(json).toMatchObject({ meta: { total: names.length } });
      expect(await ask('PUT', `${users}/${username}`, { password: other })).toMatchObject({
        status: 202,
        json: { user: { ...user, password: other } },
      });
      const narrow = {
        acl_categories: ['+@read'],
        acl_channels: [],
        acl_commands: [],
        acl_keys: ['orders:*'],
      };
      expect(await ask('PUT', `${users}/${username}/access-control`, narrow)).toMatchObject({
        status: 202,
        json: { user: { username, password: other, access_control: narrow } },
      });
      expect(await ask('DELETE', `${users}/${username}`)).toMatchObject({ status: 204, text: '' });
    });

    test('change the engine: logins, rights, and connections of who is deleted', async () => {
      const username = await create();
      expect([await login(username), await login(username, other)]).toEqual(['OK', 'WRONGPASS']);
      await ask('PUT', `${users}/${username}`, { password: other });
      expect([await login(username), await login(username, other)]).toEqual(['WRONGPASS', 'OK']);
      const client = await connect(username, other);
      await ask('PUT', `${users}/${username}/access-control`, {
        ...{
          acl_categories: ['+@read'],
          acl_commands: ['+set'],
          acl_keys: ['orders:*'],
          acl_channels: ['news'],
        },
      });
      expect(await client.get('orders:latest')).toBe('tea');
      await expect(client.get('customers:1')).rejects.toThrow('NOPERM');
      await expect(client.del('orders:latest')).rejects.toThrow('NOPERM');
      expect(await database.rules(username)).toMatch(/~orders:\* .*&news .*\+@read.*\+set/);
      const ended = once(client, 'close');
      await ask('DELETE', `${users}/${username}`);
      await ended;
      expect(await database.users()).not.toContain(username);
      expect(await login(username, other)).toBe('WRONGPASS');
    });

    test('keep live connections through a new password, unless they are to end', async () => {
      const username = await create();
      const client = await connect(username);
      await ask('PUT', `${users}/${username}`, { password: other });
      expect(await client.ping()).toBe('PONG');
      set({ connectionsAfterPassword: 'ended' });
      const ended = once(client, 'close');
      await ask('PUT', `${users}/${username}`, { password });
      await ended;
    });
  });

  describe('passwords', () => {
    test('are made by Vultr where none is given', async () => {
      const username = freshName();
      const { json } = await ask('POST', users, { username });
      const { password: first } = (json as { user: { password: string } }).user;
      expect(first).toMatch(/^AVNS_/);
      expect(await login(username, first)).toBe('OK');
      const answer = await ask('PUT', `${users}/${username}`, { password: '' });
      const { password: second } = (answer.json as { user: { password: string } }).user;
      expect(second).toMatch(/^AVNS_/);
      expect(second).not.toBe(first);
    });

    test.each([400, 422] as const)('cannot be left out of a change (%d)', async (missingPassword) => {
      const username = await create();
      set({ missingPassword });
      expect(await ask('PUT', `${users}/${username}`, {})).toMatchObject({ status: missingPassword });
    });

    test.each([400, 422] as const)('may be refused as the same ones (%d)', async (samePassword) => {
      const username = await create();
      expect(await ask('PUT', `${users}/${username}`, { password })).toMatchObject({ status: 202 });
      set({ samePassword });
      expect(await ask('PUT', `${users}/${username}`, { password })).toMatchObject({ status: samePassword });
    });

    test('are told before the engine takes them: in minutes, or never', async () => {
      const username = await create();
      set({ engineAfterMs: { ...defaults.engineAfterMs, setPassword: 120_000 } });
      await ask('PUT', `${users}/${username}`, { password: other });
      expect(await userOf(username)).toMatchObject({ password: other });
      expect([await login(username), await login(username, other)]).toEqual(['OK', 'WRONGPASS']);
      clock.move(120_000);
      await expect.poll(() => login(username, other)).toBe('OK');
      set({ engineAfterMs: { ...defaults.engineAfterMs, setPassword: Number.POSITIVE_INFINITY } });
      await ask('PUT', `${users}/${username}`, { password });
      clock.move(86_400_000);
      expect([await login(username), await login(username, other)]).toEqual(['WRONGPASS', 'OK']);
    });

    test('that come late do not undo newer ones', async () => {
      const username = await create();
      set({ engineAfterMs: { ...defaults.engineAfterMs, setPassword: 60_000 } });
      await ask('PUT', `${users}/${username}`, { password: 'an-outdated-password' });
      set({ engineAfterMs: defaults.engineAfterMs });
      await ask('PUT', `${users}/${username}`, { password: other });
      clock.move(60_000);
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(await login(username, other)).toBe('OK');
    });

    test('may be left out of answers', async () => {
      const username = await create();
      set({ passwords: 'left-out' });
      expect((await ask('GET', users)).text).not.toContain('"password"');
      expect(await userOf(username)).not.toHaveProperty('password');
    });
  });

  describe('access control', () => {
    test('goes by its old names', async () => {
      const username = await create();
      set({ aclNames: 'redis_acl' });
      expect(await userOf(username)).toMatchObject({ access_control: { redis_acl_categories: ['+@all'] } });
    });

    test('may be absent, told in lists alone, reversed, or null where empty', async () => {
      const username = await create();
      set({ accessControl: 'nowhere' });
      expect(await userOf(username)).not.toHaveProperty('access_control');
      set({ accessControl: 'in-list-only' });
      expect(await userOf(username)).not.toHaveProperty('access_control');
      expect((await ask('GET', users)).text).toContain('access_control');
      set({ accessControl: 'everywhere', emptyList: 'null', order: 'reversed' });
      await ask('PUT', `${users}/${username}/access-control`, { acl_categories: ['+@read', '+@write'] });
      expect(await userOf(username)).toMatchObject({
        access_control: { acl_categories: ['+@write', '+@read'], acl_commands: null },
      });
    });

    test.each([
      ['keeps', ['*']],
      ['resets', []],
    ] as const)('%s what is left out', async (omittedAcl, keys) => {
      const username = await create();
      set({ omittedAcl });
      await ask('PUT', `${users}/${username}/access-control`, { acl_categories: ['+@read'] });
      expect(await userOf(username)).toMatchObject({ access_control: { acl_keys: keys } });
    });

    test('may be nothing at birth', async () => {
      set({ defaultAcl: 'empty' });
      const username = await create();
      const client = await connect(username);
      await expect(client.ping()).rejects.toThrow('NOPERM');
    });

    test('that the engine does not know is refused, and nothing changes', async () => {
      const username = await create();
      const path = `${users}/${username}/access-control`;
      expect(await ask('PUT', path, { acl_categories: ['+@nosuch'] })).toMatchObject({ status: 422 });
      expect(await ask('PUT', path, { acl_categories: 'all' })).toMatchObject({ status: 422 });
      expect(await userOf(username)).toMatchObject({ access_control: { acl_categories: ['+@all'] } });
      expect((await database.users()).filter((name) => name.startsWith('rekey_trial'))).toEqual([]);
    });
  });

  describe('the list', () => {
    const names = async (query = '') => {
      const { json } = await ask('GET', `${users}${query}`);
      const { users: listed, meta } = json as {
        users: { username: string }[];
        meta: { total?: number; links?: { next: string } };
      };
      return { names: listed.map(({ username }) => username), meta };
    };

    test('holds whatever it is told to, such as `..`, and hides others', async () => {
      const username = await create();
      set({ listedOnly: ['..'], unlisted: [username] });
      expect((await names()).names).toContain('..');
      expect((await names()).names).not.toContain(username);
    });

    test('may tell of more than it holds, or of no total', async () => {
      set({ total: 'one-more' });
      const more = await names();
      expect(more.meta.total).toBe(more.names.length + 1);
      set({ total: 'absent' });
      expect((await names()).meta).toEqual({});
    });

    test('may have pages after all', async () => {
      await create();
      const whole = (await names()).names;
      set({ pageSize: 2 });
      const read: string[] = [];
      for (let cursor = '?'; cursor !== ''; ) {
        const page = await names(cursor);
        read.push(...page.names);
        const next = page.meta.links?.next ?? '';
        cursor = next === '' ? '' : `?cursor=${encodeURIComponent(next)}`;
      }
      expect(read).toEqual(whole);
      set({ repeatedCursor: true });
      const one = (await names()).meta.links?.next ?? '';
      expect((await names(`?cursor=${encodeURIComponent(one)}`)).meta.links?.next).toBe(one);
      expect(one).not.toBe('');
    });

    test('follows a deletion late where it lags', async () => {
      const username = await create();
      set({ delays: { userListed: {}, userUnlisted: { ms: 5_000 } } });
      await ask('DELETE', `${users}/${username}`);
      expect((await names()).names).toContain(username);
      expect(await database.users()).not.toContain(username);
      clock.move(5_000);
      expect((await names()).names).not.toContain(username);
    });

    test('follows a creation late where it lags', async () => {
      set({ delays: { userListed: { polls: 1 }, userUnlisted: {} } });
      const username = await create();
      expect((await names()).names).not.toContain(username);
      expect((await names()).names).toContain(username);
    });
  });

  describe('refusals', () => {
    test.each([
      ['error', { error: 'Not a valid database user' }],
      ['error-and-status', { error: 'Not a valid database user', status: 404 }],
    ] as const)('come with a body of the kind %s', async (errorBody, json) => {
      set({ errorBody });
      const answer = await ask('GET', `${users}/nobody`);
      expect([answer.status, answer.json]).toEqual([404, json]);
    });

    test.each(['empty', 'html', 'text'] as const)('come without JSON: %s', async (errorBody) => {
      set({ errorBody, missingUser: 422 });
      const answer = await ask('GET', `${users}/nobody`);
      expect([answer.status, answer.json]).toEqual([422, undefined]);
    });

    test.each([400, 422] as const)('of a name that exists (%d) change nothing', async (duplicate) => {
      const username = await create();
      set({ duplicate });
      expect(await ask('POST', users, { username, password: other })).toMatchObject({ status: duplicate });
      expect(await login(username)).toBe('OK');
    });

    test('of a name that exists may be a new password', async () => {
      const username = await create();
      set({ duplicate: 'changes-password' });
      expect(await ask('POST', users, { username, password: other })).toMatchObject({ status: 202 });
      expect(await login(username, other)).toBe('OK');
    });

    test.each(['', 'with blank', undefined])('of the name %s', async (username) => {
      expect(await ask('POST', users, { username, password })).toMatchObject({ status: 422 });
    });

    test.each([400, 404, 422] as const)('of a database that is not there (%d)', async (status) => {
      set({ missingDatabase: { status, error: 'invalid database ID' } });
      expect(await ask('GET', '/v2/databases/none/users')).toMatchObject({
        status,
        json: { error: 'invalid database ID' },
      });
    });

    test('of whatever is no path', async () => {
      for (const path of [
        '/v2/instances',
        '/v1/databases',
        `${here}/dbs`,
        `${users}/a/b`,
        `${users}/a/b/c`,
        `${users}/`,
      ])
        expect((await ask('GET', path)).status, path).toBe(404);
    });

    test.each([401, 403] as const)(
      'of a key, or of the address that it is used from (%d)',
      async (refusedKey) => {
        set({ refusedKey });
        const wrong = await ask('GET', users, undefined, { authorization: 'Bearer NONE' });
        expect(wrong.status).toBe(refusedKey);
        vultr.actor.allowAddress(false);
        const answer = await ask('GET', users);
        vultr.actor.allowAddress(true);
        expect([answer.status, (answer.json as { error: string }).error]).toEqual([
          refusedKey,
          'Your IP (127.0.0.1) is not authorized to use this API key',
        ]);
        vultr.actor.revokeKey('KEY2');
        expect((await ask('GET', users, undefined, { authorization: 'Bearer KEY2' })).status).toBe(
          refusedKey,
        );
      },
    );

    test('of more than thirty calls in a second, with whatever Retry-After is asked for', async () => {
      const statuses: number[] = [];
      for (let call = 0; call < 31; call += 1) statuses.push((await ask('GET', here)).status);
      expect(statuses.lastIndexOf(200)).toBe(29);
      const without = await ask('GET', here);
      expect([without.status, without.json, without.headers['retry-after']]).toEqual([
        429,
        { status: 429, error: 'rate limit exceeded' },
        undefined,
      ]);
      set({ rateLimited: { status: 503, retryAfter: 9 } });
      const withHeader = await ask('GET', here);
      expect([withHeader.status, withHeader.headers['retry-after']]).toEqual([503, '9']);
    });

    const states = {
      work: 200,
      'refuse-400': 400,
      'refuse-422': 422,
      'call-names-invalid': 400,
    } as const;
    test.each(Object.entries(states))('while it is not running: %s', async (whileNotRunning, status) => {
      set({ whileNotRunning: whileNotRunning as keyof typeof states });
      vultr.actor.setStatus(databaseId, 'Rebuilding');
      const answer = await ask('GET', users);
      expect(await ask('GET', here)).toMatchObject({ json: { database: { status: 'Rebuilding' } } });
      vultr.actor.setStatus(databaseId, 'Running');
      expect(answer.status).toBe(status);
    });

    test('of changes to the default user, unless they are allowed', async () => {
      expect(await ask('PUT', `${users}/default`, { password })).toMatchObject({ status: 400 });
      expect(await ask('DELETE', `${users}/default`)).toMatchObject({ status: 400 });
      set({ defaultUser: 'allowed' });
      expect(await ask('PUT', `${users}/default`, { password })).toMatchObject({ status: 202 });
    });
  });

  describe('what gets lost', () => {
    test.each(['timeout-after-apply', 'reset-after-apply'] as const)(
      '%s: the user is there, and nobody was told',
      async (fault) => {
        const username = freshName();
        vultr.faults.inject({ operation: 'createUser', kind: fault });
        await expect(ask('POST', users, { username, password })).rejects.toThrow();
        expect(await login(username)).toBe('OK');
      },
    );

    test.each([500, 429])('a %d after it was done', async (status) => {
      const username = freshName();
      vultr.faults.inject({ operation: 'createUser', kind: 'status', status, applied: true });
      expect(await ask('POST', users, { username, password })).toMatchObject({ status });
      expect(await login(username)).toBe('OK');
    });

    test('a 202 for what never happened', async () => {
      const username = await create();
      vultr.faults.inject({ operation: 'setPassword', kind: 'pretend' });
      expect(await ask('PUT', `${users}/${username}`, { password: other })).toMatchObject({ status: 202 });
      expect(await login(username)).toBe('OK');
    });
  });

  test('hosts, ports and certificates may look otherwise', async () => {
    set({ host: 'private', port: 'number', ca: 'absent', engine: 'pg' });
    const { json } = await ask('GET', here);
    const { database: told } = json as { database: Record<string, unknown> };
    expect(told).toMatchObject({
      ...{ host: 'orders.private.example', public_host: 'localhost', port: front.port },
      database_engine: 'pg',
    });
    expect(told).not.toHaveProperty('ca_certificate');
  });

  test('what other people do reaches engine and API alike', async () => {
    const username = freshName();
    const acl = { categories: ['+@read'], commands: [], keys: ['*'], channels: [] };
    await vultr.actor.createUser(username, password, acl);
    expect(await userOf(username)).toMatchObject({ access_control: { acl_categories: ['+@read'] } });
    await vultr.actor.setPassword(username, other);
    await vultr.actor.setAccessControl(username, { ...acl, categories: ['+@write'] });
    expect(database.recorded(username)?.categories).toEqual(['+@write']);
    await vultr.actor.allowLogins(username, false);
    expect(await login(username, other)).toBe('WRONGPASS');
    await vultr.actor.deleteUser(username);
    expect(await database.users()).not.toContain(username);
  });

  test('its calls are kept without a secret', async () => {
    await create();
    const kept = JSON.stringify(vultr.calls);
    expect(kept).not.toContain(password);
    expect(kept).not.toContain('KEY1');
  });

  describe('@vultr/vultr-node as it is', () => {
    const client = () =>
      vultrNode.initialize({
        apiKey: 'KEY1',
        baseUrl: `http://127.0.0.1:${(site.address() as AddressInfo).port}/v2`,
      }).databases;
    const target = { 'database-id': databaseId };

    test('takes a user through its life', async () => {
      const username = freshName();
      expect(await client().getDatabase(target)).toMatchObject({ database: { id: databaseId } });
      expect(await client().createDatabaseUser({ ...target, username, password })).toMatchObject({
        user: { username, password },
      });
      expect(await login(username)).toBe('OK');
      expect(await client().getDatabaseUser({ ...target, username })).toMatchObject({ user: { username } });
      expect(await client().updateDatabaseUser({ ...target, username, password: other })).toMatchObject({
        user: { username, password: other },
      });
      expect(await login(username, other)).toBe('OK');
      const { users: listed } = await client().listDatabaseUsers(target);
      expect(listed).toContainEqual(expect.objectContaining({ username }));
      expect(await client().deleteDatabaseUser({ ...target, username })).toBeUndefined();
      expect(await client().getDatabaseUser({ ...target, username })).toEqual(
        new Error('Not Found: Not a valid database user'),
      );
    });

    test('asked to delete the user `..` deletes the database, which is seen here', async () => {
      const doomed = await vultr.addDatabase({ label: 'doomed', humanUsers: [] });
      await client().deleteDatabaseUser({ 'database-id': doomed.id, username: '..' });
      expect(doomed.isDeleted).toBe(true);
      expect(vultr.catastrophes.map(({ operation, method, path }) => [operation, method, path])).toEqual([
        ['deleteDatabase', 'DELETE', `/v2/databases/${doomed.id}/`],
      ]);
    });
  });
});
