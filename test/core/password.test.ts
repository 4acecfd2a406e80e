import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { passwordFrom } from '../../functions/core/password.ts';

describe('a password', () => {
  const passwords = Array.from({ length: 2_000 }, () => passwordFrom(randomBytes(32))).filter(
    (text) => text !== 'redraw',
  );

  test('has 32 characters of which none needs escaping in a URL, a form, JSON or SQL', () => {
    for (const password of passwords) {
      expect(password).toMatch(/^[A-Za-z][A-Za-z0-9_-]{31}$/);
      expect(encodeURIComponent(password)).toBe(password);
      expect(JSON.stringify(password)).toBe(`"${password}"`);
    }
  });

  test('has every class, so that no vendor’s unknown class rule refuses it', () => {
    for (const password of passwords)
      for (const needed of [/[A-Z]/, /[a-z]/, /[0-9]/, /[_-]/]) expect(password).toMatch(needed);
  });

  test('uses the whole alphabet', () => {
    expect(new Set(passwords.join('')).size).toBe(64);
  });

  test('is asked for again when the bytes miss a class', () => {
    expect(passwordFrom(new Uint8Array(32))).toBe('redraw');
  });

  test('is not made of too few bytes', () => {
    expect(() => passwordFrom(new Uint8Array(31))).toThrow('got 31 bytes, expected 32');
  });
});
