/** One cron field as a test of a number on a day, which is given as midnight UTC of its date. */
export type Field = (value: number, date: Date) => boolean;

const names: Readonly<Record<string, number>> = {
  JAN: 1,
  FEB: 2,
  MAR: 3,
  APR: 4,
  MAY: 5,
  JUN: 6,
  JUL: 7,
  AUG: 8,
  SEP: 9,
  OCT: 10,
  NOV: 11,
  DEC: 12,
  SUN: 1,
  MON: 2,
  TUE: 3,
  WED: 4,
  THU: 5,
  FRI: 6,
  SAT: 7,
};

const lastDayOfMonth = (date: Date): number =>
  new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 0)).getUTCDate();

function numberOf(text: string, min: number, max: number): number {
  const value = names[text.toUpperCase()] ?? (/^\d+$/.test(text) ? Number(text) : Number.NaN);
  if (!(value >= min && value <= max)) throw new RangeError(`${text} is not within ${min} to ${max}`);
  return value;
}

function part(text: string, min: number, max: number): Field {
  if (text === '*' || text === '?') return () => true;
  if (text === 'L' && max === 31) return (value, date) => value === lastDayOfMonth(date);
  if (/^.+L$/.test(text) && max === 7) {
    const day = numberOf(text.slice(0, -1), min, max);
    return (value, date) => value === day && date.getUTCDate() + 7 > lastDayOfMonth(date);
  }
  const [weekday, nth] = text.split('#');
  if (nth !== undefined && max === 7) {
    const day = numberOf(weekday ?? '', min, max);
    const which = numberOf(nth, 1, 5);
    return (value, date) => value === day && Math.ceil(date.getUTCDate() / 7) === which;
  }
  const [range = '', step] = text.split('/');
  const [first = '', last] = range.split('-');
  const from = first === '*' ? min : numberOf(first, min, max);
  const to = last !== undefined ? numberOf(last, min, max) : step !== undefined ? max : from;
  const stride = step === undefined ? 1 : numberOf(step, 1, max);
  return (value) => value >= from && value <= to && (value - from) % stride === 0;
}

/** Reads one of AWS's cron fields: lists, ranges, steps, names, `L` and `#`. Throws RangeError for what it cannot read. */
export function field(text: string, min: number, max: number): Field {
  const parts = text.split(',').map((each) => part(each, min, max));
  return (value, date) => parts.some((matches) => matches(value, date));
}
