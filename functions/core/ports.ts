import type { RekeyEvent } from './events.ts';
import type { QueuedTask, StartTask } from './fleet.ts';
import type { Guard } from './guard.ts';
import type { Sensitive } from './sensitive.ts';

/**
 * One call out of our code: one request in, one answer out. Everything that can be slow, lost, doubled or wrong goes
 * through a port, clock and randomness included, so that `interpose` can kill, delay or falsify any of it.
 */
export type Port<Request, Answer> = (request: Request) => Promise<Answer>;

/**
 * What lets a call out that may change something outside: the reasons for it, read again right before it leaves. A call that only
 * reads says so. There is no default, so none can be forgotten.
 */
export type Leave = Guard | 'reads-only';

/** A change of a secret, with the reasons for it. */
type Guarded<Request> = Request & { readonly guard: Guard };

export interface Ports {
  /** One HTTP exchange with a vendor. Throws `TransportError` when no whole answer came. */
  readonly http: Port<HttpRequest, HttpResponse>;
  /** One database session: log in, run the statements in order, leave. A guard is asked again before each statement. */
  readonly sql: Port<SqlSession, SqlOutcome>;
  /** One Valkey connection: AUTH, run the commands in order, leave. A guard is asked again before each command. */
  readonly valkey: Port<ValkeySession, ValkeyOutcome>;

  readonly describeSecret: Port<{ secretId: string }, SecretDescription | 'absent'>;
  /** `absent` only when Secrets Manager said that there is no such secret or no such value. */
  readonly readSecret: Port<SecretRead, SecretVersion | 'absent'>;
  /** `taken` when another value was already stored under this token: read it, never make another. */
  readonly writeSecret: Port<Guarded<SecretWrite>, 'written' | 'taken'>;
  /** A compare-and-swap: `moved` only if `from` held the label (or nobody did and `from` is absent). */
  readonly moveLabel: Port<Guarded<LabelMove>, 'moved' | 'conflict'>;
  /** `exists` when a secret of that name is there already, made by us before or by somebody else. */
  readonly createSecret: Port<Guarded<SecretCreation>, 'created' | 'exists'>;
  readonly startRotation: Port<Guarded<RotationStart>, 'started' | 'in-progress'>;
  /** Afterwards no step of a rotation may go on; labels stay as they are, AWSPENDING on a half-made version included. */
  readonly cancelRotation: Port<Guarded<{ secretId: string }>, 'cancelled' | 'absent'>;
  /** Every version that Secrets Manager still keeps, those without a label included. */
  readonly listVersions: Port<{ secretId: string }, readonly VersionListing[] | 'absent'>;
  /**
   * All secrets below a prefix of names, 100 a page, those that are scheduled for deletion left out. May miss changes of the last five
   * minutes (AWS documentation), so it decides only which secrets are to be described.
   */
  readonly listSecrets: Port<{ namePrefix: string }, readonly ListedSecret[]>;
  /** Afterwards the secret is read in its own Region only, sooner or later. */
  readonly removeReplicas: Port<
    Guarded<{ secretId: string; regions: readonly string[] }>,
    'removed' | 'absent'
  >;
  /**
   * Afterwards the secret can be read by nobody, and be restored for `recoveryDays` (7 to 30). `replicated` when replicas of it are
   * left in other Regions: nothing was done.
   */
  readonly deleteSecret: Port<
    Guarded<{ secretId: string; recoveryDays: number }>,
    'scheduled' | 'absent' | 'replicated'
  >;

  readonly readParameter: Port<{ parameter: string }, string | 'absent'>;
  /** When the parameter was written last. */
  readonly readParameterDate: Port<{ parameter: string }, Date | 'absent'>;
  /**
   * Up to ten at once, by name; what is absent is left out. `isPatient` where an answer that comes after half a minute is still worth
   * having: a guard could not use it.
   */
  readonly readParameters: Port<
    { parameters: readonly string[]; isPatient?: boolean },
    ReadonlyMap<string, string>
  >;
  /**
   * Never overwrites an existing parameter. Specs are created with a guard only: the credential may have been
   * deleted since it was requested.
   */
  readonly createParameter: Port<
    { parameter: string; document: string; guard?: Guard },
    'written' | 'exists'
  >;
  /** Overwrites. */
  readonly writeParameter: Port<{ parameter: string; document: string }, void>;
  /** Specs and orders are deleted with a guard only: another one may be stored under the name at any time. */
  readonly deleteParameter: Port<{ parameter: string; guard?: Guard }, 'deleted' | 'absent'>;
  /** Every parameter below a path, at any depth, all pages read. */
  readonly listParameters: Port<{ path: string }, readonly ListedParameter[]>;

  /** What a pass remembered under `place` and `key`. Expired notes count as absent. Strongly consistent. */
  readonly readNote: Port<{ place: string; key: string }, Note | 'absent'>;
  /** Every note of a place, all pages read. */
  readonly listNotes: Port<{ place: string }, readonly Note[]>;
  /** `conflict` if `ifRevision` is given and the stored note has another revision (or 'absent' was expected and there is one). */
  readonly writeNote: Port<
    { place: string; key: string; document: string; expiresAt: Date; ifRevision?: number | 'absent' },
    'written' | 'conflict'
  >;
  /** `conflict` if `ifRevision` is given and the stored note has another revision: nothing was deleted. */
  readonly deleteNote: Port<
    { place: string; key: string; ifRevision?: number },
    'deleted' | 'absent' | 'conflict'
  >;

  /** All events were accepted by the bus, or it throws. */
  readonly publish: Port<readonly RekeyEvent[], void>;
  /** One event on a bus of the user's own; accepted, or it throws. */
  readonly notify: Port<Guarded<Notification>, void>;
  /** Writes an object once and for all: `exists` when the key was taken, by whomever; what is there is never changed. */
  readonly archive: Port<{ key: string; document: string }, 'written' | 'exists'>;
  readonly readArchive: Port<{ key: string }, string | 'absent'>;
  /** Every key below a prefix, all pages read, in the order of their text. */
  readonly listArchive: Port<{ prefix: string }, readonly string[]>;
  /** All tasks are in the queue, or it throws. */
  readonly enqueue: Port<readonly QueuedTask[], void>;
  /** All of these are in the queue of starts, or it throws. Of two with one `id` within five minutes only the first is. */
  readonly enqueueStart: Port<readonly StartTask[], void>;
  /** Afterwards the message of this receipt is handed out again in `seconds`, 43,200 at most. */
  readonly postpone: Port<{ queueArn: string; receiptHandle: string; seconds: number }, void>;
  /** Afterwards what can never succeed lies in the queue of lost requests, where people read the reason beside it. */
  readonly setAside: Port<LostRequest, void>;

  readonly now: Port<void, Date>;
  /** Waits for this many milliseconds. */
  readonly sleep: Port<number, void>;
  /** This many bytes from a cryptographically secure source. */
  readonly randomBytes: Port<number, Uint8Array>;
}

/** `ports` with every call led through `around`, which decides whether, when and with what answer it happens. */
export function interpose(
  ports: Ports,
  around: (name: keyof Ports, request: unknown, call: () => Promise<unknown>) => Promise<unknown>,
): Ports {
  const led = Object.entries(ports).map(([name, port]: [string, Port<never, unknown>]) => [
    name,
    (request: never) => around(name as keyof Ports, request, () => port(request)),
  ]);
  return Object.fromEntries(led) as Ports;
}

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE' | 'PATCH';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string | Sensitive>>;
  /** A JSON document; it may hold a password. */
  readonly body?: Sensitive;
  readonly timeoutMs: number;
  readonly maxBodyBytes: number;
  readonly guard: Leave;
}

export interface HttpResponse {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Sensitive;
}

/** No whole answer came. `sent: false` only where it is certain that the request never left. */
export class TransportError extends Error {
  override readonly name = 'TransportError';
  readonly sent: boolean;
  constructor(message: string, sent: boolean, options?: ErrorOptions) {
    super(message, options);
    this.sent = sent;
  }
}

export interface SqlSession {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly username: string;
  readonly password: Sensitive;
  /** A CA in PEM where the public ones do not do. The certificate is always verified against `host`. */
  readonly ca?: string;
  readonly statements: readonly SqlStatement[];
  readonly timeoutMs: number;
  readonly guard: Leave;
}

export interface SqlStatement {
  readonly text: string;
  readonly values?: readonly unknown[];
}

/** `rejected` is the server's own no to this user and password; anything less certain throws `SqlError`. */
export type SqlOutcome =
  | { readonly say: 'accepted'; readonly rows: readonly (readonly Readonly<Record<string, unknown>>[])[] }
  | { readonly say: 'rejected'; readonly sqlState: string };

/** The session could not be opened (`statement` is undefined) or a statement failed. */
export class SqlError extends Error {
  override readonly name = 'SqlError';
  readonly sqlState: string | undefined;
  readonly statement: number | undefined;
  constructor(
    message: string,
    facts: { readonly sqlState?: string | undefined; readonly statement?: number | undefined },
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.sqlState = facts.sqlState;
    this.statement = facts.statement;
  }
}

export interface ValkeySession {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly password: Sensitive;
  /** A CA in PEM where the public ones do not do. The certificate is always verified against `host`. */
  readonly ca?: string;
  readonly commands: readonly (readonly string[])[];
  readonly timeoutMs: number;
  readonly guard: Leave;
}

/**
 * The reply to AUTH alone says `accepted` or `rejected` (WRONGPASS). A command that is refused after it, NOPERM or unknown,
 * is an answer like any other; whatever is less certain throws `TransportError`.
 */
export type ValkeyOutcome =
  | { readonly say: 'accepted'; readonly replies: readonly ValkeyReply[] }
  | { readonly say: 'rejected' };

export type ValkeyReply = { readonly value: unknown } | { readonly error: string };

/**
 * `REKEY_PUBLISHED` is rekey's own: it stays on the youngest version that was ever AWSCURRENT, whoever moves AWSCURRENT back. A
 * version that is no younger was published, or belongs to a rotation that was given up, and is never finished.
 */
export type Label = 'AWSPENDING' | 'AWSCURRENT' | 'AWSPREVIOUS' | 'REKEY_PUBLISHED';

export interface SecretDescription {
  readonly arn: string;
  readonly name: string;
  /** When the secret was made. A secret that was deleted and restored keeps its date; one made again under the name has a later one. */
  readonly createdAt?: Date;
  /** Secrets Manager leaves the field out until rotation was switched on once: absent reads as false. */
  readonly rotationEnabled: boolean;
  readonly labelsByVersion: ReadonlyMap<string, ReadonlySet<string>>;
  readonly lastRotatedAt?: Date;
  /** When the secret was modified last in any way, moves of labels by hand included: never before the last switch. */
  readonly changedAt?: Date;
  /** Set while the secret is scheduled for deletion. */
  readonly deletedAt?: Date;
  /** Absent where it is in its own Region only. */
  readonly replicas?: readonly SecretReplica[];
}

export interface SecretReplica {
  readonly region: string;
  /** Whether it has what was written last. One that has failed gets no more of it until people mend what `reason` says. */
  readonly status: 'in-sync' | 'in-progress' | 'failed';
  /** In AWS's words, without a value. */
  readonly reason?: string;
}

export interface VersionListing {
  readonly versionId: string;
  readonly labels: ReadonlySet<string>;
  readonly createdAt: Date;
}

/** As it is described, but for its replicas. */
export interface ListedSecret extends Omit<SecretDescription, 'replicas'> {
  /** Made or run by another service of AWS: not ours, whatever its name. */
  readonly isManaged: boolean;
}

export interface ListedParameter {
  readonly parameter: string;
  readonly document: string;
}

export interface Note {
  readonly key: string;
  readonly document: string;
  readonly revision: number;
  readonly expiresAt: Date;
}

/** Ids only, as in every event. */
export interface Notification {
  readonly busName: string;
  readonly type: string;
  readonly detail: Readonly<Record<string, unknown>>;
  readonly resources: readonly string[];
}

export interface LostRequest {
  /** As it was received. */
  readonly body: string;
  readonly messageId: string;
  readonly queueArn: string;
  readonly code: string;
  readonly message: string;
}

export interface SecretVersion {
  readonly versionId: string;
  readonly value: Sensitive;
  readonly createdAt?: Date;
}

export interface SecretRead {
  readonly secretId: string;
  readonly versionId?: string;
  readonly label?: Label;
  /**
   * An answer of at most this age will do, and the instance keeps this answer for such requests. 0 reads it again and keeps the answer.
   * The value of a version never changes, but a label moves: ask by label with an age only where the login before it would do as well.
   * @default the value is read again, and not kept
   */
  readonly maxAgeMs?: number;
}

export interface SecretWrite {
  readonly secretId: string;
  /** The ClientRequestToken; becomes the version's id. */
  readonly token: string;
  readonly value: Sensitive;
  readonly label: Label;
  /** Proof of the rotation's caller, passed on as it came. */
  readonly rotationToken?: Sensitive;
}

export interface LabelMove {
  readonly secretId: string;
  readonly label: Label;
  readonly from?: string;
  readonly to?: string;
}

export interface SecretCreation {
  readonly name: string;
  readonly token: string;
  readonly value: Sensitive;
  readonly description: string;
  /** The KMS key that encrypts it; the one that AWS manages where there is none. */
  readonly keyArn?: string;
  /** The Regions that get a replica, each under a key of its own Region. */
  readonly replicas?: readonly ReplicaWish[];
}

export interface ReplicaWish {
  readonly region: string;
  readonly keyArn?: string;
}

export interface RotationStart {
  readonly secretId: string;
  readonly token: string;
  readonly functionArn: string;
  /** Whole days, 1 to 1000: when Secrets Manager rotates by itself if nobody asked it to before. */
  readonly everyDays: number;
  /** False attaches rotation without starting one; Secrets Manager then only runs testSecret. */
  readonly immediately: boolean;
}
