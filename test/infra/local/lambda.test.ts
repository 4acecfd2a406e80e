import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Clock, systemClock } from '../../../infra/local/clock.ts';
import {
  type AsyncFailure,
  accessKeyIdOf,
  type FunctionLogLine,
  type FunctionOptions,
  functionOfAccessKeyId,
  type LambdaHost,
  type LambdaOptions,
  startLambda,
} from '../../../infra/local/lambda.ts';

const handlers = {
  'echo.mjs': 'export const handler = async (event) => ({ got: event });',
  'nothing.mjs': 'export const handler = async () => undefined;',
  'throws.mjs': `export const handler = async () => {
    throw Object.assign(new Error('the provider said no'), { name: 'ProviderError' });
  };`,
  'broken.mjs': "throw new Error('this module cannot be loaded');",
  'callback.mjs': 'export const handler = (event, context, callback) => callback(null, event);',
  'context.mjs': `export const handler = async (event, context) => ({
    ...context,
    remainingMs: context.getRemainingTimeInMillis(),
  });`,
  'sleeps.mjs': `export const handler = async ({ ms }) => {
    if (ms > 0) process.stdout.write('asleep\\n');
    await new Promise((resolve) => setTimeout(resolve, ms));
    return process.pid;
  };`,
  'crashes.mjs': `export const handler = async ({ code }) => {
    if (code === undefined) return 'alive';
    process.stdout.write('last words without a line end');
    process.exit(code);
  };`,
  'environment.mjs': 'export const handler = async () => process.env;',
  'speaks.mjs': `process.stdout.write('while loading\\n');
  export const handler = async ({ word }) => {
    process.stdout.write(word + ' on stdout\\n');
    process.stderr.write(word + ' on stderr\\n');
  };`,
  'time.mjs':
    'export const handler = async () => [new Date().toISOString(), new Date(Date.now()).toISOString(), new Date(0).toISOString()];',
};

let directory: string;
let host: LambdaHost | undefined;
let lines: FunctionLogLine[];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'rekey-lambda-'));
  for (const [name, source] of Object.entries(handlers)) await writeFile(join(directory, name), source);
});
afterAll(() => rm(directory, { recursive: true }));
afterEach(async () => {
  await host?.close();
  host = undefined;
});

function start(
  file: string,
  options: Partial<FunctionOptions> = {},
  hostOptions: Partial<LambdaOptions> = {},
): LambdaHost {
  lines = [];
  host = startLambda({
    region: 'eu-central-1',
    account: '111122223333',
    log: (line) => lines.push(line),
    ...hostOptions,
  });
  host.addFunction({
    name: 'example',
    arn: 'arn:aws:lambda:eu-central-1:111122223333:function:example',
    handler: `${file}.handler`,
    directory,
    environment: { REKEY_EVENT_BUS_NAME: 'rekey' },
    timeoutSeconds: 60,
    memoryMb: 256,
    ...options,
  });
  return host;
}

describe('an invocation', () => {
  test('gives back what the handler returned', async () => {
    const answer = await start('echo').invoke('example', { step: 'createSecret', list: [1, 'ü'] });
    expect(answer).toMatchObject({ ok: true, payload: { got: { step: 'createSecret', list: [1, 'ü'] } } });
  });

  test('finds the function by its ARN as well as by its name', async () => {
    const answer = await start('echo').invoke('arn:aws:lambda:eu-central-1:111122223333:function:example', 1);
    expect(answer).toMatchObject({ ok: true, payload: { got: 1 } });
  });

  test('answers null where the handler returned nothing', async () => {
    expect(await start('nothing').invoke('example', {})).toMatchObject({ ok: true, payload: null });
  });

  test('of an unknown function is an error of the caller', async () => {
    await expect(start('echo').invoke('other', {})).rejects.toThrow('Function not found: other');
  });

  test('reports what the handler threw, and the process serves the next event', async () => {
    const lambda = start('throws');
    const failed = {
      ok: false,
      errorType: 'ProviderError',
      errorMessage: 'the provider said no',
      functionError: 'Unhandled',
      timedOut: false,
    };
    expect(await lambda.invoke('example', {})).toMatchObject({ ...failed, initMs: expect.any(Number) });
    const second = await lambda.invoke('example', {});
    expect(second).toMatchObject(failed);
    expect(second).not.toHaveProperty('initMs');
  });

  test('reports a module that cannot be loaded, with what it said', async () => {
    const answer = await start('broken').invoke('example', {});
    expect(answer).toMatchObject({ ok: false, errorType: 'Runtime.ImportModuleError' });
    expect(answer).toHaveProperty('errorMessage', expect.stringContaining('this module cannot be loaded'));
  });

  const unloadable: Record<string, { handler: string; errorType: string }> = {
    'reports a handler that its module does not export': {
      handler: 'echo.missing',
      errorType: 'Runtime.HandlerNotFound',
    },
    'reports a module that is not there': {
      handler: 'absent.handler',
      errorType: 'Runtime.ImportModuleError',
    },
    'reports a handler that takes a callback, as nodejs24.x does': {
      handler: 'callback.handler',
      errorType: 'Runtime.CallbackHandlerDeprecated',
    },
  };
  test.each(Object.entries(unloadable))('%s', async (_sentence, { handler, errorType }) => {
    expect(await start('', { handler }).invoke('example', {})).toMatchObject({ ok: false, errorType });
  });

  test('that runs over its time is killed and reported as timed out; the next one works', async () => {
    const lambda = start('sleeps', { timeoutSeconds: 1 });
    const answer = await lambda.invoke('example', { ms: 600_000 });
    expect(answer).toMatchObject({ ok: false, errorType: 'Sandbox.Timedout', timedOut: true });
    expect(answer).toHaveProperty(
      'errorMessage',
      expect.stringMatching(/ Task timed out after 1\.00 seconds$/),
    );
    expect(await lambda.invoke('example', { ms: 0 })).toMatchObject({ ok: true });
  });

  test('whose process exits is reported with the exit status; the next one works', async () => {
    const lambda = start('crashes');
    const answer = await lambda.invoke('example', { code: 7 });
    expect(answer).toMatchObject({ ok: false, errorType: 'Runtime.ExitError', timedOut: false });
    expect(answer).toHaveProperty(
      'errorMessage',
      expect.stringMatching(/Runtime exited with error: exit status 7$/),
    );
    expect(lines.map(({ line }) => line)).toEqual(['last words without a line end']);
    expect(await lambda.invoke('example', {})).toMatchObject({ ok: true, payload: 'alive' });
  });

  test('gets the context that Lambda gives', async () => {
    const answer = await start('context', { timeoutSeconds: 900 }).invoke('example', {});
    expect(answer).toMatchObject({
      ok: true,
      payload: {
        awsRequestId: answer.requestId,
        functionName: 'example',
        functionVersion: '$LATEST',
        invokedFunctionArn: 'arn:aws:lambda:eu-central-1:111122223333:function:example',
        memoryLimitInMB: '256',
        logGroupName: '/aws/lambda/example',
      },
    });
    const { remainingMs } = (answer as unknown as { payload: { remainingMs: number } }).payload;
    expect(remainingMs).toBeGreaterThan(880_000);
    expect(remainingMs).toBeLessThanOrEqual(900_000);
  });

  test("sees the time of the host's clock", async () => {
    const answer = await start(
      'time',
      {},
      { clock: { ...systemClock, now: () => new Date('2031-05-06T07:08:09Z') } },
    ).invoke('example', {});
    expect(answer).toMatchObject({
      payload: [
        expect.stringMatching(/^2031-05-06T07:08/),
        expect.stringMatching(/^2031-05-06T07:08/),
        '1970-01-01T00:00:00.000Z',
      ],
    });
  });
});

describe('concurrency', () => {
  test('two invocations at one time run in two processes, two after each other in one', async () => {
    const lambda = start('sleeps');
    const together = await Promise.all([
      lambda.invoke('example', { ms: 300 }),
      lambda.invoke('example', { ms: 300 }),
    ]);
    const [first, second] = together.map((answer) => answer.ok && answer.payload);
    expect(first).not.toBe(second);
    const later = await lambda.invoke('example', { ms: 0 });
    expect([first, second]).toContain(later.ok && later.payload);
  });

  test('more invocations than the limit wait their turn, and none is lost', async () => {
    const lambda = start('sleeps', { concurrency: 2 });
    const answers = await Promise.all(Array.from({ length: 6 }, () => lambda.invoke('example', { ms: 20 })));
    expect(answers.map(({ ok }) => ok)).toEqual([true, true, true, true, true, true]);
    expect(new Set(answers.map((answer) => answer.ok && answer.payload)).size).toBeLessThanOrEqual(2);
  });
});

describe('an asynchronous invocation', () => {
  test('returns at once, is tried three times, then handed to the failure destination', async () => {
    const waitsMs: number[] = [];
    const clock: Clock = { ...systemClock, sleep: async (ms) => void waitsMs.push(ms) };
    const failure = await new Promise<AsyncFailure>((onAsyncFailure) => {
      const lambda = start('throws', {}, { clock, onAsyncFailure });
      void lambda.invoke('example', { id: 1 }, { async: true });
    });
    expect(failure).toMatchObject({
      functionArn: 'arn:aws:lambda:eu-central-1:111122223333:function:example',
      payload: { id: 1 },
      tries: 3,
      result: { ok: false, errorType: 'ProviderError', requestId: failure.requestId },
    });
    expect(waitsMs).toEqual([60_000, 120_000]);
  });

  test('does not hold up closing while it waits for its next try', async () => {
    const lambda = start('throws');
    await lambda.invoke('example', {}, { async: true });
    await lambda.invoke('example', {});
    await lambda.close();
    await expect(lambda.invoke('example', {})).rejects.toThrow('the host is closed');
  });
});

test('a function reads its own variables, what Lambda sets and what every function gets, and nothing of the host', async () => {
  process.env['REKEY_HOST_SECRET'] = 'must not be seen';
  const answer = await start(
    'environment',
    {},
    { extraEnvironment: { AWS_ENDPOINT_URL: 'http://127.0.0.1:1', HTTPS_PROXY: 'http://127.0.0.1:2' } },
  ).invoke('example', {});
  delete process.env['REKEY_HOST_SECRET'];
  expect(Object.keys((answer as unknown as { payload: object }).payload).sort()).toEqual([
    'AWS_ACCESS_KEY_ID',
    'AWS_DEFAULT_REGION',
    'AWS_ENDPOINT_URL',
    'AWS_EXECUTION_ENV',
    'AWS_LAMBDA_FUNCTION_MEMORY_SIZE',
    'AWS_LAMBDA_FUNCTION_NAME',
    'AWS_LAMBDA_FUNCTION_VERSION',
    'AWS_LAMBDA_INITIALIZATION_TYPE',
    'AWS_LAMBDA_LOG_GROUP_NAME',
    'AWS_LAMBDA_LOG_STREAM_NAME',
    'AWS_LAMBDA_RUNTIME_API',
    'AWS_REGION',
    'AWS_SECRET_ACCESS_KEY',
    'AWS_SESSION_TOKEN',
    'HTTPS_PROXY',
    'LAMBDA_TASK_ROOT',
    'LANG',
    'PATH',
    'REKEY_EVENT_BUS_NAME',
    'TZ',
    '_HANDLER',
  ]);
  expect(answer).toMatchObject({
    payload: { AWS_REGION: 'eu-central-1', AWS_ACCESS_KEY_ID: accessKeyIdOf('example') },
  });
});

test('the access key tells which function a request comes from', () => {
  expect(accessKeyIdOf('rekey-rotate-secret')).toMatch(/^ASIA[0-9A-F]+$/);
  expect(functionOfAccessKeyId(accessKeyIdOf('rekey-rotate-secret'))).toBe('rekey-rotate-secret');
  expect(functionOfAccessKeyId('AKIAIOSFODNN7EXAMPLE')).toBeUndefined();
});

test('every line is logged once, with its function and the request that it belongs to', async () => {
  const lambda = start('speaks');
  const { requestId: first } = await lambda.invoke('example', { word: 'one' });
  const { requestId: second } = await lambda.invoke('example', { word: 'two' });
  await lambda.close();
  expect(lines.toSorted((a, b) => a.line.localeCompare(b.line))).toEqual([
    { functionName: 'example', requestId: first, line: 'one on stderr' },
    { functionName: 'example', requestId: first, line: 'one on stdout' },
    { functionName: 'example', requestId: second, line: 'two on stderr' },
    { functionName: 'example', requestId: second, line: 'two on stdout' },
    { functionName: 'example', requestId: undefined, line: 'while loading' },
  ]);
});

test('after a swap new invocations run the new bundle, and one under way finishes with the old', async () => {
  const next = await mkdtemp(join(tmpdir(), 'rekey-lambda-'));
  await writeFile(join(next, 'sleeps.mjs'), "export const handler = async () => 'new';");
  const lambda = start('sleeps');
  await lambda.invoke('example', { ms: 0 });
  const underWay = lambda.invoke('example', { ms: 300 });
  await isAsleep();
  lambda.swapDirectory('example', next);
  expect(await lambda.invoke('example', {})).toMatchObject({ payload: 'new' });
  expect(await underWay).toMatchObject({ payload: expect.any(Number) });
  expect(await lambda.invoke('example', {})).toMatchObject({ payload: 'new' });
  await rm(next, { recursive: true });
});

describe('no process stays behind', () => {
  test('when the host is closed, and what was under way fails', async () => {
    const lambda = start('sleeps');
    const idle = await lambda.invoke('example', { ms: 0 });
    const underWay = lambda.invoke('example', { ms: 600_000 });
    await isAsleep();
    await lambda.close();
    expect(await underWay).toMatchObject({ ok: false, errorType: 'Runtime.ExitError' });
    expect(idle.ok && isAlive(Number(idle.payload))).toBe(false);
  });

  test('when the host is killed, even in the middle of an invocation', async () => {
    const script = `
      import { startLambda } from ${JSON.stringify(new URL('../../../infra/local/lambda.ts', import.meta.url).href)};
      const lambda = startLambda({ region: 'eu-central-1', account: '111122223333', log: ({ line }) => process.stdout.write(line + '\\n') });
      lambda.addFunction({ name: 'f', arn: 'f', handler: 'pid.handler', directory: ${JSON.stringify(directory)}, environment: {}, timeoutSeconds: 60, memoryMb: 128 });
      await lambda.invoke('f', {});`;
    await writeFile(
      join(directory, 'pid.mjs'),
      "export const handler = async () => { process.stdout.write(process.pid + '\\n'); await new Promise((resolve) => setTimeout(resolve, 600_000)); };",
    );
    await writeFile(join(directory, 'host.mjs'), script);
    const child = spawn(process.execPath, [join(directory, 'host.mjs')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const pid = await new Promise<number>((resolve) => {
      createInterface({ input: child.stdout }).once('line', (line) => resolve(Number(line)));
    });
    expect(isAlive(pid)).toBe(true);
    child.kill('SIGKILL');
    await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false);
  });
});

const isAsleep = () => expect.poll(() => lines.map(({ line }) => line)).toContain('asleep');

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
