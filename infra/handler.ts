import { ArnFormat, type Duration, RemovalPolicy, Stack, Validations } from 'aws-cdk-lib';
import type { ISecurityGroup, IVpc, SubnetSelection } from 'aws-cdk-lib/aws-ec2';
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
  type Code,
  Function as LambdaHandler,
  Runtime,
} from 'aws-cdk-lib/aws-lambda';
import { LogGroup, type RetentionDays } from 'aws-cdk-lib/aws-logs';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';

export interface StatementProps extends PolicyStatementProps {
  /** Why every one of `resources` has a wildcard. @default none of them has any */
  readonly wildcard?: string;
}

/** Where the functions run. */
export interface Network {
  readonly vpc: IVpc;
  readonly subnets: SubnetSelection;
  readonly securityGroup: ISecurityGroup;
}

/** Has a handler as `<handler>.mjs`. */
export type HandlerCode = Code | ((handler: string) => Code);

export interface HandlerProps {
  /** By the handler, or one for all of them. */
  readonly code: HandlerCode;
  readonly logRetention: RetentionDays;
  /** @default none of ours: Lambda's own network, which calls from changing addresses */
  readonly network?: Network;
  /** `<handler>` in functions/. */
  readonly handler: string;
  readonly description: string;
  readonly timeout: Duration;
  /** Variables that are undefined are left out. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** All that the function may do, beside writing its own log and to `lostRequests`. */
  readonly statements: readonly StatementProps[];
  /**
   * Takes what failed in the function to the last try where it was called asynchronously, as by a schedule, and what the function
   * itself sets aside of its queue. @default it is called synchronously only
   */
  readonly lostRequests?: IQueue;
}

/**
 * A function with its own log group and its own role. No construct of its own: its name is fixed, and under another logical id
 * CloudFormation would create the new function before it deletes the old one, which fails as the name is taken.
 */
export function addHandler(
  scope: Construct,
  id: string,
  {
    code,
    logRetention,
    network,
    handler,
    description,
    timeout,
    environment,
    statements,
    lostRequests,
  }: HandlerProps,
): LambdaHandler {
  const logGroup = new LogGroup(scope, `${id}Log`, {
    logGroupName: `/aws/lambda/${functionName(handler)}`,
    retention: logRetention,
    removalPolicy: RemovalPolicy.DESTROY,
  });
  const role = new Role(scope, `${id}Role`, { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
  for (const statement of statements) allow(role, statement);
  if (lostRequests !== undefined)
    allow(role, { sid: 'ReportFailure', actions: ['sqs:SendMessage'], resources: [lostRequests.queueArn] });
  allow(role, {
    sid: 'WriteLog',
    actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
    resources: [
      `${arnOf(scope, 'logs', 'log-group', `/aws/lambda/${functionName(handler)}`, ArnFormat.COLON_RESOURCE_NAME)}:*`,
    ],
    wildcard: "Lambda names the streams of the function's own group.",
  });
  if (network !== undefined) for (const statement of interfaces(scope, handler)) allow(role, statement);
  const made = new LambdaHandler(scope, id, {
    functionName: functionName(handler),
    description,
    code: typeof code === 'function' ? code(handler) : code,
    handler: `${handler}.handler`,
    runtime: Runtime.NODEJS_24_X,
    architecture: Architecture.ARM_64,
    memorySize: memoryMegabytes,
    timeout,
    role,
    logGroup,
    environment: Object.fromEntries(
      Object.entries(environment).filter((entry): entry is [string, string] => entry[1] !== undefined),
    ),
    ...(network === undefined
      ? {}
      : {
          vpc: network.vpc,
          vpcSubnets: network.subnets,
          securityGroups: [network.securityGroup],
          // Refused with a sentence of our own (options.ts).
          allowPublicSubnet: true,
        }),
  });
  Validations.of(made).acknowledge(
    {
      id: 'Serverless-LambdaDLQ',
      reason:
        lostRequests === undefined
          ? 'It is only called synchronously, by a caller that tries again itself.'
          : 'A failure destination takes what failed together with its error, which a dead-letter queue would not have.',
    },
    {
      id: 'Serverless-LambdaTracing',
      reason:
        "The rotation's token runs through logs, events and audit records. Tracing would let every role write traces on all resources.",
    },
  );
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

/** Lambda makes the network interfaces with the role of the function, whose own code has no business with them. */
function interfaces(scope: Construct, handler: string): readonly StatementProps[] {
  const actions = [
    'ec2:AssignPrivateIpAddresses',
    'ec2:CreateNetworkInterface',
    'ec2:DeleteNetworkInterface',
    'ec2:DescribeNetworkInterfaces',
    'ec2:DescribeSubnets',
    'ec2:UnassignPrivateIpAddresses',
  ];
  return [
    {
      sid: 'LambdaJoinsTheNetwork',
      actions,
      resources: ['*'],
      wildcard:
        'Lambda tries these before there is an interface, and describing knows no resources (AWS documentation). The code of the function is denied all of them.',
    },
    {
      sid: 'NeverByItself',
      effect: Effect.DENY,
      actions,
      resources: ['*'],
      conditions: {
        ArnEquals: {
          'lambda:SourceFunctionArn': arnOf(
            scope,
            'lambda',
            'function',
            functionName(handler),
            ArnFormat.COLON_RESOURCE_NAME,
          ),
        },
      },
    },
  ];
}

/**
 * Adds a statement to a role. The reason for a wildcard is kept where cdk-nag looks for it, one finding at a time: another
 * wildcard, even in the same statement of the same role, shows.
 */
export function allow(role: Role, { wildcard, ...statement }: StatementProps): void {
  role.addToPolicy(new PolicyStatement(statement));
  if (wildcard === undefined) return;
  for (const resource of statement.resources ?? []) {
    const finding = asFound(Stack.of(role).resolve(resource));
    Validations.of(role).acknowledge({ id: `AwsSolutions-IAM5[Resource::${finding}]`, reason: wildcard });
  }
}

/** A resource as cdk-nag writes it: a reference is `<LogicalId>`, an attribute `<LogicalId.Arn>`. */
function asFound(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.map(asFound).join('');
  const [[name, argument] = []] = Object.entries(value as object);
  if (name === 'Ref') return `<${argument}>`;
  if (name === 'Fn::GetAtt') return `<${argument.join('.')}>`;
  // Fn::Join, as everything that has parts is joined.
  return asFound(argument[1]);
}

/** Of each function. */
export const memoryMegabytes = 512;

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
