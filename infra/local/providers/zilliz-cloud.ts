import { createHash, randomUUID } from 'node:crypto';
import type { RequestListener } from 'node:http';
import type * as z from 'zod';
import type {
  clusterAnswerSchema,
  doneSchema,
  namesSchema,
  rolesOfUserSchema,
} from '../../../functions/providers/zilliz-cloud/api.ts';
import type { Clock } from '../clock.ts';
import { type Answer, createFaultBox, type FaultBox } from './faults.ts';
import {
  createRateLimiter,
  createVendorListener,
  type Handling,
  type Lag,
  type Lagging,
  lagging,
  type RecordedCall,
  Refused,
  type VendorListenerOptions,
  type VendorRequest,
} from './vendor-http.ts';

export type ZillizOperation =
  | 'getCluster'
  | 'listClusters'
  | 'changeCluster'
  | 'listUsers'
  | 'createUser'
  | 'describeUser'
  | 'setPassword'
  | 'deleteUser'
  | 'grantRole'
  | 'revokeRole'
  | 'listRoles'
  | 'describeRole'
  | 'createRole'
  | 'dropRole'
  | 'alterRole'
  | 'changePrivilege'
  | 'listPrivilegeGroups'
  | 'changePrivilegeGroup'
  | 'listCollections'
  | 'unknown';

/** What Zilliz Cloud's and Milvus's documents leave open, what differs by version, and what is slow there. */
export interface ZillizSwitches {
  /** Numbers and texts of the line of Milvus that the clusters run; `legacy` is 2.x that says 200 for success. */
  profile: '2.x' | '3.x' | 'legacy';
  /** `real`: errors have HTTP statuses of their own (`proxy.http.standardErrorStatus` of 3.x). */
  statuses: 'mostly-200' | 'real';
  /** What 2.x says of an absent user or role in a grant: its source and its tests disagree. */
  absentInGrant: 65_535 | 65_536;
  passwordRule: 'zilliz' | 'milvus';
  mostUsers: number;
  mostRoles: number;
  /** When proxies take a changed password: all of them so late, or one of the two so late (until a restart: Infinity). */
  passwordReaches: { readonly proxies: 'all' | 'one-late'; readonly afterMs: number };
  /** How late grants and revocations are seen. */
  grantsSeenAfterMs: number;
  /** For so long after its creation a cluster authenticates nobody. */
  authenticatesAfterMs: number;
  delays: { userListed: Lag; userUnlisted: Lag };
  /** Whether an administrator may change a password without the current one. */
  currentPassword: 'required' | 'skipped-for-admins';
  /** What 3.x says of an absent user that is described or dropped. */
  absentUser: 'nothing' | 'not-found';
  repeatedGrant: 'accept' | 'refuse';
  builtInRoleDrop: 1401 | 65_535;
  /** How user calls are answered on plans without users. */
  withoutUsers: 401 | 403 | 404 | 200;
  /** How a cluster that is not running answers. */
  suspended: 'refuse-connection' | 503;
  controlPlaneErrors: 'real-status' | '200';
  /** The status of `1800`. */
  unauthenticated: 401 | 200;
  /** The status of `1401` where a login lacks a right. */
  forbidden: 403 | 200;
  /** How describe says that a user has no roles. */
  noRoles: 'empty' | 'null';
  /** An empty name stands among the roles of every user. */
  emptyRole: boolean;
  isShuffled: boolean;
  extraFields: boolean;
  privilegeGroups: 'object-of-texts' | 'array-of-arrays';
  /** Names that are listed although no such user exists. */
  listedOnly: readonly string[];
  /** Users that exist and are not listed. */
  unlisted: readonly string[];
  /** Control-plane calls a second and key. */
  limit: number;
}

export interface ZillizClusterOptions {
  /** @default a made id */
  readonly id?: string;
  readonly name: string;
  /** @default 'Enterprise' */
  readonly plan?: string;
  /** @default months ago */
  readonly createdAt?: Date;
  /** @default 'zilliz' */
  readonly builtIns?: 'zilliz' | 'milvus';
  /** Roles that a person made. @default none */
  readonly roles?: readonly string[];
  /** @default 19539, under which this machine's network knows the clusters */
  readonly port?: number;
}

export interface ZillizCluster {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  /** Everybody who exists, whatever is listed, with the roles that are stored. */
  users(): readonly { readonly username: string; readonly roles: readonly string[] }[];
  /** Whether the password is the stored one, and every proxy takes it now. */
  authenticates(username: string, password: string): boolean;
}

/** What other people do at the vendor, past rekey and past limits and faults. */
export interface ZillizActor {
  createUser(clusterId: string, username: string, password: string): void;
  deleteUser(clusterId: string, username: string): void;
  setPassword(clusterId: string, username: string, password: string): void;
  grantRole(clusterId: string, username: string, role: string): void;
  revokeRole(clusterId: string, username: string, role: string): void;
  createRole(clusterId: string, role: string): void;
  /** Whoever held it does not any more. */
  dropRole(clusterId: string, role: string): void;
  /** `RUNNING`, `SUSPENDED`, `STOPPED` or any other. */
  setStatus(clusterId: string, status: string): void;
  setPlan(clusterId: string, plan: string): void;
  /** What the control plane says where the cluster is. */
  setAddress(clusterId: string, connectAddress: string): void;
  /** All proxies of the cluster start anew, and know what is stored. */
  restart(clusterId: string): void;
  revokeKey(apiKey: string): void;
}

/** Zilliz Cloud's control plane and its clusters' own API, in memory: no engine with users comes from a package registry. */
export interface ZillizCloud {
  readonly host: 'api.cloud.zilliz.com';
  /** For the network: all clusters are in one region. */
  readonly clusterHosts: string;
  readonly listener: RequestListener;
  readonly clusterListener: RequestListener;
  readonly faults: FaultBox<ZillizOperation>;
  readonly switches: ZillizSwitches;
  /** Every call, oldest first; passwords as digests. */
  readonly calls: readonly RecordedCall<ZillizOperation>[];
  /** Calls that changed a cluster, or asked for the end of a built-in user or role: there must never be one. */
  readonly catastrophes: readonly RecordedCall<ZillizOperation>[];
  readonly actor: ZillizActor;
  readonly clusters: ReadonlyMap<string, ZillizCluster>;
  addCluster(options: ZillizClusterOptions): ZillizCluster;
}

export interface ZillizCloudOptions {
  readonly clock: Clock;
  readonly apiKeys: readonly string[];
  readonly switches?: Partial<ZillizSwitches>;
}

/** A fact that one proxy knows, and the newer one that is on its way to it. */
interface Cached<T> {
  read(): T;
  push(value: T, afterMs: number): void;
}

interface StoredUser {
  readonly name: string;
  /** Digest of the password. */
  password: string;
  description: string;
  readonly roles: Set<string>;
  readonly seenRoles: Cached<readonly string[]>;
}

interface Grant {
  readonly objectType: string;
  readonly objectName: string;
  readonly privilege: string;
  readonly dbName: string;
  readonly grantor: string;
}

interface StoredRole {
  description: string;
  grants: Grant[];
}

interface StoredCluster {
  readonly id: string;
  readonly name: string;
  readonly createdAt: Date;
  readonly protectedUsers: readonly string[];
  readonly builtInRoles: readonly string[];
  readonly host: string;
  readonly port: number;
  plan: string;
  status: string;
  connectAddress: string;
  readonly users: Map<string, StoredUser>;
  /** What each proxy takes for a user's password; undefined once it knows that the user is gone. */
  readonly proxies: readonly Map<string, Cached<string | undefined>>[];
  /** Where the list lags behind the users. */
  readonly listed: Map<string, Lagging<boolean>>;
  readonly roles: Map<string, StoredRole>;
  readonly privilegeGroups: Map<string, Set<string>>;
  /** Calls so far: proxies take turns. */
  turns: number;
}

const region = 'aws-us-west-2';
const domain = `${region}.vectordb.zillizcloud.com`;
const standardPort = 19_539;

const digest = (text: string): string => createHash('sha256').update(text).digest('hex');

/** A failure in Milvus's words, before it is given a status. */
class Failure extends Error {
  override readonly name = 'Failure';
  readonly code: number;
  /** Where the handler has a status of its own for it. */
  readonly status: number | undefined;
  constructor(code: number, message: string, status?: number) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** The statuses of `status_projection.go`: what may have been begun is no "try again". */
function realStatus(code: number, isChange: boolean): number {
  if (code === 1800 || code === 1400) return 401;
  if (code === 1401) return 403;
  if (code === 1807) return 429;
  if ([4, 8, 9].includes(code)) return isChange ? 500 : 429;
  if ([1100, 1801, 1802].includes(code)) return 400;
  if ([1, 2].includes(code)) return isChange ? 500 : 503;
  return 500;
}

const namePattern = /^[A-Za-z][A-Za-z0-9_]{0,31}$/;
const rolePattern = /^[A-Za-z][A-Za-z0-9_]{0,254}$/;
const passwordClasses = [/[A-Z]/, /[a-z]/, /[0-9]/, /[^A-Za-z0-9]/];
const hasUsers = (plan: string): boolean => !/^(free|serverless)$/i.test(plan);

type Body = Readonly<Record<string, unknown>>;
type DoneBody = z.input<typeof doneSchema> & { readonly data: Readonly<Record<string, never>> };
type NamesBody = z.input<typeof namesSchema>;
type RolesOfUserBody = z.input<typeof rolesOfUserSchema> & { readonly description?: string };
type ClusterBody = z.input<typeof clusterAnswerSchema>['data'];

/** One call of the clusters' API, by its path below /v2/vectordb. */
interface ClusterCall {
  readonly operation: ZillizOperation;
  readonly required?: readonly string[];
  /** Whether it changes something: then some failures have another status. */
  readonly isChange?: boolean;
  /** Whom Milvus lets do it. @default administrators */
  readonly right?: 'nothing' | 'list';
  act(cluster: StoredCluster, body: Body): Answer;
}

type Right = 'administer' | 'list' | 'nothing';

/** Makes the stand-in; it has no cluster until one is added. */
export function createZillizCloud(options: ZillizCloudOptions): ZillizCloud {
  const { clock } = options;
  const apiKeys = new Set(options.apiKeys);
  const stored = new Map<string, StoredCluster>();
  const clusters = new Map<string, ZillizCluster>();
  const calls: RecordedCall<ZillizOperation>[] = [];
  const faults = createFaultBox<ZillizOperation>();
  const switches: ZillizSwitches = {
    profile: '2.x',
    statuses: 'mostly-200',
    absentInGrant: 65_535,
    passwordRule: 'zilliz',
    mostUsers: 100,
    mostRoles: 20,
    passwordReaches: { proxies: 'all', afterMs: 0 },
    grantsSeenAfterMs: 0,
    authenticatesAfterMs: 0,
    delays: { userListed: {}, userUnlisted: {} },
    currentPassword: 'required',
    absentUser: 'nothing',
    repeatedGrant: 'accept',
    builtInRoleDrop: 1401,
    withoutUsers: 403,
    suspended: 503,
    controlPlaneErrors: 'real-status',
    unauthenticated: 401,
    forbidden: 403,
    noRoles: 'empty',
    emptyRole: false,
    isShuffled: false,
    extraFields: false,
    privilegeGroups: 'object-of-texts',
    listedOnly: [],
    unlisted: [],
    limit: 20,
    ...options.switches,
  };
  const now = (): number => clock.now().getTime();

  function cached<T>(initial: T): Cached<T> {
    let held = initial;
    let coming: { readonly value: T; readonly at: number } | undefined;
    return {
      read() {
        if (coming !== undefined && coming.at <= now()) {
          held = coming.value;
          coming = undefined;
        }
        return held;
      },
      push(value, afterMs) {
        // A newer change overtakes one that is still on its way.
        coming = { value, at: now() + afterMs };
        this.read();
      },
    };
  }

  // Users.

  const pushPassword = (cluster: StoredCluster, name: string, password: string | undefined): void => {
    const { proxies, afterMs } = switches.passwordReaches;
    for (const [index, proxy] of cluster.proxies.entries()) {
      const isLate = proxies === 'all' || index === 0;
      const known = proxy.get(name) ?? cached<string | undefined>(undefined);
      proxy.set(name, known);
      known.push(password, isLate ? afterMs : 0);
    }
  };
  const makeUser = (cluster: StoredCluster, name: string, password: string, description = ''): void => {
    cluster.users.set(name, {
      name,
      password: digest(password),
      description,
      roles: new Set(),
      seenRoles: cached<readonly string[]>([]),
    });
    pushPassword(cluster, name, digest(password));
    const lag = lagging(false, clock);
    lag.set(true, switches.delays.userListed);
    cluster.listed.set(name, lag);
  };
  const changePassword = (cluster: StoredCluster, user: StoredUser, password: string): void => {
    user.password = digest(password);
    pushPassword(cluster, user.name, user.password);
  };
  const dropUser = (cluster: StoredCluster, name: string): void => {
    cluster.users.delete(name);
    pushPassword(cluster, name, undefined);
    const lag = lagging(true, clock);
    lag.set(false, switches.delays.userUnlisted);
    cluster.listed.set(name, lag);
  };
  const setRole = (user: StoredUser, role: string, isHeld: boolean): void => {
    if (isHeld) user.roles.add(role);
    else user.roles.delete(role);
    user.seenRoles.push([...user.roles], switches.grantsSeenAfterMs);
  };
  const listedNames = (cluster: StoredCluster): readonly string[] => {
    const names = new Set([...cluster.users.keys(), ...cluster.listed.keys()]);
    const seen = [...names].filter((name) => cluster.listed.get(name)?.read() ?? true);
    return [...seen, ...switches.listedOnly].filter((name) => !switches.unlisted.includes(name));
  };

  const checkPassword = (password: string): void => {
    const [least, most] = switches.passwordRule === 'milvus' ? [6, 256] : [8, 64];
    if (password.length < least || password.length > most)
      throw new Failure(
        1100,
        `invalid password length: invalid parameter[expected=between ${least} and ${most}]`,
      );
    const classes = passwordClasses.filter((one) => one.test(password)).length;
    if (switches.passwordRule === 'zilliz' && classes < 3)
      throw new Failure(1100, 'invalid password: expected three of upper, lower, digit, special');
  };
  const is3 = (): boolean => switches.profile === '3.x';
  const exists = (name: string): Failure =>
    is3() ? new Failure(1100, `user already exists: ${name}`) : new Failure(65_535, 'user already exists');
  const tooMany = (what: 'user' | 'role'): Failure =>
    new Failure(
      is3() ? 9 : 65_535,
      `unable to add ${what} because the number of ${what}s has reached the limit`,
    );
  const absentUser = (name: string): Failure =>
    is3()
      ? new Failure(1100, `user "${name}" not found`)
      : new Failure(
          switches.absentInGrant,
          "not found the user, maybe the user isn't existed or internal system error",
        );
  const absentRole = (): Failure =>
    is3()
      ? new Failure(65_535, 'role not exists')
      : new Failure(
          switches.absentInGrant,
          "not found the role, maybe the role isn't existed or internal system error",
        );
  const roleOf = (cluster: StoredCluster, name: string): StoredRole => {
    const found = cluster.roles.get(name);
    if (found === undefined) throw absentRole();
    return found;
  };

  // Answers.

  const code = (): 0 | 200 => (switches.profile === 'legacy' ? 200 : 0);
  const extra = (): Body => (switches.extraFields ? { cost: 0, requestId: randomUUID() } : {});
  const done = (): Answer => ({
    status: 200,
    json: { code: code(), data: {}, ...extra() } satisfies DoneBody,
  });
  const mixed = <T>(items: readonly T[]): T[] => {
    const at = items.length > 1 && switches.isShuffled ? cut() % items.length : 0;
    return [...items.slice(at), ...items.slice(0, at)];
  };
  let cuts = 0;
  const cut = (): number => {
    cuts += 1;
    return cuts;
  };
  const data = (value: NamesBody['data'] | readonly object[] | object): Answer => ({
    status: 200,
    json: { code: code(), data: value, ...extra() },
  });

  const text = (body: Body, field: string): string => {
    const value = body[field];
    return typeof value === 'string' ? value : '';
  };
  const user = ['userName'];
  const role = ['roleName'];

  const clusterCalls: Readonly<Record<string, ClusterCall>> = {
    'users/list': {
      operation: 'listUsers',
      right: 'list',
      act: (cluster) => data(mixed(listedNames(cluster))),
    },
    'users/create': {
      operation: 'createUser',
      required: ['userName', 'password'],
      isChange: true,
      act(cluster, body) {
        const name = text(body, 'userName').trim();
        if (!namePattern.test(name))
          throw new Failure(
            1100,
            'invalid parameter: the first character of a user name must be a letter, then letters, digits, underscores, 32 at most',
          );
        checkPassword(text(body, 'password'));
        if (cluster.users.has(name)) throw exists(name);
        if (cluster.users.size >= switches.mostUsers) throw tooMany('user');
        makeUser(cluster, name, text(body, 'password'), text(body, 'description'));
        return done();
      },
    },
    'users/describe': {
      operation: 'describeUser',
      required: user,
      right: 'list',
      act(cluster, body) {
        const name = text(body, 'userName');
        const found = cluster.users.get(name);
        if (found === undefined && is3() && switches.absentUser === 'not-found') throw absentUser(name);
        const held = [...(found?.seenRoles.read() ?? []), ...(switches.emptyRole ? [''] : [])];
        const json: RolesOfUserBody = {
          code: code(),
          data: held.length === 0 && switches.noRoles === 'null' ? null : mixed(held),
          ...(is3() ? { description: found?.description ?? '' } : {}),
          ...extra(),
        };
        return { status: 200, json };
      },
    },
    'users/update_password': {
      operation: 'setPassword',
      required: user,
      isChange: true,
      act(cluster, body) {
        const [name, current, next] = ['userName', 'password', 'newPassword'].map((field) =>
          text(body, field),
        );
        const isFree = switches.currentPassword === 'skipped-for-admins';
        const mayOmit = is3() || isFree;
        const isIncomplete = (current === '') !== (next === '');
        if ((!mayOmit && (current === '' || next === '')) || (is3() && isIncomplete))
          throw missing('password');
        const found = cluster.users.get(name ?? '');
        if (next !== undefined && next !== '') {
          checkPassword(next);
          // The check of the password comes first: an absent user looks like a wrong password.
          if (found === undefined || (!isFree && found.password !== digest(current ?? '')))
            throw new Failure(1400, `old password not correct for ${name}: not authenticated`);
          changePassword(cluster, found, next);
        }
        if (found !== undefined && is3() && 'description' in body)
          found.description = text(body, 'description');
        return done();
      },
    },
    'users/drop': {
      operation: 'deleteUser',
      required: user,
      isChange: true,
      act(cluster, body) {
        const name = text(body, 'userName');
        if (cluster.protectedUsers.includes(name)) throw new Failure(1401, `${name} user cannot be deleted`);
        if (cluster.users.has(name)) dropUser(cluster, name);
        else if (is3() && switches.absentUser === 'not-found') throw absentUser(name);
        return done();
      },
    },
    'users/grant_role': {
      operation: 'grantRole',
      required: ['userName', 'roleName'],
      isChange: true,
      right: 'list',
      act(cluster, body) {
        const name = text(body, 'roleName');
        roleOf(cluster, name);
        const found = cluster.users.get(text(body, 'userName'));
        if (found === undefined) throw absentUser(text(body, 'userName'));
        if (found.roles.has(name) && switches.repeatedGrant === 'refuse')
          throw new Failure(65_535, 'the user holds the role');
        setRole(found, name, true);
        return done();
      },
    },
    'users/revoke_role': {
      operation: 'revokeRole',
      required: ['userName', 'roleName'],
      isChange: true,
      right: 'list',
      act(cluster, body) {
        roleOf(cluster, text(body, 'roleName'));
        // Only the role is looked for, not the user.
        const found = cluster.users.get(text(body, 'userName'));
        if (found !== undefined) setRole(found, text(body, 'roleName'), false);
        return done();
      },
    },
    'roles/list': {
      operation: 'listRoles',
      right: 'list',
      act: (cluster) => data(mixed([...cluster.roles.keys()])),
    },
    'roles/describe': {
      operation: 'describeRole',
      required: role,
      right: 'list',
      act(cluster, body) {
        const found = roleOf(cluster, text(body, 'roleName'));
        const answer = data(mixed(found.grants));
        return is3()
          ? { ...answer, json: { ...(answer.json as object), description: found.description } }
          : answer;
      },
    },
    'roles/create': {
      operation: 'createRole',
      required: role,
      isChange: true,
      act(cluster, body) {
        const name = text(body, 'roleName');
        if (!rolePattern.test(name)) throw new Failure(1100, 'invalid parameter: role name');
        if (cluster.roles.has(name)) throw new Failure(65_535, `role [name:"${name}"] already exists`);
        if (cluster.roles.size - cluster.builtInRoles.length >= switches.mostRoles) throw tooMany('role');
        cluster.roles.set(name, { description: text(body, 'description'), grants: [] });
        return done();
      },
    },
    'roles/drop': {
      operation: 'dropRole',
      required: role,
      isChange: true,
      act(cluster, body) {
        const name = text(body, 'roleName');
        if (cluster.builtInRoles.includes(name))
          throw new Failure(
            switches.builtInRoleDrop,
            `the role[${name}] is a default role, which can't be dropped`,
          );
        if (roleOf(cluster, name).grants.length > 0)
          throw new Failure(
            is3() ? 1100 : 65_535,
            'fail to drop the role that it has privileges. Use REVOKE API to revoke privileges',
          );
        cluster.roles.delete(name);
        for (const holder of cluster.users.values()) setRole(holder, name, false);
        return done();
      },
    },
    'roles/alter': {
      operation: 'alterRole',
      required: role,
      isChange: true,
      act(cluster, body) {
        if (!is3()) throw new Refused(notFoundPage);
        roleOf(cluster, text(body, 'roleName')).description = text(body, 'description');
        return done();
      },
    },
    'roles/grant_privilege': privilege(true, ['roleName', 'objectType', 'objectName', 'privilege']),
    'roles/revoke_privilege': privilege(false, ['roleName', 'objectType', 'objectName', 'privilege']),
    'roles/grant_privilege_v2': privilege(true, ['roleName', 'privilege']),
    'roles/revoke_privilege_v2': privilege(false, ['roleName', 'privilege']),
    'privilege_groups/create': privilegeGroup((cluster, name) => {
      if (cluster.privilegeGroups.has(name))
        throw new Failure(1100, `privilege group ${name} already exists`);
      cluster.privilegeGroups.set(name, new Set());
    }),
    'privilege_groups/drop': privilegeGroup((cluster, name) => void cluster.privilegeGroups.delete(name)),
    'privilege_groups/add_privileges_to_group': privilegeGroup((cluster, name, privileges) => {
      for (const one of privileges) cluster.privilegeGroups.get(name)?.add(one);
    }),
    'privilege_groups/remove_privileges_from_group': privilegeGroup((cluster, name, privileges) => {
      for (const one of privileges) cluster.privilegeGroups.get(name)?.delete(one);
    }),
    'privilege_groups/list': {
      operation: 'listPrivilegeGroups',
      right: 'list',
      act(cluster) {
        const groups = [...cluster.privilegeGroups].map(([privilegeGroupName, privileges]) => ({
          privilegeGroupName,
          privileges: [...privileges],
        }));
        return switches.privilegeGroups === 'array-of-arrays'
          ? data(mixed(groups))
          : data({
              privilegeGroups: mixed(groups).map((one) => ({ ...one, privileges: one.privileges.join(',') })),
            });
      },
    },
    // Only the login is checked, no right: what a probe needs.
    'collections/list': { operation: 'listCollections', right: 'nothing', act: () => data(['orders']) },
  };

  function privilege(isGrant: boolean, required: readonly string[]): ClusterCall {
    return {
      operation: 'changePrivilege',
      required,
      isChange: true,
      right: 'list',
      act(cluster, body) {
        const found = roleOf(cluster, text(body, 'roleName'));
        const grant: Grant = {
          objectType: text(body, 'objectType') || 'Global',
          objectName: text(body, 'objectName') || text(body, 'collectionName') || '*',
          privilege: text(body, 'privilege'),
          dbName: text(body, 'dbName') || 'default',
          grantor: 'zcloud_root',
        };
        const isSame = (one: Grant): boolean =>
          (Object.keys(grant) as (keyof Grant)[]).every((field) => one[field] === grant[field]);
        found.grants = [...found.grants.filter((one) => !isSame(one)), ...(isGrant ? [grant] : [])];
        return done();
      },
    };
  }

  function privilegeGroup(
    change: (cluster: StoredCluster, name: string, privileges: readonly string[]) => void,
  ): ClusterCall {
    return {
      operation: 'changePrivilegeGroup',
      required: ['privilegeGroupName'],
      isChange: true,
      right: 'list',
      act(cluster, body) {
        const { privileges } = body;
        const names = Array.isArray(privileges) ? privileges.map(String) : [];
        change(cluster, text(body, 'privilegeGroupName'), names);
        return done();
      },
    };
  }

  const notFoundPage: Answer = {
    status: 404,
    headers: { 'content-type': 'text/plain' },
    text: '404 page not found',
  };
  const missing = (field: string): Failure => {
    const name = `${field.charAt(0).toUpperCase()}${field.slice(1)}`;
    return new Failure(
      1802,
      `missing required parameters, error: Key: 'Req.${name}' Error:Field validation for '${name}' failed on the 'required' tag`,
    );
  };
  const failure = ({ code: number, message, status }: Failure, isChange: boolean): Answer => ({
    status: switches.statuses === 'real' ? realStatus(number, isChange) : (status ?? 200),
    json: { code: number, message },
  });
  const unauthenticated = (): Failure =>
    new Failure(1800, "user hasn't authenticated", switches.unauthenticated);

  const answering = (work: () => Answer, isChange: boolean): Answer => {
    try {
      return work();
    } catch (error) {
      if (error instanceof Failure) throw new Refused(failure(error, isChange));
      throw error;
    }
  };

  // Who calls.

  const bearer = ({ headers }: VendorRequest): string =>
    /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '';
  /** Split at the first colon; a token without one is an API key. */
  const loginIn = (token: string): { name: string; password: string } | undefined => {
    const at = token.indexOf(':');
    return at < 0 ? undefined : { name: token.slice(0, at), password: token.slice(at + 1) };
  };
  const rightOf = (cluster: StoredCluster, token: string): Right | undefined => {
    if (now() < cluster.createdAt.getTime() + switches.authenticatesAfterMs) return undefined;
    const login = loginIn(token);
    if (login === undefined) return apiKeys.has(token) ? 'administer' : undefined;
    cluster.turns += 1;
    const proxy = cluster.proxies[cluster.turns % cluster.proxies.length];
    if (proxy?.get(login.name)?.read() !== digest(login.password)) return undefined;
    const roles = cluster.users.get(login.name)?.roles;
    const isAdmin =
      cluster.protectedUsers.includes(login.name) || roles?.has('db_admin') || roles?.has('admin');
    if (isAdmin) return 'administer';
    return roles?.has('db_rw') || roles?.has('db_ro') ? 'list' : 'nothing';
  };

  const fieldsOf = (json: unknown): Body =>
    typeof json === 'object' && json !== null && !Array.isArray(json) ? { ...json } : {};
  const bodyToKeep = ({ json, method }: VendorRequest): Body | undefined =>
    method === 'GET'
      ? undefined
      : Object.fromEntries(
          Object.entries(fieldsOf(json)).map(([name, value]) => [
            name,
            /password/i.test(name) ? digest(String(value)) : value,
          ]),
        );

  // The clusters' own API.

  const clusterAt = ({ headers }: VendorRequest): StoredCluster | undefined => {
    const [host = '', port = '443'] = (headers.host ?? '').split(':');
    return [...stored.values()].find((one) => one.host === host && String(one.port) === port);
  };
  const clusterCallOf = ({ method, segments }: VendorRequest): ClusterCall | undefined => {
    const [version, kind, ...path] = segments;
    if (method !== 'POST' || version !== 'v2' || kind !== 'vectordb') return undefined;
    const key = path.join('/');
    return Object.hasOwn(clusterCalls, key) ? clusterCalls[key] : undefined;
  };

  const routeToCluster = (request: VendorRequest): Handling<ZillizOperation> => {
    const call = clusterCallOf(request);
    const cluster = clusterAt(request);
    if (call === undefined || cluster === undefined)
      return { operation: 'unknown', act: () => Promise.reject(new Refused(notFoundPage)) };
    const { operation, required = [], isChange = false } = call;
    const body = fieldsOf(request.json);
    const username = text(body, 'userName');
    const act = async (): Promise<Answer> =>
      answering(() => {
        if (request.json === undefined)
          throw Number(request.headers['content-length'] ?? 0) === 0
            ? new Failure(1801, 'the request body should be nil, however {} is valid')
            : new Failure(1801, 'can only accept json format request');
        const lacking = required.find((field) => text(body, field) === '');
        if (lacking !== undefined) throw missing(lacking);
        return call.act(cluster, body);
      }, isChange);
    return {
      operation,
      ...(username === '' ? {} : { username }),
      act,
      pretend: () => (call.isChange === true ? done() : data([])),
    };
  };

  const clusterGate: VendorListenerOptions<ZillizOperation>['gate'] = (request, operation) => {
    const cluster = clusterAt(request);
    const call = clusterCallOf(request);
    if (cluster === undefined || call === undefined) return undefined;
    if (cluster.status !== 'RUNNING')
      return switches.suspended === 503
        ? { status: 503, headers: { 'content-type': 'text/html' }, text: '<html>unavailable</html>\n' }
        : 'reset';
    const isChange = call.isChange === true;
    const right = rightOf(cluster, bearer(request));
    if (right === undefined) return failure(unauthenticated(), isChange);
    if (!hasUsers(cluster.plan) && operation !== 'listCollections')
      switch (switches.withoutUsers) {
        case 401:
          return failure(unauthenticated(), isChange);
        case 404:
          return notFoundPage;
        default:
          return failure(
            new Failure(1401, 'user management: privilege not permitted', switches.withoutUsers),
            isChange,
          );
      }
    const isAllowed =
      call.right === 'nothing' || right === 'administer' || (call.right === 'list' && right === 'list');
    return isAllowed
      ? undefined
      : failure(new Failure(1401, `${operation}: privilege not permitted`, switches.forbidden), isChange);
  };

  // The control plane.

  const controlFailure = (status: number, number: number, message: string): Answer => ({
    status: switches.controlPlaneErrors === '200' ? 200 : status,
    json: { code: number, message },
  });
  const clusterBody = (cluster: StoredCluster): ClusterBody & Body => ({
    clusterId: cluster.id,
    clusterName: cluster.name,
    projectId: 'proj-b44a39b0c51cf21791a841',
    description: '',
    regionId: region,
    cuType: hasUsers(cluster.plan) ? 'Performance-optimized' : '',
    plan: cluster.plan,
    status: cluster.status,
    connectAddress: cluster.connectAddress,
    privateLinkAddress: '',
    createTime: cluster.createdAt.toISOString().replace(/\.\d+Z$/, 'Z'),
    cuSize: 1,
    replica: 1,
    createProgress: 100,
  });

  const route = (request: VendorRequest): Handling<ZillizOperation> => {
    const [version, kind, id, ...rest] = request.segments;
    const unknown: Handling<ZillizOperation> = {
      operation: 'unknown',
      act: () => Promise.reject(new Refused(controlFailure(404, 96_007, 'Not Found'))),
    };
    if (version !== 'v2' || kind !== 'clusters') return unknown;
    if (request.method !== 'GET') return { ...unknown, operation: 'changeCluster' };
    if (id === undefined) {
      const pageSize = Number(request.query.get('pageSize') ?? 10);
      const currentPage = Number(request.query.get('currentPage') ?? 1);
      return {
        operation: 'listClusters',
        async act() {
          if (!(pageSize >= 1 && pageSize <= 100))
            throw new Refused(controlFailure(400, 96_008, 'The pageSize should be between 1 and 100.'));
          const all = [...stored.values()].map(clusterBody);
          const page = all.slice((currentPage - 1) * pageSize, currentPage * pageSize);
          return {
            status: 200,
            json: { code: 0, data: { count: all.length, currentPage, pageSize, clusters: page } },
          };
        },
      };
    }
    if (rest.length > 0) return unknown;
    return {
      operation: 'getCluster',
      async act() {
        const found = stored.get(id);
        if (found === undefined) throw new Refused(controlFailure(404, 96_010, `Cluster ${id} not found.`));
        return { status: 200, json: { code: 0, data: clusterBody(found) } };
      },
    };
  };

  const limiter = createRateLimiter({ clock, windowMs: 1000, limit: () => switches.limit });
  const gate: VendorListenerOptions<ZillizOperation>['gate'] = (request) => {
    const key = bearer(request);
    // No user of a cluster: only API keys.
    if (!apiKeys.has(key)) return controlFailure(401, 21_119, 'The apikey is illegal.');
    return limiter.take(key).isExceeded ? rateLimited(429, {}) : undefined;
  };

  const rateLimited = (status: number, headers: Readonly<Record<string, string>>): Answer => ({
    status,
    headers,
    json: { code: 8, message: 'rate limit exceeded' },
  });
  const shared = {
    clock,
    faults,
    calls,
    rateLimited,
    requestId: randomUUID,
    bodyToKeep,
    headers: (_request: VendorRequest, requestId: string) => ({ requestid: requestId }),
  };

  const known = (id: string): StoredCluster => {
    const found = stored.get(id);
    if (found === undefined)
      throw new Error(`the stand-in has no cluster ${id}, expected one that was added`);
    return found;
  };
  const knownUser = (id: string, username: string): StoredUser => {
    const found = known(id).users.get(username);
    if (found === undefined)
      throw new Error(`the cluster ${id} has no user ${username}, expected one that was made`);
    return found;
  };

  const isCatastrophe = ({ operation, body }: RecordedCall<ZillizOperation>): boolean =>
    operation === 'changeCluster' ||
    operation === 'dropRole' ||
    (operation === 'deleteUser' && /^(root|db_admin)$/.test(String(body?.['userName'])));

  return {
    host: 'api.cloud.zilliz.com',
    clusterHosts: `*.${domain}:${standardPort}`,
    listener: createVendorListener({ ...shared, route, gate }),
    clusterListener: createVendorListener({ ...shared, route: routeToCluster, gate: clusterGate }),
    faults,
    switches,
    calls,
    get catastrophes() {
      return calls.filter(isCatastrophe);
    },
    clusters,
    addCluster({ id = `in01-${randomUUID().replaceAll('-', '').slice(0, 15)}`, name, ...more }) {
      const { builtIns = 'zilliz', port = standardPort, plan = 'Enterprise', roles = [] } = more;
      const host = `${id}.${domain}`;
      const builtInRoles = builtIns === 'zilliz' ? ['db_admin', 'db_ro', 'db_rw'] : ['admin', 'public'];
      const cluster: StoredCluster = {
        id,
        name,
        createdAt: more.createdAt ?? new Date(now() - 90 * 86_400_000),
        protectedUsers: builtIns === 'zilliz' ? ['db_admin'] : ['root'],
        builtInRoles,
        host,
        port,
        plan,
        status: 'RUNNING',
        connectAddress: `https://${host}:${port}`,
        users: new Map(),
        proxies: [new Map(), new Map()],
        listed: new Map(),
        roles: new Map([...builtInRoles, ...roles].map((one) => [one, { description: '', grants: [] }])),
        privilegeGroups: new Map(),
        turns: 0,
      };
      for (const administrator of cluster.protectedUsers)
        makeUser(cluster, administrator, builtIns === 'zilliz' ? randomUUID() : 'Milvus');
      const view: ZillizCluster = {
        id,
        host,
        port,
        users: () =>
          [...cluster.users.values()].map((one) => ({ username: one.name, roles: [...one.roles] })),
        authenticates: (username, password) =>
          cluster.users.get(username)?.password === digest(password) &&
          cluster.proxies.every((proxy) => proxy.get(username)?.read() === digest(password)),
      };
      stored.set(id, cluster);
      clusters.set(id, view);
      return view;
    },
    actor: {
      createUser: (id, username, password) => makeUser(known(id), username, password),
      deleteUser: (id, username) => dropUser(known(id), username),
      setPassword: (id, username, password) => changePassword(known(id), knownUser(id, username), password),
      grantRole: (id, username, one) => setRole(knownUser(id, username), one, true),
      revokeRole: (id, username, one) => setRole(knownUser(id, username), one, false),
      createRole: (id, one) => void known(id).roles.set(one, { description: '', grants: [] }),
      dropRole(id, one) {
        known(id).roles.delete(one);
        for (const holder of known(id).users.values()) setRole(holder, one, false);
      },
      setStatus(id, status) {
        known(id).status = status;
      },
      setPlan(id, plan) {
        known(id).plan = plan;
      },
      setAddress(id, connectAddress) {
        known(id).connectAddress = connectAddress;
      },
      restart(id) {
        const cluster = known(id);
        for (const proxy of cluster.proxies)
          for (const [name, cache] of proxy) cache.push(cluster.users.get(name)?.password, 0);
      },
      revokeKey: (apiKey) => void apiKeys.delete(apiKey),
    },
  };
}
