import { Metrics, MetricUnit } from '@aws-lambda-powertools/metrics';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { type Alarm, createAlarms } from '../../../../infra/local/aws/alarms.ts';
import { account, region, testClock } from './support.ts';

const topicArn = `arn:aws:sns:${region}:${account}:alarms`;

const failed: Alarm = {
  name: 'rotation-failed',
  arn: `arn:aws:cloudwatch:${region}:${account}:alarm:rotation-failed`,
  description: 'read the log',
  namespace: 'rekey',
  metricName: 'RotationsFailed',
  dimensions: {},
  statistic: 'Sum',
  periodSeconds: 300,
  evaluationPeriods: 1,
  threshold: 2,
  comparison: 'GreaterThanOrEqualToThreshold',
  treatMissingData: 'notBreaching',
  alarmActions: [topicArn],
  okActions: [],
  insufficientDataActions: [],
};

/** An alarm whose clock stands at noon, and what it published. */
function start(alarm: Partial<Alarm> = {}) {
  const clock = testClock();
  const published: { topic: string; subject: string; message: Record<string, unknown> }[] = [];
  const alarms = createAlarms({
    account,
    region,
    clock,
    publish: (topic, message, subject) => published.push({ topic, subject, message: JSON.parse(message) }),
  });
  alarms.addAlarm({ ...failed, ...alarm });
  const observe = (value: number, dimensions: Record<string, string> = {}) =>
    alarms.observe({
      namespace: 'rekey',
      metricName: 'RotationsFailed',
      dimensions,
      at: clock.now(),
      value,
    });
  /** Lets minutes pass, and judges. */
  async function pass(minutes: number): Promise<string> {
    await clock.advance(minutes * 60_000);
    alarms.evaluate();
    return alarms.state('rotation-failed');
  }
  return { clock, alarms, observe, pass, published };
}

test('an alarm goes off when its threshold is reached, says so to its topic once, and comes back', async () => {
  const { observe, pass, published, alarms } = start({ okActions: [topicArn] });
  observe(1);
  expect(await pass(1)).toBe('OK');
  observe(1);
  expect(await pass(1)).toBe('ALARM');
  expect(await pass(1)).toBe('ALARM');
  expect(await pass(10)).toBe('OK');
  expect(published.map(({ topic, subject }) => [topic, subject])).toEqual([
    [topicArn, 'OK: "rotation-failed" in eu-central-1'],
    [topicArn, 'ALARM: "rotation-failed" in eu-central-1'],
    [topicArn, 'OK: "rotation-failed" in eu-central-1'],
  ]);
  expect(published[1]?.message).toEqual({
    AlarmName: 'rotation-failed',
    AlarmDescription: 'read the log',
    AWSAccountId: account,
    NewStateValue: 'ALARM',
    NewStateReason:
      'Threshold Crossed: 1 out of the last 1 datapoints [2] were greater than or equal to the threshold (2).',
    StateChangeTime: '2026-03-01T12:02:00.000+0000',
    Region: region,
    AlarmArn: failed.arn,
    OldStateValue: 'OK',
    OKActions: [topicArn],
    AlarmActions: [topicArn],
    InsufficientDataActions: [],
    Trigger: {
      MetricName: 'RotationsFailed',
      Namespace: 'rekey',
      StatisticType: 'Statistic',
      Statistic: 'SUM',
      Unit: null,
      Dimensions: [],
      Period: 300,
      EvaluationPeriods: 1,
      ComparisonOperator: 'GreaterThanOrEqualToThreshold',
      Threshold: 2,
      TreatMissingData: 'notBreaching',
    },
  });
  expect(alarms.changes().map(({ from, to }) => `${from} → ${to}`)).toEqual([
    'INSUFFICIENT_DATA → OK',
    'OK → ALARM',
    'ALARM → OK',
  ]);
});

describe('the values of a period', () => {
  const statistics: Record<Alarm['statistic'], number> = {
    Sum: 12,
    Maximum: 7,
    Minimum: 2,
    Average: 4,
    SampleCount: 3,
  };
  test.each(Object.entries(statistics) as [Alarm['statistic'], number][])(
    'make up %s',
    async (statistic, value) => {
      const reached = start({ statistic, threshold: value });
      const beyond = start({ statistic, threshold: value, comparison: 'GreaterThanThreshold' });
      for (const { observe } of [reached, beyond]) for (const each of [2, 7, 3]) observe(each);
      expect([await reached.pass(1), await beyond.pass(1)]).toEqual(['ALARM', 'OK']);
    },
  );

  test('count only where namespace, name and dimensions are those of the alarm', async () => {
    const { observe, pass } = start();
    observe(5, { service: 'rekey' });
    expect(await pass(5)).toBe('OK');
  });
});

describe('several periods', () => {
  test('all have to be beyond the threshold', async () => {
    const { observe, pass } = start({ evaluationPeriods: 3 });
    const states: string[] = [];
    for (const value of [9, 9, 9, 0]) {
      observe(value);
      states.push(await pass(5));
    }
    expect(states).toEqual(['OK', 'OK', 'ALARM', 'OK']);
  });

  test('some are enough where the alarm says how many', async () => {
    const { observe, pass } = start({ evaluationPeriods: 3, datapointsToAlarm: 2 });
    const states: string[] = [];
    for (const value of [9, 0, 9, 0, 0]) {
      observe(value);
      states.push(await pass(5));
    }
    expect(states).toEqual(['OK', 'OK', 'ALARM', 'OK', 'OK']);
  });
});

describe('without data', () => {
  const after: Record<Alarm['treatMissingData'], string> = {
    breaching: 'ALARM',
    notBreaching: 'OK',
    ignore: 'ALARM',
    missing: 'INSUFFICIENT_DATA',
  };
  test.each(Object.entries(after) as [Alarm['treatMissingData'], string][])(
    'an alarm that treats it as %s is in %s afterwards',
    async (treatMissingData, state) => {
      const { observe, pass } = start({ treatMissingData });
      observe(2);
      expect(await pass(1)).toBe('ALARM');
      expect(await pass(60)).toBe(state);
    },
  );

  test('nobody is alarmed for the time before the start', async () => {
    const { pass } = start({ treatMissingData: 'breaching', evaluationPeriods: 2 });
    expect(await pass(4)).toBe('INSUFFICIENT_DATA');
    expect(await pass(2)).toBe('OK');
    expect(await pass(4)).toBe('ALARM');
  });
});

describe('time that was jumped over', () => {
  async function jump(alarm: Partial<Alarm>, value: number) {
    const system = start(alarm);
    const { clock, alarms, observe, pass } = system;
    for (let day = 0; day < 3; day += 1) {
      observe(value);
      await pass(1);
      const from = clock.now();
      await clock.advance(86_400_000);
      alarms.leaveOut(from, clock.now());
      alarms.evaluate();
    }
    observe(value);
    return pass(0);
  }

  test('is no silence', async () => {
    const silent = { treatMissingData: 'breaching', evaluationPeriods: 3 } as const;
    expect(await jump({ ...silent, comparison: 'LessThanThreshold', threshold: 1 }, 1)).toBe('OK');
  });

  test('does not hide what was measured again and again on both sides of it', async () => {
    expect(await jump({ treatMissingData: 'ignore', evaluationPeriods: 3 }, 2)).toBe('ALARM');
  });

  test('lets an alarm go whose metric is only written when something happens', async () => {
    const { clock, alarms, observe, pass } = start();
    observe(2);
    expect(await pass(1)).toBe('ALARM');
    const from = clock.now();
    await clock.advance(86_400_000);
    alarms.leaveOut(from, clock.now());
    expect(await pass(0)).toBe('OK');
  });
});

describe('a log line', () => {
  function lineOf(write: (metrics: Metrics) => void): string {
    const lines: string[] = [];
    const written = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
      lines.push(String(text));
      return true;
    });
    onTestFinished(() => written.mockRestore());
    const metrics = new Metrics({ namespace: 'rekey' });
    write(metrics);
    metrics.publishStoredMetrics();
    written.mockRestore();
    return (lines[0] ?? '').replaceAll(/"Timestamp":\d+/g, '"Timestamp":1772366400000');
  }

  test('in the embedded metric format counts, as Powertools writes it, under its dimensions', async () => {
    const line = lineOf((metrics) => {
      metrics.addMetric('RotationsFailed', MetricUnit.Count, 1);
      metrics.addMetric('RotationsFailed', MetricUnit.Count, 1);
    });
    expect(line).toContain('"RotationsFailed":[1,1]');
    const { service } = JSON.parse(line) as { service: string };
    const under = start({ dimensions: { service } });
    under.alarms.observeLine(line);
    expect(await under.pass(1)).toBe('ALARM');
    const without = start();
    without.alarms.observeLine(line);
    expect(await without.pass(5)).toBe('OK');
  });

  const withDimensions = (Dimensions: unknown) =>
    JSON.stringify({
      _aws: {
        Timestamp: Date.parse('2026-03-01T12:00:00Z'),
        CloudWatchMetrics: [{ Namespace: 'rekey', Dimensions, Metrics: [{ Name: 'RotationsFailed' }] }],
      },
      RotationsFailed: 2,
    });
  test.each(['[]', '[[]]'])('counts without dimensions where it names none: %s', async (dimensions) => {
    const { alarms, pass } = start();
    alarms.observeLine(withDimensions(JSON.parse(dimensions)));
    expect(await pass(1)).toBe('ALARM');
  });

  test.each(['START RequestId: 1', '{"_aws":', '{"_aws":{"CloudWatchMetrics":"none"}}', '{"level":"INFO"}'])(
    'that is no metric is left alone: %s',
    async (line) => {
      const { alarms, pass } = start();
      alarms.observeLine(line);
      expect(await pass(5)).toBe('OK');
    },
  );
});

test('asking for an alarm that does not exist is a mistake', () => {
  expect(() => start().alarms.state('nothing')).toThrow('no such alarm: nothing');
});
