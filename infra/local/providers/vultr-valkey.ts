import { createHash, randomBytes, randomUUID } from 'node:crypto';
import type { RequestListener } from 'node:http';
import type * as z from 'zod';
import type {
  accessControlSchema,
  databaseSchema,
  usersAnswerSchema,
} from '../../../functions/providers/vultr-valkey/api.ts';
import type { Clock } from '../clock.ts';
import type { Valkey } from '../engines/valkey.ts';
import type { ValkeyFront } from '../engines/valkey-front.ts';
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

export type VultrOperation =
  | 'listDatabases'
  | 'getDatabase'
  | 'listUsers'
  | 'createUser'
  | 'getUser'
  | 'setPassword'
  | 'deleteUser'
  | 'setAccessControl'
  | 'deleteDatabase'
  | 'changeDatabase'
  | 'unknown';

type AclNames = 'categories' | 'channels' | 'commands' | 'keys';
/** The four lists of a user's rights, in Vultr's spelling of rules. */
export type VultrAcl = Readonly<Record<AclNames, readonly string[]>>;

/** What Vultr's documents leave open, and what is slow there. */
export interface VultrSwitches {
  /** How late the list follows a change. @default at once */
  delays: { userListed: Lag; userUnlisted: Lag };
  /** How long after the 202 a change reaches the engine; `Infinity` is never. */
  engineAfterMs: { createUser: number; setPassword: number; setAccessControl: number; deleteUser: number };
  aclNames: 'acl' | 'redis_acl';
  /** Where an answer about a user tells its access control. */
  accessControl: 'everywhere' | 'in-list-only' | 'nowhere';
  /** How lists without an entry are told. */
  emptyList: 'empty' | 'null';
  /** The order in which users and rules are told. */
  order: 'as-sent' | 'reversed';
  omittedAcl: 'keeps' | 'resets';
  /** The rights of a user at birth. */
  defaultAcl: 'full' | 'empty';
  /** Whether answers tell passwords, as Vultr's do. */
  passwords: 'told' | 'left-out';
  /** PUT without a password. */
  missingPassword: 400 | 422;
  /** PUT of the password that the user has already. */
  samePassword: 'accept' | 400 | 422;
  duplicate: 400 | 422 | 'changes-password';
  missingUser: 400 | 404 | 422;
  missingDatabase: { status: 400 | 404 | 422; error: string };
  errorBody: 'error' | 'error-and-status' | 'empty' | 'html' | 'text';
  /** The status under which a key, or the address it is used from, is refused. */
  refusedKey: 401 | 403;
  /** What user calls answer while the database is not running. */
  whileNotRunning: 'work' | 'refuse-400' | 'refuse-422' | 'call-names-invalid';
  /** With a VPC, `host` is private and `public_host` appears. */
  host: 'public' | 'private';
  port: 'text' | 'number';
  readReplicas: number;
  ca: 'present' | 'absent' | 'empty';
  engine: string;
  /** PUT and DELETE on the default user. */
  defaultUser: 'refused' | 'allowed';
  total: 'right' | 'one-more' | 'absent';
  /** Vultr's list has none. @default everybody on one page, without `links` */
  pageSize: number | undefined;
  /** The next page's cursor never changes, so the list never ends. */
  repeatedCursor: boolean;
  connectionsAfterPassword: 'kept' | 'ended';
  /** Names that are listed although no such user exists, such as `..`. */
  listedOnly: readonly string[];
  /** Names that exist and are not listed. */
  unlisted: readonly string[];
  /** Calls a second and address. */
  limit: number;
  rateLimited: { status: 429 | 503; retryAfter: RetryAfter | undefined };
}

export interface VultrDatabaseOptions {
  /** @default a made UUID */
  readonly id?: string;
  readonly label: string;
  /** Makes these users, as a person at the console would. @default ['reporting'] */
  readonly humanUsers?: readonly string[];
}

export interface VultrDatabaseView {
  readonly id: string;
  readonly label: string;
  readonly isDeleted: boolean;
  /** Everybody whom the engine knows. */
  users(): Promise<readonly string[]>;
  /** What Vultr has recorded of a user. */
  recorded(username: string): VultrAcl | undefined;
  /** What the engine goes by, as ACL LIST tells it. */
  rules(username: string): Promise<string | undefined>;
}

/** What other people do at the vendor, past rekey and past rate limits and faults. */
export interface VultrActor {
  createUser(username: string, password: string, acl?: VultrAcl): Promise<void>;
  deleteUser(username: string): Promise<void>;
  setPassword(username: string, password: string): Promise<void>;
  setAccessControl(username: string, acl: VultrAcl): Promise<void>;
  /** Switches logins of a user off, or on again, on the engine alone. */
  allowLogins(username: string, isAllowed: boolean): Promise<void>;
  /** `Running`, `Rebuilding` or any other. */
  setStatus(databaseId: string, status: string): void;
  /** Takes our address off the key's allow-list, or puts it back. */
  allowAddress(isAllowed: boolean): void;
  revokeKey(apiKey: string): void;
}

/** Vultr's API for Managed Valkey, in front of real users in a Valkey. */
export interface VultrValkey {
  readonly host: 'api.vultr.com';
  readonly listener: RequestListener;
  readonly faults: FaultBox<VultrOperation>;
  readonly switches: VultrSwitches;
  /** Every call, oldest first. */
  readonly calls: readonly RecordedCall<VultrOperation>[];
  /** Calls that deleted or changed a database: there must never be one. */
  readonly catastrophes: readonly RecordedCall<VultrOperation>[];
  readonly actor: VultrActor;
  readonly databases: ReadonlyMap<string, VultrDatabaseView>;
  /** All databases of one stand-in share the users of its engine. */
  addDatabase(options: VultrDatabaseOptions): Promise<VultrDatabaseView>;
}

export interface VultrValkeyOptions {
  /** An engine of its own. */
  readonly valkey: Valkey;
  readonly front: ValkeyFront;
  readonly clock: Clock;
  readonly apiKeys: readonly string[];
  /** The CA of the front's certificate. */
  readonly caPem: string;
  readonly switches?: Partial<VultrSwitches>;
}

// The client's own schemas, so that client and stand-in cannot disagree about a name.
type DatabaseBody = z.input<typeof databaseSchema>;
type UsersBody = z.input<typeof usersAnswerSchema>;
type UserBody = UsersBody['users'][number];
type AclBody = z.input<typeof accessControlSchema>;

interface StoredDatabase {
  readonly id: string;
  readonly label: string;
  status: string;
  isDeleted: boolean;
}

interface StoredUser {
  password: string;
  acl: VultrAcl;
  /** Counts changes, so that a late one does not undo a newer one. */
  version: number;
  readonly seen: Lagging<boolean>;
}

const lists: readonly AclNames[] = ['categories', 'channels', 'commands', 'keys'];
const fullAcl: VultrAcl = { categories: ['+@all'], channels: ['*'], commands: [], keys: ['*'] };
const emptyAcl: VultrAcl = { categories: [], channels: [], commands: [], keys: [] };
const defaultUser = 'default';

/** As Vultr's own are, which begin so (govultr's recorded answers). */
const generated = (): string => `AVNS_${randomBytes(15).toString('base64url')}`;

const field = (json: unknown, name: string): unknown =>
  typeof json === 'object' && json !== null
    ? Object.entries(json).find(([key]) => key === name)?.[1]
    : undefined;

const texts = (value: unknown): readonly string[] | undefined =>
  Array.isArray(value) && value.every((item) => typeof item === 'string') ? value : undefined;

/** Makes the stand-in; it has no database until one is added. */
export function createVultrValkey(options: VultrValkeyOptions): VultrValkey {
  const { valkey, front, clock, caPem } = options;
  const apiKeys = new Set(options.apiKeys);
  const stored = new Map<string, StoredDatabase>();
  const views = new Map<string, VultrDatabaseView>();
  const users = new Map<string, StoredUser>();
  /** Deleted users that the list still shows. */
  const lingering = new Map<string, StoredUser>();
  const calls: RecordedCall<VultrOperation>[] = [];
  const faults = createFaultBox<VultrOperation>();
  let isAddressAllowed = true;
  const switches: VultrSwitches = {
    delays: { userListed: {}, userUnlisted: {} },
    engineAfterMs: { createUser: 0, setPassword: 0, setAccessControl: 0, deleteUser: 0 },
    aclNames: 'acl',
    accessControl: 'everywhere',
    emptyList: 'empty',
    order: 'as-sent',
    omittedAcl: 'keeps',
    defaultAcl: 'full',
    passwords: 'told',
    missingPassword: 422,
    samePassword: 'accept',
    duplicate: 422,
    missingUser: 404,
    missingDatabase: { status: 404, error: 'Not a valid Database Subscription UUID' },
    errorBody: 'error-and-status',
    refusedKey: 401,
    whileNotRunning: 'work',
    host: 'public',
    port: 'text',
    readReplicas: 0,
    ca: 'present',
    engine: 'valkey',
    defaultUser: 'refused',
    total: 'right',
    pageSize: undefined,
    repeatedCursor: false,
    connectionsAfterPassword: 'kept',
    listedOnly: [],
    unlisted: [],
    limit: 30,
    rateLimited: { status: 429, retryAfter: undefined },
    ...options.switches,
  };

  const bodyOf = (status: number, error: string): Answer => {
    switch (switches.errorBody) {
      case 'error':
        return { status, json: { error } };
      case 'error-and-status':
        return { status, json: { error, status } };
      case 'empty':
        return { status };
      case 'html':
        return {
          status,
          headers: { 'content-type': 'text/html' },
          text: '<html><body>error</body></html>\n',
        };
      case 'text':
        return { status, headers: { 'content-type': 'text/plain' }, text: `${error}\n` };
      default:
        return switches.errorBody satisfies never;
    }
  };
  const refuse = (status: number, error: string): never => {
    throw new Refused(bodyOf(status, error));
  };

  // One change after the other, as a control plane's queue has it.
  let queue: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = queue.then(work);
    queue = turn.catch(() => {});
    return turn;
  };

  /** All that the engine is told of a user, in one command, so that no half of it ever holds. */
  const rulesOf = ({ password, acl }: Pick<StoredUser, 'password' | 'acl'>): readonly string[] => [
    ...['reset', 'on', `#${createHash('sha256').update(password).digest('hex')}`],
    ...acl.keys.map((key) => `~${key}`),
    ...acl.channels.map((channel) => `&${channel}`),
    ...acl.categories,
    ...acl.commands,
  ];
  const toEngine = async (username: string, user: Pick<StoredUser, 'password' | 'acl'>): Promise<void> => {
    await valkey.call('ACL', 'SETUSER', username, ...rulesOf(user));
  };
  /** Tells the engine now or later; a later change of the same user makes this one void. */
  const settle = async (username: string, afterMs: number): Promise<void> => {
    const user = users.get(username);
    if (user === undefined) return;
    user.version += 1;
    const { version } = user;
    if (afterMs === 0) return toEngine(username, user);
    if (!Number.isFinite(afterMs)) return;
    void clock.sleep(afterMs).then(
      () =>
        inTurn(async () => {
          const now = users.get(username);
          if (now?.version === version) await toEngine(username, now);
        }).catch(() => {}), // the engine was stopped meanwhile
    );
  };

  const makeUser = async (
    username: string,
    password: string,
    acl: VultrAcl,
    afterMs = 0,
  ): Promise<StoredUser> => {
    const user: StoredUser = { password, acl, version: 0, seen: lagging(true, clock) };
    users.set(username, user);
    try {
      await settle(username, afterMs);
    } catch (error) {
      users.delete(username);
      throw error;
    }
    return user;
  };
  const changePassword = async (username: string, password: string, afterMs = 0): Promise<StoredUser> => {
    const user = known(username);
    user.password = password;
    await settle(username, afterMs);
    if (switches.connectionsAfterPassword === 'ended') front.closeConnections(username);
    return user;
  };
  const changeAcl = async (username: string, acl: VultrAcl, afterMs = 0): Promise<StoredUser> => {
    const user = known(username);
    // The engine is the one to say whether it knows such commands and categories, on a user that nobody can log in as.
    const trial = `rekey_trial_${randomUUID()}`;
    await valkey.call('ACL', 'SETUSER', trial, ...rulesOf({ password: generated(), acl }), 'off');
    await valkey.call('ACL', 'DELUSER', trial);
    user.acl = acl;
    await settle(username, afterMs);
    return user;
  };
  const dropUser = async (username: string, afterMs = 0): Promise<void> => {
    const user = users.get(username);
    if (user === undefined) return;
    users.delete(username);
    user.seen.set(false, switches.delays.userUnlisted);
    lingering.set(username, user);
    const drop = async (): Promise<void> => {
      if (!users.has(username)) await valkey.call('ACL', 'DELUSER', username);
    };
    if (afterMs === 0) return drop();
    if (Number.isFinite(afterMs)) void clock.sleep(afterMs).then(() => inTurn(drop).catch(() => {}));
  };
  const known = (username: string): StoredUser => {
    const user = users.get(username);
    if (user === undefined) return refuse(switches.missingUser, 'Not a valid database user');
    return user;
  };

  const databaseOf = (id: string): StoredDatabase => {
    const found = stored.get(id);
    if (found === undefined || found.isDeleted)
      return refuse(switches.missingDatabase.status, switches.missingDatabase.error);
    return found;
  };
  /** The database whose users a call changes or reads. */
  const usable = (id: string): void => {
    const { status } = databaseOf(id);
    const refusals = {
      'refuse-400': { code: 400, error: `Database is ${status}` },
      'refuse-422': { code: 422, error: `Database is ${status}` },
      'call-names-invalid': { code: 400, error: 'username/password invalid' },
    };
    if (status.toLowerCase() === 'running' || switches.whileNotRunning === 'work') return;
    const { code, error } = refusals[switches.whileNotRunning];
    refuse(code, error);
  };

  const ordered = <T>(items: readonly T[]): T[] =>
    switches.order === 'reversed' ? items.toReversed() : [...items];
  const aclBody = (acl: VultrAcl): AclBody => {
    const prefix = switches.aclNames === 'acl' ? 'acl_' : 'redis_acl_';
    return Object.fromEntries(
      lists.map((name) => {
        const told = ordered(acl[name]);
        return [`${prefix}${name}`, told.length === 0 && switches.emptyList === 'null' ? null : told];
      }),
    );
  };
  const userBody = (
    username: string,
    { password, acl }: Pick<StoredUser, 'password' | 'acl'>,
    where: 'list' | 'user',
  ): UserBody => ({
    username,
    ...(switches.passwords === 'told' ? { password } : {}),
    ...(switches.accessControl === 'everywhere' ||
    (switches.accessControl === 'in-list-only' && where === 'list')
      ? { access_control: aclBody(acl) }
      : {}),
  });
  const answerUser = (status: number, username: string, user: StoredUser): Answer => ({
    status,
    json: { user: userBody(username, user, 'user') },
  });

  const listUsers = (query: URLSearchParams): Answer => {
    const nobody = { password: generated(), acl: fullAcl };
    const seen = [...users, ...lingering].filter(([, { seen }]) => seen.read());
    const all = ordered([
      ...new Map<string, Pick<StoredUser, 'password' | 'acl'>>([
        ...switches.listedOnly.map((name) => [name, nobody] as const),
        ...seen,
      ]),
    ])
      .filter(([name]) => !switches.unlisted.includes(name))
      .map(([name, user]) => userBody(name, user, 'list'));
    const total =
      switches.total === 'absent' ? {} : { total: all.length + (switches.total === 'one-more' ? 1 : 0) };
    if (switches.pageSize === undefined) return { status: 200, json: { users: all, meta: total } };
    const asked = query.get('cursor') ?? '';
    const from =
      asked === '' || switches.repeatedCursor ? 0 : Number(Buffer.from(asked, 'base64').toString());
    const to = from + switches.pageSize;
    const isEnd = to >= all.length && !switches.repeatedCursor;
    const next = isEnd ? '' : Buffer.from(String(to)).toString('base64');
    const links = { next, prev: '' };
    return {
      status: 200,
      json: { users: all.slice(from, to), meta: { ...total, links } } satisfies UsersBody,
    };
  };

  const createUser = async (json: unknown): Promise<Answer> => {
    const username = field(json, 'username');
    const asked = field(json, 'password');
    if (typeof username !== 'string' || username === '' || /[\s\0]/.test(username))
      return refuse(422, 'Invalid username');
    const password = typeof asked === 'string' && asked !== '' ? asked : generated();
    if (users.has(username)) {
      if (switches.duplicate !== 'changes-password')
        return refuse(switches.duplicate, 'A user with this name already exists');
      return answerUser(202, username, await changePassword(username, password));
    }
    lingering.delete(username);
    const acl = switches.defaultAcl === 'full' ? fullAcl : emptyAcl;
    const user = await makeUser(username, password, acl, switches.engineAfterMs.createUser);
    if (switches.delays.userListed.ms !== undefined || switches.delays.userListed.polls !== undefined) {
      user.seen.set(false);
      user.seen.set(true, switches.delays.userListed);
    }
    return answerUser(202, username, user);
  };

  const changeable = (username: string): StoredUser => {
    const user = known(username);
    if (username === defaultUser && switches.defaultUser === 'refused')
      return refuse(400, 'The default user cannot be changed');
    return user;
  };
  const setPassword = async (username: string, json: unknown): Promise<Answer> => {
    const user = changeable(username);
    const asked = field(json, 'password');
    if (typeof asked !== 'string') return refuse(switches.missingPassword, 'The password field is required');
    if (asked === user.password && switches.samePassword !== 'accept')
      return refuse(switches.samePassword, 'The password is the same as the current one');
    const password = asked === '' ? generated() : asked;
    return answerUser(
      202,
      username,
      await changePassword(username, password, switches.engineAfterMs.setPassword),
    );
  };
  const setAccessControl = async (username: string, json: unknown): Promise<Answer> => {
    const user = changeable(username);
    const told = (name: AclNames) => {
      const value = field(json, `acl_${name}`);
      if (value === undefined) return switches.omittedAcl === 'keeps' ? user.acl[name] : [];
      return value === null ? [] : (texts(value) ?? refuse(422, `acl_${name} must be a list`));
    };
    const acl = {
      categories: told('categories'),
      channels: told('channels'),
      commands: told('commands'),
      keys: told('keys'),
    };
    try {
      await changeAcl(username, acl, switches.engineAfterMs.setAccessControl);
    } catch (error) {
      if (error instanceof Refused) throw error;
      return refuse(422, 'Invalid access control');
    }
    return answerUser(202, username, known(username));
  };

  const databaseBody = ({ id, label, status }: StoredDatabase): DatabaseBody & Record<string, unknown> => ({
    id,
    date_created: '2026-01-01 00:00:00',
    plan: 'vultr-dbaas-startup-cc-1-55-2',
    region: 'fra',
    database_engine: switches.engine,
    database_engine_version: '8',
    vpc_id: switches.host === 'private' ? '4f2c1a7e-0000-4000-8000-000000000000' : '',
    status,
    label,
    tag: '',
    ...(switches.host === 'private'
      ? { host: `${label}.private.example`, public_host: front.host }
      : { host: front.host }),
    user: defaultUser,
    ...(switches.passwords === 'told' ? { password: users.get(defaultUser)?.password ?? '' } : {}),
    port: switches.port === 'text' ? String(front.port) : front.port,
    trusted_ips: ['192.0.2.0/24'],
    ...(switches.ca === 'absent' ? {} : { ca_certificate: switches.ca === 'empty' ? '' : caPem }),
    eviction_policy: 'noeviction',
    read_replicas: Array.from({ length: switches.readReplicas }, () => ({ id: randomUUID() })),
  });

  const route = (request: VendorRequest): Handling<VultrOperation> => {
    const { method, query, json } = request;
    const [version, kind, id = '', part, name, verb, ...rest] = request.segments;
    const unknown = {
      operation: 'unknown',
      act: async () => bodyOf(404, 'Invalid API path'),
    } as const;
    if (version !== 'v2' || kind !== 'databases' || rest.length > 0) return unknown;
    if (id === '' && method === 'GET')
      return {
        operation: 'listDatabases',
        act: async () => {
          const fits = [...stored.values()].filter(
            (database) => !database.isDeleted && (query.get('label') ?? database.label) === database.label,
          );
          return { status: 200, json: { databases: fits.map(databaseBody), meta: { total: fits.length } } };
        },
      };
    if (id === '') return unknown;
    // A folded `..` after /users/ leaves this very path. That the slash is routed here is assumed, to be safe.
    const isFolded = part === 'users' && (name === '..' || name === '.') && method !== 'GET';
    if (part === undefined || (part === '' && name === undefined) || isFolded) {
      if (method === 'GET')
        return {
          operation: 'getDatabase',
          act: async () => ({ status: 200, json: { database: databaseBody(databaseOf(id)) } }),
        };
      return {
        operation: method === 'DELETE' ? 'deleteDatabase' : 'changeDatabase',
        act: async () => {
          const database = databaseOf(id);
          database.isDeleted ||= method === 'DELETE';
          return { status: 204 };
        },
      };
    }
    if (part !== 'users') return unknown;
    const within = (work: () => Promise<Answer>) => (): Promise<Answer> =>
      inTurn(async () => {
        usable(id);
        return work();
      });
    if (name === undefined && method === 'GET')
      return { operation: 'listUsers', act: within(async () => listUsers(query)) };
    if (name === undefined && method === 'POST') {
      const asked = field(json, 'username');
      const username = typeof asked === 'string' ? asked : '';
      return {
        operation: 'createUser',
        username,
        act: within(() => createUser(json)),
        pretend: () => ({
          status: 202,
          json: { user: userBody(username, { password: generated(), acl: fullAcl }, 'user') },
        }),
      };
    }
    if (name === undefined || name === '') return unknown;
    const pretend = (): Answer => ({
      status: 202,
      json: { user: userBody(name, users.get(name) ?? { password: generated(), acl: fullAcl }, 'user') },
    });
    if (verb === 'access-control' && method === 'PUT')
      return {
        operation: 'setAccessControl',
        username: name,
        act: within(() => setAccessControl(name, json)),
        pretend,
      };
    if (verb !== undefined) return unknown;
    if (method === 'GET')
      return {
        operation: 'getUser',
        username: name,
        act: within(async () => answerUser(200, name, known(name))),
      };
    if (method === 'PUT')
      return {
        operation: 'setPassword',
        username: name,
        act: within(() => setPassword(name, json)),
        pretend,
      };
    if (method === 'DELETE')
      return {
        operation: 'deleteUser',
        username: name,
        act: within(async () => {
          changeable(name);
          await dropUser(name, switches.engineAfterMs.deleteUser);
          return { status: 204 };
        }),
        pretend: () => ({ status: 204 }),
      };
    return unknown;
  };

  const rateLimited = (status: number, headers: Readonly<Record<string, string>>): Answer => ({
    status,
    headers,
    json: { status, error: 'rate limit exceeded' },
  });
  const limiter = createRateLimiter({ clock, windowMs: 1000, limit: () => switches.limit });

  const listener = createVendorListener<VultrOperation>({
    clock,
    faults,
    calls,
    route,
    rateLimited,
    requestId: randomUUID,
    gate({ headers }) {
      // Per source address, whoever asks: there is only one here.
      const { status, retryAfter } = switches.rateLimited;
      if (limiter.take('127.0.0.1').isExceeded) return rateLimited(status, retryAfterHeader(retryAfter));
      const key = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '';
      if (!apiKeys.has(key)) return bodyOf(switches.refusedKey, 'Invalid API token');
      return isAddressAllowed
        ? undefined
        : bodyOf(switches.refusedKey, 'Your IP (127.0.0.1) is not authorized to use this API key');
    },
    headers: () => ({}),
  });

  let isPrepared = false;
  return {
    host: 'api.vultr.com',
    listener,
    faults,
    switches,
    calls,
    get catastrophes() {
      return calls.filter(
        ({ operation }) => operation === 'deleteDatabase' || operation === 'changeDatabase',
      );
    },
    databases: views,
    addDatabase: ({ id = randomUUID(), label, humanUsers = ['reporting'] }) =>
      inTurn(async () => {
        if (!isPrepared) await makeUser(defaultUser, generated(), fullAcl);
        isPrepared = true;
        for (const name of humanUsers) if (!users.has(name)) await makeUser(name, generated(), fullAcl);
        const database: StoredDatabase = { id, label, status: 'Running', isDeleted: false };
        const view: VultrDatabaseView = {
          id,
          label,
          get isDeleted() {
            return database.isDeleted;
          },
          async users() {
            const names = texts(await valkey.call('ACL', 'USERS')) ?? [];
            return names.filter((name) => name !== valkey.admin.user);
          },
          recorded: (username) => users.get(username)?.acl,
          async rules(username) {
            const lines = texts(await valkey.call('ACL', 'LIST')) ?? [];
            return lines.find((line) => line.startsWith(`user ${username} `));
          },
        };
        stored.set(id, database);
        views.set(id, view);
        return view;
      }),
    actor: {
      createUser: (username, password, acl = fullAcl) =>
        inTurn(async () => {
          await makeUser(username, password, acl);
        }),
      deleteUser: (username) => inTurn(() => dropUser(username)),
      setPassword: (username, password) =>
        inTurn(async () => {
          await changePassword(username, password);
        }),
      setAccessControl: (username, acl) =>
        inTurn(async () => {
          await changeAcl(username, acl);
        }),
      allowLogins: (username, isAllowed) =>
        inTurn(async () => {
          await valkey.call('ACL', 'SETUSER', username, isAllowed ? 'on' : 'off');
        }),
      setStatus(databaseId, status) {
        databaseOf(databaseId).status = status;
      },
      allowAddress(isAllowed) {
        isAddressAllowed = isAllowed;
      },
      revokeKey: (apiKey) => void apiKeys.delete(apiKey),
    },
  };
}
