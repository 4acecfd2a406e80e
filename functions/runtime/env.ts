import * as z from 'zod/mini';
import { InputError } from '../core/errors.ts';
import { faults } from '../core/faults.ts';
import { jsonOf } from '../core/json.ts';
import type { Schema } from '../core/schema.ts';

const common = {
  /** The bus on which rekey publishes. Unknown names swallow events (recorded from AWS): it comes from the stack. */
  REKEY_EVENT_BUS_NAME: z.string().check(
    z.regex(/^[A-Za-z0-9._/-]{1,256}$/, {
      error: 'expected the name of an event bus, up to 256 of A-Z a-z 0-9 . _ / -',
    }),
  ),
  /** An egress proxy between the functions and the vendors. */
  HTTPS_PROXY: z.optional(z.url({ protocol: /^https?$/, error: 'expected an http(s) URL' })),
  REKEY_LOG_LEVEL: z._default(z.enum(['DEBUG', 'INFO', 'WARN', 'ERROR']), 'INFO'),
};

const rotationFunction = {
  REKEY_ROTATION_FUNCTION_ARN: z.string().check(
    z.regex(/^arn:[^:]+:lambda:[^:]+:\d{12}:function:[A-Za-z0-9_-]+$/, {
      error: 'expected the ARN of a function',
    }),
  ),
};

const queueUrl = () => z.url({ protocol: /^https?$/, error: 'expected the http(s) URL of a queue' });

/** For targets that are looked at before all others: a vendor told of something, or a rotation is to be rolled forward. */
const urgentTargetQueue = { REKEY_URGENT_TARGET_QUEUE_URL: queueUrl() };

/** For those whose events come out of a queue: it takes what can never succeed. Its URL also says where their own queues are. */
const lostRequestQueue = { REKEY_LOST_REQUEST_QUEUE_URL: queueUrl() };

const noteTable = {
  /** The table of what passes remember. */
  REKEY_NOTE_TABLE_NAME: z.string().check(
    z.regex(/^[A-Za-z0-9_.-]{3,255}$/, {
      error: 'expected the name of a DynamoDB table',
    }),
  ),
};

const keyArn = z.string().check(
  z.regex(/^arn:[^:]+:kms:[^:]+:\d{12}:key\/[A-Za-z0-9-]+$/, {
    error: 'expected the ARN of a KMS key',
  }),
);

const region = z.string().check(z.regex(/^[a-z]{2,}(-[a-z]+)+-\d$/, { error: 'expected a Region' }));

/** Where secrets that are made at run time lie: as those that are declared. */
const secretStorage = {
  REKEY_SECRET_KEY_ARN: z.optional(keyArn),
  /** A JSON list of Regions, each with the ARN of a key of its own if it has one. */
  REKEY_REPLICAS: z.optional(
    z.pipe(
      z.pipe(z.string(), z.transform(jsonOf)),
      z.array(z.strictObject({ region, keyArn: z.exactOptional(keyArn) }), {
        error: 'expected a JSON list of Regions',
      }),
    ),
  ),
};

/** What each function reads from its environment: parsed here, provided by the construct from the same schema. */
export const rotateSecretEnvironment = z.object(common);
export const createUserEnvironment = z.object({
  ...common,
  ...rotationFunction,
  ...secretStorage,
  ...lostRequestQueue,
  ...noteTable,
});
export const startRotationsEnvironment = z.object({
  ...common,
  ...rotationFunction,
  ...urgentTargetQueue,
  ...lostRequestQueue,
  ...noteTable,
  /** Rotations that are to be started, which the function itself sends and takes. */
  REKEY_START_QUEUE_URL: queueUrl(),
});
export const deleteUserEnvironment = z.object({ ...common, ...lostRequestQueue, ...noteTable });
export const reconcileUsersEnvironment = z.object({
  ...common,
  /** What a webhook of ours points to, but for the name of its endpoint: a vendor is asked how the one that points there is doing. */
  REKEY_WEBHOOK_BASE_URL: z
    .url({ protocol: /^https?$/, error: 'expected an http(s) URL' })
    .check(z.regex(/\/$/, { error: 'expected a / at the end' })),
  /** The round of all targets, from the dispatcher to its workers. */
  REKEY_TARGET_QUEUE_URL: queueUrl(),
  ...urgentTargetQueue,
  ...lostRequestQueue,
  ...noteTable,
});
export const updateConsumersEnvironment = z.object({ ...common, ...lostRequestQueue, ...noteTable });
export const receiveWebhookEnvironment = z.object(common);
export const recordAuditEnvironment = z.object({
  ...common,
  /** Holds the audit trail, and nothing else. */
  REKEY_AUDIT_BUCKET: z.string().check(
    z.regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, {
      error: 'expected the name of a bucket',
    }),
  ),
});

/** The environment as `schema` says. Throws ENVIRONMENT_INVALID that names every wrong variable, never a value. */
export function parseEnvironment<T>(
  schema: Schema<T>,
  variables: Readonly<Record<string, string | undefined>>,
): T {
  const parsed = schema.safeParse(variables);
  if (!parsed.success)
    throw new InputError(
      'ENVIRONMENT_INVALID',
      `${faults(parsed.error)}; deploy the stack again instead of editing the function's configuration`,
    );
  return parsed.data;
}
