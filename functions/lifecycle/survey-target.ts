import { isRevoked } from '../core/directives.ts';
import {
  type CredentialReading,
  deleteGone,
  expectedUsers,
  isEnding,
  isNamedLikeOurs,
  type LoginReading,
  type PendingReading,
  type Snapshot,
  targetUnreadable,
} from '../core/drift.ts';
import {
  InputError,
  ProviderError,
  RotationRefused,
  StoreError,
  VerificationFailed,
} from '../core/errors.ts';
import type { Finding } from '../core/findings.ts';
import { type Credential, type FormerTarget, isFormer, type Target } from '../core/fleet.ts';
import {
  type CredentialState,
  type CredentialVersions,
  isOwn,
  type KnownUser,
  type Standing,
  standings,
} from '../core/generations.ts';
import { secretName } from '../core/names.ts';
import type { SecretDescription, VersionListing } from '../core/ports.ts';
import {
  type DatabaseUser,
  type Endpoint,
  type Login,
  type Provider,
  type Readiness,
  sameEndpoint,
} from '../core/provider.ts';
import { holderOf } from '../core/rotation.ts';
import { specDocument } from '../core/spec.ts';
import { consumerName, type OpenedConsumer, openConsumers } from './consumers.ts';
import { inParallel } from './in-parallel.ts';
import type { ReadTarget } from './members.ts';
import type { Rekey } from './rekey.ts';
import { elsewhereIn, openTarget, readVersions, sameLogin, storedIn, userVersionIn } from './target.ts';
import type { OpenedWebhooks } from './watch-webhooks.ts';

export interface Survey {
  readonly snapshot: Snapshot;
  /** By the name of the credential. */
  readonly readings: ReadonlyMap<string, Reading>;
  /** Why the target, or a part of it, could not be read; each needs somebody to act. */
  readonly unreadable: readonly Finding[];
  /** Something could not be read, so what was found before and is not seen now may be there still. */
  readonly isPartial: boolean;
  /** Of the users that were seen before, those who are gone: two complete lists, some seconds apart, both lack them. */
  readonly gone: readonly KnownUser[];
  /** Of the target's vendor, by each key that is there; none where it sends no webhooks. */
  readonly webhooks: readonly OpenedWebhooks[];
}

/** A credential as read, with what its repair needs. */
export interface Reading extends CredentialReading {
  /** Undefined where its key is of no use. */
  readonly provider: Provider | undefined;
  readonly currentLogin: Login | undefined;
  readonly pendingLogin: Login | undefined;
  readonly consumers: readonly (CredentialReading['consumers'][number] &
    Pick<OpenedConsumer, 'consumer' | 'intent'>)[];
  /** The other targets that its values name, with users of this credential. */
  readonly elsewhere: readonly FormerTarget[];
  readonly isPartial: boolean;
}

/** Between two readings where absence or a no counts: long enough for a list or a gateway to catch up. */
const secondLookMs = 5_000;
const readingsAtOnce = 5;
/** How many older versions are looked through for the one that AWSPREVIOUS belongs on. */
const mostOlderVersions = 10;

/**
 * Everything that can be seen of a target and its credentials, with one list call, and a second one where absence matters: that of
 * a user whom a credential needs, or who was seen before. Changes nothing. Throws what the next try may mend: a vendor or a store
 * that is busy or gone for the moment.
 */
export async function surveyTarget(
  target: Target,
  {
    hasBrokenSpecs: hadBrokenSpecs,
    readAgain,
    seen: seenBefore,
  }: {
    /** A spec that cannot be read may be of this target. */
    readonly hasBrokenSpecs: boolean;
    /** The same target as it is in the fleet now. */
    readonly readAgain: () => Promise<ReadTarget>;
    /** The names of the users that were seen before. */
    readonly seen: readonly string[];
  },
  until: Date,
  rekey: Rekey,
): Promise<Survey> {
  const { ports } = rekey;
  const { provider, targetId } = target;
  const now = await ports.now();
  const opened = await openAll(target.credentials, until, rekey);
  const entered = await enter(target, opened, rekey);
  const seen = (
    what: Pick<Snapshot, 'readiness' | 'users' | 'absent' | 'hasBrokenSpecs'>,
    readings: readonly Reading[],
    gone: readonly KnownUser[] = [],
  ): Survey => ({
    gone,
    webhooks: webhooksOf(target, opened),
    snapshot: { now, provider, targetId, credentials: readings, ...what },
    readings: new Map(readings.map((reading) => [reading.credential.name, reading])),
    unreadable: [...opened.unreadable, ...entered.unreadable],
    isPartial:
      entered.say !== 'listed' ||
      opened.unreadable.length + entered.unreadable.length > 0 ||
      readings.some(({ isPartial }) => isPartial),
  });
  const nothing = { users: [], absent: new Set<string>(), hasBrokenSpecs: false };
  if (entered.say !== 'listed')
    return seen({ ...nothing, readiness: entered.say === 'not-ready' ? entered.readiness : ready }, []);

  // Read after the list: whoever is listed has a version that was registered before, so it is seen now.
  const access = { ...opened, ...entered, now, until };
  const read = (credentials: readonly Credential[], users: readonly DatabaseUser[]) =>
    inParallel(credentials, readingsAtOnce, (credential) =>
      readCredential(credential, { ...access, listed: namesOf(users) }, rekey),
    );
  let { users } = entered;
  let hasBrokenSpecs = hadBrokenSpecs;
  let readings = await read(target.credentials, users);
  const first = namesOf(users);
  const doubts = doubtsOf(target, { users, readings, seenBefore, now }, rekey);
  if (doubts.areThere) {
    await ports.sleep(secondLookMs);
    users = await entered.list();
    // A credential that was requested since has users of its own already.
    const fresh = doubts.areForeign ? await readAgain() : { target, hasBrokenSpecs };
    hasBrokenSpecs = fresh.hasBrokenSpecs;
    const known = new Set(readings.map(({ credential }) => credential.name));
    const added = (fresh.target?.credentials ?? []).filter(({ name }) => !known.has(name));
    const again = await read(
      [
        ...readings.map(({ credential }) => credential).filter(({ name }) => doubts.about.has(name)),
        ...added,
      ],
      users,
    );
    const second = new Map(again.map((reading) => [reading.credential.name, reading]));
    readings = [
      ...readings.map((reading) => {
        const other = second.get(reading.credential.name);
        return other === undefined ? reading : agreed(reading, other);
      }),
      ...added.flatMap(({ name }) => second.get(name) ?? []),
    ];
  }
  const listedNow = namesOf(users);
  const isAbsent = (name: string): boolean => doubts.areThere && !first.has(name) && !listedNow.has(name);
  const gone = seenBefore.filter(isAbsent).map((username) => ({ username, isProtected: false }));
  return seen(
    {
      readiness: ready,
      // Of whoever came between the two lists the version may be younger than what was read: the next look can say whose it is.
      users: knownUsers(target, users, readings, rekey).filter(
        ({ user, standing: { is } }) => first.has(user.username) || !unproved.has(is),
      ),
      absent: new Set(expectedUsers({ credentials: readings, now }).filter(isAbsent)),
      hasBrokenSpecs,
    },
    readings,
    knownUsers(target, gone, readings, rekey),
  );
}

const ready: Readiness = { ready: true };

const unproved: ReadonlySet<Standing['is']> = new Set(['foreign', 'unversioned', 'protected']);

const namesOf = (users: readonly DatabaseUser[]): ReadonlySet<string> =>
  new Set(users.map(({ username }) => username));

/** A secret that is gone takes the proof of its users with it; that they carry its prefix is still to be seen. */
function knownUsers(
  { provider, targetId }: Target,
  users: readonly DatabaseUser[],
  readings: readonly Reading[],
  { sha256 }: Rekey,
): readonly KnownUser[] {
  const credentials = readings.map(({ credential, state }) =>
    state === 'absent' ? withoutSecret(credential) : state,
  );
  return standings({ provider, targetId, users, credentials }, sha256).map(({ user, standing }) => {
    // Made under another prefix than the spec has now; the rotation that refuses to go on like this is what gets reported.
    const owner =
      standing.is === 'foreign'
        ? credentials.find((credential) => isOwn(user.username, credential, sha256))
        : undefined;
    return { user, standing: owner === undefined ? standing : { is: 'idle', credential: owner } };
  });
}

const withoutSecret = (credential: Credential): CredentialState => ({
  ...credential,
  secret: {
    arn: '',
    name: secretName(credential.name),
    rotationEnabled: false,
    labelsByVersion: new Map(),
  },
  versions: [],
  ...nameless,
});

/** Where no value could be read. */
const nameless = { currentUsername: undefined, pendingUsername: undefined, previousUsername: undefined };

/** What one reading is not enough for: lists, descriptions and passwords lag behind. */
function doubtsOf(
  target: Target,
  {
    users,
    readings,
    seenBefore,
    now,
  }: {
    readonly users: readonly DatabaseUser[];
    readonly readings: readonly Reading[];
    readonly seenBefore: readonly string[];
    readonly now: Date;
  },
  rekey: Rekey,
): { readonly areThere: boolean; readonly areForeign: boolean; readonly about: ReadonlySet<string> } {
  const listed = namesOf(users);
  const known = knownUsers(target, users, readings, rekey);
  const about = new Set([
    ...readings
      .filter(({ state, current }) => state === 'absent' || current.say === 'rejected')
      .map(({ credential }) => credential.name),
    ...known.flatMap(({ standing }) => (standing.is === 'unversioned' ? [standing.credential.name] : [])),
  ]);
  // One that was seen before was looked up in the fleet then.
  const areForeign = known.some(
    ({ user: { username }, standing }) =>
      standing.is === 'foreign' && isNamedLikeOurs(username) && !seenBefore.includes(username),
  );
  const isMissing = [...expectedUsers({ credentials: readings, now }), ...seenBefore].some(
    (name) => !listed.has(name),
  );
  return { areThere: about.size > 0 || areForeign || isMissing, areForeign, about };
}

/** The second reading, where the first does not contradict it: a no counts when the same login was refused twice. */
function agreed(one: Reading, other: Reading): Reading {
  const isSame =
    one.currentLogin?.username === other.currentLogin?.username && currentOf(one) === currentOf(other);
  return other.current.say === 'rejected' && !(one.current.say === 'rejected' && isSame)
    ? { ...other, current: { say: 'not-tested' } }
    : other;
}

const currentOf = ({ state }: Reading): string | undefined =>
  state === 'absent' ? undefined : holderOf(state.secret.labelsByVersion, 'AWSCURRENT');

// Ways in.

interface Opened {
  /** By the name of the credential. */
  readonly providers: ReadonlyMap<string, Provider>;
  readonly unreadable: readonly Finding[];
}

/** One provider for all credentials that share key and rights, so that what it looks up is looked up once. */
async function openAll(credentials: readonly Credential[], until: Date, rekey: Rekey): Promise<Opened> {
  const groups = Map.groupBy(credentials, ({ spec }) =>
    JSON.stringify([spec.target, spec.apiKeySecret, spec.adminSecret, spec.privileges]),
  );
  const providers = new Map<string, Provider>();
  const unreadable: Finding[] = [];
  for (const [first, ...others] of groups.values()) {
    if (first === undefined) continue;
    try {
      const provider = await openTarget(first.spec, until, rekey);
      for (const { name } of [first, ...others]) providers.set(name, provider);
    } catch (error) {
      unreadable.push(unreadableBy(first, groups.size > 1, error, rekey));
    }
  }
  return { providers, unreadable };
}

/** Also of a target that cannot be looked at now: its vendor may be asked for webhooks all the same. */
function webhooksOf({ credentials }: Target, { providers }: Opened): readonly OpenedWebhooks[] {
  const byKey = new Map<string, OpenedWebhooks>();
  for (const { name, spec } of credentials) {
    const { provider, apiKeySecret } = spec;
    const webhooks = providers.get(name)?.webhooks;
    if (webhooks !== undefined && !byKey.has(apiKeySecret))
      byKey.set(apiKeySecret, { webhooks, provider, apiKeySecret });
  }
  return [...byKey.values()];
}

type Entered = { readonly unreadable: readonly Finding[] } & (
  | {
      readonly say: 'listed';
      readonly users: readonly DatabaseUser[];
      readonly list: () => Promise<readonly DatabaseUser[]>;
      /** Where stored logins must point. */
      readonly endpoint: Endpoint;
    }
  | { readonly say: 'not-ready'; readonly readiness: Readiness }
  | { readonly say: 'shut' }
);

/** The list of users, by the first key that opens: the keys of one target need not all be good. */
async function enter(
  { provider: vendor, targetId, credentials }: Target,
  { providers }: Opened,
  rekey: Rekey,
): Promise<Entered> {
  const byKey = Map.groupBy(
    credentials.filter(({ name }) => providers.has(name)),
    ({ spec }) => spec.apiKeySecret,
  );
  const unreadable: Finding[] = [];
  for (const [first] of byKey.values()) {
    const provider = first === undefined ? undefined : providers.get(first.name);
    if (first === undefined || provider === undefined) continue;
    try {
      const readiness = await provider.readiness();
      if (!readiness.ready) return { say: 'not-ready', readiness, unreadable };
      if (readiness.doubt !== undefined)
        rekey.log('warn', `the vendor said something unknown: ${readiness.doubt}`, {
          provider: vendor,
          target: targetId,
        });
      const users = await provider.listUsers();
      const endpoint = await provider.endpoint();
      return { say: 'listed', users, list: () => provider.listUsers(), endpoint, unreadable };
    } catch (error) {
      unreadable.push(unreadableBy(first, byKey.size > 1, error, rekey));
    }
  }
  return { say: 'shut', unreadable };
}

const transient: ReadonlySet<string> = new Set([
  'UNAVAILABLE',
  'RATE_LIMITED',
  'NOT_SETTLED',
  'TARGET_NOT_READY',
  'STORE_UNAVAILABLE',
]);

/** The finding about a failure that lasts until an operator acts. Any other failure is rethrown, to be retried. */
function unreadableBy(
  { name, spec }: Credential,
  isOneOfSeveral: boolean,
  error: unknown,
  { log }: Rekey,
): Finding {
  const isKnown =
    error instanceof InputError || error instanceof StoreError || error instanceof ProviderError;
  if (!isKnown || transient.has(error.code)) throw error;
  const { provider, targetId } = spec;
  log('warn', error.message, { credential: name, provider, target: targetId, code: error.code });
  const during =
    error instanceof ProviderError ? error.facts.operation : `the reading of ${spec.apiKeySecret}`;
  const remedies: Readonly<Record<string, string>> = {
    SECRET_INVALID: error.message,
    UNAUTHORIZED: `store a valid API key with the rights that README.md names in ${spec.apiKeySecret}`,
    NOT_FOUND: `check the target in the spec and the rights of the API key; ${deleteGone}`,
    UNREADABLE: 'the vendor changed its answers: report it with the request id that the log holds',
    STORE_DENIED: `let the functions read ${spec.apiKeySecret}: check their roles and the KMS key`,
  };
  return targetUnreadable(
    { provider, targetId, ...(isOneOfSeveral ? { credential: name } : {}) },
    { code: error.code, during, remedy: remedies[error.code] ?? 'see the log of reconcile-users' },
  );
}

// Credentials.

interface Access extends Opened {
  readonly endpoint: Endpoint;
  readonly listed: ReadonlySet<string>;
  readonly now: Date;
  readonly until: Date;
}

async function readCredential(credential: Credential, access: Access, rekey: Rekey): Promise<Reading> {
  const { name, spec } = credential;
  const provider = access.providers.has(name)
    ? access.providers.get(name)
    : await lateProvider(credential, access, rekey);
  const blank: Reading = {
    credential,
    provider,
    state: 'absent',
    current: { say: 'not-tested' },
    currentLogin: undefined,
    pending: 'none',
    pendingLogin: undefined,
    privilegeDifferences: [],
    arePrivilegesOutdated: false,
    consumers: [],
    restorable: undefined,
    elsewhere: [],
    isPartial: provider === undefined,
  };
  const known = await readVersions(credential, rekey);
  if (known === 'absent') return blank;
  const { secret, versions } = known;
  // Can be described still, but not read.
  if (secret.deletedAt !== undefined) return { ...blank, state: { ...known, ...nameless } };

  const [current, pending, previous] = await Promise.all(
    (['AWSCURRENT', 'AWSPENDING', 'AWSPREVIOUS'] as const).map((label) =>
      valueAt(holderOf(secret.labelsByVersion, label), known, rekey),
    ),
  );
  const elsewhere = [current, pending, previous].flatMap((value) =>
    value?.is === 'elsewhere' ? [value.former] : [],
  );
  const [currentLogin, pendingLogin] = [current, pending].map((value) =>
    value?.is === 'login' ? value.login : undefined,
  );
  const read: Reading = {
    ...blank,
    state: {
      ...known,
      currentUsername: usernameIn(current),
      pendingUsername: usernameIn(pending),
      previousUsername: usernameIn(previous),
      userVersions: [current, pending, previous].flatMap((value) => value?.userVersions ?? []),
    },
    elsewhere,
    currentLogin,
    pendingLogin,
    pending: pendingReading(pending, currentLogin, secret, isFormer(credential)),
    isResetOpen:
      currentLogin !== undefined &&
      currentLogin.username === pendingLogin?.username &&
      !currentLogin.password.equals(pendingLogin.password),
  };
  if (isEnding(credential, access.now)) return read;
  // What is to be seen of its login is seen where that is.
  if (current?.is === 'elsewhere' || (isFormer(credential) && current?.is !== 'login'))
    return { ...read, isElsewhere: true };
  if (current?.is === 'unreadable')
    return { ...read, current: { say: 'unusable', because: current.because } };
  if (current?.is === 'empty' && holderOf(secret.labelsByVersion, 'AWSPREVIOUS') !== undefined)
    return { ...read, current: { say: 'unusable', because: 'AWSCURRENT names no user any more' } };

  const tried = await tryLogin(currentLogin, read, access, rekey);
  const accepted = tried.say === 'accepted' ? currentLogin : undefined;
  const earlier = current?.is === 'login' ? earlierPrivileges(current.privileges, credential) : undefined;
  const declaredThen = earlier === undefined ? provider : await lateProvider(earlier, access, rekey);
  const differences =
    accepted === undefined || declaredThen === undefined
      ? []
      : await orUnknown(() => declaredThen.privilegeDifferences(accepted), spec.name, rekey);
  const consumers = await standingsOf(credential, secret, access, rekey);
  const hasPrevious = holderOf(secret.labelsByVersion, 'AWSPREVIOUS') !== undefined;
  return {
    ...read,
    current: tried,
    privilegeDifferences: differences === 'unknown' ? [] : differences,
    arePrivilegesOutdated: earlier !== undefined,
    consumers: consumers.filter((one) => one !== 'unknown'),
    restorable: hasPrevious ? undefined : await restorableVersion(read, { secret, versions }, access, rekey),
    isPartial:
      read.isPartial ||
      tried.say === 'unreachable' ||
      differences === 'unknown' ||
      consumers.includes('unknown'),
  };
}

/**
 * The credential as its spec was when the current login was made, where it declared other privileges: only what differs from those
 * was changed by somebody else. Only to compare with: somebody may have written the value, and rights are given as today's spec
 * declares them, never as a value says. Undefined where the spec still says the same, or where the value does not tell.
 */
function earlierPrivileges(stored: unknown, credential: Credential): Credential | undefined {
  const { spec } = credential;
  const parsed = stored === undefined ? undefined : spec.definition.privilegesSchema.safeParse(stored);
  if (parsed?.success !== true) return undefined;
  const earlier = { ...spec, privileges: parsed.data };
  return specDocument(earlier) === specDocument(spec) ? undefined : { ...credential, spec: earlier };
}

/** Of a credential that was not there yet when the others were opened, or not in this form. */
async function lateProvider(
  { spec }: Credential,
  { until }: Access,
  rekey: Rekey,
): Promise<Provider | undefined> {
  try {
    return await openTarget(spec, until, rekey);
  } catch (error) {
    if (error instanceof InputError || error instanceof StoreError) return undefined;
    throw error;
  }
}

type Value = { readonly userVersions?: readonly string[] } & (
  | { readonly is: 'empty'; readonly versionId: string }
  | {
      readonly is: 'login';
      readonly versionId: string;
      readonly login: Login;
      readonly privileges: unknown;
    }
  /** A login of this credential at another target. */
  | { readonly is: 'elsewhere'; readonly versionId: string; readonly former: FormerTarget }
  | { readonly is: 'unreadable'; readonly versionId: string; readonly because: string }
);

const usernameIn = (value: Value | undefined): string | undefined =>
  value?.is === 'login'
    ? value.login.username
    : value?.is === 'elsewhere'
      ? value.former.username
      : undefined;

async function valueAt(
  versionId: string | undefined,
  known: CredentialVersions,
  rekey: Rekey,
): Promise<Value | undefined> {
  if (versionId === undefined) return undefined;
  try {
    const version = await rekey.ports.readSecret({ secretId: known.secret.arn, versionId });
    if (version === 'absent') return { is: 'empty', versionId };
    const former = elsewhereIn(version, known, rekey);
    if (former !== undefined)
      return { is: 'elsewhere', versionId, former, userVersions: userVersionIn(version) };
    const found = storedIn(version, known, rekey);
    if (found === undefined) return { is: 'empty', versionId };
    const { login, privileges } = found;
    return { is: 'login', versionId, login, privileges, userVersions: userVersionIn(version) };
  } catch (error) {
    const isLasting =
      error instanceof InputError ||
      error instanceof RotationRefused ||
      (error instanceof StoreError && error.code !== 'STORE_UNAVAILABLE');
    if (!isLasting) throw error;
    return { is: 'unreadable', versionId, because: error.message };
  }
}

function pendingReading(
  value: Value | undefined,
  currentLogin: Login | undefined,
  { labelsByVersion }: SecretDescription,
  hasMoved: boolean,
): PendingReading {
  // Both labels on one version is how a rotation may legally end.
  if (value === undefined || value.versionId === holderOf(labelsByVersion, 'AWSCURRENT')) return 'none';
  // It cannot go on: its rotation belongs to another target than the spec.
  if (value.is === 'elsewhere' || (value.is === 'login' && hasMoved)) return 'unreadable';
  if (value.is !== 'login') return value.is;
  return currentLogin !== undefined && sameLogin(value.login, currentLogin) ? 'copied' : 'readable';
}

/**
 * Whether the login is accepted where the vendor says that its consumers connect; the password is sent nowhere else. A value that
 * sends its readers to another place is of no use to them, whether its password works or not.
 */
async function tryLogin(
  login: Login | undefined,
  { credential: { spec }, provider }: Pick<Reading, 'credential' | 'provider'>,
  { endpoint }: Pick<Access, 'endpoint'>,
  rekey: Rekey,
): Promise<LoginReading> {
  if (login === undefined || provider === undefined) return { say: 'not-tested' };
  if (!sameEndpoint(login, endpoint))
    return {
      say: 'elsewhere',
      because: `the value in AWSCURRENT points elsewhere than ${spec.targetId} does now; no login was tried`,
    };
  if (spec.verify === 'none') return { say: 'not-tested' };
  const answer = await orUnknown(() => provider.verify(login), spec.name, rekey);
  return { say: answer === 'unknown' ? 'unreachable' : answer };
}

async function standingsOf(
  credential: Credential,
  { arn }: SecretDescription,
  { until }: Access,
  rekey: Rekey,
): Promise<readonly (Reading['consumers'][number] | 'unknown')[]> {
  const consumers = await openConsumers(credential, arn, until, rekey);
  return inParallel(consumers, readingsAtOnce, async (opened) => {
    const standing = await orUnknown(() => opened.consumer.standing(), credential.name, rekey);
    return standing === 'unknown' ? standing : { name: consumerName(opened), standing, ...opened };
  });
}

/**
 * Labels have no history, so the version that was current before has to be guessed: the newest older one that logs in; failing
 * that, the newest whose user is listed, such as that of an abandoned rotation that never was current; failing that, the first
 * value, whose place it is until the second switch. Never a version that was revoked: AWSPREVIOUS is what consumers fall back on.
 */
async function restorableVersion(
  reading: Reading,
  { secret, versions }: { readonly secret: SecretDescription; readonly versions: readonly VersionListing[] },
  access: Access,
  rekey: Rekey,
): Promise<string | undefined> {
  const current = versions.findIndex(({ versionId }) => versionId === currentOf(reading));
  const older = versions.slice(Math.max(0, current - mostOlderVersions), Math.max(0, current)).toReversed();
  let listed: string | undefined;
  for (const { versionId, createdAt } of older) {
    if (secret.labelsByVersion.get(versionId)?.has('AWSPENDING')) continue;
    const value = await valueAt(versionId, { ...reading.credential, secret, versions }, rekey);
    if (value?.is === 'empty' && versionId === versions[0]?.versionId) return listed ?? versionId;
    if (value?.is !== 'login' || !access.listed.has(value.login.username)) continue;
    if (isRevoked(reading.credential.directives, createdAt)) continue;
    if ((await tryLogin(value.login, reading, access, rekey)).say === 'accepted') return versionId;
    listed ??= versionId;
  }
  return listed;
}

/** `unknown` where a vendor did not answer: what is not known of one credential keeps none of the others from being read. */
async function orUnknown<T>(
  ask: () => Promise<T>,
  credential: string,
  { log }: Rekey,
): Promise<T | 'unknown'> {
  try {
    return await ask();
  } catch (error) {
    if (
      !(error instanceof ProviderError || error instanceof VerificationFailed || error instanceof StoreError)
    )
      throw error;
    log('warn', error.message, { credential, code: error.code });
    return 'unknown';
  }
}
