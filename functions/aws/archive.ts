import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { StoreError } from '../core/errors.ts';
import type { Ports } from '../core/ports.ts';
import { failureOf, isNamed } from './failure.ts';
import { everyPage, unreadable } from './pages.ts';

const mostAttempts = 5;

const busy = (key: string, { effect, cause, detail }: StoreError): StoreError =>
  new StoreError(
    'STORE_UNAVAILABLE',
    effect,
    `PutObject of ${key} met other writers each of ${mostAttempts} times; it is tried again`,
    { cause, detail },
  );

/** The ports to the bucket of the audit trail. The lock is the bucket's default, so nothing here asks for one. */
export function auditArchive(
  client: S3Client,
  bucket: string,
  { sleep }: Pick<Ports, 'sleep'>,
): Pick<Ports, 'archive' | 'readArchive' | 'listArchive'> {
  return {
    async archive({ key, document }) {
      const put = new PutObjectCommand({
        Bucket: bucket,
        Key: key,
        Body: document,
        ContentType: 'application/json',
        // Written only where there is no object, in one step. A first try of the SDK's whose answer was lost reads as `exists`.
        IfNoneMatch: '*',
      });
      for (let attempt = 1; ; attempt += 1)
        try {
          await client.send(put);
          return 'written';
        } catch (error) {
          // 412: an object has the key, be it by an earlier write or by one that was faster (AWS documentation).
          if (isNamed(error, 'PreconditionFailed')) return 'exists';
          // 409: others were at work on the key, this one wrote nothing, and is to be sent again (AWS documentation).
          const failure = failureOf(error, `PutObject of ${key}`, 'unknown');
          if (!isNamed(error, 'ConditionalRequestConflict')) throw failure;
          if (attempt >= mostAttempts) throw busy(key, failure);
          await sleep(100 * 2 ** (attempt - 1));
        }
    },

    async readArchive({ key }) {
      const call = `GetObject of ${key}`;
      try {
        const { Body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
        // As they are, a byte order mark included: a digest is made of it.
        return new TextDecoder('utf-8', { ignoreBOM: true }).decode(await Body?.transformToByteArray());
      } catch (error) {
        // Without s3:ListBucket an object that is not there is answered as denied instead (AWS documentation).
        if (isNamed(error, 'NoSuchKey')) return 'absent';
        throw failureOf(error, call, 'none');
      }
    },

    async listArchive({ prefix }) {
      const call = `ListObjectsV2 of ${prefix}`;
      const keys = await everyPage(call, async (token) => {
        const {
          Contents = [],
          IsTruncated,
          NextContinuationToken,
        } = await client.send(
          new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ContinuationToken: token }),
        );
        if (IsTruncated === true && NextContinuationToken === undefined)
          throw unreadable(call, 'answered a part without a way to the rest');
        const items = Contents.map(({ Key }) => {
          if (Key === undefined) throw unreadable(call, 'answered an object without its key');
          return Key;
        });
        return { items, next: NextContinuationToken };
      });
      return keys.toSorted();
    },
  };
}
