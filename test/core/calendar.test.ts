import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { calendarFaults, nextOpening, openings } from '../../functions/core/calendar.ts';
import type { CredentialSpec } from '../../functions/core/spec.ts';

type Rotation = CredentialSpec['rotation'];
type Window = NonNullable<Rotation['window']>;

const week = ['MO', 'TU', 'WE', 'TH', 'FR', 'SA', 'SU'] as const;
const windowed = (window: Partial<Window>, rest: Partial<Rotation> = {}): Rotation => ({
  every: 'P30D',
  blackouts: [],
  window: { start: '02:00', length: 'PT3H', days: [...week], timeZone: 'UTC', ...window },
  ...rest,
});
const unwindowed = (rest: Partial<Rotation> = {}): Rotation => ({ every: 'P30D', blackouts: [], ...rest });

const texts = (rotation: Rotation, from: string, until: string): readonly string[] =>
  openings(rotation, new Date(from), new Date(until)).map(
    (opening) => `${short(opening.from)} to ${short(opening.until)}`,
  );
const short = (date: Date): string => date.toISOString().slice(0, 16);

describe('a rotation may start', () => {
  const cases: Record<string, { given: Rotation; from: string; until: string; want: readonly string[] }> = {
    'on whole days in UTC where there is no window': {
      given: unwindowed(),
      from: '2026-03-01T12:00:00Z',
      until: '2026-03-02T12:00:00Z',
      want: ['2026-03-01T00:00 to 2026-03-02T00:00', '2026-03-02T00:00 to 2026-03-03T00:00'],
    },
    'in the window, by the clock on the wall of its zone': {
      given: windowed({ timeZone: 'Europe/Berlin' }),
      from: '2026-01-10T00:00:00Z',
      until: '2026-01-12T00:00:00Z',
      want: ['2026-01-10T01:00 to 2026-01-10T04:00', '2026-01-11T01:00 to 2026-01-11T04:00'],
    },
    'on its days alone: 2026-03-02 is a Monday': {
      given: windowed({ days: ['MO', 'WE'] }),
      from: '2026-03-01T00:00:00Z',
      until: '2026-03-08T00:00:00Z',
      want: ['2026-03-02T02:00 to 2026-03-02T05:00', '2026-03-04T02:00 to 2026-03-04T05:00'],
    },
    'past midnight, when it opened on one of its days': {
      given: windowed({ start: '22:00', length: 'PT6H', days: ['FR'] }),
      from: '2026-03-07T01:00:00Z',
      until: '2026-03-07T02:00:00Z',
      want: ['2026-03-06T22:00 to 2026-03-07T04:00'],
    },
    'by the day of the zone, which may be another one than that of UTC: Monday begins at 11:00 on Sunday there':
      {
        given: windowed({ start: '01:00', length: 'PT1H', days: ['MO'], timeZone: 'Pacific/Auckland' }),
        from: '2026-03-01T00:00:00Z',
        until: '2026-03-07T00:00:00Z',
        want: ['2026-03-01T12:00 to 2026-03-01T13:00'],
      },
    'from the moment at which the clock is put forward, where that skips the beginning, for as long as ever':
      {
        given: windowed({ start: '02:30', timeZone: 'Europe/Berlin' }),
        from: '2026-03-28T00:00:00Z',
        until: '2026-03-31T00:00:00Z',
        want: [
          '2026-03-28T01:30 to 2026-03-28T04:30',
          '2026-03-29T01:00 to 2026-03-29T04:00',
          '2026-03-30T00:30 to 2026-03-30T03:30',
        ],
      },
    'once where the clock is put back, at the first of the two beginnings': {
      given: windowed({ start: '02:30', timeZone: 'Europe/Berlin' }),
      from: '2026-10-24T12:00:00Z',
      until: '2026-10-26T12:00:00Z',
      want: ['2026-10-25T00:30 to 2026-10-25T03:30', '2026-10-26T01:30 to 2026-10-26T04:30'],
    },
    'through the hours that come twice, as a length is elapsed time': {
      given: windowed({ start: '01:00', length: 'PT3H', timeZone: 'America/New_York' }),
      from: '2026-11-01T04:00:00Z',
      until: '2026-11-01T12:00:00Z',
      want: ['2026-11-01T05:00 to 2026-11-01T08:00'],
    },
    'never twice at once, where a day has less hours than the window': {
      given: windowed({ start: '00:00', length: 'PT24H', timeZone: 'Europe/Berlin' }),
      from: '2026-03-28T23:00:00Z',
      until: '2026-03-30T22:00:00Z',
      want: ['2026-03-28T23:00 to 2026-03-29T23:00', '2026-03-29T23:00 to 2026-03-30T22:00'],
    },
    'on no day of a blackout, counted in the zone of the window': {
      given: windowed(
        { start: '22:00', length: 'PT4H', timeZone: 'America/New_York' },
        { blackouts: [{ from: '2026-01-11', to: '2026-01-12' }] },
      ),
      from: '2026-01-11T00:00:00Z',
      until: '2026-01-15T00:00:00Z',
      want: [
        '2026-01-11T03:00 to 2026-01-11T05:00',
        '2026-01-13T05:00 to 2026-01-13T07:00',
        '2026-01-14T03:00 to 2026-01-14T07:00',
      ],
    },
    'between two blackouts': {
      given: unwindowed({
        blackouts: [
          { from: '2026-12-28', to: '2027-01-03' },
          { from: '2026-12-20', to: '2026-12-26' },
        ],
      }),
      from: '2026-12-18T12:00:00Z',
      until: '2027-01-03T12:00:00Z',
      want: [
        '2026-12-18T00:00 to 2026-12-19T00:00',
        '2026-12-19T00:00 to 2026-12-20T00:00',
        '2026-12-27T00:00 to 2026-12-28T00:00',
      ],
    },
    'on a date that a zone left out, as soon as the next one begins': {
      given: windowed({ start: '10:00', length: 'PT1H', days: ['FR'], timeZone: 'Pacific/Apia' }),
      from: '2011-12-29T00:00:00Z',
      until: '2012-01-01T00:00:00Z',
      want: ['2011-12-30T10:00 to 2011-12-30T11:00'],
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { given, from, until, want }) => {
    expect(texts(given, from, until)).toEqual(want);
  });

  test('at the instant at which it opens, and no more at the one at which it closes', () => {
    const rotation = windowed({});
    const isOpen = (at: string) => openings(rotation, new Date(at), new Date(at)).length > 0;
    expect(isOpen('2026-03-01T01:59:59.999Z')).toBe(false);
    expect(isOpen('2026-03-01T02:00:00.000Z')).toBe(true);
    expect(isOpen('2026-03-01T04:59:59.999Z')).toBe(true);
    expect(isOpen('2026-03-01T05:00:00.000Z')).toBe(false);
  });

  test('next after a blackout of weeks', () => {
    const rotation = windowed({ days: ['MO'] }, { blackouts: [{ from: '2026-03-01', to: '2026-04-30' }] });
    expect(nextOpening(rotation, new Date('2026-03-05T00:00:00Z'))?.from).toEqual(
      new Date('2026-05-04T02:00:00Z'),
    );
  });
});

const zones = [
  'UTC',
  'Europe/Berlin',
  'America/New_York',
  'Australia/Lord_Howe',
  'Antarctica/Troll',
  'Asia/Kathmandu',
  'America/St_Johns',
  'Africa/Casablanca',
  'Pacific/Kiritimati',
] as const;
const anyWindow = fc.record({
  start: fc
    .tuple(fc.integer({ min: 0, max: 23 }), fc.integer({ min: 0, max: 59 }))
    .map(([hour, minute]) => `${String(hour).padStart(2, '0')}:${String(minute).padStart(2, '0')}`),
  length: fc.integer({ min: 30, max: 1440 }).map((minutes) => `PT${minutes}M`),
  days: fc.subarray([...week], { minLength: 1 }),
  timeZone: fc.constantFrom(...zones),
});
const anyBlackouts = fc.array(
  fc
    .tuple(fc.integer({ min: 0, max: 364 }), fc.integer({ min: 0, max: 12 }))
    .map(([day, length]) => ({ from: dateOf(day), to: dateOf(day + length) })),
  { maxLength: 3 },
);
const dateOf = (day: number): string =>
  new Date(Date.UTC(2026, 0, 1) + day * 86_400_000).toISOString().slice(0, 10);
const anyInstant = fc
  .integer({ min: 0, max: 365 * 24 * 60 })
  .map((minutes) => new Date(Date.UTC(2026, 0, 1) + minutes * 60_000));

/** By another reading of the calendar: the clock on the wall, asked of Intl for every minute of the day before. */
function isOpenByTheWall({ window, blackouts }: Rotation, at: Date): boolean {
  const { start, length, days, timeZone } = window ?? windowed({}).window ?? {};
  const format = new Intl.DateTimeFormat('sv-SE', { timeZone, dateStyle: 'short', timeStyle: 'short' });
  const wall = (ms: number): string => format.format(ms);
  const today = wall(at.getTime()).slice(0, 10);
  if (blackouts.some(({ from, to }) => from <= today && today <= to)) return false;
  const minutes = Number(/^PT(\d+)M$/.exec(length ?? '')?.[1]);
  // The first minute of each date at or after the beginning by the clock.
  const begun = new Set<string>();
  let isOpen = false;
  for (let back = 27 * 60; back >= 0; back -= 1) {
    const shown = wall(at.getTime() - back * 60_000);
    const date = shown.slice(0, 10);
    if (shown.slice(11) < (start ?? '') || begun.has(date)) continue;
    begun.add(date);
    const weekday = week[(new Date(`${date}T00:00:00Z`).getUTCDay() + 6) % 7];
    if (back < 27 * 60 && weekday !== undefined && days?.includes(weekday) && back < minutes) isOpen = true;
  }
  return isOpen;
}

describe('openings', () => {
  test('are where the clock on the wall says', () => {
    fc.assert(
      fc.property(anyWindow, anyBlackouts, anyInstant, (window, blackouts, at) => {
        const rotation = windowed(window, { blackouts });
        expect(openings(rotation, at, at).length > 0).toBe(isOpenByTheWall(rotation, at));
      }),
      { numRuns: 150 },
    );
  });

  test('are in order, never overlap, and are the same whatever part of them is asked for', () => {
    fc.assert(
      fc.property(
        fc.option(anyWindow, { nil: undefined }),
        anyBlackouts,
        anyInstant,
        fc.integer({ min: 0, max: 40 * 24 * 60 }),
        (window, blackouts, from, minutes) => {
          const rotation = window === undefined ? unwindowed({ blackouts }) : windowed(window, { blackouts });
          const until = new Date(from.getTime() + minutes * 60_000);
          const found = openings(rotation, from, until);
          for (const [index, opening] of found.entries()) {
            expect(opening.from < opening.until).toBe(true);
            const next = found[index + 1];
            if (next !== undefined) expect(opening.until <= next.from).toBe(true);
          }
          const wider = openings(
            rotation,
            new Date(from.getTime() - 3 * 86_400_000),
            new Date(until.getTime() + 3 * 86_400_000),
          );
          expect(
            wider.filter((opening) => opening.until > from && (opening.from <= from || opening.from < until)),
          ).toEqual(found);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('a calendar that can never be kept is told', () => {
  const cases: Record<string, { given: Rotation; rest?: number; says: string }> = {
    'a blackout that ends before it begins': {
      given: unwindowed({
        blackouts: [
          { from: '2026-01-01', to: '2026-01-01' },
          { from: '2027-01-03', to: '2026-12-20' },
        ],
      }),
      says: 'rotation.blackouts.1.to: expected a day not before 2027-01-03, got 2026-12-20; exchange the two',
    },
    'a window too short for passes to fall into': {
      given: windowed({ length: 'PT20M' }),
      says: 'rotation.window.length: expected at least PT30M',
    },
    'a day between rotations in a window of three hours a day': {
      given: windowed({}, { every: 'P1D' }),
      says: 'rotation.every: expected at least P2D, got P1D',
    },
    'a week between rotations in a window on one day a week': {
      given: windowed({ days: ['SA'] }, { every: 'P7D' }),
      says: 'rotation.every: expected at least P8D, got P7D',
    },
    'a blackout longer than the interval': {
      given: unwindowed({ every: 'P7D', blackouts: [{ from: '2026-12-20', to: '2027-01-03' }] }),
      says: 'expected at least P16D, got P7D, as the blackouts leave nothing open from 2026-12-20T00:00:00.000Z to 2027-01-04T00:00:00.000Z; rotate less often, or shorten the blackouts',
    },
    'adjoining blackouts that are too long together': {
      given: unwindowed({
        every: 'P10D',
        blackouts: [
          { from: '2026-12-27', to: '2027-01-03' },
          { from: '2026-12-20', to: '2026-12-26' },
        ],
      }),
      says: 'expected at least P16D, got P10D',
    },
    'blackouts that leave days open, but none of the window’s': {
      given: windowed(
        { days: ['MO'] },
        {
          every: 'P14D',
          blackouts: [
            { from: '2026-03-02', to: '2026-03-02' },
            { from: '2026-03-09', to: '2026-03-09' },
          ],
        },
      ),
      says: 'nothing open from 2026-02-23T05:00:00.000Z to 2026-03-16T02:00:00.000Z',
    },
    'a blackout without end': {
      given: unwindowed({ blackouts: [{ from: '2026-01-01', to: '9999-12-31' }] }),
      says: 'shorten the blackouts',
    },
    'a grace of two alternating users as long as the interval': {
      given: unwindowed({ every: 'P1D' }),
      rest: 86_400_000,
      says: 'expected at least P2D, got P1D, as a rotation takes some time, and alternate-users waits for the grace before it; rotate less often, or shorten the grace',
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { given, rest, says }) => {
    expect(calendarFaults(given, rest).join('; ')).toContain(says);
  });

  const kept: Record<string, Rotation> = {
    'every day without a window': unwindowed({ every: 'P1D' }),
    'every second day in a window of three hours a day': windowed(
      { timeZone: 'Europe/Berlin' },
      { every: 'P2D' },
    ),
    'every eight days in a window on one day a week': windowed(
      { days: ['SU'], timeZone: 'America/New_York' },
      { every: 'P8D' },
    ),
    'a blackout that is over before the interval is': unwindowed({
      every: 'P16D',
      blackouts: [{ from: '2026-12-20', to: '2027-01-03' }],
    }),
  };
  test.each(Object.entries(kept))('but not %s', (_sentence, given) => {
    expect(calendarFaults(given)).toEqual([]);
  });
});
