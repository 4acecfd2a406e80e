import type { Cost } from './model.ts';

/** List prices in dollars, eu-central-1 apart: those of us-east-1. Parameter Store costs nothing in its standard tier. */
const perMillion = {
  lambdaRequests: 0.2,
  dynamoWrites: 0.625,
  dynamoReads: 0.125,
  sqs: 0.4,
  events: 1,
  secretsManager: 5,
} as const;
/** Of a Lambda function on arm64. */
const perGigabyteSecond = 0.000_013_333_4;
/** What one secret costs a month, whoever rotates it. */
export const secretPerMonth = 0.4;

/** What happens again and again, and what each time takes. */
export interface Item {
  readonly what: string;
  readonly timesPerMonth: number;
  readonly cost: Omit<Cost, 'made' | 'throttled'>;
  /** Of Lambda. @default 1 */
  readonly invocations?: number;
  /** Whether a queue hands it out: one call that receives, and one that deletes. @default false */
  readonly isQueued?: boolean;
}

export function dollarsPerMonth(items: readonly Item[], gigabytes: number): number {
  return items.reduce((total, { timesPerMonth, cost, invocations = 1, isQueued = false }) => {
    const { calls } = cost;
    const count = (pattern: RegExp): number =>
      Object.entries(calls).reduce((sum, [name, times]) => sum + (pattern.test(name) ? times : 0), 0);
    const millionths =
      invocations * perMillion.lambdaRequests +
      count(/^dynamodb:(PutItem|DeleteItem)$/) * perMillion.dynamoWrites +
      cost.readUnits * perMillion.dynamoReads +
      (count(/^sqs:/) + (isQueued ? 2 : 0)) * perMillion.sqs +
      cost.events * perMillion.events +
      count(/^secretsmanager:/) * perMillion.secretsManager;
    const dollars = millionths / 1_000_000 + cost.seconds * gigabytes * perGigabyteSecond;
    return total + timesPerMonth * dollars;
  }, 0);
}
