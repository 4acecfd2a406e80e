/**
 * Few classes, closed codes. Two facts are kept apart: what went wrong (`code`) and what the failed call did to the
 * remote side (`effect`). README.md has a row for every code; a test holds that.
 */

/** What a failed call did to the remote side. On `unknown`, look before acting again. */
export type Effect = 'none' | 'applied' | 'unknown';

export const inputCodes = ['EVENT_INVALID', 'SPEC_INVALID', 'SECRET_INVALID', 'ENVIRONMENT_INVALID'] as const;
export type InputCode = (typeof inputCodes)[number];

/** A document from outside is wrong. Names every wrong field at once; nothing was changed. */
export class InputError extends Error {
  override readonly name = 'InputError';
  readonly code: InputCode;
  readonly effect: Effect = 'none';
  constructor(code: InputCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

export const refusalCodes = [
  'STEP_UNKNOWN',
  'SECRET_UNKNOWN',
  'NOT_A_CREDENTIAL',
  'SPEC_MISSING',
  'SPEC_CONFLICT',
  'ROTATION_DISABLED',
  'VERSION_UNKNOWN',
  'VERSION_NOT_PENDING',
  'VALUE_MISSING',
  'DELETION_IN_PROGRESS',
  'GRACE_RUNNING',
  'SWITCH_UNDATED',
  'SECRET_MISMATCH',
  'LABELS_MOVED',
  'VERSION_REVOKED',
  'SUPERSEDED',
  'PAUSED',
  'USERS_IN_THE_WAY',
] as const;
export type RefusalCode = (typeof refusalCodes)[number];

/** A step may not go on. Thrown, so that Secrets Manager records the rotation as failed; nothing was changed. */
export class RotationRefused extends Error {
  override readonly name = 'RotationRefused';
  readonly code: RefusalCode;
  readonly effect: Effect = 'none';
  constructor(code: RefusalCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

export const providerCodes = [
  'UNAUTHORIZED',
  'REJECTED',
  'RATE_LIMITED',
  'UNAVAILABLE',
  'UNREADABLE',
  'CONFLICT',
  'NOT_FOUND',
  'TARGET_NOT_READY',
  'NOT_SETTLED',
  'BLOCKED',
  'NAME_REFUSED',
  'PASSWORD_LOST',
  'ROLE_UNKNOWN',
] as const;
export type ProviderCode = (typeof providerCodes)[number];

export interface ProviderErrorFacts {
  readonly code: ProviderCode;
  readonly effect: Effect;
  readonly provider: string;
  readonly operation: string;
  readonly status?: number;
  /** The number by which the vendor names the failure, where it has one beside the status. */
  readonly vendorCode?: number;
  /** The vendor's own id of the request, for its support. */
  readonly requestId?: string;
  /** How long the vendor asked us to wait. */
  readonly retryAfterMs?: number;
}

/** A vendor said no, said something unreadable, or said nothing. */
export class ProviderError extends Error {
  override readonly name = 'ProviderError';
  readonly facts: ProviderErrorFacts;
  constructor(message: string, facts: ProviderErrorFacts, options?: ErrorOptions) {
    super(`${facts.code}: ${message}`, options);
    this.facts = facts;
  }
  get code(): ProviderCode {
    return this.facts.code;
  }
  get effect(): Effect {
    return this.facts.effect;
  }
}

export const verificationCodes = ['CREDENTIAL_REJECTED', 'LOGIN_UNREACHABLE', 'PRIVILEGES_DIFFER'] as const;
export type VerificationCode = (typeof verificationCodes)[number];

/** The new credential was tried and is not good (enough) to publish. AWSCURRENT was not touched by the trial. */
export class VerificationFailed extends Error {
  override readonly name = 'VerificationFailed';
  readonly code: VerificationCode;
  readonly effect: Effect = 'applied';
  constructor(code: VerificationCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

export const storeCodes = [
  'STORE_DENIED',
  'STORE_UNAVAILABLE',
  'STORE_REFUSED',
  'EVENT_NOT_PUBLISHED',
] as const;
export type StoreCode = (typeof storeCodes)[number];

/** What AWS itself said of a failure. It may quote what it was sent: for the log, which is scrubbed, and for nothing else. */
export interface StoreDetail {
  readonly message: string;
  /** AWS's own id of the request, for its support. */
  readonly requestId?: string;
}

/** Secrets Manager, Parameter Store, DynamoDB or EventBridge failed. */
export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly code: StoreCode;
  readonly effect: Effect;
  readonly detail: StoreDetail | undefined;
  constructor(
    code: StoreCode,
    effect: Effect,
    message: string,
    { detail, ...options }: ErrorOptions & { readonly detail?: StoreDetail | undefined } = {},
  ) {
    super(`${code}: ${message}`, options);
    this.code = code;
    this.effect = effect;
    this.detail = detail;
  }
}
