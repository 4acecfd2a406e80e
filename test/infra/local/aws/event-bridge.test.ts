import { PutEventsCommand, type PutEventsRequestEntry } from '@aws-sdk/client-eventbridge';
import { describe, expect, test } from 'vitest';
import type { BusEvent } from '../../../../infra/local/aws/bus-event.ts';
import type { DeliveryResult } from '../../../../infra/local/aws/delivery.ts';
import type { Disturbance, EventBridgeOptions } from '../../../../infra/local/aws/event-bridge.ts';
import { account, refusalOf, startSystem, testClock } from './support.ts';

const rotated = (detail: object = {}): PutEventsRequestEntry => ({
  Source: 'rekey',
  DetailType: 'CredentialRotated',
  Detail: JSON.stringify({ credential: 'orders-api', ...detail }),
});

const targetArn = 'arn:aws:lambda:eu-central-1:111122223333:function:record-audit';
const queueArn = 'arn:aws:sqs:eu-central-1:111122223333:audit-dlq';

/** A bus `rekey` whose rule hands every event of source `rekey` to one target. */
async function startBus({
  results = [],
  target = {},
  ...options
}: Partial<EventBridgeOptions> & { results?: DeliveryResult[]; target?: object } = {}) {
  const delivered: BusEvent[] = [];
  const system = await startSystem({
    eventBridge: {
      buses: ['rekey'],
      retryDelayMs: (attempt) => attempt * 1000,
      deliver: async (_arn, event) => {
        delivered.push(event);
        return results.shift() ?? { ok: true };
      },
      ...options,
    },
  });
  system.eventBridge.addRule({
    name: 'audit',
    busName: 'rekey',
    pattern: { source: ['rekey'] },
    targets: [{ arn: targetArn, ...target }],
  });
  const put = (...entries: PutEventsRequestEntry[]) =>
    system.events.send(
      new PutEventsCommand({ Entries: entries.map((entry) => ({ EventBusName: 'rekey', ...entry })) }),
    );
  const deliveredNumbers = () => delivered.map(({ detail }) => detail['n']);
  return { ...system, put, delivered, deliveredNumbers };
}

describe('PutEvents', () => {
  const required = (member: string) => ({
    ErrorCode: 'InvalidArgument',
    ErrorMessage: `Parameter ${member} is not valid. Reason: ${member} is a required argument.`,
  });
  const malformed = { ErrorCode: 'MalformedDetail', ErrorMessage: 'Detail is malformed.' };
  const { Source, DetailType, Detail } = rotated();
  const cases: Record<string, { entry: PutEventsRequestEntry; want: object }> = {
    'without a source': { entry: { DetailType, Detail }, want: required('Source') },
    'without a detail': { entry: { Source, DetailType }, want: required('Detail') },
    'without a detail type': { entry: { Source, Detail }, want: required('DetailType') },
    'with a text as detail': { entry: { Source, DetailType, Detail: '"text"' }, want: malformed },
    'with a list as detail': { entry: { Source, DetailType, Detail: '[1]' }, want: malformed },
    'with broken JSON': { entry: { Source, DetailType, Detail: '{"a":' }, want: malformed },
    'nested more than a thousand times': {
      entry: { Source, DetailType, Detail: `{"a":${'['.repeat(1000)}${']'.repeat(1000)}}` },
      want: malformed,
    },
    'in the name of AWS': {
      entry: { Source: 'aws.secretsmanager', DetailType, Detail },
      want: { ErrorCode: 'NotAuthorizedForSourceException', ErrorMessage: 'Not authorized for the source.' },
    },
  };
  test.each(Object.entries(cases))(
    'refuses an entry %s, and only that entry',
    async (_sentence, { entry, want }) => {
      const { put, delivered, eventBridge } = await startBus();
      const answer = await put(rotated(), entry);
      await eventBridge.idle();
      expect(answer.$metadata.httpStatusCode).toBe(200);
      expect(answer.FailedEntryCount).toBe(1);
      expect(answer.Entries).toEqual([{ EventId: expect.any(String) }, want]);
      expect(delivered).toHaveLength(1);
    },
  );

  test('refuses eleven entries', async () => {
    const { put } = await startBus();
    const refusal = await refusalOf(put(...Array.from({ length: 11 }, () => rotated())));
    expect(refusal.name).toBe('ValidationException');
    expect(refusal.message).toMatch(
      /at 'entries' failed to satisfy constraint: Member must have length less than or equal to 10$/,
    );
  });

  test('refuses a megabyte', async () => {
    const { put } = await startBus();
    expect(await refusalOf(put(rotated({ text: 'x'.repeat(1024 * 1024) })))).toEqual({
      name: 'ValidationException',
      message: 'Total size of the entries in the request is over the limit.',
      status: 400,
    });
  });

  test('takes an entry just below a megabyte', async () => {
    const { put } = await startBus();
    expect((await put(rotated({ text: 'x"{'.repeat(250_000) }))).FailedEntryCount).toBe(0);
  });

  test('answers an id for an unknown bus, and the event vanishes', async () => {
    const { events, eventBridge, delivered } = await startBus();
    const answer = await events.send(
      new PutEventsCommand({ Entries: [{ ...rotated(), EventBusName: 'nowhere' }] }),
    );
    await eventBridge.idle();
    expect(answer.FailedEntryCount).toBe(0);
    expect(answer.Entries?.[0]?.EventId).toMatch(/^[0-9a-f-]{36}$/);
    expect([eventBridge.history(), delivered]).toEqual([[], []]);
  });

  test('fails in part where the stand-in is told so', async () => {
    let asked = 0;
    const { put } = await startBus({
      disturb: () => {
        asked += 1;
        return asked === 2
          ? { do: 'fail', errorCode: 'ThrottlingException', errorMessage: 'Rate exceeded' }
          : undefined;
      },
    });
    const answer = await put(rotated(), rotated(), rotated());
    expect(answer.FailedEntryCount).toBe(1);
    expect(answer.Entries?.map(({ ErrorCode }) => ErrorCode)).toEqual([
      undefined,
      'ThrottlingException',
      undefined,
    ]);
  });
});

describe('delivery', () => {
  test('hands over the event in the form that targets know, under the id of the answer', async () => {
    const { put, delivered, eventBridge } = await startBus();
    const answer = await put({
      ...rotated(),
      Time: new Date('2026-02-28T23:00:00Z'),
      Resources: ['arn:a'],
      EventBusName: `arn:aws:events:eu-central-1:${account}:event-bus/rekey`,
    });
    await eventBridge.idle();
    expect(delivered).toEqual([
      {
        version: '0',
        id: answer.Entries?.[0]?.EventId,
        'detail-type': 'CredentialRotated',
        source: 'rekey',
        account,
        time: '2026-02-28T23:00:00Z',
        region: 'eu-central-1',
        resources: ['arn:a'],
        detail: { credential: 'orders-api' },
      },
    ]);
  });

  test('keeps to the bus and the pattern of a rule', async () => {
    const { put, events, delivered, eventBridge } = await startBus();
    await put({ ...rotated(), Source: 'other' });
    await events.send(new PutEventsCommand({ Entries: [rotated()] }));
    await eventBridge.idle();
    expect(delivered).toEqual([]);
    expect(eventBridge.history('rekey').map(({ source }) => source)).toEqual(['other']);
    expect(eventBridge.history('default').map(({ source }) => source)).toEqual(['rekey']);
    expect(eventBridge.history()).toHaveLength(2);
  });

  test('ends with the rule', async () => {
    const { put, delivered, eventBridge } = await startBus();
    eventBridge.removeRule('audit', 'rekey');
    await put(rotated());
    await eventBridge.idle();
    expect(delivered).toEqual([]);
  });

  test('is repeated after a failure, with the same event', async () => {
    const clock = testClock();
    const { put, delivered, eventBridge } = await startBus({
      clock,
      results: [{ ok: false, error: 'throttled' }],
    });
    await put(rotated());
    await clock.advance(999);
    expect(delivered).toHaveLength(1);
    await clock.advance(1);
    await eventBridge.idle();
    expect(delivered).toHaveLength(2);
    expect(delivered[0]).toEqual(delivered[1]);
    expect(eventBridge.deadLetters()).toEqual([]);
  });

  const broken: DeliveryResult = { ok: false, error: 'broken' };
  test('that failed as often as allowed goes to the dead-letter queue', async () => {
    const clock = testClock();
    const letters: string[] = [];
    const { put, eventBridge } = await startBus({
      clock,
      results: [broken, broken, broken],
      target: { deadLetterArn: queueArn, maximumRetryAttempts: 2 },
      onDeadLetter: ({ deadLetterArn }) => letters.push(deadLetterArn),
    });
    await put(rotated());
    await clock.advance(10_000);
    expect(eventBridge.deadLetters()).toEqual([
      {
        ruleName: 'audit',
        targetArn,
        deadLetterArn: queueArn,
        event: expect.objectContaining({ 'detail-type': 'CredentialRotated' }),
        error: 'broken',
        attempts: 3,
        exhausted: 'MaximumRetryAttempts',
      },
    ]);
    expect(letters).toEqual([queueArn]);
  });

  test('that outlived its age goes to the dead-letter queue', async () => {
    const clock = testClock();
    const { put, eventBridge } = await startBus({
      clock,
      deliver: async () => broken,
      retryDelayMs: () => 30_000,
      target: { deadLetterArn: queueArn, maximumEventAgeSeconds: 60 },
    });
    await put(rotated());
    await clock.advance(60_000);
    expect(eventBridge.deadLetters().map(({ attempts }) => attempts)).toEqual([3]);
  });

  test('that nothing can mend goes there at once', async () => {
    const { put, eventBridge } = await startBus({
      results: [{ ok: false, error: 'no such function', isFinal: true }],
      target: { deadLetterArn: queueArn },
    });
    await put(rotated());
    await eventBridge.idle();
    expect(eventBridge.deadLetters().map(({ attempts }) => attempts)).toEqual([1]);
  });

  test('that failed is lost without a queue', async () => {
    const { put, eventBridge } = await startBus({
      deliver: () => Promise.reject(new Error('unreachable')),
      target: { maximumRetryAttempts: 0 },
    });
    await put(rotated());
    await eventBridge.idle();
    expect(eventBridge.deadLetters()).toEqual([]);
    expect(eventBridge.lost().map(({ error }) => error)).toEqual(['unreachable']);
  });

  const disturbances: Record<string, { first: Disturbance; want: number[] }> = {
    'is lost': { first: { do: 'drop' }, want: [2, 3] },
    'comes twice': { first: { do: 'duplicate' }, want: [1, 1, 2, 3] },
    'comes after the next event': { first: { do: 'reorder' }, want: [2, 1, 3] },
  };
  test.each(Object.entries(disturbances))(
    'of an event %s where the stand-in is told so',
    async (_sentence, { first, want }) => {
      const { put, eventBridge, deliveredNumbers } = await startBus({
        disturb: ({ detail }) => (detail['n'] === 1 ? first : undefined),
      });
      await put(rotated({ n: 1 }), rotated({ n: 2 }), rotated({ n: 3 }));
      await eventBridge.idle();
      expect(deliveredNumbers()).toEqual(want);
    },
  );

  test('of a replayed event bears the old id and the name of the replay', async () => {
    const { put, delivered, eventBridge } = await startBus();
    await put(rotated());
    await eventBridge.idle();
    eventBridge.replay('again', eventBridge.history('rekey'), 'rekey');
    await eventBridge.idle();
    expect(delivered).toEqual([delivered[0], { ...delivered[0], 'replay-name': 'again' }]);
  });
});

describe('an archive', () => {
  const all = { from: new Date(0), until: new Date('2100-01-01T00:00:00Z') };

  test('keeps what matches, delivered or not, and delivers it again under the old ids', async () => {
    const { put, delivered, eventBridge } = await startBus({
      disturb: ({ detail }) => (detail['n'] === 2 ? { do: 'drop' } : undefined),
    });
    eventBridge.addArchive({ name: 'all', busName: 'rekey', pattern: { source: ['rekey'] } });
    await put(rotated({ n: 1 }), rotated({ n: 2 }), { ...rotated({ n: 3 }), Source: 'somebody' });
    await eventBridge.idle();
    expect(delivered.map(({ detail }) => detail['n'])).toEqual([1]);
    expect(eventBridge.startReplay({ name: 'again', archiveName: 'all', ...all })).toBe(2);
    await eventBridge.idle();
    expect(delivered.map(({ id, detail, 'replay-name': replay }) => [id, detail['n'], replay])).toEqual([
      [delivered[0]?.id, 1, undefined],
      [delivered[0]?.id, 1, 'again'],
      [eventBridge.archived('all')[1]?.id, 2, 'again'],
    ]);
    // What is replayed is not archived again (AWS documentation).
    expect(eventBridge.archived('all')).toHaveLength(2);
  });

  test('replays a span of time, to the rules that are named', async () => {
    const { put, deliveredNumbers, eventBridge } = await startBus();
    eventBridge.addArchive({ name: 'all', busName: 'rekey' });
    for (const [n, time] of [
      '2026-03-01T11:00:00Z',
      '2026-03-01T12:00:00Z',
      '2026-03-01T13:00:00Z',
    ].entries())
      await put({ ...rotated({ n }), Time: new Date(time) });
    await eventBridge.idle();
    const span = { from: new Date('2026-03-01T12:00:00Z'), until: new Date('2026-03-01T13:00:00Z') };
    const replay = { name: 'again', archiveName: 'all', ...span };
    expect(eventBridge.startReplay({ ...replay, ruleNames: ['another'] })).toBe(1);
    await eventBridge.idle();
    expect(deliveredNumbers()).toEqual([0, 1, 2]);
    expect(eventBridge.startReplay({ ...replay, ruleNames: ['audit'] })).toBe(1);
    await eventBridge.idle();
    expect(deliveredNumbers()).toEqual([0, 1, 2, 1]);
  });

  test('forgets what it has held for its retention', async () => {
    const { put, clock, eventBridge } = await startBus();
    eventBridge.addArchive({ name: 'short', busName: 'rekey', retentionDays: 2 });
    await put(rotated());
    await clock.advance(2 * 86_400_000);
    expect(eventBridge.archived('short')).toHaveLength(1);
    await clock.advance(1);
    expect(eventBridge.archived('short')).toEqual([]);
  });

  test('on an unknown bus, or asked for by a name that it has not, is a mistake of who starts the system', async () => {
    const { eventBridge } = await startBus();
    expect(() => eventBridge.addArchive({ name: 'x', busName: 'nowhere' })).toThrow(
      'no event bus nowhere for archive x; add the bus first',
    );
    expect(() => eventBridge.archived('x')).toThrow('no event archive x');
  });
});

test('a rule on an unknown bus is a mistake of who starts the system', async () => {
  const { eventBridge } = await startBus();
  expect(() =>
    eventBridge.addRule({ name: 'x', busName: 'nowhere', pattern: { source: ['a'] }, targets: [] }),
  ).toThrow('no event bus nowhere for rule x; add the bus first');
  eventBridge.addBus('nowhere');
  expect(() =>
    eventBridge.addRule({ name: 'x', busName: 'nowhere', pattern: { source: ['a'] }, targets: [] }),
  ).not.toThrow();
});

test('what a call asks of its caller’s policies: one answer a bus, about all events that are for it', async () => {
  const { eventBridge } = await startBus();
  const bus = (name: string) => `arn:aws:events:eu-central-1:111122223333:event-bus/${name}`;
  const entry = (EventBusName: string | undefined, Source: string, DetailType?: string) => ({
    EventBusName,
    Source,
    DetailType,
  });
  expect(
    eventBridge.authorizations('PutEvents', {
      Entries: [
        entry('rekey', 'rekey', 'DriftFound'),
        entry(bus('shop'), 'rekey', 'CredentialChanged'),
        entry('rekey', 'rekey', 'CredentialRotated'),
        entry('rekey', 'app', 'DriftFound'),
        entry(undefined, 'app'),
      ],
    }),
  ).toEqual([
    {
      action: 'events:PutEvents',
      resource: bus('rekey'),
      context: {
        'events:source': ['app', 'rekey'],
        'events:detail-type': ['CredentialRotated', 'DriftFound'],
      },
    },
    {
      action: 'events:PutEvents',
      resource: bus('shop'),
      context: { 'events:source': ['rekey'], 'events:detail-type': ['CredentialChanged'] },
    },
    { action: 'events:PutEvents', resource: bus('default'), context: { 'events:source': ['app'] } },
  ]);
});
