import * as z from 'zod/mini';
import { InputError } from './errors.ts';
import { directivesPath } from './names.ts';

/**
 * What was ordered for a credential while it runs. Kept beside the spec, one parameter an order, because a deployment writes
 * specs: it would undo a revocation. Each only ever moves one way, so two writers cannot undo each other either.
 */
export interface Directives {
  /** Versions made before this instant are due at once, whatever the window says. */
  readonly rotateBefore?: Date;
  /** The same, and they may have leaked: their users have no grace and their connections are ended. */
  readonly revokeBefore?: Date;
  /** Versions made before this instant are due in the next window: their users hold other privileges than the spec declares now. */
  readonly changeBefore?: Date;
  /**
   * Versions made before this instant were revoked by somebody who knows that the credential may be locked out: their last working
   * logins go even where the login of AWSCURRENT is not accepted.
   */
  readonly revokeAnyway?: Date;
  /** The credential is to go since then: users first, then the secret. */
  readonly deleteSince?: Date;
  /** Whoever ordered the deletion said then that the target is gone for good: no user of it can be deleted any more. */
  readonly targetIsGone?: Date;
  /**
   * The tombstone: the credential of this name was deleted then. It stays behind without a spec, and beside the spec of a later
   * credential of the name: orders and requests that are no younger were meant for the one that was deleted.
   */
  readonly deletedAt?: Date;
}

/** What orders a rotation at once, as an order goes with the start that is queued for it. */
export interface StartOrders {
  readonly rotateBefore?: Date | undefined;
  readonly revokeBefore?: Date | undefined;
  readonly revokeAnyway?: Date | undefined;
}

export const directiveKinds = [
  'rotateBefore',
  'revokeBefore',
  'changeBefore',
  'revokeAnyway',
  'deleteSince',
  'targetIsGone',
  'deletedAt',
] as const satisfies readonly (keyof Directives)[];
export type DirectiveKind = (typeof directiveKinds)[number];

/** The parameter that holds one directive of a credential, as an ISO 8601 instant. */
export const directiveParameter = (credential: string, kind: DirectiveKind): string =>
  `${directivesPath}${credential}/${kind}`;

const instant = z.iso.datetime({ offset: true });

type StoredDirective = { readonly parameter: string; readonly document: string };

/**
 * The directives of every credential, by its name. A parameter that is none must be the trouble of its own credential: the names of
 * such parameters stand beside.
 */
export function readDirectives(parameters: readonly StoredDirective[]): {
  readonly directives: ReadonlyMap<string, Directives>;
  readonly wrong: ReadonlyMap<string, readonly string[]>;
} {
  const directives = new Map<string, Directives>();
  const wrong = new Map<string, readonly string[]>();
  for (const { parameter, document } of parameters) {
    const [credential = '', name = '', ...rest] = parameter.slice(directivesPath.length).split('/');
    const kind = directiveKinds.find((known) => known === name);
    const at = instant.safeParse(document);
    if (kind === undefined || rest.length > 0 || !at.success)
      wrong.set(credential, [...(wrong.get(credential) ?? []), parameter]);
    else directives.set(credential, { ...directives.get(credential), [kind]: new Date(at.data) });
  }
  return { directives, wrong };
}

export const wrongDirectives = (parameters: readonly string[]): InputError =>
  new InputError(
    'SPEC_INVALID',
    `${parameters.join(', ')}: expected ${directivesPath}<credential>/<${directiveKinds.join('|')}> with an ISO 8601 instant; correct or delete the parameter, nothing was changed`,
  );

/** When this credential is to be gone: on request or because its time is over; undefined while it is to stay. */
export function endsAt(
  { deleteSince }: Directives,
  { expiresAt }: { readonly expiresAt?: string | undefined },
): { readonly at: Date; readonly reason: 'requested' | 'expired' } | undefined {
  if (deleteSince !== undefined) return { at: deleteSince, reason: 'requested' };
  return expiresAt === undefined ? undefined : { at: new Date(expiresAt), reason: 'expired' };
}

/** Whether a version made at that time counts as leaked. */
export const isRevoked = ({ revokeBefore }: Directives, madeAt: Date): boolean =>
  revokeBefore !== undefined && madeAt < revokeBefore;

/** Whether what was ordered or requested then was meant for the credential of this name that was deleted. */
export const isBuried = ({ deletedAt }: Directives, orderedAt: Date): boolean =>
  deletedAt !== undefined && orderedAt <= deletedAt;
