import { isNamedLikeOurs } from '../core/drift.ts';
import { ProviderError } from '../core/errors.ts';
import type { CredentialFacts, TargetGone, UserChange } from '../core/events.ts';
import { type Credential, storedSpec, targetKeysOf } from '../core/fleet.ts';
import { type CredentialVersions, carriesPrefix, graceMarginMs, ownership } from '../core/generations.ts';
import { type Fact, Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { secretName, specParameterName } from '../core/names.ts';
import type { DatabaseUser } from '../core/provider.ts';
import { type Ending, judgeEndingUser, judgeUser } from '../core/retirement.ts';
import { openVersion } from '../core/rotation.ts';
import { parseSpec } from '../core/spec.ts';
import { maximumPlaceholders, placeholderUsername } from '../core/username.ts';
import { forgetTargets } from './former-targets.ts';
import { labelsUnchanged, notPaused, sameDeletion, sameLabels, stillEnding } from './guarded-write.ts';
import { buryCredential, forgetOrders, keepDirective } from './orders.ts';
import { betweenWords, type Candidate, retireUsers, type Scene, secondReadingMs } from './retire-users.ts';
import { readUserVersions, readVersions } from './target.ts';

/** How far the deletion of a credential has come in this pass. */
export type DeletionStage =
  | 'would-delete'
  /** The vendor says that the target is gone, and has not said it for long enough to be believed. */
  | 'target-gone'
  /** Its users are gone here, and not from another target that versions of its secret name. */
  | 'other-targets-left'
  /** Its time was prolonged before it was over. */
  | 'stays'
  /** A rotation was begun or is being stopped; its users are left alone until it has ended for sure. */
  | 'rotation-open'
  | 'users-left'
  /** Its users are gone. The secret goes once its replicas in other Regions have. */
  | 'replicas-left'
  /** Its users are gone. The secret goes once writes are no longer paused. */
  | 'paused'
  | 'deleted';

export interface Emptied {
  readonly stage: Exclude<DeletionStage, 'deleted' | 'paused' | 'target-gone' | 'other-targets-left'>;
}
/** Its users are gone: what is left is to delete the secret and what was ordered. */
export interface Empty {
  readonly stage: 'empty';
  /** `gone`: those of its targets that are gone, with the users in them. */
  readonly finish: (gone: readonly TargetGone[]) => Promise<DeletionStage>;
}

/** A secret can be restored for so long (AWS documentation: 7 to 30 days). */
const recoveryDays = 7;

/**
 * The first part of deleting a credential: rotation is off, and its users go. Each pass continues where the last one stopped; what
 * has been done is read from the world. `kept` are names that other credentials of the target speak for.
 *
 * In this order, as a pass may be killed anywhere: the order is durable, then rotation is off, then users go, then the secret with
 * its replicas first, and the order last. So a secret names a user that is gone only while rotation is off and the order stands, and
 * the names of its users can be derived until the last of them is gone.
 */
export async function emptyCredential(
  credential: Credential,
  ending: Ending,
  kept: ReadonlySet<string>,
  scene: Scene,
): Promise<Emptied | Empty> {
  const { rekey, dryRun } = scene;
  const { ports, sha256 } = rekey;
  if (dryRun) return { stage: 'would-delete' };
  if (credential.directives.deleteSince === undefined && !(await makeFinal(credential, ending, scene)))
    return { stage: 'stays' };

  let known = await readVersions(credential, rekey);
  if (known === 'absent') {
    // Just after a request the secret may not be there yet, or not be seen.
    await ports.sleep(secondReadingMs);
    known = await readVersions(credential, rekey);
  }
  if (known === 'absent') return withoutSecret(credential, ending, scene);
  if (known.secret.deletedAt === undefined) {
    const stopped = await stopRotation(known, scene);
    if (stopped === undefined) return { stage: 'rotation-open' };
    known = stopped;
  }

  let state = known;
  const own = (users: readonly DatabaseUser[]) =>
    users.flatMap((user) => {
      if (kept.has(user.username)) return [];
      const owned = ownership(user.username, state, sha256);
      const isLeft = owned?.by === 'adoption' && credential.spec.adopt?.retire !== true;
      return owned === undefined || isLeft ? [] : [{ user, versionId: owned.versionId }];
    });
  // Its version may have been dropped, and then only a value can tell which one that was.
  const isDoubtful = ({ username }: DatabaseUser): boolean =>
    (isNamedLikeOurs(username) || credential.spec.adopt?.username === username) &&
    !kept.has(username) &&
    ownership(username, state, sha256) === undefined;
  if (scene.listed.some(isDoubtful)) state = { ...state, userVersions: await readUserVersions(state, rekey) };
  const candidates = own(scene.listed)
    .toSorted((a, b) => Number(a.user.isDefault === true) - Number(b.user.isDefault === true))
    .map(({ user, versionId }): Candidate => {
      const judge: Candidate['judge'] = (observed) =>
        judgeEndingUser(user, state, ending, observed, scene.now);
      const prepare = (guard: Guard) => replaceDefault(user, state, guard, scene);
      return {
        user,
        credential: state,
        versionId,
        judge,
        isEnding: true,
        ...(user.isDefault === true ? { prepare } : {}),
      };
    });
  if (!(await retireUsers(candidates, scene))) return { stage: 'users-left' };
  if (scene.target.credentials.length === 1) await retirePlaceholders(scene);
  // Absence counts only when it was seen twice.
  for (const wait of [0, secondReadingMs]) {
    await ports.sleep(wait);
    if (own(await scene.list()).length > 0) return { stage: 'users-left' };
  }
  return (await mayStepRun(state, scene))
    ? { stage: 'rotation-open' }
    : {
        stage: 'empty',
        finish: unlessPaused(state, scene, (gone) => deleteSecret(state, { ending, gone }, scene)),
      };
}

const notPausedAnywhere = (credential: Credential, { rekey }: Scene): readonly Fact[] =>
  targetKeysOf(credential).map((key) => {
    const [provider = '', targetId = ''] = key.split('/');
    return notPaused({ provider, targetId }, rekey);
  });

const unlessPaused =
  (credential: Credential, scene: Scene, finish: Empty['finish']): Empty['finish'] =>
  async (gone) => {
    const askedAt = await scene.rekey.ports.now();
    const objections = await Promise.all(notPausedAnywhere(credential, scene).map((fact) => fact(askedAt)));
    return objections.every((objection) => objection === undefined) ? finish(gone) : 'paused';
  };

/**
 * Written down before anything is done, so that prolonging a spec that is half deleted brings back nothing. The spec is read once
 * more, as it may have been prolonged since.
 */
async function makeFinal(
  { name, spec, directives }: Credential,
  { at }: Ending,
  { rekey, now }: Scene,
): Promise<boolean> {
  const { ports } = rekey;
  const document = await ports.readParameter({ parameter: specParameterName(name) });
  if (document !== 'absent') {
    const { expiresAt } = await parseSpec(jsonOf(document), rekey);
    if (expiresAt === undefined || new Date(expiresAt) > now) return false;
  }
  rekey.log('info', 'the time of a credential is over', { credential: name, expiresAt: spec.expiresAt });
  await keepDirective(
    'earliest',
    { credential: name, kind: 'deleteSince', at, stored: directives.deleteSince },
    ports,
  );
  return true;
}

/** The state with rotation off and no half-made version; undefined when somebody began a rotation at the same time. */
async function stopRotation(
  known: CredentialVersions,
  { rekey, now }: Scene,
): Promise<CredentialVersions | undefined> {
  const { ports } = rekey;
  const guard = Guard.of(stillEnding(known, now, rekey));
  const { secret } = known;
  const open = openVersion(secret);
  if (!secret.rotationEnabled && open === undefined) return known;
  if (secret.rotationEnabled) await ports.cancelRotation({ secretId: secret.arn, guard });
  // Cancelling leaves it (AWS documentation). With it, no rotation could ever be started should the secret be restored.
  if (open !== undefined)
    await ports.moveLabel({ secretId: secret.arn, label: 'AWSPENDING', from: open, guard });
  const after = await readVersions(known, rekey);
  if (after === 'absent' || after.secret.rotationEnabled || openVersion(after.secret) !== undefined)
    return undefined;
  return after;
}

/**
 * Whether a step of a rotation may still be at work that has passed its guard before rotation was off, or a second one of a
 * rotation that has just ended: it would make a user again after both looks.
 */
async function mayStepRun({ secret, versions }: CredentialVersions, { rekey }: Scene): Promise<boolean> {
  const newest = versions.at(-1);
  if (newest === undefined || secret.deletedAt !== undefined) return false;
  const hasEnded = secret.labelsByVersion.get(newest.versionId)?.has('AWSCURRENT') === true;
  const last = [newest.createdAt, secret.lastRotatedAt, hasEnded ? undefined : secret.changedAt];
  const latest = Math.max(...last.map((date) => date?.getTime() ?? 0));
  return (await rekey.ports.now()).getTime() < latest + graceMarginMs;
}

/** Afterwards another user is the default, whose password is stored nowhere. */
async function replaceDefault(
  { username }: DatabaseUser,
  { name, spec, secret }: CredentialVersions,
  guard: Guard,
  scene: Scene,
): Promise<void> {
  const { rekey, target, listed, list } = scene;
  const { provider: providerId, targetId } = target;
  const provider = await scene.providerOf({ name, spec, directives: {} });
  if (provider.passwords === 'chosen-by-us')
    throw new ProviderError(
      `${username} is the default user of ${targetId}; make another one the default at the provider`,
      { code: 'BLOCKED', effect: 'none', provider: provider.id, operation: 'placeDefault' },
    );
  const names = Array.from({ length: maximumPlaceholders }, (_, turn) =>
    placeholderUsername({ provider: providerId, targetId, turn }, rekey.sha256),
  );
  // A user that was the default once cannot become it again: only a new one can.
  const free = names.find((placeholder) => !listed.some((user) => user.username === placeholder));
  if (free === undefined)
    throw new ProviderError(
      `${targetId} has ${maximumPlaceholders} users whose names begin with rekey_placeholder; delete those that are not the default`,
      { code: 'BLOCKED', effect: 'none', provider: provider.id, operation: 'placeDefault' },
    );
  const detail: UserChange = {
    credential: name,
    provider: providerId,
    target: targetId,
    strategy: spec.strategy,
    secretArn: secret.arn,
    username: free,
  };
  await betweenWords(
    {
      username,
      change: `place ${free}`,
      intent: { type: 'DatabaseUserPlanned', detail },
      failure: (failed) => ({ type: 'DatabaseUserChangeFailed', detail: { ...detail, ...failed } }),
    },
    () => provider.placeDefault(free, guard),
    scene,
  );
  await rekey.ports.publish([{ type: 'DatabaseUserCreated', detail }]);
  if ((await list()).some((user) => user.username === username && user.isDefault !== false))
    throw new ProviderError(
      `${username} is still the default user of ${targetId}; the next pass looks again`,
      {
        code: 'NOT_SETTLED',
        effect: 'applied',
        provider: provider.id,
        operation: 'placeDefault',
      },
    );
}

/** Those that are the default no more: with the last credential of the target goes the last who would look after them. */
async function retirePlaceholders(scene: Scene): Promise<void> {
  const { target, rekey } = scene;
  const { provider, targetId } = target;
  const names = new Set(
    Array.from({ length: maximumPlaceholders }, (_, turn) =>
      placeholderUsername({ provider, targetId, turn }, rekey.sha256),
    ),
  );
  if (!scene.listed.some(({ username }) => names.has(username))) return;
  const placeholders = (await scene.list()).filter(
    ({ username, isDefault }) => names.has(username) && isDefault === false,
  );
  await retireUsers(
    placeholders.map((user) => ({
      user,
      credential: undefined,
      judge: (observed) => judgeUser({ user, standing: { is: 'placeholder' } }, observed, scene.now),
    })),
    scene,
  );
}

/** Without the secret nobody can prove which users were its own: none may be forgotten, none may be guessed. */
function withoutSecret(credential: Credential, ending: Ending, scene: Scene): Emptied | Empty {
  const { name, spec } = credential;
  const left = scene.listed.filter(({ username }) => carriesPrefix(username, spec.usernamePrefix));
  for (const { username } of left)
    scene.findings.push({
      kind: 'DeletionBlocked',
      provider: spec.provider,
      target: spec.targetId,
      credential: name,
      username,
      details: `${secretName(name)} is gone, and with it the proof that the user is its own`,
      remedy: 'delete the user at the provider, if nobody uses it; then the credential goes',
    });
  return left.length > 0
    ? { stage: 'users-left' }
    : {
        stage: 'empty',
        finish: unlessPaused(credential, scene, (gone) => tellAndForget(credential, { ending, gone }, scene)),
      };
}

/** The second part: the secret, then everything that was ordered for it. */
async function deleteSecret(
  state: CredentialVersions,
  { ending, gone }: { readonly ending: Ending; readonly gone: readonly TargetGone[] },
  scene: Scene,
): Promise<DeletionStage> {
  const { secret } = state;
  const { ports } = scene.rekey;
  const now = await ports.describeSecret({ secretId: secret.arn });
  if (now !== 'absent' && now.deletedAt === undefined) {
    // A rotation that was started since would leave a user behind.
    if (now.rotationEnabled || !sameLabels(now, secret)) return 'rotation-open';
    // Secrets Manager deletes nothing that has replicas (AWS documentation). A pass that is killed between the two finds none.
    const guard = Guard.of(
      labelsUnchanged(secret, scene.rekey),
      stillEnding(state, scene.now, scene.rekey),
      ...notPausedAnywhere(state, scene),
    );
    if (now.replicas !== undefined)
      await ports.removeReplicas({
        secretId: secret.arn,
        regions: now.replicas.map(({ region }) => region),
        guard,
      });
    if ((await ports.deleteSecret({ secretId: secret.arn, recoveryDays, guard })) === 'replicated')
      return 'replicas-left';
  }
  return tellAndForget(state, { ending, gone }, scene);
}

async function tellAndForget(
  credential: Credential,
  { ending, gone }: { readonly ending: Ending; readonly gone: readonly TargetGone[] },
  scene: Scene,
): Promise<DeletionStage> {
  const { name, spec, moved } = credential;
  const facts: CredentialFacts = {
    credential: name,
    provider: spec.provider,
    target: moved?.to ?? spec.targetId,
    strategy: spec.strategy,
  };
  const isExpired = spec.expiresAt !== undefined && new Date(spec.expiresAt) <= ending.at;
  // Before the spec goes: a pass that is killed in between finds the secret scheduled or gone, and tells it again.
  await scene.rekey.ports.publish([
    {
      type: 'CredentialDeleted',
      detail: {
        ...facts,
        reason: isExpired ? 'expired' : 'requested',
        ...(gone.length === 0 ? {} : { targetsGone: gone }),
      },
    },
  ]);
  return forget(credential, ending, scene);
}

/**
 * The order last: without a spec it stands for nothing, and the next pass takes it away; a spec without it would come back. What
 * stays is when it was deleted: an order or a request that comes again, from an archive or a dead-letter queue, is older than that.
 */
async function forget(credential: Credential, { at }: Ending, { rekey }: Scene): Promise<DeletionStage> {
  const { name } = credential;
  const { ports } = rekey;
  const guard = Guard.of(sameDeletion(storedSpec(credential), at, rekey));
  // Before the tombstone, too: requests and orders of the next credential of the name would count as older than it.
  await guard.ask(await ports.now());
  await buryCredential(name, await ports.now(), ports);
  await ports.deleteParameter({ parameter: specParameterName(name), guard });
  await forgetTargets(name, rekey);
  await forgetOrders(name, ports);
  return 'deleted';
}
