import type { StartOrders } from '../core/directives.ts';
import type { Candidate } from '../core/due.ts';
import { InputError, StoreError } from '../core/errors.ts';
import type { Invocation } from '../core/events.ts';
import { type Credential, targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { listedCandidate } from '../core/listed-candidates.ts';
import { secretName } from '../core/names.ts';
import { holderOf, openVersion } from '../core/rotation.ts';
import { type CredentialSpec, parseSpec } from '../core/spec.ts';
import { inParallel } from './in-parallel.ts';
import { notedMembers } from './members.ts';
import {
  findLostOrders,
  firstRetryMs,
  keepStartOrders,
  noteOrder,
  notePause,
  readStandingOrders,
  untilStored,
} from './orders.ts';
import type { Rekey } from './rekey.ts';
import {
  type FailedRotation,
  failureOf,
  type HeldRotation,
  readCandidates,
  type Started,
  type StartedRotation,
  type StartRun,
  startDue,
} from './start-due.ts';

/**
 * Orders to rotate, apart from the fleet: in an emergency they come by the thousand. Each is stored first, with one reading and one
 * write. Then its credential is put into a queue that hands out each target to one worker at a time. A pass of start-rotations finds
 * every order that the queue has not carried out.
 */

/**
 * Orders back off, as thousands of them compete for the same writes. A pause does not: there are few, and one that backs off among
 * throttled orders may wait for minutes while rekey goes on writing to vendors.
 */
const maxRetryMs = { order: 8_000, pause: firstRetryMs } as const;
const marginMs = 30_000;

/**
 * Afterwards the order is stored, and the rotation that it asks for is queued: while a store cannot be reached, it is tried again until
 * shortly before `until`. Throws EVENT_INVALID for an order that is none for start-rotations, SPEC_MISSING for one that names no
 * credential.
 */
export const takeOrder = (
  invocation: Extract<Invocation, { readonly is: 'order' | 'pause' }>,
  until: Date,
  rekey: Rekey,
): Promise<void> =>
  untilStored(
    () => takeOnce(invocation, rekey),
    { until: new Date(until.getTime() - marginMs), maxRetryMs: maxRetryMs[invocation.is] },
    rekey,
  );

async function takeOnce(
  invocation: Extract<Invocation, { readonly is: 'order' | 'pause' }>,
  rekey: Rekey,
): Promise<void> {
  if (invocation.is === 'pause') {
    await notePause(invocation, rekey);
    return;
  }
  const noted = await noteOrder(invocation, rekey);
  if (noted === 'ignored') return;
  const { credential } = invocation;
  const spec = await readableSpec(credential, noted.document, rekey);
  if (spec === undefined) return;
  const { provider, targetId } = spec;
  const id = [invocation.order, credential, invocation.orderedAt.toISOString()].join(' ');
  await rekey.ports.enqueueStart([{ provider, targetId, credential, orders: noted.noted, id }]);
}

/** Undefined where the stored spec cannot be read: nothing can be started for it, and reconcile-users reports it. */
async function readableSpec(
  name: string,
  document: string,
  rekey: Rekey,
): Promise<CredentialSpec | undefined> {
  try {
    const spec = await parseSpec(jsonOf(document), rekey);
    return spec.name === name ? spec : undefined;
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    rekey.log('error', error.message, { credential: name, code: error.code });
    return undefined;
  }
}

/** A credential whose rotation was ordered, as the queue hands it out. */
export interface QueuedStart {
  readonly messageId: string;
  readonly credential: string;
  /** What was ordered. */
  readonly orders?: StartOrders | undefined;
}

export interface CarriedOut {
  readonly started: readonly StartedRotation[];
  /** Left to the next passes of start-rotations. */
  readonly held: readonly HeldRotation[];
  /** The messages that are to come again. */
  readonly failed: readonly string[];
}

/** The rotations that were started, and those in their way, are waited for so long. */
const waitMs = 4 * 60_000;
const lookMs = 10_000;
const readingsAtOnce = 10;
/** As the queue of starts is deployed. */
const maxWorkers = 10;

/**
 * Starts the ordered rotations of these credentials, and waits until they have ended: the queue gives their targets to no other worker
 * meanwhile. An order whose credential is held otherwise, by a pause for example, is left to the passes. Answers the messages that are
 * to come again: those of credentials that could not be read or started.
 */
export async function carryOutOrders(
  starts: readonly QueuedStart[],
  options: { readonly rotationFunctionArn: string },
  until: Date,
  rekey: Rekey,
): Promise<CarriedOut> {
  const { ports, log } = rekey;
  const run = { ...options, until, dryRun: false, rekey, workers: maxWorkers };
  const lookUntil = Math.min((await ports.now()).getTime() + waitMs, until.getTime()) - lookMs;
  const started: StartedRotation[] = [];
  const held = new Map<string, HeldRotation>();
  const known = new Map<string, Credential>();
  let left: ReadonlySet<string> = new Set(starts.map(({ credential }) => credential));
  let failed: ReadonlySet<string> = left;
  for (;;) {
    const look = await lookAt(left, starts, known, run);
    failed = new Set(look.failed.map(({ credential }) => credential));
    started.push(...look.started);
    for (const { credential } of look.started) held.delete(credential);
    for (const each of look.held)
      if (!isIn(started, each) && each.reason !== 'NOT_DUE') held.set(each.credential, each);
      else held.delete(each.credential);
    left = new Set([
      ...failed,
      ...look.started.map(({ credential }) => credential),
      ...look.held.filter(({ reason }) => passing.has(reason)).map(({ credential }) => credential),
    ]);
    if (left.size === 0 || (await ports.now()).getTime() > lookUntil) break;
    await ports.sleep(lookMs);
  }
  for (const { credential, ...why } of held.values())
    log('warn', 'an ordered rotation has to wait', { credential, ...why });
  // What waits for another rotation comes again; what is held by a pause or a window, the passes find.
  const again = new Set([...failed, ...left].filter((name) => !isStarted(started, name) || failed.has(name)));
  for (const name of await restoreLostOrders(starts, rekey)) again.add(name);
  return {
    started,
    held: [...held.values()],
    failed: starts.flatMap(({ messageId, credential }) => (again.has(credential) ? [messageId] : [])),
  };
}

/** Why a rotation is held that is open itself, or waits for what passes within minutes. */
const passing: ReadonlySet<HeldRotation['reason']> = new Set([
  'BUDGET',
  'CHANGED',
  'OUT_OF_TIME',
  'TARGET_BUSY',
]);

const isIn = (started: readonly StartedRotation[], { credential }: HeldRotation): boolean =>
  isStarted(started, credential);
const isStarted = (started: readonly StartedRotation[], name: string): boolean =>
  started.some(({ credential }) => credential === name);

/**
 * Parameter Store deletes without a condition: a function that took an older order of the credential away, because it was carried out,
 * may have deleted this one. It is stored again, unless the version that is current now is younger. Returns the credentials whose order
 * was restored or could not be checked.
 */
async function restoreLostOrders(starts: readonly QueuedStart[], rekey: Rekey): Promise<readonly string[]> {
  const again: string[] = [];
  const lostOrders = await findLostOrders(starts, rekey.ports);
  for (const start of starts) {
    const lost = lostOrders.get(start.credential);
    if (lost === 'unknown' || (lost === true && (await restoreOrder(start, rekey))))
      again.push(start.credential);
  }
  return again;
}

/** True if the order was restored or could not be checked. */
async function restoreOrder(
  { credential, orders = {} }: QueuedStart,
  { ports, log }: Rekey,
): Promise<boolean> {
  try {
    const { directives } = await readStandingOrders(credential, ports);
    const secret = await ports.describeSecret({ secretId: secretName(credential) });
    const versions = secret === 'absent' ? 'absent' : await ports.listVersions({ secretId: secret.arn });
    if (secret === 'absent' || versions === 'absent') return false;
    const current = holderOf(secret.labelsByVersion, 'AWSCURRENT');
    const madeAt = versions.find(({ versionId }) => versionId === current)?.createdAt;
    const isCarriedOut = (at: Date | undefined): boolean =>
      at === undefined || (madeAt !== undefined && madeAt > at);
    const { rotateBefore, revokeBefore, revokeAnyway } = orders;
    // An order to revoke stands after the rotation, until nothing of what it revokes is left.
    const isRevoking =
      revokeBefore !== undefined && versions.some(({ createdAt }) => createdAt < revokeBefore);
    const wanted = {
      ...(isCarriedOut(rotateBefore) ? {} : { rotateBefore }),
      ...(isRevoking ? { revokeBefore, revokeAnyway } : {}),
    };
    if (Object.keys(wanted).length === 0) return false;
    log('warn', 'an order was taken away before it was carried out; it is stored again', { credential });
    await keepStartOrders(credential, wanted, directives, ports);
    return !(isCarriedOut(rotateBefore) && isCarriedOut(revokeBefore));
  } catch (error) {
    if (error instanceof StoreError) return true;
    // An order that cannot be read stays so until an operator corrects it.
    if (error instanceof InputError) return false;
    throw error;
  }
}

/** One look at these credentials, and the starts that it allows. What could not be read is in `failed`, and read by the next look. */
async function lookAt(
  names: ReadonlySet<string>,
  starts: readonly QueuedStart[],
  known: Map<string, Credential>,
  run: StartRun,
): Promise<Pick<Started, 'started' | 'held' | 'failed'>> {
  const { rekey } = run;
  const unread: FailedRotation[] = [];
  const unknown = [...names].filter((name) => !known.has(name));
  const read = await inParallel(unknown, readingsAtOnce, (name) =>
    readOrdered(
      name,
      starts.flatMap(({ credential, orders }) => (credential === name ? (orders ?? []) : [])),
      unread,
      rekey,
    ),
  );
  for (const credential of read.flat()) known.set(credential.name, credential);
  const credentials = [...names].flatMap((name) => known.get(name) ?? []);
  try {
    const candidates = await readCandidates(credentials, unread, run);
    const { started, held, failed } = await startDue(
      [...candidates, ...(await rotatingBeside(credentials, rekey))],
      run,
    );
    return {
      started,
      held: held.filter(({ credential }) => names.has(credential)),
      failed: [...unread, ...failed],
    };
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    return { started: [], held: [], failed: [...names].map((name) => failureOf(name, error, rekey)) };
  }
}

/**
 * Other credentials of the same targets whose rotation is open: the target is busy. Of these nothing else counts, so they are planned as
 * if their rotation was switched off. If the members of a target are not noted, its orders do not wait for them.
 */
async function rotatingBeside(
  credentials: readonly Credential[],
  rekey: Rekey,
): Promise<readonly Candidate[]> {
  const { ports, log } = rekey;
  const targets = Map.groupBy(credentials, ({ spec }) => targetKey(spec.provider, spec.targetId));
  const found = await inParallel([...targets.values()], readingsAtOnce, async (ordered) => {
    const [first] = ordered;
    if (first === undefined) return [];
    try {
      const members = (await notedMembers(first.spec, rekey))?.credentials ?? [];
      const others = members.filter((name) => !ordered.some((each) => each.name === name));
      return await inParallel(others, readingsAtOnce, async (name): Promise<readonly Candidate[]> => {
        const secret = await ports.describeSecret({ secretId: secretName(name) });
        if (secret === 'absent' || openVersion(secret) === undefined) return [];
        const listed = { ...secret, rotationEnabled: false, isManaged: false };
        return [listedCandidate({ name, spec: first.spec, directives: {} }, listed)];
      });
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      log(
        'warn',
        'whether a target is busy could not be read; an ordered rotation does not wait for others',
        {
          target: first.spec.targetId,
          code: error.code,
        },
      );
      return [];
    }
  });
  return found.flat(2);
}

/** None where the credential is gone since, or its spec cannot be read. */
async function readOrdered(
  name: string,
  ordered: readonly StartOrders[],
  unread: FailedRotation[],
  rekey: Rekey,
): Promise<readonly Credential[]> {
  try {
    const { document, directives } = await readStandingOrders(name, rekey.ports, { isPatient: true });
    const spec = document === undefined ? undefined : await readableSpec(name, document, rekey);
    if (spec === undefined) return [];
    let standing = directives;
    for (const orders of ordered)
      standing = { ...standing, ...(await keepStartOrders(name, orders, standing, rekey.ports)) };
    return [{ name, spec, directives: standing }];
  } catch (error) {
    const failure = failureOf(name, error, rekey);
    // An unreadable order stays so until an operator corrects it. reconcile-users reports it.
    if (error instanceof StoreError) unread.push(failure);
    else if (!(error instanceof InputError)) throw error;
    return [];
  }
}
