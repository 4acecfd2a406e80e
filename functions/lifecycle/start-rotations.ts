import * as z from 'zod/mini';
import { resetStuckAfterMs } from '../core/drift.ts';
import {
  type Candidate,
  type DueVerdict,
  type HoldReason,
  openVersionOf,
  type Plan,
  type PlannedRotation,
  type PlannedTarget,
  planRotations,
} from '../core/due.ts';
import { RotationRefused, StoreError } from '../core/errors.ts';
import { credentialRequested, type Invocation, type RekeyEvent } from '../core/events.ts';
import type { Finding } from '../core/findings.ts';
import { type Credential, targetKey, targetsOf } from '../core/fleet.ts';
import { strayOf } from '../core/generations.ts';
import { type Fact, Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { secretName } from '../core/names.ts';
import { places } from '../core/notes.ts';
import { holderOf, openVersion, startedToken } from '../core/rotation.ts';
import { backstopDays, specDocument } from '../core/spec.ts';
import { announce } from './announce.ts';
import { type BrokenSpec, readFleet } from './fleet.ts';
import { notPaused, specUnchanged } from './guarded-write.ts';
import { inParallel } from './in-parallel.ts';
import { recallAll, rememberAll } from './notes.ts';
import { type NotedOrder, noteOrder, notePause, readPauses, withOrder } from './orders.ts';
import type { Rekey } from './rekey.ts';

/** What a pass did or, as a dry run, would do; names in the order in which they may start. */
export interface StartReport {
  readonly dryRun: boolean;
  readonly started: readonly StartedRotation[];
  /** Credentials whose user is to be adopted by create-user. */
  readonly adopting: readonly string[];
  readonly held: readonly HeldRotation[];
  readonly failed: readonly { readonly credential: string; readonly code: string }[];
  readonly broken: readonly BrokenSpec[];
  /** Those that are not closed. */
  readonly breakers: readonly {
    readonly provider: string;
    readonly target: string;
    readonly state: 'opened' | 'half-open';
    readonly failures: number;
    readonly until?: Date;
  }[];
}

export interface StartedRotation {
  readonly credential: string;
  readonly because: Extract<DueVerdict, { say: 'start' }>['because'];
  /** The version that is being made. */
  readonly versionId: string;
  readonly inMinutes: number;
}

export interface HeldRotation {
  readonly credential: string;
  /** `CHANGED` between plan and start, and `OUT_OF_TIME` in this invocation: the next pass sees. */
  readonly reason: HoldReason | 'CHANGED' | 'OUT_OF_TIME';
  readonly until?: Date;
}

type Taken = Extract<Invocation, { readonly is: 'pass' | 'order' | 'pause' }>;

/**
 * Starts the rotations that are due now, and those that were ordered. Everything is read from the world, so a pass that is lost,
 * cut short or made twice changes nothing but when. An order is durable before anything is done about it.
 *
 * A start that fails is reported and stops no other. Throws EVENT_INVALID for an order that is none for this function,
 * SPEC_MISSING for one that names no credential, and what the stores say when the fleet cannot be read.
 */
export async function startRotations(
  invocation: Taken,
  options: { readonly rotationFunctionArn: string },
  until: Date,
  rekey: Rekey,
): Promise<StartReport> {
  const { ports } = rekey;
  const dryRun = invocation.is === 'pass' && invocation.dryRun;
  if (invocation.is === 'pause') await notePause(invocation, rekey);
  const noted = invocation.is === 'order' ? await noteOrder(invocation, rekey) : undefined;
  const order = noted === 'ignored' ? undefined : noted;
  const pass: Pass = { ...options, until, dryRun, order, rekey };

  const lookUntil = Math.min((await ports.now()).getTime() + urgentWaitMs, until.getTime());
  let look = await lookAndStart(pass);
  const started = [...look.started];
  while (!dryRun && look.hasUrgentWaiting && (await ports.now()).getTime() + urgentLookMs < lookUntil) {
    await ports.sleep(urgentLookMs);
    look = await lookAndStart(pass);
    started.push(...look.started);
  }
  // Last, as what is started matters more than what is told: the next pass tells it, should this one end here.
  if (!dryRun) await tell(look, rekey);
  const report: StartReport = {
    dryRun,
    started,
    adopting: look.plan.rotations.flatMap(({ verdict, candidate }) =>
      verdict.say === 'adopt' ? [candidate.name] : [],
    ),
    // What an earlier look started is on its way now.
    held: look.held.filter(({ credential }) => !started.some((each) => each.credential === credential)),
    failed: look.failed,
    broken: look.broken,
    breakers: look.plan.targets.flatMap(
      ({ provider, target, breaker: { state, failures, until: trialAt } }) =>
        state === 'closed'
          ? []
          : [{ provider, target, state, failures, ...(trialAt === undefined ? {} : { until: trialAt }) }],
    ),
  };
  rekey.log('info', dryRun ? 'looked what is due' : 'looked what is due, and started it', {
    started: report.started.length,
    held: report.held.length,
    failed: report.failed.length,
  });
  return report;
}

/** An order waits that long for the rotation that is in its way; after that, the next pass carries it out. */
const urgentWaitMs = 4 * 60_000;
const urgentLookMs = 15_000;
/** Secrets Manager takes 50 RotateSecret a second of the whole account (AWS documentation); others want some. */
const startGapMs = 100;
const readingsAtOnce = 10;
/** What was planned for an instant is not done later than this after it: a window may have closed since. */
const planMs = 300_000;
/** A start takes a few calls; none begins that may not end in time. */
const startMs = 5_000;

interface Pass {
  readonly rotationFunctionArn: string;
  readonly until: Date;
  readonly dryRun: boolean;
  readonly order: NotedOrder | undefined;
  readonly rekey: Rekey;
}

// One look.

interface Look {
  readonly plan: Plan;
  readonly pauses: ReadonlyMap<string, Date>;
  readonly started: readonly StartedRotation[];
  readonly held: readonly HeldRotation[];
  readonly failed: readonly Failure[];
  readonly broken: readonly BrokenSpec[];
  readonly hasUrgentWaiting: boolean;
}

interface Failure {
  readonly credential: string;
  readonly code: string;
}

async function lookAndStart(pass: Pass): Promise<Look> {
  const { rekey, order, dryRun } = pass;
  const { ports } = rekey;
  const fleet = await readFleet(rekey);
  const unread: Failure[] = [];
  const candidates = await inParallel(fleet.credentials, readingsAtOnce, async (credential) => {
    const candidate = await readCandidate(withOrder(credential, order), unread, rekey);
    return !dryRun && (await takeStrayLabel(candidate, rekey))
      ? readCandidate(candidate, unread, rekey)
      : candidate;
  });
  const pauses = await readPauses(ports);
  const now = await ports.now();
  const plan = planRotations({ now, candidates, pauses }, rekey.sha256);
  if (!dryRun) await finishResets(candidates, now, rekey);

  const started: StartedRotation[] = [];
  const failed: Failure[] = [...unread];
  const held: HeldRotation[] = plan.rotations.flatMap(({ candidate: { name: credential }, verdict }) => {
    if (verdict.say !== 'hold') return [];
    const { say: _say, ...why } = verdict;
    return [{ credential, ...why }];
  });
  const starts = plan.rotations
    .flatMap(({ candidate, verdict }) => (verdict.say === 'start' ? [{ candidate, ...verdict }] : []))
    .toSorted((a, b) => a.inMinutes - b.inMinutes);
  for (const { candidate, because, inMinutes } of starts) {
    const credential = candidate.name;
    const outcome: Outcome = dryRun
      ? { versionId: tokenOf(candidate, rekey) }
      : await startAt(new Date(now.getTime() + inMinutes * 60_000), candidate, plan, pass);
    if ('versionId' in outcome)
      started.push({ credential, because, versionId: outcome.versionId, inMinutes });
    else if ('reason' in outcome) held.push({ credential, ...outcome });
    else failed.push({ credential, ...outcome });
  }
  const waiting = new Set(
    held.flatMap(({ credential, reason }) => (reason === 'TARGET_BUSY' ? [credential] : [])),
  );
  return {
    plan,
    pauses,
    started,
    held,
    failed,
    broken: fleet.broken,
    hasUrgentWaiting: plan.rotations.some(
      ({ isUrgent, candidate }) => isUrgent && waiting.has(candidate.name),
    ),
  };
}

async function readCandidate(credential: Credential, unread: Failure[], rekey: Rekey): Promise<Candidate> {
  const { ports } = rekey;
  try {
    const secret = await ports.describeSecret({ secretId: secretName(credential.name) });
    if (secret === 'absent') return { ...credential, secret, versions: [] };
    const versions = await ports.listVersions({ secretId: secret.arn });
    // Gone between the two calls.
    if (versions === 'absent') return { ...credential, secret: 'absent', versions: [] };
    return { ...credential, secret, versions };
  } catch (error) {
    unread.push(failureOf(credential.name, error, rekey));
    return { ...credential, secret: 'unreadable', versions: [] };
  }
}

/**
 * Takes AWSPENDING off a version that must never be published, such as one that was revoked while it was made: no rotation could
 * start while it is there. Answers whether there was one.
 */
async function takeStrayLabel(candidate: Candidate, { ports, log }: Rekey): Promise<boolean> {
  const { name, secret, versions, directives, spec } = candidate;
  if (typeof secret === 'string') return false;
  const state = { secret, versions, directives };
  const stray = strayOf(state);
  if (stray === undefined) return false;
  const { versionId, because } = stray;
  const isStillStray: Fact = async () => {
    const now = await ports.describeSecret({ secretId: secret.arn });
    return now !== 'absent' && strayOf({ ...state, secret: now })?.versionId === versionId
      ? undefined
      : `AWSPENDING has left ${versionId}`;
  };
  try {
    const label = { secretId: secret.arn, label: 'AWSPENDING', from: versionId } as const;
    await ports.moveLabel({ ...label, guard: Guard.of(isStillStray) });
  } catch (error) {
    if (!(error instanceof RotationRefused || error instanceof StoreError)) throw error;
    log('warn', 'AWSPENDING could not be taken off', { credential: name, versionId, code: error.code });
    return false;
  }
  const finding: Finding = {
    kind: 'PendingStray',
    provider: spec.provider,
    target: spec.targetId,
    credential: name,
    details: `AWSPENDING was on version ${versionId}, but ${because}; the label was taken off`,
    remedy:
      'nothing, if the credential was reported as compromised meanwhile; otherwise find out who put it there',
  };
  log('warn', 'AWSPENDING was taken off a version that must never be published', { ...finding });
  await ports.publish([{ type: 'DriftFound', detail: finding }]);
  return true;
}

/**
 * Under reset-password, applications are refused from setSecret to finishSecret, and a rotation that replaces a compromised login may
 * have stored none. If the retries of Secrets Manager did not end it, reconcile-users is asked to do so now instead of in its next pass.
 * The strategy of the rotation is in the values, which this function cannot read; the spec may name another one since.
 */
async function finishResets(candidates: readonly Candidate[], now: Date, { ports }: Rekey): Promise<void> {
  const open = candidates.filter((candidate) => {
    const pending = openVersionOf(candidate);
    const since = candidate.versions.find(({ versionId }) => versionId === pending)?.createdAt;
    return since !== undefined && now.getTime() - since.getTime() > resetStuckAfterMs;
  });
  const targets = targetsOf(open);
  if (targets.length > 0)
    await ports.enqueue(targets.map(({ provider, targetId }) => ({ provider, targetId })));
}

type Outcome =
  | { readonly versionId: string }
  | { readonly reason: HeldRotation['reason'] }
  | { readonly code: string };

/** Starts one rotation of the plan at its time, if what the plan was made of still holds then. */
async function startAt(
  at: Date,
  candidate: Candidate,
  plan: Plan,
  { rekey, until, rotationFunctionArn }: Pass,
): Promise<Outcome> {
  const { ports } = rekey;
  const { secret, spec } = candidate;
  if (typeof secret === 'string') return { reason: 'DELETED' };
  try {
    const now = await ports.now();
    const waitMs = Math.max(0, at.getTime() - now.getTime());
    if (now.getTime() + waitMs + startMs >= until.getTime()) return { reason: 'OUT_OF_TIME' };
    await ports.sleep(waitMs > 0 ? waitMs : startGapMs);

    // Labels may have moved since the plan: by Secrets Manager's own schedule, by another pass, by hand.
    const neighbours = plan.rotations
      .map((rotation) => rotation.candidate)
      .filter((other) => keyOf(other) === keyOf(candidate));
    let reason: 'CHANGED' | 'TARGET_BUSY' | undefined;
    const isAsPlanned: Fact = async () => {
      const late = (await ports.now()).getTime() - at.getTime() > planMs;
      const changed = await inParallel(neighbours, readingsAtOnce, hasChanged);
      reason = late ? 'CHANGED' : changed.find((each) => each !== undefined);
      return reason;
    };
    const hasChanged = async (other: Candidate): Promise<typeof reason> => {
      if (typeof other.secret === 'string') return undefined;
      const fresh = await ports.describeSecret({ secretId: other.secret.arn });
      if (fresh === 'absent') return other === candidate ? 'CHANGED' : undefined;
      const pending = openVersion(fresh);
      if (pending !== undefined && pending !== openVersionOf(other)) return 'TARGET_BUSY';
      const isSame =
        fresh.rotationEnabled &&
        fresh.deletedAt === undefined &&
        // Whatever changed: AWSCURRENT may have been moved away and back, and the grace begins anew.
        fresh.changedAt?.getTime() === secret.changedAt?.getTime() &&
        holderOf(fresh.labelsByVersion, 'AWSCURRENT') === holderOf(secret.labelsByVersion, 'AWSCURRENT');
      return other !== candidate || isSame ? undefined : 'CHANGED';
    };
    const guard = Guard.of(isAsPlanned, specUnchanged(spec, rekey), notPaused(spec, rekey));
    const versionId = tokenOf(candidate, rekey);
    const answer = await ports
      .startRotation({
        secretId: secret.arn,
        token: versionId,
        functionArn: rotationFunctionArn,
        everyDays: backstopDays(spec),
        immediately: true,
        guard,
      })
      .catch((error: unknown) => {
        if (!(error instanceof RotationRefused)) throw error;
        return error.code === 'PAUSED' ? ('PAUSED' as const) : (reason ?? ('CHANGED' as const));
      });
    if (answer === 'PAUSED' || answer === 'CHANGED' || answer === 'TARGET_BUSY') return { reason: answer };
    if (answer === 'in-progress') return { reason: 'TARGET_BUSY' };
    rekey.log('info', 'a rotation was started', { credential: candidate.name, versionId });
    return { versionId };
  } catch (error) {
    rekey.measure('RotationsFailed', 1);
    return { code: failureOf(candidate.name, error, rekey).code };
  }
}

const keyOf = ({ spec }: Credential): string => targetKey(spec.provider, spec.targetId);

/**
 * The same while nothing has changed, so that a pass made twice asks for one rotation; another after a rotation that came to
 * nothing, as its version is used up, and after whatever reconcile did about it.
 */
function tokenOf({ secret, versions }: Candidate, { sha256 }: Rekey): string {
  if (typeof secret === 'string') return '';
  const current = holderOf(secret.labelsByVersion, 'AWSCURRENT');
  const known = versions.map(({ versionId }) => versionId).toSorted();
  const digest = sha256(
    JSON.stringify(['rotation', secret.arn, current ?? '', known, secret.changedAt?.toISOString() ?? '']),
  );
  return startedToken(current, digest, sha256);
}

function failureOf(credential: string, error: unknown, { log }: Rekey): Failure {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'DEFECT';
  log('error', error instanceof Error ? error.message : String(error), { credential, code });
  return { credential, code };
}

// What is told.

/** Metrics, adoptions, breakers and findings of the last look. */
async function tell({ plan, pauses }: Pick<Look, 'plan' | 'pauses'>, rekey: Rekey): Promise<void> {
  const { ports, measure } = rekey;
  const now = await ports.now();
  const pausedMs = [...pauses.values()].map((since) => now.getTime() - since.getTime());
  measure('PausedAge', Math.max(0, ...pausedMs) / 1000);
  const overdueMs = plan.rotations.map(({ deadline }) =>
    deadline === undefined ? 0 : now.getTime() - deadline.getTime(),
  );
  measure('RotationOverdueAge', Math.max(0, ...overdueMs) / 1000);
  measure('BreakersOpen', plan.targets.filter(({ breaker }) => breaker.state !== 'closed').length);

  const requests = plan.rotations.flatMap(({ verdict, candidate: { spec } }): RekeyEvent[] =>
    verdict.say === 'adopt'
      ? [
          {
            type: credentialRequested,
            detail: { spec: documentSchema.parse(jsonOf(specDocument(spec))) },
          },
        ]
      : [],
  );
  if (requests.length > 0) await ports.publish(requests);
  await tellBreakers(plan.targets, rekey);
  // What is left out counts as mended, and what could not be read is not: then only the metrics tell, until all is known again.
  if (plan.targets.every(({ isWhole }) => isWhole))
    await announce(
      { scope: 'schedule', place: 'fleet' },
      [
        ...pausesWithoutTarget(pauses, plan.targets),
        ...plan.rotations.flatMap((rotation) => findingsOf(rotation, now)),
      ],
      rekey,
    );
}

const documentSchema = z.record(z.string(), z.unknown());

const notedSchema = z.enum(['opened', 'half-open']);

/**
 * One note for each breaker that is not closed, so that an outage of a vendor with a thousand targets fits. Published first, noted
 * afterwards: a crash between the two says something twice, never not at all.
 */
async function tellBreakers(targets: readonly PlannedTarget[], rekey: Rekey): Promise<void> {
  const { notes: noted } = await recallAll(places.breakers, rekey);
  const seen = targets.map(({ provider, target, breaker, isWhole }) => {
    const key = targetKey(provider, target);
    const before = notedSchema.safeParse(noted.get(key)?.document).data ?? 'closed';
    // What could not be read may be what failed: the state stays until all of it is known.
    const state = isWhole ? breaker.state : before;
    return { provider, target, key, before, state, failures: breaker.failures };
  });
  const events = seen.flatMap(({ provider, target, before, failures, state }): RekeyEvent[] =>
    state === before ? [] : [{ type: 'BreakerChanged', detail: { provider, target, state, failures } }],
  );
  if (events.length > 0) await rekey.ports.publish(events);
  const open = new Map(
    seen.flatMap(({ key, state }): [string, string][] => (state === 'closed' ? [] : [[key, state]])),
  );
  await rememberAll(places.breakers, open, noted, rekey);
}

/** A pause of a target that no spec names stops nothing: whoever ordered it may have mistyped, and believe that writes are paused. */
function pausesWithoutTarget(
  pauses: ReadonlyMap<string, Date>,
  targets: readonly PlannedTarget[],
): readonly Finding[] {
  const keys = new Set(targets.map(({ provider, target }) => targetKey(provider, target)));
  return [...pauses].flatMap(([key, since]): readonly Finding[] => {
    const [provider = '', target = ''] = key.split('/');
    if (key === 'all' || keys.has(key)) return [];
    const named = targets.filter((other) => other.provider === provider).map((other) => other.target);
    return [
      {
        kind: 'PauseWithoutTarget',
        provider,
        target,
        details: `writes on it are paused since ${since.toISOString()}, but no spec names it; specs of ${provider} name ${named.length === 0 ? 'no target' : named.toSorted().slice(0, 20).join(', ')}`,
        remedy:
          'send RekeyPaused with the right target, or without one for every target, and RekeyResumed for this one',
      },
    ];
  });
}

function findingsOf(
  { candidate, verdict, deadline, isUrgent }: PlannedRotation,
  now: Date,
): readonly Finding[] {
  const { name: credential, spec } = candidate;
  const about = { provider: spec.provider, target: spec.targetId, credential };
  const overdue: readonly Finding[] =
    deadline === undefined || now <= deadline
      ? []
      : [
          {
            ...about,
            kind: 'RotationOverdue',
            details: `it was to be rotated by ${deadline.toISOString()}`,
            remedy:
              'invoke start-rotations with {"pass": "scheduled", "dryRun": true}: it says what holds it',
          },
        ];
  const disabled: readonly Finding[] =
    verdict.say === 'hold' && verdict.reason === 'ROTATION_DISABLED'
      ? [
          {
            ...about,
            kind: 'RotationDisabled',
            details: `rotation of ${secretName(credential)} is switched off`,
            remedy: `switch it on with RotateSecret of ${secretName(credential)}, or request the deletion of the credential`,
          },
        ]
      : [];
  const isWaiting =
    verdict.say === 'hold' && verdict.reason === 'PAUSED' && candidate.directives.revokeBefore;
  const waiting: readonly Finding[] =
    isUrgent && isWaiting
      ? [
          {
            ...about,
            kind: 'RevocationWaiting',
            details: 'it was reported as compromised, and writes on its target are paused',
            remedy: 'send RekeyResumed: the leaked login works until it is rotated',
          },
        ]
      : [];
  return [...overdue, ...disabled, ...waiting];
}
