import { durationMs } from './duration.ts';
import type { Finding } from './findings.ts';
import { targetKey } from './fleet.ts';
import { keySpacingMs, plannedRotationMs } from './pace.ts';
import { type CredentialSpec, dayMs, everyMs } from './spec.ts';

/** Rotations that do not fit, or hardly, into the windows of the credentials that share a target or an API key. */
export interface CapacityFault {
  /** `impossible` where they can never fit, `tight` where little is left for what fails and is tried again. */
  readonly level: 'impossible' | 'tight';
  /** Which limit, what is needed and what fits. */
  readonly details: string;
  /** What to change. */
  readonly remedy: string;
  /** Both. */
  readonly text: string;
}

/** Beyond this share of what fits, one bad night makes rotations late. */
const tightShare = 0.7;
const monthMs = 30 * dayMs;
const weekMs = 7 * dayMs;

/** What the rotations of all these credentials of one target need, against their windows and what the vendor can take at once. */
export function targetCapacity(specs: readonly CredentialSpec[]): readonly CapacityFault[] {
  const [first] = specs;
  if (first === undefined) return [];
  const { parallelRotations } = first.definition.capabilities;
  return capacityOf(specs, {
    place: `${first.provider} ${first.targetId}`,
    spacingMs: plannedRotationMs / parallelRotations,
    limit: `${first.provider} takes ${parallelRotations === 1 ? 'one rotation' : `${parallelRotations} rotations`} of a target at once, planned with ${plannedRotationMs / 60_000} minute each`,
    remedy: 'spread the credentials over more targets',
  });
}

/** The same of all these credentials of one API key, against what the vendor lets it write. */
export function keyCapacity(specs: readonly CredentialSpec[]): readonly CapacityFault[] {
  const [first] = specs;
  if (first === undefined) return [];
  const { writes } = first.definition.capabilities;
  return capacityOf(specs, {
    place: first.apiKeySecret,
    spacingMs: keySpacingMs({ writes }),
    limit: `rekey spends half of the ${writes.perMinute} requests a minute that ${first.provider} takes, and a rotation takes ${writes.perRotation}`,
    remedy: `give some of them an API key with a limit of its own at ${first.provider}`,
  });
}

/**
 * Finds the targets and API keys whose credentials need more rotations than fit. create-user compares a request with its target only,
 * `cdk synth` with its app only. Tight capacity is not reported: it may be permanent.
 */
export function capacityFindings(specs: readonly CredentialSpec[]): readonly Finding[] {
  const byTarget = Map.groupBy(specs, ({ provider, targetId }) => targetKey(provider, targetId));
  const byKey = Map.groupBy(specs, ({ provider, apiKeySecret }) => `${provider} ${apiKeySecret}`);
  return [
    ...[...byTarget.values()].flatMap((shared) =>
      findingsOf(targetCapacity(shared), shared[0], ({ targetId }) => ({ target: targetId })),
    ),
    ...[...byKey.values()].flatMap((shared) =>
      findingsOf(keyCapacity(shared), shared[0], ({ apiKeySecret }) => ({ target: '', apiKeySecret })),
    ),
  ];
}

const findingsOf = (
  faults: readonly CapacityFault[],
  shared: CredentialSpec | undefined,
  about: (spec: CredentialSpec) => Pick<Finding, 'target' | 'apiKeySecret'>,
): readonly Finding[] =>
  shared === undefined
    ? []
    : faults.flatMap(({ level, details, remedy }): readonly Finding[] =>
        level === 'impossible'
          ? [{ kind: 'CapacityExceeded', provider: shared.provider, ...about(shared), details, remedy }]
          : [],
      );

export const sharesTarget = (one: CredentialSpec, other: CredentialSpec): boolean =>
  targetKey(one.provider, one.targetId) === targetKey(other.provider, other.targetId);

export const sharesKey = (one: CredentialSpec, other: CredentialSpec): boolean =>
  one.provider === other.provider && one.apiKeySecret === other.apiKeySecret;

interface Limit {
  readonly place: string;
  /** What lies between two rotations at least. */
  readonly spacingMs: number;
  readonly limit: string;
  readonly remedy: string;
}

/**
 * Each window has to take the rotations of the credentials that have it, and all windows together those of all. Windows that
 * overlap are counted as if they did not, and blackouts not at all, so nothing is called impossible that is not.
 */
function capacityOf(
  specs: readonly CredentialSpec[],
  { place, spacingMs, limit, remedy }: Limit,
): readonly CapacityFault[] {
  const byWindow = [...Map.groupBy(specs, windowText)].map(([window, members]) => ({
    members,
    where: window === '' ? 'at any time' : `in the window ${window}`,
    fits: fitsInMonth(members[0], spacingMs),
  }));
  const all = {
    members: specs,
    where: `in their ${byWindow.length} windows`,
    fits: Math.min(
      byWindow.reduce((sum, { fits }) => sum + fits, 0),
      Math.floor(monthMs / spacingMs),
    ),
  };
  const [worst] = [...byWindow, ...(byWindow.length > 1 ? [all] : [])]
    .map((load) => {
      const needed = load.members.reduce((sum, spec) => sum + monthMs / everyMs(spec), 0);
      return { ...load, needed, share: load.fits === 0 ? Number.POSITIVE_INFINITY : needed / load.fits };
    })
    .toSorted((a, b) => b.share - a.share);
  if (worst === undefined || worst.share <= tightShare) return [];
  const { members, needed, fits, where, share } = worst;
  const isWindowed = members.some(({ rotation }) => rotation.window !== undefined);
  const who = `${members.length} ${members.length === 1 ? 'credential' : 'credentials'} of ${place} (${someOf(members)})`;
  const needs = `${Math.ceil(needed)} rotations in 30 days`;
  const says =
    share > 1
      ? `expected room for ${needs}, which ${who} ${members.length === 1 ? 'needs' : 'need'}, got ${fits} ${where}`
      : `${who} ${members.length === 1 ? 'needs' : 'need'} ${needs}, ${Math.round(share * 100)} % of the ${fits} that fit ${where}, so retries may come too late`;
  const changes = [
    ...(isWindowed ? ['lengthen rotation.window or open it on more days'] : []),
    'raise rotation.every',
    remedy,
  ];
  const details = `${isWindowed ? 'rotation.window' : 'rotation.every'}: ${says}, as ${limit}`;
  const change = `${changes.slice(0, -1).join(', ')}, or ${changes.at(-1)}`;
  return [
    {
      level: share > 1 ? 'impossible' : 'tight',
      details,
      remedy: change,
      text: `${details}; ${change}`,
    },
  ];
}

/** How many rotations begin in the openings of 30 days, each of which must have its time before the opening closes. */
function fitsInMonth(spec: CredentialSpec | undefined, spacingMs: number): number {
  const window = spec?.rotation.window;
  if (window === undefined) return Math.floor(monthMs / spacingMs);
  const inOpening = Math.floor((durationMs(window.length) ?? 0) / spacingMs);
  return Math.floor((inOpening * window.days.length * monthMs) / weekMs);
}

const windowText = ({ rotation: { window } }: CredentialSpec): string =>
  window === undefined
    ? ''
    : `${window.days.length === 7 ? 'every day' : window.days.join(', ')} at ${window.start} ${window.timeZone} for ${window.length}`;

const someOf = (specs: readonly CredentialSpec[]): string => {
  const names = specs.slice(0, 3).map(({ name }) => name);
  return specs.length > names.length
    ? `${names.join(', ')} and ${specs.length - names.length} more`
    : names.join(', ');
};
