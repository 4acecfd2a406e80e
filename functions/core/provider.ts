import type { Guard } from './guard.ts';
import type { Ports } from './ports.ts';
import type { Schema } from './schema.ts';
import type { Sensitive } from './sensitive.ts';

/**
 * The contract of a provider: one vendor's service as our plug-in. Each line says what holds afterwards, not how.
 * Nothing outside a provider's folder branches on its id: what vendors do differently is a capability or another arm
 * of the union. Expected outcomes are values; surprises are `ProviderError`.
 */
export type Provider = ChoosingProvider | IssuingProvider;

interface ProviderBase {
  /** For logs, events and metrics. */
  readonly id: string;
  /** Whether users may be changed now. Asked before anything is stored or changed. */
  readiness(): Promise<Readiness>;
  /** Every user of the target, all pages read; throws rather than returning a part. */
  listUsers(): Promise<readonly DatabaseUser[]>;
  /**
   * Where consumers connect, as the vendor says in this visit; the same for every user of the target. Every session of this
   * provider goes there and nowhere else: a stored value never says where a password is sent.
   */
  endpoint(): Promise<Endpoint>;
  /**
   * Afterwards the user is gone from the list. `absent` only if the list, answered in full, never had it. Throws BLOCKED with
   * the exact remedy where something still depends on the user, and RATE_LIMITED at once: a deletion never waits. `login` is the
   * user's own, where anybody knows it, for vendors where only a login can put the user's estate in order.
   */
  deleteUser(username: string, guard: Guard, login?: UserPassword): Promise<'deleted' | 'absent'>;
  /**
   * Logs in over the path consumers use; changes nothing. `rejected` is the server's no to this name and password;
   * anything less certain throws `VerificationFailed` with LOGIN_UNREACHABLE.
   */
  verify(login: UserPassword): Promise<'accepted' | 'rejected'>;
  /** What separates the user's privileges from the declared ones, read as the user itself; empty when they agree. */
  privilegeDifferences(login: UserPassword): Promise<readonly string[]>;
  /**
   * Who is connected as this user now. Only the very session that asks is left out, by its id: whoever calls himself `rekey`
   * counts. `login` is the user's own or, where that is lost, another one of the same target. Not observed when the vendor or
   * that login cannot tell: never to be read as nobody.
   */
  sessions(username: string, login: UserPassword): Promise<Sessions>;
  /**
   * Afterwards no connection of this user is open that was opened before `openedBefore`; a younger one, which may have a newer
   * password, stays. Where the vendor has no way for this login, or a look afterwards still finds one, it says so: never to be
   * read as ended. Never waits for a rate limit.
   */
  endSessions(
    username: string,
    login: UserPassword,
    openedBefore: Date,
    guard: Guard,
  ): Promise<EndedSessions>;
  /** The vendor's own record of the webhooks that it sends; absent where the vendor sends none. */
  readonly webhooks?: VendorWebhooks;
}

/** What a vendor tells of its webhooks, which may have failed in silence. Only ever read. */
export interface VendorWebhooks {
  /** Where they are received: the last part of the route, and of the name of the secret. */
  readonly endpoint: string;
  /** How the webhook that points to `url` is doing. */
  standing(url: string): Promise<WebhookStanding>;
  /** Every event of which an attempt was sent in this time, in the order of the first attempts; all pages read. */
  deliveries(
    webhookId: string,
    sent: { readonly after: Date; readonly before: Date },
  ): Promise<readonly WebhookDelivery[]>;
  /** What the vendor says of an event. `absent` where it has nothing to say: not every type can be asked for. */
  event(id: string): Promise<VendorEvent | 'absent'>;
}

export type WebhookStanding =
  | { readonly is: 'enabled' | 'disabled'; readonly id: string }
  /** Of all webhooks that this key may see none points there. */
  | { readonly is: 'absent' }
  /** The vendor does not show webhooks to this key. */
  | { readonly is: 'unreadable'; readonly reason: string };

/** One event's attempts to reach us. */
export interface WebhookDelivery {
  readonly eventId: string;
  /** In the vendor's words; an open string. */
  readonly eventType: string;
  readonly firstSentAt: Date;
  /** Whether one of the attempts in the time that was asked for was answered with success. */
  readonly isDelivered: boolean;
}

export interface VendorEvent {
  readonly id: string;
  readonly type: string;
  /** As the vendor writes it. */
  readonly happenedAt?: string;
  /** What it happened to. */
  readonly target?: string;
  /** The database user that it is about, where the vendor says so: no documented detail does. */
  readonly username?: string;
}

/** The vendor takes the password that we choose, so it is stored as AWSPENDING before the vendor hears of it. */
export interface ChoosingProvider extends ProviderBase {
  readonly passwords: 'chosen-by-us';
  /**
   * Afterwards the user exists, logs in with this password and holds exactly the declared privileges. `exists` means that
   * somebody's user was found and left untouched.
   *
   * Wherever it fails or dies, nobody can log in as a user that holds a right which is not declared: what the vendor gives by
   * itself is taken away under a password that nobody is told. Throws ROLE_UNKNOWN where the vendor does not know a declared role
   * or rule; no user is left then.
   */
  createUser(login: UserPassword, guard: Guard): Promise<'created' | 'exists'>;
  /**
   * Afterwards `next` logs in; of an idle user (`isIdle`), the privileges are the declared ones and the promise of `createUser`
   * holds on the way. Those of a user in use are not looked at: they are put in order before, and keep nobody from the new password.
   * Repeating the same change succeeds. Never waits for a rate limit.
   */
  setPassword(change: PasswordChange, guard: Guard): Promise<void>;
  /**
   * Afterwards the user holds exactly the declared privileges, and what the vendor gave by itself is gone. Where the declared ones
   * cannot be given, what is not declared is taken away all the same before it throws, unless nothing would be left.
   */
  applyPrivileges(login: UserPassword, guard: Guard): Promise<void>;
}

export interface PasswordChange {
  readonly username: string;
  /** What its password may be now, the likeliest first, for vendors that demand it. Empty where nobody knows it any more. */
  readonly current: readonly Sensitive[];
  readonly next: Sensitive;
  /**
   * No published login names this user, or its grace is over: then it may be made anew where nobody knows the current
   * password and the vendor demands it. It has the declared privileges, and no others, before `next` logs in.
   * @default false
   */
  readonly isIdle?: boolean;
}

/** The vendor makes the password, so the vendor must act before anything can be stored. */
export interface IssuingProvider extends ProviderBase {
  readonly passwords: 'chosen-by-provider';
  /**
   * Afterwards the user exists. Asked again, returns the same login, or `lost` if nobody can know its password any
   * more; a lost user is left alone.
   */
  issueUser(username: string, guard: Guard): Promise<Login | 'lost'>;
  /**
   * Afterwards the user exists and is the default, and its password was read by nobody: the user before can be deleted then.
   * Asked again, changes nothing.
   */
  placeDefault(username: string, guard: Guard): Promise<void>;
}

/**
 * `doubt` names what the vendor said that nobody here knows and that nothing is refused for. `isGone` where the vendor says that the
 * target was deleted for good. Not even then is one answer a proof.
 */
export type Readiness =
  | { readonly ready: true; readonly doubt?: string }
  | { readonly ready: false; readonly reason: string; readonly isGone?: true };

export interface DatabaseUser {
  readonly username: string;
  /** Default, original, root and built-in users, and names that we could not even address: never written to. */
  readonly isProtected: boolean;
  /** Where a target has a default user; undefined where it has none or the vendor did not say. */
  readonly isDefault?: boolean;
  /** Undefined where the vendor did not say: unknown is not zero. */
  readonly openConnections?: number;
}

export interface Endpoint {
  readonly host: string;
  readonly port: number;
  /** Where a target has only one, its name there. */
  readonly database: string;
  /** The CA of the server's certificate in PEM, where no public one signed it. */
  readonly ca?: string;
}

/** Whose login it is. Where it is sent, only the provider says, by the vendor's own word. */
export interface UserPassword {
  readonly username: string;
  readonly password: Sensitive;
}

/** All that a consumer needs: what a secret holds. Providers take no address out of it. */
export interface Login extends Endpoint, UserPassword {}

/** Whether both are the same place, down to the CA that vouches for it. */
export const sameEndpoint = (a: Endpoint, b: Endpoint): boolean =>
  a.host === b.host && a.port === b.port && a.database === b.database && a.ca === b.ca;

export type Sessions =
  /** `unseen` says which connections the reading cannot show, such as those to replicas. */
  | { readonly observed: true; readonly open: readonly Session[] | number; readonly unseen?: string }
  /** `isUnreachable` where the server was not heard at all: that says nothing of what the login may see. */
  | { readonly observed: false; readonly reason: string; readonly isUnreachable?: true };

/** `because` where the vendor keeps no connections open: there was nothing to end, and nothing was asked. */
export type EndedSessions =
  | { readonly ended: true; readonly because?: string }
  | { readonly ended: false; readonly reason: string };

export interface Session {
  readonly applicationName: string;
  readonly clientAddress: string;
  readonly startedAt?: Date;
}

export const strategies = ['replace-user', 'alternate-users', 'reset-password'] as const;
export type Strategy = (typeof strategies)[number];

export interface Capabilities {
  readonly passwords: Provider['passwords'];
  readonly strategies: readonly Strategy[];
  /** How a superseded user's connections can be seen before it is retired. */
  readonly drainObservedBy: 'user-list' | 'sql' | 'client-list' | 'nothing';
  /**
   * Whether a user is safe only after a login of ours put its privileges right: then `"verify": "none"` would publish a
   * user with the rights the vendor gave it.
   */
  readonly privilegesNeedLogin: boolean;
  /** Whether the vendor takes a new password only together with the current one. */
  readonly demandsCurrentPassword: boolean;
  /** Whether the vendor tells a password again after it was set. */
  readonly passwordReadableAgain: 'always' | 'while-default' | 'never';
  /** What the vendor lets one API key write, and what a rotation needs of it, retirement of the old user included. */
  readonly writes: { readonly perMinute: number; readonly perRotation: number };
  /**
   * How many rotations of one target may be in flight at once, at least 1. It is 1 where one rotation could change what another one
   * reads, and where the vendor carries out changes of users one after the other: more would only wait, and time out.
   */
  readonly parallelRotations: number;
}

/** What a provider is before any secret is at hand: its schemas and rules, and how to open it on one target. */
export interface ProviderDefinition<Target, Privileges> {
  readonly id: string;
  /** The `engine` of the secret value, by which existing readers choose their driver. */
  readonly engine: string;
  readonly capabilities: Capabilities;
  /** The endpoint that receives the vendor's webhooks, as its `VendorWebhooks` say. Absent if the vendor sends none. */
  readonly webhookEndpoint?: string;
  readonly targetSchema: Schema<Target>;
  readonly privilegesSchema: Schema<Privileges>;
  /** The target's own id, as it stands in secrets, events and audit records. */
  targetId(target: Target): string;
  /**
   * The target that a stored value names, so that it is looked after when the spec names another one by now. Not checked: parse it
   * with `targetSchema` before opening it.
   */
  targetOf(stored: { readonly targetId: string; readonly database: string }): Target;
  /** What a consumer can use as it is: the connection URL, and whatever else the vendor's own clients ask for. */
  ready(login: Login): Readonly<Record<string, string>> & { readonly url: string };
  open(target: OpenTarget<Target, Privileges>, ports: Ports): Provider;
}

/** A definition of which only its own schemas know the shapes: what they parsed may be handed to `open`. */
export type AnyProviderDefinition = ProviderDefinition<unknown, unknown>;

export interface OpenTarget<Target, Privileges> {
  readonly target: Target;
  readonly privileges: Privileges;
  readonly apiKey: Sensitive;
  /** @default a refused key is final */
  readonly keyRenewal?: KeyRenewal | undefined;
  /** A standing SQL administrator, where the user chose to give one. */
  readonly admin?: { readonly username: string; readonly password: Sensitive };
  /** No wait goes past this instant: the function would be killed in the middle of a call. */
  readonly until: Date;
}

/** Keys are replaced while an instance still has the one before. */
export interface KeyRenewal {
  /** The key that goes out instead of the one of the visit, since that was refused. */
  readonly renewed: Sensitive | undefined;
  /** Asked after the vendor refused this key. Whether another one is at hand now. */
  renew(refused: Sensitive): Promise<boolean>;
}

export interface LoadProvider {
  (id: string): Promise<AnyProviderDefinition | undefined>;
  /** The ids of all providers. @default not told */
  readonly ids?: readonly string[];
}
