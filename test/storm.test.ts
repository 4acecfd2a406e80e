import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, Stack } from 'aws-cdk-lib';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { parameterStore } from '../functions/aws/parameters.ts';
import { redelivery } from '../functions/aws/queue.ts';
import { secretsManager as secretsManagerPorts } from '../functions/aws/secrets.ts';
import { loadConsumer } from '../functions/consumers/index.ts';
import { interpose, type Ports } from '../functions/core/ports.ts';
import { createRedactor } from '../functions/core/sensitive.ts';
import { guardWrites } from '../functions/lifecycle/guarded-write.ts';
import type { Rekey as Context } from '../functions/lifecycle/rekey.ts';
import { loadProvider } from '../functions/providers/index.ts';
import { AwsError } from '../infra/local/aws/aws-error.ts';
import { createEventBridge } from '../infra/local/aws/event-bridge.ts';
import { startEventSource } from '../infra/local/aws/event-source-mapping.ts';
import { clientOf } from '../infra/local/aws/in-process-client.ts';
import { createParameters } from '../infra/local/aws/parameters.ts';
import { createQueues } from '../infra/local/aws/queues.ts';
import { createQuotas, publishedQuotas } from '../infra/local/aws/quotas.ts';
import { createSecretsManager } from '../infra/local/aws/secrets-manager.ts';
import type { AwsService } from '../infra/local/aws/service.ts';
import { randomOfRun } from '../infra/local/simulation/random.ts';
import { createVirtualClock } from '../infra/local/simulation/virtual-clock.ts';
import { type LocalStack, readTemplate } from '../infra/local/template.ts';
import { Rekey } from '../infra/rekey.ts';

// The handler as it is deployed, with ports of this test instead of clients of AWS.
vi.mock('../functions/runtime/compose.ts', () => ({
  handlerOf: (_schema: unknown, use: unknown) => use,
  once: (make: unknown) => make,
}));
const { handler } = (await import('../functions/start-rotations.ts')) as unknown as {
  handler: (event: unknown, until: Date, rekey: Context, environment: object) => Promise<unknown>;
};

const account = '123456789012';
const region = 'eu-central-1';
const minuteMs = 60_000;
/** What a call to AWS takes. */
const callMs = 30;

const root = mkdtempSync(join(tmpdir(), 'rekey-storm-'));
/** Queues, rules and event source mappings as they are deployed. */
let stack: LocalStack;
beforeAll(async () => {
  mkdirSync(join(root, 'functions'));
  writeFileSync(join(root, 'functions/start-rotations.mjs'), '');
  const app = new App({ outdir: join(root, 'out') });
  new Rekey(new Stack(app, 'Rekey'), 'Rekey', { code: Code.fromAsset(join(root, 'functions')) });
  stack = await readTemplate(join(app.synth().directory, 'Rekey.template.json'), { account, region });
});
afterAll(() => rmSync(root, { recursive: true }));

const queueNamed = (name: string) => {
  const found = stack.queues.find(({ logicalId }) => logicalId.startsWith(`Rekey${name}`));
  if (found === undefined) throw new Error(`the stack has no queue ${name}`);
  return found;
};

/**
 * EventBridge, the queues from which start-rotations takes its events, and stores with the quotas of a new account, on a clock that only
 * waiting moves.
 */
async function createStorm({ run = 1 } = {}) {
  const clock = createVirtualClock(new Date('2026-03-01T12:00:00Z'));
  const random = randomOfRun(run);
  // Loading a provider takes time that the clock does not know of.
  await loadProvider('cockroachdb-cloud');
  const queues = createQueues({ account, region, clock });
  for (const { redrive, ...queue } of stack.queues)
    queues.addQueue({ ...queue, ...(redrive === undefined ? {} : { redrive }) });
  const fed = stack.eventSources.filter(
    ({ functionArn, queueArn }) =>
      functionArn.endsWith(':rekey-start-rotations') && queueArn !== queueNamed('Starts').arn,
  );
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
  for (const { name, busName, pattern, targets } of stack.rules)
    if (targets.some(({ arn }) => fed.some(({ queueArn }) => queueArn === arn)))
      bus.addRule({ name, busName, pattern, targets: targets.map(({ arn }) => ({ arn })) });
  const parameters = createParameters({ account, region, clock });
  const secretsManager = createSecretsManager({
    account,
    region,
    clock,
    emit: () => undefined,
    invoke: async () => ({ ok: true }),
  });
  const { limit, counts } = createQuotas({ clock, quotas: publishedQuotas });
  /** As the SDK calls it: three attempts, and after a throttle a pause of up to half a second, then of up to a whole one. */
  function called(service: AwsService): AwsService {
    const limited = limit(service);
    return {
      ...service,
      async call(...request) {
        for (let attempt = 1; ; attempt += 1)
          try {
            return await limited.call(...request);
          } catch (error) {
            if (attempt === 3 || !(error instanceof AwsError && error.name === 'ThrottlingException'))
              throw error;
            await clock.sleep(random() * 500 * 2 ** (attempt - 1));
          }
      },
    };
  }
  /** While it is true, Parameter Store throttles every call. */
  let isDown = false;
  const unused = async (): Promise<never> => {
    throw new Error('start-rotations has no business there');
  };
  const aws = {
    ...secretsManagerPorts(clientOf(called(secretsManager)), createRedactor(), clock.now),
    ...parameterStore(
      clientOf(
        called({
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
    ...redelivery(clientOf(queues), queueNamed('LostRequests').url),
    publish: async () => undefined,
    enqueue: unused,
    enqueueStart: async () => undefined,
    now: async () => clock.now(),
    sleep: (ms: number) => clock.sleep(ms),
  };
  const rekey: Context = {
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
  const sources = fed.map((mapping) =>
    startEventSource(mapping, {
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
    }),
  );
  onTestFinished(() => {
    queues.stop();
    for (const source of sources) void source.stop();
  });
  async function send(type: string, details: readonly object[]): Promise<void> {
    for (let from = 0; from < details.length; from += 10) {
      const Entries = details.slice(from, from + 10).map((detail) => ({
        EventBusName: 'rekey',
        Source: 'rekey',
        DetailType: type,
        Detail: JSON.stringify(detail),
      }));
      const answer = await bus.call('PutEvents', { Entries });
      expect(answer).toMatchObject({ FailedEntryCount: 0 });
    }
    await bus.idle();
  }
  return {
    counts,
    running,
    set isDown(value: boolean) {
      isDown = value;
    },
    waiting: () => queues.messages(queueNamed('StartRotationsEvents').arn),
    lost: () => queues.messages(queueNamed('LostRequests').arn),
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
    send,
    order: (type: string, names: readonly string[]) =>
      send(
        type,
        names.map((credential) => ({ credential })),
      ),
    /** From now on as many writers as delete-user has workers compete with start-rotations, each with one write at all times. */
    writeBeside(writers: number): void {
      const { call } = called(parameters);
      const write = { Value: '1', Type: 'String', Overwrite: true };
      for (let writer = 0; writer < writers; writer += 1)
        void (async () => {
          for (;;) {
            await clock.sleep(callMs);
            await call('PutParameter', { Name: `/rekey/other/${writer}`, ...write }).catch(() => undefined);
          }
        })();
    },
    /** How long it takes until all of these parameters are stored; half an hour is for ever. */
    async secondsUntilStored(names: readonly string[]): Promise<number> {
      for (let seconds = 0; seconds < 1_800; seconds += 1) {
        // Past the quotas, as nothing of rekey reads here.
        const found = await Promise.all(
          names.map((Name) => parameters.call('GetParameter', { Name }).catch(() => 'absent')),
        );
        if (!found.includes('absent')) return seconds;
        await clock.runUntil(new Date(clock.now().getTime() + 1_000));
      }
      return Number.POSITIVE_INFINITY;
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

describe('behind 600 compromises, while these and delete-user try more writes than Parameter Store takes', () => {
  const compromised = Array.from({ length: 600 }, (_, index) => `orders-${String(index).padStart(3, '0')}`);
  const provider = 'cockroachdb-cloud';
  const targets = Array.from({ length: 20 }, (_, index) => `0b7c5a2e-6d2f-4b53-9d1a-0000000000${10 + index}`);
  const cases = {
    'a pause of everything': { details: [{}], parameters: ['/rekey/pause/all'] },
    'each of 20 pauses of one target': {
      details: targets.map((target) => ({ provider, target })),
      parameters: targets.map((target) => `/rekey/pause/${provider}/${target}`),
    },
  };
  test.each(Object.entries(cases))(
    '%s is stored within a minute',
    async (_sentence, { details, parameters }) => {
      // In this run throttling hits pauses harder than in most.
      const storm = await createStorm({ run: 8 });
      await storm.declare(compromised);
      storm.writeBeside(
        stack.eventSources.find(({ queueArn }) => queueArn === queueNamed('DeleteUserEvents').arn)
          ?.maximumConcurrency ?? 0,
      );
      await storm.order('CredentialCompromised', compromised);
      await storm.runFor(minuteMs / 2);
      await storm.send('RekeyPaused', details);
      const secondsUntil = await storm.secondsUntilStored(parameters);
      expect(secondsUntil).toBeLessThan(60);
      expect(storm.waiting().length).toBeGreaterThan(500);
    },
  );
});
