import { InputError, RotationRefused, StoreError } from '../core/errors.ts';
import type { Credential, FormerTarget } from '../core/fleet.ts';
import {
  type CredentialState,
  type CredentialVersions,
  isOwn,
  type Ownership,
  ownership,
} from '../core/generations.ts';
import { secretName } from '../core/names.ts';
import type { Label, Ports, SecretDescription, SecretVersion } from '../core/ports.ts';
import type { KeyRenewal, Login, Provider, UserPassword } from '../core/provider.ts';
import { holderOf } from '../core/rotation.ts';
import { parseApiKey, parseSecretValue, parseUser, type SecretValue } from '../core/secret-value.ts';
import { Sensitive } from '../core/sensitive.ts';
import type { CredentialSpec } from '../core/spec.ts';
import type { Rekey } from './rekey.ts';

/**
 * How old a vendor's key may be when a visit to a target begins. Long enough for the steps of a rotation, and no longer: whoever replaces
 * a key may count on the one before being out of use then. A key that the vendor refuses is read again at once.
 */
const keyAgeMs = 300_000;

/** The provider of a spec, opened on its target with the vendor's key. Throws SECRET_INVALID when there is no key. */
export async function openTarget(spec: CredentialSpec, until: Date, rekey: Rekey): Promise<Provider> {
  const { apiKeySecret, adminSecret } = spec;
  const [apiKey, admin] = await Promise.all([
    stored(apiKeySecret, parseApiKey, rekey, keyAgeMs),
    adminSecret === undefined ? undefined : stored(adminSecret, parseUser, rekey, keyAgeMs),
  ]);
  const ports =
    admin === undefined || adminSecret === undefined
      ? rekey.ports
      : {
          ...rekey.ports,
          sql: renewingSql(
            admin,
            (): Promise<UserPassword> => stored(adminSecret, parseUser, rekey, 0),
            rekey,
          ),
        };
  return spec.definition.open(
    {
      target: spec.target,
      privileges: spec.privileges,
      apiKey,
      keyRenewal: renewing(apiKey, () => stored(apiKeySecret, parseApiKey, rekey, 0)),
      until,
      ...(admin === undefined ? {} : { admin }),
    },
    ports,
  );
}

/** Reads a refused key again, once a visit. If the vendor refuses that one as well, it is not read a third time. */
function renewing(opened: Sensitive, read: () => Promise<Sensitive>): KeyRenewal {
  let reading: Promise<Sensitive> | undefined;
  let renewed: Sensitive | undefined;
  return {
    get renewed() {
      return renewed;
    },
    async renew(refused) {
      // What keeps it from being read is not what stopped the call: the vendor's refusal is.
      reading ??= read().catch(() => opened);
      const stored = await reading;
      if (stored.equals(refused)) return false;
      renewed = stored;
      return true;
    },
  };
}

/** Sessions of the administrator whose password is refused are opened once more with what is stored by now: a refused one has done nothing. */
function renewingSql(admin: UserPassword, read: () => Promise<UserPassword>, { ports }: Rekey): Ports['sql'] {
  let renewed: Promise<UserPassword> | undefined;
  return async (session) => {
    const isAdmins = session.username === admin.username && session.password.equals(admin.password);
    if (!isAdmins) return ports.sql(session);
    if (renewed === undefined) {
      const outcome = await ports.sql(session);
      if (outcome.say === 'accepted') return outcome;
      renewed = read().catch(() => admin);
      const stored = await renewed;
      if (stored.username === admin.username && stored.password.equals(admin.password)) return outcome;
    }
    const { username, password } = await renewed;
    return ports.sql({ ...session, username, password });
  };
}

/**
 * A secret that the user keeps, such as an API key. One that is not there, or is scheduled for deletion and so refused, reads as
 * empty, which `parse` refuses by name.
 */
export async function stored<T>(
  secretId: string,
  parse: (value: Sensitive, where: string) => T,
  { ports }: Rekey,
  maxAgeMs?: number,
): Promise<T> {
  const request = { secretId, label: 'AWSCURRENT', ...(maxAgeMs === undefined ? {} : { maxAgeMs }) } as const;
  const found = await ports.readSecret(request).catch((error: unknown) => {
    if (error instanceof StoreError && error.code === 'STORE_REFUSED') return 'absent' as const;
    throw error;
  });
  return parse(found === 'absent' ? new Sensitive('') : found.value, secretId);
}

/**
 * Everything that Secrets Manager knows of a credential now; `absent` when it has no secret. A value may name a user of this
 * credential at another target: its name proves it. A user that is not its own is named by none of them: only `foreignUsernames` tells.
 */
export async function readState(
  credential: Credential,
  rekey: Rekey,
  step?: StepReading,
): Promise<CredentialState | 'absent'> {
  const known = await readVersions(credential, rekey, step?.secret);
  if (known === 'absent') return 'absent';
  const { secret } = known;
  const { ports } = rekey;
  // A secret that is scheduled for deletion can still be described, but not read.
  const readable = secret.deletedAt === undefined;
  const elsewhere: FormerTarget[] = [];
  const userVersions: string[] = [];
  const foreignUsernames: string[] = [];
  const username = async (label: Label): Promise<string | undefined> => {
    const versionId = holderOf(secret.labelsByVersion, label);
    if (!readable || versionId === undefined) return undefined;
    const found = await ports.readSecret({
      secretId: secret.arn,
      versionId,
      ...(step === undefined ? {} : { maxAgeMs: sameVersionMs }),
    });
    if (found === 'absent') return undefined;
    const other = elsewhereIn(found, known, rekey);
    const value = other === undefined ? loginIn(found, known.spec) : undefined;
    userVersions.push(...userVersionIn(found));
    if (value !== undefined && ownershipIn(value, known, rekey) === undefined) {
      foreignUsernames.push(value.login.username);
      return undefined;
    }
    if (other === undefined) return value?.login.username;
    elsewhere.push(other);
    return other.username;
  };
  const [currentUsername, pendingUsername, previousUsername] = await Promise.all([
    username('AWSCURRENT'),
    username('AWSPENDING'),
    // What somebody put there by hand, and took back, is no login of anybody.
    username('AWSPREVIOUS').catch((error: unknown) => {
      if (error instanceof InputError || error instanceof RotationRefused) return undefined;
      throw error;
    }),
  ]);
  const usernames = { currentUsername, pendingUsername, previousUsername, foreignUsernames };
  return { ...known, ...usernames, elsewhere, userVersions };
}

/** For a step of a rotation, which has described its secret and shares values with the other steps. */
interface StepReading {
  readonly secret: SecretDescription;
}

/** The value of a version never changes: an answer that the step before got will do. As long as the steps of a rotation take. */
export const sameVersionMs = 300_000;

/** The same without reading any value: also of a credential whose values are unreadable or scheduled for deletion. */
export async function readVersions(
  credential: Credential,
  { ports }: Rekey,
  described?: SecretDescription,
): Promise<CredentialVersions | 'absent'> {
  const secret = described ?? (await ports.describeSecret({ secretId: secretName(credential.name) }));
  if (secret === 'absent') return 'absent';
  const versions = await ports.listVersions({ secretId: secret.arn });
  if (versions === 'absent') return 'absent';
  return {
    ...credential,
    // One that does not say when it changed may have changed just now: graces are counted from there.
    secret: { ...secret, changedAt: secret.changedAt ?? (await ports.now()) },
    versions: versions.toSorted((a, b) => a.createdAt.getTime() - b.createdAt.getTime()),
  };
}

/**
 * The other target that a value names, with a user that this credential made or adopted there; undefined where it names none, or
 * somebody else's user.
 */
export function elsewhereIn(
  { versionId, value: stored }: Pick<SecretVersion, 'versionId' | 'value'>,
  known: CredentialVersions,
  { sha256 }: Pick<Rekey, 'sha256'>,
): FormerTarget | undefined {
  const { spec, secret } = known;
  const value = parseSecretValue(stored, `version ${versionId} of ${secretName(spec.name)}`);
  if (value.kind === 'no-user') return undefined;
  if (value.provider === spec.provider && value.target === spec.targetId) return undefined;
  const { username, database } = value.login;
  // Its name alone proves nothing, so only the first login counts that the secret ever had: a value that somebody writes later may
  // name any target.
  const isFirst = known.versions.findIndex((version) => version.versionId === versionId) === 1;
  const isAdopted = spec.adopt?.username === username && isFirst;
  if (!isAdopted && !isOwn(username, withUserVersion(known, value), sha256)) return undefined;
  const labels = [...(secret.labelsByVersion.get(versionId) ?? [])].filter((label) =>
    label.startsWith('AWS'),
  );
  return {
    provider: value.provider,
    targetId: value.target,
    database,
    versionId,
    username,
    labels,
    isAdopted,
  };
}

/** The same of every version whose value can be read: one call each. */
export async function readElsewhere(
  known: CredentialVersions,
  rekey: Pick<Rekey, 'ports' | 'sha256'>,
): Promise<readonly FormerTarget[]> {
  const { secret, versions } = known;
  const found: FormerTarget[] = [];
  for (const { versionId } of versions) {
    const version = await rekey.ports.readSecret({ secretId: secret.arn, versionId });
    try {
      const other = version === 'absent' ? undefined : elsewhereIn(version, known, rekey);
      if (other !== undefined) found.push(other);
    } catch (error) {
      // What is no value of rekey names no user of it.
      if (!(error instanceof InputError)) throw error;
    }
  }
  return found;
}

export const sameLogin = (a: Login, b: Login): boolean =>
  a.username === b.username && a.password.equals(b.password) && a.host === b.host && a.port === b.port;

/**
 * Whether the pending value has another password for the user in AWSCURRENT: from setSecret until the rotation ends, AWSCURRENT is
 * refused. Only the values tell, as the spec may name another strategy or target since.
 */
export const resetsCurrent = (current: SecretValue, pending: SecretValue): boolean =>
  current.kind === 'login' &&
  pending.kind === 'login' &&
  current.provider === pending.provider &&
  current.target === pending.target &&
  current.login.username === pending.login.username &&
  !current.login.password.equals(pending.login.password);

/**
 * The login in a version; undefined where it has no value or names no user. Throws SECRET_MISMATCH for one of another provider or
 * target than the spec, or of a user that is not the credential's own: such a login is sent nowhere.
 */
export async function readLogin(
  versionId: string,
  known: Known,
  rekey: Pick<Rekey, 'ports' | 'sha256'>,
  maxAgeMs?: number,
): Promise<Login | undefined> {
  const request = { secretId: known.secret.arn, versionId, ...(maxAgeMs === undefined ? {} : { maxAgeMs }) };
  const found = await rekey.ports.readSecret(request);
  return found === 'absent' ? undefined : storedIn(found, known, rekey)?.login;
}

type Known = Pick<CredentialVersions, 'spec' | 'secret' | 'versions'>;
type Stored = Extract<SecretValue, { readonly kind: 'login' }>;

/** The same of a version that was read already, with all that its value says. */
export function storedIn(
  version: Pick<SecretVersion, 'versionId' | 'value'>,
  known: Known,
  rekey: Pick<Rekey, 'sha256'>,
): Stored | undefined {
  const value = loginIn(version, known.spec);
  if (value !== undefined && ownershipIn(value, known, rekey) === undefined)
    throw foreignUser(value, `version ${version.versionId} of ${secretName(known.spec.name)}`);
  return value;
}

/** Whose the user is that a value names; undefined for one that is not the credential's own. */
export const ownershipIn = (
  value: Stored,
  known: Known,
  { sha256 }: Pick<Rekey, 'sha256'>,
): Ownership | undefined => ownership(value.login.username, withUserVersion(known, value), sha256);

const withUserVersion = <Of extends Known>(known: Of, { userVersion }: Stored): Of & CredentialUsers =>
  userVersion === undefined ? known : { ...known, userVersions: [userVersion] };
type CredentialUsers = Pick<CredentialVersions, 'userVersions'>;

export const foreignUser = ({ login: { username } }: Stored, where: string): RotationRefused =>
  new RotationRefused(
    'SECRET_MISMATCH',
    `${where} names ${username}, which is no user of this credential; put the label back on a version that rekey wrote, or, if the user was adopted, put adopt back into the spec`,
  );

/** The version that a value says its user was made for. */
export function userVersionIn({ value: stored }: Pick<SecretVersion, 'value'>): readonly string[] {
  const value = parseSecretValue(stored, 'a stored value');
  return value.kind === 'login' && value.userVersion !== undefined ? [value.userVersion] : [];
}

/** The same of every version whose value can be read: one call each. */
export async function readUserVersions(
  { secret, versions }: Pick<CredentialVersions, 'secret' | 'versions'>,
  { ports }: Pick<Rekey, 'ports'>,
): Promise<readonly string[]> {
  const found = new Set<string>();
  // What is scheduled for deletion cannot be read.
  for (const { versionId } of secret.deletedAt === undefined ? versions : []) {
    const version = await ports.readSecret({ secretId: secret.arn, versionId });
    try {
      for (const each of version === 'absent' ? [] : userVersionIn(version)) found.add(each);
    } catch (error) {
      // What is no value of rekey names no user of it.
      if (!(error instanceof InputError)) throw error;
    }
  }
  return [...found];
}

/** What a version holds, whoever the user is. Throws SECRET_MISMATCH for a login of another provider or target than the spec. */
export function loginIn(
  { versionId, value: stored }: Pick<SecretVersion, 'versionId' | 'value'>,
  spec: CredentialSpec,
): Stored | undefined {
  const value = parseSecretValue(stored, `version ${versionId} of ${secretName(spec.name)}`);
  if (value.kind === 'no-user') return undefined;
  if (value.provider !== spec.provider || value.target !== spec.targetId)
    throw new RotationRefused(
      'SECRET_MISMATCH',
      `version ${versionId} of ${secretName(spec.name)} belongs to ${value.provider} ${value.target}, the spec to ${spec.provider} ${spec.targetId}; a credential does not move: request a new one`,
    );
  return value;
}
