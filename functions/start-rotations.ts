import { parseInvocation } from './core/events.ts';
import { carryOutStarts } from './lifecycle/carry-out-starts.ts';
import { noteOrder, notePause } from './lifecycle/orders.ts';
import { startRotations } from './lifecycle/start-rotations.ts';
import { startRotationsEnvironment } from './runtime/env.ts';
import { queuedHandlerOf } from './runtime/queued-events.ts';

/** For so long a batch of orders is carried out before the next one is stored. The pass of the schedule goes on with the rest. */
const carryOutMs = 60_000;

/**
 * Invoked by its schedule; with orders to rotate, to pause or to go on, which wait in a queue; and with the starts of its own queue.
 * Answers a schedule, or a person, what it started and what it held back, and why.
 *
 * Every order of a batch is stored before any is carried out. In an emergency they come by the hundred, and each pass reads all
 * credentials: one pass carries out all that is stored.
 */
export const handler = queuedHandlerOf(startRotationsEnvironment, {
  direct: (event, until, rekey, { REKEY_ROTATION_FUNCTION_ARN: rotationFunctionArn }) =>
    startRotations(parseInvocation(event, ['pass', 'order', 'pause']), { rotationFunctionArn }, until, rekey),
  event: (event, _until, rekey) => {
    const invocation = parseInvocation(event, ['order', 'pause']);
    return invocation.is === 'order' ? noteOrder(invocation, rekey) : notePause(invocation, rekey);
  },
  leastTimeMs: 30_000,
  // While more orders are waiting to be stored, this waits, too: the last batch carries them all out.
  async afterwards(until, rekey, { REKEY_ROTATION_FUNCTION_ARN: rotationFunctionArn }) {
    const soon = new Date((await rekey.ports.now()).getTime() + carryOutMs);
    const pass = { is: 'pass', dryRun: false } as const;
    await startRotations(pass, { rotationFunctionArn }, soon < until ? soon : until, rekey);
  },
  tasks: {
    check: (event) => void parseInvocation(event, ['starts']),
    use: (event, until, rekey, { REKEY_ROTATION_FUNCTION_ARN: rotationFunctionArn }) =>
      carryOutStarts(parseInvocation(event, ['starts']), { rotationFunctionArn }, until, rekey),
  },
});
