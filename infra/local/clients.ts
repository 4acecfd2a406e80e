import { setTimeout as pause } from 'node:timers/promises';
import { GetSecretValueCommand, type SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import pg from 'pg';
import { z } from 'zod';

/** Applications that log in all the time, as consumers of one credential do. */
export interface Clients {
  readonly logins: number;
  /** Logins that were refused or broke. The cached password being outdated is no excuse: it is within its grace. */
  readonly failures: readonly string[];
  /** Every user that an application has logged in as, in the order of their first appearance. */
  readonly usernames: readonly string[];
  /** Ends after the logins under way. */
  stop(): Promise<void>;
}

export interface ClientsOptions {
  readonly secretsManager: SecretsManagerClient;
  readonly secretId: string;
  readonly ca: string;
  /** How many log in side by side. */
  readonly count: number;
}

const valueSchema = z.object({
  host: z.string(),
  port: z.number(),
  username: z.string(),
  password: z.string(),
  dbname: z.string(),
});
type Value = z.output<typeof valueSchema>;

/** The shortest and the longest time for which an application keeps what it read, milliseconds. */
const cacheMs = { shortest: 200, longest: 3_000 };

export function startClients({ secretsManager, secretId, ca, count }: ClientsOptions): Clients {
  const failures: string[] = [];
  const usernames = new Set<string>();
  let logins = 0;
  let stopped = false;

  const read = async (): Promise<Value> => {
    const { SecretString } = await secretsManager.send(new GetSecretValueCommand({ SecretId: secretId }));
    return valueSchema.parse(JSON.parse(SecretString ?? ''));
  };

  async function logIn({ host, port, username, password, dbname }: Value): Promise<void> {
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

  async function application(keepMs: number): Promise<void> {
    let value = await read();
    let readAt = Date.now();
    while (!stopped) {
      if (Date.now() - readAt > keepMs) {
        value = await read();
        readAt = Date.now();
      }
      logins += 1;
      try {
        await logIn(value);
        usernames.add(value.username);
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? String(error.code) : 'no code';
        failures.push(`${value.username}: ${code}`);
        readAt = 0;
      }
      await pause(5);
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
    async stop() {
      stopped = true;
      await ended;
    },
  };
}
