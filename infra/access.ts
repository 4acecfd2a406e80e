import { ArnFormat } from 'aws-cdk-lib';
import type { Table } from 'aws-cdk-lib/aws-dynamodb';
import type { EventBus } from 'aws-cdk-lib/aws-events';
import { Effect } from 'aws-cdk-lib/aws-iam';
import type { Bucket } from 'aws-cdk-lib/aws-s3';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';
import { credentialChanged } from '../functions/consumers/event-bridge.ts';
import {
  credentialOrders,
  credentialRequested,
  pauseOrders,
  type RekeyEvent,
} from '../functions/core/events.ts';
import {
  adminSecretPrefix,
  adoptSecretPrefix,
  apiKeySecretPrefix,
  directivesPath,
  eventSource,
  pausePath,
  secretPrefix,
  specParameterPath,
  webhookSecretPrefix,
} from '../functions/core/names.ts';
import { places } from '../functions/core/notes.ts';
import { arnOf, functionName, type StatementProps } from './handler.ts';
import { keyStatements, onlyStages, type SecretStorage } from './secret-storage.ts';

export interface AccessProps {
  /** The bus `rekey`. */
  readonly bus: EventBus;
  readonly queues: Queues;
  /** Where the audit trail lies. */
  readonly auditBucket: Bucket;
  /** What passes remember. */
  readonly notes: Table;
  /** Where the secrets of credentials lie. */
  readonly storage: SecretStorage;
}

/** Every queue that feeds a function. */
export interface Queues {
  /** The round of all targets, from the dispatcher of reconcile-users to its workers. */
  readonly targets: IQueue;
  /** Targets that are looked at before those. */
  readonly urgentTargets: IQueue;
  /** Rotations that are to be started, one after the other on a target. */
  readonly starts: IQueue;
  /** For create-user. */
  readonly requests: IQueue;
  /** For start-rotations: to pause writes, and to resume them. */
  readonly pauses: IQueue;
  /** For start-rotations. */
  readonly orders: IQueue;
  /** For delete-user. */
  readonly deletions: IQueue;
  /** For reconcile-users. */
  readonly vendorEvents: IQueue;
  /** For update-consumers. */
  readonly newLogins: IQueue;
}

type Statements = readonly StatementProps[];

/** Why a resource ends in a wildcard, one reason a kind. Whoever runs cdk-nag over the stack reads them there. */
const wildcards = {
  credentials:
    'Credentials are also made at run time, and every ARN of a secret ends in six random characters. What people keep under the same prefix is taken back by Deny statements, or left out by the condition.',
  keptSecrets:
    'Specs and endpoints name these secrets at run time, and every ARN ends in six random characters. They are only read.',
  parameters: 'These parameters are made at run time, below a path that only rekey uses.',
  listing: 'ListSecrets knows no resources (AWS documentation). It answers names, never values.',
  records:
    'Keys are made of the date and the id of an event. Deleting a record, and taking the lock off it, is denied.',
} as const;

type EventType = RekeyEvent['type'];

/** What a rotation tells. */
const rotationEvents = [
  'CredentialRotated',
  'CredentialRotationFailed',
  'DatabaseUserCreated',
  'DatabaseUserPasswordChanged',
  'DatabaseUserPlanned',
] as const satisfies readonly EventType[];

/** The events that each function publishes. IAM refuses it all others, and the whole call with them. */
const published = {
  rotateSecret: rotationEvents,
  createUser: ['CredentialAdopted', 'CredentialCreated', 'OrderIgnored'],
  // The request is for a declared credential whose user is still to be adopted.
  startRotations: ['BreakerChanged', credentialRequested, 'DriftFound', 'OrderIgnored'],
  deleteUser: [
    'CredentialDeleted',
    'DatabaseSessionsEndPlanned',
    'DatabaseSessionsEnded',
    'DatabaseUserChangeFailed',
    'DatabaseUserCreated',
    'DatabaseUserDeleted',
    'DatabaseUserDeletionFailed',
    'DatabaseUserPlanned',
    'DatabaseUserRetired',
    'DriftFound',
    'OrderIgnored',
  ],
  // Rolls rotations forward, and brings consumers on.
  reconcileUsers: [
    ...rotationEvents,
    'ConsumerLeftBehind',
    'ConsumerUpdatePlanned',
    'DatabaseUserAppeared',
    'DatabaseUserChangeFailed',
    'DatabaseUserDisappeared',
    'DriftFound',
    'DriftRepairFailed',
    'DriftRepaired',
    'ProviderEventReceived',
  ],
  updateConsumers: ['ConsumerLeftBehind', 'ConsumerUpdatePlanned', 'ConsumerUpdated', 'DriftFound'],
  receiveWebhook: ['ProviderEventReceived'],
} as const satisfies Readonly<Record<string, readonly EventType[]>>;

/** Events that change credentials as soon as they are on the bus. A deletion is final once begun. */
const orders = [...credentialOrders, ...pauseOrders, credentialRequested];

/**
 * Events of rekey, and of these types only. Both keys hold a list, one value an event of the call: `ForAllValues` alone would also be
 * true of a call without the keys (AWS documentation).
 */
const eventsOf = (...types: readonly string[]): NonNullable<StatementProps['conditions']> => ({
  Null: { 'events:detail-type': 'false', 'events:source': 'false' },
  'ForAllValues:StringEquals': { 'events:detail-type': [...types], 'events:source': [eventSource] },
});

/** What each function may do: exactly what its use case calls, on rekey's own things. */
export function accessOf(
  scope: Construct,
  { bus, queues, auditBucket, notes, storage }: AccessProps,
): {
  readonly rotateSecret: Statements;
  readonly createUser: Statements;
  readonly startRotations: Statements;
  readonly deleteUser: Statements;
  readonly reconcileUsers: Statements;
  readonly updateConsumers: Statements;
  readonly receiveWebhook: Statements;
  readonly recordAudit: Statements;
} {
  const secretsUnder = (prefix: string): string =>
    arnOf(scope, 'secretsmanager', 'secret', `${prefix}*`, ArnFormat.COLON_RESOURCE_NAME);
  const secrets = secretsUnder(secretPrefix);
  // A credential's name has no slash, and all that people keep under the prefix has one: API keys, administrators, logins to adopt.
  const keptSecrets = secretsUnder(`${secretPrefix}*/`);
  const vendorSecrets = [apiKeySecretPrefix, adminSecretPrefix].map(secretsUnder);
  /**
   * Taken back from those who read everything under the prefix. Whoever knows a signing secret can speak as the vendor, and a login
   * to adopt is read once, by create-user.
   */
  const neverRead = (...prefixes: readonly string[]): StatementProps => ({
    sid: 'NeverReadWhatIsForOthers',
    effect: Effect.DENY,
    actions: ['secretsmanager:GetSecretValue'],
    resources: [webhookSecretPrefix, adoptSecretPrefix, ...prefixes].map(secretsUnder),
  });
  // Secrets that people store may lie under the same key.
  const { read: readUnderKey, write: writeUnderKey } = keyStatements(scope, storage);
  const isReplicated = storage.replicaRegions.length > 0;
  const parametersUnder = (path: string): string => arnOf(scope, 'ssm', 'parameter', `${path.slice(1)}*`);
  const specs = parametersUnder(specParameterPath);
  const directives = parametersUnder(directivesPath);
  /** Orders of these kinds, for any credential. */
  const ordersOf = (...kinds: readonly string[]): readonly string[] =>
    kinds.map((kind) => `${directives}/${kind}`);
  const pauses = parametersUnder(pausePath);
  const rotator = arnOf(
    scope,
    'lambda',
    'function',
    functionName('rotate-secret'),
    ArnFormat.COLON_RESOURCE_NAME,
  );

  interface OnSecrets {
    readonly sid: string;
    /** Of Secrets Manager. */
    readonly actions: readonly string[];
    readonly conditions?: NonNullable<StatementProps['conditions']>;
  }
  /**
   * What a function does to the secrets of credentials. The wildcard covers what people keep under the same prefix, too. A change
   * there would write a login over a key, or delete it: all but reading is taken back.
   */
  const onSecrets = (...statements: readonly OnSecrets[]): Statements => [
    ...statements.map(({ actions, ...statement }) => ({
      ...statement,
      actions: actions.map((action) => `secretsmanager:${action}`),
      resources: [secrets],
      wildcard: wildcards.credentials,
    })),
    {
      sid: 'NeverChangeWhatPeopleKeep',
      effect: Effect.DENY,
      actions: statements
        .flatMap(({ actions }) => actions)
        .filter((action) => action !== 'GetSecretValue')
        .map((action) => `secretsmanager:${action}`),
      resources: [keptSecrets],
    },
  ];
  /** No other function is attached to a secret: it would be handed the login at the next rotation. */
  const rotateByOurs: OnSecrets = {
    sid: 'RotateByOurFunction',
    actions: ['RotateSecret'],
    conditions: { ArnEqualsIfExists: { 'secretsmanager:RotationLambdaARN': rotator } },
  };
  /** Takes AWSPENDING off a version that must not be finished. To move AWSCURRENT would publish a login that nobody has proved. */
  const giveUpRotations: OnSecrets = {
    sid: 'GiveUpRotations',
    actions: ['UpdateSecretVersionStage'],
    conditions: { 'ForAnyValue:StringEquals': { 'secretsmanager:VersionStage': 'AWSPENDING' } },
  };
  const onParameters = (
    sid: string,
    actions: readonly string[],
    ...resources: readonly string[]
  ): StatementProps => ({
    sid,
    actions: actions.map((action) => `ssm:${action}`),
    resources: [...resources],
    wildcard: wildcards.parameters,
  });
  /** Of these places only. `ForAllValues` alone would also be true of a call without the key (AWS documentation). */
  const onNotes = (sid: string, actions: readonly string[], ...of: readonly string[]): StatementProps => ({
    sid,
    actions: actions.map((action) => `dynamodb:${action}`),
    resources: [notes.tableArn],
    conditions: {
      Null: { 'dynamodb:LeadingKeys': 'false' },
      'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': [...of] },
    },
  });
  /** One by one, under keys that are known. */
  const keepNotes = (...of: readonly string[]): StatementProps =>
    onNotes('KeepNotes', ['GetItem', 'PutItem', 'DeleteItem'], ...of);
  /** Labels and dates of all secrets, 100 a page. */
  const listSecrets: StatementProps = {
    sid: 'ListSecrets',
    actions: ['secretsmanager:ListSecrets'],
    resources: ['*'],
    wildcard: wildcards.listing,
  };
  /** What a credential is to be, what was ordered for it, and whether its writes are paused. */
  const readWhatIsWanted = onParameters(
    'ReadWhatIsWanted',
    ['GetParameter', 'GetParameters'],
    specs,
    directives,
    pauses,
  );
  /** GetParametersByPath is judged by the path that is asked for, and gives all that lies below it (AWS documentation). */
  const readFleetAnd = (...more: readonly string[]): StatementProps => ({
    sid: 'ReadFleet',
    actions: ['ssm:GetParametersByPath'],
    resources: [specParameterPath, directivesPath, ...more].map((path) =>
      arnOf(scope, 'ssm', 'parameter', path.slice(1, -1)),
    ),
  });
  const readVendorKeys: StatementProps = {
    sid: 'ReadVendorKeys',
    actions: ['secretsmanager:GetSecretValue'],
    resources: vendorSecrets,
    // A key that was replaced opens nothing that this function has to do with.
    conditions: onlyStages('AWSCURRENT'),
    wildcard: wildcards.keptSecrets,
  };
  // Asked of whoever calls RotateSecret (AWS documentation).
  const attachRotation: StatementProps = {
    sid: 'AttachRotation',
    actions: ['lambda:InvokeFunction'],
    resources: [rotator],
  };
  /** The first three are asked of whoever an event source mapping works for (AWS documentation); by the last, what failed comes back. */
  const workOn = (...those: readonly IQueue[]): StatementProps => ({
    sid: 'WorkOnQueues',
    actions: [
      'sqs:ReceiveMessage',
      'sqs:DeleteMessage',
      'sqs:GetQueueAttributes',
      'sqs:ChangeMessageVisibility',
    ],
    resources: those.map(({ queueArn }) => queueArn),
  });
  const sendTo = (sid: string, ...those: readonly IQueue[]): StatementProps => ({
    sid,
    actions: ['sqs:SendMessage'],
    resources: those.map(({ queueArn }) => queueArn),
  });
  /** Whatever else the role is ever given: an order is for people, or for an application of theirs. */
  const neverOrder = (...except: readonly string[]): StatementProps => ({
    sid: 'NeverOrder',
    effect: Effect.DENY,
    actions: ['events:PutEvents'],
    resources: [bus.eventBusArn],
    conditions: {
      'ForAnyValue:StringEquals': {
        'events:detail-type': orders.filter((order) => !except.includes(order)),
      },
    },
  });
  const publish = (types: readonly EventType[]): Statements => [
    {
      sid: 'Publish',
      actions: ['events:PutEvents'],
      resources: [bus.eventBusArn],
      conditions: eventsOf(...types),
    },
    neverOrder(...types),
  ];

  return {
    rotateSecret: [
      {
        sid: 'SecretsThatThisFunctionRotates',
        actions: [
          'secretsmanager:DescribeSecret',
          'secretsmanager:GetSecretValue',
          'secretsmanager:ListSecretVersionIds',
          'secretsmanager:PutSecretValue',
          'secretsmanager:UpdateSecretVersionStage',
        ],
        resources: [secrets],
        // People's secrets have no rotation, so this keeps them safe as well.
        conditions: {
          StringEquals: { 'secretsmanager:resource/AllowRotationLambdaArn': rotator },
        },
        wildcard: wildcards.credentials,
      },
      readVendorKeys,
      onParameters('ReadWhatIsWanted', ['GetParameters'], specs, directives, pauses),
      ...writeUnderKey,
      ...publish(published.rotateSecret),
    ],
    createUser: [
      readFleetAnd(),
      readWhatIsWanted,
      onNotes('KeepMembers', ['GetItem', 'PutItem'], places.members),
      onNotes('ListFormerTargets', ['Query'], places.formerTargets),
      {
        ...onParameters('MakeSpecs', ['PutParameter'], specs),
        // A spec written over would send a credential that exists to another target, with its consumers. A call that does not say
        // overwrites nothing (AWS documentation).
        conditions: { StringEqualsIfExists: { 'ssm:Overwrite': 'false' } },
      },
      // What a secret that was restored needs is a new user: a run that dies on the way leaves word that one is due.
      onParameters('OrderRotations', ['PutParameter'], ...ordersOf('rotateBefore')),
      ...onSecrets(
        {
          sid: 'MakeSecrets',
          actions: [
            'CreateSecret',
            'DescribeSecret',
            'ListSecretVersionIds',
            'PutSecretValue',
            // Asked beside CreateSecret (AWS documentation).
            ...(isReplicated ? ['ReplicateSecretToRegions'] : []),
          ],
        },
        rotateByOurs,
      ),
      ...(isReplicated
        ? [
            {
              sid: 'NeverOverwriteInOtherRegions',
              effect: Effect.DENY,
              actions: ['secretsmanager:CreateSecret', 'secretsmanager:ReplicateSecretToRegions'],
              resources: [secrets],
              conditions: { Bool: { 'secretsmanager:ForceOverwriteReplicaSecret': 'true' } },
            },
          ]
        : []),
      { ...readVendorKeys, resources: [...vendorSecrets, secretsUnder(adoptSecretPrefix)] },
      attachRotation,
      workOn(queues.requests),
      ...writeUnderKey,
      ...publish(published.createUser),
    ],
    startRotations: [
      readFleetAnd(pausePath),
      readWhatIsWanted,
      onParameters(
        'KeepOrdersAndPauses',
        ['PutParameter'],
        ...ordersOf('rotateBefore', 'revokeBefore', 'revokeAnyway'),
        pauses,
      ),
      keepNotes(places.findings('schedule')),
      onNotes('KeepNotesOfTheFleet', ['Query', 'PutItem', 'DeleteItem'], places.breakers, places.members),
      // Tells whether another rotation of the target is under way. Also needed when a conditional delete of a note is refused.
      onNotes('LookUpMembers', ['GetItem'], places.members),
      onNotes('TakeTurns', ['GetItem', 'PutItem'], places.pace),
      onNotes('ListFormerTargets', ['Query'], places.formerTargets),
      listSecrets,
      ...onSecrets(
        { sid: 'LookAtSecrets', actions: ['DescribeSecret', 'ListSecretVersionIds'] },
        rotateByOurs,
        giveUpRotations,
      ),
      attachRotation,
      // A reset-password rotation that failed half-way is rolled forward by the workers of reconcile-users.
      sendTo('AskWorkers', queues.urgentTargets),
      sendTo('QueueStarts', queues.starts),
      workOn(queues.pauses, queues.orders, queues.starts),
      ...publish(published.startRotations),
    ],
    deleteUser: [
      readFleetAnd(),
      readWhatIsWanted,
      onParameters('EndSpecs', ['DeleteParameter'], specs),
      onParameters(
        'KeepOrders',
        ['PutParameter'],
        ...ordersOf('revokeBefore', 'revokeAnyway', 'deleteSince', 'targetIsGone', 'deletedAt'),
      ),
      onParameters('ForgetOrders', ['DeleteParameter'], directives),
      keepNotes(places.findings('retire'), places.formerTargets, places.goneTargets),
      onNotes('ListNotes', ['Query'], places.formerTargets, places.goneTargets, places.settled),
      onNotes('LookUpMembers', ['GetItem'], places.members),
      onNotes('NoteSettledTargets', ['PutItem'], places.settled),
      listSecrets,
      onNotes('KeepNotesOfDeletions', ['Query', 'PutItem', 'DeleteItem'], places.deletions('*')),
      onNotes('KeepNotesOfSessions', ['GetItem', 'Query', 'PutItem', 'DeleteItem'], places.sessions('*')),
      onNotes('KeepNotesOfRevocations', ['GetItem', 'PutItem', 'DeleteItem'], places.revocations),
      // Of targets and credentials that are deleted.
      onNotes(
        'ForgetNotes',
        ['DeleteItem'],
        places.findings('consumers'),
        places.findings('reconcile'),
        places.users,
      ),
      ...onSecrets(
        {
          sid: 'EndSecrets',
          actions: [
            'CancelRotateSecret',
            'DeleteSecret',
            'DescribeSecret',
            // For vendors' keys as well.
            'GetSecretValue',
            'ListSecretVersionIds',
            ...(isReplicated ? ['RemoveRegionsFromReplication'] : []),
          ],
        },
        giveUpRotations,
      ),
      // People have seven days in which they can undo a deletion that was ordered by mistake.
      {
        sid: 'NeverDeleteForGood',
        effect: Effect.DENY,
        actions: ['secretsmanager:DeleteSecret'],
        resources: [secrets],
        conditions: { Bool: { 'secretsmanager:ForceDeleteWithoutRecovery': 'true' } },
      },
      neverRead(),
      workOn(queues.deletions),
      // Whether a consumer has moved is asked of its platform, never of a bus: nothing to tell here.
      ...readUnderKey,
      ...publish(published.deleteUser),
    ],
    reconcileUsers: [
      readFleetAnd(),
      // A rotation that it rolls forward reads all of it.
      readWhatIsWanted,
      onParameters('OrderRotations', ['PutParameter'], ...ordersOf('rotateBefore', 'changeBefore')),
      keepNotes(places.findings('reconcile'), places.formerTargets, places.members),
      onNotes('ListNotes', ['Query'], places.formerTargets, places.looks, places.members),
      onNotes('KeepSightings', ['GetItem', 'PutItem'], places.looks, places.users, places.webhooks),
      listSecrets,
      ...onSecrets({
        sid: 'MendSecrets',
        actions: [
          'DescribeSecret',
          // For vendors' keys as well.
          'GetSecretValue',
          'ListSecretVersionIds',
          'PutSecretValue',
          'UpdateSecretVersionStage',
        ],
      }),
      neverRead(),
      sendTo('QueueTargets', queues.targets, queues.urgentTargets),
      workOn(queues.targets, queues.urgentTargets, queues.vendorEvents),
      ...writeUnderKey,
      ...publish(published.reconcileUsers),
    ],
    updateConsumers: [
      readWhatIsWanted,
      keepNotes(places.findings('consumers')),
      ...onSecrets(
        { sid: 'LookAtSecrets', actions: ['DescribeSecret'] },
        // For the keys to consumers' platforms as well. A consumer that was handed AWSPENDING would be locked out if the rotation fails.
        { sid: 'ReadLoginsAndKeys', actions: ['GetSecretValue'], conditions: onlyStages('AWSCURRENT') },
      ),
      // It opens no target, so no administrator is its business.
      neverRead(adminSecretPrefix),
      workOn(queues.newLogins),
      ...readUnderKey,
      ...publish(published.updateConsumers),
    ],
    receiveWebhook: [
      {
        sid: 'ReadSigningSecrets',
        actions: ['secretsmanager:GetSecretValue'],
        resources: [secretsUnder(webhookSecretPrefix)],
        // A signing secret that was replaced may be the one that leaked.
        conditions: onlyStages('AWSCURRENT'),
        wildcard: wildcards.keptSecrets,
      },
      ...readUnderKey,
      ...publish(published.receiveWebhook),
    ],
    recordAudit: [
      {
        sid: 'WriteRecordsAndSeals',
        actions: ['s3:GetObject', 's3:PutObject'],
        resources: [auditBucket.arnForObjects('*')],
        wildcard: wildcards.records,
      },
      // Without it S3 answers 403 for what is not there, and absence could not be told from lost permission (AWS documentation).
      { sid: 'ListRecords', actions: ['s3:ListBucket'], resources: [auditBucket.bucketArn] },
      // Whatever else this role is ever given: it never takes a record away, nor the lock off it.
      {
        sid: 'NeverUndoARecord',
        effect: Effect.DENY,
        actions: [
          's3:BypassGovernanceRetention',
          's3:DeleteObject*',
          's3:PutObjectLegalHold',
          's3:PutObjectRetention',
        ],
        resources: [auditBucket.arnForObjects('*')],
      },
      // It listens to the bus and publishes nothing.
      neverOrder(),
    ],
  };
}

/** To tell consumers of a new login on a bus of theirs. */
export const tellConsumersOn = (scope: Construct, busName: string): StatementProps => ({
  sid: 'TellConsumers',
  actions: ['events:PutEvents'],
  resources: [arnOf(scope, 'events', 'event-bus', busName)],
  conditions: eventsOf(credentialChanged),
});
