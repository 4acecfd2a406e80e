import { GetParameterCommand, PutParameterCommand, SSMClient } from '@aws-sdk/client-ssm';
import { mockClient } from 'aws-sdk-client-mock';
import { describe, expect, test } from 'vitest';
import { parameterStore } from '../../functions/aws/specs.ts';
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
  expect(await ports.readSpec({ parameter })).toBe(document);
  expect(mock.commandCalls(GetParameterCommand)[0]?.args[0].input).toEqual({ Name: parameter });
});

test('a spec that nobody stored is absent', async () => {
  const { mock, ports } = adapter();
  mock.on(GetParameterCommand).rejects(awsError('ParameterNotFound'));
  expect(await ports.readSpec({ parameter })).toBe('absent');
});

test('a spec is written as plain text, and never over another one', async () => {
  const { mock, ports } = adapter();
  mock.on(PutParameterCommand).resolves({ Version: 1 });
  expect(await ports.writeSpec({ parameter, document })).toBe('written');
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
  expect(await ports.writeSpec({ parameter, document })).toBe('exists');
});

describe('every other failure', () => {
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
    const read = await rejectionOf(ports.readSpec({ parameter }));
    expect(read).toBeInstanceOf(StoreError);
    expect(read).toMatchObject({ code, effect: reading, cause: error });
    const written = await rejectionOf(ports.writeSpec({ parameter, document }));
    expect(written).toBeInstanceOf(StoreError);
    expect(written).toMatchObject({ code, effect: writing, cause: error });
  });

  test.each(['ParameterVersionNotFound', 'ResourceNotFoundException'])(
    'even %s is not read as absence',
    async (name) => {
      const { mock, ports } = adapter();
      mock.on(GetParameterCommand).rejects(awsError(name));
      expect(await rejectionOf(ports.readSpec({ parameter }))).toMatchObject({ code: 'STORE_REFUSED' });
    },
  );
});
