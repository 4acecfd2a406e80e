import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, Stack, Validations } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { CfnPolicy } from 'aws-cdk-lib/aws-iam';
import { Key } from 'aws-cdk-lib/aws-kms';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { CfnInclude } from 'aws-cdk-lib/cloudformation-include';
import { AwsSolutionsChecks, ServerlessChecks } from 'cdk-nag';
import type { IConstruct } from 'constructs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { declareCredentials } from '../../infra/credentials.ts';
import { FixedEgress } from '../../infra/fixed-egress.ts';
import { Rekey, type RekeyProps } from '../../infra/rekey.ts';

const root = mkdtempSync(join(tmpdir(), 'rekey-nag-'));
const { context } = z
  .object({ context: z.record(z.string(), z.unknown()) })
  .parse(JSON.parse(readFileSync(new URL('../../cdk.json', import.meta.url), 'utf8')));
interface Deployment {
  /** With its constructs, which hold the acknowledgements. */
  readonly stack: Stack;
  /** The same by its template alone: nothing is acknowledged, so every finding shows. */
  readonly bare: Stack;
}

function deployment(options: (stack: Stack) => Partial<RekeyProps>): Deployment {
  const outdir = mkdtempSync(join(root, 'out-'));
  const app = new App({ context, outdir, builtinCloudFormationValidation: false });
  const stack = new Stack(app, 'Rekey');
  const code = Code.fromAsset(join(root, 'functions'));
  declareCredentials(new Rekey(stack, 'Rekey', { code, consumerBuses: ['billing'], ...options(stack) }));
  const bare = new Stack(new App({ context }), 'Rekey');
  new CfnInclude(bare, 'Template', { templateFile: join(app.synth().directory, 'Rekey.template.json') });
  return { stack, bare };
}

let plain: Deployment;
let full: Deployment;
beforeAll(() => {
  mkdirSync(join(root, 'functions'));
  writeFileSync(join(root, 'functions/rotate-secret.mjs'), '');
  plain = deployment(() => ({}));
  full = deployment((stack) => ({
    vpc: new FixedEgress(stack, 'Egress').vpc,
    encryptionKey: new Key(stack, 'Key', { enableKeyRotation: true }),
    replicaRegions: [
      {
        region: 'eu-west-1',
        encryptionKey: Key.fromKeyArn(
          stack,
          'Replicas',
          'arn:aws:kms:eu-west-1:111122223333:key/0d4f1c9a-2f4b-4c7e-9b53-6f0a1c2d3e4f',
        ),
      },
    ],
  }));
});
afterAll(() => rmSync(root, { recursive: true }));

const findings = (scope: IConstruct): readonly { readonly rule: string; readonly at: string }[] =>
  [new AwsSolutionsChecks(), new ServerlessChecks()]
    .flatMap((pack) => pack.validateScope(scope).violations)
    .flatMap(({ ruleName, violatingResources }) =>
      violatingResources.map(({ constructPath = '' }) => ({ rule: ruleName, at: constructPath })),
    );

/** Every acknowledgement, with the construct that it is on. */
const acknowledgements = (
  scope: IConstruct,
): readonly { readonly rule: string; readonly at: IConstruct; readonly reason: string }[] =>
  scope.node.findAll().flatMap((at) =>
    at.node.metadata
      .filter(({ type }) => type === Validations.ACKNOWLEDGED_RULES_METADATA_KEY)
      .flatMap(({ data }) => Object.entries<string>(data))
      .map(([id, reason]) => ({ rule: id.replace(/^Annotation::/, ''), at, reason }))
      // CDK's own constructs answer other checkers.
      .filter(({ rule }) => /^(AwsSolutions|Serverless)-/.test(rule)),
  );

describe('AwsSolutions and Serverless of cdk-nag', () => {
  test('find nothing that is not acknowledged, with options and without', () => {
    expect(findings(plain.stack)).toEqual([]);
    expect(findings(full.stack)).toEqual([]);
  });

  test('find something wherever there is an acknowledgement: none outlives its finding', () => {
    for (const { stack, bare } of [plain, full]) {
      const found = findings(bare);
      expect(found.length).toBeGreaterThan(50);
      const idle = acknowledgements(stack).filter(({ rule, at }) => {
        // By logical id, which is all that the template has.
        const below = at.node
          .findAll()
          .flatMap((each) => ('logicalId' in each ? [String(Stack.of(each).resolve(each.logicalId))] : []));
        return !found.some((each) => each.rule === rule && below.some((id) => each.at.endsWith(`/${id}`)));
      });
      expect(idle.map(({ rule, at }) => `${rule} at ${at.node.path}`)).toEqual([]);
    }
  });

  test('are answered with few reasons, one a kind', () => {
    const kindOf = (rule: string) => rule.replace(/\[.*/, '');
    const reasons = Map.groupBy(acknowledgements(full.stack), ({ rule }) => kindOf(rule));
    expect(
      Object.fromEntries(
        [...reasons].map(([kind, all]) => [kind, new Set(all.map(({ reason }) => reason)).size]),
      ),
    ).toEqual({
      'AwsSolutions-APIG4': 1,
      // Secrets of credentials, secrets that people keep, parameters, logs, records, the listing of secrets, and the network.
      'AwsSolutions-IAM5': 7,
      'AwsSolutions-S1': 1,
      'AwsSolutions-VPC7': 1,
      // Of functions that fail where somebody waits, and of those that fail where nobody does.
      'Serverless-LambdaDLQ': 2,
      'Serverless-LambdaEventSourceMappingDestination': 1,
      'Serverless-LambdaTracing': 1,
      'Serverless-SQSRedrivePolicy': 1,
    });
    for (const { reason } of acknowledgements(full.stack)) expect(reason).toMatch(/^[A-Z].{20,240}\.$/);
  });
});

test('the constructs answer cdk-nag without it: an app that has none can use them', () => {
  const folder = new URL('../../infra/', import.meta.url);
  const sources = readdirSync(folder).filter((file) => file.endsWith('.ts'));
  expect(sources).toContain('handler.ts');
  expect(sources.filter((file) => /['"]cdk-nag/.test(readFileSync(new URL(file, folder), 'utf8')))).toEqual(
    [],
  );
});

describe('a wildcard', () => {
  test('in a resource that a role may do something to has its written reason', () => {
    const reasons = acknowledgements(full.stack);
    const found = full.stack.node.findAll().filter((each) => each instanceof CfnPolicy);
    expect(found.length).toBeGreaterThan(8);
    const without = found.flatMap((policy) =>
      wildcardsOf(policy).filter(
        (resource) =>
          !reasons.some(
            ({ rule, at }) =>
              rule === `AwsSolutions-IAM5[Resource::${resource}]` && policy.node.scopes.includes(at),
          ),
      ),
    );
    expect(without).toEqual([]);
  });

  test('that stands for everything is there to list the names of secrets, and for nothing else', () => {
    const policies = Object.entries(Template.fromStack(plain.stack).findResources('AWS::IAM::Policy'));
    const everywhere = policies.flatMap(([id, { Properties }]) =>
      Properties.PolicyDocument.Statement.filter(
        ({ Effect, Resource }: { Effect: string; Resource: unknown }) =>
          Effect === 'Allow' && [Resource].flat().includes('*'),
      ).map(({ Action }: { Action: unknown }) => [id.replace(/RoleDefaultPolicy.*/, ''), Action]),
    );
    expect(everywhere).toEqual(
      ['StartRotations', 'DeleteUser', 'ReconcileUsers'].map((name) => [
        `Rekey${name}`,
        'secretsmanager:ListSecrets',
      ]),
    );
  });

  test('in an action allows nothing: each is named', () => {
    const actions = Object.values(Template.fromStack(plain.stack).findResources('AWS::IAM::Policy')).flatMap(
      ({ Properties }) =>
        Properties.PolicyDocument.Statement.filter(
          ({ Effect }: { Effect: string }) => Effect === 'Allow',
        ).flatMap(({ Action }: { Action: string | string[] }) => Action),
    );
    expect(actions.filter((action) => action.includes('*'))).toEqual([]);
  });
});

/** The resources with a wildcard that a policy allows something on, references as cdk-nag writes them. */
function wildcardsOf(policy: CfnPolicy): readonly string[] {
  const { Statement } = Stack.of(policy).resolve(policy.policyDocument);
  return Statement.filter(({ Effect }: { Effect: string }) => Effect === 'Allow')
    .flatMap(({ Resource }: { Resource: unknown }) => Resource)
    .map((resource: unknown) =>
      typeof resource === 'string'
        ? resource
        : JSON.stringify(resource)
            .replaceAll(/\{"Ref":"([^"]+)"\}/g, '","<$1>","')
            .replaceAll(/\{"Fn::GetAtt":\["([^"]+)","([^"]+)"\]\}/g, '","<$1.$2>","')
            .replace(/^\{"Fn::Join":\["",\[(.*)\]\]\}$/, '$1')
            .replaceAll(/"(,")*|,/g, ''),
    )
    .filter((resource: string) => resource.includes('*'));
}
