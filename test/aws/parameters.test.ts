import {
  DeleteParameterCommand,
  GetParameterCommand,
  GetParametersByPathCommand,
  GetParametersCommand,
  PutParameterCommand,
  SSMClient,
} from '@aws-sdk/client-ssm';
import { mockClient } from 'aws-sdk-client-mock';
import { describe, expect, test } from 'vitest';
import { parameterStore } from '../../functions/aws/parameters.ts';
import { StoreError } from '../../functions/core/errors.ts';
import { awsError, networkError, rejectionOf } from './support.ts';

const parameter = '/rekey/credentials/orders-api';
const document = '{"name":"orders-api"}';

function adapter() {
  const client = new SSMClient({ region: 'eu-central-1' });
  return { mock: mockClient(client), ports: parameterStore(client) };
}

test('a spec is read by the name of its parameter', async () => {
  const { mock, ports } = adapter();
  mock.on(GetParameterCommand).resolves({ Parameter: { Name: parameter, Value: document } });
  expect(await ports.readParameter({ parameter })).toBe(document);
  expect(mock.commandCalls(GetParameterCommand)[0]?.args[0].input).toEqual({ Name: parameter });
});

test('a spec that nobody stored is absent', async () => {
  const { mock, ports } = adapter();
  mock.on(GetParameterCommand).rejects(awsError('ParameterNotFound'));
  expect(await ports.readParameter({ parameter })).toBe('absent');
});

test('the date of a spec is when it was written last, and never a guess', async () => {
  const { mock, ports } = adapter();
  const LastModifiedDate = new Date('2026-03-01T12:00:00.123Z');
  mock
    .on(GetParameterCommand)
    .resolvesOnce({ Parameter: { Name: parameter, Value: document, LastModifiedDate } })
    .resolvesOnce({ Parameter: { Name: parameter, Value: document } })
    .rejects(awsError('ParameterNotFound'));
  expect(await ports.readParameterDate({ parameter })).toEqual(LastModifiedDate);
  expect(await rejectionOf(ports.readParameterDate({ parameter }))).toMatchObject({
    code: 'STORE_UNAVAILABLE',
    effect: 'none',
  });
  expect(await ports.readParameterDate({ parameter })).toBe('absent');
});

test('only a reading that may take long goes through the client that waits for its turn', async () => {
  const [quick, patient] = [
    new SSMClient({ region: 'eu-central-1' }),
    new SSMClient({ region: 'eu-central-1' }),
  ];
  const asked = [quick, patient].map((client) =>
    mockClient(client)
      .on(GetParametersCommand)
      .resolves({ InvalidParameters: [parameter] }),
  );
  const ports = parameterStore(quick, () => new Date(), patient);
  const counts = () => asked.map((mock) => mock.commandCalls(GetParametersCommand).length);
  await ports.readParameters({ parameters: [parameter] });
  expect(counts()).toEqual([1, 0]);
  await ports.readParameters({ parameters: [parameter], isPatient: true });
  expect(counts()).toEqual([1, 1]);
});

describe('several parameters', () => {
  const missing = '/rekey/directives/orders-api/deleteSince';

  test('are read at once, each name asked for once, and what is absent is left out', async () => {
    const { mock, ports } = adapter();
    mock
      .on(GetParametersCommand)
      .resolves({ Parameters: [{ Name: parameter, Value: document }], InvalidParameters: [missing] });
    expect(await ports.readParameters({ parameters: [missing, parameter, missing] })).toEqual(
      new Map([[parameter, document]]),
    );
    expect(mock.commandCalls(GetParametersCommand).map(({ args: [{ input }] }) => input)).toEqual([
      { Names: [missing, parameter] },
    ]);
  });

  test('may be none, which asks nobody', async () => {
    const { mock, ports } = adapter();
    expect(await ports.readParameters({ parameters: [] })).toEqual(new Map());
    expect(mock.calls()).toEqual([]);
  });

  test('are absent only where Parameter Store says so', async () => {
    const { mock, ports } = adapter();
    mock.on(GetParametersCommand).resolves({ Parameters: [{ Name: parameter, Value: document }] });
    expect(await rejectionOf(ports.readParameters({ parameters: [parameter, missing] }))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
      message: expect.stringContaining(`did not answer ${missing}`),
    });
  });

  test('are not read with one that has no value', async () => {
    const { mock, ports } = adapter();
    mock.on(GetParametersCommand).resolves({ Parameters: [{ Name: parameter }] });
    expect(await rejectionOf(ports.readParameters({ parameters: [parameter] }))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
  });
});

test('a spec is written as plain text, and never over another one', async () => {
  const { mock, ports } = adapter();
  mock.on(PutParameterCommand).resolves({ Version: 1 });
  expect(await ports.createParameter({ parameter, document })).toBe('written');
  expect(mock.commandCalls(PutParameterCommand)[0]?.args[0].input).toEqual({
    Name: parameter,
    Value: document,
    Type: 'String',
    Overwrite: false,
  });
});

test('a spec that is there already stays', async () => {
  const { mock, ports } = adapter();
  mock.on(PutParameterCommand).rejects(awsError('ParameterAlreadyExists'));
  expect(await ports.createParameter({ parameter, document })).toBe('exists');
});

test('a parameter that may be overwritten is, as plain text', async () => {
  const { mock, ports } = adapter();
  mock.on(PutParameterCommand).resolves({ Version: 2 });
  await ports.writeParameter({ parameter, document });
  expect(mock.commandCalls(PutParameterCommand)[0]?.args[0].input).toEqual({
    Name: parameter,
    Value: document,
    Type: 'String',
    Overwrite: true,
  });
});

test('a parameter is deleted by its name', async () => {
  const { mock, ports } = adapter();
  mock.on(DeleteParameterCommand).resolves({});
  expect(await ports.deleteParameter({ parameter })).toBe('deleted');
  expect(mock.commandCalls(DeleteParameterCommand)[0]?.args[0].input).toEqual({ Name: parameter });
});

test('a parameter that is gone already is absent', async () => {
  const { mock, ports } = adapter();
  mock.on(DeleteParameterCommand).rejects(awsError('ParameterNotFound'));
  expect(await ports.deleteParameter({ parameter })).toBe('absent');
});

describe('the parameters below a path', () => {
  const path = '/rekey/credentials/';
  const other = '/rekey/credentials/deep/billing';

  test('are all listed, at any depth, page by page', async () => {
    const { mock, ports } = adapter();
    mock
      .on(GetParametersByPathCommand)
      .resolvesOnce({ Parameters: [], NextToken: 'second' })
      .resolvesOnce({ Parameters: [{ Name: parameter, Value: document }], NextToken: 'third' })
      .resolvesOnce({ Parameters: [{ Name: other, Value: '{}' }] });
    expect(await ports.listParameters({ path })).toEqual([
      { parameter, document },
      { parameter: other, document: '{}' },
    ]);
    expect(mock.commandCalls(GetParametersByPathCommand).map(({ args: [{ input }] }) => input)).toEqual([
      { Path: '/rekey/credentials', Recursive: true },
      { Path: '/rekey/credentials', Recursive: true, NextToken: 'second' },
      { Path: '/rekey/credentials', Recursive: true, NextToken: 'third' },
    ]);
  });

  test('may be none', async () => {
    const { mock, ports } = adapter();
    mock.on(GetParametersByPathCommand).resolves({ Parameters: [] });
    expect(await ports.listParameters({ path })).toEqual([]);
  });

  test('are below the root where that is asked for', async () => {
    const { mock, ports } = adapter();
    mock.on(GetParametersByPathCommand).resolves({ Parameters: [], NextToken: '' });
    expect(await ports.listParameters({ path: '/' })).toEqual([]);
    expect(mock.commandCalls(GetParametersByPathCommand)[0]?.args[0].input).toEqual({
      Path: '/',
      Recursive: true,
    });
  });

  test('are not listed in part, nor for ever', async () => {
    const { mock, ports } = adapter();
    mock
      .on(GetParametersByPathCommand)
      .resolvesOnce({ Parameters: [{ Name: parameter, Value: document }], NextToken: 'second' })
      .resolves({ Parameters: [], NextToken: 'second' });
    expect(await rejectionOf(ports.listParameters({ path }))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    });
    expect(mock.calls()).toHaveLength(2);
  });

  test('are not listed with one that has no value', async () => {
    const { mock, ports } = adapter();
    mock.on(GetParametersByPathCommand).resolves({ Parameters: [{ Name: parameter }] });
    expect(await rejectionOf(ports.listParameters({ path }))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    });
  });
});

describe('every other failure', () => {
  type ParameterPorts = ReturnType<typeof parameterStore>;
  const readers: Record<string, (ports: ParameterPorts) => Promise<unknown>> = {
    readParameter: (ports) => ports.readParameter({ parameter }),
    readParameters: (ports) => ports.readParameters({ parameters: [parameter] }),
    listParameters: (ports) => ports.listParameters({ path: '/rekey/credentials/' }),
  };
  const writers: Record<string, (ports: ParameterPorts) => Promise<unknown>> = {
    createParameter: (ports) => ports.createParameter({ parameter, document }),
    writeParameter: (ports) => ports.writeParameter({ parameter, document }),
    deleteParameter: (ports) => ports.deleteParameter({ parameter }),
  };
  const failures: Record<string, { error: Error; code: string; reading: string; writing: string }> = {
    'of a throttled call did nothing': {
      error: awsError('ThrottlingException'),
      code: 'STORE_UNAVAILABLE',
      reading: 'none',
      writing: 'none',
    },
    'of a parameter that somebody else is writing did nothing, and may be tried again': {
      error: awsError('TooManyUpdates'),
      code: 'STORE_UNAVAILABLE',
      reading: 'none',
      writing: 'none',
    },
    'inside Parameter Store leaves open what was done': {
      error: awsError('InternalServerError', { status: 500 }),
      code: 'STORE_UNAVAILABLE',
      reading: 'none',
      writing: 'unknown',
    },
    'of the connection leaves open what was done': {
      error: networkError(),
      code: 'STORE_UNAVAILABLE',
      reading: 'none',
      writing: 'unknown',
    },
    'of permission did nothing': {
      error: awsError('AccessDeniedException'),
      code: 'STORE_DENIED',
      reading: 'none',
      writing: 'none',
    },
    'by refusal did nothing': {
      error: awsError('ParameterPatternMismatchException'),
      code: 'STORE_REFUSED',
      reading: 'none',
      writing: 'none',
    },
  };
  test.each(Object.entries(failures))('%s', async (_sentence, { error, code, reading, writing }) => {
    const { mock, ports } = adapter();
    mock.rejects(error);
    for (const [callers, effect] of [
      [readers, reading],
      [writers, writing],
    ] as const)
      for (const [port, call] of Object.entries(callers)) {
        const thrown = await rejectionOf(call(ports));
        expect(thrown, port).toBeInstanceOf(StoreError);
        expect(thrown, port).toMatchObject({ code, effect, cause: error });
      }
  });

  test.each(['ParameterVersionNotFound', 'ResourceNotFoundException'])(
    'even %s is not read as absence',
    async (name) => {
      const { mock, ports } = adapter();
      mock.on(GetParameterCommand).rejects(awsError(name));
      expect(await rejectionOf(ports.readParameter({ parameter }))).toMatchObject({ code: 'STORE_REFUSED' });
    },
  );
});
