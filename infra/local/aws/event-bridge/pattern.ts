import * as z from 'zod';

const textOrTexts = z.union([z.string(), z.array(z.string())]);
const caseless = z.strictObject({ 'equals-ignore-case': textOrTexts });
const comparison = z.enum(['=', '<', '<=', '>', '>=']);

const operator = z.union([
  z.strictObject({ prefix: z.union([z.string(), caseless]) }),
  z.strictObject({ suffix: z.union([z.string(), caseless]) }),
  z.strictObject({ exists: z.boolean() }),
  z.strictObject({ 'equals-ignore-case': z.string() }),
  z.strictObject({ wildcard: z.string() }),
  z.strictObject({
    numeric: z.union([
      z.tuple([comparison, z.number()]),
      z.tuple([comparison, z.number(), comparison, z.number()]),
    ]),
  }),
  z.strictObject({
    'anything-but': z.union([
      z.string(),
      z.number(),
      z.array(z.union([z.string(), z.number()])),
      z.strictObject({ prefix: textOrTexts }),
      z.strictObject({ suffix: textOrTexts }),
      caseless,
      z.strictObject({ wildcard: textOrTexts }),
    ]),
  }),
]);

const alternative = z.union([z.string(), z.number(), z.boolean(), z.null(), operator]);
type Alternative = z.output<typeof alternative>;
type Operator = z.output<typeof operator>;

/** A rule's event pattern: a leaf is a list of alternatives, `$or` a list of patterns. */
export interface EventPattern {
  readonly [key: string]: readonly Alternative[] | EventPattern | readonly EventPattern[];
}

const pattern: z.ZodType<EventPattern> = z.lazy(() =>
  z
    .record(z.string(), z.union([z.array(alternative).min(1), z.array(pattern).min(2), pattern]))
    .refine((value) => Object.keys(value).length > 0, 'a pattern must not be empty')
    .refine(
      (value) => Object.entries(value).every(([key, under]) => isPatterns(under) === (key === '$or')),
      '$or, and nothing else, takes a list of patterns',
    ),
);

function isPatterns(under: EventPattern[string]): under is readonly EventPattern[] {
  return (
    Array.isArray(under) &&
    under.every((each) => typeof each === 'object' && each !== null && !operator.safeParse(each).success)
  );
}

/** Reads a pattern; throws a ZodError for one that EventBridge would refuse. */
export const parsePattern = (input: unknown): EventPattern => pattern.parse(input);

const listOf = <T>(oneOrMany: T | readonly T[]): readonly T[] =>
  Array.isArray(oneOrMany) ? oneOrMany : [oneOrMany as T];

const sameCaseless = (a: string, b: string) => a.toLowerCase() === b.toLowerCase();

function matchesWildcard(glob: string, text: string): boolean {
  // A backslash takes the meaning from the star or backslash after it.
  const source = glob.replaceAll(/\\([*\\])|(\*)|[.+?^${}()|[\]\\]/g, (found, escaped, star) =>
    escaped !== undefined ? `\\${escaped}` : star !== undefined ? '.*' : `\\${found}`,
  );
  return new RegExp(`^${source}$`, 's').test(text);
}

const comparisons: Readonly<Record<z.output<typeof comparison>, (a: number, b: number) => boolean>> = {
  '=': (a, b) => a === b,
  '<': (a, b) => a < b,
  '<=': (a, b) => a <= b,
  '>': (a, b) => a > b,
  '>=': (a, b) => a >= b,
};

function matchesText(operation: Exclude<Operator, { exists: boolean }>, value: unknown): boolean {
  if ('numeric' in operation) {
    if (typeof value !== 'number') return false;
    const [first, low, second, high] = operation.numeric;
    const isWithin = second === undefined || high === undefined || comparisons[second](value, high);
    return comparisons[first](value, low) && isWithin;
  }
  if ('anything-but' in operation) {
    const but = operation['anything-but'];
    if (typeof but !== 'object' || Array.isArray(but)) return !listOf(but).some((each) => each === value);
    if (typeof value !== 'string') return true;
    if ('prefix' in but) return !listOf(but.prefix).some((head) => value.startsWith(head));
    if ('suffix' in but) return !listOf(but.suffix).some((tail) => value.endsWith(tail));
    if ('wildcard' in but) return !listOf(but.wildcard).some((glob) => matchesWildcard(glob, value));
    return !listOf(but['equals-ignore-case']).some((text) => sameCaseless(text, value));
  }
  if (typeof value !== 'string') return false;
  if ('equals-ignore-case' in operation) return sameCaseless(operation['equals-ignore-case'], value);
  if ('wildcard' in operation) return matchesWildcard(operation.wildcard, value);
  if ('prefix' in operation) {
    if (typeof operation.prefix === 'string') return value.startsWith(operation.prefix);
    return listOf(operation.prefix['equals-ignore-case']).some((head) =>
      sameCaseless(value.slice(0, head.length), head),
    );
  }
  if (typeof operation.suffix === 'string') return value.endsWith(operation.suffix);
  return listOf(operation.suffix['equals-ignore-case']).some(
    (tail) => value.length >= tail.length && sameCaseless(value.slice(value.length - tail.length), tail),
  );
}

function matchesLeaf(alternatives: readonly Alternative[], value: unknown): boolean {
  return alternatives.some((each) => {
    if (typeof each !== 'object' || each === null) return listOf(value).some((element) => element === each);
    if ('exists' in each) return each.exists === (value !== undefined);
    return value !== undefined && listOf(value).some((element) => matchesText(each, element));
  });
}

function isLeaf(under: EventPattern[string]): under is readonly Alternative[] {
  return Array.isArray(under);
}

/** Whether the event matches: every key of the pattern, and for each leaf at least one of its alternatives. */
export function matchesPattern(wanted: EventPattern, event: unknown): boolean {
  if (Array.isArray(event)) return event.some((element) => matchesPattern(wanted, element));
  const members = typeof event === 'object' && event !== null ? new Map(Object.entries(event)) : new Map();
  return Object.entries(wanted).every(([key, under]) => {
    if (key === '$or' && isPatterns(under)) return under.some((each) => matchesPattern(each, event));
    if (isLeaf(under)) return matchesLeaf(under, members.get(key));
    return matchesPattern(under as EventPattern, members.get(key));
  });
}
