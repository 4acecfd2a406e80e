import * as z from 'zod/mini';
import { type Effect, ProviderError, VerificationFailed } from '../../core/errors.ts';
import type { Guard } from '../../core/guard.ts';
import { type Ports, SqlError, type SqlStatement } from '../../core/ports.ts';
import type {
  ChoosingProvider,
  DatabaseUser,
  OpenTarget,
  ProviderDefinition,
  Session,
  UserPassword,
} from '../../core/provider.ts';
import type { Sensitive } from '../../core/sensitive.ts';
import { usernamePattern } from '../../core/username.ts';
import { afterChanges, deleteListed, findListed, undoCreation, withRemedy } from '../listed-users.ts';
import { endSessionsBySql, loginUnreachable, postgresUrl, verifyBySql } from '../sql.ts';
import { throwAwayPassword } from '../throw-away-password.ts';
import { atEndpoint, oncePerVisit, sharedForAMoment } from '../visit.ts';
import { cockroachDbApi } from './api.ts';

// Options.

const targetSchema = z.strictObject({
  /** The cluster whose users we manage; not the routing id in connection strings. */
  clusterId: z.guid({ error: 'expected the UUID of the cluster' }),
  /** Where consumers connect. */
  database: z._default(
    z.string().check(z.regex(/^[A-Za-z_][A-Za-z0-9_-]{0,62}$/, { error: 'expected the name of a database' })),
    'defaultdb',
  ),
});
type Target = z.output<typeof targetSchema>;

const roleName = z.string().check(
  z.regex(/^[a-z_][a-z0-9_]{0,62}$/, {
    error: 'expected a role name of lower-case letters, digits and underscores',
  }),
);

/** Rights live on roles and login users are members: then two users of one credential never differ. */
const privilegesSchema = z.strictObject({
  roles: z._default(
    z.array(
      roleName.check(
        z.refine((role) => role !== 'admin', {
          error: 'expected a role other than admin, which rekey takes away',
        }),
      ),
    ),
    [],
  ),
  /**
   * Gets what a retired user owns in the target's database, so that the user can be deleted. Only an administrator, or a user
   * who is a member of this role, may give it anything (SQL docs); rekey makes nobody a member of it for that.
   * @default none: a user who owns something stays, and is reported
   */
  objectsOwner: z.optional(
    roleName.check(
      z.refine((role) => !reserved.test(role), {
        error: 'expected a role of your own, whose members may use what it owns; not a built-in one',
      }),
    ),
  ),
});
type Privileges = z.output<typeof privilegesSchema>;

// Rules.

/** Names as the cluster compares them: case folded, NFC (cockroach `pkg/security/username`). */
const normalized = (name: string): string => name.normalize('NFC').toLowerCase();

/** Built-in users, reserved names and prefixes, and people who sign in through SSO. */
const reserved = /^(root|admin|node|public|none|pg_.*|crdb_internal_.*|sso_.*)$/;

/** How long an unclear change may still arrive: up to five minutes were seen (cockroach#80288). */
const lateMs = 300_000;

// Translation in.

const toUser = (name: string): DatabaseUser => ({
  username: normalized(name),
  isProtected: reserved.test(normalized(name)) || !usernamePattern.test(normalized(name)),
});

const quoted = (identifier: string): string => `"${identifier.replaceAll('"', '""')}"`;

/** In pg_catalog, as SHOW GRANTS ON ROLE needs a right on a system table that an ordinary user does not have (SQL docs). */
const membershipsOf = (username: string) => ({
  text: `SELECT held.rolname AS role
           FROM pg_catalog.pg_auth_members AS membership
           JOIN pg_catalog.pg_roles AS held ON held.oid = membership.roleid
           JOIN pg_catalog.pg_roles AS holder ON holder.oid = membership.member
          WHERE holder.rolname = $1`,
  values: [username],
});

const roleRows = z.array(z.object({ role: z.string() }));

/** Which of these roles the cluster has. Every user may read pg_catalog (SQL docs). */
const rolesNamed = (roles: readonly string[]) => ({
  text: `SELECT rolname AS role FROM pg_catalog.pg_roles WHERE rolname IN (${roles.map((_role, index) => `$${index + 1}`).join(', ')})`,
  values: roles,
});

const sessionsOf = (username: string) => ({
  text: `SELECT session_id, application_name, client_address, session_start
           FROM crdb_internal.cluster_sessions
          WHERE user_name = $1 AND coalesce(status, '') <> 'CLOSED'`,
  values: [username],
});

/**
 * rekey leaves out the asking session only, by its id. Clients choose their application name: leaving out the name `rekey` would
 * let an intruder with that name survive an emergency. `session_id` is a session variable (SQL docs, SHOW vars).
 */
const askingSession = { text: 'SHOW session_id' };
const askingSessionRows = z.tuple([z.object({ session_id: z.string().check(z.minLength(1)) })]);

/** Whether a login sees everybody's sessions: an administrator does, and so does whoever sees somebody else's (SQL docs). */
const seesEverybody = {
  text: `SELECT pg_has_role('admin', 'MEMBER')
             OR EXISTS (SELECT 1 FROM crdb_internal.cluster_sessions WHERE user_name <> current_user) AS yes`,
};

const seesEverybodyRows = z.tuple([z.object({ yes: z.boolean() })]);

const sessionRows = z.array(
  z.object({
    session_id: z.string(),
    application_name: z.nullable(z.string()),
    client_address: z.nullable(z.string()),
    session_start: z.nullable(z.date()),
  }),
);

// Translation of failure.

const fact = (code: 'NAME_REFUSED' | 'UNREADABLE', operation: string, message: string): ProviderError =>
  new ProviderError(`cockroachdb-cloud: ${message}`, {
    code,
    effect: code === 'UNREADABLE' ? 'applied' : 'none',
    provider: 'cockroachdb-cloud',
    operation,
  });

const roleUnknown = (roles: readonly string[], operation: string, effect: Effect): ProviderError =>
  new ProviderError(
    `cockroachdb-cloud: the cluster has no role ${roles.join(', ')}; create it, or correct the spec's privileges`,
    { code: 'ROLE_UNKNOWN', effect, provider: 'cockroachdb-cloud', operation },
  );

const onlyItsOwn = (username: string): string =>
  `${username} sees no sessions but its own; name an administrator's secret as "adminSecret" in the spec`;

const privilegesDiffer = (message: string, cause?: unknown): VerificationFailed =>
  new VerificationFailed(
    'PRIVILEGES_DIFFER',
    `${message}; grant or revoke it yourself, or name an administrator's secret as "adminSecret" in the spec`,
    cause === undefined ? {} : { cause },
  );

/** What takes away what the vendor names, in the wordings of cockroach's `drop_role.go`; all of it where it names nothing. */
function remedyOf({ message }: ProviderError, username: string, owner: string | undefined): string {
  const user = quoted(username);
  const newOwner = owner === undefined ? '<a role that stays>' : quoted(owner);
  const [, granted = '…'] = /grants still exist on ([^\s,()\\]+)/.exec(message) ?? [];
  const [, creator = username] = /default privileges .*?belonging to role "?([\w-]+)/.exec(message) ?? [];
  const remedies = {
    'owner of (?!default)': `REASSIGN OWNED BY ${user} TO ${newOwner} (in every database where it owns something)`,
    'grants still exist': `REVOKE ALL ON ${granted} FROM ${user}`,
    'default privileges': `ALTER DEFAULT PRIVILEGES FOR ROLE ${quoted(creator)} REVOKE ALL ON TABLES FROM ${creator === username ? '…' : user}`,
    'scheduled job': `DROP SCHEDULES WITH s AS (SHOW SCHEDULES) SELECT id FROM s WHERE owner = '${username}'`,
  };
  const named = Object.entries(remedies).filter(([what]) => new RegExp(what).test(message));
  const texts = named.length === 0 ? Object.values(remedies) : named.map(([, text]) => text);
  return `as an administrator run ${texts.join('; ')}; then the next pass deletes it`;
}

// Factory.

export const cockroachdbCloud: ProviderDefinition<Target, Privileges> = {
  id: 'cockroachdb-cloud',
  engine: 'postgres',
  capabilities: {
    passwords: 'chosen-by-us',
    strategies: ['replace-user', 'alternate-users', 'reset-password'],
    drainObservedBy: 'sql',
    privilegesNeedLogin: true,
    demandsCurrentPassword: false,
    passwordReadableAgain: 'never',
    // 10 requests a second for a service account (docs page cloud-api), reads included: so every call of a rotation and of the
    // retirement after it is counted, with the user list on one page of 500.
    writes: { perMinute: 600, perRotation: 24 },
    // Changes of users and roles wait for the leases on the table of users, for more than a minute at times, while the Cloud API gives
    // up after 60 seconds (cockroachdb/cockroach#80288). Two at once would wait for each other.
    parallelRotations: 1,
  },
  targetSchema,
  privilegesSchema,
  targetId: ({ clusterId }) => clusterId,
  targetOf: ({ targetId, database }) => ({ clusterId: targetId, database }),
  ready: (login) => ({ url: postgresUrl(login, 'verify-full') }),
  open,
};

function open(
  {
    target: { clusterId, database },
    privileges,
    apiKey,
    keyRenewal,
    admin,
    until,
  }: OpenTarget<Target, Privileges>,
  ports: Ports,
): ChoosingProvider {
  const api = cockroachDbApi({ clusterId, apiKey, keyRenewal, until }, ports);
  const list = async (): Promise<readonly DatabaseUser[]> => {
    const users = (await api.users()).map(toUser);
    // A user that moves between pages while they are read is listed twice.
    return [...new Map(users.map((user) => [user.username, user])).values()];
  };
  const refuseUnlessOurs = (operation: string, username: string): void => {
    if (!usernamePattern.test(username) || reserved.test(username))
      throw fact(
        'NAME_REFUSED',
        operation,
        `${JSON.stringify(username)} is no name that rekey makes or changes`,
      );
  };
  const cluster = sharedForAMoment(api.cluster, ports);
  const endpoint = oncePerVisit(async () => {
    const [{ plan }, connection] = await Promise.all([cluster(), api.connection(database)]);
    return plan === 'ADVANCED' ? { ...connection, ca: await api.certificateAuthority() } : connection;
  });
  const loginOf = atEndpoint(endpoint);
  const verify: ChoosingProvider['verify'] = async (login) => verifyBySql(await loginOf(login), ports);
  const timeLeft = async (most: number): Promise<number> =>
    Math.max(1, Math.min(most, until.getTime() - (await ports.now()).getTime()));

  const rejected = (username: string): VerificationFailed =>
    new VerificationFailed(
      'CREDENTIAL_REJECTED',
      `${username} could not log in to have its privileges compared`,
    );
  const ask = async (as: UserPassword, statements: readonly SqlStatement[]) => {
    const session = { ...(await loginOf(as)), statements, timeoutMs: await timeLeft(30_000) };
    const outcome = await ports.sql({ ...session, guard: 'reads-only' }).catch((error: unknown) => {
      throw error instanceof SqlError ? loginUnreachable(error) : error;
    });
    if (outcome.say === 'rejected') throw rejected(as.username);
    return outcome.rows;
  };
  const roles = (rows: unknown): readonly string[] => roleRows.parse(rows ?? []).map(({ role }) => role);
  const memberships = async (as: UserPassword, username: string): Promise<readonly string[]> =>
    roles((await ask(as, [membershipsOf(username)]))[0]);
  /** Declared roles that the cluster does not have. */
  const unknownRoles = async (as: UserPassword): Promise<readonly string[]> => {
    if (privileges.roles.length === 0) return [];
    const known = roles((await ask(as, [rolesNamed(privileges.roles)]))[0]);
    return privileges.roles.filter((role) => !known.includes(role));
  };
  const missingAndExtra = (held: readonly string[]) => ({
    missing: privileges.roles.filter((role) => !held.includes(role)),
    extra: held.filter((role) => !privileges.roles.includes(role)),
  });

  /** Runs these changes together or not at all; answers what failed. */
  async function transaction(
    as: UserPassword,
    changes: readonly string[],
    guard: Guard,
  ): Promise<SqlError | undefined> {
    try {
      const outcome = await ports.sql({
        ...(await loginOf(as)),
        statements: ['BEGIN', ...changes, 'COMMIT'].map((text) => ({ text })),
        // Role changes are schema changes: up to five minutes (Vault's CockroachDB tutorial).
        timeoutMs: await timeLeft(lateMs),
        guard,
      });
      if (outcome.say === 'rejected') throw rejected(as.username);
      return undefined;
    } catch (error) {
      if (error instanceof SqlError) return error;
      throw error;
    }
  }

  /** Tries to take these roles away, admin even where the others cannot be. Does not throw: read the memberships afterwards. */
  async function takeAway(
    as: UserPassword,
    username: string,
    held: readonly string[],
    guard: Guard,
  ): Promise<void> {
    if (held.length === 0) return;
    const revoke = (role: string) => `REVOKE ${quoted(role)} FROM ${quoted(username)}`;
    // admin last: a user that revokes its own roles has no right to revoke the rest without it.
    const inOrder = held.toSorted((a, b) => Number(a === 'admin') - Number(b === 'admin'));
    const failure = await transaction(as, inOrder.map(revoke), guard);
    if (failure !== undefined && held.includes('admin')) await transaction(as, [revoke('admin')], guard);
  }

  /**
   * Afterwards the user holds exactly the declared roles. A user made by the API is born with admin WITH ADMIN OPTION
   * (terraform-provider-cockroach PR 376), so it can put its own rights in order. One transaction: a crash between granting and
   * giving up admin would leave a user that can neither do its work nor be mended by itself.
   */
  async function putInOrder(
    operation: string,
    login: UserPassword,
    guard: Guard,
    { isHidden }: { readonly isHidden: boolean },
  ): Promise<void> {
    const { username } = login;
    const actor = admin ?? login;
    const { missing, extra } = missingAndExtra(await memberships(actor, username));
    if (missing.length === 0 && extra.length === 0) return;
    const unknown = missing.length === 0 ? [] : await unknownRoles(actor);
    if (unknown.length > 0) {
      // Under a throw-away password the extra roles are out of reach. With admin the next run can still repair the user by its own
      // login; without it only an administrator could.
      if (!isHidden) await takeAway(actor, username, extra, guard);
      throw roleUnknown(unknown, operation, isHidden || extra.length > 0 ? 'applied' : 'none');
    }
    const user = quoted(username);
    const changes = [
      ...missing.map((role) => `GRANT ${quoted(role)} TO ${user}`),
      ...extra.map((role) => `REVOKE ${quoted(role)} FROM ${user}`),
    ];
    const failure = await transaction(actor, changes, guard);
    if (failure?.statement !== undefined && failure.sqlState !== undefined) {
      await takeAway(actor, username, extra, guard);
      throw privilegesDiffer(`${username} may not ${changes.join(', ')} (${failure.sqlState})`, failure);
    }
    // A lost COMMIT may have been applied: what the user holds now decides.
    const after = missingAndExtra(await memberships(actor, username));
    const left = [...after.missing, ...after.extra];
    if (left.length === 0) return;
    if (!isHidden) await takeAway(actor, username, after.extra, guard);
    throw privilegesDiffer(`${username} still differs in ${left.join(', ')}`, failure);
  }

  /** Whether the password logs in within that time: a change reaches the nodes late. */
  async function isAcceptedWithin(patienceMs: number, login: UserPassword): Promise<boolean> {
    const giveUpAt = (await ports.now()).getTime() + patienceMs;
    for (let wait = 500; (await verify(login)) === 'rejected'; wait = Math.min(wait * 2, 15_000)) {
      if ((await ports.now()).getTime() + wait >= giveUpAt) return false;
      await ports.sleep(wait);
    }
    return true;
  }

  /** Afterwards the vendor has taken this password. */
  async function put(login: UserPassword, guard: Guard): Promise<void> {
    try {
      await api.setPassword(login.username, login.password, guard);
    } catch (error) {
      // No look whether it was applied all the same: a password change never waits for a rate limit, and the next run repeats it.
      if (!(error instanceof ProviderError) || error.code === 'RATE_LIMITED') throw error;
      // "Must differ from the current one" may be a 400; a lost answer may have been, or may yet be, applied: the login
      // decides. For anything else the vendor's word is enough.
      const late = error.effect === 'unknown' ? await timeLeft(lateMs) : 0;
      if (late === 0 && error.code !== 'REJECTED') throw error;
      if (!(await isAcceptedWithin(late, login))) throw error;
    }
  }

  /** Takes admin away where a password change gave it back, as it has in the past (release notes, 2021-08-09). */
  async function takeAdminBack(login: UserPassword, guard: Guard): Promise<void> {
    const { username } = login;
    if (admin === undefined && !(await isAcceptedWithin(await timeLeft(lateMs), login)))
      throw rejected(username);
    const actor = admin ?? login;
    if (!(await memberships(actor, username)).includes('admin')) return;
    await takeAway(actor, username, ['admin'], guard);
    if ((await memberships(actor, username)).includes('admin'))
      throw privilegesDiffer(`${username} was made an admin again by its password change`);
  }

  /** Gives a user with a throw-away password, which may hold any role, the declared roles and then its real password. */
  async function reveal(
    operation: string,
    login: UserPassword,
    throwAway: Sensitive,
    guard: Guard,
  ): Promise<void> {
    const hidden = { username: login.username, password: throwAway };
    if (admin === undefined && !(await isAcceptedWithin(await timeLeft(lateMs), hidden)))
      throw rejected(login.username);
    await putInOrder(operation, hidden, guard, { isHidden: true });
    await put(login, guard);
    try {
      await takeAdminBack(login, guard);
    } catch (error) {
      // Otherwise the stored password logs in as an administrator.
      if (isRightsFailure(error)) await put(hidden, guard.taking);
      throw error;
    }
  }

  /** The vendor's refusal where something still depends on the user; undefined when it is gone. */
  const refusalToDelete = (username: string, guard: Guard): Promise<ProviderError | undefined> =>
    api.deleteUser(username, guard).then(
      () => undefined,
      (error: unknown) => {
        if (error instanceof ProviderError && error.code === 'BLOCKED') return error;
        throw error;
      },
    );

  /** Runs SQL on what the user leaves behind; says why it certainly came to nothing. */
  async function settle(
    texts: readonly string[],
    username: string,
    login: UserPassword | undefined,
    guard: Guard,
  ): Promise<string | undefined> {
    const actor = admin ?? (login?.username === username ? login : undefined);
    if (actor === undefined) return 'neither its own password nor an administrator ("adminSecret") is known';
    try {
      const statements = texts.map((text) => ({ text }));
      const session = { ...(await loginOf(actor)), statements, timeoutMs: await timeLeft(lateMs) };
      const outcome = await ports.sql({ ...session, guard });
      return outcome.say === 'accepted' ? undefined : `${actor.username} could not log in`;
    } catch (error) {
      if (!(error instanceof SqlError)) throw error;
      if (error.statement === undefined) return error.message;
      // A lost answer may have been a yes: the vendor's answer to the next deletion decides.
      return error.sqlState === undefined
        ? undefined
        : `${texts[error.statement]} as ${actor.username} ended in ${error.sqlState}`;
    }
  }

  /** Deletes; where the spec names who gets what the user owns, tries again after that, and never more often. */
  async function remove(username: string, guard: Guard, login: UserPassword | undefined): Promise<void> {
    let refusal = await refusalToDelete(username, guard);
    if (refusal === undefined) return;
    const owner = privileges.objectsOwner;
    if (owner === undefined)
      throw withRemedy(
        refusal,
        `${remedyOf(refusal, username, owner)}, or name in the spec's privileges the "objectsOwner" that gets what it owns`,
      );
    const reassign = `REASSIGN OWNED BY ${quoted(username)} TO ${quoted(owner)}`;
    const estates = [
      [reassign],
      // DROP OWNED takes the grants away, but drops whatever the user still owns: only where that has just got another owner,
      // and nothing can come in between. A server that takes it in no transaction at all (cockroach PR 137739) does nothing.
      ['BEGIN', reassign, `DROP OWNED BY ${quoted(username)}`, 'COMMIT'],
    ];
    for (const texts of estates) {
      const failure = await settle(texts, username, login, guard);
      if (failure !== undefined)
        throw withRemedy(refusal, `rekey could not: ${failure}; ${remedyOf(refusal, username, owner)}`);
      refusal = await refusalToDelete(username, guard);
      if (refusal === undefined) return;
    }
    throw withRemedy(refusal, remedyOf(refusal, username, owner));
  }

  /** The user's sessions without the asking one, or why they cannot be seen. */
  async function readSessions(
    username: string,
    login: UserPassword,
  ): Promise<{ readonly open: readonly Session[] } | { readonly reason: string }> {
    const actor = admin ?? login;
    const isOwn = actor.username === username;
    if (admin === undefined && !isOwn) return { reason: onlyItsOwn(actor.username) };
    try {
      const outcome = await ports.sql({
        ...(await loginOf(actor)),
        statements: [askingSession, sessionsOf(username), ...(isOwn ? [] : [seesEverybody])],
        timeoutMs: await timeLeft(30_000),
        guard: 'reads-only',
      });
      if (outcome.say === 'rejected') return { reason: `${actor.username} could not log in to look` };
      const [asking, rows, everybody] = outcome.rows;
      if (!isOwn && !seesEverybodyRows.parse(everybody)[0].yes) return { reason: onlyItsOwn(actor.username) };
      const [{ session_id: own }] = askingSessionRows.parse(asking);
      const open = sessionRows
        .parse(rows ?? [])
        .filter((row) => row.session_id !== own)
        .map(
          (row): Session => ({
            applicationName: row.application_name ?? '',
            clientAddress: row.client_address ?? '',
            ...(row.session_start === null ? {} : { startedAt: row.session_start }),
          }),
        );
      return { open };
    } catch (error) {
      if (!(error instanceof SqlError)) throw error;
      return { reason: error.message };
    }
  }

  return {
    id: 'cockroachdb-cloud',
    passwords: 'chosen-by-us',
    async readiness() {
      const { state } = await cluster();
      // LOCKED: "other operations should not proceed" (OpenAPI document).
      if (state === 'CREATED') return { ready: true };
      const isGone = state.toUpperCase() === 'DELETED';
      return { ready: false, reason: `its state is ${state}`, ...(isGone ? { isGone } : {}) };
    },
    listUsers: list,
    endpoint,

    async createUser({ username, password }, guard) {
      refuseUnlessOurs('createUser', username);
      // Whether a POST of a listed name changes its password is unknown: it is never sent.
      const look = { provider: 'cockroachdb-cloud', operation: 'createUser', username, list, until };
      if ((await findListed(look, ports)) !== undefined) return 'exists';
      const unknown = admin === undefined ? [] : await unknownRoles(admin);
      if (unknown.length > 0) throw roleUnknown(unknown, 'createUser', 'none');
      const throwAway = await throwAwayPassword(ports);
      try {
        const named = await api.createUser(username, throwAway, guard);
        if (normalized(named) !== username)
          throw fact('UNREADABLE', 'createUser', `asked for ${username}, was given another name`);
      } catch (error) {
        if (!(error instanceof ProviderError)) throw error;
        if (error.code === 'CONFLICT') return 'exists';
        // The answer was lost, not necessarily the user. If the throw-away password logs in, this call created it.
        // Where the list fails too, the first failure is the one that says that nothing is known.
        const isListed = (users: readonly DatabaseUser[]) => users.some((user) => user.username === username);
        if (error.effect !== 'unknown' || !(await list().then(isListed, () => false))) throw error;
        const said = await verify({ username, password: throwAway }).catch((failure: unknown) => {
          if (failure instanceof VerificationFailed || failure instanceof ProviderError) return 'unclear';
          throw failure;
        });
        if (said !== 'accepted') return 'exists';
      }
      try {
        await reveal('createUser', { username, password }, throwAway, guard);
      } catch (error) {
        const isRefused = error instanceof ProviderError && error.code === 'REJECTED';
        if (!isRefused && !isRightsFailure(error)) throw afterChanges(error);
        // The next run would be refused as well, and a user without admin cannot be repaired by its own login.
        const remove = () => api.deleteUser(username, guard.taking);
        throw await undoCreation(
          error,
          { provider: 'cockroachdb-cloud', username, list, remove, until },
          ports,
        );
      }
      return 'created';
    },

    async setPassword({ username, next, isIdle = false }, guard) {
      refuseUnlessOurs('setPassword', username);
      const login = { username, password: next };
      if (!isIdle) {
        await put(login, guard);
        return takeAdminBack(login, guard);
      }
      if (admin !== undefined) {
        const unknown = await unknownRoles(admin);
        if (unknown.length > 0) throw roleUnknown(unknown, 'setPassword', 'none');
      }
      // Done by an earlier run.
      if ((await verify(login)) === 'accepted') {
        const { missing, extra } = missingAndExtra(await memberships(login, username));
        if (missing.length === 0 && extra.length === 0) return;
      }
      const throwAway = await throwAwayPassword(ports);
      await put({ username, password: throwAway }, guard.taking);
      try {
        await reveal('setPassword', login, throwAway, guard);
      } catch (error) {
        throw afterChanges(error);
      }
    },

    deleteUser: async (username, guard, login) => {
      refuseUnlessOurs('deleteUser', username);
      const removal = () => remove(username, guard, login);
      return deleteListed({ provider: 'cockroachdb-cloud', username, list, remove: removal, until }, ports);
    },

    verify,

    async privilegeDifferences(login) {
      const { missing, extra } = missingAndExtra(await memberships(login, login.username));
      return [
        ...missing.map((role) => `role ${role} is declared but not held`),
        ...extra.map((role) => `role ${role} is held but not declared`),
      ];
    },

    async applyPrivileges(login, guard) {
      refuseUnlessOurs('applyPrivileges', login.username);
      await putInOrder('applyPrivileges', login, guard, { isHidden: false });
    },

    /** Takes an administrator: a user may look at its own sessions, but not cancel them (SQL docs). */
    async endSessions(username, login, openedBefore, guard) {
      refuseUnlessOurs('endSessions', username);
      // It would find none to cancel, and that would look like success.
      if (admin === undefined && login.username !== username)
        return { ended: false, reason: onlyItsOwn(login.username) };
      const actor = await loginOf(admin ?? login);
      const butOwn =
        actor.username === username
          ? ' AND session_id NOT IN (SELECT session_id FROM [SHOW session_id])'
          : '';
      // No placeholders: the statement takes none, and both texts are of characters that need no quoting.
      const text = `CANCEL SESSIONS (SELECT session_id FROM crdb_internal.cluster_sessions WHERE user_name = '${username}' AND session_start < '${openedBefore.toISOString()}'${butOwn})`;
      const look = async () => {
        const seen = await readSessions(username, login);
        if ('reason' in seen) return seen.reason;
        return seen.open.filter(({ startedAt }) => startedAt === undefined || startedAt < openedBefore)
          .length;
      };
      return endSessionsBySql(actor, { end: { text }, look }, { guard, until }, ports);
    },

    async sessions(username, login) {
      const seen = await readSessions(username, login);
      return 'open' in seen ? { observed: true, open: seen.open } : { observed: false, reason: seen.reason };
    },
  };
}

/** Whether the declared roles certainly could not be given. */
const isRightsFailure = (error: unknown): error is ProviderError | VerificationFailed =>
  (error instanceof ProviderError && error.code === 'ROLE_UNKNOWN') ||
  (error instanceof VerificationFailed && error.code === 'PRIVILEGES_DIFFER');
