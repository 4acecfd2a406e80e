import { beforeEach, describe, expect, test } from 'vitest';
import { eventBridge } from '../../functions/consumers/event-bridge.ts';
import { loadConsumer } from '../../functions/consumers/index.ts';
import type { Notification, Ports } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { asWanted } from '../support/guards.ts';

const secretArn = 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:rekey/orders-a1b2c3';
const versionId = '11111111-aaaa-4aaa-8aaa-111111111111';
const notified: Notification[] = [];
beforeEach(() => {
  notified.length = 0;
});

/** It has no other way out than this one. */
const ports = (notify: Ports['notify']): Ports =>
  new Proxy({ notify } as Ports, {
    get(target, name, receiver) {
      if (name in target) return Reflect.get(target, name, receiver);
      throw new Error(`the consumer used ${String(name)}, which it has no need of`);
    },
  });
const open = (notify: Ports['notify'] = async (told) => void notified.push(told)) =>
  eventBridge.open(
    { kind: 'event-bridge', busName: 'orders' },
    { credential: 'orders', secretArn, versionId, field: () => new Sensitive('canaryPassword0123') },
    { guard: asWanted, apiKey: undefined, until: new Date('2026-03-01T12:00:00Z') },
    ports(notify),
  );
const told = {
  say: 'unobservable',
  details: 'the listeners of the bus orders are told, and nobody sees whether they listened',
};

describe('a bus of the user’s own', () => {
  test('is told by one event that holds ids and no login', async () => {
    expect(await open().advance()).toEqual(told);
    expect(notified).toEqual([
      {
        busName: 'orders',
        type: 'CredentialChanged',
        detail: { credential: 'orders', secretArn, versionId },
        resources: [secretArn],
        guard: asWanted,
      },
    ]);
  });

  test('is told nothing by a look', async () => {
    expect(await open().standing()).toEqual(told);
    expect(notified).toEqual([]);
  });

  test('that does not take the event is not said to be told', async () => {
    const consumer = open(async () => {
      throw new Error('not taken');
    });
    await expect(consumer.advance()).rejects.toThrow('not taken');
  });
});

describe('its settings', () => {
  test('name the bus, and take no key', () => {
    const parsed = eventBridge.schema.parse({ kind: 'event-bridge', busName: 'orders' });
    expect([eventBridge.label(parsed), eventBridge.apiKeySecret(parsed)]).toEqual(['orders', undefined]);
  });

  const wrong = [
    {},
    { busName: '' },
    { busName: 'two words' },
    { busName: 'arn:aws:events:eu-central-1:123456789012:event-bus/orders' },
    { busName: 'orders', surplus: true },
  ];
  test.each(wrong)('with %o are refused', (settings) => {
    expect(eventBridge.schema.safeParse({ kind: 'event-bridge', ...settings }).success).toBe(false);
  });
});

test('every kind is found under its own name, and nothing under another', async () => {
  for (const kind of ['event-bridge', 'render-service']) expect((await loadConsumer(kind))?.kind).toBe(kind);
  for (const kind of ['', 'toString', '__proto__', 'Render-Service'])
    expect(await loadConsumer(kind)).toBeUndefined();
});
