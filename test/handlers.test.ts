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
vi.mock('../functions/lifecycle/carry-out-orders.ts', () => ({
  takeOrder: useCase('takeOrder'),
  carryOutOrders: useCase('carryOutOrders', { failed: ['m-2'] }),
}));
const asked = vi.hoisted((): unknown[][] => []);
vi.mock('../functions/runtime/queue.ts', () => ({
  openQueues: () => ({
    postpone: async ({ seconds }: { seconds: number }) => void asked.push(['postpone', seconds]),
    setAside: async ({ code }: { code: string }) => void asked.push(['setAside', code]),
  }),
}));
vi.mock('../functions/lifecycle/create-user.ts', () => ({ createUser: useCase('createUser') }));
/** What was made once for the life of a function, not once an invocation. */
const made = vi.hoisted((): string[] => []);
vi.mock('../functions/lifecycle/heed-provider-event.ts', () => ({
  providerEventHeeder: () => {
    made.push('heed');
    return async (given: unknown) => void used.push(['heed', given]);
  },
}));
vi.mock('../functions/lifecycle/receive-webhook.ts', () => ({
  webhookReceiver: () => {
    made.push('receive');
    return async (given: unknown) => {
      used.push(['receive', given]);
      return { statusCode: 401 };
    };
  },
}));

const rotationFunctionArn = 'arn:aws:lambda:eu-central-1:111122223333:function:rotate-secret';
const webhookBaseUrl = 'https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/webhooks/';
vi.stubEnv('AWS_REGION', 'eu-central-1');
vi.stubEnv('REKEY_LOG_LEVEL', 'ERROR');
vi.stubEnv('REKEY_EVENT_BUS_NAME', 'rekey-bus');
vi.stubEnv('REKEY_ROTATION_FUNCTION_ARN', rotationFunctionArn);
vi.stubEnv('REKEY_WEBHOOK_BASE_URL', webhookBaseUrl);
for (const queue of ['TARGET', 'URGENT_TARGET', 'START', 'LOST_REQUEST'])
  vi.stubEnv(`REKEY_${queue}_QUEUE_URL`, 'https://sqs.eu-central-1.amazonaws.com/111122223333/rekey-queue');
vi.stubEnv('REKEY_NOTE_TABLE_NAME', 'rekey');

const secretKeyArn = 'arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d';
vi.stubEnv('REKEY_SECRET_KEY_ARN', secretKeyArn);
vi.stubEnv('REKEY_REPLICAS', '[{"region":"eu-west-1"}]');

const handlers = {
  'start-rotations': (await import('../functions/start-rotations.ts')).handler,
  'delete-user': (await import('../functions/delete-user.ts')).handler,
  'reconcile-users': (await import('../functions/reconcile-users.ts')).handler,
  'update-consumers': (await import('../functions/update-consumers.ts')).handler,
  'receive-webhook': (await import('../functions/receive-webhook.ts')).handler,
  'create-user': (await import('../functions/create-user.ts')).handler,
};
/** Those that run through `takes`, where all get the same events. */
type Name = Exclude<keyof typeof handlers, 'receive-webhook' | 'create-user'>;

beforeEach(() => {
  used.length = 0;
  asked.length = 0;
  // Errors are logged on their way out.
  vi.spyOn(process.stdout, 'write').mockImplementation(() => true);
});

/** A message as Lambda hands it over. */
const message = (messageId: string, body: unknown) => ({
  messageId,
  receiptHandle: `receipt of ${messageId}`,
  body: JSON.stringify(body),
  attributes: { ApproximateReceiveCount: '1', SentTimestamp: '1772366400000' },
  eventSource: 'aws:sqs',
  eventSourceARN: 'arn:aws:sqs:eu-central-1:111122223333:rekey-queue',
});
const batch = (...bodies: readonly unknown[]) => ({
  Records: bodies.map((body, index) => message(`m-${index + 1}`, body)),
});
const failed = (...ids: readonly string[]) => ({
  batchItemFailures: ids.map((itemIdentifier) => ({ itemIdentifier })),
});

const invoke = (name: keyof typeof handlers, event: unknown) =>
  handlers[name](event, { getRemainingTimeInMillis: () => 300_000 });

const orderedAt = new Date('2026-03-01T12:00:00Z');
const events = {
  pass: { pass: 'scheduled' },
  order: {
    'detail-type': 'CredentialCompromised',
    time: '2026-03-01T12:00:00Z',
    detail: { credential: 'orders-api' },
  },
  rotated: { 'detail-type': 'CredentialRotated', detail: { credential: 'orders-api' } },
  'label-moved': {
    'detail-type': 'Secret Label Updated',
    detail: { name: 'rekey/orders-api', labelUpdated: 'AWSCURRENT', versionId: 'version-2' },
  },
};
const read: Record<keyof typeof events, unknown> = {
  pass: { is: 'pass', dryRun: false },
  order: { is: 'order', order: 'CredentialCompromised', credential: 'orders-api', orderedAt },
  rotated: { is: 'rotated', credential: 'orders-api' },
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
    kinds: ['pass'],
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
    kinds: ['pass'],
    use: 'reconcileUsers',
    given: [{ webhookBaseUrl }],
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
    for (const event of [undefined, null, 'scheduled', {}, { pass: 'sometimes' }, { Records: [{}] }])
      await expect(invoke(name, event)).rejects.toThrow(/^EVENT_INVALID: /);
    expect(used).toEqual([]);
  });
});

describe('out of a queue', () => {
  const rotated = {
    'detail-type': 'CredentialRotationRequested',
    time: '2026-03-01T12:00:00Z',
    detail: { credential: 'billing' },
  };
  const paused = { 'detail-type': 'RekeyPaused', time: '2026-03-01T12:00:00Z', detail: {} };

  test('start-rotations takes every order of a batch', async () => {
    expect(await invoke('start-rotations', batch(events.order, paused, rotated))).toEqual(failed());
    expect(used).toEqual([
      ['takeOrder', read.order],
      ['takeOrder', { is: 'pause', order: 'RekeyPaused', on: undefined, orderedAt }],
      ['takeOrder', { is: 'order', order: 'CredentialRotationRequested', credential: 'billing', orderedAt }],
    ]);
  });

  test('start-rotations hands starts to what carries them out, and answers which come again', async () => {
    const start = { provider: 'acme', targetId: 'db-1', credential: 'orders' };
    expect(await invoke('start-rotations', batch(start, { ...start, credential: 'billing' }))).toEqual(
      failed('m-2'),
    );
    const starts = [
      { messageId: 'm-1', ...start },
      { messageId: 'm-2', ...start, credential: 'billing' },
    ];
    expect(used).toEqual([['carryOutOrders', starts, { rotationFunctionArn }]]);
  });

  test('start-rotations sets aside what is neither, and does the rest', async () => {
    const start = { provider: 'acme', targetId: 'db-1', credential: 'orders' };
    expect(await invoke('start-rotations', batch({ provider: '..' }, events.rotated, start))).toEqual(
      failed(),
    );
    expect(asked).toEqual([
      ['setAside', 'EVENT_INVALID'],
      ['setAside', 'EVENT_INVALID'],
    ]);
    expect(used.map(([name]) => name)).toEqual(['carryOutOrders']);
  });

  test('delete-user sees to orders and rotated credentials, one after the other', async () => {
    expect(await invoke('delete-user', batch(events.order, events.rotated))).toEqual(failed());
    expect(used).toEqual([
      ['deleteUsers', read.order],
      ['deleteUsers', read.rotated],
    ]);
  });

  test('delete-user begins no visit of a target that it could not end', async () => {
    const answer = await handlers['delete-user'](batch(events.order), {
      getRemainingTimeInMillis: () => 120_000,
    });
    expect([answer, used, asked]).toEqual([failed('m-1'), [], [['postpone', 0]]]);
  });

  test('update-consumers sees to each label that moved', async () => {
    expect(await invoke('update-consumers', batch(events['label-moved']))).toEqual(failed());
    expect(used).toEqual([['updateConsumers', read['label-moved']]]);
  });

  test('reconcile-users looks at the targets of a batch, and what failed comes again after ten minutes', async () => {
    const target = { provider: 'acme', targetId: 'db-1' };
    expect(await invoke('reconcile-users', batch(target))).toEqual(failed('m-1'));
    expect(used).toEqual([
      [
        'reconcileUsers',
        { is: 'messages', messages: [{ id: 'm-1', body: JSON.stringify(target) }] },
        { webhookBaseUrl },
      ],
    ]);
    expect(asked).toEqual([['postpone', 600]]);
  });

  test('reconcile-users heeds what a vendor told', async () => {
    expect(await invoke('reconcile-users', batch(told))).toEqual(failed());
    expect(used).toEqual([['heed', heard]]);
  });

  test.each([
    'start-rotations',
    'delete-user',
    'update-consumers',
    'reconcile-users',
    'create-user',
  ] as const)('%s takes no pass: it would be one more for each message', async (name) => {
    await invoke(name, batch(events.pass));
    expect(used).toEqual(
      // To the workers it is a task, which says of itself that it is none.
      name === 'reconcile-users' ? [expect.arrayContaining(['reconcileUsers'])] : [],
    );
  });
});

const told = {
  'detail-type': 'ProviderEventReceived',
  detail: {
    provider: 'render',
    providerEventId: 'evt-1',
    providerEventType: 'postgres_credentials_created',
    target: 'dpg-1',
  },
};
const heard = {
  is: 'provider-event',
  target: 'dpg-1',
  because: { endpoint: 'render', eventId: 'evt-1', eventType: 'postgres_credentials_created' },
};

describe('what a vendor told', () => {
  test('is handed by reconcile-users to the use case that only queues, made once', async () => {
    for (let invocation = 0; invocation < 2; invocation += 1) await invoke('reconcile-users', told);
    expect(used).toEqual([
      ['heed', heard],
      ['heed', heard],
    ]);
    expect(made.filter((each) => each === 'heed')).toHaveLength(1);
  });

  test.each(['start-rotations', 'delete-user', 'update-consumers'] as const)(
    'is refused by %s',
    async (name) => {
      await expect(invoke(name, told)).rejects.toThrow(
        'EVENT_INVALID: got an event of detail type ProviderEv',
      );
      expect(used).toEqual([]);
    },
  );
});

describe('receive-webhook', () => {
  const request = {
    version: '2.0',
    routeKey: 'POST /webhooks/render',
    headers: { 'webhook-id': 'evt-1' },
    body: '{}',
    isBase64Encoded: false,
    requestContext: { stage: '$default' },
  };
  const read = {
    endpoint: 'render',
    headers: { 'webhook-id': 'evt-1' },
    body: '{}',
    isBase64Encoded: false,
  };

  test('answers what its use case answers, which lives as long as the function', async () => {
    for (let invocation = 0; invocation < 2; invocation += 1)
      expect(await invoke('receive-webhook', request)).toEqual({ statusCode: 401 });
    expect(used).toEqual([
      ['receive', read],
      ['receive', read],
    ]);
    expect(made.filter((each) => each === 'receive')).toHaveLength(1);
  });

  test('refuses what is no request of the HTTP API, and believes none of it', async () => {
    for (const event of [undefined, {}, told, { ...request, version: '1.0' }, { ...request, body: 7 }])
      await expect(invoke('receive-webhook', event)).rejects.toThrow(/^EVENT_INVALID: /);
    expect(used).toEqual([]);
  });
});

test('create-user hands on the spec, when it was asked for, and where secrets of this deployment lie', async () => {
  const spec = { name: 'orders-api', provider: 'acme' };
  const event = {
    source: 'orders',
    'detail-type': 'CredentialRequested',
    time: '2026-03-01T12:00:00Z',
    detail: { spec },
  };
  const created = [
    'createUser',
    { spec, requestedAt: orderedAt },
    { rotationFunctionArn, secretKeyArn, replicas: [{ region: 'eu-west-1' }] },
  ];
  await invoke('create-user', event);
  expect(used).toEqual([created]);
  expect(await invoke('create-user', batch(event, event))).toEqual(failed());
  expect(used).toEqual([created, created, created]);
});
