import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  formerPrefix,
  placeholderUsername,
  usernamePattern,
  usernamePrefixPattern,
  usernames,
} from '../../functions/core/username.ts';

const sha256 = (text: string) => createHash('sha256').update(text).digest();

describe('derived user names', () => {
  const origin = {
    secretArn: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:rekey/a-AbCdEf',
    prefix: 'orders',
  };
  const names = usernames(origin, sha256);
  const token = '11111111-2222-4333-8444-555555555555';

  test('are written here, as a change of the derivation would make every user of every customer foreign', () => {
    expect([
      names.generation(token, 0),
      names.generation(token, 1),
      names.alternate('a'),
      names.only(),
    ]).toEqual(['orders_57rgeqvviptt', 'orders_mwn5xm6n2fdi', 'orders_ems6f2xadker', 'orders_km4pxkwjgimn']);
  });

  test('stay inside every vendor’s rules and are unchanged by folding, for every prefix and token', () => {
    const prefixes = fc.stringMatching(/^[a-z][a-z0-9]{0,9}(_[a-z0-9]{1,8})?$/);
    fc.assert(
      fc.property(
        prefixes,
        fc.string({ minLength: 32, maxLength: 64 }),
        fc.nat(4),
        (prefix, anyToken, attempt) => {
          const name = usernames({ ...origin, prefix }, sha256).generation(anyToken, attempt);
          expect(name).toMatch(usernamePattern);
          expect(name.startsWith(`${prefix}_`)).toBe(true);
          expect(name.normalize('NFC').toLowerCase()).toBe(name);
        },
      ),
    );
  });

  test('of a default that stands in is written here too, as every Render database would keep a stranger otherwise', () => {
    const place = { provider: 'render-postgres', targetId: 'dpg-d1abc2d3e4f5g6h7i8j9-a' };
    const name = placeholderUsername({ ...place, turn: 0 }, sha256);
    expect(name).toBe('rekey_placeholder_c2paaga7ys7l');
    expect(name).toMatch(usernamePattern);
    expect(placeholderUsername({ ...place, turn: 1 }, sha256)).not.toBe(name);
  });

  test('tell under which prefix they were made, and nothing of names that only look like ours', () => {
    const { secretArn } = origin;
    const asked = { secretArn, versions: ['other', token], sha256 };
    for (const username of [names.generation(token, 4), names.alternate('b'), names.only()])
      expect(formerPrefix(username, asked)).toBe('orders');
    expect(formerPrefix(names.generation('unknown', 0), asked)).toBeUndefined();
    expect(formerPrefix('orders_aaaaaaaaaaaa', asked)).toBeUndefined();
    expect(formerPrefix('legacy_app', asked)).toBeUndefined();
  });

  test('differ between secrets, tokens, attempts and kinds', () => {
    const other = usernames({ ...origin, secretArn: `${origin.secretArn}x` }, sha256);
    const all = [0, 1, 2, 3, 4].flatMap((attempt) => [
      names.generation(token, attempt),
      other.generation(token, attempt),
    ]);
    all.push(names.alternate('a'), names.alternate('b'), names.only(), other.only());
    expect(new Set(all).size).toBe(all.length);
  });

  test.each([
    'Orders',
    '1orders',
    '_orders',
    'orders_',
    'a__b',
    'a-b',
    '',
    'a'.repeat(20),
    '..',
    'pg/x',
    'pg',
    'pg_orders',
    'sso',
    'crdb_internal',
  ])('do not take the prefix %j', (prefix) => {
    expect(prefix).not.toMatch(usernamePrefixPattern);
  });
});
