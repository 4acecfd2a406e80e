// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Fn::Sub is written so
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type LocalStack, readTemplate, type TemplateOptions } from '../../../infra/local/template.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'rekey-template-'));
});
afterAll(() => rm(directory, { recursive: true }));

async function read(template: object, options: Partial<TemplateOptions> = {}): Promise<LocalStack> {
  const path = join(directory, 'Example.template.json');
  await writeFile(path, JSON.stringify(template));
  const files = {
    abc: {
      source: { path: 'asset.abc', packaging: 'zip' },
      destinations: { here: { objectKey: 'abc.zip' } },
    },
  };
  await writeFile(join(directory, 'Example.assets.json'), JSON.stringify({ version: '55.0.0', files }));
  return readTemplate(path, { account: '111122223333', region: 'eu-central-1', ...options });
}

/** A template with one parameter of this value, beside which the value can refer to a queue and a bus. */
const withValue = (value: unknown) => ({
  Parameters: { Stage: { Type: 'String', Default: 'test' } },
  Conditions: {
    InEurope: { 'Fn::Equals': [{ Ref: 'AWS::Region' }, 'eu-central-1'] },
    Elsewhere: { 'Fn::Not': [{ Condition: 'InEurope' }] },
    Both: { 'Fn::And': [{ Condition: 'InEurope' }, { Condition: 'Elsewhere' }] },
    Either: { 'Fn::Or': [{ Condition: 'InEurope' }, { Condition: 'Elsewhere' }] },
  },
  Resources: {
    Subject: { Type: 'AWS::SSM::Parameter', Properties: { Name: '/subject', Value: value } },
    Bus: { Type: 'AWS::Events::EventBus', Properties: { Name: { 'Fn::Sub': 'bus-${Stage}' } } },
    Queue: { Type: 'AWS::SQS::Queue', Properties: { QueueName: 'lost' } },
    Secret: { Type: 'AWS::SecretsManager::Secret', Properties: { Name: 'rekey/orders' } },
    Role: { Type: 'AWS::IAM::Role', Properties: { RoleName: 'runner' } },
    Handler: {
      Type: 'AWS::Lambda::Function',
      Properties: {
        FunctionName: 'rotator',
        Handler: 'rotate-secret.handler',
        Code: { S3Bucket: 'assets', S3Key: 'abc.zip' },
        Role: { 'Fn::GetAtt': ['Role', 'Arn'] },
      },
    },
  },
});

describe('intrinsic functions', () => {
  const cases: Record<string, { value: unknown; want: string }> = {
    'a plain text stays as it is': { value: 'plain', want: 'plain' },
    'Ref of a pseudo parameter': { value: { Ref: 'AWS::AccountId' }, want: '111122223333' },
    'Ref of the partition': { value: { Ref: 'AWS::Partition' }, want: 'aws' },
    'Ref of the URL suffix': { value: { Ref: 'AWS::URLSuffix' }, want: 'amazonaws.com' },
    'Ref of a parameter is its default': { value: { Ref: 'Stage' }, want: 'test' },
    'Ref of a bus is its name, resolved': { value: { Ref: 'Bus' }, want: 'bus-test' },
    'Ref of a queue is its URL': {
      value: { Ref: 'Queue' },
      want: 'https://sqs.eu-central-1.amazonaws.com/111122223333/lost',
    },
    'Ref of a function is its name': { value: { Ref: 'Handler' }, want: 'rotator' },
    'GetAtt as a list': {
      value: { 'Fn::GetAtt': ['Handler', 'Arn'] },
      want: 'arn:aws:lambda:eu-central-1:111122223333:function:rotator',
    },
    'GetAtt with a dot': {
      value: { 'Fn::GetAtt': 'Queue.Arn' },
      want: 'arn:aws:sqs:eu-central-1:111122223333:lost',
    },
    'GetAtt of a bus': {
      value: { 'Fn::GetAtt': ['Bus', 'Arn'] },
      want: 'arn:aws:events:eu-central-1:111122223333:event-bus/bus-test',
    },
    'Join of texts and references': {
      value: { 'Fn::Join': [':', ['arn', { Ref: 'AWS::Partition' }, 'ssm']] },
      want: 'arn:aws:ssm',
    },
    'Join leaves out what has no value': {
      value: { 'Fn::Join': ['-', ['a', { Ref: 'AWS::NoValue' }, 'b']] },
      want: 'a-b',
    },
    'Sub of names, attributes and literals': {
      value: { 'Fn::Sub': '${AWS::Region}/${Queue.QueueName}/${!Untouched}' },
      want: 'eu-central-1/lost/${Untouched}',
    },
    'Sub with variables of its own': {
      value: { 'Fn::Sub': ['${Who}@${Stage}', { Who: { Ref: 'Bus' } }] },
      want: 'bus-test@test',
    },
    'Select of a Split': {
      value: { 'Fn::Select': [5, { 'Fn::Split': [':', { 'Fn::GetAtt': ['Queue', 'Arn'] }] }] },
      want: 'lost',
    },
    'Join of a Split': { value: { 'Fn::Join': ['+', { 'Fn::Split': ['.', 'a.b.c'] }] }, want: 'a+b+c' },
    'If the condition holds': { value: { 'Fn::If': ['InEurope', 'yes', 'no'] }, want: 'yes' },
    'If it is negated': { value: { 'Fn::If': ['Elsewhere', 'yes', 'no'] }, want: 'no' },
    'If not all of them hold': { value: { 'Fn::If': ['Both', 'yes', 'no'] }, want: 'no' },
    'If one of them holds': { value: { 'Fn::If': ['Either', 'yes', 'no'] }, want: 'yes' },
    'the branch that is not taken is not resolved': {
      value: { 'Fn::If': ['InEurope', 'yes', { 'Fn::ImportValue': 'far away' }] },
      want: 'yes',
    },
  };
  test.each(Object.entries(cases))('%s', async (_sentence, { value, want }) => {
    const stack = await read(withValue(value));
    expect(stack.parameters).toEqual([{ logicalId: 'Subject', name: '/subject', value: want }]);
  });

  const refused: Record<string, { value: unknown; message: string }> = {
    'a function that is not understood': {
      value: { 'Fn::ImportValue': 'x' },
      message: 'Resources.Subject.Properties.Value.Fn::ImportValue: Fn::ImportValue is not understood here',
    },
    'one deep inside another': {
      value: { 'Fn::Join': ['', ['a', { 'Fn::Cidr': [] }]] },
      message: 'Resources.Subject.Properties.Value.Fn::Join[1][1].Fn::Cidr: Fn::Cidr is not understood here',
    },
    'a reference to nothing': {
      value: { Ref: 'Nobody' },
      message: 'Resources.Subject.Properties.Value.Ref: Nobody is not known',
    },
    'an attribute that we do not model': {
      value: { 'Fn::GetAtt': ['Queue', 'Colour'] },
      message: 'Resources.Subject.Properties.Value.Fn::GetAtt: Queue.Colour is not known',
    },
    'a condition that does not exist': {
      value: { 'Fn::If': ['Nowhere', 1, 2] },
      message: 'Conditions.Nowhere does not exist',
    },
    'a list where a text belongs': {
      value: { 'Fn::Join': ['', [['nested']]] },
      message: 'Resources.Subject.Properties.Value.Fn::Join: got object, expected a text',
    },
    'a property of the wrong type': { value: 7, message: 'Resources.Subject.Properties: ' },
  };
  test.each(Object.entries(refused))('refuses %s, with its path', async (_sentence, { value, message }) => {
    await expect(read(withValue(value))).rejects.toThrow(message);
  });

  test('names that refer to each other in a circle are refused', async () => {
    const Resources = {
      A: { Type: 'AWS::Events::EventBus', Properties: { Name: { Ref: 'B' } } },
      B: { Type: 'AWS::Events::EventBus', Properties: { Name: { Ref: 'A' } } },
    };
    await expect(read({ Resources })).rejects.toThrow('is not known');
  });
});

describe('resources', () => {
  test('a function has its defaults, its asset and all statements of its role, inline ones and attached ones', async () => {
    const { functions } = await read({
      Resources: {
        ...withValue('').Resources,
        Role: {
          Type: 'AWS::IAM::Role',
          Properties: {
            Policies: [
              {
                PolicyName: 'inline',
                PolicyDocument: {
                  Statement: [
                    { Effect: 'Allow', Action: 'ssm:GetParameter', Resource: 'arn:aws:ssm:::parameter/a' },
                  ],
                },
              },
            ],
          },
        },
        Policy: {
          Type: 'AWS::IAM::Policy',
          Properties: {
            PolicyName: 'attached',
            Roles: [{ Ref: 'Role' }],
            PolicyDocument: {
              Statement: [
                {
                  Sid: 'Never',
                  Effect: 'Deny',
                  Action: ['secretsmanager:*'],
                  Resource: [{ Ref: 'Secret' }],
                  Condition: { StringEquals: { 'aws:RequestedRegion': { Ref: 'AWS::Region' } } },
                },
              ],
            },
          },
        },
        Async: {
          Type: 'AWS::Lambda::EventInvokeConfig',
          Properties: {
            FunctionName: { Ref: 'Handler' },
            Qualifier: '$LATEST',
            MaximumRetryAttempts: 1,
            DestinationConfig: { OnFailure: { Destination: { 'Fn::GetAtt': ['Queue', 'Arn'] } } },
          },
        },
      },
      Parameters: { Stage: { Default: 'test' } },
    });
    expect(functions).toEqual([
      {
        logicalId: 'Handler',
        name: 'rotator',
        arn: 'arn:aws:lambda:eu-central-1:111122223333:function:rotator',
        handler: 'rotate-secret.handler',
        directory: join(directory, 'asset.abc'),
        environment: {},
        timeoutSeconds: 3,
        memoryMb: 128,
        roleStatements: [
          {
            sid: undefined,
            effect: 'Allow',
            actions: ['ssm:GetParameter'],
            resources: ['arn:aws:ssm:::parameter/a'],
            conditions: {},
          },
          {
            sid: 'Never',
            effect: 'Deny',
            actions: ['secretsmanager:*'],
            resources: [
              expect.stringMatching(
                /^arn:aws:secretsmanager:eu-central-1:111122223333:secret:rekey\/orders-.{6}$/,
              ),
            ],
            conditions: { StringEquals: { 'aws:RequestedRegion': ['eu-central-1'] } },
          },
        ],
        asyncRetries: 1,
        onFailureArn: 'arn:aws:sqs:eu-central-1:111122223333:lost',
      },
    ]);
  });

  test('a secret has the ARN that the caller gives it, wherever it is referred to', async () => {
    const stack = await read(
      {
        Resources: {
          ...withValue({ Ref: 'Secret' }).Resources,
          Rotation: {
            Type: 'AWS::SecretsManager::RotationSchedule',
            Properties: {
              SecretId: { Ref: 'Secret' },
              RotationLambdaARN: { 'Fn::GetAtt': ['Handler', 'Arn'] },
              RotationRules: { AutomaticallyAfterDays: 30 },
            },
          },
        },
        Parameters: { Stage: { Default: 'test' } },
      },
      { secretArn: (name) => `arn:aws:secretsmanager:eu-central-1:111122223333:secret:${name}-AbCdEf` },
    );
    const arn = 'arn:aws:secretsmanager:eu-central-1:111122223333:secret:rekey/orders-AbCdEf';
    expect(stack.secrets).toEqual([
      { logicalId: 'Secret', name: 'rekey/orders', arn, secretString: undefined, description: undefined },
    ]);
    expect(stack.parameters[0]?.value).toBe(arn);
    expect(stack.rotations).toEqual([
      {
        secretName: 'rekey/orders',
        functionArn: 'arn:aws:lambda:eu-central-1:111122223333:function:rotator',
        rules: { automaticallyAfterDays: 30 },
        // Absent reads as true: CloudFormation's default.
        rotateImmediately: true,
      },
    ]);
  });

  test('a rule on a bus of its own carries pattern, target, dead-letter queue and retries', async () => {
    const { rules } = await read({
      Resources: {
        ...withValue('').Resources,
        Rule: {
          Type: 'AWS::Events::Rule',
          Properties: {
            Name: 'requested',
            EventBusName: { Ref: 'Bus' },
            EventPattern: { source: ['rekey'] },
            Targets: [
              {
                Id: 'T',
                Arn: { 'Fn::GetAtt': ['Handler', 'Arn'] },
                DeadLetterConfig: { Arn: { 'Fn::GetAtt': ['Queue', 'Arn'] } },
                RetryPolicy: { MaximumRetryAttempts: 4 },
              },
            ],
          },
        },
      },
      Parameters: { Stage: { Default: 'test' } },
    });
    expect(rules).toEqual([
      {
        logicalId: 'Rule',
        name: 'requested',
        arn: 'arn:aws:events:eu-central-1:111122223333:rule/bus-test/requested',
        busName: 'bus-test',
        isEnabled: true,
        pattern: { source: ['rekey'] },
        targets: [
          {
            id: 'T',
            arn: 'arn:aws:lambda:eu-central-1:111122223333:function:rotator',
            deadLetterArn: 'arn:aws:sqs:eu-central-1:111122223333:lost',
            retryPolicy: { maximumRetryAttempts: 4, maximumEventAgeSeconds: 86_400 },
          },
        ],
      },
    ]);
  });

  test('a resource whose condition does not hold is not there', async () => {
    const template = withValue('');
    const stack = await read({
      ...template,
      Resources: {
        ...template.Resources,
        Queue: { ...template.Resources.Queue, Condition: 'Elsewhere' },
        Bus: { ...template.Resources.Bus, Condition: 'InEurope' },
      },
    });
    expect(stack.queues).toEqual([]);
    expect(stack.buses).toHaveLength(1);
  });

  test('what has no counterpart here is listed', async () => {
    const { unknown } = await read({ Resources: { Table: { Type: 'AWS::DynamoDB::Table' } } });
    expect(unknown).toEqual([{ logicalId: 'Table', type: 'AWS::DynamoDB::Table' }]);
  });

  test('a setting of a rule target that would be ignored is refused', async () => {
    const Targets = [{ Id: 'T', Arn: 'arn:aws:sqs:::q', InputPath: '$.detail' }];
    const Rule = { Type: 'AWS::Events::Rule', Properties: { EventPattern: {}, Targets } };
    await expect(read({ Resources: { Rule } })).rejects.toThrow('InputPath');
  });
});
