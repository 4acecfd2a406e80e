/** A value as it travels: text, or base64 of bytes. */
export type SecretValue = { readonly string: string } | { readonly binary: string };

/** One version. Without `value` it is the placeholder of a rotation whose createSecret has not written yet. */
export interface Version {
  readonly id: string;
  value?: SecretValue;
  readonly createdAt: Date;
  lastAccessedOn?: Date;
  readonly labels: Set<string>;
}

export interface RotationRules {
  AutomaticallyAfterDays?: number | undefined;
  Duration?: string | undefined;
  ScheduleExpression?: string | undefined;
}

export interface Rotation {
  /** Absent until rotation was switched on or off for the first time. */
  enabled?: boolean;
  lambdaArn?: string;
  rules?: RotationRules;
  lastRotatedAt?: Date;
  /** Latest moment of the next rotation, as DescribeSecret shows it; lies in the past while rotation fails. */
  nextDate?: Date;
  /** Moment at which the service itself starts the next rotation. */
  dueAt?: Date;
  /** Token of a rotation that has neither succeeded nor been abandoned or cancelled. */
  openToken?: string;
}

/** A copy of the secret in another Region, which follows every write. */
export interface Replica {
  kmsKeyId?: string;
  /** When it will have what was written last. Absent: never, as AWSPENDING was taken off before it had caught up. */
  inSyncAt?: Date;
  /** It was told to go: from this moment on it has gone. */
  goneAt?: Date;
}

/** Everything the service knows of one secret. Plain data, so that a reader can be shown an old copy. */
export interface Secret {
  readonly arn: string;
  readonly name: string;
  readonly createdAt: Date;
  /** ClientRequestToken of CreateSecret, to recognise its repetition. */
  readonly createToken: string;
  description?: string;
  kmsKeyId?: string;
  type?: string;
  /** Absent until the first tag, empty after the last was removed. */
  tags?: Map<string, string>;
  resourcePolicy?: string;
  changedAt: Date;
  lastAccessedOn?: Date;
  /** Scheduled for deletion: from this moment on it is gone. */
  deletedAt?: Date;
  readonly versions: Map<string, Version>;
  readonly rotation: Rotation;
  /** By Region. */
  readonly replicas: Map<string, Replica>;
}

/** Reads that can be shown the state before the latest write. */
export type StaleRead = 'GetSecretValue' | 'DescribeSecret' | 'ListSecretVersionIds';

/** Where sources about AWS disagree, or AWS itself is not deterministic: which answer this stand-in gives. */
export interface Variants {
  /**
   * Where AWSPENDING ends after a good rotation unless the function takes it off: left on the version that holds
   * AWSCURRENT, taken off when the rotation succeeded, taken off by the very call that moves AWSCURRENT, or by turns
   * `with-current` and `gone`. All are documented or recorded somewhere. @default 'gone'
   */
  readonly pendingAfterRotation: 'with-current' | 'gone' | 'gone-with-move' | 'alternating';
  /** How GetSecretValue by id and stage names a version without a value. @default 'label' */
  readonly placeholderText: 'label' | 'version';
  /** Text of RotateSecret's refusal while an earlier rotation is open. */
  readonly inProgressText: string;
  /** Value of the pending version of a test-only rotation. @default 'copy' */
  readonly testOnlyValue: 'copy' | 'empty';
  /** UpdateSecret with a used token and the same data. @default 'success' */
  readonly updateWithUsedToken: 'success' | 'error';
  /** DeleteSecret without force of a secret that is scheduled already. @default 'error' */
  readonly secondDelete: 'error' | 'success';
  /** RestoreSecret of a secret that is not scheduled for deletion. @default 'success' */
  readonly restoreLive: 'error' | 'success';
  /** Whether a repeated rotation keeps its token. @default 'same' */
  readonly retryToken: 'same' | 'new';
  /** One entry for each repetition of a failed rotation: milliseconds to wait before it. */
  readonly retryDelaysMs: readonly number[];
  /** Form of SecretId in the rotation event. @default 'arn' */
  readonly eventSecretId: 'arn' | 'partial-arn' | 'name';
  /** How often each step is called; `late` calls every step once more after the rotation. @default 'once' */
  readonly stepDelivery: 'once' | 'twice' | 'concurrently' | 'late';
  /** Where in its window a scheduled rotation starts. @default 'anywhere' */
  readonly windowStart: 'anywhere' | 'at-start';
  /** Key of the ARN in responseElements of CloudTrail events. @default 'arn' */
  readonly eventArnKey: 'arn' | 'aRN';
  /** Whether a trail logs, and so CloudTrail-shaped events are sent. @default true */
  readonly trail: boolean;
  /** Number of reads of each kind that still see the state before the latest write. @default 0 each */
  readonly staleReads: Readonly<Partial<Record<StaleRead, number>>>;
  /** For how long ListSecrets does not show a change, milliseconds; up to 5 minutes on AWS. @default 0 */
  readonly listLagMs: number;
  /** Number of empty pages, each with a NextToken, before the first page of a listing. @default 0 */
  readonly emptyPages: number;
  /** Time until a forced deletion has happened, milliseconds. @default 0 */
  readonly forcedDeletionMs: number;
  /** How long a replica needs until it has what was written, milliseconds. @default 0 */
  readonly replicationMs: number;
  /** Regions whose replicas get nothing any more, and say so. @default none */
  readonly failingRegions: readonly string[];
  /** How long a replica that was told to go is still listed, and in the way of a deletion, milliseconds. @default 0 */
  readonly replicaRemovalMs: number;
  /** Versions kept; none younger than 24 hours makes room. @default 100 */
  readonly versionLimit: number;
}

export const defaultVariants: Variants = {
  pendingAfterRotation: 'gone',
  placeholderText: 'label',
  inProgressText: "A previous rotation isn't complete. That rotation will be reattempted.",
  testOnlyValue: 'copy',
  updateWithUsedToken: 'success',
  secondDelete: 'error',
  restoreLive: 'success',
  retryToken: 'same',
  retryDelaysMs: [60_000, 300_000, 900_000],
  eventSecretId: 'arn',
  stepDelivery: 'once',
  windowStart: 'anywhere',
  eventArnKey: 'arn',
  trail: true,
  staleReads: {},
  listLagMs: 0,
  emptyPages: 0,
  forcedDeletionMs: 0,
  replicationMs: 0,
  failingRegions: [],
  replicaRemovalMs: 0,
  versionLimit: 100,
};

/** Two values with the same bytes. */
export function sameValue(a: SecretValue | undefined, b: SecretValue | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return 'string' in a ? 'string' in b && a.string === b.string : 'binary' in b && a.binary === b.binary;
}
