import * as z from 'zod/mini';
import { StoreError } from '../core/errors.ts';
import { jsonOf } from '../core/json.ts';
import { places } from '../core/notes.ts';
import { paceOf } from '../core/pace.ts';
import type { CredentialSpec } from '../core/spec.ts';
import type { Rekey } from './rekey.ts';

/**
 * How many rotations were started with an API key lately. Several invocations start rotations at one time; without a common count each
 * would use the whole pace of the key, and the vendor would refuse most of their calls for as long as an emergency lasts. A turn whose start
 * is refused, or whose process dies, is lost: fewer rotations start until the count begins again, and the order is taken up then.
 */
const place = places.pace;
const keepMs = 3_600_000;
const maxTries = 5;
/** A plan starts at whole minutes, and its first start is counted a moment after the minute began. */
const slackMs = 5_000;

const noteSchema = z.object({ since: z.iso.datetime(), started: z.int() });

/**
 * Whether one more rotation may start with the credential's API key now; it then counts. If the count cannot be read or written, the
 * rotation starts: the vendor's own limit holds it back.
 */
export async function takeTurn(
  { apiKeySecret, definition }: Pick<CredentialSpec, 'apiKeySecret' | 'definition'>,
  { ports, log }: Pick<Rekey, 'ports' | 'log'>,
): Promise<boolean> {
  const { minutes, rotations } = paceOf(definition.capabilities);
  try {
    for (let tries = 0; tries < maxTries; tries += 1) {
      const now = await ports.now();
      const note = await ports.readNote({ place, key: apiKeySecret });
      const counted = note === 'absent' ? undefined : noteSchema.safeParse(jsonOf(note.document)).data;
      const ageMs = counted === undefined ? Number.NaN : now.getTime() - Date.parse(counted.since);
      const isRunning = ageMs >= 0 && ageMs < minutes * 60_000 - slackMs;
      const started = isRunning && counted !== undefined ? counted.started : 0;
      if (started >= rotations) return false;
      const since = isRunning && counted !== undefined ? counted.since : now.toISOString();
      const written = await ports.writeNote({
        place,
        key: apiKeySecret,
        document: JSON.stringify({ since, started: started + 1 }),
        expiresAt: new Date(now.getTime() + keepMs),
        ifRevision: note === 'absent' ? 'absent' : note.revision,
      });
      if (written === 'written') return true;
    }
    // Others are faster each time: they use the pace.
    return false;
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    log('warn', 'the rotations of an API key could not be counted', { apiKeySecret, code: error.code });
    return true;
  }
}
