import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { mockClient } from 'aws-sdk-client-mock';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { ProviderError, StoreError } from '../../functions/core/errors.ts';
import { Guard } from '../../functions/core/guard.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { createRedactor, Sensitive, spellings } from '../../functions/core/sensitive.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { compose, handlerOf } from '../../functions/runtime/compose.ts';
import { EarlyAgent } from '../../functions/runtime/early-agent.ts';
import { createUserEnvironment, rotateSecretEnvironment } from '../../functions/runtime/env.ts';
import { bundle, eagerFiles } from '../../infra/bundle.ts';

const loaded = vi.hoisted((): string[] => []);
const proxies = vi.hoisted((): unknown[] => []);
vi.mock('../../functions/providers/http.ts', () => {
  loaded.push('http');
  return {
    undiciHttp: (options: unknown): Ports['http'] => {
      proxies.push(options);
      return async ({ url }) => ({ status: 204, headers: {}, body: new Sensitive(url.pathname) });
    },
  };
});
vi.mock('../../functions/providers/sql.ts', () => {
  loaded.push('sql');
  return { pgSql: (): Ports['sql'] => async () => ({ say: 'accepted', rows: [] }) };
});
vi.mock('../../functions/providers/valkey.ts', () => {
  loaded.push('valkey');
  return { iovalkeyOverTls: (): Ports['valkey'] => async () => ({ say: 'accepted', replies: [] }) };
});

const environment = { REKEY_EVENT_BUS_NAME: 'rekey-bus', REKEY_LOG_LEVEL: 'ERROR' } as const;
const lostRequestsUrl = 'https://sqs.eu-central-1.amazonaws.com/111122223333/lost-requests';
const canary = 'Kq7"/+&é=pass wörd\\x';

let written = '';
beforeEach(() => {
  written = '';
  loaded.length = 0;
  proxies.length = 0;
  const keep = (chunk: string | Uint8Array): boolean => {
    written += String(chunk);
    return true;
  };
  vi.spyOn(process.stdout, 'write').mockImplementation(keep);
  vi.spyOn(process.stderr, 'write').mockImplementation(keep);
  vi.stubEnv('AWS_REGION', 'eu-central-1');
  vi.stubEnv('HTTPS_PROXY', undefined);
  vi.stubEnv('REKEY_LOG_LEVEL', undefined);
  vi.stubEnv('REKEY_EVENT_BUS_NAME', 'rekey-bus');
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  vi.useRealTimers();
});

const withMinuteLeft = { getRemainingTimeInMillis: () => 60_000 };

/** A handler of one use case, with the rotation function's environment. */
const handlerFor = (use: (rekey: Rekey, until: Date, event: unknown) => Promise<unknown>) =>
  handlerOf(rotateSecretEnvironment, (event, until, rekey) => use(rekey, until, event));

describe('the environment', () => {
  test('is read when the function starts, not when it is called', () => {
    vi.stubEnv('REKEY_EVENT_BUS_NAME', undefined);
    expect(() => handlerFor(async () => undefined)).toThrow('ENVIRONMENT_INVALID: REKEY_EVENT_BUS_NAME');
  });

  test('reaches the use case as its schema says, and does not change while the function is warm', async () => {
    const functionArn = 'arn:aws:lambda:eu-central-1:111122223333:function:rotate-secret';
    vi.stubEnv('REKEY_ROTATION_FUNCTION_ARN', functionArn);
    vi.stubEnv('REKEY_LOST_REQUEST_QUEUE_URL', lostRequestsUrl);
    vi.stubEnv('REKEY_NOTE_TABLE_NAME', 'rekey');
    const seen: unknown[] = [];
    const handler = handlerOf(createUserEnvironment, async (_event, _until, _rekey, read) => {
      seen.push(read);
    });
    vi.stubEnv('REKEY_ROTATION_FUNCTION_ARN', undefined);
    await handler({}, withMinuteLeft);
    expect(seen).toEqual([
      {
        REKEY_EVENT_BUS_NAME: 'rekey-bus',
        REKEY_ROTATION_FUNCTION_ARN: functionArn,
        REKEY_LOST_REQUEST_QUEUE_URL: lostRequestsUrl,
        REKEY_NOTE_TABLE_NAME: 'rekey',
        REKEY_LOG_LEVEL: 'INFO',
      },
    ]);
  });
});

describe('the connection to Secrets Manager', () => {
  const atLambda = { AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs24.x' };
  const cases: Record<
    string,
    { variables: Record<string, string>; isAwaited: boolean; want: readonly string[] }
  > = {
    'is opened while a function starts that somebody waits for': {
      variables: atLambda,
      isAwaited: true,
      want: ['secretsmanager.eu-central-1.amazonaws.com'],
    },
    'is opened to the host of the Region': {
      variables: { ...atLambda, AWS_REGION: 'cn-north-1' },
      isAwaited: true,
      want: ['secretsmanager.cn-north-1.amazonaws.com.cn'],
    },
    'waits for the first call where nobody waits': { variables: atLambda, isAwaited: false, want: [] },
    'waits for it elsewhere than at Lambda': { variables: {}, isAwaited: true, want: [] },
    'waits for it where another endpoint is called': {
      variables: { ...atLambda, AWS_ENDPOINT_URL_SECRETS_MANAGER: 'https://vpce-1.example.com' },
      isAwaited: true,
      want: [],
    },
    'waits for it where FIPS is asked for, which has a host of its own': {
      variables: { ...atLambda, AWS_USE_FIPS_ENDPOINT: 'true' },
      isAwaited: true,
      want: [],
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { variables, isAwaited, want }) => {
    vi.stubEnv('AWS_EXECUTION_ENV', undefined);
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
    const opened: string[] = [];
    vi.spyOn(EarlyAgent.prototype, 'connectEarly').mockImplementation((host) => void opened.push(host));
    handlerOf(rotateSecretEnvironment, async () => undefined, { isAwaited });
    expect(opened).toEqual(want);
  });
});

describe('an invocation', () => {
  test('hands on the event as it came, and may work until ten seconds before its end', async () => {
    vi.useFakeTimers({ now: new Date('2026-03-01T12:00:00Z') });
    const seen: unknown[] = [];
    const handler = handlerFor(async (_rekey, until, event) => {
      seen.push(event, until);
    });
    await handler({ Step: 'createSecret' }, { getRemainingTimeInMillis: () => 300_000 });
    expect(seen).toEqual([{ Step: 'createSecret' }, new Date('2026-03-01T12:04:50Z')]);
  });

  test('uses the same clients again while the function is warm', async () => {
    const seen = new Set<unknown>();
    const handler = handlerFor(async (rekey) => {
      seen.add(rekey);
    });
    await handler({}, withMinuteLeft);
    await handler({}, withMinuteLeft);
    expect(seen.size).toBe(1);
  });
});

describe('an answer', () => {
  const secrets = mockClient(SecretsManagerClient);
  beforeEach(() => {
    secrets.reset();
    secrets.on(GetSecretValueCommand).resolves({
      VersionId: 'f3c1a2b4-0000-4000-8000-000000000002',
      SecretString: JSON.stringify({ username: 'orders', password: canary }),
    });
  });

  test('is what the use case answered, as Lambda writes it', async () => {
    const report = {
      started: ['orders-api'],
      held: [{ until: new Date('2026-03-01T12:00:00Z') }],
      dryRun: false,
    };
    expect(await handlerFor(async () => report)({}, withMinuteLeft)).toEqual({
      started: ['orders-api'],
      held: [{ until: '2026-03-01T12:00:00.000Z' }],
      dryRun: false,
    });
  });

  test('is none where the use case has none', async () => {
    expect(await handlerFor(async () => undefined)({}, withMinuteLeft)).toBeUndefined();
  });

  test('leaves without a secret, whoever quoted it', async () => {
    const handler = handlerFor(async (rekey) => {
      await rekey.ports.readSecret({ secretId: 'rekey/orders-api', label: 'AWSCURRENT' });
      return {
        failed: spellings(canary).map((form) => ({ reason: `refused with ${form}` })),
        password: new Sensitive(canary),
      };
    });
    const answer = inspect(await handler({}, withMinuteLeft), { depth: 10, maxArrayLength: null });
    expect(answer).toContain('refused with ‹redacted›');
    for (const form of spellings(canary)) expect(answer).not.toContain(form);
  });
});

describe('a metric', () => {
  const metricLines = () =>
    written
      .split('\n')
      .filter((line) => line.includes('CloudWatchMetrics'))
      .map((line) => JSON.parse(line));

  test('is written though the invocation fails after it, and no other comes with it', async () => {
    const handler = handlerFor(async (rekey) => {
      rekey.measure('RotationsFailed', 1);
      throw new Error('a defect');
    });
    await expect(handler({}, withMinuteLeft)).rejects.toThrow('a defect');
    expect(metricLines()).toMatchObject([{ RotationsFailed: 1 }]);
  });

  test('is not written by an invocation that measured nothing, the first one included', async () => {
    await handlerFor(async () => undefined)({}, withMinuteLeft);
    expect(written).toBe('');
  });
});

describe('an error', () => {
  const secrets = mockClient(SecretsManagerClient);
  beforeEach(() => {
    secrets.reset();
    secrets.on(GetSecretValueCommand).resolves({
      VersionId: 'f3c1a2b4-0000-4000-8000-000000000002',
      SecretString: JSON.stringify({ username: 'orders', password: canary }),
    });
  });

  /** What leaves the function when its use case reads a secret and then fails. */
  const leaving = (failure: unknown): Promise<unknown> =>
    handlerFor(async (rekey) => {
      await rekey.ports.readSecret({ secretId: 'rekey/orders-api', label: 'AWSCURRENT' });
      throw failure;
    })({}, withMinuteLeft).then(
      () => 'nothing was thrown',
      (error: unknown) => error,
    );

  const failures: Record<string, (text: string) => unknown> = {
    'of our own': (text) =>
      new ProviderError(`the vendor said ${text}`, {
        code: 'REJECTED',
        effect: 'none',
        provider: 'acme',
        operation: 'createUser',
        requestId: `id ${text}`,
      }),
    'of a library, with causes and properties': (text) =>
      Object.assign(new TypeError(`failed with ${text}`, { cause: new Error(`because of ${text}`) }), {
        request: { password: text },
      }),
    'of several errors': (text) => new AggregateError([new Error(text)], `several: ${text}`),
    'with a stack that says more than its message': (text) =>
      Object.assign(new Error('failed'), { stack: `Error: failed\n    at run (${text}:1:1)` }),
    'that is only a text': (text) => `failed with ${text}`,
    'that is no error at all': (text) => ({ toString: () => text }),
  };
  test.each(Object.entries(failures))(
    '%s leaves without a secret in message, stack, causes or properties, and so does its log line',
    async (_kind, make) => {
      for (const spelling of spellings(canary)) {
        const error = await leaving(make(spelling));
        expect(error).toBeInstanceOf(Error);
        expect(error).not.toHaveProperty('cause');
        const printed = inspect(error, { depth: 10, showHidden: true });
        expect(printed).toContain('‹redacted›');
        for (const form of spellings(canary)) {
          expect(printed).not.toContain(form);
          expect(written).not.toContain(form);
        }
      }
    },
  );

  test('keeps its name, its message and where it was thrown', async () => {
    const error = await leaving(
      new ProviderError('acme failed createUser: got status 423', {
        code: 'REJECTED',
        effect: 'none',
        provider: 'acme',
        operation: 'createUser',
      }),
    );
    expect(error).toMatchObject({
      name: 'ProviderError',
      message: 'REJECTED: acme failed createUser: got status 423',
      stack: expect.stringContaining('compose.test.ts'),
    });
  });

  test('is logged once, with the facts that an operator needs', async () => {
    await leaving(
      new ProviderError('acme failed createUser: got status 423', {
        code: 'REJECTED',
        effect: 'none',
        provider: 'acme',
        operation: 'createUser',
        status: 423,
        requestId: 'req-1',
      }),
    );
    const lines = written.split('\n').filter((line) => line !== '');
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      expect.objectContaining({
        level: 'ERROR',
        message: 'REJECTED: acme failed createUser: got status 423',
        code: 'REJECTED',
        effect: 'none',
        provider: 'acme',
        operation: 'createUser',
        status: 423,
        requestId: 'req-1',
      }),
    ]);
  });

  test('of AWS is logged once with what AWS said, scrubbed, and neither leaves the function', async () => {
    const failure = new StoreError(
      'STORE_REFUSED',
      'none',
      'PutParameter was refused (ValidationException)',
      {
        detail: { message: `Standard tier parameters …, got ${canary}`, requestId: 'aws-req-1' },
      },
    );
    const error = await leaving(failure);
    const lines = written.split('\n').filter((line) => line !== '');
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      expect.objectContaining({
        level: 'ERROR',
        message: 'STORE_REFUSED: PutParameter was refused (ValidationException)',
        code: 'STORE_REFUSED',
        effect: 'none',
        awsMessage: 'Standard tier parameters …, got ‹redacted›',
        awsRequestId: 'aws-req-1',
      }),
    ]);
    const printed = inspect(error, { depth: 10, showHidden: true });
    expect(printed).not.toContain('Standard tier');
    expect(printed).not.toContain(canary);
  });

  const proxies: Record<string, { url: string; hidden: string }> = {
    'as it was written': { url: 'http://egress:Pr0xy-canary@proxy.example.com:3128', hidden: 'Pr0xy-canary' },
    'as it is sent': { url: 'http://egress:Pr%40xy-canary@proxy.example.com:3128', hidden: 'Pr@xy-canary' },
    'in a spelling of its own': {
      url: 'http://egress:%50r0xy-canary@proxy.example.com:3128',
      hidden: 'Pr0xy-canary',
    },
    'with a percent sign that escapes nothing': {
      url: 'http://egress:Pr%xy-canary@proxy.example.com:3128',
      hidden: 'Pr%xy-canary',
    },
  };
  test.each(Object.entries(proxies))(
    'does not show the password of the egress proxy, %s',
    async (_sentence, { url, hidden }) => {
      vi.stubEnv('HTTPS_PROXY', url);
      for (const form of spellings(hidden)) {
        const printed = inspect(await leaving(new Error(`no tunnel through ${form}, told by ${url}`)));
        expect(printed).not.toContain(form);
        expect(printed).not.toContain('canary');
        expect(written).not.toContain(form);
      }
    },
  );
});

describe('what few functions need', () => {
  const request = {
    method: 'GET',
    url: new URL('https://api.example.com/users'),
    headers: {},
    timeoutMs: 1000,
    maxBodyBytes: 1000,
    guard: 'reads-only',
  } as const;
  const session = {
    host: 'db.example.com',
    port: 5432,
    database: 'orders',
    username: 'orders',
    password: new Sensitive(canary),
    statements: [],
    timeoutMs: 1000,
    guard: 'reads-only',
  } as const;

  // Loaded once for all tests of this file: what is asked here is who makes it load.
  test('is loaded by the first call that needs it, and by no other', async () => {
    const { ports } = compose(environment, createRedactor());
    await ports.now();
    await ports.sleep(0);
    expect((await ports.randomBytes(8)).length).toBe(8);
    expect(loaded).toEqual([]);
    expect(await ports.sql(session)).toEqual({ say: 'accepted', rows: [] });
    expect(loaded).toEqual(['sql']);
    expect(await ports.http(request)).toMatchObject({ status: 204 });
    expect(loaded).toEqual(['sql', 'http']);
    expect(await ports.valkey({ ...session, commands: [] })).toEqual({ say: 'accepted', replies: [] });
    expect(loaded).toEqual(['sql', 'http', 'valkey']);
  });

  const refused: Record<string, (ports: Ports) => Promise<unknown>> = {
    'a queue': (ports) => ports.enqueue([{ provider: 'acme', targetId: 'db-1' }]),
    'an audit trail': (ports) => ports.readArchive({ key: 'audit/1' }),
  };
  test.each(Object.entries(refused))('is refused where the function has none: %s', async (_what, call) => {
    const { ports } = compose(environment, createRedactor());
    await expect(call(ports)).rejects.toThrow('ENVIRONMENT_INVALID: this function has no such queue');
    expect(loaded).toEqual([]);
  });

  test('I16: leaves with its reasons only: a change that carries none is a defect, and is not sent', async () => {
    const { ports } = compose(environment, createRedactor());
    await expect(ports.http({ ...request, method: 'DELETE' })).rejects.toThrow('give it a guard');
    const guard = Guard.of(async () => 'the labels have moved');
    await expect(ports.http({ ...request, method: 'DELETE', guard })).rejects.toThrow(
      'SUPERSEDED: the labels have moved',
    );
    await expect(ports.cancelRotation({ secretId: 'rekey/orders-api', guard })).rejects.toThrow('SUPERSEDED');
    expect(loaded).toEqual([]);
  });

  test('is made once, with the egress proxy of the environment', async () => {
    const HTTPS_PROXY = 'http://proxy.example.com:3128';
    const { ports } = compose({ ...environment, HTTPS_PROXY }, createRedactor());
    await Promise.all([ports.http(request), ports.http(request)]);
    await ports.http(request);
    expect(proxies).toEqual([{ proxyUrl: HTTPS_PROXY }]);
  });
});

describe('the bundle of a handler', () => {
  let directory: string;
  let metafile: Awaited<ReturnType<typeof bundle>>['metafile'];
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'rekey-compose-'));
    ({ metafile } = await bundle({ directory: join(directory, 'functions') }));
  });
  afterAll(() => rm(directory, { recursive: true }));

  /** The sources that are loaded with an output: its own, and those of every chunk that it imports statically. */
  function sourcesWith(output: string, seen = new Set<string>()): readonly string[] {
    const chunk = metafile.outputs[output];
    if (chunk === undefined || seen.has(output)) return [];
    seen.add(output);
    return [
      ...Object.keys(chunk.inputs),
      ...chunk.imports
        .filter(({ kind }) => kind !== 'dynamic-import')
        .flatMap(({ path }) => sourcesWith(path, seen)),
    ];
  }
  const loadedBy = (source: string): readonly string[] => {
    const found = Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint === source);
    if (found === undefined) throw new Error(`expected the bundle to have an output for ${source}`);
    return sourcesWith(found[0]);
  };
  const heavy =
    /node_modules\/(pg|pg-[a-z-]+|undici|iovalkey|zod\/v4\/classic|@aws-sdk\/client-(?!secrets-manager)[a-z]+)\/|^functions\/(providers|consumers)\/(?!index\.ts$)/;

  test('that remembers nothing has no client of the table of notes in any of its chunks', () => {
    const reach = (output: string, seen = new Set<string>()): ReadonlySet<string> => {
      seen.add(output);
      for (const { path } of metafile.outputs[output]?.imports ?? [])
        if (path in metafile.outputs && !seen.has(path)) reach(path, seen);
      return seen;
    };
    const withTable = handlers.filter((handler) => {
      const own = Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint === handler)?.[0];
      return [...reach(own ?? '')].some((output) =>
        Object.keys(metafile.outputs[output]?.inputs ?? {}).some((source) =>
          source.includes('@aws-sdk/client-dynamodb/'),
        ),
      );
    });
    expect(withTable).toEqual([
      'functions/create-user.ts',
      'functions/start-rotations.ts',
      'functions/delete-user.ts',
      'functions/reconcile-users.ts',
      'functions/update-consumers.ts',
    ]);
  });

  const handlers = [
    'functions/rotate-secret.ts',
    'functions/create-user.ts',
    'functions/start-rotations.ts',
    'functions/delete-user.ts',
    'functions/reconcile-users.ts',
    'functions/update-consumers.ts',
    'functions/receive-webhook.ts',
  ];
  test.each(handlers)(
    '%s starts with the client of Secrets Manager and without any other, a driver, a provider or a kind of consumer',
    (handler) => {
      const sources = loadedBy(handler);
      expect(sources).toContain('functions/runtime/compose.ts');
      expect(sources).toContain('functions/providers/index.ts');
      expect(sources.filter((source) => heavy.test(source))).toEqual([]);
    },
  );

  /**
   * In KiB: what a start reads and parses. The SDK with the client of Secrets Manager is some 150 of it, zod 50. Where a change makes it
   * larger, find out what came in (`npm run bundle`, esbuild's metafile) before a new figure is written down.
   */
  const budgets = {
    'create-user': 249,
    'delete-user': 313,
    'receive-webhook': 224,
    'reconcile-users': 332,
    'record-audit': 351,
    'rotate-secret': 260,
    'start-rotations': 338,
    'update-consumers': 247,
  };
  test.each(Object.entries(budgets))('%s loads at most %i KiB before its first event', (handler, kib) => {
    const bytes = eagerFiles(metafile, `${handler}.mjs`).reduce((sum, file) => sum + file.bytes, 0);
    expect(bytes / 1024).toBeLessThanOrEqual(kib);
    // A figure that is far too large holds nothing.
    expect(bytes / 1024).toBeGreaterThan(kib - 10);
  });

  test('each function has its figure', () => {
    const handlers = readdirSync(join(directory, 'functions')).toSorted();
    expect(Object.keys(budgets)).toEqual(handlers);
  });

  test('only the function that looks at windows starts with time zones', () => {
    const started = handlers.filter((handler) =>
      loadedBy(handler).some((source) => source.includes('/temporal-polyfill/')),
    );
    expect(started).toEqual(['functions/start-rotations.ts']);
  });

  const parts: Record<string, { part: string; brings: RegExp; leaves: RegExp }> = {
    'the http seam brings undici, and no driver or provider': {
      part: 'functions/providers/http.ts',
      brings: /node_modules\/undici\//,
      leaves: /node_modules\/pg\/|^functions\/providers\/[a-z-]+\//,
    },
    'the sql seam brings neither undici nor a provider, and leaves pg for the first login': {
      part: 'functions/providers/sql.ts',
      brings: /^functions\/providers\/sql\.ts$/,
      leaves: /node_modules\/(undici|pg|pg-[a-z-]+)\/|^functions\/providers\/[a-z-]+\//,
    },
    'the valkey seam brings neither undici nor a provider, and leaves iovalkey for the first login': {
      part: 'functions/providers/valkey.ts',
      brings: /^functions\/providers\/valkey\.ts$/,
      leaves: /node_modules\/(undici|pg|iovalkey)\/|^functions\/providers\/[a-z-]+\//,
    },
    'the queue brings its client, and no driver or provider': {
      part: 'functions/runtime/queue.ts',
      brings: /node_modules\/@aws-sdk\/client-sqs\//,
      leaves: /node_modules\/(pg|undici|iovalkey)\/|^functions\/providers\/(?!index\.ts$)/,
    },
    'one provider brings no other, and no driver of a database': {
      part: 'functions/providers/render-postgres/provider.ts',
      brings: /^functions\/providers\/render-postgres\//,
      leaves: /node_modules\/pg\/|^functions\/providers\/(?!render-postgres\/)[a-z-]+\//,
    },
    'the other provider brings no other either': {
      part: 'functions/providers/cockroachdb-cloud/provider.ts',
      brings: /^functions\/providers\/cockroachdb-cloud\//,
      leaves: /node_modules\/pg\/|^functions\/providers\/(?!cockroachdb-cloud\/)[a-z-]+\//,
    },
  };
  test.each(Object.entries(parts))('%s', (_sentence, { part, brings, leaves }) => {
    const sources = loadedBy(part);
    expect(sources.some((source) => brings.test(source))).toBe(true);
    expect(sources.filter((source) => leaves.test(source))).toEqual([]);
  });

  test('the driver of the databases is in the bundle, and only a dynamic import leads to it', () => {
    const withDriver = Object.entries(metafile.outputs).filter(([, { inputs }]) =>
      Object.keys(inputs).some((source) => /node_modules\/pg\//.test(source)),
    );
    const kinds = withDriver.flatMap(([output]) =>
      Object.entries(metafile.outputs)
        .filter(([importer]) => !withDriver.some(([other]) => other === importer))
        .flatMap(([, { imports }]) => imports.filter(({ path }) => path === output).map(({ kind }) => kind)),
    );
    expect(new Set(kinds)).toEqual(new Set(['dynamic-import']));
  });
});
