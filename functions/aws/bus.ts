import {
  type EventBridgeClient,
  PutEventsCommand,
  type PutEventsRequestEntry,
} from '@aws-sdk/client-eventbridge';
import { StoreError } from '../core/errors.ts';
import { eventSource } from '../core/names.ts';
import type { Ports } from '../core/ports.ts';
import { failureOf } from './failure.ts';

/** These are EventBridge's to mend; every other code refuses the same entry again (AWS documentation, PutEvents). */
const retryable = new Set(['InternalFailure', 'ThrottlingException']);
const mostEntries = 10;
const mostAttempts = 5;

/** The port to the bus. An answer of 200 may hold failed entries, which the SDK does not see: each one is inspected. */
export function eventBridge(
  client: EventBridgeClient,
  busName: string,
  { sleep }: Pick<Ports, 'sleep'>,
): Ports['publish'] {
  return async (events) => {
    const entries = events.map(({ type, detail }) => ({
      EventBusName: busName,
      Source: eventSource,
      DetailType: type,
      Detail: JSON.stringify(detail),
      ...('secretArn' in detail ? { Resources: [detail.secretArn] } : {}),
    }));
    let taken = 0;
    for (let from = 0; from < entries.length; from += mostEntries) {
      let left: readonly PutEventsRequestEntry[] = entries.slice(from, from + mostEntries);
      for (let attempt = 1; left.length > 0; attempt += 1) {
        if (attempt > 1) await sleep(100 * 2 ** (attempt - 1));
        const failed = await put(left);
        taken += left.length - failed.length;
        const lasting = failed.find(({ code }) => attempt >= mostAttempts || !retryable.has(code));
        if (lasting !== undefined)
          throw new StoreError(
            'EVENT_NOT_PUBLISHED',
            taken === 0 ? 'none' : 'applied',
            `${entries.length - taken} of ${entries.length} events were not taken by ${busName} (${lasting.code}); check the bus and the function's role`,
          );
        left = failed.map(({ entry }) => entry);
      }
    }
  };

  /** The entries that the bus did not take, each with the code that says why. */
  async function put(
    entries: readonly PutEventsRequestEntry[],
  ): Promise<readonly { readonly entry: PutEventsRequestEntry; readonly code: string }[]> {
    const { Entries: answers = [] } = await client
      .send(new PutEventsCommand({ Entries: [...entries] }))
      .catch((error: unknown) => {
        throw failureOf(error, `PutEvents on ${busName}`, 'unknown');
      });
    return entries.flatMap((entry, index) => {
      const { EventId, ErrorCode } = answers[index] ?? {};
      // Only the id says that an event was taken; an entry that got neither id nor code was lost inside EventBridge.
      return EventId !== undefined ? [] : [{ entry, code: ErrorCode ?? 'InternalFailure' }];
    });
  }
}
