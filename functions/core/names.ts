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
/** Which findings were published already: see lifecycle/announce.ts. Losing one only repeats an announcement. */
export const findingsPath = '/rekey/findings/';
/**
 * What was seen at a vendor last: lists of users, and how its webhooks were doing. See lifecycle/sightings.ts and
 * watch-webhooks.ts. Losing one costs the difference between two looks.
 */
export const sightingsPath = '/rekey/sightings/';
/** Holds who was there when a target was looked at last. */
export const seenUsersParameter = (target: string): string => `${sightingsPath}users/${target}`;
/** Holds when a webhook of this endpoint was received last. */
export const webhookReceivedParameter = (endpoint: string): string =>
  `${sightingsPath}webhooks/${endpoint}/received`;
/** Holds how the webhook was doing when it was looked at last with one API key, which a digest stands for. */
export const webhookWatchParameter = (endpoint: string, key: string): string =>
  `${sightingsPath}webhooks/${endpoint}/${key}`;
/** Holds since when it has not told of what it should have told of. */
export const webhookMissedParameter = (endpoint: string, key: string): string =>
  `${webhookWatchParameter(endpoint, key)}/missed`;
/** What is known of a credential's targets beside its spec: see former-targets.ts and gone-targets.ts. */
export const targetsPath = `${sightingsPath}targets/`;
/** Holds the targets that versions of the credential's secret name and its spec does not. */
export const formerTargetsParameter = (credential: string): string => `${targetsPath}${credential}/former`;
/** Below it, one parameter a target holds how often the vendor said that it is gone, while the credential is being deleted. */
export const goneTargetsPath = (credential: string): string => `${targetsPath}${credential}/gone/`;
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
