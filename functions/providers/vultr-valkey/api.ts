import * as z from 'zod/mini';
import { ProviderError } from '../../core/errors.ts';
import type { Guard } from '../../core/guard.ts';
import type { Ports } from '../../core/ports.ts';
import { Sensitive } from '../../core/sensitive.ts';
import {
  type ApiAccess,
  type Change,
  failureOfStatus,
  retryAfterMs,
  type VendorFailure,
  type VendorResponse,
  vendorApi,
} from '../http.ts';
import { optionalObject, wholeNumber } from '../wire.ts';

/**
 * Vultr's words for Managed Databases. Sources: the OpenAPI document of 2023-12 for paths and methods, govultr 3.32 for
 * the names of fields. Lists and single users answer 200, writes 202 ("accepted"), a deletion 204: any 2xx is taken.
 * There is deliberately no method for anything on the database itself: DELETE one segment up deletes it.
 */
export const baseUrl = 'https://api.vultr.com/v2';

/** Vultr tells passwords in clear, the default user's included: wrapped before anything else sees them, or dropped. */
const password = z.pipe(
  z.string(),
  z.transform((text) => new Sensitive(text)),
);

/** Empty lists come as `[]` or null. */
const list = z.nullish(z.array(z.string()));

/** govultr 3.12 (2024-11) renamed `redis_acl_*` to `acl_*`. A list that is not told is not an empty one. */
export const accessControlSchema = optionalObject(
  z.pipe(
    z.object({
      acl_categories: list,
      acl_channels: list,
      acl_commands: list,
      acl_keys: list,
      redis_acl_categories: list,
      redis_acl_channels: list,
      redis_acl_commands: list,
      redis_acl_keys: list,
    }),
    z.transform((wire): AccessControl | undefined => {
      const told = (now: 'acl_categories' | 'acl_channels' | 'acl_commands' | 'acl_keys') => {
        const value = wire[now] === undefined ? wire[`redis_${now}`] : wire[now];
        return value === null ? [] : value;
      };
      const categories = told('acl_categories');
      const commands = told('acl_commands');
      const keys = told('acl_keys');
      const channels = told('acl_channels');
      return categories && commands && keys && channels && { categories, commands, keys, channels };
    }),
  ),
);

export interface AccessControl {
  /** With `+@` or `-@`. */
  readonly categories: readonly string[];
  /** With `+` or `-`. */
  readonly commands: readonly string[];
  /** Glob patterns, without `~`. */
  readonly keys: readonly string[];
  /** Glob patterns, without `&`. */
  readonly channels: readonly string[];
}

export const userSchema = z.object({
  username: z.string(),
  password: z.nullish(password),
  // Read for one user at a time, where it is needed: somebody else's must not make the whole list unreadable.
  access_control: z.optional(z.unknown()),
});
export type VultrUser = z.output<typeof userSchema>;

export const userAnswerSchema = z.object({ user: userSchema });

/** `links` stands in Vultr's other lists; this one is said to have no pages. */
export const usersAnswerSchema = z.object({
  users: z.array(userSchema),
  meta: optionalObject(
    z.object({
      total: z.nullish(wholeNumber()),
      links: optionalObject(z.object({ next: z.nullish(z.string()) })),
    }),
  ),
});

export const databaseSchema = z.object({
  status: z.string(),
  database_engine: z.string(),
  /** Private where a VPC is attached; then `public_host` appears. */
  host: z.string(),
  public_host: z.nullish(z.string()),
  /** Text in the schema, a number in the document's own examples. */
  port: wholeNumber(),
  /** Absent, null, `[]` and `{}` are the same: Vultr has answered `[]` where an object was empty, and the other way round (govultr#231). */
  read_replicas: z.pipe(
    z.nullish(
      z.union([
        z.array(z.unknown()),
        z.pipe(
          z.strictObject({}),
          z.transform(() => []),
        ),
      ]),
    ),
    z.transform((replicas) => replicas ?? []),
  ),
  /** The default user. */
  user: z.nullish(z.string()),
  ca_certificate: z.nullish(
    z.union([
      z.literal(''),
      z
        .string()
        .check(z.startsWith('-----BEGIN CERTIFICATE-----', { error: 'expected a certificate in PEM' })),
    ]),
  ),
});
export type VultrDatabase = z.output<typeof databaseSchema>;

export const databaseAnswerSchema = z.object({ database: databaseSchema });

export interface VultrApi {
  database(): Promise<VultrDatabase>;
  /** Everybody, also where the list has pages. Throws rather than answering fewer than `meta.total`. */
  users(): Promise<readonly VultrUser[]>;
  user(username: string): Promise<VultrUser>;
  createUser(username: string, password: Sensitive, guard: Guard): Promise<VultrUser>;
  setPassword(username: string, password: Sensitive, guard: Guard): Promise<VultrUser>;
  setAccessControl(username: string, rights: AccessControl, change: Change): Promise<VultrUser>;
  deleteUser(username: string, guard: Guard): Promise<void>;
}

const mostPages = 1_000;

export function vultrApi(
  { databaseId, ...access }: ApiAccess & { readonly databaseId: string },
  ports: Ports,
): VultrApi {
  const provider = 'vultr-valkey';
  const api = vendorApi({ provider, baseUrl, failureOf, ...access }, ports);
  const here = ['databases', databaseId];
  const users = [...here, 'users'];
  const incomplete = (message: string): ProviderError =>
    new ProviderError(`${provider}: ${message}`, {
      code: 'UNREADABLE',
      effect: 'none',
      provider,
      operation: 'listUsers',
    });
  return {
    database: async () =>
      (
        await api.call({
          operation: 'readDatabase',
          method: 'GET',
          path: here,
          answer: databaseAnswerSchema,
        })
      ).database,
    users: async () => {
      const found: VultrUser[] = [];
      const cursors = new Set<string>();
      let total = 0;
      for (let cursor = ''; ; ) {
        const { users: page, meta } = await api.call({
          operation: 'listUsers',
          method: 'GET',
          path: users,
          ...(cursor === '' ? {} : { query: { cursor } }),
          answer: usersAnswerSchema,
        });
        found.push(...page);
        total = Math.max(total, meta?.total ?? 0);
        cursor = meta?.links?.next ?? '';
        if (cursor === '') break;
        if (cursors.has(cursor) || cursors.size >= mostPages)
          throw incomplete('the user list never ends (a cursor came twice)');
        cursors.add(cursor);
      }
      if (total > found.length)
        throw incomplete(`the user list is incomplete: got ${found.length} of ${total} users; try again`);
      return found;
    },
    user: async (username) =>
      (
        await api.call({
          operation: 'readUser',
          method: 'GET',
          path: [...users, username],
          answer: userAnswerSchema,
        })
      ).user,
    createUser: async (username, password, guard) =>
      (
        await api.call({
          operation: 'createUser',
          method: 'POST',
          path: users,
          body: { username, password },
          answer: userAnswerSchema,
          guard,
          isDestructive: false,
        })
      ).user,
    setPassword: async (username, password, guard) =>
      (
        await api.call({
          operation: 'setPassword',
          method: 'PUT',
          path: [...users, username],
          body: { password },
          answer: userAnswerSchema,
          guard,
          isDestructive: true,
        })
      ).user,
    // All four, always: whether a list that is left out stays or is reset is unknown.
    setAccessControl: async (username, { categories, channels, commands, keys }, change) =>
      (
        await api.call({
          operation: 'applyPrivileges',
          method: 'PUT',
          path: [...users, username, 'access-control'],
          body: {
            acl_categories: categories,
            acl_channels: channels,
            acl_commands: commands,
            acl_keys: keys,
          },
          answer: userAnswerSchema,
          ...change,
        })
      ).user,
    deleteUser: async (username, guard) => {
      await api.call({
        operation: 'deleteUser',
        method: 'DELETE',
        path: [...users, username],
        answer: z.unknown(),
        guard,
        isDestructive: true,
      });
    },
  };
}

/** What Vultr's Terraform provider looks for. The statuses are unknown: the document knows 400, 404 and 422. */
const missingUser = /not a valid database user/i;
const missingDatabase = /not a valid database subscription uuid|invalid database id/i;

function failureOf(response: VendorResponse, now: Date): VendorFailure | undefined {
  const byStatus = failureOfStatus(response, now);
  if (byStatus === undefined) return undefined;
  const { method, status, headers } = response;
  const message = wordsOf(response.json) ?? byStatus.message;
  const wait = retryAfterMs(headers, now);
  // A missing database is not a missing user: only a list that was answered tells them apart.
  if (
    byStatus.code === 'REJECTED' &&
    (missingUser.test(message ?? '') || missingDatabase.test(message ?? ''))
  )
    return { code: 'NOT_FOUND', effect: 'none', message };
  if (byStatus.code === 'UNAUTHORIZED')
    return {
      ...byStatus,
      message: `${message ?? 'no reason given'}; the key or the address it came from is refused`,
    };
  // A create that was refused like this has left its result behind before (terraform-provider-vultr#44).
  if (byStatus.code === 'RATE_LIMITED')
    return { ...byStatus, message, effect: method === 'POST' ? 'unknown' : 'none' };
  // The older API said so when it was asked too often.
  if (status === 503) return { ...byStatus, message, retryAfterMs: wait };
  return { ...byStatus, message };
}

function wordsOf(json: unknown): string | undefined {
  if (json === null || typeof json !== 'object' || !('error' in json)) return undefined;
  return typeof json.error === 'string' && json.error !== '' ? json.error : undefined;
}
