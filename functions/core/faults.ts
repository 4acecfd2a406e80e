import * as z from 'zod/mini';
import en from 'zod/v4/locales/en.js';

// zod/mini has no words of its own: without these each fault would read "invalid input".
z.config(en());

/** Every wrong field of a document in one line, with what was expected; values never occur in it. */
export const faults = (error: z.core.$ZodError): string => eachFault(error).join('; ');

/** The same, one line a field. `parent` is the field that the document is of another one. */
export const eachFault = (error: z.core.$ZodError, ...parent: readonly string[]): readonly string[] =>
  error.issues.map(({ path, message }) => {
    const field = [...parent, ...path].map(String).join('.');
    return `${field === '' ? 'document' : field}: ${lowerFirst(message)}`;
  });

const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1);
