import * as z from 'zod/mini';
import { type ProviderCode, ProviderError } from '../../core/errors.ts';
import type { Guard } from '../../core/guard.ts';
import type { Ports } from '../../core/ports.ts';
import type { Sensitive } from '../../core/sensitive.ts';
import {
  type ApiAccess,
  failureOfStatus,
  retryAfterMs,
  type VendorFailure,
  type VendorResponse,
  vendorApi,
} from '../http.ts';
import { optionalObject } from '../wire.ts';

/**
 * CockroachDB Cloud's words. Source: the OpenAPI document in cockroach-cloud-sdk-go (2026-04). All successes are 200.
 * There is deliberately no method for anything on the cluster itself: DELETE one segment up deletes it.
 */
export const host = 'https://cockroachlabs.cloud';
export const baseUrl = `${host}/api/v1`;
/** The version that every current official client sends; leaving it out means the latest. */
export const apiVersion = '2024-09-16';

/** `next_page` ends as absent, null or empty, or `pagination` is absent. */
export const sqlUsersSchema = z.object({
  users: z.array(z.object({ name: z.string() })),
  pagination: optionalObject(z.object({ next_page: z.nullish(z.string()) })),
});

export const sqlUserSchema = z.object({ name: z.string() });

/** Open strings: new plans and states appear without notice. */
export const clusterSchema = z.object({ id: z.string(), state: z.string(), plan: z.string() });
export type Cluster = z.output<typeof clusterSchema>;

/**
 * A DNS name and nothing else: users and the administrator send their passwords there. No IP address (the last label begins with a
 * letter), port, user info or path. Not bound to `.cockroachlabs.cloud`: the local emulators listen on `localhost`, and the
 * PostgreSQL driver resolves the name by itself, past the proxy that gives the vendors' API hosts their local addresses.
 */
const hostPattern =
  /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/i;

/** Capitalised keys, the port as text, and no password. */
export const connectionStringSchema = z.object({
  params: z.object({
    Host: z.string().check(z.regex(hostPattern, { error: 'expected a DNS name' })),
    Port: z.string().check(z.regex(/^\d{1,5}$/, { error: 'expected digits' })),
    Database: z.string().check(z.minLength(1)),
  }),
});

export interface CockroachDbApi {
  cluster(): Promise<Cluster>;
  /** Where to connect; never built from the cluster's name. */
  connection(database: string): Promise<{ host: string; port: number; database: string }>;
  /** The CA of an Advanced cluster; the other plans have public certificates. */
  certificateAuthority(): Promise<string>;
  /** The names on all pages. */
  users(): Promise<readonly string[]>;
  /** Answers the name as the cluster knows it. */
  createUser(name: string, password: Sensitive, guard: Guard): Promise<string>;
  deleteUser(name: string, guard: Guard): Promise<void>;
  setPassword(name: string, password: Sensitive, guard: Guard): Promise<void>;
}

/** User changes wait for leases: more than 60 s have been seen (cockroach#80288), where the control plane gives up. */
const slowMs = 75_000;
const pageSize = '500';
const mostPages = 1_000;

export function cockroachDbApi(
  { clusterId, ...access }: ApiAccess & { readonly clusterId: string },
  ports: Ports,
): CockroachDbApi {
  const provider = 'cockroachdb-cloud';
  const headers = { 'cc-version': apiVersion };
  const api = vendorApi(
    { provider, baseUrl, headers, requestIdHeader: 'x-request-id', failureOf, ...access },
    ports,
  );
  const site = vendorApi({ provider, baseUrl: host, failureOf, ...access }, ports);
  const here = ['clusters', clusterId];
  const users = [...here, 'sql-users'];
  return {
    cluster: () => api.call({ operation: 'readiness', method: 'GET', path: here, answer: clusterSchema }),
    connection: async (database) => {
      const { params } = await api.call({
        operation: 'endpoint',
        method: 'GET',
        path: [...here, 'connection-string'],
        // `os` is required on dedicated clusters and only shapes the text that we do not read.
        query: { database, os: 'LINUX' },
        answer: connectionStringSchema,
      });
      return { host: params.Host, port: Number(params.Port), database: params.Database };
    },
    certificateAuthority: () =>
      site.call({
        operation: 'endpoint',
        method: 'GET',
        path: [...here, 'cert'],
        answer: z
          .string()
          .check(z.startsWith('-----BEGIN CERTIFICATE-----', { error: 'expected a certificate in PEM' })),
        as: 'text',
      }),
    users: async () => {
      const names: string[] = [];
      const tokens = new Set<string>();
      let page = '';
      for (;;) {
        const answer = await api.call({
          operation: 'listUsers',
          method: 'GET',
          path: users,
          query: { 'pagination.page': page, 'pagination.limit': pageSize },
          answer: sqlUsersSchema,
        });
        names.push(...answer.users.map((user) => user.name));
        page = answer.pagination?.next_page ?? '';
        if (page === '') return names;
        if (tokens.has(page) || tokens.size >= mostPages)
          throw new ProviderError(`${provider}: the user list never ends (a page token came twice)`, {
            code: 'UNREADABLE',
            effect: 'none',
            provider,
            operation: 'listUsers',
          });
        tokens.add(page);
      }
    },
    createUser: async (name, password, guard) =>
      (
        await api.call({
          operation: 'createUser',
          method: 'POST',
          path: users,
          body: { name, password },
          answer: sqlUserSchema,
          timeoutMs: slowMs,
          guard,
          isDestructive: false,
        })
      ).name,
    deleteUser: async (name, guard) => {
      await api.call({
        operation: 'deleteUser',
        method: 'DELETE',
        path: [...users, name],
        answer: z.unknown(),
        timeoutMs: slowMs,
        guard,
        isDestructive: true,
      });
    },
    setPassword: async (name, password, guard) => {
      await api.call({
        operation: 'setPassword',
        method: 'PUT',
        path: [...users, name, 'password'],
        body: { password },
        // A gateway's page under status 200 is no password change.
        answer: sqlUserSchema,
        timeoutMs: slowMs,
        guard,
        isDestructive: true,
      });
    },
  };
}

/** gRPC codes, as grpc-gateway maps them. The body's code is decided on first, the HTTP status second, the text last. */
const codes: Readonly<Record<number, ProviderCode>> = {
  1: 'UNAVAILABLE',
  2: 'UNAVAILABLE',
  3: 'REJECTED',
  4: 'UNAVAILABLE',
  5: 'NOT_FOUND',
  6: 'CONFLICT',
  7: 'UNAUTHORIZED',
  8: 'RATE_LIMITED',
  9: 'TARGET_NOT_READY',
  // ABORTED has the HTTP status of ALREADY_EXISTS: something else is being changed, and the list tells what came of ours.
  10: 'UNAVAILABLE',
  11: 'REJECTED',
  12: 'REJECTED',
  13: 'UNAVAILABLE',
  14: 'UNAVAILABLE',
  15: 'UNAVAILABLE',
  16: 'UNAUTHORIZED',
};

/** SQLSTATE 2BP01 in its wordings (cockroach `drop_role.go`): grants, owned objects, schedules still hang on the user. */
const dependencies = /2BP01|cannot be dropped|cannot drop role|grants still exist/i;

export function failureOf(response: VendorResponse, now: Date): VendorFailure | undefined {
  const byStatus = failureOfStatus(response, now);
  if (byStatus === undefined) return undefined;
  const { message } = byStatus;
  const wait = retryAfterMs(response.headers, now);
  const none = { effect: 'none', message } as const;
  // Which status carries a rate limit is left out of the docs on purpose (cockroachdb/docs PR 20356).
  const code = codes[codeOf(response.json) ?? -1] ?? codeOfStatus(response.status) ?? byStatus.code;
  if (code === 'RATE_LIMITED' || /rate limit exceeded/i.test(message ?? ''))
    return { ...none, code: 'RATE_LIMITED', retryAfterMs: wait };
  // What a second POST answers is in no document.
  if (code === 'CONFLICT' || /already exists/i.test(message ?? '')) return { ...none, code: 'CONFLICT' };
  if (response.method === 'DELETE' && dependencies.test(message ?? '')) return { ...none, code: 'BLOCKED' };
  if (wait !== undefined) return { ...byStatus, code: 'RATE_LIMITED', retryAfterMs: wait };
  if (code !== 'UNAVAILABLE') return { message, code, effect: byStatus.effect };
  return { message, code, effect: response.method === 'GET' ? 'none' : 'unknown' };
}

/** Two statuses that say less without the body's code: 409 is ABORTED as well, and old gateways send 412 for FAILED_PRECONDITION. */
const codeOfStatus = (status: number): ProviderCode | undefined =>
  status === 409 ? 'UNAVAILABLE' : status === 412 ? 'TARGET_NOT_READY' : undefined;

function codeOf(json: unknown): number | undefined {
  if (json === null || typeof json !== 'object' || !('code' in json)) return undefined;
  return typeof json.code === 'number' ? json.code : undefined;
}
