import * as z from 'zod/mini';
import type { Consumer, ConsumerStanding, DeclaredConsumer, WantedLogin } from '../core/consumer.ts';
import { InputError } from '../core/errors.ts';
import type { RekeyEvent } from '../core/events.ts';
import { type Credential, storedSpec } from '../core/fleet.ts';
import { Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import type { Ports } from '../core/ports.ts';
import { parseApiKey } from '../core/secret-value.ts';
import { Sensitive } from '../core/sensitive.ts';
import type { CredentialSpec } from '../core/spec.ts';
import { currentUnchanged, notPaused, specUnchanged } from './guarded-write.ts';
import type { Rekey } from './rekey.ts';
import { loginIn, stored as storedSecret } from './target.ts';

export interface OpenedConsumer {
  readonly kind: string;
  readonly label: string;
  readonly consumer: Consumer;
  /** The intent, where a write was let out: without an outcome nobody would know what came of it. */
  intent(): ConsumerIntent | undefined;
}
export type ConsumerIntent = Extract<RekeyEvent, { readonly type: 'ConsumerUpdatePlanned' }>['detail'];

/**
 * The consumers of a credential, each wanting the login that is in AWSCURRENT now. None where AWSCURRENT names no user. One whose
 * key is missing stands as `failed`, with the remedy; it keeps none of the others from being asked.
 */
export async function openConsumers(
  credential: Pick<Credential, 'spec' | 'moved'>,
  secretArn: string,
  until: Date,
  rekey: Rekey,
): Promise<readonly OpenedConsumer[]> {
  const { spec } = credential;
  const stored = storedSpec(credential);
  const wanted = spec.consumers.length === 0 ? undefined : await wantedLogin(spec, secretArn, rekey);
  return wanted === undefined
    ? []
    : spec.consumers.map((declared) => openConsumer(declared, { spec, stored, wanted }, until, rekey));
}

/** The login that the consumers of a credential should have now; undefined where AWSCURRENT names no user. */
export async function wantedLogin(
  spec: CredentialSpec,
  secretArn: string,
  { ports }: Pick<Rekey, 'ports'>,
): Promise<WantedLogin | undefined> {
  const found = await ports.readSecret({ secretId: secretArn, label: 'AWSCURRENT' });
  if (found === 'absent' || loginIn(found, spec) === undefined) return undefined;
  const fields = fieldsSchema.parse(jsonOf(found.value.reveal()));
  return {
    credential: spec.name,
    secretArn,
    versionId: found.versionId,
    field(name) {
      const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
      return typeof value === 'string' ? new Sensitive(value) : undefined;
    },
  };
}

const fieldsSchema = z.record(z.string(), z.unknown());

/** Opened at the first question, as only then its key is read: a key that is missing is this consumer's trouble alone. */
export function openConsumer(
  { definition, settings }: DeclaredConsumer,
  {
    spec,
    stored = spec,
    wanted,
  }: {
    readonly spec: CredentialSpec;
    /** The stored spec, where the credential has moved and `spec` is that of another target. */
    readonly stored?: CredentialSpec;
    readonly wanted: WantedLogin;
  },
  until: Date,
  rekey: Rekey,
): OpenedConsumer {
  const { kind } = definition;
  const label = definition.label(settings);
  const intent: ConsumerIntent = {
    credential: spec.name,
    provider: spec.provider,
    target: spec.targetId,
    strategy: spec.strategy,
    secretArn: wanted.secretArn,
    versionId: wanted.versionId,
    consumer: consumerName({ kind, label }),
  };
  const { ports, isTold } = tellingFirst(intent, rekey.ports);
  // Or a write that waited would put back a login whose user was deleted meanwhile.
  const guard = Guard.of(
    currentUnchanged(wanted.secretArn, wanted.versionId, rekey),
    specUnchanged(stored, rekey),
    notPaused(spec, rekey),
  );
  let opened: Consumer | undefined;
  const open = async (): Promise<Consumer> => {
    const secretId = definition.apiKeySecret(settings);
    const apiKey = secretId === undefined ? undefined : await storedSecret(secretId, parseApiKey, rekey);
    return definition.open(settings, wanted, { apiKey, until, guard }, ports);
  };
  const asked = async (question: keyof Consumer): Promise<ConsumerStanding> => {
    try {
      opened ??= await open();
      return await opened[question]();
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      return {
        say: 'failed',
        details: error.message,
        remedy: 'store the key under the name that the spec gives, or correct the spec',
      };
    }
  };
  return {
    kind,
    label,
    consumer: { standing: () => asked('standing'), advance: () => asked('advance') },
    intent: () => (isTold() ? intent : undefined),
  };
}

/**
 * `ports` that let the first write out only after the bus has taken the intent. Done here and not by each kind of consumer: so none
 * can forget it, and one that is where it should be, or that is only looked at, is announced by nobody.
 */
function tellingFirst(
  detail: ConsumerIntent,
  ports: Ports,
): { readonly ports: Ports; readonly isTold: () => boolean } {
  let isTold = false;
  const tell = async (): Promise<void> => {
    if (isTold) return;
    await ports.publish([{ type: 'ConsumerUpdatePlanned', detail }]);
    isTold = true;
  };
  return {
    isTold: () => isTold,
    ports: {
      ...ports,
      async http(request) {
        if (request.guard !== 'reads-only') await tell();
        return ports.http(request);
      },
      async notify(request) {
        await tell();
        return ports.notify(request);
      },
    },
  };
}

/** For findings and events. */
export const consumerName = ({ kind, label }: Pick<OpenedConsumer, 'kind' | 'label'>): string =>
  `${kind} ${label}`;
