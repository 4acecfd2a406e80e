import { S3Client } from '@aws-sdk/client-s3';
import { auditArchive } from '../aws/archive.ts';
import type { Ports } from '../core/ports.ts';
import { patience } from './patience.ts';

/** The archive with a client of its own, apart from compose.ts so that only record-audit loads it. */
export const openArchive = (bucket: string, ports: Pick<Ports, 'sleep'>): ReturnType<typeof auditArchive> =>
  auditArchive(new S3Client({ requestHandler: patience }), bucket, ports);
