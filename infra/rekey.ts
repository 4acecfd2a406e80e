import { Aws, Duration, RemovalPolicy } from 'aws-cdk-lib';
import { EventBus, type EventPattern, Match, Rule } from 'aws-cdk-lib/aws-events';
import { LambdaFunction } from 'aws-cdk-lib/aws-events-targets';
import {
  CfnPermission,
  type Code,
  EventSourceMapping,
  type Function as LambdaHandler,
} from 'aws-cdk-lib/aws-lambda';
import { RetentionDays } from 'aws-cdk-lib/aws-logs';
import { ScheduleGroup } from 'aws-cdk-lib/aws-scheduler';
import { Queue, QueueEncryption } from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';
import { z } from 'zod';
import { type CredentialOrder, credentialRequested, type RekeyEvent } from '../functions/core/events.ts';
import { eventSource, secretPrefix } from '../functions/core/names.ts';
import type { CredentialSpec } from '../functions/core/spec.ts';
import type {
  createUserEnvironment,
  deleteUserEnvironment,
  receiveWebhookEnvironment,
  reconcileUsersEnvironment,
  recordAuditEnvironment,
  rotateSecretEnvironment,
  startRotationsEnvironment,
  updateConsumersEnvironment,
} from '../functions/runtime/env.ts';
import { accessOf } from './access.ts';
import { Alarms } from './alarms.ts';
import { Audit, type AuditLock } from './audit.ts';
import { Credential } from './credential.ts';
import { addHandler } from './handler.ts';
import { Schedule } from './schedule.ts';
import { Webhooks } from './webhooks.ts';

export interface RekeyProps {
  /** The directory that bundle.ts makes: every handler as `<handler>.mjs`. */
  readonly code: Code;
  /** What this deployment declares. Further credentials can be requested on the bus. @default none */
  readonly credentials?: readonly CredentialSpec[];
  /**
   * Event buses of this account that consumers of credentials requested at run time name, where no declared one does.
   * @default none
   */
  readonly consumerBuses?: readonly string[];
  /** How many users that rekey does not know a target may have before there is an alarm. @default 0 */
  readonly toleratedForeignUsers?: number;
  /** How long the functions' logs are kept. @default RetentionDays.ONE_YEAR */
  readonly logRetention?: RetentionDays;
  /** How long nobody can change or delete an audit record, in whole days. What is written keeps its own. @default Duration.days(365) */
  readonly auditRetention?: Duration;
  /**
   * `governance` lets those end a record early who have s3:BypassGovernanceRetention. `compliance` lets nobody, which cannot be
   * taken back for what is written: try the stack under the other first.
   * @default 'governance'
   */
  readonly auditLock?: AuditLock;
  /** For how long events are kept to be replayed, in whole days. @default Duration.days(365) */
  readonly eventRetention?: Duration;
  /** An egress proxy between the functions and the vendors, as an http(s) URL. @default none */
  readonly httpsProxy?: string;
}

/** All of rekey in one Region of one account: its bus, its functions and the credentials declared at deployment. */
export class Rekey extends Construct {
  readonly rotateSecret: LambdaHandler;
  readonly createUser: LambdaHandler;
  readonly startRotations: LambdaHandler;
  readonly deleteUser: LambdaHandler;
  readonly reconcileUsers: LambdaHandler;
  readonly updateConsumers: LambdaHandler;
  readonly receiveWebhook: LambdaHandler;
  readonly recordAudit: LambdaHandler;
  /** `webhooks.renderUrl` is where Render's webhook has to point. */
  readonly webhooks: Webhooks;
  /** `audit.bucket` holds the records and their seals. */
  readonly audit: Audit;
  /** `alarms.topic` is where people subscribe. */
  readonly alarms: Alarms;

  constructor(scope: Construct, id: string, props: RekeyProps) {
    super(scope, id);
    const { code, credentials = [], httpsProxy, logRetention = RetentionDays.ONE_YEAR } = props;
    this.node.addValidation({ validate: () => sharedPrefixes(credentials) });
    const bus = new EventBus(this, 'Bus', {
      eventBusName: 'rekey',
      description: 'rekey: requests and facts',
    });
    const year = Duration.days(365);
    this.audit = new Audit(this, 'Audit', {
      bus,
      retention: props.auditRetention ?? year,
      lock: props.auditLock ?? 'governance',
      replayable: props.eventRetention ?? year,
    });
    // What came to nothing: what rules and schedules could not deliver, and what failed in a function. Attributes and bodies of the
    // messages say which it was.
    const lostRequests = new Queue(this, 'LostRequests', {
      encryption: QueueEncryption.SQS_MANAGED,
      enforceSSL: true,
      retentionPeriod: Duration.days(14),
    });
    const lostTargets = new Queue(this, 'LostTargets', {
      encryption: QueueEncryption.SQS_MANAGED,
      enforceSSL: true,
      retentionPeriod: Duration.days(14),
    });
    // A rolled-forward rotation may wait for more than one change of a CockroachDB user, of five minutes each.
    const reconcileTimeout = Duration.minutes(15);
    const targets = new Queue(this, 'Targets', {
      encryption: QueueEncryption.SQS_MANAGED,
      enforceSSL: true,
      // Six times the function's time, as AWS advises: a batch that Lambda could not start at once is not handed out twice.
      visibilityTimeout: Duration.minutes(6 * reconcileTimeout.toMinutes()),
      // Longer than three tries take, and no longer: the dispatcher sends every target again each hour.
      retentionPeriod: Duration.hours(6),
      deadLetterQueue: { queue: lostTargets, maxReceiveCount: 3 },
    });
    const access = accessOf(this, {
      bus,
      targets,
      auditBucket: this.audit.bucket,
      consumerBuses: [...new Set([...credentials.flatMap(busesOf), ...(props.consumerBuses ?? [])])].sort(),
    });
    const environment = { REKEY_EVENT_BUS_NAME: bus.eventBusName, HTTPS_PROXY: httpsProxy };

    this.rotateSecret = addHandler(this, 'RotateSecret', {
      code,
      logRetention,
      handler: 'rotate-secret',
      description: 'rekey: carries out the four steps that Secrets Manager calls for a rotation',
      // A change of a CockroachDB user can take five minutes, and a step may wait for more than one.
      timeout: Duration.minutes(15),
      environment: environment satisfies z.input<typeof rotateSecretEnvironment>,
      statements: access.rotateSecret,
    });
    // Not by SourceArn, which would admit one secret only. Without SourceAccount any account's Secrets Manager could call.
    const rotationPermission = new CfnPermission(this, 'MayRotate', {
      action: 'lambda:InvokeFunction',
      functionName: this.rotateSecret.functionArn,
      principal: 'secretsmanager.amazonaws.com',
      sourceAccount: Aws.ACCOUNT_ID,
    });
    const rotationFunction = { REKEY_ROTATION_FUNCTION_ARN: this.rotateSecret.functionArn };

    this.createUser = addHandler(this, 'CreateUser', {
      code,
      logRetention,
      handler: 'create-user',
      description:
        'rekey: makes the spec and the secret of a requested credential and starts its first rotation',
      timeout: Duration.minutes(2),
      environment: { ...environment, ...rotationFunction } satisfies z.input<typeof createUserEnvironment>,
      statements: access.createUser,
      lostRequests,
    });
    this.startRotations = addHandler(this, 'StartRotations', {
      code,
      logRetention,
      handler: 'start-rotations',
      description: 'rekey: starts the rotations that are due or were ordered',
      // A pass spreads its starts over five minutes, and an order may wait for a target as long.
      timeout: Duration.minutes(10),
      environment: { ...environment, ...rotationFunction } satisfies z.input<
        typeof startRotationsEnvironment
      >,
      statements: access.startRotations,
      lostRequests,
    });
    this.deleteUser = addHandler(this, 'DeleteUser', {
      code,
      logRetention,
      handler: 'delete-user',
      description: 'rekey: retires superseded users and finishes deletions',
      timeout: Duration.minutes(15),
      environment: environment satisfies z.input<typeof deleteUserEnvironment>,
      statements: access.deleteUser,
      lostRequests,
    });
    this.receiveWebhook = addHandler(this, 'ReceiveWebhook', {
      code,
      logRetention,
      handler: 'receive-webhook',
      description: 'rekey: verifies what a vendor tells, and passes it on',
      // Render gives up after 15 seconds (Render's webhook page) and sends it again.
      timeout: Duration.seconds(15),
      environment: environment satisfies z.input<typeof receiveWebhookEnvironment>,
      statements: access.receiveWebhook,
    });
    // Before the function that asks the vendors how a webhook with this address is doing.
    this.webhooks = new Webhooks(this, 'Webhooks', { receiver: this.receiveWebhook, logRetention });
    this.reconcileUsers = addHandler(this, 'ReconcileUsers', {
      code,
      logRetention,
      handler: 'reconcile-users',
      description: 'rekey: compares every target with what is wanted, reports and repairs',
      timeout: reconcileTimeout,
      environment: {
        ...environment,
        REKEY_TARGET_QUEUE_URL: targets.queueUrl,
        REKEY_WEBHOOK_BASE_URL: this.webhooks.baseUrl,
      } satisfies z.input<typeof reconcileUsersEnvironment>,
      statements: access.reconcileUsers,
      lostRequests,
    });
    this.updateConsumers = addHandler(this, 'UpdateConsumers', {
      code,
      logRetention,
      handler: 'update-consumers',
      description: 'rekey: hands a new login to consumers that cannot read Secrets Manager',
      // A deploy of a Render service takes minutes; what is not live by then is brought on by reconcile-users.
      timeout: Duration.minutes(15),
      environment: environment satisfies z.input<typeof updateConsumersEnvironment>,
      statements: access.updateConsumers,
      lostRequests,
    });
    this.recordAudit = addHandler(this, 'RecordAudit', {
      code,
      logRetention,
      handler: 'record-audit',
      description: 'rekey: keeps one record of every event, and seals each day',
      // A seal reads every record of its day.
      timeout: Duration.minutes(15),
      environment: { ...environment, REKEY_AUDIT_BUCKET: this.audit.bucket.bucketName } satisfies z.input<
        typeof recordAuditEnvironment
      >,
      statements: access.recordAudit,
      lostRequests,
    });

    // Not by `addEventSource`, which widens the role. Lambda tries the role as soon as the mapping is made.
    new EventSourceMapping(this, 'TargetsToReconcileUsers', {
      target: this.reconcileUsers,
      eventSourceArn: targets.queueArn,
      // One target that fails must not bring the others of its batch back.
      reportBatchItemFailures: true,
      batchSize: 5,
      // The least that there is: drift may wait some minutes, and the vendors' rate limits belong to rotations first.
      maxConcurrency: 2,
    }).node.addDependency(this.reconcileUsers.role ?? this.reconcileUsers);

    const on = (
      id: string,
      rule: { bus?: EventBus; does: string; pattern: EventPattern; to: LambdaHandler },
    ) =>
      new Rule(this, id, {
        ...(rule.bus === undefined ? {} : { eventBus: rule.bus }),
        description: `rekey: ${rule.does}`,
        eventPattern: rule.pattern,
        targets: [
          new LambdaFunction(rule.to, {
            deadLetterQueue: lostRequests,
            retryAttempts: 185,
            maxEventAge: Duration.hours(24),
          }),
        ],
      });
    const facts = (...detailType: (RekeyEvent['type'] | CredentialOrder)[]): EventPattern => ({
      source: [eventSource],
      detailType,
    });
    on('CredentialRequested', {
      bus,
      does: 'a credential was requested',
      pattern: { source: [eventSource], detailType: [credentialRequested] },
      to: this.createUser,
    });
    on('RotationOrdered', {
      bus,
      does: 'a rotation was ordered, or a credential is compromised',
      pattern: facts('CredentialRotationRequested', 'CredentialCompromised'),
      to: this.startRotations,
    });
    on('DeletionOrdered', {
      bus,
      does: 'a credential is to be deleted',
      pattern: facts('CredentialDeletionRequested'),
      to: this.deleteUser,
    });
    on('CredentialRotated', {
      bus,
      does: 'a rotation has left a user behind',
      pattern: facts('CredentialRotated'),
      to: this.deleteUser,
    });
    // On the account's default bus, where Secrets Manager tells of it.
    on('LoginChanged', {
      does: 'a credential has a new current login',
      pattern: {
        source: ['aws.secretsmanager'],
        detailType: ['Secret Label Updated'],
        detail: { labelUpdated: ['AWSCURRENT'], name: Match.prefix(secretPrefix) },
      },
      to: this.updateConsumers,
    });
    on('ProviderEventReceived', {
      bus,
      does: 'a vendor told of something: its target is looked at soon',
      pattern: facts('ProviderEventReceived'),
      to: this.reconcileUsers,
    });
    on('EverythingToRecord', {
      bus,
      does: 'every event has its record',
      pattern: { source: [eventSource] },
      to: this.recordAudit,
    });
    on('LabelToRecord', {
      does: 'so has every label of a credential that moved',
      pattern: {
        source: ['aws.secretsmanager'],
        detailType: ['Secret Label Updated'],
        detail: { name: Match.prefix(secretPrefix) },
      },
      to: this.recordAudit,
    });

    const passes = [
      {
        handler: 'start-rotations',
        function: this.startRotations,
        every: Duration.minutes(5),
        consequence:
          'nothing is rotated in its window, and two days after its interval Secrets Manager rotates regardless of windows',
      },
      {
        handler: 'delete-user',
        function: this.deleteUser,
        every: Duration.minutes(15),
        consequence: 'superseded users stay, and so do credentials that should be gone',
      },
      {
        handler: 'reconcile-users',
        function: this.reconcileUsers,
        every: Duration.hours(1),
        consequence: 'what foreign hands change goes unseen',
      },
    ];
    const group = new ScheduleGroup(this, 'Schedules', {
      scheduleGroupName: 'rekey',
      removalPolicy: RemovalPolicy.DESTROY,
    });
    // Capital: the ids of credentials are their names, which have none.
    for (const { handler, function: called, every } of passes)
      new Schedule(this, `Schedule-${handler}`, {
        name: handler,
        description: `rekey: a pass of ${handler}`,
        group,
        every,
        handler: called,
        lostRequests,
      });
    // It is called for events all day: a metric of its own tells whether the seals come.
    new Schedule(this, 'Schedule-record-audit', {
      name: 'record-audit',
      description: 'rekey: seals the days that are over',
      group,
      every: Duration.days(1),
      // Late enough for what was tried again after midnight.
      at: { hour: 4 },
      handler: this.recordAudit,
      lostRequests,
    });

    this.alarms = new Alarms(this, 'Alarms', {
      rotateSecret: this.rotateSecret,
      reconcileUsers: this.reconcileUsers,
      passes,
      lostRequests,
      lostTargets,
      toleratedForeignUsers: props.toleratedForeignUsers ?? 0,
    });

    for (const spec of credentials)
      new Credential(this, spec.name, { spec, rotateSecret: this.rotateSecret, rotationPermission });
  }
}

/** Names tell whose a user is, so two credentials with one prefix on one target would take each other's users for their own. */
function sharedPrefixes(credentials: readonly CredentialSpec[]): string[] {
  const groups = Map.groupBy(credentials, ({ provider, targetId, usernamePrefix }) =>
    JSON.stringify([provider, targetId, usernamePrefix]),
  );
  return [...groups.values()].flatMap(([first, ...others]) =>
    others.map(
      ({ name, provider, targetId, usernamePrefix }) =>
        `usernamePrefix: ${first?.name} and ${name} both have ${usernamePrefix} on ${provider} ${targetId}; give one of them another prefix`,
    ),
  );
}

const busSchema = z.object({ busName: z.string() });

/** The event buses on which the consumers of a credential want to hear of a new login. */
const busesOf = ({ consumers }: CredentialSpec): readonly string[] =>
  consumers.flatMap(({ settings }) => busSchema.safeParse(settings).data?.busName ?? []);
