import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { loadConsumer } from '../../functions/consumers/index.ts';
import type { ConsumerStanding } from '../../functions/core/consumer.ts';
import type { Directives } from '../../functions/core/directives.ts';
import {
  type CredentialReading,
  expectedUsers,
  fleetFindings,
  isNamedLikeOurs,
  type Snapshot,
  targetChecks,
  targetFindings,
  targetUnreadable,
} from '../../functions/core/drift.ts';
import { fingerprint } from '../../functions/core/findings.ts';
import type { Credential } from '../../functions/core/fleet.ts';
import type { CredentialState, KnownUser, Standing } from '../../functions/core/generations.ts';
import { type CredentialSpec, parseSpec } from '../../functions/core/spec.ts';
import { loadProvider } from '../../functions/providers/index.ts';

const now = new Date('2026-03-08T12:00:00Z');
const at = (ago: string): Date => {
  const [, count = '0', unit = ''] = /^(\d+)([smhd])$/.exec(ago) ?? [];
  const ms = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit] ?? Number.NaN;
  return new Date(now.getTime() - Number(count) * ms);
};

const spec: CredentialSpec = await parseSpec(
  {
    name: 'orders-api',
    provider: 'zilliz-cloud',
    target: { clusterId: 'in01-108240180a4faf8' },
    apiKeySecret: 'rekey/api-keys/zilliz',
    usernamePrefix: 'orders',
    privileges: { roles: ['orders_rw'] },
  },
  { loadProvider, loadConsumer },
);

interface Given {
  readonly spec?: Partial<CredentialSpec>;
  readonly directives?: Directives;
  readonly state?: Partial<CredentialState>;
  readonly reading?: Partial<Omit<CredentialReading, 'state'>>;
}

/** Rotated three days ago from version one, made ten days ago, to version two; everything as it should be. */
function reading({
  spec: changed = {},
  directives = {},
  state = {},
  reading: read = {},
}: Given = {}): CredentialReading {
  const credential: Credential = { name: 'orders-api', spec: { ...spec, ...changed }, directives };
  return {
    credential,
    state: {
      ...credential,
      secret: {
        arn: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:rekey/orders-api-AbCdEf',
        name: 'rekey/orders-api',
        rotationEnabled: true,
        labelsByVersion: labels({ one: ['AWSPREVIOUS'], two: ['AWSCURRENT'] }),
        lastRotatedAt: at('3d'),
        changedAt: at('3d'),
      },
      versions: versions({ one: '10d', two: '3d' }),
      currentUsername: 'orders_current',
      pendingUsername: undefined,
      previousUsername: 'orders_previous',
      ...state,
    },
    current: { say: 'accepted' },
    pending: 'none',
    privilegeDifferences: [],
    arePrivilegesOutdated: false,
    consumers: [],
    restorable: undefined,
    ...read,
  };
}
const labels = (byVersion: Readonly<Record<string, readonly string[]>>) =>
  new Map(Object.entries(byVersion).map(([version, held]) => [version, new Set(held)]));
const versions = (madeAgo: Readonly<Record<string, string>>) =>
  Object.entries(madeAgo).map(([versionId, ago]) => ({
    versionId,
    labels: new Set<string>(),
    createdAt: at(ago),
  }));
const secretWith = (
  byVersion: Readonly<Record<string, readonly string[]>>,
  more: Partial<CredentialState['secret']> = {},
): Pick<CredentialState, 'secret'> => {
  const { state } = reading();
  if (state === 'absent') throw new Error('the builder has a secret');
  return { secret: { ...state.secret, labelsByVersion: labels(byVersion), ...more } };
};
/** AWSPENDING on a third version, made so long ago. */
const pendingFor = (ago: string): Partial<CredentialState> => ({
  ...secretWith({ one: ['AWSPREVIOUS'], two: ['AWSCURRENT'], three: ['AWSPENDING'] }),
  versions: versions({ one: '10d', two: '3d', three: ago }),
});

const user = (username: string, is: Standing['is'], more: Partial<KnownUser['user']> = {}): KnownUser => ({
  user: { username, isProtected: is === 'protected', ...more },
  // Of the standing the checks read what it is, whose, and since when it is of no use.
  standing: {
    is,
    credential: { name: 'orders-api', spec, directives: {} },
    since: at('3d'),
    isRevoked: false,
    wasPublished: true,
  } as unknown as Standing,
});

const snapshot = (overrides: Partial<Snapshot> = {}): Snapshot => ({
  now,
  provider: 'zilliz-cloud',
  targetId: 'in01-108240180a4faf8',
  readiness: { ready: true },
  users: [
    user('orders_current', 'current'),
    user('orders_previous', 'superseded'),
    user('db_admin', 'protected'),
  ],
  absent: new Set(),
  hasBrokenSpecs: false,
  credentials: [reading()],
  ...overrides,
});

/** What is found, as `kind`, `kind -> repair` or `kind username`. */
const found = (overrides: Partial<Snapshot>): readonly string[] =>
  targetFindings(snapshot(overrides)).map(({ kind, repair }) =>
    repair === undefined ? kind : `${kind} -> ${repair}`,
  );

describe('a target on which everything is as it should be', () => {
  test('has no findings', () => {
    expect(found({})).toEqual([]);
  });
});

const gone = (...names: readonly string[]) => new Set(names);
const cases: Record<string, { given: Partial<Snapshot>; want: readonly string[] }> = {
  'a target that is not ready is one finding': {
    given: { readiness: { ready: false, reason: 'its state is LOCKED' }, users: [], credentials: [] },
    want: ['TargetNotReady'],
  },

  // SecretWithoutUser
  'a current user that two lists lacked and that is refused brings a rotation at once': {
    given: {
      absent: gone('orders_current'),
      credentials: [reading({ reading: { current: { say: 'rejected' } } })],
    },
    want: ['SecretWithoutUser -> rotate-at-once'],
  },
  'a current user that two lists lacked and that could not be tried does, too': {
    given: {
      absent: gone('orders_current'),
      credentials: [reading({ reading: { current: { say: 'unreachable' } } })],
    },
    want: ['SecretWithoutUser -> rotate-at-once'],
  },
  'a user that logs in exists, whatever two lists say': {
    given: { absent: gone('orders_current') },
    want: [],
  },
  'a rotation that is on its way brings the user back: no other one is ordered': {
    given: {
      absent: gone('orders_current'),
      credentials: [
        reading({ state: pendingFor('10m'), reading: { current: { say: 'rejected' }, pending: 'empty' } }),
      ],
    },
    want: ['SecretWithoutUser'],
  },
  'so does one that is stuck and will be rolled forward': {
    given: {
      absent: gone('orders_current'),
      credentials: [
        reading({ state: pendingFor('2h'), reading: { current: { say: 'rejected' }, pending: 'readable' } }),
      ],
    },
    want: ['SecretWithoutUser', 'RotationStuck -> finish-rotation'],
  },
  'a credential that was never rotated has no user to miss': {
    given: {
      absent: gone('orders_current'),
      credentials: [reading({ state: { currentUsername: undefined, previousUsername: undefined } })],
    },
    want: [],
  },
  'nothing is missed of a credential that is ending': {
    given: {
      absent: gone('orders_current', 'orders_previous'),
      credentials: [
        reading({
          directives: { deleteSince: at('1s') },
          state: pendingFor('2h'),
          reading: { current: { say: 'rejected' }, pending: 'empty', privilegeDifferences: ['role x'] },
        }),
      ],
    },
    want: [],
  },
  'a credential that ends a second later is looked after still': {
    given: {
      credentials: [
        reading({
          spec: { expiresAt: '2026-03-08T12:00:01Z' },
          reading: { current: { say: 'rejected' } },
        }),
      ],
    },
    want: ['CurrentRejected -> rotate-at-once'],
  },
  'one whose time is over now is not': {
    given: {
      credentials: [
        reading({ spec: { expiresAt: '2026-03-08T12:00:00Z' }, reading: { current: { say: 'rejected' } } }),
      ],
    },
    want: [],
  },

  // CurrentRejected
  'a refused login brings a rotation at once': {
    given: { credentials: [reading({ reading: { current: { say: 'rejected' } } })] },
    want: ['CurrentRejected -> rotate-at-once'],
  },
  'a login that could not be tried is no finding': {
    given: { credentials: [reading({ reading: { current: { say: 'unreachable' } } })] },
    want: [],
  },
  'nor is one that nobody wants tried': {
    given: { credentials: [reading({ reading: { current: { say: 'not-tested' } } })] },
    want: [],
  },
  'a value that is no login is found, and no rotation can mend it': {
    given: {
      credentials: [reading({ reading: { current: { say: 'unusable', because: 'it is no value' } } })],
    },
    want: ['CurrentRejected'],
  },
  'the only user is refused with the old password while the new one is on its way': {
    given: {
      credentials: [
        reading({
          spec: { strategy: 'reset-password' },
          state: pendingFor('3m'),
          reading: { current: { say: 'rejected' }, pending: 'readable', isResetOpen: true },
        }),
      ],
    },
    want: [],
  },
  'and while the stored new one waits to be rolled forward': {
    given: {
      credentials: [
        reading({
          spec: { strategy: 'reset-password' },
          state: pendingFor('2h'),
          reading: { current: { say: 'rejected' }, pending: 'readable', isResetOpen: true },
        }),
      ],
    },
    want: ['RotationStuck -> finish-rotation'],
  },
  'I1: but a label that was put on an older version by hand hides nothing': {
    given: {
      credentials: [
        reading({
          state: secretWith({ one: ['AWSPREVIOUS', 'AWSPENDING'], two: ['AWSCURRENT'] }),
          reading: { current: { say: 'rejected' }, pending: 'readable', isResetOpen: true },
        }),
      ],
    },
    want: ['CurrentRejected -> rotate-at-once', 'PendingStray -> abandon-rotation'],
  },
  'but not before a new one was stored': {
    given: {
      credentials: [
        reading({
          spec: { strategy: 'reset-password' },
          state: pendingFor('2h'),
          reading: { current: { say: 'rejected' }, pending: 'empty' },
        }),
      ],
    },
    want: ['CurrentRejected -> rotate-at-once', 'RotationStuck -> abandon-rotation'],
  },
  'a rotation that makes another user refuses nobody': {
    given: {
      credentials: [
        reading({ state: pendingFor('10m'), reading: { current: { say: 'rejected' }, pending: 'readable' } }),
      ],
    },
    want: ['CurrentRejected'],
  },

  // SecretMissing
  'a spec without a secret is a finding': {
    given: { credentials: [{ ...reading(), state: 'absent' }] },
    want: ['SecretMissing'],
  },
  'so is one whose secret is scheduled for deletion': {
    given: {
      credentials: [
        reading({
          state: secretWith({ one: ['AWSPREVIOUS'], two: ['AWSCURRENT'] }, { deletedAt: at('1h') }),
        }),
      ],
    },
    want: ['SecretMissing'],
  },
  'but not where that was ordered': {
    given: { credentials: [{ ...reading({ directives: { deleteSince: at('1d') } }), state: 'absent' }] },
    want: [],
  },

  // RotationStuck
  'a pending version of one hour is left alone': {
    given: { credentials: [reading({ state: pendingFor('1h'), reading: { pending: 'readable' } })] },
    want: [],
  },
  'an older one with a login is rolled forward': {
    given: { credentials: [reading({ state: pendingFor('61m'), reading: { pending: 'readable' } })] },
    want: ['RotationStuck -> finish-rotation'],
  },
  'an older one that is empty is given up': {
    given: { credentials: [reading({ state: pendingFor('61m'), reading: { pending: 'empty' } })] },
    want: ['RotationStuck -> abandon-rotation'],
  },
  'one that is to replace a compromised login, and has stored none, is given up after four minutes': {
    given: {
      credentials: [
        reading({
          directives: { revokeBefore: at('1d') },
          state: pendingFor('5m'),
          reading: { pending: 'empty' },
        }),
      ],
    },
    want: ['RotationStuck -> abandon-rotation'],
  },
  'so it is not before the retries of Secrets Manager have had their time': {
    given: {
      credentials: [
        reading({
          directives: { revokeBefore: at('1d') },
          state: pendingFor('3m'),
          reading: { pending: 'empty' },
        }),
      ],
    },
    want: [],
  },
  'nor one that an order alone has started': {
    given: {
      credentials: [
        reading({
          directives: { rotateBefore: at('1d') },
          state: pendingFor('5m'),
          reading: { pending: 'empty' },
        }),
      ],
    },
    want: [],
  },
  'an older one that nobody can read is given up': {
    given: { credentials: [reading({ state: pendingFor('61m'), reading: { pending: 'unreadable' } })] },
    want: ['RotationStuck -> abandon-rotation'],
  },
  'AWSPENDING on the version that is current is how a rotation may end': {
    given: {
      credentials: [
        reading({ state: secretWith({ one: ['AWSPREVIOUS'], two: ['AWSCURRENT', 'AWSPENDING'] }) }),
      ],
    },
    want: [],
  },
  'a pending version that the list lacks is as old as the last change': {
    given: {
      credentials: [
        reading({
          state: secretWith(
            { one: ['AWSPREVIOUS'], two: ['AWSCURRENT'], three: ['AWSPENDING'] },
            { changedAt: at('2h') },
          ),
          reading: { pending: 'empty' },
        }),
      ],
    },
    want: ['RotationStuck -> abandon-rotation'],
  },

  // PrivilegeDrift
  'other rights than the declared ones are put right': {
    given: { credentials: [reading({ reading: { privilegeDifferences: ['role admin is held'] } })] },
    want: ['PrivilegeDrift -> apply-privileges'],
  },
  'those of an adopted user are left alone until its first rotation': {
    given: {
      credentials: [
        reading({
          spec: {
            adopt: { username: 'orders_current', passwordSecret: 'rekey/adopt/orders', retire: false },
          },
          state: { previousUsername: undefined },
          reading: { privilegeDifferences: ['role admin is held'] },
        }),
      ],
    },
    want: [],
  },
  'and no longer': {
    given: {
      credentials: [
        reading({
          spec: {
            adopt: { username: 'orders_current', passwordSecret: 'rekey/adopt/orders', retire: false },
          },
          state: { previousUsername: 'orders_current' },
          reading: { privilegeDifferences: ['role admin is held'] },
        }),
      ],
    },
    want: ['PrivilegeDrift -> apply-privileges'],
  },
  'the only user is refused for minutes, as the retries of Secrets Manager did not come': {
    given: {
      credentials: [
        reading({
          spec: { strategy: 'reset-password' },
          state: pendingFor('5m'),
          reading: { current: { say: 'rejected' }, pending: 'readable', isResetOpen: true },
        }),
      ],
    },
    want: ['RotationStuck -> finish-rotation'],
  },
  'of other rights than those of before, a rotation makes those that the spec declares now': {
    given: {
      credentials: [
        reading({ reading: { privilegeDifferences: ['role admin is held'], arePrivilegesOutdated: true } }),
      ],
    },
    want: ['PrivilegeDrift -> rotate-at-once', 'PrivilegesOutdated'],
  },
  'a password that is being set may give rights back, which the rotation takes away': {
    given: {
      credentials: [
        reading({
          spec: { strategy: 'reset-password' },
          state: pendingFor('3m'),
          reading: { pending: 'readable', privilegeDifferences: ['role admin is held'] },
        }),
      ],
    },
    want: [],
  },
  'a rotation that makes another user explains no rights of this one': {
    given: {
      credentials: [
        reading({
          state: pendingFor('10m'),
          reading: { pending: 'readable', privilegeDifferences: ['role admin is held'] },
        }),
      ],
    },
    want: ['PrivilegeDrift -> apply-privileges'],
  },

  // LabelRemoved
  'a rotated credential without AWSPREVIOUS gets it back': {
    given: {
      credentials: [
        reading({
          state: { ...secretWith({ two: ['AWSCURRENT'] }), previousUsername: undefined },
          reading: { restorable: 'one' },
        }),
      ],
    },
    want: ['LabelRemoved -> restore-label'],
  },
  'where no version is left to put it on, it is only told': {
    given: {
      credentials: [
        reading({ state: { ...secretWith({ two: ['AWSCURRENT'] }), previousUsername: undefined } }),
      ],
    },
    want: ['LabelRemoved'],
  },
  'a credential that was never rotated has none to lose': {
    given: {
      credentials: [
        reading({
          state: {
            ...secretWith({ one: ['AWSCURRENT'] }),
            versions: versions({ one: '10d' }),
            currentUsername: undefined,
            previousUsername: undefined,
          },
        }),
      ],
    },
    want: [],
  },

  // PreviousWithoutUser
  'a user before the current one that is gone within its grace is missed': {
    given: {
      absent: gone('orders_previous'),
      credentials: [reading({ spec: { grace: 'P4D' } })],
    },
    want: ['PreviousWithoutUser'],
  },
  'one second before its grace is over, too': {
    given: {
      absent: gone('orders_previous'),
      credentials: [reading({ spec: { grace: 'P3DT1S' } })],
    },
    want: ['PreviousWithoutUser'],
  },
  'and from then on not, as it was retired': {
    given: { absent: gone('orders_previous'), credentials: [reading({ spec: { grace: 'P3D' } })] },
    want: [],
  },
  'a label that was moved since does not bring its grace back': {
    given: {
      absent: gone('orders_previous'),
      credentials: [
        reading({
          state: secretWith({ one: ['AWSPREVIOUS'], two: ['AWSCURRENT'] }, { changedAt: at('1h') }),
        }),
      ],
    },
    want: [],
  },
  'a revoked user has no grace': {
    given: {
      absent: gone('orders_previous'),
      credentials: [reading({ spec: { grace: 'P4D' }, directives: { revokeBefore: at('4d') } })],
    },
    want: [],
  },
  'the idle user of a pair may be made anew by the rotation that is on its way': {
    given: {
      absent: gone('orders_previous'),
      credentials: [
        reading({
          spec: { strategy: 'alternate-users', grace: 'P4D' },
          state: pendingFor('10m'),
          reading: { pending: 'readable' },
        }),
      ],
    },
    want: [],
  },
  'the one user of reset-password is missed once': {
    given: {
      absent: gone('orders_current'),
      credentials: [
        reading({
          spec: { strategy: 'reset-password', grace: 'P4D' },
          state: { previousUsername: 'orders_current' },
          reading: { current: { say: 'rejected' } },
        }),
      ],
    },
    want: ['SecretWithoutUser -> rotate-at-once'],
  },

  // Users
  'a foreign user is found': {
    given: { users: [user('dba', 'foreign')] },
    want: ['ForeignUser'],
  },
  'one whose name is built like ours is, too': {
    given: { users: [user('billing_abcdefghijkl', 'foreign')] },
    want: ['ForeignUser'],
  },
  'unless a spec cannot be read, whose user it may be': {
    given: { users: [user('billing_abcdefghijkl', 'foreign'), user('dba', 'foreign')], hasBrokenSpecs: true },
    want: ['ForeignUser'],
  },
  'a user that carries our prefix and belongs to no version is found': {
    given: { users: [user('orders_abcdefghijkl', 'unversioned')] },
    want: ['UserWithoutVersion'],
  },
  'protected, superseded, idle, pending and placeholder users are no finding': {
    given: {
      users: (['protected', 'superseded', 'idle', 'pending', 'placeholder'] as const).map((is) =>
        user(`a_${is}`, is),
      ),
    },
    want: [],
  },
  'a default user of somebody else is found once, and not as a foreign user besides': {
    given: { users: [user('dba', 'protected', { isDefault: true })] },
    want: ['DefaultUserForeign'],
  },
  'so is one that the vendor does not protect': {
    given: { users: [user('dba', 'foreign', { isDefault: true })] },
    want: ['DefaultUserForeign'],
  },
  'a default user of ours, or the one that stands in, is none': {
    given: {
      users: [
        user('orders_current', 'current', { isDefault: true }),
        user('rekey_placeholder', 'placeholder', { isDefault: true }),
      ],
    },
    want: [],
  },
  'the one that the target came with is none before the first rotation': {
    given: {
      users: [user('owner', 'protected', { isDefault: true })],
      credentials: [reading({ state: { currentUsername: undefined, previousUsername: undefined } })],
    },
    want: [],
  },
};

test.each(Object.entries(cases))('%s', (_sentence, { given, want }) => {
  expect(found(given)).toEqual(want);
});

describe('a consumer', () => {
  const standings: Record<
    string,
    { standing: ConsumerStanding; early: readonly string[]; late: readonly string[] }
  > = {
    'that has moved is no finding': { standing: { say: 'moved' }, early: [], late: [] },
    'that nobody can see is none either': {
      standing: { say: 'unobservable', details: 'it was told' },
      early: [],
      late: [],
    },
    'that was not told is brought on, once its own function had its time': {
      standing: { say: 'behind', details: 'it has another value' },
      early: [],
      late: ['ConsumerBehind -> advance-consumer'],
    },
    'that is on its way for long is only told of': {
      standing: { say: 'moving', details: 'a deploy is under way' },
      early: [],
      late: ['ConsumerBehind'],
    },
    'that did not come up is told of at once': {
      standing: { say: 'failed', details: 'the deploy failed', remedy: 'look at its log' },
      early: ['ConsumerBehind'],
      late: ['ConsumerBehind'],
    },
  };
  test.each(Object.entries(standings))('%s', (_sentence, { standing, early, late }) => {
    const switchedFor = (ago: string) =>
      found({
        credentials: [
          reading({
            state: secretWith(
              { one: ['AWSPREVIOUS'], two: ['AWSCURRENT'] },
              { lastRotatedAt: at(ago), changedAt: at(ago) },
            ),
            reading: { consumers: [{ name: 'render-service srv-1', standing }] },
          }),
        ],
      });
    expect(switchedFor('30m')).toEqual(early);
    expect(switchedFor('31m')).toEqual(late);
  });

  test('is told from the others of its credential', () => {
    const standing: ConsumerStanding = { say: 'behind', details: 'it has another value' };
    const consumers = ['render-service srv-1', 'render-service srv-2'].map((name) => ({ name, standing }));
    const findings = targetFindings(snapshot({ credentials: [reading({ reading: { consumers } })] }));
    expect(new Set(findings.map(fingerprint)).size).toBe(2);
  });
});

describe('a finding', () => {
  test('says the same about the same rights in whatever order a database lists them', () => {
    const details = (differences: readonly string[]) =>
      targetFindings(
        snapshot({ credentials: [reading({ reading: { privilegeDifferences: differences } })] }),
      ).map((finding) => finding.details);
    expect(details(['role b is held', 'role a is held'])).toEqual(['role a is held, role b is held']);
    expect(details(['role a is held', 'role b is held'])).toEqual(['role a is held, role b is held']);
  });

  test('says the same as time goes by', () => {
    const seenAt = (ms: number) =>
      targetFindings({
        ...snapshot({
          absent: gone('orders_current'),
          users: [user('dba', 'foreign'), user('orders_abcdefghijkl', 'unversioned')],
          credentials: [
            reading({
              state: pendingFor('2h'),
              reading: { current: { say: 'rejected' }, pending: 'empty', privilegeDifferences: ['role x'] },
            }),
          ],
        }),
        now: new Date(now.getTime() + ms),
      }).map(fingerprint);
    expect(seenAt(0)).toHaveLength(5);
    expect(seenAt(30 * 86_400_000)).toEqual(seenAt(0));
  });

  test('about a target that cannot be read names who has to act, and the credential only where its key alone is to blame', () => {
    const failure = { code: 'UNAUTHORIZED', during: 'listUsers', remedy: 'store a valid API key' };
    const target = { provider: 'zilliz-cloud', targetId: 'in01-1' };
    expect(targetUnreadable(target, failure)).toEqual({
      kind: 'TargetUnreadable',
      provider: 'zilliz-cloud',
      target: 'in01-1',
      details: 'UNAUTHORIZED at listUsers',
      remedy: 'store a valid API key',
    });
    expect(targetUnreadable({ ...target, credential: 'orders-api' }, failure)).toMatchObject({
      credential: 'orders-api',
    });
  });
});

describe('the checks', () => {
  const say = fc.constantFrom('accepted', 'rejected', 'unreachable', 'not-tested');
  const standing = fc.constantFrom<Standing['is'][]>(
    ...([
      ['current', 'superseded'],
      ['protected', 'idle'],
      ['pending', 'placeholder'],
    ] as Standing['is'][][]),
  );
  const anyReading = fc
    .record({
      say,
      pending: fc.constantFrom('none', 'empty', 'readable', 'unreadable'),
      pendingMinutes: fc.integer({ min: 0, max: 600 }),
      strategy: fc.constantFrom('replace-user', 'alternate-users', 'reset-password'),
      grace: fc.constantFrom('PT0S', 'PT24H', 'P30D'),
      differences: fc.subarray(['role a is held', 'role b is held']),
      restorable: fc.constantFrom(undefined, 'one'),
      isEnding: fc.boolean(),
    })
    .map(({ say, pending, pendingMinutes, strategy, grace, differences, restorable, isEnding }) =>
      reading({
        spec: { strategy, grace },
        directives: isEnding ? { deleteSince: at('1h') } : {},
        ...(pending === 'none' ? {} : { state: pendingFor(`${pendingMinutes}m`) }),
        reading: { current: { say }, pending, privilegeDifferences: differences, restorable },
      } as Given),
    );

  test('repair nothing about a user that is not the current one of a credential that is to stay', () => {
    fc.assert(
      fc.property(
        anyReading,
        fc.subarray(['orders_current', 'orders_previous']),
        standing,
        fc.boolean(),
        (one, absent, kinds, isDefault) => {
          const findings = targetFindings(
            snapshot({
              absent: new Set(absent),
              users: [
                ...kinds.map((is) => user(`x_${is}`, is)),
                user('dba', 'foreign', { isDefault }),
                user('orders_abcdefghijkl', 'unversioned'),
              ],
              credentials: [one],
            }),
          );
          for (const { kind, repair, username, credential, remedy, details } of findings) {
            expect(remedy.length * details.length).toBeGreaterThan(0);
            if (repair === undefined) continue;
            expect(credential).toBe('orders-api');
            expect([undefined, 'orders_current']).toContain(username);
            expect(one.credential.directives.deleteSince).toBeUndefined();
            expect(['ForeignUser', 'UserWithoutVersion', 'DefaultUserForeign']).not.toContain(kind);
          }
          expect(new Set(findings.map(fingerprint)).size).toBe(findings.length);
        },
      ),
    );
  });

  test('order at most one rotation of a credential', () => {
    fc.assert(
      fc.property(anyReading, fc.subarray(['orders_current', 'orders_previous']), (one, absent) => {
        const orders = targetFindings(snapshot({ absent: new Set(absent), credentials: [one] })).filter(
          ({ repair }) => repair === 'rotate-at-once',
        );
        expect(orders.length).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('are named after their findings', () => {
    expect(targetChecks.map(({ name }) => name)).toEqual([
      'targetNotReady',
      'secretWithoutUser',
      'currentRejected',
      'secretMissing',
      'pendingStray',
      'rotationStuck',
      'usersLeft',
      'rolledBack',
      'privilegeDrift',
      'privilegesOutdated',
      'labelRemoved',
      'previousWithoutUser',
      'consumerBehind',
      'defaultUserForeign',
      'userWithoutVersion',
      'foreignUser',
    ]);
  });
});

describe('a second look is worth it', () => {
  test('for the current user, and for the one before as long as nobody may take it away', () => {
    expect(expectedUsers({ now, credentials: [reading({ spec: { grace: 'P4D' } })] })).toEqual([
      'orders_current',
      'orders_previous',
    ]);
    expect(expectedUsers({ now, credentials: [reading()] })).toEqual(['orders_current']);
  });

  test('for nobody of a credential that is ending or has no secret', () => {
    const ending = reading({ directives: { deleteSince: at('1s') } });
    expect(expectedUsers({ now, credentials: [ending, { ...reading(), state: 'absent' }] })).toEqual([]);
  });
});

test.each([
  ['orders_abcdefghijkl', true],
  ['a_b_c_234567abcdef', true],
  ['orders_abcdefghijk', false],
  ['orders_abcdefghijk1', false],
  ['Orders_abcdefghijkl', false],
  ['abcdefghijkl', false],
  ['db_admin', false],
  ['..', false],
])('%s is named like ours: %s', (username, expected) => {
  expect(isNamedLikeOurs(username)).toBe(expected);
});

describe('the specs', () => {
  const credential = (name: string, overrides: Partial<CredentialSpec> = {}): Credential => ({
    name,
    spec: { ...spec, name, ...overrides },
    directives: {},
  });
  const fleet = (overrides: Partial<Parameters<typeof fleetFindings>[0]> = {}) =>
    fleetFindings({ credentials: [credential('orders-api')], broken: [], withoutSpec: [], ...overrides });

  test('that hold have no findings', () => {
    expect(fleet()).toEqual([]);
  });

  test('that cannot be read are named with their faults, which tell one fault from another', () => {
    const [one] = fleet({ broken: [{ name: 'orders-api', reason: 'SPEC_INVALID: grace: expected …' }] });
    const [other] = fleet({ broken: [{ name: 'orders-api', reason: 'SPEC_INVALID: name: expected …' }] });
    expect(one).toMatchObject({
      kind: 'SpecInvalid',
      provider: '',
      target: '',
      credential: 'orders-api',
      details: 'SPEC_INVALID: grace: expected …',
      remedy: expect.stringContaining('/rekey/credentials/orders-api'),
    });
    expect(one && other && fingerprint(one) === fingerprint(other)).toBe(false);
  });

  test('that are missing are named with what is there and what is not', () => {
    expect(fleet({ withoutSpec: ['lost'] })).toMatchObject([
      {
        kind: 'SpecMissing',
        credential: 'lost',
        details: 'there is rekey/lost, but no /rekey/credentials/lost',
      },
    ]);
  });

  test('may not share a prefix on one target, and may elsewhere', () => {
    const twins = ['orders-b', 'orders-a', 'orders-c'].map((name) => credential(name));
    expect(fleet({ credentials: twins })).toMatchObject([
      {
        kind: 'PrefixShared',
        target: 'in01-108240180a4faf8',
        credential: 'orders-a',
        details: 'orders-a, orders-b, orders-c all name their users orders_…',
      },
    ]);
    expect(
      fleet({
        credentials: [
          credential('orders-a'),
          credential('orders-b', { targetId: 'in01-2' }),
          credential('orders-c', { provider: 'vultr-valkey' }),
          credential('orders-d', { usernamePrefix: 'orders_d' }),
        ],
      }),
    ).toEqual([]);
  });
});
