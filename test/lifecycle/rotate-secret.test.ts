import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Login } from '../../functions/core/provider.ts';
import {
  addCockroachdbOrders,
  addRenderOrders,
  addVultrOrders,
} from '../../infra/local/providers/fixtures.ts';
import { startTestRekey, type TestRekey, token } from '../support/rekey.ts';
import { isWrite, useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const postgresId = 'dpg-d1abc2d3e4f5g6h7i8j9-a';
const clusterId = '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10';
const databaseId = '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21';
const vectorsId = 'in01-108240180a4faf8';
let rekey: TestRekey;

beforeAll(async () => {
  const { render, cockroachdb } = vendors();
  await addRenderOrders(render.api, render.postgres, { id: postgresId });
  await addCockroachdbOrders(cockroachdb.api, cockroachdb.postgres, { id: clusterId });
  await addVultrOrders(vendors().vultr.api, vendors().vultr.engine, { id: databaseId });
  vendors().zilliz.api.addCluster({ id: vectorsId, name: 'orders', roles: ['orders_rw'] });
  rekey = await startTestRekey(vendors);
});
afterAll(() => rekey.stop());
beforeEach(() => {
  // A cluster has room for a hundred users, and nothing retires those of the tests before.
  const { actor, clusters } = vendors().zilliz.api;
  for (const { username } of clusters.get(vectorsId)?.users() ?? [])
    if (username !== 'db_admin') actor.deleteUser(vectorsId, username);
  rekey.failures.length = 0;
  rekey.killAt(undefined);
  rekey.secretsManager.setVariants({
    pendingAfterRotation: 'gone',
    testOnlyValue: 'copy',
    stepDelivery: 'once',
    eventSecretId: 'arn',
    staleReads: {},
  });
});

const render = {
  provider: 'render-postgres',
  target: { postgresId },
  apiKeySecret: 'rekey/api-keys/render',
};
const cockroachdb = {
  provider: 'cockroachdb-cloud',
  target: { clusterId },
  apiKeySecret: 'rekey/api-keys/cockroachdb',
  privileges: { roles: ['orders_rw'] },
};
const vultr = {
  provider: 'vultr-valkey',
  target: { databaseId },
  apiKeySecret: 'rekey/api-keys/vultr',
  privileges: { categories: ['+@read'], keys: ['orders:*'] },
};
const zilliz = {
  provider: 'zilliz-cloud',
  target: { clusterId: vectorsId },
  apiKeySecret: 'rekey/api-keys/zilliz',
  privileges: { roles: ['orders_rw'] },
};
const scenarios = {
  'render-postgres, replace-user': { ...render, strategy: 'replace-user' },
  'cockroachdb-cloud, replace-user': { ...cockroachdb, strategy: 'replace-user' },
  'cockroachdb-cloud, alternate-users': { ...cockroachdb, strategy: 'alternate-users', grace: 'PT0S' },
  'cockroachdb-cloud, reset-password': { ...cockroachdb, strategy: 'reset-password' },
  'vultr-valkey, replace-user': { ...vultr, strategy: 'replace-user' },
  'vultr-valkey, alternate-users': { ...vultr, strategy: 'alternate-users', grace: 'PT0S' },
  'vultr-valkey, reset-password': { ...vultr, strategy: 'reset-password' },
  'zilliz-cloud, replace-user': { ...zilliz, strategy: 'replace-user' },
  'zilliz-cloud, alternate-users': { ...zilliz, strategy: 'alternate-users', grace: 'PT0S' },
  'zilliz-cloud, reset-password': { ...zilliz, strategy: 'reset-password' },
} as const;
type Scenario = (typeof scenarios)[keyof typeof scenarios];

let credentials = 0;
/** A credential of its own prefix, so that its users can be told from all others. */
async function credential(scenario: Scenario): Promise<{ name: string; prefix: string }> {
  credentials += 1;
  const [name, prefix] = [`orders-${credentials}`, `o${credentials}`];
  await rekey.request({ ...scenario, name, usernamePrefix: prefix });
  await rekey.secretsManager.idle();
  return { name, prefix };
}

/** Who exists at the vendors with this prefix, asked of the engines. */
async function usersAt(prefix: string): Promise<readonly string[]> {
  const targets = new Map<string, Readonly<Record<string, string>>>(
    Object.values(scenarios).map(({ provider, target }) => [provider, target]),
  );
  const found = await Promise.all(
    [...targets].map(([provider, target]) => vendors().byProvider[provider]?.usernames(target) ?? []),
  );
  return found.flat().filter((username) => username.startsWith(`${prefix}_`));
}

const logsIn = async (login: Login | undefined): Promise<boolean> =>
  login !== undefined && vendors().logsIn(login);

const writes = (): number => vendors().requests.filter(isWrite).length;

describe.each(Object.entries(scenarios))('%s', (_title, scenario) => {
  const isReset = scenario.strategy === 'reset-password';

  test('a rotation publishes a login that works, with exactly the users there should be', async () => {
    const { name, prefix } = await credential(scenario);
    const first = await rekey.login(name, 'AWSCURRENT');
    expect(await logsIn(first)).toBe(true);
    const token = await rekey.rotate(name);
    const second = await rekey.login(name, 'AWSCURRENT');
    expect((await rekey.labels(name))['AWSCURRENT']).toBe(token);
    expect(await logsIn(second)).toBe(true);
    expect(await logsIn(first)).toBe(!isReset);
    expect((await usersAt(prefix)).toSorted()).toEqual(
      [...new Set([first?.username, second?.username])].toSorted(),
    );
    expect(rekey.failures).toEqual([]);
  });

  test('every step may be run again after any later one: nothing changes any more', async () => {
    const { name } = await credential(scenario);
    const token = await rekey.rotate(name);
    const before = { writes: writes(), labels: await rekey.labels(name) };
    for (const step of ['createSecret', 'setSecret', 'testSecret', 'finishSecret', 'createSecret'])
      await rekey.step(name, step, token);
    expect({ writes: writes(), labels: await rekey.labels(name) }).toEqual(before);
  });

  test('killed between any two calls and started again, it converges, and nobody is locked out meanwhile', async () => {
    const { name, prefix } = await credential(scenario);
    let made = new Set<string | undefined>([(await rekey.login(name, 'AWSCURRENT'))?.username]);
    const isReplacing = scenario.strategy === 'replace-user';
    // Twice: the second user of a pair is made in the first of them, and only changed from then on.
    for (let rotation = 1; rotation <= (isReplacing ? 1 : 2); rotation += 1) {
      rekey.killAt(undefined);
      await rekey.rotate(name);
      made.add((await rekey.login(name, 'AWSCURRENT'))?.username);
    }
    const places = rekey.deaths();
    expect(rekey.calls.length).toBeGreaterThan(15);
    expect(places.length).toBeGreaterThan(6);

    const wrong: string[] = [];
    for (const { call, when, name: at } of places) {
      // A credential has room for two users beside the new one.
      if (isReplacing) {
        rekey.killAt(undefined);
        vendors().clock.move(26 * 3_600_000);
        await rekey.sweep();
        made = new Set(await usersAt(prefix));
      }
      const old = await rekey.login(name, 'AWSCURRENT');
      let worksAtDeath = false;
      const look = async () => {
        const current = await rekey.login(name, 'AWSCURRENT');
        worksAtDeath = (await logsIn(current)) && (isReset || (await logsIn(old)));
        // The one user has one password: while it is being changed, the stored new one is the one that works.
        if (isReset && !worksAtDeath) worksAtDeath = await logsIn(await rekey.login(name, 'AWSPENDING'));
      };
      rekey.killAt({ call, when, look });
      rekey.failures.length = 0;
      const token = await rekey.rotate(name);
      const labels = await rekey.labels(name);
      const current = await rekey.login(name, 'AWSCURRENT');
      made.add(current?.username);
      const users = await usersAt(prefix);
      const held = {
        'it was killed': rekey.failures.length === 1,
        'logins work at that moment': worksAtDeath,
        'its version is current': labels['AWSCURRENT'] === token,
        'nothing else is pending': labels['AWSPENDING'] === undefined || labels['AWSPENDING'] === token,
        'the new login works': await logsIn(current),
        'the old one works through its grace': isReset || (await logsIn(old)),
        'no user is missing or left over':
          users.length === made.size && users.every((user) => made.has(user)),
      };
      for (const [what, holds] of Object.entries(held))
        if (!holds) wrong.push(`killed ${when} call ${call} (${at}), not so: ${what}`);
    }
    expect(wrong).toEqual([]);
  });
});

describe('whatever Secrets Manager does between the steps, a rotation ends well:', () => {
  const variants: Record<string, Parameters<TestRekey['secretsManager']['setVariants']>[0]> = {
    'AWSPENDING stays with AWSCURRENT': { pendingAfterRotation: 'with-current' },
    'AWSPENDING goes with the move of AWSCURRENT': { pendingAfterRotation: 'gone-with-move' },
    'AWSPENDING ends now here, now there': { pendingAfterRotation: 'alternating' },
    'every step comes twice': { stepDelivery: 'twice' },
    'every step comes twice at once': { stepDelivery: 'concurrently' },
    'every step comes again afterwards': { stepDelivery: 'late' },
    'the event names the secret by a partial ARN': { eventSecretId: 'partial-arn' },
    'the event names the secret by its name': { eventSecretId: 'name' },
    'a value just written cannot be read at once': { staleReads: { GetSecretValue: 2 } },
    'a description is out of date': { staleReads: { DescribeSecret: 2 } },
  };
  // Each provider, and each strategy once: what the labels do has nothing to do with both together.
  const played = [
    'render-postgres, replace-user',
    'cockroachdb-cloud, replace-user',
    'vultr-valkey, replace-user',
    'vultr-valkey, alternate-users',
    'vultr-valkey, reset-password',
    'zilliz-cloud, replace-user',
  ] as const satisfies readonly (keyof typeof scenarios)[];
  const cases = Object.keys(variants).flatMap((variant) =>
    played.map((scenario) => [variant, scenario] as const),
  );
  test.each(cases)('%s (%s)', async (variant, scenario) => {
    const { name, prefix } = await credential(scenarios[scenario]);
    rekey.secretsManager.setVariants(variants[variant] ?? {});
    const made = new Set([(await rekey.login(name, 'AWSCURRENT'))?.username]);
    for (let rotation = 1; rotation <= 2; rotation += 1) {
      const token = await rekey.rotate(name);
      const current = await rekey.login(name, 'AWSCURRENT');
      made.add(current?.username);
      expect((await rekey.labels(name))['AWSCURRENT']).toBe(token);
      expect(await logsIn(current)).toBe(true);
    }
    expect((await usersAt(prefix)).toSorted()).toEqual([...made].toSorted());
  });
});

describe('a rotation that is only tested', () => {
  test.each(['copy', 'empty'] as const)('changes nothing when its version is a %s', async (testOnlyValue) => {
    rekey.secretsManager.setVariants({ testOnlyValue });
    for (const scenario of Object.values(scenarios)) {
      const { name } = await credential(scenario);
      const before = { writes: writes(), labels: await rekey.labels(name) };
      await rekey.rotate(name, { immediately: false });
      expect({ writes: writes(), labels: await rekey.labels(name) }).toEqual(before);
    }
    expect(rekey.failures).toEqual([]);
  });
});

describe('what stops a rotation', () => {
  /** The failure of one step under a token that the test makes pending. */
  const stopped = async (name: string, step: string, token: string): Promise<unknown> =>
    rekey.step(name, step, token).then(
      () => 'it went on',
      (error: unknown) => error,
    );
  const call = (operation: string, input: object) => rekey.secretsManager.call(operation, input);
  const secret = (name: string) => ({ SecretId: `rekey/${name}` });

  test('a step that no rotation has', async () => {
    const { name } = await credential(scenarios['render-postgres, replace-user']);
    expect(await stopped(name, 'create_secret', token())).toMatchObject({
      code: 'STEP_UNKNOWN',
      effect: 'none',
    });
  });

  test('a token that the secret does not know', async () => {
    const { name } = await credential(scenarios['render-postgres, replace-user']);
    expect(await stopped(name, 'createSecret', token())).toMatchObject({
      code: 'VERSION_UNKNOWN',
      effect: 'none',
    });
  });

  test('rotation that is switched off', async () => {
    const { name } = await credential(scenarios['render-postgres, replace-user']);
    await call('CancelRotateSecret', secret(name));
    expect(await stopped(name, 'createSecret', token())).toMatchObject({ code: 'ROTATION_DISABLED' });
  });

  test('a secret that is scheduled for deletion', async () => {
    const { name } = await credential(scenarios['render-postgres, replace-user']);
    await call('DeleteSecret', secret(name));
    expect(await stopped(name, 'createSecret', token())).toMatchObject({ code: 'DELETION_IN_PROGRESS' });
  });

  test('a spec that is gone, before anything is read from a vendor', async () => {
    const { name } = await credential(scenarios['render-postgres, replace-user']);
    await rekey.parameters.call('DeleteParameter', { Name: `/rekey/credentials/${name}` });
    const before = vendors().requests.length;
    await rekey.rotate(name);
    expect(rekey.failures[0]).toMatchObject({ code: 'SPEC_MISSING', effect: 'none' });
    expect(vendors().requests.length).toBe(before);
  });

  test('a spec that became wrong, with every wrong field in one error', async () => {
    const { name } = await credential(scenarios['render-postgres, replace-user']);
    await rekey.parameters.call('PutParameter', {
      Name: `/rekey/credentials/${name}`,
      Value: JSON.stringify({ ...render, name, usernamePrefix: 'Bad Prefix', grace: 'soon' }),
      Type: 'String',
      Overwrite: true,
    });
    await rekey.rotate(name);
    expect(rekey.failures[0]).toMatchObject({
      code: 'SPEC_INVALID',
      message: expect.stringMatching(/usernamePrefix: .*grace: /),
    });
  });

  test('a current value that belongs to another target, before any login', async () => {
    const { name } = await credential(scenarios['cockroachdb-cloud, replace-user']);
    const { SecretString } = (await call('GetSecretValue', secret(name))) as { SecretString: string };
    await call('PutSecretValue', {
      ...secret(name),
      ClientRequestToken: token(),
      SecretString: SecretString.replace(clusterId, '99999999-6d2f-4b53-9d1a-2c9f3f1e8a10'),
    });
    const before = vendors().statements.length;
    await rekey.rotate(name);
    expect(rekey.failures[0]).toMatchObject({ code: 'SECRET_MISMATCH', effect: 'none' });
    expect(vendors().statements.length).toBe(before);
  });

  test('a pending value that this rotation did not make: it is neither set at the vendor nor published', async () => {
    const { name } = await credential(scenarios['cockroachdb-cloud, replace-user']);
    const before = await rekey.labels(name);
    const { SecretString } = (await call('GetSecretValue', secret(name))) as { SecretString: string };
    const planted = token();
    await call('PutSecretValue', {
      ...secret(name),
      ClientRequestToken: planted,
      SecretString: SecretString.replace(/"username":"[^"]+"/, '"username":"root"'),
      VersionStages: ['AWSPENDING'],
    });
    const sent = writes();
    expect(await stopped(name, 'createSecret', planted)).toMatchObject({ code: 'SECRET_MISMATCH' });
    // Given up at once: no step has anything to do any more, and another rotation can start.
    for (const step of ['createSecret', 'setSecret', 'testSecret', 'finishSecret'])
      expect(await stopped(name, step, planted)).toMatchObject({ code: 'VERSION_UNKNOWN' });
    expect(await rekey.labels(name)).toEqual(before);
    expect(writes()).toBe(sent);
    expect((await rekey.labels(name))['AWSCURRENT']).toBe(before['AWSCURRENT']);
  });

  test('a pending value that points elsewhere: no password is sent there', async () => {
    const { name } = await credential(scenarios['cockroachdb-cloud, alternate-users']);
    await rekey.rotate(name);
    const { SecretString } = (await call('GetSecretValue', {
      ...secret(name),
      VersionStage: 'AWSPREVIOUS',
    })) as {
      SecretString: string;
    };
    const planted = token();
    await call('PutSecretValue', {
      ...secret(name),
      ClientRequestToken: planted,
      SecretString: SecretString.replace('"host":"localhost"', '"host":"elsewhere.example"'),
      VersionStages: ['AWSPENDING'],
    });
    const before = vendors().statements.length;
    expect(await stopped(name, 'setSecret', planted)).toMatchObject({ code: 'SECRET_MISMATCH' });
    expect(vendors().statements.length).toBe(before);
  });

  test('a pending value that is no value, without a word of it', async () => {
    const { name } = await credential(scenarios['render-postgres, replace-user']);
    const planted = token();
    await call('PutSecretValue', {
      ...secret(name),
      ClientRequestToken: planted,
      SecretString: '{"password":"canary-canary-canary"',
      VersionStages: ['AWSPENDING'],
    });
    const error = await stopped(name, 'finishSecret', planted);
    expect(error).toMatchObject({ code: 'SECRET_INVALID', effect: 'none' });
    expect(String(error)).not.toContain('canary');
  });

  test('finishSecret before anything was stored', async () => {
    const { name } = await credential(scenarios['cockroachdb-cloud, replace-user']);
    // A function that does nothing leaves the version as it was registered.
    vendors().cockroachdb.api.actor.setState(clusterId, 'LOCKED');
    const pending = await rekey.rotate(name);
    vendors().cockroachdb.api.actor.setState(clusterId, 'CREATED');
    expect(await stopped(name, 'finishSecret', pending)).toMatchObject({ code: 'VALUE_MISSING' });
  });

  test('finishSecret before the vendor was asked: a login that does not work is not published', async () => {
    const { name } = await credential(scenarios['cockroachdb-cloud, replace-user']);
    const before = await rekey.labels(name);
    vendors().cockroachdb.api.faults.inject({
      operation: 'createUser',
      kind: 'status',
      status: 403,
      times: 99,
    });
    const pending = await rekey.rotate(name);
    expect(await stopped(name, 'finishSecret', pending)).toMatchObject({ code: 'CREDENTIAL_REJECTED' });
    expect((await rekey.labels(name))['AWSCURRENT']).toBe(before['AWSCURRENT']);
    vendors().cockroachdb.api.faults.clear();
    for (const step of ['createSecret', 'setSecret', 'testSecret', 'finishSecret'])
      await rekey.step(name, step, pending);
    expect((await rekey.labels(name))['AWSCURRENT']).toBe(pending);
  });

  test('a target that is not ready: nothing is stored and nobody is made', async () => {
    const { name, prefix } = await credential(scenarios['render-postgres, replace-user']);
    const users = await usersAt(prefix);
    vendors().render.api.actor.suspend(postgresId);
    await rekey.rotate(name);
    vendors().render.api.actor.resume(postgresId);
    expect(rekey.failures[0]).toMatchObject({ code: 'TARGET_NOT_READY', effect: 'none' });
    expect(await usersAt(prefix)).toEqual(users);
  });

  test('an API key that the vendor refuses', async () => {
    const { name } = await credential(scenarios['cockroachdb-cloud, replace-user']);
    vendors().cockroachdb.api.faults.inject({ operation: '*', kind: 'status', status: 401, times: 99 });
    await rekey.rotate(name);
    expect(rekey.failures[0]).toMatchObject({ code: 'UNAUTHORIZED', effect: 'none' });
  });

  test('an API-key secret that is missing', async () => {
    const failure = rekey
      .request({ ...render, name: 'keyless', usernamePrefix: 'keyless', apiKeySecret: 'rekey/api-keys/none' })
      .then(() => rekey.secretsManager.idle());
    await failure;
    expect(rekey.failures[0]).toMatchObject({
      code: 'SECRET_INVALID',
      message: expect.stringContaining('rekey/api-keys/none'),
    });
  });

  test('the grace of the last one, under alternate-users: it would cut off whoever still uses the idle user', async () => {
    const { name } = await credential({
      ...scenarios['cockroachdb-cloud, alternate-users'],
      grace: 'PT24H',
    } as never);
    const idle = await rekey.login(name, 'AWSCURRENT');
    vendors().clock.move(25 * 3_600_000);
    await rekey.rotate(name);
    const current = await rekey.login(name, 'AWSCURRENT');
    expect(current?.username).not.toBe(idle?.username);
    rekey.failures.length = 0;
    const refused = await rekey.rotate(name);
    expect(rekey.failures[0]).toMatchObject({ code: 'GRACE_RUNNING', effect: 'none' });
    expect([await logsIn(idle), await logsIn(current)]).toEqual([true, true]);
    vendors().clock.move(25 * 3_600_000);
    for (const step of ['createSecret', 'setSecret', 'testSecret', 'finishSecret'])
      await rekey.step(name, step, refused);
    expect((await rekey.login(name, 'AWSCURRENT'))?.username).toBe(idle?.username);
  });

  test('no grace where the current login was revoked: whoever knows it must not keep it', async () => {
    const { name } = await credential({
      ...scenarios['cockroachdb-cloud, alternate-users'],
      grace: 'PT24H',
    } as never);
    vendors().clock.move(25 * 3_600_000);
    await rekey.rotate(name);
    const compromised = await rekey.login(name, 'AWSCURRENT');
    vendors().clock.move(60_000);
    await rekey.parameters.call('PutParameter', {
      Name: `/rekey/directives/${name}/revokeBefore`,
      Value: vendors().clock.now().toISOString(),
      Type: 'String',
    });
    vendors().clock.move(60_000);
    await rekey.rotate(name);
    const next = await rekey.login(name, 'AWSCURRENT');
    expect(next?.username).not.toBe(compromised?.username);
    expect(await logsIn(next)).toBe(true);
    // An order from before the present login was made says nothing about it.
    rekey.failures.length = 0;
    await rekey.rotate(name);
    expect(rekey.failures[0]).toMatchObject({ code: 'GRACE_RUNNING' });
  });

  test('a spec whose prefix was changed: earlier users could not be told from foreign ones any more', async () => {
    const { name, prefix } = await credential(scenarios['vultr-valkey, replace-user']);
    const parameter = `/rekey/credentials/${name}`;
    const { Parameter } = (await rekey.parameters.call('GetParameter', { Name: parameter })) as {
      Parameter: { Value: string };
    };
    const spec: object = JSON.parse(Parameter.Value);
    const put = (usernamePrefix: string) =>
      rekey.parameters.call('PutParameter', {
        Name: parameter,
        Value: JSON.stringify({ ...spec, usernamePrefix }),
        Type: 'String',
        Overwrite: true,
      });
    await put('renamed');
    const before = writes();
    await rekey.rotate(name);
    expect(rekey.failures[0]).toMatchObject({
      code: 'SPEC_CONFLICT',
      message: expect.stringContaining(`are called ${prefix}_…, the spec now says renamed`),
    });
    expect(writes()).toBe(before);
    expect(await usersAt('renamed')).toEqual([]);
    await put(prefix);
    expect(await usersAt(prefix)).toHaveLength(1);
  });

  test('each failure is published with its code and what it did, and hides nothing behind a bus that fails too', async () => {
    const { name } = await credential(scenarios['cockroachdb-cloud, replace-user']);
    vendors().cockroachdb.api.faults.inject({ operation: '*', kind: 'status', status: 401, times: 99 });
    await rekey.rotate(name);
    expect(
      rekey.published().findLast((event) => event['detail-type'] === 'CredentialRotationFailed')?.detail,
    ).toMatchObject({
      credential: name,
      step: 'createSecret',
      code: 'UNAUTHORIZED',
      effect: 'none',
    });
  });
});

describe('other people at work', () => {
  test('somebody makes a Render user between our POST and our read: the lost one is left, the next attempt is published', async () => {
    const { name, prefix } = await credential(scenarios['render-postgres, replace-user']);
    const { api } = vendors().render;
    let meddled = 0;
    api.faults.inject({
      operation: 'createUser',
      kind: 'meanwhile',
      run: async () => {
        meddled += 1;
        vendors().clock.move(1_000);
        await api.actor.createUser(postgresId, `meddler_${credentials}_${meddled}`);
      },
    });
    const token = await rekey.rotate(name);
    expect(meddled).toBe(1);
    expect((await rekey.labels(name))['AWSCURRENT']).toBe(token);
    expect(await logsIn(await rekey.login(name, 'AWSCURRENT'))).toBe(true);
    // The first, the lost one and its successor; reconcile is what retires the lost one.
    expect(await usersAt(prefix)).toHaveLength(3);
    // Whichever of them is published: each that was made is told.
    const made = rekey
      .published()
      .filter(
        ({ detail, ...event }) =>
          event['detail-type'] === 'DatabaseUserCreated' && detail['credential'] === name,
      )
      .map(({ detail }) => detail['username']);
    expect([...new Set(made)].toSorted()).toEqual((await usersAt(prefix)).toSorted());
  });

  test('somebody gives the new CockroachDB user admin before it is published: it is taken away or not published', async () => {
    const { name } = await credential(scenarios['cockroachdb-cloud, replace-user']);
    vendors().cockroachdb.api.switches.passwordGrantsAdmin = true;
    await rekey.rotate(name);
    const current = await rekey.login(name, 'AWSCURRENT');
    const users = await vendors().cockroachdb.api.clusters.get(clusterId)?.users();
    expect(users?.find((user) => user.username === current?.username)).toEqual({
      username: current?.username,
      isAdmin: false,
      roles: ['orders_rw'],
    });
  });

  test('two rotations are started at once: one is refused by Secrets Manager, one succeeds', async () => {
    const { name } = await credential(scenarios['cockroachdb-cloud, replace-user']);
    const [one, other] = await Promise.allSettled([rekey.rotate(name), rekey.rotate(name)]);
    expect([one.status, other.status].toSorted()).toEqual(['fulfilled', 'rejected']);
    expect(await logsIn(await rekey.login(name, 'AWSCURRENT'))).toBe(true);
  });
});

test('reset-password says for how long AWSCURRENT was refused at most', async () => {
  const { name } = await credential(scenarios['cockroachdb-cloud, reset-password']);
  await rekey.rotate(name);
  const { detail } =
    rekey.published().findLast((event) => event['detail-type'] === 'CredentialRotated') ?? {};
  expect(detail).toMatchObject({ credential: name, evidence: 'logged-in' });
  expect(detail?.['currentRefusedAtMostMs']).toBeGreaterThan(0);
  expect(detail?.['currentRefusedAtMostMs']).toBeLessThan(60_000);
});

test('createSecret run again asks the vendor nothing and leaves the stored login as it is', async () => {
  const { name } = await credential(scenarios['cockroachdb-cloud, replace-user']);
  vendors().cockroachdb.api.faults.inject({
    operation: 'createUser',
    kind: 'status',
    status: 403,
    times: 99,
  });
  const pending = await rekey.rotate(name);
  const before = { asked: vendors().requests.length, login: await rekey.login(name, 'AWSPENDING') };
  await rekey.step(name, 'createSecret', pending);
  expect(vendors().requests.length).toBe(before.asked);
  expect((await rekey.login(name, 'AWSPENDING'))?.password.reveal()).toBe(before.login?.password.reveal());
});

describe('a vendor that demands the current password, where nobody knows it', () => {
  const password = 'Somebodys-password_000000000001';

  test('the idle user is made anew, as nobody can be using it: the rotation goes on, nobody is locked out', async () => {
    const { name, prefix } = await credential(scenarios['zilliz-cloud, alternate-users']);
    const idle = await rekey.login(name, 'AWSCURRENT');
    await rekey.rotate(name);
    const current = await rekey.login(name, 'AWSCURRENT');
    vendors().zilliz.api.actor.setPassword(vectorsId, idle?.username ?? '', password);
    await rekey.rotate(name);
    const made = await rekey.login(name, 'AWSCURRENT');
    expect(rekey.failures).toEqual([]);
    expect(made?.username).toBe(idle?.username);
    expect([await logsIn(made), await logsIn(current)]).toEqual([true, true]);
    expect(await usersAt(prefix)).toHaveLength(2);
  });

  test('the one user of all consumers is left as it is: the rotation stops', async () => {
    const { name, prefix } = await credential(scenarios['zilliz-cloud, reset-password']);
    const before = { users: await usersAt(prefix), labels: await rekey.labels(name) };
    const { actor, clusters } = vendors().zilliz.api;
    actor.setPassword(vectorsId, before.users[0] ?? '', password);
    await rekey.rotate(name);
    expect(rekey.failures[0]).toMatchObject({ code: 'REJECTED', effect: 'none' });
    expect(clusters.get(vectorsId)?.authenticates(before.users[0] ?? '', password)).toBe(true);
    expect(await usersAt(prefix)).toEqual(before.users);
    expect((await rekey.labels(name))['AWSCURRENT']).toBe(before.labels['AWSCURRENT']);
  });
});

test('a credential that is published untested has its rights all the same', async () => {
  const { name } = await credential({ ...scenarios['zilliz-cloud, replace-user'], verify: 'none' } as never);
  expect(await logsIn(await rekey.login(name, 'AWSCURRENT'))).toBe(true);
  expect(
    rekey.published().findLast((event) => event['detail-type'] === 'CredentialRotated')?.detail,
  ).toMatchObject({ credential: name, evidence: 'not-tested' });
});

describe('whatever a vendor is asked to change', () => {
  const types = (name: string): readonly string[] =>
    rekey
      .published()
      .filter(({ detail }) => detail['credential'] === name)
      .map((event) => event['detail-type']);

  test.each([
    ['render-postgres, replace-user', ['DatabaseUserPlanned', 'DatabaseUserCreated', 'CredentialRotated']],
    ['cockroachdb-cloud, replace-user', ['DatabaseUserPlanned', 'DatabaseUserCreated', 'CredentialRotated']],
    [
      'vultr-valkey, reset-password',
      ['DatabaseUserPlanned', 'DatabaseUserPasswordChanged', 'CredentialRotated'],
    ],
  ] as const)('is told before it is asked, and what came of it afterwards (%s)', async (scenario, told) => {
    const { name } = await credential(scenarios[scenario]);
    const before = types(name).length;
    await rekey.rotate(name);
    expect(types(name).slice(before)).toEqual(told);
  });

  test.each([
    'render-postgres, replace-user',
    'cockroachdb-cloud, replace-user',
    'vultr-valkey, reset-password',
  ] as const)('is not changed until that is told (%s)', async (scenario) => {
    const { name, prefix } = await credential(scenarios[scenario]);
    rekey.killAt(undefined);
    await rekey.rotate(name);
    const before = { writes: writes(), users: await usersAt(prefix) };
    let then: typeof before | undefined;
    const look = async () => {
      then = { writes: writes(), users: await usersAt(prefix) };
    };
    rekey.killAt({ call: rekey.calls.indexOf('publish') + 1, when: 'before', look });
    await rekey.rotate(name);
    expect(then).toEqual(before);
  });
});

test('a password that the vendor made is stored before anything is told about its user', async () => {
  const { name } = await credential(scenarios['render-postgres, replace-user']);
  rekey.killAt(undefined);
  await rekey.rotate(name);
  let stored: Login | undefined;
  const look = async () => {
    stored = await rekey.login(name, 'AWSPENDING');
  };
  // The first says what is planned, before there is a user.
  const [, told = -1] = [...rekey.calls.keys()].filter((index) => rekey.calls[index] === 'publish');
  rekey.killAt({ call: told + 1, when: 'before', look });
  await rekey.rotate(name);
  expect(stored?.username).toBe((await rekey.login(name, 'AWSCURRENT'))?.username);
});
