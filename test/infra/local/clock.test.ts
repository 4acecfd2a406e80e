import { getEventListeners } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Clock, createMovableClock, pause, systemClock } from '../../../infra/local/clock.ts';

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

describe('a movable clock', () => {
  const start = new Date('2026-03-01T12:00:00Z');
  const dayMs = 86_400_000;

  test('starts where it is told to and goes on by itself', async () => {
    const clock = createMovableClock(start);
    expect(clock.now().toISOString()).toMatch(/^2026-03-01T12:00:00/);
    await clock.sleep(20);
    expect(clock.now().getTime() - start.getTime()).toBeGreaterThanOrEqual(19);
  });

  test('tells the time of the machine when it is told nothing', () => {
    expect(Math.abs(createMovableClock().now().getTime() - Date.now())).toBeLessThan(1000);
  });

  test('wakes whoever is due after a move, the earliest first, and nobody else', async () => {
    const clock = createMovableClock(start);
    const woken: string[] = [];
    const ending = new AbortController();
    for (const [name, days] of [
      ['third', 3],
      ['first', 1],
      ['late', 40],
      ['second', 2],
    ] as const)
      void clock.sleep(days * dayMs, ending.signal).then(() => woken.push(name));
    clock.move(3 * dayMs);
    await nextTurn();
    expect(woken).toEqual(['first', 'second', 'third']);
    expect(clock.nextWake()?.toISOString()).toMatch(/^2026-04-10T12:00:00/);
    ending.abort();
  });

  test('forgets a sleeper whose signal was aborted, and leaves nothing on the signal of one who woke', async () => {
    const clock = createMovableClock(start);
    const controller = new AbortController();
    const short = clock.sleep(1000, controller.signal);
    clock.move(1000);
    await short;
    expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
    const long = clock.sleep(2 ** 40, controller.signal);
    expect(clock.nextWake()).toBeDefined();
    controller.abort();
    await expect(long).resolves.toBeUndefined();
    expect(clock.nextWake()).toBeUndefined();
    await expect(clock.sleep(1000, controller.signal)).resolves.toBeUndefined();
  });

  test('never goes back', () => {
    const clock = createMovableClock(start);
    expect(() => clock.move(-1)).toThrow('a clock only moves forward: got -1 ms');
    expect(() => clock.move(Number.NaN)).toThrow(RangeError);
  });

  test('wakes the same sleepers in many moves as in one', async () => {
    const hours = fc.integer({ min: 1, max: 1000 });
    await fc.assert(
      fc.asyncProperty(fc.array(hours), fc.array(hours), async (sleeps, moves) => {
        const clock = createMovableClock(start);
        const ending = new AbortController();
        const woken: number[] = [];
        for (const sleep of sleeps)
          void clock.sleep(sleep * 3_600_000, ending.signal).then(() => {
            if (!ending.signal.aborted) woken.push(sleep);
          });
        for (const move of moves) clock.move(move * 3_600_000);
        await nextTurn();
        const passed = moves.reduce((sum, move) => sum + move, 0);
        expect(woken).toEqual(sleeps.filter((sleep) => sleep <= passed).sort((a, b) => a - b));
        ending.abort();
      }),
      { numRuns: 100 },
    );
  });
});

test('a pause ends with the signal even under a clock that ignores it', async () => {
  const stuck: Clock = { now: () => new Date(0), sleep: () => new Promise(() => undefined) };
  const controller = new AbortController();
  const pausing = pause(stuck, 1000, controller.signal);
  controller.abort();
  await expect(pausing).resolves.toBeUndefined();
});
