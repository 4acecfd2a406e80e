import type { Guard } from './guard.ts';
import type { Ports } from './ports.ts';
import type { Schema } from './schema.ts';
import type { Sensitive } from './sensitive.ts';

/**
 * The contract of a consumer that cannot read Secrets Manager: a kind is a file in functions/consumers/. Whether it has moved
 * to the current login is read where it runs, each time, and never remembered.
 */
export interface Consumer {
  /** Where it stands; changes nothing. */
  standing(): Promise<ConsumerStanding>;
  /** Brings it one step nearer, without waiting for what takes minutes. Repeating it changes nothing that is done. */
  advance(): Promise<ConsumerStanding>;
}

export type ConsumerStanding =
  /** It runs with the current login. */
  | { readonly say: 'moved' }
  /** It was told, and is on its way. */
  | { readonly say: 'moving'; readonly details: string }
  /** It was not told yet, or not of this login. */
  | { readonly say: 'behind'; readonly details: string }
  /** It was told and did not come up: a person has to look. */
  | { readonly say: 'failed'; readonly details: string; readonly remedy: string }
  /** It was told; nobody can see whether it listened. Then the grace alone decides. */
  | { readonly say: 'unobservable'; readonly details: string };

/** The login that a consumer should have. */
export interface WantedLogin {
  readonly credential: string;
  readonly secretArn: string;
  readonly versionId: string;
  /** A field of the secret value, such as `url`; undefined where the value has none of that name. */
  field(name: string): Sensitive | undefined;
}

export interface ConsumerAccess {
  readonly apiKey: Sensitive | undefined;
  readonly until: Date;
  /** The reasons for every write: the login is still the current one. */
  readonly guard: Guard;
}

export interface ConsumerDefinition<Settings> {
  readonly kind: string;
  readonly schema: Schema<Settings>;
  /** For findings and events: which one it is, among those of its kind. */
  label(settings: Settings): string;
  /** The secret that holds the key to its platform, where it takes one. */
  apiKeySecret(settings: Settings): string | undefined;
  open(settings: Settings, wanted: WantedLogin, access: ConsumerAccess, ports: Ports): Consumer;
}

/** A definition of which only its own schema knows the shape: what it parsed may be handed back to it. */
export type AnyConsumerDefinition = ConsumerDefinition<unknown>;
export type LoadConsumer = (kind: string) => Promise<AnyConsumerDefinition | undefined>;

/** A consumer as a spec declares it. */
export interface DeclaredConsumer {
  readonly settings: unknown;
  readonly definition: AnyConsumerDefinition;
}
