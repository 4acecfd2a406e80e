import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  dangerous,
  has,
  type LateWriters,
  type SubjectName,
  scenarios,
  startLateWriters,
  subjectNames,
  worlds,
} from '../support/late-writers.ts';
import { useTestVendors } from '../support/vendors.ts';

// Every use case of every provider and strategy that has it, with the answer of a call an hour late and each thing that may happen
// meanwhile. The calls are those before, at and within each write: between them nothing is sent that could be late. Of these pairs
// of a call and a happening every n-th is played, the same in each run, as a provider on a real engine takes longer.
const every: Readonly<Record<string, number>> = {
  'zilliz-cloud': 4,
  'vultr-valkey': 8,
  'render-postgres': 12,
  'cockroachdb-cloud': 24,
};

const vendors = useTestVendors();
let late: LateWriters;
let answers = 0;
let violations = 0;
beforeAll(async () => {
  late = await startLateWriters(vendors);
});
afterEach(() => late.clear());
afterAll(async () => {
  process.stdout.write(`${answers} late answers, ${violations} violations\n`);
  await late.stop();
});

const titles = [...scenarios.keys()];
const pairs = titles.flatMap((scenario) =>
  subjectNames.flatMap((subject) => (has(subject, scenario) ? [[scenario, subject] as const] : [])),
);

describe('I1, I3, I6, I7, I8, I17, I26: an answer that comes an hour late breaks nothing', () => {
  test.each(pairs)(
    '%s: %s',
    async (scenario, subject) => {
      const found = await playSome(scenario, subject);
      violations += found.length;
      expect(found).toEqual([]);
    },
    600_000,
  );

  // Of what is quick, a slow provider plays a case or none.
  test('and all of them together are hundreds', () => {
    expect(answers).toBeGreaterThan(400);
  });
});

async function playSome(scenario: string, subject: SubjectName): Promise<readonly string[]> {
  const calls = dangerous(await late.count(subject, scenario));
  const [provider = ''] = scenario.split(',');
  const offset = titles.indexOf(scenario) + subjectNames.indexOf(subject);
  const cases = calls.flatMap((call) => worlds.map((world) => ({ subject, scenario, world, call })));
  const picked = cases.filter((_, index) => (index + offset) % (every[provider] ?? 1) === 0);
  const played: (readonly string[])[] = [];
  for (const one of picked) {
    const found = await late.play(one);
    if (found !== undefined) played.push(found);
  }
  answers += played.length;
  // A run may be a few calls shorter than the one that was counted, and then the call is never made.
  expect(played.length).toBeGreaterThanOrEqual(Math.floor(picked.length / 2));
  return played.flat();
}
