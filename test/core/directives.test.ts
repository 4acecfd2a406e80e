import { describe, expect, test } from 'vitest';
import {
  directiveParameter,
  endsAt,
  isBuried,
  isRevoked,
  readDirectives,
  wrongDirectives,
} from '../../functions/core/directives.ts';

describe('directives', () => {
  test('are read by credential, each from a parameter of its own', () => {
    expect(directiveParameter('orders-api', 'revokeBefore')).toBe(
      '/rekey/directives/orders-api/revokeBefore',
    );
    const { directives: found, wrong } = readDirectives([
      { parameter: '/rekey/directives/orders-api/revokeBefore', document: '2026-03-01T12:00:00Z' },
      { parameter: '/rekey/directives/orders-api/deleteSince', document: '2026-03-02T12:00:00+01:00' },
      { parameter: '/rekey/directives/billing/rotateBefore', document: '2026-03-03T12:00:00.500Z' },
    ]);
    expect([...found]).toEqual([
      [
        'orders-api',
        {
          revokeBefore: new Date('2026-03-01T12:00:00Z'),
          deleteSince: new Date('2026-03-02T11:00:00Z'),
        },
      ],
      ['billing', { rotateBefore: new Date('2026-03-03T12:00:00.500Z') }],
    ]);
    expect(wrong).toEqual(new Map());
  });

  test.each(['changeBefore', 'revokeAnyway', 'targetIsGone', 'deletedAt'] as const)(
    'include %s, alone or beside others',
    (kind) => {
      const at = { parameter: `/rekey/directives/orders-api/${kind}`, document: '2026-03-01T12:00:00Z' };
      expect(directiveParameter('orders-api', kind)).toBe(at.parameter);
      expect(readDirectives([at]).directives).toEqual(
        new Map([['orders-api', { [kind]: new Date('2026-03-01T12:00:00Z') }]]),
      );
      const beside = {
        parameter: '/rekey/directives/orders-api/rotateBefore',
        document: '2026-02-01T12:00:00Z',
      };
      expect(readDirectives([at, beside]).directives.get('orders-api')).toEqual({
        [kind]: new Date('2026-03-01T12:00:00Z'),
        rotateBefore: new Date('2026-02-01T12:00:00Z'),
      });
    },
  );

  test('that nobody can read are named, all of a credential at once, and leave those of others alone', () => {
    const { directives, wrong } = readDirectives([
      { parameter: '/rekey/directives/orders-api/revokeBefore', document: 'yesterday' },
      { parameter: '/rekey/directives/orders-api/forget', document: '2026-03-01T12:00:00Z' },
      { parameter: '/rekey/directives/orders-api/deleteSince/now', document: '2026-03-01T12:00:00Z' },
      { parameter: '/rekey/directives/billing/rotateBefore', document: '2026-03-01T12:00:00Z' },
    ]);
    expect([...directives.keys()]).toEqual(['billing']);
    expect([...wrong.keys()]).toEqual(['orders-api']);
    expect(wrongDirectives(wrong.get('orders-api') ?? []).message).toContain(
      'SPEC_INVALID: /rekey/directives/orders-api/revokeBefore, /rekey/directives/orders-api/forget, /rekey/directives/orders-api/deleteSince/now: expected',
    );
  });
});

describe('a credential ends', () => {
  test('never, when nobody ordered it and its spec has no end', () => {
    expect(endsAt({}, {})).toBeUndefined();
  });
  test('when its time is over', () => {
    expect(endsAt({}, { expiresAt: '2026-03-01T12:00:00+02:00' })).toEqual({
      at: new Date('2026-03-01T10:00:00Z'),
      reason: 'expired',
    });
  });
  test('since it was ordered, whatever its spec says', () => {
    const deleteSince = new Date('2026-02-01T00:00:00Z');
    expect(endsAt({ deleteSince }, { expiresAt: '2030-01-01T00:00:00Z' })).toEqual({
      at: deleteSince,
      reason: 'requested',
    });
  });
});

test('an order to revoke is about versions that were made before it, and no others', () => {
  const revokeBefore = new Date('2026-03-01T12:00:00Z');
  expect(isRevoked({ revokeBefore }, new Date('2026-03-01T11:59:59.999Z'))).toBe(true);
  expect(isRevoked({ revokeBefore }, new Date('2026-03-01T12:00:00Z'))).toBe(false);
  expect(isRevoked({}, new Date(0))).toBe(false);
});

test('I18: a tombstone is about what was ordered before the deletion ended, in the same instant included', () => {
  const deletedAt = new Date('2026-03-01T12:00:00Z');
  expect(isBuried({ deletedAt }, new Date('2026-03-01T11:59:59Z'))).toBe(true);
  expect(isBuried({ deletedAt }, new Date('2026-03-01T12:00:00Z'))).toBe(true);
  expect(isBuried({ deletedAt }, new Date('2026-03-01T12:00:01Z'))).toBe(false);
  expect(isBuried({ deleteSince: deletedAt }, new Date(0))).toBe(false);
});
