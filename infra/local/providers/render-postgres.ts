import { randomInt, randomUUID } from 'node:crypto';
import type { RequestListener } from 'node:http';
import type * as z from 'zod';
import type {
  connectionInfoSchema,
  databaseSchema,
  listedUserSchema,
} from '../../../functions/providers/render-postgres/api.ts';
import type { Clock } from '../clock.ts';
import { type Postgres, quoteIdentifier, quoteLiteral } from '../engines/postgres.ts';
import { scramVerifier } from '../engines/scram.ts';
import type { SqlFront } from '../engines/sql-front.ts';
import { type Answer, createFaultBox, type FaultBox } from './faults.ts';
import {
  createRenderServices,
  deploySwitches,
  type RenderDeploySwitches,
  type RenderService,
  type RenderServiceActor,
  type RenderServiceOperation,
  type RenderServiceOptions,
} from './render-services.ts';
import {
  createRenderWebhooks,
  localOwnerId,
  type RenderWebhookOperation,
  type RenderWebhookSwitches,
  type RenderWebhooks,
  webhookSwitches,
} from './render-webhooks.ts';
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

export type RenderOperation =
  | RenderServiceOperation
  | RenderWebhookOperation
  | 'listUsers'
  | 'createUser'
  | 'deleteUser'
  | 'connectionInfo'
  | 'getDatabase'
  | 'listDatabases'
  | 'listProcesses'
  | 'deleteDatabase'
  | 'changeDatabase'
  | 'unknown';

/** What Render's documents leave open, what is slow there, and what deviates from its schema. */
export interface RenderSwitches {
  /** How late each reading follows a change. @default at once */
  delays: {
    userListed: Lag;
    userUnlisted: Lag;
    listedDefault: Lag;
    connectionInfo: Lag;
    databaseUser: Lag;
  };
  originalListed: 'always' | 'until-deactivated' | 'never';
  openConnections: 'present' | 'missing';
  defaultFlag: 'present' | 'missing';
  /** Names that are listed although no such user can be managed. */
  hostileNames: readonly string[];
  duplicate: 400 | 409 | 'silent' | 'silent-new-password';
  deleteDefault: 400 | 403 | 409 | 500;
  deleteAbsent: 404 | 200;
  /** Users per database. */
  userLimit: number;
  /** Whether the refusal of one user too many carries `code: "too_many_resources"`. */
  userLimitCode: boolean;
  longNames: 'cut' | 'refuse';
  replicas: 'accept' | 'refuse' | 'not-found';
  createWhileNotAvailable: 'allow' | 'refuse';
  connectionsOfDeleted: 'kept' | 'ended';
  ownedObjects: 'refuse' | 'reassign' | 'lost';
  ipAllowList: 'list' | 'null';
  connectionPool: 'present' | 'missing';
  /** Pool strings in connection-info. */
  poolStrings: boolean;
  /** Port in the external string; the port of the front is none that a client could default to. */
  portInExternal: boolean;
  scheme: 'postgresql' | 'postgres';
  /** The `password` field disagrees with the strings for so many more reads. */
  passwordMismatches: number;
  fractionDigits: 6 | 8 | 9;
  /** Calls a minute and key. */
  limits: { reads: number; writes: number };
  resetHeader: 'seconds' | 'epoch';
  deploys: RenderDeploySwitches;
  webhooks: RenderWebhookSwitches;
}

export interface RenderDatabaseOptions {
  /** @default a made id `dpg-…-a` */
  readonly id?: string;
  readonly name: string;
  /** The original user. @default `<name>_user` */
  readonly originalUser?: string;
  readonly plan?: string;
}

/** A user as Render's own people would see it. */
export interface RenderUser {
  readonly username: string;
  readonly isDefault: boolean;
  readonly isOriginal: boolean;
  /** The original after its deletion: it exists and cannot log in. */
  readonly isDeactivated: boolean;
}

export interface RenderDatabase {
  readonly id: string;
  readonly name: string;
  /** As connections must name it: the asked-for name with a suffix. */
  readonly databaseName: string;
  /** The NOLOGIN role that every user is a member of. */
  readonly ownerRole: string;
  readonly isDeleted: boolean;
  users(): readonly RenderUser[];
}

/** What other people do at the vendor, past rekey and past rate limits and faults. */
export interface RenderActor extends RenderServiceActor {
  /** The new user becomes the default. */
  createUser(databaseId: string, username: string): Promise<void>;
  deleteUser(databaseId: string, username: string): Promise<void>;
  makeDefault(databaseId: string, username: string): Promise<void>;
  suspend(databaseId: string): void;
  resume(databaseId: string): void;
  /** The status goes back to `creating` and becomes `available` after the lag; without one it stays. */
  changePlan(databaseId: string, plan: string, availableAfter?: Lag): void;
  setStatus(databaseId: string, status: string): void;
  deleteDatabase(databaseId: string): void;
  /** Undoes the deletion; users are as before. */
  restoreDatabase(databaseId: string): void;
  revokeKey(apiKey: string): void;
}

/** Render's API for Postgres, in front of real roles in a real PostgreSQL, and for the services that use it. */
export interface RenderPostgres {
  readonly host: 'api.render.com';
  readonly listener: RequestListener;
  readonly faults: FaultBox<RenderOperation>;
  readonly switches: RenderSwitches;
  /** Every call, oldest first. */
  readonly calls: readonly RecordedCall<RenderOperation>[];
  /** Calls that deleted or changed a database or service, or replaced all its variables: there must never be one. */
  readonly catastrophes: readonly RecordedCall<RenderOperation>[];
  readonly actor: RenderActor;
  readonly databases: ReadonlyMap<string, RenderDatabase>;
  addDatabase(options: RenderDatabaseOptions): Promise<RenderDatabase>;
  /** A read replica of the database, with the id that Render would give it. */
  addReplica(primaryId: string): RenderDatabase;
  readonly services: ReadonlyMap<string, RenderService>;
  addService(options: RenderServiceOptions): RenderService;
  /** Tell of users that were made and deleted, once one was added. Whoever added one stops them in the end. */
  readonly webhooks: RenderWebhooks;
}

export interface RenderPostgresOptions {
  /** One for all databases: a user's name may be given once among them, as roles are those of the whole engine. */
  readonly postgres: Postgres;
  readonly front: SqlFront;
  readonly clock: Clock;
  readonly apiKeys: readonly string[];
  readonly switches?: Partial<RenderSwitches>;
}

// The client's own schemas, so that client and stand-in cannot disagree about a name.
type ListedUser = z.input<typeof listedUserSchema>;
type ConnectionInfo = z.input<typeof connectionInfoSchema>;
type DatabaseBody = z.input<typeof databaseSchema>;

interface StoredUser {
  readonly username: string;
  password: string;
  readonly createdAt: Date;
  readonly listed: Lagging<boolean>;
  readonly isOriginal: boolean;
  isDeactivated: boolean;
}

interface StoredDatabase {
  readonly id: string;
  readonly name: string;
  readonly databaseName: string;
  readonly ownerRole: string;
  readonly createdAt: Date;
  updatedAt: Date;
  plan: string;
  isSuspended: boolean;
  isDeleted: boolean;
  readonly status: Lagging<string>;
  /** By name; a deleted user stays until the list has forgotten it. */
  readonly users: Map<string, StoredUser>;
  readonly listedDefault: Lagging<string>;
  readonly shown: Lagging<StoredUser>;
  readonly databaseUser: Lagging<string>;
  readonly replicas: StoredDatabase[];
  readonly primary: StoredDatabase | undefined;
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const madeOf = (characters: string, length: number): string =>
  Array.from({ length }, () => characters[randomInt(characters.length)]).join('');
const lowerAlphanumeric = alphabet.slice(26);

const refused = (status: number, message: string, code?: string): Refused =>
  new Refused({ status, json: { message, ...(code === undefined ? {} : { code }) } });
const notFound = (what: string): Refused => refused(404, `not found: ${what}`);

const catastrophic: ReadonlySet<RenderOperation> = new Set([
  'deleteDatabase',
  'changeDatabase',
  'deleteService',
  'changeService',
  'replaceVariables',
]);

/** PostgreSQL cuts a name to 63 bytes, on a character boundary. */
function cut(name: string): string {
  let kept = '';
  for (const character of name) {
    if (Buffer.byteLength(kept + character) > 63) break;
    kept += character;
  }
  return kept;
}

const sqlStateOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

/** Makes the stand-in; it has no database until one is added. The front's rules are set by it. */
export function createRenderPostgres(options: RenderPostgresOptions): RenderPostgres {
  const { postgres, front, clock } = options;
  const apiKeys = new Set(options.apiKeys);
  const stored = new Map<string, StoredDatabase>();
  const databases = new Map<string, RenderDatabase>();
  const calls: RecordedCall<RenderOperation>[] = [];
  const faults = createFaultBox<RenderOperation>();
  const switches: RenderSwitches = {
    delays: { userListed: {}, userUnlisted: {}, listedDefault: {}, connectionInfo: {}, databaseUser: {} },
    originalListed: 'until-deactivated',
    openConnections: 'present',
    defaultFlag: 'present',
    hostileNames: [],
    duplicate: 400,
    deleteDefault: 400,
    deleteAbsent: 404,
    userLimit: Number.POSITIVE_INFINITY,
    userLimitCode: true,
    longNames: 'cut',
    replicas: 'refuse',
    createWhileNotAvailable: 'refuse',
    connectionsOfDeleted: 'kept',
    ownedObjects: 'refuse',
    ipAllowList: 'list',
    connectionPool: 'present',
    poolStrings: false,
    portInExternal: true,
    scheme: 'postgresql',
    passwordMismatches: 0,
    fractionDigits: 6,
    limits: { reads: 400, writes: 30 },
    resetHeader: 'seconds',
    deploys: deploySwitches(),
    webhooks: webhookSwitches(),
    ...options.switches,
  };

  // Role changes in parallel fail in PostgreSQL ("tuple concurrently updated"); the vendor has a queue of its own.
  let queue: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = queue.then(work);
    queue = turn.catch(() => {});
    return turn;
  };

  const instant = (date: Date): string =>
    date
      .toISOString()
      .replace(/(\.\d{3})Z$/, (_, fraction: string) =>
        `${fraction}456789Z`.slice(0, 1 + switches.fractionDigits).concat('Z'),
      );

  const services = new Map<string, RenderService>();
  const hosting = createRenderServices({
    clock,
    switches: () => switches.deploys,
    instant,
    freshId: () => madeOf(lowerAlphanumeric, 20),
  });

  const webhooks = createRenderWebhooks({
    clock,
    switches: () => switches.webhooks,
    freshId: () => madeOf(lowerAlphanumeric, 20),
  });
  /** The event names the database by its id, a replica's users being those of its primary. */
  const tell = (
    type: Parameters<typeof webhooks.happened>[0],
    { id, name }: StoredDatabase,
    username: string,
    by: 'api' | 'dashboard',
  ): void => webhooks.happened(type, { serviceId: id, serviceName: name, username }, by);

  const databaseOf = (id: string): StoredDatabase => {
    const found = stored.get(id);
    if (found === undefined || found.isDeleted) throw notFound(id);
    return found;
  };
  /** The database whose users a credentials call is about; a replica has those of its primary. */
  const ownerOf = (id: string): StoredDatabase => {
    const found = databaseOf(id);
    if (found.primary === undefined) return found;
    if (switches.replicas === 'not-found') throw notFound(id);
    if (switches.replicas === 'refuse') throw refused(400, 'credentials are managed on the primary');
    return found.primary;
  };
  const existing = (database: StoredDatabase, username: string): StoredUser | undefined => {
    const user = database.users.get(username);
    return user?.listed.latest === true ? user : undefined;
  };

  const setPassword = async (user: StoredUser): Promise<void> => {
    user.password = madeOf(alphabet, 32);
    await postgres.query(
      `ALTER ROLE ${quoteIdentifier(user.username)} PASSWORD ${quoteLiteral(scramVerifier(user.password))}`,
    );
  };

  const promote = (database: StoredDatabase, user: StoredUser): void => {
    database.listedDefault.set(user.username, switches.delays.listedDefault);
    database.shown.set(user, switches.delays.connectionInfo);
    database.databaseUser.set(user.username, switches.delays.databaseUser);
    database.updatedAt = clock.now();
  };

  const makeUser = async (
    place: { ownerRole: string },
    username: string,
    isOriginal: boolean,
  ): Promise<StoredUser> => {
    const password = madeOf(alphabet, 32);
    const role = quoteIdentifier(username);
    await postgres.query(
      `CREATE ROLE ${role} LOGIN PASSWORD ${quoteLiteral(scramVerifier(password))} IN ROLE ${quoteIdentifier(place.ownerRole)}`,
    );
    const listed = lagging(false, clock);
    listed.set(true, isOriginal ? {} : switches.delays.userListed);
    return { username, password, createdAt: clock.now(), listed, isOriginal, isDeactivated: false };
  };

  const createUser = async (
    database: StoredDatabase,
    asked: string,
    by: 'api' | 'dashboard',
  ): Promise<void> => {
    const isTooLong = Buffer.byteLength(asked) > 63;
    if (asked === '' || /^pg_/.test(asked) || asked === 'public' || asked === 'none')
      throw refused(400, `invalid username`);
    if (isTooLong && switches.longNames === 'refuse') throw refused(400, 'username is too long');
    const username = cut(asked);
    const present = existing(database, username);
    if (present !== undefined && switches.duplicate === 'silent') return;
    if (present !== undefined && switches.duplicate === 'silent-new-password') {
      await setPassword(present);
      return promote(database, present);
    }
    if (present !== undefined) throw refused(Number(switches.duplicate), 'username is already taken');
    const count = [...database.users.values()].filter(({ listed }) => listed.latest).length;
    if (count >= switches.userLimit)
      throw refused(400, 'user limit reached', switches.userLimitCode ? 'too_many_resources' : undefined);
    const user = await makeUser(database, username, false);
    database.users.set(username, user);
    promote(database, user);
    tell('postgres_credentials_created', database, username, by);
  };

  const endConnections = async (username: string): Promise<void> => {
    // By oid, and before the role goes: afterwards the name is no longer there to find them by.
    await postgres.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [
      username,
    ]);
  };

  const deleteUser = async (
    database: StoredDatabase,
    user: StoredUser,
    by: 'api' | 'dashboard',
  ): Promise<void> => {
    const role = quoteIdentifier(user.username);
    if (switches.connectionsOfDeleted === 'ended') await endConnections(user.username);
    if (user.isOriginal) {
      await postgres.query(`ALTER ROLE ${role} NOLOGIN`);
      user.isDeactivated = true;
      if (switches.webhooks.firesOnDeactivation)
        tell('postgres_credentials_deleted', database, user.username, by);
      return;
    }
    if (switches.ownedObjects === 'reassign')
      await postgres.query(
        `REASSIGN OWNED BY ${role} TO ${quoteIdentifier(database.ownerRole)}`,
        [],
        database.databaseName,
      );
    if (switches.ownedObjects !== 'refuse')
      await postgres.query(`DROP OWNED BY ${role}`, [], database.databaseName);
    try {
      await postgres.query(`DROP ROLE ${role}`);
    } catch (error) {
      if (sqlStateOf(error) !== '2BP01') throw error;
      throw refused(400, `role ${user.username} cannot be dropped because some objects depend on it`);
    }
    user.listed.set(false, switches.delays.userUnlisted);
    tell('postgres_credentials_deleted', database, user.username, by);
  };

  const askedToDelete = async (database: StoredDatabase, username: string): Promise<Answer> => {
    const user = existing(database, username);
    if (user === undefined || user.isDeactivated) {
      if (switches.deleteAbsent === 404) throw notFound(username);
      return { status: 200 };
    }
    if (database.shown.latest === user)
      throw refused(switches.deleteDefault, 'cannot delete the default user');
    await deleteUser(database, user, 'api');
    return { status: 200 };
  };

  const isListed = (user: StoredUser): boolean => {
    const isSeen = user.listed.read();
    if (!user.isOriginal) return isSeen;
    if (switches.originalListed === 'never') return false;
    return switches.originalListed === 'always' || !user.isDeactivated;
  };

  const listUsers = async (database: StoredDatabase): Promise<Answer> => {
    const rows = await postgres.query(
      'SELECT usename, count(*)::int AS open FROM pg_stat_activity WHERE datname = $1 AND usename IS NOT NULL GROUP BY usename',
      [database.databaseName],
    );
    const open = new Map(rows.map((row) => [row['usename'], row['open']]));
    const defaultUser = database.listedDefault.read();
    const item = (username: string, createdAt: Date): ListedUser => ({
      username,
      createdAt: instant(createdAt),
      ...(switches.defaultFlag === 'present' ? { default: username === defaultUser } : {}),
      ...(switches.openConnections === 'present' ? { openConnections: Number(open.get(username) ?? 0) } : {}),
    });
    const users = [...database.users.values()].filter(isListed);
    return {
      status: 200,
      json: [
        ...users.map(({ username, createdAt }) => item(username, createdAt)),
        ...switches.hostileNames.map((name) => item(name, database.createdAt)),
      ],
    };
  };

  const connectionInfo = (database: StoredDatabase): Answer => {
    const owner = database.primary ?? database;
    const { username, password } = owner.shown.read();
    const { scheme, portInExternal } = switches;
    const login = `${encodeURIComponent(username)}:${encodeURIComponent(password)}`;
    const external = `${scheme}://${login}@${front.host}${portInExternal ? `:${front.port}` : ''}/${owner.databaseName}`;
    const internal = `${scheme}://${login}@${database.id}/${owner.databaseName}`;
    const isMismatch = switches.passwordMismatches > 0;
    if (isMismatch) switches.passwordMismatches -= 1;
    const json: ConnectionInfo & Record<string, string> = {
      password: isMismatch ? madeOf(alphabet, 32) : password,
      internalConnectionString: internal,
      externalConnectionString: external,
      psqlCommand: `PGPASSWORD=${password} psql -h ${front.host} -p ${front.port} -U ${username} ${owner.databaseName}`,
      ...(switches.poolStrings
        ? { internalConnectionPoolString: internal, externalConnectionPoolString: external }
        : {}),
    };
    return { status: 200, json };
  };

  const summary = (database: StoredDatabase): DatabaseBody & Record<string, unknown> => ({
    id: database.id,
    ipAllowList:
      switches.ipAllowList === 'null' ? null : [{ cidrBlock: '0.0.0.0/0', description: 'everywhere' }],
    createdAt: instant(database.createdAt),
    updatedAt: instant(database.updatedAt),
    dashboardUrl: `https://dashboard.render.com/d/${database.id}`,
    databaseName: (database.primary ?? database).databaseName,
    databaseUser: (database.primary ?? database).databaseUser.read(),
    highAvailabilityEnabled: false,
    name: database.name,
    owner: { id: localOwnerId, name: 'local', email: 'local@localhost', type: 'team' },
    plan: database.plan,
    diskSizeGB: 15,
    region: 'oregon',
    readReplicas: database.replicas.map(({ id, name }) => ({ id, name })),
    role: database.primary === undefined ? 'primary' : 'replica',
    ...(database.primary === undefined ? {} : { primaryPostgresID: database.primary.id }),
    status: database.status.read(),
    version: '18',
    suspended: database.isSuspended ? 'suspended' : 'not_suspended',
    suspenders: database.isSuspended ? ['user'] : [],
    diskAutoscalingEnabled: false,
    ...(switches.connectionPool === 'present' ? { connectionPool: 'none' } : {}),
  });

  const listDatabases = (query: URLSearchParams): Answer => {
    const limit = Math.min(100, Math.max(1, Number(query.get('limit') ?? 20)));
    const names = query.get('name')?.split(',');
    const all = [...stored.values()].filter(
      ({ isDeleted, primary, name }) =>
        !isDeleted &&
        (primary === undefined || query.get('includeReplicas') !== 'false') &&
        (names === undefined || names.includes(name)),
    );
    const after = all.findIndex(({ id }) => `cursor-${id}` === query.get('cursor')) + 1;
    return {
      status: 200,
      json: all.slice(after, after + limit).map((database) => ({
        postgres: summary(database),
        cursor: `cursor-${database.id}`,
      })),
    };
  };

  const listProcesses = async (database: StoredDatabase): Promise<Answer> => {
    const rows = await postgres.query(
      `SELECT pid, datname AS "databaseName", usename AS username, application_name AS "applicationName",
              host(client_addr) AS "clientAddr", backend_start AS "backendStart", query_start AS "queryStart",
              state, wait_event AS "waitEvent", wait_event_type AS "waitEventType", query,
              coalesce(extract(epoch FROM clock_timestamp() - query_start), 0)::float AS duration, true AS "isLeader"
         FROM pg_stat_activity
        WHERE datname = $1 AND backend_type = 'client backend' AND usename IS DISTINCT FROM current_user
        ORDER BY pid`,
      [database.databaseName],
    );
    return { status: 200, json: { processes: rows } };
  };

  const setDeleted = (database: StoredDatabase, isDeleted: boolean): void => {
    database.isDeleted = isDeleted;
    if (isDeleted) cutOff(database);
  };

  const route = (request: VendorRequest): Handling<RenderOperation> => {
    const handling = hosting.route(request) ?? webhooks.route(request);
    if (handling !== undefined) return handling;
    const { method, segments, query, json } = request;
    const [version, kind, id = '', part, name, ...rest] = segments;
    const unknown = {
      operation: 'unknown',
      act: async () => ({ status: 404, json: { message: 'Not Found' } }),
    } as const;
    if (version !== 'v1' || kind !== 'postgres' || rest.length > 0) return unknown;
    if (id === '') {
      return method === 'GET'
        ? { operation: 'listDatabases', act: async () => listDatabases(query) }
        : unknown;
    }
    // A folded `..` after /credentials/ leaves this very path. That the slash is routed here is assumed, to be safe.
    const isFolded = part === 'credentials' && (name === '..' || name === '.') && method === 'DELETE';
    if (part === undefined || (part === '' && name === undefined) || isFolded) {
      if (method === 'GET')
        return {
          operation: 'getDatabase',
          act: async () => ({ status: 200, json: summary(databaseOf(id)) }),
        };
      if (method === 'DELETE') {
        const act = async (): Promise<Answer> => {
          setDeleted(databaseOf(id), true);
          return { status: 204 };
        };
        return { operation: 'deleteDatabase', act, pretend: () => ({ status: 204 }) };
      }
      const act = async (): Promise<Answer> => ({ status: 200, json: summary(databaseOf(id)) });
      return { operation: 'changeDatabase', act };
    }
    if (part === 'connection-info' && name === undefined && method === 'GET')
      return { operation: 'connectionInfo', act: async () => connectionInfo(databaseOf(id)) };
    if (part === 'query' && name === 'processes' && method === 'GET')
      return { operation: 'listProcesses', act: () => listProcesses(databaseOf(id)) };
    if (part !== 'credentials') return unknown;
    if (name === undefined && method === 'GET')
      return { operation: 'listUsers', act: () => listUsers(ownerOf(id)) };
    if (name === undefined && method === 'POST') {
      const isObject = typeof json === 'object' && json !== null && 'username' in json;
      const username = isObject && typeof json.username === 'string' ? json.username : undefined;
      const act = (): Promise<Answer> =>
        inTurn(async () => {
          const database = ownerOf(id);
          if (username === undefined) throw refused(400, 'username is required');
          const isReady = database.status.latest === 'available' && !database.isSuspended;
          if (!isReady && switches.createWhileNotAvailable === 'refuse')
            throw refused(400, 'the database is not available');
          await createUser(database, username, 'api');
          return { status: 202 };
        });
      return { operation: 'createUser', username, act, pretend: () => ({ status: 202 }) };
    }
    if (name !== undefined && name !== '' && method === 'DELETE')
      return {
        operation: 'deleteUser',
        username: name,
        act: () => inTurn(async () => askedToDelete(ownerOf(id), name)),
        pretend: () => ({ status: 200 }),
      };
    return unknown;
  };

  const minute = 60_000;
  const reads = createRateLimiter({ clock, windowMs: minute, limit: () => switches.limits.reads });
  const writes = createRateLimiter({ clock, windowMs: minute, limit: () => switches.limits.writes });
  const deploys = createRateLimiter({ clock, windowMs: minute, limit: () => switches.deploys.limit });
  const keyOf = ({ headers }: VendorRequest): string =>
    /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '';
  /** The budget that a call is taken from, and under which name it is kept there. */
  const budgetOf = (request: VendorRequest) => {
    const { method, segments } = request;
    if (method === 'POST' && segments[1] === 'services' && segments[3] === 'deploys')
      return { limiter: deploys, name: segments[2] ?? '' };
    return { limiter: method === 'GET' ? reads : writes, name: keyOf(request) };
  };
  const secondsUntil = (date: Date): number =>
    Math.max(0, Math.ceil((date.getTime() - clock.now().getTime()) / 1000));
  const rateLimited = (status: number, headers: Readonly<Record<string, string>>): Answer => ({
    status,
    headers: { 'ratelimit-remaining': '0', ...headers },
    json: { message: 'rate limit exceeded' },
  });

  const listener = createVendorListener<RenderOperation>({
    clock,
    faults,
    calls,
    route,
    rateLimited,
    requestId: randomUUID,
    gate(request) {
      if (!apiKeys.has(keyOf(request))) return { status: 401, json: { message: 'Unauthorized' } };
      const { limiter, name } = budgetOf(request);
      const { isExceeded, resetAt } = limiter.take(name);
      return isExceeded ? rateLimited(429, { 'retry-after': String(secondsUntil(resetAt)) }) : undefined;
    },
    headers(request, requestId) {
      const { limiter, name } = budgetOf(request);
      const { limit, remaining, resetAt } = limiter.look(name);
      const reset =
        switches.resetHeader === 'epoch' ? Math.ceil(resetAt.getTime() / 1000) : secondsUntil(resetAt);
      return {
        'ratelimit-limit': String(limit),
        'ratelimit-remaining': String(remaining),
        'ratelimit-reset': String(reset),
        'render-request-id': requestId,
      };
    },
  });

  // A replica has the name of its primary's database and no server of its own here.
  front.rules.hasDatabase = (name) =>
    [...stored.values()].some(
      ({ databaseName, primary, isDeleted, isSuspended }) =>
        databaseName === name && primary === undefined && !isDeleted && !isSuspended,
    );
  const cutOff = ({ databaseName }: StoredDatabase): void => {
    for (const connection of front.connections())
      if (connection.database === databaseName) connection.close();
  };

  const publish = (database: StoredDatabase): RenderDatabase => {
    const { id, name, databaseName, ownerRole } = database;
    const owner = database.primary ?? database;
    const view: RenderDatabase = {
      id,
      name,
      databaseName,
      ownerRole,
      get isDeleted() {
        return database.isDeleted;
      },
      users: () =>
        [...owner.users.values()]
          .filter(({ listed }) => listed.latest)
          .map((user) => ({
            username: user.username,
            isDefault: owner.shown.latest === user,
            isOriginal: user.isOriginal,
            isDeactivated: user.isDeactivated,
          })),
    };
    stored.set(id, database);
    databases.set(id, view);
    return view;
  };

  const known = (id: string): StoredDatabase => {
    const found = stored.get(id);
    if (found === undefined)
      throw new Error(`the stand-in has no database ${id}, expected one that was added`);
    return found;
  };
  const knownUser = (database: StoredDatabase, username: string): StoredUser => {
    const found = existing(database, username);
    if (found === undefined)
      throw new Error(`${database.id} has no user ${username}, expected one that exists`);
    return found;
  };

  return {
    host: 'api.render.com',
    listener,
    faults,
    switches,
    calls,
    get catastrophes() {
      return calls.filter(({ operation }) => catastrophic.has(operation));
    },
    databases,
    webhooks: webhooks.ofOwner,
    services,
    addService(service) {
      const added = hosting.add(service);
      services.set(added.id, added);
      return added;
    },
    async addDatabase({ id, name, originalUser, plan }) {
      const made = id ?? `dpg-${madeOf(lowerAlphanumeric, 20)}-a`;
      const suffix = madeOf(lowerAlphanumeric, 4);
      const databaseName = `${name.replaceAll('-', '_')}_${suffix}`;
      const ownerRole = `${databaseName}_owner`;
      const [quotedDatabase, quotedOwner] = [quoteIdentifier(databaseName), quoteIdentifier(ownerRole)];
      return inTurn(async () => {
        await postgres.query(`CREATE ROLE ${quotedOwner} NOLOGIN`);
        await postgres.createDatabase(databaseName);
        await postgres.query(`ALTER DATABASE ${quotedDatabase} OWNER TO ${quotedOwner}`);
        await postgres.query(`REVOKE CONNECT ON DATABASE ${quotedDatabase} FROM PUBLIC`);
        await postgres.query(`GRANT ALL ON SCHEMA public TO ${quotedOwner}`, [], databaseName);
        const original = await makeUser(
          { ownerRole },
          originalUser ?? `${name.replaceAll('-', '_')}_user`,
          true,
        );
        return publish({
          id: made,
          name,
          databaseName,
          ownerRole,
          createdAt: clock.now(),
          updatedAt: clock.now(),
          plan: plan ?? 'basic_1gb',
          isSuspended: false,
          isDeleted: false,
          status: lagging('available', clock),
          users: new Map([[original.username, original]]),
          listedDefault: lagging(original.username, clock),
          shown: lagging(original, clock),
          databaseUser: lagging(original.username, clock),
          replicas: [],
          primary: undefined,
        });
      });
    },
    addReplica(primaryId) {
      const primary = known(primaryId);
      const letter = String.fromCharCode('b'.charCodeAt(0) + primary.replicas.length);
      const replica: StoredDatabase = {
        ...primary,
        id: primaryId.replace(/a$/, letter),
        name: `${primary.name}-replica`,
        status: lagging('available', clock),
        users: new Map(),
        replicas: [],
        primary,
      };
      primary.replicas.push(replica);
      return publish(replica);
    },
    actor: {
      ...hosting.actor,
      createUser: (id, username) => inTurn(() => createUser(known(id), username, 'dashboard')),
      deleteUser: (id, username) =>
        inTurn(async () => deleteUser(known(id), knownUser(known(id), username), 'dashboard')),
      makeDefault: (id, username) => inTurn(async () => promote(known(id), knownUser(known(id), username))),
      suspend(id) {
        known(id).isSuspended = true;
        known(id).status.set('suspended');
        cutOff(known(id));
      },
      resume(id) {
        known(id).isSuspended = false;
        known(id).status.set('available');
      },
      changePlan(id, plan, availableAfter) {
        known(id).plan = plan;
        known(id).status.set('creating');
        if (availableAfter !== undefined) known(id).status.set('available', availableAfter);
      },
      setStatus: (id, status) => known(id).status.set(status),
      deleteDatabase: (id) => setDeleted(known(id), true),
      restoreDatabase: (id) => setDeleted(known(id), false),
      revokeKey: (apiKey) => void apiKeys.delete(apiKey),
    },
  };
}
