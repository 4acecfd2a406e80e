import { createHash } from 'node:crypto';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { parameterStore } from '../functions/aws/parameters.ts';
import { redelivery } from '../functions/aws/queue.ts';
import { secretsManager as secretsManagerPorts } from '../functions/aws/secrets.ts';
import { loadConsumer } from '../functions/consumers/index.ts';
import { interpose, type Ports } from '../functions/core/ports.ts';
import { maxBatch, maxTries } from '../functions/core/queued-events.ts';
import { createRedactor } from '../functions/core/sensitive.ts';
import { guardWrites } from '../functions/lifecycle/guarded-write.ts';
import type { Rekey } from '../functions/lifecycle/rekey.ts';
import { loadProvider } from '../functions/providers/index.ts';
import { createEventBridge } from '../infra/local/aws/event-bridge.ts';
import { startEventSource } from '../infra/local/aws/event-source-mapping.ts';
import { clientOf } from '../infra/local/aws/in-process-client.ts';
import { createParameters } from '../infra/local/aws/parameters.ts';
import { createQueues } from '../infra/local/aws/queues.ts';
import { createQuotas, publishedQuotas } from '../infra/local/aws/quotas.ts';
import { createSecretsManager } from '../infra/local/aws/secrets-manager.ts';
import { createVirtualClock } from '../infra/local/simulation/virtual-clock.ts';

// The handler as it is deployed, with ports of this test instead of clients of AWS.
vi.mock('../functions/runtime/compose.ts', () => ({
  handlerOf: (_schema: unknown, use: unknown) => use,
  once: (make: unknown) => make,
}));
const { handler } = (await import('../functions/start-rotations.ts')) as unknown as {
  handler: (event: unknown, until: Date, rekey: Rekey, environment: object) => Promise<unknown>;
};

const account = '123456789012';
const region = 'eu-central-1';
const functionArn = `arn:aws:lambda:${region}:${account}:function:rekey-start-rotations`;
const queueArn = (name: string) => `arn:aws:sqs:${region}:${account}:${name}`;
const minuteMs = 60_000;
/** What a call to AWS takes. */
const callMs = 30;

/** EventBridge, the queue of orders with its function, and stores with the quotas of a new account, on a clock that only waiting moves. */
async function createStorm() {
  const clock = createVirtualClock(new Date('2026-03-01T12:00:00Z'));
  const queues = createQueues({ account, region, clock });
  queues.addQueue({ name: 'lost', retentionSeconds: 14 * 86_400 });
  queues.addQueue({
    name: 'orders',
    visibilityTimeoutSeconds: 3_600,
    retentionSeconds: 14 * 86_400,
    redrive: { deadLetterArn: queueArn('lost'), maxReceiveCount: maxTries },
  });
  const bus = createEventBridge({
    account,
    region,
    clock,
    buses: ['rekey'],
    deliver: async (target, event) => {
      queues.send(target, JSON.stringify(event));
      return { ok: true };
    },
  });
  const orders = ['CredentialRotationRequested', 'CredentialCompromised', 'RekeyPaused', 'RekeyResumed'];
  bus.addRule({
    name: 'orders',
    busName: 'rekey',
    pattern: { source: ['rekey'], 'detail-type': orders },
    targets: [{ arn: queueArn('orders') }],
  });
  const parameters = createParameters({ account, region, clock });
  const secretsManager = createSecretsManager({
    account,
    region,
    clock,
    emit: () => undefined,
    invoke: async () => ({ ok: true }),
  });
  const { limit, counts } = createQuotas({ clock, quotas: publishedQuotas });
  /** While it is true, Parameter Store throttles every call. */
  let isDown = false;
  const unused = async (): Promise<never> => {
    throw new Error('start-rotations has no business there');
  };
  const aws = {
    ...secretsManagerPorts(clientOf(limit(secretsManager)), createRedactor(), clock.now),
    ...parameterStore(
      clientOf(
        limit({
          ...parameters,
          call: (name, input) =>
            isDown
              ? Promise.reject(
                  Object.assign(new Error('Rate exceeded'), {
                    name: 'ThrottlingException',
                    $metadata: { httpStatusCode: 400, attempts: 3 },
                  }),
                )
              : parameters.call(name, input),
        }),
      ),
      clock.now,
    ),
    ...redelivery(clientOf(queues), `http://127.0.0.1/${account}/lost`),
    publish: async () => undefined,
    enqueue: unused,
    enqueueStart: async () => undefined,
    now: async () => clock.now(),
    sleep: (ms: number) => clock.sleep(ms),
  };
  const rekey: Rekey = {
    ports: guardWrites(
      interpose(aws as unknown as Ports, async (name, _request, call) => {
        if (name !== 'now' && name !== 'sleep') await clock.sleep(callMs);
        return call();
      }),
      clock.now,
    ),
    loadProvider,
    loadConsumer,
    sha256: (text) => createHash('sha256').update(text).digest(),
    log: () => undefined,
    measure: () => undefined,
  };
  const environment = {
    REKEY_ROTATION_FUNCTION_ARN: `arn:aws:lambda:${region}:${account}:function:rekey-rotate-secret`,
  };
  const running = { now: 0, most: 0 };
  const source = startEventSource(
    {
      queueArn: queueArn('orders'),
      functionArn,
      batchSize: maxBatch,
      maximumConcurrency: 3,
      reportsItemFailures: true,
    },
    {
      region,
      queues,
      async invoke(_arn, event) {
        running.now += 1;
        running.most = Math.max(running.most, running.now);
        const until = new Date(clock.now().getTime() + 590_000);
        try {
          return { ok: true, payload: await handler(event, until, rekey, environment) };
        } catch {
          return { ok: false };
        } finally {
          running.now -= 1;
        }
      },
    },
  );
  onTestFinished(() => {
    queues.stop();
    void source.stop();
  });
  return {
    clock,
    bus,
    counts,
    running,
    set isDown(value: boolean) {
      isDown = value;
    },
    waiting: () => queues.messages(queueArn('orders')),
    lost: () => queues.messages(queueArn('lost')),
    runFor: (ms: number) => clock.runUntil(new Date(clock.now().getTime() + ms)),
    async declare(names: readonly string[]): Promise<void> {
      for (const name of names)
        await parameters.call('PutParameter', {
          Name: `/rekey/credentials/${name}`,
          Type: 'String',
          Value: JSON.stringify({
            name,
            provider: 'cockroachdb-cloud',
            target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10' },
            apiKeySecret: 'rekey/api-keys/cockroachdb',
            usernamePrefix: name.replaceAll('-', '_'),
          }),
        });
    },
    async order(type: string, names: readonly string[]): Promise<void> {
      for (let from = 0; from < names.length; from += 10) {
        const Entries = names.slice(from, from + 10).map((credential) => ({
          EventBusName: 'rekey',
          Source: 'rekey',
          DetailType: type,
          Detail: JSON.stringify({ credential }),
        }));
        const answer = await bus.call('PutEvents', { Entries });
        expect(answer).toMatchObject({ FailedEntryCount: 0 });
      }
      await bus.idle();
    },
    /** The credentials that were ordered to be revoked, as it is stored. */
    async revoked(): Promise<readonly string[]> {
      const found: string[] = [];
      let NextToken: string | undefined;
      do {
        const page = (await parameters.call('GetParametersByPath', {
          Path: '/rekey/directives',
          Recursive: true,
          ...(NextToken === undefined ? {} : { NextToken }),
        })) as { Parameters: { Name: string }[]; NextToken?: string };
        found.push(
          ...page.Parameters.flatMap(
            ({ Name }) => /^\/rekey\/directives\/(.+)\/revokeBefore$/.exec(Name)?.[1] ?? [],
          ),
        );
        NextToken = page.NextToken;
      } while (NextToken !== undefined);
      return found.toSorted();
    },
  };
}

const names = Array.from({ length: 200 }, (_, index) => `orders-${String(index).padStart(3, '0')}`);

describe('I27: 200 orders within a second', () => {
  test('are all stored, though Parameter Store takes three writes a second, and none is lost', async () => {
    const storm = await createStorm();
    await storm.declare(names);
    await storm.order('CredentialCompromised', names);
    expect(storm.waiting()).toHaveLength(200);
    await storm.runFor(10 * minuteMs);
    expect(await storm.revoked()).toEqual(names);
    expect([storm.waiting(), storm.lost()]).toEqual([[], []]);
    expect(storm.counts.get('ssm:PutParameter')?.throttled).toBeGreaterThan(0);
    expect(storm.running.most).toBe(3);
  });

  test('are not held up by those that name no credential, which people find with their reason', async () => {
    const storm = await createStorm();
    await storm.declare(names.slice(0, 100));
    await storm.order('CredentialCompromised', names);
    await storm.runFor(15 * minuteMs);
    expect(await storm.revoked()).toEqual(names.slice(0, 100));
    expect(storm.waiting()).toEqual([]);
    const lost = storm
      .lost()
      .map(({ body, messageAttributes: { ERROR_CODE, ERROR_MESSAGE } }) => [
        JSON.parse(body).detail.credential,
        ERROR_CODE?.StringValue,
        /there is no \S+/.exec(ERROR_MESSAGE?.StringValue ?? '')?.[0],
      ]);
    expect(lost.toSorted()).toEqual(
      names.slice(100).map((name) => [name, 'SPEC_MISSING', `there is no /rekey/credentials/${name};`]),
    );
  });
});

describe('I27: orders', () => {
  test('outlive a Parameter Store that serves nobody for six hours', async () => {
    const some = names.slice(0, 20);
    const storm = await createStorm();
    await storm.declare(some);
    storm.isDown = true;
    await storm.order('CredentialCompromised', some);
    await storm.runFor(6 * 60 * minuteMs);
    expect(storm.waiting()).toHaveLength(20);
    expect(storm.lost()).toEqual([]);
    storm.isDown = false;
    await storm.runFor(30 * minuteMs);
    expect(await storm.revoked()).toEqual(some);
    expect([storm.waiting(), storm.lost()]).toEqual([[], []]);
  });
});
