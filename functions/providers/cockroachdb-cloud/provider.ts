import { z } from 'zod';
import { ProviderError, VerificationFailed } from '../../core/errors.ts';
import { type Ports, SqlError } from '../../core/ports.ts';
import type {
  ChoosingProvider,
  DatabaseUser,
  Login,
  OpenTarget,
  ProviderDefinition,
  Session,
} from '../../core/provider.ts';
import { usernamePattern } from '../../core/username.ts';
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

/** rekey's own session is told apart by its application name. */
const sessionsOf = (username: string) => ({
  text: `SELECT application_name, client_address, session_start
           FROM crdb_internal.cluster_sessions
          WHERE user_name = $1 AND coalesce(application_name, '') <> 'rekey' AND coalesce(status, '') <> 'CLOSED'`,
  values: [username],
});

/** Whether a login sees everybody's sessions: an administrator does, and so does whoever sees somebody else's (SQL docs). */
const seesEverybody = {
  text: `SELECT pg_has_role('admin', 'MEMBER')
             OR EXISTS (SELECT 1 FROM crdb_internal.cluster_sessions WHERE user_name <> current_user) AS yes`,
};

const seesEverybodyRows = z.tuple([z.object({ yes: z.boolean() })]);

const sessionRows = z.array(
  z.object({
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
    writes: { perMinute: 600, perRotation: 20 },
  },
  targetSchema,
  privilegesSchema,
  targetId: ({ clusterId }) => clusterId,
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
  const endpoint = async () => {
    const [{ plan }, connection] = await Promise.all([api.cluster(), api.connection(database)]);
    return plan === 'ADVANCED' ? { ...connection, ca: await api.certificateAuthority() } : connection;
  };
  const timeLeft = async (most: number): Promise<number> =>
    Math.max(1, Math.min(most, until.getTime() - (await ports.now()).getTime()));

  const memberships = async (login: Login): Promise<readonly string[]> => {
    const timeoutMs = await timeLeft(30_000);
    const outcome = await ports
      .sql({ ...login, statements: [membershipsOf(login.username)], timeoutMs })
      .catch((error: unknown) => {
        throw error instanceof SqlError ? loginUnreachable(error) : error;
      });
    if (outcome.say === 'rejected') throw rejected(login.username);
    return membershipRows.parse(outcome.rows[0] ?? []).map((row) => row.role);
  };
  const rejected = (username: string): VerificationFailed =>
    new VerificationFailed(
      'CREDENTIAL_REJECTED',
      `${username} could not log in to have its privileges compared`,
    );
  /** The vendor's refusal where something still depends on the user; undefined when it is gone. */
  const refusalToDelete = (username: string): Promise<ProviderError | undefined> =>
    api.deleteUser(username).then(
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
    login: Login | undefined,
  ): Promise<string | undefined> {
    const own = login?.username === username ? login : undefined;
    const actor = admin === undefined ? own : { ...(login ?? (await endpoint())), ...admin };
    if (actor === undefined) return 'neither its own password nor an administrator ("adminSecret") is known';
    try {
      const statements = texts.map((text) => ({ text }));
      const outcome = await ports.sql({ ...actor, statements, timeoutMs: await timeLeft(lateMs) });
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
  async function remove(username: string, login: Login | undefined): Promise<void> {
    let refusal = await refusalToDelete(username);
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
      const failure = await settle(texts, username, login);
      if (failure !== undefined)
        throw withRemedy(refusal, `rekey could not: ${failure}; ${remedyOf(refusal, username, owner)}`);
      refusal = await refusalToDelete(username);
      if (refusal === undefined) return;
    }
    throw withRemedy(refusal, remedyOf(refusal, username, owner));
  }

  const missingAndExtra = (held: readonly string[]) => ({
    missing: privileges.roles.filter((role) => !held.includes(role)),
    extra: held.filter((role) => !privileges.roles.includes(role)),
  });

  return {
    id: 'cockroachdb-cloud',
    passwords: 'chosen-by-us',
    async readiness() {
      const { state } = await api.cluster();
      // LOCKED: "other operations should not proceed" (OpenAPI document).
      return state === 'CREATED' ? { ready: true } : { ready: false, reason: `its state is ${state}` };
    },
    listUsers: list,
    endpoint,

    async createUser({ username, password }) {
      refuseUnlessOurs('createUser', username);
      // Whether a POST of a listed name changes its password is unknown: it is never sent.
      const look = { provider: 'cockroachdb-cloud', operation: 'createUser', username, list, until };
      if ((await findListed(look, ports)) !== undefined) return 'exists';
      try {
        const named = await api.createUser(username, password);
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

    async setPassword({ username, next }) {
      refuseUnlessOurs('setPassword', username);
      try {
        await api.setPassword(username, next);
      } catch (error) {
        if (!(error instanceof ProviderError)) throw error;
        // "Must differ from the current one" may be a 400; a lost answer may have been, or may yet be, applied: the login
        // decides. For anything else the vendor's word is enough.
        const late = error.effect === 'unknown' ? await timeLeft(lateMs) : 0;
        if (late === 0 && error.code !== 'REJECTED') throw error;
        const login = { ...(await endpoint()), username, password: next };
        const giveUpAt = (await ports.now()).getTime() + late;
        for (
          let wait = 500;
          (await verifyBySql(login, ports)) === 'rejected';
          wait = Math.min(wait * 2, 15_000)
        ) {
          if ((await ports.now()).getTime() + wait >= giveUpAt) throw error;
          await ports.sleep(wait);
        }
      }
    },

    deleteUser: async (username, login) => {
      refuseUnlessOurs('deleteUser', username);
      return deleteListed(
        { provider: 'cockroachdb-cloud', username, list, remove: () => remove(username, login), until },
        ports,
      );
    },

    verify: (login) => verifyBySql(login, ports),

    async privilegeDifferences(login) {
      const { missing, extra } = missingAndExtra(await memberships(login));
      return [
        ...missing.map((role) => `role ${role} is declared but not held`),
        ...extra.map((role) => `role ${role} is held but not declared`),
      ];
    },

    async applyPrivileges(login) {
      refuseUnlessOurs('applyPrivileges', login.username);
      const { missing, extra } = missingAndExtra(await memberships(login));
      if (missing.length === 0 && extra.length === 0) return;
      // A user made by the API is born with admin WITH ADMIN OPTION (terraform-provider-cockroach PR 376), so it can put
      // its own rights in order. One transaction: a crash between granting and giving up admin would leave a user that
      // can neither do its work nor be mended by itself.
      const user = quoted(login.username);
      const changes = [
        ...missing.map((role) => `GRANT ${quoted(role)} TO ${user}`),
        ...extra.map((role) => `REVOKE ${quoted(role)} FROM ${user}`),
      ];
      const actor = admin === undefined ? login : { ...login, ...admin };
      try {
        const outcome = await ports.sql({
          ...actor,
          statements: ['BEGIN', ...changes, 'COMMIT'].map((text) => ({ text })),
          // Role changes are schema changes: up to five minutes (Vault's CockroachDB tutorial).
          timeoutMs: await timeLeft(lateMs),
        });
        if (outcome.say === 'rejected') throw rejected(actor.username);
      } catch (error) {
        if (!(error instanceof SqlError)) throw error;
        // A lost COMMIT may have been applied: what the user holds now decides.
        if (error.statement !== undefined && error.sqlState !== undefined)
          throw privilegesDiffer(
            `${login.username} may not ${changes.join(', ')} (${error.sqlState})`,
            error,
          );
      }
      const after = missingAndExtra(await memberships(login));
      const left = [...after.missing, ...after.extra];
      if (left.length > 0) throw privilegesDiffer(`${login.username} still differs in ${left.join(', ')}`);
    },

    /** Takes an administrator: a user may look at its own sessions, but not cancel them (SQL docs). */
    async endSessions(username, login, openedBefore) {
      refuseUnlessOurs('endSessions', username);
      // It would find none to cancel, and that would look like success.
      if (admin === undefined && login.username !== username)
        return { ended: false, reason: onlyItsOwn(login.username) };
      // No placeholders: the statement takes none, and both texts are of characters that need no quoting.
      const text = `CANCEL SESSIONS (SELECT session_id FROM crdb_internal.cluster_sessions WHERE user_name = '${username}' AND session_start < '${openedBefore.toISOString()}' AND coalesce(application_name, '') <> 'rekey')`;
      return endSessionsBySql(admin === undefined ? login : { ...login, ...admin }, { text }, ports);
    },

    async sessions(username, login) {
      const actor = admin === undefined ? login : { ...login, ...admin };
      const isOwn = actor.username === username;
      if (admin === undefined && !isOwn) return { observed: false, reason: onlyItsOwn(actor.username) };
      try {
        const outcome = await ports.sql({
          ...actor,
          statements: [sessionsOf(username), ...(isOwn ? [] : [seesEverybody])],
          timeoutMs: await timeLeft(30_000),
        });
        if (outcome.say === 'rejected')
          return { observed: false, reason: `${actor.username} could not log in to look` };
        if (!isOwn && !seesEverybodyRows.parse(outcome.rows[1])[0].yes)
          return { observed: false, reason: onlyItsOwn(actor.username) };
        const open = sessionRows.parse(outcome.rows[0] ?? []).map(
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
