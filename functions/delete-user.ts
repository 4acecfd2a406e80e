import { parseInvocation } from './core/events.ts';
import { deleteUsers } from './lifecycle/delete-user.ts';
import { deleteUserEnvironment } from './runtime/env.ts';
import { openNotes } from './runtime/notes.ts';
import { queuedHandlerOf } from './runtime/queued-events.ts';

/**
 * Invoked by its schedule, and with what its queue holds: a credential was rotated, is compromised or is to be deleted. Answers a
 * schedule, or a person, what it retired and what stays.
 */
export const handler = queuedHandlerOf(
  deleteUserEnvironment,
  {
    direct: (event, until, rekey) =>
      deleteUsers(parseInvocation(event, ['pass', 'order', 'rotated']), until, rekey),
    event: (event, until, rekey) => deleteUsers(parseInvocation(event, ['order', 'rotated']), until, rekey),
    // A visit of a target takes two minutes: with less, the credential would be left to the next pass.
    leastTimeMs: 150_000,
  },
  { openNotes },
);
