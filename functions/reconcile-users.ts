import { parseInvocation } from './core/events.ts';
import { reconcileUsers } from './lifecycle/reconcile-users.ts';
import { handlerOf } from './runtime/compose.ts';
import { reconcileUsersEnvironment } from './runtime/env.ts';

/** Invoked by its schedule as dispatcher and by its queue as worker. Answers the messages that are to come again. */
export const handler = handlerOf(reconcileUsersEnvironment, (event, until, rekey) =>
  reconcileUsers(parseInvocation(event, ['pass', 'messages']), until, rekey),
);
