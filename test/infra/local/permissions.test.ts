import { expect, test } from 'vitest';
import { allows } from '../../../infra/local/permissions.ts';
import type { RoleStatement } from '../../../infra/local/template.ts';

const resource = 'arn:aws:lambda:eu-central-1:111122223333:function:rekey-delete-user';
const statement = (overrides: Partial<RoleStatement> = {}): RoleStatement => ({
  sid: undefined,
  effect: 'Allow',
  actions: ['lambda:InvokeFunction'],
  resources: [resource],
  conditions: {},
  ...overrides,
});

const cases: Record<string, { statements: readonly RoleStatement[]; want: boolean }> = {
  'nothing without a statement': { statements: [], want: false },
  'what a statement names': { statements: [statement()], want: true },
  'an action in other letters': {
    statements: [statement({ actions: ['lambda:invokefunction'] })],
    want: true,
  },
  'by wildcards': {
    statements: [statement({ actions: ['lambda:Invoke*'], resources: [`${resource.slice(0, -3)}???`] })],
    want: true,
  },
  'not by what only looks like a pattern': {
    statements: [statement({ resources: [resource.replace('rekey', 'r.key')] })],
    want: false,
  },
  'not another resource': { statements: [statement({ resources: [`${resource}:1`] })], want: false },
  'not another action': { statements: [statement({ actions: ['lambda:GetFunction'] })], want: false },
  'not what is denied beside it': {
    statements: [statement(), statement({ effect: 'Deny', actions: ['*'], resources: ['*'] })],
    want: false,
  },
  'not under a condition, which is not weighed here': {
    statements: [statement({ conditions: { StringEquals: { 'aws:SourceAccount': ['1'] } } })],
    want: false,
  },
};
test.each(Object.entries(cases))('a role allows %s', (_sentence, { statements, want }) => {
  expect(allows(statements, 'lambda:InvokeFunction', resource)).toBe(want);
});
