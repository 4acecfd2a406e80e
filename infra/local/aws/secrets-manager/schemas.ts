import * as z from 'zod';

// Bounds of the public service model. The length of ClientRequestToken and RecoveryWindowInDays have refusals of their
// own and are checked where they are used.

const secretId = z.string().min(1).max(2048);
const name = z.string().min(1).max(512);
const token = z.string().optional();
const versionId = z.string().min(32).max(64);
const label = z.string().min(1).max(256);
const secretString = z.string().min(1).max(65_536);
// Base64 of 1 to 65 536 bytes.
const secretBinary = z.base64().min(4).max(87_384);
const tagKey = z.string().min(1).max(128);
const tags = z.array(z.object({ Key: tagKey, Value: z.string().max(256).default('') }));
const nextToken = z.string().min(1).max(4096).optional();
const policy = z.string().min(1).max(20_480);
const filters = z
  .array(
    z.object({
      Key: z.enum(['description', 'name', 'tag-key', 'tag-value', 'primary-region', 'owning-service', 'all']),
      Values: z
        .array(
          z
            .string()
            .max(512)
            .regex(/^!?[a-zA-Z0-9 :_@/+=.\-!]*$/),
        )
        .min(1)
        .max(10),
    }),
  )
  .max(10)
  .optional();

const replicaRegion = z.string().regex(/^([a-z]+-)+\d+$/);
const replicas = z
  .array(z.object({ Region: replicaRegion, KmsKeyId: z.string().max(2048).optional() }))
  .min(1);

const onlySecretId = z.object({ SecretId: secretId });

/** Input of each operation, wire form. */
export const schemas = {
  CreateSecret: z.object({
    Name: name,
    ClientRequestToken: token,
    Description: z.string().max(2048).optional(),
    KmsKeyId: z.string().max(2048).optional(),
    SecretString: secretString.optional(),
    SecretBinary: secretBinary.optional(),
    Tags: tags.optional(),
    Type: z.string().max(256).optional(),
    AddReplicaRegions: replicas.optional(),
    ForceOverwriteReplicaSecret: z.boolean().optional(),
  }),
  PutSecretValue: z.object({
    SecretId: secretId,
    ClientRequestToken: token,
    SecretString: secretString.optional(),
    SecretBinary: secretBinary.optional(),
    VersionStages: z.array(label).min(1).max(20).optional(),
    RotationToken: z
      .string()
      .min(36)
      .max(256)
      .regex(/^[a-zA-Z0-9-]+$/)
      .optional(),
  }),
  UpdateSecret: z.object({
    SecretId: secretId,
    ClientRequestToken: token,
    Description: z.string().max(2048).optional(),
    KmsKeyId: z.string().max(2048).optional(),
    SecretString: secretString.optional(),
    SecretBinary: secretBinary.optional(),
    Type: z.string().max(256).optional(),
  }),
  UpdateSecretVersionStage: z.object({
    SecretId: secretId,
    VersionStage: label,
    RemoveFromVersionId: versionId.optional(),
    MoveToVersionId: versionId.optional(),
  }),
  GetSecretValue: z.object({
    SecretId: secretId,
    VersionId: versionId.optional(),
    VersionStage: label.optional(),
  }),
  BatchGetSecretValue: z.object({
    SecretIdList: z.array(secretId).min(1).max(20).optional(),
    Filters: filters,
    MaxResults: z.int().min(1).max(20).optional(),
    NextToken: nextToken,
  }),
  DescribeSecret: onlySecretId,
  ListSecretVersionIds: z.object({
    SecretId: secretId,
    MaxResults: z.int().min(1).max(100).optional(),
    NextToken: nextToken,
    IncludeDeprecated: z.boolean().optional(),
  }),
  ListSecrets: z.object({
    IncludePlannedDeletion: z.boolean().optional(),
    MaxResults: z.int().min(1).max(100).optional(),
    NextToken: nextToken,
    Filters: filters,
    SortOrder: z.enum(['asc', 'desc']).optional(),
    SortBy: z.enum(['created-date', 'last-accessed-date', 'last-changed-date', 'name']).optional(),
  }),
  TagResource: z.object({ SecretId: secretId, Tags: tags }),
  UntagResource: z.object({ SecretId: secretId, TagKeys: z.array(tagKey) }),
  RotateSecret: z.object({
    SecretId: secretId,
    ClientRequestToken: token,
    RotationLambdaARN: z.string().max(2048).optional(),
    RotationRules: z
      .object({
        AutomaticallyAfterDays: z.int().min(1).max(1000).optional(),
        Duration: z
          .string()
          .min(2)
          .max(3)
          .regex(/^[0-9]+h$/)
          .optional(),
        ScheduleExpression: z
          .string()
          .min(1)
          .max(256)
          .regex(/^[0-9A-Za-z()#?*\-/, ]+$/)
          .optional(),
      })
      .optional(),
    RotateImmediately: z.boolean().optional(),
  }),
  CancelRotateSecret: onlySecretId,
  DeleteSecret: z.object({
    SecretId: secretId,
    RecoveryWindowInDays: z.int().optional(),
    ForceDeleteWithoutRecovery: z.boolean().optional(),
  }),
  ReplicateSecretToRegions: z.object({
    SecretId: secretId,
    AddReplicaRegions: replicas,
    ForceOverwriteReplicaSecret: z.boolean().optional(),
  }),
  RemoveRegionsFromReplication: z.object({
    SecretId: secretId,
    RemoveReplicaRegions: z.array(replicaRegion).min(1),
  }),
  RestoreSecret: onlySecretId,
  GetRandomPassword: z.object({
    PasswordLength: z.int().min(1).max(4096).optional(),
    ExcludeCharacters: z.string().max(4096).optional(),
    ExcludeNumbers: z.boolean().optional(),
    ExcludePunctuation: z.boolean().optional(),
    ExcludeUppercase: z.boolean().optional(),
    ExcludeLowercase: z.boolean().optional(),
    IncludeSpace: z.boolean().optional(),
    RequireEachIncludedType: z.boolean().optional(),
  }),
  PutResourcePolicy: z.object({
    SecretId: secretId,
    ResourcePolicy: policy,
    BlockPublicPolicy: z.boolean().optional(),
  }),
  GetResourcePolicy: onlySecretId,
  DeleteResourcePolicy: onlySecretId,
  ValidateResourcePolicy: z.object({ SecretId: secretId.optional(), ResourcePolicy: policy }),
} as const;

export type Input<Name extends keyof typeof schemas> = z.output<(typeof schemas)[Name]>;
