import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { secretsManager as secretsManagerPorts } from '../../functions/aws/secrets.ts';
import { loadConsumer } from '../../functions/consumers/index.ts';
import type { Invocation, RekeyEvent } from '../../functions/core/events.ts';
import type { StartTask, TargetTask } from '../../functions/core/fleet.ts';
import type { MetricName } from '../../functions/core/metrics.ts';
import { interpose, type Ports } from '../../functions/core/ports.ts';
import { firstSecretString } from '../../functions/core/secret-value.ts';
import { createRedactor } from '../../functions/core/sensitive.ts';
import { carryOutOrders, takeOrder } from '../../functions/lifecycle/carry-out-orders.ts';
import { guardWrites } from '../../functions/lifecycle/guarded-write.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { type StartReport, startRotations } from '../../functions/lifecycle/start-rotations.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import { createSecretsManager } from '../../infra/local/aws/secrets-manager.ts';
import { startNotes } from '../support/notes.ts';

const functionArn = 'arn:aws:lambda:eu-central-1:123456789012:function:rekey-rotate-secret';
const targets = {
  a: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10',
  b: '1b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a11',
} as const;
const minuteMs = 60_000;
const dayMs = 86_400_000;

type Pass = Extract<Invocation, { is: 'pass' | 'order' | 'pause' }>;
const pass = { is: 'pass', dryRun: false } as const;
const nothing: StartReport = {
  dryRun: false,
  started: [],
  adopting: [],
  held: [],
  failed: [],
  broken: [],
  breakers: [],
  quarantined: [],
};
const dryRun: Pass = { is: 'pass', dryRun: true };

/** Secrets Manager as it is, a store of parameters and a bus in memory, and rotations that work, fail or hang as told. */
function createWorld(from = '2026-03-01T12:00:00Z') {
  let nowMs = Date.parse(from);
  const clock = {
    now: () => new Date(nowMs),
    sleep: async (ms: number) => {
      nowMs += ms;
      await nextTurn();
    },
  };
  const rotations = new Map<string, 'fails' | 'hangs'>();
  const hanging: (() => void)[] = [];
  const secretsManager = createSecretsManager({
    account: '123456789012',
    region: 'eu-central-1',
    clock,
    emit: () => undefined,
    // What fails stays open until somebody abandons it.
    variants: { retryDelaysMs: [] },
    invoke: async (_arn, { Step, SecretId, ClientRequestToken }) => {
      const mode = rotations.get(nameOf(SecretId));
      if (mode === 'fails') return { ok: false, error: 'as told' };
      if (mode === 'hangs') await new Promise<void>((resolve) => hanging.push(resolve));
      if (Step === 'createSecret')
        await secretsManager.call('PutSecretValue', {
          SecretId,
          ClientRequestToken,
          SecretString: `value of ${ClientRequestToken}`,
          VersionStages: ['AWSPENDING'],
        });
      if (Step === 'finishSecret') {
        const { VersionIdsToStages } = await describeSecret(SecretId);
        const holder = Object.keys(VersionIdsToStages).find((id) =>
          VersionIdsToStages[id]?.includes('AWSCURRENT'),
        );
        if (holder !== ClientRequestToken)
          await secretsManager.call('UpdateSecretVersionStage', {
            SecretId,
            VersionStage: 'AWSCURRENT',
            MoveToVersionId: ClientRequestToken,
            RemoveFromVersionId: holder,
          });
      }
      return { ok: true };
    },
  });
  const describeSecret = async (SecretId: string) =>
    (await secretsManager.call('DescribeSecret', { SecretId })) as {
      VersionIdsToStages: Record<string, string[]>;
      ARN: string;
    };
  const nameOf = (arn: string): string => /secret:rekey\/(.+)-.{6}$/.exec(arn)?.[1] ?? arn;

  const parameters = new Map<string, string>();
  const notes = startNotes(clock.now);
  const published: RekeyEvent[] = [];
  const measured: [MetricName, number][] = [];
  const started: { at: string; credential: string; token: string; everyDays: number }[] = [];
  const logged: string[] = [];
  const calls: string[] = [];
  let refused = new Map<string, string>();
  let skewMs = 0;
  let hidden: string | undefined;

  const isThere = (entry: readonly [string, string | undefined]): entry is readonly [string, string] =>
    entry[1] !== undefined;
  const queued: TargetTask[] = [];
  const ordered: StartTask[] = [];
  const unused = async (): Promise<never> => {
    throw new Error('start-rotations has no business there');
  };
  const secretPorts = secretsManagerPorts(clientOf(secretsManager), createRedactor(), clock.now);
  const ports: { -readonly [Name in keyof Ports]: Ports[Name] } = {
    ...secretPorts,
    readSecret: unused,
    writeSecret: unused,
    createSecret: unused,
    cancelRotation: unused,
    deleteSecret: unused,
    http: unused,
    sql: unused,
    valkey: unused,
    notify: unused,
    enqueue: async (tasks) => void queued.push(...tasks),
    enqueueStart: async (starts) => void ordered.push(...starts),
    postpone: unused,
    setAside: unused,
    archive: unused,
    readArchive: unused,
    listArchive: unused,
    randomBytes: unused,
    startRotation: async (request) => {
      const credential = nameOf(request.secretId);
      const code = refused.get(credential);
      if (code !== undefined) throw Object.assign(new Error(`${code}: as told`), { code });
      const answer = await secretPorts.startRotation(request);
      if (answer === 'started')
        started.push({
          at: clock.now().toISOString(),
          credential,
          token: request.token,
          everyDays: request.everyDays,
        });
      return answer;
    },
    readParameters: async ({ parameters: names }) =>
      new Map(names.flatMap((name) => [[name, parameters.get(name)] as const]).filter(isThere)),
    readParameter: async ({ parameter }) => parameters.get(parameter) ?? 'absent',
    readParameterDate: unused,
    createParameter: async ({ parameter, document }) => {
      if (parameters.has(parameter)) return 'exists';
      parameters.set(parameter, document);
      return 'written';
    },
    writeParameter: async ({ parameter, document }) => {
      parameters.set(parameter, document);
    },
    deleteParameter: async ({ parameter }) => (parameters.delete(parameter) ? 'deleted' : 'absent'),
    listParameters: async ({ path }) =>
      [...parameters].flatMap(([parameter, document]) =>
        parameter.startsWith(path) && path !== hidden ? [{ parameter, document }] : [],
      ),
    ...notes.ports,
    publish: async (events) => {
      published.push(...events);
    },
    now: async () => new Date(nowMs + skewMs),
    sleep: clock.sleep,
  };

  /** An order is stored, and then its queue is worked off; a pause is stored, and the next pass comes. */
  async function used(invocations: readonly Pass[], until: Date, rekey: Rekey): Promise<StartReport> {
    const options = { rotationFunctionArn: functionArn };
    for (const invocation of invocations) {
      if (invocation.is === 'pass') return startRotations(invocation, options, until, rekey);
      await takeOrder(invocation, until, rekey);
      if (invocation.is === 'pause') return startRotations(pass, options, until, rekey);
    }
    const starts = ordered.splice(0).map((start) => ({ messageId: start.id, ...start }));
    const { failed, ...report } = await carryOutOrders(starts, options, until, rekey);
    return {
      ...nothing,
      ...report,
      failed: failed.map((id) => ({ credential: id.split(' ')[1] ?? '', code: 'COMES_AGAIN' })),
    };
  }

  /** One invocation; where it is killed, none of its calls is ever answered. */
  async function start(
    invocation: Pass | readonly Pass[] = pass,
    {
      killAt,
      when = 'before',
      diesWithTurn = false,
      leftMs = 890_000,
    }: {
      killAt?: number;
      when?: 'before' | 'after';
      /** Killed after it has taken its first turn with an API key, and before it has started a rotation. */
      diesWithTurn?: boolean;
      leftMs?: number;
    } = {},
  ): Promise<StartReport> {
    calls.length = 0;
    const death = Promise.withResolvers<never>();
    death.promise.catch(() => undefined);
    let isDead = false;
    const led = interpose(ports, async (name, request, call) => {
      if (isDead) return new Promise(() => undefined);
      if (name === 'now' || name === 'sleep') return call();
      calls.push(name);
      const isTurn = diesWithTurn && name === 'writeNote' && JSON.stringify(request).includes('"pace"');
      if (calls.length !== killAt && !isTurn) return call();
      isDead = true;
      if (isTurn || when === 'after') await call();
      death.reject(new Error('killed'));
      return new Promise(() => undefined);
    });
    const rekey: Rekey = {
      ports: guardWrites(led, () => new Date(nowMs + skewMs)),
      loadProvider,
      loadConsumer,
      sha256: (text) => createHash('sha256').update(text).digest(),
      log: (_level, message, fields) => logged.push(`${message} ${JSON.stringify(fields ?? {})}`),
      measure: (metric, value) => measured.push([metric, value]),
    };
    const until = new Date(nowMs + skewMs + leftMs);
    return Promise.race([used([invocation].flat(), until, rekey), death.promise]);
  }

  return {
    clock,
    ports,
    secretsManager,
    parameters,
    notes,
    published,
    measured,
    started,
    queued,
    logged,
    calls,
    rotations,
    start,
    /** Orders that are stored one after the other, and handed out by their queue at once. */
    startAll: (orders: readonly Pass[]): Promise<StartReport> => start(orders),
    describe: (name: string) => describeSecret(`rekey/${name}`),
    idle: () => secretsManager.idle(),
    move(ms: number): void {
      nowMs += ms;
    },
    set skewMs(ms: number) {
      skewMs = ms;
    },
    /** A path below which listings are stale. */
    set hidden(path: string) {
      hidden = path;
    },
    set refused(next: Map<string, string>) {
      refused = next;
    },
    release: () => {
      rotations.clear();
      for (const resolve of hanging.splice(0)) resolve();
    },
    /** A credential as the stack declares it: spec, secret with the first value, rotation attached and not started. */
    async declare(name: string, overrides: object = {}): Promise<void> {
      parameters.set(
        `/rekey/credentials/${name}`,
        JSON.stringify({
          name,
          provider: 'cockroachdb-cloud',
          target: { clusterId: targets.a },
          apiKeySecret: 'rekey/api-keys/cockroachdb',
          usernamePrefix: name.replaceAll('-', '_'),
          ...overrides,
        }),
      );
      await secretsManager.call('CreateSecret', {
        Name: `rekey/${name}`,
        SecretString: firstSecretString,
        ClientRequestToken: `first-value-of-${name}`.padEnd(32, '-'),
      });
      await secretsManager.call('RotateSecret', {
        SecretId: `rekey/${name}`,
        ClientRequestToken: `attaching-${name}`.padEnd(32, '-'),
        RotationLambdaARN: functionArn,
        RotateImmediately: false,
        RotationRules: { AutomaticallyAfterDays: 32 },
      });
      await secretsManager.idle();
    },
    /** The same, and it has been rotated once. */
    async establish(name: string, overrides: object = {}): Promise<void> {
      await this.declare(name, overrides);
      await secretsManager.call('RotateSecret', {
        SecretId: `rekey/${name}`,
        ClientRequestToken: `first-rotation-of-${name}`.padEnd(32, '-'),
      });
      await secretsManager.idle();
    },
    pause: (
      order: 'RekeyPaused' | 'RekeyResumed',
      on?: { readonly provider: string; readonly targetId: string },
    ): Pass => ({ is: 'pause', order, on, orderedAt: new Date(nowMs) }),
    order: (order: 'CredentialRotationRequested' | 'CredentialCompromised', credential: string): Pass => ({
      is: 'order',
      order,
      credential,
      orderedAt: new Date(nowMs),
    }),
  };
}

/** A client of the SDK as far as the adapters go: `send`, without serialization and sockets between. */
function clientOf(service: Pick<ReturnType<typeof createSecretsManager>, 'call'>): never {
  const send = async (command: { readonly constructor: { readonly name: string }; readonly input: object }) =>
    dated(await service.call(command.constructor.name.replace(/Command$/, ''), command.input));
  return { send } as never;
}

/** On the wire instants are seconds; the SDK makes them dates. */
function dated(value: unknown, key = ''): unknown {
  if (typeof value === 'number' && /Date$/.test(key)) return new Date(value * 1000);
  if (Array.isArray(value)) return value.map((each) => dated(each));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, dated(inner, name)]));
}

let world: ReturnType<typeof createWorld>;
beforeEach(() => {
  world = createWorld();
});
afterEach(async () => {
  world.release();
  await world.secretsManager.stop();
});

const names = (report: StartReport): readonly string[] => report.started.map(({ credential }) => credential);
const reasons = (report: StartReport): Readonly<Record<string, string>> =>
  Object.fromEntries(report.held.map(({ credential, reason }) => [credential, reason]));
const kinds = (): readonly string[] =>
  world.published.map(({ type, detail }) =>
    type === 'BreakerChanged'
      ? `${type} ${detail.state}`
      : type === 'DriftFound'
        ? `${type} ${detail.kind} ${detail.credential}`
        : type,
  );

describe('a pass', () => {
  test('starts what is due, one at a time on a target, with the back-stop two days behind', async () => {
    await world.declare('one');
    await world.declare('two');
    await world.declare('three', { target: { clusterId: targets.b }, rotation: { every: 'P10D' } });
    const report = await world.start();
    await world.idle();
    expect(names(report).toSorted()).toEqual(['one', 'three']);
    expect(reasons(report)).toEqual({ two: 'TARGET_BUSY' });
    expect(world.started.map(({ credential, everyDays }) => [credential, everyDays]).toSorted()).toEqual([
      ['one', 32],
      ['three', 12],
    ]);
    expect((await world.describe('one')).VersionIdsToStages).toMatchObject({
      [report.started.find(({ credential }) => credential === 'one')?.versionId ?? '']: ['AWSCURRENT'],
    });
  });

  test('starts the next of a target ten minutes later, and then nothing until an interval has passed', async () => {
    await world.declare('one');
    await world.declare('two');
    await world.start();
    await world.idle();
    world.move(5 * minuteMs);
    expect(reasons(await world.start())).toEqual({ one: 'NOT_DUE', two: 'SPACING' });
    world.move(6 * minuteMs);
    expect(names(await world.start())).toEqual(['two']);
    await world.idle();
    for (let day = 0; day < 22; day += 1) {
      world.move(dayMs);
      expect(names(await world.start())).toEqual([]);
    }
    for (let day = 0; day < 8; day += 1) {
      world.move(dayMs);
      await world.start();
      await world.idle();
    }
    expect(world.started.map(({ credential }) => credential).toSorted()).toEqual([
      'one',
      'one',
      'two',
      'two',
    ]);
  });

  test('made twice at once starts each rotation once', async () => {
    for (const name of ['one', 'two', 'three']) await world.declare(name);
    const [first, second] = await Promise.all([world.start(), world.start()]);
    await world.idle();
    expect(new Set([...names(first), ...names(second)]).size).toBe(1);
    const rotated = [];
    for (const name of ['one', 'two', 'three'])
      if (Object.keys((await world.describe(name)).VersionIdsToStages).length > 1) rotated.push(name);
    expect(rotated).toEqual(['one']);
    expect(new Set(world.started.map(({ token }) => token)).size).toBe(1);
  });

  test('that is killed at any call is made up for by the next one, and nothing starts twice', async () => {
    const prepare = async (): Promise<void> => {
      world = createWorld();
      await world.declare('one');
      await world.declare('two', { target: { clusterId: targets.b } });
      await world.declare('off');
      await world.secretsManager.call('CancelRotateSecret', { SecretId: 'rekey/off' });
      world.move(2 * dayMs);
    };
    await prepare();
    await world.start();
    const calls = [...world.calls];
    await world.idle();
    const wrong: string[] = [];
    for (const [index, name] of calls.entries())
      for (const when of ['before', 'after'] as const) {
        await prepare();
        await world.start(pass, { killAt: index + 1, when }).catch(() => undefined);
        await world.idle();
        await world.start();
        await world.idle();
        const tokens = world.started.map(({ credential }) => credential).toSorted();
        const said = kinds();
        if (
          tokens.join() !== 'one,two' ||
          !said.includes('DriftFound RotationDisabled off') ||
          // Told again at most: published first, noted afterwards.
          [...Map.groupBy(said, (each) => each).values()].some(({ length }) => length > 2)
        )
          wrong.push(`killed ${when} call ${index + 1} (${name}): started ${tokens}, said ${said}`);
      }
    expect(calls.length).toBeGreaterThan(10);
    expect(wrong).toEqual([]);
  });

  test('goes on after a start that fails, reports it and counts it', async () => {
    await world.declare('one');
    await world.declare('two', { target: { clusterId: targets.b } });
    world.refused = new Map([['one', 'STORE_DENIED']]);
    const report = await world.start();
    expect(names(report)).toEqual(['two']);
    expect(report.failed).toEqual([{ credential: 'one', code: 'STORE_DENIED' }]);
    expect(world.measured).toContainEqual(['RotationsFailed', 1]);
  });

  test('leaves alone what somebody has begun to rotate since it looked', async () => {
    await world.declare('one');
    await world.declare('two');
    // Both clocks and labels move between the listing and the start.
    const { secretsManager } = world;
    world.rotations.set('two', 'hangs');
    let listed = 0;
    const call = secretsManager.call.bind(secretsManager);
    secretsManager.call = async (operation, input, context) => {
      const answer = await call(operation, input, context);
      if (operation === 'ListSecretVersionIds') listed += 1;
      if (operation === 'ListSecretVersionIds' && listed === 2)
        await call('RotateSecret', { SecretId: 'rekey/two', ClientRequestToken: 'by-hand'.padEnd(32, '-') });
      return answer;
    };
    const report = await world.start();
    expect(world.started).toEqual([]);
    expect(reasons(report)['one']).toBe('TARGET_BUSY');
  });

  test('leaves alone what changed since it looked: rotated, switched off or scheduled for deletion', async () => {
    const changes: Record<
      string,
      (call: (operation: string, input: object) => Promise<unknown>) => Promise<unknown>
    > = {
      'switched off': (call) => call('CancelRotateSecret', { SecretId: 'rekey/one' }),
      deleted: (call) => call('DeleteSecret', { SecretId: 'rekey/one' }),
      'put by hand': (call) =>
        call('PutSecretValue', {
          SecretId: 'rekey/one',
          SecretString: 'x',
          ClientRequestToken: 'by-hand'.padEnd(32, '-'),
        }),
    };
    for (const [what, change] of Object.entries(changes)) {
      world = createWorld();
      await world.declare('one');
      const { secretsManager } = world;
      const call = secretsManager.call.bind(secretsManager);
      secretsManager.call = async (operation, input, context) => {
        const answer = await call(operation, input, context);
        if (operation === 'ListSecretVersionIds') await change(call);
        return answer;
      };
      expect([what, reasons(await world.start())]).toEqual([what, { one: 'CHANGED' }]);
      expect(world.started).toEqual([]);
    }
  });

  test('does not start twice what it started, while Secrets Manager still answers from before', async () => {
    await world.declare('one');
    world.secretsManager.setVariants({ staleReads: { DescribeSecret: 3, ListSecretVersionIds: 3 } });
    await world.start();
    await world.start();
    await world.idle();
    expect(new Set(world.started.map(({ token }) => token)).size).toBe(1);
  });

  test('takes another token after a rotation that came to nothing', async () => {
    await world.declare('one');
    world.rotations.set('one', 'fails');
    const [first] = (await world.start()).started;
    await world.idle();
    world.move(31 * minuteMs);
    expect(reasons(await world.start())).toEqual({ one: 'AWAITS_REPAIR' });
    await world.secretsManager.call('UpdateSecretVersionStage', {
      SecretId: 'rekey/one',
      VersionStage: 'AWSPENDING',
      RemoveFromVersionId: first?.versionId,
    });
    const [second] = (await world.start()).started;
    expect(second?.credential).toBe('one');
    expect(second?.versionId).not.toBe(first?.versionId);
  });

  const declareOnOneKey = async (): Promise<void> => {
    for (let index = 0; index < 8; index += 1)
      await world.declare(`c${index}`, {
        provider: 'render-postgres',
        target: { postgresId: `dpg-d1abc2d3e4f5g6h7i8${String(index).padStart(2, '0')}-a` },
        apiKeySecret: 'rekey/api-keys/render',
      });
    await world.declare('other');
  };

  test('paces starts of one API key by minutes, and lets no other key wait for it', async () => {
    await declareOnOneKey();
    // Thirty writes a minute, fifteen of them for us: three rotations of four.
    await world.start();
    expect(world.started.map(({ at, credential }) => `${credential} ${at.slice(11, 16)}`)).toEqual([
      'c0 12:00',
      'c1 12:00',
      'c2 12:00',
      'other 12:00',
      'c3 12:01',
      'c4 12:01',
      'c5 12:01',
      'c6 12:02',
      'c7 12:02',
    ]);
  });

  test('nothing is late even if, in each pass, as many processes die holding turns as the API key has in a minute', async () => {
    const days = ['MO', 'TU', 'WE', 'TH', 'FR', 'SA', 'SU'];
    const window = { start: '02:00', length: 'PT1H', days, timeZone: 'UTC' };
    // In an hour the key takes 180 rotations, of which each pass plans fifteen.
    const credentials = 120;
    for (let index = 0; index < credentials; index += 1)
      await world.establish(`c${index}`, {
        provider: 'render-postgres',
        target: { postgresId: `dpg-${String(index).padStart(20, 'a')}-a` },
        apiKeySecret: 'rekey/api-keys/render',
        rotation: { every: 'P2D', window },
      });
    world.started.length = 0;
    let deaths = 0;
    let waits = 0;
    const minutes = 3 * 24 * 60;
    for (let minute = 0; minute < minutes; minute += 5) {
      const hour = world.clock.now().getUTCHours();
      const began = world.clock.now().getTime();
      if (hour === 2) {
        const killed = () =>
          world.start(pass, { diesWithTurn: true }).then(
            () => 0,
            () => 1,
          );
        // One turn each, which the others see.
        for (let process = 0; process < 3; process += 1) deaths += await killed();
      }
      if (hour === 2 || minute % 60 === 0) {
        const report = await world.start();
        expect(report.broken).toEqual([]);
        waits += report.held.filter(({ reason }) => reason === 'BUDGET').length;
        await world.idle();
      }
      world.move(Math.max(0, began + 5 * minuteMs - world.clock.now().getTime()));
    }
    expect([deaths > 60, waits > 0]).toEqual([true, true]);
    expect(new Set(world.started.map(({ credential }) => credential)).size).toBe(credentials);
    const overdue = world.measured.filter(([metric, value]) => metric === 'RotationOverdueAge' && value > 0);
    expect(overdue).toEqual([]);
  });

  test('leaves to the next pass what it has no time for', async () => {
    await declareOnOneKey();
    const report = await world.start(pass, { leftMs: 70_000 });
    expect(names(report)).toEqual(['c0', 'c1', 'c2', 'other', 'c3', 'c4', 'c5']);
    expect(reasons(report)).toEqual({ c6: 'OUT_OF_TIME', c7: 'OUT_OF_TIME' });
    await world.idle();
    expect(names(await world.start())).toEqual(['c6', 'c7']);
  });

  test('reads a target that it cannot read whole as busy, and the others as ever', async () => {
    await world.declare('one');
    await world.declare('two');
    await world.declare('three', { target: { clusterId: targets.b } });
    const { secretsManager } = world;
    const call = secretsManager.call.bind(secretsManager);
    secretsManager.call = async (operation, input, context) => {
      if (operation === 'DescribeSecret' && JSON.stringify(input).includes('rekey/two'))
        throw Object.assign(new Error('no'), { name: 'AccessDeniedException' });
      return call(operation, input, context);
    };
    const report = await world.start();
    expect(names(report)).toEqual(['three']);
    expect(reasons(report)).toEqual({ one: 'TARGET_BUSY', two: 'UNREADABLE' });
    expect(report.failed.map(({ credential }) => credential)).toEqual(['two']);
  });

  test('reports specs that cannot be read, and goes on', async () => {
    await world.declare('one');
    world.parameters.set('/rekey/credentials/two', '{"name": "two"}');
    const report = await world.start();
    expect(names(report)).toEqual(['one']);
    expect(report.broken.map(({ name }) => name)).toEqual(['two']);
  });

  test.each([-10, 10])(
    'by a clock that is %i minutes off keeps the window to within that',
    async (minutes) => {
      await world.establish('one', {
        rotation: { every: 'P8D', window: { start: '02:00', length: 'PT3H', days: ['SA'], timeZone: 'UTC' } },
      });
      world.skewMs = minutes * minuteMs;
      for (let quarter = 0; quarter < 8 * 96 && world.started.length === 0; quarter += 1) {
        world.move(15 * minuteMs);
        await world.start();
      }
      const [{ at } = { at: '' }] = world.started;
      expect(Date.parse(at)).toBeGreaterThanOrEqual(Date.parse('2026-03-07T01:50:00Z'));
      expect(Date.parse(at)).toBeLessThan(Date.parse('2026-03-07T05:10:00Z'));
    },
  );

  test.each([
    ['forward', '2026-03-25T12:00:00Z', '2026-03-29T01:00:00Z', '2026-03-29T01:45:00Z'],
    ['back', '2026-10-21T12:00:00Z', '2026-10-25T00:30:00Z', '2026-10-25T01:15:00Z'],
  ])('keeps a window in the hour in which the clock is put %s', async (_way, start, from, until) => {
    world = createWorld(start);
    await world.establish('one', {
      rotation: {
        every: 'P8D',
        window: { start: '02:30', length: 'PT45M', days: ['SU'], timeZone: 'Europe/Berlin' },
      },
    });
    for (let quarter = 0; quarter < 8 * 96 && world.started.length === 0; quarter += 1) {
      world.move(15 * minuteMs);
      await world.start();
    }
    const [{ at } = { at: '' }] = world.started;
    expect(Date.parse(at)).toBeGreaterThanOrEqual(Date.parse(from));
    expect(Date.parse(at)).toBeLessThan(Date.parse(until));
  });
});

describe('a dry run', () => {
  test('says what a pass would do, and does nothing at all', async () => {
    await world.declare('one');
    await world.establish('two');
    await world.declare('legacy', {
      adopt: { username: 'legacy', passwordSecret: 'rekey/adopt/legacy' },
      target: { clusterId: targets.b },
    });
    world.move(11 * minuteMs);
    const before = JSON.stringify([...world.parameters]);
    const report = await world.start(dryRun);
    expect(report).toMatchObject({
      dryRun: true,
      started: [{ credential: 'one', because: 'FIRST', inMinutes: 0 }],
      adopting: ['legacy'],
      held: [{ credential: 'two', reason: 'NOT_DUE', until: expect.any(Date) }],
      failed: [],
      broken: [],
      breakers: [],
    });
    expect(new Set(world.calls)).toEqual(
      new Set(['listParameters', 'listSecrets', 'describeSecret', 'listVersions']),
    );
    expect(JSON.stringify([...world.parameters])).toBe(before);
    expect(world.published).toEqual([]);
    expect(world.measured).toEqual([]);
    // It says the very rotation that the pass then starts.
    expect((await world.start()).started).toEqual(report.started);
  });
});

describe('an order', () => {
  test('is written down first, and carried out at once', async () => {
    await world.establish('one');
    world.move(dayMs);
    const report = await world.start(world.order('CredentialRotationRequested', 'one'));
    expect(report.started).toMatchObject([{ credential: 'one', because: 'REQUESTED' }]);
    expect(world.calls.slice(0, 2)).toEqual(['readParameters', 'createParameter']);
    expect(world.parameters.get('/rekey/directives/one/rotateBefore')).toBe('2026-03-02T12:00:00.000Z');
  });

  test('is carried out, too, where the listing of parameters does not show it yet', async () => {
    await world.establish('one');
    world.move(dayMs);
    world.hidden = '/rekey/directives/';
    const report = await world.start(world.order('CredentialRotationRequested', 'one'));
    expect(names(report)).toEqual(['one']);
  });

  test('that comes twice, at once or later, brings one rotation', async () => {
    await world.establish('one');
    world.move(dayMs);
    const order = world.order('CredentialCompromised', 'one');
    await Promise.all([world.start(order), world.start(order)]);
    await world.idle();
    world.move(minuteMs);
    await world.start(order);
    await world.idle();
    expect(new Set(world.started.map(({ token }) => token)).size).toBe(1);
    expect(world.parameters.get('/rekey/directives/one/revokeBefore')).toBe('2026-03-02T12:00:00.000Z');
  });

  test('that is older than the one before moves nothing back', async () => {
    await world.establish('one');
    const old = world.order('CredentialCompromised', 'one');
    world.move(dayMs);
    await world.start(world.order('CredentialCompromised', 'one'));
    await world.idle();
    await world.start(old);
    expect(world.parameters.get('/rekey/directives/one/revokeBefore')).toBe('2026-03-02T12:00:00.000Z');
    expect(world.started).toHaveLength(1);
  });

  test('that is newer than the one before replaces it', async () => {
    await world.establish('one');
    for (let day = 0; day < 2; day += 1) {
      world.move(dayMs);
      await world.start(world.order('CredentialRotationRequested', 'one'));
      await world.idle();
    }
    expect(world.parameters.get('/rekey/directives/one/rotateBefore')).toBe('2026-03-03T12:00:10.300Z');
    expect(world.started).toHaveLength(2);
  });

  test('killed at any call is carried out by the next pass, once it is written down', async () => {
    const prepare = async (): Promise<Pass> => {
      world = createWorld();
      await world.establish('one');
      world.move(dayMs);
      return world.order('CredentialCompromised', 'one');
    };
    const measured = await prepare();
    await world.start(measured);
    const calls = [...world.calls];
    const wrong: string[] = [];
    for (const [index, name] of calls.entries())
      for (const when of ['before', 'after'] as const) {
        const order = await prepare();
        await world.start(order, { killAt: index + 1, when }).catch(() => undefined);
        await world.idle();
        if (world.parameters.has('/rekey/directives/one/revokeBefore')) await world.start();
        // Before that the bus delivers it again.
        else await world.start(order);
        await world.idle();
        if (world.started.length !== 1)
          wrong.push(`killed ${when} call ${index + 1} (${name}): ${world.started.length} rotations`);
      }
    expect(wrong).toEqual([]);
  });

  test('waits for the other one of its target, and then goes on in the same invocation', async () => {
    await world.establish('one');
    await world.establish('two');
    world.rotations.set('one', 'hangs');
    world.move(dayMs);
    const orders = ['one', 'two'].map((name) => world.order('CredentialCompromised', name));
    const ordered = world.startAll(orders);
    // Two looks later the rotation of the first one goes on.
    const begun = world.clock.now().getTime();
    while (world.clock.now().getTime() < begun + 30_000) await nextTurn();
    world.release();
    const report = await ordered;
    expect(report.started).toMatchObject([
      { credential: 'one', because: 'REVOKED' },
      { credential: 'two', because: 'REVOKED' },
    ]);
    expect(report.held).toEqual([]);
  });

  test('waits for a rotation that a pass has started on its target', async () => {
    await world.establish('one');
    await world.declare('two');
    world.rotations.set('two', 'hangs');
    world.move(dayMs);
    expect(names(await world.start())).toEqual(['two']);
    world.move(minuteMs);
    const ordered = world.start(world.order('CredentialCompromised', 'one'));
    const begun = world.clock.now().getTime();
    while (world.clock.now().getTime() < begun + 30_000) await nextTurn();
    expect(world.started.map(({ credential }) => credential)).toEqual(['two']);
    world.release();
    expect((await ordered).started).toMatchObject([{ credential: 'one', because: 'REVOKED' }]);
  });

  test('waits no longer than four minutes: the next pass carries it out', async () => {
    await world.establish('one');
    await world.establish('two');
    world.rotations.set('one', 'hangs');
    world.move(dayMs);
    const begun = world.clock.now().getTime();
    const report = await world.startAll(
      ['one', 'two'].map((name) => world.order('CredentialCompromised', name)),
    );
    expect(names(report)).toEqual(['one']);
    expect(reasons(report)).toEqual({ two: 'TARGET_BUSY' });
    expect(world.clock.now().getTime() - begun).toBeGreaterThan(3 * minuteMs);
    expect(world.clock.now().getTime() - begun).toBeLessThanOrEqual(4 * minuteMs);
    world.release();
    await world.idle();
    expect(names(await world.start())).toEqual(['two']);
  });

  const refusals: Record<string, { order: Pass; code: string }> = {
    'for a credential that there is none of': {
      order: {
        is: 'order',
        order: 'CredentialCompromised',
        credential: 'nobody',
        orderedAt: new Date('2026-03-01T12:00:00Z'),
      },
      code: 'SPEC_MISSING',
    },
    'to delete, which another function does': {
      order: {
        is: 'order',
        order: 'CredentialDeletionRequested',
        credential: 'one',
        orderedAt: new Date('2026-03-01T12:00:00Z'),
      },
      code: 'EVENT_INVALID',
    },
    'of a time to come': {
      order: {
        is: 'order',
        order: 'CredentialCompromised',
        credential: 'one',
        orderedAt: new Date('2026-03-01T12:11:00Z'),
      },
      code: 'EVENT_INVALID',
    },
  };
  test.each(Object.entries(refusals))(
    '%s is refused, and nothing is written',
    async (_sentence, { order, code }) => {
      await world.declare('one');
      const before = [...world.parameters.keys()];
      await expect(world.start(order)).rejects.toMatchObject({ code, effect: 'none' });
      expect([...world.parameters.keys()]).toEqual(before);
      expect(world.started).toEqual([]);
    },
  );
});

describe('a pause', () => {
  const b = { provider: 'cockroachdb-cloud', targetId: targets.b };
  const due = async () => {
    await world.establish('one');
    await world.establish('two', { target: { clusterId: targets.b } });
    world.move(40 * dayMs);
  };

  test('holds every start, in passes and dry runs alike, until it is lifted', async () => {
    await due();
    const paused = await world.start(world.pause('RekeyPaused'));
    expect(names(paused)).toEqual([]);
    expect(reasons(paused)).toEqual({ one: 'PAUSED', two: 'PAUSED' });
    expect(reasons(await world.start(dryRun))).toEqual({ one: 'PAUSED', two: 'PAUSED' });
    expect(world.started).toEqual([]);
    world.move(minuteMs);
    expect(names(await world.start(world.pause('RekeyResumed')))).toEqual(['one', 'two']);
  });

  test('of one target holds that one only', async () => {
    await due();
    const report = await world.start(world.pause('RekeyPaused', b));
    expect(names(report)).toEqual(['one']);
    expect(reasons(report)).toEqual({ two: 'PAUSED' });
  });

  test('of everything outlives that of one target, and the other way round', async () => {
    await due();
    await world.start(world.pause('RekeyPaused'));
    world.move(1_000);
    await world.start(world.pause('RekeyPaused', b));
    world.move(1_000);
    expect(reasons(await world.start(world.pause('RekeyResumed', b)))).toEqual({
      one: 'PAUSED',
      two: 'PAUSED',
    });
    await world.start(world.pause('RekeyPaused', b));
    world.move(1_000);
    expect(reasons(await world.start(world.pause('RekeyResumed')))).toMatchObject({ two: 'PAUSED' });
  });

  test('that comes while a pass waits to start holds what has not left yet', async () => {
    await due();
    const { startRotation } = world.ports;
    let starts = 0;
    world.ports.startRotation = async (request) => {
      starts += 1;
      const answer = await startRotation(request);
      world.parameters.set(
        '/rekey/pause/all',
        JSON.stringify({ state: 'paused', at: world.clock.now().toISOString() }),
      );
      // The reasons that the next start asked for may be two seconds old.
      world.move(3_000);
      return answer;
    };
    const report = await world.start();
    expect(starts).toBe(1);
    expect(Object.values(reasons(report))).toEqual(['PAUSED']);
  });

  test('is measured by the age of the oldest, and one that cannot be read holds as well', async () => {
    await due();
    await world.start(world.pause('RekeyPaused', b));
    world.move(10 * minuteMs);
    await world.start();
    expect(world.measured.findLast(([metric]) => metric === 'PausedAge')?.[1]).toBeCloseTo(600, 0);
    world.parameters.set('/rekey/pause/all', 'on');
    expect(reasons(await world.start(dryRun))).toEqual({ one: 'PAUSED', two: 'PAUSED' });
  });

  test('makes a revocation wait, which it says once, and lets it go first when it is lifted', async () => {
    await world.establish('one');
    await world.start(world.pause('RekeyPaused'));
    world.move(minuteMs);
    const held = await world.start(world.order('CredentialCompromised', 'one'));
    expect(reasons(held)).toEqual({ one: 'PAUSED' });
    await world.start();
    expect(kinds().filter((kind) => kind.includes('RevocationWaiting'))).toEqual([
      'DriftFound RevocationWaiting one',
    ]);
    world.move(minuteMs);
    expect((await world.start(world.pause('RekeyResumed'))).started).toMatchObject([
      { credential: 'one', because: 'REVOKED' },
    ]);
  });
});

describe('AWSPENDING', () => {
  const secretOf = (name: string) => `rekey/${name}`;
  /** A rotation that fails in its first step stays open. */
  const openRotation = async (name: string): Promise<string> => {
    world.rotations.set(name, 'fails');
    const versionId = `begun-by-hand-${name}`.padEnd(32, '-');
    await world.secretsManager.call('RotateSecret', {
      SecretId: `rekey/${name}`,
      ClientRequestToken: versionId,
    });
    await world.idle();
    world.rotations.clear();
    return versionId;
  };
  const pendingAt = async (name: string): Promise<string | undefined> =>
    Object.entries((await world.describe(name)).VersionIdsToStages).find(([, labels]) =>
      labels.includes('AWSPENDING'),
    )?.[0];

  test('on a version that was revoked while it was made is taken off, and another rotation starts in the same pass', async () => {
    await world.establish('one');
    world.move(dayMs);
    const revoked = await openRotation('one');
    expect(await pendingAt('one')).toBe(revoked);
    world.move(minuteMs);
    const report = await world.start(world.order('CredentialCompromised', 'one'));
    expect(report.started).toMatchObject([{ credential: 'one', because: 'REVOKED' }]);
    await world.idle();
    expect(await pendingAt('one')).not.toBe(revoked);
    expect(kinds()).toContain('DriftFound PendingStray one');
  });

  test('that somebody put on the version of AWSPREVIOUS is taken off, and never becomes current', async () => {
    await world.establish('one');
    world.move(dayMs);
    await world.start(world.order('CredentialRotationRequested', 'one'));
    await world.idle();
    const before = (await world.describe('one')).VersionIdsToStages;
    const previous = Object.keys(before).find((id) => before[id]?.includes('AWSPREVIOUS')) ?? '';
    await world.secretsManager.call('UpdateSecretVersionStage', {
      SecretId: secretOf('one'),
      VersionStage: 'AWSPENDING',
      MoveToVersionId: previous,
      ...((await pendingAt('one')) === undefined ? {} : { RemoveFromVersionId: await pendingAt('one') }),
    });
    world.move(minuteMs);
    await world.start();
    await world.idle();
    expect(await pendingAt('one')).not.toBe(previous);
    const after = (await world.describe('one')).VersionIdsToStages;
    expect(after[previous]).toEqual(['AWSPREVIOUS']);
    expect(kinds()).toEqual(['DriftFound PendingStray one']);
  });

  test('I1: of a rotation that has stood open for more than four minutes is handed to reconcile-users at once, whatever the strategy is now', async () => {
    await world.establish('one', { strategy: 'reset-password' });
    await world.establish('two', { target: { clusterId: targets.b } });
    world.move(dayMs);
    await openRotation('one');
    await openRotation('two');
    world.queued.length = 0;
    world.move(3 * minuteMs);
    await world.start();
    expect(world.queued).toEqual([]);
    world.move(2 * minuteMs);
    await world.start(dryRun);
    expect(world.queued).toEqual([]);
    await world.start();
    expect(world.queued).toEqual(
      [targets.a, targets.b].map((targetId) => ({ provider: 'cockroachdb-cloud', targetId, urgent: true })),
    );
  });
});

describe('what a pass tells', () => {
  /** So many rotations fail, and each time somebody abandons them. */
  async function failTimes(times: number, ...credentials: readonly string[]): Promise<void> {
    for (const credential of credentials) {
      await world.declare(credential);
      world.rotations.set(credential, 'fails');
    }
    for (let failure = 0; failure < times; failure += 1) {
      const [{ versionId, credential } = { versionId: '', credential: '' }] = (await world.start()).started;
      await world.idle();
      await world.secretsManager.call('UpdateSecretVersionStage', {
        SecretId: `rekey/${credential}`,
        VersionStage: 'AWSPENDING',
        RemoveFromVersionId: versionId,
      });
      world.move(11 * minuteMs);
    }
  }
  const openBreaker = () => failTimes(2, 'one', 'two');

  test('is that a credential keeps failing, once, with what an operator needs', async () => {
    await failTimes(3, 'one');
    const report = await world.start();
    const failedAt = world.started.map(({ at }) => new Date(at).getTime());
    expect(report.breakers).toEqual([]);
    expect(report.quarantined).toMatchObject([{ credential: 'one', failures: 3 }]);
    const until = report.quarantined[0]?.until ?? new Date(0);
    expect(until.getTime() - (failedAt.at(-1) ?? 0)).toBeCloseTo(60 * minuteMs, -4);
    expect(report.held).toEqual([{ credential: 'one', reason: 'QUARANTINED', until }]);
    await world.start();
    const told = world.published.flatMap(({ type, detail }) =>
      type === 'DriftFound' && detail.kind === 'RotationQuarantined' ? [detail] : [],
    );
    expect(told).toMatchObject([
      {
        credential: 'one',
        target: targets.a,
        details: expect.stringContaining(`rekey tries the next one at ${until.toISOString()}`),
      },
    ]);
    expect(kinds().filter((kind) => kind.startsWith('BreakerChanged'))).toEqual([]);
  });

  const nights = { start: '02:00', length: 'PT4H', days: ['MO', 'TU', 'WE', 'TH', 'FR', 'SA', 'SU'] };
  /** What holds a credential that is due for hours, while nobody reads its versions. */
  const holds: Readonly<
    Record<string, { readonly spec: object; readonly isPausedAt?: (hour: number) => boolean }>
  > = {
    'closed windows': { spec: { rotation: { every: 'P7D', window: { ...nights, timeZone: 'UTC' } } } },
    'the grace after each failure': {
      spec: { rotation: { every: 'P7D' }, strategy: 'alternate-users', grace: 'PT6H' },
    },
    'a pause in each night': { spec: { rotation: { every: 'P7D' } }, isPausedAt: (hour) => hour < 6 },
  };
  test.each(Object.entries(holds))(
    'is that a credential keeps failing, once through %s, and once more when it fails again after a success',
    async (_hold, { spec, isPausedAt = () => false }) => {
      await world.establish('one', { grace: 'PT1H', ...spec });
      const told = () => kinds().filter((kind) => kind === 'DriftFound RotationQuarantined one').length;
      let isPaused = false;
      /** A pass each half an hour, after which reconcile-users gives up what failed. */
      async function play(days: number): Promise<void> {
        for (let pass = 0; pass < 48 * days; pass += 1) {
          const isToPause = isPausedAt(world.clock.now().getUTCHours());
          if (isToPause !== isPaused)
            await world.start(world.pause(isToPause ? 'RekeyPaused' : 'RekeyResumed'));
          isPaused = isToPause;
          await world.start();
          await world.idle();
          const { VersionIdsToStages } = await world.describe('one');
          for (const [versionId, labels] of Object.entries(VersionIdsToStages))
            if (labels.includes('AWSPENDING') && !labels.includes('AWSCURRENT'))
              await world.secretsManager.call('UpdateSecretVersionStage', {
                SecretId: 'rekey/one',
                VersionStage: 'AWSPENDING',
                RemoveFromVersionId: versionId,
              });
          world.move(30 * minuteMs);
        }
      }
      world.rotations.set('one', 'fails');
      await play(12);
      expect(world.started.length).toBeGreaterThan(5);
      expect(told()).toBe(1);
      world.rotations.clear();
      await play(3);
      world.rotations.set('one', 'fails');
      await play(12);
      expect(told()).toBe(2);
    },
  );

  test('is that a breaker opened, lets one try, and closed, each once', async () => {
    await openBreaker();
    const opened = await world.start();
    expect(reasons(opened)).toEqual({ one: 'BREAKER_OPEN', two: 'BREAKER_OPEN' });
    expect(opened.breakers).toMatchObject([
      { provider: 'cockroachdb-cloud', target: targets.a, state: 'opened', failures: 2 },
    ]);
    expect(world.measured.at(-1)).toEqual(['BreakersOpen', 1]);
    await world.start();
    world.rotations.clear();
    world.move(60 * minuteMs);
    const trial = await world.start();
    expect(names(trial)).toEqual(['one']);
    await world.idle();
    await world.start();
    await world.start();
    expect(world.measured.at(-1)).toEqual(['BreakersOpen', 0]);
    expect(kinds().filter((kind) => kind.startsWith('BreakerChanged'))).toEqual([
      'BreakerChanged opened',
      'BreakerChanged half-open',
      'BreakerChanged closed',
    ]);
    expect(await world.notes.stored('breakers')).toEqual({});
  });

  test('is nothing new while a credential cannot be read, and nothing twice afterwards', async () => {
    await openBreaker();
    world.move(20 * minuteMs);
    await world.start();
    const { secretsManager } = world;
    const call = secretsManager.call.bind(secretsManager);
    secretsManager.call = async (operation, input, context) => {
      if (operation === 'DescribeSecret')
        throw Object.assign(new Error('no'), { name: 'AccessDeniedException' });
      return call(operation, input, context);
    };
    await world.start();
    secretsManager.call = call;
    await world.start();
    expect(kinds()).toEqual([
      'BreakerChanged opened',
      'DriftFound RotationOverdue one',
      'DriftFound RotationOverdue two',
    ]);
  });

  test('is what is overdue and what is switched off, once, with how long', async () => {
    await world.establish('one', { grace: 'PT1H', rotation: { every: 'P1D' } });
    await world.secretsManager.call('CancelRotateSecret', { SecretId: 'rekey/one' });
    world.move(dayMs + 3_600_000);
    await world.start();
    await world.start();
    expect(kinds()).toEqual(['DriftFound RotationOverdue one', 'DriftFound RotationDisabled one']);
    expect(world.measured.filter(([metric]) => metric === 'RotationOverdueAge')).toEqual([
      ['RotationOverdueAge', 3_600],
      ['RotationOverdueAge', 3_600],
    ]);
  });

  test('is told again when it recurs, although the secret of a neighbour has changed since its rotation', async () => {
    await world.establish('one');
    await world.establish('two');
    world.move(20 * minuteMs);
    await world.secretsManager.call('UpdateSecret', {
      SecretId: 'rekey/two',
      ClientRequestToken: 'a-description-of-somebody'.padEnd(32, '-'),
      Description: 'of somebody',
    });
    for (let times = 0; times < 2; times += 1) {
      await world.secretsManager.call('CancelRotateSecret', { SecretId: 'rekey/one' });
      await world.start();
      await world.secretsManager.call('RotateSecret', {
        SecretId: 'rekey/one',
        ClientRequestToken: `attaching-again-${times}`.padEnd(32, '-'),
        RotationLambdaARN: functionArn,
        RotateImmediately: false,
        RotationRules: { AutomaticallyAfterDays: 32 },
      });
      await world.idle();
      await world.start();
    }
    expect(kinds()).toEqual(['DriftFound RotationDisabled one', 'DriftFound RotationDisabled one']);
  });

  test('is that the credentials of one target do not fit, once, also when one more is added; again when it recurs', async () => {
    const window = { start: '02:00', length: 'PT30M', days: ['SU', 'WE'], timeZone: 'UTC' };
    const declare = (index: number) => world.establish(`c${index}`, { rotation: { every: 'P7D', window } });
    const told = () =>
      world.published.flatMap(({ type, detail }) =>
        type === 'DriftFound' && detail.kind === 'CapacityExceeded' ? [detail] : [],
      );
    // Sixty minutes a week.
    for (let index = 0; index < 59; index += 1) await declare(index);
    expect((await world.start()).broken).toEqual([]);
    expect(told()).toEqual([]);
    await declare(59);
    await world.start();
    await declare(60);
    await world.start();
    expect(told()).toMatchObject([
      {
        provider: 'cockroachdb-cloud',
        target: targets.a,
        details: expect.stringContaining('expected room for 258 rotations in 30 days, which 60 credentials'),
      },
    ]);
    const change = (name: string, from: string, to: string) => {
      const parameter = `/rekey/credentials/${name}`;
      world.parameters.set(parameter, (world.parameters.get(parameter) ?? '').replace(from, to));
    };
    for (const name of ['c0', 'c1']) change(name, '02:00', '04:00');
    await world.start();
    expect(told()).toHaveLength(1);
    for (const name of ['c0', 'c1']) change(name, '04:00', '02:00');
    await world.start();
    expect(told()).toHaveLength(2);
  });

  test('is no lack of room for a credential that is to go', async () => {
    const window = { start: '02:00', length: 'PT30M', days: ['SU', 'WE'], timeZone: 'UTC' };
    for (let index = 0; index < 60; index += 1)
      await world.establish(`c${index}`, { rotation: { every: 'P7D', window } });
    world.parameters.set('/rekey/directives/c0/deleteSince', world.clock.now().toISOString());
    expect((await world.start()).broken).toEqual([]);
    expect(kinds()).toEqual([]);
  });

  test('is zero where nothing is overdue and no breaker open', async () => {
    await world.establish('one');
    await world.start();
    expect(world.measured).toEqual([
      ['PausedAge', 0],
      ['RotationOverdueAge', 0],
      ['BreakersOpen', 0],
    ]);
    expect(world.published).toEqual([]);
  });

  test('is the request to adopt a user, in every pass until it is done, and never a rotation', async () => {
    await world.declare('legacy', { adopt: { username: 'legacy', passwordSecret: 'rekey/adopt/legacy' } });
    const report = await world.start();
    expect(report.adopting).toEqual(['legacy']);
    expect(world.started).toEqual([]);
    expect(world.published).toMatchObject([
      {
        type: 'CredentialRequested',
        detail: {
          spec: {
            name: 'legacy',
            provider: 'cockroachdb-cloud',
            adopt: { username: 'legacy', passwordSecret: 'rekey/adopt/legacy' },
          },
        },
      },
    ]);
    // What create-user does about it.
    await world.secretsManager.call('PutSecretValue', {
      SecretId: 'rekey/legacy',
      ClientRequestToken: 'adopted'.padEnd(32, '-'),
      SecretString: 'a login',
    });
    const after = await world.start();
    expect([after.adopting, reasons(after)]).toEqual([[], { legacy: 'NOT_DUE' }]);
  });
});
