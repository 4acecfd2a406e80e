import { z } from 'zod';
import {
  type DirectiveKind,
  type Directives,
  directiveKinds,
  directiveParameter,
  directivesByCredential,
  readDirectives,
} from '../core/directives.ts';
import { skewMs } from '../core/due.ts';
import { InputError, RotationRefused } from '../core/errors.ts';
import type { Invocation, RekeyEvent } from '../core/events.ts';
import { targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { directivesPath, pausePath, secretName, specParameterName } from '../core/names.ts';
import type { Ports } from '../core/ports.ts';
import type { Rekey } from './rekey.ts';

/**
 * What people and events ordered, the one place where it is kept and read. Each order is idempotent by its own time: one that comes
 * twice, late or out of order leaves what the youngest says, and one that is older than what it is about changes nothing.
 */

type Order = Extract<Invocation, { readonly is: 'order' }>;
type Pause = Extract<Invocation, { readonly is: 'pause' }>;

/** The spec and the orders of one credential, in one reading. Throws SPEC_INVALID for an order that cannot be read. */
export async function readStandingOrders(
  name: string,
  ports: Pick<Ports, 'readParameters'>,
): Promise<{ readonly document: string | undefined; readonly directives: Directives }> {
  const spec = specParameterName(name);
  const parameters = directiveKinds.map((kind) => directiveParameter(name, kind));
  const found = await ports.readParameters({ parameters: [spec, ...parameters] });
  const stored = parameters.flatMap((parameter) => {
    const document = found.get(parameter);
    return document === undefined ? [] : [{ parameter, document }];
  });
  return { document: found.get(spec), directives: directivesByCredential(stored).get(name) ?? {} };
}

// The pause.

const pauseSchema = z.object({
  state: z.enum(['paused', 'resumed']),
  at: z.iso.datetime({ offset: true }).transform((text) => new Date(text)),
});

const pauseParameter = (on: Pause['on']): string =>
  `${pausePath}${on === undefined ? 'all' : targetKey(on.provider, on.target)}`;

/** Since when writes on this target are paused; undefined where they are not. What cannot be read counts as a pause. */
export async function pausedSince(
  { provider, targetId }: { readonly provider: string; readonly targetId: string },
  ports: Pick<Ports, 'readParameters'>,
): Promise<Date | undefined> {
  const parameters = [pauseParameter(undefined), pauseParameter({ provider, target: targetId })];
  const found = await ports.readParameters({ parameters });
  return pausesIn(found.values())
    .toSorted((a, b) => a.getTime() - b.getTime())
    .at(0);
}

/** Since when each pause lasts, by the target that it is about: `all`, or as in `targetKey`. */
export async function readPauses(ports: Pick<Ports, 'listParameters'>): Promise<ReadonlyMap<string, Date>> {
  const stored = await ports.listParameters({ path: pausePath });
  return new Map(
    stored.flatMap(({ parameter, document }) =>
      pausesIn([document]).map((since) => [parameter.slice(pausePath.length), since] as const),
    ),
  );
}

const pausesIn = (documents: Iterable<string>): readonly Date[] =>
  [...documents].flatMap((document) => {
    const read = pauseSchema.safeParse(jsonOf(document));
    if (!read.success) return [new Date(0)];
    return read.data.state === 'paused' ? [read.data.at] : [];
  });

/** How late an order to pause may come: one from an archive must not stop everything again. */
const pauseMayTakeMs = 24 * 3_600_000;

/** Afterwards the order is stored, unless a younger one is. */
export async function notePause(
  { order, on, orderedAt }: Pause,
  rekey: Pick<Rekey, 'ports' | 'log'>,
): Promise<void> {
  const { ports } = rekey;
  const now = await ports.now();
  assertPast(orderedAt, now);
  const about = { order, ...on, orderedAt };
  if (now.getTime() - orderedAt.getTime() > pauseMayTakeMs)
    return ignore({ ...about, because: 'it is older than a day; send it again if it is still meant' }, rekey);
  const parameter = pauseParameter(on);
  const stored = await ports.readParameter({ parameter });
  const before = pauseSchema.safeParse(stored === 'absent' ? undefined : jsonOf(stored));
  if (before.success && before.data.at > orderedAt)
    return ignore({ ...about, because: 'a younger order is stored' }, rekey);
  const state = order === 'RekeyPaused' ? 'paused' : 'resumed';
  await ports.writeParameter({ parameter, document: JSON.stringify({ state, at: orderedAt.toISOString() }) });
  rekey.log('warn', state === 'paused' ? 'writes are paused' : 'writes go on', { ...on });
}

/** The sender may set an event's time. What is made meanwhile would all count as older than an order of the future. */
function assertPast(orderedAt: Date, now: Date): void {
  if (orderedAt.getTime() > now.getTime() + skewMs)
    throw new InputError(
      'EVENT_INVALID',
      `time: expected an instant that has passed, got ${orderedAt.toISOString()}; send the event without a time of its own`,
    );
}

async function ignore(
  {
    orderedAt,
    ...detail
  }: Omit<Extract<RekeyEvent, { readonly type: 'OrderIgnored' }>['detail'], 'orderedAt'> & {
    readonly orderedAt: Date;
  },
  { ports, log }: Pick<Rekey, 'ports' | 'log'>,
): Promise<void> {
  const told = { ...detail, orderedAt: orderedAt.toISOString() };
  log('warn', 'an order was ignored', told);
  await ports.publish([{ type: 'OrderIgnored', detail: told }]);
}

// Orders about one credential.

/**
 * Afterwards the order to rotate is stored and stays should this invocation die; the youngest counts. Answers what was ordered, as a
 * listing of parameters may not show it yet; undefined where it was ignored. Throws SPEC_MISSING for the name of no credential.
 */
export async function noteRotation(
  { order, credential, orderedAt, evenIfLockedOut = false }: Order,
  rekey: Pick<Rekey, 'ports' | 'log'>,
): Promise<Directives | undefined> {
  const { ports } = rekey;
  if (order === 'CredentialDeletionRequested')
    throw new InputError(
      'EVENT_INVALID',
      `got ${order}, expected CredentialRotationRequested or CredentialCompromised; deletions are for delete-user`,
    );
  const { document, directives } = await readStandingOrders(credential, ports);
  if (document === undefined) {
    if (isReplay(orderedAt, directives)) {
      await ignore({ order, credential, orderedAt, because: deletedBecause(directives) }, rekey);
      return undefined;
    }
    throw specMissing(credential);
  }
  const now = await ports.now();
  assertPast(orderedAt, now);
  // A clock that is ahead of ours would revoke what is made to replace the leaked login, too.
  const at = orderedAt < now ? orderedAt : now;
  const kinds: readonly DirectiveKind[] =
    order === 'CredentialRotationRequested'
      ? ['rotateBefore']
      : evenIfLockedOut
        ? ['revokeBefore', 'revokeAnyway']
        : ['revokeBefore'];
  for (const kind of kinds) {
    const before = directives[kind];
    if (before === undefined || before < at)
      await ports.writeParameter({
        parameter: directiveParameter(credential, kind),
        document: at.toISOString(),
      });
  }
  return Object.fromEntries(kinds.map((kind) => [kind, at]));
}

/**
 * Afterwards the order to delete the credential is stored: whatever happens to this run, the next pass goes on. The earliest order
 * counts. One that is older than the credential is a replay about another one of the same name, and is ignored.
 */
export async function noteDeletion(
  { order, credential, orderedAt, targetIsGone = false }: Order,
  rekey: Pick<Rekey, 'ports' | 'log'>,
): Promise<void> {
  const { ports } = rekey;
  if (order !== 'CredentialDeletionRequested')
    throw new InputError(
      'EVENT_INVALID',
      `got ${order}, expected CredentialDeletionRequested; rotations are ordered from start-rotations`,
    );
  const { document, directives } = await readStandingOrders(credential, ports);
  const about = { order, credential, orderedAt };
  if (isReplay(orderedAt, directives))
    return ignore({ ...about, because: deletedBecause(directives) }, rekey);
  if (document === undefined) throw specMissing(credential);
  const secret = await ports.describeSecret({ secretId: secretName(credential) });
  const madeAt = secret === 'absent' ? undefined : secret.createdAt;
  if (madeAt !== undefined && orderedAt < madeAt)
    return ignore(
      {
        ...about,
        because: `it is older than the secret, which was made at ${madeAt.toISOString()}; order the deletion again if this credential is to go`,
      },
      rekey,
    );
  const now = await ports.now();
  // A clock that is ahead of ours must not put the order off.
  const at = orderedAt < now ? orderedAt : now;
  const { deleteSince } = directives;
  if (deleteSince === undefined || deleteSince > at)
    await ports.writeParameter({
      parameter: directiveParameter(credential, 'deleteSince'),
      document: at.toISOString(),
    });
  if (targetIsGone && directives.targetIsGone === undefined)
    await ports.writeParameter({
      parameter: directiveParameter(credential, 'targetIsGone'),
      document: at.toISOString(),
    });
}

/** Whether an order or a request is about the credential of this name that was deleted since. */
export const isReplay = (sentAt: Date, { deletedAt }: Directives): boolean =>
  deletedAt !== undefined && sentAt <= deletedAt;

const deletedBecause = ({ deletedAt }: Directives): string =>
  `the credential was deleted at ${deletedAt?.toISOString()}`;

/** Says that a request was ignored, as the credential that it asked for was deleted since. */
export const ignoreRequest = (
  credential: string,
  requestedAt: Date,
  directives: Directives,
  rekey: Pick<Rekey, 'ports' | 'log'>,
): Promise<void> =>
  ignore(
    { order: 'CredentialRequested', credential, orderedAt: requestedAt, because: deletedBecause(directives) },
    rekey,
  );

const specMissing = (credential: string): RotationRefused =>
  new RotationRefused(
    'SPEC_MISSING',
    `there is no ${specParameterName(credential)}; check the name, and send the event again with that of a credential`,
  );

/** Removes what was ordered for a credential that is gone, but for when it was deleted. */
export async function forgetOrders(name: string, ports: Pick<Ports, 'deleteParameter'>): Promise<void> {
  for (const kind of directiveKinds)
    if (kind !== 'deletedAt') await ports.deleteParameter({ parameter: directiveParameter(name, kind) });
}

/** Longer than the archive of the bus keeps events. */
const tombstoneMs = 400 * 86_400_000;

/** Removes what says that a credential was deleted, once nothing can be replayed any more. */
export async function forgetTombstones({ ports }: Pick<Rekey, 'ports'>): Promise<void> {
  const now = (await ports.now()).getTime();
  const { directives } = readDirectives(await ports.listParameters({ path: directivesPath }));
  for (const [name, { deletedAt }] of directives)
    if (deletedAt !== undefined && now - deletedAt.getTime() > tombstoneMs)
      await ports.deleteParameter({ parameter: directiveParameter(name, 'deletedAt') });
}
