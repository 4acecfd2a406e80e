import { VerificationFailed } from '../core/errors.ts';
import type { Guard } from '../core/guard.ts';
import { type Ports, SqlError, type SqlStatement } from '../core/ports.ts';
import type { EndedSessions, Login } from '../core/provider.ts';

/**
 * The sql port over the network, with `pg`, which is loaded at the first login. TLS always, certificate and host name
 * verified; the client cannot be talked down.
 */
export function pgSql(): Ports['sql'] {
  return async ({ host, port, database, username, password, ca, statements, timeoutMs }) => {
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
      const rows: Record<string, unknown>[][] = [];
      for (const [index, { text, values }] of statements.entries()) {
        try {
          rows.push((await client.query<Record<string, unknown>>(text, values ? [...values] : [])).rows);
        } catch (error) {
          throw new SqlError(`statement ${index + 1} failed (${reasonOf(error)})`, {
            sqlState: sqlStateOf(error),
            statement: index,
          });
        }
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

/** How often it is looked whether the sessions are gone: a server ends them when they next listen. */
const looks = [0, 500, 2_000];

/**
 * Runs a statement that ends sessions, and looks whether any is left: a server that does not let this login end them has not ended
 * any, whatever it answers. `left` selects those that were to be ended.
 */
export async function endSessionsBySql(
  login: Login,
  { end, left }: { readonly end: SqlStatement; readonly left: SqlStatement },
  guard: Guard,
  { sql, sleep }: Pick<Ports, 'sql' | 'sleep'>,
): Promise<EndedSessions> {
  try {
    const outcome = await sql({ ...login, statements: [end], timeoutMs: 15_000, guard });
    if (outcome.say === 'rejected')
      return { ended: false, reason: `${login.username} could not log in to end them` };
    let remaining = 0;
    for (const wait of looks) {
      await sleep(wait);
      const seen = await sql({ ...login, statements: [left], timeoutMs: 15_000, guard: 'reads-only' });
      if (seen.say === 'rejected')
        return { ended: false, reason: `${login.username} could not log in to look` };
      remaining = seen.rows[0]?.length ?? 0;
      if (remaining === 0) return { ended: true };
    }
    return { ended: false, reason: `${remaining} of them are still open` };
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
    return (
      await sql({ ...login, statements: [{ text: 'SELECT 1' }], timeoutMs: 15_000, guard: 'reads-only' })
    ).say;
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
