import {
  dayAfter,
  dayOfLate,
  dayOfRecord,
  dayOfSeal,
  digestOf,
  latePrefix,
  parseSeal,
  pointedKey,
  recordsOf,
  type Seal,
  type SealedRecord,
  sealKey,
  sealPrefix,
} from '../core/audit.ts';
import { inParallel } from './in-parallel.ts';
import type { Rekey } from './rekey.ts';

export interface AuditFinding {
  readonly kind:
    | 'RecordMissing'
    | 'RecordChanged'
    /** No seal lists it. */
    | 'RecordAdded'
    /** It is not where it belongs: under another key, or at another place of its seal. */
    | 'RecordReordered'
    | 'SealMissing'
    /** It is not the one that the next seal is chained to. */
    | 'SealChanged'
    | 'SealUnreadable'
    /** It is chained to no seal, or to another one than that of the day before. */
    | 'LinkBroken';
  /** The record or the seal. */
  readonly key: string;
  readonly details: string;
}

export interface Verification {
  /** None when every record of these days is as it was sealed. */
  readonly findings: readonly AuditFinding[];
  /** How many records were found as they were sealed. */
  readonly records: number;
  /** The last seal that there is. Nothing is chained to it yet: compare it with the one in the log of record-audit. */
  readonly head?: { readonly day: string; readonly sha256: string };
}

const readsAtOnce = 16;

/**
 * Whether the records of these days, both included, are those that were sealed, neither more nor less, and the seals one chain up
 * to the last. Every day is expected to be over and sealed, but for those before there was any record. Changes nothing.
 */
export async function verifyArchive(
  { from, to }: { readonly from: string; readonly to: string },
  rekey: Pick<Rekey, 'sha256'> & { readonly ports: Pick<Rekey['ports'], 'readArchive' | 'listArchive'> },
): Promise<Verification> {
  const { ports, sha256 } = rekey;
  const findings: AuditFinding[] = [];
  const find = (kind: AuditFinding['kind'], key: string, details: string): void =>
    void findings.push({ kind, key, details });

  const days = (await ports.listArchive({ prefix: sealPrefix })).flatMap((key) => dayOfSeal(key) ?? []);
  const [first, last] = [days[0], days.at(-1)];
  // The one before as well, which the first of these is chained to; and all later ones, which may list late records.
  const read = await inParallel(
    days.filter((day) => dayAfter(day) >= from),
    readsAtOnce,
    async (day) => readSeal(day, await ports.readArchive({ key: sealKey(day) }), sha256),
  );
  checkChain(read, first, find);

  const sealed = new Map<string, Set<string>>();
  for (const { day, seal } of read) if (seal !== undefined) checkOrder(day, seal, find);
  for (const { key, sha256: digest } of read.flatMap(({ seal }) => [
    ...(seal?.records ?? []),
    ...(seal?.late ?? []),
  ]))
    sealed.set(key, (sealed.get(key) ?? new Set()).add(digest));
  const ownerOf = new Map(
    [...sealed].flatMap(([key, digests]) => [...digests].map((digest) => [digest, key])),
  );
  // Came after the last seal: the next one lists them.
  const waiting = new Set(await waitingRecords(last, rekey));

  let records = 0;
  const check = async (key: string, isListed: boolean): Promise<void> => {
    const digests = sealed.get(key);
    if (digests === undefined) {
      if (!waiting.has(key)) find('RecordAdded', key, 'no seal lists it');
      return;
    }
    const document = isListed ? await ports.readArchive({ key }) : 'absent';
    if (document === 'absent') return find('RecordMissing', key, 'it was sealed, and is not there');
    const digest = digestOf(document, sha256);
    const owner = ownerOf.get(digest);
    if (digests.size === 1 && digests.has(digest)) records += 1;
    else if (owner !== undefined && owner !== key)
      find('RecordReordered', key, `it holds what was sealed as ${owner}`);
    else find('RecordChanged', key, 'it is not what was sealed');
  };
  const readable = new Set(read.flatMap(({ day, seal }) => (seal === undefined ? [] : [day])));
  const expected = Map.groupBy(sealed.keys(), (key) => key.slice(0, recordsOf(from).length));
  for (let day = from; day <= to; day = dayAfter(day)) {
    const listed = new Set(await ports.listArchive({ prefix: recordsOf(day) }));
    const isAfterLast = last !== undefined && day > last;
    if (isAfterLast || (last === undefined && listed.size > 0))
      find('SealMissing', sealKey(day), 'the day is not sealed');
    // Without its seal nothing can be said of the day; that has been found. Before the first one there can be no record.
    if (first === undefined || (day >= first && !readable.has(day))) continue;
    const keys = [...new Set([...listed, ...(expected.get(recordsOf(day)) ?? [])])].sort();
    await inParallel(keys, readsAtOnce, (key) => check(key, listed.has(key)));
  }
  const head = read.at(-1);
  return {
    findings: findings.toSorted((one, other) => (one.key < other.key ? -1 : one.key > other.key ? 1 : 0)),
    records,
    ...(head === undefined ? {} : { head: { day: head.day, sha256: head.sha256 } }),
  };
}

type Find = (kind: AuditFinding['kind'], key: string, details: string) => void;

interface ReadSeal {
  readonly day: string;
  readonly sha256: string;
  readonly seal?: Seal;
  readonly wrong?: string;
}

function readSeal(day: string, document: string | 'absent', sha256: Rekey['sha256']): ReadSeal {
  const read = { day, sha256: digestOf(document, sha256) };
  const seal = parseSeal(document);
  if ('wrong' in seal) return { ...read, wrong: seal.wrong };
  return seal.day === day ? { ...read, seal } : { ...read, wrong: `it is the seal of ${seal.day}` };
}

function checkChain(read: readonly ReadSeal[], first: string | undefined, find: Find): void {
  for (const [index, { day, seal, wrong }] of read.entries()) {
    const key = sealKey(day);
    if (seal === undefined) find('SealUnreadable', key, wrong ?? '');
    const before = read[index - 1];
    for (let gap = before === undefined ? day : dayAfter(before.day); gap < day; gap = dayAfter(gap))
      find('SealMissing', sealKey(gap), `the seals of ${before?.day} and ${day} are there`);
    if (seal === undefined) continue;
    const { previous } = seal;
    if (previous === undefined) {
      if (day !== first) find('LinkBroken', key, 'it is chained to no seal, and is not the first');
    } else if (previous.day !== dayAfter(day, -1))
      find('LinkBroken', key, `it is chained to the seal of ${previous.day}`);
    else if (day === first) find('SealMissing', sealKey(previous.day), `the seal of ${day} is chained to it`);
    else if (before?.day === previous.day && before.sha256 !== previous.sha256)
      find('SealChanged', sealKey(previous.day), `the seal of ${day} is chained to another one`);
  }
}

/** A seal lists each of its records once, in order, and none that is of another day's. */
function checkOrder(day: string, { records, late }: Seal, find: Find): void {
  const check = (listed: readonly SealedRecord[], mayBe: (recordDay: string) => boolean): void => {
    for (const [index, { key }] of listed.entries()) {
      const before = listed[index - 1]?.key;
      if (before !== undefined && before >= key)
        find('RecordReordered', key, `the seal of ${day} lists it after ${before}`);
      const recordDay = dayOfRecord(key);
      if (recordDay !== undefined && !mayBe(recordDay))
        find('RecordReordered', key, `the seal of ${day} lists it`);
    }
  };
  check(records, (recordDay) => recordDay === day);
  check(late, (recordDay) => recordDay < day);
}

async function waitingRecords(
  last: string | undefined,
  { ports }: { readonly ports: Pick<Rekey['ports'], 'readArchive' | 'listArchive'> },
): Promise<readonly string[]> {
  const notes = await ports.listArchive({ prefix: latePrefix });
  const waiting = notes.filter((key) => last === undefined || (dayOfLate(key) ?? '') > last);
  const found = await inParallel(waiting, readsAtOnce, async (key) => {
    const pointer = await ports.readArchive({ key });
    return pointer === 'absent' ? undefined : pointedKey(pointer);
  });
  return found.filter((key) => key !== undefined);
}
