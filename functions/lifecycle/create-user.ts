import { RotationRefused } from '../core/errors.ts';
import { jsonOf } from '../core/json.ts';
import { secretName, specParameterName } from '../core/names.ts';
import type { SecretDescription } from '../core/ports.ts';
import { holderOf } from '../core/rotation.ts';
import { firstSecretString } from '../core/secret-value.ts';
import { Sensitive } from '../core/sensitive.ts';
import { everyDays, parseSpec, specDocument } from '../core/spec.ts';
import { type Rekey, untilFound } from './rekey.ts';

/**
 * A new credential: its spec is stored, its secret made with a first value that names no user, rotation attached and the
 * first rotation started. Creation *is* the first rotation, so a crash in it is a crash in a rotation.
 *
 * Every part finds what an earlier run left, so the event may come again at any time. Throws InputError with every wrong
 * field before anything is changed, RotationRefused when the name is taken by something else.
 */
export async function createUser(
  document: unknown,
  { rotationFunctionArn }: { rotationFunctionArn: string },
  rekey: Rekey,
): Promise<void> {
  const { ports, sha256 } = rekey;
  const spec = await parseSpec(document, rekey.loadProvider);
  const parameter = specParameterName(spec.name);
  const wanted = specDocument(spec);
  if ((await ports.writeSpec({ parameter, document: wanted })) === 'exists') {
    const existing = await ports.readSpec({ parameter });
    if (
      existing === 'absent' ||
      specDocument(await parseSpec(jsonOf(existing), rekey.loadProvider)) !== wanted
    )
      throw new RotationRefused(
        'SPEC_CONFLICT',
        `${parameter} holds another spec; change the parameter instead of requesting the credential again`,
      );
  }

  await ports.createSecret({
    name: secretName(spec.name),
    token: tokenFrom(sha256(`first value of ${secretName(spec.name)}`)),
    value: new Sensitive(firstSecretString),
    description: `Login of ${spec.name} on ${spec.provider} ${spec.targetId}, kept by rekey`,
  });
  const secret = await describeNew(secretName(spec.name), rekey);
  const facts = {
    credential: spec.name,
    provider: spec.provider,
    target: spec.targetId,
    strategy: spec.strategy,
  };
  // AWSPREVIOUS appears with the first switch and never goes away: the labels tell, so this function reads no password.
  if (holderOf(secret.labelsByVersion, 'AWSPREVIOUS') !== undefined) {
    rekey.log('info', 'the credential exists already', facts);
    return;
  }
  await ports.startRotation({
    secretId: secret.arn,
    token: tokenFrom(sha256(`first rotation of ${secret.arn}`)),
    functionArn: rotationFunctionArn,
    everyDays: everyDays(spec),
  });
  await ports.publish([{ type: 'CredentialCreated', detail: facts }]);
  rekey.log('info', 'the first rotation was started', facts);
}

async function describeNew(secretId: string, { ports }: Rekey): Promise<SecretDescription> {
  const secret = await untilFound(
    ports,
    () => ports.describeSecret({ secretId }),
    (answer) => answer !== 'absent',
  );
  if (secret === 'absent')
    throw new RotationRefused('SECRET_UNKNOWN', `${secretId} cannot be read back yet; the event is retried`);
  if (secret.deletedAt !== undefined)
    throw new RotationRefused(
      'DELETION_IN_PROGRESS',
      `${secretId} is scheduled for deletion; restore it, or wait until it is gone`,
    );
  return secret;
}

/** A token that a repeated event derives again, in the form of a UUID, as CloudTrail's readers expect one. */
function tokenFrom(digest: Uint8Array): string {
  const hex = Buffer.from(digest.subarray(0, 16)).toString('hex');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
