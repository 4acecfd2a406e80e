import { describe, expect, test } from 'vitest';
import type { CredentialState, KnownUser, Standing } from '../../functions/core/generations.ts';
import {
  type Cause,
  compare,
  type Owner,
  parseSeenUsers,
  type SeenUsers,
  type Sighting,
  seenUsersDocument,
  type TwoLooks,
  withCauses,
} from '../../functions/core/sightings.ts';
import { credentialState } from '../support/credentials.ts';

const versionId = '11111111-1111-4111-8111-111111111111';
const credential: CredentialState = await credentialState({
  versions: { [versionId]: ['2026-03-01T12:00:00Z', 'AWSCURRENT'] },
});
const known = (username: string, standing: Standing): KnownUser => ({
  user: { username, isProtected: standing.is === 'protected' },
  standing,
});
const stranger = (username: string) => known(username, { is: 'foreign' });
const ours: Owner = { standing: 'expected', credential: 'orders-api' };
const foreign: Owner = { standing: 'foreign' };
const seen = (users: Readonly<Record<string, Owner>>, upTo?: string): SeenUsers => ({
  users: new Map(Object.entries(users)),
  ...(upTo === undefined ? {} : { upTo }),
});
const looks = (overrides: Partial<TwoLooks> = {}): TwoLooks => ({
  provider: 'acme',
  targetId: 'db-1',
  seen: seen({}),
  users: [],
  gone: [],
  hasBrokenSpecs: false,
  ...overrides,
});
const told = (overrides: Partial<TwoLooks>) =>
  compare(looks(overrides)).sightings.map(({ type, detail }) => [
    type.replace('DatabaseUser', ''),
    detail.username,
    detail.standing,
  ]);
const noted = (overrides: Partial<TwoLooks>) => Object.fromEntries(compare(looks(overrides)).now);

describe('between two looks at a target', () => {
  test('the first one tells nothing, and notes who is there', () => {
    const users = [stranger('root'), known('orders_1', { is: 'current', credential, versionId })];
    expect(told({ seen: undefined, users })).toEqual([]);
    expect(noted({ seen: undefined, users })).toEqual({ root: foreign, orders_1: ours });
  });

  test('nothing has changed where the same users are there, whatever they are to us now', () => {
    const users = [known('orders_1', { is: 'unversioned', credential }), stranger('root')];
    expect(told({ seen: seen({ orders_1: ours, root: ours }), users })).toEqual([]);
    expect(noted({ seen: seen({ orders_1: ours, root: ours }), users })).toEqual({
      orders_1: foreign,
      root: foreign,
    });
  });

  test.each<[string, Standing, object]>([
    ['current', { is: 'current', credential, versionId }, { ...ours, versionId }],
    ['pending', { is: 'pending', credential, versionId }, { ...ours, versionId }],
    ['idle', { is: 'idle', credential }, ours],
    [
      'superseded',
      {
        is: 'superseded',
        credential,
        versionId,
        since: new Date(0),
        isRevoked: false,
        mayGoUnproved: false,
        wasPublished: true,
      },
      { ...ours, versionId },
    ],
    ['placeholder', { is: 'placeholder' }, { standing: 'expected' }],
    ['unversioned', { is: 'unversioned', credential }, foreign],
    ['protected', { is: 'protected' }, foreign],
    ['foreign', { is: 'foreign' }, foreign],
  ])('a user that is %s has appeared with what is known of it', (_is, standing, want) => {
    expect(compare(looks({ users: [known('orders_1', standing)] })).sightings).toEqual([
      {
        type: 'DatabaseUserAppeared',
        detail: { provider: 'acme', target: 'db-1', username: 'orders_1', ...want },
      },
    ]);
  });

  test('a user that is gone is told with whose it is, or else with whose it was when it was seen', () => {
    const before = seen({ orders_1: foreign, orders_2: ours, meddler: foreign });
    const gone = [
      known('orders_1', { is: 'pending', credential, versionId }),
      known('orders_2', { is: 'unversioned', credential }),
      stranger('meddler'),
    ];
    expect(compare(looks({ seen: before, gone })).sightings.map(({ detail }) => detail)).toMatchObject([
      { username: 'orders_1', ...ours, versionId },
      { username: 'orders_2', ...ours },
      { username: 'meddler', ...foreign },
    ]);
    expect(noted({ seen: before, gone })).toEqual({});
  });

  test('a user that one list alone lacks is neither gone nor forgotten', () => {
    const before = seen({ orders_1: ours });
    expect(told({ seen: before })).toEqual([]);
    expect(noted({ seen: before })).toEqual({ orders_1: ours });
  });

  test('a user that may be of a spec that cannot be read waits until it can be said whose it is', () => {
    const doubtful = stranger('orders_api_abcdefghijkl');
    expect(told({ users: [doubtful, stranger('meddler')], hasBrokenSpecs: true })).toEqual([
      ['Appeared', 'meddler', 'foreign'],
    ]);
    expect(noted({ users: [doubtful], hasBrokenSpecs: true })).toEqual({});
    expect(told({ users: [doubtful] })).toEqual([['Appeared', 'orders_api_abcdefghijkl', 'foreign']]);
    // It was ours when it was seen, and will be again when the spec is mended.
    const before = seen({ orders_api_abcdefghijkl: ours });
    expect(told({ seen: before, users: [doubtful], hasBrokenSpecs: true })).toEqual([]);
    expect(noted({ seen: before, users: [doubtful], hasBrokenSpecs: true })).toEqual({
      orders_api_abcdefghijkl: ours,
    });
  });

  test('names behind those that had room are neither new nor gone', () => {
    const before = seen({ a: foreign, m: foreign }, 'm');
    expect(told({ seen: before, users: ['a', 'b', 'm', 'n'].map(stranger) })).toEqual([
      ['Appeared', 'b', 'foreign'],
    ]);
    expect(told({ seen: seen({}, ''), users: [stranger('a')] })).toEqual([]);
  });
});

describe('the event at the vendor', () => {
  const sighting = (type: 'Appeared' | 'Disappeared', username: string): Sighting => ({
    type: `DatabaseUser${type}`,
    detail: { provider: 'acme', target: 'db-1', username, standing: 'foreign' },
  });
  const event = (eventId: string, eventType: string, username?: string): Cause => ({
    eventId,
    eventType,
    ...(username === undefined ? {} : { username }),
  });
  const created = 'users_created';
  const deleted = 'users_deleted';
  const cases: Record<string, { of: readonly Sighting[]; because: readonly Cause[]; want: object }> = {
    'is that of the user that it names': {
      of: [sighting('Appeared', 'a'), sighting('Appeared', 'b')],
      because: [event('e1', created, 'b')],
      want: { b: 'e1' },
    },
    'that names nobody is the only one that fits the only user that fits': {
      of: [sighting('Appeared', 'a'), sighting('Disappeared', 'b')],
      because: [event('e1', deleted), event('e2', created)],
      want: { a: 'e2', b: 'e1' },
    },
    'is nobody’s where two users fit': {
      of: [sighting('Appeared', 'a'), sighting('Appeared', 'b')],
      because: [event('e1', created)],
      want: {},
    },
    'is nobody’s where two events fit': {
      of: [sighting('Appeared', 'a')],
      because: [event('e1', created), event('e2', created)],
      want: {},
    },
    'that came twice is one': {
      of: [sighting('Appeared', 'a')],
      because: [event('e1', created), event('e1', created)],
      want: { a: 'e1' },
    },
    'leaves the other user to the other event': {
      of: [sighting('Appeared', 'a'), sighting('Appeared', 'b')],
      because: [event('e1', created, 'a'), event('e2', created)],
      want: { a: 'e1', b: 'e2' },
    },
    'of another kind is nobody’s': {
      of: [sighting('Appeared', 'a')],
      because: [event('e1', deleted), event('e2', 'backup_started'), event('e3', deleted, 'a')],
      want: {},
    },
    'that names somebody else is nobody’s': {
      of: [sighting('Appeared', 'a')],
      because: [event('e1', created, 'z')],
      want: {},
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { of, because, want }) => {
    const matched = withCauses(of, because);
    expect(matched.map(({ detail: { username } }) => username)).toEqual(
      of.map(({ detail: { username } }) => username),
    );
    expect(
      Object.fromEntries(
        matched.flatMap(({ detail: { username, providerEventId } }) =>
          providerEventId === undefined ? [] : [[username, providerEventId]],
        ),
      ),
    ).toEqual(want);
  });
});

describe('the note of who was there', () => {
  const users = (all: Readonly<Record<string, Owner>>): ReadonlyMap<string, Owner> =>
    new Map(Object.entries(all));

  test('reads back as it was written, whatever the names are', () => {
    const all = new Map<string, Owner>([
      ['root', foreign],
      ['orders_1', ours],
      ['orders_2', ours],
      ['rekey_placeholder_abcdefghijkl', { standing: 'expected' }],
      ['{{ssm:/rekey/credentials/orders-api}}', foreign],
      ['Ünïcödé "quoted" \u{1f600}\n', foreign],
      ['__proto__', foreign],
      ['', foreign],
    ]);
    const { document, left } = seenUsersDocument(all, 4_096);
    expect(left).toBe(0);
    expect(parseSeenUsers(document)).toEqual({ users: all });
    // An item's size is counted in bytes.
    expect(document).not.toMatch(/[^ -~]/);
  });

  test('is one text for the same users in any order', () => {
    const one = users({ b: foreign, a: ours, c: { standing: 'expected', credential: 'another' } });
    const other = users({ c: { standing: 'expected', credential: 'another' }, a: ours, b: foreign });
    expect(seenUsersDocument(one, 4_096)).toEqual(seenUsersDocument(other, 4_096));
    expect(seenUsersDocument(one, 4_096).document).toBe(
      '{"foreign":["b"],"expected":{"another":["c"],"orders-api":["a"]}}',
    );
  });

  test('holds as many as there is room for, and says up to where', () => {
    const name = (index: number) => `meddler_${String(index).padStart(4, '0')}`;
    const all = users(
      Object.fromEntries(
        Array.from({ length: 1_000 }, (_, index) => [name(index), index % 3 === 0 ? ours : foreign]),
      ),
    );
    const { document, left } = seenUsersDocument(all, 4_096);
    expect(document.length).toBeLessThanOrEqual(4_096);
    expect(document.length).toBeGreaterThan(4_000);
    const read = parseSeenUsers(document);
    expect(read?.users.size).toBe(1_000 - left);
    expect(read?.upTo).toBe(name(999 - left));
    expect([...(read?.users.keys() ?? [])].toSorted()).toEqual(
      Array.from({ length: 1_000 - left }, (_, index) => name(index)),
    );
    // The same users once more are no difference.
    const again = [...all.keys()].map(stranger);
    expect(told({ seen: read, users: again })).toEqual([]);
  });

  test('is of the right size whatever is in it', () => {
    for (let length = 1; length <= 400; length += 1) {
      const all = new Map(
        Array.from({ length: 60 }, (_, index): [string, Owner] => [
          `${'u'.repeat(length)}${index}`,
          { standing: 'expected', credential: `orders-${index}` },
        ]),
      );
      const { document, left } = seenUsersDocument(all, 1_000);
      expect(document.length).toBeLessThanOrEqual(1_000);
      expect(parseSeenUsers(document)?.users.size).toBe(60 - left);
    }
  });

  test('holds nobody where not even the first has room', () => {
    const { document, left } = seenUsersDocument(users({ ['u'.repeat(5_000)]: foreign }), 4_096);
    expect(left).toBe(1);
    expect(parseSeenUsers(document)).toEqual({ users: new Map(), upTo: '' });
  });

  test.each(['', 'null', '[]', '{}', '{"foreign":{},"expected":{}}', '{"foreign":[7],"expected":{}}'])(
    'that somebody spoiled is none: %s',
    (document) => {
      expect(parseSeenUsers(document)).toBeUndefined();
    },
  );
});
