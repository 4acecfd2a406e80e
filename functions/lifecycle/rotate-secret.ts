import { type Directives, endsAt, isRevoked } from '../core/directives.ts';
import {
  InputError,
  ProviderError,
  RotationRefused,
  StoreError,
  VerificationFailed,
} from '../core/errors.ts';
import type { RotationEvent, RotationFacts } from '../core/events.ts';
import {
  type CredentialVersions,
  maxLiveUsers,
  mayBeOwn,
  type Ownership,
  standings,
  usersInTheWay,
} from '../core/generations.ts';
import { type Fact, Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { credentialNameOf, specParameterName } from '../core/names.ts';
import { passwordFrom, passwordLength } from '../core/password.ts';
import type { SecretDescription, SecretReplica, SecretVersion } from '../core/ports.ts';
import {
  type ChoosingProvider,
  type IssuingProvider,
  type Login,
  type Provider,
  sameEndpoint,
} from '../core/provider.ts';
import {
  chooseUser,
  holderOf,
  isOwnUser,
  isStartedAt,
  judge,
  type RotationStep,
  rotationStep,
  rotationSteps,
  strayPending,
  type Verdict,
} from '../core/rotation.ts';
import { parseSecretValue, type SecretValue, secretString } from '../core/secret-value.ts';
import { Sensitive } from '../core/sensitive.ts';
import { type CredentialSpec, graceMs, parseSpec } from '../core/spec.ts';
import { maximumAttempts, type Usernames, usernames } from '../core/username.ts';
import { changeOfSpec, pauseOf } from './guarded-write.ts';
import { readOrdersAndPause, readStandingOrders, type StandingOrders } from './orders.ts';
import { type Rekey, untilFound } from './rekey.ts';
import {
  elsewhereIn,
  foreignUser,
  openTarget,
  ownershipIn,
  readLogin,
  readState,
  readVersions,
  resetsCurrent,
  sameLogin,
  sameVersionMs,
} from './target.ts';

/**
 * One step of a rotation, as Secrets Manager asks for it. Each step re-reads the world and may run again at any time;
 * whatever it finds done, it leaves. AWSCURRENT moves only in finishSecret, to a value that has just logged in.
 *
 * Throws RotationRefused when the step may not go on, InputError when something stored is wrong, ProviderError,
 * VerificationFailed or StoreError when something outside failed; Secrets Manager then retries the whole rotation.
 */
export async function rotateSecret(
  event: RotationEvent & {
    /** Rotation was switched off, and finishing this one is all that keeps consumers working. */
    readonly isOffIgnored?: boolean;
  },
  until: Date,
  rekey: Rekey,
): Promise<void> {
  const step = rotationStep(event.step);
  if (step === undefined)
    throw new RotationRefused(
      'STEP_UNKNOWN',
      `got step ${JSON.stringify(event.step.slice(0, 40))}, expected one of ${rotationSteps.join(', ')}`,
    );
  const described = await describe(event, rekey);
  const first = judgeStep(described.description, event);
  if (first.say === 'refuse') throw new RotationRefused(first.reason, first.advice);
  // A run that died after moving AWSCURRENT may have left its conclusion undone: finishSecret comes back for that alone.
  if (first.say === 'done' && step !== 'finishSecret') return;

  let rotation: Rotation;
  try {
    rotation = await gather(event, step, described, until, rekey);
  } catch (error) {
    await giveUp(event, error, undefined, rekey);
    throw error;
  }
  const verdict = judgeStep(rotation.description, event);
  if (verdict.say === 'refuse') throw new RotationRefused(verdict.reason, verdict.advice);
  try {
    if (verdict.say === 'proceed') {
      assertPending(rotation);
      await rotation.guards.seed(step);
      await steps[step](rotation);
      if (step === 'finishSecret') rekey.measure('RotationsSucceeded', 1);
    } else await conclude(rotation, publishedBefore(rotation));
    rekey.log('info', `${step} ${verdict.say === 'done' ? 'had been done' : 'done'}`, { ...rotation.facts });
  } catch (error) {
    // Two runs of one step do the same: if the other one has published this version, only its conclusion may be left to do.
    if (isSuperseded(error) && (await isPublishedNow(rotation))) {
      if (step === 'finishSecret') {
        const published = await gather(event, step, await describe(event, rekey), until, rekey);
        await conclude(published, publishedBefore(published));
      }
      rekey.log('info', `${step} was superseded: another run has published this version`, {
        ...rotation.facts,
      });
      return;
    }
    await giveUp(event, error, rotation, rekey);
    await reportFailure(rotation, step, error);
    throw error;
  }
}

type Asked = Parameters<typeof rotateSecret>[0];

const judgeStep = (description: SecretDescription, { token, isOffIgnored = false }: Asked): Verdict =>
  judge(isOffIgnored ? { ...description, rotationEnabled: true } : description, token);

const isSuperseded = (error: unknown): boolean =>
  error instanceof RotationRefused && error.code === 'SUPERSEDED';

async function isPublishedNow({ event, description, rekey: { ports } }: Rotation): Promise<boolean> {
  const now = await ports.describeSecret({ secretId: description.arn });
  return now !== 'absent' && holderOf(now.labelsByVersion, 'AWSCURRENT') === event.token;
}

/** What no repetition of the same version mends. */
const finalCodes: ReadonlySet<string> = new Set([
  'SECRET_MISMATCH',
  'VERSION_REVOKED',
  'VERSION_NOT_PENDING',
  'ROLE_UNKNOWN',
  'SWITCH_UNDATED',
]);

/** Whether a rotation that failed like this is given up at once, instead of being tried until it counts as stuck. */
export const isFinal = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && finalCodes.has(String(error.code));

/**
 * Takes AWSPENDING off where the rotation can never succeed, so that its half-made user is retired and another rotation can start.
 * What stopped the rotation is the error to be seen: a label that cannot be moved is left to reconcile-users.
 */
async function giveUp(
  event: RotationEvent,
  error: unknown,
  rotation: Rotation | undefined,
  rekey: Rekey,
): Promise<void> {
  const { ports, log } = rekey;
  if (!isFinal(error)) return;
  const isStillUseless: Fact = async () => {
    const now = await ports.describeSecret({ secretId: event.secretId });
    return now === 'absent' || now.labelsByVersion.get(event.token)?.has('AWSCURRENT')
      ? `${event.token} is published or gone`
      : undefined;
  };
  try {
    if (!isStray(error) && (await isLabelNeeded(event, rotation, rekey))) {
      log(
        'warn',
        'AWSPENDING stays on a version that can never be published: reconcile-users ends the rotation',
        {
          versionId: event.token,
        },
      );
      return;
    }
    const label = { secretId: event.secretId, label: 'AWSPENDING', from: event.token } as const;
    await ports.moveLabel({ ...label, guard: Guard.of(isStillUseless) });
  } catch (refusal) {
    if (!(refusal instanceof StoreError || refusal instanceof RotationRefused)) throw refusal;
    log('warn', 'AWSPENDING could not be taken off a version that can never be published', {
      versionId: event.token,
      code: refusal.code,
    });
  }
}

/** The label is on a version that is no rotation: nothing was done for it. */
const isStray = (error: unknown): boolean =>
  error instanceof RotationRefused &&
  (error.code === 'VERSION_REVOKED' || error.code === 'VERSION_NOT_PENDING');

/**
 * Whether AWSPENDING is all that tells what this rotation did: setSecret may have changed the password of the user in AWSCURRENT, or
 * made a user at another target than the spec names now. Without the label, consumers would be locked out, or that user would live
 * on without any finding.
 */
async function isLabelNeeded(
  { secretId, token }: RotationEvent,
  rotation: Rotation | undefined,
  rekey: Rekey,
): Promise<boolean> {
  const { ports } = rekey;
  const [current, pending] = await Promise.all([
    ports.readSecret({ secretId, label: 'AWSCURRENT' }),
    ports.readSecret({ secretId, versionId: token }),
  ]);
  if (current === 'absent' || pending === 'absent') return false;
  try {
    if (resetsCurrent(valueIn(current), valueIn(pending))) return true;
    if (rotation === undefined) return false;
    const { facts, spec, directives } = rotation;
    const known = await readVersions({ name: facts.credential, spec, directives }, rekey);
    return known !== 'absent' && elsewhereIn(pending, known, rekey) !== undefined;
  } catch (error) {
    // What is no value of rekey names no user of it.
    if (error instanceof InputError) return false;
    throw error;
  }
}

const valueIn = ({ versionId, value }: SecretVersion): SecretValue =>
  parseSecretValue(value, `version ${versionId}`);

/** Everything a step decides on, gathered once. */
interface Rotation {
  readonly event: Asked;
  readonly description: SecretDescription;
  readonly spec: CredentialSpec;
  /** What was ordered for the credential. */
  readonly directives: Directives;
  /** Opened when first needed: a rotation that is only tested may come before there is an API key. */
  readonly provider: () => Promise<Provider>;
  readonly names: Usernames;
  readonly current: SecretValue;
  /** How the user in AWSCURRENT is proved to be the credential's own; undefined before the first rotation. */
  readonly owned: Ownership | undefined;
  readonly currentVersionId: string;
  /** What the version holds that carries AWSPENDING; undefined where it had no value yet when the step began. */
  readonly pending: SecretVersion | undefined;
  /** When the versions were made that the labels name, as far as they have values. */
  readonly madeAt: ReadonlyMap<string, Date>;
  /** When the login in AWSCURRENT became current, at the latest that can be told. */
  readonly switchedAt: Date | undefined;
  /** Whether it may have become current later than that, as somebody moved AWSCURRENT by hand. */
  readonly isSwitchUndated: boolean;
  readonly currentMadeAt: Date | undefined;
  readonly until: Date;
  readonly facts: RotationFacts;
  readonly guards: Guards;
  readonly rekey: Rekey;
}

/** What a step decides on, except for the guards that are made from it. */
type Gathered = Omit<Rotation, 'guards'>;

const steps = {
  createSecret,
  setSecret,
  testSecret,
  finishSecret,
} as const satisfies Record<RotationStep, (rotation: Rotation) => Promise<void>>;

// Reasons.

/** What the step has read before it made its guards, and since when that is known. */
interface FirstLook {
  readonly askedAt: Date;
  readonly orders: StandingOrders;
  /** Undefined where it was not known yet of which target to ask. */
  readonly pause: { readonly since: Date | undefined } | undefined;
}

/** The reasons to change the secret, and those to change something at the vendor; each is the same for all writes of the step. */
interface Guards {
  readonly secret: Guard;
  readonly vendor: Guard;
  /**
   * Answers the guards with what the step has just read. A value that is stored within `freshMs` needs no second reading, because no
   * consumer uses it yet; nor does a change at the vendor under `replace-user`, whose user is new. Before AWSCURRENT moves, the labels
   * are read again, as consumers notice at once; only the orders may come from the first look. Under the other strategies everything is
   * read again, because the user may be in use.
   */
  seed(step: RotationStep): Promise<void>;
}

/**
 * Guards whose facts share their readings. Another run may publish this version meanwhile. What makes the stored login work at the
 * vendor, such as creating its user after a drop, is then still due; what takes a password or the user away would lock consumers out.
 */
function guardsOf(rotation: Gathered, first: FirstLook): Guards {
  const { description, facts, spec, rekey } = rotation;
  const { provider, targetId } = spec;
  const labels = sharedReading(() => rekey.ports.describeSecret({ secretId: description.arn }));
  const orders = sharedReading(() => readOrdersAndPause(facts.credential, { provider, targetId }, rekey));
  const pending =
    ({ orPublished }: { readonly orPublished: boolean }): Fact =>
    async (askedAt) =>
      whyNotPending(rotation, await labels.at(askedAt), orPublished);
  const wanted = (): Guard =>
    Guard.of(async (askedAt) =>
      whyUnwanted(rotation, askedAt === first.askedAt ? first.orders : await orders.at(askedAt)),
    );
  const ordered = wanted();
  const isSeeded = first.pause !== undefined && spec.strategy === 'replace-user';
  // Under the other strategies it needs its own guard: seeding `ordered` must not answer it.
  const orderedAndNotPaused = (isSeeded ? ordered : wanted()).and(async (askedAt) => {
    const known = askedAt === first.askedAt ? first.pause : undefined;
    return pauseOf(targetId, known === undefined ? (await orders.at(askedAt)).pausedSince : known.since);
  });
  const secret = ordered.and(async (askedAt) =>
    whyNotPending(rotation, askedAt === first.askedAt ? description : await labels.at(askedAt), false),
  );
  return {
    secret,
    vendor: orderedAndNotPaused
      .and(pending({ orPublished: true }))
      .takingOnlyIf(pending({ orPublished: false })),
    async seed(step) {
      const known = [step === 'finishSecret' ? ordered : secret, ...(isSeeded ? [orderedAndNotPaused] : [])];
      // Not an error here: the write asks again, if there is one.
      for (const guard of known)
        await guard.ask(first.askedAt).catch((error: unknown) => {
          if (!(error instanceof RotationRefused)) throw error;
        });
    },
  };
}

/** One reading for all facts of one question. */
function sharedReading<Answer>(read: () => Promise<Answer>) {
  let last: { readonly askedAt: Date; readonly answer: Promise<Answer> } | undefined;
  return {
    at(askedAt: Date): Promise<Answer> {
      if (last?.askedAt !== askedAt) last = { askedAt, answer: read() };
      return last.answer;
    },
  };
}

/** Undefined while the version carries AWSPENDING for a rotation in progress, and AWSCURRENT is where it was when this step was decided on. */
function whyNotPending(
  { event, description, currentVersionId, madeAt, directives }: Gathered,
  now: SecretDescription | 'absent',
  orPublished: boolean,
): string | undefined {
  if (now === 'absent') return `${description.name} is gone`;
  const verdict = judgeStep(now, event);
  if (verdict.say === 'refuse') return verdict.advice;
  if (verdict.say === 'done') return orPublished ? undefined : 'another run has published this version';
  if (holderOf(now.labelsByVersion, 'AWSCURRENT') !== currentVersionId)
    return `AWSCURRENT has moved away from ${currentVersionId}`;
  return strayPending(event.token, now, (version) => madeAt.get(version), directives)?.because;
}

/** Undefined while the credential is to stay as its spec says, and nobody has revoked this version. */
async function whyUnwanted(
  { event, spec, madeAt, rekey }: Gathered,
  orders: StandingOrders,
): Promise<string | undefined> {
  const changed = await changeOfSpec(spec, orders, rekey);
  if (changed !== undefined) return changed;
  const made = madeAt.get(event.token);
  return made !== undefined && isRevoked(orders.directives, made) ? `${event.token} was revoked` : undefined;
}

function assertPending({ event, description, madeAt, directives }: Rotation): void {
  const stray = strayPending(event.token, description, (version) => madeAt.get(version), directives);
  if (stray !== undefined)
    throw new RotationRefused(
      stray.code,
      `AWSPENDING is on ${event.token}, but ${stray.because}; the label is taken off, start a new rotation`,
    );
}

// Steps.

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
  if (provider.passwords === 'chosen-by-us') {
    const username = await chooseUsername(rotation);
    await assertRoomForUser(rotation, provider, username);
    return storePending(rotation, await chooseLogin(rotation, provider, username));
  }
  const others = await assertRoomForUser(rotation, provider, undefined);
  const login = await issueLogin(rotation, provider, others);
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
  const { event, description, spec, owned, rekey } = rotation;
  // The user of before: the version that it was made for may be dropped before the next rotation.
  const userVersion = isInUse(rotation, login) ? owned?.versionId : undefined;
  const written = await rekey.ports.writeSecret({
    secretId: description.arn,
    token: event.token,
    value: secretString(login, { ...spec, userVersion }),
    label: 'AWSPENDING',
    ...(event.rotationToken === undefined ? {} : { rotationToken: event.rotationToken }),
    guard: rotation.guards.secret,
  });
  // An earlier or parallel run of this step was first. Its value is the one; ours was given to nobody.
  if (written === 'taken') await requirePending(rotation);
}

/**
 * A rotation that fails again and again must not fill the target with logins: it refuses to make one more before the others are
 * retired. A rotation whose user is there already makes no user more, and needs no room. Answers how many users the credential has
 * beside those of this rotation.
 */
async function assertRoomForUser(
  rotation: Rotation,
  provider: Provider,
  chosen: string | undefined,
): Promise<number> {
  const { event, description, spec, directives, facts, names, current, rekey } = rotation;
  if (current.kind === 'login' && current.login.username === chosen) return 0;
  const users = await provider.listUsers();
  if (users.some(({ username }) => username === chosen)) return 0;
  const own = new Set(
    Array.from({ length: maximumAttempts }, (_, attempt) => names.generation(event.token, attempt)),
  );
  const possible = users.filter(({ username }) => !own.has(username) && mayBeOwn(username, spec)).length;
  // So few that there is room whatever each of them is. Where the vendor makes passwords, one more may be lost.
  if (possible < (provider.passwords === 'chosen-by-us' ? maxLiveUsers : maxLiveUsers - 1)) return possible;
  const state = await readState({ name: facts.credential, spec, directives }, rekey, { secret: description });
  if (state === 'absent') return 0;
  const known = standings(
    { provider: spec.provider, targetId: spec.targetId, users, credentials: [state] },
    rekey.sha256,
  ).filter(({ user }) => !own.has(user.username));
  const now = await rekey.ports.now();
  const inTheWay = usersInTheWay(known, spec.name, now);
  if (inTheWay.length > 0 && !(await isRoomInNeed()))
    throw new RotationRefused(
      'USERS_IN_THE_WAY',
      `${facts.target} still has ${inTheWay.join(', ')} of earlier rotations; they are retired first, see delete-user for what holds them`,
    );
  return known.filter(({ standing }) => 'credential' in standing && standing.is !== 'unversioned').length;

  async function isRoomInNeed(): Promise<boolean> {
    const isCurrentRefused = await isRefused(rotation, provider);
    return isCurrentRefused && usersInTheWay(known, spec.name, now, { isCurrentRefused }).length === 0;
  }
}

/** Whether the login in AWSCURRENT is of no use to anybody: refused more than once, as poolers do at times, or sent elsewhere. */
async function isRefused({ current, spec, rekey }: Rotation, provider: Provider): Promise<boolean> {
  if (current.kind !== 'login' || spec.verify === 'none') return false;
  const { login } = current;
  if (!sameEndpoint(login, await provider.endpoint())) return true;
  const answer = await untilFound(
    rekey.ports,
    () => provider.verify(login),
    (said) => said === 'accepted',
  );
  return answer === 'rejected';
}

async function chooseUsername(rotation: Rotation): Promise<string> {
  const { event, spec, names, current, switchedAt, isSwitchUndated, rekey } = rotation;
  const chosen = chooseUser(
    {
      strategy: spec.strategy,
      token: event.token,
      currentUsername: current.kind === 'login' ? current.login.username : undefined,
      switchedAt,
      isSwitchUndated,
      graceMs: isCurrentRevoked(rotation) ? 0 : graceMs(spec),
      now: await rekey.ports.now(),
    },
    names,
  );
  if (chosen.say === 'use') return chosen.username;
  throw new RotationRefused(
    chosen.reason,
    chosen.reason === 'GRACE_RUNNING'
      ? `consumers may still use the other user until ${chosen.until.toISOString()}; Secrets Manager tries again, or use replace-user`
      : 'AWSCURRENT was moved by hand, so nobody can tell in a rotation since when: consumers may still use the other user; send CredentialRotationRequested, which waits for its grace',
  );
}

/** Nothing is touched at the vendor: a crash from here on leaves a stored login whose user may not exist yet. */
async function chooseLogin(
  { rekey }: Rotation,
  provider: ChoosingProvider,
  username: string,
): Promise<Login> {
  const endpoint = await provider.endpoint();
  for (;;) {
    const password = passwordFrom(await rekey.ports.randomBytes(passwordLength));
    if (password !== 'redraw') return { ...endpoint, username, password: new Sensitive(password) };
  }
}

/** If the current password may have leaked, consumers that still use the idle user have no grace. */
const isCurrentRevoked = ({ directives, currentMadeAt }: Rotation): boolean =>
  currentMadeAt !== undefined && isRevoked(directives, currentMadeAt);

/**
 * Names prove which users are ours. Under another prefix the users of all earlier versions could not be told from foreign ones
 * any more, and would stay for ever.
 */
function refuseOtherPrefix({ spec, owned }: Rotation): void {
  if (owned?.by !== 'name') return;
  const { prefix: former } = owned;
  if (former !== spec.usernamePrefix)
    throw new RotationRefused(
      'SPEC_CONFLICT',
      `the users of this credential are called ${former}_…, the spec now says ${spec.usernamePrefix}; put usernamePrefix back, or request a new credential and delete this one`,
    );
}

/**
 * The user is made before anything is stored, as its password comes from the vendor. It is named after the token, which
 * Secrets Manager stored first: a run that dies here is found again by that name.
 */
async function issueLogin(rotation: Rotation, provider: IssuingProvider, others: number): Promise<Login> {
  const { event, names, facts, rekey } = rotation;
  // Each lost user is one more login that works, until retirement finds it no longer the default. Where there is room for one only,
  // the next rotation waits until the others are retired.
  const attempts = Math.min(maximumAttempts, Math.max(1, maxLiveUsers - others));
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const username = names.generation(event.token, attempt);
    await tellIntent(facts, username, rekey);
    // A version that was published has its user: another one would only be left over.
    const issued = await provider.issueUser(username, rotation.guards.vendor.taking);
    if (issued !== 'lost') return issued;
    rekey.log('warn', 'the password of a new user was lost, going on with the next name', {
      ...facts,
      username,
    });
    await tellMade(rotation, username);
  }
  throw new ProviderError(
    `the passwords of ${attempts} new users were lost; somebody else is creating users on ${facts.target} at the same time: stop that, then rotate again`,
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
      await assertVendorAddress(rotation, provider, login);
      if (spec.verify === 'login') await untilAccepted(rotation, login);
      return;
    case 'chosen-by-us':
      await assertVendorAddress(rotation, provider, login);
      await tellIntent(rotation.facts, login.username, rotation.rekey);
      // Done by an earlier run: then the vendor must not be asked again, as it may refuse the same password twice.
      if (spec.verify === 'none' || (await provider.verify(login)) === 'rejected') {
        if (isInUse(rotation, login)) await orderRightsFirst(rotation, provider);
        await makeUser(rotation, provider, login);
        // Of a user that nobody uses, its rights are part of what the provider has just promised; testSecret reads them again.
        if (!isInUse(rotation, login)) return;
      }
      // After the password, as setting one has given rights back in the past (CockroachDB release notes, 2021-08-09).
      // Without a login of ours, too: a vendor whose privileges need one takes no `"verify": "none"`.
      await orderRights(rotation, provider, login, { isRequired: !isInUse(rotation, login) });
      return;
    default:
      return provider satisfies never;
  }
}

/** Whether consumers log in as this user already, which reset-password alone asks for: what is done to it meets them at once. */
const isInUse = ({ current }: Rotation, { username }: Login): boolean =>
  current.kind === 'login' && current.login.username === username;

/**
 * Rights that cannot be put in order stop the rotation while the password of before still works. From then on nothing but the new
 * password may matter, or the only user would stay refused for as long as the vendor refuses its rights.
 */
async function orderRightsFirst(rotation: Rotation, provider: ChoosingProvider): Promise<void> {
  const { current, spec } = rotation;
  if (current.kind !== 'login') return;
  // Somebody has changed it: nothing is taken from anybody, and this rotation gives a password that works.
  const isRefused = spec.verify === 'login' && (await provider.verify(current.login)) === 'rejected';
  // Whoever knows it must lose it, whatever becomes of the rights.
  const isRequired = !isRefused && !isCurrentRevoked(rotation);
  if (!isRefused) await orderRights(rotation, provider, current.login, { isRequired });
}

/** Afterwards the rights are the declared ones, or, unless that is required, the failure is in the log: reconcile-users finds what is left. */
async function orderRights(
  rotation: Rotation,
  provider: ChoosingProvider,
  login: Login,
  { isRequired }: { readonly isRequired: boolean },
): Promise<void> {
  try {
    await provider.applyPrivileges(login, rotation.guards.vendor);
  } catch (error) {
    const isPaused = error instanceof RotationRefused && error.code === 'PAUSED';
    const isVendors = error instanceof ProviderError || error instanceof VerificationFailed;
    if (isRequired || !(isVendors || isPaused)) throw error;
    rotation.rekey.log('warn', 'the rights of the user in use could not be put in order', {
      ...rotation.facts,
      username: login.username,
      code: error.code,
    });
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
  if ((await provider.createUser(login, rotation.guards.vendor)) === 'exists') {
    const change = {
      username,
      next,
      current: rotation.spec.definition.capabilities.demandsCurrentPassword
        ? await knownPasswords(rotation, username)
        : [],
      isIdle: rotation.current.kind !== 'login' || rotation.current.login.username !== username,
    };
    await provider.setPassword(change, rotation.guards.vendor);
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
  const { event, description, currentVersionId, spec, rekey } = rotation;
  const { login, createdAt } = await requirePending(rotation);
  // Once more, so that no order of steps, however forged or stale, publishes a login that does not work.
  if (spec.verify === 'login') await prove(rotation, login);
  else await assertVendorAddress(rotation, await rotation.provider(), login);

  const moved = await rekey.ports.moveLabel({
    secretId: description.arn,
    label: 'AWSCURRENT',
    from: currentVersionId,
    to: event.token,
    guard: rotation.guards.secret,
  });
  // Somebody moved it since: never by force. Secrets Manager tries the rotation again, from what is true then.
  if (moved === 'conflict' && !(await isPublishedNow(rotation)))
    throw new RotationRefused(
      'LABELS_MOVED',
      'AWSCURRENT was moved while this rotation finished; Secrets Manager tries again',
    );
  await conclude(rotation, { username: login.username, createdAt });
}

interface Published {
  readonly username: string;
  readonly createdAt: Date | undefined;
}

/** Of a version that an earlier run has made current: what is read under AWSCURRENT. */
const publishedBefore = ({ current, currentMadeAt }: Rotation): Published => ({
  username: current.kind === 'login' ? current.login.username : '',
  createdAt: currentMadeAt,
});

/** Runs after AWSCURRENT has moved. Idempotent, and makes no decisions. */
async function conclude(rotation: Rotation, { username, createdAt: since }: Published): Promise<void> {
  const { event, description, spec, facts, rekey } = rotation;
  const { ports } = rekey;
  // Killed from here on, the login is published, and the retry of finishSecret comes back here to tell of it.
  const secretId = description.arn;
  // Not a reason to be read again: that this version was published stays true whatever comes after.
  const guard = Guard.of(async () => undefined);
  const published = holderOf(description.labelsByVersion, 'REKEY_PUBLISHED');
  if (published !== event.token)
    await ports.moveLabel({
      secretId,
      label: 'REKEY_PUBLISHED',
      to: event.token,
      ...(published === undefined ? {} : { from: published }),
      guard,
    });
  // Otherwise AWSPENDING stays: Secrets Manager takes it off when the rotation has succeeded, and on AWSCURRENT it opens no rotation.
  if (description.replicas !== undefined && (await haveReplicasFollowed(rotation)))
    await ports.moveLabel({ secretId, label: 'AWSPENDING', from: event.token, guard });
  // Where this comes again: Secrets Manager called the rotation done after the switch.
  const { lastRotatedAt } = description;
  const switchedBy =
    since !== undefined && lastRotatedAt !== undefined && lastRotatedAt > since
      ? lastRotatedAt
      : await ports.now();
  await ports.publish([
    {
      type: 'CredentialRotated',
      detail: {
        ...facts,
        username,
        evidence: spec.verify === 'login' ? 'logged-in' : 'not-tested',
        // The password changed after this value was stored, so the refusal was no longer than this.
        ...(spec.strategy === 'reset-password' && since !== undefined
          ? { currentRefusedAtMostMs: switchedBy.getTime() - since.getTime() }
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

/** A description, and when it was asked for. */
interface Described {
  readonly description: SecretDescription;
  readonly askedAt: Date;
}

/** The secret as described, read again while it does not know the token yet: the description may lag behind the rotation. */
async function describe(event: RotationEvent, rekey: Rekey): Promise<Described> {
  const { ports } = rekey;
  const { description, askedAt } = await untilFound(
    ports,
    async () => {
      const askedAt = await ports.now();
      return { description: await ports.describeSecret({ secretId: event.secretId }), askedAt };
    },
    ({ description: answer }) => answer !== 'absent' && mayProceed(answer, event.token),
  );
  if (description === 'absent')
    throw new RotationRefused('SECRET_UNKNOWN', 'there is no such secret; check its ARN and region');
  return { description, askedAt };
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
  event: Asked,
  step: RotationStep,
  described: Described,
  until: Date,
  rekey: Rekey,
): Promise<Rotation> {
  const { ports } = rekey;
  const { description, askedAt, held } = await readCurrent(event, described, rekey);
  const name = credentialNameOf(description.name);
  if (name === undefined)
    throw new RotationRefused(
      'NOT_A_CREDENTIAL',
      'the secret is none of rekey; its name must be rekey/<credential>',
    );
  const current = parseSecretValue(held.value, `AWSCURRENT of ${description.name}`);
  const patient = { isPatient: true };
  const place =
    current.kind === 'login' ? { provider: current.provider, targetId: current.target } : undefined;
  const orders =
    place === undefined
      ? { ...(await readStandingOrders(name, ports, patient)), pausedSince: undefined }
      : await readOrdersAndPause(name, place, rekey, patient);
  const { document, directives, pausedSince } = orders;
  if (document === undefined)
    throw new RotationRefused(
      'SPEC_MISSING',
      `there is no ${specParameterName(name)}; put the spec back or delete the secret`,
    );
  const spec = await parseSpec(jsonOf(document), rekey);
  const ending = endsAt(directives, spec);
  if (ending !== undefined && ending.at <= (await ports.now()))
    throw new RotationRefused(
      'DELETION_IN_PROGRESS',
      `${name} is to be deleted (${ending.reason}); nothing is rotated any more`,
    );
  // Before any login: a value that names another place would have us send passwords there.
  if (current.kind === 'login' && (current.provider !== spec.provider || current.target !== spec.targetId))
    throw new RotationRefused(
      'SECRET_MISMATCH',
      `AWSCURRENT belongs to ${current.provider} ${current.target}, the spec to ${spec.provider} ${spec.targetId}; a credential does not move: request a new one`,
    );
  const known = { name, spec, directives, secret: description, versions: [] };
  const owned = current.kind === 'login' ? await ownershipOf(current, known, rekey) : undefined;
  const isOpen = judgeStep(description, event).say === 'proceed';
  const pending = isOpen ? await readPendingVersion(event, description, rekey) : undefined;
  let opened: Promise<Provider> | undefined;
  const gathered: Gathered = {
    event,
    description,
    spec,
    directives,
    provider: () => {
      opened ??= openTarget(spec, until, rekey);
      return opened;
    },
    names: usernames({ secretArn: description.arn, prefix: spec.usernamePrefix }, rekey.sha256),
    current,
    owned,
    currentVersionId: held.versionId,
    pending,
    // testSecret changes nothing and publishes nothing, so it needs no dates.
    madeAt:
      step === 'testSecret'
        ? new Map()
        : await datesOf(description, { current: held, pending, token: event.token }, rekey),
    // The later of the two: neither can be before the switch it stands for, and a longer grace locks nobody out.
    switchedAt: current.kind === 'login' ? latest(description.lastRotatedAt, held.createdAt) : undefined,
    isSwitchUndated: isSwitchUndated(event, description, held, rekey),
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
  return {
    ...gathered,
    guards: guardsOf(gathered, { askedAt, orders, pause: place && { since: pausedSince } }),
  };
}

/**
 * How the user in AWSCURRENT is proved to be the credential's own. A rotation goes on from no other: `reset-password` would change the
 * password of whomever somebody has named there.
 */
async function ownershipOf(
  current: Extract<SecretValue, { readonly kind: 'login' }>,
  labelled: CredentialVersions,
  rekey: Rekey,
): Promise<Ownership> {
  const owned = ownershipIn(current, labelled, rekey);
  if (owned !== undefined) return owned;
  // Made for a version that has no label any more.
  const known = await readVersions(labelled, rekey);
  const proved = known === 'absent' ? undefined : ownershipIn(current, known, rekey);
  if (proved === undefined) throw foreignUser(current, `AWSCURRENT of ${labelled.secret.name}`);
  return proved;
}

/**
 * AWSCURRENT as one fact: the version that the description names is the version that is read. Each reading may be stale by itself,
 * and two that do not agree take the live user for the idle one, whose password is changed.
 */
async function readCurrent(
  event: RotationEvent,
  first: Described,
  rekey: Rekey,
): Promise<Described & { readonly held: SecretVersion }> {
  const { ports } = rekey;
  let described: Described | undefined = first;
  const { held, description, askedAt } = await untilFound(
    ports,
    async () => {
      const now = described ?? (await describe(event, rekey));
      described = undefined;
      const held = await ports.readSecret({
        secretId: now.description.arn,
        label: 'AWSCURRENT',
        maxAgeMs: 0,
      });
      return { ...now, held };
    },
    ({ description, held }) =>
      held === 'absent' || held.versionId === holderOf(description.labelsByVersion, 'AWSCURRENT'),
  );
  if (held === 'absent')
    throw new RotationRefused(
      'VALUE_MISSING',
      'AWSCURRENT has no value; put back the first value that rekey wrote',
    );
  if (held.versionId !== holderOf(description.labelsByVersion, 'AWSCURRENT'))
    throw new StoreError(
      'STORE_UNAVAILABLE',
      'none',
      `AWSCURRENT of ${description.name} was described on another version than was read; it is tried again`,
    );
  return { description, askedAt, held };
}

/**
 * Whether AWSCURRENT may have moved since the dates that a rotation can go by: Secrets Manager dates only the switches of rotations that
 * it has called itself. False where rekey started the rotation for this version, as it has judged the grace by all dates.
 */
function isSwitchUndated(
  { token }: RotationEvent,
  { labelsByVersion, lastRotatedAt }: SecretDescription,
  { versionId, createdAt }: SecretVersion,
  { sha256 }: Rekey,
): boolean {
  const isDated =
    lastRotatedAt !== undefined &&
    createdAt !== undefined &&
    lastRotatedAt >= createdAt &&
    holderOf(labelsByVersion, 'REKEY_PUBLISHED') === versionId;
  return !(isDated || isStartedAt(token, versionId, sha256));
}

/** By its version, of which the description says that it carries AWSPENDING: whatever else carries the label is never taken for it. */
async function readPendingVersion(
  { token }: RotationEvent,
  { arn }: SecretDescription,
  { ports }: Rekey,
): Promise<SecretVersion | undefined> {
  const found = await ports.readSecret({ secretId: arn, versionId: token, maxAgeMs: sameVersionMs });
  return found === 'absent' ? undefined : found;
}

/**
 * When the versions were made that tell whether the pending one is a rotation in progress. Before it has a value there is nothing to
 * compare: nothing was done for it yet, and its date is the one that its value gets.
 */
async function datesOf(
  { arn, labelsByVersion }: SecretDescription,
  {
    current,
    pending,
    token,
  }: { readonly current: SecretVersion; readonly pending: SecretVersion | undefined; readonly token: string },
  { ports }: Rekey,
): Promise<ReadonlyMap<string, Date>> {
  const dates = new Map<string, Date>();
  const date = ({ versionId, createdAt }: Pick<SecretVersion, 'versionId' | 'createdAt'>): void => {
    if (createdAt !== undefined) dates.set(versionId, createdAt);
  };
  date(current);
  if (pending === undefined) return dates;
  date(pending);
  const published = ['AWSPREVIOUS', 'REKEY_PUBLISHED'].flatMap(
    (label) => holderOf(labelsByVersion, label) ?? [],
  );
  for (const versionId of published) {
    if (dates.has(versionId) || versionId === token) continue;
    const found = await ports
      .readSecret({ secretId: arn, versionId, maxAgeMs: sameVersionMs })
      .catch((error: unknown) => {
        if (error instanceof StoreError) return 'unreadable' as const;
        throw error;
      });
    if (found === 'absent') continue;
    if (found !== 'unreadable' && found.createdAt !== undefined) date(found);
    else {
      // Its key may be gone, which must not keep the login after it from being replaced. The list tells the dates of all.
      const listed = await ports.listVersions({ secretId: arn });
      for (const each of listed === 'absent' ? [] : listed) if (each.versionId !== token) date(each);
    }
  }
  return dates;
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
 * The pending login, or undefined when Secrets Manager says that the version has no value. Throws SECRET_MISMATCH for a user that
 * this rotation cannot have chosen.
 */
async function readPending(rotation: Rotation, tries: number): Promise<Pending | undefined> {
  const { event, description, spec, names, current, rekey } = rotation;
  const found =
    rotation.pending ??
    (await untilFound(
      rekey.ports,
      () => readPendingVersion(event, description, rekey),
      (answer) => answer !== undefined,
      tries,
    ));
  if (found === undefined) return undefined;
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

/** How many versions are looked through for the password that a user has now. */
const maxPasswordsTried = 5;

/**
 * What the password of a user of ours may be now, for vendors that demand it, the likeliest first. A rotation that was given up may
 * have set its own: no label names that version, but Secrets Manager still has it.
 */
async function knownPasswords(
  { event, description, current, currentVersionId, spec, rekey }: Rotation,
  username: string,
): Promise<readonly Sensitive[]> {
  const { ports } = rekey;
  const listed = await ports.listVersions({ secretId: description.arn });
  const versions = listed === 'absent' ? [] : listed;
  const newestFirst = versions
    .toSorted((a, b) => b.createdAt.getTime() - a.createdAt.getTime())
    .map(({ versionId }) => versionId);
  const previous = holderOf(description.labelsByVersion, 'AWSPREVIOUS');
  const order = new Set([currentVersionId, ...(previous === undefined ? [] : [previous]), ...newestFirst]);
  const found: Sensitive[] = [];
  if (current.kind === 'login' && current.login.username === username) found.push(current.login.password);
  for (const versionId of order) {
    if (found.length >= maxPasswordsTried) break;
    if (versionId === event.token || versionId === currentVersionId) continue;
    const known = { spec, secret: description, versions };
    const login = await readLogin(versionId, known, rekey, sameVersionMs).catch(unusable);
    if (login?.username === username) found.push(login.password);
  }
  return found;
}

/** A version that holds no login of this target knows no password. */
function unusable(error: unknown): undefined {
  if (error instanceof InputError || error instanceof RotationRefused) return undefined;
  throw error;
}

// Proof.

/** A stored login must point where the vendor itself says that its consumers connect, or they would be sent elsewhere. */
async function assertVendorAddress({ facts }: Rotation, provider: Provider, login: Login): Promise<void> {
  if (!sameEndpoint(login, await provider.endpoint()))
    throw new RotationRefused(
      'SECRET_MISMATCH',
      `the stored login points elsewhere than ${facts.target} does now; its label is taken off, rotate again`,
    );
}

/**
 * The login works as a consumer would use it, with the declared privileges and no others. Of a user in use the password of before is
 * gone by now: its rights, which are no others than before, must not keep the new one from its consumers.
 */
async function prove(rotation: Rotation, login: Login): Promise<void> {
  const provider = await rotation.provider();
  await assertVendorAddress(rotation, provider, login);
  await untilAccepted(rotation, login);
  if (isInUse(rotation, login)) return;
  const differences = await provider.privilegeDifferences(login);
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
