import { App, Duration, Stack, Stage } from 'aws-cdk-lib';
import { Annotations, Match, Template } from 'aws-cdk-lib/assertions';
import { EventBus } from 'aws-cdk-lib/aws-events';
import { SqsQueue } from 'aws-cdk-lib/aws-events-targets';
import { Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';
import { describe, expect, test } from 'vitest';
import { CockroachDb, Render, Vultr, Zilliz } from '../../infra/accounts.ts';
import {
  Consumer,
  DatabaseCredential,
  type DatabaseCredentialProps,
  type RotationWindow,
} from '../../infra/database-credential.ts';
import { createAuthorizer } from '../../infra/local/authorization.ts';
import { Rekey } from '../../infra/rekey.ts';
import type { RekeySystem } from '../../infra/rekey-system.ts';

const home = { account: '111122223333', region: 'eu-central-1' };
const clusterId = '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10';
const code = () => Code.fromAsset(import.meta.dirname);
/** No bundle is made for a template that is not deployed. */
const newApp = () => new App({ context: { 'aws:cdk:bundling-stacks': [] } });

interface Given {
  readonly stack: Stack;
  readonly rekey: RekeySystem;
}
/** A stack of an app that finds rekey in its account. */
const given = (env: { account: string; region: string } | undefined = home): Given => {
  const stack = new Stack(newApp(), 'Orders', env === undefined ? {} : { env });
  return { stack, rekey: Rekey.fromAccount(stack, 'Rekey') };
};

/** On a CockroachDB cluster, with only what has to be said. */
const orders = (
  scope: Construct,
  rekey: RekeySystem,
  props: Partial<DatabaseCredentialProps> = {},
  id = 'Orders',
): DatabaseCredential =>
  new DatabaseCredential(scope, id, {
    rekey,
    credentialName: 'orders',
    target: new CockroachDb(scope, `${id}Account`).cluster(clusterId),
    usernamePrefix: 'orders',
    ...props,
  } as DatabaseCredentialProps);

const specIn = (stack: Stack): unknown => {
  const [parameter] = Object.values(Template.fromStack(stack).findResources('AWS::SSM::Parameter'));
  return JSON.parse(parameter?.['Properties'].Value);
};

const zilliz = (scope: Construct) => new Zilliz(scope, 'Zilliz').cluster('in01-0local0zilliz');
const render = (scope: Construct) => new Render(scope, 'Render').postgres('dpg-d0local0render0demo0-a');

/** What `cdk synth` would say, line by line. */
function refusalOf(app: App): readonly string[] {
  try {
    app.synth();
  } catch (error) {
    return String(error instanceof Error ? error.message : error)
      .split('\n')
      .map((line) => line.trim());
  }
  return [];
}
const headline = 'Validation failed with the following errors:';

describe('a declared credential', () => {
  test('is the spec that the functions read, each prop under its name there', () => {
    const stack = new Stack(newApp(), 'Orders', { env: home });
    const rekey = Rekey.fromAccount(stack, 'Rekey', { consumerBuses: ['orders'] });
    orders(stack, rekey, {
      strategy: 'alternate-users',
      privileges: { roles: ['orders_rw'], objectsOwner: 'orders_owner' },
      adminSecretName: 'rekey/admin/orders',
      rotationInterval: Duration.days(60),
      rotationWindow: { start: '22:00', length: Duration.hours(4), days: ['SA'], timeZone: 'Europe/Berlin' },
      blackouts: [{ from: '2026-12-20', to: '2027-01-03' }],
      gracePeriod: Duration.hours(36),
      drainDeadline: Duration.days(3),
      forceDrain: true,
      expiresAt: new Date('2028-12-31T18:00:00Z'),
      adopt: { username: 'orders_app', passwordSecretName: 'rekey/adopt/orders', retire: true },
      verify: 'login',
      consumers: [
        Consumer.eventBus('orders'),
        Consumer.renderService({
          account: new Render(stack, 'Render', { apiKeySecretName: 'rekey/api-keys/shop' }),
          serviceId: 'srv-d0local0render0demo0',
          environmentVariable: 'DATABASE_PASSWORD',
          field: 'password',
        }),
      ],
    });
    expect(specIn(stack)).toEqual({
      name: 'orders',
      provider: 'cockroachdb-cloud',
      target: { clusterId, database: 'defaultdb' },
      apiKeySecret: 'rekey/api-keys/cockroachdb',
      adminSecret: 'rekey/admin/orders',
      usernamePrefix: 'orders',
      strategy: 'alternate-users',
      privileges: { roles: ['orders_rw'], objectsOwner: 'orders_owner' },
      rotation: {
        every: 'P60D',
        window: { start: '22:00', length: 'PT4H', days: ['SA'], timeZone: 'Europe/Berlin' },
        blackouts: [{ from: '2026-12-20', to: '2027-01-03' }],
      },
      grace: 'P1DT12H',
      drain: { deadline: 'P3D', force: true },
      expiresAt: '2028-12-31T18:00:00.000Z',
      adopt: { username: 'orders_app', passwordSecret: 'rekey/adopt/orders', retire: true },
      verify: 'login',
      consumers: [
        { kind: 'event-bridge', busName: 'orders' },
        {
          kind: 'render-service',
          serviceId: 'srv-d0local0render0demo0',
          environmentVariable: 'DATABASE_PASSWORD',
          apiKeySecret: 'rekey/api-keys/shop',
          field: 'password',
        },
      ],
    });
  });

  test('has the defaults that the docstrings promise where nothing is said', () => {
    const { stack, rekey } = given();
    orders(stack, rekey);
    expect(specIn(stack)).toEqual({
      name: 'orders',
      provider: 'cockroachdb-cloud',
      target: { clusterId, database: 'defaultdb' },
      apiKeySecret: 'rekey/api-keys/cockroachdb',
      usernamePrefix: 'orders',
      strategy: 'replace-user',
      privileges: { roles: [] },
      rotation: { every: 'P30D', blackouts: [] },
      grace: 'PT24H',
      drain: { deadline: 'P7D', force: false },
      consumers: [],
      verify: 'login',
    });
  });

  const vendors: Record<string, { make: (scope: Construct, rekey: RekeySystem) => void; want: object }> = {
    'on Render': {
      make: (scope, rekey) =>
        new DatabaseCredential(scope, 'Made', {
          rekey,
          credentialName: 'made',
          target: render(scope),
          usernamePrefix: 'made',
          verify: 'none',
        }),
      want: {
        provider: 'render-postgres',
        target: { postgresId: 'dpg-d0local0render0demo0-a' },
        apiKeySecret: 'rekey/api-keys/render',
        verify: 'none',
      },
    },
    'on Vultr': {
      make: (scope, rekey) =>
        new DatabaseCredential(scope, 'Made', {
          rekey,
          credentialName: 'made',
          target: new Vultr(scope, 'Vultr').valkey('6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21'),
          usernamePrefix: 'made',
          privileges: { categories: ['+@read'], keys: ['orders:*'] },
        }),
      want: {
        provider: 'vultr-valkey',
        target: { databaseId: '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21' },
        apiKeySecret: 'rekey/api-keys/vultr',
        privileges: { categories: ['+@read'], commands: [], keys: ['orders:*'], channels: [] },
      },
    },
    'on Zilliz Cloud': {
      make: (scope, rekey) =>
        new DatabaseCredential(scope, 'Made', {
          rekey,
          credentialName: 'made',
          target: zilliz(scope),
          usernamePrefix: 'made',
          privileges: { roles: ['orders_rw'] },
        }),
      want: {
        provider: 'zilliz-cloud',
        target: { clusterId: 'in01-0local0zilliz' },
        apiKeySecret: 'rekey/api-keys/zilliz',
        privileges: { roles: ['orders_rw'] },
      },
    },
  };
  test.each(Object.entries(vendors))('%s names what the vendor names', (_where, { make, want }) => {
    const { stack, rekey } = given();
    make(stack, rekey);
    expect(specIn(stack)).toMatchObject(want);
  });

  test('may be in another stack than rekey, which is then deployed first', () => {
    const app = newApp();
    const rekey = new Rekey(new Stack(app, 'Rekey'), 'Rekey', { code: code() });
    const stack = new Stack(app, 'Orders');
    orders(stack, rekey);
    app.synth();
    expect(stack.dependencies.map(({ stackName }) => stackName)).toEqual(['Rekey']);
  });

  test('finds rekey of the account by its names alone, and waits for nothing but its own spec', () => {
    const { stack, rekey } = given();
    orders(stack, rekey);
    const template = Template.fromStack(stack);
    template.hasResource('AWS::SecretsManager::RotationSchedule', {
      Properties: {
        RotationLambdaARN: {
          'Fn::Join': [
            '',
            [
              'arn:',
              { Ref: 'AWS::Partition' },
              ':lambda:eu-central-1:111122223333:function:rekey-rotate-secret',
            ],
          ],
        },
        RotateImmediatelyOnUpdate: false,
      },
      DependsOn: [Match.stringLikeRegexp('^OrdersSpec')],
    });
    expect(
      Object.values(template.toJSON()['Resources']).map((each) => (each as { Type: string }).Type),
    ).toEqual([
      'AWS::SSM::Parameter',
      'AWS::SecretsManager::Secret',
      'AWS::SecretsManager::RotationSchedule',
    ]);
  });
});

describe('whoever is granted to read', () => {
  const reader = (stack: Stack) =>
    new Role(stack, 'App', { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
  const allowed = (stack: Stack) =>
    Object.values(Template.fromStack(stack).findResources('AWS::IAM::Policy')).flatMap(
      ({ Properties }) => Properties.PolicyDocument.Statement,
    );

  const published = {
    'ForAllValues:StringEquals': { 'secretsmanager:VersionStage': ['AWSCURRENT', 'AWSPREVIOUS'] },
    Null: { 'secretsmanager:VersionId': 'true' },
  };

  test('reads that secret and no other', () => {
    const { stack, rekey } = given();
    const granted = orders(stack, rekey);
    orders(stack, rekey, { credentialName: 'billing', usernamePrefix: 'billing' }, 'Billing');
    granted.grantRead(reader(stack));
    expect(allowed(stack)).toEqual([
      {
        Effect: 'Allow',
        Action: ['secretsmanager:GetSecretValue', 'secretsmanager:DescribeSecret'],
        Resource: {
          Ref: Object.keys(Template.fromStack(stack).findResources('AWS::SecretsManager::Secret'))[0],
        },
        Condition: published,
      },
    ]);
  });

  test('of one that another stack declared reads the secret of that name, whatever six characters end its ARN', () => {
    const { stack } = given();
    const { secretName, credentialName, grantRead } = DatabaseCredential.fromName(stack, 'Orders', 'orders');
    grantRead(reader(stack));
    expect([credentialName, secretName]).toEqual(['orders', 'rekey/orders']);
    expect(allowed(stack)).toEqual([
      {
        Effect: 'Allow',
        Action: ['secretsmanager:GetSecretValue', 'secretsmanager:DescribeSecret'],
        Resource: {
          'Fn::Join': [
            '',
            [
              'arn:',
              { Ref: 'AWS::Partition' },
              ':secretsmanager:eu-central-1:111122223333:secret:rekey/orders-??????',
            ],
          ],
        },
        Condition: published,
      },
    ]);
  });

  const stage = 'secretsmanager:VersionStage';
  const version = { 'secretsmanager:VersionId': '0d4f1c9a-2f4b-4c7e-9b53-6f0a1c2d3e4f' };
  const reads: Record<string, { context: Readonly<Record<string, string>>; allowed: boolean }> = {
    // A call that names no stage brings no condition key (aws/aws-cli#5031).
    'AWSCURRENT by default': { context: {}, allowed: true },
    'AWSCURRENT by name': { context: { [stage]: 'AWSCURRENT' }, allowed: true },
    AWSPREVIOUS: { context: { [stage]: 'AWSPREVIOUS' }, allowed: true },
    AWSPENDING: { context: { [stage]: 'AWSPENDING' }, allowed: false },
    'a stage of somebody’s own': { context: { [stage]: 'audit' }, allowed: false },
    // It may be the version that is still AWSPENDING.
    'a version, whatever its stage': { context: version, allowed: false },
    'a version under AWSPENDING': { context: { [stage]: 'AWSPENDING', ...version }, allowed: false },
    'a version under AWSCURRENT': { context: { [stage]: 'AWSCURRENT', ...version }, allowed: false },
  };
  const grants = {
    declared: (stack: Stack, rekey: RekeySystem) => orders(stack, rekey),
    'found by its name': (stack: Stack) => DatabaseCredential.fromName(stack, 'Orders', 'orders'),
  };
  describe.each(Object.entries(grants))('of a credential that was %s', (_how, found) => {
    const resource = `arn:aws:secretsmanager:${home.region}:${home.account}:secret:rekey/orders-AbCdEf`;
    function readerOf(): (action: string, context?: Readonly<Record<string, string>>) => Promise<boolean> {
      const { stack, rekey } = given();
      found(stack, rekey).grantRead(reader(stack));
      const Statement = allowed(stack).map((statement) => ({ ...statement, Resource: resource }));
      const { evaluate } = createAuthorizer({
        account: home.account,
        policies: [{ name: 'Granted', of: { role: 'App' }, document: { Statement } }],
      });
      return async (action, context = {}) =>
        (
          await evaluate(
            { role: 'App', session: 'app' },
            { action: `secretsmanager:${action}`, resource, context },
          )
        ).allowed;
    }

    test.each(Object.entries(reads))('reads published values only: %s', async (_what, read) => {
      expect(await readerOf()('GetSecretValue', read.context)).toBe(read.allowed);
    });

    test('describes the secret, which names no stage, and does nothing else', async () => {
      const may = readerOf();
      expect(await may('DescribeSecret')).toBe(true);
      expect(await may('PutSecretValue')).toBe(false);
      expect(await may('UpdateSecretVersionStage', { [stage]: 'AWSCURRENT' })).toBe(false);
    });
  });
});

describe('onEvent', () => {
  test('calls the target for what happens to this credential and no other', () => {
    const { stack, rekey } = given();
    const queue = new Queue(stack, 'Queue');
    orders(stack, rekey).onEvent('Rotated', { target: new SqsQueue(queue), types: ['CredentialRotated'] });
    Template.fromStack(stack).hasResourceProperties('AWS::Events::Rule', {
      EventBusName: 'rekey',
      EventPattern: {
        source: ['rekey'],
        'detail-type': ['CredentialRotated'],
        detail: { credential: ['orders'] },
      },
    });
  });

  test('takes every type where none is named', () => {
    const { stack, rekey } = given();
    orders(stack, rekey).onEvent('All', { target: new SqsQueue(new Queue(stack, 'Queue')) });
    Template.fromStack(stack).hasResourceProperties('AWS::Events::Rule', {
      EventPattern: { source: ['rekey'], detail: { credential: ['orders'] } },
    });
  });
});

describe('an event bus as consumer', () => {
  /** Buses on which each function may publish for consumers. */
  const told = (stack: Stack): unknown =>
    Object.values(Template.fromStack(stack).findResources('AWS::IAM::Policy')).flatMap(({ Properties }) =>
      Properties.PolicyDocument.Statement.filter(({ Sid }: { Sid?: string }) => Sid === 'TellConsumers').map(
        ({ Resource }: { Resource: unknown }) => JSON.stringify(Resource).match(/event-bus\/[\w-]+/g),
      ),
    );

  test('is one that the functions may publish on, named once for all who name it', () => {
    const stack = new Stack(newApp(), 'All', { env: home });
    const rekey = new Rekey(stack, 'Rekey', { code: code() });
    const consumers = [Consumer.eventBus('orders'), Consumer.eventBus('stock')];
    orders(stack, rekey, { consumers });
    orders(
      stack,
      rekey,
      { credentialName: 'billing', usernamePrefix: 'billing', consumers: [Consumer.eventBus('orders')] },
      'Billing',
    );
    const buses = ['event-bus/orders', 'event-bus/stock'];
    expect(told(stack)).toEqual([buses, buses]);
  });

  test('may be a bus of the app: the spec has the name that CloudFormation will give it', () => {
    const stack = new Stack(newApp(), 'All', { env: home });
    const rekey = Rekey.fromAccount(stack, 'Rekey', { consumerBuses: ['named', 'AllUnnamedE90E2AD9'] });
    const unnamed = new EventBus(stack, 'Unnamed');
    orders(stack, rekey, {
      consumers: [
        Consumer.eventBus(new EventBus(stack, 'Named', { eventBusName: 'named' })),
        Consumer.eventBus(unnamed),
        Consumer.eventBus(EventBus.fromEventBusName(stack, 'Found', 'named')),
      ],
    });
    expect(specIn(stack)).toMatchObject({
      consumers: [{ busName: 'named' }, { busName: 'AllUnnamedE90E2AD9' }, { busName: 'named' }],
    });
    Template.fromStack(stack).hasResourceProperties('AWS::Events::EventBus', { Name: 'AllUnnamedE90E2AD9' });
  });
});

describe('a wrong declaration fails at synth, and says what is wrong', () => {
  const long = Duration.days(20);
  const cases: Record<
    string,
    { readonly props: Partial<Record<string, unknown>>; readonly says: readonly string[] }
  > = {
    'a name that no secret can have': {
      props: { credentialName: 'Orders!' },
      says: ['credentialName: expected a lower-case letter, then up to 62 of a-z, 0-9 and hyphen'],
    },
    'a prefix that leaves no room for what rekey adds': {
      props: { usernamePrefix: 'orders_of_the_whole_shop' },
      says: [
        'usernamePrefix: expected a lower-case letter, then up to 18 of a-z, 0-9 and single underscores, not at the end; not pg, sso or crdb_internal',
      ],
    },
    'a strategy that nobody knows': {
      props: { strategy: 'guess' },
      says: [expect.stringMatching(/^strategy: invalid option/)] as unknown as string[],
    },
    'an interval that is not of whole days': {
      props: { rotationInterval: Duration.hours(36) },
      says: ['rotationInterval: expected 1 to 998 whole days as an ISO 8601 duration, such as P30D'],
    },
    'a grace longer than half of the interval': {
      props: { gracePeriod: long },
      says: [
        'gracePeriod: expected at most half of rotationInterval (P30D), got P20D; rotate less often, or shorten the grace',
      ],
    },
    'a window that opens at no time': {
      props: { rotationWindow: { start: '25:00', length: Duration.hours(3) } },
      says: ['rotationWindow.start: expected a time from 00:00 to 23:59'],
    },
    'a window longer than a day': {
      props: { rotationWindow: { start: '02:00', length: Duration.hours(25) } },
      says: ['rotationWindow.length: expected at most PT24H'],
    },
    'a window into which no pass falls': {
      props: { rotationWindow: { start: '02:00', length: Duration.minutes(5) } },
      says: [
        'rotationWindow.length: expected at least PT30M, so that a pass falls into it whenever passes come, got PT5M; lengthen the window',
      ],
    },
    'a window on no day, in a zone that does not exist': {
      props: {
        rotationWindow: { start: '02:00', length: Duration.hours(3), days: [], timeZone: 'Mars/Crater' },
      },
      says: [
        'rotationWindow.days: expected at least one day, or no field for every day',
        'rotationWindow.timeZone: expected a time zone of the IANA database, such as Europe/Berlin',
      ],
    },
    'a window that comes less often than the rotation': {
      props: {
        rotationInterval: Duration.days(3),
        rotationWindow: { start: '02:00', length: Duration.hours(3), days: ['SU'] },
      },
      says: [
        expect.stringMatching(/^rotationInterval: expected at least P8D, got P3D/),
      ] as unknown as string[],
    },
    'a blackout that ends before it begins': {
      props: { blackouts: [{ from: '2027-01-03', to: '2026-12-20' }] },
      says: [
        'blackouts.0.to: expected a day not before 2027-01-03, got 2026-12-20; exchange the two or correct one',
      ],
    },
    'an administrator who is kept where the functions may not read': {
      props: { adminSecretName: 'shop/admin' },
      says: [
        'adminSecretName: expected the name of a secret under rekey/admin/, where the functions may read it',
      ],
    },
    'a user to adopt whom rekey cannot address, with a password that it cannot read': {
      props: { adopt: { username: 'Orders-App', passwordSecretName: 'shop/orders' } },
      says: [
        'adopt.username: expected a lower-case letter, then up to 31 of a-z, 0-9 and underscore: rekey addresses no other names',
        'adopt.passwordSecretName: expected the name of a secret under rekey/adopt/, where the functions may read it',
      ],
    },
    'a role that makes an administrator of every user': {
      props: { privileges: { roles: ['admin'] } },
      says: [expect.stringMatching(/^privileges\.roles/)] as unknown as string[],
    },
    'a login that is not tried, where only a login can take rights away': {
      props: { verify: 'none' },
      says: [
        'verify: expected login, as only a login can take away the rights that cockroachdb-cloud gives a new user',
      ],
    },
    "a bus by its ARN, which could be another account's": {
      props: { consumers: [Consumer.eventBus('arn:aws:events:eu-central-1:444455556666:event-bus/orders')] },
      says: ['consumers.0.busName: expected the name of an event bus, not its ARN'],
    },
    'a bus on which the rekey of another app may not publish': {
      props: { consumers: [Consumer.eventBus('orders')] },
      says: [
        'consumers.0: rekey was deployed by another app and may not publish on orders; name it in the `consumerBuses` of that app, and in those of Rekey.fromAccount',
      ],
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { props, says }) => {
    const { stack, rekey } = given();
    const made = orders(stack, rekey, props as Partial<DatabaseCredentialProps>);
    expect(made.node.validate()).toEqual(says);
    // In CDK's own form, with the place of the credential in the app.
    const [first, ...errors] = refusalOf(stack.node.root as App);
    expect(first).toBe(headline);
    expect(errors).toEqual(made.node.validate().map((text) => `[Orders/Orders] ${text}`));
  });

  test('a strategy that the vendor has not', () => {
    const { stack, rekey } = given();
    const made = new DatabaseCredential(stack, 'Orders', {
      rekey,
      credentialName: 'orders',
      target: render(stack),
      usernamePrefix: 'orders',
      // As JavaScript would let it through.
      strategy: 'reset-password' as 'replace-user',
    });
    expect(made.node.validate()).toEqual([
      'strategy: expected one that render-postgres can do (replace-user), got reset-password',
    ]);
  });

  test('a database, an account and a consumer that are not what they should be', () => {
    const { stack, rekey } = given();
    const made = new DatabaseCredential(stack, 'Orders', {
      rekey,
      credentialName: 'orders',
      target: new Render(stack, 'Render', { apiKeySecretName: 'shop/render' }).postgres('orders-db'),
      usernamePrefix: 'orders',
      consumers: [
        Consumer.renderService({
          account: new Render(stack, 'Other', { apiKeySecretName: 'rekey/api-keys/other' }),
          serviceId: 'orders',
          environmentVariable: 'DATABASE URL',
        }),
      ],
    });
    expect(made.node.validate().map((text) => text.split(': expected')[0])).toEqual([
      'target: apiKeySecretName',
      'target.postgresId',
      'consumers.0.serviceId',
      'consumers.0.environmentVariable',
    ]);
  });

  test.each(['444455556666', 'eu-west-1'])('a consumer in %s', (place) => {
    const stack = new Stack(newApp(), 'Orders', { env: home });
    const env = place === 'eu-west-1' ? { ...home, region: place } : { ...home, account: place };
    const bus = EventBus.fromEventBusArn(
      stack,
      'Bus',
      `arn:aws:events:${env.region}:${env.account}:event-bus/orders`,
    );
    const rekey = Rekey.fromAccount(stack, 'Rekey', { consumerBuses: ['orders'] });
    expect(orders(stack, rekey, { consumers: [Consumer.eventBus(bus)] }).node.validate()).toEqual([
      `consumers.0: expected the account and Region of the credential (111122223333/eu-central-1), got ${env.account}/${env.region}; declare the credential in a stack there`,
    ]);
  });

  test('a rekey of another Region', () => {
    const app = newApp();
    const rekey = Rekey.fromAccount(
      new Stack(app, 'There', { env: { ...home, region: 'eu-west-1' } }),
      'Rekey',
    );
    expect(orders(new Stack(app, 'Orders', { env: home }), rekey).node.validate()).toEqual([
      'rekey: expected the account and Region of the credential (111122223333/eu-central-1), got 111122223333/eu-west-1; declare the credential in a stack there',
    ]);
  });

  test('two credentials with one name, and two with one prefix on one target, across stacks', () => {
    const app = newApp();
    const [first, second] = ['First', 'Second'].map((id) => new Stack(app, id, { env: home }));
    if (first === undefined || second === undefined) throw new Error('two stacks');
    orders(first, Rekey.fromAccount(first, 'Rekey'));
    const rekey = Rekey.fromAccount(second, 'Rekey');
    orders(second, rekey, { usernamePrefix: 'others' });
    orders(second, rekey, { credentialName: 'billing' }, 'Billing');
    expect(refusalOf(app)).toEqual([
      headline,
      '[Second/Orders] credentialName: another credential is called orders; give each a name of its own',
      `[Second/Billing] usernamePrefix: orders has orders on cockroachdb-cloud ${clusterId}, too; give one of them another prefix`,
    ]);
  });

  test('more rotations than the windows of a target have room for, told once, with the numbers', () => {
    const app = newApp();
    const [first, second] = ['First', 'Second'].map((id) => new Stack(app, id, { env: home }));
    if (first === undefined || second === undefined) throw new Error('two stacks');
    // Thirty minutes a week for one rotation a minute: 128 in 30 days.
    const rotationWindow: RotationWindow = { start: '02:00', length: Duration.minutes(30), days: ['SU'] };
    for (const [stack, from] of [
      [first, 0],
      [second, 100],
    ] as const) {
      const rekey = Rekey.fromAccount(stack, 'Rekey');
      const target = new CockroachDb(stack, 'Account').cluster(clusterId);
      for (let index = from; index < from + 100; index += 1)
        orders(
          stack,
          rekey,
          { credentialName: `orders-${index}`, usernamePrefix: `orders_${index}`, target, rotationWindow },
          `Orders${index}`,
        );
    }
    expect(refusalOf(app)).toEqual([
      headline,
      `[First/Orders0] rotationWindow: expected room for 200 rotations in 30 days, which 200 credentials of cockroachdb-cloud ${clusterId} (orders-0, orders-1, orders-2 and 197 more) need, got 128 in the window SU at 02:00 UTC for PT30M, as cockroachdb-cloud takes one rotation of a target at once, planned with 1 minute each; lengthen rotationWindow or open it on more days, raise rotationInterval, or spread the credentials over more targets`,
    ]);
  });

  test('every wrong field of every credential, at once', () => {
    const { stack, rekey } = given();
    const zones = { rotationWindow: { start: '2:00', length: Duration.hours(3) } };
    orders(stack, rekey, { ...zones, credentialName: 'Orders', usernamePrefix: '' });
    orders(stack, rekey, { ...zones, credentialName: 'billing', gracePeriod: Duration.days(40) }, 'Billing');
    expect(refusalOf(stack.node.root as App).map((line) => line.split(': expected')[0])).toEqual([
      headline,
      '[Orders/Orders] credentialName',
      '[Orders/Orders] usernamePrefix',
      '[Orders/Orders] rotationWindow.start',
      '[Orders/Billing] rotationWindow.start',
    ]);
  });
});

describe('a warning is given about', () => {
  const warningsOf = (stack: Stack) =>
    Annotations.fromStack(stack)
      .findWarning('*', Match.stringLikeRegexp('rekey:capacity'))
      .map(({ id, entry }) => [id, String(entry.data)]);
  const declare = (stack: Stack, count: number): void => {
    const rekey = Rekey.fromAccount(stack, 'Rekey');
    const target = new CockroachDb(stack, 'Account').cluster(clusterId);
    const rotationWindow: RotationWindow = { start: '02:00', length: Duration.minutes(30), days: ['SU'] };
    for (let index = 0; index < count; index += 1)
      orders(
        stack,
        rekey,
        { credentialName: `orders-${index}`, usernamePrefix: `orders_${index}`, target, rotationWindow },
        `Orders${index}`,
      );
  };

  test('rotations that hardly fit into the windows of their target, once', () => {
    const stack = new Stack(newApp(), 'Orders', { env: home });
    declare(stack, 100);
    expect(warningsOf(stack)).toEqual([
      [
        '/Orders/Orders0',
        expect.stringContaining(
          'rotationWindow: 100 credentials of cockroachdb-cloud 0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10 (orders-0, orders-1, orders-2 and 97 more) need 100 rotations in 30 days, 78 % of the 128 that fit in the window SU at 02:00 UTC for PT30M',
        ),
      ],
    ]);
  });

  test('none of those that fit, nor of the same in another stage', () => {
    const app = newApp();
    const stacks = ['Test', 'Live'].map((id) => new Stack(new Stage(app, id), 'Orders'));
    for (const stack of stacks) declare(stack, 60);
    for (const stack of stacks) expect(warningsOf(stack)).toEqual([]);
  });
});

describe('nothing is wrong about', () => {
  test('one prefix on two targets of one vendor or of two, and two prefixes on one', () => {
    const { stack, rekey } = given();
    orders(stack, rekey);
    orders(stack, rekey, { credentialName: 'billing', usernamePrefix: 'billing' }, 'Billing');
    new DatabaseCredential(stack, 'Vectors', {
      rekey,
      credentialName: 'vectors',
      target: zilliz(stack),
      usernamePrefix: 'orders',
    });
    const another = new CockroachDb(stack, 'Another').cluster(clusterId.replace('0b', '1b'));
    orders(stack, rekey, { credentialName: 'elsewhere', target: another }, 'Elsewhere');
    Template.fromStack(stack).resourceCountIs('AWS::SecretsManager::Secret', 4);
  });

  test('the same credentials in two stages, as each is of another account', () => {
    const app = newApp();
    for (const id of ['Test', 'Live']) {
      const stack = new Stack(new Stage(app, id), 'Orders');
      orders(stack, Rekey.fromAccount(stack, 'Rekey'));
    }
    expect(refusalOf(app)).toEqual([]);
  });

  test('the same credentials in two Regions', () => {
    const app = newApp();
    for (const region of ['eu-central-1', 'eu-west-1']) {
      const stack = new Stack(app, region, { env: { ...home, region } });
      orders(stack, Rekey.fromAccount(stack, 'Rekey'));
    }
    expect(refusalOf(app)).toEqual([]);
  });

  test('a stack that does not say where it is deployed, and a bus that does', () => {
    const stack = new Stack(newApp(), 'Orders');
    const bus = EventBus.fromEventBusArn(
      stack,
      'Bus',
      'arn:aws:events:eu-central-1:111122223333:event-bus/orders',
    );
    const rekey = Rekey.fromAccount(stack, 'Rekey', { consumerBuses: ['orders'] });
    expect(orders(stack, rekey, { consumers: [Consumer.eventBus(bus)] }).node.validate()).toEqual([]);
  });
});

test('what a vendor cannot do is a type error', () => {
  const { stack, rekey } = given();
  const common = { rekey, credentialName: 'orders', usernamePrefix: 'orders' };
  const onRender = { ...common, target: render(stack) };
  const vectors = { ...common, target: zilliz(stack) };
  const valkey = {
    ...common,
    target: new Vultr(stack, 'Vultr').valkey('6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21'),
  };
  const cluster = { ...common, target: new CockroachDb(stack, 'CockroachDb').cluster(clusterId) };
  const wrong: readonly DatabaseCredentialProps[] = [
    // @ts-expect-error Render chooses the passwords: a new user each time is all that it can do
    { ...onRender, strategy: 'reset-password' },
    // @ts-expect-error all of Render's users have the rights of the owner
    { ...onRender, privileges: { roles: ['orders_rw'] } },
    // @ts-expect-error nobody but a user itself is asked for its connections there
    { ...onRender, adminSecretName: 'rekey/admin/orders' },
    // @ts-expect-error a Valkey user without privileges has none or all, so they are to be said
    { ...valkey },
    // @ts-expect-error Valkey knows no roles
    { ...valkey, privileges: { roles: ['orders_rw'] } },
    // @ts-expect-error no SQL, no administrator of it
    { ...vectors, adminSecretName: 'rekey/admin/orders' },
    // @ts-expect-error text where a Duration belongs
    { ...cluster, rotationInterval: 'P30D' },
    // @ts-expect-error a consumer is made by Consumer
    { ...cluster, consumers: [{ kind: 'event-bridge', busName: 'orders' }] },
  ];
  const right: readonly DatabaseCredentialProps[] = [
    { ...onRender, strategy: 'replace-user' },
    { ...vectors, strategy: 'reset-password', privileges: { roles: ['orders_rw'] } },
    { ...valkey, strategy: 'alternate-users', privileges: { categories: ['+@read'], keys: ['orders:*'] } },
    { ...cluster, strategy: 'alternate-users', adminSecretName: 'rekey/admin/orders' },
  ];
  expect([wrong.length, right.length]).toEqual([8, 4]);
});
