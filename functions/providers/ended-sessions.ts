import type { Ports } from '../core/ports.ts';
import type { EndedSessions } from '../core/provider.ts';

/** How long sessions may take to close after the server was told to end them. Ours: servers answer before the sockets are gone. */
const closingMs = 5_000;

/**
 * Polls until no session is left, for at most `closingMs`. `look` answers how many sessions are left, or why that cannot be told.
 * Without the look, the audit trail would report sessions as ended that the server did not end.
 */
export async function confirmEnded(
  look: () => Promise<number | string>,
  until: Date,
  { now, sleep }: Pick<Ports, 'now' | 'sleep'>,
): Promise<EndedSessions> {
  const giveUpAt = Math.min((await now()).getTime() + closingMs, until.getTime());
  for (let wait = 250; ; wait = Math.min(wait * 2, 1_000)) {
    const left = await look();
    if (left === 0) return { ended: true };
    if (typeof left === 'string') return { ended: false, reason: left };
    if ((await now()).getTime() + wait >= giveUpAt)
      return {
        ended: false,
        reason: `${left} ${left === 1 ? 'session that was' : 'sessions that were'} opened before ${left === 1 ? 'is' : 'are'} still open`,
      };
    await sleep(wait);
  }
}
