import type { Secret, Version } from './model.ts';

/** The version that holds `label`. */
export function holderOf(secret: Secret, label: string): Version | undefined {
  return secret.versions.values().find((version) => version.labels.has(label));
}

/** Labels in the order in which AWS answers them. */
export const sorted = (labels: Iterable<string>): string[] => [...labels].sort();

/** Number of different labels over all versions. */
export function labelCount(secret: Secret, extra: Iterable<string> = []): number {
  const all = new Set(extra);
  for (const version of secret.versions.values()) for (const label of version.labels) all.add(label);
  return all.size;
}

/** Moves one label. AWSCURRENT pulls AWSPREVIOUS behind it: the version that was current becomes the last known good. */
export function moveLabel(secret: Secret, label: string, to: Version): void {
  const from = holderOf(secret, label);
  if (from === to) return;
  from?.labels.delete(label);
  to.labels.add(label);
  if (label !== 'AWSCURRENT' || from === undefined) return;
  holderOf(secret, 'AWSPREVIOUS')?.labels.delete('AWSPREVIOUS');
  from.labels.add('AWSPREVIOUS');
}

/**
 * Gives a newly written version its labels. A value that takes AWSCURRENT from a version which also held AWSPENDING
 * makes that AWSPENDING disappear (recorded in localstack's snapshots).
 */
export function labelWrittenVersion(secret: Secret, version: Version, labels: Iterable<string>): void {
  for (const label of labels) {
    const from = holderOf(secret, label);
    moveLabel(secret, label, version);
    if (label === 'AWSCURRENT' && from !== undefined && from !== version) from.labels.delete('AWSPENDING');
  }
}
