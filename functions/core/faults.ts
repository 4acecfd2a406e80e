import type * as z from 'zod';

/** Every wrong field of a document in one line, with what was expected; values never occur in it. */
export const faults = (error: z.ZodError): string => eachFault(error).join('; ');

/** The same, one line a field. */
export const eachFault = (error: z.ZodError): readonly string[] =>
  error.issues.map(
    (issue) =>
      `${issue.path.length === 0 ? 'document' : issue.path.map(String).join('.')}: ${lowerFirst(issue.message)}`,
  );

const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1);
