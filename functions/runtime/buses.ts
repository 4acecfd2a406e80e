import { EventBridgeClient } from '@aws-sdk/client-eventbridge';
import { eventBridge, otherBuses } from '../aws/bus.ts';
import type { Ports } from '../core/ports.ts';
import { patience } from './patience.ts';

/** rekey's own bus and the users', with a client of their own, apart from compose.ts so that a function starts without it. */
export function openBuses(
  busName: string,
  ports: Pick<Ports, 'sleep'>,
  clock: () => Date,
): Pick<Ports, 'publish' | 'notify'> {
  const client = new EventBridgeClient({ requestHandler: patience });
  return { publish: eventBridge(client, busName, ports), notify: otherBuses(client, ports, clock) };
}
