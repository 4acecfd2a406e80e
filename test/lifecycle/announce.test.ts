import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { StoreError } from '../../functions/core/errors.ts';
import type { RekeyEvent } from '../../functions/core/events.ts';
import type { Finding } from '../../functions/core/findings.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { type Announced, announce } from '../../functions/lifecycle/announce.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { Unwritten } from '../../functions/lifecycle/unwritten.ts';
import { startNotes } from '../support/notes.ts';

const foreign = (username: string): Finding => ({
  kind: 'ForeignUser',
  provider: 'zilliz-cloud',
  target: 'in01-1',
  username,
  details: 'no credential of rekey made it',
  remedy: 'leave it, or delete it',
});
const place: Announced = { scope: 'reconcile', place: 'zilliz-cloud/in01-1' };
const findings = 'findings/reconcile';

/** A table of notes and a bus in memory. */
function world() {
  const events: RekeyEvent[] = [];
  const warnings: string[] = [];
  const calls: string[] = [];
  let now = new Date('2026-03-01T12:00:00Z');
  const notes = startNotes(() => now);
  let unwritten = new Unwritten();
  const refused = new Set<keyof Ports>();
  let dying: keyof Ports | undefined;
  const port =
    <Request, Answer>(name: keyof Ports, act: (request: Request) => Promise<Answer>) =>
    async (request: Request): Promise<Answer> => {
      calls.push(name);
      if (dying === name) throw new Error('killed');
      if (refused.has(name)) throw new StoreError('STORE_REFUSED', 'none', `${name} was refused`);
      return act(request);
    };
  const used: Partial<Ports> = {
    readNote: port('readNote', notes.ports.readNote),
    writeNote: port('writeNote', notes.ports.writeNote),
    deleteNote: port('deleteNote', notes.ports.deleteNote),
    publish: port('publish', async (told) => void events.push(...told)),
    now: async () => now,
  };
  const ports = new Proxy(used as Ports, {
    get(target, name, receiver) {
      if (name in target) return Reflect.get(target, name, receiver);
      throw new Error(`announce used ${String(name)}`);
    },
  });
  const rekey = (): Rekey => ({
    ports,
    sha256: (text) => createHash('sha256').update(text).digest(),
    log: (_level, message) => void warnings.push(message),
    measure: () => undefined,
    unwritten,
    loadProvider: async () => undefined,
    loadConsumer: async () => undefined,
  });
  return {
    stored: () => notes.stored(findings),
    put: notes.put,
    refused,
    /** Another function instance goes on. */
    restart: () => {
      unwritten = new Unwritten();
    },
    calls,
    warnings,
    dieAt(name: keyof Ports | undefined) {
      dying = name;
    },
    move: (ms: number) => {
      now = new Date(now.getTime() + ms);
    },
    told: () => events.map(({ detail }) => ('username' in detail ? detail.username : '')),
    announce: (findings: readonly Finding[], where: Announced = place) => announce(where, findings, rekey()),
  };
}

describe('a finding', () => {
  test('is published in the first pass that has it, and in none of the next', async () => {
    const { announce, told, stored, calls } = world();
    await announce([foreign('a'), foreign('b')]);
    await announce([foreign('b'), foreign('a')]);
    const { length } = calls;
    await announce([foreign('a'), foreign('b')]);
    expect(told()).toEqual(['a', 'b']);
    expect(Object.keys(await stored())).toEqual([place.place]);
    // Nothing new: nothing is written either.
    expect(calls.slice(length)).toEqual(['readNote']);
  });

  test('is published once where one pass has it twice', async () => {
    const { announce, told } = world();
    await announce([foreign('a'), foreign('a')]);
    expect(told()).toEqual(['a']);
  });

  test('is published again when it comes back after it was gone', async () => {
    const { announce, told, stored } = world();
    await announce([foreign('a')]);
    await announce([]);
    expect(await stored()).toEqual({});
    await announce([foreign('a')]);
    expect(told()).toEqual(['a', 'a']);
  });

  test('says since when it has been there, whatever else has come and gone', async () => {
    const { announce, move } = world();
    await announce([foreign('a')]);
    move(3_600_000);
    await announce([foreign('a'), foreign('b')]);
    move(3_600_000);
    const seen = await announce([foreign('b'), foreign('a')]);
    expect(seen.map(({ username, since }) => [username, since.toISOString()])).toEqual([
      ['b', '2026-03-01T13:00:00.000Z'],
      ['a', '2026-03-01T12:00:00.000Z'],
    ]);
  });

  test('is kept apart from the same one of another place or function', async () => {
    const { announce, told } = world();
    await announce([foreign('a')]);
    await announce([foreign('a')], { scope: 'retire', place: 'zilliz-cloud/in01-1' });
    await announce([foreign('a')], { scope: 'reconcile', place: 'zilliz-cloud/in01-2' });
    expect(told()).toEqual(['a', 'a', 'a']);
  });

  test('that a pass could not look for is not forgotten', async () => {
    const { announce, told } = world();
    await announce([foreign('a'), foreign('b')]);
    await announce([foreign('c')], { ...place, isPartial: true });
    await announce([], { ...place, isPartial: true });
    await announce([foreign('a'), foreign('b'), foreign('c')]);
    expect(told()).toEqual(['a', 'b', 'c']);
  });
});

describe('killed', () => {
  test('before it is published, it is published by the next pass', async () => {
    const { announce, told, dieAt } = world();
    dieAt('publish');
    await expect(announce([foreign('a')])).rejects.toThrow('killed');
    dieAt(undefined);
    await announce([foreign('a')]);
    expect(told()).toEqual(['a']);
  });

  test('between publishing and noting, it is published twice, and then no more', async () => {
    const { announce, told, dieAt } = world();
    dieAt('writeNote');
    await expect(announce([foreign('a')])).rejects.toThrow('killed');
    dieAt(undefined);
    await announce([foreign('a')]);
    await announce([foreign('a')]);
    expect(told()).toEqual(['a', 'a']);
  });

  test('before it was forgotten, it is forgotten by the next pass', async () => {
    const { announce, told, dieAt } = world();
    await announce([foreign('a')]);
    dieAt('deleteNote');
    await expect(announce([])).rejects.toThrow('killed');
    dieAt(undefined);
    await announce([]);
    await announce([foreign('a')]);
    expect(told()).toEqual(['a', 'a']);
  });
});

test('two passes at once publish it twice at most, and never not at all', async () => {
  const { announce, told } = world();
  await Promise.all([announce([foreign('a')]), announce([foreign('a')])]);
  await announce([foreign('a')]);
  expect(told()).toEqual(['a', 'a']);
});

test('notes that somebody spoiled are read as none', async () => {
  const { announce, told, put } = world();
  for (const spoiled of ['{', '[]', '{"yesterday":"x"}', '{"2026-03-01T12:00:00.000Z":7}']) {
    await put(findings, place.place, spoiled);
    await announce([foreign('a')]);
    await announce([foreign('a')]);
  }
  expect(told()).toEqual(['a', 'a', 'a', 'a']);
});

test('more than one note can hold wait until others are mended: the gravest come first, each is published once', async () => {
  const { announce, told, stored, warnings, move } = world();
  const many = Array.from({ length: 45_000 }, (_, index) => foreign(`user_${index}`));
  await announce(many);
  const { length: first } = told();
  expect(first).toBeGreaterThan(40_000);
  expect(first).toBeLessThan(45_000);
  expect(told()).toEqual(many.slice(0, first).map(({ username }) => username));
  expect((await stored())[place.place]?.length).toBeLessThanOrEqual(380_000);
  expect(warnings.filter((warning) => warning === 'found ForeignUser')).toHaveLength(first);
  expect(warnings).toContain('there are more findings than can be noted');
  await announce(many);
  expect(told()).toHaveLength(first);
  move(1_000);
  await announce(many.slice(3_000));
  expect(new Set(told()).size).toBe(told().length);
  expect(told().length).toBeGreaterThan(first + 2_000);
});

describe('where the table of notes', () => {
  const dayMs = 86_400_000;

  test('takes no writes, a function instance publishes a finding once, and another one once more', async () => {
    const { announce, told, refused, restart, stored, warnings } = world();
    refused.add('writeNote');
    for (let pass = 0; pass < 3; pass += 1) await announce([foreign('a')]);
    expect(told()).toEqual(['a']);
    expect(warnings.filter((warning) => warning.includes('writeNote'))).toHaveLength(3);
    restart();
    await announce([foreign('a')]);
    expect(told()).toEqual(['a', 'a']);
    refused.clear();
    await announce([foreign('a'), foreign('b')]);
    await announce([foreign('a'), foreign('b')]);
    expect(told()).toEqual(['a', 'a', 'b']);
    expect(Object.keys(await stored())).toEqual([place.place]);
  });

  test('deletes nothing, a finding that was mended and comes back is published again', async () => {
    const { announce, told, refused } = world();
    await announce([foreign('a')]);
    refused.add('deleteNote');
    await announce([]);
    await announce([foreign('a')]);
    expect(told()).toEqual(['a', 'a']);
    refused.clear();
    await announce([foreign('a')]);
    expect(told()).toEqual(['a', 'a']);
  });

  test('cannot be read, every finding is published once a pass, and nothing that is noted is lost', async () => {
    const { announce, told, refused, move } = world();
    await announce([foreign('a')]);
    refused.add('readNote');
    move(dayMs);
    await announce([foreign('a'), foreign('a'), foreign('b')]);
    await announce([foreign('a')]);
    expect(told()).toEqual(['a', 'a', 'b', 'a']);
    refused.clear();
    const [seen] = await announce([foreign('a')]);
    expect(seen?.since.toISOString()).toBe('2026-03-01T12:00:00.000Z');
    expect(told()).toHaveLength(4);
  });

  test('was written by somebody else since, what an instance could not write counts no more', async () => {
    const { announce, told, refused, put } = world();
    await announce([foreign('a')]);
    refused.add('writeNote');
    await announce([foreign('a'), foreign('b')]);
    refused.clear();
    await put(findings, place.place, '{}');
    await announce([foreign('b')]);
    expect(told()).toEqual(['a', 'b', 'b']);
  });

  test('has let a note expire, it counts as none; while a pass comes now and then, none does', async () => {
    const { announce, told, move } = world();
    await announce([foreign('a')]);
    for (let month = 0; month < 12; month += 1) {
      move(31 * dayMs);
      await announce([foreign('a')]);
    }
    expect(told()).toEqual(['a']);
    move(91 * dayMs);
    await announce([foreign('a')]);
    expect(told()).toEqual(['a', 'a']);
  });
});
