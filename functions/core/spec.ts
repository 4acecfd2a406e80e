import { z } from 'zod';
import { durationMs } from './duration.ts';
import { InputError } from './errors.ts';
import { faults } from './faults.ts';
import { adminSecretPrefix, apiKeySecretPrefix, credentialNamePattern } from './names.ts';
import type { AnyProviderDefinition, LoadProvider } from './provider.ts';
import { strategies } from './provider.ts';
import { usernamePrefixPattern } from './username.ts';

const dayMs = 86_400_000;

const wholeDays = z.string().refine(
  (text) => {
    const ms = durationMs(text);
    return ms !== undefined && ms % dayMs === 0 && ms >= dayMs && ms <= 1000 * dayMs;
  },
  { error: 'expected 1 to 1000 whole days as an ISO 8601 duration, such as P30D' },
);

const duration = z.string().refine((text) => durationMs(text) !== undefined, {
  error: 'expected an ISO 8601 duration of weeks, days, hours, minutes or seconds, such as PT24H',
});

const secretNamed = (prefix: string) =>
  z.string().regex(new RegExp(`^${prefix}[A-Za-z0-9/_+=.@-]+$`), {
    error: `expected the name of a secret under ${prefix}, where the functions may read it`,
  });

const specSchema = z.strictObject({
  name: z.string().regex(credentialNamePattern, {
    error: 'expected a lower-case letter, then up to 62 of a-z, 0-9 and hyphen',
  }),
  provider: z.string(),
  target: z.unknown(),
  apiKeySecret: secretNamed(apiKeySecretPrefix),
  adminSecret: secretNamed(adminSecretPrefix).optional(),
  usernamePrefix: z.string().regex(usernamePrefixPattern, {
    error:
      'expected a lower-case letter, then up to 18 of a-z, 0-9 and single underscores, not at the end; not pg, sso or crdb_internal',
  }),
  strategy: z.enum(strategies).default('replace-user'),
  privileges: z.unknown().default({}),
  rotation: z.strictObject({ every: wholeDays }).default({ every: 'P30D' }),
  grace: duration.default('PT24H'),
  verify: z.enum(['login', 'none']).default('login'),
});

/** What a user writes: the desired state of one credential. `target` and `privileges` are the provider's own shapes. */
export type CredentialSpecInput = z.input<typeof specSchema>;

/** A spec that holds in itself and at its provider. */
export interface CredentialSpec extends z.output<typeof specSchema> {
  readonly definition: AnyProviderDefinition;
  readonly targetId: string;
}

/** The spec in `document`, with defaults filled in. Throws SPEC_INVALID that names every wrong field at once. */
export async function parseSpec(document: unknown, load: LoadProvider): Promise<CredentialSpec> {
  const general = specSchema.safeParse(document);
  const wrong = general.success ? [] : [faults(general.error)];

  // The provider's own part is read even when the general part is wrong, so that one answer names everything.
  const { provider, target, privileges, strategy, verify } = looseSchema.parse(document);
  const definition = await load(provider);
  if (definition === undefined)
    wrong.push(`provider: expected a provider that rekey has, got ${JSON.stringify(provider)}`);
  const parsedTarget = definition?.targetSchema.safeParse(target);
  const parsedPrivileges = definition?.privilegesSchema.safeParse(privileges);
  if (parsedTarget?.error) wrong.push(faults(prefixed('target', parsedTarget.error)));
  if (parsedPrivileges?.error) wrong.push(faults(prefixed('privileges', parsedPrivileges.error)));
  const possible: readonly string[] = definition?.capabilities.strategies ?? strategies;
  if (strategies.some((known) => known === strategy) && !possible.includes(strategy))
    wrong.push(`strategy: expected one that ${provider} can do (${possible.join(', ')}), got ${strategy}`);

  if (verify === 'none' && definition?.capabilities.privilegesNeedLogin)
    wrong.push(
      `verify: expected login, as only a login can take away the rights that ${provider} gives a new user`,
    );

  if (
    wrong.length > 0 ||
    !general.success ||
    !definition ||
    !parsedTarget?.success ||
    !parsedPrivileges?.success
  )
    throw new InputError(
      'SPEC_INVALID',
      `${wrong.join('; ')}; correct the spec and send it again, nothing was changed`,
    );
  return {
    ...general.data,
    target: parsedTarget.data,
    privileges: parsedPrivileges.data,
    definition,
    targetId: definition.targetId(parsedTarget.data),
  };
}

/** The document to store: the spec as parsed, in one canonical order of fields, so that equal specs are equal texts. */
export function specDocument({
  definition: _definition,
  targetId: _targetId,
  ...spec
}: CredentialSpec): string {
  return JSON.stringify(spec, (_key, value: unknown) =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
}

const looseSchema = z
  .object({
    provider: z.string().catch(''),
    target: z.unknown(),
    privileges: z.unknown().default({}),
    strategy: z.string().catch('').default('replace-user'),
    verify: z.string().catch(''),
  })
  .catch({ provider: '', target: undefined, privileges: {}, strategy: '', verify: '' });

const prefixed = (field: string, error: z.ZodError): z.ZodError =>
  new z.ZodError(error.issues.map((issue) => ({ ...issue, path: [field, ...issue.path] })));

export const everyDays = (spec: Pick<CredentialSpec, 'rotation'>): number =>
  (durationMs(spec.rotation.every) ?? Number.NaN) / dayMs;

export const graceMs = (spec: Pick<CredentialSpec, 'grace'>): number => durationMs(spec.grace) ?? Number.NaN;
