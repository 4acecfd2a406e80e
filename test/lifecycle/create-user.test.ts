import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { addCockroachdbOrders } from '../../infra/local/providers/fixtures.ts';
import { deaths, startTestRekey, type TestRekey } from '../support/rekey.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const clusterId = '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10';
let rekey: TestRekey;

beforeAll(async () => {
  const { cockroachdb } = vendors();
  await addCockroachdbOrders(cockroachdb.api, cockroachdb.postgres, { id: clusterId });
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
});
