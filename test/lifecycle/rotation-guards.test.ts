import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { StoreError } from '../../functions/core/errors.ts';
import type { LabelMove, Ports } from '../../functions/core/ports.ts';
import type { Login } from '../../functions/core/provider.ts';
import { reconcileUsers } from '../../functions/lifecycle/reconcile-users.ts';
import { rotateSecret } from '../../functions/lifecycle/rotate-secret.ts';
import { addCockroachdbOrders } from '../../infra/local/providers/fixtures.ts';
import { startTestRekey, type TestRekey, token, webhookBaseUrl } from '../support/rekey.ts';
import { isWrite, useTestVendors } from '../support/vendors.ts';

// Each of these tests fails if one guard of rotate-secret or reconcile-users is taken out: no other test noticed when that was done.

const vendors = useTestVendors();
const clusterId = '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10';
const hourMs = 3_600_000;
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
  rekey.secretsManager.setVariants({
    pendingAfterRotation: 'gone',
    retryDelaysMs: [1_000, 60_000, 60_000],
  });
});

const secrets = (operation: string, input: object) => rekey.secretsManager.call(operation, input);

interface Made {
  readonly name: string;
  readonly prefix: string;
}
let credentials = 0;
/** A credential of its own prefix with one user. */
async function credential(overrides: object = {}): Promise<Made> {
  credentials += 1;
  const [name, prefix] = [`orders-${credentials}`, `o${credentials}`];
  await rekey.request({
    provider: 'cockroachdb-cloud',
    target: { clusterId },
    apiKeySecret: 'rekey/api-keys/cockroachdb',
    privileges: { roles: ['orders_rw'] },
    name,
    usernamePrefix: prefix,
    ...overrides,
  });
  await rekey.secretsManager.idle();
  expect(rekey.failures).toEqual([]);
  return { name, prefix };
}
async function login({ name }: Made, label = 'AWSCURRENT'): Promise<Login> {
  const found = await rekey.login(name, label);
  if (found === undefined) throw new Error(`${name} has no login under ${label}`);
  return found;
}
const published = (type: string, { name }: Made) =>
  rekey
    .published()
    .filter((event) => event['detail-type'] === type && event.detail['credential'] === name)
    .map(({ detail }) => detail);
const failureOf = (step: Promise<unknown>): Promise<unknown> =>
  step.then(
    () => 'it went on',
    (error: unknown) => error,
  );

/** Runs these steps of a rotation that Secrets Manager has given up; answers its token. */
async function pendingRotation({ name }: Made, ...steps: readonly string[]): Promise<string> {
  const { faults } = vendors().cockroachdb.api;
  faults.inject({ operation: 'createUser', kind: 'status', status: 403, times: 99 });
  const pending = await rekey.rotate(name);
  faults.clear();
  for (const step of steps) await rekey.step(name, step, pending);
  return pending;
}

describe('I2: rights that appear between two steps of a rotation', () => {
  const differs = {
    code: 'PRIVILEGES_DIFFER',
    message: expect.stringContaining('role admin is held but not declared'),
  };

  test.each([
    ['after setSecret', ['createSecret', 'setSecret'], 'testSecret'],
    ['after setSecret, with testSecret left out', ['createSecret', 'setSecret'], 'finishSecret'],
    ['after testSecret', ['createSecret', 'setSecret', 'testSecret'], 'finishSecret'],
  ])('%s stop it, and AWSCURRENT stays', async (_when, steps, next) => {
    const one = await credential();
    const before = await rekey.labels(one.name);
    const pending = await pendingRotation(one, ...steps);
    const { username } = await login(one, 'AWSPENDING');
    await vendors().cockroachdb.api.actor.grantAdmin(clusterId, username);
    expect(await failureOf(rekey.step(one.name, next, pending))).toMatchObject(differs);
    expect((await rekey.labels(one.name))['AWSCURRENT']).toBe(before['AWSCURRENT']);
    expect(published('CredentialRotated', one)).toHaveLength(1);
  });
});

describe('I16, I26: finishSecret that loses AWSCURRENT to somebody decides anew, and moves nothing by force', () => {
  /** finishSecret, with something that happens between its description of the secret and its move of AWSCURRENT. */
  const finishWhile = (
    { name }: Made,
    pending: string,
    happens: () => Promise<unknown>,
    moves: LabelMove[] = [],
  ): Promise<unknown> =>
    failureOf(
      rekey.invoke(async (inner, until) => {
        const { ARN: secretId } = await rekey.describe(name);
        const moveLabel: Ports['moveLabel'] = async (request) => {
          if (request.label === 'AWSCURRENT') {
            if (moves.length === 0) await happens();
            moves.push(request);
          }
          return inner.ports.moveLabel(request);
        };
        const ports = { ...inner.ports, moveLabel };
        return rotateSecret({ step: 'finishSecret', secretId, token: pending }, until, { ...inner, ports });
      }),
    );
  const moveCurrent = ({ name }: Made, from = '', to = '') =>
    secrets('UpdateSecretVersionStage', {
      SecretId: `rekey/${name}`,
      VersionStage: 'AWSCURRENT',
      MoveToVersionId: to,
      RemoveFromVersionId: from,
    });

  /** Rotated once, so that there is a version to go back to, and up to finishSecret of the next rotation. */
  async function almostRotated(): Promise<{ one: Made; pending: string; before: Record<string, string> }> {
    const one = await credential();
    await rekey.rotate(one.name);
    const before = { ...(await rekey.labels(one.name)) };
    const pending = await pendingRotation(one, 'createSecret', 'setSecret', 'testSecret');
    return { one, pending, before };
  }

  test.each([
    'does nothing else',
    'takes AWSPENDING off',
    'switches rotation off',
    'schedules the secret for deletion',
  ])('where somebody moves AWSCURRENT back and %s', async (what) => {
    const { one, pending, before } = await almostRotated();
    const SecretId = `rekey/${one.name}`;
    const moves: LabelMove[] = [];
    const failure = await finishWhile(
      one,
      pending,
      async () => {
        await moveCurrent(one, before['AWSCURRENT'], before['AWSPREVIOUS']);
        if (what === 'takes AWSPENDING off')
          await secrets('UpdateSecretVersionStage', {
            SecretId,
            VersionStage: 'AWSPENDING',
            RemoveFromVersionId: pending,
          });
        else if (what === 'switches rotation off') await secrets('CancelRotateSecret', { SecretId });
        else if (what === 'schedules the secret for deletion')
          await secrets('DeleteSecret', { SecretId, RecoveryWindowInDays: 7 });
      },
      moves,
    );
    expect(failure, what).toMatchObject({ code: 'SUPERSEDED', effect: 'none' });
    expect((await rekey.labels(one.name))['AWSCURRENT']).toBe(before['AWSPREVIOUS']);
    expect(moves).toHaveLength(1);
    // Two rotations were told; this one was not published.
    expect(published('CredentialRotated', one)).toHaveLength(2);
  });

  test('where somebody moves it in the very instant in which the move leaves, and nobody tries again but Secrets Manager', async () => {
    const { one, pending, before } = await almostRotated();
    let tries = 0;
    rekey.interruptAt({
      call: 'moveLabel',
      when: 'before',
      by: async () => {
        tries += 1;
        await moveCurrent(one, before['AWSCURRENT'], before['AWSPREVIOUS']);
      },
    });
    expect(await failureOf(rekey.step(one.name, 'finishSecret', pending))).toMatchObject({
      code: 'LABELS_MOVED',
    });
    expect(tries).toBe(1);
    expect((await rekey.labels(one.name))['AWSCURRENT']).toBe(before['AWSPREVIOUS']);
  });
});

test('I3: under alternate-users the grace counts from the switch, hours after the version was made', async () => {
  const one = await credential({ strategy: 'alternate-users', grace: 'PT24H' });
  const idle = await login(one);
  vendors().clock.move(25 * hourMs);
  // The rotation hangs for twenty hours between its first try and the one that succeeds.
  rekey.secretsManager.setVariants({ retryDelaysMs: [20 * hourMs] });
  vendors().cockroachdb.api.faults.inject({ operation: 'createUser', kind: 'status', status: 403, times: 1 });
  await rekey.rotate(one.name);
  const current = await login(one);
  expect(current.username).not.toBe(idle.username);
  rekey.failures.length = 0;
  rekey.secretsManager.setVariants({ retryDelaysMs: [] });
  // Thirty hours after the version was made, ten after the switch.
  vendors().clock.move(10 * hourMs);
  await rekey.rotate(one.name);
  expect(rekey.failures).toMatchObject([{ code: 'GRACE_RUNNING', effect: 'none' }]);
  expect(await vendors().logsIn(idle)).toBe(true);
  expect(await vendors().logsIn(current)).toBe(true);
  expect((await login(one)).username).toBe(current.username);
});

describe('I7, I22: a finishSecret that is killed right after AWSCURRENT moved', () => {
  test('is made good by its retry: CredentialRotated is published, and the next rotation can start', async () => {
    const one = await credential();
    // AWSPENDING stays on AWSCURRENT then: no rotation is open.
    rekey.secretsManager.setVariants({ pendingAfterRotation: 'with-current' });
    rekey.killAt(undefined);
    await rekey.rotate(one.name);
    const moved = rekey.calls.indexOf('moveLabel') + 1;
    expect(moved).toBeGreaterThan(0);
    const before = published('CredentialRotated', one).length;
    let atDeath: Readonly<Record<string, string>> = {};
    const look = async (): Promise<void> => {
      atDeath = await rekey.labels(one.name);
    };
    rekey.killAt({ call: moved, when: 'after', look });
    const rotated = await rekey.rotate(one.name);
    expect(rekey.failures).toHaveLength(1);
    expect(atDeath).toMatchObject({ AWSCURRENT: rotated, AWSPENDING: rotated });
    expect(published('CredentialRotated', one).slice(before)).toMatchObject([
      { versionId: rotated, username: (await login(one)).username, evidence: 'logged-in' },
    ]);
    expect((await rekey.labels(one.name))['AWSCURRENT']).toBe(rotated);
    // There is room for its user when those of before are retired.
    vendors().clock.move(26 * hourMs);
    await rekey.sweep();
    const next = await rekey.rotate(one.name);
    expect((await rekey.labels(one.name))['AWSCURRENT']).toBe(next);
  });
});

describe('I3: under reset-password a pending value that names another user', () => {
  test.each([
    ['of another credential', async () => (await login(await credential())).username],
    ['of the vendor', async () => 'root'],
  ])('%s is neither set at the vendor nor published', async (_whose, nameOf) => {
    const other = await nameOf();
    const one = await credential({ strategy: 'reset-password' });
    const before = await rekey.labels(one.name);
    const { SecretString } = (await secrets('GetSecretValue', { SecretId: `rekey/${one.name}` })) as {
      SecretString: string;
    };
    const planted = token();
    await secrets('PutSecretValue', {
      SecretId: `rekey/${one.name}`,
      ClientRequestToken: planted,
      SecretString: SecretString.replace(/"username":"[^"]+"/, `"username":"${other}"`),
      VersionStages: ['AWSPENDING'],
    });
    const writes = vendors().requests.filter(isWrite).length;
    const steps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'];
    const codes = [];
    for (const step of steps)
      codes.push(((await failureOf(rekey.step(one.name, step, planted))) as { code: string }).code);
    // No repetition mends it, so it is given up at once: afterwards Secrets Manager asks in vain for a version that has no label.
    expect(codes).toEqual(['SECRET_MISMATCH', 'VERSION_UNKNOWN', 'VERSION_UNKNOWN', 'VERSION_UNKNOWN']);
    expect(vendors().requests.filter(isWrite)).toHaveLength(writes);
    expect((await rekey.labels(one.name))['AWSCURRENT']).toBe(before['AWSCURRENT']);
  });
});

describe('I12: a current login that is refused once', () => {
  /** reconcile-users, with the current login refused at some of the two looks. */
  async function lookWith({ name, prefix }: Made, isRefused: (look: 'first' | 'second') => boolean) {
    const { username } = await login({ name, prefix });
    let look: 'first' | 'second' = 'first';
    await rekey.invoke((inner, until) => {
      const ports: Ports = {
        ...inner.ports,
        sql: async (session) =>
          session.username === username && isRefused(look)
            ? { say: 'rejected', sqlState: '28P01' }
            : inner.ports.sql(session),
        sleep: async (ms) => {
          if (ms >= 5_000) look = 'second';
          return inner.ports.sleep(ms);
        },
      };
      const body = JSON.stringify({ provider: 'cockroachdb-cloud', targetId: clusterId });
      const messages = [{ id: token(), body }];
      return reconcileUsers({ is: 'messages', messages }, { webhookBaseUrl }, until, { ...inner, ports });
    });
    return look;
  }
  const refusals = (one: Made) =>
    published('DriftFound', one).filter(({ kind }) => kind === 'CurrentRejected');

  /** Another doubt about the credential, so that there is a second look whatever the first one says. */
  async function doubted(): Promise<Made> {
    const one = await credential();
    const { actor } = vendors().cockroachdb.api;
    await actor.createUser(clusterId, `${one.prefix}_abcdefghijkl`, 'Foreign-0123456789');
    return one;
  }

  test('by the second look only, is not rotated: poolers answer like this at times', async () => {
    const one = await doubted();
    expect(await lookWith(one, (look) => look === 'second')).toBe('second');
    expect(refusals(one)).toEqual([]);
    expect(published('DriftFound', one)).toMatchObject([{ kind: 'UserWithoutVersion' }]);
  });

  test('by both looks is found', async () => {
    const one = await doubted();
    expect(await lookWith(one, () => true)).toBe('second');
    expect(refusals(one)).toHaveLength(1);
  });
});

/** A rotation that died before its first step did anything; answers its token. */
async function untouchedRotation({ name }: Made): Promise<string> {
  rekey.secretsManager.setVariants({ retryDelaysMs: [] });
  rekey.killAt({ call: 1, when: 'before' });
  const pending = await rekey.rotate(name);
  rekey.killAt(undefined);
  return pending;
}

describe('I26: a pending version that is older than AWSPREVIOUS is no rotation', () => {
  const moveLabel = ({ name }: Made, VersionStage: string, ends: object) =>
    secrets('UpdateSecretVersionStage', { SecretId: `rekey/${name}`, VersionStage, ...ends });

  test.each(['can be read', 'cannot be read, as its key is gone'])('where AWSPREVIOUS %s', async (how) => {
    const one = await credential({ strategy: 'reset-password' });
    const { AWSCURRENT: first = '' } = await rekey.labels(one.name);
    const pending = await untouchedRotation(one);
    await rekey.step(one.name, 'createSecret', pending);
    await moveLabel(one, 'AWSPENDING', { RemoveFromVersionId: pending });
    vendors().clock.move(hourMs);
    const published = await rekey.rotate(one.name);
    // Rolled back by hand, and no label but AWSPREVIOUS tells of it.
    await moveLabel(one, 'AWSCURRENT', { RemoveFromVersionId: published, MoveToVersionId: first });
    await moveLabel(one, 'REKEY_PUBLISHED', { RemoveFromVersionId: published });
    await moveLabel(one, 'AWSPENDING', { MoveToVersionId: pending });
    const refused = await failureOf(
      rekey.invoke(async (inner, until) => {
        const { ARN: secretId } = await rekey.describe(one.name);
        const readSecret: Ports['readSecret'] = async (request) => {
          if (how !== 'can be read' && request.versionId === published)
            throw new StoreError('STORE_REFUSED', 'none', 'the key of this version is gone');
          return inner.ports.readSecret(request);
        };
        const ports = { ...inner.ports, readSecret };
        return rotateSecret({ step: 'setSecret', secretId, token: pending }, until, { ...inner, ports });
      }),
    );
    expect(refused).toMatchObject({ code: 'VERSION_NOT_PENDING' });
    expect((await rekey.labels(one.name))['AWSCURRENT']).toBe(first);
  });
});

describe('a value that createSecret is about to store', () => {
  /** createSecret, before whose write somebody takes AWSPENDING off and so much time passes. */
  const storeAfter = async (ms: number): Promise<{ outcome: unknown; isStored: boolean }> => {
    const one = await credential({ strategy: 'reset-password' });
    const pending = await untouchedRotation(one);
    const outcome = await failureOf(
      rekey.invoke(async (inner, until) => {
        const { ARN: secretId } = await rekey.describe(one.name);
        const writeSecret: Ports['writeSecret'] = async (request) => {
          await secrets('UpdateSecretVersionStage', {
            SecretId: `rekey/${one.name}`,
            VersionStage: 'AWSPENDING',
            RemoveFromVersionId: pending,
          });
          vendors().clock.move(ms);
          return inner.ports.writeSecret(request);
        };
        const ports = { ...inner.ports, writeSecret };
        return rotateSecret({ step: 'createSecret', secretId, token: pending }, until, { ...inner, ports });
      }),
    );
    const answer = await secrets('GetSecretValue', {
      SecretId: `rekey/${one.name}`,
      VersionId: pending,
    }).catch(() => undefined);
    return { outcome, isStored: answer !== undefined };
  };

  test('is not stored any more where AWSPENDING was taken off more than two seconds after the step looked', async () => {
    const { outcome, isStored } = await storeAfter(2_100);
    expect(outcome).toMatchObject({ code: 'SUPERSEDED', effect: 'none' });
    expect(isStored).toBe(false);
  });
});
