import { ProviderError, VerificationFailed } from '../core/errors.ts';
import type { Ports } from '../core/ports.ts';
import type { DatabaseUser } from '../core/provider.ts';

type Pause = Pick<Ports, 'now' | 'sleep'>;

/** Lists lag behind writes: absence counts only when it was seen twice, so far apart. */
export const secondLookMs = 2_000;

export interface Look<User extends DatabaseUser = DatabaseUser> {
  readonly provider: string;
  /** For errors: what the look is for. */
  readonly operation: string;
  readonly username: string;
  readonly list: () => Promise<readonly User[]>;
  /** No wait goes past this instant. */
  readonly until: Date;
}

/**
 * The user as listed, or undefined when two complete readings, some time apart, both lacked it. Presence beats absence. Throws
 * where no time is left for the second one: one reading proves nothing.
 */
export async function findListed<User extends DatabaseUser>(
  { provider, operation, username, list, until }: Look<User>,
  { now, sleep }: Pause,
): Promise<User | undefined> {
  const seen = (await list()).find((user) => user.username === username);
  if (seen !== undefined) return seen;
  if ((await now()).getTime() + secondLookMs >= until.getTime())
    throw new ProviderError(
      `${provider}: the list lacks ${username}, and no time is left in this invocation to look again; the next one does`,
      { code: 'UNAVAILABLE', effect: 'none', provider, operation },
    );
  await sleep(secondLookMs);
  return (await list()).find((user) => user.username === username);
}

export interface Deletion extends Omit<Look, 'operation'> {
  /** The vendor's delete call, with the reasons for it. If a reason is gone, nothing is sent and SUPERSEDED surfaces as it is. */
  readonly remove: () => Promise<void>;
}

/**
 * Deletes a listed user and reads the list until it agrees. What the delete call answers proves nothing by itself: a 404
 * may mean another target or a lost right, a time-out may have been applied.
 */
export async function deleteListed(
  { provider, username, list, remove, until }: Deletion,
  pause: Pause,
): Promise<'deleted' | 'absent'> {
  const look = { provider, operation: 'deleteUser', username, list, until };
  const user = await findListed(look, pause);
  if (user === undefined) return 'absent';
  const error = (
    code: 'BLOCKED' | 'NOT_SETTLED',
    message: string,
    effect: 'none' | 'unknown',
    cause?: ProviderError,
  ) =>
    new ProviderError(
      `${provider}: ${message}`,
      { code, effect, provider, operation: 'deleteUser' },
      cause === undefined ? {} : { cause },
    );
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
    // Refused for a reason of its own: reading the list again would only hide it. A deletion never waits for a rate limit, as its
    // reasons may be gone when the wait is over.
    const isRefused = thrown.effect === 'none' && thrown.code !== 'NOT_FOUND';
    if (isRefused || thrown.code === 'RATE_LIMITED') throw thrown;
    failure = thrown;
  }
  for (let wait = 500; ; wait = Math.min(wait * 2, 10_000)) {
    const listed = await findListed(look, pause).catch((thrown: unknown) => {
      if (!(thrown instanceof ProviderError)) throw thrown;
      // Where the list fails too, the deletion's own failure is the one that says that nothing is known. Without one the
      // list's must not speak for the deletion: reading changes nothing, but the user is probably gone.
      throw (
        failure ??
        error(
          'NOT_SETTLED',
          `the deletion of ${username} was accepted, but not confirmed by the list (${thrown.code}); the next pass looks again`,
          'unknown',
          thrown,
        )
      );
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

/**
 * Deletes a user that the same call created and could not finish. Answers the error to throw: `failure`, or, if the deletion
 * failed, that the user is still there with a throw-away password.
 */
export async function undoCreation(
  failure: ProviderError | VerificationFailed,
  deletion: Deletion,
  pause: Pause,
): Promise<ProviderError | VerificationFailed> {
  try {
    await deleteListed(deletion, pause);
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    return new ProviderError(
      `${deletion.provider}: ${deletion.username} was created with a throw-away password and could not be finished (${failure.message}), nor deleted again (${error.message}); the next run continues with it`,
      { ...error.facts, operation: 'createUser', effect: 'applied' },
      { cause: failure },
    );
  }
  if (failure instanceof VerificationFailed) return failure;
  const message = failure.message.slice(`${failure.code}: `.length);
  return new ProviderError(message, { ...failure.facts, effect: 'none' }, { cause: failure });
}

/** A vendor's refusal to delete, with what a person can do about it. */
export const withRemedy = (refusal: ProviderError, remedy: string): ProviderError =>
  new ProviderError(`${refusal.message.slice(`${refusal.code}: `.length)}; ${remedy}`, refusal.facts, {
    cause: refusal,
  });

/** The failure of a later call of an operation whose earlier calls changed something: its effect is not `none`. */
export const afterChanges = (error: unknown): unknown =>
  error instanceof ProviderError && error.effect === 'none'
    ? new ProviderError(
        error.message.slice(`${error.code}: `.length),
        { ...error.facts, effect: 'applied' },
        { cause: error },
      )
    : error;
