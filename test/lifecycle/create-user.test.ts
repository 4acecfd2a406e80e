import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { addCockroachdbOrders, addRenderOrders } from '../../infra/local/providers/fixtures.ts';
import { deaths, startTestRekey, type TestRekey, token } from '../support/rekey.ts';
import { isWrite, useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const clusterId = '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10';
const postgresId = 'dpg-d1abc2d3e4f5g6h7i8j9-a';
let rekey: TestRekey;

beforeAll(async () => {
  const { cockroachdb } = vendors();
  await addCockroachdbOrders(cockroachdb.api, cockroachdb.postgres, { id: clusterId });
  await addRenderOrders(vendors().render.api, vendors().render.postgres, { id: postgresId });
  rekey = await startTestRekey(vendors);
});
afterAll(() => rekey.stop());
beforeEach(() => {
  rekey.failures.length = 0;
  rekey.killAt(undefined);
});

let names = 0;
const spec = (overrides: object = {}) => {
  names += 1;
  return {
    name: `orders-${names}`,
    provider: 'cockroachdb-cloud',
    target: { clusterId },
    apiKeySecret: 'rekey/api-keys/cockroachdb',
    usernamePrefix: `o${names}`,
    privileges: { roles: ['orders_rw'] },
    ...overrides,
  };
};
const usersAt = async (prefix: string): Promise<number> =>
  (
    await vendors().cockroachdb.postgres.query('SELECT 1 FROM pg_roles WHERE rolname LIKE $1', [
      `${prefix}\\_%`,
    ])
  ).length;

const refusal = async (document: object): Promise<unknown> =>
  rekey.request(document).then(
    () => 'it went on',
    (error: unknown) => error,
  );

describe('a requested credential', () => {
  test('gets its spec, its secret with the constant first value, and a first rotation that makes its user', async () => {
    const wanted = spec();
    await rekey.request(wanted);
    const first = await rekey.describe(wanted.name);
    expect(first.RotationEnabled).toBe(true);
    await rekey.secretsManager.idle();
    expect(await rekey.login(wanted.name, 'AWSCURRENT')).toMatchObject({
      host: 'localhost',
      database: 'defaultdb',
    });
    expect(await rekey.login(wanted.name, 'AWSPREVIOUS')).toBeUndefined();
    expect(await usersAt(wanted.usernamePrefix)).toBe(1);
    expect(
      rekey
        .published()
        .filter(({ detail }) => detail['credential'] === wanted.name)
        .map((event) => event['detail-type']),
    ).toEqual(expect.arrayContaining(['CredentialCreated', 'DatabaseUserCreated', 'CredentialRotated']));
    expect(rekey.failures).toEqual([]);
  });

  test('is not made twice by an event that comes again, at once, at the same time or much later', async () => {
    const wanted = spec();
    await Promise.all([rekey.request(wanted), rekey.request(wanted)]);
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    const login = await rekey.login(wanted.name, 'AWSCURRENT');
    await rekey.rotate(wanted.name);
    const rotated = await rekey.login(wanted.name, 'AWSCURRENT');
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    expect((await rekey.login(wanted.name, 'AWSCURRENT'))?.username).toBe(rotated?.username);
    expect(login?.username).not.toBe(rotated?.username);
    expect(await usersAt(wanted.usernamePrefix)).toBe(2);
  });

  test('killed between any two calls and requested again, it converges to one user that works', async () => {
    const measured = spec();
    rekey.killAt(undefined);
    await rekey.request(measured);
    await rekey.secretsManager.idle();
    const calls = [...rekey.calls];
    const wrong: string[] = [];
    for (const { call, when, name: at } of deaths(calls)) {
      const wanted = spec();
      rekey.killAt({ call, when });
      // Killed here it is the bus that delivers again; killed in the rotation it is Secrets Manager that retries.
      await rekey.request(wanted).catch(() => rekey.request(wanted));
      await rekey.secretsManager.idle();
      const users = await usersAt(wanted.usernamePrefix);
      if ((await rekey.login(wanted.name, 'AWSCURRENT')) === undefined || users !== 1)
        wrong.push(`killed ${when} call ${call} (${at}): ${users} users`);
    }
    expect(calls.length).toBeGreaterThan(20);
    expect(wrong).toEqual([]);
  });

  test('with a spec that is wrong is refused before anything is stored', async () => {
    const wanted = spec({ usernamePrefix: 'NO', grace: 'soon', privileges: { roles: ['admin'] } });
    expect(await refusal(wanted)).toMatchObject({
      code: 'SPEC_INVALID',
      message: expect.stringMatching(/usernamePrefix: .*grace: .*privileges\.roles\.0: /),
    });
    await expect(rekey.describe(wanted.name)).rejects.toThrow();
    await expect(
      rekey.parameters.call('GetParameter', { Name: `/rekey/credentials/${wanted.name}` }),
    ).rejects.toThrow();
  });

  test('whose name has another spec already is refused, and that one stays', async () => {
    const wanted = spec();
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    expect(await refusal({ ...wanted, grace: 'PT1H' })).toMatchObject({
      code: 'SPEC_CONFLICT',
      effect: 'none',
    });
    const { Parameter } = (await rekey.parameters.call('GetParameter', {
      Name: `/rekey/credentials/${wanted.name}`,
    })) as { Parameter: { Value: string } };
    expect(JSON.parse(Parameter.Value)).toMatchObject({ grace: 'PT24H' });
  });

  test('whose secret is scheduled for deletion is refused, with what to do', async () => {
    const wanted = spec();
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    await rekey.secretsManager.call('DeleteSecret', { SecretId: `rekey/${wanted.name}` });
    expect(await refusal(wanted)).toMatchObject({
      code: 'DELETION_IN_PROGRESS',
      message: expect.stringContaining('restore it'),
    });
  });

  test('whose former secret is scheduled for deletion is refused before anything is stored', async () => {
    const wanted = spec();
    await rekey.secretsManager.call('CreateSecret', {
      Name: `rekey/${wanted.name}`,
      SecretString: '{}',
      ClientRequestToken: token(),
    });
    await rekey.secretsManager.call('DeleteSecret', { SecretId: `rekey/${wanted.name}` });
    expect(await refusal(wanted)).toMatchObject({ code: 'DELETION_IN_PROGRESS' });
    await expect(
      rekey.parameters.call('GetParameter', { Name: `/rekey/credentials/${wanted.name}` }),
    ).rejects.toThrow();
  });

  test('can be one that a deployment declared and that never rotated', async () => {
    const wanted = spec();
    await rekey.secretsManager.call('CreateSecret', {
      Name: `rekey/${wanted.name}`,
      SecretString: '{"rekey":"no user yet; the first rotation makes one"}',
      ClientRequestToken: 'a-token-of-cloudformation-0123456789',
    });
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    expect(await usersAt(wanted.usernamePrefix)).toBe(1);
  });

  test('that would be over already is refused, as is one whose prefix another credential of the target has', async () => {
    const over = spec({ expiresAt: '2026-01-01T00:00:00Z' });
    expect(await refusal(over)).toMatchObject({
      code: 'SPEC_INVALID',
      message: expect.stringContaining('expiresAt: expected an instant to come'),
    });
    const first = spec();
    await rekey.request(first);
    await rekey.secretsManager.idle();
    const twin = spec({ usernamePrefix: first.usernamePrefix });
    expect(await refusal(twin)).toMatchObject({
      code: 'SPEC_CONFLICT',
      message: expect.stringContaining(`is the prefix of ${first.name}`),
    });
    for (const { name } of [over, twin]) await expect(rekey.describe(name)).rejects.toThrow();
  });
});

describe('a credential that adopts a user', () => {
  const legacyPassword = 'Legacy-password-0123456789';
  /** A user that somebody made long before rekey, and the secret that holds its password. */
  async function legacy(username: string, password = legacyPassword): Promise<object> {
    vendors().keepSecret(password);
    await vendors().cockroachdb.api.actor.createUser(clusterId, username, legacyPassword);
    await vendors().cockroachdb.postgres.query(`GRANT orders_rw TO "${username}"`);
    await rekey.secretsManager.call('CreateSecret', {
      Name: `rekey/adopt/${username}`,
      SecretString: JSON.stringify({ username, password }),
      ClientRequestToken: token(),
    });
    return { username, passwordSecret: `rekey/adopt/${username}` };
  }

  test('names that user at once, changes nothing at the provider, and rotates away from it when it is due', async () => {
    const wanted = spec({ adopt: await legacy('legacy_app') });
    const writesBefore = vendors().requests.filter(isWrite).length;
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    const adopted = await rekey.login(wanted.name, 'AWSCURRENT');
    expect(adopted).toMatchObject({ username: 'legacy_app', host: 'localhost', database: 'defaultdb' });
    expect(adopted && (await vendors().logsIn(adopted))).toBe(true);
    expect((await rekey.describe(wanted.name)).RotationEnabled).toBe(true);
    expect(vendors().requests.filter(isWrite)).toHaveLength(writesBefore);
    expect(await usersAt(wanted.usernamePrefix)).toBe(0);
    expect(rekey.failures).toEqual([]);

    await rekey.rotate(wanted.name);
    const rotated = await rekey.login(wanted.name, 'AWSCURRENT');
    expect(rotated?.username).toMatch(new RegExp(`^${wanted.usernamePrefix}_`));
    expect(adopted && (await vendors().logsIn(adopted))).toBe(true);
    expect((await rekey.login(wanted.name, 'AWSPREVIOUS'))?.username).toBe('legacy_app');
  });

  test('takes where it connects from the vendor, also where the vendor makes the passwords', async () => {
    const { actor } = vendors().render.api;
    await actor.createUser(postgresId, 'legacy_render');
    vendors().clock.move(60_000);
    const { body } = await rekey.invoke(({ ports }) =>
      ports.http({
        method: 'GET',
        url: new URL(`https://api.render.com/v1/postgres/${postgresId}/connection-info`),
        headers: { authorization: new Sensitive(`Bearer ${vendors().apiKeys.render}`) },
        timeoutMs: 5_000,
        maxBodyBytes: 100_000,
        guard: 'reads-only',
      }),
    );
    const { password }: { password: string } = JSON.parse(body.reveal());
    await rekey.secretsManager.call('CreateSecret', {
      Name: 'rekey/adopt/legacy-render',
      SecretString: JSON.stringify({ username: 'legacy_render', password }),
      ClientRequestToken: token(),
    });
    const wanted = {
      ...spec({ adopt: { username: 'legacy_render', passwordSecret: 'rekey/adopt/legacy-render' } }),
      provider: 'render-postgres',
      target: { postgresId },
      apiKeySecret: 'rekey/api-keys/render',
      privileges: {},
    };
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    const adopted = await rekey.login(wanted.name, 'AWSCURRENT');
    expect(adopted?.username).toBe('legacy_render');
    expect(adopted && (await vendors().logsIn(adopted))).toBe(true);
  });

  test('is refused before anything is stored when its password is wrong, missing or another user’s', async () => {
    const wrongPassword = spec({ adopt: await legacy('legacy_wrong', 'Another-password-0123456789') });
    const missing = spec({ adopt: { username: 'legacy_app', passwordSecret: 'rekey/adopt/nowhere' } });
    const otherUser = spec({
      adopt: { username: 'somebody_else', passwordSecret: 'rekey/adopt/legacy_app' },
    });
    expect(await refusal(wrongPassword)).toMatchObject({
      code: 'SPEC_INVALID',
      message: expect.stringContaining('cockroachdb-cloud refused legacy_wrong'),
    });
    expect(await refusal(missing)).toMatchObject({
      code: 'SECRET_INVALID',
      message: expect.stringContaining('rekey/adopt/nowhere'),
    });
    expect(await refusal(otherUser)).toMatchObject({
      code: 'SPEC_INVALID',
      message: expect.stringContaining('expected the login of somebody_else'),
    });
    for (const { name } of [wrongPassword, missing, otherUser])
      await expect(
        rekey.parameters.call('GetParameter', { Name: `/rekey/credentials/${name}` }),
      ).rejects.toThrow();
  });

  test('killed between any two calls and requested again, it converges to the adopted user and nobody else', async () => {
    const measured = spec({ adopt: await legacy('legacy_measured') });
    rekey.killAt(undefined);
    await rekey.request(measured);
    await rekey.secretsManager.idle();
    const calls = [...rekey.calls];
    const wrong: string[] = [];
    for (const [index, { call, when, name: at }] of deaths(calls).entries()) {
      const wanted = spec({ adopt: await legacy(`legacy_${index}`) });
      rekey.killAt({ call, when });
      await rekey.request(wanted).catch(() => rekey.request(wanted));
      await rekey.secretsManager.idle();
      const { RotationEnabled } = await rekey.describe(wanted.name);
      const username = (await rekey.login(wanted.name, 'AWSCURRENT'))?.username;
      if (username !== `legacy_${index}` || RotationEnabled !== true)
        wrong.push(`killed ${when} call ${call} (${at}): ${username}, rotation ${RotationEnabled}`);
      if ((await usersAt(wanted.usernamePrefix)) !== 0)
        wrong.push(`killed ${when} call ${call}: made a user`);
    }
    expect(calls.length).toBeGreaterThan(10);
    expect(wrong).toEqual([]);
  });
});
