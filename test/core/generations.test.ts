import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type CredentialState,
  isOwn,
  lastSwitch,
  ownership,
  type Standing,
  standings,
  usersInTheWay,
} from '../../functions/core/generations.ts';
import type { DatabaseUser } from '../../functions/core/provider.ts';
import { adoptionVersions, placeholderUsername } from '../../functions/core/username.ts';
import { arnOf, credentialState, type Given, namesOf, sha256 } from '../support/credentials.ts';

const names = namesOf();
const target = { provider: 'cockroachdb-cloud', targetId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10' };
const user = (username: string, more: Partial<DatabaseUser> = {}): DatabaseUser => ({
  username,
  isProtected: false,
  ...more,
});

const standingOf = (one: DatabaseUser, ...credentials: readonly CredentialState[]): Standing => {
  const [known] = standings({ ...target, users: [one], credentials }, sha256);
  if (known === undefined) throw new Error('a listed user has a standing');
  return known.standing;
};

/** Two rotations done: v3 is current, v2 previous, v1 older. The first value names nobody. */
const twice: Given = {
  versions: {
    v0: ['2026-01-01T00:00:00Z'],
    v1: ['2026-01-01T00:00:10Z'],
    v2: ['2026-02-01T00:00:00Z', 'AWSPREVIOUS'],
    v3: ['2026-03-01T00:00:00Z', 'AWSCURRENT'],
  },
  lastRotatedAt: '2026-03-01T00:01:00Z',
  changedAt: '2026-03-01T00:01:01Z',
  current: names.generation('v3', 0),
  previous: names.generation('v2', 0),
};

describe('of the users of a credential', () => {
  test('the one that AWSCURRENT names is current, and the one that AWSPENDING names is pending', async () => {
    const state = await credentialState({
      ...twice,
      versions: { ...twice.versions, v4: ['2026-03-02T00:00:00Z', 'AWSPENDING'] },
      pending: names.generation('v4', 1),
    });
    expect(standingOf(user(names.generation('v3', 0)), state)).toMatchObject({
      is: 'current',
      versionId: 'v3',
    });
    expect(standingOf(user(names.generation('v4', 1)), state)).toMatchObject({
      is: 'pending',
      versionId: 'v4',
    });
  });

  test('all that a rotation under way may have made are pending, as it may not have stored which one yet', async () => {
    const state = await credentialState({
      ...twice,
      versions: { ...twice.versions, v4: ['2026-03-02T00:00:00Z', 'AWSPENDING'] },
    });
    for (const attempt of [0, 1, 2, 3, 4])
      expect(standingOf(user(names.generation('v4', attempt)), state).is).toBe('pending');
  });

  test('the one of AWSPREVIOUS is superseded since the last change of the secret', async () => {
    const standing = standingOf(user(names.generation('v2', 0)), await credentialState(twice));
    expect(standing).toMatchObject({
      is: 'superseded',
      versionId: 'v2',
      isRevoked: false,
      wasPublished: true,
    });
    expect(standing).toHaveProperty('since', new Date('2026-03-01T00:01:01Z'));
  });

  test('an older one is superseded since the present version was made', async () => {
    const state = await credentialState({ ...twice, changedAt: '2026-03-20T00:00:00Z' });
    expect(standingOf(user(names.generation('v1', 0)), state)).toHaveProperty(
      'since',
      new Date('2026-03-01T00:00:00Z'),
    );
  });

  test('one whose rotation came to nothing was never published, and counts from when it was made at the earliest', async () => {
    const state = await credentialState({
      ...twice,
      versions: { ...twice.versions, v4: ['2026-03-05T00:00:00Z'] },
    });
    expect(standingOf(user(names.generation('v4', 0)), state)).toMatchObject({
      is: 'superseded',
      wasPublished: false,
      since: new Date('2026-03-05T00:00:00Z'),
    });
  });

  test('one whose password was lost is superseded beside the current one of the same rotation', async () => {
    const state = await credentialState({ ...twice, current: names.generation('v3', 1) });
    expect(standingOf(user(names.generation('v3', 0)), state)).toMatchObject({
      is: 'superseded',
      wasPublished: false,
    });
    expect(standingOf(user(names.generation('v3', 1)), state).is).toBe('current');
  });

  test('one that was current before somebody moved the label back counts from that move', async () => {
    const state = await credentialState({
      ...twice,
      versions: {
        v1: ['2026-02-01T00:00:00Z', 'AWSCURRENT'],
        v2: ['2026-03-01T00:00:00Z', 'AWSPREVIOUS'],
      },
      lastRotatedAt: '2026-03-01T00:01:00Z',
      changedAt: '2026-03-09T00:00:00Z',
      current: names.generation('v1', 0),
      previous: names.generation('v2', 0),
    });
    expect(standingOf(user(names.generation('v2', 0)), state)).toMatchObject({
      is: 'superseded',
      wasPublished: true,
      since: new Date('2026-03-09T00:00:00Z'),
    });
  });

  test('a user of the fixed pair is idle under alternate-users and superseded under any other strategy', async () => {
    const given = { ...twice, previous: names.alternate('b'), current: names.alternate('a') };
    const alternating = await credentialState({ ...given, spec: { strategy: 'alternate-users' } });
    expect(standingOf(user(names.alternate('a')), alternating).is).toBe('current');
    expect(standingOf(user(names.alternate('b')), alternating).is).toBe('idle');
    const replacing = await credentialState(given);
    expect(standingOf(user(names.alternate('a')), replacing).is).toBe('current');
    expect(standingOf(user(names.alternate('b')), replacing)).toMatchObject({
      is: 'superseded',
      versionId: 'v2',
    });
  });

  test('a user of the fixed pair is pending from the moment at which a rotation may have chosen it', async () => {
    const state = await credentialState({
      ...twice,
      spec: { strategy: 'alternate-users' },
      versions: { ...twice.versions, v4: ['2026-03-02T00:00:00Z', 'AWSPENDING'] },
      current: names.alternate('a'),
      previous: names.alternate('b'),
      // Revoked, and about to get a new password.
      directives: { revokeBefore: new Date('2026-02-15T00:00:00Z') },
    });
    expect(standingOf(user(names.alternate('b')), state).is).toBe('pending');
  });

  test('a user that reset-password kept through many versions is superseded only since the last switch', async () => {
    const state = await credentialState({
      ...twice,
      // Made for v1, changed in place by v2, replaced by v3 after the strategy was changed.
      previous: names.generation('v1', 0),
      directives: { revokeBefore: new Date('2026-01-15T00:00:00Z') },
    });
    expect(standingOf(user(names.generation('v1', 0)), state)).toMatchObject({
      is: 'superseded',
      versionId: 'v2',
      since: new Date('2026-03-01T00:01:01Z'),
      // Its password is younger than the order, whatever the age of the user.
      isRevoked: false,
    });
  });

  test('an adopted user is left alone unless the spec says that it goes', async () => {
    const adopt = { username: 'orders', passwordSecret: 'rekey/adopt/orders' };
    const kept = await credentialState({ ...twice, spec: { adopt } });
    const [adoption = ''] = adoptionVersions(arnOf('orders-api'), sha256);
    const { v0, v1, ...rotated } = twice.versions;
    const versions = { v0, [adoption]: v1, ...rotated } as Given['versions'];
    const retired = await credentialState({
      ...twice,
      versions,
      spec: { adopt: { ...adopt, retire: true } },
    });
    expect(standingOf(user('orders'), kept).is).toBe('idle');
    expect(standingOf(user('orders'), retired)).toMatchObject({ is: 'superseded' });
    const never = await credentialState({ ...twice, spec: { adopt: { ...adopt, retire: true } } });
    expect(standingOf(user('orders'), never).is).toBe('idle');
    const current = await credentialState({
      ...twice,
      spec: { adopt: { ...adopt, retire: true } },
      current: 'orders',
    });
    expect(standingOf(user('orders'), current).is).toBe('current');
  });

  test('an adopted user is left alone while AWSCURRENT names nobody yet, whatever the spec says', async () => {
    const adopt = { username: 'orders', passwordSecret: 'rekey/adopt/orders', retire: true };
    const waiting = await credentialState({
      versions: { v0: ['2026-01-01T00:00:00Z', 'AWSCURRENT'] },
      spec: { adopt },
    });
    expect(standingOf(user('orders'), waiting).is).toBe('idle');
  });

  test('those that were published stay when somebody has put the first value back', async () => {
    const state = await credentialState({
      versions: {
        v0: ['2026-01-01T00:00:00Z', 'AWSCURRENT'],
        v1: ['2026-01-01T00:00:10Z', 'AWSPREVIOUS'],
      },
      changedAt: '2026-01-02T00:00:00Z',
      previous: names.generation('v1', 0),
    });
    expect(standingOf(user(names.generation('v1', 0)), state).is).toBe('idle');
  });

  test('all stay while the secret is scheduled for deletion, as nobody can read whom it names', async () => {
    const { current: _current, previous: _previous, ...hidden } = twice;
    const state = await credentialState({ ...hidden, deletedAt: '2026-03-10T00:00:00Z' });
    for (const version of ['v1', 'v2', 'v3'])
      expect(standingOf(user(names.generation(version, 0)), state).is).toBe('idle');
  });

  test('those of the current version are current while its value tells no name', async () => {
    const { current: _current, ...nameless } = twice;
    const state = await credentialState(nameless);
    expect(standingOf(user(names.generation('v3', 2)), state).is).toBe('current');
  });
});

describe('after an order to revoke', () => {
  const revokeBefore = new Date('2026-02-15T00:00:00Z');

  test('users of versions that were made before are revoked, and later ones are not', async () => {
    const state = await credentialState({ ...twice, directives: { revokeBefore } });
    expect(standingOf(user(names.generation('v2', 0)), state)).toMatchObject({ isRevoked: true });
    const later = await credentialState({
      ...twice,
      directives: { revokeBefore: new Date('2026-01-15T00:00:00Z') },
    });
    expect(standingOf(user(names.generation('v1', 0)), later)).toMatchObject({ isRevoked: true });
    expect(standingOf(user(names.generation('v2', 0)), later)).toMatchObject({ isRevoked: false });
  });

  test('an idle user is revoked once a version that was made after the order is current', async () => {
    const pair = {
      spec: { strategy: 'alternate-users' },
      previous: names.alternate('b'),
      current: names.alternate('a'),
    };
    const rotated = await credentialState({ ...twice, ...pair, directives: { revokeBefore } });
    expect(standingOf(user(names.alternate('b')), rotated)).toMatchObject({
      is: 'superseded',
      isRevoked: true,
    });
    const waiting = await credentialState({
      ...twice,
      ...pair,
      directives: { revokeBefore: new Date('2026-03-15T00:00:00Z') },
    });
    expect(standingOf(user(names.alternate('b')), waiting).is).toBe('idle');
  });

  test('a user that no label names is revoked by the age of the newest version that can have named it', async () => {
    const replaced = { ...twice, current: names.generation('v3', 0), previous: names.generation('v2', 0) };
    const before = await credentialState({
      ...replaced,
      directives: { revokeBefore: new Date('2026-01-15T00:00:00Z') },
    });
    expect(standingOf(user(names.only()), before)).toMatchObject({ isRevoked: true });
    const long = await credentialState({
      ...replaced,
      directives: { revokeBefore: new Date('2026-01-01T00:00:05Z') },
    });
    expect(standingOf(user(names.only()), long)).toMatchObject({ isRevoked: false });
  });
});

describe('of other users', () => {
  test('one that carries our prefix without a version is told from a foreign one', async () => {
    const state = await credentialState(twice);
    expect(standingOf(user('orders_api_abcdefghijkl'), state).is).toBe('unversioned');
    expect(standingOf(user('orders_api_admin'), state).is).toBe('foreign');
    expect(standingOf(user('orders_apis_abcdefghijkl'), state).is).toBe('foreign');
  });

  test('a protected one is protected, and a foreign default user too', async () => {
    const state = await credentialState(twice);
    expect(standingOf(user('root', { isProtected: true }), state).is).toBe('protected');
    expect(standingOf(user('billing', { isProtected: true, isDefault: true }), state).is).toBe('protected');
    expect(standingOf(user('orders_api_abcdefghijkl', { isProtected: true }), state).is).toBe('protected');
  });

  test('one that stands in as the default is known by the target alone', () => {
    const name = placeholderUsername({ ...target, turn: 3 }, sha256);
    expect(standingOf(user(name)).is).toBe('placeholder');
  });

  test('one that two credentials claim stays for whoever keeps it longer', async () => {
    const owner = await credentialState(twice);
    const taker = await credentialState({
      ...twice,
      name: 'billing',
      spec: {
        adopt: { username: names.generation('v3', 0), passwordSecret: 'rekey/adopt/orders', retire: true },
      },
      current: namesOf('billing').generation('v3', 0),
      previous: namesOf('billing').generation('v2', 0),
    });
    for (const credentials of [
      [owner, taker],
      [taker, owner],
    ])
      expect(standingOf(user(names.generation('v3', 0)), ...credentials)).toMatchObject({
        is: 'current',
        credential: { name: 'orders-api' },
      });
  });
});

describe('ownership', () => {
  test('is proved under a prefix that the spec has no more, and tells the version', async () => {
    const state = await credentialState({ ...twice, spec: { usernamePrefix: 'renamed' } });
    const prefix = 'orders_api';
    expect(ownership(names.generation('v2', 3), state, sha256)).toEqual({
      by: 'name',
      prefix,
      versionId: 'v2',
    });
    expect(ownership(names.alternate('a'), state, sha256)).toEqual({ by: 'name', prefix });
    expect(isOwn('orders_api_abcdefghijkl', state, sha256)).toBe(false);
    expect(isOwn('orders', state, sha256)).toBe(false);
  });

  test('of a version that Secrets Manager has dropped is proved by a value that says it, and by no name but its own', async () => {
    const state = { ...(await credentialState(twice)), userVersions: ['dropped'] };
    expect(ownership(names.generation('dropped', 0), state, sha256)).toMatchObject({ versionId: 'dropped' });
    expect(ownership(names.generation('dropped', 0), await credentialState(twice), sha256)).toBeUndefined();
    for (const foreign of ['billing', namesOf('billing').generation('dropped', 0), namesOf('billing').only()])
      expect(ownership(foreign, state, sha256)).toBeUndefined();
  });

  test('of an adopted user needs the spec and the version that adopted it', async () => {
    const [adoption = ''] = adoptionVersions(arnOf('orders-api'), sha256);
    const spec = { adopt: { username: 'legacy', passwordSecret: 'rekey/adopt/legacy' } };
    const versions = { ...twice.versions, [adoption]: ['2026-01-01T00:00:20Z'] } as Given['versions'];
    const owned = { by: 'adoption', versionId: adoption };
    const adopted = await credentialState({ ...twice, versions, spec });
    expect(ownership('legacy', adopted, sha256)).toEqual(owned);
    expect(ownership('billing', adopted, sha256)).toBeUndefined();
    expect(ownership('legacy', await credentialState({ ...twice, versions }), sha256)).toBeUndefined();
    const later = await credentialState({ ...twice, spec });
    expect(ownership('legacy', later, sha256)).toBeUndefined();
    expect(ownership('legacy', { ...later, userVersions: [adoption] }, sha256)).toEqual(owned);
  });
});

const instant = fc
  .integer({ min: 0, max: 1_000 })
  .map((hour) => new Date(1_767_225_600_000 + hour * 3_600_000));

test('whatever the labels, a user that a label names or that a rotation may be making is never superseded', async () => {
  const base = await credentialState(twice);
  fc.assert(
    fc.property(
      fc.uniqueArray(instant, { minLength: 1, maxLength: 6, selector: (at) => at.getTime() }),
      fc.nat(),
      fc.option(fc.nat(), { nil: undefined }),
      fc.constantFrom('replace-user', 'alternate-users', 'reset-password'),
      fc.option(instant, { nil: undefined }),
      (times, currentAt, pendingAt, strategy, revokeBefore) => {
        const versions = times
          .toSorted((a, b) => a.getTime() - b.getTime())
          .map((createdAt, index) => ({ versionId: `v${index}`, createdAt, labels: new Set<string>() }));
        const at = (index: number) => `v${index % versions.length}`;
        const [current, pending] = [at(currentAt), pendingAt === undefined ? undefined : at(pendingAt)];
        const labelsByVersion = new Map([[current, new Set(['AWSCURRENT'])]]);
        if (pending !== undefined)
          labelsByVersion.set(pending, new Set([...(labelsByVersion.get(pending) ?? []), 'AWSPENDING']));
        const state: CredentialState = {
          ...base,
          spec: { ...base.spec, strategy },
          directives: revokeBefore === undefined ? {} : { revokeBefore },
          secret: { ...base.secret, labelsByVersion },
          versions,
          currentUsername: names.generation(current, 0),
          pendingUsername: undefined,
        };
        expect(standingOf(user(names.generation(current, 0)), state).is).toBe('current');
        const madeAt = (id: string) =>
          versions.find(({ versionId }) => versionId === id)?.createdAt ?? new Date(0);
        // One that is older than what is current, or revoked, is no rotation in progress.
        const isOpen =
          pending !== undefined &&
          madeAt(pending) > madeAt(current) &&
          !(revokeBefore !== undefined && madeAt(pending) < revokeBefore);
        if (pending !== undefined && isOpen)
          expect(standingOf(user(names.generation(pending, 0)), state).is).toBe('pending');
        for (const { versionId } of versions) {
          const standing = standingOf(user(names.generation(versionId, 0)), state);
          if (standing.is !== 'superseded') continue;
          const currentMadeAt = versions.find((version) => version.versionId === current)?.createdAt;
          expect(standing.since >= (currentMadeAt ?? new Date(8.64e15))).toBe(true);
          expect(
            standing.since <= lastSwitch(state) || standing.since <= (versions.at(-1)?.createdAt ?? 0),
          ).toBe(true);
        }
      },
    ),
  );
});

describe('I6: the users in the way of one more', () => {
  const [previous, older] = [names.generation('v2', 0), names.generation('v1', 0)];
  const inTheWay = async (...present: readonly string[]): Promise<readonly string[]> => {
    const state = await credentialState(twice);
    const users = present.map((username) => user(username));
    const known = standings({ ...target, users, credentials: [state] }, sha256);
    return usersInTheWay(known, state.name, new Date('2026-03-01T01:00:00Z'));
  };

  test('are those of earlier rotations, where there are three with the current one', async () => {
    expect(await inTheWay(names.generation('v3', 0), previous, older)).toEqual([previous, older]);
  });

  test('are those that are held an hour after their grace only once there are five: the one that is replaced would be the sixth', async () => {
    const months = ['01', '02', '03', '04', '05', '06', '07', '08'];
    const state = await credentialState({
      versions: Object.fromEntries(
        months.map((month, index): [string, [string, ...string[]]] => [
          `v${index}`,
          [
            `2026-${month}-01T00:00:00Z`,
            ...(index === 6 ? ['AWSPREVIOUS'] : index === 7 ? ['AWSCURRENT'] : []),
          ],
        ]),
      ),
      changedAt: '2026-08-01T00:01:00Z',
      current: names.generation('v7', 0),
      previous: names.generation('v6', 0),
    });
    const held = ['v2', 'v3', 'v4', 'v5', 'v6'].map((version) => names.generation(version, 0));
    const inTheWayOf = (...present: readonly string[]) => {
      const users = [names.generation('v7', 0), ...present].map((username) => user(username));
      const known = standings({ ...target, users, credentials: [state] }, sha256);
      return usersInTheWay(known, state.name, new Date('2026-08-20T00:00:00Z'));
    };
    expect(inTheWayOf(...held.slice(1))).toEqual([]);
    expect(inTheWayOf(...held)).toEqual(held);
  });

  test('are not the revoked ones that the vendor does not let go, half an hour after the order, however often the rotation is tried', async () => {
    const present = [names.generation('v3', 0), previous, older].map((username) => user(username));
    const inTheWayAt = async (now: Date): Promise<readonly string[]> => {
      const state = await credentialState({
        ...twice,
        changedAt: now.toISOString(),
        directives: { revokeBefore: new Date('2026-03-01T01:00:00Z') },
      });
      const known = standings({ ...target, users: present, credentials: [state] }, sha256);
      return usersInTheWay(known, state.name, now);
    };
    expect(await inTheWayAt(new Date('2026-03-01T01:10:00Z'))).toEqual([previous, older]);
    expect(await inTheWayAt(new Date('2026-03-01T01:31:00Z'))).toEqual([]);
  });

  test('are none where the current one is gone: they are kept until another one is accepted, so none could ever be made', async () => {
    expect(await inTheWay(previous, older)).toEqual([]);
  });
});
