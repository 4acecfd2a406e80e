import * as z from 'zod/mini';
import {
  type Candidate,
  isEnding,
  type Plan,
  type PlannedRotation,
  type PlannedTarget,
  planRotations,
  type Quarantine,
  quarantineFindings,
} from '../core/due.ts';
import { credentialRequested, type Invocation, type RekeyEvent } from '../core/events.ts';
import type { Finding, FindingKind } from '../core/findings.ts';
import { targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { hasChanged, listedCandidate, namesToRead } from '../core/listed-candidates.ts';
import { secretName, secretPrefix } from '../core/names.ts';
import { places } from '../core/notes.ts';
import { specDocument } from '../core/spec.ts';
import { announce } from './announce.ts';
import { type BrokenSpec, readFleet } from './fleet.ts';
import { listMemberNotes, noteMembers } from './members.ts';
import { recallAll, rememberAll } from './notes.ts';
import { readPauses } from './orders.ts';
import type { Rekey } from './rekey.ts';
import {
  type FailedRotation,
  type HeldRotation,
  readCandidates,
  type StartedRotation,
  startDue,
} from './start-due.ts';

/** What a pass did or, as a dry run, would do; names in the order in which they may start. */
export interface StartReport {
  readonly dryRun: boolean;
  readonly started: readonly StartedRotation[];
  /** Credentials whose user is to be adopted by create-user. */
  readonly adopting: readonly string[];
  readonly held: readonly HeldRotation[];
  readonly failed: readonly FailedRotation[];
  readonly broken: readonly BrokenSpec[];
  /** Those that are not closed. */
  readonly breakers: readonly {
    readonly provider: string;
    readonly target: string;
    readonly state: 'opened' | 'half-open';
    readonly failures: number;
    readonly until?: Date;
  }[];
  /** Credentials whose own rotations keep failing. */
  readonly quarantined: readonly (Quarantine & { readonly credential: string })[];
}

/**
 * Starts the rotations that are due now, and those that were ordered and are not started yet. Everything is read from the world, so a
 * pass that is lost, cut short or made twice changes nothing but when. The cost grows with pages: the specs, the orders and the list of
 * secrets. Only the secrets of credentials that are due or in an odd state are described.
 *
 * A start that fails is reported and stops no other. Throws what the stores say when the fleet cannot be read.
 */
export async function startRotations(
  { dryRun }: Extract<Invocation, { readonly is: 'pass' }>,
  options: { readonly rotationFunctionArn: string },
  until: Date,
  rekey: Rekey,
): Promise<StartReport> {
  const { ports } = rekey;
  const run = { ...options, until, dryRun, rekey };
  const unread: FailedRotation[] = [];
  const notesBefore = dryRun ? undefined : await listMemberNotes(rekey);
  const [fleet, listed, pauses] = await Promise.all([
    readFleet(rekey),
    ports.listSecrets({ namePrefix: secretPrefix }),
    readPauses(ports),
  ]);
  const secrets = new Map(listed.map((secret) => [secret.name, secret]));
  const seen = fleet.credentials.map((credential) =>
    listedCandidate(credential, secrets.get(secretName(credential.name))),
  );
  const now = await ports.now();
  const toRead = namesToRead(planRotations({ now, candidates: seen, pauses }, rekey.sha256).rotations);
  const read = await readCandidates(
    fleet.credentials.filter(({ name }) => toRead.has(name)),
    unread,
    run,
  );
  const byName = new Map(read.map((candidate) => [candidate.name, candidate]));
  const candidates = seen.map((candidate) => byName.get(candidate.name) ?? candidate);
  const { plan, started, held, failed } = await startDue(candidates, run);
  const unlooked = candidates.filter((candidate) => !toRead.has(candidate.name) && hasChanged(candidate));
  const targetsUnlooked = new Set(unlooked.map(({ spec }) => targetKey(spec.provider, spec.targetId)));
  const targets = plan.targets.map((target) => ({
    ...target,
    isWhole: target.isWhole && !targetsUnlooked.has(targetKey(target.provider, target.target)),
  }));
  // Last, as what is started matters more than what is told: the next pass tells it, should this one end here.
  if (!dryRun) {
    await tell({ plan: { ...plan, targets }, pauses, unlooked }, rekey);
    await noteMembers(fleet, notesBefore, rekey);
  }
  const report: StartReport = {
    dryRun,
    started,
    adopting: plan.rotations.flatMap(({ verdict, candidate }) =>
      verdict.say === 'adopt' ? [candidate.name] : [],
    ),
    held,
    failed: [...unread, ...failed],
    broken: fleet.broken,
    breakers: plan.targets.flatMap(({ provider, target, breaker: { state, failures, until: trialAt } }) =>
      state === 'closed'
        ? []
        : [{ provider, target, state, failures, ...(trialAt === undefined ? {} : { until: trialAt }) }],
    ),
    quarantined: plan.rotations.flatMap(({ candidate, quarantine }) =>
      quarantine === undefined ? [] : [{ credential: candidate.name, ...quarantine }],
    ),
  };
  rekey.log('info', dryRun ? 'looked what is due' : 'looked what is due, and started it', {
    started: report.started.length,
    held: report.held.length,
    failed: report.failed.length,
  });
  return report;
}

// What is told.

/** Metrics, adoptions, breakers and findings of the last look. */
async function tell(
  {
    plan,
    pauses,
    unlooked,
  }: {
    readonly plan: Plan;
    readonly pauses: ReadonlyMap<string, Date>;
    /** They have changed since their rotation and were not read: their rotations may have failed. */
    readonly unlooked: readonly Candidate[];
  },
  rekey: Rekey,
): Promise<void> {
  const { ports, measure } = rekey;
  const now = await ports.now();
  const pausedMs = [...pauses.values()].map((since) => now.getTime() - since.getTime());
  measure('PausedAge', Math.max(0, ...pausedMs) / 1000);
  const overdueMs = plan.rotations.map(({ deadline }) =>
    deadline === undefined ? 0 : now.getTime() - deadline.getTime(),
  );
  measure('RotationOverdueAge', Math.max(0, ...overdueMs) / 1000);

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
  measure('BreakersOpen', await tellBreakers(plan.targets, rekey));
  // Loaded late so that starts are not delayed.
  const { capacityFindings } = await import('../core/capacity.ts');
  await announce(
    {
      scope: 'schedule',
      place: 'fleet',
      unknown: [
        ...plan.rotations.flatMap(({ candidate }) =>
          candidate.secret === 'unreadable' ? credentialFindings.map((kind) => aboutOf(candidate, kind)) : [],
        ),
        // A pass does not read the versions of a credential that waits for its window, its grace or the end of a pause.
        ...unlooked.map((candidate) => aboutOf(candidate, 'RotationQuarantined')),
      ],
    },
    [
      ...pausesWithoutTarget(pauses, plan.targets),
      ...plan.rotations.flatMap((rotation) => findingsOf(rotation, now)),
      ...capacityFindings(
        plan.rotations.flatMap(({ verdict, candidate: { spec } }) => (isEnding(verdict) ? [] : [spec])),
      ),
    ],
    rekey,
  );
}

const documentSchema = z.record(z.string(), z.unknown());

const notedSchema = z.enum(['opened', 'half-open']);

/**
 * One note for each breaker that is not closed, so that an outage of a vendor with a thousand targets fits. Published first, noted
 * afterwards: a crash between the two says something twice, never not at all. Answers how many are not closed.
 */
async function tellBreakers(targets: readonly PlannedTarget[], rekey: Rekey): Promise<number> {
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
  return open.size;
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

/** The kinds that `findingsOf` returns. */
const credentialFindings = [
  'RotationOverdue',
  'RotationQuarantined',
  'RotationDisabled',
  'RevocationWaiting',
] as const;

const aboutOf = <Kind extends FindingKind>({ name, spec }: Candidate, kind: Kind) => ({
  kind,
  provider: spec.provider,
  target: spec.targetId,
  credential: name,
});

function findingsOf(rotation: PlannedRotation, now: Date): readonly Finding[] {
  const { candidate, verdict, deadline, isUrgent } = rotation;
  const { name: credential } = candidate;
  const overdue: readonly Finding[] =
    deadline === undefined || now <= deadline
      ? []
      : [
          {
            ...aboutOf(candidate, 'RotationOverdue'),
            details: `it was to be rotated by ${deadline.toISOString()}`,
            remedy:
              'invoke start-rotations with {"pass": "scheduled", "dryRun": true}: it says what holds it',
          },
        ];
  const disabled: readonly Finding[] =
    verdict.say === 'hold' && verdict.reason === 'ROTATION_DISABLED'
      ? [
          {
            ...aboutOf(candidate, 'RotationDisabled'),
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
            ...aboutOf(candidate, 'RevocationWaiting'),
            details: 'it was reported as compromised, and writes on its target are paused',
            remedy: 'send RekeyResumed: the leaked login works until it is rotated',
          },
        ]
      : [];
  return [...overdue, ...quarantineFindings(rotation), ...disabled, ...waiting];
}
