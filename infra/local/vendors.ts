import type { FindingKind } from '../../functions/core/findings.ts';
import type { Clock } from './clock.ts';
import { type Postgres, startPostgres } from './engines/postgres.ts';
import { type SqlFront, startSqlFront } from './engines/sql-front.ts';
import { startValkey, type Valkey } from './engines/valkey.ts';
import { startValkeyFront, type ValkeyFront } from './engines/valkey-front.ts';
import { createLifetime, settledTogether } from './lifetime.ts';
import { createCertificateAuthority, type Network, startNetwork } from './network.ts';
import { type CockroachdbCloud, createCockroachdbCloud } from './providers/cockroachdb-cloud.ts';
import { addCockroachdbOrders, addRenderOrders, addVultrOrders } from './providers/fixtures.ts';
import { createRenderPostgres, type RenderPostgres } from './providers/render-postgres.ts';
import { createVultrValkey, type VultrValkey } from './providers/vultr-valkey.ts';
import { createZillizCloud, type ZillizCloud } from './providers/zilliz-cloud.ts';

/** The vendors' part of the world: their APIs under their own names, in front of real engines where there are any. */
export interface Vendors {
  readonly network: Network;
  readonly render: { readonly api: RenderPostgres; readonly postgres: Postgres; readonly front: SqlFront };
  readonly cockroachdb: {
    readonly api: CockroachdbCloud;
    readonly postgres: Postgres;
    readonly front: SqlFront;
  };
  /** A real Valkey or Redis where this machine has one: `engine.kind` says so. */
  readonly vultr: { readonly api: VultrValkey; readonly engine: Valkey; readonly front: ValkeyFront };
  readonly zilliz: { readonly api: ZillizCloud };
  /** The same vendors, by the provider that a spec names. */
  readonly byProvider: Readonly<Record<string, Vendor>>;
  /** The platforms of consumers, by the kind that a spec names. */
  readonly byConsumer: Readonly<Record<string, ConsumerPlatform>>;
  /** Afterwards no process, socket or file of theirs is left. */
  stop(): Promise<void>;
}

/** What a run needs of a vendor, whichever it is. */
export interface Vendor {
  readonly apiKey: string;
  /** Makes the target that a spec names, and the roles. What is there already stays. */
  prepare(target: Readonly<Record<string, string>>, roles: readonly string[]): Promise<void>;
  /** Who exists on the target now, asked of the engine and not of rekey. */
  usernames(target: Readonly<Record<string, string>>): Promise<readonly string[]>;
  /** Does, past rekey, what people do: gives this user more rights than are declared, or makes a user of one's own. */
  meddle(target: Readonly<Record<string, string>>, username: string): Promise<Meddling>;
  /** Lets the vendor's webhook fail from now on, and makes a user meanwhile. @default the vendor sends no webhooks */
  readonly silence?: (target: Readonly<Record<string, string>>) => Promise<Silence>;
}

/** What somebody did by hand, and what reconcile has to make of it. */
export interface Meddling {
  readonly done: string;
  /** Kinds of findings. */
  readonly found: readonly FindingKind[];
  /** Those of them that rekey mends by itself. */
  readonly repaired: readonly FindingKind[];
}

/** A vendor that tells of nothing, though it should. */
export interface Silence {
  readonly done: string;
  /** The user that somebody made, of which nobody is told. */
  readonly username: string;
  /** After that long the vendor has given up. */
  readonly lastsMs: number;
  /** Does what people do about it, so that the vendor tells again, and has something to tell. Says what that is. */
  mend(): Promise<string>;
}

/** What a run needs of the platform on which a consumer runs. */
export interface ConsumerPlatform {
  readonly apiKey: string;
  /** Makes the consumer that a spec declares, without a login yet. What is there already stays. */
  prepare(settings: Readonly<Record<string, string>>): Promise<void>;
  /** What it runs with now, asked of the platform and not of rekey; undefined before it was given anything. */
  runningWith(settings: Readonly<Record<string, string>>): string | undefined;
  /** Gives it another login, past rekey. */
  meddle(settings: Readonly<Record<string, string>>): Promise<Meddling>;
}

export interface VendorsOptions {
  /** An existing directory below which the engines keep their files. */
  readonly directory: string;
  readonly clock: Clock;
  readonly apiKeys: ApiKeys;
  readonly log?: (line: string) => void;
}

export interface ApiKeys {
  readonly render: string;
  readonly cockroachdb: string;
  readonly vultr: string;
  readonly zilliz: string;
}

/** Starts all vendors. Both of PostgreSQL have an engine of its own, as roles are cluster-wide in PostgreSQL and `admin` is a superuser. */
export async function startVendors({ directory, clock, apiKeys, log }: VendorsOptions): Promise<Vendors> {
  // Fronts after engines, as what is added last ends first: an engine waits for its clients.
  const lifetime = createLifetime();
  const engine = async (): Promise<Postgres> => {
    const postgres = await startPostgres({ directory, ...(log ? { log } : {}) });
    lifetime.add(() => postgres.stop());
    return postgres;
  };
  const front = async (postgres: Postgres, certificate: { key: string; cert: string }): Promise<SqlFront> => {
    const started = await startSqlFront({ postgres, certificate, now: () => clock.now() });
    lifetime.add(() => started.close());
    return started;
  };
  try {
    const authority = await createCertificateAuthority();
    const certificate = await authority.certificate(['localhost', '127.0.0.1']);
    const [renderEngine, cockroachdbEngine] = await settledTogether([engine(), engine()]);
    const renderFront = await front(renderEngine, certificate);
    const cockroachdbFront = await front(cockroachdbEngine, certificate);
    const render = createRenderPostgres({
      postgres: renderEngine,
      front: renderFront,
      clock,
      apiKeys: [apiKeys.render],
    });
    lifetime.add(() => render.webhooks.stop());
    const cockroachdb = createCockroachdbCloud({
      postgres: cockroachdbEngine,
      front: cockroachdbFront,
      clock,
      apiKeys: [apiKeys.cockroachdb],
      caPem: authority.caPem,
    });
    const valkey = await startValkey({ directory, ...(log ? { log } : {}) });
    lifetime.add(() => valkey.stop());
    const valkeyFront = await startValkeyFront({ valkey, certificate });
    lifetime.add(() => valkeyFront.close());
    const vultr = createVultrValkey({
      valkey,
      front: valkeyFront,
      clock,
      apiKeys: [apiKeys.vultr],
      caPem: authority.caPem,
    });
    const zilliz = createZillizCloud({ clock, apiKeys: [apiKeys.zilliz] });
    const network = await startNetwork({
      authority,
      hosts: {
        [render.host]: render.listener,
        [cockroachdb.host]: cockroachdb.listener,
        [vultr.host]: vultr.listener,
        [zilliz.host]: zilliz.listener,
        [zilliz.clusterHosts]: zilliz.clusterListener,
      },
    });
    lifetime.add(() => network.close());
    return {
      network,
      render: { api: render, postgres: renderEngine, front: renderFront },
      cockroachdb: { api: cockroachdb, postgres: cockroachdbEngine, front: cockroachdbFront },
      vultr: { api: vultr, engine: valkey, front: valkeyFront },
      zilliz: { api: zilliz },
      byProvider: {
        'render-postgres': {
          apiKey: apiKeys.render,
          async prepare({ postgresId = '' }) {
            if (!render.databases.has(postgresId))
              await addRenderOrders(render, renderEngine, { id: postgresId });
          },
          usernames: async ({ postgresId = '' }) =>
            (render.databases.get(postgresId)?.users() ?? []).map(({ username }) => username),
          async meddle({ postgresId = '' }) {
            await render.actor.createUser(postgresId, 'somebody');
            return {
              done: 'somebody made a user in the dashboard, which is the default now',
              found: ['DefaultUserForeign'],
              repaired: [],
            };
          },
          async silence({ postgresId = '' }) {
            const { webhooks } = render;
            const username = 'somebody_else';
            webhooks.switches.signs = 'with-another-secret';
            await render.actor.createUser(postgresId, username);
            return {
              done: `somebody replaced the signing secret of the webhook, and made the user ${username}`,
              username,
              lastsMs: webhooks.switches.retryDelaysMs.reduce((sum, ms) => sum + ms, 0),
              async mend() {
                webhooks.switches.signs = 'properly';
                for (const { id } of webhooks.list()) webhooks.enable(id);
                webhooks.send({ type: 'postgres_backup_completed', serviceId: postgresId });
                return 'the secret is put back, the webhook is switched on again on its settings page, and a backup is made';
              },
            };
          },
        },
        'cockroachdb-cloud': {
          apiKey: apiKeys.cockroachdb,
          async prepare({ clusterId = '' }, roles) {
            if (!cockroachdb.clusters.has(clusterId))
              await addCockroachdbOrders(cockroachdb, cockroachdbEngine, { id: clusterId });
            for (const role of roles) await ensureRole(cockroachdbEngine, role);
          },
          usernames: async ({ clusterId = '' }) =>
            ((await cockroachdb.clusters.get(clusterId)?.users()) ?? []).map(({ username }) => username),
          async meddle({ clusterId = '' }, username) {
            await cockroachdb.actor.grantAdmin(clusterId, username);
            return {
              done: `somebody made ${username} an admin again`,
              found: ['PrivilegeDrift'],
              repaired: ['PrivilegeDrift'],
            };
          },
        },
        'vultr-valkey': {
          apiKey: apiKeys.vultr,
          async prepare({ databaseId = '' }) {
            if (!vultr.databases.has(databaseId)) await addVultrOrders(vultr, valkey, { id: databaseId });
          },
          usernames: async ({ databaseId = '' }) => (await vultr.databases.get(databaseId)?.users()) ?? [],
          async meddle(_target, username) {
            await vultr.actor.setAccessControl(username, {
              categories: ['+@all'],
              commands: [],
              keys: ['*'],
              channels: ['*'],
            });
            return {
              done: `somebody gave ${username} every right on every key`,
              found: ['PrivilegeDrift'],
              repaired: ['PrivilegeDrift'],
            };
          },
        },
        'zilliz-cloud': {
          apiKey: apiKeys.zilliz,
          async prepare({ clusterId = '' }, roles) {
            if (!zilliz.clusters.has(clusterId)) zilliz.addCluster({ id: clusterId, name: 'orders' });
            for (const role of roles) zilliz.actor.createRole(clusterId, role);
          },
          usernames: async ({ clusterId = '' }) =>
            (zilliz.clusters.get(clusterId)?.users() ?? []).map(({ username }) => username),
          async meddle({ clusterId = '' }, username) {
            zilliz.actor.createRole(clusterId, 'auditors');
            zilliz.actor.grantRole(clusterId, username, 'auditors');
            return {
              done: `somebody made ${username} one of the auditors`,
              found: ['PrivilegeDrift'],
              repaired: ['PrivilegeDrift'],
            };
          },
        },
      },
      byConsumer: {
        'render-service': {
          apiKey: apiKeys.render,
          async prepare({ serviceId = '' }) {
            if (!render.services.has(serviceId)) render.addService({ id: serviceId, name: 'orders-api' });
          },
          runningWith: ({ serviceId = '', environmentVariable = '' }) =>
            render.services.get(serviceId)?.running()[environmentVariable],
          async meddle({ serviceId = '', environmentVariable = '' }) {
            render.actor.setVariable(serviceId, environmentVariable, 'postgresql://localhost/somewhere-else');
            return {
              done: `somebody pointed ${environmentVariable} of ${serviceId} elsewhere`,
              found: ['ConsumerBehind'],
              repaired: ['ConsumerBehind'],
            };
          },
        },
      },
      stop: lifetime.end,
    };
  } catch (error) {
    await lifetime.end();
    throw error;
  }
}

async function ensureRole(postgres: Postgres, role: string): Promise<void> {
  const [found] = await postgres.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [role]);
  if (found !== undefined) return;
  // Names of roles are checked by the spec's schema: letters, digits and underscores.
  await postgres.query(`CREATE ROLE "${role}" NOLOGIN`);
  await postgres.query(`GRANT SELECT ON orders TO "${role}"`, [], 'defaultdb');
}
