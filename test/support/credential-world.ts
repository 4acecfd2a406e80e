import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest';
import type { Invocation } from '../../functions/core/events.ts';
import type { Ports } from '../../functions/core/ports.ts';
import type { Login, Strategy } from '../../functions/core/provider.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import {
  addCockroachdbOrders,
  addRenderOrders,
  addVultrOrders,
} from '../../infra/local/providers/fixtures.ts';
import { startTestRekey, type TestRekey, token } from './rekey.ts';
import { isWrite, useTestVendors } from './vendors.ts';

export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;
/** The default grace and all that may be added to it. */
export const graceOverMs = 25 * hourMs;

export const targets = {
  'render-postgres': {
    target: { postgresId: 'dpg-d1abc2d3e4f5g6h7i8j9-a' },
    apiKeySecret: 'rekey/api-keys/render',
  },
  'cockroachdb-cloud': {
    target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10' },
    apiKeySecret: 'rekey/api-keys/cockroachdb',
    privileges: { roles: ['orders_rw'] },
  },
  'vultr-valkey': {
    target: { databaseId: '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21' },
    apiKeySecret: 'rekey/api-keys/vultr',
    privileges: { categories: ['+@read'], keys: ['orders:*'] },
  },
  'zilliz-cloud': {
    target: { clusterId: 'in01-108240180a4faf8' },
    apiKeySecret: 'rekey/api-keys/zilliz',
    privileges: { roles: ['orders_rw'] },
  },
} as const;
export type ProviderId = keyof typeof targets;
/** The providers that take a password of ours, so that they have all strategies. */
export const choosing = ['cockroachdb-cloud', 'vultr-valkey', 'zilliz-cloud'] as const;

export interface Scenario {
  readonly provider: ProviderId;
  readonly strategy: Strategy;
}
/** Every provider with every strategy that it has. */
export const scenarios: readonly Scenario[] = [
  { provider: 'render-postgres', strategy: 'replace-user' },
  ...choosing.flatMap((provider) =>
    (['replace-user', 'alternate-users', 'reset-password'] as const).map((strategy) => ({
      provider,
      strategy,
    })),
  ),
];

/** Every provider and every strategy, for what has nothing to do with both together; fewer at the slowest one. */
export const played = scenarios.filter(
  ({ provider, strategy }) => provider !== 'cockroachdb-cloud' || strategy === 'replace-user',
);

export interface Made {
  readonly name: string;
  readonly prefix: string;
  readonly provider: ProviderId;
  readonly spec: Readonly<Record<string, unknown>>;
  /** How many events there were before it. */
  readonly events: number;
}

/**
 * Every vendor with one target, rekey's functions on them, and what people do by hand. For tests that are told as a story about one
 * credential; its spec and orders are gone after the test, so that no pass of another test looks at it.
 */
export function useCredentialWorld() {
  const vendors = useTestVendors();
  let started: TestRekey | undefined;
  const rekey = (): TestRekey => {
    if (started === undefined) throw new Error('rekey is not started yet: ask inside a test or hook');
    return started;
  };
  const made: Made[] = [];
  let credentials = 0;

  beforeAll(async () => {
    const { render, cockroachdb, vultr, zilliz } = vendors();
    await addRenderOrders(render.api, render.postgres, { id: targets['render-postgres'].target.postgresId });
    const { clusterId } = targets['cockroachdb-cloud'].target;
    await addCockroachdbOrders(cockroachdb.api, cockroachdb.postgres, { id: clusterId });
    await addVultrOrders(vultr.api, vultr.engine, { id: targets['vultr-valkey'].target.databaseId });
    zilliz.api.addCluster({
      id: targets['zilliz-cloud'].target.clusterId,
      name: 'orders',
      roles: ['orders_rw'],
    });
    started = await startTestRekey(vendors);
  });
  beforeEach(() => {
    const { failures, secretsManager, killAt } = rekey();
    failures.length = 0;
    killAt(undefined);
    secretsManager.setVariants({ retryDelaysMs: [1_000, minuteMs, minuteMs] });
    const { clusterId } = targets['zilliz-cloud'].target;
    // A cluster has room for a hundred users.
    const { actor, clusters } = vendors().zilliz.api;
    for (const { username } of clusters.get(clusterId)?.users() ?? [])
      if (username !== 'db_admin') actor.deleteUser(clusterId, username);
  });
  afterEach(async () => {
    for (const one of made.splice(0)) await world.forget(one);
    rekey().takeMessages();
  });
  afterAll(() => started?.stop());

  const world = {
    vendors,
    rekey,
    secrets: (operation: string, input: object) => rekey().secretsManager.call(operation, input),
    parameters: (operation: string, input: object) => rekey().parameters.call(operation, input),
    move: (ms: number): void => vendors().clock.move(ms),
    now: (): Date => vendors().clock.now(),

    /** A credential of its own prefix, with what its first rotation made. */
    async credential(
      {
        provider,
        strategy = 'replace-user',
      }: { readonly provider: ProviderId; readonly strategy?: Strategy },
      overrides: object = {},
    ): Promise<Made> {
      credentials += 1;
      const [name, prefix] = [`orders-${credentials}`, `o${credentials}`];
      const spec = { provider, ...targets[provider], strategy, name, usernamePrefix: prefix, ...overrides };
      const one = { name, prefix, provider, spec, events: rekey().published().length };
      made.push(one);
      await rekey().request(spec);
      await rekey().secretsManager.idle();
      return one;
    },
    /** As a deployment writes it. */
    storeSpec: ({ name, spec }: Made, changes: object) =>
      world.parameters('PutParameter', {
        Name: `/rekey/credentials/${name}`,
        Value: JSON.stringify({ ...spec, ...changes }),
        Type: 'String',
        Overwrite: true,
      }),
    /** An order as it is kept, before any function has acted on it. */
    direct: ({ name }: Made, kind: string, at: Date = vendors().clock.now()) =>
      world.parameters('PutParameter', {
        Name: `/rekey/directives/${name}/${kind}`,
        Value: at.toISOString(),
        Type: 'String',
        Overwrite: true,
      }),
    /** Afterwards no pass looks at it. */
    async forget({ name }: Made): Promise<void> {
      const kinds = [
        'rotateBefore',
        'revokeBefore',
        'revokeAnyway',
        'changeBefore',
        'deleteSince',
        'deletedAt',
      ];
      for (const parameter of [
        `/rekey/credentials/${name}`,
        ...kinds.map((kind) => `/rekey/directives/${name}/${kind}`),
      ])
        await world.parameters('DeleteParameter', { Name: parameter }).catch(() => undefined);
    },
    /** CredentialCompromised, and the rotation that answers it. */
    async compromise({ name }: Made, options: { readonly evenIfLockedOut?: true } = {}): Promise<void> {
      world.move(1_500);
      await rekey().order({
        is: 'order',
        order: 'CredentialCompromised',
        credential: name,
        orderedAt: world.now(),
        ...options,
      });
      await rekey().secretsManager.idle();
    },
    /** One pass of start-rotations, and the rotations that it starts. */
    async start(): Promise<void> {
      await rekey().start();
      await rekey().secretsManager.idle();
    },
    /** All passes, once an hour. */
    async passHours(hours: number): Promise<void> {
      for (let hour = 0; hour < hours; hour += 1) {
        world.move(hourMs);
        await world.start();
        await world.reconcile();
        await rekey().reconcile(rekey().takeMessages());
        await rekey().sweep();
      }
    },
    /** Passes of delete-user, as the schedule brings them. */
    async sweepQuarters(quarters: number): Promise<void> {
      for (let quarter = 0; quarter < quarters; quarter += 1) {
        await rekey().sweep();
        world.move(15 * minuteMs);
      }
    },
    orderPause: (
      order: 'RekeyPaused' | 'RekeyResumed',
      on?: { readonly provider: string; readonly targetId: string },
    ) => rekey().order({ is: 'pause', order, on, orderedAt: world.now() }),
    /** For delete-user. */
    deletionOf: ({ name }: Pick<Made, 'name'>): Extract<Invocation, { readonly is: 'order' }> => ({
      is: 'order',
      order: 'CredentialDeletionRequested',
      credential: name,
      orderedAt: world.now(),
    }),
    /** One pass of reconcile-users over all targets. */
    async reconcile(): Promise<void> {
      await rekey().reconcile();
      await rekey().reconcile(rekey().takeMessages());
    },
    /** A use case with some of its ways out changed, above the seam that guards writes. */
    invokeWith: <Answer>(
      change: (ports: Ports) => Partial<Ports>,
      use: (rekey: Rekey, until: Date) => Promise<Answer>,
    ): Promise<Answer> =>
      rekey().invoke((inner, until) =>
        use({ ...inner, ports: { ...inner.ports, ...change(inner.ports) } }, until),
      ),

    async labels({ name }: Made): Promise<Readonly<Record<string, string>>> {
      return rekey().labels(name);
    },
    /** What a person does in the console: a label to one version, and off the one that has it. */
    async putLabel(one: Made, VersionStage: string, to: string | undefined): Promise<void> {
      const from = (await world.labels(one))[VersionStage];
      await world.secrets('UpdateSecretVersionStage', {
        SecretId: `rekey/${one.name}`,
        VersionStage,
        ...(to === undefined ? {} : { MoveToVersionId: to }),
        ...(from === undefined ? {} : { RemoveFromVersionId: from }),
      });
    },
    /** The text that a label holds. */
    async value({ name }: Made, VersionStage = 'AWSCURRENT'): Promise<string> {
      const answer = await world.secrets('GetSecretValue', { SecretId: `rekey/${name}`, VersionStage });
      return (answer as { SecretString: string }).SecretString;
    },
    /** Who may write the secret puts this there, in a new version; answers that. */
    async putValue({ name }: Made, label: string, SecretString: string, version = token()): Promise<string> {
      await world.secrets('PutSecretValue', {
        SecretId: `rekey/${name}`,
        SecretString,
        ClientRequestToken: version,
        VersionStages: [label],
      });
      return version;
    },
    async login({ name }: Made, label = 'AWSCURRENT'): Promise<Login> {
      const found = await rekey().login(name, label);
      if (found === undefined) throw new Error(`${name} has no login under ${label}`);
      return found;
    },
    works: async (login: Login): Promise<boolean> =>
      vendors()
        .logsIn(login)
        .catch(() => false),
    async usersAt({ provider, prefix }: Made): Promise<readonly string[]> {
      const names = await vendors().byProvider[provider]?.usernames(targets[provider].target);
      return (names ?? []).filter((username) => username.startsWith(`${prefix}_`)).toSorted();
    },
    /** Sets a password that nobody of ours knows, or that of a login again. */
    async setPasswordByHand({ provider }: Made, username: string, password: string): Promise<void> {
      const { render, cockroachdb, vultr, zilliz } = vendors();
      if (provider === 'render-postgres')
        await render.postgres.query(`ALTER ROLE ${username} PASSWORD '${password}'`);
      else if (provider === 'cockroachdb-cloud')
        await cockroachdb.postgres.query(`ALTER ROLE ${username} PASSWORD '${password}'`);
      else if (provider === 'vultr-valkey') await vultr.api.actor.setPassword(username, password);
      else zilliz.api.actor.setPassword(targets[provider].target.clusterId, username, password);
    },
    published: (type: string, { name, events }: Made) =>
      rekey()
        .published()
        .slice(events)
        .filter((event) => event['detail-type'] === type && event.detail['credential'] === name)
        .map(({ detail }) => detail),
    found: (one: Made): readonly unknown[] => world.published('DriftFound', one).map(({ kind }) => kind),
    /** How many changes vendors were asked for. */
    writes: (): number => vendors().requests.filter(isWrite).length,
    failureOf: (step: Promise<unknown>): Promise<unknown> =>
      step.then(
        () => 'it went on',
        (error: unknown) => error,
      ),
    /** A rotation that Secrets Manager has given up after these steps; answers its token. */
    async openRotation(one: Made, ...steps: readonly string[]): Promise<string> {
      const { secretsManager, killAt, rotate, step, failures } = rekey();
      secretsManager.setVariants({ retryDelaysMs: [] });
      killAt({ call: 1, when: 'before' });
      const pending = await rotate(one.name);
      killAt(undefined);
      failures.length = 0;
      for (const each of steps) await step(one.name, each, pending);
      return pending;
    },
  };
  return world;
}

/** Stores the login of CockroachDB's administrator under this name before the tests; for `adminSecret` in specs. */
export function useAdministrator(world: ReturnType<typeof useCredentialWorld>): string {
  const name = 'rekey/admin/cockroachdb';
  const password = 'Root-password_00000000000000001';
  beforeAll(async () => {
    await world.vendors().cockroachdb.postgres.query(`ALTER ROLE root PASSWORD '${password}'`);
    await world.secrets('CreateSecret', {
      Name: name,
      SecretString: JSON.stringify({ username: 'root', password }),
      ClientRequestToken: token(),
    });
  });
  beforeEach(() => world.vendors().keepSecret(password));
  return name;
}

export const anotherPassword = 'Somebodys-password_000000000001';

/** Whether an HTTP request takes a user away, at whichever vendor. */
export const isDeletion = ({ method, url }: { readonly method: string; readonly url: URL }): boolean =>
  method === 'DELETE' || url.pathname.endsWith('/users/drop');
