import { Arn, ArnFormat, Stack, Token } from 'aws-cdk-lib';
import { Grant, type IGrantable } from 'aws-cdk-lib/aws-iam';
import { type IKey, ViaServicePrincipal } from 'aws-cdk-lib/aws-kms';
import type { CfnSecretProps, ISecret, ReplicaRegion } from 'aws-cdk-lib/aws-secretsmanager';
import type { Construct } from 'constructs';
import type { StatementProps } from './handler.ts';

/** Where the secrets of credentials lie, whoever makes them: a deployment, or create-user. */
export interface SecretStorage {
  /** Encrypts them. Undefined: the key that AWS manages for Secrets Manager in the account. */
  readonly encryptionKey: IKey | undefined;
  /** Where they can be read beside their own Region. */
  readonly replicaRegions: readonly ReplicaRegion[];
}

/** The same for a secret in a template; nothing where nothing was chosen. */
export const secretProps = ({
  encryptionKey,
  replicaRegions,
}: SecretStorage): Pick<CfnSecretProps, 'kmsKeyId' | 'replicaRegions'> => ({
  ...(encryptionKey === undefined ? {} : { kmsKeyId: encryptionKey.keyArn }),
  ...(replicaRegions.length === 0
    ? {}
    : {
        replicaRegions: replicaRegions.map(({ region, encryptionKey: key }) => ({
          region,
          ...(key === undefined ? {} : { kmsKeyId: key.keyArn }),
        })),
      }),
});

/** The same for create-user, which makes secrets at run time. */
export const storageEnvironment = (
  scope: Construct,
  { encryptionKey, replicaRegions }: SecretStorage,
): { readonly REKEY_SECRET_KEY_ARN: string | undefined; readonly REKEY_REPLICAS: string | undefined } => ({
  REKEY_SECRET_KEY_ARN: encryptionKey?.keyArn,
  REKEY_REPLICAS:
    replicaRegions.length === 0
      ? undefined
      : Stack.of(scope).toJsonString(
          replicaRegions.map(({ region, encryptionKey: key }) => ({
            region,
            ...(key === undefined ? {} : { keyArn: key.keyArn }),
          })),
        ),
});

/** What Secrets Manager may do with the keys in a function's name: KMS is never called by the function itself. */
export function keyStatements(
  scope: Construct,
  { encryptionKey, replicaRegions }: SecretStorage,
): { readonly read: readonly StatementProps[]; readonly write: readonly StatementProps[] } {
  const statement = (
    sid: string,
    actions: readonly string[],
    keys: readonly IKey[],
    regions: readonly string[],
  ): readonly StatementProps[] =>
    keys.length === 0
      ? []
      : [
          {
            sid,
            actions: [...actions],
            resources: keys.map(({ keyArn }) => keyArn),
            conditions: {
              StringEquals: {
                'kms:ViaService': regions.map((region) => `secretsmanager.${region}.amazonaws.com`),
              },
            },
          },
        ];
  const own = encryptionKey === undefined ? [] : [encryptionKey];
  const here = [Stack.of(scope).region];
  const replicas = replicaRegions.filter((replica) => replica.encryptionKey !== undefined);
  return {
    read: statement('ReadUnderKey', ['kms:Decrypt'], own, here),
    write: [
      ...statement('ReadAndWriteUnderKey', ['kms:Decrypt', 'kms:GenerateDataKey'], own, here),
      // Documented for whoever adds a Region. Every later version has to be encrypted there as well, and no other caller is in sight
      // than the one who writes it.
      ...statement(
        'ReplicateUnderKeys',
        ['kms:Encrypt', 'kms:GenerateDataKey'],
        replicas.flatMap(({ encryptionKey: key }) => key ?? []),
        replicas.map(({ region }) => region),
      ),
    ],
  };
}

/**
 * Only values under these stages are read; `AWSCURRENT` has to be one of them. IAM learns of a stage and of a version only what the
 * caller names (aws/aws-cli#5031): a read that names neither gets AWSCURRENT and has to pass, and of a version nobody knows its stages,
 * so every read that names one is refused. Actions without these keys, such as DescribeSecret, are not narrowed.
 */
export const onlyStages = (
  ...stages: readonly ['AWSCURRENT', ...string[]]
): NonNullable<StatementProps['conditions']> => ({
  // Not `StringEqualsIfExists`: AWS's own policies take the key for a list.
  'ForAllValues:StringEquals': { 'secretsmanager:VersionStage': [...stages] },
  Null: { 'secretsmanager:VersionId': 'true' },
});

/**
 * Lets somebody read the published values of a secret, and use its key for that and nothing else. Not `ISecret.grantRead`: given stages
 * it refuses every read that names none, which is how applications read, and it leaves the key to the key's own policy, which is out
 * of reach where another app made it.
 */
export function grantReadUnderKey(secret: ISecret, grantee: IGrantable): Grant {
  const { encryptionKey, secretArn, secretFullArn } = secret;
  const viaService = `secretsmanager.${Stack.of(secret).region}.amazonaws.com`;
  const read = Grant.addToPrincipal({
    grantee,
    actions: ['secretsmanager:GetSecretValue', 'secretsmanager:DescribeSecret'],
    // Six random characters end every ARN of a secret.
    resourceArns: [secretFullArn ?? `${secretArn}-??????`],
    conditions: onlyStages('AWSCURRENT', 'AWSPREVIOUS'),
  });
  if (encryptionKey === undefined) return read;
  encryptionKey.grantDecrypt(new ViaServicePrincipal(viaService, grantee.grantPrincipal));
  return read.combine(
    Grant.addToPrincipal({
      grantee,
      actions: ['kms:Decrypt'],
      resourceArns: [encryptionKey.keyArn],
      conditions: { StringEquals: { 'kms:ViaService': viaService } },
    }),
  );
}

/** What cannot be, each with what to do about it. */
export function storageFaults(
  scope: Construct,
  { encryptionKey, replicaRegions }: SecretStorage,
): readonly string[] {
  const home = Stack.of(scope).region;
  const isHome = (region: string) => !Token.isUnresolved(home) && region === home;
  const seen = new Set<string>();
  return [
    ...(encryptionKey === undefined ? [] : keyFaults('encryptionKey', encryptionKey, home)),
    ...replicaRegions.flatMap(({ region, encryptionKey: key }, index) => {
      const name = `replicaRegions.${index}`;
      const isRepeated = seen.has(region);
      seen.add(region);
      if (Token.isUnresolved(region) || !/^[a-z]{2,}(-[a-z]+)+-\d$/.test(region))
        return [
          `${name}.region: expected a Region such as eu-west-1, known at synthesis; name the Region itself`,
        ];
      return [
        ...(isHome(region)
          ? [`${name}.region: ${region} is the Region of the stack, where every secret is; leave it out`]
          : []),
        ...(isRepeated ? [`${name}.region: ${region} is there twice; leave one of them out`] : []),
        ...(encryptionKey !== undefined && key === undefined
          ? [
              `${name}.encryptionKey: expected a key of ${region}, as encryptionKey is of no use there and the secrets would lie under the key that AWS manages; give one, such as a replica of a multi-Region key`,
            ]
          : []),
        ...(key === undefined ? [] : keyFaults(`${name}.encryptionKey`, key, region)),
      ];
    }),
  ];
}

/** A key is of one Region. Where its ARN is not known before the deployment, AWS has to find out. */
function keyFaults(name: string, { keyArn }: IKey, wanted: string): readonly string[] {
  if (Token.isUnresolved(keyArn) || Token.isUnresolved(wanted)) return [];
  const { region } = Arn.split(keyArn, ArnFormat.SLASH_RESOURCE_NAME);
  return region === undefined || region === wanted
    ? []
    : [
        `${name}: expected a key of ${wanted}, got one of ${region}; give a key that is where the secrets are`,
      ];
}
