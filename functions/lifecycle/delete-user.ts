import { isRevoked, readDirectives } from '../core/directives.ts';
import { InputError, ProviderError } from '../core/errors.ts';
import type { Invocation, SessionsEnd } from '../core/events.ts';
import { type Credential, type Target, targetKey, targetsOf } from '../core/fleet.ts';
import { type CredentialState, lastSwitch, standings } from '../core/generations.ts';
import { Guard } from '../core/guard.ts';
import { directivesPath, specParameterName } from '../core/names.ts';
import type { DatabaseUser, EndedSessions, Provider } from '../core/provider.ts';
import { endingOf, judgeUser } from '../core/retirement.ts';
import { holderOf } from '../core/rotation.ts';
import { announce } from './announce.ts';
import { type DeletionStage, type Empty, emptyCredential } from './delete-credential.ts';
import { readFleet } from './fleet.ts';
import { labelsUnchanged, notPaused } from './guarded-write.ts';
import { inParallel } from './in-parallel.ts';
import { forgetOrders, forgetTombstones, noteDeletion } from './orders.ts';
import type { Rekey } from './rekey.ts';
import {
  type Candidate,
  codeOf,
  endedBy,
  hold,
  isOthers,
  isUnclear,
  readNotes,
  retireUsers,
  type Scene,
  safeLogin,
  tellOutcomes,
  type UserReport,
} from './retire-users.ts';
import { openTarget, readState } from './target.ts';

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
  readonly credentials: readonly { readonly credential: string; readonly stage: DeletionStage }[];
}

/** So many targets are looked at at the same time; each waits for its vendor most of the time. */
const targetsAtOnce = 4;
/** Reading a target and its credentials takes so long; what is begun with less would be cut in the middle. */
const shortestVisitMs = 120_000;
/** How often the schedule comes, about: each time the round begins elsewhere. */
const roundMs = 900_000;
/** After a switch that was ordered because a password is known, connections of before are ended for so long. */
const revocationMs = 3_600_000;

/**
 * Retires superseded users and finishes deletions of credentials: on all targets, or on that of the credential which was rotated
 * or is to go. Everything is read from the world and done again until it is seen to be done; whoever cannot go now is reported with
 * the reason. Two passes at once do the same twice, which harms nobody.
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
  if (invocation.is === 'order') await noteDeletion(invocation, rekey);
  const dryRun = invocation.is === 'pass' && invocation.dryRun;
  const { credentials } = await readFleet(rekey);
  const targets = targetsOf(credentials);
  const errors: unknown[] = [];
  const writes = new Map<string, number>();
  const visits = await inParallel(
    invocation.is === 'pass'
      ? fromElsewhere(targets, await ports.now())
      : targets.filter((target) => target.credentials.some(({ name }) => name === invocation.credential)),
    targetsAtOnce,
    (target) => visit(target, { dryRun, until, writes, errors }, rekey),
  );
  if (invocation.is === 'pass' && !dryRun) {
    rekey.measure('RetiredStillConnectedAge', Math.max(0, ...visits.map(({ connectedS }) => connectedS)));
    await forgetLostOrders(rekey);
  }
  if (errors.length > 0) throw errors[0];
  return { dryRun, targets: visits.map(({ report }) => report) };
}

/**
 * The same targets or users, beginning at another place each time, so that a pass that is cut short leaves out others. Steps of the
 * golden ratio come near every place after few rounds.
 */
function fromElsewhere<Item>(items: readonly Item[], now: Date): readonly Item[] {
  const round = Math.floor(now.getTime() / roundMs);
  const start = Math.floor(((round * 0.618_033_988_749_895) % 1) * items.length);
  return [...items.slice(start), ...items.slice(0, start)];
}

/** What was ordered for credentials that are gone: a pass that died at the very end of a deletion left it. */
async function forgetLostOrders(rekey: Rekey): Promise<void> {
  const { ports } = rekey;
  const orders = await ports.listParameters({ path: directivesPath });
  // Asked one by one, as the list of specs may be older than the order. Without its spec nothing can be ordered for it.
  for (const [name, { deletedAt: _, ...standing }] of readDirectives(orders).directives)
    if (
      Object.keys(standing).length > 0 &&
      (await ports.readParameter({ parameter: specParameterName(name) })) === 'absent'
    )
      await forgetOrders(name, ports);
  await forgetTombstones(orders, ports);
}

interface Pass {
  readonly dryRun: boolean;
  readonly until: Date;
  /** How many writes are left, by API key. */
  readonly writes: Map<string, number>;
  readonly errors: unknown[];
}

interface Visit {
  readonly report: TargetReport;
  /** How long past its drain deadline the longest connected user is, in seconds. */
  readonly connectedS: number;
}

async function visit(target: Target, pass: Pass, rekey: Rekey): Promise<Visit> {
  const { provider, targetId } = target;
  const users: UserReport[] = [];
  const credentials: { credential: string; stage: DeletionStage }[] = [];
  const report = { provider, target: targetId, users, credentials };
  const skipped = (reason: string): Visit => ({ report: { ...report, skipped: reason }, connectedS: 0 });
  const now = await rekey.ports.now();
  if (pass.until.getTime() - now.getTime() < shortestVisitMs) return skipped('no time is left');
  try {
    const entered = await enter(target, pass, rekey);
    if (!entered.ready) return skipped(`the target is not ready: ${entered.reason}`);
    const scene: Scene = {
      rekey,
      until: pass.until,
      dryRun: pass.dryRun,
      now,
      target,
      listed: entered.listed,
      list: entered.list,
      providerOf: entered.providerOf,
      states: [],
      logins: new Map(),
      proofs: new Map(),
      notes: await readNotes(target, rekey),
      takeWrite: ({ spec }) => takeWrite(spec.apiKeySecret, spec.definition.capabilities.writes, pass.writes),
      users,
      findings: [],
      overdueMs: [],
      errors: pass.errors,
    };
    await tellOutcomes(scene);
    return { report, connectedS: await sweep(scene, credentials) };
  } catch (error) {
    const code = codeOf(error) ?? 'DEFECT';
    rekey.log('error', 'a target could not be swept', { provider, target: targetId, code });
    if (!isOthers(error)) pass.errors.push(error);
    return skipped(code);
  }
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
async function enter(target: Target, { until }: Pass, rekey: Rekey) {
  const opened = new Map<string, Promise<Provider>>();
  const providerOf = (credential: Credential): Promise<Provider> => {
    const known = opened.get(credential.name) ?? openTarget(credential.spec, until, rekey);
    opened.set(credential.name, known);
    return known;
  };
  const keys = new Set<string>();
  let failure: unknown;
  for (const credential of target.credentials) {
    if (keys.has(credential.spec.apiKeySecret)) continue;
    keys.add(credential.spec.apiKeySecret);
    try {
      const provider = await providerOf(credential);
      const readiness = await provider.readiness();
      if (!readiness.ready) return readiness;
      const list = (): Promise<readonly DatabaseUser[]> => provider.listUsers();
      return { ready: true as const, list, listed: await list(), providerOf };
    } catch (error) {
      const isKeys =
        error instanceof InputError || (error instanceof ProviderError && error.code === 'UNAUTHORIZED');
      if (!isKeys) throw error;
      failure ??= error;
    }
  }
  throw failure;
}

/** Answers how long past its drain deadline the longest connected user is, in seconds. */
async function sweep(
  empty: Scene,
  credentials: { credential: string; stage: DeletionStage }[],
): Promise<number> {
  const { rekey, target, listed, now } = empty;
  const { provider, targetId } = target;
  const living = target.credentials.filter((credential) => endingOf(credential, now) === undefined);
  const { states, unreadable } = await readStates(living, empty);
  const scene: Scene = { ...empty, states };
  const known = standings({ provider, targetId, users: listed, credentials: states }, rekey.sha256);

  const candidates = known.flatMap(({ user, standing }): readonly Candidate[] => {
    const judge: Candidate['judge'] = (observed) => judgeUser({ user, standing }, observed, now);
    if (standing.is === 'placeholder') {
      // One that is new may be about to become the default, for a credential that another pass is deleting.
      const isFree = living.length === target.credentials.length && user.isDefault === false;
      return isFree ? [{ user, credential: undefined, judge }] : [];
    }
    if (standing.is !== 'superseded') return [];
    const { credential, versionId } = standing;
    const candidate = { user, credential, versionId, judge };
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
  for (const state of states) await endOldSessions(state, scene);

  const empties: { credential: string; finish: Empty['finish'] }[] = [];
  for (const credential of target.credentials) {
    const ending = endingOf(credential, now);
    if (ending === undefined) continue;
    await seeTo(credential, scene, async () => {
      const emptied = await emptyCredential(credential, ending, keptNames(credential, scene), scene);
      if (emptied.stage === 'empty') empties.push({ credential: credential.name, finish: emptied.finish });
      else credentials.push({ credential: credential.name, stage: emptied.stage });
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
  // After the findings, as with its last credential the target is not looked at any more.
  for (const { credential, finish } of empties) {
    const found = target.credentials.find(({ name }) => name === credential);
    if (found !== undefined)
      await seeTo(found, scene, async () => void credentials.push({ credential, stage: await finish() }));
  }
  return Math.max(0, ...scene.overdueMs) / 1000;
}

/** One credential's trouble is its own. */
async function seeTo(credential: Credential, scene: Scene, use: () => Promise<void>): Promise<void> {
  try {
    await use();
  } catch (error) {
    scene.rekey.log('error', 'a credential could not be deleted', {
      credential: credential.name,
      target: scene.target.targetId,
      code: codeOf(error) ?? 'DEFECT',
    });
    if (!isOthers(error)) scene.errors.push(error);
  }
}

async function readStates(
  living: readonly Credential[],
  { rekey, errors }: Scene,
): Promise<{ readonly states: readonly CredentialState[]; readonly unreadable: readonly Credential[] }> {
  const states: CredentialState[] = [];
  const unreadable: Credential[] = [];
  for (const credential of living)
    try {
      const state = await readState(credential, rekey);
      // Without a secret there is no user that could be proved to be its own.
      if (state !== 'absent') states.push(state);
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

/** The users that other credentials of the target speak for. */
function keptNames({ name }: Credential, { target, states }: Scene): ReadonlySet<string> {
  return new Set(
    [
      ...target.credentials.filter((other) => other.name !== name).map((other) => other.spec.adopt?.username),
      ...states.flatMap(({ currentUsername, pendingUsername, previousUsername }) => [
        currentUsername,
        pendingUsername,
        previousUsername,
      ]),
    ].filter((username) => username !== undefined),
  );
}

/**
 * reset-password changed the password of a user that somebody may be connected as who must not: whatever was opened before the
 * switch ends. Looked at for a while only, as nothing tells that it was done.
 */
async function endOldSessions(state: CredentialState, scene: Scene): Promise<void> {
  const { rekey, now, dryRun } = scene;
  const { secret, versions, currentUsername, previousUsername, directives, name } = state;
  const switchedAt = secret.lastRotatedAt ?? lastSwitch(state);
  if (dryRun || currentUsername === undefined || currentUsername !== previousUsername) return;
  if (now.getTime() - switchedAt.getTime() > revocationMs) return;
  const [currentId, previousId] = ['AWSCURRENT', 'AWSPREVIOUS'].map((label) =>
    holderOf(secret.labelsByVersion, label),
  );
  const madeAt = (id: string | undefined) => versions.find(({ versionId }) => versionId === id)?.createdAt;
  const [current, previous] = [madeAt(currentId), madeAt(previousId)];
  if (current === undefined || previous === undefined || currentId === undefined) return;
  if (isRevoked(directives, current) || !isRevoked(directives, previous)) return;
  await seeTo(state, scene, async () => {
    // Only one that points where the vendor says: an administrator may be asked to end them, whose password goes nowhere else.
    const login = await safeLogin(state, currentId, scene);
    if (login === undefined) return;
    const provider = await scene.providerOf(state);
    const detail: SessionsEnd = {
      credential: name,
      provider: state.spec.provider,
      target: state.spec.targetId,
      strategy: state.spec.strategy,
      secretArn: secret.arn,
      versionId: currentId,
      username: currentUsername,
      openedBefore: switchedAt.toISOString(),
    };
    const tell = (ended: EndedSessions): Promise<void> =>
      rekey.ports.publish([
        {
          type: 'DatabaseSessionsEnded',
          detail: {
            ...detail,
            outcome: ended.ended ? 'ended' : 'not-ended',
            ...(ended.ended ? {} : { because: ended.reason }),
          },
        },
      ]);
    await rekey.ports.publish([{ type: 'DatabaseSessionsEndPlanned', detail }]);
    const guard = Guard.of(labelsUnchanged(secret, rekey), notPaused(scene.target, rekey));
    const asked = { username: currentUsername, login, openedBefore: switchedAt };
    const ended = await endedBy(provider, asked, guard).catch(async (error) => {
      await tell({ ended: false, reason: `asking for it failed with ${codeOf(error) ?? 'DEFECT'}` });
      throw error;
    });
    rekey.log(ended.ended ? 'info' : 'warn', 'sessions of a revoked password', {
      credential: name,
      username: currentUsername,
      ...ended,
    });
    scene.users.push({
      username: currentUsername,
      credential: name,
      outcome: ended.ended ? 'sessions-ended' : 'kept',
      because: ended.ended ? 'connections-ended' : 'connections-not-ended',
    });
    await tell(ended);
  });
}
