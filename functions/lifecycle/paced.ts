import type { Ports } from '../core/ports.ts';

/**
 * `use` with its calls spread so that at most `perSecond` of them begin within a second. Beyond a service's quota, the SDK's three
 * attempts come to nothing, and what could not be read stays undone.
 */
export function paced<Item, Result>(
  perSecond: number,
  { now, sleep }: Pick<Ports, 'now' | 'sleep'>,
  use: (item: Item) => Promise<Result>,
): (item: Item) => Promise<Result> {
  const gapMs = 1000 / perSecond;
  let next = 0;
  return async (item) => {
    const nowMs = (await now()).getTime();
    // A second's worth at once.
    const turn = Math.max(next, nowMs - 1000);
    next = turn + gapMs;
    if (turn > nowMs) await sleep(turn - nowMs);
    return use(item);
  };
}
