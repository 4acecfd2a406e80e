import { type Directives, isRevoked } from './directives.ts';
import type { RefusalCode } from './errors.ts';
import type { SecretDescription, VersionListing } from './ports.ts';
import type { Strategy } from './provider.ts';
import type { Sha256, Usernames } from './username.ts';

/**
 * The staging labels are the state of a rotation; nothing about it is stored elsewhere.
 *
 *   RotateSecret      createSecret            setSecret               testSecret        finishSecret
 *   registers the ─►  the new login is    ─►  the vendor takes it ─►  it logs in,   ─►  AWSCURRENT moves
 *   token, no value   stored as AWSPENDING    (nobody uses it yet)    rights agree      (compare-and-swap)
 *
 * Where the vendor makes the password, its user is made in createSecret, named after the token, and setSecret only looks.
 * Secrets Manager retries a failed rotation from createSecret; every step may run again after any later one.
 */
export const rotationSteps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'] as const;
export type RotationStep = (typeof rotationSteps)[number];

export type Verdict =
  | { readonly say: 'proceed' }
  | { readonly say: 'done'; readonly reason: 'ALREADY_CURRENT' }
  | { readonly say: 'refuse'; readonly reason: RefusalCode; readonly advice: string };

/** When a version was made; undefined where nobody looked, or where it has no value yet. */
export type CreatedAt = (versionId: string) => Date | undefined;

/**
 * Why a version that carries AWSPENDING is no rotation in progress: the label may be put anywhere by hand, and may be left behind.
 * Undefined where it is one: it was never current, is younger than whatever was, and nobody revoked it.
 *
 * Finishing any other version would undo a roll-back, or publish a leaked login.
 */
export function strayPending(
  versionId: string,
  { labelsByVersion }: Pick<SecretDescription, 'labelsByVersion'>,
  createdAt: CreatedAt,
  directives: Directives,
): { readonly code: 'VERSION_NOT_PENDING' | 'VERSION_REVOKED'; readonly because: string } | undefined {
  const stray = (because: string) => ({ code: 'VERSION_NOT_PENDING', because }) as const;
  const labels = labelsByVersion.get(versionId);
  if (labels?.has('AWSPREVIOUS') || labels?.has('REKEY_PUBLISHED')) return stray('it was current before');
  const madeAt = createdAt(versionId);
  if (madeAt === undefined) return undefined;
  if (isRevoked(directives, madeAt))
    return {
      code: 'VERSION_REVOKED',
      because: 'it was made before the credential was reported as compromised',
    };
  // AWSPREVIOUS as well: it was current, and REKEY_PUBLISHED may have been taken off after a roll-back.
  for (const label of ['AWSCURRENT', 'AWSPREVIOUS', 'REKEY_PUBLISHED'] as const) {
    const holder = holderOf(labelsByVersion, label);
    const published = holder === undefined ? undefined : createdAt(holder);
    if (published !== undefined && madeAt < published)
      return stray(`it is older than ${holder}, which was published`);
  }
  return undefined;
}

/** Whether this step may go on. Reads the labels, the rotation switch and the deletion date; `strayPending` asks for the rest. */
export function judge(
  { rotationEnabled, labelsByVersion, deletedAt }: Omit<SecretDescription, 'arn' | 'name'>,
  token: string,
): Verdict {
  if (deletedAt !== undefined)
    return refuse('DELETION_IN_PROGRESS', 'the secret is scheduled for deletion; restore it before rotating');
  if (!rotationEnabled)
    return refuse(
      'ROTATION_DISABLED',
      'rotation is switched off for this secret; switch it on with RotateSecret',
    );
  const labels = labelsByVersion.get(token);
  if (labels === undefined)
    return refuse(
      'VERSION_UNKNOWN',
      'the secret has no version of this token; start a rotation with RotateSecret',
    );
  // Before AWSPENDING: moving AWSCURRENT may leave AWSPENDING on the same version (recorded from AWS by localstack).
  if (labels.has('AWSCURRENT')) return { say: 'done', reason: 'ALREADY_CURRENT' };
  if (!labels.has('AWSPENDING'))
    return refuse('VERSION_NOT_PENDING', 'the version of this token is not AWSPENDING; start a new rotation');
  return { say: 'proceed' };
}

const refuse = (reason: RefusalCode, advice: string): Verdict => ({ say: 'refuse', reason, advice });

/** The step of an event. Events carry camelCase; one page of AWS's guide writes create_secret, which is never sent. */
export const rotationStep = (text: string): RotationStep | undefined =>
  rotationSteps.find((step) => step === text);

/** The version that holds a label now, if any does. */
export const holderOf = (
  labelsByVersion: SecretDescription['labelsByVersion'],
  label: string,
): string | undefined => {
  for (const [versionId, labels] of labelsByVersion) if (labels.has(label)) return versionId;
  return undefined;
};

/**
 * The version of a rotation that is open: AWSPENDING on it, and not AWSCURRENT. A description and a list of versions may each lag
 * behind the other. Where both are given, the labels of either count.
 */
export function openVersion(
  { labelsByVersion }: Pick<SecretDescription, 'labelsByVersion'>,
  versions: readonly Pick<VersionListing, 'versionId' | 'labels'>[] = [],
): string | undefined {
  const held = new Map(labelsByVersion);
  for (const { versionId, labels } of versions)
    held.set(versionId, new Set([...(held.get(versionId) ?? []), ...labels]));
  return [...held].find(([, labels]) => labels.has('AWSPENDING') && !labels.has('AWSCURRENT'))?.[0];
}

/**
 * The token of a rotation that rekey starts while this version is AWSCURRENT: recognisable, so that the rotation knows that the grace
 * of a pair was judged by the dates from before it. RotateSecret changes the date of the last change, so inside the rotation nobody
 * can tell when AWSCURRENT was moved by hand. It becomes the id of a version: 32 to 64 characters.
 */
export const startedToken = (current: string | undefined, digest: Uint8Array, sha256: Sha256): string =>
  `${startedPrefix(current, sha256)}${hexOf(digest, 16)}`;

/** Whether rekey started the rotation of this token while this version was AWSCURRENT. */
export const isStartedAt = (token: string, current: string, sha256: Sha256): boolean =>
  token.startsWith(startedPrefix(current, sha256));

const startedPrefix = (current: string | undefined, sha256: Sha256): string =>
  `rekey-${hexOf(sha256(`current ${current ?? ''}`), 4)}-`;

const hexOf = (bytes: Uint8Array, length: number): string =>
  Array.from(bytes.subarray(0, length), (byte) => byte.toString(16).padStart(2, '0')).join('');

export interface Choice {
  readonly strategy: Strategy;
  readonly token: string;
  /** The user that AWSCURRENT names; undefined before the first rotation. */
  readonly currentUsername: string | undefined;
  /** When AWSCURRENT moved last, at the latest; undefined before the first rotation. */
  readonly switchedAt: Date | undefined;
  /** AWSCURRENT may have moved later than `switchedAt`, and start-rotations has not judged the grace of this rotation. */
  readonly isSwitchUndated: boolean;
  readonly graceMs: number;
  readonly now: Date;
}

export type Chosen =
  | { readonly say: 'use'; readonly username: string }
  | { readonly say: 'refuse'; readonly reason: 'GRACE_RUNNING'; readonly until: Date }
  | { readonly say: 'refuse'; readonly reason: 'SWITCH_UNDATED' };

/** The user that this rotation makes or changes, where we choose the password. */
export function chooseUser(choice: Choice, names: Usernames): Chosen {
  switch (choice.strategy) {
    case 'replace-user':
      return { say: 'use', username: names.generation(choice.token, 0) };
    case 'reset-password':
      return { say: 'use', username: choice.currentUsername ?? names.only() };
    case 'alternate-users': {
      // The idle user's login is AWSPREVIOUS: consumers that have not read the new one yet still use it.
      const hasGrace = choice.currentUsername !== undefined && choice.graceMs > 0;
      if (hasGrace && choice.isSwitchUndated) return { say: 'refuse', reason: 'SWITCH_UNDATED' };
      const until = choice.switchedAt && new Date(choice.switchedAt.getTime() + choice.graceMs);
      if (hasGrace && until !== undefined && choice.now < until)
        return { say: 'refuse', reason: 'GRACE_RUNNING', until };
      const first = names.alternate('a');
      return { say: 'use', username: choice.currentUsername === first ? names.alternate('b') : first };
    }
    default:
      return choice.strategy satisfies never;
  }
}

/** Whether a pending user is one that this rotation may have chosen: nothing else is ever changed or published. */
export function isOwnUser(
  username: string,
  { strategy, token, currentUsername }: Pick<Choice, 'strategy' | 'token' | 'currentUsername'>,
  names: Usernames,
  maximumAttempts: number,
): boolean {
  switch (strategy) {
    case 'replace-user':
      return [...Array(maximumAttempts).keys()].some(
        (attempt) => names.generation(token, attempt) === username,
      );
    case 'alternate-users':
      return username !== currentUsername && [names.alternate('a'), names.alternate('b')].includes(username);
    case 'reset-password':
      return username === (currentUsername ?? names.only());
    default:
      return strategy satisfies never;
  }
}
