import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createRedactor, Sensitive, spellings } from '../../functions/core/sensitive.ts';
import { createLog } from '../../functions/runtime/logger.ts';

const canary = 'Kq7"/+&é=pass wörd\\x';

/** What reached the two streams that Lambda collects. */
let written = '';
beforeEach(() => {
  written = '';
  const keep = (chunk: string | Uint8Array): boolean => {
    written += String(chunk);
    return true;
  };
  vi.spyOn(process.stdout, 'write').mockImplementation(keep);
  vi.spyOn(process.stderr, 'write').mockImplementation(keep);
});
afterEach(() => vi.restoreAllMocks());

function logWith(secret = canary, level: 'DEBUG' | 'INFO' | 'WARN' | 'ERROR' = 'INFO') {
  const redactor = createRedactor();
  redactor.learn(secret);
  return createLog(level, redactor);
}

const lines = (): readonly Record<string, unknown>[] =>
  written
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

test('a line is one JSON document with level, message, fields and the service', () => {
  logWith()('info', 'createSecret done', { credential: 'orders-api', attempts: 2, nested: { ready: true } });
  expect(lines()).toEqual([
    expect.objectContaining({
      level: 'INFO',
      message: 'createSecret done',
      service: 'rekey',
      credential: 'orders-api',
      attempts: 2,
      nested: { ready: true },
    }),
  ]);
});

test('what is below the level is not written', () => {
  const log = logWith(canary, 'WARN');
  log('info', 'too quiet');
  log('warn', 'loud enough');
  log('error', 'louder');
  expect(lines().map(({ level, message }) => [level, message])).toEqual([
    ['WARN', 'loud enough'],
    ['ERROR', 'louder'],
  ]);
});

test('one line knows nothing of the fields of the line before', () => {
  const log = logWith();
  log('info', 'first', { username: 'orders_1' });
  log('info', 'second');
  expect(lines()[1]).not.toHaveProperty('username');
});

describe('a learned secret is not written', () => {
  const failure = (text: string): Error =>
    Object.assign(new Error(`failed with ${text}`, { cause: new Error(`because of ${text}`) }), {
      input: { password: text },
    });
  const places: Record<string, (text: string) => readonly [string, Record<string, unknown>?]> = {
    'in a message': (text) => [`the password is ${text}, really`],
    'in a field': (text) => ['a line', { password: text }],
    'in a nested field': (text) => ['a line', { request: { headers: [{ value: `Bearer ${text}` }] } }],
    'in a list': (text) => ['a line', { values: ['one', text] }],
    'in an error: its message, stack, cause and properties': (text) => ['a line', { error: failure(text) }],
    'in an error deep inside a field': (text) => ['a line', { attempts: [{ error: failure(text) }] }],
    'in the errors of an error': (text) => [
      'a line',
      { error: new AggregateError([failure(text)], `several: ${text}`) },
    ],
    'in a URL': (text) => [
      'a line',
      { url: new URL(`postgresql://orders:${encodeURIComponent(text)}@db.example.com/orders`) },
    ],
    'in a JSON text inside a JSON text': (text) => [
      'a line',
      { body: JSON.stringify({ inner: JSON.stringify({ password: text }) }) },
    ],
    'in what its own toJSON answers': (text) => ['a line', { odd: { toJSON: () => ({ was: text }) } }],
  };
  const secrets: Record<string, string> = {
    'of letters and digits': 'Kq7canary3Vw9xB2n',
    'with everything that escaping touches': canary,
  };
  describe.each(Object.entries(secrets))('%s', (_kind, secret) => {
    test.each(Object.entries(places))('%s', (_place, make) => {
      const log = logWith(secret);
      for (const spelling of spellings(secret))
        for (const level of ['info', 'warn', 'error'] as const) log(level, ...make(spelling));
      // A broken replacer would write nothing at all, and so no secret either.
      expect(lines()).toHaveLength(3 * spellings(secret).length);
      for (const spelling of spellings(secret)) expect(written).not.toContain(spelling);
      expect(written).toContain('‹redacted›');
    });
  });

  test('where it is wrapped, learned or not', () => {
    logWith('another secret')('info', 'a line', {
      password: new Sensitive(canary),
      all: [new Sensitive(canary)],
    });
    expect(lines()).toEqual([expect.objectContaining({ password: '‹redacted›', all: ['‹redacted›'] })]);
  });
});

describe('nobody can forge a line', () => {
  const forged = 'all well\n{"level":"ERROR","message":"forged"}\r\n{"level":"INFO"}\u2028\u0000\u001b[2K';
  const places: Record<string, readonly [string, Record<string, unknown>?]> = {
    'with a message': [forged],
    'with a field': ['a line', { said: forged }],
    'with the name of a field': ['a line', { [forged]: 'x' }],
    'with an error': ['a line', { error: new Error(forged) }],
  };
  test.each(Object.entries(places))('%s', (_place, parts) => {
    logWith()('info', ...parts);
    expect(written.match(/[\n\r]/g)).toEqual(['\n']);
    expect(lines()).toHaveLength(1);
    expect(lines()[0]).toMatchObject({ level: 'INFO' });
    expect(written).not.toContain('\u001b');
  });

  test('with fields that are named like ours', () => {
    logWith()('info', 'the truth', {
      level: 'ERROR',
      message: 'forged',
      service: 'other',
      timestamp: 'never',
    });
    expect(lines().at(-1)).toMatchObject({ level: 'INFO', message: 'the truth', service: 'rekey' });
  });
});

test('a field that contains itself, and a number too large for JSON, do no harm', () => {
  const ring: Record<string, unknown> = { size: 2n ** 64n };
  ring['self'] = ring;
  const failure = Object.assign(new Error('failed'), { cause: undefined as unknown });
  failure.cause = new Error('because', { cause: failure });
  logWith()('info', 'a line', { ring, failure });
  expect(lines()).toMatchObject([
    {
      ring: { size: '18446744073709551616' },
      failure: { message: 'failed', cause: { message: 'because' } },
    },
  ]);
});

test('what occurs twice is written twice', () => {
  const target = { id: 'orders' };
  logWith()('info', 'a line', { from: target, to: [target, target] });
  expect(lines()).toMatchObject([{ from: { id: 'orders' }, to: [{ id: 'orders' }, { id: 'orders' }] }]);
});

test('a line names the request by which Lambda knows the invocation, where it does', () => {
  vi.stubEnv(
    '_X_AMZN_TRACE_ID',
    'Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0',
  );
  logWith()('info', 'in an invocation');
  vi.stubEnv('_X_AMZN_TRACE_ID', undefined);
  logWith()('info', 'before one');
  vi.unstubAllEnvs();
  expect(lines()).toMatchObject([
    { xray_trace_id: '1-5759e988-bd862e3fe1be46a994272793' },
    { message: 'before one' },
  ]);
  expect(lines()[1]).not.toHaveProperty('xray_trace_id');
});
