import { InputError, RotationRefused, StoreError } from '../core/errors.ts';
import type { Credential } from '../core/fleet.ts';
import type { CredentialState, CredentialVersions } from '../core/generations.ts';
import { secretName } from '../core/names.ts';
import type { Label, SecretVersion } from '../core/ports.ts';
import type { Login, Provider } from '../core/provider.ts';
import { holderOf } from '../core/rotation.ts';
import { parseApiKey, parseSecretValue, parseUser } from '../core/secret-value.ts';
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

/** Everything that Secrets Manager knows of a credential now; `absent` when it has no secret. */
export async function readState(credential: Credential, rekey: Rekey): Promise<CredentialState | 'absent'> {
  const known = await readVersions(credential, rekey);
  if (known === 'absent') return 'absent';
  const { secret, spec } = known;
  // A secret that is scheduled for deletion can still be described, but not read.
  const readable = secret.deletedAt === undefined;
  const username = async (label: Label): Promise<string | undefined> => {
    const versionId = holderOf(secret.labelsByVersion, label);
    if (!readable || versionId === undefined) return undefined;
    return (await readLogin({ secretArn: secret.arn, versionId }, spec, rekey))?.username;
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
  return { ...known, currentUsername, pendingUsername, previousUsername };
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

export const sameLogin = (a: Login, b: Login): boolean =>
  a.username === b.username && a.password.equals(b.password) && a.host === b.host && a.port === b.port;

/**
 * The login in a version; undefined where it has no value or names no user. Throws SECRET_MISMATCH for one that points to another
 * provider or target than the spec: such a login is sent nowhere.
 */
export async function readLogin(
  where: { readonly secretArn: string; readonly versionId: string },
  spec: CredentialSpec,
  rekey: Rekey,
): Promise<Login | undefined> {
  return (await readStored(where, spec, rekey))?.login;
}

/** The same with what the spec declared when it was made; undefined where the value does not say. */
export async function readStored(
  { secretArn, versionId }: { readonly secretArn: string; readonly versionId: string },
  spec: CredentialSpec,
  { ports }: Rekey,
): Promise<{ readonly login: Login; readonly privileges: unknown } | undefined> {
  const found = await ports.readSecret({ secretId: secretArn, versionId });
  return found === 'absent' ? undefined : storedIn(found, spec);
}

/** The same of a version that was read already. */
export const loginIn = (
  version: Pick<SecretVersion, 'versionId' | 'value'>,
  spec: CredentialSpec,
): Login | undefined => storedIn(version, spec)?.login;

function storedIn(
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
