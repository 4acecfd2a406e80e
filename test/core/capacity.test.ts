import { describe, expect, test } from 'vitest';
import { loadConsumer } from '../../functions/consumers/index.ts';
import {
  capacityFindings,
  keyCapacity,
  sharesKey,
  sharesTarget,
  targetCapacity,
} from '../../functions/core/capacity.ts';
import { fingerprint } from '../../functions/core/findings.ts';
import { type CredentialSpec, parseSpec } from '../../functions/core/spec.ts';
import { loadProvider } from '../../functions/providers/index.ts';

const clusterId = '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10';
const sundays = { start: '02:00', length: 'PT3H', days: ['SU'] };
const nights = { start: '02:00', length: 'PT3H', timeZone: 'Europe/Berlin' };

async function specs(
  count: number,
  rotation: object,
  { from = 0, ...overrides }: { readonly from?: number; readonly [field: string]: unknown } = {},
): Promise<readonly CredentialSpec[]> {
  const spec = await parseSpec(
    {
      name: 'c0',
      provider: 'cockroachdb-cloud',
      target: { clusterId },
      apiKeySecret: 'rekey/api-keys/cockroachdb',
      usernamePrefix: 'c',
      rotation,
      ...overrides,
    },
    { loadProvider, loadConsumer },
  );
  return Array.from({ length: count }, (_, index) => ({ ...spec, name: `c${from + index}` }));
}
const withCapabilities = (
  all: readonly CredentialSpec[],
  capabilities: Partial<CredentialSpec['definition']['capabilities']>,
): readonly CredentialSpec[] =>
  all.map((spec) => ({
    ...spec,
    definition: {
      ...spec.definition,
      capabilities: { ...spec.definition.capabilities, ...capabilities },
    },
  }));

describe('the credentials of one target', () => {
  test('fit, and nothing is said, as long as retries have room', async () => {
    expect(targetCapacity([])).toEqual([]);
    expect(targetCapacity(await specs(1_000, { every: 'P30D', window: nights }))).toEqual([]);
    // 771 begin in 30 days: 180 minutes on four or five Sundays.
    expect(targetCapacity(await specs(539, { every: 'P30D', window: sundays }))).toEqual([]);
  });

  test('are tight beyond 70 %, with the numbers, the limit and what to change', async () => {
    expect(targetCapacity(await specs(600, { every: 'P30D', window: sundays }))).toMatchObject([
      {
        level: 'tight',
        text: `rotation.window: 600 credentials of cockroachdb-cloud ${clusterId} (c0, c1, c2 and 597 more) need 600 rotations in 30 days, 78 % of the 771 that fit in the window SU at 02:00 UTC for PT3H, so retries may come too late, as cockroachdb-cloud takes one rotation of a target at once, planned with 1 minute each; lengthen rotation.window or open it on more days, raise rotation.every, or spread the credentials over more targets`,
      },
    ]);
  });

  test('are impossible beyond what fits', async () => {
    expect(targetCapacity(await specs(1_000, { every: 'P30D', window: sundays }))).toMatchObject([
      {
        level: 'impossible',
        text: `rotation.window: expected room for 1000 rotations in 30 days, which 1000 credentials of cockroachdb-cloud ${clusterId} (c0, c1, c2 and 997 more) need, got 771 in the window SU at 02:00 UTC for PT3H, as cockroachdb-cloud takes one rotation of a target at once, planned with 1 minute each; lengthen rotation.window or open it on more days, raise rotation.every, or spread the credentials over more targets`,
      },
    ]);
    const [atAnyTime] = targetCapacity(await specs(1_500, { every: 'P1D' }, { grace: 'PT1H' }));
    expect(atAnyTime).toMatchObject({
      level: 'impossible',
      text: expect.stringMatching(
        /^rotation\.every: expected room for 45000 rotations .* got 43200 at any time, .*; raise rotation\.every, or spread/,
      ),
    });
  });

  test('have twice the room where the vendor takes two rotations at once', async () => {
    const all = await specs(1_000, { every: 'P30D', window: sundays });
    expect(targetCapacity(withCapabilities(all, { parallelRotations: 2 }))).toEqual([]);
    expect(
      targetCapacity(
        withCapabilities(await specs(1_600, { every: 'P30D', window: sundays }), { parallelRotations: 2 }),
      ),
    ).toMatchObject([{ level: 'impossible', text: expect.stringContaining('got 1542 in the window') }]);
  });

  test('are judged window by window, and all together', async () => {
    const mondays = { ...sundays, days: ['MO'] };
    const half = { every: 'P30D', window: sundays };
    const other = { every: 'P30D', window: mondays };
    expect(
      targetCapacity([...(await specs(500, half)), ...(await specs(500, other, { from: 500 }))]),
    ).toEqual([]);
    // One window is full, however empty the other one is.
    expect(
      targetCapacity([...(await specs(800, half)), ...(await specs(1, other, { from: 800 }))]),
    ).toMatchObject([{ level: 'impossible', text: expect.stringContaining('SU at 02:00') }]);
    // No window alone is, but the month has no more minutes than that.
    const days = ['MO', 'TU', 'WE', 'TH', 'FR', 'SA', 'SU'];
    const hours = ['00:00', '08:00', '12:00'];
    const daily = await Promise.all(
      hours.map((start, index) =>
        specs(970, { every: 'P2D', window: { start, length: 'PT12H', days } }, { from: index * 970 }),
      ),
    );
    expect(targetCapacity(daily.flat())).toMatchObject([
      { level: 'impossible', text: expect.stringContaining('got 43200 in their 3 windows') },
    ]);
  });
});

describe('the credentials of one API key', () => {
  const render = (count: number, rotation: object) =>
    specs(count, rotation, {
      provider: 'render-postgres',
      target: { postgresId: 'dpg-d1abc2d3e4f5g6h7i8j9-a' },
      apiKeySecret: 'rekey/api-keys/render',
    });

  test('fit into what the vendor lets it write, or are told by how much they do not', async () => {
    const hour = { start: '02:00', length: 'PT1H', days: ['SU'] };
    // Three rotations a minute, sixty minutes a week.
    expect(keyCapacity(await render(500, { every: 'P30D', window: hour }))).toEqual([]);
    expect(keyCapacity(await render(800, { every: 'P30D', window: hour }))).toMatchObject([
      {
        level: 'impossible',
        text: 'rotation.window: expected room for 800 rotations in 30 days, which 800 credentials of rekey/api-keys/render (c0, c1, c2 and 797 more) need, got 771 in the window SU at 02:00 UTC for PT1H, as rekey spends half of the 30 requests a minute that render-postgres takes, and a rotation takes 4; lengthen rotation.window or open it on more days, raise rotation.every, or give some of them an API key with a limit of its own at render-postgres',
      },
    ]);
  });

  test('cannot be rotated at all in a window shorter than one rotation', async () => {
    const [spec] = withCapabilities(
      await render(1, { every: 'P30D', window: { ...sundays, length: 'PT30M' } }),
      {
        writes: { perMinute: 2, perRotation: 40 },
      },
    );
    if (spec === undefined) throw new Error('there is one');
    expect(keyCapacity([spec])).toMatchObject([
      {
        level: 'impossible',
        text: expect.stringContaining(
          'which 1 credential of rekey/api-keys/render (c0) needs, got 0 in the window',
        ),
      },
    ]);
  });
});

describe('what does not fit in a fleet', () => {
  const hour = { start: '02:00', length: 'PT1H', days: ['SU'] };
  const renderKey = 'rekey/api-keys/render';
  /** On as many targets, so that only their key is short. */
  const render = async (count: number, apiKeySecret: string) =>
    (
      await specs(
        count,
        { every: 'P30D', window: hour },
        { provider: 'render-postgres', target: { postgresId: 'dpg-d1abc2d3e4f5g6h7i8j9-a' }, apiKeySecret },
      )
    ).map((spec, index) => ({ ...spec, targetId: `dpg-${index}-a` }));

  test('is a finding of its target or of its key, distinct from other findings; tight capacity is not reported', async () => {
    const fleet = [
      ...(await specs(1_000, { every: 'P30D', window: sundays })),
      ...(await render(800, renderKey)),
      ...(await render(900, 'rekey/api-keys/other')),
      // Tight.
      ...(await render(700, 'rekey/api-keys/third')),
    ];
    const others = { provider: 'render-postgres', target: '' };
    expect(capacityFindings(fleet)).toEqual([
      {
        kind: 'CapacityExceeded',
        provider: 'cockroachdb-cloud',
        target: clusterId,
        details: expect.stringMatching(
          /^rotation\.window: expected room for 1000 .* planned with 1 minute each$/,
        ),
        remedy:
          'lengthen rotation.window or open it on more days, raise rotation.every, or spread the credentials over more targets',
      },
      ...[renderKey, 'rekey/api-keys/other'].map((apiKeySecret) => ({
        ...others,
        kind: 'CapacityExceeded',
        apiKeySecret,
        details: expect.stringContaining(`credentials of ${apiKeySecret} (c0, c1, c2`),
        remedy: expect.stringContaining('give some of them an API key with a limit of its own'),
      })),
    ]);
    expect(new Set(capacityFindings(fleet).map(fingerprint)).size).toBe(3);
  });

  test('is the same finding, however many credentials there are', async () => {
    const [one] = capacityFindings(await render(800, renderKey));
    const [more] = capacityFindings(await render(801, renderKey));
    expect(one && fingerprint(one)).toBe(more && fingerprint(more));
    expect(one?.details).not.toBe(more?.details);
  });
});

test('a target is shared by its provider and id, a key by its provider and secret', async () => {
  const [one] = await specs(1, {});
  const [elsewhere] = await specs(1, {}, { target: { clusterId: clusterId.replace('0b', '1b') } });
  const [otherKey] = await specs(1, {}, { apiKeySecret: 'rekey/api-keys/other' });
  if (!one || !elsewhere || !otherKey) throw new Error('there are three');
  expect([sharesTarget(one, elsewhere), sharesKey(one, elsewhere)]).toEqual([false, true]);
  expect([sharesTarget(one, otherKey), sharesKey(one, otherKey)]).toEqual([true, false]);
});
