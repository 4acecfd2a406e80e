import type { z } from 'zod';

/** Every wrong field of a document in one line, with what was expected; values never occur in it. */
export function faults(error: z.ZodError): string {
  return error.issues
    .map(
      (issue) =>
        `${issue.path.length === 0 ? 'document' : issue.path.map(String).join('.')}: ${lowerFirst(issue.message)}`,
    )
    .join('; ');
}

const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1);
