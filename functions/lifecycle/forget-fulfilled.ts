import type { DirectiveKind } from '../core/directives.ts';
import { isFormer } from '../core/fleet.ts';
import type { CredentialState, KnownUser } from '../core/generations.ts';
import { places } from '../core/notes.ts';
import { holderOf, openVersion } from '../core/rotation.ts';
import { forget } from './notes.ts';
import { withdrawDirective } from './orders.ts';
import { isolateFailure, type Scene } from './retire-users.ts';

/**
 * Afterwards no order stands that is carried out: each would be read in every pass, and Parameter Store holds few. Whoever sends such an
 * order again finds the same versions, so it is kept once more and changes nothing. `finished` names the credentials whose revocation
 * left no session, as finishRevocations answers it.
 */
export async function forgetFulfilled(
  states: readonly CredentialState[],
  known: readonly KnownUser[],
  finished: ReadonlySet<string>,
  scene: Scene,
): Promise<void> {
  if (scene.dryRun) return;
  for (const state of states) {
    const kinds = fulfilled(state, known, finished, scene.now);
    await isolateFailure(state, 'an order that is carried out could not be taken away', scene, async () => {
      for (const kind of kinds) {
        const at = state.directives[kind];
        if (at !== undefined)
          await withdrawDirective(
            // `revokeAnyway` belongs to an order to revoke. If the listing is stale, it may show this part only.
            {
              credential: state.name,
              kind,
              at,
              ...(kind === 'revokeAnyway' ? { unless: 'revokeBefore' } : {}),
            },
            scene.rekey.ports,
          );
      }
      if (kinds.includes('revokeBefore') && finished.has(state.name))
        await forget({ place: places.revocations, key: state.name }, scene.rekey);
    });
  }
}

/** In the order in which they may go: what is left if the function dies in between orders nothing by itself. */
function fulfilled(
  state: CredentialState,
  known: readonly KnownUser[],
  finished: ReadonlySet<string>,
  now: Date,
): readonly DirectiveKind[] {
  const { secret, versions, directives } = state;
  const current = holderOf(secret.labelsByVersion, 'AWSCURRENT');
  const madeAt = versions.find(({ versionId }) => versionId === current)?.createdAt;
  // At a former target only some of its users are seen. While a rotation is open, an order may be the reason to give it up.
  if (madeAt === undefined || isFormer(state) || openVersion(secret, versions) !== undefined) return [];
  const isOver = (at: Date | undefined): boolean => at !== undefined && madeAt > at;
  const { revokeBefore } = directives;
  return [
    ...(['rotateBefore', 'changeBefore'] as const).filter((kind) => isOver(directives[kind])),
    ...(revokeBefore === undefined ||
    (finished.has(state.name) && isRevocationOver(state, revokeBefore, known, now))
      ? (['revokeBefore', 'revokeAnyway'] as const)
      : []),
  ];
}

/**
 * Vendors keep backups for about so long. If somebody restores one, revoked users are back with their passwords: without the order, one that
 * an intruder is connected as would stay.
 */
const backupsMs = 35 * 86_400_000;

/**
 * Apart from sessions, nothing revoked is left: no user, and no version that could become current again. Where users stay and only
 * their passwords change, or an adopted user stays, this holds only once Secrets Manager has dropped every revoked version: a password that
 * is written back from such a version would be revived.
 */
function isRevocationOver(
  { name, spec, secret, versions, moved }: CredentialState,
  revokeBefore: Date,
  known: readonly KnownUser[],
  now: Date,
): boolean {
  // Users of a former target are not in `known`: without the order, a revoked one would be retired like any other, with a grace.
  if (moved !== undefined && moved.former.length > 0) return false;
  const revoked = versions.filter(({ createdAt }) => createdAt < revokeBefore);
  if (revoked.length === 0) return true;
  if (now.getTime() - revokeBefore.getTime() < backupsMs) return false;
  if (spec.strategy !== 'replace-user' || spec.adopt !== undefined) return false;
  const revokedIds = new Set(revoked.map(({ versionId }) => versionId));
  const isLabelled = [...secret.labelsByVersion].some(
    ([versionId, labels]) => labels.size > 0 && revokedIds.has(versionId),
  );
  const isLeft = known.some(
    ({ standing }) =>
      'credential' in standing &&
      standing.credential?.name === name &&
      !(standing.is === 'current' || standing.is === 'pending'),
  );
  return !isLabelled && !isLeft;
}
