import { randomUUID } from 'node:crypto';
import type { RequestListener } from 'node:http';
import type * as z from 'zod';
import type {
  clusterSchema,
  connectionStringSchema,
  sqlUserSchema,
  sqlUsersSchema,
} from '../../../functions/providers/cockroachdb-cloud/api.ts';
import type { Clock } from '../clock.ts';
import { type Postgres, quoteIdentifier, quoteLiteral } from '../engines/postgres.ts';
import { matchesVerifier, scramVerifier } from '../engines/scram.ts';
import type { Refusal, SqlFront } from '../engines/sql-front.ts';
import { type Answer, createFaultBox, type FaultBox, type RetryAfter, retryAfterHeader } from './faults.ts';
import {
  createRateLimiter,
  createVendorListener,
  type Handling,
  type Lag,
  type Lagging,
  lagging,
  type RecordedCall,
  Refused,
  type VendorRequest,
} from './vendor-http.ts';

export type CockroachdbOperation =
  | 'getCluster'
  | 'getConnectionString'
  | 'listUsers'
  | 'createUser'
  | 'deleteUser'
  | 'setPassword'
  | 'listAuditLogs'
  | 'getCertificate'
  | 'deleteCluster'
  | 'changeCluster'
  | 'unknown';

/** What CockroachDB Cloud's documents leave open, and what is slow there. */
export interface CockroachdbSwitches {
  /** How late the list follows a change. @default at once */
  delays: { userListed: Lag; userUnlisted: Lag };
  /** How long after the answer a change takes effect for logins; until then the old password works. */
  effectAfterMs: { createUser: number; setPassword: number };
  /** The largest page, whatever the client asks for. */
  pageSize: number;
  endOfList: 'absent-pagination' | 'absent' | 'null' | 'empty';
  /** The next page's token never changes, so the list never ends. */
  repeatedToken: boolean;
  errorBody: 'object-details' | 'string-details' | 'no-code' | 'empty-object' | 'empty' | 'html';
  duplicate: '409' | '400' | '500' | 'changes-password';
  /** PUT of the password that the user has already. */
  samePassword: 'accept' | 'refuse';
  /** PUT makes the user an admin again, as it once did. */
  passwordGrantsAdmin: boolean;
  passwordClearsValidUntil: boolean;
  dependencies: '400' | '500' | 'clean-up';
  /** DROP OWNED BY is refused in a transaction of several statements (cockroach PR 137739), or works there as in PostgreSQL. */
  dropOwned: 'refused' | 'works';
  connectionsOfDeleted: 'kept' | 'ended';
  connectionsAfterPassword: 'kept' | 'ended';
  whileLocked: 'work' | 'refuse';
  /** Whether the cluster answer names `sql_dns`. */
  sqlDns: 'present' | 'absent';
  plan: string;
  /** `starting_from` of the audit log includes entries of that very instant. */
  startingFrom: 'exclusive' | 'inclusive';
  /** Names that are listed although no such role exists, such as `sso_jane`. */
  listedOnly: readonly string[];
  /** Names that exist and are not listed. */
  unlisted: readonly string[];
  /** Calls a second and key. */
  limit: number;
  rateLimited: { status: 429 | 503 | 400; retryAfter: RetryAfter | undefined };
}

export interface CockroachdbClusterOptions {
  /** @default a made UUID */
  readonly id?: string;
  readonly name: string;
  /** Makes these users, as a person with a SQL shell would, with ordinary rights. @default ['reporting'] */
  readonly humanUsers?: readonly string[];
}

export interface CockroachdbUser {
  readonly username: string;
  readonly isAdmin: boolean;
  /** Other roles it is a member of. */
  readonly roles: readonly string[];
}

export interface CockroachdbCluster {
  readonly id: string;
  readonly name: string;
  readonly isDeleted: boolean;
  /** Everybody who may log in, and `admin`. */
  users(): Promise<readonly CockroachdbUser[]>;
}

export interface AuditEntry {
  readonly id: string;
  readonly action: string;
  readonly created_at: string;
  readonly cluster_id: string;
  readonly cluster_name: string;
  readonly user_email?: string;
  readonly service_account_name?: string;
  readonly source: string;
  readonly error?: string;
  readonly payload: string;
  readonly trace_id: string;
  readonly metadata: { readonly ip_address: string };
}

/** What other people do at the vendor, past rekey and past rate limits and faults. */
export interface CockroachdbActor {
  createUser(clusterId: string, username: string, password: string): Promise<void>;
  deleteUser(clusterId: string, username: string): Promise<void>;
  setPassword(clusterId: string, username: string, password: string): Promise<void>;
  grantAdmin(clusterId: string, username: string): Promise<void>;
  /** `CREATED`, `LOCKED` or any other. */
  setState(clusterId: string, state: string): void;
  revokeKey(apiKey: string): void;
}

/** CockroachDB Cloud's API, in front of real roles in a PostgreSQL that behaves like CockroachDB where roles are concerned. */
export interface CockroachdbCloud {
  readonly host: 'cockroachlabs.cloud';
  readonly listener: RequestListener;
  readonly faults: FaultBox<CockroachdbOperation>;
  readonly switches: CockroachdbSwitches;
  /** Every call, oldest first. */
  readonly calls: readonly RecordedCall<CockroachdbOperation>[];
  /** Calls that deleted or changed a cluster: there must never be one. */
  readonly catastrophes: readonly RecordedCall<CockroachdbOperation>[];
  readonly auditLog: readonly AuditEntry[];
  readonly actor: CockroachdbActor;
  readonly clusters: ReadonlyMap<string, CockroachdbCluster>;
  /** All clusters of one stand-in share the roles of its engine. */
  addCluster(options: CockroachdbClusterOptions): Promise<CockroachdbCluster>;
}

export interface CockroachdbCloudOptions {
  /** An engine of its own: `admin` and `root` are its superusers. */
  readonly postgres: Postgres;
  readonly front: SqlFront;
  readonly clock: Clock;
  readonly apiKeys: readonly string[];
  /** What the certificate endpoint of Advanced clusters answers. @default no certificate: 404 */
  readonly caPem?: string;
  readonly switches?: Partial<CockroachdbSwitches>;
}

// The client's own schemas, so that client and stand-in cannot disagree about a name.
type ClusterBody = z.input<typeof clusterSchema>;
type ConnectionStringBody = z.input<typeof connectionStringSchema>;
type SqlUserBody = z.input<typeof sqlUserSchema>;
type SqlUsersBody = z.input<typeof sqlUsersSchema>;

interface StoredCluster {
  readonly id: string;
  readonly name: string;
  state: string;
  isDeleted: boolean;
}

/** The check runs on the folded name (cockroach `pkg/security/username/username.go`). */
const namePattern = /^[\p{Ll}0-9_][-\p{Ll}0-9_.]*$/u;
const reservedPattern = /^(public|none|node|pg_.*|crdb_internal_.*)$/;
const builtIn = new Set(['root', 'admin']);
const folded = (name: string): string => name.normalize('NFC').toLowerCase();

const httpStatus: Readonly<Record<number, number>> = {
  3: 400,
  5: 404,
  6: 409,
  7: 403,
  8: 429,
  9: 400,
  13: 500,
  16: 401,
};
const errorInfo = { '@type': 'type.googleapis.com/google.rpc.ErrorInfo', domain: 'cockroachlabs.cloud' };

/** A failure before it is put into one of the shapes that errors come in. */
class Failure extends Error {
  override readonly name = 'Failure';
  readonly code: number;
  readonly status: number;
  constructor(code: number, message: string, status = httpStatus[code] ?? 500) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

const sqlStateOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

/**
 * What stands in the way of a DROP ROLE in the words of cockroach's `drop_role.go`, which looks for grants first. PostgreSQL
 * lists it line by line, without the database, and only counts what is in other databases.
 */
function dependenciesIn(username: string, error: unknown): string {
  const detail = error instanceof Error && 'detail' in error ? String(error.detail) : '';
  const lines = detail.split('\n');
  const granted = lines.flatMap((line) => /^privileges for (?!default )\w+ (\S+)$/.exec(line)?.[1] ?? []);
  if (granted.length > 0)
    return `cannot drop role/user ${username}: grants still exist on ${granted.map((name) => `defaultdb.public.${name}`).join(', ')}`;
  const owned = lines.map((line) =>
    line
      .replace(/^owner of table (\S+)$/, 'owner of table defaultdb.public.$1')
      .replace(/^\d+ objects? in database (\S+)$/, 'owner of table $1.public.notes'),
  );
  return [`role ${username} cannot be dropped because some objects depend on it`, ...owned].join('\n');
}

/** Role members of `admin`, through any number of roles in between. */
const adminMembers = `
  WITH RECURSIVE member(oid) AS (
    SELECT m.member FROM pg_auth_members m JOIN pg_roles a ON a.oid = m.roleid WHERE a.rolname = 'admin'
    UNION
    SELECT m.member FROM pg_auth_members m JOIN member ON m.roleid = member.oid
  )`;

/** Everybody sees their own sessions and an admin all of them, also those of users that are gone. */
const sessionsView = (superuser: string) => `
  CREATE SCHEMA crdb_internal;
  GRANT USAGE ON SCHEMA crdb_internal TO PUBLIC;
  GRANT CREATE ON SCHEMA public TO PUBLIC;
  CREATE TABLE crdb_internal.former_users (oid oid PRIMARY KEY, name text NOT NULL);
  CREATE FUNCTION crdb_internal.sessions(viewer name)
    RETURNS TABLE (node_id bigint, session_id text, status text, user_name text, client_address text,
                   application_name text, session_start timestamptz, active_query_start timestamptz)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
      SELECT 1::bigint, md5(a.pid || '/' || a.backend_start), CASE a.state WHEN 'active' THEN 'ACTIVE' ELSE 'IDLE' END,
             coalesce(a.usename::text, f.name), host(a.client_addr) || ':' || a.client_port, a.application_name,
             a.backend_start, CASE a.state WHEN 'active' THEN a.query_start END
        FROM pg_stat_activity a LEFT JOIN crdb_internal.former_users f ON f.oid = a.usesysid
       WHERE a.backend_type = 'client backend'
         AND a.usename IS DISTINCT FROM ${quoteLiteral(superuser)}
         AND (a.usename = viewer OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = viewer AND r.rolsuper))
    $$;
  CREATE FUNCTION crdb_internal.asking_session() RETURNS text
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
      SELECT md5(pid || '/' || backend_start) FROM pg_stat_activity WHERE pid = pg_backend_pid()
    $$;
  CREATE VIEW crdb_internal.cluster_sessions AS SELECT * FROM crdb_internal.sessions(session_user);
  GRANT SELECT ON crdb_internal.cluster_sessions TO PUBLIC;
  CREATE FUNCTION crdb_internal.cancel_sessions(ids text[])
    RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
      BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = session_user AND rolsuper) THEN
          RAISE EXCEPTION 'this operation requires CANCELQUERY privilege' USING ERRCODE = '42501';
        END IF;
        RETURN (SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a
                 WHERE md5(a.pid || '/' || a.backend_start) = ANY (ids));
      END
    $$;`;

/** Statements of CockroachDB's own that rekey sends. */
const cancelSessions = /^CANCEL SESSIONS \((SELECT .*)\)$/s;
const showSession = /^SHOW session_id$/;
const shownSession = '[SHOW session_id]';
const askingSession = 'SELECT crdb_internal.asking_session() AS session_id';

/** rekey sends it in a transaction only, so that the text is enough to tell. */
const dropOwned = /^DROP OWNED BY\b.*$/s;
const refusedDropOwned = `DO $$ BEGIN RAISE EXCEPTION 'DROP OWNED BY is not supported here' USING ERRCODE = '0A000'; END $$`;

/** Makes the stand-in; it has no cluster until one is added. The front's rules are set by it. */
export function createCockroachdbCloud(options: CockroachdbCloudOptions): CockroachdbCloud {
  const { postgres, front, clock, caPem } = options;
  const apiKeys = new Set(options.apiKeys);
  const stored = new Map<string, StoredCluster>();
  const clusters = new Map<string, CockroachdbCluster>();
  const calls: RecordedCall<CockroachdbOperation>[] = [];
  const auditLog: AuditEntry[] = [];
  const faults = createFaultBox<CockroachdbOperation>();
  const switches: CockroachdbSwitches = {
    delays: { userListed: {}, userUnlisted: {} },
    effectAfterMs: { createUser: 0, setPassword: 0 },
    pageSize: 500,
    endOfList: 'absent',
    repeatedToken: false,
    errorBody: 'object-details',
    duplicate: '409',
    samePassword: 'accept',
    passwordGrantsAdmin: false,
    passwordClearsValidUntil: false,
    dependencies: '400',
    dropOwned: 'refused',
    connectionsOfDeleted: 'kept',
    connectionsAfterPassword: 'kept',
    whileLocked: 'work',
    sqlDns: 'present',
    plan: 'STANDARD',
    startingFrom: 'exclusive',
    listedOnly: [],
    unlisted: [],
    limit: 10,
    rateLimited: { status: 429, retryAfter: 1 },
    ...options.switches,
  };
  /** Where the list lags behind the roles: whether a name is seen. */
  const seen = new Map<string, Lagging<boolean>>();
  /** The verifier that counts as the user's password, also while it has not taken effect yet. */
  const verifiers = new Map<string, string>();

  // Role changes in parallel fail in PostgreSQL ("tuple concurrently updated"); the vendor has a queue of its own.
  let queue: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = queue.then(work);
    queue = turn.catch(() => {});
    return turn;
  };

  /**
   * Being a member of `admin` is what makes a superuser. PostgreSQL has no such rule, so the attribute follows the
   * membership: before each login, and after each transaction that changed a role, before its client hears of it.
   */
  const followMembership = async (): Promise<void> => {
    const rows = await postgres.query(
      `${adminMembers}
       SELECT r.rolname AS name, (r.oid IN (SELECT oid FROM member)) AS admin FROM pg_roles r
        WHERE r.rolname NOT IN ('admin', $1) AND r.rolsuper <> (r.oid IN (SELECT oid FROM member))`,
      [postgres.superuser.user],
    );
    for (const { name, admin } of rows)
      await postgres.query(
        `ALTER ROLE ${quoteIdentifier(String(name))} ${admin ? 'SUPERUSER' : 'NOSUPERUSER'}`,
      );
  };

  const roleExists = async (name: string): Promise<boolean> =>
    (await postgres.query('SELECT FROM pg_roles WHERE rolname = $1', [name])).length > 0;

  const grantAdmin = async (username: string): Promise<void> => {
    await postgres.query(`GRANT admin TO ${quoteIdentifier(username)} WITH ADMIN OPTION`);
    await followMembership();
  };

  const makeUser = async (username: string, password: string): Promise<void> => {
    const verifier = scramVerifier(password);
    const role = quoteIdentifier(username);
    const withPassword = `PASSWORD ${quoteLiteral(verifier)}`;
    const delayMs = switches.effectAfterMs.createUser;
    await postgres.query(`CREATE ROLE ${role} LOGIN ${delayMs > 0 ? '' : withPassword}`);
    verifiers.set(username, verifier);
    if (delayMs > 0) later(delayMs, username, verifier);
    await grantAdmin(username);
  };

  /** Takes effect unless a newer password has come or the user has gone. */
  const later = (ms: number, username: string, verifier: string): void => {
    void clock.sleep(ms).then(
      () =>
        inTurn(async () => {
          if (verifiers.get(username) !== verifier) return;
          await postgres.query(`ALTER ROLE ${quoteIdentifier(username)} PASSWORD ${quoteLiteral(verifier)}`);
        }).catch(() => {}), // the engine was stopped meanwhile
    );
  };

  const endConnections = async (username: string): Promise<void> => {
    await postgres.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [
      username,
    ]);
  };

  const changePassword = async (username: string, password: string): Promise<void> => {
    const verifier = scramVerifier(password);
    const role = quoteIdentifier(username);
    verifiers.set(username, verifier);
    if (switches.effectAfterMs.setPassword > 0) later(switches.effectAfterMs.setPassword, username, verifier);
    else await postgres.query(`ALTER ROLE ${role} PASSWORD ${quoteLiteral(verifier)}`);
    if (switches.passwordClearsValidUntil) await postgres.query(`ALTER ROLE ${role} VALID UNTIL 'infinity'`);
    if (switches.passwordGrantsAdmin) await grantAdmin(username);
    if (switches.connectionsAfterPassword === 'ended') await endConnections(username);
  };

  const databaseNames = async (): Promise<readonly string[]> =>
    (await postgres.query('SELECT datname FROM pg_database WHERE NOT datistemplate')).map((row) =>
      String(row['datname']),
    );

  const dropUser = async (username: string): Promise<void> => {
    const role = quoteIdentifier(username);
    if (switches.connectionsOfDeleted === 'ended') await endConnections(username);
    if (switches.dependencies === 'clean-up') {
      for (const database of await databaseNames()) {
        await postgres.query(`REASSIGN OWNED BY ${role} TO root`, [], database);
        await postgres.query(`DROP OWNED BY ${role}`, [], database);
      }
    }
    const rows = await postgres.query('SELECT oid FROM pg_roles WHERE rolname = $1', [username]);
    try {
      await postgres.query(`DROP ROLE ${role}`, [], 'defaultdb');
    } catch (error) {
      if (sqlStateOf(error) !== '2BP01') throw error;
      const message = `${dependenciesIn(username, error)} (SQLSTATE 2BP01)`;
      throw switches.dependencies === '500' ? new Failure(13, message) : new Failure(9, message);
    }
    await postgres.query(
      'INSERT INTO crdb_internal.former_users SELECT $1, $2 ON CONFLICT DO NOTHING',
      [rows[0]?.['oid'], username],
      'defaultdb',
    );
    verifiers.delete(username);
    const lag = lagging(true, clock);
    lag.set(false, switches.delays.userUnlisted);
    seen.set(username, lag);
  };

  const clusterOf = (id: string): StoredCluster => {
    const found = stored.get(id);
    if (found === undefined || found.isDeleted) throw new Failure(5, 'cluster not found');
    return found;
  };
  /** The cluster whose users a call changes or reads. */
  const usableCluster = (id: string): StoredCluster => {
    const found = clusterOf(id);
    if (found.state !== 'CREATED' && switches.whileLocked === 'refuse')
      throw new Failure(9, `cluster is in state ${found.state}`);
    return found;
  };

  const audit = (
    cluster: StoredCluster,
    action: 'CREATE_SQL_USER' | 'CHANGE_SQL_USER_PASSWORD' | 'DELETE_SQL_USER',
    username: string,
    by: 'api' | 'person',
    error?: string,
  ): void => {
    auditLog.push({
      id: randomUUID(),
      action: `AUDIT_LOG_ACTION_${action}`,
      created_at: clock.now().toISOString(),
      cluster_id: cluster.id,
      cluster_name: cluster.name,
      ...(by === 'api' ? { service_account_name: 'rekey' } : { user_email: 'jane@example.com' }),
      source: by === 'api' ? 'AUDIT_LOG_SOURCE_CC_API' : 'AUDIT_LOG_SOURCE_UI',
      ...(error === undefined ? {} : { error }),
      payload: Buffer.from(JSON.stringify({ user: username })).toString('base64'),
      trace_id: randomUUID(),
      metadata: { ip_address: by === 'api' ? '127.0.0.1' : '192.0.2.7' },
    });
  };

  const checkedName = (asked: string): string => {
    const name = folded(asked);
    const isFine = namePattern.test(name) && !reservedPattern.test(name) && Buffer.byteLength(name) <= 63;
    if (!isFine) throw new Failure(3, 'username is invalid');
    return name;
  };
  const checkPassword = (password: string): void => {
    if (password.length < 12) throw new Failure(3, 'password must be at least 12 characters');
  };

  const listable = async (): Promise<readonly string[]> => {
    const rows = await postgres.query(
      "SELECT rolname FROM pg_roles WHERE (rolcanlogin OR rolname = 'admin' OR rolname = ANY ($2)) AND rolname <> $1",
      [postgres.superuser.user, [...verifiers.keys()]],
    );
    const real = rows.map((row) => String(row['rolname']));
    const lingering = [...seen.keys()].filter((name) => !real.includes(name));
    return [...new Set([...real, ...lingering])].filter((name) => seen.get(name)?.read() ?? true);
  };

  const listUsers = async (query: URLSearchParams): Promise<Answer> => {
    const isDescending = query.get('pagination.sort_order') === 'DESC';
    const names = [...(await listable()), ...switches.listedOnly]
      .filter((name) => !switches.unlisted.includes(name))
      .sort((a, b) => (a < b ? -1 : 1) * (isDescending ? -1 : 1));
    const asked = Number(query.get('pagination.limit') || switches.pageSize);
    const size = Math.max(1, Math.min(asked, switches.pageSize));
    const token = query.get('pagination.page') ?? '';
    const after = token === '' ? undefined : Buffer.from(token, 'base64url').toString('utf8');
    const isAfter = (name: string): boolean =>
      after === undefined || switches.repeatedToken || (isDescending ? name < after : name > after);
    const rest = names.filter(isAfter);
    const page = rest.slice(0, size);
    const last = page.at(-1);
    const users = page.map((name): SqlUserBody => ({ name }));
    const isEnd = rest.length <= size && !switches.repeatedToken;
    const body = (pagination?: Record<string, string | null>): Answer => ({
      status: 200,
      json: { users, ...(pagination === undefined ? {} : { pagination }) } satisfies SqlUsersBody,
    });
    if (!isEnd)
      return body({
        next_page: Buffer.from(switches.repeatedToken ? 'again' : (last ?? '')).toString('base64url'),
        ...(token === '' ? {} : { previous_page: token }),
      });
    switch (switches.endOfList) {
      case 'absent-pagination':
        return body();
      case 'absent':
        return body({});
      case 'null':
        return body({ next_page: null });
      case 'empty':
        return body({ next_page: '' });
      default:
        return switches.endOfList satisfies never;
    }
  };

  const createUser = async (cluster: StoredCluster, asked: unknown, password: unknown): Promise<string> => {
    if (typeof asked !== 'string' || typeof password !== 'string')
      throw new Failure(3, 'name and password are required');
    const username = checkedName(asked);
    if (builtIn.has(username)) throw new Failure(3, `username "${username}" is reserved`);
    checkPassword(password);
    if (await roleExists(username)) {
      if (switches.duplicate === 'changes-password') await changePassword(username, password);
      else if (switches.duplicate === '400') throw new Failure(3, `user ${username} already exists`);
      else if (switches.duplicate === '500') throw new Failure(13, `a user named ${username} already exists`);
      else throw new Failure(6, 'user already exists');
      return username;
    }
    await makeUser(username, password);
    const lag = lagging(false, clock);
    lag.set(true, switches.delays.userListed);
    seen.set(username, lag);
    audit(cluster, 'CREATE_SQL_USER', username, 'api');
    return username;
  };

  const deleteUser = async (asked: string): Promise<string> => {
    const username = checkedName(asked);
    if (builtIn.has(username)) throw new Failure(3, `user ${username} cannot be dropped`);
    if (!(await roleExists(username))) throw new Failure(5, 'user not found');
    await dropUser(username);
    return username;
  };

  const setPassword = async (asked: string, password: unknown): Promise<string> => {
    const username = checkedName(asked);
    if (typeof password !== 'string') throw new Failure(3, 'password is required');
    if (username === 'admin') throw new Failure(3, 'user admin cannot be edited');
    if (!(await roleExists(username))) throw new Failure(5, 'user not found');
    checkPassword(password);
    const verifier = verifiers.get(username);
    if (switches.samePassword === 'refuse' && verifier !== undefined && matchesVerifier(password, verifier))
      throw new Failure(3, 'the new password must differ from the current one');
    await changePassword(username, password);
    return username;
  };

  const clusterBody = (cluster: StoredCluster): Answer => {
    const sqlDns = switches.sqlDns === 'present' ? { sql_dns: front.host } : {};
    const json: ClusterBody & Record<string, unknown> = {
      id: cluster.id,
      name: cluster.name,
      plan: switches.plan,
      state: cluster.state,
      operation_status: 'UNSPECIFIED',
      cockroach_version: 'v26.2.1',
      cloud_provider: 'AWS',
      ...sqlDns,
      regions: [
        { name: 'eu-central-1', ...sqlDns, ui_dns: '', internal_dns: '', node_count: 0, primary: true },
      ],
      config: { serverless: { routing_id: `${cluster.name}-1234`, upgrade_type: 'AUTOMATIC' } },
      labels: {},
      delete_protection: 'DISABLED',
      network_visibility: 'PUBLIC',
    };
    return { status: 200, json };
  };

  const connectionString = (query: URLSearchParams): Answer => {
    const database = query.get('database') || 'defaultdb';
    const user = query.get('sql_user');
    const params: ConnectionStringBody['params'] & { Username?: string } = {
      Host: front.host,
      Port: String(front.port),
      Database: database,
      ...(user ? { Username: user } : {}),
    };
    const login = user ? `${encodeURIComponent(user)}@` : '';
    return {
      status: 200,
      json: {
        connection_string: `postgresql://${login}${front.host}:${front.port}/${database}?sslmode=verify-full`,
        params,
      },
    };
  };

  const auditPage = (query: URLSearchParams): Answer => {
    const isDescending = query.get('sort_order') === 'DESC';
    const from = query.get('starting_from');
    const start = from === null ? undefined : Date.parse(from);
    const limit = Math.max(1, Number(query.get('limit') || 200));
    const direction = isDescending ? -1 : 1;
    const rest = auditLog
      .toSorted((a, b) => (Date.parse(a.created_at) - Date.parse(b.created_at)) * direction)
      .filter(({ created_at }) => {
        if (start === undefined) return true;
        const distance = (Date.parse(created_at) - start) * direction;
        return distance > 0 || (distance === 0 && switches.startingFrom === 'inclusive');
      });
    // Whole instants: a page never ends between two entries of one timestamp.
    const last = rest.at(limit - 1)?.created_at;
    const page = rest.filter(({ created_at }, at) => at < limit || created_at === last);
    const end = page.at(-1);
    const hasMore = page.length < rest.length && end !== undefined;
    return {
      status: 200,
      json: { entries: page, ...(hasMore ? { next_starting_from: end.created_at } : {}) },
    };
  };

  const bodyOf = ({ code, message, status }: Failure): Answer => {
    switch (switches.errorBody) {
      case 'object-details':
        return { status, json: { code, message, details: [errorInfo] } };
      case 'string-details':
        return { status, json: { code, message, details: [message] } };
      case 'no-code':
        return { status, json: { message } };
      case 'empty-object':
        return { status, json: {} };
      case 'empty':
        return { status };
      case 'html':
        return {
          status,
          headers: { 'content-type': 'text/html' },
          text: '<html><body>error</body></html>\n',
        };
      default:
        return switches.errorBody satisfies never;
    }
  };
  const answering = async (work: () => Promise<Answer> | Answer): Promise<Answer> => {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Failure) throw new Refused(bodyOf(error));
      throw error;
    }
  };
  const named = (name: string): Answer => ({ status: 200, json: { name } satisfies SqlUserBody });

  /** A write on one user: one at a time, its failure in the audit log too. */
  const write = (
    id: string,
    action: Parameters<typeof audit>[1],
    username: string,
    work: (cluster: StoredCluster) => Promise<string>,
  ): Promise<Answer> =>
    inTurn(() =>
      answering(async () => {
        const cluster = usableCluster(id);
        try {
          return named(await work(cluster));
        } catch (error) {
          if (error instanceof Failure) audit(cluster, action, username, 'api', error.message);
          throw error;
        }
      }),
    );

  const field = (json: unknown, name: string): unknown =>
    typeof json === 'object' && json !== null
      ? Object.entries(json).find(([key]) => key === name)?.[1]
      : undefined;

  const route = (request: VendorRequest): Handling<CockroachdbOperation> => {
    const { method, query, json } = request;
    const [api, version, kind, id = '', part, name, verb, ...rest] = request.segments;
    const unknown = {
      operation: 'unknown',
      act: () => answering(() => Promise.reject(new Failure(5, 'Not Found'))),
    } as const;
    // Outside the API: where an Advanced cluster's CA is fetched, without authentication.
    if (api === 'clusters' && kind === 'cert' && version !== undefined && method === 'GET') {
      const act = () =>
        answering(() => {
          clusterOf(version);
          if (caPem === undefined) throw new Failure(5, 'certificate not found');
          return { status: 200, headers: { 'content-type': 'application/x-pem-file' }, text: caPem };
        });
      return { operation: 'getCertificate', act };
    }
    if (api !== 'api' || version !== 'v1' || rest.length > 0) return unknown;
    if (kind === 'auditlogevents' && id === '' && method === 'GET')
      return { operation: 'listAuditLogs', act: async () => auditPage(query) };
    if (kind !== 'clusters' || id === '') return unknown;
    // A folded `..` after /sql-users/ leaves this very path. That the slash is routed here is assumed, to be safe.
    const isFolded = part === 'sql-users' && (name === '..' || name === '.') && method === 'DELETE';
    if (part === undefined || (part === '' && name === undefined) || isFolded) {
      const get = () => answering(() => clusterBody(clusterOf(id)));
      if (method === 'GET') return { operation: 'getCluster', act: get };
      if (method !== 'DELETE') return { operation: 'changeCluster', act: get };
      const act = () =>
        answering(() => {
          const cluster = clusterOf(id);
          const answer = clusterBody(cluster);
          cluster.isDeleted = true;
          return answer;
        });
      return { operation: 'deleteCluster', act };
    }
    if (part === 'connection-string' && name === undefined && method === 'GET')
      return {
        operation: 'getConnectionString',
        act: () =>
          answering(() => {
            clusterOf(id);
            return connectionString(query);
          }),
      };
    if (part !== 'sql-users') return unknown;
    if (name === undefined && method === 'GET')
      return {
        operation: 'listUsers',
        act: () =>
          answering(() => {
            usableCluster(id);
            return listUsers(query);
          }),
      };
    if (name === undefined && method === 'POST') {
      const asked = field(json, 'name');
      const username = typeof asked === 'string' ? folded(asked) : '';
      return {
        operation: 'createUser',
        username,
        act: () =>
          write(id, 'CREATE_SQL_USER', username, (cluster) =>
            createUser(cluster, asked, field(json, 'password')),
          ),
        pretend: () => named(username),
      };
    }
    if (name !== undefined && name !== '' && verb === undefined && method === 'DELETE') {
      const username = folded(name);
      const act = () =>
        write(id, 'DELETE_SQL_USER', username, async (cluster) => {
          const deleted = await deleteUser(name);
          audit(cluster, 'DELETE_SQL_USER', username, 'api');
          return deleted;
        });
      return { operation: 'deleteUser', username, act, pretend: () => named(username) };
    }
    if (name !== undefined && name !== '' && verb === 'password' && method === 'PUT') {
      const username = folded(name);
      const act = () =>
        write(id, 'CHANGE_SQL_USER_PASSWORD', username, async (cluster) => {
          const changed = await setPassword(name, field(json, 'password'));
          audit(cluster, 'CHANGE_SQL_USER_PASSWORD', username, 'api');
          return changed;
        });
      return { operation: 'setPassword', username, act, pretend: () => named(username) };
    }
    return unknown;
  };

  const rateLimited = (status: number, headers: Readonly<Record<string, string>>): Answer => ({
    status,
    headers,
    json: { code: 8, message: 'rate limit exceeded', details: [] },
  });
  const limiter = createRateLimiter({ clock, windowMs: 1000, limit: () => switches.limit });
  const keyOf = ({ headers }: VendorRequest): string =>
    /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '';

  const listener = createVendorListener<CockroachdbOperation>({
    clock,
    faults,
    calls,
    route,
    rateLimited,
    requestId: randomUUID,
    gate(request, operation) {
      if (operation === 'getCertificate') return undefined;
      const key = keyOf(request);
      if (!apiKeys.has(key)) return bodyOf(new Failure(16, 'unauthenticated'));
      const version = request.headers['cc-version'];
      if (version !== undefined && !/^\d{4}-\d{2}-\d{2}$/.test(String(version)))
        return bodyOf(new Failure(3, 'invalid Cc-Version'));
      const { status, retryAfter } = switches.rateLimited;
      return limiter.take(key).isExceeded ? rateLimited(status, retryAfterHeader(retryAfter)) : undefined;
    },
    headers: (_request, requestId) => ({ 'x-request-id': requestId }),
  });

  front.rules.foldUsernames = true;
  front.rules.translate = (sql) => {
    const isRefused = switches.dropOwned === 'refused' && dropOwned.test(sql);
    return isRefused
      ? refusedDropOwned
      : sql
          .replace(showSession, askingSession)
          .replace(shownSession, `(${askingSession}) AS shown`)
          .replace(cancelSessions, 'SELECT crdb_internal.cancel_sessions(ARRAY($1))');
  };
  front.rules.afterRoleChange = () => inTurn(followMembership);
  front.rules.beforeLogin = async ({ user }): Promise<Refusal | undefined> => {
    await inTurn(followMembership);
    const rows = await postgres.query('SELECT rolcanlogin FROM pg_roles WHERE rolname = $1', [user]);
    // The engine's own superuser is no user of the vendor's.
    if (user === postgres.superuser.user || rows.length === 0)
      return { code: '28P01', message: `password authentication failed for user ${user}` };
    if (rows[0]?.['rolcanlogin'] === false)
      return { code: '28000', message: `${user} does not have login privilege` };
    return undefined;
  };

  let isPrepared = false;
  const prepare = async (humanUsers: readonly string[]): Promise<void> => {
    if (!isPrepared) {
      await postgres.query('CREATE ROLE admin NOLOGIN');
      await postgres.query('CREATE ROLE root LOGIN');
      await grantAdmin('root');
      await postgres.createDatabase('defaultdb');
      await postgres.query(sessionsView(postgres.superuser.user), [], 'defaultdb');
      isPrepared = true;
    }
    for (const name of humanUsers)
      if (!(await roleExists(name))) await postgres.query(`CREATE ROLE ${quoteIdentifier(name)} LOGIN`);
  };

  const known = (id: string): StoredCluster => {
    const found = stored.get(id);
    if (found === undefined)
      throw new Error(`the stand-in has no cluster ${id}, expected one that was added`);
    return found;
  };

  return {
    host: 'cockroachlabs.cloud',
    listener,
    faults,
    switches,
    calls,
    get catastrophes() {
      return calls.filter(({ operation }) => operation === 'deleteCluster' || operation === 'changeCluster');
    },
    auditLog,
    clusters,
    addCluster: ({ id = randomUUID(), name, humanUsers = ['reporting'] }) =>
      inTurn(async () => {
        await prepare(humanUsers);
        const cluster: StoredCluster = { id, name, state: 'CREATED', isDeleted: false };
        const view: CockroachdbCluster = {
          id,
          name,
          get isDeleted() {
            return cluster.isDeleted;
          },
          async users() {
            const rows = await postgres.query(
              `${adminMembers}
               SELECT r.rolname AS username, r.oid IN (SELECT oid FROM member) AS "isAdmin",
                      ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                             WHERE m.member = r.oid AND g.rolname <> 'admin' ORDER BY 1) AS roles
                 FROM pg_roles r WHERE (r.rolcanlogin OR r.rolname = 'admin') AND r.rolname <> $1 ORDER BY 1`,
              [postgres.superuser.user],
            );
            return rows.map(({ username, isAdmin, roles }) => ({
              username: String(username),
              isAdmin: isAdmin === true,
              roles: roles as string[],
            }));
          },
        };
        stored.set(id, cluster);
        clusters.set(id, view);
        return view;
      }),
    actor: {
      createUser: (id, username, password) =>
        inTurn(async () => {
          await makeUser(username, password);
          audit(known(id), 'CREATE_SQL_USER', username, 'person');
        }),
      deleteUser: (id, username) =>
        inTurn(async () => {
          await dropUser(username);
          audit(known(id), 'DELETE_SQL_USER', username, 'person');
        }),
      setPassword: (id, username, password) =>
        inTurn(async () => {
          await changePassword(username, password);
          audit(known(id), 'CHANGE_SQL_USER_PASSWORD', username, 'person');
        }),
      grantAdmin: (_id, username) => inTurn(() => grantAdmin(username)),
      setState(id, state) {
        known(id).state = state;
      },
      revokeKey: (apiKey) => void apiKeys.delete(apiKey),
    },
  };
}
