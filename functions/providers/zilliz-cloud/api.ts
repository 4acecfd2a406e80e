import * as z from 'zod/mini';
import { type ProviderCode, ProviderError } from '../../core/errors.ts';
import type { Guard } from '../../core/guard.ts';
import type { Ports } from '../../core/ports.ts';
import type { UserPassword } from '../../core/provider.ts';
import { Sensitive } from '../../core/sensitive.ts';
import {
  type ApiAccess,
  type Change,
  failureOfStatus,
  messageOf,
  retryAfterMs,
  type VendorFailure,
  type VendorResponse,
  vendorApi,
} from '../http.ts';

/**
 * Zilliz Cloud's words. The control plane tells plan, status and address of a cluster; users are managed by the REST API
 * that each cluster itself has, Milvus's v2. Sources: docs.zilliz.com, the OpenAPI documents in milvus-io/web-content,
 * and Milvus's own handlers and error codes (2.5, 2.6, 3.x). Which version a cluster runs is not told: all are read.
 */
export const host = 'https://api.cloud.zilliz.com';
export const baseUrl = `${host}/v2`;
/** Only below this name may a cluster be: its address is data, and passwords are sent there. */
export const clusterDomain = 'zillizcloud.com';

/** Milvus of the 2.3 line answered 200 where all later ones answer 0 (milvus issue 30761). */
const success = z.union([z.literal(0), z.literal(200)]);

/** Open strings: new plans and statuses appear without notice. */
export const clusterSchema = z.object({
  clusterId: z.string(),
  plan: z.string(),
  status: z.string(),
  connectAddress: z.string(),
  createTime: z.nullish(z.string()),
});
export type Cluster = z.output<typeof clusterSchema>;
export const clusterAnswerSchema = z.object({ code: success, data: clusterSchema });

/** Changes answer `{}` as data, which nobody needs. */
export const doneSchema = z.object({ code: success });

/** Users and roles are bare names; no pages. */
export const namesSchema = z.object({ code: success, data: z.array(z.string()) });

/** The roles of a user. A user without any, and one that does not exist, may be an empty array or null. */
export const rolesOfUserSchema = z.object({ code: success, data: z.nullish(z.array(z.string())) });

export interface ZillizApi {
  cluster(): Promise<Cluster>;
  /** The cluster's own API, with the API key. */
  users(at: Address): UsersApi;
  /** A call that needs a valid login and no right at all, as this user. */
  probe(at: Address, login: UserPassword): Promise<void>;
}

export interface Address {
  readonly host: string;
  readonly port: number;
  /** The answer to a valid key on a cluster that has just been made may be "not authenticated" for a while. */
  readonly isNew?: boolean;
}

export interface UsersApi {
  /** The names of all users. */
  users(): Promise<readonly string[]>;
  /** The roles of a user, which proves nothing about its existence. */
  rolesOf(userName: string): Promise<readonly string[]>;
  /** Destructive where the user was dropped for it: then the creation must not wait for a rate limit either. */
  createUser(userName: string, password: Sensitive, change: Change): Promise<void>;
  /** `refused`: the current password is another one, or there is no such user; the vendor says the same of both. */
  updatePassword(
    userName: string,
    current: Sensitive,
    next: Sensitive,
    guard: Guard,
  ): Promise<'updated' | 'current-refused'>;
  dropUser(userName: string, guard: Guard): Promise<void>;
  grantRole(userName: string, roleName: string, change: Change): Promise<void>;
  revokeRole(userName: string, roleName: string, change: Change): Promise<void>;
  /** The names of all roles. */
  roles(): Promise<readonly string[]>;
}

/** Longer than the 30 s after which the cluster itself gives up and says so. */
const slowMs = 40_000;
const provider = 'zilliz-cloud';
const requestIdHeader = 'requestid';

export function zillizApi(
  { clusterId, ...access }: ApiAccess & { readonly clusterId: string },
  ports: Ports,
): ZillizApi {
  const control = vendorApi(
    { provider, baseUrl, requestIdHeader, failureOf: controlPlaneFailure, ...access },
    ports,
  );
  const { until } = access;
  const clusterApi = (at: Address, as: ApiAccess, secrets: readonly Sensitive[] = []) =>
    vendorApi(
      {
        provider,
        baseUrl: `https://${at.host}:${at.port}/v2/vectordb`,
        secrets,
        requestIdHeader,
        failureOf: clusterFailure,
        ...as,
      },
      ports,
    );
  return {
    cluster: async () => {
      const { data } = await control.call({
        operation: 'readiness',
        method: 'GET',
        path: ['clusters', clusterId],
        answer: clusterAnswerSchema,
      });
      if (data.clusterId === clusterId) return data;
      throw new ProviderError(`${provider}: asked for the cluster ${clusterId}, was told of another`, {
        code: 'UNREADABLE',
        effect: 'none',
        provider,
        operation: 'readiness',
      });
    },

    users(at) {
      const api = clusterApi(at, access);
      const settled =
        at.isNew === true ? untilAuthenticated(until, ports) : <T>(call: () => Promise<T>) => call();
      const ask = <Answer>(
        operation: string,
        path: readonly string[],
        body: Readonly<Record<string, string>>,
        answer: z.ZodMiniType<Answer>,
      ): Promise<Answer> =>
        settled(() => api.call({ operation, method: 'POST', path, body, answer, isRead: true }));
      const change = async (
        operation: string,
        path: readonly string[],
        body: Readonly<Record<string, string | Sensitive>>,
        leave: Change,
      ): Promise<void> => {
        await settled(() =>
          api.call({
            operation,
            method: 'POST',
            path,
            body,
            answer: doneSchema,
            timeoutMs: slowMs,
            ...leave,
          }),
        );
      };
      return {
        // An empty body is refused: `{}` it has to be, even where nothing is asked for (Milvus's handler).
        users: async () => (await ask('listUsers', ['users', 'list'], {}, namesSchema)).data,
        async rolesOf(userName) {
          const { data } = await ask('describeUser', ['users', 'describe'], { userName }, rolesOfUserSchema);
          // A 2.6 server listed an empty name beside the real ones (milvus issue 46825).
          return (data ?? []).filter((role) => role !== '');
        },
        createUser: (userName, password, leave) =>
          change('createUser', ['users', 'create'], { userName, password }, leave),
        async updatePassword(userName, current, next, guard) {
          const body = { userName, password: current, newPassword: next };
          try {
            await change('setPassword', ['users', 'update_password'], body, { guard, isDestructive: true });
            return 'updated';
          } catch (error) {
            if (error instanceof ProviderError && error.facts.vendorCode === wrongCurrentPassword)
              return 'current-refused';
            throw error;
          }
        },
        dropUser: (userName, guard) =>
          change('deleteUser', ['users', 'drop'], { userName }, { guard, isDestructive: true }),
        grantRole: (userName, roleName, leave) =>
          change('applyPrivileges', ['users', 'grant_role'], { userName, roleName }, leave),
        revokeRole: (userName, roleName, leave) =>
          change('applyPrivileges', ['users', 'revoke_role'], { userName, roleName }, leave),
        roles: async () => (await ask('listRoles', ['roles', 'list'], {}, namesSchema)).data,
      };
    },

    async probe(at, { username, password }) {
      // The user name has no colon, and the cluster splits at the first one.
      const token = new Sensitive(`${username}:${password.reveal()}`);
      await clusterApi(at, { apiKey: token, until }, [password]).call({
        operation: 'verify',
        method: 'POST',
        path: ['collections', 'list'],
        body: {},
        answer: doneSchema,
        isRead: true,
      });
    },
  };
}

const patienceMs = 120_000;

/** On a new cluster "not authenticated" is asked again, in the rhythm of the official Terraform provider. */
function untilAuthenticated(until: Date, { now, sleep }: Pick<Ports, 'now' | 'sleep'>) {
  return async <T>(call: () => Promise<T>): Promise<T> => {
    const giveUpAt = Math.min((await now()).getTime() + patienceMs, until.getTime());
    for (let wait = 2_000; ; wait = Math.min(wait * 2, 30_000)) {
      try {
        return await call();
      } catch (error) {
        const isEarly = error instanceof ProviderError && error.facts.vendorCode === notAuthenticated;
        if (!isEarly || (await now()).getTime() + wait >= giveUpAt) throw error;
        await sleep(wait);
      }
    }
  };
}

/** Of a key, a password or a user that the cluster does not know; the same for all three (Milvus, `merr`). */
export const notAuthenticated = 1800;
/** Known, and without the right to this call: proof of a password. */
export const notPermitted = 1401;
/** update_password alone: the current password is another one, or the user is absent. */
export const wrongCurrentPassword = 1400;

interface Rule {
  readonly codes: readonly number[];
  /** Where one number means several things, its text tells which. */
  readonly text?: RegExp;
  readonly code: ProviderCode;
  /** `unknown`: Milvus may answer so although, or before, the change is stored. */
  readonly effect: 'none' | 'unknown';
}

/** Numbers that stand for whatever went wrong, by version: the text decides. */
const general = [1100, 65_535, 65_536];

/** What the body's number and text mean, in every version; the first rule that fits. HTTP statuses come after all of them. */
const rules: readonly Rule[] = [
  { codes: [notAuthenticated], code: 'UNAUTHORIZED', effect: 'none' },
  { codes: [wrongCurrentPassword], code: 'REJECTED', effect: 'none' },
  { codes: [notPermitted], text: /cannot be deleted|default role/, code: 'BLOCKED', effect: 'none' },
  { codes: [notPermitted], code: 'UNAUTHORIZED', effect: 'none' },
  { codes: [1801, 1802], code: 'REJECTED', effect: 'none' },
  // Before "exists" and "not found": 1100 is bad input, too, and a refused password is never somebody's user.
  { codes: [1100], text: /password/i, code: 'REJECTED', effect: 'none' },
  { codes: general, text: /already exists/, code: 'CONFLICT', effect: 'none' },
  { codes: general, text: /not found|not exist|isn't existed/, code: 'NOT_FOUND', effect: 'none' },
  { codes: general, text: /cannot be deleted|default role|REVOKE API/, code: 'BLOCKED', effect: 'none' },
  // 9 is a quota that frees itself, and a number of users that does not.
  { codes: [9, 35, ...general], text: /has reached the limit/, code: 'REJECTED', effect: 'none' },
  { codes: [36], code: 'BLOCKED', effect: 'none' },
  { codes: [1100], code: 'REJECTED', effect: 'none' },
  // The limiter stands before the handler; the others come out of it.
  { codes: [1807], code: 'RATE_LIMITED', effect: 'none' },
  { codes: [4, 8, 9], code: 'RATE_LIMITED', effect: 'unknown' },
  { codes: [1, 2, 500, 10_000, 10_001], code: 'UNAVAILABLE', effect: 'unknown' },
];

/** The body's code first, then its text, the HTTP status last: a cluster may be set to real statuses or to 200 for all. */
function clusterFailure(response: VendorResponse, now: Date): VendorFailure | undefined {
  const { status, json, headers } = response;
  const vendorCode = codeOf(json);
  const isSuccess = status >= 200 && status < 300;
  if (isSuccess && (vendorCode === undefined || success.safeParse(vendorCode).success)) return undefined;
  const byStatus = failureOfStatus(response, now);
  if (vendorCode === undefined) {
    // No word of the cluster: a gateway stands before it, and whether it passed the call on is its secret. Too many
    // requests and a redirect are its own answers.
    const isGateway = json === undefined && status >= 400 && status !== 429;
    return byStatus && isGateway ? { ...byStatus, effect: 'unknown' } : byStatus;
  }
  const said = messageOf(json) ?? '';
  const message = `code ${vendorCode}: ${said}`;
  const rule = rules.find(({ codes, text }) => codes.includes(vendorCode) && (text?.test(said) ?? true));
  const code = rule?.code ?? byStatus?.code ?? 'REJECTED';
  // With a status of its own the limit was met before the change: Milvus gives 500 where a change has begun.
  const effect = code === 'RATE_LIMITED' && status === 429 ? 'none' : (rule?.effect ?? 'unknown');
  return {
    code,
    effect,
    vendorCode,
    message,
    ...(code === 'RATE_LIMITED' ? { retryAfterMs: retryAfterMs(headers, now) } : {}),
  };
}

/** "The apikey is illegal", no permission for this cluster or key, token illegal, token invalid (docs page error-codes). */
const refusedKeys = [21_119, 96_014, 96_015, 96_016, 80_001, 80_002];

/** Some of its failures may come under status 200, as the official Terraform provider expects them. */
function controlPlaneFailure(response: VendorResponse, now: Date): VendorFailure | undefined {
  const byStatus = failureOfStatus(response, now);
  const vendorCode = codeOf(response.json);
  if (vendorCode === undefined) return byStatus;
  if (byStatus === undefined && success.safeParse(vendorCode).success) return undefined;
  const said = messageOf(response.json) ?? '';
  const named = { effect: 'none', vendorCode, message: `code ${vendorCode}: ${said}` } as const;
  if (refusedKeys.includes(vendorCode)) return { ...named, code: 'UNAUTHORIZED' };
  if (byStatus !== undefined) return { ...byStatus, ...named };
  if (/not found|not exist/i.test(said)) return { ...named, code: 'NOT_FOUND' };
  return { ...named, code: 'REJECTED' };
}

function codeOf(json: unknown): number | undefined {
  if (json === null || typeof json !== 'object' || !('code' in json)) return undefined;
  return typeof json.code === 'number' ? json.code : undefined;
}
