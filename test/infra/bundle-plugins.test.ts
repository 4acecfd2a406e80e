import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as s3 from '@aws-sdk/client-s3';
import * as secretsManager from '@aws-sdk/client-secrets-manager';
import * as ssm from '@aws-sdk/client-ssm';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { leanSdk } from '../../infra/bundle-plugins.ts';

const source = `
  export { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
  export { DescribeSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
  export { GetParameterCommand, SSMClient } from '@aws-sdk/client-ssm';
`;

let directory: string;
let server: Server;
let answer: { status: number; body: unknown };
let requests = 0;
/** The same clients, whole and as they are bundled. */
let whole: Clients;
let lean: Clients;
let bytesOf: Readonly<Record<string, number>>;

type Clients = Pick<typeof s3, 'GetObjectCommand' | 'PutObjectCommand' | 'S3Client'> &
  Pick<typeof secretsManager, 'DescribeSecretCommand' | 'SecretsManagerClient'> &
  Pick<typeof ssm, 'GetParameterCommand' | 'SSMClient'>;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'rekey-lean-'));
  const bundled = async (name: string, plugins: (typeof leanSdk)[]) => {
    const outfile = join(directory, `${name}.mjs`);
    const { metafile } = await build({
      stdin: { contents: source, resolveDir: fileURLToPath(new URL('../..', import.meta.url)) },
      outfile,
      bundle: true,
      minify: true,
      format: 'esm',
      platform: 'node',
      mainFields: ['module', 'main'],
      metafile: true,
      plugins,
    });
    return [outfile, Object.values(metafile.outputs)[0]?.bytes ?? 0] as const;
  };
  const [, wholeBytes] = await bundled('whole', []);
  const [path, leanBytes] = await bundled('lean', [leanSdk]);
  bytesOf = { whole: wholeBytes, lean: leanBytes };
  lean = (await import(path)) as Clients;
  whole = { ...s3, ...secretsManager, ...ssm };
  server = createServer((_request, response) => {
    requests += 1;
    response
      .writeHead(answer.status, {
        'content-type': 'application/x-amz-json-1.1',
        'x-amzn-requestid': '1a2b3c4d-0000-4000-8000-000000000001',
      })
      .end(typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIDEXAMPLE');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'secret');
  vi.stubEnv('AWS_PROFILE', undefined);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  server.close();
  await rm(directory, { recursive: true });
});

const options = () => ({
  region: 'eu-central-1',
  endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
});

const getParameter = ({ SSMClient, GetParameterCommand }: Clients): Promise<object> =>
  new SSMClient(options()).send(new GetParameterCommand({ Name: '/rekey/orders' }));
const describeSecret = ({ SecretsManagerClient, DescribeSecretCommand }: Clients): Promise<object> =>
  new SecretsManagerClient(options()).send(new DescribeSecretCommand({ SecretId: 'rekey/orders' }));

const bucket = { Bucket: 'rekey-audit', Key: 'audit/1.json' };
const getObject = ({ S3Client, GetObjectCommand }: Clients): Promise<object> =>
  new S3Client({ ...options(), forcePathStyle: true }).send(new GetObjectCommand(bucket));
const putObject = ({ S3Client, PutObjectCommand }: Clients): Promise<object> =>
  new S3Client({ ...options(), forcePathStyle: true }).send(new PutObjectCommand({ ...bucket, Body: '{}' }));

/** What rekey reads of an error, and how often it was tried. */
async function failure(call: (clients: Clients) => Promise<object>, clients: Clients) {
  requests = 0;
  const error: unknown = await call(clients).then(
    () => new Error('nothing was thrown'),
    (thrown: unknown) => thrown,
  );
  const { name, message, $fault, $metadata } = error as Error &
    Record<'$fault', unknown> &
    Record<'$metadata', object>;
  // The waits between two tries are random.
  return { name, message, $fault, $metadata: { ...$metadata, totalRetryDelay: undefined }, requests };
}

describe('a client without the errors that its service may answer', () => {
  const errors: Record<string, { call: typeof getParameter; status: number; body: object | string }> = {
    'an object that is not there': {
      call: getObject,
      status: 404,
      body: '<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>',
    },
    'an object that is there already': {
      call: putObject,
      status: 412,
      body: '<Error><Code>PreconditionFailed</Code><Message>At least one did not hold</Message></Error>',
    },
    'a parameter that is not there': {
      call: getParameter,
      status: 400,
      body: { __type: 'ParameterNotFound', message: 'no such parameter' },
    },
    'an error with its message in a capital': {
      call: getParameter,
      status: 400,
      body: { __type: 'AccessDeniedException', Message: 'not authorized' },
    },
    'a secret that is not there': {
      call: describeSecret,
      status: 400,
      body: {
        __type: 'ResourceNotFoundException',
        Message: "Secrets Manager can't find the specified secret.",
      },
    },
    'an error of the service': {
      call: describeSecret,
      status: 500,
      body: { __type: 'InternalServiceError', Message: 'try again' },
    },
    throttling: {
      call: describeSecret,
      status: 400,
      body: { __type: 'ThrottlingException', message: 'Rate exceeded' },
    },
    'an error that the client does not know either': {
      call: describeSecret,
      status: 400,
      body: { __type: 'com.amazonaws.secretsmanager#SomethingNew', message: 'new' },
    },
  };
  test.each(Object.entries(errors))(
    'throws %s as the whole client does, as often tried',
    async (_what, { call, ...given }) => {
      answer = given;
      expect(await failure(call, lean)).toEqual(await failure(call, whole));
    },
  );

  test('reads what is answered as the whole client does', async () => {
    answer = {
      status: 200,
      body: {
        Parameter: { Name: '/rekey/orders', Value: '{}', LastModifiedDate: 1_772_366_400.123, Version: 2 },
      },
    };
    const read = await getParameter(lean);
    expect(read).toEqual(await getParameter(whole));
    expect(read).toMatchObject({ Parameter: { LastModifiedDate: new Date('2026-03-01T12:00:00.123Z') } });
  });

  test('is what makes the bundle small: an update of the SDK that this does not fit shows here', () => {
    expect(bytesOf['lean']).toBeLessThan(0.65 * (bytesOf['whole'] ?? 0));
  });
});
