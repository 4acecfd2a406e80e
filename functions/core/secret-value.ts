import * as z from 'zod/mini';
import { InputError } from './errors.ts';
import { faults } from './faults.ts';
import { jsonOf } from './json.ts';
import type { AnyProviderDefinition, Login } from './provider.ts';
import { Sensitive } from './sensitive.ts';

/**
 * The first value of every secret: it names no user. AWSCURRENT must exist before a rotation can run, and CloudFormation
 * writes a changed value over whatever password is live: this text never changes (pinned by a test).
 */
export const firstSecretString = '{"rekey":"no user yet; the first rotation makes one"}';

/** What a consumer reads: AWS's field names, so that existing readers work, a ready `url`, and where it belongs. */
const credentialSchema = z.object({
  engine: z.string().check(z.minLength(1)),
  host: z.string().check(z.minLength(1)),
  port: z.int().check(z.minimum(1), z.maximum(65_535)),
  username: z.string().check(z.minLength(1)),
  password: z.string().check(z.minLength(1)),
  dbname: z.string().check(z.minLength(1)),
  url: z.string().check(z.minLength(1)),
  provider: z.string().check(z.minLength(1)),
  target: z.string().check(z.minLength(1)),
  /** The CA to trust for this server, in PEM, where no public one signed its certificate. */
  ca: z.optional(z.string().check(z.minLength(1))),
  /** What the spec declared when this login was made: other rights of today's spec are a change of the spec, and no drift. */
  privileges: z.optional(z.unknown()),
  /**
   * The version that this user was made or adopted for, where that is an earlier one: Secrets Manager drops old versions, and without
   * it nothing would prove any more whose the user is. Believed only as far as the name is derived from it.
   */
  userVersion: z.optional(z.string().check(z.minLength(1), z.maxLength(64))),
});

export type SecretValue =
  | { readonly kind: 'no-user' }
  | {
      readonly kind: 'login';
      readonly login: Login;
      readonly provider: string;
      readonly target: string;
      /** Undefined where the value does not say. */
      readonly privileges: unknown;
      readonly userVersion?: string;
    };

/** Reads a stored value. Throws SECRET_INVALID with every wrong field, never with a value. */
export function parseSecretValue(stored: Sensitive, where: string): SecretValue {
  if (stored.reveal() === firstSecretString) return { kind: 'no-user' };
  const parsed = credentialSchema.safeParse(jsonOf(stored.reveal()));
  if (!parsed.success)
    throw new InputError(
      'SECRET_INVALID',
      `${where}: ${faults(parsed.error)}; put back a value that rekey wrote, or delete the credential and request it again`,
    );
  const { host, port, username, password, dbname, provider, target, ca, privileges, userVersion } =
    parsed.data;
  return {
    kind: 'login',
    login: {
      host,
      port,
      database: dbname,
      username,
      password: new Sensitive(password),
      ...(ca === undefined ? {} : { ca }),
    },
    provider,
    target,
    privileges,
    ...(userVersion === undefined ? {} : { userVersion }),
  };
}

export interface Belonging {
  readonly definition: Pick<AnyProviderDefinition, 'id' | 'engine' | 'ready'>;
  readonly targetId: string;
  readonly privileges?: unknown;
  /** The version that the user was made or adopted for, where that is not the one to be stored. */
  readonly userVersion?: string | undefined;
}

/** The stored form of a login. `parseSecretValue` of it gives the same login back. */
export function secretString(
  login: Login,
  { definition, targetId, privileges, userVersion }: Belonging,
): Sensitive {
  return new Sensitive(
    JSON.stringify({
      engine: definition.engine,
      host: login.host,
      port: login.port,
      username: login.username,
      password: login.password.reveal(),
      dbname: login.database,
      ...definition.ready(login),
      provider: definition.id,
      target: targetId,
      ...(login.ca === undefined ? {} : { ca: login.ca }),
      ...(privileges === undefined ? {} : { privileges }),
      ...(userVersion === undefined ? {} : { userVersion }),
    } satisfies z.input<typeof credentialSchema>),
  );
}

/** The key in an API-key secret: the bare key, or `{"apiKey": "…"}`. */
export function parseApiKey(stored: Sensitive, where: string): Sensitive {
  const text = stored.reveal().trim();
  const key = text.startsWith('{') ? apiKeyField(text) : text;
  if (key === undefined || !/^[\x21-\x7e]+$/.test(key))
    throw new InputError(
      'SECRET_INVALID',
      `${where} holds no API key: expected the bare key, or JSON {"apiKey": "…"}, without blanks; store the key again`,
    );
  return new Sensitive(key);
}

function apiKeyField(text: string): string | undefined {
  const parsed = z.object({ apiKey: z.string() }).safeParse(jsonOf(text));
  return parsed.success ? parsed.data.apiKey : undefined;
}

const userSchema = z.object({
  username: z.string().check(z.minLength(1)),
  password: z.string().check(z.minLength(1)),
});

/** The user and password in a secret that the user keeps, an administrator's or one to adopt, in AWS's field names. */
export function parseUser(stored: Sensitive, where: string): { username: string; password: Sensitive } {
  const parsed = userSchema.safeParse(jsonOf(stored.reveal()));
  if (!parsed.success)
    throw new InputError(
      'SECRET_INVALID',
      `${where}: ${faults(parsed.error)}; store {"username", "password"} in it`,
    );
  return { username: parsed.data.username, password: new Sensitive(parsed.data.password) };
}
