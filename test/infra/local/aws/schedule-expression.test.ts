import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readScheduleExpression } from '../../../../infra/local/aws/schedule-expression.ts';

const at = (text: string) => Date.parse(text);
const text = (ms: number | undefined) => (ms === undefined ? 'never' : new Date(ms).toISOString());

/** The first `count` occurrences after `from`. */
function occurrences(expression: string, from: string, count: number, timeZone?: string): string[] {
  const schedule = readScheduleExpression(expression, at(from), timeZone);
  const found: string[] = [];
  for (let after = at(from); found.length < count; ) {
    const next = schedule.next(after);
    if (next === undefined) break;
    found.push(text(next));
    after = next;
  }
  return found;
}

const cases: Record<
  string,
  { expression: string; timeZone?: string; from: string; want: readonly string[] }
> = {
  'a rate counts from the beginning': {
    expression: 'rate(5 minutes)',
    from: '2026-03-01T12:01:30Z',
    want: ['2026-03-01T12:06:30.000Z', '2026-03-01T12:11:30.000Z'],
  },
  'a rate in days means 24 hours, also when the clocks change': {
    expression: 'rate(1 day)',
    timeZone: 'Europe/Berlin',
    from: '2026-03-28T12:00:00Z',
    want: ['2026-03-29T12:00:00.000Z', '2026-03-30T12:00:00.000Z'],
  },
  'a cron with minutes': {
    expression: 'cron(15,45 8-9 * * ? *)',
    from: '2026-03-01T08:20:00Z',
    want: ['2026-03-01T08:45:00.000Z', '2026-03-01T09:15:00.000Z', '2026-03-01T09:45:00.000Z'],
  },
  'a cron every ten minutes': {
    expression: 'cron(0/10 * * * ? *)',
    from: '2026-03-01T23:50:00Z',
    want: ['2026-03-02T00:00:00.000Z', '2026-03-02T00:10:00.000Z'],
  },
  'a cron on working days in a zone': {
    expression: 'cron(30 2 ? * MON-FRI *)',
    timeZone: 'America/New_York',
    from: '2026-03-06T12:00:00Z',
    want: ['2026-03-09T06:30:00.000Z', '2026-03-10T06:30:00.000Z'],
  },
  'a cron on the last day of the month': {
    expression: 'cron(0 0 L * ? *)',
    from: '2026-02-01T00:00:00Z',
    want: ['2026-02-28T00:00:00.000Z', '2026-03-31T00:00:00.000Z'],
  },
  'a cron of one year comes to an end': {
    expression: 'cron(0 12 1 1,7 ? 2026)',
    from: '2026-03-01T00:00:00Z',
    want: ['2026-07-01T12:00:00.000Z'],
  },
  'a cron on 29 February finds the leap year': {
    expression: 'cron(0 0 29 2 ? *)',
    from: '2026-03-01T00:00:00Z',
    want: ['2028-02-29T00:00:00.000Z'],
  },
  'a time that the clocks are put forward over is left out': {
    expression: 'cron(30 2 * * ? *)',
    timeZone: 'Europe/Berlin',
    from: '2026-03-28T00:00:00Z',
    want: ['2026-03-28T01:30:00.000Z', '2026-03-30T00:30:00.000Z'],
  },
  'a time that comes twice as the clocks are put back comes once': {
    expression: 'cron(30 2 * * ? *)',
    timeZone: 'Europe/Berlin',
    from: '2026-10-24T12:00:00Z',
    want: ['2026-10-25T00:30:00.000Z', '2026-10-26T01:30:00.000Z'],
  },
  'a moment comes once, by the clocks of its zone': {
    expression: 'at(2026-03-02T09:00:00)',
    timeZone: 'Asia/Tokyo',
    from: '2026-03-01T12:00:00Z',
    want: ['2026-03-02T00:00:00.000Z'],
  },
  'a moment that is past never comes': {
    expression: 'at(2026-02-28T09:00:00)',
    from: '2026-03-01T12:00:00Z',
    want: [],
  },
};
test.each(Object.entries(cases))('%s', (_sentence, { expression, from, timeZone, want }) => {
  expect(occurrences(expression, from, Math.max(want.length, 1), timeZone)).toEqual(want);
});

describe('refused with the text that Scheduler has for it', () => {
  test.each([
    'rate(0 minutes)',
    'rate(-5 minutes)',
    'rate(30 seconds)',
    'rate(1 year)',
    'rate( 5 minutes)',
    'cron(* * * * * *)',
    'cron(0 4 ? * ? *)',
    'cron(0 4 * * ?)',
    'cron(60 4 * * ? *)',
    'cron(0 4 15W * ? *)',
    'at(2026-03-02)',
    'at(2026-03-02T09:00:00Z)',
    'at(2026-02-30T09:00:00)',
    'every five minutes',
  ])('%s', (expression) => {
    expect(() => readScheduleExpression(expression, 0)).toThrow(`Invalid Schedule Expression ${expression}.`);
  });

  test('an unknown time zone', () => {
    expect(() => readScheduleExpression('rate(1 day)', 0, 'Europe/Atlantis')).toThrow(RangeError);
  });
});

test('the last occurrence of an interval is the one that stepping through it ends with', () => {
  const start = at('2026-03-01T00:00:00Z');
  const minutes = fc.integer({ min: 0, max: 60 * 24 * 60 });
  fc.assert(
    fc.property(
      fc.constantFrom('rate(7 hours)', 'cron(20,50 1,2,13 * * ? *)', 'at(2026-03-29T02:30:00)'),
      fc.constantFrom('UTC', 'Europe/Berlin', 'America/Sao_Paulo'),
      minutes,
      fc.integer({ min: 0, max: 5 * 24 * 60 }),
      (expression, timeZone, offset, length) => {
        const schedule = readScheduleExpression(expression, start, timeZone);
        const after = start + offset * 60_000;
        const until = after + length * 60_000;
        let last: number | undefined;
        for (let next = schedule.next(after); next !== undefined && next <= until; next = schedule.next(next))
          last = next;
        expect(text(schedule.last(after, until))).toBe(text(last));
      },
    ),
    { numRuns: 300 },
  );
});
