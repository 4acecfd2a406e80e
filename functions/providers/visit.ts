import { freshMs } from '../core/guard.ts';
import type { Ports } from '../core/ports.ts';
import type { Endpoint, Login, UserPassword } from '../core/provider.ts';

/** `read`, done once while a provider is open, which is one visit to a target. A failed reading is not kept. */
export function oncePerVisit<T>(read: () => Promise<T>): () => Promise<T> {
  let kept: Promise<T> | undefined;
  return () => {
    kept ??= read().catch((error: unknown) => {
      kept = undefined;
      throw error;
    });
    return kept;
  };
}

/**
 * `read`, whose answer also counts for whoever asks within `freshMs` after it was asked for: as long as the reasons of a write do. For
 * what is asked again after a change or a refusal, call `read` itself.
 */
export function sharedForAMoment<T>(read: () => Promise<T>, { now }: Pick<Ports, 'now'>): () => Promise<T> {
  let last: { readonly askedAt: Date; readonly answer: Promise<T> } | undefined;
  return async () => {
    const askedAt = await now();
    const ageMs = last === undefined ? Number.NaN : askedAt.getTime() - last.askedAt.getTime();
    if (last !== undefined && ageMs >= 0 && ageMs <= freshMs) return last.answer;
    const mine = { askedAt, answer: read() };
    last = mine;
    mine.answer.catch(() => {
      if (last === mine) last = undefined;
    });
    return mine.answer;
  };
}

/**
 * Adds the vendor's own address to a name and a password: the only way in which a provider gets a login to open a session with.
 * Exactly two fields are taken. A stored value may have been written by an attacker, and an address or a CA out of it would lead
 * an administrator's password to the attacker's server.
 */
export const atEndpoint =
  (endpoint: () => Promise<Endpoint>) =>
  async ({ username, password }: UserPassword): Promise<Login> => {
    const { host, port, database, ca } = await endpoint();
    return { host, port, database, username, password, ...(ca === undefined ? {} : { ca }) };
  };
