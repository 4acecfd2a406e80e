import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeleteObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { SendMessageBatchCommand, SQSClient } from '@aws-sdk/client-sqs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { type Clock, createMovableClock, systemClock } from '../../../infra/local/clock.ts';
import { type Deployment, type DeploymentOptions, startDeployment } from '../../../infra/local/deployment.ts';
import { createCertificateAuthority } from '../../../infra/local/network.ts';

const handlers = {
  // Tells when it was called and with what, and counts it as a metric.
  'pass.mjs': `export const handler = async (event) => {
    process.stdout.write('called ' + JSON.stringify({ at: new Date().toISOString().slice(0, 16), event }) + '\\n');
    if (event.fail || event.detail?.fail) throw new Error('it was told to fail');
    process.stdout.write(JSON.stringify({
      _aws: { Timestamp: Date.now(), CloudWatchMetrics: [{ Namespace: 'rekey', Dimensions: [[]], Metrics: [{ Name: 'Passes' }] }] },
      Passes: 1,
    }) + '\\n');
  };`,
  'targets.mjs': `export const handler = async ({ Records }) => {
    process.stdout.write('called ' + JSON.stringify({ at: new Date().toISOString().slice(0, 16), event: Records.map(({ body }) => body) }) + '\\n');
    return { batchItemFailures: Records.filter(({ body }) => body === 'bad').map(({ messageId }) => ({ itemIdentifier: messageId })) };
  };`,
  'slow.mjs': `export const handler = async ({ ms, url }, context) => {
    const before = context.getRemainingTimeInMillis();
    await new Promise((resolve) => setTimeout(resolve, ms));
    const status = url === undefined ? undefined : (await fetch(url)).status;
    return { at: new Date().toISOString().slice(0, 16), before, status };
  };`,
  // Answers with what it was sent, or not at all.
  'receive.mjs': `export const handler = async ({ headers, body, routeKey }) => {
    if (body === 'fail') throw new Error('it was told to fail');
    return { statusCode: 202, body: JSON.stringify({ at: new Date().toISOString().slice(0, 16), routeKey, id: headers['webhook-id'], body }) };
  };`,
  // Calls AWS under the key of its own function, and answers with what it was answered.
  'call.mjs': `export const handler = async ({ operation, input, path, method = 'GET', headers = {} }) => {
    const { AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID } = process.env;
    const authorization = 'AWS4-HMAC-SHA256 Credential=' + AWS_ACCESS_KEY_ID + '/20260301/eu-central-1/any/aws4_request';
    const answer = path === undefined
      ? await fetch(AWS_ENDPOINT_URL, {
          method: 'POST',
          headers: { authorization, 'x-amz-target': operation, 'content-type': 'application/x-amz-json-1.1' },
          body: JSON.stringify(input),
        })
      : await fetch(AWS_ENDPOINT_URL + path, { method, headers: { authorization, ...headers } });
    return { status: answer.status, code: answer.headers.get('x-amzn-query-error'), body: await answer.text() };
  };`,
  // The least that Secrets Manager takes for a rotation.
  'rotate.mjs': `const call = async (operation, input) => {
    const answer = await fetch(process.env.AWS_ENDPOINT_URL, {
      method: 'POST',
      headers: { 'x-amz-target': 'secretsmanager.' + operation, 'content-type': 'application/x-amz-json-1.1' },
      body: JSON.stringify(input),
    });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  };
  export const handler = async ({ Step, SecretId, ClientRequestToken }) => {
    if (Step === 'createSecret')
      await call('PutSecretValue', { SecretId, ClientRequestToken, SecretString: ClientRequestToken, VersionStages: ['AWSPENDING'] });
    if (Step === 'finishSecret') {
      const { VersionIdsToStages } = await call('DescribeSecret', { SecretId });
      const [holder] = Object.entries(VersionIdsToStages).find(([, labels]) => labels.includes('AWSCURRENT'));
      await call('UpdateSecretVersionStage', { SecretId, VersionStage: 'AWSCURRENT', MoveToVersionId: ClientRequestToken, RemoveFromVersionId: holder });
    }
  };`,
};

const arnOf = (logicalId: string) => ({ 'Fn::GetAtt': [logicalId, 'Arn'] });
const handler = (file: string, timeout = 60, role = 'Role') => ({
  Type: 'AWS::Lambda::Function',
  Properties: {
    FunctionName: file,
    Handler: `${file}.handler`,
    Code: { S3Key: 'code.zip' },
    Role: arnOf(role),
    Timeout: timeout,
  },
});
const mayCall = (file: string, Principal: string, more: object = {}) => ({
  Type: 'AWS::Lambda::Permission',
  Properties: { FunctionName: { Ref: file }, Action: 'lambda:InvokeFunction', Principal, ...more },
});
const schedule = (expression: string, file: string, more: object = {}) => ({
  Type: 'AWS::Scheduler::Schedule',
  Properties: {
    ScheduleExpression: expression,
    FlexibleTimeWindow: { Mode: 'OFF' },
    Target: {
      Arn: arnOf(file),
      RoleArn: arnOf('SchedulerRole'),
      Input: JSON.stringify({ pass: expression, ...more }),
      DeadLetterConfig: { Arn: arnOf('Lost') },
      RetryPolicy: { MaximumRetryAttempts: 1 },
    },
  },
});
const rule = (EventPattern: object, file: string, more: object = {}) => ({
  Type: 'AWS::Events::Rule',
  Properties: {
    EventPattern,
    Targets: [{ Id: 'T', Arn: arnOf(file), DeadLetterConfig: { Arn: arnOf('Lost') } }],
    ...more,
  },
});
const alarm = (properties: object) => ({
  Type: 'AWS::CloudWatch::Alarm',
  Properties: {
    Statistic: 'Sum',
    Period: 300,
    EvaluationPeriods: 1,
    Threshold: 1,
    ComparisonOperator: 'GreaterThanOrEqualToThreshold',
    TreatMissingData: 'notBreaching',
    AlarmActions: [{ Ref: 'Topic' }],
    ...properties,
  },
});

const allow = (Sid: string, Action: string | readonly string[], Resource: unknown, more: object = {}) => ({
  Sid,
  Effect: 'Allow',
  Action,
  Resource,
  ...more,
});
/** A role for a service, with these statements. */
const role = (Service: string, ...Statement: readonly object[]) => ({
  Type: 'AWS::IAM::Role',
  Properties: {
    AssumeRolePolicyDocument: {
      Version: '2012-10-17',
      Statement: [{ Effect: 'Allow', Principal: { Service }, Action: 'sts:AssumeRole' }],
    },
    Policies: [{ PolicyName: 'Own', PolicyDocument: { Version: '2012-10-17', Statement } }],
  },
});
const letIn = (Sid: string, Service: string, Action: string, Resource: unknown) =>
  allow(Sid, Action, Resource, { Principal: { Service } });
const schedulerRole = (target: unknown) =>
  role(
    'scheduler.amazonaws.com',
    allow('Invoke', 'lambda:InvokeFunction', target),
    allow('ReportFailure', 'sqs:SendMessage', arnOf('Lost')),
  );

const stack = {
  Role: role(
    'lambda.amazonaws.com',
    allow('WriteLog', ['logs:CreateLogStream', 'logs:PutLogEvents'], '*'),
    allow('ReportFailure', 'sqs:SendMessage', arnOf('Lost')),
    allow(
      'Work',
      ['sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes'],
      'arn:aws:sqs:eu-central-1:123456789012:targets',
    ),
  ),
  SchedulerRole: schedulerRole(arnOf('pass')),
  pass: handler('pass'),
  targets: handler('targets'),
  slow: handler('slow', 5),
  rotate: handler('rotate'),
  EventsCallPass: mayCall('pass', 'events.amazonaws.com'),
  SecretsManagerCallsRotate: mayCall('rotate', 'secretsmanager.amazonaws.com', {
    SourceAccount: { Ref: 'AWS::AccountId' },
  }),
  Retries: {
    Type: 'AWS::Lambda::EventInvokeConfig',
    Properties: {
      FunctionName: { Ref: 'pass' },
      MaximumRetryAttempts: 2,
      DestinationConfig: { OnFailure: { Destination: arnOf('Lost') } },
    },
  },
  Bus: { Type: 'AWS::Events::EventBus', Properties: { Name: 'rekey' } },
  Requested: rule({ source: ['rekey'] }, 'pass', { EventBusName: { Ref: 'Bus' } }),
  Forbidden: rule({ source: ['nobody'] }, 'slow', { EventBusName: { Ref: 'Bus' } }),
  LabelUpdated: rule({ source: ['aws.secretsmanager'], 'detail-type': ['Secret Label Updated'] }, 'pass'),
  Lost: { Type: 'AWS::SQS::Queue', Properties: { QueueName: 'lost' } },
  LostPolicy: {
    Type: 'AWS::SQS::QueuePolicy',
    Properties: {
      Queues: [{ Ref: 'Lost' }],
      PolicyDocument: {
        Version: '2012-10-17',
        Statement: [letIn('Rules', 'events.amazonaws.com', 'sqs:SendMessage', arnOf('Lost'))],
      },
    },
  },
  LostTargets: { Type: 'AWS::SQS::Queue', Properties: { QueueName: 'lost-targets' } },
  Targets: {
    Type: 'AWS::SQS::Queue',
    Properties: {
      QueueName: 'targets',
      VisibilityTimeout: 600,
      RedrivePolicy: { deadLetterTargetArn: arnOf('LostTargets'), maxReceiveCount: 2 },
    },
  },
  Mapping: {
    Type: 'AWS::Lambda::EventSourceMapping',
    Properties: {
      EventSourceArn: arnOf('Targets'),
      FunctionName: { Ref: 'targets' },
      FunctionResponseTypes: ['ReportBatchItemFailures'],
    },
  },
  Topic: { Type: 'AWS::SNS::Topic', Properties: { TopicName: 'alarms' } },
  TopicPolicy: {
    Type: 'AWS::SNS::TopicPolicy',
    Properties: {
      Topics: [{ Ref: 'Topic' }],
      PolicyDocument: {
        Version: '2012-10-17',
        Statement: [letIn('Alarms', 'cloudwatch.amazonaws.com', 'sns:Publish', { Ref: 'Topic' })],
      },
    },
  },
  LostAlarm: alarm({
    AlarmName: 'request-lost',
    Namespace: 'AWS/SQS',
    MetricName: 'ApproximateNumberOfMessagesVisible',
    Dimensions: [{ Name: 'QueueName', Value: { 'Fn::GetAtt': ['Lost', 'QueueName'] } }],
    Statistic: 'Maximum',
  }),
  FailingAlarm: alarm({
    AlarmName: 'pass-failing',
    Namespace: 'AWS/Lambda',
    MetricName: 'Errors',
    Dimensions: [{ Name: 'FunctionName', Value: { Ref: 'pass' } }],
  }),
  SilentAlarm: alarm({
    AlarmName: 'pass-silent',
    Namespace: 'rekey',
    MetricName: 'Passes',
    ComparisonOperator: 'LessThanThreshold',
    EvaluationPeriods: 2,
    DatapointsToAlarm: 1,
    TreatMissingData: 'breaching',
  }),
};

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'rekey-deployment-'));
  await mkdir(join(directory, 'asset.code'));
  for (const [name, source] of Object.entries(handlers))
    await writeFile(join(directory, 'asset.code', name), source);
  const code = { source: { path: 'asset.code' }, destinations: { here: { objectKey: 'code.zip' } } };
  await writeFile(join(directory, 'Test.assets.json'), JSON.stringify({ files: { code } }));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

interface Call {
  readonly functionName: string;
  readonly at: string;
  readonly event: unknown;
}

/** The stack above and more, made at noon on 1 March, and the calls of its functions. */
async function start(
  more: object = {},
  options: Partial<DeploymentOptions> = {},
  clock: Clock = createMovableClock(new Date('2026-03-01T12:00:00Z')),
): Promise<{ deployment: Deployment; calls: readonly Call[] }> {
  const template = join(directory, 'Test.template.json');
  await writeFile(template, JSON.stringify({ Resources: { ...stack, ...more } }));
  const calls: Call[] = [];
  const deployment = await startDeployment({
    template,
    clock,
    egress: { proxyUrl: 'http://127.0.0.1:1', caFile: '' },
    secrets: {},
    log: ({ functionName, line }) => {
      if (line.startsWith('called ')) calls.push({ functionName, ...JSON.parse(line.slice(7)) });
    },
    variants: { windowStart: 'at-start' },
    ...options,
  });
  onTestFinished(() => deployment.stop());
  return { deployment, calls };
}

const passes = (calls: readonly Call[], pass: string): readonly string[] =>
  calls.filter(({ event }) => (event as { pass?: string }).pass === pass).map(({ at }) => at);
const request = (deployment: Deployment, source: string, detail: object = {}) =>
  deployment.bus.call('PutEvents', {
    Entries: [{ EventBusName: 'rekey', Source: source, DetailType: 'Test', Detail: JSON.stringify(detail) }],
  });

describe('advancing the clock', () => {
  const often = schedule('rate(5 minutes)', 'pass');
  const nightly = schedule('cron(30 3 * * ? *)', 'pass');

  test('lets each schedule come whenever it is due, and functions see the time', async () => {
    const { deployment, calls } = await start({ often, nightly });
    await deployment.advance(20 * 60_000, { passes: 'all' });
    expect(passes(calls, 'rate(5 minutes)')).toEqual([
      '2026-03-01T12:05',
      '2026-03-01T12:10',
      '2026-03-01T12:15',
      '2026-03-01T12:20',
    ]);
    await deployment.advance(new Date('2026-03-02T03:30:00Z'), { passes: { everyMs: 12 * 3_600_000 } });
    expect(passes(calls, 'cron(30 3 * * ? *)')).toEqual(['2026-03-02T03:30']);
  });

  test('by a month lets it come once a day and at the end, and alarms nobody about the silence between', async () => {
    const { deployment, calls } = await start({ often, nightly });
    await deployment.advance(new Date('2026-03-31T18:01:00Z'));
    const came = passes(calls, 'rate(5 minutes)');
    expect(came).toHaveLength(31);
    expect([came[0], came[29], came[30]]).toEqual([
      '2026-03-02T12:00',
      '2026-03-31T12:00',
      '2026-03-31T18:00',
    ]);
    expect(passes(calls, 'cron(30 3 * * ? *)')).toHaveLength(30);
    expect(deployment.alarms.changes().map(({ alarm: { name }, to }) => `${name} ${to}`)).toEqual([
      'request-lost OK',
      'pass-failing OK',
      'pass-silent OK',
    ]);
    expect(deployment.lostRequests).toEqual([]);
  });

  test('with every pass sees the silence of a function that is not called', async () => {
    const { deployment } = await start();
    await deployment.advance(10 * 60_000, { passes: 'all' });
    await deployment.advance(10 * 60_000, { passes: 'all' });
    expect(deployment.alarms.state('pass-silent')).toBe('ALARM');
    expect(deployment.topics.published().map(({ subject }) => subject)).toEqual([
      'ALARM: "pass-silent" in eu-central-1',
    ]);
  });

  test('lets Secrets Manager rotate by its own schedule, and rules of the default bus hear of it', async () => {
    const { deployment, calls } = await start({
      Secret: {
        Type: 'AWS::SecretsManager::Secret',
        Properties: { Name: 'rekey/orders', SecretString: '{}' },
      },
      Rotation: {
        Type: 'AWS::SecretsManager::RotationSchedule',
        Properties: {
          SecretId: { Ref: 'Secret' },
          RotationLambdaARN: arnOf('rotate'),
          RotateImmediatelyOnUpdate: false,
          RotationRules: { AutomaticallyAfterDays: 10 },
        },
      },
    });
    await deployment.advance(new Date('2026-03-22T00:00:00Z'));
    const moved = calls.flatMap(({ at, event }) => {
      const { detail } = event as { detail?: { labelUpdated?: string; name?: string } };
      return detail === undefined ? [] : [`${at} ${detail.name} ${detail.labelUpdated}`];
    });
    expect(moved).toEqual([
      '2026-03-01T12:00 rekey/orders AWSCURRENT',
      '2026-03-11T00:00 rekey/orders AWSCURRENT',
      '2026-03-21T00:00 rekey/orders AWSCURRENT',
    ]);
  });

  test('does not disturb what is under way: deadlines and certificates keep to the real time', async () => {
    const authority = await createCertificateAuthority();
    const caFile = join(directory, 'ca.pem');
    await writeFile(caFile, authority.caPem);
    const server = createServer(await authority.certificate(['127.0.0.1']), (_request, response) =>
      response.writeHead(204).end(),
    );
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
    onTestFinished(() => void server.close());
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const clock = createMovableClock(new Date('2026-03-01T12:00:00Z'));
    const { deployment } = await start({}, { egress: { proxyUrl: '', caFile } }, clock);
    const underWay = deployment.lambda.invoke('slow', { ms: 500, url });
    clock.move(50 * 365 * 86_400_000);
    const result = await underWay;
    expect(result).toMatchObject({ ok: true, payload: { status: 204 } });
    const next = await deployment.lambda.invoke('slow', { ms: 0, url });
    expect(next).toMatchObject({ ok: true, payload: { at: '2076-02-17T12:00', status: 204 } });
    const { before } = (next as unknown as { payload: { before: number } }).payload;
    expect(before).toBeGreaterThan(3_000);
    expect(before).toBeLessThanOrEqual(5_000);
  });

  test('is refused under a clock that goes by itself, and twice at one time', async () => {
    const { deployment } = await start({}, {}, systemClock);
    await expect(deployment.advance(1000)).rejects.toThrow('this clock cannot be moved');
    const movable = await start();
    const first = movable.deployment.advance(60_000);
    await expect(movable.deployment.advance(1)).rejects.toThrow('the clock is being moved already');
    await first;
  });

  test('ends with the deployment', async () => {
    const { deployment, calls } = await start({ often });
    const advancing = deployment.advance(365 * 86_400_000, { passes: 'all' });
    const ended = expect(advancing).rejects.toThrow('the deployment was stopped while the clock was moved');
    await expect.poll(() => calls.length, { timeout: 20_000 }).toBeGreaterThan(0);
    await deployment.stop();
    await ended;
  });
});

test('a bucket of the stack is reached where the functions look for AWS, and its lock holds', async () => {
  const { deployment } = await start({
    Trail: {
      Type: 'AWS::S3::Bucket',
      Properties: {
        BucketName: 'trail',
        ObjectLockEnabled: true,
        VersioningConfiguration: { Status: 'Enabled' },
        ObjectLockConfiguration: {
          ObjectLockEnabled: 'Enabled',
          Rule: { DefaultRetention: { Mode: 'GOVERNANCE', Days: 30 } },
        },
      },
    },
  });
  const s3 = new S3Client({
    endpoint: deployment.endpointUrl,
    region: deployment.region,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  });
  onTestFinished(() => s3.destroy());
  const object = { Bucket: 'trail', Key: 'audit/1.json' };
  const { VersionId } = await s3.send(new PutObjectCommand({ ...object, Body: '{}', IfNoneMatch: '*' }));
  expect(deployment.s3.keys('trail')).toEqual(['audit/1.json']);
  const remove = () => s3.send(new DeleteObjectCommand({ ...object, VersionId }));
  await expect(remove()).rejects.toMatchObject({ name: 'AccessDenied' });
  await deployment.advance(30 * 86_400_000);
  await remove();
  expect(deployment.s3.keys('trail')).toEqual([]);
});

describe('an HTTP API', () => {
  const api = (SourceArn: object | string) => ({
    receive: handler('receive'),
    Api: { Type: 'AWS::ApiGatewayV2::Api', Properties: { Name: 'webhooks', ProtocolType: 'HTTP' } },
    Integration: {
      Type: 'AWS::ApiGatewayV2::Integration',
      Properties: {
        ApiId: { Ref: 'Api' },
        IntegrationType: 'AWS_PROXY',
        IntegrationUri: arnOf('receive'),
        PayloadFormatVersion: '2.0',
      },
    },
    Route: {
      Type: 'AWS::ApiGatewayV2::Route',
      Properties: {
        ApiId: { Ref: 'Api' },
        RouteKey: 'POST /webhooks/render',
        Target: { 'Fn::Join': ['', ['integrations/', { Ref: 'Integration' }]] },
      },
    },
    Stage: {
      Type: 'AWS::ApiGatewayV2::Stage',
      Properties: { ApiId: { Ref: 'Api' }, StageName: '$default', AutoDeploy: true },
    },
    ApiCallsReceive: mayCall('receive', 'apigateway.amazonaws.com', { SourceArn }),
  });
  const ofRoute = (path: string) => ({
    'Fn::Join': ['', ['arn:aws:execute-api:eu-central-1:123456789012:', { Ref: 'Api' }, `/*/*${path}`]],
  });
  const post = (deployment: Deployment, body: string) =>
    fetch(deployment.webhookUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'Webhook-Id': 'evt-1' },
      body,
    });

  test('hands a request to the function of its route, and answers what that answers', async () => {
    const { deployment } = await start(api(ofRoute('/webhooks/render')));
    const answer = await post(deployment, '{}');
    expect([answer.status, await answer.json()]).toEqual([
      202,
      { at: '2026-03-01T12:00', routeKey: 'POST /webhooks/render', id: 'evt-1', body: '{}' },
    ]);
    expect((await post(deployment, 'fail')).status).toBe(500);
    await deployment.stop();
    await expect(post(deployment, '{}')).rejects.toThrow('fetch failed');
  });

  test('is where the functions are told that it is', async () => {
    const { Type, Properties } = handler('slow');
    const Environment = { Variables: { ADDRESS: { 'Fn::GetAtt': ['Api', 'ApiEndpoint'] } } };
    const told = { Type, Properties: { ...Properties, FunctionName: 'told', Environment } };
    const { deployment } = await start({ ...api(ofRoute('/webhooks/render')), told });
    const address = deployment.stack.functions.find(({ name }) => name === 'told')?.environment['ADDRESS'];
    expect(`${address}/webhooks/render`).toBe(deployment.webhookUrl);
  });

  test('calls no function whose permission is for another route', async () => {
    const { deployment } = await start(api(ofRoute('/webhooks/another')));
    expect((await post(deployment, '{}')).status).toBe(500);
    expect(deployment.httpApis[0]?.served).toMatchObject([{ refusal: 'no-permission' }]);
  });

  test('is asked for by nobody where the stack has none', async () => {
    const { deployment } = await start();
    expect(() => deployment.webhookUrl).toThrow('no HTTP API of the stack has a route POST /webhooks/…');
  });
});

test('the clock waits for what goes on outside', async () => {
  const clock = createMovableClock(new Date('2026-03-01T12:00:00Z'));
  const ending = Promise.withResolvers<void>();
  let isBusy = true;
  const outside = { isBusy: () => isBusy, oneEnded: () => ending.promise };
  const { deployment } = await start({}, { outside }, clock);
  const advancing = deployment.advance(3_600_000);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(clock.now().toISOString().slice(0, 16)).toBe('2026-03-01T12:00');
  isBusy = false;
  ending.resolve();
  await advancing;
  expect(clock.now().toISOString().slice(0, 16)).toBe('2026-03-01T13:00');
});

test('quotas hold for callers of the endpoint, not for the deployment itself, and throttled calls are counted', async () => {
  const parameters = Object.fromEntries(
    ['a', 'b', 'c', 'd'].map((name) => [
      name,
      {
        Type: 'AWS::SSM::Parameter',
        Properties: { Name: `/rekey/credentials/${name}`, Type: 'String', Value: '{}' },
      },
    ]),
  );
  const { deployment } = await start(parameters, {
    quotas: [{ calls: ['ssm:GetParameter', 'ssm:PutParameter'], perSecond: 1, source: 'this test' }],
  });
  expect(deployment.callCounts.size).toBe(0);
  const read = async (): Promise<string> => {
    const answer = await fetch(deployment.endpointUrl, {
      method: 'POST',
      headers: { 'x-amz-target': 'AmazonSSM.GetParameter' },
      body: JSON.stringify({ Name: '/rekey/credentials/a' }),
    });
    return ((await answer.json()) as { __type?: string }).__type ?? 'served';
  };
  const answers = await Promise.all(Array.from({ length: 20 }, read));
  const throttled = answers.filter((answer) => answer === 'ThrottlingException').length;
  expect(throttled).toBeGreaterThan(0);
  expect(answers.filter((answer) => answer === 'served')).toHaveLength(20 - throttled);
  expect(deployment.callCounts.get('ssm:GetParameter')).toEqual({ calls: 20, throttled });
});

test('an archive of the stack keeps events, which can be replayed', async () => {
  const { deployment, calls } = await start({
    Archive: {
      Type: 'AWS::Events::Archive',
      Properties: { ArchiveName: 'kept', SourceArn: arnOf('Bus'), EventPattern: { source: ['rekey'] } },
    },
  });
  await request(deployment, 'rekey', { n: 1 });
  await request(deployment, 'nobody', { n: 2 });
  await deployment.settled();
  const [kept] = deployment.bus.archived('kept');
  expect(deployment.bus.archived('kept')).toMatchObject([{ detail: { n: 1 } }]);
  const span = { from: new Date('2026-03-01T00:00:00Z'), until: new Date('2026-03-02T00:00:00Z') };
  deployment.bus.startReplay({ name: 'again', archiveName: 'kept', ...span });
  await deployment.settled();
  expect(calls.map(({ event }) => event)).toEqual([kept, { ...kept, 'replay-name': 'again' }]);
});

describe('what comes to nothing lies in a queue, and an alarm says so', () => {
  test('an event whose function fails in all its tries', async () => {
    const { deployment, calls } = await start();
    await request(deployment, 'rekey', { fail: true });
    await deployment.advance(10 * 60_000);
    expect(calls.map(({ at }) => at)).toEqual(['2026-03-01T12:00', '2026-03-01T12:01', '2026-03-01T12:03']);
    expect(deployment.lostRequests).toMatchObject([{ queueName: 'lost' }]);
    expect(JSON.parse(deployment.lostRequests[0]?.body ?? '')).toMatchObject({
      version: '1.0',
      requestContext: {
        functionArn: 'arn:aws:lambda:eu-central-1:123456789012:function:pass:$LATEST',
        condition: 'RetriesExhausted',
        approximateInvokeCount: 3,
      },
      requestPayload: { source: 'rekey', detail: { fail: true } },
      responseContext: { functionError: 'Unhandled' },
      responsePayload: { errorType: 'Error', errorMessage: 'it was told to fail' },
    });
    expect(deployment.alarms.state('request-lost')).toBe('ALARM');
    expect(deployment.alarms.changes().map(({ alarm: { name }, to }) => `${name} ${to}`)).toContain(
      'pass-failing ALARM',
    );
  });

  test('an event for a function that EventBridge may not call', async () => {
    const { deployment } = await start();
    await request(deployment, 'nobody');
    await deployment.settled();
    expect(deployment.lostRequests).toMatchObject([
      {
        queueName: 'lost',
        messageAttributes: {
          ERROR_CODE: { StringValue: 'NO_PERMISSIONS' },
          RETRY_ATTEMPTS: { StringValue: '0' },
          RULE_ARN: { StringValue: expect.stringContaining(':rule/rekey/Test-Forbidden-') },
          TARGET_ARN: { StringValue: 'arn:aws:lambda:eu-central-1:123456789012:function:slow' },
        },
      },
    ]);
  });

  test('a pass of a schedule whose role may not call the function', async () => {
    const { deployment } = await start({ wrong: schedule('rate(1 hour)', 'slow') });
    await deployment.advance(3_600_000);
    expect(deployment.lostRequests).toMatchObject([
      {
        queueName: 'lost',
        body: '{"pass":"rate(1 hour)"}',
        messageAttributes: {
          ERROR_CODE: { StringValue: 'NO_PERMISSIONS' },
          SCHEDULE_ARN: { StringValue: expect.stringContaining(':schedule/default/Test-wrong-') },
        },
      },
    ]);
  });

  test('a message that a function fails on again and again', async () => {
    const { deployment, calls } = await start();
    const QueueUrl = deployment.stack.queues.find(({ name }) => name === 'targets')?.url;
    // Without an endpoint of its own: the SDK goes where the URL of the queue points to, as it does in a function.
    const sqs = new SQSClient({
      region: deployment.region,
      credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
      logger: { trace() {}, debug() {}, info() {}, warn() {}, error() {} },
    });
    onTestFinished(() => sqs.destroy());
    await sqs.send(
      new SendMessageBatchCommand({
        QueueUrl,
        Entries: ['good', 'bad'].map((body) => ({ Id: body, MessageBody: body })),
      }),
    );
    await deployment.advance(3_600_000);
    expect(calls.map(({ at, event }) => [at, event])).toEqual([
      ['2026-03-01T12:00', ['good', 'bad']],
      ['2026-03-01T12:10', ['bad']],
    ]);
    expect(deployment.lostRequests).toMatchObject([{ queueName: 'lost-targets', body: 'bad' }]);
  });
});

describe('a rule that feeds a queue', () => {
  const fed = (sourceArn: unknown) => ({
    Fed: rule({ source: ['queued'] }, 'Targets', { EventBusName: { Ref: 'Bus' } }),
    TargetsPolicy: {
      Type: 'AWS::SQS::QueuePolicy',
      Properties: {
        Queues: [{ Ref: 'Targets' }],
        PolicyDocument: {
          Version: '2012-10-17',
          Statement: [
            {
              ...letIn('Rule', 'events.amazonaws.com', 'sqs:SendMessage', arnOf('Targets')),
              Condition: {
                ArnEquals: { 'aws:SourceArn': sourceArn },
                StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } },
              },
            },
          ],
        },
      },
    },
  });

  test('puts the event there, and its function gets it from there', async () => {
    const { deployment, calls } = await start(fed(arnOf('Fed')));
    await request(deployment, 'queued', { order: 1 });
    await deployment.advance(0);
    expect(calls).toMatchObject([{ functionName: 'targets' }]);
    const [body] = calls.flatMap(({ event }) => event as readonly string[]);
    expect(JSON.parse(body ?? '')).toMatchObject({
      source: 'queued',
      'detail-type': 'Test',
      detail: { order: 1 },
    });
    expect(deployment.lostRequests).toEqual([]);
  });

  test('is let in by its own ARN alone', async () => {
    const { deployment, calls } = await start(fed(arnOf('Requested')));
    await request(deployment, 'queued');
    await deployment.advance(0);
    expect(calls).toEqual([]);
    expect(deployment.lostRequests).toMatchObject([
      { queueName: 'lost', messageAttributes: { ERROR_CODE: { StringValue: 'NO_PERMISSIONS' } } },
    ]);
  });
});

test('a queue that nobody empties tells how old its oldest message is', async () => {
  const { deployment } = await start({
    Backlog: { Type: 'AWS::SQS::Queue', Properties: { QueueName: 'backlog' } },
    BehindAlarm: alarm({
      AlarmName: 'behind',
      Namespace: 'AWS/SQS',
      MetricName: 'ApproximateAgeOfOldestMessage',
      Dimensions: [{ Name: 'QueueName', Value: { 'Fn::GetAtt': ['Backlog', 'QueueName'] } }],
      Statistic: 'Maximum',
      Threshold: 900,
    }),
  });
  deployment.queues.send('arn:aws:sqs:eu-central-1:123456789012:backlog', 'an order');
  await deployment.advance(14 * 60_000, { passes: 'all' });
  expect(deployment.alarms.state('behind')).toBe('OK');
  await deployment.advance(2 * 60_000, { passes: 'all' });
  expect(deployment.alarms.state('behind')).toBe('ALARM');
});

describe('the policies of the stack are judged:', () => {
  const writeLog = allow('WriteLog', ['logs:CreateLogStream', 'logs:PutLogEvents'], '*');
  const keys = 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:rekey/api-keys/*';
  const caller = (...statements: readonly object[]) => ({
    CallerRole: role('lambda.amazonaws.com', ...statements),
    call: handler('call', 60, 'CallerRole'),
    Records: { Type: 'AWS::S3::Bucket', Properties: { BucketName: 'records' } },
  });
  interface Answer {
    readonly status: number;
    readonly code: string | null;
    readonly body: string;
  }
  const called = async (deployment: Deployment, event: object): Promise<Answer> => {
    const result = await deployment.lambda.invoke('call', event);
    if (!result.ok) throw new Error(result.errorMessage);
    return result.payload as Answer;
  };
  const who = (name: string) =>
    expect.stringMatching(`:assumed-role/Test-CallerRole-[0-9A-F]+/call is .*${name}`);

  const calls: Record<string, { event: object; allowed: object; refused: Partial<Answer>; action: string }> =
    {
      'Secrets Manager': {
        event: { operation: 'secretsmanager.GetSecretValue', input: { SecretId: 'rekey/api-keys/render' } },
        allowed: allow('Read', 'secretsmanager:GetSecretValue', keys),
        refused: {
          status: 400,
          body: expect.stringContaining('{"__type":"AccessDeniedException","Message":"User: '),
        },
        action: 'secretsmanager:GetSecretValue',
      },
      'Parameter Store': {
        event: { operation: 'AmazonSSM.GetParametersByPath', input: { Path: '/rekey/credentials' } },
        allowed: allow('Read', 'ssm:GetParametersByPath', 'arn:aws:ssm:*:*:parameter/rekey/credentials'),
        refused: {
          status: 400,
          body: expect.stringContaining('{"__type":"AccessDeniedException","message":"User: '),
        },
        action: 'ssm:GetParametersByPath',
      },
      EventBridge: {
        event: {
          operation: 'AWSEvents.PutEvents',
          input: {
            Entries: [{ EventBusName: 'rekey', Source: 'nothing', DetailType: 'Test', Detail: '{}' }],
          },
        },
        allowed: allow('Publish', 'events:PutEvents', arnOf('Bus')),
        refused: { status: 400, body: expect.stringContaining('AccessDeniedException') },
        action: 'events:PutEvents',
      },
      SQS: {
        event: {
          operation: 'AmazonSQS.SendMessageBatch',
          input: { QueueUrl: 'http://x/123456789012/lost', Entries: [{ Id: 'a', MessageBody: 'a' }] },
        },
        allowed: allow('Send', 'sqs:SendMessage', arnOf('Lost')),
        refused: {
          status: 400,
          code: 'AccessDenied;Sender',
          body: expect.stringContaining('"com.amazon.coral.service#AccessDeniedException"'),
        },
        action: 'sqs:SendMessage',
      },
      S3: {
        event: { path: '/records?list-type=2&prefix=audit%2F' },
        allowed: allow('List', 's3:ListBucket', arnOf('Records'), {
          Condition: { StringEquals: { 's3:prefix': 'audit/' } },
        }),
        refused: { status: 403, body: expect.stringContaining('<Code>AccessDenied</Code><Message>User: ') },
        action: 's3:ListBucket',
      },
    };
  test.each(Object.entries(calls))(
    'a call of a function to %s is refused as AWS refuses it, unless its role allows it',
    async (_service, { event, allowed, refused, action }) => {
      const secrets = { 'rekey/api-keys/render': 'canary' };
      const { deployment: strict } = await start(caller(writeLog), { secrets });
      const denied = await called(strict, event);
      expect(denied).toMatchObject(refused);
      expect(denied.body).toMatch(new RegExp(`is not authorized to perform: ${action} on resource: `));
      expect(strict.authorizer.refusals).toEqual([who(`perform: ${action}`)]);
      const { deployment: lax } = await start(caller(writeLog, allowed), { secrets });
      expect(await called(lax, event)).toMatchObject({ status: 200 });
      expect(lax.authorizer.refusals).toEqual([]);
    },
  );

  const narrowed: Record<
    string,
    { operation: string; allowed: object; passes: object; refused: readonly object[] }
  > = {
    'the stage that is read': {
      operation: 'secretsmanager.GetSecretValue',
      allowed: allow('Read', 'secretsmanager:GetSecretValue', keys, {
        Condition: { StringEquals: { 'secretsmanager:VersionStage': 'AWSCURRENT' } },
      }),
      passes: { SecretId: 'rekey/api-keys/render', VersionStage: 'AWSCURRENT' },
      refused: [
        { SecretId: 'rekey/api-keys/render', VersionStage: 'AWSPENDING' },
        // The default is the same value, and no condition key (aws/aws-cli#5031).
        { SecretId: 'rekey/api-keys/render' },
      ],
    },
    'a deletion that cannot be taken back': {
      operation: 'secretsmanager.DeleteSecret',
      allowed: allow('Delete', 'secretsmanager:DeleteSecret', keys, {
        Condition: { Bool: { 'secretsmanager:ForceDeleteWithoutRecovery': 'false' } },
      }),
      passes: { SecretId: 'rekey/api-keys/render', ForceDeleteWithoutRecovery: false },
      refused: [{ SecretId: 'rekey/api-keys/render', ForceDeleteWithoutRecovery: true }],
    },
    'whether a parameter is overwritten': {
      operation: 'AmazonSSM.PutParameter',
      allowed: allow('Write', 'ssm:PutParameter', '*', {
        Condition: { StringEquals: { 'ssm:Overwrite': 'false' } },
      }),
      passes: { Name: '/a', Value: 'b', Type: 'String', Overwrite: false },
      refused: [{ Name: '/a', Value: 'b', Type: 'String', Overwrite: true }],
    },
    'source and detail type of every event in a call': {
      operation: 'AWSEvents.PutEvents',
      allowed: allow('Publish', 'events:PutEvents', arnOf('Bus'), {
        Condition: {
          'ForAllValues:StringEquals': { 'events:source': 'nothing', 'events:detail-type': ['One', 'Two'] },
        },
      }),
      passes: { Entries: ['One', 'Two'].map((type) => entry('nothing', type)) },
      refused: [
        { Entries: ['One', 'Three'].map((type) => entry('nothing', type)) },
        { Entries: [entry('others', 'One')] },
      ],
    },
  };
  function entry(Source: string, DetailType: string): object {
    return { EventBusName: 'rekey', Source, DetailType, Detail: '{}' };
  }
  test.each(Object.entries(narrowed))(
    'by what a call says, where a condition asks for it: %s',
    async (_condition, { operation, allowed, passes, refused }) => {
      const { deployment } = await start(caller(writeLog, allowed), {
        secrets: { 'rekey/api-keys/render': 'canary' },
      });
      for (const input of refused)
        expect(await called(deployment, { operation, input })).toMatchObject({
          status: 400,
          body: expect.stringContaining('AccessDeniedException'),
        });
      expect(await called(deployment, { operation, input: passes })).toMatchObject({ status: 200 });
    },
  );

  test('by each name of a call that reads several parameters', async () => {
    const allowed = allow('Read', 'ssm:GetParameters', 'arn:aws:ssm:*:*:parameter/rekey/pause/*');
    const { deployment } = await start(caller(writeLog, allowed));
    const read = (...Names: readonly string[]) =>
      called(deployment, { operation: 'AmazonSSM.GetParameters', input: { Names } });
    const missing = await read('/rekey/pause/all', '/rekey/pause/targets/db-1');
    expect([missing.status, JSON.parse(missing.body)]).toEqual([
      200,
      { Parameters: [], InvalidParameters: ['/rekey/pause/all', '/rekey/pause/targets/db-1'] },
    ]);
    expect(await read('/rekey/pause/all', '/rekey/credentials/orders')).toMatchObject({
      status: 400,
      body: expect.stringContaining('parameter/rekey/credentials/orders'),
    });
  });

  test('whoever may not list a bucket is not told that there is no such object', async () => {
    const reading = allow('Read', 's3:GetObject', 'arn:aws:s3:::records/*');
    const { deployment: strict } = await start(caller(writeLog, reading));
    expect(await called(strict, { path: '/records/nothing' })).toMatchObject({ status: 403 });
    const listing = allow('List', 's3:ListBucket', arnOf('Records'));
    const { deployment: lax } = await start(caller(writeLog, reading, listing));
    expect(await called(lax, { path: '/records/nothing' })).toMatchObject({ status: 404 });
  });

  test('what writes an object says whether there may be one, and which version it deletes, with which lock', async () => {
    const more = {
      ...caller(
        writeLog,
        allow('Write', 's3:PutObject', 'arn:aws:s3:::records/*', {
          Condition: { StringEquals: { 's3:if-none-match': '*' } },
        }),
        allow('Delete', 's3:DeleteObject', 'arn:aws:s3:::records/*'),
      ),
    };
    const { deployment } = await start(more);
    const put = (headers: object) => called(deployment, { path: '/records/a', method: 'PUT', headers });
    expect(await put({})).toMatchObject({ status: 403 });
    expect(await put({ 'if-none-match': '*' })).toMatchObject({ status: 200 });
    const remove = (path: string, headers = {}) => called(deployment, { path, method: 'DELETE', headers });
    const refused = (action: string) => ({
      status: 403,
      body: expect.stringContaining(`perform: s3:${action} on`),
    });
    expect(await remove('/records/a?versionId=null')).toMatchObject(refused('DeleteObjectVersion'));
    expect(await remove('/records/a', { 'x-amz-bypass-governance-retention': 'true' })).toMatchObject(
      refused('BypassGovernanceRetention'),
    );
    expect(await remove('/records/a')).toMatchObject({ status: 204 });
  });

  const Secret = {
    Type: 'AWS::SecretsManager::Secret',
    Properties: { Name: 'rekey/orders', SecretString: '{}' },
  };
  const Rotation = {
    Type: 'AWS::SecretsManager::RotationSchedule',
    Properties: {
      SecretId: { Ref: 'Secret' },
      RotationLambdaARN: arnOf('rotate'),
      RotateImmediatelyOnUpdate: false,
      RotationRules: { AutomaticallyAfterDays: 10 },
    },
  };
  test('a condition on the function that rotates a secret is asked of the secret, whose name is no ARN', async () => {
    const rotated = { 'secretsmanager:resource/AllowRotationLambdaArn': arnOf('rotate') };
    const { deployment } = await start(
      {
        ...caller(
          writeLog,
          allow('Own', 'secretsmanager:DescribeSecret', '*', { Condition: { StringEquals: rotated } }),
          allow('Rotate', 'secretsmanager:RotateSecret', '*'),
        ),
        Secret,
        Rotation,
      },
      { secrets: { 'rekey/api-keys/render': 'canary' } },
    );
    const describeSecret = (SecretId: string) =>
      called(deployment, { operation: 'secretsmanager.DescribeSecret', input: { SecretId } });
    expect(await describeSecret('rekey/orders')).toMatchObject({ status: 200 });
    expect(await describeSecret('rekey/api-keys/render')).toMatchObject({ status: 400 });
    // What does not exist has no rotation either.
    expect((await describeSecret('rekey/nobody')).body).toContain(':secret:rekey/nobody-absent because');
    const rotating = { SecretId: 'rekey/orders', ClientRequestToken: '1'.repeat(32) };
    // It rotates by a function that the caller may not call.
    expect(
      await called(deployment, { operation: 'secretsmanager.RotateSecret', input: rotating }),
    ).toMatchObject({
      status: 400,
      body: expect.stringMatching(/perform: lambda:InvokeFunction on resource: .*:function:rotate /),
    });
  });

  test('people, who have no function’s key, are not asked', async () => {
    const { deployment } = await start(caller(writeLog));
    const before = deployment.authorizer.judged;
    const ssm = await fetch(deployment.endpointUrl, {
      method: 'POST',
      headers: {
        authorization: 'AWS4-HMAC-SHA256 Credential=local/20260301/eu-central-1/ssm/aws4_request',
        'x-amz-target': 'AmazonSSM.GetParametersByPath',
      },
      body: '{"Path":"/rekey/credentials"}',
    });
    expect([ssm.status, deployment.authorizer.judged]).toEqual([200, before]);
  });

  test('a rotation is begun for Secrets Manager alone, and for this account', async () => {
    const strict = start({
      Secret,
      Rotation,
      SecretsManagerCallsRotate: mayCall('rotate', 'secretsmanager.amazonaws.com', {
        SourceAccount: '999999999999',
      }),
    });
    await expect(strict).rejects.toThrow('Secrets Manager cannot invoke the specified Lambda function');
  });

  test('a function writes its log as its role, or nobody reads it', async () => {
    const { deployment, calls: seen } = await start({
      SilentRole: role('lambda.amazonaws.com', allow('WriteLog', 'logs:CreateLogStream', '*')),
      pass: handler('pass', 60, 'SilentRole'),
    });
    expect(await deployment.lambda.invoke('pass', {})).toMatchObject({ ok: true });
    await deployment.settled();
    expect(seen).toEqual([]);
    expect(deployment.authorizer.refusals).toEqual([
      expect.stringMatching(
        /pass is .* logs:PutLogEvents on resource: .*:log-group:\/aws\/lambda\/pass:log-stream:/,
      ),
    ]);
  });

  test('what a function failed on is reported as its role', async () => {
    const { deployment } = await start({
      PoorRole: role('lambda.amazonaws.com', writeLog),
      pass: handler('pass', 60, 'PoorRole'),
    });
    await request(deployment, 'rekey', { fail: true });
    await deployment.advance(3_600_000);
    expect(deployment.lostRequests).toEqual([]);
    expect(deployment.authorizer.refusals).toEqual([
      expect.stringMatching(/PoorRole.* sqs:SendMessage .*:lost /),
    ]);
  });

  test('an event that was lost is kept where the policy of the queue lets EventBridge in', async () => {
    const { deployment } = await start({ LostPolicy: { Type: 'AWS::CDK::Metadata' } });
    await request(deployment, 'nobody');
    await deployment.settled();
    expect(deployment.lostRequests).toEqual([]);
    expect(deployment.authorizer.refusals).toEqual([
      expect.stringMatching(/^User: events\.amazonaws\.com .* lambda:InvokeFunction .*:function:slow /),
      expect.stringMatching(/^User: events\.amazonaws\.com .* sqs:SendMessage .*:lost /),
    ]);
  });

  test('a rule calls a function as the rule that the permission is for', async () => {
    const { deployment, calls: seen } = await start({
      EventsCallPass: mayCall('pass', 'events.amazonaws.com', { SourceArn: arnOf('Requested') }),
      AlsoPass: rule({ source: ['other'] }, 'pass', { EventBusName: { Ref: 'Bus' } }),
    });
    await request(deployment, 'rekey');
    await request(deployment, 'other');
    await deployment.settled();
    expect(seen).toHaveLength(1);
    expect(deployment.lostRequests).toHaveLength(1);
  });

  const scheduled: Record<string, { SchedulerRole: object; refused: RegExp }> = {
    'assumes the role of the schedule': {
      SchedulerRole: role('events.amazonaws.com', allow('Invoke', 'lambda:InvokeFunction', arnOf('pass'))),
      refused: /^User: scheduler\.amazonaws\.com .* sts:AssumeRole on resource: .*:role\/Test-SchedulerRole-/,
    },
    'calls the function as that role, and keeps what was lost': {
      SchedulerRole: role('scheduler.amazonaws.com'),
      refused: /SchedulerRole-.* sqs:SendMessage on resource: .*:lost /,
    },
  };
  test.each(Object.entries(scheduled))('Scheduler %s', async (_sentence, { SchedulerRole, refused }) => {
    const { deployment, calls: seen } = await start({
      SchedulerRole,
      hourly: schedule('rate(1 hour)', 'pass'),
    });
    await deployment.advance(3_600_000);
    expect(seen).toEqual([]);
    expect(deployment.lostRequests).toEqual([]);
    expect(deployment.authorizer.refusals).toEqual(expect.arrayContaining([expect.stringMatching(refused)]));
  });

  test('Scheduler is let in by the group of the schedule', async () => {
    const assumedFor = (group: string) => {
      const made = schedulerRole(arnOf('pass'));
      const [trust] = made.Properties.AssumeRolePolicyDocument.Statement;
      const Condition = {
        StringEquals: {
          'aws:SourceArn': `arn:aws:scheduler:eu-central-1:123456789012:schedule-group/${group}`,
        },
      };
      return {
        ...made,
        Properties: {
          ...made.Properties,
          AssumeRolePolicyDocument: { Version: '2012-10-17', Statement: [{ ...trust, Condition }] },
        },
      };
    };
    for (const [group, times] of [
      ['default', 1],
      ['other', 0],
    ] as const) {
      const hourly = schedule('rate(1 hour)', 'pass');
      const { deployment, calls: seen } = await start({ SchedulerRole: assumedFor(group), hourly });
      await deployment.advance(3_600_000);
      expect(seen).toHaveLength(times);
    }
  });

  test('an alarm is published where the topic and its key let CloudWatch in', async () => {
    const key = (Action: string | readonly string[]) => ({
      Key: {
        Type: 'AWS::KMS::Key',
        Properties: {
          KeyPolicy: {
            Version: '2012-10-17',
            Statement: [
              {
                Effect: 'Allow',
                Principal: { Service: 'cloudwatch.amazonaws.com' },
                Action,
                Resource: '*',
                Condition: {
                  StringEquals: { 'aws:SourceAccount': '123456789012' },
                  ArnLike: { 'aws:SourceArn': 'arn:aws:cloudwatch:eu-central-1:123456789012:alarm:pass-*' },
                },
              },
            ],
          },
        },
      },
      Topic: { Type: 'AWS::SNS::Topic', Properties: { TopicName: 'alarms', KmsMasterKeyId: arnOf('Key') } },
    });
    const published = async (more: object) => {
      const { deployment } = await start(more);
      await deployment.advance(10 * 60_000, { passes: 'all' });
      await deployment.advance(10 * 60_000, { passes: 'all' });
      return [deployment.topics.published().length, deployment.authorizer.refusals] as const;
    };
    expect(await published(key(['kms:Decrypt', 'kms:GenerateDataKey*']))).toEqual([1, []]);
    expect(await published(key('kms:Decrypt'))).toEqual([
      0,
      [expect.stringContaining('kms:GenerateDataKey')],
    ]);
    expect(await published({ TopicPolicy: { Type: 'AWS::CDK::Metadata' } })).toEqual([
      0,
      [expect.stringMatching(/^User: cloudwatch\.amazonaws\.com .* sns:Publish /)],
    ]);
  });

  test('an alarm has been published when the clock stands again', async () => {
    const { deployment } = await start();
    deployment.queues.send('arn:aws:sqs:eu-central-1:123456789012:lost', 'lost');
    await deployment.advance(0);
    expect(deployment.topics.published().map(({ subject }) => subject)).toEqual([
      'ALARM: "request-lost" in eu-central-1',
    ]);
  });

  test('whoever subscribed to a topic lets it in, or hears nothing', async () => {
    const subscribed = (Protocol: string, Endpoint: unknown) => ({
      Type: 'AWS::SNS::Subscription',
      Properties: { TopicArn: { Ref: 'Topic' }, Protocol, Endpoint },
    });
    const more = {
      Letters: { Type: 'AWS::SQS::Queue', Properties: { QueueName: 'letters' } },
      ToPass: subscribed('lambda', arnOf('pass')),
      ToLetters: subscribed('sqs', arnOf('Letters')),
    };
    const topic = 'arn:aws:sns:eu-central-1:123456789012:alarms';
    const letters = 'arn:aws:sqs:eu-central-1:123456789012:letters';
    const heard = async (letting: object) => {
      const { deployment, calls: seen } = await start({ ...more, ...letting });
      deployment.topics.publish(topic, 'hello');
      await deployment.settled();
      return [seen.length, deployment.queues.messages(letters).length, deployment.authorizer.refusals.length];
    };
    expect(await heard({})).toEqual([0, 0, 2]);
    const LettersPolicy = {
      Type: 'AWS::SQS::QueuePolicy',
      Properties: {
        Queues: [{ Ref: 'Letters' }],
        PolicyDocument: {
          Version: '2012-10-17',
          Statement: [
            {
              ...letIn('Topic', 'sns.amazonaws.com', 'sqs:SendMessage', arnOf('Letters')),
              Condition: { ArnEquals: { 'aws:SourceArn': { Ref: 'Topic' } } },
            },
          ],
        },
      },
    };
    const TopicCallsPass = mayCall('pass', 'sns.amazonaws.com', { SourceArn: { Ref: 'Topic' } });
    expect(await heard({ LettersPolicy, TopicCallsPass })).toEqual([1, 1, 0]);
  });

  const undeployable: Record<string, { more: object; message: RegExp }> = {
    'a function whose role Lambda may not assume': {
      more: { Role: role('events.amazonaws.com', writeLog) },
      message: /^Resources\.pass: User: lambda\.amazonaws\.com .* sts:AssumeRole /,
    },
    ...Object.fromEntries(
      ['ReceiveMessage', 'DeleteMessage', 'GetQueueAttributes'].map((missing) => [
        `a mapping whose function may not do ${missing}`,
        {
          more: {
            WorkRole: role(
              'lambda.amazonaws.com',
              writeLog,
              allow(
                'Work',
                ['ReceiveMessage', 'DeleteMessage', 'GetQueueAttributes']
                  .filter((action) => action !== missing)
                  .map((action) => `sqs:${action}`),
                arnOf('Targets'),
              ),
            ),
            targets: handler('targets', 60, 'WorkRole'),
          },
          message: new RegExp(`^Resources\\.Mapping: User: .*/targets is .* sqs:${missing} `),
        },
      ]),
    ),
  };
  test.each(Object.entries(undeployable))('%s is not deployed', async (_sentence, { more, message }) => {
    await expect(start(more)).rejects.toThrow(message);
  });
});

test('a template that is not understood starts nothing', async () => {
  await expect(
    start({ Bad: { Type: 'AWS::SQS::Queue', Properties: { DeduplicationScope: 'messageGroup' } } }),
  ).rejects.toThrow('Resources.Bad.Properties');
});
