import { type Candidate, openVersionOf, type PlannedRotation } from './due.ts';
import { type Credential, targetKey } from './fleet.ts';
import type { ListedSecret, SecretDescription, VersionListing } from './ports.ts';
import { holderOf } from './rotation.ts';

/**
 * What a list of secrets tells of a credential, 100 a page, is enough to see that nothing is to be done about it. Of the others each
 * secret is described and its versions are listed. So a pass costs pages, and calls only for the credentials that are due.
 */

/**
 * The credential as the list of secrets shows it. Its versions are the ones that have labels, with dates in place of their own: that of
 * the last rotation for AWSCURRENT, that of the last change for AWSPENDING.
 */
export function listedCandidate(credential: Credential, listed: ListedSecret | undefined): Candidate {
  if (listed === undefined) return { ...credential, secret: 'absent', versions: [] };
  const { isManaged: _, ...secret } = listed;
  const made = secret.createdAt ?? new Date(0);
  const dateOf = (labels: ReadonlySet<string>): Date => {
    if (labels.has('AWSCURRENT')) return secret.lastRotatedAt ?? made;
    return labels.has('AWSPENDING') ? (secret.changedAt ?? made) : made;
  };
  const versions = [...secret.labelsByVersion].map(
    ([versionId, labels]): VersionListing => ({ versionId, labels, createdAt: dateOf(labels) }),
  );
  return { ...credential, secret, versions };
}

/** Why a listed credential is held where nothing but an odd state could change that. */
const quiet: ReadonlySet<string> = new Set([
  'BLACKED_OUT',
  'ENDING',
  'GRACE_RUNNING',
  'NOT_DUE',
  'OUTSIDE_WINDOW',
  'PAUSED',
  'ROTATION_DISABLED',
]);

/**
 * The names of the credentials whose secrets must be described before anything is decided, in the order of the plan. `plan` is made of
 * listed candidates.
 */
export function namesToRead(plan: readonly PlannedRotation[]): ReadonlySet<string> {
  const isToRead = ({ verdict, candidate }: PlannedRotation): boolean =>
    verdict.say !== 'hold' || !quiet.has(verdict.reason) || isOdd(candidate);
  const toRead = plan.filter(isToRead);
  const names = new Set(toRead.map(({ candidate }) => candidate.name));
  const targets = new Set(toRead.map(targetOf));
  // Failed rotations of a neighbour may have opened the breaker of the target. They show as a change after the last rotation.
  return new Set(
    plan
      .filter(
        (rotation) =>
          names.has(rotation.candidate.name) ||
          (targets.has(targetOf(rotation)) && hasChanged(rotation.candidate)),
      )
      .map(({ candidate }) => candidate.name),
  );
}

const targetOf = ({ candidate: { spec } }: PlannedRotation): string =>
  targetKey(spec.provider, spec.targetId);

/**
 * A rotation is open, no version is current, or an order stands: only the date of the version that is current tells whether it is carried
 * out. Secrets Manager may publish a version days after it was made, and people may move AWSCURRENT back to one that was revoked. Orders
 * that are carried out are taken away, so few stand for long.
 */
function isOdd(candidate: Candidate): boolean {
  const { secret, directives } = candidate;
  if (typeof secret === 'string') return true;
  if (openVersionOf(candidate) !== undefined) return true;
  if (holderOf(secret.labelsByVersion, 'AWSCURRENT') === undefined) return true;
  const { rotateBefore, revokeBefore, changeBefore } = directives;
  return [rotateBefore, revokeBefore, changeBefore].some((order) => order !== undefined);
}

/** Moves of labels right after a switch belong to the rotation. */
const switchTakesMs = 15 * 60_000;

/** Whether the secret has changed since its last rotation, as failed rotations change it. */
export function hasChanged({
  secret,
}: {
  readonly secret: SecretDescription | 'absent' | 'unreadable';
}): boolean {
  if (typeof secret === 'string') return true;
  const { changedAt, lastRotatedAt } = secret;
  if (changedAt === undefined || lastRotatedAt === undefined) return true;
  return changedAt.getTime() - lastRotatedAt.getTime() > switchTakesMs;
}
