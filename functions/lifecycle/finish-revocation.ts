import { isRevoked } from '../core/directives.ts';
import { RotationRefused } from '../core/errors.ts';
import type { SessionsEnd } from '../core/events.ts';
import type { Finding } from '../core/findings.ts';
import { targetKey } from '../core/fleet.ts';
import type { CredentialState, KnownUser } from '../core/generations.ts';
import { Guard } from '../core/guard.ts';
import { specParameterName } from '../core/names.ts';
import { places } from '../core/notes.ts';
import type { EndedSessions, Login } from '../core/provider.ts';
import { type RevokedSessions, revokedSessions } from '../core/revoked-sessions.ts';
import { holderOf } from '../core/rotation.ts';
import { labelsUnchanged, notPaused } from './guarded-write.ts';
import { anything, recall, recallAll, remember, rememberAll } from './notes.ts';
import { pausedSince } from './orders.ts';
import {
  type Candidate,
  codeOf,
  endSessions,
  evidenceOf,
  hold,
  isolateFailure,
  type Scene,
  safeLogin,
} from './retire-users.ts';
import type { Address } from './unwritten.ts';

/**
 * What CredentialCompromised leaves to do once the next login is current, beside retiring users. In each pass, until it is on record
 * as done: ends the sessions that were opened with a revoked password of a user that stays. Reports what cannot be ended, and a leaked
 * login that stays because rekey must not touch its user. Returns the credentials that were already recorded as having
 * no such session.
 */
export async function finishRevocations(
  states: readonly CredentialState[],
  known: readonly KnownUser[],
  scene: Scene,
): Promise<ReadonlySet<string>> {
  const finished = new Set<string>();
  if (scene.dryRun) return finished;
  for (const state of states) {
    const sessions = revokedSessions(state, known, scene.rekey.sha256);
    if (sessions !== undefined)
      await isolateFailure(
        state,
        'the sessions of a revoked password could not be ended',
        scene,
        async () => {
          const record = await recordOf(state, scene);
          if (record === 'ended') finished.add(state.name);
          else if (record === 'unknown') scene.failed.push(state.name);
          else await endRevokedSessions(state, sessions, scene);
        },
      );
    await isolateFailure(state, 'a leaked login could not be tried', scene, async () => {
      scene.findings.push(...(await adoptedLoginLeft(state, known, scene)));
    });
  }
  return finished;
}

/**
 * How far the revocation is carried out, as an ISO 8601 instant. It is a note, not an order, because in an emergency Parameter Store has
 * no write to spare.
 */
const recordAt = ({ name }: CredentialState): Address => ({ place: places.revocations, key: name });

/**
 * For so long after the order, sessions are ended although the table does not tell whether they were: an outage must not keep an intruder
 * connected. Later, rotations may have come since, and those who logged in with a good password would be cut off with the others.
 */
const urgentMs = 86_400_000;

/** `unknown`: nothing is ended in this pass, and the next one asks again. */
async function recordOf(
  state: CredentialState,
  { rekey, now }: Scene,
): Promise<'ended' | 'open' | 'unknown'> {
  const { revokeBefore } = state.directives;
  const noted = await recall(recordAt(state), rekey);
  if (revokeBefore === undefined) return 'open';
  if (noted === 'unreadable') return now.getTime() - revokeBefore.getTime() < urgentMs ? 'open' : 'unknown';
  if (noted.document === undefined || !(new Date(noted.document) >= revokeBefore)) return 'open';
  // The order may stand for longer than a note is kept.
  await remember(recordAt(state), noted.document, noted, rekey);
  return 'ended';
}

type Ending = RevokedSessions['users'][number];

async function endRevokedSessions(
  state: CredentialState,
  { users, areAllPasswordsChanged }: RevokedSessions,
  scene: Scene,
): Promise<void> {
  const { rekey } = scene;
  const { revokeBefore } = state.directives;
  if (revokeBefore === undefined) return;
  let areEnded = true;
  for (const one of users) if (!(await endTheirSessions(state, one, scene))) areEnded = false;
  if (!areEnded || !areAllPasswordsChanged) return;
  await remember(recordAt(state), revokeBefore.toISOString(), anything, rekey);
  await keepMarks(users, () => undefined, scene);
}

/** Answers whether none is left. */
async function endTheirSessions(
  state: CredentialState,
  { user, openedBefore }: Ending,
  scene: Scene,
): Promise<boolean> {
  const { rekey, target } = scene;
  const { secret, name, spec } = state;
  const { username } = user;
  const versionId = holderOf(secret.labelsByVersion, 'AWSCURRENT') ?? '';
  const candidate: Candidate = { user, credential: state, judge: () => ({ say: 'keep', reason: 'CURRENT' }) };
  const about = { provider: target.provider, target: target.targetId, credential: name, username };
  const since = await pausedSince(target, rekey);
  if (since !== undefined) {
    hold(candidate, 'PAUSED', scene);
    scene.findings.push({
      kind: 'RevocationWaiting',
      ...about,
      details: `writes are paused since ${since.toISOString()}, and sessions that were opened with a revoked password may still be open`,
      remedy: 'send RekeyResumed: these sessions are ended by the next pass',
    });
    return false;
  }
  const detail: SessionsEnd = {
    credential: name,
    provider: spec.provider,
    target: spec.targetId,
    strategy: spec.strategy,
    secretArn: secret.arn,
    versionId,
    username,
    openedBefore: openedBefore.toISOString(),
  };
  const guard = Guard.of(labelsUnchanged(secret, rekey), notPaused(target, rekey));
  const noted = await recall({ place: placeOf(scene), key: username }, rekey);
  const before = noted === 'unreadable' ? undefined : noted.document;
  const change = markOf(`${versionId} ${state.directives.revokeBefore?.toISOString()}`, scene);
  try {
    // Before anything is said of it: an intent that is told and never acted on reads like a crash.
    await guard.ask(await rekey.ports.now());
    if (before?.startsWith(`${change} `) !== true)
      await rekey.ports.publish([{ type: 'DatabaseSessionsEndPlanned', detail }]);
  } catch (error) {
    if (!(error instanceof RotationRefused)) throw error;
    hold(candidate, error.code === 'PAUSED' ? 'PAUSED' : 'LABELS_MOVED', scene);
    return false;
  }
  /** Told once: the next passes try it again, and say so once something else comes of it. */
  const tell = async (ended: EndedSessions): Promise<void> => {
    const because = ended.ended ? ended.because : ended.reason;
    // How many are left changes all the time.
    const result = `${change} ${markOf(ended.ended ? 'ended' : ended.reason.replaceAll(/\d+/g, ''), scene)}`;
    if (result === before) return;
    await rekey.ports.publish([
      {
        type: 'DatabaseSessionsEnded',
        detail: {
          ...detail,
          outcome: ended.ended ? 'ended' : 'not-ended',
          ...(because === undefined ? {} : { because }),
        },
      },
    ]);
    await keepMarks([{ user }], () => result, scene);
  };
  const ended = await endSessions(candidate, openedBefore, guard, scene).catch(async (error) => {
    await tell({ ended: false, reason: `asking for it failed with ${codeOf(error) ?? 'DEFECT'}` });
    throw error;
  });
  rekey.log(ended.ended ? 'info' : 'warn', 'sessions of a revoked password', {
    credential: name,
    username,
    ...ended,
  });
  scene.users.push({
    username,
    credential: name,
    outcome: ended.ended ? 'sessions-ended' : 'kept',
    because: evidenceOf(ended).drain,
  });
  if (!ended.ended)
    scene.findings.push({
      kind: 'RevokedSessionsOpen',
      ...about,
      details: `sessions that were opened with a revoked password may still be open: ${ended.reason}`,
      remedy:
        'let rekey end them, as the details say: an adminSecret in the spec, or the rights in privileges; or set "strategy": "replace-user" and order a rotation, which replaces the user; or end them at the vendor',
    });
  await tell(ended);
  return ended.ended;
}

// What was told, by the name of the user: a mark of what was to be ended, and one of what came of it.

const placeOf = ({ target: { provider, targetId } }: Scene): string =>
  places.sessions(targetKey(provider, targetId));

const markOf = (text: string, { rekey: { sha256 } }: Scene): string =>
  Buffer.from(sha256(text).subarray(0, 6)).toString('base64url');

/** Losing one only says something twice. So those of users that are gone are dropped on the way. */
async function keepMarks(
  users: readonly Pick<Ending, 'user'>[],
  markFor: () => string | undefined,
  scene: Scene,
): Promise<void> {
  const { rekey } = scene;
  const place = placeOf(scene);
  const { notes: before } = await recallAll(place, rekey);
  const listed = new Set(scene.listed.map(({ username }) => username));
  const marks = new Map(
    [...before].flatMap(([username, { document }]) =>
      listed.has(username) ? [[username, document] as const] : [],
    ),
  );
  for (const { user } of users) {
    const mark = markFor();
    if (mark === undefined) marks.delete(user.username);
    else marks.set(user.username, mark);
  }
  await rememberAll(place, marks, before, rekey);
}

// Adopted users.

/** How many of the oldest and of the newest revoked versions are looked through for the login of an adopted user. */
const maxVersionsRead = 5;

/**
 * rekey does not touch an adopted user unless the spec lets it retire. If the login of such a user was revoked and is still accepted,
 * somebody has to know.
 */
async function adoptedLoginLeft(
  state: CredentialState,
  known: readonly KnownUser[],
  scene: Scene,
): Promise<readonly Finding[]> {
  const { name, spec, versions, directives } = state;
  const { adopt } = spec;
  if (adopt === undefined || adopt.retire || directives.revokeBefore === undefined) return [];
  const { username } = adopt;
  // As AWSCURRENT it is about to get another password, or another user takes its place.
  const stays = known.some(
    ({ user, standing }) =>
      user.username === username && standing.is === 'idle' && standing.credential.name === name,
  );
  if (!stays) return [];
  const revoked = versions.filter(({ createdAt }) => isRevoked(directives, createdAt));
  const logins: Login[] = [];
  for (const { versionId } of new Set([
    ...revoked.slice(0, maxVersionsRead),
    ...revoked.slice(-maxVersionsRead),
  ])) {
    const login = await safeLogin(state, versionId, scene);
    const isKnown = logins.some(({ password }) => login?.password.equals(password));
    if (login?.username === username && !isKnown) logins.push(login);
  }
  const provider = await scene.providerOf(state);
  for (const login of logins) {
    const answer =
      spec.verify === 'none'
        ? 'not tried'
        : await provider.verify(login).catch((error: unknown) => {
            if (codeOf(error) === undefined) throw error;
            return codeOf(error);
          });
    if (answer === 'rejected') continue;
    return [
      {
        kind: 'AdoptedLoginCompromised',
        provider: scene.target.provider,
        target: scene.target.targetId,
        credential: name,
        username,
        details:
          'its login was reported as compromised and may still work; rekey leaves the user alone, as adopt says "retire": false',
        remedy: `change its password or delete it at the vendor, and end its connections there; or set "retire": true in ${specParameterName(name)}, and rekey deletes it`,
      },
    ];
  }
  return [];
}
