import { parseInvocation } from './core/events.ts';
import { maxBatch } from './core/queued-events.ts';
import { updateConsumers } from './lifecycle/update-consumers.ts';
import { updateConsumersEnvironment } from './runtime/env.ts';
import { openNotes } from './runtime/notes.ts';
import { queuedHandlerOf, type Use } from './runtime/queued-events.ts';

const update: Use<typeof updateConsumersEnvironment> = (event, until, rekey) =>
  updateConsumers(parseInvocation(event, ['label-moved']), until, rekey);

/** Takes Secrets Manager's event of a label that moved out of its queue; reconcile-users comes after it. */
export const handler = queuedHandlerOf(
  updateConsumersEnvironment,
  {
    direct: update,
    event: update,
    // Each waits for minutes for a deploy, and none has to do with another.
    atOnce: maxBatch,
    leastTimeMs: 60_000,
  },
  { openNotes },
);
