import { type Effect, StoreError } from '../core/errors.ts';

/** Whether `error` is the AWS error of that name. Names are the contract; some are not in the service's model. */
export const isNamed = (error: unknown, name: string): boolean =>
  error instanceof Error && error.name === name;

const denied =
  /^(AccessDenied.*|UnrecognizedClientException|ExpiredToken.*|DecryptionFailure|EncryptionFailure|InvalidSignature.*)$/;
const unavailable =
  /^(Throttling.*|TooManyRequests.*|InternalService.*|InternalServer.*|ServiceUnavailable.*|TimeoutError|LimitExceededException|RequestLimitExceeded)$/;

/** An AWS failure in our words. `effect` is what a call of this kind may have done; a refusal by name did nothing. */
export function failureOf(error: unknown, call: string, effect: Effect): StoreError {
  const name = error instanceof Error ? error.name : 'failure';
  const status = statusOf(error);
  const options = { cause: error };
  if (denied.test(name))
    return new StoreError(
      'STORE_DENIED',
      'none',
      `${call} was denied (${name}); check the function's role and the KMS key`,
      options,
    );
  if (unavailable.test(name) || status === undefined || status >= 500)
    return new StoreError(
      'STORE_UNAVAILABLE',
      /^(Throttling|TooManyRequests|LimitExceeded|RequestLimit)/.test(name) ? 'none' : effect,
      `${call} failed (${name}); it is tried again`,
      options,
    );
  return new StoreError(
    'STORE_REFUSED',
    'none',
    `${call} was refused (${name}); describe the secret and see README.md`,
    options,
  );
}

function statusOf(error: unknown): number | undefined {
  if (error === null || typeof error !== 'object' || !('$metadata' in error)) return undefined;
  const { $metadata } = error;
  if ($metadata === null || typeof $metadata !== 'object' || !('httpStatusCode' in $metadata))
    return undefined;
  return typeof $metadata.httpStatusCode === 'number' ? $metadata.httpStatusCode : undefined;
}
