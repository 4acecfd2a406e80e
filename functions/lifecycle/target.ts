import { InputError, RotationRefused, StoreError } from '../core/errors.ts';
import type { Credential, FormerTarget } from '../core/fleet.ts';
import { type CredentialState, type CredentialVersions, isOwn } from '../core/generations.ts';
import { secretName } from '../core/names.ts';
import type { Label, SecretVersion } from '../core/ports.ts';
import type { Login, Provider } from '../core/provider.ts';
import { holderOf } from '../core/rotation.ts';
import { parseApiKey, parseSecretValue, parseUser, type SecretValue } from '../core/secret-value.ts';
import { Sensitive } from '../core/sensitive.ts';
import type { CredentialSpec } from '../core/spec.ts';
import type { Rekey } from './rekey.ts';

/** The provider of a spec, opened on its target with the vendor's key. Throws SECRET_INVALID when there is no key. */
export async function openTarget(spec: CredentialSpec, until: Date, rekey: Rekey): Promise<Provider> {
  const [apiKey, admin] = await Promise.all([
    stored(spec.apiKeySecret, parseApiKey, rekey),
    spec.adminSecret === undefined ? undefined : stored(spec.adminSecret, parseUser, rekey),
  ]);
  return spec.definition.open(
    {
      target: spec.target,
      privileges: spec.privileges,
      apiKey,
      until,
      ...(admin === undefined ? {} : { admin }),
    },
    rekey.ports,
  );
}

/**
 * A secret that the user keeps, such as an API key. One that is not there, or is scheduled for deletion and so refused, reads as
 * empty, which `parse` refuses by name.
 */
export async function stored<T>(
  secretId: string,
  parse: (value: Sensitive, where: string) => T,
  { ports }: Rekey,
): Promise<T> {
  const found = await ports.readSecret({ secretId, label: 'AWSCURRENT' }).catch((error: unknown) => {
    if (error instanceof StoreError && error.code === 'STORE_REFUSED') return 'absent' as const;
    throw error;
  });
  return parse(found === 'absent' ? new Sensitive('') : found.value, secretId);
}

/**
 * Everything that Secrets Manager knows of a credential now; `absent` when it has no secret. A value may name a user of this
 * credential at another target: its name proves it.
 */
export async function readState(credential: Credential, rekey: Rekey): Promise<CredentialState | 'absent'> {
  const known = await readVersions(credential, rekey);
  if (known === 'absent') return 'absent';
  const { secret, spec } = known;
  const { ports } = rekey;
  // A secret that is scheduled for deletion can still be described, but not read.
  const readable = secret.deletedAt === undefined;
  const elsewhere: FormerTarget[] = [];
  const username = async (label: Label): Promise<string | undefined> => {
    const versionId = holderOf(secret.labelsByVersion, label);
    if (!readable || versionId === undefined) return undefined;
    const found = await ports.readSecret({ secretId: secret.arn, versionId });
    if (found === 'absent') return undefined;
    const other = elsewhereIn(found, known, rekey);
    if (other === undefined) return loginIn(found, spec)?.username;
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
  return { ...known, currentUsername, pendingUsername, previousUsername, elsewhere };
}

/** The same without reading any value: also of a credential whose values are unreadable or scheduled for deletion. */
export async function readVersions(
  credential: Credential,
  { ports }: Rekey,
): Promise<CredentialVersions | 'absent'> {
  const secret = await ports.describeSecret({ secretId: secretName(credential.name) });
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
  if (!isAdopted && !isOwn(username, known, sha256)) return undefined;
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
 * The login in a version; undefined where it has no value or names no user. Throws SECRET_MISMATCH for one that points to another
 * provider or target than the spec: such a login is sent nowhere.
 */
export async function readLogin(
  { secretArn, versionId }: { readonly secretArn: string; readonly versionId: string },
  spec: CredentialSpec,
  { ports }: Rekey,
): Promise<Login | undefined> {
  const found = await ports.readSecret({ secretId: secretArn, versionId });
  return found === 'absent' ? undefined : loginIn(found, spec);
}

/** The same of a version that was read already. */
export const loginIn = (
  version: Pick<SecretVersion, 'versionId' | 'value'>,
  spec: CredentialSpec,
): Login | undefined => storedIn(version, spec)?.login;

/** The same with what the spec declared when it was made; undefined where the value does not say. */
export function storedIn(
  { versionId, value: stored }: Pick<SecretVersion, 'versionId' | 'value'>,
  spec: CredentialSpec,
): { readonly login: Login; readonly privileges: unknown } | undefined {
  const value = parseSecretValue(stored, `version ${versionId} of ${secretName(spec.name)}`);
  if (value.kind === 'no-user') return undefined;
  if (value.provider !== spec.provider || value.target !== spec.targetId)
    throw new RotationRefused(
      'SECRET_MISMATCH',
      `version ${versionId} of ${secretName(spec.name)} belongs to ${value.provider} ${value.target}, the spec to ${spec.provider} ${spec.targetId}; a credential does not move: request a new one`,
    );
  return { login: value.login, privileges: value.privileges };
}
