import { resetStuckAfterMs } from '../core/drift.ts';
import {
  type Candidate,
  type DueVerdict,
  type HoldReason,
  openVersionOf,
  type Plan,
  planRotations,
} from '../core/due.ts';
import { RotationRefused, StoreError } from '../core/errors.ts';
import type { Finding } from '../core/findings.ts';
import { type Credential, targetKey, targetsOf } from '../core/fleet.ts';
import { strayOf } from '../core/generations.ts';
import { type Fact, Guard } from '../core/guard.ts';
import { secretName } from '../core/names.ts';
import { holderOf, openVersion, startedToken } from '../core/rotation.ts';
import { backstopDays } from '../core/spec.ts';
import { specUnchangedAndNotPaused } from './guarded-write.ts';
import { inParallel } from './in-parallel.ts';
import { readPauses } from './orders.ts';
import { takeTurn } from './pace.ts';
import { paced } from './paced.ts';
import type { Rekey } from './rekey.ts';

/** Starting the rotations of some credentials, whoever chose them: a pass over the fleet, or the queue of orders. */

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

export interface FailedRotation {
  readonly credential: string;
  readonly code: string;
}

export interface StartRun {
  readonly rotationFunctionArn: string;
  /** So many invocations at most do the same at one time, and share the quotas of the account. @default 1 */
  readonly workers?: number;
  readonly until: Date;
  readonly dryRun: boolean;
  readonly rekey: Rekey;
}

export interface Started {
  readonly plan: Plan;
  readonly started: readonly StartedRotation[];
  readonly held: readonly HeldRotation[];
  readonly failed: readonly FailedRotation[];
}

/** Secrets Manager takes 50 RotateSecret a second of the whole account (AWS documentation); others want some. */
const startGapMs = 100;
const readingsAtOnce = 10;
/** Of 50 ListSecretVersionIds a second of the whole account: others want some. */
const readingsPerSecond = 40;
/** What was planned for an instant is not done later than this after it: a window may have closed since. */
const planMs = 300_000;
/** A start takes a few calls; none begins that may not end in time. */
const startMs = 5_000;

/**
 * Describes the secrets of these credentials and lists their versions, and takes AWSPENDING off versions that must never be published.
 * A secret that cannot be read is `unreadable`, and in `failed`.
 */
export async function readCandidates(
  credentials: readonly Credential[],
  failed: FailedRotation[],
  { rekey, dryRun, workers = 1 }: Pick<StartRun, 'rekey' | 'dryRun' | 'workers'>,
): Promise<readonly Candidate[]> {
  const read = paced(readingsPerSecond / workers, rekey.ports, (credential: Credential) =>
    readCandidate(credential, failed, rekey),
  );
  return inParallel(credentials, readingsAtOnce, async (credential) => {
    const candidate = await read(credential);
    return !dryRun && (await takeStrayLabel(candidate, rekey)) ? read(credential) : candidate;
  });
}

async function readCandidate(
  credential: Credential,
  unread: FailedRotation[],
  rekey: Rekey,
): Promise<Candidate> {
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

/** Starts what the plan of these candidates says is to be started now. A start that fails is reported and stops no other. */
export async function startDue(candidates: readonly Candidate[], run: StartRun): Promise<Started> {
  const { rekey, dryRun } = run;
  const { ports } = rekey;
  const pauses = await readPauses(ports);
  const now = await ports.now();
  const plan = planRotations({ now, candidates, pauses }, rekey.sha256);
  if (!dryRun) await finishResets(candidates, now, rekey);

  const started: StartedRotation[] = [];
  const failed: FailedRotation[] = [];
  const held: HeldRotation[] = plan.rotations.flatMap(({ candidate: { name: credential }, verdict }) => {
    if (verdict.say !== 'hold') return [];
    const { say: _say, ...why } = verdict;
    return [{ credential, ...why }];
  });
  const starts = plan.rotations
    .flatMap(({ candidate, verdict }) => (verdict.say === 'start' ? [{ candidate, ...verdict }] : []))
    .toSorted((a, b) => a.inMinutes - b.inMinutes);
  const byTarget = Map.groupBy(plan.rotations, ({ candidate }) => keyOf(candidate));
  for (const { candidate, because, inMinutes } of starts) {
    const credential = candidate.name;
    const at = new Date(now.getTime() + inMinutes * 60_000);
    const neighbours = (byTarget.get(keyOf(candidate)) ?? []).map((rotation) => rotation.candidate);
    const outcome: Outcome = dryRun
      ? { versionId: tokenOf(candidate, rekey) }
      : await startAt(at, candidate, neighbours, run);
    if ('versionId' in outcome)
      started.push({ credential, because, versionId: outcome.versionId, inMinutes });
    else if ('reason' in outcome) held.push({ credential, ...outcome });
    else failed.push({ credential, ...outcome });
  }
  return { plan, started, held, failed };
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
    await ports.enqueue(targets.map(({ provider, targetId }) => ({ provider, targetId, urgent: true })));
}

type Outcome =
  | { readonly versionId: string }
  | { readonly reason: HeldRotation['reason'] }
  | { readonly code: string };

/** Starts one rotation of the plan at its time, if what the plan was made of still holds then. */
async function startAt(
  at: Date,
  candidate: Candidate,
  neighbours: readonly Candidate[],
  { rekey, until, rotationFunctionArn, workers = 1 }: StartRun,
): Promise<Outcome> {
  const { ports } = rekey;
  const { secret, spec } = candidate;
  if (typeof secret === 'string') return { reason: 'DELETED' };
  try {
    const now = await ports.now();
    const waitMs = Math.max(0, at.getTime() - now.getTime());
    if (now.getTime() + waitMs + startMs >= until.getTime()) return { reason: 'OUT_OF_TIME' };
    await ports.sleep(waitMs > 0 ? waitMs : startGapMs * Math.ceil(workers / 4));
    const versionId = tokenOf(candidate, rekey);
    if (!(await takeTurn(spec, versionId, rekey))) return { reason: 'BUDGET' };

    // Labels may have moved since the plan: by Secrets Manager's own schedule, by another pass, by hand.
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
      // A neighbour that this plan has started, where the vendor allows several at a time, is in nobody's way.
      const isPlanned = pending === openVersionOf(other) || pending === tokenOf(other, rekey);
      if (pending !== undefined && !isPlanned) return 'TARGET_BUSY';
      const isSame =
        fresh.rotationEnabled &&
        fresh.deletedAt === undefined &&
        // Whatever changed: AWSCURRENT may have been moved away and back, and the grace begins anew.
        fresh.changedAt?.getTime() === secret.changedAt?.getTime() &&
        holderOf(fresh.labelsByVersion, 'AWSCURRENT') === holderOf(secret.labelsByVersion, 'AWSCURRENT');
      return other !== candidate || isSame ? undefined : 'CHANGED';
    };
    const guard = Guard.of(isAsPlanned, specUnchangedAndNotPaused(spec, rekey));
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

export function failureOf(credential: string, error: unknown, { log }: Rekey): FailedRotation {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'DEFECT';
  log('error', error instanceof Error ? error.message : String(error), { credential, code });
  return { credential, code };
}
