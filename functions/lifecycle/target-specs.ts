import { StoreError } from '../core/errors.ts';
import { targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { specParameterName, specParameterPath } from '../core/names.ts';
import type { ListedParameter } from '../core/ports.ts';
import { readSpecs, targetKeyIn } from './fleet.ts';
import { knownBefore, readMemberNote } from './members.ts';
import type { Rekey } from './rekey.ts';

/**
 * The specs that may be of a target, each read again by its name: what a guard asks before a user is deleted. Every spec is among them
 * that was stored before `storedBefore`, or at any time by create-user.
 *
 * Costs a few calls, whatever the size of the fleet, if a pass has noted the fleet since `storedBefore`. Otherwise, or if a spec of the
 * fleet that cannot be read may be of the target, all specs are listed once to learn the names. While the table of notes does not
 * answer, they are listed each time, as an entry of create-user would be missed.
 *
 * A spec that a deployment or a person stores after `storedBefore` is missed until the next pass of start-rotations, and so is one that is
 * edited then so that it names this target, or can no longer be read. A user that it adopts may be gone by then: create-user tries the
 * login before it changes anything, and says so.
 */
export type TargetSpecs = (storedBefore: Date) => Promise<readonly ListedParameter[]>;

export function targetSpecs(
  target: { readonly provider: string; readonly targetId: string },
  rekey: Rekey,
): TargetSpecs {
  const { ports } = rekey;
  const key = targetKey(target.provider, target.targetId);
  let notedBefore: Date | undefined;
  let listed: { readonly at: Date; readonly names: readonly string[] } | undefined;

  /** What the table says; `isEnough` if nothing needs to be listed beside it. */
  async function readNotes(storedBefore: Date): Promise<{ names: readonly string[]; isEnough: boolean }> {
    // First: a pass that writes both in between would vouch for the note before it.
    if (!isSince(notedBefore, storedBefore)) notedBefore = await knownBefore(rekey);
    const note = await readMemberNote(target, rekey);
    if (note === undefined || note.isPartial || note.hasBrokenSpecs)
      return { names: note?.credentials ?? [], isEnough: false };
    return { names: note.credentials, isEnough: isSince(notedBefore, storedBefore) };
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

  return async (storedBefore) => {
    const noted = await readNotes(storedBefore).catch((error: unknown) => {
      if (!(error instanceof StoreError)) throw error;
      return 'unreadable' as const;
    });
    const names = new Set(noted === 'unreadable' ? [] : noted.names);
    if (noted === 'unreadable' || !noted.isEnough) {
      const known = noted !== 'unreadable' && isSince(listed?.at, storedBefore) ? listed : undefined;
      for (const name of known?.names ?? (await listNames())) names.add(name);
    }
    const specs = await readSpecs([...names].map(specParameterName), rekey);
    return [...specs].map(([parameter, document]) => ({ parameter, document }));
  };
}

const isSince = (at: Date | undefined, before: Date): boolean => at !== undefined && at >= before;
