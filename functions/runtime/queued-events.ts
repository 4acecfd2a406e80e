import { InputError, StoreError } from '../core/errors.ts';
import {
  busEventIn,
  parseQueuedMessages,
  type QueuedMessage,
  redeliveryOf,
  secondsUntilTry,
  spread,
} from '../core/queued-events.ts';
import type { Schema } from '../core/schema.ts';
import { inParallel } from '../lifecycle/in-parallel.ts';
import type { Rekey } from '../lifecycle/rekey.ts';
import {
  type Environment,
  type Extras,
  handlerOf,
  once,
  type QueuePorts,
  type QueueTools,
} from './compose.ts';
import { factsOf } from './error-facts.ts';
import type { QueueUrls } from './queue.ts';

type UseOf<E, Answer = unknown> = (
  event: unknown,
  until: Date,
  rekey: Rekey,
  environment: E,
) => Promise<Answer>;

/** What is done with one event, by the schema of the environment. */
export type Use<S extends Schema<unknown>> = UseOf<S extends Schema<infer E> ? E : never>;

interface BatchAnswer {
  /** The messages that are to come again, as Lambda wants to be told. */
  readonly batchItemFailures: readonly { readonly itemIdentifier: string }[];
}

export interface QueuedUses<E> {
  /** What the function is invoked with directly: by its schedule, or by people. */
  readonly direct: UseOf<E>;
  /** One event of a bus that came out of a queue. Throws where the event is to come again. */
  readonly event: UseOf<E>;
  /** So many events of a batch at one time, in their order. @default 1 */
  readonly atOnce?: number;
  /** An event that is reached with less time than this left is not begun, and comes again at once. */
  readonly leastTimeMs: number;
  /** Messages that are no events: tasks of our own. @default such a message is set aside */
  readonly tasks?: {
    /** Throws where a batch of this one message could never succeed. @default none is looked at */
    readonly check?: (event: unknown) => void;
    readonly use: UseOf<E, BatchAnswer>;
    /** How long a task waits that has failed so often. @default as events do */
    readonly secondsUntilTry?: (receiveCount: number) => number;
  };
}

/**
 * A handler that is also fed from queues. Each event of a batch fails alone: it comes again after a pause that grows, and lies in the
 * queue of lost requests, with its reason, once no repetition helps.
 */
export function queuedHandlerOf<E extends Environment & QueueUrls>(
  schema: Schema<E>,
  uses: QueuedUses<E>,
  extras: Pick<Extras<E>, 'openNotes'> = {},
): ReturnType<typeof handlerOf<E>> {
  const use: UseOf<E> = async (event, until, rekey, environment) => {
    const messages = parseQueuedMessages(event);
    if (messages === undefined) return uses.direct(event, until, rekey, environment);
    const read = messages.map((message, index) => ({
      message,
      event: busEventIn(message),
      // As Lambda sent it: what a use case reads of a task is its own matter.
      record: (event as { readonly Records: readonly unknown[] }).Records[index],
    }));
    const batch: Batch<E> = { uses, until, rekey, environment };
    const again = [
      ...(await takeEvents(
        read.filter((each) => each.event !== undefined),
        batch,
      )),
      ...(await takeTasks(
        read.filter((each) => each.event === undefined),
        batch,
      )),
    ];
    return { batchItemFailures: again.map(({ messageId }) => ({ itemIdentifier: messageId })) };
  };
  return handlerOf(schema, use, { ...extras, openQueues });
}

/** Loaded when they are called first: most invocations send nothing, and nothing of theirs fails. */
function openQueues(environment: QueueUrls, tools: QueueTools): QueuePorts {
  const queues = once(async () => (await import('./queue.ts')).openQueues(environment, tools));
  return {
    enqueue: async (tasks) => (await queues()).enqueue(tasks),
    enqueueStart: async (starts) => (await queues()).enqueueStart(starts),
    postpone: async (request) => (await queues()).postpone(request),
    setAside: async (request) => (await queues()).setAside(request),
  };
}

interface Batch<E> {
  readonly uses: QueuedUses<E>;
  readonly until: Date;
  readonly rekey: Rekey;
  readonly environment: E;
}

interface Read {
  readonly message: QueuedMessage;
  /** Undefined where the message is none. */
  readonly event: unknown;
  readonly record: unknown;
}

/** Answers the messages that are to come again. */
async function takeEvents<E>(
  events: readonly Read[],
  { uses, until, rekey, environment }: Batch<E>,
): Promise<readonly QueuedMessage[]> {
  const again = await inParallel(events, uses.atOnce ?? 1, async ({ message, event }) => {
    const leftMs = until.getTime() - (await rekey.ports.now()).getTime();
    if (leftMs < uses.leastTimeMs) return postpone(message, 0, rekey);
    try {
      await uses.event(event, until, rekey, environment);
      return [];
    } catch (error) {
      return giveBack(message, error, rekey);
    }
  });
  return again.flat();
}

async function takeTasks<E>(
  tasks: readonly Read[],
  { uses, until, rekey, environment }: Batch<E>,
): Promise<readonly QueuedMessage[]> {
  const again: QueuedMessage[] = [];
  const good: Read[] = [];
  for (const task of tasks)
    try {
      if (uses.tasks === undefined)
        throw new InputError(
          'EVENT_INVALID',
          'expected an event of a bus in the message; send it to the bus',
        );
      uses.tasks.check?.({ Records: [task.record] });
      good.push(task);
    } catch (error) {
      again.push(...(await giveBack(task.message, error, rekey)));
    }
  if (uses.tasks === undefined || good.length === 0) return again;
  const { use, secondsUntilTry: secondsOf = secondsUntilTry } = uses.tasks;
  const { batchItemFailures } = await use(
    { Records: good.map(({ record }) => record) },
    until,
    rekey,
    environment,
  );
  const failed = new Set(batchItemFailures.map(({ itemIdentifier }) => itemIdentifier));
  for (const { message } of good)
    if (failed.has(message.messageId))
      again.push(...(await postpone(message, secondsOf(message.receiveCount), rekey)));
  return again;
}

/** What is to be done about a message that failed; empty once it has left its queue. */
async function giveBack(
  message: QueuedMessage,
  error: unknown,
  rekey: Rekey,
): Promise<readonly QueuedMessage[]> {
  const { ports, log, measure } = rekey;
  const { messageId, queueArn, receiveCount, body, sentAt } = message;
  const facts = { ...factsOf(error), messageId, queueArn, tries: receiveCount };
  const redelivery = redeliveryOf(error, receiveCount);
  if (redelivery === 'lost')
    try {
      const code = String(factsOf(error)['code']);
      await ports.setAside({ body, messageId, queueArn, code, message: messageOf(error) });
      log('error', `${messageOf(error)}; the event lies in the queue of lost requests`, facts);
      return [];
    } catch (failure) {
      if (!(failure instanceof StoreError)) throw failure;
      log('error', failure.message, { ...factsOf(failure), messageId });
    }
  const wait = redelivery === 'lost' ? secondsUntilTry(receiveCount) : redelivery.seconds;
  const seconds = spread(wait, messageId);
  log('warn', `${messageOf(error)}; the event comes again`, { ...facts, seconds });
  measure('RetriedEventAge', Math.max(0, (await ports.now()).getTime() - sentAt.getTime()) / 1000);
  return postpone(message, seconds, rekey);
}

/** If this fails, the message comes again after the visibility timeout of its queue: late, and not lost. */
async function postpone(
  message: QueuedMessage,
  seconds: number,
  { ports, log }: Rekey,
): Promise<readonly QueuedMessage[]> {
  const { messageId, queueArn, receiptHandle } = message;
  try {
    await ports.postpone({ queueArn, receiptHandle, seconds });
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { ...factsOf(error), messageId });
  }
  return [message];
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
