import {
  isBlackedOut,
  isUsable,
  nextOpening,
  openings,
  passMs,
  type Span,
  stretches,
  usableMs,
} from './calendar.ts';
import { endsAt } from './directives.ts';
import { skewMs } from './duration.ts';
import type { Finding } from './findings.ts';
import { type Credential, targetKey } from './fleet.ts';
import { leastSpacingMs, paceOf, plannedRotationMs } from './pace.ts';
import type { SecretDescription, VersionListing } from './ports.ts';
import { holderOf, openVersion } from './rotation.ts';
import { type CredentialSpec, everyMs, restMs } from './spec.ts';
import type { Sha256 } from './username.ts';

/** All credentials at one time, with what Secrets Manager knows of each. */
export interface FleetSnapshot {
  readonly now: Date;
  readonly candidates: readonly Candidate[];
  /** Since when writes are paused, by the target's key, or by `all`. */
  readonly pauses?: ReadonlyMap<string, Date>;
}

export interface Candidate extends Credential {
  /** `unreadable` if Secrets Manager did not answer: a rotation may be open, so the target counts as busy. */
  readonly secret: SecretDescription | 'absent' | 'unreadable';
  /** In any order, those without a label included. */
  readonly versions: readonly VersionListing[];
}

/** Why a credential is not rotated now, in a closed list. */
export const holdReasons = [
  /** Its deletion was ordered, or `expiresAt` has passed. */
  'ENDING',
  /** The secret is scheduled for deletion, or there is none. */
  'DELETED',
  /** Secrets Manager did not answer. */
  'UNREADABLE',
  'ROTATION_DISABLED',
  /** An operator paused all writes, or the writes to this target. */
  'PAUSED',
  /** RotateSecret would fail until reconcile-users has repaired the labels: an old version is pending, or none is current. */
  'AWAITS_REPAIR',
  'NOT_DUE',
  'OUTSIDE_WINDOW',
  'BLACKED_OUT',
  /** The idle one of two users still serves consumers. */
  'GRACE_RUNNING',
  /** As many rotations of the same target are in flight, or are started now, as the vendor can take at once. */
  'TARGET_BUSY',
  /** Its own rotations keep failing: its next attempt waits, its neighbours do not. */
  'QUARANTINED',
  /** Several credentials of the target fail, so the target is to blame. */
  'BREAKER_OPEN',
  'SPACING',
  /** The rotations of this API key have used up rekey's half of the vendor's rate limit. */
  'BUDGET',
] as const;
export type HoldReason = (typeof holdReasons)[number];

export type DueVerdict =
  | {
      readonly say: 'start';
      readonly because: 'REVOKED' | 'REQUESTED' | 'FIRST' | 'CHANGED' | 'INTERVAL';
      /** When to start, in whole minutes from now. */
      readonly inMinutes: number;
    }
  /** The secret does not name the existing user that the spec adopts: request the credential from create-user again. */
  | { readonly say: 'adopt' }
  | { readonly say: 'hold'; readonly reason: HoldReason; readonly until?: Date };

export interface PlannedRotation {
  readonly candidate: Candidate;
  readonly verdict: DueVerdict;
  /** Ordered, and no rotation is in flight that began after the order: neither window nor spacing count. */
  readonly isUrgent: boolean;
  /** Undefined if Secrets Manager did not answer, and for a credential that is not rotated. */
  readonly deadline?: Date;
  /** Present while the rotations of this credential keep failing. */
  readonly quarantine?: Quarantine;
}

/** How long rekey holds a credential whose own rotations keep failing. Derived from its versions alone. */
export interface Quarantine {
  /** Rotations of the credential that failed since its current version was made. */
  readonly failures: number;
  readonly firstFailedAt: Date;
  /** When it may be tried again. In the past once the pause is over. */
  readonly until: Date;
}

/** Whether rekey starts rotations on a target. Derived from the versions of its credentials alone. */
export interface Breaker {
  readonly state: 'closed' | 'opened' | 'half-open';
  /** Rotations that failed since the last one that succeeded, of the credentials that count. */
  readonly failures: number;
  /** While open: when one rotation may be tried. */
  readonly until?: Date;
}

export interface PlannedTarget {
  readonly provider: string;
  readonly target: string;
  readonly breaker: Breaker;
  /** False if one of its credentials could not be read: the state of the breaker is uncertain then. */
  readonly isWhole: boolean;
  /** How many rotations of it may be in flight at once: what the vendor can take, and one while its breaker is not closed. */
  readonly maxInFlight: number;
}

export interface Plan {
  /** One for each credential, in the order in which they may start. */
  readonly rotations: readonly PlannedRotation[];
  readonly targets: readonly PlannedTarget[];
}

/** A rotation takes seconds to minutes. One that is open for longer has failed, and no longer blocks its target. */
export const inFlightMs = 30 * 60_000;
/** A pool of connections that reloads after one rotation is steady again before the next: vendors' gateways, too. */
const maxSpacingMs = 10 * 60_000;
/** After this many consecutive failures the cause is unlikely to be transient: rekey quarantines the credential. */
const quarantineFailures = 3;
/** One credential proves nothing about its target: its role may be gone, or its spec wrong. */
const breakerCredentials = 2;
const firstPauseMs = 3_600_000;
const maxPauseMs = 24 * 3_600_000;
/** A plan covers the minutes until the next pass is due. */
const plannedMinutes = 5;

/**
 * Decides for each credential whether to rotate it now, and why. Deterministic: two concurrent passes over the same snapshot start the
 * same rotations under the same tokens.
 *
 * On one target at most `parallelRotations` are in flight, with `spacingOf` between their starts. Revocations go first, then other
 * orders, then the credentials that have been due the longest. An order ignores windows and spacing. It waits for a rotation in flight,
 * the budget and, unless it revokes, the quarantine and the breaker.
 *
 * A credential whose own rotation has failed goes last. Otherwise its retries would take the turns of its neighbours.
 * While a breaker is half-open, the trial goes to the credential of the target that was tried least recently.
 */
export function planRotations({ now, candidates, pauses = new Map() }: FleetSnapshot, sha256: Sha256): Plan {
  const nowMs = now.getTime();
  const isPaused = (key: string): boolean => pauses.has('all') || pauses.has(key);
  const lives = candidates.map((candidate) => {
    const life = lifeOf(candidate, nowMs);
    return { ...life, turn: turnOf(life, { now, sha256, isPaused: isPaused(life.key) }) };
  });
  const targets = [...Map.groupBy(lives, ({ key }) => key).values()].map((members) => ({
    members,
    state: targetState(members, nowMs),
  }));
  const budget = createBudget(lives, nowMs);
  const hasOrder = lives.some(
    ({ order, quarantine, turn }) =>
      (order === 'REVOKED' || (order !== undefined && quarantine === undefined)) &&
      (turn.say === 'ready' || (turn.say === 'hold' && turn.reason === 'TARGET_BUSY')),
  );
  const inLine = targets
    .flatMap(({ members, state }) =>
      members.map((life) => ({ life, target: state, ...placeInLine(life, state.breaker.state) })),
    )
    .toSorted(
      (a, b) =>
        a.rank - b.rank || a.since - b.since || (a.life.candidate.name < b.life.candidate.name ? -1 : 1),
    );
  return {
    rotations: inLine.map(({ life, target }): PlannedRotation => {
      const { candidate, turn, order, pendingSince, dueSince, deadline, quarantine } = life;
      const verdict =
        turn.say === 'ready' ? startOrHold(life, turn, { nowMs, target, budget, hasOrder }) : turn;
      return {
        candidate,
        verdict,
        isUrgent: order !== undefined && !((pendingSince ?? 0) >= dueSince),
        ...(isRotated(life, verdict) ? { deadline: new Date(deadline) } : {}),
        ...(quarantine === undefined ? {} : { quarantine }),
      };
    }),
    targets: targets.flatMap(({ members: [first], state: { breaker, isWhole, maxInFlight } }) =>
      first === undefined
        ? []
        : [
            {
              provider: first.candidate.spec.provider,
              target: first.candidate.spec.targetId,
              breaker,
              isWhole,
              maxInFlight,
            },
          ],
    ),
  };
}

const isRotated = ({ state }: Life, verdict: DueVerdict): boolean =>
  state !== undefined && verdict.say !== 'adopt' && !isEnding(verdict);

/** Whether the credential is to be deleted, or has no secret: it needs no rotation. */
export const isEnding = (verdict: DueVerdict): boolean =>
  verdict.say === 'hold' && (verdict.reason === 'ENDING' || verdict.reason === 'DELETED');

/** The lower rank goes first, then the older date. */
function placeInLine(
  { order, dueSince, failedAt, quarantine, triedAt }: Life,
  breaker: Breaker['state'],
): { readonly rank: number; readonly since: number } {
  // A revocation in quarantine goes last, too. Quarantine does not delay it, so at rank 0 it would take every turn of its neighbours.
  if (quarantine !== undefined || (failedAt.length > 0 && order === undefined))
    return { rank: 3, since: triedAt };
  if (order === 'REVOKED') return { rank: 0, since: dueSince };
  if (breaker === 'half-open') return { rank: 2, since: triedAt };
  return { rank: order === 'REQUESTED' ? 1 : 2, since: dueSince };
}

/** The facts of one credential, independent of its target and its neighbours. */
interface Life {
  readonly candidate: Candidate;
  /** Of its target. */
  readonly key: string;
  /** Undefined if the secret does not exist or could not be read. */
  readonly state: SecretDescription | undefined;
  readonly current: string | undefined;
  /** When AWSCURRENT moved last. */
  readonly switchedAt: number;
  /** The start of the idle user's grace: the latest of all dates, as in retirement. */
  readonly graceFrom: number;
  readonly isFirst: boolean;
  /** The spec declares other privileges than this login was made with. */
  readonly isChanged: boolean;
  readonly order: 'REVOKED' | 'REQUESTED' | undefined;
  /** Since when a rotation of it is open. */
  readonly pendingSince: number | undefined;
  readonly deadline: number;
  readonly dueSince: number;
  /** The start times of the rotations that have failed since the current version was made. */
  readonly failedAt: readonly number[];
  readonly quarantine: Quarantine | undefined;
  /** The start times of all its rotations that Secrets Manager still lists. */
  readonly starts: readonly number[];
  /** When a rotation of it was started last, or else when it was switched. */
  readonly triedAt: number;
}

function lifeOf(candidate: Candidate, now: number): Life {
  const { secret, versions, spec, directives } = candidate;
  const state = typeof secret === 'string' ? undefined : secret;
  const labels = state?.labelsByVersion ?? new Map<string, ReadonlySet<string>>();
  const current = holderOf(labels, 'AWSCURRENT');
  const madeAt = (id: string | undefined): number | undefined =>
    versions.find(({ versionId }) => versionId === id)?.createdAt.getTime();
  const rotatedAt = state?.lastRotatedAt?.getTime();
  // A stale list lacks the current version. Such a version is new; the next pass reads its date.
  const currentMadeAt = madeAt(current) ?? rotatedAt ?? now;
  const switchedAt = Math.max(rotatedAt ?? currentMadeAt, currentMadeAt);
  // Secrets Manager dates no switch by hand, and labels do not show one that was taken back. The last change is the latest that it can
  // have been: consumers may have read the idle user's login until then.
  const graceFrom = Math.max(switchedAt, state?.changedAt?.getTime() ?? now);
  const isFirst =
    state !== undefined && rotatedAt === undefined && holderOf(labels, 'AWSPREVIOUS') === undefined;
  const pending = openVersionOf(candidate);
  // Its consumers wait for a first login, so a first rotation is overdue once it counts as failed.
  const deadline = isFirst ? currentMadeAt + inFlightMs : switchedAt + everyMs(spec);
  const isOrdered = (before: Date | undefined): boolean =>
    before !== undefined &&
    currentMadeAt < before.getTime() &&
    // If the sender's clock is fast, the order lies in the future: rotate now and once more after that time, not in each pass.
    !(now < before.getTime() && now - currentMadeAt < skewMs);
  const order = isOrdered(directives.revokeBefore)
    ? 'REVOKED'
    : isOrdered(directives.rotateBefore)
      ? 'REQUESTED'
      : undefined;
  const ordered = order === 'REVOKED' ? directives.revokeBefore : directives.rotateBefore;
  const failedAt = state === undefined ? [] : failuresOf(candidate, state, { current, currentMadeAt, now });
  const starts = startsOf(versions);
  return {
    candidate,
    key: targetKey(spec.provider, spec.targetId),
    state,
    current,
    switchedAt,
    graceFrom,
    failedAt,
    quarantine: quarantineOf(failedAt),
    starts,
    triedAt: starts.at(-1) ?? switchedAt,
    isFirst,
    isChanged: isOrdered(directives.changeBefore),
    order,
    pendingSince: pending === undefined ? undefined : (madeAt(pending) ?? state?.changedAt?.getTime() ?? now),
    deadline,
    dueSince: order === undefined ? deadline : (ordered?.getTime() ?? deadline),
  };
}

/** The version of an open rotation. Undefined if the secret could not be read. */
export const openVersionOf = ({
  secret,
  versions,
}: Pick<Candidate, 'secret' | 'versions'>): string | undefined =>
  typeof secret === 'string' ? undefined : openVersion(secret, versions);

/** When rotations were started, in order. The oldest version is the first value, which no rotation made. */
const startsOf = (versions: readonly VersionListing[]): readonly number[] =>
  versions
    .map(({ createdAt }) => createdAt.getTime())
    .toSorted((a, b) => a - b)
    .slice(1);

/** When the versions younger than the current one were made whose rotations failed, in order. */
const failuresOf = (
  { versions }: Candidate,
  { labelsByVersion }: SecretDescription,
  {
    current,
    currentMadeAt,
    now,
  }: { readonly current: string | undefined; readonly currentMadeAt: number; readonly now: number },
): readonly number[] =>
  versions
    .flatMap(({ versionId, labels, createdAt }) => {
      const at = createdAt.getTime();
      const held = [...labels, ...(labelsByVersion.get(versionId) ?? [])];
      const isPending = held.includes('AWSPENDING');
      const hasFailed = isPending ? now - at >= inFlightMs : held.length === 0;
      return versionId !== current && at > currentMadeAt && hasFailed && !held.includes('AWSCURRENT')
        ? [at]
        : [];
    })
    .toSorted((a, b) => a - b);

/** Tells an operator, once for each quarantine, that the rotations of a credential keep failing. */
export const quarantineFindings = ({
  candidate: { name, spec },
  quarantine,
}: PlannedRotation): readonly Finding[] =>
  quarantine === undefined
    ? []
    : [
        {
          kind: 'RotationQuarantined',
          provider: spec.provider,
          target: spec.targetId,
          credential: name,
          details: `${quarantine.failures} rotations of ${name} have failed one after the other since ${quarantine.firstFailedAt.toISOString()}; rekey tries the next one at ${quarantine.until.toISOString()}, and later ones at the latest a day after each failure, once its window is open`,
          remedy: `do what README.md says for the code of the last CredentialRotationFailed of ${name}; the next rotation that succeeds ends the quarantine`,
        },
      ];

/** An hour, doubled by each further failure, up to a day. */
const pauseMs = (beyond: number): number => Math.min(firstPauseMs * 2 ** beyond, maxPauseMs);

function quarantineOf(failedAt: readonly number[]): Quarantine | undefined {
  const [first, last] = [failedAt[0], failedAt.at(-1)];
  const failures = failedAt.length;
  if (first === undefined || last === undefined || failures < quarantineFailures) return undefined;
  const until = new Date(last + pauseMs(failures - quarantineFailures));
  return { failures, firstFailedAt: new Date(first), until };
}

// A target.

interface TargetState {
  readonly breaker: Breaker;
  readonly isWhole: boolean;
  /** The latest end of each rotation in flight, in order. */
  readonly inFlightUntil: readonly number[];
  /** In which minutes from now this plan starts rotations. */
  readonly planned: number[];
  readonly maxInFlight: number;
  /** How long a rotation that this plan starts counts against `maxInFlight`. */
  readonly plannedMs: number;
  readonly spacingMs: number;
  /** When the next routine rotation may start. Moves with each start of this plan. */
  nextStart: number;
}

function targetState(members: readonly (Life & { readonly turn: Turn })[], now: number): TargetState {
  const breaker = breakerOf(members, now);
  const { parallelRotations } = members[0]?.candidate.spec.definition.capabilities ?? {
    parallelRotations: 1,
  };
  const spacingMs = spacingOf(members, now);
  // A failed rotation has changed no login that consumers read, so spacing ignores it.
  const lastStart = latest(
    members.flatMap(({ starts, failedAt }) => starts.findLast((at) => !failedAt.includes(at)) ?? []),
  );
  return {
    breaker,
    isWhole: members.every(({ candidate }) => candidate.secret !== 'unreadable'),
    inFlightUntil: members
      .flatMap(({ pendingSince }) =>
        pendingSince !== undefined && now - pendingSince < inFlightMs ? [pendingSince + inFlightMs] : [],
      )
      .toSorted((a, b) => a - b),
    planned: [],
    // A breaker that is not closed allows one trial at a time, whatever the vendor could take.
    maxInFlight: breaker.state === 'closed' ? parallelRotations : 1,
    plannedMs: breaker.state === 'closed' ? plannedRotationMs : Number.POSITIVE_INFINITY,
    spacingMs,
    nextStart: Math.max(now, lastStart + spacingMs),
  };
}

/** Not `Math.max(...times)`: a target may have more versions than a call can have arguments. */
const latest = (times: readonly number[]): number =>
  times.reduce((last, at) => Math.max(last, at), Number.NEGATIVE_INFINITY);

/**
 * Opens once two credentials of the target have failed since the last success on it. Only the first failure of each counts, as its
 * retries say nothing new about the target. The breaker stays open for an hour, doubled by each further credential, up to a day. A
 * success closes it.
 *
 * A credential that was in quarantine while a neighbour succeeded does not count: its own spec or role is to blame. Otherwise such a
 * credential and a single failure of a neighbour would hold the whole target.
 */
function breakerOf(members: readonly Life[], now: number): Breaker {
  const lastSuccess = latest(members.map(({ state }) => state?.lastRotatedAt?.getTime() ?? 0));
  const failing = members
    .filter(({ failedAt }) => failedAt.filter((at) => at <= lastSuccess).length < quarantineFailures)
    .map(({ failedAt }) => failedAt.filter((at) => at > lastSuccess))
    .filter(({ length }) => length > 0);
  const failures = failing.reduce((sum, { length }) => sum + length, 0);
  if (failing.length < breakerCredentials) return { state: 'closed', failures };
  const until = latest(failing.map(([first = 0]) => first)) + pauseMs(failing.length - breakerCredentials);
  return now < until
    ? { state: 'opened', failures, until: new Date(until) }
    : { state: 'half-open', failures };
}

/**
 * The spacing between routine rotations of a target, in milliseconds:
 *
 *     max( least, min( 10 minutes, (close of 1) / 1, (close of 2) / 2, … (close of n) / n ) )
 *
 * `1 … n` are the credentials whose turn comes before their opening closes, in the order in which their openings close, and `close`
 * is the time left until then. Their deadline counts instead where it comes sooner. One that is overdue, or has no window, has a day,
 * and a first rotation as long as a rotation may be in flight.
 *
 * `least` is what a rotation takes divided by how many the vendor can take at once, or the pace of the API key's budget where
 * that is slower. It is never 0.
 */
function spacingOf(members: readonly (Life & { readonly turn: Turn })[], now: number): number {
  const { spec } = members[0]?.candidate ?? {};
  if (spec === undefined) return maxSpacingMs;
  const closes = members
    .flatMap(({ candidate, deadline, isFirst, order, quarantine, turn }) => {
      if (order !== undefined || quarantine !== undefined) return [];
      const isReady = turn.say === 'ready';
      if (isReady && isFirst) return [inFlightMs];
      const at = isReady
        ? now
        : turn.say === 'hold' && turn.reason === 'NOT_DUE'
          ? turn.until?.getTime()
          : undefined;
      if (at === undefined || at >= now + dayMs) return [];
      const open = stretches(candidate.spec.rotation, now, now + dayMs).find(({ from }) => from <= now);
      const closesAt = open?.until ?? (isReady ? turn.closesAt : now);
      const until = Math.min(closesAt, now + dayMs, deadline > now ? deadline : now + dayMs);
      return at < until ? [until - now] : [];
    })
    .toSorted((a, b) => a - b);
  const needed = closes.reduce((least, close, index) => Math.min(least, close / (index + 1)), maxSpacingMs);
  return Math.max(leastSpacingMs(spec.definition.capabilities), needed);
}

// One credential.

type Hold = Extract<DueVerdict, { readonly say: 'hold' }>;

/** Why the credential itself is held, its target apart; `ready` if nothing holds it. */
type Turn =
  | Hold
  | Extract<DueVerdict, { readonly say: 'adopt' }>
  | {
      readonly say: 'ready';
      readonly because: Extract<DueVerdict, { readonly say: 'start' }>['because'];
      readonly closesAt: number;
    };

function turnOf(
  { candidate, state, current, order, isFirst, isChanged, pendingSince, switchedAt, graceFrom }: Life,
  { now, sha256, isPaused }: { readonly now: Date; readonly sha256: Sha256; readonly isPaused: boolean },
): Turn {
  const { spec, directives } = candidate;
  const nowMs = now.getTime();
  const end = endsAt(directives, spec);
  if (end !== undefined && (end.reason === 'requested' || end.at <= now)) return hold('ENDING');
  if (candidate.secret === 'unreadable') return hold('UNREADABLE');
  if (state === undefined || state.deletedAt !== undefined) return hold('DELETED');
  if (spec.adopt !== undefined && isFirst && current === oldestVersion(candidate)) return { say: 'adopt' };
  if (!state.rotationEnabled) return hold('ROTATION_DISABLED');
  if (isPaused) return hold('PAUSED');
  if (pendingSince !== undefined && nowMs - pendingSince < inFlightMs)
    return hold('TARGET_BUSY', pendingSince + inFlightMs);
  if (pendingSince !== undefined || current === undefined) return hold('AWAITS_REPAIR');

  const because = order ?? (isFirst ? 'FIRST' : isChanged ? 'CHANGED' : 'INTERVAL');
  let closesAt = Number.POSITIVE_INFINITY;
  if (because === 'INTERVAL' || because === 'CHANGED') {
    const turn = because === 'CHANGED' ? nowMs : turnAt(candidate, switchedAt, sha256);
    if (nowMs < turn) return hold('NOT_DUE', turn);
    const open = openings(spec.rotation, now, now)[0];
    if (open === undefined)
      return hold(
        isBlackedOut(spec.rotation, now) ? 'BLACKED_OUT' : 'OUTSIDE_WINDOW',
        nextOpening(spec.rotation, now)?.from.getTime(),
      );
    closesAt = open.until.getTime();
  }
  const graceOver = graceFrom + restMs(spec);
  if (because !== 'REVOKED' && !isFirst && nowMs < graceOver) return hold('GRACE_RUNNING', graceOver);
  return { say: 'ready', because, closesAt };
}

/** Whether the target and the budget let a credential start that is ready. */
function startOrHold(
  { candidate: { spec }, order, quarantine }: Life,
  { because, closesAt }: Extract<Turn, { readonly say: 'ready' }>,
  {
    nowMs,
    target,
    budget,
    hasOrder,
  }: {
    readonly nowMs: number;
    readonly target: TargetState;
    readonly budget: Budget;
    /** A person ordered the rotation and waits for it. */
    readonly hasOrder: boolean;
  },
): DueVerdict {
  const isRevoked = because === 'REVOKED';
  if (quarantine !== undefined && nowMs < quarantine.until.getTime() && !isRevoked)
    return hold('QUARANTINED', quarantine.until.getTime());
  // After its quarantine a credential has a trial of its own. It does not use up the breaker's.
  if (target.breaker.state === 'opened' && quarantine === undefined && !isRevoked)
    return hold('BREAKER_OPEN', target.breaker.until?.getTime());
  // If a credential cannot be read, its rotation may be in flight. A revocation does not wait for that.
  if (!target.isWhole && !isRevoked) return hold('TARGET_BUSY');

  // An invocation waits for the starts that it plans. If it waited for minutes, it would not look at ordered rotations again.
  const minutes = hasOrder || order !== undefined ? 1 : plannedMinutes;
  let minute = order === undefined ? minuteOf(target, nowMs) : 0;
  while (minute < minutes && !hasRoom(target, minute)) minute += 1;
  if (minute >= minutes)
    return hasRoom(target, 0) ? hold('SPACING', target.nextStart) : hold('TARGET_BUSY', roomAt(target));
  const inMinutes = budget.next(spec, minute);
  if (inMinutes >= plannedMinutes) return hold('BUDGET', nowMs + plannedMinutes * 60_000);
  const startsAt = nowMs + inMinutes * 60_000;
  if (startsAt >= closesAt)
    return hold('OUTSIDE_WINDOW', nextOpening(spec.rotation, new Date(closesAt))?.from.getTime());
  budget.take(spec, inMinutes);
  target.planned.push(inMinutes);
  target.nextStart = Math.max(target.nextStart, startsAt) + target.spacingMs;
  return { say: 'start', because, inMinutes };
}

/** The minute from now in which the spacing lets the next routine rotation start; after the first one, a part of a minute too early. */
const minuteOf = ({ nextStart, planned }: TargetState, now: number): number =>
  Math.max(0, (planned.length > 0 ? Math.floor : Math.ceil)((nextStart - now) / 60_000));

/** Whether one more rotation may run on the target in that minute from now. */
const hasRoom = ({ inFlightUntil, planned, maxInFlight, plannedMs }: TargetState, minute: number): boolean =>
  inFlightUntil.length + planned.filter((at) => (minute - at) * 60_000 < plannedMs).length < maxInFlight;

/** The time from which one more rotation may start, because enough of those in flight will have ended or failed. */
const roomAt = ({ inFlightUntil, maxInFlight }: TargetState): number | undefined =>
  inFlightUntil.at(-maxInFlight);

const hold = (reason: HoldReason, until?: number): Hold => ({
  say: 'hold',
  reason,
  ...(until === undefined ? {} : { until: new Date(until) }),
});

const oldestVersion = ({ versions }: Candidate): string | undefined =>
  versions.toSorted((a, b) => a.createdAt.getTime() - b.createdAt.getTime())[0]?.versionId;

interface Budget {
  /** The first minute from now, `from` or later, in which one more rotation fits. */
  next(spec: CredentialSpec, from: number): number;
  take(spec: CredentialSpec, minute: number): void;
}

/**
 * Half of the vendor's rate limit for one API key, in whole minutes. The other half is for retirement, consumers and other users of
 * the key. Rotations that were started in the last minute count, also those that an operator started.
 */
function createBudget(lives: readonly Life[], now: number): Budget {
  /** By key: how many start in each stretch of `minutes`, and before which stretch all are full. */
  const used = new Map<string, { readonly taken: Map<number, number>; firstFree: number }>();
  const usedOf = ({ apiKeySecret }: CredentialSpec) => {
    const known = used.get(apiKeySecret) ?? { taken: new Map<number, number>(), firstFree: 0 };
    used.set(apiKeySecret, known);
    return known;
  };
  const budget: Budget = {
    next(spec, from) {
      const { minutes, rotations } = paceOf(spec.definition.capabilities);
      const key = usedOf(spec);
      const isFull = (stretch: number): boolean => (key.taken.get(stretch) ?? 0) >= rotations;
      while (isFull(key.firstFree)) key.firstFree += 1;
      let stretch = Math.max(key.firstFree, Math.floor(from / minutes));
      while (isFull(stretch)) stretch += 1;
      return Math.max(from, stretch * minutes);
    },
    take(spec, minute) {
      const { taken } = usedOf(spec);
      const stretch = Math.floor(minute / paceOf(spec.definition.capabilities).minutes);
      taken.set(stretch, (taken.get(stretch) ?? 0) + 1);
    },
  };
  for (const { candidate, starts } of lives) {
    const { spec } = candidate;
    const since = now - paceOf(spec.definition.capabilities).minutes * 60_000;
    for (const at of starts) if (at > since) budget.take(spec, budget.next(spec, 0));
  }
  return budget;
}

/** The longest time over which rotations are spread: longer intervals gain nothing from more. */
const longestSpreadMs = 14 * 86_400_000;
const dayMs = 86_400_000;
const weekMs = 7 * dayMs;
/** How long reconcile-users takes to give up a failed rotation. */
const failedAfterMs = 2 * 3_600_000;

/**
 * From when on the credential is due, for its interval:
 *
 * 1. The deadline is the last switch and the interval. A quarter of the interval after the switch nothing starts, nor within the
 *    grace of alternate users. What is open between the two, and long enough to be counted on, can be used.
 * 2. Something is kept in reserve, so that one missed chance (spacing, breaker, budget, a failed rotation) makes nothing late: a
 *    tenth of the interval, at most a day, where the last opening is longer than that; otherwise the last opening, where there is
 *    one before it. With two users it is at least their grace and two hours, at most a quarter of the interval.
 * 3. A fifth of the interval, at most two weeks, before the reserve is where rotations are spread: the credential's own place among
 *    what is open there comes from the hash of its name.
 *
 * Blackouts are not open: where they cover the end, all of this moves before them, into the first quarter if nothing else is left.
 */
export function turnAt(
  { name, spec }: Pick<Credential, 'name' | 'spec'>,
  switchedAt: number,
  sha256: Sha256,
): number {
  const interval = everyMs(spec);
  const deadline = switchedAt + interval;
  const spread = Math.min(interval / 5, longestSpreadMs);
  // A rotation of a pair that fails changes the secret, so another grace passes before the next try.
  const retryMs = restMs(spec) === 0 ? 0 : restMs(spec) + failedAfterMs;
  const reserve = Math.max(Math.min(interval / 10, dayMs), Math.min(retryMs, interval / 4));
  const soonest = switchedAt + restMs(spec);
  const earliest = Math.max(switchedAt + interval / 4, soonest);
  // The end alone where that will do: intervals have up to a thousand days.
  const end = deadline - spread - reserve - 2 * weekMs;
  for (const from of [Math.max(end, earliest), earliest, soonest]) {
    const usable = stretches(spec.rotation, from, deadline)
      .map((span) => clipped(span, from, deadline))
      .filter(isUsable);
    const last = usable.at(-1);
    if (last === undefined) continue;
    const isLong = last.until - last.from >= reserve + usableMs;
    const latest = isLong ? last.until - reserve : (usable.at(-2) ?? last).until;
    // What was left out may matter: look at all of it.
    if (from > earliest && (latest - spread < from || !(isLong || usable.length > 1))) continue;
    // A start falls into the pass after it, which must still be inside, or before another opening.
    const places = usable
      .map((span) => clipped(span, latest - spread, latest - passMs))
      .filter((span) => span.until > span.from);
    return place(places, shareOf(name, sha256)) ?? last.from;
  }
  // No opening before the deadline: as soon as there is one.
  return Math.max(soonest, deadline - spread - reserve);
}

const clipped = (span: Span, from: number, until: number): Span => ({
  from: Math.max(span.from, from),
  until: Math.min(span.until, until),
});

/** The instant at this share of some spans taken together. */
function place(spans: readonly Span[], share: number): number | undefined {
  let left = share * spans.reduce((sum, { from, until }) => sum + until - from, 0);
  for (const { from, until } of spans) {
    if (left < until - from) return Math.floor(from + left);
    left -= until - from;
  }
  return spans.at(-1)?.from;
}

/** From 0 to 1, the same for the same name, and evenly spread. */
const shareOf = (name: string, sha256: Sha256): number =>
  sha256(`place of ${name}`)
    .subarray(0, 4)
    .reduce((sum, byte) => sum * 256 + byte, 0) /
  2 ** 32;
