import { type Members, type TargetTask, targetKey } from '../core/fleet.ts';
import { places } from '../core/notes.ts';
import { anything, type NoteContext, recall, recallAll, remember } from './notes.ts';
import type { Address } from './unwritten.ts';

/**
 * When reconcile-users looked at each target last. If looks take longer than the time between two passes, tasks would pile up in the
 * queue: a pass sends none for a target that was looked at lately, and a worker drops the task that an earlier one has made needless.
 * A note that is lost or cannot be written costs one more look.
 */
const place = places.looks;
const keepMs = 7 * 86_400_000;
/** A pass comes each hour: the look that it has caused may be as young as this when the next one comes. */
const lately = 30 * 60_000;

/** By the key of the target. While they cannot be read, those that this instance could not note. */
export async function lastLooks(rekey: NoteContext): Promise<ReadonlyMap<string, Date>> {
  const { notes } = await recallAll(place, rekey);
  return new Map([...notes].map(([key, { document }]) => [key, new Date(document)]));
}

export const wasLookedAtLately = (lookedAt: Date | undefined, now: Date): boolean =>
  lookedAt !== undefined && now.getTime() - lookedAt.getTime() < lately;

/** Whether a look that began after all of these tasks were sent has done what they ask for. */
export async function isDoneSince(tasks: readonly TargetTask[], rekey: NoteContext): Promise<boolean> {
  const [task] = tasks;
  const sent = tasks.map(({ queuedAt }) => queuedAt);
  if (task === undefined || sent.some((at) => at === undefined)) return false;
  const note = await recall(addressOf(task), rekey);
  if (note === 'unreadable' || note.document === undefined) return false;
  const lookedAt = new Date(note.document);
  return sent.every((at = '') => lookedAt > new Date(at));
}

/** Afterwards it is noted that a look has begun at `startedAt` and was finished. */
export async function noteLook(task: Place, startedAt: Date, rekey: NoteContext): Promise<void> {
  await remember(addressOf(task), startedAt.toISOString(), anything, rekey, keepMs);
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
