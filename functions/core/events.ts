import { z } from 'zod';
import { InputError } from './errors.ts';
import { faults } from './faults.ts';
import { Sensitive } from './sensitive.ts';

/** What happened, in the past tense. Ids only: never a password, a connection string or a token that proves anything. */
export type RekeyEvent =
  | { readonly type: 'CredentialCreated'; readonly detail: CredentialFacts }
  | {
      readonly type: 'CredentialRotated';
      readonly detail: RotationFacts & {
        readonly username: string;
        /** How the new login was proved before it was published. */
        readonly evidence: 'logged-in' | 'not-tested';
        /** reset-password only: AWSCURRENT was refused for at most this long. */
        readonly currentRefusedAtMostMs?: number;
      };
    }
  | {
      readonly type: 'CredentialRotationFailed';
      readonly detail: RotationFacts & {
        readonly step: string;
        readonly code: string;
        readonly effect: string;
      };
    }
  | { readonly type: 'DatabaseUserCreated'; readonly detail: RotationFacts & { readonly username: string } };

export interface CredentialFacts {
  readonly credential: string;
  readonly provider: string;
  readonly target: string;
  readonly strategy: string;
}

export interface RotationFacts extends CredentialFacts {
  readonly secretArn: string;
  /** The version that is being made: the rotation's ClientRequestToken. */
  readonly versionId: string;
}

/** The event that asks for a new credential: `detail` holds the spec. */
export const credentialRequested = 'CredentialRequested';

const credentialRequestedSchema = z.object({
  source: z.string(),
  'detail-type': z.literal(credentialRequested),
  detail: z.object({ spec: z.record(z.string(), z.unknown()) }),
});

/** The spec, still unread, in a `CredentialRequested` event. Throws EVENT_INVALID that names every wrong field. */
export function parseCredentialRequested(event: unknown): unknown {
  const parsed = credentialRequestedSchema.safeParse(event);
  if (!parsed.success)
    throw new InputError(
      'EVENT_INVALID',
      `${faults(parsed.error)}; send {"source", "detail-type": "${credentialRequested}", "detail": {"spec": {…}}}`,
    );
  return parsed.data.detail.spec;
}

export interface RotationEvent {
  readonly step: string;
  /** ARN, partial ARN or name: whatever Secrets Manager sends. */
  readonly secretId: string;
  readonly token: string;
  readonly rotationToken?: Sensitive;
}

/**
 * Bounds from the service model. The steps' names are checked by the rotation itself, after its guard. Unknown fields are
 * ignored; RotationToken is missing in @types/aws-lambda but sent for roles of other accounts (AWS documentation).
 */
const rotationEventSchema = z.object({
  Step: z.string().min(1),
  SecretId: z.string().min(1).max(2048),
  ClientRequestToken: z.string().min(32).max(64),
  RotationToken: z
    .string()
    .regex(/^[a-zA-Z0-9-]{36,256}$/, { error: 'expected 36 to 256 of a-z, A-Z, 0-9 and hyphen' })
    .optional(),
});

/** One step that Secrets Manager asks for. Throws EVENT_INVALID that names every wrong field. */
export function parseRotationEvent(event: unknown): RotationEvent {
  const parsed = rotationEventSchema.safeParse(event);
  if (!parsed.success)
    throw new InputError(
      'EVENT_INVALID',
      `${faults(parsed.error)}; this function is called by Secrets Manager: rotate the secret instead of invoking it`,
    );
  const { Step, SecretId, ClientRequestToken, RotationToken } = parsed.data;
  return {
    step: Step,
    secretId: SecretId,
    token: ClientRequestToken,
    ...(RotationToken === undefined ? {} : { rotationToken: new Sensitive(RotationToken) }),
  };
}
