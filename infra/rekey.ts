import { ArnFormat, Aws, Duration, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { EventBus, Rule } from 'aws-cdk-lib/aws-events';
import { LambdaFunction } from 'aws-cdk-lib/aws-events-targets';
import {
  Effect,
  PolicyStatement,
  type PolicyStatementProps,
  Role,
  ServicePrincipal,
} from 'aws-cdk-lib/aws-iam';
import {
  Architecture,
  CfnEventInvokeConfig,
  CfnPermission,
  type Code,
  Function as LambdaHandler,
  Runtime,
} from 'aws-cdk-lib/aws-lambda';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import { Queue, QueueEncryption } from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';
import type { z } from 'zod';
import { credentialRequested } from '../functions/core/events.ts';
import {
  adminSecretPrefix,
  apiKeySecretPrefix,
  eventSource,
  secretPrefix,
  specParameterPath,
} from '../functions/core/names.ts';
import type { CredentialSpec } from '../functions/core/spec.ts';
import type { createUserEnvironment, rotateSecretEnvironment } from '../functions/runtime/env.ts';
import { Credential } from './credential.ts';

export interface RekeyProps {
  /** The directory that bundle.ts makes: every handler as `<handler>.mjs`. */
  readonly code: Code;
  /** What this deployment declares. Further credentials can be requested on the bus. @default none */
  readonly credentials?: readonly CredentialSpec[];
  /** How long the functions' logs are kept. @default RetentionDays.ONE_YEAR */
  readonly logRetention?: RetentionDays;
  /** An egress proxy between the functions and the vendors, as an http(s) URL. @default none */
  readonly httpsProxy?: string;
}

interface HandlerProps {
  /** `<handler>` in functions/. */
  readonly handler: string;
  readonly description: string;
  readonly timeout: Duration;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly statements: readonly PolicyStatementProps[];
}

/** All of rekey in one Region of one account: its bus, its functions and the credentials declared at deployment. */
export class Rekey extends Construct {
  readonly rotateSecret: LambdaHandler;
  readonly createUser: LambdaHandler;

  constructor(scope: Construct, id: string, props: RekeyProps) {
    super(scope, id);
    const { credentials = [], httpsProxy } = props;
    const bus = new EventBus(this, 'Bus', {
      eventBusName: 'rekey',
      description: 'rekey: requests and facts',
    });
    // Requests that came to nothing, both those that could not be delivered and those that failed in the function.
    const lostRequests = new Queue(this, 'LostRequests', {
      encryption: QueueEncryption.SQS_MANAGED,
      enforceSSL: true,
      retentionPeriod: Duration.days(14),
    });

    // Wildcards: secrets and specs are also made at run time, and Secrets Manager ends each ARN in six random characters.
    const secrets = this.arn('secretsmanager', 'secret', `${secretPrefix}*`, ArnFormat.COLON_RESOURCE_NAME);
    const vendorSecrets = [apiKeySecretPrefix, adminSecretPrefix].map((prefix) =>
      this.arn('secretsmanager', 'secret', `${prefix}*`, ArnFormat.COLON_RESOURCE_NAME),
    );
    const specs = this.arn(
      'ssm',
      'parameter',
      `${specParameterPath.slice(1)}*`,
      ArnFormat.SLASH_RESOURCE_NAME,
    );
    const publish = { actions: ['events:PutEvents'], resources: [bus.eventBusArn] };

    this.rotateSecret = this.handler('RotateSecret', props, {
      handler: 'rotate-secret',
      description: 'rekey: carries out the four steps that Secrets Manager calls for a rotation',
      // A change of a CockroachDB user can take five minutes, and a step may wait for more than one.
      timeout: Duration.minutes(15),
      environment: {
        REKEY_EVENT_BUS_NAME: bus.eventBusName,
        HTTPS_PROXY: httpsProxy,
      } satisfies z.input<typeof rotateSecretEnvironment>,
      statements: [
        {
          sid: 'SecretsThatThisFunctionRotates',
          actions: [
            'secretsmanager:DescribeSecret',
            'secretsmanager:GetSecretValue',
            'secretsmanager:PutSecretValue',
            'secretsmanager:UpdateSecretVersionStage',
          ],
          resources: [secrets],
          conditions: {
            StringEquals: {
              'secretsmanager:resource/AllowRotationLambdaArn': this.functionArn('rotate-secret'),
            },
          },
        },
        { sid: 'ReadVendorKeys', actions: ['secretsmanager:GetSecretValue'], resources: vendorSecrets },
        { sid: 'ReadSpecs', actions: ['ssm:GetParameter'], resources: [specs] },
        { sid: 'Publish', ...publish },
      ],
    });
    // Not by SourceArn, which would admit one secret only. Without SourceAccount any account's Secrets Manager could call.
    const rotationPermission = new CfnPermission(this, 'MayRotate', {
      action: 'lambda:InvokeFunction',
      functionName: this.rotateSecret.functionArn,
      principal: 'secretsmanager.amazonaws.com',
      sourceAccount: Aws.ACCOUNT_ID,
    });

    this.createUser = this.handler('CreateUser', props, {
      handler: 'create-user',
      description:
        'rekey: makes the spec and the secret of a requested credential and starts its first rotation',
      timeout: Duration.minutes(2),
      environment: {
        REKEY_EVENT_BUS_NAME: bus.eventBusName,
        REKEY_ROTATION_FUNCTION_ARN: this.rotateSecret.functionArn,
        HTTPS_PROXY: httpsProxy,
      } satisfies z.input<typeof createUserEnvironment>,
      statements: [
        { sid: 'KeepSpecs', actions: ['ssm:GetParameter', 'ssm:PutParameter'], resources: [specs] },
        {
          sid: 'MakeSecrets',
          actions: [
            'secretsmanager:CreateSecret',
            'secretsmanager:DescribeSecret',
            'secretsmanager:RotateSecret',
          ],
          resources: [secrets],
        },
        // They lie under the same prefix. Rotation must never be attached to one: it would write a login over the key.
        {
          sid: 'NeverVendorKeys',
          effect: Effect.DENY,
          actions: ['secretsmanager:*'],
          resources: vendorSecrets,
        },
        // Asked of whoever calls RotateSecret (AWS documentation).
        {
          sid: 'AttachRotation',
          actions: ['lambda:InvokeFunction'],
          resources: [this.rotateSecret.functionArn],
        },
        { sid: 'Publish', ...publish },
        { sid: 'ReportFailure', actions: ['sqs:SendMessage'], resources: [lostRequests.queueArn] },
      ],
    });
    // The retries of an event that was delivered and then failed; the rule's own are for events that were not delivered.
    new CfnEventInvokeConfig(this, 'CreateUserRetries', {
      functionName: this.createUser.functionName,
      qualifier: '$LATEST',
      maximumRetryAttempts: 2,
      destinationConfig: { onFailure: { destination: lostRequests.queueArn } },
    }).node.addDependency(this.createUser.role ?? this.createUser);
    new Rule(this, 'CredentialRequested', {
      eventBus: bus,
      description: 'rekey: a credential was requested',
      eventPattern: { source: [eventSource], detailType: [credentialRequested] },
      targets: [new LambdaFunction(this.createUser, { deadLetterQueue: lostRequests })],
    });

    for (const spec of credentials)
      new Credential(this, spec.name, { spec, rotateSecret: this.rotateSecret, rotationPermission });
  }

  /** A function with its own log group and a role that may do what `statements` say and write its own log. */
  private handler(
    id: string,
    { code, logRetention = RetentionDays.ONE_YEAR }: RekeyProps,
    { handler, description, timeout, environment, statements }: HandlerProps,
  ): LambdaHandler {
    const logGroup = new LogGroup(this, `${id}Log`, {
      logGroupName: `/aws/lambda/${functionName(handler)}`,
      retention: logRetention,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    const role = new Role(this, `${id}Role`, { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
    for (const statement of statements) role.addToPolicy(new PolicyStatement(statement));
    role.addToPolicy(
      new PolicyStatement({
        sid: 'WriteLog',
        actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
        // Wildcard: Lambda names the streams of the group.
        resources: [
          `${this.arn('logs', 'log-group', `/aws/lambda/${functionName(handler)}`, ArnFormat.COLON_RESOURCE_NAME)}:*`,
        ],
      }),
    );
    return new LambdaHandler(this, id, {
      functionName: functionName(handler),
      description,
      code,
      handler: `${handler}.handler`,
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      memorySize: 512,
      timeout,
      role,
      logGroup,
      environment: Object.fromEntries(
        Object.entries(environment).filter((entry): entry is [string, string] => entry[1] !== undefined),
      ),
    });
  }

  private functionArn(handler: string): string {
    return this.arn('lambda', 'function', functionName(handler), ArnFormat.COLON_RESOURCE_NAME);
  }

  private arn(service: string, resource: string, resourceName: string, arnFormat: ArnFormat): string {
    return Stack.of(this).formatArn({ service, resource, resourceName, arnFormat });
  }
}

/** Fixed, because the role of a function has to name the function that does not exist without the role. */
const functionName = (handler: string): string => `rekey-${handler}`;
