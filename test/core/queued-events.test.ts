import { describe, expect, test } from 'vitest';
import {
  InputError,
  ProviderError,
  RotationRefused,
  StoreError,
  VerificationFailed,
} from '../../functions/core/errors.ts';
import {
  busEventIn,
  maxTries,
  parseQueuedMessages,
  redeliveryOf,
  secondsUntilTry,
  spread,
} from '../../functions/core/queued-events.ts';

const queueArn = 'arn:aws:sqs:eu-central-1:111122223333:rekey-orders';
const record = {
  messageId: 'm-1',
  receiptHandle: 'receipt-1',
  body: '{"detail-type":"CredentialCompromised"}',
  attributes: {
    ApproximateReceiveCount: '3',
    SentTimestamp: '1772366400000',
    SenderId: 'AIDA',
  },
  messageAttributes: {},
  md5OfBody: 'x',
  eventSource: 'aws:sqs',
  eventSourceARN: queueArn,
  awsRegion: 'eu-central-1',
};
const message = {
  messageId: 'm-1',
  receiptHandle: 'receipt-1',
  queueArn,
  body: '{"detail-type":"CredentialCompromised"}',
  receiveCount: 3,
  sentAt: new Date('2026-03-01T12:00:00Z'),
};

describe('a batch of a queue', () => {
  test('is read with how often each message was received, and when it was sent', () => {
    expect(parseQueuedMessages({ Records: [record] })).toEqual([message]);
    const fifo = { ...record, eventSourceARN: `${queueArn}.fifo` };
    expect(parseQueuedMessages({ Records: [fifo] })?.[0]?.queueArn).toBe(`${queueArn}.fifo`);
  });

  test.each([undefined, null, 'text', {}, { pass: 'scheduled' }, { 'detail-type': 'CredentialRotated' }])(
    'is not what a function is invoked with otherwise: %j',
    (event) => {
      expect(parseQueuedMessages(event)).toBeUndefined();
    },
  );

  test('that is wrong is refused with every wrong field, and with what to do instead', () => {
    const wrong = {
      ...record,
      messageId: '',
      receiptHandle: 7,
      body: {},
      eventSourceARN: 'arn:aws:sns:eu-central-1:111122223333:topic',
      attributes: { ApproximateReceiveCount: 'often', SentTimestamp: 'now' },
    };
    expect(() => parseQueuedMessages({ Records: [record, wrong] })).toThrow(
      /^EVENT_INVALID: Records\.1\.messageId: .*receiptHandle: .*body: .*eventSourceARN: expected the ARN of a queue.*ApproximateReceiveCount: expected a whole number.*SentTimestamp: .*put one into the queue/,
    );
    for (const Records of [[], 'none', [null], [{}]])
      expect(() => parseQueuedMessages({ Records })).toThrow(/^EVENT_INVALID: Records/);
  });
});

describe('an event of a bus', () => {
  test('is what its message holds, whole', () => {
    const body = '{"detail-type":"CredentialRotated","detail":{"credential":"orders"}}';
    expect(busEventIn({ ...message, body })).toEqual({
      'detail-type': 'CredentialRotated',
      detail: { credential: 'orders' },
    });
  });

  test.each([
    'no JSON',
    '7',
    'null',
    '[]',
    '{}',
    '{"provider":"acme","targetId":"db-1"}',
    '{"detail-type":7}',
  ])('is not in %s', (body) => {
    expect(busEventIn({ ...message, body })).toBeUndefined();
  });
});

describe('what failed', () => {
  const store = (code: StoreError['code']) => new StoreError(code, 'none', 'x');
  const vendor = (code: ProviderError['code']) =>
    new ProviderError('x', { code, effect: 'none', provider: 'acme', operation: 'listUsers' });

  test('waits longer each time, a quarter of an hour at most', () => {
    expect([1, 2, 3, 4, 5, 6, 7, 8, 200].map(secondsUntilTry)).toEqual([
      15, 30, 60, 120, 240, 480, 900, 900, 900,
    ]);
  });

  test('together does not come back together', () => {
    const ids = Array.from({ length: 100 }, (_, index) => `${index * 7_919}-2f4b`);
    const waits = ids.map((id) => spread(900, id));
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(900);
    expect(Math.max(...waits)).toBeLessThanOrEqual(1_350);
    expect(new Set(waits).size).toBeGreaterThan(70);
    // The same message does so each time.
    expect(ids.map((id) => spread(900, id))).toEqual(waits);
  });

  const passing: Record<string, unknown> = {
    'as Parameter Store was throttled': store('STORE_UNAVAILABLE'),
    'as a role or a key was wrong': store('STORE_DENIED'),
    'as the bus took nothing': store('EVENT_NOT_PUBLISHED'),
    'as a vendor was down': vendor('UNAVAILABLE'),
    'as a vendor was busy': vendor('RATE_LIMITED'),
    'as a target was not ready': vendor('TARGET_NOT_READY'),
    'as a database was out of reach': new VerificationFailed('LOGIN_UNREACHABLE', 'x'),
    'as writes are paused': new RotationRefused('PAUSED', 'x'),
  };
  test.each(Object.entries(passing))(
    '%s comes again for as long as its queue lets it',
    (_sentence, error) => {
      expect(redeliveryOf(error, 1)).toEqual({ seconds: 15 });
      expect(redeliveryOf(error, maxTries)).toEqual({ seconds: 900 });
    },
  );

  // Hours of throttling must not lose an order, and the queue keeps a message for 14 days.
  test('so comes again for two days, or for less than 14 where it crashes the function', () => {
    const waits = Array.from({ length: maxTries - 1 }, (_, index) => secondsUntilTry(index + 1));
    const days = waits.reduce((sum, seconds) => sum + seconds, 0) / 86_400;
    expect(days).toBeGreaterThan(2);
    expect((maxTries * 90) / 60 / 24).toBeLessThan(14);
  });

  const forPeople: Record<string, unknown> = {
    'as it names no credential': new RotationRefused('SPEC_MISSING', 'x'),
    'as its name is taken': new RotationRefused('SPEC_CONFLICT', 'x'),
    'as its spec is wrong': new InputError('SPEC_INVALID', 'x'),
    'as a vendor refuses the key': vendor('UNAUTHORIZED'),
    'as the login to adopt is refused': new VerificationFailed('CREDENTIAL_REJECTED', 'x'),
    'as AWS refuses the call': store('STORE_REFUSED'),
    'for a defect of ours': new TypeError('x is not a function'),
    'for something that is no error': 'x',
  };
  test.each(Object.entries(forPeople))(
    '%s is tried for some minutes, and is then for people',
    (_sentence, error) => {
      expect([1, 2, 3, 4].map((tries) => redeliveryOf(error, tries))).toEqual([
        { seconds: 15 },
        { seconds: 30 },
        { seconds: 60 },
        { seconds: 120 },
      ]);
      expect(redeliveryOf(error, 5)).toBe('lost');
      expect(redeliveryOf(error, 6)).toBe('lost');
    },
  );

  test('as it is no event that the function takes is for people at once', () => {
    expect(redeliveryOf(new InputError('EVENT_INVALID', 'x'), 1)).toBe('lost');
  });
});
