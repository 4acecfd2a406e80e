import { VerificationFailed } from '../core/errors.ts';
import { type Guard, sendGuarded } from '../core/guard.ts';
import { type Ports, SqlError, type SqlStatement } from '../core/ports.ts';
import type { EndedSessions, Login } from '../core/provider.ts';
import { confirmEnded } from './ended-sessions.ts';

/**
 * The sql port over the network, with `pg`, which is loaded at the first login. TLS always, certificate and host name
 * verified; the client cannot be talked down.
 *
 * Connecting may take longer than the guard's answer is fresh, so each statement asks the guard again right before it is sent. If the
 * guard objects, its error is thrown as it is and the session is closed, which rolls back an open transaction. `clock` is the one that
 * guards are kept by.
 */
export function pgSql(clock: () => Date): Ports['sql'] {
  return async ({ host, port, database, username, password, ca, statements, timeoutMs, guard }) => {
    const { default: pg } = await import('pg');
    const client = new pg.Client({
      host,
      port,
      database,
      user: username,
      password: password.reveal(),
      ssl: { rejectUnauthorized: true, ...(ca === undefined ? {} : { ca }) },
      connectionTimeoutMillis: timeoutMs,
      query_timeout: timeoutMs,
      application_name: 'rekey',
    });
    // A connection that breaks while idle is reported here or kills the process; the next statement fails anyway.
    client.on('error', () => undefined);
    try {
      try {
        await client.connect();
      } catch (error) {
        const sqlState = sqlStateOf(error);
        if (sqlState !== undefined && rejections.has(sqlState)) return { say: 'rejected', sqlState };
        throw new SqlError(`no session with ${host}:${port} (${reasonOf(error)})`, { sqlState });
      }
      const run = async ({ text, values }: SqlStatement, index: number) => {
        try {
          return (await client.query<Record<string, unknown>>(text, values ? [...values] : [])).rows;
        } catch (error) {
          throw new SqlError(`statement ${index + 1} failed (${reasonOf(error)})`, {
            sqlState: sqlStateOf(error),
            statement: index,
          });
        }
      };
      const rows: Record<string, unknown>[][] = [];
      for (const [index, statement] of statements.entries()) {
        const send = () => run(statement, index);
        rows.push(guard === 'reads-only' ? await send() : await sendGuarded(guard, clock, send));
      }
      return { say: 'accepted', rows };
    } finally {
      // The outcome is known; a goodbye that hangs or fails must not change it.
      await Promise.race([
        client.end().catch(() => undefined),
        new Promise((resolve) => setTimeout(resolve, 1_000).unref()),
      ]);
    }
  };
}

/** invalid_password, also for an unknown user; and invalid_authorization_specification: NOLOGIN, HBA, older CockroachDB. */
const rejections = new Set(['28P01', '28000']);

const sqlStateOf = (error: unknown): string | undefined =>
  error instanceof Error &&
  'code' in error &&
  typeof error.code === 'string' &&
  /^[0-9A-Z]{5}$/.test(error.code)
    ? error.code
    : undefined;

/** A code where there is one: server texts may quote a statement. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'failure';
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
}

/** The URL that PostgreSQL's clients take as it is, whatever the password holds. */
export function postgresUrl(
  { host, port, database, username, password }: Login,
  sslmode: 'require' | 'verify-full',
): string {
  const url = new URL(`postgresql://${host}:${port}/${encodeURIComponent(database)}`);
  url.username = username;
  url.password = encodeURIComponent(password.reveal());
  url.searchParams.set('sslmode', sslmode);
  return url.href;
}

/**
 * Runs `end`, a statement that ends sessions, and then looks how many are left. A server that does not let this
 * login do it has not ended any.
 */
export async function endSessionsBySql(
  login: Login,
  { end, look }: { readonly end: SqlStatement; readonly look: () => Promise<number | string> },
  { guard, until }: { readonly guard: Guard; readonly until: Date },
  { sql, now, sleep }: Pick<Ports, 'sql' | 'now' | 'sleep'>,
): Promise<EndedSessions> {
  try {
    const outcome = await sql({ ...login, statements: [end], timeoutMs: 15_000, guard });
    if (outcome.say === 'rejected')
      return { ended: false, reason: `${login.username} could not log in to end them` };
    return await confirmEnded(look, until, { now, sleep });
  } catch (error) {
    if (!(error instanceof SqlError)) throw error;
    return { ended: false, reason: error.message };
  }
}

/** One login as a consumer would, and nothing else. Network trouble is its own error, never a no. */
export async function verifyBySql(
  login: Login,
  { sql }: Pick<Ports, 'sql'>,
): Promise<'accepted' | 'rejected'> {
  try {
    const statements = [{ text: 'SELECT 1' }];
    return (await sql({ ...login, statements, timeoutMs: 15_000, guard: 'reads-only' })).say;
  } catch (error) {
    throw error instanceof SqlError ? loginUnreachable(error) : error;
  }
}

/** The session failed before it could tell anything about the user. */
export const loginUnreachable = (error: SqlError): VerificationFailed =>
  new VerificationFailed(
    'LOGIN_UNREACHABLE',
    `${error.message}; check the vendor's IP allow-list and the functions' way out, or set "verify": "none" in the spec`,
    { cause: error },
  );
