import { expect, test } from 'vitest';
import { StoreError } from '../../functions/core/errors.ts';
import type { Ports } from '../../functions/core/ports.ts';
import {
  anything,
  forget,
  maxCharacters,
  type NoteContext,
  recall,
  recallAll,
  remember,
  rememberAll,
} from '../../functions/lifecycle/notes.ts';
import { Unwritten } from '../../functions/lifecycle/unwritten.ts';

/** A table that can be read, has no note, and takes none. */
function startContext(): NoteContext {
  const refuse = async (): Promise<never> => {
    throw new StoreError('STORE_UNAVAILABLE', 'none', 'the table takes no writes');
  };
  const ports: Partial<Ports> = {
    now: async () => new Date('2026-03-01T12:00:00Z'),
    readNote: async () => 'absent',
    listNotes: async () => [],
    writeNote: refuse,
    deleteNote: refuse,
  };
  return { ports: ports as Ports, log: () => undefined, unwritten: new Unwritten() };
}
const documentAt = async (place: string, key: string, context: NoteContext) => {
  const note = await recall({ place, key }, context);
  return note === 'unreadable' ? note : note.document;
};

test('an instance that can write none of many large notes forgets the oldest, and keeps the youngest in mind', async () => {
  const context = startContext();
  const large = 'x'.repeat(maxCharacters);
  for (let target = 0; target < 100; target += 1)
    await remember({ place: 'users', key: `t${target}` }, large, anything, context);
  expect(await documentAt('users', 't0', context)).toBeUndefined();
  expect(await documentAt('users', 't99', context)).toBe(large);
  const { notes } = await recallAll('users', context);
  // 16 million characters are 42 notes.
  expect(notes.size).toBeGreaterThan(36);
  expect(notes.size).toBeLessThan(43);
});

test('an instance that can write no notes drops the oldest small notes across all places', async () => {
  const context = startContext();
  for (let target = 0; target < 100_000; target += 1)
    await forget({ place: `deletions/t${target}`, key: 'user' }, context);
  await rememberAll('breakers', new Map([['t1', 'opened']]), new Map(), context);
  const { unwritten } = context;
  expect(unwritten?.get({ place: 'deletions/t0', key: 'user' })).toBeUndefined();
  expect(unwritten?.get({ place: 'deletions/t99999', key: 'user' })).toBeDefined();
  expect(await documentAt('breakers', 't1', context)).toBe('opened');
});

test('a note that is put there again is the youngest', async () => {
  const unwritten = new Unwritten(900);
  const put = (key: string) => unwritten.put({ place: 'looks', key }, { document: 'at', over: 'unknown' });
  for (const key of ['a', 'b', 'c', 'd', 'a', 'e']) put(key);
  expect(unwritten.in('looks').map(({ key }) => key)).toEqual(['c', 'd', 'a', 'e']);
});
