import { describe, expect, onTestFinished, test } from 'vitest';
import {
  type EventSourceMapping,
  startEventSource,
} from '../../../../infra/local/aws/event-source-mapping.ts';
import { createQueues } from '../../../../infra/local/aws/queues.ts';
import { account, functionArn, region, settle, testClock } from './support.ts';

const queueArn = `arn:aws:sqs:${region}:${account}:targets`;
const lettersArn = `arn:aws:sqs:${region}:${account}:letters`;

interface Batch {
  readonly Records: readonly { readonly messageId: string; readonly body: string }[];
}
type Answer = { readonly ok: true; readonly payload: unknown } | { readonly ok: false };

/** A mapping whose function answers by `handle`. */
function start(
  handle: (batch: Batch) => Answer | Promise<Answer>,
  mapping: Partial<EventSourceMapping> = {},
) {
  const clock = testClock();
  const queues = createQueues({ account, region, clock });
  queues.addQueue({
    name: 'targets',
    visibilityTimeoutSeconds: 90,
    redrive: { deadLetterArn: lettersArn, maxReceiveCount: 3 },
  });
  queues.addQueue({ name: 'letters' });
  const batches: Batch[] = [];
  const source = startEventSource(
    { queueArn, functionArn, batchSize: 2, reportsItemFailures: true, ...mapping },
    {
      region,
      queues,
      invoke: async (_arn, event) => {
        batches.push(event as Batch);
        return handle(event as Batch);
      },
    },
  );
  onTestFinished(async () => {
    queues.stop();
    await source.stop();
  });
  const bodies = () => batches.map(({ Records }) => Records.map(({ body }) => body));
  const left = () => queues.messages(queueArn).map(({ body }) => body);
  const letters = () => queues.messages(lettersArn).map(({ body }) => body);
  const send = (...messages: string[]) => {
    for (const body of messages) queues.send(queueArn, body);
  };
  return { clock, queues, source, batches, bodies, left, letters, send };
}

const failing =
  (...names: string[]) =>
  ({ Records }: Batch): Answer => ({
    ok: true,
    payload: {
      batchItemFailures: Records.filter(({ body }) => names.includes(body)).map(({ messageId }) => ({
        itemIdentifier: messageId,
      })),
    },
  });

test('a function gets the messages in the form that SQS gives them', async () => {
  const { batches, queues } = start(failing());
  const messageId = queues.send(
    queueArn,
    'one',
    { kind: { DataType: 'String', StringValue: 'full' } },
    'AIDA',
  );
  await settle();
  expect(batches).toEqual([
    {
      Records: [
        {
          messageId,
          receiptHandle: expect.any(String),
          body: 'one',
          attributes: {
            ApproximateReceiveCount: '1',
            SentTimestamp: '1772366400000',
            SenderId: 'AIDA',
            ApproximateFirstReceiveTimestamp: '1772366400000',
          },
          messageAttributes: {
            kind: { dataType: 'String', stringValue: 'full', stringListValues: [], binaryListValues: [] },
          },
          md5OfBody: 'f97c5d29941bfb1b2fdab0874906ab82',
          eventSource: 'aws:sqs',
          eventSourceARN: queueArn,
          awsRegion: region,
        },
      ],
    },
  ]);
});

test('what succeeded is deleted, in batches of the size that the mapping says', async () => {
  const { send, bodies, left } = start(failing());
  send('a', 'b', 'c');
  await settle();
  expect(bodies()).toEqual([['a', 'b'], ['c']]);
  expect(left()).toEqual([]);
});

test('only what failed comes back, after the visibility time-out, and in the end lies in the dead-letter queue', async () => {
  const { send, bodies, left, letters, clock } = start(failing('bad'));
  send('good', 'bad');
  await clock.advance(89_999);
  expect(bodies()).toEqual([['good', 'bad']]);
  expect(left()).toEqual(['bad']);
  await clock.advance(1);
  expect(bodies()).toEqual([['good', 'bad'], ['bad']]);
  await clock.advance(180_000);
  expect(bodies()).toEqual([['good', 'bad'], ['bad'], ['bad']]);
  expect([left(), letters()]).toEqual([[], ['bad']]);
});

describe('a whole batch comes back', () => {
  const cases: Record<string, { handle: () => Answer | Promise<Answer>; reports?: boolean }> = {
    'when the function failed': { handle: () => ({ ok: false }) },
    'when the call was lost': { handle: () => Promise.reject(new Error('gone')) },
    'when the answer names a message that is not in it': {
      handle: () => ({ ok: true, payload: { batchItemFailures: [{ itemIdentifier: 'another' }] } }),
    },
    'when the answer names no message where it should': {
      handle: () => ({ ok: true, payload: { batchItemFailures: [{ itemIdentifier: '' }] } }),
    },
    'when the answer cannot be read': { handle: () => ({ ok: true, payload: 'all is well' }) },
    'when the function failed that does not report': { handle: () => ({ ok: false }), reports: false },
  };
  test.each(Object.entries(cases))('%s', async (_sentence, { handle, reports = true }) => {
    const { send, bodies, left, clock } = start(handle, { reportsItemFailures: reports });
    send('a', 'b');
    await clock.advance(90_000);
    expect(bodies()).toEqual([
      ['a', 'b'],
      ['a', 'b'],
    ]);
    expect(left()).toEqual(['a', 'b']);
  });
});

test.each([null, {}, { batchItemFailures: null }, { batchItemFailures: [] }])(
  'an answer of %j says that all succeeded',
  async (payload) => {
    const { send, left } = start(() => ({ ok: true, payload }));
    send('a');
    await settle();
    expect(left()).toEqual([]);
  },
);

test('a function whose mapping does not ask for reports is not believed when it reports', async () => {
  const { send, left } = start(failing('a'), { reportsItemFailures: false });
  send('a');
  await settle();
  expect(left()).toEqual([]);
});

test('never more batches run at one time than the mapping allows, and none is forgotten', async () => {
  let running = 0;
  let most = 0;
  const gates: (() => void)[] = [];
  const { send, bodies } = start(
    async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise<void>((open) => gates.push(open));
      running -= 1;
      return { ok: true, payload: null };
    },
    { batchSize: 1, maximumConcurrency: 2 },
  );
  send('a', 'b', 'c', 'd', 'e');
  while (bodies().length < 5 || gates.length > 0) {
    await settle();
    gates.shift()?.();
  }
  await settle();
  expect([most, running]).toEqual([2, 0]);
  expect(bodies().flat()).toEqual(['a', 'b', 'c', 'd', 'e']);
});

test('a queue that keeps order feeds batches of a group one after the other, and those of others beside it', async () => {
  const clock = testClock();
  const queues = createQueues({ account, region, clock });
  queues.addQueue({ name: 'starts.fifo', isFifo: true, visibilityTimeoutSeconds: 90 });
  const fifoArn = `arn:aws:sqs:${region}:${account}:starts.fifo`;
  const running = new Map<string, number>();
  const seen: string[] = [];
  const gates: (() => void)[] = [];
  const source = startEventSource(
    { queueArn: fifoArn, functionArn, batchSize: 1, maximumConcurrency: 10, reportsItemFailures: true },
    {
      region,
      queues,
      async invoke(_arn, event) {
        const [{ body, attributes } = { body: '', attributes: { MessageGroupId: '' } }] = (
          event as { Records: { body: string; attributes: { MessageGroupId: string } }[] }
        ).Records;
        const { MessageGroupId: group } = attributes;
        expect(running.get(group) ?? 0).toBe(0);
        running.set(group, 1);
        seen.push(body);
        await new Promise<void>((open) => gates.push(open));
        running.set(group, 0);
        return { ok: true, payload: null };
      },
    },
  );
  onTestFinished(async () => {
    queues.stop();
    await source.stop();
  });
  for (const [body, MessageGroupId] of [
    ['a1', 'a'],
    ['a2', 'a'],
    ['b1', 'b'],
    ['a3', 'a'],
  ])
    await queues.call('SendMessage', {
      QueueUrl: `http://localhost/${account}/starts.fifo`,
      MessageBody: body,
      MessageGroupId,
      MessageDeduplicationId: body,
    });
  await settle();
  expect(seen).toEqual(['a1', 'b1']);
  while (seen.length < 4) {
    gates.shift()?.();
    await settle();
  }
  for (const open of gates.splice(0)) open();
  await settle();
  expect(seen).toEqual(['a1', 'b1', 'a2', 'a3']);
  expect(queues.messages(fifoArn)).toEqual([]);
});

test('after a stop nothing more is taken', async () => {
  const { send, source, bodies, left } = start(failing());
  await source.stop();
  send('late');
  await settle();
  expect([bodies(), left()]).toEqual([[], ['late']]);
});
