import {
  DeleteParameterCommand,
  DeleteParametersCommand,
  DescribeParametersCommand,
  GetParameterCommand,
  GetParametersByPathCommand,
  GetParametersCommand,
  PutParameterCommand,
  type PutParameterCommandInput,
} from '@aws-sdk/client-ssm';
import { describe, expect, test } from 'vitest';
import { createParameters } from '../../../../infra/local/aws/parameters.ts';
import { refusalOf, type System, startSystem } from './support.ts';

const put = ({ ssm }: System, Name: string, more: Partial<PutParameterCommandInput> = {}) =>
  ssm.send(new PutParameterCommand({ Name, Value: `value of ${Name}`, Type: 'String', ...more }));

describe('a parameter', () => {
  test('is read back with its version, date and ARN', async () => {
    const system = await startSystem();
    expect(await put(system, '/rekey/credentials/a')).toMatchObject({ Version: 1, Tier: 'Standard' });
    const { Parameter } = await system.ssm.send(new GetParameterCommand({ Name: '/rekey/credentials/a' }));
    expect(Parameter).toEqual({
      Name: '/rekey/credentials/a',
      Type: 'String',
      Value: 'value of /rekey/credentials/a',
      Version: 1,
      LastModifiedDate: new Date('2026-03-01T12:00:00Z'),
      ARN: 'arn:aws:ssm:eu-central-1:111122223333:parameter/rekey/credentials/a',
      DataType: 'text',
    });
  });

  test('is overwritten only when that is asked for, and keeps its versions', async () => {
    const system = await startSystem();
    await put(system, 'a');
    expect(await refusalOf(put(system, 'a', { Value: 'two' }))).toEqual({
      name: 'ParameterAlreadyExists',
      message:
        'The parameter already exists. To overwrite this value, set the overwrite option in the request to true.',
      status: 400,
    });
    expect(await put(system, 'a', { Value: 'two', Overwrite: true })).toMatchObject({ Version: 2 });
    const valueOfName = async (Name: string) =>
      (await system.ssm.send(new GetParameterCommand({ Name }))).Parameter?.Value;
    expect([await valueOfName('a'), await valueOfName('a:1'), await valueOfName('a:2')]).toEqual([
      'two',
      'value of a',
      'two',
    ]);
    expect((await refusalOf(valueOfName('a:3'))).name).toBe('ParameterVersionNotFound');
  });

  test('that is missing is not found, read or deleted', async () => {
    const { ssm } = await startSystem();
    expect((await refusalOf(ssm.send(new GetParameterCommand({ Name: 'a' })))).name).toBe(
      'ParameterNotFound',
    );
    expect((await refusalOf(ssm.send(new DeleteParameterCommand({ Name: 'a' })))).name).toBe(
      'ParameterNotFound',
    );
  });

  test('is gone once deleted, and starts over at version 1', async () => {
    const system = await startSystem();
    await put(system, 'a');
    await put(system, 'a', { Overwrite: true });
    await system.ssm.send(new DeleteParameterCommand({ Name: 'a' }));
    expect(await put(system, 'a')).toMatchObject({ Version: 1 });
  });

  test('that is secure shows its value only when decryption is asked for', async () => {
    const system = await startSystem();
    await put(system, 'a', { Type: 'SecureString', Value: 'canary-77' });
    const read = async (WithDecryption: boolean) =>
      (await system.ssm.send(new GetParameterCommand({ Name: 'a', WithDecryption }))).Parameter?.Value;
    expect(await read(true)).toBe('canary-77');
    expect(await read(false)).not.toContain('canary-77');
  });

  const sizes: Record<string, { input: Partial<PutParameterCommandInput>; want: string }> = {
    'standard, 4096 bytes': { input: { Value: 'x'.repeat(4096) }, want: 'Standard' },
    'standard, 4097 bytes': { input: { Value: 'x'.repeat(4097) }, want: 'ValidationException' },
    'advanced, 8192 bytes': { input: { Value: 'x'.repeat(8192), Tier: 'Advanced' }, want: 'Advanced' },
    'advanced, 8193 bytes': {
      input: { Value: 'x'.repeat(8193), Tier: 'Advanced' },
      want: 'ValidationException',
    },
    'intelligent, 4097 bytes': {
      input: { Value: 'x'.repeat(4097), Tier: 'Intelligent-Tiering' },
      want: 'Advanced',
    },
  };
  test.each(Object.entries(sizes))('has a size limit by tier: %s', async (_sentence, { input, want }) => {
    const system = await startSystem();
    const outcome = await put(system, 'a', input).then(
      ({ Tier }) => Tier,
      (error: Error) => error.name,
    );
    expect(outcome).toBe(want);
  });

  test('that is standard is refused beyond 10,000 of them; advanced ones do not count', async () => {
    const { parameters } = await startSystem();
    const create = (Name: string, more: object = {}) =>
      parameters.call('PutParameter', { Name, Value: 'value', Type: 'String', ...more });
    for (let index = 0; index < 10_000; index += 1) await create(`p${index}`);
    expect(await refusalOf(create('one-more'))).toMatchObject({
      name: 'ParameterLimitExceeded',
      message:
        'You have reached the maximum number of standard parameters for this AWS account and Region (10000). To add more parameters, either delete existing parameters or upgrade to the advanced-parameter tier (charges apply).',
    });
    await create('p0', { Overwrite: true });
    await create('one-more', { Tier: 'Advanced' });
    await expect(create('another')).rejects.toThrow('maximum number of standard parameters');
    await create('p1', { Overwrite: true, Tier: 'Advanced' });
    await create('another');
  });

  test('is advanced once the standard tier is full, where the account chooses tiers by itself', async () => {
    const clock = { now: () => new Date('2026-03-01T12:00:00Z'), sleep: async () => undefined };
    const where = { account: '111122223333', region: 'eu-central-1', clock };
    const parameters = createParameters({ ...where, defaultTier: 'Intelligent-Tiering' });
    const create = (Name: string, more: object = {}) =>
      parameters.call('PutParameter', { Name, Value: 'value', Type: 'String', ...more });
    for (let index = 0; index < 10_000; index += 1)
      expect(await create(`p${index}`)).toMatchObject({ Tier: 'Standard' });
    expect(await create('one-more')).toMatchObject({ Tier: 'Advanced' });
    expect(await create('p0', { Overwrite: true })).toMatchObject({ Tier: 'Standard' });
    await parameters.call('DeleteParameter', { Name: 'p1' });
    expect(await create('another')).toMatchObject({ Tier: 'Standard' });
  });

  const names: Record<string, { name: string; want: string }> = {
    'a foreign character': { name: 'a b', want: 'ValidationException' },
    'a path that does not begin with a slash': { name: 'a/b', want: 'ValidationException' },
    'the reserved prefix': { name: '/aws/b', want: 'ValidationException' },
    'sixteen levels': { name: '/a'.repeat(16), want: 'HierarchyLevelLimitExceededException' },
  };
  test.each(Object.entries(names))('is refused for %s in its name', async (_sentence, { name, want }) => {
    expect((await refusalOf(put(await startSystem(), name))).name).toBe(want);
  });
});

describe('several parameters', () => {
  async function startFilled(): Promise<System> {
    const system = await startSystem();
    for (const name of ['/rekey/b', '/rekey/a', '/rekey/deep/c', '/other/d', '/rekeyx'])
      await put(system, name);
    return system;
  }

  test('are read by name, with the missing ones apart', async () => {
    const { ssm } = await startFilled();
    const answer = await ssm.send(new GetParametersCommand({ Names: ['/rekey/a', '/rekey/z'] }));
    expect(answer.Parameters?.map(({ Name }) => Name)).toEqual(['/rekey/a']);
    expect(answer.InvalidParameters).toEqual(['/rekey/z']);
  });

  test('at most ten are read by name', async () => {
    const { ssm } = await startFilled();
    const call = ssm.send(new GetParametersCommand({ Names: Array.from({ length: 11 }, (_, n) => `p${n}`) }));
    expect((await refusalOf(call)).name).toBe('ValidationException');
  });

  test.each([
    { Recursive: false, want: [['/rekey/a', '/rekey/b']] },
    { Recursive: true, want: [['/rekey/a', '/rekey/b'], ['/rekey/deep/c']] },
  ])('are read by path, page by page, recursive $Recursive', async ({ Recursive, want }) => {
    const { ssm } = await startFilled();
    const pages: (string | undefined)[][] = [];
    let NextToken: string | undefined;
    do {
      const page = await ssm.send(
        new GetParametersByPathCommand({
          Path: '/rekey',
          Recursive,
          MaxResults: 2,
          ...(NextToken && { NextToken }),
        }),
      );
      pages.push(page.Parameters?.map(({ Name }) => Name) ?? []);
      NextToken = page.NextToken;
    } while (NextToken !== undefined);
    expect(pages).toEqual(want);
  });

  test('are listed in the order of their names, as they come and go', async () => {
    const { parameters } = await startSystem();
    const names = Array.from({ length: 200 }, (_, index) => `/rekey/p${(index * 71) % 200}`);
    for (const Name of [...names, '/rekey-other/p', '/rekex/p', '/rekez/p'])
      await parameters.call('PutParameter', { Name, Value: 'value', Type: 'String' });
    const gone = names.filter((_, index) => index % 3 === 0);
    for (const Name of gone) await parameters.call('DeleteParameter', { Name });
    const listed: string[] = [];
    let NextToken: string | undefined;
    do {
      const page = (await parameters.call('GetParametersByPath', {
        Path: '/rekey',
        Recursive: true,
        ...(NextToken && { NextToken }),
      })) as { readonly Parameters: readonly { readonly Name: string }[]; readonly NextToken?: string };
      listed.push(...page.Parameters.map(({ Name }) => Name));
      NextToken = page.NextToken;
    } while (NextToken !== undefined);
    expect(listed).toEqual(names.filter((name) => !gone.includes(name)).toSorted());
  });

  test('are described without their values', async () => {
    const { ssm } = await startFilled();
    const { Parameters = [] } = await ssm.send(
      new DescribeParametersCommand({
        ParameterFilters: [{ Key: 'Name', Option: 'BeginsWith', Values: ['/rekey/'] }],
      }),
    );
    expect(Parameters.map(({ Name }) => Name)).toEqual(['/rekey/a', '/rekey/b', '/rekey/deep/c']);
    expect(JSON.stringify(Parameters)).not.toContain('value of');
  });

  test('are deleted together, with the missing ones apart', async () => {
    const { ssm } = await startFilled();
    const answer = await ssm.send(new DeleteParametersCommand({ Names: ['/rekey/a', '/rekey/z'] }));
    expect([answer.DeletedParameters, answer.InvalidParameters]).toEqual([['/rekey/a'], ['/rekey/z']]);
  });
});

test('what a call asks of its caller’s policies', async () => {
  const { parameters } = await startSystem();
  const arn = (name: string) => `arn:aws:ssm:eu-central-1:111122223333:parameter/${name}`;
  const asks = (operation: string, input: object) =>
    parameters.authorizations(operation, input).map(({ action, resource }) => `${action} ${resource}`);
  const ofOne = [`ssm:GetParameter ${arn('a/b')}`];
  expect(asks('GetParameter', { Name: '/a/b' })).toEqual(ofOne);
  // By whatever it is called: a policy knows no versions.
  expect(asks('GetParameter', { Name: '/a/b:3' })).toEqual(ofOne);
  expect(asks('GetParameter', { Name: arn('a/b') })).toEqual(ofOne);
  expect(asks('DeleteParameters', { Names: ['/a', 'b'] })).toEqual([
    `ssm:DeleteParameters ${arn('a')}`,
    `ssm:DeleteParameters ${arn('b')}`,
  ]);
  expect(asks('GetParameters', { Names: ['/a', '/b/c:2'] })).toEqual([
    `ssm:GetParameters ${arn('a')}`,
    `ssm:GetParameters ${arn('b/c')}`,
  ]);
  const written = (more: object) =>
    parameters.authorizations('PutParameter', { Name: '/a', Value: 'b', ...more });
  const put = { action: 'ssm:PutParameter', resource: arn('a') };
  expect(written({ Overwrite: true })).toEqual([{ ...put, context: { 'ssm:Overwrite': 'true' } }]);
  expect(written({ Overwrite: false })).toEqual([{ ...put, context: { 'ssm:Overwrite': 'false' } }]);
  expect(written({})).toEqual([put]);
  // The path as it was asked for, with and without the slash at its end.
  expect(asks('GetParametersByPath', { Path: '/a' })).toEqual([`ssm:GetParametersByPath ${arn('a')}`]);
  expect(asks('DescribeParameters', {})).toEqual(['ssm:DescribeParameters *']);
  // Refused whoever calls.
  expect([asks('GetParameter', {}), asks('LabelParameterVersion', { Name: '/a' })]).toEqual([[], []]);
});
