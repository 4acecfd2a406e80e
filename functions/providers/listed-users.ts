import { ProviderError } from '../core/errors.ts';
import type { Ports } from '../core/ports.ts';
import type { DatabaseUser } from '../core/provider.ts';

type Pause = Pick<Ports, 'now' | 'sleep'>;

/** Lists lag behind writes: absence counts only when it was seen twice, so far apart. */
export const secondLookMs = 2_000;

/** The user as listed, or undefined when two complete readings, some time apart, both lacked it. Presence beats absence. */
export async function findListed<User extends DatabaseUser>(
  username: string,
  list: () => Promise<readonly User[]>,
  { sleep }: Pause,
): Promise<User | undefined> {
  const seen = (await list()).find((user) => user.username === username);
  if (seen !== undefined) return seen;
  await sleep(secondLookMs);
  return (await list()).find((user) => user.username === username);
}

export interface Deletion {
  readonly provider: string;
  readonly username: string;
  readonly list: () => Promise<readonly DatabaseUser[]>;
  /** The vendor's delete call. */
  readonly remove: () => Promise<void>;
  readonly until: Date;
}

/**
 * Deletes a listed user and reads the list until it agrees. What the delete call answers proves nothing by itself: a 404
 * may mean another target or a lost right, a time-out may have been applied.
 */
export async function deleteListed(
  { provider, username, list, remove, until }: Deletion,
  pause: Pause,
): Promise<'deleted' | 'absent'> {
  const user = await findListed(username, list, pause);
  if (user === undefined) return 'absent';
  const error = (code: 'BLOCKED' | 'NOT_SETTLED', message: string, effect: 'none' | 'unknown') =>
    new ProviderError(`${provider}: ${message}`, { code, effect, provider, operation: 'deleteUser' });
  if (user.isProtected)
    throw error(
      'BLOCKED',
      `${username} is a default, original or built-in user, which is never deleted`,
      'none',
    );
  let failure: ProviderError | undefined;
  try {
    await remove();
  } catch (thrown) {
    if (!(thrown instanceof ProviderError)) throw thrown;
    // Refused for a reason of its own: reading the list again would only hide it.
    if (thrown.effect === 'none' && thrown.code !== 'NOT_FOUND') throw thrown;
    failure = thrown;
  }
  for (let wait = 500; ; wait = Math.min(wait * 2, 10_000)) {
    // Where the list fails too, the deletion's own failure is the one that says that nothing is known.
    const listed = await findListed(username, list, pause).catch((thrown: unknown) => {
      throw failure ?? thrown;
    });
    if (listed === undefined) break;
    if ((await pause.now()).getTime() + wait >= until.getTime())
      throw (
        failure ??
        error(
          'NOT_SETTLED',
          `${username} is still listed after its deletion; the next pass looks again`,
          'unknown',
        )
      );
    await pause.sleep(wait);
  }
  return 'deleted';
}
