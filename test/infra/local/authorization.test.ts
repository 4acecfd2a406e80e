import { describe, expect, test } from 'vitest';
import {
  createAuthorizer,
  idlePermissions,
  type Policy,
  type Principal,
} from '../../../infra/local/authorization.ts';
import type { Authorization } from '../../../infra/local/aws/service.ts';

const account = '111122223333';
const secret = (name: string) => `arn:aws:secretsmanager:eu-central-1:${account}:secret:${name}-AbCdEf`;
const queue = `arn:aws:sqs:eu-central-1:${account}:lost`;
const bucket = 'arn:aws:s3:::records';
const rotator = `arn:aws:lambda:eu-central-1:${account}:function:rotate`;
const runner: Principal = { role: 'Runner', session: 'rotate' };

type Statement = Policy['document']['Statement'][number];
const statement = (parts: object): Statement => ({ Effect: 'Allow', ...parts });
const may = (...Statement: readonly object[]): Policy => ({
  name: 'RunnerPolicy',
  of: { role: 'Runner' },
  document: { Statement: Statement.map(statement) },
});
const protecting = (resource: string, ...Statement: readonly object[]): Policy => ({
  name: 'Protection',
  of: { resource },
  document: { Statement: Statement.map(statement) },
});
const read = { Action: 'secretsmanager:GetSecretValue', Resource: secret('rekey/orders') };
const asked: Authorization = { action: 'secretsmanager:GetSecretValue', resource: secret('rekey/orders') };
const decide = (policies: readonly Policy[], authorization = asked, principal: Principal = runner) =>
  createAuthorizer({ account, policies }).evaluate(principal, authorization);

describe('IAM', () => {
  const rotated = { 'secretsmanager:resource/AllowRotationLambdaArn': rotator };
  const onlyRotated = may({ ...read, Condition: { StringEquals: rotated } });
  const events: Principal = { service: 'events.amazonaws.com' };
  const send = (context: Authorization['context'] = {}): Authorization => ({
    action: 'sqs:SendMessage',
    resource: queue,
    context,
  });
  const fromRule = protecting(queue, {
    Principal: { Service: 'events.amazonaws.com' },
    Action: 'sqs:SendMessage',
    Resource: queue,
    Condition: {
      StringEquals: { 'aws:SourceAccount': account },
      ArnLike: { 'aws:SourceArn': `arn:aws:events:*:${account}:rule/rekey/*` },
    },
  });
  const source = (sourceArn: string, sourceAccount = account) => ({
    'aws:SourceArn': sourceArn,
    'aws:SourceAccount': sourceAccount,
  });
  const rule = `arn:aws:events:eu-central-1:${account}:rule/rekey/changed`;
  const record: Authorization = {
    action: 's3:PutObject',
    resource: `${bucket}/audit/1.json`,
    context: { 's3:TlsVersion': '1.3' },
  };
  const write = may({ Action: 's3:PutObject', Resource: `${bucket}/*` });
  const trust = protecting(`arn:aws:iam::${account}:role/Scheduling`, {
    Principal: { Service: 'scheduler.amazonaws.com' },
    Action: 'sts:AssumeRole',
    Condition: { StringEquals: { 'aws:SourceArn': 'group' } },
  });
  const assume = (group: string): Authorization => ({
    action: 'sts:AssumeRole',
    resource: `arn:aws:iam::${account}:role/Scheduling`,
    context: { 'aws:SourceArn': group },
  });

  const cases: Record<
    string,
    { policies: readonly Policy[]; asked?: Authorization; by?: Principal; want: boolean }
  > = {
    'allows nothing without a statement': { policies: [], want: false },
    'allows what a statement names': { policies: [may(read)], want: true },
    'allows nothing to another role': {
      policies: [may(read)],
      by: { role: 'Other', session: 'rotate' },
      want: false,
    },
    'takes actions in other letters': {
      policies: [may({ ...read, Action: 'secretsmanager:getsecretvalue' })],
      want: true,
    },
    'knows wildcards': {
      policies: [
        may({ Action: 'secretsmanager:Get*', Resource: secret('rekey/*').replace('AbCdEf', '??????') }),
      ],
      want: true,
    },
    'does not take another resource for the one that was named': {
      policies: [may(read)],
      asked: { ...asked, resource: secret('rekey/billing') },
      want: false,
    },
    'lets a denial win': {
      policies: [may(read, { Effect: 'Deny', Action: '*', Resource: '*' })],
      want: false,
    },
    'weighs a condition that holds': {
      policies: [onlyRotated],
      asked: { ...asked, context: rotated },
      want: true,
    },
    'weighs a condition that does not hold': {
      policies: [onlyRotated],
      asked: { ...asked, context: { 'secretsmanager:resource/AllowRotationLambdaArn': `${rotator}-other` } },
      want: false,
    },
    'weighs a condition on what is not there': { policies: [onlyRotated], want: false },
    'lets a service in where the policy of a queue says so': {
      policies: [fromRule],
      asked: send(source(rule)),
      by: events,
      want: true,
    },
    'lets it in for no other rule': {
      policies: [fromRule],
      asked: send(source(rule.replace('rekey', 'other'))),
      by: events,
      want: false,
    },
    'lets it in for no other account': {
      policies: [fromRule],
      asked: send(source(rule, '999999999999')),
      by: events,
      want: false,
    },
    'lets no other service in': {
      policies: [fromRule],
      asked: send(source(rule)),
      by: { service: 'sns.amazonaws.com' },
      want: false,
    },
    'takes the policy of a bucket for that of its objects': {
      policies: [
        write,
        protecting(bucket, {
          Effect: 'Deny',
          Principal: '*',
          Action: 's3:*',
          Resource: [bucket, `${bucket}/*`],
          Condition: { NumericLessThan: { 's3:TlsVersion': 1.4 } },
        }),
      ],
      asked: record,
      want: false,
    },
    'takes every call for one over TLS': {
      policies: [may({ ...read, Condition: { Bool: { 'aws:SecureTransport': 'true' } } })],
      want: true,
    },
    'lets a service assume a role as its trust policy says': {
      policies: [trust],
      asked: assume('group'),
      by: { service: 'scheduler.amazonaws.com' },
      want: true,
    },
    'does not let it for another group': {
      policies: [trust],
      asked: assume('other-group'),
      by: { service: 'scheduler.amazonaws.com' },
      want: false,
    },
  };
  test.each(Object.entries(cases))('%s', async (_sentence, { policies, asked: authorization, by, want }) => {
    expect((await decide(policies, authorization, by)).allowed).toBe(want);
  });

  test('says who may not do what, and why, as AWS does', async () => {
    const who = `User: arn:aws:sts::${account}:assumed-role/Runner/rotate is not authorized to perform: secretsmanager:GetSecretValue on resource: ${asked.resource}`;
    expect(await decide([])).toEqual({
      allowed: false,
      message: `${who} because no identity-based policy allows the secretsmanager:GetSecretValue action`,
    });
    expect(await decide([may(read, { ...read, Effect: 'Deny' })])).toEqual({
      allowed: false,
      message: `${who} with an explicit deny in an identity-based policy`,
    });
    const denied = protecting(asked.resource, { ...read, Effect: 'Deny', Principal: '*' });
    expect(await decide([may(read), denied])).toEqual({
      allowed: false,
      message: `${who} with an explicit deny in a resource-based policy`,
    });
    expect(await decide([], send(), events)).toMatchObject({
      message: `User: events.amazonaws.com is not authorized to perform: sqs:SendMessage on resource: ${queue} because no resource-based policy allows the sqs:SendMessage action`,
    });
  });

  test('says which statement of which policy allowed it', async () => {
    const other = { Action: 'ssm:GetParameter', Resource: '*' };
    expect(await decide([may(other, { ...read, Sid: 'Read' })])).toEqual({
      allowed: true,
      grants: [{ policy: 'RunnerPolicy', index: 1, sid: 'Read' }],
    });
    expect(await decide([fromRule], send(source(rule)), events)).toEqual({
      allowed: true,
      grants: [{ policy: 'Protection', index: 0, sid: undefined }],
    });
  });
});

describe('what IAM itself would not take is a fault', () => {
  const policies: Record<string, { policy: Policy; message: string }> = {
    'an operator that does not exist, which would lose a denial': {
      policy: may({
        ...read,
        Effect: 'Deny',
        Condition: { StringEqualss: { 'aws:SourceAccount': account } },
      }),
      message: 'RunnerPolicy: StringEqualss is no condition operator',
    },
    'a statement of a role with a principal': {
      policy: may({ ...read, Principal: '*' }),
      message: 'RunnerPolicy: ',
    },
    'a statement of a resource without a principal, which would lose a denial as well': {
      policy: protecting(queue, { ...read, Effect: 'Deny' }),
      message: 'Protection: Statement.0 has no principal',
    },
  };
  test.each(Object.entries(policies))('%s', (_sentence, { policy, message }) => {
    expect(() => createAuthorizer({ account, policies: [policy] })).toThrow(message);
  });

  test('two policies of one resource, of which one would win', () => {
    const policy = protecting(queue, { Principal: '*', Action: 'sqs:SendMessage', Resource: queue });
    expect(() => createAuthorizer({ account, policies: [policy, policy] })).toThrow(
      `Protection: ${queue} has a policy already`,
    );
  });

  const questions: Record<string, { asked: Authorization; message: string }> = {
    'an action that does not exist': {
      asked: { action: 'sqs:SendMessageBatch', resource: queue },
      message: 'sqs:SendMessageBatch on ',
    },
    'many resources at once': {
      asked: { ...asked, resource: secret('rekey/*') },
      message: 'that is more than one resource',
    },
    'a key that the action does not know': {
      asked: { ...asked, context: { 's3:prefix': 'audit/' } },
      message: 'secretsmanager:GetSecretValue does not know s3:prefix',
    },
  };
  test.each(Object.entries(questions))(
    'a question about %s',
    async (_sentence, { asked: question, message }) => {
      const authorizer = createAuthorizer({ account, policies: [may({ Action: '*', Resource: '*' })] });
      await expect(authorizer.evaluate(runner, question)).rejects.toThrow(message);
      // A run must not pass for its sake.
      expect(await authorizer.decide(runner, question)).toMatchObject({ allowed: false });
      expect(authorizer.refusals).toEqual([expect.stringMatching(/^cannot be judged: /)]);
    },
  );
});

describe('the record of a run', () => {
  const policies = [
    may(
      {
        Sid: 'Read',
        Action: ['secretsmanager:GetSecretValue', 'secretsmanager:DescribeSecret'],
        Resource: '*',
      },
      { Sid: 'Twice', ...read },
      { Sid: 'List', Action: 'secretsmanager:ListSecrets', Resource: '*' },
      { Sid: 'Never', Effect: 'Deny', Action: 'secretsmanager:DeleteSecret', Resource: '*' },
      { Sid: 'Send', Action: 'sqs:SendMessage', Resource: queue },
    ),
    protecting(queue, {
      Sid: 'Rules',
      Principal: { Service: 'events.amazonaws.com' },
      Action: 'sqs:SendMessage',
      Resource: queue,
    }),
  ];
  const describeSecret = { ...asked, action: 'secretsmanager:DescribeSecret' };
  const deleteSecret = { ...asked, action: 'secretsmanager:DeleteSecret' };

  test('counts every decision, and has each refusal once; what was only asked about is not in it', async () => {
    const authorizer = createAuthorizer({ account, policies });
    await authorizer.evaluate(runner, deleteSecret);
    expect([authorizer.judged, authorizer.refusals]).toEqual([0, []]);
    for (const authorization of [asked, deleteSecret, asked, deleteSecret])
      await authorizer.decide(runner, authorization);
    expect(authorizer.judged).toBe(4);
    expect(authorizer.refusals).toEqual([expect.stringContaining('secretsmanager:DeleteSecret')]);
    expect(authorizer.granted).toHaveLength(1);
  });

  test('shows what nothing in it needed, a permission that there is twice included', async () => {
    const authorizer = createAuthorizer({ account, policies });
    await authorizer.decide(runner, asked);
    await authorizer.decide(runner, describeSecret);
    await authorizer.decide(runner, { action: 'sqs:SendMessage', resource: queue });
    const idle = await idlePermissions({ account, policies, granted: authorizer.granted });
    expect(idle.map(({ policy, sid, action }) => `${policy} ${sid} ${action}`)).toEqual([
      'RunnerPolicy Read secretsmanager:GetSecretValue',
      'RunnerPolicy Twice secretsmanager:GetSecretValue',
      'RunnerPolicy List secretsmanager:ListSecrets',
      'Protection Rules sqs:SendMessage',
    ]);
  });

  test('is waited for while a question is open', async () => {
    const authorizer = createAuthorizer({ account, policies });
    const decision = authorizer.decide(runner, asked);
    expect(authorizer.isBusy()).toBe(true);
    await authorizer.oneEnded();
    await decision;
    expect(authorizer.isBusy()).toBe(false);
    await authorizer.oneEnded();
  });
});
