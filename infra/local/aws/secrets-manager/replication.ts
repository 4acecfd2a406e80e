import type { Core } from './core.ts';
import { refusals } from './errors.ts';
import type { Replica, Secret } from './model.ts';

// Of replicas there is their status only: nobody reads in another Region here.

const later = (core: Core, ms: number): Date => new Date(core.clock.now().getTime() + ms);

/** Afterwards the secret has a replica in each of these Regions. */
export function addReplicas(
  core: Core,
  secret: Secret,
  added: readonly { readonly Region: string; readonly KmsKeyId?: string | undefined }[],
): void {
  if (added.some(({ Region }) => Region === core.region)) throw refusals.replicaAtHome();
  for (const { Region, KmsKeyId } of added)
    secret.replicas.set(Region, {
      inSyncAt: later(core, core.variants().replicationMs),
      ...(KmsKeyId !== undefined && { kmsKeyId: KmsKeyId }),
    });
}

/** Afterwards these are on their way out. */
export function removeReplicas(core: Core, secret: Secret, regions: readonly string[]): void {
  for (const region of regions) {
    const replica = secret.replicas.get(region);
    if (replica !== undefined) replica.goneAt ??= later(core, core.variants().replicaRemovalMs);
  }
}

/** Those that are not gone yet, by Region. */
export const replicasOf = ({ clock }: Core, { replicas }: Secret): readonly (readonly [string, Replica])[] =>
  [...replicas].filter(([, { goneAt }]) => goneAt === undefined || goneAt > clock.now());

/** Every replica has to follow a write. One that got stuck follows none. */
export function followWrite(core: Core, secret: Secret): void {
  for (const replica of secret.replicas.values())
    if (replica.inSyncAt !== undefined) replica.inSyncAt = later(core, core.variants().replicationMs);
}

/** AWSPENDING goes: a replica that has not caught up by then never will (observed by square/password-rotation-lambda). */
export function leaveBehind(core: Core, secret: Secret): void {
  for (const [region, replica] of secret.replicas)
    if (statusOf(core, region, replica) === 'InProgress') delete replica.inSyncAt;
}

function statusOf({ clock, variants }: Core, region: string, { inSyncAt }: Replica) {
  if (variants().failingRegions.includes(region)) return 'Failed';
  return inSyncAt !== undefined && inSyncAt <= clock.now() ? 'InSync' : 'InProgress';
}

/** As DescribeSecret shows it; nothing of a secret without replicas. */
export function replicationStatus(core: Core, secret: Secret) {
  const replicas = replicasOf(core, secret).map(([Region, replica]) => {
    const Status = statusOf(core, Region, replica);
    return {
      Region,
      KmsKeyId: replica.kmsKeyId ?? 'alias/aws/secretsmanager',
      Status,
      ...(Status === 'Failed' && { StatusMessage: 'The KMS key is disabled or not found' }),
    };
  });
  return replicas.length === 0 ? undefined : replicas;
}
