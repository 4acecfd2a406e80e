import { Temporal } from 'temporal-polyfill';
import { type Field, field } from './cron.ts';

/** When a schedule of EventBridge Scheduler is due, in milliseconds since 1970. */
export interface Occurrences {
  /** The first one after `after`; undefined when there is none any more. */
  next(after: number): number | undefined;
  /** The last one after `after` and not after `until`. */
  last(after: number, until: number): number | undefined;
}

const dayMs = 86_400_000;
const unitMs = { minute: 60_000, hour: 3_600_000, day: dayMs } as const;
/** Any valid expression comes round within one leap-year cycle of eight years. */
const horizonMs = 8 * 366 * dayMs;

/**
 * Reads `rate(…)`, `cron(…)` with six fields, or `at(…)`. A rate counts from `from`, when the schedule was made or starts
 * (AWS documentation). Throws with Scheduler's own text for what it cannot read.
 */
export function readScheduleExpression(expression: string, from: number, timeZone = 'UTC'): Occurrences {
  const [, kind, body = ''] = /^(rate|cron|at)\((.+)\)$/.exec(expression) ?? [];
  try {
    // Also refuses a zone that does not exist.
    const zoned = inZone(timeZone);
    if (kind === 'rate') return rate(body, from);
    if (kind === 'at') return once(body, zoned);
    if (kind === 'cron') return cron(body, timeZone, zoned);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new RangeError(`Invalid Schedule Expression ${expression}.`, { cause: error });
  }
  throw new RangeError(`Invalid Schedule Expression ${expression}.`);
}

function rate(body: string, from: number): Occurrences {
  const [, count = '', unit = ''] = /^([1-9]\d*) (minute|hour|day)s?$/.exec(body) ?? [];
  const everyMs = Number(count) * (unitMs[unit as keyof typeof unitMs] ?? Number.NaN);
  if (!(everyMs > 0)) throw new RangeError('rate needs a whole number of minutes, hours or days');
  const latest = (until: number) => from + Math.floor((until - from) / everyMs) * everyMs;
  return {
    next: (after) => (after < from ? from : latest(after) + everyMs),
    last: (after, until) => (until >= from && latest(until) > after ? latest(until) : undefined),
  };
}

function once(body: string, zoned: InZone): Occurrences {
  if (!/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}$/.test(body)) throw new RangeError('at needs a date and a time');
  const at = zoned(Temporal.PlainDateTime.from(body, { overflow: 'reject' }));
  return {
    next: (after) => (at !== undefined && at > after ? at : undefined),
    last: (after, until) => (at !== undefined && at > after && at <= until ? at : undefined),
  };
}

function cron(body: string, timeZone: string, zoned: InZone): Occurrences {
  const texts = body.split(' ');
  const [minute = '', hour = '', dayOfMonth = '', month = '', dayOfWeek = '', year = ''] = texts;
  if (texts.length !== 6) throw new RangeError('cron needs six fields');
  if ((dayOfMonth === '?') === (dayOfWeek === '?')) throw new RangeError('exactly one day field must be ?');
  const minutes = listed(field(minute, 0, 59), 60);
  const hours = listed(field(hour, 0, 23), 24);
  const days: readonly [Field, (date: Temporal.PlainDate) => number][] = [
    [field(dayOfMonth, 1, 31), (date) => date.day],
    [field(month, 1, 12), (date) => date.month],
    // Sunday is 1 at AWS and 7 in ISO 8601.
    [field(dayOfWeek, 1, 7), (date) => (date.dayOfWeek % 7) + 1],
    [field(year, 1970, 2199), (date) => date.year],
  ];
  const dateOf = (at: number) =>
    Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO(timeZone).toPlainDate();
  /** Every occurrence on a date of the zone, in order. */
  function timesOf(date: Temporal.PlainDate): readonly number[] {
    const day = new Date(Date.UTC(date.year, date.month - 1, date.day));
    if (!days.every(([matches, partOf]) => matches(partOf(date), day))) return [];
    return hours.flatMap((h) =>
      minutes.flatMap((m) => zoned(date.toPlainDateTime({ hour: h, minute: m })) ?? []),
    );
  }
  return {
    next(after) {
      const end = after + horizonMs;
      for (let date = dateOf(after); ; date = date.add({ days: 1 })) {
        const found = timesOf(date).find((at) => at > after);
        if (found !== undefined) return found;
        if (date.toZonedDateTime(timeZone).epochMilliseconds > end) return undefined;
      }
    },
    last(after, until) {
      for (let date = dateOf(until); ; date = date.subtract({ days: 1 })) {
        const found = timesOf(date).findLast((at) => at <= until);
        if (found !== undefined) return found > after ? found : undefined;
        if (date.toZonedDateTime(timeZone).epochMilliseconds <= after) return undefined;
      }
    },
  };
}

type InZone = (local: Temporal.PlainDateTime) => number | undefined;

/**
 * A time on the zone's clocks as an instant: the first of two when they are put back, none when they are put forward over
 * it. Scheduler runs once in the one case and leaves out the other (AWS documentation).
 */
function inZone(timeZone: string): InZone {
  Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(timeZone);
  return (local) => {
    const instant = local.toZonedDateTime(timeZone, { disambiguation: 'earlier' });
    return instant.toPlainDateTime().equals(local) ? instant.epochMilliseconds : undefined;
  };
}

const listed = (matches: Field, count: number): readonly number[] =>
  Array.from({ length: count }, (_, value) => value).filter((value) => matches(value, new Date(0)));
