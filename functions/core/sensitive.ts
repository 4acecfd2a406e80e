import { jsonOf } from './json.ts';

/**
 * A value that must not be seen: a password, an API key, a connection string, a RotationToken.
 * Prints `‹redacted›` under every way of printing; `reveal()` is the one way to the value, so that it can be searched for.
 */
export class Sensitive {
  readonly #value: string;
  constructor(value: string) {
    this.#value = value;
  }
  reveal(): string {
    return this.#value;
  }
  /** Takes as long for a near miss as for a far one. */
  equals(other: Sensitive): boolean {
    let difference = this.#value.length ^ other.#value.length;
    // Past the end of `other` there is no number, which counts as zero: the lengths differ already.
    for (let at = 0; at < this.#value.length; at += 1)
      difference |= this.#value.charCodeAt(at) ^ other.#value.charCodeAt(at);
    return difference === 0;
  }
  toString(): string {
    return redacted;
  }
  toJSON(): string {
    return redacted;
  }
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return redacted;
  }
}

export const redacted = '‹redacted›';

/** Every spelling in which a value is known to surface: JSON, URL, form, base64 at any alignment, hex, SQL. */
export function spellings(value: string): readonly string[] {
  const bytes = Buffer.from(value, 'utf8');
  const json = JSON.stringify(value).slice(1, -1);
  const percent = encodeURIComponent(value);
  const escapedUnits = [...Array(value.length).keys()].map(
    (index) => `\\u${value.charCodeAt(index).toString(16).padStart(4, '0')}`,
  );
  return [
    ...new Set([
      value,
      json,
      JSON.stringify(json).slice(1, -1),
      escapedUnits.join(''),
      percent,
      percent.toLowerCase(),
      percent.replaceAll('%20', '+'),
      encodeURIComponent(percent),
      value.replaceAll("'", "''"),
      bytes.toString('hex'),
      bytes.toString('hex').toUpperCase(),
      ...base64Alignments(bytes).flatMap((text) => [text, text.replaceAll('+', '-').replaceAll('/', '_')]),
    ]),
  ].filter((text) => text.length > 0);
}

/** The part of the base64 text that depends on the value alone, wherever in a longer text it starts. */
function base64Alignments(bytes: Buffer): readonly string[] {
  return [0, 1, 2].map((offset) => {
    const encoded = Buffer.concat([Buffer.alloc(offset), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    const from = Math.ceil((offset * 8) / 6);
    const whole = Math.floor(((offset + bytes.length) * 8) / 6);
    return encoded.slice(from, whole);
  });
}

/**
 * What would betray a value alone. Several may be stored as one, a line or an item of a JSON array each, as signing secrets are while
 * one replaces the other: whoever prints one of them prints it without the rest. Their prefix and padding are no secret; what lies
 * between is, wherever it stands, as what is stored may be spoiled. Which fields of a JSON object are secret is for those to say
 * who know it.
 */
function partsOf(value: string): readonly string[] {
  const keys = [...value.matchAll(/whsec_([A-Za-z0-9+/]+)/g)].map(([, key = '']) => key);
  const document = jsonOf(value);
  if (typeof document === 'object' && document !== null && !Array.isArray(document)) return [value, ...keys];
  const listed: readonly unknown[] = Array.isArray(document) ? document : value.split('\n');
  const parts = listed.filter((part) => typeof part === 'string').map((part) => part.trim());
  return [value, ...parts, ...parts.map((part) => part.replace(/=+$/, '')), ...keys];
}

export interface Redactor {
  /**
   * From now on `value` is taken out of everything that is scrubbed, and each of the values that are stored as one in it. Short
   * values would hide ordinary text: ignored.
   */
  learn(value: Sensitive | string): void;
  /** `text` without any spelling of any learned value. */
  scrub(text: string): string;
}

/** Shorter values would hide ordinary text, and so would shorter spellings of longer ones. */
const minLength = 8;
/**
 * A warm function lives for hours: what was not learned again through so many other values is long out of every buffer. A pass reads
 * some four values a credential.
 */
const maxValues = 2_000;

/**
 * The second net, for texts that others write. The first is never to interpolate a `Sensitive`. `always` are values that are
 * read once and stay, such as those of the environment.
 */
export function createRedactor(always: readonly string[] = []): Redactor {
  /** From value to its spellings; the least recently learned first. */
  const known = new Map<string, readonly string[]>();
  const index = formIndex();
  const formsOf = (text: string): readonly string[] =>
    text.length < minLength ? [] : spellings(text).filter((spelling) => spelling.length >= minLength);
  for (const form of always.flatMap(formsOf)) index.add(form);

  function learnOne(text: string): void {
    if (text.length < minLength) return;
    const forms = known.get(text) ?? formsOf(text);
    if (known.delete(text)) {
      known.set(text, forms);
      return;
    }
    known.set(text, forms);
    for (const form of forms) index.add(form);
    const [oldest] = known;
    if (known.size <= maxValues || oldest === undefined) return;
    known.delete(oldest[0]);
    for (const form of oldest[1]) index.remove(form);
  }

  return {
    learn(value) {
      const text = typeof value === 'string' ? value : value.reveal();
      for (const part of new Set(partsOf(text))) learnOne(part);
    },
    scrub(text) {
      let clean = '';
      let from = 0;
      // Of two forms that overlap, both go: where the first one ends, the rest of the second would be left.
      for (let at = 0, until = 0; at <= text.length - minLength; at += 1) {
        const length = index.lengthAt(text, at);
        if (length === 0) continue;
        if (at >= until) clean += `${text.slice(from, at)}${redacted}`;
        until = Math.max(until, at + length);
        from = until;
      }
      return from === 0 ? text : clean + text.slice(from);
    },
  };
}

/** Forms that begin alike. */
interface Forms {
  /** With how many values spell it so. */
  readonly counts: Map<string, number>;
  /** The longest first; some may be of forms that are no longer here. */
  lengths: readonly number[];
}

/** The forms by their first characters. Whether one begins at some place is found without going through them, however many there are. */
function formIndex() {
  const byStart = new Map<string, Forms>();
  return {
    add(form: string): void {
      const start = form.slice(0, minLength);
      const forms: Forms = byStart.get(start) ?? { counts: new Map(), lengths: [] };
      byStart.set(start, forms);
      forms.counts.set(form, (forms.counts.get(form) ?? 0) + 1);
      if (!forms.lengths.includes(form.length))
        forms.lengths = [...forms.lengths, form.length].toSorted((a, b) => b - a);
    },
    remove(form: string): void {
      const start = form.slice(0, minLength);
      const forms = byStart.get(start);
      const count = forms?.counts.get(form);
      if (forms === undefined || count === undefined) return;
      if (count > 1) {
        forms.counts.set(form, count - 1);
        return;
      }
      forms.counts.delete(form);
      if (forms.counts.size === 0) byStart.delete(start);
    },
    /** Of the longest form that begins there, 0 if none does. */
    lengthAt(text: string, at: number): number {
      const forms = byStart.get(text.slice(at, at + minLength));
      return forms?.lengths.find((length) => forms.counts.has(text.slice(at, at + length))) ?? 0;
    },
  };
}
