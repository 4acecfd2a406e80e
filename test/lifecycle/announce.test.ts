import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { RekeyEvent } from '../../functions/core/events.ts';
import type { Finding } from '../../functions/core/findings.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { type Announced, announce } from '../../functions/lifecycle/announce.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';

const foreign = (username: string): Finding => ({
  kind: 'ForeignUser',
  provider: 'zilliz-cloud',
  target: 'in01-1',
  username,
  details: 'no credential of rekey made it',
  remedy: 'leave it, or delete it',
});
const place: Announced = { scope: 'reconcile', place: 'zilliz-cloud/in01-1' };
const parameter = '/rekey/findings/reconcile/zilliz-cloud/in01-1';

/** A Parameter Store and a bus in memory, with room for as much as a standard parameter holds. */
function world() {
  const store = new Map<string, string>();
  const events: RekeyEvent[] = [];
  const warnings: string[] = [];
  const calls: string[] = [];
  let now = new Date('2026-03-01T12:00:00Z');
  let dying: keyof Ports | undefined;
  const port =
    <Request, Answer>(name: keyof Ports, act: (request: Request) => Answer) =>
    async (request: Request): Promise<Answer> => {
      calls.push(name);
      if (dying === name) throw new Error('killed');
      return act(request);
    };
  const used: Partial<Ports> = {
    readParameter: port('readParameter', ({ parameter }) => store.get(parameter) ?? 'absent'),
    writeParameter: port('writeParameter', ({ parameter, document }) => {
      if (document.length > 4_096) throw new Error('ValidationException: a standard parameter holds 4 KB');
      store.set(parameter, document);
    }),
    deleteParameter: port('deleteParameter', ({ parameter }) =>
      store.delete(parameter) ? 'deleted' : 'absent',
    ),
    publish: port('publish', (told) => void events.push(...told)),
    now: async () => now,
  };
  const ports = new Proxy(used as Ports, {
    get(target, name, receiver) {
      if (name in target) return Reflect.get(target, name, receiver);
      throw new Error(`announce used ${String(name)}`);
    },
  });
  const rekey: Rekey = {
    ports,
    sha256: (text) => createHash('sha256').update(text).digest(),
    log: (_level, message) => void warnings.push(message),
    measure: () => undefined,
    loadProvider: async () => undefined,
    loadConsumer: async () => undefined,
  };
  return {
    store,
    calls,
    warnings,
    dieAt(name: keyof Ports | undefined) {
      dying = name;
    },
    move: (ms: number) => {
      now = new Date(now.getTime() + ms);
    },
    told: () => events.map(({ detail }) => ('username' in detail ? detail.username : '')),
    announce: (findings: readonly Finding[], where: Announced = place) => announce(where, findings, rekey),
  };
}

describe('a finding', () => {
  test('is published in the first pass that has it, and in none of the next', async () => {
    const { announce, told, store, calls } = world();
    await announce([foreign('a'), foreign('b')]);
    await announce([foreign('b'), foreign('a')]);
    const { length } = calls;
    await announce([foreign('a'), foreign('b')]);
    expect(told()).toEqual(['a', 'b']);
    expect([...store.keys()]).toEqual([parameter]);
    // Nothing new: nothing is written either.
    expect(calls.slice(length)).toEqual(['readParameter']);
  });

  test('is published once where one pass has it twice', async () => {
    const { announce, told } = world();
    await announce([foreign('a'), foreign('a')]);
    expect(told()).toEqual(['a']);
  });

  test('is published again when it comes back after it was gone', async () => {
    const { announce, told, store } = world();
    await announce([foreign('a')]);
    await announce([]);
    expect(store.size).toBe(0);
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
    dieAt('writeParameter');
    await expect(announce([foreign('a')])).rejects.toThrow('killed');
    dieAt(undefined);
    await announce([foreign('a')]);
    await announce([foreign('a')]);
    expect(told()).toEqual(['a', 'a']);
  });

  test('before it was forgotten, it is forgotten by the next pass', async () => {
    const { announce, told, dieAt } = world();
    await announce([foreign('a')]);
    dieAt('deleteParameter');
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
  const { announce, told, store } = world();
  for (const spoiled of ['{', '[]', '{"yesterday":"x"}', '{"2026-03-01T12:00:00.000Z":7}']) {
    store.set(parameter, spoiled);
    await announce([foreign('a')]);
    await announce([foreign('a')]);
  }
  expect(told()).toEqual(['a', 'a', 'a', 'a']);
});

test('more than one parameter can note wait until others are mended: the gravest come first, each is published once', async () => {
  const { announce, told, store, warnings, move } = world();
  const many = Array.from({ length: 1_000 }, (_, index) => foreign(`user_${index}`));
  await announce(many);
  const { length: first } = told();
  expect(first).toBeGreaterThan(400);
  expect(first).toBeLessThan(1_000);
  expect(told()).toEqual(many.slice(0, first).map(({ username }) => username));
  expect(store.get(parameter)?.length).toBeLessThanOrEqual(4_096);
  expect(warnings.filter((warning) => warning === 'found ForeignUser')).toHaveLength(first);
  expect(warnings).toContain('there are more findings than can be noted');
  await announce(many);
  expect(told()).toHaveLength(first);
  move(1_000);
  await announce(many.slice(300));
  expect(new Set(told()).size).toBe(told().length);
  expect(told().length).toBeGreaterThan(first + 200);
});
