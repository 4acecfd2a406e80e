import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { describe, expect, onTestFinished, test } from 'vitest';
import { noteTable } from '../../functions/aws/notes.ts';
import { type AwsCall, type Fault, startAwsEndpoint } from '../../infra/local/aws/endpoint.ts';
import type { AwsService } from '../../infra/local/aws/service.ts';
import { createTables, startDynalite, type TablesOptions } from '../../infra/local/aws/tables.ts';
import { rejectionOf } from './support.ts';

const options: TablesOptions = {
  account: '111122223333',
  region: 'eu-central-1',
  tables: [{ name: 'rekey', partitionKey: 'place', sortKey: 'key' }],
};
const hourMs = 3_600_000;

/** The stand-ins of DynamoDB that there are: what one of them does, the other does as well. */
const standIns: Readonly<Record<string, () => Promise<AwsService>>> = {
  dynalite: async () => {
    const { service, addTable, stop } = await startDynalite(options);
    onTestFinished(stop);
    for (const table of options.tables) await addTable(table);
    return service;
  },
  'the one in memory': async () => createTables(options),
};

describe.each(Object.entries(standIns))('the notes of passes in %s', (_name, startService) => {
  /** The ports on the real SDK, over the wire. */
  async function start({ maxAttempts = 1 } = {}) {
    let now = new Date('2026-03-01T12:00:00Z');
    const faults: { readonly operation: string; readonly fault: Fault }[] = [];
    const calls: AwsCall[] = [];
    const endpoint = await startAwsEndpoint({
      services: [await startService()],
      onCall: (call) => {
        calls.push(call);
        return faults[0]?.operation === call.operation ? faults.shift()?.fault : undefined;
      },
    });
    const client = new DynamoDBClient({
      endpoint: endpoint.url,
      region: options.region,
      maxAttempts,
      credentials: { accessKeyId: 'AKIDTEST', secretAccessKey: 'not-a-key' },
    });
    onTestFinished(async () => {
      client.destroy();
      await endpoint.close();
    });
    const ports = noteTable(client, 'rekey', () => now);
    const inAnHour = () => new Date(now.getTime() + hourMs);
    return {
      client,
      ports,
      calls,
      inAnHour,
      move: (ms: number) => {
        now = new Date(now.getTime() + ms);
      },
      disturb: (operation: string, fault: Fault) => faults.push({ operation, fault }),
      write: (key: string, document: string, ifRevision?: number | 'absent') =>
        ports.writeNote({
          place: 'users',
          key,
          document,
          expiresAt: inAnHour(),
          ...(ifRevision === undefined ? {} : { ifRevision }),
        }),
      read: async (key: string) => {
        const note = await ports.readNote({ place: 'users', key });
        return note === 'absent' ? note : note.document;
      },
    };
  }

  test('are read as they were written, under their place and key alone, until they are deleted', async () => {
    const { ports, write, read, inAnHour } = await start();
    const document = '{"quoted":"\\u00e9 \'\\" {}"}';
    expect(await read('zilliz-cloud/in01-1')).toBe('absent');
    expect(await write('zilliz-cloud/in01-1', document)).toBe('written');
    expect(await ports.readNote({ place: 'users', key: 'zilliz-cloud/in01-1' })).toEqual({
      key: 'zilliz-cloud/in01-1',
      document,
      revision: expect.any(Number),
      expiresAt: inAnHour(),
    });
    expect(await read('zilliz-cloud/in01-2')).toBe('absent');
    expect(await ports.readNote({ place: 'findings', key: 'zilliz-cloud/in01-1' })).toBe('absent');
    expect(await ports.deleteNote({ place: 'users', key: 'zilliz-cloud/in01-1' })).toBe('deleted');
    expect(await ports.deleteNote({ place: 'users', key: 'zilliz-cloud/in01-1' })).toBe('absent');
    expect(await read('zilliz-cloud/in01-1')).toBe('absent');
  });

  test('count as absent from the second in which they expire, however long DynamoDB keeps them', async () => {
    const { ports, write, read, move } = await start();
    await write('a', 'old');
    await write('c', 'old');
    move(hourMs - 1);
    expect(await read('a')).toBe('old');
    move(1);
    await write('b', 'new');
    expect(await read('a')).toBe('absent');
    expect((await ports.listNotes({ place: 'users' })).map(({ key }) => key)).toEqual(['b']);
    expect(await write('a', 'new', 'absent')).toBe('written');
    expect(await ports.deleteNote({ place: 'users', key: 'c' })).toBe('absent');
  });

  test('are written over by whoever gives no revision, and otherwise only where nobody else was faster', async () => {
    const { ports, write, read } = await start();
    expect(await write('a', 'one', 'absent')).toBe('written');
    expect(await write('a', 'two', 'absent')).toBe('conflict');
    expect(await read('a')).toBe('one');
    const note = await ports.readNote({ place: 'users', key: 'a' });
    const revision = note === 'absent' ? 0 : note.revision;
    expect(await write('a', 'three', revision)).toBe('written');
    expect(await write('a', 'four', revision)).toBe('conflict');
    expect(await read('a')).toBe('three');
    expect(await write('a', 'five')).toBe('written');
    expect(await read('a')).toBe('five');
    expect(await write('b', 'six', revision)).toBe('conflict');
    expect(await read('b')).toBe('absent');
  });

  test('a delete with a revision fails if the note has been written since', async () => {
    const { ports, write, read, disturb, calls } = await start({ maxAttempts: 3 });
    const address = { place: 'users', key: 'a' };
    const revisionOf = async (): Promise<number> => {
      const note = await ports.readNote(address);
      return note === 'absent' ? Number.NaN : note.revision;
    };
    await write('a', 'one');
    const ifRevision = await revisionOf();
    await write('a', 'two');
    expect(await ports.deleteNote({ ...address, ifRevision })).toBe('conflict');
    expect(await read('a')).toBe('two');
    expect(await ports.deleteNote({ ...address, ifRevision: await revisionOf() })).toBe('deleted');
    expect(await read('a')).toBe('absent');
    expect(await ports.deleteNote({ ...address, ifRevision })).toBe('absent');
    // The answer is lost, and the SDK asks again.
    await write('a', 'three');
    const last = await revisionOf();
    calls.length = 0;
    disturb('DeleteItem', { fault: 'reset-after' });
    expect(await ports.deleteNote({ ...address, ifRevision: last })).toBe('absent');
    expect(calls.map(({ operation }) => operation)).toEqual(['DeleteItem', 'DeleteItem', 'GetItem']);
  });

  test('of two writers at once one alone has written', async () => {
    const { write, read } = await start();
    const outcomes = await Promise.all([write('a', 'one', 'absent'), write('a', 'two', 'absent')]);
    expect(outcomes.toSorted()).toEqual(['conflict', 'written']);
    expect(await read('a')).toBe(outcomes[0] === 'written' ? 'one' : 'two');
  });

  test('that the SDK wrote twice, as the first answer was lost, are written', async () => {
    const { write, read, disturb, calls } = await start({ maxAttempts: 3 });
    disturb('PutItem', { fault: 'reset-after' });
    expect(await write('a', 'one', 'absent')).toBe('written');
    expect(calls.map(({ operation }) => operation)).toEqual(['PutItem', 'PutItem', 'GetItem']);
    expect(await read('a')).toBe('one');
  });

  test('of one place are all listed, in the order of their keys and over more than one page', async () => {
    const { ports, write, calls, inAnHour } = await start();
    const keys = Array.from({ length: 8 }, (_, index) => `target-${index}`);
    for (const key of keys.toReversed()) await write(key, key.repeat(35_000));
    await ports.writeNote({ place: 'users2', key: 'x', document: '', expiresAt: inAnHour() });
    const { length } = calls;
    const listed = await ports.listNotes({ place: 'users' });
    expect(listed.map(({ key }) => key)).toEqual(keys);
    expect(listed.every(({ key, document }) => document === key.repeat(35_000))).toBe(true);
    expect(calls.length - length).toBeGreaterThan(1);
    expect(await ports.listNotes({ place: 'nothing' })).toEqual([]);
  });

  test('hold 380,000 characters, and are refused where they hold more than DynamoDB takes', async () => {
    const { write } = await start();
    expect(await write('a', 'x'.repeat(380_000))).toBe('written');
    expect(await rejectionOf(write('a', 'x'.repeat(410_000)))).toMatchObject({
      name: 'StoreError',
      code: 'STORE_REFUSED',
      effect: 'none',
    });
  });

  test('of a table that is not there cannot be read or written', async () => {
    const { client } = await start();
    const none = noteTable(client, 'other');
    expect(await rejectionOf(none.readNote({ place: 'users', key: 'a' }))).toMatchObject({
      code: 'STORE_REFUSED',
    });
  });

  const faults: Readonly<Record<string, { fault: Fault; code: string; whenWriting: string }>> = {
    'is throttled': { fault: { fault: 'throttle' }, code: 'STORE_UNAVAILABLE', whenWriting: 'none' },
    'has more than its share': {
      fault: { fault: 'error', name: 'ProvisionedThroughputExceededException', message: '' },
      code: 'STORE_UNAVAILABLE',
      whenWriting: 'none',
    },
    'meets an internal error': {
      fault: { fault: 'internal' },
      code: 'STORE_UNAVAILABLE',
      whenWriting: 'unknown',
    },
    'is denied': { fault: { fault: 'access-denied' }, code: 'STORE_DENIED', whenWriting: 'none' },
    'is lost': { fault: { fault: 'reset-before' }, code: 'STORE_UNAVAILABLE', whenWriting: 'unknown' },
  };
  test.each(Object.entries(faults))(
    'fail as what it is where a call %s',
    async (_what, { fault, code, whenWriting }) => {
      const { ports, write, disturb } = await start();
      disturb('GetItem', fault);
      expect(await rejectionOf(ports.readNote({ place: 'users', key: 'a' }))).toMatchObject({
        name: 'StoreError',
        code,
        effect: 'none',
      });
      disturb('Query', fault);
      expect(await rejectionOf(ports.listNotes({ place: 'users' }))).toMatchObject({ code, effect: 'none' });
      disturb('PutItem', fault);
      expect(await rejectionOf(write('a', ''))).toMatchObject({ code, effect: whenWriting });
      disturb('DeleteItem', fault);
      expect(await rejectionOf(ports.deleteNote({ place: 'users', key: 'a' }))).toMatchObject({
        code,
        effect: whenWriting,
      });
    },
  );
});

test('a call asks its caller’s policies for the one place that it is about', () => {
  const service = createTables(options);
  const of = (operation: string, input: object) =>
    service.authorizations(operation, { TableName: 'rekey', ...input });
  const key = { place: { S: 'users' }, key: { S: 'zilliz-cloud/in01-1' } };
  const asked = (action: string) => [
    {
      action: `dynamodb:${action}`,
      resource: 'arn:aws:dynamodb:eu-central-1:111122223333:table/rekey',
      context: { 'dynamodb:LeadingKeys': ['users'] },
    },
  ];
  expect(of('GetItem', { Key: key })).toEqual(asked('GetItem'));
  expect(of('PutItem', { Item: key })).toEqual(asked('PutItem'));
  expect(of('DeleteItem', { Key: key })).toEqual(asked('DeleteItem'));
  const query = {
    KeyConditionExpression: '#place = :place',
    ExpressionAttributeNames: { '#place': 'place' },
    ExpressionAttributeValues: { ':place': { S: 'users' } },
  };
  expect(of('Query', query)).toEqual(asked('Query'));
});
