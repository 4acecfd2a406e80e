import { DeleteSecretCommand } from '@aws-sdk/client-secrets-manager';
import { describe, expect, test } from 'vitest';
import { eventBridge } from '../../functions/aws/bus.ts';
import { secretsManager } from '../../functions/aws/secrets.ts';
import { parameterStore } from '../../functions/aws/specs.ts';
import type { RekeyEvent } from '../../functions/core/events.ts';
import { createRedactor, Sensitive } from '../../functions/core/sensitive.ts';
import type { Fault } from '../../infra/local/aws/endpoint.ts';
import type { Variants } from '../../infra/local/aws/secrets-manager/model.ts';
import type { RotationEvent } from '../../infra/local/aws/secrets-manager/rotation.ts';
import { functionArn, type SystemOptions, startSystem } from '../infra/local/aws/support.ts';
import { rejectionOf } from './support.ts';

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
    eventBridge: { buses: ['rekey-bus'] },
    onCall: ({ operation }) => (faults[0]?.operation === operation ? faults.shift()?.fault : undefined),
  });
  const ports = {
    ...secretsManager(system.secrets, createRedactor()),
    ...parameterStore(system.ssm),
    publish: eventBridge(system.events, 'rekey-bus', { sleep: async () => undefined }),
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
  ports.createSecret({ name, token: first, value: new Sensitive('first value'), description: 'a login' });

const beginRotation = ({ ports }: Pick<Started, 'ports'>, token = second) =>
  ports.startRotation({ secretId: name, token, functionArn, everyDays: 30 });

const valueFor = (token: string): Sensitive => new Sensitive(`value of ${token}`);

/** One step of a rotation through the ports, each call made more than once where that must change nothing. */
async function step({ ports }: Pick<Started, 'ports'>, event: RotationEvent): Promise<readonly string[]> {
  const { SecretId: secretId, ClientRequestToken: token } = event;
  switch (event.Step) {
    case 'createSecret': {
      const pending = await ports.readSecret({ secretId, versionId: token, label: 'AWSPENDING' });
      const write = (value: Sensitive) =>
        ports.writeSecret({
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
      const move = { secretId, label: 'AWSCURRENT', to: token } as const;
      return [
        `without the holder ${await ports.moveLabel(move)}`,
        `from a version that does not hold it ${await ports.moveLabel({ ...move, from: token })}`,
        `from the holder ${await ports.moveLabel({ ...move, from: holder })}`,
        `from the former holder ${await ports.moveLabel({ ...move, from: holder })}`,
        `AWSPENDING ${await ports.moveLabel({ secretId, label: 'AWSPENDING', from: token })}`,
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
    const { readSecret, describeSecret, readSpec } = system.ports;
    expect(await describeSecret({ secretId: name })).toBe('absent');
    expect(await system.read()).toBe('absent');
    await makeSecret(system);
    expect(await system.read(second)).toBe('absent');
    expect(await readSecret({ secretId: name, label: 'AWSPENDING' })).toBe('absent');
    expect(await readSecret({ secretId: name, versionId: second, label: 'AWSPENDING' })).toBe('absent');
    expect(await readSecret({ secretId: name, versionId: first, label: 'AWSPENDING' })).toBe('absent');
    expect(await readSpec({ parameter })).toBe('absent');
  });

  test('is not what is scheduled for deletion: that is refused, and the description tells', async () => {
    const system = await start();
    await makeSecret(system);
    await system.secrets.send(new DeleteSecretCommand({ SecretId: name, RecoveryWindowInDays: 7 }));
    const { readSecret, describeSecret, moveLabel, writeSecret } = system.ports;
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
        writeSecret({ secretId: name, token: second, value: valueFor(second), label: 'AWSPENDING' }),
      ),
    ).toMatchObject(refused);
    expect(await moveLabel({ secretId: name, label: 'AWSPENDING', to: first })).toBe('conflict');
    expect(await rejectionOf(beginRotation(system))).toMatchObject(refused);
    expect(
      await system.ports.createSecret({ name, token: second, value: new Sensitive('{}'), description: '' }),
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
        name,
        token: second,
        value: new Sensitive('another value'),
        description: '',
      }),
    ).toBe('exists');
    expect(
      await system.ports.createSecret({
        name,
        token: first,
        value: new Sensitive('another value'),
        description: '',
      }),
    ).toBe('exists');
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
      await writeSecret({ secretId: name, token, value: valueFor(token), label: 'AWSPENDING' });
    system.secretsManager.setVariants({ staleReads: { DescribeSecret: 1 } });
    const move = { secretId: name, label: 'AWSCURRENT', from: first } as const;
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
    await writeSecret({ secretId: name, token: second, value: valueFor(second), label: 'AWSPENDING' });
    system.secretsManager.setVariants({ staleReads: { DescribeSecret: 1 } });
    await moveLabel({ secretId: name, label: 'AWSPENDING', from: second });
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
    ports.createSecret({ name: 'rekey/billing', token: second, value: new Sensitive('{}'), description: '' }),
  PutSecretValue: ({ ports }) =>
    ports.writeSecret({ secretId: name, token: second, value: valueFor(second), label: 'AWSPENDING' }),
  UpdateSecretVersionStage: ({ ports }) =>
    ports.moveLabel({ secretId: name, label: 'AWSPREVIOUS', to: first }),
  RotateSecret: beginRotation,
  GetParameter: ({ ports }) => ports.readSpec({ parameter }),
  PutParameter: ({ ports }) => ports.writeSpec({ parameter, document: '{}' }),
  PutEvents: ({ ports }) => ports.publish([created]),
};
const reads = ['DescribeSecret', 'GetSecretValue', 'GetParameter'];

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
      if (operation === 'GetParameter') await system.ports.writeSpec({ parameter, document: '{}' });
      system.disturb(operation, fault);
      const effect = reads.includes(operation) ? 'none' : whenWriting;
      expect(await rejectionOf(call(system))).toMatchObject({ name: 'StoreError', code, effect });
    });
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
    const move = { secretId: name, label: 'AWSCURRENT', from: first, to: second } as const;
    expect(await system.ports.moveLabel(move)).toBe('conflict');
    expect(await system.labels()).toEqual({
      [first]: ['AWSPREVIOUS'],
      [second]: ['AWSCURRENT', 'AWSPENDING'],
    });
  });

  test('find their own spec, when the answer was lost', async () => {
    const system = await start({ maxAttempts: 3 });
    system.disturb('PutParameter', lost);
    expect(await system.ports.writeSpec({ parameter, document: '{"name":"orders-api"}' })).toBe('exists');
    expect(await system.ports.readSpec({ parameter })).toBe('{"name":"orders-api"}');
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

describe('specs', () => {
  test('are written once and read back as they were', async () => {
    const { ports } = await start();
    expect(await ports.writeSpec({ parameter, document: '{"name":"orders-api"}' })).toBe('written');
    expect(await ports.writeSpec({ parameter, document: '{"name":"other"}' })).toBe('exists');
    expect(await ports.readSpec({ parameter })).toBe('{"name":"orders-api"}');
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
});
