import { describe, expect, onTestFinished, test } from 'vitest';
import type { DeliveryResult } from '../../../../infra/local/aws/delivery.ts';
import {
  createScheduler,
  type LostOccurrence,
  type Schedule,
  type SchedulerOptions,
} from '../../../../infra/local/aws/scheduler.ts';
import { functionArn, settle, testClock } from './support.ts';

const scheduleArn = 'arn:aws:scheduler:eu-central-1:111122223333:schedule/rekey/sweep';
const lettersArn = 'arn:aws:sqs:eu-central-1:111122223333:letters';

/** A schedule of five minutes, made at noon on 1 March, and the moments at which its target was called. */
function start({
  results = [],
  schedule = {},
  ...options
}: Partial<SchedulerOptions> & { results?: DeliveryResult[]; schedule?: Partial<Schedule> } = {}) {
  const clock = testClock();
  const calls: string[] = [];
  const inputs: string[] = [];
  const lost: LostOccurrence[] = [];
  const scheduler = createScheduler({
    clock,
    retryDelayMs: (attempt) => attempt * 1000,
    deliver: async (_target, input) => {
      calls.push(clock.now().toISOString().slice(0, 19));
      inputs.push(input);
      return results.shift() ?? { ok: true };
    },
    onLost: (occurrence) => lost.push(occurrence),
    ...options,
  });
  scheduler.addSchedule({
    arn: scheduleArn,
    expression: 'rate(5 minutes)',
    target: { arn: functionArn, input: '{"pass":"scheduled"}', deadLetterArn: lettersArn },
    ...schedule,
  });
  onTestFinished(() => scheduler.stop());
  /** From one due time to the next, as whoever moves the clock does. */
  async function runUntil(end: string): Promise<void> {
    for (let now = clock.now(); now < new Date(end); now = clock.now()) {
      scheduler.tick();
      const due = scheduler.nextDue() ?? new Date(end);
      await clock.advance(Math.min(due.getTime(), Date.parse(end)) - now.getTime());
    }
    scheduler.tick();
    await settle();
  }
  return { clock, scheduler, calls, inputs, lost, runUntil };
}

describe('a rate', () => {
  test('comes for the first time after one interval, and with its input', async () => {
    const { runUntil, calls, inputs, scheduler } = start();
    scheduler.tick();
    expect(calls).toEqual([]);
    await runUntil('2026-03-01T12:12:00Z');
    expect(calls).toEqual(['2026-03-01T12:05:00', '2026-03-01T12:10:00']);
    expect(inputs).toEqual(['{"pass":"scheduled"}', '{"pass":"scheduled"}']);
  });

  test('comes at once where AWS is followed in that, too', async () => {
    const { runUntil, calls } = start({ firstRate: 'at-once' });
    await runUntil('2026-03-01T12:05:00Z');
    expect(calls).toEqual(['2026-03-01T12:00:00', '2026-03-01T12:05:00']);
  });

  test('starts with its start date and ends with its end date, both included', async () => {
    const { runUntil, calls } = start({
      schedule: { startAt: new Date('2026-03-01T13:00:00Z'), endAt: new Date('2026-03-01T13:10:00Z') },
    });
    await runUntil('2026-03-02T00:00:00Z');
    expect(calls).toEqual(['2026-03-01T13:00:00', '2026-03-01T13:05:00', '2026-03-01T13:10:00']);
  });

  test('comes once after a jump over many occurrences, and then as before', async () => {
    const { clock, scheduler, calls, runUntil } = start();
    await clock.advance(3_723_000);
    scheduler.tick();
    await runUntil('2026-03-01T13:06:00Z');
    expect(calls).toEqual(['2026-03-01T13:02:03', '2026-03-01T13:05:00']);
  });
});

test('the input may name the schedule, the time and the attempt', async () => {
  const input = '<aws.scheduler.schedule-arn> <aws.scheduler.scheduled-time> <aws.scheduler.attempt-number>';
  const { runUntil, inputs } = start({
    schedule: { target: { arn: functionArn, input } },
    results: [{ ok: false, error: 'throttled' }],
  });
  await runUntil('2026-03-01T12:06:00Z');
  expect(inputs).toEqual([`${scheduleArn} 2026-03-01T12:05:00Z 1`, `${scheduleArn} 2026-03-01T12:05:00Z 2`]);
});

describe('a target that cannot be reached', () => {
  const broken: DeliveryResult = { ok: false, error: 'broken' };

  test('is called again, and the occurrence is not lost', async () => {
    const { runUntil, calls, lost } = start({ results: [broken, broken] });
    await runUntil('2026-03-01T12:05:10Z');
    expect(calls).toEqual(['2026-03-01T12:05:00', '2026-03-01T12:05:01', '2026-03-01T12:05:03']);
    expect(lost).toEqual([]);
  });

  test('is given up after as many attempts as the policy has', async () => {
    const { runUntil, lost } = start({
      results: [broken, broken, broken],
      schedule: {
        target: { arn: functionArn, input: '{}', deadLetterArn: lettersArn, maximumRetryAttempts: 2 },
      },
    });
    await runUntil('2026-03-01T12:09:00Z');
    expect(lost).toEqual([
      {
        scheduleArn,
        targetArn: functionArn,
        deadLetterArn: lettersArn,
        scheduledAt: new Date('2026-03-01T12:05:00Z'),
        input: '{}',
        error: 'broken',
        attempts: 3,
        exhausted: 'MaximumRetryAttempts',
      },
    ]);
  });

  test('is given up at the age that the policy has', async () => {
    const { runUntil, lost } = start({
      deliver: async () => broken,
      retryDelayMs: () => 30_000,
      schedule: { target: { arn: functionArn, input: '{}', maximumEventAgeSeconds: 60 } },
    });
    await runUntil('2026-03-01T12:09:00Z');
    expect(lost.map(({ attempts, exhausted }) => [attempts, exhausted])).toEqual([
      [3, 'MaximumEventAgeInSeconds'],
    ]);
  });

  test('is given up at once when nothing can mend it', async () => {
    const { runUntil, lost } = start({
      results: [{ ok: false, error: 'no such function', isFinal: true, code: 'NO_RESOURCE' }],
    });
    await runUntil('2026-03-01T12:05:00Z');
    expect(lost).toMatchObject([{ attempts: 1, code: 'NO_RESOURCE', error: 'no such function' }]);
  });
});

describe('thinned', () => {
  const day = 86_400_000;
  const until = new Date('2026-03-04T18:02:00Z');

  test('a frequent schedule comes once in every step and once at the end, at times of its own', async () => {
    const { scheduler, runUntil, calls } = start();
    scheduler.thin({ everyMs: day, until });
    await runUntil(until.toISOString());
    expect(calls).toEqual([
      '2026-03-02T12:00:00',
      '2026-03-03T12:00:00',
      '2026-03-04T12:00:00',
      '2026-03-04T18:00:00',
    ]);
  });

  test('a rare schedule leaves nothing out', async () => {
    const { scheduler, runUntil, calls } = start({ schedule: { expression: 'cron(0 3 * * ? *)' } });
    scheduler.thin({ everyMs: day, until });
    await runUntil(until.toISOString());
    expect(calls).toEqual(['2026-03-02T03:00:00', '2026-03-03T03:00:00', '2026-03-04T03:00:00']);
  });

  test('no longer, it comes as often as it says', async () => {
    const { scheduler, runUntil, calls } = start();
    scheduler.thin({ everyMs: day, until: new Date('2026-03-01T18:00:00Z') });
    await runUntil('2026-03-01T18:00:00Z');
    scheduler.thin(undefined);
    await runUntil('2026-03-01T18:10:00Z');
    expect(calls).toEqual(['2026-03-01T18:00:00', '2026-03-01T18:05:00', '2026-03-01T18:10:00']);
  });
});

test('a schedule that Scheduler would refuse is refused', () => {
  const { scheduler } = start();
  const target = { arn: functionArn, input: '{}' };
  expect(() => scheduler.addSchedule({ arn: scheduleArn, expression: 'rate(5 parsecs)', target })).toThrow(
    'Invalid Schedule Expression rate(5 parsecs).',
  );
});

test('after a stop nothing is called, and nothing that waits for another attempt is lost', async () => {
  const { clock, scheduler, calls, lost } = start({ results: [{ ok: false, error: 'broken' }] });
  await clock.advance(300_000);
  scheduler.tick();
  await settle();
  await scheduler.stop();
  await clock.advance(3_600_000);
  scheduler.tick();
  await settle();
  expect([calls, lost]).toEqual([['2026-03-01T12:05:00'], []]);
});
