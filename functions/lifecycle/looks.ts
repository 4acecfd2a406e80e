import { StoreError } from '../core/errors.ts';
import { type Members, type TargetTask, targetKey } from '../core/fleet.ts';
import { places } from '../core/notes.ts';
import type { Rekey } from './rekey.ts';

/**
 * When reconcile-users looked at each target last. If looks take longer than the time between two passes, tasks would pile up in the
 * queue: a pass sends none for a target that was looked at lately, and a worker drops the task that an earlier one has made needless.
 * A note that is lost or cannot be written costs one more look.
 */
const place = places.looks;
const keepMs = 7 * 86_400_000;
/** A pass comes each hour: the look that it has caused may be as young as this when the next one comes. */
const lately = 30 * 60_000;

/** By the key of the target. None where they cannot be read. */
export async function lastLooks({ ports, log }: Rekey): Promise<ReadonlyMap<string, Date>> {
  try {
    const notes = await ports.listNotes({ place });
    return new Map(notes.map(({ key, document }) => [key, new Date(document)]));
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', 'the last looks at the targets could not be read; each is looked at', { code: error.code });
    return new Map();
  }
}

export const wasLookedAtLately = (lookedAt: Date | undefined, now: Date): boolean =>
  lookedAt !== undefined && now.getTime() - lookedAt.getTime() < lately;

/** Whether a look that began after all of these tasks were sent has done what they ask for. */
export async function isDoneSince(tasks: readonly TargetTask[], { ports, log }: Rekey): Promise<boolean> {
  const [task] = tasks;
  const sent = tasks.map(({ queuedAt }) => queuedAt);
  if (task === undefined || sent.some((at) => at === undefined)) return false;
  try {
    const note = await ports.readNote({ place, key: targetKey(task.provider, task.targetId) });
    return note !== 'absent' && sent.every((at = '') => new Date(note.document) > new Date(at));
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', 'the last look at a target could not be read; it is looked at', { code: error.code });
    return false;
  }
}

/** Afterwards it is noted that a look has begun at `startedAt` and was finished. */
export async function noteLook(
  { provider, targetId }: Pick<TargetTask, 'provider' | 'targetId'>,
  startedAt: Date,
  { ports, log }: Rekey,
): Promise<void> {
  const expiresAt = new Date(startedAt.getTime() + keepMs);
  const key = targetKey(provider, targetId);
  try {
    await ports.writeNote({ place, key, document: startedAt.toISOString(), expiresAt });
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', 'a look at a target could not be noted; it is looked at again', { code: error.code });
  }
}

/** What the task that was sent last says of the target's credentials. */
export const youngestMembers = (tasks: readonly TargetTask[]): Members | undefined =>
  tasks
    .filter(({ members }) => members !== undefined)
    .toSorted((a, b) => ((a.queuedAt ?? '') < (b.queuedAt ?? '') ? -1 : 1))
    .at(-1)?.members;
