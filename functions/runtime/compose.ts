import { createHash, randomBytes } from 'node:crypto';
import { unescape as unescaped } from 'node:querystring';
import { setTimeout as pause } from 'node:timers/promises';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type * as z from 'zod/mini';
import { secretsManager } from '../aws/secrets.ts';
import { loadConsumer } from '../consumers/index.ts';
import { InputError } from '../core/errors.ts';
import type { Ports } from '../core/ports.ts';
import type { Schema } from '../core/schema.ts';
import { createRedactor, type Redactor } from '../core/sensitive.ts';
import type { Sha256 } from '../core/username.ts';
import type { LoadWebhook } from '../core/webhook.ts';
import { guardWrites } from '../lifecycle/guarded-write.ts';
import type { Rekey } from '../lifecycle/rekey.ts';
import { Unwritten } from '../lifecycle/unwritten.ts';
import { loadProvider } from '../providers/index.ts';
import { loadWebhook } from '../webhooks/index.ts';
import { EarlyAgent } from './early-agent.ts';
import { parseEnvironment, type rotateSecretEnvironment } from './env.ts';
import { factsOf } from './error-facts.ts';
import { createLog } from './logger.ts';
import { createMeasure } from './metrics.ts';
import { patience } from './patience.ts';
import { createSecretMemory } from './secret-memory.ts';

/** What every function has. */
export type Environment = z.output<typeof rotateSecretEnvironment>;

/** The one secret that comes without the store: a failed connection may name the proxy with everything in its URL. */
function proxyPasswords({ HTTPS_PROXY }: Environment): readonly string[] {
  if (HTTPS_PROXY === undefined) return [];
  const { password } = new URL(HTTPS_PROXY);
  return [password, unescaped(password)];
}

/** With what only receive-webhook uses. */
type Composed = Rekey & { readonly loadWebhook: LoadWebhook };

/** What only some functions have: the others do not even have it in their bundles. */
export interface Extras<E> {
  /** A caller waits for its first call, which goes to Secrets Manager. @default false */
  readonly isAwaited?: boolean;
  /** @default the ports to the audit trail throw */
  readonly openArchive?: (environment: E, ports: Pick<Ports, 'sleep'>) => ArchivePorts;
  /** @default the ports to the queues throw */
  readonly openQueues?: (environment: E, tools: QueueTools) => QueuePorts;
  /** @default the ports to the notes of passes throw */
  readonly openNotes?: (environment: E, clock: () => Date) => NotePorts;
}

export interface QueueTools extends Pick<Ports, 'sleep'> {
  readonly sha256: Sha256;
  readonly scrub: Redactor['scrub'];
}

type ArchivePorts = Pick<Ports, 'archive' | 'readArchive' | 'listArchive'>;
export type QueuePorts = Pick<Ports, 'enqueue' | 'enqueueStart' | 'postpone' | 'setAside'>;
type NotePorts = Pick<Ports, 'readNote' | 'listNotes' | 'writeNote' | 'deleteNote'>;

const refuse = async (): Promise<never> => {
  throw new InputError('ENVIRONMENT_INVALID', 'this function has no such queue or store');
};
const noArchive = (): ArchivePorts => ({ archive: refuse, readArchive: refuse, listArchive: refuse });
const noQueues = (): QueuePorts => ({
  enqueue: refuse,
  enqueueStart: refuse,
  postpone: refuse,
  setAside: refuse,
});
const noNotes = (): NotePorts => ({
  readNote: refuse,
  listNotes: refuse,
  writeNote: refuse,
  deleteNote: refuse,
});

/** The only place that wires. One a function instance, so that clients, connections and API answers stay warm. */
export function compose<E extends Environment>(
  environment: E,
  redactor: Redactor,
  { isAwaited = false, openArchive = noArchive, openQueues = noQueues, openNotes = noNotes }: Extras<E> = {},
): Composed {
  const sleep: Ports['sleep'] = async (ms) => {
    await pause(ms);
  };
  const clock = () => new Date();
  const log = createLog(environment.REKEY_LOG_LEVEL, redactor);
  // Each is loaded when it is called first: what an invocation has nothing to do with, it does not wait for.
  const http = once(async () =>
    (await import('../providers/http.ts')).undiciHttp({ proxyUrl: environment.HTTPS_PROXY }),
  );
  const sql = once(async () => (await import('../providers/sql.ts')).pgSql(clock));
  const valkey = once(async () => (await import('../providers/valkey.ts')).iovalkeyOverTls(clock));
  const parameters = once(async () => (await import('./parameters.ts')).openParameters(clock));
  const buses = once(async () =>
    (await import('./buses.ts')).openBuses(environment.REKEY_EVENT_BUS_NAME, { sleep }, clock),
  );
  const sha256: Sha256 = (text) => createHash('sha256').update(text, 'utf8').digest();
  const secrets = secretsManager(openSecretsManager(isAwaited), redactor, clock);
  const ports: Ports = {
    http: async (request) => (await http())(request),
    sql: async (session) => (await sql())(session),
    valkey: async (session) => (await valkey())(session),
    ...secrets,
    readSecret: createSecretMemory(clock).over(secrets.readSecret),
    readParameter: async (request) => (await parameters()).readParameter(request),
    readParameterDate: async (request) => (await parameters()).readParameterDate(request),
    readParameters: async (request) => (await parameters()).readParameters(request),
    createParameter: async (request) => (await parameters()).createParameter(request),
    writeParameter: async (request) => (await parameters()).writeParameter(request),
    deleteParameter: async (request) => (await parameters()).deleteParameter(request),
    listParameters: async (request) => (await parameters()).listParameters(request),
    publish: async (published) => (await buses()).publish(published),
    notify: async (notified) => (await buses()).notify(notified),
    ...openQueues(environment, { sleep, sha256, scrub: redactor.scrub }),
    ...openArchive(environment, { sleep }),
    ...openNotes(environment, clock),
    now: async () => clock(),
    sleep,
    randomBytes: async (size) => randomBytes(size),
  };
  return {
    ports: guardWrites(ports, clock),
    loadProvider,
    loadConsumer,
    loadWebhook,
    sha256,
    log,
    measure: createMeasure(log),
    unwritten: new Unwritten(),
  };
}

function openSecretsManager(isAwaited: boolean): SecretsManagerClient {
  if (!isAwaited) return new SecretsManagerClient({ requestHandler: patience });
  // Otherwise as the SDK makes its own.
  const agent = new EarlyAgent({ keepAlive: true, maxSockets: 50 });
  const client = new SecretsManagerClient({ requestHandler: { ...patience, httpsAgent: agent } });
  const host = endpointHost(client, process.env);
  if (host !== undefined) agent.connectEarly(host);
  return client;
}

/** The host that the client will call, where that is certain and this runs at AWS. */
function endpointHost(
  { config }: SecretsManagerClient,
  variables: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const { AWS_EXECUTION_ENV, AWS_REGION } = variables;
  const isOdd = Object.keys(variables).some((name) =>
    /^AWS_(ENDPOINT_URL|USE_FIPS|USE_DUALSTACK)/.test(name),
  );
  if (isOdd || AWS_REGION === undefined || !AWS_EXECUTION_ENV?.startsWith('AWS_Lambda_')) return undefined;
  return config.endpointProvider({ Region: AWS_REGION }).url.hostname;
}

/** Kept back from the end of an invocation: the last call must end, and its failure be reported, before Lambda stops us. */
const marginMs = 10_000;

/**
 * A handler that answers what its use case answers. Its environment is read once, when the function starts. Answers and errors
 * leave scrubbed: Lambda hands them to whoever called, and logs the errors.
 */
export function handlerOf<E extends Environment>(
  schema: Schema<E>,
  use: (event: unknown, until: Date, rekey: Composed, environment: E) => Promise<unknown>,
  extras: Extras<E> = {},
): (event: unknown, context: { getRemainingTimeInMillis(): number }) => Promise<unknown> {
  const environment = parseEnvironment(schema, process.env);
  const redactor = createRedactor(proxyPasswords(environment));
  const rekey = compose(environment, redactor, extras);
  return async (event, context) => {
    const until = new Date(Date.now() + context.getRemainingTimeInMillis() - marginMs);
    try {
      return scrubbedAnswer(await use(event, until, rekey, environment), redactor);
    } catch (error) {
      rekey.log('error', error instanceof Error ? error.message : String(error), factsOf(error));
      throw scrubbed(error, redactor);
    }
  };
}

/** The answer as Lambda would write it, with every text in it clean: a report may quote what failed. */
const scrubbedAnswer = (answer: unknown, redactor: Redactor): unknown =>
  answer === undefined
    ? undefined
    : JSON.parse(JSON.stringify(answer), (_name, value: unknown) =>
        typeof value === 'string' ? redactor.scrub(value) : value,
      );

/** The same error with a clean message and stack, and without its causes, which belong to libraries. */
function scrubbed(error: unknown, redactor: Redactor): Error {
  const original = error instanceof Error ? error : new Error(String(error));
  const clean = new Error(redactor.scrub(original.message));
  clean.name = original.name;
  clean.stack = redactor.scrub(original.stack ?? '');
  return clean;
}

export function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
