import type { ConsumerStanding } from './consumer.ts';
import { endsAt, isRevoked } from './directives.ts';
import type { Finding, Repair } from './findings.ts';
import { type Credential, type FormerTarget, isFormer, targetsOf } from './fleet.ts';
import {
  type CredentialState,
  hasSwitched,
  type KnownUser,
  lastSwitch,
  pendingVersionOf,
  strayOf,
  usersInTheWay,
} from './generations.ts';
import { secretName, specParameterName } from './names.ts';
import type { Provider, Readiness } from './provider.ts';
import { holderOf } from './rotation.ts';
import { graceMs, restMs } from './spec.ts';

/** What one pass saw of a target. Whatever could not be read is left out, and so is nobody's drift. */
export interface Snapshot {
  readonly now: Date;
  readonly provider: string;
  readonly targetId: string;
  readonly readiness: Readiness;
  /** As listed last. */
  readonly users: readonly KnownUser[];
  /** Of the users that values name, those whom two complete lists, some seconds apart, both lacked. */
  readonly absent: ReadonlySet<string>;
  /** A spec that cannot be read may belong here: its users cannot be told from foreign ones. */
  readonly hasBrokenSpecs: boolean;
  readonly credentials: readonly CredentialReading[];
}

/** What one pass saw of a credential. */
export interface CredentialReading {
  readonly credential: Credential;
  /** `absent` only if two readings, some seconds apart, both said so. */
  readonly state: CredentialState | 'absent';
  readonly current: LoginReading;
  readonly pending: PendingReading;
  /** AWSPENDING has another password for the user in AWSCURRENT, whose login may be refused until that rotation ends. */
  readonly isResetOpen?: boolean;
  /** Of the current user from what the spec declared when its login was made; empty where its login does not work. */
  readonly privilegeDifferences: readonly string[];
  /** The spec declares other privileges since. */
  readonly arePrivilegesOutdated: boolean;
  readonly consumers: readonly { readonly name: string; readonly standing: ConsumerStanding }[];
  /** Where AWSPREVIOUS is missing: the version that it belongs on, as far as anybody can tell. */
  readonly restorable: string | undefined;
  /** The login in AWSCURRENT is one of another target: nothing of it can be seen here. */
  readonly isElsewhere?: true;
}

export type LoginReading =
  /** `rejected` twice, some seconds apart. `unreachable` says nothing of the login; so does `not-tested`. */
  | { readonly say: 'accepted' | 'rejected' | 'unreachable' | 'not-tested' }
  /** The value sends its readers elsewhere than the vendor says: another one is made. */
  | { readonly say: 'elsewhere'; readonly because: string }
  /** The value holds no login that may be tried. */
  | { readonly say: 'unusable'; readonly because: string };

/**
 * `empty` also where it holds the first value: nobody's login. `copied` is the login in AWSCURRENT: a rotation that was only to be
 * tested, and would change nothing but the rights of whoever is current. `unreadable` is none that rekey could have written.
 */
export type PendingReading = 'none' | 'empty' | 'copied' | 'readable' | 'unreadable';

export type Check = (snapshot: Snapshot) => readonly Finding[];

/** How long a rotation may take, retries of Secrets Manager included, before it counts as stuck. */
export const stuckAfterMs = 3_600_000;
/** The same under reset-password, where applications are refused meanwhile: Secrets Manager's own retries come within minutes. */
export const resetStuckAfterMs = 240_000;
/** How long a stuck rotation is rolled forward before it is given up. */
export const abandonAfterMs = 6 * 3_600_000;
/** What update-consumers may take before reconcile looks after the consumers as well. */
export const consumersMayTakeMs = 1_800_000;

// What a reading says.

/** A credential that is to be gone by now: what is missing of it was taken away on purpose. */
export const isEnding = ({ directives, spec }: Credential, now: Date): boolean => {
  const end = endsAt(directives, spec);
  return end !== undefined && end.at <= now;
};

export interface PendingVersion {
  readonly versionId: string;
  readonly madeAt: Date;
}

/** The version of a rotation that is not over. */
export function pendingVersion({
  secret,
  versions,
  directives,
}: CredentialState): PendingVersion | undefined {
  const versionId = pendingVersionOf({ secret, versions, directives });
  return versionId === undefined ? undefined : { versionId, madeAt: madeAt({ secret, versions }, versionId) };
}

/** When a version was made; where the list of versions lags behind, when anything changed last. */
const madeAt = (
  { secret, versions }: Pick<CredentialState, 'secret' | 'versions'>,
  versionId: string,
): Date =>
  versions.find((version) => version.versionId === versionId)?.createdAt ?? secret.changedAt ?? new Date(0);

const isOlder = (than: number, at: Date, now: Date): boolean => now.getTime() - at.getTime() > than;

interface Living {
  readonly reading: CredentialReading;
  readonly state: CredentialState;
  readonly pending: PendingVersion | undefined;
  /** A rotation is working on it: what it changes on its way is no drift. */
  readonly isRotating: boolean;
  /** It will mend what another rotation would, or reconcile rolls it forward. */
  readonly isBeingMended: boolean;
}

/**
 * Whether a stuck rotation may still be finished. Not under `alternate-users`: an operator may have moved AWSCURRENT to the other user
 * and back since the grace was checked. Then setSecret would change a password that consumers have read meanwhile.
 */
export const canRollForward = ({
  credential,
  pending,
}: Pick<CredentialReading, 'credential' | 'pending'>): boolean =>
  pending === 'readable' && credential.spec.strategy !== 'alternate-users';

/**
 * How long a rotation that is to replace a compromised login may go without storing one. Where we choose the password, that step asks
 * the vendor for no change. Elsewhere it makes the user, and may last as long as a function (AWS documentation).
 */
const urgentStuckAfterMs: Readonly<Record<Provider['passwords'], number>> = {
  'chosen-by-us': resetStuckAfterMs,
  'chosen-by-provider': 900_000,
};
/** Secrets Manager keeps about a hundred versions: rotations that fail again and again must not use them up within a day. */
const maxUrgentVersions = 6;

/**
 * The rotation that is to replace a compromised login has stored none, and no users are in its way: whatever stopped it, another one
 * is started sooner than it would count as stuck.
 */
function isUrgentWithoutLogin(
  { credential: { spec, directives }, pending }: CredentialReading,
  state: CredentialState,
  { users, now }: Pick<Snapshot, 'users' | 'now'>,
): boolean {
  const { revokeBefore } = directives;
  const current = holderOf(state.secret.labelsByVersion, 'AWSCURRENT');
  if (pending !== 'empty' || revokeBefore === undefined || current === undefined) return false;
  const madeSince = state.versions.filter(({ createdAt }) => createdAt >= revokeBefore).length;
  return (
    isRevoked(directives, madeAt(state, current)) &&
    madeSince <= maxUrgentVersions &&
    usersInTheWay(users, spec.name, now).length === 0
  );
}

/** The credentials that are to stay and have a secret. */
const living = ({
  credentials,
  now,
  users = [],
}: Pick<Snapshot, 'credentials' | 'now'> & Partial<Pick<Snapshot, 'users'>>): readonly Living[] =>
  credentials.flatMap((reading) => {
    const { credential, state } = reading;
    if (state === 'absent' || state.secret.deletedAt !== undefined || isEnding(credential, now)) return [];
    if (reading.isElsewhere) return [];
    const pending = pendingVersion(state);
    const patienceMs = reading.isResetOpen
      ? resetStuckAfterMs
      : isUrgentWithoutLogin(reading, state, { users, now })
        ? urgentStuckAfterMs[credential.spec.definition.capabilities.passwords]
        : stuckAfterMs;
    const isRotating = pending !== undefined && !isOlder(patienceMs, pending.madeAt, now);
    const isBeingMended = isRotating || (pending !== undefined && canRollForward(reading));
    return [{ reading, state, pending, isRotating, isBeingMended }];
  });

const about = (
  { provider, targetId }: Pick<Snapshot, 'provider' | 'targetId'>,
  { credential }: CredentialReading,
) => ({ provider, target: targetId, credential: credential.name });

// Checks of a target, each named after its finding.

/** What a person does about the credentials of a target that is no more. */
export const deleteGone =
  'if the target is gone for good, order the deletion of its credentials, with "targetIsGone": true to have it at once';

export const targetNotReady: Check = ({ readiness, provider, targetId }) =>
  readiness.ready
    ? []
    : [
        {
          kind: 'TargetNotReady',
          provider,
          target: targetId,
          details: readiness.reason,
          remedy:
            'isGone' in readiness
              ? deleteGone
              : 'bring the target back at the vendor; until then nothing is rotated or retired on it',
        },
      ];

export const secretMissing: Check = (snapshot) =>
  snapshot.credentials
    .filter(
      ({ credential, state }) =>
        (state === 'absent' || state.secret.deletedAt !== undefined) &&
        !isEnding(credential, snapshot.now) &&
        !isFormer(credential),
    )
    .map((reading) => ({
      kind: 'SecretMissing',
      ...about(snapshot, reading),
      details:
        reading.state === 'absent'
          ? `there is no ${secretName(reading.credential.name)}`
          : `${secretName(reading.credential.name)} is scheduled for deletion`,
      remedy:
        reading.state === 'absent'
          ? 'request the credential again with the same spec, or delete its parameter'
          : 'restore the secret, or request the deletion of the credential',
    }));

/** When the rotation comes that mends a login of no use: not while consumers may still use the other one of two users. */
function whenRotated(
  { credential: { spec } }: CredentialReading,
  state: CredentialState,
  { now }: Pick<Snapshot, 'now'>,
): string {
  if (!state.secret.rotationEnabled) return 'switch rotation on, then rekey rotates';
  const restUntil = new Date(lastSwitch(state).getTime() + restMs(spec));
  return now < restUntil
    ? `rekey rotates once the grace of the other user is over, at ${restUntil.toISOString()}; until then have consumers use AWSPREVIOUS, or set the stored password again at the vendor`
    : 'rekey rotates at once';
}

/** A list alone is no proof: a user that logs in exists. */
const isGone = ({ absent }: Snapshot, { reading, state }: Living): boolean =>
  state.currentUsername !== undefined &&
  absent.has(state.currentUsername) &&
  reading.current.say !== 'accepted';

export const secretWithoutUser: Check = (snapshot) =>
  living(snapshot)
    .filter((one) => isGone(snapshot, one))
    .map(({ reading, state, isBeingMended }) => ({
      kind: 'SecretWithoutUser',
      ...about(snapshot, reading),
      username: state.currentUsername ?? '',
      details: 'the user of AWSCURRENT is not there any more',
      remedy: `find out who deleted or renamed it; ${whenRotated(reading, state, snapshot)}`,
      ...(isBeingMended ? {} : { repair: 'rotate-at-once' }),
    }));

export const currentRejected: Check = (snapshot) =>
  living(snapshot).flatMap((one): readonly Finding[] => {
    const { reading, state, pending, isBeingMended } = one;
    const { current } = reading;
    const finding = { kind: 'CurrentRejected', ...about(snapshot, reading) } as const;
    if (current.say === 'unusable')
      return [
        {
          ...finding,
          details: current.because,
          remedy:
            'move AWSCURRENT back to the last version that rekey wrote, or request a new credential and delete this one',
        },
      ];
    if (current.say === 'elsewhere')
      return [
        {
          ...finding,
          details: current.because,
          remedy: `find out who wrote it; ${whenRotated(reading, state, snapshot)}`,
          ...(isBeingMended ? {} : { repair: 'rotate-at-once' }),
        },
      ];
    // The one user has one password: between setSecret and finishSecret it is the pending one.
    const isBeingReset = reading.isResetOpen && pending !== undefined;
    if (current.say !== 'rejected' || isGone(snapshot, one) || isBeingReset) return [];
    return [
      {
        ...finding,
        ...(state.currentUsername === undefined ? {} : { username: state.currentUsername }),
        details: 'the login in AWSCURRENT is refused',
        remedy: `find out who changed the password; ${whenRotated(reading, state, snapshot)}`,
        ...(isBeingMended ? {} : { repair: 'rotate-at-once' }),
      },
    ];
  });

/** AWSPENDING on a version that is no rotation in progress: no rotation can start while it is there. */
export const pendingStray: Check = (snapshot) =>
  living(snapshot).flatMap(({ reading, state }): readonly Finding[] => {
    const stray = strayOf(state);
    if (stray === undefined) return [];
    return [
      {
        kind: 'PendingStray',
        ...about(snapshot, reading),
        details: `AWSPENDING is on version ${stray.versionId}, but ${stray.because}`,
        remedy: 'find out who put it there; rekey takes the label off and never publishes that version',
        repair: 'abandon-rotation',
      },
    ];
  });

/** An operator moved AWSCURRENT back: that is respected, and said. */
export const rolledBack: Check = (snapshot) =>
  living(snapshot).flatMap(({ reading, state }): readonly Finding[] => {
    const { labelsByVersion } = state.secret;
    const current = holderOf(labelsByVersion, 'AWSCURRENT');
    const published = holderOf(labelsByVersion, 'REKEY_PUBLISHED');
    if (published === undefined || current === undefined) return [];
    if (madeAt(state, published) <= madeAt(state, current)) return [];
    return [
      {
        kind: 'RolledBack',
        ...about(snapshot, reading),
        details: `AWSCURRENT is on version ${current}, and ${published} was published after it`,
        remedy:
          'nothing, if somebody moved it back on purpose: the next rotation goes on from there; otherwise order a rotation',
      },
    ];
  });

/** No rotation is started before these are gone, so that logins do not pile up. */
export const usersLeft: Check = (snapshot) =>
  living(snapshot).flatMap(({ reading, pending }): readonly Finding[] => {
    const { name } = reading.credential;
    // Only where a rotation waits for them: one that would make a user more.
    if (pending === undefined || reading.pending !== 'empty' || !makesUser(reading.credential, snapshot))
      return [];
    const isCurrentRefused = uselessReadings.has(reading.current.say);
    const left = usersInTheWay(snapshot.users, name, snapshot.now, { isCurrentRefused });
    if (left.length === 0) return [];
    return [
      {
        kind: 'UsersInTheWay',
        ...about(snapshot, reading),
        details: `a rotation would make one user more beside ${left.toSorted().join(', ')}`,
        remedy:
          'a dry run of delete-user says what holds each of them: a grace, a connection, a consumer, the vendor; rotations go on once they are gone',
      },
    ];
  });

const uselessReadings: ReadonlySet<LoginReading['say']> = new Set(['rejected', 'elsewhere']);

/** Whether the next rotation makes a user, and does not change one that is there. */
function makesUser({ name, spec: { strategy } }: Credential, { users }: Pick<Snapshot, 'users'>): boolean {
  const ofUse = users.filter(
    ({ standing }) =>
      (standing.is === 'current' || standing.is === 'pending' || standing.is === 'idle') &&
      standing.credential.name === name,
  );
  return strategy === 'replace-user' || ofUse.length < (strategy === 'alternate-users' ? 2 : 1);
}

export const rotationStuck: Check = (snapshot) =>
  living(snapshot).flatMap(({ reading, pending, isRotating }): readonly Finding[] =>
    pending === undefined || isRotating
      ? []
      : [
          {
            kind: 'RotationStuck',
            ...about(snapshot, reading),
            details: `AWSPENDING is on version ${pending.versionId}, whose value is ${reading.pending}`,
            remedy:
              'see why the last CredentialRotationFailed came; rekey rolls the rotation forward, or gives it up and starts another one',
            repair: canRollForward(reading) ? 'finish-rotation' : 'abandon-rotation',
          },
        ],
  );

function haveRightsDrifted({ reading, state, isRotating }: Living): boolean {
  const { spec } = reading.credential;
  // The rights of an adopted user are those that it came with, until its first rotation.
  const isAdopted = spec.adopt?.username === state.currentUsername && state.previousUsername === undefined;
  // Setting a password has given rights back in the past; the rotation takes them away again.
  const isBeingReset = spec.strategy === 'reset-password' && isRotating;
  return reading.privilegeDifferences.length > 0 && !isAdopted && !isBeingReset;
}

export const privilegeDrift: Check = (snapshot) =>
  living(snapshot).flatMap((one): readonly Finding[] => {
    const { reading, state, isBeingMended } = one;
    if (!haveRightsDrifted(one)) return [];
    return [
      {
        kind: 'PrivilegeDrift',
        ...about(snapshot, reading),
        ...(state.currentUsername === undefined ? {} : { username: state.currentUsername }),
        // Databases list rights in any order.
        details: reading.privilegeDifferences.toSorted().join(', '),
        remedy: 'find out who changed the rights; where rekey cannot, put them right yourself',
        // What the spec declared before is given to nobody any more, what it declares now comes with the next rotation.
        ...(!reading.arePrivilegesOutdated
          ? { repair: 'apply-privileges' }
          : isBeingMended
            ? {}
            : { repair: 'rotate-at-once' }),
      },
    ];
  });

/** A deployment changes no password: the next window does. */
export const privilegesOutdated: Check = (snapshot) =>
  living(snapshot)
    .filter(({ reading, isRotating }) => reading.arePrivilegesOutdated && !isRotating)
    .map((one) => ({ ...one, hasDrifted: haveRightsDrifted(one) }))
    .map(({ reading, state, hasDrifted }) => ({
      kind: 'PrivilegesOutdated',
      ...about(snapshot, reading),
      ...(state.currentUsername === undefined ? {} : { username: state.currentUsername }),
      details: 'the spec declares other privileges than the current login was made with',
      remedy: 'nothing: it is rotated in its next window; order a rotation where it must not wait',
      // The rotation that mends drift brings the new privileges as well.
      ...(hasDrifted ? {} : { repair: 'rotate-in-window' }),
    }));

export const labelRemoved: Check = (snapshot) =>
  living(snapshot)
    // AWSCURRENT leaves AWSPREVIOUS behind whenever it moves.
    .filter(
      ({ state }) =>
        hasSwitched(state) && holderOf(state.secret.labelsByVersion, 'AWSPREVIOUS') === undefined,
    )
    .map(({ reading }) => ({
      kind: 'LabelRemoved',
      ...about(snapshot, reading),
      details: 'AWSPREVIOUS was taken off',
      remedy:
        reading.restorable === undefined
          ? 'none of the older versions is of use any more: the next rotation sets the label'
          : 'find out who removed the label; rekey puts it back',
      ...(reading.restorable === undefined ? {} : { repair: 'restore-label' }),
    }));

export const previousWithoutUser: Check = (snapshot) =>
  living(snapshot).flatMap((one): readonly Finding[] => {
    const username = userInGrace(one, snapshot.now);
    // The idle user of a pair may be made anew on the way.
    const isBeingMade = one.reading.credential.spec.strategy === 'alternate-users' && one.isRotating;
    if (username === undefined || !snapshot.absent.has(username) || isBeingMade) return [];
    return [
      {
        kind: 'PreviousWithoutUser',
        ...about(snapshot, one.reading),
        username,
        details: 'the user of AWSPREVIOUS is not there any more, and its grace is not over',
        remedy: 'it cannot be made again: have consumers that still use AWSPREVIOUS read AWSCURRENT now',
      },
    ];
  });

/** The user of AWSPREVIOUS, as long as nobody may take it away. */
function userInGrace({ reading, state }: Living, now: Date): string | undefined {
  const { spec, directives } = reading.credential;
  const { secret, currentUsername, previousUsername } = state;
  const previous = holderOf(secret.labelsByVersion, 'AWSPREVIOUS');
  const current = holderOf(secret.labelsByVersion, 'AWSCURRENT');
  if (previous === undefined || current === undefined || previousUsername === currentUsername)
    return undefined;
  if (isRevoked(directives, madeAt(state, previous))) return undefined;
  // The earliest that the switch can have been, where retirement takes the latest: whoever was retired is not missed.
  const switchedAt = Math.max(madeAt(state, current).getTime(), secret.lastRotatedAt?.getTime() ?? 0);
  return now.getTime() < switchedAt + graceMs(spec) ? previousUsername : undefined;
}

/** The users that have to be there: only their absence is worth a second look. */
export const expectedUsers = (what: Pick<Snapshot, 'credentials' | 'now'>): readonly string[] =>
  living(what).flatMap((one) =>
    [one.state.currentUsername, userInGrace(one, what.now)].filter((name) => name !== undefined),
  );

/** Not before update-consumers had its time; `moving` is as good as `behind` by then, but nothing more can be done. */
export const consumerBehind: Check = (snapshot) =>
  living(snapshot).flatMap(({ reading, state }) =>
    reading.consumers.flatMap(({ name, standing }): readonly Finding[] => {
      const { say } = standing;
      if (say === 'moved' || say === 'unobservable') return [];
      if (say !== 'failed' && !isOlder(consumersMayTakeMs, lastSwitch(state), snapshot.now)) return [];
      return [
        {
          kind: 'ConsumerBehind',
          ...about(snapshot, reading),
          details: consumerDetails(name, standing),
          remedy:
            say === 'failed'
              ? standing.remedy
              : 'see why it did not take the login on; the user before lives on until it has',
          ...(say === 'behind' ? { repair: 'advance-consumer' } : {}),
        },
      ];
    }),
  );

/** Tells the consumers of one credential apart. */
export const consumerDetails = (
  name: string,
  standing: Extract<ConsumerStanding, { readonly details: string }>,
): string => `${name}: ${standing.details}`;

/** Only where a credential has had a user of its own: before that, the default is the one that the target came with. */
export const defaultUserForeign: Check = ({ provider, targetId, users, credentials }) =>
  credentials.some(({ state }) => state !== 'absent' && state.currentUsername !== undefined)
    ? users
        .filter(({ user, standing: { is } }) => user.isDefault && (is === 'foreign' || is === 'protected'))
        .map(({ user: { username } }) => ({
          kind: 'DefaultUserForeign',
          provider,
          target: targetId,
          username,
          details: 'the default user is none of rekey',
          remedy:
            'find out who made it; the next rotation makes a user of rekey the default again, and consumers read AWSCURRENT meanwhile',
        }))
    : [];

export const userWithoutVersion: Check = ({ provider, targetId, users }) =>
  users.flatMap(({ user: { username }, standing }): readonly Finding[] =>
    standing.is === 'unversioned'
      ? [
          {
            kind: 'UserWithoutVersion',
            provider,
            target: targetId,
            credential: standing.credential.name,
            username,
            details: 'it is named as rekey names users, and no version of the secret made it',
            remedy:
              'if nobody uses it, delete it at the vendor: rekey does not, as it cannot prove whose it is',
          },
        ]
      : [],
  );

/** As in core/username.ts: a prefix, then twelve letters of base32. */
const namedLikeOurs = /^[a-z](?:[a-z0-9]|_(?=[a-z0-9])){0,18}_[a-z2-7]{12}$/;
export const isNamedLikeOurs = (username: string): boolean => namedLikeOurs.test(username);

export const foreignUser: Check = ({ provider, targetId, users, hasBrokenSpecs }) =>
  users
    .filter(({ user, standing }) => standing.is === 'foreign' && user.isDefault !== true)
    .filter(({ user }) => !(hasBrokenSpecs && isNamedLikeOurs(user.username)))
    .map(({ user: { username } }) => ({
      kind: 'ForeignUser',
      provider,
      target: targetId,
      username,
      details: 'no credential of rekey made it',
      remedy: 'if it belongs there, leave it; if not, delete it at the vendor: rekey never touches it',
    }));

/** The gravest first: where there is no room to note all, these are noted. */
export const targetChecks: readonly Check[] = [
  targetNotReady,
  secretWithoutUser,
  currentRejected,
  secretMissing,
  pendingStray,
  rotationStuck,
  usersLeft,
  rolledBack,
  privilegeDrift,
  privilegesOutdated,
  labelRemoved,
  previousWithoutUser,
  consumerBehind,
  defaultUserForeign,
  userWithoutVersion,
  foreignUser,
];

/** Everything that is not as it should be on one target. */
export const targetFindings = (snapshot: Snapshot): readonly Finding[] => {
  const former = new Set(
    snapshot.credentials.flatMap(({ credential }) => (isFormer(credential) ? [credential.name] : [])),
  );
  return targetChecks
    .flatMap((check) => check(snapshot))
    .map((finding) => (former.has(finding.credential ?? '') ? withoutRotation(finding) : finding));
};

/** No rotation mends a login that its spec has moved away from: a person has to say where it belongs. */
function withoutRotation({ repair, ...finding }: Finding): Finding {
  if (repair === undefined || needsNoSpec.has(repair)) return { ...finding, ...(repair && { repair }) };
  return { ...finding, remedy: moveBack };
}
const needsNoSpec: ReadonlySet<Repair> = new Set(['abandon-rotation', 'restore-label', 'advance-consumer']);
const moveBack =
  'put the former target back into the spec, or delete the credential and request it again: a credential does not move';

/**
 * Where the spec of a credential names another target than versions of its secret: rotation is refused, and the old login works on,
 * unless a rotation under reset-password was open (`isResetOpen`): nobody can end it where its provider is another one.
 */
export const targetMoved = (
  { name, spec }: Pick<Credential, 'name' | 'spec'>,
  { provider, targetId, username, labels }: FormerTarget,
  { isResetOpen = false }: { readonly isResetOpen?: boolean } = {},
): Finding => ({
  kind: 'TargetMoved',
  provider: spec.provider,
  target: spec.targetId,
  credential: name,
  username,
  details: `the spec names ${spec.provider} ${spec.targetId}, ${labels.join(' and ')} of ${secretName(name)} still ${provider} ${targetId}`,
  remedy:
    isResetOpen && provider !== spec.provider
      ? `put the former target back into the spec now: a rotation of its only user is open, which may refuse the login in AWSCURRENT, and rekey cannot end it without the key of ${provider}`
      : moveBack,
});

/** A target of which nothing could be read: `code` says who has to act. `credential` where only its key is to blame. */
export const targetUnreadable = (
  { provider, targetId, credential }: { provider: string; targetId: string; credential?: string },
  { code, during, remedy }: { code: string; during: string; remedy: string },
): Finding => ({
  kind: 'TargetUnreadable',
  provider,
  target: targetId,
  ...(credential === undefined ? {} : { credential }),
  details: `${code} at ${during}`,
  remedy,
});

// Checks of the fleet.

/** What one pass saw of everything that is wanted. */
export interface FleetSnapshot {
  readonly credentials: readonly Credential[];
  readonly broken: readonly { readonly name: string; readonly reason: string }[];
  /** Credentials whose secret was described and whose parameter was asked for: there is the one, and not the other. */
  readonly withoutSpec: readonly string[];
}

export type FleetCheck = (snapshot: FleetSnapshot) => readonly Finding[];

const nowhere = { provider: '', target: '' } as const;

export const specInvalid: FleetCheck = ({ broken }) =>
  broken.map(({ name, reason }) => ({
    kind: 'SpecInvalid',
    ...nowhere,
    credential: name,
    details: reason,
    remedy: `correct ${specParameterName(name)}; until then nothing is done for this credential: a rotation that is open under reset-password, which may refuse the login in AWSCURRENT, is not ended`,
  }));

export const specMissing: FleetCheck = ({ withoutSpec }) =>
  withoutSpec.map((name) => ({
    kind: 'SpecMissing',
    ...nowhere,
    credential: name,
    details: `there is ${secretName(name)}, but no ${specParameterName(name)}`,
    remedy:
      'put the spec back, or delete the secret and its users: nothing rotates or retires them, and a rotation that is open under reset-password, which may refuse the login in AWSCURRENT, is not ended',
  }));

export const prefixShared: FleetCheck = ({ credentials }) =>
  targetsOf(credentials).flatMap(({ provider, targetId, credentials: neighbours }) =>
    [...Map.groupBy(neighbours, ({ spec }) => spec.usernamePrefix)].flatMap(
      ([prefix, [first, ...others]]): readonly Finding[] =>
        first === undefined || others.length === 0
          ? []
          : [
              {
                kind: 'PrefixShared',
                provider,
                target: targetId,
                credential: first.name,
                details: `${[first, ...others].map(({ name }) => name).join(', ')} all name their users ${prefix}_…`,
                remedy:
                  'keep one of them; request the others again under other names and prefixes, and delete these',
              },
            ],
    ),
  );

export const fleetChecks: readonly FleetCheck[] = [specMissing, specInvalid, prefixShared];

/** Everything that is not as it should be among the specs. */
export const fleetFindings = (snapshot: FleetSnapshot): readonly Finding[] =>
  fleetChecks.flatMap((check) => check(snapshot));
