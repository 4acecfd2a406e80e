import {
  ChangeMessageVisibilityCommand,
  SendMessageBatchCommand,
  type SendMessageBatchRequestEntry,
  SendMessageCommand,
  type SQSClient,
} from '@aws-sdk/client-sqs';
import { type QueuedTask, type StartTask, targetKey } from '../core/fleet.ts';
import type { Ports } from '../core/ports.ts';
import type { Sha256 } from '../core/username.ts';
import { type RefusedEntry, sendAll } from './batches.ts';
import { failureOf } from './failure.ts';

type Sleep = Pick<Ports, 'sleep'>;

/** The port to a queue between dispatcher and workers. A message may be in it twice: a worker only looks at its target. */
export function targetQueue(
  client: SQSClient,
  queueUrl: string,
  ports: Sleep,
): (tasks: readonly QueuedTask[]) => Promise<void> {
  return (tasks) =>
    send(
      client,
      queueUrl,
      { things: 'tasks', entries: tasks },
      ({ delaySeconds, urgent: _, ...task }) => ({
        MessageBody: JSON.stringify(task),
        ...(delaySeconds === undefined ? {} : { DelaySeconds: delaySeconds }),
      }),
      ports,
    );
}

/** The port to the queue of starts, which hands out one target's starts one after the other. */
export function startQueue(
  client: SQSClient,
  queueUrl: string,
  ports: Sleep,
  sha256: Sha256,
): Ports['enqueueStart'] {
  // 64 of the 128 characters that either name may have (AWS documentation).
  const digest = (text: string): string => Buffer.from(sha256(text)).toString('hex');
  const groupOf = (key: string): string => (key.length <= 128 ? key : digest(key));
  return (starts) =>
    send(
      client,
      queueUrl,
      { things: 'starts', entries: starts },
      ({ id, ...start }: StartTask) => ({
        MessageBody: JSON.stringify(start),
        MessageGroupId: groupOf(targetKey(start.provider, start.targetId)),
        MessageDeduplicationId: digest(id),
      }),
      ports,
    );
}

/** What becomes of a message that failed: it is handed out later, or lies where people read it. */
export function redelivery(client: SQSClient, lostRequestsUrl: string): Pick<Ports, 'postpone' | 'setAside'> {
  return {
    async postpone({ queueArn, receiptHandle, seconds }) {
      const queueUrl = beside(lostRequestsUrl, queueArn);
      await client
        .send(
          new ChangeMessageVisibilityCommand({
            QueueUrl: queueUrl,
            ReceiptHandle: receiptHandle,
            VisibilityTimeout: seconds,
          }),
        )
        .catch((error: unknown) => {
          throw failureOf(error, `ChangeMessageVisibility on ${queueUrl}`, 'unknown');
        });
    },
    async setAside({ body, messageId, queueArn, code, message }) {
      await client
        .send(
          new SendMessageCommand({
            QueueUrl: lostRequestsUrl,
            MessageBody: body,
            // Named as EventBridge and Scheduler name theirs.
            MessageAttributes: Object.fromEntries(
              Object.entries({
                ERROR_CODE: code,
                ERROR_MESSAGE: message.slice(0, maxReason),
                QUEUE_ARN: queueArn,
                MESSAGE_ID: messageId,
              }).map(([name, StringValue]) => [name, { DataType: 'String', StringValue }]),
            ),
          }),
        )
        .catch((error: unknown) => {
          throw failureOf(error, `SendMessage on ${lostRequestsUrl}`, 'unknown');
        });
    },
  };
}

/** Attributes count towards the size of a message. */
const maxReason = 4_000;

/** The URL of another queue of the account and Region: only its name differs. */
const beside = (queueUrl: string, queueArn: string): string =>
  new URL(queueArn.split(':').at(-1) ?? '', queueUrl).href;

function send<Task>(
  client: SQSClient,
  queueUrl: string,
  { things, entries }: { readonly things: string; readonly entries: readonly Task[] },
  messageOf: (task: Task) => Omit<SendMessageBatchRequestEntry, 'Id'>,
  ports: Sleep,
): Promise<void> {
  return sendAll(
    entries,
    { call: 'SendMessageBatch', things, to: queueUrl },
    async (sent): Promise<readonly RefusedEntry<Task>[]> => {
      const { Successful = [], Failed = [] } = await client.send(
        new SendMessageBatchCommand({
          QueueUrl: queueUrl,
          Entries: sent.map((task, index) => ({ Id: String(index), ...messageOf(task) })),
        }),
      );
      const taken = new Set(Successful.map(({ Id }) => Id));
      return sent.flatMap((entry, index) => {
        const id = String(index);
        if (taken.has(id)) return [];
        const failure = Failed.find(({ Id }) => Id === id);
        const code = failure?.Code ?? 'InternalError';
        // Throttling by the queue's KMS key counts as the sender's fault, and passes all the same.
        return [
          {
            entry,
            code,
            message: failure?.Message,
            mayPass: failure?.SenderFault !== true || /throttl/i.test(code),
          },
        ];
      });
    },
    ports,
  );
}
