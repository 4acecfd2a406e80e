import { StoreError } from '../core/errors.ts';
import type { Note } from '../core/ports.ts';
import { inParallel } from './in-parallel.ts';
import type { Rekey } from './rekey.ts';

/**
 * What passes remember, in the table `rekey`. All of it is best effort: a note that cannot be read or written is logged, and keeps no
 * repair, revocation, deletion, event or metric from happening. Without its notes, a pass publishes again what was published before. Only
 * a credential that adopts a user is not made before it is noted: see members.ts.
 *
 * Every note expires, so that nothing stays of what is gone; a note of what is still there is written again long before that.
 *
 * What could not be written, the function instance keeps in mind, and reads it as if it were stored until somebody has written the
 * note. Otherwise, while the table takes no writes, every pass would publish the same again. An instance lives for hours at most; the
 * next one publishes it once more.
 */

const dayMs = 86_400_000;
/** How long a note is kept that nobody writes again. A stack that stands still for longer publishes its findings again. */
const keptMs = 90 * dayMs;
/** A note of what is still there is written again once no more than this is left. */
const renewedMs = 60 * dayMs;

/** An item of DynamoDB holds 400 KB (AWS documentation), its names and keys included. Documents are ASCII. */
export const maxCharacters = 380_000;

export interface Address {
  readonly place: string;
  readonly key: string;
}

/** A note as this instance knows it. `document` is undefined where there is none. */
export interface Recalled {
  readonly document: string | undefined;
  /** Of what is stored. `unknown` where that could not be read. */
  readonly revision: Revision;
  readonly expiresAt: Date;
}
type Revision = number | 'absent' | 'unknown';

export type NoteContext = Pick<Rekey, 'ports' | 'log' | 'unwritten'>;

/** What a function instance could not write, by place and key. */
export type Unwritten = Map<string, Map<string, UnwrittenNote>>;
/** `document` is undefined where the note was to be deleted; `over` is the revision that it was to take the place of. */
type UnwrittenNote = { readonly document: string | undefined; readonly over: Revision };

/** For a note that is written whatever is there. */
export const anything: Recalled = { document: undefined, revision: 'unknown', expiresAt: new Date(0) };

/** `unreadable`: the table did not answer, and this instance knows nothing either. */
export async function recall(address: Address, context: NoteContext): Promise<Recalled | 'unreadable'> {
  const { ports, log } = context;
  const kept = keptIn(address.place, context);
  const own = kept.get(address.key);
  try {
    const stored = await ports.readNote(address);
    if (isSuperseded(own, stored)) kept.delete(address.key);
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
 * Every note of a place; to be kept up with `rememberAll`. `isWhole` is false where the table did not answer: then they are no more than
 * what this instance knows by itself.
 */
export async function recallAll(
  place: string,
  context: NoteContext,
): Promise<{ readonly notes: RecalledNotes; readonly isWhole: boolean }> {
  const { ports, log } = context;
  const kept = keptIn(place, context);
  const notes: RecalledNotes = new Map();
  let isWhole = true;
  try {
    for (const note of await ports.listNotes({ place })) notes.set(note.key, note);
    for (const [key, own] of kept) if (isSuperseded(own, notes.get(key) ?? 'absent')) kept.delete(key);
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { place, code: error.code });
    isWhole = false;
  }
  for (const [key, { document, over: revision }] of kept)
    if (document === undefined) notes.delete(key);
    else notes.set(key, { document, revision, expiresAt: new Date(0) });
  return { notes, isWhole };
}

/**
 * Afterwards the note has this document, unless somebody else has written it since `before` was recalled: then theirs stands. A note
 * that has it already is only renewed. `failed` where the table did not take it.
 */
export async function remember(
  address: Address,
  document: string,
  before: Recalled,
  context: NoteContext,
  forMs = keptMs,
): Promise<'written' | 'conflict' | 'failed'> {
  const { ports, log } = context;
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
    keptIn(address.place, context).delete(address.key);
    return outcome;
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { ...address, code: error.code });
    keptIn(address.place, context).set(address.key, { document, over });
    return 'failed';
  }
}

/** Afterwards nothing is noted there, whoever has written it. */
export async function forget(
  address: Address,
  context: NoteContext,
  { revision: over }: Pick<Recalled, 'revision'> = { revision: 'unknown' },
): Promise<void> {
  const { ports, log } = context;
  const kept = keptIn(address.place, context);
  try {
    await ports.deleteNote(address);
    kept.delete(address.key);
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { ...address, code: error.code });
    kept.set(address.key, { document: undefined, over });
  }
}

const writesAtOnce = 10;

/**
 * Afterwards the place holds `wanted`, by key, and nothing of what `before` has beside it. What another pass noted there since is left
 * alone. `before` follows. The first failure ends it, so that a table that does not answer is not asked a thousand times.
 */
export async function rememberAll(
  place: string,
  wanted: ReadonlyMap<string, string>,
  before: RecalledNotes,
  context: NoteContext,
): Promise<void> {
  const { ports, log } = context;
  const kept = keptIn(place, context);
  const now = await ports.now();
  const expiresAt = new Date(now.getTime() + keptMs);
  const changes = [
    ...[...wanted].filter(([key, document]) => {
      const note = before.get(key);
      return note === undefined || !isGood(note, document, now, keptMs);
    }),
    ...[...before.keys()].filter((key) => !wanted.has(key)).map((key) => [key, undefined] as const),
  ];
  // Until the table has taken them.
  for (const [key, document] of changes)
    kept.set(key, { document, over: kept.get(key)?.over ?? before.get(key)?.revision ?? 'unknown' });
  try {
    await inParallel(changes, writesAtOnce, async ([key, document]) => {
      if (document === undefined) await ports.deleteNote({ place, key });
      else await ports.writeNote({ place, key, document, expiresAt });
      kept.delete(key);
    });
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', error.message, { place, code: error.code, unwritten: kept.size });
  }
  for (const [key, document] of changes)
    if (document === undefined) before.delete(key);
    else before.set(key, { document, revision: before.get(key)?.revision ?? 'unknown', expiresAt });
}

function isGood(before: Recalled, document: string, now: Date, forMs: number): boolean {
  const leftMs = before.expiresAt.getTime() - now.getTime();
  return before.document === document && leftMs > (renewedMs / keptMs) * forMs;
}

function keptIn(place: string, { unwritten = new Map() }: NoteContext): Map<string, UnwrittenNote> {
  const kept = unwritten.get(place) ?? new Map<string, UnwrittenNote>();
  unwritten.set(place, kept);
  return kept;
}

/** Whether somebody has written the note since this instance could not, or has deleted what it could not delete. */
function isSuperseded(
  own: UnwrittenNote | undefined,
  stored: Pick<Note, 'revision'> | Recalled | 'absent',
): boolean {
  if (own === undefined) return false;
  if (stored === 'absent') return own.document === undefined || typeof own.over === 'number';
  return own.over !== stored.revision;
}

/** As if it had expired, so that the next one who remembers it writes it. */
const recalledOf = ({ document, over: revision }: UnwrittenNote): Recalled => ({
  document,
  revision,
  expiresAt: new Date(0),
});
