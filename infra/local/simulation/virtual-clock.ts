import type { Clock } from '../clock.ts';

/** Time that passes only when nobody has anything left to do: a year of waiting takes as long as the work in it. */
export interface VirtualClock extends Clock {
  /** Lets everything happen that is due before `until`, in its order; afterwards it is then. */
  runUntil(until: Date): Promise<void>;
}

interface Sleeper {
  readonly at: number;
  readonly order: number;
  readonly wake: () => void;
}

export function createVirtualClock(start: Date): VirtualClock {
  let now = start.getTime();
  let order = 0;
  const sleepers = new Heap();
  return {
    now: () => new Date(now),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted) return resolve();
        order += 1;
        sleepers.push({ at: now + Math.max(0, ms), order, wake: resolve });
        signal?.addEventListener('abort', () => resolve(), { once: true });
      }),
    async runUntil(until) {
      for (;;) {
        // Everything runs in this process: when the loop turns, whoever was woken waits again, for the clock and nothing else.
        await new Promise(setImmediate);
        const next = sleepers.peek();
        if (next === undefined || next.at > until.getTime()) break;
        now = Math.max(now, next.at);
        sleepers.pop()?.wake();
      }
      now = until.getTime();
    },
  };
}

/** The earliest first; of those at one time the one that lay down first. */
class Heap {
  readonly #items: Sleeper[] = [];
  peek(): Sleeper | undefined {
    return this.#items[0];
  }
  push(item: Sleeper): void {
    let at = this.#items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#isBefore(at, parent)) break;
      this.#swap(at, parent);
      at = parent;
    }
  }
  pop(): Sleeper | undefined {
    const first = this.#items[0];
    const last = this.#items.pop();
    if (first === undefined || last === undefined || first === last) return first;
    this.#items[0] = last;
    let at = 0;
    for (;;) {
      const least = [2 * at + 1, 2 * at + 2].reduce(
        (best, child) => (child < this.#items.length && this.#isBefore(child, best) ? child : best),
        at,
      );
      if (least === at) return first;
      this.#swap(at, least);
      at = least;
    }
  }
  #isBefore(a: number, b: number): boolean {
    const [first, second] = [this.#items[a], this.#items[b]];
    if (first === undefined || second === undefined) return false;
    return first.at - second.at < 0 || (first.at === second.at && first.order < second.order);
  }
  #swap(a: number, b: number): void {
    const [first, second] = [this.#items[a], this.#items[b]];
    if (first === undefined || second === undefined) return;
    this.#items[a] = second;
    this.#items[b] = first;
  }
}
