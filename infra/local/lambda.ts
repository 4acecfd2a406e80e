import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { type Clock, pause, systemClock } from './clock.ts';

export interface LambdaOptions {
  readonly region: string;
  /** Twelve digits. */
  readonly account: string;
  /** Takes every line that a function writes. */
  readonly log: (line: FunctionLogLine) => void;
  /** What every function gets beside its own variables: AWS_ENDPOINT_URL, HTTPS_PROXY, NODE_EXTRA_CA_CERTS. @default none */
  readonly extraEnvironment?: Readonly<Record<string, string>>;
  /** The time that functions see, and the waits between tries. Deadlines keep running in real time. @default systemClock */
  readonly clock?: Clock;
  /** Takes an asynchronous invocation whose last try failed: what an on-failure destination gets. @default dropped */
  readonly onAsyncFailure?: (failure: AsyncFailure) => void;
  /** Hears of every invocation as it ends, each try of an asynchronous one included. */
  readonly onInvocation?: (functionName: string, result: InvocationResult) => void;
}

export interface FunctionLogLine {
  readonly functionName: string;
  /** Undefined for lines written before the first invocation. */
  readonly requestId: string | undefined;
  readonly line: string;
}

export interface FunctionOptions {
  readonly name: string;
  readonly arn: string;
  /** `<file>.<export>`; the file is `<file>.mjs` in `directory`. */
  readonly handler: string;
  /** Absolute. */
  readonly directory: string;
  readonly environment: Readonly<Record<string, string>>;
  /** The name of its execution role. @default it may nothing */
  readonly roleName?: string;
  /** Where it writes its log. @default '/aws/lambda/<name>' */
  readonly logGroup?: string;
  readonly timeoutSeconds: number;
  readonly memoryMb: number;
  /** Invocations at one time; more wait their turn. @default 10 */
  readonly concurrency?: number;
  /** Of an asynchronous invocation, after the first try. @default 2 */
  readonly asyncRetries?: number;
}

export type InvocationResult = InvocationFacts &
  (
    | { readonly ok: true; readonly payload: unknown }
    | {
        readonly ok: false;
        readonly errorType: string;
        readonly errorMessage: string;
        readonly trace: readonly string[];
        /** What Lambda puts in `X-Amz-Function-Error`. */
        readonly functionError: 'Unhandled';
        readonly timedOut: boolean;
      }
  );

export interface InvocationFacts {
  readonly requestId: string;
  /** From handing the event to a process until its answer; 0 when no process took it. */
  readonly durationMs: number;
  /** Spawn until the first request for an event, when this invocation was the first of its process. */
  readonly initMs?: number;
}

export interface AsyncFailure {
  readonly functionArn: string;
  readonly requestId: string;
  readonly payload: unknown;
  readonly tries: number;
  readonly result: InvocationResult;
}

export interface LambdaHost {
  addFunction(options: FunctionOptions): void;
  /**
   * Runs the function once and returns its answer or its failure; throws only if there is no such function or the host
   * is closed. With `async`, returns at once, `payload` undefined, and tries up to three times.
   */
  invoke(
    arnOrName: string,
    payload: unknown,
    options?: { readonly async?: boolean },
  ): Promise<InvocationResult>;
  /** Invocations that begin from now on run the bundle in `directory`; those under way finish with the old one. */
  swapDirectory(name: string, directory: string): void;
  /** As whom a function acts, and where it writes its log. No role: an unknown function, or one that may nothing. */
  identityOf(functionName: string): { readonly roleName?: string; readonly logGroup: string };
  /** Whether a function is running, or waits for a process to run in. The time between two tries does not count. */
  isBusy(): boolean;
  /** Resolves as soon as one invocation that is under way now has ended; at once when there is none. */
  oneEnded(): Promise<void>;
  /** Afterwards no process is left and every line has been logged. Invocations under way fail. */
  close(): Promise<void>;
}

/** The access key of a function, so that an endpoint can tell which role a request is made with. */
export const accessKeyIdOf = (functionName: string): string =>
  `ASIA${Buffer.from(functionName).toString('hex').toUpperCase()}`;

/** The function that an access key belongs to, or undefined when it is not one of ours. */
export function functionOfAccessKeyId(accessKeyId: string): string | undefined {
  const hex = /^ASIA((?:[0-9A-F]{2})+)$/.exec(accessKeyId)?.[1];
  return hex === undefined ? undefined : Buffer.from(hex, 'hex').toString();
}

const defaultLogGroup = (functionName: string): string => `/aws/lambda/${functionName}`;

/** Lambda allows ten seconds; the first start on a busy machine may need more. */
const initTimeoutMs = 30_000;
const runtimeLoop = fileURLToPath(new URL('runtime-loop.ts', import.meta.url));

/** A Lambda service on this machine: each function runs in processes of its own that speak the Runtime API. */
export function startLambda(options: LambdaOptions): LambdaHost {
  const functions = new Map<string, LocalFunction>();
  const retries = new Set<Promise<void>>();
  const running = new Set<Promise<InvocationResult>>();
  const closing = new AbortController();

  async function run(target: LocalFunction, payload: unknown, requestId: string): Promise<InvocationResult> {
    const invocation = target.invoke(payload, requestId);
    running.add(invocation);
    const result = await invocation;
    running.delete(invocation);
    options.onInvocation?.(target.options.name, result);
    return result;
  }

  function find(arnOrName: string): LocalFunction {
    if (closing.signal.aborted) throw new Error(`cannot invoke ${arnOrName}: the host is closed`);
    for (const each of functions.values())
      if (each.options.arn === arnOrName || each.options.name === arnOrName) return each;
    throw new Error(`Function not found: ${arnOrName}`);
  }

  async function tryAgain(target: LocalFunction, payload: unknown, requestId: string): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const result = await run(target, payload, requestId);
      if (result.ok || closing.signal.aborted) return;
      if (tries > (target.options.asyncRetries ?? 2)) {
        options.onAsyncFailure?.({ functionArn: target.options.arn, requestId, payload, tries, result });
        return;
      }
      // After one minute, then after two (AWS documentation).
      await pause(options.clock ?? systemClock, tries * 60_000, closing.signal);
      if (closing.signal.aborted) return;
    }
  }

  return {
    addFunction(added) {
      if (functions.has(added.name)) throw new Error(`the function ${added.name} was added before`);
      functions.set(added.name, localFunction(added, options));
    },
    async invoke(arnOrName, payload, { async = false } = {}) {
      const target = find(arnOrName);
      const requestId = randomUUID();
      if (!async) return run(target, payload, requestId);
      const work = tryAgain(target, payload, requestId);
      retries.add(work);
      void work.finally(() => retries.delete(work));
      return { ok: true, payload: undefined, requestId, durationMs: 0 };
    },
    swapDirectory(name, directory) {
      find(name).swapDirectory(directory);
    },
    identityOf(name) {
      const { roleName, logGroup = defaultLogGroup(name) } = functions.get(name)?.options ?? {};
      return { logGroup, ...(roleName === undefined ? {} : { roleName }) };
    },
    isBusy: () => running.size > 0,
    async oneEnded() {
      if (running.size > 0) await Promise.race(running);
    },
    async close() {
      closing.abort();
      await Promise.all([...functions.values()].map((each) => each.close()));
      await Promise.all(retries);
    },
  };
}

interface Invocation {
  readonly requestId: string;
  readonly body: string;
  readonly settle: (result: InvocationResult) => void;
}

interface LocalFunction {
  readonly options: FunctionOptions;
  invoke(payload: unknown, requestId: string): Promise<InvocationResult>;
  swapDirectory(directory: string): void;
  close(): Promise<void>;
}

/** One function: a queue of invocations and the sandboxes that take them. */
function localFunction(options: FunctionOptions, host: LambdaOptions): LocalFunction {
  const queue: Invocation[] = [];
  const sandboxes = new Set<Sandbox>();
  let { directory } = options;
  let isClosed = false;

  /** Gives waiting invocations to idle sandboxes and starts as many more as there are invocations left. */
  function dispatch(): void {
    if (isClosed) return;
    for (const sandbox of sandboxes) {
      if (sandbox.state() !== 'idle') continue;
      const invocation = queue.shift();
      if (invocation === undefined) return;
      sandbox.take(invocation);
    }
    const coming = [...sandboxes].filter((sandbox) => sandbox.state() === 'coming').length;
    const room = (options.concurrency ?? 10) - sandboxes.size;
    for (let count = Math.min(queue.length - coming, room); count > 0; count -= 1) start();
  }

  function start(): void {
    const sandbox = startSandbox({ options, directory, host, whenIdle: dispatch });
    sandboxes.add(sandbox);
    void sandbox.gone.then(({ initError }) => {
      sandboxes.delete(sandbox);
      // A sandbox is started for the invocation that has waited longest: that one learns why it did not come up.
      const invocation = initError === undefined ? undefined : queue.shift();
      if (initError !== undefined && invocation !== undefined) {
        const { requestId } = invocation;
        invocation.settle(failure({ requestId, durationMs: 0 }, initError(requestId)));
      }
      dispatch();
    });
  }

  return {
    options,
    invoke: (payload, requestId) =>
      new Promise((settle) => {
        queue.push({ requestId, body: JSON.stringify(payload) ?? 'null', settle });
        dispatch();
      }),
    swapDirectory(next) {
      directory = next;
      for (const sandbox of sandboxes) sandbox.retire();
    },
    async close() {
      isClosed = true;
      for (const { requestId, settle } of queue.splice(0)) {
        const errorMessage = `RequestId: ${requestId} Error: the host was closed before the function ran`;
        settle(
          failure({ requestId, durationMs: 0 }, { errorType: 'Sandbox.Closed', errorMessage, trace: [] }),
        );
      }
      for (const sandbox of sandboxes) sandbox.kill();
      await Promise.all([...sandboxes].map((sandbox) => sandbox.gone));
    },
  };
}

interface RuntimeError {
  readonly errorType: string;
  readonly errorMessage: string;
  readonly trace: readonly string[];
}

const failure = (facts: InvocationFacts, error: RuntimeError, timedOut = false): InvocationResult => ({
  ok: false,
  ...error,
  functionError: 'Unhandled',
  timedOut,
  ...facts,
});

interface SandboxOptions {
  readonly options: FunctionOptions;
  readonly directory: string;
  readonly host: LambdaOptions;
  readonly whenIdle: () => void;
}

/** One process that runs one invocation at a time, and the Runtime API that it alone talks to. */
interface Sandbox {
  /** `coming` while it loads the function, and between an answer and the request for the next event. */
  state(): 'coming' | 'idle' | 'busy' | 'ending';
  /** Only while idle. */
  take(invocation: Invocation): void;
  /** Ends the process as soon as it has nothing to do. */
  retire(): void;
  kill(): void;
  /** Resolves when the process is gone and all that it wrote was read. `initError` if it never asked for an event. */
  readonly gone: Promise<{ readonly initError?: (requestId: string) => RuntimeError }>;
}

interface Running extends Invocation {
  readonly takenAt: number;
  readonly initMs: number | undefined;
}

function startSandbox({ options, directory, host, whenIdle }: SandboxOptions): Sandbox {
  const startedAt = performance.now();
  const logStream = `local/[$LATEST]${randomBytes(16).toString('hex')}`;
  let child: ChildProcess | undefined;
  let isEnding = false;
  let isRetired = false;
  let hasStarted = false;
  let initMs: number | undefined;
  let reported: RuntimeError | undefined;
  /** The process's open request for an event, while it is idle. */
  let waiting: ServerResponse | undefined;
  let running: Running | undefined;
  let deadline: NodeJS.Timeout | undefined;
  let lastRequestId: string | undefined;

  const server = createServer((request, response) => {
    // It fails only if the process dies in the middle of a request, which `run` notices.
    serve(request, response).catch(() => response.destroy());
  });

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, requestId = '', outcome = ''] =
      /^\/2018-06-01\/runtime\/(?:invocation\/([^/]+)\/)?([a-z/]+)$/.exec(request.url ?? '') ?? [];
    if (request.method === 'GET' && request.url === '/2018-06-01/runtime/invocation/next') {
      if (!hasStarted) initMs = Math.round(performance.now() - startedAt);
      hasStarted = true;
      clearTimeout(deadline);
      waiting = response;
      if (isRetired) kill();
      else whenIdle();
      return;
    }
    const body: unknown = JSON.parse(await text(request));
    if (outcome === 'init/error') reported = body as RuntimeError;
    else if (running === undefined || running.requestId !== requestId)
      return void response.writeHead(400).end();
    else if (outcome === 'response') finish((facts) => ({ ok: true, payload: body, ...facts }));
    else if (outcome === 'error') finish((facts) => failure(facts, body as RuntimeError));
    else return void response.writeHead(404).end();
    response.writeHead(202).end();
  }

  function take(invocation: Invocation): void {
    const { requestId, body } = invocation;
    const timeoutMs = options.timeoutSeconds * 1000;
    const now = (host.clock ?? systemClock).now().getTime();
    // Runs until the next request for an event: a process may also hang after its answer.
    deadline = setTimeout(() => {
      const errorMessage = `RequestId: ${requestId} Error: Task timed out after ${options.timeoutSeconds.toFixed(2)} seconds`;
      finish((facts) => failure(facts, { errorType: 'Sandbox.Timedout', errorMessage, trace: [] }, true));
      kill();
    }, timeoutMs);
    running = { ...invocation, takenAt: performance.now(), initMs };
    initMs = undefined;
    lastRequestId = requestId;
    waiting
      ?.writeHead(200, {
        'content-type': 'application/json',
        'lambda-runtime-aws-request-id': requestId,
        'lambda-runtime-deadline-ms': now + timeoutMs,
        'lambda-runtime-invoked-function-arn': options.arn,
        'lambda-runtime-trace-id': `Root=1-${Math.floor(now / 1000).toString(16)}-${randomBytes(12).toString('hex')};Sampled=0`,
        'rekey-local-clock-ms': now,
      })
      .end(body);
    waiting = undefined;
  }

  function finish(outcome: (facts: InvocationFacts) => InvocationResult): void {
    if (running === undefined) return;
    const { requestId, takenAt, initMs, settle } = running;
    running = undefined;
    const durationMs = Math.round(performance.now() - takenAt);
    settle(outcome({ requestId, durationMs, ...(initMs !== undefined && { initMs }) }));
  }

  function kill(): void {
    isEnding = true;
    child?.kill('SIGKILL');
  }

  async function run(): Promise<{ initError?: (requestId: string) => RuntimeError }> {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    let exit = 'signal: killed';
    const initDeadline = setTimeout(() => {
      if (hasStarted) return;
      reported = {
        errorType: 'Sandbox.Timedout',
        errorMessage: 'the function was not loaded in time',
        trace: [],
      };
      kill();
    }, initTimeoutMs);
    if (!isEnding) {
      const { port } = server.address() as AddressInfo;
      child = spawn(
        process.execPath,
        [`--max-old-space-size=${Math.floor(options.memoryMb * 0.9)}`, runtimeLoop],
        {
          cwd: directory,
          env: environmentOf(options, directory, host, `127.0.0.1:${port}`, logStream),
          stdio: ['pipe', 'pipe', 'pipe'],
        },
      );
      exit = await ended(child, (line) =>
        host.log({ functionName: options.name, requestId: lastRequestId, line }),
      );
    }
    clearTimeout(initDeadline);
    clearTimeout(deadline);
    isEnding = true;
    const errorOf = (requestId: string): RuntimeError =>
      reported ?? {
        errorType: 'Runtime.ExitError',
        errorMessage: `RequestId: ${requestId} Error: Runtime exited with error: ${exit}`,
        trace: [],
      };
    finish((facts) => failure(facts, errorOf(facts.requestId)));
    server.close();
    server.closeAllConnections();
    return hasStarted || isRetired ? {} : { initError: errorOf };
  }

  return {
    state: () => {
      if (isEnding || isRetired) return 'ending';
      if (running !== undefined) return 'busy';
      return waiting === undefined ? 'coming' : 'idle';
    },
    take,
    retire() {
      isRetired = true;
      if (running === undefined) kill();
    },
    kill,
    gone: run(),
  };
}

/** Resolves when the process is gone, with how it ended in Lambda's words. */
function ended(child: ChildProcess, log: (line: string) => void): Promise<string> {
  for (const stream of [child.stdout, child.stderr])
    if (stream !== null) createInterface({ input: stream }).on('line', log);
  // Writing to a process that has just died: its end is what counts.
  child.stdin?.on('error', () => undefined);
  return new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message));
    // After `exit`: by now all that the process wrote was read.
    child.on('close', (code, signal) =>
      resolve(
        signal === null ? `exit status ${code}` : `signal: ${signal === 'SIGKILL' ? 'killed' : signal}`,
      ),
    );
  });
}

/** All that a function can read, as at AWS. The variables of this process are none of its business. */
function environmentOf(
  { name, handler, environment, memoryMb, logGroup = defaultLogGroup(name) }: FunctionOptions,
  directory: string,
  { region, extraEnvironment }: LambdaOptions,
  runtimeApi: string,
  logStream: string,
): Record<string, string> {
  return {
    ...environment,
    PATH: '/usr/local/bin:/usr/bin:/bin',
    LANG: 'en_US.UTF-8',
    TZ: 'UTC',
    AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs24.x',
    AWS_REGION: region,
    AWS_DEFAULT_REGION: region,
    AWS_ACCESS_KEY_ID: accessKeyIdOf(name),
    AWS_SECRET_ACCESS_KEY: 'local',
    AWS_SESSION_TOKEN: 'local',
    AWS_LAMBDA_RUNTIME_API: runtimeApi,
    AWS_LAMBDA_FUNCTION_NAME: name,
    AWS_LAMBDA_FUNCTION_VERSION: '$LATEST',
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(memoryMb),
    AWS_LAMBDA_INITIALIZATION_TYPE: 'on-demand',
    AWS_LAMBDA_LOG_GROUP_NAME: logGroup,
    AWS_LAMBDA_LOG_STREAM_NAME: logStream,
    LAMBDA_TASK_ROOT: directory,
    _HANDLER: handler,
    ...extraEnvironment,
  };
}
