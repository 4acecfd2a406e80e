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
const handler = (file: string, timeout = 60) => ({
  Type: 'AWS::Lambda::Function',
  Properties: {
    FunctionName: file,
    Handler: `${file}.handler`,
    Code: { S3Key: 'code.zip' },
    Role: arnOf('Role'),
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

const stack = {
  Role: { Type: 'AWS::IAM::Role' },
  SchedulerRole: {
    Type: 'AWS::IAM::Role',
    Properties: {
      Policies: [
        {
          PolicyDocument: {
            Statement: [{ Effect: 'Allow', Action: 'lambda:InvokeFunction', Resource: arnOf('pass') }],
          },
        },
      ],
    },
  },
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

test('a template that is not understood starts nothing', async () => {
  await expect(start({ Bad: { Type: 'AWS::SQS::Queue', Properties: { FifoQueue: true } } })).rejects.toThrow(
    'Resources.Bad.Properties',
  );
});
