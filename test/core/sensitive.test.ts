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

  const one = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
  const two = 'MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nw==';
  const stored: Record<string, string> = {
    'one a line': `whsec_${one}\n${two}\n`,
    'one a line, with the breaks of a console': `${one}\r\n\r\n whsec_${two} \r\n`,
    'as a JSON array': JSON.stringify([`whsec_${one}`, two]),
    'as an array of several lines': JSON.stringify([one, `whsec_${two}`], undefined, 2),
    'as an array that does not end': `["whsec_${one}", "whsec_${two}"`,
    'behind a version': `v1,whsec_${one}\nv1,whsec_${two}`,
    'in a document': JSON.stringify({ secrets: [`whsec_${one}`, `whsec_${two}`] }),
  };
  test.each(Object.entries(stored))('takes out each of two secrets that are stored %s', (_how, text) => {
    const own = createRedactor();
    own.learn(new Sensitive(text));
    expect(own.scrub(text)).not.toMatch(/MfKQ|MDEy/);
    for (const secret of [one, two]) {
      const bare = secret.replace(/=+$/, '');
      for (const shown of [secret, bare, `whsec_${secret}`, ...spellings(bare)])
        expect(own.scrub(`got ${shown}.`)).not.toContain(shown);
      expect(own.scrub(`key ${secret} refused`)).toMatch(/^key ‹redacted›=* refused$/);
    }
  });

  test('leaves the names in a document readable, however it is laid out', () => {
    const own = createRedactor();
    own.learn(JSON.stringify({ username: 'orders_api_k3v9', host: 'db.example.com' }, undefined, 2));
    const text = '"username": "orders_api_k3v9",';
    expect(own.scrub(text)).toBe(text);
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
