import { StoreError } from '../core/errors.ts';
import { targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { specParameterName, specParameterPath } from '../core/names.ts';
import type { ListedParameter } from '../core/ports.ts';
import { readSpecs, targetKeyIn } from './fleet.ts';
import { readCompleteUntil, readMemberNote } from './members.ts';
import type { Rekey } from './rekey.ts';

/**
 * The specs that may be of a target, each read again by its name: what a guard asks before a user is deleted. They include every
 * spec stored before `neededUntil`, and every spec of create-user whenever it was stored.
 *
 * Costs a few calls, whatever the size of the fleet, if a pass has noted the fleet since `neededUntil`. Otherwise, or if a spec of the
 * fleet that cannot be read may be of the target, all specs are listed once to learn the names. While the table of notes does not
 * answer, they are listed each time, as an entry of create-user would be missed.
 *
 * A spec that a deployment or a person stores after `neededUntil` is missed until the next pass of start-rotations, and so is one that is
 * edited then so that it names this target, or can no longer be read. A user that it adopts may be gone by then: create-user tries the
 * login before it changes anything, and says so.
 */
export type TargetSpecs = (neededUntil: Date) => Promise<readonly ListedParameter[]>;

export function targetSpecs(
  target: { readonly provider: string; readonly targetId: string },
  rekey: Rekey,
): TargetSpecs {
  const { ports } = rekey;
  const key = targetKey(target.provider, target.targetId);
  let completeUntil: Date | undefined;
  let listed: { readonly at: Date; readonly names: readonly string[] } | undefined;

  /** What the table says; `isEnough` if no listing is needed. */
  async function readNotes(neededUntil: Date): Promise<{ names: readonly string[]; isEnough: boolean }> {
    // First: a pass that writes both in between would vouch for the note before it.
    if (!isAtOrAfter(completeUntil, neededUntil)) completeUntil = await readCompleteUntil(rekey);
    const note = await readMemberNote(target, rekey);
    if (note === undefined || note.isPartial || note.hasBrokenSpecs)
      return { names: note?.credentials ?? [], isEnough: false };
    return { names: note.credentials, isEnough: isAtOrAfter(completeUntil, neededUntil) };
  }

  async function listNames(): Promise<readonly string[]> {
    const at = await ports.now();
    const names: string[] = [];
    for (const { parameter, document } of await ports.listParameters({ path: specParameterPath })) {
      const named = await targetKeyIn(jsonOf(document), rekey);
      if (named === undefined || named === key) names.push(parameter.slice(specParameterPath.length));
    }
    listed = { at, names };
    return names;
  }

  return async (neededUntil) => {
    const noted = await readNotes(neededUntil).catch((error: unknown) => {
      if (!(error instanceof StoreError)) throw error;
      return 'unreadable' as const;
    });
    const names = new Set(noted === 'unreadable' ? [] : noted.names);
    if (noted === 'unreadable' || !noted.isEnough) {
      const known = noted !== 'unreadable' && isAtOrAfter(listed?.at, neededUntil) ? listed : undefined;
      for (const name of known?.names ?? (await listNames())) names.add(name);
    }
    const specs = await readSpecs([...names].map(specParameterName), rekey);
    return [...specs].map(([parameter, document]) => ({ parameter, document }));
  };
}

const isAtOrAfter = (at: Date | undefined, needed: Date): boolean => at !== undefined && at >= needed;
