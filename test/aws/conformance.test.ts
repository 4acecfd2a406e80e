import { createHash } from 'node:crypto';
import { CreateSecretCommand } from '@aws-sdk/client-secrets-manager';
import { SQSClient } from '@aws-sdk/client-sqs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { eventBridge, otherBuses } from '../../functions/aws/bus.ts';
import { parameterStore } from '../../functions/aws/parameters.ts';
import { redelivery, startQueue as startsPort, targetQueue } from '../../functions/aws/queue.ts';
import { secretsManager } from '../../functions/aws/secrets.ts';
import type { RekeyEvent } from '../../functions/core/events.ts';
import { createRedactor, Sensitive } from '../../functions/core/sensitive.ts';
import { type Fault, startAwsEndpoint } from '../../infra/local/aws/endpoint.ts';
import { createQueues } from '../../infra/local/aws/queues.ts';
import type { Variants } from '../../infra/local/aws/secrets-manager/model.ts';
import type { RotationEvent } from '../../infra/local/aws/secrets-manager/rotation.ts';
import {
  account,
  functionArn,
  region,
  type SystemOptions,
  startSystem,
  testClock,
} from '../infra/local/aws/support.ts';
import { held, rejectionOf } from './support.ts';

const first = 'f3c1a2b4-0000-4000-8000-000000000001';
const second = 'f3c1a2b4-0000-4000-8000-000000000002';
const third = 'f3c1a2b4-0000-4000-8000-000000000003';
const name = 'rekey/orders-api';
const parameter = '/rekey/credentials/orders-api';

const created: RekeyEvent = {
  type: 'CredentialCreated',
  detail: { credential: 'orders-api', provider: 'acme', target: 'db-1', strategy: 'replace-user' },
};

/** The ports on the real SDK, against the local services behind a loopback endpoint. */
async function start(options: SystemOptions = {}) {
  const faults: { operation: string; fault: Fault }[] = [];
  const system = await startSystem({
    ...options,
    eventBridge: { buses: ['rekey-bus', 'deployments'] },
    onCall: ({ operation }) => (faults[0]?.operation === operation ? faults.shift()?.fault : undefined),
  });
  const ports = {
    ...secretsManager(system.secrets, createRedactor(), () => new Date()),
    ...parameterStore(system.ssm),
    publish: eventBridge(system.events, 'rekey-bus', { sleep: async () => undefined }),
    notify: otherBuses(system.events, { sleep: async () => undefined }, () => new Date()),
  };
  const labels = async (): Promise<Record<string, readonly string[]>> => {
    const described = await ports.describeSecret({ secretId: name });
    if (described === 'absent') throw new Error('expected a secret');
    return Object.fromEntries(
      [...described.labelsByVersion].map(([version, held]) => [version, [...held].sort()]),
    );
  };
  const read = async (versionId?: string): Promise<string> => {
    const found = await ports.readSecret({
      secretId: name,
      ...(versionId === undefined ? {} : { versionId }),
    });
    return found === 'absent' ? 'absent' : found.value.reveal();
  };
  /** Disturbs the next calls of an operation, one fault a call; then all goes well again. */
  const disturb = (operation: string, ...next: readonly Fault[]): void => {
    faults.push(...next.map((fault) => ({ operation, fault })));
  };
  return { ...system, ports, labels, read, disturb };
}

type Started = Awaited<ReturnType<typeof start>>;

const makeSecret = ({ ports }: Pick<Started, 'ports'>) =>
  ports.createSecret({
    guard: held,
    name,
    token: first,
    value: new Sensitive('first value'),
    description: 'a login',
  });

const beginRotation = ({ ports }: Pick<Started, 'ports'>, token = second, immediately = true) =>
  ports.startRotation({ guard: held, secretId: name, token, functionArn, everyDays: 30, immediately });

const valueFor = (token: string): Sensitive => new Sensitive(`value of ${token}`);

/** One step of a rotation through the ports, each call made more than once where that must change nothing. */
async function step({ ports }: Pick<Started, 'ports'>, event: RotationEvent): Promise<readonly string[]> {
  const { SecretId: secretId, ClientRequestToken: token } = event;
  switch (event.Step) {
    case 'createSecret': {
      const pending = await ports.readSecret({ secretId, versionId: token, label: 'AWSPENDING' });
      const write = (value: Sensitive) =>
        ports.writeSecret({
          guard: held,
          secretId,
          token,
          label: 'AWSPENDING',
          value,
          rotationToken: new Sensitive(event.RotationToken),
        });
      return [
        pending === 'absent' ? 'no value yet' : 'a value',
        await write(valueFor(token)),
        await write(valueFor(token)),
        await write(new Sensitive('another value')),
      ];
    }
    case 'setSecret':
      return [];
    case 'testSecret': {
      const pending = await ports.readSecret({ secretId, versionId: token, label: 'AWSPENDING' });
      return [pending === 'absent' ? 'absent' : pending.value.reveal()];
    }
    case 'finishSecret': {
      const described = await ports.describeSecret({ secretId });
      if (described === 'absent') throw new Error('expected a secret');
      const holder = [...described.labelsByVersion].find(([, held]) => held.has('AWSCURRENT'))?.[0] ?? '';
      const move = { guard: held, secretId, label: 'AWSCURRENT', to: token } as const;
      return [
        `without the holder ${await ports.moveLabel(move)}`,
        `from a version that does not hold it ${await ports.moveLabel({ ...move, from: token })}`,
        `from the holder ${await ports.moveLabel({ ...move, from: holder })}`,
        `from the former holder ${await ports.moveLabel({ ...move, from: holder })}`,
        `AWSPENDING ${await ports.moveLabel({ guard: held, secretId, label: 'AWSPENDING', from: token })}`,
      ];
    }
    default:
      return event.Step satisfies never;
  }
}

/** Runs whole rotations, and keeps what each step saw. */
async function startRotating(variants: Partial<Variants>) {
  const seen: (readonly string[])[] = [];
  let run: (event: RotationEvent) => Promise<readonly string[]> = async () => [];
  const started = await start({
    variants,
    invoke: async (_arn, event) => {
      seen.push(await run(event));
      return { ok: true };
    },
  });
  run = (event) => step(started, event);
  return { ...started, seen };
}

describe('one rotation after another', () => {
  const steps = (token: string, pending: 'moved' | 'conflict') => [
    ['no value yet', 'written', 'written', 'taken'],
    [],
    [`value of ${token}`],
    [
      'without the holder conflict',
      'from a version that does not hold it conflict',
      'from the holder moved',
      'from the former holder conflict',
      `AWSPENDING ${pending}`,
    ],
  ];
  const variants: Record<string, { variants: Partial<Variants>; pending: 'moved' | 'conflict' }> = {
    'where AWSPENDING stays on the current version': {
      variants: { pendingAfterRotation: 'with-current' },
      pending: 'moved',
    },
    'where AWSPENDING goes when the rotation is over': {
      variants: { pendingAfterRotation: 'gone' },
      pending: 'moved',
    },
    'where AWSPENDING goes with the move of AWSCURRENT': {
      variants: { pendingAfterRotation: 'gone-with-move' },
      pending: 'conflict',
    },
    'where an empty version is named by its label': {
      variants: { placeholderText: 'label' },
      pending: 'moved',
    },
    'where an empty version is named by its id': {
      variants: { placeholderText: 'version' },
      pending: 'moved',
    },
  };
  test.each(Object.entries(variants))('%s', async (_sentence, { variants: behaviour, pending }) => {
    const system = await startRotating(behaviour);
    expect(await makeSecret(system)).toBe('created');
    expect(await system.labels()).toEqual({ [first]: ['AWSCURRENT'] });

    expect(await beginRotation(system)).toBe('started');
    await system.secretsManager.idle();
    expect(system.seen).toEqual(steps(second, pending));
    expect(await system.labels()).toEqual({ [first]: ['AWSPREVIOUS'], [second]: ['AWSCURRENT'] });
    expect(await system.read()).toBe(`value of ${second}`);

    expect(await beginRotation(system, third)).toBe('started');
    await system.secretsManager.idle();
    expect(system.seen.slice(4)).toEqual(steps(third, pending));
    expect(await system.labels()).toEqual({ [second]: ['AWSPREVIOUS'], [third]: ['AWSCURRENT'] });
    expect(await system.read()).toBe(`value of ${third}`);
    expect(await system.read(second)).toBe(`value of ${second}`);
    expect(await system.ports.describeSecret({ secretId: name })).toMatchObject({
      name,
      rotationEnabled: true,
      createdAt: new Date('2026-03-01T12:00:00Z'),
      lastRotatedAt: new Date('2026-03-01T12:00:00Z'),
    });
    expect(system.defects).toEqual([]);
  });

  test('a rotation that is not over is in progress, under whatever text', async () => {
    const system = await start({
      variants: { inProgressText: 'Previous rotation request is still in progress.', retryDelaysMs: [] },
      invoke: async () => ({ ok: false, error: 'the function failed' }),
    });
    await makeSecret(system);
    expect(await beginRotation(system)).toBe('started');
    await system.secretsManager.idle();
    expect(await beginRotation(system, third)).toBe('in-progress');
    expect(await system.labels()).toEqual({ [first]: ['AWSCURRENT'], [second]: ['AWSPENDING'] });
  });

  test('attached without rotating, the function is only tested', async () => {
    const steps: string[] = [];
    const system = await start({
      invoke: async (_arn, { Step }) => {
        steps.push(Step);
        return { ok: true };
      },
    });
    await makeSecret(system);
    expect(await beginRotation(system, second, false)).toBe('started');
    await system.secretsManager.idle();
    expect(steps).toEqual(['testSecret']);
    expect(await system.labels()).toEqual({ [first]: ['AWSCURRENT'] });
    expect(await system.ports.describeSecret({ secretId: name })).toMatchObject({ rotationEnabled: true });
  });

  test('cancelled, nothing goes on, and the labels stay where they are', async () => {
    const system = await start({
      variants: { retryDelaysMs: [] },
      invoke: async () => ({ ok: false, error: 'the function failed' }),
    });
    await makeSecret(system);
    await beginRotation(system);
    await system.secretsManager.idle();
    expect(await system.ports.cancelRotation({ guard: held, secretId: name })).toBe('cancelled');
    expect(await system.ports.cancelRotation({ guard: held, secretId: name })).toBe('cancelled');
    expect(await system.labels()).toEqual({ [first]: ['AWSCURRENT'], [second]: ['AWSPENDING'] });
    expect(await system.ports.describeSecret({ secretId: name })).toMatchObject({ rotationEnabled: false });
    expect(await system.ports.cancelRotation({ guard: held, secretId: 'rekey/billing' })).toBe('absent');
  });

  test('a function that Secrets Manager may not call is denied, and rotation stays off', async () => {
    const system = await start({ mayInvoke: () => false });
    await makeSecret(system);
    expect(await rejectionOf(beginRotation(system))).toMatchObject({ code: 'STORE_DENIED', effect: 'none' });
    expect(await system.ports.describeSecret({ secretId: name })).toMatchObject({ rotationEnabled: false });
  });
});

describe('what is not there', () => {
  test('is absent: an unknown secret, version or label', async () => {
    const system = await start();
    const { readSecret, describeSecret, readParameter } = system.ports;
    expect(await describeSecret({ secretId: name })).toBe('absent');
    expect(await system.read()).toBe('absent');
    await makeSecret(system);
    expect(await system.read(second)).toBe('absent');
    expect(await readSecret({ secretId: name, label: 'AWSPENDING' })).toBe('absent');
    expect(await readSecret({ secretId: name, versionId: second, label: 'AWSPENDING' })).toBe('absent');
    expect(await readSecret({ secretId: name, versionId: first, label: 'AWSPENDING' })).toBe('absent');
    expect(await readParameter({ parameter })).toBe('absent');
  });

  test('is not what is scheduled for deletion: that is refused, and the description tells', async () => {
    const system = await start();
    await makeSecret(system);
    const { readSecret, describeSecret, moveLabel, writeSecret, deleteSecret } = system.ports;
    await deleteSecret({ guard: held, secretId: name, recoveryDays: 7 });
    const refused = { code: 'STORE_REFUSED', effect: 'none' };
    expect(await describeSecret({ secretId: name })).toMatchObject({
      deletedAt: new Date('2026-03-08T12:00:00Z'),
    });
    expect(await rejectionOf(system.read())).toMatchObject(refused);
    expect(
      await rejectionOf(readSecret({ secretId: name, versionId: first, label: 'AWSPENDING' })),
    ).toMatchObject(refused);
    expect(
      await rejectionOf(
        writeSecret({
          guard: held,
          secretId: name,
          token: second,
          value: valueFor(second),
          label: 'AWSPENDING',
        }),
      ),
    ).toMatchObject(refused);
    expect(await moveLabel({ guard: held, secretId: name, label: 'AWSPENDING', to: first })).toBe('conflict');
    expect(await rejectionOf(beginRotation(system))).toMatchObject(refused);
    expect(await system.ports.cancelRotation({ guard: held, secretId: name })).toBe('cancelled');
    expect(await system.ports.listVersions({ secretId: name })).toMatchObject([{ versionId: first }]);
    expect(await system.ports.listSecrets({ namePrefix: 'rekey/' })).toEqual([]);
    expect(
      await system.ports.createSecret({
        guard: held,
        name,
        token: second,
        value: new Sensitive('{}'),
        description: '',
      }),
    ).toBe('exists');
  });
});

describe('a secret that exists', () => {
  test('is made once, however often it is asked for', async () => {
    const system = await start();
    expect(await makeSecret(system)).toBe('created');
    expect(await makeSecret(system)).toBe('created');
    expect(
      await system.ports.createSecret({
        guard: held,
        name,
        token: second,
        value: new Sensitive('another value'),
        description: '',
      }),
    ).toBe('exists');
    expect(
      await system.ports.createSecret({
        guard: held,
        name,
        token: first,
        value: new Sensitive('another value'),
        description: '',
      }),
    ).toBe('exists');
    expect(await system.read()).toBe('first value');
  });
});

describe('the versions of a secret', () => {
  test('are all listed, the ones without a label too, whatever the pages hold', async () => {
    const system = await startRotating({ emptyPages: 2 });
    await makeSecret(system);
    for (const token of [second, third]) {
      await beginRotation(system, token);
      await system.secretsManager.idle();
    }
    const versions = await system.ports.listVersions({ secretId: name });
    if (versions === 'absent') throw new Error('expected versions');
    const createdAt = new Date('2026-03-01T12:00:00Z');
    expect(versions.toSorted((a, b) => (a.versionId < b.versionId ? -1 : 1))).toEqual([
      { versionId: first, labels: new Set(), createdAt },
      { versionId: second, labels: new Set(['AWSPREVIOUS']), createdAt },
      { versionId: third, labels: new Set(['AWSCURRENT']), createdAt },
    ]);
  });

  test('are more than a page holds', async () => {
    const system = await start({ variants: { versionLimit: 200 } });
    await makeSecret(system);
    const tokens = Array.from(
      { length: 105 },
      (_, index) => `f3c1a2b4-0000-4000-9000-${index + 10_000_000_000}x`,
    );
    for (const token of tokens)
      await system.ports.writeSecret({
        guard: held,
        secretId: name,
        token,
        value: valueFor(token),
        label: 'AWSPENDING',
      });
    const versions = await system.ports.listVersions({ secretId: name });
    expect(new Set(versions === 'absent' ? [] : versions.map(({ versionId }) => versionId))).toEqual(
      new Set([first, ...tokens]),
    );
  });

  test('are absent where there is no such secret', async () => {
    const { ports } = await start();
    expect(await ports.listVersions({ secretId: name })).toBe('absent');
  });
});

describe('the secrets below a prefix', () => {
  test('are all listed, page by page, and no others', async () => {
    const system = await start({ variants: { emptyPages: 1 } });
    const names = Array.from({ length: 101 }, (_, index) => `rekey/c${index}`);
    for (const each of [...names, 'rekey-other', 'orders', 'Rekey/c1'])
      await system.secrets.send(new CreateSecretCommand({ Name: each, SecretString: '{}' }));
    const listed = await system.ports.listSecrets({ namePrefix: 'rekey/' });
    expect(new Set(listed.map((secret) => secret.name))).toEqual(new Set(names));
    expect(listed).toHaveLength(101);
    expect(listed[0]).toMatchObject({ arn: expect.stringContaining(':secret:rekey/c'), isManaged: false });
  });

  test('say which of them another service or a partner looks after', async () => {
    const system = await start();
    for (const secret of [
      { Name: 'rds!cluster-1' },
      { Name: 'rds-partner', Type: 'MongoDBAtlas' },
      { Name: 'rds' },
    ])
      await system.secrets.send(new CreateSecretCommand({ ...secret, SecretString: '{}' }));
    const listed = await system.ports.listSecrets({ namePrefix: 'rds' });
    expect(Object.fromEntries(listed.map((secret) => [secret.name, secret.isManaged]))).toEqual({
      'rds!cluster-1': true,
      'rds-partner': true,
      rds: false,
    });
  });
});

describe('deleting a secret', () => {
  test.each(['error', 'success'] as const)(
    'schedules it once, where asking again is answered with %s',
    async (secondDelete) => {
      const system = await start({ variants: { secondDelete } });
      const { deleteSecret, describeSecret } = system.ports;
      await makeSecret(system);
      expect(await deleteSecret({ guard: held, secretId: name, recoveryDays: 7 })).toBe('scheduled');
      expect(await deleteSecret({ guard: held, secretId: name, recoveryDays: 30 })).toBe('scheduled');
      expect(await describeSecret({ secretId: name })).toMatchObject({
        deletedAt: new Date('2026-03-08T12:00:00Z'),
      });
      expect(await deleteSecret({ guard: held, secretId: 'rekey/billing', recoveryDays: 7 })).toBe('absent');
    },
  );

  test('refuses a window that Secrets Manager does not offer, and changes nothing', async () => {
    const system = await start();
    await makeSecret(system);
    expect(
      await rejectionOf(system.ports.deleteSecret({ guard: held, secretId: name, recoveryDays: 6 })),
    ).toMatchObject({
      code: 'STORE_REFUSED',
      effect: 'none',
    });
    expect(await system.read()).toBe('first value');
  });
});

describe('reads that lag behind', () => {
  test('say absent for a while, then the truth', async () => {
    const system = await start({ variants: { staleReads: { GetSecretValue: 1, DescribeSecret: 1 } } });
    await makeSecret(system);
    expect(await system.read()).toBe('absent');
    expect(await system.read()).toBe('first value');
    expect(await system.ports.describeSecret({ secretId: name })).toBe('absent');
    expect(await system.labels()).toEqual({ [first]: ['AWSCURRENT'] });
  });

  test('cannot make two rotations both move AWSCURRENT', async () => {
    const system = await start();
    const { writeSecret, moveLabel } = system.ports;
    await makeSecret(system);
    for (const token of [second, third])
      await writeSecret({ guard: held, secretId: name, token, value: valueFor(token), label: 'AWSPENDING' });
    system.secretsManager.setVariants({ staleReads: { DescribeSecret: 1 } });
    const move = { guard: held, secretId: name, label: 'AWSCURRENT', from: first } as const;
    expect(await moveLabel({ ...move, to: second })).toBe('moved');
    expect(await system.labels()).toEqual({ [first]: ['AWSCURRENT'], [third]: ['AWSPENDING'] });
    expect(await moveLabel({ ...move, to: third })).toBe('conflict');
    expect(await system.labels()).toEqual({
      [first]: ['AWSPREVIOUS'],
      [second]: ['AWSCURRENT'],
      [third]: ['AWSPENDING'],
    });
  });

  test('make a value neither absent nor found while the two reads disagree', async () => {
    const system = await start();
    const { writeSecret, moveLabel, readSecret } = system.ports;
    await makeSecret(system);
    await writeSecret({
      guard: held,
      secretId: name,
      token: second,
      value: valueFor(second),
      label: 'AWSPENDING',
    });
    system.secretsManager.setVariants({ staleReads: { DescribeSecret: 1 } });
    await moveLabel({ guard: held, secretId: name, label: 'AWSPENDING', from: second });
    const pending = { secretId: name, versionId: second, label: 'AWSPENDING' } as const;
    expect(await rejectionOf(readSecret(pending))).toMatchObject({ code: 'STORE_REFUSED' });
    expect(await readSecret(pending)).toBe('absent');
  });
});

/** The port that makes each call, and the same call again. */
const portOf: Record<string, (started: Pick<Started, 'ports'>) => Promise<unknown>> = {
  DescribeSecret: ({ ports }) => ports.describeSecret({ secretId: name }),
  GetSecretValue: ({ ports }) => ports.readSecret({ secretId: name }),
  CreateSecret: ({ ports }) =>
    ports.createSecret({
      guard: held,
      name: 'rekey/billing',
      token: second,
      value: new Sensitive('{}'),
      description: '',
    }),
  PutSecretValue: ({ ports }) =>
    ports.writeSecret({
      guard: held,
      secretId: name,
      token: second,
      value: valueFor(second),
      label: 'AWSPENDING',
    }),
  UpdateSecretVersionStage: ({ ports }) =>
    ports.moveLabel({ guard: held, secretId: name, label: 'AWSPREVIOUS', to: first }),
  RotateSecret: beginRotation,
  CancelRotateSecret: ({ ports }) => ports.cancelRotation({ guard: held, secretId: name }),
  ListSecretVersionIds: ({ ports }) => ports.listVersions({ secretId: name }),
  ListSecrets: ({ ports }) => ports.listSecrets({ namePrefix: 'rekey/' }),
  DeleteSecret: ({ ports }) => ports.deleteSecret({ guard: held, secretId: name, recoveryDays: 7 }),
  GetParameter: ({ ports }) => ports.readParameter({ parameter }),
  PutParameter: ({ ports }) => ports.createParameter({ parameter, document: '{}' }),
  GetParameters: ({ ports }) => ports.readParameters({ parameters: [parameter] }),
  GetParametersByPath: ({ ports }) => ports.listParameters({ path: '/rekey/credentials/' }),
  DeleteParameter: ({ ports }) => ports.deleteParameter({ parameter }),
  PutEvents: ({ ports }) => ports.publish([created]),
};
const reads = [
  'DescribeSecret',
  'GetSecretValue',
  'ListSecretVersionIds',
  'ListSecrets',
  'GetParameter',
  'GetParameters',
  'GetParametersByPath',
];

describe('a single attempt', () => {
  const faults: Record<string, { fault: Fault; code: string; whenWriting: string }> = {
    'that is throttled': {
      fault: { fault: 'throttle' },
      code: 'STORE_UNAVAILABLE',
      whenWriting: 'none',
    },
    'that meets an internal error': {
      fault: { fault: 'internal' },
      code: 'STORE_UNAVAILABLE',
      whenWriting: 'unknown',
    },
    'that is denied': { fault: { fault: 'access-denied' }, code: 'STORE_DENIED', whenWriting: 'none' },
    'that the key refuses': {
      fault: { fault: 'error', name: 'DecryptionFailure', message: '' },
      code: 'STORE_DENIED',
      whenWriting: 'none',
    },
    'whose request is lost': {
      fault: { fault: 'reset-before' },
      code: 'STORE_UNAVAILABLE',
      whenWriting: 'unknown',
    },
    'whose answer is lost': {
      fault: { fault: 'reset-after' },
      code: 'STORE_UNAVAILABLE',
      whenWriting: 'unknown',
    },
  };
  describe.each(Object.entries(faults))('%s', (_sentence, { fault, code, whenWriting }) => {
    test.each(Object.entries(portOf))('fails as what it is: %s', async (operation, call) => {
      const system = await start();
      await makeSecret(system);
      if (operation === 'GetParameter' || operation === 'DeleteParameter')
        await system.ports.createParameter({ parameter, document: '{}' });
      system.disturb(operation, fault);
      const effect = reads.includes(operation) ? 'none' : whenWriting;
      expect(await rejectionOf(call(system))).toMatchObject({ name: 'StoreError', code, effect });
    });
  });
});

test('what AWS says of a failure is kept beside the message, with the id of the request', async () => {
  const system = await start();
  await makeSecret(system);
  const message = 'Access to KMS is not allowed';
  system.disturb('GetSecretValue', { fault: 'error', name: 'AccessDeniedException', message });
  const thrown = await rejectionOf(system.ports.readSecret({ secretId: name }));
  expect(thrown).toMatchObject({
    code: 'STORE_DENIED',
    message: expect.not.stringContaining(message),
    detail: { message, requestId: expect.stringMatching(/^[0-9a-f-]{36}$/) },
  });
});

test('ten parameters are read in one call, more are refused by Parameter Store', async () => {
  const { ports } = await start();
  await ports.createParameter({ parameter, document: '{}' });
  const others = Array.from({ length: 10 }, (_, index) => `/rekey/credentials/other-${index}`);
  expect(await ports.readParameters({ parameters: [parameter, ...others.slice(1)] })).toEqual(
    new Map([[parameter, '{}']]),
  );
  expect(await rejectionOf(ports.readParameters({ parameters: [parameter, ...others] }))).toMatchObject({
    code: 'STORE_REFUSED',
  });
});

describe('the attempts that the SDK makes by itself', () => {
  const lost: Fault = { fault: 'reset-after' };

  test.each(['PutSecretValue', 'PutEvents'])('get over one that is throttled: %s', async (operation) => {
    const system = await start({ maxAttempts: 3 });
    await makeSecret(system);
    system.disturb(operation, { fault: 'throttle' });
    await portOf[operation]?.(system);
  });

  test('write a value once, though the first answer was lost', async () => {
    const system = await start({ maxAttempts: 3 });
    await makeSecret(system);
    system.disturb('PutSecretValue', lost);
    expect(await portOf['PutSecretValue']?.(system)).toBe('written');
    expect(await system.read(second)).toBe(`value of ${second}`);
    expect(await system.labels()).toEqual({ [first]: ['AWSCURRENT'], [second]: ['AWSPENDING'] });
  });

  test('make a secret once, though the first answer was lost', async () => {
    const system = await start({ maxAttempts: 3 });
    system.disturb('CreateSecret', lost);
    expect(await makeSecret(system)).toBe('created');
    expect(await system.labels()).toEqual({ [first]: ['AWSCURRENT'] });
  });

  test('start one rotation, though the first answer was lost', async () => {
    const system = await start({ maxAttempts: 3 });
    await makeSecret(system);
    system.disturb('RotateSecret', lost);
    expect(await beginRotation(system)).toBe('started');
    expect(system.calls.map(({ ClientRequestToken }) => ClientRequestToken)).toEqual([
      second,
      second,
      second,
      second,
    ]);
  });

  test('move a label once, and call it a conflict when the answer was lost: the labels tell', async () => {
    const system = await start({ maxAttempts: 3 });
    await makeSecret(system);
    await portOf['PutSecretValue']?.(system);
    system.disturb('UpdateSecretVersionStage', lost);
    const move = { guard: held, secretId: name, label: 'AWSCURRENT', from: first, to: second } as const;
    expect(await system.ports.moveLabel(move)).toBe('conflict');
    expect(await system.labels()).toEqual({
      [first]: ['AWSPREVIOUS'],
      [second]: ['AWSCURRENT', 'AWSPENDING'],
    });
  });

  test('find their own spec, when the answer was lost', async () => {
    const system = await start({ maxAttempts: 3 });
    system.disturb('PutParameter', lost);
    expect(await system.ports.createParameter({ parameter, document: '{"name":"orders-api"}' })).toBe(
      'exists',
    );
    expect(await system.ports.readParameter({ parameter })).toBe('{"name":"orders-api"}');
  });

  test('publish an event once more rather than not at all', async () => {
    const system = await start({ maxAttempts: 3 });
    system.disturb('PutEvents', lost);
    await system.ports.publish([created]);
    expect(system.eventBridge.history('rekey-bus').map(({ detail }) => detail['credential'])).toEqual([
      'orders-api',
      'orders-api',
    ]);
  });

  test('schedule one deletion, though the first answer was lost', async () => {
    const system = await start({ maxAttempts: 3 });
    await makeSecret(system);
    system.disturb('DeleteSecret', lost);
    expect(await portOf['DeleteSecret']?.(system)).toBe('scheduled');
    expect(await system.ports.describeSecret({ secretId: name })).toMatchObject({
      deletedAt: new Date('2026-03-08T12:00:00Z'),
    });
  });

  test('find a parameter gone that they deleted, when the answer was lost', async () => {
    const system = await start({ maxAttempts: 3 });
    await system.ports.writeParameter({ parameter, document: '{}' });
    system.disturb('DeleteParameter', lost);
    expect(await portOf['DeleteParameter']?.(system)).toBe('absent');
    expect(await system.ports.readParameter({ parameter })).toBe('absent');
  });

  const refusals: Record<string, { faults: readonly Fault[]; code: string }> = {
    'though the last one was throttled': {
      faults: [lost, { fault: 'throttle' }, { fault: 'throttle' }],
      code: 'STORE_UNAVAILABLE',
    },
    'though the last one was denied': { faults: [lost, { fault: 'access-denied' }], code: 'STORE_DENIED' },
  };
  test.each(Object.entries(refusals))(
    'never claim that nothing was done after a lost answer, %s',
    async (_sentence, { faults, code }) => {
      const system = await start({ maxAttempts: 3 });
      await makeSecret(system);
      system.disturb('PutSecretValue', ...faults);
      expect(await rejectionOf(Promise.resolve(portOf['PutSecretValue']?.(system)))).toMatchObject({
        code,
        effect: 'unknown',
      });
      expect(await system.read(second)).toBe(`value of ${second}`);
    },
  );
});

describe('parameters', () => {
  test('are written once and read back as they were', async () => {
    const { ports } = await start();
    expect(await ports.createParameter({ parameter, document: '{"name":"orders-api"}' })).toBe('written');
    expect(await ports.createParameter({ parameter, document: '{"name":"other"}' })).toBe('exists');
    expect(await ports.readParameter({ parameter })).toBe('{"name":"orders-api"}');
  });

  test('are overwritten where that is meant, and deleted once', async () => {
    const { ports } = await start();
    await ports.writeParameter({ parameter, document: 'one' });
    await ports.writeParameter({ parameter, document: 'two' });
    expect(await ports.readParameter({ parameter })).toBe('two');
    expect(await ports.deleteParameter({ parameter })).toBe('deleted');
    expect(await ports.deleteParameter({ parameter })).toBe('absent');
    expect(await ports.readParameter({ parameter })).toBe('absent');
  });

  test('below a path are all listed, at any depth, and no others', async () => {
    const { ports } = await start();
    const below = Array.from({ length: 23 }, (_, index) => `/rekey/credentials/c${index}`);
    const deep = '/rekey/credentials/deep/er';
    for (const each of [...below, deep, '/rekey/credentialsx/a', '/rekey/directives/b', '/other'])
      await ports.writeParameter({ parameter: each, document: `document of ${each}` });
    const listed = await ports.listParameters({ path: '/rekey/credentials/' });
    expect(new Map(listed.map((each) => [each.parameter, each.document]))).toEqual(
      new Map([...below, deep].map((each) => [each, `document of ${each}`])),
    );
    expect(listed).toHaveLength(24);
    expect(await ports.listParameters({ path: '/rekey/findings/' })).toEqual([]);
  });
});

describe('events', () => {
  test('arrive on the bus with source, type and facts', async () => {
    const { ports, eventBridge: bus } = await start();
    await ports.publish([created]);
    expect(bus.history('rekey-bus')).toMatchObject([
      {
        source: 'rekey',
        'detail-type': 'CredentialCreated',
        resources: [],
        detail: {
          credential: 'orders-api',
          provider: 'acme',
          target: 'db-1',
          strategy: 'replace-user',
        },
      },
    ]);
  });

  test('are all there, however many are published at once', async () => {
    const { ports, eventBridge: bus } = await start();
    await ports.publish(Array.from({ length: 25 }, () => created));
    expect(bus.history('rekey-bus')).toHaveLength(25);
  });

  test("for a user's bus arrive there and nowhere else", async () => {
    const { ports, eventBridge: bus } = await start();
    await ports.notify({
      guard: held,
      busName: 'deployments',
      type: 'CredentialUpdated',
      detail: { credential: 'orders-api' },
      resources: ['arn:aws:secretsmanager:eu-central-1:111122223333:secret:rekey/orders-api-a1b2c3'],
    });
    expect(bus.history('deployments')).toMatchObject([
      {
        source: 'rekey',
        'detail-type': 'CredentialUpdated',
        resources: ['arn:aws:secretsmanager:eu-central-1:111122223333:secret:rekey/orders-api-a1b2c3'],
        detail: { credential: 'orders-api' },
      },
    ]);
    expect(bus.history('rekey-bus')).toEqual([]);
  });

  test('for a bus that does not exist vanish without a word, as on AWS', async () => {
    const { ports, eventBridge: bus } = await start();
    await ports.notify({
      guard: held,
      busName: 'no-such-bus',
      type: 'CredentialUpdated',
      detail: {},
      resources: [],
    });
    expect(bus.history()).toEqual([]);
  });
});

const queueUrl = `https://sqs.${region}.amazonaws.com/${account}/targets`;
const queueArn = `arn:aws:sqs:${region}:${account}:targets`;
/** The port on the real SDK, against a local queue behind a loopback endpoint. */
async function startQueue({ faults = [], maxAttempts = 1 }: { faults?: Fault[]; maxAttempts?: number } = {}) {
  const clock = testClock();
  const queues = createQueues({ account, region, clock });
  queues.addQueue({ name: 'targets' });
  queues.addQueue({ name: 'starts.fifo', isFifo: true });
  queues.addQueue({ name: 'lost' });
  const endpoint = await startAwsEndpoint({ services: [queues], onCall: () => faults.shift() });
  const client = new SQSClient({
    endpoint: endpoint.url,
    region,
    maxAttempts,
    credentials: { accessKeyId: 'AKIDTEST', secretAccessKey: 'not-a-key' },
  });
  onTestFinished(async () => {
    client.destroy();
    queues.stop();
    await endpoint.close();
  });
  const sleep = async () => undefined;
  const sha256 = (text: string) => createHash('sha256').update(text).digest();
  return {
    clock,
    queues,
    ...redelivery(client, queueUrl.replace(/targets$/, 'lost')),
    enqueueStart: startsPort(client, queueUrl.replace(/targets$/, 'starts.fifo'), { sleep }, sha256),
    enqueue: targetQueue(client, queueUrl, { sleep }),
    enqueueElsewhere: targetQueue(client, `${queueUrl}-gone`, { sleep }),
    bodies: () => queues.messages(queueArn).map(({ body }) => JSON.parse(body)),
  };
}

describe('tasks', () => {
  const tasks = (count: number) =>
    Array.from({ length: count }, (_, index) => ({ provider: 'acme', targetId: `db-${index}` }));

  test('are all in the queue, however many are sent at once', async () => {
    const { enqueue, bodies } = await startQueue();
    await enqueue(tasks(25));
    expect(bodies()).toEqual(tasks(25));
  });

  test('are in it twice rather than not at all, when the answer was lost', async () => {
    const { enqueue, bodies } = await startQueue({ faults: [{ fault: 'reset-after' }], maxAttempts: 3 });
    await enqueue(tasks(1));
    expect(bodies()).toEqual([...tasks(1), ...tasks(1)]);
  });

  test('for a queue that does not exist are refused', async () => {
    const { enqueueElsewhere } = await startQueue();
    expect(await rejectionOf(enqueueElsewhere(tasks(1)))).toMatchObject({
      code: 'STORE_REFUSED',
      effect: 'none',
      message: expect.stringContaining('QueueDoesNotExist'),
    });
  });

  const failures: Record<string, { fault: Fault; code: string; effect: string }> = {
    'throttled, did nothing': { fault: { fault: 'throttle' }, code: 'STORE_UNAVAILABLE', effect: 'none' },
    'denied, did nothing': { fault: { fault: 'access-denied' }, code: 'STORE_DENIED', effect: 'none' },
    'failed inside, leave open what was done': {
      fault: { fault: 'internal' },
      code: 'STORE_UNAVAILABLE',
      effect: 'unknown',
    },
    'whose answer is lost, leave open what was done': {
      fault: { fault: 'reset-after' },
      code: 'STORE_UNAVAILABLE',
      effect: 'unknown',
    },
  };
  test.each(Object.entries(failures))('%s', async (_sentence, { fault, code, effect }) => {
    const { enqueue } = await startQueue({ faults: [fault] });
    expect(await rejectionOf(enqueue(tasks(1)))).toMatchObject({ name: 'StoreError', code, effect });
  });

  test('of a later request that is denied leave the earlier ones in the queue', async () => {
    const faults: Fault[] = [{ fault: 'delay', ms: 0 }, { fault: 'access-denied' }];
    const { enqueue, bodies } = await startQueue({ faults });
    expect(await rejectionOf(enqueue(tasks(12)))).toMatchObject({ code: 'STORE_DENIED', effect: 'applied' });
    expect(bodies()).toEqual(tasks(10));
  });
});

describe('starts', () => {
  const startsArn = `arn:aws:sqs:${region}:${account}:starts.fifo`;
  const start = (credential: string) => ({ provider: 'acme', targetId: 'db-1', credential });

  test('are in the queue once each, however often they are sent, and come one target after the other', async () => {
    const { enqueueStart, queues } = await startQueue({ faults: [{ fault: 'reset-after' }], maxAttempts: 3 });
    const names = Array.from({ length: 12 }, (_, index) => `orders-${index}`);
    await enqueueStart(names.map((name) => ({ ...start(name), id: `${name} now` })));
    await enqueueStart([{ ...start('orders-3'), id: 'orders-3 now' }]);
    const kept = queues.messages(startsArn);
    expect(kept.map(({ body }) => JSON.parse(body))).toEqual(names.map(start));
    expect(new Set(kept.map(({ order }) => order?.groupId))).toEqual(new Set(['acme/db-1']));
  });
});

describe('a message that failed', () => {
  test('is handed out again when it was postponed to', async () => {
    const { queues, clock, postpone } = await startQueue();
    queues.send(queueArn, 'an order');
    const [received] = queues.receive(queueArn, 10);
    await postpone({ queueArn, receiptHandle: received?.receiptHandle ?? '', seconds: 120 });
    await clock.advance(119_999);
    expect(queues.receive(queueArn, 10)).toEqual([]);
    await clock.advance(1);
    expect(queues.receive(queueArn, 10)).toMatchObject([{ body: 'an order', receiveCount: 2 }]);
  });

  test('lies aside with its reason', async () => {
    const { queues, setAside } = await startQueue();
    const message = 'EVENT_INVALID: detail: expected an object – “x”';
    await setAside({ body: '{}', messageId: 'm-1', queueArn, code: 'EVENT_INVALID', message });
    expect(queues.messages(`arn:aws:sqs:${region}:${account}:lost`)).toMatchObject([
      {
        body: '{}',
        messageAttributes: {
          ERROR_CODE: { DataType: 'String', StringValue: 'EVENT_INVALID' },
          ERROR_MESSAGE: { DataType: 'String', StringValue: message },
          MESSAGE_ID: { DataType: 'String', StringValue: 'm-1' },
        },
      },
    ]);
  });

  test('whose receipt is none any more is not postponed, and the caller is told', async () => {
    const { postpone } = await startQueue();
    const receiptHandle = Buffer.from(`${'0'.repeat(8)}-0000-4000-8000-${'0'.repeat(12)}#1`).toString(
      'base64url',
    );
    expect(await rejectionOf(postpone({ queueArn, receiptHandle, seconds: 1 }))).toMatchObject({
      name: 'StoreError',
      code: 'STORE_REFUSED',
    });
  });
});
