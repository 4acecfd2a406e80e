import * as z from 'zod';
import type { Clock } from '../clock.ts';

export type AlarmState = 'OK' | 'ALARM' | 'INSUFFICIENT_DATA';

export interface Alarm {
  readonly name: string;
  readonly arn: string;
  readonly description?: string | undefined;
  readonly namespace: string;
  readonly metricName: string;
  readonly dimensions: Readonly<Record<string, string>>;
  readonly statistic: 'Sum' | 'Maximum' | 'Minimum' | 'Average' | 'SampleCount';
  readonly periodSeconds: number;
  readonly evaluationPeriods: number;
  /** Of the periods, so many have to be beyond the threshold. @default all of them */
  readonly datapointsToAlarm?: number | undefined;
  readonly threshold: number;
  readonly comparison: keyof typeof comparisons;
  readonly treatMissingData: 'breaching' | 'notBreaching' | 'ignore' | 'missing';
  readonly alarmActions: readonly string[];
  readonly okActions: readonly string[];
  readonly insufficientDataActions: readonly string[];
}

export interface Datapoint {
  readonly namespace: string;
  readonly metricName: string;
  readonly dimensions: Readonly<Record<string, string>>;
  readonly at: Date;
  readonly value: number;
}

export interface StateChange {
  readonly alarm: Alarm;
  readonly from: AlarmState;
  readonly to: AlarmState;
  readonly reason: string;
  readonly at: Date;
}

export interface AlarmsOptions {
  readonly account: string;
  readonly region: string;
  readonly clock: Clock;
  /** Publishes a change to one of the alarm's topics. */
  readonly publish: (topicArn: string, message: string, subject: string, alarmArn: string) => void;
}

export interface Alarms {
  addAlarm(alarm: Alarm): void;
  /** Takes one value of a metric. */
  observe(datapoint: Datapoint): void;
  /** Takes every value of a log line in the embedded metric format; any other line is left alone. */
  observeLine(line: string): void;
  /**
   * These moments were jumped over. An alarm on silence is not set off by it, and one that keeps its state without data
   * looks past it; for the others there was simply no data.
   */
  leaveOut(from: Date, until: Date): void;
  /** Judges every alarm by what was observed until now, and publishes each change. */
  evaluate(): void;
  state(name: string): AlarmState;
  /** Every change of state, oldest first. */
  changes(): readonly StateChange[];
}

const comparisons = {
  GreaterThanThreshold: { sign: 'greater than', holds: (value: number, than: number) => value > than },
  GreaterThanOrEqualToThreshold: {
    sign: 'greater than or equal to',
    holds: (value: number, than: number) => value >= than,
  },
  LessThanThreshold: { sign: 'less than', holds: (value: number, than: number) => value < than },
  LessThanOrEqualToThreshold: {
    sign: 'less than or equal to',
    holds: (value: number, than: number) => value <= than,
  },
} as const;

/** One period of one metric. */
interface Bucket {
  sum: number;
  count: number;
  min: number;
  max: number;
}

interface Watched {
  readonly alarm: Alarm;
  readonly series: string;
  readonly buckets: Map<number, Bucket>;
  state: AlarmState;
}

const emf = z.object({
  _aws: z.object({
    Timestamp: z.number(),
    CloudWatchMetrics: z.array(
      z.object({
        Namespace: z.string(),
        Dimensions: z.array(z.array(z.string())).default([]),
        Metrics: z.array(z.object({ Name: z.string() })),
      }),
    ),
  }),
});
const emfValue = z.union([z.number().transform((value) => [value]), z.array(z.number())]);

const seriesOf = ({ namespace, metricName, dimensions }: Omit<Datapoint, 'at' | 'value'>): string =>
  JSON.stringify([
    namespace,
    metricName,
    Object.entries(dimensions).sort(([a], [b]) => (a < b ? -1 : Number(a > b))),
  ]);

/** CloudWatch in memory, as far as alarms on single metrics go. */
export function createAlarms({ account, region, clock, publish }: AlarmsOptions): Alarms {
  const watched: Watched[] = [];
  const history: StateChange[] = [];
  // Before the start nothing was measured for anybody.
  const gaps: { readonly from: number; readonly until: number }[] = [
    { from: Number.NEGATIVE_INFINITY, until: clock.now().getTime() },
  ];

  function observe(datapoint: Datapoint): void {
    const series = seriesOf(datapoint);
    const { value } = datapoint;
    for (const { alarm, buckets } of watched.filter((each) => each.series === series)) {
      const index = Math.floor(datapoint.at.getTime() / (alarm.periodSeconds * 1000));
      const bucket = buckets.get(index) ?? { sum: 0, count: 0, min: value, max: value };
      bucket.sum += value;
      bucket.count += 1;
      bucket.min = Math.min(bucket.min, value);
      bucket.max = Math.max(bucket.max, value);
      buckets.set(index, bucket);
    }
  }

  function observeLine(line: string): void {
    if (!line.includes('"_aws"')) return;
    const document = jsonOf(line);
    const parsed = emf.safeParse(document);
    if (!parsed.success) return;
    const { Timestamp, CloudWatchMetrics } = parsed.data._aws;
    const members = new Map(Object.entries(z.record(z.string(), z.unknown()).parse(document)));
    // Without a set of dimensions a metric has none; with several it counts once under each.
    for (const { Namespace, Dimensions, Metrics } of CloudWatchMetrics)
      for (const names of Dimensions.length === 0 ? [[]] : Dimensions)
        for (const { Name } of Metrics)
          for (const value of emfValue.safeParse(members.get(Name)).data ?? [])
            observe({
              namespace: Namespace,
              metricName: Name,
              dimensions: Object.fromEntries(names.map((name) => [name, String(members.get(name))])),
              at: new Date(Timestamp),
              value,
            });
  }

  /** The last periods in which something was or could have been measured, newest first; undefined for one without data. */
  function periods({ alarm, buckets }: Watched, now: number): readonly (Bucket | undefined)[] {
    const periodMs = alarm.periodSeconds * 1000;
    const found: (Bucket | undefined)[] = [];
    let index = Math.floor(now / periodMs);
    // The period under way may still bring data: it is not missing yet.
    if (!buckets.has(index)) index -= 1;
    const looksPast = alarm.treatMissingData === 'breaching' || alarm.treatMissingData === 'ignore';
    const withData = [...buckets.keys()].sort((a, b) => b - a);
    while (found.length < alarm.evaluationPeriods) {
      const bucket = buckets.get(index);
      const gap = gaps.find(({ from, until }) => from < (index + 1) * periodMs && until > index * periodMs);
      if (bucket !== undefined || gap === undefined || (!looksPast && Number.isFinite(gap.from))) {
        found.push(bucket);
        index -= 1;
        continue;
      }
      const earlier = withData.find((each) => each < index) ?? Number.NEGATIVE_INFINITY;
      const beforeGap = Math.ceil(gap.from / periodMs) - 1;
      index = Math.max(earlier, Math.min(beforeGap, index - 1));
      if (index === Number.NEGATIVE_INFINITY) break;
    }
    for (const each of withData.slice(alarm.evaluationPeriods)) buckets.delete(each);
    return found;
  }

  function judge(
    each: Watched,
    now: number,
  ): { readonly state: AlarmState; readonly reason: string } | undefined {
    const { alarm } = each;
    const found = periods(each, now);
    if (found.length === 0) return undefined;
    const values = found.map((bucket) => bucket && statisticOf(bucket, alarm.statistic));
    const known = values.filter((value) => value !== undefined);
    const missing = values.length - known.length;
    if (known.length === 0 && alarm.treatMissingData === 'ignore') return undefined;
    if (known.length === 0 && alarm.treatMissingData === 'missing')
      return { state: 'INSUFFICIENT_DATA', reason: `Insufficient Data: ${missing} datapoints were unknown.` };
    const { holds, sign } = comparisons[alarm.comparison];
    const breaching =
      known.filter((value) => holds(value, alarm.threshold)).length +
      (alarm.treatMissingData === 'breaching' ? missing : 0);
    const needed = alarm.datapointsToAlarm ?? alarm.evaluationPeriods;
    const isAlarm = breaching >= needed;
    const shown = known.length === 0 ? 'no datapoints were received' : `[${known.join(', ')}]`;
    return {
      state: isAlarm ? 'ALARM' : 'OK',
      reason: `Threshold Crossed: ${breaching} out of the last ${values.length} datapoints ${shown} ${
        isAlarm ? 'were' : 'was not'
      } ${sign} the threshold (${alarm.threshold})${isAlarm ? '' : ` for ${needed} datapoints`}.`,
    };
  }

  function change(each: Watched, to: AlarmState, reason: string): void {
    const { alarm, state: from } = each;
    const at = clock.now();
    each.state = to;
    history.push({ alarm, from, to, reason, at });
    const actions: Readonly<Record<AlarmState, readonly string[]>> = {
      OK: alarm.okActions,
      ALARM: alarm.alarmActions,
      INSUFFICIENT_DATA: alarm.insufficientDataActions,
    };
    for (const topicArn of actions[to])
      publish(
        topicArn,
        JSON.stringify(messageOf(alarm, { from, to, reason, at, account, region })),
        `${to}: "${alarm.name}" in ${region}`,
        alarm.arn,
      );
  }

  return {
    addAlarm(alarm) {
      watched.push({ alarm, series: seriesOf(alarm), buckets: new Map(), state: 'INSUFFICIENT_DATA' });
    },
    observe,
    observeLine,
    leaveOut(from, until) {
      gaps.unshift({ from: from.getTime(), until: until.getTime() });
    },
    evaluate() {
      const now = clock.now().getTime();
      for (const each of watched) {
        const verdict = judge(each, now);
        if (verdict !== undefined && verdict.state !== each.state)
          change(each, verdict.state, verdict.reason);
      }
    },
    state(name) {
      const found = watched.find(({ alarm }) => alarm.name === name);
      if (found === undefined) throw new Error(`no such alarm: ${name}`);
      return found.state;
    },
    changes: () => history,
  };
}

function statisticOf({ sum, count, min, max }: Bucket, statistic: Alarm['statistic']): number {
  switch (statistic) {
    case 'Sum':
      return sum;
    case 'Maximum':
      return max;
    case 'Minimum':
      return min;
    case 'Average':
      return sum / count;
    case 'SampleCount':
      return count;
    default:
      return statistic satisfies never;
  }
}

function jsonOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** What CloudWatch sends to a topic, in its own form (AWS documentation). */
const messageOf = (
  alarm: Alarm,
  {
    from,
    to,
    reason,
    at,
    account,
    region,
  }: {
    from: AlarmState;
    to: AlarmState;
    reason: string;
    at: Date;
    account: string;
    region: string;
  },
): object => ({
  AlarmName: alarm.name,
  AlarmDescription: alarm.description ?? null,
  AWSAccountId: account,
  NewStateValue: to,
  NewStateReason: reason,
  StateChangeTime: at.toISOString().replace('Z', '+0000'),
  Region: region,
  AlarmArn: alarm.arn,
  OldStateValue: from,
  OKActions: alarm.okActions,
  AlarmActions: alarm.alarmActions,
  InsufficientDataActions: alarm.insufficientDataActions,
  Trigger: {
    MetricName: alarm.metricName,
    Namespace: alarm.namespace,
    StatisticType: 'Statistic',
    Statistic: alarm.statistic === 'SampleCount' ? 'SAMPLE_COUNT' : alarm.statistic.toUpperCase(),
    Unit: null,
    Dimensions: Object.entries(alarm.dimensions).map(([name, value]) => ({ value, name })),
    Period: alarm.periodSeconds,
    EvaluationPeriods: alarm.evaluationPeriods,
    ...(alarm.datapointsToAlarm !== undefined && { DatapointsToAlarm: alarm.datapointsToAlarm }),
    ComparisonOperator: alarm.comparison,
    Threshold: alarm.threshold,
    TreatMissingData: alarm.treatMissingData,
  },
});
