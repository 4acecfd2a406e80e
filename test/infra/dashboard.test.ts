import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, Stack } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { metrics } from '../../functions/core/metrics.ts';
import { Rekey, type RekeyProps } from '../../infra/rekey.ts';

const root = mkdtempSync(join(tmpdir(), 'rekey-dashboard-'));
const { context } = z
  .object({ context: z.record(z.string(), z.unknown()) })
  .parse(JSON.parse(readFileSync(new URL('../../cdk.json', import.meta.url), 'utf8')));

function synthesize(props: Partial<RekeyProps> = {}): Template {
  const stack = new Stack(new App({ outdir: mkdtempSync(join(root, 'out-')), context }), 'Rekey');
  new Rekey(stack, 'Rekey', { code: Code.fromAsset(join(root, 'functions')), ...props });
  return Template.fromStack(stack);
}

const box = { x: z.number(), y: z.number(), width: z.number(), height: z.number() };
const graphed = z.object({
  title: z.string(),
  region: z.string(),
  stat: z.string().optional(),
  setPeriodToTimeRange: z.boolean().optional(),
  metrics: z.array(z.array(z.unknown())),
});
const body = z.strictObject({
  start: z.string(),
  widgets: z.array(
    z.discriminatedUnion('type', [
      z.strictObject({ ...box, type: z.literal('metric'), properties: graphed }),
      z.strictObject({
        ...box,
        type: z.literal('alarm'),
        properties: z.strictObject({ title: z.string(), alarms: z.array(z.string()) }),
      }),
      z.strictObject({
        ...box,
        type: z.literal('text'),
        properties: z.object({ markdown: z.string() }),
      }),
    ]),
  ),
});
const options = z.object({
  stat: z.string().optional(),
  label: z.string().optional(),
  expression: z.string().optional(),
  id: z.string().optional(),
  visible: z.boolean().optional(),
});
type Options = z.infer<typeof options>;

/** A reference is the logical id that it names. */
function resolved(value: unknown): string {
  if (typeof value === 'string') return value;
  const [[name, argument]] = z
    .tuple([z.tuple([z.string(), z.unknown()])])
    .parse(Object.entries(z.record(z.string(), z.unknown()).parse(value)));
  if (name === 'Ref') return z.string().parse(argument);
  if (name === 'Fn::GetAtt') return z.tuple([z.string(), z.string()]).parse(argument)[0];
  expect(name).toBe('Fn::Join');
  const [by, parts] = z.tuple([z.string(), z.array(z.unknown())]).parse(argument);
  return parts.map(resolved).join(by);
}

let template: Template;
let dashboard: z.infer<typeof body>;
beforeAll(() => {
  mkdirSync(join(root, 'functions'));
  writeFileSync(join(root, 'functions/rotate-secret.mjs'), '');
  template = synthesize();
  const [only, ...others] = Object.values(template.findResources('AWS::CloudWatch::Dashboard'));
  expect(others).toEqual([]);
  dashboard = body.parse(JSON.parse(resolved(only?.['Properties'].DashboardBody)));
});
afterAll(() => rmSync(root, { recursive: true }));

const idsOf = (type: string) => Object.keys(template.findResources(type)).toSorted();
const widgets = <Type extends 'metric' | 'alarm' | 'text'>(type: Type) =>
  dashboard.widgets.filter(
    (widget): widget is Extract<typeof widget, { type: Type }> => widget.type === type,
  );

interface Shown extends Options {
  readonly title: string;
  readonly namespace: string;
  readonly name: string;
  readonly dimensions: readonly unknown[];
}

/** Every series, with the statistic of its own or of its widget. CloudWatch itself would take the average. */
const shown = (): Shown[] =>
  widgets('metric').flatMap(({ properties: { title, metrics, stat } }) =>
    metrics.flatMap((series): Shown[] => {
      const last = series.at(-1);
      const given = typeof last === 'string' ? {} : options.parse(last);
      if (given.expression !== undefined) return [];
      const names = typeof last === 'string' ? series : series.slice(0, -1);
      const [namespace, name, ...dimensions] = names;
      return [
        {
          title,
          namespace: z.string().parse(namespace),
          name: z.string().parse(name),
          dimensions,
          ...(stat === undefined ? {} : { stat }),
          ...given,
        },
      ];
    }),
  );

describe('the metrics of the functions', () => {
  const ours = () => shown().filter(({ namespace }) => namespace === 'rekey');

  test('are all on the dashboard, each once, and nothing is that no function writes', () => {
    expect(
      ours()
        .map(({ name }) => name)
        .toSorted(),
    ).toEqual(Object.keys(metrics).toSorted());
  });

  test('are read as they are written: without dimensions', () => {
    expect(ours().filter(({ dimensions }) => dimensions.length > 0)).toEqual([]);
  });

  test('are counted or compared as their alarms do', () => {
    const alarms = Object.values(template.findResources('AWS::CloudWatch::Alarm'))
      .map(({ Properties }) => Properties)
      .filter(({ Namespace }) => Namespace === 'rekey');
    const statisticOf = new Map(ours().map(({ name, stat }) => [name, stat]));
    expect(alarms.map(({ MetricName }) => [MetricName, statisticOf.get(MetricName)])).toEqual(
      alarms.map(({ MetricName, Statistic }) => [MetricName, Statistic]),
    );
    expect(statisticOf.get('RotationsSucceeded')).toBe('Sum');
  });

  test('share a graph only with those of their unit', () => {
    const units = Map.groupBy(ours(), ({ title }) => title);
    for (const [title, series] of units) {
      const found = new Set(series.map(({ name }) => metrics[name as keyof typeof metrics]));
      expect([...found], title).toHaveLength(1);
      expect(found.has('Seconds'), title).toBe(/in seconds$/.test(title));
    }
  });

  test('have labels that tell them apart', () => {
    for (const [title, series] of Map.groupBy(ours(), ({ title }) => title)) {
      const labels = series.map(({ label }) => label);
      expect(labels, title).not.toContain(undefined);
      expect(new Set(labels).size, title).toBe(labels.length);
    }
  });
});

test('all alarms are in one widget at the top', () => {
  const [status, ...others] = widgets('alarm');
  expect(others).toEqual([]);
  expect([status?.x, status?.y, status?.width]).toEqual([0, 0, 24]);
  expect(status?.properties.alarms.toSorted()).toEqual(idsOf('AWS::CloudWatch::Alarm'));
});

test.each(['Invocations', 'Errors', 'Throttles', 'Duration'])(
  'the %s of every function are there',
  (name) => {
    const graphed = shown().filter(
      (series) =>
        series.namespace === 'AWS/Lambda' && series.name === name && series.title.startsWith('Functions'),
    );
    expect(graphed.map(({ dimensions }) => dimensions[1]).toSorted()).toEqual(idsOf('AWS::Lambda::Function'));
    for (const { dimensions, stat } of graphed)
      expect([dimensions[0], stat]).toEqual(['FunctionName', name === 'Duration' ? 'Maximum' : 'Sum']);
  },
);

test('a function is called what it is', () => {
  const functions = template.findResources('AWS::Lambda::Function');
  const labelled = shown().filter(({ namespace }) => namespace === 'AWS/Lambda');
  for (const { dimensions, label } of labelled) {
    const { FunctionName } = functions[String(dimensions[1])]?.['Properties'] ?? {};
    expect([FunctionName, `${FunctionName}, throttled`]).toContain(`rekey-${label?.replace(/^rekey-/, '')}`);
  }
});

describe('the queues', () => {
  const queues = (name: string) =>
    shown().filter((series) => series.namespace === 'AWS/SQS' && series.name === name);
  const idsIn = (series: readonly Shown[]) =>
    series.map(({ dimensions }) => String(dimensions[1])).toSorted();

  test('are all there with what waits in them, dead letters apart', () => {
    const lengths = queues('ApproximateNumberOfMessagesVisible');
    expect(idsIn(lengths)).toEqual(idsOf('AWS::SQS::Queue'));
    const letters = lengths.filter(({ title }) => title === 'Queues: dead letters');
    expect(idsIn(letters)).toEqual([
      expect.stringMatching(/^RekeyLostRequests/),
      expect.stringMatching(/^RekeyLostStarts/),
      expect.stringMatching(/^RekeyLostTargets/),
    ]);
    for (const { label } of letters) expect(label).toContain('dead letters');
  });

  test('that feed a function are there with the age of what waits longest', () => {
    const fed = Object.values(template.findResources('AWS::Lambda::EventSourceMapping')).map(
      ({ Properties }) => Properties.EventSourceArn['Fn::GetAtt'][0],
    );
    expect(idsIn(queues('ApproximateAgeOfOldestMessage'))).toEqual(fed.toSorted());
  });

  test('show the worst reading, and nothing else', () => {
    const all = shown().filter(({ namespace }) => namespace === 'AWS/SQS');
    expect(new Set(all.map(({ stat }) => stat))).toEqual(new Set(['Maximum']));
    expect(new Set(all.map(({ name }) => name)).size).toBe(2);
  });
});

test('nothing else is read than these', () => {
  expect([...new Set(shown().map(({ namespace }) => namespace))].toSorted()).toEqual([
    'AWS/Lambda',
    'AWS/SQS',
    'rekey',
  ]);
});

describe('the costs', () => {
  const widget = () => widgets('metric').find(({ properties }) => properties.setPeriodToTimeRange === true);
  const expression = (label: string) =>
    widget()
      ?.properties.metrics.flat()
      .map((part) => options.safeParse(part).data)
      .find((given) => given?.label === label)?.expression ?? '';
  /** The series that an expression adds, by the function that each is of. */
  const added = (label: string) => {
    const names = [...expression(label).matchAll(/FILL\((\w+), 0\)/g)].map(([, name]) => name);
    return names.map((name) => shown().find(({ id }) => id === name));
  };

  test.each([
    ['calls', 'Invocations'],
    ['GB-seconds', 'Duration'],
  ])('count the %s of every function, those that nobody called included', (label, name) => {
    const series = added(label);
    expect(series.map((each) => each?.dimensions[1]).toSorted()).toEqual(idsOf('AWS::Lambda::Function'));
    for (const each of series) expect([each?.name, each?.stat, each?.visible]).toEqual([name, 'Sum', false]);
  });

  test('take milliseconds, and the memory that the functions have', () => {
    const [memory, ...others] = new Set(
      Object.values(template.findResources('AWS::Lambda::Function')).map(
        ({ Properties }) => Properties.MemorySize,
      ),
    );
    expect(others).toEqual([]);
    expect(expression('GB-seconds')).toMatch(new RegExp(`\\) / 1000 \\* ${memory / 1024}$`));
    expect(expression('calls')).toMatch(/\)$/);
  });

  test('are explained with the numbers of alarms and metrics, and with where the prices hold', () => {
    const [text = ''] = widgets('text').map(({ properties }) => properties.markdown);
    expect(text).toContain(`| alarms | ${idsOf('AWS::CloudWatch::Alarm').length} |`);
    expect(text).toContain(`| metrics | up to ${Object.keys(metrics).length} |`);
    const fed = Object.keys(template.findResources('AWS::Lambda::EventSourceMapping')).length;
    expect(text).toContain(`Lambda asks each all the time | ${fed} |`);
    expect(text).toContain('Other Regions have other prices');
  });
});

test('no two widgets lie over one another, and none beyond the edge', () => {
  const { widgets } = dashboard;
  for (const [index, one] of widgets.entries()) {
    expect(one.x + one.width).toBeLessThanOrEqual(24);
    for (const other of widgets.slice(index + 1))
      expect(
        one.x + one.width <= other.x ||
          other.x + other.width <= one.x ||
          one.y + one.height <= other.y ||
          other.y + other.height <= one.y,
        `${JSON.stringify(one.properties).slice(0, 60)} / ${JSON.stringify(other.properties).slice(0, 60)}`,
      ).toBe(true);
  }
});

// An account has one dashboard of a name for all Regions: a second rekey would overwrite it.
test('its name says the Region, and so does each graph', () => {
  const [properties] = Object.values(template.findResources('AWS::CloudWatch::Dashboard'));
  expect(resolved(properties?.['Properties'].DashboardName)).toBe('rekey-AWS::Region');
  for (const { properties } of widgets('metric')) expect(properties.region).toBe('AWS::Region');
});

describe('the runbook', () => {
  const descriptions = (of: Template): [name: string, description: string][] =>
    Object.values(of.findResources('AWS::CloudWatch::Alarm')).map(({ Properties }) => [
      Properties.AlarmName,
      Properties.AlarmDescription,
    ]);

  test('is where the alarms point, each at its own row, within what CloudWatch takes', () => {
    const longest = `https://${'x'.repeat(492)}`;
    for (const runbookUrl of ['https://git.example.com/rekey/README.md', longest])
      for (const [name, description] of descriptions(synthesize({ runbookUrl }))) {
        expect(description).toMatch(/^[A-Za-z].*\. Runbook: \S+$/s);
        expect(description.endsWith(` ${runbookUrl}#${name}`), name).toBe(true);
        expect(description.length).toBeLessThanOrEqual(1024);
      }
  });

  test('is README.md when nothing is said', () => {
    for (const [name, description] of descriptions(template))
      expect(description.endsWith(` Runbook: README.md#${name}`)).toBe(true);
  });

  test.each([
    ['with a fragment', 'https://example.com/README.md#alarms'],
    ['with a blank', 'https://example.com/read me.md'],
    ['of nothing', ''],
    ['too long', `https://${'x'.repeat(493)}`],
  ])('is refused at synthesis as an address %s', (_, runbookUrl) => {
    expect(() => synthesize({ runbookUrl })).toThrow(
      /Validation failed[\s\S]*\[Rekey\/Rekey\/Alarms\] runbookUrl: expected the address of README\.md/,
    );
  });
});
