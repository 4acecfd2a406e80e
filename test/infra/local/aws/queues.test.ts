import {
  ChangeMessageVisibilityCommand,
  DeleteMessageBatchCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  GetQueueUrlCommand,
  type Message,
  ReceiveMessageCommand,
  type ReceiveMessageCommandInput,
  SendMessageBatchCommand,
  SendMessageCommand,
} from '@aws-sdk/client-sqs';
import { describe, expect, test } from 'vitest';
import type { QueueOptions } from '../../../../infra/local/aws/queues.ts';
import { account, refusalOf, region, settle, startSystem, testClock } from './support.ts';

const arnOf = (name: string) => `arn:aws:sqs:${region}:${account}:${name}`;

/** A queue `targets` that hides a message for 30 s, and gives up on it after two receipts in favour of `letters`. */
async function startQueue(options: Partial<QueueOptions> = {}, letters: Partial<QueueOptions> = {}) {
  const clock = testClock();
  const system = await startSystem({ clock });
  const QueueUrl = `${system.endpoint.url}/${account}/targets`;
  system.queues.addQueue({
    name: 'targets',
    redrive: { deadLetterArn: arnOf('letters'), maxReceiveCount: 2 },
    ...options,
  });
  system.queues.addQueue({ name: 'letters', ...letters });
  const send = async (body: string, more: object = {}) =>
    system.sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: body, ...more }));
  const receive = async (more: Partial<ReceiveMessageCommandInput> = {}): Promise<readonly Message[]> =>
    (await system.sqs.send(new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, ...more })))
      .Messages ?? [];
  const bodies = async () => (await receive()).map(({ Body }) => Body);
  return { ...system, clock, QueueUrl, send, receive, bodies };
}

describe('a queue', () => {
  test('hands out what was sent, with what it says of it, when asked to', async () => {
    const { send, receive } = await startQueue();
    const sent = await send('{"target":1}', {
      MessageAttributes: { kind: { DataType: 'String', StringValue: 'full' } },
    });
    const [message] = await receive({ MessageSystemAttributeNames: ['All'], MessageAttributeNames: ['All'] });
    expect(message).toEqual({
      MessageId: sent.MessageId,
      Body: '{"target":1}',
      MD5OfBody: '19825386b25341c94bcdeb7520c41285',
      ReceiptHandle: expect.any(String),
      Attributes: {
        ApproximateReceiveCount: '1',
        ApproximateFirstReceiveTimestamp: '1772366400000',
        SentTimestamp: '1772366400000',
        SenderId: 'AKIDTEST',
      },
      MessageAttributes: { kind: { DataType: 'String', StringValue: 'full' } },
    });
  });

  test('says nothing of a message that nobody asked for', async () => {
    const { send, receive } = await startQueue();
    await send('one', { MessageAttributes: { kind: { DataType: 'String', StringValue: 'full' } } });
    const [message] = await receive();
    expect(Object.keys(message ?? {}).sort()).toEqual(['Body', 'MD5OfBody', 'MessageId', 'ReceiptHandle']);
  });

  test('shows a message again only when its visibility time-out is over', async () => {
    const { send, bodies, clock } = await startQueue();
    await send('one');
    expect(await bodies()).toEqual(['one']);
    await clock.advance(29_999);
    expect(await bodies()).toEqual([]);
    await clock.advance(1);
    expect(await bodies()).toEqual(['one']);
  });

  test('never shows a message again that was deleted', async () => {
    const { send, receive, bodies, clock, sqs, QueueUrl } = await startQueue();
    await send('one');
    const [message] = await receive();
    const deletion = new DeleteMessageCommand({ QueueUrl, ReceiptHandle: message?.ReceiptHandle });
    await sqs.send(deletion);
    await clock.advance(60_000);
    expect(await bodies()).toEqual([]);
    // Once more, as after a lost answer.
    await expect(sqs.send(deletion)).resolves.toBeDefined();
  });

  test('does not delete by the handle of an earlier receipt', async () => {
    const { send, receive, queues, clock, sqs, QueueUrl } = await startQueue();
    await send('one');
    const [first] = await receive();
    await clock.advance(30_000);
    await receive();
    await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: first?.ReceiptHandle }));
    expect(queues.messages(arnOf('targets'))).toHaveLength(1);
  });

  test('gives up on a message after so many receipts, which is then in the dead-letter queue', async () => {
    const { send, bodies, queues, clock } = await startQueue();
    await send('poison');
    for (const _receipt of [1, 2]) {
      expect(await bodies()).toEqual(['poison']);
      await clock.advance(30_000);
    }
    expect(queues.messages(arnOf('letters'))).toEqual([]);
    expect(await bodies()).toEqual([]);
    expect(queues.messages(arnOf('targets'))).toEqual([]);
    expect(queues.messages(arnOf('letters'))).toMatchObject([
      { body: 'poison', deadLetterSourceArn: arnOf('targets'), receiveCount: 0 },
    ]);
    expect(queues.visibleCount(arnOf('letters'))).toBe(1);
  });

  test('keeps back what is sent with a delay', async () => {
    const { send, bodies, clock } = await startQueue();
    await send('late', { DelaySeconds: 60 });
    await send('now');
    expect(await bodies()).toEqual(['now']);
    await clock.advance(60_000);
    expect(await bodies()).toEqual(['late', 'now']);
  });

  test('forgets a message after its retention, counted from when it was first sent', async () => {
    const { send, bodies, queues, clock } = await startQueue({ retentionSeconds: 600 });
    await send('old');
    await clock.advance(599_999);
    expect(queues.messages(arnOf('targets'))).toHaveLength(1);
    await clock.advance(1);
    expect(await bodies()).toEqual([]);
  });

  test('gives a dead letter no longer life than the message had', async () => {
    const { send, bodies, queues, clock } = await startQueue({}, { retentionSeconds: 100 });
    await send('poison');
    for (const _receipt of [1, 2, 3]) {
      await bodies();
      await clock.advance(30_000);
    }
    expect(queues.messages(arnOf('letters'))).toHaveLength(1);
    await clock.advance(10_000);
    expect(queues.messages(arnOf('letters'))).toEqual([]);
  });

  test('can show a message at once, or hide it for longer', async () => {
    const { send, receive, bodies, clock, sqs, QueueUrl } = await startQueue({
      redrive: { deadLetterArn: arnOf('letters'), maxReceiveCount: 9 },
    });
    await send('one');
    const hideFor = async (VisibilityTimeout: number, message: Message | undefined) =>
      sqs.send(
        new ChangeMessageVisibilityCommand({
          QueueUrl,
          VisibilityTimeout,
          ReceiptHandle: message?.ReceiptHandle,
        }),
      );
    const [first] = await receive();
    await hideFor(0, first);
    const [second] = await receive();
    expect(second?.Body).toBe('one');
    await hideFor(120, second);
    await clock.advance(119_999);
    expect(await bodies()).toEqual([]);
    await clock.advance(1);
    expect(await bodies()).toEqual(['one']);
  });

  test('counts what it shows, hides and keeps back', async () => {
    const { send, receive, sqs, QueueUrl } = await startQueue();
    for (const body of ['a', 'b', 'c']) await send(body);
    await send('d', { DelaySeconds: 60 });
    await receive({ MaxNumberOfMessages: 2 });
    const { Attributes } = await sqs.send(
      new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['All'] }),
    );
    expect(Attributes).toEqual({
      QueueArn: arnOf('targets'),
      ApproximateNumberOfMessages: '1',
      ApproximateNumberOfMessagesNotVisible: '2',
      ApproximateNumberOfMessagesDelayed: '1',
      CreatedTimestamp: '1772366400',
      LastModifiedTimestamp: '1772366400',
      VisibilityTimeout: '30',
      DelaySeconds: '0',
      MessageRetentionPeriod: '345600',
      MaximumMessageSize: '1048576',
      ReceiveMessageWaitTimeSeconds: '0',
      RedrivePolicy: JSON.stringify({ deadLetterTargetArn: arnOf('letters'), maxReceiveCount: 2 }),
    });
  });

  test('waits for a message as long as it is told to', async () => {
    const { send, receive, clock } = await startQueue();
    const waiting = receive({ WaitTimeSeconds: 20 });
    await clock.advance(5_000);
    await send('came');
    expect((await waiting).map(({ Body }) => Body)).toEqual(['came']);
    let answered = false;
    const inVain = receive({ WaitTimeSeconds: 20 }).finally(() => {
      answered = true;
    });
    // Until the call has reached the queue.
    while (!answered) {
      await settle();
      await clock.advance(1_000);
    }
    expect(await inVain).toEqual([]);
  });
});

describe('a queue that keeps order', () => {
  /** Hides a message for 30 s, and gives up on it after two receipts in favour of `letters.fifo`. */
  async function startFifo() {
    const clock = testClock();
    const system = await startSystem({ clock });
    const QueueUrl = `${system.endpoint.url}/${account}/starts.fifo`;
    const redrive = { deadLetterArn: arnOf('letters.fifo'), maxReceiveCount: 2 };
    system.queues.addQueue({ name: 'starts.fifo', isFifo: true, redrive });
    system.queues.addQueue({ name: 'letters.fifo', isFifo: true, retentionSeconds: 600 });
    const send = async (
      MessageBody: string,
      MessageGroupId: string,
      MessageDeduplicationId = MessageBody,
      more: object = {},
    ) =>
      system.sqs.send(
        new SendMessageCommand({ QueueUrl, MessageBody, MessageGroupId, MessageDeduplicationId, ...more }),
      );
    const receive = async (MaxNumberOfMessages = 10): Promise<readonly Message[]> =>
      (
        await system.sqs.send(
          new ReceiveMessageCommand({
            QueueUrl,
            MaxNumberOfMessages,
            MessageSystemAttributeNames: ['All'],
          }),
        )
      ).Messages ?? [];
    const bodies = async (limit?: number) => (await receive(limit)).map(({ Body }) => Body);
    const remove = async (message: Message | undefined) =>
      system.sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: message?.ReceiptHandle }));
    return { ...system, clock, QueueUrl, send, receive, bodies, remove };
  }

  test('hands out a group in order, and nothing more of it while something of it is out', async () => {
    const { send, receive, bodies, remove } = await startFifo();
    await send('a1', 'a');
    await send('b1', 'b');
    await send('a2', 'a');
    await send('a3', 'a');
    const [a1, b1] = await receive(2);
    expect([a1?.Body, b1?.Body]).toEqual(['a1', 'b1']);
    expect(await bodies()).toEqual([]);
    await send('b2', 'b');
    await remove(b1);
    expect(await bodies()).toEqual(['b2']);
    await remove(a1);
    expect(await bodies()).toEqual(['a2', 'a3']);
  });

  test('holds a group back while its first message waits to come again, and no other group', async () => {
    const { send, receive, bodies, clock, sqs, QueueUrl } = await startFifo();
    await send('a1', 'a');
    await send('a2', 'a');
    const [a1] = await receive(1);
    await sqs.send(
      new ChangeMessageVisibilityCommand({
        QueueUrl,
        ReceiptHandle: a1?.ReceiptHandle,
        VisibilityTimeout: 60,
      }),
    );
    await send('b1', 'b');
    expect(await bodies()).toEqual(['b1']);
    await clock.advance(60_000);
    expect(await bodies()).toEqual(['a1', 'a2', 'b1']);
  });

  test('takes a message once within five minutes, and answers the second time with the first', async () => {
    const { send, receive, bodies, remove, clock } = await startFifo();
    const first = await send('one', 'a', 'same');
    const again = await send('another text', 'a', 'same');
    expect([again.MessageId, again.SequenceNumber]).toEqual([first.MessageId, first.SequenceNumber]);
    const [message] = await receive();
    expect(message?.Attributes).toMatchObject({
      MessageGroupId: 'a',
      MessageDeduplicationId: 'same',
      SequenceNumber: first.SequenceNumber,
    });
    // Also after it is gone.
    await remove(message);
    await clock.advance(299_999);
    await send('one', 'a', 'same');
    expect(await bodies()).toEqual([]);
    await clock.advance(1);
    await send('one', 'a', 'same');
    expect(await bodies()).toEqual(['one']);
  });

  test('lets a group go on once it has given up on a message, which keeps its group and begins its age anew', async () => {
    const { send, bodies, queues, clock } = await startFifo();
    await send('a1', 'a');
    await send('a2', 'a');
    for (const _receipt of [1, 2]) {
      expect(await bodies(1)).toEqual(['a1']);
      await clock.advance(30_000);
    }
    expect(await bodies(1)).toEqual(['a2']);
    expect(queues.messages(arnOf('letters.fifo'))).toMatchObject([{ body: 'a1', order: { groupId: 'a' } }]);
    await clock.advance(599_999);
    expect(queues.messages(arnOf('letters.fifo'))).toHaveLength(1);
    await clock.advance(1);
    expect(queues.messages(arnOf('letters.fifo'))).toEqual([]);
  });

  const refused: Record<string, { input: object; name: string; text: RegExp }> = {
    'without a group': {
      input: { MessageDeduplicationId: 'x' },
      name: 'MissingParameter',
      text: /MessageGroupId/,
    },
    'without what tells it from others': {
      input: { MessageGroupId: 'a' },
      name: 'InvalidParameterValue',
      text: /MessageDeduplicationId/,
    },
    'with a delay of its own': {
      input: { MessageGroupId: 'a', MessageDeduplicationId: 'x', DelaySeconds: 5 },
      name: 'InvalidParameterValue',
      text: /DelaySeconds/,
    },
  };
  test.each(Object.entries(refused))(
    'refuses a message %s, and of a batch that one alone',
    async (_sentence, { input, name, text }) => {
      const { sqs, QueueUrl, bodies } = await startFifo();
      const alone = new SendMessageCommand({ QueueUrl, MessageBody: 'x', ...input });
      expect(await refusalOf(sqs.send(alone))).toMatchObject({ name, message: expect.stringMatching(text) });
      const { Successful, Failed } = await sqs.send(
        new SendMessageBatchCommand({
          QueueUrl,
          Entries: [
            { Id: 'good', MessageBody: 'good', MessageGroupId: 'a', MessageDeduplicationId: 'good' },
            { Id: 'bad', MessageBody: 'bad', ...input },
          ],
        }),
      );
      expect(Successful?.map(({ Id }) => Id)).toEqual(['good']);
      expect(Failed).toEqual([
        { Id: 'bad', SenderFault: true, Code: name, Message: expect.stringMatching(text) },
      ]);
      expect(await bodies()).toEqual(['good']);
    },
  );

  test('has a name that says so', async () => {
    const { queues } = await startFifo();
    expect(() => queues.addQueue({ name: 'starts', isFifo: true })).toThrow('.fifo');
    expect(() => queues.addQueue({ name: 'starts.fifo' })).toThrow('.fifo');
  });
});

test('the age of the oldest message counts from when it came, and leaves out what comes back again and again', async () => {
  const { send, receive, queues, clock } = await startQueue({
    redrive: { deadLetterArn: arnOf('letters'), maxReceiveCount: 9 },
  });
  expect(queues.oldestAgeSeconds(arnOf('targets'))).toBe(0);
  await send('poison');
  for (const age of [0, 30, 60]) {
    expect(queues.oldestAgeSeconds(arnOf('targets'))).toBe(age);
    await receive();
    await clock.advance(30_000);
  }
  expect(queues.oldestAgeSeconds(arnOf('targets'))).toBe(90);
  await receive();
  expect(queues.oldestAgeSeconds(arnOf('targets'))).toBe(0);
  await send('another');
  await clock.advance(5_000);
  expect(queues.oldestAgeSeconds(arnOf('targets'))).toBe(5);
});

describe('a batch', () => {
  test('is sent and deleted entry by entry', async () => {
    const { sqs, QueueUrl, receive, queues } = await startQueue();
    const sent = await sqs.send(
      new SendMessageBatchCommand({
        QueueUrl,
        Entries: [
          { Id: 'x', MessageBody: 'one' },
          { Id: 'y', MessageBody: 'two' },
        ],
      }),
    );
    expect(sent.Successful?.map(({ Id }) => Id)).toEqual(['x', 'y']);
    const [one] = await receive();
    const deleted = await sqs.send(
      new DeleteMessageBatchCommand({
        QueueUrl,
        Entries: [
          { Id: 'good', ReceiptHandle: one?.ReceiptHandle },
          { Id: 'bad', ReceiptHandle: 'made up' },
        ],
      }),
    );
    expect(deleted.Successful).toEqual([{ Id: 'good' }]);
    expect(deleted.Failed).toEqual([
      {
        Id: 'bad',
        SenderFault: true,
        Code: 'ReceiptHandleIsInvalid',
        Message: 'The input receipt handle is invalid.',
      },
    ]);
    expect(queues.messages(arnOf('targets')).map(({ body }) => body)).toEqual(['two']);
  });

  const entries = (count: number, body = 'x') =>
    Array.from({ length: count }, (_, index) => ({ Id: `e${index}`, MessageBody: body }));
  const refused: Record<
    string,
    { Entries: { Id: string; MessageBody: string }[]; name: string; code: string }
  > = {
    'without an entry': {
      Entries: [],
      name: 'EmptyBatchRequest',
      code: 'AWS.SimpleQueueService.EmptyBatchRequest',
    },
    'with eleven entries': {
      Entries: entries(11),
      name: 'TooManyEntriesInBatchRequest',
      code: 'AWS.SimpleQueueService.TooManyEntriesInBatchRequest',
    },
    'with one id twice': {
      Entries: [...entries(1), ...entries(1)],
      name: 'BatchEntryIdsNotDistinct',
      code: 'AWS.SimpleQueueService.BatchEntryIdsNotDistinct',
    },
    'of more than a megabyte': {
      Entries: entries(2, 'x'.repeat(600_000)),
      name: 'BatchRequestTooLong',
      code: 'AWS.SimpleQueueService.BatchRequestTooLong',
    },
  };
  test.each(Object.entries(refused))('%s is refused whole', async (_sentence, { Entries, name, code }) => {
    const { sqs, QueueUrl, queues } = await startQueue();
    const error = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries })).catch((e: unknown) => e);
    expect(error).toMatchObject({ name, Code: code });
    expect(queues.messages(arnOf('targets'))).toEqual([]);
  });
});

describe('refused with the name that the SDK knows', () => {
  test('is a queue that does not exist', async () => {
    const { sqs, endpoint } = await startQueue();
    const QueueUrl = `${endpoint.url}/${account}/nowhere`;
    const error = await sqs
      .send(new SendMessageCommand({ QueueUrl, MessageBody: 'x' }))
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      name: 'QueueDoesNotExist',
      Code: 'AWS.SimpleQueueService.NonExistentQueue',
      message: 'The specified queue does not exist.',
    });
    expect((await refusalOf(sqs.send(new GetQueueUrlCommand({ QueueName: 'nowhere' })))).name).toBe(
      'QueueDoesNotExist',
    );
  });

  test('is a receipt handle that was never given out', async () => {
    const { sqs, QueueUrl } = await startQueue();
    expect(
      await refusalOf(sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: 'made up' }))),
    ).toEqual({
      name: 'ReceiptHandleIsInvalid',
      message: 'The input receipt handle is invalid.',
      status: 404,
    });
  });

  test('is a longer time for a message that is not hidden', async () => {
    const { sqs, QueueUrl, send, receive, clock } = await startQueue();
    await send('one');
    const [message] = await receive();
    await clock.advance(30_000);
    const { name } = await refusalOf(
      sqs.send(
        new ChangeMessageVisibilityCommand({
          QueueUrl,
          VisibilityTimeout: 10,
          ReceiptHandle: message?.ReceiptHandle,
        }),
      ),
    );
    expect(name).toBe('MessageNotInflight');
  });

  test('is a message of more than a megabyte', async () => {
    const { send } = await startQueue();
    expect((await refusalOf(send('x'.repeat(1024 * 1024 + 1)))).name).toBe('InvalidParameterValue');
  });
});
