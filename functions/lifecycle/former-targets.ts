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
import { formerTargetsParameter, targetsPath } from '../core/names.ts';
import type { ListedParameter, VersionListing } from '../core/ports.ts';
import { mostCharacters } from './announce.ts';
import type { Rekey } from './rekey.ts';
import { readElsewhere, readVersions } from './target.ts';

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

/** By credential, from the parameters below `targetsPath`. An unreadable note counts as none. */
export function formerTargetsIn(
  listed: readonly ListedParameter[],
): ReadonlyMap<string, readonly FormerTarget[]> {
  return new Map(
    listed.flatMap(({ parameter, document }): [string, readonly FormerTarget[]][] => {
      const name = parameter.slice(targetsPath.length).split('/')[0] ?? '';
      if (parameter !== formerTargetsParameter(name)) return [];
      const noted = Object.entries(noteSchema.safeParse(jsonOf(document)).data ?? {});
      return [
        [
          name,
          noted.map(([key, note]) => {
            const [provider = '', targetId = ''] = key.split('/');
            return { provider, targetId, ...note };
          }),
        ],
      ];
    }),
  );
}

const documentOf = (former: readonly FormerTarget[]): string =>
  JSON.stringify(
    Object.fromEntries(
      former
        .map(({ provider, targetId, ...note }) => [targetKey(provider, targetId), note] as const)
        .toSorted(([one], [other]) => (one < other ? -1 : 1)),
    ),
  );

/** Afterwards nothing is noted of the credential's targets. */
export async function forgetTargets(
  name: string,
  { listParameters, deleteParameter }: Pick<Rekey['ports'], 'listParameters' | 'deleteParameter'>,
): Promise<void> {
  // Of all credentials, as IAM judges a listing by its path.
  const listed = await listParameters({ path: targetsPath });
  for (const { parameter } of listed)
    if (parameter.startsWith(`${targetsPath}${name}/`)) await deleteParameter({ parameter });
}

/** Every target that has to be looked after: those of the specs, and those that versions of their secrets still name. */
export async function everyTarget(
  credentials: readonly Credential[],
  { ports }: Pick<Rekey, 'ports'>,
): Promise<readonly Target[]> {
  return targetsOf(placed(credentials, formerTargetsIn(await ports.listParameters({ path: targetsPath }))));
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

/**
 * Afterwards the targets in `elsewhere`, which were just read, are noted, and those that no version names any more are not. Answers
 * all that are known. Asks for nothing where the credential has not moved.
 */
export async function keepFormerTargets(
  { name, spec, moved }: Credential,
  elsewhere: readonly FormerTarget[],
  { versions }: Pick<CredentialVersions, 'versions'>,
  { ports, log }: Rekey,
): Promise<readonly FormerTarget[]> {
  const before = moved?.former ?? [];
  if (moved === undefined && elsewhere.length === 0) return before;
  const to = targetKey(spec.provider, moved?.to ?? spec.targetId);
  const isListed = (one: FormerTarget): boolean =>
    versions.some(({ versionId }) => versionId === one.versionId);
  // Values never change: as long as the version is there, it names the target, whatever was read now.
  const standing = before.filter(isListed).map((one) => ({ ...one, labels: [] }));
  const former = onceEach([...standing, ...elsewhere], versions).filter((one) => keyOf(one) !== to);
  const parameter = formerTargetsParameter(name);
  const document = documentOf(former);
  if (moved !== undefined && document === documentOf(before) && former.length > 0) return former;
  if (former.length === 0) await ports.deleteParameter({ parameter });
  else if (document.length <= mostCharacters) await ports.writeParameter({ parameter, document });
  else log('error', 'a credential has more former targets than can be noted', { credential: name });
  return former;
}

/**
 * The same after a reading of every version that Secrets Manager still has, labels or not: before a credential is deleted, as nothing
 * can prove its users afterwards. Changes no note in a dry run.
 */
export async function findFormerTargets(
  credential: Credential,
  { dryRun }: { readonly dryRun: boolean },
  rekey: Rekey,
): Promise<readonly FormerTarget[]> {
  const known = await readVersions(credential, rekey);
  // What is scheduled for deletion cannot be read.
  if (known === 'absent' || known.secret.deletedAt !== undefined) return credential.moved?.former ?? [];
  const elsewhere = await readElsewhere(known, rekey);
  if (!dryRun) return keepFormerTargets(credential, elsewhere, known, rekey);
  const silent = {
    ...rekey.ports,
    writeParameter: async () => undefined,
    deleteParameter: async () => 'absent' as const,
  };
  return keepFormerTargets(credential, elsewhere, known, { ...rekey, ports: silent });
}
