import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { type Clock, systemClock } from '../clock.ts';
import { AwsError } from './aws-error.ts';
import type { Authorize, AwsService } from './service.ts';

/** A call as the hook sees it, before it is served. */
export interface AwsCall {
  /** IAM prefix, for example `secretsmanager`; together with the operation it is the IAM action. */
  readonly service: string;
  readonly operation: string;
  /** Wire form, may hold secret values: never log it. */
  readonly input: unknown;
  /** Access key id out of the Authorization header; signatures are not checked. */
  readonly principal: string | undefined;
}

/** What the hook can do to a call instead of letting it pass. */
export type Fault =
  | { readonly fault: 'throttle'; readonly message?: string }
  | { readonly fault: 'internal'; readonly message?: string }
  | { readonly fault: 'access-denied'; readonly message?: string }
  /** Any other error by name, for example `DecryptionFailure`. */
  | { readonly fault: 'error'; readonly name: string; readonly message: string; readonly status?: number }
  /** The connection breaks and nothing was done. */
  | { readonly fault: 'reset-before' }
  /** The connection breaks, yet the call took effect. */
  | { readonly fault: 'reset-after' }
  /** Served after `ms` milliseconds. */
  | { readonly fault: 'delay'; readonly ms: number };

/** Sees each call before it is served; an answer disturbs it. */
export type OnCall = (call: AwsCall) => Fault | undefined | Promise<Fault | undefined>;

export interface AwsEndpointOptions {
  readonly services: readonly AwsService[];
  readonly onCall?: OnCall;
  /** Asked before a call is served, for all that it needs. @default everybody may everything */
  readonly authorize?: Authorize;
  /** Serves requests without X-Amz-Target, that is the REST protocols. @default 404 */
  readonly otherwise?: (request: IncomingMessage, response: ServerResponse) => void;
  /** Hears of a failure that no AWS error stands for: a defect of a stand-in. */
  readonly onDefect?: (error: unknown) => void;
  /** @default systemClock */
  readonly clock?: Clock;
  /** @default 0, any free port */
  readonly port?: number;
}

export interface AwsEndpoint {
  /** What `AWS_ENDPOINT_URL` must hold. */
  readonly url: string;
  /** Afterwards nothing listens and no connection is open. */
  close(): Promise<void>;
}

/** The access key id that signed the request, if it was signed. */
export function principalOf(authorization: string | undefined): string | undefined {
  return authorization?.match(/Credential=([^/,\s]+)\//)?.[1];
}

function errorOf(
  fault: Fault,
  service: AwsService,
  action: string,
  principal: string | undefined,
): AwsError | undefined {
  switch (fault.fault) {
    case 'throttle':
      return new AwsError('ThrottlingException', fault.message ?? 'Rate exceeded');
    case 'internal':
      return new AwsError(service.internalErrorName, fault.message ?? 'An internal error occurred.', 500);
    case 'access-denied':
      return new AwsError(
        'AccessDeniedException',
        fault.message ?? `User: ${principal ?? 'anonymous'} is not authorized to perform: ${action}`,
      );
    case 'error':
      return new AwsError(fault.name, fault.message, fault.status);
    case 'reset-before':
    case 'reset-after':
    case 'delay':
      return undefined;
    default:
      return fault satisfies never;
  }
}

function inputOf(body: Buffer): unknown {
  if (body.length === 0) return {};
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    throw new AwsError('SerializationException', 'The request body is not valid JSON.');
  }
}

/** Starts the one loopback server that stands for every AWS service spoken to in JSON 1.0 or 1.1. */
export async function startAwsEndpoint({
  services,
  onCall = () => undefined,
  authorize = async () => undefined,
  otherwise = (_request, response) => response.writeHead(404).end(),
  onDefect = () => undefined,
  clock = systemClock,
  port = 0,
}: AwsEndpointOptions): Promise<AwsEndpoint> {
  const byPrefix = new Map(services.map((service) => [service.targetPrefix, service]));

  async function serve(request: IncomingMessage, response: ServerResponse, target: string): Promise<void> {
    const requestId = randomUUID();
    const dot = target.lastIndexOf('.');
    const service = byPrefix.get(target.slice(0, dot));
    const operation = target.slice(dot + 1);
    const send = (status: number, body: unknown, headers: Readonly<Record<string, string>> = {}) =>
      response
        .writeHead(status, {
          'content-type': request.headers['content-type'] ?? 'application/x-amz-json-1.1',
          'x-amzn-requestid': requestId,
          ...headers,
        })
        .end(JSON.stringify(body));
    try {
      const body = await buffer(request);
      if (service === undefined)
        throw new AwsError('UnknownOperationException', `Target ${target} is not known.`);
      const input = inputOf(body);
      const principal = principalOf(request.headers.authorization);
      const fault = await onCall({ service: service.name, operation, input, principal });
      if (fault?.fault === 'delay') await clock.sleep(fault.ms);
      if (fault?.fault === 'reset-before') return void request.socket.resetAndDestroy();
      const refusal = fault && errorOf(fault, service, `${service.name}:${operation}`, principal);
      if (refusal !== undefined) throw refusal;
      for (const authorization of service.authorizations(operation, input)) {
        const denied = await authorize(principal, authorization);
        if (denied !== undefined)
          throw service.accessDenied?.(denied) ?? new AwsError('AccessDeniedException', denied);
      }
      const answer = await service.call(operation, input, {
        requestId,
        ...(principal !== undefined && { principal }),
      });
      if (fault?.fault === 'reset-after') return void request.socket.resetAndDestroy();
      send(200, answer);
    } catch (error) {
      if (!(error instanceof AwsError)) onDefect(error);
      const known =
        error instanceof AwsError
          ? error
          : new AwsError(service?.internalErrorName ?? 'InternalFailure', '', 500);
      // Some errors have no text on AWS either (SSM's ParameterNotFound): then the member is absent.
      send(
        known.status,
        {
          __type: known.name,
          ...(known.message !== '' && { [service?.messageKey ?? 'message']: known.message }),
        },
        known.queryCode === undefined ? {} : { 'x-amzn-query-error': `${known.queryCode};Sender` },
      );
    }
  }

  const server = createServer((request, response) => {
    const target = request.headers['x-amz-target'];
    if (typeof target === 'string') void serve(request, response, target);
    else otherwise(request, response);
  });
  // A connection that we close while the client is about to use it again is a broken call, which only looks like a fault.
  server.keepAliveTimeout = 0;
  const { promise: listening, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject).listen(port, '127.0.0.1', resolve);
  await listening;
  const { port: bound } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${bound}`,
    async close() {
      server.closeAllConnections();
      await server[Symbol.asyncDispose]();
    },
  };
}
