import { Duration, RemovalPolicy, Validations } from 'aws-cdk-lib';
import { Archive, type EventBus } from 'aws-cdk-lib/aws-events';
import { AnyPrincipal, Effect, PolicyStatement } from 'aws-cdk-lib/aws-iam';
import {
  BlockPublicAccess,
  Bucket,
  BucketEncryption,
  ObjectLockRetention,
  ObjectOwnership,
} from 'aws-cdk-lib/aws-s3';
import { Construct } from 'constructs';
import { eventSource } from '../functions/core/names.ts';

export interface AuditProps {
  /** The bus `rekey`. */
  readonly bus: EventBus;
  /** How long a record can neither be changed nor deleted. */
  readonly retention: Duration;
  readonly lock: AuditLock;
  /** For how long events can be replayed. */
  readonly replayable: Duration;
}

/**
 * Who may end a record before its time: under `governance` whoever has s3:BypassGovernanceRetention, under `compliance` nobody,
 * the root user included, until the retention is over.
 */
export type AuditLock = 'governance' | 'compliance';

/** Where the audit trail lies, and the archive out of which a gap in it can be filled. */
export class Audit extends Construct {
  readonly bucket: Bucket;

  constructor(scope: Construct, id: string, { bus, retention, lock, replayable }: AuditProps) {
    super(scope, id);
    const faults = [...faultsOf('auditRetention', retention), ...faultsOf('eventRetention', replayable)];
    this.node.addValidation({ validate: () => faults });
    // A wrong one makes the synthesis fail; what follows only keeps the rest of it readable.
    const day = Duration.days(1);
    const locked = isWholeDays(retention) ? retention : day;
    const kept = isWholeDays(replayable) ? replayable : day;
    this.bucket = new Bucket(this, 'Bucket', {
      // A lock is on a version, so it comes with versions. Nobody need ask for it when writing: it is the bucket's default.
      versioned: true,
      objectLockDefaultRetention: ObjectLockRetention[lock](locked),
      encryption: BucketEncryption.S3_MANAGED,
      enforceSSL: true,
      minimumTLSVersion: 1.2,
      blockPublicAccess: BlockPublicAccess.BLOCK_ALL,
      objectOwnership: ObjectOwnership.BUCKET_OWNER_ENFORCED,
      // The trail outlives what it is about.
      removalPolicy: RemovalPolicy.RETAIN,
    });
    Validations.of(this.bucket).acknowledge({
      id: 'AwsSolutions-S1',
      reason:
        "A change of a record shows without an access log: records are locked, versioned and sealed. CloudTrail's data events tell who reads them; they are the account's.",
    });
    // The lock keeps versions. It does not keep a delete marker from being put before one: the record then reads as absent, and
    // "if there is none" holds for whoever writes another in its place (AWS documentation). Nothing here ever needs a marker, so
    // nobody may set one, an administrator included. The way out is to delete the version itself (s3:DeleteObjectVersion), which is
    // judged by the lock alone: after the retention, or before it with s3:BypassGovernanceRetention. Therefore these are not denied.
    // A lifecycle rule is not judged by this policy (AWS documentation): let one only expire noncurrent versions.
    this.bucket.addToResourcePolicy(
      new PolicyStatement({
        sid: 'NobodyHidesARecord',
        effect: Effect.DENY,
        principals: [new AnyPrincipal()],
        actions: ['s3:DeleteObject'],
        resources: [this.bucket.arnForObjects('*')],
      }),
    );
    // Nor may anybody put another version before one: what writes to the bucket has to say that there must be none, which S3 then holds
    // it to (AWS documentation).
    this.bucket.addToResourcePolicy(
      new PolicyStatement({
        sid: 'NobodyOverwritesARecord',
        effect: Effect.DENY,
        principals: [new AnyPrincipal()],
        actions: ['s3:PutObject'],
        resources: [this.bucket.arnForObjects('*')],
        conditions: { Null: { 's3:if-none-match': 'true' } },
      }),
    );
    // The bucket without it would be open to all that the account allows.
    this.bucket.policy?.applyRemovalPolicy(RemovalPolicy.RETAIN);
    new Archive(this, 'Events', {
      sourceEventBus: bus,
      archiveName: 'rekey',
      description: 'rekey: facts and requests, to be replayed where the audit trail has a gap',
      eventPattern: { source: [eventSource] },
      retention: kept,
    });
  }
}

/** Both S3 and EventBridge count whole days. */
function isWholeDays(duration: Duration): boolean {
  const days = duration.toDays({ integral: false });
  return Number.isInteger(days) && days >= 1;
}

const faultsOf = (name: string, duration: Duration): string[] =>
  isWholeDays(duration)
    ? []
    : [
        `${name}: expected whole days, at least one, got ${duration.toHumanString()}; give it as Duration.days`,
      ];
