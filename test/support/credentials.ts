import { createHash } from 'node:crypto';
import { loadConsumer } from '../../functions/consumers/index.ts';
import type { Directives } from '../../functions/core/directives.ts';
import type { CredentialState } from '../../functions/core/generations.ts';
import { secretName } from '../../functions/core/names.ts';
import type { VersionListing } from '../../functions/core/ports.ts';
import { parseSpec } from '../../functions/core/spec.ts';
import { usernames } from '../../functions/core/username.ts';
import { loadProvider } from '../../functions/providers/index.ts';

export const sha256 = (text: string): Uint8Array => createHash('sha256').update(text).digest();

const targets: Readonly<Record<string, object>> = {
  'render-postgres': {
    target: { postgresId: 'dpg-d1abc2d3e4f5g6h7i8j9-a' },
    apiKeySecret: 'rekey/api-keys/render',
  },
  'cockroachdb-cloud': {
    target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10' },
    apiKeySecret: 'rekey/api-keys/cockroachdb',
  },
  'vultr-valkey': {
    target: { databaseId: '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21' },
    apiKeySecret: 'rekey/api-keys/vultr',
    privileges: { categories: ['+@read'], keys: ['orders:*'] },
  },
  'zilliz-cloud': { target: { clusterId: 'in01-108240180a4faf8' }, apiKeySecret: 'rekey/api-keys/zilliz' },
};

export interface Given {
  readonly name?: string;
  readonly provider?: string;
  readonly spec?: object;
  /** By version, oldest first: when it was made, and its labels. */
  readonly versions: Readonly<Record<string, readonly [madeAt: string, ...labels: string[]]>>;
  readonly lastRotatedAt?: string;
  readonly changedAt?: string;
  readonly deletedAt?: string;
  readonly current?: string;
  readonly pending?: string;
  readonly previous?: string;
  readonly directives?: Directives;
}

export const arnOf = (name: string): string =>
  `arn:aws:secretsmanager:eu-central-1:123456789012:secret:rekey/${name}-AbCdEf`;

/** The names of the users of `orders-api` and its like, whose prefix is its name with underscores. */
export const namesOf = (name = 'orders-api') =>
  usernames({ secretArn: arnOf(name), prefix: name.replaceAll('-', '_') }, sha256);

/** A credential as Secrets Manager would tell it. */
export async function credentialState({
  name = 'orders-api',
  provider = 'cockroachdb-cloud',
  spec = {},
  versions,
  lastRotatedAt,
  changedAt,
  deletedAt,
  current,
  pending,
  previous,
  directives = {},
}: Given): Promise<CredentialState> {
  const listed = Object.entries(versions).map(
    ([versionId, [madeAt, ...labels]]): VersionListing => ({
      versionId,
      labels: new Set(labels),
      createdAt: new Date(madeAt),
    }),
  );
  return {
    name,
    spec: await parseSpec(
      { name, provider, usernamePrefix: name.replaceAll('-', '_'), ...targets[provider], ...spec },
      { loadProvider, loadConsumer },
    ),
    directives,
    secret: {
      arn: arnOf(name),
      name: secretName(name),
      rotationEnabled: true,
      labelsByVersion: new Map(
        listed.filter(({ labels }) => labels.size > 0).map(({ versionId, labels }) => [versionId, labels]),
      ),
      ...(lastRotatedAt === undefined ? {} : { lastRotatedAt: new Date(lastRotatedAt) }),
      ...(changedAt === undefined ? {} : { changedAt: new Date(changedAt) }),
      ...(deletedAt === undefined ? {} : { deletedAt: new Date(deletedAt) }),
    },
    versions: listed,
    currentUsername: current,
    pendingUsername: pending,
    previousUsername: previous,
  };
}
