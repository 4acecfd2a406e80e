import type { Invocation } from '../../functions/core/events.ts';
import type { StartTask } from '../../functions/core/fleet.ts';
import { type CarriedOut, carryOutOrders, takeOrder } from '../../functions/lifecycle/carry-out-orders.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';

/** An order as start-rotations takes it, and then the queue that it fills is worked off, in one invocation. */
export async function takeAndCarryOut(
  order: Extract<Invocation, { readonly is: 'order' | 'pause' }>,
  options: { readonly rotationFunctionArn: string },
  until: Date,
  rekey: Rekey,
): Promise<CarriedOut> {
  const queued: StartTask[] = [];
  const enqueueStart = async (starts: readonly StartTask[]): Promise<void> => void queued.push(...starts);
  await takeOrder(order, until, { ...rekey, ports: { ...rekey.ports, enqueueStart } });
  const starts = queued.map(({ id, ...start }) => ({ ...start, messageId: id }));
  return carryOutOrders(starts, options, until, rekey);
}
