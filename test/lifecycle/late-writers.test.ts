import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { Guard } from '../../functions/core/guard.ts';
import {
  dangerous,
  type LateWriters,
  type SubjectName,
  startLateWriters,
  type World,
} from '../support/late-writers.ts';
import { useTestVendors } from '../support/vendors.ts';

// Of each use case what is most dangerous; test/exhaustive/late-writers.test.ts plays all of them.

const vendors = useTestVendors();
let late: LateWriters;
beforeAll(async () => {
  late = await startLateWriters(vendors);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await late.clear();
});
afterAll(() => late.stop());

type Pair = readonly [subject: SubjectName, world: World, scenario: string, every: number];

/** Plays the dangerous calls of a subject, or every second or third of them, until `wanted` is found. Answers what was violated. */
async function playAll([subject, world, scenario, every]: Pair, wanted?: string): Promise<readonly string[]> {
  const calls = dangerous(await late.count(subject, scenario));
  const played = [];
  for (const call of calls.filter((_, index) => index % every === 0)) {
    const found = await late.play({ subject, scenario, world, call });
    played.push(found);
    if (wanted !== undefined && found?.some((violation) => violation.startsWith(wanted))) break;
  }
  // A run may be a few calls shorter than the one that was counted.
  expect(played.filter((found) => found !== undefined).length).toBeGreaterThan(played.length / 2);
  return played.flatMap((found) => found ?? []);
}

describe('I1, I3, I6, I8, I26: an answer that comes an hour late breaks nothing', () => {
  const pairs: readonly Pair[] = [
    ['rotate-secret', 'retirement', 'zilliz-cloud, replace-user', 5],
    ['rotate-secret', 'deletion', 'vultr-valkey, replace-user', 5],
    ['rotate-secret', 'rotation', 'zilliz-cloud, alternate-users', 3],
    ['rotate-secret', 'rollback', 'zilliz-cloud, reset-password', 4],
    ['start-rotations', 'compromise', 'zilliz-cloud, replace-user', 1],
    ['delete-user, retiring', 'rollback', 'zilliz-cloud, replace-user', 1],
    ['delete-user, after a compromise', 'rotation', 'vultr-valkey, reset-password', 2],
    ['delete-user, deleting a credential', 'twin', 'zilliz-cloud, alternate-users', 3],
    ['reconcile-users, rolling forward', 'compromise', 'zilliz-cloud, replace-user', 3],
    ['reconcile-users, giving up', 'rotation', 'zilliz-cloud, alternate-users', 2],
    ['reconcile-users, mending rights', 'deletion', 'zilliz-cloud, reset-password', 1],
    ['reconcile-users, restoring AWSPREVIOUS', 'rotation', 'zilliz-cloud, alternate-users', 1],
    ['reconcile-users, setting the only password again', 'rotation', 'vultr-valkey, reset-password', 2],
    ['update-consumers', 'retirement', 'zilliz-cloud, replace-user', 4],
    ['create-user', 'deletion', 'zilliz-cloud, replace-user', 2],
  ];
  test.each(pairs)('%s; meanwhile a %s; %s', async (...pair) => {
    expect(await playAll(pair)).toEqual([]);
  });
});

test.each([
  ['rotate-secret', 'zilliz-cloud, replace-user'],
  ['reconcile-users, rolling forward', 'zilliz-cloud, reset-password'],
] as const)(
  'I7, I22: a move of a label that is carried out and answered with an error is made good: %s; %s',
  async (subject, scenario) => {
    const calls = await late.count(subject, scenario);
    const moves = calls.flatMap(({ name }, index) => (name === 'moveLabel' ? [index + 1] : []));
    expect(moves.length).toBeGreaterThan(1);
    for (const call of moves)
      expect(await late.play({ subject, scenario, world: 'nothing', lateMs: 0, call, fails: true })).toEqual(
        [],
      );
  },
);

describe('planted fault: guards that are never asked again', () => {
  const found: Readonly<Record<string, Pair>> = {
    'I1: AWSCURRENT is refused after the late answer': [
      'delete-user, retiring',
      'rollback',
      'zilliz-cloud, replace-user',
      1,
    ],
    'I26: a revoked version was published': [
      'reconcile-users, rolling forward',
      'compromise',
      'zilliz-cloud, replace-user',
      1,
    ],
    'I8: 1 users of a deleted credential are left': [
      'rotate-secret',
      'deletion',
      'zilliz-cloud, replace-user',
      1,
    ],
    'a consumer was written to with a login that is not current': [
      'update-consumers',
      'rotation',
      'zilliz-cloud, replace-user',
      1,
    ],
  };
  test.each(Object.entries(found))('are found out: %s', async (violation, pair) => {
    vi.spyOn(Guard.prototype, 'isFresh').mockReturnValue(true);
    expect(await playAll(pair, violation)).toContainEqual(expect.stringContaining(violation));
  });
});
