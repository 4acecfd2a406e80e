import { createHmac } from 'node:crypto';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { Webhook as StandardWebhook } from 'standardwebhooks';
import { Webhook as SvixWebhook } from 'svix';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { InputError } from '../../functions/core/errors.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import type { WebhookRefusal } from '../../functions/core/webhook.ts';
import { parseWebhookSecrets, verify } from '../../functions/webhooks/signature.ts';

/** The published key of the libraries' own tests: 24 bytes. */
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const otherSecret = 'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz';

/** As Render's would look; computed once, with another implementation. */
const vector = {
  id: 'evt-cph1rs3idesc73a2b2mg',
  timestamp: '1784116800',
  now: new Date('2026-07-15T12:00:00Z'),
  body: '{"type":"postgres_credentials_created","timestamp":"2026-07-15T12:00:00.979294509Z","data":{"id":"evt-cph1rs3idesc73a2b2mg","serviceId":"dpg-d7sg9ln7f7vs73d9bg5g-a","serviceName":"orders"}}',
  signature: 'v1,61ytmfgmF7is4GRzFuZeAa/nyZy0FRIUbFGz4NRdYr8=',
};
/** Of the libraries' own tests. */
const published = {
  id: 'msg_p5jXN8AQM9LWM0D4loKWxJek',
  timestamp: '1614265330',
  now: new Date('2021-02-25T15:02:10Z'),
  body: '{"test": 2432232314}',
  signature: 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
};
const asymmetric =
  'v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==';

interface Given {
  readonly id: string;
  readonly timestamp: string;
  readonly signature: string;
  readonly body: string | Uint8Array;
  readonly now: Date;
  readonly headers: Readonly<Record<string, string>>;
  readonly secrets: string;
}
function verdictOf({
  id,
  timestamp,
  signature,
  body,
  now,
  secrets = secret,
  headers = { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature },
}: Omit<Given, 'headers' | 'secrets'> & Partial<Given>): 'verified' | WebhookRefusal {
  const delivery = { headers, body: Buffer.from(body) };
  const verdict = verify(delivery, parseWebhookSecrets(new Sensitive(secrets)), now);
  return verdict.say === 'verified' ? 'verified' : verdict.reason;
}
const ofVector = (overrides: Partial<Given>) => verdictOf({ ...vector, ...overrides });

/** A correct signature of whatever it is given, lax inputs included: only what is signed is ever in question here. */
const macOf = (id: string, timestamp: string, body: string | Uint8Array, key: Uint8Array = keyOf(secret)) =>
  createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64');
const keyOf = (text: string): Buffer => Buffer.from(text.replace('whsec_', ''), 'base64');
const signed = (overrides: Partial<Given>): Partial<Given> => {
  const { id, timestamp, body } = { ...vector, ...overrides };
  return { signature: `v1,${macOf(id, timestamp, body)}`, ...overrides };
};

describe('a fixed vector', () => {
  test('of the libraries is verified', () => {
    expect(verdictOf(published)).toBe('verified');
  });

  test('of the shape that Render sends is verified, and answers its id and when it was sent', () => {
    const headers = {
      'webhook-id': vector.id,
      'webhook-timestamp': vector.timestamp,
      'webhook-signature': vector.signature,
    };
    const keys = parseWebhookSecrets(new Sensitive(secret));
    expect(verify({ headers, body: Buffer.from(vector.body) }, keys, vector.now)).toEqual({
      say: 'verified',
      id: 'evt-cph1rs3idesc73a2b2mg',
      sentAt: new Date('2026-07-15T12:00:00Z'),
    });
  });

  test('with an asymmetric signature before the symmetric one is verified by the latter', () => {
    expect(verdictOf({ ...published, signature: `${asymmetric} ${published.signature}` })).toBe('verified');
  });

  const lookAlikes: Record<string, { given: Partial<Given>; says: WebhookRefusal }> = {
    'with only an asymmetric signature': {
      given: { ...published, signature: asymmetric },
      says: 'SIGNATURE_OF_OTHER_VERSION',
    },
    "signed by the formula that Render's page prints": {
      given: { signature: 'v1,OpMVouBf/g7x0MlPANhUosxYwdkwor6x9QV3ipGlIiQ=' },
      says: 'NO_MATCH',
    },
    'signed with the secret as it is written': {
      given: { signature: 'v1,WYvsvt4PgfCMyQKKEwpHOnu84ns0n79rYL8WSnRArZY=' },
      says: 'NO_MATCH',
    },
    'signed with the secret as it is written, without its prefix': {
      given: { signature: 'v1,kEYn7gOuVebP45DaSui7hY5RIgN8FJRQLDYGAp/k6PE=' },
      says: 'NO_MATCH',
    },
    'with spare bits set, so that it decodes to the right bytes': {
      given: { signature: 'v1,61ytmfgmF7is4GRzFuZeAa/nyZy0FRIUbFGz4NRdYr9=' },
      says: 'NO_MATCH',
    },
  };
  test.each(Object.entries(lookAlikes))('%s is refused', (_sentence, { given, says }) => {
    expect(ofVector(given)).toBe(says);
  });
});

describe('the secrets', () => {
  test.each([`${otherSecret}\n${secret}`, `${secret}\n${otherSecret}`])(
    'are tried in turn, so that one can be replaced by another',
    (secrets) => {
      expect(ofVector({ secrets })).toBe('verified');
    },
  );

  test('do not verify what is signed with none of them', () => {
    expect(ofVector({ secrets: otherSecret })).toBe('NO_MATCH');
  });

  test.each([
    `v1,${macOf('x', '1', 'x')} ${vector.signature}`,
    `${vector.signature} v1,${macOf('x', '1', 'x')}`,
    `v2,anything= ${vector.signature}`,
    `${vector.signature} v1a, v9,AA==`,
    Array(16).fill(vector.signature).join(' '),
  ])('match any of the signatures, and unknown versions are skipped: %s', (signature) => {
    expect(ofVector({ signature })).toBe('verified');
  });
});

describe('the window', () => {
  const at = (iso: string) => ofVector({ now: new Date(iso) });
  test('is five minutes either way, to the second', () => {
    expect(at('2026-07-15T11:55:00Z')).toBe('verified');
    expect(at('2026-07-15T12:05:00.999Z')).toBe('verified');
    expect(at('2026-07-15T11:54:59.999Z')).toBe('OUTSIDE_WINDOW');
    expect(at('2026-07-15T12:05:01Z')).toBe('OUTSIDE_WINDOW');
  });

  test('is nowhere for a clock that shows no time', () => {
    expect(ofVector({ now: new Date(Number.NaN) })).toBe('OUTSIDE_WINDOW');
  });

  test('is not looked at before the signature', () => {
    expect(ofVector({ now: new Date('2030-01-01T00:00:00Z'), secrets: otherSecret })).toBe('NO_MATCH');
  });
});

describe('a header', () => {
  test('is found in any case', () => {
    const headers = {
      'Webhook-Id': vector.id,
      'WEBHOOK-TIMESTAMP': vector.timestamp,
      'webhook-Signature': vector.signature,
      'content-type': 'application/json',
    };
    expect(ofVector({ headers })).toBe('verified');
  });

  const { id, timestamp, signature } = vector;
  const good = { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature };
  test.each(Object.keys(good))('that is missing or empty is refused: %s', (name) => {
    const { [name]: _missing, ...rest } = good as Record<string, string>;
    expect(ofVector({ headers: rest })).toBe('HEADER_MISSING');
    expect(ofVector({ headers: { ...good, [name]: '' } })).toBe('HEADER_MISSING');
  });
  test.each(Object.keys(good))('that comes in two cases is refused: %s', (name) => {
    const value = (good as Record<string, string>)[name] ?? '';
    expect(ofVector({ headers: { ...good, [name.toUpperCase()]: value } })).toBe('HEADER_TWICE');
  });
  test("under svix's own name is not looked for", () => {
    const headers = { 'svix-id': id, 'svix-timestamp': timestamp, 'svix-signature': signature };
    expect(ofVector({ headers })).toBe('HEADER_MISSING');
  });

  const malformed: Record<string, { says: WebhookRefusal; values: readonly Partial<Given>[] }> = {
    'an id with a dot, a comma, a blank, or of more than 128 characters': {
      says: 'ID_MALFORMED',
      values: ['evt.1', 'evt-1,evt-1', 'evt-1, evt-1', ' evt-1', 'evt-1\n', 'é', 'e'.repeat(129)].map((bad) =>
        signed({ id: bad }),
      ),
    },
    'a timestamp that is not ten digits': {
      says: 'TIMESTAMP_MALFORMED',
      values: [
        '1784116800abc',
        '1784116800.9',
        '1784116800e5',
        ' 01784116800',
        '01784116800',
        '+1784116800',
        '-1784116800',
        '0784116800',
        '1784116800 ',
        '1784116800\n',
        '1784116800,1784116800',
        '1784116800000',
        '178411680',
        'now',
        '١٧٨٤١١٦٨٠٠',
      ].map((bad) => ({ ...signed({ timestamp: bad }) })),
    },
    'a list of signatures that is not one': {
      says: 'SIGNATURE_MALFORMED',
      values: [
        `${signature},x`,
        `v1,AAAA, ${signature}`,
        `v1,AAAA,${signature}`,
        `${signature}, ${signature}`,
        `${signature}  v2,AAAA`,
        ` ${signature}`,
        `${signature} `,
        `${signature}\n`,
        `${signature}\tv2,AAAA`,
        signature.slice(3),
        'v1',
        'v1,',
        'v1,AAAA',
        signature.replace('=', ''),
        `${signature}=`,
        signature.replace('/', '_'),
        `v1:${signature.slice(3)}`,
        Array(17).fill(signature).join(' '),
      ].map((bad) => ({ signature: bad })),
    },
    'signatures of versions that are not ours alone': {
      says: 'SIGNATURE_OF_OTHER_VERSION',
      values: ['v2', 'v1a', 'V1', 'v01', 'v11', '1'].map((version) => ({
        signature: `${version},${signature.slice(3)}`,
      })),
    },
  };
  test.each(Object.entries(malformed))('is refused: %s', (_sentence, { says, values }) => {
    expect(values.map((given) => [given, ofVector(given)])).toEqual(values.map((given) => [given, says]));
  });
});

describe('a body', () => {
  test.each(['', 'not json', '\uFEFF{"type":"x"}', '{"type":1,"type":2}', '\u0000'])(
    'is verified before anything is made of it: %j',
    (body) => {
      expect(ofVector(signed({ body }))).toBe('verified');
    },
  );

  test('is verified byte for byte: what a parser would make equal is not', () => {
    expect(ofVector({ body: vector.body.replace(':', ': ') })).toBe('NO_MATCH');
    expect(ofVector({ body: `${vector.body}\n` })).toBe('NO_MATCH');
  });

  test('of 65536 bytes is verified, and one more is refused without a look at it', () => {
    expect(ofVector(signed({ body: 'a'.repeat(65_536) }))).toBe('verified');
    expect(ofVector(signed({ body: 'a'.repeat(65_537) }))).toBe('TOO_LARGE');
  });

  test.each([[0xff], [0xfe], [0xc3], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80]])(
    'that is not UTF-8 is refused, however it is signed: %j',
    (...bytes) => {
      const body = Uint8Array.from(bytes.flat());
      expect(ofVector(signed({ body }))).toBe('NOT_UTF8');
      const replaced = Buffer.from(body).toString();
      expect(ofVector({ body, signature: `v1,${macOf(vector.id, vector.timestamp, replaced)}` })).toBe(
        'NOT_UTF8',
      );
    },
  );
});

describe('stored secrets', () => {
  const keysIn = (stored: string): readonly string[] =>
    parseWebhookSecrets(new Sensitive(stored)).map((key) => key.export().toString('base64'));
  const key = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
  const other = 'MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz';

  const good: Record<string, { stored: string; keys: readonly string[] }> = {
    'one, as Render shows it': { stored: `whsec_${key}`, keys: [key] },
    'one without its prefix': { stored: key, keys: [key] },
    'one with the line break of a console': { stored: ` whsec_${key}\r\n`, keys: [key] },
    'one a line': { stored: `whsec_${key}\n\n${other}\n`, keys: [key, other] },
    'a JSON array': { stored: ` ["whsec_${key}", " ${other}\\n"]`, keys: [key, other] },
    'one of 64 bytes': { stored: `${'A'.repeat(85)}A==`, keys: [`${'A'.repeat(85)}A==`] },
    'one without its padding, with spare bits set': {
      stored: `${'A'.repeat(33)}B`,
      keys: [`${'A'.repeat(33)}A==`],
    },
  };
  test.each(Object.entries(good))('may be %s', (_sentence, { stored, keys }) => {
    expect(keysIn(stored)).toEqual(keys);
  });

  const wrong: Record<string, { stored: string; says: string }> = {
    'nothing at all': { stored: '', says: 'there is none' },
    'only blanks': { stored: ' \n ', says: 'there is none' },
    'an empty array': { stored: '[]', says: 'there is none' },
    'the prefix alone': { stored: 'whsec_', says: '1 of 1: is not base64' },
    'two prefixes': { stored: `whsec_whsec_${key}`, says: '1 of 1: is not base64' },
    'a public key': {
      stored: 'whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=',
      says: '1 of 1: is an asymmetric key',
    },
    'a private key': { stored: `whsk_${key}`, says: '1 of 1: is an asymmetric key' },
    'a secret behind a version': {
      stored: `v1,whsec_${key}`,
      says: '1 of 1: is a signature, or a secret behind a version',
    },
    'base64 of URLs': { stored: key.replace('9', '_'), says: '1 of 1: is not base64' },
    'base64 with a digit too many': { stored: `${key}A`, says: '1 of 1: is not base64' },
    'base64 with wrong padding': { stored: `${key}=`, says: '1 of 1: is not base64' },
    'a blank inside': { stored: `${key} ${key}`, says: '1 of 1: is not base64' },
    '23 bytes': { stored: 'A'.repeat(31), says: '1 of 1: expected 24 to 64 bytes, got 23' },
    '65 bytes': { stored: `${'A'.repeat(87)}=`, says: '1 of 1: expected 24 to 64 bytes, got 65' },
    'one that is wrong among good ones': {
      stored: `${key}\nwhsec_\n${other}`,
      says: '2 of 3: is not base64',
    },
    'an array of something else': { stored: `["${key}", 7, ""]`, says: '2 of 3: is empty; 3 of 3: is empty' },
    'an array that does not end': { stored: `["${key}"`, says: '1 of 1: is not base64' },
    'a document': { stored: `{"secret":"${key}"}`, says: '1 of 1: is not base64' },
    'too many': { stored: Array(17).fill(key).join('\n'), says: 'expected 16 at most, got 17' },
  };
  test.each(Object.entries(wrong))('are refused: %s', (_sentence, { stored, says }) => {
    const attempt = () => parseWebhookSecrets(new Sensitive(stored));
    expect(attempt).toThrow(InputError);
    expect(attempt).toThrow(`SECRET_INVALID: signing secrets of a webhook: ${says}`);
    expect(attempt).toThrow("; store the signing secret of the webhook's settings page");
  });

  test('print nothing of themselves, as keys and in errors', () => {
    const canary = 'whsec_CanaryCanaryCanaryCanaryCanaryCa';
    const [parsed] = parseWebhookSecrets(new Sensitive(canary));
    expect(inspect(parsed, { depth: 9, showHidden: true }) + JSON.stringify({ parsed })).not.toContain(
      'Canary',
    );
    for (const stored of [
      `v1,${canary}`,
      `${canary}!`,
      `["${canary}`,
      `{"secret":"${canary}"}`,
      `${canary}A`,
    ])
      try {
        parseWebhookSecrets(new Sensitive(stored));
        expect.unreachable();
      } catch (error) {
        expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('Canary');
      }
  });
});

describe('beside the libraries that others use', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  type Library = 'standardwebhooks' | 'svix';
  /** What a library says; a body that is no JSON was found authentic before it was parsed. */
  function says(library: Library, { headers, body, now, key }: Attempt): 'verified' | 'refused' {
    vi.useFakeTimers({ now, toFake: ['Date'] });
    const webhook = new (library === 'svix' ? SvixWebhook : StandardWebhook)(key.toString('base64'));
    try {
      webhook.verify(Buffer.from(body), { ...headers });
      return 'verified';
    } catch (error) {
      return error instanceof SyntaxError ? 'verified' : 'refused';
    } finally {
      vi.useRealTimers();
    }
  }
  const we = ({ headers, body, now, key }: Attempt): 'verified' | 'refused' =>
    verify({ headers, body }, parseWebhookSecrets(new Sensitive(key.toString('base64'))), now).say;

  interface Attempt {
    readonly headers: Readonly<Record<string, string>>;
    readonly body: Uint8Array;
    readonly now: Date;
    readonly key: Buffer;
  }

  const bytes = (constraints: fc.IntArrayConstraints) =>
    fc.uint8Array(constraints).map((each) => Buffer.from(each));
  const seconds = 1_784_116_800;
  const id = fc.oneof(
    { weight: 8, arbitrary: fc.stringMatching(/^[A-Za-z0-9_-]{1,40}$/) },
    fc.constantFrom('evt.1', 'evt-1,evt-1', '', ' '),
  );
  const timestampOf = fc.oneof(
    { weight: 8, arbitrary: fc.constant((text: string) => text) },
    fc.constantFrom(
      (text: string) => `${text}abc`,
      (text: string) => `${text}.9`,
      (text: string) => ` 0${text}`,
      (text: string) => `+${text}`,
      (text: string) => `${text},${text}`,
    ),
  );
  const signaturesOf = fc.oneof(
    { weight: 8, arbitrary: fc.constant((mac: string) => `v1,${mac}`) },
    fc.constantFrom(
      (mac: string) => `v2,AAAA v1,${mac}`,
      (mac: string) => `v1,${mac} v1a,${mac}${mac}`,
      (mac: string) => `v1,${mac},x`,
      (mac: string) => `v1,AAAA, v1,${mac}`,
      (mac: string) => `v1,${mac}  v2,AAAA`,
      (mac: string) => `V1,${mac}`,
      (mac: string) => `v1,${mac.replace('=', '')}`,
      (mac: string) => mac,
    ),
  );
  const attempt = fc
    .record({
      id,
      body: fc.oneof(
        { weight: 3, arbitrary: fc.json().map((text) => Buffer.from(text)) },
        bytes({ maxLength: 40 }),
        fc.string({ unit: 'binary' }).map((text) => Buffer.from(text)),
      ),
      key: bytes({ minLength: 24, maxLength: 64 }),
      signingKey: fc.oneof(
        { weight: 8, arbitrary: fc.constant(undefined) },
        bytes({ minLength: 24, maxLength: 64 }),
      ),
      offSeconds: fc.oneof(
        { weight: 4, arbitrary: fc.integer({ min: -300, max: 300 }) },
        fc.integer({ min: -310, max: 310 }),
        fc.constantFrom(-301, -300, 300, 301),
      ),
      ms: fc.integer({ min: 0, max: 999 }),
      timestampOf,
      signaturesOf,
      caseOf: fc.constantFrom(
        (name: string) => name,
        (name: string) => name.toUpperCase(),
      ),
      /** Whether the sender signed the text of the timestamp, or, as the lax libraries do, the number in it. */
      signsNumber: fc.boolean(),
    })
    .map(({ id: eventId, body, key, signingKey, offSeconds, ms, ...rest }): Attempt => {
      const timestamp = rest.timestampOf(String(seconds));
      const mac = macOf(eventId, rest.signsNumber ? String(seconds) : timestamp, body, signingKey ?? key);
      return {
        headers: {
          [rest.caseOf('webhook-id')]: eventId,
          [rest.caseOf('webhook-timestamp')]: timestamp,
          [rest.caseOf('webhook-signature')]: rest.signaturesOf(mac),
        },
        body,
        key,
        now: new Date((seconds + offSeconds) * 1000 + ms),
      };
    });

  test('whatever is accepted here, they accept', () => {
    let accepted = 0;
    fc.assert(
      fc.property(attempt, (given) => {
        if (we(given) === 'refused') return;
        accepted += 1;
        expect([says('standardwebhooks', given), says('svix', given)]).toEqual(['verified', 'verified']);
      }),
      { numRuns: 3_000 },
    );
    expect(accepted).toBeGreaterThan(500);
  });

  const key = keyOf(secret);
  const lax = (overrides: {
    readonly id?: string;
    readonly timestamp?: string;
    readonly signature?: (mac: string) => string;
    readonly body?: Uint8Array;
    readonly signedBody?: string;
  }): Attempt => {
    const {
      id: eventId = 'evt-1',
      timestamp = String(seconds),
      signature = (mac: string) => `v1,${mac}`,
    } = overrides;
    const body = overrides.body ?? Buffer.from('{}');
    return {
      key,
      body,
      now: new Date(seconds * 1000),
      headers: {
        'webhook-id': eventId,
        'webhook-timestamp': timestamp,
        'webhook-signature': signature(macOf(eventId, String(seconds), overrides.signedBody ?? body)),
      },
    };
  };
  const laxness: Record<string, Attempt> = {
    'a timestamp followed by letters': lax({ timestamp: `${seconds}abc` }),
    'a timestamp with a fraction': lax({ timestamp: `${seconds}.9` }),
    'a timestamp with an exponent': lax({ timestamp: `${seconds}e5` }),
    'a timestamp with a blank and a zero before it': lax({ timestamp: ` 0${seconds}` }),
    'a timestamp with a sign': lax({ timestamp: `+${seconds}` }),
    'a timestamp of two headers joined': lax({ timestamp: `${seconds},${seconds}` }),
    'a third part of a signature': lax({ signature: (mac) => `v1,${mac},x` }),
    'two headers of signatures joined by a comma': lax({ signature: (mac) => `v1,AAAA, v1,${mac}` }),
    'two blanks between signatures': lax({ signature: (mac) => `v2,AAAA  v1,${mac}` }),
    'a blank before the signatures': lax({ signature: (mac) => ` v1,${mac}` }),
    'a blank after the signatures': lax({ signature: (mac) => `v1,${mac} ` }),
    'an id with a dot': lax({ id: 'evt.1' }),
    'other bytes than those that were signed, when neither is UTF-8': lax({
      body: Buffer.from([0x22, 0xfe, 0x22]),
      signedBody: '"\uFFFD"',
    }),
  };
  test.each(Object.entries(laxness))('they accept %s, and it is refused here', (_sentence, given) => {
    expect([says('standardwebhooks', given), says('svix', given)]).toEqual(['verified', 'verified']);
    expect(we(given)).toBe('refused');
  });

  test('svix takes a secret of no bytes, with which anybody can sign; it is refused here', () => {
    const mac = macOf('evt-1', String(seconds), '{}', Buffer.alloc(0));
    const headers = {
      'webhook-id': 'evt-1',
      'webhook-timestamp': String(seconds),
      'webhook-signature': `v1,${mac}`,
    };
    vi.useFakeTimers({ now: new Date(seconds * 1000), toFake: ['Date'] });
    expect(new SvixWebhook('whsec_').verify('{}', headers)).toEqual({});
    expect(() => parseWebhookSecrets(new Sensitive('whsec_'))).toThrow('SECRET_INVALID');
  });

  test.each([5, 65])('they take a secret of %d bytes, and it is refused here', (size) => {
    const text = Buffer.alloc(size, 1).toString('base64');
    expect(() => [new StandardWebhook(text), new SvixWebhook(text)]).not.toThrow();
    expect(() => parseWebhookSecrets(new Sensitive(text))).toThrow('SECRET_INVALID');
  });
});
