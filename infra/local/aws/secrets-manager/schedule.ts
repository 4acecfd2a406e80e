import { field } from '../cron.ts';
import type { RotationRules } from './model.ts';

/** Between these two moments a rotation may start. */
export interface RotationWindow {
  readonly start: Date;
  readonly end: Date;
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

const midnight = (at: number): number => Math.floor(at / dayMs) * dayMs;

interface Schedule {
  /** First start of a window after `after`. */
  next(after: number): number;
  /** Length of the window when no Duration is given; `day` is the rest of the UTC day. */
  readonly window: 'hour' | 'day';
}

function cronSchedule(body: string): Schedule {
  const [minute, hour, dayOfMonth, month, dayOfWeek, year, ...rest] = body.trim().split(/\s+/);
  if (year === undefined || rest.length > 0) throw new RangeError('cron needs six fields');
  if (minute !== '0' || year !== '*') throw new RangeError('cron needs 0 minutes and any year');
  if ((dayOfMonth === '?') === (dayOfWeek === '?')) throw new RangeError('exactly one day field must be ?');
  const hours = field(hour ?? '', 0, 23);
  const monthDays = field(dayOfMonth ?? '', 1, 31);
  const months = field(month ?? '', 1, 12);
  const weekDays = field(dayOfWeek ?? '', 1, 7);
  const matches = (date: Date) =>
    hours(date.getUTCHours(), date) &&
    monthDays(date.getUTCDate(), date) &&
    months(date.getUTCMonth() + 1, date) &&
    weekDays(date.getUTCDay() + 1, date);
  return {
    window: /^\d+$/.test(hour ?? '') ? 'day' : 'hour',
    next(after) {
      // Any valid expression comes round within one leap-year cycle of eight years.
      for (let at = (Math.floor(after / hourMs) + 1) * hourMs; at < after + 8 * 366 * dayMs; at += hourMs)
        if (matches(new Date(at))) return at;
      throw new RangeError('cron never comes round');
    },
  };
}

function rateSchedule(count: number, unit: 'hour' | 'day'): Schedule {
  if (unit === 'hour' && count < 4) throw new RangeError('rate must be at least 4 hours');
  if (count < 1 || count > (unit === 'day' ? 999 : 999 * 24))
    throw new RangeError('rate must be within 4 hours to 999 days');
  if (unit === 'day') return { window: 'day', next: (after) => midnight(after) + count * dayMs };
  // Hour windows are counted from midnight UTC.
  return {
    window: 'hour',
    next: (after) =>
      midnight(after) + (Math.floor((after - midnight(after)) / (count * hourMs)) + 1) * count * hourMs,
  };
}

function scheduleOf(rules: RotationRules): Schedule | undefined {
  if (rules.AutomaticallyAfterDays !== undefined) {
    const days = rules.AutomaticallyAfterDays;
    return { window: 'day', next: (after) => midnight(after) + days * dayMs };
  }
  if (rules.ScheduleExpression === undefined) return undefined;
  const rate = rules.ScheduleExpression.match(/^rate\((\d+) (hour|day)s?\)$/);
  if (rate !== null) return rateSchedule(Number(rate[1]), rate[2] === 'hour' ? 'hour' : 'day');
  const cron = rules.ScheduleExpression.match(/^cron\((.+)\)$/);
  if (cron?.[1] !== undefined) return cronSchedule(cron[1]);
  throw new RangeError('it is neither rate(…) nor cron(…)');
}

/** The first window that opens after `after`; `undefined` without a schedule. Throws RangeError for a bad schedule. */
export function nextWindow(rules: RotationRules | undefined, after: Date): RotationWindow | undefined {
  const schedule = rules && scheduleOf(rules);
  if (schedule === undefined) return undefined;
  const start = schedule.next(after.getTime());
  const hours = rules?.Duration === undefined ? undefined : Number.parseInt(rules.Duration, 10);
  const end =
    hours !== undefined
      ? start + hours * hourMs
      : schedule.window === 'hour'
        ? start + hourMs
        : midnight(start) + dayMs;
  if (end > midnight(start) + dayMs || end <= start)
    throw new RangeError('the window must not cross midnight UTC');
  if (end > schedule.next(start)) throw new RangeError('the window must not reach into the next one');
  return { start: new Date(start), end: new Date(end) };
}
