import * as z from 'zod/mini';
import type { Finding } from './findings.ts';
import { jsonOf } from './json.ts';
import { tableName } from './notes.ts';
import type { WebhookDelivery, WebhookStanding } from './provider.ts';

/**
 * Whether a vendor's webhook does what it is there for. A vendor switches one off that fails for too long, somebody may delete it,
 * and a key may be too weak to be shown either: then only what was received and what was not can say something. Without webhooks
 * rekey does the same work, later.
 */

// What was noted.

/** How the webhook of one API key was doing when it was looked at last. */
export interface WebhookMemory {
  readonly is: WebhookStanding['is'];
  /** Since when it has been switched on, as far as was seen; absent while it is not. */
  readonly onSince?: Date;
  /** The webhook that was seen last where ours belongs; absent where none was ever seen. */
  readonly id?: string;
  /** Every event of it that was sent first until then and did not arrive has been told. */
  readonly caughtUpTo?: Date;
  /** Of the events that were told, the last ones: the vendor goes on trying to deliver them for more than a day. */
  readonly told: readonly string[];
}

const instant = z.pipe(
  z.iso.datetime(),
  z.transform((text) => new Date(text)),
);
const memorySchema = z.strictObject({
  is: z.enum(['enabled', 'disabled', 'absent', 'unreadable']),
  onSince: z.exactOptional(instant),
  id: z.exactOptional(z.string()),
  caughtUpTo: z.exactOptional(instant),
  told: z.array(z.string()),
});
const instantSchema = z.strictObject({ at: instant });

/** Undefined for a corrupt note: the webhook counts as never looked at. */
export const parseWebhookMemory = (document: string): WebhookMemory | undefined =>
  memorySchema.safeParse(jsonOf(document)).data;

/** Keeps the latest of `told`, as many as fit into `mostCharacters`. */
export function webhookMemoryDocument(memory: WebhookMemory, mostCharacters: number): string {
  for (let from = 0; ; from += 1) {
    const document = JSON.stringify({ ...memory, told: memory.told.slice(from) });
    if (document.length <= mostCharacters || from >= memory.told.length) return document;
  }
}

/** Since when a webhook that is switched on now has been, as far as was seen; undefined for any other. */
export const onSince = (
  { is }: WebhookStanding,
  memory: WebhookMemory | undefined,
  now: Date,
): Date | undefined => (is !== 'enabled' ? undefined : memory?.is === 'enabled' ? memory.onSince : now);

/** A note of no more than an instant. */
export const instantDocument = (at: Date): string => JSON.stringify({ at });
export const parseInstant = (document: string): Date | undefined =>
  instantSchema.safeParse(jsonOf(document)).data?.at;

/** All that is known of the webhook of one API key. */
export interface WebhookFacts {
  readonly memory: WebhookMemory | undefined;
  /** When a webhook about a target of ours was received last. */
  readonly receivedAt: Date | undefined;
  /** When a user was seen first of whom no webhook had told, since one was received last. */
  readonly missedAt: Date | undefined;
}

// What it means.

/** From a webhook to the look that it causes, at the most: another look may be there sooner, and is told of nothing. */
const onItsWayMs = 300_000;
/** How long a webhook may be silent about a change: the first attempts of a vendor that tries again are over by then. */
const silentAfterMs = 3_600_000;

/** Whether a user that is seen now, in a look that no webhook caused, is one that a webhook should have told of. */
export function shouldHaveTold({ memory, receivedAt }: WebhookFacts, now: Date): boolean {
  if (memory === undefined) return false;
  // To a key that may not see it, what was received proves that there is a webhook.
  const isInUse = memory.id !== undefined || (memory.is === 'unreadable' && receivedAt !== undefined);
  const isWorking = memory.is === 'enabled' || memory.is === 'unreadable';
  const isOnItsWay = receivedAt !== undefined && now.getTime() - receivedAt.getTime() < onItsWayMs;
  return isInUse && !(isWorking && isOnItsWay);
}

/** Whether nothing has been received, and nothing was mended, since a webhook failed to tell of a change. */
export const isUnanswered = ({ memory, receivedAt, missedAt }: WebhookFacts): boolean =>
  missedAt !== undefined &&
  (receivedAt === undefined || receivedAt < missedAt) &&
  (memory?.onSince === undefined || memory.onSince <= missedAt);

export type WebhookVerdict =
  /** It is there, and nothing speaks against it. */
  | { readonly say: 'good' }
  | { readonly say: 'switched-off' | 'deleted'; readonly id: string }
  /** It may be there or not: it has not told of what it should have told of. */
  | { readonly say: 'silent' }
  /** None was ever seen, or none can be seen and none was received: there is nothing to say. */
  | { readonly say: 'not-in-use' };

/** `memory` as it was before this standing. */
export function judgeWebhook(standing: WebhookStanding, facts: WebhookFacts, now: Date): WebhookVerdict {
  const { memory, receivedAt, missedAt } = facts;
  const switchedOnAt = onSince(standing, memory, now);
  const isSilent =
    missedAt !== undefined &&
    // What it missed while it was switched off is told, and mended by switching it on.
    (switchedOnAt === undefined || missedAt >= switchedOnAt) &&
    isUnanswered(facts) &&
    now.getTime() - missedAt.getTime() >= silentAfterMs;
  switch (standing.is) {
    case 'enabled':
      return { say: isSilent ? 'silent' : 'good' };
    case 'disabled':
      return { say: 'switched-off', id: standing.id };
    case 'absent':
      return memory?.id === undefined ? { say: 'not-in-use' } : { say: 'deleted', id: memory.id };
    case 'unreadable':
      if (memory?.id === undefined && receivedAt === undefined) return { say: 'not-in-use' };
      return { say: isSilent ? 'silent' : 'good' };
    default:
      return standing satisfies never;
  }
}

/** What a person has to know of it, and can do. `note` is where it is remembered that there was a webhook. */
export function webhookDisabled(
  verdict: WebhookVerdict,
  { provider, endpoint, url, note }: WebhookPlace,
): readonly Finding[] {
  const finding = { kind: 'WebhookDisabled', provider, target: '' } as const;
  switch (verdict.say) {
    case 'good':
    case 'not-in-use':
      return [];
    case 'switched-off':
      return [
        {
          ...finding,
          details: `the webhook ${verdict.id} of ${endpoint} is switched off`,
          remedy:
            'mend what made its deliveries fail, then switch it on again on its settings page at the vendor; meanwhile the lists of users are compared in every pass, so nothing is lost',
        },
      ];
    case 'deleted':
      return [
        {
          ...finding,
          details: `the webhook ${verdict.id} of ${endpoint} is not there any more`,
          remedy: `make it again at the vendor with the URL ${url} and store its signing secret in rekey/webhooks/${endpoint}; if none is wanted any more, delete the item with the place ${note.place} and the key ${note.key} from the DynamoDB table ${tableName}`,
        },
      ];
    case 'silent':
      return [
        {
          ...finding,
          details: `users have changed, and no webhook of ${endpoint} has told of it`,
          remedy: `see at the vendor whether the webhook to ${url} is there, is switched on and sends the events of database users; this ends with the next one that is received`,
        },
      ];
    default:
      return verdict satisfies never;
  }
}

export interface WebhookPlace {
  readonly provider: string;
  readonly endpoint: string;
  readonly url: string;
  readonly note: { readonly place: string; readonly key: string };
}

// Catching up.

const hourMs = 3_600_000;
/** A vendor tries for about 33 hours (Render's webhook page): what is older was told or is lost for good. */
const firstReachMs = 34 * hourMs;
/** Clocks differ, and rows may be written late. */
const overlapMs = 300_000;
/** At a time: many pages, after a long pause, must not keep any from being read. */
const mostMs = 36 * hourMs;
/** Until then the vendor tries again soon. */
const settledAfterMs = hourMs;

export interface CatchUp {
  readonly after: Date;
  readonly before: Date;
  /** Events that were sent first until then and have not arrived are told. */
  readonly settled: Date;
}

/** Which deliveries of this webhook are to be read now. */
export function catchUpOf(memory: WebhookMemory | undefined, id: string, now: Date): CatchUp {
  const at = now.getTime();
  const noted = memory?.id === id ? memory.caughtUpTo?.getTime() : undefined;
  // A note from the future, of a clock that was wrong, must not keep anything from being read.
  const since = Math.min(noted ?? at - firstReachMs, at - settledAfterMs);
  const before = Math.min(at, since + mostMs);
  return {
    after: new Date(since - overlapMs),
    before: new Date(before),
    settled: new Date(before - settledAfterMs),
  };
}

/** Those of which no attempt succeeded, in the order in which they were sent first; each only once. */
export const undelivered = (
  deliveries: readonly WebhookDelivery[],
  { settled }: CatchUp,
  told: readonly string[],
): readonly WebhookDelivery[] =>
  deliveries
    .filter(
      ({ eventId, firstSentAt, isDelivered }) =>
        !isDelivered && firstSentAt <= settled && !told.includes(eventId),
    )
    .toSorted((one, other) => one.firstSentAt.getTime() - other.firstSentAt.getTime());
