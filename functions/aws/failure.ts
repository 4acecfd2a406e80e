import { type Effect, type StoreDetail, StoreError } from '../core/errors.ts';

/** Whether `error` is the AWS error of that name. Names are the contract; some are not in the service's model. */
export const isNamed = (error: unknown, name: string): boolean =>
  error instanceof Error && error.name === name;

const denied =
  /^(AccessDenied.*|KmsAccessDenied|UnrecognizedClientException|ExpiredToken.*|DecryptionFailure|EncryptionFailure|InvalidSignature.*)$/;
const busy =
  /^(Throttling.*|Provisioned.*|KmsThrottled|TooManyRequests.*|TooManyUpdates|RequestThrottled.*|LimitExceededException|RequestLimitExceeded)$/;
const broken = /^(InternalService.*|InternalServer.*|ServiceUnavailable.*|TimeoutError)$/;

/**
 * An AWS failure in our words. `effect` is what a call of this kind may have done; a refusal by name did nothing, so that it
 * leaves what calls `before` it did.
 */
export function failureOf(error: unknown, call: string, effect: Effect, before: Effect = 'none'): StoreError {
  const name = error instanceof Error ? error.name : 'failure';
  const { status, attempts, requestId } = metadataOf(error);
  const options = { cause: error, detail: detailOf(error, requestId) };
  // The SDK repeats calls by itself: a refusal of the last attempt tells nothing of an earlier one whose answer was lost.
  const refused: Effect = attempts > 1 ? effect : before;
  if (denied.test(name))
    return new StoreError(
      'STORE_DENIED',
      refused,
      `${call} was denied (${name}); check the function's role and the KMS key`,
      options,
    );
  const isBusy = busy.test(name) || status === 429;
  // Below 400 the call was carried out, and its answer was lost or unreadable.
  if (isBusy || broken.test(name) || status === undefined || status < 400 || status >= 500)
    return new StoreError(
      'STORE_UNAVAILABLE',
      isBusy ? refused : effect,
      `${call} failed (${name}); it is tried again`,
      options,
    );
  return new StoreError(
    'STORE_REFUSED',
    refused,
    `${call} was refused (${name}); describe the secret and see README.md`,
    options,
  );
}

/** Long enough for any text of AWS that was seen; one that quotes a whole request is cut. */
const maxCharacters = 1_000;

function detailOf(error: unknown, requestId: string | undefined): StoreDetail | undefined {
  const message = error instanceof Error ? error.message.slice(0, maxCharacters) : '';
  if (message === '' && requestId === undefined) return undefined;
  return { message, ...(requestId === undefined ? {} : { requestId }) };
}

interface Metadata {
  readonly status: number | undefined;
  readonly attempts: number;
  readonly requestId: string | undefined;
}

function metadataOf(error: unknown): Metadata {
  const nothing = { status: undefined, attempts: 1, requestId: undefined };
  if (error === null || typeof error !== 'object' || !('$metadata' in error)) return nothing;
  const { $metadata } = error;
  if ($metadata === null || typeof $metadata !== 'object') return nothing;
  const status = 'httpStatusCode' in $metadata ? $metadata.httpStatusCode : undefined;
  const attempts = 'attempts' in $metadata ? $metadata.attempts : undefined;
  const requestId = 'requestId' in $metadata ? $metadata.requestId : undefined;
  return {
    status: typeof status === 'number' ? status : undefined,
    attempts: typeof attempts === 'number' ? attempts : 1,
    requestId: typeof requestId === 'string' ? requestId : undefined,
  };
}
