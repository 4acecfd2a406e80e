import { S3Client } from '@aws-sdk/client-s3';
import { auditArchive } from '../aws/archive.ts';
import type { Ports } from '../core/ports.ts';
import { patience } from './patience.ts';

/** The archive with a client of its own, which only record-audit has. */
export const openArchive = (
  { REKEY_AUDIT_BUCKET }: { readonly REKEY_AUDIT_BUCKET: string },
  ports: Pick<Ports, 'sleep'>,
): ReturnType<typeof auditArchive> =>
  auditArchive(new S3Client({ requestHandler: patience }), REKEY_AUDIT_BUCKET, ports);
