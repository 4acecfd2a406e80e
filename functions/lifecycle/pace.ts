import * as z from 'zod/mini';
import { StoreError } from '../core/errors.ts';
import { jsonOf } from '../core/json.ts';
import { places } from '../core/notes.ts';
import { paceOf } from '../core/pace.ts';
import type { CredentialSpec } from '../core/spec.ts';
import type { Rekey } from './rekey.ts';

/**
 * Which rotations were started with an API key lately. Several invocations start rotations at one time; without a common note each
 * would use the whole pace of the key, and the vendor would refuse most of their calls for as long as an emergency lasts. A turn belongs to
 * its rotation: if the process dies before the start, the next one that starts this rotation has the turn already. Otherwise, if
 * processes die right after taking turns, the most overdue rotations, which go first, would be delayed for days.
 */
const place = places.pace;
const keepMs = 3_600_000;
const maxTries = 5;
/** A plan starts at whole minutes, and its first start is counted a moment after the minute began. */
const slackMs = 5_000;

/** `versions` are those that the rotations make. */
const noteSchema = z.object({ since: z.iso.datetime(), versions: z.array(z.string()) });

/**
 * Whether the rotation that makes this version may start with the credential's API key now; it then counts, once. If the note cannot be
 * read or written, the rotation starts: the vendor's own limit holds it back.
 */
export async function takeTurn(
  { apiKeySecret, definition }: Pick<CredentialSpec, 'apiKeySecret' | 'definition'>,
  versionId: string,
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
      const versions = isRunning && counted !== undefined ? counted.versions : [];
      if (versions.includes(versionId)) return true;
      if (versions.length >= rotations) return false;
      const since = isRunning && counted !== undefined ? counted.since : now.toISOString();
      const written = await ports.writeNote({
        place,
        key: apiKeySecret,
        document: JSON.stringify({ since, versions: [...versions, versionId] }),
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
