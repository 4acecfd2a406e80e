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

/** A clock that a test or a demonstration can put forward. */
export interface MovableClock extends Clock {
  /** Puts the clock forward, and wakes whoever meant to sleep until then, the earliest first. Never back. */
  move(ms: number): void;
  /** When the next sleeper wakes; undefined while nobody sleeps. */
  nextWake(): Date | undefined;
}

export const isMovable = (clock: Clock): clock is MovableClock => 'move' in clock && 'nextWake' in clock;

interface Sleeper {
  readonly until: number;
  readonly wake: () => void;
}

/** The machine's own time from `start` on, but for what it is moved. @default start: now */
export function createMovableClock(start?: Date): MovableClock {
  let offsetMs = start === undefined ? 0 : start.getTime() - Date.now();
  const sleepers = new Set<Sleeper>();
  let timer: NodeJS.Timeout | undefined;
  const nowMs = () => Date.now() + offsetMs;
  const earliest = (): number | undefined =>
    sleepers.size === 0 ? undefined : Math.min(...[...sleepers].map(({ until }) => until));

  /** Wakes who is due and sets the one timer to the next of them: none is left when nobody sleeps. */
  function wakeDue(): void {
    clearTimeout(timer);
    const now = nowMs();
    const due = [...sleepers].filter(({ until }) => until <= now).sort((a, b) => a.until - b.until);
    for (const sleeper of due) {
      sleepers.delete(sleeper);
      sleeper.wake();
    }
    const next = earliest();
    if (next !== undefined) timer = setTimeout(wakeDue, Math.min(Math.max(next - now, 1), longestTimerMs));
  }

  return {
    now: () => new Date(nowMs()),
    sleep(ms, signal) {
      if (!(ms > 0) || signal?.aborted) return Promise.resolve();
      const { promise, resolve } = Promise.withResolvers<void>();
      const sleeper = { until: nowMs() + ms, wake: resolve };
      sleepers.add(sleeper);
      wakeDue();
      if (signal === undefined) return promise;
      const abort = () => {
        sleepers.delete(sleeper);
        wakeDue();
        resolve();
      };
      signal.addEventListener('abort', abort, { once: true });
      return promise.finally(() => signal.removeEventListener('abort', abort));
    },
    move(ms) {
      if (!(ms >= 0)) throw new RangeError(`a clock only moves forward: got ${ms} ms`);
      offsetMs += ms;
      wakeDue();
    },
    nextWake() {
      const next = earliest();
      return next === undefined ? undefined : new Date(next);
    },
  };
}

/** Sleeps by `clock`, and wakes when `signal` is aborted even if the clock pays no attention to it. */
export async function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  const wake = () => resolve();
  signal.addEventListener('abort', wake, { once: true });
  await Promise.race([clock.sleep(ms, signal), aborted]);
  signal.removeEventListener('abort', wake);
}
