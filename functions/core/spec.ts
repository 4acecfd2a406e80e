import type * as z from 'zod/mini';
import type { DeclaredConsumer, LoadConsumer } from './consumer.ts';
import { durationMs } from './duration.ts';
import type { AnyProviderDefinition, LoadProvider } from './provider.ts';
import type { specSchema } from './spec-schema.ts';

export const dayMs = 86_400_000;

/** What a user writes: the desired state of one credential. `target` and `privileges` are the provider's own shapes. */
export type CredentialSpecInput = z.input<typeof specSchema>;

/** A spec that holds in itself and at its provider. */
export interface CredentialSpec extends Omit<z.output<typeof specSchema>, 'consumers'> {
  readonly consumers: readonly DeclaredConsumer[];
  readonly definition: AnyProviderDefinition;
  readonly targetId: string;
}

/** What a spec may name. */
export interface Plugins {
  readonly loadProvider: LoadProvider;
  readonly loadConsumer: LoadConsumer;
}

/**
 * The spec in `document`, with defaults filled in. Throws SPEC_INVALID that names every wrong field at once. A function starts without
 * the schema, which is its largest one, and loads it with the first spec.
 */
export async function parseSpec(document: unknown, plugins: Plugins): Promise<CredentialSpec> {
  return (await import('./spec-schema.ts')).parseSpec(document, plugins);
}

/** The document to store: the spec as parsed, in one canonical order of fields, so that equal specs are equal texts. */
export function specDocument({
  definition: _definition,
  targetId: _targetId,
  consumers,
  ...spec
}: CredentialSpec): string {
  const document = { ...spec, consumers: consumers.map(({ settings }) => settings) };
  return JSON.stringify(document, (_key, value: unknown) =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
}

export const everyMs = (spec: Pick<CredentialSpec, 'rotation'>): number =>
  durationMs(spec.rotation.every) ?? Number.NaN;

/**
 * The interval of Secrets Manager's own schedule, which stays attached as the back-stop: two days more than the spec's, so that
 * it acts only when start-rotations is dead, as it knows nothing of windows and of other credentials of the target.
 */
export const backstopDays = (spec: Pick<CredentialSpec, 'rotation'>): number => everyMs(spec) / dayMs + 2;

/** How long after a rotation no other may start: the idle one of two users still serves consumers, until its grace is over. */
export const restMs = (spec: Pick<CredentialSpec, 'strategy' | 'grace'>): number =>
  spec.strategy === 'alternate-users' ? graceMs(spec) : 0;

export const graceMs = (spec: Pick<CredentialSpec, 'grace'>): number => durationMs(spec.grace) ?? Number.NaN;

export const drainDeadlineMs = (spec: Pick<CredentialSpec, 'drain'>): number =>
  durationMs(spec.drain.deadline) ?? Number.NaN;
