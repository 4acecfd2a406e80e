import { execFile } from 'node:child_process';
import { inspect, promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { spellings } from '../../functions/core/sensitive.ts';
import { startWorld, type World } from '../../infra/local/world.ts';

/** What was seen anywhere: log lines, events, answers of functions, error texts. */
const seen: string[] = [];
/** Every secret of the run, with where it comes from. */
const secrets = new Map<string, string>();
let world: World;

beforeAll(async () => {
  world = await startWorld({
    log: ({ line }) => seen.push(line),
    onCall: ({ operation, input }) => {
      const { RotationToken } = (input ?? {}) as { RotationToken?: string };
      if (RotationToken !== undefined) secrets.set(RotationToken, `RotationToken in ${operation}`);
      return undefined;
    },
    variants: { retryDelaysMs: [200] },
  });
  for (const [name, key] of Object.entries(world.apiKeys)) secrets.set(key, `API key of ${name}`);
  secrets.set(world.webhook.secret, 'signing secret of the webhook');
});
afterAll(() => world?.stop());

const call = async <T>(operation: string, input: object): Promise<T> =>
  (await world.deployment.secretsManager.call(operation, input)) as T;
const token = () => crypto.randomUUID();

/** Every password that Secrets Manager holds in any version of a credential. */
async function learnPasswords(): Promise<void> {
  const { SecretList } = await call<{ SecretList: { Name: string }[] }>('ListSecrets', {});
  for (const { Name } of SecretList) {
    const { Versions } = await call<{ Versions: { VersionId: string }[] }>('ListSecretVersionIds', {
      SecretId: Name,
      IncludeDeprecated: true,
    });
    for (const { VersionId } of Versions) {
      const value = await call<{ SecretString?: string }>('GetSecretValue', {
        SecretId: Name,
        VersionId,
      }).catch(() => undefined);
      const password = /"password":"([^"]+)"/.exec(value?.SecretString ?? '')?.[1];
      if (password !== undefined) secrets.set(password, `password in ${Name}`);
    }
  }
}

function leaks(): readonly string[] {
  const everything = seen.join('\n');
  return [...secrets].flatMap(([secret, origin]) =>
    spellings(secret)
      .filter((spelling) => spelling.length >= 8 && everything.includes(spelling))
      .map(() => origin),
  );
}

const invoke = async (name: string, event: unknown) => {
  const result = await world.deployment.lambda.invoke(name, event);
  seen.push(inspect(result, { depth: 9 }));
  return result;
};

const spec = (overrides: object = {}, unique = token().slice(0, 8)) => ({
  name: `made-${unique}`,
  provider: 'cockroachdb-cloud',
  target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10' },
  apiKeySecret: 'rekey/api-keys/cockroachdb',
  // Of its own: two credentials of a target may not share one.
  usernamePrefix: `made_${unique}`,
  privileges: { roles: ['orders_rw'] },
  ...overrides,
});
const requested = (document: unknown) => ({
  version: '0',
  id: token(),
  'detail-type': 'CredentialRequested',
  source: 'rekey',
  account: '123456789012',
  time: '2026-03-01T12:00:00Z',
  region: 'eu-central-1',
  resources: [],
  detail: { spec: document },
});

describe('the real bundles', () => {
  test.each(['replace-user', 'alternate-users', 'reset-password'])(
    'create and rotate a credential that nobody declared (%s)',
    async (strategy) => {
      const wanted = spec({ strategy, grace: 'PT0S' });
      const made = await invoke('rekey-create-user', requested(wanted));
      expect(made.ok).toBe(true);
      await world.deployment.secretsManager.idle();
      const read = async () => {
        const { SecretString, VersionId } = await call<{ SecretString: string; VersionId: string }>(
          'GetSecretValue',
          {
            SecretId: `rekey/${wanted.name}`,
          },
        );
        return { ...(JSON.parse(SecretString) as { username: string }), VersionId };
      };
      const first = await read();
      const ClientRequestToken = token();
      await call('RotateSecret', { SecretId: `rekey/${wanted.name}`, ClientRequestToken });
      await world.deployment.secretsManager.idle();
      const second = await read();
      expect(second.VersionId).toBe(ClientRequestToken);
      expect(second.username === first.username).toBe(strategy === 'reset-password');
    },
  );

  test('rotate each declared credential', async () => {
    for (const { document, name } of world.specs) {
      expect((await invoke('rekey-create-user', requested(document))).ok).toBe(true);
      await world.deployment.secretsManager.idle();
      const { SecretString } = await call<{ SecretString: string }>('GetSecretValue', {
        SecretId: `rekey/${name}`,
      });
      expect(SecretString).toContain('"username":"');
    }
  });

  const events: Record<string, { name: string; event: unknown; says: RegExp }> = {
    'a rotation event that is none': {
      name: 'rekey-rotate-secret',
      event: { SecretId: '', RotationToken: 'canary-canary-canary' },
      says: /^EVENT_INVALID: Step: .*SecretId: .*ClientRequestToken: .*RotationToken: /,
    },
    'a secret that does not exist': {
      name: 'rekey-rotate-secret',
      event: { Step: 'setSecret', SecretId: 'rekey/nobody', ClientRequestToken: '1'.repeat(32) },
      // What has no rotation, as what does not exist, is not this function's business.
      says: /^(SECRET_UNKNOWN|STORE_DENIED): /,
    },
    'an API key taken for a credential': {
      name: 'rekey-rotate-secret',
      event: { Step: 'setSecret', SecretId: 'rekey/api-keys/render', ClientRequestToken: '1'.repeat(32) },
      says: /^(ROTATION_DISABLED|NOT_A_CREDENTIAL|STORE_DENIED): /,
    },
    'a request without a spec': {
      name: 'rekey-create-user',
      event: { detail: {} },
      says: /^EVENT_INVALID: source: .*detail-type: .*detail\.spec: /,
    },
    'a request with a spec that is wrong everywhere': {
      name: 'rekey-create-user',
      event: requested({ ...spec(), name: 'Not A Name', strategy: 'guess', grace: 'soon' }),
      says: /^SPEC_INVALID: name: .*strategy: .*grace: /,
    },
  };
  test.each(Object.entries(events))(
    'answer %s with one error that names every fault',
    async (_what, { name, event, says }) => {
      const result = await invoke(name, event);
      expect(result).toMatchObject({ ok: false, errorMessage: expect.stringMatching(says) });
      expect(inspect(result, { depth: 9 })).not.toContain('canary');
    },
  );

  test('do not start with a wrong environment, and name every wrong variable without its value', async () => {
    const [record] = world.deployment.stack.functions.filter(({ name }) => name === 'rekey-create-user');
    if (record === undefined) throw new Error('no create-user in the template');
    world.deployment.lambda.addFunction({
      ...record,
      name: 'misconfigured',
      arn: `${record.arn}-misconfigured`,
      environment: { REKEY_EVENT_BUS_NAME: 'canary bus', REKEY_ROTATION_FUNCTION_ARN: 'canary-arn' },
    });
    const result = await invoke('misconfigured', {});
    expect(result).toMatchObject({
      ok: false,
      errorMessage: expect.stringMatching(
        /ENVIRONMENT_INVALID: REKEY_EVENT_BUS_NAME: .*REKEY_ROTATION_FUNCTION_ARN: /,
      ),
    });
    expect(inspect(result)).not.toContain('canary');
  });

  test('keep a secret that a vendor echoes in its error out of everything', async () => {
    const { api } = world.vendors.cockroachdb;
    const key = world.apiKeys.cockroachdb;
    for (const echo of spellings(key))
      api.faults.inject({
        operation: 'createUser',
        kind: 'status',
        status: 400,
        json: { code: 3, message: `no: ${echo}` },
      });
    const wanted = spec();
    await invoke('rekey-create-user', requested(wanted));
    await world.deployment.secretsManager.idle();
    api.faults.clear();
    expect(seen.join('\n')).toContain('‹redacted›');
    expect(leaks()).toEqual([]);
  });
});

describe('no password, API key, RotationToken or signing secret', () => {
  test('is in any log line, event, answer, error or audit record of all of the above, in any spelling', async () => {
    await learnPasswords();
    await world.deployment.settled();
    seen.push(JSON.stringify(world.deployment.bus.history()), JSON.stringify(world.deployment.lostRequests));
    const { s3, stack } = world.deployment;
    const bucket = stack.buckets[0]?.name ?? '';
    const records = s3
      .keys(bucket)
      .flatMap((key) => s3.versions(bucket, key).map(({ body }) => String(body)));
    expect(records.length).toBeGreaterThan(20);
    seen.push(...records);
    expect([...secrets.values()].filter((origin) => origin.startsWith('password')).length).toBeGreaterThan(5);
    expect(
      [...secrets.values()].filter((origin) => origin.startsWith('RotationToken')).length,
    ).toBeGreaterThan(5);
    expect(seen.length).toBeGreaterThan(50);
    expect(leaks()).toEqual([]);
  });

  test('would be missed: the search finds a planted one in every spelling', () => {
    const [secret = ''] = secrets.keys();
    for (const spelling of spellings(secret)) {
      seen.push(`planted ${spelling}`);
      expect(leaks()).not.toEqual([]);
      seen.pop();
    }
  });

  test('is in the arguments of any process', async () => {
    const { stdout } = await promisify(execFile)('ps', ['-A', '-ww', '-o', 'args=']);
    for (const secret of secrets.keys()) expect(stdout).not.toContain(secret);
  });

  test('reaches a host that is not the vendor’s', () => {
    expect(world.vendors.network.refused).toEqual([]);
    expect([world.vendors.render.api.catastrophes, world.vendors.cockroachdb.api.catastrophes]).toEqual([
      [],
      [],
    ]);
  });
});

test('the roles let the functions do all of the above, but touch a secret that rotate-secret does not rotate', () => {
  const refused = world.deployment.authorizer.refusals.map(
    (message) => /assumed-role\/[^/]+\/(.*)$/.exec(message)?.[1] ?? message,
  );
  const about = (id: string) =>
    expect.stringMatching(
      `^rekey-rotate-secret is not authorized to perform: secretsmanager:DescribeSecret on resource: .*:secret:${id}-[^ ]* because no identity-based policy allows`,
    );
  expect(refused).toEqual([about('rekey/nobody'), about('rekey/api-keys/render')]);
  expect(world.deployment.authorizer.judged).toBeGreaterThan(200);
});
