/** Where passes keep what they remember. Apart from names.ts, as a rotation remembers nothing. */

/** The DynamoDB table of what passes remember: see lifecycle/notes.ts. */
export const tableName = 'rekey';
/**
 * The places of its notes, which are its partition keys: what each function may touch is granted by them. Everything in it can be lost;
 * each line says what that costs.
 */
export const places = {
  /** Which findings were published already, by function: see announce.ts. They are published again. */
  findings: (scope: string): string => `findings/${scope}`,
  /** Who was there when a target was looked at last: see sightings.ts. The difference between two looks is not told. */
  users: 'users',
  /** How the vendors' webhooks were doing: see watch-webhooks.ts. Events may be told twice, and a deleted webhook may not be noticed. */
  webhooks: 'webhooks',
  /** Targets that versions of a secret name and the spec does not: see former-targets.ts. The next reading of the values finds them. */
  formerTargets: 'former-targets',
  /** How often the vendor said that a target is gone, while a credential is being deleted: see gone-targets.ts. Counted from zero. */
  goneTargets: 'gone-targets',
  /** Users of a target whose deletion was begun: see retire-users.ts. Its outcome is not told if its pass died right after it. */
  deletions: (target: string): string => `deletions/${target}`,
  /** Users of a target whose sessions were to be ended: see finish-revocation.ts. What came of it is told twice. */
  sessions: (target: string): string => `sessions/${target}`,
  /**
   * The last revocation of each credential whose sessions have all ended: see finish-revocation.ts. If lost, rekey ends them again, with
   * those that were opened since and before the last rotation, publishes that, and keeps the order until it is noted.
   */
  revocations: 'revocations',
  /** Which breakers are not closed, as was published: see start-rotations.ts. A change is told twice. */
  breakers: 'breakers',
  /** The credentials of each target, and the instant before which every spec is included: see members.ts. The fleet is read instead. */
  members: 'members',
  /** When reconcile-users looked at each target last: see looks.ts. It is looked at once more. */
  looks: 'looks',
  /** The targets on which delete-user has nothing to do: see settled-targets.ts. They are visited. */
  settled: 'settled',
  /** Which rotations were started with each API key lately: see pace.ts. If lost, the vendor's rate limit refuses the excess. */
  pace: 'pace',
} as const;
/** The note of when a webhook of this endpoint was received last. */
export const webhookReceivedKey = (endpoint: string): string => `${endpoint}/received`;
/** The note of how the webhook was doing when it was looked at last with one API key, which a digest stands for. */
export const webhookWatchKey = (endpoint: string, apiKey: string): string => `${endpoint}/${apiKey}`;
/** The note of since when it has not told of what it should have told of. */
export const webhookMissedKey = (endpoint: string, apiKey: string): string =>
  `${webhookWatchKey(endpoint, apiKey)}/missed`;
/** Of all targets of a credential that the vendor said are gone; the key of each is this and the target. */
export const goneTargetKey = (credential: string, target = ''): string => `${credential}/${target}`;
