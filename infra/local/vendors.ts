import type { Clock } from './clock.ts';
import { type Postgres, startPostgres } from './engines/postgres.ts';
import { type SqlFront, startSqlFront } from './engines/sql-front.ts';
import { createCertificateAuthority, type Network, startNetwork } from './network.ts';
import { type CockroachdbCloud, createCockroachdbCloud } from './providers/cockroachdb-cloud.ts';
import { createRenderPostgres, type RenderPostgres } from './providers/render-postgres.ts';

/** The vendors' part of the world: their APIs under their own names, in front of real engines. */
export interface Vendors {
  readonly network: Network;
  readonly render: { readonly api: RenderPostgres; readonly postgres: Postgres; readonly front: SqlFront };
  readonly cockroachdb: {
    readonly api: CockroachdbCloud;
    readonly postgres: Postgres;
    readonly front: SqlFront;
  };
  /** Afterwards no process, socket or file of theirs is left. */
  stop(): Promise<void>;
}

export interface VendorsOptions {
  /** An existing directory below which the engines keep their files. */
  readonly directory: string;
  readonly clock: Clock;
  readonly apiKeys: { readonly render: string; readonly cockroachdb: string };
  readonly log?: (line: string) => void;
}

/** Starts both vendors. Each has an engine of its own, as roles are cluster-wide in PostgreSQL and `admin` is a superuser. */
export async function startVendors({ directory, clock, apiKeys, log }: VendorsOptions): Promise<Vendors> {
  const stops: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    // Fronts before engines: an engine waits for its clients.
    for (const end of stops.toReversed()) await end();
  };
  const engine = async (): Promise<Postgres> => {
    const postgres = await startPostgres({ directory, ...(log ? { log } : {}) });
    stops.push(() => postgres.stop());
    return postgres;
  };
  const front = async (postgres: Postgres, certificate: { key: string; cert: string }): Promise<SqlFront> => {
    const started = await startSqlFront({ postgres, certificate, now: () => clock.now() });
    stops.push(() => started.close());
    return started;
  };
  try {
    const authority = await createCertificateAuthority();
    const certificate = await authority.certificate(['localhost', '127.0.0.1']);
    const [renderEngine, cockroachdbEngine] = await Promise.all([engine(), engine()]);
    const renderFront = await front(renderEngine, certificate);
    const cockroachdbFront = await front(cockroachdbEngine, certificate);
    const render = createRenderPostgres({
      postgres: renderEngine,
      front: renderFront,
      clock,
      apiKeys: [apiKeys.render],
    });
    const cockroachdb = createCockroachdbCloud({
      postgres: cockroachdbEngine,
      front: cockroachdbFront,
      clock,
      apiKeys: [apiKeys.cockroachdb],
      caPem: authority.caPem,
    });
    const network = await startNetwork({
      authority,
      hosts: { [render.host]: render.listener, [cockroachdb.host]: cockroachdb.listener },
    });
    stops.push(() => network.close());
    return {
      network,
      render: { api: render, postgres: renderEngine, front: renderFront },
      cockroachdb: { api: cockroachdb, postgres: cockroachdbEngine, front: cockroachdbFront },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
