import * as z from 'zod/mini';
import { type Effect, ProviderError } from '../../core/errors.ts';
import type { Guard } from '../../core/guard.ts';
import type { Ports } from '../../core/ports.ts';
import type {
  DatabaseUser,
  Endpoint,
  IssuingProvider,
  Login,
  OpenTarget,
  ProviderDefinition,
} from '../../core/provider.ts';
import { Sensitive } from '../../core/sensitive.ts';
import { usernamePattern } from '../../core/username.ts';
import { deleteListed, findListed, withRemedy } from '../listed-users.ts';
import { endSessionsBySql, postgresUrl, verifyBySql } from '../sql.ts';
import { atEndpoint, oncePerVisit } from '../visit.ts';
import { type ConnectionInfo, type ListedUser, postgresIdPattern, renderApi } from './api.ts';
import { vendorWebhooks, webhookEndpoint } from './webhooks.ts';

// Options.

const targetSchema = z.strictObject({
  /** The database whose users we manage, for example `dpg-d1abc2d3e4f5g6h7i8j9-a`; never a replica. */
  postgresId: z
    .string()
    .check(z.regex(postgresIdPattern, { error: 'expected the id of a database, such as dpg-…-a' })),
});
type Target = z.output<typeof targetSchema>;

/** Render's users all hold the rights of the database's owner role: there is nothing to declare. */
const privilegesSchema = z.strictObject({});

// Rules.

/** How long Render may take until a new user is the default and its password can be read. Unpublished; ours. */
const settleMs = 120_000;

// Translation in.

const openRows = z.tuple([z.object({ open: z.int() })]);

interface RenderUser extends DatabaseUser {
  /** Undefined where Render left the field out. */
  readonly createdAt: number | undefined;
}

const toUser = (wire: ListedUser): RenderUser => ({
  username: wire.username,
  // An unknown default may be the default: deleting it is what must never be tried. Names that we would not put into a
  // URL (`..` is a legal role name) cannot be addressed at all.
  isProtected: wire.default !== false || !usernamePattern.test(wire.username),
  createdAt: wire.createdAt == null ? undefined : Date.parse(wire.createdAt),
  ...(wire.default == null ? {} : { isDefault: wire.default }),
  ...(wire.openConnections == null ? {} : { openConnections: wire.openConnections }),
});

/** The external connection string, taken apart; undefined where it is none. */
function externalOf({ externalConnectionString }: ConnectionInfo): (Endpoint & { url: URL }) | undefined {
  const url = URL.parse(externalConnectionString.reveal());
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol) || url.hostname === '') return undefined;
  return {
    url,
    host: url.hostname,
    // Older strings have no port (recorded answers).
    port: url.port === '' ? 5432 : Number(url.port),
    // Not the name that was asked for when the database was made: Render appends a suffix (recorded answers).
    database: decoded(url.pathname.slice(1)) ?? '',
  };
}

/**
 * The login in connection-info, if it is that of `username`: the answer always describes whoever is the default now, so
 * the name inside the string is the only proof whose password this is (docs page).
 */
function loginIn(info: ConnectionInfo, username: string): Login | undefined {
  const external = externalOf(info);
  if (external === undefined) return undefined;
  const { url, ...endpoint } = external;
  const password = decoded(url.password);
  if (decoded(url.username) !== username || password === undefined || password !== info.password.reveal())
    return undefined;
  return { ...endpoint, username, password: new Sensitive(password) };
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** Where a user of ours stands while Render settles. */
function standing(
  users: readonly RenderUser[],
  username: string,
): 'absent' | 'maybe-default' | 'waiting' | 'overtaken' {
  const ours = users.find((user) => user.username === username);
  if (ours === undefined) return 'absent';
  if (ours.isDefault !== false) return 'maybe-default';
  const other = users.find((user) => user.isDefault === true);
  const later =
    other?.createdAt !== undefined && ours.createdAt !== undefined && other.createdAt > ours.createdAt;
  return later ? 'overtaken' : 'waiting';
}

// Translation of failure.

const failed = (
  code: 'NAME_REFUSED' | 'NOT_SETTLED' | 'TARGET_NOT_READY' | 'CONFLICT' | 'UNREADABLE',
  effect: Effect,
  operation: string,
  message: string,
): ProviderError =>
  new ProviderError(`render-postgres: ${message}`, { code, effect, provider: 'render-postgres', operation });

function refuseOddName(operation: string, username: string): void {
  if (!usernamePattern.test(username))
    throw failed(
      'NAME_REFUSED',
      'none',
      operation,
      `${JSON.stringify(username)} is no name that rekey makes or changes`,
    );
}

// Factory.

export const renderPostgres: ProviderDefinition<Target, z.output<typeof privilegesSchema>> = {
  id: 'render-postgres',
  engine: 'postgres',
  capabilities: {
    passwords: 'chosen-by-provider',
    // No call sets a password or makes an old user the default again: a new user is the only way (OpenAPI document).
    strategies: ['replace-user'],
    drainObservedBy: 'user-list',
    privilegesNeedLogin: false,
    demandsCurrentPassword: false,
    passwordReadableAgain: 'while-default',
    // 30 writes a minute (rate-limit page; recorded answers of 2026 show 100). Reads have a budget of their own. A rotation
    // makes a user and deletes one, and for a service on Render sets a variable and deploys.
    writes: { perMinute: 30, perRotation: 4 },
    // A new user is made the default, and the password can be read of the default user alone (docs page): of two rotations at once,
    // the second would take the password of the first one's user away for good.
    parallelRotations: 1,
  },
  webhookEndpoint,
  targetSchema,
  privilegesSchema,
  targetId: ({ postgresId }) => postgresId,
  targetOf: ({ targetId }) => ({ postgresId: targetId }),
  // `require`, as libpq's verify-full needs a root file that most images lack; rekey's own logins always verify.
  ready: (login) => ({ url: postgresUrl(login, 'require') }),
  open,
};

function open(
  { target: { postgresId }, apiKey, keyRenewal, until }: OpenTarget<Target, unknown>,
  ports: Ports,
): IssuingProvider {
  const api = renderApi({ postgresId, apiKey, keyRenewal, until }, ports);
  const list = async (): Promise<readonly RenderUser[]> => (await api.users()).map(toUser);

  const readiness: IssuingProvider['readiness'] = async () => {
    const { status, suspended, role } = await api.database();
    if (role !== 'primary')
      return { ready: false, reason: `its role is ${role}; users are managed on the primary` };
    if (suspended !== 'not_suspended') return { ready: false, reason: `it is ${suspended}` };
    // maintenance_scheduled too: the maintenance may begin between two of our calls.
    return status === 'available' ? { ready: true } : { ready: false, reason: `its status is ${status}` };
  };

  const find = (operation: string, username: string): Promise<RenderUser | undefined> =>
    findListed({ provider: 'render-postgres', operation, username, list, until }, ports);

  async function create(username: string, guard: Guard): Promise<void> {
    const state = await readiness();
    if (!state.ready)
      throw failed(
        'TARGET_NOT_READY',
        'none',
        'createUser',
        `${postgresId} is not ready: ${state.reason}; try again later`,
      );
    try {
      await api.createUser(username, guard);
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      // Never a second POST here: the list tells what the first one did.
      const unclear = error.effect !== 'none' || error.code === 'CONFLICT';
      if (!unclear && (await find('createUser', username)) === undefined) throw error;
    }
  }

  /** Shown in Render's audit log as a look at the password, so it is read once a visit. */
  const endpoint = oncePerVisit(async (): Promise<Endpoint> => {
    const external = externalOf(await api.connectionInfo());
    if (external === undefined || external.database === '')
      throw failed(
        'UNREADABLE',
        'none',
        'endpoint',
        'the external connection string in connection-info is no PostgreSQL URL; look at it in the dashboard',
      );
    const { url: _url, ...where } = external;
    return where;
  });
  const loginOf = atEndpoint(endpoint);

  return {
    id: 'render-postgres',
    passwords: 'chosen-by-provider',
    readiness,
    listUsers: list,

    async issueUser(username, guard) {
      refuseOddName('createUser', username);
      // A crash after the POST leaves a user that can be found again only by this name; so look first, and twice.
      if ((await find('createUser', username)) === undefined) await create(username, guard);
      const deadline = Math.min((await ports.now()).getTime() + settleMs, until.getTime());
      for (let wait = 250; ; wait = Math.min(wait * 2, 10_000)) {
        const stands = standing(await list(), username);
        if (stands === 'overtaken') return 'lost';
        if (stands === 'maybe-default') {
          const login = loginIn(await api.connectionInfo(), username);
          if (login !== undefined) return login;
        }
        if ((await ports.now()).getTime() + wait >= deadline) {
          // It settled without becoming the default, and somebody else's user is: no call will ever tell its password.
          if (stands === 'waiting' && (await list()).some((user) => user.isDefault === true)) return 'lost';
          throw failed(
            'NOT_SETTLED',
            stands === 'absent' ? 'unknown' : 'applied',
            'createUser',
            `${username} is ${stands === 'absent' ? 'not listed yet' : 'listed, but its password is not readable yet'}; Secrets Manager tries again`,
          );
        }
        await ports.sleep(wait);
      }
    },

    /** Tells by the list alone who the default is: connection-info would show whoever's password that is. */
    async placeDefault(username, guard) {
      refuseOddName('placeDefault', username);
      let effect: Effect = 'none';
      if ((await find('placeDefault', username)) === undefined) {
        await create(username, guard);
        effect = 'applied';
      }
      const deadline = Math.min((await ports.now()).getTime() + settleMs, until.getTime());
      for (let wait = 250; ; wait = Math.min(wait * 2, 10_000)) {
        const users = await list();
        const current = users.find((user) => user.isDefault === true)?.username;
        if (current === username) return;
        const stands = standing(users, username);
        const isLate = (await ports.now()).getTime() + wait >= deadline;
        if (stands === 'overtaken' || (isLate && stands === 'waiting' && current !== undefined))
          throw failed(
            'CONFLICT',
            effect,
            'placeDefault',
            `${current} is the default, and no call makes ${username} the default again; make one of another name`,
          );
        if (isLate)
          throw failed(
            'NOT_SETTLED',
            effect === 'applied' && stands === 'absent' ? 'unknown' : effect,
            'placeDefault',
            `${username} is ${stands === 'absent' ? 'not listed yet' : 'listed, but not said to be the default'}; the next pass looks again`,
          );
        await ports.sleep(wait);
      }
    },

    endpoint,

    async deleteUser(username, guard) {
      refuseOddName('deleteUser', username);
      const remove = () =>
        api.deleteUser(username, guard).catch((error: unknown) => {
          if (!(error instanceof ProviderError) || error.code !== 'BLOCKED') throw error;
          throw withRemedy(
            error,
            `it is the default user, or owns something: as a user who is a member of both roles run REASSIGN OWNED BY "${username}" TO <a role that stays> and take away what was granted to it, then the next pass deletes it`,
          );
        });
      return deleteListed({ provider: 'render-postgres', username, list, remove, until }, ports);
    },

    verify: async (login) => verifyBySql(await loginOf(login), ports),
    privilegeDifferences: async () => [],
    webhooks: vendorWebhooks(api),

    // Render has no call for it; PostgreSQL lets a role end its own connections.
    async endSessions(username, userPassword, openedBefore, guard) {
      const login = await loginOf(userPassword);
      // The start of another role's connections is hidden, not the connections: those are tried, and refused aloud. Only the
      // connection that runs this is left out, by its pid: an intruder can name a connection `rekey`.
      const opened = {
        text: `FROM pg_stat_activity
                WHERE usename = $1 AND (backend_start < $2 OR backend_start IS NULL) AND pid <> pg_backend_pid()`,
        values: [username, openedBefore.toISOString()],
      };
      const end = { ...opened, text: `SELECT pg_terminate_backend(pid) ${opened.text}` };
      const count = { ...opened, text: `SELECT count(*)::int AS open ${opened.text}` };
      const look = async (): Promise<number | string> => {
        const session = { ...login, statements: [count], timeoutMs: 15_000 };
        const outcome = await ports.sql({ ...session, guard: 'reads-only' });
        if (outcome.say === 'rejected')
          return `${login.username} could not log in to look whether they ended`;
        return openRows.parse(outcome.rows[0])[0].open;
      };
      return endSessionsBySql(login, { end, look }, { guard, until }, ports);
    },

    // The API answers, so no session of rekey is among the connections, and none is left out.
    async sessions(username) {
      const counted = (await list()).find((user) => user.username === username)?.openConnections;
      if (counted === 0) return { observed: true, open: 0 };
      try {
        const open = (await api.processes())
          .filter((process) => process.username === username)
          .map(({ applicationName, clientAddr, backendStart }) => ({
            applicationName: applicationName ?? '',
            clientAddress: clientAddr ?? '',
            ...(backendStart == null ? {} : { startedAt: new Date(backendStart) }),
          }));
        // The list's count wins where it sees more: it may know of connections that the query view does not.
        return { observed: true, open: counted !== undefined && counted > open.length ? counted : open };
      } catch (error) {
        if (!(error instanceof ProviderError)) throw error;
        return counted === undefined
          ? { observed: false, reason: `neither the list nor the processes could be read (${error.code})` }
          : { observed: true, open: counted };
      }
    },
  };
}
