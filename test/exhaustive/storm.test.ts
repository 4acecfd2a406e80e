import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { directiveParameter } from '../../functions/core/directives.ts';
import { StoreError } from '../../functions/core/errors.ts';
import type { StartTask } from '../../functions/core/fleet.ts';
import { specParameterName } from '../../functions/core/names.ts';
import type { Ports, VersionListing } from '../../functions/core/ports.ts';
import { parseSpec } from '../../functions/core/spec.ts';
import { carryOutOrders, takeOrder } from '../../functions/lifecycle/carry-out-orders.ts';
import { guardWrites } from '../../functions/lifecycle/guarded-write.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { startRotations } from '../../functions/lifecycle/start-rotations.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import { tokenBucket } from '../../infra/local/aws/token-bucket.ts';
import { createVirtualClock } from '../../infra/local/simulation/virtual-clock.ts';
import { startNotes } from '../support/notes.ts';

/**
 * An emergency on a clock of its own: one credential a target, the default quotas of an account, the SDK's three attempts, and the queues
 * as they are deployed. A rotation takes 20 seconds, and reads Parameter Store four times.
 */

const start = new Date('2026-03-01T12:00:00Z');
const minuteMs = 60_000;
const perSecond = {
  'ssm:Get': 40,
  'ssm:Put': 3,
  ListSecretVersionIds: 50,
  ListSecrets: 100,
  RotateSecret: 50,
  DescribeSecret: 10_000,
} as const;
type Quota = keyof typeof perSecond;

const workers = { orders: 3, starts: 10 } as const;
const batch = 10;
const rotationMs = 20_000;

interface Emergency {
  readonly credentials: number;
  /** How many of them are compromised. */
  readonly compromised: number;
}

async function emergency({ credentials: n, compromised }: Emergency) {
  const clock = createVirtualClock(start);
  let seed = 7;
  const random = (): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return seed / 2_147_483_648;
  };
  const quotas = Object.fromEntries(
    Object.entries(perSecond).map(([call, rate]) => [
      call,
      tokenBucket(clock, { ratePerSecond: rate, burst: rate }),
    ]),
  ) as Record<Quota, () => boolean>;
  const counts: Record<string, number> = {};
  /** As the SDK makes it: after a throttle it waits for up to half a second, then for up to one. */
  async function call(quota: Quota, ms = 15): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      counts[quota] = (counts[quota] ?? 0) + 1;
      await clock.sleep(ms);
      if (quotas[quota]()) return;
      if (attempt === 2) throw new StoreError('STORE_UNAVAILABLE', 'none', `${quota} was throttled`);
      await clock.sleep(random() * 500 * 2 ** attempt);
    }
  }

  interface Secret {
    versions: VersionListing[];
    rotatedAt: Date;
    changedAt: Date;
    revokedGone: number | undefined;
  }
  const made = new Date('2026-02-20T00:00:00Z');
  const names = Array.from({ length: n }, (_, index) => `c${String(index).padStart(5, '0')}`);
  const secrets = new Map<string, Secret>(
    names.map((name) => [
      `rekey/${name}`,
      {
        versions: [{ versionId: 'b'.repeat(32), labels: new Set(['AWSCURRENT']), createdAt: made }],
        rotatedAt: made,
        changedAt: made,
        revokedGone: undefined,
      },
    ]),
  );
  const parameters = new Map(
    names.map((name, index) => [
      specParameterName(name),
      JSON.stringify({
        name,
        provider: 'cockroachdb-cloud',
        usernamePrefix: name,
        apiKeySecret: `rekey/api-keys/k${index % 20}`,
        target: { clusterId: `0b7c5a2e-6d2f-4b53-9d1a-${String(index).padStart(12, '0')}` },
      }),
    ]),
  );
  const secretOf = (id: string): Secret => {
    const secret = secrets.get(id.replace(/^arn:/, ''));
    if (secret === undefined) throw new Error(`there is no ${id}`);
    return secret;
  };
  const stateOf = (name: string) => {
    const { versions, rotatedAt, changedAt } = secretOf(name);
    return {
      arn: `arn:${name}`,
      name,
      rotationEnabled: true,
      createdAt: made,
      lastRotatedAt: rotatedAt,
      changedAt,
      labelsByVersion: new Map(
        versions.filter(({ labels }) => labels.size > 0).map(({ versionId, labels }) => [versionId, labels]),
      ),
    };
  };
  /** One page after the other. */
  const pages = async (quota: Quota, items: number, size: number): Promise<void> => {
    for (let page = 0; page < Math.max(1, Math.ceil(items / size)); page += 1) await call(quota);
  };
  const messages: StartTask[] = [];
  const ports: Partial<Ports> = {
    ...startNotes(clock.now).ports,
    now: async () => clock.now(),
    sleep: (ms) => clock.sleep(ms),
    async listParameters({ path }) {
      const found = [...parameters].filter(([name]) => name.startsWith(path));
      await pages('ssm:Get', found.length, 10);
      return found.map(([parameter, document]) => ({ parameter, document }));
    },
    async readParameters({ parameters: asked }) {
      await call('ssm:Get');
      return new Map(
        asked.flatMap((name) => {
          const document = parameters.get(name);
          return document === undefined ? [] : [[name, document] as const];
        }),
      );
    },
    async readParameter({ parameter }) {
      await call('ssm:Get');
      return parameters.get(parameter) ?? 'absent';
    },
    async createParameter({ parameter, document }) {
      await call('ssm:Put');
      if (parameters.has(parameter)) return 'exists';
      parameters.set(parameter, document);
      return 'written';
    },
    async writeParameter({ parameter, document }) {
      await call('ssm:Put');
      parameters.set(parameter, document);
    },
    async listSecrets() {
      await pages('ListSecrets', n, 100);
      return [...secrets.keys()].map((name) => ({ ...stateOf(name), isManaged: false }));
    },
    async describeSecret({ secretId }) {
      await call('DescribeSecret');
      return stateOf(secretId.replace(/^arn:/, ''));
    },
    async listVersions({ secretId }) {
      await call('ListSecretVersionIds');
      return secretOf(secretId).versions;
    },
    async startRotation({ secretId, token, guard }) {
      await guard.ask(clock.now());
      await call('RotateSecret');
      const secret = secretOf(secretId);
      if (secret.versions.some(({ versionId }) => versionId === token)) return 'started';
      secret.versions = [
        ...secret.versions,
        { versionId: token, labels: new Set(['AWSPENDING']), createdAt: clock.now() },
      ];
      secret.changedAt = clock.now();
      void (async () => {
        for (let step = 0; step < 4; step += 1) {
          // Secrets Manager tries a step again.
          for (;;) {
            try {
              await call('ssm:Get');
              break;
            } catch {
              await clock.sleep(5_000);
            }
          }
          await clock.sleep(rotationMs / 4);
        }
        secret.versions = secret.versions.map((version) => ({
          ...version,
          labels: new Set(
            version.versionId === token
              ? ['AWSCURRENT']
              : version.labels.has('AWSCURRENT')
                ? ['AWSPREVIOUS']
                : [],
          ),
        }));
        secret.rotatedAt = secret.changedAt = clock.now();
        secret.revokedGone ??= clock.now().getTime();
      })();
      return 'started';
    },
    publish: async () => undefined,
    enqueue: async () => undefined,
    enqueueStart: async (starts) => void messages.push(...starts),
  };
  const rekey: Rekey = {
    ports: guardWrites(ports as Ports, clock.now),
    loadProvider,
    loadConsumer,
    sha256: (text) => createHash('sha256').update(text).digest(),
    log: () => undefined,
    measure: () => undefined,
  };
  const options = {
    rotationFunctionArn: 'arn:aws:lambda:eu-central-1:123456789012:function:rekey-rotate-secret',
  };
  const until = (ms: number): Date => new Date(clock.now().getTime() + ms);

  // Loading a provider takes time that the clock does not know of.
  for (const document of [...parameters.values()].slice(0, 1)) await parseSpec(JSON.parse(document), rekey);
  let lost = 0;
  const orders = names.slice(0, compromised);
  /** A queue with so many workers; a message that fails comes again. */
  const work = async <Item>(
    items: Item[],
    isOver: () => boolean,
    use: (taken: readonly Item[]) => Promise<readonly Item[]>,
  ): Promise<void> => {
    while (!isOver()) {
      const taken = items.splice(0, batch);
      if (taken.length === 0) await clock.sleep(1_000);
      else items.push(...(await use(taken)));
    }
  };
  const isOver = (): boolean => orders.every((name) => secretOf(`rekey/${name}`).revokedGone !== undefined);
  for (let worker = 0; worker < workers.orders; worker += 1)
    void work(orders.length === 0 ? [] : queueOf(orders), isOver, async (taken) => {
      const failed = await Promise.all(
        taken.map(async (credential) => {
          try {
            await takeOrder(
              { is: 'order', order: 'CredentialCompromised', credential, orderedAt: start },
              until(10 * minuteMs),
              rekey,
            );
            return [];
          } catch {
            lost += 1;
            return [credential];
          }
        }),
      );
      return failed.flat();
    });
  for (let worker = 0; worker < workers.starts; worker += 1)
    void work(messages, isOver, async (taken) => {
      const starts = taken.map(({ id, ...start }) => ({ ...start, messageId: id }));
      const { failed } = await carryOutOrders(starts, options, until(10 * minuteMs), rekey);
      return taken.filter(({ id }) => failed.includes(id));
    });
  void (async () => {
    while (!isOver()) {
      await startRotations({ is: 'pass', dryRun: false }, options, until(10 * minuteMs), rekey).catch(
        () => undefined,
      );
      await clock.sleep(5 * minuteMs);
    }
  })();

  let minute = 0;
  while (!isOver() && minute < 120) {
    minute += 1;
    await clock.runUntil(new Date(start.getTime() + minute * minuteMs));
  }
  const rotatedAfter = orders.map(
    (name) => ((secretOf(`rekey/${name}`).revokedGone ?? Number.POSITIVE_INFINITY) - start.getTime()) / 1000,
  );
  return {
    stored: orders.filter((name) => parameters.has(directiveParameter(name, 'revokeBefore'))).length,
    cameAgain: lost,
    lastAfterS: Math.max(...rotatedAfter),
    counts,
  };
}

/** Both workers take from one queue. */
const queues = new WeakMap<readonly string[], string[]>();
function queueOf(orders: readonly string[]): string[] {
  const known = queues.get(orders) ?? [...orders];
  queues.set(orders, known);
  return known;
}

test.each([
  { compromised: 60, slowest: 2 },
  { compromised: 2_000, slowest: 1.1 },
])(
  'I20: of $compromised compromises at once under the default quotas no order is lost, and all are rotated within $slowest times the time that it takes to store them',
  async ({ compromised, slowest }) => {
    const { stored, cameAgain, lastAfterS } = await emergency({ credentials: compromised, compromised });
    expect({ stored, cameAgain }).toEqual({ stored: compromised, cameAgain: 0 });
    // Parameter Store takes three writes a second: nothing else is slower.
    const bound = compromised / perSecond['ssm:Put'] + rotationMs / 1000;
    expect(lastAfterS / bound).toBeLessThan(slowest);
  },
  120_000,
);
