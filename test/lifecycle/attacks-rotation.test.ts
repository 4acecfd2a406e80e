import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { createUser } from '../../functions/lifecycle/create-user.ts';
import { rotateSecret } from '../../functions/lifecycle/rotate-secret.ts';
import { hourMs, type Made, minuteMs, targets, useCredentialWorld } from '../support/credential-world.ts';
import { functionArn, token } from '../support/rekey.ts';

/**
 * Each test is one way in which an attacker of the invariants made a rotation break one of them. They are told as the story of one
 * credential, of which no single step looks wrong.
 */
const world = useCredentialWorld();
const { vendors, rekey, credential, login, works, labels, putLabel, move } = world;
const one = targets['zilliz-cloud'].target.clusterId;
const two = 'in01-208240180a4faf8';

beforeAll(() => {
  vendors().zilliz.api.addCluster({ id: two, name: 'two', roles: ['orders_rw'] });
});
afterEach(() => {
  vendors().render.api.faults.clear();
  const { faults, actor, clusters } = vendors().zilliz.api;
  faults.clear();
  for (const id of [one, two]) actor.setStatus(id, 'RUNNING');
  for (const { username } of clusters.get(two)?.users() ?? [])
    if (username !== 'db_admin') actor.deleteUser(two, username);
});

async function start(): Promise<void> {
  await rekey().start();
  await rekey().secretsManager.idle();
}

/** What the schedules do in so many days, once an hour. */
async function passDays(days: number): Promise<void> {
  for (let hour = 0; hour < days * 24; hour += 1) {
    move(hourMs);
    await world.reconcile();
    await start();
    await rekey().sweep();
  }
}

/** A credential whose first rotation has made its user, and has not tested its login yet. */
async function firstRotationOpen(): Promise<{ readonly made: Made; readonly pending: string }> {
  const { actor } = vendors().zilliz.api;
  rekey().secretsManager.setVariants({ retryDelaysMs: [] });
  actor.setStatus(one, 'SUSPENDED');
  const made = await credential({ provider: 'zilliz-cloud' });
  actor.setStatus(one, 'RUNNING');
  const { AWSPENDING: pending = '' } = await labels(made);
  await rekey().step(made.name, 'createSecret', pending);
  await rekey().step(made.name, 'setSecret', pending);
  expect(await world.usersAt(made)).toHaveLength(1);
  return { made, pending };
}

describe('the spec changes while a rotation is open', () => {
  test.each([
    ['target', { target: { clusterId: two } }],
    ['strategy, to one user a rotation', { strategy: 'replace-user' }],
    ['strategy, to two users', { strategy: 'alternate-users' }],
    ['grace', { grace: 'PT1H' }],
  ])(
    'I1: AWSCURRENT works again within ten minutes where reset-password has set the next password: %s',
    async (_, changes) => {
      const made = await credential({ provider: 'zilliz-cloud', strategy: 'reset-password' });
      move(hourMs);
      const pending = await world.openRotation(made, 'createSecret', 'setSecret');
      expect(await works(await login(made))).toBe(false);
      await world.storeSpec(made, changes);
      await world.failureOf(rekey().step(made.name, 'testSecret', pending));
      // Start-rotations comes every five minutes, and the queue at once: a second task is one that the first has queued.
      for (let minutes = 0; minutes < 10; minutes += 5) {
        move(5 * minuteMs);
        await start();
        for (let task = 0; task < 2; task += 1) await rekey().reconcile(rekey().takeMessages());
      }
      expect(await works(await login(made)), 'the login in AWSCURRENT').toBe(true);
      const { AWSCURRENT, AWSPENDING = AWSCURRENT } = await labels(made);
      expect(AWSPENDING, 'no rotation is open').toBe(AWSCURRENT);
    },
  );

  test('I8: the user that the first rotation made at the former target is deleted', async () => {
    const { made, pending } = await firstRotationOpen();
    const first = await login(made, 'AWSPENDING');
    await world.storeSpec(made, { target: { clusterId: two } });
    await world.failureOf(rekey().step(made.name, 'testSecret', pending));
    await passDays(3);
    expect(await works(await login(made)), 'the login of the new target').toBe(true);
    expect(await works(first), 'the user of the former target').toBe(false);
  });

  test('I8: the user that the first rotation made under the former usernamePrefix is deleted', async () => {
    const { made, pending } = await firstRotationOpen();
    const first = await login(made, 'AWSPENDING');
    await world.storeSpec(made, { usernamePrefix: `${made.prefix}new` });
    await world.failureOf(rekey().step(made.name, 'testSecret', pending));
    await passDays(2);
    expect(await works(await login(made)), 'the login under the new prefix').toBe(true);
    expect(await works(first), 'the user under the former prefix').toBe(false);
  });
});

test('I1: a late adoption does not write over the login of a later rotation', async () => {
  const { actor } = vendors().zilliz.api;
  const [username, earlier, later] = [
    'legacyuser',
    'Legacy-password_0000000000000001',
    'Legacy-password_0000000000000002',
  ];
  const kept = { SecretId: 'rekey/adopt/legacy', Name: 'rekey/adopt/legacy' };
  const keep = (operation: string, password: string) =>
    world.secrets(operation, {
      ...kept,
      SecretString: JSON.stringify({ username, password }),
      ClientRequestToken: token(),
    });
  await keep('CreateSecret', earlier);
  actor.createUser(one, username, earlier);
  const spec = {
    provider: 'zilliz-cloud',
    ...targets['zilliz-cloud'],
    name: 'late-adopter',
    usernamePrefix: 'late',
    adopt: { username, passwordSecret: kept.SecretId },
  };
  // Somebody changes the password, the request comes again, and the first rotation is over before the first run goes on.
  let isLate = false;
  const meanwhile = async (): Promise<void> => {
    actor.setPassword(one, username, later);
    await keep('PutSecretValue', later);
    await rekey().request(spec);
    await rekey().secretsManager.idle();
    move(minuteMs);
    await rekey().rotate(spec.name);
  };
  const failure = await world.failureOf(
    world.invokeWith(
      (ports) => ({
        writeSecret: async (request) => {
          if (!isLate) {
            isLate = true;
            await meanwhile();
          }
          return ports.writeSecret(request);
        },
      }),
      (inner, until) =>
        createUser({ spec, requestedAt: world.now() }, { rotationFunctionArn: functionArn }, until, inner),
    ),
  );
  const now = await rekey().login(spec.name, 'AWSCURRENT');
  await world.parameters('DeleteParameter', { Name: `/rekey/credentials/${spec.name}` });
  expect(failure).toMatchObject({ code: 'SUPERSEDED', effect: 'none' });
  expect(now?.username).not.toBe(username);
  expect(now !== undefined && (await works(now)), 'the login in AWSCURRENT').toBe(true);
});

test('I26: AWSPREVIOUS is not put back onto a version that was revoked', async () => {
  const made = await credential({ provider: 'zilliz-cloud' });
  const { AWSCURRENT: leaked } = await labels(made);
  move(hourMs);
  await world.compromise(made);
  expect((await labels(made))['AWSPREVIOUS']).toBe(leaked);
  await putLabel(made, 'AWSPREVIOUS', undefined);
  await world.reconcile();
  const { AWSPREVIOUS: restored } = await labels(made);
  expect(restored).toBeDefined();
  expect(restored).not.toBe(leaked);
});

describe('a rotation is killed right after the switch, before REKEY_PUBLISHED has moved', () => {
  async function killedAfterSwitch() {
    const made = await credential({ provider: 'zilliz-cloud' });
    const { AWSCURRENT: first = '' } = await labels(made);
    move(hourMs);
    const second = await rekey().rotate(made.name);
    move(3 * hourMs);
    const third = await world.openRotation(made, 'createSecret', 'setSecret', 'testSecret');
    const { ARN } = await rekey().describe(made.name);
    let moves = 0;
    await world.failureOf(
      world.invokeWith(
        (ports) => ({
          moveLabel: async (request) => {
            moves += 1;
            if (moves > 1) throw new Error('killed');
            return ports.moveLabel(request);
          },
        }),
        (inner, until) => rotateSecret({ step: 'finishSecret', secretId: ARN, token: third }, until, inner),
      ),
    );
    expect((await labels(made))['AWSCURRENT']).toBe(third);
    move(2 * hourMs);
    await world.reconcile();
    return { made, first, second, third, login: await login(made) };
  }

  test('I26: two roll-backs by hand are not undone', async () => {
    const { made, first, second, third } = await killedAfterSwitch();
    const { VersionIdsToStages = {} } = await rekey().describe(made.name);
    expect(VersionIdsToStages[third]).toContain('REKEY_PUBLISHED');
    await putLabel(made, 'AWSCURRENT', second);
    move(minuteMs);
    await putLabel(made, 'AWSCURRENT', first);
    move(20 * minuteMs);
    await start();
    await world.reconcile();
    expect((await labels(made))['AWSCURRENT']).toBe(first);
  });

  test('I3: its user keeps its grace after two roll-backs by hand', async () => {
    const { made, first, second, login: published } = await killedAfterSwitch();
    await putLabel(made, 'AWSPENDING', undefined);
    await putLabel(made, 'AWSCURRENT', second);
    move(minuteMs);
    await putLabel(made, 'AWSCURRENT', first);
    move(20 * minuteMs);
    await rekey().sweep();
    expect(await works(published)).toBe(true);
  });
});

test('I6: a password that is lost in the grace of the previous rotation makes no fourth user', async () => {
  const made = await credential({ provider: 'render-postgres' });
  move(2 * hourMs);
  await rekey().rotate(made.name);
  move(2 * hourMs);
  const { api } = vendors().render;
  let others = 0;
  api.faults.inject({
    operation: 'createUser',
    kind: 'meanwhile',
    run: async () => {
      others += 1;
      move(1_000);
      await api.actor.createUser(targets['render-postgres'].target.postgresId, `another_${others}`);
    },
  });
  await rekey().rotate(made.name);
  expect(others).toBeGreaterThan(0);
  expect((await world.usersAt(made)).length).toBeLessThanOrEqual(3);
});

describe('an operator rolls back to the other one of two users', () => {
  test.each([
    ['an order', { hours: 30, rotation: {}, order: true }],
    ['the interval', { hours: 66, rotation: { rotation: { every: 'P3D' } }, order: false }],
  ])(
    'I3: the login of before works through its grace, whatever asks for a rotation: %s',
    async (_, given) => {
      const made = await credential(
        { provider: 'zilliz-cloud', strategy: 'alternate-users' },
        given.rotation,
      );
      move(30 * hourMs);
      await rekey().rotate(made.name);
      const before = await login(made);
      move(given.hours * hourMs);
      await putLabel(made, 'AWSCURRENT', (await labels(made))['AWSPREVIOUS']);
      move(minuteMs);
      const order = {
        is: 'order',
        order: 'CredentialRotationRequested',
        credential: made.name,
        orderedAt: world.now(),
      } as const;
      await (given.order ? rekey().order(order) : rekey().start());
      await rekey().secretsManager.idle();
      expect(await works(before), 'the login that consumers read a minute ago').toBe(true);
      // Not for ever: once the grace is over, the rotation comes.
      move(25 * hourMs);
      await start();
      expect(await works(before)).toBe(false);
      expect(await works(await login(made))).toBe(true);
    },
  );
});
