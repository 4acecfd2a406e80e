/** The metrics that the functions write (embedded metric format), with their units; the stack has an alarm for each that needs one. */
export const metrics = {
  RotationsSucceeded: 'Count',
  RotationsFailed: 'Count',
  /** How long the most overdue credential has been overdue. */
  RotationOverdueAge: 'Seconds',
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
} as const;
export type MetricName = keyof typeof metrics;
export const metricNamespace = 'rekey';
