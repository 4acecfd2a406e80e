import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import * as z from 'zod';
import { AwsError } from './aws-error.ts';
import {
  type Authorization,
  type AwsService,
  authorizationsBy,
  operation,
  serveOperation,
} from './service.ts';

/** A table with a partition key and a sort key, both texts. */
export interface TableRecord {
  readonly name: string;
  readonly partitionKey: string;
  readonly sortKey: string;
}

export interface TablesOptions {
  readonly account: string;
  readonly region: string;
  readonly tables: readonly TableRecord[];
}

const attribute = z.union([z.strictObject({ S: z.string() }), z.strictObject({ N: z.string() })]);
type Attribute = z.output<typeof attribute>;
const item = z.record(z.string(), attribute);
type Item = z.output<typeof item>;
const expressions = {
  ExpressionAttributeNames: z.record(z.string().startsWith('#'), z.string()).optional(),
  ExpressionAttributeValues: z.record(z.string().startsWith(':'), attribute).optional(),
};
const TableName = z.string().min(1);

/** The calls that have a meaning here. Another member of an input is refused, so that none is ignored in silence. */
const schemas = {
  GetItem: z.strictObject({ TableName, Key: item, ConsistentRead: z.boolean().optional() }),
  Query: z.strictObject({
    TableName,
    ConsistentRead: z.boolean().optional(),
    KeyConditionExpression: z.string(),
    ...expressions,
    ExclusiveStartKey: item.optional(),
  }),
  PutItem: z.strictObject({
    TableName,
    Item: item,
    ConditionExpression: z.string().optional(),
    ...expressions,
  }),
  DeleteItem: z.strictObject({
    TableName,
    Key: item,
    ReturnValues: z.enum(['NONE', 'ALL_OLD']).optional(),
    ConditionExpression: z.string().optional(),
    ...expressions,
  }),
};
type Input<Operation extends keyof typeof schemas> = z.output<(typeof schemas)[Operation]>;

const textOf = (value: Attribute | undefined): string =>
  value === undefined ? '' : 'S' in value ? value.S : value.N;

/** What every stand-in of DynamoDB says of itself, and what a call asks of its caller's policies. */
function serviceOf({ account, region, tables }: TablesOptions): Omit<AwsService, 'call'> {
  /** The values of the partition key that a call is about are all that a policy can be about (AWS documentation). */
  const on = (action: string, tableName: string, partition: (key: string) => string): Authorization[] => {
    const table = tables.find(({ name }) => name === tableName);
    return [
      {
        action: `dynamodb:${action}`,
        resource: `arn:aws:dynamodb:${region}:${account}:table/${tableName}`,
        context: table === undefined ? {} : { 'dynamodb:LeadingKeys': [partition(table.partitionKey)] },
      },
    ];
  };
  return {
    name: 'dynamodb',
    targetPrefix: 'DynamoDB_20120810',
    messageKey: 'message',
    internalErrorName: 'InternalServerError',
    authorizations: authorizationsBy(schemas, {
      GetItem: (input) => on('GetItem', input.TableName, (key) => textOf(input.Key[key])),
      Query: (input) => on('Query', input.TableName, () => textOf(queriedPartition(input).value)),
      PutItem: (input) => on('PutItem', input.TableName, (key) => textOf(input.Item[key])),
      DeleteItem: (input) => on('DeleteItem', input.TableName, (key) => textOf(input.Key[key])),
    }),
  };
}

/** `#name = :value`, which is all that a query asks here. */
function queriedPartition(input: Input<'Query'>): { name: string; value: Attribute | undefined } {
  const [, name = '', value = ''] = /^(#\w+) = (:\w+)$/.exec(input.KeyConditionExpression) ?? [];
  return {
    name: input.ExpressionAttributeNames?.[name] ?? '',
    value: input.ExpressionAttributeValues?.[value],
  };
}

export interface Dynalite {
  readonly service: AwsService;
  addTable(table: TableRecord): Promise<void>;
  /** Afterwards nothing listens any more. */
  stop(): Promise<void>;
}

/** DynamoDB as dynalite plays it, on a loopback socket. It knows no clock but its own: it lets nothing expire. */
export async function startDynalite(options: Omit<TablesOptions, 'tables'>): Promise<Dynalite> {
  const { default: dynalite } = await import('dynalite');
  const server = dynalite({ createTableMs: 0 });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const tables: TableRecord[] = [];
  const service = serviceOf({ ...options, tables });

  async function call(operationName: string, input: unknown): Promise<unknown> {
    const response = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/x-amz-json-1.0',
        'x-amz-target': `${service.targetPrefix}.${operationName}`,
        // It wants a signature, and looks into none.
        'x-amz-date': '20260301T120000Z',
        authorization:
          'AWS4-HMAC-SHA256 Credential=local/20260301/local/dynamodb/aws4_request, SignedHeaders=host, Signature=none',
      },
      body: JSON.stringify(input),
    });
    const answer = (await response.json()) as { readonly __type?: string; readonly message?: string };
    if (response.ok) return answer;
    throw new AwsError(
      answer.__type?.replace(/^.*#/, '') ?? service.internalErrorName,
      answer.message ?? '',
      response.status,
    );
  }
  async function addTable(table: TableRecord): Promise<void> {
    const { name, partitionKey, sortKey } = table;
    await call('CreateTable', {
      TableName: name,
      BillingMode: 'PAY_PER_REQUEST',
      AttributeDefinitions: [partitionKey, sortKey].map((key) => ({
        AttributeName: key,
        AttributeType: 'S',
      })),
      KeySchema: [
        { AttributeName: partitionKey, KeyType: 'HASH' },
        { AttributeName: sortKey, KeyType: 'RANGE' },
      ],
    });
    const isActive = async (): Promise<boolean> => {
      const { Table } = (await call('DescribeTable', { TableName: name })) as {
        readonly Table: { readonly TableStatus: string };
      };
      return Table.TableStatus === 'ACTIVE';
    };
    while (!(await isActive()));
    tables.push(table);
  }
  return {
    service: { ...service, call },
    addTable,
    async stop() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}

// In memory.

/** A page of a query (AWS documentation). */
const maxPageBytes = 1_048_576;
/** An item with the names of its attributes (AWS documentation). */
const maxItemBytes = 409_600;

const sizeOf = (stored: Item): number =>
  Object.entries(stored).reduce(
    (sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(textOf(value)),
    0,
  );

/**
 * As much of DynamoDB as the notes of passes use, in this process, for worlds that live through many days in a second. What it shares
 * with dynalite is shown by one suite for both: test/aws/notes.test.ts.
 */
export function createTables(options: TablesOptions): AwsService {
  const items = new Map(options.tables.map(({ name }) => [name, new Map<string, Map<string, Item>>()]));
  const tableOf = (name: string) => {
    const record = options.tables.find((each) => each.name === name);
    const partitions = items.get(name);
    if (record === undefined || partitions === undefined)
      throw new AwsError('ResourceNotFoundException', 'Requested resource not found');
    return { ...record, partitions };
  };
  const placeOf = (tableName: string, key: Item) => {
    const { partitionKey, sortKey, partitions } = tableOf(tableName);
    const [partition, sort] = [textOf(key[partitionKey]), textOf(key[sortKey])];
    if (partition === '' || sort === '')
      throw new AwsError('ValidationException', 'One or more parameter values are not valid');
    return { rows: partitions.get(partition) ?? new Map<string, Item>(), partitions, partition, sort };
  };
  const holds = (
    {
      ConditionExpression,
      ExpressionAttributeNames,
      ExpressionAttributeValues,
    }: Pick<
      Input<'PutItem'>,
      'ConditionExpression' | 'ExpressionAttributeNames' | 'ExpressionAttributeValues'
    >,
    stored: Item | undefined,
  ): boolean => {
    const terms = ConditionExpression?.split(' OR ') ?? [];
    return (
      terms.length === 0 ||
      terms.some((term) => {
        const [, absent] = /^attribute_not_exists\((#\w+)\)$/.exec(term) ?? [];
        if (absent !== undefined) return stored?.[ExpressionAttributeNames?.[absent] ?? ''] === undefined;
        const [, name = '', comparison, value = ''] = /^(#\w+) (=|<=) (:\w+)$/.exec(term) ?? [];
        if (comparison === undefined)
          throw new AwsError('ValidationException', `Invalid ConditionExpression: ${term}`);
        const left = stored?.[ExpressionAttributeNames?.[name] ?? ''];
        const right = ExpressionAttributeValues?.[value];
        if (left === undefined || right === undefined) return false;
        return comparison === '='
          ? textOf(left) === textOf(right)
          : Number(textOf(left)) <= Number(textOf(right));
      })
    );
  };
  const assertHolds = (input: Parameters<typeof holds>[0], stored: Item | undefined): void => {
    if (!holds(input, stored))
      throw new AwsError('ConditionalCheckFailedException', 'The conditional request failed');
  };
  const operations = {
    GetItem: operation(schemas.GetItem, ({ TableName: table, Key }) => {
      const { rows, sort } = placeOf(table, Key);
      const Item = rows.get(sort);
      return Item === undefined ? {} : { Item };
    }),
    Query: operation(schemas.Query, (input) => {
      const { partitionKey, sortKey, partitions } = tableOf(input.TableName);
      const { name, value } = queriedPartition(input);
      if (name !== partitionKey)
        throw new AwsError('ValidationException', 'Query condition missed key schema element');
      const rows = [...(partitions.get(textOf(value)) ?? [])].toSorted(([one], [other]) =>
        Buffer.compare(Buffer.from(one), Buffer.from(other)),
      );
      const after = input.ExclusiveStartKey?.[sortKey];
      const left = after === undefined ? rows : rows.filter(([key]) => key > textOf(after));
      const Items: Item[] = [];
      let bytes = 0;
      for (const [key, stored] of left) {
        Items.push(stored);
        bytes += sizeOf(stored);
        if (bytes > maxPageBytes)
          return { Items, LastEvaluatedKey: { [partitionKey]: value, [sortKey]: { S: key } } };
      }
      return { Items };
    }),
    PutItem: operation(schemas.PutItem, (input) => {
      const { rows, partitions, partition, sort } = placeOf(input.TableName, input.Item);
      if (sizeOf(input.Item) > maxItemBytes)
        throw new AwsError('ValidationException', 'Item size has exceeded the maximum allowed size');
      assertHolds(input, rows.get(sort));
      partitions.set(partition, rows.set(sort, input.Item));
      return {};
    }),
    DeleteItem: operation(schemas.DeleteItem, ({ TableName: table, Key, ReturnValues, ...condition }) => {
      const { rows, sort } = placeOf(table, Key);
      const Attributes = rows.get(sort);
      assertHolds(condition, Attributes);
      rows.delete(sort);
      return Attributes === undefined || ReturnValues !== 'ALL_OLD' ? {} : { Attributes };
    }),
  };
  return {
    ...serviceOf(options),
    call: (name, input, context) => serveOperation(operations, name, input, context),
  };
}
