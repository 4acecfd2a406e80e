import { describe, expect, test } from 'vitest';
import { type Finding, findingKinds, fingerprint } from '../../functions/core/findings.ts';

const finding = (overrides: Partial<Finding> = {}): Finding => ({
  kind: 'ForeignUser',
  provider: 'zilliz-cloud',
  target: 'in01-1',
  username: 'somebody',
  details: 'no credential of rekey made it',
  remedy: 'leave it',
  ...overrides,
});

describe('two findings are one fact', () => {
  test('when they are about the same user of the same target, whatever else is said', () => {
    expect(fingerprint(finding({ details: 'other words', remedy: 'other advice' }))).toBe(
      fingerprint(finding()),
    );
    expect(fingerprint(finding({ repair: 'rotate-at-once' }))).toBe(fingerprint(finding()));
  });

  test.each(['PrivilegeDrift', 'ConsumerBehind', 'SpecInvalid', 'DeletionBlocked'] as const)(
    'of kind %s only with the same details: other rights, another consumer or another fault are news',
    (kind) => {
      expect(fingerprint(finding({ kind, details: 'one' }))).toBe(
        fingerprint(finding({ kind, details: 'one' })),
      );
      expect(fingerprint(finding({ kind, details: 'one' }))).not.toBe(
        fingerprint(finding({ kind, details: 'other' })),
      );
    },
  );

  test('never when anything else differs', () => {
    const others: readonly Partial<Finding>[] = [
      {},
      { provider: 'vultr-valkey' },
      { target: 'in01-2' },
      { username: 'somebody_else' },
      { credential: 'orders-api' },
      { apiKeySecret: 'rekey/api-keys/zilliz' },
      // A user and a credential of one name are not the same.
      { username: 'orders-api' },
      ...findingKinds.filter((kind) => kind !== 'ForeignUser').map((kind) => ({ kind })),
    ];
    const prints = others.map((overrides) => fingerprint(finding(overrides)));
    expect(new Set(prints).size).toBe(prints.length);
  });
});
