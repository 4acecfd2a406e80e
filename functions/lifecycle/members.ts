import { StoreError } from '../core/errors.ts';
import {
  type Credential,
  type Members,
  membersSchema,
  placed,
  type Target,
  targetKey,
  targetsOf,
} from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { places } from '../core/notes.ts';
import { type BrokenSpec, type Fleet, mayHaveBrokenSpecs, readFleet, readFleetOf } from './fleet.ts';
import { everyTarget, readFormerTargets } from './former-targets.ts';
import { maxCharacters } from './notes.ts';
import type { Rekey } from './rekey.ts';

/**
 * Which credentials each target has. Passes that read the whole fleet note it, so that an event about one credential or one target costs
 * a few calls, whatever the size of the fleet. If a note is missing, or cannot be read, the fleet is
 * read instead.
 */

/** One note a target, by its key. */
const place = places.members;

const keepMs = 7 * 86_400_000;

interface Place {
  readonly provider: string;
  readonly targetId: string;
}

export const membersOf = (
  { provider, targetId, credentials }: Target,
  broken: readonly BrokenSpec[],
): Members => ({
  credentials: credentials.map(({ name }) => name),
  hasBrokenSpecs: mayHaveBrokenSpecs(broken, targetKey(provider, targetId)),
});

/**
 * Afterwards the credentials of every target are noted, and nothing of targets that have none any more. Writes only what has changed or
 * is about to expire. A note that cannot be written costs a reading of the fleet later, and keeps nothing from happening.
 */
export async function noteMembers({ credentials, broken }: Fleet, rekey: Rekey): Promise<void> {
  const { ports, log } = rekey;
  try {
    const former = await readFormerTargets(rekey);
    // Without them a note would leave out the credentials that still have users on a target they have moved away from.
    if (former === 'unreadable') return;
    const targets = targetsOf(placed(credentials, former));
    const now = await ports.now();
    const noted = new Map((await ports.listNotes({ place })).map((note) => [note.key, note]));
    for (const target of targets) {
      const key = targetKey(target.provider, target.targetId);
      const document = JSON.stringify(membersOf(target, broken));
      const before = noted.get(key);
      noted.delete(key);
      const isKept = before !== undefined && before.expiresAt.getTime() - now.getTime() > keepMs / 2;
      // Of a target with more credentials than a note holds, events read the fleet.
      if ((isKept && before.document === document) || document.length > maxCharacters) continue;
      // What was noted since the list was read is younger than the fleet that was read.
      const ifRevision = before?.revision ?? 'absent';
      const expiresAt = new Date(now.getTime() + keepMs);
      await ports.writeNote({ place, key, document, expiresAt, ifRevision });
    }
    for (const key of noted.keys()) await ports.deleteNote({ place, key });
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', 'the credentials of the targets could not be noted; events cost more until they are', {
      code: error.code,
    });
  }
}

const maxTries = 3;

/**
 * Afterwards the credential is noted among those of its target, if any are: a target without a note is looked up in the fleet. The next
 * pass of start-rotations mends what could not be noted.
 */
export async function addMember(
  { name, provider, targetId }: Place & { readonly name: string },
  { ports, log }: Pick<Rekey, 'ports' | 'log'>,
): Promise<void> {
  const key = targetKey(provider, targetId);
  try {
    for (let tries = 0; tries < maxTries; tries += 1) {
      const note = await ports.readNote({ place, key });
      if (note === 'absent') return;
      const noted = membersSchema().safeParse(jsonOf(note.document)).data;
      if (noted === undefined || noted.credentials.includes(name)) return;
      const credentials = [...noted.credentials, name].toSorted();
      const document = JSON.stringify({ ...noted, credentials });
      const { expiresAt, revision } = note;
      const written = await ports.writeNote({ place, key, document, expiresAt, ifRevision: revision });
      if (written === 'written') return;
    }
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', 'a new credential could not be noted at its target', { credential: name, code: error.code });
  }
}

/** Undefined where no pass has noted the target, which may be none of ours. Throws StoreError where that cannot be told. */
export async function notedMembers(
  { provider, targetId }: Place,
  { ports }: Pick<Rekey, 'ports'>,
): Promise<Members | undefined> {
  const note = await ports.readNote({ place, key: targetKey(provider, targetId) });
  return note === 'absent' ? undefined : membersSchema().safeParse(jsonOf(note.document)).data;
}

/** A target with its credentials as they are stored now. */
export interface ReadTarget {
  /** Undefined where no credential is left there. */
  readonly target: Target | undefined;
  readonly hasBrokenSpecs: boolean;
}

/**
 * Reads the specs and orders of one target's credentials. `members` is who they are, if the caller knows; `also` are credentials that
 * may be too young to be noted, and that the caller has read.
 */
export async function readTarget(
  { provider, targetId }: Place,
  { members, also = [] }: { readonly members?: Members | undefined; readonly also?: readonly Credential[] },
  rekey: Rekey,
): Promise<ReadTarget> {
  const known = members ?? (await notedOrUnknown({ provider, targetId }, rekey));
  const read = new Set(also.map(({ name }) => name));
  const others = known?.credentials.filter((name) => !read.has(name));
  const fleet = await (others === undefined ? readFleet(rekey) : readFleetOf(others, rekey));
  const credentials = [...also, ...fleet.credentials.filter(({ name }) => !read.has(name))];
  const found = await targetIn({ ...fleet, credentials }, { provider, targetId }, rekey);
  return { ...found, hasBrokenSpecs: known?.hasBrokenSpecs === true || found.hasBrokenSpecs };
}

/** The target with those of these credentials that have users on it. */
export async function targetIn(
  { credentials, broken }: Fleet,
  { provider, targetId }: Place,
  rekey: Rekey,
): Promise<ReadTarget> {
  const targets = await everyTarget(credentials, rekey);
  return {
    target: targets.find((each) => each.provider === provider && each.targetId === targetId),
    hasBrokenSpecs: mayHaveBrokenSpecs(broken, targetKey(provider, targetId)),
  };
}

async function notedOrUnknown(target: Place, rekey: Rekey): Promise<Members | undefined> {
  try {
    return await notedMembers(target, rekey);
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    rekey.log('warn', 'the credentials of a target could not be looked up; the fleet is read instead', {
      ...target,
      code: error.code,
    });
    return undefined;
  }
}
