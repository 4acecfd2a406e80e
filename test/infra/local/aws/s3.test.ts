import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type PutObjectCommandInput,
  S3Client,
} from '@aws-sdk/client-s3';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Fault, startAwsEndpoint } from '../../../../infra/local/aws/endpoint.ts';
import { createS3, type ObjectLock } from '../../../../infra/local/aws/s3.ts';
import type { Authorize } from '../../../../infra/local/aws/service.ts';
import { refusalOf, region, testClock } from './support.ts';

const Bucket = 'rekey-audit';
const Key = 'audit/2026/03/01/1.json';

async function start(objectLock?: ObjectLock, authorize?: Authorize) {
  const clock = testClock();
  const calls: unknown[] = [];
  const faults: Fault[] = [];
  const defects: unknown[] = [];
  const s3 = createS3({
    clock,
    buckets: [{ name: Bucket, ...(objectLock === undefined ? {} : { objectLock }) }],
    onCall: (call) => {
      calls.push(call);
      return faults.shift();
    },
    onDefect: (error) => defects.push(error),
    ...(authorize === undefined ? {} : { authorize }),
  });
  const endpoint = await startAwsEndpoint({ services: [], otherwise: s3.serve, clock });
  const client = new S3Client({
    endpoint: endpoint.url,
    region,
    maxAttempts: 1,
    credentials: { accessKeyId: 'AKIDTEST', secretAccessKey: 'not-a-key' },
  });
  onTestFinished(async () => {
    client.destroy();
    await endpoint.close();
    expect(defects).toEqual([]);
  });
  const put = (Body: string, more: Partial<PutObjectCommandInput> = {}) =>
    client.send(new PutObjectCommand({ Bucket, Key, Body, ...more }));
  const get = async (key = Key, VersionId?: string): Promise<string | undefined> =>
    (await client.send(new GetObjectCommand({ Bucket, Key: key, VersionId }))).Body?.transformToString();
  return { clock, s3, endpoint, client, calls, faults, put, get };
}

const compliance = { mode: 'COMPLIANCE', days: 30 } as const;

test('whoever writes is asked whether he said that there must be none yet', async () => {
  const asked: unknown[] = [];
  const { put } = await start(undefined, async (_principal, authorization) => {
    asked.push(authorization);
    return undefined;
  });
  await put('x', { IfNoneMatch: '*' });
  await put('y');
  const wanted = { action: 's3:PutObject', resource: `arn:aws:s3:::${Bucket}/${Key}` };
  expect(asked).toEqual([
    { ...wanted, context: { 's3:TlsVersion': '1.3', 's3:if-none-match': '*' } },
    { ...wanted, context: { 's3:TlsVersion': '1.3' } },
  ]);
});

describe('an object', () => {
  test('is read back as it was written, over the SDK as it comes', async () => {
    const { client, put, calls } = await start();
    await put('{"ä":"\ufeff🔑"}', { ContentType: 'application/json' });
    const { Body, ContentType, LastModified, ETag } = await client.send(
      new GetObjectCommand({ Bucket, Key }),
    );
    expect(await Body?.transformToString()).toBe('{"ä":"\ufeff🔑"}');
    expect({ ContentType, LastModified }).toEqual({
      ContentType: 'application/json',
      LastModified: new Date('2026-03-01T12:00:00Z'),
    });
    expect((await client.send(new HeadObjectCommand({ Bucket, Key }))).ETag).toBe(ETag);
    expect(calls[0]).toEqual({
      service: 's3',
      operation: 'PutObject',
      input: { Bucket, Key },
      principal: 'AKIDTEST',
    });
  });

  test('that is missing is said to be, and so is a bucket', async () => {
    const { client, get } = await start();
    expect(await refusalOf(get())).toMatchObject({ name: 'NoSuchKey', status: 404 });
    expect(
      await refusalOf(client.send(new PutObjectCommand({ Bucket: 'other', Key, Body: 'x' }))),
    ).toMatchObject({ name: 'NoSuchBucket', status: 404 });
  });

  test('is written under any name, and found again', async () => {
    const { put, get, s3 } = await start();
    const key = `a b/+%&<"'>ä🔑.json`;
    await put('strange', { Key: key });
    expect(await get(key)).toBe('strange');
    expect(s3.keys(Bucket)).toEqual([key]);
  });
});

describe('a conditional write', () => {
  test('is done once, whoever comes first', async () => {
    const { put, get } = await start(compliance);
    const IfNoneMatch = '*';
    const answers = await Promise.allSettled([
      put('first', { IfNoneMatch }),
      put('second', { IfNoneMatch }),
      put('third', { IfNoneMatch }),
    ]);
    expect(answers.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected', 'rejected']);
    expect(await refusalOf(put('fourth', { IfNoneMatch }))).toEqual({
      name: 'PreconditionFailed',
      message: 'At least one of the pre-conditions you specified did not hold',
      status: 412,
    });
    expect(await get()).not.toBe('fourth');
  });

  test('takes no other condition than that there be none', async () => {
    const { put } = await start();
    expect(await refusalOf(put('x', { IfNoneMatch: '"etag"' }))).toMatchObject({
      name: 'NotImplemented',
      status: 501,
    });
  });

  test('holds where a delete marker hides the object', async () => {
    const { client, put, get } = await start(compliance);
    await put('one', { IfNoneMatch: '*' });
    await client.send(new DeleteObjectCommand({ Bucket, Key }));
    await put('two', { IfNoneMatch: '*' });
    expect(await get()).toBe('two');
  });
});

describe('a bucket with Object Lock', () => {
  test('keeps the version under an overwrite and under a delete marker', async () => {
    const { client, put, get } = await start(compliance);
    const { VersionId } = await put('one');
    await put('two');
    expect([await get(), await get(Key, VersionId)]).toEqual(['two', 'one']);
    const { DeleteMarker } = await client.send(new DeleteObjectCommand({ Bucket, Key }));
    expect(DeleteMarker).toBe(true);
    expect(await refusalOf(get())).toMatchObject({ name: 'NoSuchKey', status: 404 });
    expect(await get(Key, VersionId)).toBe('one');
  });

  test('says until when a version is locked', async () => {
    const { client, put } = await start(compliance);
    await put('one');
    const { ObjectLockMode, ObjectLockRetainUntilDate } = await client.send(
      new GetObjectCommand({ Bucket, Key }),
    );
    expect({ ObjectLockMode, ObjectLockRetainUntilDate }).toEqual({
      ObjectLockMode: 'COMPLIANCE',
      ObjectLockRetainUntilDate: new Date('2026-03-31T12:00:00Z'),
    });
  });

  test.each([
    ['COMPLIANCE', false, false],
    ['COMPLIANCE', true, false],
    ['GOVERNANCE', false, false],
    ['GOVERNANCE', true, true],
  ] as const)('in mode %s, with bypass %s, lets a version go: %s', async (mode, bypass, goes) => {
    const { client, put, s3 } = await start({ mode, days: 30 });
    const { VersionId } = await put('one');
    const call = client.send(
      new DeleteObjectCommand({
        Bucket,
        Key,
        VersionId,
        ...(bypass ? { BypassGovernanceRetention: true } : {}),
      }),
    );
    if (goes) await call;
    else
      expect(await refusalOf(call)).toEqual({
        name: 'AccessDenied',
        message: 'Access Denied because object protected by object lock.',
        status: 403,
      });
    expect(s3.versions(Bucket, Key)).toHaveLength(goes ? 0 : 1);
  });

  test('lets a version go when its retention is over', async () => {
    const { clock, client, put, s3 } = await start(compliance);
    const { VersionId } = await put('one');
    await clock.advance(30 * 86_400_000);
    await client.send(new DeleteObjectCommand({ Bucket, Key, VersionId }));
    expect(s3.versions(Bucket, Key)).toEqual([]);
  });

  test('takes nothing without a digest, and nothing with a wrong one', async () => {
    const { endpoint } = await start(compliance);
    const send = async (headers: Record<string, string>) => {
      const response = await fetch(`${endpoint.url}/${Bucket}/x`, { method: 'PUT', body: 'x', headers });
      return /<Code>(\w+)<\/Code>/.exec(await response.text())?.[1];
    };
    expect(await send({})).toBe('InvalidRequest');
    expect(await send({ 'x-amz-checksum-crc32': 'AAAAAA==' })).toBe('BadDigest');
    expect(await send({ 'content-md5': 'AAAAAAAAAAAAAAAAAAAAAA==' })).toBe('BadDigest');
  });
});

describe('a listing', () => {
  test('has every key below a prefix, page by page, in the order of their bytes', async () => {
    const { client, put } = await start();
    const keys = ['a/2', 'a/1', 'a/\uffff', 'a/\u{1f511}', 'b/1'];
    for (const key of keys) await put('x', { Key: key });
    const found: (string | undefined)[][] = [];
    let ContinuationToken: string | undefined;
    do {
      const page = await client.send(
        new ListObjectsV2Command({ Bucket, Prefix: 'a/', MaxKeys: 2, ContinuationToken }),
      );
      found.push((page.Contents ?? []).map(({ Key: key }) => key));
      ContinuationToken = page.NextContinuationToken;
    } while (ContinuationToken !== undefined);
    expect(found).toEqual([
      ['a/1', 'a/2'],
      ['a/\uffff', 'a/\u{1f511}'],
    ]);
  });

  test('has no key that a delete marker hides', async () => {
    const { client, put } = await start(compliance);
    await put('one');
    await client.send(new DeleteObjectCommand({ Bucket, Key }));
    expect((await client.send(new ListObjectsV2Command({ Bucket }))).KeyCount).toBe(0);
  });

  test('gives a thousand keys a page at most', async () => {
    const { client, endpoint } = await start();
    await Promise.all(
      [...Array(1001).keys()].map((number) =>
        fetch(`${endpoint.url}/${Bucket}/${number}`, { method: 'PUT', body: 'x' }),
      ),
    );
    const { KeyCount, IsTruncated } = await client.send(new ListObjectsV2Command({ Bucket }));
    expect({ KeyCount, IsTruncated }).toEqual({ KeyCount: 1000, IsTruncated: true });
  });
});

describe('a disturbed call', () => {
  const cases: Record<string, { fault: Fault; name: string; isWritten: boolean }> = {
    'is told to slow down': { fault: { fault: 'throttle' }, name: 'SlowDown', isWritten: false },
    'fails inside S3': { fault: { fault: 'internal' }, name: 'InternalError', isWritten: false },
    'is denied': { fault: { fault: 'access-denied' }, name: 'AccessDenied', isWritten: false },
    'meets another one': {
      fault: { fault: 'error', name: 'ConditionalRequestConflict', message: 'conflict', status: 409 },
      name: 'ConditionalRequestConflict',
      isWritten: false,
    },
    'never arrives': { fault: { fault: 'reset-before' }, name: 'TimeoutError', isWritten: false },
    'loses its answer': { fault: { fault: 'reset-after' }, name: 'TimeoutError', isWritten: true },
  };
  test.each(Object.entries(cases))('%s', async (_title, { fault, name, isWritten }) => {
    const { put, faults, s3 } = await start();
    faults.push(fault);
    expect((await refusalOf(put('x'))).name).toMatch(new RegExp(`^(${name}|Error)$`));
    expect(s3.keys(Bucket)).toHaveLength(isWritten ? 1 : 0);
  });
});

test('whatever is not served is refused as such', async () => {
  const { endpoint } = await start();
  for (const [method, path] of [
    ['GET', '/'],
    ['POST', `/${Bucket}/x?uploads`],
    ['GET', `/${Bucket}?list-type=2&delimiter=/`],
  ] as const)
    expect((await fetch(endpoint.url + path, { method })).status).toBe(501);
});

test('a request is for S3 when it is signed for it', async () => {
  const { s3 } = await start();
  const signedFor = (service: string) =>
    s3.isFor({
      headers: {
        authorization: `AWS4-HMAC-SHA256 Credential=AKID/20260301/eu-central-1/${service}/aws4_request, X`,
      },
    } as never);
  expect([signedFor('s3'), signedFor('scheduler')]).toEqual([true, false]);
});
