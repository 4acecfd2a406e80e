/** Why a run of the whole life can do without a permission, and the test that shows what needs it. */
export interface Reason {
  readonly because: string;
  readonly file: string;
  readonly test: string;
}

const adoption: Reason = {
  because: 'no credential of the run adopts a user',
  file: 'test/lifecycle/create-user.test.ts',
  test: 'names that user at once, changes nothing at the provider, and rotates away from it when it is due',
};
const restored: Reason = {
  because: 'no credential of the run is deleted, restored and requested again',
  file: 'test/lifecycle/create-user.test.ts',
  test: 'one that was deleted, its secret restored: it gets a new user',
};
const twoOrders: Reason = {
  because: 'no credential of the run is ordered to rotate twice',
  file: 'test/lifecycle/start-rotations.test.ts',
  test: 'that is newer than the one before replaces it',
};
const openReset: Reason = {
  because: 'no rotation stops half-way in the run',
  file: 'test/lifecycle/start-rotations.test.ts',
  test: 'I1: of a rotation that has stood open for more than four minutes is handed to reconcile-users at once, whatever the strategy is now',
};
const strayLabel: Reason = {
  because: 'nothing is revoked in the run while it is made',
  file: 'test/lifecycle/start-rotations.test.ts',
  test: 'on a version that was revoked while it was made is taken off, and another rotation starts in the same pass',
};
const breakers: Reason = {
  because: 'no breaker opens, as every rotation of the run succeeds',
  file: 'test/lifecycle/start-rotations.test.ts',
  test: 'is that a breaker opened, lets one try, and closed, each once',
};
const fleetNotes: Reason = {
  because:
    'no breaker opens, and the note of a target whose last credential is gone is deleted by whichever pass comes first',
  file: breakers.file,
  test: breakers.test,
};
const overdue: Reason = {
  because: 'no rotation of the run is overdue or switched off',
  file: 'test/lifecycle/start-rotations.test.ts',
  test: 'is what is overdue and what is switched off, once, with how long',
};
const revokedSessions: Reason = {
  because: 'no login that leaks in the run is of a user that stays',
  file: 'test/lifecycle/delete-user.test.ts',
  test: 'under reset-password the connections of a revoked password end after the switch, and the user stays',
};
const endedRotation: Reason = {
  because: 'no credential of the run is deleted while it rotates',
  file: 'test/lifecycle/delete-user.test.ts',
  test: 'stops a rotation that is under way, and waits until none of its steps can be at work',
};
const withoutSpec: Reason = {
  because: 'no secret of the run loses its spec',
  file: 'test/lifecycle/reconcile-users.test.ts',
  test: 'reports a secret without a spec, once, and not while it is being deleted',
};
const vanished: Reason = {
  because: 'nobody in the run takes away a user that is in use',
  file: 'test/lifecycle/reconcile-users.test.ts',
  test: 'deletes the current user: found once, and another one is ordered once',
};
const stuck: Reason = {
  because: 'no rotation of the run dies half-way',
  file: 'test/lifecycle/reconcile-users.test.ts',
  test: 'that was given up has the first value in its version, so that nothing can be stored there any more',
};
const movedLabel: Reason = {
  because: 'nobody in the run moves a label',
  file: 'test/lifecycle/reconcile-users.test.ts',
  test: 'takes AWSPREVIOUS off: found once, and put back where it was',
};
const consumerBehind: Reason = {
  because: 'every consumer of the run follows',
  file: 'test/lifecycle/update-consumers.test.ts',
  test: 'as its deploy failed is reported once, and the others have theirs',
};
const paused: Reason = {
  because: 'nothing is paused in the run',
  file: 'test/storm.test.ts',
  test: '%s is stored within a minute',
};
const failedFunction: Reason = {
  because: 'no function of the run fails to its last try',
  file: 'test/infra/local/deployment.test.ts',
  test: 'an event whose function fails in all its tries',
};
const lostEvent: Reason = {
  because: 'every event of the run reaches its function',
  file: 'test/infra/local/deployment.test.ts',
  test: 'an event for a function that EventBridge may not call',
};
const lostPass: Reason = {
  because: 'every pass of the run reaches its function',
  file: 'test/infra/local/deployment.test.ts',
  test: 'a pass of a schedule whose role may not call the function',
};
const administration: Reason = {
  because:
    'nobody in the run administers the key: without this no policy of an administrator could let anybody',
  file: 'test/infra/rekey.test.ts',
  test: 'are encrypted under a key that CloudWatch may use for them, and that is renewed every year',
};

const failedEvent: Reason = {
  because: 'no event of the run fails, so that none is to come again soon',
  file: 'test/storm.test.ts',
  test: 'outlive a Parameter Store that serves nobody for six hours',
};

const unreadPrevious: Reason = {
  because: 'the date of AWSPREVIOUS comes from its value, unless that cannot be read',
  file: 'test/lifecycle/rotation-guards.test.ts',
  test: 'I26: a pending version that is older than AWSPREVIOUS is no rotation',
};

/** Policy, statement and action of every permission that a run of the whole life can do without. */
export const idlePermissions: Readonly<Record<string, Reason>> = {
  'RekeyRotateSecretRoleDefaultPolicy SecretsThatThisFunctionRotates secretsmanager:ListSecretVersionIds':
    unreadPrevious,
  'RekeyCreateUserRoleDefaultPolicy MakeSecrets secretsmanager:PutSecretValue': adoption,
  'RekeyCreateUserRoleDefaultPolicy OrderRotations ssm:PutParameter': restored,
  'RekeyCreateUserRoleDefaultPolicy ReadVendorKeys secretsmanager:GetSecretValue': adoption,
  'RekeyCreateUserRoleDefaultPolicy WorkOnQueues sqs:ChangeMessageVisibility': failedEvent,
  'RekeyCreateUserRoleDefaultPolicy ReportFailure sqs:SendMessage': failedFunction,
  'RekeyStartRotationsRoleDefaultPolicy KeepNotes dynamodb:DeleteItem': overdue,
  'RekeyStartRotationsRoleDefaultPolicy KeepNotes dynamodb:PutItem': overdue,
  'RekeyStartRotationsRoleDefaultPolicy AskWorkers sqs:SendMessage': openReset,
  'RekeyStartRotationsRoleDefaultPolicy GiveUpRotations secretsmanager:UpdateSecretVersionStage': strayLabel,
  'RekeyStartRotationsRoleDefaultPolicy Publish events:PutEvents': breakers,
  'RekeyStartRotationsRoleDefaultPolicy WorkOnQueues sqs:ChangeMessageVisibility': failedEvent,
  'RekeyStartRotationsRoleDefaultPolicy ReportFailure sqs:SendMessage': failedFunction,
  'RekeyDeleteUserRoleDefaultPolicy GiveUpRotations secretsmanager:UpdateSecretVersionStage': endedRotation,
  'RekeyDeleteUserRoleDefaultPolicy WorkOnQueues sqs:ChangeMessageVisibility': failedEvent,
  'RekeyDeleteUserRoleDefaultPolicy KeepNotesOfSessions dynamodb:DeleteItem': revokedSessions,
  'RekeyDeleteUserRoleDefaultPolicy KeepNotesOfSessions dynamodb:GetItem': revokedSessions,
  'RekeyDeleteUserRoleDefaultPolicy KeepNotesOfSessions dynamodb:PutItem': revokedSessions,
  'RekeyDeleteUserRoleDefaultPolicy ReportFailure sqs:SendMessage': failedFunction,
  'RekeyReconcileUsersRoleDefaultPolicy ReadWhatIsWanted ssm:GetParameter': withoutSpec,
  'RekeyReconcileUsersRoleDefaultPolicy OrderRotations ssm:PutParameter': vanished,
  'RekeyReconcileUsersRoleDefaultPolicy MendSecrets secretsmanager:PutSecretValue': stuck,
  'RekeyReconcileUsersRoleDefaultPolicy MendSecrets secretsmanager:UpdateSecretVersionStage': movedLabel,
  'RekeyReconcileUsersRoleDefaultPolicy WorkOnQueues sqs:ChangeMessageVisibility': failedEvent,
  'RekeyReconcileUsersRoleDefaultPolicy ReportFailure sqs:SendMessage': failedFunction,
  'RekeyUpdateConsumersRoleDefaultPolicy WorkOnQueues sqs:ChangeMessageVisibility': failedEvent,
  'RekeyUpdateConsumersRoleDefaultPolicy KeepNotes dynamodb:DeleteItem': consumerBehind,
  'RekeyUpdateConsumersRoleDefaultPolicy KeepNotes dynamodb:PutItem': consumerBehind,
  'RekeyUpdateConsumersRoleDefaultPolicy ReportFailure sqs:SendMessage': failedFunction,
  'RekeyRecordAuditRoleDefaultPolicy ReportFailure sqs:SendMessage': failedFunction,
  'RekeySchedulestartrotationsRoleDefaultPolicy ReportFailure sqs:SendMessage': lostPass,
  'RekeyScheduledeleteuserRoleDefaultPolicy ReportFailure sqs:SendMessage': lostPass,
  'RekeySchedulereconcileusersRoleDefaultPolicy ReportFailure sqs:SendMessage': lostPass,
  'RekeySchedulerecordauditRoleDefaultPolicy ReportFailure sqs:SendMessage': lostPass,
  'RekeyLostRequestsPolicy AllowEventRules sqs:SendMessage': lostEvent,
  'RekeyPauseEventsPolicy AllowEventRules sqs:SendMessage': paused,
  'RekeyLostRequestsPolicy AllowEventRuleRekeyEverythingToRecord sqs:SendMessage': lostEvent,
  'RekeyLostRequestsPolicy AllowEventRuleRekeyLabelToRecord sqs:SendMessage': lostEvent,
  'RekeyAlarmsKey a statement without a Sid kms:*': administration,
};

/**
 * What the run needs or not, by which of two functions comes first: start-rotations and delete-user both keep a revocation that was
 * ordered, start-rotations and reconcile-users both note the credentials of a target, and the second one has nothing left to write.
 */
export const sometimesIdlePermissions: Readonly<Record<string, Reason>> = {
  'RekeyStartRotationsRoleDefaultPolicy ReadWhatIsWanted ssm:GetParameter': twoOrders,
  'RekeyDeleteUserRoleDefaultPolicy ReadWhatIsWanted ssm:GetParameter': twoOrders,
  'RekeyStartRotationsRoleDefaultPolicy KeepOrdersAndPauses ssm:PutParameter': twoOrders,
  'RekeyStartRotationsRoleDefaultPolicy KeepNotesOfTheFleet dynamodb:DeleteItem': fleetNotes,
};
