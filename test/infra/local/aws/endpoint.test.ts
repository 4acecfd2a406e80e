import {
  CreateSecretCommand,
  GetSecretValueCommand,
  PutSecretValueCommand,
} from '@aws-sdk/client-secrets-manager';
import { describe, expect, test } from 'vitest';
import type { AwsCall, Fault } from '../../../../infra/local/aws/endpoint.ts';
import { principalOf, startAwsEndpoint } from '../../../../infra/local/aws/endpoint.ts';
import { refusalOf, startSystem, token } from './support.ts';

const read = new GetSecretValueCommand({ SecretId: 'app' });

/** A system whose next call meets `fault`, with a secret in it. */
async function startFaulty(fault: Fault, maxAttempts = 1) {
  const faults: Fault[] = [];
  const seen: AwsCall[] = [];
  const system = await startSystem({
    maxAttempts,
    onCall: (call) => {
      seen.push(call);
      return faults.shift();
    },
  });
  await system.secretsManager.call('CreateSecret', {
    Name: 'app',
    SecretString: 'one',
    ClientRequestToken: token('v1'),
  });
  faults.push(fault);
  return { ...system, seen };
}

describe('a call can be made to fail as', () => {
  const cases: Record<string, { fault: Fault; want: object }> = {
    'a throttled one': {
      fault: { fault: 'throttle' },
      want: { name: 'ThrottlingException', message: 'Rate exceeded', status: 400 },
    },
    'an internal failure': {
      fault: { fault: 'internal' },
      want: { name: 'InternalServiceError', message: 'An internal error occurred.', status: 500 },
    },
    'a forbidden one': {
      fault: { fault: 'access-denied' },
      want: {
        name: 'AccessDeniedException',
        message: 'User: AKIDTEST is not authorized to perform: secretsmanager:GetSecretValue',
        status: 400,
      },
    },
    'any other error by name': {
      fault: { fault: 'error', name: 'DecryptionFailure', message: "can't decrypt" },
      want: { name: 'DecryptionFailure', message: "can't decrypt", status: 400 },
    },
  };
  test.each(Object.entries(cases))('%s', async (_sentence, { fault, want }) => {
    const { secrets } = await startFaulty(fault);
    expect(await refusalOf(secrets.send(read))).toEqual(want);
    await expect(secrets.send(read)).resolves.toMatchObject({ SecretString: 'one' });
  });

  test('a broken connection that did nothing', async () => {
    const { secrets, secretsManager } = await startFaulty({ fault: 'reset-before' });
    const put = new PutSecretValueCommand({ SecretId: 'app', SecretString: 'two' });
    await expect(secrets.send(put)).rejects.toThrow(/ECONNRESET|socket hang up/);
    expect(await secretsManager.call('GetSecretValue', { SecretId: 'app' })).toMatchObject({
      SecretString: 'one',
    });
  });

  test('a broken connection after the call took effect', async () => {
    const { secrets, secretsManager } = await startFaulty({ fault: 'reset-after' });
    const put = new PutSecretValueCommand({ SecretId: 'app', SecretString: 'two' });
    await expect(secrets.send(put)).rejects.toThrow(/ECONNRESET|socket hang up/);
    expect(await secretsManager.call('GetSecretValue', { SecretId: 'app' })).toMatchObject({
      SecretString: 'two',
    });
  });

  test('a slow one', async () => {
    const { secrets, clock } = await startFaulty({ fault: 'delay', ms: 5000 });
    let isDone = false;
    const reading = secrets.send(read).then(() => {
      isDone = true;
    });
    while (isDone === false) {
      await clock.advance(1000);
      if (clock.now() < new Date('2026-03-01T12:00:05Z')) expect(isDone).toBe(false);
    }
    await reading;
  });
});

test.each([
  { fault: 'throttle' as const },
  { fault: 'internal' as const },
  { fault: 'reset-before' as const },
  { fault: 'reset-after' as const },
])('the SDK gets over $fault by itself, under one token', async (fault) => {
  const { secrets, seen } = await startFaulty(fault, 3);
  const answer = await secrets.send(new PutSecretValueCommand({ SecretId: 'app', SecretString: 'two' }));
  expect(answer.VersionStages).toEqual(['AWSCURRENT']);
  expect(seen).toHaveLength(2);
  const tokens = seen.map(({ input }) => (input as { ClientRequestToken: string }).ClientRequestToken);
  expect(tokens[0]).toBe(tokens[1]);
});

test('the hook learns service, operation, input and principal before the call is served', async () => {
  const seen: AwsCall[] = [];
  const { secrets } = await startSystem({ onCall: (call) => void seen.push(call) });
  await secrets.send(new CreateSecretCommand({ Name: 'app', ClientRequestToken: token('v1') }));
  expect(seen).toEqual([
    {
      service: 'secretsmanager',
      operation: 'CreateSecret',
      input: { Name: 'app', ClientRequestToken: token('v1') },
      principal: 'AKIDTEST',
    },
  ]);
});

describe('a raw request', () => {
  const cases: Record<string, { target: string; body: string; want: [number, string] }> = {
    'for an unknown operation is refused': {
      target: 'secretsmanager.MakeCoffee',
      body: '{}',
      want: [400, 'UnknownOperationException'],
    },
    'for an inherited member of the table is refused': {
      target: 'secretsmanager.toString',
      body: '{}',
      want: [400, 'UnknownOperationException'],
    },
    'for an unknown service is refused': {
      target: 'Coffee.Make',
      body: '{}',
      want: [400, 'UnknownOperationException'],
    },
    'with a broken body is refused': {
      target: 'secretsmanager.ListSecrets',
      body: '{',
      want: [400, 'SerializationException'],
    },
    'without a body is an empty input': { target: 'secretsmanager.ListSecrets', body: '', want: [200, ''] },
  };
  test.each(Object.entries(cases))('%s', async (_sentence, { target, body, want }) => {
    const { endpoint } = await startSystem();
    const response = await fetch(endpoint.url, {
      method: 'POST',
      headers: { 'x-amz-target': target, 'content-type': 'application/x-amz-json-1.1' },
      body,
    });
    const { __type = '' } = (await response.json()) as { __type?: string };
    expect([response.status, __type]).toEqual(want);
    expect(response.headers.get('content-type')).toBe('application/x-amz-json-1.1');
    expect(response.headers.get('x-amzn-requestid')).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('with an error carries its text under Message', async () => {
    const { endpoint } = await startSystem();
    const response = await fetch(endpoint.url, {
      method: 'POST',
      headers: { 'x-amz-target': 'secretsmanager.GetSecretValue' },
      body: '{"SecretId":"nobody"}',
    });
    expect(await response.json()).toEqual({
      __type: 'ResourceNotFoundException',
      Message: "Secrets Manager can't find the specified secret.",
    });
  });
});

test('a defect of a stand-in is reported and answered as an internal failure', async () => {
  const defects: unknown[] = [];
  const defect = new Error('defect');
  const endpoint = await startAwsEndpoint({
    services: [
      {
        name: 'broken',
        targetPrefix: 'Broken',
        messageKey: 'message',
        internalErrorName: 'InternalFailure',
        authorizations: () => [],
        call: async () => {
          throw defect;
        },
      },
    ],
    onDefect: (error) => defects.push(error),
  });
  const response = await fetch(endpoint.url, { method: 'POST', headers: { 'x-amz-target': 'Broken.Call' } });
  expect([response.status, await response.json()]).toEqual([500, { __type: 'InternalFailure' }]);
  expect(defects).toEqual([defect]);
  await endpoint.close();
});

test('a request without a target goes to the other protocols', async () => {
  const endpoint = await startAwsEndpoint({
    services: [],
    otherwise: (request, response) => response.end(`${request.method} ${request.url}`),
  });
  const response = await fetch(`${endpoint.url}/schedules/drain`, { method: 'DELETE' });
  expect(await response.text()).toBe('DELETE /schedules/drain');
  await endpoint.close();
});

test('the principal is the access key id of the signature', () => {
  const header =
    'AWS4-HMAC-SHA256 Credential=AKIDROTATE/20260301/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=00';
  expect(principalOf(header)).toBe('AKIDROTATE');
  expect(principalOf(undefined)).toBeUndefined();
  expect(principalOf('Bearer abc')).toBeUndefined();
});
