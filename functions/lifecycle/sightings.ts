import { ProviderError } from '../core/errors.ts';
import { type Target, type TargetTask, targetKey } from '../core/fleet.ts';
import { places } from '../core/notes.ts';
import type { VendorWebhooks } from '../core/provider.ts';
import {
  type Cause,
  compare,
  parseSeenUsers,
  type SeenUsers,
  seenUsersDocument,
  withCauses,
} from '../core/sightings.ts';
import { inParallel } from './in-parallel.ts';
import { maxCharacters, type Recalled, recall, remember } from './notes.ts';
import type { Rekey } from './rekey.ts';
import type { Survey } from './survey-target.ts';
import { webhookUse } from './watch-webhooks.ts';

/** What the look before has left. */
export interface Before {
  readonly stored: Recalled | 'unreadable';
  /** Undefined before the first look. */
  readonly seen: SeenUsers | undefined;
}

const noteOf = ({ provider, targetId }: Pick<Target, 'provider' | 'targetId'>) => ({
  place: places.users,
  key: targetKey(provider, targetId),
});

/** Reads what was seen of a target's users last. */
export async function lastSeen(target: Pick<Target, 'provider' | 'targetId'>, rekey: Rekey): Promise<Before> {
  const stored = await recall(noteOf(target), rekey);
  const isKnown = stored !== 'unreadable' && stored.document !== undefined;
  return { stored, seen: isKnown ? parseSeenUsers(stored.document) : undefined };
}

/** The vendor's events that this look is made because of; none where a pass has made it. */
export type Causes = readonly NonNullable<TargetTask['because']>[];

const causesAtOnce = 5;

/**
 * Publishes who has come and who has gone since the look before, and notes who is there now. A look that could not see everything, or
 * not read what the one before has noted, says nothing and notes nothing: the next one does both.
 *
 * Published first, noted afterwards: a crash between the two says something twice, never not at all. So do two looks at once, and the
 * list of the slower one, which may be older, does not take the place of the other's.
 */
export async function tellSightings(
  survey: Survey,
  { stored, seen }: Before,
  causes: Causes,
  rekey: Rekey,
): Promise<void> {
  const { ports, measure, log } = rekey;
  const { snapshot, gone, isPartial } = survey;
  const [webhooks] = survey.webhooks;
  const { provider, targetId, users, hasBrokenSpecs } = snapshot;
  if (isPartial || !snapshot.readiness.ready || stored === 'unreadable') return;
  const { sightings, now } = compare({ provider, targetId, seen, users, gone, hasBrokenSpecs });
  if (sightings.length > 0) {
    const use = webhooks === undefined ? undefined : await webhookUse(webhooks, rekey);
    const isCaughtUp = causes.length === 0 && use?.shouldHaveTold === true;
    const told = withCauses(sightings, await detailsOf(causes, survey, rekey));
    await ports.publish(
      told.map((sighting) =>
        isCaughtUp ? { ...sighting, detail: { ...sighting.detail, isCaughtUp } } : sighting,
      ),
    );
    for (const { type, detail } of told) log('info', sentences[type], { ...detail, isCaughtUp });
    if (isCaughtUp) {
      measure('WebhooksMissed', told.length);
      await use?.noteMissed();
    }
  }
  const { document, left } = seenUsersDocument(now, maxCharacters);
  if (left > 0)
    log('warn', 'there are more users than can be noted: of the others nobody is told that they come or go', {
      provider,
      target: targetId,
      left,
    });
  await remember(noteOf({ provider, targetId }), document, stored, rekey);
}

const sentences = {
  DatabaseUserAppeared: 'there is a user that was not there before',
  DatabaseUserDisappeared: 'a user is gone that was there before',
} as const;

/** What the vendor says of the events, as far as it says anything: what it does not is no reason to wait. */
async function detailsOf(
  causes: Causes,
  { webhooks: [opened], snapshot: { targetId } }: Survey,
  rekey: Rekey,
): Promise<readonly Cause[]> {
  const webhooks = opened?.webhooks;
  const known = new Map(
    causes.filter(({ endpoint }) => endpoint === webhooks?.endpoint).map((cause) => [cause.eventId, cause]),
  );
  if (webhooks === undefined) return [];
  const read = await inParallel([...known.values()], causesAtOnce, async ({ eventId, eventType }) => {
    const event = await eventOf(eventId, webhooks, rekey);
    // The bus says which target it is about; should the vendor say something else, it is about none of these users.
    if (event?.target !== undefined && event.target !== targetId) return [];
    return [{ eventId, eventType, ...(event?.username === undefined ? {} : { username: event.username }) }];
  });
  return read.flat();
}

async function eventOf(eventId: string, webhooks: VendorWebhooks, { log }: Rekey) {
  try {
    const event = await webhooks.event(eventId);
    return event === 'absent' ? undefined : event;
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    log('warn', error.message, { code: error.code, providerEventId: eventId });
    return undefined;
  }
}
