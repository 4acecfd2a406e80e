import { expect, test } from 'vitest';
import { graceOverMs, type Scenario, scenarios, useCredentialWorld } from '../support/credential-world.ts';

// What one rotation asks of AWS and of the vendor: at scale these are the quotas that a fleet shares, and the bill.

const world = useCredentialWorld();

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

/** The calls of a rotation like most: of a credential that was rotated before, whose grace is over. */
async function callsOf(scenario: Scenario): Promise<Calls> {
  const { rekey, vendors, credential, move } = world;
  const one = await credential(scenario);
  move(graceOverMs);
  await rekey().rotate(one.name);
  move(graceOverMs);
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

/** At most so many. Where a change needs more, say in its commit what they are for before a new figure is written down. */
const bounds: Readonly<Record<string, Calls>> = {
  'render-postgres, replace-user': { reads: 33, writes: 4, parameters: 8, requests: 11, sessions: 3 },
  'cockroachdb-cloud, replace-user': { reads: 32, writes: 4, parameters: 8, requests: 14, sessions: 14 },
  'cockroachdb-cloud, alternate-users': { reads: 32, writes: 4, parameters: 10, requests: 13, sessions: 12 },
  'cockroachdb-cloud, reset-password': { reads: 30, writes: 4, parameters: 8, requests: 11, sessions: 9 },
  'vultr-valkey, replace-user': { reads: 32, writes: 4, parameters: 8, requests: 22, sessions: 4 },
  'vultr-valkey, alternate-users': { reads: 30, writes: 4, parameters: 8, requests: 18, sessions: 4 },
  'vultr-valkey, reset-password': { reads: 30, writes: 4, parameters: 8, requests: 15, sessions: 5 },
  'zilliz-cloud, replace-user': { reads: 32, writes: 4, parameters: 8, requests: 20, sessions: 0 },
  'zilliz-cloud, alternate-users': { reads: 30, writes: 4, parameters: 8, requests: 18, sessions: 0 },
  'zilliz-cloud, reset-password': { reads: 30, writes: 4, parameters: 8, requests: 14, sessions: 0 },
};

test.each(scenarios)(
  '$provider, $strategy: a rotation makes no more calls than are on record',
  async (scenario) => {
    const bound = bounds[`${scenario.provider}, ${scenario.strategy}`];
    if (bound === undefined) throw new Error('no figures are on record for this provider and strategy');
    const found = await callsOf(scenario);
    const grown = (Object.keys(bound) as (keyof Calls)[])
      .filter((kind) => found[kind] > bound[kind])
      .map((kind) => `${kind}: ${bound[kind]} on record, ${found[kind]} now`);
    expect(grown).toEqual([]);
  },
);

test('each provider and strategy has its figures', () => {
  expect(Object.keys(bounds)).toEqual(scenarios.map(({ provider, strategy }) => `${provider}, ${strategy}`));
});
