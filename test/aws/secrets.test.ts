import {
  CancelRotateSecretCommand,
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  type DescribeSecretCommandOutput,
  GetSecretValueCommand,
  ListSecretsCommand,
  ListSecretVersionIdsCommand,
  PutSecretValueCommand,
  RemoveRegionsFromReplicationCommand,
  RotateSecretCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { mockClient } from 'aws-sdk-client-mock';
import { describe, expect, test } from 'vitest';
import { secretsManager } from '../../functions/aws/secrets.ts';
import { StoreError } from '../../functions/core/errors.ts';
import { createRedactor, Sensitive, spellings } from '../../functions/core/sensitive.ts';
import { awsError, held, networkError, rejectionOf } from './support.ts';

const arn = 'arn:aws:secretsmanager:eu-central-1:111122223333:secret:rekey/orders-api-a1b2c3';
const older = 'f3c1a2b4-0000-4000-8000-000000000001';
const token = 'f3c1a2b4-0000-4000-8000-000000000002';
const functionArn = 'arn:aws:lambda:eu-central-1:111122223333:function:rotate-secret';
const password = 'Kq7-canary-3Vw9xB2n';
const url = 'postgresql://orders:Kq7-canary-3Vw9xB2n@db.example.com:5432/orders';
const value = JSON.stringify({ username: 'orders', password, url });

function adapter() {
  const client = new SecretsManagerClient({ region: 'eu-central-1' });
  const mock = mockClient(client);
  const redactor = createRedactor();
  return { mock, redactor, ports: secretsManager(client, redactor) };
}

type SecretPorts = ReturnType<typeof secretsManager>;

/** One call of each port, and what it may have done when no answer came. */
const calls: Record<keyof SecretPorts, { lost: string; call: (ports: SecretPorts) => Promise<unknown> }> = {
  describeSecret: { lost: 'none', call: ({ describeSecret }) => describeSecret({ secretId: arn }) },
  readSecret: {
    lost: 'none',
    call: ({ readSecret }) => readSecret({ secretId: arn, versionId: token, label: 'AWSPENDING' }),
  },
  writeSecret: {
    lost: 'unknown',
    call: ({ writeSecret }) =>
      writeSecret({ guard: held, secretId: arn, token, value: new Sensitive(value), label: 'AWSPENDING' }),
  },
  moveLabel: {
    lost: 'unknown',
    call: ({ moveLabel }) =>
      moveLabel({ guard: held, secretId: arn, label: 'AWSCURRENT', from: older, to: token }),
  },
  createSecret: {
    lost: 'unknown',
    call: ({ createSecret }) =>
      createSecret({
        guard: held,
        name: 'rekey/orders-api',
        token,
        value: new Sensitive('{}'),
        description: 'a login',
      }),
  },
  startRotation: {
    lost: 'unknown',
    call: ({ startRotation }) =>
      startRotation({ guard: held, secretId: arn, token, functionArn, everyDays: 30, immediately: true }),
  },
  cancelRotation: {
    lost: 'unknown',
    call: ({ cancelRotation }) => cancelRotation({ guard: held, secretId: arn }),
  },
  listVersions: { lost: 'none', call: ({ listVersions }) => listVersions({ secretId: arn }) },
  listSecrets: { lost: 'none', call: ({ listSecrets }) => listSecrets({ namePrefix: 'rekey/' }) },
  removeReplicas: {
    lost: 'unknown',
    call: ({ removeReplicas }) => removeReplicas({ guard: held, secretId: arn, regions: ['eu-west-1'] }),
  },
  deleteSecret: {
    lost: 'unknown',
    call: ({ deleteSecret }) => deleteSecret({ guard: held, secretId: arn, recoveryDays: 30 }),
  },
};

describe.each(Object.entries(calls))('a failure of %s', (_port, { lost, call }) => {
  const failures: Record<string, { error: Error; code: string; effect: string }> = {
    'a throttled call did nothing': {
      error: awsError('ThrottlingException'),
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    },
    'a call over the request rate did nothing': {
      error: awsError('TooManyRequestsException', { status: 429 }),
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    },
    'throttling under another name is known by its status': {
      error: awsError('SlowDown', { status: 429 }),
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    },
    'a full secret has room again later': {
      error: awsError('LimitExceededException'),
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    },
    'an internal error leaves open what was done': {
      error: awsError('InternalServiceError', { status: 500 }),
      code: 'STORE_UNAVAILABLE',
      effect: lost,
    },
    'an internal error is known by its name, whatever its status': {
      error: awsError('InternalServiceError'),
      code: 'STORE_UNAVAILABLE',
      effect: lost,
    },
    'a failure of the service under an unknown name is known by its status': {
      error: awsError('BadGateway', { status: 502 }),
      code: 'STORE_UNAVAILABLE',
      effect: lost,
    },
    'a broken connection leaves open what was done': {
      error: networkError(),
      code: 'STORE_UNAVAILABLE',
      effect: lost,
    },
    'an answer in time that cannot be read is no refusal': {
      error: awsError('SyntaxError', { status: 200 }),
      code: 'STORE_UNAVAILABLE',
      effect: lost,
    },
    'a missing permission did nothing': {
      error: awsError('AccessDeniedException'),
      code: 'STORE_DENIED',
      effect: 'none',
    },
    'a KMS key that may not decrypt did nothing': {
      error: awsError('DecryptionFailure'),
      code: 'STORE_DENIED',
      effect: 'none',
    },
    'a KMS key that may not encrypt did nothing': {
      error: awsError('EncryptionFailure'),
      code: 'STORE_DENIED',
      effect: 'none',
    },
    'an expired session did nothing': {
      error: awsError('ExpiredTokenException'),
      code: 'STORE_DENIED',
      effect: 'none',
    },
    'a request that is not valid did nothing': {
      error: awsError('ValidationException'),
      code: 'STORE_REFUSED',
      effect: 'none',
    },
    'a refusal after an attempt whose answer was lost leaves open what was done': {
      error: awsError('AccessDeniedException', { attempts: 2 }),
      code: 'STORE_DENIED',
      effect: lost,
    },
    'throttling after an attempt whose answer was lost leaves open what was done': {
      error: awsError('ThrottlingException', { attempts: 3 }),
      code: 'STORE_UNAVAILABLE',
      effect: lost,
    },
    'something that is no AWS error at all leaves open what was done': {
      error: new RangeError('a defect'),
      code: 'STORE_UNAVAILABLE',
      effect: lost,
    },
  };
  test.each(Object.entries(failures))('%s', async (_sentence, { error, code, effect }) => {
    const { mock, ports } = adapter();
    mock.rejects(error);
    const thrown = await rejectionOf(call(ports));
    expect(thrown).toBeInstanceOf(StoreError);
    expect(thrown).toMatchObject({ code, effect, cause: error });
  });
});

test('no failure says more than the name of the error', async () => {
  for (const { call } of Object.values(calls)) {
    const { mock, ports } = adapter();
    mock.rejects(Object.assign(awsError('ValidationException'), { message: `bad value ${value}` }));
    const thrown = await rejectionOf(call(ports));
    expect(thrown).toMatchObject({ message: expect.stringContaining('ValidationException') });
    expect(String(thrown)).not.toContain('canary');
  }
});

describe('a description', () => {
  test('says what Secrets Manager said, in our words', async () => {
    const { mock, ports } = adapter();
    mock.on(DescribeSecretCommand).resolves({
      ARN: arn,
      Name: 'rekey/orders-api',
      RotationEnabled: true,
      CreatedDate: new Date('2026-02-01T12:00:00Z'),
      LastRotatedDate: new Date('2026-03-01T12:00:00Z'),
      LastChangedDate: new Date('2026-03-02T12:00:00Z'),
      DeletedDate: new Date('2026-03-08T12:00:00Z'),
      VersionIdsToStages: { [older]: ['AWSCURRENT', 'AWSPENDING'], [token]: ['AWSPREVIOUS'] },
    });
    expect(await ports.describeSecret({ secretId: arn })).toEqual({
      arn,
      name: 'rekey/orders-api',
      rotationEnabled: true,
      createdAt: new Date('2026-02-01T12:00:00Z'),
      lastRotatedAt: new Date('2026-03-01T12:00:00Z'),
      changedAt: new Date('2026-03-02T12:00:00Z'),
      deletedAt: new Date('2026-03-08T12:00:00Z'),
      labelsByVersion: new Map([
        [older, new Set(['AWSCURRENT', 'AWSPENDING'])],
        [token, new Set(['AWSPREVIOUS'])],
      ]),
    });
    expect(mock.commandCalls(DescribeSecretCommand)[0]?.args[0].input).toEqual({ SecretId: arn });
  });

  test('of a secret that never rotated reads rotation as off, and has no dates and no versions', async () => {
    const { mock, ports } = adapter();
    mock.on(DescribeSecretCommand).resolves({ ARN: arn, Name: 'rekey/orders-api' });
    expect(await ports.describeSecret({ secretId: 'rekey/orders-api' })).toEqual({
      arn,
      name: 'rekey/orders-api',
      rotationEnabled: false,
      labelsByVersion: new Map(),
    });
  });

  test('is absent only where Secrets Manager knows no such secret', async () => {
    const { mock, ports } = adapter();
    mock.on(DescribeSecretCommand).rejects(awsError('ResourceNotFoundException'));
    expect(await ports.describeSecret({ secretId: arn })).toBe('absent');
    mock.on(DescribeSecretCommand).rejects(awsError('InvalidRequestException'));
    expect(await rejectionOf(ports.describeSecret({ secretId: arn }))).toMatchObject({
      code: 'STORE_REFUSED',
    });
  });
});

describe('a value', () => {
  test('is asked for by version and label, both of them', async () => {
    const { mock, ports } = adapter();
    mock.on(GetSecretValueCommand).resolves({
      VersionId: token,
      SecretString: value,
      CreatedDate: new Date('2026-03-01T12:00:00Z'),
    });
    const read = await ports.readSecret({ secretId: arn, versionId: token, label: 'AWSPENDING' });
    expect(read).toMatchObject({ versionId: token, createdAt: new Date('2026-03-01T12:00:00Z') });
    expect(read !== 'absent' && read.value.reveal()).toBe(value);
    expect(mock.commandCalls(GetSecretValueCommand)[0]?.args[0].input).toEqual({
      SecretId: arn,
      VersionId: token,
      VersionStage: 'AWSPENDING',
    });
  });

  test('in bytes reads as empty, since rekey writes text', async () => {
    const { mock, ports } = adapter();
    mock
      .on(GetSecretValueCommand)
      .resolves({ VersionId: token, SecretBinary: new Uint8Array([112, 119, 100]) });
    const read = await ports.readSecret({ secretId: arn, label: 'AWSCURRENT' });
    expect(read !== 'absent' && read.value.reveal()).toBe('');
  });

  test('is absent where Secrets Manager knows no such secret, version or value', async () => {
    const { mock, ports } = adapter();
    mock.on(GetSecretValueCommand).rejects(awsError('ResourceNotFoundException'));
    expect(await ports.readSecret({ secretId: arn, versionId: token, label: 'AWSPENDING' })).toBe('absent');
  });

  const live = { ARN: arn, Name: 'rekey/orders-api' };
  const disagreements: Record<
    string,
    { described: Partial<DescribeSecretCommandOutput> | Error; want: 'absent' | { code: string } }
  > = {
    'is absent when the label is on another version': {
      described: { ...live, VersionIdsToStages: { [older]: ['AWSPENDING'], [token]: ['AWSCURRENT'] } },
      want: 'absent',
    },
    'is absent when the version has no label any more': {
      described: { ...live, VersionIdsToStages: { [older]: ['AWSCURRENT'] } },
      want: 'absent',
    },
    'is absent when the secret is gone meanwhile': {
      described: awsError('ResourceNotFoundException'),
      want: 'absent',
    },
    'is a failure when the label is on that version after all': {
      described: { ...live, VersionIdsToStages: { [token]: ['AWSPENDING'] } },
      want: { code: 'STORE_REFUSED' },
    },
    'is a failure when the secret is scheduled for deletion': {
      described: { ...live, DeletedDate: new Date('2026-03-08T12:00:00Z'), VersionIdsToStages: {} },
      want: { code: 'STORE_REFUSED' },
    },
    'is a failure when the labels cannot be read': {
      described: awsError('ThrottlingException'),
      want: { code: 'STORE_UNAVAILABLE' },
    },
  };
  test.each(Object.entries(disagreements))(
    'refused as an invalid request %s',
    async (_sentence, { described, want }) => {
      const { mock, ports } = adapter();
      mock.on(GetSecretValueCommand).rejects(awsError('InvalidRequestException'));
      if (described instanceof Error) mock.on(DescribeSecretCommand).rejects(described);
      else mock.on(DescribeSecretCommand).resolves(described);
      // Taken out of the object, as `interpose` does: a port must not need to know where it came from.
      const { readSecret } = ports;
      const asked = readSecret({ secretId: arn, versionId: token, label: 'AWSPENDING' });
      if (want === 'absent') expect(await asked).toBe('absent');
      else expect(await rejectionOf(asked)).toMatchObject(want);
    },
  );

  test('refused as an invalid request is a failure when no label was asked for', async () => {
    const { mock, ports } = adapter();
    mock.on(GetSecretValueCommand).rejects(awsError('InvalidRequestException'));
    expect(await rejectionOf(ports.readSecret({ secretId: arn, versionId: token }))).toMatchObject({
      code: 'STORE_REFUSED',
    });
    expect(mock.commandCalls(DescribeSecretCommand)).toEqual([]);
  });
});

describe('what the redactor learns', () => {
  const secrets: Record<string, { stored: string; hidden: readonly string[] }> = {
    'the password in a document': { stored: value, hidden: [password] },
    'the url in a document, which may spell the password in its own way': {
      stored: '{"url":"postgresql://orders:c%61nary0123456789@db.example.com:5432/orders"}',
      hidden: ['postgresql://orders:c%61nary0123456789@db.example.com:5432/orders'],
    },
    'a text that is no document': { stored: 'a canary that sings', hidden: ['a canary that sings'] },
    'a bare API key': { stored: 'rnd_canary0123456789', hidden: ['rnd_canary0123456789'] },
    'a bare API key that was stored with a line break': {
      stored: 'rnd_canary0123456789\n',
      hidden: ['rnd_canary0123456789'],
    },
    'an API key in a document': {
      stored: '{"apiKey":"rnd_canary0123456789"}',
      hidden: ['rnd_canary0123456789'],
    },
    'the token and uri of a vendor that has such': {
      stored: '{"token":"user:canary0123456789","uri":"https://canary.example.com"}',
      hidden: ['user:canary0123456789', 'https://canary.example.com'],
    },
  };
  test.each(Object.entries(secrets))('of a value that is read: %s', async (_sentence, { stored, hidden }) => {
    const { mock, ports, redactor } = adapter();
    mock.on(GetSecretValueCommand).resolves({ VersionId: token, SecretString: stored });
    await ports.readSecret({ secretId: arn, label: 'AWSCURRENT' });
    for (const text of hidden.flatMap(spellings)) expect(redactor.scrub(text)).not.toContain(text);
  });

  test.each(Object.entries(secrets))(
    'of a value that is written, even when the write fails: %s',
    async (_sentence, { stored, hidden }) => {
      const { mock, ports, redactor } = adapter();
      mock.on(PutSecretValueCommand).rejects(networkError());
      await rejectionOf(
        ports.writeSecret({
          guard: held,
          secretId: arn,
          token,
          value: new Sensitive(stored),
          label: 'AWSPENDING',
        }),
      );
      for (const text of hidden.flatMap(spellings)) expect(redactor.scrub(text)).not.toContain(text);
    },
  );

  test('of the first value of a secret as well', async () => {
    const { mock, ports, redactor } = adapter();
    mock.on(CreateSecretCommand).resolves({ ARN: arn });
    await ports.createSecret({
      guard: held,
      name: 'rekey/orders-api',
      token,
      value: new Sensitive(value),
      description: '',
    });
    expect(redactor.scrub(`got ${password}`)).toBe('got ‹redacted›');
  });

  test('names and hosts stay readable', async () => {
    const { mock, ports, redactor } = adapter();
    const stored = JSON.stringify({ username: 'orders_api_k3v9', host: 'db.example.com', password });
    mock.on(GetSecretValueCommand).resolves({ VersionId: token, SecretString: stored });
    await ports.readSecret({ secretId: arn, label: 'AWSCURRENT' });
    expect(redactor.scrub('orders_api_k3v9 at db.example.com')).toBe('orders_api_k3v9 at db.example.com');
  });
});

describe('a write', () => {
  test('stores the value once under its token, with one label', async () => {
    const { mock, ports } = adapter();
    mock.on(PutSecretValueCommand).resolves({ VersionId: token });
    const write = {
      guard: held,
      secretId: arn,
      token,
      value: new Sensitive(value),
      label: 'AWSPENDING',
    } as const;
    expect(await ports.writeSecret(write)).toBe('written');
    expect(mock.commandCalls(PutSecretValueCommand)[0]?.args[0].input).toEqual({
      SecretId: arn,
      ClientRequestToken: token,
      SecretString: value,
      VersionStages: ['AWSPENDING'],
    });
  });

  test('passes the RotationToken on, and the redactor learns it', async () => {
    const { mock, ports, redactor } = adapter();
    mock.on(PutSecretValueCommand).resolves({ VersionId: token });
    const rotationToken = 'rotation-canary-0000-1111-2222-3333-4444';
    await ports.writeSecret({
      guard: held,
      secretId: arn,
      token,
      value: new Sensitive(value),
      label: 'AWSPENDING',
      rotationToken: new Sensitive(rotationToken),
    });
    expect(mock.commandCalls(PutSecretValueCommand)[0]?.args[0].input.RotationToken).toBe(rotationToken);
    expect(redactor.scrub(`got ${rotationToken}`)).toBe('got ‹redacted›');
  });

  test('under a token that holds another value is taken', async () => {
    const { mock, ports } = adapter();
    mock.on(PutSecretValueCommand).rejects(awsError('ResourceExistsException'));
    expect(await calls.writeSecret.call(ports)).toBe('taken');
  });

  test('to a secret that does not exist is a failure', async () => {
    const { mock, ports } = adapter();
    mock.on(PutSecretValueCommand).rejects(awsError('ResourceNotFoundException'));
    expect(await rejectionOf(calls.writeSecret.call(ports))).toMatchObject({
      code: 'STORE_REFUSED',
      effect: 'none',
    });
  });
});

describe('moving a label', () => {
  const moves: Record<string, { move: { from?: string; to?: string }; sent: Record<string, string> }> = {
    'names the version that must hold it': {
      move: { from: older, to: token },
      sent: { RemoveFromVersionId: older, MoveToVersionId: token },
    },
    'that nobody holds names none': { move: { to: token }, sent: { MoveToVersionId: token } },
    'off a version names no other': { move: { from: token }, sent: { RemoveFromVersionId: token } },
  };
  test.each(Object.entries(moves))('%s', async (_sentence, { move, sent }) => {
    const { mock, ports } = adapter();
    mock.on(UpdateSecretVersionStageCommand).resolves({});
    expect(await ports.moveLabel({ guard: held, secretId: arn, label: 'AWSPENDING', ...move })).toBe('moved');
    expect(mock.commandCalls(UpdateSecretVersionStageCommand)[0]?.args[0].input).toEqual({
      SecretId: arn,
      VersionStage: 'AWSPENDING',
      ...sent,
    });
  });

  test.each(['InvalidParameterException', 'InvalidRequestException', 'ResourceNotFoundException'])(
    'that is refused with %s is a conflict: the labels are to be read again',
    async (name) => {
      const { mock, ports } = adapter();
      mock.on(UpdateSecretVersionStageCommand).rejects(awsError(name));
      expect(await calls.moveLabel.call(ports)).toBe('conflict');
    },
  );
});

describe('creating a secret', () => {
  test('stores its first value under a token that a repetition sends again', async () => {
    const { mock, ports } = adapter();
    mock.on(CreateSecretCommand).resolves({ ARN: arn });
    expect(await calls.createSecret.call(ports)).toBe('created');
    expect(mock.commandCalls(CreateSecretCommand)[0]?.args[0].input).toEqual({
      Name: 'rekey/orders-api',
      ClientRequestToken: token,
      SecretString: '{}',
      Description: 'a login',
    });
  });

  test('puts it under a key and into other Regions where it is told to', async () => {
    const { mock, ports } = adapter();
    mock.on(CreateSecretCommand).resolves({ ARN: arn });
    const keyArn = 'arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d';
    await ports.createSecret({
      guard: held,
      name: 'rekey/orders-api',
      token,
      value: new Sensitive('{}'),
      description: 'a login',
      keyArn,
      replicas: [{ region: 'eu-west-1', keyArn: 'arn:own' }, { region: 'us-east-1' }],
    });
    expect(mock.commandCalls(CreateSecretCommand)[0]?.args[0].input).toMatchObject({
      KmsKeyId: keyArn,
      AddReplicaRegions: [{ Region: 'eu-west-1', KmsKeyId: 'arn:own' }, { Region: 'us-east-1' }],
    });
  });

  test('of a name that is taken says so', async () => {
    const { mock, ports } = adapter();
    mock.on(CreateSecretCommand).rejects(awsError('ResourceExistsException'));
    expect(await calls.createSecret.call(ports)).toBe('exists');
  });

  test('of a name that is scheduled for deletion says so, for the description tells', async () => {
    const { mock, ports } = adapter();
    mock.on(CreateSecretCommand).rejects(awsError('InvalidRequestException'));
    mock
      .on(DescribeSecretCommand, { SecretId: 'rekey/orders-api' })
      .resolves({ ARN: arn, DeletedDate: new Date('2026-03-08T12:00:00Z') });
    expect(await calls.createSecret.call(ports)).toBe('exists');
  });

  test('that is refused although there is no such secret is a failure', async () => {
    const { mock, ports } = adapter();
    mock.on(CreateSecretCommand).rejects(awsError('InvalidRequestException'));
    mock.on(DescribeSecretCommand).rejects(awsError('ResourceNotFoundException'));
    expect(await rejectionOf(calls.createSecret.call(ports))).toMatchObject({ code: 'STORE_REFUSED' });
  });
});

describe('starting a rotation', () => {
  test('attaches function and interval, and rotates at once', async () => {
    const { mock, ports } = adapter();
    mock.on(RotateSecretCommand).resolves({ VersionId: token });
    expect(await calls.startRotation.call(ports)).toBe('started');
    expect(mock.commandCalls(RotateSecretCommand)[0]?.args[0].input).toEqual({
      SecretId: arn,
      ClientRequestToken: token,
      RotationLambdaARN: functionArn,
      RotationRules: { AutomaticallyAfterDays: 30 },
      RotateImmediately: true,
    });
  });

  test('can attach function and interval without rotating', async () => {
    const { mock, ports } = adapter();
    mock.on(RotateSecretCommand).resolves({ VersionId: token });
    const start = { guard: held, secretId: arn, token, functionArn, everyDays: 90, immediately: false };
    expect(await ports.startRotation(start)).toBe('started');
    expect(mock.commandCalls(RotateSecretCommand)[0]?.args[0].input).toMatchObject({
      RotationRules: { AutomaticallyAfterDays: 90 },
      RotateImmediately: false,
    });
  });

  const refusals: Record<
    string,
    { labels: Record<string, string[]> | 'no such secret'; want: 'in-progress' | { code: string } }
  > = {
    'finds one in progress where AWSPENDING is on a version that is not current': {
      labels: { [older]: ['AWSCURRENT'], [token]: ['AWSPENDING'] },
      want: 'in-progress',
    },
    'is a failure where AWSPENDING was left on the current version': {
      labels: { [older]: ['AWSPREVIOUS'], [token]: ['AWSCURRENT', 'AWSPENDING'] },
      want: { code: 'STORE_REFUSED' },
    },
    'is a failure where nothing is pending, whatever the text says': {
      labels: { [older]: ['AWSCURRENT'] },
      want: { code: 'STORE_REFUSED' },
    },
    'is a failure where the secret is gone': { labels: 'no such secret', want: { code: 'STORE_REFUSED' } },
  };
  test.each(Object.entries(refusals))('that is refused %s', async (_sentence, { labels, want }) => {
    const { mock, ports } = adapter();
    mock.on(RotateSecretCommand).rejects(
      Object.assign(awsError('InvalidRequestException'), {
        message: "A previous rotation isn't complete. That rotation will be reattempted.",
      }),
    );
    if (labels === 'no such secret')
      mock.on(DescribeSecretCommand).rejects(awsError('ResourceNotFoundException'));
    else mock.on(DescribeSecretCommand).resolves({ ARN: arn, VersionIdsToStages: labels });
    const asked = calls.startRotation.call(ports);
    if (want === 'in-progress') expect(await asked).toBe('in-progress');
    else expect(await rejectionOf(asked)).toMatchObject(want);
  });
});

describe('cancelling rotation', () => {
  test('switches it off', async () => {
    const { mock, ports } = adapter();
    mock.on(CancelRotateSecretCommand).resolves({ ARN: arn, VersionId: token });
    expect(await ports.cancelRotation({ guard: held, secretId: arn })).toBe('cancelled');
    expect(mock.commandCalls(CancelRotateSecretCommand)[0]?.args[0].input).toEqual({ SecretId: arn });
  });

  test('of a secret that does not exist says so', async () => {
    const { mock, ports } = adapter();
    mock.on(CancelRotateSecretCommand).rejects(awsError('ResourceNotFoundException'));
    expect(await ports.cancelRotation({ guard: held, secretId: arn })).toBe('absent');
  });

  const refusals: Record<
    string,
    { described: Partial<DescribeSecretCommandOutput> | Error; want: string | { code: string } }
  > = {
    'is done where rotation was off already': { described: { ARN: arn }, want: 'cancelled' },
    'is done where the secret is scheduled for deletion, in which no step goes on': {
      described: { ARN: arn, RotationEnabled: true, DeletedDate: new Date('2026-03-08T12:00:00Z') },
      want: 'cancelled',
    },
    'finds the secret gone meanwhile': { described: awsError('ResourceNotFoundException'), want: 'absent' },
    'is a failure where rotation is still on': {
      described: { ARN: arn, RotationEnabled: true },
      want: { code: 'STORE_REFUSED' },
    },
  };
  test.each(Object.entries(refusals))('that is refused %s', async (_sentence, { described, want }) => {
    const { mock, ports } = adapter();
    mock.on(CancelRotateSecretCommand).rejects(awsError('InvalidRequestException'));
    if (described instanceof Error) mock.on(DescribeSecretCommand).rejects(described);
    else mock.on(DescribeSecretCommand).resolves(described);
    const asked = ports.cancelRotation({ guard: held, secretId: arn });
    if (typeof want === 'string') expect(await asked).toBe(want);
    else expect(await rejectionOf(asked)).toMatchObject(want);
  });
});

describe('the versions of a secret', () => {
  const createdAt = new Date('2026-03-01T12:00:00Z');

  test('are all listed, those without a label and those of later pages too', async () => {
    const { mock, ports } = adapter();
    mock
      .on(ListSecretVersionIdsCommand)
      .resolvesOnce({ Versions: [], NextToken: 'second' })
      .resolvesOnce({
        Versions: [{ VersionId: token, VersionStages: ['AWSCURRENT', 'AWSPENDING'], CreatedDate: createdAt }],
        NextToken: 'third',
      })
      .resolvesOnce({
        Versions: [{ VersionId: older, CreatedDate: new Date('2026-02-01T12:00:00Z') }],
      });
    expect(await ports.listVersions({ secretId: arn })).toEqual([
      { versionId: token, labels: new Set(['AWSCURRENT', 'AWSPENDING']), createdAt },
      { versionId: older, labels: new Set(), createdAt: new Date('2026-02-01T12:00:00Z') },
    ]);
    expect(mock.commandCalls(ListSecretVersionIdsCommand).map(({ args: [{ input }] }) => input)).toEqual([
      { SecretId: arn, IncludeDeprecated: true },
      { SecretId: arn, IncludeDeprecated: true, NextToken: 'second' },
      { SecretId: arn, IncludeDeprecated: true, NextToken: 'third' },
    ]);
  });

  test('are absent where there is no such secret', async () => {
    const { mock, ports } = adapter();
    mock.on(ListSecretVersionIdsCommand).rejects(awsError('ResourceNotFoundException'));
    expect(await ports.listVersions({ secretId: arn })).toBe('absent');
  });

  test('are not listed in part: a page that fails fails the list', async () => {
    const { mock, ports } = adapter();
    mock
      .on(ListSecretVersionIdsCommand)
      .resolvesOnce({ Versions: [{ VersionId: token, CreatedDate: createdAt }], NextToken: 'second' })
      .rejectsOnce(awsError('ThrottlingException'));
    expect(await rejectionOf(ports.listVersions({ secretId: arn }))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    });
  });

  const broken: Record<string, { VersionId?: string; CreatedDate?: Date }> = {
    'without an id': { CreatedDate: createdAt },
    'without a date': { VersionId: token },
  };
  test.each(Object.entries(broken))('are not listed with one %s', async (_sentence, version) => {
    const { mock, ports } = adapter();
    mock.on(ListSecretVersionIdsCommand).resolves({ Versions: [version] });
    expect(await rejectionOf(ports.listVersions({ secretId: arn }))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    });
  });
});

describe('a list that leads back to a page it gave before', () => {
  test.each(['listVersions', 'listSecrets'] as const)('is refused: %s', async (port) => {
    const { mock, ports } = adapter();
    mock
      .onAnyCommand()
      .resolvesOnce({ NextToken: 'second' })
      .resolvesOnce({ NextToken: 'third' })
      .resolves({ NextToken: 'second' });
    expect(await rejectionOf(calls[port].call(ports))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    });
    expect(mock.calls()).toHaveLength(3);
  });
});

describe('the secrets below a prefix', () => {
  const other = 'arn:aws:secretsmanager:eu-central-1:111122223333:secret:rekey/billing-d4e5f6';

  const [made, rotated] = [new Date('2026-01-01T00:00:00Z'), new Date('2026-02-01T00:00:00Z')];
  const state = {
    rotationEnabled: true,
    createdAt: made,
    lastRotatedAt: rotated,
    changedAt: rotated,
    labelsByVersion: new Map([
      ['v2', new Set(['AWSCURRENT', 'AWSPENDING'])],
      ['v1', new Set(['AWSPREVIOUS'])],
    ]),
  };
  const nothing = { rotationEnabled: false, labelsByVersion: new Map() };

  test('are all listed with their labels and dates, and no others that the filter let pass', async () => {
    const { mock, ports } = adapter();
    mock
      .on(ListSecretsCommand)
      .resolvesOnce({
        SecretList: [
          {
            ARN: arn,
            Name: 'rekey/orders-api',
            RotationEnabled: true,
            CreatedDate: made,
            LastRotatedDate: rotated,
            LastChangedDate: rotated,
            SecretVersionsToStages: { v2: ['AWSCURRENT', 'AWSPENDING'], v1: ['AWSPREVIOUS'] },
          },
        ],
        NextToken: 'second',
      })
      .resolvesOnce({ SecretList: [], NextToken: 'third' })
      .resolvesOnce({
        SecretList: [
          { ARN: other, Name: 'rekey/billing' },
          { ARN: `${other}-x`, Name: 'rekeyed/billing' },
        ],
      });
    expect(await ports.listSecrets({ namePrefix: 'rekey/' })).toEqual([
      { arn, name: 'rekey/orders-api', isManaged: false, ...state },
      { arn: other, name: 'rekey/billing', isManaged: false, ...nothing },
    ]);
    expect(mock.commandCalls(ListSecretsCommand).map(({ args: [{ input }] }) => input)).toEqual([
      { Filters: [{ Key: 'name', Values: ['rekey/'] }] },
      { Filters: [{ Key: 'name', Values: ['rekey/'] }], NextToken: 'second' },
      { Filters: [{ Key: 'name', Values: ['rekey/'] }], NextToken: 'third' },
    ]);
  });

  test('say which of them another service of AWS looks after', async () => {
    const { mock, ports } = adapter();
    mock.on(ListSecretsCommand).resolves({
      SecretList: [
        { ARN: arn, Name: 'rekey/a', OwningService: 'rds' },
        { ARN: other, Name: 'rekey/b', Type: 'MongoDBAtlas' },
      ],
    });
    expect(await ports.listSecrets({ namePrefix: 'rekey/' })).toEqual([
      { arn, name: 'rekey/a', isManaged: true, ...nothing },
      { arn: other, name: 'rekey/b', isManaged: true, ...nothing },
    ]);
  });

  test('are not listed with one that has no name', async () => {
    const { mock, ports } = adapter();
    mock.on(ListSecretsCommand).resolves({ SecretList: [{ ARN: arn }] });
    expect(await rejectionOf(ports.listSecrets({ namePrefix: 'rekey/' }))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
  });
});

describe('deleting a secret', () => {
  test('leaves some days in which it can be restored', async () => {
    const { mock, ports } = adapter();
    mock.on(DeleteSecretCommand).resolves({ ARN: arn });
    expect(await ports.deleteSecret({ guard: held, secretId: arn, recoveryDays: 7 })).toBe('scheduled');
    expect(mock.commandCalls(DeleteSecretCommand)[0]?.args[0].input).toEqual({
      SecretId: arn,
      RecoveryWindowInDays: 7,
    });
  });

  test('that does not exist says so', async () => {
    const { mock, ports } = adapter();
    mock.on(DeleteSecretCommand).rejects(awsError('ResourceNotFoundException'));
    expect(await ports.deleteSecret({ guard: held, secretId: arn, recoveryDays: 7 })).toBe('absent');
  });

  const refusals: Record<
    string,
    { described: Partial<DescribeSecretCommandOutput> | Error; want: string | { code: string } }
  > = {
    'is done where it was scheduled before': {
      described: { ARN: arn, DeletedDate: new Date('2026-03-08T12:00:00Z') },
      want: 'scheduled',
    },
    'finds it gone meanwhile': { described: awsError('ResourceNotFoundException'), want: 'absent' },
    'waits for its replicas': {
      described: { ARN: arn, ReplicationStatus: [{ Region: 'eu-west-1', Status: 'InSync' }] },
      want: 'replicated',
    },
    'is a failure where nothing tells why': {
      described: { ARN: arn },
      want: { code: 'STORE_REFUSED' },
    },
  };
  test.each(Object.entries(refusals))('that is refused %s', async (_sentence, { described, want }) => {
    const { mock, ports } = adapter();
    if (described instanceof Error) mock.on(DescribeSecretCommand).rejects(described);
    else mock.on(DescribeSecretCommand).resolves(described);
    // By which name is not known for sure.
    for (const name of ['InvalidRequestException', 'InvalidParameterException']) {
      mock.on(DeleteSecretCommand).rejects(awsError(name));
      const asked = ports.deleteSecret({ guard: held, secretId: arn, recoveryDays: 7 });
      if (typeof want === 'string') expect(await asked).toBe(want);
      else expect(await rejectionOf(asked)).toMatchObject(want);
    }
  });
});

describe('replicas', () => {
  test('are described with what has become of them', async () => {
    const { mock, ports } = adapter();
    mock.on(DescribeSecretCommand).resolves({
      ARN: arn,
      ReplicationStatus: [
        { Region: 'eu-west-1', Status: 'InSync' },
        { Region: 'us-east-1', Status: 'InProgress' },
        { Region: 'us-west-2', Status: 'Failed', StatusMessage: 'Secret with this name already exists' },
        { Region: 'sa-east-1' },
      ],
    });
    expect(await ports.describeSecret({ secretId: arn })).toMatchObject({
      replicas: [
        { region: 'eu-west-1', status: 'in-sync' },
        { region: 'us-east-1', status: 'in-progress' },
        { region: 'us-west-2', status: 'failed', reason: 'Secret with this name already exists' },
        { region: 'sa-east-1', status: 'in-progress' },
      ],
    });
  });

  test.each([[undefined], [[]]])('are none where the description has %s', async (ReplicationStatus) => {
    const { mock, ports } = adapter();
    mock.on(DescribeSecretCommand).resolves({ ARN: arn, ...(ReplicationStatus && { ReplicationStatus }) });
    expect(await ports.describeSecret({ secretId: arn })).not.toHaveProperty('replicas');
  });

  test('are taken from the Regions that are named', async () => {
    const { mock, ports } = adapter();
    mock.on(RemoveRegionsFromReplicationCommand).resolves({ ARN: arn });
    expect(await ports.removeReplicas({ guard: held, secretId: arn, regions: ['eu-west-1'] })).toBe(
      'removed',
    );
    expect(mock.commandCalls(RemoveRegionsFromReplicationCommand)[0]?.args[0].input).toEqual({
      SecretId: arn,
      RemoveReplicaRegions: ['eu-west-1'],
    });
  });

  const refusals: Record<string, { described: DescribeSecretCommandOutput | Error; want: string | object }> =
    {
      'where somebody was first': {
        described: {
          ARN: arn,
          ReplicationStatus: [{ Region: 'us-east-1', Status: 'InSync' }],
          $metadata: {},
        },
        want: 'removed',
      },
      'where the secret is gone': { described: awsError('ResourceNotFoundException'), want: 'absent' },
      'is a failure where they are still there': {
        described: {
          ARN: arn,
          ReplicationStatus: [{ Region: 'eu-west-1', Status: 'InSync' }],
          $metadata: {},
        },
        want: { code: 'STORE_REFUSED' },
      },
    };
  test.each(Object.entries(refusals))('that cannot be taken %s', async (_sentence, { described, want }) => {
    const { mock, ports } = adapter();
    if (described instanceof Error) mock.on(DescribeSecretCommand).rejects(described);
    else mock.on(DescribeSecretCommand).resolves(described);
    for (const name of ['InvalidRequestException', 'InvalidParameterException']) {
      mock.on(RemoveRegionsFromReplicationCommand).rejects(awsError(name));
      const asked = ports.removeReplicas({ guard: held, secretId: arn, regions: ['eu-west-1'] });
      if (typeof want === 'string') expect(await asked).toBe(want);
      else expect(await rejectionOf(asked)).toMatchObject(want);
    }
    mock.on(RemoveRegionsFromReplicationCommand).rejects(awsError('ResourceNotFoundException'));
    expect(await ports.removeReplicas({ guard: held, secretId: arn, regions: ['eu-west-1'] })).toBe('absent');
  });
});
