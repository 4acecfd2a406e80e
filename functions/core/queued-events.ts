import * as z from 'zod/mini';
import {
  InputError,
  type ProviderCode,
  type RefusalCode,
  type StoreCode,
  type VerificationCode,
} from './errors.ts';
import { faults } from './faults.ts';
import { jsonOf } from './json.ts';

/**
 * Orders, requests and events wait in a queue before any code of ours runs. What fails comes back by itself, so this file decides
 * when, and when an event can never succeed.
 */

/** One message of a queue, as Lambda hands it over. The body is still unread. */
export interface QueuedMessage {
  readonly messageId: string;
  /** Names this receipt of the message. */
  readonly receiptHandle: string;
  readonly queueArn: string;
  readonly body: string;
  /** This one included. */
  readonly receiveCount: number;
  readonly sentAt: Date;
}

const whole = () =>
  z.pipe(z.string().check(z.regex(/^\d+$/, { error: 'expected a whole number' })), z.transform(Number));

const batchSchema = () =>
  z.object({
    Records: z
      .array(
        z.object({
          messageId: z.string().check(z.minLength(1)),
          receiptHandle: z.string().check(z.minLength(1)),
          body: z.string(),
          eventSourceARN: z.string().check(
            z.regex(/^arn:[^:]+:sqs:[^:]+:\d{12}:[A-Za-z0-9_-]+(\.fifo)?$/, {
              error: 'expected the ARN of a queue',
            }),
          ),
          attributes: z.object({ ApproximateReceiveCount: whole(), SentTimestamp: whole() }),
        }),
      )
      .check(z.minLength(1)),
  });

const shapeSchema = z.object({ Records: z.unknown() });

/** The messages of a batch; undefined where a function is invoked with something else. Throws EVENT_INVALID for half a batch. */
export function parseQueuedMessages(event: unknown): readonly QueuedMessage[] | undefined {
  if (shapeSchema.safeParse(event).data?.Records === undefined) return undefined;
  const parsed = batchSchema().safeParse(event);
  if (!parsed.success)
    throw new InputError(
      'EVENT_INVALID',
      `${faults(parsed.error)}; Lambda hands over messages of a queue: put one into the queue instead of invoking the function`,
    );
  return parsed.data.Records.map(({ messageId, receiptHandle, body, eventSourceARN, attributes }) => ({
    messageId,
    receiptHandle,
    queueArn: eventSourceARN,
    body,
    receiveCount: attributes.ApproximateReceiveCount,
    sentAt: new Date(attributes.SentTimestamp),
  }));
}

const eventSchema = z.looseObject({ 'detail-type': z.string() });

/** The event of a bus in a message; undefined where the message holds something else. */
export const busEventIn = ({ body }: QueuedMessage): unknown => eventSchema.safeParse(jsonOf(body)).data;

/** The most messages that Lambda hands to one call. */
export const maxBatch = 10;

/**
 * A queue hands out an event at most this many times. At the pace below that takes more than two days, so that an order outlives an
 * outage of a vendor or of Parameter Store. An event that crashes the function comes back only after the visibility timeout, which is
 * at most 90 minutes: 200 of these are less than the 14 days for which the queue keeps a message.
 */
export const maxTries = 200;
/** For an event that an operator has to correct: these tries take some minutes. */
const maxTriesOfRefused = 5;
const firstWaitSeconds = 15;
const maxWaitSeconds = 15 * 60;

/** How long a message waits after this many failures. */
export const secondsUntilTry = (receiveCount: number): number =>
  Math.min(maxWaitSeconds, firstWaitSeconds * 2 ** Math.min(receiveCount - 1, 10));

/**
 * The same time, and up to half as much again, by the id of the message: those that failed together, as AWS throttled them, do not come
 * back together.
 */
export function spread(seconds: number, messageId: string): number {
  const place = [...messageId].reduce(
    (sum, character) => (31 * sum + (character.codePointAt(0) ?? 0)) % 997,
    0,
  );
  return Math.round(seconds * (1 + place / (2 * 997)));
}

/** What passes without a change of the event: AWS, a vendor or a pause is in the way. */
const passing: ReadonlySet<unknown> = new Set([
  'STORE_DENIED',
  'STORE_UNAVAILABLE',
  'EVENT_NOT_PUBLISHED',
  'RATE_LIMITED',
  'UNAVAILABLE',
  'NOT_SETTLED',
  'TARGET_NOT_READY',
  'LOGIN_UNREACHABLE',
  'PAUSED',
  'SUPERSEDED',
  'LABELS_MOVED',
] as const satisfies readonly (StoreCode | ProviderCode | VerificationCode | RefusalCode)[]);

/** When the message comes again, or `lost`: no repetition helps, and people must see it. */
export function redeliveryOf(error: unknown, receiveCount: number): { readonly seconds: number } | 'lost' {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'EVENT_INVALID') return 'lost';
  if (!passing.has(code) && receiveCount >= maxTriesOfRefused) return 'lost';
  return { seconds: secondsUntilTry(receiveCount) };
}
