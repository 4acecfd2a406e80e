import { Temporal } from 'temporal-polyfill';
import { durationMs } from './duration.ts';
import { type Gap, intervalFaults } from './interval.ts';
import type { CredentialSpec } from './spec.ts';
import type { Day } from './spec-schema.ts';

type Rotation = CredentialSpec['rotation'];
type Window = NonNullable<Rotation['window']>;

/** An interval in which a rotation may start: `from` included, `until` not. */
export interface Opening {
  readonly from: Date;
  readonly until: Date;
}

/** The same in milliseconds since 1970, for reckoning. */
export interface Span {
  readonly from: number;
  readonly until: number;
}

/** Passes come at least this often; a start may have to wait so long after it became possible. */
export const passMs = 15 * 60_000;

/** Shorter openings are taken, but never counted on: one pass may fall just before it, and the next just after. */
export const usableMs = 2 * passMs;

/** Every opening that touches the interval, in order: the window's, or whole days where there is none, less the blackouts. */
export const openings = (rotation: Rotation, from: Date, until: Date): readonly Opening[] =>
  openSpans(rotation, from.getTime(), until.getTime()).map((span) => ({
    from: new Date(span.from),
    until: new Date(span.until),
  }));

/** Openings that adjoin as one, those left out that are too short to be counted on. */
export function stretches(rotation: Rotation, from: number, until: number): readonly Span[] {
  const joined: Span[] = [];
  for (const span of openSpans(rotation, from, until)) {
    const last = joined.at(-1);
    if (last !== undefined && last.until === span.from)
      joined[joined.length - 1] = { from: last.from, until: span.until };
    else joined.push(span);
  }
  return joined.filter(isUsable);
}

export const isUsable = ({ from, until }: Span): boolean => until - from >= usableMs;

/** The opening that is there at `at`, or the next one; undefined when blackouts leave none. */
export function nextOpening(rotation: Rotation, at: Date): Opening | undefined {
  const { closed } = calendarOf(rotation);
  // Where nothing is open for so long a blackout is the reason: the search goes on where it ends.
  for (let from = at.getTime(), look = 0; look <= closed.length; look += 1) {
    const until = from + longestPauseMs;
    const found = openings(rotation, new Date(from), new Date(until))[0];
    if (found !== undefined) return found;
    const begun = closed.filter((span) => span.from < until).map((span) => span.until);
    from = Math.max(until, ...begun);
  }
  return undefined;
}

/** Whether a blackout is what keeps it closed then. */
export const isBlackedOut = (rotation: Rotation, at: Date): boolean =>
  calendarOf(rotation).closed.some(({ from, until }) => from <= at.getTime() && at.getTime() < until);

/** What keeps this rotation from ever being on time, each with the remedy; empty when nothing does. */
export function calendarFaults(rotation: Rotation, restMs = 0): readonly string[] {
  const { every, window, blackouts } = rotation;
  const faults = blackouts.flatMap(({ from, to }, index) =>
    to < from
      ? [
          `rotation.blackouts.${index}.to: expected a day not before ${from}, got ${to}; exchange the two or correct one`,
        ]
      : [],
  );
  const lengthMs = window === undefined ? 0 : (durationMs(window.length) ?? 0);
  if (window !== undefined && lengthMs < usableMs)
    faults.push(
      `rotation.window.length: expected at least PT30M, so that a pass falls into it whenever passes come, got ${window.length}; lengthen the window`,
    );
  if (faults.length > 0) return faults;

  const [gap] = [...weeklyGap(window, lengthMs), ...blackoutGaps(rotation, durationMs(every) ?? 0)].toSorted(
    (a, b) => b.ms - a.ms,
  );
  return intervalFaults(every, restMs, gap === undefined ? {} : { gap, openingMs: lengthMs });
}

const dayMs = 86_400_000;
/** No window is closed for longer, but for blackouts: a week between two openings, a day for dates that a zone skips. */
const longestPauseMs = 9 * dayMs;

/** The longest that the window itself is closed. No clock is changed by more than two hours (Antarctica/Troll). */
function weeklyGap(window: Window | undefined, lengthMs: number): readonly Gap[] {
  if (window === undefined) return [];
  const open = weekdays.flatMap((day, index) => (window.days.includes(day) ? [index] : []));
  const apart = open.map((day, index) => (open[index + 1] ?? (open[0] ?? 0) + 7) - day);
  const clocksMs = window.timeZone === 'UTC' ? 0 : 2 * 3_600_000;
  return [
    {
      ms: Math.max(0, Math.max(...apart) * dayMs + clocksMs - lengthMs),
      reason: `a rotation at the beginning of a window is due before the next one begins, up to ${Math.max(...apart)} days later`,
      remedy: 'open the window on more days',
    },
  ];
}

/** What each group of blackouts leaves closed; those with no more than a week between them may leave one long gap. */
function blackoutGaps(rotation: Rotation, everyMs: number): readonly Gap[] {
  const groups: { from: number; until: number; longest: number }[] = [];
  for (const { from, until } of calendarOf(rotation).closed) {
    const group = groups.at(-1);
    if (group === undefined || from - group.until > longestPauseMs)
      groups.push({ from, until, longest: until - from });
    else {
      group.until = until;
      group.longest = Math.max(group.longest, until - from);
    }
  }
  return groups.map(({ from, until, longest }) => {
    // Long enough to be wrong anyway: no need to go through its days, which may be thousands of years.
    const gap =
      longest > everyMs
        ? { from, until }
        : widest(stretches(rotation, from - longestPauseMs, until + longestPauseMs));
    return {
      ms: gap.until - gap.from,
      reason: `the blackouts leave nothing open from ${new Date(gap.from).toISOString()} to ${new Date(gap.until).toISOString()}`,
      remedy: 'shorten the blackouts',
    };
  });
}

const widest = (open: readonly Span[]): Span =>
  open
    .slice(1)
    .map(({ from }, index) => ({ from: open[index]?.until ?? from, until: from }))
    .reduce((most, gap) => (gap.until - gap.from > most.until - most.from ? gap : most), {
      from: 0,
      until: 0,
    });

const weekdays: readonly Day[] = ['MO', 'TU', 'WE', 'TH', 'FR', 'SA', 'SU'];
const wholeDays: Window = { start: '00:00', length: 'PT24H', days: [...weekdays], timeZone: 'UTC' };

/** What of a rotation is the same whenever it is asked. */
interface Calendar {
  /** Of which days of the week windows begin, Monday first. */
  readonly opensOn: readonly boolean[];
  /** After midnight by the clock on the wall. */
  readonly startMs: number;
  readonly lengthMs: number;
  readonly wall: (wall: number) => number;
  readonly closed: readonly Span[];
}

/** Specs are asked many times a pass, and time zones are slow. */
const calendars = new WeakMap<Rotation, Calendar>();

function calendarOf(rotation: Rotation): Calendar {
  const known = calendars.get(rotation);
  if (known !== undefined) return known;
  const { start, length, days, timeZone } = rotation.window ?? wholeDays;
  const [hours = 0, minutes = 0] = start.split(':').map(Number);
  const calendar = {
    opensOn: weekdays.map((day) => days.includes(day)),
    startMs: (hours * 60 + minutes) * 60_000,
    lengthMs: durationMs(length) ?? 0,
    wall: wallClock(timeZone),
    closed: closedSpans(rotation),
  };
  calendars.set(rotation, calendar);
  return calendar;
}

function openSpans(rotation: Rotation, from: number, until: number): readonly Span[] {
  const { opensOn, startMs, lengthMs, wall, closed } = calendarOf(rotation);
  const found: Span[] = [];
  let openUntil = Number.NEGATIVE_INFINITY;
  // Days of the wall's calendar, counted from 1970-01-01, a Thursday. It begins three days before: a window may reach past midnight,
  // the one before may reach into it, and a zone is up to 14 hours away from UTC.
  for (let day = Math.floor(from / dayMs) - 3; ; day += 1) {
    const opensAt = wall(day * dayMs + startMs);
    if (opensAt > from && opensAt >= until) return found;
    if (!opensOn[(((day + 3) % 7) + 7) % 7]) continue;
    // Where the clock goes forward, a window of a whole day reaches into the next one.
    const span = { from: Math.max(opensAt, openUntil), until: opensAt + lengthMs };
    openUntil = Math.max(openUntil, span.until);
    for (const part of without(span, closed))
      if (part.until > from && (part.from <= from || part.from < until)) found.push(part);
  }
}

function without(span: Span, closed: readonly Span[]): readonly Span[] {
  let parts: readonly Span[] = span.from < span.until ? [span] : [];
  for (const { from, until } of closed)
    if (from < span.until && span.from < until)
      parts = parts
        .flatMap((part) => [
          { from: part.from, until: Math.min(part.until, from) },
          { from: Math.max(part.from, until), until: part.until },
        ])
        .filter((part) => part.from < part.until);
  return parts;
}

/** The blackouts, from midnight to midnight in the window's zone, in order and joined where they touch. */
function closedSpans({ window, blackouts }: Rotation): readonly Span[] {
  const timeZone = window?.timeZone ?? 'UTC';
  const midnight = (date: Temporal.PlainDate): number => date.toZonedDateTime(timeZone).epochMilliseconds;
  const joined: Span[] = [];
  const days = blackouts.filter(({ from, to }) => from <= to).toSorted((a, b) => (a.from < b.from ? -1 : 1));
  for (const { from, to } of days) {
    const span = {
      from: midnight(Temporal.PlainDate.from(from)),
      until: midnight(Temporal.PlainDate.from(to).add({ days: 1 })),
    };
    const last = joined.at(-1);
    if (last === undefined || last.until < span.from) joined.push(span);
    else joined[joined.length - 1] = { from: last.from, until: Math.max(last.until, span.until) };
  }
  return joined;
}

/**
 * The instant at which the clock on the wall shows so many milliseconds since 1970: the first of two, and where the clock skips it,
 * the moment at which it is put forward. Asked in order, the zone is looked up once for each stretch between two changes.
 */
function wallClock(timeZone: string): (wall: number) => number {
  let known = { from: 0, until: 0, offset: 0 };
  return (wall) => {
    const at = wall - known.offset;
    // Within a day of a change, it may be the second of two.
    if (known.from + dayMs <= at && at < known.until) return at;
    const local = Temporal.Instant.fromEpochMilliseconds(wall).toZonedDateTimeISO('UTC').toPlainDateTime();
    const first = local.toZonedDateTime(timeZone, { disambiguation: 'earlier' });
    const change = first.getTimeZoneTransition('next')?.epochMilliseconds ?? Number.POSITIVE_INFINITY;
    known = {
      from: first.epochMilliseconds,
      until: change,
      offset: first.offsetNanoseconds / 1_000_000,
    };
    // Skipped: read with the offset before the change, it lies before it by as much as is skipped.
    return first.toPlainDateTime().equals(local) ? first.epochMilliseconds : change;
  };
}

/** Whether the IANA database has this name. An offset such as +02:00 is none: it knows no daylight-saving time. */
export function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    return Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(name) !== undefined;
  } catch {
    return false;
  }
}
