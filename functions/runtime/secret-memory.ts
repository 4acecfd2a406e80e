import type { Ports, SecretVersion } from '../core/ports.ts';

/**
 * What an instance keeps of the secrets that it read, for requests with a `maxAgeMs`: the four steps of a rotation often meet one
 * instance within seconds. Nothing is kept longer than `keptMs` or beside more than `maxKept` others: what is in memory may be stolen
 * from there. `over` wraps the port of an invocation; the clock is that of guards.
 */
export interface SecretMemory {
  over(readSecret: Ports['readSecret']): Ports['readSecret'];
}

/** Longer than the steps of one rotation take, and no longer. */
const keptMs = 300_000;
const maxKept = 32;

interface Kept {
  readonly found: SecretVersion;
  /** Before the question, as the answer may be as old as that. */
  readonly askedAt: Date;
}

export function createSecretMemory(clock: () => Date): SecretMemory {
  const kept = new Map<string, Kept>();
  const keep = (key: string, found: Kept): void => {
    kept.delete(key);
    kept.set(key, found);
  };
  const forgetOld = (now: Date): void => {
    for (const [key, { askedAt }] of kept)
      if (kept.size > maxKept || !isWithin(keptMs, askedAt, now)) kept.delete(key);
  };
  return {
    over: (readSecret) => async (request) => {
      const { secretId, versionId, label, maxAgeMs } = request;
      if (maxAgeMs === undefined) return readSecret(request);
      const askedAt = clock();
      forgetOld(askedAt);
      const key = keyOf(secretId, versionId, label);
      const known = kept.get(key);
      if (known !== undefined && maxAgeMs > 0 && isWithin(maxAgeMs, known.askedAt, askedAt))
        return known.found;
      const found = await readSecret(request);
      if (found === 'absent') {
        kept.delete(key);
        return found;
      }
      keep(key, { found, askedAt });
      keep(keyOf(secretId, found.versionId), { found, askedAt });
      forgetOld(askedAt);
      return found;
    },
  };
}

const keyOf = (secretId: string, versionId = '', label = ''): string =>
  [secretId, versionId, label].join('\n');

/** A clock that went back proves nothing. */
function isWithin(maxAgeMs: number, askedAt: Date, now: Date): boolean {
  const ageMs = now.getTime() - askedAt.getTime();
  return ageMs >= 0 && ageMs <= maxAgeMs;
}
