import type { Clock } from '../../clock.ts';
import { refusals } from './errors.ts';
import type { Secret, StaleRead, Variants } from './model.ts';

interface Moment {
  readonly at: number;
  /** Absent: the secret did not exist. */
  readonly secret: Secret | undefined;
}

/** The secrets, and what readers who lag behind still see of them. */
export interface Store {
  /** The live secrets, those scheduled for deletion included. */
  all(): Iterable<Secret>;
  byName(name: string): Secret | undefined;
  /** Finds by ARN, ARN without suffix, or name. */
  lookUp(secretId: string): Secret | undefined;
  /** As `lookUp`; refuses what cannot be found. */
  find(secretId: string): Secret;
  /** As `find`, for a secret that may be read and changed. */
  findLive(secretId: string): Secret;
  /** As `find`, but may answer an outdated copy, as the variant says. */
  read(secretId: string, operation: StaleRead): Secret;
  /** The secrets as a listing shows them. */
  listed(): Secret[];
  add(secret: Secret): void;
  /** Carries out `change`; readers that lag keep seeing the state before it. */
  write<T>(secret: Secret, change: (secret: Secret) => T): T;
  /** Forgets what is past its deletion date, and answers it. */
  purge(): Secret[];
}

const namePattern = /^[A-Za-z0-9/_+=.@!-]+$/;
const arnPattern = /^arn:[^:]+:secretsmanager:[^:]+:[^:]*:secret:(?<rest>.+)$/;
const suffixPattern = /-[A-Za-z0-9]{6}$/;

/** Refuses a name, or an id that is not an ARN, with a character that no secret can have. */
export function checkName(nameOrId: string): void {
  if (!nameOrId.startsWith('arn:') && !namePattern.test(nameOrId)) throw refusals.nameInvalid();
}

/** Builds an empty store. */
export function createStore(clock: Clock, variants: () => Variants, arnPrefix: string): Store {
  const secrets = new Map<string, Secret>();
  const staleCopies = new Map<string, { copy: Secret | undefined; left: Map<StaleRead, number> }>();
  const pasts = new Map<string, Moment[]>();
  /** Scheduled for deletion: every call asks which of them are over. */
  const ending = new Set<Secret>();

  function locate(secretId: string): Secret | undefined {
    const rest = secretId.match(arnPattern)?.groups?.['rest'];
    if (rest === undefined) return secrets.get(secretId);
    if (!secretId.startsWith(arnPrefix)) return undefined;
    const whole = secrets.get(rest.replace(suffixPattern, ''));
    if (whole?.arn === secretId) return whole;
    // An id that ends like a whole ARN is taken for one, so the name `app-a1b2c3` is not found by its partial ARN.
    return suffixPattern.test(rest) ? undefined : secrets.get(rest);
  }

  function remember(secret: Secret, before: Secret | undefined): void {
    const { staleReads, listLagMs } = variants();
    const reads = Object.entries(staleReads) as [StaleRead, number][];
    if (reads.length > 0) staleCopies.set(secret.name, { copy: before, left: new Map(reads) });
    if (listLagMs > 0) {
      const at = clock.now().getTime();
      const past = pasts.get(secret.name) ?? [];
      pasts.set(secret.name, [
        ...past.filter((moment) => moment.at > at - listLagMs),
        { at, secret: before },
      ]);
    }
  }

  const mayLag = () => variants().listLagMs > 0 || Object.keys(variants().staleReads).length > 0;

  const store: Store = {
    all: () => secrets.values(),
    byName: (name) => secrets.get(name),
    lookUp: locate,
    find(secretId) {
      const secret = locate(secretId);
      if (secret === undefined) throw refusals.secretUnknown();
      return secret;
    },
    findLive(secretId) {
      const secret = store.find(secretId);
      if (secret.deletedAt !== undefined) throw refusals.markedForDeletion();
      return secret;
    },
    read(secretId, operation) {
      const secret = store.find(secretId);
      const stale = staleCopies.get(secret.name);
      const left = stale?.left.get(operation) ?? 0;
      if (stale === undefined || left === 0) return secret;
      stale.left.set(operation, left - 1);
      if (stale.copy === undefined) throw refusals.secretUnknown();
      return stale.copy;
    },
    listed() {
      const horizon = clock.now().getTime() - variants().listLagMs;
      const names = new Set([...secrets.keys(), ...pasts.keys()]);
      return [...names].flatMap((name) => {
        const hidden = pasts.get(name)?.find((moment) => moment.at > horizon);
        const shown = hidden === undefined ? secrets.get(name) : hidden.secret;
        return shown === undefined ? [] : [shown];
      });
    },
    add(secret) {
      remember(secret, undefined);
      secrets.set(secret.name, secret);
    },
    write(secret, change) {
      const before = mayLag() ? structuredClone(secret) : undefined;
      const result = change(secret);
      secret.changedAt = clock.now();
      if (secret.deletedAt === undefined) ending.delete(secret);
      else ending.add(secret);
      if (before !== undefined) remember(secret, before);
      return result;
    },
    purge() {
      // Before every call: nearly always there is nothing to do.
      const now = clock.now();
      const gone: Secret[] = [];
      for (const secret of ending)
        if (secret.deletedAt !== undefined && secret.deletedAt <= now) gone.push(secret);
      for (const secret of gone) {
        ending.delete(secret);
        if (mayLag()) remember(secret, structuredClone(secret));
        staleCopies.delete(secret.name);
        secrets.delete(secret.name);
      }
      return gone;
    },
  };
  return store;
}
