import { Aws, Duration } from 'aws-cdk-lib';
import {
  AlarmStatusWidget,
  Dashboard as CloudWatchDashboard,
  GraphWidget,
  type IMetric,
  type IWidget,
  MathExpression,
  Metric,
  SingleValueWidget,
  TextWidget,
} from 'aws-cdk-lib/aws-cloudwatch';
import type { Function as LambdaHandler } from 'aws-cdk-lib/aws-lambda';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';
import { type MetricName, metricNamespace } from '../functions/core/metrics.ts';
import type { Queues } from './access.ts';
import type { Alarms } from './alarms.ts';
import { functionName, memoryMegabytes } from './handler.ts';

export interface DashboardProps {
  readonly alarms: Alarms;
  /** Every function, by `<handler>` in functions/. */
  readonly functions: Readonly<Record<string, LambdaHandler>>;
  readonly queues: Queues;
  /** Events and passes that came to nothing. */
  readonly lostRequests: IQueue;
  /** Targets that reconcile-users could not look at. */
  readonly lostTargets: IQueue;
  /** Starts of rotations that came to nothing. */
  readonly lostStarts: IQueue;
}

/** What waits in each queue. */
export const waiting: Readonly<Record<keyof Queues, string>> = {
  pauses: 'orders to pause or resume writes',
  orders: 'orders',
  deletions: 'deletions and rotated credentials',
  requests: 'requests for credentials',
  starts: 'starts of rotations',
  newLogins: 'new logins for consumers',
  vendorEvents: 'events of vendors',
  urgentTargets: 'urgent looks at targets',
  targets: 'routine looks at targets',
};

const graphs = [
  'Rotations',
  'Held up, in seconds',
  'Left behind, in seconds',
  'Findings: the worst target',
  'Webhooks',
  'Events that are tried again, in seconds',
  'Audit: records and seals not written',
  'Audit: the oldest day without a seal, in seconds',
] as const;

interface Line {
  readonly graph: (typeof graphs)[number];
  readonly label: string;
  /** What happens is counted. What is so is read again and again, for each target by itself: the highest reading is the worst. */
  readonly statistic: 'Sum' | 'Maximum';
}

const [rotations, heldUp, leftBehind, findings, webhooks, triedAgain, notWritten, unsealed] = graphs;

/** Where each metric is to be seen. */
const lines: Readonly<Record<MetricName, Line>> = {
  RotationsSucceeded: { graph: rotations, label: 'succeeded', statistic: 'Sum' },
  RotationsFailed: { graph: rotations, label: 'failed', statistic: 'Sum' },
  RotationsStuck: { graph: rotations, label: 'stuck', statistic: 'Maximum' },
  BreakersOpen: { graph: rotations, label: 'targets with an open breaker', statistic: 'Maximum' },
  RotationOverdueAge: { graph: heldUp, label: 'the most overdue credential', statistic: 'Maximum' },
  PausedAge: { graph: heldUp, label: 'the oldest pause', statistic: 'Maximum' },
  RetiredStillConnectedAge: {
    graph: leftBehind,
    label: 'a superseded user past its drain deadline, still connected',
    statistic: 'Maximum',
  },
  ConsumerBehindAge: { graph: leftBehind, label: 'a consumer without the login', statistic: 'Maximum' },
  RetriedEventAge: { graph: triedAgain, label: 'the oldest', statistic: 'Maximum' },
  OpenFindings: { graph: findings, label: 'open', statistic: 'Maximum' },
  ForeignUsers: { graph: findings, label: 'foreign users', statistic: 'Maximum' },
  OrphanedUsers: { graph: findings, label: 'orphaned users', statistic: 'Maximum' },
  WebhooksRejected: { graph: webhooks, label: 'rejected', statistic: 'Sum' },
  WebhooksOdd: { graph: webhooks, label: 'odd', statistic: 'Sum' },
  WebhooksDeferred: { graph: webhooks, label: 'deferred', statistic: 'Sum' },
  WebhooksMissed: { graph: webhooks, label: 'missed', statistic: 'Sum' },
  WebhooksDisabled: { graph: webhooks, label: 'webhooks that are off', statistic: 'Maximum' },
  AuditWriteFailed: { graph: notWritten, label: 'tried in vain', statistic: 'Sum' },
  AuditUnsealedAge: { graph: unsealed, label: 'age', statistic: 'Maximum' },
};

const hour = Duration.hours(1);
/** The grid of CloudWatch is 24 wide. */
const [whole, half, third] = [24, 12, 8];

/** What people look at when an alarm has told them, or when none has: every alarm, metric, queue and function of rekey. */
export class Dashboard extends Construct {
  readonly dashboardName: string;

  constructor(scope: Construct, id: string, props: DashboardProps) {
    super(scope, id);
    // With the Region: an account has each name once for all its Regions, and who comes second overwrites (AWS documentation).
    this.dashboardName = `rekey-${Aws.REGION}`;
    new CloudWatchDashboard(this, 'Resource', {
      dashboardName: this.dashboardName,
      defaultInterval: Duration.days(7),
      widgets: [
        [
          new AlarmStatusWidget({
            title: 'Alarms',
            alarms: [...props.alarms.all],
            width: whole,
            height: 6,
          }),
        ],
        graphs.slice(0, 3).map((graph) => graphOf(graph, third)),
        graphs.slice(3, 5).map((graph) => graphOf(graph, half)),
        graphs.slice(5).map((graph) => graphOf(graph, third)),
        queueGraphs(props),
        functionsOf(props),
        cost(props),
      ],
    });
  }
}

/** Without dimensions, as the functions write them. */
function graphOf(title: Line['graph'], width: number): IWidget {
  const left = Object.entries(lines)
    .filter(([, { graph }]) => graph === title)
    .map(
      ([metricName, { label, statistic }]) =>
        new Metric({ namespace: metricNamespace, metricName, label, statistic, period: hour }),
    );
  return new GraphWidget({ title, left, width, leftYAxis: { min: 0, showUnits: false } });
}

function queueGraphs({ queues, lostRequests, lostTargets, lostStarts }: DashboardProps): IWidget[] {
  const length = (queue: IQueue, label: string): IMetric =>
    queue.metricApproximateNumberOfMessagesVisible({ label, statistic: 'Maximum', period: hour });
  const every = Object.entries(waiting).map(
    ([name, label]) => [queues[name as keyof Queues], label] as const,
  );
  const graph = (title: string, left: IMetric[]) =>
    new GraphWidget({ title, left, width: third, leftYAxis: { min: 0, showUnits: false } });
  return [
    graph('Queues: dead letters', [
      length(lostRequests, 'lost requests (dead letters)'),
      length(lostTargets, 'lost targets (dead letters)'),
      length(lostStarts, 'lost starts (dead letters)'),
    ]),
    graph(
      'Queues: messages that wait',
      every.map(([queue, label]) => length(queue, label)),
    ),
    graph(
      'Queues: age of the oldest message, in seconds',
      every.map(([queue, label]) =>
        queue.metricApproximateAgeOfOldestMessage({ label, statistic: 'Maximum', period: hour }),
      ),
    ),
  ];
}

function functionsOf({ functions }: DashboardProps): IWidget[] {
  const handlers = Object.entries(functions);
  const graph = (title: string, left: IMetric[], right: IMetric[] = []) =>
    new GraphWidget({ title, left, right, width: third, height: 8, leftYAxis: { min: 0 } });
  return [
    graph(
      'Functions: calls',
      handlers.map(([label, of]) => of.metricInvocations({ label, period: hour })),
    ),
    graph(
      'Functions: errors, and calls that were throttled',
      handlers.map(([label, of]) => of.metricErrors({ label, period: hour })),
      handlers.map(([label, of]) => of.metricThrottles({ label: `${label}, throttled`, period: hour })),
    ),
    graph(
      'Functions: longest run',
      handlers.map(([label, of]) => of.metricDuration({ label, statistic: 'Maximum', period: hour })),
    ),
  ];
}

/** Quantities of the time that is shown, and what they are to be multiplied by: prices are those of one Region on one day. */
function cost({ alarms, functions }: DashboardProps): IWidget[] {
  const each = Object.entries(functions).map(([handler, of], number) => ({
    calls: [`calls${number}`, of.metricInvocations({ label: functionName(handler), period: hour })] as const,
    duration: [
      `ms${number}`,
      of.metricDuration({ label: functionName(handler), statistic: 'Sum', period: hour }),
    ] as const,
  }));
  const total = (label: string, factor: string, metrics: (readonly [string, IMetric])[]) =>
    new MathExpression({
      label,
      // A function that nobody has called has no reading, and would leave the sum without one.
      expression: `(${metrics.map(([name]) => `FILL(${name}, 0)`).join(' + ')})${factor}`,
      usingMetrics: Object.fromEntries(metrics),
      period: hour,
    });
  return [
    new SingleValueWidget({
      title: 'Lambda in the time shown',
      metrics: [
        total(
          'calls',
          '',
          each.map(({ calls }) => calls),
        ),
        total(
          'GB-seconds',
          ` / 1000 * ${memoryMegabytes / 1024}`,
          each.map(({ duration }) => duration),
        ),
      ],
      setPeriodToTimeRange: true,
      width: third,
      height: 9,
    }),
    new TextWidget({
      width: whole - third,
      height: 9,
      markdown: [
        '## What it costs',
        'USD, us-east-1, 2026, without free tiers. **Other Regions have other prices, and they change**: see aws.amazon.com/pricing.',
        '',
        '| what | how many | each |',
        '| --- | --- | --- |',
        '| secrets | one a credential, one an API key, one a webhook | 0.40 a month |',
        '| Lambda, GB-seconds | as on the left | 0.0000133334 |',
        '| Lambda, calls | as on the left | 0.20 a million |',
        `| alarms | ${alarms.all.length} | 0.10 a month |`,
        `| metrics | up to ${Object.keys(lines).length} | 0.30 a month |`,
        `| queues that feed a function: Lambda asks each all the time | ${Object.keys(waiting).length} | about 0.26 a month |`,
        '| key of the alarm topic, unless it is yours | 1 | 1.00 a month |',
        '| this dashboard | 1 | 3.00 a month |',
        '',
        'Not counted, as they are cents for a few hundred credentials: calls of Secrets Manager, events, messages, logs, audit records. A NAT gateway, where there is one, costs more than all of it.',
      ].join('\n'),
    }),
  ];
}
