import type { Directives } from '../core/directives.ts';
import { InputError, RotationRefused } from '../core/errors.ts';
import type { CredentialFacts } from '../core/events.ts';
import { Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { secretName, specParameterName } from '../core/names.ts';
import type { ReplicaWish, SecretDescription } from '../core/ports.ts';
import type { Login } from '../core/provider.ts';
import { holderOf } from '../core/rotation.ts';
import { firstSecretString, parseUser, secretString } from '../core/secret-value.ts';
import { Sensitive } from '../core/sensitive.ts';
import { backstopDays, type CredentialSpec, parseSpec, specDocument } from '../core/spec.ts';
import { readFleet } from './fleet.ts';
import { specUnchanged } from './guarded-write.ts';
import { ignoreRequest, isReplay, readStandingOrders } from './orders.ts';
import { type Rekey, untilFound } from './rekey.ts';
import { openTarget, stored } from './target.ts';

/** What is the same for every credential of this deployment. */
export interface Creation {
  readonly rotationFunctionArn: string;
  /** The KMS key that encrypts the secret. @default the one that AWS manages */
  readonly secretKeyArn?: string | undefined;
  /** Where the login can be read beside its own Region. @default nowhere */
  readonly replicas?: readonly ReplicaWish[] | undefined;
}

/**
 * A new credential: its spec is stored, its secret made with a first value that names no user, rotation attached and the
 * first rotation started. Creation *is* the first rotation, so a crash in it is a crash in a rotation.
 *
 * A spec that adopts a user gets a secret that names this user instead, and nothing changes at the provider before the first
 * rotation is due.
 *
 * Every part finds what an earlier run left, so the event may come again at any time. Throws InputError with every wrong
 * field before anything is changed, RotationRefused when the name or the prefix is taken by something else.
 */
export async function createUser(
  { document, requestedAt }: { readonly document: unknown; readonly requestedAt: Date },
  { rotationFunctionArn, secretKeyArn, replicas = [] }: Creation,
  until: Date,
  rekey: Rekey,
): Promise<void> {
  const { ports, sha256 } = rekey;
  const spec = await parseSpec(document, rekey);
  const standing = await readStandingOrders(spec.name, ports);
  // A replay, from an archive or a dead-letter queue, must not bring back what was deleted since.
  if (isReplay(requestedAt, standing.directives))
    return ignoreRequest(spec.name, requestedAt, standing.directives, rekey);
  await refuseUnfit(spec, standing.directives, rekey);
  const guard = Guard.of(specUnchanged(spec, rekey));
  const facts = {
    credential: spec.name,
    provider: spec.provider,
    target: spec.targetId,
    strategy: spec.strategy,
  };
  const secretId = secretName(spec.name);
  const before = await ports.describeSecret({ secretId });
  if (before !== 'absent') refuseScheduled(before, secretId);
  if (before !== 'absent' && isMade(before, rekey)) {
    const isNew = (await storeSpec(spec, rekey)) === 'written';
    if (before.rotationEnabled) {
      rekey.log('info', 'the credential exists already', facts);
      return;
    }
    // Somebody switched it off, and its login may be dead: that must not pass for a credential that works.
    if (!isNew)
      throw new RotationRefused(
        'ROTATION_DISABLED',
        `rotation of ${secretId} is switched off; switch it on with RotateSecret, or delete the credential and request it again`,
      );
    // Deleted and restored: its users are gone, so that it needs a new one.
    await ports.startRotation({
      secretId: before.arn,
      token: tokenFrom(sha256(`rotation after restoring ${before.arn} ${before.changedAt?.toISOString()}`)),
      functionArn: rotationFunctionArn,
      everyDays: backstopDays(spec),
      immediately: true,
      guard,
    });
    await tell(facts, undefined, rekey);
    return;
  }
  const adopted = spec.adopt === undefined ? undefined : await adoptedLogin(spec, spec.adopt, until, rekey);
  await storeSpec(spec, rekey);

  await ports.createSecret({
    name: secretId,
    token: tokenFrom(sha256(`first value of ${secretId}`)),
    value: new Sensitive(firstSecretString),
    description: `Login of ${spec.name} on ${spec.provider} ${spec.targetId}, kept by rekey`,
    ...(secretKeyArn === undefined ? {} : { keyArn: secretKeyArn }),
    ...(replicas.length === 0 ? {} : { replicas }),
    guard,
  });
  const secret = await describeNew(secretId, rekey);
  if (isMade(secret, rekey)) return;
  if (adopted !== undefined) {
    await ports.writeSecret({
      secretId: secret.arn,
      token: adoptionToken(secret.arn, rekey),
      // The rights of an adopted user are those that it came with, until its first rotation.
      value: secretString(adopted, { definition: spec.definition, targetId: spec.targetId }),
      label: 'AWSCURRENT',
      guard,
    });
  }
  await ports.startRotation({
    secretId: secret.arn,
    token: tokenFrom(
      sha256(`${adopted === undefined ? 'first rotation' : 'attaching rotation'} of ${secret.arn}`),
    ),
    functionArn: rotationFunctionArn,
    everyDays: backstopDays(spec),
    immediately: adopted === undefined,
    guard,
  });
  await tell(facts, adopted, rekey);
}

/**
 * AWSPREVIOUS appears with the first switch and never goes away: the labels tell, so nothing of an existing login is read. An
 * adopted login is a switch, too; without rotation an earlier run died between it and what comes after it.
 */
function isMade({ arn, labelsByVersion, rotationEnabled }: SecretDescription, rekey: Rekey): boolean {
  if (holderOf(labelsByVersion, 'AWSPREVIOUS') === undefined) return false;
  return holderOf(labelsByVersion, 'AWSCURRENT') !== adoptionToken(arn, rekey) || rotationEnabled;
}

const adoptionToken = (secretArn: string, { sha256 }: Rekey): string =>
  tokenFrom(sha256(`adopted value of ${secretArn}`));

async function tell(
  facts: CredentialFacts,
  adopted: Login | undefined,
  { ports, log }: Rekey,
): Promise<void> {
  await ports.publish([
    { type: 'CredentialCreated', detail: facts },
    ...(adopted === undefined
      ? []
      : [{ type: 'CredentialAdopted', detail: { ...facts, username: adopted.username } } as const]),
  ]);
  log('info', adopted === undefined ? 'the first rotation was started' : 'the user was adopted', {
    ...facts,
  });
}

/** What a spec may not be beside others, or at this time. Nothing was changed yet. */
async function refuseUnfit(spec: CredentialSpec, directives: Directives, rekey: Rekey): Promise<void> {
  const now = await rekey.ports.now();
  if (spec.expiresAt !== undefined && new Date(spec.expiresAt) <= now)
    throw new InputError(
      'SPEC_INVALID',
      `expiresAt: expected an instant to come, got ${spec.expiresAt}; correct the spec and send it again, nothing was changed`,
    );
  const { credentials } = await readFleet(rekey);
  const twin = credentials.find(
    (other) =>
      other.name !== spec.name &&
      other.spec.provider === spec.provider &&
      other.spec.targetId === spec.targetId &&
      other.spec.usernamePrefix === spec.usernamePrefix,
  );
  if (twin !== undefined)
    throw new RotationRefused(
      'SPEC_CONFLICT',
      `usernamePrefix: ${spec.usernamePrefix} is the prefix of ${twin.name} on ${spec.targetId} already; choose another, so that a user's name tells whose it is; nothing was changed`,
    );
  if (directives.deleteSince !== undefined)
    throw new RotationRefused(
      'DELETION_IN_PROGRESS',
      `${spec.name} is being deleted; wait until its parameter is gone, then request it again`,
    );
}

async function storeSpec(spec: CredentialSpec, rekey: Rekey): Promise<'written' | 'exists'> {
  const { ports } = rekey;
  const parameter = specParameterName(spec.name);
  const wanted = specDocument(spec);
  if ((await ports.createParameter({ parameter, document: wanted })) === 'written') return 'written';
  const existing = await ports.readParameter({ parameter });
  if (existing === 'absent' || specDocument(await parseSpec(jsonOf(existing), rekey)) !== wanted)
    throw new RotationRefused(
      'SPEC_CONFLICT',
      `${parameter} holds another spec; change the parameter instead of requesting the credential again`,
    );
  return 'exists';
}

/** The login to adopt, proved to work: a secret must never begin with one that does not. */
async function adoptedLogin(
  spec: CredentialSpec,
  adopt: NonNullable<CredentialSpec['adopt']>,
  until: Date,
  rekey: Rekey,
): Promise<Login> {
  const [{ username, password }, provider] = await Promise.all([
    stored(adopt.passwordSecret, parseUser, rekey),
    openTarget(spec, until, rekey),
  ]);
  const wrong = (reason: string): InputError =>
    new InputError(
      'SPEC_INVALID',
      `adopt: ${reason}; correct ${adopt.passwordSecret} or the spec and send it again, nothing was changed`,
    );
  if (username !== adopt.username)
    throw wrong(`expected the login of ${adopt.username} in ${adopt.passwordSecret}, got another user's`);
  const login = { ...(await provider.endpoint()), username, password };
  if (spec.verify === 'login' && (await provider.verify(login)) === 'rejected')
    throw wrong(`${spec.provider} refused ${username} with the password in ${adopt.passwordSecret}`);
  return login;
}

async function describeNew(secretId: string, { ports }: Rekey): Promise<SecretDescription> {
  const secret = await untilFound(
    ports,
    () => ports.describeSecret({ secretId }),
    (answer) => answer !== 'absent',
  );
  if (secret === 'absent')
    throw new RotationRefused('SECRET_UNKNOWN', `${secretId} cannot be read back yet; the event is retried`);
  refuseScheduled(secret, secretId);
  return secret;
}

function refuseScheduled({ deletedAt }: SecretDescription, secretId: string): void {
  if (deletedAt !== undefined)
    throw new RotationRefused(
      'DELETION_IN_PROGRESS',
      `${secretId} is scheduled for deletion; restore it, or wait until it is gone`,
    );
}

/** A token that a repeated event derives again, in the form of a UUID, as CloudTrail's readers expect one. */
function tokenFrom(digest: Uint8Array): string {
  const hex = Buffer.from(digest.subarray(0, 16)).toString('hex');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
