import { afterAll, describe, expect, test } from 'vitest';
import {
  type Breakage,
  bounds,
  breakages,
  liveBroken,
  type ProviderId,
  vendorsWithStrategies,
} from '../support/broken-days.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const { roleGone, storeRefuses, ...others } = breakages;
/** Two rotations of the broken credential are due in them, and one of its neighbour. */
const shortDays = 14;
let runs = 0;
const measured: string[] = [];
afterAll(() => process.stdout.write(`${measured.join('\n')}\n`));

/** Long enough for a rotation a day and credential to pile up whatever one of them leaves behind. */
async function live(provider: ProviderId, breakage: Breakage, days: number): Promise<void> {
  runs += 1;
  const outcomes = await liveBroken(vendors, { provider, breakage, days, run: runs });
  for (const { strategy, maxInFlight, maxAtRest, rotationsFailed, findings } of outcomes) {
    measured.push(
      `${provider}, ${strategy}, ${days} days, ${breakage.title}: live users at most ${maxInFlight} and ${maxAtRest} at rest; ` +
        `${rotationsFailed} CredentialRotationFailed, ${findings} DriftFound`,
    );
    expect(maxInFlight).toBeLessThanOrEqual(bounds[strategy].inFlight + (breakage.held ?? 0));
  }
}

describe.each(Object.keys(vendorsWithStrategies) as ProviderId[])('%s', (provider) => {
  // At Render, which has no roles, what fails right after each new user was made.
  const hardest = roleGone.strategies(provider).length > 0 ? roleGone : storeRefuses;
  const title =
    'I1, I6, I8, I28: its users stay bounded, its neighbours are rotated in time, and it recovers';

  test(
    `100 days with a credential whose fault is that ${hardest.title}. ${title}`,
    () => live(provider, hardest, 100),
    1_800_000,
  );

  const shorter = [roleGone, storeRefuses, ...Object.values(others)].filter(
    (breakage) => breakage !== hardest && breakage.strategies(provider).length > 0,
  );
  for (const breakage of shorter)
    test(
      `${shortDays} days with a credential whose fault is that ${breakage.title}. ${title}`,
      () => live(provider, breakage, shortDays),
      1_800_000,
    );
});
