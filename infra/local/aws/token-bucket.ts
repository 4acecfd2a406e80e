import type { Clock } from '../clock.ts';

export interface Rate {
  readonly ratePerSecond: number;
  /** How many fit at once. */
  readonly burst: number;
}

/** Whether there is room for one more call: `burst` at once, and `ratePerSecond` from then on. */
export function tokenBucket(clock: Clock, { ratePerSecond, burst }: Rate): () => boolean {
  // In thousandths of a token, which milliseconds times a whole rate give without a rounding error.
  const capacity = burst * 1000;
  let left = capacity;
  let filledAt = clock.now().getTime();
  return () => {
    const now = clock.now().getTime();
    left = Math.min(capacity, left + Math.max(0, now - filledAt) * ratePerSecond);
    filledAt = now;
    if (left < 1000) return false;
    left -= 1000;
    return true;
  };
}
