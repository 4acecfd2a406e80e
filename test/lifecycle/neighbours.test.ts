import { describe, expect, test } from 'vitest';
import { createSimulation } from '../simulation/world.ts';

const minuteMs = 60_000;
const dayMs = 86_400_000;
const start = new Date('2026-01-01T00:00:00Z');

/** No target of the simulation has the role `nope`. */
const spec = (name: string, { roles = 'orders_rw', ...overrides }: Record<string, unknown> = {}) => ({
  name,
  provider: 'simulated-choosing',
  target: { id: 'target-0' },
  apiKeySecret: 'rekey/api-keys/choosing',
  usernamePrefix: name,
  privileges: { roles },
  grace: 'PT24H',
  rotation: { every: 'P30D' },
  ...overrides,
});

/** Lives through days with passes as rare as they may be, and at the pace at which the functions are deployed once `hurry` was called. */
async function live(specs: readonly Readonly<Record<string, unknown>>[]) {
  const simulation = await createSimulation({
    start,
    run: 1,
    odds: { vendorFailure: 0, death: 0 },
    specs,
  });
  const { clock, secretsManager } = simulation;
  let pace = 3;
  const every = async (ms: number, act: () => Promise<unknown>): Promise<void> => {
    for (;;) {
      await clock.sleep(ms * pace);
      await act();
    }
  };
  void every(5 * minuteMs, simulation.start);
  void every(60 * minuteMs, simulation.reconcile);
  void every(60 * minuteMs, simulation.sweep);
  void every(60 * minuteMs, async () => secretsManager.tick());
  const instantsOf = (type: string, credential: string): readonly number[] =>
    simulation
      .events()
      .filter((event) => event['detail-type'] === type && event.detail['credential'] === credential)
      .map(({ time }) => new Date(time).getTime() - start.getTime());
  return {
    ...simulation,
    hurry: () => {
      pace = 1;
    },
    untilDay: (day: number) => clock.runUntil(new Date(start.getTime() + day * dayMs)),
    rotated: (credential: string) => instantsOf('CredentialRotated', credential),
    tried: (credential: string) =>
      simulation.starts
        .filter(({ secretId }) => secretId.includes(`/${credential}-`))
        .map(({ at }) => at.getTime() - start.getTime()),
  };
}

describe('I28: beside a credential that can never be rotated', () => {
  test.each([3, 12, 20])(
    'one that is declared on day %i has its first user within ten minutes',
    async (day) => {
      const { declare, hurry, rotated, untilDay } = await live([
        spec('broken', { roles: 'nope' }),
        spec('healthy'),
      ]);
      await untilDay(day - 0.1);
      hurry();
      await untilDay(day);
      await declare(spec('late'));
      await untilDay(day + 0.1);
      expect(rotated('late')).toHaveLength(1);
      expect((rotated('late')[0] ?? Number.NaN) - day * dayMs).toBeLessThan(10 * minuteMs);
    },
  );

  test('healthy ones keep their interval and window, and the broken one is tried once a day', async () => {
    const window = { start: '02:00', length: 'PT2H', timeZone: 'UTC' };
    const { rotated, tried, untilDay } = await live([
      spec('broken', { roles: 'nope' }),
      spec('hopeless', { roles: 'nope' }),
      spec('healthy', { rotation: { every: 'P7D' } }),
      spec('nightly', { rotation: { every: 'P5D', window } }),
    ]);
    await untilDay(18);
    for (const [name, days] of [
      ['healthy', 7],
      ['nightly', 5],
    ] as const) {
      const gaps = rotated(name).map((at, index, all) => at - (all[index - 1] ?? at));
      expect(Math.max(...gaps) / dayMs).toBeLessThanOrEqual(days);
      expect(gaps.length).toBeGreaterThan(18 / days);
    }
    for (const name of ['broken', 'hopeless']) {
      const later = tried(name).filter((at) => at > dayMs);
      expect(later.length).toBeGreaterThan(12);
      expect(Math.min(...later.slice(1).map((at, index) => at - (later[index] ?? 0)))).toBeGreaterThan(
        0.9 * dayMs,
      );
    }
  });
});
