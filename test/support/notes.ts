import type { Note, Ports } from '../../functions/core/ports.ts';

/** The ports to the table of notes, over a map. */
export function memoryNotes(
  now: () => Date,
): Pick<Ports, 'readNote' | 'listNotes' | 'writeNote' | 'deleteNote'> {
  const places = new Map<string, Map<string, Note>>();
  const at = (place: string, key: string): Note | 'absent' => {
    const note = places.get(place)?.get(key);
    return note === undefined || note.expiresAt <= now() ? 'absent' : note;
  };
  return {
    readNote: async ({ place, key }) => at(place, key),
    listNotes: async ({ place }) =>
      [...(places.get(place)?.values() ?? [])].filter(({ expiresAt }) => expiresAt > now()),
    writeNote: async ({ place, key, document, expiresAt, ifRevision }) => {
      const before = at(place, key);
      const revision = before === 'absent' ? 0 : before.revision;
      if (ifRevision !== undefined && ifRevision !== (before === 'absent' ? 'absent' : revision))
        return 'conflict';
      const notes = places.get(place) ?? new Map<string, Note>();
      places.set(place, notes.set(key, { key, document, expiresAt, revision: revision + 1 }));
      return 'written';
    },
    deleteNote: async ({ place, key }) => (places.get(place)?.delete(key) === true ? 'deleted' : 'absent'),
  };
}
