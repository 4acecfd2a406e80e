import { directiveParameter, directivesByCredential, isRevoked } from '../core/directives.ts';
import { ProviderError, RotationRefused, VerificationFailed } from '../core/errors.ts';
import type { RotationEvent, RotationFacts } from '../core/events.ts';
import { jsonOf } from '../core/json.ts';
import { credentialNameOf, specParameterName } from '../core/names.ts';
import { passwordFrom, passwordLength } from '../core/password.ts';
import type { SecretDescription, SecretReplica, SecretVersion } from '../core/ports.ts';
import type { ChoosingProvider, IssuingProvider, Login, Provider } from '../core/provider.ts';
import {
  chooseUser,
  holderOf,
  isOwnUser,
  judge,
  type RotationStep,
  rotationStep,
  rotationSteps,
} from '../core/rotation.ts';
import { parseSecretValue, type SecretValue, secretString } from '../core/secret-value.ts';
import { Sensitive } from '../core/sensitive.ts';
import { type CredentialSpec, graceMs, parseSpec } from '../core/spec.ts';
import { formerPrefix, maximumAttempts, type Usernames, usernames } from '../core/username.ts';
import { type Rekey, untilFound } from './rekey.ts';
import { openTarget, sameLogin } from './target.ts';

/**
 * One step of a rotation, as Secrets Manager asks for it. Each step re-reads the world and may run again at any time;
 * whatever it finds done, it leaves. AWSCURRENT moves only in finishSecret, to a value that has just logged in.
 *
 * Throws RotationRefused when the step may not go on, InputError when something stored is wrong, ProviderError,
 * VerificationFailed or StoreError when something outside failed; Secrets Manager then retries the whole rotation.
 */
export async function rotateSecret(event: RotationEvent, until: Date, rekey: Rekey): Promise<void> {
  const step = rotationStep(event.step);
  if (step === undefined)
    throw new RotationRefused(
      'STEP_UNKNOWN',
      `got step ${JSON.stringify(event.step.slice(0, 40))}, expected one of ${rotationSteps.join(', ')}`,
    );
  const description = await describe(event, rekey);
  const verdict = judge(description, event.token);
  if (verdict.say === 'refuse') throw new RotationRefused(verdict.reason, verdict.advice);
  // A run that died after moving AWSCURRENT may have left its conclusion undone: finishSecret comes back for that alone.
  if (verdict.say === 'done' && step !== 'finishSecret') return;

  const rotation = await gather(event, description, until, rekey);
  try {
    if (verdict.say === 'proceed') {
      await steps[step](rotation);
      if (step === 'finishSecret') rekey.measure('RotationsSucceeded', 1);
    } else await conclude(rotation);
    rekey.log('info', `${step} ${verdict.say === 'done' ? 'had been done' : 'done'}`, { ...rotation.facts });
  } catch (error) {
    await reportFailure(rotation, step, error);
    throw error;
  }
}

/** Everything a step decides on, gathered once. */
interface Rotation {
  readonly event: RotationEvent;
  readonly description: SecretDescription;
  readonly spec: CredentialSpec;
  /** Opened when first needed: a rotation that is only tested may come before there is an API key. */
  readonly provider: () => Promise<Provider>;
  readonly names: Usernames;
  readonly current: SecretValue;
  /** When the login in AWSCURRENT became current, at the latest that can be told. */
  readonly switchedAt: Date | undefined;
  readonly currentMadeAt: Date | undefined;
  readonly until: Date;
  readonly facts: RotationFacts;
  readonly rekey: Rekey;
}

const steps = {
  createSecret,
  setSecret,
  testSecret,
  finishSecret,
} as const satisfies Record<RotationStep, (rotation: Rotation) => Promise<void>>;

/** Afterwards the new login is stored as AWSPENDING, once for this token, and never another one. */
async function createSecret(rotation: Rotation): Promise<void> {
  if ((await readPending(rotation, 1)) !== undefined) return;
  refuseOtherPrefix(rotation);
  const provider = await rotation.provider();
  const state = await provider.readiness();
  if (!state.ready)
    throw new ProviderError(
      `${rotation.facts.target} is not ready: ${state.reason}; nothing was changed, Secrets Manager tries again`,
      { code: 'TARGET_NOT_READY', effect: 'none', provider: provider.id, operation: 'readiness' },
    );
  const login =
    provider.passwords === 'chosen-by-us'
      ? await chooseLogin(rotation, provider)
      : await issueLogin(rotation, provider);
  if (provider.passwords === 'chosen-by-us') return storePending(rotation, login);
  try {
    await storePending(rotation, login);
  } catch (error) {
    // The user is there all the same. What kept it from being stored is the error to be seen.
    await tellMade(rotation, login.username).catch(() =>
      rotation.rekey.log('error', 'a new user could not be told', { ...rotation.facts }),
    );
    throw error;
  }
  // Only now: until it is stored, a password that the vendor made is lost with the next user that anybody makes there, and
  // a bus that fails must not be what loses it. Dying before this line loses the event, which the user list makes up for.
  await tellMade(rotation, login.username);
}

async function storePending(rotation: Rotation, login: Login): Promise<void> {
  const { event, description, spec, rekey } = rotation;
  const written = await rekey.ports.writeSecret({
    secretId: description.arn,
    token: event.token,
    value: secretString(login, spec),
    label: 'AWSPENDING',
    ...(event.rotationToken === undefined ? {} : { rotationToken: event.rotationToken }),
  });
  // An earlier or parallel run of this step was first. Its value is the one; ours was given to nobody.
  if (written === 'taken') await requirePending(rotation);
}

/** Nothing is touched at the vendor: a crash from here on leaves a stored login whose user may not exist yet. */
async function chooseLogin(rotation: Rotation, provider: ChoosingProvider): Promise<Login> {
  const { event, spec, names, current, switchedAt, rekey } = rotation;
  const chosen = chooseUser(
    {
      strategy: spec.strategy,
      token: event.token,
      currentUsername: current.kind === 'login' ? current.login.username : undefined,
      switchedAt,
      graceMs: (await isCurrentRevoked(rotation)) ? 0 : graceMs(spec),
      now: await rekey.ports.now(),
    },
    names,
  );
  if (chosen.say === 'refuse')
    throw new RotationRefused(
      chosen.reason,
      `consumers may still use the other user until ${chosen.until.toISOString()}; Secrets Manager tries again, or use replace-user`,
    );
  const endpoint = await provider.endpoint();
  for (;;) {
    const password = passwordFrom(await rekey.ports.randomBytes(passwordLength));
    if (password !== 'redraw')
      return { ...endpoint, username: chosen.username, password: new Sensitive(password) };
  }
}

/** Somebody may know the current password who must not: then consumers that still use the idle user have no grace. */
async function isCurrentRevoked({ facts, currentMadeAt, rekey }: Rotation): Promise<boolean> {
  if (currentMadeAt === undefined) return false;
  const parameter = directiveParameter(facts.credential, 'revokeBefore');
  const document = await rekey.ports.readParameter({ parameter });
  if (document === 'absent') return false;
  const ordered = directivesByCredential([{ parameter, document }]).get(facts.credential);
  return ordered !== undefined && isRevoked(ordered, currentMadeAt);
}

/**
 * Names prove which users are ours. Under another prefix the users of all earlier versions could not be told from foreign ones
 * any more, and would stay for ever.
 */
function refuseOtherPrefix({ description, spec, current, rekey }: Rotation): void {
  if (current.kind !== 'login') return;
  const { username } = current.login;
  const former = formerPrefix(username, {
    secretArn: description.arn,
    versions: [...description.labelsByVersion.keys()],
    sha256: rekey.sha256,
  });
  if (former !== undefined && former !== spec.usernamePrefix)
    throw new RotationRefused(
      'SPEC_CONFLICT',
      `the users of this credential are called ${former}_…, the spec now says ${spec.usernamePrefix}; put usernamePrefix back, or request a new credential and delete this one`,
    );
}

/**
 * The user is made before anything is stored, as its password comes from the vendor. It is named after the token, which
 * Secrets Manager stored first: a run that dies here is found again by that name.
 */
async function issueLogin(rotation: Rotation, provider: IssuingProvider): Promise<Login> {
  const { event, names, facts, rekey } = rotation;
  for (let attempt = 0; attempt < maximumAttempts; attempt += 1) {
    const username = names.generation(event.token, attempt);
    await tellIntent(facts, username, rekey);
    const issued = await provider.issueUser(username);
    if (issued !== 'lost') return issued;
    rekey.log('warn', 'the password of a new user was lost, going on with the next name', {
      ...facts,
      username,
    });
    await tellMade(rotation, username);
  }
  throw new ProviderError(
    `the passwords of ${maximumAttempts} new users were lost; somebody else is creating users on ${facts.target} at the same time: stop that, then rotate again`,
    { code: 'PASSWORD_LOST', effect: 'applied', provider: provider.id, operation: 'issueUser' },
  );
}

/** Afterwards the vendor takes the pending login, with the declared privileges. AWSCURRENT's user is touched by reset-password only. */
async function setSecret(rotation: Rotation): Promise<void> {
  const { login } = await requirePending(rotation);
  const { spec } = rotation;
  const provider = await rotation.provider();
  switch (provider.passwords) {
    case 'chosen-by-provider':
      if (spec.verify === 'login') await untilAccepted(rotation, login);
      return;
    case 'chosen-by-us':
      await refuseForeignHost(rotation, provider, login);
      await tellIntent(rotation.facts, login.username, rotation.rekey);
      // Done by an earlier run: then the vendor must not be asked again, as it may refuse the same password twice.
      if (spec.verify === 'none' || (await provider.verify(login)) === 'rejected')
        await makeUser(rotation, provider, login);
      // After the password, as setting one has given rights back in the past (CockroachDB release notes, 2021-08-09).
      // Without a login of ours, too: a vendor whose privileges need one takes no `"verify": "none"`.
      await provider.applyPrivileges(login);
      return;
    default:
      return provider satisfies never;
  }
}

/** First: a vendor is asked to change nothing that the bus has not taken, so that whoever reads the record finds out who it was. */
const tellIntent = (facts: RotationFacts, username: string, { ports }: Rekey): Promise<void> =>
  ports.publish([{ type: 'DatabaseUserPlanned', detail: { ...facts, username } }]);

const tellMade = ({ facts, rekey }: Rotation, username: string): Promise<void> =>
  rekey.ports.publish([{ type: 'DatabaseUserCreated', detail: { ...facts, username } }]);

async function makeUser(rotation: Rotation, provider: ChoosingProvider, login: Login): Promise<void> {
  const { facts, rekey } = rotation;
  const { username, password: next } = login;
  if ((await provider.createUser(login)) === 'exists') {
    const current = await knownPassword(rotation, username);
    await provider.setPassword({
      username,
      next,
      ...(current === undefined ? {} : { current }),
      isIdle: rotation.current.kind !== 'login' || rotation.current.login.username !== username,
    });
    await rekey.ports.publish([{ type: 'DatabaseUserPasswordChanged', detail: { ...facts, username } }]);
  } else {
    await tellMade(rotation, username);
  }
  if (rotation.spec.verify === 'login') await untilAccepted(rotation, login);
}

/**
 * Changes nothing: Secrets Manager calls it alone when rotation is only configured, with an empty or a copied version. The
 * current login then only has to work: the rights of an adopted user are put in order by its first rotation.
 */
async function testSecret(rotation: Rotation): Promise<void> {
  const { current, spec } = rotation;
  if (spec.verify === 'none') return;
  const pending = await readPending(rotation, 5);
  const currentLogin = current.kind === 'login' ? current.login : undefined;
  if (pending === undefined || (currentLogin !== undefined && sameLogin(pending.login, currentLogin))) {
    if (currentLogin !== undefined) await untilAccepted(rotation, currentLogin);
  } else await prove(rotation, pending.login);
}

/** Afterwards AWSCURRENT is the pending version. The old user is not touched: it lives through its grace. */
async function finishSecret(rotation: Rotation): Promise<void> {
  const { event, description, spec, rekey } = rotation;
  const { login, createdAt } = await requirePending(rotation);
  // Once more, so that no order of steps, however forged or stale, publishes a login that does not work.
  if (spec.verify === 'login') await prove(rotation, login);

  let labels = description.labelsByVersion;
  for (let attempt = 1; ; attempt += 1) {
    const holder = holderOf(labels, 'AWSCURRENT');
    if (holder === event.token) break;
    const moved = await rekey.ports.moveLabel({
      secretId: description.arn,
      label: 'AWSCURRENT',
      to: event.token,
      ...(holder === undefined ? {} : { from: holder }),
    });
    if (moved === 'moved') break;
    // Somebody moved it since we read: decide again on what is true now, never by force.
    const now = await describe(event, rekey);
    const verdict = judge(now, event.token);
    if (verdict.say === 'refuse') throw new RotationRefused(verdict.reason, verdict.advice);
    if (attempt >= 5)
      throw new RotationRefused(
        'LABELS_MOVED',
        'AWSCURRENT kept moving while this rotation finished; rotate again',
      );
    labels = now.labelsByVersion;
  }
  await conclude(rotation, { username: login.username, createdAt });
}

/** What comes after the switch: nothing here decides anything, and all of it may be done twice. */
async function conclude(
  rotation: Rotation,
  made?: { username: string; createdAt: Date | undefined },
): Promise<void> {
  const { event, description, current, spec, facts, rekey } = rotation;
  const { ports } = rekey;
  // Both ends are legal, with AWSPENDING on the new current version or nowhere; without it the next rotation starts clean.
  // Killed from here on, the login is published, and the retry of finishSecret comes back here to tell of it.
  if (await haveReplicasFollowed(rotation))
    await ports.moveLabel({ secretId: description.arn, label: 'AWSPENDING', from: event.token });
  const username = made?.username ?? (current.kind === 'login' ? current.login.username : '');
  const since = made?.createdAt;
  await ports.publish([
    {
      type: 'CredentialRotated',
      detail: {
        ...facts,
        username,
        evidence: spec.verify === 'login' ? 'logged-in' : 'not-tested',
        // The password changed after this value was stored, so the refusal was no longer than this.
        ...(spec.strategy === 'reset-password' && since !== undefined
          ? { currentRefusedAtMostMs: (await ports.now()).getTime() - since.getTime() }
          : {}),
      },
    },
  ]);
}

/** How long a rotation waits for replicas in other Regions. */
const replicationMs = 30_000;

/**
 * Whether AWSPENDING may go as far as replicas are concerned. Taken off too early, it leaves a replica behind for good (observed by
 * square/password-rotation-lambda, which waits as long). One that has failed is not waited for: people have to mend it, and the
 * login must not wait for that.
 */
async function haveReplicasFollowed(rotation: Rotation): Promise<boolean> {
  const { event, description, facts, until, rekey } = rotation;
  const { ports } = rekey;
  if (description.replicas === undefined) return true;
  if (description.labelsByVersion.get(event.token)?.has('AWSPENDING') !== true) return true;
  const giveUpAt = Math.min((await ports.now()).getTime() + replicationMs, until.getTime());
  for (let wait = 500; ; wait = Math.min(wait * 2, 5_000)) {
    // First, as a replica that was in sync before the switch may be said to be so for a moment after it.
    await ports.sleep(wait);
    const now = await ports.describeSecret({ secretId: description.arn });
    const replicas = now === 'absent' ? [] : (now.replicas ?? []);
    const regions = (status: SecretReplica['status']) =>
      replicas.filter((replica) => replica.status === status).map(({ region }) => region);
    const behind = regions('in-progress');
    const hasTime = (await ports.now()).getTime() + wait < giveUpAt;
    if (behind.length > 0 && hasTime) continue;
    const failed = regions('failed');
    if (behind.length > 0)
      rekey.log('warn', 'replicas do not have the new login yet, so AWSPENDING stays on it', {
        ...facts,
        regions: behind,
      });
    if (failed.length > 0)
      rekey.log('warn', 'replicas have failed and keep the login before; mend what their status says', {
        ...facts,
        regions: failed,
        reasons: replicas.flatMap(({ reason }) => reason ?? []),
      });
    return behind.length === 0;
  }
}

// Facts.

/** The secret as described, read again while it does not know the token yet: the description may lag behind the rotation. */
async function describe(event: RotationEvent, rekey: Rekey): Promise<SecretDescription> {
  const description = await untilFound(
    rekey.ports,
    () => rekey.ports.describeSecret({ secretId: event.secretId }),
    (answer) => answer !== 'absent' && mayProceed(answer, event.token),
  );
  if (description === 'absent')
    throw new RotationRefused('SECRET_UNKNOWN', 'there is no such secret; check its ARN and region');
  return description;
}

/** Only these two refusals can be the lag of a description; the others are somebody's decision. */
function mayProceed(description: SecretDescription, token: string): boolean {
  const verdict = judge(description, token);
  return (
    verdict.say !== 'refuse' ||
    (verdict.reason !== 'VERSION_UNKNOWN' && verdict.reason !== 'VERSION_NOT_PENDING')
  );
}

async function gather(
  event: RotationEvent,
  description: SecretDescription,
  until: Date,
  rekey: Rekey,
): Promise<Rotation> {
  const { ports } = rekey;
  const name = credentialNameOf(description.name);
  if (name === undefined)
    throw new RotationRefused(
      'NOT_A_CREDENTIAL',
      'the secret is none of rekey; its name must be rekey/<credential>',
    );
  const [document, held] = await Promise.all([
    ports.readParameter({ parameter: specParameterName(name) }),
    ports.readSecret({ secretId: description.arn, label: 'AWSCURRENT' }),
  ]);
  if (document === 'absent')
    throw new RotationRefused(
      'SPEC_MISSING',
      `there is no ${specParameterName(name)}; put the spec back or delete the secret`,
    );
  if (held === 'absent')
    throw new RotationRefused(
      'VALUE_MISSING',
      'AWSCURRENT has no value; put back the first value that rekey wrote',
    );
  const spec = await parseSpec(jsonOf(document), rekey);
  const current = parseSecretValue(held.value, `AWSCURRENT of ${description.name}`);
  // Before any login: a value that names another place would have us send passwords there.
  if (current.kind === 'login' && (current.provider !== spec.provider || current.target !== spec.targetId))
    throw new RotationRefused(
      'SECRET_MISMATCH',
      `AWSCURRENT belongs to ${current.provider} ${current.target}, the spec to ${spec.provider} ${spec.targetId}; a credential does not move: request a new one`,
    );
  let opened: Promise<Provider> | undefined;
  return {
    event,
    description,
    spec,
    provider: () => {
      opened ??= openTarget(spec, until, rekey);
      return opened;
    },
    names: usernames({ secretArn: description.arn, prefix: spec.usernamePrefix }, rekey.sha256),
    current,
    // The later of the two: neither can be before the switch it stands for, and a longer grace locks nobody out.
    switchedAt: current.kind === 'login' ? latest(description.lastRotatedAt, held.createdAt) : undefined,
    currentMadeAt: held.createdAt,
    until,
    facts: {
      credential: name,
      provider: spec.provider,
      target: spec.targetId,
      strategy: spec.strategy,
      secretArn: description.arn,
      versionId: event.token,
    },
    rekey,
  };
}

const latest = (...dates: readonly (Date | undefined)[]): Date | undefined =>
  dates.reduce(
    (late, date) => (late === undefined || (date !== undefined && date > late) ? date : late),
    undefined,
  );

interface Pending {
  readonly login: Login;
  readonly createdAt: Date | undefined;
}

/**
 * The pending login, or undefined when Secrets Manager says that the version has no value. Read by version *and* label, so
 * that whatever else carries AWSPENDING is never taken for it. Throws SECRET_MISMATCH for a user that this rotation cannot
 * have chosen.
 */
async function readPending(rotation: Rotation, tries: number): Promise<Pending | undefined> {
  const { event, description, spec, names, current, rekey } = rotation;
  const found = await untilFound<SecretVersion | 'absent'>(
    rekey.ports,
    () => rekey.ports.readSecret({ secretId: description.arn, versionId: event.token, label: 'AWSPENDING' }),
    (answer) => answer !== 'absent',
    tries,
  );
  if (found === 'absent') return undefined;
  const value = parseSecretValue(found.value, `AWSPENDING of ${description.name}`);
  // A rotation that is only tested gets a copy of the current value.
  if (value.kind === 'no-user') return undefined;
  const currentUsername = current.kind === 'login' ? current.login.username : undefined;
  const copied = current.kind === 'login' && sameLogin(value.login, current.login);
  const own = isOwnUser(
    value.login.username,
    { strategy: spec.strategy, token: event.token, currentUsername },
    names,
    maximumAttempts,
  );
  if (!(own || copied) || value.provider !== spec.provider || value.target !== spec.targetId)
    throw new RotationRefused(
      'SECRET_MISMATCH',
      'AWSPENDING names a user or a target that this rotation did not choose; remove its label and rotate again',
    );
  return { login: value.login, createdAt: found.createdAt };
}

async function requirePending(rotation: Rotation): Promise<Pending> {
  const pending = await readPending(rotation, 5);
  if (pending === undefined)
    throw new RotationRefused(
      'VALUE_MISSING',
      'AWSPENDING has no value yet; Secrets Manager retries from createSecret',
    );
  return pending;
}

/** The password that a user of ours has now, for vendors that demand it: only one of these two versions can know. */
async function knownPassword(
  { description, current, rekey }: Rotation,
  username: string,
): Promise<Sensitive | undefined> {
  if (current.kind === 'login' && current.login.username === username) return current.login.password;
  const previous = await rekey.ports.readSecret({ secretId: description.arn, label: 'AWSPREVIOUS' });
  if (previous === 'absent') return undefined;
  const value = parseSecretValue(previous.value, `AWSPREVIOUS of ${description.name}`);
  return value.kind === 'login' && value.login.username === username ? value.login.password : undefined;
}

// Proof.

/** Before any login with a stored value: it must point where the vendor itself says that its consumers connect. */
async function refuseForeignHost(
  { facts }: Rotation,
  provider: ChoosingProvider,
  login: Login,
): Promise<void> {
  const { host, port } = await provider.endpoint();
  if (login.host !== host || login.port !== port)
    throw new RotationRefused(
      'SECRET_MISMATCH',
      `AWSPENDING points elsewhere than ${facts.target} does now; remove its label and rotate again`,
    );
}

/** The login works as a consumer would use it, with the declared privileges and no others. */
async function prove(rotation: Rotation, login: Login): Promise<void> {
  await untilAccepted(rotation, login);
  const differences = await (await rotation.provider()).privilegeDifferences(login);
  if (differences.length > 0)
    throw new VerificationFailed(
      'PRIVILEGES_DIFFER',
      `${login.username}: ${differences.join(', ')}; AWSCURRENT was not moved`,
    );
}

/** A new password may take a while to reach every gateway (poolers answer 28P01 meanwhile), so a no is asked again. */
async function untilAccepted(rotation: Rotation, login: Login): Promise<void> {
  const { until, rekey } = rotation;
  const { ports } = rekey;
  const provider = await rotation.provider();
  const giveUpAt = Math.min((await ports.now()).getTime() + 60_000, until.getTime());
  for (let wait = 250; (await provider.verify(login)) === 'rejected'; wait = Math.min(wait * 2, 5_000)) {
    if ((await ports.now()).getTime() + wait >= giveUpAt)
      throw new VerificationFailed(
        'CREDENTIAL_REJECTED',
        `${login.username} was refused with the pending password; AWSCURRENT was not moved, Secrets Manager tries again`,
      );
    await ports.sleep(wait);
  }
}

/** The error that stopped the rotation is the one to be seen: a bus that fails as well must not hide it. */
async function reportFailure({ facts, rekey }: Rotation, step: RotationStep, error: unknown): Promise<void> {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'DEFECT';
  const effect = error instanceof Error && 'effect' in error ? String(error.effect) : 'unknown';
  rekey.log('error', `${step} failed`, { ...facts, code, effect });
  rekey.measure('RotationsFailed', 1);
  try {
    await rekey.ports.publish([
      { type: 'CredentialRotationFailed', detail: { ...facts, step, code, effect } },
    ]);
  } catch {
    rekey.log('error', 'the failure could not be published', { ...facts, step });
  }
}
