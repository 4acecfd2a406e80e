import {
  ChangeMessageVisibilityCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import { mockClient } from 'aws-sdk-client-mock';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { openQueues, type QueueUrls } from '../../functions/runtime/queue.ts';

const urlOf = (name: string) => `https://sqs.eu-central-1.amazonaws.com/111122223333/${name}`;
const every: Required<QueueUrls> = {
  REKEY_TARGET_QUEUE_URL: urlOf('targets'),
  REKEY_URGENT_TARGET_QUEUE_URL: urlOf('urgent'),
  REKEY_START_QUEUE_URL: urlOf('starts.fifo'),
  REKEY_LOST_REQUEST_QUEUE_URL: urlOf('lost'),
};
const sqs = mockClient(SQSClient);
beforeEach(() => {
  vi.stubEnv('AWS_REGION', 'eu-central-1');
  sqs.reset();
  sqs.on(SendMessageBatchCommand).callsFake(async ({ Entries }: { Entries: readonly { Id: string }[] }) => ({
    Successful: Entries.map(({ Id }) => ({ Id })),
  }));
  sqs.on(SendMessageCommand).resolves({});
  sqs.on(ChangeMessageVisibilityCommand).resolves({});
});

const open = (urls: QueueUrls = every) =>
  openQueues(urls, {
    sleep: async () => undefined,
    sha256: () => new Uint8Array(32),
    scrub: (text) => text.replaceAll('canary', '‹redacted›'),
  });
const task = (targetId: string, urgent?: boolean) => ({
  provider: 'acme',
  targetId,
  ...(urgent === undefined ? {} : { urgent }),
});
const start = {
  provider: 'acme',
  targetId: 'db-1',
  credential: 'orders',
  id: 'x',
};
const lost = { body: '{}', messageId: 'm-1', code: 'DEFECT' };
const queueArn = 'arn:aws:sqs:eu-central-1:111122223333:orders';

test('an urgent task goes to a queue of its own, before all others', async () => {
  await open().enqueue([task('db-1'), task('db-2', true), task('db-3', false), task('db-4', true)]);
  expect(
    sqs
      .commandCalls(SendMessageBatchCommand)
      .map(({ args: [{ input }] }) => [
        input.QueueUrl,
        input.Entries?.map(({ MessageBody = '' }) => JSON.parse(MessageBody).targetId),
      ]),
  ).toEqual([
    [urlOf('urgent'), ['db-2', 'db-4']],
    [urlOf('targets'), ['db-1', 'db-3']],
  ]);
});

test('each port uses the queue of its variable, and what is set aside carries no secret', async () => {
  const { enqueueStart, postpone, setAside } = open();
  await enqueueStart([start]);
  await postpone({ queueArn, receiptHandle: 'r', seconds: 1 });
  await setAside({ ...lost, queueArn, message: 'refused with canary' });
  expect(sqs.calls().map(({ args: [{ input }] }) => (input as { QueueUrl: string }).QueueUrl)).toEqual([
    urlOf('starts.fifo'),
    urlOf('orders'),
    urlOf('lost'),
  ]);
  const [
    {
      args: [{ input } = { input: undefined }],
    } = { args: [] },
  ] = sqs.commandCalls(SendMessageCommand);
  expect(input?.MessageAttributes?.['ERROR_MESSAGE']?.StringValue).toBe('refused with ‹redacted›');
});

describe('a queue that the function does not have', () => {
  const uses: Record<keyof QueueUrls, (ports: ReturnType<typeof open>) => Promise<void>> = {
    REKEY_TARGET_QUEUE_URL: ({ enqueue }) => enqueue([task('db-1')]),
    REKEY_URGENT_TARGET_QUEUE_URL: ({ enqueue }) => enqueue([task('db-1', true)]),
    REKEY_START_QUEUE_URL: ({ enqueueStart }) => enqueueStart([start]),
    REKEY_LOST_REQUEST_QUEUE_URL: ({ postpone }) => postpone({ queueArn, receiptHandle: 'r', seconds: 1 }),
  };
  test.each(Object.entries(uses))('is named: %s', async (variable, use) => {
    const { [variable as keyof QueueUrls]: _, ...others } = every;
    await expect(use(open(others))).rejects.toThrow(`ENVIRONMENT_INVALID: ${variable}: `);
    expect(sqs.calls()).toEqual([]);
  });
});
