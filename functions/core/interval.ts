import { durationMs } from './duration.ts';

/** The longest time in which no rotation may start, and what would make it shorter. */
export interface Gap {
  readonly ms: number;
  readonly reason: string;
  readonly remedy: string;
}

const noGap: Gap = { ms: 0, reason: 'a rotation takes some time', remedy: 'shorten the grace' };

/** A late pass, and a rotation that takes its time: what is left of an opening before the deadline. */
const marginMs = 3_600_000;
const dayMs = 86_400_000;

/**
 * What keeps a rotation from being on time, with the remedy; empty when nothing does. Wherever the last switch falls, there must be an
 * opening to count on between `restMs` after it and the interval's end: it is there when the interval outlasts the rest, the gap
 * between openings, and one opening of `openingMs`, at whose start the last rotation may have been.
 */
export function intervalFaults(
  every: string,
  restMs: number,
  { gap = noGap, openingMs = 0 }: { readonly gap?: Gap; readonly openingMs?: number } = {},
): readonly string[] {
  const neededMs = restMs + gap.ms + openingMs + marginMs;
  if (neededMs <= (durationMs(every) ?? 0)) return [];
  const rest = restMs > 0 ? ', and alternate-users waits for the grace before it' : '';
  return [
    `rotation.every: expected at least P${Math.ceil(neededMs / dayMs)}D, got ${every}, as ${gap.reason}${rest}; rotate less often, or ${gap.remedy}`,
  ];
}
