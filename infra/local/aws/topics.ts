import type { Clock } from '../clock.ts';
import { type Random, randomUuid, systemRandom } from './random.ts';

/** What was published to a topic. */
export interface Publication {
  readonly messageId: string;
  readonly topicArn: string;
  readonly subject: string | undefined;
  readonly message: string;
  readonly publishedAt: Date;
}

export interface Subscription {
  readonly topicArn: string;
  readonly protocol: 'lambda' | 'sqs';
  /** ARN of the function or of the queue. */
  readonly endpoint: string;
  /** Only for queues: the message alone, without what SNS writes round it. @default false */
  readonly isRaw?: boolean;
}

export interface TopicsOptions {
  readonly clock: Clock;
  /** Calls a function, which may fail later. */
  readonly invoke: (functionArn: string, event: unknown, topicArn: string) => Promise<void>;
  /** Puts a message into a queue. */
  readonly send: (queueArn: string, body: string, topicArn: string) => void;
  /** @default systemRandom */
  readonly random?: Random;
}

export interface Topics {
  addTopic(arn: string): void;
  subscribe(subscription: Subscription): void;
  /** Afterwards the message is in the topic's history and on its way to whoever subscribed. Throws for an unknown topic. */
  publish(topicArn: string, message: string, subject?: string): Publication;
  /** All that was published, oldest first; without an ARN, to all topics. */
  published(topicArn?: string): readonly Publication[];
  /** Resolves once nothing is being delivered. */
  idle(): Promise<void>;
}

/** SNS in memory: standard topics, as AWS's own services publish to them. */
export function createTopics({ clock, invoke, send, random = systemRandom }: TopicsOptions): Topics {
  const topics = new Set<string>();
  const subscriptions: (Subscription & { readonly arn: string })[] = [];
  const history: Publication[] = [];
  const active = new Set<Promise<void>>();

  function deliver({ protocol, endpoint, isRaw, arn }: (typeof subscriptions)[number], sent: Publication) {
    const notification = {
      Type: 'Notification',
      MessageId: sent.messageId,
      TopicArn: sent.topicArn,
      ...(sent.subject !== undefined && { Subject: sent.subject }),
      Message: sent.message,
      Timestamp: sent.publishedAt.toISOString(),
    };
    if (protocol === 'sqs') {
      send(endpoint, isRaw ? sent.message : JSON.stringify(notification), sent.topicArn);
      return;
    }
    const record = { EventVersion: '1.0', EventSubscriptionArn: arn, EventSource: 'aws:sns' };
    const work: Promise<void> = invoke(
      endpoint,
      { Records: [{ ...record, Sns: notification }] },
      sent.topicArn,
    )
      // SNS tells nobody of a delivery that failed.
      .catch(() => undefined)
      .finally(() => active.delete(work));
    active.add(work);
  }

  return {
    addTopic: (arn) => void topics.add(arn),
    subscribe(subscription) {
      if (!topics.has(subscription.topicArn)) throw new Error(`no such topic: ${subscription.topicArn}`);
      subscriptions.push({ ...subscription, arn: `${subscription.topicArn}:${randomUuid(random)}` });
    },
    publish(topicArn, message, subject) {
      if (!topics.has(topicArn)) throw new Error(`no such topic: ${topicArn}`);
      const messageId = randomUuid(random);
      const sent = { messageId, topicArn, subject, message, publishedAt: clock.now() };
      history.push(sent);
      for (const subscription of subscriptions)
        if (subscription.topicArn === topicArn) deliver(subscription, sent);
      return sent;
    },
    published: (topicArn) => history.filter((sent) => topicArn === undefined || sent.topicArn === topicArn),
    async idle() {
      while (active.size > 0) await Promise.all(active);
    },
  };
}
