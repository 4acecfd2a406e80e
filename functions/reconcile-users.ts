import { parseInvocation } from './core/events.ts';
import { providerEventHeeder } from './lifecycle/heed-provider-event.ts';
import { reconcileUsers } from './lifecycle/reconcile-users.ts';
import { reconcileUsersEnvironment } from './runtime/env.ts';
import { openNotes } from './runtime/notes.ts';
import { queuedHandlerOf } from './runtime/queued-events.ts';

const heed = providerEventHeeder();

/**
 * Invoked by its schedule as dispatcher, by the queues of targets as worker, and with what a vendor told, which waits in a queue,
 * too. Answers the messages that are to come again.
 */
export const handler = queuedHandlerOf(
  reconcileUsersEnvironment,
  {
    direct: (event, until, rekey, { REKEY_WEBHOOK_BASE_URL: webhookBaseUrl }) => {
      const invocation = parseInvocation(event, ['pass', 'provider-event']);
      return invocation.is === 'provider-event'
        ? heed(invocation, rekey)
        : reconcileUsers(invocation, { webhookBaseUrl }, until, rekey);
    },
    event: (event, _until, rekey) => heed(parseInvocation(event, ['provider-event']), rekey),
    leastTimeMs: 60_000,
    tasks: {
      use: (event, until, rekey, { REKEY_WEBHOOK_BASE_URL: webhookBaseUrl }) =>
        reconcileUsers(parseInvocation(event, ['messages']), { webhookBaseUrl }, until, rekey),
      // The next pass looks again within the hour: sooner and more often would only load a vendor that is in trouble.
      secondsUntilTry: () => 600,
    },
  },
  { openNotes },
);
