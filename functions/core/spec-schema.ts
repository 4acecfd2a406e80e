import * as z from 'zod/mini';
import type { AnyConsumerDefinition, DeclaredConsumer } from './consumer.ts';
import { durationMs } from './duration.ts';
import { InputError } from './errors.ts';
import { eachFault } from './faults.ts';
import { intervalFaults } from './interval.ts';
import { adminSecretPrefix, adoptSecretPrefix, apiKeySecretPrefix, credentialNamePattern } from './names.ts';
import { type AnyProviderDefinition, strategies } from './provider.ts';
import { type CredentialSpec, dayMs, everyMs, graceMs, type Plugins, restMs } from './spec.ts';
import { usernamePattern, usernamePrefixPattern } from './username.ts';

/** Secrets Manager's own schedule, the back-stop two days later, takes 1 to 1000 days (AWS documentation). */
const wholeDays = z.string().check(
  z.refine(
    (text) => {
      const ms = durationMs(text);
      return ms !== undefined && ms % dayMs === 0 && ms >= dayMs && ms <= 998 * dayMs;
    },
    { error: 'expected 1 to 998 whole days as an ISO 8601 duration, such as P30D' },
  ),
);

const duration = z.string().check(
  z.refine((text) => durationMs(text) !== undefined, {
    error: 'expected an ISO 8601 duration of weeks, days, hours, minutes or seconds, such as PT24H',
  }),
);

const secretNamed = (prefix: string) =>
  z.string().check(
    z.regex(new RegExp(`^${prefix}[A-Za-z0-9/_+=.@-]+$`), {
      error: `expected the name of a secret under ${prefix}, where the functions may read it`,
    }),
  );

const positiveDuration = duration.check(
  z.refine((text) => durationMs(text) !== 0, {
    error: 'expected a duration longer than nothing',
  }),
);

const days = ['MO', 'TU', 'WE', 'TH', 'FR', 'SA', 'SU'] as const;
export type Day = (typeof days)[number];

const windowSchema = z.strictObject({
  /** When it opens, by the clock on the wall of its time zone. */
  start: z
    .string()
    .check(z.regex(/^([01]\d|2[0-3]):[0-5]\d$/, { error: 'expected a time from 00:00 to 23:59' })),
  /** At most a day; it may reach past midnight. */
  length: positiveDuration.check(
    z.refine((text) => (durationMs(text) ?? 0) <= dayMs, {
      error: 'expected at most PT24H',
    }),
  ),
  /** The days on which it opens. @default every day */
  days: z._default(
    z
      .array(z.enum(days))
      .check(z.minLength(1, { error: 'expected at least one day, or no field for every day' })),
    [...days],
  ),
  timeZone: z._default(z.string(), 'UTC'),
});

const blackoutSchema = z.strictObject({
  /** The first and the last day without rotations, in the window's time zone. */
  from: z.iso.date({ error: 'expected a date such as 2026-12-20' }),
  to: z.iso.date({ error: 'expected a date such as 2027-01-03' }),
});

const rotationSchema = z.strictObject({
  every: z._default(wholeDays, 'P30D'),
  window: z.optional(windowSchema),
  blackouts: z._default(z.array(blackoutSchema), []),
});

/** A user that exists already, for whom nothing changes until the first rotation. */
const adoptSchema = z.strictObject({
  username: z.string().check(
    z.regex(usernamePattern, {
      error:
        'expected a lower-case letter, then up to 31 of a-z, 0-9 and underscore: rekey addresses no other names',
    }),
  ),
  /** Holds `{"username", "password"}`, as AWS names them. */
  passwordSecret: secretNamed(adoptSecretPrefix),
  /** Whether that user is retired like any superseded one after the first rotation. @default false, it is left alone */
  retire: z._default(z.boolean(), false),
});

export const specSchema = z.strictObject({
  name: z.string().check(
    z.regex(credentialNamePattern, {
      error: 'expected a lower-case letter, then up to 62 of a-z, 0-9 and hyphen',
    }),
  ),
  provider: z.string(),
  target: z.unknown(),
  apiKeySecret: secretNamed(apiKeySecretPrefix),
  adminSecret: z.optional(secretNamed(adminSecretPrefix)),
  usernamePrefix: z.string().check(
    z.regex(usernamePrefixPattern, {
      error:
        'expected a lower-case letter, then up to 18 of a-z, 0-9 and single underscores, not at the end; not pg, sso or crdb_internal',
    }),
  ),
  strategy: z._default(z.enum(strategies), 'replace-user'),
  privileges: z._default(z.unknown(), {}),
  rotation: z._default(rotationSchema, { every: 'P30D', blackouts: [] }),
  grace: z._default(duration, 'PT24H'),
  /** What happens to a superseded user if clients are still connected as it after its grace. */
  drain: z._default(
    z.strictObject({
      /** Counted from the end of the grace; then there is an alarm. */
      deadline: z._default(duration, 'P7D'),
      /** Whether connections that are left at the deadline are cut. */
      force: z._default(z.boolean(), false),
    }),
    { deadline: 'P7D', force: false },
  ),
  consumers: z._default(z.array(z.looseObject({ kind: z.string() })), []),
  /** The credential deletes itself then: users first, then the secret. @default it stays */
  expiresAt: z.optional(
    z.iso.datetime({ offset: true, error: 'expected an instant such as 2026-12-31T18:00:00Z' }),
  ),
  adopt: z.optional(adoptSchema),
  verify: z._default(z.enum(['login', 'none']), 'login'),
});

/** What is compared with each other, if it holds in itself. */
const timingSchema = z.object({
  strategy: specSchema.shape.strategy,
  rotation: specSchema.shape.rotation,
  grace: specSchema.shape.grace,
});

/** What knows time zones. */
export interface Calendar {
  isTimeZone(name: string): boolean;
  /** What keeps a rotation from ever being on time, each with the remedy. */
  calendarFaults(rotation: CredentialSpec['rotation'], restMs: number): readonly string[];
}

/** For a rotation that may start at any time. */
const anyTime: Calendar = {
  isTimeZone: () => true,
  calendarFaults: ({ every }, restMs) => intervalFaults(every, restMs),
};

/** The spec in `document`, with defaults filled in. Throws SPEC_INVALID that names every wrong field at once. */
export async function parseSpec(
  document: unknown,
  { loadProvider, loadConsumer }: Plugins,
): Promise<CredentialSpec> {
  const { provider, consumers, rotation } = looseSchema.parse(document);
  const definition = await loadProvider(provider);
  const kinds = new Map(
    await Promise.all(
      consumers.map(
        async ({ kind }): Promise<[string, AnyConsumerDefinition | undefined]> => [
          kind,
          await loadConsumer(kind),
        ],
      ),
    ),
  );
  const isTimed = rotation.window !== undefined || rotation.blackouts.length > 0;
  // Time zones come with a large library, which most specs do not need.
  const calendar = isTimed ? await import('./calendar.ts') : anyTime;
  const read = specOf(document, { definition, consumerOf: (kind) => kinds.get(kind), calendar });
  if (read.faults !== undefined)
    throw new InputError(
      'SPEC_INVALID',
      `${read.faults.join('; ')}; correct the spec and send it again, nothing was changed`,
    );
  return read.spec;
}

/**
 * The same for whoever has the provider's definition at hand, or found that there is none. Answers every wrong field, each as
 * `<field>: <what was expected>`.
 */
export function specOf(
  document: unknown,
  {
    definition,
    consumerOf,
    calendar,
  }: {
    readonly definition: AnyProviderDefinition | undefined;
    readonly consumerOf: (kind: string) => AnyConsumerDefinition | undefined;
    readonly calendar: Calendar;
  },
):
  | { readonly spec: CredentialSpec; readonly faults?: undefined }
  | { readonly spec?: undefined; readonly faults: readonly string[] } {
  const general = specSchema.safeParse(document);
  const wrong = general.success ? [] : [...eachFault(general.error)];

  // What provider and consumers say of themselves is read even when the general part is wrong, so that one answer names everything.
  const {
    provider,
    target,
    privileges,
    strategy,
    verify,
    rotation: { window },
    consumers: declarations,
  } = looseSchema.parse(document);
  if (definition === undefined)
    wrong.push(`provider: expected a provider that rekey has, got ${JSON.stringify(provider)}`);
  const parsedTarget = definition?.targetSchema.safeParse(target);
  const parsedPrivileges = definition?.privilegesSchema.safeParse(privileges);
  if (parsedTarget?.error) wrong.push(...eachFault(parsedTarget.error, 'target'));
  if (parsedPrivileges?.error) wrong.push(...eachFault(parsedPrivileges.error, 'privileges'));
  const possible: readonly string[] = definition?.capabilities.strategies ?? strategies;
  if (strategies.some((known) => known === strategy) && !possible.includes(strategy))
    wrong.push(`strategy: expected one that ${provider} can do (${possible.join(', ')}), got ${strategy}`);

  if (verify === 'none' && definition?.capabilities.privilegesNeedLogin)
    wrong.push(
      `verify: expected login, as only a login can take away the rights that ${provider} gives a new user`,
    );

  const isZoneKnown = window?.timeZone === undefined || calendar.isTimeZone(window.timeZone);
  if (!isZoneKnown)
    wrong.push('rotation.window.timeZone: expected a time zone of the IANA database, such as Europe/Berlin');
  const timing = timingSchema.safeParse(document);
  if (timing.success && isZoneKnown)
    wrong.push(
      ...calendar.calendarFaults(timing.data.rotation, restMs(timing.data)),
      ...graceFaults(timing.data),
    );

  const consumers: DeclaredConsumer[] = [];
  for (const [index, declared] of declarations.entries()) {
    // Told above.
    if (declared.kind === '') continue;
    const kind = consumerOf(declared.kind);
    const parsed = kind?.schema.safeParse(declared);
    if (kind === undefined)
      wrong.push(
        `consumers.${index}.kind: expected a kind of consumer that rekey has, got ${JSON.stringify(declared.kind)}`,
      );
    else if (parsed?.success) consumers.push({ definition: kind, settings: parsed.data });
    else if (parsed?.error) wrong.push(...eachFault(parsed.error, `consumers.${index}`));
  }

  if (
    wrong.length > 0 ||
    !general.success ||
    !definition ||
    !parsedTarget?.success ||
    !parsedPrivileges?.success
  )
    return { faults: wrong };
  return {
    spec: {
      ...general.data,
      target: parsedTarget.data,
      privileges: parsedPrivileges.data,
      consumers,
      definition,
      targetId: definition.targetId(parsedTarget.data),
    },
  };
}

const looseSchema = z.catch(
  z.object({
    provider: z.catch(z.string(), ''),
    target: z.unknown(),
    privileges: z._default(z.unknown(), {}),
    strategy: z._default(z.catch(z.string(), ''), 'replace-user'),
    verify: z.catch(z.string(), ''),
    rotation: z.catch(
      z.object({
        window: z.optional(z.catch(z.object({ timeZone: z.catch(z.optional(z.string()), undefined) }), {})),
        blackouts: z.catch(z.array(z.unknown()), []),
      }),
      { blackouts: [] },
    ),
    consumers: z.catch(z.array(z.catch(z.looseObject({ kind: z.string() }), { kind: '' })), []),
  }),
  {
    provider: '',
    target: undefined,
    privileges: {},
    strategy: '',
    verify: '',
    rotation: { blackouts: [] },
    consumers: [],
  },
);

/**
 * A user is retired once its grace is over, counted from the last switch that can be known. Rotations may come at three quarters
 * of the interval; a grace that is not clearly shorter would start over with each rotation, and no user would ever be retired.
 */
const graceFaults = (spec: Pick<CredentialSpec, 'strategy' | 'grace' | 'rotation'>): readonly string[] =>
  spec.strategy === 'replace-user' && graceMs(spec) > everyMs(spec) / 2
    ? [
        `grace: expected at most half of rotation.every (${spec.rotation.every}), got ${spec.grace}; rotate less often, or shorten the grace`,
      ]
    : [];
