import type { Directives } from './directives.ts';
import { endsAt, isRevoked } from './directives.ts';
import type { DrainEvidence, UserFacts } from './events.ts';
import {
  type CredentialVersions,
  type KnownUser,
  graceMarginMs as marginMs,
  type Superseded,
} from './generations.ts';
import type { Capabilities, DatabaseUser, Session, Sessions } from './provider.ts';
import { type CredentialSpec, drainDeadlineMs, graceMs } from './spec.ts';

/** Why a user stays. */
export const keepReasons = [
  'CURRENT',
  'PENDING',
  'IDLE',
  'PROTECTED',
  'DEFAULT_USER',
  'FOREIGN',
  'UNVERSIONED',
  'GRACE_RUNNING',
  'CURRENT_UNPROVED',
  'CONSUMERS_BEHIND',
  'STILL_CONNECTED',
  'DRAIN_UNOBSERVED',
] as const;
export type KeepReason = (typeof keepReasons)[number];

export type UserVerdict =
  | Keep
  /** The login in AWSCURRENT must be tried first. */
  | { readonly say: 'prove-current' }
  /** The consumers must be asked first. */
  | { readonly say: 'ask-consumers' }
  /** Its sessions must be read first, or once more. */
  | { readonly say: 'observe' }
  | Retire;

export type Keep =
  | { readonly say: 'keep'; readonly reason: Exclude<KeepReason, Detailed['reason']> }
  | ({ readonly say: 'keep' } & Detailed);
type Detailed =
  | { readonly reason: 'GRACE_RUNNING'; readonly until: Date }
  | { readonly reason: 'CURRENT_UNPROVED'; readonly because: string }
  | { readonly reason: 'CONSUMERS_BEHIND'; readonly consumers: readonly string[] }
  | { readonly reason: 'DRAIN_UNOBSERVED'; readonly because: string }
  | {
      readonly reason: 'STILL_CONNECTED';
      readonly open: readonly Session[] | number;
      /** When it should have been left. */
      readonly overdueSince: Date;
      /** Until when it may be connected before there is an alarm, or a cut where the spec says so. */
      readonly deadline: Date;
    };

export interface Retire {
  readonly say: 'retire';
  readonly reason: UserFacts['reason'];
  /** Connections are ended before the user is deleted, whether that works or not; `evidence` says why. */
  readonly endSessions: boolean;
  readonly evidence: DrainEvidence;
}

/** What was found out about one user beside its name. */
export interface Observed {
  /** Why the login in AWSCURRENT is not known to work, or `accepted`; undefined while nobody tried it. */
  readonly current?: 'accepted' | { readonly because: string };
  /** Those of the credential's consumers that have not moved to the current login; undefined while nobody asked. */
  readonly consumersBehind?: readonly string[];
  /** Oldest first; two of them count, some seconds apart. */
  readonly readings?: readonly Sessions[];
}

const later = (at: Date, ms: number): Date => new Date(at.getTime() + ms);

/** What is to become of a listed user while its credential lives. Never `retire` for one that is of use, or not ours. */
export function judgeUser({ user, standing }: KnownUser, observed: Observed, now: Date): UserVerdict {
  switch (standing.is) {
    case 'current':
      return { say: 'keep', reason: 'CURRENT' };
    case 'pending':
      return { say: 'keep', reason: 'PENDING' };
    case 'idle':
      return { say: 'keep', reason: 'IDLE' };
    case 'protected':
      return { say: 'keep', reason: 'PROTECTED' };
    case 'foreign':
      return { say: 'keep', reason: 'FOREIGN' };
    case 'unversioned':
      return { say: 'keep', reason: 'UNVERSIONED' };
    case 'placeholder':
      return protection(user) ?? unusedPlaceholder(user, now);
    case 'superseded': {
      const { spec } = standing.credential;
      const kept = protection(user);
      const unproved = proofOf(standing, observed);
      if (standing.isRevoked) return kept ?? unproved ?? retireRevoked;
      const graceEnds = later(standing.since, (standing.wasPublished ? graceMs(spec) : 0) + marginMs);
      // Not the other way round, so that a date that cannot be compared keeps the user.
      if (!(now >= graceEnds)) return { say: 'keep', reason: 'GRACE_RUNNING', until: graceEnds };
      if (kept !== undefined) return kept;
      // Nobody was ever told this login: nobody has to move away from it, and nobody is connected with it.
      if (!standing.wasPublished) return retireUnpublished;
      if (unproved !== undefined) return unproved;
      const behind = observed.consumersBehind;
      if (behind === undefined) return { say: 'ask-consumers' };
      if (behind.length > 0) return { say: 'keep', reason: 'CONSUMERS_BEHIND', consumers: behind };
      return judgeDrain(
        'superseded',
        { spec, overdueSince: graceEnds, readings: observed.readings ?? [] },
        now,
      );
    }
    default:
      return standing satisfies never;
  }
}

/**
 * The last login that works is never taken away: before a login that was published goes, the one in AWSCURRENT must have been
 * accepted in the same visit. Undefined where that is so, or where nothing can or need be proved.
 */
function proofOf(
  { credential: { spec }, wasPublished, mayGoUnproved }: Superseded,
  { current }: Observed,
): UserVerdict | undefined {
  if (!wasPublished || mayGoUnproved || spec.verify === 'none' || current === 'accepted') return undefined;
  return current === undefined
    ? { say: 'prove-current' }
    : { say: 'keep', reason: 'CURRENT_UNPROVED', because: current.because };
}

/** A credential that is to go, and since when. */
export interface Ending {
  readonly at: Date;
  readonly reason: 'requested' | 'expired';
}

/** Since when this credential is to be gone; undefined while it is to stay. */
export function endingOf(
  { directives, spec }: { readonly directives: Directives; readonly spec: Pick<CredentialSpec, 'expiresAt'> },
  now: Date,
): Ending | undefined {
  const ending = endsAt(directives, spec);
  return ending !== undefined && ending.at <= now ? ending : undefined;
}

/**
 * What is to become of a listed user of a credential that is to go. There is no grace and nobody to wait for but whoever is
 * connected. Its default user can go once another one is the default: that is the caller's business.
 */
export function judgeEndingUser(
  user: DatabaseUser,
  { spec, directives, versions }: Pick<CredentialVersions, 'spec' | 'directives' | 'versions'>,
  ending: Ending,
  observed: Pick<Observed, 'readings'>,
  now: Date,
): UserVerdict {
  if (user.isProtected && user.isDefault !== true) return { say: 'keep', reason: 'PROTECTED' };
  const newest = versions.at(-1)?.createdAt;
  if (newest !== undefined && isRevoked(directives, newest)) return retireRevoked;
  return judgeDrain(
    'credential-deleted',
    { spec, overdueSince: ending.at, readings: observed.readings ?? [] },
    now,
  );
}

const retireUnpublished: Retire = {
  say: 'retire',
  reason: 'never-published',
  endSessions: false,
  evidence: { drain: 'not-observed', because: 'its login was never published' },
};

const retireRevoked: Retire = {
  say: 'retire',
  reason: 'revoked',
  endSessions: true,
  evidence: {
    drain: 'connections-to-be-ended',
    because: 'somebody may know the password who must not',
  },
};

/** Whether the connections of a user that is of no use any more let it go. */
function judgeDrain(
  reason: UserFacts['reason'],
  {
    spec: { drain, definition, verify },
    overdueSince,
    readings,
  }: {
    readonly spec: Pick<CredentialSpec, 'drain' | 'definition' | 'verify'>;
    readonly overdueSince: Date;
    readonly readings: readonly Sessions[];
  },
  now: Date,
): UserVerdict {
  const { drainObservedBy } = definition.capabilities;
  const retire = (evidence: DrainEvidence): Retire => ({
    say: 'retire',
    reason,
    endSessions: false,
    evidence,
  });
  if (drainObservedBy === 'nothing')
    return retire({ drain: 'not-observed', because: 'the provider tells nobody who is connected' });
  const deadline = later(overdueSince, drainDeadlineMs({ drain }));
  const open = readings
    .flatMap((reading) => (reading.observed && isOpen(reading) ? [reading.open] : []))
    .at(-1);
  if (open !== undefined)
    return drain.force && now >= deadline
      ? {
          ...retire({
            drain: 'connections-to-be-ended',
            because: 'somebody is still connected after the deadline, and drain.force is set',
          }),
          endSessions: true,
        }
      : { say: 'keep', reason: 'STILL_CONNECTED', open, overdueSince, deadline };
  const unseen = readings.filter((reading) => !reading.observed);
  const because = unseen[0]?.reason;
  if (because === undefined)
    return readings.length < 2 ? { say: 'observe' } : retire(nobodyConnected(readings));
  // Whoever logs in for every rotation gets through as a rule: a network that is down decides nothing.
  const isCutOff = verify === 'login' && unseen.some(({ isUnreachable }) => isUnreachable);
  if (!isOptional[drainObservedBy] || (isCutOff && readings.length > 1))
    return { say: 'keep', reason: 'DRAIN_UNOBSERVED', because };
  // A network that failed once is no login that may not look.
  if (readings.length < 2) return { say: 'observe' };
  return unseen.length === readings.length
    ? retire({ drain: 'not-observed', because })
    : { say: 'keep', reason: 'DRAIN_UNOBSERVED', because };
}

/** Both readings showed nobody; what they cannot show is said. */
function nobodyConnected(readings: readonly Sessions[]): DrainEvidence {
  const unseen = readings.flatMap((reading) => (reading.observed ? (reading.unseen ?? []) : [])).at(-1);
  return { drain: 'nobody-connected-twice', ...(unseen === undefined ? {} : { unseen }) };
}

/** Whether a user may go without being observed, as its login need not be allowed to look: then the grace alone decides. */
const isOptional: Readonly<Record<Exclude<Capabilities['drainObservedBy'], 'nothing'>, boolean>> = {
  'user-list': false,
  sql: false,
  'client-list': true,
};

const isOpen = ({ open }: { readonly open: readonly Session[] | number }): boolean =>
  (typeof open === 'number' ? open : open.length) > 0;

/** The provider's own word comes before every name. */
function protection({ isProtected, isDefault }: DatabaseUser): Keep | undefined {
  if (isDefault === true) return { say: 'keep', reason: 'DEFAULT_USER' };
  return isProtected ? { say: 'keep', reason: 'PROTECTED' } : undefined;
}

/** rekey never published its password. People may have read it at the provider while the user was the default, though. */
function unusedPlaceholder({ openConnections = 0 }: DatabaseUser, now: Date): UserVerdict {
  return openConnections > 0
    ? { say: 'keep', reason: 'STILL_CONNECTED', open: openConnections, overdueSince: now, deadline: now }
    : {
        say: 'retire',
        reason: 'never-published',
        endSessions: false,
        evidence: { drain: 'not-observed', because: 'nobody was ever given its password' },
      };
}
