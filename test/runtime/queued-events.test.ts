import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { InputError, RotationRefused, StoreError } from '../../functions/core/errors.ts';
import { updateConsumersEnvironment } from '../../functions/runtime/env.ts';
import { type QueuedUses, queuedHandlerOf } from '../../functions/runtime/queued-events.ts';

/** What was asked of the queues, in order. */
const asked = vi.hoisted((): unknown[][] => []);
/** Ports that fail, by name. */
const broken = vi.hoisted(() => new Set<string>());
vi.mock('../../functions/runtime/queue.ts', () => {
  const port = (name: string) => async (request: unknown) => {
    if (broken.has(name)) throw new StoreError('STORE_UNAVAILABLE', 'unknown', `${name} failed`);
    asked.push([name, request]);
  };
  return { openQueues: () => ({ postpone: port('postpone'), setAside: port('setAside') }) };
});

let written = '';
beforeEach(() => {
  asked.length = 0;
  broken.clear();
  written = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    written += String(chunk);
    return true;
  });
  vi.useFakeTimers({ now: new Date('2026-03-01T12:00:00Z') });
  vi.stubEnv('REKEY_NOTE_TABLE_NAME', 'rekey');
  vi.stubEnv('AWS_REGION', 'eu-central-1');
  vi.stubEnv('REKEY_EVENT_BUS_NAME', 'rekey-bus');
  vi.stubEnv(
    'REKEY_LOST_REQUEST_QUEUE_URL',
    'https://sqs.eu-central-1.amazonaws.com/111122223333/lost-requests',
  );
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  vi.useRealTimers();
});

const lines = (): readonly Record<string, unknown>[] =>
  written
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
const queueArn = 'arn:aws:sqs:eu-central-1:111122223333:rekey-orders';
const record = (messageId: string, body: string, receiveCount = 1) => ({
  messageId,
  receiptHandle: `receipt of ${messageId}`,
  body,
  attributes: {
    ApproximateReceiveCount: String(receiveCount),
    // A minute ago.
    SentTimestamp: String(Date.parse('2026-03-01T11:59:00Z')),
  },
  eventSource: 'aws:sqs',
  eventSourceARN: queueArn,
});
const eventOf = (name: string) => ({ 'detail-type': 'Test', detail: { name } });
const queued = (name: string, receiveCount?: number) =>
  record(name, JSON.stringify(eventOf(name)), receiveCount);
const postponed = (messageId: string, seconds: number) => [
  'postpone',
  { queueArn, receiptHandle: `receipt of ${messageId}`, seconds },
];

/** A handler whose events fail as told, and the names of those that it began. */
function handlerWith(
  failures: Readonly<Record<string, unknown>> = {},
  more: Partial<QueuedUses<unknown>> = {},
) {
  const begun: string[] = [];
  const handler = queuedHandlerOf(updateConsumersEnvironment, {
    direct: async (event) => ({ direct: event }),
    leastTimeMs: 60_000,
    event: async (event) => {
      const { name } = (event as ReturnType<typeof eventOf>).detail;
      begun.push(name);
      if (name in failures) throw failures[name];
    },
    ...more,
  });
  const take = (records: readonly object[], leftMs = 300_000) =>
    handler({ Records: records }, { getRemainingTimeInMillis: () => leftMs });
  return { handler, take, begun };
}
const failed = (...messageIds: readonly string[]) => ({
  batchItemFailures: messageIds.map((itemIdentifier) => ({ itemIdentifier })),
});
const throttled = new StoreError('STORE_UNAVAILABLE', 'none', 'PutParameter failed (ThrottlingException)');

test('what is not of a queue is used as it came, and its answer is the answer', async () => {
  const { handler, begun } = handlerWith();
  const event = eventOf('a');
  expect(await handler(event, { getRemainingTimeInMillis: () => 300_000 })).toEqual({ direct: event });
  expect(begun).toEqual([]);
});

test('the events of a batch are used in their order, and each succeeds alone', async () => {
  const { take, begun } = handlerWith();
  expect(await take([queued('a'), queued('b'), queued('c')])).toEqual(failed());
  expect(begun).toEqual(['a', 'b', 'c']);
  expect(asked).toEqual([]);
});

test('one after the other, unless several at a time are safe', async () => {
  const most = async (more: Partial<QueuedUses<unknown>>) => {
    let running = 0;
    let seen = 0;
    const event = async () => {
      running += 1;
      seen = Math.max(seen, running);
      await Promise.resolve();
      running -= 1;
    };
    await handlerWith({}, { event, ...more }).take([queued('a'), queued('b'), queued('c')]);
    return seen;
  };
  expect([await most({}), await most({ atOnce: 2 })]).toEqual([1, 2]);
});

describe('an event that fails', () => {
  test('comes again by itself and soon, and none of the others does', async () => {
    const { take, begun } = handlerWith({ b: throttled });
    expect(await take([queued('a'), queued('b', 3), queued('c')])).toEqual(failed('b'));
    expect(begun).toEqual(['a', 'b', 'c']);
    // A minute, and up to half as much again.
    expect(asked).toEqual([postponed('b', 63)]);
  });

  test('is in the log with its message, its error and when it comes again, and counts for an alarm', async () => {
    await handlerWith({ b: throttled }).take([queued('b', 3)]);
    const [line, reading] = lines();
    expect(line).toMatchObject({
      level: 'WARN',
      message: expect.stringContaining('PutParameter failed (ThrottlingException); the event comes again'),
      code: 'STORE_UNAVAILABLE',
      messageId: 'b',
      queueArn,
      tries: 3,
      seconds: 63,
    });
    expect(reading).toMatchObject({ RetriedEventAge: 60 });
  });

  test('and can never succeed is set aside at once, with its reason, and blocks no other', async () => {
    const error = new InputError('EVENT_INVALID', 'detail.credential: expected a name');
    const { take } = handlerWith({ a: error });
    expect(await take([queued('a'), queued('b')])).toEqual(failed());
    const { body } = queued('a');
    const reason = { code: 'EVENT_INVALID', message: error.message };
    expect(asked).toEqual([['setAside', { body, messageId: 'a', queueArn, ...reason }]]);
    expect(lines()).toMatchObject([{ level: 'ERROR', code: 'EVENT_INVALID', messageId: 'a', tries: 1 }]);
  });

  test('and names no credential is tried five times, and then set aside', async () => {
    const { take } = handlerWith({ a: new RotationRefused('SPEC_MISSING', 'there is no such spec') });
    expect(await take([queued('a', 4)])).toEqual(failed('a'));
    expect(await take([queued('a', 5)])).toEqual(failed());
    expect(asked.map(([name]) => name)).toEqual(['postpone', 'setAside']);
  });

  test('stays in its queue where it cannot be set aside', async () => {
    broken.add('setAside');
    const { take } = handlerWith({ a: new InputError('EVENT_INVALID', 'x') });
    expect(await take([queued('a')])).toEqual(failed('a'));
    expect(asked).toEqual([postponed('a', 16)]);
  });

  test('comes again after the visibility timeout where it cannot be made to come sooner', async () => {
    broken.add('postpone');
    const { take } = handlerWith({ a: throttled });
    expect(await take([queued('a'), queued('b')])).toEqual(failed('a'));
  });
});

test('an event for which no time is left is not begun, and comes again at once', async () => {
  const { take, begun } = handlerWith();
  // Ten seconds are kept back from the end of an invocation.
  expect(await take([queued('a'), queued('b')], 69_999)).toEqual(failed('a', 'b'));
  expect(begun).toEqual([]);
  expect(asked).toEqual([postponed('a', 0), postponed('b', 0)]);
  expect(await take([queued('a')], 70_000)).toEqual(failed());
});

describe('a message that is no event', () => {
  const tasks = {
    use: vi.fn(async (event: unknown) => {
      const { Records } = event as { Records: readonly { messageId: string; body: string }[] };
      return failed(...Records.filter(({ body }) => body === 'bad').map(({ messageId }) => messageId));
    }),
  };
  beforeEach(() => void tasks.use.mockClear());

  test('is set aside by a function that takes none', async () => {
    const { take } = handlerWith();
    expect(await take([record('m-1', 'task'), queued('a')])).toEqual(failed());
    expect(asked).toMatchObject([['setAside', { messageId: 'm-1', code: 'EVENT_INVALID', body: 'task' }]]);
  });

  test('is handed on with its like, as Lambda sent it, and comes again where it failed', async () => {
    const { take, begun } = handlerWith({}, { tasks });
    const batch = [record('m-1', 'good'), queued('a'), record('m-2', 'bad', 2)];
    expect(await take(batch)).toEqual(failed('m-2'));
    expect(tasks.use.mock.calls.map(([event]) => event)).toEqual([{ Records: [batch[0], batch[2]] }]);
    expect(begun).toEqual(['a']);
    expect(asked).toEqual([postponed('m-2', 30)]);
  });

  test('comes again at the pace of its own kind', async () => {
    const { take } = handlerWith({}, { tasks: { ...tasks, secondsUntilTry: () => 600 } });
    await take([record('m-1', 'bad', 2)]);
    expect(asked).toEqual([postponed('m-1', 600)]);
  });

  test('that could never succeed is set aside, and keeps no other from its turn', async () => {
    const check = (event: unknown) => {
      const [{ body } = { body: '' }] = (event as { Records: readonly { body: string }[] }).Records;
      if (body === 'odd') throw new InputError('EVENT_INVALID', 'body: expected a task');
    };
    const { take } = handlerWith({}, { tasks: { ...tasks, check } });
    expect(await take([record('m-1', 'odd'), record('m-2', 'good')])).toEqual(failed());
    expect(asked).toMatchObject([['setAside', { messageId: 'm-1', body: 'odd' }]]);
    expect(tasks.use).toHaveBeenCalledTimes(1);
  });
});

test('half a batch of a queue is refused whole: nothing of it is taken for something else', async () => {
  const { take, begun } = handlerWith();
  await expect(take([queued('a'), { messageId: 'm-2', body: '{}' }])).rejects.toThrow(
    /^EVENT_INVALID: Records\.1\./,
  );
  expect(begun).toEqual([]);
});
