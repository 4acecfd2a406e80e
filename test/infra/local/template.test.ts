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
        logGroup: '/aws/lambda/rotator',
        roleName: expect.stringMatching(/^Example-Role-/),
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

  test('policies of roles and of everything that lets somebody in come with what they are of, as they stand', async () => {
    const letIn = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Principal: '*', Action: 'x:*' }] };
    const { policies, topics, functions } = await read({
      Resources: {
        ...withValue('').Resources,
        Role: {
          Type: 'AWS::IAM::Role',
          Properties: {
            RoleName: 'runner',
            AssumeRolePolicyDocument: letIn,
            Policies: [{ PolicyName: 'Own', PolicyDocument: { Statement: [] } }],
          },
        },
        More: {
          Type: 'AWS::IAM::Policy',
          Properties: { Roles: [{ Ref: 'Role' }], PolicyDocument: { Statement: [] } },
        },
        Bucket: { Type: 'AWS::S3::Bucket', Properties: { BucketName: 'records' } },
        OfBucket: {
          Type: 'AWS::S3::BucketPolicy',
          Properties: { Bucket: { Ref: 'Bucket' }, PolicyDocument: letIn },
        },
        OfQueue: {
          Type: 'AWS::SQS::QueuePolicy',
          Properties: { Queues: [{ Ref: 'Queue' }], PolicyDocument: letIn },
        },
        Topic: {
          Type: 'AWS::SNS::Topic',
          Properties: { TopicName: 'alarms', KmsMasterKeyId: { 'Fn::GetAtt': ['Key', 'Arn'] } },
        },
        OfTopic: {
          Type: 'AWS::SNS::TopicPolicy',
          Properties: { Topics: [{ Ref: 'Topic' }], PolicyDocument: letIn },
        },
        Key: { Type: 'AWS::KMS::Key', Properties: { KeyPolicy: letIn } },
        Log: { Type: 'AWS::Logs::LogGroup', Properties: { LogGroupName: '/own/log' } },
        Handler: {
          Type: 'AWS::Lambda::Function',
          Properties: {
            ...withValue('').Resources.Handler.Properties,
            LoggingConfig: { LogGroup: { Ref: 'Log' } },
          },
        },
        Called: {
          Type: 'AWS::Lambda::Permission',
          Properties: {
            FunctionName: { Ref: 'Handler' },
            Action: 'lambda:InvokeFunction',
            Principal: 'events.amazonaws.com',
            SourceArn: 'arn:aws:events:*:*:rule/*',
          },
        },
      },
      Parameters: { Stage: { Default: 'test' } },
    });
    const key = 'arn:aws:kms:eu-central-1:111122223333:key/Key';
    expect(Object.fromEntries(policies.map(({ name, of }) => [name, of]))).toEqual({
      'Role.Own': { role: 'runner' },
      More: { role: 'runner' },
      'Role.AssumeRole': { resource: 'arn:aws:iam::111122223333:role/runner' },
      OfBucket: { resource: 'arn:aws:s3:::records' },
      OfQueue: { resource: 'arn:aws:sqs:eu-central-1:111122223333:lost' },
      OfTopic: { resource: 'arn:aws:sns:eu-central-1:111122223333:alarms' },
      Key: { resource: key },
      'Handler.Permissions': { resource: 'arn:aws:lambda:eu-central-1:111122223333:function:rotator' },
    });
    expect(policies.find(({ name }) => name === 'OfQueue')?.document).toEqual(letIn);
    expect(policies.find(({ name }) => name === 'Handler.Permissions')?.document.Statement).toEqual([
      {
        Sid: 'Called',
        Effect: 'Allow',
        Principal: { Service: 'events.amazonaws.com' },
        Action: 'lambda:InvokeFunction',
        Resource: 'arn:aws:lambda:eu-central-1:111122223333:function:rotator',
        Condition: { ArnLike: { 'AWS:SourceArn': 'arn:aws:events:*:*:rule/*' } },
      },
    ]);
    expect([topics[0]?.keyArn, functions[0]?.logGroup]).toEqual([key, '/own/log']);
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
    const { unknown } = await read({ Resources: { Cache: { Type: 'AWS::DAX::Cluster' } } });
    expect(unknown).toEqual([{ logicalId: 'Cache', type: 'AWS::DAX::Cluster' }]);
  });

  const scheduled = (properties: object = {}, target: object = {}) => ({
    Resources: {
      ...withValue('').Resources,
      Group: { Type: 'AWS::Scheduler::ScheduleGroup', Properties: { Name: 'rekey' } },
      Schedule: {
        Type: 'AWS::Scheduler::Schedule',
        Properties: {
          Name: 'sweep',
          GroupName: { Ref: 'Group' },
          ScheduleExpression: 'rate(5 minutes)',
          FlexibleTimeWindow: { Mode: 'OFF' },
          Target: {
            Arn: { 'Fn::GetAtt': ['Handler', 'Arn'] },
            RoleArn: { 'Fn::GetAtt': ['Role', 'Arn'] },
            ...target,
          },
          ...properties,
        },
      },
    },
    Parameters: { Stage: { Default: 'test' } },
  });

  test('a schedule carries its expression, its target, and whose role it has', async () => {
    const { schedules } = await read(
      scheduled(
        {
          ScheduleExpression: 'cron(0 3 * * ? *)',
          ScheduleExpressionTimezone: 'Europe/Berlin',
          State: 'DISABLED',
          StartDate: '2026-03-01T12:00:00Z',
        },
        {
          Input: '{"pass":"scheduled"}',
          DeadLetterConfig: { Arn: { 'Fn::GetAtt': ['Queue', 'Arn'] } },
          RetryPolicy: { MaximumRetryAttempts: 3, MaximumEventAgeInSeconds: 300 },
        },
      ),
    );
    expect(schedules).toEqual([
      {
        logicalId: 'Schedule',
        name: 'sweep',
        arn: 'arn:aws:scheduler:eu-central-1:111122223333:schedule/rekey/sweep',
        groupArn: 'arn:aws:scheduler:eu-central-1:111122223333:schedule-group/rekey',
        isEnabled: false,
        expression: 'cron(0 3 * * ? *)',
        timeZone: 'Europe/Berlin',
        startAt: new Date('2026-03-01T12:00:00Z'),
        endAt: undefined,
        target: {
          arn: 'arn:aws:lambda:eu-central-1:111122223333:function:rotator',
          input: '{"pass":"scheduled"}',
          deadLetterArn: 'arn:aws:sqs:eu-central-1:111122223333:lost',
          retryPolicy: { maximumRetryAttempts: 3, maximumEventAgeSeconds: 300 },
          roleName: 'runner',
        },
      },
    ]);
  });

  test('a schedule has the defaults of Scheduler', async () => {
    const { schedules } = await read(scheduled());
    expect(schedules).toMatchObject([
      {
        isEnabled: true,
        timeZone: 'UTC',
        target: {
          input: '{}',
          deadLetterArn: undefined,
          retryPolicy: { maximumRetryAttempts: 185, maximumEventAgeSeconds: 86_400 },
        },
      },
    ]);
  });

  test('a queue has its times and its dead-letter queue, and the address that the caller gives it', async () => {
    const { queues, parameters } = await read(
      {
        Resources: {
          ...withValue({ Ref: 'Targets' }).Resources,
          Targets: {
            Type: 'AWS::SQS::Queue',
            Properties: {
              QueueName: 'targets',
              VisibilityTimeout: 5400,
              MessageRetentionPeriod: 21_600,
              RedrivePolicy: {
                deadLetterTargetArn: { 'Fn::GetAtt': ['Queue', 'Arn'] },
                maxReceiveCount: 3,
              },
            },
          },
        },
        Parameters: { Stage: { Default: 'test' } },
      },
      { queueOrigin: 'http://127.0.0.1:4566' },
    );
    expect(queues).toEqual([
      {
        logicalId: 'Queue',
        name: 'lost',
        arn: 'arn:aws:sqs:eu-central-1:111122223333:lost',
        url: 'http://127.0.0.1:4566/111122223333/lost',
        isFifo: false,
        visibilityTimeoutSeconds: 30,
        delaySeconds: 0,
        retentionSeconds: 345_600,
        redrive: undefined,
      },
      {
        logicalId: 'Targets',
        name: 'targets',
        arn: 'arn:aws:sqs:eu-central-1:111122223333:targets',
        url: 'http://127.0.0.1:4566/111122223333/targets',
        isFifo: false,
        visibilityTimeoutSeconds: 5400,
        delaySeconds: 0,
        retentionSeconds: 21_600,
        redrive: { deadLetterArn: 'arn:aws:sqs:eu-central-1:111122223333:lost', maxReceiveCount: 3 },
      },
    ]);
    expect(parameters[0]?.value).toBe('http://127.0.0.1:4566/111122223333/targets');
  });

  const mapped = (properties: object) => ({
    Resources: {
      ...withValue('').Resources,
      Mapping: {
        Type: 'AWS::Lambda::EventSourceMapping',
        Properties: {
          EventSourceArn: { 'Fn::GetAtt': ['Queue', 'Arn'] },
          FunctionName: { Ref: 'Handler' },
          ...properties,
        },
      },
    },
    Parameters: { Stage: { Default: 'test' } },
  });

  test('a queue in order has a name that says so, whoever gives it', async () => {
    const fifo = (more: object) => ({
      Type: 'AWS::SQS::Queue',
      Properties: { FifoQueue: true, ...more },
    });
    const { queues } = await read({
      Resources: { Made: fifo({}), Named: fifo({ QueueName: 'starts.fifo' }) },
    });
    expect(queues.map(({ name, isFifo }) => [name, isFifo])).toEqual([
      [expect.stringMatching(/^Example-Made-[0-9A-F]{12}\.fifo$/), true],
      ['starts.fifo', true],
    ]);
  });

  test('a mapping of a queue to a function carries its batches', async () => {
    const { eventSources } = await read(
      mapped({
        BatchSize: 5,
        FunctionResponseTypes: ['ReportBatchItemFailures'],
        ScalingConfig: { MaximumConcurrency: 2 },
      }),
    );
    const common = {
      logicalId: 'Mapping',
      queueArn: 'arn:aws:sqs:eu-central-1:111122223333:lost',
      functionArn: 'arn:aws:lambda:eu-central-1:111122223333:function:rotator',
      isEnabled: true,
    };
    expect(eventSources).toEqual([
      { ...common, batchSize: 5, maximumConcurrency: 2, reportsItemFailures: true },
    ]);
    expect((await read(mapped({}))).eventSources).toEqual([
      { ...common, batchSize: 10, maximumConcurrency: undefined, reportsItemFailures: false },
    ]);
  });

  const alarmed = (properties: object) => ({
    Resources: {
      Topic: { Type: 'AWS::SNS::Topic', Properties: { TopicName: 'alarms' } },
      Mail: {
        Type: 'AWS::SNS::Subscription',
        Properties: { TopicArn: { Ref: 'Topic' }, Protocol: 'email', Endpoint: 'ops@example.com' },
      },
      Queue: { Type: 'AWS::SQS::Queue', Properties: { QueueName: 'lost' } },
      Alarm: {
        Type: 'AWS::CloudWatch::Alarm',
        Properties: {
          AlarmName: 'request-lost',
          Namespace: 'AWS/SQS',
          MetricName: 'ApproximateNumberOfMessagesVisible',
          Dimensions: [{ Name: 'QueueName', Value: { 'Fn::GetAtt': ['Queue', 'QueueName'] } }],
          Statistic: 'Maximum',
          Period: 300,
          EvaluationPeriods: 1,
          Threshold: 1,
          ComparisonOperator: 'GreaterThanOrEqualToThreshold',
          AlarmActions: [{ Ref: 'Topic' }],
          ...properties,
        },
      },
    },
  });

  test('an alarm carries its metric and its topics', async () => {
    const { alarms, topics, subscriptions } = await read(alarmed({}));
    const topicArn = 'arn:aws:sns:eu-central-1:111122223333:alarms';
    expect(topics).toEqual([{ logicalId: 'Topic', name: 'alarms', arn: topicArn }]);
    expect(subscriptions).toEqual([
      { logicalId: 'Mail', topicArn, protocol: 'email', endpoint: 'ops@example.com', isRaw: false },
    ]);
    expect(alarms).toEqual([
      {
        logicalId: 'Alarm',
        name: 'request-lost',
        arn: 'arn:aws:cloudwatch:eu-central-1:111122223333:alarm:request-lost',
        description: undefined,
        namespace: 'AWS/SQS',
        metricName: 'ApproximateNumberOfMessagesVisible',
        dimensions: { QueueName: 'lost' },
        statistic: 'Maximum',
        periodSeconds: 300,
        evaluationPeriods: 1,
        datapointsToAlarm: undefined,
        threshold: 1,
        comparison: 'GreaterThanOrEqualToThreshold',
        treatMissingData: 'missing',
        alarmActions: [topicArn],
        okActions: [],
        insufficientDataActions: [],
      },
    ]);
  });

  const halfUnderstood: Record<string, { template: object; message: string }> = {
    'a flexible window': {
      template: scheduled({ FlexibleTimeWindow: { Mode: 'FLEXIBLE', MaximumWindowInMinutes: 15 } }),
      message: 'FlexibleTimeWindow',
    },
    'a group of schedules that is not there': {
      template: scheduled({ GroupName: 'nowhere' }),
      message: 'Resources.Schedule: no schedule group here is nowhere',
    },
    'a role of a schedule that is not there': {
      template: scheduled({}, { RoleArn: 'arn:aws:iam::1:role/nobody' }),
      message: 'Resources.Schedule: no role here is arn:aws:iam::1:role/nobody',
    },
    'a parameter of a target that would be ignored': {
      template: scheduled({}, { SqsParameters: { MessageGroupId: 'g' } }),
      message: 'SqsParameters',
    },
    'a window in which batches are collected': {
      template: mapped({ MaximumBatchingWindowInSeconds: 10 }),
      message: 'MaximumBatchingWindowInSeconds',
    },
    'a stream as the source of a function': {
      template: mapped({ EventSourceArn: 'arn:aws:kinesis:::stream/s' }),
      message: 'only queues feed functions here',
    },
    'a setting of a queue in order that would be ignored': {
      template: {
        Resources: { Queue: { Type: 'AWS::SQS::Queue', Properties: { DeduplicationScope: 'messageGroup' } } },
      },
      message: 'DeduplicationScope',
    },
    'an alarm on a calculation': { template: alarmed({ Metrics: [] }), message: 'Metrics' },
    'an alarm on a percentile': {
      template: alarmed({ ExtendedStatistic: 'p99' }),
      message: 'ExtendedStatistic',
    },
  };
  test.each(Object.entries(halfUnderstood))(
    '%s is refused, with its path',
    async (_sentence, { template, message }) => {
      await expect(read(template)).rejects.toThrow(message);
      await expect(read(template)).rejects.toThrow('Resources.');
    },
  );

  const served = (stage: object = {}, route: object = {}) => ({
    Resources: {
      ...withValue({ 'Fn::GetAtt': ['Api', 'ApiEndpoint'] }).Resources,
      Api: { Type: 'AWS::ApiGatewayV2::Api', Properties: { Name: 'webhooks', ProtocolType: 'HTTP' } },
      Integration: {
        Type: 'AWS::ApiGatewayV2::Integration',
        Properties: {
          ApiId: { Ref: 'Api' },
          IntegrationType: 'AWS_PROXY',
          IntegrationUri: { 'Fn::GetAtt': ['Handler', 'Arn'] },
          PayloadFormatVersion: '2.0',
        },
      },
      Route: {
        Type: 'AWS::ApiGatewayV2::Route',
        Properties: {
          ApiId: { Ref: 'Api' },
          RouteKey: 'POST /webhooks/render',
          Target: { 'Fn::Join': ['', ['integrations/', { Ref: 'Integration' }]] },
          ...route,
        },
      },
      Stage: {
        Type: 'AWS::ApiGatewayV2::Stage',
        Properties: { ApiId: { Ref: 'Api' }, StageName: '$default', AutoDeploy: true, ...stage },
      },
    },
    Parameters: { Stage: { Default: 'test' } },
  });

  test('an HTTP API carries its routes, the functions behind them, its throttling, and the address that the caller gives it', async () => {
    const { httpApis, parameters } = await read(
      served({ DefaultRouteSettings: { ThrottlingRateLimit: 5, ThrottlingBurstLimit: 10 } }),
    );
    expect(httpApis).toEqual([
      {
        logicalId: 'Api',
        id: expect.stringMatching(/^[0-9a-f]{10}$/),
        name: 'webhooks',
        routes: [
          {
            routeKey: 'POST /webhooks/render',
            functionArn: 'arn:aws:lambda:eu-central-1:111122223333:function:rotator',
          },
        ],
        throttle: { ratePerSecond: 5, burst: 10 },
      },
    ]);
    expect(parameters[0]?.value).toBe(`https://${httpApis[0]?.id}.execute-api.eu-central-1.amazonaws.com`);
    expect((await read(served())).httpApis).toMatchObject([{ throttle: undefined }]);
    const here = await read(served(), { apiEndpoint: (id) => `http://127.0.0.1:4567/${id}` });
    expect(here.parameters[0]?.value).toBe(`http://127.0.0.1:4567/${httpApis[0]?.id}`);
  });

  test('a route with a variable in its path, or that leads nowhere, is refused', async () => {
    await expect(read(served({}, { RouteKey: 'POST /{proxy+}' }))).rejects.toThrow(
      'Resources.Route.Properties',
    );
    await expect(read(served({}, { Target: 'integrations/none' }))).rejects.toThrow(
      'Resources.Route: no integration here is integrations/none',
    );
  });

  test('a bucket carries what its versions are locked by', async () => {
    const bucket = (Properties: object) => ({
      Resources: { Trail: { Type: 'AWS::S3::Bucket', Properties } },
    });
    const locked = await read(
      bucket({
        VersioningConfiguration: { Status: 'Enabled' },
        ObjectLockEnabled: true,
        ObjectLockConfiguration: {
          ObjectLockEnabled: 'Enabled',
          Rule: { DefaultRetention: { Mode: 'GOVERNANCE', Days: 365 } },
        },
      }),
    );
    expect(locked.buckets).toEqual([
      {
        logicalId: 'Trail',
        name: expect.stringMatching(/^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/),
        arn: `arn:aws:s3:::${locked.buckets[0]?.name}`,
        isVersioned: true,
        defaultRetention: { mode: 'GOVERNANCE', days: 365 },
      },
    ]);
    expect((await read(bucket({ BucketName: 'plain' }))).buckets).toEqual([
      {
        logicalId: 'Trail',
        name: 'plain',
        arn: 'arn:aws:s3:::plain',
        isVersioned: false,
        defaultRetention: undefined,
      },
    ]);
    await expect(read(bucket({ LifecycleConfiguration: {} }))).rejects.toThrow('Resources.Trail.Properties');
  });

  test('an archive carries its bus, its pattern and its retention', async () => {
    const archive = (more: object) => ({
      Parameters: { Stage: { Default: 'test' } },
      Resources: {
        ...withValue('').Resources,
        Archive: {
          Type: 'AWS::Events::Archive',
          Properties: { ArchiveName: 'kept', SourceArn: { 'Fn::GetAtt': ['Bus', 'Arn'] }, ...more },
        },
      },
    });
    const { archives } = await read(archive({ EventPattern: { source: ['rekey'] }, RetentionDays: 365 }));
    expect(archives).toEqual([
      {
        logicalId: 'Archive',
        name: 'kept',
        arn: 'arn:aws:events:eu-central-1:111122223333:archive/kept',
        busName: 'bus-test',
        pattern: { source: ['rekey'] },
        retentionDays: 365,
      },
    ]);
    expect((await read(archive({}))).archives).toMatchObject([
      { pattern: undefined, retentionDays: undefined },
    ]);
  });

  test('a setting of a rule target that would be ignored is refused', async () => {
    const Targets = [{ Id: 'T', Arn: 'arn:aws:sqs:::q', InputPath: '$.detail' }];
    const Rule = { Type: 'AWS::Events::Rule', Properties: { EventPattern: {}, Targets } };
    await expect(read({ Resources: { Rule } })).rejects.toThrow('InputPath');
  });
});
