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
  equals(other: Sensitive): boolean {
    return this.#value === other.#value;
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

export interface Redactor {
  /** From now on `value` is taken out of everything that is scrubbed. Short values would hide ordinary text: ignored. */
  learn(value: Sensitive | string): void;
  /** `text` without any spelling of any learned value. */
  scrub(text: string): string;
}

/** The second net, for texts that others write. The first is never to interpolate a `Sensitive`. */
export function createRedactor(): Redactor {
  const known = new Map<string, readonly string[]>();
  const shortest = 8;
  return {
    learn(value) {
      const text = typeof value === 'string' ? value : value.reveal();
      if (text.length < shortest || known.has(text)) return;
      // A warm function lives for hours: the oldest values are long out of every buffer.
      if (known.size >= 500) known.delete(known.keys().next().value ?? '');
      known.set(
        text,
        spellings(text).filter((spelling) => spelling.length >= shortest),
      );
    },
    scrub(text) {
      let clean = text;
      for (const forms of known.values())
        for (const form of forms) if (clean.includes(form)) clean = clean.replaceAll(form, redacted);
      return clean;
    },
  };
}
