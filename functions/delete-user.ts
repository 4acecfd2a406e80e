import { parseInvocation } from './core/events.ts';
import { deleteUsers } from './lifecycle/delete-user.ts';
import { handlerOf } from './runtime/compose.ts';
import { deleteUserEnvironment } from './runtime/env.ts';
import { openNotes } from './runtime/notes.ts';

/** Invoked by its schedule and by the bus: a credential was rotated, or is to be deleted. Answers what it retired and what stays. */
export const handler = handlerOf(
  deleteUserEnvironment,
  (event, until, rekey) => deleteUsers(parseInvocation(event, ['pass', 'order', 'rotated']), until, rekey),
  { openNotes },
);
