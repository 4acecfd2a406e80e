import { SendMessageBatchCommand, type SQSClient } from '@aws-sdk/client-sqs';
import type { QueuedTask } from '../core/fleet.ts';
import type { Ports } from '../core/ports.ts';
import { type RefusedEntry, sendAll } from './batches.ts';

/** The port to the queue between dispatcher and workers. A message may be in it twice: a worker only looks at its target. */
export function targetQueue(
  client: SQSClient,
  queueUrl: string,
  ports: Pick<Ports, 'sleep'>,
): Ports['enqueue'] {
  return (tasks) =>
    sendAll(
      tasks,
      { call: 'SendMessageBatch', things: 'tasks', to: queueUrl },
      async (sent): Promise<readonly RefusedEntry<QueuedTask>[]> => {
        const { Successful = [], Failed = [] } = await client.send(
          new SendMessageBatchCommand({
            QueueUrl: queueUrl,
            Entries: sent.map(({ delaySeconds, ...task }, index) => ({
              Id: String(index),
              MessageBody: JSON.stringify(task),
              ...(delaySeconds === undefined ? {} : { DelaySeconds: delaySeconds }),
            })),
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
