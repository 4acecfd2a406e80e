/** A pure function from text to 32 bytes. An argument, as core imports no engine of its own. */
export type Sha256 = (text: string) => Uint8Array;

/**
 * The names of the users that one credential can ever have. Each is a function of what Secrets Manager already holds,
 * so a retry finds its own half-made user, and reconcile proves which users are ours, without any store of our own.
 * Lower-case letter first, `[a-z0-9_]`, at most 32: inside every vendor's rules, and the same after every folding.
 */
export function usernames(origin: { secretArn: string; prefix: string }, sha256: Sha256): Usernames {
  const name = (...parts: readonly string[]): string =>
    `${origin.prefix}_${shortDigest(sha256(JSON.stringify(['rekey', origin.secretArn, ...parts])))}`;
  return {
    generation: (token, attempt) => name('generation', token, String(attempt)),
    alternate: (slot) => name('alternate', slot),
    only: () => name('only'),
  };
}

/**
 * The prefix under which one of these versions, or the credential itself, gave a user this name; undefined when none did. Only
 * the digest proves it, as it holds the secret's ARN.
 */
export function formerPrefix(
  username: string,
  { secretArn, versions, sha256 }: { secretArn: string; versions: readonly string[]; sha256: Sha256 },
): string | undefined {
  const prefix = /^(.+)_[a-z2-7]{12}$/.exec(username)?.[1];
  if (prefix === undefined) return undefined;
  const names = usernames({ secretArn, prefix }, sha256);
  const possible = [
    names.alternate('a'),
    names.alternate('b'),
    names.only(),
    ...versions.flatMap((token) =>
      Array.from({ length: maximumAttempts }, (_, attempt) => names.generation(token, attempt)),
    ),
  ];
  return possible.includes(username) ? prefix : undefined;
}

/**
 * The versions that hold the login of a user that the secret began with, as the spec adopts one. A repeated event derives them again;
 * the further ones are for another password of the same user. One of them among a secret's versions says that the user was adopted.
 */
export const adoptionVersions = (secretArn: string, sha256: Sha256): readonly string[] =>
  Array.from({ length: maximumAdoptions }, (_, turn) =>
    tokenFrom(sha256(`adopted value of ${secretArn}${turn === 0 ? '' : `, ${turn}`}`)),
  );
const maximumAdoptions = 8;

/** A version's token in the form of a UUID, as CloudTrail's readers expect one. */
export function tokenFrom(digest: Uint8Array): string {
  const hex = Array.from(digest.subarray(0, 16), (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/**
 * The name of a default user that stands in where the last credential of a target goes and the vendor keeps one user as the
 * default. Known from the target alone, as the credential is gone; its password is stored nowhere.
 */
export const placeholderUsername = (
  { provider, targetId, turn }: { provider: string; targetId: string; turn: number },
  sha256: Sha256,
): string =>
  `rekey_placeholder_${shortDigest(sha256(JSON.stringify(['rekey', provider, targetId, 'placeholder', String(turn)])))}`;
/** How many of them a target can have had before one is used again. */
export const maximumPlaceholders = 16;

export interface Usernames {
  /** replace-user: one a rotation; a further attempt only where the vendor lost the password of the one before. */
  generation(token: string, attempt: number): string;
  /** alternate-users: the two fixed ones. */
  alternate(slot: 'a' | 'b'): string;
  /** reset-password: the one and only. */
  only(): string;
}

export const usernamePattern = /^[a-z][a-z0-9_]{0,31}$/;
/**
 * Leaves room for the underscore and the digest within 32. Names that begin with pg_ belong to PostgreSQL, crdb_internal_ to
 * CockroachDB, sso_ to people who sign in through SSO there.
 */
export const usernamePrefixPattern =
  /^(?!(?:pg|crdb_internal|sso)(?:_|$))[a-z](?:[a-z0-9]|_(?=[a-z0-9])){0,18}$/;
/** How many users of one token may have lost their password before a rotation gives up. */
export const maximumAttempts = 5;

const digestLength = 12;
const letters = 'abcdefghijklmnopqrstuvwxyz234567';

/** 60 bits in base32. */
function shortDigest(digest: Uint8Array): string {
  let text = '';
  let bits = 0;
  let held = 0;
  for (const byte of digest) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5 && text.length < digestLength) {
      bits -= 5;
      text += letters[(held >> bits) & 31];
    }
    held &= (1 << bits) - 1;
    if (text.length === digestLength) break;
  }
  return text;
}
