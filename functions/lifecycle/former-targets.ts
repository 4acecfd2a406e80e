import * as z from 'zod/mini';
import {
  type Credential,
  type FormerTarget,
  placed,
  type Target,
  targetKey,
  targetsOf,
} from '../core/fleet.ts';
import type { CredentialVersions } from '../core/generations.ts';
import { jsonOf } from '../core/json.ts';
import { places } from '../core/notes.ts';
import type { VersionListing } from '../core/ports.ts';
import { forgetGoneTargets } from './gone-targets.ts';
import { forget, maxCharacters, type NoteContext, recall, recallAll, remember } from './notes.ts';
import type { Rekey } from './rekey.ts';
import { readElsewhere, readVersions } from './target.ts';
import type { Address } from './unwritten.ts';

/**
 * A credential never moves: if its spec names another target, its logins stay at the old one. Only the secret's values name that
 * target, and reading all of them in every pass is too expensive. So each function that reads such a value records the target, and
 * every pass then covers it. If a record is lost, the next read restores it.
 */

const noteSchema = z.record(
  z.string(),
  z.object({
    database: z.string(),
    versionId: z.string(),
    username: z.string(),
    labels: z.array(z.string()),
    isAdopted: z.boolean(),
  }),
);

const addressOf = (credential: string): Address => ({ place: places.formerTargets, key: credential });

/** By credential. */
export async function readFormerTargets(
  rekey: NoteContext,
): Promise<ReadonlyMap<string, readonly FormerTarget[]> | 'unreadable'> {
  const { notes, isWhole } = await recallAll(places.formerTargets, rekey);
  if (!isWhole) return 'unreadable';
  return new Map([...notes].map(([name, { document }]) => [name, formerTargetsIn(document)]));
}

/** An unreadable document counts as none. */
const formerTargetsIn = (document: string): readonly FormerTarget[] =>
  Object.entries(noteSchema.safeParse(jsonOf(document)).data ?? {}).map(([key, note]) => {
    const [provider = '', targetId = ''] = key.split('/');
    return { provider, targetId, ...note };
  });

const documentOf = (former: readonly FormerTarget[]): string =>
  JSON.stringify(
    Object.fromEntries(
      former
        .map(({ provider, targetId, ...note }) => [targetKey(provider, targetId), note] as const)
        .toSorted(([one], [other]) => (one < other ? -1 : 1)),
    ),
  );

/** Afterwards nothing is noted of the credential's targets. */
export async function forgetTargets(name: string, rekey: NoteContext): Promise<void> {
  await forget(addressOf(name), rekey);
  await forgetGoneTargets(name, rekey);
}

/**
 * Every target that has to be looked after: those of the specs, and those that versions of their secrets still name. Where the latter
 * cannot be read, they wait for the next pass, and the others do not.
 */
export async function everyTarget(
  credentials: readonly Credential[],
  rekey: NoteContext,
): Promise<readonly Target[]> {
  const former = await readFormerTargets(rekey);
  return targetsOf(placed(credentials, former === 'unreadable' ? new Map() : former));
}

const keyOf = ({ provider, targetId }: FormerTarget): string => targetKey(provider, targetId);

/** Each target once: with the youngest of its versions, and all of their labels. */
export function onceEach(
  found: readonly FormerTarget[],
  versions: readonly Pick<VersionListing, 'versionId'>[],
): readonly FormerTarget[] {
  const age = new Map(versions.map(({ versionId }, index) => [versionId, index]));
  const ageOf = ({ versionId }: FormerTarget): number => age.get(versionId) ?? -1;
  return [...Map.groupBy(found, keyOf).values()].flatMap((group): readonly FormerTarget[] => {
    const youngest = group.toSorted((a, b) => ageOf(a) - ageOf(b)).at(-1);
    if (youngest === undefined) return [];
    const labels = [...new Set(group.flatMap((one) => one.labels))].toSorted();
    return [{ ...youngest, labels, isAdopted: group.some(({ isAdopted }) => isAdopted) }];
  });
}

/** Another pass notes what it has found at the same time; three in a row are none that would ever end. */
const maxTries = 3;

/**
 * Afterwards the targets in `elsewhere`, which were just read, are noted, and those that no version names any more are not. Answers
 * all that are known. Asks for nothing where the credential has not moved, and changes no note in a dry run.
 */
export async function keepFormerTargets(
  { name, spec, moved }: Credential,
  elsewhere: readonly FormerTarget[],
  { versions }: Pick<CredentialVersions, 'versions'>,
  rekey: NoteContext,
  { dryRun = false }: { readonly dryRun?: boolean } = {},
): Promise<readonly FormerTarget[]> {
  const before = moved?.former ?? [];
  if (moved === undefined && elsewhere.length === 0) return before;
  const to = targetKey(spec.provider, moved?.to ?? spec.targetId);
  const isListed = (one: FormerTarget): boolean =>
    versions.some(({ versionId }) => versionId === one.versionId);
  const withThose = (noted: readonly FormerTarget[]): readonly FormerTarget[] => {
    // Values never change: as long as the version is there, it names the target, whatever was read now.
    const standing = noted.filter(isListed).map((one) => ({ ...one, labels: [] }));
    return onceEach([...standing, ...elsewhere], versions).filter((one) => keyOf(one) !== to);
  };
  if (dryRun) return withThose(before);
  const address = addressOf(name);
  for (let tries = 1; ; tries += 1) {
    // Read again: what another pass has found since must not be lost.
    const stored = await recall(address, rekey);
    if (stored === 'unreadable') return withThose(before);
    const former = withThose(stored.document === undefined ? [] : formerTargetsIn(stored.document));
    const document = documentOf(former);
    if (former.length === 0) {
      if (stored.document !== undefined) await forget(address, rekey, stored);
      return former;
    }
    if (document.length > maxCharacters) {
      rekey.log('error', 'a credential has more former targets than can be noted', { credential: name });
      return former;
    }
    const outcome = await remember(address, document, stored, rekey);
    if (outcome !== 'conflict' || tries >= maxTries) return former;
  }
}

/**
 * The same after a reading of every version that Secrets Manager still has, labels or not: before a credential is deleted, as nothing
 * can prove its users afterwards. `unknown` where neither the versions nor the notes can be read.
 */
export async function findFormerTargets(
  credential: Credential,
  { dryRun, areNotesKnown }: { readonly dryRun: boolean; readonly areNotesKnown: boolean },
  rekey: Rekey,
): Promise<readonly FormerTarget[] | 'unknown'> {
  const known = await readVersions(credential, rekey);
  // What is scheduled for deletion cannot be read.
  if (known === 'absent' || known.secret.deletedAt !== undefined)
    return areNotesKnown ? (credential.moved?.former ?? []) : 'unknown';
  const elsewhere = await readElsewhere(known, rekey);
  return keepFormerTargets(credential, elsewhere, known, rekey, { dryRun });
}
