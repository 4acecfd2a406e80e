import { Guard } from '../../functions/core/guard.ts';

/** A write whose reasons always hold: for tests of what happens to it once it has left. */
export const asWanted = Guard.of(async () => undefined);
