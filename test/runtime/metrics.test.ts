import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import * as z from 'zod';
import { type MetricName, metrics } from '../../functions/core/metrics.ts';
import { createMeasure } from '../../functions/runtime/metrics.ts';

/** What reached the two streams that Lambda collects. */
let written = '';
beforeEach(() => {
  written = '';
  const keep = (chunk: string | Uint8Array): boolean => {
    written += String(chunk);
    return true;
  };
  vi.spyOn(process.stdout, 'write').mockImplementation(keep);
  vi.spyOn(process.stderr, 'write').mockImplementation(keep);
  vi.useFakeTimers({ now: new Date('2026-03-01T12:00:00Z') });
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const lines = (): readonly unknown[] =>
  written
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

function start() {
  const logged: unknown[] = [];
  return { measure: createMeasure((...line) => logged.push(line)), logged };
}

/** The part of the format's JSON schema that CloudWatch holds lines to (AWS documentation, format specification). */
const embeddedMetricFormat = z.looseObject({
  _aws: z.strictObject({
    Timestamp: z.int(),
    CloudWatchMetrics: z.array(
      z.strictObject({
        Namespace: z.string().min(1).max(255),
        Dimensions: z.array(z.array(z.string().min(1).max(255)).max(9)).min(1),
        Metrics: z.array(
          z.strictObject({
            Name: z.string().min(1).max(255),
            Unit: z.enum(['Seconds', 'Count']),
          }),
        ),
      }),
    ),
  }),
});

test('a reading is one line at once, of one metric without dimensions', () => {
  const { measure } = start();
  measure('RotationOverdueAge', 3600);
  expect(lines()).toEqual([
    {
      _aws: {
        Timestamp: Date.parse('2026-03-01T12:00:00Z'),
        CloudWatchMetrics: [
          {
            Namespace: 'rekey',
            Dimensions: [[]],
            Metrics: [{ Name: 'RotationOverdueAge', Unit: 'Seconds' }],
          },
        ],
      },
      RotationOverdueAge: 3600,
    },
  ]);
  expect(written.endsWith('\n')).toBe(true);
});

test.each(Object.keys(metrics) as MetricName[])('CloudWatch takes the line of %s', (metric) => {
  start().measure(metric, 0);
  const [line] = lines();
  expect(embeddedMetricFormat.parse(line)).toMatchObject({ [metric]: 0 });
});

test('readings do not add up in the line of another, however many there are', () => {
  const { measure } = start();
  for (let reading = 0; reading < 250; reading += 1) {
    measure('RotationsSucceeded', 1);
    measure('OpenFindings', reading);
  }
  expect(lines()).toHaveLength(500);
  expect(lines()[0]).toMatchObject({ RotationsSucceeded: 1 });
  expect(lines()[499]).toMatchObject({ OpenFindings: 249 });
  for (const line of lines()) expect(Object.keys(z.looseObject({}).parse(line))).toHaveLength(2);
});

describe('a reading that is no number', () => {
  test.each([Number.NaN, Number.POSITIVE_INFINITY])(
    'is reported instead of a line that is refused: %s',
    (value) => {
      const { measure, logged } = start();
      measure('ConsumerBehindAge', value);
      expect(lines()).toEqual([]);
      expect(logged).toEqual([['error', 'a reading is no number', { metric: 'ConsumerBehindAge' }]]);
    },
  );
});
