import { request } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type HttpApi, type HttpApiOptions, startHttpApi } from '../../../../infra/local/aws/http-api.ts';
import { createMovableClock } from '../providers/stand-in.ts';

const functionArn = 'arn:aws:lambda:eu-central-1:123456789012:function:rekey-receive-webhook';

/** An API with one route, and what its function was given; it answers what `answer` says. */
async function start(
  answer: (event: unknown) => unknown = () => ({ statusCode: 200 }),
  options: Partial<HttpApiOptions> = {},
): Promise<{ api: HttpApi; events: unknown[]; clock: ReturnType<typeof createMovableClock> }> {
  const events: unknown[] = [];
  const clock = createMovableClock('2026-03-01T12:00:00Z');
  const api = await startHttpApi({
    id: 'a1b2c3d4e5',
    account: '123456789012',
    region: 'eu-central-1',
    clock,
    routes: [{ routeKey: 'POST /webhooks/render', functionArn }],
    mayInvoke: () => true,
    invoke: async (_functionArn, event) => {
      events.push(event);
      return { ok: true, payload: await answer(event) };
    },
    ...options,
  });
  onTestFinished(() => api.close());
  return { api, events, clock };
}

type Headers = Readonly<Record<string, string | string[]>>;
async function post(
  api: HttpApi,
  body: Buffer | string,
  headers: Headers = { 'content-type': 'application/json' },
  path = '/webhooks/render',
  method = 'POST',
): Promise<{ status: number | undefined; headers: Readonly<Record<string, unknown>>; body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<Awaited<ReturnType<typeof post>>>();
  request(
    `${api.url}${path}`,
    { method, headers: { 'user-agent': 'render', ...headers }, agent: false },
    (response) => {
      text(response).then(
        (read) => resolve({ status: response.statusCode, headers: response.headers, body: read }),
        reject,
      );
    },
  )
    .on('error', reject)
    .end(body);
  return promise;
}
const sent = ([event]: unknown[]) =>
  event as { body?: string; isBase64Encoded: boolean; headers: Record<string, string> };

describe('a request', () => {
  test('reaches the function in the payload format 2.0', async () => {
    const { api, events } = await start();
    expect(await post(api, '{"a": 1}')).toMatchObject({ status: 200, body: '' });
    const host = api.url.replace('http://', '');
    expect(events).toEqual([
      {
        version: '2.0',
        routeKey: 'POST /webhooks/render',
        rawPath: '/webhooks/render',
        rawQueryString: '',
        headers: {
          'content-type': 'application/json',
          'user-agent': 'render',
          'content-length': '8',
          host,
          connection: 'close',
        },
        requestContext: {
          accountId: '123456789012',
          apiId: 'a1b2c3d4e5',
          domainName: 'a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com',
          domainPrefix: 'a1b2c3d4e5',
          http: {
            method: 'POST',
            path: '/webhooks/render',
            protocol: 'HTTP/1.1',
            sourceIp: '127.0.0.1',
            userAgent: 'render',
          },
          requestId: expect.any(String),
          routeKey: 'POST /webhooks/render',
          stage: '$default',
          time: '01/Mar/2026:12:00:00 +0000',
          timeEpoch: 1772366400000,
        },
        body: '{"a": 1}',
        isBase64Encoded: false,
      },
    ]);
  });

  test('has its header names in lower case, and one header that came twice joined by a comma', async () => {
    const { api, events } = await start();
    await post(api, '{}', {
      'Content-Type': 'application/json',
      'WEBHOOK-Id': ['evt-1', 'evt-2'],
      'User-Agent': ['a', 'b'],
    });
    expect(sent(events).headers).toMatchObject({ 'webhook-id': 'evt-1,evt-2' });
    expect(Object.keys(sent(events).headers).filter((name) => name !== name.toLowerCase())).toEqual([]);
  });

  test('has its cookies and its query apart', async () => {
    const { api, events } = await start();
    await post(
      api,
      '{}',
      { cookie: 'a=1; b=2', 'content-type': 'application/json' },
      '/webhooks/render?x=1&x=2&y=',
    );
    expect(events).toMatchObject([
      { rawQueryString: 'x=1&x=2&y=', queryStringParameters: { x: '1,2', y: '' }, cookies: ['a=1', 'b=2'] },
    ]);
    expect(sent(events).headers).not.toHaveProperty('cookie');
  });

  const kinds: Record<string, { contentType: string | undefined; want: boolean }> = {
    'JSON stays a text': { contentType: 'application/json', want: false },
    'JSON with a character set stays a text': { contentType: 'application/json; charset=utf-8', want: false },
    'plain text stays a text': { contentType: 'text/plain', want: false },
    'a JSON dialect stays a text': { contentType: 'application/cloudevents+json', want: false },
    'bytes become base64': { contentType: 'application/octet-stream', want: true },
    'a body without a type becomes base64': { contentType: undefined, want: true },
  };
  test.each(Object.entries(kinds))('whose body is %s', async (_sentence, { contentType, want }) => {
    const { api, events } = await start();
    await post(api, '{"a":"ü"}', contentType === undefined ? {} : { 'content-type': contentType });
    expect(sent(events)).toMatchObject({
      isBase64Encoded: want,
      body: want ? 'eyJhIjoiw7wifQ==' : '{"a":"ü"}',
    });
  });

  test('may come with base64 whatever its type', async () => {
    const { api, events } = await start(undefined, { base64: 'always' });
    await post(api, '{"a":"ü"}');
    expect(sent(events)).toMatchObject({ isBase64Encoded: true, body: 'eyJhIjoiw7wifQ==' });
  });

  test('without a body has none', async () => {
    const { api, events } = await start();
    await post(api, '');
    expect(sent(events)).not.toHaveProperty('body');
    expect(sent(events).isBase64Encoded).toBe(false);
  });

  test('is busy until it is answered', async () => {
    const answering = Promise.withResolvers<object>();
    const { api, events } = await start(() => answering.promise);
    const asked = post(api, '{}');
    await expect.poll(() => events.length).toBe(1);
    expect(api.isBusy()).toBe(true);
    const ended = api.oneEnded();
    answering.resolve({ statusCode: 204 });
    await ended;
    expect(api.isBusy()).toBe(false);
    expect(await asked).toMatchObject({ status: 204 });
  });
});

describe('an answer', () => {
  const cases: Record<string, { answer: unknown; want: object }> = {
    'with a status and no body is passed on': {
      answer: { statusCode: 401 },
      want: { status: 401, body: '' },
    },
    'with headers and a body is passed on': {
      answer: { statusCode: 200, headers: { 'Retry-After': 5 }, body: 'hello' },
      want: { status: 200, body: 'hello', headers: { 'retry-after': '5' } },
    },
    'in base64 is decoded': {
      answer: { statusCode: 200, body: 'aGVsbG8=', isBase64Encoded: true },
      want: { status: 200, body: 'hello' },
    },
    'without a status is the body as JSON': {
      answer: { hello: 'world' },
      want: { status: 200, body: '{"hello":"world"}', headers: { 'content-type': 'application/json' } },
    },
    'that is not understood is a failure': {
      answer: { statusCode: 'often' },
      want: { status: 500, body: '{"message":"Internal Server Error"}' },
    },
  };
  test.each(Object.entries(cases))('%s', async (_sentence, { answer, want }) => {
    const { api } = await start(() => answer);
    expect(await post(api, '{}')).toMatchObject(want);
  });

  test('of a function that failed is 500, and says nothing about it', async () => {
    const { api } = await start(undefined, { invoke: async () => ({ ok: false }) });
    expect(await post(api, '{}')).toMatchObject({ status: 500, body: '{"message":"Internal Server Error"}' });
    expect(api.served).toMatchObject([{ status: 500, refusal: 'function-failed' }]);
  });
});

describe('does not reach the function', () => {
  test('on another path or with another method', async () => {
    const { api, events } = await start();
    for (const [path, method] of [
      ['/webhooks/render/', 'POST'],
      ['/webhooks', 'POST'],
      ['/webhooks/render', 'GET'],
    ] as const)
      expect(await post(api, '', {}, path, method)).toMatchObject({
        status: 404,
        body: '{"message":"Not Found"}',
      });
    expect(events).toEqual([]);
  });

  test('when the function does not let this route in', async () => {
    const asked: unknown[] = [];
    const { api, events } = await start(undefined, {
      mayInvoke: (...given) => {
        asked.push(given);
        return false;
      },
    });
    expect(await post(api, '{}')).toMatchObject({ status: 500, body: '{"message":"Internal Server Error"}' });
    expect(asked).toEqual([
      [functionArn, 'arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/$default/POST/webhooks/render'],
    ]);
    expect(events).toEqual([]);
  });

  test('beyond the burst, until time has passed', async () => {
    const { api, events, clock } = await start(undefined, { throttle: { ratePerSecond: 5, burst: 3 } });
    const statuses = async (count: number) => {
      const seen = [];
      for (let at = 0; at < count; at += 1) seen.push((await post(api, '{}')).status);
      return seen;
    };
    expect(await statuses(5)).toEqual([200, 200, 200, 429, 429]);
    clock.move(400);
    expect(await statuses(3)).toEqual([200, 200, 429]);
    clock.move(3_600_000);
    expect(await statuses(4)).toEqual([200, 200, 200, 429]);
    expect(await post(api, '{}')).toMatchObject({ status: 429, body: '{"message":"Too Many Requests"}' });
    expect(events).toHaveLength(8);
  });

  test('with more than 10 MB', async () => {
    const { api, events } = await start();
    const over = Buffer.alloc(10 * 1024 * 1024 + 1, 'x');
    expect(await post(api, over)).toMatchObject({
      status: 413,
      body: '{"message":"Request Entity Too Large"}',
    });
    expect(await post(api, over.subarray(1))).toMatchObject({ status: 200 });
    expect(events).toHaveLength(1);
  });
});

test('the log of requests has no header and no body', async () => {
  const { api } = await start();
  await post(api, 'a secret body', { 'webhook-signature': 'v1,a-signature' }, '/webhooks/render?x=query');
  expect(api.served).toEqual([
    {
      requestId: expect.any(String),
      at: new Date('2026-03-01T12:00:00Z'),
      method: 'POST',
      path: '/webhooks/render',
      routeKey: 'POST /webhooks/render',
      status: 200,
    },
  ]);
});

test('closing ends what is open', async () => {
  const { api } = await start(() => new Promise(() => {}));
  const { port } = new URL(api.url);
  const socket = connect(Number(port), '127.0.0.1');
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => {});
  socket.write('POST /webhooks/render HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe');
  await expect.poll(() => api.isBusy()).toBe(true);
  await api.close();
  await closed;
  await expect(post(api, '{}')).rejects.toThrow('ECONNREFUSED');
});
