import pg from 'pg';
import { type Dispatcher, fetch, ProxyAgent } from 'undici';
import type { Clock } from '../../../../infra/local/clock.ts';
import { type Postgres, startPostgres } from '../../../../infra/local/engines/postgres.ts';
import { type SqlFront, startSqlFront } from '../../../../infra/local/engines/sql-front.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../../../../infra/local/network.ts';

/** What both vendors' suites start once: an engine and a TLS front before it. */
export interface Ground {
  readonly postgres: Postgres;
  readonly front: SqlFront;
  readonly authority: CertificateAuthority;
  stop(): Promise<void>;
}

export async function startGround(): Promise<Ground> {
  const [authority, postgres] = await Promise.all([createCertificateAuthority(), startPostgres()]);
  const certificate = await authority.certificate(['localhost', '127.0.0.1']);
  const front = await startSqlFront({ postgres, certificate });
  return {
    postgres,
    front,
    authority,
    async stop() {
      await front.close();
      await postgres.stop();
    },
  };
}

/** A clock that stands still until it is moved; sleepers wake when it passes them. */
export function createMovableClock(start: string): Clock & { move(ms: number): void } {
  let now = Date.parse(start);
  let sleepers: { at: number; wake: () => void }[] = [];
  return {
    now: () => new Date(now),
    sleep: (ms) =>
      new Promise((wake) => {
        sleepers.push({ at: now + ms, wake });
      }),
    move(ms) {
      now += ms;
      for (const { at, wake } of sleepers) if (at <= now) wake();
      sleepers = sleepers.filter(({ at }) => at > now);
    },
  };
}

/** An answer of a stand-in, read to the end. */
export interface Seen {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
  /** Parsed, or undefined where the text is not JSON. */
  readonly json: unknown;
}

export type Ask = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<Seen>;

/** Asks a vendor's real address through the closed network. */
export function createAsk(options: {
  readonly base: string;
  readonly dispatcher: Dispatcher;
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}): Ask {
  return async (method, path, body, headers = {}) => {
    const response = await fetch(`${options.base}${path}`, {
      method,
      dispatcher: options.dispatcher,
      redirect: 'manual',
      headers: { ...options.headers, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(options.timeoutMs ?? 1_000),
    });
    const text = await response.text();
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      json = undefined;
    }
    return { status: response.status, headers: Object.fromEntries(response.headers), text, json };
  };
}

export const proxied = (network: { proxyUrl: string; caPem: string }): Dispatcher =>
  new ProxyAgent({ uri: network.proxyUrl, requestTls: { ca: network.caPem } });

export interface Credentials {
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly applicationName?: string;
}

/** Logs in through the front with verified TLS. */
export async function logIn(ground: Ground, credentials: Credentials, timeoutMs = 5_000): Promise<pg.Client> {
  const client = new pg.Client({
    host: 'localhost',
    port: ground.front.port,
    user: credentials.user,
    password: credentials.password,
    database: credentials.database,
    application_name: credentials.applicationName ?? 'test',
    ssl: { ca: ground.authority.caPem },
    connectionTimeoutMillis: timeoutMs,
  });
  client.on('error', () => {});
  await client.connect();
  return client;
}

/** Logs in, asks one thing, leaves; or the SQLSTATE (else the message) of the refusal. */
export async function tryLogIn(
  ground: Ground,
  credentials: Credentials,
  timeoutMs?: number,
): Promise<string> {
  try {
    const client = await logIn(ground, credentials, timeoutMs);
    const { rows } = await client.query('SELECT current_user AS name');
    await client.end();
    return `logged in as ${rows[0].name}`;
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return code ?? message;
  }
}
