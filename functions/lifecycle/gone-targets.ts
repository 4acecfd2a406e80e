import * as z from 'zod/mini';
import type { TargetGone } from '../core/events.ts';
import { targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { goneTargetsPath } from '../core/names.ts';
import type { Rekey } from './rekey.ts';

/**
 * A deleted database takes its users with it, so deleting the credential must not wait for the vendor for ever. An API key without
 * access gets the same answer. So the target counts as gone after three sightings over at least a day, or at once if the order says
 * so.
 */

/** The first and the last sighting must be at least `minSpanMs` apart. */
const minSightings = 3;
const minSpanMs = 86_400_000;

interface Place {
  readonly provider: string;
  readonly targetId: string;
}

const instant = z.iso.datetime();
const noteSchema = z.object({ since: instant, last: instant, sightings: z.int().check(z.positive()) });

/** One parameter for each target, so that two passes at different targets never overwrite each other's note. */
const noteParameter = (credential: string, { provider, targetId }: Place): string =>
  `${goneTargetsPath(credential)}${targetKey(provider, targetId)}`;

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
  { ports }: Pick<Rekey, 'ports'>,
): Promise<Sighting> {
  const now = await ports.now();
  const parameter = noteParameter(credential, target);
  const stored = await ports.readParameter({ parameter });
  // An unreadable note counts as none; the day then starts again.
  const before = stored === 'absent' ? undefined : noteSchema.safeParse(jsonOf(stored)).data;
  const seen = {
    since: before?.since ?? now.toISOString(),
    last: now.toISOString(),
    sightings: (before?.sightings ?? 0) + 1,
  };
  if (!dryRun) await ports.writeParameter({ parameter, document: JSON.stringify(seen) });
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
export async function noteThere(
  credential: string,
  target: Place,
  { ports }: Pick<Rekey, 'ports'>,
): Promise<void> {
  const parameter = noteParameter(credential, target);
  if ((await ports.readParameter({ parameter })) !== 'absent') await ports.deleteParameter({ parameter });
}
