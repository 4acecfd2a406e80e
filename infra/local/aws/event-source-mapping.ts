import { createHash } from 'node:crypto';
import * as z from 'zod';
import { type Queues, type ReceivedMessage, systemAttributes } from './queues.ts';

/** How Lambda feeds a function from a queue. */
export interface EventSourceMapping {
  readonly queueArn: string;
  readonly functionArn: string;
  /** 1 to 10 000. */
  readonly batchSize: number;
  /** Batches at one time, 2 to 1000. @default 5, with which Lambda begins (AWS documentation) */
  readonly maximumConcurrency?: number | undefined;
  /** Whether the function names the messages that failed. Otherwise all of a batch failed, or none. */
  readonly reportsItemFailures: boolean;
}

export interface EventSourceOptions {
  readonly region: string;
  readonly queues: Queues;
  /** Calls the function and waits for it. */
  readonly invoke: (
    functionArn: string,
    event: unknown,
  ) => Promise<{ readonly ok: true; readonly payload: unknown } | { readonly ok: false }>;
}

export interface EventSource {
  /** Afterwards no further batch is taken; resolves once the last one is over. */
  stop(): Promise<void>;
}

/**
 * Hands the messages of a queue to a function. What succeeded is deleted; what failed is left alone, and so is shown again
 * after the visibility time-out, until the queue's redrive policy takes it away.
 */
export function startEventSource(
  {
    queueArn,
    functionArn,
    batchSize,
    maximumConcurrency = 5,
    reportsItemFailures: reports,
  }: EventSourceMapping,
  { region, queues, invoke }: EventSourceOptions,
): EventSource {
  const running = new Set<Promise<void>>();
  let isStopped = false;

  async function hand(batch: readonly ReceivedMessage[]): Promise<void> {
    const Records = batch.map((message) => recordOf(message, queueArn, region));
    const result = await invoke(functionArn, { Records }).catch(() => ({ ok: false }) as const);
    if (!result.ok) return;
    const failed = reports ? failedOf(result.payload, batch) : new Set<string>();
    for (const { messageId, receiptHandle } of batch)
      if (!failed.has(messageId)) queues.remove(queueArn, receiptHandle);
  }

  function pump(): void {
    while (!isStopped && running.size < maximumConcurrency) {
      const batch = queues.receive(queueArn, batchSize);
      if (batch.length === 0) return;
      const work: Promise<void> = hand(batch).finally(() => {
        running.delete(work);
        pump();
      });
      running.add(work);
    }
  }

  // Later, so that whoever sends has its answer first, and messages that come together go together.
  const stopListening = queues.onVisible(queueArn, () => queueMicrotask(pump));
  pump();
  return {
    async stop() {
      isStopped = true;
      stopListening();
      await Promise.all(running);
    },
  };
}

const batchResponse = z.object({
  batchItemFailures: z.array(z.object({ itemIdentifier: z.string().min(1) })).nullish(),
});

/** Ids of the messages that failed: all of them when the answer cannot be read or names another message (AWS documentation). */
function failedOf(payload: unknown, batch: readonly ReceivedMessage[]): ReadonlySet<string> {
  const all = new Set(batch.map(({ messageId }) => messageId));
  const parsed = batchResponse.safeParse(payload ?? {});
  if (!parsed.success) return all;
  const failed = (parsed.data.batchItemFailures ?? []).map(({ itemIdentifier }) => itemIdentifier);
  return failed.every((id) => all.has(id)) ? new Set(failed) : all;
}

const recordOf = (message: ReceivedMessage, queueArn: string, awsRegion: string) => ({
  messageId: message.messageId,
  receiptHandle: message.receiptHandle,
  body: message.body,
  attributes: systemAttributes(message),
  messageAttributes: Object.fromEntries(
    Object.entries(message.messageAttributes).map(([name, { DataType, StringValue, BinaryValue }]) => [
      name,
      {
        dataType: DataType,
        ...(StringValue !== undefined && { stringValue: StringValue }),
        ...(BinaryValue !== undefined && { binaryValue: BinaryValue }),
        stringListValues: [],
        binaryListValues: [],
      },
    ]),
  ),
  md5OfBody: createHash('md5').update(message.body).digest('hex'),
  eventSource: 'aws:sqs',
  eventSourceARN: queueArn,
  awsRegion,
});
