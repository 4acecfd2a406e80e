import { parseInvocation } from './core/events.ts';
import { providerEventHeeder } from './lifecycle/heed-provider-event.ts';
import { reconcileUsers } from './lifecycle/reconcile-users.ts';
import { handlerOf } from './runtime/compose.ts';
import { reconcileUsersEnvironment } from './runtime/env.ts';
import { openNotes } from './runtime/notes.ts';

const heed = providerEventHeeder();

/**
 * Invoked by its schedule as dispatcher, by its queue as worker, and by the bus with what a vendor told. Answers the messages
 * that are to come again.
 */
export const handler = handlerOf(
  reconcileUsersEnvironment,
  (event, until, rekey, environment) => {
    const invocation = parseInvocation(event, ['pass', 'messages', 'provider-event']);
    if (invocation.is === 'provider-event') return heed(invocation, rekey);
    const webhookBaseUrl = environment.REKEY_WEBHOOK_BASE_URL;
    return reconcileUsers(invocation, { webhookBaseUrl }, until, rekey);
  },
  { openNotes },
);
