import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { App, Stack } from 'aws-cdk-lib';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { createAuthorizer, type Policy } from '../../infra/local/authorization.ts';
import type { Authorization } from '../../infra/local/aws/service.ts';
import { type LocalStack, readTemplate } from '../../infra/local/template.ts';
import { Rekey } from '../../infra/rekey.ts';
import { idlePermissions, sometimesIdlePermissions } from './idle-permissions.ts';

// That every other permission is needed, and that none is missing, a run of the whole life shows: start.test.ts.

const root = resolve(import.meta.dirname, '../..');
const where = { account: '111122223333', region: 'eu-central-1' };
const directory = mkdtempSync(join(tmpdir(), 'rekey-denials-'));
let stack: LocalStack;
beforeAll(async () => {
  mkdirSync(join(directory, 'functions'));
  writeFileSync(join(directory, 'functions/handler.mjs'), '');
  const { context } = z
    .object({ context: z.record(z.string(), z.unknown()) })
    .parse(JSON.parse(readFileSync(join(root, 'cdk.json'), 'utf8')));
  const app = new App({ outdir: join(directory, 'out'), context, builtinCloudFormationValidation: false });
  const made = new Stack(app, 'Rekey');
  new Rekey(made, 'Rekey', { code: Code.fromAsset(join(directory, 'functions')) });
  stack = await readTemplate(join(app.synth().directory, 'Rekey.template.json'), where);
});
afterAll(() => rmSync(directory, { recursive: true }));

test.each(Object.entries({ ...idlePermissions, ...sometimesIdlePermissions }))(
  '%s: there is the test that shows what needs it',
  (_permission, reason) => {
    expect(readFileSync(join(root, reason.file), 'utf8')).toContain(`'${reason.test}'`);
  },
);

/** Calls that a statement forbids, whatever else the caller is given. */
interface Forbidden {
  readonly function: string;
  readonly sid: string;
  readonly actions: readonly string[];
  /** Secrets by name; `record` is an object in the audit bucket, `bus` the bus of rekey. */
  readonly on: readonly string[];
  /** What such a call tells IAM, one call after the other. @default one call that tells nothing */
  readonly contexts?: readonly NonNullable<Authorization['context']>[];
  /** The call would be refused anyway: the statement is for a role that is given more one day. */
  readonly isSpare?: true;
}

const kept = ['api-keys/render', 'admin/orders', 'adopt/orders', 'webhooks/render', 'something/new'];
const neverChanges = (name: string, ...actions: readonly string[]): Forbidden => ({
  function: name,
  sid: 'NeverChangeWhatPeopleKeep',
  actions: actions.map((action) => `secretsmanager:${action}`),
  on: kept,
});
const neverReads = (name: string, ...on: readonly string[]): Forbidden => ({
  function: name,
  sid: 'NeverReadWhatIsForOthers',
  actions: ['secretsmanager:GetSecretValue'],
  on: ['webhooks/render', 'adopt/orders', ...on],
});
/** What `neverChanges` is for a role that moves no other label. */
const neverGivesUp = (name: string): Forbidden => ({
  ...neverChanges(name, 'UpdateSecretVersionStage'),
  contexts: [{ 'secretsmanager:VersionStage': 'AWSPENDING' }],
});
const orders = [
  'CredentialRequested',
  'CredentialRotationRequested',
  'CredentialCompromised',
  'CredentialDeletionRequested',
  'RekeyPaused',
  'RekeyResumed',
];
/** Alone, and among what the function does publish. */
const neverOrders = (name: string, ...types: readonly string[]): Forbidden => ({
  function: name,
  sid: 'NeverOrder',
  actions: ['events:PutEvents'],
  on: ['bus'],
  contexts: types.flatMap((type) =>
    [[type], ['DriftFound', type]].map((sent) => ({
      'events:source': ['rekey'],
      'events:detail-type': sent,
    })),
  ),
  isSpare: true,
});
const forbidden: readonly Forbidden[] = [
  neverChanges(
    'rekey-create-user',
    'CreateSecret',
    'DescribeSecret',
    'ListSecretVersionIds',
    'PutSecretValue',
    'RotateSecret',
  ),
  neverChanges('rekey-start-rotations', 'DescribeSecret', 'ListSecretVersionIds', 'RotateSecret'),
  neverGivesUp('rekey-start-rotations'),
  neverChanges(
    'rekey-delete-user',
    'CancelRotateSecret',
    'DeleteSecret',
    'DescribeSecret',
    'ListSecretVersionIds',
  ),
  neverGivesUp('rekey-delete-user'),
  {
    function: 'rekey-delete-user',
    sid: 'NeverDeleteForGood',
    actions: ['secretsmanager:DeleteSecret'],
    on: ['orders'],
    contexts: [{ 'secretsmanager:ForceDeleteWithoutRecovery': 'true' }],
  },
  neverReads('rekey-delete-user'),
  neverChanges(
    'rekey-reconcile-users',
    'DescribeSecret',
    'ListSecretVersionIds',
    'PutSecretValue',
    'UpdateSecretVersionStage',
  ),
  neverReads('rekey-reconcile-users'),
  neverChanges('rekey-update-consumers', 'DescribeSecret'),
  neverReads('rekey-update-consumers', 'admin/orders'),
  {
    function: 'rekey-record-audit',
    sid: 'NeverUndoARecord',
    actions: [
      's3:BypassGovernanceRetention',
      's3:DeleteObject',
      's3:DeleteObjectVersion',
      's3:PutObjectLegalHold',
      's3:PutObjectRetention',
    ],
    on: ['record'],
    isSpare: true,
  },
  neverOrders('rekey-rotate-secret', ...orders),
  neverOrders('rekey-create-user', ...orders),
  // It repeats the request for a declared credential whose user is still to be adopted.
  neverOrders('rekey-start-rotations', ...orders.filter((type) => type !== 'CredentialRequested')),
  neverOrders('rekey-delete-user', ...orders),
  neverOrders('rekey-reconcile-users', ...orders),
  neverOrders('rekey-update-consumers', ...orders),
  neverOrders('rekey-receive-webhook', ...orders),
  neverOrders('rekey-record-audit', ...orders),
];

const isDenial = ({ Effect }: { readonly Effect: string }): boolean => Effect === 'Deny';
const policiesOf = (roleName: string): readonly Policy[] =>
  stack.policies.filter(({ of }) => 'role' in of && of.role === roleName);
const without = (sid: string) => (policy: Policy) => ({
  ...policy,
  document: { ...policy.document, Statement: policy.document.Statement.filter(({ Sid }) => Sid !== sid) },
});

describe('a denial', () => {
  function resourceOf(name: string): string {
    const here = `${where.region}:${where.account}`;
    if (name === 'record') return `${stack.buckets[0]?.arn}/audit/2026/03/01/0d4f1c9a.json`;
    if (name === 'bus') return `arn:aws:events:${here}:event-bus/rekey`;
    return `arn:aws:secretsmanager:${here}:secret:rekey/${name}-AbCdEf`;
  }

  test.each(forbidden.map((each) => [each.function, each.sid, each] as const))(
    'keeps %s from something: with %s it is refused, and without it it would be allowed',
    async (_function, sid, { function: name, actions, on, contexts = [{}], isSpare = false }) => {
      const roleName = stack.functions.find((each) => each.name === name)?.roleName ?? '';
      // Its role alone, so that no policy of a resource helps.
      const present = policiesOf(roleName);
      const more = {
        name: 'More',
        of: { role: roleName },
        document: { Statement: [{ Effect: 'Allow' as const, Action: '*', Resource: '*' }] },
      };
      const policies = isSpare ? [...present, more] : present;
      const [strict, lax] = [policies, policies.map(without(sid))].map((given) =>
        createAuthorizer({ account: where.account, policies: given }),
      );
      const decided = (authorizer: typeof strict, authorization: Authorization) =>
        authorizer?.evaluate({ role: roleName, session: name }, authorization);
      for (const action of actions)
        for (const resource of on.map(resourceOf))
          for (const context of contexts) {
            const asked = { action, resource, context };
            const call = JSON.stringify(asked);
            expect(await decided(strict, asked), call).toMatchObject({
              allowed: false,
              message: expect.stringContaining('with an explicit deny in an identity-based policy'),
            });
            expect(await decided(lax, asked), call).toMatchObject({ allowed: true });
          }
    },
  );

  test('of every role is in the table above, with each of its actions', () => {
    const there = stack.functions.flatMap(({ name, roleName }) =>
      policiesOf(roleName).flatMap(({ document }) =>
        document.Statement.filter(isDenial).flatMap(({ Sid, Action = [] }) =>
          [Action].flat().map((action) => `${name} ${Sid} ${action}`),
        ),
      ),
    );
    const listed = forbidden.flatMap(({ function: name, sid, actions }) =>
      actions.map((action) => `${name} ${sid} ${action.replace(/^s3:DeleteObject.*/, 's3:DeleteObject*')}`),
    );
    expect(there.toSorted()).toEqual([...new Set(listed)].toSorted());
  });
});
