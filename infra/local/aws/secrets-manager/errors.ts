import { AwsError } from '../aws-error.ts';

// Names and texts as recorded from AWS in localstack's snapshots and in moto's tests that are verified against AWS,
// unless a line says otherwise.

const notFound = (message: string) => new AwsError('ResourceNotFoundException', message);
const badRequest = (message: string) => new AwsError('InvalidRequestException', message);
const badParameter = (message: string) => new AwsError('InvalidParameterException', message);

/** Every refusal of Secrets Manager that has a text of its own. */
export const refusals = {
  secretUnknown: () => notFound("Secrets Manager can't find the specified secret."),
  labelWithoutValue: (label: string) =>
    notFound(`Secrets Manager can't find the specified secret value for staging label: ${label}`),
  versionUnknown: (id: string) =>
    notFound(`Secrets Manager can't find the specified secret value for VersionId: ${id}`),
  stageNotOnVersion: () =>
    badRequest('You provided a VersionStage that is not associated to the provided VersionId.'),
  nameInvalid: () =>
    new AwsError(
      'ValidationException',
      'Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!',
    ),
  nameExists: (name: string) =>
    new AwsError(
      'ResourceExistsException',
      `The operation failed because the secret ${name} already exists.`,
    ),
  nameScheduledForDeletion: () =>
    badRequest(
      "You can't create this secret because a secret with this name is already scheduled for deletion.",
    ),
  markedForDeletion: () =>
    badRequest("You can't perform this operation on the secret because it was marked for deletion."),
  // From moto's source, not recorded; the next one too.
  stillReplicated: (arn: string, regions: readonly string[]) =>
    badParameter(`You can't delete secret ${arn} that still has replica regions [${regions.join(',')}]`),
  replicaAtHome: () => badParameter('Invalid replica region.'),
  // From an emulator's source, not recorded.
  alreadyDeleted: () =>
    badRequest("You tried to perform the operation on a secret that's currently marked deleted."),
  notScheduledForDeletion: () =>
    badRequest("You tried to restore a secret that isn't scheduled for deletion."),
  tokenUsed: (token: string, arn: string) =>
    new AwsError(
      'ResourceExistsException',
      `You can't use ClientRequestToken ${token} because that value is already in use for a version of secret ${arn}.`,
    ),
  tokenMissing: () =>
    badRequest('You must provide a ClientRequestToken value. We recommend a UUID-type value.'),
  tokenMissingForRotation: () =>
    badParameter('You must provide a ClientRequestToken value. We recommend a UUID-type value.'),
  tokenLength: () => badParameter('ClientRequestToken must be 32-64 characters long.'),
  valueMissing: () => badRequest('You must provide either SecretString or SecretBinary.'),
  valueTwice: () =>
    badParameter(
      "You can't specify both a binary secret value and a string secret value in the same secret.",
    ),
  removeFromMissing: (label: string, holder: string) =>
    badParameter(
      `The parameter RemoveFromVersionId can't be empty. Staging label ${label} is currently attached to version ${holder}, so you must explicitly reference that version in RemoveFromVersionId.`,
    ),
  // From an emulator's source, not recorded; the next one too.
  removeFromMismatch: (label: string) =>
    badParameter(
      `When you move staging label ${label}, if you specify RemoveFromVersionId, it must be set to the version that currently has the staging label ${label}.`,
    ),
  moveToUnknown: (id: string) =>
    notFound(`Secrets Manager can't find the specified secret value for VersionId: ${id}.`),
  moveNothing: () => badParameter('You must specify MoveToVersionId, RemoveFromVersionId or both.'),
  currentNotRemovable: () =>
    badParameter(
      "You can only move staging label AWSCURRENT to a different secret version. It can't be completely removed.",
    ),
  rotationInProgress: (text: string) => badRequest(text),
  mayNotInvoke: () =>
    new AwsError(
      'AccessDeniedException',
      'Secrets Manager cannot invoke the specified Lambda function. Ensure that the function policy grants access to the principal secretsmanager.amazonaws.com.',
    ),
  noRotationFunction: () => badRequest('No Lambda rotation function ARN is associated with this secret.'),
  rulesTwice: () => badParameter("You can't specify both AutomaticallyAfterDays and ScheduleExpression."),
  scheduleInvalid: (why: string) => badParameter(`The rotation schedule is not valid: ${why}.`),
  deleteWindow: () =>
    badParameter('The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).'),
  deleteTwoWays: () =>
    badParameter("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays."),
  batchSelection: () => badParameter("Either 'SecretIdList' or 'Filters' must be provided, but not both."),
  batchMaxResults: () => badParameter("'MaxResults' can be used only with 'Filters'."),
  nextTokenInvalid: () => new AwsError('InvalidNextTokenException', 'The NextToken value is invalid.'),
  tooManyVersions: (limit: number) =>
    new AwsError(
      'LimitExceededException',
      `You can't have more than ${limit} versions of a secret in 24 hours.`,
    ),
  tooManyLabels: () =>
    new AwsError(
      'LimitExceededException',
      "You can't have more than 20 staging labels on the versions of a secret.",
    ),
  passwordTooShort: () => badParameter('Password length is too short based on the required types.'),
  passwordImpossible: () =>
    badParameter('No characters are left to choose from after the requested exclusions.'),
  policyMalformed: () =>
    new AwsError('MalformedPolicyDocumentException', 'This resource policy contains a syntax error.'),
  policyPublic: () =>
    new AwsError('PublicPolicyException', 'This resource policy grants broad access to the secret.'),
  deniedByPolicy: (principal: string, operation: string, arn: string) =>
    new AwsError(
      'AccessDeniedException',
      `User: ${principal} is not authorized to perform: secretsmanager:${operation} on resource: ${arn} with an explicit deny in a resource-based policy`,
    ),
} as const;
