import { createHash } from 'node:crypto';
import { eventBridge, otherBuses } from '../../../functions/aws/bus.ts';
import { noteTable } from '../../../functions/aws/notes.ts';
import { parameterStore } from '../../../functions/aws/parameters.ts';
import { startQueue, targetQueue } from '../../../functions/aws/queue.ts';
import { secretsManager as secretsManagerPorts } from '../../../functions/aws/secrets.ts';
import { loadConsumer } from '../../../functions/consumers/index.ts';
import { type Invocation, parseRotationEvent } from '../../../functions/core/events.ts';
import type { QueuedTask } from '../../../functions/core/fleet.ts';
import { secretName, specParameterName } from '../../../functions/core/names.ts';
import { tableName } from '../../../functions/core/notes.ts';
import type { Ports } from '../../../functions/core/ports.ts';
import { firstSecretString } from '../../../functions/core/secret-value.ts';
import { createRedactor } from '../../../functions/core/sensitive.ts';
import { backstopDays, parseSpec, specDocument } from '../../../functions/core/spec.ts';
import {
  carryOutOrders,
  type QueuedStart,
  takeOrder,
} from '../../../functions/lifecycle/carry-out-orders.ts';
import { deleteUsers } from '../../../functions/lifecycle/delete-user.ts';
import { guardWrites } from '../../../functions/lifecycle/guarded-write.ts';
import { reconcileUsers } from '../../../functions/lifecycle/reconcile-users.ts';
import type { Rekey } from '../../../functions/lifecycle/rekey.ts';
import { rotateSecret } from '../../../functions/lifecycle/rotate-secret.ts';
import { startRotations } from '../../../functions/lifecycle/start-rotations.ts';
import { Unwritten } from '../../../functions/lifecycle/unwritten.ts';
import { maxPatientAttempts } from '../../../functions/runtime/parameters.ts';
import { AwsError } from '../aws/aws-error.ts';
import { clientOf } from '../aws/in-process-client.ts';
import { createParameters, type ParametersOptions } from '../aws/parameters.ts';
import { createQuotas, publishedQuotas } from '../aws/quotas.ts';
import { createSecretsManager } from '../aws/secrets-manager.ts';
import type { AwsService } from '../aws/service.ts';
import { createTables } from '../aws/tables.ts';
import { randomOfRun } from '../simulation/random.ts';
import { createSimulatedVendors } from '../simulation/vendors.ts';
import { createVirtualClock } from '../simulation/virtual-clock.ts';

/**
 * A fleet of any size on a clock of its own, to be counted: the functions' own code, adapters and all, over the emulators of AWS with the
 * default quotas of an account. Each attempt of a call takes `callMs`; a call of a vendor takes 80 ms. What a processor needs takes no
 * time here.
 */
export interface FleetOptions {
  readonly credentials: number;
  /** @default 1 */
  readonly credentialsPerTarget?: number;
  /** How many credentials are due at the end of `untilDue`. @default one in a hundred */
  readonly due?: number;
  /** @default 15 */
  readonly callMs?: number;
  readonly defaultTier?: ParametersOptions['defaultTier'];
}

/** What an invocation has cost. */
export interface Cost {
  /** Attempts by service and operation, for example `ssm:GetParameters`. */
  readonly calls: Readonly<Record<string, number>>;
  readonly throttled: number;
  readonly seconds: number;
  /** Of DynamoDB: 4 KB of an answer each, and one at least. */
  readonly readUnits: number;
  /** What PutEvents carried. */
  readonly events: number;
  /** The first thousand in their order, with what a listing is of, for example `ssm:GetParametersByPath /rekey/credentials`. */
  readonly made: readonly string[];
}

interface Rotated {
  readonly credential: string;
  readonly at: Date;
}

const account = '123456789012';
const region = 'eu-central-1';
const rotationFunctionArn = `arn:aws:lambda:${region}:${account}:function:rekey-rotate-secret`;
const webhookBaseUrl = 'https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/webhooks/';
const queueUrl = (name: string): string => `https://sqs.${region}.amazonaws.com/${account}/${name}`;
const start = new Date('2026-01-01T00:00:00Z');
const dayMs = 86_400_000;
/** As long as an invocation may take, without the margin that is kept back. */
const timeoutMs = { 'start-rotations': 590_000, 'delete-user': 890_000, 'reconcile-users': 890_000 } as const;
/**
 * rekey starts five rotations a minute with one API key of this vendor. Parameter Store takes 180 orders a minute, as many as 36 keys
 * rotate. With 45 keys Parameter Store, not the vendor, limits an emergency.
 */
const apiKeys = 45;
/** The interval of every credential, and how much earlier the due ones were made. */
const every = 'P30D';
const earlierMs = 20 * dayMs;
const maxMade = 1_000;
const readUnitBytes = 4_096;
const maxBackoffMs = 20_000;
const throttleBackoffMs = 500;

export async function createFleet({
  credentials,
  credentialsPerTarget = 1,
  due = Math.ceil(credentials / 100),
  callMs = 15,
  defaultTier = 'Standard',
}: FleetOptions) {
  const clock = createVirtualClock(start);
  const random = randomOfRun(1);
  const quotas = createQuotas({ clock, quotas: publishedQuotas });
  const vendors = createSimulatedVendors(
    { clock, apiKeyOf: (key) => key.reveal() },
    { disturb: () => undefined },
  );
  const plugins = { loadProvider: vendors.loadProvider, loadConsumer };
  const sha256 = (text: string): Uint8Array => createHash('sha256').update(text).digest();
  const names = Array.from({ length: credentials }, (_, index) => `c${String(index).padStart(5, '0')}`);
  /** The bodies of tasks and starts in their queues, and the credentials of which `CredentialRotated` was published. */
  const sent = { targets: [] as string[], starts: [] as string[], rotated: [] as Rotated[] };

  // The account.

  let rotationCost = noCost();
  const parameters = createParameters({ account, region, clock, defaultTier });
  const tables = createTables({
    account,
    region,
    tables: [{ name: tableName, partitionKey: 'place', sortKey: 'key' }],
  });
  const secretsManager = createSecretsManager({
    account,
    region,
    clock,
    random,
    emit: () => undefined,
    async invoke(_arn, event) {
      const startedAt = clock.now().getTime();
      const until = new Date(startedAt + 890_000);
      const cost = noCost();
      try {
        await rotateSecret(parseRotationEvent(event), until, rekeyOf(cost));
        return { ok: true };
      } catch (error) {
        return { ok: false, error: error instanceof Error ? error.message : String(error) };
      } finally {
        cost.seconds = (clock.now().getTime() - startedAt) / 1000;
        rotationCost = sum(rotationCost, cost);
      }
    },
  });
  const bus = sinkOf('events', ({ Entries = [] }) => {
    for (const { DetailType, Detail } of Entries)
      if (DetailType === 'CredentialRotated')
        sent.rotated.push({ credential: JSON.parse(Detail).credential, at: clock.now() });
    return { FailedEntryCount: 0, Entries: Entries.map((_, index) => ({ EventId: String(index) })) };
  });
  const queues = sinkOf('sqs', ({ QueueUrl, Entries = [] }) => {
    const queue = QueueUrl === queueUrl('rekey-starts.fifo') ? sent.starts : sent.targets;
    queue.push(...Entries.map(({ MessageBody }) => MessageBody));
    return { Successful: Entries.map(({ Id }) => ({ Id })) };
  });

  // The functions.

  /** False while the world is set up: that costs nothing. */
  let isMeasured = false;
  const hooks = { onCall: (): void => undefined };

  /** As the SDK calls it: some attempts, and after a throttle a pause of up to half a second, then of up to a whole one. */
  function called(service: AwsService, cost: MutableCost, maxAttempts = 3): never {
    const limited = quotas.limit(service);
    return clientOf({
      ...service,
      async call(operation, input, context) {
        if (!isMeasured) return service.call(operation, input, context);
        const name = `${service.name}:${operation}`;
        for (let attempt = 1; ; attempt += 1) {
          cost.calls[name] = (cost.calls[name] ?? 0) + 1;
          if (cost.made.length < maxMade) cost.made.push([name, ...listedIn(input)].join(' '));
          await clock.sleep(callMs);
          hooks.onCall();
          try {
            const answer = await limited.call(operation, input, context);
            if (/Query|GetItem/.test(operation))
              cost.readUnits += Math.max(1, Math.ceil(JSON.stringify(answer).length / readUnitBytes));
            if (operation === 'PutEvents') cost.events += (input as SinkInput).Entries?.length ?? 0;
            return answer;
          } catch (error) {
            if (!(error instanceof AwsError && /Throttl/.test(error.name))) throw error;
            cost.throttled += 1;
            if (attempt === maxAttempts) throw error;
            await clock.sleep(random() * Math.min(maxBackoffMs, throttleBackoffMs * 2 ** (attempt - 1)));
          }
        }
      },
    });
  }

  function rekeyOf(cost: MutableCost): Rekey {
    const now = (): Date => clock.now();
    const sleep = { sleep: (ms: number) => clock.sleep(ms) };
    const sqs = called(queues, cost);
    const send = targetQueue(sqs, queueUrl('rekey-targets'), sleep);
    const ports: Partial<Ports> = {
      ...secretsManagerPorts(called(secretsManager, cost), createRedactor(), now),
      ...parameterStore(called(parameters, cost), now, called(parameters, cost, maxPatientAttempts)),
      ...noteTable(called(tables, cost), tableName, now),
      publish: eventBridge(called(bus, cost), 'rekey', sleep),
      notify: otherBuses(called(bus, cost), sleep, now),
      enqueue: (tasks: readonly QueuedTask[]) => send(tasks),
      enqueueStart: startQueue(sqs, queueUrl('rekey-starts.fifo'), sleep, sha256),
      now: async () => now(),
      ...sleep,
      randomBytes: async (size) => Uint8Array.from({ length: size }, () => Math.floor(random() * 256)),
    };
    return {
      ...plugins,
      ports: guardWrites(ports as Ports, now),
      sha256,
      log: () => undefined,
      measure: () => undefined,
      unwritten: new Unwritten(),
    };
  }

  /** Lets the clock run until `work` is over. Answers how long that took. */
  async function play<Answer>(work: () => Promise<Answer>): Promise<{ answer: Answer; seconds: number }> {
    const startedAt = clock.now().getTime();
    let endedAt: number | undefined;
    const running = work().finally(() => {
      endedAt = clock.now().getTime();
    });
    running.catch(() => undefined);
    while (endedAt === undefined) {
      await clock.runUntil(new Date(clock.now().getTime() + 1_000));
      if (clock.now().getTime() - startedAt > dayMs) throw new Error('it is not over within a day');
    }
    return { answer: await running, seconds: (endedAt - startedAt) / 1000 };
  }

  /** One invocation. */
  async function invoked<Answer>(
    name: keyof typeof timeoutMs,
    use: (rekey: Rekey, until: Date) => Promise<Answer>,
  ): Promise<{ readonly cost: Cost; readonly answer: Answer }> {
    const cost = noCost();
    const startedAt = clock.now().getTime();
    const answer = await use(rekeyOf(cost), new Date(startedAt + timeoutMs[name]));
    cost.seconds = (clock.now().getTime() - startedAt) / 1000;
    return { cost, answer };
  }

  // The world.

  const specs = names.map((name, index) => {
    const target = Math.floor(index / credentialsPerTarget);
    return {
      name,
      provider: 'simulated-choosing',
      target: { id: `target-${String(target).padStart(5, '0')}` },
      apiKeySecret: `rekey/api-keys/k${target % apiKeys}`,
      usernamePrefix: name,
      rotation: { every },
    };
  });
  for (let key = 0; key < apiKeys; key += 1)
    await secretsManager.call('CreateSecret', {
      Name: `rekey/api-keys/k${key}`,
      SecretString: `key-${key}`,
      ClientRequestToken: tokenOf(`key ${key}`),
    });
  /** As the stack does, with the first rotation. */
  async function make(document: (typeof specs)[number]): Promise<void> {
    const spec = await parseSpec(document, plugins);
    await parameters.call('PutParameter', {
      Name: specParameterName(spec.name),
      Value: specDocument(spec),
      Type: 'String',
    });
    await secretsManager.call('CreateSecret', {
      Name: secretName(spec.name),
      SecretString: firstSecretString,
      ClientRequestToken: tokenOf(spec.name),
    });
    await secretsManager.call('RotateSecret', {
      SecretId: secretName(spec.name),
      ClientRequestToken: tokenOf(`first rotation of ${spec.name}`),
      RotationLambdaARN: rotationFunctionArn,
      RotateImmediately: true,
      RotationRules: { AutomaticallyAfterDays: backstopDays(spec) },
    });
  }
  const makeAll = (chosen: typeof specs) =>
    play(async () => {
      for (const document of chosen) await make(document);
      await secretsManager.idle();
    });
  await makeAll(specs.slice(0, due));
  await clock.runUntil(new Date(clock.now().getTime() + earlierMs));
  await makeAll(specs.slice(due));
  // The graces of the first rotations are over.
  await clock.runUntil(new Date(clock.now().getTime() + dayMs));
  sent.rotated.length = 0;
  rotationCost = noCost();
  isMeasured = true;

  const pass = { is: 'pass', dryRun: false } as const;
  const compromised = (credential: string, orderedAt = clock.now()) =>
    ({ is: 'order', order: 'CredentialCompromised', credential, orderedAt }) as const;
  const functions = {
    startPass: () =>
      invoked('start-rotations', (rekey, until) =>
        startRotations(pass, { rotationFunctionArn }, until, rekey),
      ),
    deletePass: () => invoked('delete-user', (rekey, until) => deleteUsers(pass, until, rekey)),
    dispatch: () =>
      invoked('reconcile-users', (rekey, until) => reconcileUsers(pass, { webhookBaseUrl }, until, rekey)),
    look: (bodies: readonly string[]) =>
      invoked('reconcile-users', (rekey, until) =>
        reconcileUsers(
          { is: 'messages', messages: bodies.map((body, index) => ({ id: String(index), body })) },
          { webhookBaseUrl },
          until,
          rekey,
        ),
      ),
    order: (invocation: Extract<Invocation, { readonly is: 'order' }>) =>
      invoked('start-rotations', (rekey, until) => takeOrder(invocation, until, rekey)),
    carryOut: (starts: readonly QueuedStart[]) =>
      invoked('start-rotations', (rekey, until) =>
        carryOutOrders(starts, { rotationFunctionArn }, until, rekey),
      ),
    deletion: (invocation: Extract<Invocation, { readonly is: 'order' | 'rotated' }>) =>
      invoked('delete-user', (rekey, until) => deleteUsers(invocation, until, rekey)),
  };

  return {
    clock,
    names,
    sent,
    vendors,
    functions,
    play,
    compromised,
    /** Is told of every call, right before AWS gets it. */
    hooks,
    /** All steps of all rotations since it was asked last. */
    takeRotationCost(): Cost {
      const cost = rotationCost;
      rotationCost = noCost();
      return cost;
    },
    /** Resolves once no rotation is running. */
    idle: () => secretsManager.idle(),
    /**
     * Afterwards the next passes find what they find every day: members are noted, targets are settled. Answers what it took delete-user
     * to visit each target once.
     */
    async settle(): Promise<Cost> {
      await play(functions.startPass);
      const visits = noCost();
      for (;;) {
        const { answer } = await play(functions.deletePass);
        if (answer.answer.targets.length === 0) break;
        sum(visits, answer.cost);
      }
      await play(functions.dispatch);
      return visits;
    },
    /** Afterwards the due credentials are due, and no others. */
    async untilDue(): Promise<void> {
      await clock.runUntil(new Date(start.getTime() + 29 * dayMs));
      await play(functions.dispatch);
    },
  };
}

export type FleetModel = Awaited<ReturnType<typeof createFleet>>;

type MutableCost = { -readonly [Member in keyof Omit<Cost, 'calls' | 'made'>]: Cost[Member] } & {
  calls: Record<string, number>;
  made: string[];
};
const noCost = (): MutableCost => ({
  calls: {},
  throttled: 0,
  seconds: 0,
  readUnits: 0,
  events: 0,
  made: [],
});

/** Without what was made, which nobody reads of a thousand rotations. */
function sum(one: MutableCost, other: Cost): MutableCost {
  for (const [name, count] of Object.entries(other.calls)) one.calls[name] = (one.calls[name] ?? 0) + count;
  one.throttled += other.throttled;
  one.seconds += other.seconds;
  one.readUnits += other.readUnits;
  one.events += other.events;
  return one;
}

export const callsOf = ({ calls }: Pick<Cost, 'calls'>): number =>
  Object.values(calls).reduce((total, count) => total + count, 0);

const tokenOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 32);

/** What a listing of parameters, or of notes, is of. */
function listedIn(input: unknown): readonly string[] {
  const { Path, ExpressionAttributeValues } = input as {
    readonly Path?: string;
    readonly ExpressionAttributeValues?: Readonly<Record<string, { readonly S?: string }>>;
  };
  return [Path, ExpressionAttributeValues?.[':place']?.S].filter((each) => each !== undefined);
}

interface SinkInput {
  readonly QueueUrl?: string;
  readonly Entries?: readonly {
    readonly Id: string;
    readonly MessageBody: string;
    readonly DetailType: string;
    readonly Detail: string;
  }[];
}

/** A service that takes all that it is sent. */
const sinkOf = (name: string, take: (input: SinkInput) => unknown): AwsService => ({
  name,
  targetPrefix: name,
  messageKey: 'message',
  internalErrorName: 'InternalFailure',
  authorizations: () => [],
  call: async (_operation, input) => take(input as SinkInput),
});
