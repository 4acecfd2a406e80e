import { describe, expect, test } from 'vitest';
import type { Ports } from '../../functions/core/ports.ts';
import { rotateSecret } from '../../functions/lifecycle/rotate-secret.ts';
import { hourMs, type Made, minuteMs, targets, useCredentialWorld } from '../support/credential-world.ts';

const world = useCredentialWorld();
const { rekey, credential, login, works, labels, move } = world;

/** One step in an invocation of its own, with some of its ways out changed above the seam that guards writes. */
const stepWith = async (
  one: Made,
  { step, token }: { readonly step: string; readonly token: string },
  change: (ports: Ports) => Partial<Ports>,
): Promise<unknown> => {
  const { ARN: secretId } = await rekey().describe(one.name);
  return world.failureOf(
    world.invokeWith(change, (inner, until) => rotateSecret({ step, secretId, token }, until, inner)),
  );
};

describe('I1, I3: setSecret whose login attempt is answered after another run has published the version', () => {
  // The step looks whether it was done before; the provider looks again before it sets a throw-away password.
  test.each([1, 2])(
    '(the %i. one) takes no password from the user that is current by then, not for a moment',
    async (late) => {
      const one = await credential(
        { provider: 'cockroachdb-cloud', strategy: 'alternate-users' },
        { grace: 'PT0S' },
      );
      move(hourMs);
      await rekey().rotate(one.name);
      move(hourMs);
      const token = await world.openRotation(one, 'createSecret');
      const { username } = await login(one, 'AWSPENDING');
      let attempts = 0;
      const refused: string[] = [];
      await stepWith(one, { step: 'setSecret', token }, (ports) => ({
        async sql(request) {
          const answer = await ports.sql(request);
          if (request.username !== username) return answer;
          attempts += 1;
          if (attempts !== late) return answer;
          for (const step of ['setSecret', 'testSecret', 'finishSecret'])
            await rekey().step(one.name, step, token);
          return answer;
        },
        async http(request) {
          const answer = await ports.http(request);
          if (attempts >= late && !(await works(await login(one))))
            refused.push(`${request.method} ${request.url.pathname}`);
          return answer;
        },
      }));
      expect(attempts).toBeGreaterThanOrEqual(late);
      expect((await labels(one))['AWSCURRENT']).toBe(token);
      expect(refused).toEqual([]);
      expect(await works(await login(one))).toBe(true);
    },
  );
});

test('I7, I22: finishSecret that another run was faster than tells of the rotation, as that run may have died', async () => {
  const one = await credential({ provider: 'zilliz-cloud' });
  move(hourMs);
  const token = await world.openRotation(one, 'createSecret', 'setSecret', 'testSecret');
  const before = world.published('CredentialRotated', one).length;
  /** Moves AWSCURRENT and dies. */
  const dying = (ports: Ports): Partial<Ports> => {
    let moves = 0;
    return {
      async moveLabel(request) {
        moves += 1;
        if (moves > 1) throw new Error('killed');
        return ports.moveLabel(request);
      },
    };
  };
  let isFirst = true;
  const outcome = await stepWith(one, { step: 'finishSecret', token }, (ports) => ({
    async moveLabel(request) {
      if (isFirst) {
        isFirst = false;
        await stepWith(one, { step: 'finishSecret', token }, dying);
        expect(world.published('CredentialRotated', one)).toHaveLength(before);
        move(3_000);
      }
      return ports.moveLabel(request);
    },
  }));
  expect(outcome).toBe('it went on');
  expect(world.published('CredentialRotated', one)).toHaveLength(before + 1);
  const { AWSCURRENT, AWSPENDING = AWSCURRENT } = await labels(one);
  expect(AWSPENDING, 'no rotation is open').toBe(AWSCURRENT);
});

describe.each([
  ['cockroachdb-cloud', { privileges: { roles: ['orders_rw', 'no_such_role'] } }],
  ['vultr-valkey', { privileges: { categories: ['+@no_such_category'], keys: ['orders:*'] } }],
  ['zilliz-cloud', { privileges: { roles: ['orders_rw', 'no_such_role'] } }],
] as const)('I1: reset-password at %s, declared rights that cannot be given', (provider, impossible) => {
  const only = { provider, strategy: 'reset-password' } as const;
  const passwordOf = async (one: Made) => (await login(one)).password.reveal();

  test('stop the rotation before the password changes: AWSCURRENT keeps working', async () => {
    const one = await credential(only);
    const before = await passwordOf(one);
    move(hourMs);
    await world.storeSpec(one, impossible);
    rekey().secretsManager.setVariants({ retryDelaysMs: [] });
    await rekey().rotate(one.name);
    expect(rekey().failures.splice(0)).toEqual([expect.objectContaining({ code: 'ROLE_UNKNOWN' })]);
    expect(await passwordOf(one)).toBe(before);
    expect(await works(await login(one))).toBe(true);
  });

  test('keep no leaked password alive: it is changed all the same, and the new one is published', async () => {
    const one = await credential(only);
    const leaked = await login(one);
    move(hourMs);
    await world.storeSpec(one, impossible);
    await world.compromise(one);
    expect(rekey().failures.splice(0)).toEqual([]);
    expect(await passwordOf(one)).not.toBe(leaked.password.reveal());
    expect(await works(await login(one))).toBe(true);
    expect(await works(leaked)).toBe(false);
  });

  test('once the password has changed, the rotation is finished without them', async () => {
    const one = await credential(only);
    move(hourMs);
    const token = await world.openRotation(one, 'createSecret', 'setSecret');
    await world.storeSpec(one, impossible);
    for (const step of ['setSecret', 'testSecret', 'finishSecret']) await rekey().step(one.name, step, token);
    expect((await labels(one))['AWSCURRENT']).toBe(token);
    expect(await works(await login(one))).toBe(true);
  });
});

test('I1: reset-password, writes are paused right after the password has changed: the next passes publish it all the same', async () => {
  const one = await credential({ provider: 'vultr-valkey', strategy: 'reset-password' });
  move(hourMs);
  const token = await world.openRotation(one, 'createSecret', 'setSecret');
  const pause = (order: 'RekeyPaused' | 'RekeyResumed') =>
    rekey().order({ is: 'pause', order, on: undefined, orderedAt: world.now() });
  await pause('RekeyPaused');
  // A right that is missing would be given now, were it not for the pause.
  const { username } = await login(one);
  await world.vendors().vultr.api.actor.setAccessControl(username, {
    categories: ['+@read', '+@write'],
    commands: [],
    keys: ['orders:*'],
    channels: [],
  });
  expect(await works(await login(one))).toBe(false);
  move(5 * minuteMs);
  await rekey().start();
  const before = world.writes();
  await rekey().reconcile(rekey().takeMessages());
  expect(world.writes()).toBe(before);
  expect((await labels(one))['AWSCURRENT']).toBe(token);
  expect(await works(await login(one))).toBe(true);
  move(minuteMs);
  await pause('RekeyResumed');
});

test('I1: reset-password at CockroachDB Cloud, a role that was taken from the user and that nobody of ours may grant', async () => {
  const provider = 'cockroachdb-cloud';
  const roles = ['orders_rw', 'reports_rw'];
  await world.vendors().byProvider[provider]?.prepare(targets[provider].target, roles);
  const one = await credential({ provider, strategy: 'reset-password' }, { privileges: { roles } });
  const { username } = await login(one);
  await world.vendors().cockroachdb.postgres.query(`REVOKE reports_rw FROM ${username}`);
  move(hourMs);
  rekey().secretsManager.setVariants({ retryDelaysMs: [] });
  await rekey().rotate(one.name);
  expect(rekey().failures.splice(0)).toEqual([expect.objectContaining({ code: 'PRIVILEGES_DIFFER' })]);
  expect(await works(await login(one))).toBe(true);
  await world.compromise(one);
  expect(await works(await login(one))).toBe(true);
});
