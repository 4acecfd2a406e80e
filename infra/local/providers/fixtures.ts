import type { Postgres } from '../engines/postgres.ts';
import { quoteIdentifier } from '../engines/postgres.ts';
import type { Valkey } from '../engines/valkey.ts';
import type { CockroachdbCloud, CockroachdbCluster } from './cockroachdb-cloud.ts';
import type { RenderDatabase, RenderPostgres } from './render-postgres.ts';
import type { VultrDatabaseView, VultrValkey } from './vultr-valkey.ts';

const ordersTable =
  'CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL)';

/** A database at Render with a table `orders` that every user of the database may read and write. */
export async function addRenderOrders(
  render: RenderPostgres,
  postgres: Postgres,
  options: { readonly id?: string; readonly name?: string } = {},
): Promise<RenderDatabase> {
  const database = await render.addDatabase({ name: 'orders', ...options });
  await postgres.query(ordersTable, [], database.databaseName);
  await postgres.query(
    `ALTER TABLE orders OWNER TO ${quoteIdentifier(database.ownerRole)}`,
    [],
    database.databaseName,
  );
  return database;
}

/** A cluster with a table `orders` in `defaultdb` that members of the role `orders_rw` may read and write. */
export async function addCockroachdbOrders(
  cloud: CockroachdbCloud,
  postgres: Postgres,
  options: { readonly id?: string; readonly name?: string } = {},
): Promise<CockroachdbCluster> {
  const cluster = await cloud.addCluster({ name: 'orders', ...options });
  await postgres.query('CREATE ROLE orders_rw NOLOGIN');
  await postgres.query(
    `${ordersTable}; GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO orders_rw`,
    [],
    'defaultdb',
  );
  return cluster;
}

/** A database at Vultr with an order under `orders:latest`. */
export async function addVultrOrders(
  vultr: VultrValkey,
  valkey: Valkey,
  options: { readonly id?: string; readonly label?: string } = {},
): Promise<VultrDatabaseView> {
  const database = await vultr.addDatabase({ label: 'orders', ...options });
  await valkey.call('SET', 'orders:latest', 'tea');
  return database;
}
