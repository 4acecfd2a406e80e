import { Aws, Duration, Validations } from 'aws-cdk-lib';
import { CfnRule, type IRuleTarget, type RuleTargetConfig } from 'aws-cdk-lib/aws-events';
import { PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { EventSourceMapping, type Function as LambdaHandler } from 'aws-cdk-lib/aws-lambda';
import { type IQueue, Queue, QueueEncryption, type QueueProps } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';
import { maxTries } from '../functions/core/queued-events.ts';

/** SQS keeps no message for longer (AWS documentation). */
export const longestRetention = Duration.days(14);

/** An encrypted queue that refuses calls without TLS. */
export const addQueue = (scope: Construct, id: string, props: QueueProps): Queue =>
  new Queue(scope, id, { encryption: QueueEncryption.SQS_MANAGED, enforceSSL: true, ...props });

/** A queue that operators read. No function consumes it. */
export function addDeadLetterQueue(scope: Construct, id: string, props: QueueProps = {}): Queue {
  const queue = addQueue(scope, id, { retentionPeriod: longestRetention, ...props });
  Validations.of(queue).acknowledge({
    id: 'Serverless-SQSRedrivePolicy',
    reason: 'A dead-letter queue: people read it, and nothing consumes it.',
  });
  return queue;
}

/**
 * Six times the function's time-out, as AWS advises. Otherwise SQS would hand out a batch a second time while Lambda retries a throttled
 * call. After a failure the function itself makes the message visible sooner.
 */
export const visibilityFor = (timeout: Duration): Duration => Duration.seconds(6 * timeout.toSeconds());

/** Holds the events of one function until it has processed them. Those that keep failing go to `lostRequests`. */
export const addEventQueue = (
  scope: Construct,
  id: string,
  { timeout, lostRequests }: { readonly timeout: Duration; readonly lostRequests: IQueue },
): Queue =>
  addQueue(scope, id, {
    visibilityTimeout: visibilityFor(timeout),
    retentionPeriod: longestRetention,
    deadLetterQueue: { queue: lostRequests, maxReceiveCount: maxTries },
  });

export interface FeedProps {
  readonly queue: IQueue;
  readonly handler: LambdaHandler;
  readonly batchSize: number;
  /** Batches at one time, at least 2. Bounds the concurrent calls to AWS and the vendors. */
  readonly maxConcurrency: number;
}

/** Makes Lambda hand the messages of a queue to a function. */
export function feed(scope: Construct, id: string, { queue, handler, ...bounds }: FeedProps): void {
  // Not by `addEventSource`, which widens the role. Lambda checks the role's permissions when the mapping is created.
  const mapping = new EventSourceMapping(scope, id, {
    target: handler,
    eventSourceArn: queue.queueArn,
    // One message that fails must not bring the others of its batch back.
    reportBatchItemFailures: true,
    ...bounds,
  });
  mapping.node.addDependency(handler.role ?? handler);
  Validations.of(mapping).acknowledge({
    id: 'Serverless-LambdaEventSourceMappingDestination',
    reason: 'A queue has no failure destination; its messages go to its own dead-letter queue.',
  });
}

/** EventBridge retries a delivery for a day, then sends the event to the rule's dead-letter queue. */
export const retries = {
  maximumRetryAttempts: 185,
  maximumEventAgeInSeconds: Duration.hours(24).toSeconds(),
};

/**
 * A queue as the target of a rule. Unlike CDK's SqsQueue, it grants the rule sqs:SendMessage only, in the account of the stack only, and
 * on the dead-letter queue of the rule as well.
 */
export class EventsTo implements IRuleTarget {
  private readonly queue: Queue;
  private readonly lostRequests: Queue;

  constructor(queue: Queue, lostRequests: Queue) {
    this.queue = queue;
    this.lostRequests = lostRequests;
  }

  bind(rule: Parameters<IRuleTarget['bind']>[0]): RuleTargetConfig {
    for (const queue of [this.queue, this.lostRequests]) letSend(queue, rule);
    return {
      arn: this.queue.queueArn,
      targetResource: this.queue,
      deadLetterConfig: { arn: this.lostRequests.queueArn },
      retryPolicy: retries,
    };
  }
}

/** By queue: the one policy statement that lets rules send, and the rules that it names. */
const senders = new WeakMap<Queue, { readonly statement: PolicyStatement; readonly rules: string[] }>();

/** One statement for all rules: a queue's policy may have at most ten conditions (AWS documentation). */
function letSend(queue: Queue, rule: Parameters<IRuleTarget['bind']>[0]): void {
  const { statement, rules } = senders.get(queue) ?? {
    statement: new PolicyStatement({
      sid: 'AllowEventRules',
      principals: [new ServicePrincipal('events.amazonaws.com')],
      actions: ['sqs:SendMessage'],
      resources: [queue.queueArn],
      conditions: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
    }),
    rules: [],
  };
  if (rules.length === 0) queue.addToResourcePolicy(statement);
  rules.push(CfnRule.arnForRule(rule));
  statement.addCondition('ArnEquals', { 'aws:SourceArn': [...rules] });
  senders.set(queue, { statement, rules });
}
