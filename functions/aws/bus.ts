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

/** The port to the bus. An answer of 200 may hold failed entries, which the SDK does not see: each one is inspected. */
export function eventBridge(
  client: EventBridgeClient,
  busName: string,
  { sleep }: Pick<Ports, 'sleep'>,
): Ports['publish'] {
  async function put(entries: readonly PutEventsRequestEntry[]): Promise<void> {
    let left = entries;
    for (let attempt = 1; left.length > 0; attempt += 1) {
      const { Entries: answers = [] } = await client
        .send(new PutEventsCommand({ Entries: [...left] }))
        .catch((error: unknown) => {
          throw failureOf(error, `PutEvents on ${busName}`, 'unknown');
        });
      const failed = left.flatMap((entry, index) => {
        const code = answers[index]?.ErrorCode;
        return code === undefined ? [] : [{ entry, code }];
      });
      const hopeless = failed.find(({ code }) => !retryable.has(code));
      if (hopeless !== undefined || (failed.length > 0 && attempt >= 5))
        throw new StoreError(
          'EVENT_NOT_PUBLISHED',
          'none',
          `${failed.length} of ${entries.length} events were not taken by ${busName} (${failed[0]?.code}); check the bus and the function's role`,
        );
      left = failed.map(({ entry }) => entry);
      if (left.length > 0) await sleep(100 * 2 ** attempt);
    }
  }
  return async (events) => {
    const entries = events.map(({ type, detail }) => ({
      EventBusName: busName,
      Source: eventSource,
      DetailType: type,
      Detail: JSON.stringify(detail),
      ...('secretArn' in detail ? { Resources: [detail.secretArn] } : {}),
    }));
    for (let from = 0; from < entries.length; from += mostEntries)
      await put(entries.slice(from, from + mostEntries));
  };
}
