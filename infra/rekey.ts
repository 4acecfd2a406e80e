import { Aws, Duration, RemovalPolicy } from 'aws-cdk-lib';
import type { IVpc, SubnetSelection, Vpc } from 'aws-cdk-lib/aws-ec2';
import { EventBus, type EventPattern, Match, Rule } from 'aws-cdk-lib/aws-events';
import { LambdaFunction } from 'aws-cdk-lib/aws-events-targets';
import { type IManagedPolicy, PermissionsBoundary, PolicyStatement } from 'aws-cdk-lib/aws-iam';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import { CfnPermission, type Function as LambdaHandler } from 'aws-cdk-lib/aws-lambda';
import { RetentionDays } from 'aws-cdk-lib/aws-logs';
import { ScheduleGroup } from 'aws-cdk-lib/aws-scheduler';
import type { ReplicaRegion } from 'aws-cdk-lib/aws-secretsmanager';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import { Construct, type IDependable } from 'constructs';
import type * as z from 'zod/mini';
import {
  type CredentialOrder,
  credentialRequested,
  type PauseOrder,
  pauseOrders,
  type RekeyEvent,
} from '../functions/core/events.ts';
import { eventSource, secretPrefix } from '../functions/core/names.ts';
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
import { accessOf, tellConsumersOn } from './access.ts';
import { Alarms } from './alarms.ts';
import { Audit, type AuditLock } from './audit.ts';
import { Dashboard } from './dashboard.ts';
import { addHandler, type HandlerCode } from './handler.ts';
import { noteTable } from './notes.ts';
import { networkOf, optionFaults } from './options.ts';
import { addDeadLetterQueue, addEventQueue, addQueue, EventsTo, feed, visibilityFor } from './queues.ts';
import { DeployedRekey, type DeployedRekeyProps, type RekeySystem } from './rekey-system.ts';
import { Schedule } from './schedule.ts';
import { storageEnvironment } from './secret-storage.ts';
import { Webhooks } from './webhooks.ts';
import { workers } from './workers.ts';

export interface RekeyProps {
  /** The directories that bundle.ts makes, one a handler. */
  readonly code: HandlerCode;
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
  /**
   * A customer managed key for the secrets of credentials, declared or requested on the bus. Only those who may use it read a login:
   * `grantRead` sees to that. The functions use it through Secrets Manager only. Its policy has to leave the rest to IAM, as the one
   * that CDK and AWS give a new key does, or to name the roles of the functions and of whoever reads. API keys and other secrets that
   * people store may lie under it, or under the key that AWS manages; for one under another key, grant that key's decryption to the
   * functions.
   *
   * All else holds ids and no login, and stays under keys of AWS, so that nobody ends the audit trail by ending a key.
   *
   * Choose it before the first deployment. Later, CloudFormation changes the key of the secrets that exist; do that first with one
   * credential of no importance, and see that its login is still there.
   * @default the key that AWS manages for Secrets Manager
   */
  readonly encryptionKey?: IKey;
  /**
   * Other Regions in which the logins can be read, where a stack of another Region needs them. Each has a key of its own where there
   * is an `encryptionKey`. A rotation waits up to 30 seconds for its replicas, and a replica that has failed stops none. A deletion
   * takes the replicas first. Secrets made at run time get the Regions of the time at which they are made. Before you take a Region
   * out, remove the replicas of those by hand.
   * @default none
   */
  readonly replicaRegions?: readonly ReplicaRegion[];
  /**
   * A network of yours that the functions run in. They must reach AWS and the vendors from there: FixedEgress makes one that calls
   * from addresses that never change.
   * @default none: the functions call from changing addresses of AWS
   */
  readonly vpc?: Vpc | IVpc;
  /** Which of its subnets, never public ones: a function has no public address. @default the private ones */
  readonly vpcSubnets?: SubnetSelection;
  /**
   * A topic of yours for the alarms. Its policy must let cloudwatch.amazonaws.com publish, as that of a new topic does, and the key
   * that encrypts it, if any, must let it use kms:Decrypt and kms:GenerateDataKey*. Otherwise alarms are lost in silence: try with
   * `aws cloudwatch set-alarm-state`.
   * @default one of its own, encrypted, without a subscription
   */
  readonly alarmTopic?: ITopic;
  /** What no role of this construct can go beyond, where the account demands such a policy. @default none */
  readonly permissionsBoundary?: IManagedPolicy;
  /**
   * Where people read the README.md of the version that is deployed, without a fragment: every alarm ends with the address of its
   * row there.
   * @default 'README.md'
   */
  readonly runbookUrl?: string;
}

/**
 * All of rekey, but for the credentials: each is a DatabaseCredential of its own. Its names are fixed, so there is one in a Region of
 * an account.
 */
export class Rekey extends Construct implements RekeySystem {
  /** The one that another app has deployed in the account and Region of this stack. Nothing is looked up. */
  static fromAccount(scope: Construct, id: string, props?: DeployedRekeyProps): RekeySystem {
    return new DeployedRekey(scope, id, props);
  }

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
  /** `dashboard.dashboardName` is what it is called in CloudWatch. */
  readonly dashboard: Dashboard;
  /** The function that Secrets Manager calls for every rotation. */
  readonly rotationFunctionArn: string;
  /** Where requests, orders and facts are published. */
  readonly bus: EventBus;
  /** The rotation function, and what lets Secrets Manager call it. */
  readonly rotatable: readonly IDependable[];
  /** What encrypts the secrets of credentials. Undefined: the key that AWS manages for Secrets Manager. */
  readonly encryptionKey: IKey | undefined;
  /** Where logins can be read beside this Region. */
  readonly replicaRegions: readonly ReplicaRegion[];
  /** One statement each of the functions that tell consumers. IAM takes no two of one Sid in a policy. */
  private telling: readonly PolicyStatement[] = [];

  constructor(scope: Construct, id: string, props: RekeyProps) {
    super(scope, id);
    const { code, httpsProxy, logRetention = RetentionDays.ONE_YEAR } = props;
    const faults = optionFaults(this, props);
    this.node.addValidation({ validate: () => [...faults] });
    this.encryptionKey = props.encryptionKey;
    this.replicaRegions = props.replicaRegions ?? [];
    const bus = new EventBus(this, 'Bus', {
      eventBusName: 'rekey',
      description: 'rekey: requests and facts',
    });
    this.bus = bus;
    const year = Duration.days(365);
    this.audit = new Audit(this, 'Audit', {
      bus,
      retention: props.auditRetention ?? year,
      lock: props.auditLock ?? 'governance',
      replayable: props.eventRetention ?? year,
    });
    // What came to nothing: what rules and schedules could not deliver, what failed in a function that was called directly, and
    // queued events that no repetition helps. Attributes and bodies of the messages say which it was.
    const lostRequests = addDeadLetterQueue(this, 'LostRequests');
    const lostTargets = addDeadLetterQueue(this, 'LostTargets');
    // Only a queue in order can be the dead-letter queue of one.
    const lostStarts = addDeadLetterQueue(this, 'LostStarts', {
      queueName: 'rekey-lost-starts.fifo',
      fifo: true,
    });
    const timeouts = {
      createUser: Duration.minutes(2),
      // A pass spreads its starts over five minutes, and an order may wait for a target as long.
      startRotations: Duration.minutes(10),
      deleteUser: Duration.minutes(15),
      // A rolled-forward rotation may wait for more than one change of a CockroachDB user, of five minutes each.
      reconcileUsers: Duration.minutes(15),
      // A deploy of a Render service takes minutes; what is not live by then is brought on by reconcile-users.
      updateConsumers: Duration.minutes(15),
    };
    const looked = {
      visibilityTimeout: visibilityFor(timeouts.reconcileUsers),
      deadLetterQueue: { queue: lostTargets, maxReceiveCount: 3 },
    };
    const eventQueue = (id: string, timeout: Duration) => addEventQueue(this, id, { timeout, lostRequests });
    const queues = {
      // Longer than a round of all targets may ever take: a target that expires here is looked at by nobody.
      targets: addQueue(this, 'Targets', { ...looked, retentionPeriod: Duration.days(2) }),
      // Not in order, as a queue in order delays no single message, and a look after a vendor's event waits a minute for the others.
      urgentTargets: addQueue(this, 'UrgentTargets', { ...looked, retentionPeriod: Duration.days(2) }),
      starts: addQueue(this, 'Starts', {
        queueName: 'rekey-starts.fifo',
        fifo: true,
        visibilityTimeout: visibilityFor(timeouts.startRotations),
        retentionPeriod: Duration.days(4),
        // Four hours, at the pace at which the function makes a start come back that has to wait.
        deadLetterQueue: { queue: lostStarts, maxReceiveCount: 20 },
      }),
      requests: eventQueue('CreateUserEvents', timeouts.createUser),
      // Apart from the orders: behind 2,000 of them a pause would wait for eleven minutes, and rekey would go on writing.
      pauses: eventQueue('PauseEvents', timeouts.startRotations),
      orders: eventQueue('StartRotationsEvents', timeouts.startRotations),
      deletions: eventQueue('DeleteUserEvents', timeouts.deleteUser),
      vendorEvents: eventQueue('ReconcileUsersEvents', timeouts.reconcileUsers),
      newLogins: eventQueue('UpdateConsumersEvents', timeouts.updateConsumers),
    };
    const notes = noteTable(this, 'Notes');
    const access = accessOf(this, { bus, queues, auditBucket: this.audit.bucket, notes, storage: this });
    const network = networkOf(this, props);
    const shared = { code, logRetention, ...(network === undefined ? {} : { network }) };
    const environment = { REKEY_EVENT_BUS_NAME: bus.eventBusName, HTTPS_PROXY: httpsProxy };

    this.rotateSecret = addHandler(this, 'RotateSecret', {
      ...shared,
      handler: 'rotate-secret',
      description: 'rekey: carries out the four steps that Secrets Manager calls for a rotation',
      // A change of a CockroachDB user can take five minutes, and a step may wait for more than one.
      timeout: Duration.minutes(15),
      environment: environment satisfies z.input<typeof rotateSecretEnvironment>,
      statements: access.rotateSecret,
    });
    // Not by SourceArn, which would admit one secret only. Without SourceAccount any account's Secrets Manager could call.
    const mayRotate = new CfnPermission(this, 'MayRotate', {
      action: 'lambda:InvokeFunction',
      functionName: this.rotateSecret.functionArn,
      principal: 'secretsmanager.amazonaws.com',
      sourceAccount: Aws.ACCOUNT_ID,
    });
    this.rotationFunctionArn = this.rotateSecret.functionArn;
    this.rotatable = [mayRotate, this.rotateSecret];
    const lostRequestQueue = { REKEY_LOST_REQUEST_QUEUE_URL: lostRequests.queueUrl };
    const urgentTargetQueue = { REKEY_URGENT_TARGET_QUEUE_URL: queues.urgentTargets.queueUrl };
    const noteTableName = { REKEY_NOTE_TABLE_NAME: notes.tableName };
    const rotationFunction = { REKEY_ROTATION_FUNCTION_ARN: this.rotationFunctionArn };

    this.createUser = addHandler(this, 'CreateUser', {
      ...shared,
      handler: 'create-user',
      description:
        'rekey: makes the spec and the secret of a requested credential and starts its first rotation',
      timeout: timeouts.createUser,
      environment: {
        ...environment,
        ...rotationFunction,
        ...lostRequestQueue,
        ...storageEnvironment(this, this),
        ...noteTableName,
      } satisfies z.input<typeof createUserEnvironment>,
      statements: access.createUser,
      lostRequests,
    });
    this.startRotations = addHandler(this, 'StartRotations', {
      ...shared,
      handler: 'start-rotations',
      description: 'rekey: starts the rotations that are due or were ordered',
      timeout: timeouts.startRotations,
      environment: {
        ...environment,
        ...rotationFunction,
        ...lostRequestQueue,
        ...urgentTargetQueue,
        REKEY_START_QUEUE_URL: queues.starts.queueUrl,
        ...noteTableName,
      } satisfies z.input<typeof startRotationsEnvironment>,
      statements: access.startRotations,
      lostRequests,
    });
    this.deleteUser = addHandler(this, 'DeleteUser', {
      ...shared,
      handler: 'delete-user',
      description: 'rekey: retires superseded users and finishes deletions',
      timeout: timeouts.deleteUser,
      environment: { ...environment, ...lostRequestQueue, ...noteTableName } satisfies z.input<
        typeof deleteUserEnvironment
      >,
      statements: access.deleteUser,
      lostRequests,
    });
    this.receiveWebhook = addHandler(this, 'ReceiveWebhook', {
      ...shared,
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
      ...shared,
      handler: 'reconcile-users',
      description: 'rekey: compares every target with what is wanted, reports and repairs',
      timeout: timeouts.reconcileUsers,
      environment: {
        ...environment,
        ...lostRequestQueue,
        ...urgentTargetQueue,
        REKEY_TARGET_QUEUE_URL: queues.targets.queueUrl,
        ...noteTableName,
        REKEY_WEBHOOK_BASE_URL: this.webhooks.baseUrl,
      } satisfies z.input<typeof reconcileUsersEnvironment>,
      statements: access.reconcileUsers,
      lostRequests,
    });
    this.updateConsumers = addHandler(this, 'UpdateConsumers', {
      ...shared,
      handler: 'update-consumers',
      description: 'rekey: hands a new login to consumers that cannot read Secrets Manager',
      timeout: timeouts.updateConsumers,
      environment: { ...environment, ...lostRequestQueue, ...noteTableName } satisfies z.input<
        typeof updateConsumersEnvironment
      >,
      statements: access.updateConsumers,
      lostRequests,
    });
    this.recordAudit = addHandler(this, 'RecordAudit', {
      ...shared,
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

    const fed = {
      TargetsToReconcileUsers: ['targets', this.reconcileUsers],
      UrgentTargetsToReconcileUsers: ['urgentTargets', this.reconcileUsers],
      StartsToStartRotations: ['starts', this.startRotations],
      RequestsToCreateUser: ['requests', this.createUser],
      PausesToStartRotations: ['pauses', this.startRotations],
      OrdersToStartRotations: ['orders', this.startRotations],
      EventsToDeleteUser: ['deletions', this.deleteUser],
      EventsToReconcileUsers: ['vendorEvents', this.reconcileUsers],
      EventsToUpdateConsumers: ['newLogins', this.updateConsumers],
    } as const;
    for (const [id, [name, handler]] of Object.entries(fed))
      feed(this, id, { queue: queues[name], handler, ...workers[name] });

    const on = (
      id: string,
      rule: { bus?: EventBus; does: string; pattern: EventPattern; to: Queue | LambdaHandler },
    ) =>
      new Rule(this, id, {
        ...(rule.bus === undefined ? {} : { eventBus: rule.bus }),
        description: `rekey: ${rule.does}`,
        eventPattern: rule.pattern,
        targets: [
          rule.to instanceof Queue
            ? new EventsTo(rule.to, lostRequests)
            : new LambdaFunction(rule.to, {
                deadLetterQueue: lostRequests,
                retryAttempts: 185,
                maxEventAge: Duration.hours(24),
              }),
        ],
      });
    const facts = (...detailType: (RekeyEvent['type'] | CredentialOrder | PauseOrder)[]): EventPattern => ({
      source: [eventSource],
      detailType,
    });
    on('CredentialRequested', {
      bus,
      does: 'a credential was requested',
      pattern: { source: [eventSource], detailType: [credentialRequested] },
      to: queues.requests,
    });
    on('RotationOrdered', {
      bus,
      does: 'a rotation was ordered, or a credential is compromised',
      pattern: facts('CredentialRotationRequested', 'CredentialCompromised'),
      to: queues.orders,
    });
    on('RevocationOrdered', {
      bus,
      does: 'a credential is compromised: its older users go at once',
      pattern: facts('CredentialCompromised'),
      to: queues.deletions,
    });
    on('PauseOrdered', {
      bus,
      does: 'writes are to be paused, or to go on',
      pattern: facts(...pauseOrders),
      to: queues.pauses,
    });
    on('DeletionOrdered', {
      bus,
      does: 'a credential is to be deleted',
      pattern: facts('CredentialDeletionRequested'),
      to: queues.deletions,
    });
    on('CredentialRotated', {
      bus,
      does: 'a rotation has left a user behind',
      pattern: facts('CredentialRotated'),
      to: queues.deletions,
    });
    // On the account's default bus, where Secrets Manager tells of it.
    on('LoginChanged', {
      does: 'a credential has a new current login',
      pattern: {
        source: ['aws.secretsmanager'],
        detailType: ['Secret Label Updated'],
        detail: { labelUpdated: ['AWSCURRENT'], name: Match.prefix(secretPrefix) },
      },
      to: queues.newLogins,
    });
    on('ProviderEventReceived', {
      bus,
      does: 'a vendor told of something: its target is looked at soon',
      pattern: facts('ProviderEventReceived'),
      to: queues.vendorEvents,
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
      lostStarts,
      queues,
      toleratedForeignUsers: props.toleratedForeignUsers ?? 0,
      runbookUrl: props.runbookUrl ?? 'README.md',
      ...(props.alarmTopic === undefined ? {} : { topic: props.alarmTopic }),
    });
    this.dashboard = new Dashboard(this, 'Dashboard', {
      alarms: this.alarms,
      functions: {
        'rotate-secret': this.rotateSecret,
        'create-user': this.createUser,
        'start-rotations': this.startRotations,
        'delete-user': this.deleteUser,
        'reconcile-users': this.reconcileUsers,
        'update-consumers': this.updateConsumers,
        'receive-webhook': this.receiveWebhook,
        'record-audit': this.recordAudit,
      },
      queues,
      lostRequests,
      lostTargets,
      lostStarts,
    });

    for (const busName of props.consumerBuses ?? []) this.allowConsumerBus(busName);
    // Of every role below, whoever adds one.
    if (props.permissionsBoundary !== undefined)
      PermissionsBoundary.of(this).apply(props.permissionsBoundary);
  }

  /** Afterwards the functions may tell consumers on this bus of the account. */
  allowConsumerBus(busName: string): boolean {
    const { resources = [], ...statement } = tellConsumersOn(this, busName);
    if (this.telling.length === 0)
      this.telling = [this.updateConsumers, this.reconcileUsers].map((teller) => {
        const made = new PolicyStatement(statement);
        teller.addToRolePolicy(made);
        return made;
      });
    for (const made of this.telling) made.addResources(...resources);
    return true;
  }
}
