import { readFileSync } from 'node:fs';
import { App, Duration, Stack } from 'aws-cdk-lib';
import { Match, Template } from 'aws-cdk-lib/assertions';
import { SubnetType, Vpc } from 'aws-cdk-lib/aws-ec2';
import { ManagedPolicy, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Key } from 'aws-cdk-lib/aws-kms';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { AwsSolutionsChecks, ServerlessChecks } from 'cdk-nag';
import { describe, expect, test } from 'vitest';
import * as z from 'zod';
import { createUserEnvironment, parseEnvironment } from '../../functions/runtime/env.ts';
import { CockroachDb } from '../../infra/accounts.ts';
import { DatabaseCredential } from '../../infra/database-credential.ts';
import { FixedEgress, type FixedEgressProps } from '../../infra/fixed-egress.ts';
import { Rekey, type RekeyProps } from '../../infra/rekey.ts';

const { context } = z
  .object({ context: z.record(z.string(), z.unknown()) })
  .parse(JSON.parse(readFileSync(new URL('../../cdk.json', import.meta.url), 'utf8')));
const env = { account: '111122223333', region: 'eu-central-1' };
const arnOfKey = (region: string, id = 'mrk-0a1b2c3d4e5f60718293a4b5c6d7e8f9'): string =>
  `arn:aws:kms:${region}:111122223333:key/${id}`;
const keyOf = (stack: Stack, region = env.region) => Key.fromKeyArn(stack, `Key-${region}`, arnOfKey(region));

/** rekey with one credential and these options. `known` says where it is deployed. */
function stackWith(
  options: (stack: Stack) => Partial<RekeyProps> = () => ({}),
  { known = true, validate = false }: { known?: boolean; validate?: boolean } = {},
) {
  // With the feature flags of the deployment: some of them change policies.
  const app = new App({ context, builtinCloudFormationValidation: validate });
  const stack = new Stack(app, 'Rekey', known ? { env } : {});
  const rekey = new Rekey(stack, 'Rekey', { code: Code.fromAsset(import.meta.dirname), ...options(stack) });
  const credential = new DatabaseCredential(rekey, 'orders', {
    rekey,
    credentialName: 'orders',
    target: new CockroachDb(rekey, 'CockroachDb').cluster('0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10'),
    usernamePrefix: 'orders',
  });
  return { stack, rekey, credential };
}
const templateWith = (...given: Parameters<typeof stackWith>): Template =>
  Template.fromStack(stackWith(...given).stack);

interface Statement {
  readonly Sid?: string;
  readonly Effect: string;
  readonly Action: string | readonly string[];
  readonly Resource: unknown;
  readonly Condition?: unknown;
}
/** Statements of the role of `<id>Role` whose Sid this is. */
const statementsOf = (template: Template, id: string, sid: RegExp): readonly Statement[] =>
  Object.entries(template.findResources('AWS::IAM::Policy'))
    .filter(([logicalId]) => logicalId.startsWith(`Rekey${id}RoleDefaultPolicy`))
    .flatMap(([, { Properties }]) => Properties.PolicyDocument.Statement as Statement[])
    .filter(({ Sid = '' }) => sid.test(Sid));
const actionsOf = (statements: readonly Statement[]) => statements.flatMap(({ Action }) => Action);
const handlers = [
  'RotateSecret',
  'CreateUser',
  'StartRotations',
  'DeleteUser',
  'ReconcileUsers',
  'UpdateConsumers',
  'ReceiveWebhook',
  'RecordAudit',
] as const;

const environmentOf = (template: Template, handler: string): Record<string, unknown> =>
  Object.values(
    template.findResources('AWS::Lambda::Function', { Properties: { FunctionName: handler } }),
  )[0]?.['Properties'].Environment.Variables;

/** A value of the template without references. */
const textOf = (value: unknown): string => z.string().parse(value);

/** What the synthesis says is wrong. */
function refusal(options: (stack: Stack) => Partial<RekeyProps>, known = true): string {
  try {
    templateWith(options, { known });
  } catch (error) {
    if (error instanceof Error) return error.message;
  }
  throw new Error('expected the synthesis to fail');
}

describe('without an option', () => {
  const template = templateWith();

  test('secrets lie under the key that AWS manages, in their own Region only', () => {
    template.hasResourceProperties('AWS::SecretsManager::Secret', {
      KmsKeyId: Match.absent(),
      ReplicaRegions: Match.absent(),
    });
    expect(JSON.stringify(environmentOf(template, 'rekey-create-user'))).not.toMatch(/KEY_ARN|REPLICAS/);
  });

  test('no role may use a key, replicate a secret, or join a network', () => {
    const policies = JSON.stringify(template.findResources('AWS::IAM::Policy'));
    expect(policies).not.toMatch(/kms:|Replic|ec2:/);
  });

  test('there is no network, and no role has a boundary', () => {
    template.resourceCountIs('AWS::EC2::SecurityGroup', 0);
    template.allResourcesProperties('AWS::Lambda::Function', { VpcConfig: Match.absent() });
    template.allResourcesProperties('AWS::IAM::Role', { PermissionsBoundary: Match.absent() });
  });
});

describe('with a key of your own', () => {
  const template = templateWith((stack) => ({ encryptionKey: keyOf(stack) }));
  const viaSecretsManager = {
    StringEquals: { 'kms:ViaService': ['secretsmanager.eu-central-1.amazonaws.com'] },
  };

  test('a declared secret and one requested on the bus lie under it', () => {
    template.hasResourceProperties('AWS::SecretsManager::Secret', { KmsKeyId: arnOfKey(env.region) });
    expect(environmentOf(template, 'rekey-create-user')).toMatchObject({
      REKEY_SECRET_KEY_ARN: arnOfKey(env.region),
    });
  });

  test.each(['RotateSecret', 'CreateUser', 'ReconcileUsers'])(
    '%s reads and writes under it, through Secrets Manager only',
    (id) => {
      expect(statementsOf(template, id, /UnderKey/)).toEqual([
        {
          Sid: 'ReadAndWriteUnderKey',
          Effect: 'Allow',
          Action: ['kms:Decrypt', 'kms:GenerateDataKey'],
          Resource: arnOfKey(env.region),
          Condition: viaSecretsManager,
        },
      ]);
    },
  );

  test.each(['DeleteUser', 'UpdateConsumers', 'ReceiveWebhook'])('%s only reads under it', (id) => {
    expect(statementsOf(template, id, /UnderKey/)).toEqual([
      {
        Sid: 'ReadUnderKey',
        Effect: 'Allow',
        Action: 'kms:Decrypt',
        Resource: arnOfKey(env.region),
        Condition: viaSecretsManager,
      },
    ]);
  });

  test.each(['StartRotations', 'RecordAudit'])(
    '%s, which reads no secret, has nothing to do with it',
    (id) => {
      expect(
        actionsOf(statementsOf(template, id, /./)).filter((action) => action.startsWith('kms:')),
      ).toEqual([]);
    },
  );

  test('whoever is let read a login may use it for that', () => {
    const { stack, credential } = stackWith((made) => ({ encryptionKey: keyOf(made) }));
    const reader = new Role(stack, 'Reader', { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
    credential.grantRead(reader);
    const existing = DatabaseCredential.fromName(stack, 'Existing', 'billing', {
      encryptionKey: Key.fromKeyArn(stack, 'Another', arnOfKey(env.region, 'another')),
    });
    existing.grantRead(reader);
    const decryption = Object.entries(Template.fromStack(stack).findResources('AWS::IAM::Policy'))
      .filter(([logicalId]) => logicalId.startsWith('ReaderDefaultPolicy'))
      .flatMap(([, { Properties }]) => Properties.PolicyDocument.Statement as Statement[])
      .filter(({ Action }) => Action === 'kms:Decrypt');
    expect(decryption).toEqual([
      {
        Effect: 'Allow',
        Action: 'kms:Decrypt',
        Resource: [arnOfKey(env.region, 'another'), arnOfKey(env.region)],
        Condition: { StringEquals: { 'kms:ViaService': 'secretsmanager.eu-central-1.amazonaws.com' } },
      },
    ]);
  });

  test('a key of the same app is referred to', () => {
    const made = templateWith((stack) => ({ encryptionKey: new Key(stack, 'Own') }), { known: false });
    made.hasResourceProperties('AWS::SecretsManager::Secret', {
      KmsKeyId: { 'Fn::GetAtt': [Match.stringLikeRegexp('^Own'), 'Arn'] },
    });
  });

  test('all else stays under keys of AWS: the audit trail ends with no key of yours', () => {
    template.hasResourceProperties('AWS::S3::Bucket', {
      BucketEncryption: {
        ServerSideEncryptionConfiguration: [{ ServerSideEncryptionByDefault: { SSEAlgorithm: 'AES256' } }],
      },
    });
    template.allResourcesProperties('AWS::SQS::Queue', { KmsMasterKeyId: Match.absent() });
    template.allResourcesProperties('AWS::Logs::LogGroup', { KmsKeyId: Match.absent() });
  });
});

describe('with replicas in other Regions', () => {
  const template = templateWith(() => ({
    replicaRegions: [{ region: 'eu-west-1' }, { region: 'us-east-1' }],
  }));

  test('a declared secret has them, and create-user is told of them', () => {
    template.hasResourceProperties('AWS::SecretsManager::Secret', {
      ReplicaRegions: [{ Region: 'eu-west-1' }, { Region: 'us-east-1' }],
    });
    const {
      REKEY_REPLICAS,
      REKEY_ROTATION_FUNCTION_ARN: _,
      REKEY_LOST_REQUEST_QUEUE_URL: __,
      REKEY_NOTE_TABLE_NAME: ___,
      ...others
    } = environmentOf(template, 'rekey-create-user');
    expect(
      parseEnvironment(createUserEnvironment, {
        ...(others as Record<string, string>),
        REKEY_EVENT_BUS_NAME: 'rekey',
        REKEY_ROTATION_FUNCTION_ARN: 'arn:aws:lambda:eu-central-1:111122223333:function:rekey-rotate-secret',
        REKEY_LOST_REQUEST_QUEUE_URL: 'https://sqs.eu-central-1.amazonaws.com/111122223333/lost-requests',
        REKEY_NOTE_TABLE_NAME: 'rekey',
        REKEY_REPLICAS: textOf(REKEY_REPLICAS),
      }).REKEY_REPLICAS,
    ).toEqual([{ region: 'eu-west-1' }, { region: 'us-east-1' }]);
  });

  test('create-user may make them and delete-user take them away, nobody else, and of credentials only', () => {
    const may = (action: string) =>
      handlers.filter((id) => actionsOf(statementsOf(template, id, /^(?!Never)/)).includes(action));
    expect(may('secretsmanager:ReplicateSecretToRegions')).toEqual(['CreateUser']);
    expect(may('secretsmanager:RemoveRegionsFromReplication')).toEqual(['DeleteUser']);
    for (const [id, action] of [
      ['CreateUser', 'secretsmanager:ReplicateSecretToRegions'],
      ['DeleteUser', 'secretsmanager:RemoveRegionsFromReplication'],
    ] as const)
      expect(actionsOf(statementsOf(template, id, /^NeverChangeWhatPeopleKeep$/))).toContain(action);
  });

  test('create-user never takes what has the same name there for a replica: that login would be gone', () => {
    expect(statementsOf(template, 'CreateUser', /^NeverOverwriteInOtherRegions$/)).toMatchObject([
      {
        Effect: 'Deny',
        Action: ['secretsmanager:CreateSecret', 'secretsmanager:ReplicateSecretToRegions'],
        Condition: { Bool: { 'secretsmanager:ForceOverwriteReplicaSecret': 'true' } },
      },
    ]);
  });

  test('each under its key, which writers use through Secrets Manager of that Region only', () => {
    const made = templateWith((stack) => ({
      encryptionKey: keyOf(stack),
      replicaRegions: [{ region: 'eu-west-1', encryptionKey: keyOf(stack, 'eu-west-1') }],
    }));
    made.hasResourceProperties('AWS::SecretsManager::Secret', {
      ReplicaRegions: [{ Region: 'eu-west-1', KmsKeyId: arnOfKey('eu-west-1') }],
    });
    expect(JSON.parse(textOf(environmentOf(made, 'rekey-create-user')['REKEY_REPLICAS']))).toEqual([
      { region: 'eu-west-1', keyArn: arnOfKey('eu-west-1') },
    ]);
    expect(handlers.filter((id) => statementsOf(made, id, /^ReplicateUnderKeys$/).length > 0)).toEqual([
      'RotateSecret',
      'CreateUser',
      'ReconcileUsers',
    ]);
    expect(statementsOf(made, 'RotateSecret', /^ReplicateUnderKeys$/)).toEqual([
      {
        Sid: 'ReplicateUnderKeys',
        Effect: 'Allow',
        Action: ['kms:Encrypt', 'kms:GenerateDataKey'],
        Resource: arnOfKey('eu-west-1'),
        Condition: { StringEquals: { 'kms:ViaService': ['secretsmanager.eu-west-1.amazonaws.com'] } },
      },
    ]);
  });

  test('a credential of another app gets what that app says that rekey has', () => {
    const stack = new Stack(new App({ context, builtinCloudFormationValidation: false }), 'Orders', { env });
    const rekey = Rekey.fromAccount(stack, 'Rekey', {
      encryptionKey: keyOf(stack),
      replicaRegions: [{ region: 'eu-west-1', encryptionKey: keyOf(stack, 'eu-west-1') }],
    });
    new DatabaseCredential(stack, 'Orders', {
      rekey,
      credentialName: 'orders',
      target: new CockroachDb(stack, 'CockroachDb').cluster('0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10'),
      usernamePrefix: 'orders',
    });
    Template.fromStack(stack).hasResourceProperties('AWS::SecretsManager::Secret', {
      KmsKeyId: arnOfKey(env.region),
      ReplicaRegions: [{ Region: 'eu-west-1', KmsKeyId: arnOfKey('eu-west-1') }],
    });
  });
});

describe('in a network of fixed addresses', () => {
  const inNetwork = (egress: FixedEgressProps = {}) =>
    stackWith((stack) => ({ vpc: new FixedEgress(stack, 'Egress', egress).vpc }), { known: false });
  const { stack } = inNetwork();
  const template = Template.fromStack(stack);
  const idOf = (type: string): string => Object.keys(template.findResources(type))[0] ?? '';

  test('every function is in the private subnets, and in one security group', () => {
    const privateSubnets = Object.keys(template.findResources('AWS::EC2::Subnet')).filter((id) =>
      id.includes('Private'),
    );
    expect(privateSubnets).toHaveLength(2);
    template.resourcePropertiesCountIs(
      'AWS::Lambda::Function',
      {
        VpcConfig: {
          SubnetIds: privateSubnets.map((Ref) => ({ Ref })),
          SecurityGroupIds: [{ 'Fn::GetAtt': [idOf('AWS::EC2::SecurityGroup'), 'GroupId'] }],
        },
      },
      handlers.length,
    );
  });

  test('the security group lets out, and nobody in', () => {
    template.resourceCountIs('AWS::EC2::SecurityGroup', 1);
    template.resourceCountIs('AWS::EC2::SecurityGroupIngress', 0);
    template.hasResourceProperties('AWS::EC2::SecurityGroup', {
      SecurityGroupEgress: [{ CidrIp: '0.0.0.0/0', IpProtocol: '-1' }],
      SecurityGroupIngress: Match.absent(),
    });
  });

  test('Lambda may make the interfaces with every role, and no function may by itself', () => {
    const actions = [
      'ec2:AssignPrivateIpAddresses',
      'ec2:CreateNetworkInterface',
      'ec2:DeleteNetworkInterface',
      'ec2:DescribeNetworkInterfaces',
      'ec2:DescribeSubnets',
      'ec2:UnassignPrivateIpAddresses',
    ];
    for (const id of handlers) {
      const [joins, never, ...others] = statementsOf(template, id, /Network|ByItself/);
      expect(others).toEqual([]);
      expect(joins).toEqual({
        Sid: 'LambdaJoinsTheNetwork',
        Effect: 'Allow',
        Action: actions,
        Resource: '*',
      });
      expect(never).toMatchObject({ Effect: 'Deny', Action: actions, Resource: '*' });
      const handler = id.replaceAll(/(?<!^)([A-Z])/g, '-$1').toLowerCase();
      expect(JSON.stringify(never?.Condition)).toContain(`:function:rekey-${handler}"`);
    }
  });

  test('Lambda tries the role at once, so it is there with its policy before the function', () => {
    for (const { DependsOn } of Object.values(template.findResources('AWS::Lambda::Function')))
      expect(DependsOn).toEqual(expect.arrayContaining([expect.stringMatching(/RoleDefaultPolicy/)]));
  });

  test('all go out by one address, which is yours until you release it, and which the stack tells', () => {
    const address = idOf('AWS::EC2::EIP');
    template.resourceCountIs('AWS::EC2::EIP', 1);
    template.resourceCountIs('AWS::EC2::NatGateway', 1);
    template.hasResource('AWS::EC2::EIP', { DeletionPolicy: 'Retain', UpdateReplacePolicy: 'Retain' });
    template.hasResourceProperties('AWS::EC2::NatGateway', {
      AllocationId: { 'Fn::GetAtt': [address, 'AllocationId'] },
    });
    expect(Object.values(template.findOutputs('*'))).toContainEqual(
      expect.objectContaining({ Value: { 'Fn::GetAtt': [address, 'PublicIp'] } }),
    );
  });

  test('or by two, one a zone', () => {
    const two = Template.fromStack(inNetwork({ natGateways: 2, cidr: '172.16.4.0/24' }).stack);
    two.resourceCountIs('AWS::EC2::EIP', 2);
    two.resourceCountIs('AWS::EC2::NatGateway', 2);
    two.hasResourceProperties('AWS::EC2::VPC', { CidrBlock: '172.16.4.0/24' });
    const subnets = Object.values(two.findResources('AWS::EC2::NatGateway')).map(
      ({ Properties }) => Properties.SubnetId.Ref,
    );
    expect(new Set(subnets).size).toBe(2);
  });

  test('nothing else is made than a network: no function, no role, and no public address for anything in it', () => {
    const own = Template.fromStack(
      (() => {
        const made = new Stack(new App({ context, builtinCloudFormationValidation: false }), 'Egress');
        new FixedEgress(made, 'Egress');
        return made;
      })(),
    );
    own.resourceCountIs('AWS::Lambda::Function', 0);
    own.resourceCountIs('AWS::IAM::Role', 0);
    own.allResourcesProperties('AWS::EC2::Subnet', { MapPublicIpOnLaunch: false });
  });

  test('cdk-nag has nothing to say that is not answered', () => {
    const found = [new AwsSolutionsChecks(), new ServerlessChecks()].flatMap(
      (pack) => pack.validateScope(inNetwork().stack).violations,
    );
    expect(found.map(({ ruleName }) => ruleName)).toEqual([]);
  });

  test.each<[string, FixedEgressProps, RegExp]>([
    ['no gateway', { natGateways: 0 }, /natGateways: expected 1 or 2, got 0; /],
    ['more gateways than zones', { natGateways: 3 }, /natGateways: expected 1 or 2, got 3; /],
    [
      'a network of others',
      { cidr: '8.8.8.0/24' },
      /cidr: expected a private network of \/16 to \/26, got "8\.8\.8\.0\/24"; /,
    ],
    ['a network too small', { cidr: '10.0.0.0/27' }, /cidr: expected a private network/],
    ['no network', { cidr: 'ten' }, /cidr: expected a private network/],
  ])('%s is refused at synthesis', (_what, egress, message) => {
    const { stack: made } = inNetwork(egress);
    expect(() => Template.fromStack(made)).toThrow(
      /Validation failed with the following errors:\s+\[Rekey\/Egress\] /,
    );
    expect(() => Template.fromStack(made)).toThrow(message);
  });
});

test('in a network of yours, the functions are in the subnets that you name', () => {
  const template = templateWith(
    (stack) => {
      const vpc = new Vpc(stack, 'Vpc', {
        restrictDefaultSecurityGroup: false,
        subnetConfiguration: [
          { name: 'Public', subnetType: SubnetType.PUBLIC },
          { name: 'One', subnetType: SubnetType.PRIVATE_WITH_EGRESS },
          { name: 'Two', subnetType: SubnetType.PRIVATE_WITH_EGRESS },
        ],
      });
      return { vpc, vpcSubnets: { subnetGroupName: 'Two' } };
    },
    { known: false },
  );
  for (const { Properties } of Object.values(template.findResources('AWS::Lambda::Function')))
    for (const { Ref } of Properties.VpcConfig.SubnetIds) expect(Ref).toMatch(/^VpcTwo/);
});

test('with a topic of yours, every alarm goes there, and no other topic or key is made', () => {
  const topicArn = 'arn:aws:sns:eu-central-1:111122223333:on-call';
  const { stack, rekey } = stackWith((made) => ({
    alarmTopic: Topic.fromTopicArn(made, 'OnCall', topicArn),
  }));
  const template = Template.fromStack(stack);
  template.allResourcesProperties('AWS::CloudWatch::Alarm', { AlarmActions: [topicArn] });
  for (const type of ['AWS::SNS::Topic', 'AWS::SNS::TopicPolicy', 'AWS::KMS::Key'])
    template.resourceCountIs(type, 0);
  expect(rekey.alarms.topic.topicArn).toBe(topicArn);
});

test('with a boundary, no role goes beyond it: those of functions, of schedules, and what is added later', () => {
  const boundary = 'arn:aws:iam::111122223333:policy/boundary';
  const { stack, rekey } = stackWith((made) => ({
    permissionsBoundary: ManagedPolicy.fromManagedPolicyArn(made, 'Boundary', boundary),
  }));
  new Role(rekey, 'Later', { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
  new Role(stack, 'Foreign', { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
  const roles = Object.entries(Template.fromStack(stack).findResources('AWS::IAM::Role'));
  expect(roles.length).toBeGreaterThan(handlers.length + 4);
  for (const [id, { Properties }] of roles)
    expect([id, Properties.PermissionsBoundary]).toEqual([
      id,
      id.startsWith('Foreign') ? undefined : boundary,
    ]);
});

test('what is kept is kept for as long as you say', () => {
  const template = templateWith(() => ({
    logRetention: 30,
    auditRetention: Duration.days(30),
    auditLock: 'compliance',
    eventRetention: Duration.days(14),
  }));
  template.allResourcesProperties('AWS::Logs::LogGroup', { RetentionInDays: 30 });
  template.hasResourceProperties('AWS::S3::Bucket', {
    ObjectLockConfiguration: { Rule: { DefaultRetention: { Mode: 'COMPLIANCE', Days: 30 } } },
  });
  template.hasResourceProperties('AWS::Events::Archive', { RetentionDays: 14 });
});

describe('a wrong value fails the synthesis with what to do:', () => {
  const cases: Record<string, { props: (stack: Stack) => Partial<RekeyProps>; at?: string; says: string }> = {
    'a key of another Region': {
      props: (stack) => ({ encryptionKey: keyOf(stack, 'us-east-1') }),
      says: 'encryptionKey: expected a key of eu-central-1, got one of us-east-1; give a key that is where the secrets are',
    },
    'a replica where the secret is': {
      props: () => ({ replicaRegions: [{ region: 'eu-central-1' }] }),
      says: 'replicaRegions.0.region: eu-central-1 is the Region of the stack, where every secret is; leave it out',
    },
    'a replica twice': {
      props: () => ({ replicaRegions: [{ region: 'eu-west-1' }, { region: 'eu-west-1' }] }),
      says: 'replicaRegions.1.region: eu-west-1 is there twice; leave one of them out',
    },
    'a Region that cannot be': {
      props: () => ({ replicaRegions: [{ region: 'Ireland' }] }),
      says: 'replicaRegions.0.region: expected a Region such as eu-west-1, known at synthesis; name the Region itself',
    },
    'a replica that would lose the key': {
      props: (stack) => ({ encryptionKey: keyOf(stack), replicaRegions: [{ region: 'eu-west-1' }] }),
      says: 'replicaRegions.0.encryptionKey: expected a key of eu-west-1, ',
    },
    'a key that is not of its replica': {
      props: (stack) => ({
        replicaRegions: [{ region: 'eu-west-1', encryptionKey: keyOf(stack, 'us-east-1') }],
      }),
      says: 'replicaRegions.0.encryptionKey: expected a key of eu-west-1, got one of us-east-1; ',
    },
    'subnets without their network': {
      props: () => ({ vpcSubnets: { subnetGroupName: 'Private' } }),
      says: 'vpcSubnets: expected a vpc that has them, got none; give the vpc, too',
    },
    'public subnets': {
      props: (stack) => ({
        vpc: new Vpc(stack, 'Vpc', {
          restrictDefaultSecurityGroup: false,
          availabilityZones: ['eu-central-1a'],
        }),
        vpcSubnets: { subnetType: SubnetType.PUBLIC },
      }),
      says: 'vpcSubnets: expected private subnets, got public ones, where a function reaches nothing outside; ',
    },
    'a proxy that is none': {
      props: () => ({ httpsProxy: 'proxy.internal:3128' }),
      says: 'httpsProxy: expected an http(s) URL, got something else; ',
    },
    'an ARN for the name of a bus': {
      props: () => ({ consumerBuses: ['arn:aws:events:eu-central-1:111122223333:event-bus/orders'] }),
      says: 'consumerBuses.0: expected the name of an event bus of this account, got "arn:',
    },
    'less than no foreign user': {
      props: () => ({ toleratedForeignUsers: -1 }),
      at: '/Alarms',
      says: 'toleratedForeignUsers: expected 0 or a whole number above, got -1; give how many belong there',
    },
    'a retention of half a day': {
      props: () => ({ auditRetention: Duration.hours(12), eventRetention: Duration.hours(36) }),
      at: '/Audit',
      says: 'auditRetention: expected whole days, at least one, got 12 hours; give it as Duration.days',
    },
  };
  test.each(Object.entries(cases))('%s', (_what, { props, at = '', says }) => {
    const message = refusal(props);
    expect(message).toMatch(/^Validation failed with the following errors:\n/);
    expect(message).toContain(`[Rekey/Rekey${at}] ${says}`);
  });

  test('all of them at once', () => {
    const message = refusal(() => ({
      httpsProxy: 'ftp://somebody:canary@proxy',
      auditRetention: Duration.hours(12),
      eventRetention: Duration.hours(36),
      replicaRegions: [{ region: 'x' }],
    }));
    for (const name of ['httpsProxy', 'auditRetention', 'eventRetention', 'replicaRegions.0.region'])
      expect(message).toContain(`] ${name}: `);
    expect(message).not.toContain('canary');
  });

  test('where a credential of another app names another key', () => {
    const stack = new Stack(new App({ context, builtinCloudFormationValidation: false }), 'Orders', { env });
    Rekey.fromAccount(stack, 'Rekey', { encryptionKey: keyOf(stack, 'us-east-1') });
    expect(() => Template.fromStack(stack)).toThrow(
      '[Orders/Rekey] encryptionKey: expected a key of eu-central-1',
    );
  });

  test('but not where it cannot be known before the deployment', () => {
    const template = templateWith(
      (stack) => ({
        encryptionKey: keyOf(stack, 'us-east-1'),
        replicaRegions: [{ region: 'eu-central-1', encryptionKey: new Key(stack, 'Token') }],
      }),
      { known: false },
    );
    template.resourceCountIs('AWS::SecretsManager::Secret', 1);
  });
});

test('all options together are fine by the rules that CDK brings', () => {
  templateWith(
    (stack) => ({
      encryptionKey: keyOf(stack),
      replicaRegions: [{ region: 'eu-west-1', encryptionKey: keyOf(stack, 'eu-west-1') }],
      vpc: new FixedEgress(stack, 'Egress').vpc,
      alarmTopic: new Topic(stack, 'OnCall', { enforceSSL: true }),
      permissionsBoundary: ManagedPolicy.fromManagedPolicyArn(
        stack,
        'Boundary',
        'arn:aws:iam::111122223333:policy/boundary',
      ),
    }),
    { known: false, validate: true },
  ).resourceCountIs('AWS::EC2::NatGateway', 1);
}, 60_000);
