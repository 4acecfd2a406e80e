export interface Address {
  readonly place: string;
  readonly key: string;
}

/** The revision of the stored note. `unknown` if that could not be read. */
export type Revision = number | 'absent' | 'unknown';

/** `document` is undefined where the note was to be deleted; `over` is the revision that it was to take the place of. */
export type UnwrittenNote = { readonly document: string | undefined; readonly over: Revision };

/** Holds the notes of thousands of targets in about 32 MB of the 512 MB of an instance. */
const maxUnwrittenCharacters = 16_000_000;
/** Estimated overhead of a note. */
const charactersBeside = 200;

/**
 * What a function instance could not write. If the notes exceed `maxCharacters`, the oldest are forgotten. The next pass then
 * reads what is stored instead, as a new instance does: it publishes findings again. core/notes.ts says what each place loses.
 */
export class Unwritten {
  readonly #maxCharacters: number;
  /** By place and key, the oldest first. */
  readonly #notes = new Map<string, Address & UnwrittenNote>();
  #characters = 0;

  constructor(maxCharacters = maxUnwrittenCharacters) {
    this.#maxCharacters = maxCharacters;
  }

  get(address: Address): UnwrittenNote | undefined {
    return this.#notes.get(textOf(address));
  }

  /** Every note of the place. */
  in(place: string): readonly (Address & UnwrittenNote)[] {
    return [...this.#notes.values()].filter((note) => note.place === place);
  }

  put({ place, key }: Address, note: UnwrittenNote): void {
    this.delete({ place, key });
    this.#notes.set(textOf({ place, key }), { place, key, ...note });
    this.#characters += charactersOf(note);
    if (this.#characters <= this.#maxCharacters) return;
    // Drop a tenth at a time: iterating a Map skips each deleted entry at its front.
    for (const oldest of this.#notes.values()) {
      if (this.#characters <= 0.9 * this.#maxCharacters) return;
      this.delete(oldest);
    }
  }

  delete(address: Address): void {
    const note = this.get(address);
    if (note === undefined) return;
    this.#notes.delete(textOf(address));
    this.#characters -= charactersOf(note);
  }
}

const textOf = ({ place, key }: Address): string => JSON.stringify([place, key]);

const charactersOf = ({ document = '' }: UnwrittenNote): number => document.length + charactersBeside;
