import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { App, Stack } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { loadConsumer } from '../functions/consumers/index.ts';
import {
  inputCodes,
  providerCodes,
  refusalCodes,
  storeCodes,
  verificationCodes,
} from '../functions/core/errors.ts';
import {
  credentialOrders,
  credentialRequested,
  parseInvocation,
  pauseOrders,
  type RekeyEvent,
} from '../functions/core/events.ts';
import { findingKinds } from '../functions/core/findings.ts';
import {
  adminSecretPrefix,
  adoptSecretPrefix,
  apiKeySecretPrefix,
  webhookSecretPrefix,
} from '../functions/core/names.ts';
import { maxTries } from '../functions/core/queued-events.ts';
import { type CredentialSpecInput, parseSpec, specDocument } from '../functions/core/spec.ts';
import { loadProvider } from '../functions/providers/index.ts';
import type {
  AccessOutcome,
  AuditOutcome,
  Outcome,
  ProviderOutcome,
  WebhooksOutcome,
} from '../infra/local/demo.ts';
import { Rekey } from '../infra/rekey.ts';

const root = resolve(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

/** What stands in code: fenced blocks with their language, and spans between backticks in the text around them. */
const blocks = [...readme.matchAll(/^```([^\n]*)\n([\s\S]*?)^```/gm)].map(([, language = '', text = '']) => ({
  language,
  text,
}));
const prose = readme.replaceAll(/^```[\s\S]*?^```/gm, '');
const spans = [...prose.matchAll(/`([^`\n]+)`/g)].map(([, text = '']) => text);

/** Where a link within the page can lead: headings as GitHub names them, and marks that were set by hand. */
const anchors = [
  ...[...prose.matchAll(/^#+ (.+)$/gm)].map(([, text = '']) => text.toLowerCase().replaceAll(' ', '-')),
  ...[...prose.matchAll(/<a id="([^"]+)"><\/a>/g)].map(([, id = '']) => id),
];

/** The text under a heading, up to the next one of any level. */
function section(heading: string): string {
  const [, text = ''] = prose.split(new RegExp(`^#+ ${heading}$`, 'm'));
  return text.split(/^#+ /m)[0] ?? '';
}

/** The rows of the tables under a heading whose first cell is a word in code. */
const rowsUnder = (heading: string) =>
  section(heading)
    .split('\n')
    .flatMap((line) => {
      const [, word, rest] = /^\| `(\w+)` *\|(.*)\|\s*$/.exec(line) ?? [];
      // A bar inside a cell is written `\|`.
      return word === undefined || rest === undefined ? [] : [{ word, cells: rest.split(/(?<!\\)\|/) }];
    });

const tables: Readonly<Record<string, readonly string[]>> = {
  'Error codes': [...inputCodes, ...refusalCodes, ...providerCodes, ...verificationCodes, ...storeCodes],
  Findings: findingKinds,
  Orders: [credentialRequested, ...credentialOrders, ...pauseOrders],
};

describe.each(Object.entries(tables))('the table under %s', (heading, words) => {
  const rows = rowsUnder(heading);

  test.each(words)('has one row for %s, with nothing left blank', (word) => {
    const own = rows.filter((row) => row.word === word);
    expect(own, `give ${word} one row under ${heading} in README.md`).toHaveLength(1);
    expect(own[0]?.cells.filter((cell) => cell.trim() === '')).toEqual([]);
  });

  test('has none for what there is not', () => {
    expect(rows.map(({ word }) => word).filter((word) => !words.includes(word))).toEqual([]);
  });
});

describe('the table under Alarms', () => {
  const outdir = mkdtempSync(join(tmpdir(), 'rekey-readme-'));
  afterAll(() => rmSync(outdir, { recursive: true }));
  let template: Template;
  beforeAll(() => {
    const stack = new Stack(new App({ outdir }), 'Rekey');
    new Rekey(stack, 'Rekey', { code: Code.fromAsset(join(root, 'functions/consumers')) });
    template = Template.fromStack(stack);
  });
  const resources = (type: string) =>
    Object.values(template.findResources(type)).map(({ Properties }) => Properties);
  /** By construct, which a queue's name contains. */
  const queueNames = () =>
    Object.keys(template.findResources('AWS::SQS::Queue')).map((id) =>
      id.replace(/^Rekey|[0-9A-F]{8}$/g, ''),
    );

  test('speaks of queues as the table under Queues has them, each with what the stack gives it', () => {
    const queues = template.findResources('AWS::SQS::Queue');
    const functions = template.findResources('AWS::Lambda::Function');
    const made = resources('AWS::Lambda::EventSourceMapping').map(
      ({ EventSourceArn, FunctionName, ScalingConfig }) => {
        const [id] = EventSourceArn['Fn::GetAtt'];
        const days = queues[id]?.['Properties'].MessageRetentionPeriod / 86_400;
        return [
          id.replace(/^Rekey|[0-9A-F]{8}$/g, ''),
          functions[FunctionName.Ref]?.['Properties'].FunctionName.replace(/^rekey-/, ''),
          String(ScalingConfig.MaximumConcurrency),
          `${days} days`,
        ];
      },
    );
    const shown = rowsUnder('Queues').map(({ word, cells }) => {
      const [, handler = '', calls = '', kept = ''] = cells.map((cell) => cell.trim());
      return [word, /^`([a-z-]+)`/.exec(handler)?.[1], calls, kept];
    });
    expect(shown.toSorted()).toEqual(made.toSorted());
    const calls = made.reduce((sum, [, , concurrency]) => sum + Number(concurrency), 0);
    expect(section('Queues')).toContain(`at a time, ${calls} in total`);
    expect(section('Queues')).toContain(`lasts for ${maxTries} tries`);
  });

  const rows = section('Alarms')
    .split('\n')
    .filter((line) => line.startsWith('| <a'))
    .map((line) =>
      line
        .slice(1, -1)
        .split(/(?<!\\)\|/)
        .map((cell) => cell.trim()),
    );

  test('has a row for every alarm of the stack, and none for what there is not', () => {
    const first = resources('AWS::CloudWatch::Alarm').map(
      ({ AlarmName }) => `<a id="${AlarmName}"></a>\`${AlarmName}\``,
    );
    expect(rows.map(([alarm]) => alarm).toSorted()).toEqual(first.toSorted());
  });

  test('is where each alarm points', () => {
    const links = resources('AWS::CloudWatch::Alarm').map(({ AlarmDescription }) => {
      const [, link = ''] = /Runbook: README\.md#(\S+)$/.exec(AlarmDescription) ?? [];
      return link;
    });
    expect(links.length).toBeGreaterThan(0);
    expect(links.filter((link) => !anchors.includes(link))).toEqual([]);
    expect(new Set(links).size).toBe(links.length);
  });

  test('says of each what to look at, in which log that there is, and what to do', () => {
    const groups = resources('AWS::Logs::LogGroup').map(({ LogGroupName }) => LogGroupName);
    for (const cells of rows) {
      expect(cells, cells[0]).toHaveLength(4);
      expect(cells.filter((cell) => cell === '')).toEqual([]);
      const [alarm, , log = ''] = cells;
      const named = [...log.matchAll(/`([^`]+)`/g)].map(([, name = '']) =>
        name.startsWith('/') ? name : `/aws/lambda/${name}`,
      );
      expect(groups, alarm).toEqual(expect.arrayContaining(named));
      expect(named.length > 0 || log === 'none' || alarm?.includes('request-lost'), alarm).toBe(true);
    }
  });

  test('names only findings and events that there are', () => {
    const words = rows.flat().flatMap((cell) => [...cell.matchAll(/`([A-Z][a-z]+[A-Z]\w+)`/g)]);
    const known: string[] = [...findingKinds, ...Object.keys(published), ...pauseOrders, ...queueNames()];
    expect(words.length).toBeGreaterThan(0);
    expect(words.map(([, word = '']) => word).filter((word) => !known.includes(word))).toEqual([]);
  });
});

test('every function is in the picture', () => {
  const picture = blocks.find(({ language }) => language === 'mermaid')?.text;
  const handlers = readdirSync(join(root, 'functions')).filter((name) => name.endsWith('.ts'));
  expect(handlers.length).toBeGreaterThan(0);
  expect(handlers.filter((name) => !picture?.includes(`[${name.slice(0, -3)}]`))).toEqual([]);
});

// Lists that the compiler holds against the code: a new field or event has to be added here, and then to README.md.

const specFields = {
  name: true,
  provider: true,
  target: true,
  apiKeySecret: true,
  adminSecret: true,
  usernamePrefix: true,
  strategy: true,
  privileges: true,
  rotation: true,
  grace: true,
  drain: true,
  consumers: true,
  expiresAt: true,
  adopt: true,
  verify: true,
} satisfies Record<keyof CredentialSpecInput, true>;
type Part<Name extends keyof CredentialSpecInput> = keyof NonNullable<CredentialSpecInput[Name]>;
const rotationFields = { every: true, window: true, blackouts: true } satisfies Record<
  Part<'rotation'>,
  true
>;
type Window = NonNullable<NonNullable<CredentialSpecInput['rotation']>['window']>;
const windowFields = { start: true, length: true, days: true, timeZone: true } satisfies Record<
  keyof Window,
  true
>;
const drainFields = { deadline: true, force: true } satisfies Record<Part<'drain'>, true>;
const adoptFields = { username: true, passwordSecret: true, retire: true } satisfies Record<
  Part<'adopt'>,
  true
>;
const published = {
  CredentialRequested: true,
  CredentialCreated: true,
  CredentialRotated: true,
  CredentialRotationFailed: true,
  DatabaseUserPlanned: true,
  DatabaseUserCreated: true,
  DatabaseUserPasswordChanged: true,
  DatabaseUserChangeFailed: true,
  CredentialAdopted: true,
  CredentialDeleted: true,
  DatabaseUserRetired: true,
  DatabaseUserDeleted: true,
  DatabaseUserDeletionFailed: true,
  ConsumerUpdatePlanned: true,
  ConsumerUpdated: true,
  ConsumerLeftBehind: true,
  DatabaseSessionsEndPlanned: true,
  DatabaseSessionsEnded: true,
  DriftRepairFailed: true,
  DriftFound: true,
  DriftRepaired: true,
  ProviderEventReceived: true,
  DatabaseUserAppeared: true,
  DatabaseUserDisappeared: true,
  BreakerChanged: true,
  OrderIgnored: true,
} satisfies Record<RekeyEvent['type'], true>;
const told = {
  provider: true,
  strategy: true,
  logins: true,
  failedLogins: true,
  created: true,
  rotated: true,
  retired: true,
  driftFound: true,
  driftRepaired: true,
  deleted: true,
  users: true,
} satisfies Record<Exclude<keyof ProviderOutcome, 'problems'>, true>;
const toldOfAll = {
  providers: true,
  webhooks: true,
  audit: true,
  access: true,
  resetPassword: true,
  days: true,
  seconds: true,
} satisfies Record<keyof Outcome, true>;
const toldOfAudit = { records: true, verified: true } satisfies Record<
  Exclude<keyof AuditOutcome, 'problems'>,
  true
>;
const toldOfAccess = { judged: true, refused: true, idle: true } satisfies Record<
  Exclude<keyof AccessOutcome, 'problems'> | 'refused',
  true
>;
const toldOfWebhooks = { received: true, expected: true, foreign: true, caughtUp: true } satisfies Record<
  Exclude<keyof WebhooksOutcome, 'problems'>,
  true
>;

test('every event that is published, and every field of npm start’s document, is named', () => {
  const words = [published, told, toldOfAll, toldOfAudit, toldOfAccess, toldOfWebhooks].flatMap((words) =>
    Object.keys(words),
  );
  expect(words.filter((word) => !spans.includes(word))).toEqual([]);
});

describe('the spec', () => {
  const example = blocks.find(({ language }) => language === 'jsonc')?.text ?? '';
  const plugins = { loadProvider, loadConsumer };
  const kinds = readdirSync(join(root, 'functions/consumers'))
    .filter((name) => name.endsWith('.ts') && name !== 'index.ts')
    .map((name) => name.slice(0, -3));
  const object = z.record(z.string(), z.unknown());
  const parsed = (text: string) =>
    object.parse(JSON.parse(text.replaceAll(/\s\/\/.*$/gm, '').replaceAll(/,(\s*[}\]])/g, '$1')));

  test('is accepted, and shows every field there is and every kind of consumer', async () => {
    const { definition: _definition, ...spec } = await parseSpec(parsed(example), plugins);
    const { rotation, drain, adopt, consumers } = parsed(example);
    const keys = (value: unknown) => Object.keys(object.parse(value)).toSorted();
    const of = (fields: object) => Object.keys(fields).toSorted();
    expect(keys(parsed(example))).toEqual(of(specFields));
    expect(keys(rotation)).toEqual(of(rotationFields));
    expect(keys(object.parse(rotation)['window'])).toEqual(of(windowFields));
    expect(keys(drain)).toEqual(of(drainFields));
    expect(keys(adopt)).toEqual(of(adoptFields));
    expect(spec.consumers.map(({ definition }) => definition.kind).toSorted()).toEqual(kinds.toSorted());
    const shown = z
      .array(object)
      .parse(consumers)
      .map((consumer) => Object.keys(consumer).length);
    expect(spec.consumers.map(({ settings }) => keys(settings).length)).toEqual(shown);
  });

  test('means the same without the lines that are marked as defaults', async () => {
    const short = example.replaceAll(/^.*\/\/ default\b.*\n/gm, '');
    expect(example.split('\n').length - short.split('\n').length).toBeGreaterThan(5);
    const [whole, less] = await Promise.all(
      [example, short].map(async (text) => specDocument(await parseSpec(parsed(text), plugins))),
    );
    expect(less).toBe(whole);
  });
});

/** What people store by themselves. */
const handStored = [apiKeySecretPrefix, adminSecretPrefix, adoptSecretPrefix, webhookSecretPrefix];

test('the constructs are used as in the app that the tests compile and synthesize', () => {
  const trimmed = (text: string) => text.split('\n').map((line) => line.trim());
  const examples = blocks.filter(({ language }) => language === 'ts');
  expect(examples).toHaveLength(1);
  const compiled = trimmed(readFileSync(join(root, 'test/infra/example.ts'), 'utf8'));
  // In the same order: a line that the app has further up does not count.
  let from = 0;
  for (const line of trimmed(examples[0]?.text ?? '').filter((line) => line !== '')) {
    const at = compiled.indexOf(line, from);
    expect(at, line).toBeGreaterThanOrEqual(from);
    from = at + 1;
  }
});

describe('every command can be run as printed:', () => {
  const commands = [...blocks.filter(({ language }) => language === 'sh').map(({ text }) => text), ...spans];

  test('npm has the script, or it is npm’s own ci', () => {
    const { scripts } = z
      .object({ scripts: z.record(z.string(), z.string()) })
      .parse(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')));
    const found = commands.flatMap((text) => [...text.matchAll(/\bnpm (run )?([a-z][a-z0-9:-]*)/g)]);
    expect(found.length).toBeGreaterThan(0);
    // Without `run`, npm knows only a few scripts by their bare name.
    const wrong = found.filter(([, run, name = '']) =>
      run === undefined && name === 'ci'
        ? false
        : !Object.hasOwn(scripts, name) || (run === undefined && !['start', 'test'].includes(name)),
    );
    expect(wrong.map(([command]) => command)).toEqual([]);
  });

  test('an order that is sent to the bus is one that a function takes', () => {
    const entries = z.array(
      z.strictObject({
        EventBusName: z.literal('rekey'),
        Source: z.literal('rekey'),
        DetailType: z.string(),
        Detail: z.string(),
      }),
    );
    const sent = commands
      .flatMap((text) => [...text.matchAll(/put-events --entries '(.*)'/g)])
      .flatMap(([, text = '']) => entries.parse(JSON.parse(text)));
    expect(sent.length).toBeGreaterThan(0);
    for (const { Source, DetailType, Detail } of sent) {
      const event = { source: Source, 'detail-type': DetailType, detail: JSON.parse(Detail) };
      const invocation = parseInvocation({ ...event, time: '2026-03-01T12:00:00Z' }, ['order']);
      expect(invocation.order).toBe(DetailType);
    }
  });

  test('what is secret is read from a file, and is stored where the functions read it', () => {
    const stored = commands.flatMap((text) => [
      ...text.matchAll(/secretsmanager (?:create-secret --name|put-secret-value --secret-id) (\S+)([^\n]*)/g),
    ]);
    expect(stored.length).toBeGreaterThan(0);
    for (const [, name = '', rest] of stored) {
      expect(rest).toMatch(/ --secret-string file:\/\/\S+$/);
      expect(handStored.some((prefix) => name.startsWith(prefix))).toBe(true);
    }
    // Nor is it printed: of a value that is read, only what everybody may know.
    const shown = commands.flatMap((text) => [...text.matchAll(/get-secret-value [^\n]*/g)]);
    expect(shown.length).toBeGreaterThan(0);
    for (const [command] of shown)
      expect(command).toMatch(/ --output text \| jq '\{(engine|host|username)(,(engine|host|username))*\}'$/);
    expect(readme).not.toMatch(/--secret-(string|binary) (?!file(b?):\/\/)/);
  });

  test('a credential that is looked at is one that is declared', () => {
    const declared = readFileSync(join(root, 'infra/credentials.ts'), 'utf8');
    const looked = commands.flatMap((text) => [...text.matchAll(/--secret-id rekey\/([a-z0-9-]+)/g)]);
    expect(looked.length).toBeGreaterThan(0);
    for (const [, name] of looked) expect(declared).toContain(`credentialName: '${name}'`);
  });

  test('a log that is read is that of a function', () => {
    const logs = commands.flatMap((text) => [...text.matchAll(/\/aws\/lambda\/rekey-([a-z-]+)/g)]);
    expect(logs.length).toBeGreaterThan(0);
    for (const [, handler] of logs) expect(existsSync(join(root, `functions/${handler}.ts`))).toBe(true);
  });

  test('a function that is invoked exists, and takes the payload as a rehearsal', () => {
    const found = commands.flatMap((text) => [
      ...text.matchAll(/--function-name rekey-([a-z-]+) .*--payload '(.*?)'/g),
    ]);
    expect(found.length).toBeGreaterThan(0);
    for (const [, handler, payload = ''] of found) {
      expect(existsSync(join(root, `functions/${handler}.ts`))).toBe(true);
      expect(parseInvocation(JSON.parse(payload), ['pass'])).toEqual({ is: 'pass', dryRun: true });
    }
  });
});

test('every output that is spoken of is one of the stack of that name', () => {
  const app = readFileSync(join(root, 'infra/app.ts'), 'utf8');
  const stacks = [...readme.matchAll(/--stack-name (\w+)/g)].map(([, name]) => name);
  const queried = [...readme.matchAll(/OutputKey=='(\w+)'/g)];
  const named = [...prose.matchAll(/\boutput[\s(]+`(\w+)`/g)];
  expect(stacks.length).toBeGreaterThan(0);
  expect(queried.length).toBeGreaterThan(0);
  expect(named.length).toBeGreaterThan(2);
  for (const stack of stacks) expect(app).toContain(`new Stack(new App(), '${stack}'`);
  for (const [, output] of [...queried, ...named]) expect(app).toContain(`new CfnOutput(stack, '${output}'`);
});

test('every path into the repository exists', () => {
  const links = [...prose.matchAll(/\]\(([^)\s#]+)(?:#[^)\s]*)?\)/g)]
    .map(([, target = '']) => target)
    .filter((target) => !/^[a-z][a-z0-9+.-]*:/i.test(target));
  // A path with a placeholder, say `functions/providers/<id>/`, is a pattern and not meant.
  const paths = spans.filter((text) => /^(\.\/)?(functions|infra|test)\/[\w./-]*$/.test(text));
  expect([...links, ...paths].filter((path) => !existsSync(join(root, path)))).toEqual([]);
});

test('every link within the page leads somewhere, and to one place only', () => {
  expect(anchors.filter((anchor, index) => anchors.indexOf(anchor) < index)).toEqual([]);
  const links = [...prose.matchAll(/\]\(#([^)\s]+)\)/g)].map(([, target = '']) => target);
  expect(links.filter((target) => !anchors.includes(target))).toEqual([]);
});
