import { createHash } from 'node:crypto';
import { expect } from 'vitest';
import { StoreError } from '../../functions/core/errors.ts';
import { type HttpRequest, interpose, type Ports } from '../../functions/core/ports.ts';
import type { Login, Strategy } from '../../functions/core/provider.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import type { StartReport } from '../../functions/lifecycle/start-rotations.ts';
import { pgSql } from '../../functions/providers/sql.ts';
import { iovalkeyOverTls } from '../../functions/providers/valkey.ts';
import { addRenderOrders } from '../../infra/local/providers/fixtures.ts';
import { startTestRekey } from './rekey.ts';
import type { TestVendors } from './vendors.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

export const vendorsWithStrategies = {
  'render-postgres': ['replace-user'],
  'cockroachdb-cloud': ['replace-user', 'alternate-users', 'reset-password'],
  'vultr-valkey': ['replace-user', 'alternate-users', 'reset-password'],
  'zilliz-cloud': ['replace-user', 'alternate-users', 'reset-password'],
} as const satisfies Readonly<Record<string, readonly Strategy[]>>;
export type ProviderId = keyof typeof vendorsWithStrategies;

/** Live users of one credential: at rest, and while a rotation runs. */
export const bounds = {
  'replace-user': { atRest: 2, inFlight: 3 },
  'alternate-users': { atRest: 2, inFlight: 2 },
  'reset-password': { atRest: 1, inFlight: 1 },
} as const satisfies Readonly<Record<Strategy, { atRest: number; inFlight: number }>>;

type Target = Readonly<Record<string, string>>;

/** A fault that lasts until it is lifted, and that only the broken credentials meet. */
export interface Breakage {
  readonly title: string;
  /** Those that it can hit while the login in AWSCURRENT goes on working. */
  readonly strategies: (provider: ProviderId) => readonly Strategy[];
  /** What the spec of the broken credential has beside the usual. */
  readonly spec?: (scene: Scene) => Promise<object> | object;
  start(scene: Scene): Promise<void> | void;
  lift(scene: Scene): Promise<void> | void;
  /** It fails for the target as a whole, and so for its healthy credential, too. */
  readonly hitsTarget?: true;
  /** How many superseded users more something else may hold, such as a consumer that cannot be asked. @default 0 */
  readonly held?: number;
  /** Rotations succeed all the same: what fails comes after them. */
  readonly rotates?: true;
}

export interface Scene {
  readonly provider: ProviderId;
  readonly target: Target;
  readonly targetId: string;
  readonly vendors: TestVendors;
  /** Of the users of all broken credentials. */
  readonly brokenUsers: RegExp;
  /** What happens between rekey and the network or Secrets Manager while the fault lasts. */
  readonly between: {
    /** In place of the call. */
    answer?: (name: keyof Ports, request: unknown) => Promise<unknown> | undefined;
    /** After a request that may have changed something at the vendor. */
    afterWrite?: () => Promise<void>;
  };
  readonly brokenSecrets: ReadonlySet<string>;
}

export interface Outcome {
  readonly strategy: Strategy;
  readonly maxInFlight: number;
  readonly maxAtRest: number;
  readonly rotationsFailed: number;
  readonly findings: number;
}

interface Declared {
  readonly name: string;
  readonly prefix: string;
  readonly strategy: Strategy;
  readonly target: Target;
  readonly kind: 'broken' | 'beside' | 'elsewhere';
}

/** As specs have it where they say nothing. */
const graceMs = dayMs;
const everyDays = { broken: 7, beside: 10, elsewhere: 14 } as const;
/** Of the healthy ones, in hours of the day (UTC). */
const window = { from: 1, until: 7 } as const;

/**
 * Lives through so many days with broken credentials beside healthy ones, through all of rekey's passes and the real code of the
 * provider, and then through the days after the fault is lifted. Everything is judged by the engines' own user lists and logins.
 */
export async function liveBroken(
  vendors: () => TestVendors,
  {
    provider,
    breakage,
    days,
    run,
    strategies = breakage.strategies(provider),
  }: {
    readonly provider: ProviderId;
    readonly breakage: Breakage;
    readonly days: number;
    /** Sets this run's targets and prefixes apart from those of the runs before. */
    readonly run: number;
    readonly strategies?: readonly Strategy[];
  },
): Promise<readonly Outcome[]> {
  const problems: string[] = [];
  const now = (): number => vendors().clock.now().getTime();
  const say = (text: string): void => void problems.push(`${new Date(now()).toISOString()} ${text}`);
  const at = targetOf(provider, run, 1);
  const elsewhere = targetOf(provider, run, 2);
  await prepare(vendors(), provider, at);
  await prepare(vendors(), provider, elsewhere);

  const declared: readonly Declared[] = [
    ...strategies.map(
      (strategy, index): Declared => ({
        name: `broken-${index}`,
        prefix: `b${run}x${index}`,
        strategy,
        target: at,
        kind: 'broken',
      }),
    ),
    ...(breakage.hitsTarget
      ? []
      : [
          {
            name: 'beside',
            prefix: `h${run}`,
            strategy: 'replace-user',
            target: at,
            kind: 'beside',
          } as const,
        ]),
    { name: 'elsewhere', prefix: `e${run}`, strategy: 'replace-user', target: elsewhere, kind: 'elsewhere' },
  ];
  const broken = declared.filter(({ kind }) => kind === 'broken');
  const healthy = declared.filter(({ kind }) => kind !== 'broken');
  const brokenSecrets = new Set<string>();
  const scene: Scene = {
    provider,
    target: at,
    targetId: Object.values(at)[0] ?? '',
    vendors: vendors(),
    brokenUsers: new RegExp(`^b${run}x\\d_`),
    between: {},
    brokenSecrets,
  };

  const inFlight = new Map<string, number>();
  const atRest = new Map<string, number>();
  const usersOf = async ({ target, prefix }: Declared): Promise<readonly string[]> =>
    ((await vendors().byProvider[provider]?.usernames(target)) ?? []).filter((username) =>
      username.startsWith(`${prefix}_`),
    );
  // Render deletes no default user, which the last failed rotation has made its own. Once the next one succeeds, that user has the same
  // grace as the previous one: no label shows whether it was ever published.
  const leftAsDefault = provider === 'render-postgres' ? 1 : 0;
  /** Counts who is there, and says what is too much. */
  const count = async (limits: 'inFlight' | 'atRest'): Promise<void> => {
    for (const one of broken) {
      const most = limits === 'inFlight' ? inFlight : atRest;
      const { length } = await usersOf(one);
      most.set(one.name, Math.max(most.get(one.name) ?? 0, length));
      const limit = bounds[one.strategy][limits] + (breakage.held ?? 0) + leftAsDefault;
      if (length > limit) say(`${one.strategy} has ${length} live users ${limits}, of at most ${limit}`);
    }
  };
  const watched = (): TestVendors => ({
    ...vendors(),
    ports: (until, replaced) =>
      interpose(vendors().ports(until, replaced), async (name, request, call) => {
        const instead = scene.between.answer?.(name, request);
        if (instead !== undefined) return instead;
        const answer = await call();
        if (name === 'http' && (request as HttpRequest).method !== 'GET') {
          await scene.between.afterWrite?.();
          // At any time, also in the middle of a step.
          if (/user|credential/.test((request as HttpRequest).url.pathname)) await count('inFlight');
        }
        return answer;
      }),
  });
  const rekey = await startTestRekey(watched);
  try {
    for (const one of declared) {
      await rekey.request({
        ...specs[provider],
        name: one.name,
        usernamePrefix: one.prefix,
        strategy: one.strategy,
        target: one.target,
        rotation: {
          every: `P${everyDays[one.kind]}D`,
          ...(one.kind === 'broken'
            ? {}
            : { window: { start: `0${window.from}:00`, length: `PT${window.until - window.from}H` } }),
        },
        ...(one.kind === 'broken' ? await breakage.spec?.(scene) : {}),
      });
      await rekey.secretsManager.idle();
      const { ARN } = await rekey.describe(one.name);
      if (one.kind === 'broken') brokenSecrets.add(ARN);
    }
    expect(rekey.failures).toEqual([]);

    const ended: string[] = [];
    const defects: unknown[] = [];
    const attempt = async (pass: () => Promise<unknown>): Promise<void> => {
      await pass().catch((error: unknown) => {
        if (error instanceof TypeError || error instanceof RangeError) defects.push(error);
        else ended.push(error instanceof Error ? error.message : String(error));
      });
      await rekey.secretsManager.idle();
    };
    const current = new Map<string, string>();
    /** Logins that were current, until when each must still be taken. */
    const inGrace: { readonly login: Login; readonly until: number; readonly about: string }[] = [];
    const lastLogin = new Map<string, Login>();
    /** What EventBridge would do: the consumers of whoever was rotated are told. */
    const tellConsumers = async (): Promise<void> => {
      for (const { name } of broken) {
        const { AWSCURRENT = '' } = await rekey.labels(name);
        if (current.get(name) !== AWSCURRENT) await attempt(() => rekey.update(name));
        current.set(name, AWSCURRENT);
      }
    };
    const openAt = new Map<string, number>();
    const isOpenAt = async ({ name }: Declared): Promise<boolean> => {
      const { AWSPENDING, AWSCURRENT } = await rekey.labels(name);
      return AWSPENDING !== undefined && AWSPENDING !== AWSCURRENT;
    };
    let reconciledAt = 0;
    let openFor = 0;
    /** Answers how long nothing will be to do. */
    const allPasses = async (): Promise<number> => {
      const passedAt = now();
      rekey.secretsManager.tick();
      let report: StartReport | undefined;
      await attempt(async () => {
        report = await rekey.start();
      });
      await tellConsumers();
      const open = await Promise.all(broken.map(isOpenAt));
      // Every hour there; here, where it finds something else than before.
      if ((open.includes(true) && openFor < 5) || now() - reconciledAt > 0.7 * dayMs) {
        await attempt(() => rekey.reconcile());
        await attempt(() => rekey.reconcile(rekey.takeMessages()));
        await tellConsumers();
        reconciledAt = now();
      }
      await attempt(() => rekey.sweep());
      // At rest: no rotation is open, and retirement had its hour.
      for (const one of broken) if (await isOpenAt(one)) openAt.set(one.name, now());
      const isResting = broken.every(({ name }) => now() - (openAt.get(name) ?? 0) > 2 * hourMs);
      await count(isResting ? 'atRest' : 'inFlight');
      for (const { login, until, about } of inGrace)
        if (now() < until && !(await isAccepted(vendors(), login)))
          say(`${about} locked out those who still use ${login.username}, within its grace`);
      for (const one of declared) {
        const login = await rekey.login(one.name, 'AWSCURRENT');
        const previous = lastLogin.get(one.name);
        if (
          previous !== undefined &&
          !login?.password.equals(previous.password) &&
          one.strategy !== 'reset-password'
        )
          inGrace.push({
            login: previous,
            until: passedAt + graceMs,
            about: `${one.name} (${one.strategy})`,
          });
        if (login !== undefined) lastLogin.set(one.name, login);
        const works =
          login !== undefined &&
          (await (one.kind === 'broken' ? isAccepted(vendors(), login) : vendors().logsIn(login)));
        if (!works) say(`${one.name} (${one.strategy}) is locked out as ${login?.username}`);
      }
      const { started = [], held = [] } = report ?? {};
      const isBusy =
        started.length > 0 || held.some(({ reason }) => reason === 'SPACING' || reason === 'TARGET_BUSY');
      // Long enough for a rotation to count as over, then for reconcile to look, to try, and to give it up.
      if (isBusy) return 31 * 60_000;
      openFor = open.includes(true) ? openFor + 1 : 0;
      // What could not be given up by then waits for the end of the fault.
      if (openFor > 0 && openFor < 5) return 3.1 * hourMs;
      const untils = held.flatMap(({ until }) =>
        until === undefined ? [] : [until.getTime() - now() + 60_000],
      );
      return Math.max(31 * 60_000, Math.min(12 * hourMs, ...untils));
    };
    const liveUntil = async (end: number): Promise<void> => {
      let forgottenAt = now();
      while (now() < end) {
        const stepMs = await allPasses();
        if (now() - forgottenAt > dayMs) {
          vendors().forget();
          forgottenAt = now();
        }
        vendors().clock.move(Math.min(stepMs, Math.max(60_000, end - now())));
      }
    };
    const eventsOf = (type: string, name: string) =>
      rekey
        .published()
        .filter((event) => event['detail-type'] === type && event.detail['credential'] === name);

    // A day of peace, so that all are at rest.
    await liveUntil(now() + 2 * dayMs);
    expect(problems, 'before the fault').toEqual([]);
    const kept = (await parameterNames(rekey)).filter((name) => !name.includes('/users/'));
    for (const most of [inFlight, atRest]) most.clear();
    const brokenSince = now();
    const before = new Map(broken.map(({ name }) => [name, eventsOf('CredentialRotated', name).length]));
    await breakage.start(scene);
    await liveUntil(brokenSince + days * dayMs);

    const outcomes = broken.map(({ name, strategy }): Outcome => {
      const failed = eventsOf('CredentialRotationFailed', name).length;
      const findings = eventsOf('DriftFound', name).length;
      if (!breakage.rotates && failed === 0 && !breakage.hitsTarget)
        say(`nobody was told that rotations of ${strategy} fail`);
      if (!breakage.rotates && eventsOf('CredentialRotated', name).length !== before.get(name))
        say(`${strategy} was rotated although it is broken`);
      return {
        strategy,
        maxInFlight: inFlight.get(name) ?? 0,
        maxAtRest: atRest.get(name) ?? 0,
        rotationsFailed: failed,
        findings,
      };
    });
    for (const { name, kind } of healthy) {
      const rotated = eventsOf('CredentialRotated', name).map(({ time }) => new Date(time).getTime());
      const all = [...rotated, now()];
      for (const [index, time] of all.entries()) {
        const last = all[index - 1];
        if (last === undefined) continue;
        if (time - last > everyDays[kind] * dayMs)
          say(
            `${name} went ${((time - last) / dayMs).toFixed(1)} days without rotation, of ${everyDays[kind]}`,
          );
        const hour = new Date(time).getUTCHours();
        if (index < rotated.length && !(hour >= window.from && hour < window.until))
          say(`${name} was rotated outside its window, at ${new Date(time).toISOString()}`);
      }
    }

    await breakage.lift(scene);
    const lifted = now();
    const rotatedBefore = new Map(
      broken.map(({ name }) => [name, eventsOf('CredentialRotated', name).length]),
    );
    // Of a consumer, what was found is forgotten with the next login that it is told.
    await liveUntil(lifted + (breakage.rotates ? everyDays.broken + 2 : 3) * dayMs);
    for (const one of broken) {
      const rotated = eventsOf('CredentialRotated', one.name).slice(rotatedBefore.get(one.name));
      const first = rotated[0] === undefined ? Number.NaN : new Date(rotated[0].time).getTime();
      // The last failure has changed the secret of a pair, so another grace begins.
      const graceLeftMs = one.strategy === 'alternate-users' ? graceMs : 0;
      if (!breakage.rotates && !(first - lifted <= 26 * hourMs + graceLeftMs))
        say(
          `${one.strategy} was rotated ${((first - lifted) / hourMs).toFixed(1)} hours after the fault was lifted`,
        );
      if (!breakage.rotates && rotated.length !== 1)
        say(`${one.strategy} was rotated ${rotated.length} times after the fault was lifted`);
      const users = await usersOf(one);
      const login = await rekey.login(one.name, 'AWSCURRENT');
      if (login === undefined || !(await vendors().logsIn(login)))
        say(`${one.strategy} does not work after the fault was lifted`);
      const wanted = one.strategy === 'replace-user' && !breakage.rotates ? 1 : bounds[one.strategy].atRest;
      if (users.length > wanted) say(`${one.strategy} has ${users.length} users left, of ${wanted}`);
    }
    const left = (await parameterNames(rekey)).filter((name) => !name.includes('/users/'));
    const surplus = left.filter((name) => !kept.includes(name));
    if (surplus.length > 0) say(`parameters are left over: ${surplus.join(', ')}`);
    expect(defects).toEqual([]);
    expect([...new Set(problems)].slice(0, 20)).toEqual([]);
    return outcomes;
  } finally {
    await breakage.lift(scene);
    await rekey.stop();
    await clear(vendors(), provider, [at, elsewhere], run);
  }
}

// Vendors.

const specs = {
  'render-postgres': { provider: 'render-postgres', apiKeySecret: 'rekey/api-keys/render' },
  'cockroachdb-cloud': {
    provider: 'cockroachdb-cloud',
    apiKeySecret: 'rekey/api-keys/cockroachdb',
    privileges: { roles: ['orders_rw'] },
  },
  'vultr-valkey': {
    provider: 'vultr-valkey',
    apiKeySecret: 'rekey/api-keys/vultr',
    privileges: { categories: ['+@read'], keys: ['orders:*'] },
  },
  'zilliz-cloud': {
    provider: 'zilliz-cloud',
    apiKeySecret: 'rekey/api-keys/zilliz',
    privileges: { roles: ['orders_rw'] },
  },
} as const satisfies Readonly<Record<ProviderId, object>>;

function targetOf(provider: ProviderId, run: number, index: number): Target {
  const hex = createHash('sha256').update(`${provider} ${run} ${index}`).digest('hex');
  const uuid = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
  switch (provider) {
    case 'render-postgres':
      return { postgresId: `dpg-${hex.slice(0, 20)}-a` };
    case 'cockroachdb-cloud':
      return { clusterId: uuid };
    case 'vultr-valkey':
      return { databaseId: uuid };
    case 'zilliz-cloud':
      return { clusterId: `in01-${hex.slice(0, 15)}` };
    default:
      return provider satisfies never;
  }
}

async function prepare(vendors: TestVendors, provider: ProviderId, target: Target): Promise<void> {
  const { cockroachdb, render } = vendors;
  // All clusters of the emulator share one engine, and with it the table.
  if (provider === 'cockroachdb-cloud' && cockroachdb.api.clusters.size > 0)
    await cockroachdb.api.addCluster({ name: 'orders', id: target['clusterId'] ?? '', humanUsers: [] });
  // And all databases, in which the name of the owner comes from that of the database.
  else if (provider === 'render-postgres') {
    const { postgresId: id = '' } = target;
    await addRenderOrders(render.api, render.postgres, { id, name: `orders_${id.slice(4, 12)}` });
  } else await vendors.byProvider[provider]?.prepare(target, ['orders_rw']);
}

/** The engines are those of the next run, too. */
async function clear(
  { byProvider, cockroachdb, vultr }: TestVendors,
  provider: ProviderId,
  targets: readonly Target[],
  run: number,
): Promise<void> {
  for (const target of targets)
    for (const username of (await byProvider[provider]?.usernames(target)) ?? []) {
      if (!new RegExp(`^[bhe]${run}(x\\d)?_`).test(username)) continue;
      if (provider === 'cockroachdb-cloud')
        await cockroachdb.api.actor.deleteUser(target['clusterId'] ?? '', username);
      if (provider === 'vultr-valkey') await vultr.api.actor.deleteUser(username);
    }
}

/** Whether the login is taken, whatever it may do. */
async function isAccepted({ vultr, zilliz, clock }: TestVendors, login: Login): Promise<boolean> {
  const session = { ...login, timeoutMs: 10_000, guard: 'reads-only' } as const;
  if (login.port === vultr.front.port)
    return (await iovalkeyOverTls(clock.now)({ ...session, commands: [] })).say === 'accepted';
  const cluster = [...zilliz.api.clusters.values()].find(({ host }) => host === login.host);
  if (cluster !== undefined) return cluster.authenticates(login.username, login.password.reveal());
  return (await pgSql(clock.now)({ ...session, statements: [] })).say === 'accepted';
}

async function parameterNames({
  parameters,
}: Awaited<ReturnType<typeof startTestRekey>>): Promise<readonly string[]> {
  const names: string[] = [];
  let NextToken: string | undefined;
  do {
    const page = (await parameters.call('GetParametersByPath', {
      Path: '/rekey/',
      Recursive: true,
      ...(NextToken === undefined ? {} : { NextToken }),
    })) as { Parameters: readonly { Name: string }[]; NextToken?: string };
    names.push(...page.Parameters.map(({ Name }) => Name));
    NextToken = page.NextToken;
  } while (NextToken !== undefined);
  return names;
}

// Breakages.

const all = (provider: ProviderId): readonly Strategy[] => vendorsWithStrategies[provider];
const forEver = Number.POSITIVE_INFINITY;
const onlyReports = 'reports_rw';

/** What the spec asks for is not there any more; Vultr, which has no roles, refuses the declared access control. */
const roleGone: Breakage = {
  title: 'its role does not exist any more',
  // An access control that is right already is not set again: there, a new user alone is refused.
  strategies: (provider) =>
    provider === 'render-postgres' ? [] : provider === 'vultr-valkey' ? ['replace-user'] : all(provider),
  async spec({ provider, target, vendors }) {
    if (provider === 'vultr-valkey') return {};
    await vendors.byProvider[provider]?.prepare(target, ['orders_rw', onlyReports]);
    return { privileges: { roles: ['orders_rw', onlyReports] } };
  },
  async start({ provider, target, vendors: { cockroachdb, vultr, zilliz }, brokenUsers }) {
    if (provider === 'cockroachdb-cloud') {
      await cockroachdb.postgres.query(`DROP OWNED BY ${onlyReports}`, [], 'defaultdb');
      await cockroachdb.postgres.query(`DROP ROLE ${onlyReports}`);
    }
    if (provider === 'zilliz-cloud') zilliz.api.actor.dropRole(target['clusterId'] ?? '', onlyReports);
    if (provider === 'vultr-valkey')
      vultr.api.faults.inject({
        operation: 'setAccessControl',
        username: brokenUsers,
        kind: 'status',
        status: 422,
        json: { error: 'Invalid ACL', status: 422 },
        times: forEver,
      });
  },
  async lift({ provider, target, vendors, brokenUsers }) {
    vendors.vultr.api.faults.clear();
    if (provider !== 'vultr-valkey')
      await vendors.byProvider[provider]?.prepare(target, ['orders_rw', onlyReports]);
    if (provider !== 'cockroachdb-cloud') return;
    // Nobody but a person with an administrator's login can, as the finding says.
    for (const username of (await vendors.byProvider[provider]?.usernames(target)) ?? [])
      if (brokenUsers.test(username))
        await vendors.cockroachdb.postgres.query(`GRANT ${onlyReports} TO "${username}"`);
  },
};

const creationRefused: Breakage = {
  title: 'the vendor refuses its new users and passwords',
  strategies: all,
  start({ vendors, brokenUsers: username }) {
    const refusal = {
      username,
      kind: 'status',
      status: 403,
      json: { code: 7, message: 'forbidden', error: 'forbidden', status: 403 },
      times: forEver,
    } as const;
    vendors.render.api.faults.inject({ ...refusal, operation: 'createUser' });
    for (const operation of ['createUser', 'setPassword'] as const) {
      vendors.cockroachdb.api.faults.inject({ ...refusal, operation });
      vendors.vultr.api.faults.inject({ ...refusal, operation });
      vendors.zilliz.api.faults.inject({ ...refusal, operation });
    }
  },
  lift: ({ vendors }) => clearFaults(vendors),
};

const listFails: Breakage = {
  title: 'the users of its target cannot be listed',
  // To change the password of the one user nothing has to be listed.
  strategies: (provider) => all(provider).filter((strategy) => strategy !== 'reset-password'),
  hitsTarget: true,
  start({ between, targetId }) {
    between.answer = (name, request) => {
      if (name !== 'http') return undefined;
      const { url, method } = request as HttpRequest;
      const isList = method === 'GET' ? /(users|credentials)$/ : /users\/list$/;
      return url.href.includes(targetId) && isList.test(url.pathname)
        ? Promise.resolve({ status: 500, headers: {}, body: new Sensitive('') })
        : undefined;
    };
  },
  lift: ({ between }) => void delete between.answer,
};

const loginRefused: Breakage = {
  title: 'its new logins are refused',
  // The one user of reset-password would be locked out by the vendor itself.
  strategies: (provider) => all(provider).filter((strategy) => strategy !== 'reset-password'),
  async start(scene) {
    const { provider, target, vendors, brokenUsers, between } = scene;
    const usersNow = async (): Promise<readonly string[]> =>
      ((await vendors.byProvider[provider]?.usernames(target)) ?? []).filter((name) =>
        brokenUsers.test(name),
      );
    const old = await usersNow();
    between.afterWrite = async () => {
      const password = 'somebody-else-2Knows';
      for (const username of (await usersNow()).filter((name) => !old.includes(name))) {
        const { clusterId = '' } = target;
        if (provider === 'render-postgres')
          await vendors.render.postgres.query(`ALTER ROLE "${username}" PASSWORD '${password}'`);
        if (provider === 'cockroachdb-cloud')
          await vendors.cockroachdb.api.actor.setPassword(clusterId, username, password);
        if (provider === 'vultr-valkey')
          await vendors.vultr.engine.call('ACL', 'SETUSER', username, 'resetpass', `>${password}`);
        if (provider === 'zilliz-cloud') vendors.zilliz.api.actor.setPassword(clusterId, username, password);
      }
    };
  },
  lift: ({ between }) => void delete between.afterWrite,
};

/** Rotations go on until too many users are held. */
const consumerSilent: Breakage = {
  title: "its consumer's platform answers 500",
  strategies: all,
  rotates: true,
  held: 5,
  spec({ vendors, targetId }) {
    const service = vendors.render.api.addService({ name: `orders-${targetId}` });
    return {
      consumers: [
        {
          kind: 'render-service',
          serviceId: service.id,
          environmentVariable: 'DATABASE_URL',
          apiKeySecret: 'rekey/api-keys/render',
        },
      ],
    };
  },
  start({ vendors }) {
    for (const operation of [
      'readVariable',
      'setVariable',
      'listDeploys',
      'startDeploy',
      'getDeploy',
    ] as const)
      vendors.render.api.faults.inject({ operation, kind: 'status', status: 500, times: forEver });
  },
  lift: ({ vendors }) => clearFaults(vendors),
};

const storeRefuses: Breakage = {
  title: 'Secrets Manager refuses its PutSecretValue',
  strategies: all,
  start({ between, brokenSecrets }) {
    between.answer = (name, request) =>
      name === 'writeSecret' && brokenSecrets.has((request as { secretId: string }).secretId)
        ? Promise.reject(new StoreError('STORE_DENIED', 'none', 'PutSecretValue is denied'))
        : undefined;
  },
  lift: ({ between }) => void delete between.answer,
};

function clearFaults({ render, cockroachdb, vultr, zilliz }: TestVendors): void {
  for (const { api } of [render, cockroachdb, vultr, zilliz]) api.faults.clear();
}

export const breakages = { roleGone, creationRefused, listFails, loginRefused, consumerSilent, storeRefuses };
