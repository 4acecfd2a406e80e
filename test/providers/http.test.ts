import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { ProviderError } from '../../functions/core/errors.ts';
import { Guard } from '../../functions/core/guard.ts';
import type { HttpRequest, Ports } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import {
  failureOfStatus,
  retryAfterMs,
  undiciHttp,
  type VendorApiOptions,
  type VendorCall,
  vendorApi,
} from '../../functions/providers/http.ts';

/** A vendor on a real socket that answers what the test says and keeps what it was asked. */
const asked: { method: string; url: string; headers: Record<string, unknown>; body: string }[] = [];
let respond: RequestListener = (_request, response) => response.end('{}');
let port = 0;
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    asked.push({
      method: request.method ?? '',
      url: request.url ?? '',
      headers: request.headers,
      body: Buffer.concat(chunks).toString(),
    });
    respond(request, response);
  });
});

beforeEach(async () => {
  asked.length = 0;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  port = (server.address() as AddressInfo).port;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

const apiKey = new Sensitive('rnd_canaryKEY0123456789');
const start = new Date('2026-03-01T12:00:00Z');

function client(
  overrides: Partial<Pick<VendorApiOptions, 'until' | 'failureOf' | 'secrets' | 'keyRenewal'>> & {
    http?: Ports['http'];
  } = {},
) {
  const waits: number[] = [];
  let now = start.getTime();
  const api = vendorApi(
    {
      provider: 'acme',
      baseUrl: `http://127.0.0.1:${port}/v1`,
      apiKey,
      requestIdHeader: 'acme-request-id',
      failureOf: overrides.failureOf ?? failureOfStatus,
      ...(overrides.secrets === undefined ? {} : { secrets: overrides.secrets }),
      keyRenewal: overrides.keyRenewal,
      until: overrides.until ?? new Date('2026-03-01T12:10:00Z'),
    },
    {
      http: overrides.http ?? undiciHttp({}),
      now: async () => new Date(now),
      sleep: async (ms) => {
        waits.push(ms);
        now += ms;
      },
      randomBytes: async (size) => new Uint8Array(size),
    },
  );
  return { api, waits };
}

type Overrides = Partial<Omit<VendorCall<unknown>, 'method' | 'guard' | 'isDestructive' | 'isRead'>>;
const question = { operation: 'listUsers', path: ['users'], answer: z.unknown() };

const call = (overrides: Overrides = {}): VendorCall<unknown> => ({
  ...question,
  method: 'GET',
  ...overrides,
});
const holding = Guard.of();
const change = (
  method: Exclude<HttpRequest['method'], 'GET'>,
  overrides: Overrides & { readonly isDestructive?: boolean; readonly guard?: Guard } = {},
): VendorCall<unknown> => ({ ...question, method, guard: holding, isDestructive: false, ...overrides });

const failure = async (promise: Promise<unknown>): Promise<ProviderError> => {
  const error = await promise.catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ProviderError);
  return error as ProviderError;
};

const answers = (...list: { status: number; headers?: Record<string, string>; body?: string }[]): void => {
  let next = 0;
  respond = (_request, response) => {
    const answer = list[Math.min(next, list.length - 1)];
    next += 1;
    response.writeHead(answer?.status ?? 500, answer?.headers ?? {});
    response.end(answer?.body ?? '');
  };
};

describe('the way to a vendor', () => {
  test('sends the key, the query and a body, and hands on what the vendor answered', async () => {
    answers({ status: 200, body: '{"name":"u","extra":1}\n' });
    const { api } = client();
    const answer = await api.call({
      ...change('POST', {
        path: ['users'],
        query: { page: 'a&b' },
        body: { name: 'u', password: new Sensitive('p"w') },
      }),
      answer: z.object({ name: z.string() }),
    });
    expect(answer).toEqual({ name: 'u' });
    expect(asked).toMatchObject([
      { method: 'POST', url: '/v1/users?page=a%26b', body: '{"name":"u","password":"p\\"w"}' },
    ]);
    expect(asked[0]?.headers['authorization']).toBe('Bearer rnd_canaryKEY0123456789');
  });

  test.each([
    '..',
    '.',
    '',
    'a/b',
    'a\\b',
    '%2e%2e',
    '.%2e',
    'a%2fb',
    '\t..',
    '..\n',
    'a?b',
    'a#b',
    'ä',
    'a b',
    'a;b',
    '-x',
  ])('never sends a request for a user named %j', async (name) => {
    const error = await failure(client().api.call(change('DELETE', { path: ['users', name] })));
    expect([error.code, error.effect, asked.length]).toEqual(['NAME_REFUSED', 'none', 0]);
  });

  test('addresses exactly the segments it was given, or nothing, for every text there is', async () => {
    const paths: string[] = [];
    const { api } = client({
      http: async ({ url }) => {
        paths.push(url.pathname);
        return { status: 200, headers: {}, body: new Sensitive('{}') };
      },
    });
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 12 }), async (name) => {
        paths.length = 0;
        await api.call(change('DELETE', { path: ['users', name] })).catch(() => undefined);
        for (const path of paths) expect(path).toBe(`/v1/users/${name}`);
      }),
      { numRuns: 2_000 },
    );
  });

  test('does not follow a redirect, which would carry a password to another host', async () => {
    answers({ status: 307, headers: { location: `http://127.0.0.1:${port}/elsewhere` } });
    const error = await failure(
      client().api.call(change('PUT', { body: { password: new Sensitive('secretsecret') } })),
    );
    expect(error.message).toContain('a redirect, which is never followed');
    expect(asked).toHaveLength(1);
  });

  test('keeps the vendor’s request id and status in the error', async () => {
    answers({ status: 400, headers: { 'Acme-Request-Id': 'r-1' }, body: '{"message":"no such plan"}' });
    const { facts, message } = await failure(client().api.call(change('POST')));
    expect(facts).toEqual({
      code: 'REJECTED',
      effect: 'none',
      provider: 'acme',
      operation: 'listUsers',
      status: 400,
      requestId: 'r-1',
    });
    expect(message).toBe('REJECTED: acme failed listUsers: got status 400 (no such plan)');
  });

  test('lets no key or password through an error, in whatever spelling the vendor echoes it', async () => {
    const password = 'Kq7"/+&pass-word';
    const echo = JSON.stringify(
      JSON.stringify({
        password,
        basic: Buffer.from(`u:${password}`).toString('base64'),
        key: apiKey.reveal(),
      }),
    );
    answers({ status: 400, body: `{"message":${echo}}` });
    const { message } = await failure(
      client().api.call(change('PUT', { body: { password: new Sensitive(password) } })),
    );
    expect(message).toContain('‹redacted›');
    expect(message).not.toMatch(/Kq7|canaryKEY/);
    expect(message).not.toContain(Buffer.from(password).toString('base64').slice(2, 12));
  });

  test('cuts a vendor’s text and escapes its control characters, so that it cannot forge a log line', async () => {
    answers({
      status: 400,
      body: JSON.stringify({ message: `x\n{"level":"INFO"}\u001b[31m${'y'.repeat(5_000)}` }),
    });
    const { message } = await failure(client().api.call(change('POST')));
    for (const control of ['\n', '\u001b']) expect(message).not.toContain(control);
    expect(message.length).toBeLessThan(400);
  });

  const writes: Record<string, { status: number; body?: string; want: string }> = {
    'a 401 did nothing': { status: 401, want: 'UNAUTHORIZED none' },
    'a 403 did nothing, and is never "not found"': { status: 403, want: 'UNAUTHORIZED none' },
    'a 404 did nothing': { status: 404, want: 'NOT_FOUND none' },
    'a 409 did nothing': { status: 409, want: 'CONFLICT none' },
    'a 406 did nothing': { status: 406, want: 'REJECTED none' },
    'a 408 may have been applied': { status: 408, want: 'UNAVAILABLE unknown' },
    'a 499 may have been applied': { status: 499, want: 'UNAVAILABLE unknown' },
    'a 500 may have been applied': { status: 500, want: 'UNAVAILABLE unknown' },
    'a 503 may have been applied': { status: 503, body: '<html>', want: 'UNAVAILABLE unknown' },
    'a success that cannot be read may have been applied': {
      status: 200,
      body: '<html>',
      want: 'UNREADABLE unknown',
    },
  };
  test.each(Object.entries(writes))('says of a write: %s', async (_sentence, { status, body, want }) => {
    answers({ status, body: body ?? '{}' });
    const answer = z.object({ name: z.string() });
    const error = await failure(client().api.call({ ...change('POST'), answer }));
    expect(`${error.code} ${error.effect}`).toBe(want);
    expect(asked).toHaveLength(1);
  });

  test('repeats a read that failed, as reading changes nothing', async () => {
    answers({ status: 503 }, { status: 500 }, { status: 200, body: '{}' });
    const { api, waits } = client();
    await api.call(call());
    expect(waits).toEqual([500, 1000]);
  });

  test('repeats a read by POST as well, and says that it changed nothing', async () => {
    answers({ status: 503 }, { status: 200, body: '{}' });
    const { api, waits } = client();
    await api.call({ ...question, body: {}, method: 'POST', isRead: true });
    expect(waits).toEqual([500]);
    expect(asked.map(({ method, body }) => `${method} ${body}`)).toEqual(['POST {}', 'POST {}']);
    answers({ status: 500 });
    expect((await failure(api.call({ ...question, body: {}, method: 'POST', isRead: true }))).effect).toBe(
      'none',
    );
  });

  test('keeps the number by which the vendor names a failure, and no other secret that it was told of', async () => {
    answers({ status: 200, body: '{"code":4711,"message":"no canary-canary-canary"}' });
    const { api } = client({
      secrets: [new Sensitive('canary-canary-canary')],
      failureOf: ({ json }) => ({
        code: 'REJECTED',
        effect: 'none',
        vendorCode: 4711,
        message: (json as { message: string }).message,
      }),
    });
    const error = await failure(api.call(call()));
    expect(error.facts).toMatchObject({ code: 'REJECTED', vendorCode: 4711, status: 200 });
    expect(error.message).toContain('(no ‹redacted›)');
  });

  const limits: Record<string, { headers: Record<string, string>; waits: number[] }> = {
    'in seconds': { headers: { 'retry-after': '7' }, waits: [7000] },
    'as a date': { headers: { 'retry-after': 'Sun, 01 Mar 2026 12:00:09 GMT' }, waits: [9000] },
    'that is absent by waiting a little longer each time': { headers: {}, waits: [500] },
    'that is unreadable likewise': { headers: { 'retry-after': 'soon' }, waits: [500] },
  };
  test.each(Object.entries(limits))(
    'obeys a Retry-After %s, for writes too',
    async (_form, { headers, waits: want }) => {
      answers(
        { status: 429, headers, body: '{"message":"rate limit exceeded"}' },
        { status: 200, body: '{}' },
      );
      const { api, waits } = client();
      await api.call(change('POST'));
      expect(waits).toEqual(want);
    },
  );

  test('does not wait out an absurd Retry-After, but says how long the vendor asked for', async () => {
    answers({ status: 429, headers: { 'retry-after': '86400' } });
    const { api, waits } = client();
    const error = await failure(api.call(change('POST')));
    expect([error.code, error.effect, error.facts.retryAfterMs, waits]).toEqual([
      'RATE_LIMITED',
      'none',
      86_400_000,
      [],
    ]);
  });

  test('starts no call when the invocation has no time left', async () => {
    const error = await failure(client({ until: start }).api.call(change('POST')));
    expect([error.effect, asked.length]).toEqual(['none', 0]);
  });

  test('stops reading an answer that never ends', async () => {
    respond = (_request, response) => {
      response.writeHead(200);
      const push = (): void => {
        while (response.write('x'.repeat(65_536)));
        response.once('drain', push);
      };
      push();
    };
    const error = await failure(client().api.call(change('POST')));
    expect(error.message).toContain('an answer of more than 1048576 bytes');
    expect(error.effect).toBe('unknown');
  });

  test('calls a reset in mid-body unclear', async () => {
    respond = (request, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('{"na', () => request.socket.destroy());
    };
    const error = await failure(client().api.call(change('POST')));
    expect([error.code, error.effect]).toEqual(['UNAVAILABLE', 'unknown']);
  });

  test('calls a time-out unclear', async () => {
    respond = () => undefined;
    const error = await failure(client().api.call(change('POST', { timeoutMs: 100 })));
    expect([error.effect, error.message]).toEqual([
      'unknown',
      'UNAVAILABLE: acme failed listUsers (no answer in time); it is tried again; nothing is lost',
    ]);
  });

  test('knows that a refused connection sent nothing, and tries again', async () => {
    const dead = vendorApi(
      {
        provider: 'acme',
        baseUrl: 'http://127.0.0.1:1/v1',
        apiKey,
        failureOf: failureOfStatus,
        until: new Date(Date.now() + 60_000),
      },
      {
        http: undiciHttp({}),
        now: async () => new Date(),
        sleep: async () => undefined,
        randomBytes: async (size) => new Uint8Array(size),
      },
    );
    expect((await failure(dead.call(change('POST')))).effect).toBe('none');
  });
});

test.each([
  [{ 'retry-after': '0' }, 0],
  [{ 'retry-after': '1.5' }, 1500],
  [{ 'retry-after': 'Sun, 01 Mar 2026 11:00:00 GMT' }, 0],
  [{ 'retry-after': '' }, undefined],
  [{}, undefined],
])('the wait in %j is %s ms', (headers, want) => {
  expect(retryAfterMs(headers as Record<string, string>, start)).toBe(want);
});

describe('a change', () => {
  const tooMany = { status: 429, headers: { 'retry-after': '7' } };

  test('without its reasons does not compile', () => {
    const { api } = client();
    const changes = () => [
      // @ts-expect-error a POST that is no read says why it is sent
      api.call({ ...question, method: 'POST' }),
      // @ts-expect-error a PUT says why it is sent
      api.call({ ...question, method: 'PUT', isDestructive: true }),
      // @ts-expect-error a DELETE is never a read
      api.call({ ...question, method: 'DELETE', isRead: true }),
      // @ts-expect-error a change says whether it can do damage
      api.call({ ...question, method: 'POST', guard: holding }),
      // @ts-expect-error a GET changes nothing, so it has no reasons
      api.call({ ...question, method: 'GET', guard: holding, isDestructive: false }),
    ];
    expect(changes).toBeTypeOf('function');
  });

  test('passes its reasons on with every request, and a read says that it only reads', async () => {
    const guards: unknown[] = [];
    const http: Ports['http'] = async (request) => {
      guards.push(request.guard);
      return { status: guards.length === 1 ? 429 : 200, headers: {}, body: new Sensitive('{}') };
    };
    const { api } = client({ http });
    await api.call(change('POST'));
    await api.call(call());
    await api.call({ ...question, method: 'POST', isRead: true });
    expect(guards).toEqual([holding, holding, 'reads-only', 'reads-only']);
  });

  test('that can do damage never waits for a rate limit, any other does', async () => {
    answers(tooMany, { status: 200, body: '{}' });
    const { api, waits } = client();
    await api.call(change('POST'));
    expect(waits).toEqual([7_000]);
    answers(tooMany);
    const error = await failure(api.call(change('DELETE', { isDestructive: true })));
    expect([error.code, error.effect, error.facts.retryAfterMs]).toEqual(['RATE_LIMITED', 'none', 7_000]);
    expect([waits, asked.length]).toEqual([[7_000], 3]);
  });

  test('whose reasons are gone is not sent, and that is no failure of the vendor', async () => {
    const gone = Guard.of(async () => 'a label moved');
    const http: Ports['http'] = async (request) => {
      if (request.guard instanceof Guard) await request.guard.ask(start);
      throw new Error('it was sent');
    };
    const end = await client({ http })
      .api.call(change('DELETE', { isDestructive: true, guard: gone }))
      .catch((thrown: unknown) => thrown);
    expect(end).toMatchObject({ name: 'RotationRefused', code: 'SUPERSEDED' });
  });
});

describe('a key that the vendor refuses', () => {
  const stored = new Sensitive('rnd_canaryRENEWED0123456789');
  const refused = { status: 401, body: '{}' };
  /** What a visit knows of its key: another one is stored by now, or the same. */
  const renewal = (answer: Sensitive | undefined) => {
    const state: { renewed: Sensitive | undefined; asked: string[] } = { renewed: undefined, asked: [] };
    const keyRenewal = {
      get renewed() {
        return state.renewed;
      },
      async renew(key: Sensitive) {
        state.asked.push(key.reveal());
        state.renewed = answer;
        return answer !== undefined;
      },
    };
    return { state, keyRenewal };
  };
  const keysSent = () => asked.map(({ headers }) => headers['authorization']);

  test('is renewed once, and the refused call is sent again with the new one, as are all after it', async () => {
    answers(refused, { status: 200, body: '{}' }, { status: 200, body: '{}' });
    const { keyRenewal, state } = renewal(stored);
    const { api } = client({ keyRenewal });
    await api.call(change('DELETE', { isDestructive: true }));
    await api.call({ ...question, method: 'GET' });
    expect(state.asked).toEqual([apiKey.reveal()]);
    expect(keysSent()).toEqual([apiKey, stored, stored].map((key) => `Bearer ${key.reveal()}`));
  });

  test('is final where the stored one is the same, or is refused as well', async () => {
    answers(refused);
    expect(await failure(client(renewal(undefined)).api.call(change('POST')))).toMatchObject({
      code: 'UNAUTHORIZED',
    });
    expect(asked).toHaveLength(1);
    answers(refused, refused, refused);
    expect(await failure(client(renewal(stored)).api.call(change('POST')))).toMatchObject({
      code: 'UNAUTHORIZED',
    });
    expect(asked).toHaveLength(3);
  });

  test('is not renewed where the refused call may have changed something', async () => {
    answers({ status: 500, body: '{}' });
    const { keyRenewal, state } = renewal(stored);
    const failureOf: VendorApiOptions['failureOf'] = () => ({ code: 'UNAUTHORIZED', effect: 'unknown' });
    expect(await failure(client({ keyRenewal, failureOf }).api.call(change('POST')))).toMatchObject({
      effect: 'unknown',
    });
    expect(state.asked).toEqual([]);
    expect(asked).toHaveLength(1);
  });

  test('asks its reasons again before it is sent again', async () => {
    answers(refused, { status: 200, body: '{}' });
    let looks = 0;
    const once = Guard.of(async () => (looks++ === 0 ? undefined : 'a label moved'));
    const send = undiciHttp({});
    const http: Ports['http'] = async (request) => {
      if (request.guard instanceof Guard) await request.guard.ask(new Date(start.getTime() + looks * 10_000));
      return send(request);
    };
    const { keyRenewal } = renewal(stored);
    const end = await client({ http, keyRenewal })
      .api.call(change('POST', { guard: once }))
      .catch((thrown: unknown) => thrown);
    expect(end).toMatchObject({ code: 'SUPERSEDED' });
    expect(asked).toHaveLength(1);
  });
});
