import { describe, expect, test } from 'vitest';
import { type Clock, pause, systemClock } from '../../../infra/local/clock.ts';

describe('the system clock', () => {
  test('sleeps at least as long as asked', async () => {
    const before = systemClock.now().getTime();
    await systemClock.sleep(20);
    // Timers are rounded to whole milliseconds.
    expect(systemClock.now().getTime() - before).toBeGreaterThanOrEqual(19);
  });

  test('wakes when the signal is aborted, also from a sleep longer than one timer can be', async () => {
    const controller = new AbortController();
    const sleeping = systemClock.sleep(2 ** 40, controller.signal);
    controller.abort();
    await expect(sleeping).resolves.toBeUndefined();
  });
});

test('a pause ends with the signal even under a clock that ignores it', async () => {
  const stuck: Clock = { now: () => new Date(0), sleep: () => new Promise(() => undefined) };
  const controller = new AbortController();
  const pausing = pause(stuck, 1000, controller.signal);
  controller.abort();
  await expect(pausing).resolves.toBeUndefined();
});
