import { ProviderError } from '../core/errors.ts';
import type { ProviderEvent } from '../core/events.ts';
import type { Target } from '../core/fleet.ts';
import { webhookMissedParameter, webhookReceivedParameter, webhookWatchParameter } from '../core/names.ts';
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
import { announce, mostCharacters } from './announce.ts';
import type { Rekey } from './rekey.ts';
import { isExpected } from './stuck-rotation.ts';

/** The vendor's record of its webhooks, as one of its API keys is shown it. */
export interface OpenedWebhooks {
  readonly webhooks: VendorWebhooks;
  readonly provider: string;
  readonly apiKeySecret: string;
}

/** One name for a key and the webhook of its workspace, fit for a parameter's name. */
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

async function readFacts(opened: OpenedWebhooks, rekey: Rekey): Promise<WebhookFacts & { stored: string }> {
  const { endpoint } = opened.webhooks;
  const digest = keyDigest(opened, rekey);
  const [stored, received, missed] = await Promise.all(
    [
      webhookWatchParameter(endpoint, digest),
      webhookReceivedParameter(endpoint),
      webhookMissedParameter(endpoint, digest),
    ].map((parameter) => rekey.ports.readParameter({ parameter })),
  );
  const parsed = <T>(document: string | undefined, parse: (document: string) => T): T | undefined =>
    document === undefined || document === 'absent' ? undefined : parse(document);
  return {
    stored: stored ?? 'absent',
    memory: parsed(stored, parseWebhookMemory),
    receivedAt: parsed(received, parseInstant),
    missedAt: parsed(missed, parseInstant),
  };
}

/** Whether a webhook should have told of what is seen now, and the note that it has not. */
export async function webhookUse(
  opened: OpenedWebhooks,
  rekey: Rekey,
): Promise<{ readonly shouldHaveTold: boolean; readonly noteMissed: () => Promise<void> }> {
  const { ports } = rekey;
  const facts = await readFacts(opened, rekey);
  const now = await ports.now();
  return {
    shouldHaveTold: shouldHaveTold(facts, now),
    async noteMissed() {
      // For how long it has been silent is counted from the first of them.
      if (isUnanswered(facts)) return;
      await ports.writeParameter({
        parameter: webhookMissedParameter(opened.webhooks.endpoint, keyDigest(opened, rekey)),
        document: instantDocument(now),
      });
    },
  };
}

/** Notes that a webhook of this endpoint came. Losing a note makes a webhook look silent until the next one. */
export async function noteReceived(endpoint: string, { ports }: Pick<Rekey, 'ports'>): Promise<void> {
  await ports.writeParameter({
    parameter: webhookReceivedParameter(endpoint),
    document: instantDocument(await ports.now()),
  });
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
    await judge(standing, facts, url, opened, rekey);
    await catchUp(standing, facts, opened, rekey);
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
    parameter: webhookWatchParameter(endpoint, digest),
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
  { memory, stored }: WebhookFacts & { readonly stored: string },
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
  const document = webhookMemoryDocument(next, mostCharacters);
  const parameter = webhookWatchParameter(webhooks.endpoint, keyDigest(opened, rekey));
  if (document !== stored) await ports.writeParameter({ parameter, document });
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
