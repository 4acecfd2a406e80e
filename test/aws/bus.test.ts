import { EventBridgeClient, PutEventsCommand, type PutEventsResultEntry } from '@aws-sdk/client-eventbridge';
import { mockClient } from 'aws-sdk-client-mock';
import { describe, expect, test } from 'vitest';
import { eventBridge, otherBuses } from '../../functions/aws/bus.ts';
import { StoreError } from '../../functions/core/errors.ts';
import type { RekeyEvent } from '../../functions/core/events.ts';
import { awsError, held, networkError, rejectionOf } from './support.ts';

const secretArn = 'arn:aws:secretsmanager:eu-central-1:111122223333:secret:rekey/orders-api-a1b2c3';

function adapter() {
  const client = new EventBridgeClient({ region: 'eu-central-1' });
  const mock = mockClient(client);
  const waits: number[] = [];
  const sleep = async (ms: number) => {
    waits.push(ms);
  };
  const publish = eventBridge(client, 'rekey-bus', { sleep });
  const notify = otherBuses(client, { sleep });
  /** The credentials named in each request, in the order of the requests. */
  const sent = () =>
    mock
      .commandCalls(PutEventsCommand)
      .map(({ args: [{ input }] }) =>
        input.Entries?.map(({ Detail = '{}' }) => JSON.parse(Detail).credential),
      );
  return { mock, publish, notify, waits, sent };
}

const created = (credential: string): RekeyEvent => ({
  type: 'CredentialCreated',
  detail: { credential, provider: 'acme', target: 'db-1', strategy: 'replace-user' },
});

let ids = 0;
const taken = (): PutEventsResultEntry => {
  ids += 1;
  return { EventId: `event-${ids}` };
};
const refused = (ErrorCode: string): PutEventsResultEntry => ({ ErrorCode, ErrorMessage: 'a text' });
const answer = (...Entries: PutEventsResultEntry[]) => ({
  FailedEntryCount: Entries.filter(({ ErrorCode }) => ErrorCode !== undefined).length,
  Entries,
});

test('an event carries its type, its facts and, as resource, the secret that it is about', async () => {
  const { mock, publish } = adapter();
  mock.on(PutEventsCommand).resolves(answer(taken(), taken()));
  const facts = { credential: 'orders-api', provider: 'acme', target: 'db-1', strategy: 'replace-user' };
  await publish([
    { type: 'CredentialCreated', detail: facts },
    {
      type: 'DatabaseUserCreated',
      detail: {
        ...facts,
        secretArn,
        versionId: 'f3c1a2b4-0000-4000-8000-000000000002',
        username: 'orders_1',
      },
    },
  ]);
  expect(mock.commandCalls(PutEventsCommand)[0]?.args[0].input).toEqual({
    Entries: [
      {
        EventBusName: 'rekey-bus',
        Source: 'rekey',
        DetailType: 'CredentialCreated',
        Detail: '{"credential":"orders-api","provider":"acme","target":"db-1","strategy":"replace-user"}',
      },
      {
        EventBusName: 'rekey-bus',
        Source: 'rekey',
        DetailType: 'DatabaseUserCreated',
        Detail:
          '{"credential":"orders-api","provider":"acme","target":"db-1","strategy":"replace-user",' +
          `"secretArn":"${secretArn}","versionId":"f3c1a2b4-0000-4000-8000-000000000002","username":"orders_1"}`,
        Resources: [secretArn],
      },
    ],
  });
});

test('nothing to publish calls nobody', async () => {
  const { publish, sent } = adapter();
  await publish([]);
  expect(sent()).toEqual([]);
});

test('more than ten events go in requests of ten, each once', async () => {
  const { mock, publish, sent } = adapter();
  mock
    .on(PutEventsCommand)
    .callsFake(async ({ Entries }: { Entries: readonly unknown[] }) => answer(...Entries.map(taken)));
  await publish(Array.from({ length: 23 }, (_, index) => created(`c${index}`)));
  expect(sent()).toEqual([
    ['c0', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7', 'c8', 'c9'],
    ['c10', 'c11', 'c12', 'c13', 'c14', 'c15', 'c16', 'c17', 'c18', 'c19'],
    ['c20', 'c21', 'c22'],
  ]);
});

describe('an answer of 200 with failed entries', () => {
  test.each(['InternalFailure', 'ThrottlingException'])(
    'is repeated for the entries that failed with %s, and for no others',
    async (code) => {
      const { mock, publish, sent, waits } = adapter();
      mock
        .on(PutEventsCommand)
        .resolvesOnce(answer(taken(), refused(code), taken(), refused(code)))
        .resolvesOnce(answer(refused(code), taken()))
        .resolvesOnce(answer(taken()));
      await publish([created('a'), created('b'), created('c'), created('d')]);
      expect(sent()).toEqual([['a', 'b', 'c', 'd'], ['b', 'd'], ['b']]);
      expect(waits).toEqual([200, 400]);
    },
  );

  test('is given up after the fifth time', async () => {
    const { mock, publish, sent } = adapter();
    mock.on(PutEventsCommand).resolves(answer(refused('InternalFailure')));
    const thrown = await rejectionOf(publish([created('a')]));
    expect(thrown).toBeInstanceOf(StoreError);
    expect(thrown).toMatchObject({
      code: 'EVENT_NOT_PUBLISHED',
      effect: 'none',
      message: expect.stringContaining('1 of 1 events were not taken by rekey-bus (InternalFailure)'),
      detail: { message: 'a text' },
    });
    expect(sent()).toHaveLength(5);
  });

  test.each([
    'AccessDeniedException',
    'InvalidArgument',
    'InvalidAccountIdException',
    'MalformedDetail',
    'NotAuthorizedForSourceException',
    'NotAuthorizedForDetailTypeException',
    'RedactionFailure',
  ])('is not repeated for %s', async (code) => {
    const { mock, publish, sent } = adapter();
    mock.on(PutEventsCommand).resolves(answer(refused(code)));
    expect(await rejectionOf(publish([created('a')]))).toMatchObject({
      code: 'EVENT_NOT_PUBLISHED',
      effect: 'none',
      message: expect.stringContaining(code),
    });
    expect(sent()).toEqual([['a']]);
  });

  test('names the code that decided, though another entry failed as well', async () => {
    const { mock, publish } = adapter();
    mock.on(PutEventsCommand).resolves(answer(refused('InternalFailure'), refused('MalformedDetail')));
    expect(await rejectionOf(publish([created('a'), created('b')]))).toMatchObject({
      effect: 'none',
      message: expect.stringContaining('2 of 2 events were not taken by rekey-bus (MalformedDetail)'),
    });
  });

  const partly: Record<string, PutEventsResultEntry[][]> = {
    'in the same request': [[taken(), refused('MalformedDetail')]],
    'in an earlier attempt': [[taken(), refused('InternalFailure')], [refused('MalformedDetail')]],
  };
  test.each(Object.entries(partly))(
    'did something where another event was taken %s',
    async (_place, answers) => {
      const { mock, publish } = adapter();
      const behaviour = mock.on(PutEventsCommand);
      for (const entries of answers) behaviour.resolvesOnce(answer(...entries));
      expect(await rejectionOf(publish([created('a'), created('b')]))).toMatchObject({
        code: 'EVENT_NOT_PUBLISHED',
        effect: 'applied',
        message: expect.stringContaining('1 of 2 events'),
      });
    },
  );

  test('did something where an earlier request was taken', async () => {
    const { mock, publish } = adapter();
    mock
      .on(PutEventsCommand)
      .resolvesOnce(answer(...Array.from({ length: 10 }, taken)))
      .resolvesOnce(answer(refused('MalformedDetail')));
    const events = Array.from({ length: 11 }, (_, index) => created(`c${index}`));
    expect(await rejectionOf(publish(events))).toMatchObject({
      effect: 'applied',
      message: expect.stringContaining('1 of 11 events'),
    });
  });
});

test('an entry without an id was not taken, even if the answer names no error: it is sent again', async () => {
  const { mock, publish, sent } = adapter();
  mock
    .on(PutEventsCommand)
    .resolvesOnce({ FailedEntryCount: 0, Entries: [taken()] })
    .resolvesOnce(answer(taken()));
  await publish([created('a'), created('b')]);
  expect(sent()).toEqual([['a', 'b'], ['b']]);
});

test('a request that is refused did something where an earlier one was taken', async () => {
  const { mock, publish } = adapter();
  mock
    .on(PutEventsCommand)
    .resolvesOnce(answer(...Array.from({ length: 10 }, taken)))
    .rejectsOnce(awsError('ThrottlingException'));
  const events = Array.from({ length: 11 }, (_, index) => created(`c${index}`));
  expect(await rejectionOf(publish(events))).toMatchObject({ code: 'STORE_UNAVAILABLE', effect: 'applied' });
});

describe("an event for a user's own bus", () => {
  const notification = {
    guard: held,
    busName: 'deployments',
    type: 'CredentialUpdated',
    detail: { credential: 'orders-api' },
    resources: [secretArn],
  };

  test('goes to that bus, from rekey, with what it is about', async () => {
    const { mock, notify } = adapter();
    mock.on(PutEventsCommand).resolves(answer(taken()));
    await notify(notification);
    expect(mock.commandCalls(PutEventsCommand)[0]?.args[0].input).toEqual({
      Entries: [
        {
          EventBusName: 'deployments',
          Source: 'rekey',
          DetailType: 'CredentialUpdated',
          Detail: '{"credential":"orders-api"}',
          Resources: [secretArn],
        },
      ],
    });
  });

  test('is sent again while EventBridge itself fails', async () => {
    const { mock, notify, sent, waits } = adapter();
    mock
      .on(PutEventsCommand)
      .resolvesOnce(answer(refused('InternalFailure')))
      .resolvesOnce(answer(taken()));
    await notify(notification);
    expect(sent()).toEqual([['orders-api'], ['orders-api']]);
    expect(waits).toEqual([200]);
  });

  test('that is not taken is a failure that names the bus', async () => {
    const { mock, notify } = adapter();
    mock.on(PutEventsCommand).resolves(answer(refused('AccessDeniedException')));
    expect(await rejectionOf(notify(notification))).toMatchObject({
      code: 'EVENT_NOT_PUBLISHED',
      effect: 'none',
      message: expect.stringContaining('1 of 1 events were not taken by deployments (AccessDeniedException)'),
    });
  });

  test('whose request fails as a whole leaves open what was done', async () => {
    const { mock, notify } = adapter();
    mock.on(PutEventsCommand).rejects(networkError());
    expect(await rejectionOf(notify(notification))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'unknown',
    });
  });
});

describe('a request that fails as a whole', () => {
  const failures: Record<string, { error: Error; code: string; effect: string }> = {
    'throttled did nothing': {
      error: awsError('ThrottlingException'),
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    },
    'inside EventBridge leaves open what was done': {
      error: awsError('InternalException', { status: 500 }),
      code: 'STORE_UNAVAILABLE',
      effect: 'unknown',
    },
    'without an answer leaves open what was done': {
      error: networkError(),
      code: 'STORE_UNAVAILABLE',
      effect: 'unknown',
    },
    'denied did nothing': { error: awsError('AccessDeniedException'), code: 'STORE_DENIED', effect: 'none' },
    'refused did nothing': { error: awsError('ValidationException'), code: 'STORE_REFUSED', effect: 'none' },
  };
  test.each(Object.entries(failures))('%s', async (_sentence, { error, code, effect }) => {
    const { mock, publish } = adapter();
    mock.on(PutEventsCommand).rejects(error);
    const thrown = await rejectionOf(publish([created('a')]));
    expect(thrown).toBeInstanceOf(StoreError);
    expect(thrown).toMatchObject({ code, effect, cause: error });
  });
});
