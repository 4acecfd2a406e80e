/** What has been started and has to be ended again. */
export interface Lifetime {
  /** From now on `end` is called when the lifetime is over; what was added last is ended first. */
  add(end: () => Promise<void>): void;
  /** Ends every part, whatever becomes of the others, and throws the first failure afterwards. May be called again. */
  end(): Promise<void>;
}

export function createLifetime(): Lifetime {
  const ends: (() => Promise<void>)[] = [];
  let ending: Promise<void> | undefined;
  async function endAll(): Promise<void> {
    const failures: unknown[] = [];
    for (const end of ends.toReversed()) await end().catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  }
  return {
    add(end) {
      ends.push(end);
    },
    end() {
      ending ??= endAll();
      return ending;
    },
  };
}

/** All results, or the first failure, but not before every one has ended: what a late one started has to be ended, too. */
export async function settledTogether<A, B>(work: readonly [Promise<A>, Promise<B>]): Promise<[A, B]> {
  await Promise.allSettled(work);
  return Promise.all(work);
}
