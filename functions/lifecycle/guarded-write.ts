import * as z from 'zod/mini';
import { type Directives, endsAt } from '../core/directives.ts';
import { InputError } from '../core/errors.ts';
import type { Credential } from '../core/fleet.ts';
import { type Fact, freshMs, type Guard, type Objection, sendGuarded } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { directivesPath, specParameterPath } from '../core/names.ts';
import type {
  HttpRequest,
  Leave,
  ListedParameter,
  Ports,
  SecretDescription,
  SqlSession,
  ValkeySession,
} from '../core/ports.ts';
import { holderOf } from '../core/rotation.ts';
import { type CredentialSpec, parseSpec, specDocument } from '../core/spec.ts';
import { pausedSince, readOrdersAndPause, readStandingOrders, type StandingOrders } from './orders.ts';
import type { Rekey } from './rekey.ts';

/**
 * The seam that every call passes which may change something outside: vendors, secrets and their labels, consumers. The reasons of
 * a write are read again right before it leaves, each retry included. Here that is before an SQL or Valkey session is opened; the port
 * repeats it before each statement. A call that says it only reads is looked at, so that none passes for reading by mistake.
 */
export function guardWrites(ports: Ports, clock: () => Date): Ports {
  const leave = <Request extends { readonly guard: Leave }, Answer>(
    port: (request: Request) => Promise<Answer>,
    isWrite: (request: Request) => string | undefined,
  ): ((request: Request) => Promise<Answer>) => {
    return async (request) => {
      const { guard } = request;
      if (guard instanceof Object) return sendGuarded(guard, clock, () => port(request));
      const write = guard === 'reads-only' ? isWrite(request) : 'a call without a guard';
      if (write !== undefined)
        throw new Error(`${write} was about to leave without its reasons; give it a guard`);
      return port(request);
    };
  };
  const guarded = <Request extends { readonly guard: Guard }, Answer>(
    port: (request: Request) => Promise<Answer>,
  ): ((request: Request) => Promise<Answer>) => leave(port, () => 'a change of a secret');
  return {
    ...ports,
    http: leave(ports.http, writeOverHttp),
    sql: leave(ports.sql, writeBySql),
    valkey: leave(ports.valkey, writeByCommand),
    writeSecret: guarded(ports.writeSecret),
    moveLabel: guarded(ports.moveLabel),
    createSecret: guarded(ports.createSecret),
    startRotation: guarded(ports.startRotation),
    cancelRotation: guarded(ports.cancelRotation),
    removeReplicas: guarded(ports.removeReplicas),
    deleteSecret: guarded(ports.deleteSecret),
    createParameter: async (request) => {
      const { parameter, guard } = request;
      if (guard !== undefined) return sendGuarded(guard, clock, () => ports.createParameter(request));
      if (parameter.startsWith(specParameterPath))
        throw new Error(`${parameter} was about to be stored without its reasons; give it a guard`);
      return ports.createParameter(request);
    },
    deleteParameter: async (request) => {
      const { parameter, guard } = request;
      if (guard !== undefined) return sendGuarded(guard, clock, () => ports.deleteParameter(request));
      if (parameter.startsWith(specParameterPath) || parameter.startsWith(directivesPath))
        throw new Error(
          `the deletion of ${parameter} was about to leave without its reasons; give it a guard`,
        );
      return ports.deleteParameter(request);
    },
    notify: guarded(ports.notify),
  };
}

/** Milvus also reads by POST. These are all the paths that a provider asks so; a POST to any other is a change. */
const postedQuestions: ReadonlySet<string> = new Set(
  ['users/list', 'users/describe', 'roles/list', 'collections/list'].map((path) => `/v2/vectordb/${path}`),
);

const writeOverHttp = ({ method, url: { pathname } }: HttpRequest): string | undefined =>
  method === 'GET' || (method === 'POST' && postedQuestions.has(pathname))
    ? undefined
    : `an HTTP ${method} to ${pathname}`;

const changesBySql = /\bpg_(terminate|cancel)_backend\b/i;

const writeBySql = ({ statements }: SqlSession): string | undefined =>
  statements.every(
    // After a semicolon a second statement may follow.
    ({ text }) => /^\s*(SELECT|SHOW)\b[^;]*$/i.test(text) && !changesBySql.test(text),
  )
    ? undefined
    : 'SQL that is more than a question';

const questions: ReadonlySet<string> = new Set(['CLIENT LIST', 'CLIENT ID']);

const writeByCommand = ({ commands }: ValkeySession): string | undefined =>
  commands.every(([name = '', first = '']) => questions.has(`${name} ${first}`.toUpperCase()))
    ? undefined
    : 'a command that is more than a question';

// Facts.

/** The secret as it was read, to the label: whatever was moved, switched or scheduled since is another hand's work. */
export const labelsUnchanged =
  (secret: SecretDescription, { ports }: Pick<Rekey, 'ports'>): Fact =>
  async () => {
    const now = await ports.describeSecret({ secretId: secret.arn });
    if (now === 'absent') return `${secret.name} is gone`;
    if (now.rotationEnabled !== secret.rotationEnabled) return `the rotation of ${secret.name} was switched`;
    if (now.deletedAt?.getTime() !== secret.deletedAt?.getTime())
      return `${secret.name} was scheduled for deletion or restored`;
    return sameLabels(now, secret) ? undefined : `a label of ${secret.name} has moved`;
  };

/** AWSCURRENT is still on the version that was read. */
export const currentUnchanged =
  (secretId: string, versionId: string, { ports }: Pick<Rekey, 'ports'>): Fact =>
  async () => {
    const now = await ports.describeSecret({ secretId });
    if (now === 'absent' || now.deletedAt !== undefined) return `${secretId} is gone or is being deleted`;
    return holderOf(now.labelsByVersion, 'AWSCURRENT') === versionId
      ? undefined
      : `AWSCURRENT has moved away from ${versionId}`;
  };

/** Writes on this target are not paused. */
export const notPaused =
  (
    { provider, targetId }: { readonly provider: string; readonly targetId: string },
    { ports, log }: Pick<Rekey, 'ports' | 'log'>,
  ): Fact =>
  async () =>
    pauseOf(targetId, await pausedSince({ provider, targetId }, { ports, log }));

/** The objection of a pause that was read. */
export const pauseOf = (targetId: string, since: Date | undefined): Objection | undefined =>
  since === undefined
    ? undefined
    : { code: 'PAUSED', because: `writes on ${targetId} are paused since ${since.toISOString()}` };

/** The credential is to stay, and its spec is the one that was read; `also` asks for more of what was ordered. */
export const specUnchanged =
  (
    spec: CredentialSpec,
    rekey: Rekey,
    also: (directives: Directives) => string | undefined = () => undefined,
  ): Fact =>
  async () => {
    const orders = await readStandingOrders(spec.name, rekey.ports);
    return (await changeOfSpec(spec, orders, rekey)) ?? also(orders.directives);
  };

/** `specUnchanged` and `notPaused` in one call: Parameter Store answers 40 a second for the whole account. */
export const specUnchangedAndNotPaused =
  (
    spec: CredentialSpec,
    rekey: Rekey,
    target: { readonly provider: string; readonly targetId: string } = spec,
  ): Fact =>
  async () => {
    const { pausedSince: since, ...orders } = await readOrdersAndPause(spec.name, target, rekey);
    return pauseOf(target.targetId, since) ?? (await changeOfSpec(spec, orders, rekey));
  };

/** What speaks against a write for this spec in the orders that were read; undefined where nothing does. */
export async function changeOfSpec(
  spec: CredentialSpec,
  { document, directives }: StandingOrders,
  { ports, loadProvider, loadConsumer }: Rekey,
): Promise<string | undefined> {
  if (document === undefined) return `the spec of ${spec.name} was removed`;
  const now = await parseSpec(jsonOf(document), { loadProvider, loadConsumer });
  if (specDocument(now) !== specDocument(spec)) return `the spec of ${spec.name} was changed`;
  const ending = endsAt(directives, now);
  return ending !== undefined && ending.at <= (await ports.now())
    ? `${spec.name} is to be deleted`
    : undefined;
}

/** The deletion of the credential stands: ordered, or its time is over and was not prolonged. */
export const stillEnding =
  ({ name }: Pick<Credential, 'name'>, now: Date, { ports, ...plugins }: Rekey): Fact =>
  async () => {
    const { document, directives } = await readStandingOrders(name, ports);
    if (directives.deleteSince !== undefined || document === undefined) return undefined;
    const { expiresAt } = await parseSpec(jsonOf(document), plugins);
    return expiresAt !== undefined && new Date(expiresAt) <= now ? undefined : `${name} is to stay`;
  };

/**
 * The deletion that the pass was carrying out still stands, for the spec that it read. Where it does not, another pass has finished it,
 * and what is stored belongs to a credential that was requested since.
 */
export const sameDeletion =
  (spec: CredentialSpec, since: Date, { ports, ...plugins }: Rekey): Fact =>
  async () => {
    const { document, directives } = await readStandingOrders(spec.name, ports);
    if (directives.deleteSince?.getTime() !== since.getTime())
      return `the order to delete ${spec.name} is not the one that was carried out`;
    // A pass that was killed after it may have deleted the spec already.
    if (document === undefined) return undefined;
    return specDocument(await parseSpec(jsonOf(document), plugins)) === specDocument(spec)
      ? undefined
      : `the spec of ${spec.name} was changed`;
  };

const adopting = z.object({ adopt: z.object({ username: z.string() }) });

/** The specs that may be of a target, and the credentials already checked for the deletion of one of its users. */
export interface NeighbourSpecs {
  readonly target: { readonly provider: string; readonly targetId: string };
  readonly specs: readonly ListedParameter[];
  readonly judged: ReadonlySet<string>;
}

/**
 * Why a user must stay: a credential of the target adopts it. Those in `judged` do not count, as the user was judged with their secrets.
 * A spec that cannot be read and names the user counts, as it may be of this target.
 */
export async function whyAdopted(
  username: string,
  { target, specs, judged }: NeighbourSpecs,
  rekey: Rekey,
): Promise<string | undefined> {
  for (const { parameter, document } of specs) {
    const name = parameter.slice(specParameterPath.length);
    const stored = jsonOf(document);
    if (judged.has(name) || adopting.safeParse(stored).data?.adopt.username !== username) continue;
    const spec = await parsedOrUndefined(stored, rekey);
    if (spec === undefined || isOf(spec, target)) return `${name} adopts ${username}`;
  }
  return undefined;
}

/**
 * Why a user must stay: a credential of the target is missing from `judged`, because the note may be older than it. Deleting the user
 * would lock out its consumers. Unreadable specs are ignored.
 */
export async function whyUnjudged(
  { target, specs, judged }: NeighbourSpecs,
  rekey: Rekey,
): Promise<string | undefined> {
  for (const { parameter, document } of specs) {
    const name = parameter.slice(specParameterPath.length);
    if (judged.has(name) || !document.includes(target.targetId)) continue;
    const spec = await parsedOrUndefined(jsonOf(document), rekey);
    if (spec !== undefined && isOf(spec, target))
      return `${name} is a credential of ${target.targetId} as well, and was not looked at`;
  }
  return undefined;
}

const parsedOrUndefined = (stored: unknown, rekey: Rekey): Promise<CredentialSpec | undefined> =>
  parseSpec(stored, rekey).catch((error: unknown) => {
    if (!(error instanceof InputError)) throw error;
    return undefined;
  });

const isOf = (spec: CredentialSpec, { provider, targetId }: NeighbourSpecs['target']): boolean =>
  spec.provider === provider && spec.targetId === targetId;

/** A reading may take so long if its answer is to count from when it came. */
const maxReadMs = 30_000;

/**
 * A reading for guards that may take longer than `freshMs`, such as a login or all pages of a list. Its answer counts for `freshMs` from
 * when it came, not from when it was asked for: otherwise a slow vendor would block every write that depends on it.
 */
export function slowReading<Answer>(
  read: () => Promise<Answer>,
  { ports }: Pick<Rekey, 'ports'>,
): () => Promise<Answer> {
  let last: { readonly answer: Answer; readonly cameAt: Date } | undefined;
  return async () => {
    const askedAt = await ports.now();
    const ageMs = last === undefined ? Number.NaN : askedAt.getTime() - last.cameAt.getTime();
    if (last !== undefined && ageMs >= 0 && ageMs <= freshMs) return last.answer;
    const answer = await read();
    const cameAt = await ports.now();
    last = cameAt.getTime() - askedAt.getTime() <= maxReadMs ? { answer, cameAt } : undefined;
    return answer;
  };
}

export const sameLabels = (a: SecretDescription, b: SecretDescription): boolean =>
  labelLines(a).join('\n') === labelLines(b).join('\n');
const labelLines = ({ labelsByVersion }: SecretDescription): readonly string[] =>
  [...labelsByVersion].map(([version, labels]) => `${version} ${[...labels].sort().join(' ')}`).sort();
