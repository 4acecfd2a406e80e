import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { inject } from 'vitest';
import { eventBridge, otherBuses } from '../../functions/aws/bus.ts';
import { parameterStore } from '../../functions/aws/parameters.ts';
import { secretsManager as secretsManagerPorts } from '../../functions/aws/secrets.ts';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { StoreError } from '../../functions/core/errors.ts';
import { type Invocation, parseRotationEvent } from '../../functions/core/events.ts';
import type { QueuedTask, StartTask } from '../../functions/core/fleet.ts';
import type { MetricName } from '../../functions/core/metrics.ts';
import { secretName } from '../../functions/core/names.ts';
import { interpose, type Ports } from '../../functions/core/ports.ts';
import { parseSecretValue } from '../../functions/core/secret-value.ts';
import { createRedactor, Sensitive } from '../../functions/core/sensitive.ts';
import { type Creation, createUser } from '../../functions/lifecycle/create-user.ts';
import { guardWrites } from '../../functions/lifecycle/guarded-write.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { rotateSecret } from '../../functions/lifecycle/rotate-secret.ts';
import { Unwritten } from '../../functions/lifecycle/unwritten.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import { createSecretMemory, type SecretMemory } from '../../functions/runtime/secret-memory.ts';
import type { BusEvent } from '../../infra/local/aws/bus-event.ts';
import { createEventBridge } from '../../infra/local/aws/event-bridge.ts';
import { clientOf } from '../../infra/local/aws/in-process-client.ts';
import { createParameters } from '../../infra/local/aws/parameters.ts';
import { createQuotas, type Quota } from '../../infra/local/aws/quotas.ts';
import type { Variants } from '../../infra/local/aws/secrets-manager/model.ts';
import { createSecretsManager } from '../../infra/local/aws/secrets-manager.ts';
import { startNotes } from './notes.ts';
import { isChange, type TestVendors } from './vendors.ts';

const account = '123456789012';
const region = 'eu-central-1';
export const functionArn = `arn:aws:lambda:${region}:${account}:function:rekey-rotate-secret`;
const busName = 'rekey';
/** What our webhooks point to, but for the name of the endpoint. */
export const webhookBaseUrl = 'https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/webhooks/';

/** Where an invocation dies: at its n-th call out, before it left or after it took effect. Nothing runs after that. */
export interface Kill {
  readonly call: number;
  readonly when: 'before' | 'after';
  /** Looks at the world as the dead invocation left it, before anything else happens. */
  readonly look?: () => Promise<void>;
}

/** Something that happens while a call of an invocation is under way: its request or its answer comes late by that long. */
export interface Interruption {
  /** The n-th call out, or the first of this port. */
  readonly call: number | keyof Ports;
  readonly when: 'before' | 'after';
  /** Below the seam that guards writes: whatever a guard asked was answered before it. Calls made in here are not counted. */
  readonly by: () => Promise<void>;
}

/**
 * Every place where an invocation that makes these calls can die. After a call is before the next one, as nothing outside
 * changes between the two; so there is one `after`, that of the last.
 */
export const deaths = (calls: readonly string[]): readonly (Kill & { readonly name: string })[] => [
  ...calls.map((name, index) => ({ call: index + 1, when: 'before', name }) as const),
  ...calls.slice(-1).map((name) => ({ call: calls.length, when: 'after', name }) as const),
];

declare module 'vitest' {
  interface ProvidedContext {
    /** Whether an invocation is killed at every call, also where that leaves the same world as at another one. */
    readonly isExhaustive: boolean;
  }
}

/** `ports` of a bus that takes no event of this type. */
export const withoutEvent = (type: string, ports: Ports): Ports => ({
  ...ports,
  async publish(events) {
    if (events.some((event) => event.type === type))
      throw new StoreError('EVENT_NOT_PUBLISHED', 'none', 'the bus is told to refuse it');
    return ports.publish(events);
  },
});

/** The ports that change nothing unless their request has a guard. */
const reading: ReadonlySet<keyof Ports> = new Set<keyof Ports>([
  'http',
  'sql',
  'valkey',
  'describeSecret',
  'readSecret',
  'listVersions',
  'listSecrets',
  'readParameter',
  'readParameterDate',
  'readParameters',
  'listParameters',
  'readNote',
  'listNotes',
]);

/** The ports that leave the process for somewhere that remembers; the others cannot tell a killed run from a slow one. */
export const outward: ReadonlySet<keyof Ports> = new Set<keyof Ports>([
  'http',
  'sql',
  'valkey',
  'describeSecret',
  'readSecret',
  'writeSecret',
  'moveLabel',
  'createSecret',
  'startRotation',
  'cancelRotation',
  'listVersions',
  'listSecrets',
  'removeReplicas',
  'deleteSecret',
  'readParameter',
  'readParameterDate',
  'readParameters',
  'createParameter',
  'writeParameter',
  'deleteParameter',
  'listParameters',
  'readNote',
  'listNotes',
  'writeNote',
  'deleteNote',
  'publish',
  'notify',
  'enqueue',
  'enqueueStart',
]);

/** The use cases in this process, between the AWS stand-ins and the vendors, over sockets to these. */
export type TestRekey = Awaited<ReturnType<typeof startTestRekey>>;

export async function startTestRekey(
  vendors: () => TestVendors,
  variants: Partial<Variants> = {},
  quotas: readonly Quota[] = [],
) {
  // Waits of the services move the one clock there is, and take next to no time.
  const clock = {
    now: () => vendors().clock.now(),
    sleep: async (ms: number) => {
      vendors().clock.move(ms);
      await pause(1);
    },
  };
  let kill: Kill | undefined;
  let interruption: Interruption | undefined;
  let isInterrupted = false;
  let warm: SecretMemory | undefined;
  const refused = new Set<keyof Ports>();
  let calls: string[] = [];
  /** Of each call, whether it may have changed something outside. */
  let changes: boolean[] = [];
  const failures: unknown[] = [];
  const logged: string[] = [];
  const measured: { readonly metric: MetricName; readonly value: number }[] = [];
  const tasks: QueuedTask[] = [];
  const ordered: StartTask[] = [];
  /** What a function instance that lives on keeps in mind; it ends with the invocation that is killed in it. */
  let unwritten = new Unwritten();

  /** One invocation as Lambda runs it: with ports of its own, and gone for good where it is killed. It may last so long. */
  async function invocation<Answer>(
    use: (rekey: Rekey, until: Date) => Promise<Answer>,
    lastsMs = 890_000,
  ): Promise<Answer> {
    const until = new Date(clock.now().getTime() + lastsMs);
    const death = Promise.withResolvers<never>();
    let isDead = false;
    const die = (): Promise<never> => {
      isDead = true;
      unwritten = new Unwritten();
      death.reject(new Error('killed'));
      return new Promise(() => undefined);
    };
    const mortal = interpose(vendors().ports(until, awsPorts), async (name, request, call) => {
      if (isDead) return new Promise(() => undefined);
      if (refused.has(name)) throw new StoreError('STORE_UNAVAILABLE', 'none', `${name} is told to fail`);
      if (!outward.has(name) || isInterrupted) return call();
      calls.push(name);
      changes.push(!reading.has(name) || isChange(request));
      if (interruption?.call === calls.length || interruption?.call === name) {
        const { when, by } = interruption;
        interruption = undefined;
        const happen = async (): Promise<void> => {
          isInterrupted = true;
          await by();
          isInterrupted = false;
        };
        if (when === 'before') await happen();
        try {
          return await call();
        } finally {
          if (when === 'after') await happen();
        }
      }
      const dies = kill !== undefined && calls.length === kill.call;
      if (!dies) return call();
      const { when, look } = kill ?? { when: 'before' };
      kill = undefined;
      if (when === 'after') await call().catch(() => undefined);
      await look?.();
      return die();
    });
    const rekey: Rekey = {
      // Around the calls that die or come late: a write that was held up is judged by what is so when it leaves.
      ports: guardWrites(
        { ...mortal, readSecret: (warm ?? createSecretMemory(clock.now)).over(mortal.readSecret) },
        clock.now,
      ),
      loadProvider,
      loadConsumer,
      sha256: (text) => createHash('sha256').update(text).digest(),
      log: (_level, message, fields) => logged.push(`${message} ${JSON.stringify(fields ?? {})}`),
      measure: (metric, value) => measured.push({ metric, value }),
      unwritten,
    };
    return Promise.race([use(rekey, until), death.promise]);
  }

  const bus = createEventBridge({
    account,
    region,
    clock,
    buses: [busName, 'orders'],
    deliver: async () => ({ ok: true }),
  });
  const secretsManager = createSecretsManager({
    account,
    region,
    clock,
    emit: (event) => bus.emit(event),
    variants: { retryDelaysMs: [1_000, 60_000, 60_000], ...variants },
    invoke: async (_arn, event) => {
      try {
        await invocation((rekey, until) => rotateSecret(parseRotationEvent(event), until, rekey));
        return { ok: true };
      } catch (error) {
        failures.push(error);
        return { ok: false, error: error instanceof Error ? error.message : String(error) };
      }
    },
  });
  const parameters = createParameters({ account, region, clock });
  const { limit, counts: callCounts } = createQuotas({ clock, quotas });
  const notes = startNotes(clock.now, limit);
  const awsPorts = {
    ...secretsManagerPorts(clientOf(limit(secretsManager)), createRedactor(), clock.now),
    ...parameterStore(clientOf(limit(parameters)), clock.now),
    ...notes.ports,
    publish: eventBridge(clientOf(limit(bus)), busName, { sleep: clock.sleep }),
    notify: otherBuses(clientOf(limit(bus)), { sleep: clock.sleep }, clock.now),
    enqueue: async (added: readonly QueuedTask[]) => void tasks.push(...added),
    enqueueStart: async (added: readonly StartTask[]) => void ordered.push(...added),
    randomBytes: async (size: number) => randomBytes(size),
  };
  await secretsManager.call('CreateSecret', {
    Name: 'rekey/api-keys/render',
    SecretString: vendors().apiKeys.render,
    ClientRequestToken: token(),
  });
  await secretsManager.call('CreateSecret', {
    Name: 'rekey/api-keys/cockroachdb',
    SecretString: JSON.stringify({ apiKey: vendors().apiKeys.cockroachdb }),
    ClientRequestToken: token(),
  });
  await secretsManager.call('CreateSecret', {
    Name: 'rekey/api-keys/vultr',
    SecretString: vendors().apiKeys.vultr,
    ClientRequestToken: token(),
  });
  await secretsManager.call('CreateSecret', {
    Name: 'rekey/api-keys/zilliz',
    SecretString: vendors().apiKeys.zilliz,
    ClientRequestToken: token(),
  });

  const describe = async (name: string) =>
    (await secretsManager.call('DescribeSecret', { SecretId: secretName(name) })) as {
      ARN: string;
      VersionIdsToStages?: Record<string, string[]>;
      RotationEnabled?: boolean;
    };
  return {
    secretsManager,
    parameters,
    notes,
    bus,
    /** What rekey asked of AWS; a test that calls a service itself is not counted. */
    callCounts,
    failures,
    logged,
    /** The names of the calls out since the last `killAt` or `counting`, in order. */
    get calls(): readonly string[] {
      return calls;
    },
    /** Where the invocations that made these calls can die and leave another world than elsewhere: right after each change. */
    deaths: (): ReturnType<typeof deaths> =>
      deaths(calls).filter(
        ({ call, when }) => inject('isExhaustive') || when === 'after' || changes[call - 2] !== false,
      ),
    /** Counts calls from here, and kills the invocation that makes the n-th of them, once. */
    killAt(next: Kill | undefined) {
      kill = next;
      calls = [];
      changes = [];
    },
    /** Counts calls from here, and lets something happen at one of them, once. */
    interruptAt(next: Interruption | undefined) {
      interruption = next;
      calls = [];
      changes = [];
    },
    /** From here on invocations meet one warm instance, or each one a cold one. @default cold */
    setWarm(isWarm: boolean) {
      warm = isWarm ? createSecretMemory(clock.now) : undefined;
    },
    /** From here on these ports alone fail, without having done anything. */
    refuse(...names: readonly (keyof Ports)[]) {
      refused.clear();
      for (const name of names) refused.add(name);
    },
    /** A CredentialRequested event, once; what an earlier run of it left is there. Of now, unless it comes late or again. */
    request: (
      spec: object,
      storage: Omit<Creation, 'rotationFunctionArn'> = {},
      requestedAt: Date = clock.now(),
    ) =>
      invocation((rekey, until) =>
        createUser({ spec, requestedAt }, { rotationFunctionArn: functionArn, ...storage }, until, rekey),
      ),
    /** What a parameter holds, or undefined where there is none. */
    async parameter(name: string): Promise<string | undefined> {
      const answer = await parameters.call('GetParameter', { Name: name }).catch(() => undefined);
      return (answer as { Parameter: { Value: string } } | undefined)?.Parameter.Value;
    },
    /** A pass of start-rotations. Rotations that it starts run on: wait with `secretsManager.idle()`. */
    start: (call: Extract<Invocation, { is: 'pass' }> = scheduled) =>
      invocation(async (rekey, until) => {
        const { startRotations } = await import('../../functions/lifecycle/start-rotations.ts');
        return startRotations(call, { rotationFunctionArn: functionArn }, until, rekey);
      }),
    /** An order to rotate, or a pause, as start-rotations takes it; and then what it has queued is carried out. */
    async order(call: Extract<Invocation, { is: 'order' | 'pause' }>): Promise<void> {
      const { carryOutOrders, takeOrder } = await import('../../functions/lifecycle/carry-out-orders.ts');
      await invocation((rekey, until) => takeOrder(call, until, rekey));
      const starts = ordered.splice(0).map((start) => ({ ...start, messageId: start.id }));
      if (starts.length === 0) return;
      await invocation((rekey, until) =>
        carryOutOrders(starts, { rotationFunctionArn: functionArn }, until, rekey),
      );
    },
    /** delete-user. */
    sweep: (call: Extract<Invocation, { is: 'pass' | 'order' | 'rotated' }> = scheduled) =>
      invocation(async (rekey, until) => {
        const { deleteUsers } = await import('../../functions/lifecycle/delete-user.ts');
        return deleteUsers(call, until, rekey);
      }),
    /** reconcile-users: the dispatcher, or one batch of messages. */
    reconcile: (call: Extract<Invocation, { is: 'pass' | 'messages' }> = scheduled) =>
      invocation(async (rekey, until) => {
        // As if the last looks were long enough ago: a test need not move the clock for the next one.
        if (call.is === 'pass')
          for (const { key } of await notes.ports.listNotes({ place: 'looks' }))
            await notes.ports.deleteNote({ place: 'looks', key });
        const { reconcileUsers } = await import('../../functions/lifecycle/reconcile-users.ts');
        return reconcileUsers(call, { webhookBaseUrl }, until, rekey);
      }),
    /** The tasks that the dispatcher queued and nobody took yet, as a worker would get them. */
    takeMessages: (): Extract<Invocation, { is: 'messages' }> => ({
      is: 'messages',
      messages: tasks
        .splice(0)
        .map(({ delaySeconds: _, urgent: __, ...task }) => ({ id: token(), body: JSON.stringify(task) })),
    }),
    /** update-consumers, told that AWSCURRENT of this credential has moved. */
    update: (name: string) =>
      invocation(async (rekey, until) => {
        const { updateConsumers } = await import('../../functions/lifecycle/update-consumers.ts');
        const { VersionIdsToStages = {} } = await describe(name);
        const [versionId = ''] =
          Object.entries(VersionIdsToStages).find(([, labels]) => labels.includes('AWSCURRENT')) ?? [];
        return updateConsumers(
          { is: 'label-moved', secretName: secretName(name), label: 'AWSCURRENT', versionId },
          until,
          rekey,
        );
      }),
    /** What was measured so far, oldest first. */
    measured,
    /** A Rekey of its own for `use`, in an invocation like any other. */
    invoke: invocation,
    /** One step, as Secrets Manager would ask for it. */
    step: (name: string, Step: string, ClientRequestToken: string) =>
      invocation(async (rekey, until) => {
        const { ARN } = await describe(name);
        await rotateSecret(
          parseRotationEvent({ Step, SecretId: ARN, ClientRequestToken, RotationToken: token() }),
          until,
          rekey,
        );
      }),
    /** Starts a rotation and waits until Secrets Manager has done with it, retries included. Answers its token. */
    async rotate(name: string, options: { readonly immediately?: boolean } = {}): Promise<string> {
      const ClientRequestToken = token();
      await secretsManager.call('RotateSecret', {
        SecretId: secretName(name),
        ClientRequestToken,
        RotationLambdaARN: functionArn,
        RotateImmediately: options.immediately ?? true,
      });
      await secretsManager.idle();
      return ClientRequestToken;
    },
    describe,
    /** The labels in use, each with the version that carries it. */
    async labels(name: string): Promise<Readonly<Record<string, string>>> {
      const { VersionIdsToStages = {} } = await describe(name);
      return Object.fromEntries(
        Object.entries(VersionIdsToStages).flatMap(([version, labels]) =>
          // How far rekey has published stands beside AWS's own labels: most tests are about these.
          labels.filter((label) => label !== 'REKEY_PUBLISHED').map((label) => [label, version]),
        ),
      );
    },
    /** The login under a label, or undefined where there is none. */
    async login(name: string, label: string) {
      const answer = await secretsManager
        .call('GetSecretValue', { SecretId: secretName(name), VersionStage: label })
        .catch(() => undefined);
      const text = (answer as { SecretString?: string } | undefined)?.SecretString;
      const value = text === undefined ? undefined : parseSecretValue(new Sensitive(text), label);
      return value?.kind === 'login' ? value.login : undefined;
    },
    /** What rekey published, oldest first. */
    published: (): readonly BusEvent[] => bus.history(busName),
    async stop() {
      await secretsManager.stop();
      await bus.stop();
    },
  };
}

const scheduled = { is: 'pass', dryRun: false } as const;

/** 32 characters, as ClientRequestToken and RotationToken both allow with 36: a UUID. */
export const token = (): string => {
  const hex = randomBytes(16).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
};
