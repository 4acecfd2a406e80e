import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import * as z from 'zod';
import type { Policy } from './authorization.ts';
import { holds, noValue, type References, resolveIntrinsics } from './intrinsics.ts';

export interface TemplateOptions {
  /** Twelve digits. */
  readonly account: string;
  readonly region: string;
  /** The ARN under which a secret will exist, random suffix included. @default a suffix derived from the name */
  readonly secretArn?: (name: string) => string;
  /** Where the queues are reached: the SDK takes the address out of a queue's URL. @default AWS's own */
  readonly queueOrigin?: string;
  /** Where the HTTP API with this id is reached. @default AWS's own address for it */
  readonly apiEndpoint?: (id: string) => string;
}

/** What the synthesized stack would be after a deployment, every reference resolved. */
export interface LocalStack {
  readonly functions: readonly FunctionRecord[];
  readonly buses: readonly { readonly logicalId: string; readonly name: string; readonly arn: string }[];
  readonly rules: readonly RuleRecord[];
  readonly archives: readonly ArchiveRecord[];
  readonly httpApis: readonly HttpApiRecord[];
  readonly buckets: readonly BucketRecord[];
  readonly tables: readonly TableRecord[];
  readonly queues: readonly QueueRecord[];
  readonly eventSources: readonly EventSourceRecord[];
  readonly schedules: readonly ScheduleRecord[];
  readonly topics: readonly TopicRecord[];
  readonly subscriptions: readonly SubscriptionRecord[];
  readonly alarms: readonly AlarmRecord[];
  readonly parameters: readonly {
    readonly logicalId: string;
    readonly name: string;
    readonly value: string;
  }[];
  readonly secrets: readonly SecretRecord[];
  readonly rotations: readonly RotationRecord[];
  readonly permissions: readonly PermissionRecord[];
  /** What roles may do, who may assume them, and who may do what to buckets, queues, topics, keys, buses and functions. */
  readonly policies: readonly Policy[];
  /** Resources that have no counterpart here. */
  readonly unknown: readonly { readonly logicalId: string; readonly type: string }[];
}

export interface FunctionRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  /** `<file>.<export>` */
  readonly handler: string;
  /** Absolute path of the asset. */
  readonly directory: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutSeconds: number;
  readonly memoryMb: number;
  readonly logGroup: string;
  readonly roleName: string;
  /** All that the function may do. */
  readonly roleStatements: readonly RoleStatement[];
  /** Of an asynchronous invocation, after the first try. */
  readonly asyncRetries: number;
  /** Takes an asynchronous invocation whose last try failed. */
  readonly onFailureArn: string | undefined;
}

export interface RoleStatement {
  readonly sid: string | undefined;
  readonly effect: 'Allow' | 'Deny';
  readonly actions: readonly string[];
  readonly resources: readonly string[];
  /** Operator, then condition key, then the values of which one has to match. */
  readonly conditions: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
}

export interface RuleRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  readonly busName: string;
  readonly isEnabled: boolean;
  /** An event pattern, in EventBridge's own form. */
  readonly pattern: Readonly<Record<string, unknown>>;
  readonly targets: readonly {
    readonly id: string;
    readonly arn: string;
    readonly deadLetterArn: string | undefined;
    readonly retryPolicy: { readonly maximumRetryAttempts: number; readonly maximumEventAgeSeconds: number };
  }[];
}

export interface ArchiveRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  readonly busName: string;
  /** Every event of the bus when there is none. */
  readonly pattern: Readonly<Record<string, unknown>> | undefined;
  /** For ever when there is none. */
  readonly retentionDays: number | undefined;
}

export interface HttpApiRecord {
  readonly logicalId: string;
  readonly id: string;
  readonly name: string;
  readonly routes: readonly { readonly routeKey: string; readonly functionArn: string }[];
  /** Of the stage `$default`, for each route; without one the account's own, which is no bound here. */
  readonly throttle: { readonly ratePerSecond: number; readonly burst: number } | undefined;
}

export interface BucketRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  readonly isVersioned: boolean;
  /** What every new version is locked by. */
  readonly defaultRetention:
    | { readonly mode: 'GOVERNANCE' | 'COMPLIANCE'; readonly days: number }
    | undefined;
}

export interface TableRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  readonly partitionKey: string;
  readonly sortKey: string;
  readonly expiryAttribute: string | undefined;
}

export interface QueueRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  readonly url: string;
  /** Whether it hands out the messages of a group in order, and each only once. */
  readonly isFifo: boolean;
  readonly visibilityTimeoutSeconds: number;
  readonly delaySeconds: number;
  readonly retentionSeconds: number;
  readonly redrive: { readonly deadLetterArn: string; readonly maxReceiveCount: number } | undefined;
}

export interface EventSourceRecord {
  readonly logicalId: string;
  readonly queueArn: string;
  readonly functionArn: string;
  readonly isEnabled: boolean;
  readonly batchSize: number;
  readonly maximumConcurrency: number | undefined;
  readonly reportsItemFailures: boolean;
}

export interface ScheduleRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  /** ARN of its group. */
  readonly groupArn: string;
  readonly isEnabled: boolean;
  readonly expression: string;
  readonly timeZone: string;
  readonly startAt: Date | undefined;
  readonly endAt: Date | undefined;
  readonly target: {
    readonly arn: string;
    readonly input: string;
    readonly deadLetterArn: string | undefined;
    readonly retryPolicy: { readonly maximumRetryAttempts: number; readonly maximumEventAgeSeconds: number };
    /** As whom Scheduler acts for this schedule. */
    readonly roleName: string;
  };
}

export interface TopicRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  /** Of the key of the stack that encrypts what is published; undefined where none or AWS's own does. */
  readonly keyArn: string | undefined;
}

export interface SubscriptionRecord {
  readonly logicalId: string;
  readonly topicArn: string;
  /** `email` and its like reach nobody here. */
  readonly protocol: string;
  readonly endpoint: string;
  readonly isRaw: boolean;
}

export interface AlarmRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  readonly description: string | undefined;
  readonly namespace: string;
  readonly metricName: string;
  readonly dimensions: Readonly<Record<string, string>>;
  readonly statistic: 'Sum' | 'Maximum' | 'Minimum' | 'Average' | 'SampleCount';
  readonly periodSeconds: number;
  readonly evaluationPeriods: number;
  readonly datapointsToAlarm: number | undefined;
  readonly threshold: number;
  readonly comparison:
    | 'GreaterThanThreshold'
    | 'GreaterThanOrEqualToThreshold'
    | 'LessThanThreshold'
    | 'LessThanOrEqualToThreshold';
  readonly treatMissingData: 'breaching' | 'notBreaching' | 'ignore' | 'missing';
  /** Topics. */
  readonly alarmActions: readonly string[];
  readonly okActions: readonly string[];
  readonly insufficientDataActions: readonly string[];
}

export interface SecretRecord {
  readonly logicalId: string;
  readonly name: string;
  readonly arn: string;
  readonly secretString: string | undefined;
  readonly description: string | undefined;
}

export interface RotationRecord {
  readonly secretName: string;
  readonly functionArn: string;
  readonly rules: {
    readonly automaticallyAfterDays?: number | undefined;
    readonly scheduleExpression?: string | undefined;
    readonly duration?: string | undefined;
  };
  readonly rotateImmediately: boolean;
}

export interface PermissionRecord {
  readonly logicalId: string;
  readonly functionArn: string;
  readonly action: string;
  readonly principal: string;
  readonly sourceAccount: string | undefined;
  readonly sourceArn: string | undefined;
}

/** Reads `<stack>.template.json` of a cloud assembly. Throws with the path of whatever it does not understand. */
export async function readTemplate(path: string, options: TemplateOptions): Promise<LocalStack> {
  const stackName = basename(path).replace(/\.template\.json$/, '');
  const directory = resolve(dirname(path));
  const template = templateSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  const manifest = manifestSchema.parse(
    JSON.parse(await readFile(join(directory, `${stackName}.assets.json`), 'utf8')),
  );
  const assets = new Map<string, string>();
  for (const { source, destinations } of Object.values(manifest.files))
    for (const { objectKey } of Object.values(destinations))
      assets.set(objectKey, join(directory, source.path));
  return readResources(template, stackName, assets, options);
}

const templateSchema = z.object({
  Parameters: z.record(z.string(), z.object({ Default: z.unknown() })).default({}),
  Conditions: z.record(z.string(), z.unknown()).default({}),
  Resources: z.record(
    z.string(),
    z.object({
      Type: z.string(),
      Properties: z.record(z.string(), z.unknown()).default({}),
      Condition: z.string().optional(),
    }),
  ),
});
const manifestSchema = z.object({
  files: z.record(
    z.string(),
    z.object({
      source: z.object({ path: z.string() }),
      destinations: z.record(z.string(), z.object({ objectKey: z.string() })),
    }),
  ),
});

const oneOrMore = z.union([z.string().transform((one) => [one]), z.array(z.string())]);
// Strict: a statement that is half understood would allow or refuse the wrong calls.
const policySchema = z.object({
  Statement: z.array(
    z.strictObject({
      Sid: z.string().optional(),
      Effect: z.enum(['Allow', 'Deny']),
      Action: oneOrMore,
      Resource: oneOrMore,
      Condition: z.record(z.string(), z.record(z.string(), oneOrMore)).default({}),
    }),
  ),
});
/** Evaluated as it stands, by what knows all of the language. */
const documentSchema = z.looseObject({
  Statement: z.array(
    z.looseObject({
      Sid: z.string().optional(),
      Effect: z.enum(['Allow', 'Deny']),
      Action: z.union([z.string(), z.array(z.string())]).optional(),
    }),
  ),
});
const arn = z.string().startsWith('arn:');
const schemas = {
  'AWS::Lambda::Function': z.object({
    Code: z.object({ S3Key: z.string() }),
    Handler: z.string(),
    Role: arn,
    Environment: z.object({ Variables: z.record(z.string(), z.string()) }).default({ Variables: {} }),
    Timeout: z.number().default(3),
    MemorySize: z.number().default(128),
    LoggingConfig: z.object({ LogGroup: z.string().optional() }).default({}),
  }),
  'AWS::Lambda::EventInvokeConfig': z.object({
    FunctionName: z.string(),
    MaximumRetryAttempts: z.number().default(2),
    DestinationConfig: z.object({ OnFailure: z.object({ Destination: arn }).optional() }).default({}),
  }),
  'AWS::Lambda::Permission': z.object({
    FunctionName: z.string(),
    Action: z.string(),
    // A service: nobody else is let in.
    Principal: z.string().endsWith('.amazonaws.com'),
    SourceAccount: z.string().optional(),
    SourceArn: z.string().optional(),
  }),
  'AWS::IAM::Role': z.object({
    AssumeRolePolicyDocument: documentSchema.optional(),
    Policies: z.array(z.object({ PolicyName: z.string(), PolicyDocument: documentSchema })).default([]),
    ManagedPolicyArns: z
      .array(z.string())
      .max(0, 'managed policies are not part of the template')
      .default([]),
  }),
  'AWS::IAM::Policy': z.object({ PolicyDocument: documentSchema, Roles: z.array(z.string()).default([]) }),
  'AWS::S3::BucketPolicy': z.strictObject({ Bucket: z.string(), PolicyDocument: documentSchema }),
  'AWS::SQS::QueuePolicy': z.strictObject({ Queues: z.array(z.string()), PolicyDocument: documentSchema }),
  'AWS::SNS::TopicPolicy': z.strictObject({ Topics: z.array(arn), PolicyDocument: documentSchema }),
  'AWS::KMS::Key': z.object({ KeyPolicy: documentSchema.optional() }),
  'AWS::Events::EventBus': z.object({ Name: z.string() }),
  'AWS::Events::Rule': z.strictObject({
    Name: z.string().optional(),
    Description: z.string().optional(),
    EventBusName: z.string().default('default'),
    EventPattern: z.record(z.string(), z.unknown()),
    State: z.enum(['ENABLED', 'DISABLED']).default('ENABLED'),
    Targets: z
      .array(
        z.strictObject({
          Id: z.string(),
          Arn: arn,
          DeadLetterConfig: z.object({ Arn: arn }).optional(),
          RetryPolicy: z
            .strictObject({
              MaximumRetryAttempts: z.number().default(185),
              MaximumEventAgeInSeconds: z.number().default(86_400),
            })
            .default({ MaximumRetryAttempts: 185, MaximumEventAgeInSeconds: 86_400 }),
        }),
      )
      .default([]),
  }),
  'AWS::Events::Archive': z.strictObject({
    ArchiveName: z.string().optional(),
    Description: z.string().optional(),
    SourceArn: arn.includes(':event-bus/'),
    EventPattern: z.record(z.string(), z.unknown()).optional(),
    RetentionDays: z.int().min(0).default(0),
    KmsKeyIdentifier: z.literal('').optional(),
  }),
  'AWS::ApiGatewayV2::Api': z.strictObject({
    Name: z.string(),
    Description: z.string().optional(),
    ProtocolType: z.literal('HTTP'),
    Tags: z.unknown().optional(),
  }),
  'AWS::ApiGatewayV2::Integration': z.strictObject({
    ApiId: z.string(),
    IntegrationType: z.literal('AWS_PROXY'),
    IntegrationUri: arn.includes(':lambda:', 'only functions are called here'),
    PayloadFormatVersion: z.literal('2.0'),
  }),
  'AWS::ApiGatewayV2::Route': z.strictObject({
    ApiId: z.string(),
    AuthorizationType: z.literal('NONE').default('NONE'),
    RouteKey: z.string().regex(/^[A-Z]+ \/[^{}]*$/, { error: 'only a method with a path without variables' }),
    Target: z.string().startsWith('integrations/'),
  }),
  'AWS::ApiGatewayV2::Stage': z.strictObject({
    ApiId: z.string(),
    StageName: z.literal('$default'),
    AutoDeploy: z.literal(true),
    // Who came is kept by the stand-in, whatever form the log has.
    AccessLogSettings: z.unknown().optional(),
    DefaultRouteSettings: z
      .strictObject({ ThrottlingRateLimit: z.number().min(0), ThrottlingBurstLimit: z.int().min(0) })
      .optional(),
    Tags: z.unknown().optional(),
  }),
  'AWS::S3::Bucket': z.strictObject({
    BucketName: z.string().optional(),
    ObjectLockEnabled: z.boolean().default(false),
    ObjectLockConfiguration: z
      .strictObject({
        ObjectLockEnabled: z.literal('Enabled'),
        Rule: z.strictObject({
          DefaultRetention: z.strictObject({
            Mode: z.enum(['GOVERNANCE', 'COMPLIANCE']),
            Days: z.int().min(1),
          }),
        }),
      })
      .optional(),
    VersioningConfiguration: z.strictObject({ Status: z.enum(['Enabled', 'Suspended']) }).optional(),
    // Nobody but our own processes comes here, and at rest it is gone with them.
    BucketEncryption: z.unknown().optional(),
    OwnershipControls: z.unknown().optional(),
    PublicAccessBlockConfiguration: z.unknown().optional(),
    Tags: z.unknown().optional(),
  }),
  'AWS::DynamoDB::Table': z.strictObject({
    TableName: z.string().optional(),
    KeySchema: z.tuple([
      z.strictObject({ AttributeName: z.string(), KeyType: z.literal('HASH') }),
      z.strictObject({ AttributeName: z.string(), KeyType: z.literal('RANGE') }),
    ]),
    AttributeDefinitions: z.array(
      z.strictObject({ AttributeName: z.string(), AttributeType: z.literal('S') }),
    ),
    BillingMode: z.literal('PAY_PER_REQUEST'),
    TimeToLiveSpecification: z
      .strictObject({ AttributeName: z.string(), Enabled: z.literal(true) })
      .optional(),
    // Nobody but our own processes comes here, and at rest it is gone with them.
    SSESpecification: z.unknown().optional(),
    PointInTimeRecoverySpecification: z.unknown().optional(),
    Tags: z.unknown().optional(),
  }),
  'AWS::SQS::Queue': z.strictObject({
    QueueName: z.string().optional(),
    FifoQueue: z.boolean().default(false),
    VisibilityTimeout: z.int().min(0).max(43_200).default(30),
    DelaySeconds: z.int().min(0).max(900).default(0),
    MessageRetentionPeriod: z.int().min(60).max(1_209_600).default(345_600),
    RedrivePolicy: z
      .strictObject({ deadLetterTargetArn: arn, maxReceiveCount: z.coerce.number().int().min(1).max(1000) })
      .optional(),
    // At rest nothing here is encrypted, and all of it is gone with the process.
    SqsManagedSseEnabled: z.boolean().optional(),
    KmsMasterKeyId: z.string().optional(),
    KmsDataKeyReusePeriodSeconds: z.number().optional(),
    Tags: z.unknown().optional(),
  }),
  'AWS::Lambda::EventSourceMapping': z.strictObject({
    EventSourceArn: arn.includes(':sqs:', 'only queues feed functions here'),
    FunctionName: z.string(),
    Enabled: z.boolean().default(true),
    BatchSize: z.int().min(1).max(10_000).default(10),
    FunctionResponseTypes: z.array(z.literal('ReportBatchItemFailures')).default([]),
    ScalingConfig: z.strictObject({ MaximumConcurrency: z.int().min(2).max(1000) }).optional(),
    Tags: z.unknown().optional(),
  }),
  'AWS::Scheduler::ScheduleGroup': z.strictObject({
    Name: z.string().optional(),
    Tags: z.unknown().optional(),
  }),
  'AWS::Scheduler::Schedule': z.strictObject({
    Name: z.string().optional(),
    Description: z.string().optional(),
    GroupName: z.string().default('default'),
    State: z.enum(['ENABLED', 'DISABLED']).default('ENABLED'),
    ScheduleExpression: z.string(),
    ScheduleExpressionTimezone: z.string().default('UTC'),
    StartDate: z.iso.datetime({ offset: true }).optional(),
    EndDate: z.iso.datetime({ offset: true }).optional(),
    FlexibleTimeWindow: z.strictObject({ Mode: z.literal('OFF') }),
    Target: z.strictObject({
      Arn: arn,
      RoleArn: arn,
      Input: z.string().default('{}'),
      DeadLetterConfig: z.strictObject({ Arn: arn }).optional(),
      RetryPolicy: z
        .strictObject({
          MaximumRetryAttempts: z.int().min(0).max(185).default(185),
          MaximumEventAgeInSeconds: z.int().min(60).max(86_400).default(86_400),
        })
        .default({ MaximumRetryAttempts: 185, MaximumEventAgeInSeconds: 86_400 }),
    }),
  }),
  'AWS::SNS::Topic': z.strictObject({
    TopicName: z.string().optional(),
    DisplayName: z.string().optional(),
    KmsMasterKeyId: z.string().optional(),
    Tags: z.unknown().optional(),
  }),
  'AWS::SNS::Subscription': z.strictObject({
    TopicArn: arn,
    Protocol: z.string(),
    Endpoint: z.string(),
    RawMessageDelivery: z.boolean().default(false),
  }),
  'AWS::CloudWatch::Alarm': z.strictObject({
    AlarmName: z.string().optional(),
    AlarmDescription: z.string().optional(),
    ActionsEnabled: z.literal(true).default(true),
    Namespace: z.string(),
    MetricName: z.string(),
    Dimensions: z.array(z.strictObject({ Name: z.string(), Value: z.string() })).default([]),
    Statistic: z.enum(['Sum', 'Maximum', 'Minimum', 'Average', 'SampleCount']),
    Period: z.int().multipleOf(60),
    EvaluationPeriods: z.int().min(1),
    DatapointsToAlarm: z.int().min(1).optional(),
    Threshold: z.number(),
    ComparisonOperator: z.enum([
      'GreaterThanThreshold',
      'GreaterThanOrEqualToThreshold',
      'LessThanThreshold',
      'LessThanOrEqualToThreshold',
    ]),
    TreatMissingData: z.enum(['breaching', 'notBreaching', 'ignore', 'missing']).default('missing'),
    AlarmActions: z.array(arn).default([]),
    OKActions: z.array(arn).default([]),
    InsufficientDataActions: z.array(arn).default([]),
    Tags: z.unknown().optional(),
  }),
  'AWS::SSM::Parameter': z.object({ Name: z.string(), Value: z.string() }),
  'AWS::SecretsManager::Secret': z.object({
    Name: z.string(),
    SecretString: z.string().optional(),
    Description: z.string().optional(),
  }),
  'AWS::SecretsManager::RotationSchedule': z.strictObject({
    SecretId: z.string(),
    RotationLambdaARN: arn,
    // CloudFormation's own default rotates at every deployment.
    RotateImmediatelyOnUpdate: z.boolean().default(true),
    RotationRules: z
      .strictObject({
        AutomaticallyAfterDays: z.number().optional(),
        ScheduleExpression: z.string().optional(),
        Duration: z.string().optional(),
      })
      .default({}),
  }),
} as const;

/** Of no consequence here: logs go to the screen, and nobody looks at a dashboard. */
const withoutEffect: readonly string[] = [
  'AWS::Logs::LogGroup',
  'AWS::KMS::Alias',
  'AWS::CloudWatch::Dashboard',
  'AWS::CDK::Metadata',
];

interface Identity {
  readonly name: string;
  readonly arn: string;
  readonly ref: string;
  readonly attributes: Readonly<Record<string, string>>;
}

function readResources(
  template: z.output<typeof templateSchema>,
  stackName: string,
  assets: ReadonlyMap<string, string>,
  {
    account,
    region,
    secretArn,
    queueOrigin = `https://sqs.${region}.amazonaws.com`,
    apiEndpoint = (id) => `https://${id}.execute-api.${region}.amazonaws.com`,
  }: TemplateOptions,
): LocalStack {
  const arnOf = (service: string, resource: string) => `arn:aws:${service}:${region}:${account}:${resource}`;
  const pseudo: Readonly<Record<string, unknown>> = {
    'AWS::AccountId': account,
    'AWS::Region': region,
    'AWS::Partition': 'aws',
    'AWS::URLSuffix': 'amazonaws.com',
    'AWS::StackName': stackName,
    'AWS::StackId': arnOf('cloudformation', `stack/${stackName}/local`),
    'AWS::NoValue': noValue,
  };
  const references: References = {
    ref: (name) => pseudo[name] ?? template.Parameters[name]?.Default ?? identityOf(name)?.ref,
    attribute: (logicalId, attribute) => identityOf(logicalId)?.attributes[attribute],
    condition: (name) => template.Conditions[name],
  };

  const identities = new Map<string, Identity | undefined>();
  /** What a resource is called, as far as others refer to it. A name may refer to other names, never in a circle. */
  function identityOf(logicalId: string): Identity | undefined {
    if (identities.has(logicalId)) return identities.get(logicalId);
    identities.set(logicalId, undefined);
    const identity = identify(logicalId);
    identities.set(logicalId, identity);
    return identity;
  }

  function identify(logicalId: string): Identity | undefined {
    const resource = template.Resources[logicalId];
    if (resource === undefined) return undefined;
    const property = (key: string, otherwise: string): string => {
      const at = `Resources.${logicalId}.Properties.${key}`;
      return z.string().parse(resolveIntrinsics(resource.Properties[key] ?? otherwise, references, at));
    };
    // CloudFormation makes such names; the hash stands in for its random end.
    const generated = `${stackName}-${logicalId}-${digest(logicalId, 12).toUpperCase()}`;
    const identity = (
      name: string,
      arn: string,
      ref: string,
      attributes: Record<string, string> = {},
    ): Identity => ({
      name,
      arn,
      ref,
      attributes: { Arn: arn, ...attributes },
    });
    switch (resource.Type) {
      case 'AWS::Lambda::Function': {
        const name = property('FunctionName', generated);
        return identity(name, arnOf('lambda', `function:${name}`), name);
      }
      case 'AWS::IAM::Role': {
        const name = property('RoleName', generated);
        return identity(name, `arn:aws:iam::${account}:role/${name}`, name);
      }
      case 'AWS::Events::EventBus': {
        const name = property('Name', generated);
        return identity(name, arnOf('events', `event-bus/${name}`), name, { Name: name });
      }
      case 'AWS::Events::Rule': {
        const name = property('Name', generated);
        const bus = property('EventBusName', 'default');
        return bus === 'default'
          ? identity(name, arnOf('events', `rule/${name}`), name)
          : identity(name, arnOf('events', `rule/${bus}/${name}`), `${bus}|${name}`);
      }
      case 'AWS::Events::Archive': {
        const name = property('ArchiveName', generated);
        return identity(name, arnOf('events', `archive/${name}`), name, { ArchiveName: name });
      }
      case 'AWS::ApiGatewayV2::Api': {
        const id = digest(logicalId, 10);
        const attributes = { ApiId: id, ApiEndpoint: apiEndpoint(id) };
        return identity(property('Name', generated), arnOf('execute-api', id), id, attributes);
      }
      case 'AWS::ApiGatewayV2::Integration': {
        const id = digest(logicalId, 7);
        return identity(id, id, id);
      }
      case 'AWS::S3::Bucket': {
        const name = property(
          'BucketName',
          generated
            .toLowerCase()
            .slice(-63)
            .replace(/^[^a-z0-9]+/, ''),
        );
        return identity(name, `arn:aws:s3:::${name}`, name);
      }
      case 'AWS::DynamoDB::Table': {
        const name = property('TableName', generated);
        return identity(name, arnOf('dynamodb', `table/${name}`), name);
      }
      case 'AWS::SQS::Queue': {
        const isFifo = resource.Properties['FifoQueue'] === true;
        const name = property('QueueName', isFifo ? `${generated}.fifo` : generated);
        const url = `${queueOrigin}/${account}/${name}`;
        return identity(name, arnOf('sqs', name), url, { QueueName: name, QueueUrl: url });
      }
      case 'AWS::SSM::Parameter': {
        const name = property('Name', generated);
        return identity(name, arnOf('ssm', `parameter${name}`), name);
      }
      case 'AWS::SecretsManager::Secret': {
        const name = property('Name', generated);
        const arn = secretArn?.(name) ?? arnOf('secretsmanager', `secret:${name}-${digest(name, 6)}`);
        return identity(name, arn, arn, { Id: arn });
      }
      case 'AWS::Scheduler::ScheduleGroup': {
        const name = property('Name', generated);
        return identity(name, arnOf('scheduler', `schedule-group/${name}`), name);
      }
      case 'AWS::Scheduler::Schedule': {
        const name = property('Name', generated);
        return identity(
          name,
          arnOf('scheduler', `schedule/${property('GroupName', 'default')}/${name}`),
          name,
        );
      }
      case 'AWS::SNS::Topic': {
        const name = property('TopicName', generated);
        const arn = arnOf('sns', name);
        return identity(name, arn, arn, { TopicArn: arn, TopicName: name });
      }
      case 'AWS::CloudWatch::Alarm': {
        const name = property('AlarmName', generated);
        return identity(name, arnOf('cloudwatch', `alarm:${name}`), name);
      }
      case 'AWS::KMS::Key': {
        const arn = arnOf('kms', `key/${logicalId}`);
        return identity(logicalId, arn, logicalId, { KeyId: logicalId });
      }
      case 'AWS::Logs::LogGroup': {
        const name = property('LogGroupName', generated);
        return identity(name, arnOf('logs', `log-group:${name}:*`), name);
      }
      default:
        return undefined;
    }
  }

  const present = Object.entries(template.Resources).filter(
    ([, { Condition }]) => Condition === undefined || holds(Condition, references),
  );

  /** Every resource of a type: its resolved properties and its names. */
  function all<Type extends keyof typeof schemas>(type: Type) {
    return present
      .filter(([, resource]) => resource.Type === type)
      .map(([logicalId, { Properties }]) => {
        const at = `Resources.${logicalId}.Properties`;
        const parsed = schemas[type].safeParse(resolveIntrinsics(Properties, references, at));
        if (!parsed.success) throw new Error(`${at}: ${z.prettifyError(parsed.error)}`);
        const { name, arn, ref } = identityOf(logicalId) ?? {
          name: logicalId,
          arn: logicalId,
          ref: logicalId,
        };
        return { logicalId, name, arn, ref, properties: parsed.data as z.output<(typeof schemas)[Type]> };
      });
  }

  const roles = all('AWS::IAM::Role');
  const rolePolicies: readonly (Policy & { readonly of: { readonly role: string } })[] = [
    ...roles.flatMap(({ logicalId, name: role, properties }) =>
      properties.Policies.map(({ PolicyName, PolicyDocument: document }) => ({
        name: `${logicalId}.${PolicyName}`,
        of: { role },
        document,
      })),
    ),
    ...all('AWS::IAM::Policy').flatMap(({ logicalId: name, properties }) =>
      properties.Roles.map((role) => ({ name, of: { role }, document: properties.PolicyDocument })),
    ),
  ];
  const asyncConfigs = all('AWS::Lambda::EventInvokeConfig');
  const functionArn = (nameOrArn: string) =>
    nameOrArn.startsWith('arn:') ? nameOrArn : arnOf('lambda', `function:${nameOrArn}`);
  const secrets = all('AWS::SecretsManager::Secret');
  const roleNamed = (logicalId: string, roleArn: string): string => {
    const role = roles.find((each) => each.arn === roleArn);
    if (role === undefined) throw new Error(`Resources.${logicalId}: no role here is ${roleArn}`);
    return role.name;
  };
  const statementsOf = (role: string): readonly RoleStatement[] =>
    rolePolicies
      .filter(({ of }) => of.role === role)
      .flatMap(({ name, document }) => {
        const parsed = policySchema.safeParse(document);
        if (!parsed.success) throw new Error(`${name}: ${z.prettifyError(parsed.error)}`);
        return parsed.data.Statement.map(toStatement);
      });
  const [integrations, routes, stages] = [
    all('AWS::ApiGatewayV2::Integration'),
    all('AWS::ApiGatewayV2::Route'),
    all('AWS::ApiGatewayV2::Stage'),
  ];
  const groups = ['default', ...all('AWS::Scheduler::ScheduleGroup').map(({ name }) => name)];
  const queues = all('AWS::SQS::Queue');
  const keys = all('AWS::KMS::Key');
  const functions = all('AWS::Lambda::Function');
  const permissions = all('AWS::Lambda::Permission').map(({ logicalId, properties }) => ({
    logicalId,
    functionArn: functionArn(properties.FunctionName),
    action: properties.Action,
    principal: properties.Principal,
    sourceAccount: properties.SourceAccount,
    sourceArn: properties.SourceArn,
  }));

  return {
    functions: functions.map(({ logicalId, name, arn, properties }) => {
      const directory = assets.get(properties.Code.S3Key);
      if (directory === undefined)
        throw new Error(`Resources.${logicalId}: no asset is called ${properties.Code.S3Key}`);
      const roleName = roleNamed(logicalId, properties.Role);
      const asyncConfig = asyncConfigs.find(
        (each) => functionArn(each.properties.FunctionName) === arn,
      )?.properties;
      return {
        logicalId,
        name,
        arn,
        handler: properties.Handler,
        directory,
        environment: properties.Environment.Variables,
        timeoutSeconds: properties.Timeout,
        memoryMb: properties.MemorySize,
        logGroup: properties.LoggingConfig.LogGroup ?? `/aws/lambda/${name}`,
        roleName,
        roleStatements: statementsOf(roleName),
        asyncRetries: asyncConfig?.MaximumRetryAttempts ?? 2,
        onFailureArn: asyncConfig?.DestinationConfig.OnFailure?.Destination,
      };
    }),
    buses: all('AWS::Events::EventBus').map(({ logicalId, name, arn }) => ({ logicalId, name, arn })),
    rules: all('AWS::Events::Rule').map(({ logicalId, name, arn, properties }) => ({
      logicalId,
      name,
      arn,
      busName: properties.EventBusName,
      isEnabled: properties.State === 'ENABLED',
      pattern: properties.EventPattern,
      targets: properties.Targets.map(({ Id, Arn, DeadLetterConfig, RetryPolicy }) => ({
        id: Id,
        arn: Arn,
        deadLetterArn: DeadLetterConfig?.Arn,
        retryPolicy: {
          maximumRetryAttempts: RetryPolicy.MaximumRetryAttempts,
          maximumEventAgeSeconds: RetryPolicy.MaximumEventAgeInSeconds,
        },
      })),
    })),
    archives: all('AWS::Events::Archive').map(({ logicalId, name, arn, properties }) => ({
      logicalId,
      name,
      arn,
      busName: properties.SourceArn.replace(/^.*:event-bus\//, ''),
      pattern: properties.EventPattern,
      retentionDays: properties.RetentionDays === 0 ? undefined : properties.RetentionDays,
    })),
    httpApis: all('AWS::ApiGatewayV2::Api').map(({ logicalId, name, ref: id }) => {
      const settings = stages.find(({ properties }) => properties.ApiId === id)?.properties;
      if (settings === undefined) throw new Error(`Resources.${logicalId}: no stage here serves it`);
      const { DefaultRouteSettings } = settings;
      return {
        logicalId,
        id,
        name,
        routes: routes
          .filter(({ properties }) => properties.ApiId === id)
          .map((route) => {
            const target = integrations.find(({ ref }) => `integrations/${ref}` === route.properties.Target);
            if (target === undefined)
              throw new Error(
                `Resources.${route.logicalId}: no integration here is ${route.properties.Target}`,
              );
            return { routeKey: route.properties.RouteKey, functionArn: target.properties.IntegrationUri };
          }),
        throttle: DefaultRouteSettings && {
          ratePerSecond: DefaultRouteSettings.ThrottlingRateLimit,
          burst: DefaultRouteSettings.ThrottlingBurstLimit,
        },
      };
    }),
    buckets: all('AWS::S3::Bucket').map(({ logicalId, name, arn, properties }) => {
      const retention = properties.ObjectLockConfiguration?.Rule.DefaultRetention;
      return {
        logicalId,
        name,
        arn,
        isVersioned: properties.VersioningConfiguration?.Status === 'Enabled',
        defaultRetention: retention && { mode: retention.Mode, days: retention.Days },
      };
    }),
    tables: all('AWS::DynamoDB::Table').map(({ logicalId, name, arn, properties }) => ({
      logicalId,
      name,
      arn,
      partitionKey: properties.KeySchema[0].AttributeName,
      sortKey: properties.KeySchema[1].AttributeName,
      expiryAttribute: properties.TimeToLiveSpecification?.AttributeName,
    })),
    queues: queues.map(({ logicalId, name, arn, ref, properties }) => ({
      logicalId,
      name,
      arn,
      url: ref,
      isFifo: properties.FifoQueue,
      visibilityTimeoutSeconds: properties.VisibilityTimeout,
      delaySeconds: properties.DelaySeconds,
      retentionSeconds: properties.MessageRetentionPeriod,
      redrive: properties.RedrivePolicy && {
        deadLetterArn: properties.RedrivePolicy.deadLetterTargetArn,
        maxReceiveCount: properties.RedrivePolicy.maxReceiveCount,
      },
    })),
    eventSources: all('AWS::Lambda::EventSourceMapping').map(({ logicalId, properties }) => ({
      logicalId,
      queueArn: properties.EventSourceArn,
      functionArn: functionArn(properties.FunctionName),
      isEnabled: properties.Enabled,
      batchSize: properties.BatchSize,
      maximumConcurrency: properties.ScalingConfig?.MaximumConcurrency,
      reportsItemFailures: properties.FunctionResponseTypes.length > 0,
    })),
    schedules: all('AWS::Scheduler::Schedule').map(({ logicalId, name, arn, properties }) => {
      const { Target, GroupName, StartDate, EndDate } = properties;
      if (!groups.includes(GroupName))
        throw new Error(`Resources.${logicalId}: no schedule group here is ${GroupName}`);
      return {
        logicalId,
        name,
        arn,
        groupArn: arnOf('scheduler', `schedule-group/${GroupName}`),
        isEnabled: properties.State === 'ENABLED',
        expression: properties.ScheduleExpression,
        timeZone: properties.ScheduleExpressionTimezone,
        startAt: StartDate === undefined ? undefined : new Date(StartDate),
        endAt: EndDate === undefined ? undefined : new Date(EndDate),
        target: {
          arn: Target.Arn,
          input: Target.Input,
          deadLetterArn: Target.DeadLetterConfig?.Arn,
          retryPolicy: {
            maximumRetryAttempts: Target.RetryPolicy.MaximumRetryAttempts,
            maximumEventAgeSeconds: Target.RetryPolicy.MaximumEventAgeInSeconds,
          },
          roleName: roleNamed(logicalId, Target.RoleArn),
        },
      };
    }),
    topics: all('AWS::SNS::Topic').map(({ logicalId, name, arn, properties: { KmsMasterKeyId: id } }) => ({
      logicalId,
      name,
      arn,
      keyArn: keys.find((key) => key.arn === id || key.ref === id)?.arn,
    })),
    subscriptions: all('AWS::SNS::Subscription').map(({ logicalId, properties }) => ({
      logicalId,
      topicArn: properties.TopicArn,
      protocol: properties.Protocol,
      endpoint: properties.Endpoint,
      isRaw: properties.RawMessageDelivery,
    })),
    alarms: all('AWS::CloudWatch::Alarm').map(({ logicalId, name, arn, properties }) => ({
      logicalId,
      name,
      arn,
      description: properties.AlarmDescription,
      namespace: properties.Namespace,
      metricName: properties.MetricName,
      dimensions: Object.fromEntries(properties.Dimensions.map(({ Name, Value }) => [Name, Value])),
      statistic: properties.Statistic,
      periodSeconds: properties.Period,
      evaluationPeriods: properties.EvaluationPeriods,
      datapointsToAlarm: properties.DatapointsToAlarm,
      threshold: properties.Threshold,
      comparison: properties.ComparisonOperator,
      treatMissingData: properties.TreatMissingData,
      alarmActions: properties.AlarmActions,
      okActions: properties.OKActions,
      insufficientDataActions: properties.InsufficientDataActions,
    })),
    parameters: all('AWS::SSM::Parameter').map(({ logicalId, name, properties }) => ({
      logicalId,
      name,
      value: properties.Value,
    })),
    secrets: secrets.map(({ logicalId, name, arn, properties }) => ({
      logicalId,
      name,
      arn,
      secretString: properties.SecretString,
      description: properties.Description,
    })),
    rotations: all('AWS::SecretsManager::RotationSchedule').map(({ properties }) => ({
      secretName: secrets.find(({ arn }) => arn === properties.SecretId)?.name ?? properties.SecretId,
      functionArn: properties.RotationLambdaARN,
      rules: {
        automaticallyAfterDays: properties.RotationRules.AutomaticallyAfterDays,
        scheduleExpression: properties.RotationRules.ScheduleExpression,
        duration: properties.RotationRules.Duration,
      },
      rotateImmediately: properties.RotateImmediatelyOnUpdate,
    })),
    policies: [
      ...rolePolicies,
      ...roles.flatMap(({ logicalId, arn: resource, properties: { AssumeRolePolicyDocument: document } }) =>
        document === undefined ? [] : [{ name: `${logicalId}.AssumeRole`, of: { resource }, document }],
      ),
      ...all('AWS::S3::BucketPolicy').map(({ logicalId: name, properties }) => ({
        name,
        of: { resource: `arn:aws:s3:::${properties.Bucket}` },
        document: properties.PolicyDocument,
      })),
      ...all('AWS::SQS::QueuePolicy').flatMap(({ logicalId, properties }) =>
        properties.Queues.map((url) => ({
          name: properties.Queues.length === 1 ? logicalId : `${logicalId}.${url.split('/').at(-1)}`,
          of: { resource: queues.find(({ ref }) => ref === url)?.arn ?? url },
          document: properties.PolicyDocument,
        })),
      ),
      ...all('AWS::SNS::TopicPolicy').flatMap(({ logicalId, properties }) =>
        properties.Topics.map((resource) => ({
          name: properties.Topics.length === 1 ? logicalId : `${logicalId}.${resource.split(':').at(-1)}`,
          of: { resource },
          document: properties.PolicyDocument,
        })),
      ),
      ...keys.flatMap(({ logicalId: name, arn: resource, properties: { KeyPolicy: document } }) =>
        document === undefined ? [] : [{ name, of: { resource }, document }],
      ),
      ...functions.flatMap(({ logicalId, arn: resource }) => {
        const Statement = permissions
          .filter((permission) => permission.functionArn === resource)
          .map(asStatement);
        const document = { Version: '2012-10-17', Statement };
        return Statement.length === 0
          ? []
          : [{ name: `${logicalId}.Permissions`, of: { resource }, document }];
      }),
    ],
    permissions,
    unknown: present
      .filter(([, { Type }]) => !Object.hasOwn(schemas, Type) && !withoutEffect.includes(Type))
      .map(([logicalId, { Type }]) => ({ logicalId, type: Type })),
  };
}

/** As Lambda keeps it, in a policy of the function (AWS documentation). */
const asStatement = (permission: PermissionRecord) => ({
  Sid: permission.logicalId,
  Effect: 'Allow' as const,
  Principal: { Service: permission.principal },
  Action: permission.action,
  Resource: permission.functionArn,
  Condition: {
    ...(permission.sourceAccount === undefined
      ? {}
      : { StringEquals: { 'AWS:SourceAccount': permission.sourceAccount } }),
    ...(permission.sourceArn === undefined ? {} : { ArnLike: { 'AWS:SourceArn': permission.sourceArn } }),
  },
});

const toStatement = ({
  Sid,
  Effect,
  Action,
  Resource,
  Condition,
}: z.output<typeof policySchema>['Statement'][number]): RoleStatement => ({
  sid: Sid,
  effect: Effect,
  actions: Action,
  resources: Resource,
  conditions: Condition,
});

const digest = (text: string, length: number): string =>
  createHash('sha256').update(text).digest('hex').slice(0, length);
