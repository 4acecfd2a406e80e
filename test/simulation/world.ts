import { createHash } from 'node:crypto';
import { eventBridge, otherBuses } from '../../functions/aws/bus.ts';
import { parameterStore } from '../../functions/aws/parameters.ts';
import { secretsManager as secretsManagerPorts } from '../../functions/aws/secrets.ts';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { parseRotationEvent } from '../../functions/core/events.ts';
import type { TargetTask } from '../../functions/core/fleet.ts';
import type { MetricName } from '../../functions/core/metrics.ts';
import { secretName, specParameterName } from '../../functions/core/names.ts';
import { interpose, type Ports } from '../../functions/core/ports.ts';
import { firstSecretString } from '../../functions/core/secret-value.ts';
import { createRedactor, type Sensitive } from '../../functions/core/sensitive.ts';
import { backstopDays, parseSpec, specDocument } from '../../functions/core/spec.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import { guardWrites } from '../../functions/lifecycle/guarded-write.ts';
import { reconcileUsers } from '../../functions/lifecycle/reconcile-users.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { rotateSecret } from '../../functions/lifecycle/rotate-secret.ts';
import { startRotations } from '../../functions/lifecycle/start-rotations.ts';
import type { BusEvent } from '../../infra/local/aws/bus-event.ts';
import { createEventBridge } from '../../infra/local/aws/event-bridge.ts';
import { clientOf } from '../../infra/local/aws/in-process-client.ts';
import { createParameters } from '../../infra/local/aws/parameters.ts';
import { createQuotas, type Quota } from '../../infra/local/aws/quotas.ts';
import { createSecretsManager } from '../../infra/local/aws/secrets-manager.ts';
import { randomOfRun } from '../../infra/local/simulation/random.ts';
import { createSimulatedVendors } from '../../infra/local/simulation/vendors.ts';
import { createVirtualClock } from '../../infra/local/simulation/virtual-clock.ts';
import { startNotes } from '../support/notes.ts';
import { webhookBaseUrl } from '../support/rekey.ts';

export interface SimulationOptions {
  readonly start: Date;
  /** The same number and the same commit give the same run. */
  readonly run: number;
  /** How often a call to a vendor fails, and how often an invocation dies at one of its calls: 0 to 1. */
  readonly odds: { readonly vendorFailure: number; readonly death: number };
  readonly specs: readonly Readonly<Record<string, unknown>>[];
  /** Calls take no time here: only a wait of the caller refills a bucket. @default none */
  readonly quotas?: readonly Quota[];
}

const account = '123456789012';
const region = 'eu-central-1';
const functionArn = `arn:aws:lambda:${region}:${account}:function:rekey-rotate-secret`;
const busName = 'rekey';
const busy: ReadonlySet<keyof Ports> = new Set<keyof Ports>(['now', 'sleep', 'randomBytes']);

/** All of rekey between stand-ins of AWS and vendors in memory, in one process, on a clock that only waiting moves. */
export async function createSimulation({ start, run, odds, specs, quotas = [] }: SimulationOptions) {
  const clock = createVirtualClock(start);
  const random = randomOfRun(run);
  const chance = (odd: number): boolean => odd > 0 && random() < odd;
  let isDisturbed = false;
  const vendors = createSimulatedVendors(
    { clock, apiKeyOf: (key: Sensitive) => key.reveal() },
    {
      disturb: () =>
        isDisturbed && chance(odds.vendorFailure)
          ? random() < 0.5
            ? 'fail-before'
            : 'fail-after'
          : undefined,
    },
  );
  const bus = createEventBridge({
    account,
    region,
    clock,
    random,
    buses: [busName],
    deliver: async () => ({ ok: true }),
  });
  const parameters = createParameters({ account, region, clock });
  const { limit, counts: callCounts } = createQuotas({ clock, quotas });
  const notes = startNotes(clock.now, limit);
  const counts = { rotations: 0, deaths: 0, failures: 0, passes: 0, invocations: 0 };
  const measured = new Map<MetricName, number>();
  const defects: unknown[] = [];
  // The same few thousand names are derived in every pass of the year.
  const digests = new Map<string, Uint8Array>();
  const sha256 = (text: string): Uint8Array => {
    const digest = digests.get(text) ?? createHash('sha256').update(text).digest();
    digests.set(text, digest);
    return digest;
  };
  const starts: { readonly at: Date; readonly secretId: string }[] = [];
  const tasks: TargetTask[] = [];
  /** Hears of each RotateSecret before it is carried out. */
  let onStart: (secretId: string) => Promise<void> = async () => undefined;

  const secretsManager = createSecretsManager({
    account,
    region,
    clock,
    random,
    emit: (event) => bus.emit(event),
    invoke: async (_arn, event) => {
      try {
        await invoke((rekey, until) => rotateSecret(parseRotationEvent(event), until, rekey));
        return { ok: true };
      } catch (error) {
        counts.failures += 1;
        return { ok: false, error: error instanceof Error ? error.message : String(error) };
      }
    },
  });
  const awsPorts = {
    ...secretsManagerPorts(clientOf(limit(secretsManager)), createRedactor(), clock.now),
    ...parameterStore(clientOf(limit(parameters)), clock.now),
    ...notes.ports,
    publish: eventBridge(clientOf(limit(bus)), busName, { sleep: (ms) => clock.sleep(ms) }),
    notify: otherBuses(clientOf(limit(bus)), { sleep: (ms) => clock.sleep(ms) }, clock.now),
    enqueue: async (added: readonly TargetTask[]) => void tasks.push(...added),
    now: async () => clock.now(),
    sleep: (ms: number) => clock.sleep(ms),
    randomBytes: async (size: number) => Uint8Array.from({ length: size }, () => Math.floor(random() * 256)),
  };

  /** One invocation as Lambda runs it: it may die at any of its calls, and is gone for good then. */
  async function invoke<Answer>(use: (rekey: Rekey, until: Date) => Promise<Answer>): Promise<Answer> {
    counts.invocations += 1;
    const until = new Date(clock.now().getTime() + 890_000);
    const death = Promise.withResolvers<never>();
    death.promise.catch(() => undefined);
    const lastCall = isDisturbed && chance(odds.death) ? Math.floor(random() * 40) : Number.POSITIVE_INFINITY;
    let calls = 0;
    const ports = interpose(awsPorts as Ports, async (name, request, call) => {
      if (busy.has(name)) return call();
      calls += 1;
      if (calls > lastCall) {
        counts.deaths += 1;
        death.reject(new Error('killed'));
        return new Promise(() => undefined);
      }
      if (name === 'startRotation') {
        const { secretId } = request as Parameters<Ports['startRotation']>[0];
        await onStart(secretId);
        starts.push({ at: clock.now(), secretId });
      }
      return call();
    });
    const rekey: Rekey = {
      ports: guardWrites(ports, clock.now),
      loadProvider: vendors.loadProvider,
      loadConsumer,
      sha256,
      log: () => undefined,
      measure: (metric, value) => void measured.set(metric, value),
    };
    return Promise.race([use(rekey, until), death.promise]);
  }

  /** An invocation that EventBridge or SQS asked for: it fails where it must, and is asked again by the next pass. */
  const pass = async <Answer>(
    use: (rekey: Rekey, until: Date) => Promise<Answer>,
  ): Promise<Answer | undefined> => {
    counts.passes += 1;
    return invoke(use).catch((error: unknown) => {
      counts.failures += 1;
      if (error instanceof TypeError || error instanceof RangeError) defects.push(error);
      return undefined;
    });
  };

  for (const key of new Set(specs.map((spec) => String(spec['apiKeySecret']))))
    await secretsManager.call('CreateSecret', {
      Name: key,
      SecretString: `key-of-${key.split('/').at(-1)}`,
      ClientRequestToken: createHash('sha256').update(key).digest('hex').slice(0, 32),
    });
  /** As the stack does: spec, secret with the first value, rotation attached and not started. */
  const declare = async (document: Readonly<Record<string, unknown>>): Promise<void> => {
    const spec = await parseSpec(document, { loadProvider: vendors.loadProvider, loadConsumer });
    await parameters.call('PutParameter', {
      Name: specParameterName(spec.name),
      Value: specDocument(spec),
      Type: 'String',
    });
    const token = createHash('sha256').update(spec.name).digest('hex');
    await secretsManager.call('CreateSecret', {
      Name: secretName(spec.name),
      SecretString: firstSecretString,
      ClientRequestToken: token.slice(0, 32),
    });
    await secretsManager.call('RotateSecret', {
      SecretId: secretName(spec.name),
      ClientRequestToken: token.slice(32),
      RotationLambdaARN: functionArn,
      RotateImmediately: false,
      RotationRules: { AutomaticallyAfterDays: backstopDays(spec) },
    });
  };
  for (const document of specs) await declare(document);

  return {
    clock,
    declare,
    random,
    vendors,
    secretsManager,
    counts,
    callCounts,
    measured,
    defects,
    starts,
    events: (): readonly BusEvent[] => bus.history(busName),
    setOnStart(hook: (secretId: string) => Promise<void>): void {
      onStart = hook;
    },
    /** Faults only after the world stands. */
    disturb(on: boolean): void {
      isDisturbed = on;
    },
    start: () =>
      pass((rekey, until) =>
        startRotations({ is: 'pass', dryRun: false }, { rotationFunctionArn: functionArn }, until, rekey),
      ),
    sweep: () => pass((rekey, until) => deleteUsers({ is: 'pass', dryRun: false }, until, rekey)),
    async reconcile(): Promise<void> {
      await pass((rekey, until) =>
        reconcileUsers({ is: 'pass', dryRun: false }, { webhookBaseUrl }, until, rekey),
      );
      const messages = tasks
        .splice(0)
        .map((task, index) => ({ id: String(index), body: JSON.stringify(task) }));
      for (let from = 0; from < messages.length; from += 5)
        await pass((rekey, until) =>
          reconcileUsers(
            { is: 'messages', messages: messages.slice(from, from + 5) },
            { webhookBaseUrl },
            until,
            rekey,
          ),
        );
    },
  };
}
