import { ProviderError, StoreError } from '../core/errors.ts';

/** What an operator needs beside the message; errors of libraries have none of it. */
export function factsOf(error: unknown): Readonly<Record<string, unknown>> {
  if (error instanceof ProviderError) return { ...error.facts };
  if (error instanceof StoreError) {
    const { code, effect, detail } = error;
    // `message` is the line's own.
    return {
      code,
      effect,
      ...(detail === undefined ? {} : { awsMessage: detail.message }),
      ...(detail?.requestId === undefined ? {} : { awsRequestId: detail.requestId }),
    };
  }
  return { code: error instanceof Error && 'code' in error ? error.code : 'DEFECT' };
}
