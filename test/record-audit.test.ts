import { beforeAll, beforeEach, expect, onTestFinished, test, vi } from 'vitest';
import { startAwsEndpoint } from '../infra/local/aws/endpoint.ts';
import { createS3 } from '../infra/local/aws/s3.ts';
import { auditEvent } from './support/archive.ts';

const bucket = 'rekey-audit';
let written = '';
beforeEach(() => {
  written = '';
  const keep = (chunk: string | Uint8Array): boolean => {
    written += String(chunk);
    return true;
  };
  vi.spyOn(process.stdout, 'write').mockImplementation(keep);
  vi.spyOn(process.stderr, 'write').mockImplementation(keep);
});
beforeAll(() => () => vi.unstubAllEnvs());

/** The handler as Lambda loads it, against the local S3. */
async function start() {
  const s3 = createS3({
    buckets: [{ name: bucket, objectLock: { mode: 'GOVERNANCE', days: 365 } }],
    onCall: ({ input }) =>
      JSON.stringify(input).includes('000000000002')
        ? { fault: 'access-denied', message: 'not you' }
        : undefined,
  });
  const endpoint = await startAwsEndpoint({ services: [], otherwise: s3.serve });
  onTestFinished(() => endpoint.close());
  for (const [name, value] of Object.entries({
    AWS_ENDPOINT_URL: endpoint.url,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'AKIDTEST',
    AWS_SECRET_ACCESS_KEY: 'not-a-key',
    REKEY_EVENT_BUS_NAME: 'rekey',
    REKEY_AUDIT_BUCKET: bucket,
  }))
    vi.stubEnv(name, value);
  vi.resetModules();
  const { handler } = await import('../functions/record-audit.ts');
  return { s3, invoke: (event: unknown) => handler(event, { getRemainingTimeInMillis: () => 60_000 }) };
}

test('an event is recorded, however often it comes, and a dry run says which days a pass would seal', async () => {
  const { s3, invoke } = await start();
  const event = auditEvent(1, '2026-03-01T12:00:00Z');
  const key = 'audit/2026/03/01/00000000-0000-4000-8000-000000000001.json';
  expect(await invoke(event)).toEqual({ key, outcome: 'written' });
  expect(await invoke(event)).toEqual({ key, outcome: 'exists' });
  expect(s3.versions(bucket, key)).toHaveLength(1);
  expect(await invoke({ pass: 'scheduled', dryRun: true })).toMatchObject({
    sealed: expect.arrayContaining([{ day: '2026-03-01' }]),
  });
  expect(s3.keys(bucket).filter((each) => each.startsWith('seal/'))).toEqual([]);
});

test('what cannot be written fails the invocation, with a metric', async () => {
  const { invoke } = await start();
  await expect(invoke(auditEvent(2, '2026-03-01T12:00:00Z'))).rejects.toThrow(
    /^STORE_DENIED: GetObject of audit/,
  );
  expect(written).toMatch(/"AuditWriteFailed":1/);
});

test('what is none of ours is refused with what this function takes', async () => {
  const { s3, invoke } = await start();
  for (const event of [
    undefined,
    {},
    { Records: [] },
    auditEvent(3, '2026-03-01T12:00:00Z', { source: 'aws.s3' }),
  ])
    await expect(invoke(event)).rejects.toThrow(/^EVENT_INVALID: .*this function takes /);
  expect(s3.keys(bucket)).toEqual([]);
});

test('without the name of its bucket it does not start', async () => {
  await start();
  vi.stubEnv('REKEY_AUDIT_BUCKET', undefined);
  vi.resetModules();
  await expect(import('../functions/record-audit.ts')).rejects.toThrow('REKEY_AUDIT_BUCKET: ');
});
