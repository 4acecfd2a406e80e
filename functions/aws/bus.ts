import {
  type EventBridgeClient,
  PutEventsCommand,
  type PutEventsCommandOutput,
  type PutEventsRequestEntry,
} from '@aws-sdk/client-eventbridge';
import { eventSource } from '../core/names.ts';
import type { Ports } from '../core/ports.ts';
import { type RefusedEntry, sendAll } from './batches.ts';
import { guarded } from './guarded.ts';

/** These are EventBridge's to mend; every other code refuses the same entry again (AWS documentation, PutEvents). */
const retryable = new Set(['InternalFailure', 'ThrottlingException']);

/** The port to rekey's own bus. */
export function eventBridge(
  client: EventBridgeClient,
  busName: string,
  ports: Pick<Ports, 'sleep'>,
): Ports['publish'] {
  return async (events) => {
    const entries = events.map(({ type, detail }) => ({
      EventBusName: busName,
      Source: eventSource,
      DetailType: type,
      Detail: JSON.stringify(detail),
      ...('secretArn' in detail ? { Resources: [detail.secretArn] } : {}),
    }));
    await put(busName, entries, (command) => client.send(command), ports);
  };
}

/** The port to the users' buses. One that does not exist takes every event and drops it (localstack's recordings). */
export function otherBuses(
  client: EventBridgeClient,
  ports: Pick<Ports, 'sleep'>,
  clock: () => Date = () => new Date(),
): Ports['notify'] {
  return async ({ busName, type, detail, resources, guard }) => {
    const entry = {
      EventBusName: busName,
      Source: eventSource,
      DetailType: type,
      Detail: JSON.stringify(detail),
      Resources: [...resources],
    };
    await put(busName, [entry], (command) => client.send(guarded(command, guard, clock)), ports);
  };
}

const put = (
  busName: string,
  entries: readonly PutEventsRequestEntry[],
  send: (command: PutEventsCommand) => Promise<PutEventsCommandOutput>,
  ports: Pick<Ports, 'sleep'>,
): Promise<void> =>
  sendAll(
    entries,
    { call: 'PutEvents', things: 'events', to: busName },
    async (sent): Promise<readonly RefusedEntry<PutEventsRequestEntry>[]> => {
      const { Entries: answers = [] } = await send(new PutEventsCommand({ Entries: [...sent] }));
      return sent.flatMap((entry, index) => {
        const { EventId, ErrorCode, ErrorMessage: message } = answers[index] ?? {};
        // Only the id says that an event was taken; an entry that got neither id nor code was lost inside EventBridge.
        const code = ErrorCode ?? 'InternalFailure';
        return EventId !== undefined ? [] : [{ entry, code, message, mayPass: retryable.has(code) }];
      });
    },
    ports,
  );
