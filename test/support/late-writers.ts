import { StoreError } from '../../functions/core/errors.ts';
import { parseRotationEvent } from '../../functions/core/events.ts';
import { Guard } from '../../functions/core/guard.ts';
import { interpose, type Ports } from '../../functions/core/ports.ts';
import type { Login } from '../../functions/core/provider.ts';
import { createUser } from '../../functions/lifecycle/create-user.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import { reconcileUsers } from '../../functions/lifecycle/reconcile-users.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { rotateSecret } from '../../functions/lifecycle/rotate-secret.ts';
import { isExpected } from '../../functions/lifecycle/stuck-rotation.ts';
import { updateConsumers } from '../../functions/lifecycle/update-consumers.ts';
import { AwsError } from '../../infra/local/aws/aws-error.ts';
import {
  addCockroachdbOrders,
  addRenderOrders,
  addVultrOrders,
} from '../../infra/local/providers/fixtures.ts';
import type { RenderService } from '../../infra/local/providers/render-services.ts';
import { takeAndCarryOut } from './orders.ts';
import { functionArn, outward, startTestRekey, token, webhookBaseUrl } from './rekey.ts';
import type { TestVendors } from './vendors.ts';

/**
 * Late writers: an invocation gets the answer of one of its calls an hour late, the world goes on meanwhile, then the invocation
 * goes on with what it knew. No invariant may break by that. A request that is late below the seam which guards writes cannot be
 * told from one that left in time, so answers are what comes late here: the facts of each write are old when it is to leave.
 */
export type LateWriters = Awaited<ReturnType<typeof startLateWriters>>;

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
/** A grace of a day, what is added to it, and some time. */
const graceOverMs = 26 * hourMs;
/** No deadline is what stops a late writer. */
const patienceMs = 30 * 24 * hourMs;
/** More than any invocation needs: one that waits for what will not come any more, as its deadline is far, ends like that. */
const maxCalls = 1_000;

const postgresId = 'dpg-d1abc2d3e4f5g6h7i8j9-a';
const clusterId = '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10';
const databaseId = '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21';
const vectorsId = 'in01-108240180a4faf8';

type Strategy = 'replace-user' | 'alternate-users' | 'reset-password';
export interface Scenario {
  readonly provider: string;
  readonly target: Readonly<Record<string, string>>;
  readonly strategy: Strategy;
  readonly [field: string]: unknown;
}

const ofProvider = {
  'render-postgres': { target: { postgresId }, apiKeySecret: 'rekey/api-keys/render' },
  'cockroachdb-cloud': {
    target: { clusterId },
    apiKeySecret: 'rekey/api-keys/cockroachdb',
    privileges: { roles: ['orders_rw'] },
    // Without it the deletion of a user whose password no label names any more waits for a person.
    adminSecret: 'rekey/admin/cockroachdb',
  },
  'vultr-valkey': {
    target: { databaseId },
    apiKeySecret: 'rekey/api-keys/vultr',
    privileges: { categories: ['+@read'], keys: ['orders:*'], commands: ['+client|list', '+client|kill'] },
  },
  'zilliz-cloud': {
    target: { clusterId: vectorsId },
    apiKeySecret: 'rekey/api-keys/zilliz',
    privileges: { roles: ['orders_rw'] },
  },
} as const;
type ProviderId = keyof typeof ofProvider;

/** Half an hour: the next rotation is not refused after an hour, and the previous login is held to work through it. */
const alternatingGrace = { grace: 'PT30M' };

const scenarioOf = (provider: ProviderId, strategy: Strategy): readonly [string, Scenario] => [
  `${provider}, ${strategy}`,
  {
    provider,
    strategy,
    ...ofProvider[provider],
    rotation: { every: 'P365D' },
    ...(strategy === 'alternate-users' ? alternatingGrace : {}),
  },
];

/** Each provider with each strategy that it has. */
export const scenarios: ReadonlyMap<string, Scenario> = new Map([
  scenarioOf('render-postgres', 'replace-user'),
  ...(['cockroachdb-cloud', 'vultr-valkey', 'zilliz-cloud'] as const).flatMap((provider) =>
    (['replace-user', 'alternate-users', 'reset-password'] as const).map((strategy) =>
      scenarioOf(provider, strategy),
    ),
  ),
]);

/** What a test plays with. */
export interface Made {
  readonly name: string;
  readonly prefix: string;
  readonly scenario: Scenario;
  readonly service: RenderService | undefined;
}

type Use<Answer> = (rekey: Rekey, until: Date) => Promise<Answer>;
type Invoke = <Answer>(use: Use<Answer>) => Promise<Answer>;

/** One invocation, or several that follow each other, of one use case. */
export interface Subject {
  readonly consumers?: true;
  readonly replicas?: true;
  /** Brings the credential to where the use case has something to write. Answers the use case. */
  prepare(one: Made): Promise<(invoke: Invoke) => Promise<void>>;
}

export const worlds = ['rotation', 'retirement', 'compromise', 'rollback', 'deletion', 'twin'] as const;
/**
 * What happens meanwhile: a rotation; two rotations, with every user of before retired; an order to revoke, carried out; AWSCURRENT
 * moved back by hand; an order to delete, carried out; another run of the same function. `rotation beside` takes no time.
 */
export type World = (typeof worlds)[number] | 'rotation beside' | 'nothing';

export interface Call {
  readonly name: keyof Ports;
  /** `question`: what a guard asks right before its write. */
  readonly kind: 'read' | 'question' | 'write';
}

export interface Case {
  readonly subject: SubjectName;
  readonly scenario: string;
  readonly world: World;
  /** The n-th call out of the subject is answered late. */
  readonly call: number;
  /** @default an hour */
  readonly lateMs?: number;
  /** The call is carried out, and its answer is an error; the invocation that fails by it is run again. */
  readonly fails?: true;
}

export const subjectNames = [
  'rotate-secret',
  'start-rotations',
  'delete-user, retiring',
  'delete-user, after a compromise',
  'delete-user, deleting a credential',
  'reconcile-users, rolling forward',
  'reconcile-users, giving up',
  'reconcile-users, mending rights',
  'reconcile-users, restoring AWSPREVIOUS',
  'reconcile-users, setting the only password again',
  'reconcile-users, bringing a consumer on',
  'update-consumers',
  'create-user',
] as const;
export type SubjectName = (typeof subjectNames)[number];

const isReplacing = ({ strategy }: Scenario): boolean => strategy === 'replace-user';
/** The scenarios that have the use case, where not all do. */
const only: Readonly<Partial<Record<SubjectName, (scenario: Scenario) => boolean>>> = {
  'delete-user, retiring': isReplacing,
  'reconcile-users, mending rights': ({ provider }) => provider !== 'render-postgres',
  // Zilliz Cloud changes no password without the one before.
  'reconcile-users, setting the only password again': ({ strategy, provider }) =>
    strategy === 'reset-password' && provider !== 'zilliz-cloud',
  'reconcile-users, bringing a consumer on': isReplacing,
  'update-consumers': isReplacing,
};
export const has = (subject: SubjectName, title: string): boolean => {
  const scenario = scenarios.get(title);
  return scenario !== undefined && (only[subject]?.(scenario) ?? true);
};

/** The calls before, at and within each write: what the write is decided on is old then, or its own answer is. */
export function dangerous(calls: readonly Call[]): readonly number[] {
  const picked = new Set<number>();
  for (const [index, { kind }] of calls.entries()) {
    if (kind !== 'write') continue;
    picked.add(Math.max(1, index)).add(index + 1);
    for (let next = index + 1; calls[next]?.kind === 'question'; next += 1)
      if (calls[next + 1]?.kind !== 'question') picked.add(next + 1);
  }
  return [...picked].toSorted((a, b) => a - b);
}

/** All vendors with one target each, and rekey between them. */
export async function startLateWriters(vendors: () => TestVendors) {
  const { render, cockroachdb, vultr, zilliz } = vendors();
  await addRenderOrders(render.api, render.postgres, { id: postgresId });
  await addCockroachdbOrders(cockroachdb.api, cockroachdb.postgres, { id: clusterId });
  await addVultrOrders(vultr.api, vultr.engine, { id: databaseId });
  zilliz.api.addCluster({ id: vectorsId, name: 'orders', roles: ['orders_rw'] });
  const rekey = await startTestRekey(vendors, { retryDelaysMs: [1_000, minuteMs] });
  const move = (ms: number): void => vendors().clock.move(ms);
  const now = (): Date => vendors().clock.now();
  const secrets = (operation: string, input: object) => rekey.secretsManager.call(operation, input);
  const parameters = (operation: string, input: object) => rekey.parameters.call(operation, input);
  const idOf = ({ name }: Made): string => `rekey/${name}`;
  const adminPassword = 'Root-password_00000000000000001';
  await cockroachdb.postgres.query(`ALTER ROLE root PASSWORD '${adminPassword}'`);
  await secrets('CreateSecret', {
    Name: 'rekey/admin/cockroachdb',
    SecretString: JSON.stringify({ username: 'root', password: adminPassword }),
    ClientRequestToken: token(),
  });

  // What is so, asked past rekey.

  async function usersAt({ scenario: { provider, target }, prefix }: Made): Promise<readonly string[]> {
    const names = (await vendors().byProvider[provider]?.usernames(target)) ?? [];
    return names.filter((username) => username.startsWith(`${prefix}_`)).toSorted();
  }
  const parameter = (kind: string, { name }: Made): Promise<string | undefined> =>
    rekey.parameter(`/rekey/${kind.replace('<name>', name)}`);
  const hasSpec = async (one: Made): Promise<boolean> =>
    (await parameter('credentials/<name>', one)) !== undefined;
  const isEnding = async (one: Made): Promise<boolean> =>
    (await parameter('directives/<name>/deleteSince', one)) !== undefined ||
    (await parameter('directives/<name>/deletedAt', one)) !== undefined;
  const logsIn = async (login: Login | undefined): Promise<boolean> =>
    login !== undefined && (await vendors().logsIn(login));
  const labelsOf = (one: Made): Promise<Readonly<Record<string, string>>> =>
    rekey.labels(one.name).catch(() => ({}));
  /** Each version that became AWSCURRENT, in that order. */
  const publications = ({ name }: Made): readonly string[] =>
    rekey.bus
      .history('default')
      .filter(
        ({ 'detail-type': type, detail }) =>
          type === 'Secret Label Updated' &&
          detail['labelUpdated'] === 'AWSCURRENT' &&
          detail['name'] === `rekey/${name}`,
      )
      .map(({ detail }) => String(detail['versionId']));
  async function versionsOf(one: Made): Promise<readonly string[]> {
    const answer = (await secrets('ListSecretVersionIds', {
      SecretId: idOf(one),
      IncludeDeprecated: true,
    }).catch(() => ({}))) as { Versions?: readonly { VersionId: string }[] };
    return (answer.Versions ?? []).map(({ VersionId }) => VersionId);
  }
  async function storedLogins(one: Made): Promise<readonly Login[]> {
    const found = await Promise.all(
      ['AWSCURRENT', 'AWSPREVIOUS', 'AWSPENDING'].map((label) => rekey.login(one.name, label)),
    );
    return found.filter((login) => login !== undefined);
  }
  /** The login that the next deploy of the consumer would start with. */
  const variableOf = ({ service }: Made): string | undefined => service?.variables()['DATABASE_URL'];
  const carries = (value = '', login: Login | undefined): boolean =>
    login !== undefined && value.includes(login.username) && value.includes(login.password.reveal());

  // What people and other functions do.

  let credentials = 0;
  const specOf = ({ name, prefix, scenario, service }: Made) => ({
    ...scenario,
    name,
    usernamePrefix: prefix,
    ...(service === undefined
      ? {}
      : {
          consumers: [
            {
              kind: 'render-service',
              serviceId: service.id,
              environmentVariable: 'DATABASE_URL',
              // The URL of Zilliz Cloud names nobody.
              field: scenario.provider === 'zilliz-cloud' ? 'token' : 'url',
              apiKeySecret: 'rekey/api-keys/render',
            },
          ],
        }),
  });
  function name(scenario: Scenario, consumers = false): Made {
    credentials += 1;
    const service = consumers
      ? render.api.addService({ name: 'orders-api', variables: { PORT: '8080' } })
      : undefined;
    return { name: `orders-${credentials}`, prefix: `o${credentials}`, scenario, service };
  }
  async function credential(
    scenario: Scenario,
    {
      consumers = false,
      replicas = false,
    }: { consumers?: boolean | undefined; replicas?: boolean | undefined },
  ): Promise<Made> {
    const one = name(scenario, consumers);
    await rekey.request(specOf(one), replicas ? { replicas: [{ region: 'eu-west-1' }] } : {});
    await rekey.secretsManager.idle();
    await tellConsumers(one);
    return one;
  }
  /** Whatever rekey or AWS refuses for a reason is refused to the world as well. */
  async function allowed(act: Promise<unknown>): Promise<void> {
    try {
      await act;
    } catch (error) {
      if (!isExpected(error) && !(error instanceof AwsError)) throw error;
    }
  }
  const tellConsumers = async (one: Made): Promise<void> => {
    if (one.service !== undefined) await allowed(rekey.update(one.name));
  };
  const messageOf = ({ scenario: { provider, target } }: Made) => ({
    is: 'messages' as const,
    messages: [{ id: token(), body: JSON.stringify({ provider, targetId: Object.values(target)[0] }) }],
  });
  const orderOf = <Order extends string>(order: Order, { name: credential }: Made) =>
    ({ is: 'order', order, credential, orderedAt: now() }) as const;

  const steps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'] as const;
  const runStep = async ({ name }: Made, Step: string, version: string, invoke: Invoke): Promise<void> => {
    const { ARN: SecretId } = await rekey.describe(name);
    const event = parseRotationEvent({
      Step,
      SecretId,
      ClientRequestToken: version,
      RotationToken: token(),
    });
    await invoke((inner, until) => rotateSecret(event, until, inner));
  };
  const openVersion = async (one: Made): Promise<string | undefined> => {
    const { AWSPENDING: pending, AWSCURRENT: current } = await labelsOf(one);
    return pending === current ? undefined : pending;
  };
  /** A rotation that Secrets Manager has begun and whose first call died: nothing was done yet. Answers its token. */
  async function open(one: Made): Promise<string> {
    rekey.secretsManager.setVariants({ retryDelaysMs: [] });
    rekey.killAt({ call: 1, when: 'before' });
    try {
      return await rekey.rotate(one.name);
    } finally {
      rekey.killAt(undefined);
      rekey.secretsManager.setVariants({ retryDelaysMs: [1_000, minuteMs] });
    }
  }
  async function rotate(one: Made): Promise<void> {
    // Steps that were called late are no rotation of Secrets Manager, so it has no date of theirs: only an order is carried out then.
    const isPair = one.scenario.strategy === 'alternate-users';
    await allowed(isPair ? rekey.order(orderOf('CredentialRotationRequested', one)) : rekey.rotate(one.name));
    await rekey.secretsManager.idle();
    await tellConsumers(one);
  }
  async function finishOpen(one: Made): Promise<void> {
    const version = await openVersion(one);
    if (version === undefined) return;
    await allowed(
      (async () => {
        for (const step of steps) await runStep(one, step, version, rekey.invoke);
      })(),
    );
    await tellConsumers(one);
  }
  /** AWSCURRENT on AWSPREVIOUS's version, by hand. Answers that version. */
  async function rollBack(one: Made): Promise<string | undefined> {
    const { AWSCURRENT: current, AWSPREVIOUS: previous } = await labelsOf(one);
    if (current === undefined || previous === undefined || current === previous) return undefined;
    // Nobody rolls back to the first value, which names nobody.
    if ((await rekey.login(one.name, 'AWSPREVIOUS')) === undefined) return undefined;
    await allowed(
      secrets('UpdateSecretVersionStage', {
        SecretId: idOf(one),
        VersionStage: 'AWSCURRENT',
        MoveToVersionId: previous,
        RemoveFromVersionId: current,
      }),
    );
    await tellConsumers(one);
    return previous;
  }
  async function revoke(one: Made): Promise<void> {
    await allowed(rekey.order(orderOf('CredentialCompromised', one)));
    await rekey.secretsManager.idle();
    await tellConsumers(one);
  }
  async function remove(one: Made): Promise<void> {
    await allowed(rekey.sweep(orderOf('CredentialDeletionRequested', one)));
    for (let pass = 0; pass < 6 && (await hasSpec(one)); pass += 1) {
      move(20 * minuteMs);
      await rekey.sweep();
    }
  }

  const happenings: Readonly<
    Record<World, (one: Made, twin: (invoke: Invoke) => Promise<void>) => Promise<void>>
  > = {
    rotation: async (one) => {
      await finishOpen(one);
      move(one.scenario.strategy === 'replace-user' ? graceOverMs : hourMs);
      await rekey.sweep();
      await rotate(one);
    },
    retirement: async (one) => {
      await happenings.rotation(one, async () => undefined);
      move(graceOverMs);
      await rekey.sweep();
    },
    compromise: async (one) => {
      await revoke(one);
      await rekey.sweep();
      move(20 * minuteMs);
      await revokeWaits(one);
      await rekey.sweep();
    },
    rollback: async (one) => void (await rollBack(one)),
    deletion: remove,
    twin: (_one, twin) => allowed(twin(rekey.invoke)),
    'rotation beside': async (one) => {
      await finishOpen(one);
      await rotate(one);
    },
    nothing: async () => undefined,
  };
  const revokeWaits = async (one: Made): Promise<void> => {
    await rekey.start();
    await rekey.secretsManager.idle();
    await tellConsumers(one);
  };

  // The use cases.

  const inOneGo =
    (use: Use<unknown>): ((invoke: Invoke) => Promise<void>) =>
    async (invoke) =>
      void (await invoke(use));
  const withPrevious = async (one: Made): Promise<void> => {
    move(hourMs);
    await rotate(one);
    move(minuteMs);
  };
  const worker = (one: Made) =>
    inOneGo((inner, until) => reconcileUsers(messageOf(one), { webhookBaseUrl }, until, inner));

  const subjects: Readonly<Record<SubjectName, Subject>> = {
    'rotate-secret': {
      async prepare(one) {
        await withPrevious(one);
        move(hourMs);
        const version = await open(one);
        return async (invoke) => {
          for (const step of steps) await runStep(one, step, version, invoke);
        };
      },
    },
    'start-rotations': {
      async prepare(one) {
        await withPrevious(one);
        move(hourMs);
        const order = orderOf('CredentialRotationRequested', one);
        return inOneGo((inner, until) =>
          takeAndCarryOut(order, { rotationFunctionArn: functionArn }, until, inner),
        );
      },
    },
    'delete-user, retiring': {
      async prepare(one) {
        await withPrevious(one);
        move(graceOverMs);
        return inOneGo((inner, until) => deleteUsers({ is: 'pass', dryRun: false }, until, inner));
      },
    },
    'delete-user, after a compromise': {
      async prepare(one) {
        await withPrevious(one);
        move(hourMs);
        await revoke(one);
        move(minuteMs);
        return inOneGo((inner, until) => deleteUsers({ is: 'rotated', credential: one.name }, until, inner));
      },
    },
    'delete-user, deleting a credential': {
      replicas: true,
      async prepare(one) {
        await withPrevious(one);
        move(hourMs);
        const order = orderOf('CredentialDeletionRequested', one);
        return inOneGo((inner, until) => deleteUsers(order, until, inner));
      },
    },
    'reconcile-users, rolling forward': {
      async prepare(one) {
        await withPrevious(one);
        move(hourMs);
        const version = await open(one);
        const done = one.scenario.strategy === 'reset-password' ? 2 : 1;
        for (const step of steps.slice(0, done)) await runStep(one, step, version, rekey.invoke);
        move(2 * hourMs);
        return worker(one);
      },
    },
    'reconcile-users, giving up': {
      async prepare(one) {
        await withPrevious(one);
        move(hourMs);
        await open(one);
        move(2 * hourMs);
        return worker(one);
      },
    },
    'reconcile-users, mending rights': {
      async prepare(one) {
        await withPrevious(one);
        const { provider, target } = one.scenario;
        const current = await rekey.login(one.name, 'AWSCURRENT');
        await vendors().byProvider[provider]?.meddle(target, current?.username ?? '');
        return worker(one);
      },
    },
    'reconcile-users, restoring AWSPREVIOUS': {
      async prepare(one) {
        await withPrevious(one);
        const { AWSPREVIOUS } = await labelsOf(one);
        await secrets('UpdateSecretVersionStage', {
          SecretId: idOf(one),
          VersionStage: 'AWSPREVIOUS',
          RemoveFromVersionId: AWSPREVIOUS,
        });
        return worker(one);
      },
    },
    'reconcile-users, setting the only password again': {
      async prepare(one) {
        await withPrevious(one);
        move(hourMs);
        const current = await rekey.login(one.name, 'AWSCURRENT');
        const { SecretString } = (await secrets('GetSecretValue', { SecretId: idOf(one) })) as {
          SecretString: string;
        };
        // A pending login that never worked, and a password that somebody else has set.
        await secrets('PutSecretValue', {
          SecretId: idOf(one),
          ClientRequestToken: token(),
          SecretString: SecretString.replace(/"host":"[^"]+"/, '"host":"elsewhere.example"'),
          VersionStages: ['AWSPENDING'],
        });
        await setPassword(one, current?.username ?? '');
        move(7 * hourMs);
        return worker(one);
      },
    },
    'reconcile-users, bringing a consumer on': {
      consumers: true,
      async prepare(one) {
        move(graceOverMs);
        await rekey.sweep();
        await allowed(rekey.rotate(one.name));
        move(hourMs);
        return worker(one);
      },
    },
    'update-consumers': {
      consumers: true,
      async prepare(one) {
        move(graceOverMs);
        await rekey.sweep();
        await allowed(rekey.rotate(one.name));
        const { AWSCURRENT: versionId = '' } = await labelsOf(one);
        const event = { is: 'label-moved', secretName: idOf(one), label: 'AWSCURRENT', versionId } as const;
        return inOneGo((inner, until) => updateConsumers(event, until, inner));
      },
    },
    'create-user': {
      async prepare(one) {
        const request = { spec: specOf(one), requestedAt: now() };
        return inOneGo((inner, until) =>
          createUser(request, { rotationFunctionArn: functionArn }, until, inner),
        );
      },
    },
  };
  /** A password that nobody has stored. */
  async function setPassword({ scenario: { provider } }: Made, username: string): Promise<void> {
    const password = 'Foreign-0123456789';
    if (provider === 'cockroachdb-cloud')
      await vendors().cockroachdb.api.actor.setPassword(clusterId, username, password);
    else await vendors().vultr.api.actor.setPassword(username, password);
  }

  // One case.

  /**
   * The subject's way to invoke: counts the calls out, lets `happen` while the answer of one of them is under way, and calls `look`
   * after each write at a vendor that follows.
   */
  function latecomer(
    late?: number,
    happen: () => Promise<void> = async () => undefined,
    { fails = false, look }: { fails?: boolean | undefined; look?: () => Promise<void> } = {},
  ) {
    const calls: Call[] = [];
    let writing = 0;
    const invoke: Invoke = (use) =>
      rekey.invoke((inner, until) => {
        const ports = interpose(inner.ports, async (name, request, call) => {
          if (!outward.has(name)) return call();
          const isWrite = hasGuard(request);
          calls.push({ name, kind: isWrite ? 'write' : writing > 0 ? 'question' : 'read' });
          const number = calls.length;
          if (number > maxCalls)
            throw new StoreError('STORE_UNAVAILABLE', 'none', `ended after ${maxCalls} calls`);
          writing += isWrite ? 1 : 0;
          try {
            const answer = await call();
            if (number === late && fails) throw carriedOut(name);
            return answer;
          } finally {
            writing -= isWrite ? 1 : 0;
            if (number === late) await happen();
            else if (late !== undefined && number > late && isWrite && atVendors.has(name)) await look?.();
          }
        });
        return use({ ...inner, ports }, until);
      }, patienceMs);
    return { calls, invoke };
  }

  const spare = new Map<string, Made>();
  /** A credential for the subject: the one that served before where it is as it was, as vendors have room for few users. */
  async function ready(subject: SubjectName, title: string): Promise<Made> {
    const scenario = scenarios.get(title);
    if (scenario === undefined) throw new Error(`there is no scenario ${title}`);
    const { consumers, replicas } = subjects[subject];
    if (subject === 'create-user') return name(scenario);
    const key = `${title} ${consumers} ${replicas}`;
    const found = spare.get(key) ?? (await credential(scenario, { consumers, replicas }));
    spare.set(key, found);
    return found;
  }
  async function discard(one: Made): Promise<void> {
    for (const [key, other] of spare) if (other === one) spare.delete(key);
    await remove(one);
    await parameters('DeleteParameter', { Name: `/rekey/credentials/${one.name}` }).catch(() => undefined);
  }

  /** Runs the subject with nothing late. Answers its calls. */
  async function count(subject: SubjectName, scenario: string): Promise<readonly Call[]> {
    const one = await ready(subject, scenario);
    const run = await subjects[subject].prepare(one);
    const { calls, invoke } = latecomer();
    await allowed(run(invoke));
    await rekey.secretsManager.idle();
    await converge(one, () => unsettled(one));
    if (subject === 'create-user' || (await isEnding(one))) await discard(one);
    return calls;
  }

  /** One pass of each function, as the schedules would bring them. */
  async function pass(one: Made, messages = rekey.takeMessages()): Promise<void> {
    await rekey.start();
    await rekey.reconcile(messages);
    await rekey.secretsManager.idle();
    await tellConsumers(one);
    await rekey.sweep();
  }
  /** Time goes on, with passes of all functions, until `wrong` finds nothing, a few times at most. Answers what it found last. */
  async function converge(one: Made, wrong: () => Promise<readonly string[]>): Promise<readonly string[]> {
    let found: readonly string[] = [];
    for (const ms of [2 * hourMs, graceOverMs, 2 * hourMs, graceOverMs]) {
      await rekey.reconcile(messageOf(one));
      move(ms);
      await pass(one, messageOf(one));
      found = await wrong();
      if (found.length === 0) break;
    }
    return found;
  }

  /** Plays one case. Answers what was not as it must be; undefined where the call was never made. */
  async function play({
    subject,
    scenario,
    world,
    call,
    lateMs = hourMs,
    fails,
  }: Case): Promise<readonly string[] | undefined> {
    const one = await ready(subject, scenario);
    const { strategy } = one.scenario;
    const run = await subjects[subject].prepare(one);
    const violations: string[] = [];
    let calls: readonly Call[] = [];
    const violated = (what: string): void => {
      const at = calls[call - 1]?.name ?? '?';
      violations.push(`${what} — ${subject}; ${scenario}; ${world} at call ${call} (${at})`);
    };
    const maxInFlight = { 'replace-user': 3, 'alternate-users': 2, 'reset-password': 1 }[strategy];
    const countUsers = async (when: string): Promise<void> => {
      const users = await usersAt(one);
      if (users.length > maxInFlight) violated(`I6: ${users.length} live users ${when}`);
    };

    const before = publications(one).length;
    /** What the world has done, and how it left it. */
    let left:
      | {
          readonly publications: number;
          readonly current: Login | undefined;
          readonly works: boolean;
          readonly previous: Login | undefined;
          readonly previousWorksUntil: Date | undefined;
          readonly variable: string | undefined;
        }
      | undefined;
    let rolledBackTo: string | undefined;
    let revokedVersions: ReadonlySet<string> = new Set();
    let revokedLogins: readonly Login[] = [];
    const happen = async (): Promise<void> => {
      await rekey.secretsManager.idle();
      move(lateMs);
      if (world === 'compromise') {
        revokedVersions = new Set(await versionsOf(one));
        revokedLogins = await storedLogins(one);
      }
      if (world === 'rollback') rolledBackTo = (await labelsOf(one))['AWSPREVIOUS'];
      await happenings[world](one, run);
      await rekey.secretsManager.idle();
      const current = await rekey.login(one.name, 'AWSCURRENT');
      const previous = await rekey.login(one.name, 'AWSPREVIOUS');
      const graceMs = strategy === 'replace-user' ? 24 * hourMs : 30 * minuteMs;
      const switchedAt = world === 'rotation' && strategy !== 'reset-password' ? now() : undefined;
      left = {
        publications: publications(one).length,
        current,
        works: await logsIn(current),
        previous,
        previousWorksUntil:
          switchedAt !== undefined && (await logsIn(previous))
            ? new Date(switchedAt.getTime() + graceMs - minuteMs)
            : undefined,
        variable: variableOf(one),
      };
      await countUsers('after the world went on');
    };
    const usersBefore = await usersAt(one);
    const eventsBefore = subject === 'create-user' ? 0 : rekey.published().length;
    // Between setSecret and finishSecret the only user has the pending password.
    const look = async (): Promise<void> => {
      if (strategy === 'reset-password' || left?.works !== true || (await isEnding(one))) return;
      if (!(await logsIn(await rekey.login(one.name, 'AWSCURRENT'))))
        violated('I1: AWSCURRENT is refused in the middle of what follows the late answer');
    };
    const { calls: made, invoke } = latecomer(call, happen, { fails, look });
    calls = made;
    try {
      await run(invoke);
    } catch (error) {
      if (!isExpected(error)) violated(`a defect: ${error instanceof Error ? error.message : String(error)}`);
      // Whoever has called the function calls it again.
      if (fails) await allowed(run(rekey.invoke));
    }
    await rekey.secretsManager.idle();
    if (left === undefined) {
      await discard(one);
      return undefined;
    }
    const end = left;

    // At once.
    const ordered = await isEnding(one);
    const current = await rekey.login(one.name, 'AWSCURRENT');
    if (!ordered && end.works && strategy !== 'reset-password' && !(await logsIn(current)))
      violated('I1: AWSCURRENT is refused after the late answer');
    if (
      !ordered &&
      end.previousWorksUntil !== undefined &&
      now() < end.previousWorksUntil &&
      !(await logsIn(end.previous))
    )
      violated('I1: AWSPREVIOUS is refused within its grace after the late answer');
    const variable = variableOf(one);
    if (variable !== end.variable && !carries(variable, current))
      violated('a consumer was written to with a login that is not current');
    await countUsers('after the late answer');

    // Soon.
    await pass(one);
    if (strategy === 'reset-password' && !ordered && end.works) {
      const restored = await rekey.login(one.name, 'AWSCURRENT');
      if (!(await logsIn(restored))) violated('I1: AWSCURRENT is refused after the next pass');
    }

    // At last.
    const stillWrong = async (): Promise<readonly string[]> => {
      const revoked = await Promise.all(revokedLogins.map(logsIn));
      return [
        ...(await unsettled(one)),
        ...(revoked.includes(true) ? ['I26: a revoked password still works'] : []),
      ];
    };
    for (const what of await converge(one, stillWrong)) violated(what);
    const wasCurrent = new Set<string>();
    let isExcused = false;
    for (const [index, version] of publications(one).entries()) {
      const isByHand = index >= before && version === rolledBackTo && !isExcused;
      if (isByHand) isExcused = true;
      else if (index >= before && wasCurrent.has(version))
        violated('I26: a formerly current version was published again');
      if (index >= end.publications && revokedVersions.has(version))
        violated('I26: a revoked version was published');
      wasCurrent.add(version);
    }
    for (const login of revokedLogins) if (await logsIn(login)) violated('I26: a revoked password works');
    for (const what of await untold(one, eventsBefore, {
      published: publications(one)
        .slice(before)
        .filter((version) => version !== rolledBackTo),
      users: usersBefore,
    }))
      violated(what);
    if (subject === 'create-user' || violations.length > 0 || (await isEnding(one))) await discard(one);
    return violations;
  }
  /** What is not as it is at rest. */
  async function unsettled(one: Made): Promise<readonly string[]> {
    const { strategy, provider } = one.scenario;
    const users = await usersAt(one);
    if (await isEnding(one))
      return [
        ...((await hasSpec(one)) ? ['I17: the credential that was to be deleted is still there'] : []),
        ...(users.length > 0 ? [`I8: ${users.length} users of a deleted credential are left`] : []),
      ];
    const labels = await labelsOf(one);
    const current = await rekey.login(one.name, 'AWSCURRENT');
    const pending = labels['AWSPENDING'];
    const superfluous = users.filter(
      (username) =>
        username !== current?.username &&
        strategy !== 'alternate-users' &&
        // Nobody can delete the default user of Render.
        !(provider === 'render-postgres' && username === defaultUser()),
    );
    const maxAtRest = strategy === 'reset-password' ? 1 : 2;
    return [
      ...((await logsIn(current)) ? [] : ['I7: AWSCURRENT is refused for good']),
      ...(pending === undefined || pending === labels['AWSCURRENT'] ? [] : ['I7: a rotation stays open']),
      ...(superfluous.length === 0 ? [] : [`I8: ${superfluous.length} users are left over`]),
      ...(users.length <= maxAtRest ? [] : [`I6: ${users.length} live users at rest`]),
      ...(one.service === undefined || carries(one.service.running()['DATABASE_URL'], current)
        ? []
        : ['a consumer does not run with AWSCURRENT']),
    ];
  }
  /** What happened since and was not told, or was told as done more often than it was. */
  async function untold(
    one: Made,
    since: number,
    before: { readonly published: readonly string[]; readonly users: readonly string[] },
  ): Promise<readonly string[]> {
    const events = rekey.published().slice(since);
    const count = (types: readonly string[], field: string, value: string): number =>
      events.filter(({ 'detail-type': type, detail }) => types.includes(type) && detail[field] === value)
        .length;
    const users = await usersAt(one);
    const gone = before.users.filter((username) => !users.includes(username));
    const made = users.filter((username) => !before.users.includes(username));
    const isLacking = (type: string, field: string, value: string): readonly string[] =>
      count([type], field, value) > 0 ? [] : [`I22: ${type} was never published`];
    return [
      // The first value of a secret names nobody, and is published by nobody.
      ...before.published
        .slice(since === 0 ? 1 : 0)
        .flatMap((version) => isLacking('CredentialRotated', 'versionId', version)),
      ...gone.flatMap((username) => isLacking('DatabaseUserRetired', 'username', username)),
      ...gone.flatMap((username) => isLacking('DatabaseUserDeleted', 'username', username)),
      ...made.flatMap((username) => isLacking('DatabaseUserPlanned', 'username', username)),
      ...made.flatMap((username) =>
        count(['DatabaseUserCreated', 'DatabaseUserAppeared'], 'username', username) > 0
          ? []
          : ['I22: a new user was never told'],
      ),
      ...((await isEnding(one)) &&
      !(await hasSpec(one)) &&
      count(['CredentialDeleted'], 'credential', one.name) === 0
        ? ['I22: CredentialDeleted was never published']
        : []),
    ];
  }
  const defaultUser = (): string | undefined =>
    render.api.databases
      .get(postgresId)
      ?.users()
      .find(({ isDefault }) => isDefault)?.username;

  /** Orders the deletion of every credential that is left: the next tests' passes need not look at them. */
  async function clear(): Promise<void> {
    for (const one of [...spare.values()]) await discard(one);
  }

  return { rekey, count, play, clear, stop: () => rekey.stop() };
}

const atVendors: ReadonlySet<keyof Ports> = new Set(['http', 'sql', 'valkey']);

/** What the adapters in functions/aws make of an answer that was lost. */
const carriedOut = (name: keyof Ports): StoreError =>
  new StoreError('STORE_UNAVAILABLE', 'unknown', `${name} failed (TimeoutError); it is tried again`);

const hasGuard = (request: unknown): boolean =>
  typeof request === 'object' && request !== null && 'guard' in request && request.guard instanceof Guard;
