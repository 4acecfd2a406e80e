import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { ProviderError } from '../../functions/core/errors.ts';
import type { RekeyEvent } from '../../functions/core/events.ts';
import type { AnyProviderDefinition, LoadProvider, Provider } from '../../functions/core/provider.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import { addRenderOrders } from '../../infra/local/providers/fixtures.ts';
import { startTestRekey, type TestRekey, token, withoutEvent } from '../support/rekey.ts';
import { useTestVendors } from '../support/vendors.ts';

/** What a provider does that is more than looking. */
const changes = [
  'createUser',
  'issueUser',
  'setPassword',
  'applyPrivileges',
  'deleteUser',
  'placeDefault',
  'endSessions',
] as const;
type Change = (typeof changes)[number];

interface Asked {
  readonly change: Change;
  readonly username: string;
  /** How many events the bus had taken when the provider was asked. */
  readonly taken: number;
}

/** How a provider that is asked fails; each comes back as long as it is set. */
const faults = {
  'that is refused': { code: 'REJECTED', effect: 'none', isDone: false },
  'that is done, and the answer lost': { code: 'UNAVAILABLE', effect: 'unknown', isDone: true },
  'that meets a defect of ours': { code: 'DEFECT', effect: 'unknown', isDone: false },
} as const;
type Fault = (typeof faults)[keyof typeof faults];

/** Stands between every use case and every provider. */
const watch = vi.hoisted(() => ({
  asked: [] as unknown[],
  taken: (): number => 0,
  hasBudget: true,
  fault: undefined as undefined | { change: string; fault: unknown },
}));

vi.mock('../../functions/providers/index.ts', async (importOriginal) => {
  const { loadProvider } = await importOriginal<{ loadProvider: LoadProvider }>();
  const watched = (provider: Provider): Provider =>
    new Proxy(provider, {
      get(target, name, receiver) {
        const member: unknown = Reflect.get(target, name, receiver);
        const change = changes.find((each) => each === name);
        if (change === undefined || typeof member !== 'function') return member;
        return async (...given: readonly unknown[]) => {
          const [first] = given;
          const username =
            typeof first === 'string' ? first : String((first as { username?: unknown }).username);
          watch.asked.push({ change, username, taken: watch.taken() } satisfies Asked);
          if (watch.fault?.change !== change) return member(...given);
          const { code, effect, isDone } = watch.fault.fault as Fault;
          if (isDone) await member(...given).catch(() => undefined);
          if (code === 'DEFECT') throw new TypeError('a defect');
          throw new ProviderError('it is told to fail', {
            code,
            effect,
            provider: target.id,
            operation: change,
          });
        };
      },
    });
  const load: LoadProvider = async (id) => {
    const definition = await loadProvider(id);
    if (definition === undefined) return undefined;
    const wrapped: AnyProviderDefinition = {
      ...definition,
      get capabilities() {
        const { capabilities } = definition;
        return watch.hasBudget ? capabilities : { ...capabilities, writes: { perMinute: 0, perRotation: 1 } };
      },
      open: (target, ports) => watched(definition.open(target, ports)),
    };
    return wrapped;
  };
  return { loadProvider: load };
});

const vendors = useTestVendors();
const postgresId = 'dpg-d1abc2d3e4f5g6h7i8j9-a';
const vectorsId = 'in01-108240180a4faf8';
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const graceOverMs = 25 * hourMs;
const foreignPassword = 'Foreign-Passw0rd-of-somebody';
let rekey: TestRekey;

beforeAll(async () => {
  await addRenderOrders(vendors().render.api, vendors().render.postgres, { id: postgresId });
  vendors().zilliz.api.addCluster({ id: vectorsId, name: 'orders', roles: ['orders_rw'] });
  rekey = await startTestRekey(vendors);
  watch.taken = () => rekey.published().length;
});
afterAll(() => rekey.stop());
beforeEach(() => {
  watch.fault = undefined;
  watch.hasBudget = true;
  watch.asked.length = 0;
  rekey.failures.length = 0;
  rekey.secretsManager.setVariants({ retryDelaysMs: [1_000] });
});
afterEach(async () => {
  watch.fault = undefined;
  await rekey.secretsManager.idle();
  for (const name of made.splice(0))
    for (const parameter of [
      `credentials/${name}`,
      ...['revokeBefore', 'deleteSince', 'rotateBefore'].map((kind) => `directives/${name}/${kind}`),
    ])
      await rekey.parameters.call('DeleteParameter', { Name: `/rekey/${parameter}` }).catch(() => undefined);
});

const zilliz = {
  provider: 'zilliz-cloud',
  target: { clusterId: vectorsId },
  apiKeySecret: 'rekey/api-keys/zilliz',
  privileges: { roles: ['orders_rw'] },
};
const render = {
  provider: 'render-postgres',
  target: { postgresId },
  apiKeySecret: 'rekey/api-keys/render',
};
let credentials = 0;
const made: string[] = [];
async function credential(spec: object): Promise<string> {
  credentials += 1;
  const name = `orders-${credentials}`;
  made.push(name);
  await rekey.request({ ...spec, name, usernamePrefix: `o${credentials}` });
  await rekey.secretsManager.idle();
  return name;
}
async function directive(name: string, kind: string): Promise<void> {
  vendors().clock.move(minuteMs);
  const Name = `/rekey/directives/${name}/${kind}`;
  const Value = vendors().clock.now().toISOString();
  await rekey.parameters.call('PutParameter', { Name, Value, Type: 'String' });
  vendors().clock.move(minuteMs);
}
const lookAt = ({ provider, target }: { provider: string; target: object }) =>
  rekey.reconcile({
    is: 'messages',
    messages: [{ id: token(), body: JSON.stringify({ provider, targetId: Object.values(target)[0] }) }],
  });
/** A pass of delete-user; what it throws has been counted by then. */
const sweep = () => rekey.sweep().catch(() => undefined);

type Told = ReturnType<TestRekey['published']>[number];
type Type = RekeyEvent['type'];
const whole: readonly Type[] = [
  'CredentialRotated',
  'CredentialRotationFailed',
  'DriftRepaired',
  'DriftRepairFailed',
];
const userMade: readonly Type[] = [
  'DatabaseUserCreated',
  'DatabaseUserPasswordChanged',
  'DatabaseUserChangeFailed',
];
const gone: readonly Type[] = ['DatabaseUserDeleted', 'DatabaseUserDeletionFailed', 'DatabaseSessionsEnded'];
/** Which events are the intent and the outcome of a change; those of a rotation or a repair speak for all that is done in it. */
const wordsOf = (
  change: Change,
): { readonly intents: readonly Type[]; readonly outcomes: readonly Type[] } =>
  change === 'deleteUser' || change === 'endSessions'
    ? { intents: ['DatabaseUserRetired', 'DatabaseSessionsEndPlanned'], outcomes: gone }
    : { intents: ['DatabaseUserPlanned'], outcomes: [...userMade, ...whole] };

/** What is missing in what was told of everything that the providers were asked. */
function untold(): readonly string[] {
  const told = rekey.published();
  const isOf = (event: Told, types: readonly Type[], username: string): boolean =>
    types.some((type) => type === event['detail-type']) &&
    // A failed rotation and a repair name the credential alone; there is one at a time in each of these tests.
    (event.detail['username'] === undefined || event.detail['username'] === username);
  return (watch.asked as readonly Asked[]).flatMap(({ change, username, taken }) => {
    const { intents, outcomes } = wordsOf(change);
    return [
      ...(told.slice(0, taken).some((event) => isOf(event, intents, username))
        ? []
        : [`no intent before ${change} of ${username}`]),
      ...(told.slice(taken).some((event) => isOf(event, outcomes, username))
        ? []
        : [`no outcome after ${change} of ${username}`]),
    ];
  });
}
const failures = (): readonly object[] =>
  rekey
    .published()
    .filter(({ detail }) => 'code' in detail && 'effect' in detail)
    .map(({ 'detail-type': type, detail: { code, effect } }) => ({ type, code, effect }));

/** Every place where a provider is asked to change something: `arrange` brings it about, `act` asks. */
const places: Record<
  string,
  {
    readonly change: Change;
    readonly arrange: () => Promise<string>;
    readonly act: (name: string) => Promise<unknown>;
    /** The event of its failure; absent where connections that are not ended hold nothing up. */
    readonly failed?: (fault: Fault) => Type;
  }
> = {
  'a rotation makes a user': {
    change: 'createUser',
    arrange: () => credential(zilliz),
    act: (name) => rekey.rotate(name),
    failed: () => 'CredentialRotationFailed',
  },
  'a rotation puts the privileges of the one user in order': {
    change: 'applyPrivileges',
    arrange: () => credential({ ...zilliz, strategy: 'reset-password' }),
    act: (name) => rekey.rotate(name),
    failed: () => 'CredentialRotationFailed',
  },
  'a rotation sets the password of the one user': {
    change: 'setPassword',
    arrange: () => credential({ ...zilliz, strategy: 'reset-password' }),
    act: (name) => rekey.rotate(name),
    failed: () => 'CredentialRotationFailed',
  },
  'a rotation has the vendor make a user': {
    change: 'issueUser',
    arrange: () => credential(render),
    act: (name) => rekey.rotate(name),
    failed: () => 'CredentialRotationFailed',
  },
  'a superseded user goes': {
    change: 'deleteUser',
    async arrange() {
      const name = await credential(zilliz);
      await rekey.rotate(name);
      vendors().clock.move(graceOverMs);
      return name;
    },
    act: sweep,
    failed: () => 'DatabaseUserDeletionFailed',
  },
  'a user that was revoked loses its connections': {
    change: 'endSessions',
    async arrange() {
      const name = await credential(zilliz);
      await directive(name, 'revokeBefore');
      await rekey.rotate(name);
      return name;
    },
    act: sweep,
  },
  'the connections of a revoked password end': {
    change: 'endSessions',
    async arrange() {
      const name = await credential({ ...zilliz, strategy: 'reset-password' });
      await directive(name, 'revokeBefore');
      await rekey.rotate(name);
      return name;
    },
    act: sweep,
  },
  'another user takes the place of the default one': {
    change: 'placeDefault',
    async arrange() {
      const name = await credential(render);
      vendors().clock.move(hourMs);
      await directive(name, 'deleteSince');
      return name;
    },
    act: sweep,
    failed: () => 'DatabaseUserChangeFailed',
  },
  'privileges are put right': {
    change: 'applyPrivileges',
    async arrange() {
      const name = await credential({ ...zilliz, strategy: 'alternate-users', grace: 'PT0S' });
      const login = await rekey.login(name, 'AWSCURRENT');
      vendors().zilliz.api.actor.revokeRole(vectorsId, login?.username ?? '', 'orders_rw');
      return name;
    },
    act: () => lookAt(zilliz),
    failed: () => 'DriftRepairFailed',
  },
  'the password of before is set again': {
    change: 'setPassword',
    async arrange() {
      const name = await credential({ ...zilliz, strategy: 'reset-password' });
      const login = await rekey.login(name, 'AWSCURRENT');
      const answer = (await rekey.secretsManager.call('GetSecretValue', {
        SecretId: `rekey/${name}`,
      })) as { SecretString: string };
      await rekey.secretsManager.call('PutSecretValue', {
        SecretId: `rekey/${name}`,
        ClientRequestToken: token(),
        VersionStages: ['AWSPENDING'],
        SecretString: answer.SecretString.replace(/"host":"[^"]+"/, '"host":"elsewhere.example"').replace(
          /"password":"[^"]+"/,
          `"password":"${foreignPassword}"`,
        ),
      });
      vendors().zilliz.api.actor.setPassword(vectorsId, login?.username ?? '', foreignPassword);
      vendors().clock.move(7 * hourMs);
      return name;
    },
    act: () => lookAt(zilliz),
    // A password that is refused does not keep the rotation from being given up.
    failed: ({ code }) => (code === 'REJECTED' ? 'DatabaseUserChangeFailed' : 'DriftRepairFailed'),
  },
};

describe.each(Object.entries(places))('%s', (_place, { change, arrange, act, failed }) => {
  test('with an intent before the provider is asked, and an outcome after it', async () => {
    const name = await arrange();
    watch.asked.length = 0;
    await act(name);
    expect((watch.asked as readonly Asked[]).map((asked) => asked.change)).toContain(change);
    expect(untold()).toEqual([]);
  });

  test.each(Object.entries(faults))(
    '%s, with an intent before and that outcome after it',
    async (_how, fault) => {
      const name = await arrange();
      watch.asked.length = 0;
      const before = rekey.published().length;
      watch.fault = { change, fault };
      await act(name);
      expect((watch.asked as readonly Asked[]).map((asked) => asked.change)).toContain(change);
      expect(untold()).toEqual([]);
      if (failed !== undefined) {
        const { code, effect } = fault;
        const types = rekey.published().slice(before);
        expect(types.length).toBeGreaterThan(1);
        expect(failures().slice(-3)).toContainEqual({ type: failed(fault), code, effect });
      }
    },
  );
});

describe('a user that the vendor does not let go', () => {
  const refusal = { change: 'deleteUser', fault: faults['that is refused'] };
  async function superseded(): Promise<string> {
    const name = await credential(zilliz);
    await rekey.rotate(name);
    vendors().clock.move(graceOverMs);
    return name;
  }
  const types = (name: string): readonly string[] =>
    rekey
      .published()
      .filter(({ detail }) => detail['credential'] === name)
      .map((event) => event['detail-type'])
      .filter((type) => /^DatabaseUser(Retired|Delet)/.test(type));

  test('is told once, however often it is tried, then what else comes of it, and at last that it is gone', async () => {
    const name = await superseded();
    watch.fault = refusal;
    for (let pass = 1; pass <= 10; pass += 1) await sweep();
    expect((watch.asked as readonly Asked[]).filter(({ change }) => change === 'deleteUser')).toHaveLength(
      10,
    );
    const once = ['DatabaseUserRetired', 'DatabaseUserDeletionFailed'];
    expect(types(name)).toEqual(once);
    watch.fault = { ...refusal, fault: { ...refusal.fault, code: 'UNAVAILABLE', effect: 'unknown' } };
    for (let pass = 1; pass <= 3; pass += 1) await sweep();
    expect(types(name)).toEqual([...once, 'DatabaseUserDeletionFailed']);
    watch.fault = { ...refusal, fault: { ...refusal.fault, code: 'UNAVAILABLE' } };
    for (let pass = 1; pass <= 3; pass += 1) await sweep();
    const told = [...once, 'DatabaseUserDeletionFailed', 'DatabaseUserDeletionFailed'];
    expect(types(name)).toEqual(told);
    watch.fault = undefined;
    await sweep();
    expect(types(name)).toEqual([...told, 'DatabaseUserDeleted']);
    await sweep();
    expect(types(name)).toHaveLength(5);
  });

  test('is told again where it is to go for another reason', async () => {
    const name = await superseded();
    watch.fault = refusal;
    await sweep();
    await directive(name, 'revokeBefore');
    await sweep();
    await sweep();
    const once = ['DatabaseUserRetired', 'DatabaseUserDeletionFailed'];
    expect(types(name)).toEqual([...once, ...once]);
  });

  test('although it is gone by then: that is told when it is seen', async () => {
    const name = await superseded();
    watch.fault = { change: 'deleteUser', fault: faults['that is done, and the answer lost'] };
    await sweep();
    watch.fault = undefined;
    await sweep();
    expect(types(name)).toEqual(['DatabaseUserRetired', 'DatabaseUserDeletionFailed', 'DatabaseUserDeleted']);
    const told = rekey.published().findLast((event) => event['detail-type'] === 'DatabaseUserDeleted');
    expect(told?.detail).toEqual({
      credential: name,
      provider: 'zilliz-cloud',
      target: vectorsId,
      strategy: 'replace-user',
      username: expect.any(String),
      reason: 'superseded',
      outcome: 'absent',
    });
  });

  test('is nobody’s deletion of ours when it vanishes after it was to stay', async () => {
    const name = await superseded();
    const { username = '' } = (await rekey.login(name, 'AWSPREVIOUS')) ?? {};
    let isNoted = false;
    await rekey.invoke((inner, until) => {
      const ports: typeof inner.ports = {
        ...inner.ports,
        writeNote: async (request) => {
          const isFirstNote = !isNoted && request.place.startsWith('deletions/');
          isNoted ||= isFirstNote;
          const outcome = await inner.ports.writeNote(request);
          // Longer than what a guard read before counts.
          if (isFirstNote) vendors().clock.move(3_000);
          return outcome;
        },
        // Somebody switches rotation off right before the provider would be asked.
        describeSecret: async (request) => {
          const answer = await inner.ports.describeSecret(request);
          return isNoted && answer !== 'absent' ? { ...answer, rotationEnabled: false } : answer;
        },
      };
      return deleteUsers({ is: 'pass', dryRun: false }, until, { ...inner, ports });
    });
    expect(isNoted).toBe(true);
    const told = ['DatabaseUserRetired', 'DatabaseUserDeletionFailed'];
    expect(types(name)).toEqual(told);
    vendors().zilliz.api.actor.deleteUser(vectorsId, username);
    await sweep();
    expect(types(name)).toEqual(told);
  });

  test('and was not tried again for want of calls: that it is gone is told all the same', async () => {
    const name = await superseded();
    const { username = '' } = (await rekey.login(name, 'AWSPREVIOUS')) ?? {};
    watch.fault = refusal;
    await sweep();
    watch.hasBudget = false;
    await sweep();
    watch.hasBudget = true;
    expect((watch.asked as readonly Asked[]).filter(({ change }) => change === 'deleteUser')).toHaveLength(1);
    vendors().zilliz.api.actor.deleteUser(vectorsId, username);
    await sweep();
    expect(types(name)).toEqual(['DatabaseUserRetired', 'DatabaseUserDeletionFailed', 'DatabaseUserDeleted']);
  });

  test('is reported by what the vendor said while the bus fails, too, and told by the next pass', async () => {
    const name = await superseded();
    watch.fault = refusal;
    const report = await rekey.invoke((inner, until) =>
      deleteUsers({ is: 'pass', dryRun: false }, until, {
        ...inner,
        ports: withoutEvent('DatabaseUserDeletionFailed', inner.ports),
      }),
    );
    expect(
      report.targets.flatMap(({ users }) => users).filter(({ credential: of }) => of === name),
    ).toMatchObject([{ outcome: 'failed', because: 'REJECTED' }]);
    await sweep();
    // What nobody was told is begun anew.
    expect(types(name)).toEqual(['DatabaseUserRetired', 'DatabaseUserRetired', 'DatabaseUserDeletionFailed']);
  });
});

test('a user whose password cannot be stored is told all the same', async () => {
  const name = await credential(render);
  const before = rekey.published().length;
  rekey.secretsManager.setVariants({ retryDelaysMs: [] });
  const told = (): readonly string[] =>
    rekey
      .published()
      .slice(before)
      .map((event) => event['detail-type']);
  await rekey.invoke(async (inner, until) => {
    const { rotateSecret } = await import('../../functions/lifecycle/rotate-secret.ts');
    const { StoreError } = await import('../../functions/core/errors.ts');
    const { ARN } = await rekey.describe(name);
    const ClientRequestToken = token();
    watch.fault = { change: 'issueUser', fault: faults['that is refused'] };
    await rekey.secretsManager.call('RotateSecret', {
      SecretId: ARN,
      ClientRequestToken,
      RotationLambdaARN: 'arn:aws:lambda:eu-central-1:123456789012:function:rekey-rotate-secret',
    });
    await rekey.secretsManager.idle();
    watch.fault = undefined;
    const denied = new StoreError('STORE_DENIED', 'none', 'PutSecretValue was denied');
    const ports = {
      ...inner.ports,
      writeSecret: async () => {
        throw denied;
      },
    };
    await expect(
      rotateSecret({ step: 'createSecret', secretId: ARN, token: ClientRequestToken }, until, {
        ...inner,
        ports,
      }),
    ).rejects.toBe(denied);
  });
  expect(told().slice(-3)).toEqual([
    'DatabaseUserPlanned',
    'DatabaseUserCreated',
    'CredentialRotationFailed',
  ]);
});
