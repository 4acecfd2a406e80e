import * as z from 'zod/mini';
import { type Members, type TargetTask, targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { places } from '../core/notes.ts';
import { anything, type NoteContext, recall, recallAll, remember } from './notes.ts';
import type { Address } from './unwritten.ts';

/**
 * When reconcile-users looked at each target last. If looks take longer than the time between two passes, tasks would pile up in the
 * queue: a pass sends none for a target that was looked at lately, and a worker drops the task that an earlier one has made needless.
 * After a look that failed the next pass sends one in any case; otherwise what failed would wait for up to one and a half hours.
 * A note that is lost or cannot be written costs one more look.
 */
const place = places.looks;
const keepMs = 7 * 86_400_000;
/** A pass comes each hour: the look that it has caused may be as young as this when the next one comes. */
const lately = 30 * 60_000;

const lookSchema = z.object({ startedAt: z.iso.datetime(), hasFailed: z.boolean() });

export interface Look {
  readonly startedAt: Date;
  /** It did not see all of the target, or a repair failed. */
  readonly hasFailed: boolean;
}

function lookIn(document: string): Look | undefined {
  const { data } = lookSchema.safeParse(jsonOf(document));
  return data === undefined ? undefined : { ...data, startedAt: new Date(data.startedAt) };
}

/** By the key of the target. If the table cannot be read: only those that this instance failed to write. */
export async function lastLooks(rekey: NoteContext): Promise<ReadonlyMap<string, Look>> {
  const { notes } = await recallAll(place, rekey);
  return new Map(
    [...notes].flatMap(([key, { document }]) => {
      const look = lookIn(document);
      return look === undefined ? [] : [[key, look]];
    }),
  );
}

/** Whether a pass may leave the target out. */
export const wasSeenLately = (look: Look | undefined, now: Date): boolean =>
  look !== undefined && !look.hasFailed && now.getTime() - look.startedAt.getTime() < lately;

/** Whether a look that began after all of these tasks were sent has done what could be done, even if it failed. */
export async function isDoneSince(tasks: readonly TargetTask[], rekey: NoteContext): Promise<boolean> {
  const [task] = tasks;
  const sent = tasks.map(({ queuedAt }) => queuedAt);
  if (task === undefined || sent.some((at) => at === undefined)) return false;
  const note = await recall(addressOf(task), rekey);
  if (note === 'unreadable' || note.document === undefined) return false;
  const look = lookIn(note.document);
  return look !== undefined && sent.every((at = '') => look.startedAt > new Date(at));
}

/** Afterwards it is noted that this look was finished. */
export async function noteLook(
  task: Place,
  { startedAt, hasFailed }: Look,
  rekey: NoteContext,
): Promise<void> {
  const document = JSON.stringify({ startedAt: startedAt.toISOString(), hasFailed });
  await remember(addressOf(task), document, anything, rekey, keepMs);
}

type Place = Pick<TargetTask, 'provider' | 'targetId'>;
const addressOf = ({ provider, targetId }: Place): Address => ({
  place,
  key: targetKey(provider, targetId),
});

/** What the task that was sent last says of the target's credentials. */
export const youngestMembers = (tasks: readonly TargetTask[]): Members | undefined =>
  tasks
    .filter(({ members }) => members !== undefined)
    .toSorted((a, b) => ((a.queuedAt ?? '') < (b.queuedAt ?? '') ? -1 : 1))
    .at(-1)?.members;
