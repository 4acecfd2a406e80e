import type { RoleStatement } from './template.ts';

/**
 * Whether a role's statements let an action be done to a resource. Conditions are not weighed: a statement that has some
 * allows nothing here and denies everything that it names.
 */
export function allows(statements: readonly RoleStatement[], action: string, resource: string): boolean {
  const named = statements.filter(
    ({ actions, resources }) =>
      actions.some((pattern) => covers(pattern, action, 'i')) &&
      resources.some((pattern) => covers(pattern, resource)),
  );
  return (
    named.some(({ effect, conditions }) => effect === 'Allow' && Object.keys(conditions).length === 0) &&
    !named.some(({ effect }) => effect === 'Deny')
  );
}

/** Whether a pattern of IAM is about this value: only its own wildcards have a meaning. */
export function covers(pattern: string, value: string, flags = ''): boolean {
  const literal = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${literal}$`, flags).test(value);
}
