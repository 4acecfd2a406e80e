import * as z from 'zod/mini';
import { type ProviderCode, ProviderError, VerificationFailed } from '../../core/errors.ts';
import type { Fact, Guard } from '../../core/guard.ts';
import type { Ports } from '../../core/ports.ts';
import type {
  ChoosingProvider,
  DatabaseUser,
  Endpoint,
  OpenTarget,
  ProviderDefinition,
  Readiness,
  UserPassword,
} from '../../core/provider.ts';
import type { Sensitive } from '../../core/sensitive.ts';
import { usernamePattern } from '../../core/username.ts';
import type { Change } from '../http.ts';
import { afterChanges, deleteListed, findListed } from '../listed-users.ts';
import { sharedForAMoment } from '../visit.ts';
import {
  type Address,
  type Cluster,
  clusterDomain,
  notAuthenticated,
  notPermitted,
  type UsersApi,
  zillizApi,
} from './api.ts';

// Options.

const targetSchema = z.strictObject({
  /** The cluster whose users we manage. */
  clusterId: z.string().check(
    z.regex(/^in\d\d-[a-z0-9]{1,40}$/, {
      error: 'expected the id of a cluster, such as in01-108240180a4faf8',
    }),
  ),
});
type Target = z.output<typeof targetSchema>;

/** Rights live on roles, which somebody makes in Zilliz Cloud: then two users of one credential never differ. */
const privilegesSchema = z.strictObject({
  roles: z._default(
    z.array(
      z.string().check(
        z.regex(/^[A-Za-z_][A-Za-z0-9_]{0,254}$/, {
          error: 'expected a role name of letters, digits and underscores',
        }),
      ),
    ),
    [],
  ),
});
type Privileges = z.output<typeof privilegesSchema>;

// Rules.

/** `db_admin` and Milvus's `root` come with a cluster; `db_` and eight more is the one login of a plan without users. */
const reserved = /^(root|db_admin|db_[a-z0-9]{8})$/;

/**
 * Only these are known to have no users. The list of plans is open, and so is that of dedicated ones: of a plan that nobody here knows,
 * the answers of its user API tell. Ids that begin with `in03-` belong to these two whatever the plan says (official Terraform provider).
 */
const plansWithoutUsers = /^(free|serverless)$/i;
const idsWithoutUsers = /^in03-/;
const knownPlans = /^(standard|enterprise|business ?critical|byoc.*)$/i;

/** Zilliz Cloud in China is a service of its own: with another API, other accounts and other keys (official Terraform provider). */
const addressInChina = /^https:\/\/[^/?#@\\]+\.zilliz\.com\.cn(:\d+)?\/?$/;

/** A cluster (docs page Zilliz Cloud limits); Milvus's own default is the same. */
const mostUsers = 100;

/** Zilliz Cloud's rule is the stricter one; Milvus itself looks at the length only. */
const password = {
  pattern: /^[A-Za-z0-9!@#$%^&*()_+=-]{8,64}$/,
  classes: [/[A-Z]/, /[a-z]/, /[0-9]/, /[!@#$%^&*()_+=-]/],
};

/** Grants and passwords reach all proxies within seconds: Milvus's own tests wait for five to ten. */
const propagationMs = 15_000;

/** How long an unclear change may still arrive: the cluster answers 408 after 30 s and goes on working (Milvus's handler). */
const lateMs = 300_000;

/** How many passwords are tried as the current one: those of the versions that Secrets Manager still labels, and one to spare. */
const maxCandidates = 4;

/** Authentication comes up within minutes (official Terraform provider). */
const newMs = 900_000;

/** A name below the vendor's domain, and no path, query, user or IP address: passwords are sent there. */
const addressPattern = new RegExp(
  `^https://((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\\.)+${clusterDomain.replace('.', '\\.')})(?::(\\d{1,5}))?/?$`,
);

// Translation in.

const toUser = (username: string): DatabaseUser => ({
  username,
  isProtected: reserved.test(username) || !usernamePattern.test(username),
});

function readinessOf({ clusterId, plan, status, connectAddress }: Cluster): Readiness {
  // Before the plan: a deleted cluster is gone on every plan.
  if (status.toUpperCase() === 'DELETED')
    return { ready: false, reason: `its status is ${status}`, isGone: true };
  // The plan first: what the user calls answer on a cluster without users is documented nowhere, so none is made.
  if (plansWithoutUsers.test(plan))
    return { ready: false, reason: `its plan is ${plan}, which has no users; a dedicated cluster has` };
  if (idsWithoutUsers.test(clusterId))
    return {
      ready: false,
      reason:
        'its id begins with in03-, as those of Free and Serverless clusters do, which have no users; a dedicated cluster has',
    };
  if (addressInChina.test(connectAddress))
    return {
      ready: false,
      reason: 'it is in China, where Zilliz Cloud is a service of its own that rekey does not support',
    };
  if (status !== 'RUNNING') return { ready: false, reason: `its status is ${status}` };
  return knownPlans.test(plan)
    ? { ready: true }
    : {
        ready: true,
        doubt: `its plan is ${plan}, which rekey does not know; it is tried whether it has users`,
      };
}

function addressOf({ connectAddress, createTime }: Cluster, now: Date): Address | undefined {
  const [, host, digits = '443'] = addressPattern.exec(connectAddress) ?? [];
  const port = Number(digits);
  if (host === undefined || port < 1 || port > 65_535) return undefined;
  return { host, port, isNew: now.getTime() - Date.parse(createTime ?? '') < newMs };
}

// Translation of failure.

const failed = (
  code: ProviderCode,
  operation: string,
  message: string,
  effect: 'none' | 'applied' = 'none',
): ProviderError =>
  new ProviderError(`zilliz-cloud: ${message}`, { code, effect, provider: 'zilliz-cloud', operation });

function refuseUnlessOurs(operation: string, username: string): void {
  if (!usernamePattern.test(username) || reserved.test(username))
    throw failed(
      'NAME_REFUSED',
      operation,
      `${JSON.stringify(username)} is no name that rekey makes or changes`,
    );
}

function refuseOddPassword(operation: string, chosen: Sensitive): void {
  const text = chosen.reveal();
  const classes = password.classes.filter((one) => one.test(text)).length;
  if (!password.pattern.test(text) || classes < 3)
    throw failed(
      'REJECTED',
      operation,
      'the password was not sent, expected 8 to 64 characters of three classes, the special ones of !@#$%^&*()_+-=',
    );
}

const unreachable = (message: string, cause?: unknown): VerificationFailed =>
  new VerificationFailed(
    'LOGIN_UNREACHABLE',
    `${message}; check the cluster's IP allow-list and the functions' way out`,
    cause === undefined ? {} : { cause },
  );

const privilegesDiffer = (message: string, cause?: unknown): VerificationFailed =>
  new VerificationFailed(
    'PRIVILEGES_DIFFER',
    `${message}; grant or revoke it in Zilliz Cloud, or correct the spec`,
    cause === undefined ? {} : { cause },
  );

const roleUnknown = (operation: string, message: string, effect: 'none' | 'applied'): ProviderError =>
  failed(
    'ROLE_UNKNOWN',
    operation,
    `${message}; create the roles in Zilliz Cloud, or correct them in the spec`,
    effect,
  );

// Factory.

export const zillizCloud: ProviderDefinition<Target, Privileges> = {
  id: 'zilliz-cloud',
  engine: 'milvus',
  capabilities: {
    passwords: 'chosen-by-us',
    strategies: ['replace-user', 'alternate-users', 'reset-password'],
    drainObservedBy: 'nothing',
    privilegesNeedLogin: false,
    demandsCurrentPassword: true,
    passwordReadableAgain: 'never',
    // No limit is documented for users and roles; 5 requests a second are for collections (docs page limits), and kept here
    // too. Reads count there: so every call of a rotation of two roles and of the retirement after it is counted.
    writes: { perMinute: 300, perRotation: 28 },
    // Each call names one user, and the server stores that one and tells its proxies of it (Milvus, rootcoord): no list is written anew,
    // and no limit is documented for users (docs page limits). Two keep to the five requests a second above, as half of them are ours.
    parallelRotations: 2,
  },
  targetSchema,
  privilegesSchema,
  targetId: ({ clusterId }) => clusterId,
  targetOf: ({ targetId }) => ({ clusterId: targetId }),
  // `uri` and `token` are what every Milvus client asks for. No user in the URL: none of them would read it there, and
  // fetch refuses it.
  ready: ({ host, port, username, password }) => {
    const uri = `https://${host}:${port}`;
    return { url: uri, uri, token: `${username}:${password.reveal()}` };
  },
  open,
};

function open(
  { target: { clusterId }, privileges, apiKey, keyRenewal, until }: OpenTarget<Target, Privileges>,
  ports: Ports,
): ChoosingProvider {
  const api = zillizApi({ clusterId, apiKey, keyRenewal, until }, ports);
  const declared = [...new Set(privileges.roles)];

  const describeCluster = sharedForAMoment(api.cluster, ports);
  let address: Address | undefined;
  /** Where the cluster is. Read once an invocation; no call is made to a cluster that is not ready for it. */
  async function locate(operation: string): Promise<Address> {
    if (address !== undefined) return address;
    const cluster = await describeCluster();
    const state = readinessOf(cluster);
    if (!state.ready)
      throw failed(
        'TARGET_NOT_READY',
        operation,
        `${clusterId} is not ready: ${state.reason}; nothing was changed`,
      );
    address = addressOf(cluster, await ports.now());
    if (address === undefined)
      throw failed(
        'UNREADABLE',
        operation,
        `the address of ${clusterId} is not https://<name>.${clusterDomain} with a port; nothing was sent there`,
      );
    return address;
  }
  const users = async (operation: string): Promise<UsersApi> => api.users(await locate(operation));
  const list = async (): Promise<readonly DatabaseUser[]> =>
    (await (await users('listUsers')).users()).map(toUser);
  const endpoint = async (): Promise<Endpoint> => {
    const { host, port } = await locate('endpoint');
    return { host, port, database: 'default' };
  };

  /** Looks until `done`, or until `patienceMs` or the invocation is over; answers what was seen last. */
  async function seen<T>(
    look: () => Promise<T>,
    done: (answer: T) => boolean,
    patienceMs: number,
  ): Promise<T> {
    // The last look still has to be answered.
    const giveUpAt = Math.min((await ports.now()).getTime() + patienceMs, until.getTime() - 1_000);
    for (let wait = 500; ; wait = Math.min(wait * 2, 15_000)) {
      const answer = await look();
      const left = giveUpAt - (await ports.now()).getTime();
      if (done(answer) || left <= 0) return answer;
      await ports.sleep(Math.min(wait, left));
    }
  }

  const verify: ChoosingProvider['verify'] = async ({ username, password: given }) => {
    const at = await locate('verify');
    try {
      await api.probe(at, { username, password: given });
      return 'accepted';
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      if (error.facts.vendorCode === notAuthenticated) return 'rejected';
      if (error.facts.vendorCode === notPermitted) return 'accepted';
      // A bare 401 or 403 may be a gateway's, which knows no users.
      throw unreachable(error.message, error);
    }
  };

  const rolesOf = async (username: string): Promise<readonly string[]> => {
    const held = await (await users('describeUser')).rolesOf(username);
    return [...new Set(held)];
  };
  const differencesIn = (held: readonly string[]) => ({
    missing: declared.filter((role) => !held.includes(role)),
    extra: held.filter((role) => !declared.includes(role)),
  });
  const agrees = (held: readonly string[]): boolean => {
    const { missing, extra } = differencesIn(held);
    return missing.length === 0 && extra.length === 0;
  };

  /** One login attempt. `unclear` where the cluster gave no definite answer. */
  const tried = (login: UserPassword): Promise<'accepted' | 'rejected' | 'unclear'> =>
    verify(login).catch((error: unknown) => {
      if (error instanceof VerificationFailed || error instanceof ProviderError) return 'unclear';
      throw error;
    });
  /** Whether the login works now. A refused attempt and an unclear one both prove nothing. */
  const isTakenNow = async (login: UserPassword): Promise<boolean> => (await tried(login)) === 'accepted';

  /** Afterwards the user has this password, whoever made it: the vendor takes an unchanged one and no other. */
  const hasPassword = async ({ username, password: same }: UserPassword, guard: Guard): Promise<boolean> =>
    (await verify({ username, password: same })) === 'accepted' ||
    // A proxy that missed a change refuses the new password until the next one; what is stored decides, and this tells
    // all proxies again (Milvus's rootcoord).
    (await (await users('setPassword')).updatePassword(username, same, same, guard)) === 'updated';

  /** Declared roles that the cluster does not have. */
  const unknownRoles = async (operation: string): Promise<readonly string[]> => {
    if (declared.length === 0) return [];
    const known = await (await users(operation)).roles();
    return declared.filter((role) => !known.includes(role));
  };
  const requireRoles = async (operation: string): Promise<void> => {
    const unknown = await unknownRoles(operation);
    if (unknown.length > 0)
      throw roleUnknown(operation, `${clusterId} has no role ${unknown.join(', ')}`, 'none');
  };

  /** Tries each change once, also after a failed one, and answers the first failure. The roles held afterwards decide. */
  async function tryEach(changes: readonly (() => Promise<void>)[]): Promise<ProviderError | undefined> {
    let first: ProviderError | undefined;
    for (const change of changes)
      await change().catch((error: unknown) => {
        if (!(error instanceof ProviderError)) throw error;
        first ??= error;
      });
    return first;
  }

  /** Afterwards the user holds no role that is not declared. */
  async function takeAway(username: string, change: Change): Promise<void> {
    const { extra } = differencesIn(await rolesOf(username));
    if (extra.length === 0) return;
    const api = await users('applyPrivileges');
    const failure = await tryEach(extra.map((role) => () => api.revokeRole(username, role, change)));
    const isClean = (held: readonly string[]) => differencesIn(held).extra.length === 0;
    const held = await seen(() => rolesOf(username), isClean, propagationMs);
    if (isClean(held)) return;
    throw failure ?? privilegesDiffer(`${username} still holds ${differencesIn(held).extra.join(', ')}`);
  }

  /** Afterwards the user holds exactly the declared roles. */
  async function putInOrder(username: string, change: Change): Promise<void> {
    const before = differencesIn(await rolesOf(username));
    if (before.missing.length === 0 && before.extra.length === 0) return;
    const api = await users('applyPrivileges');
    const failure = await tryEach([
      ...before.extra.map((role) => () => api.revokeRole(username, role, change)),
      ...before.missing.map((role) => () => api.grantRole(username, role, change)),
    ]);
    const held = await seen(() => rolesOf(username), agrees, propagationMs);
    if (agrees(held)) return;
    const differences = differencesIn(held);
    const left = [...differences.missing, ...differences.extra].join(', ');
    if (failure === undefined) throw privilegesDiffer(`${username} still differs in ${left}`);
    if (failure.code !== 'NOT_FOUND') throw failure;
    const unknown = await unknownRoles('applyPrivileges');
    if (unknown.length === 0) throw privilegesDiffer(`${username} still differs in ${left}`, failure);
    throw roleUnknown('applyPrivileges', `${clusterId} has no role ${unknown.join(', ')}`, 'applied');
  }

  /** A new user has no roles (zdoc cluster-roles), so it may have its real password at once. `check` runs where it is not there yet. */
  async function create(
    login: UserPassword,
    change: Change,
    check: () => Promise<void>,
  ): Promise<'created' | 'exists'> {
    const { username, password: chosen } = login;
    let count = 0;
    const counted = async () => {
      const listed = await list();
      count = listed.length;
      return listed;
    };
    const look = { provider: 'zilliz-cloud', operation: 'createUser', username, list: counted, until };
    if ((await findListed(look, ports)) !== undefined) return 'exists';
    await check();
    if (count >= mostUsers)
      throw failed(
        'REJECTED',
        'createUser',
        `${clusterId} has ${count} users, of ${mostUsers} at most; delete some that nobody needs`,
      );
    try {
      await (await users('createUser')).createUser(username, chosen, change);
      return 'created';
    } catch (error) {
      if (!(error instanceof ProviderError) || (error.code !== 'CONFLICT' && error.effect === 'none'))
        throw error;
      // Never a second create: a login with our password proves that it was our call, whatever was answered. Where the
      // list fails too, the first failure is the one that says that nothing is known.
      if (await isTakenNow(login)) return 'created';
      const isListed = async () => (await list()).some((user) => user.username === username);
      if (error.code === 'CONFLICT' || (await isListed().catch(() => false))) return 'exists';
      throw error;
    }
  }

  const remove = (username: string, guard: Guard): Promise<'deleted' | 'absent'> =>
    deleteListed(
      {
        provider: 'zilliz-cloud',
        username,
        list,
        remove: async () => (await users('deleteUser')).dropUser(username, guard),
        until,
      },
      ports,
    );

  /** Sets the new password with `current` as the current one. False where the cluster refuses `current`. */
  async function change(login: UserPassword, current: Sensitive, guard: Guard): Promise<boolean> {
    const { username, password: next } = login;
    try {
      const api = await users('setPassword');
      return (await api.updatePassword(username, current, next, guard)) === 'updated';
    } catch (error) {
      if (!(error instanceof ProviderError) || error.effect === 'none') throw error;
      // Never a second try: if the first one was applied, it would be refused like a wrong password. A login decides;
      // an answer in so many words will not be followed by a change, a lost one may be. That the old password still
      // works would prove nothing.
      const patienceMs = error.code === 'RATE_LIMITED' ? propagationMs : lateMs;
      if (await seen(() => isTakenNow(login), Boolean, patienceMs)) return true;
      throw error;
    }
  }

  /** Afterwards the user has the new password. An idle user whose password is lost is dropped and created again. */
  async function renew(
    login: UserPassword,
    { current, isIdle }: { readonly current: readonly Sensitive[]; readonly isIdle: boolean },
    guard: Guard,
  ): Promise<void> {
    const { username, password: next } = login;
    const candidates: Sensitive[] = [];
    for (const password of current)
      if (![next, ...candidates].some((known) => known.equals(password))) candidates.push(password);
    for (const password of candidates.slice(0, maxCandidates))
      if (await change(login, password, guard)) return;
    // Refused, or nobody knows the current password: an earlier run of ours may have set it to `next` already.
    if (await hasPassword(login, guard)) return;
    if (!isIdle)
      throw failed(
        'REJECTED',
        'setPassword',
        `${username} has a password that no version of its secret holds, or is gone; set it in Zilliz Cloud to what AWSCURRENT says, or request a new credential`,
      );
    // Only the vendor could reset it, and it has no call for that. Whoever still holds the password before loses it by a
    // new one just as well; the roles, which go with the user, are those of the spec and are granted afterwards.
    const stillRefused: Fact = async () => {
      // Another run of the same step may have created the user since the look above. Dropping it then would lock consumers out.
      const said = await tried(login);
      if (said === 'rejected') return undefined;
      return said === 'accepted'
        ? `${username} has its new password by now`
        : `whether ${username} has its new password by now cannot be told`;
    };
    await remove(username, guard.taking.and(stillRefused));
    if ((await create(login, { guard, isDestructive: true }, async () => undefined)) === 'exists')
      throw failed(
        'CONFLICT',
        'setPassword',
        `somebody else made ${username} while rekey did; stop that, then rotate again`,
        'applied',
      );
  }

  return {
    id: 'zilliz-cloud',
    passwords: 'chosen-by-us',
    readiness: async () => readinessOf(await describeCluster()),
    listUsers: list,
    endpoint,

    async createUser(login, guard) {
      refuseUnlessOurs('createUser', login.username);
      refuseOddPassword('createUser', login.password);
      const patient = { guard, isDestructive: false };
      const made = await create(login, patient, () => requireRoles('createUser'));
      if (made === 'created')
        await putInOrder(login.username, patient).catch((error: unknown) => {
          throw afterChanges(error);
        });
      return made;
    },

    async setPassword({ username, current, next, isIdle = false }, guard) {
      refuseUnlessOurs('setPassword', username);
      refuseOddPassword('setPassword', next);
      const login = { username, password: next };
      if (isIdle) await requireRoles('setPassword');
      // The role changes belong to the password change, which never waits for a rate limit: its reasons may be gone after the wait.
      const impatient = { guard, isDestructive: true };
      // Before the password, otherwise a crash in between leaves a stored login that holds undeclared roles.
      if (isIdle) await takeAway(username, impatient);
      await renew(login, { current, isIdle }, guard);
      if (isIdle) await putInOrder(username, impatient);
    },

    async deleteUser(username, guard) {
      refuseUnlessOurs('deleteUser', username);
      return remove(username, guard);
    },

    verify,

    async privilegeDifferences({ username }) {
      // With the API key: users may not see their own grants (milvus issue 29710).
      const { missing, extra } = differencesIn(await seen(() => rolesOf(username), agrees, propagationMs));
      return [
        ...missing.map((role) => `role ${role} is declared but not held`),
        ...extra.map((role) => `role ${role} is held but not declared`),
      ];
    },

    async applyPrivileges({ username }, guard) {
      refuseUnlessOurs('applyPrivileges', username);
      await putInOrder(username, { guard, isDestructive: false });
    },

    // Every request logs in by itself: there is no connection that outlives a password, so none is left to end.
    endSessions: async () => ({ ended: true, because: 'every request to Zilliz Cloud logs in by itself' }),

    sessions: async () => ({
      observed: false,
      reason: 'Zilliz Cloud does not tell who is connected, as every request logs in by itself',
    }),
  };
}
