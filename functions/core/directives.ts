import { z } from 'zod';
import { InputError } from './errors.ts';
import { directivesPath } from './names.ts';

/**
 * What was ordered for a credential while it runs. Kept beside the spec, one parameter an order, because a deployment writes
 * specs: it would undo a revocation. Each only ever moves one way, so two writers cannot undo each other either.
 */
export interface Directives {
  /** Versions made before this instant are due at once, whatever the window says. */
  readonly rotateBefore?: Date;
  /** The same, and they may be known to somebody: their users have no grace and their connections are ended. */
  readonly revokeBefore?: Date;
  /** The credential is to go since then: users first, then the secret. */
  readonly deleteSince?: Date;
}

export const directiveKinds = ['rotateBefore', 'revokeBefore', 'deleteSince'] as const;
export type DirectiveKind = (typeof directiveKinds)[number];

/** The parameter that holds one directive of a credential, as an ISO 8601 instant. */
export const directiveParameter = (credential: string, kind: DirectiveKind): string =>
  `${directivesPath}${credential}/${kind}`;

const instant = z.iso.datetime({ offset: true });

/** The directives of every credential, by its name. Throws SPEC_INVALID that names each parameter that is none. */
export function directivesByCredential(
  parameters: readonly { readonly parameter: string; readonly document: string }[],
): ReadonlyMap<string, Directives> {
  const found = new Map<string, Directives>();
  const wrong: string[] = [];
  for (const { parameter, document } of parameters) {
    const [credential = '', name = '', ...rest] = parameter.slice(directivesPath.length).split('/');
    const kind = directiveKinds.find((known) => known === name);
    const at = instant.safeParse(document);
    if (kind === undefined || rest.length > 0 || !at.success) wrong.push(parameter);
    else found.set(credential, { ...found.get(credential), [kind]: new Date(at.data) });
  }
  if (wrong.length > 0)
    throw new InputError(
      'SPEC_INVALID',
      `${wrong.join(', ')}: expected ${directivesPath}<credential>/<${directiveKinds.join('|')}> with an ISO 8601 instant; correct or delete the parameter, nothing was changed`,
    );
  return found;
}

/** When this credential is to be gone: on request or because its time is over; undefined while it is to stay. */
export function endsAt(
  { deleteSince }: Directives,
  { expiresAt }: { readonly expiresAt?: string | undefined },
): { readonly at: Date; readonly reason: 'requested' | 'expired' } | undefined {
  if (deleteSince !== undefined) return { at: deleteSince, reason: 'requested' };
  return expiresAt === undefined ? undefined : { at: new Date(expiresAt), reason: 'expired' };
}

/** Whether a version made then may be known to somebody who must not know it. */
export const isRevoked = ({ revokeBefore }: Directives, madeAt: Date): boolean =>
  revokeBefore !== undefined && madeAt < revokeBefore;
