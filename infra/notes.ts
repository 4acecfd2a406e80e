import { RemovalPolicy } from 'aws-cdk-lib';
import { AttributeType, BillingMode, Table, TableEncryption } from 'aws-cdk-lib/aws-dynamodb';
import type { Construct } from 'constructs';
import { tableName } from '../functions/core/notes.ts';

/**
 * What passes remember, for as long as it is of use. It holds names of users and no login. What people order, and what a credential is
 * to be, is in Parameter Store.
 */
export function noteTable(scope: Construct, id: string): Table {
  return new Table(scope, id, {
    tableName,
    partitionKey: { name: 'place', type: AttributeType.STRING },
    sortKey: { name: 'key', type: AttributeType.STRING },
    timeToLiveAttribute: 'expiresAt',
    billingMode: BillingMode.PAY_PER_REQUEST,
    encryption: TableEncryption.AWS_MANAGED,
    pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
    // Kept as the audit trail is. Not of a deployment that failed: its next try would find the name taken.
    removalPolicy: RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
  });
}
