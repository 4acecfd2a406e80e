import * as z from 'zod/mini';

// How vendors write what is not there, and numbers. Being strict about it stops rotations over fields that nobody needs.

const isNothing = (value: unknown): boolean =>
  value === undefined || value === null || (typeof value === 'object' && Object.keys(value).length === 0);

/** Absent, null, `[]` and `{}` are one thing for an object that may be left out: Vultr has answered one for the other (govultr#231). */
export const optionalObject = <Schema extends z.core.$ZodType>(schema: Schema) =>
  z.optional(
    z.pipe(
      z.transform((value: unknown) => (isNothing(value) ? undefined : value)),
      z.optional(schema),
    ),
  );

/** A whole number, also as digits in a text. */
export const wholeNumber = () =>
  z.pipe(
    z.union([
      z.int().check(z.nonnegative()),
      z.string().check(z.regex(/^\d{1,15}$/, { error: 'expected digits' })),
    ]),
    z.transform(Number),
  );
