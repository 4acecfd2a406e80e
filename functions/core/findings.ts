/** What a pass saw that is not as it should be. README.md has a row for every kind; a test holds that. */
export const findingKinds = [
  'SpecInvalid',
  'SpecMissing',
  'PrefixShared',
  'TargetUnreadable',
  'TargetNotReady',
  'TargetMoved',
  'ForeignUser',
  'UserWithoutVersion',
  'DefaultUserForeign',
  'SecretMissing',
  'SecretWithoutUser',
  'PreviousWithoutUser',
  'CurrentRejected',
  'PrivilegeDrift',
  'PrivilegesOutdated',
  'LabelRemoved',
  'RotationOverdue',
  'RotationStuck',
  'RotationQuarantined',
  'CapacityExceeded',
  'PendingStray',
  'RolledBack',
  'UsersInTheWay',
  'RevocationWaiting',
  'RevokedSessionsOpen',
  'AdoptedLoginCompromised',
  'RotationDisabled',
  'PauseWithoutTarget',
  'RetiredStillConnected',
  'DrainUnobservable',
  'DeletionBlocked',
  'ConsumerBehind',
  'WebhookDisabled',
] as const;
export type FindingKind = (typeof findingKinds)[number];

/** What reconcile may do about a finding by itself. */
export const repairs = [
  'rotate-at-once',
  'rotate-in-window',
  'apply-privileges',
  'finish-rotation',
  'abandon-rotation',
  'restore-label',
  'advance-consumer',
] as const;
export type Repair = (typeof repairs)[number];

export interface Finding {
  readonly kind: FindingKind;
  /** Empty where the finding is about no target, such as a spec that cannot be read. */
  readonly provider: string;
  readonly target: string;
  readonly credential?: string;
  readonly username?: string;
  /** Set if the finding concerns all credentials of an API key. */
  readonly apiKeySecret?: string;
  /** What exactly: differences, addresses, application names. Never a secret; never what changes from pass to pass. */
  readonly details: string;
  /** What a person can do about it. */
  readonly remedy: string;
  readonly repair?: Repair;
}

/** The same for the same fact in every pass, so that it is published once. */
export const fingerprint = ({
  kind,
  provider,
  target,
  credential,
  username,
  apiKeySecret,
  details,
}: Finding): string =>
  JSON.stringify([
    kind,
    provider,
    target,
    credential ?? '',
    username ?? '',
    apiKeySecret ?? '',
    identifying[kind] ? details : '',
  ]);

/** Kinds where other details are another fact; of the rest, details such as who is connected change all the time. */
const identifying: Readonly<Partial<Record<FindingKind, true>>> = {
  PrivilegeDrift: true,
  ConsumerBehind: true,
  SpecInvalid: true,
  DeletionBlocked: true,
  PendingStray: true,
  TargetMoved: true,
  RolledBack: true,
  WebhookDisabled: true,
};
