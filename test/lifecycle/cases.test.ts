import { describe, expect, test } from 'vitest';
import { ProviderError } from '../../functions/core/errors.ts';
import type { HttpRequest, Ports } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import { reconcileUsers } from '../../functions/lifecycle/reconcile-users.ts';
import { rotateSecret } from '../../functions/lifecycle/rotate-secret.ts';
import { updateConsumers } from '../../functions/lifecycle/update-consumers.ts';
import {
  anotherPassword,
  choosing,
  graceOverMs,
  hourMs,
  isDeletion,
  type Made,
  minuteMs,
  type ProviderId,
  scenarios,
  targets,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { token, webhookBaseUrl } from '../support/rekey.ts';

// A write whose reason is gone by the time it leaves, and a reading that is out of date: told as whole use cases.

const world = useCredentialWorld();
const { vendors, rekey, credential, compromise, login, works, labels, putLabel, move } = world;

const pass = { is: 'pass', dryRun: false } as const;
const outcomesOf = (report: Awaited<ReturnType<typeof deleteUsers>>, { prefix }: Made) =>
  Object.fromEntries(
    report.targets
      .flatMap(({ users }) => users)
      .filter(({ username }) => username.startsWith(`${prefix}_`))
      .map(({ username, outcome }) => [username, outcome]),
  );
const slowDown = (seconds: number) => ({
  status: 429,
  headers: { 'retry-after': String(seconds) },
  body: new Sensitive('{"message":"slow down"}'),
});

test('E2, I18: a deletion order that is older than the credential deletes nothing, and says so', async () => {
  const one = await credential({ provider: 'cockroachdb-cloud' });
  const before = { labels: await labels(one), users: await world.usersAt(one) };
  const orderedAt = new Date(world.now().getTime() - 60 * 24 * hourMs);
  move(hourMs);
  // Twice, as a queue delivers at least once.
  for (const _delivery of [1, 2])
    await rekey().sweep({
      is: 'order',
      order: 'CredentialDeletionRequested',
      credential: one.name,
      orderedAt,
    });
  expect({ labels: await labels(one), users: await world.usersAt(one) }).toEqual(before);
  expect(await works(await login(one))).toBe(true);
  expect(await rekey().describe(one.name)).toMatchObject({ RotationEnabled: true });
  expect(await rekey().parameter(`/rekey/credentials/${one.name}`)).toBeDefined();
  expect(await rekey().parameter(`/rekey/directives/${one.name}/deleteSince`)).toBeUndefined();
  const because = expect.stringMatching(/older than the secret/);
  expect(world.published('OrderIgnored', one)).toEqual([
    expect.objectContaining({ order: 'CredentialDeletionRequested', because }),
    expect.objectContaining({ order: 'CredentialDeletionRequested', because }),
  ]);
});

describe('E6, I1, I3: a user that becomes AWSCURRENT while its deletion is under way stays', () => {
  /** Where in the deletion the world goes on. */
  const instants: Record<string, (happens: () => Promise<void>) => (ports: Ports) => Partial<Ports>> = {
    'the vendor makes it wait for the rate limit': (happens) => (ports) => ({
      http: async (request: HttpRequest) => {
        if (!isDeletion(request)) return ports.http(request);
        await happens();
        return slowDown(90);
      },
    }),
    'its request is about to leave': (happens) => (ports) => ({
      http: async (request: HttpRequest) => {
        if (isDeletion(request)) await happens();
        return ports.http(request);
      },
    }),
    'its intent is published': (happens) => (ports) => ({
      publish: async (events) => {
        await ports.publish(events);
        if (events.some(({ type }) => type === 'DatabaseUserRetired')) await happens();
      },
    }),
  };
  /** Every instant at the vendors that answer fast, and the rate limit, from which the case comes, at all of them. */
  const cases = (providers: readonly ProviderId[]) =>
    providers.flatMap((provider) =>
      Object.entries(instants)
        .filter((_, index) => index === 0 || provider === 'vultr-valkey' || provider === 'zilliz-cloud')
        .map(([when, at]) => ({ provider, when, at })),
    );

  async function deletes(
    one: Made,
    at: (typeof instants)[string],
    happens: () => Promise<void>,
  ): Promise<void> {
    let times = 0;
    const once = async (): Promise<void> => {
      times += 1;
      if (times === 1) await happens();
    };
    await world.invokeWith(at(once), (inner, until) => deleteUsers(pass, until, inner));
    expect(times).toBeGreaterThan(0);
    const current = await login(one);
    expect(await works(current)).toBe(true);
    expect(world.published('DatabaseUserDeleted', one).map(({ username }) => username)).not.toContain(
      current.username,
    );
    move(16 * minuteMs);
    await rekey().sweep();
    expect(await works(await login(one))).toBe(true);
  }

  test.each(cases(choosing))(
    'alternate-users, compromised twice, while $when ($provider)',
    async ({ provider, at }) => {
      const one = await credential({ provider, strategy: 'alternate-users' });
      move(graceOverMs);
      await rekey().rotate(one.name);
      move(graceOverMs);
      await compromise(one);
      const revoked = await login(one, 'AWSPREVIOUS');
      await deletes(one, at, async () => {
        await compromise(one);
        expect((await login(one)).username).toBe(revoked.username);
      });
    },
  );

  test.each(cases(['render-postgres', ...choosing]))(
    'replace-user, rolled back by hand, while $when ($provider)',
    async ({ provider, at }) => {
      const one = await credential({ provider });
      await rekey().rotate(one.name);
      const { AWSPREVIOUS: previous } = await labels(one);
      move(graceOverMs);
      await deletes(one, at, async () => {
        await putLabel(one, 'AWSCURRENT', previous);
        // What was read less than two seconds before a write leaves counts as read right before it.
        move(3_000);
      });
      expect((await labels(one))['AWSCURRENT']).toBe(previous);
    },
  );
});

test('E7: a deployment that changes privileges rotates nothing in a blackout, and waits for the next window', async () => {
  const one = await credential(
    { provider: 'cockroachdb-cloud' },
    {
      rotation: {
        every: 'P400D',
        window: { start: '02:00', length: 'PT3H' },
        blackouts: [{ from: '2026-01-01', to: '2026-06-01' }],
      },
    },
  );
  const before = await login(one);
  move(2 * hourMs);
  await world.storeSpec(one, { privileges: { roles: [] } });
  for (let passes = 0; passes < 3; passes += 1) {
    await world.reconcile();
    await rekey().start();
    await rekey().secretsManager.idle();
    move(hourMs);
  }
  expect(await works(before)).toBe(true);
  expect((await login(one)).username).toBe(before.username);
  expect(world.found(one)).toEqual(['PrivilegesOutdated']);
  const startAt = async (instant: string): Promise<string> => {
    move(new Date(instant).getTime() - world.now().getTime());
    await rekey().start();
    await rekey().secretsManager.idle();
    return (await login(one)).username;
  };
  // The blackout is over, and the window closed.
  expect(await startAt('2026-06-02T12:00:00Z')).toBe(before.username);
  expect(await startAt('2026-06-03T02:10:00Z')).not.toBe(before.username);
  const { clusterId } = targets['cockroachdb-cloud'].target;
  const users = await vendors().cockroachdb.api.clusters.get(clusterId)?.users();
  const { username } = await login(one);
  expect(users?.find((user) => user.username === username)).toMatchObject({ isAdmin: false, roles: [] });
});

describe('E9, I1, I3: Zilliz’s drop-and-create beside another run of the same step', () => {
  test.each([
    ['goes on', false],
    ['dies', true],
  ])('leaves the user that has just become current, where it %s afterwards', async (_how, dies) => {
    const one = await credential(
      { provider: 'zilliz-cloud', strategy: 'alternate-users' },
      { grace: 'PT0S' },
    );
    move(hourMs);
    await rekey().rotate(one.name);
    move(hourMs);
    const idle = await login(one, 'AWSPREVIOUS');
    // No version knows this one, so the idle user is to be made anew.
    await world.setPasswordByHand(one, idle.username, anotherPassword);
    const pending = await world.openRotation(one, 'createSecret');
    const { ARN: secretId } = await rekey().describe(one.name);
    let drops = 0;
    const http =
      (ports: Ports): Ports['http'] =>
      async (request) => {
        if (!request.url.pathname.endsWith('/users/drop')) return ports.http(request);
        drops += 1;
        if (drops === 1)
          for (const step of ['setSecret', 'testSecret', 'finishSecret'])
            await rekey().step(one.name, step, pending);
        const answer = await ports.http(request);
        if (dies) throw new Error('killed');
        return answer;
      };
    await world.failureOf(
      world.invokeWith(
        (ports) => ({ http: http(ports) }),
        (inner, until) => rotateSecret({ step: 'setSecret', secretId, token: pending }, until, inner),
      ),
    );
    expect(drops).toBeGreaterThan(0);
    expect((await labels(one))['AWSCURRENT']).toBe(pending);
    expect(await login(one)).toMatchObject({ username: idle.username });
    expect(await works(await login(one))).toBe(true);
  });
});

test('E12, I3: update-consumers that waited with version 1 leaves the consumer at version 2', async () => {
  const { api } = vendors().render;
  const service = api.addService({ name: 'orders-api', variables: { PORT: '8080' } });
  const one = await credential(
    { provider: 'render-postgres' },
    {
      consumers: [
        {
          kind: 'render-service',
          serviceId: service.id,
          environmentVariable: 'DATABASE_URL',
          apiKeySecret: 'rekey/api-keys/render',
        },
      ],
    },
  );
  const { AWSCURRENT: versionId = '' } = await labels(one);
  const first = await login(one);
  const runsAs = () => URL.parse(service.running()['DATABASE_URL'] ?? '')?.username;
  let isHeld = false;
  let isSlept = false;
  await world.failureOf(
    world.invokeWith(
      (ports) => ({
        http: async (request) => {
          if (request.method !== 'PUT' || isHeld) return ports.http(request);
          isHeld = true;
          return slowDown(60);
        },
        sleep: async (ms) => {
          if (ms >= minuteMs && !isSlept) {
            isSlept = true;
            await compromise(one);
            await rekey().update(one.name);
            expect(runsAs()).toBe((await login(one)).username);
            await rekey().sweep({ is: 'rotated', credential: one.name });
          }
          return ports.sleep(ms);
        },
      }),
      (inner, until) =>
        updateConsumers(
          { is: 'label-moved', secretName: `rekey/${one.name}`, label: 'AWSCURRENT', versionId },
          until,
          inner,
        ),
    ),
  );
  expect(isSlept).toBe(true);
  move(10 * minuteMs);
  const current = await login(one);
  expect(await world.usersAt(one)).toEqual([current.username]);
  expect(current.username).not.toBe(first.username);
  expect(runsAs()).toBe(current.username);
  expect(await works(current)).toBe(true);
});

describe('E15, I25: while AWSCURRENT is refused, the last login that works is not deleted', () => {
  const providers = ['render-postgres', ...choosing] as const;

  test.each(providers)('and goes once AWSCURRENT is accepted again (%s)', async (provider) => {
    const one = await credential({ provider });
    const old = await login(one);
    move(graceOverMs);
    await rekey().rotate(one.name);
    const current = await login(one);
    await world.setPasswordByHand(one, current.username, anotherPassword);
    move(graceOverMs);
    for (let passes = 0; passes < 2; passes += 1) {
      expect(outcomesOf(await rekey().sweep(), one)).toEqual({ [old.username]: 'kept' });
      move(16 * minuteMs);
    }
    expect(await works(old)).toBe(true);
    await world.setPasswordByHand(one, current.username, current.password.reveal());
    expect(outcomesOf(await rekey().sweep(), one)).toEqual({ [old.username]: 'deleted' });
    expect(await world.usersAt(one)).toEqual([current.username]);
  });

  test.each(['render-postgres', 'vultr-valkey'] as const)(
    'nor a revoked one before the new one is accepted, unless the order says so (%s)',
    async (provider) => {
      for (const end of ['the new one is accepted', 'the order says so']) {
        const one = await credential({ provider });
        const old = await login(one);
        await compromise(one);
        const current = await login(one);
        await world.setPasswordByHand(one, current.username, anotherPassword);
        expect(outcomesOf(await rekey().sweep(), one), end).toEqual({ [old.username]: 'kept' });
        expect(await works(old), end).toBe(true);
        if (end === 'the order says so') {
          // Younger than the leaked login, and older than the one that answers it.
          const { createdAt } = await versionOf(one, 'AWSPREVIOUS');
          await world.direct(one, 'revokeAnyway', new Date(createdAt.getTime() + 1));
        } else await world.setPasswordByHand(one, current.username, current.password.reveal());
        expect(outcomesOf(await rekey().sweep(), one), end).toEqual({ [old.username]: 'deleted' });
      }
    },
  );

  async function versionOf(one: Made, label: string): Promise<{ readonly createdAt: Date }> {
    const { CreatedDate } = (await world.secrets('GetSecretValue', {
      SecretId: `rekey/${one.name}`,
      VersionStage: label,
    })) as { CreatedDate: number };
    return { createdAt: new Date(CreatedDate * 1000) };
  }
});

describe('E17, I3: a stale reading of AWSCURRENT never changes the password of the live user', () => {
  const cases = scenarios.filter(
    ({ provider, strategy }) => provider === 'vultr-valkey' || strategy === 'alternate-users',
  );
  test.each(cases)('$provider, $strategy', async (scenario) => {
    const one = await credential(scenario, { grace: 'PT0S' });
    move(hourMs);
    const { AWSCURRENT: older = '' } = await labels(one);
    await rekey().rotate(one.name);
    const live = await login(one);
    const pending = await world.openRotation(one);
    const { ARN: secretId } = await rekey().describe(one.name);
    const isLate = (request: Parameters<Ports['readSecret']>[0]): boolean =>
      request.secretId === secretId && request.label === 'AWSCURRENT' && request.versionId === undefined;
    const step = (name: string): Promise<unknown> =>
      world.failureOf(
        world.invokeWith(
          ({ readSecret }) => ({
            readSecret: (request) =>
              readSecret(isLate(request) ? { secretId: request.secretId, versionId: older } : request),
          }),
          (inner, until) => rotateSecret({ step: name, secretId, token: pending }, until, inner),
        ),
      );
    const steps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'];
    for (const name of steps) {
      expect(await step(name), name).toMatchObject({ code: 'STORE_UNAVAILABLE', effect: 'none' });
      expect(await works(live), name).toBe(true);
    }
    // With fresh readings it goes on where it was.
    for (const name of steps) await rekey().step(one.name, name, pending);
    expect((await labels(one))['AWSCURRENT']).toBe(pending);
    expect(await works(await login(one))).toBe(true);
    expect(await works(live)).toBe(scenario.strategy !== 'reset-password');
  });
});

describe('I3, I25: reset-password, given up: the old password that is written late', () => {
  /** Nobody's password works, so reconcile-users sets the current one again; at its intent, `happens`. */
  async function givesUp(one: Made, happens: (pending: string) => Promise<void>): Promise<void> {
    const { username } = await login(one);
    const pending = await world.openRotation(one, 'createSecret');
    await world.setPasswordByHand(one, username, anotherPassword);
    move(7 * hourMs);
    const { provider } = one;
    const [targetId = ''] = Object.values(targets[provider].target);
    const messages = [{ id: token(), body: JSON.stringify({ provider, targetId }) }];
    let times = 0;
    await world.invokeWith(
      (ports) => ({
        // The steps of the rotation itself fail for want of the bus: it is given up for its age.
        publish: async (events) => {
          const planned = events.find(({ type }) => type === 'DatabaseUserPlanned');
          if (planned === undefined) return ports.publish(events);
          if (!('repair' in planned.detail))
            throw new ProviderError('told to fail', {
              code: 'UNAVAILABLE',
              effect: 'none',
              provider,
              operation: 'setPassword',
            });
          await ports.publish(events);
          times += 1;
          await happens(pending);
        },
      }),
      (inner, until) => reconcileUsers({ is: 'messages', messages }, { webhookBaseUrl }, until, inner),
    );
    expect(times).toBe(1);
  }
  /** Zilliz demands the password that the user has now: a person puts back the one that rekey knows. */
  const finishes = async (one: Made, pending: string, ...steps: readonly string[]): Promise<void> => {
    const { username, password } = await login(one);
    await world.setPasswordByHand(one, username, password.reveal());
    for (const step of steps) await rekey().step(one.name, step, pending);
  };

  test.each(['vultr-valkey', 'zilliz-cloud'] as const)(
    'is written where nothing else happens (%s)',
    async (provider) => {
      const one = await credential({ provider, strategy: 'reset-password' });
      const before = await login(one);
      await givesUp(one, async () => world.setPasswordByHand(one, before.username, before.password.reveal()));
      expect(await works(before)).toBe(true);
      expect((await labels(one))['AWSPENDING']).toBeUndefined();
    },
  );

  test.each(choosing)('is not, where finishSecret moves AWSCURRENT meanwhile (%s)', async (provider) => {
    const one = await credential({ provider, strategy: 'reset-password' });
    await givesUp(one, (pending) => finishes(one, pending, 'setSecret', 'testSecret', 'finishSecret'));
    expect(await works(await login(one))).toBe(true);
    expect(await works(await login(one, 'AWSPREVIOUS'))).toBe(false);
  });

  test.each(['vultr-valkey', 'zilliz-cloud'] as const)(
    'is not, where setSecret sets the pending one meanwhile (%s)',
    async (provider) => {
      const one = await credential({ provider, strategy: 'reset-password' });
      let pending = '';
      await givesUp(one, async (version) => {
        pending = version;
        await finishes(one, version, 'setSecret');
      });
      expect(await works(await login(one, 'AWSPENDING'))).toBe(true);
      await world.reconcile();
      expect((await labels(one))['AWSCURRENT']).toBe(pending);
      expect(await works(await login(one))).toBe(true);
    },
  );
});
