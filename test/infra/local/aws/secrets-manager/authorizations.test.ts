import { expect, test } from 'vitest';
import { account, functionArn, region, startSystem } from '../support.ts';

const versionId = '0d4f1c9a-2f4b-4c7e-9b53-6f0a1c2d3e4f';

/** What each call tells a policy, without the prefix of its condition keys. */
const cases: Record<string, { operation: string; input: object; want: Readonly<Record<string, string>> }> = {
  'a read of a stage': {
    operation: 'GetSecretValue',
    input: { VersionStage: 'AWSPENDING' },
    want: { VersionStage: 'AWSPENDING' },
  },
  'a read of a version': {
    operation: 'GetSecretValue',
    input: { VersionId: versionId },
    want: { VersionId: versionId },
  },
  'a read of neither, though it gets AWSCURRENT': { operation: 'GetSecretValue', input: {}, want: {} },
  'a label that moves': {
    operation: 'UpdateSecretVersionStage',
    input: { VersionStage: 'AWSCURRENT', MoveToVersionId: versionId },
    want: { VersionStage: 'AWSCURRENT' },
  },
  'a deletion at once': {
    operation: 'DeleteSecret',
    input: { ForceDeleteWithoutRecovery: true },
    want: { ForceDeleteWithoutRecovery: 'true' },
  },
  'a deletion that can be taken back': {
    operation: 'DeleteSecret',
    input: { RecoveryWindowInDays: 7 },
    want: { RecoveryWindowInDays: '7' },
  },
  'a description, which no condition is about': { operation: 'DescribeSecret', input: {}, want: {} },
};

test.each(Object.entries(cases))('%s', async (_title, { operation, input, want }) => {
  const { secretsManager } = await startSystem();
  expect(secretsManager.authorizations(operation, { SecretId: 'rekey/orders', ...input })).toEqual([
    {
      action: `secretsmanager:${operation}`,
      resource: `arn:aws:secretsmanager:${region}:${account}:secret:rekey/orders-absent`,
      context: Object.fromEntries(
        Object.entries(want).map(([member, value]) => [`secretsmanager:${member}`, value]),
      ),
    },
  ]);
});

test('a rotation names its function, which the caller has to be allowed to call as well', async () => {
  const { secretsManager } = await startSystem();
  const input = { SecretId: 'rekey/orders', RotationLambdaARN: functionArn, RotateImmediately: false };
  expect(secretsManager.authorizations('RotateSecret', input)).toMatchObject([
    {
      action: 'secretsmanager:RotateSecret',
      context: {
        'secretsmanager:RotationLambdaARN': functionArn,
        'secretsmanager:RotateImmediately': 'false',
      },
    },
    { action: 'lambda:InvokeFunction', resource: functionArn },
  ]);
});

test('a secret with replicas is judged twice, and both times by whether it overwrites secrets of other Regions', async () => {
  const { secretsManager } = await startSystem();
  const context = { 'secretsmanager:ForceOverwriteReplicaSecret': 'true' };
  expect(
    secretsManager.authorizations('CreateSecret', {
      Name: 'rekey/orders',
      AddReplicaRegions: [{ Region: 'eu-west-1' }],
      ForceOverwriteReplicaSecret: true,
    }),
  ).toMatchObject([
    { action: 'secretsmanager:CreateSecret', context },
    { action: 'secretsmanager:ReplicateSecretToRegions', context },
  ]);
});
