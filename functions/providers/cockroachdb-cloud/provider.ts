import { z } from 'zod';
import { ProviderError, VerificationFailed } from '../../core/errors.ts';
import type { Guard } from '../../core/guard.ts';
import { type Ports, SqlError } from '../../core/ports.ts';
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
import { askedOnce, sentHome } from '../home.ts';
import { deleteListed, findListed, withRemedy } from '../listed-users.ts';
import { endSessionsBySql, loginUnreachable, postgresUrl, verifyBySql } from '../sql.ts';
import { cockroachDbApi } from './api.ts';

// Options.

const targetSchema = z.strictObject({
  /** The cluster whose users we manage; not the routing id in connection strings. */
  clusterId: z.guid({ error: 'expected the UUID of the cluster' }),
  /** Where consumers connect. */
  database: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_-]{0,62}$/, { error: 'expected the name of a database' })
    .default('defaultdb'),
});
type Target = z.output<typeof targetSchema>;

const roleName = z.string().regex(/^[a-z_][a-z0-9_]{0,62}$/, {
  error: 'expected a role name of lower-case letters, digits and underscores',
});

/** Rights live on roles and login users are members: then two users of one credential never differ. */
const privilegesSchema = z.strictObject({
  roles: z
    .array(
      roleName.refine((role) => role !== 'admin', {
        error: 'expected a role other than admin, which rekey takes away',
      }),
    )
    .default([]),
  /**
   * Gets what a retired user owns in the target's database, so that the user can be deleted. Only an administrator, or a user
   * who is a member of this role, may give it anything (SQL docs); rekey makes nobody a member of it for that.
   * @default none: a user who owns something stays, and is reported
   */
  objectsOwner: roleName
    .refine((role) => !reserved.test(role), {
      error: 'expected a role of your own, whose members may use what it owns; not a built-in one',
    })
    .optional(),
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

const membershipRows = z.array(z.object({ role: z.string() }));

/** The session that asks is told apart by its id: any application may call itself `rekey`. */
const ownSession = { text: 'SHOW session_id' };
const ownSessionRows = z.tuple([z.object({ session_id: z.string() })]);

const sessionsOf = (username: string) => ({
  text: `SELECT session_id, application_name, client_address, session_start
           FROM crdb_internal.cluster_sessions
          WHERE user_name = $1 AND coalesce(status, '') <> 'CLOSED'`,
  values: [username],
});

/** Those of a user that were opened before an instant. No placeholders: CANCEL SESSIONS takes none, and both texts need no quoting. */
const sessionsBefore = (username: string, openedBefore: Date, isAsker: boolean): string =>
  `SELECT session_id FROM crdb_internal.cluster_sessions WHERE user_name = '${username}' AND session_start < '${openedBefore.toISOString()}' AND coalesce(status, '') <> 'CLOSED'${isAsker ? ' AND session_id NOT IN (SELECT session_id FROM [SHOW session_id])' : ''}`;

const rolesAmong = (roles: readonly string[]) => ({
  text: 'SELECT rolname AS role FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)',
  values: [[...roles]],
});

/** Whether a login sees everybody's sessions: an administrator does, and so does whoever sees somebody else's (SQL docs). */
const seesEverybody = {
  text: `SELECT pg_has_role('admin', 'MEMBER')
             OR EXISTS (SELECT 1 FROM crdb_internal.cluster_sessions WHERE user_name <> current_user) AS yes`,
};

const seesEverybodyRows = z.tuple([z.object({ yes: z.boolean() })]);

const sessionRows = z.array(
  z.object({
    session_id: z.string(),
    application_name: z.string().nullable(),
    client_address: z.string().nullable(),
    session_start: z.date().nullable(),
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

const onlyItsOwn = (username: string): string =>
  `${username} sees no sessions but its own; name an administrator's secret as "adminSecret" in the spec`;

const privilegesDiffer = (message: string, cause?: unknown): VerificationFailed =>
  new VerificationFailed(
    'PRIVILEGES_DIFFER',
    `${message}; grant or revoke it yourself, or name an administrator's secret as "adminSecret" in the spec`,
    cause === undefined ? {} : { cause },
  );

const roleUnknown = (roles: readonly string[], effect: 'none' | 'applied'): ProviderError =>
  new ProviderError(
    `cockroachdb-cloud has no role ${roles.join(', ')}; create it, or correct the roles in the spec`,
    { code: 'ROLE_UNKNOWN', effect, provider: 'cockroachdb-cloud', operation: 'applyPrivileges' },
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
    passwordReadableAgain: 'never',
    // 10 requests a second for a service account (docs page cloud-api), reads included: so every call of a rotation and of the
    // retirement after it is counted, with the user list on one page of 500.
    writes: { perMinute: 600, perRotation: 24 },
  },
  targetSchema,
  privilegesSchema,
  targetId: ({ clusterId }) => clusterId,
  targetOf: ({ targetId, database }) => ({ clusterId: targetId, database }),
  ready: (login) => ({ url: postgresUrl(login, 'verify-full') }),
  open,
};

function open(
  { target: { clusterId, database }, privileges, apiKey, admin, until }: OpenTarget<Target, Privileges>,
  ports: Ports,
): ChoosingProvider {
  const api = cockroachDbApi({ clusterId, apiKey, until }, ports);
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
  const endpoint = askedOnce(async () => {
    const [{ plan }, connection] = await Promise.all([api.cluster(), api.connection(database)]);
    return plan === 'ADVANCED' ? { ...connection, ca: await api.certificateAuthority() } : connection;
  });
  const home = sentHome(endpoint);
  const timeLeft = async (most: number): Promise<number> =>
    Math.max(1, Math.min(most, until.getTime() - (await ports.now()).getTime()));

  /** The rows of one question. */
  const ask = async (
    who: UserPassword,
    statement: { readonly text: string; readonly values?: readonly unknown[] },
  ): Promise<readonly unknown[]> => {
    const timeoutMs = await timeLeft(30_000);
    const outcome = await ports
      .sql({ ...(await home(who)), statements: [statement], timeoutMs, guard: 'reads-only' })
      .catch((error: unknown) => {
        throw error instanceof SqlError ? loginUnreachable(error) : error;
      });
    if (outcome.say === 'rejected') throw rejected(who.username);
    return outcome.rows[0] ?? [];
  };
  const memberships = async (login: UserPassword): Promise<readonly string[]> =>
    membershipRows.parse(await ask(login, membershipsOf(login.username))).map((row) => row.role);
  const unknownRoles = async (who: UserPassword): Promise<readonly string[]> => {
    if (privileges.roles.length === 0) return [];
    const known = membershipRows.parse(await ask(who, rolesAmong(privileges.roles))).map((row) => row.role);
    return privileges.roles.filter((role) => !known.includes(role));
  };
  const rejected = (username: string): VerificationFailed =>
    new VerificationFailed(
      'CREDENTIAL_REJECTED',
      `${username} could not log in to have its privileges compared`,
    );
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
    const own = login?.username === username ? login : undefined;
    const actor = admin ?? own;
    if (actor === undefined) return 'neither its own password nor an administrator ("adminSecret") is known';
    try {
      const statements = texts.map((text) => ({ text }));
      const session = { ...(await home(actor)), statements, timeoutMs: await timeLeft(lateMs) };
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
  async function remove(username: string, login: UserPassword | undefined, guard: Guard): Promise<void> {
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

  const missingAndExtra = (held: readonly string[]) => ({
    missing: privileges.roles.filter((role) => !held.includes(role)),
    extra: held.filter((role) => !privileges.roles.includes(role)),
  });

  /** Runs statements that change roles, as the administrator if there is one, else as the user itself. */
  async function change(
    texts: readonly string[],
    login: UserPassword,
    guard: Guard,
  ): Promise<SqlError | undefined> {
    const actor = admin ?? login;
    try {
      const outcome = await ports.sql({
        ...(await home(actor)),
        statements: texts.map((text) => ({ text })),
        // Role changes are schema changes: up to five minutes (Vault's CockroachDB tutorial).
        timeoutMs: await timeLeft(lateMs),
        guard,
      });
      if (outcome.say === 'rejected') throw rejected(actor.username);
      return undefined;
    } catch (error) {
      if (!(error instanceof SqlError)) throw error;
      return error;
    }
  }

  /**
   * Afterwards the user holds the declared roles and no others. A user made by the API is born with admin WITH ADMIN OPTION
   * (terraform-provider-cockroach PR 376), so it can put its own roles in order. One transaction: a crash between granting and
   * giving up admin would leave a user that can neither do its work nor be mended by itself. Where that fails, what is not declared
   * goes apart: a user that is left with admin would be worse than one that lacks a role.
   */
  async function adjustRoles(login: UserPassword, guard: Guard): Promise<void> {
    const { missing, extra } = missingAndExtra(await memberships(login));
    if (missing.length === 0 && extra.length === 0) return;
    const user = quoted(login.username);
    const revocations = extra.map((role) => `REVOKE ${quoted(role)} FROM ${user}`);
    const changes = [...missing.map((role) => `GRANT ${quoted(role)} TO ${user}`), ...revocations];
    const failure = await change(['BEGIN', ...changes, 'COMMIT'], login, guard);
    // A lost COMMIT may have been applied: what the user holds now decides.
    const after = missingAndExtra(await memberships(login));
    if (after.missing.length === 0 && after.extra.length === 0) return;
    if (after.extra.length > 0)
      await change(
        after.extra.map((role) => `REVOKE ${quoted(role)} FROM ${user}`),
        login,
        guard,
      );
    const unknown = await unknownRoles(login);
    if (unknown.length > 0) throw roleUnknown(unknown, 'applied');
    if (failure?.statement !== undefined && failure.sqlState !== undefined)
      throw privilegesDiffer(
        `${login.username} may not ${changes.join(', ')} (${failure.sqlState})`,
        failure,
      );
    const left = missingAndExtra(await memberships(login));
    if (left.missing.length > 0 || left.extra.length > 0)
      throw privilegesDiffer(
        `${login.username} still differs in ${[...left.missing, ...left.extra].join(', ')}`,
      );
  }

  /** Afterwards the password logs in, as far as the vendor says. */
  async function putPassword(username: string, next: Sensitive, guard: Guard): Promise<void> {
    try {
      await api.setPassword(username, next, guard);
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      // "Must differ from the current one" may be a 400; a lost answer may have been, or may yet be, applied: the login
      // decides. For anything else the vendor's word is enough.
      const late = error.effect === 'unknown' ? await timeLeft(lateMs) : 0;
      if (late === 0 && error.code !== 'REJECTED') throw error;
      if (!(await logsInWithin(late, { username, password: next }))) throw error;
    }
  }

  async function logsInWithin(patienceMs: number, login: UserPassword): Promise<boolean> {
    const at = await home(login);
    const giveUpAt = (await ports.now()).getTime() + patienceMs;
    for (let wait = 500; (await verifyBySql(at, ports)) === 'rejected'; wait = Math.min(wait * 2, 15_000)) {
      if ((await ports.now()).getTime() + wait >= giveUpAt) return false;
      await ports.sleep(wait);
    }
    return true;
  }

  return {
    id: 'cockroachdb-cloud',
    passwords: 'chosen-by-us',
    async readiness() {
      const { state } = await api.cluster();
      // LOCKED: "other operations should not proceed" (OpenAPI document).
      if (state === 'CREATED') return { ready: true };
      const reason = `its state is ${state}`;
      return /^DELETED$/i.test(state) ? { ready: false, reason, isGone: true } : { ready: false, reason };
    },
    listUsers: list,
    endpoint,

    async createUser({ username, password }, guard) {
      refuseUnlessOurs('createUser', username);
      // Whether a POST of a listed name changes its password is unknown: it is never sent.
      const look = { provider: 'cockroachdb-cloud', operation: 'createUser', username, list, until };
      if ((await findListed(look, ports)) !== undefined) return 'exists';
      try {
        const named = await api.createUser(username, password, guard);
        if (normalized(named) !== username)
          throw fact('UNREADABLE', 'createUser', `asked for ${username}, was given another name`);
        return 'created';
      } catch (error) {
        if (!(error instanceof ProviderError)) throw error;
        if (error.code === 'CONFLICT') return 'exists';
        // The answer was lost, not necessarily the user. Whoever calls finds out by a login which password it has.
        // Where the list fails too, the first failure is the one that says that nothing is known.
        const isListed = (users: readonly DatabaseUser[]) => users.some((user) => user.username === username);
        if (error.effect === 'unknown' && (await list().then(isListed, () => false))) return 'exists';
        throw error;
      }
    },

    async setPassword({ username, next }, guard) {
      refuseUnlessOurs('setPassword', username);
      await putPassword(username, next, guard);
    },

    deleteUser: async (username, guard, login) => {
      refuseUnlessOurs('deleteUser', username);
      const provider = 'cockroachdb-cloud';
      return deleteListed(
        { provider, username, list, remove: () => remove(username, login, guard), until },
        ports,
      );
    },

    verify: async (login) => verifyBySql(await home(login), ports),

    async privilegeDifferences(login) {
      const { missing, extra } = missingAndExtra(await memberships(login));
      return [
        ...missing.map((role) => `role ${role} is declared but not held`),
        ...extra.map((role) => `role ${role} is held but not declared`),
      ];
    },

    async applyPrivileges(login, guard) {
      refuseUnlessOurs('applyPrivileges', login.username);
      await adjustRoles(login, guard);
    },

    /** Takes an administrator: a user may look at its own sessions, but not cancel them (SQL docs). */
    async endSessions(username, login, openedBefore, guard) {
      refuseUnlessOurs('endSessions', username);
      // It would find none to cancel, and that would look like success.
      if (admin === undefined && login.username !== username)
        return { ended: false, reason: onlyItsOwn(login.username) };
      const actor = admin ?? login;
      const selected = sessionsBefore(username, openedBefore, actor.username === username);
      const end = { text: `CANCEL SESSIONS (${selected})` };
      return endSessionsBySql(await home(actor), { end, left: { text: selected } }, guard, ports);
    },

    async sessions(username, login) {
      const actor = admin ?? login;
      const isOwn = actor.username === username;
      if (admin === undefined && !isOwn) return { observed: false, reason: onlyItsOwn(actor.username) };
      try {
        const outcome = await ports.sql({
          ...(await home(actor)),
          statements: [ownSession, sessionsOf(username), ...(isOwn ? [] : [seesEverybody])],
          timeoutMs: await timeLeft(30_000),
          guard: 'reads-only',
        });
        if (outcome.say === 'rejected')
          return { observed: false, reason: `${actor.username} could not log in to look` };
        if (!isOwn && !seesEverybodyRows.parse(outcome.rows[2])[0].yes)
          return { observed: false, reason: onlyItsOwn(actor.username) };
        const [own] = ownSessionRows.parse(outcome.rows[0]);
        const others = sessionRows
          .parse(outcome.rows[1] ?? [])
          .filter((row) => row.session_id !== own.session_id);
        const open = others.map(
          (row): Session => ({
            applicationName: row.application_name ?? '',
            clientAddress: row.client_address ?? '',
            ...(row.session_start === null ? {} : { startedAt: row.session_start }),
          }),
        );
        return { observed: true, open };
      } catch (error) {
        if (!(error instanceof SqlError)) throw error;
        return { observed: false, reason: error.message };
      }
    },
  };
}
