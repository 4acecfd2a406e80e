import { z } from 'zod';
import type { Directives } from './directives.ts';
import { InputError } from './errors.ts';
import { faults } from './faults.ts';
import type { CredentialSpec } from './spec.ts';

/** A credential as it is wanted now: its spec and what was ordered since. */
export interface Credential {
  readonly name: string;
  readonly spec: CredentialSpec;
  readonly directives: Directives;
}

/** All credentials of one cluster, instance or database: they share its user list, and rotate one after the other. */
export interface Target {
  readonly provider: string;
  readonly targetId: string;
  /** At least one, in the order of their names. */
  readonly credentials: readonly Credential[];
}

/** What the queue between dispatcher and workers carries: which target to look at. Everything else is read anew. */
const targetTaskSchema = z.object({
  provider: z.string().min(1),
  targetId: z.string().min(1),
  /** The vendor's event that makes us look, where one does: told by a webhook, by the name of its endpoint. */
  because: z
    .object({ endpoint: z.string().min(1), eventId: z.string().min(1), eventType: z.string() })
    .optional(),
});
export type TargetTask = z.output<typeof targetTaskSchema>;

/** A task as it is put into the queue, which hands it out after so many seconds, 900 at most. @default 0 */
export type QueuedTask = TargetTask & { readonly delaySeconds?: number };

/** The task in the body of a queued message. Throws EVENT_INVALID that names every wrong field. */
export function parseTargetTask(body: unknown): TargetTask {
  const parsed = targetTaskSchema.safeParse(body);
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

/** One text for a target, fit for a parameter's name: targets' ids are letters, digits and hyphens. */
export const targetKey = (provider: string, targetId: string): string => `${provider}/${targetId}`;
