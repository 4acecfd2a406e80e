import { ArnFormat, type Duration, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { PolicyStatement, type PolicyStatementProps, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import {
  Architecture,
  CfnEventInvokeConfig,
  type Code,
  Function as LambdaHandler,
  Runtime,
} from 'aws-cdk-lib/aws-lambda';
import { LogGroup, type RetentionDays } from 'aws-cdk-lib/aws-logs';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';

export interface HandlerProps {
  /** The directory that bundle.ts makes: every handler as `<handler>.mjs`. */
  readonly code: Code;
  readonly logRetention: RetentionDays;
  /** `<handler>` in functions/. */
  readonly handler: string;
  readonly description: string;
  readonly timeout: Duration;
  /** Variables that are undefined are left out. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** All that the function may do, beside writing its own log and to `lostRequests`. */
  readonly statements: readonly PolicyStatementProps[];
  /** Takes events that failed in the function to the last try. @default nothing calls it asynchronously */
  readonly lostRequests?: IQueue;
}

/**
 * A function with its own log group and its own role. No construct of its own: its name is fixed, and under another logical id
 * CloudFormation would make it anew before it deletes the old one, which fails.
 */
export function addHandler(
  scope: Construct,
  id: string,
  { code, logRetention, handler, description, timeout, environment, statements, lostRequests }: HandlerProps,
): LambdaHandler {
  const logGroup = new LogGroup(scope, `${id}Log`, {
    logGroupName: `/aws/lambda/${functionName(handler)}`,
    retention: logRetention,
    removalPolicy: RemovalPolicy.DESTROY,
  });
  const role = new Role(scope, `${id}Role`, { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
  for (const statement of statements) role.addToPolicy(new PolicyStatement(statement));
  if (lostRequests !== undefined)
    role.addToPolicy(
      new PolicyStatement({
        sid: 'ReportFailure',
        actions: ['sqs:SendMessage'],
        resources: [lostRequests.queueArn],
      }),
    );
  role.addToPolicy(
    new PolicyStatement({
      sid: 'WriteLog',
      actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
      // Wildcard: Lambda names the streams of the group.
      resources: [
        `${arnOf(scope, 'logs', 'log-group', `/aws/lambda/${functionName(handler)}`, ArnFormat.COLON_RESOURCE_NAME)}:*`,
      ],
    }),
  );
  const made = new LambdaHandler(scope, id, {
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
  // The retries of what was delivered and then failed; those of rules and schedules are for what was not delivered.
  if (lostRequests !== undefined)
    new CfnEventInvokeConfig(scope, `${id}Retries`, {
      functionName: made.functionName,
      qualifier: '$LATEST',
      maximumRetryAttempts: 2,
      destinationConfig: { onFailure: { destination: lostRequests.queueArn } },
    }).node.addDependency(role);
  return made;
}

/** Fixed, because the role of a function has to name the function that does not exist without the role. */
export const functionName = (handler: string): string => `rekey-${handler}`;

/** The ARN of something in the account and Region of the stack. */
export function arnOf(
  scope: Construct,
  service: string,
  resource: string,
  resourceName: string,
  arnFormat: ArnFormat = ArnFormat.SLASH_RESOURCE_NAME,
): string {
  return Stack.of(scope).formatArn({ service, resource, resourceName, arnFormat });
}
