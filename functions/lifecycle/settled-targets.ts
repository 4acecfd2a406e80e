import * as z from 'zod/mini';
import { type Credential, storedSpec, type Target, targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { secretName } from '../core/names.ts';
import { places } from '../core/notes.ts';
import type { ListedSecret } from '../core/ports.ts';
import { specDocument } from '../core/spec.ts';
import { anything, recallAll, remember } from './notes.ts';
import type { Rekey } from './rekey.ts';

/**
 * Targets on which delete-user has nothing to do until a label moves, a spec or an order changes, or a grace is over. A pass visits only
 * the others: most targets of a fleet cost it nothing but their share of the list of secrets. If a note is lost, its target is visited.
 *
 * Two visits in a row must have found nothing to do: one user list may lack a user that is there, who would stay for hours otherwise.
 */
const place = places.settled;

/** A target is visited after so long in any case. */
const maxSettledMs = 6 * 3_600_000;

const noteSchema = z.object({ state: z.string(), until: z.iso.datetime(), isConfirmed: z.boolean() });

/** The secrets of credentials by name, as they were listed. */
export type ListedSecrets = ReadonlyMap<string, ListedSecret>;

export interface Settled {
  /** The keys of the targets that need no visit. */
  readonly confirmed: ReadonlySet<string>;
  /** Those at which a visit has found nothing to do in this very state: one more finds out whether they are settled. */
  readonly seen: ReadonlySet<string>;
}

export const nothingSettled: Settled = { confirmed: new Set(), seen: new Set() };

/** If the notes cannot be read, only the unwritten ones of this instance count. They stay valid as long as the state is the same. */
export async function settledTargets(
  targets: readonly Target[],
  secrets: ListedSecrets,
  rekey: Rekey,
): Promise<Settled> {
  const now = await rekey.ports.now();
  const { notes } = await recallAll(place, rekey);
  const confirmed = new Set<string>();
  const seen = new Set<string>();
  for (const target of targets) {
    const key = keyOf(target);
    const noted = noteSchema.safeParse(jsonOf(notes.get(key)?.document ?? '')).data;
    if (noted === undefined || noted.state !== stateOf(target, secrets, rekey)) continue;
    seen.add(key);
    if (noted.isConfirmed && new Date(noted.until) > now) confirmed.add(key);
  }
  return { confirmed, seen };
}

/**
 * Afterwards it is noted that nothing is to be done on the target before `until`, as long as it is in the state that `secrets` shows. That
 * list may lag behind, so a change which the visit has seen and the list has not brings one more visit.
 */
export async function noteSettled(
  target: Target,
  until: Date | undefined,
  { secrets, before }: { readonly secrets: ListedSecrets; readonly before: Settled },
  rekey: Rekey,
): Promise<void> {
  const state = stateOf(target, secrets, rekey);
  if (state === undefined) return;
  // When its time is over, a credential is deleted, although nothing of it changes.
  const ends = target.credentials.flatMap(({ spec }) =>
    spec.expiresAt === undefined ? [] : [new Date(spec.expiresAt).getTime()],
  );
  const latest = (await rekey.ports.now()).getTime() + maxSettledMs;
  const settledUntil = new Date(Math.min(latest, until?.getTime() ?? latest, ...ends));
  const isConfirmed = before.seen.has(keyOf(target));
  const document = JSON.stringify({ state, until: settledUntil.toISOString(), isConfirmed });
  // Kept beyond `until`, so that one visit then is enough.
  await remember({ place, key: keyOf(target) }, document, anything, rekey, 2 * maxSettledMs);
}

/** A digest of all that decides about the target's users. Undefined where that is not all, so that the target is never settled. */
function stateOf(target: Target, secrets: ListedSecrets, { sha256 }: Rekey): string | undefined {
  // A revoked password may be set again at the vendor, which no label shows.
  if (target.credentials.some(({ directives }) => directives.revokeBefore !== undefined)) return undefined;
  const states = target.credentials.map((credential) => memberState(credential, secrets));
  return states.includes(undefined)
    ? undefined
    : Buffer.from(sha256(JSON.stringify(states))).toString('base64url');
}

function memberState(credential: Credential, secrets: ListedSecrets): string | undefined {
  const secret = secrets.get(secretName(credential.name));
  if (secret === undefined) return undefined;
  const { arn, labelsByVersion, rotationEnabled, changedAt, lastRotatedAt, deletedAt } = secret;
  const labels = [...labelsByVersion].map(([version, held]) => [version, [...held].toSorted()]).toSorted();
  return JSON.stringify([
    credential.name,
    specDocument(storedSpec(credential)),
    specDocument(credential.spec),
    credential.directives,
    [arn, labels, rotationEnabled, changedAt, lastRotatedAt, deletedAt],
  ]);
}

const keyOf = ({ provider, targetId }: Target): string => targetKey(provider, targetId);
