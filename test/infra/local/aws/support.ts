import { setImmediate as nextTurn } from 'node:timers/promises';
import { EventBridgeClient } from '@aws-sdk/client-eventbridge';
import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { SQSClient } from '@aws-sdk/client-sqs';
import { SSMClient } from '@aws-sdk/client-ssm';
import { onTestFinished } from 'vitest';
import type { BusEvent } from '../../../../infra/local/aws/bus-event.ts';
import { type OnCall, startAwsEndpoint } from '../../../../infra/local/aws/endpoint.ts';
import { createEventBridge, type EventBridgeOptions } from '../../../../infra/local/aws/event-bridge.ts';
import { createParameters } from '../../../../infra/local/aws/parameters.ts';
import { createQueues } from '../../../../infra/local/aws/queues.ts';
import { createQuotas, type Quota } from '../../../../infra/local/aws/quotas.ts';
import type { Variants } from '../../../../infra/local/aws/secrets-manager/model.ts';
import type {
  InvokeResult,
  InvokeRotation,
  RotationEvent,
} from '../../../../infra/local/aws/secrets-manager/rotation.ts';
import { createSecretsManager } from '../../../../infra/local/aws/secrets-manager.ts';
import type { Clock } from '../../../../infra/local/clock.ts';

export const account = '111122223333';
export const region = 'eu-central-1';
export const functionArn = `arn:aws:lambda:${region}:${account}:function:rotate-secret`;

/** 32 characters, readable in a failure. */
export const token = (label: string): string => label.padEnd(32, '-');

export interface TestClock extends Clock {
  /** Moves time forward and lets everything that slept until then, and what follows from it, run. */
  advance(ms: number): Promise<void>;
}

/** Lets work that is already possible run to its end. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await nextTurn();
}

export function testClock(start = '2026-03-01T12:00:00Z'): TestClock {
  let nowMs = Date.parse(start);
  let sleepers: { until: number; wake: () => void }[] = [];
  return {
    now: () => new Date(nowMs),
    sleep: (ms) => new Promise((wake) => sleepers.push({ until: nowMs + ms, wake })),
    async advance(ms) {
      const end = nowMs + ms;
      for (;;) {
        await settle();
        const [next] = sleepers.filter(({ until }) => until <= end).sort((a, b) => a.until - b.until);
        if (next === undefined) break;
        sleepers = sleepers.filter((sleeper) => sleeper !== next);
        nowMs = Math.max(nowMs, next.until);
        next.wake();
      }
      nowMs = end;
      await settle();
    },
  };
}

export interface SystemOptions {
  readonly clock?: TestClock;
  readonly variants?: Partial<Variants>;
  readonly invoke?: InvokeRotation;
  readonly mayInvoke?: (arn: string) => boolean;
  readonly onCall?: OnCall;
  readonly eventBridge?: Partial<EventBridgeOptions>;
  readonly maxAttempts?: number;
  readonly quotas?: readonly Quota[];
}

/** All services behind one endpoint, with SDK clients; everything is closed when the test ends. */
export async function startSystem({
  clock = testClock(),
  variants = {},
  invoke = async () => ({ ok: true }),
  mayInvoke = () => true,
  onCall = () => undefined,
  eventBridge: bridgeOptions = {},
  maxAttempts = 1,
  quotas = [],
}: SystemOptions = {}) {
  const calls: RotationEvent[] = [];
  const eventBridge = createEventBridge({
    account,
    region,
    clock,
    deliver: async () => ({ ok: true }),
    ...bridgeOptions,
  });
  const secretsManager = createSecretsManager({
    account,
    region,
    clock,
    mayInvoke,
    variants,
    invoke: (arn, event) => {
      calls.push(event);
      return invoke(arn, event);
    },
    emit: eventBridge.emit,
  });
  const parameters = createParameters({ account, region, clock });
  const queues = createQueues({ account, region, clock });
  const { limit, counts: callCounts } = createQuotas({ clock, quotas });
  const defects: unknown[] = [];
  const endpoint = await startAwsEndpoint({
    services: [secretsManager, eventBridge, parameters, queues].map(limit),
    onCall,
    onDefect: (error) => defects.push(error),
    clock,
  });
  const config = {
    endpoint: endpoint.url,
    region,
    maxAttempts,
    credentials: { accessKeyId: 'AKIDTEST', secretAccessKey: 'not-a-key' },
  };
  const secrets = new SecretsManagerClient(config);
  const events = new EventBridgeClient(config);
  const ssm = new SSMClient(config);
  const sqs = new SQSClient(config);
  onTestFinished(async () => {
    await secretsManager.stop();
    await eventBridge.stop();
    queues.stop();
    for (const client of [secrets, events, ssm, sqs]) client.destroy();
    await endpoint.close();
  });
  return {
    clock,
    calls,
    secretsManager,
    eventBridge,
    parameters,
    queues,
    callCounts,
    endpoint,
    secrets,
    events,
    ssm,
    sqs,
    defects,
  };
}

export type System = Awaited<ReturnType<typeof startSystem>>;

/** The name and text of the refusal that a call must meet. */
export async function refusalOf(
  call: Promise<unknown>,
): Promise<{ name: string; message: string; status: number }> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof Error)) throw new Error('expected the call to be refused, but it succeeded');
  const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
  return { name: error.name, message: error.message, status: $metadata?.httpStatusCode ?? 0 };
}

/** Version ids with their labels, for versions that have any. */
export async function labelsOf(
  client: SecretsManagerClient,
  secretId: string,
): Promise<Record<string, string[]>> {
  return (await client.send(new DescribeSecretCommand({ SecretId: secretId }))).VersionIdsToStages ?? {};
}

/** A rotation function in the manner of AWS's template; `broken` steps fail. */
export async function rotateLikeTemplate(
  client: SecretsManagerClient,
  { Step, SecretId, ClientRequestToken }: RotationEvent,
  broken: (event: Pick<RotationEvent, 'Step'>) => boolean = () => false,
): Promise<InvokeResult> {
  if (broken({ Step })) return { ok: false, error: `${Step} is broken` };
  if (Step === 'createSecret') {
    try {
      await client.send(
        new GetSecretValueCommand({ SecretId, VersionId: ClientRequestToken, VersionStage: 'AWSPENDING' }),
      );
    } catch {
      await client.send(
        new PutSecretValueCommand({
          SecretId,
          ClientRequestToken,
          SecretString: `value of ${ClientRequestToken}`,
          VersionStages: ['AWSPENDING'],
        }),
      );
    }
  }
  if (Step === 'finishSecret') {
    const labels = await labelsOf(client, SecretId);
    const holder = Object.keys(labels).find((id) => labels[id]?.includes('AWSCURRENT'));
    if (holder !== undefined && holder !== ClientRequestToken)
      await client.send(
        new UpdateSecretVersionStageCommand({
          SecretId,
          VersionStage: 'AWSCURRENT',
          MoveToVersionId: ClientRequestToken,
          RemoveFromVersionId: holder,
        }),
      );
  }
  return { ok: true };
}

/** `eventName`s of service events, and `Secret Label Updated` as `label:version`. */
export function eventNames(events: readonly BusEvent[]): string[] {
  return events.flatMap(({ 'detail-type': type, detail }) => {
    if (type === 'AWS Service Event via CloudTrail') return [String(detail['eventName'])];
    return type === 'Secret Label Updated' ? [`${detail['labelUpdated']} on ${detail['versionId']}`] : [];
  });
}
