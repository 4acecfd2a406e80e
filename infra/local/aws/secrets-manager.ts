import * as z from 'zod';
import type { Clock } from '../clock.ts';
import type { BusEvent } from './bus-event.ts';
import { type Random, systemRandom } from './random.ts';
import { administrationOperations } from './secrets-manager/administration.ts';
import type { Core } from './secrets-manager/core.ts';
import { createEventSource } from './secrets-manager/events.ts';
import { listingOperations } from './secrets-manager/listing.ts';
import { defaultVariants, type Variants } from './secrets-manager/model.ts';
import { createRotations, type InvokeRotation } from './secrets-manager/rotation.ts';
import { createStore } from './secrets-manager/store.ts';
import { valueOperations } from './secrets-manager/values.ts';
import { type Authorization, type AwsService, serveOperation } from './service.ts';

export interface SecretsManagerOptions {
  /** Twelve digits. */
  readonly account: string;
  readonly region: string;
  readonly clock: Clock;
  /** @default systemRandom */
  readonly random?: Random;
  /** Calls the rotation function and waits for it. */
  readonly invoke: InvokeRotation;
  /** Whether the function's policy lets Secrets Manager call it. @default always */
  readonly mayInvoke?: (functionArn: string) => boolean;
  /** Puts a native event on the default bus. */
  readonly emit: (event: BusEvent) => void;
  readonly variants?: Partial<Variants>;
}

export interface SecretsManager extends AwsService {
  /** Changes how the service behaves from now on. */
  setVariants(variants: Partial<Variants>): void;
  /** Starts the rotations that are due and forgets what is past its deletion date; to be called now and then. */
  tick(): void;
  /** When Secrets Manager will rotate next by a schedule of its own; undefined when it will not. */
  nextDue(): Date | undefined;
  /** Resolves once no rotation is running or waiting to be repeated. */
  idle(): Promise<void>;
  /** Ends all rotations where they stand and starts no more; resolves once no function is being called. */
  stop(): Promise<void>;
}

/** What knows no resources (AWS documentation). */
const withoutResource: readonly string[] = ['ListSecrets', 'BatchGetSecretValue', 'GetRandomPassword'];
/** What an operation says of the one secret that it is about. */
const secretNamed = z.object({
  SecretId: z.string().optional(),
  Name: z.string().optional(),
  RotationLambdaARN: z.string().min(1).optional().catch(undefined),
  AddReplicaRegions: z.unknown().optional(),
});

/** Members that a policy can ask for: the condition key is called like the member (service authorization reference). */
const conditionMembers: Readonly<Record<string, readonly string[]>> = {
  CreateSecret: ['ForceOverwriteReplicaSecret'],
  DeleteSecret: ['ForceDeleteWithoutRecovery', 'RecoveryWindowInDays'],
  GetSecretValue: ['VersionId', 'VersionStage'],
  ReplicateSecretToRegions: ['ForceOverwriteReplicaSecret'],
  RotateSecret: ['RotateImmediately', 'RotationLambdaARN'],
  UpdateSecretVersionStage: ['VersionStage'],
};
const scalar = z.union([z.string(), z.number(), z.boolean()]);

/**
 * The condition keys of a call. A member that the caller leaves out has no key, also where it has a default: a read without a stage
 * is refused under a policy that demands AWSCURRENT (aws/aws-cli#5031).
 */
function conditionsOf(name: string, input: unknown): Readonly<Record<string, string>> {
  const members = z.record(z.string(), z.unknown()).safeParse(input).data ?? {};
  return Object.fromEntries(
    (conditionMembers[name] ?? []).flatMap((member) => {
      const value = scalar.safeParse(members[member]);
      return value.success ? [[`secretsmanager:${member}`, String(value.data)]] : [];
    }),
  );
}

/** Secrets Manager in memory: labels, rotation and refusals as AWS has them. */
export function createSecretsManager({
  account,
  region,
  clock,
  random = systemRandom,
  invoke,
  mayInvoke = () => true,
  emit,
  variants: initial = {},
}: SecretsManagerOptions): SecretsManager {
  let current: Variants = { ...defaultVariants, ...initial };
  const variants = () => current;
  const arnPrefix = `arn:aws:secretsmanager:${region}:${account}:secret:`;
  const events = createEventSource({ account, region, now: () => clock.now(), random, variants, emit });
  const store = createStore(clock, variants, arnPrefix);
  const core: Core = { account, region, arnPrefix, clock, random, store, events, variants };
  const rotations = createRotations(core, { invoke, mayInvoke });
  const operations = {
    ...valueOperations(core, rotations),
    ...listingOperations(core),
    ...administrationOperations(core, rotations),
    ...rotations.operations,
  };

  function authorizations(name: string, input: unknown): readonly Authorization[] {
    if (!Object.hasOwn(operations, name)) return [];
    const action = `secretsmanager:${name}`;
    if (withoutResource.includes(name)) return [{ action, resource: '*' }];
    const asked = secretNamed.safeParse(input);
    const id = asked.data?.SecretId ?? asked.data?.Name;
    if (id === undefined) return [];
    const secret = store.lookUp(id);
    // What does not exist is judged by the ARN that it would have.
    const resource = secret?.arn ?? (id.startsWith('arn:') ? id : `${arnPrefix}${id}-absent`);
    const rotator = secret?.rotation.lambdaArn;
    const called = asked.data?.RotationLambdaARN ?? rotator;
    const context = {
      ...conditionsOf(name, input),
      ...(rotator === undefined || name === 'CreateSecret'
        ? {}
        : { 'secretsmanager:resource/AllowRotationLambdaArn': rotator }),
    };
    return [
      { action, resource, context },
      // Asked beside CreateSecret (AWS documentation).
      ...(name === 'CreateSecret' && asked.data?.AddReplicaRegions !== undefined
        ? [
            {
              action: 'secretsmanager:ReplicateSecretToRegions',
              resource,
              context: conditionsOf('ReplicateSecretToRegions', input),
            },
          ]
        : []),
      // Whoever has a secret rotated has the function called (AWS documentation).
      ...(name === 'RotateSecret' && called !== undefined
        ? [{ action: 'lambda:InvokeFunction', resource: called }]
        : []),
    ];
  }

  return {
    name: 'secretsmanager',
    targetPrefix: 'secretsmanager',
    messageKey: 'Message',
    internalErrorName: 'InternalServiceError',
    authorizations,
    call: (name, input, context) => serveOperation(operations, name, input, context),
    setVariants(changed) {
      current = { ...current, ...changed };
    },
    tick: rotations.tick,
    nextDue: rotations.nextDue,
    idle: rotations.idle,
    stop: rotations.stop,
  };
}
