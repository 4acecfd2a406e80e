import { beforeEach, describe, expect, test, vi } from 'vitest';

const used = vi.hoisted((): unknown[][] => []);
const useCase = vi.hoisted(() => (name: string, answer?: unknown) => async (...given: unknown[]) => {
  // The last is everything that a use case may call; the date before it is the end of the invocation.
  used.push([name, ...given.slice(0, -2)]);
  return answer;
});
vi.mock('../functions/lifecycle/start-rotations.ts', () => ({
  startRotations: useCase('startRotations', { started: ['orders-api'] }),
}));
vi.mock('../functions/lifecycle/delete-user.ts', () => ({
  deleteUsers: useCase('deleteUsers', { retired: ['orders_1'] }),
}));
vi.mock('../functions/lifecycle/reconcile-users.ts', () => ({
  reconcileUsers: useCase('reconcileUsers', { batchItemFailures: [{ itemIdentifier: 'm-1' }] }),
}));
vi.mock('../functions/lifecycle/update-consumers.ts', () => ({
  updateConsumers: useCase('updateConsumers'),
}));

const rotationFunctionArn = 'arn:aws:lambda:eu-central-1:111122223333:function:rotate-secret';
vi.stubEnv('AWS_REGION', 'eu-central-1');
vi.stubEnv('POWERTOOLS_LOG_LEVEL', 'ERROR');
vi.stubEnv('REKEY_EVENT_BUS_NAME', 'rekey-bus');
vi.stubEnv('REKEY_ROTATION_FUNCTION_ARN', rotationFunctionArn);
vi.stubEnv('REKEY_TARGET_QUEUE_URL', 'https://sqs.eu-central-1.amazonaws.com/111122223333/rekey-targets');

const handlers = {
  'start-rotations': (await import('../functions/start-rotations.ts')).handler,
  'delete-user': (await import('../functions/delete-user.ts')).handler,
  'reconcile-users': (await import('../functions/reconcile-users.ts')).handler,
  'update-consumers': (await import('../functions/update-consumers.ts')).handler,
};
type Name = keyof typeof handlers;

beforeEach(() => {
  used.length = 0;
  // Errors are logged on their way out.
  vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
});

const invoke = (name: Name, event: unknown) =>
  handlers[name](event, { getRemainingTimeInMillis: () => 60_000 });

const orderedAt = new Date('2026-03-01T12:00:00Z');
const events = {
  pass: { pass: 'scheduled' },
  order: {
    'detail-type': 'CredentialCompromised',
    time: '2026-03-01T12:00:00Z',
    detail: { credential: 'orders-api' },
  },
  rotated: { 'detail-type': 'CredentialRotated', detail: { credential: 'orders-api' } },
  messages: { Records: [{ messageId: 'm-1', body: '{"provider":"acme","targetId":"db-1"}' }] },
  'label-moved': {
    'detail-type': 'Secret Label Updated',
    detail: { name: 'rekey/orders-api', labelUpdated: 'AWSCURRENT', versionId: 'version-2' },
  },
};
const read: Record<keyof typeof events, unknown> = {
  pass: { is: 'pass', dryRun: false },
  order: { is: 'order', order: 'CredentialCompromised', credential: 'orders-api', orderedAt },
  rotated: { is: 'rotated', credential: 'orders-api' },
  messages: {
    is: 'messages',
    messages: [{ id: 'm-1', body: '{"provider":"acme","targetId":"db-1"}' }],
  },
  'label-moved': {
    is: 'label-moved',
    secretName: 'rekey/orders-api',
    label: 'AWSCURRENT',
    versionId: 'version-2',
  },
};

const takes: Record<
  Name,
  { kinds: readonly (keyof typeof events)[]; use: string; given: readonly unknown[]; answer: unknown }
> = {
  'start-rotations': {
    kinds: ['pass', 'order'],
    use: 'startRotations',
    given: [{ rotationFunctionArn }],
    answer: { started: ['orders-api'] },
  },
  'delete-user': {
    kinds: ['pass', 'order', 'rotated'],
    use: 'deleteUsers',
    given: [],
    answer: { retired: ['orders_1'] },
  },
  'reconcile-users': {
    kinds: ['pass', 'messages'],
    use: 'reconcileUsers',
    given: [],
    answer: { batchItemFailures: [{ itemIdentifier: 'm-1' }] },
  },
  'update-consumers': { kinds: ['label-moved'], use: 'updateConsumers', given: [], answer: undefined },
};

describe.each(Object.entries(takes) as [Name, (typeof takes)[Name]][])('%s', (name, expected) => {
  const kinds = Object.keys(events) as (keyof typeof events)[];

  test.each(expected.kinds)(
    'hands what it read of %s to its use case, and answers what that answers',
    async (kind) => {
      expect(await invoke(name, events[kind])).toEqual(expected.answer);
      expect(used).toEqual([[expected.use, read[kind], ...expected.given]]);
    },
  );

  test.each(kinds.filter((kind) => !expected.kinds.includes(kind)))(
    'refuses %s with what it takes instead, and does nothing',
    async (kind) => {
      await expect(invoke(name, events[kind])).rejects.toThrow(
        /^EVENT_INVALID: got .*; this function takes /,
      );
      expect(used).toEqual([]);
    },
  );

  test('refuses what is no event at all', async () => {
    for (const event of [undefined, null, 'scheduled', {}, { pass: 'sometimes' }, { Records: 'none' }])
      await expect(invoke(name, event)).rejects.toThrow(/^EVENT_INVALID: /);
    expect(used).toEqual([]);
  });
});
