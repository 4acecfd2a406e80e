import { SQSClient } from '@aws-sdk/client-sqs';
import { redelivery, startQueue, targetQueue } from '../aws/queue.ts';
import { InputError } from '../core/errors.ts';
import type { QueuePorts, QueueTools } from './compose.ts';
import { patience } from './patience.ts';

/** By the variable that holds each URL. A function has those that it needs. */
export interface QueueUrls {
  readonly REKEY_TARGET_QUEUE_URL?: string | undefined;
  readonly REKEY_URGENT_TARGET_QUEUE_URL?: string | undefined;
  readonly REKEY_START_QUEUE_URL?: string | undefined;
  readonly REKEY_LOST_REQUEST_QUEUE_URL?: string | undefined;
}

/** The queues with a client of their own, apart from compose.ts so that a function starts without it. */
export function openQueues(urls: QueueUrls, { sha256, scrub, ...ports }: QueueTools): QueuePorts {
  const client = new SQSClient({ requestHandler: patience });
  const urlOf = (variable: keyof QueueUrls): string => {
    const url = urls[variable];
    if (url === undefined)
      throw new InputError('ENVIRONMENT_INVALID', `${variable}: this function has no such queue`);
    return url;
  };
  return {
    async enqueue(tasks) {
      const { urgent = [], routine = [] } = Object.groupBy(tasks, ({ urgent: isUrgent }) =>
        isUrgent ? 'urgent' : 'routine',
      );
      if (urgent.length > 0) await targetQueue(client, urlOf('REKEY_URGENT_TARGET_QUEUE_URL'), ports)(urgent);
      if (routine.length > 0) await targetQueue(client, urlOf('REKEY_TARGET_QUEUE_URL'), ports)(routine);
    },
    enqueueStart: async (starts) => startQueue(client, urlOf('REKEY_START_QUEUE_URL'), ports, sha256)(starts),
    postpone: async (request) => redelivery(client, urlOf('REKEY_LOST_REQUEST_QUEUE_URL')).postpone(request),
    setAside: async (request) =>
      redelivery(client, urlOf('REKEY_LOST_REQUEST_QUEUE_URL')).setAside({
        ...request,
        message: scrub(request.message),
      }),
  };
}
