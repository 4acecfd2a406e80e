import * as z from 'zod';
import type { Clock } from '../clock.ts';
import { AwsError } from './aws-error.ts';
import type { AwsService } from './service.ts';
import { tokenBucket } from './token-bucket.ts';

/** By service and operation, as IAM names it. Standard queues of SQS have no quota on calls (AWS documentation). */
type Call = `${'secretsmanager' | 'ssm' | 'events' | 'sqs' | 'dynamodb'}:${string}`;

/** How many calls an account may make in one Region. */
export interface Quota {
  /** They share one bucket. */
  readonly calls: readonly Call[];
  readonly perSecond: number;
  /** What has a bucket of its own: the quota holds for each. Undefined where it does not hold. @default one for the account */
  readonly of?: (input: unknown) => string | undefined;
  /** A page of AWS; where AWS publishes no number, why this one is assumed. */
  readonly source: string;
}

const secretsManagerPage = 'secretsmanager/latest/userguide/reference_limits.html';
const parameterStorePage = 'general/latest/gr/ssm.html';

const secretsManager: readonly Quota[] = [
  {
    calls: ['secretsmanager:GetSecretValue', 'secretsmanager:DescribeSecret'],
    perSecond: 10_000,
    source: `${secretsManagerPage} until March 2025, then 10,000 and 40,000`,
  },
  {
    calls: [
      'secretsmanager:PutSecretValue',
      'secretsmanager:UpdateSecret',
      'secretsmanager:UpdateSecretVersionStage',
      'secretsmanager:ReplicateSecretToRegions',
      'secretsmanager:RemoveRegionsFromReplication',
      'secretsmanager:StopReplicationToReplica',
    ],
    perSecond: 50,
    source: secretsManagerPage,
  },
  {
    calls: ['secretsmanager:RotateSecret', 'secretsmanager:CancelRotateSecret'],
    perSecond: 50,
    source: secretsManagerPage,
  },
  {
    calls: ['secretsmanager:TagResource', 'secretsmanager:UntagResource'],
    perSecond: 50,
    source: secretsManagerPage,
  },
  {
    calls: [
      'secretsmanager:GetResourcePolicy',
      'secretsmanager:PutResourcePolicy',
      'secretsmanager:DeleteResourcePolicy',
      'secretsmanager:ValidateResourcePolicy',
    ],
    perSecond: 50,
    source: secretsManagerPage,
  },
  { calls: ['secretsmanager:RestoreSecret'], perSecond: 50, source: secretsManagerPage },
  { calls: ['secretsmanager:CreateSecret'], perSecond: 50, source: secretsManagerPage },
  { calls: ['secretsmanager:DeleteSecret'], perSecond: 50, source: secretsManagerPage },
  { calls: ['secretsmanager:GetRandomPassword'], perSecond: 50, source: secretsManagerPage },
  { calls: ['secretsmanager:BatchGetSecretValue'], perSecond: 100, source: secretsManagerPage },
  { calls: ['secretsmanager:ListSecrets'], perSecond: 100, source: secretsManagerPage },
  {
    calls: ['secretsmanager:ListSecretVersionIds'],
    perSecond: 50,
    source: 'assumed: what the other calls have that are not for reading values; not confirmed on the page',
  },
];

const deleteParameter: Quota = {
  calls: ['ssm:DeleteParameter'],
  perSecond: 3,
  source: 'assumed: as PutParameter; github-aws-runners/terraform-aws-github-runner#5243 was told 5',
};
const parameterStore: readonly Quota[] = [
  {
    calls: ['ssm:GetParameter', 'ssm:GetParameters', 'ssm:GetParametersByPath'],
    perSecond: 40,
    source: parameterStorePage,
  },
  {
    calls: ['ssm:PutParameter'],
    perSecond: 3,
    source: 'AWS Support in github-aws-runners/terraform-aws-github-runner#2944',
  },
  deleteParameter,
];
const parameterStoreHighThroughput: readonly Quota[] = [
  {
    calls: ['ssm:GetParameter', 'ssm:GetParameters'],
    perSecond: 1_000,
    source: `${parameterStorePage} in its oldest copy, later 3,000 and more`,
  },
  { calls: ['ssm:GetParametersByPath'], perSecond: 100, source: parameterStorePage },
  {
    calls: ['ssm:PutParameter'],
    perSecond: 10,
    source: 'AWS Support in github-aws-runners/terraform-aws-github-runner#2944',
  },
  deleteParameter,
];

const eventBridge: readonly Quota[] = [
  {
    calls: ['events:PutEvents'],
    perSecond: 2_400,
    source: 'eventbridge/latest/userguide/eb-quota.html for eu-central-1',
  },
];

const queueUrlIn = z.object({ QueueUrl: z.string().endsWith('.fifo') });
/** Of each queue that keeps order, without high throughput. A batch is one call. */
const fifoQueues: readonly Quota[] = [
  ['SendMessage', 'SendMessageBatch'],
  ['ReceiveMessage'],
  ['DeleteMessage', 'DeleteMessageBatch'],
  ['ChangeMessageVisibility'],
].map((calls) => ({
  calls: calls.map((call) => `sqs:${call}` as const),
  perSecond: 300,
  of: (input) => queueUrlIn.safeParse(input).data?.QueueUrl,
  source: 'AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html',
}));
const onDemandPage = 'amazondynamodb/latest/developerguide/on-demand-capacity-mode.html';
/** Of a new table on demand; here every call is one unit, as long as its items are small. */
const dynamoDb: readonly Quota[] = [
  { calls: ['dynamodb:PutItem', 'dynamodb:DeleteItem'], perSecond: 4_000, source: onDemandPage },
  { calls: ['dynamodb:GetItem', 'dynamodb:Query'], perSecond: 12_000, source: onDemandPage },
];

/** What a new account has. */
export const publishedQuotas: readonly Quota[] = [
  ...secretsManager,
  ...parameterStore,
  ...eventBridge,
  ...fifoQueues,
  ...dynamoDb,
];

/** The same after an operator switched on high throughput of Parameter Store. */
export const highThroughputQuotas: readonly Quota[] = [
  ...secretsManager,
  ...parameterStoreHighThroughput,
  ...eventBridge,
  ...fifoQueues,
  ...dynamoDb,
];

export interface CallCount {
  /** Including the throttled ones. */
  readonly calls: number;
  readonly throttled: number;
}

export interface Quotas {
  /** The service as an account's clients see it: every call is counted, and throttled if its bucket is empty. */
  limit(service: AwsService): AwsService;
  /** By service and operation, for example `ssm:PutParameter`. */
  readonly counts: ReadonlyMap<string, CallCount>;
}

export interface QuotasOptions {
  /** Refills the buckets. If it stands still, they stay empty: enforce quotas only on a clock that moves. */
  readonly clock: Clock;
  /** A call that no quota names is counted, never throttled. @default none */
  readonly quotas?: readonly Quota[];
}

/** Enforces the quotas of one account and Region. A bucket holds the calls of one second and refills continuously. */
export function createQuotas({ clock, quotas = [] }: QuotasOptions): Quotas {
  const counts = new Map<string, CallCount>();
  const buckets = new Map<string, () => boolean>();
  /** Whether the quota of a call, if it has one, has room for it. */
  function isTaken(call: string, input: unknown): boolean {
    const quota = quotas.find(({ calls }) => calls.some((each) => each === call));
    if (quota === undefined) return true;
    const { calls, perSecond, of = () => 'the account' } = quota;
    const holder = of(input);
    if (holder === undefined) return true;
    const key = `${calls[0]} ${holder}`;
    const bucket = buckets.get(key) ?? tokenBucket(clock, { ratePerSecond: perSecond, burst: perSecond });
    buckets.set(key, bucket);
    return bucket();
  }
  return {
    counts,
    limit: (service) => ({
      ...service,
      async call(operation, input, context) {
        const name = `${service.name}:${operation}`;
        const isThrottled = !isTaken(name, input);
        const { calls, throttled } = counts.get(name) ?? { calls: 0, throttled: 0 };
        counts.set(name, { calls: calls + 1, throttled: throttled + (isThrottled ? 1 : 0) });
        // In the SDK's models of SSM and EventBridge. Secrets Manager answers it as well, though its model has no such error.
        if (isThrottled)
          throw service.name === 'sqs'
            ? new AwsError(
                'com.amazonaws.sqs#RequestThrottled',
                'The request was denied due to request throttling.',
                400,
                'RequestThrottled',
              )
            : new AwsError('ThrottlingException', 'Rate exceeded');
        return service.call(operation, input, context);
      },
    }),
  };
}
