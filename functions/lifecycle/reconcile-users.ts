import type { ConsumerStanding } from '../core/consumer.ts';
import type { DirectiveKind } from '../core/directives.ts';
import { consumerDetails, fleetFindings, targetFindings, targetMoved } from '../core/drift.ts';
import { InputError, RotationRefused, StoreError, VerificationFailed } from '../core/errors.ts';
import type { Invocation, RekeyEvent } from '../core/events.ts';
import type { Finding, Repair } from '../core/findings.ts';
import {
  type Credential,
  type FormerTarget,
  isFormer,
  parseTargetTask,
  storedSpec,
  type Target,
  type TargetTask,
  targetKey,
} from '../core/fleet.ts';
import { hasSwitched, lastSwitch } from '../core/generations.ts';
import { Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { credentialNameOf, secretName, secretPrefix, specParameterName } from '../core/names.ts';
import { holderOf } from '../core/rotation.ts';
import { announce } from './announce.ts';
import { type Fleet, readFleet } from './fleet.ts';
import { everyTarget, keepFormerTargets, onceEach } from './former-targets.ts';
import { currentUnchanged, labelsUnchanged, notPaused, specUnchanged } from './guarded-write.ts';
import { inParallel } from './in-parallel.ts';
import { isDoneSince, lastLooks, noteLook, wasSeenLately, youngestMembers } from './looks.ts';
import { listMemberNotes, membersOf, noteMembers, type ReadTarget, readTarget, targetIn } from './members.ts';
import { keepDirective, pausedSince } from './orders.ts';
import type { Rekey } from './rekey.ts';
import { type Causes, lastSeen, tellSightings } from './sightings.ts';
import { changeOf, endStuckRotation, isExpected } from './stuck-rotation.ts';
import { type Reading, type Survey, surveyTarget } from './survey-target.ts';
import { watchersOf, watchWebhook } from './watch-webhooks.ts';

export interface Settings {
  /** What our webhooks point to, but for the name of the endpoint. */
  readonly webhookBaseUrl: string;
}

export interface Reconciled {
  /** The messages that are to come again, as Lambda wants to be told. */
  readonly batchItemFailures: readonly { readonly itemIdentifier: string }[];
}

/**
 * A pass puts one task a target into the queue, and reports what is wrong among the specs. A batch of tasks looks at each target
 * once, publishes what it finds and was not published before and who came and went, and mends what it may. Each target fails
 * alone, and each repair.
 */
export async function reconcileUsers(
  invocation: Extract<Invocation, { readonly is: 'pass' | 'messages' }>,
  settings: Settings,
  until: Date,
  rekey: Rekey,
): Promise<Reconciled> {
  if (invocation.is === 'messages') return work(invocation.messages, settings, until, rekey);
  if (!invocation.dryRun) await dispatch(rekey);
  return { batchItemFailures: [] };
}

// Dispatcher.

async function dispatch(rekey: Rekey): Promise<void> {
  const { ports, measure, log } = rekey;
  const notesBefore = await listMemberNotes(rekey);
  const fleet = await readFleet(rekey);
  const targets = await everyTarget(fleet.credentials, rekey);
  // First, as a bus that fails must not keep the targets from being looked at.
  const tasks = await tasksOf(targets, fleet, rekey);
  if (tasks.length > 0) await ports.enqueue(tasks);
  await noteMembers(fleet, notesBefore, rekey);
  const findings = fleetFindings({ ...fleet, withoutSpec: await secretsWithoutSpec(fleet, rekey) });
  await announce({ scope: 'reconcile', place: 'fleet' }, findings, rekey);
  measure('OpenFindings', findings.length);
  log('info', 'the targets were queued', { targets: tasks.length, findings: findings.length });
}

/** A message with more names than fit is sent without them; its worker looks them up. */
const maxMembersCharacters = 20_000;

/**
 * One task for each target that was not looked at for a while, so that looks never pile up in the queue. Each says what only the fleet
 * tells of its target: no worker reads the fleet again.
 */
async function tasksOf(
  targets: readonly Target[],
  { broken }: Fleet,
  rekey: Rekey,
): Promise<readonly TargetTask[]> {
  const now = await rekey.ports.now();
  const looks = await lastLooks(rekey);
  const watchers = watchersOf(targets);
  return targets.flatMap((target): readonly TargetTask[] => {
    const { provider, targetId } = target;
    if (wasSeenLately(looks.get(targetKey(provider, targetId)), now)) return [];
    const members = membersOf(target, broken);
    const watched = watchers.get(target) ?? [];
    return [
      {
        provider,
        targetId,
        queuedAt: now.toISOString(),
        watched,
        ...(JSON.stringify(members).length > maxMembersCharacters ? {} : { members }),
      },
    ];
  });
}

/** ListSecrets lags behind by minutes (AWS documentation): what it says is confirmed by asking for the one secret. */
async function secretsWithoutSpec(
  { credentials, broken }: Fleet,
  { ports }: Rekey,
): Promise<readonly string[]> {
  const wanted = new Set([...credentials, ...broken].map(({ name }) => name));
  const listed = await ports.listSecrets({ namePrefix: secretPrefix });
  const names = listed.flatMap(({ name, isManaged }) => (isManaged ? [] : (credentialNameOf(name) ?? [])));
  const confirmed = await inParallel(
    names.filter((name) => !wanted.has(name)),
    targetsAtOnce,
    async (name) => {
      const secret = await ports.describeSecret({ secretId: secretName(name) });
      // The end of a deletion: the spec goes after the secret was scheduled.
      if (secret === 'absent' || secret.deletedAt !== undefined) return [];
      return (await ports.readParameter({ parameter: specParameterName(name) })) === 'absent' ? [name] : [];
    },
  );
  return confirmed.flat().toSorted();
}

// Worker.

/** Of one batch. */
export const targetsAtOnce = 4;
/** A target that is begun later than this before the end could not be looked at and mended in time. */
const leastTimeMs = 60_000;
/** The same of one repair: it may be a whole rotation. */
const leastRepairMs = 30_000;

interface Message {
  readonly id: string;
  readonly task: TargetTask;
}

async function work(
  messages: Extract<Invocation, { readonly is: 'messages' }>['messages'],
  settings: Settings,
  until: Date,
  rekey: Rekey,
): Promise<Reconciled> {
  const { log } = rekey;
  const read = messages.flatMap(({ id, body }): readonly Message[] => {
    try {
      return [{ id, task: parseTargetTask(jsonOf(body)) }];
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      // It would never get better: the dispatcher sends a good one with the next pass.
      log('error', error.message, { messageId: id });
      return [];
    }
  });
  if (read.length === 0) return { batchItemFailures: [] };
  // A queue delivers at least once: two messages about one target would only find each other's work.
  const groups = [...Map.groupBy(read, ({ task }) => targetKey(task.provider, task.targetId)).values()];
  const failed = await inParallel(groups, targetsAtOnce, async (same): Promise<readonly Message[]> => {
    const task = same[0]?.task;
    if (task === undefined) return [];
    const facts = { provider: task.provider, target: task.targetId };
    if ((await timeLeft(until, rekey)) < leastTimeMs) {
      log('warn', 'there was no time left for a target', facts);
      return same;
    }
    try {
      const tasks = same.map((message) => message.task);
      if (await isDoneSince(tasks, rekey)) return [];
      const startedAt = await rekey.ports.now();
      const read = await readTarget(task, { members: youngestMembers(tasks) }, rekey);
      // Its last credential is gone since.
      if (read.target === undefined) return [];
      const causes = tasks.flatMap(({ because }) => because ?? []);
      // A webhook that comes needs no watching; a pass does it.
      const watch = { ...settings, watched: tasks.flatMap(({ watched = [] }) => watched) };
      const outcome = await reconcileTarget(
        { ...read, target: read.target },
        { causes, watch },
        until,
        rekey,
      );
      if (outcome === 'out-of-time') return same;
      // A look that an event has caused does not watch the webhook: the next pass is to make a whole one.
      if (tasks.some(({ queuedAt }) => queuedAt !== undefined))
        await noteLook(task, { startedAt, hasFailed: outcome === 'failed' }, rekey);
      return [];
    } catch (error) {
      // A defect stops this target as well, and no other: its message ends in the dead-letter queue, where it is seen.
      log('error', error instanceof Error ? error.message : String(error), { ...facts, code: codeOf(error) });
      return same;
    }
  });
  return { batchItemFailures: failed.flat().map(({ id }) => ({ itemIdentifier: id })) };
}

const timeLeft = async (until: Date, { ports }: Rekey): Promise<number> =>
  until.getTime() - (await ports.now()).getTime();

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : 'DEFECT';

/** `failed` if not all of the target could be read, or a repair failed: the next pass tries again. `out-of-time`: the task comes again. */
async function reconcileTarget(
  { target, hasBrokenSpecs }: Required<ReadTarget> & { readonly target: Target },
  { causes, watch }: { causes: Causes; watch: Watch },
  until: Date,
  rekey: Rekey,
): Promise<'done' | 'failed' | 'out-of-time'> {
  const { measure, log } = rekey;
  const before = await lastSeen(target, rekey);
  const survey = await surveyTarget(
    target,
    {
      hasBrokenSpecs,
      readAgain: async () => targetIn(await readFleet(rekey), target, rekey),
      seen: [...(before.seen?.users.keys() ?? [])],
    },
    until,
    rekey,
  );
  const findings = [
    ...survey.unreadable,
    ...(await movedFindings(target, survey, rekey)),
    ...targetFindings(survey.snapshot),
  ];
  const since = await rekey.ports.now();
  let unpublished: StoreError | undefined;
  const announced = await announce(
    { scope: 'reconcile', place: targetKey(target.provider, target.targetId), isPartial: survey.isPartial },
    findings,
    rekey,
  ).catch((error: unknown) => {
    if (!(error instanceof StoreError)) throw error;
    // A bus that takes nothing keeps no repair from its turn. Afterwards this target fails, so that its findings are published.
    unpublished = error;
    return findings.map((finding) => ({ ...finding, since }));
  });
  for (const reading of survey.readings.values()) await keepPublishedMark(reading, rekey);
  let repaired = 0;
  let outcome: 'done' | 'failed' | 'out-of-time' = survey.isPartial ? 'failed' : 'done';
  for (const { since: _since, ...finding } of announced) {
    if (finding.repair === undefined) continue;
    if ((await timeLeft(until, rekey)) < leastRepairMs) {
      outcome = 'out-of-time';
      break;
    }
    let repair: Repair | undefined;
    try {
      repair = await repairs[finding.repair](finding, readingOf(finding, survey), until, rekey);
    } catch (error) {
      // A defect of ours, too: the vendor may have been asked, so it is said what came of it.
      const code = codeOf(error);
      const effect = isExpected(error) ? error.effect : 'unknown';
      log('warn', error instanceof Error ? error.message : String(error), { ...finding, code });
      const detail = { ...finding, repair: finding.repair, code, effect };
      await tellOutcome({ type: 'DriftRepairFailed', detail }, rekey);
      if (!isExpected(error)) throw error;
      outcome = 'failed';
      continue;
    }
    if (repair === undefined) continue;
    repaired += 1;
    log('info', 'drift was repaired', { ...finding, repair });
    // Only what was done is said. Dying before this line says nothing: the finding that is gone does.
    await tellOutcome({ type: 'DriftRepaired', detail: { ...finding, repair } }, rekey);
  }
  const count = (kind: Finding['kind']): number =>
    announced.filter((finding) => finding.kind === kind).length;
  measure('OpenFindings', announced.length - repaired);
  // What could not be read is not zero: no reading is better than a good one.
  if (survey.snapshot.credentials.length > 0) {
    measure('OrphanedUsers', count('UserWithoutVersion'));
    measure('ForeignUsers', count('ForeignUser'));
    measure('RotationsStuck', count('RotationStuck'));
    measure('ConsumerBehindAge', behindMs(announced, survey) / 1000);
  }
  // Last: no finding and no repair waits for what a vendor says of its webhooks.
  await watchFor(survey, watch, until, rekey);
  await tellSightings(survey, before, causes, rekey);
  if (unpublished !== undefined) throw unpublished;
  return outcome;
}

/** Of credentials whose spec names this target and whose values do not; also where no value could be read now. */
async function movedFindings(
  target: Target,
  { readings }: Survey,
  rekey: Rekey,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const credential of target.credentials) {
    if (isFormer(credential)) continue;
    const reading = readings.get(credential.name);
    const isRead = reading !== undefined && reading.state !== 'absent';
    const former = isRead
      ? onceEach(reading.elsewhere, reading.state.versions)
      : (credential.moved?.former ?? []);
    // From now on it is looked after there as well.
    if (isRead && former.some((one) => !isNoted(credential, one)))
      await keepFormerTargets(credential, former, reading.state, rekey);
    // At once where a rotation was under way: its user may be the one whose login consumers have.
    const begun = isRead ? former.filter(({ labels }) => labels.includes('AWSPENDING')) : [];
    if (begun.length > 0)
      await rekey.ports.enqueue(
        begun.map(({ provider, targetId }) => ({ provider, targetId, urgent: true })),
      );
    // Of AWSPENDING alone RotationStuck tells: giving that rotation up mends it.
    const isNamed = ({ labels }: FormerTarget): boolean => labels.some((label) => label !== 'AWSPENDING');
    const isResetOpen = isRead && resetsElsewhere(reading.elsewhere);
    findings.push(...former.filter(isNamed).map((one) => targetMoved(credential, one, { isResetOpen })));
  }
  return findings;
}

/** Whether AWSPENDING names the user of AWSCURRENT there: its password may be the pending one already. */
const resetsElsewhere = (elsewhere: readonly FormerTarget[]): boolean => {
  const [current, pending] = ['AWSCURRENT', 'AWSPENDING'].map((label) =>
    elsewhere.find(({ labels }) => labels.includes(label)),
  );
  return (
    current !== undefined &&
    current.versionId !== pending?.versionId &&
    current.username === pending?.username &&
    current.targetId === pending.targetId
  );
};

const isNoted = ({ moved }: Credential, { provider, targetId }: FormerTarget): boolean =>
  (moved?.former ?? []).some((one) => one.provider === provider && one.targetId === targetId);

/**
 * REKEY_PUBLISHED is on the youngest version that was ever published. A rotation that was killed right after the switch has not
 * moved it there, and somebody may have taken it off or put it elsewhere. Without it, after two roll-backs by hand nothing shows that
 * the version was published: its user would lose its grace, or a roll-back would be undone.
 */
async function keepPublishedMark({ credential, state }: Reading, rekey: Rekey): Promise<void> {
  if (state === 'absent' || isFormer(credential)) return;
  const { secret, versions } = state;
  const marked = holderOf(secret.labelsByVersion, 'REKEY_PUBLISHED');
  const holders = [
    ...(['AWSCURRENT', 'AWSPREVIOUS'] as const).map((label) => holderOf(secret.labelsByVersion, label)),
    marked,
  ];
  const youngest = versions.findLast(({ versionId }) => holders.includes(versionId));
  // A list that lags behind may lack the version that has the mark.
  const isListed = marked === undefined || versions.some(({ versionId }) => versionId === marked);
  if (!(hasSwitched(state) && isListed) || youngest === undefined || youngest.versionId === marked) return;
  try {
    await rekey.ports.moveLabel({
      secretId: secret.arn,
      label: 'REKEY_PUBLISHED',
      ...(marked === undefined ? {} : { from: marked }),
      to: youngest.versionId,
      guard: Guard.of(labelsUnchanged(secret, rekey)),
    });
  } catch (error) {
    if (!isExpected(error)) throw error;
    const { code } = error;
    rekey.log('warn', 'REKEY_PUBLISHED could not be put on the youngest version that was published', {
      credential: credential.name,
      code,
    });
  }
}

type Watch = Settings & { readonly watched: readonly string[] };

/** Before the sightings are told: it says whether a webhook should have told of them. */
async function watchFor(
  { webhooks }: Survey,
  { watched, ...settings }: Watch,
  until: Date,
  rekey: Rekey,
): Promise<void> {
  for (const opened of webhooks) {
    if (!watched.includes(opened.apiKeySecret)) continue;
    if ((await timeLeft(until, rekey)) < leastRepairMs) return;
    await watchWebhook(opened, settings, rekey);
  }
}

/** What is done is done: a bus that fails then keeps no other repair from its turn. */
async function tellOutcome(event: RekeyEvent, { ports, log }: Rekey): Promise<void> {
  try {
    await ports.publish([event]);
  } catch (error) {
    if (!isExpected(error)) throw error;
    log('error', 'the outcome of a repair could not be published', { ...event.detail, code: error.code });
  }
}

/** For how long the consumer that is furthest behind has not had the current login, as far as the labels or the notes tell. */
function behindMs(
  announced: readonly (Finding & { readonly since: Date })[],
  { snapshot: { now, credentials } }: Survey,
): number {
  const instants = [
    ...announced.flatMap(({ kind, since }) => (kind === 'ConsumerBehind' ? [since] : [])),
    ...credentials.flatMap(({ state, consumers }) =>
      state !== 'absent' && consumers.some(({ standing: { say } }) => mayLack.has(say))
        ? [lastSwitch(state)]
        : [],
    ),
  ];
  return Math.max(0, ...instants.map((at) => now.getTime() - at.getTime()));
}

const mayLack: ReadonlySet<ConsumerStanding['say']> = new Set(['behind', 'moving', 'failed']);

function readingOf({ credential = '' }: Finding, { readings }: Survey): Reading {
  const reading = readings.get(credential);
  if (reading === undefined)
    throw new Error(`a repair was asked for a credential that was not read: ${credential}`);
  return reading;
}

// Repairs.

/** Answers what was done about the finding, which may be another repair than was thought of; undefined when nothing was. */
type Mend = (finding: Finding, reading: Reading, until: Date, rekey: Rekey) => Promise<Repair | undefined>;

const repairs: Readonly<Record<Repair, Mend>> = {
  'rotate-at-once': (_finding, reading, _until, rekey) => orderRotation('rotate-at-once', reading, rekey),
  'rotate-in-window': (_finding, reading, _until, rekey) => orderRotation('rotate-in-window', reading, rekey),
  'apply-privileges': (_finding, reading, _until, rekey) => applyPrivileges(reading, rekey),
  'finish-rotation': (_finding, reading, until, rekey) => endStuckRotation(reading, until, rekey),
  'abandon-rotation': (_finding, reading, until, rekey) => endStuckRotation(reading, until, rekey),
  'restore-label': (_finding, reading, _until, rekey) => restoreLabel(reading, rekey),
  'advance-consumer': (finding, reading, _until, rekey) => advanceConsumer(finding, reading, rekey),
};

/** The orders that say the same of a version, the one that reconcile gives first. */
const orderedBy = {
  'rotate-at-once': ['rotateBefore', 'revokeBefore'],
  'rotate-in-window': ['changeBefore'],
} as const satisfies Readonly<Partial<Record<Repair, readonly DirectiveKind[]>>>;

/**
 * An order that start-rotations carries out, within minutes or in the credential's next window. Not again while it stands. While
 * writes are paused it is kept as well, so that the rotation starts right after the pause, but throws PAUSED: nothing is repaired yet.
 */
async function orderRotation<Ordered extends keyof typeof orderedBy>(
  repair: Ordered,
  { credential: { name, spec, directives }, state }: Reading,
  { ports, log }: Rekey,
): Promise<Ordered | undefined> {
  // If rotation is switched off, nothing would come of the order, and a repair is published only if it was made.
  if (state === 'absent' || !state.secret.rotationEnabled) return undefined;
  const { secret, versions } = state;
  const current = holderOf(secret.labelsByVersion, 'AWSCURRENT');
  const madeAt = versions.find(({ versionId }) => versionId === current)?.createdAt ?? new Date(0);
  const isOrdered = orderedBy[repair]
    .map((kind) => directives[kind])
    .some((before) => before !== undefined && before > madeAt);
  if (isOrdered) return undefined;
  // An order from before the version was made would order nothing, which a clock behind that of Secrets Manager could make it.
  const at = new Date(Math.max((await ports.now()).getTime(), madeAt.getTime() + 1));
  const [kind] = orderedBy[repair];
  await keepDirective('latest', { credential: name, kind, at, stored: directives[kind] }, ports);
  const since = await pausedSince(spec, { ports, log });
  if (since !== undefined)
    throw new RotationRefused(
      'PAUSED',
      `writes on ${spec.targetId} are paused since ${since.toISOString()}; the rotation of ${name} is ordered and starts after the pause`,
    );
  return repair;
}

async function applyPrivileges(reading: Reading, rekey: Rekey): Promise<Repair | undefined> {
  const { credential, provider, currentLogin } = reading;
  if (provider === undefined || currentLogin === undefined) return undefined;
  const canReplace = credential.spec.strategy === 'replace-user';
  if (provider.passwords === 'chosen-by-us')
    try {
      await rekey.ports.publish([
        { type: 'DatabaseUserPlanned', detail: changeOf(reading, currentLogin, 'apply-privileges') },
      ]);
      const { versionId = '', secretArn } = changeOf(reading, currentLogin, 'apply-privileges');
      const guard = Guard.of(
        currentUnchanged(secretArn, versionId, rekey),
        specUnchanged(storedSpec(credential), rekey),
        notPaused(credential.spec, rekey),
      );
      await provider.applyPrivileges(currentLogin, guard);
      // The vendor's word is not enough: what the user holds is.
      const differences = await provider.privilegeDifferences(currentLogin);
      if (differences.length === 0) return 'apply-privileges';
      throw new VerificationFailed(
        'PRIVILEGES_DIFFER',
        `${currentLogin.username}: ${differences.join(', ')}; the next pass tries again`,
      );
    } catch (error) {
      // A user cannot always give itself what it lost. A new one is born with it.
      const isBeyondIt = error instanceof VerificationFailed && error.code === 'PRIVILEGES_DIFFER';
      const ordered =
        isBeyondIt && canReplace ? await orderRotation('rotate-at-once', reading, rekey) : undefined;
      // Where the order stands already, too: the vendor was asked, so it is said what came of it.
      if (ordered === undefined) throw error;
      return ordered;
    }
  return canReplace ? orderRotation('rotate-at-once', reading, rekey) : undefined;
}

/** A compare-and-swap from nowhere: a rotation that ended meanwhile has set the label itself. */
async function restoreLabel(
  { state, restorable }: Reading,
  rekey: Rekey,
): Promise<'restore-label' | undefined> {
  if (state === 'absent' || restorable === undefined) return undefined;
  const moved = await rekey.ports.moveLabel({
    secretId: state.secret.arn,
    label: 'AWSPREVIOUS',
    to: restorable,
    guard: Guard.of(labelsUnchanged(state.secret, rekey)),
  });
  return moved === 'moved' ? 'restore-label' : undefined;
}

async function advanceConsumer(
  { details }: Finding,
  { consumers }: Reading,
  rekey: Rekey,
): Promise<'advance-consumer' | undefined> {
  const behind = consumers.find(
    ({ name, standing }) => standing.say === 'behind' && consumerDetails(name, standing) === details,
  );
  const after = await behind?.consumer.advance();
  if (after === undefined) return undefined;
  if (after.say !== 'behind' && after.say !== 'failed') return 'advance-consumer';
  const intent = behind?.intent();
  // It was written to, and is not there: the finding that stays was told before, and says nothing of this try.
  if (intent !== undefined)
    await tellOutcome({ type: 'ConsumerLeftBehind', detail: { ...intent, because: after.say } }, rekey);
  return undefined;
}
