import * as z from 'zod/mini';
import { ProviderError } from '../../core/errors.ts';
import type { Guard } from '../../core/guard.ts';
import type { Ports } from '../../core/ports.ts';
import { Sensitive } from '../../core/sensitive.ts';
import type { ApiAccess, VendorApi, VendorFailure, VendorResponse } from '../http.ts';
import { callRender, renderFailureOf } from '../render.ts';
import { wholeNumber } from '../wire.ts';

/**
 * Render's words. Sources: Render's OpenAPI document (2026-08) and the docs page "Database Credentials for Render
 * Postgres". There is deliberately no method for anything on the database itself: DELETE one segment up drops it.
 */
/** `dpg-` and the instance's id; replicas share the stem and end in `-b` and so on. */
export const postgresIdPattern = /^dpg-[a-z0-9]{20}-[a-z]$/;

const secret = z.pipe(
  z.string(),
  z.transform((text) => new Sensitive(text)),
);

/** Every field is declared optional: what is missing is unknown, never zero and never false. */
export const listedUserSchema = z.object({
  username: z.string(),
  default: z.nullish(z.boolean()),
  createdAt: z.nullish(z.string()),
  openConnections: z.nullish(wholeNumber()),
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
  processes: z.pipe(
    z.nullable(
      z.array(
        z.object({
          username: z.nullish(z.string()),
          applicationName: z.nullish(z.string()),
          clientAddr: z.nullish(z.string()),
          backendStart: z.nullish(z.string()),
        }),
      ),
    ),
    z.transform((processes) => processes ?? []),
  ),
});

/** Whose workspace the database is in. The owner's name and e-mail address are left behind. */
export const ownedSchema = z.object({
  owner: z.object({
    id: z.string().check(z.regex(/^[a-z]{3}-[0-9a-z]{1,64}$/, { error: 'expected an id' })),
  }),
});

const cursor = z.string().check(z.minLength(1));

/** Without the `secret`, which Render answers in clear or empty (recorded answers): it is nobody's business here. */
export const webhookItemSchema = z.object({
  cursor,
  webhook: z.object({
    id: z.string().check(z.regex(/^whk-[0-9a-z]{1,64}$/, { error: 'expected the id of a webhook' })),
    url: z.string(),
    enabled: z.boolean(),
  }),
});
export type Webhook = z.output<typeof webhookItemSchema>['webhook'];

/** `evt-` and 20 characters (OpenAPI document); what came in a request from outside may be anything. */
export const eventIdPattern = /^evt-[0-9a-z]{1,64}$/;

/**
 * Types come and go, and the API's own list lacks those of credentials: an open string, bounded, since it goes into logs and
 * on the bus. One that is no name is `unparsable`, as where a webhook with it is received.
 */
const eventType = z.catch(z.string().check(z.regex(/^[\w.:-]{1,128}$/)), 'unparsable');

/** One row an attempt. There is no status where no answer came; what was answered, and the error, are left behind. */
export const deliveryItemSchema = z.object({
  cursor,
  webhookEvent: z.object({
    eventId: z.string().check(z.regex(eventIdPattern, { error: 'expected the id of an event' })),
    eventType,
    /** Nine fractional digits were seen; a Date cuts them. */
    sentAt: z.pipe(
      z.iso.datetime({ offset: true }).check(z.maxLength(64)),
      z.transform((text) => new Date(text)),
    ),
    statusCode: z.catch(z.optional(z.int()), undefined),
  }),
});
export type Attempt = z.output<typeof deliveryItemSchema>['webhookEvent'];

/** Details have no schema for events about credentials: whatever they are, nothing of them is relied on. */
export const eventSchema = z.object({
  id: z.string(),
  type: eventType,
  timestamp: z.catch(z.optional(z.iso.datetime({ offset: true }).check(z.maxLength(64))), undefined),
  serviceId: z.catch(z.optional(z.string().check(z.regex(/^[a-z]+-[a-z0-9-]{1,60}$/))), undefined),
  details: z.catch(z.record(z.string(), z.unknown()), {}),
});
export type RenderEvent = z.output<typeof eventSchema>;

/** Create and delete answer 202 and 200 without a declared body: any body, or none, is fine. */
const anything = z.unknown();

export interface RenderApi {
  database(): Promise<Database>;
  /** One array, never paged. Lists only users made by API or dashboard; may or may not hold the original one. */
  users(): Promise<readonly ListedUser[]>;
  /** Accepted (202) is not done: the user appears later, and becomes the default. */
  createUser(username: string, guard: Guard): Promise<void>;
  deleteUser(username: string, guard: Guard): Promise<void>;
  /** Shown in Render's audit log as ViewConnectionInfoEvent: read it as few times as possible. */
  connectionInfo(): Promise<ConnectionInfo>;
  processes(): Promise<z.output<typeof processesSchema>['processes']>;
  /** The workspace that the database is in. */
  ownerId(): Promise<string>;
  /** All of a workspace, which only its admins may see. */
  webhooks(ownerId: string): Promise<readonly Webhook[]>;
  /** Every attempt of the webhook between the two instants, in any order. */
  attempts(
    webhookId: string,
    sent: { readonly after: Date; readonly before: Date },
  ): Promise<readonly Attempt[]>;
  event(id: string): Promise<RenderEvent>;
}

/** As many as Render gives (pagination page). */
const pageSize = 100;
/** Of an endless list; 20,000 attempts are ten a minute for the 34 hours that a webhook is tried. */
const mostPages = 200;

export function renderApi(
  { postgresId, ...access }: ApiAccess & { readonly postgresId: string },
  ports: Ports,
): RenderApi {
  const api: VendorApi = callRender({ provider: 'render-postgres', failureOf, ...access }, ports);
  const here = ['postgres', postgresId];
  async function everyPage<Item extends { readonly cursor: string }>(
    operation: string,
    path: readonly string[],
    query: Readonly<Record<string, string>>,
    item: z.ZodMiniType<Item>,
  ): Promise<readonly Item[]> {
    const items: Item[] = [];
    const cursors = new Set<string>();
    const endless = (message: string): ProviderError =>
      new ProviderError(`render-postgres: ${message}`, {
        code: 'UNREADABLE',
        effect: 'none',
        provider: 'render-postgres',
        operation,
      });
    for (let after: { cursor?: string } = {}; ; ) {
      const page = await api.call({
        operation,
        method: 'GET',
        path,
        query: { ...query, limit: String(pageSize), ...after },
        answer: z.array(item),
      });
      items.push(...page);
      const last = page.at(-1);
      // Nothing else marks the end (pagination page).
      if (last === undefined || page.length < pageSize) return items;
      if (cursors.has(last.cursor)) throw endless(`${operation} never ends (a cursor came twice)`);
      cursors.add(last.cursor);
      if (cursors.size >= mostPages) throw endless(`${operation} has more than ${mostPages} pages`);
      after = { cursor: last.cursor };
    }
  }
  return {
    database: () => api.call({ operation: 'readiness', method: 'GET', path: here, answer: databaseSchema }),
    users: () =>
      api.call({
        operation: 'listUsers',
        method: 'GET',
        path: [...here, 'credentials'],
        answer: z.array(listedUserSchema),
      }),
    createUser: async (username, guard) => {
      await api.call({
        operation: 'createUser',
        method: 'POST',
        path: [...here, 'credentials'],
        body: { username },
        answer: anything,
        guard,
        isDestructive: false,
      });
    },
    deleteUser: async (username, guard) => {
      await api.call({
        operation: 'deleteUser',
        method: 'DELETE',
        path: [...here, 'credentials', username],
        answer: anything,
        guard,
        isDestructive: true,
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
    ownerId: async () =>
      (await api.call({ operation: 'readOwner', method: 'GET', path: here, answer: ownedSchema })).owner.id,
    webhooks: async (ownerId) =>
      (await everyPage('listWebhooks', ['webhooks'], { ownerId }, webhookItemSchema)).map(
        ({ webhook }) => webhook,
      ),
    attempts: async (webhookId, { after, before }) => {
      // Both, always: which span Render takes where one is left out is not documented.
      const span = { sentAfter: after.toISOString(), sentBefore: before.toISOString() };
      const path = ['webhooks', webhookId, 'events'];
      return (await everyPage('listDeliveries', path, span, deliveryItemSchema)).map(
        ({ webhookEvent }) => webhookEvent,
      );
    },
    event: (id) =>
      api.call({ operation: 'readEvent', method: 'GET', path: ['events', id], answer: eventSchema }),
  };
}

function failureOf(response: VendorResponse, now: Date): VendorFailure | undefined {
  const failure = renderFailureOf(response, now);
  // The default user, or one that still owns something: which of the two statuses Render answers is not documented.
  if (response.method === 'DELETE' && (response.status === 400 || response.status === 409))
    return { code: 'BLOCKED', effect: 'none', message: failure?.message };
  return failure;
}
