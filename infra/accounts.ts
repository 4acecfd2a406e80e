import { Construct } from 'constructs';
import { apiKeySecretPrefix } from '../functions/core/names.ts';
import type { AnyProviderDefinition } from '../functions/core/provider.ts';
import { cockroachdbCloud } from '../functions/providers/cockroachdb-cloud/provider.ts';
import { renderPostgres } from '../functions/providers/render-postgres/provider.ts';
import { vultrValkey } from '../functions/providers/vultr-valkey/provider.ts';
import { zillizCloud } from '../functions/providers/zilliz-cloud/provider.ts';

/**
 * Accounts at the vendors. Each stands for one API key, which is stored once by hand (README.md): no template and no deployment
 * ever holds it. What an account has is named by its methods, and handed to a DatabaseCredential as its `target`.
 */
export interface AccountProps {
  /**
   * The name of the secret that holds the API key. It begins with `rekey/api-keys/`, which is where the functions may read.
   * @default `rekey/api-keys/` and the vendor: render, cockroachdb, vultr or zilliz
   */
  readonly apiKeySecretName?: string;
}

/** A database whose users rekey manages. Made by an account's methods. */
export interface DatabaseTarget<Provider extends string = string> {
  readonly provider: Provider;
  readonly definition: AnyProviderDefinition;
  readonly apiKeySecretName: string;
  /** As the vendor names it. */
  readonly target: Readonly<Record<string, string>>;
}

abstract class Account extends Construct {
  /** The name of the secret that holds the API key. */
  readonly apiKeySecretName: string;

  constructor(scope: Construct, id: string, vendor: string, { apiKeySecretName }: AccountProps) {
    super(scope, id);
    this.apiKeySecretName = apiKeySecretName ?? `${apiKeySecretPrefix}${vendor}`;
  }

  protected targetOf<Provider extends string>(
    provider: Provider,
    definition: AnyProviderDefinition,
    target: DatabaseTarget['target'],
  ): DatabaseTarget<Provider> {
    return { provider, definition, apiKeySecretName: this.apiKeySecretName, target };
  }
}

/** A workspace on Render. Its key acts as the person who made it, in all their workspaces. */
export class Render extends Account {
  constructor(scope: Construct, id: string, props: AccountProps = {}) {
    super(scope, id, 'render', props);
  }
  /** A Render Postgres instance, by the id in the address of its page, such as `dpg-d1abc2d3e4f5g6h7i8j9-a`; never a replica. */
  postgres(postgresId: string): DatabaseTarget<'render-postgres'> {
    return this.targetOf('render-postgres', renderPostgres, { postgresId });
  }
}

/** An organization on CockroachDB Cloud. Its key belongs to a service account with the role Cluster Admin on the cluster. */
export class CockroachDb extends Account {
  constructor(scope: Construct, id: string, props: AccountProps = {}) {
    super(scope, id, 'cockroachdb', props);
  }
  /** A cluster by its id, a UUID and not the routing id in connection strings, and the database to log in to. */
  cluster(clusterId: string, database = 'defaultdb'): DatabaseTarget<'cockroachdb-cloud'> {
    return this.targetOf('cockroachdb-cloud', cockroachdbCloud, { clusterId, database });
  }
}

/** An account on Vultr. Its key is bound to addresses: let in those of the functions. */
export class Vultr extends Account {
  constructor(scope: Construct, id: string, props: AccountProps = {}) {
    super(scope, id, 'vultr', props);
  }
  /** A Managed Database for Valkey by its id, a UUID. */
  valkey(databaseId: string): DatabaseTarget<'vultr-valkey'> {
    return this.targetOf('vultr-valkey', vultrValkey, { databaseId });
  }
}

/** A project on Zilliz Cloud. */
export class Zilliz extends Account {
  constructor(scope: Construct, id: string, props: AccountProps = {}) {
    super(scope, id, 'zilliz', props);
  }
  /** A cluster by its id, such as `in01-108240180a4faf8`. It has to be a dedicated one: the other plans have no users. */
  cluster(clusterId: string): DatabaseTarget<'zilliz-cloud'> {
    return this.targetOf('zilliz-cloud', zillizCloud, { clusterId });
  }
}
