// The only file that knows the library, which is AGPL-3.0: it evaluates policies on the developer's machine and in CI, is a
// devDependency, and is part of nothing that is deployed or published. test/architecture.test.ts holds that.
import {
  createValidatedPolicy,
  type ValidationError,
  validateIdentityPolicy,
  validateResourcePolicy,
  validateTrustPolicy,
} from '@cloud-copilot/iam-policy';
import { getDenialReasons, getGrantReasons, runSimulation } from '@cloud-copilot/iam-simulate';
import type { Authorization } from './aws/service.ts';

/** Who asks: a role, under the name of whoever has assumed it, or a service of AWS on somebody's behalf. */
export type Principal =
  | { readonly role: string; readonly session: string }
  | { readonly service: `${string}.amazonaws.com` };

/** A policy of the stack, without intrinsic functions. */
export interface Policy {
  /** Names it among all: a logical id of the template. */
  readonly name: string;
  /** The role, by name, that may do what it says, or the ARN of what it protects: a bucket, a queue, a function, a role that is assumed. */
  readonly of: { readonly role: string } | { readonly resource: string };
  readonly document: {
    readonly Statement: readonly {
      readonly Sid?: string | undefined;
      readonly Effect: 'Allow' | 'Deny';
      readonly Action?: string | readonly string[] | undefined;
    }[];
  };
}

/** A statement that let something pass. */
export interface Grant {
  readonly policy: string;
  /** Of the statement in its document, from 0. */
  readonly index: number;
  readonly sid: string | undefined;
}

export type Decision =
  | { readonly allowed: true; readonly grants: readonly Grant[] }
  /** In the words of AWS. */
  | { readonly allowed: false; readonly message: string };

/** Something that was done, and what let it pass. */
export interface Granted {
  readonly principal: Principal;
  readonly authorization: Authorization;
  readonly grants: readonly Grant[];
}

export interface Authorizer {
  /** What IAM would say. Throws where a policy or a question has a fault that IAM itself would not know. */
  evaluate(principal: Principal, authorization: Authorization): Promise<Decision>;
  /** As `evaluate`, for what is really about to be done: it is counted and remembered. What cannot be judged is refused. */
  decide(principal: Principal, authorization: Authorization): Promise<Decision>;
  /** How many decisions there were. */
  readonly judged: number;
  /** Every refusal so far, each text once. */
  readonly refusals: readonly string[];
  /** Of what was allowed, one example for each statement, principal and action. */
  readonly granted: readonly Granted[];
  /** Whether a question waits for its answer. */
  isBusy(): boolean;
  /** Resolves as soon as one question that waits now is answered; at once when there is none. */
  oneEnded(): Promise<void>;
}

export interface AuthorizerOptions {
  /** Twelve digits. */
  readonly account: string;
  readonly policies: readonly Policy[];
}

/** Evaluates the policies of a stack as IAM does: identity policies together with those of the resource, denials first. */
export function createAuthorizer({ account, policies }: AuthorizerOptions): Authorizer {
  const identity = new Map<string, { readonly name: string; readonly policy: unknown }[]>();
  const ofResource = new Map<string, { readonly name: string; readonly policy: unknown }>();
  for (const { name, of, document } of policies) {
    if ('role' in of) {
      const policy = checked(name, document, validateIdentityPolicy);
      identity.set(of.role, [...(identity.get(of.role) ?? []), { name, policy }]);
      continue;
    }
    if (ofResource.has(of.resource)) throw new Error(`${name}: ${of.resource} has a policy already`);
    const validate = of.resource.includes(':role/') ? validateTrustPolicy : validateResourcePolicy;
    ofResource.set(of.resource, { name, policy: checked(name, document, validate) });
  }
  // A run asks the same few hundred questions thousands of times.
  const answers = new Map<string, Promise<Decision>>();
  const waiting = new Set<Promise<unknown>>();
  const refusals = new Set<string>();
  const granted = new Map<string, Granted>();
  let judged = 0;

  async function simulate(principal: Principal, authorization: Authorization): Promise<Decision> {
    const { action, resource, context = {} } = authorization;
    const isRole = 'role' in principal;
    const who = isRole
      ? `arn:aws:sts::${account}:assumed-role/${principal.role}/${principal.session}`
      : principal.service;
    // An object's policy is its bucket's.
    const protects = ofResource.get(action.startsWith('s3:') ? (resource.split('/')[0] ?? '') : resource);
    const answer = await runSimulation(
      {
        request: {
          principal: who,
          action,
          resource: { resource, accountId: account },
          contextVariables: {
            // What speaks plain HTTP to a stand-in here speaks TLS to AWS.
            'aws:SecureTransport': 'true',
            ...(isRole
              ? {
                  'aws:PrincipalAccount': account,
                  'aws:PrincipalArn': `arn:aws:iam::${account}:role/${principal.role}`,
                }
              : { 'aws:PrincipalIsAWSService': 'true', 'aws:PrincipalServiceName': principal.service }),
            ...Object.fromEntries(
              Object.entries(context).map(([key, value]) => [
                key,
                typeof value === 'string' ? value : [...value],
              ]),
            ),
          },
        },
        identityPolicies: isRole ? (identity.get(principal.role) ?? []) : [],
        serviceControlPolicies: [],
        resourceControlPolicies: [],
        ...(protects === undefined ? {} : { resourcePolicy: protects.policy }),
      },
      {},
    );
    // `wildcard` would be an answer about many resources at once, of which some may be allowed.
    if (answer.resultType !== 'single')
      throw new Error(
        `${action} on ${resource}: ${answer.resultType === 'error' ? answer.errors.message : 'that is more than one resource'}`,
      );
    const { analysis, ignoredContextKeys = [] } = answer.result;
    // The library leaves them out in silence, and a condition on them never holds: the stand-in says too much.
    if (ignoredContextKeys.length > 0)
      throw new Error(`${action} does not know ${ignoredContextKeys.join(', ')}`);
    if (answer.overallResult === 'Allowed' && analysis !== undefined)
      return {
        allowed: true,
        grants: getGrantReasons(analysis).map((grant) => ({
          policy:
            'policyIdentifier' in grant ? grant.policyIdentifier : (protects?.name ?? 'an unknown policy'),
          // The library counts from 1.
          index: grant.statementIndex - 1,
          sid: grant.statementId,
        })),
      };
    const denial = (analysis === undefined ? [] : getDenialReasons(analysis)).find(
      ({ denialType }) => denialType === 'Explicit',
    );
    const kind = (isIdentity: boolean) => `${isIdentity ? 'identity' : 'resource'}-based policy`;
    const why =
      denial === undefined
        ? `because no ${kind(isRole)} allows the ${action} action`
        : `with an explicit deny in ${denial.policyType === 'identity' ? 'an' : 'a'} ${kind(denial.policyType === 'identity')}`;
    return {
      allowed: false,
      message: `User: ${who} is not authorized to perform: ${action} on resource: ${resource} ${why}`,
    };
  }

  function evaluate(principal: Principal, authorization: Authorization): Promise<Decision> {
    const key = JSON.stringify([principal, authorization]);
    const before = answers.get(key);
    if (before !== undefined) return before;
    const decision = simulate(principal, authorization);
    answers.set(key, decision);
    const ended: Promise<unknown> = decision.catch(() => undefined).finally(() => waiting.delete(ended));
    waiting.add(ended);
    return decision;
  }

  return {
    evaluate,
    async decide(principal, authorization) {
      judged += 1;
      const decision = await evaluate(principal, authorization).catch(
        (error: unknown): Decision => ({
          allowed: false,
          message: `cannot be judged: ${error instanceof Error ? error.message : String(error)}`,
        }),
      );
      if (!decision.allowed) refusals.add(decision.message);
      else {
        const key = JSON.stringify([principal, authorization.action, decision.grants]);
        if (!granted.has(key)) granted.set(key, { principal, authorization, grants: decision.grants });
      }
      return decision;
    },
    get judged() {
      return judged;
    },
    get refusals() {
      return [...refusals];
    },
    get granted() {
      return [...granted.values()];
    },
    isBusy: () => waiting.size > 0,
    async oneEnded() {
      if (waiting.size > 0) await Promise.race(waiting);
    },
  };
}

/** One action that a policy allows. */
export interface Permission {
  readonly policy: string;
  readonly sid: string | undefined;
  /** As the statement has it, wildcards included. */
  readonly action: string;
}

/** What could be taken out of the policies, one permission at a time, without a refusal of anything that was granted. */
export async function idlePermissions({
  account,
  policies,
  granted,
}: AuthorizerOptions & { readonly granted: readonly Granted[] }): Promise<readonly Permission[]> {
  const idle: Permission[] = [];
  for (const policy of policies) {
    const { name, of, document } = policy;
    for (const [index, statement] of document.Statement.entries()) {
      if (statement.Effect === 'Deny') continue;
      const allowedBy = granted.filter(({ grants }) =>
        grants.some((grant) => grant.policy === name && grant.index === index),
      );
      const actions = [statement.Action ?? []].flat();
      for (const action of actions) {
        const { Action: _, ...rest } = statement;
        const left = actions.filter((each) => each !== action);
        const Statement = document.Statement.flatMap((each, at) => {
          if (at !== index) return each;
          return left.length === 0 ? [] : { ...rest, Action: left };
        });
        const without = createAuthorizer({
          account,
          // A policy without statements is none.
          policies: policies.flatMap((each) => {
            if (each !== policy) return each;
            return Statement.length === 0 ? [] : { name, of, document: { ...document, Statement } };
          }),
        });
        const isNeeded = async () => {
          for (const { principal, authorization } of allowedBy)
            if (!(await without.evaluate(principal, authorization)).allowed) return true;
          return false;
        };
        if (!(await isNeeded())) idle.push({ policy: name, sid: statement.Sid, action });
      }
    }
  }
  return idle;
}

/** Documents do not change, and are checked once, however many authorizers they are given to. */
const validated = new WeakMap<object, unknown>();

function checked(
  name: string,
  document: object,
  validate: (document: unknown) => ValidationError[],
): unknown {
  const before = validated.get(document);
  if (before !== undefined) return before;
  const policy = createValidatedPolicy(document, validate, { name });
  const faults = [
    ...policy.errors.map(({ path, message }) => `${path} ${message}`),
    ...lostStatements(document, validate !== validateIdentityPolicy),
  ];
  if (faults.length > 0) throw new Error(`${name}: ${faults.join('; ')}`);
  validated.set(document, policy);
  return policy;
}

const operator =
  /^(For(Any|All)Values?:)?((String(Not)?(Equals|EqualsIgnoreCase|Like)|Arn(Not)?(Equals|Like)|Numeric(Not)?Equals|(Numeric|Date)(Less|Greater)Than(Equals)?|Date(Not)?Equals|Bool|BinaryEquals|(Not)?IpAddress)(IfExists)?|Null)$/;

/** What the library takes in silence for a statement that is about nothing, so that a denial would be lost. */
function lostStatements(document: unknown, isOfResource: boolean): readonly string[] {
  const { Statement } = document as {
    Statement: readonly { Condition?: object; Principal?: unknown; NotPrincipal?: unknown }[];
  };
  return Statement.flatMap(({ Condition = {}, Principal, NotPrincipal }, index) => [
    ...(isOfResource && Principal === undefined && NotPrincipal === undefined
      ? [`Statement.${index} has no principal`]
      : []),
    ...Object.keys(Condition)
      .filter((name) => !operator.test(name))
      .map((name) => `${name} is no condition operator`),
  ]);
}
