import { type Directives, isBuried } from '../core/directives.ts';
import { InputError, RotationRefused, StoreError } from '../core/errors.ts';
import { type CredentialFacts, type CredentialRequest, credentialRequested } from '../core/events.ts';
import { hasSwitched } from '../core/generations.ts';
import { Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { secretName, specParameterName } from '../core/names.ts';
import type { ReplicaWish, SecretDescription } from '../core/ports.ts';
import type { Login } from '../core/provider.ts';
import { holderOf, openVersion, startedToken } from '../core/rotation.ts';
import { firstSecretString, parseUser, secretString } from '../core/secret-value.ts';
import { Sensitive } from '../core/sensitive.ts';
import { backstopDays, type CredentialSpec, parseSpec, specDocument } from '../core/spec.ts';
import { adoptionVersions, tokenFrom } from '../core/username.ts';
import { currentUnchanged } from './guarded-write.ts';
import { addMember, type ReadTarget, readTarget } from './members.ts';
import {
  ignoreOrder,
  keepDirective,
  readStandingOrders,
  refuseFuture,
  type StandingOrders,
} from './orders.ts';
import { type Rekey, untilFound } from './rekey.ts';
import { openTarget, stored } from './target.ts';

/** What is the same for every credential of this deployment. */
export interface Creation {
  readonly rotationFunctionArn: string;
  /** The KMS key that encrypts the secret. @default the one that AWS manages */
  readonly secretKeyArn?: string | undefined;
  /** Where the login can be read beside its own Region. @default nowhere */
  readonly replicas?: readonly ReplicaWish[] | undefined;
}

/**
 * A new credential: its spec is stored, its secret made with a first value that names no user, rotation attached and the
 * first rotation started. Creation *is* the first rotation, so a crash in it is a crash in a rotation.
 *
 * A spec that adopts a user gets a secret that names this user instead, and nothing changes at the provider before the first
 * rotation is due. A secret that was deleted with its users, and restored, gets a new user at once.
 *
 * Every part finds what an earlier run left, so the event may come again at any time: it succeeds only where the login works or is
 * being made, and changes nothing where it was meant for a credential that was deleted since. Throws InputError with every wrong
 * field before anything is changed, RotationRefused when the name or the prefix is taken by something else.
 */
export async function createUser(
  { spec: document, requestedAt }: CredentialRequest,
  { rotationFunctionArn, secretKeyArn, replicas = [] }: Creation,
  until: Date,
  rekey: Rekey,
): Promise<void> {
  const { ports, sha256 } = rekey;
  const spec = await parseSpec(document, rekey);
  await refuseFuture(requestedAt, ports);
  const standing = await readStandingOrders(spec.name, ports);
  const because = superseding(standing.directives, requestedAt);
  if (because !== undefined) {
    const about = { credential: spec.name, provider: spec.provider, target: spec.targetId };
    const orderedAt = requestedAt.toISOString();
    await ignoreOrder({ order: credentialRequested, ...about, orderedAt, because }, rekey);
    return;
  }
  await refuseUnfit(spec, standing, rekey);
  if (standing.document !== undefined) await refuseOtherSpec(standing.document, spec, rekey);

  const request: Request = {
    spec,
    requestedAt,
    directives: standing.directives,
    isSpecStored: standing.document !== undefined,
  };
  const facts: CredentialFacts = {
    credential: spec.name,
    provider: spec.provider,
    target: spec.targetId,
    strategy: spec.strategy,
  };
  const secretId = secretName(spec.name);
  const before = await ports.describeSecret({ secretId });
  const step = await nextStep(before, request, rekey);
  // Note it before the spec is stored. Otherwise the guard of a neighbour's deletion would miss the spec, and an event about a neighbour
  // would miss its users.
  if (step !== 'none' || !request.isSpecStored) await noteMember(spec, rekey);
  if (step === 'none') {
    await storeSpec(request, rekey);
    rekey.log('info', 'the credential exists already', { ...facts });
    return;
  }
  const adopted =
    step === 'adopt' && spec.adopt !== undefined
      ? await adoptedLogin(spec, spec.adopt, until, rekey)
      : undefined;
  // Before the spec: with a spec, and rotation off, a run that dies in between would look like one that somebody switched off.
  if (step === 'renew')
    await keepDirective(
      'latest',
      {
        credential: spec.name,
        kind: 'rotateBefore',
        at: requestedAt,
        stored: request.directives.rotateBefore,
      },
      ports,
    );
  const guard = guardOf(request, await storeSpec(request, rekey), rekey);
  // Look again. Each of two concurrent requests notes and stores its spec before this look, so at least one sees the other.
  refuseTwin(spec, await readTarget(spec, {}, rekey), { isSpecStored: true });

  if (before === 'absent')
    await ports.createSecret({
      name: secretId,
      token: tokenFrom(sha256(`first value of ${secretId}`)),
      value: new Sensitive(firstSecretString),
      description: `Login of ${spec.name} on ${spec.provider} ${spec.targetId}, kept by rekey`,
      ...(secretKeyArn === undefined ? {} : { keyArn: secretKeyArn }),
      ...(replicas.length === 0 ? {} : { replicas }),
      guard,
    });
  const secret = before === 'absent' ? await describeNew(secretId, rekey) : before;
  // The same event at the same time may have been faster.
  const isMadeMeanwhile =
    before === 'absent' && (await nextStep(secret, { ...request, isSpecStored: true }, rekey)) === 'none';
  if (isMadeMeanwhile) return;
  if (adopted !== undefined) await writeAdopted(adopted, secret, spec, guard, rekey);
  // Told before the last step: once rotation is on, an event that comes again has nothing to do.
  await tell(facts, adopted, rekey);
  const answer = await ports.startRotation({
    secretId: secret.arn,
    token: rotationToken(secret, rekey),
    functionArn: rotationFunctionArn,
    everyDays: backstopDays(spec),
    immediately: adopted === undefined,
    guard,
  });
  if (answer === 'in-progress') await refuseCancelled(secret.arn, rekey);
}

interface Request {
  readonly spec: CredentialSpec;
  readonly requestedAt: Date;
  readonly directives: Directives;
  /** Whether the same spec was stored already. */
  readonly isSpecStored: boolean;
}

/** Why a request of then is no reason to make anything any more. */
function superseding(directives: Directives, requestedAt: Date): string | undefined {
  const { deletedAt, deleteSince } = directives;
  if (isBuried(directives, requestedAt))
    return `the credential that it made was deleted at ${deletedAt?.toISOString()}; send the request again if it is to be made anew`;
  return deleteSince !== undefined && requestedAt <= deleteSince
    ? `the credential that it made is being deleted since ${deleteSince.toISOString()}`
    : undefined;
}

/** What the secret needs next. `none` only where its login works, as far as labels and orders tell, or is being made. */
async function nextStep(
  secret: SecretDescription | 'absent',
  { spec, requestedAt, directives, isSpecStored }: Request,
  rekey: Rekey,
): Promise<'none' | 'begin' | 'adopt' | 'renew'> {
  const begin = spec.adopt === undefined ? 'begin' : 'adopt';
  if (secret === 'absent') return begin;
  const secretId = secretName(spec.name);
  refuseScheduled(secret, secretId);
  const { labelsByVersion, rotationEnabled } = secret;
  const isBeingMade = rotationEnabled && openVersion(secret) !== undefined;
  // The labels tell, so nothing of an existing login is read. AWSPREVIOUS appears with the first switch; somebody may take it off.
  const isSwitched =
    ['AWSPREVIOUS', 'REKEY_PUBLISHED'].some((label) => holderOf(labelsByVersion, label) !== undefined) ||
    (await hasMoved(secret, rekey));
  if (!isSwitched) return isBeingMade && spec.adopt === undefined ? 'none' : begin;
  // An adopted login is a switch, too; without rotation an earlier run died between it and what comes after it.
  const isAdopted = adoptionVersions(secret.arn, rekey.sha256).some((version) =>
    labelsByVersion.get(version)?.has('AWSCURRENT'),
  );
  if (isAdopted && spec.adopt !== undefined) return rotationEnabled ? 'none' : 'adopt';
  if (isBeingMade) return 'none';
  const isOwnMark = directives.rotateBefore?.getTime() === requestedAt.getTime();
  if (await isOlderThan(secret, directives.deletedAt, rekey)) return 'renew';
  if (rotationEnabled) return 'none';
  // Nobody has kept this login since its spec went. An earlier run of this event has left its mark, and stored the spec again.
  if (!isSpecStored || isOwnMark) return 'renew';
  throw new RotationRefused(
    'ROTATION_DISABLED',
    `rotation of ${secretId} is switched off, so nobody knows whether its login works; switch it on with RotateSecret, which makes a new one, or order its deletion and request it again`,
  );
}

/** Whether AWSCURRENT is off the oldest version. */
async function hasMoved(secret: SecretDescription, { ports }: Rekey): Promise<boolean> {
  const versions = await ports.listVersions({ secretId: secret.arn });
  if (versions === 'absent') return false;
  const oldestFirst = versions.toSorted((a, b) => a.createdAt.getTime() - b.createdAt.getTime());
  return hasSwitched({ secret, versions: oldestFirst });
}

/** Whether no version of the secret was made since the deletion: its users went with it, whatever its labels say. */
async function isOlderThan(
  { arn }: SecretDescription,
  deletedAt: Date | undefined,
  { ports }: Rekey,
): Promise<boolean> {
  if (deletedAt === undefined) return false;
  const versions = await ports.listVersions({ secretId: arn });
  return versions !== 'absent' && versions.every(({ createdAt }) => createdAt <= deletedAt);
}

/** No order to delete stands, and the spec is still the one that was stored, once it was. */
function guardOf({ spec, requestedAt }: Request, wanted: string | 'not-stored', { ports }: Rekey): Guard {
  return Guard.of(async () => {
    const { document, directives } = await readStandingOrders(spec.name, ports);
    if (directives.deleteSince !== undefined || isBuried(directives, requestedAt))
      return `the deletion of ${spec.name} was ordered`;
    return wanted === 'not-stored' || document === wanted
      ? undefined
      : `${specParameterName(spec.name)} does not hold the spec that was requested`;
  });
}

/**
 * A repeated event derives it again, as long as nothing has changed; a rotation that came to nothing, or a deletion, has used up the
 * one before.
 */
const rotationToken = ({ arn, changedAt, labelsByVersion }: SecretDescription, { sha256 }: Rekey): string =>
  startedToken(
    holderOf(labelsByVersion, 'AWSCURRENT'),
    sha256(`rotation of ${arn} after ${changedAt?.toISOString() ?? 'its first value'}`),
    sha256,
  );

/**
 * Afterwards AWSCURRENT names the adopted user with the password that was just proved. Not if AWSCURRENT has moved since `secret` was
 * read: a rotation may have published a login meanwhile, and the adopted password may be refused by now.
 */
async function writeAdopted(
  adopted: Login,
  { arn, labelsByVersion }: SecretDescription,
  spec: CredentialSpec,
  reasons: Guard,
  rekey: Rekey,
): Promise<void> {
  const guard = reasons.and(currentUnchanged(arn, holderOf(labelsByVersion, 'AWSCURRENT') ?? '', rekey));
  const { ports, sha256 } = rekey;
  const write = (token: string): Promise<'written' | 'taken'> =>
    ports.writeSecret({
      secretId: arn,
      token,
      value: secretString(adopted, spec),
      label: 'AWSCURRENT',
      guard,
    });
  // Taken where an earlier run has stored another password of this user, which may not work any more.
  for (const token of adoptionVersions(arn, sha256)) if ((await write(token)) === 'written') return;
  throw new RotationRefused(
    'SECRET_MISMATCH',
    `${secretName(spec.name)} holds too many other logins of ${adopted.username} already; delete the credential and request it again`,
  );
}

/** A rotation that was cancelled keeps its label, which keeps every other from starting, until somebody takes it off. */
async function refuseCancelled(secretArn: string, { ports }: Rekey): Promise<void> {
  const secret = await ports.describeSecret({ secretId: secretArn });
  if (secret === 'absent' || secret.rotationEnabled) return;
  throw new RotationRefused(
    'ROTATION_DISABLED',
    `a rotation of ${secret.name} was cancelled half-way; take AWSPENDING off its version ${openVersion(secret) ?? ''} with UpdateSecretVersionStage, then send the request again`,
  );
}

async function tell(
  facts: CredentialFacts,
  adopted: Login | undefined,
  { ports, log }: Rekey,
): Promise<void> {
  await ports.publish([
    { type: 'CredentialCreated', detail: facts },
    ...(adopted === undefined
      ? []
      : [{ type: 'CredentialAdopted', detail: { ...facts, username: adopted.username } } as const]),
  ]);
  log('info', adopted === undefined ? 'a rotation is started that makes its user' : 'the user was adopted', {
    ...facts,
  });
}

/** Throws if the spec conflicts with others, or at this time. Nothing was changed yet. */
async function refuseUnfit(
  spec: CredentialSpec,
  { document, directives: { deleteSince } }: StandingOrders,
  rekey: Rekey,
): Promise<void> {
  const now = await rekey.ports.now();
  if (spec.expiresAt !== undefined && new Date(spec.expiresAt) <= now)
    throw new InputError(
      'SPEC_INVALID',
      `expiresAt: expected an instant to come, got ${spec.expiresAt}; correct the spec and send it again, nothing was changed`,
    );
  if (deleteSince !== undefined)
    throw new RotationRefused(
      'DELETION_IN_PROGRESS',
      `${spec.name} is being deleted; wait until its parameter is gone, then request it again`,
    );
  const { keyCapacity, sharesKey, sharesTarget, targetCapacity } = await import('../core/capacity.ts');
  const impossible = [...targetCapacity([spec]), ...keyCapacity([spec])].find(
    ({ level }) => level === 'impossible',
  );
  if (impossible !== undefined)
    throw new InputError(
      'SPEC_INVALID',
      `${impossible.text}; correct the spec and send it again, nothing was changed`,
    );
  const read = await readTarget(spec, {}, rekey);
  const others = (read.target?.credentials ?? []).flatMap((other) =>
    other.name === spec.name ? [] : [other.spec],
  );
  // Refusing it would not help those that are there, and somebody may be waiting for it.
  for (const fault of [
    ...targetCapacity([spec, ...others.filter((other) => sharesTarget(other, spec))]),
    ...keyCapacity([spec, ...others.filter((other) => sharesKey(other, spec))]),
  ])
    rekey.log('warn', `rotations may be late: ${fault.text}`, { credential: spec.name, level: fault.level });
  refuseTwin(spec, read, { isSpecStored: document !== undefined });
}

/**
 * Throws SPEC_CONFLICT if another credential of the target names its users with the same prefix. One that a deployment has stored since
 * the last pass may be missed; reconcile-users then reports both.
 */
function refuseTwin(
  { name, targetId, usernamePrefix }: CredentialSpec,
  { target }: ReadTarget,
  { isSpecStored }: { readonly isSpecStored: boolean },
): void {
  const twin = target?.credentials.find(
    (other) =>
      other.name !== name && other.spec.targetId === targetId && other.spec.usernamePrefix === usernamePrefix,
  );
  if (twin === undefined) return;
  const parameter = specParameterName(name);
  throw new RotationRefused(
    'SPEC_CONFLICT',
    `usernamePrefix: ${usernamePrefix} is the prefix of ${twin.name} on ${targetId} already; choose another, so that a user's name tells whose it is; ${
      isSpecStored
        ? `${parameter} is stored, and nothing else was changed: delete it or correct its usernamePrefix, then send the request with the same spec`
        : 'nothing was changed'
    }`,
  );
}

/**
 * Afterwards the guard of a neighbour's deletion sees the credential. One that adopts a user waits until the table of notes can be
 * written: otherwise that user could be deleted meanwhile. Other credentials continue without the note. Until a pass notes them, they
 * only have users of their own name, which no neighbour may delete.
 */
async function noteMember(spec: CredentialSpec, rekey: Rekey): Promise<void> {
  try {
    await addMember(spec, rekey);
  } catch (error) {
    if (!(error instanceof StoreError) || spec.adopt !== undefined) throw error;
    rekey.log('warn', 'a new credential could not be noted at its target', {
      credential: spec.name,
      code: error.code,
    });
  }
}

/**
 * Afterwards the spec is stored. Answers the text that is, as a deployment may have written it differently. Throws SUPERSEDED where the
 * credential was deleted since it was requested, or its deletion was ordered.
 */
async function storeSpec(request: Request, rekey: Rekey): Promise<string> {
  const { ports } = rekey;
  const { spec } = request;
  const parameter = specParameterName(spec.name);
  const document = specDocument(spec);
  const guard = guardOf(request, 'not-stored', rekey);
  if ((await ports.createParameter({ parameter, document, guard })) === 'written') return document;
  const existing = await ports.readParameter({ parameter });
  await refuseOtherSpec(existing === 'absent' ? '' : existing, spec, rekey);
  return existing;
}

async function refuseOtherSpec(document: string, spec: CredentialSpec, rekey: Rekey): Promise<void> {
  const existing = await parseSpec(jsonOf(document), rekey).catch((error: unknown) => {
    if (error instanceof InputError) return undefined;
    throw error;
  });
  if (existing === undefined || specDocument(existing) !== specDocument(spec))
    throw new RotationRefused(
      'SPEC_CONFLICT',
      `${specParameterName(spec.name)} holds another spec; change the parameter instead of requesting the credential again`,
    );
}

/** The login to adopt, proved to work: a secret must never begin with one that does not. */
async function adoptedLogin(
  spec: CredentialSpec,
  adopt: NonNullable<CredentialSpec['adopt']>,
  until: Date,
  rekey: Rekey,
): Promise<Login> {
  const [{ username, password }, provider] = await Promise.all([
    stored(adopt.passwordSecret, parseUser, rekey),
    openTarget(spec, until, rekey),
  ]);
  const wrong = (reason: string): InputError =>
    new InputError(
      'SPEC_INVALID',
      `adopt: ${reason}; correct ${adopt.passwordSecret} or the spec and send it again, nothing was changed`,
    );
  if (username !== adopt.username)
    throw wrong(`expected the login of ${adopt.username} in ${adopt.passwordSecret}, got another user's`);
  const login = { ...(await provider.endpoint()), username, password };
  if (spec.verify === 'login' && (await provider.verify(login)) === 'rejected')
    throw wrong(`${spec.provider} refused ${username} with the password in ${adopt.passwordSecret}`);
  return login;
}

async function describeNew(secretId: string, { ports }: Rekey): Promise<SecretDescription> {
  const secret = await untilFound(
    ports,
    () => ports.describeSecret({ secretId }),
    (answer) => answer !== 'absent',
  );
  if (secret === 'absent')
    throw new RotationRefused('SECRET_UNKNOWN', `${secretId} cannot be read back yet; the event is retried`);
  refuseScheduled(secret, secretId);
  return secret;
}

function refuseScheduled({ deletedAt }: SecretDescription, secretId: string): void {
  if (deletedAt !== undefined)
    throw new RotationRefused(
      'DELETION_IN_PROGRESS',
      `${secretId} is scheduled for deletion; restore it, or wait until it is gone`,
    );
}
