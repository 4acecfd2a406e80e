import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as z from 'zod';
import type { Clock } from '../clock.ts';
import { type Rate, tokenBucket } from './token-bucket.ts';

export interface HttpApiOptions {
  readonly id: string;
  /** Twelve digits. */
  readonly account: string;
  readonly region: string;
  readonly clock: Clock;
  readonly routes: readonly HttpRoute[];
  /** For each route. @default no bound */
  readonly throttle?: Rate;
  /** Whether the function lets API Gateway in: `sourceArn` is what its permission is asked for. */
  readonly mayInvoke: (functionArn: string, sourceArn: string) => boolean | Promise<boolean>;
  readonly invoke: (
    functionArn: string,
    event: unknown,
  ) => Promise<{ readonly ok: true; readonly payload: unknown } | { readonly ok: false }>;
  /**
   * Which bodies reach the function as base64; the documents promise neither for JSON.
   * @default 'binary-types' all but texts, JSON and XML
   */
  readonly base64?: 'binary-types' | 'always';
}

export interface HttpRoute {
  /** Method and path: `POST /webhooks/render`. */
  readonly routeKey: string;
  readonly functionArn: string;
}

/** One request, as the access log has it: without headers and body. */
export interface ServedRequest {
  readonly requestId: string;
  readonly at: Date;
  readonly method: string;
  readonly path: string;
  /** Absent where no route was found. */
  readonly routeKey?: string;
  readonly status: number;
  /** Why it did not get as far as the function's answer. */
  readonly refusal?:
    | 'no-route'
    | 'throttled'
    | 'too-large'
    | 'no-permission'
    | 'function-failed'
    | 'bad-answer'
    | 'timed-out';
}

/** An HTTP API of API Gateway with its stage `$default`, on a socket of its own. */
export interface HttpApi {
  /** Stands for `https://<id>.execute-api.<region>.amazonaws.com`. */
  readonly url: string;
  readonly routes: readonly HttpRoute[];
  /** Every request that was answered, oldest first. */
  readonly served: readonly ServedRequest[];
  /** Whether a request is waiting for its answer. */
  isBusy(): boolean;
  /** Resolves as soon as one request that is waiting now was answered; at once when there is none. */
  oneEnded(): Promise<void>;
  /** Afterwards nothing listens and no connection is open. May be called again. */
  close(): Promise<void>;
}

/** API Gateway's bound on a request, and on how long it waits for a function (AWS documentation). */
const bodyLimit = 10 * 1024 * 1024;
const waitMs = 30_000;

/** What a function answers to the payload format 2.0; anything without a status is a body as a whole (AWS documentation). */
const answerSchema = z.object({
  statusCode: z.coerce.number().int().min(100).max(599),
  headers: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).default({}),
  cookies: z.array(z.string()).default([]),
  body: z.string().default(''),
  isBase64Encoded: z.boolean().default(false),
});

export async function startHttpApi({
  id,
  account,
  region,
  clock,
  routes,
  throttle,
  mayInvoke,
  invoke,
  base64 = 'binary-types',
}: HttpApiOptions): Promise<HttpApi> {
  const served: ServedRequest[] = [];
  const buckets = new Map(
    throttle === undefined ? [] : routes.map(({ routeKey }) => [routeKey, tokenBucket(clock, throttle)]),
  );
  const waiting = new Set<Promise<void>>();

  async function answer(request: IncomingMessage): Promise<Reply> {
    const { pathname, search } = new URL(request.url ?? '/', 'http://api');
    const method = request.method ?? 'GET';
    const route = routes.find(({ routeKey }) => routeKey === `${method} ${pathname}`);
    if (route === undefined) return { ...refused(404, 'Not Found'), refusal: 'no-route' };
    const { routeKey, functionArn } = route;
    // A request over the limit counts as well; the body is not read.
    if (buckets.get(routeKey)?.() === false)
      return { ...refused(429, 'Too Many Requests'), routeKey, refusal: 'throttled' };
    const body = await bodyOf(request);
    if (body === undefined)
      return { ...refused(413, 'Request Entity Too Large'), routeKey, refusal: 'too-large' };
    const sourceArn = `arn:aws:execute-api:${region}:${account}:${id}/$default/${method}${pathname}`;
    if (!(await mayInvoke(functionArn, sourceArn)))
      return { ...refused(500, 'Internal Server Error'), routeKey, refusal: 'no-permission' };
    const event = eventOf(request, { body, routeKey, pathname, search });
    const timer = Promise.withResolvers<'timed-out'>();
    const timeout = setTimeout(() => timer.resolve('timed-out'), waitMs);
    try {
      const result = await Promise.race([invoke(functionArn, event), timer.promise]);
      if (result === 'timed-out')
        return { ...refused(503, 'Service Unavailable'), routeKey, refusal: 'timed-out' };
      if (!result.ok)
        return { ...refused(500, 'Internal Server Error'), routeKey, refusal: 'function-failed' };
      return { ...replyOf(result.payload), routeKey };
    } finally {
      clearTimeout(timeout);
    }
  }

  function eventOf(
    request: IncomingMessage,
    {
      body,
      routeKey,
      pathname,
      search,
    }: { body: Buffer; routeKey: string; pathname: string; search: string },
  ): object {
    const { cookie, ...headers } = joinedHeaders(request.rawHeaders);
    const isBase64Encoded = body.length > 0 && (base64 === 'always' || !isText(headers['content-type']));
    const now = clock.now();
    const query = new URLSearchParams(search);
    const queryNames = [...new Set(query.keys())];
    return {
      version: '2.0',
      routeKey,
      rawPath: pathname,
      rawQueryString: search.slice(1),
      ...(cookie === undefined ? {} : { cookies: cookie.split(/; */) }),
      headers,
      ...(queryNames.length === 0
        ? {}
        : {
            queryStringParameters: Object.fromEntries(
              queryNames.map((name) => [name, query.getAll(name).join(',')]),
            ),
          }),
      requestContext: {
        accountId: account,
        apiId: id,
        domainName: `${id}.execute-api.${region}.amazonaws.com`,
        domainPrefix: id,
        http: {
          method: request.method,
          path: pathname,
          protocol: `HTTP/${request.httpVersion}`,
          sourceIp: request.socket.remoteAddress ?? '',
          userAgent: headers['user-agent'] ?? '',
        },
        requestId: randomUUID(),
        routeKey,
        stage: '$default',
        time: commonLogTime(now),
        timeEpoch: now.getTime(),
      },
      // Absent when there is none (AWS documentation).
      ...(body.length === 0 ? {} : { body: body.toString(isBase64Encoded ? 'base64' : 'utf8') }),
      isBase64Encoded,
    };
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const requestId = randomUUID();
    const { status, headers, body, routeKey, refusal } = await answer(request);
    served.push({
      requestId,
      at: clock.now(),
      method: request.method ?? '',
      path: (request.url ?? '').replace(/\?.*$/s, ''),
      ...(routeKey === undefined ? {} : { routeKey }),
      status,
      ...(refusal === undefined ? {} : { refusal }),
    });
    response
      .writeHead(status, { 'apigw-requestid': requestId, 'content-length': body.length, ...headers })
      .end(body);
    // The rest of a body that nobody wants.
    request.resume();
  }

  const server = createServer((request, response) => {
    // The client may have left while it was being served.
    const work: Promise<void> = serve(request, response)
      .catch(() => void response.socket?.destroy())
      .finally(() => waiting.delete(work));
    waiting.add(work);
  });
  // A connection that we close while the client is about to use it again would look like a fault.
  server.keepAliveTimeout = 0;
  const { promise: listening, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject).listen(0, '127.0.0.1', resolve);
  await listening;
  const { port } = server.address() as AddressInfo;
  let closing: Promise<void> | undefined;
  return {
    url: `http://127.0.0.1:${port}`,
    routes,
    served,
    isBusy: () => waiting.size > 0,
    async oneEnded() {
      if (waiting.size > 0) await Promise.race(waiting);
    },
    close() {
      server.closeAllConnections();
      closing ??= server[Symbol.asyncDispose]();
      return closing;
    },
  };
}

/** `01/Mar/2026:12:00:00 +0000` */
const commonLogTime = (date: Date): string => {
  const [, day, month, year, time] = date.toUTCString().split(' ');
  return `${day}/${month}/${year}:${time} +0000`;
};

interface Reply extends Pick<ServedRequest, 'status' | 'routeKey' | 'refusal'> {
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly body: Buffer;
}

/** API Gateway's own answers. */
const refused = (status: number, message: string): Reply => ({
  status,
  headers: { 'content-type': 'application/json' },
  body: Buffer.from(JSON.stringify({ message })),
});

function replyOf(payload: unknown): Reply {
  if (typeof payload !== 'object' || payload === null || !('statusCode' in payload))
    return {
      status: 200,
      headers: { 'content-type': 'application/json' },
      body: Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload ?? null)),
    };
  const parsed = answerSchema.safeParse(payload);
  if (!parsed.success) return { ...refused(500, 'Internal Server Error'), refusal: 'bad-answer' };
  const { statusCode, headers, cookies, body, isBase64Encoded } = parsed.data;
  return {
    status: statusCode,
    headers: {
      ...(body === '' ? {} : { 'content-type': 'text/plain;charset=utf-8' }),
      ...Object.fromEntries(
        Object.entries(headers).map(([name, value]) => [name.toLowerCase(), String(value)]),
      ),
      ...(cookies.length === 0 ? {} : { 'set-cookie': cookies }),
    },
    body: Buffer.from(body, isBase64Encoded ? 'base64' : 'utf8'),
  };
}

/** Names in lower case, values of one name joined by commas (AWS documentation). Node's own view drops some of the doubles. */
function joinedHeaders(raw: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = {};
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const [name, value] = [(raw[at] ?? '').toLowerCase(), raw[at + 1] ?? ''];
    headers[name] = name in headers ? `${headers[name]},${value}` : value;
  }
  return headers;
}

const isText = (contentType = ''): boolean =>
  /^(text\/|application\/(json|javascript|xml|[\w.-]+\+(json|xml))\s*(;|$))/i.test(contentType);

/** The whole body, or undefined for one that is too large. */
async function bodyOf(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  // Left open: whoever sent too much is told so.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > bodyLimit) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
