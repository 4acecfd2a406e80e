import { type Directives, endsAt, isRevoked } from '../core/directives.ts';
import { abandonAfterMs, canRollForward, pendingVersion } from '../core/drift.ts';
import {
  InputError,
  ProviderError,
  RotationRefused,
  StoreError,
  VerificationFailed,
} from '../core/errors.ts';
import type { UserChange } from '../core/events.ts';
import type { Repair } from '../core/findings.ts';
import { isFormer, storedSpec } from '../core/fleet.ts';
import { type CredentialVersions, strayOf } from '../core/generations.ts';
import { type Fact, Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { type Login, sameEndpoint } from '../core/provider.ts';
import { holderOf } from '../core/rotation.ts';
import { firstSecretString } from '../core/secret-value.ts';
import { Sensitive } from '../core/sensitive.ts';
import { type CredentialSpec, parseSpec } from '../core/spec.ts';
import { currentUnchanged, notPaused, specUnchanged } from './guarded-write.ts';
import { readStandingOrders } from './orders.ts';
import { type Rekey, untilFound } from './rekey.ts';
import { isFinal, rotateSecret } from './rotate-secret.ts';
import type { Reading } from './survey-target.ts';
import { openTarget } from './target.ts';

/**
 * Ends an abandoned rotation so that the next one can start. If a login is stored, rolls it forward. Gives it up if no login is
 * stored, after six hours of failed attempts, under `alternate-users`, or at once if it can never go on or rotation is switched off.
 * Returns what was done, or undefined if another run was faster. Throws what kept it from being rolled forward while it is too young
 * to be given up, and PAUSED while writes are paused, unless publishing is what keeps consumers working.
 *
 * Where reset-password has changed the password in AWSCURRENT, giving up puts it back; where that cannot be done and the pending one
 * works, the pending one is published, although rotation may be switched off.
 *
 * Secrets Manager may call a step of this rotation at any moment, and one that it called before may be frozen anywhere (a zombie).
 * Rolling forward is what such a step does, too: each is safe beside the other. Giving up leaves it nothing to do:
 *  - between two steps, or before one: the guard finds no AWSPENDING, and refuses.
 *  - in createSecret: the version has a value, so its own is `taken`; it reads the one that is there, which names no user.
 *    The user that a vendor may have made meanwhile is named after the version, and retired as superseded.
 *  - in setSecret: it makes or changes the user of this version, which is superseded, or the idle one of a pair, whose password the
 *    next rotation sets again. The only user of reset-password gets a password that AWSCURRENT does not have: the next pass finds
 *    CurrentRejected, and a rotation sets another one.
 *  - in finishSecret: AWSCURRENT moves to a login that has just worked, which is what the rotation was for, and taking AWSPENDING
 *    off that version is how it ends. Only where the password of reset-password was set back in that very moment, AWSCURRENT is
 *    refused: CurrentRejected again.
 */
export async function endStuckRotation(
  reading: Reading,
  until: Date,
  rekey: Rekey,
): Promise<Extract<Repair, 'finish-rotation' | 'abandon-rotation'> | undefined> {
  const { ports, log } = rekey;
  const { state, pending: value } = reading;
  if (state === 'absent') return undefined;
  // No rotation, where the label is astray: there is nothing to finish, and the label is in the way of the next one.
  const pending = pendingVersion(state);
  const token = pending?.versionId ?? strayOf(state)?.versionId;
  if (token === undefined) return undefined;
  const secretId = state.secret.arn;
  if (pending !== undefined && !reading.isResetOpen) await refusePaused(reading, rekey);
  if (canRollForward(reading) && pending !== undefined) {
    try {
      // createSecret has done its part. Each step looks at the labels anew, and stops where somebody has moved them.
      const run = (step: string) => rotateSecret({ step, secretId, token }, until, rekey);
      await run('setSecret');
      await run('testSecret');
      // Secrets Manager would retry it. A move of AWSCURRENT that was carried out although its answer was an error ends the rotation,
      // so no later pass would come back to publish CredentialRotated.
      await run('finishSecret').catch((error: unknown) => {
        if (!(error instanceof StoreError)) throw error;
        return run('finishSecret');
      });
      return 'finish-rotation';
    } catch (error) {
      const age = (await ports.now()).getTime() - pending.madeAt.getTime();
      if (!isExpected(error) || error.code === 'PAUSED') throw error;
      if (age <= abandonAfterMs && !isFinal(error) && error.code !== 'ROTATION_DISABLED') throw error;
      log('warn', error.message, { credential: state.name, versionId: token });
    }
  }
  // Whatever the strategy is now: the values tell that setSecret may have changed the password in AWSCURRENT.
  if (pending !== undefined && reading.isResetOpen) {
    const refusal = await secureOnlyUser(reading, until, rekey);
    if (refusal !== undefined) {
      const isForGood = refusal === 'REVOKED' || refusal.code === 'REJECTED';
      // The vendor may carry it out later: then it would lock out whoever reads the pending one.
      if (!isForGood && refusal.effect !== 'none') throw refusal;
      if (await publishPending(reading, { secretId, token }, until, rekey)) return 'finish-rotation';
      // Only another rotation can help then, or a person: the finding CurrentRejected stays.
      if (!isForGood) throw refusal;
    }
  }
  // First, or a late createSecret would store a login and put AWSPENDING on it again. A version with a value is also kept by
  // Secrets Manager, which keeps the names of its users derivable. Repeating it writes the same value: nothing changes.
  const guard = Guard.of(stillUnfinished(secretId, token, rekey));
  if (
    value === 'empty' &&
    pending !== undefined &&
    (await ports.writeSecret({
      secretId,
      token,
      value: new Sensitive(firstSecretString),
      label: 'AWSPENDING',
      guard,
    })) === 'taken'
  )
    return undefined;
  const labels = await ports.describeSecret({ secretId });
  // finishSecret of another run was faster: then both labels are where a rotation may leave them.
  if (labels === 'absent' || labels.labelsByVersion.get(token)?.has('AWSCURRENT')) return undefined;
  // Taken off already where the version can never be published.
  if (!labels.labelsByVersion.get(token)?.has('AWSPENDING')) return 'abandon-rotation';
  const moved = await ports.moveLabel({ secretId, label: 'AWSPENDING', from: token, guard });
  return moved === 'moved' ? 'abandon-rotation' : undefined;
}

/** The version was not published meanwhile: AWSPENDING on it is what is left of a rotation. */
const stillUnfinished =
  (secretId: string, token: string, { ports }: Pick<Rekey, 'ports'>): Fact =>
  async () => {
    const now = await ports.describeSecret({ secretId });
    return now === 'absent' || now.labelsByVersion.get(token)?.has('AWSCURRENT')
      ? `${token} was published, or its secret is gone`
      : undefined;
  };

type Expected = InputError | RotationRefused | ProviderError | VerificationFailed | StoreError;

/** The credential is to stay, and its spec still names another target than this one. */
const stillMoved =
  (
    { name, targetId }: CredentialSpec,
    rekey: Rekey,
    also: (directives: Directives) => string | undefined,
  ): Fact =>
  async () => {
    const { document, directives } = await readStandingOrders(name, rekey.ports);
    if (document === undefined) return `the spec of ${name} was removed`;
    const now = await parseSpec(jsonOf(document), rekey);
    if (now.targetId === targetId) return `the spec of ${name} names ${targetId} again`;
    const ending = endsAt(directives, now);
    if (ending !== undefined && ending.at <= (await rekey.ports.now())) return `${name} is to be deleted`;
    return also(directives);
  };

/** Something outside, and no defect of ours. */
export const isExpected = (error: unknown): error is Expected =>
  error instanceof InputError ||
  error instanceof RotationRefused ||
  error instanceof ProviderError ||
  error instanceof VerificationFailed ||
  error instanceof StoreError;

/** What is told of a repair before the provider is asked for it: `current` is the login in AWSCURRENT. */
export function changeOf(
  { credential: { name, spec }, state }: Pick<Reading, 'credential' | 'state'>,
  current: Login,
  repair: Repair,
): UserChange {
  const versionId = state === 'absent' ? undefined : holderOf(state.secret.labelsByVersion, 'AWSCURRENT');
  if (state === 'absent' || versionId === undefined)
    throw new Error(`a login of ${name} was read, so it has a secret with AWSCURRENT`);
  return {
    credential: name,
    provider: spec.provider,
    target: spec.targetId,
    strategy: spec.strategy,
    secretArn: state.secret.arn,
    versionId,
    username: current.username,
    repair,
  };
}

/** What is called a repair changes nothing while writes are paused, not even a label. */
async function refusePaused({ credential: { spec } }: Reading, rekey: Rekey): Promise<void> {
  await Guard.of(notPaused(spec, rekey)).ask(await rekey.ports.now());
}

/**
 * Publishes the pending password of the only user, which works, where the one in AWSCURRENT cannot be put back: consumers would be
 * refused otherwise for as long as that lasts. Answers whether it was published. Throws what the next pass may mend.
 */
async function publishPending(
  { credential: { name, spec }, provider, currentLogin, pendingLogin }: Reading,
  version: { readonly secretId: string; readonly token: string },
  until: Date,
  rekey: Rekey,
): Promise<boolean> {
  if (provider === undefined || currentLogin === undefined || pendingLogin === undefined) return false;
  if (spec.verify === 'none' || !sameEndpoint(pendingLogin, currentLogin)) return false;
  if ((await provider.verify(pendingLogin)) === 'rejected') return false;
  try {
    await rotateSecret({ ...version, step: 'finishSecret', isOffIgnored: true }, until, rekey);
    return true;
  } catch (error) {
    if (!isExpected(error) || !isFinal(error)) throw error;
    rekey.log('warn', error.message, { credential: name, versionId: version.token });
    return false;
  }
}

function isCurrentRevoked({ secret, versions, directives }: CredentialVersions): boolean {
  const current = holderOf(secret.labelsByVersion, 'AWSCURRENT');
  const madeAt = versions.find(({ versionId }) => versionId === current)?.createdAt;
  return madeAt !== undefined && isRevoked(directives, madeAt);
}

/**
 * The one user has one password. Afterwards it is the one in AWSCURRENT, or it is answered what kept it from being set: the vendor, a
 * pause, or that it was revoked. Throws SUPERSEDED where something changed meanwhile: the next pass decides again.
 */
async function secureOnlyUser(
  reading: Reading,
  until: Date,
  rekey: Rekey,
): Promise<ProviderError | RotationRefused | 'REVOKED' | undefined> {
  const { ports, log } = rekey;
  const { current, currentLogin, pendingLogin, state } = reading;
  const { name, spec } = reading.credential;
  if (state === 'absent' || currentLogin === undefined || pendingLogin === undefined) return undefined;
  const { username, password: next } = currentLogin;
  if (pendingLogin.username !== username || current.say === 'unusable') return undefined;
  // Without its key nothing can be found out or mended: the label stays, as it is all that tells of the open reset.
  const provider = reading.provider ?? (await openTarget(spec, until, rekey));
  if (provider.passwords !== 'chosen-by-us') return undefined;
  // A password that was revoked is never set again, whatever it would mend.
  if (isCurrentRevoked(state)) return 'REVOKED';
  // No password would help its readers: they are sent elsewhere until the next rotation.
  if (current.say === 'elsewhere') return undefined;
  let isChanged = false;
  if (spec.verify === 'login') {
    // The pending one first: the current one may work a while longer at a gateway that has not heard of the change. One that
    // points elsewhere was never set at the vendor, and is sent nowhere.
    const isHere = sameEndpoint(pendingLogin, currentLogin);
    isChanged = isHere && (await provider.verify(pendingLogin)) === 'accepted';
    if (!isChanged && (await provider.verify(currentLogin)) === 'accepted') return undefined;
  }
  const detail = changeOf(reading, currentLogin, 'abandon-rotation');
  await ports.publish([{ type: 'DatabaseUserPlanned', detail }]);
  try {
    // AWSCURRENT may move to the pending password while this write waits: then it would lock out whoever reads it.
    const notRevoked = ({ revokeBefore }: Directives): string | undefined =>
      isCurrentRevoked({ ...state, directives: revokeBefore === undefined ? {} : { revokeBefore } })
        ? 'the password in AWSCURRENT was revoked'
        : undefined;
    const guard = Guard.of(
      currentUnchanged(detail.secretArn, detail.versionId ?? '', rekey),
      isFormer(reading.credential)
        ? stillMoved(spec, rekey, notRevoked)
        : specUnchanged(storedSpec(reading.credential), rekey, notRevoked),
      notPaused(spec, rekey),
    ).and(async () =>
      !isChanged && spec.verify === 'login' && (await provider.verify(pendingLogin)) === 'accepted'
        ? 'the pending password works by now: the rotation can be rolled forward'
        : undefined,
    );
    await provider.setPassword({ username, next, current: [pendingLogin.password] }, guard);
  } catch (refusal) {
    // A vendor may take no password twice, or none without the one before, which nobody knows.
    const isPaused = refusal instanceof RotationRefused && refusal.code === 'PAUSED';
    if (!(refusal instanceof ProviderError || isPaused)) throw refusal;
    log('warn', refusal.message, { credential: name, code: refusal.code });
    const { code, effect } = refusal;
    await ports.publish([{ type: 'DatabaseUserChangeFailed', detail: { ...detail, code, effect } }]);
    return refusal;
  }
  await ports.publish([{ type: 'DatabaseUserPasswordChanged', detail }]);
  if (spec.verify === 'none') return undefined;
  const answer = await untilFound(
    ports,
    () => provider.verify(currentLogin),
    (said) => said === 'accepted',
  );
  if (answer === 'rejected')
    log('warn', 'the current password was set again and is still refused', { credential: name });
  return undefined;
}
