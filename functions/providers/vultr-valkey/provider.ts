import { z } from 'zod';
import { type Effect, type ProviderCode, ProviderError, VerificationFailed } from '../../core/errors.ts';
import type { Guard } from '../../core/guard.ts';
import { type Leave, type Ports, TransportError, type ValkeyReply } from '../../core/ports.ts';
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
import { askedOnce, sentHome } from '../home.ts';
import { deleteListed, findListed } from '../listed-users.ts';
import { codeOf, verifyByAuth } from '../valkey.ts';
import { type AccessControl, type VultrDatabase, vultrApi } from './api.ts';

// Options.

const targetSchema = z.strictObject({
  /** The Managed Database whose users we manage. */
  databaseId: z.guid({ error: 'expected the UUID of the database' }),
});
type Target = z.output<typeof targetSchema>;

const rules = (pattern: RegExp, expected: string) =>
  z
    .array(z.string().regex(pattern, { error: `expected ${expected}` }))
    .refine((held) => new Set(held.map((rule) => rule.slice(1))).size === new Set(held).size, {
      error: 'expected no rule that is both granted and taken: their order may not survive at Vultr',
    });
/** Beside what an ACL means by them: `~`, `&` and `%` in front are Valkey's, not Vultr's, spelling. */
const patterns = z.array(
  z.string().regex(/^(?![~&%])[\x21-\x7e]+$/, {
    error: 'expected a glob pattern without ~ or & in front and without blanks, such as orders:*',
  }),
);

/**
 * Vultr's four lists. What a user may run and which keys it may touch is always said, as nothing said might mean
 * everything: whoever wants that declares `+@all` and `*`.
 */
const privilegesSchema = z.strictObject({
  categories: rules(/^[+-]@[a-z][a-z0-9_]{0,62}$/, 'a category with +@ or -@ in front, such as +@read').min(
    1,
    { error: 'expected at least one category: an empty list may mean every command' },
  ),
  commands: rules(
    /^[+-][a-z][a-z0-9_.-]{0,62}(\|[a-z0-9_-]{1,63})?$/,
    'a command with + or - in front, such as +get or -config|set',
  ).default([]),
  keys: patterns.min(1, { error: 'expected at least one pattern: an empty list may mean every key' }),
  channels: patterns.default([]),
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

/** One of those that are listing right now is the asker; of several all others are counted, whatever they call themselves. */
function withoutAsker(connections: readonly Connection[]): readonly Connection[] {
  const own = connections.findIndex((connection) => /^client(\|list)?$/.test(connection.get('cmd') ?? ''));
  return connections.filter((_connection, index) => index !== own);
}

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

const failed = (code: ProviderCode, effect: Effect, operation: string, message: string): ProviderError =>
  new ProviderError(`vultr-valkey: ${message}`, { code, effect, provider: 'vultr-valkey', operation });

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
    passwordReadableAgain: 'always',
    // 30 requests a second for a source address (OpenAPI document), reads included: so every call of a rotation and of the
    // retirement after it is counted, the looks at the database before and after each change among them.
    writes: { perMinute: 1_800, perRotation: 36 },
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
  { target: { databaseId }, privileges, apiKey, until }: OpenTarget<Target, Privileges>,
  ports: Ports,
): ChoosingProvider {
  const api = vultrApi({ databaseId, apiKey, until }, ports);
  const declared: AccessControl = {
    ...privileges,
    categories: inOrder(privileges.categories),
    commands: inOrder(privileges.commands),
  };

  const list = async (): Promise<readonly DatabaseUser[]> => {
    const users = await api.users();
    const database = await api.database();
    // A user that moves between pages while they are read is listed twice.
    return [...new Map(users.map((user) => [user.username, toUser(user, database)])).values()];
  };
  const endpoint = askedOnce(async (): Promise<Endpoint> => {
    const found = toEndpoint(await api.database());
    if (found === undefined) throw notReady('endpoint', 'Vultr does not say yet where to connect');
    return found;
  });
  const home = sentHome(endpoint);
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
  async function changing<T>(
    operation: string,
    username: string,
    work: (database: VultrDatabase) => Promise<T>,
  ): Promise<T> {
    const refuse = (): ProviderError =>
      failed(
        'NAME_REFUSED',
        'none',
        operation,
        `${JSON.stringify(username)} is no name that rekey makes or changes`,
      );
    if (!usernamePattern.test(username) || reserved.has(username)) throw refuse();
    const database = await api.database();
    if (username === database.user) throw refuse();
    const before = toReadiness(database);
    if (!before.ready) throw notReady(operation, before.reason);
    try {
      return await work(database);
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

  /** What separates the recorded rights from the declared ones. */
  const differences = async (username: string): Promise<readonly string[]> => {
    const user = await api.user(username);
    requireSame('privilegeDifferences', username, user);
    // Where the user's own page leaves it out, the list may tell.
    const held =
      user.access_control ??
      (await api.users()).find((listed) => listed.username === username)?.access_control;
    return differencesOf(declared, held ?? undefined);
  };

  async function create(username: string, password: Sensitive, guard: Guard): Promise<'created' | 'exists'> {
    for (let creation = 1; ; creation += 1) {
      try {
        requireSame('createUser', username, await api.createUser(username, password, guard));
        return 'created';
      } catch (error) {
        if (!(error instanceof ProviderError) || error.effect === 'applied' || error.code === 'UNAUTHORIZED')
          throw error;
        // In what words a duplicate is refused is unknown, and a lost answer may hide a user: the user itself decides.
        // Where it cannot be asked for, the first failure is the one that says that nothing is known.
        const found = await lookedAt(isThere(username));
        if (found === true) return 'exists';
        if (error.code !== 'RATE_LIMITED' || found === undefined) throw error;
        const wait = error.facts.retryAfterMs ?? 500 * 2 ** creation;
        if (creation >= mostCreations || wait >= (await timeLeft(Number.POSITIVE_INFINITY)))
          throw new ProviderError(
            `vultr-valkey was asked too often to create ${username}, who is not there; Secrets Manager tries again`,
            { ...error.facts, effect: 'none' },
            { cause: error },
          );
        await ports.sleep(wait);
        if (await isThere(username)) return 'exists';
      }
    }
  }

  async function putPassword(
    username: string,
    next: Sensitive,
    database: VultrDatabase,
    guard: Guard,
  ): Promise<void> {
    const isRecorded = async (): Promise<boolean> => {
      const user = await api.user(username);
      requireSame('setPassword', username, user);
      return user.password?.equals(next) ?? false;
    };
    if (await isRecorded()) {
      // What is recorded may never have reached the engine; only the engine's no makes it worth saying again.
      const at = toEndpoint(database);
      const said =
        at === undefined
          ? undefined
          : await lookedAt(verifyByAuth({ ...at, username, password: next }, ports));
      if (said !== 'rejected') return;
    }
    try {
      requireSame('setPassword', username, await api.setPassword(username, next, guard));
    } catch (error) {
      if (!(error instanceof ProviderError) || error.effect === 'applied') throw error;
      // "The same password" may be a 4xx, and a lost answer may have been, or may yet be, applied: what is recorded
      // decides. For anything else Vultr's word is enough.
      if (error.effect === 'none' && error.code !== 'REJECTED') throw error;
      const patience = error.effect === 'unknown' ? lateMs : 0;
      if (!(await untilSo(async () => (await lookedAt(isRecorded())) ?? false, patience))) throw error;
    }
  }

  /** Afterwards what Vultr records of the user's rights is what is declared. */
  async function setRights(username: string, guard: Guard): Promise<void> {
    if ((await differences(username)).length === 0) return;
    let failure: ProviderError | undefined;
    try {
      requireSame('applyPrivileges', username, await api.setAccessControl(username, declared, guard));
    } catch (error) {
      if (!(error instanceof ProviderError) || error.effect !== 'unknown') throw error;
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

  /** One conversation, as this user at the vendor's own address. */
  const converse = async (who: UserPassword, commands: readonly (readonly string[])[], guard: Leave) =>
    ports.valkey({ ...(await home(who)), commands, timeoutMs: Math.max(1, await timeLeft(30_000)), guard });

  return {
    id: 'vultr-valkey',
    passwords: 'chosen-by-us',
    readiness: async () => toReadiness(await api.database()),
    listUsers: list,

    endpoint,

    createUser: ({ username, password }, guard) =>
      changing('createUser', username, async () => {
        // Whether a POST of a name that exists changes its password is unknown: it is never sent.
        const look = { provider: 'vultr-valkey', operation: 'createUser', username, list, until };
        if ((await findListed(look, ports)) !== undefined || (await isThere(username))) return 'exists';
        return create(username, password, guard);
      }),

    setPassword: ({ username, next }, guard) =>
      changing('setPassword', username, async (database) => {
        // Vultr takes an empty password as the wish for one of its own, which nobody else would ever learn.
        if (next.reveal() === '')
          throw failed('REJECTED', 'none', 'setPassword', 'an empty password is never sent');
        await putPassword(username, next, database, guard);
      }),

    deleteUser: (username, guard) =>
      changing('deleteUser', username, () =>
        deleteListed(
          { provider: 'vultr-valkey', username, list, remove: () => api.deleteUser(username, guard), until },
          ports,
        ),
      ),

    verify: async (login) => verifyByAuth(await home(login), ports),

    privilegeDifferences: ({ username }) => differences(username),

    applyPrivileges: ({ username }, guard) =>
      changing('applyPrivileges', username, () => setRights(username, guard)),

    async endSessions(username, login, openedBefore, guard) {
      const told = async (
        commands: readonly (readonly string[])[],
        leave: Leave,
      ): Promise<readonly ValkeyReply[]> => {
        const outcome = await converse(login, commands, leave);
        return outcome.say === 'accepted' ? outcome.replies : commands.map(() => ({ error: 'WRONGPASS' }));
      };
      // The engine counts whole seconds. Where in doubt a connection ends: its application comes back with what it reads then.
      const age = Math.floor(((await ports.now()).getTime() - openedBefore.getTime()) / 1000);
      const refused = (replies: readonly ValkeyReply[]): string | undefined =>
        replies.flatMap((reply) => ('error' in reply ? [reply.error] : []))[0];
      const cannot = (command: string, error: string) => ({
        ended: false as const,
        reason: `${command} was answered with ${codeOf(error)}; declare the commands +client|kill and +client|list to end sessions`,
      });
      try {
        // An age of nothing is refused by the engine, which tells of it as `maxage should be greater than 0`.
        const limit = age > 0 ? ['MAXAGE', String(age)] : [];
        const refusal = refused(await told([['CLIENT', 'KILL', 'USER', username, ...limit]], guard));
        if (refusal === undefined) return { ended: true };
        // MAXAGE came with Valkey 8.0; before, the same is done one by one.
        if (!/syntax error/i.test(refusal)) return cannot('CLIENT KILL', refusal);
        const [lines] = await told([['CLIENT', 'LIST']], 'reads-only');
        if (lines === undefined || 'error' in lines) return cannot('CLIENT LIST', lines?.error ?? 'nothing');
        // None is spared: the connection that listed them is closed by now, and killing what is gone kills nobody.
        const old = connectionsOf(String(lines.value), username).filter(
          (connection) => Number(connection.get('age') ?? Number.NaN) >= age,
        );
        const kills = old.map((connection) => ['CLIENT', 'KILL', 'ID', connection.get('id') ?? '']);
        const failure = kills.length === 0 ? undefined : refused(await told(kills, guard));
        return failure === undefined ? { ended: true } : cannot('CLIENT KILL', failure);
      } catch (error) {
        if (!(error instanceof TransportError)) throw error;
        return { ended: false, reason: error.message };
      }
    },

    async sessions(username, login) {
      try {
        const outcome = await converse(login, [['CLIENT', 'LIST']], 'reads-only');
        if (outcome.say === 'rejected')
          return { observed: false, reason: `${login.username} could not log in to look` };
        const [reply] = outcome.replies;
        if (reply !== undefined && 'error' in reply)
          return {
            observed: false,
            reason: `CLIENT LIST was answered with ${codeOf(reply.error)}; declare the command +client|list to see sessions`,
          };
        if (typeof reply?.value !== 'string')
          return { observed: false, reason: 'CLIENT LIST was answered with something else than lines' };
        if (reply.value.split('\n').some((line) => line.trim() !== '' && !/(^| )user=/.test(line)))
          return { observed: false, reason: 'CLIENT LIST does not say who is connected as whom' };
        const connections = connectionsOf(reply.value, username);
        const open = toSessions(
          login.username === username ? withoutAsker(connections) : connections,
          await ports.now(),
        );
        const replicas = (await api.database()).read_replicas?.length ?? 0;
        return {
          observed: true,
          open,
          ...(replicas === 0 ? {} : { unseen: `connections to its ${replicas} read replicas are not shown` }),
        };
      } catch (error) {
        if (!(error instanceof TransportError)) throw error;
        return { observed: false, reason: error.message, isUnreachable: true };
      }
    },
  };
}
