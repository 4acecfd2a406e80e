import { ArnFormat } from 'aws-cdk-lib';
import type { EventBus } from 'aws-cdk-lib/aws-events';
import { Effect, type PolicyStatementProps } from 'aws-cdk-lib/aws-iam';
import type { Bucket } from 'aws-cdk-lib/aws-s3';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';
import {
  adminSecretPrefix,
  adoptSecretPrefix,
  apiKeySecretPrefix,
  directivesPath,
  findingsPath,
  secretPrefix,
  sightingsPath,
  specParameterPath,
  webhookSecretPrefix,
} from '../functions/core/names.ts';
import { arnOf, functionName } from './handler.ts';

export interface AccessProps {
  /** The bus `rekey`. */
  readonly bus: EventBus;
  /** What lies between the dispatcher and the workers of reconcile-users. */
  readonly targets: IQueue;
  /** Buses on which consumers want to hear of a new login. */
  readonly consumerBuses: readonly string[];
  /** Where the audit trail lies. */
  readonly auditBucket: Bucket;
}

type Statements = readonly PolicyStatementProps[];

/** What each function may do: exactly what its use case calls, on rekey's own things. */
export function accessOf(
  scope: Construct,
  { bus, targets, consumerBuses, auditBucket }: AccessProps,
): {
  readonly rotateSecret: Statements;
  readonly createUser: Statements;
  readonly startRotations: Statements;
  readonly deleteUser: Statements;
  readonly reconcileUsers: Statements;
  readonly updateConsumers: Statements;
  readonly receiveWebhook: Statements;
  readonly recordAudit: Statements;
} {
  // Wildcards: secrets and specs are also made at run time, and Secrets Manager ends each ARN in six random characters.
  const secretsUnder = (prefix: string): string =>
    arnOf(scope, 'secretsmanager', 'secret', `${prefix}*`, ArnFormat.COLON_RESOURCE_NAME);
  const secrets = secretsUnder(secretPrefix);
  // A credential's name has no slash, and all that people keep under the prefix has one: API keys, administrators, logins to adopt.
  const keptSecrets = secretsUnder(`${secretPrefix}*/`);
  const vendorSecrets = [apiKeySecretPrefix, adminSecretPrefix].map(secretsUnder);
  const signingSecrets = secretsUnder(webhookSecretPrefix);
  /** Taken back from those who read everything under the prefix: whoever knows such a secret can speak as the vendor. */
  const neverReadSigningSecrets: PolicyStatementProps = {
    sid: 'NeverReadSigningSecrets',
    effect: Effect.DENY,
    actions: ['secretsmanager:GetSecretValue'],
    resources: [signingSecrets],
  };
  const parametersUnder = (path: string): string => arnOf(scope, 'ssm', 'parameter', `${path.slice(1)}*`);
  const specs = parametersUnder(specParameterPath);
  const directives = parametersUnder(directivesPath);
  const findings = parametersUnder(findingsPath);
  const sightings = parametersUnder(sightingsPath);
  const rotator = arnOf(
    scope,
    'lambda',
    'function',
    functionName('rotate-secret'),
    ArnFormat.COLON_RESOURCE_NAME,
  );

  /**
   * What a function does to the secrets of credentials. The wildcard covers what people keep under the same prefix, too. A change
   * there would write a login over a key, or delete it: all but reading is taken back.
   */
  const onSecrets = (sid: string, ...actions: readonly string[]): Statements => [
    { sid, actions: [...actions], resources: [secrets] },
    {
      sid: 'NeverChangeWhatPeopleKeep',
      effect: Effect.DENY,
      actions: actions.filter((action) => action !== 'secretsmanager:GetSecretValue'),
      resources: [keptSecrets],
    },
    ...(actions.includes('secretsmanager:GetSecretValue') ? [neverReadSigningSecrets] : []),
  ];
  const onParameters = (
    sid: string,
    actions: readonly string[],
    ...resources: readonly string[]
  ): PolicyStatementProps => ({
    sid,
    actions: actions.map((action) => `ssm:${action}`),
    resources: [...resources],
  });
  /** GetParametersByPath is judged by the path that is asked for, which `<path>/*` does not match. */
  const readFleet: PolicyStatementProps = onParameters(
    'ReadFleet',
    ['GetParametersByPath'],
    ...[specParameterPath, directivesPath].flatMap((path) => [
      arnOf(scope, 'ssm', 'parameter', path.slice(1, -1)),
      parametersUnder(path),
    ]),
  );
  const readVendorKeys: PolicyStatementProps = {
    sid: 'ReadVendorKeys',
    actions: ['secretsmanager:GetSecretValue'],
    resources: vendorSecrets,
  };
  // Asked of whoever calls RotateSecret (AWS documentation).
  const attachRotation: PolicyStatementProps = {
    sid: 'AttachRotation',
    actions: ['lambda:InvokeFunction'],
    resources: [rotator],
  };
  const publish: PolicyStatementProps = {
    sid: 'Publish',
    actions: ['events:PutEvents'],
    resources: [bus.eventBusArn],
  };
  const tellConsumers: Statements =
    consumerBuses.length === 0
      ? []
      : [
          {
            sid: 'TellConsumers',
            actions: ['events:PutEvents'],
            resources: consumerBuses.map((name) => arnOf(scope, 'events', 'event-bus', name)),
          },
        ];

  return {
    rotateSecret: [
      {
        sid: 'SecretsThatThisFunctionRotates',
        actions: [
          'secretsmanager:DescribeSecret',
          'secretsmanager:GetSecretValue',
          'secretsmanager:PutSecretValue',
          'secretsmanager:UpdateSecretVersionStage',
        ],
        resources: [secrets],
        // People's secrets have no rotation, so this keeps them safe as well.
        conditions: {
          StringEquals: { 'secretsmanager:resource/AllowRotationLambdaArn': rotator },
        },
      },
      readVendorKeys,
      onParameters('ReadWhatIsWanted', ['GetParameter'], specs, directives),
      publish,
    ],
    createUser: [
      readFleet,
      onParameters('KeepSpecs', ['GetParameter', 'PutParameter'], specs),
      ...onSecrets(
        'MakeSecrets',
        'secretsmanager:CreateSecret',
        'secretsmanager:DescribeSecret',
        'secretsmanager:PutSecretValue',
        'secretsmanager:RotateSecret',
      ),
      { ...readVendorKeys, resources: [...vendorSecrets, secretsUnder(adoptSecretPrefix)] },
      attachRotation,
      publish,
    ],
    startRotations: [
      readFleet,
      onParameters('KeepOrders', ['GetParameter', 'PutParameter'], directives),
      onParameters('KeepFindings', ['GetParameter', 'PutParameter', 'DeleteParameter'], findings),
      ...onSecrets(
        'StartRotations',
        'secretsmanager:DescribeSecret',
        'secretsmanager:ListSecretVersionIds',
        'secretsmanager:RotateSecret',
      ),
      attachRotation,
      publish,
    ],
    deleteUser: [
      readFleet,
      onParameters('EndSpecs', ['GetParameter', 'DeleteParameter'], specs),
      onParameters(
        'KeepOrdersAndFindings',
        ['GetParameter', 'PutParameter', 'DeleteParameter'],
        directives,
        findings,
      ),
      // GetSecretValue here is for vendors' keys as well.
      ...onSecrets(
        'EndSecrets',
        'secretsmanager:CancelRotateSecret',
        'secretsmanager:DeleteSecret',
        'secretsmanager:DescribeSecret',
        'secretsmanager:GetSecretValue',
        'secretsmanager:ListSecretVersionIds',
        'secretsmanager:UpdateSecretVersionStage',
      ),
      // Whether a consumer has moved is asked of its platform, never of a bus: nothing to tell here.
      publish,
    ],
    reconcileUsers: [
      readFleet,
      onParameters('ReadSpecs', ['GetParameter'], specs),
      // Reads them as well, since a rotation that it rolls forward does.
      onParameters('OrderRotations', ['GetParameter', 'PutParameter'], directives),
      onParameters('KeepFindings', ['GetParameter', 'PutParameter', 'DeleteParameter'], findings),
      onParameters('KeepSightings', ['GetParameter', 'PutParameter'], sightings),
      // Wildcard: ListSecrets knows no resources (AWS documentation); it answers names, never values.
      { sid: 'FindSecretsWithoutSpec', actions: ['secretsmanager:ListSecrets'], resources: ['*'] },
      // GetSecretValue here is for vendors' keys as well.
      ...onSecrets(
        'MendSecrets',
        'secretsmanager:DescribeSecret',
        'secretsmanager:GetSecretValue',
        'secretsmanager:ListSecretVersionIds',
        'secretsmanager:PutSecretValue',
        'secretsmanager:UpdateSecretVersionStage',
      ),
      // The last three are asked of whoever an event source mapping works for (AWS documentation).
      {
        sid: 'DispatchAndWork',
        actions: ['sqs:SendMessage', 'sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes'],
        resources: [targets.queueArn],
      },
      publish,
      ...tellConsumers,
    ],
    updateConsumers: [
      onParameters('ReadSpecs', ['GetParameter'], specs),
      onParameters('KeepFindings', ['GetParameter', 'PutParameter', 'DeleteParameter'], findings),
      // The keys to consumers' platforms lie under the same prefix.
      {
        sid: 'ReadLoginsAndKeys',
        actions: ['secretsmanager:DescribeSecret', 'secretsmanager:GetSecretValue'],
        resources: [secrets],
      },
      neverReadSigningSecrets,
      publish,
      ...tellConsumers,
    ],
    receiveWebhook: [
      {
        sid: 'ReadSigningSecrets',
        actions: ['secretsmanager:GetSecretValue'],
        resources: [signingSecrets],
      },
      publish,
    ],
    recordAudit: [
      {
        sid: 'WriteRecordsAndSeals',
        actions: ['s3:GetObject', 's3:PutObject'],
        resources: [auditBucket.arnForObjects('*')],
      },
      // Without it S3 answers 403 for what is not there, and absence could not be told from lost permission (AWS documentation).
      { sid: 'ListRecords', actions: ['s3:ListBucket'], resources: [auditBucket.bucketArn] },
      // Whatever else this role is ever given: it never takes a record away, nor the lock off it.
      {
        sid: 'NeverUndoARecord',
        effect: Effect.DENY,
        actions: [
          's3:BypassGovernanceRetention',
          's3:DeleteObject*',
          's3:PutObjectLegalHold',
          's3:PutObjectRetention',
        ],
        resources: [auditBucket.arnForObjects('*')],
      },
    ],
  };
}
