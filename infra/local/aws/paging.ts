import * as z from 'zod';
import type { AwsError } from './aws-error.ts';

const cursor = z.object({ offset: z.int().min(0), emptyLeft: z.int().min(0) });
type Cursor = z.output<typeof cursor>;

export interface Page<T> {
  readonly items: readonly T[];
  readonly NextToken?: string;
}

export interface PageRequest {
  readonly limit: number;
  readonly nextToken: string | undefined;
  /** Empty pages, each with a successor, before the first one. @default 0 */
  readonly emptyPages?: number;
  /** The service's error for a token that it did not make. */
  readonly refuse: () => AwsError;
}

const write = (next: Cursor) => Buffer.from(JSON.stringify(next)).toString('base64url');

function read(token: string, refuse: () => AwsError): Cursor {
  try {
    return cursor.parse(JSON.parse(Buffer.from(token, 'base64url').toString('utf8')));
  } catch {
    throw refuse();
  }
}

/** One page of a listing, and the token of the next one if there is one. */
export function pageOf<T>(
  all: readonly T[],
  { limit, nextToken, emptyPages = 0, refuse }: PageRequest,
): Page<T> {
  const { offset, emptyLeft } =
    nextToken === undefined ? { offset: 0, emptyLeft: emptyPages } : read(nextToken, refuse);
  if (emptyLeft > 0) return { items: [], NextToken: write({ offset, emptyLeft: emptyLeft - 1 }) };
  const end = offset + limit;
  return {
    items: all.slice(offset, end),
    ...(end < all.length && { NextToken: write({ offset: end, emptyLeft: 0 }) }),
  };
}
