import { beforeAll, describe, expect, test } from 'vitest';
import { playEmergency } from '../../infra/local/fleet/emergency.ts';
import { playLookQueue } from '../../infra/local/fleet/look-queue.ts';
import { type Cost, callsOf, createFleet } from '../../infra/local/fleet/model.ts';
import { workers } from '../../infra/workers.ts';

/**
 * What a fleet costs: the calls of each pass, order and event, counted over the emulators with the default quotas of an account. The
 * figures are upper bounds: lower one when you have made something cheaper, and think twice before you raise one. Each is what the
 * account pays, and what it takes from the quotas that rotations share.
 */

interface Measured {
  readonly cost: Cost;
  readonly seconds: number;
}

async function measure(credentials: number) {
  const fleet = await createFleet({ credentials });
  const { play, functions, sent, names } = fleet;
  const measured = async <Answer>(
    use: () => Promise<{ readonly cost: Cost; readonly answer: Answer }>,
  ): Promise<Measured & { readonly answer: Answer }> => {
    const { answer, seconds } = await play(use);
    return { ...answer, seconds };
  };
  await fleet.settle();
  const idle = await measured(functions.startPass);
  const settled = await measured(functions.deletePass);
  // Nothing was looked at yet, so each target is queued.
  sent.targets.length = 0;
  const dispatched = await measured(functions.dispatch);
  const tasks = sent.targets.length;
  const look = await measured(() => functions.look(sent.targets.slice(0, 1)));

  const credential = names.at(-1) ?? '';
  const order = fleet.compromised(credential);
  const ordered = await measured(() => functions.order(order));
  const carriedOut = await measured(() => functions.carryOut([{ messageId: '1', credential }]));
  await play(fleet.idle);
  const rotation = fleet.takeRotationCost();
  const revoked = await measured(() => functions.deletion(order));

  await fleet.untilDue();
  const due = await measured(functions.startPass);
  await play(fleet.idle);
  const [last] = sent.rotated.splice(0).toReversed();
  const rotated = await measured(() =>
    functions.deletion({ is: 'rotated', credential: last?.credential ?? '' }),
  );

  // Its grace is over, and the passes have gone on.
  await fleet.clock.runUntil(new Date(fleet.clock.now().getTime() + 26 * 3_600_000));
  await play(functions.startPass);
  await play(fleet.idle);
  const retired = await measured(() =>
    functions.deletion({ is: 'rotated', credential: last?.credential ?? '' }),
  );
  const ended = await measured(() =>
    functions.deletion({
      is: 'order',
      order: 'CredentialDeletionRequested',
      credential: names[credentials / 2] ?? '',
      orderedAt: fleet.clock.now(),
    }),
  );
  return {
    retired,
    ended,
    idle,
    settled,
    dispatched,
    tasks,
    look,
    ordered,
    carriedOut,
    rotation: { cost: rotation },
    rotated,
    revoked,
    due,
  };
}

type Fleet = Awaited<ReturnType<typeof measure>>;
const sizes = [100, 1_000] as const;
const fleets = new Map<number, Promise<Fleet>>();
function fleetOf(credentials: number): Promise<Fleet> {
  const known = fleets.get(credentials) ?? measure(credentials);
  fleets.set(credentials, known);
  return known;
}

const listings = /GetParametersByPath|ListSecrets/;
/** A listing that grows with the fleet: pauses are few, whatever the size of the fleet. */
const fleetListings = ({ made }: Cost): readonly string[] =>
  made.filter((call) => listings.test(call) && !call.endsWith('/rekey/pause'));

/** Without those that were throttled: how many these are is a matter of chance. */
const mostCalls = {
  idle: { 100: 19, 1000: 118 },
  settled: { 100: 18, 1000: 117 },
  dispatched: { 100: 28, 1000: 217 },
  due: { 100: 28, 1000: 190 },
  look: { 100: 14, 1000: 14 },
  ordered: { 100: 3, 1000: 3 },
  carriedOut: { 100: 14, 1000: 14 },
  rotation: { 100: 31, 1000: 31 },
  rotated: { 100: 11, 1000: 11 },
  revoked: { 100: 22, 1000: 22 },
  retired: { 100: 22, 1000: 22 },
  // Lists the specs once: a credential that was declared right before the order may adopt its users.
  ended: { 100: 68, 1000: 161 },
} as const;
const mostThrottled = 10;

const answered = (cost: Cost): number => callsOf(cost) - cost.throttled;

describe.each(sizes)('of %i credentials', (size) => {
  beforeAll(async () => void (await fleetOf(size)), 300_000);

  test.each(Object.keys(mostCalls) as (keyof typeof mostCalls)[])(
    '%s costs no more calls than it did',
    async (what) => {
      const { cost } = (await fleetOf(size))[what];
      expect(answered(cost), JSON.stringify(cost.calls)).toBeLessThanOrEqual(mostCalls[what][size]);
      expect(cost.throttled).toBeLessThanOrEqual(mostThrottled);
    },
  );

  test('a pass does what it is measured for', async () => {
    const { idle, settled, dispatched, tasks, due } = await fleetOf(size);
    expect(idle.answer).toMatchObject({ started: [], failed: [], broken: [] });
    expect(idle.answer.held).toHaveLength(size);
    expect(settled.answer.targets).toEqual([]);
    expect(dispatched.answer.batchItemFailures).toEqual([]);
    expect(tasks).toBe(size);
    expect(due.answer.started).toHaveLength(size / 100);
    expect(due.answer.failed).toEqual([]);
  });

  test('an order is stored with one reading and one write, and queued: nothing is listed', async () => {
    const { ordered, carriedOut } = await fleetOf(size);
    expect(ordered.cost.made).toEqual(['ssm:GetParameters', 'ssm:PutParameter', 'sqs:SendMessageBatch']);
    expect(carriedOut.answer).toMatchObject({ started: [{ because: 'REVOKED' }], held: [], failed: [] });
    expect(fleetListings(carriedOut.cost)).toEqual([]);
  });

  test('neither a look at a target nor a rotation that has left a user behind lists the fleet', async () => {
    const { look, rotated } = await fleetOf(size);
    expect(look.answer).toEqual({ batchItemFailures: [] });
    expect(fleetListings(look.cost)).toEqual([]);
    expect(rotated.answer.targets).toMatchObject([{ users: [{ outcome: 'kept' }] }]);
    expect(fleetListings(rotated.cost)).toEqual([]);
  });

  test('the deletion of a leaked user lists nothing', async () => {
    const { revoked } = await fleetOf(size);
    expect(revoked.answer.targets).toMatchObject([{ users: [{ outcome: 'deleted' }] }]);
    expect(fleetListings(revoked.cost)).toEqual([]);
  });
});

describe('of any size', () => {
  test.each(sizes)(
    'a superseded user goes without a listing, and a credential with one (of %i)',
    async (size) => {
      const { retired, ended } = await fleetOf(size);
      expect(retired.answer.targets).toMatchObject([{ users: [{ outcome: 'deleted' }] }]);
      expect(fleetListings(retired.cost)).toEqual([]);
      expect(ended.answer.targets).toMatchObject([{ credentials: [{ stage: 'deleted' }] }]);
      const pages = (ended.cost.calls['ssm:GetParametersByPath'] ?? 0) - ended.cost.throttled;
      expect(pages).toBeLessThanOrEqual(size / 10);
    },
  );
});

test('ten times the credentials cost a pass eleven times the calls at most', async () => {
  const [few, many] = await Promise.all(sizes.map(fleetOf));
  if (few === undefined || many === undefined) throw new Error('expected two fleets');
  for (const pass of ['idle', 'settled', 'dispatched', 'due'] as const)
    expect(answered(many[pass].cost) / answered(few[pass].cost), pass).toBeLessThanOrEqual(11);
});

test('what happens to one credential costs the same in a fleet of any size', async () => {
  const [few, many] = await Promise.all(sizes.map(fleetOf));
  if (few === undefined || many === undefined) throw new Error('expected two fleets');
  for (const what of ['look', 'ordered', 'carriedOut', 'rotation', 'rotated', 'retired'] as const)
    expect(many[what].cost.calls, what).toEqual(few[what].cost.calls);
});

test('ten credentials a target cost a pass no more calls than one a target', async () => {
  const fleet = await createFleet({ credentials: 100, credentialsPerTarget: 10 });
  await fleet.settle();
  const { play, functions, sent } = fleet;
  const idle = (await play(functions.startPass)).answer;
  const settled = (await play(functions.deletePass)).answer;
  sent.targets.length = 0;
  const dispatched = (await play(functions.dispatch)).answer;
  expect(idle.answer).toMatchObject({ started: [], failed: [], broken: [] });
  expect(settled.answer.targets).toEqual([]);
  expect(sent.targets).toHaveLength(10);
  expect(answered(idle.cost)).toBeLessThanOrEqual(mostCalls.idle[100]);
  expect(answered(settled.cost)).toBeLessThanOrEqual(mostCalls.settled[100]);
  expect(answered(dispatched.cost)).toBeLessThanOrEqual(mostCalls.dispatched[100]);
});

describe('of 100 compromises at once, all are rotated in a multiple of what Parameter Store needs to take the orders', () => {
  test('one and a third times that at most, while no user is deleted beside it', async () => {
    const fleet = await createFleet({ credentials: 100 });
    await fleet.settle();
    const { rotated, cameAgain, seconds, boundSeconds } = await playEmergency(fleet, {
      withDeleteUser: false,
    });
    expect({ rotated, cameAgain }).toEqual({ rotated: 100, cameAgain: 0 });
    expect(seconds).toBeLessThanOrEqual(boundSeconds * (4 / 3));
  });

  test('one and a third times that at most as deployed, and in twice that no leaked user is left', async () => {
    const fleet = await createFleet({ credentials: 100 });
    await fleet.settle();
    const { rotated, seconds, revokedSeconds, boundSeconds } = await playEmergency(fleet);
    expect(rotated).toBe(100);
    expect(seconds / boundSeconds).toBeLessThanOrEqual(4 / 3);
    expect((revokedSeconds ?? Number.POSITIVE_INFINITY) / boundSeconds).toBeLessThanOrEqual(2);
  });
});

describe('looks of ten seconds each, a pass every hour', () => {
  const hours = 24;
  const twoHoursS = 7_200;
  const play = (targets: number, maxConcurrency: number) =>
    playLookQueue({ targets, lookSeconds: 10, batchSize: workers.targets.batchSize, maxConcurrency, hours });

  test('as deployed, the workers see each of 10,000 targets every two hours; with one batch less at a time they would not', async () => {
    const { maxConcurrency } = workers.targets;
    expect((await play(10_000, maxConcurrency)).maxGapSeconds).toBeLessThan(twoHoursS + 60);
    expect((await play(10_000, maxConcurrency - 1)).maxGapSeconds).toBeGreaterThan(twoHoursS + 60);
  });

  test('with two batches at a time no task of 10,000 targets piles up for ever: none is left out, and the queue stops growing', async () => {
    const { maxGapSeconds, queuedAfterPass } = await play(10_000, 2);
    expect(maxGapSeconds).toBeLessThan(7 * 3_600);
    const [before, after] = [queuedAfterPass.slice(8, 16), queuedAfterPass.slice(16)];
    expect(Math.max(...after)).toBeLessThanOrEqual(Math.max(...before));
  });
});
