import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { workers } from '../../workers.ts';
import { type EmergencyReport, playEmergency } from './emergency.ts';
import { type Cost, callsOf, createFleet } from './model.ts';
import { dollarsPerMonth, secretPerMonth } from './prices.ts';

export interface FleetRow {
  readonly what: string;
  /** Attempts of calls, by service and operation. */
  readonly calls: Readonly<Record<string, number>>;
  readonly throttled: number;
  readonly seconds: number;
  /** What it holds at most beside what was there, in MB; not measured of what no single invocation does. */
  readonly heapMegabytes?: number;
}

export interface FleetBench {
  readonly credentials: number;
  readonly rows: readonly FleetRow[];
  /** Orders for all credentials at once. */
  readonly emergency: {
    /** As deployed. */
    readonly withDeleteUser: EmergencyRatio;
    /** As if the superseded users could wait. */
    readonly withoutDeleteUser: EmergencyRatio;
  };
  readonly dollarsPerCredentialAndMonth: number;
  readonly secretsManagerDollarsPerMonth: number;
}

/** `ratio` is what the time until all were rotated is of the least that the quotas allow. */
type EmergencyRatio = EmergencyReport & { readonly ratio: number };
const ratioOf = (report: EmergencyReport): EmergencyRatio => ({
  ...report,
  ratio: report.seconds / report.boundSeconds,
});
/** In a fleet of its own, as the users of an emergency before it would have to be deleted as well. */
async function playAsDeployed(credentials: number): Promise<EmergencyRatio> {
  const fleet = await createFleet({ credentials, defaultTier });
  await fleet.settle();
  return ratioOf(await playEmergency(fleet, { withDeleteUser: true }));
}

/** Of every function: infra/handler.ts, which loads CDK. */
const gigabytes = 0.5;
/** An order for each credential is a parameter beside its spec: of 10,000, more than the standard tier holds. */
const defaultTier = 'Intelligent-Tiering';
const collectEvery = 100;
const perMonth = { startPass: 8_640, deletePass: 2_880, dispatch: 720, looks: 720, visits: 120 } as const;

export async function measureFleet(credentials: number): Promise<FleetBench> {
  const fleet = await createFleet({ credentials, defaultTier });
  const { play, functions, sent, names } = fleet;
  const rows: FleetRow[] = [];
  async function measured<Answer>(
    what: string,
    use: () => Promise<{ readonly cost: Cost; readonly answer: Answer }>,
  ): Promise<{ readonly cost: Cost; readonly answer: Answer }> {
    const before = collectedHeap();
    let most = before;
    let calls = 0;
    fleet.hooks.onCall = () => {
      calls += 1;
      if (calls % collectEvery === 0) most = Math.max(most, collectedHeap());
    };
    const { answer } = await play(use);
    fleet.hooks.onCall = () => undefined;
    most = Math.max(most, collectedHeap());
    const { calls: made, throttled, seconds } = answer.cost;
    rows.push({ what, calls: made, throttled, seconds, heapMegabytes: (most - before) / 1_000_000 });
    return answer;
  }

  const visits = await fleet.settle();
  const idle = await measured('start-rotations, nothing due', functions.startPass);
  const settled = await measured('delete-user, all settled', functions.deletePass);
  sent.targets.length = 0;
  const dispatched = await measured('reconcile-users, all targets queued', functions.dispatch);
  const look = await measured('a batch of looks at targets', () =>
    functions.look(sent.targets.slice(0, workers.targets.batchSize)),
  );
  const credential = names.at(-1) ?? '';
  const order = fleet.compromised(credential);
  await measured('an order is taken', () => functions.order(order));
  await measured('an order is carried out', () => functions.carryOut([{ messageId: '1', credential }]));
  await play(fleet.idle);
  const rotation = fleet.takeRotationCost();
  rows.push({ ...rotation, what: 'the steps of a rotation' });
  const retired = await measured('delete-user deletes a user', () => functions.deletion(order));

  await fleet.untilDue();
  sent.rotated.length = 0;
  const due = await measured('start-rotations, 1 % due', functions.startPass);
  await play(fleet.idle);
  const rotated = await measured('delete-user hears of a rotation', () =>
    functions.deletion({ is: 'rotated', credential: sent.rotated[0]?.credential ?? credential }),
  );

  // Last, as nothing of the fleet is at rest afterwards.
  const withoutDeleteUser = ratioOf(await playEmergency(fleet, { withDeleteUser: false }));
  const emergency = {
    withoutDeleteUser,
    withDeleteUser: await playAsDeployed(credentials),
  };

  const n = credentials;
  const share = (count: number, { calls, ...cost }: Cost): Cost => ({
    ...cost,
    calls: Object.fromEntries(Object.entries(calls).map(([name, times]) => [name, times / count])),
    seconds: cost.seconds / count,
    readUnits: cost.readUnits / count,
    events: cost.events / count,
  });
  const dollars = dollarsPerMonth(
    [
      // One rotation a credential and month: the pass that starts it costs this more than one that starts none.
      { what: 'start-rotations', timesPerMonth: perMonth.startPass, cost: idle.cost },
      { what: 'starts', timesPerMonth: 100, cost: due.cost },
      { what: 'delete-user', timesPerMonth: perMonth.deletePass, cost: settled.cost },
      { what: 'visits', timesPerMonth: perMonth.visits * n, cost: share(n, visits), invocations: 0 },
      { what: 'reconcile-users', timesPerMonth: perMonth.dispatch, cost: dispatched.cost },
      {
        what: 'looks',
        timesPerMonth: (perMonth.looks * n) / workers.targets.batchSize,
        cost: look.cost,
        isQueued: true,
      },
      { what: 'rotations', timesPerMonth: n, cost: rotation, invocations: 4 },
      { what: 'delete-user hears', timesPerMonth: n, cost: rotated.cost, isQueued: true },
      { what: 'retirements', timesPerMonth: n, cost: retired.cost, isQueued: true },
    ],
    gigabytes,
  );
  return {
    credentials,
    rows,
    emergency,
    dollarsPerCredentialAndMonth: dollars / n,
    secretsManagerDollarsPerMonth: secretPerMonth,
  };
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
function collectedHeap(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

/** One table for all sizes. */
export function fleetTable(fleets: readonly FleetBench[]): string {
  const cells = (what: string, of: (fleet: FleetBench) => string): string =>
    [what.padEnd(40), ...fleets.map((fleet) => of(fleet).padStart(30))].join('');
  const [first] = fleets;
  const rows = (first?.rows ?? []).map(({ what }) =>
    cells(what, ({ rows: own }) => {
      const row = own.find((each) => each.what === what);
      if (row === undefined) return '';
      const { seconds, heapMegabytes: heap } = row;
      return [
        `${callsOf(row)} calls`,
        `${seconds.toFixed(1)} s`,
        heap === undefined ? '' : `${heap.toFixed(1)} MB`,
      ].join('  ');
    }),
  );
  return [
    cells('fleet', ({ credentials }) => `${credentials} credentials`),
    ...rows,
    cells(
      'emergency of all: the least time',
      ({ emergency: { withoutDeleteUser: own } }) => `${own.boundSeconds.toFixed(0)} s`,
    ),
    cells('  rotated, without delete-user', ({ emergency: { withoutDeleteUser: own } }) => ratioText(own)),
    cells('  rotated, as deployed', ({ emergency: { withDeleteUser: own } }) => ratioText(own)),
    cells('  leaked users deleted, as deployed', ({ emergency: { withDeleteUser: own } }) =>
      own.revokedSeconds === undefined ? 'not within a day' : `${own.revokedSeconds.toFixed(0)} s`,
    ),
    cells(
      'dollars a credential and month',
      ({ dollarsPerCredentialAndMonth: own, secretsManagerDollarsPerMonth: secret }) =>
        `${own.toFixed(3)} beside ${secret.toFixed(2)}`,
    ),
  ].join('\n');
}

const ratioText = (report: EmergencyRatio): string =>
  `${report.seconds.toFixed(0)} s, ratio ${report.ratio.toFixed(2)}`;
