import { workers } from '../../workers.ts';
import type { FleetModel } from './model.ts';

export interface Emergency {
  /** Whether delete-user works beside it, as it is deployed. @default true */
  readonly withDeleteUser?: boolean;
}

export interface EmergencyReport {
  /** From the orders to the last of the new logins. */
  readonly seconds: number;
  /** From the orders to the deletion of the last user that was reported. Undefined where delete-user does not work. */
  readonly revokedSeconds?: number;
  /** What Parameter Store needs to take one order for each, and one rotation alone. Nothing can be faster under the quotas. */
  readonly boundSeconds: number;
  readonly rotated: number;
  /** How often an order, a start or an event came again. */
  readonly cameAgain: number;
}

const minuteMs = 60_000;
const ordersPerSecond = 3;
const secondsUntilTry = 60;
/** What reports itself as not over by then would never be. */
const longestMs = 24 * 60 * minuteMs;

/**
 * Orders for all credentials, all at one moment, with the queues and workers as they are deployed: start-rotations takes the orders and
 * carries them out, delete-user hears of each order and of each rotation, and the passes come as they always do.
 */
export async function playEmergency(
  fleet: FleetModel,
  { withDeleteUser = true }: Emergency = {},
): Promise<EmergencyReport> {
  const { clock, functions, sent } = fleet;
  const alone = await rotationAlone(fleet);
  const names = fleet.names;
  const orderedAt = clock.now();
  const startMs = orderedAt.getTime();
  sent.rotated.length = 0;
  sent.starts.length = 0;
  const orders = names.map((name) => fleet.compromised(name, orderedAt));
  const events: Parameters<typeof functions.deletion>[0][] = [...orders];
  const wanted = new Set(names);
  let lastAt = startMs;
  let cameAgain = 0;
  let heard = 0;
  /** The users that are there when the orders come. */
  let leaked = [...fleet.vendors.targets].flatMap(([, { users }]) =>
    [...users].flatMap(([username, { isDefault }]) => (isDefault ? [] : [{ users, username }])),
  );
  let revokedAt = startMs;
  const noteRevoked = (): void => {
    if (leaked.length === 0) return;
    leaked = leaked.filter(({ users, username }) => users.has(username));
    revokedAt = clock.now().getTime();
  };
  const isOver = (): boolean => {
    for (; heard < sent.rotated.length; heard += 1) {
      const rotated = sent.rotated[heard];
      if (rotated === undefined) continue;
      if (wanted.delete(rotated.credential)) lastAt = rotated.at.getTime();
      events.push({ is: 'rotated', credential: rotated.credential });
    }
    const isDone = wanted.size === 0 && (leaked.length === 0 || !withDeleteUser);
    return isDone || clock.now().getTime() - startMs > longestMs;
  };

  /** One worker of a queue. What it could not do comes again. */
  async function work<Item>(
    queue: Item[],
    batch: number,
    use: (items: readonly Item[]) => Promise<readonly Item[]>,
  ): Promise<void> {
    while (!isOver()) {
      const items = queue.splice(0, batch);
      if (items.length === 0) await clock.sleep(1_000);
      const again = items.length === 0 ? [] : await use(items);
      if (again.length === 0) continue;
      cameAgain += again.length;
      void clock.sleep(secondsUntilTry * 1000).then(() => queue.push(...again));
    }
  }
  const failing = async <Item>(item: Item, use: () => Promise<unknown>): Promise<readonly Item[]> =>
    use().then(
      () => [],
      () => [item],
    );
  async function repeat(everyMs: number, pass: () => Promise<unknown>): Promise<void> {
    while (!isOver()) {
      await pass().catch(() => undefined);
      await clock.sleep(everyMs - ((clock.now().getTime() - startMs) % everyMs));
    }
  }
  const many = (count: number, make: () => Promise<void>): readonly Promise<void>[] =>
    Array.from({ length: count }, make);

  const waiting = [...orders];
  const running = [
    ...many(workers.orders.maxConcurrency, () =>
      work(waiting, workers.orders.batchSize, async (taken) =>
        (await Promise.all(taken.map((order) => failing(order, () => functions.order(order))))).flat(),
      ),
    ),
    ...many(workers.starts.maxConcurrency, () =>
      work(sent.starts, workers.starts.batchSize, async (taken) => {
        const starts = taken.map((body, index) => ({
          messageId: String(index),
          credential: String(JSON.parse(body).credential),
        }));
        const { answer } = await functions.carryOut(starts);
        return taken.filter((_, index) => answer.failed.includes(String(index)));
      }),
    ),
    ...many(withDeleteUser ? workers.deletions.maxConcurrency : 0, () =>
      work(events, workers.deletions.batchSize, async (taken) => {
        const again: (typeof taken)[number][] = [];
        // One after the other.
        for (const event of taken) again.push(...(await failing(event, () => functions.deletion(event))));
        return again;
      }),
    ),
    repeat(5 * minuteMs, functions.startPass),
    ...(withDeleteUser ? [repeat(15 * minuteMs, functions.deletePass)] : []),
  ];
  await fleet.play(() => untilOver(fleet, noteRevoked, isOver));
  // What is still under way has nothing to do with the answer, and would go on in the next measurement.
  await fleet.play(() => Promise.all(running));
  return {
    seconds: wanted.size === 0 ? (lastAt - startMs) / 1000 : Number.POSITIVE_INFINITY,
    ...(withDeleteUser && leaked.length === 0 ? { revokedSeconds: (revokedAt - startMs) / 1000 } : {}),
    boundSeconds: names.length / ordersPerSecond + alone,
    rotated: names.length - wanted.size,
    cameAgain,
  };
}

async function untilOver({ clock }: FleetModel, look: () => void, isOver: () => boolean): Promise<void> {
  while (!isOver()) {
    await clock.sleep(10_000);
    look();
  }
}

/** How long one order takes that has AWS to itself. */
async function rotationAlone({
  clock,
  functions,
  names,
  sent,
  play,
  compromised,
}: FleetModel): Promise<number> {
  const credential = names.at(-1) ?? '';
  const startMs = clock.now().getTime();
  sent.rotated.length = 0;
  await play(() => functions.order(compromised(credential)));
  sent.starts.length = 0;
  await play(() => functions.carryOut([{ messageId: '0', credential }]));
  const [rotated] = sent.rotated;
  if (rotated === undefined) throw new Error(`${credential} was not rotated`);
  // The next order is later than the version that this one has made.
  await clock.runUntil(new Date(clock.now().getTime() + minuteMs));
  return (rotated.at.getTime() - startMs) / 1000;
}
