import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { interpose, type Ports } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { createUser } from '../../functions/lifecycle/create-user.ts';
import { buryCredential, forgetOrders } from '../../functions/lifecycle/orders.ts';
import { addRenderOrders } from '../../infra/local/providers/fixtures.ts';
import { functionArn, outward, startTestRekey, type TestRekey, token } from '../support/rekey.ts';
import { isWrite, useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const clusterId = 'in01-108240180a4faf8';
const postgresId = 'dpg-d1abc2d3e4f5g6h7i8j9-a';
let rekey: TestRekey;

beforeAll(async () => {
  vendors().zilliz.api.addCluster({ id: clusterId, name: 'orders', roles: ['orders_rw'] });
  await addRenderOrders(vendors().render.api, vendors().render.postgres, { id: postgresId });
  rekey = await startTestRekey(vendors);
});
afterAll(() => rekey.stop());
/** A cluster has room for a hundred users, and nothing retires those of the tests before. */
function clearUsers(): void {
  const { actor, clusters } = vendors().zilliz.api;
  for (const { username } of clusters.get(clusterId)?.users() ?? [])
    if (username !== 'db_admin') actor.deleteUser(clusterId, username);
}
beforeEach(() => {
  clearUsers();
  rekey.failures.length = 0;
  rekey.killAt(undefined);
});

let names = 0;
const spec = (overrides: object = {}) => {
  names += 1;
  return {
    name: `orders-${names}`,
    provider: 'zilliz-cloud',
    target: { clusterId },
    apiKeySecret: 'rekey/api-keys/zilliz',
    usernamePrefix: `o${names}`,
    privileges: { roles: ['orders_rw'] },
    ...overrides,
  };
};
const usersAt = async (prefix: string): Promise<number> =>
  ((await vendors().byProvider['zilliz-cloud']?.usernames({ clusterId })) ?? []).filter((username) =>
    username.startsWith(`${prefix}_`),
  ).length;

const refusal = async (document: object): Promise<unknown> =>
  rekey.request(document).then(
    () => 'it went on',
    (error: unknown) => error,
  );

const legacyPassword = 'Legacy-password-0123456789';
/** A user that somebody made long before rekey, and the secret that holds its password. */
async function legacy(username: string, password = legacyPassword): Promise<object> {
  vendors().keepSecret(password);
  vendors().zilliz.api.actor.createUser(clusterId, username, legacyPassword);
  vendors().zilliz.api.actor.grantRole(clusterId, username, 'orders_rw');
  await rekey.secretsManager.call('CreateSecret', {
    Name: `rekey/adopt/${username}`,
    SecretString: JSON.stringify({ username, password }),
    ClientRequestToken: token(),
  });
  return { username, passwordSecret: `rekey/adopt/${username}` };
}

describe('a requested credential', () => {
  test('gets its spec, its secret with the constant first value, and a first rotation that makes its user', async () => {
    const wanted = spec();
    await rekey.request(wanted);
    const first = await rekey.describe(wanted.name);
    expect(first.RotationEnabled).toBe(true);
    await rekey.secretsManager.idle();
    expect(await rekey.login(wanted.name, 'AWSCURRENT')).toMatchObject({
      host: vendors().zilliz.api.clusters.get(clusterId)?.host,
      database: 'default',
    });
    expect(await rekey.login(wanted.name, 'AWSPREVIOUS')).toBeUndefined();
    expect(await usersAt(wanted.usernamePrefix)).toBe(1);
    expect(
      rekey
        .published()
        .filter(({ detail }) => detail['credential'] === wanted.name)
        .map((event) => event['detail-type']),
    ).toEqual(expect.arrayContaining(['CredentialCreated', 'DatabaseUserCreated', 'CredentialRotated']));
    expect(rekey.failures).toEqual([]);
  });

  test('is not made twice by an event that comes again, at once, at the same time or much later', async () => {
    const wanted = spec();
    await Promise.all([rekey.request(wanted), rekey.request(wanted)]);
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    const login = await rekey.login(wanted.name, 'AWSCURRENT');
    await rekey.rotate(wanted.name);
    const rotated = await rekey.login(wanted.name, 'AWSCURRENT');
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    expect((await rekey.login(wanted.name, 'AWSCURRENT'))?.username).toBe(rotated?.username);
    expect(login?.username).not.toBe(rotated?.username);
    expect(await usersAt(wanted.usernamePrefix)).toBe(2);
  });

  test('killed between any two calls and requested again, it converges to one user that works', async () => {
    const measured = spec();
    rekey.killAt(undefined);
    await rekey.request(measured);
    await rekey.secretsManager.idle();
    const calls = [...rekey.calls];
    const wrong: string[] = [];
    for (const { call, when, name: at } of rekey.deaths()) {
      const wanted = spec();
      rekey.killAt({ call, when });
      // Killed here it is the bus that delivers again; killed in the rotation it is Secrets Manager that retries.
      await rekey.request(wanted).catch(() => rekey.request(wanted));
      await rekey.secretsManager.idle();
      const users = await usersAt(wanted.usernamePrefix);
      if ((await rekey.login(wanted.name, 'AWSCURRENT')) === undefined || users !== 1)
        wrong.push(`killed ${when} call ${call} (${at}): ${users} users`);
    }
    expect(calls.length).toBeGreaterThan(20);
    expect(wrong).toEqual([]);
  });

  test('with a spec that is wrong is refused before anything is stored', async () => {
    const wanted = spec({ usernamePrefix: 'NO', grace: 'soon', privileges: { roles: ['no role'] } });
    expect(await refusal(wanted)).toMatchObject({
      code: 'SPEC_INVALID',
      message: expect.stringMatching(/usernamePrefix: .*grace: .*privileges\.roles\.0: /),
    });
    await expect(rekey.describe(wanted.name)).rejects.toThrow();
    await expect(
      rekey.parameters.call('GetParameter', { Name: `/rekey/credentials/${wanted.name}` }),
    ).rejects.toThrow();
  });

  test('whose name has another spec already is refused, and that one stays', async () => {
    const wanted = spec();
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    expect(await refusal({ ...wanted, grace: 'PT1H' })).toMatchObject({
      code: 'SPEC_CONFLICT',
      effect: 'none',
    });
    const { Parameter } = (await rekey.parameters.call('GetParameter', {
      Name: `/rekey/credentials/${wanted.name}`,
    })) as { Parameter: { Value: string } };
    expect(JSON.parse(Parameter.Value)).toMatchObject({ grace: 'PT24H' });
  });

  test('whose secret is scheduled for deletion is refused, with what to do', async () => {
    const wanted = spec();
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    await rekey.secretsManager.call('DeleteSecret', { SecretId: `rekey/${wanted.name}` });
    expect(await refusal(wanted)).toMatchObject({
      code: 'DELETION_IN_PROGRESS',
      message: expect.stringContaining('restore it'),
    });
  });

  test('whose former secret is scheduled for deletion is refused before anything is stored', async () => {
    const wanted = spec();
    await rekey.secretsManager.call('CreateSecret', {
      Name: `rekey/${wanted.name}`,
      SecretString: '{}',
      ClientRequestToken: token(),
    });
    await rekey.secretsManager.call('DeleteSecret', { SecretId: `rekey/${wanted.name}` });
    expect(await refusal(wanted)).toMatchObject({ code: 'DELETION_IN_PROGRESS' });
    await expect(
      rekey.parameters.call('GetParameter', { Name: `/rekey/credentials/${wanted.name}` }),
    ).rejects.toThrow();
  });

  test('can be one that a deployment declared and that never rotated', async () => {
    const wanted = spec();
    await rekey.secretsManager.call('CreateSecret', {
      Name: `rekey/${wanted.name}`,
      SecretString: '{"rekey":"no user yet; the first rotation makes one"}',
      ClientRequestToken: 'a-token-of-cloudformation-0123456789',
    });
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    expect(await usersAt(wanted.usernamePrefix)).toBe(1);
  });

  test('that would be over already is refused, as is one whose prefix another credential of the target has', async () => {
    const over = spec({ expiresAt: '2026-01-01T00:00:00Z' });
    expect(await refusal(over)).toMatchObject({
      code: 'SPEC_INVALID',
      message: expect.stringContaining('expiresAt: expected an instant to come'),
    });
    const first = spec();
    await rekey.request(first);
    await rekey.secretsManager.idle();
    const twin = spec({ usernamePrefix: first.usernamePrefix });
    expect(await refusal(twin)).toMatchObject({
      code: 'SPEC_CONFLICT',
      message: expect.stringContaining(`is the prefix of ${first.name}`),
    });
    for (const { name } of [over, twin]) await expect(rekey.describe(name)).rejects.toThrow();
  });

  describe('with the prefix of one that is requested at the same time', () => {
    /** The first calls that create anything other than the spec. */
    const isMaking = (name: keyof Ports): boolean => name === 'createSecret' || name === 'startRotation';

    /**
     * Runs two requests at once: the second one begins before this call of the first, and waits before this call of its own until the
     * first one is over. Answers what came of each, and the calls of the first.
     */
    async function both(first: object, second: object, calls: readonly [number, number]) {
      const made: string[] = [];
      const [begin, waitForFirst] = calls;
      const firstEnded = Promise.withResolvers<void>();
      let running: Promise<unknown> | undefined;
      const run = (wanted: object, before: (call: number, name: keyof Ports) => Promise<void>) => {
        let call = 0;
        return rekey
          .invoke((inner, until) =>
            createUser(
              { spec: wanted, requestedAt: vendors().clock.now() },
              { rotationFunctionArn: functionArn },
              until,
              {
                ...inner,
                ports: interpose(inner.ports, async (name, _request, go) => {
                  if (outward.has(name)) {
                    call += 1;
                    await before(call, name);
                  }
                  return go();
                }),
              },
            ),
          )
          .then(
            () => 'it went on',
            (error: unknown) => error,
          );
      };
      const one = await run(first, async (call, name) => {
        made.push(name);
        if (call !== begin) return;
        const waits = Promise.withResolvers<void>();
        running = run(second, async (own) => {
          if (own !== waitForFirst) return;
          waits.resolve();
          await firstEnded.promise;
        });
        await Promise.race([waits.promise, running]);
      });
      firstEnded.resolve();
      const other = await running;
      await rekey.secretsManager.idle();
      return { outcomes: [one, other], made };
    }

    /** A cluster of its own: the calls of a request grow with the neighbours that it reads. */
    const twinsClusterId = 'in01-308240180a4faf8';
    const key = `zilliz-cloud/${twinsClusterId}`;
    beforeAll(() => {
      vendors().zilliz.api.addCluster({ id: twinsClusterId, name: 'twins', roles: ['orders_rw'] });
    });
    const twins = () => {
      const first = spec({ target: { clusterId: twinsClusterId } });
      const second = spec({ target: first.target, usernamePrefix: first.usernamePrefix });
      return [first, second] as const;
    };
    const forget = async (...credentials: readonly { readonly name: string }[]): Promise<void> => {
      for (const { name } of credentials)
        await rekey.parameters
          .call('DeleteParameter', { Name: `/rekey/credentials/${name}` })
          .catch(() => undefined);
      const { actor, clusters } = vendors().zilliz.api;
      for (const { username } of clusters.get(twinsClusterId)?.users() ?? [])
        if (username !== 'db_admin') actor.deleteUser(twinsClusterId, username);
    };
    const prepare = {
      'with its note': () =>
        rekey.notes.put('members', key, JSON.stringify({ credentials: [], hasBrokenSpecs: false })),
      'without one': () => rekey.notes.ports.deleteNote({ place: 'members', key }),
    };

    test.each(Object.entries(prepare))(
      'one of the two is refused at least, wherever their calls meet, and makes nothing (a target %s)',
      async (_how, begin) => {
        await begin();
        const [alone] = twins();
        const { made } = await both(alone, alone, [0, 0]);
        await forget(alone);
        const last = made.findIndex((name) => isMaking(name as keyof Ports)) + 1;
        expect(last).toBeGreaterThan(8);
        // Those at which both runs are about as far are always among them.
        const every = inject('isExhaustive') ? 1 : 2;
        let refusedBoth = 0;
        for (let at = 1; at <= last; at += 1)
          for (let wait = every === 1 ? 1 : 2 - (at % 2); wait <= last; wait += every) {
            await begin();
            const [first, second] = twins();
            const { outcomes } = await both(first, second, [at, wait]);
            const where = `the second begins at ${at} and waits at ${wait}`;
            const refused = [first, second].filter((_, index) => outcomes[index] !== 'it went on');
            expect(refused.length, where).toBeGreaterThan(0);
            if (refused.length === 2) refusedBoth += 1;
            for (const [index, { name }] of [first, second].entries()) {
              if (outcomes[index] === 'it went on') continue;
              const isStored = (await rekey.parameter(`/rekey/credentials/${name}`)) !== undefined;
              const changed = isStored
                ? `/rekey/credentials/${name} is stored, and nothing else was`
                : 'nothing was';
              expect(outcomes[index], where).toMatchObject({
                code: 'SPEC_CONFLICT',
                message: expect.stringContaining(`${changed} changed`),
              });
              await expect(rekey.describe(name)).rejects.toThrow();
            }
            await forget(first, second);
          }
        expect(refusedBoth).toBeGreaterThan(0);
      },
      120_000,
    );
  });

  describe('where the vendor takes few requests', () => {
    const sundays = { every: 'P30D', window: { start: '02:00', length: 'PT30M', days: ['SU'] } };
    const requestWith = (perRotation: number, wanted: object): Promise<unknown> =>
      rekey
        .invoke((inner, until) =>
          createUser(
            { spec: wanted, requestedAt: vendors().clock.now() },
            { rotationFunctionArn: 'arn:aws:lambda:eu-central-1:123456789012:function:rekey-rotate-secret' },
            until,
            {
              ...inner,
              loadProvider: async (id) => {
                const definition = await inner.loadProvider(id);
                return (
                  definition && {
                    ...definition,
                    capabilities: { ...definition.capabilities, writes: { perMinute: 2, perRotation } },
                  }
                );
              },
            },
          ),
        )
        .then(
          () => 'it went on',
          (error: unknown) => error,
        );

    test('is refused if its window is shorter than one rotation of its own', async () => {
      const wanted = spec({ rotation: sundays });
      // Forty requests, of which rekey sends one a minute.
      expect(await requestWith(40, wanted)).toMatchObject({
        code: 'SPEC_INVALID',
        message: expect.stringMatching(
          /rotation\.window: expected room for 1 rotations in 30 days, .* got 0 in the window SU at 02:00 UTC for PT30M, .* nothing was changed$/,
        ),
      });
      await expect(rekey.describe(wanted.name)).rejects.toThrow();
      expect(await rekey.parameter(`/rekey/credentials/${wanted.name}`)).toBeUndefined();
    });

    test('is made although those before it on its target take all the time there is, and that is logged', async () => {
      const others = Array.from({ length: 12 }, () => spec({ rotation: sundays }));
      const parameterOf = ({ name }: { readonly name: string }) => `/rekey/credentials/${name}`;
      for (const other of others)
        await rekey.parameters.call('PutParameter', {
          Name: parameterOf(other),
          Value: JSON.stringify(other),
          Type: 'String',
        });
      const wanted = spec({ rotation: sundays });
      rekey.logged.length = 0;
      // Ten minutes each: three on a Sunday, of which there are four or five in 30 days.
      expect(await requestWith(10, wanted)).toBe('it went on');
      await rekey.secretsManager.idle();
      expect(await rekey.login(wanted.name, 'AWSCURRENT')).toBeDefined();
      expect(rekey.logged.filter((line) => line.includes('rotations may be late'))).toContainEqual(
        expect.stringContaining(
          `rotation.window: expected room for 13 rotations in 30 days, which 13 credentials of rekey/api-keys/zilliz (${wanted.name}, `,
        ),
      );
      // The same on a key that has time for them says nothing.
      rekey.logged.length = 0;
      await rekey.request(spec({ rotation: sundays }));
      expect(rekey.logged.filter((line) => line.includes('rotations may be late'))).toEqual([]);
      await rekey.secretsManager.idle();
      for (const other of others)
        await rekey.parameters.call('DeleteParameter', { Name: parameterOf(other) });
    });
  });
});

describe('a credential that adopts a user', () => {
  test('names that user at once, changes nothing at the provider, and rotates away from it when it is due', async () => {
    const wanted = spec({ adopt: await legacy('legacy_app') });
    const writesBefore = vendors().requests.filter(isWrite).length;
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    const adopted = await rekey.login(wanted.name, 'AWSCURRENT');
    const { host } = vendors().zilliz.api.clusters.get(clusterId) ?? {};
    expect(adopted).toMatchObject({ username: 'legacy_app', host, database: 'default' });
    expect(adopted && (await vendors().logsIn(adopted))).toBe(true);
    expect((await rekey.describe(wanted.name)).RotationEnabled).toBe(true);
    expect(vendors().requests.filter(isWrite)).toHaveLength(writesBefore);
    expect(await usersAt(wanted.usernamePrefix)).toBe(0);
    expect(rekey.failures).toEqual([]);

    await rekey.rotate(wanted.name);
    const rotated = await rekey.login(wanted.name, 'AWSCURRENT');
    expect(rotated?.username).toMatch(new RegExp(`^${wanted.usernamePrefix}_`));
    expect(adopted && (await vendors().logsIn(adopted))).toBe(true);
    expect((await rekey.login(wanted.name, 'AWSPREVIOUS'))?.username).toBe('legacy_app');
  });

  test('takes where it connects from the vendor, also where the vendor makes the passwords', async () => {
    const { actor } = vendors().render.api;
    await actor.createUser(postgresId, 'legacy_render');
    vendors().clock.move(60_000);
    const { body } = await rekey.invoke(({ ports }) =>
      ports.http({
        method: 'GET',
        url: new URL(`https://api.render.com/v1/postgres/${postgresId}/connection-info`),
        headers: { authorization: new Sensitive(`Bearer ${vendors().apiKeys.render}`) },
        timeoutMs: 5_000,
        maxBodyBytes: 100_000,
        guard: 'reads-only',
      }),
    );
    const { password }: { password: string } = JSON.parse(body.reveal());
    await rekey.secretsManager.call('CreateSecret', {
      Name: 'rekey/adopt/legacy-render',
      SecretString: JSON.stringify({ username: 'legacy_render', password }),
      ClientRequestToken: token(),
    });
    const wanted = {
      ...spec({ adopt: { username: 'legacy_render', passwordSecret: 'rekey/adopt/legacy-render' } }),
      provider: 'render-postgres',
      target: { postgresId },
      apiKeySecret: 'rekey/api-keys/render',
      privileges: {},
    };
    await rekey.request(wanted);
    await rekey.secretsManager.idle();
    const adopted = await rekey.login(wanted.name, 'AWSCURRENT');
    expect(adopted?.username).toBe('legacy_render');
    expect(adopted && (await vendors().logsIn(adopted))).toBe(true);
  });

  test('is refused before anything is stored when its password is wrong, missing or another user’s', async () => {
    const wrongPassword = spec({ adopt: await legacy('legacy_wrong', 'Another-password-0123456789') });
    const missing = spec({ adopt: { username: 'legacy_app', passwordSecret: 'rekey/adopt/nowhere' } });
    const otherUser = spec({
      adopt: { username: 'somebody_else', passwordSecret: 'rekey/adopt/legacy_app' },
    });
    expect(await refusal(wrongPassword)).toMatchObject({
      code: 'SPEC_INVALID',
      message: expect.stringContaining('zilliz-cloud refused legacy_wrong'),
    });
    expect(await refusal(missing)).toMatchObject({
      code: 'SECRET_INVALID',
      message: expect.stringContaining('rekey/adopt/nowhere'),
    });
    expect(await refusal(otherUser)).toMatchObject({
      code: 'SPEC_INVALID',
      message: expect.stringContaining('expected the login of somebody_else'),
    });
    for (const { name } of [wrongPassword, missing, otherUser])
      await expect(
        rekey.parameters.call('GetParameter', { Name: `/rekey/credentials/${name}` }),
      ).rejects.toThrow();
  });

  test('killed between any two calls and requested again, it converges to the adopted user and nobody else', async () => {
    const measured = spec({ adopt: await legacy('legacy_measured') });
    rekey.killAt(undefined);
    await rekey.request(measured);
    await rekey.secretsManager.idle();
    const calls = [...rekey.calls];
    const wrong: string[] = [];
    for (const [index, { call, when, name: at }] of rekey.deaths().entries()) {
      const wanted = spec({ adopt: await legacy(`legacy_${index}`) });
      rekey.killAt({ call, when });
      await rekey.request(wanted).catch(() => rekey.request(wanted));
      await rekey.secretsManager.idle();
      const { RotationEnabled } = await rekey.describe(wanted.name);
      const username = (await rekey.login(wanted.name, 'AWSCURRENT'))?.username;
      if (username !== `legacy_${index}` || RotationEnabled !== true)
        wrong.push(`killed ${when} call ${call} (${at}): ${username}, rotation ${RotationEnabled}`);
      if ((await usersAt(wanted.usernamePrefix)) !== 0)
        wrong.push(`killed ${when} call ${call}: made a user`);
    }
    expect(calls.length).toBeGreaterThan(10);
    expect(wrong).toEqual([]);
  });
});

describe('a request beside what is there already', () => {
  const hourMs = 3_600_000;
  type Wanted = ReturnType<typeof spec>;
  const aws = (operation: string, input: object): Promise<unknown> =>
    rekey.secretsManager.call(operation, input);
  const secretOf = ({ name }: Wanted): string => `rekey/${name}`;
  const specOf = ({ name }: Wanted): string => `/rekey/credentials/${name}`;
  const putParameter = (Name: string, Value: string): Promise<unknown> =>
    rekey.parameters.call('PutParameter', { Name, Value, Type: 'String', Overwrite: true });
  const direct = ({ name }: Wanted, kind: string, at: Date): Promise<unknown> =>
    putParameter(`/rekey/directives/${name}/${kind}`, at.toISOString());
  const now = (): Date => vendors().clock.now();
  const idle = (): Promise<void> => rekey.secretsManager.idle();

  // What was there before.

  const declareSecret = (wanted: Wanted): Promise<unknown> =>
    aws('CreateSecret', {
      Name: secretOf(wanted),
      SecretString: '{"rekey":"no user yet; the first rotation makes one"}',
      ClientRequestToken: token(),
    });
  const storeSpec = (wanted: Wanted): Promise<unknown> =>
    putParameter(specOf(wanted), JSON.stringify(wanted));
  const forgetSpec = (wanted: Wanted): Promise<unknown> =>
    rekey.parameters.call('DeleteParameter', { Name: specOf(wanted) });
  const attach = (wanted: Wanted): Promise<unknown> => rekey.rotate(wanted.name, { immediately: false });
  const switchOff = (wanted: Wanted): Promise<unknown> =>
    aws('CancelRotateSecret', { SecretId: secretOf(wanted) });
  const make = async (wanted: Wanted): Promise<void> => {
    await rekey.request(wanted);
    await idle();
    vendors().clock.move(hourMs);
  };
  const removePending = async (wanted: Wanted): Promise<void> => {
    const { AWSPENDING } = await rekey.labels(wanted.name);
    await aws('UpdateSecretVersionStage', {
      SecretId: secretOf(wanted),
      VersionStage: 'AWSPENDING',
      RemoveFromVersionId: AWSPENDING,
    });
  };
  /** As delete-user leaves it: no user, no rotation, a secret that can be restored, no spec, a tombstone. */
  const bury = async (wanted: Wanted): Promise<void> => {
    const login = await rekey.login(wanted.name, 'AWSCURRENT');
    if (login?.username.startsWith(wanted.usernamePrefix))
      vendors().zilliz.api.actor.deleteUser(clusterId, login.username);
    await switchOff(wanted).catch(() => undefined);
    await aws('DeleteSecret', { SecretId: secretOf(wanted) });
    await forgetSpec(wanted);
    vendors().clock.move(hourMs);
    await rekey.invoke(async ({ ports }) => {
      await buryCredential(wanted.name, now(), ports);
      await forgetOrders(wanted.name, ports);
    });
    vendors().clock.move(hourMs);
  };
  const restore = (wanted: Wanted): Promise<unknown> => aws('RestoreSecret', { SecretId: secretOf(wanted) });
  const adopting = async (): Promise<Wanted> => {
    const adopt = await legacy(`legacy_of_${names}`);
    return spec({ adopt });
  };
  const failTheFirstRotation = async (wanted: Wanted): Promise<void> => {
    vendors().zilliz.api.actor.setStatus(clusterId, 'SUSPENDED');
    await make(wanted);
    vendors().zilliz.api.actor.setStatus(clusterId, 'RUNNING');
  };

  const parametersOf = ({ name }: Wanted): Promise<unknown> =>
    rekey.invoke(async ({ ports }) =>
      (await ports.listParameters({ path: '/rekey/' })).filter(({ parameter }) =>
        parameter.split('/').includes(name),
      ),
    );

  interface Case {
    /** @default one without anything special */
    readonly wanted?: () => Promise<Wanted>;
    readonly given: (wanted: Wanted) => Promise<unknown>;
    /** @default now */
    readonly requestedAt?: () => Date;
    /**
     * `made`: nobody could log in before, and now somebody can. `renewed`: AWSCURRENT named a user that is gone, and now another one.
     * `kept`: the login that worked still does, and is the same. `under way`: nothing is to be done. `ignored`: nothing is done, and
     * the bus is told. Otherwise the refusal.
     */
    readonly want:
      | 'made'
      | 'renewed'
      | 'kept'
      | 'under way'
      | 'ignored'
      | { readonly code: string; readonly says: string };
  }
  const beforeDeletion = (): Date => new Date(now().getTime() - 90 * 60_000);
  const cases: Record<string, Case> = {
    'nothing at all: it is made': { given: async () => undefined, want: 'made' },
    'its spec alone, as a run leaves it that died: it is made': { given: storeSpec, want: 'made' },
    'another spec: it is refused': {
      given: (wanted) => storeSpec({ ...wanted, usernamePrefix: `${wanted.usernamePrefix}x` }),
      want: { code: 'SPEC_CONFLICT', says: 'holds another spec' },
    },
    'a spec that nobody can read: it is refused': {
      given: (wanted) => putParameter(specOf(wanted), '{'),
      want: { code: 'SPEC_CONFLICT', says: 'holds another spec' },
    },
    'the tombstone of an earlier one: it is made': {
      given: (wanted) => direct(wanted, 'deletedAt', new Date(now().getTime() - 1)),
      want: 'made',
    },
    'I18: its own tombstone: nothing is made': {
      given: (wanted) => direct(wanted, 'deletedAt', now()),
      want: 'ignored',
    },
    'a secret with its first value: it is made': { given: declareSecret, want: 'made' },
    'a secret with its first value, and its spec: it is made': {
      given: async (wanted) => {
        await declareSecret(wanted);
        await storeSpec(wanted);
      },
      want: 'made',
    },
    'what a deployment declared, with rotation attached and never begun: it is made': {
      given: async (wanted) => {
        await storeSpec(wanted);
        await declareSecret(wanted);
        await attach(wanted);
      },
      want: 'made',
    },
    'a first rotation that was given up and is open still: Secrets Manager is at it': {
      given: failTheFirstRotation,
      // Secrets Manager repeats it, or reconcile-users takes its label off.
      want: 'under way',
    },
    'a first rotation that was given up and is over: another one makes it': {
      given: async (wanted) => {
        await failTheFirstRotation(wanted);
        await removePending(wanted);
      },
      want: 'made',
    },
    'itself, rotating: it stays as it is': { given: make, want: 'kept' },
    'itself, with its spec lost: the spec is stored again': {
      given: async (wanted) => {
        await make(wanted);
        await forgetSpec(wanted);
      },
      want: 'kept',
    },
    'itself, with rotation switched off: it is refused, as its login may be dead': {
      given: async (wanted) => {
        await make(wanted);
        await switchOff(wanted);
      },
      want: { code: 'ROTATION_DISABLED', says: 'switch it on with RotateSecret' },
    },
    'a secret without spec and rotation, whatever became of its user: it gets a new one': {
      given: async (wanted) => {
        await make(wanted);
        const login = await rekey.login(wanted.name, 'AWSCURRENT');
        vendors().zilliz.api.actor.deleteUser(clusterId, login?.username ?? '');
        await switchOff(wanted);
        await forgetSpec(wanted);
      },
      want: 'renewed',
    },
    'one that was deleted, its secret not yet gone: it is refused': {
      given: async (wanted) => {
        await make(wanted);
        await bury(wanted);
      },
      want: { code: 'DELETION_IN_PROGRESS', says: 'restore it' },
    },
    'one that was deleted, its secret restored: it gets a new user': {
      given: async (wanted) => {
        await make(wanted);
        await bury(wanted);
        await restore(wanted);
      },
      want: 'renewed',
    },
    'one that was deleted, its secret restored, its spec stored by a run that died: it gets a new user': {
      given: async (wanted) => {
        await make(wanted);
        await bury(wanted);
        await restore(wanted);
        await storeSpec(wanted);
      },
      want: 'renewed',
    },
    'one that was deleted, its secret restored and rotation attached by hand: it gets a new user': {
      given: async (wanted) => {
        await make(wanted);
        await bury(wanted);
        await restore(wanted);
        await attach(wanted);
        await storeSpec(wanted);
      },
      want: 'renewed',
    },
    'I18: one that was deleted, its secret restored, asked for by the request of then: nothing is made': {
      given: async (wanted) => {
        await make(wanted);
        await bury(wanted);
        await restore(wanted);
      },
      requestedAt: beforeDeletion,
      want: 'ignored',
    },
    'one that was deleted, restored and made anew: it stays as it is': {
      given: async (wanted) => {
        await make(wanted);
        await bury(wanted);
        await restore(wanted);
        await make(wanted);
      },
      want: 'kept',
    },
    'one that was deleted, restored and made anew, with rotation switched off since: it is refused': {
      given: async (wanted) => {
        await make(wanted);
        await bury(wanted);
        await restore(wanted);
        await make(wanted);
        await switchOff(wanted);
      },
      want: { code: 'ROTATION_DISABLED', says: 'switch it on with RotateSecret' },
    },
    'one that was deleted before it had a user, its secret restored: it is made': {
      given: async (wanted) => {
        await failTheFirstRotation(wanted);
        await removePending(wanted);
        await bury(wanted);
        await restore(wanted);
      },
      want: 'made',
    },
    'a rotation that was cancelled half-way: it is refused, with what is in the way': {
      given: async (wanted) => {
        await make(wanted);
        vendors().zilliz.api.actor.setStatus(clusterId, 'SUSPENDED');
        await rekey.rotate(wanted.name);
        vendors().zilliz.api.actor.setStatus(clusterId, 'RUNNING');
        await switchOff(wanted);
        await forgetSpec(wanted);
      },
      want: { code: 'ROTATION_DISABLED', says: 'take AWSPENDING off its version' },
    },
    'I17: an order to delete it that is older: it is refused': {
      given: async (wanted) => {
        await make(wanted);
        await direct(wanted, 'deleteSince', new Date(now().getTime() - 1));
      },
      want: { code: 'DELETION_IN_PROGRESS', says: 'is being deleted' },
    },
    'I17: an order to delete it that is younger: nothing is made': {
      given: async (wanted) => {
        await make(wanted);
        await direct(wanted, 'deleteSince', now());
      },
      want: 'ignored',
    },
    'an order that cannot be read: it is refused': {
      given: (wanted) => putParameter(`/rekey/directives/${wanted.name}/deleteSince`, 'soon'),
      want: { code: 'SPEC_INVALID', says: 'deleteSince: expected' },
    },
    'the adopted user, rotating: it stays as it is': { wanted: adopting, given: make, want: 'kept' },
    'the adopted user without rotation, as a run leaves it that died: rotation is attached': {
      wanted: adopting,
      given: async (wanted) => {
        await make(wanted);
        await switchOff(wanted);
      },
      want: 'kept',
    },
    'one that adopted, was deleted, and its secret restored: the user is adopted again': {
      wanted: adopting,
      given: async (wanted) => {
        await make(wanted);
        await bury(wanted);
        await restore(wanted);
      },
      want: 'kept',
    },
    'one that adopted a user whose password has changed since: the new one is stored': {
      wanted: adopting,
      given: async (wanted) => {
        await make(wanted);
        await switchOff(wanted);
        const { adopt } = wanted as Wanted & { adopt: { username: string; passwordSecret: string } };
        const password = 'Another-legacy-password-0123';
        vendors().keepSecret(password);
        vendors().zilliz.api.actor.setPassword(clusterId, adopt.username, password);
        await aws('PutSecretValue', {
          SecretId: adopt.passwordSecret,
          SecretString: JSON.stringify({ username: adopt.username, password }),
          ClientRequestToken: token(),
        });
      },
      want: 'made',
    },
  };

  test.each(Object.entries(cases))(
    '%s',
    async (_sentence, { wanted: wantedBy = async () => spec(), given, requestedAt = now, want }) => {
      const wanted = await wantedBy();
      await given(wanted);
      rekey.failures.length = 0;
      const before = await rekey.login(wanted.name, 'AWSCURRENT');
      const isAlive = before !== undefined && (await vendors().logsIn(before));
      const parametersBefore = await parametersOf(wanted);
      const published = rekey.published().length;
      const at = requestedAt();

      const outcome = rekey.request(wanted, {}, at);
      if (typeof want === 'object') {
        await expect(outcome).rejects.toMatchObject({
          code: want.code,
          effect: 'none',
          message: expect.stringContaining(want.says),
        });
        return;
      }
      await outcome;
      await idle();
      // Once more, as events come at least once: nothing further comes of it.
      await rekey.request(wanted, {}, at);
      await idle();

      const after = await rekey.login(wanted.name, 'AWSCURRENT');
      const types = rekey
        .published()
        .slice(published)
        .map((event) => event['detail-type']);
      if (want === 'ignored' || want === 'under way') {
        expect(after?.username).toBe(before?.username);
        expect(await parametersOf(wanted)).toEqual(parametersBefore);
        expect(types).toEqual(want === 'ignored' ? ['OrderIgnored', 'OrderIgnored'] : []);
        return;
      }
      expect(rekey.failures).toEqual([]);
      expect(after && (await vendors().logsIn(after))).toBe(true);
      expect((await rekey.describe(wanted.name)).RotationEnabled).toBe(true);
      expect(await rekey.parameter(specOf(wanted))).toBeDefined();
      expect({ isAlive, isSame: after?.username === before?.username }).toEqual({
        isAlive: want === 'kept',
        isSame: want === 'kept' || (want === 'made' && before !== undefined),
      });
      if (want !== 'kept') expect(types).toContain('CredentialCreated');
      if (wanted.usernamePrefix !== undefined && want === 'renewed')
        expect(await usersAt(wanted.usernamePrefix)).toBe(1);
    },
  );

  test('I18: a request that changes nothing says so, once for each delivery, with what to do', async () => {
    const wanted = spec();
    await direct(wanted, 'deletedAt', new Date('2026-03-01T12:00:00Z'));
    await rekey.request(wanted, {}, new Date('2026-03-01T12:00:00Z'));
    await expect(rekey.describe(wanted.name)).rejects.toThrow();
    expect(
      rekey
        .published()
        .filter(({ detail }) => detail['credential'] === wanted.name)
        .map(({ 'detail-type': type, detail }) => ({ type, ...detail })),
    ).toEqual([
      {
        type: 'OrderIgnored',
        order: 'CredentialRequested',
        credential: wanted.name,
        provider: 'zilliz-cloud',
        target: clusterId,
        orderedAt: '2026-03-01T12:00:00.000Z',
        because:
          'the credential that it made was deleted at 2026-03-01T12:00:00.000Z; send the request again if it is to be made anew',
      },
    ]);
  });

  test('of a time to come is refused: no tombstone would ever be younger', async () => {
    const wanted = spec();
    await expect(rekey.request(wanted, {}, new Date(now().getTime() + 11 * 60_000))).rejects.toMatchObject({
      code: 'EVENT_INVALID',
    });
    expect(await rekey.parameter(specOf(wanted))).toBeUndefined();
  });

  test.each(['with', 'without'])(
    'for a restored secret, %s a tombstone, killed between any two calls and delivered again, it converges to one new user',
    async (tombstone) => {
      const restored = async (): Promise<Wanted> => {
        const wanted = spec();
        await make(wanted);
        await bury(wanted);
        if (tombstone === 'without')
          await rekey.parameters.call('DeleteParameter', {
            Name: `/rekey/directives/${wanted.name}/deletedAt`,
          });
        await restore(wanted);
        return wanted;
      };
      const measured = await restored();
      rekey.killAt(undefined);
      await rekey.request(measured);
      const [calls, places] = [[...rekey.calls], rekey.deaths()];
      await idle();
      const wrong: string[] = [];
      for (const { call, when, name: at } of places) {
        const wanted = await restored();
        const requestedAt = now();
        rekey.killAt({ call, when });
        const isKilled = await rekey.request(wanted, {}, requestedAt).then(
          () => false,
          () => true,
        );
        vendors().clock.move(60_000);
        rekey.killAt(undefined);
        if (isKilled) await rekey.request(wanted, {}, requestedAt);
        await idle();
        const login = await rekey.login(wanted.name, 'AWSCURRENT');
        const works =
          login !== undefined &&
          (await vendors()
            .logsIn(login)
            .catch(() => false));
        const users = await usersAt(wanted.usernamePrefix);
        if (!works || users !== 1)
          wrong.push(`killed ${when} call ${call} (${at}): ${works}, ${users} users`);
      }
      expect(calls.length).toBeGreaterThan(8);
      expect(wrong).toEqual([]);
    },
  );

  const interruptions: Record<string, (wanted: Wanted) => Promise<unknown>> = {
    'the deletion is ordered': (wanted) => direct(wanted, 'deleteSince', now()),
    'it is deleted': (wanted) => direct(wanted, 'deletedAt', now()),
    'its spec is changed': (wanted) => storeSpec({ ...wanted, usernamePrefix: `${wanted.usernamePrefix}x` }),
    'its spec goes': forgetSpec,
  };
  test.each(Object.entries(interruptions))(
    'I17: where %s while it is being made, no secret is made and no rotation started',
    async (_sentence, interrupt) => {
      const wanted = spec();
      const requestedAt = now();
      const run = rekey.invoke((inner, until) =>
        createUser(
          { spec: wanted, requestedAt },
          { rotationFunctionArn: 'arn:aws:lambda:eu-central-1:123456789012:function:rekey-rotate-secret' },
          until,
          {
            ...inner,
            ports: {
              ...inner.ports,
              async createParameter(request) {
                const answer = await inner.ports.createParameter(request);
                await interrupt(wanted);
                return answer;
              },
            },
          },
        ),
      );
      await expect(run).rejects.toMatchObject({ code: 'SUPERSEDED', effect: 'none' });
      await expect(rekey.describe(wanted.name)).rejects.toThrow();
    },
  );
});
