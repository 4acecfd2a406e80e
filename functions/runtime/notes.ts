import type { Ports } from '../core/ports.ts';

/** The notes of passes, for the functions that have any. Their client is loaded when the first of them is read or written. */
export function openNotes(
  { REKEY_NOTE_TABLE_NAME }: { readonly REKEY_NOTE_TABLE_NAME: string },
  clock: () => Date,
): Pick<Ports, 'readNote' | 'listNotes' | 'writeNote' | 'deleteNote'> {
  const open = async () => (await import('./note-table.ts')).openNoteTable(REKEY_NOTE_TABLE_NAME, clock);
  let opened: ReturnType<typeof open> | undefined;
  const table = () => {
    opened ??= open();
    return opened;
  };
  return {
    readNote: async (request) => (await table()).readNote(request),
    listNotes: async (request) => (await table()).listNotes(request),
    writeNote: async (request) => (await table()).writeNote(request),
    deleteNote: async (request) => (await table()).deleteNote(request),
  };
}
