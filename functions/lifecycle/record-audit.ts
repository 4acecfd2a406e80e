import {
  type AuditEvent,
  auditRecord,
  canonicalJson,
  dayOf,
  isLate,
  lateKey,
  pointedKey,
  pointerTo,
  providerEventOf,
  receivedKey,
  recordKey,
} from '../core/audit.ts';
import type { Rekey } from './rekey.ts';

export interface Recorded {
  readonly key: string;
  /** `exists` where the event had its record already. */
  readonly outcome: 'written' | 'exists';
}

/**
 * Afterwards the event has its one record, however often it comes, and the record is in the seal of its day or noted as late.
 * Throws where that is not certain: Lambda then tries again, and a queue keeps the event in the end.
 */
export async function recordAudit(event: AuditEvent, rekey: Rekey): Promise<Recorded> {
  const { ports, log, measure } = rekey;
  try {
    const key = await keyOf(event, rekey);
    const now = await ports.now();
    const document = canonicalJson(auditRecord(event, now));
    if (isLate(key, now)) {
      // Its day may be sealed. A record that is there was written in time, or has been noted.
      if ((await ports.readArchive({ key })) !== 'absent') return { key, outcome: 'exists' };
      // Before the record: killed after this line, a note points to nothing, and whoever tries again writes both. The other way
      // round the record would be in no seal, and read as added by a foreign hand.
      await ports.archive({ key: lateKey(key, dayOf(now)), document: pointerTo(key) });
    }
    const outcome = await ports.archive({ key, document });
    log('info', outcome === 'written' ? 'the event was recorded' : 'the event had been recorded', {
      key,
      type: event.type,
    });
    return { key, outcome };
  } catch (error) {
    measure('AuditWriteFailed', 1);
    throw error;
  }
}

/**
 * Where the event's record lies. A vendor repeats what it tells for a day and more, and each time the bus makes another event of
 * it: the first to come says where the record of all of them is.
 *
 * The note first: killed after this line, whoever brings the event again finds where its record belongs, and writes it there.
 */
async function keyOf(event: AuditEvent, { ports, sha256, log }: Rekey): Promise<string> {
  const own = recordKey(event);
  const told = providerEventOf(event);
  if (told === undefined) return own;
  const key = receivedKey(told, sha256);
  if ((await ports.archive({ key, document: pointerTo(own) })) === 'written') return own;
  const note = await ports.readArchive({ key });
  const first = note === 'absent' ? undefined : pointedKey(note);
  // At worst the event is recorded twice, never not at all.
  if (first === undefined) log('warn', 'a note of a received event is spoiled or gone', { key });
  return first ?? own;
}
