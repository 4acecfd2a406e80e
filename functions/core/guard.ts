import { RotationRefused, StoreError } from './errors.ts';

/**
 * One reason for a write, read again whenever it is called: undefined while it holds, otherwise what changed. The facts of one question
 * get one and the same `askedAt`, so that they may share a reading.
 */
export type Fact = (askedAt: Date) => Promise<Objection | undefined>;
export type Objection = string | { readonly code: 'PAUSED'; readonly because: string };

/**
 * The reasons for one write, or for several that stand or fall together. Facts are read once and a write leaves later: after a
 * Retry-After of minutes, a slow call, another invocation's work. Each send therefore carries its guard, and `sendGuarded` reads
 * the facts again right before it.
 *
 * Only a use case makes a guard (lifecycle/guarded-write.ts). A provider or a consumer passes it on, and may add facts to it.
 */
export class Guard {
  readonly #reasons: readonly Reason[];
  readonly #moreToTake: readonly Reason[];
  /**
   * The guard of the sends among these that take a working password or a user away, if only for a moment: a throw-away password, a
   * drop. They need more reasons than a send that makes the stored login work, otherwise they hit a user that is current by then.
   */
  readonly taking: Guard;
  private constructor(reasons: readonly Reason[], moreToTake: readonly Reason[] = []) {
    this.#reasons = reasons;
    this.#moreToTake = moreToTake;
    this.taking = moreToTake.length === 0 ? this : new Guard([...reasons, ...moreToTake]);
  }

  /** For use cases only: test/architecture.test.ts refuses it in providers and consumers. */
  static of(...facts: readonly Fact[]): Guard {
    return new Guard(facts.map(reasonOf));
  }

  /** A guard that holds as long as this one does and `fact` as well. */
  and(fact: Fact): Guard {
    return new Guard([...this.#reasons, reasonOf(fact)], this.#moreToTake);
  }

  /** The same guard, whose `taking` holds as long as `fact` does as well. */
  takingOnlyIf(fact: Fact): Guard {
    return new Guard(this.#reasons, [...this.#moreToTake, reasonOf(fact)]);
  }

  /** Whether each fact was asked for within `freshMs` before `now`. A clock that went back proves nothing. */
  isFresh(now: Date): boolean {
    return this.#reasons.every(({ heldAt }) => isFreshAt(heldAt, now));
  }

  /**
   * Reads again every fact that is not fresh: guards that have a fact in common share its answer. Throws SUPERSEDED, or PAUSED, with the
   * first that no longer holds. `askedAt` is the time before the first question.
   */
  async ask(askedAt: Date): Promise<void> {
    const stale = this.#reasons.filter(({ heldAt }) => !isFreshAt(heldAt, askedAt));
    for (const reason of stale) reason.heldAt = undefined;
    const answers = await Promise.all(stale.map(({ fact }) => fact(askedAt)));
    const objection = answers.find((answer) => answer !== undefined);
    if (objection !== undefined) {
      const { code, because } =
        typeof objection === 'string' ? ({ code: 'SUPERSEDED', because: objection } as const) : objection;
      throw new RotationRefused(code, `${because}; this write was not sent, the next pass decides again`);
    }
    for (const reason of stale) reason.heldAt = askedAt;
  }
}

interface Reason {
  readonly fact: Fact;
  /** When the fact was asked for that held last. */
  heldAt: Date | undefined;
}
const reasonOf = (fact: Fact): Reason => ({ fact, heldAt: undefined });

function isFreshAt(heldAt: Date | undefined, now: Date): boolean {
  const age = heldAt === undefined ? Number.NaN : now.getTime() - heldAt.getTime();
  return age >= 0 && age <= freshMs;
}

/** How old the answer to a guard's questions may be when its write leaves. */
export const freshMs = 2_000;
/** After this many consecutive late answers a guard stops asking: the store is too slow to guard a write. */
const maxLooks = 5;

/**
 * `send`, called at an instant at which the facts of `guard` are known to hold. A guard whose own answer came late asks again, and
 * nothing is awaited between the last look at the clock and the send. What remains is a process that is stopped in that instant.
 *
 * Throws SUPERSEDED where a fact no longer holds and STORE_UNAVAILABLE where the facts cannot be read in time; then `send` was not called.
 */
export async function sendGuarded<Answer>(
  guard: Guard,
  clock: () => Date,
  send: () => Promise<Answer>,
): Promise<Answer> {
  for (let look = 1; !guard.isFresh(clock()); look += 1) {
    if (look > maxLooks)
      throw new StoreError(
        'STORE_UNAVAILABLE',
        'none',
        `what a write was decided on took longer than ${freshMs} ms to read, ${maxLooks} times; it was not sent and is tried again`,
      );
    await guard.ask(clock());
  }
  return send();
}
