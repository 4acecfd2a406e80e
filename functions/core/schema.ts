import type * as z from 'zod/mini';

/** What reads a document: a schema of zod/mini, or of zod where one is at hand, whose own types do not know each other. */
export interface Schema<Output> {
  /** Throws where `safeParse` answers an error. */
  parse(document: unknown): Output;
  safeParse(
    document: unknown,
  ):
    | { readonly success: true; readonly data: Output; readonly error?: undefined }
    | { readonly success: false; readonly data?: undefined; readonly error: z.core.$ZodError };
}
