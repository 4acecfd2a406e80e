import type { Capabilities } from './provider.ts';

/**
 * What the plan allows for one rotation. If a rotation takes longer, the start after it finds the target busy and waits for the next
 * pass.
 */
export const plannedRotationMs = 60_000;

/** At most `rotations` may start in `minutes`: half of what the vendor lets one API key write. */
export function paceOf({ writes: { perMinute, perRotation } }: Pick<Capabilities, 'writes'>): {
  readonly minutes: number;
  readonly rotations: number;
} {
  const rotations = Math.floor(perMinute / 2 / perRotation);
  return rotations >= 1
    ? { minutes: 1, rotations }
    : { minutes: Math.ceil((2 * perRotation) / perMinute), rotations: 1 };
}

/** What the API key leaves between two rotations that begin, whatever their targets are. */
export const keySpacingMs = (capabilities: Pick<Capabilities, 'writes'>): number => {
  const { minutes, rotations } = paceOf(capabilities);
  return (minutes * 60_000) / rotations;
};

/** What lies between two rotations of one target that begin, however many are due. Never 0. */
export const leastSpacingMs = (capabilities: Capabilities): number =>
  Math.max(plannedRotationMs / capabilities.parallelRotations, keySpacingMs(capabilities));
