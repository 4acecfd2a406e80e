/** The metrics that the functions write (embedded metric format), with their units; the stack has an alarm for each that needs one. */
export const metrics = {
  RotationsSucceeded: 'Count',
  RotationsFailed: 'Count',
  /** How long the most overdue credential has been overdue. */
  RotationOverdueAge: 'Seconds',
  /** For how long the oldest pause has lasted: 0 while nothing is paused. */
  PausedAge: 'Seconds',
  /** Pending versions that no rotation is working on any more. */
  RotationsStuck: 'Count',
  /** Users that carry one of our prefixes and belong to no version. */
  OrphanedUsers: 'Count',
  ForeignUsers: 'Count',
  /** How long past the drain deadline of its spec the longest connected superseded user is. */
  RetiredStillConnectedAge: 'Seconds',
  /** Targets whose breaker is open or half open. */
  BreakersOpen: 'Count',
  /** Findings of the last pass that nobody has mended yet. */
  OpenFindings: 'Count',
  /** Consumers that do not have the current login, for the longest of them. */
  ConsumerBehindAge: 'Seconds',
  /** Deliveries to our webhook that nobody whom we know has signed, or not just now. */
  WebhooksRejected: 'Count',
  /** Those that a vendor did sign, and that are not as it describes them. */
  WebhooksOdd: 'Count',
  /** Those that the vendor was asked to send again, as the bus or the secret was out of reach: it tries for about a day. */
  WebhooksDeferred: 'Count',
  /** Webhooks of ours that their vendor has switched off or does not know any more, or that are silent about what happens. */
  WebhooksDisabled: 'Count',
  /** Events and changes of users that a webhook should have told of, and that were found by looking. */
  WebhooksMissed: 'Count',
  /** How long ago an event was sent that has failed and is tried again. */
  RetriedEventAge: 'Seconds',
  /** Records and seals that could not be written; they are tried again, and end in the dead-letter queue. */
  AuditWriteFailed: 'Count',
  /** For how long the oldest day that is over has been without a seal when a pass has done its work: 0 when all have one. */
  AuditUnsealedAge: 'Seconds',
} as const;
export type MetricName = keyof typeof metrics;
export const metricNamespace = 'rekey';
