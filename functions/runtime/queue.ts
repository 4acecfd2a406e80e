import { SQSClient } from '@aws-sdk/client-sqs';
import { targetQueue } from '../aws/queue.ts';
import type { Ports } from '../core/ports.ts';
import { patience } from './patience.ts';

/** The queue with a client of its own, apart from compose.ts so that only the dispatcher loads it. */
export const openQueue = (queueUrl: string, ports: Pick<Ports, 'sleep'>): Ports['enqueue'] =>
  targetQueue(new SQSClient({ requestHandler: patience }), queueUrl, ports);
