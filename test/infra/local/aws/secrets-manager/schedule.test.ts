import { describe, expect, test } from 'vitest';
import { nextWindow } from '../../../../../infra/local/aws/secrets-manager/schedule.ts';

// A Sunday.
const now = new Date('2026-03-01T12:30:00Z');

const windows: Record<string, { rules: Parameters<typeof nextWindow>[0]; want: [string, string] }> = {
  'an interval in days opens at midnight UTC and lasts the day': {
    rules: { AutomaticallyAfterDays: 30 },
    want: ['2026-03-31T00:00:00.000Z', '2026-04-01T00:00:00.000Z'],
  },
  'a rate in days is cut by its duration': {
    rules: { ScheduleExpression: 'rate(1 day)', Duration: '3h' },
    want: ['2026-03-02T00:00:00.000Z', '2026-03-02T03:00:00.000Z'],
  },
  'a rate in hours counts from midnight and lasts an hour': {
    rules: { ScheduleExpression: 'rate(4 hours)' },
    want: ['2026-03-01T16:00:00.000Z', '2026-03-01T17:00:00.000Z'],
  },
  'a cron with one hour lasts until the end of the day': {
    rules: { ScheduleExpression: 'cron(0 16 1,15 * ? *)' },
    want: ['2026-03-01T16:00:00.000Z', '2026-03-02T00:00:00.000Z'],
  },
  'a cron with several hours lasts an hour': {
    rules: { ScheduleExpression: 'cron(0 8/8 * * ? *)' },
    want: ['2026-03-01T16:00:00.000Z', '2026-03-01T17:00:00.000Z'],
  },
  'a cron on weekdays skips the weekend': {
    rules: { ScheduleExpression: 'cron(0 10 ? * MON-FRI *)', Duration: '2h' },
    want: ['2026-03-02T10:00:00.000Z', '2026-03-02T12:00:00.000Z'],
  },
  'a cron on the last day of the month finds it': {
    rules: { ScheduleExpression: 'cron(0 1 L * ? *)', Duration: '1h' },
    want: ['2026-03-31T01:00:00.000Z', '2026-03-31T02:00:00.000Z'],
  },
  'a cron on the third Monday finds it': {
    rules: { ScheduleExpression: 'cron(0 16 ? * 2#3 *)', Duration: '2h' },
    want: ['2026-03-16T16:00:00.000Z', '2026-03-16T18:00:00.000Z'],
  },
  'a cron on the last Sunday of a quarter finds it': {
    rules: { ScheduleExpression: 'cron(0 4 ? 1/3 SUNL *)', Duration: '4h' },
    want: ['2026-04-26T04:00:00.000Z', '2026-04-26T08:00:00.000Z'],
  },
};

test.each(Object.entries(windows))('%s', (_sentence, { rules, want }) => {
  const window = nextWindow(rules, now);
  expect([window?.start.toISOString(), window?.end.toISOString()]).toEqual(want);
});

test('without a schedule there is no window', () => {
  expect(nextWindow(undefined, now)).toBeUndefined();
  expect(nextWindow({ Duration: '3h' }, now)).toBeUndefined();
});

describe('a schedule is refused when', () => {
  const refused: Record<string, Parameters<typeof nextWindow>[0]> = {
    'its rate is below four hours': { ScheduleExpression: 'rate(3 hours)' },
    'its rate is in minutes': { ScheduleExpression: 'rate(300 minutes)' },
    'its cron names minutes': { ScheduleExpression: 'cron(15 4 * * ? *)' },
    'its cron names a year': { ScheduleExpression: 'cron(0 4 * * ? 2027)' },
    'its cron has five fields': { ScheduleExpression: 'cron(0 4 * * ?)' },
    'its cron has both day fields': { ScheduleExpression: 'cron(0 4 1 * MON *)' },
    'its cron names hour 24': { ScheduleExpression: 'cron(0 24 * * ? *)' },
    'its window crosses midnight': { ScheduleExpression: 'cron(0 22 * * ? *)', Duration: '3h' },
    'its window reaches into the next': { ScheduleExpression: 'rate(4 hours)', Duration: '5h' },
  };
  test.each(Object.entries(refused))('%s', (_sentence, rules) => {
    expect(() => nextWindow(rules, now)).toThrow(RangeError);
  });
});
