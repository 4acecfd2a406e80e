import * as z from 'zod/mini';
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
import type { Note } from '../core/ports.ts';
import { type BrokenSpec, type Fleet, mayHaveBrokenSpecs, readFleet, readFleetOf } from './fleet.ts';
import { everyTarget, readFormerTargets } from './former-targets.ts';
import { maxCharacters } from './notes.ts';
import type { Rekey } from './rekey.ts';

/**
 * Which credentials each target has. Passes that read the whole fleet note it, so that an event about one credential or one target, and
 * the guard of a deletion, cost a few calls, whatever the size of the fleet. If a note is missing, or cannot be read, the fleet is read
 * instead.
 *
 * If a note lacks a credential, the guard of a deletion may let a user go that this credential adopts. Therefore:
 * - create-user notes a credential before it stores the spec. For at least half an hour, no pass takes that entry away, even if it does
 *   not find the spec: its reading may be older than the spec, or lag behind.
 * - A pass lists the notes before it reads the fleet, and replaces only the revisions that it has listed.
 * - If a target has no note, create-user writes a partial one, so that a pass which began before does not write a note without the entry.
 * - A spec that a deployment or a person stores is noted by the next pass. Passes note the instant until which the notes are complete;
 *   a guard that needs a later one lists them: see target-specs.ts.
 */

/** One note a target, by its key. */
const place = places.members;
/** Holds the instant before which every stored spec is noted. It cannot clash with a target's key, which contains a slash. */
const fleetKey = 'fleet';

const keepMs = 7 * 86_400_000;
/**
 * Half of it must exceed what create-user takes from its note to the spec (two minutes), and what a pass takes from its reading of the
 * fleet to its notes (fifteen).
 */
const keepAddedMs = 3_600_000;
/** Subtracted from the time of the reading: listings lag and clocks differ. */
const lagMs = 60_000;
/** Saves writes when passes follow each other closely. */
const minStampAgeMs = 240_000;

interface Place {
  readonly provider: string;
  readonly targetId: string;
}

/** As it is stored. */
interface NotedTarget extends Members {
  /** Credentials that create-user has noted lately, and when. */
  readonly added?: Readonly<Record<string, string>> | undefined;
  /** No pass has noted the target yet: it may have other credentials. */
  readonly isPartial?: true | undefined;
}

const noteSchema = () =>
  z.extend(membersSchema(), {
    added: z.optional(z.record(z.string(), z.iso.datetime())),
    isPartial: z.optional(z.literal(true)),
  });

/** Undefined where it cannot be read. */
const notedIn = (document: string): NotedTarget | undefined => noteSchema().safeParse(jsonOf(document)).data;

const fleetNoteSchema = () => z.object({ completeUntil: z.iso.datetime() });

const completeUntilIn = (document: string): Date | undefined => {
  const { data } = fleetNoteSchema().safeParse(jsonOf(document));
  return data === undefined ? undefined : new Date(data.completeUntil);
};

/** Those of the entries that no pass may take away yet. */
const youngIn = (added: NotedTarget['added'], now: Date): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(added ?? {}).filter(([, at]) => now.getTime() - Date.parse(at) < keepAddedMs),
  );

export const membersOf = (
  { provider, targetId, credentials }: Target,
  broken: readonly BrokenSpec[],
): Members => ({
  credentials: credentials.map(({ name }) => name),
  hasBrokenSpecs: mayHaveBrokenSpecs(broken, targetKey(provider, targetId)),
});

/** The notes as they were before the fleet was read. */
export interface NotesBefore {
  readonly at: Date;
  readonly notes: ReadonlyMap<string, Note>;
}

/** Call it before reading the fleet that you pass to `noteMembers`. */
export async function listMemberNotes({
  ports,
  log,
}: Pick<Rekey, 'ports' | 'log'>): Promise<NotesBefore | 'unreadable'> {
  const at = await ports.now();
  try {
    return { at, notes: new Map((await ports.listNotes({ place })).map((note) => [note.key, note])) };
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', 'the notes of credentials could not be listed; this pass does not note them', {
      code: error.code,
    });
    return 'unreadable';
  }
}

/**
 * Afterwards the credentials of every target are noted, and nothing of targets that have none any more. Writes only what has changed or
 * is about to expire. A note that cannot be written costs a reading of the fleet later, and keeps nothing from happening.
 */
export async function noteMembers(
  { credentials, broken }: Fleet,
  before: NotesBefore | 'unreadable' | undefined,
  rekey: Rekey,
): Promise<void> {
  if (before === undefined || before === 'unreadable') return;
  const { ports, log } = rekey;
  try {
    const former = await readFormerTargets(rekey);
    // Without them a note would leave out the credentials that still have users on a target they have moved away from.
    if (former === 'unreadable') return;
    const found = new Map(
      targetsOf(placed(credentials, former)).map((target) => [
        targetKey(target.provider, target.targetId),
        membersOf(target, broken).credentials,
      ]),
    );
    const now = await ports.now();
    let areAllNoted = true;
    for (const key of new Set([...found.keys(), ...before.notes.keys()])) {
      if (key === fleetKey) continue;
      const noted = before.notes.get(key);
      const young = youngIn(noted && notedIn(noted.document)?.added, now);
      const names = [...new Set([...(found.get(key) ?? []), ...Object.keys(young)])].toSorted();
      const members: NotedTarget = {
        credentials: names,
        hasBrokenSpecs: mayHaveBrokenSpecs(broken, key),
        ...(Object.keys(young).length === 0 ? {} : { added: young }),
      };
      if ((await replaceNote(key, members, noted, now, rekey)) === 'conflict') areAllNoted = false;
    }
    // If a note was replaced meanwhile, it may come from an older reading.
    if (areAllNoted) await noteFleet(before, now, rekey);
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', 'the credentials of the targets could not be noted; events cost more until they are', {
      code: error.code,
    });
  }
}

/** Changes nothing that was written since `noted` was listed. */
async function replaceNote(
  key: string,
  members: NotedTarget,
  noted: Note | undefined,
  now: Date,
  { ports }: Rekey,
): Promise<'done' | 'conflict'> {
  const document = JSON.stringify(members);
  // Of a target with more credentials than a note holds, events read the fleet.
  if (members.credentials.length === 0 || document.length > maxCharacters) {
    if (noted === undefined) return 'done';
    const outcome = await ports.deleteNote({ place, key, ifRevision: noted.revision });
    return outcome === 'conflict' ? 'conflict' : 'done';
  }
  const isKept = noted !== undefined && noted.expiresAt.getTime() - now.getTime() > keepMs / 2;
  if (isKept && noted.document === document) return 'done';
  const expiresAt = new Date(now.getTime() + keepMs);
  const ifRevision = noted?.revision ?? 'absent';
  const written = await ports.writeNote({ place, key, document, expiresAt, ifRevision });
  return written === 'written' ? 'done' : 'conflict';
}

async function noteFleet({ at, notes }: NotesBefore, now: Date, { ports }: Rekey): Promise<void> {
  const completeUntil = new Date(at.getTime() - lagMs);
  const noted = completeUntilIn(notes.get(fleetKey)?.document ?? '');
  if (noted !== undefined && completeUntil.getTime() - noted.getTime() < minStampAgeMs) return;
  const document = JSON.stringify({ completeUntil: completeUntil.toISOString() });
  await ports.writeNote({ place, key: fleetKey, document, expiresAt: new Date(now.getTime() + keepMs) });
}

const maxTries = 5;

/**
 * Afterwards the credential is noted among those of its target, and no pass takes it away for at least half an hour. To be called
 * before its spec is stored. Throws StoreError where that is not so.
 */
export async function addMember(
  { name, provider, targetId }: Place & { readonly name: string },
  { ports }: Pick<Rekey, 'ports'>,
): Promise<void> {
  const key = targetKey(provider, targetId);
  for (let tries = 0; tries < maxTries; tries += 1) {
    const note = await ports.readNote({ place, key });
    const now = await ports.now();
    const noted = note === 'absent' ? undefined : notedIn(note.document);
    const young = youngIn(noted?.added, now);
    const addedAt = young[name];
    if (addedAt !== undefined && now.getTime() - Date.parse(addedAt) < keepAddedMs / 2) return;
    const added = { ...young, [name]: now.toISOString() };
    const partial: NotedTarget = {
      credentials: Object.keys(added).toSorted(),
      hasBrokenSpecs: false,
      added,
      isPartial: true,
    };
    const whole = noted && {
      ...noted,
      credentials: [...new Set([...noted.credentials, name])].toSorted(),
      added,
    };
    const document = JSON.stringify(whole ?? partial);
    const written = await ports.writeNote({
      place,
      key,
      document: document.length > maxCharacters ? JSON.stringify(partial) : document,
      expiresAt: laterOf(
        new Date(now.getTime() + (note === 'absent' ? keepMs : 2 * keepAddedMs)),
        note === 'absent' ? now : note.expiresAt,
      ),
      ifRevision: note === 'absent' ? note : note.revision,
    });
    if (written === 'written') return;
  }
  throw new StoreError(
    'STORE_UNAVAILABLE',
    'none',
    `the note of ${name} at ${key} was changed by another writer ${maxTries} times in a row; send the request again`,
  );
}

const laterOf = (one: Date, other: Date): Date => (one > other ? one : other);

/** The note as it is stored; undefined where there is none that can be read. Throws StoreError where the table does not answer. */
export async function readMemberNote(
  { provider, targetId }: Place,
  { ports }: Pick<Rekey, 'ports'>,
): Promise<NotedTarget | undefined> {
  const note = await ports.readNote({ place, key: targetKey(provider, targetId) });
  return note === 'absent' ? undefined : notedIn(note.document);
}

/** Every spec that was stored before then is noted, as long as its target has a note. Undefined where no pass has said so. */
export async function readCompleteUntil({ ports }: Pick<Rekey, 'ports'>): Promise<Date | undefined> {
  const note = await ports.readNote({ place, key: fleetKey });
  return note === 'absent' ? undefined : completeUntilIn(note.document);
}

/** Undefined where no pass has noted the target, which may be none of ours. Throws StoreError where that cannot be told. */
export async function notedMembers(target: Place, rekey: Pick<Rekey, 'ports'>): Promise<Members | undefined> {
  const noted = await readMemberNote(target, rekey);
  return noted === undefined || noted.isPartial
    ? undefined
    : { credentials: noted.credentials, hasBrokenSpecs: noted.hasBrokenSpecs };
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
