import { randomInt } from 'node:crypto';

/** A number in [0, 1). Tests pass a fixed sequence. */
export type Random = () => number;

/** Unpredictable, for runs that are not tests of chance. */
export const systemRandom: Random = () => randomInt(2 ** 32) / 2 ** 32;

/** One element of a text or list. */
export function pick<T>(random: Random, from: ArrayLike<T>): T {
  const chosen = from[Math.floor(random() * from.length)];
  if (chosen === undefined) throw new RangeError('nothing to pick from');
  return chosen;
}

/** `length` letters and digits, as in the suffix of a secret's ARN. */
export function randomSuffix(random: Random, length: number): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  return Array.from({ length }, () => pick(random, alphabet)).join('');
}

/** A version 4 UUID. */
export function randomUuid(random: Random): string {
  return 'xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx'.replaceAll(/[xy]/g, (place) =>
    place === 'y' ? pick(random, '89ab') : pick(random, '0123456789abcdef'),
  );
}
