import { randomSuffix } from '../random.ts';
import { type CallContext, epochSeconds, type Operation, operation } from '../service.ts';
import { type Core, checkPolicy, onSecret, purge } from './core.ts';
import { refusals } from './errors.ts';
import type { Secret } from './model.ts';
import { isPublic, parsePolicy } from './policy.ts';
import { randomPassword } from './random-password.ts';
import { addReplicas, removeReplicas, replicasOf, replicationStatus } from './replication.ts';
import type { Rotations } from './rotation.ts';
import { type Input, schemas } from './schemas.ts';
import { checkName } from './store.ts';

const dayMs = 86_400_000;

/** Tags, policies, deletion and passwords. */
export function administrationOperations(
  core: Core,
  rotations: Rotations,
): Readonly<Record<string, Operation>> {
  const { store, clock, random, events, variants } = core;
  const identity = ({ arn, name }: Secret) => ({ ARN: arn, Name: name });

  function remove(input: Input<'DeleteSecret'>, context: CallContext) {
    purge(core);
    checkName(input.SecretId);
    const { RecoveryWindowInDays: days, ForceDeleteWithoutRecovery: isForced = false } = input;
    if (isForced && days !== undefined) throw refusals.deleteTwoWays();
    if (days !== undefined && (days < 7 || days > 30)) throw refusals.deleteWindow();
    const now = clock.now();
    const secret = store.lookUp(input.SecretId);
    if (secret === undefined) {
      if (!isForced) throw refusals.secretUnknown();
      // Forcing is idempotent: an unknown secret is reported as deleted.
      const ARN = input.SecretId.startsWith('arn:')
        ? input.SecretId
        : `${core.arnPrefix}${input.SecretId}-${randomSuffix(random, 6)}`;
      return { ARN, Name: input.SecretId, DeletionDate: epochSeconds(now) };
    }
    checkPolicy(core, secret, 'DeleteSecret', context);
    if (secret.deletedAt !== undefined && !isForced) {
      if (variants().secondDelete === 'error') throw refusals.alreadyDeleted();
      return { ...identity(secret), DeletionDate: epochSeconds(secret.deletedAt) };
    }
    const regions = replicasOf(core, secret).map(([region]) => region);
    if (regions.length > 0) throw refusals.stillReplicated(secret.arn, regions);
    const delayMs = isForced ? variants().forcedDeletionMs : (days ?? 30) * dayMs;
    const deletedAt = new Date(now.getTime() + delayMs);
    rotations.endFor(secret);
    store.write(secret, () => {
      secret.deletedAt = deletedAt;
    });
    events.serviceEvent(secret, 'StartSecretVersionDelete');
    events.apiCall(secret, 'DeleteSecret', input, undefined, context);
    purge(core);
    return { ...identity(secret), DeletionDate: epochSeconds(isForced ? now : deletedAt) };
  }

  function restore(secret: Secret) {
    if (secret.deletedAt === undefined && variants().restoreLive === 'error')
      throw refusals.notScheduledForDeletion();
    if (secret.deletedAt !== undefined) {
      store.write(secret, () => {
        delete secret.deletedAt;
      });
      events.serviceEvent(secret, 'CancelSecretVersionDelete');
    }
    return identity(secret);
  }

  function tag(secret: Secret, input: Input<'TagResource'>) {
    store.write(secret, () => {
      secret.tags ??= new Map();
      for (const { Key, Value } of input.Tags) secret.tags.set(Key, Value);
    });
    return {};
  }

  function untag(secret: Secret, input: Input<'UntagResource'>) {
    store.write(secret, () => {
      for (const key of input.TagKeys) secret.tags?.delete(key);
    });
    return {};
  }

  function putPolicy(secret: Secret, input: Input<'PutResourcePolicy'>) {
    const policy = parsePolicy(input.ResourcePolicy);
    if (input.BlockPublicPolicy && isPublic(policy)) throw refusals.policyPublic();
    store.write(secret, () => {
      secret.resourcePolicy = input.ResourcePolicy;
    });
    return identity(secret);
  }

  function validatePolicy(input: Input<'ValidateResourcePolicy'>) {
    purge(core);
    if (input.SecretId !== undefined) {
      checkName(input.SecretId);
      store.findLive(input.SecretId);
    }
    const ValidationErrors = isPublic(parsePolicy(input.ResourcePolicy))
      ? [{ CheckName: 'PUBLIC_POLICY', ErrorMessage: refusals.policyPublic().message }]
      : [];
    return { PolicyValidationPassed: ValidationErrors.length === 0, ValidationErrors };
  }

  function replicate(secret: Secret, input: Input<'ReplicateSecretToRegions'>) {
    store.write(secret, () => addReplicas(core, secret, input.AddReplicaRegions));
    return { ARN: secret.arn, ReplicationStatus: replicationStatus(core, secret) ?? [] };
  }

  function unreplicate(secret: Secret, input: Input<'RemoveRegionsFromReplication'>) {
    store.write(secret, () => removeReplicas(core, secret, input.RemoveReplicaRegions));
    return { ARN: secret.arn, ReplicationStatus: replicationStatus(core, secret) ?? [] };
  }

  const writes = { find: 'live', logged: true } as const;
  return {
    ReplicateSecretToRegions: onSecret(
      core,
      'ReplicateSecretToRegions',
      schemas.ReplicateSecretToRegions,
      writes,
      replicate,
    ),
    RemoveRegionsFromReplication: onSecret(
      core,
      'RemoveRegionsFromReplication',
      schemas.RemoveRegionsFromReplication,
      writes,
      unreplicate,
    ),
    DeleteSecret: operation(schemas.DeleteSecret, remove),
    RestoreSecret: onSecret(
      core,
      'RestoreSecret',
      schemas.RestoreSecret,
      { find: 'any', logged: true },
      restore,
    ),
    TagResource: onSecret(core, 'TagResource', schemas.TagResource, writes, tag),
    UntagResource: onSecret(core, 'UntagResource', schemas.UntagResource, writes, untag),
    PutResourcePolicy: onSecret(core, 'PutResourcePolicy', schemas.PutResourcePolicy, writes, putPolicy),
    GetResourcePolicy: onSecret(
      core,
      'GetResourcePolicy',
      schemas.GetResourcePolicy,
      { find: 'live', logged: false },
      (secret) => ({
        ...identity(secret),
        ...(secret.resourcePolicy !== undefined && { ResourcePolicy: secret.resourcePolicy }),
      }),
    ),
    DeleteResourcePolicy: onSecret(
      core,
      'DeleteResourcePolicy',
      schemas.DeleteResourcePolicy,
      writes,
      (secret) => {
        store.write(secret, () => {
          delete secret.resourcePolicy;
        });
        return identity(secret);
      },
    ),
    ValidateResourcePolicy: operation(schemas.ValidateResourcePolicy, validatePolicy),
    GetRandomPassword: operation(schemas.GetRandomPassword, (input) => ({
      RandomPassword: randomPassword(input, random),
    })),
  };
}
