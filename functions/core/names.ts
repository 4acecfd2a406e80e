/** Where everything of a credential is found, derived from its name alone, so that nothing has to be looked up. */

/** The SSM parameter that holds the spec of the credential `name`. */
export const specParameterName = (name: string): string => `${specParameterPath}${name}`;

/** The Secrets Manager secret that holds the current login of the credential `name`. */
export const secretName = (name: string): string => `${secretPrefix}${name}`;

/** The credential that a secret belongs to, or undefined when the secret is not one of ours. */
export function credentialNameOf(nameOfSecret: string): string | undefined {
  if (!nameOfSecret.startsWith(secretPrefix)) return undefined;
  const name = nameOfSecret.slice(secretPrefix.length);
  return credentialNamePattern.test(name) ? name : undefined;
}

export const specParameterPath = '/rekey/credentials/';
/** What was ordered for a credential while it runs: see directives.ts. Never owned by a deployment, which would undo it. */
export const directivesPath = '/rekey/directives/';
/** Where writes are paused, by order: `all`, or `<provider>/<target>`. See lifecycle/orders.ts. Losing one lets writes go on. */
export const pausePath = '/rekey/pause/';
export const secretPrefix = 'rekey/';
/** API keys of the vendors: one secret a key, readable by the functions, never rotated by them. */
export const apiKeySecretPrefix = 'rekey/api-keys/';
/** SQL administrators that a spec may name; a credential works without one. */
export const adminSecretPrefix = 'rekey/admin/';
/** Logins of users that existed before rekey, for specs that adopt one. */
export const adoptSecretPrefix = 'rekey/adopt/';
/** Signing secrets of the vendors' webhooks: one secret an endpoint, several values in it while one is replaced. */
export const webhookSecretPrefix = 'rekey/webhooks/';

/** Names of credentials. No slash: `rekey/api-keys/…` and its like can never be taken for a credential. */
export const credentialNamePattern = /^[a-z][a-z0-9-]{0,62}$/;

/** The source of every event that rekey publishes or listens to. */
export const eventSource = 'rekey';
