import { inspect } from 'node:util';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createRedactor, Sensitive, spellings } from '../../functions/core/sensitive.ts';

const canary = 'Kq7"/+&é=pass wörd\\x';

describe('a sensitive value', () => {
  const value = new Sensitive(canary);
  const ways: Record<string, () => string> = {
    'as a string': () => `${value}`,
    'as JSON': () => JSON.stringify({ value }),
    inspected: () => inspect({ value }, { showHidden: true, depth: 5 }),
    spread: () => JSON.stringify({ ...value }),
    'inside an error': () => inspect(new Error('failed', { cause: { value } })),
  };
  test.each(Object.entries(ways))('does not print %s', (_way, print) => {
    expect(print()).not.toContain('Kq7');
  });
});

test.each([
  ['the same text', 'canary', 'canary', true],
  ['another text', 'canary', 'canarz', false],
  ['a longer one that begins alike', 'canary', 'canary1', false],
  ['a shorter one', 'canary', 'canar', false],
  ['zeros where the other ends', 'a\0', 'a', false],
  ['nothing twice', '', '', true],
])('equality is told from %s', (_what, one, other, want) => {
  expect(new Sensitive(one).equals(new Sensitive(other))).toBe(want);
  expect(new Sensitive(other).equals(new Sensitive(one))).toBe(want);
});

describe('scrubbing', () => {
  const redactor = createRedactor();
  redactor.learn(canary);
  const json = JSON.stringify(canary).slice(1, -1);
  const texts: Record<string, string> = {
    raw: `x${canary}y`,
    'JSON-escaped': `{"p":"${json}"}`,
    'JSON inside JSON': JSON.stringify({ body: JSON.stringify({ p: canary }) }),
    'percent-encoded': `?p=${encodeURIComponent(canary)}`,
    'form-encoded': `p=${encodeURIComponent(canary).replaceAll('%20', '+')}&x=1`,
    'URL userinfo': `postgresql://u:${encodeURIComponent(canary)}@h/db`,
    base64: Buffer.from(canary).toString('base64'),
    'base64 of user:password': Buffer.from(`someuser:${canary}`).toString('base64'),
    'base64url of JSON': Buffer.from(`{"p":"x","q":"${canary}"}`).toString('base64url'),
    hex: Buffer.from(canary).toString('hex'),
    'upper-case hex': Buffer.from(canary).toString('hex').toUpperCase(),
    'unicode escapes': [...Array(canary.length).keys()]
      .map((i) => `\\u${canary.charCodeAt(i).toString(16).padStart(4, '0')}`)
      .join(''),
    'SQL quoting': `PASSWORD '${canary.replaceAll("'", "''")}'`,
  };
  test.each(Object.entries(texts))('takes out the %s form', (_form, text) => {
    const clean = redactor.scrub(text);
    expect(clean).toContain('‹redacted›');
    for (const form of spellings(canary)) expect(clean).not.toContain(form);
  });

  test('finds base64 at every alignment, for every value and surrounding', () => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 12, maxLength: 40 }),
        fc.string({ maxLength: 9 }),
        fc.string({ maxLength: 9 }),
        (secret, before, after) => {
          const own = createRedactor();
          own.learn(secret);
          expect(own.scrub(Buffer.from(before + secret + after).toString('base64'))).toContain('‹redacted›');
        },
      ),
    );
  });

  test('leaves ordinary text alone, and does not learn words that are too short to be secrets', () => {
    redactor.learn('orders');
    expect(redactor.scrub('orders of one day')).toBe('orders of one day');
  });

  test('leaves no tail of a secret that begins like another', () => {
    const own = createRedactor();
    own.learn('canary-canary');
    own.learn('canary-canary-and-more');
    expect(own.scrub('x canary-canary-and-more y canary-canary z')).toBe('x ‹redacted› y ‹redacted› z');
  });

  test('keeps what is learned again and again through any number of others', () => {
    const own = createRedactor();
    for (let value = 0; value < 1_200; value += 1) {
      own.learn('the-key-of-every-call');
      own.learn(`password-number-${value}`);
    }
    expect(own.scrub('the-key-of-every-call')).toBe('‹redacted›');
  });
});
