import { parseInvocation } from './core/events.ts';
import { carryOutOrders, takeOrder } from './lifecycle/carry-out-orders.ts';
import { startRotations } from './lifecycle/start-rotations.ts';
import { startRotationsEnvironment } from './runtime/env.ts';
import { openNotes } from './runtime/notes.ts';
import { queuedHandlerOf } from './runtime/queued-events.ts';

/**
 * Invoked by its schedule; with orders to rotate and with pauses, which wait in a queue each; and with the starts of its own queue.
 * Answers a schedule, or a person, what it started and what it held back, and why.
 */
export const handler = queuedHandlerOf(
  startRotationsEnvironment,
  {
    direct: (event, until, rekey, { REKEY_ROTATION_FUNCTION_ARN: rotationFunctionArn }) =>
      startRotations(parseInvocation(event, ['pass']), { rotationFunctionArn }, until, rekey),
    event: (event, until, rekey) => takeOrder(parseInvocation(event, ['order', 'pause']), until, rekey),
    // Each waits for Parameter Store most of the time.
    atOnce: 10,
    leastTimeMs: 60_000,
    tasks: {
      check: (event) => void parseInvocation(event, ['starts']),
      async use(event, until, rekey, { REKEY_ROTATION_FUNCTION_ARN: rotationFunctionArn }) {
        const { starts } = parseInvocation(event, ['starts']);
        const { failed } = await carryOutOrders(starts, { rotationFunctionArn }, until, rekey);
        return { batchItemFailures: failed.map((itemIdentifier) => ({ itemIdentifier })) };
      },
    },
  },
  { openNotes },
);
