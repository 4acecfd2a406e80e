import * as z from 'zod/mini';
import { InputError } from './errors.ts';
import {
  type CredentialOrder,
  type credentialRequested,
  type Invocation,
  type PauseOrder,
  parseInvocation,
  type RekeyEvent,
} from './events.ts';
import { faults } from './faults.ts';
import { jsonOf } from './json.ts';
import { credentialNameOf, credentialNamePattern, eventSource, secretPrefix } from './names.ts';
import type { Sha256 } from './username.ts';

/**
 * The audit trail: what a record of an event says, where it lies, and how a day of records is sealed. Everything is one object
 * that is written once:
 *
 *   audit/<day>/<event id>.json            one record an event
 *   late/<day of recording>/<event id>.json  says that a record of an earlier day came when that day may have been sealed
 *   received/<provider>/<digest>.json      says which record holds an event that a vendor tells more than once
 *   seal/<day>.json                        the day's records with their digests, chained to the seal of the day before
 */

// Events.

/** An event of the bus, as far as it is the same for all types. */
export interface AuditEvent {
  readonly id: string;
  readonly type: string;
  readonly source: string;
  readonly account: string;
  readonly region: string;
  readonly at: Date;
  readonly resources: readonly string[];
  readonly detail: Readonly<Record<string, unknown>>;
}

/** What record-audit is called with: an event to record, or a pass that seals what is over. */
export type AuditInvocation =
  | Extract<Invocation, { is: 'pass' }>
  | { readonly is: 'event'; readonly event: AuditEvent };

const labelUpdated = 'Secret Label Updated';
const secretsManagerSource = 'aws.secretsmanager';

/** What replays add to an event, and whatever else comes with it, is left out. */
const eventSchema = z
  .pipe(
    z.object({
      // Becomes a part of a key: nothing in it may have a meaning there.
      id: z
        .string()
        .check(z.regex(/^[A-Za-z0-9-]{1,64}$/, { error: 'expected 1 to 64 of A-Z a-z 0-9 and hyphen' })),
      'detail-type': z.string().check(z.minLength(1), z.maxLength(128)),
      source: z.enum([eventSource, secretsManagerSource]),
      account: z.string().check(z.regex(/^\d{12}$/, { error: 'expected an account' })),
      region: z.string().check(z.regex(/^[a-z0-9-]{1,32}$/, { error: 'expected a region' })),
      time: z.iso.datetime({ offset: true }),
      resources: z._default(z.array(z.string()), []),
      detail: z.record(z.string(), z.unknown()),
    }),
    z.transform(
      ({ 'detail-type': type, time, ...event }): AuditEvent => ({ ...event, type, at: new Date(time) }),
    ),
  )
  .check(
    z.refine(({ source, type }) => source === eventSource || type === labelUpdated, {
      error: `expected no other event of ${secretsManagerSource} than ${labelUpdated}`,
      path: ['detail-type'],
    }),
    z.refine(({ source, detail: { name } }) => source === eventSource || isOurs(name), {
      error: `expected a secret below ${secretPrefix}`,
      path: ['detail', 'name'],
    }),
  );

const isOurs = (name: unknown): boolean => typeof name === 'string' && name.startsWith(secretPrefix);

/** Throws EVENT_INVALID for what is neither, with every wrong field: events of others are none of ours to record. */
export function parseAuditInvocation(event: unknown): AuditInvocation {
  const isOfBus = event !== null && typeof event === 'object' && 'detail-type' in event;
  if (!isOfBus) return parseInvocation(event, ['pass']);
  const parsed = eventSchema.safeParse(event);
  if (!parsed.success)
    throw new InputError(
      'EVENT_INVALID',
      `${faults(parsed.error)}; this function takes events of source ${eventSource}, and ${secretsManagerSource}'s ${labelUpdated} for secrets below ${secretPrefix}`,
    );
  return { is: 'event', event: parsed.data };
}

// Records.

/** Who did it, as far as the event tells: whoever may write to the bus can claim to be rekey. */
export type Who =
  /** `useCase` where only one publishes such an event. */
  | { readonly actor: 'rekey'; readonly useCase?: string }
  | { readonly actor: 'secretsmanager' }
  | { readonly actor: 'vendor'; readonly provider: string }
  | { readonly actor: 'unknown' };

export interface AuditRecord {
  readonly version: 1;
  /** The event's own, the same over repeated delivery and replay. */
  readonly id: string;
  readonly who: Who & { readonly account: string; readonly region: string };
  /** The event's detail type. */
  readonly what: string;
  /** `intent` before a change is made, `outcome` after it; `fact` for what is only known. */
  readonly nature: 'intent' | 'outcome' | 'fact';
  readonly happenedAt: string;
  readonly recordedAt: string;
  readonly credential?: string;
  readonly strategy?: string;
  readonly provider?: string;
  readonly target?: string;
  readonly username?: string;
  readonly evidence: Readonly<Record<string, unknown>>;
  /** What ties the records of one rotation, or of one event at a vendor, together. */
  readonly correlation: Readonly<Record<string, string>>;
}

/** Fields that every record has in the same place, where its event has them. */
const subject = ['credential', 'strategy', 'provider', 'target', 'username'] as const;
const correlating = ['versionId', 'secretArn', 'secretName', 'providerEventId'] as const;

interface Kind {
  readonly nature: AuditRecord['nature'];
  readonly who: (detail: Readonly<Record<string, unknown>>) => Who;
  /** What is recorded of the detail: what it does not name is dropped. */
  readonly detail: z.ZodMiniType<Readonly<Record<string, unknown>>>;
}

const text = z.string().check(z.maxLength(2_000));
/** Empty where the event is about none. */
const credential = z.union([z.string().check(z.regex(credentialNamePattern)), z.literal('')]);
const provider = z.string().check(z.regex(/^[a-z0-9-]{0,63}$/, { error: 'expected the id of a provider' }));
const credentialFacts = { credential, provider, target: text, strategy: text };
const versionId = z.string().check(z.minLength(32), z.maxLength(64));
const rotationFacts = { ...credentialFacts, secretArn: text, versionId };
const userFacts = { ...credentialFacts, username: text, reason: text };
const finding = {
  kind: text,
  provider,
  target: text,
  credential: z.optional(credential),
  username: z.optional(text),
  apiKeySecret: z.optional(text),
  details: z.string().check(z.maxLength(10_000)),
  repair: z.optional(text),
};

const by = (useCase: string) => (): Who => ({ actor: 'rekey', useCase });
const userChangeFacts = {
  ...rotationFacts,
  versionId: z.optional(versionId),
  username: text,
  repair: z.optional(text),
};
const userChange = {
  who: ({ versionId: made, repair }: Readonly<Record<string, unknown>>): Who =>
    by(repair !== undefined ? 'reconcile-users' : made === undefined ? 'delete-user' : 'rotate-secret')(),
  detail: z.object(userChangeFacts),
};
const failedCall = { code: text, effect: text };
const sessionsEnd = { ...rotationFacts, username: text, openedBefore: text };
/** Who has done it is not in the list; the standing says whether rekey may have. */
const sighting: Kind = {
  nature: 'fact',
  who: by('reconcile-users'),
  detail: z.object({
    provider,
    target: text,
    username: text,
    standing: text,
    credential: z.optional(credential),
    versionId: z.optional(versionId),
    providerEventId: z.optional(z.string().check(z.minLength(1), z.maxLength(256))),
    isCaughtUp: z.optional(z.boolean()),
  }),
};
const drainEvidence = z.object({ drain: text, because: z.optional(text), unseen: z.optional(text) });
const order: Kind = {
  nature: 'intent',
  // Whoever may write to the bus: the event does not say who it was.
  who: () => ({ actor: 'unknown' }),
  detail: z.object({ credential: z.string().check(z.regex(credentialNamePattern)) }),
};

const pause: Kind = {
  ...order,
  detail: z.object({ provider: z.optional(provider), target: z.optional(text) }),
};

const kinds = {
  RekeyPaused: pause,
  RekeyResumed: pause,
  OrderIgnored: {
    nature: 'outcome',
    who: () => ({ actor: 'rekey' }),
    detail: z.object({
      order: text,
      credential: z.optional(credential),
      provider: z.optional(provider),
      target: z.optional(text),
      orderedAt: text,
      because: text,
    }),
  },
  CredentialRequested: {
    ...order,
    // Of a spec only what has a pattern of its own: whatever somebody may have put into the rest stays out.
    detail: z.pipe(
      z.object({
        spec: z.object({
          name: z.string().check(z.regex(credentialNamePattern)),
          provider,
          strategy: z.optional(text),
        }),
      }),
      z.transform(({ spec: { name, ...rest } }) => ({ ...rest, credential: name })),
    ),
  },
  CredentialRotationRequested: order,
  CredentialCompromised: {
    ...order,
    detail: z.object({
      credential: z.string().check(z.regex(credentialNamePattern)),
      evenIfLockedOut: z.optional(z.boolean()),
    }),
  },
  CredentialDeletionRequested: {
    ...order,
    detail: z.object({
      credential: z.string().check(z.regex(credentialNamePattern)),
      targetIsGone: z.optional(z.boolean()),
    }),
  },
  CredentialCreated: { nature: 'outcome', who: by('create-user'), detail: z.object(credentialFacts) },
  CredentialAdopted: {
    nature: 'outcome',
    who: by('create-user'),
    detail: z.object({ ...credentialFacts, username: text }),
  },
  CredentialRotated: {
    nature: 'outcome',
    who: by('rotate-secret'),
    detail: z.pipe(
      z.object({
        ...rotationFacts,
        username: text,
        evidence: text,
        currentRefusedAtMostMs: z.optional(z.number()),
      }),
      z.transform(({ evidence: login, ...rest }) => ({ ...rest, login })),
    ),
  },
  CredentialRotationFailed: {
    nature: 'outcome',
    who: by('rotate-secret'),
    detail: z.object({ ...rotationFacts, step: text, code: text, effect: text }),
  },
  CredentialDeleted: {
    nature: 'outcome',
    who: by('delete-user'),
    detail: z.object({
      ...credentialFacts,
      reason: text,
      targetsGone: z.optional(
        z.array(
          z.object({
            target: text,
            since: text,
            lastSeenGoneAt: text,
            sightings: z.number(),
            evidence: text,
            orderedAt: z.optional(text),
          }),
        ),
      ),
    }),
  },
  DatabaseUserPlanned: { ...userChange, nature: 'intent' },
  DatabaseUserCreated: { ...userChange, nature: 'outcome' },
  DatabaseUserPasswordChanged: { ...userChange, nature: 'outcome' },
  DatabaseUserChangeFailed: {
    ...userChange,
    nature: 'outcome',
    detail: z.object({ ...userChangeFacts, ...failedCall }),
  },
  DatabaseUserRetired: {
    nature: 'intent',
    who: by('delete-user'),
    detail: z.pipe(
      z.object({ ...userFacts, evidence: drainEvidence }),
      z.transform(({ evidence, ...rest }) => ({ ...rest, ...evidence })),
    ),
  },
  DatabaseUserDeleted: {
    nature: 'outcome',
    who: by('delete-user'),
    detail: z.pipe(
      z.object({ ...userFacts, outcome: text, evidence: z.optional(drainEvidence) }),
      z.transform(({ evidence, ...rest }) => ({ ...rest, ...evidence })),
    ),
  },
  DatabaseUserDeletionFailed: {
    nature: 'outcome',
    who: by('delete-user'),
    detail: z.pipe(
      z.object({ ...userFacts, ...failedCall, evidence: drainEvidence }),
      z.transform(({ evidence, ...rest }) => ({ ...rest, ...evidence })),
    ),
  },
  DatabaseSessionsEndPlanned: {
    nature: 'intent',
    who: by('delete-user'),
    detail: z.object(sessionsEnd),
  },
  DatabaseSessionsEnded: {
    nature: 'outcome',
    who: by('delete-user'),
    detail: z.object({ ...sessionsEnd, outcome: text, because: z.optional(text) }),
  },
  // By update-consumers, or by reconcile-users where that did not get through.
  ConsumerUpdatePlanned: {
    nature: 'intent',
    who: () => ({ actor: 'rekey' }),
    detail: z.object({ ...rotationFacts, consumer: text }),
  },
  ConsumerUpdated: {
    nature: 'outcome',
    who: by('update-consumers'),
    detail: z.object({ ...credentialFacts, versionId, consumer: text, outcome: text }),
  },
  // By update-consumers, or by reconcile-users where that did not get through.
  ConsumerLeftBehind: {
    nature: 'outcome',
    who: () => ({ actor: 'rekey' }),
    detail: z.object({ ...rotationFacts, consumer: text, because: text }),
  },
  // Which of its names are ours is for reconcile to say, which knows them: the vendor names no user.
  ProviderEventReceived: {
    nature: 'fact',
    who: ({ provider: id }) => ({ actor: 'vendor', provider: String(id) }),
    detail: z.object({
      provider,
      providerEventId: z.string().check(z.minLength(1), z.maxLength(256)),
      providerEventType: text,
      happenedAt: z.optional(text),
      target: z.optional(text),
      isCaughtUp: z.optional(z.boolean()),
    }),
  },
  DatabaseUserAppeared: sighting,
  DatabaseUserDisappeared: sighting,
  DriftFound: { nature: 'fact', who: () => ({ actor: 'rekey' }), detail: z.object(finding) },
  DriftRepaired: { nature: 'outcome', who: by('reconcile-users'), detail: z.object(finding) },
  DriftRepairFailed: {
    nature: 'outcome',
    who: by('reconcile-users'),
    detail: z.object({ ...finding, code: text, effect: text }),
  },
  BreakerChanged: {
    nature: 'fact',
    who: by('start-rotations'),
    detail: z.object({ provider, target: text, state: text, failures: z.number() }),
  },
  [labelUpdated]: {
    nature: 'fact',
    who: () => ({ actor: 'secretsmanager' }),
    detail: z.pipe(
      z.object({ name: text, labelUpdated: text, versionId }),
      z.transform(({ name, labelUpdated: label, ...rest }) => ({
        ...rest,
        label,
        secretName: name,
        credential: credentialNameOf(name),
      })),
    ),
  },
} as const satisfies Record<
  RekeyEvent['type'] | CredentialOrder | PauseOrder | typeof credentialRequested | typeof labelUpdated,
  Kind
>;

/**
 * The record of an event. Holds nothing of the event that its type does not name. One that cannot be read, or is of no type that
 * is known here, is recorded as that: somebody has sent it, and it must not be lost for being strange.
 */
export function auditRecord(event: AuditEvent, recordedAt: Date): AuditRecord {
  const { nature, who, detail } = readOf(event);
  const left = new Map(Object.entries(detail).filter(([, value]) => value !== undefined && value !== ''));
  const take = (names: readonly string[]): Record<string, string> =>
    Object.fromEntries(
      names.flatMap((name) => {
        const value = left.get(name);
        return left.delete(name) ? [[name, String(value)]] : [];
      }),
    );
  const [arn] = event.resources;
  return {
    version: 1,
    id: event.id,
    who: { ...who, account: event.account, region: event.region },
    what: event.type,
    nature,
    happenedAt: event.at.toISOString(),
    recordedAt: recordedAt.toISOString(),
    ...take(subject),
    correlation: {
      ...(event.type === labelUpdated && arn !== undefined ? { secretArn: arn } : {}),
      ...take(correlating),
    },
    evidence: Object.fromEntries(left),
  };
}

function readOf(event: AuditEvent): {
  readonly nature: AuditRecord['nature'];
  readonly who: Who;
  readonly detail: Readonly<Record<string, unknown>>;
} {
  const unreadable = (why: string) =>
    ({ nature: 'fact', who: { actor: 'unknown' }, detail: { unreadable: why } }) as const;
  // Secrets Manager's type means nothing in an event that only says to be of rekey.
  const kind =
    (event.source === eventSource) === (event.type !== labelUpdated) ? kindOf(event.type) : undefined;
  if (kind === undefined) return unreadable('no such type is known');
  const parsed = kind.detail.safeParse(event.detail);
  if (!parsed.success) return unreadable(faults(parsed.error));
  return { nature: kind.nature, who: kind.who(parsed.data), detail: parsed.data };
}

const kindOf = (type: string): Kind | undefined =>
  Object.hasOwn(kinds, type) ? new Map<string, Kind>(Object.entries(kinds)).get(type) : undefined;

/** The vendor's own id, for events that it may tell more than once; each time the bus gives them another id. */
export function providerEventOf(
  event: AuditEvent,
): { readonly provider: string; readonly providerEventId: string } | undefined {
  if (event.source !== eventSource || event.type !== 'ProviderEventReceived') return undefined;
  return kinds.ProviderEventReceived.detail.safeParse(event.detail).data;
}

// Documents.

/**
 * One text for one value: names in order, no space, ASCII only. So a digest stands for the value, and for the bytes as well:
 * bytes that are no UTF-8 can never read as the same text.
 */
export const canonicalJson = (value: unknown): string =>
  JSON.stringify(inOrder(value)).replaceAll(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

function inOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inOrder);
  if (value === null || typeof value !== 'object') return value;
  const entries = Object.entries(value).map(([name, held]): [string, unknown] => [name, inOrder(held)]);
  return Object.fromEntries(entries.sort(([one], [other]) => (one < other ? -1 : 1)));
}

export const digestOf = (document: string, sha256: Sha256): string =>
  Buffer.from(sha256(document)).toString('hex');

/** Where the record of an event of that day lies. */
export const recordKey = ({ at, id }: Pick<AuditEvent, 'at' | 'id'>): string =>
  `${recordsOf(dayOf(at))}${id}.json`;
export const recordsPrefix = 'audit/';
export const recordsOf = (day: string): string => `${recordsPrefix}${day.replaceAll('-', '/')}/`;

const recordKeyPattern = /^audit\/(\d{4})\/(\d{2})\/(\d{2})\/[A-Za-z0-9-]{1,64}\.json$/;

/** The day that a record's key stands for; undefined for what is no key of a record. */
export function dayOfRecord(key: string): string | undefined {
  const [, year, month, date] = recordKeyPattern.exec(key) ?? [];
  return year === undefined ? undefined : `${year}-${month}-${date}`;
}

/** The key that an object of ours points to, or undefined for a document that is none of ours. */
export function pointedKey(document: string): string | undefined {
  const parsed = pointerSchema.safeParse(jsonOf(document));
  return parsed.data?.key;
}
const pointerSchema = z.object({ key: z.string().check(z.regex(recordKeyPattern)) });
export const pointerTo = (key: string): string => canonicalJson({ key });

/** Whatever the vendor's id is made of, it has no meaning in the key. */
export const receivedKey = (
  { provider: id, providerEventId }: { provider: string; providerEventId: string },
  sha256: Sha256,
): string => `received/${id}/${digestOf(providerEventId, sha256)}.json`;

export const latePrefix = 'late/';
export const lateOf = (day: string): string => `${latePrefix}${day.replaceAll('-', '/')}/`;
/** Where it is noted that this record came late, on the day when it came. */
export const lateKey = (key: string, day: string): string =>
  `${lateOf(day)}${key.slice(key.lastIndexOf('/') + 1)}`;
export const dayOfLate = (key: string): string | undefined =>
  /^late\/(\d{4}\/\d{2}\/\d{2})\//.exec(key)?.[1]?.replaceAll('/', '-');

// Days, always in UTC, as `2026-03-01`: the order of their texts is theirs.

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

export const dayOf = (at: Date): string => at.toISOString().slice(0, 10);
export const dayAfter = (day: string, days = 1): string =>
  dayOf(new Date(Date.parse(`${day}T00:00:00Z`) + days * dayMs));

/** A day is sealed no sooner after its end, so that what had to be tried again is in. */
const sealAfterMs = 3 * hourMs;
/** From so long after its end on a record says that it is late. Sooner than a seal: who began before is done by then. */
const lateAfterMs = 2 * hourMs;

/** The last day that may be sealed. */
export const lastOverDay = (now: Date): string => dayAfter(dayOf(new Date(now.getTime() - sealAfterMs)), -1);

/** Whether the day of this record may have been sealed already when the record comes to be written. */
export const isLate = (key: string, now: Date): boolean =>
  (dayOfRecord(key) ?? '') < dayOf(new Date(now.getTime() - lateAfterMs));

// Seals.

/** A record and the SHA-256 of its document, in hex. */
export interface SealedRecord {
  readonly key: string;
  readonly sha256: string;
}

/** What a day held. Any change to it, or to a seal before it, changes the digest that the next seal holds. */
export interface Seal {
  readonly version: 1;
  readonly day: string;
  readonly sealedAt: string;
  /** The seal of the day before; only the first has none. */
  readonly previous?: { readonly day: string; readonly sha256: string };
  readonly count: number;
  /** In the order of their keys. */
  readonly records: readonly SealedRecord[];
  /** Records of earlier days that came on this one, when their own day may have been sealed. */
  readonly late: readonly SealedRecord[];
}

const digest = z.string().check(z.regex(/^[0-9a-f]{64}$/));
const dayPattern = z.string().check(z.regex(/^\d{4}-\d{2}-\d{2}$/));
const sealedRecords = z.array(z.strictObject({ key: z.string(), sha256: digest }));
const sealSchema = z
  .strictObject({
    version: z.literal(1),
    day: dayPattern,
    sealedAt: z.iso.datetime(),
    previous: z.exactOptional(z.strictObject({ day: dayPattern, sha256: digest })),
    count: z.int().check(z.minimum(0)),
    records: sealedRecords,
    late: sealedRecords,
  })
  .check(
    z.refine(({ count, records, late }) => count === records.length + late.length, {
      error: 'expected the number of its records',
      path: ['count'],
    }),
  );

export const sealPrefix = 'seal/';
export const sealKey = (day: string): string => `${sealPrefix}${day.replaceAll('-', '/')}.json`;
export const dayOfSeal = (key: string): string | undefined =>
  /^seal\/(\d{4}\/\d{2}\/\d{2})\.json$/.exec(key)?.[1]?.replaceAll('/', '-');

export const sealOf = (facts: Omit<Seal, 'version' | 'count'>): Seal => ({
  version: 1,
  ...facts,
  count: facts.records.length + facts.late.length,
});

/** The seal in a document, or what is wrong with it. */
export function parseSeal(document: string): Seal | { readonly wrong: string } {
  const parsed = sealSchema.safeParse(jsonOf(document));
  return parsed.success ? parsed.data : { wrong: faults(parsed.error) };
}
