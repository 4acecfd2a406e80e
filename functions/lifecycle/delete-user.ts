import { readDirectives } from '../core/directives.ts';
import { InputError, ProviderError, StoreError } from '../core/errors.ts';
import type { Invocation, TargetGone } from '../core/events.ts';
import type { Finding } from '../core/findings.ts';
import {
  type Credential,
  type FormerTarget,
  isFormer,
  placed,
  specAt,
  type Target,
  targetKey,
  targetKeysOf,
  targetsOf,
} from '../core/fleet.ts';
import { type CredentialState, standings } from '../core/generations.ts';
import { directivesPath, secretPrefix, specParameterName } from '../core/names.ts';
import { places } from '../core/notes.ts';
import type { DatabaseUser, Provider, Readiness } from '../core/provider.ts';
import { endingOf, judgeUser } from '../core/retirement.ts';
import { announce } from './announce.ts';
import { type DeletionStage, type Empty, emptyCredential } from './delete-credential.ts';
import { finishRevocations } from './finish-revocation.ts';
import { type Fleet, fleetOf, readFleet, readFleetOf } from './fleet.ts';
import { forgetFulfilled } from './forget-fulfilled.ts';
import { findFormerTargets, forgetTargets, keepFormerTargets, readFormerTargets } from './former-targets.ts';
import { credentialsWithGoneTargets, forgetGoneTargets, noteGone, noteThere } from './gone-targets.ts';
import { whyUnjudged } from './guarded-write.ts';
import { inParallel } from './in-parallel.ts';
import { readTarget } from './members.ts';
import { forget, recallAll, rememberAll } from './notes.ts';
import {
  forgetOrders,
  forgetTombstones,
  ignoreOrder,
  type NotedOrder,
  noteDeletion,
  noteOrder,
  pausedSince,
  untilStored,
  withdrawDirective,
  withOrder,
} from './orders.ts';
import type { Rekey } from './rekey.ts';
import {
  type Candidate,
  codeOf,
  dropNotes,
  hold,
  isOthers,
  isolateFailure,
  isUnclear,
  readNotes,
  retireUsers,
  type Scene,
  tellOutcomes,
  type UserReport,
} from './retire-users.ts';
import { type ListedSecrets, noteSettled, nothingSettled, settledTargets } from './settled-targets.ts';
import { openTarget, readState } from './target.ts';
import { type TargetSpecs, targetSpecs } from './target-specs.ts';

export interface DeletionReport {
  readonly dryRun: boolean;
  readonly targets: readonly TargetReport[];
}

export interface TargetReport {
  readonly provider: string;
  readonly target: string;
  /** Why nothing was done here. */
  readonly skipped?: string;
  /** Those that are of no use any more, or that belong to a credential which is to go. */
  readonly users: readonly UserReport[];
  readonly credentials: readonly {
    readonly credential: string;
    readonly stage: DeletionStage;
    readonly because?: string;
  }[];
}

/** So many targets are looked at at the same time; each waits for its vendor most of the time. */
const targetsAtOnce = 4;
/** Reading a target and its credentials takes so long; what is begun with less would be cut in the middle. */
const shortestVisitMs = 120_000;
/** How often the schedule comes, about: each time the round begins elsewhere. */
const roundMs = 900_000;
const noTimeLeft = 'no time is left';
/** A rotation that begins moves labels, and what was decided before it is not sent: an order to revoke looks so many times more. */
const maxMoreLooks = 3;
const lookAgainMs = 15_000;
/**
 * In an emergency Parameter Store takes writes more slowly than orders come. start-rotations is storing the same order, so wait:
 * otherwise the redelivered event would repeat every read. Five orders of a batch may wait one after the other within the fifteen minutes
 * of an invocation.
 */
const maxStoringMs = 120_000;
/** Slower than the 8 s of start-rotations, which stores the same order. */
const maxStoringRetryMs = 16_000;
/** What lies between the order and the visit. */
const readingMs = 30_000;

/**
 * Retires superseded users, ends what a revocation left open and finishes deletions of credentials: on all targets, or on that of the
 * credential which was rotated, is compromised or is to go. Everything is read from the world and done again until it is seen to be
 * done; whoever cannot go now is reported with the reason. Two passes at once do the same twice, which harms nobody.
 *
 * One target's trouble keeps no other from being seen to. Throws the first failure of our own side after all is done, so that it
 * is counted; a vendor's failures are in the report, and reconcile-users finds what lasts.
 */
export async function deleteUsers(
  invocation: Extract<Invocation, { readonly is: 'pass' | 'order' | 'rotated' }>,
  until: Date,
  rekey: Rekey,
): Promise<DeletionReport> {
  const { ports } = rekey;
  const order = invocation.is === 'order' ? await note(invocation, until, rekey) : undefined;
  const dryRun = invocation.is === 'pass' && invocation.dryRun;
  const noted = await readFormerTargets(rekey);
  const former = new Map(noted === 'unreadable' ? [] : noted);
  const fleet =
    invocation.is === 'pass'
      ? await readFleet(rekey)
      : await fleetAround(invocation.credential, order, former, rekey);
  const credentials = fleet.credentials.map((credential) => withOrder(credential, order));
  const errors: unknown[] = [];
  const now = await ports.now();
  const ending = credentials.filter(
    (credential) =>
      (invocation.is === 'pass' || credential.name === invocation.credential) &&
      endingOf(credential, now) !== undefined,
  );
  if (invocation.is === 'pass' && !dryRun) await forgetSightings(ending, rekey);
  const areNotesKnown = noted !== 'unreadable';
  const unread = await findAllTargets(ending, former, { dryRun, errors, areNotesKnown }, rekey);
  const targets = targetsOf(placed(credentials, former));
  const pass: Pass = {
    dryRun,
    until,
    writes: new Map(),
    errors,
    isWhole: invocation.is === 'pass',
    unread,
    areNotesKnown,
    emptied: new Map(),
    startedAt: now,
    specsOf: specsOfEach(rekey),
  };
  const isRoutine = invocation.is === 'pass' && !dryRun;
  const secrets: ListedSecrets = isRoutine ? await listed(rekey) : new Map();
  const settled = isRoutine ? await settledTargets(targets, secrets, rekey) : nothingSettled;
  const visited =
    invocation.is === 'pass'
      ? fromElsewhere(
          targets.filter(({ provider, targetId }) => !settled.confirmed.has(targetKey(provider, targetId))),
          now,
        )
      : targets.filter((target) => target.credentials.some(({ name }) => name === invocation.credential));
  const look = (): Promise<readonly Visit[]> =>
    inParallel(visited, targetsAtOnce, async (target) => {
      const made = await visit(target, pass, rekey);
      if (isRoutine && made.settled !== undefined)
        await noteSettled(target, made.settled.until, { secrets, before: settled }, rekey);
      return made;
    });
  let visits = await look();
  for (let more = 0; order !== undefined && more < maxMoreLooks && isAnyoneHeld(visits, order); more += 1) {
    await ports.sleep(lookAgainMs);
    visits = await look();
  }
  if (invocation.is === 'pass' && !dryRun) {
    rekey.measure('RetiredStillConnectedAge', Math.max(0, ...visits.map(({ connectedS }) => connectedS)));
    await forgetLostOrders(fleet, until, rekey);
    await forgetLostTargets(former, credentials, rekey);
  }
  await forgetTargetsWithout(visits, targets, pass, rekey);
  if (errors.length > 0) throw errors[0];
  // A pass comes again by itself; an event would be lost.
  if (invocation.is !== 'pass' && visits.some(({ report }) => report.skipped === noTimeLeft))
    throw new StoreError(
      'STORE_UNAVAILABLE',
      'none',
      `there was no time left to look at the target of ${invocation.credential}; the event is tried again`,
    );
  return { dryRun, targets: visits.map(({ report }) => report) };
}

/** The secrets below our prefix, by name. */
async function listed({ ports }: Rekey): Promise<ListedSecrets> {
  const secrets = await ports.listSecrets({ namePrefix: secretPrefix });
  return new Map(secrets.map((secret) => [secret.name, secret]));
}

/**
 * The credential with all others of its targets, read without the rest of the fleet. None where it is gone, or its spec cannot be
 * read.
 */
async function fleetAround(
  name: string,
  order: NotedOrder | undefined,
  former: ReadonlyMap<string, readonly FormerTarget[]>,
  rekey: Rekey,
): Promise<Fleet> {
  const own = await (order?.isReadable === true ? fleetOf(name, order, rekey) : readFleetOf([name], rekey));
  const members = new Map<string, Credential>();
  for (const { spec } of placed(own.credentials, former)) {
    const { target } = await readTarget(spec, { also: own.credentials }, rekey);
    for (const { name: other, moved, ...credential } of target?.credentials ?? [])
      members.set(other, { name: other, ...credential, spec: moved?.stored ?? credential.spec });
  }
  return { credentials: [...members.values()], broken: own.broken };
}

/**
 * An order to delete, or that a credential is compromised. Of the latter start-rotations is told as well: whichever of the two comes
 * first stores it. Answers what revokes users now.
 */
async function note(
  invocation: Extract<Invocation, { readonly is: 'order' }>,
  until: Date,
  rekey: Rekey,
): Promise<NotedOrder | undefined> {
  if (invocation.order !== 'CredentialCompromised') {
    await noteDeletion(invocation, rekey);
    return undefined;
  }
  // The visit comes after it.
  const waitUntil = Math.min(
    (await rekey.ports.now()).getTime() + maxStoringMs,
    until.getTime() - shortestVisitMs - readingMs,
  );
  const noted = await untilStored(
    () => noteOrder(invocation, rekey),
    { until: new Date(waitUntil), maxRetryMs: maxStoringRetryMs },
    rekey,
  );
  return noted === 'ignored' ? undefined : noted;
}

/** Whether a user of the credential stays only because a label moved while it was about to go. */
const isAnyoneHeld = (visits: readonly Visit[], { credential }: NotedOrder): boolean =>
  visits.some(({ report: { users } }) =>
    users.some((user) => user.credential === credential && user.because === 'LABELS_MOVED'),
  );

/**
 * The same targets or users, beginning at another place each time, so that a pass that is cut short leaves out others. Steps of the
 * golden ratio come near every place after few rounds.
 */
function fromElsewhere<Item>(items: readonly Item[], now: Date): readonly Item[] {
  const round = Math.floor(now.getTime() / roundMs);
  const start = Math.floor(((round * 0.618_033_988_749_895) % 1) * items.length);
  return [...items.slice(start), ...items.slice(0, start)];
}

/**
 * Every target of the credentials that are to go, in `former`: with the secret goes the proof of which users were whose. Answers the
 * names of those of which that cannot be said now: they stay for this pass.
 */
async function findAllTargets(
  ending: readonly Credential[],
  former: Map<string, readonly FormerTarget[]>,
  { errors, ...ways }: Pick<Pass, 'dryRun' | 'errors'> & { readonly areNotesKnown: boolean },
  rekey: Rekey,
): Promise<ReadonlySet<string>> {
  const unread = new Set<string>();
  await inParallel(ending, targetsAtOnce, async ({ name, ...credential }) => {
    const [declared = { name, ...credential }] = placed([{ name, ...credential }], former);
    try {
      const found = await findFormerTargets(declared, ways, rekey);
      // Its notes are all that could tell where else it has users.
      if (found === 'unknown') unread.add(name);
      else if (found.length > 0 || former.has(name)) former.set(name, found);
    } catch (error) {
      rekey.log('error', 'the versions of a credential that is to go could not be read', {
        credential: name,
        code: codeOf(error) ?? 'DEFECT',
      });
      if (!isOthers(error)) errors.push(error);
      unread.add(name);
    }
  });
  return unread;
}

/** The same of what was noted of their targets. */
async function forgetLostTargets(
  former: ReadonlyMap<string, unknown>,
  credentials: readonly Credential[],
  rekey: Rekey,
): Promise<void> {
  const known = new Set(credentials.map(({ name }) => name));
  const lost = new Set([...former.keys(), ...(await credentialsWithGoneTargets(rekey))]);
  for (const name of lost)
    if (
      !known.has(name) &&
      (await rekey.ports.readParameter({ parameter: specParameterName(name) })) === 'absent'
    )
      await forgetTargets(name, rekey);
}

/** Nothing is remembered of targets whose last credential has just been deleted: no pass comes there any more. */
async function forgetTargetsWithout(
  visits: readonly Visit[],
  targets: readonly Target[],
  { isWhole, specsOf, startedAt }: Pick<Pass, 'isWhole' | 'specsOf' | 'startedAt'>,
  rekey: Rekey,
): Promise<void> {
  const deleted = new Set(
    visits.flatMap(({ report: { credentials } }) =>
      credentials.flatMap(({ credential, stage }) => (stage === 'deleted' ? [credential] : [])),
    ),
  );
  for (const name of deleted)
    for (const place of [places.findings('consumers'), places.revocations])
      await forget({ place, key: name }, rekey);
  for (const { provider, targetId, credentials } of targets) {
    if (!credentials.every(({ name }) => deleted.has(name))) continue;
    if (!isWhole) {
      const target = { provider, targetId };
      const specs = await specsOf(target)(startedAt);
      if ((await whyUnjudged({ target, specs, judged: deleted }, rekey)) !== undefined) continue;
    }
    const key = targetKey(provider, targetId);
    for (const place of [places.findings('reconcile'), places.findings('retire'), places.users])
      await forget({ place, key }, rekey);
    for (const place of [places.deletions(key), places.sessions(key)]) {
      const { notes } = await recallAll(place, rekey);
      await rememberAll(place, new Map(), notes, rekey);
    }
  }
}

/**
 * Sightings of a gone target count only while the credential is to go. While it is not, no pass takes them back when the vendor has
 * the target: if the time of one was prolonged, its count starts again.
 */
async function forgetSightings(ending: readonly Credential[], rekey: Rekey): Promise<void> {
  const kept = new Set(ending.map(({ name }) => name));
  for (const name of await credentialsWithGoneTargets(rekey))
    if (!kept.has(name)) await forgetGoneTargets(name, rekey);
}

/** What was ordered for credentials that are gone: a pass that died at the very end of a deletion left it. */
async function forgetLostOrders({ credentials, broken }: Fleet, until: Date, rekey: Rekey): Promise<void> {
  const { ports } = rekey;
  const orders = await ports.listParameters({ path: directivesPath });
  const named = new Set([...credentials, ...broken].map(({ name }) => name));
  for (const [name, { deletedAt: _, ...standing }] of readDirectives(orders).directives) {
    if (named.has(name) || Object.keys(standing).length === 0) continue;
    if ((await ports.now()).getTime() > until.getTime() - shortestVisitMs / 2) return;
    // Asked again, as the list of specs may be older than the order. Without its spec nothing can be ordered for it.
    if ((await ports.readParameter({ parameter: specParameterName(name) })) === 'absent')
      await forgetOrders(name, ports);
  }
  await forgetTombstones(orders, ports);
}

interface Pass {
  readonly dryRun: boolean;
  readonly until: Date;
  /** How many writes are left, by API key. */
  readonly writes: Map<string, number>;
  readonly errors: unknown[];
  /** The fleet was read, so every credential of a target is known. An event's target may lack one that is minutes old. */
  readonly isWhole: boolean;
  /** The names of credentials that are to go and whose versions could not all be read. */
  readonly unread: ReadonlySet<string>;
  /** Whether the former targets of credentials could be read. */
  readonly areNotesKnown: boolean;
  /** By credential: the targets that none of its users is left in, by their keys, and how it is known of those that are gone. */
  readonly emptied: Map<string, Map<string, TargetGone | undefined>>;
  readonly startedAt: Date;
  readonly specsOf: (target: Pick<Target, 'provider' | 'targetId'>) => TargetSpecs;
}

/** One `TargetSpecs` per target, so that the end of the invocation reuses what the guards have listed. */
function specsOfEach(rekey: Rekey): Pass['specsOf'] {
  const known = new Map<string, TargetSpecs>();
  return ({ provider, targetId }) => {
    const key = targetKey(provider, targetId);
    const specs = known.get(key) ?? targetSpecs({ provider, targetId }, rekey);
    known.set(key, specs);
    return specs;
  };
}

interface Visit {
  readonly report: TargetReport;
  /** How long past its drain deadline the longest connected user is, in seconds. */
  readonly connectedS: number;
  /** Set where nothing is to be done before something changes, or before a grace is over. */
  readonly settled?: { readonly until: Date | undefined };
}

async function visit(target: Target, pass: Pass, rekey: Rekey): Promise<Visit> {
  const { provider, targetId } = target;
  const users: UserReport[] = [];
  const credentials: Stages = [];
  const report = { provider, target: targetId, users, credentials };
  const skipped = (reason: string): Visit => ({ report: { ...report, skipped: reason }, connectedS: 0 });
  const now = await rekey.ports.now();
  if (pass.until.getTime() - now.getTime() < shortestVisitMs) return skipped(noTimeLeft);
  try {
    const entered = await enter(target, pass, rekey);
    const sceneOf = async ({ listed, list, providerOf }: Ways): Promise<Scene> => ({
      rekey,
      until: pass.until,
      dryRun: pass.dryRun,
      pausedSince: pass.dryRun ? await pausedSince(target, rekey) : undefined,
      now,
      target,
      specs: pass.specsOf(target),
      listed,
      list,
      providerOf,
      states: [],
      logins: new Map(),
      proofs: new Map(),
      ...(await readNotes(target, rekey)),
      takeWrite: ({ spec }) => takeWrite(spec.apiKeySecret, spec.definition.capabilities.writes, pass.writes),
      users,
      findings: [],
      overdueMs: [],
      errors: pass.errors,
      failed: [],
    });
    if (entered.say === 'gone') {
      if (target.credentials.some((credential) => endingOf(credential, now) !== undefined))
        await leave(await sceneOf(nobody), entered.said, { pass, credentials });
      await lookForMoved(target, pass, rekey);
      return skipped(`the target is gone: ${entered.said}`);
    }
    if (entered.say === 'not-ready') {
      await lookForMoved(target, pass, rekey);
      return skipped(`the target is not ready: ${entered.reason}`);
    }
    const scene = await sceneOf(entered);
    await tellOutcomes(scene);
    const connectedS = await sweep(scene, { pass, credentials });
    const settled = settledUntil(scene, credentials);
    return { report, connectedS, ...(settled === undefined ? {} : { settled }) };
  } catch (error) {
    const code = codeOf(error) ?? 'DEFECT';
    rekey.log('error', 'a target could not be swept', { provider, target: targetId, code });
    if (!isOthers(error)) pass.errors.push(error);
    await lookForMoved(target, pass, rekey);
    return skipped(code);
  }
}

/** Until when the next visit would find nothing to do either; undefined where one might. */
function settledUntil(
  { users, findings, failed, now }: Scene,
  credentials: Stages,
): { readonly until: Date | undefined } | undefined {
  if (findings.length + failed.length + credentials.length > 0) return undefined;
  const untils = users.map(({ outcome, until }) => (outcome === 'kept' ? until : undefined));
  if (untils.includes(undefined)) return undefined;
  const next = Math.min(...untils.map((until = '') => new Date(until).getTime()));
  return { until: untils.length === 0 ? undefined : new Date(Math.max(next, now.getTime())) };
}

type Stages = { credential: string; stage: DeletionStage; because?: string }[];

/** How a target is looked at. */
type Ways = Pick<Scene, 'listed' | 'list' | 'providerOf'>;

/** Of a target that is gone. */
const nobody: Ways = {
  listed: [],
  list: async () => [],
  providerOf: async () => {
    throw new Error('a target that is gone was about to be asked for something');
  },
};

/** Where no credential is read on the way: one whose spec names a target that cannot be entered may have moved there. */
async function lookForMoved(target: Target, { dryRun, errors }: Pass, rekey: Rekey): Promise<void> {
  if (dryRun) return;
  for (const credential of target.credentials) {
    if (isFormer(credential) || endingOf(credential, await rekey.ports.now()) !== undefined) continue;
    await readStates([credential], { rekey, errors, dryRun });
  }
}

/** The vendor has the target. What was said of credentials that are to go, that it is gone, is not so. */
async function takeBack(
  { provider, targetId, credentials }: Target,
  pass: Pass,
  rekey: Rekey,
): Promise<void> {
  const { ports } = rekey;
  const now = await ports.now();
  for (const credential of credentials) {
    const { name, directives } = credential;
    if (pass.dryRun || endingOf(credential, now) === undefined) continue;
    await noteThere(name, { provider, targetId }, rekey);
    if (directives.targetIsGone === undefined || isFormer(credential)) continue;
    await ignoreOrder(
      {
        order: 'CredentialDeletionRequested',
        credential: name,
        provider,
        target: targetId,
        orderedAt: directives.targetIsGone.toISOString(),
        because: `targetIsGone: the vendor still has ${targetId}; the credential is deleted together with its users`,
      },
      rekey,
    );
    await withdrawDirective({ credential: name, kind: 'targetIsGone', at: directives.targetIsGone }, ports);
  }
}

/** The vendor says that the target is gone: credentials that are to go do so without it, once that is proved. */
async function leave(
  scene: Scene,
  said: string,
  { pass, credentials }: { readonly pass: Pass; readonly credentials: Stages },
): Promise<void> {
  const { rekey, target, now, dryRun } = scene;
  const { provider, targetId } = target;
  const empties: Finish[] = [];
  for (const credential of target.credentials) {
    const ending = endingOf(credential, now);
    if (ending === undefined || pass.unread.has(credential.name)) continue;
    await seeTo(credential, scene, async () => {
      const orderedAt = isFormer(credential) ? undefined : credential.directives.targetIsGone;
      const { gone, isProven } = await noteGone(credential.name, target, { said, orderedAt, dryRun }, rekey);
      const because = `gone since ${gone.since}, seen ${gone.sightings} times: ${said}`;
      if (!isProven) {
        credentials.push({ credential: credential.name, stage: 'target-gone', because });
        scene.findings.push({
          kind: 'DeletionBlocked',
          provider,
          target: targetId,
          credential: credential.name,
          details: `the vendor says since ${gone.since} that the target is gone: ${said}`,
          remedy:
            'nothing, if it is gone: the credential goes without it once that was said for a day; if it is there, let the API key see it before',
        });
        return;
      }
      const emptied = await emptyCredential(credential, ending, new Set(), scene);
      if (emptied.stage === 'empty') empties.push({ credential, finish: emptied.finish, gone });
      else credentials.push({ credential: credential.name, stage: emptied.stage, because });
    });
  }
  if (!dryRun)
    await announce(
      {
        scope: 'retire',
        place: targetKey(provider, targetId),
        isPartial: target.credentials.length > empties.length,
      },
      scene.findings,
      rekey,
    );
  await finishAll(empties, scene, { pass, credentials });
}

interface Finish {
  readonly credential: Credential;
  readonly finish: Empty['finish'];
  readonly gone?: TargetGone;
}

/** After the findings, as with its last credential the target is not looked at any more. Whichever target is emptied last ends it. */
async function finishAll(
  empties: readonly Finish[],
  scene: Scene,
  { pass, credentials }: { readonly pass: Pass; readonly credentials: Stages },
): Promise<void> {
  const { provider, targetId } = scene.target;
  for (const { credential, finish, gone } of empties)
    await seeTo(credential, scene, async () => {
      const { name } = credential;
      const emptied = pass.emptied.get(name) ?? new Map<string, TargetGone | undefined>();
      pass.emptied.set(name, emptied.set(targetKey(provider, targetId), gone));
      const isEmpty = targetKeysOf(credential).every((key) => emptied.has(key));
      const stage = isEmpty
        ? await finish([...emptied.values()].filter((each) => each !== undefined))
        : 'other-targets-left';
      credentials.push({ credential: name, stage });
    });
}

/** Half of what the vendor allows in a minute, so that rotations have room beside. */
function takeWrite(
  apiKeySecret: string,
  { perMinute }: { readonly perMinute: number },
  writes: Map<string, number>,
): boolean {
  const left = writes.get(apiKeySecret) ?? Math.floor(perMinute / 2);
  writes.set(apiKeySecret, left - 1);
  return left > 0;
}

/** Opened with the first key that the vendor takes: the credentials of a target may have several. */
async function enter(target: Target, pass: Pass, rekey: Rekey): Promise<Entered> {
  const { until } = pass;
  const opened = new Map<string, Promise<Provider>>();
  const providerOf = (credential: Credential): Promise<Provider> => {
    const known = opened.get(credential.name) ?? openTarget(credential.spec, until, rekey);
    opened.set(credential.name, known);
    return known;
  };
  const keys = new Set<string>();
  let failure: unknown;
  let said: string | undefined;
  for (const credential of target.credentials) {
    if (keys.has(credential.spec.apiKeySecret)) continue;
    keys.add(credential.spec.apiKeySecret);
    try {
      const provider = await providerOf(credential);
      const readiness = await readinessOf(provider);
      if ('isGone' in readiness) {
        // Another key may see more.
        said ??= readiness.reason;
        continue;
      }
      // At once, as the user list may fail: the answer counts all the same.
      await takeBack(target, pass, rekey);
      if (!readiness.ready) return { say: 'not-ready', reason: readiness.reason };
      const list = (): Promise<readonly DatabaseUser[]> => provider.listUsers();
      return { say: 'listed', list, listed: await list(), providerOf };
    } catch (error) {
      const isKeys =
        error instanceof InputError || (error instanceof ProviderError && error.code === 'UNAUTHORIZED');
      if (!isKeys) throw error;
      failure ??= error;
    }
  }
  if (failure === undefined && said !== undefined) return { say: 'gone', said };
  throw failure;
}

/** Only of the question for the target itself NOT_FOUND says that it is gone. */
async function readinessOf(provider: Provider): Promise<Readiness> {
  try {
    return await provider.readiness();
  } catch (error) {
    if (!(error instanceof ProviderError) || error.code !== 'NOT_FOUND') throw error;
    return { ready: false, reason: error.message, isGone: true };
  }
}

type Entered =
  | ({ readonly say: 'listed' } & Ways)
  | { readonly say: 'not-ready'; readonly reason: string }
  /** By every key that the credentials of the target have; `said` is the vendor's word. */
  | { readonly say: 'gone'; readonly said: string };

/** Answers how long past its drain deadline the longest connected user is, in seconds. */
async function sweep(
  empty: Scene,
  { pass, credentials }: { readonly pass: Pass; readonly credentials: Stages },
): Promise<number> {
  const { rekey, target, listed, now } = empty;
  const { provider, targetId } = target;
  const living = target.credentials.filter((credential) => endingOf(credential, now) === undefined);
  const { states, unreadable } = await readStates(living, empty);
  empty.failed.push(...unreadable.map(({ name }) => name));
  const scene: Scene = { ...empty, states };
  const known = standings({ provider, targetId, users: listed, credentials: states }, rekey.sha256);

  const used = known.filter(({ standing }) => ['current', 'pending', 'idle'].includes(standing.is));
  await dropNotes(
    used.map(({ user }) => user.username),
    scene,
  );
  const candidates = known.flatMap(({ user, standing }): readonly Candidate[] => {
    const judge: Candidate['judge'] = (observed) => judgeUser({ user, standing }, observed, now);
    if (standing.is === 'placeholder') {
      // One that is new may be about to become the default, for a credential that another pass is deleting.
      const isFree = pass.isWhole && living.length === target.credentials.length && user.isDefault === false;
      return isFree ? [{ user, credential: undefined, judge }] : [];
    }
    if (standing.is !== 'superseded') return [];
    const { credential, versionId } = standing;
    const candidate = { user, credential, versionId, judge, isRevoked: standing.isRevoked };
    // What cannot be read may name anybody who carries its prefix, and any user that was there before rekey.
    const isHeld = unreadable.some(
      ({ spec }) =>
        user.username.startsWith(`${spec.usernamePrefix}_`) ||
        spec.adopt?.username === user.username ||
        credential.spec.adopt?.username === user.username,
    );
    if (isHeld) hold(candidate, 'CREDENTIAL_UNREADABLE', scene);
    return isHeld ? [] : [candidate];
  });
  await retireUsers(fromElsewhere(candidates, now), scene);
  const finished = await finishRevocations(states, known, scene);
  // Without these notes nobody knows where else revoked users may be left.
  if (pass.areNotesKnown) await forgetFulfilled(states, known, finished, scene);

  const empties: Finish[] = [];
  for (const credential of target.credentials) {
    const ending = endingOf(credential, now);
    if (ending === undefined) continue;
    if (pass.unread.has(credential.name)) {
      // Otherwise the target would count as settled, and the deletion would wait for hours.
      scene.failed.push(credential.name);
      continue;
    }
    scene.findings.push(...unreachable(credential));
    await seeTo(credential, scene, async () => {
      const emptied = await emptyCredential(credential, ending, keptNames(credential, scene), scene);
      if (emptied.stage === 'empty') empties.push({ credential, finish: emptied.finish });
      else
        credentials.push({
          credential: credential.name,
          stage: emptied.stage,
          ...(scene.pausedSince === undefined
            ? {}
            : {
                because: `its users stay while writes are paused, since ${scene.pausedSince.toISOString()}`,
              }),
        });
    });
  }
  if (!scene.dryRun)
    await announce(
      {
        scope: 'retire',
        place: targetKey(provider, targetId),
        isPartial: unreadable.length > 0 || scene.users.some(isUnclear),
      },
      scene.findings,
      rekey,
    );
  await finishAll(empties, scene, { pass, credentials });
  return Math.max(0, ...scene.overdueMs) / 1000;
}

const seeTo = (credential: Credential, scene: Scene, use: () => Promise<void>): Promise<void> =>
  isolateFailure(credential, 'a credential could not be deleted', scene, use);

/** Targets of a credential that is to go, of another provider than its spec names now: nobody knows a key to them. */
const unreachable = (credential: Credential): readonly Finding[] =>
  isFormer(credential)
    ? []
    : (credential.moved?.former ?? [])
        .filter((one) => specAt(credential.spec, one) === undefined)
        .map(({ provider, targetId, username }) => ({
          kind: 'DeletionBlocked',
          provider: credential.spec.provider,
          target: credential.spec.targetId,
          credential: credential.name,
          details: `a version of its secret names ${username} at ${provider} ${targetId}, which its spec cannot open`,
          remedy: `put ${provider} ${targetId} with its apiKeySecret back into ${specParameterName(credential.name)}; then the credential goes`,
        }));

async function readStates(
  living: readonly Credential[],
  { rekey, errors, dryRun }: Pick<Scene, 'rekey' | 'errors' | 'dryRun'>,
): Promise<{ readonly states: readonly CredentialState[]; readonly unreadable: readonly Credential[] }> {
  const states: CredentialState[] = [];
  const unreadable: Credential[] = [];
  for (const credential of living)
    try {
      const state = await readState(credential, rekey);
      // Without a secret there is no user that could be proved to be its own.
      if (state === 'absent') continue;
      if (await isPlaced(state, dryRun, rekey)) states.push(state);
      else unreadable.push(credential);
    } catch (error) {
      rekey.log('error', 'a credential could not be read; its users stay', {
        credential: credential.name,
        code: codeOf(error) ?? 'DEFECT',
      });
      if (!isOthers(error)) errors.push(error);
      unreadable.push(credential);
    }
  return { states, unreadable };
}

/**
 * Whether all the targets that its values name were known when its users were sorted by target. Where one was not, it is noted, and
 * the next pass judges them.
 */
async function isPlaced(state: CredentialState, dryRun: boolean, rekey: Rekey): Promise<boolean> {
  const { moved, elsewhere = [] } = state;
  if (isFormer(state)) return true;
  if (!dryRun) await keepFormerTargets(state, elsewhere, state, rekey);
  return elsewhere.every((one) =>
    moved?.former.some(({ provider, targetId }) => provider === one.provider && targetId === one.targetId),
  );
}

/**
 * The users that other credentials of the target speak for. A value that names another credential's user speaks for it only where
 * nobody was to lose it: somebody who must not may have written that value.
 */
function keptNames({ name, directives }: Credential, { target, states }: Scene): ReadonlySet<string> {
  const isRevoked = directives.revokeBefore !== undefined;
  return new Set(
    [
      ...(isRevoked ? [] : states.flatMap(({ foreignUsernames = [] }) => foreignUsernames)),
      ...target.credentials.filter((other) => other.name !== name).map((other) => other.spec.adopt?.username),
      ...states.flatMap(({ currentUsername, pendingUsername, previousUsername }) => [
        currentUsername,
        pendingUsername,
        previousUsername,
      ]),
    ].filter((username) => username !== undefined),
  );
}
