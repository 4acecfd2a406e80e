import * as z from 'zod/mini';
import { isNamedLikeOurs } from './drift.ts';
import type { RekeyEvent, UserSighting } from './events.ts';
import type { KnownUser, Standing } from './generations.ts';
import { jsonOf } from './json.ts';

/**
 * Who came and who went: the list of a target's users, compared with the one that was seen before. Webhooks only say when to
 * look; what is told comes from the lists, which no vendor can switch off.
 */

/** Whose a user is; of one that is rekey's and of no credential, such as a placeholder, no more than that. */
export type Owner = Pick<UserSighting, 'standing' | 'credential'>;

/** The users of a target as they were seen last. */
export interface SeenUsers {
  readonly users: ReadonlyMap<string, Owner>;
  /** Of names behind this one, in the order of their text, nothing is known: there was no room. Absent where all were noted. */
  readonly upTo?: string;
}

const foreign: Owner = { standing: 'foreign' };

/** What a user's standing says of it, its version included where one is known. */
function ownerOf(standing: Standing): Owner & Pick<UserSighting, 'versionId'> {
  switch (standing.is) {
    case 'current':
    case 'pending':
    case 'idle':
    case 'superseded': {
      const versionId = standing.is === 'idle' ? undefined : standing.versionId;
      return {
        standing: 'expected',
        credential: standing.credential.name,
        ...(versionId === undefined ? {} : { versionId }),
      };
    }
    case 'placeholder':
      return { standing: 'expected' };
    case 'unversioned':
    case 'protected':
    case 'foreign':
      return foreign;
    default:
      return standing satisfies never;
  }
}

// Differences.

/** What two looks at a target have shown. */
export interface TwoLooks {
  readonly provider: string;
  readonly targetId: string;
  readonly seen: SeenUsers | undefined;
  /** As listed last. */
  readonly users: readonly KnownUser[];
  /** Of the seen ones, those whom two complete lists, some seconds apart, both lacked. */
  readonly gone: readonly KnownUser[];
  readonly hasBrokenSpecs: boolean;
}

export type Sighting = Extract<
  RekeyEvent,
  { readonly type: 'DatabaseUserAppeared' | 'DatabaseUserDisappeared' }
>;

/** What is to be told, and what is to be noted then. The first look at a target tells nothing: there is nothing to compare with. */
export function compare({ provider, targetId, seen, users, gone, hasBrokenSpecs }: TwoLooks): {
  readonly sightings: readonly Sighting[];
  readonly now: ReadonlyMap<string, Owner>;
} {
  // It may be a user of a spec that cannot be read: whose it is can be said as soon as that is mended.
  const isDoubtful = ({ user, standing }: KnownUser): boolean =>
    hasBrokenSpecs && standing.is === 'foreign' && isNamedLikeOurs(user.username);
  const about = (
    type: Sighting['type'],
    { username }: KnownUser['user'],
    owner: ReturnType<typeof ownerOf>,
  ): Sighting => ({ type, detail: { provider, target: targetId, username, ...owner } });
  const goneNow = new Set(gone.map(({ user }) => user.username));
  const now = new Map([...(seen?.users ?? [])].filter(([username]) => !goneNow.has(username)));
  for (const each of users) {
    const { credential, standing } = ownerOf(each.standing);
    if (!isDoubtful(each))
      now.set(each.user.username, { standing, ...(credential === undefined ? {} : { credential }) });
  }
  if (seen === undefined) return { sightings: [], now };
  const isNew = ({ user: { username } }: KnownUser): boolean =>
    !seen.users.has(username) && (seen.upTo === undefined || username <= seen.upTo);
  return {
    sightings: [
      ...users
        .filter((each) => isNew(each) && !isDoubtful(each))
        .map(({ user, standing }) => about('DatabaseUserAppeared', user, ownerOf(standing))),
      ...gone.map(({ user, standing }) => {
        const owner = ownerOf(standing);
        // The credential may have gone with its last user, and its versions before it: whose it was is what was noted.
        const noted = seen.users.get(user.username) ?? foreign;
        return about('DatabaseUserDisappeared', user, owner.standing === 'expected' ? owner : noted);
      }),
    ],
    now,
  };
}

/** A vendor's event that a look is made because of; `username` where the vendor says whom it is about. */
export interface Cause {
  readonly eventId: string;
  readonly eventType: string;
  readonly username?: string;
}

const kindOf = (eventType: string): Sighting['type'] | undefined =>
  /created$/i.test(eventType)
    ? 'DatabaseUserAppeared'
    : /deleted$/i.test(eventType)
      ? 'DatabaseUserDisappeared'
      : undefined;

/**
 * The sightings, each with the vendor's event about it where that is certain: the one whose user the event names, or the only one
 * that fits the only event of its kind that names nobody.
 */
export function withCauses(sightings: readonly Sighting[], causes: readonly Cause[]): readonly Sighting[] {
  const different = [...new Map(causes.map((cause) => [cause.eventId, cause])).values()];
  const told = new Map<Sighting, string>();
  for (const { eventId, eventType, username } of different) {
    const named = sightings.find(({ detail }) => detail.username === username);
    if (named !== undefined && (kindOf(eventType) ?? named.type) === named.type) told.set(named, eventId);
  }
  for (const type of ['DatabaseUserAppeared', 'DatabaseUserDisappeared'] as const) {
    const [cause, ...others] = different.filter(
      ({ username, eventType }) => username === undefined && kindOf(eventType) === type,
    );
    const [sighting, ...rest] = sightings.filter((each) => each.type === type && !told.has(each));
    if (cause !== undefined && sighting !== undefined && others.length + rest.length === 0)
      told.set(sighting, cause.eventId);
  }
  return sightings.map((sighting) => {
    const providerEventId = told.get(sighting);
    return providerEventId === undefined
      ? sighting
      : { ...sighting, detail: { ...sighting.detail, providerEventId } };
  });
}

// The note.

const noteSchema = z.strictObject({
  upTo: z.exactOptional(z.string()),
  foreign: z.array(z.string()),
  /** By the credential; those of none under an empty name. */
  expected: z.record(z.string(), z.array(z.string())),
});

/** The users of the previous look. Undefined for a corrupt note: the next look counts as the first. */
export function parseSeenUsers(document: string): SeenUsers | undefined {
  const { data } = noteSchema.safeParse(jsonOf(document));
  if (data === undefined) return undefined;
  const expected = Object.entries(data.expected).flatMap(([credential, names]) =>
    names.map((name): [string, Owner] => [
      name,
      { standing: 'expected', ...(credential === '' ? {} : { credential }) },
    ]),
  );
  return {
    users: new Map([...data.foreign.map((name): [string, Owner] => [name, foreign]), ...expected]),
    ...(data.upTo === undefined ? {} : { upTo: data.upTo }),
  };
}

/** A text of JSON in ASCII: what a note holds is counted in bytes. */
const quoted = (text: string): string =>
  JSON.stringify(text).replaceAll(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

const frame = '{"upTo":,"foreign":[],"expected":{}}'.length;

/**
 * The document to note, of so many characters at most: names in the order of their text, as far as they fit. What comes behind
 * them is neither new nor gone to the next look; `left` says how many these are.
 */
export function seenUsersDocument(
  users: ReadonlyMap<string, Owner>,
  mostCharacters: number,
): { readonly document: string; readonly left: number } {
  const sorted = [...users].toSorted(([one], [other]) => (one < other ? -1 : 1));
  const noted: [string, Owner][] = [];
  const credentials = new Set<string>();
  let size = frame;
  for (const [name, owner] of sorted) {
    const credential = owner.standing === 'expected' ? (owner.credential ?? '') : undefined;
    const isFirst = credential !== undefined && !credentials.has(credential);
    const length = quoted(name).length;
    // With a comma; the first of a credential with `"…":[],` round it.
    size += length + 1 + (isFirst ? quoted(credential).length + 4 : 0);
    // It may be the last, whose name is there once more.
    if (size + length > mostCharacters) break;
    noted.push([name, owner]);
    if (credential !== undefined) credentials.add(credential);
  }
  const left = sorted.length - noted.length;
  const list = (those: readonly (readonly [string, Owner])[]): string =>
    `[${those.map(([name]) => quoted(name)).join()}]`;
  const expected = [...credentials].toSorted().map((credential) => {
    const its = noted.filter(
      ([, owner]) => owner.standing === 'expected' && (owner.credential ?? '') === credential,
    );
    return `${quoted(credential)}:${list(its)}`;
  });
  const upTo = left === 0 ? '' : `"upTo":${quoted(noted.at(-1)?.[0] ?? '')},`;
  const strangers = list(noted.filter(([, { standing }]) => standing === 'foreign'));
  return { document: `{${upTo}"foreign":${strangers},"expected":{${expected.join()}}}`, left };
}
