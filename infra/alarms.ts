import { ArnFormat, Aws, Duration, RemovalPolicy, Token } from 'aws-cdk-lib';
import {
  Alarm,
  ComparisonOperator,
  type IMetric,
  Metric,
  TreatMissingData,
} from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import { PolicyStatement, type PolicyStatementProps, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Key } from 'aws-cdk-lib/aws-kms';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { type ITopic, Topic } from 'aws-cdk-lib/aws-sns';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';
import { type MetricName, metricNamespace } from '../functions/core/metrics.ts';
import type { Queues } from './access.ts';
import { arnOf } from './handler.ts';

export interface AlarmsProps {
  readonly rotateSecret: IFunction;
  readonly reconcileUsers: IFunction;
  /** The functions that look after everything again and again, by what it means when one of them is silent. */
  readonly passes: readonly Pass[];
  /** Events and passes that came to nothing. */
  readonly lostRequests: IQueue;
  /** Targets that reconcile-users could not look at. */
  readonly lostTargets: IQueue;
  /** Starts of rotations that came to nothing. */
  readonly lostStarts: IQueue;
  readonly queues: Queues;
  /** How many foreign users a target may have, such as those of people. */
  readonly toleratedForeignUsers: number;
  /** Where README.md is, which has a row for every alarm. */
  readonly runbookUrl: string;
  /** @default one of its own */
  readonly topic?: ITopic;
}

export interface Pass {
  /** `<handler>` in functions/. */
  readonly handler: string;
  readonly function: IFunction;
  readonly every: Duration;
  /** What is not done while it is silent. */
  readonly consequence: string;
}

interface AlarmFacts {
  /** What is wrong, as people read it in a notification: the alarm is called `rekey-<name>`. */
  readonly name: string;
  /** What is known, and what to do first. */
  readonly description: string;
  /** In alarm from this value on, or below it where `below` says so. */
  readonly threshold: number;
  readonly below?: true;
  /** Consecutive periods. @default 1 */
  readonly periods?: number;
  /** What a period without a reading says. */
  readonly silence: TreatMissingData;
}

type MetricAlarm =
  | (AlarmFacts & { readonly statistic: 'Sum' | 'Maximum'; readonly period: Duration })
  | { readonly noAlarm: string };

/** How long the passes of start-rotations, and those of the sweeps, leave between two readings at most. */
const [quarter, hour] = [Duration.minutes(15), Duration.hours(1)];
const day = Duration.days(1);

/** Every alarm of rekey, and the topic that tells people. */
export class Alarms extends Construct {
  /** Alarms are published here. No one is notified until you subscribe to the topic. */
  readonly topic: ITopic;

  private readonly made: Alarm[] = [];
  private readonly runbookUrl: string;

  constructor(scope: Construct, id: string, props: AlarmsProps) {
    super(scope, id);
    const { toleratedForeignUsers, runbookUrl } = props;
    this.runbookUrl = runbookUrl;
    this.node.addValidation({
      validate: () => [...faultsOfRunbook(runbookUrl), ...faultsOfTolerance(toleratedForeignUsers)],
    });
    this.topic = props.topic ?? alarmTopic(this);
    for (const [metricName, alarm] of Object.entries(metricAlarms(props)))
      if (!('noAlarm' in alarm)) {
        const { statistic, period } = alarm;
        // Without dimensions and without a unit: CloudWatch then takes every reading of that name.
        this.add(
          metricName,
          alarm,
          new Metric({ namespace: metricNamespace, metricName, statistic, period }),
        );
      }
    this.addQueues(props);
    this.addFunctions(props);
  }

  /** For a dashboard, and for whoever wants other actions, too. */
  get all(): readonly Alarm[] {
    return this.made;
  }

  private addQueues({ lostRequests, lostTargets, lostStarts, queues }: AlarmsProps): void {
    const filled = { period: Duration.minutes(5), statistic: 'Maximum' };
    this.add(
      'LostRequests',
      {
        name: 'request-lost',
        description:
          'An event or a scheduled pass came to nothing. Read the queue: a message says why in its attribute ERROR_MESSAGE, or in responsePayload; of one without either, its id is in the log of the function, at warn. Mend what the error names, send the events again, then purge. Nothing is locked out: the next passes find what is to do, but requests for credentials and orders are only here; of an event for record-audit the archive has a copy.',
        threshold: 1,
        silence: TreatMissingData.NOT_BREACHING,
      },
      lostRequests.metricApproximateNumberOfMessagesVisible(filled),
    );
    this.add(
      'LostTargets',
      {
        name: 'target-not-reconciled',
        description:
          'A target could not be looked at in three tries, ten minutes apart. The message names it: look for the target in the log of rekey-reconcile-users, mend what the error says, then purge the queue. The next pass looks again by itself.',
        threshold: 1,
        silence: TreatMissingData.NOT_BREACHING,
      },
      lostTargets.metricApproximateNumberOfMessagesVisible(filled),
    );
    this.add(
      'LostStarts',
      {
        name: 'start-lost',
        description:
          'A rotation could not be started for four hours. The message names credential and target: look for the credential in the log of rekey-start-rotations, mend what the error says, then purge the queue. Nothing is forgotten: orders are stored, and each pass looks again.',
        threshold: 1,
        silence: TreatMissingData.NOT_BREACHING,
      },
      lostStarts.metricApproximateNumberOfMessagesVisible(filled),
    );
    for (const [name, { alarm, description, seconds }] of Object.entries(behind))
      this.add(
        `${name}-behind`,
        { name: alarm, description, threshold: seconds, silence: TreatMissingData.NOT_BREACHING },
        queues[name as keyof Queues].metricApproximateAgeOfOldestMessage(filled),
      );
  }

  private addFunctions({ rotateSecret, reconcileUsers, passes }: AlarmsProps): void {
    // What the other functions fail on comes again out of its queue, or lies in that of lost requests.
    this.add(
      'RotateSecretErrors',
      {
        name: 'rotate-secret-failing',
        description:
          'rotate-secret failed three times in a quarter of an hour; time-outs and crashes are counted here only. AWSCURRENT was not moved. Look at the end of its log: without an error it was cut off while it waited for a vendor.',
        threshold: 3,
        silence: TreatMissingData.NOT_BREACHING,
      },
      rotateSecret.metricErrors({ period: quarter, statistic: 'Sum' }),
    );
    this.add(
      'RotateSecretThrottles',
      {
        name: 'rotate-secret-throttled',
        description:
          "Lambda refused calls of rotate-secret. Secrets Manager gives up on a rotation after some tries: raise the account's concurrency limit, or find out which function uses it up.",
        threshold: 1,
        silence: TreatMissingData.NOT_BREACHING,
      },
      rotateSecret.metricThrottles({ period: quarter, statistic: 'Sum' }),
    );
    this.add(
      'ReconcileUsersErrors',
      {
        name: 'reconcile-users-failing',
        description:
          'reconcile-users failed as a whole three times in an hour, so drift goes unseen. Look at the end of its log; single targets that fail are not counted here.',
        threshold: 3,
        silence: TreatMissingData.NOT_BREACHING,
      },
      reconcileUsers.metricErrors({ period: hour, statistic: 'Sum' }),
    );
    for (const { handler, function: silent, every, consequence } of passes)
      this.add(
        `${handler}-silent`,
        {
          name: `${handler}-silent`,
          description: `${handler} has not run for three of its passes: ${consequence}. See whether its schedule in the group rekey is enabled, and whether the queue of lost requests holds what Scheduler could not deliver.`,
          threshold: 1,
          below: true,
          periods: 3,
          // Lambda writes no reading for a function that nobody calls.
          silence: TreatMissingData.BREACHING,
        },
        silent.metricInvocations({ period: every, statistic: 'Sum' }),
      );
  }

  private add(
    id: string,
    { name, description, threshold, below, periods = 1, silence }: AlarmFacts,
    metric: IMetric,
  ): void {
    const alarm = new Alarm(this, id, {
      alarmName: `${alarmNamePrefix}${name}`,
      alarmDescription: `${description} Runbook: ${this.runbookUrl}#${alarmNamePrefix}${name}`,
      metric,
      threshold,
      comparisonOperator:
        below === undefined
          ? ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
          : ComparisonOperator.LESS_THAN_THRESHOLD,
      evaluationPeriods: periods,
      treatMissingData: silence,
    });
    alarm.addAlarmAction(new SnsAction(this.topic));
    this.made.push(alarm);
  }
}

const alarmNamePrefix = 'rekey-';

interface Behind {
  readonly alarm: string;
  readonly description: string;
  /** Longer than the function may take for a message and its neighbours, retries of tasks included. */
  readonly seconds: number;
}

const minutes = (count: number): number => Duration.minutes(count).toSeconds();

/**
 * How old the oldest message of a queue may get. CloudWatch leaves a message out that was received more than three times (AWS
 * documentation): these alarms say that a function does not get to its messages. RetriedEventAge says that it fails on them.
 */
const behind: Readonly<Record<keyof Queues, Behind>> = {
  pauses: {
    alarm: 'pauses-behind',
    description:
      'RekeyPaused or RekeyResumed has waited five minutes without being stored. Until a pause is stored, rekey keeps writing to vendors. To pause at once, store the parameter /rekey/pause/all yourself, as the runbook says. Then see whether the event source mapping is enabled, whether Lambda throttles rekey-start-rotations, and whether its log ends in a crash or says that Parameter Store throttles.',
    // Shorter than the function may take: if Parameter Store refuses a pause for so long, an operator must act even if the function is
    // still retrying.
    seconds: minutes(5),
  },
  orders: {
    alarm: 'orders-behind',
    description:
      'An order has waited for a quarter of an hour, and is not stored. It is kept for 14 days. See whether the event source mapping is enabled, whether Lambda throttles rekey-start-rotations, and whether its log ends in a crash.',
    seconds: minutes(15),
  },
  deletions: {
    alarm: 'deletions-behind',
    description:
      'An order to delete or revoke, or a credential that was rotated, has waited for an hour; leaked users may still be there. It is kept for 14 days. See whether the event source mapping is enabled, whether Lambda throttles rekey-delete-user, and whether its log ends in a crash.',
    seconds: minutes(60),
  },
  requests: {
    alarm: 'requests-behind',
    description:
      'A request for a credential has waited for a quarter of an hour. It is kept for 14 days. See whether the event source mapping is enabled, whether Lambda throttles rekey-create-user, and whether its log ends in a crash.',
    seconds: minutes(15),
  },
  starts: {
    alarm: 'starts-behind',
    description:
      'The start of a rotation has waited for two hours. See in the log of rekey-start-rotations what holds it, and whether the event source mapping is enabled and Lambda throttles the function.',
    seconds: minutes(120),
  },
  newLogins: {
    alarm: 'new-logins-behind',
    description:
      'Consumers have waited for an hour to be told of a new login; the user before is kept meanwhile. See whether the event source mapping is enabled, whether Lambda throttles rekey-update-consumers, and which deploys are slow.',
    seconds: minutes(60),
  },
  vendorEvents: {
    alarm: 'vendor-events-behind',
    description:
      'What a vendor told has waited for a quarter of an hour. Nothing is lost: each pass looks at every target. See whether the event source mapping is enabled, and whether Lambda throttles rekey-reconcile-users.',
    seconds: minutes(15),
  },
  urgentTargets: {
    alarm: 'urgent-looks-behind',
    description:
      'A target has waited for an hour to be looked at urgently: after an event of its vendor, or as a rotation has stopped in its middle, which under reset-password refuses logins. See whether the event source mapping is enabled, and what the log of rekey-reconcile-users says.',
    seconds: minutes(60),
  },
  targets: {
    alarm: 'routine-looks-behind',
    description:
      'A target has waited for two hours to be looked at, though each is to be looked at every hour: reconcile-users falls behind, and drift goes unseen for as long. See in its log which target takes so long; with many targets, raise maxConcurrency of targets in infra/workers.ts.',
    seconds: minutes(120),
  },
};

/** What is wrong with the address, if anything: a link that breaks is found out in the middle of the night. */
function faultsOfRunbook(url: string): string[] {
  if (Token.isUnresolved(url)) return [];
  // CloudWatch takes descriptions of up to 1024 characters; ours need up to half of them.
  const wrong = url === '' || url.length > 500 || /[\s#]/.test(url);
  return wrong
    ? [
        `runbookUrl: expected the address of README.md without a fragment, in at most 500 characters, got ${JSON.stringify(url.slice(0, 500))}; leave it out, or give for example https://git.example.com/rekey/README.md`,
      ]
    : [];
}

function faultsOfTolerance(users: number): string[] {
  if (Token.isUnresolved(users) || (Number.isInteger(users) && users >= 0)) return [];
  return [
    `toleratedForeignUsers: expected 0 or a whole number above, got ${users}; give how many belong there`,
  ];
}

/**
 * What each metric means to people. Those that the passes write are always there, zero included; a pass that did not come says
 * nothing about them, so the state stays, and the alarm on silence tells the rest.
 */
function metricAlarms({ toleratedForeignUsers }: AlarmsProps): Readonly<Record<MetricName, MetricAlarm>> {
  const eachTarget = { statistic: 'Maximum', period: hour, silence: TreatMissingData.IGNORE } as const;
  const eachPass = { statistic: 'Maximum', period: quarter, silence: TreatMissingData.IGNORE } as const;
  return {
    RotationsSucceeded: { noAlarm: 'good news; where it stops, RotationOverdueAge grows' },
    RotationsFailed: {
      name: 'rotation-failed',
      description:
        'A rotation failed. AWSCURRENT was not moved, and Secrets Manager tries again by itself. The event CredentialRotationFailed and the log of rekey-rotate-secret give the code, or that of rekey-start-rotations where it could not even begin; README.md says what each code wants done.',
      statistic: 'Sum',
      period: Duration.minutes(5),
      threshold: 1,
      silence: TreatMissingData.NOT_BREACHING,
    },
    RotationOverdueAge: {
      ...eachPass,
      name: 'rotation-overdue',
      description:
        'A credential should have been rotated an hour ago. Invoke rekey-start-rotations with {"pass": "scheduled", "dryRun": true}: it says for each credential what holds it up. Its login keeps working.',
      threshold: 3_600,
    },
    PausedAge: {
      ...eachPass,
      name: 'paused',
      description:
        'All writes, or those on one target, have been paused for a day. Meanwhile nothing is rotated there and no superseded user goes, so old logins stay valid. The parameters below /rekey/pause/ say what is paused and since when. If nobody needs the pause any more, send RekeyResumed.',
      threshold: day.toSeconds(),
    },
    RotationsStuck: {
      ...eachTarget,
      name: 'rotation-stuck',
      description:
        'A half-made version has been in the way of a credential for more than an hour, and reconcile-users could not end it within a pass. The finding RotationStuck names credential and version; its remedy says what to do.',
      threshold: 1,
      // The first pass that sees one also mends it, as a rule.
      periods: 2,
    },
    OrphanedUsers: {
      ...eachTarget,
      name: 'user-orphaned',
      description:
        'A user carries the prefix of a credential, and no version names it: a version was deleted, or the user was made by hand. rekey never touches it. Find out who uses it, then delete it at the vendor.',
      threshold: 1,
    },
    ForeignUsers: {
      ...eachTarget,
      name: 'user-foreign',
      description:
        'A target has users that rekey knows nothing of. The finding ForeignUser names them. Delete them at the vendor, or let the stack tolerate as many as belong there.',
      threshold: toleratedForeignUsers + 1,
    },
    RetiredStillConnectedAge: {
      ...eachTarget,
      name: 'retired-user-still-connected',
      description:
        'A client is connected as a superseded user past its drain deadline. The finding RetiredStillConnected gives application name and address: restart that client. Nothing is cut unless the spec says force.',
      threshold: 1,
    },
    BreakersOpen: {
      ...eachPass,
      name: 'breaker-open',
      description:
        'Rotations of several credentials of a target failed and none succeeded, so no more are started but one trial at a time. The event BreakerChanged names the target; mend what CredentialRotationFailed says, and the next trial closes it.',
      threshold: 1,
    },
    OpenFindings: {
      ...eachTarget,
      name: 'findings-stay-open',
      description:
        'Something has been wrong in three passes and is not repaired by itself. The events DriftFound say what, with the remedy; so does the log of rekey-reconcile-users.',
      // Each foreign user is a finding.
      threshold: toleratedForeignUsers + 1,
      periods: 3,
    },
    ConsumerBehindAge: {
      ...eachTarget,
      name: 'consumer-behind',
      description:
        'A consumer has not had the current login for an hour. The finding ConsumerBehind names it and what its platform says; most often a deploy failed. The user before is kept until it has moved.',
      threshold: 3_600,
    },
    WebhooksRejected: {
      name: 'webhooks-rejected',
      description:
        'Ten deliveries to the webhook address in a quarter of an hour were not signed with a secret that we know. Nothing was believed. If the log of rekey-receive-webhook says NO_MATCH and Render shows failures, the secret in rekey/webhooks/render is not that of the webhook; else somebody is trying, and the access log says from where.',
      statistic: 'Sum',
      period: quarter,
      threshold: 10,
      silence: TreatMissingData.NOT_BREACHING,
    },
    WebhooksOdd: {
      name: 'webhooks-odd',
      description:
        'A delivery was signed by the vendor and is not as it describes them. It was taken in all the same, and its target is looked at. The log of rekey-receive-webhook says what is odd; the vendor may have changed its webhooks.',
      statistic: 'Sum',
      period: hour,
      threshold: 1,
      silence: TreatMissingData.NOT_BREACHING,
    },
    WebhooksDeferred: {
      name: 'webhooks-deferred',
      description:
        'A vendor was asked to send a webhook again, as the bus or the secret could not be reached. Mend what the log of rekey-receive-webhook says within a day: after eight tries in about 33 hours Render switches the webhook off.',
      statistic: 'Sum',
      period: Duration.minutes(5),
      threshold: 1,
      silence: TreatMissingData.NOT_BREACHING,
    },
    WebhooksDisabled: {
      ...eachTarget,
      name: 'webhook-disabled',
      description:
        'A webhook was switched off by its vendor, is gone, or has been silent for an hour about a change that it should have told of. The finding WebhookDisabled says which, and what to do at the vendor. Nothing is lost: the lists of users are compared in each pass meanwhile.',
      threshold: 1,
    },
    WebhooksMissed: {
      name: 'webhooks-missed',
      description:
        'Three times in a day a user or an event at a vendor was found by looking, though a webhook should have told of it. All of it is on the bus and in the audit trail, marked isCaughtUp. See at the vendor which deliveries failed and what was answered, and what the log of rekey-receive-webhook and the access log say of that time.',
      statistic: 'Sum',
      period: day,
      // One that is found so may just be a webhook that a pass has overtaken.
      threshold: 3,
      silence: TreatMissingData.NOT_BREACHING,
    },
    RetriedEventAge: {
      name: 'event-retried',
      description:
        'An order, a request or an event has failed for a quarter of an hour. It comes again by itself, every quarter of an hour or so, for two days at least. The log of the function that it is for says why, with its message id: look for "the event comes again". Most often AWS throttles or a vendor is down: then nothing is to be done.',
      statistic: 'Maximum',
      period: Duration.minutes(30),
      threshold: minutes(15),
      silence: TreatMissingData.NOT_BREACHING,
    },
    AuditWriteFailed: {
      name: 'audit-write-failed',
      description:
        'An audit record or a seal could not be written. It is tried again, and what fails three times lies in the queue of lost requests. Mend what the log of rekey-record-audit says, then replay the archive rekey on the bus to the rule of record-audit only: what is there already is not written twice.',
      statistic: 'Sum',
      period: Duration.minutes(5),
      threshold: 1,
      silence: TreatMissingData.NOT_BREACHING,
    },
    AuditUnsealedAge: {
      name: 'audit-unsealed',
      description:
        'For two days no pass of record-audit came to its end, or a day that is over has waited as long for its seal. Until it has one, a record that goes missing from it is not noticed. See whether the schedule record-audit in the group rekey is enabled, and what the log of rekey-record-audit says.',
      statistic: 'Maximum',
      period: day,
      threshold: 2 * day.toSeconds(),
      periods: 2,
      silence: TreatMissingData.BREACHING,
    },
  };
}

/**
 * Encrypted under a key of its own: CloudWatch may not use the one that AWS manages for SNS, and would lose every alarm in silence
 * (AWS documentation). For the same reason it must be let in by name: a policy of one's own, here the one that wants TLS,
 * replaces the default one that lets the account's services publish.
 */
function alarmTopic(scope: Construct): Topic {
  const cloudWatch = (sid: string, actions: string[], resources: string[]): PolicyStatementProps => ({
    sid,
    principals: [new ServicePrincipal('cloudwatch.amazonaws.com')],
    actions,
    resources,
    conditions: {
      StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID },
      ArnLike: {
        'aws:SourceArn': arnOf(
          scope,
          'cloudwatch',
          'alarm',
          `${alarmNamePrefix}*`,
          ArnFormat.COLON_RESOURCE_NAME,
        ),
      },
    },
  });
  const key = new Key(scope, 'Key', {
    description: 'rekey: alarms on their way to people',
    enableKeyRotation: true,
    // Nothing is kept under it.
    removalPolicy: RemovalPolicy.DESTROY,
    pendingWindow: Duration.days(7),
  });
  // Wildcard: in a key's own policy it stands for that key (AWS documentation).
  key.addToResourcePolicy(
    new PolicyStatement(cloudWatch('AlarmsUseKey', ['kms:Decrypt', 'kms:GenerateDataKey*'], ['*'])),
  );
  const topic = new Topic(scope, 'Topic', {
    displayName: 'rekey: alarms',
    masterKey: key,
    enforceSSL: true,
  });
  topic.addToResourcePolicy(
    new PolicyStatement(cloudWatch('AlarmsPublish', ['sns:Publish'], [topic.topicArn])),
  );
  return topic;
}
