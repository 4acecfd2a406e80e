import { expect, test } from 'vitest';
import { createTopics } from '../../../../infra/local/aws/topics.ts';
import { functionArn, testClock } from './support.ts';

const topicArn = 'arn:aws:sns:eu-central-1:111122223333:alarms';
const queueArn = 'arn:aws:sqs:eu-central-1:111122223333:alarms';

function start() {
  const invoked: unknown[] = [];
  const sent: { queueArn: string; body: string }[] = [];
  const topics = createTopics({
    clock: testClock(),
    invoke: async (arn, event) => {
      invoked.push(event);
      if (arn !== functionArn) throw new Error('no such function');
    },
    send: (arn, body) => sent.push({ queueArn: arn, body }),
  });
  topics.addTopic(topicArn);
  return { topics, invoked, sent };
}

test('what was published can be read afterwards, by topic and all of it', () => {
  const { topics } = start();
  topics.addTopic(`${topicArn}-2`);
  topics.publish(topicArn, 'one', 'subject');
  topics.publish(`${topicArn}-2`, 'two');
  expect(topics.published(topicArn)).toEqual([
    {
      messageId: expect.any(String),
      topicArn,
      subject: 'subject',
      message: 'one',
      publishedAt: new Date('2026-03-01T12:00:00Z'),
    },
  ]);
  expect(topics.published().map(({ message }) => message)).toEqual(['one', 'two']);
});

test('a queue gets the message, and around it what SNS writes unless it wants the message alone', () => {
  const { topics, sent } = start();
  topics.subscribe({ topicArn, protocol: 'sqs', endpoint: queueArn });
  topics.subscribe({ topicArn, protocol: 'sqs', endpoint: `${queueArn}-raw`, isRaw: true });
  const { messageId } = topics.publish(topicArn, '{"a":1}', 'subject');
  expect(sent.map(({ queueArn: arn }) => arn)).toEqual([queueArn, `${queueArn}-raw`]);
  expect(JSON.parse(sent[0]?.body ?? '')).toEqual({
    Type: 'Notification',
    MessageId: messageId,
    TopicArn: topicArn,
    Subject: 'subject',
    Message: '{"a":1}',
    Timestamp: '2026-03-01T12:00:00.000Z',
  });
  expect(sent[1]?.body).toBe('{"a":1}');
});

test('a function gets a record, and one that cannot be called does not disturb the others', async () => {
  const { topics, invoked } = start();
  topics.subscribe({ topicArn, protocol: 'lambda', endpoint: 'arn:aws:lambda:gone' });
  topics.subscribe({ topicArn, protocol: 'lambda', endpoint: functionArn });
  topics.publish(topicArn, 'one');
  await topics.idle();
  expect(invoked).toHaveLength(2);
  expect(invoked[1]).toEqual({
    Records: [
      {
        EventVersion: '1.0',
        EventSource: 'aws:sns',
        EventSubscriptionArn: expect.stringMatching(/^arn:aws:sns:eu-central-1:111122223333:alarms:/),
        Sns: expect.objectContaining({ Type: 'Notification', Message: 'one' }),
      },
    ],
  });
});

test('a topic that does not exist takes neither messages nor subscriptions', () => {
  const { topics } = start();
  const nowhere = 'arn:aws:sns:eu-central-1:111122223333:nowhere';
  expect(() => topics.publish(nowhere, 'one')).toThrow(`no such topic: ${nowhere}`);
  expect(() => topics.subscribe({ topicArn: nowhere, protocol: 'sqs', endpoint: queueArn })).toThrow(
    `no such topic: ${nowhere}`,
  );
});
