import { describe, expect, test } from 'vitest';
import type { WebhookDelivery, WebhookStanding } from '../../functions/core/provider.ts';
import {
  catchUpOf,
  instantDocument,
  judgeWebhook,
  parseInstant,
  parseWebhookMemory,
  shouldHaveTold,
  undelivered,
  type WebhookFacts,
  type WebhookMemory,
  webhookDisabled,
  webhookMemoryDocument,
} from '../../functions/core/webhook-watch.ts';

const now = new Date('2026-07-15T12:00:00Z');
const ago = (minutes: number): Date => new Date(now.getTime() - minutes * 60_000);
const memory = (overrides: Partial<WebhookMemory> = {}): WebhookMemory => ({
  is: 'enabled',
  id: 'whk-1',
  told: [],
  ...overrides,
});
const facts = (overrides: Partial<WebhookFacts> = {}): WebhookFacts => ({
  memory: memory(),
  receivedAt: undefined,
  missedAt: undefined,
  ...overrides,
});

describe('a change that no webhook told of', () => {
  const cases: Record<string, { given: Partial<WebhookFacts>; want: boolean }> = {
    'should have been told by one that is there': { given: {}, want: true },
    'should have been told by one that was switched off': {
      given: { memory: memory({ is: 'disabled' }) },
      want: true,
    },
    'should have been told by one that was deleted, however late the last one came': {
      given: { memory: memory({ is: 'absent' }), receivedAt: ago(1) },
      want: true,
    },
    'should have been told by one that no key may see, and that has told before': {
      given: { memory: { is: 'unreadable', told: [] }, receivedAt: ago(60) },
      want: true,
    },
    'is nothing odd where there is no webhook': {
      given: { memory: { is: 'absent', told: [] } },
      want: false,
    },
    'is nothing odd where the only webhook that was received is of another workspace': {
      given: { memory: { is: 'absent', told: [] }, receivedAt: ago(60) },
      want: false,
    },
    'is nothing odd where no key may see webhooks, and none was ever received': {
      given: { memory: { is: 'unreadable', told: [] } },
      want: false,
    },
    'is nothing odd before anybody has looked for a webhook': {
      given: { memory: undefined, receivedAt: ago(60) },
      want: false,
    },
    'is nothing odd while the look of the last one is on its way': {
      given: { receivedAt: ago(4) },
      want: false,
    },
    'should have been told when that look was over': { given: { receivedAt: ago(5) }, want: true },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { given, want }) => {
    expect(shouldHaveTold(facts(given), now)).toBe(want);
  });
});

describe('a webhook', () => {
  const enabled: WebhookStanding = { is: 'enabled', id: 'whk-1' };
  const unreadable: WebhookStanding = { is: 'unreadable', reason: 'only admins may see it' };
  const cases: Record<
    string,
    { standing: WebhookStanding; given: Partial<WebhookFacts>; want: readonly [string, string?] }
  > = {
    'that is there is good, also when it is seen first': {
      standing: enabled,
      given: { memory: undefined },
      want: ['good'],
    },
    'that was missing and is there again is good': {
      standing: enabled,
      given: { memory: memory({ is: 'absent' }) },
      want: ['good'],
    },
    'that is switched off is found': {
      standing: { is: 'disabled', id: 'whk-2' },
      given: { memory: undefined },
      want: ['switched-off', 'whk-2'],
    },
    'that was seen and is not there any more is found': {
      standing: { is: 'absent' },
      given: {},
      want: ['deleted', 'whk-1'],
    },
    'that was never seen is none': {
      standing: { is: 'absent' },
      given: { memory: { is: 'unreadable', told: [] }, receivedAt: ago(1) },
      want: ['not-in-use'],
    },
    'that cannot be seen and was never received is none': {
      standing: unreadable,
      given: { memory: undefined, missedAt: ago(300) },
      want: ['not-in-use'],
    },
    'that cannot be seen and is received is good': {
      standing: unreadable,
      given: { memory: undefined, receivedAt: ago(300) },
      want: ['good'],
    },
    'that cannot be seen any more is good as long as nothing says otherwise': {
      standing: unreadable,
      given: {},
      want: ['good'],
    },
    'that has not told of a change for an hour is silent': {
      standing: unreadable,
      given: { receivedAt: ago(300), missedAt: ago(60) },
      want: ['silent'],
    },
    'that is silent is found also where it is said to be there': {
      standing: enabled,
      given: { missedAt: ago(60) },
      want: ['silent'],
    },
    'that has not told of a change for less than an hour may still do so': {
      standing: unreadable,
      given: { receivedAt: ago(300), missedAt: ago(59) },
      want: ['good'],
    },
    'that has told of something since is good': {
      standing: enabled,
      given: { receivedAt: ago(200), missedAt: ago(300) },
      want: ['good'],
    },
    'that has missed something before it was switched on again is good': {
      standing: enabled,
      given: { memory: { is: 'enabled', id: 'whk-1', onSince: ago(100), told: [] }, missedAt: ago(300) },
      want: ['good'],
    },
    'that was found switched off before, and on now, is good': {
      standing: enabled,
      given: { memory: { is: 'disabled', id: 'whk-1', told: [] }, missedAt: ago(300) },
      want: ['good'],
    },
    'that has missed something since it was switched on again is silent': {
      standing: enabled,
      given: { memory: { is: 'enabled', id: 'whk-1', onSince: ago(300), told: [] }, missedAt: ago(100) },
      want: ['silent'],
    },
    'that is switched off and silent is switched off': {
      standing: { is: 'disabled', id: 'whk-1' },
      given: { missedAt: ago(300) },
      want: ['switched-off', 'whk-1'],
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { standing, given, want }) => {
    const verdict = judgeWebhook(standing, facts(given), now);
    const [say, id] = want;
    expect(verdict).toEqual({ say, ...(id === undefined ? {} : { id }) });
  });

  const place = {
    provider: 'acme-postgres',
    endpoint: 'acme',
    url: 'https://example.com/webhooks/acme',
    note: { place: 'webhooks', key: 'acme/0123456789abcdef' },
  };
  test('that is good, or is none, is no finding', () => {
    expect(webhookDisabled({ say: 'good' }, place)).toEqual([]);
    expect(webhookDisabled({ say: 'not-in-use' }, place)).toEqual([]);
  });
  test.each([
    [{ say: 'switched-off', id: 'whk-1' } as const, /whk-1 .*switched off/, /switch it on again/],
    [
      { say: 'deleted', id: 'whk-1' } as const,
      /whk-1 .*not there/,
      /https:\/\/example.com\/webhooks\/acme .*rekey\/webhooks\/acme;.*place webhooks and the key acme\/0123456789abcdef from the DynamoDB table rekey/,
    ],
    [{ say: 'silent' } as const, /no webhook of acme has told/, /https:\/\/example.com\/webhooks\/acme/],
  ])('is found with what there is to do: %j', (verdict, details, remedy) => {
    expect(webhookDisabled(verdict, place)).toEqual([
      {
        kind: 'WebhookDisabled',
        provider: 'acme-postgres',
        target: '',
        details: expect.stringMatching(details),
        remedy: expect.stringMatching(remedy),
      },
    ]);
  });
});

describe('what was not delivered', () => {
  const hours = (count: number): Date => ago(count * 60);
  const windowOf = (given: WebhookMemory | undefined, id = 'whk-1') => {
    const { after, before, settled } = catchUpOf(given, id, now);
    return [after, before, settled];
  };
  const late = (date: Date): Date => new Date(date.getTime() - 300_000);

  test('is looked for in all the time for which the vendor tries, when the webhook is seen first', () => {
    expect(windowOf(undefined)).toEqual([late(hours(34)), now, hours(1)]);
    expect(windowOf(memory({ caughtUpTo: hours(2) }), 'whk-2')).toEqual([late(hours(34)), now, hours(1)]);
  });

  test('is looked for from where the last time ended, and a little before', () => {
    expect(windowOf(memory({ caughtUpTo: hours(2) }))).toEqual([late(hours(2)), now, hours(1)]);
  });

  test('is looked for one piece at a time after a long pause, and none is left out', () => {
    expect(windowOf(memory({ caughtUpTo: hours(100) }))).toEqual([late(hours(100)), hours(64), hours(65)]);
  });

  test('is looked for also where the note is from the future', () => {
    expect(windowOf(memory({ caughtUpTo: hours(-50) }))).toEqual([late(hours(1)), now, hours(1)]);
  });

  const delivery = (eventId: string, firstSentAt: Date, isDelivered = false): WebhookDelivery => ({
    eventId,
    eventType: 'users_created',
    firstSentAt,
    isDelivered,
  });
  const ids = (deliveries: readonly WebhookDelivery[], told: readonly string[] = []) =>
    undelivered(deliveries, catchUpOf(memory(), 'whk-1', now), told).map(({ eventId }) => eventId);

  test('is what no attempt brought, once the vendor has had its time, and only once', () => {
    expect(
      ids(
        [
          delivery('young', ago(59)),
          delivery('settled', ago(60)),
          delivery('told', hours(3)),
          delivery('delivered', hours(2), true),
          delivery('old', hours(30)),
        ],
        ['told'],
      ),
    ).toEqual(['old', 'settled']);
  });
});

describe('the notes', () => {
  test('read back as they were written', () => {
    const all = memory({ caughtUpTo: ago(60), told: ['evt-1', 'evt-2'] });
    expect(parseWebhookMemory(webhookMemoryDocument(all, 4_096))).toEqual(all);
    expect(parseInstant(instantDocument(now))).toEqual(now);
  });

  test('keep the last events that were told, as many as there is room for', () => {
    const told = Array.from({ length: 500 }, (_, index) => `evt-${String(index).padStart(20, '0')}`);
    const document = webhookMemoryDocument(memory({ told }), 4_096);
    expect(document.length).toBeLessThanOrEqual(4_096);
    expect(document.length).toBeGreaterThan(4_000);
    expect(parseWebhookMemory(document)?.told.at(-1)).toBe(told.at(-1));
  });

  test.each(['', 'null', '{}', '{"is":"gone","told":[]}', '{"is":"enabled","told":[],"caughtUpTo":"soon"}'])(
    'that somebody spoiled are none: %s',
    (document) => {
      expect(parseWebhookMemory(document)).toBeUndefined();
      expect(parseInstant(document)).toBeUndefined();
    },
  );
});
