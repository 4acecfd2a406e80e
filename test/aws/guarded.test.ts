import { CreateSecretCommand, DescribeSecretCommand } from '@aws-sdk/client-secrets-manager';
import { describe, expect, test } from 'vitest';
import { otherBuses } from '../../functions/aws/bus.ts';
import { parameterStore } from '../../functions/aws/parameters.ts';
import { secretsManager } from '../../functions/aws/secrets.ts';
import { RotationRefused, StoreError } from '../../functions/core/errors.ts';
import { Guard } from '../../functions/core/guard.ts';
import { createRedactor, Sensitive } from '../../functions/core/sensitive.ts';
import type { Fault } from '../../infra/local/aws/endpoint.ts';
import { functionArn, startSystem } from '../infra/local/aws/support.ts';
import { rejectionOf } from './support.ts';

const name = 'rekey/orders-api';
const first = 'f3c1a2b4-0000-4000-8000-000000000001';
const second = 'f3c1a2b4-0000-4000-8000-000000000002';

/**
 * The ports on the real SDK, which makes three attempts, over HTTP. The first attempt of `operation` meets `fault`, and takes three
 * seconds by the guards' clock; then `meanwhile` happens, before the SDK repeats it.
 */
async function start({
  operation,
  fault,
  meanwhile = () => undefined,
}: {
  readonly operation: string;
  readonly fault: Fault;
  readonly meanwhile?: () => void;
}) {
  let nowMs = Date.parse('2026-03-01T12:00:00Z');
  let attempts = 0;
  const system = await startSystem({
    maxAttempts: 3,
    eventBridge: { buses: ['deployments'] },
    onCall: (call) => {
      if (call.operation !== operation) return undefined;
      attempts += 1;
      if (attempts > 1) return undefined;
      nowMs += 3_000;
      meanwhile();
      return fault;
    },
  });
  if (operation !== 'CreateSecret')
    await system.secrets.send(
      new CreateSecretCommand({ Name: name, ClientRequestToken: first, SecretString: 'first value' }),
    );
  const clock = (): Date => new Date(nowMs);
  return {
    ...system,
    ports: {
      ...secretsManager(system.secrets, createRedactor(), clock),
      ...parameterStore(system.ssm, clock),
      notify: otherBuses(system.events, { sleep: async () => undefined }, clock),
    },
    attempts: () => attempts,
  };
}

type Started = Awaited<ReturnType<typeof start>>;

/** One change through each port that carries a guard. */
const changes: Record<string, (ports: Started['ports'], guard: Guard) => Promise<unknown>> = {
  PutSecretValue: ({ writeSecret }, guard) =>
    writeSecret({ guard, secretId: name, token: second, value: new Sensitive('next'), label: 'AWSPENDING' }),
  UpdateSecretVersionStage: ({ moveLabel }, guard) =>
    moveLabel({ guard, secretId: name, label: 'AWSPREVIOUS', to: first }),
  CreateSecret: ({ createSecret }, guard) =>
    createSecret({ guard, name, token: first, value: new Sensitive('{}'), description: 'a login' }),
  RotateSecret: ({ startRotation }, guard) =>
    startRotation({ guard, secretId: name, token: second, functionArn, everyDays: 30, immediately: true }),
  CancelRotateSecret: ({ cancelRotation }, guard) => cancelRotation({ guard, secretId: name }),
  RemoveRegionsFromReplication: ({ removeReplicas }, guard) =>
    removeReplicas({ guard, secretId: name, regions: ['eu-west-1'] }),
  DeleteSecret: ({ deleteSecret }, guard) => deleteSecret({ guard, secretId: name, recoveryDays: 7 }),
  PutParameter: ({ createParameter }, guard) =>
    createParameter({ guard, parameter: '/rekey/credentials/orders-api', document: '{}' }),
  DeleteParameter: ({ deleteParameter }, guard) =>
    deleteParameter({ guard, parameter: '/rekey/credentials/orders-api' }),
  PutEvents: ({ notify }, guard) =>
    notify({ guard, busName: 'deployments', type: 'CredentialUpdated', detail: {}, resources: [] }),
};

describe.each(Object.entries(changes))('%s', (operation, change) => {
  test('I16: that was throttled is not sent a second time once its reasons are gone', async () => {
    let objection: string | undefined;
    const { ports, attempts } = await start({
      operation,
      fault: { fault: 'throttle' },
      meanwhile: () => {
        objection = 'the labels have moved';
      },
    });
    const refused = await rejectionOf(
      change(
        ports,
        Guard.of(async () => objection),
      ),
    );
    expect(refused).toBeInstanceOf(RotationRefused);
    expect(refused).toMatchObject({
      code: 'SUPERSEDED',
      message: expect.stringContaining('the labels have moved; this write was not sent'),
    });
    expect(attempts()).toBe(1);
  });

  test('is repeated while they hold, and they are asked for again before each attempt', async () => {
    let asked = 0;
    const { ports, attempts } = await start({ operation, fault: { fault: 'throttle' } });
    await change(
      ports,
      Guard.of(async () => {
        asked += 1;
        return undefined;
      }),
      // What a stand-in refuses is another matter: it was sent.
    ).catch(() => undefined);
    expect(attempts()).toBeGreaterThanOrEqual(2);
    expect(asked).toBe(2);
  });
});

const beginning = {
  operation: 'DeleteSecret',
  fault: { fault: 'throttle' },
} as const;

test('a guard that cannot be asked keeps its own error, which the SDK neither repeats nor writes into', async () => {
  const { ports, attempts } = await start(beginning);
  // By its cause the SDK would take it for a broken connection, and ask again.
  const failure = new StoreError('STORE_UNAVAILABLE', 'none', 'GetParameters failed (ECONNRESET)', {
    cause: Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }),
  });
  let asked = 0;
  const guard = Guard.of(async () => {
    asked += 1;
    throw failure;
  });
  const thrown = await rejectionOf(ports.deleteSecret({ guard, secretId: name, recoveryDays: 7 }));
  expect(thrown).toBe(failure);
  expect(thrown).not.toHaveProperty('$metadata');
  expect(asked).toBe(1);
  expect(attempts()).toBe(0);
});

test('facts that come too late are STORE_UNAVAILABLE, and nothing is sent', async () => {
  let nowMs = Date.parse('2026-03-01T12:00:00Z');
  const { secrets, attempts } = await start(beginning);
  const { deleteSecret } = secretsManager(secrets, createRedactor(), () => new Date(nowMs));
  const guard = Guard.of(async () => {
    nowMs += 2_500;
    return undefined;
  });
  expect(await rejectionOf(deleteSecret({ guard, secretId: name, recoveryDays: 7 }))).toMatchObject({
    code: 'STORE_UNAVAILABLE',
    effect: 'none',
    message: expect.stringContaining('it was not sent'),
  });
  expect(attempts()).toBe(0);
});

test.each([{ fault: 'internal' }, { fault: 'reset-after' }, { fault: 'reset-before' }] as const)(
  'an attempt that met $fault may have been carried out: the error does not say that it was not sent',
  async (fault) => {
    let objection: string | undefined;
    const { ports, attempts, secrets } = await start({
      operation: 'DeleteSecret',
      fault,
      meanwhile: () => {
        objection = 'the credential is to stay';
      },
    });
    const guard = Guard.of(async () => objection);
    const thrown = await rejectionOf(ports.deleteSecret({ guard, secretId: name, recoveryDays: 7 }));
    expect(thrown).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'unknown',
      message: expect.stringMatching(
        /DeleteSecret of .* may have been carried out.*the credential is to stay/,
      ),
    });
    expect(attempts()).toBe(1);
    const { DeletedDate } = await secrets.send(new DescribeSecretCommand({ SecretId: name }));
    expect(DeletedDate !== undefined).toBe(fault.fault === 'reset-after');
  },
);
