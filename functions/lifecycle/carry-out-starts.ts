import type { Invocation } from '../core/events.ts';
import { targetKey } from '../core/fleet.ts';
import type { Rekey } from './rekey.ts';
import { startRotations } from './start-rotations.ts';

type Start = Extract<Invocation, { readonly is: 'starts' }>['starts'][number];

/** What a start waits for that passes by itself within minutes. Whatever else holds a rotation, the next pass looks at again. */
const passing: ReadonlySet<string> = new Set(['TARGET_BUSY', 'CHANGED', 'OUT_OF_TIME']);

/**
 * Starts the rotations that were sent to the queue of starts, one target after the other and one credential after the other, and
 * nothing else. Each is judged anew: a message only says where to look, so one that comes late or twice starts nothing that is not due.
 * Answers the messages that are to come again. After the first of a target, its later ones do, too: their turn comes after it.
 */
export async function carryOutStarts(
  { starts }: Extract<Invocation, { readonly is: 'starts' }>,
  options: { readonly rotationFunctionArn: string },
  until: Date,
  rekey: Rekey,
): Promise<{ readonly batchItemFailures: readonly { readonly itemIdentifier: string }[] }> {
  const again: Start[] = [];
  const targets = Map.groupBy(starts, ({ provider, targetId }) => targetKey(provider, targetId));
  for (const ofTarget of targets.values()) {
    let isHeld = false;
    for (const start of ofTarget) {
      isHeld ||= !(await isSeenTo(start, options, until, rekey));
      if (isHeld) again.push(start);
    }
  }
  return { batchItemFailures: again.map(({ messageId }) => ({ itemIdentifier: messageId })) };
}

async function isSeenTo(
  { credential, messageId }: Start,
  options: { readonly rotationFunctionArn: string },
  until: Date,
  rekey: Rekey,
): Promise<boolean> {
  try {
    const { held, failed } = await startRotations(
      { is: 'pass', dryRun: false },
      { ...options, only: new Set([credential]) },
      until,
      rekey,
    );
    const isWaiting = held.some((each) => each.credential === credential && passing.has(each.reason));
    return !isWaiting && !failed.some((each) => each.credential === credential);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : 'DEFECT';
    rekey.log('warn', error instanceof Error ? error.message : String(error), {
      credential,
      messageId,
      code,
    });
    return false;
  }
}
