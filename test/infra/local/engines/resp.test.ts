import { describe, expect, test } from 'vitest';
import {
  createCommandReader,
  encodeResp,
  parseResp,
  RespError,
  type RespValue,
} from '../../../../infra/local/engines/resp.ts';

describe('a value on the wire', () => {
  const values: Record<string, RespValue> = {
    'a text': 'tea',
    'an empty text': '',
    'a text with line ends and letters of two bytes': 'gr\u00fcn\r\nblau',
    'a number': -7,
    nothing: null,
    'an error': new RespError('WRONGPASS no'),
    'a list of lists': ['a', [1, null], []],
  };
  test.each(Object.entries(values))('survives: %s', (_what, value) => {
    const bytes = Buffer.from(`${encodeResp(value)}+next\r\n`);
    const parsed = parseResp(bytes);
    expect(parsed?.value).toEqual(value);
    expect(bytes.toString('utf8', parsed?.end)).toBe('+next\r\n');
  });

  test.each(Object.entries(values))('is waited for while a byte of it is missing: %s', (_what, value) => {
    const whole = Buffer.from(encodeResp(value));
    for (let length = 0; length < whole.length; length += 1)
      expect(parseResp(whole.subarray(0, length)), `${length} bytes`).toBeUndefined();
  });

  const newer: Record<string, RespValue> = {
    '_\r\n': null,
    '#t\r\n': 't',
    ',1.5\r\n': '1.5',
    '%1\r\n+proto\r\n:3\r\n': ['proto', 3],
    '~1\r\n:1\r\n': [1],
    '=7\r\ntxt:tea\r\n': 'txt:tea',
  };
  test.each(Object.entries(newer))('of RESP3 is understood: %j', (text, value) => {
    expect(parseResp(Buffer.from(text))).toEqual({ value, end: text.length });
  });

  test.each(['HTTP/1.1 200 OK\r\n', '$x\r\n', '$9999999999\r\n', '\r\n'])('is not made of %j', (text) => {
    expect(() => parseResp(Buffer.from(text))).toThrow('got bytes that are not RESP');
  });
});

test('commands are cut out of a stream wherever it is broken', () => {
  const text = `${encodeResp(['AUTH', 'a', 'b'])}${encodeResp(['PING'])}`;
  for (let at = 0; at <= text.length; at += 1) {
    const read = createCommandReader();
    expect([...read(Buffer.from(text.slice(0, at))), ...read(Buffer.from(text.slice(at)))]).toEqual([
      ['AUTH', 'a', 'b'],
      ['PING'],
    ]);
  }
  expect(() => createCommandReader()(Buffer.from(':1\r\n'))).toThrow('got a request that is no command');
});
