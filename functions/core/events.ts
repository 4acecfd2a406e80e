import * as z from 'zod/mini';
import type { StartOrders } from './directives.ts';
import { InputError } from './errors.ts';
import { faults } from './faults.ts';
import type { Finding, Repair } from './findings.ts';
import { jsonOf } from './json.ts';
import { credentialNamePattern } from './names.ts';
import { Sensitive } from './sensitive.ts';

/** What happened, in the past tense. Ids only: never a password, a connection string or a token that proves anything. */
export type RekeyEvent =
  /** Asks create-user once more for a declared credential whose user is still to be adopted. */
  | {
      readonly type: typeof credentialRequested;
      readonly detail: { readonly spec: Readonly<Record<string, unknown>> };
    }
  | { readonly type: 'CredentialCreated'; readonly detail: CredentialFacts }
  | {
      readonly type: 'CredentialRotated';
      readonly detail: RotationFacts & {
        readonly username: string;
        /** How the new login was proved before it was published. */
        readonly evidence: 'logged-in' | 'not-tested';
        /** reset-password only: AWSCURRENT was refused for at most this long. */
        readonly currentRefusedAtMostMs?: number;
      };
    }
  | {
      readonly type: 'CredentialRotationFailed';
      readonly detail: RotationFacts & {
        readonly step: string;
        readonly code: string;
        readonly effect: string;
      };
    }
  /**
   * The intent, published before the provider is asked to make this user, or to give it the password or the privileges of this
   * version. Outcomes are DatabaseUserCreated or DatabaseUserPasswordChanged, then CredentialRotated or CredentialRotationFailed;
   * of a repair DriftRepaired or DriftRepairFailed; DatabaseUserChangeFailed where none of these would say that it failed.
   */
  | { readonly type: 'DatabaseUserPlanned'; readonly detail: UserChange }
  /** The outcome where the user was there before. */
  | { readonly type: 'DatabaseUserPasswordChanged'; readonly detail: UserChange }
  | { readonly type: 'DatabaseUserCreated'; readonly detail: UserChange }
  /** The outcome where the provider did not make or change the user, or did not say that it has. */
  | { readonly type: 'DatabaseUserChangeFailed'; readonly detail: UserChange & FailedCall }
  /** The credential names a user that was there before; nothing was changed at the provider. */
  | { readonly type: 'CredentialAdopted'; readonly detail: CredentialFacts & { readonly username: string } }
  /** Its users and its secret are gone; the secret can be restored for some days, its login cannot. */
  | {
      readonly type: 'CredentialDeleted';
      readonly detail: CredentialFacts & {
        readonly reason: 'requested' | 'expired';
        /** Targets whose users nobody could delete any more, and how that was known. */
        readonly targetsGone?: readonly TargetGone[];
      };
    }
  /** The intent, published before the provider is asked to end the user's connections, where the evidence says so, and to delete it. */
  | {
      readonly type: 'DatabaseUserRetired';
      readonly detail: UserFacts & { readonly evidence: DrainEvidence };
    }
  /** The outcome: the provider's list no longer has the user. */
  | {
      readonly type: 'DatabaseUserDeleted';
      readonly detail: UserFacts & {
        readonly outcome: 'deleted' | 'absent';
        /** What came of its connections; absent where a later pass only finds the user gone. */
        readonly evidence?: DrainEvidence;
      };
    }
  /**
   * The outcome where the provider did not delete the user, or did not say that it has. Every pass tries again: neither that nor
   * the same outcome is told again, until something else comes of it.
   */
  | {
      readonly type: 'DatabaseUserDeletionFailed';
      readonly detail: UserFacts & FailedCall & { readonly evidence: DrainEvidence };
    }
  /** The intent, published before the provider is asked to end the connections of a revoked password, of a user that stays. */
  | { readonly type: 'DatabaseSessionsEndPlanned'; readonly detail: SessionsEnd }
  /** The outcome. */
  | {
      readonly type: 'DatabaseSessionsEnded';
      readonly detail: SessionsEnd & { readonly outcome: 'ended' | 'not-ended'; readonly because?: string };
    }
  /**
   * The intent, published before the first write to a consumer. Outcomes are ConsumerUpdated or ConsumerLeftBehind; where it was
   * found behind DriftRepaired or DriftRepairFailed.
   */
  | {
      readonly type: 'ConsumerUpdatePlanned';
      readonly detail: RotationFacts & { readonly consumer: string };
    }
  | {
      readonly type: 'ConsumerUpdated';
      readonly detail: CredentialFacts & {
        readonly versionId: string;
        readonly consumer: string;
        /** `told` where nobody can see whether it listened. */
        readonly outcome: 'moved' | 'told';
      };
    }
  /** The outcome where the run ended and the consumer had not moved: reconcile-users looks after it from here on. */
  | {
      readonly type: 'ConsumerLeftBehind';
      readonly detail: RotationFacts & {
        readonly consumer: string;
        /** How it stood when it was looked at last, or the code of what kept it from being asked. */
        readonly because: string;
      };
    }
  /** An order that changes nothing, and why. */
  | { readonly type: 'OrderIgnored'; readonly detail: IgnoredOrder }
  /** A vendor told us of something, and proved to be that vendor. It says where to look, and is no reason to change anything. */
  | { readonly type: 'ProviderEventReceived'; readonly detail: ProviderEvent }
  /** The list of the target's users has one more, or one less, than when it was looked at before. */
  | { readonly type: 'DatabaseUserAppeared' | 'DatabaseUserDisappeared'; readonly detail: UserSighting }
  | { readonly type: 'DriftFound'; readonly detail: Finding }
  | { readonly type: 'DriftRepaired'; readonly detail: Finding & { readonly repair: Repair } }
  /** The repair was begun and has failed; the next pass tries again. */
  | {
      readonly type: 'DriftRepairFailed';
      readonly detail: Finding & {
        readonly repair: Repair;
        readonly code: string;
        readonly effect: string;
      };
    }
  | {
      readonly type: 'BreakerChanged';
      readonly detail: {
        readonly provider: string;
        readonly target: string;
        readonly state: 'opened' | 'half-open' | 'closed';
        /** Rotations of this target that failed since one succeeded; a credential that was in quarantine then does not count. */
        readonly failures: number;
      };
    };

export interface IgnoredOrder {
  /** The order's detail type. */
  readonly order: string;
  readonly credential?: string;
  readonly provider?: string;
  readonly target?: string;
  /** The time of the order's event. */
  readonly orderedAt: string;
  readonly because: string;
}

export interface ProviderEvent {
  /** The vendor, by the name of its webhook endpoint: it sends events of all its services. */
  readonly provider: string;
  /** The vendor's id of the event, the same in every delivery of it. */
  readonly providerEventId: string;
  /** In the vendor's words; an open string. */
  readonly providerEventType: string;
  /** When it happened, as the vendor says; absent where that cannot be read. */
  readonly happenedAt?: string;
  /** The vendor's id of what it happened to, a target of ours or not; absent where the vendor named none. */
  readonly target?: string;
  /** Learned from the vendor's own record of sent webhooks, and not from a delivery. @default false */
  readonly isCaughtUp?: boolean;
}

/** A difference between two lists of a target's users. */
export interface UserSighting {
  readonly provider: string;
  readonly target: string;
  readonly username: string;
  /** `expected` where the name is one that rekey derives for a credential, or that its values name; `foreign` otherwise. */
  readonly standing: 'expected' | 'foreign';
  /** Whose user it is or was, and the version that it was made for, where rekey made it. */
  readonly credential?: string;
  readonly versionId?: string;
  /** The vendor's event about it: told by a webhook, and matched by what the vendor says of the event or by being the only one. */
  readonly providerEventId?: string;
  /** A webhook should have told of it and has not, as far as is known when it is seen. @default false */
  readonly isCaughtUp?: boolean;
}

/** How it was known that a target is gone: by what the vendor said, again and again, or by it and the order. */
export interface TargetGone {
  readonly target: string;
  /** When the vendor said so first and last, without once saying otherwise in between, and how often. */
  readonly since: string;
  readonly lastSeenGoneAt: string;
  readonly sightings: number;
  /** What the vendor said. */
  readonly evidence: string;
  /** When the deletion was ordered with `targetIsGone`: then once is enough. */
  readonly orderedAt?: string;
}

export interface FailedCall {
  readonly code: string;
  /** What the call did at the provider: of `unknown`, what is there afterwards will tell. */
  readonly effect: string;
}

export interface UserFacts extends CredentialFacts {
  readonly username: string;
  /** Why it is of no use any more. */
  readonly reason: 'superseded' | 'revoked' | 'credential-deleted' | 'never-published';
}

/** How it was known that nobody is connected, or why that did not matter. */
export type DrainEvidence =
  /** `unseen`: connections that the readings cannot show. */
  | { readonly drain: 'nobody-connected-twice'; readonly unseen?: string }
  | { readonly drain: 'not-observed'; readonly because: string }
  /** Before the provider is asked; what came of it is one of the last three. */
  | { readonly drain: 'connections-to-be-ended'; readonly because: string }
  | { readonly drain: 'connections-ended' | 'connections-not-ended'; readonly because: string }
  /** The vendor keeps no connections open, so nobody was asked to end any. */
  | { readonly drain: 'no-connections'; readonly because: string };

export interface CredentialFacts {
  readonly credential: string;
  readonly provider: string;
  readonly target: string;
  readonly strategy: string;
}

export interface RotationFacts extends CredentialFacts {
  readonly secretArn: string;
  /** The version that is being made: the rotation's ClientRequestToken. */
  readonly versionId: string;
}

/** Which user is made or changed, for which login. */
export interface UserChange extends CredentialFacts {
  readonly secretArn: string;
  /** Absent where the user only stands in as the default, and no secret ever holds its login. */
  readonly versionId?: string;
  readonly username: string;
  /** What is being repaired, outside any rotation. */
  readonly repair?: Repair;
}

export interface SessionsEnd extends RotationFacts {
  readonly username: string;
  /** Younger connections stay, as they may have the new password. */
  readonly openedBefore: string;
}

/** The event that asks for a new credential: `detail` holds the spec. */
export const credentialRequested = 'CredentialRequested';

const instant = z.iso.datetime({ offset: true });

const credentialRequestedSchema = z.object({
  source: z.string(),
  'detail-type': z.literal(credentialRequested),
  time: instant,
  detail: z.object({ spec: z.record(z.string(), z.unknown()) }),
});

/** What a `CredentialRequested` event asks for, and when. */
export interface CredentialRequest {
  /** Still unread. */
  readonly spec: unknown;
  /** The event's own time: the same in every delivery and replay of it. */
  readonly requestedAt: Date;
}

/** Throws EVENT_INVALID that names every wrong field. */
export function parseCredentialRequested(event: unknown): CredentialRequest {
  const parsed = credentialRequestedSchema.safeParse(event);
  if (!parsed.success)
    throw new InputError(
      'EVENT_INVALID',
      `${faults(parsed.error)}; send {"source", "detail-type": "${credentialRequested}", "detail": {"spec": {…}}}`,
    );
  const { time, detail } = parsed.data;
  return { spec: detail.spec, requestedAt: new Date(time) };
}

/** The events that order something for a credential that exists: `detail` holds its name. */
export const credentialOrders = [
  'CredentialRotationRequested',
  'CredentialCompromised',
  'CredentialDeletionRequested',
] as const;
export type CredentialOrder = (typeof credentialOrders)[number];

/** The events that stop every write to targets, and let writes go on: `detail` holds one target, or nothing for all of them. */
export const pauseOrders = ['RekeyPaused', 'RekeyResumed'] as const;
export type PauseOrder = (typeof pauseOrders)[number];

/** What a schedule sends: everything else is read from the world. `dryRun` says what would be done, and does nothing. */
export const scheduledPass = { pass: 'scheduled' } as const;

/** What made one of the functions run that look after all credentials. Each only says where to look sooner. */
export type Invocation =
  | { readonly is: 'pass'; readonly dryRun: boolean }
  /** `orderedAt` is the event's own time: one that comes twice or late orders nothing new. */
  | {
      readonly is: 'order';
      readonly order: CredentialOrder;
      readonly credential: string;
      readonly orderedAt: Date;
      /** CredentialCompromised: the last logins that work go even where the login of AWSCURRENT is not accepted. @default false */
      readonly evenIfLockedOut?: true;
      /** CredentialDeletionRequested: the target is gone for good, so there are no users to delete. @default false */
      readonly targetIsGone?: true;
    }
  | {
      readonly is: 'pause';
      readonly order: PauseOrder;
      /** Undefined for every target. */
      readonly on: { readonly provider: string; readonly targetId: string } | undefined;
      readonly orderedAt: Date;
    }
  /** A credential was rotated: its target may have work for others. */
  | { readonly is: 'rotated'; readonly credential: string }
  /** Messages of the queue of targets; the bodies are still unread. */
  | {
      readonly is: 'messages';
      readonly messages: readonly { readonly id: string; readonly body: string }[];
    }
  /** Messages of the queue of starts. */
  | {
      readonly is: 'starts';
      readonly starts: readonly {
        readonly messageId: string;
        readonly provider: string;
        readonly targetId: string;
        readonly credential: string;
        readonly orders?: StartOrders | undefined;
      }[];
    }
  /** A vendor told of something; `target` is undefined where there is nothing to look at because of it. */
  | {
      readonly is: 'provider-event';
      readonly target: string | undefined;
      readonly because: { readonly endpoint: string; readonly eventId: string; readonly eventType: string };
    }
  /** A label of a secret has moved. Sent for all but AWSPENDING and AWSPREVIOUS (AWS documentation). */
  | {
      readonly is: 'label-moved';
      readonly secretName: string;
      readonly label: string;
      readonly versionId: string;
    };

// Of the schemas that follow a function takes one or two: each is made when it is asked for, and a start waits for none of them.

const credentialDetail = () => ({
  credential: z
    .string()
    .check(z.regex(credentialNamePattern, { error: 'expected the name of a credential' })),
});

const startOrders = () => {
  const at = () =>
    z.optional(
      z.pipe(
        instant,
        z.transform((text) => new Date(text)),
      ),
    );
  return z.strictObject({ rotateBefore: at(), revokeBefore: at(), revokeAnyway: at() });
};

/** Strict: a misspelt option must not be taken for an order without it. */
const orderDetails = {
  CredentialRotationRequested: () => z.strictObject(credentialDetail()),
  CredentialCompromised: () =>
    z.strictObject({ ...credentialDetail(), evenIfLockedOut: z._default(z.boolean(), false) }),
  CredentialDeletionRequested: () =>
    z.strictObject({ ...credentialDetail(), targetIsGone: z._default(z.boolean(), false) }),
} as const satisfies Record<CredentialOrder, () => z.ZodMiniType>;

const orderOf = <Order extends CredentialOrder, Detail extends z.ZodMiniType>(
  order: Order,
  detail: () => Detail,
) => z.object({ 'detail-type': z.literal(order), time: instant, detail: detail() });

/** Each becomes a part of a parameter's name. */
const providerId = () =>
  z.string().check(z.regex(/^[a-z0-9-]{1,63}$/, { error: 'expected the id of a provider' }));
const targetId = () =>
  z.string().check(
    z.regex(/^[A-Za-z0-9-]{1,128}$/, {
      error: 'expected the id of a target: letters, digits and hyphens',
    }),
  );

/** Both or neither. */
const pauseDetail = () =>
  z.strictObject({ provider: z.optional(providerId()), target: z.optional(targetId()) }).check(
    z.superRefine(({ provider, target }, context) => {
      if ((provider === undefined) === (target === undefined)) return;
      const missing = provider === undefined ? 'provider' : 'target';
      context.addIssue({
        code: 'custom',
        path: [missing],
        message: 'expected provider and target for one target, or neither for every target',
      });
    }),
  );

const invocationSchemas = {
  pass: () =>
    z.pipe(
      z.strictObject({ pass: z.literal('scheduled'), dryRun: z._default(z.boolean(), false) }),
      z.transform(({ dryRun }): Invocation => ({ is: 'pass', dryRun })),
    ),
  order: () =>
    z.pipe(
      z.discriminatedUnion(
        'detail-type',
        [
          orderOf('CredentialRotationRequested', orderDetails.CredentialRotationRequested),
          orderOf('CredentialCompromised', orderDetails.CredentialCompromised),
          orderOf('CredentialDeletionRequested', orderDetails.CredentialDeletionRequested),
        ],
        { error: `expected ${credentialOrders.join(', ')}` },
      ),
      z.transform(({ 'detail-type': order, time, detail }): Invocation => {
        const { credential } = detail;
        return {
          is: 'order',
          order,
          credential,
          orderedAt: new Date(time),
          ...('evenIfLockedOut' in detail && detail.evenIfLockedOut ? { evenIfLockedOut: true } : {}),
          ...('targetIsGone' in detail && detail.targetIsGone ? { targetIsGone: true } : {}),
        };
      }),
    ),
  pause: () =>
    z.pipe(
      z.object({ 'detail-type': z.enum(pauseOrders), time: instant, detail: pauseDetail() }),
      z.transform(
        ({ 'detail-type': order, time, detail: { provider, target } }): Invocation => ({
          is: 'pause',
          order,
          on: provider === undefined || target === undefined ? undefined : { provider, targetId: target },
          orderedAt: new Date(time),
        }),
      ),
    ),
  rotated: () =>
    z.pipe(
      z.object({ 'detail-type': z.literal('CredentialRotated'), detail: z.object(credentialDetail()) }),
      z.transform(({ detail: { credential } }): Invocation => ({ is: 'rotated', credential })),
    ),
  messages: () =>
    z.pipe(
      z.object({ Records: z.array(z.object({ messageId: z.string(), body: z.string() })) }),
      z.transform(
        ({ Records }): Invocation => ({
          is: 'messages',
          messages: Records.map(({ messageId, body }) => ({ id: messageId, body })),
        }),
      ),
    ),
  starts: () =>
    z.pipe(
      z.object({
        Records: z.array(
          z.object({
            messageId: z.string(),
            body: z.pipe(
              z.pipe(z.string(), z.transform(jsonOf)),
              z.strictObject({
                provider: providerId(),
                targetId: targetId(),
                ...credentialDetail(),
                orders: z.optional(startOrders()),
              }),
            ),
          }),
        ),
      }),
      z.transform(
        ({ Records }): Invocation => ({
          is: 'starts',
          starts: Records.map(({ messageId, body }) => ({ messageId, ...body })),
        }),
      ),
    ),
  'provider-event': () =>
    z.pipe(
      z.object({
        'detail-type': z.literal('ProviderEventReceived'),
        detail: z.object({
          provider: z
            .string()
            .check(z.regex(/^[a-z0-9-]{1,63}$/, { error: 'expected the name of an endpoint' })),
          providerEventId: z.string().check(z.minLength(1), z.maxLength(256)),
          providerEventType: z.string().check(z.maxLength(256)),
          target: z.optional(z.string().check(z.minLength(1))),
          isCaughtUp: z._default(z.boolean(), false),
        }),
      }),
      z.transform(
        // No later look is needed: a pass that catches up has just looked, and each pass looks at every target.
        ({ detail: { provider, providerEventId, providerEventType, target, isCaughtUp } }): Invocation => ({
          is: 'provider-event',
          target: isCaughtUp ? undefined : target,
          because: { endpoint: provider, eventId: providerEventId, eventType: providerEventType },
        }),
      ),
    ),
  'label-moved': () =>
    z.pipe(
      z.object({
        'detail-type': z.literal('Secret Label Updated'),
        detail: z.object({ name: z.string(), labelUpdated: z.string(), versionId: z.string() }),
      }),
      z.transform(
        ({ detail: { name, labelUpdated, versionId } }): Invocation => ({
          is: 'label-moved',
          secretName: name,
          label: labelUpdated,
          versionId,
        }),
      ),
    ),
} as const satisfies Record<Invocation['is'], () => z.ZodMiniType<Invocation>>;

const shapeSchema = z.object({ 'detail-type': z.optional(z.string()), Records: z.optional(z.unknown()) });

/** What `event` is, among the kinds that a function takes. Throws EVENT_INVALID that names every wrong field. */
export function parseInvocation<Kind extends Invocation['is']>(
  event: unknown,
  taken: readonly Kind[],
): Extract<Invocation, { readonly is: Kind }> {
  const shape = shapeSchema.safeParse(event).data;
  const type = shape?.['detail-type'];
  const is =
    type === 'Secret Label Updated'
      ? 'label-moved'
      : type === 'CredentialRotated'
        ? 'rotated'
        : type === 'ProviderEventReceived'
          ? 'provider-event'
          : pauseOrders.some((order) => order === type)
            ? 'pause'
            : type !== undefined
              ? 'order'
              : shape?.Records === undefined
                ? 'pass'
                : taken.some((kind) => kind === 'starts')
                  ? 'starts'
                  : 'messages';
  const expected = `this function takes ${taken.map((kind) => descriptions[kind]).join(', or ')}`;
  if (!taken.some((kind) => kind === is))
    throw new InputError('EVENT_INVALID', `got ${descriptions[is]}; ${expected}`);
  const parsed = invocationSchemas[is]().safeParse(event);
  if (!parsed.success) throw new InputError('EVENT_INVALID', `${faults(parsed.error)}; ${expected}`);
  return parsed.data as Extract<Invocation, { readonly is: Kind }>;
}

const descriptions: Readonly<Record<Invocation['is'], string>> = {
  pass: '{"pass": "scheduled"}',
  order: `an event of detail type ${credentialOrders.join(', ')} with detail {"credential": "…"}, and if needed "evenIfLockedOut": true for CredentialCompromised or "targetIsGone": true for CredentialDeletionRequested`,
  pause: `an event of detail type ${pauseOrders.join(' or ')} with detail {} or {"provider": "…", "target": "…"}`,
  rotated: 'an event of detail type CredentialRotated',
  messages: 'messages of the queue of targets',
  starts: 'messages of the queue of starts, each {"provider": "…", "targetId": "…", "credential": "…"}',
  'provider-event': 'an event of detail type ProviderEventReceived',
  'label-moved': "Secrets Manager's event Secret Label Updated",
};

export interface RotationEvent {
  readonly step: string;
  /** ARN, partial ARN or name: whatever Secrets Manager sends. */
  readonly secretId: string;
  readonly token: string;
  readonly rotationToken?: Sensitive;
}

/**
 * Bounds from the service model. The steps' names are checked by the rotation itself, after its guard. Unknown fields are
 * ignored; RotationToken is missing in @types/aws-lambda but sent for roles of other accounts (AWS documentation).
 */
const rotationEventSchema = z.object({
  Step: z.string().check(z.minLength(1)),
  SecretId: z.string().check(z.minLength(1), z.maxLength(2048)),
  ClientRequestToken: z.string().check(z.minLength(32), z.maxLength(64)),
  RotationToken: z.optional(
    z
      .string()
      .check(z.regex(/^[a-zA-Z0-9-]{36,256}$/, { error: 'expected 36 to 256 of a-z, A-Z, 0-9 and hyphen' })),
  ),
});

/** One step that Secrets Manager asks for. Throws EVENT_INVALID that names every wrong field. */
export function parseRotationEvent(event: unknown): RotationEvent {
  const parsed = rotationEventSchema.safeParse(event);
  if (!parsed.success)
    throw new InputError(
      'EVENT_INVALID',
      `${faults(parsed.error)}; this function is called by Secrets Manager: rotate the secret instead of invoking it`,
    );
  const { Step, SecretId, ClientRequestToken, RotationToken } = parsed.data;
  return {
    step: Step,
    secretId: SecretId,
    token: ClientRequestToken,
    ...(RotationToken === undefined ? {} : { rotationToken: new Sensitive(RotationToken) }),
  };
}
