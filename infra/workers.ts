import { maxBatch } from '../functions/core/queued-events.ts';

/**
 * How Lambda hands the queues to the functions: messages a batch, and batches at one time. Apart from the construct, so that
 * `npm run bench fleet` plays what is deployed.
 *
 * Together at most 44 batches at one time, of the 1,000 calls that an account has. Where it has 10, as new ones do, Lambda keeps a
 * batch until there is room.
 */
export const workers = {
  // Enough for a round of 10,000 targets within two hours; more would take the vendors' rate limits from rotations.
  targets: { batchSize: 5, maxConcurrency: 8 },
  urgentTargets: { batchSize: 5, maxConcurrency: 2 },
  starts: { batchSize: maxBatch, maxConcurrency: 10 },
  // One after the other, in two minutes.
  requests: { batchSize: 5, maxConcurrency: 2 },
  // Stored within a minute, even in an emergency. Few come at a time, and five pauses take two seconds of writes.
  pauses: { batchSize: 5, maxConcurrency: 2 },
  // Parameter Store takes three writes a second, which one of them uses up.
  orders: { batchSize: maxBatch, maxConcurrency: 3 },
  // One after the other, some minutes each.
  deletions: { batchSize: 5, maxConcurrency: 5 },
  vendorEvents: { batchSize: maxBatch, maxConcurrency: 2 },
  // All of a batch wait for their deploys side by side.
  newLogins: { batchSize: maxBatch, maxConcurrency: 10 },
} as const;
