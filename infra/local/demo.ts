import { createHash, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge';
import { S3Client } from '@aws-sdk/client-s3';
import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  ResourceNotFoundException,
  RotateSecretCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { auditArchive } from '../../functions/aws/archive.ts';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { dayOf, lastOverDay } from '../../functions/core/audit.ts';
import { openings } from '../../functions/core/calendar.ts';
import { type CredentialOrder, credentialRequested } from '../../functions/core/events.ts';
import { eventSource, secretName } from '../../functions/core/names.ts';
import { type CredentialSpec, graceMs, parseSpec } from '../../functions/core/spec.ts';
import { verifyArchive } from '../../functions/lifecycle/verify-archive.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import type { BusEvent } from './aws/bus-event.ts';
import { type Clients, type ForgottenConnection, forgetConnection, startClients } from './clients.ts';
import type { Meddling } from './vendors.ts';
import type { Spec, World } from './world.ts';

/** What a run of the whole life came to. */
export interface Outcome {
  readonly providers: readonly ProviderOutcome[];
  /** The price of having only one user, measured; undefined when no declared provider can do it. */
  readonly resetPassword?: Refusal;
  readonly webhooks: WebhooksOutcome;
  readonly audit: AuditOutcome;
  readonly access: AccessOutcome;
  /** Simulated time, in days. */
  readonly days: number;
  readonly seconds: number;
}

/** What vendors told by webhooks, and what became of it. */
export interface WebhooksOutcome {
  /** Events that arrived, each with a signature that is right. */
  readonly received: number;
  /** Users that came or went on the targets that were told about, and are rekey's own. */
  readonly expected: number;
  /** Somebody else's. */
  readonly foreign: number;
  /** Events and users that no webhook has told of: found by looking. */
  readonly caughtUp: number;
  readonly problems: readonly string[];
}

/** The records in the audit bucket, read back and compared with the seals. */
export interface AuditOutcome {
  readonly records: number;
  /** Whether every record is as it was sealed, and the seals are a chain. */
  readonly verified: boolean;
  readonly problems: readonly string[];
}

/** What the policies of the stack said to the functions, and to the services that do something for us. */
export interface AccessOutcome {
  readonly judged: number;
  /** Policy, statement and action of what is allowed, and was needed by nothing in this run. */
  readonly idle: readonly string[];
  /** What was refused, in the words of AWS. */
  readonly problems: readonly string[];
}

/** One rotation under `reset-password`, as consumers saw it who read AWSCURRENT before every login. */
export interface Refusal {
  readonly provider: string;
  readonly logins: number;
  readonly refusedLogins: number;
  /** From the start of the first refused login to the end of the last one. */
  readonly refusedForMs: number;
  /** What `CredentialRotated` promised. */
  readonly atMostMs: number;
}

export interface ProviderOutcome {
  readonly provider: string;
  readonly strategy: string;
  readonly logins: number;
  readonly failedLogins: number;
  /** Credentials that were requested and came to be. */
  readonly created: number;
  /** The first rotation, the one of the schedule and the one of the compromise. */
  readonly rotated: number;
  /** Users that were taken out of service and are gone, of credentials that go on. */
  readonly retired: number;
  /** What somebody did past rekey, as reconcile saw it. */
  readonly driftFound: number;
  readonly driftRepaired: number;
  /** Credentials that were ended on request. */
  readonly deleted: number;
  /** Users of rekey that are left at the provider. */
  readonly users: number;
  /** What is not as it should be; empty in a good run. */
  readonly problems: readonly string[];
}

export interface DemoOptions {
  /** One line of the timeline. */
  readonly tell: (subject: string, message: string) => void;
  readonly signal: AbortSignal;
}

const loginsAtLeast = 500;
/** More would only wait for the two cores. */
const applications = 4;
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const reporting = 'orders-report';
/** Whom people make by hand, see vendors.ts. */
const peoplesUsers: readonly string[] = ['somebody', 'somebody_else'];

/** Everything that the acts of a run share. */
interface Stage {
  readonly world: World;
  readonly lives: readonly Life[];
  readonly secretsManager: SecretsManagerClient;
  readonly eventBridge: EventBridgeClient;
  readonly proxyUrl: string;
  readonly ca: string;
  readonly tell: DemoOptions['tell'];
  readonly signal: AbortSignal;
}

/** One declared credential, from its request to its end. */
interface Life {
  readonly declared: Spec;
  readonly spec: CredentialSpec;
  readonly problems: string[];
  clients: Clients | undefined;
  /** Opened with the first login, and never thought of again; undefined where the engine knows no connections. */
  forgotten: ForgottenConnection | undefined;
  meddlings: readonly Meddling[];
  /** What was found and repaired while somebody meddled: people's own users had been found before, and what is left is seen again. */
  drift: { readonly found: readonly string[]; readonly repaired: readonly string[] };
}

/**
 * The whole life of each declared credential, in a month of simulated time: requested, used, rotated by the schedule, its old user
 * drained and retired, meddled with, compromised and deleted. A login that fails, a user too many or too few, a finding that
 * nobody made: each is a problem of the outcome.
 */
export async function runDemo(world: World, options: DemoOptions): Promise<Outcome> {
  const { clock } = world;
  const startedAt = Date.now();
  const startedOn = clock.now();
  return onStage(world, options, async (stage) => {
    const before = await usersAtVendors(world);
    await createAll(stage);
    await startApplications(stage);
    await rotateBySchedule(stage);
    await drainAndRetire(stage);
    const resetPassword = await measureRefusal(stage);
    await findDrift(stage);
    await stopApplications(stage);
    const silenced = await silenceWebhooks(stage);
    await compromise(stage);
    await deleteAll(stage, resetPassword?.name);
    const audit = await verifyAudit(stage, startedOn);
    const after = await usersAtVendors(world);
    return {
      webhooks: webhooksOutcome(stage, silenced),
      audit,
      access: await accessOutcome(world),
      days: Math.round((clock.now().getTime() - startedOn.getTime()) / dayMs),
      seconds: Math.round((Date.now() - startedAt) / 100) / 10,
      ...(resetPassword === undefined ? {} : { resetPassword: resetPassword.refusal }),
      providers: stage.lives.map((life) => outcomeOf(life, { stage, before, after })),
    };
  });
}

async function accessOutcome({ deployment }: World): Promise<AccessOutcome> {
  const { judged, refusals } = deployment.authorizer;
  const idle = await deployment.idlePermissions();
  return {
    judged,
    idle: idle.map(({ policy, sid = 'a statement without a Sid', action }) => `${policy} ${sid} ${action}`),
    problems: refusals,
  };
}

/** The first act alone: each declared credential has a user and a login in Secrets Manager, for whoever wants to try things. */
export const createCredentials = (world: World, options: DemoOptions): Promise<void> =>
  onStage(world, options, createAll);

async function onStage<T>(
  world: World,
  { tell, signal }: DemoOptions,
  play: (stage: Stage) => Promise<T>,
): Promise<T> {
  const { deployment, specs } = world;
  const connection = {
    endpoint: deployment.endpointUrl,
    region: deployment.region,
    credentials: { accessKeyId: 'demo', secretAccessKey: 'demo' },
  };
  const stage: Stage = {
    world,
    lives: await Promise.all(
      specs.map(async (declared) => ({
        declared,
        spec: await parseSpec(declared.document, { loadProvider, loadConsumer }),
        problems: [],
        clients: undefined,
        forgotten: undefined,
        meddlings: [],
        drift: { found: [], repaired: [] },
      })),
    ),
    secretsManager: new SecretsManagerClient(connection),
    eventBridge: new EventBridgeClient(connection),
    proxyUrl: world.vendors.network.proxyUrl,
    ca: await readFile(world.caFile, 'utf8'),
    tell,
    signal,
  };
  const stopTelling = tellEvents(world, tell);
  try {
    return await play(stage);
  } finally {
    stopTelling();
    await Promise.all(
      stage.lives.flatMap(({ clients, forgotten }) => [
        clients?.stop().catch(() => undefined),
        forgotten?.close(),
      ]),
    );
    stage.secretsManager.destroy();
    stage.eventBridge.destroy();
  }
}

// The acts.

async function createAll(stage: Stage): Promise<void> {
  const { world, lives, secretsManager, signal } = stage;
  await request(
    stage,
    lives.map(({ declared }) => declared),
  );
  await quiet(world);
  for (const { spec } of lives) await untilCurrent(secretsManager, secretName(spec.name), undefined, signal);
}

async function startApplications(stage: Stage): Promise<void> {
  const { lives, secretsManager, proxyUrl, ca, tell, signal } = stage;
  for (const life of lives) {
    const secretId = secretName(life.spec.name);
    const { username } = await untilCurrent(secretsManager, secretId, undefined, signal);
    life.clients = startClients({
      secretsManager,
      secretId,
      proxyUrl,
      ca,
      count: applications,
      cacheMs: { shortest: 100, longest: 1_000 },
    });
    tell(life.spec.name, `${applications} applications log in as ${username}, again and again`);
    life.forgotten = await forgetConnection({
      secretsManager,
      secretId,
      label: 'AWSCURRENT',
      ca,
      applicationName: reporting,
    });
    if (life.forgotten !== undefined)
      tell(life.spec.name, `${reporting} opens a connection as ${username}, and forgets it`);
  }
  await untilLogins(stage, loginsAtLeast / 2);
}

/** A month passes, and start-rotations rotates each credential when it is due and its window is open. */
async function rotateBySchedule(stage: Stage): Promise<void> {
  const { world, lives, tell, signal } = stage;
  const { clock, deployment } = world;
  const rotations = (life: Life) => eventsOf(stage, life, 'CredentialRotated').length;
  const left = () => lives.filter((life) => rotations(life) < 2);
  tell('the clock', 'weeks pass');
  await deployment.advance(14 * dayMs, { passes: { everyMs: 14 * dayMs } });
  for (let passes = 0; left().length > 0 && passes < 120; passes += 1) {
    signal.throwIfAborted();
    const now = clock.now().getTime();
    const next = left().flatMap(({ spec }) => {
      const open = openings(spec.rotation, new Date(now), new Date(now + 60 * dayMs))
        // Days apart where nothing hinders, and minutes where another credential of the target had its turn.
        .map(({ from, until }) =>
          Math.max(Math.min(from.getTime() + hourMs, until.getTime() - 1), now + hourMs / 4),
        )
        .filter((at, index, all) => index === 0 || at > (all[index - 1] ?? 0));
      return open.find((at) => at > now + (passes % 4 === 3 ? hourMs / 8 : dayMs / 2)) ?? [];
    });
    const at = Math.min(...next, now + dayMs);
    // Consumers have the whole grace to read the new login; at this pace of the clock they would have no second of it.
    await untilMoved(stage);
    await deployment.advance(new Date(at), { passes: { everyMs: dayMs } });
    await quiet(world);
  }
  for (const life of left()) life.problems.push('was not rotated by the schedule within its interval');
  for (const { spec, declared, problems } of lives)
    for (const settings of declared.consumers) {
      const platform = world.vendors.byConsumer[settings['kind'] ?? ''];
      const wanted = await currentUrl(stage, spec.name);
      if (platform?.runningWith(settings) === wanted)
        tell(spec.name, `${settings['kind']} ${settings['serviceId'] ?? ''} runs with the new login`);
      else problems.push(`the consumer ${settings['serviceId'] ?? ''} does not run with the new login`);
    }
}

/** Somebody is still connected as the user before: it stays, and is named. Once nobody is, it goes. */
async function drainAndRetire(stage: Stage): Promise<void> {
  const { world, lives, tell } = stage;
  const { deployment } = world;
  await untilMoved(stage);
  const grace = Math.max(...lives.map(({ spec }) => graceMs(spec)));
  tell('the clock', `the grace of ${Math.round(grace / hourMs)} hours passes`);
  await deployment.advance(grace + hourMs, { passes: { everyMs: grace } });
  await quiet(world);
  for (const life of lives) {
    if (life.forgotten === undefined) continue;
    const findings = eventsOf(stage, life, 'DriftFound').filter(
      ({ detail }) => detail['kind'] === 'RetiredStillConnected',
    );
    if (findings.length !== 1 || !String(findings[0]?.detail['details']).includes(reporting))
      life.problems.push(
        `the connection of ${reporting} was reported ${findings.length} times, expected once by its name`,
      );
    if (!(await life.forgotten.isOpen())) life.problems.push(`the connection of ${reporting} was cut`);
    await life.forgotten.close();
  }
  tell('the clock', `${reporting} hangs up everywhere; an hour passes`);
  await deployment.advance(hourMs, { passes: { everyMs: hourMs / 2 } });
  await quiet(world);
}

async function findDrift(stage: Stage): Promise<void> {
  const { world, lives, tell } = stage;
  const kinds = (life: Life, type: string): readonly string[] =>
    eventsOf(stage, life, type).map(({ detail }) => String(detail['kind']));
  const before = new Map(
    lives.map((life) => [life, { found: kinds(life, 'DriftFound'), repaired: kinds(life, 'DriftRepaired') }]),
  );
  for (const life of lives) {
    const { declared, spec } = life;
    const { username } = await untilCurrent(
      stage.secretsManager,
      secretName(spec.name),
      undefined,
      stage.signal,
    );
    const meddlers = [
      world.vendors.byProvider[spec.provider]?.meddle(declared.target, username),
      ...declared.consumers.map((settings) =>
        world.vendors.byConsumer[settings['kind'] ?? '']?.meddle(settings),
      ),
    ];
    life.meddlings = (await Promise.all(meddlers)).filter((meddling) => meddling !== undefined);
    for (const { done } of life.meddlings) tell(spec.name, done);
  }
  await world.deployment.advance(2 * hourMs, { passes: { everyMs: hourMs } });
  await quiet(world);
  for (const life of lives) {
    const { found = [], repaired = [] } = before.get(life) ?? {};
    life.drift = {
      found: kinds(life, 'DriftFound').slice(found.length).toSorted(),
      repaired: kinds(life, 'DriftRepaired').slice(repaired.length).toSorted(),
    };
  }
}

/** A vendor's webhook fails until the vendor gives it up. That is noticed, and so is what it should have told of. */
async function silenceWebhooks({ world, lives, tell }: Stage): Promise<readonly string[]> {
  const { deployment, vendors } = world;
  const [life] = lives.filter(({ spec }) => vendors.byProvider[spec.provider]?.silence !== undefined);
  if (life === undefined) return [];
  const { spec, declared } = life;
  const silence = await vendors.byProvider[spec.provider]?.silence?.(declared.target);
  if (silence === undefined) return [];
  const { done, username, lastsMs, mend } = silence;
  const since = deployment.bus.history().length;
  const isPublished = (type: string, detail: Readonly<Record<string, unknown>>): boolean =>
    deployment.bus
      .history()
      .slice(since)
      .some(
        (event) =>
          event['detail-type'] === type &&
          Object.entries(detail).every(([name, value]) => event.detail[name] === value),
      );
  tell(spec.name, done);
  // One pass at the end does: more of them would find the same.
  const duration = lastsMs + 2 * hourMs;
  await deployment.advance(duration, { passes: { everyMs: duration } });
  await quiet(world);
  const expected = {
    'the webhook that was switched off was not found': isPublished('DriftFound', { kind: 'WebhookDisabled' }),
    'nobody was alarmed about it': deployment.alarms.state('rekey-webhook-disabled') === 'ALARM',
    'the event that did not arrive was not caught up': isPublished('ProviderEventReceived', {
      isCaughtUp: true,
    }),
    [`${username} was not caught up as somebody else's user`]: isPublished('DatabaseUserAppeared', {
      username,
      standing: 'foreign',
      isCaughtUp: true,
    }),
  };
  tell(spec.name, await mend());
  await deployment.advance(hourMs, { passes: { everyMs: hourMs } });
  await quiet(world);
  const mended = { 'the alarm went on': deployment.alarms.state('rekey-webhook-disabled') === 'OK' };
  return Object.entries({ ...expected, ...mended }).flatMap(([problem, isFine]) => (isFine ? [] : [problem]));
}

async function compromise(stage: Stage): Promise<void> {
  const { world, lives, secretsManager, ca, tell } = stage;
  const leaked = new Map<Life, ForgottenConnection>();
  for (const life of lives) {
    const connection = await forgetConnection({
      secretsManager,
      secretId: secretName(life.spec.name),
      label: 'AWSCURRENT',
      ca,
      applicationName: 'somebody-else',
    });
    if (connection !== undefined) leaked.set(life, connection);
  }
  try {
    tell('the clock', 'a week passes, and every login is found in a public repository');
    await world.deployment.advance(7 * dayMs, { passes: { everyMs: 7 * dayMs } });
    await order(
      stage,
      'CredentialCompromised',
      lives.map(({ spec }) => spec.name),
    );
    await quiet(world);
    const isDone = (life: Life) => eventsOf(stage, life, 'DatabaseUserDeleted').length >= 2;
    for (let passes = 0; !lives.every(isDone) && passes < 8; passes += 1) {
      await world.deployment.advance(hourMs / 4, { passes: 'all' });
      await quiet(world);
    }
    // A vendor's webhooks have their target looked at a minute later.
    await world.deployment.advance(2 * minuteMs, { passes: 'sparse' });
    await quiet(world);
    for (const [life, connection] of leaked)
      tell(
        life.spec.name,
        (await connection.isOpen())
          ? 'the connection that was open with it is beyond the reach of this API key: an administrator’s secret would end it'
          : 'the connection that was open with it has been ended',
      );
  } finally {
    for (const connection of leaked.values()) await connection.close();
  }
}

async function deleteAll(stage: Stage, another: string | undefined): Promise<void> {
  const { world, lives, tell } = stage;
  tell('the clock', 'all of them are ordered to go');
  const names = [...lives.map(({ spec }) => spec.name), ...(another === undefined ? [] : [another])];
  await order(stage, 'CredentialDeletionRequested', names);
  await quiet(world);
  const isDone = (name: string) =>
    stage.world.deployment.bus
      .history()
      .some((event) => event['detail-type'] === 'CredentialDeleted' && event.detail['credential'] === name);
  for (let passes = 0; !names.every(isDone) && passes < 12; passes += 1) {
    await world.deployment.advance(hourMs / 2, { passes: { everyMs: hourMs / 4 } });
    await quiet(world);
  }
}

/** Two nights later every day of the run is sealed: an auditor reads all of it back. */
async function verifyAudit({ world, tell }: Stage, startedOn: Date): Promise<AuditOutcome> {
  const { deployment, clock } = world;
  tell('the clock', 'two nights pass, and the days are sealed');
  await deployment.advance(2 * dayMs, { passes: 'sparse' });
  await quiet(world);
  const client = new S3Client({
    endpoint: deployment.endpointUrl,
    region: deployment.region,
    credentials: { accessKeyId: 'auditor', secretAccessKey: 'auditor' },
  });
  try {
    const ports = auditArchive(client, deployment.stack.buckets[0]?.name ?? '', {
      sleep: async (ms) => {
        await pause(ms);
      },
    });
    const { records, findings } = await verifyArchive(
      { from: dayOf(startedOn), to: lastOverDay(clock.now()) },
      { ports, sha256: (text) => createHash('sha256').update(text, 'utf8').digest() },
    );
    tell('the auditor', `${records} records are as they were sealed, ${findings.length} are not`);
    return {
      records,
      verified: records > 0 && findings.length === 0,
      problems: findings.map(({ kind, key, details }) => `${kind} ${key}: ${details}`),
    };
  } finally {
    client.destroy();
  }
}

async function stopApplications(stage: Stage): Promise<void> {
  await untilLogins(stage, loginsAtLeast);
  await Promise.all(stage.lives.map(({ clients }) => clients?.stop()));
}

// What came of it.

function outcomeOf(
  life: Life,
  {
    stage,
    before,
    after,
  }: {
    readonly stage: Stage;
    readonly before: ReadonlyMap<string, readonly string[]>;
    readonly after: ReadonlyMap<string, readonly string[]>;
  },
): ProviderOutcome {
  const { spec, clients, meddlings, problems } = life;
  const { deployment } = stage.world;
  const count = (type: string) => eventsOf(stage, life, type).length;
  const { found, repaired } = life.drift;
  const users = (after.get(spec.provider) ?? []).filter(
    (username) => !before.get(spec.provider)?.includes(username) && !peoplesUsers.includes(username),
  );
  // A vendor that keeps a default user keeps one that nobody knows the password of.
  const expectedUsers = spec.definition.capabilities.passwords === 'chosen-by-provider' ? 1 : 0;
  const differs = (what: string, got: unknown, wanted: unknown): readonly string[] =>
    JSON.stringify(got) === JSON.stringify(wanted)
      ? []
      : [`${what}: expected ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}`];
  const outcome = {
    provider: spec.provider,
    strategy: spec.strategy,
    logins: clients?.logins ?? 0,
    failedLogins: clients?.failures.length ?? 0,
    created: count('CredentialCreated'),
    rotated: count('CredentialRotated'),
    retired: eventsOf(stage, life, 'DatabaseUserDeleted').filter(
      ({ detail }) => detail['reason'] !== 'credential-deleted',
    ).length,
    driftFound: found.length,
    driftRepaired: repaired.length,
    deleted: count('CredentialDeleted'),
    users: users.length,
  };
  return {
    ...outcome,
    problems: [
      ...problems,
      ...new Set(clients?.failures.map(({ username, code }) => `failed login: ${username}: ${code}`) ?? []),
      ...(outcome.logins < loginsAtLeast ? [`${outcome.logins} logins, expected ${loginsAtLeast}`] : []),
      ...differs('created', outcome.created, 1),
      ...differs('rotated', outcome.rotated, 3),
      ...differs('retired', outcome.retired, 2),
      ...differs('found', found, meddlings.flatMap((each) => each.found).toSorted()),
      ...differs('repaired', repaired, meddlings.flatMap((each) => each.repaired).toSorted()),
      ...differs('deleted', outcome.deleted, 1),
      ...(users.length === expectedUsers
        ? []
        : [`users left: expected ${expectedUsers}, got ${users.join(', ')}`]),
      ...differs('requests that came to nothing', deployment.lostRequests.length, 0),
    ],
  };
}

function webhooksOutcome({ world, lives }: Stage, silenced: readonly string[]): WebhooksOutcome {
  const ours = world.deployment.bus.history().filter(({ source }) => source === eventSource);
  const told = ours.filter((event) => event['detail-type'] === 'ProviderEventReceived');
  const targets = new Set(told.map(({ detail }) => detail['target']));
  const sightings = ours.filter(
    (event) =>
      ['DatabaseUserAppeared', 'DatabaseUserDisappeared'].includes(event['detail-type']) &&
      targets.has(event.detail['target']),
  );
  const isCaughtUp = ({ detail }: BusEvent) => detail['isCaughtUp'] === true;
  const standing = (wanted: string) => sightings.filter(({ detail }) => detail['standing'] === wanted);
  const [expected, foreign] = [standing('expected'), standing('foreign')];
  const isSomebodys = ({ detail }: BusEvent) => peoplesUsers.includes(text(detail['username']));
  const wrong = [
    ...expected.filter((event) => isSomebodys(event)),
    ...foreign.filter((event) => !isSomebodys(event)),
  ];
  const isMatched = ({ spec }: Life): boolean =>
    !targets.has(spec.targetId) ||
    expected.some(
      ({ detail }) => detail['credential'] === spec.name && detail['providerEventId'] !== undefined,
    );
  return {
    received: told.filter((event) => !isCaughtUp(event)).length,
    expected: expected.length,
    foreign: foreign.length,
    caughtUp: [...told, ...sightings].filter(isCaughtUp).length,
    problems: [
      ...silenced,
      ...wrong.map(({ detail }) => `${detail['username']} was taken for ${detail['standing']}`),
      ...lives
        .filter((life) => !isMatched(life))
        .map(({ spec }) => `${spec.name}: no webhook of its vendor was matched with one of its users`),
    ],
  };
}

/** What rekey published of one credential; findings about nobody's user belong to whoever is on the target. */
function eventsOf({ world }: Stage, { spec }: Life, type: string): readonly BusEvent[] {
  return world.deployment.bus
    .history()
    .filter(
      ({ source, 'detail-type': named, detail }) =>
        source === eventSource &&
        named === type &&
        (detail['credential'] === spec.name ||
          (detail['credential'] === undefined && detail['target'] === spec.targetId)),
    );
}

// Waiting and asking.

/** Nothing runs any more, and nothing is on its way. */
async function quiet({ deployment }: World): Promise<void> {
  for (let turns = 0; turns < 2; turns += 1) {
    await deployment.settled();
    await deployment.secretsManager.idle();
    await deployment.bus.idle();
  }
  await deployment.settled();
}

async function untilLogins({ lives, signal }: Stage, logins: number): Promise<void> {
  while (lives.some(({ clients }) => (clients?.logins ?? 0) < logins)) {
    signal.throwIfAborted();
    await pause(50);
  }
}

/** Every application has read the present login: consumers have the whole grace for it, the clock here leaves them none. */
async function untilMoved({ lives, secretsManager, signal }: Stage): Promise<void> {
  for (const { spec, clients } of lives) {
    const { username } = await untilCurrent(secretsManager, secretName(spec.name), undefined, signal);
    while (clients?.holding().some((held) => held !== username) ?? false) {
      signal.throwIfAborted();
      await pause(50);
    }
  }
}

async function currentUrl({ secretsManager }: Stage, name: string): Promise<string | undefined> {
  const { SecretString } = await secretsManager.send(
    new GetSecretValueCommand({ SecretId: secretName(name) }),
  );
  const value: { url?: string } = JSON.parse(SecretString ?? '{}');
  return value.url;
}

async function send(
  { world, eventBridge }: Stage,
  events: readonly { readonly type: string; readonly detail: object }[],
): Promise<void> {
  const { FailedEntryCount } = await eventBridge.send(
    new PutEventsCommand({
      Entries: events.map(({ type, detail }) => ({
        EventBusName: world.deployment.stack.buses[0]?.name ?? '',
        Source: eventSource,
        DetailType: type,
        Detail: JSON.stringify(detail),
      })),
    }),
  );
  if (FailedEntryCount !== 0) throw new Error(`the bus took ${FailedEntryCount} events fewer than were sent`);
}

async function request(stage: Stage, specs: readonly Spec[]): Promise<void> {
  await send(
    stage,
    specs.map(({ document }) => ({ type: credentialRequested, detail: { spec: document } })),
  );
  for (const { name } of specs) stage.tell(name, 'requested on the bus');
}

async function order(stage: Stage, type: CredentialOrder, names: readonly string[]): Promise<void> {
  await send(
    stage,
    names.map((credential) => ({ type, detail: { credential } })),
  );
  for (const name of names) stage.tell(name, `${type} sent to the bus`);
}

/** The first declared credential, once more, for somebody who can have only one user. */
async function measureRefusal(
  stage: Stage,
): Promise<{ readonly name: string; readonly refusal: Refusal } | undefined> {
  const { secretsManager, proxyUrl, ca, tell, signal } = stage;
  const { deployment, specs } = stage.world;
  const able = await Promise.all(
    specs.map(async (spec) =>
      (await loadProvider(spec.provider))?.capabilities.strategies.includes('reset-password') ? [spec] : [],
    ),
  );
  const [declared] = able.flat();
  if (declared === undefined) return undefined;
  const name = `${declared.name.slice(0, 40)}-reset`;
  const document = {
    ...declared.document,
    name,
    usernamePrefix: `${String(declared.document['usernamePrefix']).slice(0, 13)}_reset`,
    strategy: 'reset-password',
  };
  await request(stage, [{ ...declared, name, document }]);
  await quiet(stage.world);
  const secretId = secretName(name);
  const first = await untilCurrent(secretsManager, secretId, undefined, signal);
  const clients = startClients({
    secretsManager,
    secretId,
    proxyUrl,
    ca,
    count: applications,
    cacheMs: { shortest: 0, longest: 0 },
  });
  try {
    while (clients.logins < 4 * applications && !signal.aborted) await pause(20);
    await secretsManager.send(
      new RotateSecretCommand({ SecretId: secretId, ClientRequestToken: randomUUID() }),
    );
    const second = await untilCurrent(secretsManager, secretId, first.versionId, signal);
    const enough = clients.logins + 4 * applications;
    while (clients.logins < enough && !signal.aborted) await pause(20);
    await deployment.bus.idle();
    const rotated = deployment.bus
      .history()
      .find(({ detail }) => detail['versionId'] === second.versionId && 'currentRefusedAtMostMs' in detail);
    const { failures, logins } = clients;
    const refusedForMs =
      failures.length === 0
        ? 0
        : Math.max(...failures.map(({ endedAt }) => endedAt)) -
          Math.min(...failures.map(({ startedAt }) => startedAt));
    tell(name, `with one user only, AWSCURRENT was refused for ${refusedForMs} ms of its rotation`);
    return {
      name,
      refusal: {
        provider: declared.provider,
        logins,
        refusedLogins: failures.length,
        refusedForMs,
        atMostMs: Number(rotated?.detail['currentRefusedAtMostMs'] ?? 0),
      },
    };
  } finally {
    await clients.stop();
  }
}

const patienceMs = 50_000;

/** The current login once it is another than `versionId`, and no rotation is under way any more. */
async function untilCurrent(
  secretsManager: SecretsManagerClient,
  secretId: string,
  versionId: string | undefined,
  signal: AbortSignal,
): Promise<{ versionId: string; username: string }> {
  const giveUpAt = Date.now() + patienceMs;
  while (Date.now() < giveUpAt) {
    signal.throwIfAborted();
    const description = await secretsManager
      .send(new DescribeSecretCommand({ SecretId: secretId }))
      .catch((error: unknown) => {
        // Requested, and not made yet.
        if (error instanceof ResourceNotFoundException) return undefined;
        throw error;
      });
    if (description === undefined) {
      await pause(100);
      continue;
    }
    const { VersionIdsToStages = {} } = description;
    const isUnderWay = Object.values(VersionIdsToStages).some((labels) => labels.includes('AWSPENDING'));
    const value = await secretsManager.send(new GetSecretValueCommand({ SecretId: secretId }));
    const parsed: { username?: string } = JSON.parse(value.SecretString ?? '{}');
    if (!isUnderWay && parsed.username !== undefined && value.VersionId !== versionId)
      return { versionId: value.VersionId ?? '', username: parsed.username };
    await pause(100);
  }
  throw new Error(
    `${secretId} was not rotated within ${patienceMs / 1_000} s; see the functions' log with --verbose`,
  );
}

/** Who exists at each provider now, on all the targets that the specs name. */
async function usersAtVendors({ vendors, specs }: World): Promise<ReadonlyMap<string, readonly string[]>> {
  const users = new Map<string, readonly string[]>();
  const targets = new Map(specs.map((spec) => [JSON.stringify([spec.provider, spec.target]), spec]));
  for (const { provider, target } of targets.values()) {
    const here = (await vendors.byProvider[provider]?.usernames(target)) ?? [];
    users.set(provider, [...(users.get(provider) ?? []), ...here]);
  }
  return users;
}

/** Turns what rekey publishes into lines of the timeline, until the returned function is called. */
function tellEvents({ deployment }: World, tell: DemoOptions['tell']): () => void {
  let told = deployment.bus.history().length;
  /** A pass that finds a user gone says so again, where another one has deleted it meanwhile. */
  const gone = new Set<string>();
  const timer = setInterval(() => {
    const events = deployment.bus.history();
    for (const { source, 'detail-type': type, detail } of events.slice(told)) {
      if (source !== eventSource || typeof detail['target'] !== 'string') continue;
      if (type === 'DatabaseUserDeleted') {
        const user = JSON.stringify([detail['provider'], detail['target'], detail['username']]);
        if (gone.has(user)) continue;
        gone.add(user);
      }
      const sentence = sentences[type]?.(detail);
      const subject = text(detail['credential']) || text(detail['target']) || text(detail['provider']);
      if (sentence !== undefined) tell(subject, sentence);
    }
    told = events.length;
  }, 50);
  return () => clearInterval(timer);
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '');

/** Those of rekey's own that no webhook is about are told by the events of what rekey did. */
const sighted = (
  what: string,
  { username, standing, providerEventId, isCaughtUp }: Readonly<Record<string, unknown>>,
): string | undefined =>
  standing === 'expected' && providerEventId === undefined && isCaughtUp !== true
    ? undefined
    : [
        `${username} has ${what}`,
        standing === 'expected' ? ', as expected' : ': a foreign hand, reported',
        ...(providerEventId === undefined ? [] : [' (that is what the webhook was about)']),
        ...(isCaughtUp === true ? [' (no webhook told of it)'] : []),
      ].join('');

const sentences: Readonly<Record<string, (detail: Readonly<Record<string, unknown>>) => string | undefined>> =
  {
    CredentialCreated: () => 'spec and secret are in place, the first rotation begins',
    DatabaseUserCreated: ({ username }) => `made the user ${username}, which nobody knows yet`,
    CredentialRotated: ({ username }) => `AWSCURRENT is ${username} now, which has logged in`,
    DatabaseUserPasswordChanged: ({ username }) => `changed the password of ${username}`,
    ProviderEventReceived: ({ provider, providerEventType, isCaughtUp }) =>
      isCaughtUp === true
        ? `${provider} could not tell us of ${providerEventType}: it was asked what it had sent`
        : `a webhook of ${provider} says ${providerEventType}, and its signature is right`,
    DatabaseUserAppeared: (detail) => sighted('appeared', detail),
    DatabaseUserDisappeared: (detail) => sighted('disappeared', detail),
    CredentialRotationFailed: ({ step, code }) => `${step} failed with ${code}; Secrets Manager tries again`,
    ConsumerUpdated: ({ consumer }) => `${consumer} was given the login and is live with it`,
    DriftFound: ({ kind, username, details }) =>
      `found ${kind}${username === undefined ? '' : ` of ${username}`}: ${details}`,
    DriftRepaired: ({ kind, repair }) => `repaired ${kind} by ${text(repair).replaceAll('-', ' ')}`,
    DatabaseUserDeleted: ({ username, reason }) =>
      `${username} is gone (${text(reason).replaceAll('-', ' ')})`,
    CredentialDeleted: () => 'users are gone, the secret can be restored for some days, the spec is gone',
    BreakerChanged: ({ state, failures }) => `breaker ${state} after ${failures} failures`,
  };
