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

  test('takes out two secrets that overlap, and leaves no tail of the second one', () => {
    const own = createRedactor();
    own.learn('first-secret-and');
    own.learn('secret-and-a-longer-second');
    own.learn('and-a-longer-second-or-third');
    expect(own.scrub('x first-secret-and-a-longer-second-or-third y')).toBe('x ‹redacted› y');
    expect(own.scrub('first-secret-andsecret-and-a-longer-second')).toBe('‹redacted›‹redacted›');
  });

  test('finds what a search for every spelling in turn would find, and changes nothing else', () => {
    // Few letters, so that values begin alike, overlap and contain each other.
    const word = fc.string({ unit: fc.constantFrom('a', 'b', "'", ' '), minLength: 8, maxLength: 14 });
    fc.assert(
      fc.property(
        fc.array(word, { minLength: 1, maxLength: 6 }),
        fc.array(fc.oneof(word, fc.nat({ max: 200 }), fc.constantFrom('a', 'ab', '\n')), { maxLength: 12 }),
        (secrets, pieces) => {
          const own = createRedactor();
          for (const secret of secrets) own.learn(secret);
          const forms = secrets
            .flatMap((secret) => [secret, secret.trim()])
            .filter(({ length }) => length >= 8)
            .flatMap(spellings)
            .filter(({ length }) => length >= 8);
          const text = pieces
            .map((piece) => (typeof piece === 'number' ? (forms[piece % forms.length] ?? '') : piece))
            .join('');
          const isSecret = [...Array(text.length).keys()].map((at) =>
            forms.some((form) => {
              const from = Math.max(0, at - form.length + 1);
              const found = text.indexOf(form, from);
              return found !== -1 && found <= at;
            }),
          );
          const kept = [...text].filter((_unit, at) => !isSecret[at]).join('');
          expect(own.scrub(text).replaceAll('‹redacted›', '')).toBe(kept);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('forgets a value after two thousand others, but not a spelling that another value shares with it', () => {
    const own = createRedactor(['kept-from-the-start']);
    own.learn('forgotten value');
    own.learn('forgotten%20value');
    for (let value = 0; value < 1_998; value += 1) own.learn(`password-number-${value}`);
    expect(own.scrub('forgotten value, forgotten%20value')).toBe('‹redacted›, ‹redacted›');
    own.learn('one more password');
    expect(own.scrub('forgotten value, forgotten%20value')).toBe('forgotten value, ‹redacted›');
    expect(own.scrub('kept-from-the-start, password-number-0')).toBe('‹redacted›, ‹redacted›');
  });

  test('takes as long after two thousand secrets as after twenty', () => {
    const line = 'createSecret done for rekey/orders-api at https://api.example.com/v1/users '.repeat(20);
    const microseconds = (secrets: number): number => {
      const own = createRedactor();
      for (let value = 0; value < secrets; value += 1)
        own.learn(JSON.stringify({ engine: 'postgres', username: 'orders', password: `password-${value}` }));
      own.scrub(line);
      const rounds = Array.from({ length: 9 }, () => {
        const start = process.cpuUsage();
        for (let time = 0; time < 50; time += 1) own.scrub(line);
        const { user, system } = process.cpuUsage(start);
        return user + system;
      });
      return Math.min(...rounds);
    };
    // A search for each of them in turn takes fifty times as long and more.
    expect(microseconds(2_000)).toBeLessThan(10 * microseconds(20));
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
