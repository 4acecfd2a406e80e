import type { Dispatcher } from 'undici';
import { type Effect, type ProviderCode, ProviderError } from '../core/errors.ts';
import { faults } from '../core/faults.ts';
import type { Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { type HttpRequest, type HttpResponse, type Ports, TransportError } from '../core/ports.ts';
import type { KeyRenewal } from '../core/provider.ts';
import type { Schema } from '../core/schema.ts';
import { createRedactor, Sensitive } from '../core/sensitive.ts';
import { Agent, ProxyAgent, request } from './undici.ts';

/**
 * The one way to a vendor's API. Base URLs are constants of the providers, or data that a provider has checked; what else
 * varies is path segments from an allow-list, query values and a JSON body. Redirects are never followed: the bodies hold
 * passwords.
 */
export interface VendorApi {
  call<Answer>(call: VendorCall<Answer>): Promise<Answer>;
}

export type VendorCall<Answer> = VendorQuestion<Answer> & (VendorRead | VendorChange);

/** A POST that changes nothing says so. */
type VendorRead = { readonly guard?: undefined } & (
  | { readonly method: 'GET' }
  | { readonly method: 'POST'; readonly isRead: true }
);

interface VendorChange extends Change {
  readonly method: Exclude<HttpRequest['method'], 'GET'>;
}

/** Why a change may leave, and whether it may wait for a rate limit. */
export interface Change {
  /** The reasons for the change, read again right before each time it is sent. */
  readonly guard: Guard;
  /**
   * Deletes something, or puts something else in the place of what works now, such as a password. Such a call never waits for a
   * rate limit: it fails with RATE_LIMITED, and the next pass goes on.
   */
  readonly isDestructive: boolean;
}

interface VendorQuestion<Answer> {
  /** For errors and logs, in our words: `createUser`. */
  readonly operation: string;
  /** Below the base URL. A name that could address anything but itself is refused before a request is made. */
  readonly path: readonly string[];
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: Readonly<Record<string, string | Sensitive | readonly string[]>>;
  /** What a success looks like; unknown fields are ignored. */
  readonly answer: Schema<Answer>;
  /** Where the vendor answers with plain text. */
  readonly as?: 'text';
  /** Where the vendor is known to be slower than 15 s. */
  readonly timeoutMs?: number;
}

/** With what and until when an API is called. */
export interface ApiAccess {
  /** Sent as the bearer token. */
  readonly apiKey: Sensitive;
  /** If the vendor refuses the key and another one is stored by now, the call is sent once more with that one. */
  readonly keyRenewal?: KeyRenewal | undefined;
  /** No wait goes past this instant. */
  readonly until: Date;
}

export interface VendorApiOptions extends ApiAccess {
  readonly provider: string;
  readonly baseUrl: string;
  /** What else no error may repeat. */
  readonly secrets?: readonly Sensitive[];
  readonly headers?: Readonly<Record<string, string>>;
  /** The header in which the vendor names its own request id, lower case. */
  readonly requestIdHeader?: string;
  /** The vendor's failures in our words; undefined when `response` is a success. */
  readonly failureOf: (response: VendorResponse, now: Date) => VendorFailure | undefined;
}

export interface VendorResponse {
  readonly method: HttpRequest['method'];
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Undefined when the body was empty or not JSON. */
  readonly json: unknown;
}

export interface VendorFailure {
  readonly code: ProviderCode;
  readonly effect: Effect;
  readonly vendorCode?: number | undefined;
  /** The vendor's own words; scrubbed and cut before they go anywhere. */
  readonly message?: string | undefined;
  readonly retryAfterMs?: number | undefined;
}

const maxBodyBytes = 1_048_576;
const segmentPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;
const advice: Readonly<Partial<Record<ProviderCode, string>>> = {
  UNAUTHORIZED: 'store a valid API key with the rights README.md names',
  RATE_LIMITED: 'it is tried again; other tools may be using up the limit of the same key',
  UNAVAILABLE: 'it is tried again; nothing is lost',
  NOT_FOUND: 'check the target in the spec and the rights of the API key',
  UNREADABLE: 'the vendor changed its answers: report it with the request id',
};

export function vendorApi(
  options: VendorApiOptions,
  { http, now, sleep, randomBytes }: Pick<Ports, 'http' | 'now' | 'sleep' | 'randomBytes'>,
): VendorApi {
  const { provider, failureOf, until, requestIdHeader } = options;
  const redactor = createRedactor();
  for (const secret of [options.apiKey, ...(options.secrets ?? [])]) redactor.learn(secret);

  async function once<Answer>(
    call: VendorCall<Answer>,
    url: URL,
    body: Sensitive | undefined,
    apiKey: Sensitive,
  ): Promise<Answer> {
    const { operation, method } = call;
    const fail = (
      failure: VendorFailure & { status?: number; requestId?: string | undefined },
      cause?: unknown,
    ) => {
      const said = failure.message === undefined ? '' : ` (${quoted(redactor.scrub(failure.message))})`;
      const status = failure.status === undefined ? '' : `: got status ${failure.status}`;
      const advised = advice[failure.code];
      return new ProviderError(
        `${provider} failed ${operation}${status}${said}${advised === undefined ? '' : `; ${advised}`}`,
        {
          code: failure.code,
          effect: call.guard === undefined ? 'none' : failure.effect,
          provider,
          operation,
          ...(failure.status === undefined ? {} : { status: failure.status }),
          ...(failure.vendorCode === undefined ? {} : { vendorCode: failure.vendorCode }),
          ...(failure.requestId === undefined ? {} : { requestId: failure.requestId }),
          ...(failure.retryAfterMs === undefined ? {} : { retryAfterMs: failure.retryAfterMs }),
        },
        cause === undefined ? {} : { cause },
      );
    };

    const remaining = until.getTime() - (await now()).getTime();
    if (remaining <= 0)
      throw fail({ code: 'UNAVAILABLE', effect: 'none', message: 'no time left in this invocation' });
    let response: HttpResponse;
    try {
      response = await http({
        method,
        url,
        headers: {
          ...options.headers,
          accept: 'application/json',
          authorization: new Sensitive(`Bearer ${apiKey.reveal()}`),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body }),
        timeoutMs: Math.min(call.timeoutMs ?? 15_000, remaining),
        maxBodyBytes,
        guard: call.guard ?? 'reads-only',
      });
    } catch (error) {
      if (!(error instanceof TransportError)) throw error;
      throw fail(
        { code: 'UNAVAILABLE', effect: error.sent ? 'unknown' : 'none', message: error.message },
        error,
      );
    }

    const { status } = response;
    const requestId = requestIdHeader === undefined ? undefined : response.headers[requestIdHeader];
    const json = jsonOf(response.body.reveal());
    const failure = failureOf({ method, status, headers: response.headers, json }, await now());
    if (failure !== undefined) throw fail({ ...failure, status, requestId });
    const answer = call.answer.safeParse(call.as === 'text' ? response.body.reveal() : json);
    // The zod issues name fields, not values; no cause is kept, as it could hold the input.
    if (!answer.success)
      throw fail({ code: 'UNREADABLE', effect: 'unknown', message: faults(answer.error), status, requestId });
    return answer.data;
  }

  return {
    async call(call) {
      const url = urlOf(provider, options.baseUrl, call);
      for (const value of Object.values(call.body ?? {}))
        if (value instanceof Sensitive) redactor.learn(value);
      const body = call.body === undefined ? undefined : serialized(call.body);
      let isKeyRenewed = false;
      for (let attempt = 0; ; attempt += 1) {
        const apiKey = options.keyRenewal?.renewed ?? options.apiKey;
        redactor.learn(apiKey);
        try {
          return await once(call, url, body, apiKey);
        } catch (error) {
          if (!(error instanceof ProviderError) || attempt >= 5) throw error;
          const { code, effect, retryAfterMs } = error.facts;
          // A refused key has changed nothing, so the call may be sent again; its guard is asked again.
          if (code === 'UNAUTHORIZED' && effect === 'none' && !isKeyRenewed) {
            isKeyRenewed = true;
            if ((await options.keyRenewal?.renew(apiKey)) === true) continue;
          }
          // Only what certainly changed nothing is repeated here. An unclear write is resolved by whoever asked for it.
          if (effect !== 'none' || (code !== 'RATE_LIMITED' && code !== 'UNAVAILABLE')) throw error;
          if (code === 'RATE_LIMITED' && call.guard !== undefined && call.isDestructive) throw error;
          const [jitter = 0] = await randomBytes(1);
          const wait = (retryAfterMs ?? 500 * 2 ** attempt) + jitter;
          if ((await now()).getTime() + wait >= until.getTime()) throw error;
          await sleep(wait);
        }
      }
    },
  };
}

/** The failures that mean the same everywhere; a provider adds what its vendor says in its own way. */
export function failureOfStatus(
  { method, status, headers, json }: VendorResponse,
  now: Date,
): VendorFailure | undefined {
  if (status >= 200 && status < 300) return undefined;
  const message = messageOf(json);
  const none = { effect: 'none', message } as const;
  if (status === 429) return { ...none, code: 'RATE_LIMITED', retryAfterMs: retryAfterMs(headers, now) };
  if (status === 401 || status === 403) return { ...none, code: 'UNAUTHORIZED' };
  if (status === 404 || status === 410) return { ...none, code: 'NOT_FOUND' };
  if (status === 409) return { ...none, code: 'CONFLICT' };
  if (status >= 300 && status < 400)
    return { ...none, code: 'REJECTED', message: 'a redirect, which is never followed' };
  // A gateway that gave up waiting (408), or whose own caller did (499, CANCELLED of gRPC), says nothing about what the vendor did.
  if (status >= 500 || status === 408 || status === 499 || status < 200)
    return { code: 'UNAVAILABLE', effect: method === 'GET' ? 'none' : 'unknown', message };
  return { ...none, code: 'REJECTED' };
}

/** Retry-After in seconds or as an HTTP date; undefined when it is absent or unreadable. */
export function retryAfterMs(headers: Readonly<Record<string, string>>, now: Date): number | undefined {
  const text = headers['retry-after']?.trim();
  if (text === undefined || text === '') return undefined;
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now.getTime());
}

export function messageOf(json: unknown): string | undefined {
  if (json === null || typeof json !== 'object' || !('message' in json)) return undefined;
  return typeof json.message === 'string' ? json.message : undefined;
}

function urlOf(provider: string, baseUrl: string, { operation, path, query }: VendorQuestion<unknown>): URL {
  // encodeURIComponent leaves `.` and `..` alone and the URL parser folds them: DELETE would address the parent, which
  // is the database. So names are matched against an allow-list, never escaped.
  const refused = path.find((segment) => !segmentPattern.test(segment));
  const url = new URL(`${baseUrl}/${path.join('/')}`);
  // The parser gives a base without a path the path `/`.
  const base = new URL(baseUrl).pathname.replace(/\/$/, '');
  if (refused !== undefined || url.pathname !== `${base}/${path.join('/')}`)
    throw new ProviderError(
      `${provider}: ${operation} was not sent, as ${JSON.stringify(refused ?? '')} is no name that rekey puts into a URL (expected ${segmentPattern.source})`,
      { code: 'NAME_REFUSED', effect: 'none', provider, operation },
    );
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value);
  return url;
}

const serialized = (body: NonNullable<VendorQuestion<unknown>['body']>): Sensitive =>
  new Sensitive(
    JSON.stringify(
      Object.fromEntries(
        Object.entries(body).map(([name, value]) => [
          name,
          value instanceof Sensitive ? value.reveal() : value,
        ]),
      ),
    ),
  );

/** One line, cut, without control characters: a vendor's text must not forge a log line (CWE-117). */
const quoted = (text: string): string => JSON.stringify(text.slice(0, 200)).slice(1, -1);

/** The http port over the network. `proxyUrl` is an egress proxy; TLS to the vendor is verified through it all the same. */
export function undiciHttp({ proxyUrl }: { readonly proxyUrl?: string | undefined }): Ports['http'] {
  const dispatcher: Dispatcher =
    proxyUrl === undefined ? new Agent({ connect: { timeout: 10_000 } }) : new ProxyAgent({ uri: proxyUrl });
  return async ({ method, url, headers, body, timeoutMs, maxBodyBytes: most }) => {
    try {
      const answer = await request(url, {
        dispatcher,
        method,
        headers: Object.fromEntries(
          Object.entries(headers).map(([name, value]) => [
            name,
            value instanceof Sensitive ? value.reveal() : value,
          ]),
        ),
        ...(body === undefined ? {} : { body: body.reveal() }),
        signal: AbortSignal.timeout(timeoutMs),
      });
      return {
        status: answer.statusCode,
        headers: Object.fromEntries(
          Object.entries(answer.headers).map(([name, value]) => [name.toLowerCase(), String(value)]),
        ),
        body: new Sensitive(await textUpTo(answer.body, most)),
      };
    } catch (error) {
      if (error instanceof TransportError) throw error;
      throw transportError(error);
    }
  };
}

async function textUpTo(stream: Dispatcher.ResponseData['body'], most: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > most) {
      stream.destroy();
      throw new TransportError(`an answer of more than ${most} bytes`, true);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Failures of which it is certain that the request was not sent: there was no connection to send it over. */
const neverSent =
  /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|CERT_.*|ERR_TLS_.*|ERR_SSL_.*|.*_CERT_.*|.*SELF_SIGNED.*|UNABLE_TO_.*)$/;

function transportError(error: unknown): TransportError {
  const code =
    error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const name = error instanceof Error ? error.name : 'failure';
  const refusedByProxy = error instanceof Error && /HTTP Tunneling/.test(error.message);
  if (name === 'TimeoutError') return new TransportError('no answer in time', true);
  return new TransportError(
    refusedByProxy ? 'the egress proxy refused the connection' : `no connection (${code ?? name})`,
    !refusedByProxy && !(code !== undefined && neverSent.test(code)),
  );
}
