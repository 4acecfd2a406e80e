import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { directiveParameter } from '../../functions/core/directives.ts';
import { StoreError } from '../../functions/core/errors.ts';
import type { StartTask } from '../../functions/core/fleet.ts';
import { specParameterName } from '../../functions/core/names.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { carryOutOrders, takeOrder } from '../../functions/lifecycle/carry-out-orders.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import { startRotations } from '../../functions/lifecycle/start-rotations.ts';
import {
  hourMs,
  type Made,
  minuteMs,
  type ProviderId,
  targets,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { functionArn, token } from '../support/rekey.ts';

/** What notes, lists and queues of the fleet may hide when they are stale, lost or late, and what must not come of that. */

const world = useCredentialWorld();
const { vendors, rekey, credential, login, works, labels, putLabel, move } = world;
const zilliz: ProviderId = 'zilliz-cloud';
const one = targets[zilliz].target.clusterId;
const two = 'in01-208240180a4faf8';
const options = { rotationFunctionArn: functionArn };
const pass = { is: 'pass', dryRun: false } as const;

beforeAll(() => {
  vendors().zilliz.api.addCluster({ id: two, name: 'other', roles: ['orders_rw'] });
});
afterEach(() => {
  taken.length = 0;
  rekey().refuse();
  rekey().interruptAt(undefined);
  for (const id of [one, two]) vendors().zilliz.api.actor.setStatus(id, 'RUNNING');
});

const stands = ({ name }: Made, kind: Parameters<typeof directiveParameter>[1]) =>
  rekey().parameter(directiveParameter(name, kind));
const onRecord = async ({ name }: Made) => (await rekey().notes.stored('revocations'))[name];
const rotationOf = ({ name }: Made) =>
  ({
    is: 'order',
    order: 'CredentialRotationRequested',
    credential: name,
    orderedAt: world.now(),
  }) as const;
const compromiseOf = ({ name }: Made, more: { readonly evenIfLockedOut?: true } = {}) =>
  ({
    is: 'order',
    order: 'CredentialCompromised',
    credential: name,
    orderedAt: world.now(),
    ...more,
  }) as const;
/** The order is stored and queued, and no worker has taken it yet. */
const take = (order: Parameters<typeof takeOrder>[0]) =>
  world.invokeWith(
    () => ({ enqueueStart: async (starts) => void taken.push(...starts) }),
    (inner, until) => takeOrder(order, until, inner),
  );
const taken: StartTask[] = [];
async function carryOut(): Promise<void> {
  const starts = taken.splice(0).map((start) => ({ ...start, messageId: start.id }));
  await rekey().invoke((inner, until) => carryOutOrders(starts, options, until, inner));
  await rekey().secretsManager.idle();
}
/** A pass of delete-user with some ports of its own. */
const sweepWith = (change: (ports: Ports) => Partial<Ports>) =>
  world.failureOf(world.invokeWith(change, (inner, until) => deleteUsers(pass, until, inner)));

describe('a note that a target is settled', () => {
  test('I28: does not put an ordered deletion off whose versions could not be read once', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    await world.direct(made, 'deleteSince');
    await sweepWith(() => ({
      listVersions: async () => {
        throw new StoreError('STORE_UNAVAILABLE', 'none', 'ListSecretVersionIds is throttled');
      },
    }));
    await world.sweepQuarters(4);
    expect(await rekey().parameter(specParameterName(made.name))).toBeUndefined();
    expect(await world.usersAt(made)).toEqual([]);
  });

  test('I14: does not come of one user list that lacks a user', async () => {
    const made = await credential({ provider: zilliz });
    const superseded = await login(made);
    move(hourMs);
    await rekey().rotate(made.name);
    move(26 * hourMs);
    await sweepWith(({ http }) => ({
      http: async (request) => {
        const answer = await http(request);
        if (!request.url.pathname.endsWith('/users/list')) return answer;
        return {
          ...answer,
          body: new Sensitive(answer.body.reveal().replaceAll(superseded.username, 'somebody')),
        };
      },
    }));
    expect(await works(superseded)).toBe(true);
    move(15 * minuteMs);
    await rekey().sweep();
    expect(await works(superseded)).toBe(false);
  });

  /** What may happen to a credential of a settled target, and is work for delete-user. */
  const changes: Readonly<Record<string, (made: Made) => Promise<unknown>>> = {
    'a rotation': ({ name }) => rekey().rotate(name),
    'a roll-back by hand': async (made) => putLabel(made, 'AWSCURRENT', (await labels(made))['AWSPREVIOUS']),
    'an order to revoke': (made) => world.direct(made, 'revokeBefore'),
    'an order to delete': (made) => world.direct(made, 'deleteSince'),
    'another grace': (made) => world.storeSpec(made, { grace: 'PT1H' }),
    'another credential on the target': () => credential({ provider: zilliz }),
    'an end of its time': (made) =>
      world.storeSpec(made, { expiresAt: new Date(world.now().getTime() + minuteMs).toISOString() }),
    'a rotation that was switched off': ({ name }) =>
      world.secrets('CancelRotateSecret', { SecretId: `rekey/${name}` }),
  };
  test.each(Object.entries(changes))('I8: hides no target after %s', async (_change, happen) => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    await rekey().rotate(made.name);
    move(26 * hourMs);
    await world.sweepQuarters(3);
    expect((await rekey().sweep()).targets, 'settled').toEqual([]);
    await happen(made);
    move(15 * minuteMs);
    expect((await rekey().sweep()).targets.map(({ target }) => target)).toEqual([one]);
  });

  test('I8: that is written by a list older than a rotation hides that rotation from no later pass', async () => {
    const made = await credential({ provider: zilliz });
    const superseded = await login(made);
    move(hourMs);
    const stale = await rekey().invoke(({ ports }) => ports.listSecrets({ namePrefix: 'rekey/' }));
    await rekey().rotate(made.name);
    await sweepWith(() => ({ listSecrets: async () => stale }));
    move(26 * hourMs);
    await sweepWith(() => ({ listSecrets: async () => stale }));
    await rekey().sweep();
    expect(await works(superseded)).toBe(false);
    expect(await works(await login(made))).toBe(true);
  });
});

describe('a note of the credentials of a target that lacks a new one', () => {
  /** Another credential adopted the user of the first; then its spec stops to say so, and its consumers use the user all the same. */
  async function silentAdopter(of: Made): Promise<Made> {
    const { username, password } = await login(of);
    const passwordSecret = `rekey/adopt/${username}`;
    await world.secrets('CreateSecret', {
      Name: passwordSecret,
      ClientRequestToken: token(),
      SecretString: JSON.stringify({ username, password: password.reveal() }),
    });
    const other = await credential({ provider: zilliz }, { adopt: { username, passwordSecret } });
    expect((await login(other)).username).toBe(username);
    await world.storeSpec(other, { adopt: undefined });
    return other;
  }

  test.each(['with its note', 'with an older note'] as const)(
    'I3: a deletion by event spares the user in whose place its AWSCURRENT stands (%s)',
    async (how) => {
      const made = await credential({ provider: zilliz });
      await world.start();
      const { [`${zilliz}/${one}`]: before = '' } = await rekey().notes.stored('members');
      move(hourMs);
      const other = await silentAdopter(made);
      if (how === 'with an older note') await rekey().notes.put('members', `${zilliz}/${one}`, before);
      const used = await login(other);
      await rekey().sweep(world.deletionOf(made));
      expect(await works(used)).toBe(true);
      for (let passes = 0; passes < 3; passes += 1) {
        move(hourMs);
        await rekey().sweep();
      }
      expect(await works(used), 'after the deletion').toBe(true);
    },
  );

  test('I22: a deletion by event forgets nothing of a target that has another credential', async () => {
    const made = await credential({ provider: zilliz });
    await world.start();
    rekey().refuse('writeNote');
    const other = await credential({ provider: zilliz });
    rekey().refuse();
    move(hourMs);
    await world.reconcile();
    const key = `${zilliz}/${one}`;
    expect(Object.keys(await rekey().notes.stored('users'))).toContain(key);
    await rekey().notes.put(
      'members',
      key,
      JSON.stringify({ credentials: [made.name], hasBrokenSpecs: false }),
    );
    for (const username of await world.usersAt(made)) vendors().zilliz.api.actor.deleteUser(one, username);
    await rekey().sweep(world.deletionOf(made));
    expect(world.published('CredentialDeleted', made)).toHaveLength(1);
    expect(await works(await login(other))).toBe(true);
    expect(Object.keys(await rekey().notes.stored('users'))).toContain(key);
  });

  test('I3: a superseded user that the new one adopted outlives CredentialRotated', async () => {
    const made = await credential({ provider: zilliz }, { grace: 'PT0S' });
    const superseded = await login(made);
    await world.start();
    move(hourMs);
    await rekey().rotate(made.name);
    const { [`${zilliz}/${one}`]: before = '' } = await rekey().notes.stored('members');
    move(hourMs);
    const passwordSecret = `rekey/adopt/${superseded.username}`;
    await world.secrets('CreateSecret', {
      Name: passwordSecret,
      ClientRequestToken: token(),
      SecretString: JSON.stringify({
        username: superseded.username,
        password: superseded.password.reveal(),
      }),
    });
    const other = await credential(
      { provider: zilliz },
      { adopt: { username: superseded.username, passwordSecret } },
    );
    await rekey().notes.put('members', `${zilliz}/${one}`, before);
    await rekey().sweep({ is: 'rotated', credential: made.name });
    expect(await works(await login(other))).toBe(true);
  });
});

describe('an order that is carried out', () => {
  test('I27: takes no younger one with it that is stored while it is being taken away', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    await rekey().order(rotationOf(made));
    await rekey().secretsManager.idle();
    expect(await stands(made, 'rotateBefore')).toBeDefined();
    move(hourMs);
    const before = await labels(made);
    rekey().interruptAt({
      call: 'deleteParameter',
      when: 'before',
      by: () => take(rotationOf(made)),
    });
    await rekey().sweep();
    move(minuteMs);
    await carryOut();
    await world.start();
    expect((await labels(made))['AWSCURRENT']).not.toBe(before['AWSCURRENT']);
  });

  test('I27: a list of orders that is older in parts takes no half of a younger order away', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    await take(compromiseOf(made, { evenIfLockedOut: true }));
    const hidden = directiveParameter(made.name, 'revokeBefore');
    await sweepWith((ports) => ({
      listParameters: async (request) =>
        (await ports.listParameters(request)).filter(({ parameter }) => parameter !== hidden),
    }));
    expect(await stands(made, 'revokeBefore')).toBeDefined();
    expect(await stands(made, 'revokeAnyway')).toBeDefined();
  });

  test('I8: a revocation stands while a revoked user is left at a former target', async () => {
    const made = await credential({ provider: zilliz });
    const leaked = await login(made);
    const empty = (await labels(made))['AWSPREVIOUS'];
    await world.storeSpec(made, { target: { clusterId: two } });
    move(hourMs);
    await rekey().sweep();
    // The former cluster sleeps.
    vendors().zilliz.api.actor.setStatus(one, 'SUSPENDED');
    await world.compromise(made);
    // The first value, as README.md says for a login that is to be made anew.
    await putLabel(made, 'AWSCURRENT', empty);
    rekey().failures.length = 0;
    await world.start();
    expect((await login(made)).username).not.toBe(leaked.username);
    move(26 * hourMs);
    await rekey().sweep();
    await rekey().rotate(made.name);
    expect(rekey().failures.map(String)).toEqual([]);
    move(26 * hourMs);
    await world.sweepQuarters(3);
    expect(await stands(made, 'revokeBefore')).toBeDefined();
    vendors().zilliz.api.actor.setStatus(one, 'RUNNING');
    await rekey().sweep();
    expect(world.published('DatabaseUserRetired', made)).toContainEqual(
      expect.objectContaining({ username: leaked.username, reason: 'revoked' }),
    );
    expect(await works(leaked)).toBe(false);
  });

  /** A revocation that is all but forgotten: the next pass takes its orders away. */
  async function revoked(provider: ProviderId = zilliz, overrides: object = {}) {
    const made = await credential({ provider }, overrides);
    const leaked = await login(made);
    const version = (await labels(made))['AWSCURRENT'] ?? '';
    move(hourMs);
    await world.compromise(made, { evenIfLockedOut: true });
    move(hourMs);
    await rekey().sweep();
    await rekey().rotate(made.name);
    move(26 * hourMs);
    await rekey().sweep();
    return { made, leaked, version };
  }
  /** The same, so long ago that no backup has its users any more. */
  async function longRevoked(provider: ProviderId = zilliz) {
    const one = await revoked(provider, { rotation: { every: 'P90D' } });
    move(34 * 24 * hourMs);
    return one;
  }
  const revocation = ['revokeBefore', 'revokeAnyway'] as const;

  test('I27: to revoke takes no younger one with it either', async () => {
    const { made } = await longRevoked();
    const second = await login(made);
    move(hourMs);
    rekey().interruptAt({
      call: 'deleteParameter',
      when: 'before',
      by: () => take(compromiseOf(made)),
    });
    await rekey().sweep();
    move(minuteMs);
    await carryOut();
    await world.start();
    expect((await login(made)).username).not.toBe(second.username);
    await rekey().sweep();
    expect(await works(second)).toBe(false);
    expect(await works(await login(made))).toBe(true);
  });

  test.each([zilliz, 'vultr-valkey', 'cockroachdb-cloud'] as const)(
    'I26: and forgotten on %s leaves a roll-back by hand no way to bring the revoked password back',
    async (provider) => {
      const { made, leaked, version } = await longRevoked(provider);
      await world.sweepQuarters(2);
      for (const kind of revocation) expect(await stands(made, kind), kind).toBeUndefined();
      expect(await onRecord(made)).toBeUndefined();
      await putLabel(made, 'AWSCURRENT', version);
      for (let hour = 0; hour < 3; hour += 1) {
        await world.passHours(1);
        expect(await works(leaked), `after ${hour + 1} hours`).toBe(false);
      }
      expect(await works(await login(made))).toBe(true);
    },
  );

  test.each([0, 1])('I27: is taken away by the next pass if one dies at its deletion %i', async (index) => {
    const { made } = await longRevoked();
    let deletions = 0;
    await sweepWith((ports) => ({
      deleteParameter: async (request) => {
        deletions += 1;
        if (deletions > index) throw new StoreError('STORE_UNAVAILABLE', 'none', 'it died');
        return ports.deleteParameter(request);
      },
    }));
    expect(deletions).toBeGreaterThan(index);
    const current = await login(made);
    await world.passHours(1);
    for (const kind of revocation) expect(await stands(made, kind), kind).toBeUndefined();
    expect(await login(made)).toEqual(current);
  });

  test('I8: to revoke stands as long as a backup may bring the user back with its password', async () => {
    const { made, leaked } = await revoked();
    move(20 * 24 * hourMs);
    await world.sweepQuarters(2);
    expect(await stands(made, 'revokeBefore')).toBeDefined();
    const { actor } = vendors().zilliz.api;
    actor.createUser(one, leaked.username, leaked.password.reveal());
    actor.grantRole(one, leaked.username, 'orders_rw');
    move(minuteMs);
    expect(await works(leaked)).toBe(true);
    await rekey().sweep();
    expect(await works(leaked)).toBe(false);
    expect(world.published('DatabaseUserRetired', made).at(-1)).toMatchObject({
      username: leaked.username,
      reason: 'revoked',
    });
  });

  test('I18: and handed out by the queue again rotates nothing, and is not kept', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    await take(rotationOf(made));
    const again = [...taken];
    await carryOut();
    move(hourMs);
    await rekey().sweep();
    expect(await stands(made, 'rotateBefore')).toBeUndefined();
    const after = await labels(made);
    taken.push(...again);
    await carryOut();
    // The target is as it was when it was found settled, until that is looked at anew.
    move(7 * hourMs);
    await world.start();
    await rekey().sweep();
    expect(await labels(made)).toEqual(after);
    expect(await stands(made, 'rotateBefore')).toBeUndefined();
  });
});

describe('the list of secrets', () => {
  test('I27: hides no order from between the making of a version and its publication days later', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    const pending = await world.openRotation(made, 'createSecret');
    move(hourMs);
    await take(rotationOf(made));
    taken.length = 0;
    move(72 * hourMs);
    for (const step of ['setSecret', 'testSecret', 'finishSecret'])
      await rekey().step(made.name, step, pending);
    const lastRotatedAt = world.now();
    move(hourMs);
    await world.invokeWith(
      (ports) => ({
        listSecrets: async (request) =>
          (await ports.listSecrets(request)).map((secret) =>
            secret.name === `rekey/${made.name}` ? { ...secret, lastRotatedAt } : secret,
          ),
      }),
      (inner, until) => startRotations(pass, options, until, inner),
    );
    await rekey().secretsManager.idle();
    expect((await labels(made))['AWSPREVIOUS']).toBe(pending);
  });

  test.each(['AWSCURRENT alone', 'every label'] as const)(
    'I26: hides no revoked version to which somebody has moved %s',
    async (moved) => {
      const made = await credential({ provider: zilliz });
      const version = (await labels(made))['AWSCURRENT'];
      move(hourMs);
      await world.compromise(made);
      move(hourMs);
      await rekey().sweep();
      expect(await onRecord(made)).toBeDefined();
      move(48 * hourMs);
      const good = (await labels(made))['AWSCURRENT'];
      await putLabel(made, 'AWSCURRENT', version);
      if (moved === 'every label') {
        await world.secrets('UpdateSecretVersionStage', {
          SecretId: `rekey/${made.name}`,
          VersionStage: 'REKEY_PUBLISHED',
          MoveToVersionId: version,
          RemoveFromVersionId: good,
        });
        await putLabel(made, 'AWSPREVIOUS', undefined);
      }
      move(5 * minuteMs);
      await world.start();
      expect((await labels(made))['AWSCURRENT']).not.toBe(version);
      expect(await works(await login(made))).toBe(true);
    },
  );
});

describe('a rotation that was ordered', () => {
  test('I16: waits for one in flight of a neighbour on the target, where the vendor takes one at a time', async () => {
    const neighbour = await credential({ provider: 'render-postgres' });
    const made = await credential({ provider: 'render-postgres' });
    move(2 * hourMs);
    await world.start();
    const pending = await world.openRotation(neighbour, 'createSecret');
    const before = await labels(made);
    await take(rotationOf(made));
    await carryOut();
    expect(await labels(made)).toEqual(before);
    for (const step of ['setSecret', 'testSecret', 'finishSecret'])
      await rekey().step(neighbour.name, step, pending);
    await world.start();
    expect((await labels(made))['AWSPREVIOUS']).toBe(before['AWSCURRENT']);
  });

  test('I16: is started once by a worker and a pass at the same time', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    const before = await labels(made);
    await take(rotationOf(made));
    await Promise.all([carryOut(), world.start()]);
    await world.start();
    expect((await labels(made))['AWSPREVIOUS']).toBe(before['AWSCURRENT']);
    expect(rekey().failures).toEqual([]);
  });

  test('I28: that revokes waits neither for the quarantine of its credential nor for the breaker of its target', async () => {
    const made = await credential({ provider: 'render-postgres' });
    const neighbour = await credential({ provider: 'render-postgres' });
    const leaked = await login(made);
    move(2 * hourMs);
    for (const one of [made, made, made, neighbour]) {
      await world.openRotation(one);
      await putLabel(one, 'AWSPENDING', undefined);
      move(35 * minuteMs);
    }
    await take(compromiseOf(made));
    await carryOut();
    expect((await login(made)).username).not.toBe(leaked.username);
    await rekey().sweep();
    expect(await works(leaked)).toBe(false);
  });

  test('I18: does not come back with its message once its credential was deleted and requested anew', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    await take(rotationOf(made));
    const late = taken.splice(0);
    move(minuteMs);
    await rekey().sweep(world.deletionOf(made));
    move(20 * minuteMs);
    await world.sweepQuarters(3);
    expect(await rekey().parameter(specParameterName(made.name))).toBeUndefined();
    await world.secrets('RestoreSecret', { SecretId: `rekey/${made.name}` });
    await rekey().request(made.spec);
    await rekey().secretsManager.idle();
    const before = [await labels(made), await stands(made, 'rotateBefore')];
    taken.push(...late);
    await carryOut();
    await world.start();
    expect([await labels(made), await stands(made, 'rotateBefore')]).toEqual(before);
    expect(await works(await login(made))).toBe(true);
  });

  test('I27: on a credential whose spec was changed before a worker came is carried out with that spec', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    const before = await labels(made);
    await take(rotationOf(made));
    await world.storeSpec(made, { grace: 'P2D' });
    await carryOut();
    expect((await labels(made))['AWSPREVIOUS']).toBe(before['AWSCURRENT']);
    expect(rekey().failures).toEqual([]);
  });

  test('I27: in vain, as Secrets Manager is throttled for as long as the worker has, is handed out again', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    const before = await labels(made);
    await take(rotationOf(made));
    const starts = taken.map((start) => ({ ...start, messageId: start.id }));
    const { failed } = await world.invokeWith(
      () => ({
        describeSecret: async () => {
          throw new StoreError('STORE_UNAVAILABLE', 'none', 'DescribeSecret is throttled');
        },
      }),
      (inner, until) => carryOutOrders(starts, options, until, inner),
    );
    expect(failed).toEqual(starts.map(({ messageId }) => messageId));
    expect(await labels(made)).toEqual(before);
    await carryOut();
    expect((await labels(made))['AWSPREVIOUS']).toBe(before['AWSCURRENT']);
  });
});
