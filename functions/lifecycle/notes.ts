import { StoreError } from '../core/errors.ts';
import type { Note } from '../core/ports.ts';
import { inParallel } from './in-parallel.ts';
import type { Rekey } from './rekey.ts';
import { type Address, type Revision, Unwritten, type UnwrittenNote } from './unwritten.ts';

/**
 * What passes remember, in the table `rekey`. All of it is best effort: a note that cannot be read or written is logged, and keeps no
 * repair, revocation, deletion, event or metric from happening. Without its notes, a pass publishes again what was published before. One
 * exception: create-user waits for the note of a credential that adopts a user: see members.ts.
 *
 * Every note expires, so that none outlives its subject. Passes renew the notes that they still need long before that.
 *
 * What could not be written, the function instance keeps in mind, and reads it as if it were stored until somebody has written the
 * note. Otherwise, while the table takes no writes, every pass would publish the same again. An instance lives for hours at most; the
 * next one publishes it once more. So does an instance that has too much to keep in mind: see unwritten.ts.
 */

const dayMs = 86_400_000;
/** How long a note is kept that no pass renews. A stack that stands still for longer publishes its findings again. */
const keptMs = 90 * dayMs;
/** A pass renews a note once no more than this is left. */
const renewedMs = 60 * dayMs;

/** An item of DynamoDB holds 400 KB (AWS documentation), its names and keys included. Documents are ASCII. */
export const maxCharacters = 380_000;

/** A note as this instance knows it. `document` is undefined where there is none. */
export interface Recalled {
  readonly document: string | undefined;
  /** Of what is stored. `unknown` where that could not be read. */
  readonly revision: Revision;
  readonly expiresAt: Date;
}

export type NoteContext = Pick<Rekey, 'ports' | 'log' | 'unwritten'>;

/** Overwrites a note whatever its revision. */
export const anything: Recalled = { document: undefined, revision: 'unknown', expiresAt: new Date(0) };

/** `unreadable`: the table did not answer, and this instance knows nothing either. */
export async function recall(address: Address, context: NoteContext): Promise<Recalled | 'unreadable'> {
  const { ports, log, unwritten = new Unwritten() } = context;
  const own = unwritten.get(address);
  try {
    const stored = await ports.readNote(address);
    if (isSuperseded(own, stored)) unwritten.delete(address);
    else if (own !== undefined) return recalledOf(own);
    return stored === 'absent' ? { document: undefined, revision: stored, expiresAt: new Date(0) } : stored;
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { ...address, code: error.code });
    return own === undefined ? 'unreadable' : recalledOf(own);
  }
}

/** The notes of a place that there are, by key. */
export type RecalledNotes = Map<string, Recalled & { readonly document: string }>;

/**
 * Every note of a place; update them with `rememberAll`. If the table did not answer, `isWhole` is false and the notes are only those
 * that this instance keeps in memory.
 */
export async function recallAll(
  place: string,
  context: NoteContext,
): Promise<{ readonly notes: RecalledNotes; readonly isWhole: boolean }> {
  const { ports, log, unwritten = new Unwritten() } = context;
  const notes: RecalledNotes = new Map();
  let isWhole = true;
  try {
    for (const note of await ports.listNotes({ place })) notes.set(note.key, note);
    for (const own of unwritten.in(place))
      if (isSuperseded(own, notes.get(own.key) ?? 'absent')) unwritten.delete(own);
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { place, code: error.code });
    isWhole = false;
  }
  for (const { key, document, over: revision } of unwritten.in(place))
    if (document === undefined) notes.delete(key);
    else notes.set(key, { document, revision, expiresAt: new Date(0) });
  return { notes, isWhole };
}

/**
 * Afterwards the note has this document. If another pass has written the note since `before` was recalled, its document stands
 * (`conflict`). A note that has the document already is only renewed. `failed` if the table refused the write.
 */
export async function remember(
  address: Address,
  document: string,
  before: Recalled,
  context: NoteContext,
  forMs = keptMs,
): Promise<'written' | 'conflict' | 'failed'> {
  const { ports, log, unwritten } = context;
  const now = await ports.now();
  if (isGood(before, document, now, forMs)) return 'written';
  const { revision: over } = before;
  try {
    const outcome = await ports.writeNote({
      ...address,
      document,
      expiresAt: new Date(now.getTime() + forMs),
      ...(over === 'unknown' ? {} : { ifRevision: over }),
    });
    unwritten?.delete(address);
    return outcome;
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { ...address, code: error.code });
    unwritten?.put(address, { document, over });
    return 'failed';
  }
}

/** Afterwards there is no note at this address, whichever pass wrote it. */
export async function forget(
  address: Address,
  context: NoteContext,
  { revision: over }: Pick<Recalled, 'revision'> = { revision: 'unknown' },
): Promise<void> {
  const { ports, log, unwritten } = context;
  try {
    await ports.deleteNote(address);
    unwritten?.delete(address);
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { ...address, code: error.code });
    unwritten?.put(address, { document: undefined, over });
  }
}

const writesAtOnce = 10;

/**
 * Afterwards the place holds `wanted`, by key; the other notes of `before` are deleted. Notes that another pass has added since are left
 * alone. `before` is updated. The first failure ends it, so that a table that does not answer is not asked a thousand times.
 */
export async function rememberAll(
  place: string,
  wanted: ReadonlyMap<string, string>,
  before: RecalledNotes,
  context: NoteContext,
): Promise<void> {
  const { ports, log, unwritten } = context;
  const now = await ports.now();
  const expiresAt = new Date(now.getTime() + keptMs);
  const changes = [
    ...[...wanted].filter(([key, document]) => {
      const note = before.get(key);
      return note === undefined || !isGood(note, document, now, keptMs);
    }),
    ...[...before.keys()].filter((key) => !wanted.has(key)).map((key) => [key, undefined] as const),
  ];
  const left = new Map(changes);
  try {
    await inParallel(changes, writesAtOnce, async ([key, document]) => {
      if (document === undefined) await ports.deleteNote({ place, key });
      else await ports.writeNote({ place, key, document, expiresAt });
      unwritten?.delete({ place, key });
      left.delete(key);
    });
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { place, code: error.code, unwritten: left.size });
    for (const [key, document] of left) {
      const over = unwritten?.get({ place, key })?.over ?? before.get(key)?.revision ?? 'unknown';
      unwritten?.put({ place, key }, { document, over });
    }
  }
  for (const [key, document] of changes)
    if (document === undefined) before.delete(key);
    else before.set(key, { document, revision: before.get(key)?.revision ?? 'unknown', expiresAt });
}

function isGood(before: Recalled, document: string, now: Date, forMs: number): boolean {
  const leftMs = before.expiresAt.getTime() - now.getTime();
  return before.document === document && leftMs > (renewedMs / keptMs) * forMs;
}

/** Whether another instance has written or deleted the note since this instance failed to. */
function isSuperseded(
  own: UnwrittenNote | undefined,
  stored: Pick<Note, 'revision'> | Recalled | 'absent',
): boolean {
  if (own === undefined) return false;
  if (stored === 'absent') return own.document === undefined || typeof own.over === 'number';
  return own.over !== stored.revision;
}

/** Already expired, so that the next `remember` writes it. */
const recalledOf = ({ document, over: revision }: UnwrittenNote): Recalled => ({
  document,
  revision,
  expiresAt: new Date(0),
});
