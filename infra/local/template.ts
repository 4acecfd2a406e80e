import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { holds, noValue, type References, resolveIntrinsics } from './intrinsics.ts';

export interface TemplateOptions {
  /** Twelve digits. */
  readonly account: string;
  readonly region: string;
  /** The ARN under which a secret will exist, random suffix included. @default a suffix derived from the name */
  readonly secretArn?: (name: string) => string;
}

/** What the synthesized stack would be after a deployment, every reference resolved. */
export interface LocalStack {
  readonly functions: readonly FunctionRecord[];
  readonly buses: readonly { readonly logicalId: string; readonly name: string; readonly arn: string }[];
  readonly rules: readonly RuleRecord[];
  readonly queues: readonly {
    readonly logicalId: string;
    readonly name: string;
    readonly arn: string;
    readonly url: string;
  }[];
  readonly parameters: readonly {
    readonly logicalId: string;
    readonly name: string;
    readonly value: string;
  }[];
  readonly secrets: readonly SecretRecord[];
  readonly rotations: readonly RotationRecord[];
  readonly permissions: readonly PermissionRecord[];
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
const arn = z.string().startsWith('arn:');
const schemas = {
  'AWS::Lambda::Function': z.object({
    Code: z.object({ S3Key: z.string() }),
    Handler: z.string(),
    Role: arn,
    Environment: z.object({ Variables: z.record(z.string(), z.string()) }).default({ Variables: {} }),
    Timeout: z.number().default(3),
    MemorySize: z.number().default(128),
  }),
  'AWS::Lambda::EventInvokeConfig': z.object({
    FunctionName: z.string(),
    MaximumRetryAttempts: z.number().default(2),
    DestinationConfig: z.object({ OnFailure: z.object({ Destination: arn }).optional() }).default({}),
  }),
  'AWS::Lambda::Permission': z.object({
    FunctionName: z.string(),
    Action: z.string(),
    Principal: z.string(),
    SourceAccount: z.string().optional(),
    SourceArn: z.string().optional(),
  }),
  'AWS::IAM::Role': z.object({
    Policies: z.array(z.object({ PolicyDocument: policySchema })).default([]),
    ManagedPolicyArns: z
      .array(z.string())
      .max(0, 'managed policies are not part of the template')
      .default([]),
  }),
  'AWS::IAM::Policy': z.object({ PolicyDocument: policySchema, Roles: z.array(z.string()).default([]) }),
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
  'AWS::SQS::Queue': z.object({ QueueName: z.string().optional() }),
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

/** Of no consequence here: logs go to the screen, and nobody but our own processes reaches the queues. */
const withoutEffect: readonly string[] = [
  'AWS::Logs::LogGroup',
  'AWS::SQS::QueuePolicy',
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
  { account, region, secretArn }: TemplateOptions,
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
      case 'AWS::SQS::Queue': {
        const name = property('QueueName', generated);
        const url = `https://sqs.${region}.amazonaws.com/${account}/${name}`;
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

  const statementsOfRole = new Map<string, readonly RoleStatement[]>();
  const policies = all('AWS::IAM::Policy');
  for (const { name, arn, properties } of all('AWS::IAM::Role'))
    statementsOfRole.set(
      arn,
      [
        ...properties.Policies,
        ...policies
          .filter((policy) => policy.properties.Roles.includes(name))
          .map((policy) => policy.properties),
      ].flatMap(({ PolicyDocument }) => PolicyDocument.Statement.map(toStatement)),
    );
  const asyncConfigs = all('AWS::Lambda::EventInvokeConfig');
  const functionArn = (nameOrArn: string) =>
    nameOrArn.startsWith('arn:') ? nameOrArn : arnOf('lambda', `function:${nameOrArn}`);
  const secrets = all('AWS::SecretsManager::Secret');

  return {
    functions: all('AWS::Lambda::Function').map(({ logicalId, name, arn, properties }) => {
      const directory = assets.get(properties.Code.S3Key);
      const roleStatements = statementsOfRole.get(properties.Role);
      if (directory === undefined)
        throw new Error(`Resources.${logicalId}: no asset is called ${properties.Code.S3Key}`);
      if (roleStatements === undefined)
        throw new Error(`Resources.${logicalId}: no role here is ${properties.Role}`);
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
        roleStatements,
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
    queues: all('AWS::SQS::Queue').map(({ logicalId, name, arn, ref }) => ({
      logicalId,
      name,
      arn,
      url: ref,
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
    permissions: all('AWS::Lambda::Permission').map(({ properties }) => ({
      functionArn: functionArn(properties.FunctionName),
      action: properties.Action,
      principal: properties.Principal,
      sourceAccount: properties.SourceAccount,
      sourceArn: properties.SourceArn,
    })),
    unknown: present
      .filter(([, { Type }]) => !Object.hasOwn(schemas, Type) && !withoutEffect.includes(Type))
      .map(([logicalId, { Type }]) => ({ logicalId, type: Type })),
  };
}

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
