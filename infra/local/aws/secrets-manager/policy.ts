import * as z from 'zod';
import { refusals } from './errors.ts';

const oneOrMany = <T extends z.ZodType>(one: T) => z.union([one.transform((value) => [value]), z.array(one)]);

const statement = z.looseObject({
  Effect: z.enum(['Allow', 'Deny']),
  Principal: z.union([z.literal('*'), z.record(z.string(), oneOrMany(z.string()))]).optional(),
  Action: oneOrMany(z.string()).optional(),
  Condition: z.record(z.string(), z.unknown()).optional(),
});

const document = z.looseObject({ Version: z.string().optional(), Statement: oneOrMany(statement) });

type PolicyDocument = z.output<typeof document>;

/** Reads a policy document; refuses one that is none. */
export function parsePolicy(text: string): PolicyDocument {
  try {
    return document.parse(JSON.parse(text));
  } catch {
    throw refusals.policyMalformed();
  }
}

const everyone = (principal: PolicyDocument['Statement'][number]['Principal']): boolean =>
  principal === '*' || Object.values(principal ?? {}).some((ids) => ids.includes('*'));

/** Whether anybody at all is let in. */
export const isPublic = (policy: PolicyDocument): boolean =>
  policy.Statement.some(
    ({ Effect, Principal, Condition }) =>
      Effect === 'Allow' && everyone(Principal) && Condition === undefined,
  );

function covers(pattern: string, action: string): boolean {
  const literal = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${literal}$`, 'i').test(action);
}

/** Whether an unconditional statement denies the action to everybody in the account, as CDK's rotation schedule does. */
export function denies(policy: PolicyDocument, action: string, account: string): boolean {
  const root = new RegExp(`^(${account}|arn:aws:iam::${account}:root)$`);
  return policy.Statement.some(
    ({ Effect, Principal, Action, Condition }) =>
      Effect === 'Deny' &&
      Condition === undefined &&
      (Action ?? []).some((pattern) => covers(pattern, action)) &&
      (everyone(Principal) ||
        (typeof Principal === 'object' && (Principal['AWS'] ?? []).some((id) => root.test(id)))),
  );
}
