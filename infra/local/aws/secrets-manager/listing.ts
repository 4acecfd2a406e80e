import { type PageRequest, pageOf } from '../paging.ts';
import { epochSeconds, type Operation, operation } from '../service.ts';
import { type Core, onSecret, purge } from './core.ts';
import { refusals } from './errors.ts';
import { sorted } from './labels.ts';
import type { Secret } from './model.ts';
import { replicasOf, replicationStatus } from './replication.ts';
import { type Input, schemas } from './schemas.ts';

/** A managed secret is recognised by its name: `rds!cluster-…` belongs to rds. */
const owningService = ({ name }: Secret): string | undefined => name.match(/^([a-z]+)!/)?.[1];

/** What the listing operations ask of a page. */
export const pageRequest = (
  input: { readonly MaxResults?: number | undefined; readonly NextToken?: string | undefined },
  defaultLimit: number,
  emptyPages: number,
): PageRequest => ({
  limit: input.MaxResults ?? defaultLimit,
  nextToken: input.NextToken,
  emptyPages,
  refuse: refusals.nextTokenInvalid,
});

type Filters = Input<'ListSecrets'>['Filters'];
type FilterKey = NonNullable<Filters>[number]['Key'];

function attributes({ region }: Core, secret: Secret, key: FilterKey): string[] {
  switch (key) {
    case 'name':
      return [secret.name];
    case 'description':
      return [secret.description ?? ''];
    case 'tag-key':
      return [...(secret.tags?.keys() ?? [])];
    case 'tag-value':
      return [...(secret.tags?.values() ?? [])];
    case 'primary-region':
      return [region];
    case 'owning-service':
      return [owningService(secret) ?? ''];
    case 'all':
      return [
        secret.name,
        secret.description ?? '',
        ...(secret.tags?.keys() ?? []),
        ...(secret.tags?.values() ?? []),
        owningService(secret) ?? '',
      ];
    default:
      return key satisfies never;
  }
}

/** Every filter must match; of its values one is enough; a value of several words needs each word as a prefix. */
export function matchesFilters(core: Core, secret: Secret, filters: Filters): boolean {
  return (filters ?? []).every(({ Key, Values }) => {
    const ignoresCase = Key === 'description' || Key === 'all';
    const fold = (text: string) => (ignoresCase ? text.toLowerCase() : text);
    const texts = attributes(core, secret, Key).map(fold);
    const candidates = ignoresCase ? texts.flatMap((text) => [text, ...text.split(/[\s/_+=.@-]+/)]) : texts;
    const hasAllWords = (value: string) =>
      value.split(/\s+/).every((word) => candidates.some((candidate) => candidate.startsWith(fold(word))));
    return Values.some((value) =>
      value.startsWith('!') ? !hasAllWords(value.slice(1)) : hasAllWords(value),
    );
  });
}

const seconds = (date: Date | undefined) => (date === undefined ? undefined : epochSeconds(date));

/** What DescribeSecret and ListSecrets say alike; members without a value are dropped by JSON. */
function details(core: Core, secret: Secret) {
  const { rotation } = secret;
  return {
    ARN: secret.arn,
    Name: secret.name,
    Type: secret.type,
    Description: secret.description,
    KmsKeyId: secret.kmsKeyId,
    RotationEnabled: rotation.enabled,
    RotationLambdaARN: rotation.lambdaArn,
    RotationRules: rotation.rules,
    LastRotatedDate: seconds(rotation.lastRotatedAt),
    LastChangedDate: seconds(secret.changedAt),
    LastAccessedDate: seconds(secret.lastAccessedOn),
    DeletedDate: seconds(secret.deletedAt),
    NextRotationDate: seconds(rotation.nextDate),
    Tags: secret.tags && [...secret.tags].map(([Key, Value]) => ({ Key, Value })),
    OwningService: owningService(secret),
    CreatedDate: seconds(secret.createdAt),
    PrimaryRegion: replicasOf(core, secret).length > 0 ? core.region : undefined,
  };
}

function labelledVersions(secret: Secret): Record<string, string[]> | undefined {
  const labelled = secret.versions
    .values()
    .filter(({ labels }) => labels.size > 0)
    .map(({ id, labels }) => [id, sorted(labels)] as const)
    .toArray();
  return labelled.length === 0 ? undefined : Object.fromEntries(labelled);
}

const sortKeys = {
  'created-date': (secret: Secret) => secret.createdAt.getTime(),
  'last-accessed-date': (secret: Secret) => secret.lastAccessedOn?.getTime() ?? 0,
  'last-changed-date': (secret: Secret) => secret.changedAt.getTime(),
  name: (secret: Secret) => secret.name,
} as const;

/** Describing and listing, without values. */
export function listingOperations(core: Core): Readonly<Record<string, Operation>> {
  const { store, variants } = core;

  function list(input: Input<'ListSecrets'>) {
    purge(core);
    const key = sortKeys[input.SortBy ?? 'created-date'];
    const direction = input.SortOrder === 'asc' ? 1 : -1;
    const found = store
      .listed()
      .filter((secret) => input.IncludePlannedDeletion || secret.deletedAt === undefined)
      .filter((secret) => matchesFilters(core, secret, input.Filters))
      .sort((a, b) => direction * (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
    const { items, NextToken } = pageOf(found, pageRequest(input, 100, variants().emptyPages));
    const SecretList = items.map((secret) => ({
      ...details(core, secret),
      SecretVersionsToStages: labelledVersions(secret),
    }));
    return { SecretList, ...(NextToken !== undefined && { NextToken }) };
  }

  function versionIds(secret: Secret, input: Input<'ListSecretVersionIds'>) {
    const shown = [...secret.versions.values()].filter(
      ({ labels }) => input.IncludeDeprecated || labels.size > 0,
    );
    const { items, NextToken } = pageOf(shown, pageRequest(input, 100, variants().emptyPages));
    const Versions = items.map(({ id, labels, createdAt, lastAccessedOn }) => ({
      VersionId: id,
      VersionStages: labels.size > 0 ? sorted(labels) : undefined,
      LastAccessedDate: seconds(lastAccessedOn),
      CreatedDate: epochSeconds(createdAt),
      KmsKeyIds: [secret.kmsKeyId ?? 'DefaultEncryptionKey'],
    }));
    return { ARN: secret.arn, Name: secret.name, Versions, ...(NextToken !== undefined && { NextToken }) };
  }

  const reads = { find: 'stale', logged: false } as const;
  return {
    DescribeSecret: onSecret(core, 'DescribeSecret', schemas.DescribeSecret, reads, (secret) => ({
      ...details(core, secret),
      VersionIdsToStages: labelledVersions(secret),
      ReplicationStatus: replicationStatus(core, secret),
    })),
    ListSecretVersionIds: onSecret(
      core,
      'ListSecretVersionIds',
      schemas.ListSecretVersionIds,
      reads,
      versionIds,
    ),
    ListSecrets: operation(schemas.ListSecrets, list),
  };
}
