import { Aws, Duration, Validations } from 'aws-cdk-lib';
import { CfnRule, type IRuleTarget, type RuleTargetConfig } from 'aws-cdk-lib/aws-events';
import { PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { EventSourceMapping, type Function as LambdaHandler } from 'aws-cdk-lib/aws-lambda';
import { type IQueue, Queue, QueueEncryption, type QueueProps } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';
import { maxTries } from '../functions/core/queued-events.ts';

/** For as long as SQS keeps a message at all. */
export const longestRetention = Duration.days(14);

/** A queue that is encrypted, and reached over TLS only. */
export const addQueue = (scope: Construct, id: string, props: QueueProps): Queue =>
  new Queue(scope, id, { encryption: QueueEncryption.SQS_MANAGED, enforceSSL: true, ...props });

/** A queue that people read, and that nothing consumes. */
export function addDeadLetterQueue(scope: Construct, id: string, props: QueueProps = {}): Queue {
  const queue = addQueue(scope, id, { retentionPeriod: longestRetention, ...props });
  Validations.of(queue).acknowledge({
    id: 'Serverless-SQSRedrivePolicy',
    reason: 'A dead-letter queue: people read it, and nothing consumes it.',
  });
  return queue;
}

/**
 * Six times the function's time, as AWS advises: a batch that Lambda could not start at once is not handed out twice. The function
 * itself makes a message that failed come back sooner.
 */
export const visibilityFor = (timeout: Duration): Duration => Duration.seconds(6 * timeout.toSeconds());

/** Holds the events that drive one function until it has seen to them, or until people have to. */
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
  /** Batches at one time, 2 at least: what AWS and the vendors take from us at once is bounded by it. */
  readonly maxConcurrency: number;
}

/** Makes Lambda hand the messages of a queue to a function. */
export function feed(scope: Construct, id: string, { queue, handler, ...bounds }: FeedProps): void {
  // Not by `addEventSource`, which widens the role. Lambda tries the role as soon as the mapping is made.
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

/** What a rule of EventBridge does with an event that it could not deliver: it tries for a day, then keeps it. */
export const retries = {
  maximumRetryAttempts: 185,
  maximumEventAgeInSeconds: Duration.hours(24).toSeconds(),
};

/**
 * A rule's target. Unlike SqsQueue of CDK, it lets the rule send and nothing else, for the account of the stack only, and does so at
 * the queue of what could not be delivered as well.
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

/** By the queue: the one statement of its policy that lets rules send, and these rules. */
const senders = new WeakMap<Queue, { readonly statement: PolicyStatement; readonly rules: string[] }>();

/** One statement for all rules: the policy of a queue has room for ten conditions (AWS documentation). */
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
