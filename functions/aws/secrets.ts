import {
  CancelRotateSecretCommand,
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  ListSecretsCommand,
  ListSecretVersionIdsCommand,
  PutSecretValueCommand,
  RemoveRegionsFromReplicationCommand,
  type ReplicationStatusType,
  RotateSecretCommand,
  type SecretListEntry,
  type SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { StoreError } from '../core/errors.ts';
import { jsonOf } from '../core/json.ts';
import type { Ports, SecretDescription, SecretReplica } from '../core/ports.ts';
import { openVersion } from '../core/rotation.ts';
import { type Redactor, Sensitive } from '../core/sensitive.ts';
import { failureOf, isNamed } from './failure.ts';
import { changeFailureOf, guarded } from './guarded.ts';
import { everyPage, unreadable } from './pages.ts';

type SecretPorts = Pick<
  Ports,
  | 'describeSecret'
  | 'readSecret'
  | 'writeSecret'
  | 'moveLabel'
  | 'createSecret'
  | 'startRotation'
  | 'cancelRotation'
  | 'listVersions'
  | 'listSecrets'
  | 'removeReplicas'
  | 'deleteSecret'
>;

/** What DescribeSecret and ListSecrets say alike. */
const stateOf = (
  answer: Pick<
    SecretListEntry,
    'RotationEnabled' | 'CreatedDate' | 'LastRotatedDate' | 'LastChangedDate' | 'DeletedDate'
  >,
  labels: Readonly<Record<string, readonly string[]>> = {},
): Omit<SecretDescription, 'arn' | 'name' | 'replicas'> => ({
  rotationEnabled: answer.RotationEnabled ?? false,
  labelsByVersion: new Map(
    Object.entries(labels).map(([version, held]): [string, ReadonlySet<string>] => [version, new Set(held)]),
  ),
  ...(answer.CreatedDate === undefined ? {} : { createdAt: answer.CreatedDate }),
  ...(answer.LastRotatedDate === undefined ? {} : { lastRotatedAt: answer.LastRotatedDate }),
  ...(answer.LastChangedDate === undefined ? {} : { changedAt: answer.LastChangedDate }),
  ...(answer.DeletedDate === undefined ? {} : { deletedAt: answer.DeletedDate }),
});

/**
 * The ports to Secrets Manager. Decisions are made on error names and fields, never on texts, which AWS may reword. Every
 * value that passes is learned by `redactor`. `clock` is the one that guards are kept by.
 */
export function secretsManager(
  client: SecretsManagerClient,
  redactor: Redactor,
  clock: () => Date = () => new Date(),
): SecretPorts {
  const describeSecret: SecretPorts['describeSecret'] = async ({ secretId }) => {
    try {
      const answer = await client.send(new DescribeSecretCommand({ SecretId: secretId }));
      return {
        arn: answer.ARN ?? secretId,
        name: answer.Name ?? '',
        ...stateOf(answer, answer.VersionIdsToStages),
        ...(answer.ReplicationStatus === undefined || answer.ReplicationStatus.length === 0
          ? {}
          : { replicas: answer.ReplicationStatus.map(replicaOf) }),
      };
    } catch (error) {
      if (isNamed(error, 'ResourceNotFoundException')) return 'absent';
      throw failureOf(error, `DescribeSecret of ${secretId}`, 'none');
    }
  };

  return {
    describeSecret,

    async readSecret({ secretId, versionId, label }) {
      try {
        const answer = await client.send(
          new GetSecretValueCommand({ SecretId: secretId, VersionId: versionId, VersionStage: label }),
        );
        // A binary value was not written by rekey: read as empty, it is refused as such.
        const value = new Sensitive(answer.SecretString ?? '');
        learnFields(redactor, value);
        return {
          versionId: answer.VersionId ?? '',
          value,
          ...(answer.CreatedDate === undefined ? {} : { createdAt: answer.CreatedDate }),
        };
      } catch (error) {
        // Only this name means "not there"; anything else read as that would mint a second password for one token.
        if (isNamed(error, 'ResourceNotFoundException')) return 'absent';
        // The label is not on that version: a value of that version *and* label does not exist either.
        if (versionId !== undefined && label !== undefined && isNamed(error, 'InvalidRequestException')) {
          const described = await describeSecret({ secretId });
          if (described === 'absent') return 'absent';
          if (described.deletedAt === undefined && !described.labelsByVersion.get(versionId)?.has(label))
            return 'absent';
        }
        throw failureOf(error, `GetSecretValue of ${secretId}`, 'none');
      }
    },

    async writeSecret({ secretId, token, value, label, rotationToken, guard }) {
      learnFields(redactor, value);
      if (rotationToken !== undefined) redactor.learn(rotationToken);
      try {
        await client.send(
          guarded(
            new PutSecretValueCommand({
              SecretId: secretId,
              ClientRequestToken: token,
              SecretString: value.reveal(),
              VersionStages: [label],
              RotationToken: rotationToken?.reveal(),
            }),
            guard,
            clock,
          ),
        );
        return 'written';
      } catch (error) {
        if (isNamed(error, 'ResourceExistsException')) return 'taken';
        throw changeFailureOf(error, `PutSecretValue of ${secretId}`, 'unknown');
      }
    },

    async moveLabel({ secretId, label, from, to, guard }) {
      try {
        await client.send(
          guarded(
            new UpdateSecretVersionStageCommand({
              SecretId: secretId,
              VersionStage: label,
              MoveToVersionId: to,
              RemoveFromVersionId: from,
            }),
            guard,
            clock,
          ),
        );
        return 'moved';
      } catch (error) {
        // InvalidParameter: `from` does not hold the label, or somebody does and `from` was left out. InvalidRequest: the
        // secret is scheduled for deletion. Either way the labels are to be read again before anything else is decided.
        if (conflicts.some((name) => isNamed(error, name))) return 'conflict';
        throw changeFailureOf(error, `UpdateSecretVersionStage of ${secretId}`, 'unknown');
      }
    },

    async createSecret({ name, token, value, description, keyArn, replicas = [], guard }) {
      learnFields(redactor, value);
      try {
        await client.send(
          guarded(
            new CreateSecretCommand({
              Name: name,
              ClientRequestToken: token,
              SecretString: value.reveal(),
              Description: description,
              KmsKeyId: keyArn,
              // Of a secret of that name that is there already nothing is overwritten: the replica fails, and says so.
              ...(replicas.length === 0
                ? {}
                : {
                    AddReplicaRegions: replicas.map((replica) => ({
                      Region: replica.region,
                      KmsKeyId: replica.keyArn,
                    })),
                  }),
            }),
            guard,
            clock,
          ),
        );
        return 'created';
      } catch (error) {
        if (isNamed(error, 'ResourceExistsException')) return 'exists';
        // The name is scheduled for deletion: the caller sees that when it describes the secret.
        if (
          isNamed(error, 'InvalidRequestException') &&
          (await describeSecret({ secretId: name })) !== 'absent'
        )
          return 'exists';
        throw changeFailureOf(error, `CreateSecret of ${name}`, 'unknown');
      }
    },

    async startRotation({ secretId, token, functionArn, everyDays, immediately, guard }) {
      try {
        await client.send(
          guarded(
            new RotateSecretCommand({
              SecretId: secretId,
              ClientRequestToken: token,
              RotationLambdaARN: functionArn,
              RotationRules: { AutomaticallyAfterDays: everyDays },
              RotateImmediately: immediately,
            }),
            guard,
            clock,
          ),
        );
        return 'started';
      } catch (error) {
        // A rotation under way is refused by this name, but so is more: the labels tell.
        if (isNamed(error, 'InvalidRequestException')) {
          const described = await describeSecret({ secretId });
          if (described !== 'absent' && openVersion(described) !== undefined) return 'in-progress';
        }
        throw changeFailureOf(error, `RotateSecret of ${secretId}`, 'unknown');
      }
    },

    async cancelRotation({ secretId, guard }) {
      try {
        await client.send(guarded(new CancelRotateSecretCommand({ SecretId: secretId }), guard, clock));
        return 'cancelled';
      } catch (error) {
        if (isNamed(error, 'ResourceNotFoundException')) return 'absent';
        // Refused where there is nothing to cancel: no step of a rotation may go on in such a secret anyway.
        if (isNamed(error, 'InvalidRequestException')) {
          const described = await describeSecret({ secretId });
          if (described === 'absent') return 'absent';
          if (described.deletedAt !== undefined || !described.rotationEnabled) return 'cancelled';
        }
        throw changeFailureOf(error, `CancelRotateSecret of ${secretId}`, 'unknown');
      }
    },

    async listVersions({ secretId }) {
      const call = `ListSecretVersionIds of ${secretId}`;
      try {
        return await everyPage(call, async (token) => {
          const { Versions = [], NextToken } = await client.send(
            new ListSecretVersionIdsCommand({
              SecretId: secretId,
              IncludeDeprecated: true,
              NextToken: token,
            }),
          );
          const items = Versions.map(
            ({ VersionId: versionId, VersionStages = [], CreatedDate: createdAt }) => {
              // A version left out would make a user foreign that is ours.
              if (versionId === undefined || createdAt === undefined)
                throw unreadable(call, 'answered a version without its id or date');
              return { versionId, labels: new Set(VersionStages), createdAt };
            },
          );
          return { items, next: NextToken };
        });
      } catch (error) {
        if (error instanceof StoreError && isNamed(error.cause, 'ResourceNotFoundException')) return 'absent';
        throw error;
      }
    },

    async listSecrets({ namePrefix }) {
      const call = `ListSecrets below ${namePrefix}`;
      const found = await everyPage(call, async (token) => {
        const { SecretList = [], NextToken } = await client.send(
          new ListSecretsCommand({ Filters: [{ Key: 'name', Values: [namePrefix] }], NextToken: token }),
        );
        const items = SecretList.map((secret) => {
          const { ARN: arn, Name: name, OwningService, Type } = secret;
          if (arn === undefined || name === undefined)
            throw unreadable(call, 'answered a secret without its ARN or name');
          const isManaged = OwningService !== undefined || Type !== undefined;
          return { arn, name, isManaged, ...stateOf(secret, secret.SecretVersionsToStages) };
        });
        return { items, next: NextToken };
      });
      // The filter takes words apart and each for a prefix (moto's tests against AWS), so it may let others pass.
      return found.filter(({ name }) => name.startsWith(namePrefix));
    },

    async removeReplicas({ secretId, regions, guard }) {
      try {
        await client.send(
          guarded(
            new RemoveRegionsFromReplicationCommand({
              SecretId: secretId,
              RemoveReplicaRegions: [...regions],
            }),
            guard,
            clock,
          ),
        );
        return 'removed';
      } catch (error) {
        if (isNamed(error, 'ResourceNotFoundException')) return 'absent';
        // An earlier pass may have been first: what such a Region is refused by is not known for sure.
        if (refusals.some((name) => isNamed(error, name))) {
          const described = await describeSecret({ secretId });
          if (described === 'absent') return 'absent';
          if (!(described.replicas ?? []).some(({ region }) => regions.includes(region))) return 'removed';
        }
        throw changeFailureOf(error, `RemoveRegionsFromReplication of ${secretId}`, 'unknown');
      }
    },

    async deleteSecret({ secretId, recoveryDays, guard }) {
      try {
        await client.send(
          guarded(
            new DeleteSecretCommand({ SecretId: secretId, RecoveryWindowInDays: recoveryDays }),
            guard,
            clock,
          ),
        );
        return 'scheduled';
      } catch (error) {
        if (isNamed(error, 'ResourceNotFoundException')) return 'absent';
        // Scheduled before, by us or by hand: the earlier date stands. Whether AWS refuses that is not known for sure, nor by which
        // of the two names it refuses what is replicated.
        if (refusals.some((name) => isNamed(error, name))) {
          const described = await describeSecret({ secretId });
          if (described === 'absent') return 'absent';
          if (described.deletedAt !== undefined) return 'scheduled';
          if (described.replicas !== undefined) return 'replicated';
        }
        throw changeFailureOf(error, `DeleteSecret of ${secretId}`, 'unknown');
      }
    },
  };
}

function replicaOf({ Region, Status, StatusMessage }: ReplicationStatusType): SecretReplica {
  const status = Status === 'InSync' ? 'in-sync' : Status === 'Failed' ? 'failed' : 'in-progress';
  return { region: Region ?? '', status, ...(StatusMessage === undefined ? {} : { reason: StatusMessage }) };
}

const refusals = ['InvalidParameterException', 'InvalidRequestException'];
const conflicts = ['InvalidParameterException', 'InvalidRequestException', 'ResourceNotFoundException'];

/** The whole value and, where it is JSON, the fields that would betray it alone. */
function learnFields(redactor: Redactor, value: Sensitive): void {
  redactor.learn(value);
  // A key typed into a console often ends in a line break; what goes out, and comes back in texts, has none.
  redactor.learn(value.reveal().trim());
  const document = jsonOf(value.reveal());
  if (document === null || typeof document !== 'object') return;
  for (const [name, field] of Object.entries(document))
    if (typeof field === 'string' && /^(password|url|uri|token|apiKey)$/.test(name)) redactor.learn(field);
}
