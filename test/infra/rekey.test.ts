import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, Duration, Stack } from 'aws-cdk-lib';
import { Match, Template } from 'aws-cdk-lib/assertions';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { parseInvocation } from '../../functions/core/events.ts';
import { metrics } from '../../functions/core/metrics.ts';
import type { Schema } from '../../functions/core/schema.ts';
import {
  createUserEnvironment,
  deleteUserEnvironment,
  receiveWebhookEnvironment,
  reconcileUsersEnvironment,
  recordAuditEnvironment,
  rotateSecretEnvironment,
  startRotationsEnvironment,
  updateConsumersEnvironment,
} from '../../functions/runtime/env.ts';
import { CockroachDb } from '../../infra/accounts.ts';
import { declareCredentials } from '../../infra/credentials.ts';
import { Consumer, DatabaseCredential } from '../../infra/database-credential.ts';
import { matchesPattern, parsePattern } from '../../infra/local/aws/event-bridge/pattern.ts';
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
  declare: (rekey: Rekey) => void = declareCredentials,
): Promise<{ template: Template; directory: string }> {
  const directory = mkdtempSync(join(root, 'out-'));
  // With the feature flags of the deployment: some of them change policies.
  const app = new App({ outdir: directory, context });
  const made = new Stack(app, 'Rekey');
  declare(new Rekey(made, 'Rekey', { code: code(), ...props }));
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

const queueNamed = (name: string) => {
  const found = stack.queues.find(({ logicalId }) => logicalId.startsWith(`Rekey${name}`));
  if (found === undefined) throw new Error(`no queue ${name}`);
  return found;
};
const propertiesOf = (logicalId: string): Readonly<Record<string, unknown>> =>
  template.toJSON()['Resources'][logicalId]?.Properties;

/** Said of CloudWatch wherever it is let in. */
const ofOurAlarms = {
  StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } },
  ArnLike: {
    'aws:SourceArn': {
      'Fn::Join': [
        '',
        [
          'arn:',
          { Ref: 'AWS::Partition' },
          ':cloudwatch:',
          { Ref: 'AWS::Region' },
          ':',
          { Ref: 'AWS::AccountId' },
          ':alarm:rekey-*',
        ],
      ],
    },
  },
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
      ['apigateway.amazonaws.com', 'arn:aws:lambda:eu-central-1:111122223333:function:rekey-receive-webhook'],
      ['events.amazonaws.com', 'arn:aws:lambda:eu-central-1:111122223333:function:rekey-record-audit'],
      ['events.amazonaws.com', 'arn:aws:lambda:eu-central-1:111122223333:function:rekey-record-audit'],
    ]);
    // A rule is of one account, so its ARN says whose it is.
    for (const { principal, sourceArn } of stack.permissions)
      if (principal === 'events.amazonaws.com')
        expect(sourceArn).toMatch(/^arn:aws:events:eu-central-1:111122223333:rule\//);
  });

  test('deploying rotates nothing', () => {
    template.allResourcesProperties('AWS::SecretsManager::RotationSchedule', {
      RotateImmediatelyOnUpdate: false,
    });
  });

  test('Secrets Manager rotates by itself two days after the spec wants it, should nobody have done it', () => {
    expect(stack.rotations).toEqual(
      ['orders-render', 'orders-cockroach', 'orders-valkey', 'orders-vectors'].map((name) => ({
        secretName: `rekey/${name}`,
        functionArn: rotator,
        rules: { automaticallyAfterDays: 32 },
        rotateImmediately: false,
      })),
    );
  });

  test('a schedule is made only when the function may be called and finds the spec', () => {
    const dependencies = Object.values(template.findResources('AWS::SecretsManager::RotationSchedule')).map(
      ({ DependsOn }: { DependsOn?: string[] }) =>
        DependsOn?.map((id) => template.toJSON()['Resources'][id].Type).sort(),
    );
    const needed = ['AWS::Lambda::Function', 'AWS::Lambda::Permission', 'AWS::SSM::Parameter'];
    expect(dependencies).toEqual([needed, needed, needed, needed]);
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
    expect(template.findResources('AWS::SecretsManager::Secret')).toEqual(
      Object.fromEntries(
        Object.entries({
          RekeyordersrenderF53388AF: 'orders-render',
          RekeyorderscockroachC0A901DF: 'orders-cockroach',
          Rekeyordersvalkey1833725E: 'orders-valkey',
          RekeyordersvectorsDD8DA451: 'orders-vectors',
        }).map(([logicalId, name]) => [
          logicalId,
          expect.objectContaining({
            Properties: {
              Name: `rekey/${name}`,
              Description: `rekey: current login of the credential ${name}`,
              SecretString: '{"rekey":"no user yet; the first rotation makes one"}',
            },
          }),
        ]),
      ),
    );
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
        rotation: {
          every: 'P30D',
          window: {
            start: '02:00',
            length: 'PT3H',
            days: ['MO', 'TU', 'WE', 'TH'],
            timeZone: 'Europe/Berlin',
          },
          blackouts: [],
        },
        grace: 'P1D',
        drain: { deadline: 'P7D', force: false },
        consumers: [
          {
            kind: 'render-service',
            serviceId: 'srv-d0local0render0demo0',
            environmentVariable: 'DATABASE_URL',
            field: 'url',
            apiKeySecret: 'rekey/api-keys/render',
          },
        ],
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
        rotation: { every: 'P30D', blackouts: [] },
        grace: 'PT24H',
        drain: { deadline: 'P7D', force: false },
        consumers: [],
        verify: 'login',
      },
    ],
    [
      '/rekey/credentials/orders-valkey',
      {
        name: 'orders-valkey',
        provider: 'vultr-valkey',
        target: { databaseId: '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21' },
        apiKeySecret: 'rekey/api-keys/vultr',
        usernamePrefix: 'orders',
        strategy: 'replace-user',
        privileges: {
          categories: ['+@read', '+@write', '-@dangerous'],
          commands: ['+client|list', '+client|setname'],
          keys: ['orders:*'],
          channels: [],
        },
        rotation: { every: 'P30D', blackouts: [] },
        grace: 'PT24H',
        drain: { deadline: 'P7D', force: false },
        consumers: [],
        verify: 'login',
      },
    ],
    [
      '/rekey/credentials/orders-vectors',
      {
        name: 'orders-vectors',
        provider: 'zilliz-cloud',
        target: { clusterId: 'in01-0local0zilliz' },
        apiKeySecret: 'rekey/api-keys/zilliz',
        usernamePrefix: 'orders',
        strategy: 'replace-user',
        privileges: { roles: ['orders_rw'] },
        rotation: { every: 'P30D', blackouts: [] },
        grace: 'PT24H',
        drain: { deadline: 'P7D', force: false },
        consumers: [],
        verify: 'login',
      },
    ],
  ]);
});

/** The function that gets what is sent to an ARN: its own, or that of a queue. */
const functionBehind = (arn: string): string =>
  stack.eventSources.find(({ queueArn }) => queueArn === arn)?.functionArn ?? arn;

/** Rules in whose pattern this event is, as the functions that get it in the end. */
const calledBy = (event: Readonly<Record<string, unknown>>, busName: string): readonly string[] =>
  stack.rules
    .filter((rule) => rule.busName === busName && matchesPattern(parsePattern(rule.pattern), event))
    .flatMap((rule) => rule.targets.map(({ arn }) => functionBehind(arn).split(':').at(-1) ?? arn));

describe('events', () => {
  const fact = (type: string) => ({ source: 'rekey', 'detail-type': type, detail: { credential: 'orders' } });
  const label = (name: string, labelUpdated: string) => ({
    source: 'aws.secretsmanager',
    'detail-type': 'Secret Label Updated',
    detail: { name, labelUpdated, versionId: '0d4f1c9a-2f4b-4c7e-9b53-6f0a1c2d3e4f' },
  });
  // Whatever else an event sets off: it is recorded.
  const audit = 'rekey-record-audit';
  const cases: Record<string, { event: Record<string, unknown>; bus: string; want: readonly string[] }> = {
    'a request for a credential reaches create-user': {
      event: fact('CredentialRequested'),
      bus: 'rekey',
      want: ['rekey-create-user', audit],
    },
    'an ordered rotation reaches start-rotations': {
      event: fact('CredentialRotationRequested'),
      bus: 'rekey',
      want: ['rekey-start-rotations', audit],
    },
    'a compromised credential reaches start-rotations, and delete-user, which makes room for its rotation': {
      event: fact('CredentialCompromised'),
      bus: 'rekey',
      want: ['rekey-start-rotations', 'rekey-delete-user', audit],
    },
    'an ordered pause reaches start-rotations': {
      event: fact('RekeyPaused'),
      bus: 'rekey',
      want: ['rekey-start-rotations', audit],
    },
    'the end of a pause reaches start-rotations': {
      event: fact('RekeyResumed'),
      bus: 'rekey',
      want: ['rekey-start-rotations', audit],
    },
    'an ordered deletion reaches delete-user': {
      event: fact('CredentialDeletionRequested'),
      bus: 'rekey',
      want: ['rekey-delete-user', audit],
    },
    'a finished rotation reaches delete-user': {
      event: fact('CredentialRotated'),
      bus: 'rekey',
      want: ['rekey-delete-user', audit],
    },
    'what a vendor told reaches reconcile-users': {
      event: fact('ProviderEventReceived'),
      bus: 'rekey',
      want: ['rekey-reconcile-users', audit],
    },
    'a fact that nobody has to act on is recorded': {
      event: fact('DatabaseUserDeleted'),
      bus: 'rekey',
      want: [audit],
    },
    'so is one of a type that nobody knows yet': {
      event: fact('SomethingNew'),
      bus: 'rekey',
      want: [audit],
    },
    'an order from another source reaches no function': {
      event: { ...fact('CredentialCompromised'), source: 'somebody' },
      bus: 'rekey',
      want: [],
    },
    'an order on the default bus reaches no function': {
      event: fact('CredentialCompromised'),
      bus: 'default',
      want: [],
    },
    'a new current login reaches update-consumers': {
      event: label('rekey/orders', 'AWSCURRENT'),
      bus: 'default',
      want: ['rekey-update-consumers', audit],
    },
    'another label of a secret is recorded': {
      event: label('rekey/orders', 'blue'),
      bus: 'default',
      want: [audit],
    },
    "somebody else's secret reaches no function": {
      event: label('payroll/orders', 'AWSCURRENT'),
      bus: 'default',
      want: [],
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { event, bus, want }) => {
    expect(calledBy(event, bus)).toEqual(want);
  });

  test('lie in a queue before any code of ours runs; only their records are made at once, of which there is an archive', () => {
    const delivered = stack.rules.flatMap(({ logicalId, targets }) =>
      targets.map(({ arn }) => [logicalId.replace(/^Rekey|[0-9A-F]{8}$/g, ''), arn.split(':')[2]]),
    );
    expect(Object.fromEntries(delivered)).toEqual({
      CredentialRequested: 'sqs',
      RotationOrdered: 'sqs',
      RevocationOrdered: 'sqs',
      PauseOrdered: 'sqs',
      DeletionOrdered: 'sqs',
      CredentialRotated: 'sqs',
      LoginChanged: 'sqs',
      ProviderEventReceived: 'sqs',
      EverythingToRecord: 'lambda',
      LabelToRecord: 'lambda',
    });
  });

  test('that pause or resume writes wait in a queue that holds nothing else', () => {
    const pauses = queueNamed('PauseEvents').arn;
    const types = stack.rules
      .filter(({ targets }) => targets.some(({ arn }) => arn === pauses))
      .map(({ pattern }) => pattern['detail-type']);
    expect(types).toEqual([['RekeyPaused', 'RekeyResumed']]);
    const others = stack.rules.flatMap(({ pattern, targets }) =>
      targets.flatMap(({ arn }) =>
        arn.includes(':sqs:') && arn !== pauses ? [pattern['detail-type']].flat() : [],
      ),
    );
    expect(others).not.toEqual(expect.arrayContaining(['RekeyPaused']));
    expect(others).not.toEqual(expect.arrayContaining(['RekeyResumed']));
  });

  test('are put into their queue, and into that of what was lost, by their own rule of this account and by nobody else', () => {
    const policies = Object.values(template.findResources('AWS::SQS::QueuePolicy')).map(({ Properties }) => ({
      queue: Properties.Queues[0].Ref,
      lets: Properties.PolicyDocument.Statement.filter(
        ({ Effect }: { Effect: string }) => Effect === 'Allow',
      ),
    }));
    const fed = stack.queues.filter(({ arn }) =>
      stack.rules.some(({ targets }) => targets.some((target) => target.arn === arn)),
    );
    expect(fed).toHaveLength(6);
    for (const { logicalId, arn } of [...fed, queueNamed('LostRequests')]) {
      const rules = stack.rules.filter(({ targets }) =>
        targets.some((target) => target.arn === arn || target.deadLetterArn === arn),
      );
      const [policy] = policies.filter(({ queue }) => queue === logicalId);
      const isOurs = (rule: (typeof rules)[number]): boolean =>
        fed.some((queue) => rule.targets.some((target) => target.arn === queue.arn));
      const arnOf = ({ logicalId: id }: (typeof rules)[number]) => ({ 'Fn::GetAtt': [id, 'Arn'] });
      const ours = rules.filter(isOurs).map(arnOf);
      const letsSend = {
        Sid: expect.any(String),
        Effect: 'Allow',
        Principal: { Service: 'events.amazonaws.com' },
        Action: 'sqs:SendMessage',
        Resource: { 'Fn::GetAtt': [logicalId, 'Arn'] },
      };
      // A rule is of one account; CDK's own targets leave it at that.
      const others = rules.filter((rule) => !isOurs(rule));
      expect(policy?.lets).toEqual([
        {
          ...letsSend,
          Condition: {
            StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } },
            ArnEquals: { 'aws:SourceArn': ours },
          },
        },
        ...others.map((rule) => ({
          ...letsSend,
          Condition: { ArnEquals: { 'aws:SourceArn': arnOf(rule) } },
        })),
      ]);
      // AWS allows ten in a policy; one more refuses all that is not sent over TLS.
      const conditions = (policy?.lets ?? []).flatMap(({ Condition }: { Condition: object }) =>
        Object.keys(Condition),
      );
      expect(conditions.length + 1).toBeLessThanOrEqual(10);
    }
    // What only functions of ours write to lets nobody in.
    const closed = policies.filter(({ queue }) =>
      [...fed.map(({ logicalId }) => logicalId), queueNamed('LostRequests').logicalId].every(
        (each) => each !== queue,
      ),
    );
    expect(closed.flatMap(({ lets }) => lets)).toEqual([]);
  });

  test('that cannot be delivered are tried for a day and kept', () => {
    expect(stack.rules).toHaveLength(10);
    for (const { isEnabled, targets } of stack.rules)
      expect({ isEnabled, targets }).toEqual({
        isEnabled: true,
        targets: [
          expect.objectContaining({
            deadLetterArn: queueNamed('LostRequests').arn,
            retryPolicy: { maximumRetryAttempts: 185, maximumEventAgeSeconds: 86_400 },
          }),
        ],
      });
  });

  test('that fail in a function are tried three times and kept', () => {
    expect(
      Object.fromEntries(
        stack.functions.map(({ name, asyncRetries, onFailureArn }) => [name, [asyncRetries, onFailureArn]]),
      ),
    ).toEqual({
      // Secrets Manager waits for the answer, and retries by itself.
      'rekey-rotate-secret': [2, undefined],
      'rekey-create-user': [2, queueNamed('LostRequests').arn],
      'rekey-start-rotations': [2, queueNamed('LostRequests').arn],
      'rekey-delete-user': [2, queueNamed('LostRequests').arn],
      'rekey-reconcile-users': [2, queueNamed('LostRequests').arn],
      'rekey-update-consumers': [2, queueNamed('LostRequests').arn],
      // The vendor waits for the answer, and sends again by itself.
      'rekey-receive-webhook': [2, undefined],
      'rekey-record-audit': [2, queueNamed('LostRequests').arn],
    });
  });
});

describe('a schedule', () => {
  const schedules = () =>
    Object.values(template.findResources('AWS::Scheduler::Schedule')).map(({ Properties }) => Properties);

  test('sends a pass to each function that looks after everything, as often as it is to look', () => {
    expect(
      schedules().map(({ Name, ScheduleExpression, Target }) => [
        Name,
        ScheduleExpression,
        template.toJSON()['Resources'][Target.Arn['Fn::GetAtt'][0]].Properties.FunctionName,
      ]),
    ).toEqual([
      ['start-rotations', 'rate(5 minutes)', 'rekey-start-rotations'],
      ['delete-user', 'rate(15 minutes)', 'rekey-delete-user'],
      ['reconcile-users', 'rate(1 hour)', 'rekey-reconcile-users'],
      ['record-audit', 'cron(0 4 * * ? *)', 'rekey-record-audit'],
    ]);
    expect(schedules().at(-1)?.ScheduleExpressionTimezone).toBe('Etc/UTC');
    for (const { Target } of schedules())
      expect(parseInvocation(JSON.parse(Target.Input), ['pass'])).toEqual({ is: 'pass', dryRun: false });
  });

  test('is on time, tries until the next pass is due, and keeps a pass that could not be delivered', () => {
    const kept = { Arn: { 'Fn::GetAtt': [queueNamed('LostRequests').logicalId, 'Arn'] } };
    expect(
      schedules().map(({ GroupName, State, FlexibleTimeWindow, Target }) => ({
        GroupName,
        State,
        FlexibleTimeWindow,
        retry: Target.RetryPolicy,
        kept: Target.DeadLetterConfig,
      })),
    ).toEqual(
      [300, 900, 3_600, 86_400].map((seconds) => ({
        GroupName: 'rekey',
        State: 'ENABLED',
        FlexibleTimeWindow: { Mode: 'OFF' },
        retry: { MaximumEventAgeInSeconds: seconds, MaximumRetryAttempts: 185 },
        kept,
      })),
    );
  });

  test("may be used by this account's own group of schedules only, and for its own function only", () => {
    const resources = template.toJSON()['Resources'];
    for (const { Target } of schedules()) {
      const [roleId] = Target.RoleArn['Fn::GetAtt'];
      expect(resources[roleId].Properties.AssumeRolePolicyDocument.Statement).toEqual([
        {
          Effect: 'Allow',
          Action: 'sts:AssumeRole',
          Principal: { Service: 'scheduler.amazonaws.com' },
          Condition: {
            StringEquals: {
              'aws:SourceAccount': { Ref: 'AWS::AccountId' },
              'aws:SourceArn': { 'Fn::GetAtt': [expect.stringMatching(/^RekeySchedules/), 'Arn'] },
            },
          },
        },
      ]);
      const policies = Object.values(template.findResources('AWS::IAM::Policy')).filter(
        ({ Properties }) => Properties.Roles[0].Ref === roleId,
      );
      expect(policies.map(({ Properties }) => Properties.PolicyDocument.Statement)).toEqual([
        [
          { Sid: 'Invoke', Effect: 'Allow', Action: 'lambda:InvokeFunction', Resource: Target.Arn },
          {
            Sid: 'ReportFailure',
            Effect: 'Allow',
            Action: 'sqs:SendMessage',
            Resource: Target.DeadLetterConfig.Arn,
          },
        ],
      ]);
    }
  });
});

describe('a queue', () => {
  test('is encrypted, and only reached over TLS', () => {
    template.resourceCountIs('AWS::SQS::Queue', 12);
    template.allResourcesProperties('AWS::SQS::Queue', { SqsManagedSseEnabled: true });
    const secured = Object.values(template.findResources('AWS::SQS::QueuePolicy')).map(({ Properties }) => {
      expect(Properties.PolicyDocument.Statement).toContainEqual({
        Effect: 'Deny',
        Principal: { AWS: '*' },
        Action: 'sqs:*',
        Resource: { 'Fn::GetAtt': [Properties.Queues[0].Ref, 'Arn'] },
        Condition: { Bool: { 'aws:SecureTransport': 'false' } },
      });
      return Properties.Queues[0].Ref;
    });
    expect(secured.sort()).toEqual(Object.keys(template.findResources('AWS::SQS::Queue')).sort());
  });

  test('of what was lost keeps it for two weeks', () => {
    for (const name of ['LostRequests', 'LostTargets', 'LostStarts'])
      expect(propertiesOf(queueNamed(name).logicalId)).toMatchObject({ MessageRetentionPeriod: 1_209_600 });
  });

  const hour = 3_600;
  const day = 24 * hour;
  const kept: Record<string, { days: number; lost: string; tries: number }> = {
    // An order outlives an outage of two days; people who read what was lost have the rest of two weeks.
    CreateUserEvents: { days: 14, lost: 'LostRequests', tries: 200 },
    PauseEvents: { days: 14, lost: 'LostRequests', tries: 200 },
    StartRotationsEvents: { days: 14, lost: 'LostRequests', tries: 200 },
    DeleteUserEvents: { days: 14, lost: 'LostRequests', tries: 200 },
    ReconcileUsersEvents: { days: 14, lost: 'LostRequests', tries: 200 },
    UpdateConsumersEvents: { days: 14, lost: 'LostRequests', tries: 200 },
    Targets: { days: 2, lost: 'LostTargets', tries: 3 },
    UrgentTargets: { days: 2, lost: 'LostTargets', tries: 3 },
    Starts: { days: 4, lost: 'LostStarts', tries: 20 },
  };
  test.each(Object.entries(kept))(
    '%s keeps a message until it is dead-lettered, also one that crashes the function each time',
    (name, { days, lost, tries }) => {
      const queue = queueNamed(name);
      expect(queue).toMatchObject({
        retentionSeconds: days * day,
        redrive: { deadLetterArn: queueNamed(lost).arn, maxReceiveCount: tries },
      });
      expect(tries * queue.visibilityTimeoutSeconds).toBeLessThan(queue.retentionSeconds);
    },
  );

  test('that feeds a function hides a message for six times what the function may take', () => {
    expect(stack.eventSources).toHaveLength(Object.keys(kept).length);
    for (const { queueArn, functionArn } of stack.eventSources) {
      const queue = stack.queues.find(({ arn }) => arn === queueArn);
      const fed = stack.functions.find(({ arn }) => arn === functionArn);
      expect(queue?.visibilityTimeoutSeconds).toBe(6 * (fed?.timeoutSeconds ?? 0));
    }
    expect(functionNamed('rekey-reconcile-users').timeoutSeconds).toBe(900);
  });

  test('brings back only the messages that failed, and few of its batches are worked on at a time', () => {
    const nameOf = (arn: string) => arn.split(':').at(-1);
    expect(
      Object.fromEntries(
        stack.eventSources.map(({ queueArn, functionArn, batchSize, maximumConcurrency }) => [
          stack.queues.find(({ arn }) => arn === queueArn)?.logicalId.replace(/^Rekey|[0-9A-F]{8}$/g, ''),
          [nameOf(functionArn), batchSize, maximumConcurrency],
        ]),
      ),
    ).toEqual({
      CreateUserEvents: ['rekey-create-user', 5, 2],
      PauseEvents: ['rekey-start-rotations', 5, 2],
      StartRotationsEvents: ['rekey-start-rotations', 10, 3],
      DeleteUserEvents: ['rekey-delete-user', 5, 5],
      ReconcileUsersEvents: ['rekey-reconcile-users', 10, 2],
      UpdateConsumersEvents: ['rekey-update-consumers', 10, 10],
      Targets: ['rekey-reconcile-users', 5, 8],
      UrgentTargets: ['rekey-reconcile-users', 5, 2],
      Starts: ['rekey-start-rotations', 10, 10],
    });
    expect(stack.eventSources.every(({ reportsItemFailures }) => reportsItemFailures)).toBe(true);
    // Of the 1,000 calls at one time that an account has.
    const most = stack.eventSources.reduce(
      (sum, { maximumConcurrency = 1_000 }) => sum + maximumConcurrency,
      0,
    );
    expect(most).toBe(44);
  });

  test('of starts keeps the order of a target, and so does the queue of those that are given up', () => {
    expect(stack.queues.filter(({ isFifo }) => isFifo).map(({ name }) => name)).toEqual([
      'rekey-lost-starts.fifo',
      'rekey-starts.fifo',
    ]);
  });

  test('is read only once the function may read it', () => {
    for (const mapping of Object.values(template.findResources('AWS::Lambda::EventSourceMapping'))) {
      const needed = mapping['DependsOn'].map((id: string) => template.toJSON()['Resources'][id].Type);
      expect(needed).toContain('AWS::IAM::Policy');
    }
  });
});

describe('alarms', () => {
  const alarms = (of: Template = template) =>
    Object.values(of.findResources('AWS::CloudWatch::Alarm')).map(({ Properties }) => Properties);
  const topicId = () => Object.keys(template.findResources('AWS::SNS::Topic'))[0];

  test('say what is wrong from the first reading that shows it', () => {
    const missing = { notBreaching: 'fine', breaching: 'wrong', ignore: 'as before' };
    expect(
      alarms().map((alarm) =>
        [
          alarm.AlarmName,
          `${alarm.Statistic} ${alarm.MetricName}`,
          `${alarm.ComparisonOperator === 'LessThanThreshold' ? '<' : '>='} ${alarm.Threshold}`,
          `${alarm.EvaluationPeriods} x ${alarm.Period} s`,
          `silence: ${missing[alarm.TreatMissingData as keyof typeof missing]}`,
        ].join(' | '),
      ),
    ).toEqual([
      'rekey-rotation-failed | Sum RotationsFailed | >= 1 | 1 x 300 s | silence: fine',
      'rekey-rotation-overdue | Maximum RotationOverdueAge | >= 3600 | 1 x 900 s | silence: as before',
      'rekey-paused | Maximum PausedAge | >= 86400 | 1 x 900 s | silence: as before',
      'rekey-rotation-stuck | Maximum RotationsStuck | >= 1 | 2 x 3600 s | silence: as before',
      'rekey-user-orphaned | Maximum OrphanedUsers | >= 1 | 1 x 3600 s | silence: as before',
      'rekey-user-foreign | Maximum ForeignUsers | >= 1 | 1 x 3600 s | silence: as before',
      'rekey-retired-user-still-connected | Maximum RetiredStillConnectedAge | >= 1 | 1 x 3600 s | silence: as before',
      'rekey-breaker-open | Maximum BreakersOpen | >= 1 | 1 x 900 s | silence: as before',
      'rekey-findings-stay-open | Maximum OpenFindings | >= 1 | 3 x 3600 s | silence: as before',
      'rekey-consumer-behind | Maximum ConsumerBehindAge | >= 3600 | 1 x 3600 s | silence: as before',
      'rekey-webhooks-rejected | Sum WebhooksRejected | >= 10 | 1 x 900 s | silence: fine',
      'rekey-webhooks-odd | Sum WebhooksOdd | >= 1 | 1 x 3600 s | silence: fine',
      'rekey-webhooks-deferred | Sum WebhooksDeferred | >= 1 | 1 x 300 s | silence: fine',
      'rekey-webhook-disabled | Maximum WebhooksDisabled | >= 1 | 1 x 3600 s | silence: as before',
      'rekey-webhooks-missed | Sum WebhooksMissed | >= 3 | 1 x 86400 s | silence: fine',
      'rekey-event-retried | Maximum RetriedEventAge | >= 900 | 1 x 1800 s | silence: fine',
      'rekey-audit-write-failed | Sum AuditWriteFailed | >= 1 | 1 x 300 s | silence: fine',
      'rekey-audit-unsealed | Maximum AuditUnsealedAge | >= 172800 | 2 x 86400 s | silence: wrong',
      'rekey-request-lost | Maximum ApproximateNumberOfMessagesVisible | >= 1 | 1 x 300 s | silence: fine',
      'rekey-target-not-reconciled | Maximum ApproximateNumberOfMessagesVisible | >= 1 | 1 x 300 s | silence: fine',
      'rekey-start-lost | Maximum ApproximateNumberOfMessagesVisible | >= 1 | 1 x 300 s | silence: fine',
      'rekey-pauses-behind | Maximum ApproximateAgeOfOldestMessage | >= 300 | 1 x 300 s | silence: fine',
      'rekey-orders-behind | Maximum ApproximateAgeOfOldestMessage | >= 900 | 1 x 300 s | silence: fine',
      'rekey-deletions-behind | Maximum ApproximateAgeOfOldestMessage | >= 3600 | 1 x 300 s | silence: fine',
      'rekey-requests-behind | Maximum ApproximateAgeOfOldestMessage | >= 900 | 1 x 300 s | silence: fine',
      'rekey-starts-behind | Maximum ApproximateAgeOfOldestMessage | >= 7200 | 1 x 300 s | silence: fine',
      'rekey-new-logins-behind | Maximum ApproximateAgeOfOldestMessage | >= 3600 | 1 x 300 s | silence: fine',
      'rekey-vendor-events-behind | Maximum ApproximateAgeOfOldestMessage | >= 900 | 1 x 300 s | silence: fine',
      'rekey-urgent-looks-behind | Maximum ApproximateAgeOfOldestMessage | >= 3600 | 1 x 300 s | silence: fine',
      'rekey-routine-looks-behind | Maximum ApproximateAgeOfOldestMessage | >= 7200 | 1 x 300 s | silence: fine',
      'rekey-rotate-secret-failing | Sum Errors | >= 3 | 1 x 900 s | silence: fine',
      'rekey-rotate-secret-throttled | Sum Throttles | >= 1 | 1 x 900 s | silence: fine',
      'rekey-reconcile-users-failing | Sum Errors | >= 3 | 1 x 3600 s | silence: fine',
      'rekey-start-rotations-silent | Sum Invocations | < 1 | 3 x 300 s | silence: wrong',
      'rekey-delete-user-silent | Sum Invocations | < 1 | 3 x 900 s | silence: wrong',
      'rekey-reconcile-users-silent | Sum Invocations | < 1 | 3 x 3600 s | silence: wrong',
    ]);
  });

  test('watch every metric that the functions write, but for the one that is good news', () => {
    const watched = alarms().filter(({ Namespace }) => Namespace === 'rekey');
    expect([...watched.map(({ MetricName }) => MetricName), 'RotationsSucceeded'].sort()).toEqual(
      Object.keys(metrics).sort(),
    );
    // The functions write without dimensions: with any, an alarm would look at another series, which stays empty.
    for (const { Dimensions, Unit } of watched)
      expect({ Dimensions, Unit }).toEqual({ Dimensions: undefined, Unit: undefined });
  });

  test('watch each function and each queue under its own name', () => {
    const dimensions = alarms()
      .filter(({ Namespace }) => Namespace !== 'rekey')
      .map(({ AlarmName, Dimensions: [{ Value }] }) => {
        const id: string = Value.Ref ?? Value['Fn::GetAtt'][0];
        return [AlarmName, propertiesOf(id)?.['FunctionName'] ?? id];
      });
    expect(Object.fromEntries(dimensions)).toEqual({
      'rekey-request-lost': queueNamed('LostRequests').logicalId,
      'rekey-target-not-reconciled': queueNamed('LostTargets').logicalId,
      'rekey-start-lost': queueNamed('LostStarts').logicalId,
      'rekey-pauses-behind': queueNamed('PauseEvents').logicalId,
      'rekey-orders-behind': queueNamed('StartRotationsEvents').logicalId,
      'rekey-deletions-behind': queueNamed('DeleteUserEvents').logicalId,
      'rekey-requests-behind': queueNamed('CreateUserEvents').logicalId,
      'rekey-starts-behind': queueNamed('Starts').logicalId,
      'rekey-new-logins-behind': queueNamed('UpdateConsumersEvents').logicalId,
      'rekey-vendor-events-behind': queueNamed('ReconcileUsersEvents').logicalId,
      'rekey-urgent-looks-behind': queueNamed('UrgentTargets').logicalId,
      'rekey-routine-looks-behind': queueNamed('Targets').logicalId,
      'rekey-rotate-secret-failing': 'rekey-rotate-secret',
      'rekey-rotate-secret-throttled': 'rekey-rotate-secret',
      'rekey-reconcile-users-failing': 'rekey-reconcile-users',
      'rekey-start-rotations-silent': 'rekey-start-rotations',
      'rekey-delete-user-silent': 'rekey-delete-user',
      'rekey-reconcile-users-silent': 'rekey-reconcile-users',
    });
  });

  test('tell people through one topic, with what to do first in the little room that CloudWatch gives', () => {
    for (const { AlarmActions, AlarmDescription } of alarms()) {
      expect(AlarmActions).toEqual([{ Ref: topicId() }]);
      expect(AlarmDescription.length).toBeLessThanOrEqual(1024);
      expect(AlarmDescription).toMatch(/^[a-zA-Z].*\. Runbook: README\.md#rekey-[a-z-]+$/s);
    }
  });

  test('may be published by CloudWatch for alarms of rekey in this account, and only over TLS', () => {
    template.hasResourceProperties('AWS::SNS::TopicPolicy', {
      Topics: [{ Ref: topicId() }],
      PolicyDocument: {
        Statement: [
          Match.objectLike({
            Effect: 'Deny',
            Principal: '*',
            Action: 'sns:Publish',
            Condition: { Bool: { 'aws:SecureTransport': 'false' } },
          }),
          {
            Sid: 'AlarmsPublish',
            Effect: 'Allow',
            Principal: { Service: 'cloudwatch.amazonaws.com' },
            Action: 'sns:Publish',
            Resource: { Ref: topicId() },
            Condition: ofOurAlarms,
          },
        ],
      },
    });
    for (const { AlarmName } of alarms()) expect(AlarmName).toMatch(/^rekey-/);
  });

  // CloudWatch may not use the key that AWS manages for SNS: every alarm would be lost in silence.
  test('are encrypted under a key that CloudWatch may use for them, and that is renewed every year', () => {
    const [keyId] = Object.keys(template.findResources('AWS::KMS::Key'));
    template.hasResourceProperties('AWS::SNS::Topic', {
      KmsMasterKeyId: { 'Fn::GetAtt': [keyId, 'Arn'] },
    });
    template.hasResourceProperties('AWS::KMS::Key', {
      EnableKeyRotation: true,
      KeyPolicy: {
        Statement: Match.arrayWith([
          {
            Sid: 'AlarmsUseKey',
            Effect: 'Allow',
            Principal: { Service: 'cloudwatch.amazonaws.com' },
            Action: ['kms:Decrypt', 'kms:GenerateDataKey*'],
            Resource: '*',
            Condition: ofOurAlarms,
          },
        ]),
      },
    });
  });

  test('about foreign users leave room for as many as belong there', async () => {
    const { template: tolerant } = await synthesize({ toleratedForeignUsers: 2 });
    for (const MetricName of ['ForeignUsers', 'OpenFindings'])
      tolerant.hasResourceProperties('AWS::CloudWatch::Alarm', { MetricName, Threshold: 3 });
    await expect(synthesize({ toleratedForeignUsers: -1 })).rejects.toThrow(
      'toleratedForeignUsers: expected 0 or a whole number above, got -1',
    );
  });
});

describe('the webhook address', () => {
  test('has one route, which leads to the function that verifies, and is slow for everybody', () => {
    expect(stack.httpApis).toEqual([
      {
        logicalId: expect.any(String),
        id: expect.any(String),
        name: 'rekey-webhooks',
        routes: [
          {
            routeKey: 'POST /webhooks/render',
            functionArn: 'arn:aws:lambda:eu-central-1:111122223333:function:rekey-receive-webhook',
          },
        ],
        throttle: { ratePerSecond: 5, burst: 10 },
      },
    ]);
  });

  // A webhook that points anywhere else is another one, and reconcile-users would say that ours is gone.
  test('is what reconcile-users asks the vendors about, but for the name of the endpoint', () => {
    const [{ id = '', routes: [route] = [] } = {}] = stack.httpApis;
    const { REKEY_WEBHOOK_BASE_URL: baseUrl } = functionNamed('rekey-reconcile-users').environment;
    expect(baseUrl).toBe(`https://${id}.execute-api.eu-central-1.amazonaws.com/webhooks/`);
    expect(`POST ${new URL(`${baseUrl}render`).pathname}`).toBe(route?.routeKey);
  });

  test('may call that function by that route only', () => {
    const [permission] = stack.permissions.filter(
      ({ principal }) => principal === 'apigateway.amazonaws.com',
    );
    expect(permission?.sourceArn).toBe(
      `arn:aws:execute-api:eu-central-1:111122223333:${stack.httpApis[0]?.id}/*/*/webhooks/render`,
    );
  });

  test('logs who came and what became of it, and no header, body or query', () => {
    const [stage] = Object.values(template.findResources('AWS::ApiGatewayV2::Stage'));
    const line: Record<string, string> = JSON.parse(stage?.['Properties'].AccessLogSettings.Format);
    expect(Object.values(line)).toEqual([
      '$context.requestId',
      '$context.requestTime',
      '$context.identity.sourceIp',
      '$context.routeKey',
      '$context.protocol',
      '$context.status',
      '$context.responseLatency',
      '$context.integrationStatus',
      '$context.integrationLatency',
      '$context.integrationErrorMessage',
    ]);
    const [destination] = stage?.['Properties'].AccessLogSettings.DestinationArn['Fn::GetAtt'] ?? [];
    expect(propertiesOf(destination)).toMatchObject({ LogGroupName: '/aws/vendedlogs/rekey-webhooks' });
  });
});

describe('what passes remember', () => {
  test('is in a table that lets it expire, can be set back to any second, and outlives the stack', () => {
    template.hasResource('AWS::DynamoDB::Table', {
      DeletionPolicy: 'RetainExceptOnCreate',
      UpdateReplacePolicy: 'Retain',
      Properties: {
        TableName: 'rekey',
        BillingMode: 'PAY_PER_REQUEST',
        PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
        SSESpecification: { SSEEnabled: true },
      },
    });
    expect(stack.tables).toMatchObject([
      { name: 'rekey', partitionKey: 'place', sortKey: 'key', expiryAttribute: 'expiresAt' },
    ]);
  });

  test('is out of reach of the functions that anybody or Secrets Manager calls', () => {
    for (const name of ['rekey-rotate-secret', 'rekey-receive-webhook', 'rekey-record-audit'])
      expect(JSON.stringify(functionNamed(name).roleStatements)).not.toContain('dynamodb');
  });
});

describe('the audit trail', () => {
  const bucketOf = (of: Template = template) => Object.values(of.findResources('AWS::S3::Bucket'))[0];

  test('cannot be changed for a year without a right that no function has', () => {
    expect(stack.buckets).toMatchObject([
      { isVersioned: true, defaultRetention: { mode: 'GOVERNANCE', days: 365 } },
    ]);
  });

  test('can be locked against everybody, for as long as the user says', async () => {
    const { template: strict } = await synthesize({
      auditRetention: Duration.days(2_555),
      auditLock: 'compliance',
    });
    expect(bucketOf(strict)?.['Properties'].ObjectLockConfiguration.Rule.DefaultRetention).toEqual({
      Mode: 'COMPLIANCE',
      Days: 2_555,
    });
  });

  test('is kept when the stack goes, and so is what protects it', () => {
    for (const type of ['AWS::S3::Bucket', 'AWS::S3::BucketPolicy'])
      template.allResources(type, { DeletionPolicy: 'Retain', UpdateReplacePolicy: 'Retain' });
  });

  test('is encrypted, closed to the public, and reached over TLS only', () => {
    template.resourceCountIs('AWS::S3::Bucket', 1);
    expect(bucketOf()?.['Properties']).toMatchObject({
      BucketEncryption: {
        ServerSideEncryptionConfiguration: [{ ServerSideEncryptionByDefault: { SSEAlgorithm: 'AES256' } }],
      },
      OwnershipControls: { Rules: [{ ObjectOwnership: 'BucketOwnerEnforced' }] },
      PublicAccessBlockConfiguration: {
        BlockPublicAcls: true,
        BlockPublicPolicy: true,
        IgnorePublicAcls: true,
        RestrictPublicBuckets: true,
      },
    });
    const [policy] = Object.values(template.findResources('AWS::S3::BucketPolicy'));
    expect(
      policy?.['Properties'].PolicyDocument.Statement.map(
        ({ Effect, Action, Principal, Condition }: Record<string, unknown>) => ({
          Effect,
          Action,
          Principal,
          Condition,
        }),
      ),
    ).toEqual([
      {
        Effect: 'Deny',
        Action: 's3:*',
        Principal: { AWS: '*' },
        Condition: { Bool: { 'aws:SecureTransport': 'false' } },
      },
      {
        Effect: 'Deny',
        Action: 's3:*',
        Principal: { AWS: '*' },
        Condition: { NumericLessThan: { 's3:TlsVersion': 1.2 } },
      },
      hidingIsDenied,
      overwritingIsDenied,
    ]);
  });

  const hidingIsDenied = {
    Effect: 'Deny',
    Action: 's3:DeleteObject',
    Principal: { AWS: '*' },
    Condition: undefined,
  };
  const overwritingIsDenied = {
    Effect: 'Deny',
    Action: 's3:PutObject',
    Principal: { AWS: '*' },
    Condition: { Null: { 's3:if-none-match': 'true' } },
  };

  // A marker is not kept away by the lock, and where there is one the next conditional write finds nothing in its way.
  test('cannot be hidden behind a delete marker by anybody, and ends as its lock says and no other way', async () => {
    const { template: strict } = await synthesize({ auditLock: 'compliance' });
    for (const made of [template, strict]) {
      const [policy] = Object.values(made.findResources('AWS::S3::BucketPolicy'));
      const [bucketId] = Object.keys(made.findResources('AWS::S3::Bucket'));
      // Without TLS everything is denied: what else is, is the marker alone. Versions are left to the lock.
      const denied = policy?.['Properties'].PolicyDocument.Statement.filter(
        ({ Condition }: Record<string, unknown>) => Condition === undefined,
      );
      expect(denied).toEqual([
        {
          Sid: 'NobodyHidesARecord',
          Effect: 'Deny',
          Principal: { AWS: '*' },
          Action: 's3:DeleteObject',
          Resource: { 'Fn::Join': ['', [{ 'Fn::GetAtt': [bucketId, 'Arn'] }, '/*']] },
        },
      ]);
    }
  });

  test('has an archive of events behind it, for a year or as long as the user says', async () => {
    expect(stack.archives).toMatchObject([
      { name: 'rekey', busName: 'rekey', pattern: { source: ['rekey'] }, retentionDays: 365 },
    ]);
    const { template: short } = await synthesize({ eventRetention: Duration.days(30) });
    short.hasResourceProperties('AWS::Events::Archive', { RetentionDays: 30 });
  });

  test.each(['auditRetention', 'eventRetention'])('refuses an %s that is not of whole days', async (name) => {
    await expect(synthesize({ [name]: Duration.hours(36) })).rejects.toThrow(
      `${name}: expected whole days, at least one, got 1 day 12 hours`,
    );
  });
});

describe('every function', () => {
  test('runs on the Node that the tests run on, for longer than the 30 seconds that cut rotations short, unless a vendor waits', () => {
    template.allResourcesProperties('AWS::Lambda::Function', {
      Runtime: 'nodejs24.x',
      Architectures: ['arm64'],
    });
    for (const { name, timeoutSeconds } of stack.functions)
      if (name !== 'rekey-receive-webhook') expect(timeoutSeconds).toBeGreaterThan(30);
    expect(functionNamed('rekey-receive-webhook').timeoutSeconds).toBe(15);
  });

  test('keeps its log for a year, in a group of its own', () => {
    template.allResourcesProperties('AWS::Logs::LogGroup', { RetentionInDays: 365 });
    expect(
      Object.values(template.findResources('AWS::Logs::LogGroup')).map(
        ({ Properties }) => Properties.LogGroupName,
      ),
    ).toEqual([
      '/aws/lambda/rekey-rotate-secret',
      '/aws/lambda/rekey-create-user',
      '/aws/lambda/rekey-start-rotations',
      '/aws/lambda/rekey-delete-user',
      '/aws/lambda/rekey-receive-webhook',
      '/aws/vendedlogs/rekey-webhooks',
      '/aws/lambda/rekey-reconcile-users',
      '/aws/lambda/rekey-update-consumers',
      '/aws/lambda/rekey-record-audit',
    ]);
  });

  test('finds exactly the environment that it reads', () => {
    const read = (schema: Schema<unknown>, name: string) => schema.parse(functionNamed(name).environment);
    const bus = { REKEY_EVENT_BUS_NAME: 'rekey', REKEY_LOG_LEVEL: 'INFO' };
    const notes = { REKEY_NOTE_TABLE_NAME: 'rekey' };
    expect(read(rotateSecretEnvironment, 'rekey-rotate-secret')).toEqual(bus);
    const lost = { REKEY_LOST_REQUEST_QUEUE_URL: queueNamed('LostRequests').url };
    const urgent = { REKEY_URGENT_TARGET_QUEUE_URL: queueNamed('UrgentTargets').url };
    expect(read(createUserEnvironment, 'rekey-create-user')).toEqual({
      ...bus,
      ...lost,
      ...notes,
      REKEY_ROTATION_FUNCTION_ARN: rotator,
    });
    expect(read(startRotationsEnvironment, 'rekey-start-rotations')).toEqual({
      ...bus,
      ...lost,
      ...urgent,
      ...notes,
      REKEY_ROTATION_FUNCTION_ARN: rotator,
      REKEY_START_QUEUE_URL: queueNamed('Starts').url,
    });
    expect(read(deleteUserEnvironment, 'rekey-delete-user')).toEqual({ ...bus, ...lost, ...notes });
    expect(read(reconcileUsersEnvironment, 'rekey-reconcile-users')).toEqual({
      ...bus,
      ...lost,
      ...urgent,
      ...notes,
      REKEY_TARGET_QUEUE_URL: queueNamed('Targets').url,
      REKEY_WEBHOOK_BASE_URL: expect.stringMatching(/^https:.*\/webhooks\/$/),
    });
    expect(read(updateConsumersEnvironment, 'rekey-update-consumers')).toEqual({ ...bus, ...lost, ...notes });
    expect(read(receiveWebhookEnvironment, 'rekey-receive-webhook')).toEqual(bus);
    expect(read(recordAuditEnvironment, 'rekey-record-audit')).toEqual({
      ...bus,
      REKEY_AUDIT_BUCKET: stack.buckets[0]?.name,
    });
    for (const { environment } of stack.functions)
      for (const name of Object.keys(environment))
        expect([
          'REKEY_AUDIT_BUCKET',
          'REKEY_EVENT_BUS_NAME',
          'REKEY_LOST_REQUEST_QUEUE_URL',
          'REKEY_NOTE_TABLE_NAME',
          'REKEY_ROTATION_FUNCTION_ARN',
          'REKEY_START_QUEUE_URL',
          'REKEY_TARGET_QUEUE_URL',
          'REKEY_URGENT_TARGET_QUEUE_URL',
          'REKEY_WEBHOOK_BASE_URL',
        ]).toContain(name);
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
    resources: resources.map((resource) =>
      resource === '*' ? '*' : expect.stringMatching(new RegExp(`^arn:aws:${resource}$`)),
    ),
    conditions,
  });
  const here = 'eu-central-1:111122223333';
  const secretsUnder = (prefix: string) => `secretsmanager:${here}:secret:rekey/${prefix}\\*`;
  const secrets = secretsUnder('');
  const vendorSecrets = [secretsUnder('admin/'), secretsUnder('api-keys/')];
  const parametersUnder = (path: string) => `ssm:${here}:parameter/rekey/${path}/\\*`;
  const listed = (...paths: string[]) =>
    statement(
      'Allow',
      ['ssm:GetParametersByPath'],
      paths.map((path) => `ssm:${here}:parameter/rekey/${path}`),
    );
  const readFleet = listed('credentials', 'directives');
  const onNotes = (actions: string[], ...places: string[]) =>
    statement(
      'Allow',
      actions.map((action) => `dynamodb:${action}`),
      [`dynamodb:${here}:table/rekey`],
      {
        Null: { 'dynamodb:LeadingKeys': ['false'] },
        'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': places },
      },
    );
  const keepNotes = (...places: string[]) => onNotes(['DeleteItem', 'GetItem', 'PutItem'], ...places);
  const orders = (...kinds: string[]) =>
    kinds.toSorted().map((kind) => `ssm:${here}:parameter/rekey/directives/\\*/${kind}`);
  const parameters = (actions: string[], ...paths: string[]) =>
    statement(
      'Allow',
      actions.map((action) => `ssm:${action}`),
      paths.map(parametersUnder),
    );
  const onSecrets = (...actions: string[]) => secretStatement('Allow', actions, secrets);
  const secretStatement = (effect: 'Allow' | 'Deny', actions: string[], resource: string, conditions = {}) =>
    statement(
      effect,
      actions.map((action) => `secretsmanager:${action}`),
      [resource],
      conditions,
    );
  const neverChange = (...actions: string[]) => secretStatement('Deny', actions, secretsUnder('\\*/'));
  const onlyCurrent = {
    'ForAllValues:StringEquals': { 'secretsmanager:VersionStage': ['AWSCURRENT'] },
    Null: { 'secretsmanager:VersionId': ['true'] },
  };
  const rotateByOurs = secretStatement('Allow', ['RotateSecret'], secrets, {
    ArnEqualsIfExists: { 'secretsmanager:RotationLambdaARN': [rotator] },
  });
  const giveUpRotations = secretStatement('Allow', ['UpdateSecretVersionStage'], secrets, {
    'ForAnyValue:StringEquals': { 'secretsmanager:VersionStage': ['AWSPENDING'] },
  });
  const neverRead = (...prefixes: string[]) =>
    statement('Deny', ['secretsmanager:GetSecretValue'], prefixes.map(secretsUnder));
  const attachRotation = statement(
    'Allow',
    ['lambda:InvokeFunction'],
    [`lambda:${here}:function:rekey-rotate-secret`],
  );
  const readWhatIsWanted = parameters(
    ['GetParameter', 'GetParameters'],
    'credentials',
    'directives',
    'pause',
  );
  const onBus = (effect: 'Allow' | 'Deny', conditions: object) =>
    statement(effect, ['events:PutEvents'], [`events:${here}:event-bus/rekey`], conditions);
  const neverOrder = onBus('Deny', {
    'ForAnyValue:StringEquals': { 'events:detail-type': expect.arrayContaining(['CredentialCompromised']) },
  });
  // Which events, access.test.ts has a table of.
  const publish = [
    onBus('Allow', {
      Null: { 'events:detail-type': ['false'], 'events:source': ['false'] },
      'ForAllValues:StringEquals': { 'events:detail-type': expect.any(Array), 'events:source': ['rekey'] },
    }),
    neverOrder,
  ];
  const reportFailure = statement('Allow', ['sqs:SendMessage'], [`sqs:${here}:Rekey-RekeyLostRequests.*`]);
  const queuesNamed = (...names: string[]) =>
    names.map((name) =>
      name.startsWith('rekey-') ? `sqs:${here}:${name}` : `sqs:${here}:Rekey-Rekey${name}[0-9A-F]{8}-.*`,
    );
  const workOn = (...names: string[]) =>
    statement(
      'Allow',
      ['sqs:ChangeMessageVisibility', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes', 'sqs:ReceiveMessage'],
      queuesNamed(...names),
    );
  const sendTo = (...names: string[]) => statement('Allow', ['sqs:SendMessage'], queuesNamed(...names));
  const listSecrets = statement('Allow', ['secretsmanager:ListSecrets'], ['*']);
  const writeLog = (name: string) =>
    statement(
      'Allow',
      ['logs:CreateLogStream', 'logs:PutLogEvents'],
      [`logs:${here}:log-group:/aws/lambda/${name}:\\*`],
    );

  const cases: Record<string, { name: string; want: readonly object[] }> = {
    'rotate-secret touches the secrets that it rotates, and reads vendor keys, specs and orders': {
      name: 'rekey-rotate-secret',
      want: [
        statement(
          'Allow',
          [
            'secretsmanager:DescribeSecret',
            'secretsmanager:GetSecretValue',
            'secretsmanager:ListSecretVersionIds',
            'secretsmanager:PutSecretValue',
            'secretsmanager:UpdateSecretVersionStage',
          ],
          [secrets],
          { StringEquals: { 'secretsmanager:resource/AllowRotationLambdaArn': [rotator] } },
        ),
        statement('Allow', ['secretsmanager:GetSecretValue'], vendorSecrets, onlyCurrent),
        parameters(['GetParameters'], 'credentials', 'directives', 'pause'),
        ...publish,
        writeLog('rekey-rotate-secret'),
      ],
    },
    'create-user makes specs and secrets, attaches this rotation function, and reads no login but those to adopt':
      {
        name: 'rekey-create-user',
        want: [
          readFleet,
          readWhatIsWanted,
          onNotes(['GetItem', 'PutItem'], 'members'),
          onNotes(['Query'], 'former-targets'),
          {
            ...parameters(['PutParameter'], 'credentials'),
            conditions: { StringEqualsIfExists: { 'ssm:Overwrite': ['false'] } },
          },
          statement('Allow', ['ssm:PutParameter'], orders('rotateBefore')),
          onSecrets('CreateSecret', 'DescribeSecret', 'ListSecretVersionIds', 'PutSecretValue'),
          rotateByOurs,
          neverChange(
            'CreateSecret',
            'DescribeSecret',
            'ListSecretVersionIds',
            'PutSecretValue',
            'RotateSecret',
          ),
          statement(
            'Allow',
            ['secretsmanager:GetSecretValue'],
            [secretsUnder('admin/'), secretsUnder('adopt/'), secretsUnder('api-keys/')],
            onlyCurrent,
          ),
          attachRotation,
          workOn('CreateUserEvents'),
          ...publish,
          reportFailure,
          writeLog('rekey-create-user'),
        ],
      },
    'start-rotations starts rotations and gives them up, keeps orders, pauses and findings, and reads no secret':
      {
        name: 'rekey-start-rotations',
        want: [
          { ...readFleet, resources: [...readFleet.resources, `arn:aws:ssm:${here}:parameter/rekey/pause`] },
          readWhatIsWanted,
          statement(
            'Allow',
            ['ssm:PutParameter'],
            [...orders('rotateBefore', 'revokeBefore', 'revokeAnyway'), parametersUnder('pause')],
          ),
          keepNotes('findings/schedule'),
          onNotes(['DeleteItem', 'PutItem', 'Query'], 'breakers', 'members'),
          onNotes(['GetItem'], 'members'),
          onNotes(['GetItem', 'PutItem'], 'pace'),
          onNotes(['Query'], 'former-targets'),
          listSecrets,
          onSecrets('DescribeSecret', 'ListSecretVersionIds'),
          rotateByOurs,
          giveUpRotations,
          neverChange('DescribeSecret', 'ListSecretVersionIds', 'RotateSecret', 'UpdateSecretVersionStage'),
          attachRotation,
          sendTo('UrgentTargets'),
          sendTo('rekey-starts.fifo'),
          workOn('PauseEvents', 'StartRotationsEvents', 'rekey-starts.fifo'),
          ...publish,
          reportFailure,
          writeLog('rekey-start-rotations'),
        ],
      },
    'delete-user ends specs, orders and secrets, and makes none': {
      name: 'rekey-delete-user',
      want: [
        readFleet,
        readWhatIsWanted,
        parameters(['DeleteParameter'], 'credentials'),
        statement(
          'Allow',
          ['ssm:PutParameter'],
          orders('revokeBefore', 'revokeAnyway', 'deleteSince', 'targetIsGone', 'deletedAt'),
        ),
        parameters(['DeleteParameter'], 'directives'),
        keepNotes('findings/retire', 'former-targets', 'gone-targets'),
        onNotes(['Query'], 'former-targets', 'gone-targets', 'settled'),
        onNotes(['GetItem'], 'members'),
        onNotes(['PutItem'], 'settled'),
        listSecrets,
        onNotes(['DeleteItem', 'PutItem', 'Query'], 'deletions/*'),
        onNotes(['DeleteItem', 'GetItem', 'PutItem', 'Query'], 'sessions/*'),
        onNotes(['DeleteItem', 'GetItem', 'PutItem'], 'revocations'),
        onNotes(['DeleteItem'], 'findings/consumers', 'findings/reconcile', 'users'),
        onSecrets(
          'CancelRotateSecret',
          'DeleteSecret',
          'DescribeSecret',
          'GetSecretValue',
          'ListSecretVersionIds',
        ),
        giveUpRotations,
        neverChange(
          'CancelRotateSecret',
          'DeleteSecret',
          'DescribeSecret',
          'ListSecretVersionIds',
          'UpdateSecretVersionStage',
        ),
        secretStatement('Deny', ['DeleteSecret'], secrets, {
          Bool: { 'secretsmanager:ForceDeleteWithoutRecovery': ['true'] },
        }),
        neverRead('adopt/', 'webhooks/'),
        workOn('DeleteUserEvents'),
        ...publish,
        reportFailure,
        writeLog('rekey-delete-user'),
      ],
    },
    'receive-webhook reads the secrets of webhooks, and publishes': {
      name: 'rekey-receive-webhook',
      want: [
        statement('Allow', ['secretsmanager:GetSecretValue'], [secretsUnder('webhooks/')], onlyCurrent),
        ...publish,
        writeLog('rekey-receive-webhook'),
      ],
    },
    'reconcile-users mends secrets, orders rotations, and works on its queues': {
      name: 'rekey-reconcile-users',
      want: [
        readFleet,
        readWhatIsWanted,
        statement('Allow', ['ssm:PutParameter'], orders('rotateBefore', 'changeBefore')),
        keepNotes('findings/reconcile', 'former-targets', 'members'),
        onNotes(['Query'], 'former-targets', 'looks', 'members'),
        onNotes(['GetItem', 'PutItem'], 'looks', 'users', 'webhooks'),
        listSecrets,
        onSecrets(
          'DescribeSecret',
          'GetSecretValue',
          'ListSecretVersionIds',
          'PutSecretValue',
          'UpdateSecretVersionStage',
        ),
        neverChange('DescribeSecret', 'ListSecretVersionIds', 'PutSecretValue', 'UpdateSecretVersionStage'),
        neverRead('adopt/', 'webhooks/'),
        sendTo('Targets', 'UrgentTargets'),
        workOn('ReconcileUsersEvents', 'Targets', 'UrgentTargets'),
        ...publish,
        reportFailure,
        writeLog('rekey-reconcile-users'),
      ],
    },
    'update-consumers reads specs, logins and keys, and changes no secret': {
      name: 'rekey-update-consumers',
      want: [
        readWhatIsWanted,
        keepNotes('findings/consumers'),
        onSecrets('DescribeSecret'),
        secretStatement('Allow', ['GetSecretValue'], secrets, onlyCurrent),
        neverChange('DescribeSecret'),
        neverRead('admin/', 'adopt/', 'webhooks/'),
        workOn('UpdateConsumersEvents'),
        ...publish,
        reportFailure,
        writeLog('rekey-update-consumers'),
      ],
    },
    'record-audit adds to its bucket, and can take nothing away, whatever it is given one day': {
      name: 'rekey-record-audit',
      want: [
        statement('Allow', ['s3:GetObject', 's3:PutObject'], ['s3:::rekey-[a-z0-9-]*/\\*']),
        statement('Allow', ['s3:ListBucket'], ['s3:::rekey-[a-z0-9-]*']),
        statement(
          'Deny',
          [
            's3:BypassGovernanceRetention',
            's3:DeleteObject*',
            's3:PutObjectLegalHold',
            's3:PutObjectRetention',
          ],
          ['s3:::rekey-[a-z0-9-]*/\\*'],
        ),
        neverOrder,
        reportFailure,
        writeLog('rekey-record-audit'),
      ],
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { name, want }) => {
    expect(functionNamed(name).roleStatements.map(({ sid: _sid, ...statement }) => statement)).toEqual(want);
  });

  test('the table above has every function', () => {
    expect(stack.functions.map(({ name }) => name)).toEqual(Object.values(cases).map(({ name }) => name));
  });

  test('nothing is allowed on everything, but to list the names of secrets', () => {
    const onEverything = Object.values(template.findResources('AWS::IAM::Policy'))
      .flatMap(({ Properties }) => Properties.PolicyDocument.Statement)
      .filter(({ Resource }: { Resource: unknown }) => [Resource].flat().includes('*'));
    expect(onEverything).toEqual(
      ['start-rotations', 'delete-user', 'reconcile-users'].map(() => ({
        Sid: 'ListSecrets',
        Effect: 'Allow',
        Action: 'secretsmanager:ListSecrets',
        Resource: '*',
      })),
    );
    template.allResourcesProperties('AWS::IAM::Role', { ManagedPolicyArns: Match.absent() });
  });

  test('the buses of consumers are named one by one, those of credentials requested later included', async () => {
    const { template: made } = await synthesize(
      { consumerBuses: ['billing', 'orders'] },
      (rekey) =>
        new DatabaseCredential(rekey, 'told', {
          rekey,
          credentialName: 'told',
          target: new CockroachDb(rekey, 'CockroachDb').cluster('0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10'),
          usernamePrefix: 'told',
          consumers: [Consumer.eventBus('orders')],
        }),
    );
    const telling = Object.values(made.findResources('AWS::IAM::Policy')).flatMap(({ Properties }) =>
      Properties.PolicyDocument.Statement.filter(({ Sid }: { Sid: string }) => Sid === 'TellConsumers').map(
        ({ Action, Resource }: { Action: string; Resource: unknown[] }) => [
          Properties.Roles[0].Ref.replace(/Role[0-9A-F]{8}$/, ''),
          Action,
          Resource.map((each) => JSON.stringify(each).match(/event-bus\/(\w+)/)?.[1]),
        ],
      ),
    );
    expect(telling).toEqual([
      ['RekeyReconcileUsers', 'events:PutEvents', ['billing', 'orders']],
      ['RekeyUpdateConsumers', 'events:PutEvents', ['billing', 'orders']],
    ]);
  });
});

test('the local stand-ins know every resource of the stack', () => {
  expect(stack.unknown).toEqual([]);
});

test('the same sources give the same template', async () => {
  expect((await synthesize()).template.toJSON()).toEqual(template.toJSON());
});
