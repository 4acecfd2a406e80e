import { parseInvocation } from './core/events.ts';
import { updateConsumers } from './lifecycle/update-consumers.ts';
import { handlerOf } from './runtime/compose.ts';
import { updateConsumersEnvironment } from './runtime/env.ts';
import { openNotes } from './runtime/notes.ts';

/** Invoked by Secrets Manager's event of a label that moved; an event that fails is retried, and reconcile comes after it. */
export const handler = handlerOf(
  updateConsumersEnvironment,
  (event, until, rekey) => updateConsumers(parseInvocation(event, ['label-moved']), until, rekey),
  { openNotes },
);
