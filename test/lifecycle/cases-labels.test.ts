import { describe, expect, test } from 'vitest';
import { rotateSecret } from '../../functions/lifecycle/rotate-secret.ts';
import {
  anotherPassword,
  choosing,
  hourMs,
  type Made,
  minuteMs,
  played,
  type Scenario,
  targets,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { token } from '../support/rekey.ts';

// Labels that a person moves, and rotations that stop halfway: told as whole use cases.

const world = useCredentialWorld();
const { vendors, rekey, credential, compromise, login, works, labels, putLabel, move } = world;

const steps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'] as const;
const startRotations = async (): Promise<void> => {
  await rekey().start();
  await rekey().secretsManager.idle();
};
const isPending = async (one: Made, version: string): Promise<boolean> =>
  (await labels(one))['AWSPENDING'] === version;

describe('I26: AWSPENDING that somebody puts on the version of AWSPREVIOUS', () => {
  /** Who meets the label first, and what it says of it. */
  const finders: Record<string, (one: Made, version: string) => Promise<void>> = {
    'Secrets Manager': async (one, version) => {
      for (const step of steps)
        expect(await world.failureOf(rekey().step(one.name, step, version)), step).toMatchObject({
          code: expect.stringMatching(/^(VERSION_NOT_PENDING|VERSION_REVOKED|VERSION_UNKNOWN)$/),
        });
      expect(world.published('CredentialRotationFailed', one)).toEqual([
        expect.objectContaining({ code: expect.stringMatching(/^VERSION_/), step: 'createSecret' }),
      ]);
    },
    'reconcile-users': async (one, version) => {
      await world.reconcile();
      expect(world.published('DriftFound', one)).toEqual([
        expect.objectContaining({ kind: 'PendingStray', details: expect.stringContaining(version) }),
      ]);
    },
    'start-rotations': async (one, version) => {
      await startRotations();
      expect(world.published('DriftFound', one)).toEqual([
        expect.objectContaining({ kind: 'PendingStray', details: expect.stringContaining(version) }),
      ]);
    },
  };
  const histories: Record<string, (one: Made) => Promise<unknown>> = {
    'is never finished, and is taken off': (one) => rekey().rotate(one.name),
    'is never finished after CredentialCompromised, and is taken off': compromise,
  };
  const cases = played.flatMap((scenario, index) =>
    Object.entries(histories).map(([outcome, rotate], story) => ({
      ...scenario,
      outcome,
      rotate,
      // Each with one finder: over all of them, each finder meets every strategy and both stories.
      finder: Object.keys(finders)[(index + story) % 3] ?? '',
    })),
  );

  test.each(cases)('$outcome: $provider, $strategy, $finder', async ({ rotate, finder, ...scenario }) => {
    const one = await credential(scenario as Scenario, { grace: 'PT0S' });
    await rekey().rotate(one.name);
    move(minuteMs);
    await rotate(one);
    const { AWSCURRENT: current, AWSPREVIOUS: previous = '' } = await labels(one);
    const [live, former] = [await login(one), await login(one, 'AWSPREVIOUS')];
    const formerWorks = await works(former);
    const before = { writes: world.writes(), rotated: world.published('CredentialRotated', one).length };
    await putLabel(one, 'AWSPENDING', previous);
    move(2 * hourMs);
    await finders[finder]?.(one, previous);
    expect(await labels(one)).toMatchObject({ AWSCURRENT: current, AWSPREVIOUS: previous });
    expect(await isPending(one, previous)).toBe(false);
    expect([await works(live), await works(former)]).toEqual([true, formerWorks]);
    expect({
      writes: world.writes(),
      rotated: world.published('CredentialRotated', one).length,
    }).toEqual(before);
    // And nothing is in the way of the next rotation.
    const next = await rekey().rotate(one.name);
    expect((await labels(one))['AWSCURRENT']).toBe(next);
  });
});

describe('I26: AWSPENDING is left on the current version, and AWSCURRENT is rolled back by hand', () => {
  /** Rotated, with both labels on the new version, and rolled back. */
  async function rolledBack(one: Made): Promise<{ older: string; newer: string }> {
    const { AWSCURRENT: newer = '', AWSPREVIOUS: older = '' } = await labels(one);
    await putLabel(one, 'AWSPENDING', newer);
    await putLabel(one, 'AWSCURRENT', older);
    expect(await labels(one)).toEqual({ AWSCURRENT: older, AWSPREVIOUS: newer, AWSPENDING: newer });
    return { older, newer };
  }

  test.each(played.filter(({ strategy }) => strategy !== 'reset-password'))(
    'that is respected and reported, not undone: $provider, $strategy',
    async (scenario) => {
      const one = await credential(scenario, { grace: 'PT0S' });
      move(hourMs);
      await rekey().rotate(one.name);
      const { older, newer } = await rolledBack(one);
      move(2 * hourMs);
      for (const step of steps) await world.failureOf(rekey().step(one.name, step, newer));
      await world.reconcile();
      await startRotations();
      await world.reconcile();
      expect(await labels(one)).toEqual({ AWSCURRENT: older, AWSPREVIOUS: newer });
      expect(await works(await login(one))).toBe(true);
      expect(world.found(one)).toContain('RolledBack');
      expect(world.published('CredentialRotated', one)).toHaveLength(2);
    },
  );

  test.each(played)(
    'onto a version that was revoked: another one is made in the next pass ($provider, $strategy)',
    async (scenario) => {
      const one = await credential(scenario);
      await compromise(one);
      const { older, newer } = await rolledBack(one);
      move(minuteMs);
      await startRotations();
      const { AWSCURRENT: current } = await labels(one);
      expect([older, newer]).not.toContain(current);
      expect(await works(await login(one))).toBe(true);
      expect(world.published('CredentialRotated', one).map(({ versionId }) => versionId)).toContain(current);
    },
  );
});

describe('I17: after CredentialDeletionRequested nothing is rotated', () => {
  /** Nobody was made, and AWSCURRENT did not move. */
  async function refuses(one: Made, rotates: () => Promise<unknown>): Promise<void> {
    const before = {
      current: (await labels(one))['AWSCURRENT'],
      users: await world.usersAt(one),
      rotated: world.published('CredentialRotated', one).length,
    };
    const live = await login(one);
    await rotates();
    expect({
      current: (await labels(one))['AWSCURRENT'],
      users: await world.usersAt(one),
      rotated: world.published('CredentialRotated', one).length,
    }).toEqual(before);
    expect(await works(live)).toBe(true);
  }

  test.each(played)('though a person calls RotateSecret: $provider, $strategy', async (scenario) => {
    const one = await credential(scenario, { grace: 'PT0S' });
    move(hourMs);
    await world.direct(one, 'deleteSince');
    const writes = world.writes();
    await refuses(one, () => rekey().rotate(one.name));
    expect(rekey().failures[0]).toMatchObject({ code: 'DELETION_IN_PROGRESS', effect: 'none' });
    expect(world.writes()).toBe(writes);
  });

  test.each(played)(
    'by the steps of a rotation that is under way, whichever comes next: $provider, $strategy',
    async (scenario) => {
      const one = await credential(scenario, { grace: 'PT0S' });
      move(hourMs);
      const pending = await world.openRotation(one);
      const { ARN: secretId } = await rekey().describe(one.name);
      // Ordered while the first step that asks the vendor for something is about to: its intent is published by then.
      const interrupted = scenario.provider === 'render-postgres' ? 'createSecret' : 'setSecret';
      if (interrupted === 'setSecret') await rekey().step(one.name, 'createSecret', pending);
      let isOrdered = false;
      await refuses(one, async () => {
        const stopped = await world.failureOf(
          world.invokeWith(
            ({ publish }) => ({
              publish: async (events) => {
                await publish(events);
                if (!isOrdered) await world.direct(one, 'deleteSince');
                isOrdered = true;
              },
            }),
            (inner, until) => rotateSecret({ step: interrupted, secretId, token: pending }, until, inner),
          ),
        );
        expect(stopped).toMatchObject({ code: 'SUPERSEDED', effect: 'none' });
        for (const step of steps)
          expect(await world.failureOf(rekey().step(one.name, step, pending)), step).toMatchObject({
            code: 'DELETION_IN_PROGRESS',
          });
      });
    },
  );
});

describe('I1: reset-password is not open at rest: where finishSecret does not come, AWSCURRENT works again within ten minutes', () => {
  /** Up to finishSecret, which is killed at its move of AWSCURRENT; answers the rotation's token. */
  async function dies(one: Made, when: 'before' | 'after'): Promise<string> {
    const beforeFinish = steps.slice(0, 3);
    const finish = async (pending: string, at?: number): Promise<unknown> => {
      rekey().killAt(at === undefined ? undefined : { call: at, when });
      const end = await world.failureOf(rekey().step(one.name, 'finishSecret', pending));
      return end;
    };
    await finish(await world.openRotation(one, ...beforeFinish));
    const call = rekey().calls.indexOf('moveLabel') + 1;
    expect(call).toBeGreaterThan(1);
    const pending = await world.openRotation(one, ...beforeFinish);
    expect(await finish(pending, call)).toMatchObject({ message: 'killed' });
    return pending;
  }
  /** The vendor takes the password, and fails from then on. */
  async function vendorFails(one: Made): Promise<string> {
    const { cockroachdb, vultr, zilliz } = vendors();
    const boxes = [cockroachdb.api.faults, vultr.api.faults, zilliz.api.faults];
    const run = async (): Promise<void> => {
      for (const box of boxes) box.inject({ operation: '*', kind: 'status', status: 500, times: 999 });
    };
    for (const box of boxes) box.inject({ operation: 'setPassword', kind: 'meanwhile', when: 'before', run });
    rekey().secretsManager.setVariants({ retryDelaysMs: [] });
    const pending = await rekey().rotate(one.name);
    for (const box of boxes) box.clear();
    expect(rekey().failures).toHaveLength(1);
    return pending;
  }
  const stops: Record<string, (one: Made) => Promise<string>> = {
    'as it was killed': (one) => dies(one, 'before'),
    'as the vendor fails': vendorFails,
  };
  const cases = choosing.flatMap((provider) =>
    Object.entries(stops).map(([how, stop]) => ({ provider, how, stop })),
  );

  test.each(cases)('$how, and the measured time is published ($provider)', async ({ provider, stop }) => {
    const one = await credential({ provider, strategy: 'reset-password' });
    move(hourMs);
    const startedAt = world.now().getTime();
    const pending = await stop(one);
    expect(await works(await login(one))).toBe(false);
    expect(await works(await login(one, 'AWSPENDING'))).toBe(true);
    for (let passes = 0; passes < 2 && !(await works(await login(one))); passes += 1) {
      move(5 * minuteMs - 10_000);
      await startRotations();
      await rekey().reconcile(rekey().takeMessages());
    }
    expect(await works(await login(one))).toBe(true);
    const openMs = world.now().getTime() - startedAt;
    expect(openMs).toBeLessThan(10 * minuteMs);
    expect((await labels(one))['AWSCURRENT']).toBe(pending);
    const told = world.published('CredentialRotated', one).at(-1);
    expect(told).toMatchObject({ versionId: pending, currentRefusedAtMostMs: expect.any(Number) });
    expect(told?.['currentRefusedAtMostMs']).toBeGreaterThan(4 * minuteMs);
    expect(told?.['currentRefusedAtMostMs']).toBeLessThanOrEqual(openMs);
  });

  test.each(choosing)(
    'I22: the measured time is published, too, by the retry of one that was killed right after the move (%s)',
    async (provider) => {
      const one = await credential({ provider, strategy: 'reset-password' });
      move(hourMs);
      const startedAt = world.now().getTime();
      const pending = await dies(one, 'after');
      expect(await works(await login(one))).toBe(true);
      const before = world.published('CredentialRotated', one).length;
      await rekey().step(one.name, 'finishSecret', pending);
      const [told] = world.published('CredentialRotated', one).slice(before);
      expect(told).toMatchObject({ versionId: pending, currentRefusedAtMostMs: expect.any(Number) });
      expect(told?.['currentRefusedAtMostMs']).toBeGreaterThan(0);
      expect(told?.['currentRefusedAtMostMs']).toBeLessThanOrEqual(world.now().getTime() - startedAt);
    },
  );
});

describe('I22: DriftRepaired is not said, and nothing ordered, while rotation is switched off:', () => {
  const hands: Record<string, { readonly kind: string; readonly by: (one: Made) => Promise<unknown> }> = {
    'the password was changed': {
      kind: 'CurrentRejected',
      by: async (one) => world.setPasswordByHand(one, (await login(one)).username, anotherPassword),
    },
    'the user was deleted': {
      kind: 'SecretWithoutUser',
      by: async (one) => {
        const { clusterId } = targets['zilliz-cloud'].target;
        vendors().zilliz.api.actor.deleteUser(clusterId, (await login(one)).username);
      },
    },
    'a deployment changed the privileges': {
      kind: 'PrivilegesOutdated',
      by: (one) => world.storeSpec(one, { privileges: { roles: [] } }),
    },
  };

  test.each(Object.entries(hands))('%s', async (_what, { kind, by }) => {
    const one = await credential({ provider: 'zilliz-cloud' });
    const { username } = await login(one);
    move(minuteMs);
    await world.secrets('CancelRotateSecret', { SecretId: `rekey/${one.name}` });
    await by(one);
    for (let passes = 0; passes < 2; passes += 1) {
      await world.reconcile();
      await startRotations();
      move(hourMs);
    }
    expect(world.found(one)).toEqual(expect.arrayContaining([kind, 'RotationDisabled']));
    expect(world.published('DriftRepaired', one)).toEqual([]);
    expect((await login(one)).username).toBe(username);
    for (const order of ['rotateBefore', 'changeBefore'])
      expect(await rekey().parameter(`/rekey/directives/${one.name}/${order}`), order).toBeUndefined();
    // Once it is switched on, it is repaired, and said.
    await world.secrets('RotateSecret', {
      SecretId: `rekey/${one.name}`,
      ClientRequestToken: token(),
      RotateImmediately: false,
    });
    await rekey().secretsManager.idle();
    await putLabel(one, 'AWSPENDING', undefined).catch(() => undefined);
    await world.reconcile();
    expect(world.published('DriftRepaired', one)).toEqual([expect.objectContaining({ kind })]);
  });
});
