import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Agent } from 'undici';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createFaultBox, type FaultBox, type FaultKind } from '../../../../infra/local/providers/faults.ts';
import {
  createVendorListener,
  lagging,
  type RecordedCall,
} from '../../../../infra/local/providers/vendor-http.ts';
import { type Ask, createAsk, createMovableClock } from './stand-in.ts';

type Operation = 'read' | 'write';

let clock: ReturnType<typeof createMovableClock>;
let faults: FaultBox<Operation>;
let calls: RecordedCall<Operation>[];
let writes: number;
let server: Server;
let dispatcher: Agent;
let ask: Ask;

beforeEach(async () => {
  clock = createMovableClock('2026-03-01T12:00:00Z');
  faults = createFaultBox<Operation>();
  calls = [];
  writes = 0;
  const listener = createVendorListener<Operation>({
    clock,
    faults,
    calls,
    route: ({ method, segments: [username] }) => ({
      operation: method === 'GET' ? 'read' : 'write',
      username,
      pretend: () => ({ status: 200, json: { writes: writes + 1 } }),
      act: async () => {
        if (method !== 'GET') writes += 1;
        return { status: 200, json: { writes } };
      },
    }),
    gate: () => undefined,
    rateLimited: (status, headers) => ({ status, headers, json: { message: 'rate limit exceeded' } }),
    headers: () => ({ 'x-vendor': 'yes' }),
    requestId: () => 'request-1',
  });
  server = createServer(listener).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  dispatcher = new Agent();
  ask = createAsk({
    base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    dispatcher,
    headers: {},
    timeoutMs: 300,
  });
});
afterEach(async () => {
  await dispatcher.destroy();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** The status and text, or what the client's error says. */
const outcome = async (): Promise<string> => {
  try {
    const { status, text } = await ask('POST', '/u');
    return `${status} ${text.trim()}`;
  } catch (error) {
    const { name, message, cause } = error as Error;
    return name === 'TimeoutError'
      ? 'timeout'
      : `broken (${(cause as Error | undefined)?.message ?? message})`;
  }
};

const cases: Record<string, { given: FaultKind; want: RegExp; writes: number }> = {
  'never answers and does nothing': { given: { kind: 'timeout-before' }, want: /^timeout$/, writes: 0 },
  'never answers and takes effect': { given: { kind: 'timeout-after-apply' }, want: /^timeout$/, writes: 1 },
  'is cut before anything happens': { given: { kind: 'reset-before' }, want: /^broken/, writes: 0 },
  'is cut after it took effect': { given: { kind: 'reset-after-apply' }, want: /^broken/, writes: 1 },
  'is answered, and the answer never ends': {
    given: { kind: 'stall-mid-body' },
    want: /^timeout$/,
    writes: 1,
  },
  'is cut in the middle of its answer': { given: { kind: 'reset-mid-body' }, want: /^broken/, writes: 1 },
  'fails without effect': {
    given: { kind: 'status', status: 503, json: { message: 'later' } },
    want: /^503 {"message":"later"}$/,
    writes: 0,
  },
  'fails and takes effect all the same': {
    given: { kind: 'status', status: 500, applied: true, text: 'oops' },
    want: /^500 oops$/,
    writes: 1,
  },
  'is answered with a web page': { given: { kind: 'html-body' }, want: /^502 <!doctype html>/, writes: 0 },
  'is answered with nothing': { given: { kind: 'empty-body' }, want: /^200 $/, writes: 1 },
  'is answered with half of its JSON': { given: { kind: 'half-json' }, want: /^200 {"writ$/, writes: 1 },
  'is answered with far too much': {
    given: { kind: 'huge-body', bytes: 100_000 },
    want: /^200 {"message":"x{100000}"}$/,
    writes: 1,
  },
  'is led elsewhere': { given: { kind: 'redirect-307' }, want: /^307 $/, writes: 0 },
  'comes too often': {
    given: { kind: 'rate-limited' },
    want: /^429 {"message":"rate limit exceeded"}$/,
    writes: 0,
  },
  'is accepted and forgotten': { given: { kind: 'pretend' }, want: /^200 {"writes":1}$/, writes: 0 },
};

describe('a call that meets a fault', () => {
  test.each(Object.entries(cases))('%s', async (_what, { given, want, writes: expected }) => {
    faults.inject({ ...given, operation: 'write' });
    expect(await outcome()).toMatch(want);
    expect(writes).toBe(expected);
    expect(calls).toMatchObject([{ operation: 'write', fault: given.kind, requestId: 'request-1' }]);
    expect(faults.pending()).toEqual([]);
  });

  test('takes effect long after the client gave up', async () => {
    faults.inject({ operation: 'write', kind: 'timeout-apply-later', ms: 90_000 });
    expect(await outcome()).toBe('timeout');
    expect(writes).toBe(0);
    clock.move(90_000);
    await expect.poll(() => writes).toBe(1);
  });

  test.each(['before', 'after'] as const)(
    'is answered late, having waited %s it took effect',
    async (when) => {
      faults.inject({ operation: 'write', kind: 'delay', ms: 1_000, when });
      const answer = outcome();
      await expect.poll(() => calls.length).toBe(1);
      expect(writes).toBe(when === 'before' ? 0 : 1);
      clock.move(1_000);
      expect(await answer).toBe('200 {"writes":1}');
    },
  );

  test('is answered what it was answered last time', async () => {
    await ask('GET', '/list');
    await ask('POST', '/u');
    faults.inject({ operation: 'read', kind: 'stale' });
    expect((await ask('GET', '/list')).json).toEqual({ writes: 0 });
    expect((await ask('GET', '/list')).json).toEqual({ writes: 1 });
  });

  test.each(['before', 'after'] as const)('sees somebody else act %s it', async (when) => {
    const seen: number[] = [];
    faults.inject({ operation: 'write', kind: 'meanwhile', when, run: async () => void seen.push(writes) });
    await ask('POST', '/u');
    expect(seen).toEqual([when === 'before' ? 0 : 1]);
  });

  const waits: Record<string, { given: number | Date | string | undefined; want: string | undefined }> = {
    seconds: { given: 7, want: '7' },
    'a date': { given: new Date('2026-03-01T12:00:07Z'), want: 'Sun, 01 Mar 2026 12:00:07 GMT' },
    nonsense: { given: 'soon', want: 'soon' },
    nothing: { given: undefined, want: undefined },
  };
  test.each(Object.entries(waits))('is told to wait by %s', async (_how, { given, want }) => {
    faults.inject({
      operation: '*',
      kind: 'rate-limited',
      status: 503,
      ...(given === undefined ? {} : { retryAfter: given }),
    });
    const { status, headers } = await ask('GET', '/list');
    expect([status, headers['retry-after'], headers['x-vendor']]).toEqual([503, want, 'yes']);
  });
});

describe('which call meets a fault', () => {
  const statuses = async (method: string, path: string, count: number): Promise<number[]> => {
    const seen: number[] = [];
    for (let call = 0; call < count; call += 1) seen.push((await ask(method, path)).status);
    return seen;
  };

  test('as many as were asked for, after as many as were to pass', async () => {
    faults.inject({ operation: 'read', kind: 'status', status: 500, skip: 1, times: 2 });
    expect(await statuses('GET', '/u', 4)).toEqual([200, 500, 500, 200]);
  });

  test('only calls of the operation and about the user that were named', async () => {
    faults.inject({ operation: 'write', username: 'u', kind: 'status', status: 500 });
    expect(await statuses('GET', '/u', 1)).toEqual([200]);
    expect(await statuses('POST', '/v', 1)).toEqual([200]);
    expect(await statuses('POST', '/u', 2)).toEqual([500, 200]);
  });

  test('none any more once the faults are cleared', async () => {
    faults.inject({ operation: '*', kind: 'status', status: 500, times: 9 });
    faults.clear();
    expect(await statuses('GET', '/u', 1)).toEqual([200]);
  });
});

describe('a fact that is learned late', () => {
  test('after so many polls', () => {
    const fact = lagging('old', clock);
    fact.set('new', { polls: 2 });
    expect([fact.latest, fact.read(), fact.read(), fact.read()]).toEqual(['new', 'old', 'old', 'new']);
  });

  test('after so much time, one change after the other', () => {
    const fact = lagging(1, clock);
    fact.set(2, { ms: 1_000 });
    fact.set(3, { ms: 2_000 });
    const before = fact.read();
    clock.move(1_000);
    const between = fact.read();
    clock.move(1_000);
    expect([before, between, fact.read()]).toEqual([1, 2, 3]);
  });
});
