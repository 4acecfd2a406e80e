import { RotationRefused, StoreError } from './errors.ts';

/** One reason for a write, read anew whenever it is called: undefined while it holds, otherwise what changed. */
export type Fact = () => Promise<Objection | undefined>;
export type Objection = string | { readonly code: 'PAUSED'; readonly because: string };

/**
 * The reasons for one write, or for several that stand or fall together. Facts are read once and a write leaves later: after a
 * Retry-After of minutes, a slow call, another invocation's work. Each send therefore carries its guard, and `sendGuarded` reads
 * the facts again right before it.
 *
 * Only a use case makes a guard (lifecycle/guarded-write.ts). A provider or a consumer passes it on, and may add facts to it.
 */
export class Guard {
  readonly #facts: readonly Fact[];
  readonly #moreToTake: readonly Fact[];
  /** When the facts were asked for that held last. */
  #heldAt: Date | undefined;
  /**
   * The guard of the sends among these that take a working password or a user away, if only for a moment: a throw-away password, a
   * drop. They need more reasons than a send that makes the stored login work, otherwise they hit a user that is current by then.
   */
  readonly taking: Guard;
  private constructor(facts: readonly Fact[], moreToTake: readonly Fact[] = []) {
    this.#facts = facts;
    this.#moreToTake = moreToTake;
    this.taking = moreToTake.length === 0 ? this : new Guard([...facts, ...moreToTake]);
  }

  /** For use cases only: test/architecture.test.ts refuses it in providers and consumers. */
  static of(...facts: readonly Fact[]): Guard {
    return new Guard(facts);
  }

  /** A guard that holds as long as this one does and `fact` as well. */
  and(fact: Fact): Guard {
    return new Guard([...this.#facts, fact], this.#moreToTake);
  }

  /** The same guard, whose `taking` holds as long as `fact` does as well. */
  takingOnlyIf(fact: Fact): Guard {
    return new Guard(this.#facts, [...this.#moreToTake, fact]);
  }

  /** Whether the facts were asked for within `freshMs` before `now`. A clock that went back proves nothing. */
  isFresh(now: Date): boolean {
    const age = this.#heldAt === undefined ? Number.NaN : now.getTime() - this.#heldAt.getTime();
    return age >= 0 && age <= freshMs;
  }

  /** Reads every fact anew. Throws SUPERSEDED, or PAUSED, with the first that no longer holds. `askedAt` is the time before the first question. */
  async ask(askedAt: Date): Promise<void> {
    this.#heldAt = undefined;
    const answers = await Promise.all(this.#facts.map((fact) => fact()));
    const objection = answers.find((answer) => answer !== undefined);
    if (objection !== undefined) {
      const { code, because } =
        typeof objection === 'string' ? ({ code: 'SUPERSEDED', because: objection } as const) : objection;
      throw new RotationRefused(code, `${because}; this write was not sent, the next pass decides again`);
    }
    this.#heldAt = askedAt;
  }
}

/** How old the answer to a guard's questions may be when its write leaves. */
export const freshMs = 2_000;
/** Facts that come late so many times in a row are not asked again: the store is too slow to write by. */
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
