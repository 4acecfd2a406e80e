import { createHash } from 'node:crypto';
import * as z from 'zod';
import type { Clock } from '../clock.ts';
import { AwsError } from './aws-error.ts';
import { pageOf } from './paging.ts';
import {
  type Authorization,
  type AwsService,
  authorizationsBy,
  epochSeconds,
  operation,
  serveOperation,
} from './service.ts';

type ParameterType = 'String' | 'StringList' | 'SecureString';
type Tier = 'Standard' | 'Advanced';

interface ParameterVersion {
  readonly version: number;
  readonly value: string;
  readonly modifiedAt: Date;
}

interface Parameter {
  readonly name: string;
  readonly type: ParameterType;
  tier: Tier;
  dataType: string;
  description?: string;
  allowedPattern?: string;
  /** Oldest first. */
  readonly versions: ParameterVersion[];
}

const name = z.string().min(1).max(2048);
const names = z.array(name).min(1).max(10);
const filters = z
  .array(
    z.object({
      Key: z.string().regex(/^(tag:.+|Name|Type|KeyId|Path|Label|Tier|DataType)$/),
      Option: z.string().min(1).max(10).optional(),
      Values: z.array(z.string().min(1).max(1024)).min(1).max(50).optional(),
    }),
  )
  .optional();

const schemas = {
  PutParameter: z.object({
    Name: name,
    Value: z.string(),
    Description: z.string().max(1024).optional(),
    Type: z.enum(['String', 'StringList', 'SecureString']).optional(),
    Overwrite: z.boolean().optional(),
    AllowedPattern: z.string().max(1024).optional(),
    Tags: z.array(z.object({ Key: z.string(), Value: z.string() })).optional(),
    Tier: z.enum(['Standard', 'Advanced', 'Intelligent-Tiering']).optional(),
    DataType: z.string().max(128).optional(),
  }),
  GetParameter: z.object({ Name: name, WithDecryption: z.boolean().optional() }),
  GetParameters: z.object({ Names: names, WithDecryption: z.boolean().optional() }),
  GetParametersByPath: z.object({
    Path: name,
    Recursive: z.boolean().optional(),
    ParameterFilters: filters,
    WithDecryption: z.boolean().optional(),
    MaxResults: z.int().min(1).max(10).optional(),
    NextToken: z.string().optional(),
  }),
  DeleteParameter: z.object({ Name: name }),
  DeleteParameters: z.object({ Names: names }),
  DescribeParameters: z.object({
    ParameterFilters: filters,
    MaxResults: z.int().min(1).max(50).optional(),
    NextToken: z.string().optional(),
  }),
} as const;

type Filters = z.output<typeof filters>;

// AWS sends this error without a text.
const notFound = () => new AwsError('ParameterNotFound', '');
const invalid = (message: string) => new AwsError('ValidationException', message);

const sizeLimits = { Standard: 4096, Advanced: 8192 } as const;
const countLimits = { Standard: 10_000, Advanced: 100_000 } as const;
const versionLimit = 100;

function checkName(text: string): void {
  if (!/^[a-zA-Z0-9_.\-/]+$/.test(text))
    throw invalid(
      'Parameter name: can only contain the following letters, numbers and symbols: a-zA-Z0-9_.-/',
    );
  if (text.includes('/') && !text.startsWith('/'))
    throw invalid('Parameter name must be a fully qualified name.');
  if (/^\/?(aws|ssm)/i.test(text))
    throw invalid('Parameter name: can\'t be prefixed with "aws" or "ssm" (case-insensitive).');
  if (text.split('/').length - 1 > 15)
    throw new AwsError(
      'HierarchyLevelLimitExceededException',
      'A hierarchy can have a maximum of 15 levels.',
    );
}

function tierFor(value: string, asked: 'Standard' | 'Advanced' | 'Intelligent-Tiering'): Tier {
  const bytes = Buffer.byteLength(value);
  const tier =
    asked !== 'Intelligent-Tiering' ? asked : bytes > sizeLimits.Standard ? 'Advanced' : 'Standard';
  if (bytes <= sizeLimits[tier]) return tier;
  throw invalid(
    tier === 'Standard'
      ? 'Standard tier parameters support a maximum parameter value of 4096 characters. To create a larger parameter value, upgrade the parameter to use the advanced-parameter tier.'
      : 'Advanced tier parameters support a maximum parameter value of 8192 characters.',
  );
}

/** The first text is recorded (pulumi/docs#11478), the second is what the SDK's model says of the error. */
const limitExceeded = (tier: Tier) =>
  new AwsError(
    'ParameterLimitExceeded',
    tier === 'Standard'
      ? `You have reached the maximum number of standard parameters for this AWS account and Region (${countLimits.Standard}). To add more parameters, either delete existing parameters or upgrade to the advanced-parameter tier (charges apply).`
      : 'You have exceeded the number of parameters for this Amazon Web Services account. Delete one or more parameters and try again.',
  );

const invalidToken = () => new AwsError('InvalidNextToken', 'The specified token is not valid.');

function matches(parameter: Parameter, asked: Filters): boolean {
  return (asked ?? []).every(({ Key, Option = Key === 'Path' ? 'OneLevel' : 'Equals', Values = [] }) => {
    const facts: Readonly<Record<string, string>> = {
      Name: parameter.name,
      Path: parameter.name,
      Type: parameter.type,
      Tier: parameter.tier,
      DataType: parameter.dataType,
    };
    const fact = facts[Key];
    if (fact === undefined)
      throw new AwsError('InvalidFilterKey', `The filter key ${Key} is not served here.`);
    switch (Option) {
      case 'Equals':
        return Values.includes(fact);
      case 'BeginsWith':
        return Values.some((value) => fact.startsWith(value));
      case 'Contains':
        return Values.some((value) => fact.includes(value));
      case 'OneLevel':
      case 'Recursive':
        return Values.some((value) => isUnder(fact, value, Option === 'Recursive'));
      default:
        throw new AwsError('InvalidFilterOption', `The filter option ${Option} is not valid.`);
    }
  });
}

function isUnder(text: string, path: string, isRecursive: boolean): boolean {
  const base = path.endsWith('/') ? path : `${path}/`;
  return text.startsWith(base) && (isRecursive || !text.slice(base.length).includes('/'));
}

/** Names in their order, kept as they come and go: a page costs what is on it, however many others there are. */
function createNameIndex() {
  const sorted: string[] = [];
  /** The first place whose name is not before `text`. */
  const placeOf = (text: string): number => {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sorted[middle] ?? '') < text) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return {
    add: (added: string) => void sorted.splice(placeOf(added), 0, added),
    delete: (deleted: string) => void sorted.splice(placeOf(deleted), 1),
    all: (): readonly string[] => sorted,
    startingWith(base: string): readonly string[] {
      // No name has a character after this one.
      return sorted.slice(placeOf(base), placeOf(`${base}\uffff`));
    },
  };
}

export interface ParametersOptions {
  /** Twelve digits. */
  readonly account: string;
  readonly region: string;
  readonly clock: Clock;
  /**
   * The tier of a new parameter for which the caller names none: a setting of the account. Under Intelligent-Tiering the standard tier
   * is filled first (AWS documentation).
   * @default 'Standard'
   */
  readonly defaultTier?: 'Standard' | 'Advanced' | 'Intelligent-Tiering';
}

/** SSM Parameter Store in memory. */
export function createParameters({
  account,
  region,
  clock,
  defaultTier = 'Standard',
}: ParametersOptions): AwsService {
  const parameters = new Map<string, Parameter>();
  const index = createNameIndex();
  const counts: Record<Tier, number> = { Standard: 0, Advanced: 0 };
  const arnOf = (parameterName: string) =>
    `arn:aws:ssm:${region}:${account}:parameter/${parameterName.replace(/^\//, '')}`;

  /** A version is chosen behind a colon, which no ARN of a policy has. */
  const about = (
    operationName: keyof typeof schemas,
    reference: string,
    context?: Authorization['context'],
  ): Authorization => ({
    action: `ssm:${operationName}`,
    resource: arnOf(reference.replace(/^arn:.*:parameter/, '').replace(/:[^:]*$/, '')),
    ...(context === undefined ? {} : { context }),
  });

  /** `name`, `name:version` or an ARN. */
  function find(reference: string): { parameter: Parameter; version: ParameterVersion; selector?: string } {
    const plain = reference.replace(/^arn:[^:]+:ssm:[^:]*:[^:]*:parameter/, '');
    const [bare = '', selector] = plain.split(':');
    const parameter =
      parameters.get(bare) ?? (plain !== reference ? parameters.get(bare.slice(1)) : undefined);
    if (parameter === undefined) throw notFound();
    const version =
      selector === undefined
        ? parameter.versions.at(-1)
        : parameter.versions.find((each) => String(each.version) === selector);
    if (version === undefined)
      throw new AwsError(
        'ParameterVersionNotFound',
        `Systems Manager could not find version ${selector} of ${bare}. Verify the version and try again.`,
      );
    return { parameter, version, ...(selector !== undefined && { selector: `:${selector}` }) };
  }

  function shown(
    { parameter, version, selector }: ReturnType<typeof find>,
    withDecryption: boolean | undefined,
  ) {
    const isHidden = parameter.type === 'SecureString' && !withDecryption;
    return {
      Name: parameter.name,
      Type: parameter.type,
      // Not the real cipher; only never the value itself.
      Value: isHidden ? createHash('sha256').update(version.value).digest('base64') : version.value,
      Version: version.version,
      Selector: selector,
      LastModifiedDate: epochSeconds(version.modifiedAt),
      ARN: arnOf(parameter.name),
      DataType: parameter.dataType,
    };
  }

  const isFull = (tier: Tier): boolean => counts[tier] >= countLimits[tier];

  function remove(removed: string): boolean {
    const parameter = parameters.get(removed);
    if (parameter === undefined) return false;
    counts[parameter.tier] -= 1;
    index.delete(removed);
    return parameters.delete(removed);
  }

  function put(input: z.output<(typeof schemas)['PutParameter']>) {
    checkName(input.Name);
    if (input.Value === '') throw invalid('Parameter value must not be empty.');
    const existing = parameters.get(input.Name);
    if (existing !== undefined && !input.Overwrite)
      throw new AwsError(
        'ParameterAlreadyExists',
        'The parameter already exists. To overwrite this value, set the overwrite option in the request to true.',
      );
    if (input.Overwrite && input.Tags !== undefined)
      throw invalid("Invalid request: tags and overwrite can't be used together.");
    const type = input.Type ?? existing?.type;
    if (type === undefined) throw invalid('A parameter type is required when you create a parameter.');
    if (existing !== undefined && existing.type !== type)
      throw new AwsError('HierarchyTypeMismatchException', 'A parameter cannot change its type.');
    const asked = input.Tier ?? existing?.tier ?? defaultTier;
    const fitting = tierFor(input.Value, asked);
    const tier =
      asked === 'Intelligent-Tiering' && existing?.tier !== fitting && isFull(fitting) ? 'Advanced' : fitting;
    if (existing?.tier === 'Advanced' && tier === 'Standard')
      throw invalid(
        "This parameter uses the advanced-parameter tier. You can't downgrade it to the standard tier.",
      );
    if (tier !== existing?.tier && isFull(tier)) throw limitExceeded(tier);
    const allowed = input.AllowedPattern ?? existing?.allowedPattern;
    if (allowed && !new RegExp(allowed).test(input.Value))
      throw new AwsError(
        'ParameterPatternMismatchException',
        'Parameter value, cannot be validated against allowedPattern',
      );
    const parameter: Parameter = existing ?? { name: input.Name, type, tier, dataType: 'text', versions: [] };
    if (existing !== undefined) counts[existing.tier] -= 1;
    else index.add(input.Name);
    counts[tier] += 1;
    parameter.tier = tier;
    if (input.DataType !== undefined) parameter.dataType = input.DataType;
    if (input.Description !== undefined) parameter.description = input.Description;
    if (allowed !== undefined) parameter.allowedPattern = allowed;
    const version = (parameter.versions.at(-1)?.version ?? 0) + 1;
    parameter.versions.push({ version, value: input.Value, modifiedAt: clock.now() });
    if (parameter.versions.length > versionLimit) parameter.versions.shift();
    parameters.set(input.Name, parameter);
    return { Version: version, Tier: tier };
  }

  const named = (names: readonly string[]): readonly Parameter[] =>
    names.flatMap((each) => parameters.get(each) ?? []);

  function getMany({ Names, WithDecryption }: z.output<(typeof schemas)['GetParameters']>) {
    const results = Names.map((reference) => {
      try {
        return { found: shown(find(reference), WithDecryption) };
      } catch (error) {
        if (!(error instanceof AwsError)) throw error;
        return { missing: reference };
      }
    });
    return {
      Parameters: results.flatMap(({ found }) => found ?? []),
      InvalidParameters: results.flatMap(({ missing }) => missing ?? []),
    };
  }

  const operations = {
    PutParameter: operation(schemas.PutParameter, put),
    GetParameter: operation(schemas.GetParameter, ({ Name, WithDecryption }) => ({
      Parameter: shown(find(Name), WithDecryption),
    })),
    GetParameters: operation(schemas.GetParameters, getMany),
    GetParametersByPath: operation(schemas.GetParametersByPath, (input) => {
      if (!input.Path.startsWith('/'))
        throw invalid('The parameter path must be a hierarchy that begins with a forward slash.');
      const { Path, Recursive = false, ParameterFilters } = input;
      const below = index.startingWith(Path.endsWith('/') ? Path : `${Path}/`);
      const isWhole = Recursive && ParameterFilters === undefined;
      const found = isWhole
        ? below
        : named(below)
            .filter((each) => isUnder(each.name, Path, Recursive) && matches(each, ParameterFilters))
            .map((each) => each.name);
      const { items, NextToken } = pageOf(found, {
        limit: input.MaxResults ?? 10,
        nextToken: input.NextToken,
        refuse: invalidToken,
      });
      return {
        Parameters: items.map((each) => shown(find(each), input.WithDecryption)),
        NextToken,
      };
    }),
    DeleteParameter: operation(schemas.DeleteParameter, ({ Name }) => {
      if (!remove(Name)) throw notFound();
      return {};
    }),
    DeleteParameters: operation(schemas.DeleteParameters, ({ Names }) => {
      const DeletedParameters = Names.filter(remove);
      return {
        DeletedParameters,
        InvalidParameters: Names.filter((each) => !DeletedParameters.includes(each)),
      };
    }),
    DescribeParameters: operation(schemas.DescribeParameters, (input) => {
      const found = named(index.all()).filter((each) => matches(each, input.ParameterFilters));
      const { items, NextToken } = pageOf(found, {
        limit: input.MaxResults ?? 50,
        nextToken: input.NextToken,
        refuse: invalidToken,
      });
      const Parameters = items.map((parameter) => {
        const latest = parameter.versions.at(-1);
        return {
          Name: parameter.name,
          ARN: arnOf(parameter.name),
          Type: parameter.type,
          LastModifiedDate: latest && epochSeconds(latest.modifiedAt),
          Description: parameter.description,
          Version: latest?.version,
          Tier: parameter.tier,
          DataType: parameter.dataType,
        };
      });
      return { Parameters, NextToken };
    }),
  };

  return {
    name: 'ssm',
    targetPrefix: 'AmazonSSM',
    messageKey: 'message',
    internalErrorName: 'InternalServerError',
    authorizations: authorizationsBy(schemas, {
      // Whether AWS has the key where the caller leaves the option out is not documented: without it, a policy that needs it shows here.
      PutParameter: ({ Name, Overwrite }) => [
        about(
          'PutParameter',
          Name,
          Overwrite === undefined ? undefined : { 'ssm:Overwrite': String(Overwrite) },
        ),
      ],
      GetParameter: ({ Name }) => [about('GetParameter', Name)],
      GetParameters: ({ Names }) => Names.map((each) => about('GetParameters', each)),
      // The path as it was asked for: a policy for what lies below it is none for the path (AWS documentation).
      GetParametersByPath: ({ Path }) => [about('GetParametersByPath', Path)],
      DeleteParameter: ({ Name }) => [about('DeleteParameter', Name)],
      DeleteParameters: ({ Names }) => Names.map((each) => about('DeleteParameters', each)),
      DescribeParameters: () => [{ action: 'ssm:DescribeParameters', resource: '*' }],
    }),
    call: (operationName, input, context) => serveOperation(operations, operationName, input, context),
  };
}
