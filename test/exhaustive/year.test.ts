import { expect, test } from 'vitest';
import { secretName } from '../../functions/core/names.ts';
import { createSimulation } from '../simulation/world.ts';

const dayMs = 86_400_000;
const hourMs = 3_600_000;
const start = new Date('2026-01-01T00:00:00Z');

interface Declared {
  readonly name: string;
  readonly provider: string;
  readonly target: { readonly id: string };
  readonly apiKeySecret: string;
  readonly rotation: {
    readonly every: string;
    readonly window?: { start: string; length: string; days?: readonly string[]; timeZone: string };
    readonly blackouts?: readonly { from: string; to: string }[];
  };
}

const windows = [
  undefined,
  { start: '01:00', length: 'PT6H', timeZone: 'Europe/Berlin' },
  { start: '22:30', length: 'PT7H', timeZone: 'America/New_York' },
  { start: '20:00', length: 'PT10H', days: ['MO', 'TU', 'WE', 'TH'], timeZone: 'Australia/Sydney' },
  { start: '02:00', length: 'PT8H', days: ['SA', 'SU'], timeZone: 'Asia/Kolkata' },
] as const;
const intervals = ['P28D', 'P30D', 'P45D', 'P90D'] as const;
const blackouts = [{ from: '2026-12-20', to: '2027-01-03' }] as const;

/** Two hundred credentials: ten on each of twenty targets, five targets to an API key, every combination of calendars. */
const declared: readonly Declared[] = Array.from({ length: 200 }, (_, index) => {
  const target = index % 20;
  const window = windows[Math.floor(index / 20) % windows.length];
  const document = {
    name: `c${index}`,
    provider: target % 2 === 0 ? 'simulated-choosing' : 'simulated-issuing',
    target: { id: `target-${target}` },
    apiKeySecret: `rekey/api-keys/${target % 2 === 0 ? 'choosing' : 'issuing'}-${target % 4}`,
    usernamePrefix: `c${index}`,
    grace: 'PT24H',
    rotation: {
      every: intervals[Math.floor(index / 7) % intervals.length] ?? 'P30D',
      ...(window === undefined
        ? {}
        : { window: { ...window, ...('days' in window ? { days: [...window.days] } : {}) } }),
      ...(index % 3 === 0 ? { blackouts } : {}),
    },
  };
  return document;
});

const wallClocks = new Map<string, Intl.DateTimeFormat>();
function wall(timeZone: string, instant: number): { date: string; time: string; day: string } {
  const format =
    wallClocks.get(timeZone) ??
    new Intl.DateTimeFormat('en-CA', {
      timeZone,
      hourCycle: 'h23',
      weekday: 'short',
      year: 'numeric',
      month: '2-digit',
      day: '2-digit',
      hour: '2-digit',
      minute: '2-digit',
    });
  wallClocks.set(timeZone, format);
  const parts = format.formatToParts(instant);
  const part = (type: string) => parts.find((each) => each.type === type)?.value ?? '';
  return {
    date: `${part('year')}-${part('month')}-${part('day')}`,
    time: `${part('hour')}:${part('minute')}`,
    day: part('weekday').slice(0, 2).toUpperCase(),
  };
}

/** By its own reading of the calendar: the clock on the wall, asked of Intl, and no code of rekey. */
function isOpen({ window, blackouts: closed = [] }: Declared['rotation'], at: Date): boolean {
  const timeZone = window?.timeZone ?? 'UTC';
  const { date } = wall(timeZone, at.getTime());
  if (closed.some(({ from, to }) => from <= date && date <= to)) return false;
  if (window === undefined) return true;
  const hours = Number(/^PT(\d+)H$/.exec(window.length)?.[1]);
  // It is open if it opened within its length before now: look back minute by minute for the opening.
  for (let back = 0; back < hours * 60; back += 1) {
    const { time, day } = wall(timeZone, at.getTime() - back * 60_000);
    if (time === window.start && (window.days === undefined || window.days.includes(day))) return true;
  }
  return false;
}

const isUnderWay = ({ VersionIdsToStages }: { VersionIdsToStages: Record<string, string[]> }): boolean =>
  Object.values(VersionIdsToStages).some(
    (labels) => labels.includes('AWSPENDING') && !labels.includes('AWSCURRENT'),
  );

test('a year of 200 credentials on 20 targets: in time, in their windows, one at a time, and nothing left over', async () => {
  const simulation = await createSimulation({
    start,
    run: 20_261_122,
    odds: { vendorFailure: 0.01, death: 0.01 },
    specs: declared.map((spec) => ({ ...spec })),
  });
  const { clock, vendors, secretsManager, random } = simulation;
  const byArn = new Map<string, Declared>();
  const describe = async (name: string) =>
    (await secretsManager.call('DescribeSecret', { SecretId: secretName(name) })) as {
      ARN: string;
      VersionIdsToStages: Record<string, string[]>;
    };
  const current = async (
    name: string,
  ): Promise<{ username?: string; password?: string; target?: string }> => {
    const { SecretString } = (await secretsManager.call('GetSecretValue', {
      SecretId: secretName(name),
    })) as {
      SecretString: string;
    };
    return JSON.parse(SecretString);
  };
  for (const spec of declared) byArn.set((await describe(spec.name)).ARN, spec);

  const problems: string[] = [];
  const at = () => clock.now().toISOString();

  // One at a time on a target: when a rotation is started, no younger one is open there.
  const openedAt = new Map<string, number>();
  simulation.setOnStart(async (secretId) => {
    const spec = byArn.get(secretId);
    if (spec === undefined) return void problems.push(`${at()} a rotation of an unknown secret was started`);
    for (const other of declared.filter(
      ({ target, name }) => target.id === spec.target.id && name !== spec.name,
    )) {
      const isOpenThere = isUnderWay(await describe(other.name));
      const since = openedAt.get(other.name) ?? 0;
      if (isOpenThere && clock.now().getTime() - since < 30 * 60_000)
        problems.push(`${at()} ${spec.name} was started beside ${other.name} on ${spec.target.id}`);
    }
    openedAt.set(spec.name, clock.now().getTime());
    const { username } = await current(spec.name);
    if (username !== undefined && !isOpen(spec.rotation, clock.now()))
      problems.push(`${at()} ${spec.name} was started outside its window`);
  });

  // Applications: each holds a connection as whatever it read last, and reads again within half of its grace.
  const everCurrent = new Map<string, { name: string; supersededAt?: number }>();
  const lastSwitch = new Map<string, number>();
  const gaps = new Map<string, number>();
  let logins = 0;
  const application = async (spec: Declared): Promise<void> => {
    const users = () => vendors.targets.get(spec.target.id);
    let held: { username?: string; password?: string } = {};
    for (;;) {
      const login = await current(spec.name);
      if (login.username !== undefined && login.username !== held.username) {
        const { username: before } = held;
        held = login;
        const user = users()?.users.get(login.username);
        if (user !== undefined) user.connections += 1;
        // Some close their old connections late: nobody may take their user away meanwhile.
        const lateMs = random() < 0.1 ? 2 * dayMs : 1_000;
        if (before !== undefined)
          void clock.sleep(lateMs).then(() => {
            const left = users()?.users.get(before);
            if (left === undefined) problems.push(`${at()} ${before} was taken away while connected`);
            else left.connections -= 1;
          });
      }
      for (let again = 0; again < 2; again += 1) {
        await clock.sleep(4 * hourMs + random() * 2 * hourMs);
        if (held.username === undefined || held.password === undefined) continue;
        logins += 1;
        if (!users()?.accepts(held.username, held.password))
          problems.push(`${at()} ${spec.name} was locked out as ${held.username}`);
      }
    }
  };

  const every = async (ms: number, act: () => Promise<void>): Promise<void> => {
    for (;;) {
      await clock.sleep(ms);
      await act();
    }
  };
  // As often as there may be something to start: what lies between two passes that change nothing is left out.
  const scheduler = async (): Promise<void> => {
    for (;;) {
      const report = await simulation.start();
      const now = clock.now().getTime();
      const next = (report?.held ?? []).map(({ until }) => until?.getTime() ?? now + 15 * 60_000);
      const isBusy =
        report === undefined ||
        report.held.some(
          ({ reason }) => reason === 'TARGET_BUSY' || reason === 'SPACING' || reason === 'BUDGET',
        );
      // No longer, or a rotation that is due shortly before its window closes is missed, which no pass of every five minutes would.
      await clock.sleep(isBusy ? 15 * 60_000 : Math.max(15 * 60_000, Math.min(now + dayMs, ...next) - now));
    }
  };
  void scheduler();
  void every(dayMs, async () => void (await simulation.sweep()));
  void every(7 * dayMs, simulation.reconcile);
  // Every hour where it would find something: a rotation that was started and came to nothing.
  void every(hourMs, async () => {
    const now = clock.now().getTime();
    const recent = [...openedAt].filter(([, at]) => now - at > hourMs && now - at < 2 * dayMs);
    const stuck = await Promise.all(recent.map(async ([name]) => isUnderWay(await describe(name))));
    if (stuck.includes(true)) await simulation.reconcile();
  });
  void every(dayMs, async () => secretsManager.tick());
  for (const spec of declared) void application(spec);

  // The end of every day, looked at from outside.
  const firstSeen = new Map<string, number>();
  let seen = 0;
  for (let day = 1; day <= 370; day += 1) {
    await clock.runUntil(new Date(start.getTime() + day * dayMs));
    for (const { 'detail-type': type, detail, time } of simulation.events().slice(seen)) {
      if (type !== 'CredentialRotated') continue;
      const [name, username] = [String(detail['credential']), String(detail['username'])];
      const now = new Date(time).getTime();
      const before = lastSwitch.get(name);
      if (before !== undefined) gaps.set(name, Math.max(gaps.get(name) ?? 0, now - before));
      for (const user of everCurrent.values())
        if (user.name === name && user.supersededAt === undefined) user.supersededAt = now;
      everCurrent.set(username, { name });
      lastSwitch.set(name, now);
    }
    seen = simulation.events().length;
    const now = clock.now().getTime();
    for (const [id, { users }] of vendors.targets)
      for (const username of users.keys()) {
        if (!firstSeen.has(username)) firstSeen.set(username, now);
        const known = everCurrent.get(username);
        // Since it was superseded, or since it was made if nobody ever got its login.
        const uselessSince = known === undefined ? firstSeen.get(username) : known.supersededAt;
        // Grace, the latest connection of an application, and the sweeps until it is gone.
        if (username !== 'owner' && uselessSince !== undefined && now - uselessSince > 5 * dayMs)
          problems.push(`${at()} ${username} of ${id} is left over`);
      }
    // The first rotations and faults start with the second day: then everything has a user.
    if (day === 1) simulation.disturb(true);
    // Faults end; what they left must go away by itself.
    if (day === 365) simulation.disturb(false);
  }

  for (const spec of declared) {
    const limit = Number(/^P(\d+)D$/.exec(spec.rotation.every)?.[1]) * dayMs;
    const gap = Math.max(gaps.get(spec.name) ?? 0, clock.now().getTime() - (lastSwitch.get(spec.name) ?? 0));
    if (gap > limit)
      problems.push(
        `${spec.name} went ${(gap / dayMs).toFixed(2)} days without rotation, wanted ${spec.rotation.every}`,
      );
  }
  const minutes = new Map<string, number>();
  for (const { at: when, apiKey } of vendors.writes) {
    const minute = `${apiKey} ${Math.floor(when / 60_000)}`;
    minutes.set(minute, (minutes.get(minute) ?? 0) + 1);
  }
  const busiest = Math.max(...minutes.values());

  expect(simulation.defects).toEqual([]);
  expect(problems.slice(0, 20)).toEqual([]);
  expect(busiest).toBeLessThanOrEqual(30);
  // The year was worth looking at.
  expect(lastSwitch.size).toBe(200);
  expect(simulation.starts.length).toBeGreaterThan(1_500);
  expect(simulation.counts.deaths).toBeGreaterThan(20);
  expect(simulation.counts.failures).toBeGreaterThan(20);
  expect(logins).toBeGreaterThan(250_000);
}, 600_000);
