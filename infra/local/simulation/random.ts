import type { Random } from '../aws/random.ts';

/** The numbers of one run: the same again for the same run number (mulberry32, public domain). */
export function randomOfRun(run: number): Random {
  let state = run >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
