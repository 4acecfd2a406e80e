import type { CredentialSpecInput } from '../functions/core/spec.ts';

/**
 * The credentials of this deployment: the one file to edit. `npm run synth` checks every field of it.
 *
 * Before the first rotation of a credential, store the vendor's API key in the secret named as `apiKeySecret`, for
 * example: aws secretsmanager create-secret --name rekey/api-keys/render --secret-string file://key.txt
 * Taking a credential out of this list stops its rotation. Its secret and the database user stay, so nobody is cut off. To end
 * both, send `CredentialDeletionRequested` first.
 */
export const credentials: readonly CredentialSpecInput[] = [
  {
    // Lower case, digits and hyphens. The consumers' secret is called `rekey/orders-render`.
    name: 'orders-render',
    provider: 'render-postgres',
    // The instance, from the address of its page in Render's dashboard.
    target: { postgresId: 'dpg-d0local0render0demo0-a' },
    apiKeySecret: 'rekey/api-keys/render',
    // Every generation is a user of its own, called `orders_` and what rekey derives from the rotation.
    usernamePrefix: 'orders',
    // A new user at every rotation; the one before keeps working. Render can do nothing else.
    strategy: 'replace-user',
    rotation: {
      // How often, in whole days.
      every: 'P30D',
      // When a rotation may start; without a window at any time. By the clock on the wall, daylight-saving time included.
      window: {
        start: '02:00',
        length: 'PT3H',
        days: ['MO', 'TU', 'WE', 'TH'],
        timeZone: 'Europe/Berlin',
      },
    },
    // How long the user before keeps working at least, for consumers that still hold its password.
    grace: 'PT24H',
    // Who cannot read Secrets Manager: this service gets each new login as its variable, and a deploy. The user before stays until
    // the deploy is live.
    consumers: [
      {
        kind: 'render-service',
        serviceId: 'srv-d0local0render0demo0',
        environmentVariable: 'DATABASE_URL',
        apiKeySecret: 'rekey/api-keys/render',
      },
    ],
  },
  {
    name: 'orders-cockroach',
    provider: 'cockroachdb-cloud',
    // The cluster's id, from `ccloud cluster list` or the address of its page, and the database to log in to.
    target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10', database: 'defaultdb' },
    apiKeySecret: 'rekey/api-keys/cockroachdb',
    usernamePrefix: 'orders',
    strategy: 'replace-user',
    // The SQL roles that every new user is given, and nothing beside them: `admin` is taken away. They must exist.
    privileges: { roles: ['orders_rw'] },
    rotation: { every: 'P30D' },
    grace: 'PT24H',
    // A user that somebody is still connected as stays, and after these days there is an alarm. With force it is cut off then.
    drain: { deadline: 'P7D', force: false },
  },
  {
    name: 'orders-valkey',
    provider: 'vultr-valkey',
    // The database's id, from the address of its page in Vultr's console.
    target: { databaseId: '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21' },
    apiKeySecret: 'rekey/api-keys/vultr',
    usernamePrefix: 'orders',
    strategy: 'replace-user',
    // What every new user may do, and nothing beside it: Vultr gives more at birth, which is taken away. Keys are patterns
    // without ~. With client|list a user can show who is still connected under its name, and with client|setname say who it is.
    privileges: {
      categories: ['+@read', '+@write', '-@dangerous'],
      commands: ['+client|list', '+client|setname'],
      keys: ['orders:*'],
    },
    rotation: { every: 'P30D' },
    grace: 'PT24H',
  },
  {
    name: 'orders-vectors',
    provider: 'zilliz-cloud',
    // The cluster's id, as on its page. It has to be a dedicated one: the other plans have no users.
    target: { clusterId: 'in01-0local0zilliz' },
    apiKeySecret: 'rekey/api-keys/zilliz',
    usernamePrefix: 'orders',
    strategy: 'replace-user',
    // The cluster's roles that every new user is given, and nothing beside them. They must exist.
    privileges: { roles: ['orders_rw'] },
    rotation: { every: 'P30D' },
    grace: 'PT24H',
  },
];
