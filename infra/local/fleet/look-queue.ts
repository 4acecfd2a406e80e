import type { TargetTask } from '../../../functions/core/fleet.ts';
import type { Ports } from '../../../functions/core/ports.ts';
import { isDoneSince, type Look, wasSeenLately } from '../../../functions/lifecycle/looks.ts';
import { targetsAtOnce } from '../../../functions/lifecycle/reconcile-users.ts';
import type { Rekey } from '../../../functions/lifecycle/rekey.ts';

export interface LookQueueOptions {
  readonly targets: number;
  /** How long one look takes. */
  readonly lookSeconds: number;
  readonly batchSize: number;
  /** Batches at one time. */
  readonly maxConcurrency: number;
  readonly hours: number;
}

export interface LookQueueReport {
  /** The longest that a target waited for its first look, or for the next one. */
  readonly maxGapSeconds: number;
  /** The longest that the queue was after each pass of the dispatcher. */
  readonly queuedAfterPass: readonly number[];
  readonly looks: number;
}

const passSeconds = 3_600;

/**
 * The queue between the dispatcher of reconcile-users and its workers, hour by hour: which targets a pass sends and which tasks a worker
 * drops is decided by the functions' own code, and a look is nothing but the time that it takes.
 */
export async function playLookQueue({
  targets,
  lookSeconds,
  batchSize,
  maxConcurrency,
  hours,
}: LookQueueOptions): Promise<LookQueueReport> {
  const startMs = Date.parse('2026-01-01T00:00:00Z');
  const looks = new Map<string, Look>();
  const seen = new Map<string, number>();
  const ids = Array.from({ length: targets }, (_, index) => `t${index}`);
  const queue: TargetTask[] = [];
  const queuedAfterPass: number[] = [];
  let made = 0;
  let maxGapMs = 0;
  let taken = 0;
  const readNote: Ports['readNote'] = async ({ key }) => {
    const look = looks.get(key);
    return look === undefined
      ? 'absent'
      : {
          key,
          document: JSON.stringify(look),
          revision: 1,
          expiresAt: new Date(look.startedAt.getTime() + 1),
        };
  };
  const rekey = { ports: { readNote }, log: () => undefined } as unknown as Rekey;
  const keyOf = ({ targetId }: Pick<TargetTask, 'targetId'>): string => `simulated/${targetId}`;

  const freeAt = Array.from({ length: maxConcurrency }, () => startMs);
  for (let hour = 0; hour < hours; hour += 1) {
    const now = new Date(startMs + hour * passSeconds * 1000);
    const end = now.getTime() + passSeconds * 1000;
    for (const targetId of ids)
      if (!wasSeenLately(looks.get(keyOf({ targetId })), now))
        queue.push({ provider: 'simulated', targetId, queuedAt: now.toISOString() });
    queuedAfterPass.push(queue.length - taken);
    for (;;) {
      const worker = freeAt.indexOf(Math.min(...freeAt));
      const at = Math.max(freeAt[worker] ?? 0, now.getTime());
      if (at >= end || taken >= queue.length) break;
      const batch = queue.slice(taken, taken + batchSize);
      taken += batch.length;
      // As many at one time as a worker looks at; each of them takes the next when it is through.
      const lanes = Array.from({ length: targetsAtOnce }, () => at);
      for (const task of batch) {
        const lane = lanes.indexOf(Math.min(...lanes));
        const startedAt = lanes[lane] ?? at;
        if (await isDoneSince([task], rekey)) continue;
        lanes[lane] = startedAt + lookSeconds * 1000;
        looks.set(keyOf(task), { startedAt: new Date(startedAt), hasFailed: false });
        made += 1;
        maxGapMs = Math.max(maxGapMs, startedAt - (seen.get(task.targetId) ?? startMs));
        seen.set(task.targetId, startedAt);
      }
      freeAt[worker] = Math.max(...lanes);
    }
  }
  const endMs = startMs + hours * passSeconds * 1000;
  for (const id of ids) maxGapMs = Math.max(maxGapMs, endMs - (seen.get(id) ?? startMs));
  return { maxGapSeconds: maxGapMs / 1000, queuedAfterPass, looks: made };
}
