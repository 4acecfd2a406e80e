import {
  canonicalJson,
  dayAfter,
  dayOfRecord,
  dayOfSeal,
  digestOf,
  lastOverDay,
  lateOf,
  pointedKey,
  recordsOf,
  recordsPrefix,
  type SealedRecord,
  sealKey,
  sealOf,
  sealPrefix,
} from '../core/audit.ts';
import { StoreError } from '../core/errors.ts';
import { inParallel } from './in-parallel.ts';
import type { Rekey } from './rekey.ts';

export interface SealedDay {
  readonly day: string;
  /** How many records the seal holds, those that came late included; undefined in a dry run. */
  readonly count?: number;
  /** Of the seal. Kept in the log as well: where the last seal of the chain is replaced, nothing else would show it. */
  readonly sha256?: string;
}

/** How many records are read at a time. */
const readsAtOnce = 16;

/**
 * Seals every day that is over and has none, oldest first, those without a record too: a chain has no holes. A seal is written
 * once, so two passes at once agree on the first of theirs, and a pass that was killed left whole seals only.
 */
export async function sealAudit(
  { dryRun }: { readonly dryRun: boolean },
  until: Date,
  rekey: Rekey,
): Promise<{ readonly sealed: readonly SealedDay[] }> {
  const { ports, log, measure, sha256 } = rekey;
  try {
    const last = lastOverDay(await ports.now());
    const latest = (await ports.listArchive({ prefix: sealPrefix }))
      .flatMap((key) => dayOfSeal(key) ?? [])
      .at(-1);
    let day = latest === undefined ? await firstDay(rekey) : dayAfter(latest);
    let previous =
      latest === undefined || dryRun
        ? undefined
        : { day: latest, sha256: digestOf(await read(sealKey(latest), rekey), sha256) };
    const sealed: SealedDay[] = [];
    if (dryRun) {
      for (; day !== undefined && day <= last; day = dayAfter(day)) sealed.push({ day });
      return { sealed };
    }
    for (; day !== undefined && day <= last; day = dayAfter(day)) {
      // The next pass goes on here.
      if ((await ports.now()) >= until) break;
      const [records, late] = [await recordsOn(day, rekey), await lateOn(day, rekey)];
      const sealedAt = (await ports.now()).toISOString();
      const ours = canonicalJson(
        sealOf({ day, sealedAt, ...(previous === undefined ? {} : { previous }), records, late }),
      );
      const key = sealKey(day);
      const isOurs = (await ports.archive({ key, document: ours })) === 'written';
      // Where another pass was faster, its seal is the one that the next is chained to, whatever ours would have said.
      previous = { day, sha256: digestOf(isOurs ? ours : await read(key, rekey), sha256) };
      if (!isOurs) continue;
      const facts = { day, count: records.length + late.length, sha256: previous.sha256 };
      sealed.push(facts);
      log('info', 'the day is sealed', facts);
    }
    const now = (await ports.now()).getTime();
    const waitingSince = day === undefined || day > last ? now : Date.parse(`${dayAfter(day)}T00:00:00Z`);
    measure('AuditUnsealedAge', (now - waitingSince) / 1000);
    return { sealed };
  } catch (error) {
    measure('AuditWriteFailed', 1);
    throw error;
  }
}

/** The day of the first record that there is. Reads every key, and only as long as nothing is sealed. */
const firstDay = async ({ ports }: Rekey): Promise<string | undefined> =>
  (await ports.listArchive({ prefix: recordsPrefix })).flatMap((key) => dayOfRecord(key) ?? [])[0];

/** Whatever lies in the day, and by whomever it was put there: a seal says what was found, and judges nothing. */
async function recordsOn(day: string, rekey: Rekey): Promise<readonly SealedRecord[]> {
  const keys = await rekey.ports.listArchive({ prefix: recordsOf(day) });
  return inParallel(keys.toSorted(), readsAtOnce, async (key) => ({
    key,
    sha256: digestOf(await read(key, rekey), rekey.sha256),
  }));
}

/** The records that a note of this day points to. One that is not there was not written: whoever tries again notes it again. */
async function lateOn(day: string, { ports, sha256, log }: Rekey): Promise<readonly SealedRecord[]> {
  const notes = await ports.listArchive({ prefix: lateOf(day) });
  const found = await inParallel(notes, readsAtOnce, async (note): Promise<readonly SealedRecord[]> => {
    const pointer = await ports.readArchive({ key: note });
    const key = pointer === 'absent' ? undefined : pointedKey(pointer);
    if (key === undefined) {
      log('warn', 'a note of a late record is spoiled or gone', { key: note });
      return [];
    }
    const document = await ports.readArchive({ key });
    return document === 'absent' ? [] : [{ key, sha256: digestOf(document, sha256) }];
  });
  return found.flat().toSorted((one, other) => (one.key < other.key ? -1 : 1));
}

/** Reads an object that was just listed or written. If it is gone, the next pass lists again. */
async function read(key: string, { ports }: Rekey): Promise<string> {
  const document = await ports.readArchive({ key });
  if (document === 'absent')
    throw new StoreError(
      'STORE_UNAVAILABLE',
      'none',
      `${key} was there and cannot be read; it is tried again`,
    );
  return document;
}
