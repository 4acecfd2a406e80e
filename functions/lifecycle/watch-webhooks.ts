import { ProviderError } from '../core/errors.ts';
import type { ProviderEvent } from '../core/events.ts';
import type { Target } from '../core/fleet.ts';
import { places, webhookMissedKey, webhookReceivedKey, webhookWatchKey } from '../core/notes.ts';
import type { VendorWebhooks, WebhookDelivery, WebhookStanding } from '../core/provider.ts';
import {
  catchUpOf,
  instantDocument,
  isUnanswered,
  judgeWebhook,
  onSince,
  parseInstant,
  parseWebhookMemory,
  shouldHaveTold,
  undelivered,
  type WebhookFacts,
  type WebhookMemory,
  webhookDisabled,
  webhookMemoryDocument,
} from '../core/webhook-watch.ts';
import { announce } from './announce.ts';
import { anything, type Recalled, recall, remember } from './notes.ts';
import type { Rekey } from './rekey.ts';
import { isExpected } from './stuck-rotation.ts';

/** The vendor's record of its webhooks, as one of its API keys is shown it. */
export interface OpenedWebhooks {
  readonly webhooks: VendorWebhooks;
  readonly provider: string;
  readonly apiKeySecret: string;
}

/** One name for a key and the webhook of its workspace. The name of the secret may be known to few. */
const keyDigest = ({ apiKeySecret }: OpenedWebhooks, { sha256 }: Rekey): string =>
  Buffer.from(sha256(apiKeySecret).subarray(0, 8)).toString('hex');

/**
 * By the target: the API keys whose webhook is looked after together with it. Of the targets that share a key, the first one of the fleet
 * does so for all of them.
 */
export function watchersOf(targets: readonly Target[]): ReadonlyMap<Target, readonly string[]> {
  const taken = new Set<string>();
  return new Map(
    targets.map((target) => {
      const keys = [...new Set(target.credentials.map(({ spec }) => spec.apiKeySecret))];
      const first = keys.filter((key) => !taken.has(`${target.provider} ${key}`));
      for (const key of first) taken.add(`${target.provider} ${key}`);
      return [target, first];
    }),
  );
}

// What was noted.

/** The events that were told are known by about a thousand of their ids: the vendor goes on trying for little more than a day. */
const maxMemoryCharacters = 40_000;

type NoteName = 'watch' | 'received' | 'missed';

/** What is known of the webhook, and the notes that it was read from. */
interface Noted extends WebhookFacts {
  readonly notes: Readonly<Record<NoteName, Recalled>>;
}

const addressesOf = (
  endpoint: string,
  digest: string,
): Readonly<Record<NoteName, { place: string; key: string }>> => ({
  watch: { place: places.webhooks, key: webhookWatchKey(endpoint, digest) },
  received: { place: places.webhooks, key: webhookReceivedKey(endpoint) },
  missed: { place: places.webhooks, key: webhookMissedKey(endpoint, digest) },
});

async function readFacts(opened: OpenedWebhooks, rekey: Rekey): Promise<Noted | 'unreadable'> {
  const { watch, received, missed } = addressesOf(opened.webhooks.endpoint, keyDigest(opened, rekey));
  const [watchNote, receivedNote, missedNote] = await Promise.all([
    recall(watch, rekey),
    recall(received, rekey),
    recall(missed, rekey),
  ]);
  if (watchNote === 'unreadable' || receivedNote === 'unreadable' || missedNote === 'unreadable')
    return 'unreadable';
  const parsed = <T>({ document }: Recalled, parse: (document: string) => T): T | undefined =>
    document === undefined ? undefined : parse(document);
  return {
    notes: { watch: watchNote, received: receivedNote, missed: missedNote },
    memory: parsed(watchNote, parseWebhookMemory),
    receivedAt: parsed(receivedNote, parseInstant),
    missedAt: parsed(missedNote, parseInstant),
  };
}

/** Whether a webhook should have told of what is seen now, and the note that it has not. Where its notes cannot be read, none should. */
export async function webhookUse(
  opened: OpenedWebhooks,
  rekey: Rekey,
): Promise<{ readonly shouldHaveTold: boolean; readonly noteMissed: () => Promise<void> }> {
  const facts = await readFacts(opened, rekey);
  if (facts === 'unreadable') return { shouldHaveTold: false, noteMissed: async () => undefined };
  const now = await rekey.ports.now();
  return {
    shouldHaveTold: shouldHaveTold(facts, now),
    async noteMissed() {
      // For how long it has been silent is counted from the first of them.
      if (isUnanswered(facts)) return;
      const { missed } = addressesOf(opened.webhooks.endpoint, keyDigest(opened, rekey));
      await remember(missed, instantDocument(now), facts.notes.missed, rekey);
    },
  };
}

/** Notes that a webhook of this endpoint came. Losing a note makes a webhook look silent until the next one. */
export async function noteReceived(endpoint: string, rekey: Rekey): Promise<void> {
  const { received } = addressesOf(endpoint, '');
  await remember(received, instantDocument(await rekey.ports.now()), anything, rekey);
}

/** Written again, as they are, before they expire. */
async function renew({ notes }: Noted, opened: OpenedWebhooks, rekey: Rekey): Promise<void> {
  const addresses = addressesOf(opened.webhooks.endpoint, keyDigest(opened, rekey));
  for (const name of ['received', 'missed'] as const) {
    const { document } = notes[name];
    if (document !== undefined) await remember(addresses[name], document, notes[name], rekey);
  }
}

// The watch.

/**
 * Looks how the webhook that points to us is doing, says so where it is not well, and publishes the events that it could not
 * deliver. Whatever fails of it fails alone, and comes again with the next pass: the users of the target were looked at without it.
 */
export async function watchWebhook(
  opened: OpenedWebhooks,
  { webhookBaseUrl }: { readonly webhookBaseUrl: string },
  rekey: Rekey,
): Promise<void> {
  const { log } = rekey;
  const { webhooks, provider } = opened;
  try {
    const url = `${webhookBaseUrl}${webhooks.endpoint}`;
    const standing = await webhooks.standing(url);
    const facts = await readFacts(opened, rekey);
    if (facts === 'unreadable') {
      // What the vendor says of it counts all the same. Its events wait: which of them were told is not known.
      const nothing = { memory: undefined, receivedAt: undefined, missedAt: undefined };
      return await judge(standing, nothing, url, opened, rekey);
    }
    await judge(standing, facts, url, opened, rekey);
    await catchUp(standing, facts, opened, rekey);
    await renew(facts, opened, rekey);
  } catch (error) {
    if (!isExpected(error)) throw error;
    log('warn', error.message, { provider, endpoint: webhooks.endpoint, code: error.code });
  }
}

async function judge(
  standing: WebhookStanding,
  facts: WebhookFacts,
  url: string,
  opened: OpenedWebhooks,
  rekey: Rekey,
): Promise<void> {
  const { provider, webhooks } = opened;
  const { endpoint } = webhooks;
  const digest = keyDigest(opened, rekey);
  const verdict = judgeWebhook(standing, facts, await rekey.ports.now());
  const findings = webhookDisabled(verdict, {
    provider,
    endpoint,
    url,
    note: addressesOf(endpoint, digest).watch,
  });
  if (verdict.say !== 'not-in-use') rekey.measure('WebhooksDisabled', findings.length);
  if (standing.is === 'unreadable') rekey.log('info', standing.reason, { provider, endpoint });
  await announce({ scope: 'reconcile', place: `webhooks/${endpoint}/${digest}` }, findings, rekey);
}

/** More are for the next pass: each costs a call of the vendor. */
const mostEvents = 50;
/** Of an event that is older than that its id and type are told, where the vendor still says no more. */
const detailsWithinMs = 6 * 3_600_000;

/** Published first, noted afterwards: a crash between the two publishes an event twice, and it is recorded once, by its id. */
async function catchUp(
  standing: WebhookStanding,
  { memory, notes }: Noted,
  opened: OpenedWebhooks,
  rekey: Rekey,
): Promise<void> {
  const { ports, measure } = rekey;
  const { webhooks } = opened;
  const before = memory?.told ?? [];
  const on = onSince(standing, memory, await ports.now());
  const { onSince: _before, ...kept } = memory ?? {};
  const known = { ...kept, is: standing.is, ...(on === undefined ? {} : { onSince: on }) };
  let next: WebhookMemory = { ...known, told: before };
  if (standing.is === 'enabled' || standing.is === 'disabled') {
    const { id } = standing;
    const now = await ports.now();
    const window = catchUpOf(memory, id, now);
    const missed = undelivered(await webhooks.deliveries(id, window), window, before);
    const { events, caughtUpTo } = await eventsOf(missed, { settled: window.settled, now }, opened, rekey);
    if (events.length > 0) {
      await ports.publish(events.map((detail) => ({ type: 'ProviderEventReceived', detail })));
      measure('WebhooksMissed', events.length);
    }
    const told = [...before, ...events.map(({ providerEventId }) => providerEventId)];
    next = { ...known, id, caughtUpTo, told };
  }
  // None was ever there, and nothing is to be remembered.
  if (memory === undefined && standing.is === 'absent') return;
  const document = webhookMemoryDocument(next, maxMemoryCharacters);
  const { watch } = addressesOf(webhooks.endpoint, keyDigest(opened, rekey));
  await remember(watch, document, notes.watch, rekey);
}

/** As much as the vendor says of them, and until when nothing is left out. */
async function eventsOf(
  missed: readonly WebhookDelivery[],
  { settled, now }: { readonly settled: Date; readonly now: Date },
  { webhooks }: OpenedWebhooks,
  { log }: Rekey,
): Promise<{ readonly events: readonly ProviderEvent[]; readonly caughtUpTo: Date }> {
  const events: ProviderEvent[] = [];
  for (const { eventId, eventType, firstSentAt } of missed) {
    let event: Awaited<ReturnType<VendorWebhooks['event']>> = 'absent';
    try {
      if (events.length >= mostEvents) return { events, caughtUpTo: justBefore(firstSentAt) };
      event = await webhooks.event(eventId);
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      log('warn', error.message, { code: error.code, providerEventId: eventId });
      // What is recorded first stays: for a while it is worth waiting for the target and the time.
      if (now.getTime() - firstSentAt.getTime() < detailsWithinMs)
        return { events, caughtUpTo: justBefore(firstSentAt) };
    }
    const { happenedAt, target } = event === 'absent' ? {} : event;
    events.push({
      provider: webhooks.endpoint,
      providerEventId: eventId,
      providerEventType: eventType,
      ...(happenedAt === undefined ? {} : { happenedAt }),
      ...(target === undefined ? {} : { target }),
      isCaughtUp: true,
    });
  }
  return { events, caughtUpTo: settled };
}

const justBefore = (at: Date): Date => new Date(at.getTime() - 1);
