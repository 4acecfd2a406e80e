import type * as z from 'zod';
import type { Clock } from '../../clock.ts';
import { type Random, randomUuid } from '../random.ts';
import { type CallContext, type Operation, operation } from '../service.ts';
import { refusals } from './errors.ts';
import type { EventSource } from './events.ts';
import { labelCount } from './labels.ts';
import type { Secret, SecretValue, StaleRead, Variants, Version } from './model.ts';
import { denies, parsePolicy } from './policy.ts';
import { followWrite } from './replication.ts';
import { checkName, type Store } from './store.ts';

/** What the operations share. */
export interface Core {
  readonly account: string;
  readonly region: string;
  readonly arnPrefix: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly store: Store;
  readonly events: EventSource;
  readonly variants: () => Variants;
}

/** How an operation on one secret finds it and whether a trail logs it. */
interface Access {
  /** `live` refuses a secret that is scheduled for deletion, `stale` may be shown an outdated copy. */
  readonly find: 'live' | 'any' | 'stale';
  readonly logged: boolean;
}

const checksName = new Set([
  'CreateSecret',
  'DeleteSecret',
  'DescribeSecret',
  'GetSecretValue',
  'ListSecretVersionIds',
  'PutSecretValue',
  'TagResource',
  'UntagResource',
  'UpdateSecret',
  'ValidateResourcePolicy',
]);

/** Forgets what is past its deletion date. Every call does so first. */
export function purge({ store, events }: Core): void {
  for (const secret of store.purge()) events.serviceEvent(secret, 'EndSecretVersionDelete');
}

/** Refuses what the secret's own policy denies to the whole account. */
export function checkPolicy(
  core: Core,
  secret: Secret,
  operationName: string,
  { principal }: CallContext,
): void {
  if (secret.resourcePolicy === undefined) return;
  if (denies(parsePolicy(secret.resourcePolicy), `secretsmanager:${operationName}`, core.account))
    throw refusals.deniedByPolicy(principal ?? 'anonymous', operationName, secret.arn);
}

/** An operation on one secret: finds it, asks its policy, serves, and records the call where a trail would. */
export function onSecret<I extends { SecretId: string }>(
  core: Core,
  name: string,
  schema: z.ZodType<I>,
  access: Access,
  serve: (
    secret: Secret,
    input: I,
    context: CallContext,
  ) => { readonly ARN?: string; readonly VersionId?: string },
): Operation {
  return operation(schema, (input, context) => {
    purge(core);
    if (checksName.has(name)) checkName(input.SecretId);
    const { store, events } = core;
    const secret =
      access.find === 'stale'
        ? store.read(input.SecretId, name as StaleRead)
        : access.find === 'live'
          ? store.findLive(input.SecretId)
          : store.find(input.SecretId);
    checkPolicy(core, secret, name, context);
    const answer = serve(secret, input, context);
    if (access.logged) events.apiCall(secret, name, input, answer.VersionId, context);
    return answer;
  });
}

function holders(secret: Secret): Map<string, string> {
  return new Map(
    secret.versions.values().flatMap(({ id, labels }) => [...labels].map((label) => [label, id] as const)),
  );
}

/** Writes, and announces every label that reached another version. */
export function change<T>(core: Core, secret: Secret, apply: () => T): T {
  const { store, events } = core;
  const before = holders(secret);
  const result = store.write(secret, apply);
  followWrite(core, secret);
  for (const [label, versionId] of holders(secret))
    if (before.get(label) !== versionId) events.labelUpdated(secret, label, versionId);
  return result;
}

const dayMs = 86_400_000;

/** Adds a version; the oldest without a label make room, but none younger than 24 hours. */
export function addVersion(core: Core, secret: Secret, id: string, value: SecretValue | undefined): Version {
  const now = core.clock.now();
  const limit = core.variants().versionLimit;
  const removable = secret.versions
    .values()
    .filter(({ labels, createdAt }) => labels.size === 0 && now.getTime() - createdAt.getTime() >= dayMs)
    .toArray();
  while (secret.versions.size >= limit) {
    const oldest = removable.shift();
    if (oldest === undefined) throw refusals.tooManyVersions(limit);
    secret.versions.delete(oldest.id);
  }
  const version: Version = { id, createdAt: now, labels: new Set(), ...(value !== undefined && { value }) };
  secret.versions.set(id, version);
  return version;
}

/** Refuses more than 20 different labels on a secret. */
export function checkLabelCount(secret: Secret, extra: Iterable<string>): void {
  if (labelCount(secret, extra) > 20) throw refusals.tooManyLabels();
}

/** The token of a request; the SDK and the CLI always send one. */
export function tokenOf(
  input: { readonly ClientRequestToken?: string | undefined },
  missing = refusals.tokenMissing,
): string {
  const token = input.ClientRequestToken;
  if (token === undefined || token === '') throw missing();
  if (token.length < 32 || token.length > 64) throw refusals.tokenLength();
  return token;
}

/** A fresh version id. */
export const newToken = ({ random }: Core): string => randomUuid(random);

/** Midnight UTC: AWS keeps the date of an access, not its time. */
export const dayOf = (date: Date): Date => new Date(Math.floor(date.getTime() / dayMs) * dayMs);
