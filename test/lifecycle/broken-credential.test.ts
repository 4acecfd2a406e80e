import { expect, test } from 'vitest';
import { bounds, breakages, liveBroken } from '../support/broken-days.ts';
import { useTestVendors } from '../support/vendors.ts';

// A hundred days, and each provider, fault and strategy: test/exhaustive/hundred-days.test.ts.

const vendors = useTestVendors();

test.each([
  ['its role does not exist any more', breakages.roleGone, 20],
  ['its new logins are refused', breakages.loginRefused, 6],
] as const)(
  'I1, I6, I8, I28: a credential that can never be rotated, as %s, keeps few users and no neighbour',
  async (_why, breakage, days) => {
    const run = { provider: 'zilliz-cloud', breakage, days, run: days } as const;
    const [outcome] = await liveBroken(vendors, { ...run, strategies: ['replace-user'] });
    expect(outcome?.maxInFlight).toBeLessThanOrEqual(bounds['replace-user'].inFlight);
    expect(outcome?.rotationsFailed).toBeGreaterThan(3);
  },
);
