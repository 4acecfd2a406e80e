import {
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { mockClient } from 'aws-sdk-client-mock';
import { describe, expect, onTestFinished, test } from 'vitest';
import { auditArchive } from '../../functions/aws/archive.ts';
import { StoreError } from '../../functions/core/errors.ts';
import { type Fault, startAwsEndpoint } from '../../infra/local/aws/endpoint.ts';
import { createS3 } from '../../infra/local/aws/s3.ts';
import { awsError, networkError, rejectionOf } from './support.ts';

const bucket = 'rekey-audit';
const key = 'audit/2026/03/01/1.json';
const document = '{"version":1}';
const credentials = { accessKeyId: 'AKIDTEST', secretAccessKey: 'not-a-key' };
const conflict = awsError('ConditionalRequestConflict', { status: 409 });

function mocked() {
  const client = new S3Client({ region: 'eu-central-1' });
  const slept: number[] = [];
  const sleep = async (ms: number) => void slept.push(ms);
  return { mock: mockClient(client), ports: auditArchive(client, bucket, { sleep }), slept };
}

/** On the real SDK, against the local S3. */
async function real(maxAttempts = 1) {
  const faults: Fault[] = [];
  const s3 = createS3({
    buckets: [{ name: bucket, objectLock: { mode: 'COMPLIANCE', days: 365 } }],
    onCall: () => faults.shift(),
  });
  const endpoint = await startAwsEndpoint({ services: [], otherwise: s3.serve });
  const client = new S3Client({ endpoint: endpoint.url, region: 'eu-central-1', credentials, maxAttempts });
  onTestFinished(async () => {
    client.destroy();
    await endpoint.close();
  });
  return { s3, client, faults, ports: auditArchive(client, bucket, { sleep: async () => undefined }) };
}

describe('an object of the trail', () => {
  test('is written only where there is none, as JSON', async () => {
    const { mock, ports } = mocked();
    mock.on(PutObjectCommand).resolves({});
    expect(await ports.archive({ key, document })).toBe('written');
    expect(mock.commandCalls(PutObjectCommand)[0]?.args[0].input).toEqual({
      Bucket: bucket,
      Key: key,
      Body: document,
      ContentType: 'application/json',
      IfNoneMatch: '*',
    });
  });

  test('is never changed: who comes second is told that it exists', async () => {
    const { s3, ports } = await real();
    expect(await ports.archive({ key, document })).toBe('written');
    expect(await ports.archive({ key, document: 'another' })).toBe('exists');
    expect(await ports.readArchive({ key })).toBe(document);
    expect(s3.versions(bucket, key)).toHaveLength(1);
  });

  test('of several at once is written by one', async () => {
    const { ports } = await real();
    const answers = await Promise.all(
      [1, 2, 3, 4].map((number) => ports.archive({ key, document: `${number}` })),
    );
    expect(answers.toSorted()).toEqual(['exists', 'exists', 'exists', 'written']);
  });

  test('whose first write lost its answer exists', async () => {
    const { faults, ports } = await real(2);
    faults.push({ fault: 'reset-after' });
    expect(await ports.archive({ key, document })).toBe('exists');
    expect(await ports.readArchive({ key })).toBe(document);
  });

  test('is sent again while others are at work on its key', async () => {
    const { mock, ports, slept } = mocked();
    mock.on(PutObjectCommand).rejectsOnce(conflict).rejectsOnce(conflict).resolvesOnce({});
    expect(await ports.archive({ key, document })).toBe('written');
    expect(slept).toEqual([100, 200]);
  });

  test('is given up after five conflicts', async () => {
    const { mock, ports } = mocked();
    mock.on(PutObjectCommand).rejects(conflict);
    expect(await rejectionOf(ports.archive({ key, document }))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    });
    expect(mock.commandCalls(PutObjectCommand)).toHaveLength(5);
  });
});

describe('what is read', () => {
  test('is the object as it is, with whatever begins it', async () => {
    const { ports } = await real();
    await ports.archive({ key, document: '\ufeff{"ä":1}' });
    expect(await ports.readArchive({ key })).toBe('\ufeff{"ä":1}');
  });

  test('is absent where there is none, or where somebody hides it', async () => {
    const { client, ports } = await real();
    expect(await ports.readArchive({ key })).toBe('absent');
    await ports.archive({ key, document });
    await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }));
    expect(await ports.readArchive({ key })).toBe('absent');
  });

  test.each(['NoSuchBucket', 'AccessDenied', 'NotFound'])('is not absent for %s', async (name) => {
    const { mock, ports } = mocked();
    mock.on(GetObjectCommand).rejects(awsError(name, { status: name === 'AccessDenied' ? 403 : 404 }));
    expect(await rejectionOf(ports.readArchive({ key }))).toMatchObject({
      code: name === 'AccessDenied' ? 'STORE_DENIED' : 'STORE_REFUSED',
      effect: 'none',
    });
  });
});

describe('the keys below a prefix', () => {
  test('are all listed, page by page, in the order of their text', async () => {
    const { mock, ports } = mocked();
    mock
      .on(ListObjectsV2Command)
      .resolvesOnce({ Contents: [{ Key: 'audit/b' }], IsTruncated: true, NextContinuationToken: 'second' })
      .resolvesOnce({ IsTruncated: true, NextContinuationToken: 'third' })
      .resolvesOnce({ Contents: [{ Key: 'audit/a' }], IsTruncated: false });
    expect(await ports.listArchive({ prefix: 'audit/' })).toEqual(['audit/a', 'audit/b']);
    expect(mock.commandCalls(ListObjectsV2Command).map(({ args: [{ input }] }) => input)).toEqual([
      { Bucket: bucket, Prefix: 'audit/', ContinuationToken: undefined },
      { Bucket: bucket, Prefix: 'audit/', ContinuationToken: 'second' },
      { Bucket: bucket, Prefix: 'audit/', ContinuationToken: 'third' },
    ]);
  });

  test('are more than a page at S3 as well', async () => {
    const { client, ports } = await real();
    const keys = [...Array(1203).keys()].map((number) => `audit/${String(number).padStart(4, '0')}`);
    for (let from = 0; from < keys.length; from += 50)
      await Promise.all(
        keys
          .slice(from, from + 50)
          .map((Key) => client.send(new PutObjectCommand({ Bucket: bucket, Key, Body: 'x' }))),
      );
    await ports.archive({ key: 'seal/1', document });
    expect(await ports.listArchive({ prefix: 'audit/' })).toEqual(keys);
    expect(await ports.listArchive({ prefix: 'none/' })).toEqual([]);
  });

  test.each([
    ['a part without a way to the rest', { Contents: [{ Key: key }], IsTruncated: true }],
    ['an object without a key', { Contents: [{}] }],
  ])('are not listed with %s', async (_title, answer) => {
    const { mock, ports } = mocked();
    mock.on(ListObjectsV2Command).resolves(answer);
    expect(await rejectionOf(ports.listArchive({ prefix: 'audit/' }))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      effect: 'none',
    });
  });
});

describe('every other failure', () => {
  const failures: Record<string, { error: Error; code: string; writing: string }> = {
    'of S3 that is asked too fast leaves open what was done': {
      error: awsError('SlowDown', { status: 503 }),
      code: 'STORE_UNAVAILABLE',
      writing: 'unknown',
    },
    'inside S3 leaves open what was done': {
      error: awsError('InternalError', { status: 500 }),
      code: 'STORE_UNAVAILABLE',
      writing: 'unknown',
    },
    'of the connection leaves open what was done': {
      error: networkError(),
      code: 'STORE_UNAVAILABLE',
      writing: 'unknown',
    },
    'of permission did nothing': {
      error: awsError('AccessDenied', { status: 403 }),
      code: 'STORE_DENIED',
      writing: 'none',
    },
    'by refusal did nothing': { error: awsError('InvalidRequest'), code: 'STORE_REFUSED', writing: 'none' },
  };
  test.each(Object.entries(failures))('%s', async (_sentence, { error, code, writing }) => {
    const { mock, ports } = mocked();
    mock.rejects(error);
    for (const [effect, call] of [
      [writing, () => ports.archive({ key, document })],
      ['none', () => ports.readArchive({ key })],
      ['none', () => ports.listArchive({ prefix: 'audit/' })],
    ] as const) {
      const thrown = await rejectionOf(call());
      expect(thrown).toBeInstanceOf(StoreError);
      expect(thrown).toMatchObject({ code, effect, cause: error });
    }
  });
});
