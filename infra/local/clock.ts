import { setTimeout as wait } from 'node:timers/promises';

/** The only source of time for everything under `infra/local`, so that a test can move it. */
export interface Clock {
  now(): Date;
  /** Resolves once `ms` milliseconds have passed, or early when `signal` is aborted; never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** One timer holds at most 2^31 - 1 ms; Node fires a longer one at once. */
const longestTimerMs = 2 ** 31 - 1;

/** The machine's own time. */
export const systemClock: Clock = {
  now: () => new Date(),
  async sleep(ms, signal) {
    let leftMs = ms;
    while (leftMs > 0 && !signal?.aborted) {
      const partMs = Math.min(leftMs, longestTimerMs);
      await wait(partMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
      leftMs -= partMs;
    }
  },
};

/** Sleeps by `clock`, and wakes when `signal` is aborted even if the clock pays no attention to it. */
export async function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  const wake = () => resolve();
  signal.addEventListener('abort', wake, { once: true });
  await Promise.race([clock.sleep(ms, signal), aborted]);
  signal.removeEventListener('abort', wake);
}
