import * as z from 'zod/mini';
import { InputError } from './errors.ts';
import type { ProviderEvent } from './events.ts';
import { faults } from './faults.ts';
import type { Sensitive } from './sensitive.ts';

/** Why a delivery counts as nobody's. For counting and logs only: the sender is told none of it. */
export const webhookRefusals = [
  'TOO_LARGE',
  'NOT_BASE64',
  'NOT_UTF8',
  'HEADER_MISSING',
  'HEADER_TWICE',
  'ID_MALFORMED',
  'TIMESTAMP_MALFORMED',
  'SIGNATURE_MALFORMED',
  'SIGNATURE_OF_OTHER_VERSION',
  'NO_MATCH',
  'OUTSIDE_WINDOW',
] as const;
export type WebhookRefusal = (typeof webhookRefusals)[number];

/** Senders should stay below 20 kB (Standard Webhooks specification). */
export const mostBodyBytes = 65_536;

/** One attempt of a vendor to tell us something, as the bytes that arrived. */
export interface Delivery {
  /** Names in any case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

export type WebhookVerdict =
  /** `id` is the vendor's id of the event, the same in every delivery of it. */
  | { readonly say: 'verified'; readonly id: string; readonly sentAt: Date }
  | { readonly say: 'refused'; readonly reason: WebhookRefusal };

/** What an authentic delivery says, and what about it is not as the vendor describes it. */
export interface WebhookReading {
  readonly event: ProviderEvent;
  readonly oddities: readonly WebhookOddity[];
}

export type WebhookOddity =
  /** The body names no type of event. */
  | 'UNPARSABLE'
  /** The body gives the event another id than the signed header. */
  | 'OTHER_ID_IN_BODY'
  /** The id is not of the vendor's form. */
  | 'UNUSUAL_ID';

/** The contract of a vendor's webhooks: a vendor is a file in functions/webhooks/. Pure. */
export interface WebhookDefinition {
  /** Verifies with any of the keys in a stored secret. Throws SECRET_INVALID that says what to store; never a part of it. */
  verifierOf(stored: Sensitive): (delivery: Delivery, now: Date) => WebhookVerdict;
  /** Never throws: what cannot be read is still an event, as the vendor would stop sending for good after some failures. */
  read(authentic: { readonly id: string; readonly body: Uint8Array }): WebhookReading;
}

export type LoadWebhook = (endpoint: string) => Promise<WebhookDefinition | undefined>;

/** A request as the HTTP API hands it over, payload format 2.0; the body is still as it came. */
export interface WebhookRequest {
  /** The last part of the route: which vendor's endpoint was called. */
  readonly endpoint: string;
  /** One text a name: the HTTP API joins headers of the same name with commas (AWS documentation). */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly isBase64Encoded: boolean;
}

const webhookRequestSchema = z.object({
  version: z.literal('2.0'),
  // Not the path: that begins with the stage's name where the stage has one.
  routeKey: z
    .string()
    .check(z.regex(/^POST \/webhooks\/[a-z][a-z0-9-]*$/, { error: 'expected POST /webhooks/<endpoint>' })),
  headers: z.record(z.string(), z.string()),
  body: z._default(z.string(), ''),
  isBase64Encoded: z.boolean(),
});

/** The request of an HTTP API. Throws EVENT_INVALID that names every wrong field: whatever a sender does, the shape is AWS's. */
export function parseWebhookRequest(event: unknown): WebhookRequest {
  const parsed = webhookRequestSchema.safeParse(event);
  if (!parsed.success)
    throw new InputError(
      'EVENT_INVALID',
      `${faults(parsed.error)}; this function is called by the HTTP API: deploy the stack again`,
    );
  const { routeKey, headers, body, isBase64Encoded } = parsed.data;
  return { endpoint: routeKey.slice('POST /webhooks/'.length), headers, body, isBase64Encoded };
}
