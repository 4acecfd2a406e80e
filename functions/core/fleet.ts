import * as z from 'zod/mini';
import type { Directives, StartOrders } from './directives.ts';
import { InputError } from './errors.ts';
import { faults } from './faults.ts';
import type { CredentialSpec } from './spec.ts';

/** A credential as it is wanted now: its spec and what was ordered since. */
export interface Credential {
  readonly name: string;
  readonly spec: CredentialSpec;
  readonly directives: Directives;
  /** Set where versions of its secret name targets that the stored spec does not. `spec` may be of one of those: see `placed`. */
  readonly moved?: Moved;
}

export interface Moved {
  /** The target that the stored spec names. */
  readonly to: string;
  readonly stored: CredentialSpec;
  readonly former: readonly FormerTarget[];
}

/** A target that versions of a credential's secret name, and its spec does not. */
export interface FormerTarget {
  readonly provider: string;
  readonly targetId: string;
  /** As the value names it: some targets are more than their id. */
  readonly database: string;
  /** The youngest version that is known to name it, and the user in it. */
  readonly versionId: string;
  readonly username: string;
  /** Labels of versions that name it. */
  readonly labels: readonly string[];
  /** The user that the spec adopts is named there. */
  readonly isAdopted: boolean;
}

/** All credentials of one cluster, instance or database: they share its user list, and rotate one after the other. */
export interface Target {
  readonly provider: string;
  readonly targetId: string;
  /** At least one, in the order of their names. */
  readonly credentials: readonly Credential[];
}

/** Who a target's users may belong to: the names of its credentials, and whether a spec that cannot be read may be of it, too. */
export const membersSchema = () =>
  z.object({
    credentials: z.readonly(z.array(z.string().check(z.minLength(1)))),
    hasBrokenSpecs: z.boolean(),
  });
export type Members = z.output<ReturnType<typeof membersSchema>>;

/**
 * What the queue between dispatcher and workers carries: which target to look at, and what only the fleet as a whole tells. Specs, orders
 * and everything else are read again by the worker.
 */
const targetTaskSchema = () =>
  z.object({
    provider: z.string().check(z.minLength(1)),
    targetId: z.string().check(z.minLength(1)),
    /** Left out where the sender does not know them. */
    members: z.optional(membersSchema()),
    /** The API keys whose webhook is looked after together with this target. */
    watched: z.optional(z.readonly(z.array(z.string().check(z.minLength(1))))),
    /** When a pass has sent the task. It is done if the target was looked at since. */
    queuedAt: z.optional(z.iso.datetime()),
    /** The vendor's event that makes us look, where one does: told by a webhook, by the name of its endpoint. */
    because: z.optional(
      z.object({
        endpoint: z.string().check(z.minLength(1)),
        eventId: z.string().check(z.minLength(1)),
        eventType: z.string(),
      }),
    ),
  });
export type TargetTask = z.output<ReturnType<typeof targetTaskSchema>>;

/** A task as it is put into a queue. */
export type QueuedTask = TargetTask & {
  /** Seconds until the queue hands it out, 900 at most. @default 0 */
  readonly delaySeconds?: number;
  /** It has a queue of its own, so that it never waits behind a round of all targets. @default false */
  readonly urgent?: boolean;
};

/** A rotation that is to be started. The starts of one target are handed out one after the other. */
export interface StartTask {
  readonly provider: string;
  readonly targetId: string;
  readonly credential: string;
  /** The order as it was stored, for a worker that does not find it any more. */
  readonly orders?: StartOrders;
  /** Says what is asked for: the same start, asked for again within five minutes, is not queued again. */
  readonly id: string;
}

/** The task in the body of a queued message. Throws EVENT_INVALID that names every wrong field. */
export function parseTargetTask(body: unknown): TargetTask {
  const parsed = targetTaskSchema().safeParse(body);
  if (!parsed.success)
    throw new InputError(
      'EVENT_INVALID',
      `${faults(parsed.error)}; only the dispatcher writes to this queue`,
    );
  return parsed.data;
}

/** The targets of some credentials, ordered by name. */
export function targetsOf(credentials: readonly Credential[]): readonly Target[] {
  const byName = credentials.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const groups = Map.groupBy(byName, ({ spec }) => targetKey(spec.provider, spec.targetId));
  return [...groups.values()].flatMap((group) =>
    group[0] === undefined
      ? []
      : [{ provider: group[0].spec.provider, targetId: group[0].spec.targetId, credentials: group }],
  );
}

/**
 * Each credential under every target that it has: that of its spec, and those that only versions of its secret name (`former`, by
 * the credential). There `spec` names the former target, and all that looks after users works as at any other.
 */
export const placed = (
  credentials: readonly Credential[],
  former: ReadonlyMap<string, readonly FormerTarget[]>,
): readonly Credential[] =>
  credentials.flatMap((credential) => {
    const { name, spec } = credential;
    const noted = former.get(name);
    if (noted === undefined) return [credential];
    const others = noted.filter((one) => keyOf(one) !== keyOf(spec));
    const moved: Moved = { to: spec.targetId, stored: spec, former: others };
    if (others.length === 0) return [{ ...credential, moved }];
    // Only its name identifies an adopted user: at another target the same name belongs to another owner.
    const here = { ...credential, spec: adopting(spec, false), moved };
    return [here, ...others.flatMap((one) => specAt(spec, one) ?? []).map((at) => ({ ...here, spec: at }))];
  });

/**
 * The spec as it would be at another target of its provider; undefined if the provider or the target does not fit. `adminSecret` is
 * omitted: the administrator belongs to the target of the spec. A stored value names the other target, and an attacker may have written
 * that value; otherwise the administrator's password would be sent there.
 */
export function specAt(
  spec: CredentialSpec,
  { provider, targetId, database, isAdopted }: FormerTarget,
): CredentialSpec | undefined {
  const { adminSecret: _, ...others } = spec;
  const { definition } = spec;
  if (provider !== spec.provider) return undefined;
  const parsed = definition.targetSchema.safeParse(definition.targetOf({ targetId, database }));
  if (!parsed.success || definition.targetId(parsed.data) !== targetId) return undefined;
  return { ...adopting(others, isAdopted), target: parsed.data, targetId };
}

const adopting = (spec: CredentialSpec, mayRetire: boolean): CredentialSpec =>
  spec.adopt === undefined
    ? spec
    : { ...spec, adopt: { ...spec.adopt, retire: spec.adopt.retire && mayRetire } };

/** The spec as Parameter Store holds it, which guards compare: `spec` differs from it where the credential has moved. */
export const storedSpec = ({ spec, moved }: Pick<Credential, 'spec' | 'moved'>): CredentialSpec =>
  moved?.stored ?? spec;

/** Whether the credential is looked after here only because versions of its secret still name this target. */
export const isFormer = ({ spec, moved }: Pick<Credential, 'spec' | 'moved'>): boolean =>
  (moved?.former ?? []).some((one) => keyOf(one) === keyOf(spec));

/** All of its targets: its users are gone once they are gone from each. */
export const targetKeysOf = ({ spec, moved }: Pick<Credential, 'spec' | 'moved'>): readonly string[] =>
  moved === undefined ? [keyOf(spec)] : [targetKey(spec.provider, moved.to), ...moved.former.map(keyOf)];

const keyOf = ({ provider, targetId }: { readonly provider: string; readonly targetId: string }): string =>
  targetKey(provider, targetId);

/** One text for a target, fit for a parameter's name: targets' ids are letters, digits and hyphens. */
export const targetKey = (provider: string, targetId: string): string => `${provider}/${targetId}`;
