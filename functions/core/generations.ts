import { isRevoked } from './directives.ts';
import type { Credential, FormerTarget } from './fleet.ts';
import type { SecretDescription, VersionListing } from './ports.ts';
import type { DatabaseUser } from './provider.ts';
import { type CreatedAt, holderOf, openVersion, strayPending } from './rotation.ts';
import { graceMs } from './spec.ts';
import {
  adoptionVersions,
  formerPrefix,
  maximumAttempts,
  maximumPlaceholders,
  placeholderUsername,
  type Sha256,
  usernames,
} from './username.ts';

/** A credential with what Secrets Manager tells without telling a value. */
export interface CredentialVersions extends Credential {
  /** With the time of its last change. */
  readonly secret: SecretDescription;
  /** Oldest first, those without a label included. */
  readonly versions: readonly VersionListing[];
  /** The versions that its values say their users were made for: Secrets Manager may have dropped them since. */
  readonly userVersions?: readonly string[];
  /** The targets beside that of `spec` that labelled values name, with users of this credential; absent where nobody looked. */
  readonly elsewhere?: readonly FormerTarget[];
}

/** A credential with all that Secrets Manager knows of it, read in one pass. */
export interface CredentialState extends CredentialVersions {
  /** The users that these values name; undefined where there is no value, or none that names a user of its own: see `ownership`. */
  readonly currentUsername: string | undefined;
  readonly pendingUsername: string | undefined;
  /** Missing where nobody looked: then a user that is older than its password may pass for one of an older password. */
  readonly previousUsername?: string | undefined;
  /**
   * The users that these values name and that are not its own. It can do nothing about them; consumers may use them all the same, as
   * where the spec does not say any more that one is adopted. Missing where nobody looked.
   */
  readonly foreignUsernames?: readonly string[];
}

/** What a listed user is to us. Only `superseded` and `placeholder` may ever be deleted while the credential lives. */
export type Standing =
  | {
      readonly is: 'current' | 'pending' | 'idle';
      readonly credential: CredentialState;
      readonly versionId?: string;
    }
  | Superseded
  /** Stands in as the default where nobody else may be; nobody knows its password. */
  | { readonly is: 'placeholder' }
  /** Carries our prefix, and no version that is known names it. */
  | { readonly is: 'unversioned'; readonly credential: CredentialState }
  | { readonly is: 'protected' }
  | { readonly is: 'foreign' };

export interface Superseded {
  readonly is: 'superseded';
  readonly credential: CredentialState;
  /** The version that holds its login, where one is known to. */
  readonly versionId?: string;
  /** It is of no use any more since then at the latest: its grace is counted from here. */
  readonly since: Date;
  /** Its password may have leaked: no grace. */
  readonly isRevoked: boolean;
  /** The order that revoked it says that it goes although the login in AWSCURRENT may not work. */
  readonly mayGoUnproved: boolean;
  /** False where the labels show that its login was never AWSCURRENT. */
  readonly wasPublished: boolean;
}

export interface KnownUser {
  readonly user: DatabaseUser;
  readonly standing: Standing;
}

/**
 * What each listed user of a target is. Ownership is the name: a function of the secret's ARN and of what Secrets Manager holds.
 * A name that cannot be derived belongs to another owner, even if a value of the credential names it.
 */
export function standings(
  { provider, targetId, users, credentials }: TargetUsers,
  sha256: Sha256,
): readonly KnownUser[] {
  const known = new Map<string, Standing>();
  const claim = (name: string, standing: Standing): void => {
    const other = known.get(name);
    if (other === undefined || isStronger(standing, other)) known.set(name, standing);
  };
  for (let turn = 0; turn < maximumPlaceholders; turn += 1)
    claim(placeholderUsername({ provider, targetId, turn }, sha256), { is: 'placeholder' });
  for (const credential of credentials) {
    for (const [name, standing] of ownUsers(credential, sha256)) claim(name, standing);
    // Stronger than every other claim: a value names this user, and the user is the credential's own.
    const { currentUsername, pendingUsername } = credential;
    const isPending = strayOf(credential) === undefined;
    if (pendingUsername !== undefined && isPending)
      claim(pendingUsername, labelled('pending', 'AWSPENDING', credential));
    if (currentUsername !== undefined) claim(currentUsername, labelled('current', 'AWSCURRENT', credential));
  }
  return users.map((user) => ({
    user,
    standing:
      known.get(user.username) ?? ofFormerPrefix(user, credentials, sha256) ?? unknownUser(user, credentials),
  }));
}

export interface TargetUsers {
  readonly provider: string;
  readonly targetId: string;
  readonly users: readonly DatabaseUser[];
  readonly credentials: readonly CredentialState[];
}

/** Of two claims to one name, as when a credential adopts the user of another, the one that keeps it longer holds. */
function isStronger(claim: Standing, other: Standing): boolean {
  if (claim.is === 'superseded' && other.is === 'superseded') return claim.since > other.since;
  return strengths.indexOf(claim.is) < strengths.indexOf(other.is);
}
const strengths: readonly Standing['is'][] = ['current', 'pending', 'idle', 'superseded', 'placeholder'];

const labelled = (is: 'current' | 'pending', label: string, credential: CredentialState): Standing => {
  const versionId = holderOf(credential.secret.labelsByVersion, label);
  return { is, credential, ...(versionId === undefined ? {} : { versionId }) };
};

/** How many users a credential of `replace-user` has at most while it is rotated: current, previous, and the new one. */
export const maxLiveUsers = 3;
/** How many superseded users may stay beside them, because clients are connected as them or something else holds them. */
const maxHeldUsers = 5;
/** Retirement looks every quarter of an hour: a user that is there so long after its grace is held by something. */
const retiredWithinMs = 3_600_000;
/** Two of those looks: the rotation that replaces a leaked password waits no longer for users that the vendor does not let go. */
const revokedWithinMs = 1_800_000;

/**
 * The users of earlier rotations that must go before one more may be made; none where there is room. A user whose grace is over for
 * an hour is held, by a connection or a consumer: such users do not stop the next rotation until there are `maxHeldUsers` of them, as
 * the user that the rotation replaces may be held next.
 *
 * While AWSCURRENT is refused, or its user is gone, the users whose logins were published are kept, and only another login lets them go:
 * then nothing is in the way but users whose logins were never published, which need no such proof.
 */
export function usersInTheWay(
  known: readonly KnownUser[],
  credential: string,
  now: Date,
  { isCurrentRefused = false }: { readonly isCurrentRefused?: boolean } = {},
): readonly string[] {
  const superseded = known.flatMap(({ user: { username }, standing }) =>
    standing.is === 'superseded' && standing.credential.name === credential
      ? [{ username, ...standing }]
      : [],
  );
  // A revoked user is to go from the order on. Tries of the rotation that waits for it move the date of the secret, but not that one.
  const isHeld = ({ wasPublished, isRevoked: revoked, since, credential }: Superseded): boolean => {
    if (!wasPublished) return false;
    const { revokeBefore = since } = credential.directives;
    const goneBy = revoked
      ? revokeBefore.getTime() + revokedWithinMs
      : since.getTime() + graceMs(credential.spec) + graceMarginMs + retiredWithinMs;
    return now.getTime() > goneBy;
  };
  const hasCurrent = known.some(
    ({ standing }) => standing.is === 'current' && standing.credential.name === credential,
  );
  if (isCurrentRefused || !hasCurrent) {
    const unpublished = superseded.filter(({ wasPublished }) => !wasPublished);
    return unpublished.length + 1 > maxLiveUsers ? unpublished.map(({ username }) => username) : [];
  }
  const held = superseded.filter(isHeld);
  const others = superseded.filter((one) => !isHeld(one));
  const isFull = others.length + 2 > maxLiveUsers;
  return isFull
    ? others.map(({ username }) => username)
    : held.length >= maxHeldUsers
      ? held.map(({ username }) => username)
      : [];
}

/**
 * How much longer than declared every grace is. Clocks may be ten minutes apart, and a step of a rotation that began before the
 * switch may live for fifteen (AWS documentation): neither may shorten a grace.
 */
export const graceMarginMs = 900_000;

/** Why the version that carries AWSPENDING off AWSCURRENT is no rotation in progress; undefined where it is one, or there is none. */
export function strayOf({
  secret,
  versions,
  directives,
}: Pick<CredentialVersions, 'secret' | 'versions' | 'directives'>):
  | (NonNullable<ReturnType<typeof strayPending>> & { readonly versionId: string })
  | undefined {
  const versionId = openVersion(secret);
  if (versionId === undefined) return undefined;
  const made: CreatedAt = (version) => createdAt({ versions }, version);
  const stray = strayPending(versionId, secret, made, directives);
  return stray === undefined ? undefined : { ...stray, versionId };
}

/** The version of a rotation in progress. Its user is of use; that of a stray one is what the labels say without AWSPENDING. */
export const pendingVersionOf = (
  state: Pick<CredentialVersions, 'secret' | 'versions' | 'directives'>,
): string | undefined => (strayOf(state) === undefined ? openVersion(state.secret) : undefined);

/** Every user that this credential may have made or adopted, but for those that its values name now. */
function ownUsers(credential: CredentialState, sha256: Sha256): ReadonlyMap<string, Standing> {
  const { spec, secret } = credential;
  const names = usernames({ secretArn: secret.arn, prefix: spec.usernamePrefix }, sha256);
  const own = new Map<string, Standing>();
  for (const versionId of knownVersions(credential))
    for (let attempt = 0; attempt < maximumAttempts; attempt += 1)
      own.set(names.generation(versionId, attempt), ofVersion(credential, versionId));
  const slot = (name: string, isUsed: boolean): void => void own.set(name, ofSlot(credential, name, isUsed));
  slot(names.alternate('a'), spec.strategy === 'alternate-users');
  slot(names.alternate('b'), spec.strategy === 'alternate-users');
  // Later rotations of reset-password change whatever user is current; only the first one makes this one.
  slot(names.only(), spec.strategy === 'reset-password' && credential.currentUsername === undefined);
  if (spec.adopt !== undefined)
    own.set(
      spec.adopt.username,
      spec.adopt.retire && wasAdopted(credential, sha256)
        ? replaced(credential, spec.adopt.username)
        : { is: 'idle', credential },
    );
  for (const [name, standing] of own) own.set(name, settled(credential, name, standing));
  return own;
}

/**
 * Whether the user in the spec's `adopt` was really adopted. If `adopt` was added to the spec of an existing credential, it was not, and
 * the user belongs to another owner.
 */
const wasAdopted = (credential: CredentialVersions, sha256: Sha256): boolean => {
  const known = knownVersions(credential);
  return adoptionVersions(credential.secret.arn, sha256).some((version) => known.has(version));
};

function settled(credential: CredentialState, name: string, standing: Standing): Standing {
  // Its password is that of AWSPREVIOUS, whichever version it was made for: reset-password keeps the user of a version long gone.
  const isPrevious = standing.is === 'superseded' && name === credential.previousUsername;
  return orIdle(credential, isPrevious ? replaced(credential, name) : standing);
}

/**
 * While the secret is scheduled for deletion its values can be read by nobody, so nobody can tell who is of use: all stay. While
 * AWSCURRENT names nobody, as before an adoption or with the first value put back, nobody has taken the place of those in use.
 */
function orIdle(credential: CredentialState, standing: Standing): Standing {
  const isNobodyNamed = credential.currentUsername === undefined;
  return credential.secret.deletedAt !== undefined ||
    (isNobodyNamed && standing.is === 'superseded' && standing.wasPublished)
    ? { is: 'idle', credential }
    : standing;
}

/** Whether AWSCURRENT is off the first value, which names nobody: it begins on the oldest version. */
export function hasSwitched({ secret, versions }: Pick<CredentialVersions, 'secret' | 'versions'>): boolean {
  const current = holderOf(secret.labelsByVersion, 'AWSCURRENT');
  return current !== undefined && versions[0] !== undefined && versions[0].versionId !== current;
}

/** Either reading may lag behind the other. */
const knownVersions = ({
  secret,
  versions,
  userVersions = [],
}: Pick<CredentialVersions, 'secret' | 'versions' | 'userVersions'>): ReadonlySet<string> =>
  new Set([...versions.map(({ versionId }) => versionId), ...secret.labelsByVersion.keys(), ...userVersions]);

/** A user named after a version. */
function ofVersion(credential: CredentialState, versionId: string): Standing {
  const { labelsByVersion } = credential.secret;
  const isCurrent = versionId === holderOf(labelsByVersion, 'AWSCURRENT');
  if (isCurrent && credential.currentUsername === undefined) return { is: 'current', credential, versionId };
  // A rotation under way may not have stored yet which of its users it will name.
  if (versionId === pendingVersionOf(credential)) return { is: 'pending', credential, versionId };
  const madeAt = createdAt(credential, versionId);
  const published = lastPublished(credential);
  // Whatever is no younger than the youngest version that was published may have been published itself, whichever label it has now:
  // somebody may have moved AWSCURRENT back.
  const wasPublished = !(
    isCurrent ||
    (madeAt !== undefined && published !== undefined && madeAt > published)
  );
  return {
    is: 'superseded',
    credential,
    versionId,
    // Nobody was told a login that was never published, so no later change of the secret gives it more time.
    since: wasPublished
      ? supersededAt(credential, versionId)
      : (madeAt ?? supersededAt(credential, versionId)),
    ...revocation(credential, madeAt),
    wasPublished,
  };
}

/** When the youngest version was made that is or was AWSCURRENT, as far as the labels tell. */
const lastPublished = ({ secret, versions }: CredentialVersions): Date | undefined => {
  const made = (['AWSCURRENT', 'AWSPREVIOUS', 'REKEY_PUBLISHED'] as const).flatMap(
    (label) => createdAt({ versions }, holderOf(secret.labelsByVersion, label)) ?? [],
  );
  return made.toSorted((a, b) => a.getTime() - b.getTime()).at(-1);
};

const revocation = (
  { directives }: Pick<CredentialVersions, 'directives'>,
  madeAt: Date | undefined,
): Pick<Superseded, 'isRevoked' | 'mayGoUnproved'> => {
  const { revokeAnyway } = directives;
  return {
    isRevoked: madeAt !== undefined && isRevoked(directives, madeAt),
    mayGoUnproved: madeAt !== undefined && revokeAnyway !== undefined && madeAt < revokeAnyway,
  };
};

/** A user that outlives its versions, of a strategy that the spec names now (`isUsed`) or has named before. */
function ofSlot(credential: CredentialState, name: string, isUsed: boolean): Standing {
  const standing = replaced(credential, name);
  if (!isUsed) return standing;
  // The rotation under way may have chosen it, and have written its password, before it has stored that.
  const versionId = pendingVersionOf(credential);
  if (versionId !== undefined) return { is: 'pending', credential, versionId };
  // Revoked only once a version that was made after the order is current: until then the next rotation changes its password.
  const currentMadeAt = createdAt(credential, holderOf(credential.secret.labelsByVersion, 'AWSCURRENT'));
  const isSafe = currentMadeAt !== undefined && !isRevoked(credential.directives, currentMadeAt);
  return standing.isRevoked && isSafe ? standing : { is: 'idle', credential };
}

/** A user that AWSCURRENT does not name any more, whatever version it was made for. */
function replaced(credential: CredentialState, name: string): Superseded {
  const { labelsByVersion } = credential.secret;
  const before = holderOf(labelsByVersion, 'AWSPREVIOUS');
  const isPrevious = name === credential.previousUsername;
  // Named by no label: its password is of the newest version that is older than all that name another user, or of one before.
  const next = createdAt(
    credential,
    credential.previousUsername === undefined ? holderOf(labelsByVersion, 'AWSCURRENT') : before,
  );
  const madeAt = isPrevious
    ? createdAt(credential, before)
    : credential.versions.findLast(({ createdAt: at }) => next !== undefined && at < next)?.createdAt;
  return {
    is: 'superseded',
    credential,
    ...(isPrevious && before !== undefined ? { versionId: before } : {}),
    since: lastSwitch(credential),
    ...revocation(credential, madeAt),
    wasPublished: true,
  };
}

const createdAt = (
  { versions }: Pick<CredentialVersions, 'versions'>,
  versionId: string | undefined,
): Date | undefined => versions.find((version) => version.versionId === versionId)?.createdAt;

/**
 * When this version stopped to be the current one, at the latest. Secrets Manager keeps no dates of labels, but two bounds hold.
 * A rotation is refused while another one is open, so whatever was current before AWSPREVIOUS had stopped when the present
 * version was made. For everything else, AWSPREVIOUS included, there is the last change of all. A later date only means a
 * longer grace.
 */
export function supersededAt(credential: CredentialVersions, versionId: string): Date {
  const { labelsByVersion } = credential.secret;
  const [current, before, own] = [
    createdAt(credential, holderOf(labelsByVersion, 'AWSCURRENT')),
    createdAt(credential, holderOf(labelsByVersion, 'AWSPREVIOUS')),
    createdAt(credential, versionId),
  ];
  if (current !== undefined && before !== undefined && own !== undefined && own < before && before < current)
    return current;
  // Made after the last switch, so it belongs to a rotation that came to nothing: it may be under way in a stale reading.
  return latest(lastSwitch(credential), own);
}

/** When AWSCURRENT moved last, at the latest. */
export function lastSwitch({ secret, versions }: CredentialVersions): Date {
  const current = holderOf(secret.labelsByVersion, 'AWSCURRENT');
  return latest(secret.lastRotatedAt ?? new Date(0), secret.changedAt, createdAt({ versions }, current));
}

const latest = (first: Date, ...others: readonly (Date | undefined)[]): Date =>
  others.reduce<Date>((late, date) => (date !== undefined && date > late ? date : late), first);

/** A user that is proved to be the credential's own. */
export type Ownership =
  | {
      readonly by: 'name';
      /** Of today's spec, or of one that it had before. */
      readonly prefix: string;
      /** The version that it was made for; absent where the name is that of no version. */
      readonly versionId?: string;
    }
  | { readonly by: 'adoption'; readonly versionId: string };

/**
 * How a user is proved to be this credential's own; undefined for the user of another owner. Either the name derives from the secret's
 * ARN, under a prefix that the spec has or had, or the spec says to adopt the user and the adoption version exists. The proof needs no
 * value, so it also works for a credential whose values cannot be read. `userVersions` only adds versions that a name may derive from.
 *
 * Check this before any change to a user and before any use of a stored login: an attacker who can write the secret may name any user in
 * it.
 */
export function ownership(
  username: string,
  credential: Pick<CredentialVersions, 'spec' | 'secret' | 'versions' | 'userVersions'>,
  sha256: Sha256,
): Ownership | undefined {
  const secretArn = credential.secret.arn;
  const known = [...knownVersions(credential)];
  const prefix = formerPrefix(username, { secretArn, versions: known, sha256 });
  if (prefix === undefined) {
    if (credential.spec.adopt?.username !== username) return undefined;
    const adoption = adoptionVersions(secretArn, sha256).find((version) => known.includes(version));
    return adoption === undefined ? undefined : { by: 'adoption', versionId: adoption };
  }
  const { generation } = usernames({ secretArn, prefix }, sha256);
  const versionId = known.find((version) =>
    Array.from({ length: maximumAttempts }, (_, attempt) => generation(version, attempt)).includes(username),
  );
  return { by: 'name', prefix, ...(versionId === undefined ? {} : { versionId }) };
}

/** Whether the credential made the user: of an adopted one, see `ownership`. */
export const isOwn = (
  username: string,
  credential: Pick<CredentialVersions, 'spec' | 'secret' | 'versions' | 'userVersions'>,
  sha256: Sha256,
): boolean => ownership(username, credential, sha256)?.by === 'name';

const digestPattern = /^_[a-z2-7]{12}$/;

/** Whether the name has the form of those that are made under this prefix. */
export const carriesPrefix = (username: string, prefix: string): boolean =>
  username.startsWith(prefix) && digestPattern.test(username.slice(prefix.length));

/** Whether the user may be this credential's own, by its name alone: made under any prefix, or adopted. False is certain. */
export const mayBeOwn = (username: string, { adopt }: CredentialVersions['spec']): boolean =>
  /_[a-z2-7]{12}$/.test(username) || username === adopt?.username;

/** A user that was made under another prefix than the spec has now, where the version is still known that it was made for. */
function ofFormerPrefix(
  { username, isProtected }: DatabaseUser,
  credentials: readonly CredentialState[],
  sha256: Sha256,
): Standing | undefined {
  if (isProtected) return undefined;
  for (const credential of credentials) {
    const owned = ownership(username, credential, sha256);
    if (owned?.by === 'name' && owned.versionId !== undefined)
      return settled(credential, username, ofVersion(credential, owned.versionId));
  }
  return undefined;
}

function unknownUser(user: DatabaseUser, credentials: readonly CredentialState[]): Standing {
  if (user.isProtected && user.isDefault !== true) return { is: 'protected' };
  const owner = credentials.find(({ spec }) => carriesPrefix(user.username, spec.usernamePrefix));
  if (owner !== undefined) return { is: 'unversioned', credential: owner };
  return user.isProtected ? { is: 'protected' } : { is: 'foreign' };
}
