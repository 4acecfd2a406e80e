import * as z from 'zod/mini';
import type { ProviderEvent } from '../core/events.ts';
import { jsonOf } from '../core/json.ts';
import type { WebhookDefinition, WebhookOddity } from '../core/webhook.ts';
import { parseWebhookSecrets, verify } from './signature.ts';

/** Render's webhooks (Render's webhook page): the Standard Webhooks scheme, and a body that names the event and the service. */
export const renderWebhook: WebhookDefinition = {
  verifierOf(stored) {
    const keys = parseWebhookSecrets(stored);
    return (delivery, now) => verify(delivery, keys, now);
  },
  read({ id, body }) {
    const { type, timestamp, data } = payloadSchema.parse(jsonOf(textOf(body)));
    const event: ProviderEvent = {
      provider: 'render',
      // The signed header and not the body, which is signed too but may be of another event.
      providerEventId: id,
      providerEventType: type === undefined ? unparsable : (wireNames.get(type) ?? type),
      ...(timestamp === undefined ? {} : { happenedAt: timestamp }),
      ...(data.serviceId === undefined ? {} : { target: data.serviceId }),
    };
    const oddities: WebhookOddity[] = [];
    if (type === undefined) oddities.push('UNPARSABLE');
    if (data.id !== undefined && data.id !== id) oddities.push('OTHER_ID_IN_BODY');
    if (!/^evt-[0-9a-z]{20}$/.test(id)) oddities.push('UNUSUAL_ID');
    return { event, oddities };
  },
};

/** The type of an event whose body names none. */
const unparsable = 'unparsable';

/** The page on credentials spells these two in another way than the list of types; both mean the same. */
const wireNames: ReadonlyMap<string, string> = new Map([
  ['PostgresCredentialsCreated', 'postgres_credentials_created'],
  ['PostgresCredentialsDeleted', 'postgres_credentials_deleted'],
]);

/**
 * Types come and go, and fields were added in 2025: what is missing or of another kind is left out, and never an error. All of
 * it is bounded, since it goes into logs and on the bus; a service's name and an actor's address are left behind.
 */
const payloadSchema = z.catch(
  z.object({
    type: z.catch(z.optional(z.string().check(z.regex(/^[\w.:-]{1,128}$/))), undefined),
    /** Nine fractional digits were seen. */
    timestamp: z.catch(z.optional(z.iso.datetime({ offset: true }).check(z.maxLength(64))), undefined),
    data: z.catch(
      z.object({
        id: z.catch(z.optional(z.string()), undefined),
        serviceId: z.catch(z.optional(z.string().check(z.regex(/^[a-z]+-[a-z0-9-]{1,60}$/))), undefined),
      }),
      {},
    ),
  }),
  { data: {} },
);

const textOf = (body: Uint8Array): string => Buffer.from(body).toString('utf8');
