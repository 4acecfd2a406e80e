import { z } from 'zod';
import type { Ports } from '../../core/ports.ts';
import { Sensitive } from '../../core/sensitive.ts';
import type { VendorApi, VendorFailure, VendorResponse } from '../http.ts';
import { callRender, renderFailureOf } from '../render.ts';

/**
 * Render's words. Sources: Render's OpenAPI document (2026-08) and the docs page "Database Credentials for Render
 * Postgres". There is deliberately no method for anything on the database itself: DELETE one segment up drops it.
 */
/** `dpg-` and the instance's id; replicas share the stem and end in `-b` and so on. */
export const postgresIdPattern = /^dpg-[a-z0-9]{20}-[a-z]$/;

const secret = z.string().transform((text) => new Sensitive(text));

/** Every field is declared optional: what is missing is unknown, never zero and never false. */
export const listedUserSchema = z.object({
  username: z.string(),
  default: z.boolean().nullish(),
  createdAt: z.string().nullish(),
  openConnections: z.int().min(0).nullish(),
});
export type ListedUser = z.output<typeof listedUserSchema>;

/** There is no field for the user's name: it is inside the strings. */
export const connectionInfoSchema = z.object({ password: secret, externalConnectionString: secret });
export type ConnectionInfo = z.output<typeof connectionInfoSchema>;

/** Open strings: Render adds values without notice. */
export const databaseSchema = z.object({
  id: z.string(),
  status: z.string(),
  suspended: z.string(),
  role: z.string(),
});
export type Database = z.output<typeof databaseSchema>;

export const processesSchema = z.object({
  processes: z
    .array(
      z.object({
        username: z.string().nullish(),
        applicationName: z.string().nullish(),
        clientAddr: z.string().nullish(),
        backendStart: z.string().nullish(),
      }),
    )
    .nullable()
    .transform((processes) => processes ?? []),
});

/** Create and delete answer 202 and 200 without a declared body: any body, or none, is fine. */
const anything = z.unknown();

export interface RenderApi {
  database(): Promise<Database>;
  /** One array, never paged. Lists only users made by API or dashboard; may or may not hold the original one. */
  users(): Promise<readonly ListedUser[]>;
  /** Accepted (202) is not done: the user appears later, and becomes the default. */
  createUser(username: string): Promise<void>;
  deleteUser(username: string): Promise<void>;
  /** Shown in Render's audit log as ViewConnectionInfoEvent: read it as few times as possible. */
  connectionInfo(): Promise<ConnectionInfo>;
  processes(): Promise<z.output<typeof processesSchema>['processes']>;
}

export function renderApi(
  { postgresId, apiKey, until }: { postgresId: string; apiKey: Sensitive; until: Date },
  ports: Ports,
): RenderApi {
  const api: VendorApi = callRender({ provider: 'render-postgres', apiKey, failureOf, until }, ports);
  const here = ['postgres', postgresId];
  return {
    database: () => api.call({ operation: 'readiness', method: 'GET', path: here, answer: databaseSchema }),
    users: () =>
      api.call({
        operation: 'listUsers',
        method: 'GET',
        path: [...here, 'credentials'],
        answer: z.array(listedUserSchema),
      }),
    createUser: async (username) => {
      await api.call({
        operation: 'createUser',
        method: 'POST',
        path: [...here, 'credentials'],
        body: { username },
        answer: anything,
      });
    },
    deleteUser: async (username) => {
      await api.call({
        operation: 'deleteUser',
        method: 'DELETE',
        path: [...here, 'credentials', username],
        answer: anything,
      });
    },
    connectionInfo: () =>
      api.call({
        operation: 'readCredential',
        method: 'GET',
        path: [...here, 'connection-info'],
        answer: connectionInfoSchema,
      }),
    processes: async () =>
      (
        await api.call({
          operation: 'listSessions',
          method: 'GET',
          path: [...here, 'query', 'processes'],
          answer: processesSchema,
        })
      ).processes,
  };
}

function failureOf(response: VendorResponse, now: Date): VendorFailure | undefined {
  const failure = renderFailureOf(response, now);
  // The default user, or one that still owns something: which of the two statuses Render answers is not documented.
  if (response.method === 'DELETE' && (response.status === 400 || response.status === 409))
    return { code: 'BLOCKED', effect: 'none', message: failure?.message };
  return failure;
}
