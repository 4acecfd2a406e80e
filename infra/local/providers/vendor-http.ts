import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Clock } from '../clock.ts';
import { type Answer, type Delivery, type FaultBox, meet } from './faults.ts';

/** A request as a vendor's router sees it. */
export interface VendorRequest {
  readonly method: string;
  /** As sent, without the query. */
  readonly path: string;
  /** The path's parts, percent-decoded; a trailing slash gives an empty last part. */
  readonly segments: readonly string[];
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  /** Undefined when there was none or it was not JSON. */
  readonly json: unknown;
}

/** What a stand-in does with one request. */
export interface Handling<Operation extends string> {
  readonly operation: Operation;
  /** The user that the call is about. */
  readonly username?: string | undefined;
  act(): Promise<Answer>;
  /** The answer of success, without doing anything. @default 200 without a body */
  pretend?(): Answer;
}

/** One call that reached the stand-in. Bodies are not kept as they came, for they hold passwords. */
export interface RecordedCall<Operation extends string = string> {
  readonly at: Date;
  readonly operation: Operation;
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly username?: string | undefined;
  readonly requestId: string;
  /** What a stand-in keeps of the body: fields without secrets, and digests of those with. */
  readonly body?: Readonly<Record<string, unknown>>;
  /** Header names in lower case, without `authorization`. */
  readonly headers: Readonly<Record<string, string>>;
  /** The fault it met. */
  readonly fault?: string;
  /** The status that was answered; absent when nothing was. */
  status?: number;
  /** What broke inside the stand-in, which is then at fault. */
  defect?: unknown;
}

/** Thrown by `act` to answer a failure. */
export class Refused extends Error {
  override readonly name = 'Refused';
  readonly answer: Answer;
  constructor(answer: Answer) {
    super(`answers ${answer.status}`);
    this.answer = answer;
  }
}

export interface VendorListenerOptions<Operation extends string> {
  readonly clock: Clock;
  readonly faults: FaultBox<Operation>;
  readonly calls: RecordedCall<Operation>[];
  route(request: VendorRequest): Handling<Operation>;
  /** Authentication and rate limits: an answer, or a cut connection, in place of the operation. */
  gate(request: VendorRequest, operation: Operation): Answer | 'reset' | undefined;
  /** What is recorded of a body. @default nothing */
  bodyToKeep?(request: VendorRequest): Readonly<Record<string, unknown>> | undefined;
  rateLimited(status: number, headers: Readonly<Record<string, string>>): Answer;
  /** Headers of every answer. */
  headers(request: VendorRequest, requestId: string): Readonly<Record<string, string>>;
  requestId(): string;
}

const decoded = (segment: string): string => {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
};

async function read(request: IncomingMessage): Promise<VendorRequest> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  const [path = '', search = ''] = (request.url ?? '').split('?', 2);
  let json: unknown;
  try {
    json = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    json = undefined;
  }
  return {
    method: request.method ?? '',
    path,
    segments: path.split('/').slice(1).map(decoded),
    query: new URLSearchParams(search),
    headers: request.headers,
    json,
  };
}

function send(response: ServerResponse, delivery: Delivery, base: Readonly<Record<string, string>>): void {
  if (delivery.deliver === 'nothing') return;
  if (delivery.deliver === 'reset') return void response.socket?.destroy();
  const { status, headers = {}, json, text } = delivery.answer;
  // Vendors end a JSON body with a newline (recorded at Render).
  const body = text ?? (json === undefined ? '' : `${JSON.stringify(json)}\n`);
  const isJson = json !== undefined && text === undefined;
  const all = {
    ...base,
    ...(isJson ? { 'content-type': 'application/json; charset=utf-8' } : {}),
    ...headers,
  };
  if (delivery.deliver === 'half') {
    const full = body === '' ? '{}\n' : body;
    response.writeHead(status, { ...all, 'content-length': String(Buffer.byteLength(full)) });
    response.write(full.slice(0, Math.floor(full.length / 2)), () => {
      if (delivery.rest !== 'stalled') response.socket?.destroy();
    });
    return;
  }
  response.writeHead(status, {
    ...all,
    ...(status === 204 ? {} : { 'content-length': String(Buffer.byteLength(body)) }),
  });
  response.end(body);
}

/** The listener of a vendor's host: records, authenticates, meets faults, acts, answers. */
export function createVendorListener<Operation extends string>(
  options: VendorListenerOptions<Operation>,
): RequestListener {
  const { clock, faults, calls } = options;
  const previous = new Map<string, Answer>();
  return (incoming, response) => {
    const serve = async (): Promise<void> => {
      const request = await read(incoming);
      const handling = options.route(request);
      const { operation, username } = handling;
      const requestId = options.requestId();
      const { authorization: _, ...headers } = request.headers;
      const gated = options.gate(request, operation);
      const keptBody = options.bodyToKeep?.(request);
      const fault = gated === undefined ? faults.take({ operation, username }) : undefined;
      const call: RecordedCall<Operation> = {
        at: clock.now(),
        operation,
        method: request.method,
        path: request.path,
        query: Object.fromEntries(request.query),
        username,
        requestId,
        ...(keptBody === undefined ? {} : { body: keptBody }),
        headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)])),
        ...(fault === undefined ? {} : { fault: fault.kind }),
      };
      calls.push(call);
      const key = `${request.method} ${incoming.url}`;
      const act = async (): Promise<Answer> => {
        try {
          return await handling.act();
        } catch (error) {
          if (error instanceof Refused) return error.answer;
          call.defect = error;
          return { status: 500, json: { message: `stand-in defect in ${operation}: ${String(error)}` } };
        }
      };
      const delivery: Delivery =
        gated === undefined
          ? await meet(fault, {
              act,
              pretend: () => handling.pretend?.() ?? { status: 200 },
              previous: () => previous.get(key),
              rateLimited: options.rateLimited,
              sleep: (ms) => clock.sleep(ms),
              path: request.path,
            })
          : gated === 'reset'
            ? { deliver: 'reset' }
            : { deliver: 'answer', answer: gated };
      if (delivery.deliver === 'answer' || delivery.deliver === 'half') {
        call.status = delivery.answer.status;
        if (fault === undefined && gated === undefined) previous.set(key, delivery.answer);
      }
      send(response, delivery, options.headers(request, requestId));
    };
    // The client may have left while it was being served.
    serve().catch(() => response.socket?.destroy());
  };
}

/** A budget of calls per key and window. */
export interface RateLimiter {
  /** Counts a call. */
  take(key: string): RateState;
  /** Counts nothing. */
  look(key: string): RateState;
}

export interface RateState {
  readonly limit: number;
  readonly remaining: number;
  readonly resetAt: Date;
  readonly isExceeded: boolean;
}

/** Fixed windows that start with the first call in them. `limit` is read at every call, so that it may change. */
export function createRateLimiter(options: {
  readonly clock: Clock;
  readonly windowMs: number;
  limit(): number;
}): RateLimiter {
  const windows = new Map<string, { resetAt: number; used: number }>();
  const windowOf = (key: string): { resetAt: number; used: number } => {
    const now = options.clock.now().getTime();
    const known = windows.get(key);
    if (known !== undefined && known.resetAt > now) return known;
    const fresh = { resetAt: now + options.windowMs, used: 0 };
    windows.set(key, fresh);
    return fresh;
  };
  const stateOf = ({ resetAt, used }: { resetAt: number; used: number }): RateState => ({
    limit: options.limit(),
    remaining: Math.max(0, options.limit() - used),
    resetAt: new Date(resetAt),
    isExceeded: used > options.limit(),
  });
  return {
    take(key) {
      const window = windowOf(key);
      window.used += 1;
      return stateOf(window);
    },
    look: (key) => stateOf(windowOf(key)),
  };
}

/** A fact that readers learn late: after so many reads, or so many milliseconds. @default at once */
export interface Lag {
  readonly polls?: number;
  readonly ms?: number;
}

/** A value whose changes are seen late. */
export interface Lagging<T> {
  /** What a reader sees. Counts as one poll. */
  read(): T;
  /** What is true. */
  readonly latest: T;
  set(value: T, lag?: Lag): void;
}

export function lagging<T>(initial: T, clock: Clock): Lagging<T> {
  let seen = initial;
  let coming: { value: T; polls: number; at: number }[] = [];
  return {
    read() {
      for (let next = coming[0]; next !== undefined; next = coming[0]) {
        if (next.polls > 0 || next.at > clock.now().getTime()) {
          next.polls -= 1;
          break;
        }
        seen = next.value;
        coming.shift();
      }
      return seen;
    },
    get latest() {
      return coming.at(-1)?.value ?? seen;
    },
    set(value, lag = {}) {
      const isAtOnce = lag.polls === undefined && lag.ms === undefined && coming.length === 0;
      if (isAtOnce) seen = value;
      else coming = [...coming, { value, polls: lag.polls ?? 0, at: clock.now().getTime() + (lag.ms ?? 0) }];
    },
  };
}
