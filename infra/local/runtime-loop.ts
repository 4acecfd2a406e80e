import { Agent, type IncomingMessage, request } from 'node:http';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import timers from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import type { Context, Handler } from 'aws-lambda';

/**
 * What stands between the Lambda Runtime API and a handler: asks for the next invocation, calls the handler, posts the
 * answer, for ever. It runs as a process of its own (see lambda.ts), with the environment that a function would have at
 * AWS and nothing else.
 */

const SystemDate = Date;
const systemPause = timers.setTimeout;
let clockOffsetMs = 0;
/** What a vendor's stand-in does late it does within this time: no wait gets shorter than that. */
const leastPauseMs = 300;
// No kept-alive connections: one that the server closed while a handler ran would swallow the answer.
const agent = new Agent({ keepAlive: false });

// The host holds the other end of this pipe. It breaks when the host is gone, whatever ended it.
process.stdin.on('end', leave).on('error', leave).resume();

const handler = await load().catch(async (error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  await post('/init/error', error);
  return process.exit(1);
});

for (;;) {
  const next = await send('GET', '/invocation/next');
  const id = header(next, 'lambda-runtime-aws-request-id');
  const event: unknown = JSON.parse(await text(next));
  setClock(Number(header(next, 'rekey-local-clock-ms')));
  let answer: unknown;
  try {
    answer = await handler(event, contextOf(next, id), refuseCallback);
  } catch (error) {
    await post(`/invocation/${id}/error`, error);
    continue;
  }
  // Lambda turns what JSON cannot say, such as undefined, into null.
  await drain(await send('POST', `/invocation/${id}/response`, JSON.stringify(answer) ?? 'null'));
}

async function load(): Promise<Handler<unknown, unknown>> {
  const [file = '', name = ''] = environment('_HANDLER').split('.');
  const module: unknown = await import(
    pathToFileURL(join(environment('LAMBDA_TASK_ROOT'), `${file}.mjs`)).href
  ).catch((cause: unknown) => {
    throw named('Runtime.ImportModuleError', `cannot load ${file}.mjs: ${String(cause)}`, cause);
  });
  const found = (module as Readonly<Record<string, unknown>>)[name];
  if (typeof found !== 'function')
    throw named('Runtime.HandlerNotFound', `${file}.mjs exports no function ${name}`, undefined);
  // nodejs24.x refuses handlers that take a callback (AWS documentation).
  if (found.length > 2)
    throw named(
      'Runtime.CallbackHandlerDeprecated',
      `${file}.${name} takes a callback; make it async`,
      undefined,
    );
  return found as Handler<unknown, unknown>;
}

function contextOf(next: IncomingMessage, awsRequestId: string): Context {
  const deadlineMs = Number(header(next, 'lambda-runtime-deadline-ms'));
  return {
    awsRequestId,
    invokedFunctionArn: header(next, 'lambda-runtime-invoked-function-arn'),
    functionName: environment('AWS_LAMBDA_FUNCTION_NAME'),
    functionVersion: environment('AWS_LAMBDA_FUNCTION_VERSION'),
    memoryLimitInMB: environment('AWS_LAMBDA_FUNCTION_MEMORY_SIZE'),
    logGroupName: environment('AWS_LAMBDA_LOG_GROUP_NAME'),
    logStreamName: environment('AWS_LAMBDA_LOG_STREAM_NAME'),
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, deadlineMs - Date.now()),
    done: refuseCallback,
    fail: refuseCallback,
    succeed: refuseCallback,
  };
}

function refuseCallback(): never {
  throw named('Runtime.CallbackHandlerDeprecated', 'callbacks are not served; return or throw', undefined);
}

async function post(path: string, error: unknown): Promise<void> {
  const thrown = error instanceof Error ? error : undefined;
  const errorType = thrown?.name ?? typeof error;
  const body = {
    errorType,
    errorMessage: thrown?.message ?? String(error),
    trace: thrown?.stack?.split('\n') ?? [],
  };
  await drain(
    await send('POST', path, JSON.stringify(body), {
      // A header takes no control characters and no letters beyond Latin-1.
      'lambda-runtime-function-error-type': errorType.replaceAll(/[^\x20-\x7e]/g, '?'),
    }),
  );
}

/** One call of the Runtime API. A host that does not answer is gone: so are we. */
function send(
  method: 'GET' | 'POST',
  path: string,
  body?: string,
  headers?: Record<string, string>,
): Promise<IncomingMessage> {
  return new Promise((resolve) => {
    const url = `http://${environment('AWS_LAMBDA_RUNTIME_API')}/2018-06-01/runtime${path}`;
    const call = request(
      url,
      { agent, method, headers: { 'content-type': 'application/json', ...headers } },
      (answer) => (answer.statusCode !== undefined && answer.statusCode < 300 ? resolve(answer) : leave()),
    );
    call.on('error', leave).end(body);
  });
}

async function drain(answer: IncomingMessage): Promise<void> {
  await text(answer).catch(leave);
}

/**
 * Functions read the time of the host's clock, so that a simulated month passes for them too. On a clock that was moved their own
 * long waits, such as the one between two readings of who is connected, take a tenth; for the function the whole of it has passed.
 * Time-outs keep real time.
 */
function setClock(hostMs: number): void {
  clockOffsetMs = hostMs - SystemDate.now();
  // The system's own clock, but for the milliseconds that the event was under way: leave time alone.
  if (Math.abs(clockOffsetMs) < 1000 && Date === SystemDate) return;
  globalThis.Date = new Proxy(SystemDate, {
    construct: (target, given, self) =>
      Reflect.construct(target, given.length === 0 ? [clockNow()] : given, self),
    get: (target, key) => (key === 'now' ? clockNow : Reflect.get(target, key)),
  });
  timers.setTimeout = shortPause;
  syncBuiltinESMExports();
}

async function shortPause<T>(
  ms?: number,
  value?: T,
  options?: Parameters<typeof systemPause>[2],
): Promise<T> {
  const wanted = ms ?? 1;
  const taken = Math.min(wanted, Math.max(leastPauseMs, wanted / 10));
  const waited = await systemPause(taken, value as T, options);
  clockOffsetMs += wanted - taken;
  return waited;
}

function clockNow(): number {
  return SystemDate.now() + clockOffsetMs;
}

function header(message: IncomingMessage, name: string): string {
  const value = message.headers[name];
  if (typeof value !== 'string') throw new Error(`the Runtime API sent no header ${name}`);
  return value;
}

function environment(name: string): string {
  const value = process.env[name];
  if (value === undefined)
    throw new Error(`the environment has no ${name}; this file is started by lambda.ts`);
  return value;
}

function named(name: string, message: string, cause: unknown): Error {
  return Object.assign(new Error(message, { cause }), { name });
}

function leave(): never {
  process.exit(1);
}
