import { afterEach, describe, expect, test } from 'vitest';
import { graceOverMs, type Scenario, scenarios, useCredentialWorld } from '../support/credential-world.ts';

// What one rotation asks of AWS and of the vendor: at scale these are the quotas that a fleet shares, and the bill.

const world = useCredentialWorld();
afterEach(() => world.rekey().setWarm(false));

/** Calls of one rotation, all four steps. */
interface Calls {
  /** DescribeSecret, GetSecretValue and ListSecretVersionIds, those for API keys included. */
  readonly reads: number;
  /** PutSecretValue and UpdateSecretVersionStage. */
  readonly writes: number;
  /** GetParameter and GetParameters. */
  readonly parameters: number;
  readonly requests: number;
  /** SQL or Valkey's protocol. */
  readonly sessions: number;
}

const kindOf = (operation: string): 'reads' | 'writes' | 'parameters' | undefined => {
  if (/^secretsmanager:(DescribeSecret|GetSecretValue|ListSecretVersionIds)$/.test(operation)) return 'reads';
  if (/^secretsmanager:/.test(operation)) return 'writes';
  return /^ssm:/.test(operation) ? 'parameters' : undefined;
};

type Instance = 'cold' | 'warm';

/** The calls of a rotation like most: of a credential that was rotated before, whose grace is over. */
async function callsOf(scenario: Scenario, instance: Instance): Promise<Calls> {
  const { rekey, vendors, credential, move } = world;
  const one = await credential(scenario);
  move(graceOverMs);
  await rekey().rotate(one.name);
  move(graceOverMs);
  rekey().setWarm(instance === 'warm');
  const before = new Map(rekey().callCounts);
  const { requests, places } = vendors();
  const [requestsBefore, placesBefore] = [requests.length, places.length];
  await rekey().rotate(one.name);
  expect(rekey().failures).toEqual([]);
  const found = { reads: 0, writes: 0, parameters: 0 };
  for (const [operation, { calls }] of rekey().callCounts) {
    const made = calls - (before.get(operation)?.calls ?? 0);
    const kind = kindOf(operation);
    if (kind !== undefined) found[kind] += made;
  }
  return {
    ...found,
    requests: requests.length - requestsBefore,
    sessions: places.length - placesBefore,
  };
}

/**
 * At most so many: where each step meets a new instance, and where one instance serves all four. Where a change needs more, say in its
 * commit what they are for before a new figure is written down.
 */
const bounds: Readonly<Record<string, Readonly<Record<Instance, Calls>>>> = {
  'render-postgres, replace-user': {
    cold: { reads: 25, writes: 3, parameters: 6, requests: 11, sessions: 3 },
    warm: { reads: 18, writes: 3, parameters: 6, requests: 11, sessions: 3 },
  },
  'cockroachdb-cloud, replace-user': {
    cold: { reads: 21, writes: 3, parameters: 5, requests: 13, sessions: 13 },
    warm: { reads: 17, writes: 3, parameters: 5, requests: 13, sessions: 13 },
  },
  'cockroachdb-cloud, alternate-users': {
    cold: { reads: 21, writes: 3, parameters: 5, requests: 12, sessions: 11 },
    warm: { reads: 15, writes: 3, parameters: 5, requests: 12, sessions: 11 },
  },
  'cockroachdb-cloud, reset-password': {
    cold: { reads: 21, writes: 3, parameters: 5, requests: 10, sessions: 9 },
    warm: { reads: 15, writes: 3, parameters: 5, requests: 10, sessions: 9 },
  },
  'vultr-valkey, replace-user': {
    cold: { reads: 21, writes: 3, parameters: 5, requests: 16, sessions: 4 },
    warm: { reads: 17, writes: 3, parameters: 5, requests: 16, sessions: 4 },
  },
  'vultr-valkey, alternate-users': {
    cold: { reads: 21, writes: 3, parameters: 5, requests: 11, sessions: 4 },
    warm: { reads: 15, writes: 3, parameters: 5, requests: 11, sessions: 4 },
  },
  'vultr-valkey, reset-password': {
    cold: { reads: 21, writes: 3, parameters: 5, requests: 9, sessions: 5 },
    warm: { reads: 15, writes: 3, parameters: 5, requests: 9, sessions: 5 },
  },
  'zilliz-cloud, replace-user': {
    cold: { reads: 21, writes: 3, parameters: 5, requests: 18, sessions: 0 },
    warm: { reads: 15, writes: 3, parameters: 5, requests: 18, sessions: 0 },
  },
  'zilliz-cloud, alternate-users': {
    cold: { reads: 23, writes: 3, parameters: 5, requests: 16, sessions: 0 },
    warm: { reads: 17, writes: 3, parameters: 5, requests: 16, sessions: 0 },
  },
  'zilliz-cloud, reset-password': {
    cold: { reads: 23, writes: 3, parameters: 5, requests: 13, sessions: 0 },
    warm: { reads: 17, writes: 3, parameters: 5, requests: 13, sessions: 0 },
  },
};

describe.each(scenarios)(
  '$provider, $strategy: a rotation makes no more calls than are on record',
  (scenario) => {
    test.each(['cold', 'warm'] as const)('of a %s instance', async (instance) => {
      const bound = bounds[`${scenario.provider}, ${scenario.strategy}`]?.[instance];
      if (bound === undefined) throw new Error('no figures are on record for this provider and strategy');
      const found = await callsOf(scenario, instance);
      const grown = (Object.keys(bound) as (keyof Calls)[])
        .filter((kind) => found[kind] > bound[kind])
        .map((kind) => `${kind}: ${bound[kind]} on record, ${found[kind]} now`);
      expect(grown).toEqual([]);
    });
  },
);

test('each provider and strategy has its figures', () => {
  expect(Object.keys(bounds)).toEqual(scenarios.map(({ provider, strategy }) => `${provider}, ${strategy}`));
});
