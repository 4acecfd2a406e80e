import { createHash } from 'node:crypto';
import {
  type BatchResultErrorEntry,
  ChangeMessageVisibilityCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import { mockClient } from 'aws-sdk-client-mock';
import { describe, expect, test } from 'vitest';
import { redelivery, startQueue, targetQueue } from '../../functions/aws/queue.ts';
import { StoreError } from '../../functions/core/errors.ts';
import type { TargetTask } from '../../functions/core/fleet.ts';
import { awsError, networkError, rejectionOf } from './support.ts';

const queueUrl = 'https://sqs.eu-central-1.amazonaws.com/111122223333/rekey-targets';

function adapter() {
  const client = new SQSClient({ region: 'eu-central-1' });
  const mock = mockClient(client);
  const waits: number[] = [];
  const enqueue = targetQueue(client, queueUrl, {
    sleep: async (ms) => {
      waits.push(ms);
    },
  });
  /** The targets named in each request, in the order of the requests. */
  const sent = () =>
    mock
      .commandCalls(SendMessageBatchCommand)
      .map(({ args: [{ input }] }) =>
        input.Entries?.map(({ MessageBody = '{}' }) => JSON.parse(MessageBody).targetId),
      );
  return { mock, enqueue, waits, sent };
}

const task = (targetId: string): TargetTask => ({ provider: 'acme', targetId });
const taken = (...Ids: readonly string[]) => ({
  Successful: Ids.map((Id) => ({ Id, MessageId: `message-${Id}`, MD5OfMessageBody: 'x' })),
  Failed: [],
});
const failed = (Id: string, Code: string, SenderFault = false): BatchResultErrorEntry => ({
  Id,
  Code,
  SenderFault,
  Message: 'a text',
});

test('a task is a message that names the target and nothing else', async () => {
  const { mock, enqueue } = adapter();
  mock.on(SendMessageBatchCommand).resolves(taken('0', '1'));
  await enqueue([task('db-1'), { provider: 'other', targetId: 'db-2' }]);
  expect(mock.commandCalls(SendMessageBatchCommand)[0]?.args[0].input).toEqual({
    QueueUrl: queueUrl,
    Entries: [
      { Id: '0', MessageBody: '{"provider":"acme","targetId":"db-1"}' },
      { Id: '1', MessageBody: '{"provider":"other","targetId":"db-2"}' },
    ],
  });
});

test('a task that is to wait says so beside its message, and not in it', async () => {
  const { mock, enqueue } = adapter();
  mock.on(SendMessageBatchCommand).resolves(taken('0', '1'));
  await enqueue([{ ...task('db-1'), delaySeconds: 60 }, task('db-2')]);
  expect(mock.commandCalls(SendMessageBatchCommand)[0]?.args[0].input.Entries).toEqual([
    { Id: '0', MessageBody: '{"provider":"acme","targetId":"db-1"}', DelaySeconds: 60 },
    { Id: '1', MessageBody: '{"provider":"acme","targetId":"db-2"}' },
  ]);
});

test('that a task is urgent says its queue, and not its message', async () => {
  const { mock, enqueue } = adapter();
  mock.on(SendMessageBatchCommand).resolves(taken('0'));
  await enqueue([{ ...task('db-1'), urgent: true }]);
  expect(mock.commandCalls(SendMessageBatchCommand)[0]?.args[0].input.Entries).toEqual([
    { Id: '0', MessageBody: '{"provider":"acme","targetId":"db-1"}' },
  ]);
});

test('no task calls nobody', async () => {
  const { enqueue, sent } = adapter();
  await enqueue([]);
  expect(sent()).toEqual([]);
});

test('more than ten tasks go in requests of ten, each once', async () => {
  const { mock, enqueue, sent } = adapter();
  mock
    .on(SendMessageBatchCommand)
    .callsFake(async ({ Entries }: { Entries: readonly { Id: string }[] }) =>
      taken(...Entries.map(({ Id }) => Id)),
    );
  await enqueue(Array.from({ length: 12 }, (_, index) => task(`db-${index}`)));
  expect(sent()).toEqual([
    ['db-0', 'db-1', 'db-2', 'db-3', 'db-4', 'db-5', 'db-6', 'db-7', 'db-8', 'db-9'],
    ['db-10', 'db-11'],
  ]);
});

describe('an answer of 200 with failed messages', () => {
  test('is repeated for the messages that the queue lost, and for no others', async () => {
    const { mock, enqueue, sent, waits } = adapter();
    mock
      .on(SendMessageBatchCommand)
      .resolvesOnce({ ...taken('1'), Failed: [failed('0', 'InternalError'), failed('2', 'InternalError')] })
      .resolvesOnce({ ...taken('1'), Failed: [failed('0', 'ServiceUnavailable')] })
      .resolvesOnce(taken('0'));
    await enqueue([task('a'), task('b'), task('c')]);
    expect(sent()).toEqual([['a', 'b', 'c'], ['a', 'c'], ['a']]);
    expect(waits).toEqual([200, 400]);
  });

  test.each(['KmsThrottled', 'RequestThrottled', 'KMS.ThrottlingException'])(
    "is repeated for %s, though it counts as the sender's fault",
    async (code) => {
      const { mock, enqueue, sent } = adapter();
      mock
        .on(SendMessageBatchCommand)
        .resolvesOnce({ Successful: [], Failed: [failed('0', code, true)] })
        .resolvesOnce(taken('0'));
      await enqueue([task('a')]);
      expect(sent()).toEqual([['a'], ['a']]);
    },
  );

  test('is given up after the fifth time', async () => {
    const { mock, enqueue, sent } = adapter();
    mock.on(SendMessageBatchCommand).resolves({ Successful: [], Failed: [failed('0', 'InternalError')] });
    const thrown = await rejectionOf(enqueue([task('a')]));
    expect(thrown).toBeInstanceOf(StoreError);
    expect(thrown).toMatchObject({
      code: 'EVENT_NOT_PUBLISHED',
      effect: 'none',
      message: expect.stringContaining(`1 of 1 tasks were not taken by ${queueUrl} (InternalError)`),
    });
    expect(sent()).toHaveLength(5);
  });

  test.each(['KmsAccessDenied', 'InvalidMessageContents'])('is not repeated for %s', async (code) => {
    const { mock, enqueue, sent } = adapter();
    mock.on(SendMessageBatchCommand).resolves({ ...taken('1'), Failed: [failed('0', code, true)] });
    expect(await rejectionOf(enqueue([task('a'), task('b')]))).toMatchObject({
      code: 'EVENT_NOT_PUBLISHED',
      effect: 'applied',
      message: expect.stringContaining('1 of 2 tasks'),
    });
    expect(sent()).toHaveLength(1);
  });

  test('that names a message neither taken nor failed did not take it: it is sent again', async () => {
    const { mock, enqueue, sent } = adapter();
    mock.on(SendMessageBatchCommand).resolvesOnce(taken('0')).resolvesOnce(taken('0'));
    await enqueue([task('a'), task('b')]);
    expect(sent()).toEqual([['a', 'b'], ['b']]);
  });
});

describe('a request that fails as a whole', () => {
  const failures: Record<string, { error: Error; code: string; effect: string }> = {
    'throttled did nothing': {
      error: awsError('RequestThrottled', { status: 403 }),
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    },
    "throttled by the queue's key did nothing": {
      error: awsError('KmsThrottled'),
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    },
    'inside the queue leaves open what was done': {
      error: awsError('InternalFailure', { status: 500 }),
      code: 'STORE_UNAVAILABLE',
      effect: 'unknown',
    },
    'without an answer leaves open what was done': {
      error: networkError(),
      code: 'STORE_UNAVAILABLE',
      effect: 'unknown',
    },
    'denied did nothing': {
      error: awsError('AccessDenied', { status: 403 }),
      code: 'STORE_DENIED',
      effect: 'none',
    },
    "denied by the queue's key did nothing": {
      error: awsError('KmsAccessDenied'),
      code: 'STORE_DENIED',
      effect: 'none',
    },
    'for a queue that does not exist did nothing': {
      error: awsError('QueueDoesNotExist'),
      code: 'STORE_REFUSED',
      effect: 'none',
    },
  };
  test.each(Object.entries(failures))('%s', async (_sentence, { error, code, effect }) => {
    const { mock, enqueue } = adapter();
    mock.on(SendMessageBatchCommand).rejects(error);
    const thrown = await rejectionOf(enqueue([task('a')]));
    expect(thrown).toBeInstanceOf(StoreError);
    expect(thrown).toMatchObject({ code, effect, cause: error });
  });

  test('did something where an earlier request was taken', async () => {
    const { mock, enqueue } = adapter();
    mock
      .on(SendMessageBatchCommand)
      .resolvesOnce(taken('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'))
      .rejectsOnce(awsError('AccessDenied', { status: 403 }));
    const tasks = Array.from({ length: 11 }, (_, index) => task(`db-${index}`));
    expect(await rejectionOf(enqueue(tasks))).toMatchObject({ code: 'STORE_DENIED', effect: 'applied' });
  });
});

describe('a start', () => {
  const startUrl = 'https://sqs.eu-central-1.amazonaws.com/111122223333/rekey-starts.fifo';
  function starter() {
    const client = new SQSClient({ region: 'eu-central-1' });
    const mock = mockClient(client);
    mock
      .on(SendMessageBatchCommand)
      .callsFake(async ({ Entries }: { Entries: readonly { Id: string }[] }) =>
        taken(...Entries.map(({ Id }) => Id)),
      );
    const sha256 = (text: string) => createHash('sha256').update(text).digest();
    const enqueueStart = startQueue(client, startUrl, { sleep: async () => undefined }, sha256);
    const entries = () =>
      mock.commandCalls(SendMessageBatchCommand).flatMap(({ args: [{ input }] }) => input.Entries ?? []);
    return { enqueueStart, entries };
  }
  const start = { provider: 'acme', targetId: 'db-1', credential: 'orders', id: 'orders because of v1' };

  test('is in the group of its target, under an id that its sender chose and SQS takes', async () => {
    const { enqueueStart, entries } = starter();
    const orders = { rotateBefore: new Date('2026-03-01T12:00:00Z') };
    await enqueueStart([start, { ...start, credential: 'billing', orders, id: 'é'.repeat(500) }]);
    expect(entries()).toEqual([
      {
        Id: '0',
        MessageBody: '{"provider":"acme","targetId":"db-1","credential":"orders"}',
        MessageGroupId: 'acme/db-1',
        // printf 'orders because of v1' | sha256sum
        MessageDeduplicationId: 'c9cf06453d2f04e1b2fb7a81435122c52d0fbf09476c28f6637293b928974b65',
      },
      {
        Id: '1',
        MessageBody:
          '{"provider":"acme","targetId":"db-1","credential":"billing","orders":{"rotateBefore":"2026-03-01T12:00:00.000Z"}}',
        MessageGroupId: 'acme/db-1',
        MessageDeduplicationId: expect.stringMatching(/^[0-9a-f]{64}$/),
      },
    ]);
  });

  test('of a target with a name too long for a group has a group of its own all the same', async () => {
    const { enqueueStart, entries } = starter();
    const targets = ['a', 'b'].map((last) => `${'x'.repeat(127)}${last}`);
    await enqueueStart(targets.map((targetId) => ({ ...start, targetId })));
    const groups = entries().map(({ MessageGroupId = '' }) => MessageGroupId);
    expect(new Set(groups).size).toBe(2);
    for (const group of groups) expect(group).toMatch(/^[0-9a-f]{64}$/);
  });
});

describe('a message that failed', () => {
  const lostUrl = 'https://sqs.eu-central-1.amazonaws.com/111122223333/Rekey-LostRequests';
  const queueArn = 'arn:aws:sqs:eu-central-1:111122223333:rekey-orders';
  function failing() {
    const client = new SQSClient({ region: 'eu-central-1' });
    return { mock: mockClient(client), ...redelivery(client, lostUrl) };
  }

  test('is hidden for so long, in the queue that it came from', async () => {
    const { mock, postpone } = failing();
    mock.on(ChangeMessageVisibilityCommand).resolves({});
    await postpone({ queueArn, receiptHandle: 'receipt-1', seconds: 30 });
    expect(mock.commandCalls(ChangeMessageVisibilityCommand)[0]?.args[0].input).toEqual({
      QueueUrl: 'https://sqs.eu-central-1.amazonaws.com/111122223333/rekey-orders',
      ReceiptHandle: 'receipt-1',
      VisibilityTimeout: 30,
    });
  });

  test('is set aside as it was, with why it can never succeed and which it is', async () => {
    const { mock, setAside } = failing();
    mock.on(SendMessageCommand).resolves({});
    const lost = { body: '{"detail-type":"Odd"}', messageId: 'm-1', queueArn, code: 'EVENT_INVALID' };
    await setAside({ ...lost, message: `EVENT_INVALID: ${'x'.repeat(5_000)}` });
    const text = (StringValue: string) => ({ DataType: 'String', StringValue });
    expect(mock.commandCalls(SendMessageCommand)[0]?.args[0].input).toEqual({
      QueueUrl: lostUrl,
      MessageBody: lost.body,
      MessageAttributes: {
        ERROR_CODE: text('EVENT_INVALID'),
        ERROR_MESSAGE: text(`EVENT_INVALID: ${'x'.repeat(3_985)}`),
        QUEUE_ARN: text(queueArn),
        MESSAGE_ID: text('m-1'),
      },
    });
  });

  test.each(['postpone', 'setAside'] as const)('says so where AWS does not let it: %s', async (port) => {
    const { mock, ...ports } = failing();
    mock.onAnyCommand().rejects(awsError('AccessDenied', { status: 403 }));
    const request = {
      queueArn,
      receiptHandle: 'r',
      seconds: 1,
      body: '',
      messageId: 'm',
      code: 'X',
      message: 'x',
    };
    expect(await rejectionOf(ports[port](request))).toMatchObject({ code: 'STORE_DENIED', effect: 'none' });
  });
});
