import type { CredentialSpecInput } from '../functions/core/spec.ts';

/**
 * The credentials of this deployment: the one file to edit. `npm run synth` checks every field of it.
 *
 * Before the first rotation of a credential, store the vendor's API key in the secret named as `apiKeySecret`, for
 * example: aws secretsmanager create-secret --name rekey/api-keys/render --secret-string …
 * Taking a credential out of this list stops its rotation. Its secret and the database user stay, so nobody is cut off.
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
    // How often, in whole days.
    rotation: { every: 'P30D' },
    // How long the user before keeps working at least, for consumers that still hold its password.
    grace: 'PT24H',
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
  },
];
