import { createHash, randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { crc32 } from 'node:zlib';
import * as z from 'zod';
import { type Clock, systemClock } from '../clock.ts';
import { AwsError } from './aws-error.ts';
import { type OnCall, principalOf } from './endpoint.ts';
import { type Random, randomSuffix, systemRandom } from './random.ts';
import type { Authorization, Authorize } from './service.ts';

export interface BucketSettings {
  readonly name: string;
  /** Switches versions on, as S3 does. @default none */
  readonly objectLock?: ObjectLock;
}

/** The default retention of the bucket, which every version gets that asks for none of its own. */
export interface ObjectLock {
  readonly mode: 'GOVERNANCE' | 'COMPLIANCE';
  readonly days: number;
}

export interface S3Options {
  readonly buckets: readonly BucketSettings[];
  readonly onCall?: OnCall;
  /** Asked before a request is served, for all that it needs. @default everybody may everything */
  readonly authorize?: Authorize;
  /** Hears of a failure that no AWS error stands for: a defect of the stand-in. */
  readonly onDefect?: (error: unknown) => void;
  /** @default systemClock */
  readonly clock?: Clock;
  readonly random?: Random;
}

/** One version of an object; a delete marker has no body. */
export interface ObjectVersion {
  readonly versionId: string;
  readonly body?: Buffer;
  readonly contentType: string;
  readonly modifiedAt: Date;
  readonly lock?: { readonly mode: ObjectLock['mode']; readonly until: Date };
}

export interface S3 {
  /** For the endpoint's `otherwise`: one request of the REST protocol, addressed by path. */
  readonly serve: (request: IncomingMessage, response: ServerResponse) => void;
  addBucket(settings: BucketSettings): void;
  /** Whether the request is signed for S3. */
  isFor(request: IncomingMessage): boolean;
  /** Oldest first, delete markers included. */
  versions(bucket: string, key: string): readonly ObjectVersion[];
  /** Keys with a current version, in the order of their bytes. */
  keys(bucket: string): readonly string[];
}

/** Its error has a place for more than a text. */
class S3Error extends AwsError {
  readonly more: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  constructor(
    name: string,
    message: string,
    status: number,
    more: Readonly<Record<string, string>> = {},
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(name, message, status);
    this.more = more;
    this.headers = headers;
  }
}

interface Bucket extends BucketSettings {
  readonly objects: Map<string, ObjectVersion[]>;
}

/** One request, taken apart. */
interface Call {
  readonly bucket: Bucket;
  readonly key: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
}

// AWS documentation, S3 API reference: error responses.
const noSuchKey = (key: string, headers: Readonly<Record<string, string>> = {}) =>
  new S3Error('NoSuchKey', 'The specified key does not exist.', 404, { Key: key }, headers);
const notImplemented = (header: string) =>
  new S3Error('NotImplemented', 'A header you provided implies functionality that is not implemented.', 501, {
    Header: header,
  });
const invalid = (name: string, message: string) => new S3Error(name, message, 400);

/** What the SDK speaks to S3 by itself. */
const tls = { 's3:TlsVersion': '1.3' } as const;
const mostKeys = 1000;
const dayMs = 86_400_000;

/** S3 in memory: objects with versions, conditional writes and Object Lock. Path-style requests only; signatures are not checked. */
export function createS3({
  buckets: settings,
  onCall = () => undefined,
  authorize = async () => undefined,
  onDefect = () => undefined,
  clock = systemClock,
  random = systemRandom,
}: S3Options): S3 {
  const buckets = new Map<string, Bucket>();
  const addBucket = (bucket: BucketSettings): void =>
    void buckets.set(bucket.name, { ...bucket, objects: new Map() });
  for (const bucket of settings) addBucket(bucket);

  function bucketOf(name: string): Bucket {
    const bucket = buckets.get(name);
    if (bucket === undefined)
      throw new S3Error('NoSuchBucket', 'The specified bucket does not exist', 404, { BucketName: name });
    return bucket;
  }

  const currentOf = ({ bucket, key }: Pick<Call, 'bucket' | 'key'>): ObjectVersion | undefined =>
    bucket.objects.get(key)?.at(-1);

  function add(
    { bucket, key }: Call,
    version: Omit<ObjectVersion, 'versionId' | 'modifiedAt'>,
  ): ObjectVersion {
    const added = {
      versionId: bucket.objectLock === undefined ? 'null' : randomSuffix(random, 32),
      modifiedAt: clock.now(),
      ...version,
    };
    // Without versions there is one object, and no marker for one that was deleted.
    const before = bucket.objectLock === undefined ? [] : (bucket.objects.get(key) ?? []);
    bucket.objects.set(key, [...before, added]);
    return added;
  }

  function putObject(call: Call): Answer {
    const { bucket, key, headers, body } = call;
    if (Buffer.byteLength(key) > 1024) throw invalid('KeyTooLongError', 'Your key is too long');
    if (/aws-chunked/.test(headers['content-encoding'] ?? '')) throw notImplemented('Content-Encoding');
    checkDigest(headers, body, bucket.objectLock !== undefined);
    const condition = headers['if-none-match'];
    if (headers['if-match'] !== undefined) throw notImplemented('If-Match');
    if (condition !== undefined && condition !== '*') throw notImplemented('If-None-Match');
    // A delete marker is no object: under it the condition holds (AWS documentation, conditional writes).
    if (condition === '*' && currentOf(call)?.body !== undefined)
      throw new S3Error(
        'PreconditionFailed',
        'At least one of the pre-conditions you specified did not hold',
        412,
        { Condition: 'If-None-Match' },
      );
    const lock = lockOf(bucket, clock);
    const version = add(call, {
      body,
      contentType: headers['content-type'] ?? 'binary/octet-stream',
      ...(lock === undefined ? {} : { lock }),
    });
    return { status: 200, headers: { ...versionHeader(call, version), etag: etagOf(body) } };
  }

  function getObject(call: Call): Answer {
    const { bucket, key, query } = call;
    const versionId = query.get('versionId');
    const version =
      versionId === null
        ? currentOf(call)
        : bucket.objects.get(key)?.find((each) => each.versionId === versionId);
    if (version === undefined) {
      if (versionId === null) throw noSuchKey(key);
      throw new S3Error('NoSuchVersion', 'The specified version does not exist.', 404, { Key: key });
    }
    const headers = versionHeader(call, version);
    if (version.body === undefined) {
      const marker = { ...headers, 'x-amz-delete-marker': 'true' };
      if (versionId === null) throw noSuchKey(key, marker);
      throw new S3Error(
        'MethodNotAllowed',
        'The specified method is not allowed against this resource.',
        405,
        {},
        marker,
      );
    }
    const { body, lock } = version;
    return {
      status: 200,
      headers: {
        ...headers,
        'content-type': version.contentType,
        etag: etagOf(body),
        'last-modified': version.modifiedAt.toUTCString(),
        ...(lock === undefined
          ? {}
          : {
              'x-amz-object-lock-mode': lock.mode,
              'x-amz-object-lock-retain-until-date': lock.until.toISOString(),
            }),
      },
      body,
    };
  }

  function deleteObject(call: Call): Answer {
    const { bucket, key, query, headers } = call;
    const versionId = query.get('versionId');
    if (versionId === null) {
      if (bucket.objectLock === undefined) {
        bucket.objects.delete(key);
        return { status: 204 };
      }
      // A lock keeps the version, not the key: a marker hides what stays (AWS documentation, Object Lock).
      const marker = add(call, { contentType: '' });
      return { status: 204, headers: { ...versionHeader(call, marker), 'x-amz-delete-marker': 'true' } };
    }
    const versions = bucket.objects.get(key) ?? [];
    const version = versions.find((each) => each.versionId === versionId);
    const mayBypass =
      version?.lock?.mode === 'GOVERNANCE' && headers['x-amz-bypass-governance-retention'] === 'true';
    if (version?.lock !== undefined && version.lock.until > clock.now() && !mayBypass)
      throw new S3Error('AccessDenied', 'Access Denied because object protected by object lock.', 403);
    const left = versions.filter((each) => each !== version);
    if (left.length === 0) bucket.objects.delete(key);
    else bucket.objects.set(key, left);
    return { status: 204, headers: { 'x-amz-version-id': versionId } };
  }

  function listObjects({ bucket, query }: Call): Answer {
    if (query.get('list-type') !== '2' || query.has('delimiter'))
      throw new S3Error('NotImplemented', 'Only ListObjectsV2 without a delimiter is served here.', 501);
    const prefix = query.get('prefix') ?? '';
    const maxKeys = z.coerce
      .number()
      .int()
      .min(0)
      .safeParse(query.get('max-keys') ?? mostKeys);
    if (!maxKeys.success)
      throw invalid('InvalidArgument', 'Provided max-keys not an integer or within integer range');
    const token = query.get('continuation-token');
    const after =
      token === null ? query.get('start-after') : Buffer.from(token, 'base64url').toString('utf8');
    const found = currentKeys(bucket).filter((key) => key.startsWith(prefix) && isAfter(key, after));
    const items = found.slice(0, Math.min(maxKeys.data, mostKeys));
    const last = items.at(-1);
    const isTruncated = last !== undefined && items.length < found.length;
    const contents = items.map((key) => {
      const { body, modifiedAt } = currentOf({ bucket, key }) ?? { modifiedAt: new Date(0) };
      return element('Contents', [
        element('Key', key),
        element('LastModified', modifiedAt.toISOString()),
        element('ETag', etagOf(body ?? Buffer.alloc(0))),
        element('Size', String(body?.length ?? 0)),
        element('StorageClass', 'STANDARD'),
      ]);
    });
    return {
      status: 200,
      body: xml(
        element('ListBucketResult', [
          element('Name', bucket.name),
          element('Prefix', prefix),
          element('MaxKeys', String(Math.min(maxKeys.data, mostKeys))),
          element('KeyCount', String(items.length)),
          element('IsTruncated', String(isTruncated)),
          ...(isTruncated ? [element('NextContinuationToken', Buffer.from(last).toString('base64url'))] : []),
          ...contents,
        ]),
      ),
    };
  }

  const aboutObject = (
    action: string,
    { bucket, key }: Call,
    context: Readonly<Record<string, string>> = {},
  ): Authorization => ({
    action: `s3:${action}`,
    resource: `arn:aws:s3:::${bucket.name}/${key}`,
    context: { ...tls, ...context },
  });
  const toWrite = (call: Call): readonly Authorization[] => {
    const { 'if-none-match': ifNoneMatch } = call.headers;
    return [
      aboutObject('PutObject', call, ifNoneMatch === undefined ? {} : { 's3:if-none-match': ifNoneMatch }),
    ];
  };
  const aboutBucket = ({ bucket }: Call, context: Readonly<Record<string, string>> = {}): Authorization => ({
    action: 's3:ListBucket',
    resource: `arn:aws:s3:::${bucket.name}`,
    context: { ...tls, ...context },
  });
  const versioned = (action: string, { query }: Call): string =>
    query.has('versionId') ? `${action}Version` : action;
  /** Whoever may not list is not told that there is nothing, but refused (AWS documentation). */
  const toRead = (call: Call): readonly Authorization[] => [
    aboutObject(versioned('GetObject', call), call),
    ...(currentOf(call)?.body === undefined ? [aboutBucket(call)] : []),
  ];
  const operations: Readonly<
    Record<
      string,
      {
        readonly name: string;
        readonly asks: (call: Call) => readonly Authorization[];
        readonly serve: (call: Call) => Answer;
      }
    >
  > = {
    'PUT object': { name: 'PutObject', asks: toWrite, serve: putObject },
    'GET object': { name: 'GetObject', asks: toRead, serve: getObject },
    'HEAD object': { name: 'HeadObject', asks: toRead, serve: getObject },
    'DELETE object': {
      name: 'DeleteObject',
      asks: (call) => [
        aboutObject(versioned('DeleteObject', call), call),
        ...(call.headers['x-amz-bypass-governance-retention'] === 'true'
          ? [aboutObject('BypassGovernanceRetention', call)]
          : []),
      ],
      serve: deleteObject,
    },
    'GET bucket': {
      name: 'ListObjectsV2',
      asks: (call) => [aboutBucket(call, { 's3:prefix': call.query.get('prefix') ?? '' })],
      serve: listObjects,
    },
  };

  async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const requestId = randomUUID();
    const send = ({ status, headers = {}, body = '' }: Answer): void =>
      void response
        .writeHead(status, {
          'x-amz-request-id': requestId,
          ...(typeof body === 'string' && body !== '' ? { 'content-type': 'application/xml' } : {}),
          // S3 answers no length to HEAD but the object's own, which nobody here asks for.
          ...(request.method === 'HEAD' || status === 204
            ? {}
            : { 'content-length': Buffer.byteLength(body) }),
          ...headers,
        })
        .end(request.method === 'HEAD' ? '' : body);
    try {
      const body = await buffer(request);
      const { pathname, searchParams: query } = new URL(request.url ?? '/', 'http://s3');
      const [, bucketName = '', path = ''] = /^\/([^/]*)\/?(.*)$/.exec(pathname) ?? [];
      const key = decodeURIComponent(path);
      const operation = operations[`${request.method} ${key === '' ? 'bucket' : 'object'}`];
      if (operation === undefined || bucketName === '')
        throw new S3Error('NotImplemented', `${request.method} ${pathname} is not served here.`, 501);
      const principal = principalOf(request.headers.authorization);
      const input = {
        Bucket: bucketName,
        ...(key === '' ? { Prefix: query.get('prefix') ?? '' } : { Key: key }),
      };
      const fault = await onCall({ service: 's3', operation: operation.name, input, principal });
      switch (fault?.fault) {
        case 'throttle':
          throw new S3Error('SlowDown', fault.message ?? 'Please reduce your request rate.', 503);
        case 'internal':
          throw new S3Error(
            'InternalError',
            fault.message ?? 'We encountered an internal error. Please try again.',
            500,
          );
        case 'access-denied':
          throw new S3Error('AccessDenied', fault.message ?? 'Access Denied', 403);
        case 'error':
          throw new S3Error(fault.name, fault.message, fault.status ?? 400);
        case 'reset-before':
          return void request.socket.resetAndDestroy();
        case 'delay':
          await clock.sleep(fault.ms);
          break;
        case 'reset-after':
        case undefined:
          break;
        default:
          fault satisfies never;
      }
      const call = { bucket: bucketOf(bucketName), key, query, headers: request.headers, body };
      for (const authorization of operation.asks(call)) {
        const denied = await authorize(principal, authorization);
        if (denied !== undefined) throw new S3Error('AccessDenied', denied, 403);
      }
      const answer = operation.serve(call);
      if (fault?.fault === 'reset-after') return void request.socket.resetAndDestroy();
      send(answer);
    } catch (error) {
      if (!(error instanceof S3Error)) onDefect(error);
      const known =
        error instanceof S3Error
          ? error
          : new S3Error('InternalError', 'We encountered an internal error. Please try again.', 500);
      send({
        status: known.status,
        headers: known.headers,
        body: xml(
          element('Error', [
            element('Code', known.name),
            element('Message', known.message),
            ...Object.entries(known.more).map(([name, value]) => element(name, value)),
            element('RequestId', requestId),
          ]),
        ),
      });
    }
  }

  return {
    serve: (request, response) => void respond(request, response),
    addBucket,
    isFor: ({ headers: { authorization } }) =>
      /Credential=[^,\s]*\/s3\/aws4_request/.test(authorization ?? ''),
    versions: (bucket, key) => bucketOf(bucket).objects.get(key) ?? [],
    keys: (bucket) => currentKeys(bucketOf(bucket)),
  };
}

/** S3 lists keys in the order of their bytes (AWS documentation). */
const order = (one: string, other: string): number => Buffer.compare(Buffer.from(one), Buffer.from(other));
const isAfter = (key: string, after: string | null): boolean => after === null || order(key, after) > 0;

const currentKeys = ({ objects }: Bucket): readonly string[] =>
  [...objects].flatMap(([key, versions]) => (versions.at(-1)?.body === undefined ? [] : [key])).sort(order);

function lockOf({ objectLock }: Bucket, clock: Clock): ObjectVersion['lock'] {
  if (objectLock === undefined) return undefined;
  return { mode: objectLock.mode, until: new Date(clock.now().getTime() + objectLock.days * dayMs) };
}

const versionHeader = ({ bucket }: Call, { versionId }: ObjectVersion): Readonly<Record<string, string>> =>
  bucket.objectLock === undefined ? {} : { 'x-amz-version-id': versionId };

const etagOf = (body: Buffer): string => `"${createHash('md5').update(body).digest('hex')}"`;

/** What came is what was sent; under a retention there must be a digest at all (AWS documentation, Object Lock). */
function checkDigest(headers: IncomingMessage['headers'], body: Buffer, isRequired: boolean): void {
  const { 'content-md5': md5, 'x-amz-checksum-crc32': crc } = headers;
  if (
    isRequired &&
    md5 === undefined &&
    !Object.keys(headers).some((name) => name.startsWith('x-amz-checksum-'))
  )
    throw invalid(
      'InvalidRequest',
      'Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters',
    );
  if (md5 !== undefined && md5 !== createHash('md5').update(body).digest('base64'))
    throw invalid('BadDigest', 'The Content-MD5 you specified did not match what we received.');
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(body));
  if (crc !== undefined && crc !== checksum.toString('base64'))
    throw invalid('BadDigest', 'The CRC32 you specified did not match the calculated checksum.');
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
};
const escaped = (text: string): string => text.replaceAll(/[&<>"]/g, (letter) => entities[letter] ?? letter);
const element = (name: string, content: string | readonly string[]): string =>
  `<${name}>${typeof content === 'string' ? escaped(content) : content.join('')}</${name}>`;
const xml = (root: string): string => `<?xml version="1.0" encoding="UTF-8"?>\n${root}`;
