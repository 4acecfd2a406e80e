import * as z from 'zod/mini';
import { type Effect, type ProviderCode, ProviderError, VerificationFailed } from '../../core/errors.ts';
import { faults } from '../../core/faults.ts';
import type { Guard } from '../../core/guard.ts';
import { type Ports, TransportError, type ValkeyReply } from '../../core/ports.ts';
import type {
  ChoosingProvider,
  DatabaseUser,
  Endpoint,
  OpenTarget,
  ProviderDefinition,
  Readiness,
  Session,
  UserPassword,
} from '../../core/provider.ts';
import type { Sensitive } from '../../core/sensitive.ts';
import { usernamePattern } from '../../core/username.ts';
import { confirmEnded } from '../ended-sessions.ts';
import { afterChanges, type Deletion, deleteListed, findListed, undoCreation } from '../listed-users.ts';
import { throwAwayPassword } from '../throw-away-password.ts';
import { codeOf, verifyByAuth } from '../valkey.ts';
import { atEndpoint, oncePerVisit, sharedForAMoment } from '../visit.ts';
import {
  type AccessControl,
  accessControlSchema,
  type VultrDatabase,
  type VultrUser,
  vultrApi,
} from './api.ts';

// Options.

const targetSchema = z.strictObject({
  /** The Managed Database whose users we manage. */
  databaseId: z.guid({ error: 'expected the UUID of the database' }),
});
type Target = z.output<typeof targetSchema>;

const rules = (pattern: RegExp, expected: string) =>
  z.array(z.string().check(z.regex(pattern, { error: `expected ${expected}` }))).check(
    z.refine((held) => new Set(held.map((rule) => rule.slice(1))).size === new Set(held).size, {
      error: 'expected no rule that is both granted and taken: their order may not survive at Vultr',
    }),
  );
/** Beside what an ACL means by them: `~`, `&` and `%` in front are Valkey's, not Vultr's, spelling. */
const patterns = z.array(
  z.string().check(
    z.regex(/^(?![~&%])[\x21-\x7e]+$/, {
      error: 'expected a glob pattern without ~ or & in front and without blanks, such as orders:*',
    }),
  ),
);

/**
 * Vultr's four lists. What a user may run and which keys it may touch is always said, as nothing said might mean
 * everything: whoever wants that declares `+@all` and `*`.
 */
const privilegesSchema = z.strictObject({
  categories: rules(/^[+-]@[a-z][a-z0-9_]{0,62}$/, 'a category with +@ or -@ in front, such as +@read').check(
    z.minLength(1, { error: 'expected at least one category: an empty list may mean every command' }),
  ),
  commands: z._default(
    rules(
      /^[+-][a-z][a-z0-9_.-]{0,62}(\|[a-z0-9_-]{1,63})?$/,
      'a command with + or - in front, such as +get or -config|set',
    ),
    [],
  ),
  keys: patterns.check(
    z.minLength(1, { error: 'expected at least one pattern: an empty list may mean every key' }),
  ),
  channels: z._default(patterns, []),
});
type Privileges = z.output<typeof privilegesSchema>;

// Rules.

/** The default users: Valkey's, and the one of Vultr's SQL engines. The database names its own, too. */
const reserved = new Set(['default', 'vultradmin']);

/** How long an unclear change may still arrive. Unpublished; ours. */
const lateMs = 300_000;
/** How long accepted rights may take to be told. Unpublished; ours. */
const settleMs = 60_000;
/** How often a creation that was refused as one too many is looked for and sent again. */
const mostCreations = 6;

// Translation in.

const toUser = ({ username }: { username: string }, { user }: VultrDatabase): DatabaseUser => ({
  username,
  isProtected: reserved.has(username) || username === user || !usernamePattern.test(username),
});

function toReadiness({ database_engine: engine, status }: VultrDatabase): Readiness {
  if (engine !== 'valkey') return { ready: false, reason: `its engine is ${engine}, expected valkey` };
  // Documented with a capital letter; a status of tomorrow is not running.
  return status.toLowerCase() === 'running'
    ? { ready: true }
    : { ready: false, reason: `its status is ${status}` };
}

const nameable = (text: string | null | undefined): text is string =>
  text !== undefined && text !== null && /^[A-Za-z0-9.-]+$/.test(text);

/** Whoever is not in the database's VPC reaches it under its public name. Undefined while Vultr has none for it. */
function toEndpoint({ host, public_host, port, ca_certificate: ca }: VultrDatabase): Endpoint | undefined {
  const name = [public_host, host].find(nameable);
  if (name === undefined || port < 1 || port > 65_535) return undefined;
  return { host: name, port, database: '0', ...(ca == null || ca === '' ? {} : { ca }) };
}

/** Rules work from left to right, so what takes away stands last. */
const inOrder = (held: readonly string[]): readonly string[] =>
  held.toSorted((a, b) => Number(a.startsWith('-')) - Number(b.startsWith('-')));

const kinds = {
  categories: 'category',
  commands: 'command',
  keys: 'key pattern',
  channels: 'channel pattern',
} as const satisfies Record<keyof AccessControl, string>;

/** Compared as sets: Vultr's own Terraform provider keeps them so. */
function differencesOf(declared: AccessControl, held: AccessControl | undefined): readonly string[] {
  if (held === undefined) return ['Vultr does not tell the access control'];
  return (Object.keys(kinds) as (keyof AccessControl)[]).flatMap((list) => [
    ...declared[list]
      .filter((rule) => !held[list].includes(rule))
      .map((rule) => `${kinds[list]} ${rule} is declared but not held`),
    ...held[list]
      .filter((rule) => !declared[list].includes(rule))
      .map((rule) => `${kinds[list]} ${rule} is held but not declared`),
  ]);
}

type Connection = ReadonlyMap<string, string>;

/** The lines of CLIENT LIST about a user. Missing fields are tolerated. */
const connectionsOf = (lines: string, username: string): readonly Connection[] =>
  lines
    .split('\n')
    .map((line) => new Map(line.split(' ').map((field) => splitOnce(field.trim(), '='))))
    .filter((connection) => connection.get('user') === username);

/**
 * The connections without the asking one, which `id` names. Where the user may not run CLIENT ID, one connection whose last
 * command is CLIENT LIST is left out, and never more than one: otherwise intruders could hide behind that command. It is the youngest
 * of them, as the asking one was just opened: otherwise an older one that was to be ended would pass for ended.
 */
function withoutAsker(connections: readonly Connection[], id: string | undefined): readonly Connection[] {
  const isAsker = (connection: Connection): boolean =>
    id === undefined ? /^client(\|list)?$/.test(connection.get('cmd') ?? '') : connection.get('id') === id;
  const number = (connection: Connection, field: 'age' | 'id', otherwise: number): number =>
    Number(connection.get(field) ?? otherwise);
  const [asker] = connections
    .filter(isAsker)
    .toSorted(
      (a, b) => number(a, 'age', 1e9) - number(b, 'age', 1e9) || number(b, 'id', 0) - number(a, 'id', 0),
    );
  return connections.filter((connection) => connection !== asker);
}

/** Whether the connection is at least that old. A connection without an age counts as old. */
const isOlder = (connection: Connection, seconds: number): boolean =>
  !(Number(connection.get('age') ?? Number.NaN) < seconds);

const toSessions = (connections: readonly Connection[], now: Date): readonly Session[] =>
  connections.map((connection) => {
    const age = Number(connection.get('age') ?? Number.NaN);
    return {
      applicationName: connection.get('name') || (connection.get('lib-name') ?? ''),
      clientAddress: connection.get('addr') ?? '',
      ...(Number.isFinite(age) ? { startedAt: new Date(now.getTime() - age * 1000) } : {}),
    };
  });

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)];
}

// Translation of failure.

/** Undefined where Vultr does not tell it. Throws UNREADABLE, with the user and the field, where it is told in no way that can be read. */
function accessControlOf(user: VultrUser | undefined): AccessControl | undefined {
  const parsed = accessControlSchema.safeParse(user?.access_control);
  if (parsed.success) return parsed.data;
  throw failed(
    'UNREADABLE',
    'none',
    'privilegeDifferences',
    `access_control of ${user?.username}: ${faults(parsed.error)}; nothing was changed`,
  );
}

const failed = (code: ProviderCode, effect: Effect, operation: string, message: string): ProviderError =>
  new ProviderError(`vultr-valkey: ${message}`, { code, effect, provider: 'vultr-valkey', operation });

const rulesUnknown = (refusal: ProviderError): ProviderError =>
  new ProviderError(
    `vultr-valkey: the access control that the spec declares was refused (${refusal.message}); correct the spec's privileges`,
    { ...refusal.facts, code: 'ROLE_UNKNOWN' },
    { cause: refusal },
  );

const notReady = (operation: string, reason: string): ProviderError =>
  failed('TARGET_NOT_READY', 'none', operation, `the database is not ready: ${reason}; try again later`);

/** What came of a look, or undefined where the look failed: then whoever looked knows no more than before. */
const lookedAt = <T>(look: Promise<T>): Promise<T | undefined> =>
  look.catch((error: unknown) => {
    if (error instanceof ProviderError || error instanceof VerificationFailed) return undefined;
    throw error;
  });

function requireSame(operation: string, asked: string, { username }: { username: string }): void {
  if (username !== asked)
    throw failed('UNREADABLE', 'applied', operation, `asked for ${asked}, was answered with another name`);
}

// Factory.

export const vultrValkey: ProviderDefinition<Target, Privileges> = {
  id: 'vultr-valkey',
  engine: 'valkey',
  capabilities: {
    passwords: 'chosen-by-us',
    strategies: ['replace-user', 'alternate-users', 'reset-password'],
    drainObservedBy: 'client-list',
    // Through the API, so that a user is never published with the rights of its birth, whether it was tried or not.
    privilegesNeedLogin: false,
    demandsCurrentPassword: false,
    passwordReadableAgain: 'always',
    // 30 requests a second for a source address (OpenAPI document), reads included: so every call of a rotation and of the
    // retirement after it is counted, the looks at the database before and after each change among them.
    writes: { perMinute: 1_800, perRotation: 34 },
    // A change is accepted with 202 and reaches the engine later (OpenAPI document). It is not documented whether the list of all
    // users is written anew for it, as ACL LOAD of the engine would do: then one of two changes at once could be lost.
    parallelRotations: 1,
  },
  targetSchema,
  privilegesSchema,
  targetId: ({ databaseId }) => databaseId,
  targetOf: ({ targetId }) => ({ databaseId: targetId }),
  ready: (login) => {
    const url = new URL(`rediss://${login.host}:${login.port}/${encodeURIComponent(login.database)}`);
    url.username = login.username;
    url.password = encodeURIComponent(login.password.reveal());
    return { url: url.href };
  },
  open,
};

function open(
  { target: { databaseId }, privileges, apiKey, keyRenewal, until }: OpenTarget<Target, Privileges>,
  ports: Ports,
): ChoosingProvider {
  const api = vultrApi({ databaseId, apiKey, keyRenewal, until }, ports);
  const declared: AccessControl = {
    ...privileges,
    categories: inOrder(privileges.categories),
    commands: inOrder(privileges.commands),
  };

  const describeDatabase = sharedForAMoment(api.database, ports);
  const list = async (): Promise<readonly DatabaseUser[]> => {
    const users = await api.users();
    const database = await describeDatabase();
    // A user that moves between pages while they are read is listed twice.
    return [...new Map(users.map((user) => [user.username, toUser(user, database)])).values()];
  };
  const isThere = async (username: string): Promise<boolean> => {
    try {
      requireSame('readUser', username, await api.user(username));
      return true;
    } catch (error) {
      if (error instanceof ProviderError && error.code === 'NOT_FOUND') return false;
      throw error;
    }
  };
  const timeLeft = async (most: number): Promise<number> =>
    Math.max(0, Math.min(most, until.getTime() - (await ports.now()).getTime()));

  /** Where the database is and how many replicas it has, read once a visit. */
  const whereabouts = oncePerVisit(async () => {
    const database = await describeDatabase();
    const endpoint = toEndpoint(database);
    if (endpoint === undefined) throw notReady('endpoint', 'Vultr does not say yet where to connect');
    return { endpoint, replicas: database.read_replicas.length };
  });
  const endpoint = async (): Promise<Endpoint> => (await whereabouts()).endpoint;
  const loginOf = atEndpoint(endpoint);
  const verify: ChoosingProvider['verify'] = async (login) => verifyByAuth(await loginOf(login), ports);

  /** Asks until the answer is yes, or the time is over. */
  async function untilSo(isSo: () => Promise<boolean>, mostMs: number): Promise<boolean> {
    const giveUpAt = (await ports.now()).getTime() + (await timeLeft(mostMs));
    for (let wait = 500; !(await isSo()); wait = Math.min(wait * 2, 15_000)) {
      if ((await ports.now()).getTime() + wait >= giveUpAt) return false;
      await ports.sleep(wait);
    }
    return true;
  }

  /** Work on one user of ours, in a database that takes changes. */
  async function changing<T>(operation: string, username: string, work: () => Promise<T>): Promise<T> {
    const refuse = (): ProviderError =>
      failed(
        'NAME_REFUSED',
        'none',
        operation,
        `${JSON.stringify(username)} is no name that rekey makes or changes`,
      );
    if (!usernamePattern.test(username) || reserved.has(username)) throw refuse();
    const database = await describeDatabase();
    if (username === database.user) throw refuse();
    const before = toReadiness(database);
    if (!before.ready) throw notReady(operation, before.reason);
    try {
      return await work();
    } catch (error) {
      // While a database changes its state, refusals are not to be believed (a like service called names invalid then).
      const isRefusal =
        error instanceof ProviderError &&
        error.effect === 'none' &&
        (error.code === 'REJECTED' || error.code === 'NOT_FOUND');
      const after = isRefusal ? await lookedAt(api.database().then(toReadiness)) : undefined;
      if (after?.ready === false) throw notReady(operation, after.reason);
      throw error;
    }
  }

  /** The recorded rights, where Vultr tells them. */
  const rightsOf = async (username: string): Promise<AccessControl | undefined> => {
    const user = await api.user(username);
    requireSame('privilegeDifferences', username, user);
    // Where the user's own page leaves it out, the list may tell.
    return (
      accessControlOf(user) ??
      accessControlOf((await api.users()).find((listed) => listed.username === username))
    );
  };
  /** What separates the recorded rights from the declared ones. */
  const differences = async (username: string): Promise<readonly string[]> =>
    differencesOf(declared, await rightsOf(username));

  /** Whether the database takes changes, so that its refusals may be believed. */
  const isStillReady = async (): Promise<boolean> =>
    (await lookedAt(api.database().then(toReadiness)))?.ready === true;

  /**
   * The declared part of these rights, for when Vultr refuses the declared ones as a whole. Undefined if they have no other part, and
   * if nothing would be left, unless `mayBeNothing`.
   */
  function declaredPartOf(
    held: AccessControl | undefined,
    { mayBeNothing }: { readonly mayBeNothing: boolean },
  ): AccessControl | undefined {
    const nothing = mayBeNothing
      ? { categories: ['-@all'], commands: [], keys: [], channels: [] }
      : undefined;
    if (held === undefined) return nothing;
    const lists = Object.keys(kinds) as (keyof AccessControl)[];
    const shared = (list: keyof AccessControl) => declared[list].filter((rule) => held[list].includes(rule));
    const kept = {
      categories: shared('categories'),
      commands: shared('commands'),
      keys: shared('keys'),
      channels: shared('channels'),
    };
    // A declared `-` rule that is missing is a right too many. Vultr does not document what an empty list means: it may be every
    // command or every key.
    const hasAllRefusals = [...declared.categories, ...declared.commands].every(
      (rule) => rule.startsWith('+') || kept.categories.includes(rule) || kept.commands.includes(rule),
    );
    if (!hasAllRefusals || kept.categories.length === 0 || kept.keys.length === 0) return nothing;
    return lists.every((list) => kept[list].length === held[list].length) ? undefined : kept;
  }

  /**
   * Afterwards the recorded rights are the declared ones. If Vultr refuses them, throws ROLE_UNKNOWN and leaves the user's
   * rights as they were.
   */
  async function putInOrder(username: string, guard: Guard, isPatient: boolean): Promise<void> {
    if ((await differences(username)).length === 0) return;
    let failure: ProviderError | undefined;
    try {
      const change = { guard, isDestructive: !isPatient };
      requireSame('applyPrivileges', username, await api.setAccessControl(username, declared, change));
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      if (error.code === 'REJECTED' && (await isStillReady())) throw rulesUnknown(error);
      if (error.effect !== 'unknown' || error.code === 'RATE_LIMITED') throw error;
      failure = error;
    }
    let left: readonly string[] = [];
    const isRight = async (): Promise<boolean> => {
      left = await differences(username);
      return left.length === 0;
    };
    if (await untilSo(isRight, settleMs)) return;
    throw (
      failure ??
      new VerificationFailed(
        'PRIVILEGES_DIFFER',
        `${username} still differs after its access control was set: ${left.join(', ')}; check whether Vultr knows what the spec declares`,
      )
    );
  }

  /**
   * The same; where Vultr refuses, what is not declared is taken away before it throws. A user in use keeps what it has if otherwise
   * nothing would be left: that would lock its consumers out for an error in the spec.
   */
  async function putInOrderOrTakeAway(
    username: string,
    guard: Guard,
    { isPatient, isIdle }: { readonly isPatient: boolean; readonly isIdle: boolean },
  ): Promise<void> {
    try {
      await putInOrder(username, guard, isPatient);
    } catch (error) {
      if (!isRulesUnknown(error)) throw error;
      const part = declaredPartOf(await rightsOf(username), { mayBeNothing: isIdle });
      if (part === undefined) throw error;
      await api.setAccessControl(username, part, { guard, isDestructive: !isPatient });
      throw afterChanges(error);
    }
  }

  const isRecorded = async (username: string, password: Sensitive): Promise<boolean> => {
    const user = await api.user(username);
    requireSame('setPassword', username, user);
    return user.password?.equals(password) ?? false;
  };

  /** Afterwards Vultr has recorded this password. */
  async function put(username: string, next: Sensitive, guard: Guard): Promise<void> {
    try {
      requireSame('setPassword', username, await api.setPassword(username, next, guard));
    } catch (error) {
      if (!(error instanceof ProviderError) || error.effect === 'applied') throw error;
      // "The same password" may be a 4xx, and a lost answer may have been, or may yet be, applied: what is recorded
      // decides. For anything else Vultr's word is enough.
      if (error.effect === 'none' && error.code !== 'REJECTED') throw error;
      const patience = error.effect === 'unknown' ? lateMs : 0;
      const isSo = async () => (await lookedAt(isRecorded(username, next))) ?? false;
      if (!(await untilSo(isSo, patience))) throw error;
    }
  }

  const deletionOf = (username: string, guard: Guard): Deletion => ({
    provider: 'vultr-valkey',
    username,
    list,
    remove: () => api.deleteUser(username, guard),
    until,
  });

  /** Creates the user with a throw-away password; `exists` where another call created it. */
  async function make(username: string, throwAway: Sensitive, guard: Guard): Promise<'created' | 'exists'> {
    // Whether a POST of a name that exists changes its password is unknown: it is never sent.
    const look = { provider: 'vultr-valkey', operation: 'createUser', username, list, until };
    if ((await findListed(look, ports)) !== undefined || (await isThere(username))) return 'exists';
    /** Vultr tells passwords, so the throw-away one proves that this call created the user. */
    const whose = async () => ((await lookedAt(isRecorded(username, throwAway))) ? 'created' : 'exists');
    for (let creation = 1; ; creation += 1) {
      try {
        requireSame('createUser', username, await api.createUser(username, throwAway, guard));
        return 'created';
      } catch (error) {
        if (!(error instanceof ProviderError) || error.effect === 'applied' || error.code === 'UNAUTHORIZED')
          throw error;
        // In what words a duplicate is refused is unknown, and a lost answer may hide a user: the user itself decides.
        // Where it cannot be asked for, the first failure is the one that says that nothing is known.
        const found = await lookedAt(isThere(username));
        if (found === true) return whose();
        if (error.code !== 'RATE_LIMITED' || found === undefined) throw error;
        const wait = error.facts.retryAfterMs ?? 500 * 2 ** creation;
        if (creation >= mostCreations || wait >= (await timeLeft(Number.POSITIVE_INFINITY)))
          throw new ProviderError(
            `vultr-valkey was asked too often to create ${username}, who is not there; Secrets Manager tries again`,
            { ...error.facts, effect: 'none' },
            { cause: error },
          );
        await ports.sleep(wait);
        if (await isThere(username)) return whose();
      }
    }
  }

  /** The connections of `username` without the asking one, or why they cannot be seen. */
  async function readConnections(
    username: string,
    login: UserPassword,
  ): Promise<
    { readonly open: readonly Connection[] } | { readonly reason: string; readonly isUnreachable?: true }
  > {
    try {
      const outcome = await ports.valkey({
        ...(await loginOf(login)),
        commands: [
          ['CLIENT', 'ID'],
          ['CLIENT', 'LIST'],
        ],
        timeoutMs: Math.max(1, await timeLeft(30_000)),
        guard: 'reads-only',
      });
      if (outcome.say === 'rejected') return { reason: `${login.username} could not log in to look` };
      const [asker, reply] = outcome.replies;
      if (reply !== undefined && 'error' in reply)
        return {
          reason: `CLIENT LIST was answered with ${codeOf(reply.error)}; declare the command +client|list to see sessions`,
        };
      if (typeof reply?.value !== 'string')
        return { reason: 'CLIENT LIST was answered with something else than lines' };
      if (reply.value.split('\n').some((line) => line.trim() !== '' && !/(^| )user=/.test(line)))
        return { reason: 'CLIENT LIST does not say who is connected as whom' };
      const all = connectionsOf(reply.value, username);
      if (login.username !== username) return { open: all };
      const id = asker !== undefined && 'value' in asker ? String(asker.value) : undefined;
      return { open: withoutAsker(all, id) };
    } catch (error) {
      if (!(error instanceof TransportError)) throw error;
      return { reason: error.message, isUnreachable: true };
    }
  }

  return {
    id: 'vultr-valkey',
    passwords: 'chosen-by-us',
    readiness: async () => toReadiness(await describeDatabase()),
    listUsers: list,
    endpoint,

    createUser: ({ username, password }, guard) =>
      changing('createUser', username, async () => {
        refuseEmpty('createUser', password);
        const throwAway = await throwAwayPassword(ports);
        if ((await make(username, throwAway, guard)) === 'exists') return 'exists';
        // Vultr does not document the rights of a new user, and they can only be set afterwards (Terraform provider).
        try {
          await putInOrder(username, guard, true);
        } catch (error) {
          if (!isRulesUnknown(error)) throw afterChanges(error);
          throw await undoCreation(error, deletionOf(username, guard.taking), ports);
        }
        await put(username, password, guard).catch((error: unknown) => {
          throw afterChanges(error);
        });
        return 'created';
      }),

    setPassword: ({ username, next, isIdle = false }, guard) =>
      changing('setPassword', username, async () => {
        refuseEmpty('setPassword', next);
        // First, otherwise a crash in between leaves a stored login that holds undeclared rights.
        if (isIdle) await putInOrderOrTakeAway(username, guard, { isPatient: false, isIdle });
        if (await isRecorded(username, next)) {
          // What is recorded may never have reached the engine; only the engine's no makes it worth saying again.
          const said = await lookedAt(verify({ username, password: next }));
          if (said !== 'rejected') return;
        }
        await put(username, next, guard);
      }),

    deleteUser: (username, guard) =>
      changing('deleteUser', username, () => deleteListed(deletionOf(username, guard), ports)),

    verify,

    privilegeDifferences: ({ username }) => differences(username),

    applyPrivileges: ({ username }, guard) =>
      changing('applyPrivileges', username, () =>
        putInOrderOrTakeAway(username, guard, { isPatient: true, isIdle: false }),
      ),

    async endSessions(username, userPassword, openedBefore, guard) {
      const login = await loginOf(userPassword);
      const converse = async (commands: readonly (readonly string[])[]): Promise<readonly ValkeyReply[]> => {
        const timeoutMs = Math.max(1, await timeLeft(30_000));
        const outcome = await ports.valkey({ ...login, commands, timeoutMs, guard });
        if (outcome.say === 'accepted') return outcome.replies;
        return commands.map(() => ({ error: 'WRONGPASS' }));
      };
      // The engine counts whole seconds. Where in doubt a connection ends: its application comes back with what it reads then.
      const age = async () => Math.floor(((await ports.now()).getTime() - openedBefore.getTime()) / 1000);
      const refused = (replies: readonly ValkeyReply[]): string | undefined =>
        replies.flatMap((reply) => ('error' in reply ? [reply.error] : []))[0];
      const cannot = (command: string, error: string) => ({
        ended: false as const,
        reason: `${command} was answered with ${codeOf(error)}; declare the commands +client|kill and +client|list to end sessions`,
      });
      const look = async (): Promise<number | string> => {
        const seen = await readConnections(username, login);
        if ('reason' in seen) return `they may not have ended: ${seen.reason}`;
        const seconds = await age();
        return seen.open.filter((connection) => isOlder(connection, seconds)).length;
      };
      try {
        // An age of nothing is refused by the engine, which tells of it as `maxage should be greater than 0`.
        const seconds = await age();
        const limit = seconds > 0 ? ['MAXAGE', String(seconds)] : [];
        const refusal = refused(await converse([['CLIENT', 'KILL', 'USER', username, ...limit]]));
        if (refusal !== undefined) {
          // MAXAGE came with Valkey 8.0; before, the same is done one by one.
          if (!/syntax error/i.test(refusal)) return cannot('CLIENT KILL', refusal);
          const [lines] = await converse([['CLIENT', 'LIST']]);
          if (lines === undefined || 'error' in lines)
            return cannot('CLIENT LIST', lines?.error ?? 'nothing');
          // No connection is left out: the one that listed them is closed by now, and the one that kills opened later.
          const kills = connectionsOf(String(lines.value), username)
            .filter((connection) => isOlder(connection, seconds))
            .map((connection) => ['CLIENT', 'KILL', 'ID', connection.get('id') ?? '']);
          const failure = kills.length === 0 ? undefined : refused(await converse(kills));
          if (failure !== undefined) return cannot('CLIENT KILL', failure);
        }
        const end = await confirmEnded(look, until, ports);
        const { replicas } = await whereabouts();
        if (!end.ended || replicas === 0) return end;
        return { ended: false, reason: `connections to its ${replicas} read replicas cannot be ended` };
      } catch (error) {
        if (!(error instanceof TransportError)) throw error;
        return { ended: false, reason: error.message };
      }
    },

    async sessions(username, login) {
      const seen = await readConnections(username, login);
      if ('reason' in seen) return { observed: false, ...seen };
      const { replicas } = await whereabouts();
      return {
        observed: true,
        open: toSessions(seen.open, await ports.now()),
        // CLIENT LIST is of one node, and Vultr's API does not tell of connections at all.
        ...(replicas === 0 ? {} : { unseen: `connections to its ${replicas} read replicas are not shown` }),
      };
    },
  };
}

const isRulesUnknown = (error: unknown): error is ProviderError =>
  error instanceof ProviderError && error.code === 'ROLE_UNKNOWN';

/** Vultr takes an empty password as the wish for one of its own, which nobody else would ever learn. */
function refuseEmpty(operation: string, password: Sensitive): void {
  if (password.reveal() === '')
    throw failed('REJECTED', 'none', operation, 'an empty password is never sent');
}
