import { parseInvocation } from './core/events.ts';
import { startRotations } from './lifecycle/start-rotations.ts';
import { handlerOf } from './runtime/compose.ts';
import { startRotationsEnvironment } from './runtime/env.ts';
import { openNotes } from './runtime/notes.ts';

/** Invoked by its schedule and by the bus with an order to rotate, to pause or to go on. Answers what it started and what it held back, and why. */
export const handler = handlerOf(
  startRotationsEnvironment,
  (event, until, rekey, environment) => {
    const rotationFunctionArn = environment.REKEY_ROTATION_FUNCTION_ARN;
    return startRotations(
      parseInvocation(event, ['pass', 'order', 'pause']),
      { rotationFunctionArn },
      until,
      rekey,
    );
  },
  { openNotes },
);
