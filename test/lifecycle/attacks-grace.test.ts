import { afterEach, describe, expect, test } from 'vitest';
import { specParameterName } from '../../functions/core/names.ts';
import { createUser } from '../../functions/lifecycle/create-user.ts';
import {
  anotherPassword,
  choosing,
  hourMs,
  type Made,
  minuteMs,
  type ProviderId,
  targets,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { functionArn } from '../support/rekey.ts';

/** Rotations that cannot end, graces that are counted from the wrong date, bounds that block their own cure, pauses that are not heeded. */

const world = useCredentialWorld();
const {
  vendors,
  rekey,
  credential,
  login,
  works,
  labels,
  putLabel,
  move,
  start,
  passHours,
  orderPause,
  deletionOf,
} = world;
const { clusterId } = targets['zilliz-cloud'].target;

afterEach(() => {
  const { cockroachdb, vultr, zilliz } = vendors();
  for (const { faults } of [cockroachdb.api, vultr.api, zilliz.api]) faults.clear();
});

async function orderRotation({ name }: Made): Promise<void> {
  const order = 'CredentialRotationRequested';
  await rekey().order({ is: 'order', order, credential: name, orderedAt: world.now() });
  await rekey().secretsManager.idle();
}

const cancel = ({ name }: Made) => world.secrets('CancelRotateSecret', { SecretId: `rekey/${name}` });

/** The vendor takes no password any more: as one that refuses the one of before. */
function refusePasswords(provider: ProviderId): void {
  const { cockroachdb, vultr, zilliz } = vendors();
  const operation = 'setPassword';
  const refusal = { operation, kind: 'status', status: 400, times: 9_999 } as const;
  if (provider === 'cockroachdb-cloud') cockroachdb.api.faults.inject(refusal);
  else if (provider === 'vultr-valkey') vultr.api.faults.inject(refusal);
  else zilliz.api.faults.inject(refusal);
}

/** From now on the API key may send everything to Zilliz but this call. */
const forbid = (operation: 'deleteUser' | 'describeUser') =>
  vendors().zilliz.api.faults.inject({ operation, kind: 'status', status: 403, times: 9_999 });

const codes = (): readonly unknown[] =>
  rekey()
    .failures.splice(0)
    .map((failure) => (failure as { code?: unknown }).code);

const remedies = (made: Made, kind: string): readonly string[] =>
  world
    .published('DriftFound', made)
    .flatMap((detail) => (detail['kind'] === kind ? [String(detail['remedy'])] : []));

describe('I1: under reset-password, AWSCURRENT works again', () => {
  const only = (provider: ProviderId) => credential({ provider, strategy: 'reset-password' });

  describe.each(choosing)(
    'after somebody cancelled a rotation that had set the next password (%s)',
    (provider) => {
      async function cancelled(made: Made): Promise<string> {
        move(hourMs);
        const pending = await world.openRotation(made, 'createSecret', 'setSecret');
        await cancel(made);
        expect(await works(await login(made))).toBe(false);
        return pending;
      }
      /** As start-rotations asks for it, every five minutes. */
      async function passMinutes(minutes: number): Promise<void> {
        for (let passed = 0; passed < minutes; passed += 5) {
          move(5 * minuteMs);
          await start();
          await rekey().reconcile(rekey().takeMessages());
        }
      }

      test('within ten minutes, with the password of before', async () => {
        const made = await only(provider);
        const before = await login(made);
        await cancelled(made);
        await passMinutes(10);
        expect(await works(before)).toBe(true);
        expect((await login(made)).password.equals(before.password)).toBe(true);
        expect(await labels(made)).not.toHaveProperty('AWSPENDING');
      });

      test('with the pending one, where the vendor does not take that of before', async () => {
        const made = await only(provider);
        const pending = await cancelled(made);
        refusePasswords(provider);
        await passMinutes(10);
        expect((await labels(made))['AWSCURRENT']).toBe(pending);
        expect(await works(await login(made))).toBe(true);
        expect(world.published('CredentialRotated', made).at(-1)).toMatchObject({ versionId: pending });
      });

      test('with the pending one, where that of before was revoked', async () => {
        const made = await only(provider);
        const leaked = await login(made);
        move(minuteMs);
        await world.direct(made, 'revokeBefore');
        const pending = await cancelled(made);
        await passMinutes(10);
        expect((await labels(made))['AWSCURRENT']).toBe(pending);
        expect(await works(await login(made))).toBe(true);
        expect(await works(leaked)).toBe(false);
      });

      test('with the pending one, while writes are paused: nothing is asked of the vendor', async () => {
        const made = await only(provider);
        const pending = await cancelled(made);
        await orderPause('RekeyPaused');
        const writes = world.writes();
        await passMinutes(10);
        move(minuteMs);
        await orderPause('RekeyResumed');
        expect(world.writes()).toBe(writes);
        expect((await labels(made))['AWSCURRENT']).toBe(pending);
        expect(await works(await login(made))).toBe(true);
      });
    },
  );

  test('while the API key may not read roles, which keeps the rotation from being finished', async () => {
    const made = await only('zilliz-cloud');
    move(hourMs);
    forbid('describeUser');
    await rekey().rotate(made.name);
    await passHours(8);
    expect(await works(await login(made))).toBe(true);
  });

  test('once the spec is back that somebody removed meanwhile, and the finding says that this is needed', async () => {
    const made = await only('zilliz-cloud');
    move(hourMs);
    await world.openRotation(made, 'createSecret', 'setSecret');
    await world.parameters('DeleteParameter', { Name: specParameterName(made.name) });
    await passHours(2);
    expect(remedies(made, 'SpecMissing')).toEqual([expect.stringContaining('put the spec back')]);
    expect(remedies(made, 'SpecMissing')).toEqual([expect.stringContaining('login in AWSCURRENT')]);
    await world.storeSpec(made, { strategy: 'reset-password' });
    await passHours(1);
    expect(await works(await login(made))).toBe(true);
  });

  test('once the spec names the provider again that somebody replaced meanwhile, and the finding says that this is needed', async () => {
    const made = await only('zilliz-cloud');
    move(hourMs);
    await world.openRotation(made, 'createSecret', 'setSecret');
    await world.storeSpec(made, { provider: 'vultr-valkey', ...targets['vultr-valkey'] });
    await passHours(2);
    expect(remedies(made, 'TargetMoved')).toEqual([expect.stringContaining('AWSCURRENT')]);
    await world.storeSpec(made, { strategy: 'reset-password' });
    await passHours(1);
    expect(await works(await login(made))).toBe(true);
  });
});

test.each(['replace-user', 'alternate-users'] as const)(
  'I7: a rotation of %s that somebody cancelled is given up, so that the next one can start once rotation is on',
  async (strategy) => {
    const made = await credential({ provider: 'zilliz-cloud', strategy }, { grace: 'PT0S' });
    move(hourMs);
    await world.openRotation(made, 'createSecret', 'setSecret');
    await cancel(made);
    await passHours(2);
    expect(await labels(made)).not.toHaveProperty('AWSPENDING');
    expect(await works(await login(made))).toBe(true);
  },
);

describe('I3: under alternate-users, a login that was AWSCURRENT a minute ago works, whatever a person did:', () => {
  async function pair(): Promise<Made> {
    const made = await credential({ provider: 'zilliz-cloud', strategy: 'alternate-users' });
    move(30 * hourMs);
    await rekey().rotate(made.name);
    move(30 * hourMs);
    return made;
  }
  const rollBack = async (made: Made): Promise<void> =>
    putLabel(made, 'AWSCURRENT', (await labels(made))['AWSPREVIOUS']);

  test('a roll-back, then RotateSecret by hand; an order is carried out once the grace is over', async () => {
    const made = await pair();
    const before = await login(made);
    await rollBack(made);
    move(minuteMs);
    await rekey().rotate(made.name);
    expect(await works(before)).toBe(true);
    expect(codes()).toContain('SWITCH_UNDATED');
    // It is taken off at once, so that it is in nobody's way.
    expect(await labels(made)).not.toHaveProperty('AWSPENDING');
    const { AWSCURRENT: current } = await labels(made);
    await orderRotation(made);
    await passHours(23);
    expect(await works(before)).toBe(true);
    expect((await labels(made))['AWSCURRENT']).toBe(current);
    await passHours(3);
    expect((await labels(made))['AWSCURRENT']).not.toBe(current);
    expect(await works(await login(made))).toBe(true);
  });

  test('a roll-back that was taken back, then an order', async () => {
    const made = await pair();
    const { AWSPREVIOUS: back, AWSCURRENT: forth } = await labels(made);
    await putLabel(made, 'AWSCURRENT', back);
    const before = await login(made);
    move(20 * hourMs);
    await putLabel(made, 'AWSCURRENT', forth);
    move(minuteMs);
    await orderRotation(made);
    expect(await works(before)).toBe(true);
  });

  test('a roll-back while an ordered rotation is retried', async () => {
    const made = await pair();
    const { actor } = vendors().zilliz.api;
    rekey().secretsManager.setVariants({ retryDelaysMs: [] });
    actor.setStatus(clusterId, 'SUSPENDED');
    await orderRotation(made);
    actor.setStatus(clusterId, 'RUNNING');
    const { AWSPENDING: pending = '' } = await labels(made);
    expect(pending).not.toBe('');
    const before = await login(made);
    await rollBack(made);
    move(minuteMs);
    for (const step of ['createSecret', 'setSecret'])
      await world.failureOf(rekey().step(made.name, step, pending));
    expect(await works(before)).toBe(true);
  });

  test('a roll-back between the plan and the start, taken back at once', async () => {
    const made = await pair();
    const { AWSPREVIOUS: back, AWSCURRENT: forth } = await labels(made);
    const before = await login(made, 'AWSPREVIOUS');
    await world.direct(made, 'rotateBefore');
    const { startRotations } = await import('../../functions/lifecycle/start-rotations.ts');
    let times = 0;
    await world.invokeWith(
      (ports) => ({
        startRotation: async (request) => {
          times += 1;
          await putLabel(made, 'AWSCURRENT', back);
          move(3_000);
          await putLabel(made, 'AWSCURRENT', forth);
          move(3_000);
          return ports.startRotation(request);
        },
      }),
      (inner, until) =>
        startRotations({ is: 'pass', dryRun: false }, { rotationFunctionArn: functionArn }, until, inner),
    );
    await rekey().secretsManager.idle();
    expect(times).toBe(1);
    expect(await works(before)).toBe(true);
  });

  test('REKEY_PUBLISHED was moved to the version that he rolled back to, then RotateSecret by hand', async () => {
    const made = await pair();
    const before = await login(made);
    const { AWSCURRENT: from, AWSPREVIOUS: to } = await labels(made);
    await rollBack(made);
    await world.secrets('UpdateSecretVersionStage', {
      SecretId: `rekey/${made.name}`,
      VersionStage: 'REKEY_PUBLISHED',
      RemoveFromVersionId: from,
      MoveToVersionId: to,
    });
    await world.reconcile();
    move(minuteMs);
    await rekey().rotate(made.name);
    expect(await works(before)).toBe(true);
  });

  test('and once nobody moved anything, RotateSecret by hand is carried out', async () => {
    const made = await pair();
    const version = await rekey().rotate(made.name);
    expect((await labels(made))['AWSCURRENT']).toBe(version);
  });

  test('I27: a compromised pair is rotated at once after a roll-back', async () => {
    const made = await pair();
    await rollBack(made);
    const leaked = await login(made);
    move(minuteMs);
    await world.compromise(made);
    expect((await login(made)).username).not.toBe(leaked.username);
    expect(codes()).toEqual([]);
  });
});

describe('the strategy changes in the spec', () => {
  test('I3: one of two users keeps its grace after a rotation of replace-user that was finished after a pause', async () => {
    const made = await credential({ provider: 'zilliz-cloud', strategy: 'alternate-users' });
    move(30 * hourMs);
    await world.storeSpec(made, { strategy: 'replace-user' });
    const pending = await world.openRotation(made, 'createSecret');
    await orderPause('RekeyPaused');
    move(30 * hourMs);
    const before = await login(made);
    await orderPause('RekeyResumed');
    await world.reconcile();
    expect((await labels(made))['AWSCURRENT']).toBe(pending);
    await world.storeSpec(made, { strategy: 'alternate-users' });
    move(10 * minuteMs);
    await orderRotation(made);
    expect(await works(before)).toBe(true);
    await rekey().rotate(made.name);
    expect(await works(before), 'after RotateSecret by hand').toBe(true);
  });

  test('I6: alternate-users makes no user more where the five that may be held are there', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    forbid('deleteUser');
    for (let rotation = 0; rotation < 6; rotation += 1) {
      move(30 * hourMs);
      await rekey().rotate(made.name);
    }
    expect(await world.usersAt(made)).toHaveLength(7);
    await world.storeSpec(made, { strategy: 'alternate-users' });
    for (let rotation = 0; rotation < 2; rotation += 1) {
      move(30 * hourMs);
      // Gives the one before up.
      await world.reconcile();
      await rekey().rotate(made.name);
      expect(new Set(codes())).toEqual(new Set(['USERS_IN_THE_WAY']));
    }
    move(2 * hourMs);
    await world.reconcile();
    expect(world.found(made)).toContain('UsersInTheWay');
    expect((await world.usersAt(made)).length, 'two, and five that are held').toBeLessThanOrEqual(7);
    // Once the vendor deletes users, it goes on by itself.
    vendors().zilliz.api.faults.clear();
    await passHours(3);
    await orderRotation(made);
    await passHours(30);
    expect((await world.usersAt(made)).length).toBeLessThanOrEqual(3);
    expect(await works(await login(made))).toBe(true);
  });
});

describe('I7: a login in AWSCURRENT that is of no use is replaced,', () => {
  async function withFiveHeld(): Promise<Made> {
    const made = await credential({ provider: 'zilliz-cloud' });
    forbid('deleteUser');
    for (let rotation = 0; rotation < 6; rotation += 1) {
      move(30 * hourMs);
      await rekey().rotate(made.name);
    }
    move(30 * hourMs);
    return made;
  }
  const refuse = async (made: Made): Promise<void> =>
    world.setPasswordByHand(made, (await login(made)).username, anotherPassword);

  test('although five users are held, and again', async () => {
    const made = await withFiveHeld();
    for (let time = 0; time < 2; time += 1) {
      await refuse(made);
      await passHours(2);
      expect(await works(await login(made))).toBe(true);
    }
    expect(world.found(made)).not.toContain('UsersInTheWay');
    vendors().zilliz.api.faults.clear();
    await passHours(30);
    expect(await world.usersAt(made)).toHaveLength(1);
  });

  test('although five users are held and the vendor deletes none: its user is gone', async () => {
    const made = await withFiveHeld();
    vendors().zilliz.api.actor.deleteUser(clusterId, (await login(made)).username);
    await passHours(2);
    expect(await works(await login(made))).toBe(true);
  });

  test.each(['zilliz-cloud', 'vultr-valkey', 'render-postgres'] as const)(
    'although two users are in their grace (%s)',
    async (provider) => {
      const made = await credential({ provider });
      for (let rotation = 0; rotation < 2; rotation += 1) {
        move(hourMs);
        await rekey().rotate(made.name);
      }
      const inGrace = await login(made, 'AWSPREVIOUS');
      move(minuteMs);
      await refuse(made);
      await passHours(2);
      expect(await works(await login(made))).toBe(true);
      expect(await works(inGrace)).toBe(true);
    },
  );

  test('I6: but rotations that fail meanwhile do not fill the target', async () => {
    const made = await withFiveHeld();
    const before = await world.usersAt(made);
    await refuse(made);
    // No new login ever works.
    vendors().zilliz.api.faults.inject({
      operation: 'describeUser',
      kind: 'status',
      status: 403,
      times: 9_999,
    });
    rekey().secretsManager.setVariants({ retryDelaysMs: [] });
    await passHours(16);
    const more = (await world.usersAt(made)).length - before.length;
    expect(more).toBeGreaterThan(0);
    expect(more).toBeLessThanOrEqual(3);
  });
});

describe('I18: a late CredentialRequested does not store the spec of a credential', () => {
  test('that was deleted meanwhile', async () => {
    const name = 'latecomer';
    const spec = { provider: 'zilliz-cloud', ...targets['zilliz-cloud'], name, usernamePrefix: 'late' };
    const request = { spec, requestedAt: world.now() };
    let late = 0;
    await world.failureOf(
      world.invokeWith(
        (ports) => ({
          createParameter: async (given) => {
            if (late === 0) {
              late += 1;
              // The same event again, whose run dies before it makes the secret; then the order to delete.
              await world.failureOf(
                world.invokeWith(
                  () => ({ createSecret: async () => Promise.reject(new Error('killed')) }),
                  (inner, until) => createUser(request, { rotationFunctionArn: functionArn }, until, inner),
                ),
              );
              move(minuteMs);
              await rekey().sweep(deletionOf({ name }));
              expect(await rekey().parameter(specParameterName(name))).toBeUndefined();
            }
            return ports.createParameter(given);
          },
        }),
        (inner, until) => createUser(request, { rotationFunctionArn: functionArn }, until, inner),
      ),
    );
    expect(late).toBe(1);
    const left = await rekey().parameter(specParameterName(name));
    if (left !== undefined) await world.parameters('DeleteParameter', { Name: specParameterName(name) });
    expect(left).toBeUndefined();
  });

  test('whose deletion was ordered meanwhile, and is at its end', async () => {
    const name = 'latecomer-two';
    const spec = { provider: 'zilliz-cloud', ...targets['zilliz-cloud'], name, usernamePrefix: 'late2' };
    const request = { spec, requestedAt: world.now() };
    const outcome = await world.failureOf(
      world.invokeWith(
        (ports) => ({
          createParameter: async (given) => {
            move(minuteMs);
            await world.parameters('PutParameter', {
              Name: `/rekey/directives/${name}/deleteSince`,
              Value: world.now().toISOString(),
              Type: 'String',
            });
            return ports.createParameter(given);
          },
        }),
        (inner, until) => createUser(request, { rotationFunctionArn: functionArn }, until, inner),
      ),
    );
    await world.parameters('DeleteParameter', { Name: `/rekey/directives/${name}/deleteSince` });
    expect(outcome).toMatchObject({ code: 'SUPERSEDED' });
    expect(await rekey().parameter(specParameterName(name))).toBeUndefined();
  });
});

describe('I26: a version between AWSCURRENT and AWSPREVIOUS is not published again', () => {
  async function rolledBack(): Promise<{ made: Made; first: string; second: string; third: string }> {
    const made = await credential({ provider: 'zilliz-cloud' });
    const { AWSCURRENT: first = '' } = await labels(made);
    move(hourMs);
    const second = await rekey().rotate(made.name);
    move(30 * hourMs);
    await rekey().sweep();
    const third = await rekey().rotate(made.name);
    await putLabel(made, 'AWSCURRENT', first);
    return { made, first, second, third };
  }
  const mark = ({ name }: Made, move: object) =>
    world.secrets('UpdateSecretVersionStage', {
      SecretId: `rekey/${name}`,
      VersionStage: 'REKEY_PUBLISHED',
      ...move,
    });
  const marked = async ({ name }: Made): Promise<string | undefined> =>
    Object.entries((await rekey().describe(name)).VersionIdsToStages ?? {}).find(([, held]) =>
      held.includes('REKEY_PUBLISHED'),
    )?.[0];

  test.each(['taken off', 'moved to AWSCURRENT'])('where somebody had REKEY_PUBLISHED %s', async (how) => {
    const { made, first, second, third } = await rolledBack();
    await mark(made, {
      RemoveFromVersionId: third,
      ...(how === 'taken off' ? {} : { MoveToVersionId: first }),
    });
    await putLabel(made, 'AWSPENDING', second);
    // Secrets Manager may call its steps, too.
    for (const step of ['createSecret', 'setSecret', 'testSecret', 'finishSecret'])
      await world.failureOf(rekey().step(made.name, step, second));
    expect((await labels(made))['AWSCURRENT']).toBe(first);
    await putLabel(made, 'AWSPENDING', second);
    move(hourMs + minuteMs);
    await world.reconcile();
    expect((await labels(made))['AWSCURRENT']).toBe(first);
    expect(await labels(made)).not.toHaveProperty('AWSPENDING');
    expect(await marked(made), 'the mark is back').toBe(third);
  });

  test('and the mark is put on AWSCURRENT where there is no roll-back', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    const { AWSCURRENT: current } = await labels(made);
    await mark(made, { RemoveFromVersionId: current });
    await world.reconcile();
    expect(await marked(made)).toBe(current);
  });
});

describe('S4: while writes are paused', () => {
  afterEach(async () => {
    move(minuteMs);
    await orderPause('RekeyResumed');
  });

  test.each([
    ['published', ['createSecret', 'setSecret', 'testSecret']],
    ['given up', []],
  ])('no stuck rotation is %s and called repaired, and after the pause it is ended', async (_how, steps) => {
    const made = await credential({ provider: 'zilliz-cloud' });
    move(hourMs);
    const pending = await world.openRotation(made, ...steps);
    await orderPause('RekeyPaused');
    move(8 * hourMs);
    await world.reconcile();
    expect(world.published('DriftRepaired', made)).toEqual([]);
    expect(await labels(made)).toMatchObject({ AWSPENDING: pending });
    move(minuteMs);
    await orderPause('RekeyResumed');
    await world.reconcile();
    const { AWSCURRENT, AWSPENDING = AWSCURRENT } = await labels(made);
    expect(AWSPENDING, 'no rotation is open').toBe(AWSCURRENT);
    expect(world.published('DriftRepaired', made)).toHaveLength(1);
  });

  test('no secret is deleted, and after the pause it is', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    move(hourMs);
    await orderPause('RekeyPaused');
    vendors().zilliz.api.actor.deleteUser(clusterId, (await login(made)).username);
    await rekey().sweep(deletionOf(made));
    for (let quarter = 0; quarter < 3; quarter += 1) {
      await rekey().sweep();
      move(15 * minuteMs);
    }
    expect(await rekey().describe(made.name)).not.toHaveProperty('DeletedDate');
    expect(world.published('CredentialDeleted', made)).toEqual([]);
    await orderPause('RekeyResumed');
    await rekey().sweep();
    expect(await rekey().describe(made.name)).toHaveProperty('DeletedDate');
    expect(world.published('CredentialDeleted', made)).toHaveLength(1);
  });

  test('no credential without a secret is called deleted', async () => {
    const name = 'without-secret';
    const spec = { provider: 'zilliz-cloud', ...targets['zilliz-cloud'], name, usernamePrefix: 'wos' };
    await world.parameters('PutParameter', {
      Name: specParameterName(name),
      Value: JSON.stringify(spec),
      Type: 'String',
    });
    move(minuteMs);
    await orderPause('RekeyPaused');
    await rekey().sweep(deletionOf({ name }));
    expect(await rekey().parameter(specParameterName(name))).toBeDefined();
    move(minuteMs);
    await orderPause('RekeyResumed');
    await rekey().sweep();
    expect(await rekey().parameter(specParameterName(name))).toBeUndefined();
  });
});

test('the finding about a login that is refused says when the rotation comes that mends it', async () => {
  const made = await credential({ provider: 'zilliz-cloud', strategy: 'alternate-users' });
  move(30 * hourMs);
  await rekey().rotate(made.name);
  move(hourMs);
  await world.setPasswordByHand(made, (await login(made)).username, anotherPassword);
  await world.reconcile();
  expect(remedies(made, 'CurrentRejected')).toEqual([
    expect.stringContaining('rekey rotates once the grace of the other user is over, at 2'),
  ]);
  await passHours(26);
  expect(await works(await login(made))).toBe(true);
});
