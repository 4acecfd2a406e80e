import { setTimeout as pause } from 'node:timers/promises';
import { GetSecretValueCommand, type SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { Redis } from 'iovalkey';
import pg from 'pg';
import { ProxyAgent, request } from 'undici';
import * as z from 'zod';

/** Applications that log in all the time, as consumers of one credential do. */
export interface Clients {
  readonly logins: number;
  /** Logins that were refused or broke. The cached password being outdated is no excuse: it is within its grace. */
  readonly failures: readonly FailedLogin[];
  /** Every user that an application has logged in as, in the order of their first appearance. */
  readonly usernames: readonly string[];
  /** The users that applications hold the login of at this moment. */
  holding(): readonly string[];
  /** Ends after the logins under way. */
  stop(): Promise<void>;
}

export interface FailedLogin {
  readonly username: string;
  readonly code: string;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly endedAt: number;
}

export interface ClientsOptions {
  readonly secretsManager: SecretsManagerClient;
  readonly secretId: string;
  /** The way to hosts that exist on this machine only. */
  readonly proxyUrl: string;
  readonly ca: string;
  /** How many log in side by side. */
  readonly count: number;
  /** For how long each keeps what it read, milliseconds, spread over the applications. @default 200 to 3000 */
  readonly cacheMs?: { readonly shortest: number; readonly longest: number };
}

const postgresSchema = z.object({
  engine: z.literal('postgres'),
  host: z.string(),
  port: z.number(),
  username: z.string(),
  password: z.string(),
  dbname: z.string(),
});
const milvusSchema = z.object({
  engine: z.literal('milvus'),
  username: z.string(),
  uri: z.string(),
  token: z.string(),
});
const valkeySchema = z.object({ engine: z.literal('valkey'), username: z.string(), url: z.string() });
/** Applications choose their driver by `engine`. */
const valueSchema = z.discriminatedUnion('engine', [postgresSchema, milvusSchema, valkeySchema]);
type Value = z.output<typeof valueSchema>;

export function startClients({
  secretsManager,
  secretId,
  proxyUrl,
  ca,
  count,
  cacheMs = { shortest: 200, longest: 3_000 },
}: ClientsOptions): Clients {
  const dispatcher = new ProxyAgent({ uri: proxyUrl, requestTls: { ca } });
  const failures: FailedLogin[] = [];
  const usernames = new Set<string>();
  /** By application: no two keep what they read for the same time. */
  const held = new Map<number, string>();
  let logins = 0;
  let stopped = false;

  const read = async (): Promise<Value> => {
    const { SecretString } = await secretsManager.send(new GetSecretValueCommand({ SecretId: secretId }));
    return valueSchema.parse(JSON.parse(SecretString ?? ''));
  };

  async function logInToPostgres(value: z.output<typeof postgresSchema>): Promise<void> {
    const { host, port, username, password, dbname } = value;
    const client = new pg.Client({
      host,
      port,
      user: username,
      password,
      database: dbname,
      ssl: { ca },
      application_name: 'orders-api',
      connectionTimeoutMillis: 10_000,
    });
    client.on('error', () => undefined); // the failure of the statement under way says the same
    try {
      await client.connect();
      // Rights count as much as the login: a user that may read nothing is as useless as one that is locked out.
      await client.query('SELECT count(*) FROM orders');
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  async function logInToMilvus({ uri, token }: z.output<typeof milvusSchema>): Promise<void> {
    const { statusCode, body } = await request(`${uri}/v2/vectordb/collections/list`, {
      dispatcher,
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: '{}',
      signal: AbortSignal.timeout(10_000),
    });
    const answer = z.object({ code: z.number() }).safeParse(await body.json());
    const code = answer.success ? answer.data.code : statusCode;
    if (code !== 0) throw Object.assign(new Error('the cluster refused the login'), { code });
  }

  async function logInToValkey({ url }: z.output<typeof valkeySchema>): Promise<void> {
    const client = new Redis(url, {
      tls: { ca },
      lazyConnect: true,
      // INFO, which a user with the rights of an application is refused.
      enableReadyCheck: false,
      retryStrategy: () => null,
      connectTimeout: 10_000,
      commandTimeout: 10_000,
    });
    let failure: unknown;
    client.on('error', (error) => {
      failure ??= error;
    });
    try {
      await client.connect();
      await client.set('orders:latest', 'tea');
      await client.get('orders:latest');
    } catch (error) {
      // The connection's own failure where there is one; an error reply begins with its code.
      const cause = failure ?? error;
      const code =
        cause instanceof Error ? ('code' in cause ? cause.code : cause.message.split(' ', 1)[0]) : 'no code';
      throw Object.assign(new Error('the database refused the login or a command'), { code });
    } finally {
      client.disconnect();
    }
  }

  const logIn = (value: Value): Promise<void> => {
    switch (value.engine) {
      case 'postgres':
        return logInToPostgres(value);
      case 'milvus':
        return logInToMilvus(value);
      case 'valkey':
        return logInToValkey(value);
      default:
        return value satisfies never;
    }
  };

  async function application(keepMs: number): Promise<void> {
    let value = await read();
    held.set(keepMs, value.username);
    let readAt = Date.now();
    while (!stopped) {
      if (Date.now() - readAt > keepMs) {
        value = await read();
        held.set(keepMs, value.username);
        readAt = Date.now();
      }
      logins += 1;
      const startedAt = Date.now();
      try {
        await logIn(value);
        usernames.add(value.username);
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? String(error.code) : 'no code';
        failures.push({ username: value.username, code, startedAt, endedAt: Date.now() });
        readAt = 0;
      }
      // Often enough to be there whenever something changes, and no more: both cores have other work.
      await pause(40);
    }
  }

  const running = Array.from({ length: count }, (_, index) =>
    application(cacheMs.shortest + ((cacheMs.longest - cacheMs.shortest) * index) / Math.max(1, count - 1)),
  );
  const ended = Promise.all(running);
  // Reported by stop(): an application that cannot even read its secret is a failure of the run.
  ended.catch(() => undefined);
  return {
    get logins() {
      return logins;
    },
    failures,
    get usernames() {
      return [...usernames];
    },
    holding: () => [...new Set(held.values())],
    async stop() {
      stopped = true;
      await ended.finally(() => dispatcher.close());
    },
  };
}

/** A connection that an application opened long ago and forgot. */
export interface ForgottenConnection {
  readonly username: string;
  /** Whether it still answers. */
  isOpen(): Promise<boolean>;
  close(): Promise<void>;
}

/** Connects as that label's user under `applicationName`, and stays; undefined where the engine knows no connections. */
export async function forgetConnection({
  secretsManager,
  secretId,
  label,
  ca,
  applicationName,
}: Pick<ClientsOptions, 'secretsManager' | 'secretId' | 'ca'> & {
  readonly label: 'AWSCURRENT' | 'AWSPREVIOUS';
  readonly applicationName: string;
}): Promise<ForgottenConnection | undefined> {
  const { SecretString } = await secretsManager.send(
    new GetSecretValueCommand({ SecretId: secretId, VersionStage: label }),
  );
  const value = valueSchema.parse(JSON.parse(SecretString ?? ''));
  const answers = (asked: Promise<unknown>): Promise<boolean> =>
    asked.then(
      () => true,
      () => false,
    );
  switch (value.engine) {
    case 'postgres': {
      const { host, port, username, password, dbname } = value;
      const client = new pg.Client({
        host,
        port,
        user: username,
        password,
        database: dbname,
        ssl: { ca },
        application_name: applicationName,
      });
      client.on('error', () => undefined); // it may be ended by rekey: that is what a run looks for
      await client.connect();
      return {
        username,
        isOpen: () => answers(client.query('SELECT 1')),
        close: () => client.end().catch(() => undefined),
      };
    }
    case 'valkey': {
      const client = new Redis(value.url, {
        tls: { ca },
        lazyConnect: true,
        enableReadyCheck: false,
        retryStrategy: () => null,
      });
      client.on('error', () => undefined);
      await client.connect();
      await client.client('SETNAME', applicationName);
      return {
        username: value.username,
        isOpen: () => answers(client.get('orders:latest')),
        close: async () => client.disconnect(),
      };
    }
    case 'milvus':
      return undefined;
    default:
      return value satisfies never;
  }
}
