import { createHash } from 'node:crypto';
import * as z from 'zod';
import { type Clock, pause } from '../clock.ts';
import { AwsError } from './aws-error.ts';
import { type Random, randomUuid, systemRandom } from './random.ts';
import {
  type Authorization,
  type AwsService,
  authorizationsBy,
  operation,
  serveOperation,
} from './service.ts';

export interface QueueOptions {
  readonly name: string;
  /**
   * Hands out the messages of a group in order and one batch at a time, and takes none twice within five minutes. Its name ends in
   * `.fifo`. @default false
   */
  readonly isFifo?: boolean;
  /** For how long a message that was received is shown to nobody else, 0 to 43 200. @default 30 */
  readonly visibilityTimeoutSeconds?: number;
  /** Before a message is shown for the first time, 0 to 900. @default 0 */
  readonly delaySeconds?: number;
  /** 60 to 1 209 600. @default 345600, four days */
  readonly retentionSeconds?: number;
  /** Where a message goes that was received so often and never deleted. @default it stays until its retention is over */
  readonly redrive?: { readonly deadLetterArn: string; readonly maxReceiveCount: number };
}

export interface MessageAttribute {
  readonly DataType: string;
  readonly StringValue?: string | undefined;
  readonly BinaryValue?: string | undefined;
}

/** A message as its queue keeps it. */
export interface QueuedMessage {
  readonly messageId: string;
  readonly body: string;
  readonly messageAttributes: Readonly<Record<string, MessageAttribute>>;
  readonly sentAt: Date;
  /** The principal that sent it. */
  readonly senderId: string;
  readonly receiveCount: number;
  /** Where it failed before it came here. */
  readonly deadLetterSourceArn: string | undefined;
  /** Only in a queue that keeps order. */
  readonly order?: MessageOrder | undefined;
}

export interface MessageOrder {
  readonly groupId: string;
  readonly deduplicationId: string;
  readonly sequenceNumber: string;
}

export interface ReceivedMessage extends QueuedMessage {
  /** Names this receipt of the message, not the message. */
  readonly receiptHandle: string;
  readonly firstReceivedAt: Date;
}

export interface QueuesOptions {
  /** Twelve digits. */
  readonly account: string;
  readonly region: string;
  readonly clock: Clock;
  /** @default systemRandom */
  readonly random?: Random;
}

export interface Queues extends AwsService {
  /** Afterwards the queue takes messages. A dead-letter queue may be added later than its sources. */
  addQueue(options: QueueOptions): void;
  /** Puts a message into a queue, as another service of AWS does. Throws when there is no such queue. */
  send(
    queueArn: string,
    body: string,
    messageAttributes?: Readonly<Record<string, MessageAttribute>>,
    senderId?: string,
  ): string;
  /** Up to `limit` messages, none of which is shown again before the visibility time-out. */
  receive(queueArn: string, limit: number): readonly ReceivedMessage[];
  /** Deletes the message of that receipt, unless it was received again since. */
  remove(queueArn: string, receiptHandle: string): void;
  /** Every message that a queue keeps, shown or not, oldest first. */
  messages(queueArn: string): readonly QueuedMessage[];
  /** What ApproximateNumberOfMessagesVisible counts. */
  visibleCount(queueArn: string): number;
  /** What ApproximateAgeOfOldestMessage says, in seconds; 0 for an empty queue. */
  oldestAgeSeconds(queueArn: string): number;
  /** `listener` is called whenever a message may have become visible, until the returned function is called. */
  onVisible(queueArn: string, listener: () => void): () => void;
  /** Afterwards nothing of the queues waits any more. */
  stop(): void;
}

interface Message {
  readonly messageId: string;
  readonly body: string;
  readonly messageAttributes: Readonly<Record<string, MessageAttribute>>;
  readonly sentAt: Date;
  readonly senderId: string;
  readonly deadLetterSourceArn: string | undefined;
  readonly order: MessageOrder | undefined;
  /** Where its age begins for the metric; in a queue that keeps order, for its retention, too (AWS documentation). */
  readonly arrivedAt: Date;
  receiveCount: number;
  firstReceivedAt: Date | undefined;
  visibleAt: number;
  /** Ends the wait for `visibleAt`. */
  waiting: AbortController | undefined;
}

interface Queue {
  readonly options: Required<Omit<QueueOptions, 'redrive'>> & Pick<QueueOptions, 'redrive'>;
  readonly arn: string;
  readonly createdAt: Date;
  messages: Message[];
  readonly listeners: Set<() => void>;
  /** By deduplication id, what was sent under it within the last five minutes, whether it is still in the queue or not. */
  readonly taken: Map<string, { readonly at: number; readonly messageId: string; readonly sequence: string }>;
}

const queueUrl = z.string();
const attributes = z
  .record(
    z.string(),
    z.object({
      DataType: z.string(),
      StringValue: z.string().optional(),
      BinaryValue: z.string().optional(),
    }),
  )
  .default({});
const seconds = (max: number) => z.int().min(0).max(max);
/** Letters, digits and punctuation (AWS documentation). */
const orderId = z.string().regex(/^[\x21-\x7e]{1,128}$/);
const sending = z.object({
  MessageBody: z.string(),
  DelaySeconds: seconds(900).optional(),
  MessageAttributes: attributes,
  MessageGroupId: orderId.optional(),
  MessageDeduplicationId: orderId.optional(),
});
const schemas = {
  SendMessage: sending.extend({ QueueUrl: queueUrl }),
  SendMessageBatch: z.object({
    QueueUrl: queueUrl,
    Entries: z.array(sending.extend({ Id: z.string() })),
  }),
  ReceiveMessage: z.object({
    QueueUrl: queueUrl,
    MaxNumberOfMessages: z.int().min(1).max(10).default(1),
    VisibilityTimeout: seconds(43_200).optional(),
    WaitTimeSeconds: seconds(20).default(0),
    AttributeNames: z.array(z.string()).default([]),
    MessageSystemAttributeNames: z.array(z.string()).default([]),
    MessageAttributeNames: z.array(z.string()).default([]),
  }),
  DeleteMessage: z.object({ QueueUrl: queueUrl, ReceiptHandle: z.string() }),
  DeleteMessageBatch: z.object({
    QueueUrl: queueUrl,
    Entries: z.array(z.object({ Id: z.string(), ReceiptHandle: z.string() })),
  }),
  ChangeMessageVisibility: z.object({
    QueueUrl: queueUrl,
    ReceiptHandle: z.string(),
    VisibilityTimeout: seconds(43_200),
  }),
  GetQueueAttributes: z.object({ QueueUrl: queueUrl, AttributeNames: z.array(z.string()).default([]) }),
  GetQueueUrl: z.object({ QueueName: z.string() }),
} as const;

// Names, query codes and statuses: the model of the service, as the SDK ships it.
const refusals = {
  queueUnknown: () =>
    new AwsError(
      'com.amazonaws.sqs#QueueDoesNotExist',
      'The specified queue does not exist.',
      400,
      'AWS.SimpleQueueService.NonExistentQueue',
    ),
  handleInvalid: () =>
    new AwsError(
      'com.amazonaws.sqs#ReceiptHandleIsInvalid',
      'The input receipt handle is invalid.',
      404,
      'ReceiptHandleIsInvalid',
    ),
  notInFlight: () =>
    new AwsError(
      'com.amazonaws.sqs#MessageNotInflight',
      'The message referred to is not in flight.',
      400,
      'AWS.SimpleQueueService.MessageNotInflight',
    ),
  batchEmpty: () =>
    new AwsError(
      'com.amazonaws.sqs#EmptyBatchRequest',
      'There should be at least one entry in the request.',
      400,
      'AWS.SimpleQueueService.EmptyBatchRequest',
    ),
  batchTooMany: (count: number) =>
    new AwsError(
      'com.amazonaws.sqs#TooManyEntriesInBatchRequest',
      `Maximum number of entries per request are 10. You have sent ${count}.`,
      400,
      'AWS.SimpleQueueService.TooManyEntriesInBatchRequest',
    ),
  batchIdsTwice: (id: string) =>
    new AwsError(
      'com.amazonaws.sqs#BatchEntryIdsNotDistinct',
      `Id ${id} repeated.`,
      400,
      'AWS.SimpleQueueService.BatchEntryIdsNotDistinct',
    ),
  batchTooLong: (bytes: number) =>
    new AwsError(
      'com.amazonaws.sqs#BatchRequestTooLong',
      `Batch requests cannot be longer than ${sizeLimit} bytes. You have sent ${bytes} bytes.`,
      400,
      'AWS.SimpleQueueService.BatchRequestTooLong',
    ),
  messageTooLong: () =>
    new AwsError(
      'InvalidParameterValue',
      `One or more parameters are invalid. Reason: Message must be shorter than ${sizeLimit} bytes.`,
      400,
      'InvalidParameterValue',
    ),
};

/** What a queue that keeps order wants of a message, and what only the others take. Of a batch, these entries fail alone. */
const orderRefusals = {
  groupMissing: () =>
    new AwsError(
      'MissingParameter',
      'The request must contain the parameter MessageGroupId.',
      400,
      'MissingParameter',
    ),
  deduplicationMissing: () =>
    new AwsError(
      'InvalidParameterValue',
      'The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly',
      400,
      'InvalidParameterValue',
    ),
  notOfThisType: (parameter: string, value: unknown) =>
    new AwsError(
      'InvalidParameterValue',
      `Value ${value} for parameter ${parameter} is invalid. Reason: The request include parameter that is not valid for this queue type.`,
      400,
      'InvalidParameterValue',
    ),
};

/** How long a queue that keeps order remembers what was sent (AWS documentation). */
const deduplicationMs = 5 * 60_000;

const sizeLimit = 1024 * 1024;
const md5 = (text: string): string => createHash('md5').update(text).digest('hex');

/** A standard queue may hand out a receipt handle of any form; this one says which receipt of which message it is. */
const handleOf = (message: Message): string =>
  Buffer.from(`${message.messageId}#${message.receiveCount}`).toString('base64url');
const handlePattern = /^([0-9a-f-]{36})#(\d+)$/;

/** SQS in memory: queues with visibility, delay, retention and dead letters, and those that keep order. */
export function createQueues({ account, region, clock, random = systemRandom }: QueuesOptions): Queues {
  const queues = new Map<string, Queue>();
  const stopping = new AbortController();
  const nowMs = () => clock.now().getTime();
  const arnOf = (name: string) => `arn:aws:sqs:${region}:${account}:${name}`;

  function byArn(arn: string): Queue {
    const queue = queues.get(arn);
    if (queue === undefined) throw new Error(`no such queue: ${arn}`);
    dropExpired(queue);
    return queue;
  }

  function byUrl(url: string): Queue {
    const queue = queues.get(arnOf(url.split('/').at(-1) ?? ''));
    if (queue === undefined) throw refusals.queueUnknown();
    dropExpired(queue);
    return queue;
  }

  function dropExpired(queue: Queue): void {
    const oldest = nowMs() - queue.options.retentionSeconds * 1000;
    const isOver = ({ sentAt, arrivedAt }: Message): boolean =>
      (queue.options.isFifo ? arrivedAt : sentAt).getTime() <= oldest;
    for (const message of queue.messages) if (isOver(message)) message.waiting?.abort();
    queue.messages = queue.messages.filter((message) => !isOver(message));
  }

  const tell = (queue: Queue): void => {
    for (const listener of [...queue.listeners]) listener();
  };

  /** From `until` on the message is shown, and whoever listens is told then. */
  function hide(queue: Queue, message: Message, until: number): void {
    message.waiting?.abort();
    message.waiting = undefined;
    message.visibleAt = until;
    const ms = until - nowMs();
    if (ms <= 0) {
      tell(queue);
      return;
    }
    // Without a listener nobody waits for it: whoever receives looks at the clock.
    if (queue.listeners.size === 0) return;
    const waiting = new AbortController();
    message.waiting = waiting;
    void pause(clock, ms, AbortSignal.any([waiting.signal, stopping.signal])).then(() => {
      if (!waiting.signal.aborted && !stopping.signal.aborted) tell(queue);
    });
  }

  function put(
    queue: Queue,
    message: Omit<Message, 'arrivedAt' | 'receiveCount' | 'firstReceivedAt' | 'visibleAt' | 'waiting'>,
    delaySeconds = queue.options.delaySeconds,
  ): void {
    const added: Message = {
      ...message,
      arrivedAt: clock.now(),
      receiveCount: 0,
      firstReceivedAt: undefined,
      visibleAt: 0,
      waiting: undefined,
    };
    queue.messages.push(added);
    hide(queue, added, nowMs() + delaySeconds * 1000);
  }

  function discard(queue: Queue, message: Message): void {
    message.waiting?.abort();
    queue.messages = queue.messages.filter((each) => each !== message);
    // Its group goes on.
    if (queue.options.isFifo) tell(queue);
  }

  /** Moves what was received too often to the dead-letter queue, where its age keeps counting (AWS documentation). */
  function redrive(queue: Queue, message: Message): boolean {
    const { redrive: policy } = queue.options;
    if (policy === undefined || message.receiveCount < policy.maxReceiveCount) return false;
    const letters = queues.get(policy.deadLetterArn);
    if (letters === undefined) return false;
    discard(queue, message);
    put(letters, { ...message, deadLetterSourceArn: queue.arn });
    return true;
  }

  function take(
    queue: Queue,
    limit: number,
    visibilitySeconds = queue.options.visibilityTimeoutSeconds,
  ): readonly ReceivedMessage[] {
    const now = clock.now();
    const taken: ReceivedMessage[] = [];
    // A group waits for what was received of it, and for what comes before in it.
    const closed = new Set<string>();
    for (const message of [...queue.messages]) {
      if (taken.length >= limit) break;
      const group = message.order?.groupId;
      if (group !== undefined && closed.has(group)) continue;
      if (message.visibleAt > now.getTime()) {
        if (group !== undefined) closed.add(group);
        continue;
      }
      if (redrive(queue, message)) continue;
      message.receiveCount += 1;
      message.firstReceivedAt ??= now;
      hide(queue, message, now.getTime() + visibilitySeconds * 1000);
      taken.push({
        ...shown(message),
        receiptHandle: handleOf(message),
        firstReceivedAt: message.firstReceivedAt,
      });
    }
    return taken;
  }

  /** The message of a receipt; undefined when it is gone or was received again. */
  function ofHandle(queue: Queue, receiptHandle: string): Message | undefined {
    const [, id, count] = handlePattern.exec(Buffer.from(receiptHandle, 'base64url').toString()) ?? [];
    if (id === undefined) throw refusals.handleInvalid();
    return queue.messages.find(
      ({ messageId, receiveCount }) => messageId === id && receiveCount === Number(count),
    );
  }

  function remove(queue: Queue, receiptHandle: string): void {
    const message = ofHandle(queue, receiptHandle);
    if (message !== undefined) discard(queue, message);
  }

  /** Resolves when a message may be visible, or when the time is over. */
  async function untilVisible(queue: Queue, ms: number): Promise<void> {
    const arrived = new AbortController();
    const listen = () => arrived.abort();
    queue.listeners.add(listen);
    await pause(clock, ms, AbortSignal.any([arrived.signal, stopping.signal]));
    queue.listeners.delete(listen);
  }

  function checkBatch(entries: readonly { readonly Id: string }[]): void {
    if (entries.length === 0) throw refusals.batchEmpty();
    if (entries.length > 10) throw refusals.batchTooMany(entries.length);
    const ids = new Set<string>();
    for (const { Id } of entries) {
      if (ids.has(Id)) throw refusals.batchIdsTwice(Id);
      ids.add(Id);
    }
  }

  const sizeOf = (text: string) => Buffer.byteLength(text);

  function accept(
    queue: Queue,
    {
      MessageBody,
      DelaySeconds,
      MessageAttributes,
      MessageGroupId: groupId,
      MessageDeduplicationId: deduplicationId,
    }: z.output<typeof sending>,
    principal: string | undefined,
  ) {
    if (sizeOf(MessageBody) > sizeLimit) throw refusals.messageTooLong();
    const messageId = randomUuid(random);
    const order = orderIn(queue, { groupId, deduplicationId, delaySeconds: DelaySeconds });
    if (order !== undefined) {
      const before = queue.taken.get(order.deduplicationId);
      // Accepted, and not delivered: the answer names the message that was there before.
      if (before !== undefined && nowMs() - before.at < deduplicationMs)
        return {
          MessageId: before.messageId,
          MD5OfMessageBody: md5(MessageBody),
          SequenceNumber: before.sequence,
        };
      queue.taken.set(order.deduplicationId, {
        at: nowMs(),
        messageId,
        sequence: order.sequenceNumber,
      });
    }
    put(
      queue,
      {
        messageId,
        body: MessageBody,
        messageAttributes: MessageAttributes,
        sentAt: clock.now(),
        senderId: principal ?? account,
        deadLetterSourceArn: undefined,
        order,
      },
      DelaySeconds,
    );
    return {
      MessageId: messageId,
      MD5OfMessageBody: md5(MessageBody),
      ...(order !== undefined && { SequenceNumber: order.sequenceNumber }),
    };
  }

  let sequence = 0n;
  /** Where a new message stands; undefined in a queue without order, which takes a group for fairness only. */
  function orderIn(
    { options: { isFifo } }: Queue,
    {
      groupId,
      deduplicationId,
      delaySeconds,
    }: {
      readonly groupId: string | undefined;
      readonly deduplicationId: string | undefined;
      readonly delaySeconds: number | undefined;
    },
  ): MessageOrder | undefined {
    if (!isFifo) {
      if (deduplicationId !== undefined)
        throw orderRefusals.notOfThisType('MessageDeduplicationId', deduplicationId);
      return undefined;
    }
    if (delaySeconds !== undefined) throw orderRefusals.notOfThisType('DelaySeconds', delaySeconds);
    if (groupId === undefined) throw orderRefusals.groupMissing();
    if (deduplicationId === undefined) throw orderRefusals.deduplicationMissing();
    sequence += 1n;
    return { groupId, deduplicationId, sequenceNumber: String(10n ** 19n + sequence) };
  }

  /** What a batch answers: an entry that is refused takes no other with it. */
  function entryByEntry<Entry extends { readonly Id: string }>(
    entries: readonly Entry[],
    serve: (entry: Entry) => object,
  ) {
    const Successful: { Id: string }[] = [];
    const Failed: { Id: string; SenderFault: boolean; Code: string; Message: string }[] = [];
    for (const entry of entries)
      try {
        Successful.push({ Id: entry.Id, ...serve(entry) });
      } catch (error) {
        if (!(error instanceof AwsError)) throw error;
        const { name, queryCode: Code = name, message: Message } = error;
        Failed.push({ Id: entry.Id, SenderFault: true, Code, Message });
      }
    return { Successful, Failed };
  }

  /** The batches have no actions of their own (AWS documentation). */
  const about = (action: string, urlOrName: string): readonly Authorization[] => [
    { action: `sqs:${action}`, resource: arnOf(urlOrName.split('/').at(-1) ?? '') },
  ];

  const operations = {
    SendMessage: operation(schemas.SendMessage, ({ QueueUrl, ...message }, { principal }) =>
      accept(byUrl(QueueUrl), message, principal),
    ),
    SendMessageBatch: operation(schemas.SendMessageBatch, ({ QueueUrl, Entries }, { principal }) => {
      const queue = byUrl(QueueUrl);
      checkBatch(Entries);
      const bytes = Entries.reduce((sum, { MessageBody }) => sum + sizeOf(MessageBody), 0);
      if (bytes > sizeLimit) throw refusals.batchTooLong(bytes);
      return entryByEntry(Entries, ({ Id: _, ...message }) => accept(queue, message, principal));
    }),
    ReceiveMessage: operation(schemas.ReceiveMessage, async (input) => {
      const queue = byUrl(input.QueueUrl);
      const { MaxNumberOfMessages: limit, VisibilityTimeout: hidden, WaitTimeSeconds } = input;
      const giveUpAt = nowMs() + WaitTimeSeconds * 1000;
      let taken = take(queue, limit, hidden);
      while (taken.length === 0 && nowMs() < giveUpAt && !stopping.signal.aborted) {
        await untilVisible(queue, giveUpAt - nowMs());
        taken = take(queue, limit, hidden);
      }
      if (taken.length === 0) return {};
      const system = [...input.AttributeNames, ...input.MessageSystemAttributeNames];
      return {
        Messages: taken.map((message) => {
          const ours = Object.entries(systemAttributes(message)).filter(
            ([name]) => system.includes('All') || system.includes(name),
          );
          const theirs = Object.entries(message.messageAttributes).filter(([name]) =>
            input.MessageAttributeNames.some(
              (wanted) =>
                wanted === 'All' ||
                wanted === name ||
                (wanted.endsWith('.*') && name.startsWith(wanted.slice(0, -2))),
            ),
          );
          return {
            MessageId: message.messageId,
            ReceiptHandle: message.receiptHandle,
            Body: message.body,
            MD5OfBody: md5(message.body),
            ...(ours.length > 0 && { Attributes: Object.fromEntries(ours) }),
            ...(theirs.length > 0 && { MessageAttributes: Object.fromEntries(theirs) }),
          };
        }),
      };
    }),
    DeleteMessage: operation(schemas.DeleteMessage, ({ QueueUrl, ReceiptHandle }) => {
      remove(byUrl(QueueUrl), ReceiptHandle);
      return {};
    }),
    DeleteMessageBatch: operation(schemas.DeleteMessageBatch, ({ QueueUrl, Entries }) => {
      const queue = byUrl(QueueUrl);
      checkBatch(Entries);
      return entryByEntry(Entries, ({ ReceiptHandle }) => {
        remove(queue, ReceiptHandle);
        return {};
      });
    }),
    ChangeMessageVisibility: operation(
      schemas.ChangeMessageVisibility,
      ({ QueueUrl, ReceiptHandle, VisibilityTimeout }) => {
        const queue = byUrl(QueueUrl);
        const message = ofHandle(queue, ReceiptHandle);
        if (message === undefined || message.visibleAt <= nowMs()) throw refusals.notInFlight();
        hide(queue, message, nowMs() + VisibilityTimeout * 1000);
        return {};
      },
    ),
    GetQueueAttributes: operation(schemas.GetQueueAttributes, ({ QueueUrl, AttributeNames }) => ({
      Attributes: Object.fromEntries(
        Object.entries(queueAttributes(byUrl(QueueUrl))).filter(
          ([name]) => AttributeNames.includes('All') || AttributeNames.includes(name),
        ),
      ),
    })),
    GetQueueUrl: operation(schemas.GetQueueUrl, ({ QueueName }) => {
      byUrl(QueueName);
      return { QueueUrl: `https://sqs.${region}.amazonaws.com/${account}/${QueueName}` };
    }),
  };

  function queueAttributes(queue: Queue): Readonly<Record<string, string>> {
    const { options, messages, createdAt } = queue;
    const isDelayed = ({ visibleAt, receiveCount }: Message) => visibleAt > nowMs() && receiveCount === 0;
    const isInFlight = ({ visibleAt, receiveCount }: Message) => visibleAt > nowMs() && receiveCount > 0;
    const created = String(Math.floor(createdAt.getTime() / 1000));
    return {
      QueueArn: queue.arn,
      ApproximateNumberOfMessages: String(countVisible(queue)),
      ApproximateNumberOfMessagesNotVisible: String(messages.filter(isInFlight).length),
      ApproximateNumberOfMessagesDelayed: String(messages.filter(isDelayed).length),
      CreatedTimestamp: created,
      LastModifiedTimestamp: created,
      VisibilityTimeout: String(options.visibilityTimeoutSeconds),
      DelaySeconds: String(options.delaySeconds),
      MessageRetentionPeriod: String(options.retentionSeconds),
      MaximumMessageSize: String(sizeLimit),
      ReceiveMessageWaitTimeSeconds: '0',
      ...(options.isFifo && { FifoQueue: 'true', ContentBasedDeduplication: 'false' }),
      ...(options.redrive !== undefined && {
        RedrivePolicy: JSON.stringify({
          deadLetterTargetArn: options.redrive.deadLetterArn,
          maxReceiveCount: options.redrive.maxReceiveCount,
        }),
      }),
    };
  }

  const countVisible = ({ messages }: Queue): number =>
    messages.filter(({ visibleAt }) => visibleAt <= nowMs()).length;

  return {
    name: 'sqs',
    targetPrefix: 'AmazonSQS',
    messageKey: 'message',
    internalErrorName: 'InternalFailure',
    accessDenied: (message) =>
      new AwsError('com.amazon.coral.service#AccessDeniedException', message, 400, 'AccessDenied'),
    authorizations: authorizationsBy(schemas, {
      SendMessage: ({ QueueUrl }) => about('SendMessage', QueueUrl),
      SendMessageBatch: ({ QueueUrl }) => about('SendMessage', QueueUrl),
      ReceiveMessage: ({ QueueUrl }) => about('ReceiveMessage', QueueUrl),
      DeleteMessage: ({ QueueUrl }) => about('DeleteMessage', QueueUrl),
      DeleteMessageBatch: ({ QueueUrl }) => about('DeleteMessage', QueueUrl),
      ChangeMessageVisibility: ({ QueueUrl }) => about('ChangeMessageVisibility', QueueUrl),
      GetQueueAttributes: ({ QueueUrl }) => about('GetQueueAttributes', QueueUrl),
      GetQueueUrl: ({ QueueName }) => about('GetQueueUrl', QueueName),
    }),
    call: (name, input, context) => serveOperation(operations, name, input, context),
    addQueue({
      name,
      isFifo = false,
      visibilityTimeoutSeconds = 30,
      delaySeconds = 0,
      retentionSeconds = 345_600,
      redrive: policy,
    }) {
      if (isFifo !== name.endsWith('.fifo'))
        throw new Error(`${name}: the name of a queue ends in .fifo if and only if it keeps order`);
      queues.set(arnOf(name), {
        options: {
          name,
          isFifo,
          visibilityTimeoutSeconds,
          delaySeconds,
          retentionSeconds,
          ...(policy === undefined ? {} : { redrive: policy }),
        },
        arn: arnOf(name),
        createdAt: clock.now(),
        messages: [],
        listeners: new Set(),
        taken: new Map(),
      });
    },
    send(queueArn, body, messageAttributes = {}, senderId = account) {
      const queue = byArn(queueArn);
      if (queue.options.isFifo) throw new Error(`${queueArn} keeps order: send with a group`);
      const messageId = randomUuid(random);
      put(queue, {
        messageId,
        body,
        messageAttributes,
        sentAt: clock.now(),
        senderId,
        deadLetterSourceArn: undefined,
        order: undefined,
      });
      return messageId;
    },
    receive: (queueArn, limit) => take(byArn(queueArn), limit),
    remove: (queueArn, receiptHandle) => remove(byArn(queueArn), receiptHandle),
    messages: (queueArn) => byArn(queueArn).messages.map(shown),
    visibleCount: (queueArn) => countVisible(byArn(queueArn)),
    oldestAgeSeconds: (queueArn) =>
      byArn(queueArn)
        // Whatever comes back again and again is left out (AWS documentation).
        .messages.filter(({ receiveCount }) => receiveCount <= 3)
        .reduce((oldest, { arrivedAt }) => Math.max(oldest, (nowMs() - arrivedAt.getTime()) / 1000), 0),
    onVisible(queueArn, listener) {
      const { listeners } = byArn(queueArn);
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    stop: () => stopping.abort(),
  };
}

const shown = ({
  messageId,
  body,
  messageAttributes,
  sentAt,
  senderId,
  receiveCount,
  deadLetterSourceArn,
  order,
}: Message): QueuedMessage => ({
  messageId,
  body,
  messageAttributes,
  sentAt,
  senderId,
  receiveCount,
  deadLetterSourceArn,
  ...(order !== undefined && { order }),
});

/** What SQS itself says of a message, in texts. */
export function systemAttributes(message: ReceivedMessage): Readonly<Record<string, string>> {
  return {
    ApproximateReceiveCount: String(message.receiveCount),
    SentTimestamp: String(message.sentAt.getTime()),
    SenderId: message.senderId,
    ApproximateFirstReceiveTimestamp: String(message.firstReceivedAt.getTime()),
    ...(message.deadLetterSourceArn !== undefined && {
      DeadLetterQueueSourceArn: message.deadLetterSourceArn,
    }),
    ...(message.order !== undefined && {
      MessageGroupId: message.order.groupId,
      MessageDeduplicationId: message.order.deduplicationId,
      SequenceNumber: message.order.sequenceNumber,
    }),
  };
}
