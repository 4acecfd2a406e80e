import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import { InputError } from '../core/errors.ts';
import { jsonOf } from '../core/json.ts';
import type { Sensitive } from '../core/sensitive.ts';
import { type Delivery, mostBodyBytes, type WebhookRefusal, type WebhookVerdict } from '../core/webhook.ts';

/**
 * The Standard Webhooks scheme with symmetric keys, over the bytes that arrived, and stricter than its libraries: they read
 * `1614265330abc` as a time, ignore what follows a second comma, and take all bytes that are not UTF-8 for the same ones.
 * Whatever is accepted here, they accept.
 */

/** Either way; exactly as much is within. */
const windowSeconds = 300;
const mostSignatures = 16;
const mostSecrets = 16;

/** No dot: it separates what is signed. */
const idPattern = /^[A-Za-z0-9_-]{1,128}$/;
/** Ten digits do until the year 2286. */
const timestampPattern = /^[1-9][0-9]{9}$/;
const signaturePattern = /^([A-Za-z0-9]+),([A-Za-z0-9+/=]*)$/;
const macPattern = /^[A-Za-z0-9+/]{43}=$/;

/** Whether the holder of one of the keys sent exactly this, within the window around `now`. */
export function verify({ headers, body }: Delivery, keys: readonly KeyObject[], now: Date): WebhookVerdict {
  if (body.length > mostBodyBytes) return refused('TOO_LARGE');
  const signed = readHeaders(headers);
  if (typeof signed === 'string') return refused(signed);
  const { id, timestamp, macs } = signed;
  if (!isUtf8(body)) return refused('NOT_UTF8');
  // Before the window: the time that an answer takes must not tell which of the two was wrong.
  if (!isSignedBy(keys, macs, `${id}.${timestamp}.`, body)) return refused('NO_MATCH');
  const seconds = Number(timestamp);
  const isWithin = Math.abs(Math.floor(now.getTime() / 1000) - seconds) <= windowSeconds;
  if (!isWithin) return refused('OUTSIDE_WINDOW');
  return { say: 'verified', id, sentAt: new Date(seconds * 1000) };
}

const refused = (reason: WebhookRefusal): WebhookVerdict => ({ say: 'refused', reason });

interface SignedHeaders {
  readonly id: string;
  /** As it was written: a number read from it could be that of other texts. */
  readonly timestamp: string;
  /** The signatures of version 1, at least one. */
  readonly macs: readonly string[];
}

function readHeaders(headers: Delivery['headers']): SignedHeaders | WebhookRefusal {
  const found = Map.groupBy(Object.entries(headers), ([name]) => name.toLowerCase());
  const [ids = [], timestamps = [], signatures = []] = ['id', 'timestamp', 'signature'].map((name) =>
    found.get(`webhook-${name}`)?.map(([, value]) => value),
  );
  if ([ids, timestamps, signatures].some(({ length }) => length > 1)) return 'HEADER_TWICE';
  const [[id = ''], [timestamp = ''], [signature = '']] = [ids, timestamps, signatures];
  if (id === '' || timestamp === '' || signature === '') return 'HEADER_MISSING';
  // A header that came twice has a comma in it, which none of the patterns allows where it would stand.
  if (!idPattern.test(id)) return 'ID_MALFORMED';
  if (!timestampPattern.test(timestamp)) return 'TIMESTAMP_MALFORMED';
  const tokens = signature.split(' ').map((token) => signaturePattern.exec(token) ?? []);
  if (tokens.length > mostSignatures || tokens.some(({ length }) => length === 0))
    return 'SIGNATURE_MALFORMED';
  // Other versions, asymmetric ones among them, are skipped as the specification says.
  const macs = tokens.flatMap(([, version, mac = '']) => (version === 'v1' ? [mac] : []));
  if (macs.some((mac) => !macPattern.test(mac))) return 'SIGNATURE_MALFORMED';
  return macs.length === 0 ? 'SIGNATURE_OF_OTHER_VERSION' : { id, timestamp, macs };
}

/** Its text could not be told from that of other bytes, and nobody signs such a body. */
function isUtf8(body: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(body);
    return true;
  } catch {
    return false;
  }
}

/**
 * Every signature is compared with that of every key, and none of it ends early. Texts are compared: Node decodes base64 with
 * other spare bits, or with anything in between, to the same bytes.
 */
function isSignedBy(
  keys: readonly KeyObject[],
  macs: readonly string[],
  head: string,
  body: Uint8Array,
): boolean {
  let isSigned = false;
  for (const key of keys) {
    const wanted = Buffer.from(createHmac('sha256', key).update(head).update(body).digest('base64'));
    for (const mac of macs) {
      // Of the same length, as macPattern says; anything else would throw.
      const isSame = timingSafeEqual(Buffer.from(mac), wanted);
      isSigned ||= isSame;
    }
  }
  return isSigned;
}

// Secrets.

const remedy =
  "store the signing secret of the webhook's settings page, as it is shown there; while it is replaced store both, one a line or as a JSON array";

/** The keys in a stored secret, at least one; they print nothing of themselves. Throws SECRET_INVALID for any that is none. */
export function parseWebhookSecrets(stored: Sensitive): readonly KeyObject[] {
  const secrets = listed(stored.reveal());
  const { length } = secrets;
  const parsed = secrets.map(keyOf);
  const wrong = parsed.flatMap((key, index) =>
    typeof key === 'string' ? [`${index + 1} of ${length}: ${key}`] : [],
  );
  if (length === 0) wrong.push('there is none');
  if (length > mostSecrets) wrong.push(`expected ${mostSecrets} at most, got ${length}`);
  if (wrong.length > 0)
    throw new InputError('SECRET_INVALID', `signing secrets of a webhook: ${wrong.join('; ')}; ${remedy}`);
  return parsed.filter((key) => typeof key !== 'string');
}

/** One secret, one a line, or a JSON array of them. Base64 begins with no bracket. */
function listed(text: string): readonly string[] {
  if (!text.trimStart().startsWith('['))
    return text
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '');
  const document = jsonOf(text);
  if (!Array.isArray(document)) return ['['];
  return document.map((secret: unknown) => (typeof secret === 'string' ? secret.trim() : ''));
}

/** A secret's key, or what is wrong with it. */
function keyOf(secret: string): KeyObject | string {
  if (secret === '') return 'is empty';
  if (/^wh[sp]k_/.test(secret)) return 'is an asymmetric key, which signs with another version';
  if (secret.includes(','))
    return 'is a signature, or a secret behind a version: expected what follows the comma';
  const text = secret.replace(/^whsec_/, '');
  // Padding may be left out, and spare bits be set: some tools that make secrets do (libraries of the specification).
  const [, digits = '', padding = ''] = /^([A-Za-z0-9+/]+)(={0,2})$/.exec(text) ?? [];
  if (digits === '' || digits.length % 4 === 1 || (padding !== '' && (digits + padding).length % 4 !== 0))
    return 'is not base64, with or without whsec_ before it';
  const bytes = Buffer.from(digits, 'base64');
  if (bytes.length < 24 || bytes.length > 64) return `expected 24 to 64 bytes, got ${bytes.length}`;
  return createSecretKey(bytes);
}
