import { type Clock, pause } from '../clock.ts';

/** `isFinal` is for what no repetition can mend: no permission, no such target. */
export type DeliveryResult =
  | { readonly ok: true }
  | {
      readonly ok: false;
      readonly error: string;
      readonly isFinal?: boolean;
      /** What a dead letter says in ERROR_CODE. @default 'ERROR_FROM_TARGET' */
      readonly code?: 'NO_PERMISSIONS' | 'NO_RESOURCE';
    };

export interface RetryPolicy {
  /** 0 to 185. @default 185 */
  readonly maximumRetryAttempts?: number;
  /** 60 to 86 400. @default 86400 */
  readonly maximumEventAgeSeconds?: number;
}

export interface FailedDelivery {
  readonly error: string;
  readonly code?: 'NO_PERMISSIONS' | 'NO_RESOURCE';
  readonly attempts: number;
  /** Which bound of the policy ended the attempts; absent after a final failure, which has none. */
  readonly exhausted?: 'MaximumRetryAttempts' | 'MaximumEventAgeInSeconds';
}

/** Wait before each further attempt, milliseconds; attempts count from 1. */
export type RetryDelay = (attempt: number) => number;

/** Delivers, again and again as far as the policy goes. Answers the failure it ended with, if any; `stopped` after the signal. */
export async function deliverUnder(
  { maximumRetryAttempts = 185, maximumEventAgeSeconds = 86_400 }: RetryPolicy,
  deliver: () => Promise<DeliveryResult>,
  { clock, retryDelayMs, signal }: { clock: Clock; retryDelayMs: RetryDelay; signal: AbortSignal },
): Promise<'delivered' | 'stopped' | FailedDelivery> {
  const startedAt = clock.now().getTime();
  for (let attempts = 1; !signal.aborted; attempts += 1) {
    const result = await deliver().catch(
      (error: unknown): DeliveryResult => ({
        ok: false,
        error: error instanceof Error ? error.message : 'unknown',
      }),
    );
    if (result.ok) return 'delivered';
    if (signal.aborted) break;
    const { error, code, isFinal = false } = result;
    if (isFinal) return { error, attempts, ...(code === undefined ? {} : { code }) };
    if (attempts > maximumRetryAttempts) return { error, attempts, exhausted: 'MaximumRetryAttempts' };
    if (clock.now().getTime() - startedAt >= maximumEventAgeSeconds * 1000)
      return { error, attempts, exhausted: 'MaximumEventAgeInSeconds' };
    await pause(clock, retryDelayMs(attempts), signal);
  }
  return 'stopped';
}

/** What EventBridge and Scheduler write beside a dead letter (AWS documentation). */
export const letterAttributes = (
  { error, code, attempts, exhausted }: FailedDelivery,
  more: Readonly<Record<string, string>>,
): Readonly<Record<string, { readonly DataType: 'String'; readonly StringValue: string }>> => {
  const texts: Readonly<Record<string, string>> = {
    ERROR_CODE: code ?? 'ERROR_FROM_TARGET',
    ERROR_MESSAGE: error,
    RETRY_ATTEMPTS: String(attempts - 1),
    ...(exhausted !== undefined && { EXHAUSTED_RETRY_CONDITION: exhausted }),
    ...more,
  };
  return Object.fromEntries(
    Object.entries(texts).map(([name, StringValue]) => [name, { DataType: 'String', StringValue }]),
  );
};
