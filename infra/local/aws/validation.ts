import type * as z from 'zod';
import { AwsError } from './aws-error.ts';

/** `SecretIdList[1].Key` as AWS spells it in its texts: `secretIdList.2.member.key`. */
function spelled(path: readonly PropertyKey[]): string {
  return path
    .map((part) =>
      typeof part === 'number'
        ? `${part + 1}.member`
        : String(part).replace(/^[A-Z]+(?![a-z])|^[A-Z]/, (head) => head.toLowerCase()),
    )
    .join('.');
}

function constraint(issue: z.core.$ZodIssue): string | undefined {
  switch (issue.code) {
    case 'too_small':
      return `Member must have ${issue.origin === 'number' ? 'value' : 'length'} greater than or equal to ${issue.minimum}`;
    case 'too_big':
      return `Member must have ${issue.origin === 'number' ? 'value' : 'length'} less than or equal to ${issue.maximum}`;
    case 'invalid_value':
      return `Member must satisfy enum value set: [${issue.values.join(', ')}]`;
    case 'invalid_format':
      return `Member must satisfy regular expression pattern: ${issue.pattern ?? issue.format}`;
    default:
      return undefined;
  }
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (at, part) => (typeof at === 'object' && at !== null ? Reflect.get(at, part) : undefined),
    input,
  );
}

/**
 * The input, if it keeps its bounds. Otherwise throws as AWS does, every violation in one text; unlike AWS the text
 * never repeats a value, since a value may be a password.
 */
export function validated<S extends z.ZodType>(schema: S, input: unknown): z.output<S> {
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.map((issue) => {
    const at = spelled(issue.path);
    if (valueAt(input, issue.path) === undefined)
      return `Value null at '${at}' failed to satisfy constraint: Member must not be null`;
    const broken = constraint(issue);
    if (broken === undefined)
      throw new AwsError('SerializationException', `Member '${at}' has the wrong type.`);
    return `Value at '${at}' failed to satisfy constraint: ${broken}`;
  });
  throw new AwsError(
    'ValidationException',
    `${faults.length} validation error${faults.length === 1 ? '' : 's'} detected: ${faults.join('; ')}`,
  );
}
