import { AwsError } from '../aws-error.ts';
import { pageOf } from '../paging.ts';
import { randomSuffix } from '../random.ts';
import { type CallContext, epochSeconds, type Operation, operation } from '../service.ts';
import {
  addVersion,
  type Core,
  change,
  checkLabelCount,
  checkPolicy,
  dayOf,
  onSecret,
  purge,
  tokenOf,
} from './core.ts';
import { refusals } from './errors.ts';
import { holderOf, labelWrittenVersion, moveLabel, sorted } from './labels.ts';
import { matchesFilters, pageRequest } from './listing.ts';
import { type Secret, type SecretValue, sameValue, type Version } from './model.ts';
import { addReplicas, leaveBehind, replicationStatus } from './replication.ts';
import type { Rotations } from './rotation.ts';
import { type Input, schemas } from './schemas.ts';
import { checkName } from './store.ts';

function givenValue({
  SecretString,
  SecretBinary,
}: {
  readonly SecretString?: string | undefined;
  readonly SecretBinary?: string | undefined;
}): SecretValue | undefined {
  if (SecretString !== undefined && SecretBinary !== undefined) throw refusals.valueTwice();
  if (SecretString !== undefined) return { string: SecretString };
  return SecretBinary === undefined ? undefined : { binary: SecretBinary };
}

/** Creating, writing, labelling and reading values. */
export function valueOperations(core: Core, rotations: Rotations): Readonly<Record<string, Operation>> {
  const { store, clock, variants, events } = core;

  /** Writes a value once for a token. The same data under the same token changes nothing, labels included. */
  function writeVersion(
    secret: Secret,
    token: string,
    value: SecretValue,
    stages: readonly string[],
  ): Version {
    const existing = secret.versions.get(token);
    if (existing?.value !== undefined) {
      if (!sameValue(existing.value, value)) throw refusals.tokenUsed(token, secret.arn);
      return existing;
    }
    // The first version of all is current whatever was asked for.
    const labels = new Set(secret.versions.size === 0 ? [...stages, 'AWSCURRENT'] : stages);
    checkLabelCount(secret, labels);
    const version = change(core, secret, () => {
      const written = existing ?? addVersion(core, secret, token, undefined);
      written.value = value;
      labelWrittenVersion(secret, written, labels);
      return written;
    });
    rotations.versionWritten(secret, version);
    return version;
  }

  function create(input: Input<'CreateSecret'>, context: CallContext) {
    purge(core);
    checkName(input.Name);
    if (input.Name.startsWith('arn:')) throw refusals.nameInvalid();
    const token = tokenOf(input);
    const value = givenValue(input);
    const existing = store.byName(input.Name);
    if (existing !== undefined) {
      if (existing.deletedAt !== undefined) throw refusals.nameScheduledForDeletion();
      const version = existing.versions.get(token);
      if (existing.createToken !== token && version === undefined) throw refusals.nameExists(input.Name);
      if (!sameValue(version?.value, value)) throw refusals.tokenUsed(token, existing.arn);
      return created(existing, version);
    }
    const now = clock.now();
    const secret: Secret = {
      arn: `${core.arnPrefix}${input.Name}-${randomSuffix(core.random, 6)}`,
      name: input.Name,
      createdAt: now,
      changedAt: now,
      createToken: token,
      versions: new Map(),
      rotation: {},
      replicas: new Map(),
      ...(input.Description !== undefined && { description: input.Description }),
      ...(input.KmsKeyId !== undefined && { kmsKeyId: input.KmsKeyId }),
      ...(input.Type !== undefined && { type: input.Type }),
      ...(input.Tags !== undefined && { tags: new Map(input.Tags.map(({ Key, Value }) => [Key, Value])) }),
    };
    addReplicas(core, secret, input.AddReplicaRegions ?? []);
    const version = value && addVersion(core, secret, token, value);
    version?.labels.add('AWSCURRENT');
    store.add(secret);
    if (version !== undefined) events.labelUpdated(secret, 'AWSCURRENT', token);
    events.apiCall(secret, 'CreateSecret', input, version?.id, context);
    return created(secret, version);
  }

  const created = (secret: Secret, version: Version | undefined) => ({
    ARN: secret.arn,
    Name: secret.name,
    ...(version !== undefined && { VersionId: version.id }),
    ReplicationStatus: replicationStatus(core, secret),
  });

  function put(secret: Secret, input: Input<'PutSecretValue'>) {
    const token = tokenOf(input);
    const value = givenValue(input);
    if (value === undefined) throw refusals.valueMissing();
    const version = writeVersion(secret, token, value, input.VersionStages ?? ['AWSCURRENT']);
    return { ...created(secret, version), VersionStages: sorted(version.labels) };
  }

  function update(secret: Secret, input: Input<'UpdateSecret'>) {
    const token = tokenOf(input);
    const value = givenValue(input);
    const isRepeated = secret.versions.get(token)?.value !== undefined;
    if (value !== undefined && isRepeated && variants().updateWithUsedToken === 'error')
      throw refusals.tokenUsed(token, secret.arn);
    const version = value && writeVersion(secret, token, value, ['AWSCURRENT']);
    store.write(secret, () => {
      if (input.Description !== undefined) secret.description = input.Description;
      if (input.KmsKeyId !== undefined) secret.kmsKeyId = input.KmsKeyId;
      if (input.Type !== undefined) secret.type = input.Type;
    });
    return created(secret, version);
  }

  /** Moves a label as a compare-and-swap: the caller must name the version that holds it now. */
  function updateStage(secret: Secret, input: Input<'UpdateSecretVersionStage'>) {
    const { VersionStage: label, RemoveFromVersionId: from, MoveToVersionId: to } = input;
    if (from === undefined && to === undefined) throw refusals.moveNothing();
    const target = to === undefined ? undefined : secret.versions.get(to);
    if (to !== undefined && target === undefined) throw refusals.moveToUnknown(to);
    const holder = holderOf(secret, label);
    if (from !== undefined && from !== holder?.id) throw refusals.removeFromMismatch(label);
    const answer = { ARN: secret.arn, Name: secret.name };
    if (target === undefined) {
      if (label === 'AWSCURRENT') throw refusals.currentNotRemovable();
      if (label === 'AWSPENDING') leaveBehind(core, secret);
      change(core, secret, () => holder?.labels.delete(label));
      return answer;
    }
    if (target === holder) return answer;
    if (holder !== undefined && from === undefined) throw refusals.removeFromMissing(label, holder.id);
    checkLabelCount(secret, [label]);
    const takesPending =
      label === 'AWSCURRENT' &&
      variants().pendingAfterRotation === 'gone-with-move' &&
      secret.rotation.openToken === target.id;
    change(core, secret, () => {
      moveLabel(secret, label, target);
      if (takesPending) target.labels.delete('AWSPENDING');
    });
    return answer;
  }

  function versionFor(
    secret: Secret,
    { VersionId: id, VersionStage: stage }: Input<'GetSecretValue'>,
  ): Version {
    if (id === undefined) {
      const label = stage ?? 'AWSCURRENT';
      const holder = holderOf(secret, label);
      if (holder?.value === undefined) throw refusals.labelWithoutValue(label);
      return holder;
    }
    const version = secret.versions.get(id);
    if (version === undefined) throw refusals.versionUnknown(id);
    if (stage !== undefined && !version.labels.has(stage)) throw refusals.stageNotOnVersion();
    if (version.value !== undefined) return version;
    throw stage !== undefined && variants().placeholderText === 'label'
      ? refusals.labelWithoutValue(stage)
      : refusals.versionUnknown(id);
  }

  function get(secret: Secret, input: Input<'GetSecretValue'>) {
    if (secret.deletedAt !== undefined) throw refusals.markedForDeletion();
    const version = versionFor(secret, input);
    // A reader who is shown an old copy still leaves a trace on the real record.
    const today = dayOf(clock.now());
    const live = store.byName(secret.name);
    const liveVersion = live?.versions.get(version.id);
    if (live !== undefined) live.lastAccessedOn = today;
    if (liveVersion !== undefined) liveVersion.lastAccessedOn = today;
    const { value } = version;
    return {
      ARN: secret.arn,
      Name: secret.name,
      VersionId: version.id,
      ...(value !== undefined &&
        ('string' in value ? { SecretString: value.string } : { SecretBinary: value.binary })),
      VersionStages: sorted(version.labels),
      CreatedDate: epochSeconds(version.createdAt),
    };
  }

  function batch(input: Input<'BatchGetSecretValue'>, context: CallContext) {
    purge(core);
    if ((input.SecretIdList === undefined) === (input.Filters === undefined)) throw refusals.batchSelection();
    if (input.SecretIdList !== undefined && input.MaxResults !== undefined) throw refusals.batchMaxResults();
    const filtered = () =>
      store
        .listed()
        .filter((secret) => secret.deletedAt === undefined && matchesFilters(core, secret, input.Filters))
        .map((secret) => secret.arn);
    const { items, NextToken } = pageOf(
      input.SecretIdList ?? filtered(),
      pageRequest(input, 20, input.SecretIdList === undefined ? variants().emptyPages : 0),
    );
    const results = items.map((secretId) => {
      try {
        const secret = store.read(secretId, 'GetSecretValue');
        checkPolicy(core, secret, 'GetSecretValue', context);
        return { value: get(secret, { SecretId: secretId }) };
      } catch (error) {
        if (!(error instanceof AwsError)) throw error;
        return { failure: { SecretId: secretId, ErrorCode: error.name, Message: error.message } };
      }
    });
    return {
      SecretValues: results.flatMap(({ value }) => value ?? []),
      Errors: results.flatMap(({ failure }) => failure ?? []),
      ...(NextToken !== undefined && { NextToken }),
    };
  }

  const writes = { find: 'live', logged: true } as const;
  return {
    CreateSecret: operation(schemas.CreateSecret, create),
    PutSecretValue: onSecret(core, 'PutSecretValue', schemas.PutSecretValue, writes, put),
    UpdateSecret: onSecret(core, 'UpdateSecret', schemas.UpdateSecret, writes, update),
    UpdateSecretVersionStage: onSecret(
      core,
      'UpdateSecretVersionStage',
      schemas.UpdateSecretVersionStage,
      writes,
      updateStage,
    ),
    GetSecretValue: onSecret(
      core,
      'GetSecretValue',
      schemas.GetSecretValue,
      { find: 'stale', logged: false },
      get,
    ),
    BatchGetSecretValue: operation(schemas.BatchGetSecretValue, batch),
  };
}
