import { afterEach, describe, expect, test } from 'vitest';
import type { Ports } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { adoptionVersions } from '../../functions/core/username.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import { reconcileUsers } from '../../functions/lifecycle/reconcile-users.ts';
import {
  anotherPassword,
  choosing,
  hourMs,
  type Made,
  minuteMs,
  targets,
  useAdministrator,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { sha256 } from '../support/credentials.ts';
import { token } from '../support/rekey.ts';

/**
 * What a value names is what somebody may have written: whose a user is, what rights it has and where an administrator's password
 * goes is never for a value to say. Each test plays somebody who may write one secret, or steps that leave a value behind.
 */

const world = useCredentialWorld();
const {
  vendors,
  rekey,
  credential,
  compromise,
  login,
  works,
  labels,
  putLabel,
  move,
  passHours,
  sweepQuarters,
  deletionOf,
} = world;
const { clusterId } = targets['zilliz-cloud'].target;
const dayMs = 24 * hourMs;

const theirPassword = 'Legacy-password_0000000000000001';
const adminSecret = useAdministrator(world);
afterEach(() => rekey().secretsManager.setVariants({ versionLimit: 100 }));

const stored = async (made: Made): Promise<object> => JSON.parse(await world.value(made)) as object;

const zillizUsers = () => vendors().zilliz.api.clusters.get(clusterId)?.users() ?? [];

const keepPassword = (operation: 'CreateSecret' | 'PutSecretValue', username: string, password: string) =>
  world.secrets(operation, {
    [operation === 'CreateSecret' ? 'Name' : 'SecretId']: `rekey/adopt/${username}`,
    ClientRequestToken: token(),
    SecretString: JSON.stringify({ username, password }),
  });

async function orderRotation({ name }: Made): Promise<void> {
  const order = 'CredentialRotationRequested';
  await rekey().order({ is: 'order', order, credential: name, orderedAt: world.now() });
  await rekey().secretsManager.idle();
}

/** A credential that has adopted a user of this name. */
async function adopted(username: string, more: object = {}): Promise<Made> {
  await keepPassword('CreateSecret', username, theirPassword);
  const { actor } = vendors().zilliz.api;
  actor.createUser(clusterId, username, theirPassword);
  actor.grantRole(clusterId, username, 'orders_rw');
  const adopt = { username, passwordSecret: `rekey/adopt/${username}` };
  return credential({ provider: 'zilliz-cloud' }, { ...more, adopt });
}

/** Makes a user that no credential has, with a password that is known, as somebody else of the target does. */
async function makeBilling(provider: (typeof choosing)[number]): Promise<void> {
  const { cockroachdb, vultr, zilliz } = vendors();
  if (provider === 'vultr-valkey') await vultr.api.actor.createUser('billing', theirPassword);
  else if (provider === 'zilliz-cloud') {
    zilliz.api.actor.createUser(clusterId, 'billing', theirPassword);
    zilliz.api.actor.grantRole(clusterId, 'billing', 'orders_rw');
  } else
    await cockroachdb.postgres.query(
      `CREATE ROLE billing LOGIN PASSWORD '${theirPassword}' IN ROLE orders_rw`,
    );
}

const narrower = {
  'cockroachdb-cloud': { roles: [] },
  'vultr-valkey': { categories: ['+@read'], keys: ['invoices:*'] },
  'zilliz-cloud': { roles: [] },
} as const;

describe('somebody who may write the secret', () => {
  describe('I5: does not have the password of a foreign user changed by naming it in AWSCURRENT', () => {
    test.each(
      choosing.flatMap((provider) =>
        (['reset-password', 'alternate-users', 'replace-user'] as const).map(
          (strategy) => [provider, strategy] as const,
        ),
      ),
    )('of %s, %s', async (provider, strategy) => {
      const made = await credential({ provider, strategy });
      if (provider !== 'cockroachdb-cloud' || strategy === 'reset-password') await makeBilling(provider);
      const billing = { ...(await login(made)), username: 'billing', password: new Sensitive(theirPassword) };
      expect(await works(billing)).toBe(true);
      move(30 * hourMs);
      // With every version that the secret has, and with that of an adoption that never was.
      const { ARN: arn } = await rekey().describe(made.name);
      const [userVersion] = adoptionVersions(arn, sha256);
      const forged = { ...(await stored(made)), username: 'billing', userVersion };
      await world.putValue(made, 'AWSCURRENT', JSON.stringify(forged));
      await passHours(2);
      await orderRotation(made);
      await passHours(1);
      expect(await works(billing)).toBe(true);
      expect(world.found(made)).toContain('CurrentRejected');
      // Put back, all goes on.
      await putLabel(made, 'AWSCURRENT', (await labels(made))['AWSPREVIOUS']);
      await passHours(2);
      expect(await works(await login(made))).toBe(true);
      expect((await login(made)).username).not.toBe('billing');
      expect(await works(billing)).toBe(true);
      vendors().zilliz.api.actor.deleteUser(clusterId, 'billing');
      if (provider === 'vultr-valkey') await vendors().vultr.api.actor.deleteUser('billing');
    });
  });

  test.each(choosing)(
    'S3: does not get rights that only the stored value declares, on %s',
    async (provider) => {
      const wider = targets[provider].privileges;
      const made = await credential(
        { provider, strategy: 'reset-password' },
        { privileges: narrower[provider] },
      );
      const applied: string[] = [];
      const spy = (ports: Ports): Partial<Ports> => ({
        http: async (request) => {
          if (request.guard !== 'reads-only') applied.push(request.url.pathname);
          return ports.http(request);
        },
        sql: async (session) => {
          if (session.guard !== 'reads-only') applied.push('sql');
          return ports.sql(session);
        },
      });
      move(hourMs);
      await world.putValue(
        made,
        'AWSCURRENT',
        JSON.stringify({ ...(await stored(made)), privileges: wider }),
      );
      await world.invokeWith(spy, (inner, until) =>
        reconcileUsers(
          { is: 'pass', dryRun: false },
          { webhookBaseUrl: 'https://example.com/' },
          until,
          inner,
        ),
      );
      const messages = rekey().takeMessages();
      await world.invokeWith(spy, (inner, until) =>
        reconcileUsers(messages, { webhookBaseUrl: 'https://example.com/' }, until, inner),
      );
      expect(world.found(made)).toContain('PrivilegesOutdated');
      expect(applied).toEqual([]);
    },
  );

  test('S3: does not get rights that only the stored value declares, and the next rotation gives those of the spec', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    const { username } = await login(made);
    vendors().zilliz.api.actor.createRole(clusterId, 'payments_rw');
    move(hourMs);
    const privileges = { roles: ['orders_rw', 'payments_rw'] };
    await world.putValue(made, 'AWSCURRENT', JSON.stringify({ ...(await stored(made)), privileges }));
    await passHours(1);
    const rolesOf = (name: string) => zillizUsers().find((user) => user.username === name)?.roles;
    expect(rolesOf(username)).toEqual(['orders_rw']);
    await passHours(1);
    expect(rolesOf((await login(made)).username)).toEqual(['orders_rw']);
  });

  test('S9: does not send the administrator’s password to another cluster by naming that as the target', async () => {
    const two = '7c5a2e0b-6d2f-4b53-9d1a-2c9f3f1e8a22';
    await vendors().cockroachdb.api.addCluster({ name: 'two', id: two });
    const made = await credential({ provider: 'cockroachdb-cloud' }, { adminSecret });
    move(hourMs);
    // Both clusters have one address here: the database tells them apart.
    const there = { target: two, dbname: 'postgres' };
    await world.putValue(made, 'AWSPREVIOUS', JSON.stringify({ ...(await stored(made)), ...there }));
    const sessions: string[] = [];
    const invocation = deletionOf(made);
    await world.invokeWith(
      ({ sql }) => ({
        sql: async (session) => {
          sessions.push(`${session.username} at ${session.database}`);
          return sql(session);
        },
      }),
      (inner, until) => deleteUsers(invocation, until, inner),
    );
    expect(sessions).toContain('root at defaultdb');
    expect(sessions).not.toContain('root at postgres');
  });
});

describe('I27: who may write the secret of one credential does not keep the leaked user of another alive by naming it', () => {
  test.each(['AWSCURRENT', 'AWSPREVIOUS', 'AWSPENDING'])('under %s', async (label) => {
    const [own, other] = [
      await credential({ provider: 'zilliz-cloud' }),
      await credential({ provider: 'zilliz-cloud' }),
    ];
    const leaked = await login(other);
    move(hourMs);
    await world.putValue(own, label, await world.value(other));
    move(minuteMs);
    await compromise(other);
    await passHours(3);
    expect(await works(leaked)).toBe(false);
    expect(await works(await login(other))).toBe(true);
  });

  test('where the other one is deleted as well', async () => {
    const [own, other] = [
      await credential({ provider: 'zilliz-cloud' }),
      await credential({ provider: 'zilliz-cloud' }),
    ];
    const leaked = await login(other);
    move(hourMs);
    await world.putValue(own, 'AWSCURRENT', await world.value(other));
    move(minuteMs);
    await world.direct(other, 'revokeBefore');
    move(minuteMs);
    await rekey().sweep(deletionOf(other));
    move(hourMs);
    await sweepQuarters(4);
    expect(world.published('CredentialDeleted', other)).toHaveLength(1);
    expect(await works(leaked)).toBe(false);
  });
});

describe('the strategy changes in the spec', () => {
  test('I17: a user that outlived its version under reset-password goes with the credential', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    await world.storeSpec(made, { strategy: 'reset-password' });
    // Secrets Manager keeps about a hundred versions. Fewer show the same in less time.
    rekey().secretsManager.setVariants({ versionLimit: 6 });
    for (let rotation = 0; rotation < 9; rotation += 1) {
      move(2 * dayMs);
      await rekey().rotate(made.name);
    }
    const last = await login(made);
    move(hourMs);
    await rekey().sweep(deletionOf(made));
    move(hourMs);
    await sweepQuarters(4);
    expect(world.published('CredentialDeleted', made)).toHaveLength(1);
    expect(await works(last), 'the login of a deleted credential').toBe(false);
  });

  test('I3: the user of AWSPREVIOUS keeps its grace where the prefix changes as well, and only its first password was revoked', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    await world.storeSpec(made, { strategy: 'reset-password' });
    move(hourMs);
    await compromise(made);
    move(hourMs);
    await rekey().rotate(made.name);
    const before = await login(made);
    await world.storeSpec(made, { strategy: 'replace-user', usernamePrefix: `${made.prefix}new` });
    move(hourMs);
    await rekey().rotate(made.name);
    move(hourMs / 2);
    await rekey().sweep();
    expect(await works(before)).toBe(true);
  });
});

describe('an adopted user under reset-password', () => {
  const reset = (username: string): Promise<Made> => adopted(username, { strategy: 'reset-password' });

  test('I17: is rotated on after Secrets Manager has dropped the version that adopted it, and goes with the credential', async () => {
    const made = await reset('heirloom');
    rekey().secretsManager.setVariants({ versionLimit: 6 });
    for (let rotation = 0; rotation < 9; rotation += 1) {
      move(2 * dayMs);
      await rekey().rotate(made.name);
    }
    const last = await login(made);
    expect(last.username).toBe('heirloom');
    expect(world.published('CredentialRotated', made)).toHaveLength(9);
    const { adopt } = made.spec as { adopt: object };
    await world.storeSpec(made, { adopt: { ...adopt, retire: true } });
    move(hourMs);
    await rekey().sweep(deletionOf(made));
    move(hourMs);
    await sweepQuarters(4);
    expect(world.published('CredentialDeleted', made)).toHaveLength(1);
    expect(await works(last)).toBe(false);
  });

  test('I5: is not rotated while the spec does not say any more that it is adopted: its login works, and that is found', async () => {
    const made = await reset('estranged');
    move(hourMs);
    await rekey().rotate(made.name);
    const before = await login(made);
    await world.storeSpec(made, { adopt: undefined });
    move(2 * dayMs);
    await rekey().rotate(made.name);
    await passHours(1);
    expect(await works(before)).toBe(true);
    expect((await login(made)).password.equals(before.password)).toBe(true);
    expect(world.found(made)).toContain('CurrentRejected');
    await world.storeSpec(made, {});
    move(hourMs);
    await rekey().rotate(made.name);
    expect((await login(made)).password.equals(before.password)).toBe(false);
    expect(await works(await login(made))).toBe(true);
  });
});

test('I5: a user that the spec says to adopt, and that never was in AWSCURRENT, is not deleted', async () => {
  const made = await credential({ provider: 'zilliz-cloud' });
  vendors().zilliz.api.actor.createUser(clusterId, 'billing', theirPassword);
  move(hourMs);
  await rekey().rotate(made.name);
  const adopt = { username: 'billing', passwordSecret: 'rekey/adopt/never-made', retire: true };
  await world.storeSpec(made, { adopt });
  await passHours(30);
  expect(zillizUsers().map(({ username }) => username)).toContain('billing');
});

test.each([
  ['AWSPREVIOUS', ['AWSPREVIOUS']],
  ['every label but AWSCURRENT', ['AWSPREVIOUS', 'REKEY_PUBLISHED']],
])(
  'I18: a CredentialRequested that comes again does not move AWSCURRENT back to the adopted user where somebody took off %s',
  async (_what, taken) => {
    const requestedAt = world.now();
    const username = `ancient_${taken.length}`;
    const made = await adopted(username);
    move(hourMs);
    await rekey().rotate(made.name);
    const { AWSCURRENT: rotated } = await labels(made);
    vendors().zilliz.api.actor.setPassword(clusterId, username, anotherPassword);
    await keepPassword('PutSecretValue', username, anotherPassword);
    const { VersionIdsToStages = {} } = await rekey().describe(made.name);
    for (const VersionStage of taken) {
      const from = Object.entries(VersionIdsToStages).find(([, stages]) => stages.includes(VersionStage));
      await world.secrets('UpdateSecretVersionStage', {
        SecretId: `rekey/${made.name}`,
        VersionStage,
        RemoveFromVersionId: from?.[0],
      });
    }
    await rekey().request(made.spec, {}, requestedAt);
    expect((await labels(made))['AWSCURRENT']).toBe(rotated);
  },
);
