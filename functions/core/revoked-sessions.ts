import { isRevoked } from './directives.ts';
import { isFormer } from './fleet.ts';
import { type CredentialState, type KnownUser, ownership } from './generations.ts';
import type { DatabaseUser } from './provider.ts';
import { holderOf } from './rotation.ts';
import type { Sha256 } from './username.ts';

/** The sessions to end after a revocation: those that an intruder may have opened with the revoked password. */
export interface RevokedSessions {
  /** They are settled once the sessions of `users` have ended and this is so: no user is left whose password is still the revoked one. */
  readonly areAllPasswordsChanged: boolean;
  readonly users: readonly {
    readonly user: DatabaseUser;
    /** Whoever opened a session from then on had the new password. */
    readonly openedBefore: Date;
  }[];
}

/**
 * The users that outlive their revoked password: of `reset-password`, and of the two of `alternate-users`. A new password ends no
 * session at most vendors. Undefined if nothing was revoked, or until the next login is current.
 *
 * A user that is named after a version which was made since the order never had a revoked password. One that is still revoked is
 * retired, or gets another password: until then it has to be looked at again.
 */
export function revokedSessions(
  state: CredentialState,
  known: readonly KnownUser[],
  sha256: Sha256,
): RevokedSessions | undefined {
  const { secret, versions, directives, spec, name } = state;
  if (directives.revokeBefore === undefined || secret.deletedAt !== undefined || isFormer(state))
    return undefined;
  const madeAt = (versionId: string | undefined): Date | undefined =>
    versions.find((version) => version.versionId === versionId)?.createdAt;
  const currentMadeAt = madeAt(holderOf(secret.labelsByVersion, 'AWSCURRENT'));
  if (currentMadeAt === undefined || isRevoked(directives, currentMadeAt)) return undefined;

  const staying = known.filter(({ user: { username }, standing }) => {
    if (!('credential' in standing) || standing.credential.name !== name) return false;
    const isAdopted = standing.is === 'idle' && spec.adopt?.username === username;
    if (standing.is === 'unversioned' || isAdopted) return false;
    const own = madeAt(ownership(username, state, sha256)?.versionId);
    // Retired for good, with its sessions, in this pass or in a later one.
    const isRetired = standing.is === 'superseded' && standing.isRevoked && own !== undefined;
    return !isRetired && (own === undefined || isRevoked(directives, own));
  });
  // A list that lags behind.
  const { currentUsername } = state;
  if (!known.some(({ user }) => user.username === currentUsername)) return undefined;
  const isUnchanged = ({ standing: { is, ...more } }: KnownUser): boolean =>
    is === 'pending' || ('isRevoked' in more && more.isRevoked);
  return {
    areAllPasswordsChanged: !staying.some(isUnchanged),
    users: staying
      .filter((one) => !isUnchanged(one))
      .map(({ user }) => ({
        user,
        // The rotation that made the current version began after the password of the other user had been set.
        openedBefore: user.username === currentUsername ? switchedAt(state, currentMadeAt) : currentMadeAt,
      })),
  };
}

/**
 * When AWSCURRENT moved, at the latest. Secrets Manager dates the rotations that it has finished itself, and no others: after any
 * other switch only the last change of all is known.
 */
function switchedAt({ secret: { lastRotatedAt, changedAt } }: CredentialState, currentMadeAt: Date): Date {
  if (lastRotatedAt !== undefined && lastRotatedAt >= currentMadeAt) return lastRotatedAt;
  return changedAt !== undefined && changedAt > currentMadeAt ? changedAt : currentMadeAt;
}
