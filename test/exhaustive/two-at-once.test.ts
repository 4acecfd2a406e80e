import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  type Call,
  type LateWriters,
  type SubjectName,
  startLateWriters,
  type World,
} from '../support/late-writers.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
let late: LateWriters;
beforeAll(async () => {
  late = await startLateWriters(vendors);
});
afterEach(() => late.clear());
afterAll(() => late.stop());

const timeout = 300_000;
type Pair = readonly [subject: SubjectName, scenario: string, every: number];

async function playAll(
  [subject, scenario, every]: Pair,
  what: { readonly world: World; readonly lateMs: number; readonly fails?: true },
  isPicked: (call: Call) => boolean = () => true,
): Promise<readonly string[]> {
  const calls = (await late.count(subject, scenario)).flatMap((call, index) =>
    isPicked(call) ? [index + 1] : [],
  );
  const played = [];
  for (const call of calls.filter((_, index) => index % every === 0))
    played.push(await late.play({ subject, scenario, call, ...what }));
  expect(played.filter((found) => found !== undefined).length).toBeGreaterThan(played.length / 2);
  return played.flatMap((found) => found ?? []);
}

describe('I9, I16, I18: two at once, the second of which runs between two calls of the first, break nothing', () => {
  const subjects: readonly Pair[] = [
    ['delete-user, retiring', 'zilliz-cloud, replace-user', 4],
    ['delete-user, after a compromise', 'vultr-valkey, replace-user', 8],
    ['delete-user, deleting a credential', 'zilliz-cloud, replace-user', 9],
    ['reconcile-users, rolling forward', 'zilliz-cloud, reset-password', 12],
    ['reconcile-users, giving up', 'zilliz-cloud, alternate-users', 6],
    ['reconcile-users, mending rights', 'zilliz-cloud, replace-user', 6],
    ['reconcile-users, restoring AWSPREVIOUS', 'zilliz-cloud, replace-user', 5],
    ['reconcile-users, setting the only password again', 'vultr-valkey, reset-password', 12],
  ];
  test.each(subjects)(
    'two runs of %s; %s',
    async (...pair) => {
      expect(await playAll(pair, { world: 'twin', lateMs: 0 })).toEqual([]);
    },
    timeout,
  );
  test.each(subjects)(
    '%s beside a rotation; %s',
    async (...pair) => {
      expect(await playAll(pair, { world: 'rotation beside', lateMs: 0 })).toEqual([]);
    },
    timeout,
  );
});

describe('I7, I9, I22: a call that is carried out and answered with an error', () => {
  const stores: ReadonlySet<string> = new Set([
    'writeSecret',
    'moveLabel',
    'createSecret',
    'startRotation',
    'cancelRotation',
    'removeReplicas',
    'deleteSecret',
    'createParameter',
    'writeParameter',
    'deleteParameter',
    'writeNote',
    'deleteNote',
    'publish',
    'notify',
    'enqueue',
  ]);
  const subjects: readonly Pair[] = [
    ['rotate-secret', 'zilliz-cloud, replace-user', 1],
    ['rotate-secret', 'render-postgres, replace-user', 2],
    ['rotate-secret', 'zilliz-cloud, alternate-users', 2],
    ['rotate-secret', 'vultr-valkey, reset-password', 2],
    ['start-rotations', 'zilliz-cloud, replace-user', 1],
    ['delete-user, retiring', 'zilliz-cloud, replace-user', 1],
    ['delete-user, after a compromise', 'vultr-valkey, reset-password', 1],
    ['delete-user, deleting a credential', 'zilliz-cloud, replace-user', 1],
    ['reconcile-users, rolling forward', 'zilliz-cloud, reset-password', 1],
    ['reconcile-users, giving up', 'zilliz-cloud, replace-user', 1],
    ['reconcile-users, mending rights', 'zilliz-cloud, replace-user', 1],
    ['reconcile-users, setting the only password again', 'vultr-valkey, reset-password', 2],
    ['update-consumers', 'zilliz-cloud, replace-user', 1],
    ['create-user', 'zilliz-cloud, replace-user', 1],
  ];
  test.each(subjects)(
    'is made good by the next runs: %s; %s',
    async (...pair) => {
      const what = { world: 'nothing', lateMs: 0, fails: true } as const;
      expect(await playAll(pair, what, ({ name }) => stores.has(name))).toEqual([]);
    },
    timeout,
  );
});
