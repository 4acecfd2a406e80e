import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, Stack } from 'aws-cdk-lib';
import { Match, Template } from 'aws-cdk-lib/assertions';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { parseSpec } from '../../functions/core/spec.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import { createUserEnvironment, rotateSecretEnvironment } from '../../functions/runtime/env.ts';
import { credentials } from '../../infra/credentials.ts';
import { type LocalStack, readTemplate } from '../../infra/local/template.ts';
import { Rekey, type RekeyProps } from '../../infra/rekey.ts';

const root = mkdtempSync(join(tmpdir(), 'rekey-stack-'));
const code = () => Code.fromAsset(join(root, 'functions'));
let template: Template;
/** The same stack with every reference resolved. */
let stack: LocalStack;

const { context } = z
  .object({ context: z.record(z.string(), z.unknown()) })
  .parse(JSON.parse(readFileSync(new URL('../../cdk.json', import.meta.url), 'utf8')));
const where = { account: '111122223333', region: 'eu-central-1' };
const rotator = 'arn:aws:lambda:eu-central-1:111122223333:function:rekey-rotate-secret';

async function synthesize(
  props: Partial<RekeyProps> = {},
): Promise<{ template: Template; directory: string }> {
  // Two of the examples stand for all of them.
  const examples = credentials.filter(({ name }) => ['orders-render', 'orders-cockroach'].includes(name));
  const specs = await Promise.all(examples.map((credential) => parseSpec(credential, loadProvider)));
  const directory = mkdtempSync(join(root, 'out-'));
  // With the feature flags of the deployment: some of them change policies.
  const app = new App({ outdir: directory, context });
  const made = new Stack(app, 'Rekey');
  new Rekey(made, 'Rekey', { code: code(), credentials: specs, ...props });
  const template = Template.fromStack(made);
  return { template, directory };
}

beforeAll(async () => {
  mkdirSync(join(root, 'functions'));
  writeFileSync(join(root, 'functions/rotate-secret.mjs'), '');
  const made = await synthesize();
  template = made.template;
  stack = await readTemplate(join(made.directory, 'Rekey.template.json'), where);
});
afterAll(() => rmSync(root, { recursive: true }));

const functionNamed = (name: string) => {
  const found = stack.functions.find((each) => each.name === name);
  if (found === undefined) throw new Error(`no function ${name}`);
  return found;
};

describe('rotation', () => {
  test('Secrets Manager may call the rotation function, and only for secrets of this account', () => {
    template.hasResourceProperties('AWS::Lambda::Permission', {
      Action: 'lambda:InvokeFunction',
      Principal: 'secretsmanager.amazonaws.com',
      SourceAccount: { Ref: 'AWS::AccountId' },
      SourceArn: Match.absent(),
    });
    expect(stack.permissions.map(({ principal, functionArn }) => [principal, functionArn])).toEqual([
      ['secretsmanager.amazonaws.com', rotator],
      ['events.amazonaws.com', 'arn:aws:lambda:eu-central-1:111122223333:function:rekey-create-user'],
    ]);
  });

  test('deploying rotates nothing', () => {
    template.allResourcesProperties('AWS::SecretsManager::RotationSchedule', {
      RotateImmediatelyOnUpdate: false,
    });
  });

  test('each credential is rotated as often as its spec says', () => {
    expect(stack.rotations).toEqual([
      {
        secretName: 'rekey/orders-render',
        functionArn: rotator,
        rules: { automaticallyAfterDays: 30 },
        rotateImmediately: false,
      },
      {
        secretName: 'rekey/orders-cockroach',
        functionArn: rotator,
        rules: { automaticallyAfterDays: 30 },
        rotateImmediately: false,
      },
    ]);
  });

  test('a schedule is made only when the function may be called and finds the spec', () => {
    const dependencies = Object.values(template.findResources('AWS::SecretsManager::RotationSchedule')).map(
      ({ DependsOn }: { DependsOn?: string[] }) =>
        DependsOn?.map((id) => template.toJSON()['Resources'][id].Type).sort(),
    );
    const needed = ['AWS::Lambda::Function', 'AWS::Lambda::Permission', 'AWS::SSM::Parameter'];
    expect(dependencies).toEqual([needed, needed]);
  });

  test('nobody is forbidden to delete a secret', () => {
    template.resourceCountIs('AWS::SecretsManager::ResourcePolicy', 0);
  });

  test('the function has the time that a slow provider needs, and Lambda neither retries it nor parks its failures', () => {
    expect(functionNamed('rekey-rotate-secret')).toMatchObject({
      timeoutSeconds: 900,
      onFailureArn: undefined,
    });
    template.hasResourceProperties('AWS::Lambda::Function', {
      FunctionName: 'rekey-rotate-secret',
      DeadLetterConfig: Match.absent(),
    });
  });
});

describe('a secret', () => {
  // CloudFormation writes a changed value over the live password. Whoever changes this text breaks every login.
  test('starts with the value that names no user, and nothing about it ever changes', () => {
    expect(template.findResources('AWS::SecretsManager::Secret')).toEqual({
      RekeyordersrenderF53388AF: expect.objectContaining({
        Properties: {
          Name: 'rekey/orders-render',
          Description: 'rekey: current login of the credential orders-render',
          SecretString: '{"rekey":"no user yet; the first rotation makes one"}',
        },
      }),
      RekeyorderscockroachC0A901DF: expect.objectContaining({
        Properties: {
          Name: 'rekey/orders-cockroach',
          Description: 'rekey: current login of the credential orders-cockroach',
          SecretString: '{"rekey":"no user yet; the first rotation makes one"}',
        },
      }),
    });
  });

  test('outlives the stack, since the user at the provider does', () => {
    template.allResources('AWS::SecretsManager::Secret', {
      DeletionPolicy: 'Retain',
      UpdateReplacePolicy: 'Retain',
    });
  });
});

test('the functions find the spec that the user wrote, with defaults filled in', () => {
  expect(stack.parameters.map(({ name, value }) => [name, JSON.parse(value)])).toEqual([
    [
      '/rekey/credentials/orders-render',
      {
        name: 'orders-render',
        provider: 'render-postgres',
        target: { postgresId: 'dpg-d0local0render0demo0-a' },
        apiKeySecret: 'rekey/api-keys/render',
        usernamePrefix: 'orders',
        strategy: 'replace-user',
        privileges: {},
        rotation: { every: 'P30D' },
        grace: 'PT24H',
        verify: 'login',
      },
    ],
    [
      '/rekey/credentials/orders-cockroach',
      {
        name: 'orders-cockroach',
        provider: 'cockroachdb-cloud',
        target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10', database: 'defaultdb' },
        apiKeySecret: 'rekey/api-keys/cockroachdb',
        usernamePrefix: 'orders',
        strategy: 'replace-user',
        privileges: { roles: ['orders_rw'] },
        rotation: { every: 'P30D' },
        grace: 'PT24H',
        verify: 'login',
      },
    ],
  ]);
});

describe('a request for a credential', () => {
  test('goes from the bus to the function, and what cannot be delivered is kept', () => {
    const [rule] = stack.rules;
    expect(stack.rules).toHaveLength(1);
    expect(rule).toMatchObject({
      busName: 'rekey',
      isEnabled: true,
      pattern: { source: ['rekey'], 'detail-type': ['CredentialRequested'] },
      targets: [
        {
          arn: functionNamed('rekey-create-user').arn,
          deadLetterArn: stack.queues[0]?.arn,
          retryPolicy: { maximumRetryAttempts: 185, maximumEventAgeSeconds: 86_400 },
        },
      ],
    });
  });

  test('that fails in the function is tried three times and kept', () => {
    expect(functionNamed('rekey-create-user')).toMatchObject({
      asyncRetries: 2,
      onFailureArn: stack.queues[0]?.arn,
    });
  });

  test('is kept for two weeks, encrypted, and only over TLS', () => {
    template.hasResourceProperties('AWS::SQS::Queue', {
      SqsManagedSseEnabled: true,
      MessageRetentionPeriod: 1_209_600,
    });
    template.hasResourceProperties('AWS::SQS::QueuePolicy', {
      PolicyDocument: {
        Statement: Match.arrayWith([
          Match.objectLike({
            Effect: 'Deny',
            Action: 'sqs:*',
            Condition: { Bool: { 'aws:SecureTransport': 'false' } },
          }),
        ]),
      },
    });
  });
});

describe('every function', () => {
  test('runs on the Node that the tests run on, for longer than the 30 seconds that cut rotations short', () => {
    template.allResourcesProperties('AWS::Lambda::Function', {
      Runtime: 'nodejs24.x',
      Architectures: ['arm64'],
    });
    for (const { timeoutSeconds } of stack.functions) expect(timeoutSeconds).toBeGreaterThan(30);
  });

  test('keeps its log for a year, in a group of its own', () => {
    template.allResourcesProperties('AWS::Logs::LogGroup', { RetentionInDays: 365 });
    expect(
      Object.values(template.findResources('AWS::Logs::LogGroup')).map(
        ({ Properties }) => Properties.LogGroupName,
      ),
    ).toEqual(['/aws/lambda/rekey-rotate-secret', '/aws/lambda/rekey-create-user']);
  });

  test('finds exactly the environment that it reads', () => {
    expect(rotateSecretEnvironment.parse(functionNamed('rekey-rotate-secret').environment)).toMatchObject({
      REKEY_EVENT_BUS_NAME: 'rekey',
    });
    expect(createUserEnvironment.parse(functionNamed('rekey-create-user').environment)).toMatchObject({
      REKEY_EVENT_BUS_NAME: 'rekey',
      REKEY_ROTATION_FUNCTION_ARN: rotator,
    });
    for (const { environment } of stack.functions)
      for (const name of Object.keys(environment))
        expect(Object.keys(createUserEnvironment.shape)).toContain(name);
  });

  test('goes through the egress proxy when there is one', async () => {
    const { template: proxied } = await synthesize({ httpsProxy: 'http://proxy.internal:3128' });
    proxied.allResourcesProperties('AWS::Lambda::Function', {
      Environment: { Variables: Match.objectLike({ HTTPS_PROXY: 'http://proxy.internal:3128' }) },
    });
  });
});

describe('least privilege', () => {
  const statement = (effect: 'Allow' | 'Deny', actions: string[], resources: string[], conditions = {}) => ({
    effect,
    actions,
    resources: resources.map((resource) => expect.stringMatching(new RegExp(`^arn:aws:${resource}$`))),
    conditions,
  });
  const here = 'eu-central-1:111122223333';
  const secrets = `secretsmanager:${here}:secret:rekey/\\*`;
  const vendorSecrets = [
    `secretsmanager:${here}:secret:rekey/admin/\\*`,
    `secretsmanager:${here}:secret:rekey/api-keys/\\*`,
  ];
  const specs = `ssm:${here}:parameter/rekey/credentials/\\*`;
  const publish = statement('Allow', ['events:PutEvents'], [`events:${here}:event-bus/rekey`]);
  const writeLog = (name: string) =>
    statement(
      'Allow',
      ['logs:CreateLogStream', 'logs:PutLogEvents'],
      [`logs:${here}:log-group:/aws/lambda/${name}:\\*`],
    );

  const cases: Record<string, { name: string; want: readonly object[] }> = {
    'rotate-secret touches the secrets that it rotates, and reads vendor keys and specs': {
      name: 'rekey-rotate-secret',
      want: [
        statement(
          'Allow',
          [
            'secretsmanager:DescribeSecret',
            'secretsmanager:GetSecretValue',
            'secretsmanager:PutSecretValue',
            'secretsmanager:UpdateSecretVersionStage',
          ],
          [secrets],
          { StringEquals: { 'secretsmanager:resource/AllowRotationLambdaArn': [rotator] } },
        ),
        statement('Allow', ['secretsmanager:GetSecretValue'], vendorSecrets),
        statement('Allow', ['ssm:GetParameter'], [specs]),
        publish,
        writeLog('rekey-rotate-secret'),
      ],
    },
    'create-user makes specs and secrets, attaches this rotation function and never touches vendor keys': {
      name: 'rekey-create-user',
      want: [
        statement('Allow', ['ssm:GetParameter', 'ssm:PutParameter'], [specs]),
        statement(
          'Allow',
          ['secretsmanager:CreateSecret', 'secretsmanager:DescribeSecret', 'secretsmanager:RotateSecret'],
          [secrets],
        ),
        statement('Deny', ['secretsmanager:*'], vendorSecrets),
        statement('Allow', ['lambda:InvokeFunction'], [`lambda:${here}:function:rekey-rotate-secret`]),
        publish,
        statement('Allow', ['sqs:SendMessage'], [`sqs:${here}:Rekey-RekeyLostRequests.*`]),
        writeLog('rekey-create-user'),
      ],
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { name, want }) => {
    expect(functionNamed(name).roleStatements.map(({ sid: _sid, ...statement }) => statement)).toEqual(want);
  });
});

test('the local stand-ins know every resource of the stack', () => {
  expect(stack.unknown).toEqual([]);
});

test('the same sources give the same template', async () => {
  expect((await synthesize()).template.toJSON()).toEqual(template.toJSON());
});
