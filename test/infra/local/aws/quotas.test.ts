import * as dynamoDbSdk from '@aws-sdk/client-dynamodb';
import * as eventBridgeSdk from '@aws-sdk/client-eventbridge';
import * as secretsManagerSdk from '@aws-sdk/client-secrets-manager';
import { CreateSecretCommand } from '@aws-sdk/client-secrets-manager';
import * as sqsSdk from '@aws-sdk/client-sqs';
import * as ssmSdk from '@aws-sdk/client-ssm';
import {
  DeleteParameterCommand,
  GetParameterCommand,
  GetParametersCommand,
  PutParameterCommand,
  paginateGetParametersByPath,
} from '@aws-sdk/client-ssm';
import { describe, expect, test } from 'vitest';
import { parameterStore } from '../../../../functions/aws/parameters.ts';
import { clientOf } from '../../../../infra/local/aws/in-process-client.ts';
import { createParameters } from '../../../../infra/local/aws/parameters.ts';
import { createQueues } from '../../../../infra/local/aws/queues.ts';
import {
  createQuotas,
  highThroughputQuotas,
  publishedQuotas,
  type Quota,
} from '../../../../infra/local/aws/quotas.ts';
import { account, refusalOf, region, startSystem, testClock, token } from './support.ts';

/** Parameter Store without sockets: `pass` makes so many calls of an operation and tells how many were served. */
function startLimited(quotas: readonly Quota[]) {
  const clock = testClock();
  const { limit, counts } = createQuotas({ clock, quotas });
  const service = limit(createParameters({ account, region, clock }));
  const inputs: Readonly<Record<string, object>> = {
    GetParameter: { Name: '/absent' },
    GetParameters: { Names: ['/absent'] },
    GetParametersByPath: { Path: '/absent' },
    PutParameter: { Name: '/present', Value: 'value', Type: 'String', Overwrite: true },
    DeleteParameter: { Name: '/absent' },
  };
  async function pass(operation: string, times: number): Promise<number> {
    let served = 0;
    for (let call = 0; call < times; call += 1)
      await service.call(operation, inputs[operation]).then(
        () => (served += 1),
        (error: Error) => (served += error.name === 'ThrottlingException' ? 0 : 1),
      );
    return served;
  }
  return { clock, counts, service, pass };
}

describe('a bucket', () => {
  test('holds the calls of one second, and is full again one second later', async () => {
    const { clock, pass } = startLimited(publishedQuotas);
    expect(await pass('GetParameter', 50)).toBe(40);
    await clock.advance(1_000);
    expect(await pass('GetParameter', 50)).toBe(40);
  });

  test('never holds more, however long nobody calls', async () => {
    const { clock, pass } = startLimited(publishedQuotas);
    await clock.advance(3_600_000);
    expect(await pass('GetParameter', 50)).toBe(40);
  });

  test('refills continuously: a token of 3 a second comes with the 334th millisecond', async () => {
    const { clock, pass } = startLimited(publishedQuotas);
    expect(await pass('PutParameter', 4)).toBe(3);
    await clock.advance(333);
    expect(await pass('PutParameter', 1)).toBe(0);
    await clock.advance(1);
    expect(await pass('PutParameter', 2)).toBe(1);
  });

  test('loses nothing to rounding: of 10 a second, ten times a tenth of a token is one', async () => {
    const { clock, pass } = startLimited(highThroughputQuotas);
    await pass('PutParameter', 10);
    const served: number[] = [];
    for (let step = 0; step < 20; step += 1) {
      await clock.advance(10);
      served.push(await pass('PutParameter', 1));
    }
    expect(served).toEqual([...Array(9).fill(0), 1, ...Array(9).fill(0), 1]);
  });

  test('stays empty while the clock stands still', async () => {
    const { pass } = startLimited(publishedQuotas);
    await pass('DeleteParameter', 3);
    expect(await pass('DeleteParameter', 100)).toBe(0);
  });
});

describe('a quota', () => {
  test('is shared by the calls that AWS counts together, and by no other', async () => {
    const { pass } = startLimited(publishedQuotas);
    expect(await pass('GetParameter', 20)).toBe(20);
    expect(await pass('GetParameters', 15)).toBe(15);
    expect(await pass('GetParametersByPath', 15)).toBe(5);
    expect([await pass('PutParameter', 5), await pass('DeleteParameter', 5)]).toEqual([3, 3]);
  });

  test('can be another one: high throughput of Parameter Store', async () => {
    const { pass } = startLimited(highThroughputQuotas);
    expect(await pass('GetParametersByPath', 200)).toBe(100);
    expect(await pass('GetParameter', 600)).toBe(600);
    expect(await pass('GetParameters', 600)).toBe(400);
    expect(await pass('PutParameter', 20)).toBe(10);
  });

  test('is not enforced unless a test asks for it', async () => {
    const { pass, counts } = startLimited([]);
    expect(await pass('PutParameter', 100)).toBe(100);
    expect(counts.get('ssm:PutParameter')).toEqual({ calls: 100, throttled: 0 });
  });

  test('is used up by calls that fail, too', async () => {
    const { service, pass } = startLimited(publishedQuotas);
    for (let call = 0; call < 3; call += 1)
      await expect(service.call('PutParameter', { Name: '/a' })).rejects.toThrow('validation error');
    expect(await pass('PutParameter', 1)).toBe(0);
  });
});

describe('queues', () => {
  function startQueues() {
    const clock = testClock();
    const { limit } = createQuotas({ clock, quotas: publishedQuotas });
    const queues = createQueues({ account, region, clock });
    for (const name of ['one.fifo', 'two.fifo']) queues.addQueue({ name, isFifo: true });
    queues.addQueue({ name: 'plain' });
    const service = limit(queues);
    /** Calls until one is throttled, 1,000 at most. */
    async function served(operation: string, queue: string, more: (call: number) => object) {
      for (let call = 0; call < 1_000; call += 1)
        try {
          await service.call(operation, { QueueUrl: `http://localhost/${account}/${queue}`, ...more(call) });
        } catch (error) {
          expect(error).toMatchObject({ queryCode: 'RequestThrottled' });
          return call;
        }
      return 1_000;
    }
    const sending = (call: number) => ({
      MessageBody: 'x',
      MessageGroupId: 'a',
      MessageDeduplicationId: `${call}`,
    });
    return { clock, served, sending };
  }

  test('that keep order take 300 calls a second of an action each, a batch being one of them', async () => {
    const { clock, served, sending } = startQueues();
    expect(await served('SendMessage', 'one.fifo', sending)).toBe(300);
    const batch = { Entries: [{ Id: '0', ...sending(0) }] };
    expect(await served('SendMessageBatch', 'one.fifo', () => batch)).toBe(0);
    expect(await served('ReceiveMessage', 'one.fifo', () => ({}))).toBe(300);
    expect(await served('SendMessage', 'two.fifo', sending)).toBe(300);
    await clock.advance(1_000);
    expect(await served('SendMessage', 'one.fifo', sending)).toBe(300);
  });

  test('that keep none have no quota', async () => {
    const { served } = startQueues();
    expect(await served('SendMessage', 'plain', () => ({ MessageBody: 'x' }))).toBe(1_000);
  });
});

test.each(Object.entries({ publishedQuotas, highThroughputQuotas }))(
  '%s name operations of AWS, and each of them once',
  (_name, quotas) => {
    const sdks: Readonly<Record<string, object>> = {
      secretsmanager: secretsManagerSdk,
      ssm: ssmSdk,
      events: eventBridgeSdk,
      sqs: sqsSdk,
      dynamodb: dynamoDbSdk,
    };
    const calls = quotas.flatMap((quota) => quota.calls);
    const unknown = calls.filter((call) => {
      const [service = '', operation = ''] = call.split(':');
      return !(`${operation}Command` in (sdks[service] ?? {}));
    });
    expect(unknown).toEqual([]);
    expect(calls).toHaveLength(new Set(calls).size);
  },
);

test('calls and throttled calls are counted by operation', async () => {
  const { pass, counts } = startLimited(publishedQuotas);
  await pass('PutParameter', 5);
  await pass('GetParameters', 2);
  expect(Object.fromEntries(counts)).toEqual({
    'ssm:PutParameter': { calls: 5, throttled: 2 },
    'ssm:GetParameters': { calls: 2, throttled: 0 },
  });
});

describe('over the SDK', () => {
  const throttled = { name: 'ThrottlingException', message: 'Rate exceeded', status: 400 };

  test('a throttled call of Parameter Store does nothing and says so', async () => {
    const { ssm } = await startSystem({ quotas: publishedQuotas });
    const put = (Name: string) => ssm.send(new PutParameterCommand({ Name, Value: 'value', Type: 'String' }));
    for (const name of ['a', 'b', 'c']) await put(name);
    expect(await refusalOf(put('d'))).toEqual(throttled);
    const { InvalidParameters } = await ssm.send(new GetParametersCommand({ Names: ['a', 'b', 'c', 'd'] }));
    expect(InvalidParameters).toEqual(['d']);
  });

  test('a throttled call of Secrets Manager has the same name, text and status', async () => {
    const { secrets } = await startSystem({ quotas: publishedQuotas });
    const create = (name: string) =>
      secrets.send(new CreateSecretCommand({ Name: name, ClientRequestToken: token(name) }));
    for (let secret = 0; secret < 50; secret += 1) await create(`app-${secret}`);
    expect(await refusalOf(create('app-50'))).toEqual(throttled);
  });

  test('the SDK repeats a throttled call by itself, and is served once the bucket has refilled', async () => {
    const clock = testClock();
    let attempts = 0;
    const { ssm, callCounts } = await startSystem({
      clock,
      quotas: publishedQuotas,
      maxAttempts: 3,
      // The SDK waits in real time: let it find the bucket refilled when it comes back with the fourth call.
      onCall: async () => {
        attempts += 1;
        if (attempts === 5) await clock.advance(1_000);
        return undefined;
      },
    });
    const deleted: number[] = [];
    for (let call = 0; call < 4; call += 1)
      await ssm.send(new DeleteParameterCommand({ Name: 'absent' })).catch((error) => {
        expect(error.name).toBe('ParameterNotFound');
        deleted.push(error.$metadata.attempts);
      });
    expect(deleted).toEqual([1, 1, 1, 2]);
    expect(callCounts.get('ssm:DeleteParameter')).toEqual({ calls: 5, throttled: 1 });
  });

  test('a list of 25 parameters comes in pages of ten, each of which costs a token of the shared quota', async () => {
    const { ssm, parameters, callCounts } = await startSystem({ quotas: publishedQuotas });
    for (let index = 0; index < 25; index += 1)
      await parameters.call('PutParameter', { Name: `/rekey/${index}`, Value: 'value', Type: 'String' });
    const pages: number[] = [];
    for await (const { Parameters = [] } of paginateGetParametersByPath({ client: ssm }, { Path: '/rekey' }))
      pages.push(Parameters.length);
    expect(pages).toEqual([10, 10, 5]);
    expect(callCounts.get('ssm:GetParametersByPath')).toEqual({ calls: 3, throttled: 0 });
    const reads = Array.from({ length: 40 }, () => ssm.send(new GetParameterCommand({ Name: '/rekey/0' })));
    const served = (await Promise.allSettled(reads)).filter(({ status }) => status === 'fulfilled');
    expect(served).toHaveLength(37);
  });
});

test('rekey takes a throttled call for one that did nothing and is tried again', async () => {
  const { service } = startLimited(publishedQuotas);
  const ports = parameterStore(clientOf(service));
  const write = () => ports.writeParameter({ parameter: '/rekey/a', document: '{}' });
  for (let call = 0; call < 3; call += 1) await write();
  await expect(write()).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE', effect: 'none' });
});
