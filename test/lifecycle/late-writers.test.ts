import { afterAll, beforeAll, expect, test } from 'vitest';
import { dangerous, type LateWriters, scenarios, startLateWriters, subjectNames, worlds } from '../support/late-writers.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
let late: LateWriters;
beforeAll(async () => {
  late = await startLateWriters(vendors);
});
afterAll(() => late.stop());

const cases = [...scenarios].flatMap(([title, scenario]) => subjectNames.filter((subject) => late0(subject, scenario)).map((s) => [s, title] as const));
function late0(subject: string, scenario: unknown) { return scenario !== undefined && subject.includes(process.env['SUB'] ?? ''); }
test.each(cases.filter(([, t]) => t.includes(process.env['ONLY'] ?? '')))('%s %s', async (subject, title) => {
  const all: string[] = [];
      const scenario = scenarios.get(title);
      if (scenario === undefined || !late.has(subject, scenario)) return;
      const calls = await late.count(subject, title);
      let t = performance.now();
      const picks = dangerous(calls);
      const missing: string[] = [];
      let n = 0;
      for (const world of worlds)
        for (const [i, call] of picks.entries()) {
          if (process.env['SOME'] && (i + worlds.indexOf(world)) % Number(process.env['SOME']) !== 0) continue;
          const v = await late.play({ subject, scenario: title, world, call });
          n += 1;
          if (v === undefined) missing.push(`${world} ${call}`);
          else all.push(...v);
        }
      console.log(title, subject, calls.length, picks.length, n, Math.round((performance.now() - t)/Math.max(1,n)), missing.join(','));
  if (title !== 'x') await late.clear();
  expect(all).toEqual([]);
}, 900_000);
