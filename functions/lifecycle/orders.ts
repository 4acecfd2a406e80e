import * as z from 'zod/mini';
import {
  type DirectiveKind,
  type Directives,
  directiveKinds,
  directiveParameter,
  isBuried,
  readDirectives,
  type StartOrders,
  wrongDirectives,
} from '../core/directives.ts';
import { skewMs } from '../core/duration.ts';
import { InputError, RotationRefused, StoreError } from '../core/errors.ts';
import type { IgnoredOrder, Invocation } from '../core/events.ts';
import { type Credential, targetKey } from '../core/fleet.ts';
import { Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { directivesPath, pausePath, secretName, specParameterName } from '../core/names.ts';
import type { ListedParameter, Ports } from '../core/ports.ts';
import type { Rekey } from './rekey.ts';

/**
 * The one place where orders are kept and read. Events come late, twice, in any order, and again out of an archive: an order counts
 * by the time of its event, each directive moves one way only, and what changes nothing says so and succeeds.
 *
 * An order costs a fixed number of calls, whatever the size of the fleet: in an emergency they come by the hundred.
 */

/** What stands for one credential. */
export interface StandingOrders {
  /** The spec as it is stored; undefined where there is none. */
  readonly document: string | undefined;
  readonly directives: Directives;
}

/** See `readParameters` in core/ports.ts. */
type Patience = { readonly isPatient?: boolean };

/** In one reading. Throws SPEC_INVALID where a directive cannot be read: whatever is done might be against that order. */
export async function readStandingOrders(
  name: string,
  ports: Pick<Ports, 'readParameters'>,
  patience: Patience = {},
): Promise<StandingOrders> {
  const { wrong, document, directives } = await lookUp(name, ports, patience);
  if (wrong.length > 0) throw wrongDirectives(wrong);
  return { document, directives };
}

/** The same with since when writes to the target are paused, still in one reading: it takes ten names. */
export async function readOrdersAndPause(
  name: string,
  target: Place,
  { ports, log }: PauseReader,
  patience: Patience = {},
): Promise<StandingOrders & { readonly pausedSince: Date | undefined }> {
  const { wrong, document, directives, found } = await lookUp(name, ports, {
    ...patience,
    beside: pauseParameters(target),
  });
  if (wrong.length > 0) throw wrongDirectives(wrong);
  return { document, directives, pausedSince: pausedSinceIn(found, target, log) };
}

async function lookUp(
  name: string,
  ports: Pick<Ports, 'readParameters'>,
  { beside = [], isPatient = false }: Patience & { readonly beside?: readonly string[] } = {},
): Promise<
  StandingOrders & { readonly wrong: readonly string[]; readonly found: ReadonlyMap<string, string> }
> {
  const spec = specParameterName(name);
  const orders = directiveKinds.map((kind) => directiveParameter(name, kind));
  const found = await ports.readParameters({ parameters: [spec, ...orders, ...beside], isPatient });
  const stored = orders.flatMap((parameter) => {
    const document = found.get(parameter);
    return document === undefined ? [] : [{ parameter, document }];
  });
  const { directives, wrong } = readDirectives(stored);
  return {
    document: found.get(spec),
    directives: directives.get(name) ?? {},
    wrong: wrong.get(name) ?? [],
    found,
  };
}

type Order = Extract<Invocation, { readonly is: 'order' }>;
type Teller = Pick<Rekey, 'ports' | 'log'>;

/** For an order or a request that is no longer, or never was, a reason to do anything. Nothing was changed. */
export async function ignoreOrder(detail: IgnoredOrder, { ports, log }: Teller): Promise<'ignored'> {
  log('warn', `${detail.order} changes nothing: ${detail.because}`, { ...detail });
  await ports.publish([{ type: 'OrderIgnored', detail }]);
  return 'ignored';
}

/** The sender may set an event's time. What was made since would count as older, and each replay as new. */
export async function refuseFuture(orderedAt: Date, { now }: Pick<Ports, 'now'>): Promise<void> {
  if (orderedAt.getTime() > (await now()).getTime() + skewMs)
    throw new InputError(
      'EVENT_INVALID',
      `time: expected an instant that has passed, got ${orderedAt.toISOString()}; send the event without a time of its own`,
    );
}

/** A throttled store soon accepts the order; the queue would redeliver its message much later. */
export const firstRetryMs = 500;

/** Retries `store` while the store is unavailable, backing off up to `maxRetryMs`, until `until`. */
export async function untilStored<Answer>(
  store: () => Promise<Answer>,
  { until, maxRetryMs }: { readonly until: Date; readonly maxRetryMs: number },
  { ports: { now, sleep }, log }: Teller,
): Promise<Answer> {
  for (let waitMs = firstRetryMs; ; waitMs = Math.min(2 * waitMs, maxRetryMs)) {
    try {
      return await store();
    } catch (error) {
      const leftMs = until.getTime() - (await now()).getTime();
      if (!(error instanceof StoreError && error.code === 'STORE_UNAVAILABLE') || leftMs < waitMs)
        throw error;
      log('warn', 'an order could not be stored yet; it is tried again', { code: error.code });
    }
    await sleep(waitMs);
  }
}

// Rotation and revocation.

export interface NotedOrder {
  readonly credential: string;
  /** The spec as it is stored. */
  readonly document: string;
  /** What was ordered, as it stands. */
  readonly noted: Directives;
  /** All that stands for the credential now, this order included: a listing of parameters may not show it yet. */
  readonly directives: Directives;
  /** False if another order of the credential is unreadable. Acting on the rest might contradict it. */
  readonly isReadable: boolean;
}

/**
 * Afterwards an order to rotate or to revoke is stored, and stays should this invocation die. The later instant counts. Throws
 * SPEC_MISSING where there is no such credential and never was one.
 */
export async function noteOrder(invocation: Order, rekey: Teller): Promise<NotedOrder | 'ignored'> {
  const { order, credential, orderedAt, evenIfLockedOut } = invocation;
  const { ports } = rekey;
  if (order === 'CredentialDeletionRequested')
    throw new InputError(
      'EVENT_INVALID',
      `got ${order}, expected CredentialRotationRequested or CredentialCompromised; deletions are for delete-user`,
    );
  await refuseFuture(orderedAt, ports);
  // A directive that cannot be read must not keep a revocation from being stored.
  const { document, directives, wrong } = await lookUp(credential, ports);
  if (isBuried(directives, orderedAt)) return ignoreOrder(buried(invocation, directives), rekey);
  if (document === undefined)
    throw new RotationRefused(
      'SPEC_MISSING',
      `there is no ${specParameterName(credential)}; send the event again with the name of a credential`,
    );
  const at = await instantOf(invocation, ports);
  const noted = await keepStartOrders(
    credential,
    order === 'CredentialRotationRequested'
      ? { rotateBefore: at }
      : { revokeBefore: at, ...(evenIfLockedOut ? { revokeAnyway: at } : {}) },
    directives,
    ports,
  );
  const isReadable = wrong.length === 0;
  return { credential, document, noted, directives: { ...directives, ...noted }, isReadable };
}

/**
 * Afterwards these orders stand, or later ones, unless they were meant for a credential that was deleted; answers which. `revokeAnyway` comes last: without `revokeBefore` it stands for nothing.
 */
export async function keepStartOrders(
  credential: string,
  ordered: StartOrders,
  standing: Directives,
  ports: Pick<Ports, 'readParameter' | 'createParameter' | 'writeParameter' | 'sleep'>,
): Promise<Directives> {
  const kept: { -readonly [Kind in keyof Directives]: Directives[Kind] } = {};
  for (const kind of startKinds) {
    const at = ordered[kind];
    if (at !== undefined && !isBuried(standing, at))
      kept[kind] = await keepDirective('latest', { credential, kind, at, stored: standing[kind] }, ports);
  }
  return kept;
}

interface Ordered {
  readonly credential: string;
  readonly orders?: StartOrders | undefined;
}

const startKinds = [
  'rotateBefore',
  'revokeBefore',
  'revokeAnyway',
] as const satisfies readonly DirectiveKind[];
const kindsOf = (orders: StartOrders | undefined) =>
  startKinds.filter((kind) => orders?.[kind] !== undefined);
/** GetParameters takes ten names; a credential needs up to four: its spec and three orders. */
const orderedAReading = 2;

/**
 * By credential: true if its spec exists but one of its orders, or a later one, is missing. `unknown` if Parameter Store does not
 * answer.
 */
export async function findLostOrders(
  ordered: readonly Ordered[],
  ports: Pick<Ports, 'readParameters'>,
): Promise<ReadonlyMap<string, boolean | 'unknown'>> {
  const answers = new Map<string, boolean | 'unknown'>();
  const asked = ordered.filter(({ orders }) => kindsOf(orders).length > 0);
  for (let from = 0; from < asked.length; from += orderedAReading) {
    const some = asked.slice(from, from + orderedAReading);
    const parameters = some.flatMap(({ credential, orders }) => [
      specParameterName(credential),
      ...kindsOf(orders).map((kind) => directiveParameter(credential, kind)),
    ]);
    const found = await ports.readParameters({ parameters }).catch((error: unknown) => {
      if (!(error instanceof StoreError)) throw error;
      return undefined;
    });
    for (const { credential, orders } of some) {
      const isStored = (kind: (typeof startKinds)[number]): boolean => {
        const [at, stored] = [orders?.[kind], found?.get(directiveParameter(credential, kind))];
        return at === undefined || (stored !== undefined && new Date(stored) >= at);
      };
      const isThere = found?.has(specParameterName(credential)) === true;
      const answer = found === undefined ? 'unknown' : isThere && !startKinds.every(isStored);
      // A credential may have been ordered twice.
      answers.set(credential, answers.get(credential) || answer);
    }
  }
  return answers;
}

/**
 * The instant that an order stands for: that of its event, unless our clock is behind. Versions are dated by Secrets Manager. With our
 * own time the order would spare a version that was made before it; with the event's, if that clock is ahead, it would also revoke the
 * version that replaces the leaked one. So it covers every version that exists now, and no later one.
 */
async function instantOf(
  { credential, orderedAt }: Order,
  ports: Pick<Ports, 'now' | 'describeSecret'>,
): Promise<Date> {
  const now = await ports.now();
  if (orderedAt <= now) return orderedAt;
  const secret = await ports.describeSecret({ secretId: secretName(credential) });
  const changedMs = secret === 'absent' ? 0 : (secret.changedAt?.getTime() ?? 0);
  return new Date(Math.min(orderedAt.getTime(), Math.max(now.getTime(), changedMs + 1)));
}

/** The credential with an order that was noted just now: a listing of parameters may not show it yet. */
export function withOrder(credential: Credential, order: NotedOrder | undefined): Credential {
  if (order === undefined || order.credential !== credential.name) return credential;
  const { rotateBefore, revokeBefore, revokeAnyway } = order.directives;
  const { directives } = credential;
  return {
    ...credential,
    directives: {
      ...directives,
      ...later('rotateBefore', rotateBefore, directives.rotateBefore),
      ...later('revokeBefore', revokeBefore, directives.revokeBefore),
      ...later('revokeAnyway', revokeAnyway, directives.revokeAnyway),
    },
  };
}

const later = (kind: keyof Directives, ordered: Date | undefined, stored: Date | undefined): Directives =>
  ordered === undefined || (stored !== undefined && stored >= ordered) ? {} : { [kind]: ordered };

const buried = ({ order, credential, orderedAt }: Order, { deletedAt }: Directives): IgnoredOrder => ({
  order,
  credential,
  orderedAt: orderedAt.toISOString(),
  because: `the credential that it was meant for was deleted at ${deletedAt?.toISOString()}`,
});

// Deletion.

/**
 * Afterwards an order to delete is stored: whatever happens to this run, the next pass goes on. The earliest order counts. One that
 * is older than the credential was meant for an earlier credential of that name, and is ignored. The age of a credential is that of its
 * secret; only if there is no secret yet, that of its spec, as every deployment writes the specs of existing credentials again. Throws
 * SPEC_MISSING if there is nothing to delete, and never was.
 */
export async function noteDeletion(invocation: Order, rekey: Teller): Promise<'noted' | 'ignored'> {
  const { order, credential, orderedAt, targetIsGone } = invocation;
  const { ports } = rekey;
  if (order !== 'CredentialDeletionRequested')
    throw new InputError(
      'EVENT_INVALID',
      `got ${order}, expected CredentialDeletionRequested; rotations are ordered from start-rotations`,
    );
  await refuseFuture(orderedAt, ports);
  const { document, directives } = await readStandingOrders(credential, ports);
  // First, as a secret that was restored keeps the date on which it was made.
  if (isBuried(directives, orderedAt)) return ignoreOrder(buried(invocation, directives), rekey);
  if (document === undefined) {
    // At the very end of a deletion the spec goes first.
    if (directives.deleteSince !== undefined) return 'noted';
    throw new RotationRefused(
      'SPEC_MISSING',
      `there is no ${specParameterName(credential)}; send the event again with the name of a credential`,
    );
  }
  const made = await madeAt(credential, directives, rekey);
  if (made !== undefined && orderedAt < wholeSecond(made.at))
    return ignoreOrder(
      {
        order,
        credential,
        orderedAt: orderedAt.toISOString(),
        because: `it is older than ${made.what} at ${made.at.toISOString()}; send the order again if this credential is to go`,
      },
      rekey,
    );
  const now = await ports.now();
  // A clock that is ahead of ours must not put the order off.
  const at = orderedAt < now ? orderedAt : now;
  await keepDirective(
    'earliest',
    { credential, kind: 'deleteSince', at, stored: directives.deleteSince },
    ports,
  );
  // Second: without an order beside it, it would speak up in a later deletion.
  if (targetIsGone)
    await keepDirective(
      'earliest',
      { credential, kind: 'targetIsGone', at, stored: directives.targetIsGone },
      ports,
    );
  return 'noted';
}

/** Since when there is something to delete. Undefined where that cannot be told, or where a deletion is under way already. */
async function madeAt(
  credential: string,
  { deleteSince }: Directives,
  { ports }: Teller,
): Promise<{ readonly at: Date; readonly what: string } | undefined> {
  const secret = await ports.describeSecret({ secretId: secretName(credential) });
  if (secret !== 'absent')
    return secret.createdAt && { at: secret.createdAt, what: 'the secret, which was made' };
  if (deleteSince !== undefined) return undefined;
  const at = await ports.readParameterDate({ parameter: specParameterName(credential) });
  return at === 'absent' ? undefined : { at, what: 'the spec, which was stored' };
}

/** EventBridge gives events whole seconds: an order of the second in which the secret was made may have come after it. */
const wholeSecond = (date: Date): Date => new Date(Math.floor(date.getTime() / 1000) * 1000);

// What is over.

/** Afterwards the tombstone of the credential stands, which says that it was deleted at `deletedAt` or later. */
export async function buryCredential(
  name: string,
  deletedAt: Date,
  ports: Pick<Ports, 'readParameters' | 'readParameter' | 'createParameter' | 'writeParameter' | 'sleep'>,
): Promise<void> {
  const { directives } = await lookUp(name, ports);
  const { deletedAt: stored } = directives;
  await keepDirective('latest', { credential: name, kind: 'deletedAt', at: deletedAt, stored }, ports);
}

/**
 * Afterwards no directive stands for the credential but its tombstone, if it has one. The order to delete goes last. If the tombstone
 * was made first, a request that is delivered again in between finds one of them.
 */
export async function forgetOrders(
  name: string,
  ports: Pick<Ports, 'readParameters' | 'deleteParameter'>,
): Promise<void> {
  const { found } = await lookUp(name, ports);
  const spec = specParameterName(name);
  const last: DirectiveKind = 'deleteSince';
  for (const kind of [...directiveKinds.filter((each) => each !== 'deletedAt' && each !== last), last]) {
    const parameter = directiveParameter(name, kind);
    const document = found.get(parameter);
    if (document !== undefined) await deleteOrder({ parameter, document, unless: spec }, ports);
  }
}

/** Afterwards the directive of this instant does not stand, unless `unless` does. One that was given since does. */
export async function withdrawDirective(
  {
    credential,
    kind,
    at,
    unless,
  }: {
    readonly credential: string;
    readonly kind: DirectiveKind;
    readonly at: Date;
    readonly unless?: DirectiveKind;
  },
  ports: Pick<Ports, 'readParameters' | 'readParameter' | 'deleteParameter'>,
): Promise<void> {
  const parameter = directiveParameter(credential, kind);
  const document = await ports.readParameter({ parameter });
  if (document !== 'absent' && instantIn(document)?.getTime() === at.getTime())
    await deleteOrder(
      {
        parameter,
        document,
        ...(unless === undefined ? {} : { unless: directiveParameter(credential, unless) }),
      },
      ports,
    );
}

/**
 * Takes an order away that holds the text that was read. Another text is an order that was given since, and stands; so does every order
 * of a credential that was requested since, whose spec is then stored as `unless`.
 */
async function deleteOrder(
  {
    parameter,
    document,
    unless,
  }: ListedParameter & {
    /** A parameter. */
    readonly unless?: string;
  },
  ports: Pick<Ports, 'readParameters' | 'deleteParameter'>,
): Promise<void> {
  const guard = Guard.of(async () => {
    const parameters = [parameter, ...(unless === undefined ? [] : [unless])];
    const found = await ports.readParameters({ parameters });
    if (unless !== undefined && found.has(unless)) return `${unless} was stored`;
    return found.get(parameter) === document ? undefined : `${parameter} was changed`;
  });
  try {
    await ports.deleteParameter({ parameter, guard });
  } catch (error) {
    if (!(error instanceof RotationRefused)) throw error;
  }
}

const dayMs = 86_400_000;
/** A year in which somebody may replay an archive, and some weeks for who does it late. */
const tombstonesStandMs = 400 * dayMs;

/** Takes away the tombstones that are too old for anything to be delivered again, among the directives that were listed. */
export async function forgetTombstones(
  listed: readonly ListedParameter[],
  ports: Pick<Ports, 'readParameter' | 'readParameters' | 'deleteParameter' | 'now'>,
): Promise<void> {
  const before = new Date((await ports.now()).getTime() - tombstonesStandMs);
  const isOver = (document: string | 'absent'): boolean => {
    const at = instantIn(document);
    return at !== undefined && at < before;
  };
  for (const { parameter, document } of listed) {
    if (!parameter.startsWith(directivesPath) || !parameter.endsWith('/deletedAt')) continue;
    // The listing may be older than another deletion of a credential of the name.
    if (!isOver(document)) continue;
    const stored = await ports.readParameter({ parameter });
    if (isOver(stored)) await deleteOrder({ parameter, document: stored }, ports);
  }
}

// Pauses.

const pauseSchema = z.object({
  state: z.enum(['paused', 'resumed']),
  at: z.pipe(
    z.iso.datetime({ offset: true }),
    z.transform((text) => new Date(text)),
  ),
});
type Pause = z.output<typeof pauseSchema>;

interface Place {
  readonly provider: string;
  readonly targetId: string;
}

const pauseParameter = (on: Place | undefined): string =>
  `${pausePath}${on === undefined ? 'all' : targetKey(on.provider, on.targetId)}`;

function pauseIn(document: string | undefined): Pause | 'none' | 'unreadable' {
  if (document === undefined) return 'none';
  const parsed = pauseSchema.safeParse(jsonOf(document));
  return parsed.success ? parsed.data : 'unreadable';
}

const pauseParameters = (target: Place): readonly string[] => [
  pauseParameter(undefined),
  pauseParameter(target),
];

interface PauseReader {
  readonly ports: Pick<Ports, 'readParameters'>;
  readonly log: Rekey['log'];
}

/**
 * Since when writes to a target are paused, everywhere or there; undefined while they are not. Whatever cannot be read counts as a
 * pause since ever, and is named in the log: one write too few can be mended.
 */
export const pausedSince = async (target: Place, { ports, log }: PauseReader): Promise<Date | undefined> =>
  pausedSinceIn(await ports.readParameters({ parameters: pauseParameters(target) }), target, log);

function pausedSinceIn(
  found: ReadonlyMap<string, string>,
  target: Place,
  log: Rekey['log'],
): Date | undefined {
  const since = pauseParameters(target).flatMap((parameter) => {
    const pause = pauseIn(found.get(parameter));
    if (pause === 'none') return [];
    if (pause !== 'unreadable') return pause.state === 'paused' ? [pause.at.getTime()] : [];
    log(
      'error',
      `${parameter} cannot be read and counts as a pause; send RekeyPaused or RekeyResumed again`,
      {
        parameter,
      },
    );
    return [0];
  });
  return since.length === 0 ? undefined : new Date(Math.min(...since));
}

/** Since when each pause lasts, by what it is about: `all`, or as in `targetKey`. One that cannot be read lasts since ever. */
export async function readPauses(ports: Pick<Ports, 'listParameters'>): Promise<ReadonlyMap<string, Date>> {
  const listed = await ports.listParameters({ path: pausePath });
  return new Map(
    listed.flatMap(({ parameter, document }) => {
      const pause = pauseIn(document);
      if (pause === 'none' || (pause !== 'unreadable' && pause.state === 'resumed')) return [];
      return [[parameter.slice(pausePath.length), pause === 'unreadable' ? new Date(0) : pause.at] as const];
    }),
  );
}

/** An older order that would stop or start anything comes out of an archive: nobody means it any more. */
const maxPauseOrderAgeMs = dayMs;

/** The order of the latest event stands; of two of one second, the pause does. */
const outranks = (one: Pause, other: Pause): boolean =>
  one.at.getTime() === other.at.getTime()
    ? one.state === 'paused' && other.state === 'resumed'
    : one.at > other.at;

/**
 * A pause of a target that cannot be would be stored and stop nothing, while whoever ordered it believes that writes are paused.
 * Throws EVENT_INVALID for it. Whether a credential names the target is not asked here: of that start-rotations tells in a finding.
 */
async function assertPossibleTarget(
  { provider, targetId }: Place,
  loadProvider: Rekey['loadProvider'],
): Promise<void> {
  const definition = await loadProvider(provider);
  if (definition === undefined)
    throw new InputError(
      'EVENT_INVALID',
      `detail.provider: expected a provider that rekey has${loadProvider.ids === undefined ? '' : ` (${loadProvider.ids.join(', ')})`}, got ${provider}; nothing is paused, send the event again`,
    );
  // Any database does: a pause is of the target as a whole.
  const parsed = definition.targetSchema.safeParse(definition.targetOf({ targetId, database: 'database' }));
  if (!parsed.success)
    throw new InputError(
      'EVENT_INVALID',
      `detail.target: ${parsed.error.issues.map(({ message }) => message).join('; ')}, got ${targetId}; nothing is paused, send the event again`,
    );
}

/**
 * Afterwards the order stands, or one that is younger. A pause of everything and one of a target stand beside each other: whoever
 * ends one has not ended the other.
 */
export async function notePause(
  { order, on, orderedAt }: Extract<Invocation, { readonly is: 'pause' }>,
  rekey: Teller & Pick<Rekey, 'loadProvider'>,
): Promise<'noted' | 'ignored'> {
  const { ports } = rekey;
  await refuseFuture(orderedAt, ports);
  const ordered: Pause = { state: order === 'RekeyPaused' ? 'paused' : 'resumed', at: orderedAt };
  const parameter = pauseParameter(on);
  const read = async (): Promise<Pause | 'none' | 'unreadable'> => {
    const document = await ports.readParameter({ parameter });
    return pauseIn(document === 'absent' ? undefined : document);
  };
  const stands = (stored: Pause): boolean => !outranks(ordered, stored);
  const ignore = (because: string): Promise<'ignored'> =>
    ignoreOrder(
      {
        order,
        ...(on === undefined ? {} : { provider: on.provider, target: on.targetId }),
        orderedAt: orderedAt.toISOString(),
        because,
      },
      rekey,
    );

  const before = await read();
  // What was stored before providers were checked can still be ended.
  if (on !== undefined && before === 'none') await assertPossibleTarget(on, rekey.loadProvider);
  if (typeof before === 'object' && stands(before)) {
    const isSame = before.state === ordered.state && before.at.getTime() === ordered.at.getTime();
    return isSame ? 'noted' : ignore(`a younger order of ${before.at.toISOString()} stands: ${before.state}`);
  }
  const isPaused = typeof before === 'object' ? before.state === 'paused' : before === 'unreadable';
  if ((await ports.now()).getTime() - orderedAt.getTime() > maxPauseOrderAgeMs)
    return isPaused === (ordered.state === 'paused')
      ? 'noted'
      : ignore('it is older than a day; send it again if it is still meant');
  const document = JSON.stringify({ state: ordered.state, at: orderedAt.toISOString() });
  const isSettled = async (): Promise<boolean> => {
    const stored = await read();
    return typeof stored === 'object' && stands(stored);
  };
  await settle(parameter, document, isSettled, ports);
  // Each pause is ended by its own order: where another one stands, writes do not go on.
  const others = [...(await readPauses(ports)).keys()].filter((key) => pausePath + key !== parameter);
  rekey.log('warn', ordered.state === 'paused' ? 'a pause of writes stands' : 'a pause of writes is over', {
    ...(on ?? { every: 'target' }),
    orderedAt: orderedAt.toISOString(),
    ...(others.length === 0 ? {} : { stillPaused: others }),
  });
  return 'noted';
}

// How an instant is kept.

const instantSchema = z.iso.datetime({ offset: true });

function instantIn(document: string | 'absent'): Date | undefined {
  const parsed = instantSchema.safeParse(document);
  return parsed.success ? new Date(parsed.data) : undefined;
}

/** Afterwards the directive holds `at`, or an instant further in its own direction. Answers what it holds. */
export async function keepDirective(
  which: 'earliest' | 'latest',
  {
    credential,
    kind,
    at,
    stored,
  }: {
    readonly credential: string;
    readonly kind: DirectiveKind;
    readonly at: Date;
    /** As it was read before. */
    readonly stored: Date | undefined;
  },
  ports: Pick<Ports, 'readParameter' | 'createParameter' | 'writeParameter' | 'sleep'>,
): Promise<Date> {
  const stands = (held: Date | undefined): held is Date =>
    held !== undefined && (which === 'latest' ? held >= at : held <= at);
  if (stands(stored)) return stored;
  const parameter = directiveParameter(credential, kind);
  const document = at.toISOString();
  if (stored === undefined) {
    if ((await ports.createParameter({ parameter, document })) === 'written') return at;
    const found = instantIn(await ports.readParameter({ parameter }));
    if (stands(found)) return found;
  }
  await settle(
    parameter,
    document,
    async () => stands(instantIn(await ports.readParameter({ parameter }))),
    ports,
  );
  return at;
}

const maxWrites = 4;

/** Parameter Store has no compare-and-swap: two orders at once may overwrite each other, so what was written is read back. */
async function settle(
  parameter: string,
  document: string,
  stands: () => Promise<boolean>,
  ports: Pick<Ports, 'writeParameter' | 'sleep'>,
): Promise<void> {
  for (let write = 1; write <= maxWrites; write += 1) {
    if (write > 1) await ports.sleep(100 * 2 ** write);
    await ports.writeParameter({ parameter, document });
    if (await stands()) return;
  }
  throw new StoreError(
    'STORE_UNAVAILABLE',
    'applied',
    `${parameter} was written ${maxWrites} times and reads as something older; it is tried again`,
  );
}
