/** An error reply: its first word is its code. */
export class RespError extends Error {
  override readonly name = 'RespError';
}

/** A value as RESP carries it. */
export type RespValue = string | number | null | RespError | readonly RespValue[];

/** A value and where the bytes after it begin. */
export interface Parsed {
  readonly value: RespValue;
  readonly end: number;
}

const lineEnd = Buffer.from('\r\n');
/** What Redis itself takes at most in one go. */
const longest = 512 * 1024 * 1024;

/** The value that starts at `at`, or undefined while part of it is missing. Throws where the bytes are not RESP. */
export function parseResp(bytes: Buffer, at = 0): Parsed | undefined {
  const newline = bytes.indexOf(lineEnd, at);
  if (newline < 0) return undefined;
  const type = String.fromCharCode(bytes[at] ?? 0);
  const line = bytes.toString('utf8', at + 1, newline);
  const after = newline + 2;
  if (type === '-') return { value: new RespError(line), end: after };
  // Of RESP3: booleans, doubles and big numbers stay the text that they are.
  if ('+#,('.includes(type)) return { value: line, end: after };
  if (type === '_') return { value: null, end: after };
  const number = /^-?\d{1,15}$/.test(line) ? Number(line) : Number.NaN;
  if (Number.isNaN(number) || number > longest || !':$*=!~>%'.includes(type))
    throw new Error('got bytes that are not RESP');
  if (type === ':') return { value: number, end: after };
  if (number < 0) return { value: null, end: after };
  if ('$=!'.includes(type)) {
    const end = after + number + 2;
    return bytes.length < end ? undefined : { value: bytes.toString('utf8', after, end - 2), end };
  }
  const values: RespValue[] = [];
  let end = after;
  // A map is a list of keys and values by turns.
  for (let left = type === '%' ? 2 * number : number; left > 0; left -= 1) {
    const item = parseResp(bytes, end);
    if (item === undefined) return undefined;
    values.push(item.value);
    ({ end } = item);
  }
  return { value: values, end };
}

/** `status` is for replies such as `OK`, which are no data. */
export function encodeResp(value: RespValue, { status = false } = {}): string {
  if (value === null) return '$-1\r\n';
  if (value instanceof RespError) return `-${value.message}\r\n`;
  if (typeof value === 'number') return `:${value}\r\n`;
  if (typeof value === 'string')
    return status ? `+${value}\r\n` : `$${Buffer.byteLength(value)}\r\n${value}\r\n`;
  return `*${value.length}\r\n${value.map((item) => encodeResp(item)).join('')}`;
}

/** Cuts a stream of requests into commands, as they come in. */
export function createCommandReader(): (chunk: Buffer) => readonly (readonly string[])[] {
  let pending: Buffer = Buffer.alloc(0);
  return (chunk) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    const commands: (readonly string[])[] = [];
    for (let parsed = parseResp(pending); parsed !== undefined; parsed = parseResp(pending)) {
      const { value, end } = parsed;
      pending = pending.subarray(end);
      if (!Array.isArray(value) || !value.every((word) => typeof word === 'string'))
        throw new Error('got a request that is no command');
      if (value.length > 0) commands.push(value as readonly string[]);
      if (pending.length === 0) break;
    }
    return commands;
  };
}
