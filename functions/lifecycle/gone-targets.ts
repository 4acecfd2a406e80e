import * as z from 'zod/mini';
import type { TargetGone } from '../core/events.ts';
import { targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { goneTargetKey, places } from '../core/notes.ts';
import { forget, type NoteContext, recall, recallAll, remember } from './notes.ts';
import type { Address } from './unwritten.ts';

/**
 * A deleted database takes its users with it, so deleting the credential must not wait for the vendor for ever. An API key without
 * access gets the same answer. So the target counts as gone after three sightings over at least a day, or at once if the order says
 * so. Without its note a sighting proves nothing: the credential then waits.
 */

/** The first and the last sighting must be at least `minSpanMs` apart. */
const minSightings = 3;
const minSpanMs = 86_400_000;
/**
 * How long a sighting counts that none follows. If the target was seen meanwhile and the note could not be deleted, it must not be a part
 * of the proof much later.
 */
const countsForMs = 7 * 86_400_000;

interface Place {
  readonly provider: string;
  readonly targetId: string;
}

const instant = z.iso.datetime();
const noteSchema = z.object({ since: instant, last: instant, sightings: z.int().check(z.positive()) });

/** One note for each target, so that two passes at different targets never overwrite each other's. */
const addressOf = (credential: string, { provider, targetId }: Place): Address => ({
  place: places.goneTargets,
  key: goneTargetKey(credential, targetKey(provider, targetId)),
});

/** What is known after the vendor said once more that the target is gone: `said` is its word. */
export interface Sighting {
  readonly gone: TargetGone;
  readonly isProven: boolean;
}

/** `orderedAt`: when the deletion was ordered with `targetIsGone`. Stores nothing in a dry run. */
export async function noteGone(
  credential: string,
  target: Place,
  {
    said,
    orderedAt,
    dryRun,
  }: { readonly said: string; readonly orderedAt: Date | undefined; readonly dryRun: boolean },
  rekey: NoteContext,
): Promise<Sighting> {
  const now = await rekey.ports.now();
  const address = addressOf(credential, target);
  const stored = await recall(address, rekey);
  // An unreadable note counts as none; the day then starts again.
  const before =
    stored === 'unreadable' || stored.document === undefined
      ? undefined
      : noteSchema.safeParse(jsonOf(stored.document)).data;
  const seen = {
    since: before?.since ?? now.toISOString(),
    last: now.toISOString(),
    sightings: (before?.sightings ?? 0) + 1,
  };
  // Of two passes at once one counts.
  if (!dryRun && stored !== 'unreadable')
    await remember(address, JSON.stringify(seen), stored, rekey, countsForMs);
  const spanMs = now.getTime() - Date.parse(seen.since);
  return {
    gone: {
      target: target.targetId,
      since: seen.since,
      lastSeenGoneAt: seen.last,
      sightings: seen.sightings,
      evidence: said,
      ...(orderedAt === undefined ? {} : { orderedAt: orderedAt.toISOString() }),
    },
    isProven: orderedAt !== undefined || (seen.sightings >= minSightings && spanMs >= minSpanMs),
  };
}

/** The target is there: whatever was seen before proves nothing any more. */
export async function noteThere(credential: string, target: Place, rekey: NoteContext): Promise<void> {
  const address = addressOf(credential, target);
  const stored = await recall(address, rekey);
  if (stored === 'unreadable' || stored.document !== undefined)
    await forget(address, rekey, stored === 'unreadable' ? undefined : stored);
}

/** The credentials that a sighting is noted of. */
export async function credentialsWithGoneTargets(rekey: NoteContext): Promise<ReadonlySet<string>> {
  const { notes } = await recallAll(places.goneTargets, rekey);
  return new Set([...notes.keys()].map((key) => key.split('/')[0] ?? ''));
}

/** Afterwards no sighting counts for the credential. */
export async function forgetGoneTargets(name: string, rekey: NoteContext): Promise<void> {
  const { notes } = await recallAll(places.goneTargets, rekey);
  for (const [key, note] of notes)
    if (key.startsWith(goneTargetKey(name))) await forget({ place: places.goneTargets, key }, rekey, note);
}
