import { InputError, StoreError } from '../core/errors.ts';
import type { Invocation } from '../core/events.ts';
import type { Credential } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { type CredentialSpec, parseSpec } from '../core/spec.ts';
import { inParallel } from './in-parallel.ts';
import { noteOrder, notePause, readStandingOrders } from './orders.ts';
import type { Rekey } from './rekey.ts';
import {
  type FailedRotation,
  failureOf,
  type HeldRotation,
  readCandidates,
  type StartedRotation,
  startDue,
} from './start-due.ts';

/**
 * Orders to rotate, apart from the fleet: in an emergency they come by the thousand. Each is stored first, with one reading and one
 * write. Then its credential is put into a queue that hands out each target to one worker at a time. A pass of start-rotations finds
 * every order that the queue has not carried out.
 */

/**
 * Afterwards the order is stored, and the rotation that it asks for is queued. Throws EVENT_INVALID for an order that is none for
 * start-rotations, SPEC_MISSING for one that names no credential.
 */
export async function takeOrder(
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
  await rekey.ports.enqueueStart([{ provider, targetId, credential, id }]);
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
  const run = { ...options, until, dryRun: false, rekey };
  const lookUntil = Math.min((await ports.now()).getTime() + waitMs, until.getTime()) - lookMs;
  const failed = new Map<string, FailedRotation>();
  const started: StartedRotation[] = [];
  let held: readonly HeldRotation[] = [];
  const names = [...new Set(starts.map(({ credential }) => credential))];
  const ordered = await inParallel(names, readingsAtOnce, (name) => readOrdered(name, failed, rekey));
  let left = ordered.flat();
  while (left.length > 0) {
    const unread: FailedRotation[] = [];
    const candidates = await readCandidates(left, unread, run);
    const look = await startDue(candidates, new Set(left.map(({ name }) => name)), run);
    for (const failure of [...unread, ...look.failed]) failed.set(failure.credential, failure);
    started.push(...look.started);
    const open = new Set([
      ...look.started.map(({ credential }) => credential),
      ...look.held.flatMap(({ credential, reason }) =>
        reason === 'TARGET_BUSY' || reason === 'CHANGED' ? [credential] : [],
      ),
    ]);
    const isDone = (name: string): boolean => started.some(({ credential }) => credential === name);
    held = [
      ...held.filter(({ credential }) => !left.some(({ name }) => name === credential)),
      ...look.held.filter(({ credential }) => !isDone(credential)),
    ];
    left = left.filter(({ name }) => open.has(name));
    if (left.length === 0 || (await ports.now()).getTime() > lookUntil) break;
    await ports.sleep(lookMs);
  }
  for (const { credential, ...why } of held)
    log('warn', 'an ordered rotation is left to the next passes', { credential, ...why });
  return {
    started,
    held,
    failed: starts.flatMap(({ messageId, credential }) => (failed.has(credential) ? [messageId] : [])),
  };
}

/** None where the credential is gone since, or its spec cannot be read. */
async function readOrdered(
  name: string,
  failed: Map<string, FailedRotation>,
  rekey: Rekey,
): Promise<readonly Credential[]> {
  try {
    const { document, directives } = await readStandingOrders(name, rekey.ports);
    const spec = document === undefined ? undefined : await readableSpec(name, document, rekey);
    return spec === undefined ? [] : [{ name, spec, directives }];
  } catch (error) {
    const failure = failureOf(name, error, rekey);
    // An order that cannot be read stays so until somebody corrects it, which reconcile-users asks for.
    if (error instanceof StoreError) failed.set(name, failure);
    else if (!(error instanceof InputError)) throw error;
    return [];
  }
}
