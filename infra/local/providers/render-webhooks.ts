import { createHmac, randomBytes } from 'node:crypto';
import { request as requestOverHttp } from 'node:http';
import { request as requestOverHttps } from 'node:https';
import * as z from 'zod';
import type {
  deliveryItemSchema,
  webhookItemSchema,
} from '../../../functions/providers/render-postgres/api.ts';
import { type Clock, pause } from '../clock.ts';
import type { Answer } from './faults.ts';
import { type Handling, Refused, type VendorRequest } from './vendor-http.ts';

export type RenderWebhookOperation =
  | 'createWebhook'
  | 'listWebhooks'
  | 'getWebhook'
  | 'changeWebhook'
  | 'deleteWebhook'
  | 'listDeliveries'
  | 'getEvent';

/** What Render's documents leave open about webhooks, and what goes wrong with them. */
export interface RenderWebhookSwitches {
  /** Which actions send one. */
  fires: 'always' | 'for-api' | 'for-dashboard' | 'never';
  /** Whether taking its login from the original user counts as a deletion. */
  firesOnDeactivation: boolean;
  /** As Render's webhook page spells the types, or as its credentials page does. */
  spelling: 'wire' | 'display';
  serviceName: 'present' | 'missing';
  dataId: 'that-of-the-event' | 'another';
  fractionDigits: 0 | 3 | 6 | 9;
  /** From the action to the first attempt. */
  delayMs: number;
  /** Between the attempts: one more than there are delays. */
  retryDelaysMs: readonly number[];
  /** How often each event is sent, at the same time. */
  copies: number;
  /** An event waits for the next one, and is sent after it. */
  order: 'as-it-happened' | 'swapped';
  signs: 'properly' | 'with-another-secret' | 'not-at-all';
  /** Whether 410 ends everything at once. */
  gone: 'counts-as-failure' | 'disables';
  /** In answers of the management API. */
  secretShown: 'empty' | 'whole' | 'without-prefix';
  /** What is made of the names of the credential events in `eventFilter`, which the API's own list lacks. */
  credentialFilter: 'accepted' | 'refused';
  /** Whether the API's key may see and change webhooks, which only admins may. */
  keyIsAdmin: boolean;
  /** Per workspace. */
  urlLimit: number;
  /** Of the attempts, when they are asked for. */
  attemptOrder: 'newest-first' | 'oldest-first';
  /** What an event says of itself when asked for. */
  details: 'empty' | 'username' | 'user' | 404 | 406 | 410 | 429 | 500;
}

/** The first at once, and the eighth about 33 hours after it, each gap four times the one before. */
const retryDelaysMs = [22, 88, 352, 1_408, 5_632, 22_528, 90_112].map((seconds) => seconds * 1000);
/** What a receiver has for its answer (Render's webhook page). In real time, as it is spent on a socket. */
const answerWithinMs = 15_000;

export const webhookSwitches = (): RenderWebhookSwitches => ({
  fires: 'always',
  firesOnDeactivation: true,
  spelling: 'wire',
  serviceName: 'present',
  dataId: 'that-of-the-event',
  fractionDigits: 9,
  delayMs: 0,
  retryDelaysMs,
  copies: 1,
  order: 'as-it-happened',
  signs: 'properly',
  gone: 'counts-as-failure',
  secretShown: 'whole',
  credentialFilter: 'accepted',
  keyIsAdmin: true,
  urlLimit: 1,
  attemptOrder: 'newest-first',
  details: 'empty',
});

/** A webhook as its owner's dashboard shows it. */
export interface RenderWebhook {
  readonly id: string;
  readonly url: string;
  /** `whsec_` and base64. */
  readonly secret: string;
  readonly isEnabled: boolean;
}

/** One attempt to deliver an event to one webhook. */
export interface WebhookAttempt {
  readonly id: string;
  readonly webhookId: string;
  readonly eventId: string;
  readonly eventType: string;
  readonly sentAt: Date;
  /** Absent when no answer came. */
  readonly statusCode?: number;
  readonly responseBody?: string;
  readonly error?: string;
}

/** What Render tells the people of a workspace: after the third failure of an event, and when a webhook is disabled. */
export interface WebhookMail {
  readonly webhookId: string;
  readonly about: 'failing' | 'disabled';
  readonly at: Date;
}

/** Something that happened to a service or database. */
export interface RenderEvent {
  readonly id: string;
  readonly type: string;
  readonly happenedAt: Date;
  readonly serviceId: string;
  readonly serviceName: string;
  /** Known here, and no part of what is sent. */
  readonly username: string | undefined;
}

/** What is sent instead of what would be: a body as it is, and headers made from the right ones. */
export interface Alteration {
  readonly body?: Uint8Array | string;
  /** As pairs: a name may come twice. */
  readonly headers?: (
    right: readonly (readonly [string, string])[],
  ) => readonly (readonly [string, string])[];
}

/** Render's side of webhooks. */
export interface RenderWebhooks {
  readonly switches: RenderWebhookSwitches;
  /** As from the dashboard, for every type of event. The secret is made here; a second one signs as well while both are there. */
  add(options: {
    readonly url: string;
    readonly secret?: string;
    /** @default the workspace of all databases here */
    readonly ownerId?: string;
  }): RenderWebhook;
  /** The webhooks that there are. */
  list(): readonly RenderWebhook[];
  remove(id: string): void;
  /** As on the settings page. What happened while it was disabled is not sent afterwards. */
  enable(id: string): void;
  /** From now on signs with this one, too: Standard Webhooks lets a sender do so while its secret is replaced. */
  addSecret(id: string, secret: string): void;
  /** Sends any event to every enabled webhook, and answers it. */
  send(event: Partial<Omit<RenderEvent, 'happenedAt'>>, alteration?: Alteration): RenderEvent;
  /** Everything that happened, whether it was sent or not, oldest first. */
  readonly events: readonly RenderEvent[];
  /** Every attempt, oldest first. */
  readonly attempts: readonly WebhookAttempt[];
  readonly mails: readonly WebhookMail[];
  /** Whether an attempt waits for its answer. */
  isBusy(): boolean;
  /** Resolves as soon as one attempt that is under way now has ended; at once when there is none. */
  oneEnded(): Promise<void>;
  /** Sends what waits for the next event. */
  release(): void;
  /** Afterwards nothing is sent any more, and no socket and no timer is left. */
  stop(): Promise<void>;
}

interface StoredWebhook {
  readonly id: string;
  readonly ownerId: string;
  name: string;
  url: string;
  readonly secrets: string[];
  isEnabled: boolean;
  /** Empty or null: all types. */
  eventFilter: readonly string[] | null;
}

const displaySpelling: Readonly<Record<string, string>> = {
  postgres_credentials_created: 'PostgresCredentialsCreated',
  postgres_credentials_deleted: 'PostgresCredentialsDeleted',
};

/** The workspace that every database here is in. */
export const localOwnerId = 'tea-local0000000000000';

// The client's own schemas, so that client and stand-in cannot disagree about a name.
type WebhookItem = Omit<z.input<typeof webhookItemSchema>, 'cursor'>;
type DeliveryItem = Omit<z.input<typeof deliveryItemSchema>, 'cursor'>;

const refused = (status: number, message: string): Refused => new Refused({ status, json: { message } });

const createSchema = z.object({
  ownerId: z.string(),
  url: z.url({ protocol: /^https?$/ }),
  name: z.string(),
  enabled: z.boolean(),
  eventFilter: z.array(z.string()).nullable(),
});
const changeSchema = createSchema.omit({ ownerId: true }).partial();

/** Standard Webhooks: what is signed is `id.timestamp.body`, with the bytes behind the secret's base64 (its specification). */
export function signatureOf(secret: string, id: string, timestamp: string, body: Uint8Array): string {
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64')}`;
}

const newSecret = (): string => `whsec_${randomBytes(32).toString('base64')}`;

export function createRenderWebhooks({
  clock,
  switches,
  freshId,
}: {
  readonly clock: Clock;
  readonly switches: () => RenderWebhookSwitches;
  freshId(): string;
}) {
  const stored = new Map<string, StoredWebhook>();
  const events: RenderEvent[] = [];
  const attempts: WebhookAttempt[] = [];
  const mails: WebhookMail[] = [];
  const sending = new Set<Promise<void>>();
  const delivering = new Set<Promise<void>>();
  const stopping = new AbortController();
  let held: (() => void)[] = [];

  const instant = (date: Date): string => {
    const { fractionDigits } = switches();
    const [seconds = '', fraction = ''] = date.toISOString().slice(0, -1).split('.');
    return fractionDigits === 0
      ? `${seconds}Z`
      : `${seconds}.${`${fraction}294509`.slice(0, fractionDigits)}Z`;
  };

  function bodyOf({ id, type, happenedAt, serviceId, serviceName }: RenderEvent): Buffer {
    const { spelling, dataId } = switches();
    return Buffer.from(
      JSON.stringify({
        type: (spelling === 'display' ? displaySpelling[type] : undefined) ?? type,
        timestamp: instant(happenedAt),
        data: {
          id: dataId === 'another' ? `evt-${freshId()}` : id,
          serviceId,
          ...(switches().serviceName === 'present' ? { serviceName } : {}),
        },
      }),
    );
  }

  /** One attempt. Whether it succeeded, or 410 was answered. */
  async function attempt(
    webhook: StoredWebhook,
    event: RenderEvent,
    body: Buffer,
    headersFrom: Alteration['headers'],
  ): Promise<'delivered' | 'failed' | 'gone'> {
    // The id stays, the time is that of the attempt (Render's webhook page).
    const sentAt = clock.now();
    const timestamp = String(Math.floor(sentAt.getTime() / 1000));
    const { signs } = switches();
    const secrets = signs === 'properly' ? webhook.secrets : [newSecret()];
    const right: readonly (readonly [string, string])[] = [
      ['webhook-id', event.id],
      ['webhook-timestamp', timestamp],
      ...(signs === 'not-at-all'
        ? []
        : [
            [
              'webhook-signature',
              secrets.map((secret) => signatureOf(secret, event.id, timestamp, body)).join(' '),
            ] as const,
          ]),
    ];
    const outcome = await post(webhook.url, headersFrom?.(right) ?? right, body, stopping.signal);
    attempts.push({
      id: `whe-${freshId()}`,
      webhookId: webhook.id,
      eventId: event.id,
      eventType: event.type,
      sentAt,
      ...outcome,
    });
    const { statusCode = 0 } = outcome;
    return statusCode >= 200 && statusCode < 300 ? 'delivered' : statusCode === 410 ? 'gone' : 'failed';
  }

  /** Attempts until one succeeds; the last failure disables the webhook. */
  async function deliver(webhook: StoredWebhook, event: RenderEvent, alteration: Alteration): Promise<void> {
    const body = alteration.body === undefined ? bodyOf(event) : Buffer.from(alteration.body);
    await pause(clock, switches().delayMs, stopping.signal);
    for (let failures = 0; ; ) {
      if (stopping.signal.aborted || !webhook.isEnabled || stored.get(webhook.id) !== webhook) return;
      const { promise: ended, resolve } = Promise.withResolvers<void>();
      sending.add(ended);
      const outcome = await attempt(webhook, event, body, alteration.headers).finally(() => {
        sending.delete(ended);
        resolve();
      });
      if (outcome === 'delivered') return;
      failures += 1;
      if (failures === 3) mails.push({ webhookId: webhook.id, about: 'failing', at: clock.now() });
      const delayMs = switches().retryDelaysMs[failures - 1];
      if (delayMs === undefined || (outcome === 'gone' && switches().gone === 'disables')) {
        webhook.isEnabled = false;
        mails.push({ webhookId: webhook.id, about: 'disabled', at: clock.now() });
        return;
      }
      await pause(clock, delayMs, stopping.signal);
    }
  }

  function release(): void {
    const late = held;
    held = [];
    for (const dispatch of late) dispatch();
  }

  function send(event: RenderEvent, alteration: Alteration = {}): void {
    events.push(event);
    const dispatch = (): void => {
      for (const webhook of stored.values()) {
        const { eventFilter, isEnabled } = webhook;
        const isWanted = eventFilter === null || eventFilter.length === 0 || eventFilter.includes(event.type);
        if (!isEnabled || !isWanted || stopping.signal.aborted) continue;
        for (let copy = 0; copy < switches().copies; copy += 1) {
          const work: Promise<void> = deliver(webhook, event, alteration).finally(() =>
            delivering.delete(work),
          );
          delivering.add(work);
        }
      }
    };
    if (switches().order === 'swapped' && held.length === 0) held.push(dispatch);
    else {
      dispatch();
      release();
    }
  }

  /** A user of a database was made or deleted, by whomever. */
  function happened(
    type: 'postgres_credentials_created' | 'postgres_credentials_deleted',
    about: { readonly serviceId: string; readonly serviceName: string; readonly username: string },
    by: 'api' | 'dashboard',
  ): void {
    const { fires } = switches();
    const event = { id: `evt-${freshId()}`, type, happenedAt: clock.now(), ...about };
    if (fires === 'always' || fires === `for-${by}`) send(event);
    else events.push(event);
  }

  const secretIn = (webhook: StoredWebhook): string => {
    const { secretShown } = switches();
    const [secret = ''] = webhook.secrets;
    if (secretShown === 'empty') return '';
    return secretShown === 'without-prefix' ? secret.replace(/^whsec_/, '') : secret;
  };
  const shown = (webhook: StoredWebhook): WebhookItem['webhook'] & Record<string, unknown> => ({
    id: webhook.id,
    url: webhook.url,
    name: webhook.name,
    secret: secretIn(webhook),
    enabled: webhook.isEnabled,
    eventFilter: webhook.eventFilter,
  });
  const webhookOf = (id: string): StoredWebhook => {
    const found = stored.get(id);
    if (found === undefined) throw refused(404, `not found: ${id}`);
    return found;
  };
  const mayFilter = (eventFilter: readonly string[] | null | undefined): void => {
    const isUnknown = eventFilter?.some((type) => type in displaySpelling);
    if (isUnknown && switches().credentialFilter === 'refused')
      throw refused(400, 'invalid event type in eventFilter');
  };
  const add = (url: string, secret = newSecret(), ownerId = localOwnerId): StoredWebhook => {
    const webhook: StoredWebhook = {
      id: `whk-${freshId()}`,
      ownerId,
      name: 'rekey',
      url,
      secrets: [secret],
      isEnabled: true,
      eventFilter: [],
    };
    stored.set(webhook.id, webhook);
    return webhook;
  };

  /** A page of a list, each item with its cursor. */
  const paged = <T extends { readonly id: string }>(
    all: readonly T[],
    query: URLSearchParams,
    item: (one: T) => object,
  ): Answer => {
    const limit = Math.min(100, Math.max(1, Number(query.get('limit') ?? 20)));
    const from = all.findIndex(({ id }) => `cursor-${id}` === query.get('cursor')) + 1;
    return {
      status: 200,
      json: all.slice(from, from + limit).map((one) => ({ ...item(one), cursor: `cursor-${one.id}` })),
    };
  };

  function listDeliveries(id: string, query: URLSearchParams): Answer {
    webhookOf(id);
    const bound = (name: string, otherwise: number): number => {
      const text = query.get(name);
      const at = text === null ? otherwise : Date.parse(text);
      if (Number.isNaN(at)) throw refused(400, `invalid ${name}`);
      return at;
    };
    const [after, before] = [
      bound('sentAfter', Number.NEGATIVE_INFINITY),
      bound('sentBefore', Number.POSITIVE_INFINITY),
    ];
    const rows = attempts.filter(
      ({ webhookId, sentAt }) => webhookId === id && sentAt.getTime() >= after && sentAt.getTime() <= before,
    );
    const ordered = switches().attemptOrder === 'newest-first' ? rows.toReversed() : rows;
    return paged(
      ordered,
      query,
      ({ webhookId: _, sentAt, ...row }): DeliveryItem => ({
        webhookEvent: { ...row, sentAt: instant(sentAt) },
      }),
    );
  }

  function getEvent(id: string): Answer {
    const { details } = switches();
    const event = events.find((each) => each.id === id);
    if (event === undefined) throw refused(404, `not found: ${id}`);
    if (typeof details === 'number') throw refused(details, 'no event for you');
    const { type, happenedAt, serviceId, username } = event;
    return {
      status: 200,
      json: {
        id,
        type,
        timestamp: instant(happenedAt),
        serviceId,
        details:
          details === 'username'
            ? { username }
            : details === 'user'
              ? { user: { id: 'usr-local', email: 'somebody@example.com' } }
              : {},
      },
    };
  }

  /** Undefined where the request is about no webhook. */
  function route(request: VendorRequest): Handling<RenderWebhookOperation> | undefined {
    const { method, segments, query, json } = request;
    const [version, kind, id, part, ...rest] = segments;
    if (version !== 'v1' || rest.length > 0) return undefined;
    if (kind === 'events' && id !== undefined && part === undefined && method === 'GET')
      return { operation: 'getEvent', act: async () => getEvent(id) };
    if (kind !== 'webhooks') return undefined;
    const asAdmin =
      (act: () => Answer): (() => Promise<Answer>) =>
      async () => {
        if (!switches().keyIsAdmin) throw refused(403, 'only admins of the workspace may do that');
        return act();
      };
    if (id === undefined && method === 'GET')
      return {
        operation: 'listWebhooks',
        act: asAdmin(() => {
          // Several may be asked for, with commas between; without it, all that the key may see.
          const ownerIds = query.get('ownerId')?.split(',');
          const all = [...stored.values()].filter(({ ownerId }) => ownerIds?.includes(ownerId) ?? true);
          return paged(all, query, (webhook): WebhookItem => ({ webhook: shown(webhook) }));
        }),
      };
    if (id === undefined && method === 'POST')
      return {
        operation: 'createWebhook',
        act: asAdmin(() => {
          const { data } = createSchema.safeParse(json);
          if (data === undefined) throw refused(400, 'invalid JSON');
          mayFilter(data.eventFilter);
          if (stored.size >= switches().urlLimit) throw refused(400, 'webhook limit reached');
          const webhook = add(data.url, undefined, data.ownerId);
          const { name, enabled: isEnabled, eventFilter } = data;
          Object.assign(webhook, { name, isEnabled, eventFilter });
          return { status: 201, json: shown(webhook) };
        }),
      };
    if (id === undefined) return undefined;
    if (part === 'events' && method === 'GET')
      return { operation: 'listDeliveries', act: asAdmin(() => listDeliveries(id, query)) };
    if (part !== undefined) return undefined;
    if (method === 'GET')
      return {
        operation: 'getWebhook',
        act: asAdmin(() => ({ status: 200, json: shown(webhookOf(id)) })),
      };
    if (method === 'PATCH')
      return {
        operation: 'changeWebhook',
        act: asAdmin(() => {
          const webhook = webhookOf(id);
          const { data } = changeSchema.safeParse(json);
          if (data === undefined) throw refused(400, 'invalid JSON');
          mayFilter(data.eventFilter);
          webhook.name = data.name ?? webhook.name;
          webhook.url = data.url ?? webhook.url;
          webhook.isEnabled = data.enabled ?? webhook.isEnabled;
          if (data.eventFilter !== undefined) webhook.eventFilter = data.eventFilter;
          return { status: 200, json: shown(webhook) };
        }),
      };
    if (method === 'DELETE')
      return {
        operation: 'deleteWebhook',
        act: asAdmin(() => {
          webhookOf(id);
          stored.delete(id);
          return { status: 204 };
        }),
      };
    return undefined;
  }

  const known = (id: string): StoredWebhook => {
    const found = stored.get(id);
    if (found === undefined)
      throw new Error(`the stand-in has no webhook ${id}, expected one that was added`);
    return found;
  };
  const view = ({ id, url, secrets: [secret = ''], isEnabled }: StoredWebhook): RenderWebhook => ({
    id,
    url,
    secret,
    isEnabled,
  });
  const ofOwner: RenderWebhooks = {
    get switches() {
      return switches();
    },
    add: ({ url, secret, ownerId }) => view(add(url, secret, ownerId)),
    list: () => [...stored.values()].map(view),
    remove: (id) => void stored.delete(id),
    enable(id) {
      known(id).isEnabled = true;
    },
    addSecret: (id, secret) => void known(id).secrets.push(secret),
    send(event, alteration) {
      const made: RenderEvent = {
        id: `evt-${freshId()}`,
        type: 'postgres_credentials_created',
        serviceId: `dpg-${freshId()}-a`,
        serviceName: 'orders',
        username: undefined,
        ...event,
        happenedAt: clock.now(),
      };
      send(made, alteration);
      return made;
    },
    events,
    attempts,
    mails,
    isBusy: () => sending.size > 0,
    async oneEnded() {
      if (sending.size > 0) await Promise.race(sending);
    },
    release,
    async stop() {
      stopping.abort();
      await Promise.all(delivering);
    },
  };
  return { route, happened, ofOwner };
}

/** Posts as Render does, and says what came back; never throws. */
function post(
  url: string,
  headers: readonly (readonly [string, string])[],
  body: Buffer,
  signal: AbortSignal,
): Promise<Pick<WebhookAttempt, 'statusCode' | 'responseBody' | 'error'>> {
  const { promise, resolve } = Promise.withResolvers<Awaited<ReturnType<typeof post>>>();
  const fail = (error: Error): void => resolve({ error: error.message });
  const names: Record<string, string[]> = {};
  for (const [name, value] of headers) names[name] = [...(names[name] ?? []), value];
  const ask = url.startsWith('https:') ? requestOverHttps : requestOverHttp;
  const request = ask(
    url,
    {
      method: 'POST',
      agent: false,
      headers: {
        'content-type': 'application/json',
        'user-agent': 'render',
        ...names,
        'content-length': body.length,
      },
      signal: AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]),
    },
    (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', fail);
      response.on('end', () =>
        resolve({
          statusCode: response.statusCode ?? 0,
          responseBody: Buffer.concat(chunks).toString('utf8').slice(0, 1_000),
        }),
      );
    },
  );
  request.on('error', fail);
  request.end(body);
  return promise;
}
