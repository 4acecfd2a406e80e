import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import * as z from 'zod/mini';
import { InputError } from '../../functions/core/errors.ts';
import type { Schema } from '../../functions/core/schema.ts';
import {
  createUserEnvironment,
  deleteUserEnvironment,
  parseEnvironment,
  receiveWebhookEnvironment,
  reconcileUsersEnvironment,
  recordAuditEnvironment,
  rotateSecretEnvironment,
  startRotationsEnvironment,
  updateConsumersEnvironment,
} from '../../functions/runtime/env.ts';

const valid = {
  REKEY_EVENT_BUS_NAME: 'rekey-bus',
  REKEY_ROTATION_FUNCTION_ARN: 'arn:aws:lambda:eu-central-1:111122223333:function:rotate-secret',
  REKEY_TARGET_QUEUE_URL: 'https://sqs.eu-central-1.amazonaws.com/111122223333/rekey-targets',
  REKEY_URGENT_TARGET_QUEUE_URL: 'https://sqs.eu-central-1.amazonaws.com/111122223333/rekey-urgent-targets',
  REKEY_START_QUEUE_URL: 'https://sqs.eu-central-1.amazonaws.com/111122223333/rekey-starts.fifo',
  REKEY_LOST_REQUEST_QUEUE_URL: 'https://sqs.eu-central-1.amazonaws.com/111122223333/rekey-lost-requests',
  REKEY_AUDIT_BUCKET: 'rekey-audit',
  REKEY_NOTE_TABLE_NAME: 'rekey',
  REKEY_WEBHOOK_BASE_URL: 'https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/webhooks/',
};
const proxy = 'http://egress:canary-Pr0xy-pass@proxy.example.com:3128';

/** What each function reads, beside the bus and what has a default. */
const functions: Record<string, { schema: Schema<unknown>; own: readonly (keyof typeof valid)[] }> = {
  'rotate-secret': { schema: rotateSecretEnvironment, own: [] },
  'create-user': {
    schema: createUserEnvironment,
    own: ['REKEY_ROTATION_FUNCTION_ARN', 'REKEY_LOST_REQUEST_QUEUE_URL', 'REKEY_NOTE_TABLE_NAME'],
  },
  'start-rotations': {
    schema: startRotationsEnvironment,
    own: [
      'REKEY_ROTATION_FUNCTION_ARN',
      'REKEY_URGENT_TARGET_QUEUE_URL',
      'REKEY_START_QUEUE_URL',
      'REKEY_LOST_REQUEST_QUEUE_URL',
      'REKEY_NOTE_TABLE_NAME',
    ],
  },
  'delete-user': {
    schema: deleteUserEnvironment,
    own: ['REKEY_LOST_REQUEST_QUEUE_URL', 'REKEY_NOTE_TABLE_NAME'],
  },
  'reconcile-users': {
    schema: reconcileUsersEnvironment,
    own: [
      'REKEY_TARGET_QUEUE_URL',
      'REKEY_URGENT_TARGET_QUEUE_URL',
      'REKEY_LOST_REQUEST_QUEUE_URL',
      'REKEY_NOTE_TABLE_NAME',
      'REKEY_WEBHOOK_BASE_URL',
    ],
  },
  'update-consumers': {
    schema: updateConsumersEnvironment,
    own: ['REKEY_LOST_REQUEST_QUEUE_URL', 'REKEY_NOTE_TABLE_NAME'],
  },
  'record-audit': { schema: recordAuditEnvironment, own: ['REKEY_AUDIT_BUCKET'] },
  'receive-webhook': { schema: receiveWebhookEnvironment, own: [] },
};

/** Everything that any function reads. */
const everyEnvironment = z.object({
  ...createUserEnvironment.shape,
  ...startRotationsEnvironment.shape,
  ...reconcileUsersEnvironment.shape,
  ...recordAuditEnvironment.shape,
});

/** What parsing these variables throws. */
function faultIn(
  variables: Readonly<Record<string, string | undefined>>,
  schema: Schema<unknown> = everyEnvironment,
): InputError {
  try {
    parseEnvironment(schema, variables);
  } catch (error) {
    if (error instanceof InputError) return error;
    throw error;
  }
  throw new Error('expected the environment to be refused');
}

describe.each(Object.entries(functions))('the environment of %s', (_name, { schema, own }) => {
  test('holds what the function reads and nothing else, and the level of logs has a default', () => {
    const ownVariables = Object.fromEntries(own.map((variable) => [variable, valid[variable]]));
    expect(parseEnvironment(schema, { ...valid, AWS_REGION: 'eu-central-1' })).toEqual({
      REKEY_EVENT_BUS_NAME: 'rekey-bus',
      ...ownVariables,
      REKEY_LOG_LEVEL: 'INFO',
    });
  });

  test('names every variable that is missing', () => {
    const { message } = faultIn({}, schema);
    const named = Object.keys(valid).filter((variable) => message.includes(`${variable}: `));
    expect(named.toSorted()).toEqual(['REKEY_EVENT_BUS_NAME', ...own].toSorted());
  });
});

test('an egress proxy and another log level are taken as they are', () => {
  expect(
    parseEnvironment(rotateSecretEnvironment, {
      ...valid,
      HTTPS_PROXY: proxy,
      REKEY_LOG_LEVEL: 'DEBUG',
    }),
  ).toEqual({ REKEY_EVENT_BUS_NAME: 'rekey-bus', HTTPS_PROXY: proxy, REKEY_LOG_LEVEL: 'DEBUG' });
});

test('a key and Regions for secrets that are made at run time are read, and nothing of them has to be there', () => {
  const storage = {
    REKEY_SECRET_KEY_ARN: 'arn:aws:kms:eu-central-1:111122223333:key/mrk-0a1b2c3d4e5f60718293a4b5c6d7e8f9',
    REKEY_REPLICAS:
      '[{"region":"eu-west-1","keyArn":"arn:aws:kms:eu-west-1:111122223333:key/0a1b"},{"region":"us-gov-west-1"}]',
  };
  expect(parseEnvironment(createUserEnvironment, { ...valid, ...storage })).toMatchObject({
    REKEY_SECRET_KEY_ARN: storage.REKEY_SECRET_KEY_ARN,
    REKEY_REPLICAS: [
      { region: 'eu-west-1', keyArn: 'arn:aws:kms:eu-west-1:111122223333:key/0a1b' },
      { region: 'us-gov-west-1' },
    ],
  });
});

test('every wrong variable is named at once, with what was expected and what to do', () => {
  const { code, effect, message } = faultIn({
    REKEY_EVENT_BUS_NAME: 'a bus',
    HTTPS_PROXY: 'proxy.example.com:3128',
    REKEY_LOG_LEVEL: 'LOUD',
    REKEY_ROTATION_FUNCTION_ARN: 'rotate-secret',
    REKEY_TARGET_QUEUE_URL: 'rekey-targets',
    REKEY_URGENT_TARGET_QUEUE_URL: 'rekey-urgent-targets',
    REKEY_START_QUEUE_URL: 'rekey-starts.fifo',
    REKEY_LOST_REQUEST_QUEUE_URL: 'rekey-lost-requests',
    REKEY_AUDIT_BUCKET: 'rekey_audit',
    REKEY_NOTE_TABLE_NAME: 'my notes',
    REKEY_WEBHOOK_BASE_URL: 'webhooks/',
  });
  expect({ code, effect }).toEqual({ code: 'ENVIRONMENT_INVALID', effect: 'none' });
  expect(message).toContain('REKEY_EVENT_BUS_NAME: expected the name of an event bus');
  expect(message).toContain('HTTPS_PROXY: expected an http(s) URL');
  expect(message).toContain('REKEY_LOG_LEVEL: ');
  expect(message).toContain('REKEY_ROTATION_FUNCTION_ARN: expected the ARN of a function');
  for (const queue of ['TARGET', 'URGENT_TARGET', 'START', 'LOST_REQUEST'])
    expect(message).toContain(`REKEY_${queue}_QUEUE_URL: expected the http(s) URL of a queue`);
  expect(message).toContain('REKEY_AUDIT_BUCKET: expected the name of a bucket');
  expect(message).toContain('REKEY_NOTE_TABLE_NAME: expected the name of a DynamoDB table');
  expect(message).toContain('REKEY_WEBHOOK_BASE_URL: expected an http(s) URL');
  expect(message).toContain('deploy the stack again');
});

describe('a variable is refused', () => {
  const wrong: Record<string, { variable: string; values: readonly (string | undefined)[] }> = {
    'that names no event bus': {
      variable: 'REKEY_EVENT_BUS_NAME',
      values: [
        undefined,
        '',
        'a bus',
        `arn:aws:events:eu-central-1:111122223333:event-bus/x`,
        'b'.repeat(257),
      ],
    },
    'that names no function': {
      variable: 'REKEY_ROTATION_FUNCTION_ARN',
      values: [undefined, '', 'rotate-secret', 'arn:aws:lambda:eu-central-1:1111:function:rotate-secret'],
    },
    'that is no URL of a queue': {
      variable: 'REKEY_TARGET_QUEUE_URL',
      values: [undefined, '', 'rekey-targets', 'arn:aws:sqs:eu-central-1:111122223333:rekey-targets'],
    },
    'that is no URL of the queue of starts': {
      variable: 'REKEY_START_QUEUE_URL',
      values: [undefined, '', 'rekey-starts.fifo', 'arn:aws:sqs:eu-central-1:111122223333:rekey-starts.fifo'],
    },
    'that is no name of a bucket': {
      variable: 'REKEY_AUDIT_BUCKET',
      values: [undefined, '', 'ab', 'Rekey-Audit', 'arn:aws:s3:::rekey-audit'],
    },
    'that is no name of a table': {
      variable: 'REKEY_NOTE_TABLE_NAME',
      values: [undefined, '', 'my notes', 'arn:aws:dynamodb:eu-central-1:111122223333:table/rekey'],
    },
    'that is no http proxy': {
      variable: 'HTTPS_PROXY',
      values: ['', 'proxy:3128', 'socks5://proxy:1080', 'file:///etc/passwd'],
    },
    'that is no key': {
      variable: 'REKEY_SECRET_KEY_ARN',
      values: ['', 'alias/rekey', 'mrk-0a1b', 'arn:aws:s3:::bucket'],
    },
    'that is no list of Regions': {
      variable: 'REKEY_REPLICAS',
      values: ['', 'eu-west-1', '{}', '"eu-west-1"'],
    },
    'that is no level of logs': { variable: 'REKEY_LOG_LEVEL', values: ['', 'info', 'TRACE', 'SILENT'] },
  };
  test.each(Object.entries(wrong))('%s', (_sentence, { variable, values }) => {
    for (const value of values)
      expect(faultIn({ ...valid, [variable]: value }).message).toMatch(
        new RegExp(`^ENVIRONMENT_INVALID: ${variable}: [^;]+; deploy`),
      );
  });
});

describe('no value is in the error', () => {
  const environments: Record<string, Record<string, string>> = {
    'of a proxy with credentials that is not a URL': { ...valid, HTTPS_PROXY: `//${proxy} canary` },
    'of a proxy with credentials and a protocol that is not spoken': {
      ...valid,
      HTTPS_PROXY: 'socks5://egress:canary-Pr0xy-pass@proxy.example.com:1080',
    },
    'of a good proxy with credentials beside a wrong variable': { HTTPS_PROXY: proxy },
    'of a password that stands where a name belongs': {
      REKEY_EVENT_BUS_NAME: 'canary password',
      REKEY_ROTATION_FUNCTION_ARN: 'canary password',
      REKEY_TARGET_QUEUE_URL: 'canary password',
      REKEY_AUDIT_BUCKET: 'canary password',
      REKEY_NOTE_TABLE_NAME: 'canary password',
      REKEY_LOG_LEVEL: 'canary password',
      HTTPS_PROXY: 'canary password',
    },
    'of variables that are none of ours': { AWS_SECRET_ACCESS_KEY: 'canary', AWS_SESSION_TOKEN: 'canary' },
  };
  test.each(Object.entries(environments))('%s', (_sentence, variables) => {
    expect(inspect(faultIn(variables), { depth: 10, showHidden: true })).not.toContain('canary');
  });
});
