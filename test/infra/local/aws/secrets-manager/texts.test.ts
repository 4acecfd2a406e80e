import {
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  ListSecretVersionIdsCommand,
  PutSecretValueCommand,
  RotateSecretCommand,
  TagResourceCommand,
  UntagResourceCommand,
  UpdateSecretCommand,
  UpdateSecretVersionStageCommand,
  ValidateResourcePolicyCommand,
} from '@aws-sdk/client-secrets-manager';
import { describe, expect, test } from 'vitest';
import { functionArn, refusalOf, type System, startSystem, token } from '../support.ts';

const v1 = token('v1');
const v2 = token('v2');
const unknown = token('unknown');

/** `app` with v1 [AWSCURRENT] and v2 [AWSPENDING]; `gone` scheduled for deletion. */
async function prepare(system: System): Promise<string> {
  const { secrets } = system;
  const { ARN = '' } = await secrets.send(
    new CreateSecretCommand({ Name: 'app', ClientRequestToken: v1, SecretString: 'one' }),
  );
  await secrets.send(
    new PutSecretValueCommand({
      SecretId: 'app',
      ClientRequestToken: v2,
      SecretString: 'two',
      VersionStages: ['AWSPENDING'],
    }),
  );
  await secrets.send(new CreateSecretCommand({ Name: 'gone', SecretString: 'x' }));
  await secrets.send(new DeleteSecretCommand({ SecretId: 'gone' }));
  return ARN;
}

const invalidName =
  'Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!';
const marked = "You can't perform this operation on the secret because it was marked for deletion.";
const notFound = "Secrets Manager can't find the specified secret.";
const policy = '{"Version":"2012-10-17","Statement":[]}';

type Case = {
  call: (system: System) => Promise<unknown>;
  name: string;
  /** `<ARN>` stands for the ARN of `app`. */
  message: string;
};

const cases: Record<string, Case> = {
  'reading an unknown secret': {
    call: ({ secrets }) => secrets.send(new GetSecretValueCommand({ SecretId: 'nobody' })),
    name: 'ResourceNotFoundException',
    message: notFound,
  },
  'listing the versions of an unknown secret': {
    call: ({ secrets }) => secrets.send(new ListSecretVersionIdsCommand({ SecretId: 'nobody' })),
    name: 'ResourceNotFoundException',
    message: notFound,
  },
  'reading a label that nothing holds': {
    call: ({ secrets }) =>
      secrets.send(new GetSecretValueCommand({ SecretId: 'app', VersionStage: 'AWSPREVIOUS' })),
    name: 'ResourceNotFoundException',
    message: "Secrets Manager can't find the specified secret value for staging label: AWSPREVIOUS",
  },
  'reading a secret without a value': {
    call: async ({ secrets }) => {
      await secrets.send(new CreateSecretCommand({ Name: 'empty' }));
      return secrets.send(new GetSecretValueCommand({ SecretId: 'empty' }));
    },
    name: 'ResourceNotFoundException',
    message: "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT",
  },
  'reading an unknown version': {
    call: ({ secrets }) => secrets.send(new GetSecretValueCommand({ SecretId: 'app', VersionId: unknown })),
    name: 'ResourceNotFoundException',
    message: `Secrets Manager can't find the specified secret value for VersionId: ${unknown}`,
  },
  'reading a version by a label that it does not hold': {
    call: ({ secrets }) =>
      secrets.send(new GetSecretValueCommand({ SecretId: 'app', VersionId: v2, VersionStage: 'AWSCURRENT' })),
    name: 'InvalidRequestException',
    message: 'You provided a VersionStage that is not associated to the provided VersionId.',
  },
  'creating a name that exists': {
    call: ({ secrets }) => secrets.send(new CreateSecretCommand({ Name: 'app', SecretString: 'other' })),
    name: 'ResourceExistsException',
    message: 'The operation failed because the secret app already exists.',
  },
  'creating a name that is scheduled for deletion': {
    call: ({ secrets }) => secrets.send(new CreateSecretCommand({ Name: 'gone', SecretString: 'x' })),
    name: 'InvalidRequestException',
    message:
      "You can't create this secret because a secret with this name is already scheduled for deletion.",
  },
  'tagging what is scheduled for deletion': {
    call: ({ secrets }) => secrets.send(new TagResourceCommand({ SecretId: 'gone', Tags: [] })),
    name: 'InvalidRequestException',
    message: marked,
  },
  'untagging what is scheduled for deletion': {
    call: ({ secrets }) => secrets.send(new UntagResourceCommand({ SecretId: 'gone', TagKeys: [] })),
    name: 'InvalidRequestException',
    message: marked,
  },
  'reading what is scheduled for deletion': {
    call: ({ secrets }) => secrets.send(new GetSecretValueCommand({ SecretId: 'gone' })),
    name: 'InvalidRequestException',
    message: marked,
  },
  'deleting what is scheduled for deletion': {
    call: ({ secrets }) => secrets.send(new DeleteSecretCommand({ SecretId: 'gone' })),
    name: 'InvalidRequestException',
    message: "You tried to perform the operation on a secret that's currently marked deleted.",
  },
  'deleting what is unknown, without force': {
    call: ({ secrets }) => secrets.send(new DeleteSecretCommand({ SecretId: 'nobody' })),
    name: 'ResourceNotFoundException',
    message: notFound,
  },
  'creating again under the same token with other data': {
    call: ({ secrets }) =>
      secrets.send(new CreateSecretCommand({ Name: 'app', ClientRequestToken: v1, SecretString: 'other' })),
    name: 'ResourceExistsException',
    message: `You can't use ClientRequestToken ${v1} because that value is already in use for a version of secret <ARN>.`,
  },
  'putting again under the same token with other data': {
    call: ({ secrets }) =>
      secrets.send(
        new PutSecretValueCommand({ SecretId: 'app', ClientRequestToken: v2, SecretString: 'other' }),
      ),
    name: 'ResourceExistsException',
    message: `You can't use ClientRequestToken ${v2} because that value is already in use for a version of secret <ARN>.`,
  },
  'updating again under the same token with other data': {
    call: ({ secrets }) =>
      secrets.send(
        new UpdateSecretCommand({ SecretId: 'app', ClientRequestToken: v2, SecretString: 'other' }),
      ),
    name: 'ResourceExistsException',
    message: `You can't use ClientRequestToken ${v2} because that value is already in use for a version of secret <ARN>.`,
  },
  'a raw CreateSecret without a token': {
    call: ({ secretsManager }) => secretsManager.call('CreateSecret', { Name: 'new', SecretString: 'x' }),
    name: 'InvalidRequestException',
    message: 'You must provide a ClientRequestToken value. We recommend a UUID-type value.',
  },
  'a raw PutSecretValue without a token': {
    call: ({ secretsManager }) =>
      secretsManager.call('PutSecretValue', { SecretId: 'app', SecretString: 'x' }),
    name: 'InvalidRequestException',
    message: 'You must provide a ClientRequestToken value. We recommend a UUID-type value.',
  },
  'a raw UpdateSecret without a token': {
    call: ({ secretsManager }) => secretsManager.call('UpdateSecret', { SecretId: 'app', SecretString: 'x' }),
    name: 'InvalidRequestException',
    message: 'You must provide a ClientRequestToken value. We recommend a UUID-type value.',
  },
  'a raw RotateSecret without a token': {
    call: ({ secretsManager }) => secretsManager.call('RotateSecret', { SecretId: 'app' }),
    name: 'InvalidParameterException',
    message: 'You must provide a ClientRequestToken value. We recommend a UUID-type value.',
  },
  'moving a held label without naming its holder': {
    call: ({ secrets }) =>
      secrets.send(
        new UpdateSecretVersionStageCommand({
          SecretId: 'app',
          VersionStage: 'AWSCURRENT',
          MoveToVersionId: v2,
        }),
      ),
    name: 'InvalidParameterException',
    message: `The parameter RemoveFromVersionId can't be empty. Staging label AWSCURRENT is currently attached to version ${v1}, so you must explicitly reference that version in RemoveFromVersionId.`,
  },
  'moving a label from a version that does not hold it': {
    call: ({ secrets }) =>
      secrets.send(
        new UpdateSecretVersionStageCommand({
          SecretId: 'app',
          VersionStage: 'AWSCURRENT',
          MoveToVersionId: v1,
          RemoveFromVersionId: v2,
        }),
      ),
    name: 'InvalidParameterException',
    message:
      'When you move staging label AWSCURRENT, if you specify RemoveFromVersionId, it must be set to the version that currently has the staging label AWSCURRENT.',
  },
  'moving a label to an unknown version': {
    call: ({ secrets }) =>
      secrets.send(
        new UpdateSecretVersionStageCommand({
          SecretId: 'app',
          VersionStage: 'AWSCURRENT',
          MoveToVersionId: unknown,
          RemoveFromVersionId: v1,
        }),
      ),
    name: 'ResourceNotFoundException',
    message: `Secrets Manager can't find the specified secret value for VersionId: ${unknown}.`,
  },
  'rotating while AWSPENDING is off AWSCURRENT': {
    call: ({ secrets }) =>
      secrets.send(new RotateSecretCommand({ SecretId: 'app', RotationLambdaARN: functionArn })),
    name: 'InvalidRequestException',
    message: "A previous rotation isn't complete. That rotation will be reattempted.",
  },
  'rotating with a function that may not be called': {
    call: ({ secrets }) =>
      secrets.send(
        new RotateSecretCommand({ SecretId: 'app', RotationLambdaARN: `${functionArn}-forbidden` }),
      ),
    name: 'AccessDeniedException',
    message:
      'Secrets Manager cannot invoke the specified Lambda function. Ensure that the function policy grants access to the principal secretsmanager.amazonaws.com.',
  },
  'rotating a secret that never had a function': {
    call: ({ secrets }) => secrets.send(new RotateSecretCommand({ SecretId: 'app' })),
    name: 'InvalidRequestException',
    message: 'No Lambda rotation function ARN is associated with this secret.',
  },
};

describe('every refusal has the name and the text that AWS gives it', () => {
  test.each(Object.entries(cases))('%s', async (_sentence, { call, name, message }) => {
    const system = await startSystem({ mayInvoke: (arn) => arn === functionArn });
    const arn = await prepare(system);
    const refusal = await refusalOf(call(system));
    expect(refusal).toMatchObject({ name, message: message.replace('<ARN>', arn) });
    // Called in process there is no status.
    expect([0, 400]).toContain(refusal.status);
  });
});

describe('a name with a foreign character is refused by', () => {
  const bad = 'what?';
  const calls: Record<string, (system: System) => Promise<unknown>> = {
    CreateSecret: ({ secrets }) => secrets.send(new CreateSecretCommand({ Name: bad })),
    DeleteSecret: ({ secrets }) => secrets.send(new DeleteSecretCommand({ SecretId: bad })),
    DescribeSecret: ({ secrets }) => secrets.send(new DescribeSecretCommand({ SecretId: bad })),
    GetSecretValue: ({ secrets }) => secrets.send(new GetSecretValueCommand({ SecretId: bad })),
    ListSecretVersionIds: ({ secrets }) => secrets.send(new ListSecretVersionIdsCommand({ SecretId: bad })),
    PutSecretValue: ({ secrets }) =>
      secrets.send(new PutSecretValueCommand({ SecretId: bad, SecretString: 'x' })),
    TagResource: ({ secrets }) => secrets.send(new TagResourceCommand({ SecretId: bad, Tags: [] })),
    UntagResource: ({ secrets }) => secrets.send(new UntagResourceCommand({ SecretId: bad, TagKeys: [] })),
    UpdateSecret: ({ secrets }) => secrets.send(new UpdateSecretCommand({ SecretId: bad, Description: 'x' })),
    ValidateResourcePolicy: ({ secrets }) =>
      secrets.send(new ValidateResourcePolicyCommand({ SecretId: bad, ResourcePolicy: policy })),
  };
  test.each(Object.entries(calls))('%s', async (_operation, call) => {
    const refusal = await refusalOf(call(await startSystem()));
    expect(refusal).toEqual({ name: 'ValidationException', message: invalidName, status: 400 });
  });
});

describe('a value outside its bounds is refused', () => {
  const secretId = 'app';
  const inputs: Record<string, { operation: string; input: object; want: string }> = {
    'a token of 31 characters': {
      operation: 'PutSecretValue',
      input: { SecretId: secretId, SecretString: 'x', ClientRequestToken: 'x'.repeat(31) },
      want: 'InvalidParameterException: ClientRequestToken must be 32-64 characters long.',
    },
    'a token of 65 characters': {
      operation: 'RotateSecret',
      input: { SecretId: secretId, ClientRequestToken: 'x'.repeat(65) },
      want: 'InvalidParameterException: ClientRequestToken must be 32-64 characters long.',
    },
    'a name of 513 characters': {
      operation: 'CreateSecret',
      input: { Name: 'n'.repeat(513), ClientRequestToken: v1 },
      want: "ValidationException: 1 validation error detected: Value at 'name' failed to satisfy constraint: Member must have length less than or equal to 512",
    },
    'an empty value': {
      operation: 'PutSecretValue',
      input: { SecretId: secretId, SecretString: '', ClientRequestToken: v2 },
      want: "ValidationException: 1 validation error detected: Value at 'secretString' failed to satisfy constraint: Member must have length greater than or equal to 1",
    },
    'a value of 65 537 characters': {
      operation: 'PutSecretValue',
      input: { SecretId: secretId, SecretString: 'x'.repeat(65_537), ClientRequestToken: v2 },
      want: "ValidationException: 1 validation error detected: Value at 'secretString' failed to satisfy constraint: Member must have length less than or equal to 65536",
    },
    'two values': {
      operation: 'PutSecretValue',
      input: { SecretId: secretId, SecretString: 'x', SecretBinary: 'eHh4', ClientRequestToken: v2 },
      want: "InvalidParameterException: You can't specify both a binary secret value and a string secret value in the same secret.",
    },
    'no value': {
      operation: 'PutSecretValue',
      input: { SecretId: secretId, ClientRequestToken: v2 },
      want: 'InvalidRequestException: You must provide either SecretString or SecretBinary.',
    },
    'twenty-one labels': {
      operation: 'PutSecretValue',
      input: {
        SecretId: secretId,
        SecretString: 'x',
        ClientRequestToken: v2,
        VersionStages: Array.from({ length: 21 }, (_, index) => `l${index}`),
      },
      want: "ValidationException: 1 validation error detected: Value at 'versionStages' failed to satisfy constraint: Member must have length less than or equal to 20",
    },
    'a rotation token with a foreign character': {
      operation: 'PutSecretValue',
      input: { SecretId: secretId, SecretString: 'x', ClientRequestToken: v2, RotationToken: '_'.repeat(36) },
      want: "ValidationException: 1 validation error detected: Value at 'rotationToken' failed to satisfy constraint: Member must satisfy regular expression pattern: /^[a-zA-Z0-9-]+$/",
    },
    'two missing members': {
      operation: 'TagResource',
      input: {},
      want: "ValidationException: 2 validation errors detected: Value null at 'secretId' failed to satisfy constraint: Member must not be null; Value null at 'tags' failed to satisfy constraint: Member must not be null",
    },
    'a filter key that does not exist': {
      operation: 'ListSecrets',
      input: { Filters: [{ Key: 'colour', Values: ['red'] }] },
      want: "ValidationException: 1 validation error detected: Value at 'filters.1.member.key' failed to satisfy constraint: Member must satisfy enum value set: [description, name, tag-key, tag-value, primary-region, owning-service, all]",
    },
    'a recovery window of six days': {
      operation: 'DeleteSecret',
      input: { SecretId: secretId, RecoveryWindowInDays: 6 },
      want: 'InvalidParameterException: The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).',
    },
    'both an interval and an expression': {
      operation: 'RotateSecret',
      input: {
        SecretId: secretId,
        ClientRequestToken: v2,
        RotationLambdaARN: functionArn,
        RotationRules: { AutomaticallyAfterDays: 3, ScheduleExpression: 'rate(4 hours)' },
      },
      want: "InvalidParameterException: You can't specify both AutomaticallyAfterDays and ScheduleExpression.",
    },
    'a member of the wrong type': {
      operation: 'DescribeSecret',
      input: { SecretId: 7 },
      want: "SerializationException: Member 'secretId' has the wrong type.",
    },
  };
  test.each(Object.entries(inputs))('%s', async (_sentence, { operation, input, want }) => {
    const { secretsManager } = await startSystem();
    await secretsManager.call('CreateSecret', {
      Name: secretId,
      SecretString: 'one',
      ClientRequestToken: v1,
    });
    const { name, message } = await refusalOf(secretsManager.call(operation, input));
    expect(`${name}: ${message}`).toBe(want);
  });
});
