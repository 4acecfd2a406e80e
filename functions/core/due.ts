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
import { type Credential, targetKey } from './fleet.ts';
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
  /** `unreadable` where Secrets Manager did not answer: nothing is known, so nothing is ruled out. */
  readonly secret: SecretDescription | 'absent' | 'unreadable';
  /** In any order, those without a label included. */
  readonly versions: readonly VersionListing[];
}

/** Why a credential is not rotated now, in a closed list. */
export const holdReasons = [
  /** Deleted on request, or its time is over. */
  'ENDING',
  /** The secret is scheduled for deletion, or there is none. */
  'DELETED',
  /** Secrets Manager did not say what it holds. */
  'UNREADABLE',
  'ROTATION_DISABLED',
  /** Somebody paused all writes, or those on this target. */
  'PAUSED',
  /** RotateSecret would be refused, or fail, until reconcile has been there: an old pending version, or nothing is current. */
  'AWAITS_REPAIR',
  'NOT_DUE',
  'OUTSIDE_WINDOW',
  'BLACKED_OUT',
  /** The idle one of two users still serves consumers. */
  'GRACE_RUNNING',
  /** A rotation of the same target is in flight, or is started now. */
  'TARGET_BUSY',
  'BREAKER_OPEN',
  'SPACING',
  /** The vendor would not take so many writes of this API key. */
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
  /** Its user exists already and the secret does not name it yet: create-user is to be asked again. */
  | { readonly say: 'adopt' }
  | { readonly say: 'hold'; readonly reason: HoldReason; readonly until?: Date };

export interface PlannedRotation {
  readonly candidate: Candidate;
  readonly verdict: DueVerdict;
  /** Ordered, and no rotation is in flight that began after the order: neither window nor spacing count. */
  readonly isUrgent: boolean;
  /** When it must have been rotated; undefined while nothing is known of it, and for what is not to be rotated at all. */
  readonly deadline?: Date;
}

/** Whether rotations of a target are tried at all, told by its versions alone. */
export interface Breaker {
  readonly state: 'closed' | 'opened' | 'half-open';
  /** Rotations that failed since the last one that succeeded. */
  readonly failures: number;
  /** While open: when one rotation may be tried. */
  readonly until?: Date;
}

export interface PlannedTarget {
  readonly provider: string;
  readonly target: string;
  readonly breaker: Breaker;
  /** False while one of its credentials could not be read: the breaker may be another then. */
  readonly isWhole: boolean;
}

export interface Plan {
  /** One for each credential, in the order in which they may start. */
  readonly rotations: readonly PlannedRotation[];
  readonly targets: readonly PlannedTarget[];
}

/** A rotation takes seconds to minutes. One that is open for longer has failed, and blocks nobody else any more. */
export const inFlightMs = 30 * 60_000;
/** A pool of connections that reloads after one rotation is steady again before the next: vendors' gateways, too. */
export const spacingMs = 10 * 60_000;
/** So many failures of a target in a row are no accident. */
const breakerFailures = 3;
const breakerMs = 3_600_000;
const longestBreakMs = 24 * 3_600_000;
/** The next pass may come after so many minutes, and plans the minutes after them. */
const plannedMinutes = 5;

/**
 * What is to be done about each credential now, and why. The same snapshot gives the same plan, so that two passes at once start
 * the same rotations under the same tokens.
 *
 * At most one start a target. What was ordered goes first, revocations before all, then what is due the longest. An order waits
 * for no window and no spacing; it waits for a rotation in flight, the budget and, unless it revokes, the breaker.
 */
export function planRotations({ now, candidates, pauses = new Map() }: FleetSnapshot, sha256: Sha256): Plan {
  const nowMs = now.getTime();
  const lives = candidates
    .map((candidate) => lifeOf(candidate, nowMs))
    .toSorted(
      (a, b) => a.rank - b.rank || a.dueSince - b.dueSince || (a.candidate.name < b.candidate.name ? -1 : 1),
    );
  const targets = Map.groupBy(lives, keyOf);
  const states = new Map([...targets].map(([key, members]) => [key, targetState(members, nowMs)]));
  const budget = createBudget(lives, nowMs);
  const taken = new Set<string>();

  const rotations = lives.map((life): PlannedRotation => {
    const key = keyOf(life);
    const verdict = judgeRotation(life, {
      now,
      sha256,
      target: states.get(key),
      isTaken: taken.has(key),
      isPaused: pauses.has('all') || pauses.has(key),
      budget,
    });
    if (verdict.say === 'start') taken.add(key);
    const isRotated =
      life.state !== undefined &&
      verdict.say !== 'adopt' &&
      !(verdict.say === 'hold' && (verdict.reason === 'ENDING' || verdict.reason === 'DELETED'));
    return {
      candidate: life.candidate,
      verdict,
      isUrgent: life.order !== undefined && !((life.pendingSince ?? 0) >= life.dueSince),
      ...(isRotated ? { deadline: new Date(life.deadline) } : {}),
    };
  });
  return {
    rotations,
    targets: [...targets.values()].flatMap((members) => {
      const spec = members[0]?.candidate.spec;
      const state = spec && states.get(targetKey(spec.provider, spec.targetId));
      return spec === undefined || state === undefined
        ? []
        : [
            {
              provider: spec.provider,
              target: spec.targetId,
              breaker: state.breaker,
              isWhole: state.isWhole,
            },
          ];
    }),
  };
}

/** What is true of one credential, before its target and everybody else are looked at. */
interface Life {
  readonly candidate: Candidate;
  /** Undefined where there is nothing to rotate, or nothing is known. */
  readonly state: SecretDescription | undefined;
  readonly current: string | undefined;
  /** When AWSCURRENT moved last, and when its version was made. */
  readonly switchedAt: number;
  readonly madeAt: number;
  /** From when on the grace of the idle user is counted: the latest of all dates, as in retirement. */
  readonly graceFrom: number;
  readonly isFirst: boolean;
  /** The spec declares other privileges than this login was made with. */
  readonly isChanged: boolean;
  readonly order: 'REVOKED' | 'REQUESTED' | undefined;
  /** Since when a rotation of it is open. */
  readonly pendingSince: number | undefined;
  readonly deadline: number;
  readonly rank: number;
  readonly dueSince: number;
}

const keyOf = ({ candidate: { spec } }: Life): string => targetKey(spec.provider, spec.targetId);

function lifeOf(candidate: Candidate, now: number): Life {
  const { secret, versions, spec, directives } = candidate;
  const state = typeof secret === 'string' ? undefined : secret;
  const labels = state?.labelsByVersion ?? new Map<string, ReadonlySet<string>>();
  const current = holderOf(labels, 'AWSCURRENT');
  const madeAt = (id: string | undefined): number | undefined =>
    versions.find(({ versionId }) => versionId === id)?.createdAt.getTime();
  const rotatedAt = state?.lastRotatedAt?.getTime();
  // A list that does not have the version yet lags behind: then it is young, and the next pass knows.
  const currentMadeAt = madeAt(current) ?? rotatedAt ?? now;
  const switchedAt = Math.max(rotatedAt ?? currentMadeAt, currentMadeAt);
  // Secrets Manager dates no switch by hand, and labels do not show one that was taken back. The last change is the latest that it can
  // have been: consumers may have read the idle user's login until then.
  const graceFrom = Math.max(switchedAt, state?.changedAt?.getTime() ?? now);
  const isFirst =
    state !== undefined && rotatedAt === undefined && holderOf(labels, 'AWSPREVIOUS') === undefined;
  const pending = openVersionOf(candidate);
  // Nobody uses it yet, but somebody waits for it: it is late when the rotation that makes it has failed.
  const deadline = isFirst ? currentMadeAt + inFlightMs : switchedAt + everyMs(spec);
  const isOrdered = (before: Date | undefined): boolean =>
    before !== undefined &&
    currentMadeAt < before.getTime() &&
    // Dated in the future by a clock that is fast: one rotation at once, one more when it is past, not one a minute.
    !(now < before.getTime() && now - currentMadeAt < skewMs);
  const order = isOrdered(directives.revokeBefore)
    ? 'REVOKED'
    : isOrdered(directives.rotateBefore)
      ? 'REQUESTED'
      : undefined;
  const ordered = order === 'REVOKED' ? directives.revokeBefore : directives.rotateBefore;
  return {
    candidate,
    state,
    current,
    switchedAt,
    madeAt: currentMadeAt,
    graceFrom,
    isFirst,
    isChanged: isOrdered(directives.changeBefore),
    order,
    pendingSince: pending === undefined ? undefined : (madeAt(pending) ?? state?.changedAt?.getTime() ?? now),
    deadline,
    rank: order === undefined ? 2 : order === 'REQUESTED' ? 1 : 0,
    dueSince: order === undefined ? deadline : (ordered?.getTime() ?? deadline),
  };
}

/** The version of a rotation that is open. Undefined where nothing is known of the secret. */
export const openVersionOf = ({
  secret,
  versions,
}: Pick<Candidate, 'secret' | 'versions'>): string | undefined =>
  typeof secret === 'string' ? undefined : openVersion(secret, versions);

interface TargetState {
  readonly breaker: Breaker;
  /** What holds a credential whose own rotations have not failed. */
  readonly breakerOfOthers: Breaker;
  /** The credentials whose own rotations have failed since the last success. */
  readonly failing: ReadonlySet<Life>;
  readonly isWhole: boolean;
  /** Until when a rotation in flight is given time. */
  readonly busyUntil: number | undefined;
  readonly lastStart: number;
}

function targetState(members: readonly Life[], now: number): TargetState {
  const lastSuccess = Math.max(
    Number.NEGATIVE_INFINITY,
    ...members.map(({ state }) => state?.lastRotatedAt?.getTime() ?? Number.NEGATIVE_INFINITY),
  );
  const inFlight = members.flatMap(({ pendingSince }) =>
    pendingSince !== undefined && now - pendingSince < inFlightMs ? [pendingSince + inFlightMs] : [],
  );
  const failures = new Map(members.map((life) => [life, failuresOf(life, lastSuccess, now)]));
  return {
    breaker: breakerOf([...failures.values()].flat(), now),
    // Retries of one credential tell nothing new about the target: only its first failure counts for the others.
    breakerOfOthers: breakerOf(
      [...failures.values()].flatMap((failedAt) => (failedAt.length > 0 ? [Math.min(...failedAt)] : [])),
      now,
    ),
    failing: new Set(members.filter((life) => failures.get(life)?.length !== 0)),
    isWhole: members.every(({ candidate }) => candidate.secret !== 'unreadable'),
    busyUntil: inFlight.length > 0 ? Math.max(...inFlight) : undefined,
    lastStart: Math.max(Number.NEGATIVE_INFINITY, ...members.flatMap(startsOf)),
  };
}

/** When rotations were started. The oldest version is the first value, which no rotation made. */
const startsOf = ({ candidate: { versions } }: Life): readonly number[] =>
  versions
    .map(({ createdAt }) => createdAt.getTime())
    .toSorted((a, b) => a - b)
    .slice(1);

/** When versions of the credential were made that came after the current one and got nowhere, since the target's last success. */
const failuresOf = (
  { candidate, state, madeAt, current }: Life,
  lastSuccess: number,
  now: number,
): readonly number[] =>
  candidate.versions.flatMap(({ versionId, labels, createdAt }) => {
    const at = createdAt.getTime();
    const held = [...labels, ...(state?.labelsByVersion.get(versionId) ?? [])];
    const isPending = held.includes('AWSPENDING');
    const hasFailed = isPending ? now - at >= inFlightMs : held.length === 0;
    return versionId !== current &&
      at > madeAt &&
      at > lastSuccess &&
      hasFailed &&
      !held.includes('AWSCURRENT')
      ? [at]
      : [];
  });

/** A success closes the breaker by itself; a trial that fails is one more failure, and the break doubles, up to a day. */
function breakerOf(failedAt: readonly number[], now: number): Breaker {
  const failures = failedAt.length;
  if (failures < breakerFailures) return { state: 'closed', failures };
  const breakMs = Math.min(breakerMs * 2 ** (failures - breakerFailures), longestBreakMs);
  const until = Math.max(...failedAt) + breakMs;
  return now < until
    ? { state: 'opened', failures, until: new Date(until) }
    : { state: 'half-open', failures };
}

interface Surroundings {
  readonly now: Date;
  readonly sha256: Sha256;
  readonly target: TargetState | undefined;
  /** A rotation of the target is started by this plan. */
  readonly isTaken: boolean;
  readonly isPaused: boolean;
  readonly budget: Budget;
}

function judgeRotation(
  life: Life,
  { now, sha256, target, isTaken, isPaused, budget }: Surroundings,
): DueVerdict {
  const { candidate, state, current, order, isFirst, isChanged, pendingSince, switchedAt, graceFrom } = life;
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

  if (isTaken) return hold('TARGET_BUSY');
  if (target?.busyUntil !== undefined) return hold('TARGET_BUSY', target.busyUntil);
  // Of a credential that cannot be read nobody knows whether it is being rotated; a revocation does not wait for that.
  if (target?.isWhole === false && because !== 'REVOKED') return hold('TARGET_BUSY');
  // One credential that can never be rotated takes no trial from its neighbours, otherwise they are never rotated either.
  const breaker = target?.failing.has(life) ? target.breaker : target?.breakerOfOthers;
  if (breaker?.state === 'opened' && because !== 'REVOKED')
    return hold('BREAKER_OPEN', breaker.until?.getTime());
  if (order === undefined && target !== undefined && nowMs < target.lastStart + spacingMs)
    return hold('SPACING', target.lastStart + spacingMs);
  const inMinutes = budget.next(spec);
  if (inMinutes >= plannedMinutes) return hold('BUDGET', nowMs + plannedMinutes * 60_000);
  if (nowMs + inMinutes * 60_000 >= closesAt)
    return hold('OUTSIDE_WINDOW', nextOpening(spec.rotation, new Date(closesAt))?.from.getTime());
  budget.take(spec);
  return { say: 'start', because, inMinutes };
}

const hold = (reason: HoldReason, until?: number): DueVerdict => ({
  say: 'hold',
  reason,
  ...(until === undefined ? {} : { until: new Date(until) }),
});

const oldestVersion = ({ versions }: Candidate): string | undefined =>
  versions.toSorted((a, b) => a.createdAt.getTime() - b.createdAt.getTime())[0]?.versionId;

interface Budget {
  /** The first minute from now in which one more rotation fits. */
  next(spec: CredentialSpec): number;
  take(spec: CredentialSpec): void;
}

/**
 * Half of what the vendor lets one API key write, shared out in whole minutes; the other half is for retirement, consumers and
 * whoever else has the key. What was started in the last minute counts, whoever started it.
 */
function createBudget(lives: readonly Life[], now: number): Budget {
  const used = new Map<string, number>();
  const paceOf = ({ definition }: CredentialSpec): { minutes: number; rotations: number } => {
    const { perMinute, perRotation } = definition.capabilities.writes;
    const rotations = Math.floor(perMinute / 2 / perRotation);
    return rotations >= 1
      ? { minutes: 1, rotations }
      : { minutes: Math.ceil((2 * perRotation) / perMinute), rotations: 1 };
  };
  for (const life of lives) {
    const { spec } = life.candidate;
    const since = now - paceOf(spec).minutes * 60_000;
    const recent = startsOf(life).filter((at) => at > since).length;
    used.set(spec.apiKeySecret, (used.get(spec.apiKeySecret) ?? 0) + recent);
  }
  return {
    next(spec) {
      const { minutes, rotations } = paceOf(spec);
      return Math.floor((used.get(spec.apiKeySecret) ?? 0) / rotations) * minutes;
    },
    take: ({ apiKeySecret }) => used.set(apiKeySecret, (used.get(apiKeySecret) ?? 0) + 1),
  };
}

/** The longest time over which rotations are spread: longer intervals gain nothing from more. */
const longestSpreadMs = 14 * 86_400_000;
const dayMs = 86_400_000;
const weekMs = 7 * dayMs;
/** Until a rotation that fails has been given up by reconcile-users. */
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
