import * as z from 'zod/mini';
import {
  InputError,
  ProviderError,
  RotationRefused,
  StoreError,
  VerificationFailed,
} from '../core/errors.ts';
import type { DrainEvidence, FailedCall, RekeyEvent, UserFacts } from '../core/events.ts';
import type { Finding } from '../core/findings.ts';
import { type Credential, specAt, storedSpec, type Target, targetKey } from '../core/fleet.ts';
import { type CredentialState, type CredentialVersions, graceMarginMs, isOwn } from '../core/generations.ts';
import { Guard } from '../core/guard.ts';
import { jsonOf } from '../core/json.ts';
import { places } from '../core/notes.ts';
import {
  type DatabaseUser,
  type EndedSessions,
  type Login,
  type Provider,
  type Session,
  type Sessions,
  sameEndpoint,
} from '../core/provider.ts';
import {
  endingOf,
  type Keep,
  type KeepReason,
  type Observed,
  type Retire,
  type UserVerdict,
} from '../core/retirement.ts';
import { holderOf } from '../core/rotation.ts';
import { consumerName, openConsumers } from './consumers.ts';
import {
  labelsUnchanged,
  notPaused,
  slowReading,
  specUnchangedAndNotPaused,
  stillEnding,
  whyAdopted,
  whyUnjudged,
} from './guarded-write.ts';
import { type RecalledNotes, recallAll, rememberAll } from './notes.ts';
import type { Rekey } from './rekey.ts';
import { openTarget, readLogin } from './target.ts';
import type { TargetSpecs } from './target-specs.ts';

/** Why a user that could go stays for this pass. */
const holdReasons = [
  'LABELS_MOVED',
  'CREDENTIAL_UNREADABLE',
  'BUDGET',
  'NO_TIME',
  'PAUSED',
  'RATE_LIMITED',
] as const;
export type HoldReason = (typeof holdReasons)[number];

export interface UserReport {
  readonly username: string;
  readonly credential?: string;
  readonly outcome: 'kept' | 'would-retire' | 'deleted' | 'absent' | 'sessions-ended' | 'failed';
  /** Why: one of the reasons to keep or to hold, the code of what failed, or how it was known that nobody is connected. */
  readonly because: KeepReason | HoldReason | DrainEvidence['drain'] | (string & {});
  readonly until?: string;
  /** Of a dry run that found writes paused: since when. */
  readonly since?: string;
}

/** One target in one pass: what was read, what may still be done, and what came of it. */
export interface Scene {
  readonly rekey: Rekey;
  readonly until: Date;
  readonly dryRun: boolean;
  /** Only read in a dry run, as its report is all that it does. Any other pass asks right before each write. */
  readonly pausedSince: Date | undefined;
  /** When this pass began with the target; every grace is judged by it. */
  readonly now: Date;
  readonly target: Target;
  /** The specs of the target as they are stored now, for guards. */
  readonly specs: TargetSpecs;
  /** The user list that everything is judged by. */
  readonly listed: readonly DatabaseUser[];
  readonly list: () => Promise<readonly DatabaseUser[]>;
  readonly providerOf: (credential: Credential) => Promise<Provider>;
  /** Every credential of the target whose values could be read. */
  readonly states: readonly CredentialState[];
  readonly logins: Map<string, Promise<Login | undefined>>;
  /** By the name of the credential: what came of trying the login in AWSCURRENT in this visit. */
  readonly proofs: Map<string, Promise<NonNullable<Observed['current']>>>;
  readonly notes: Map<string, Note>;
  /** The same as it is stored. */
  readonly storedNotes: RecalledNotes;
  /** Takes one of the writes that this pass may ask of the vendor; false when none is left. */
  readonly takeWrite: (credential: Credential) => boolean;
  readonly users: UserReport[];
  readonly findings: Finding[];
  /** How long past its drain deadline each connected user is; negative before it. */
  readonly overdueMs: number[];
  /** What went wrong that is no vendor's no. */
  readonly errors: unknown[];
  /** The credentials of which something failed, whoever's failure it was. */
  readonly failed: string[];
}

/** A listed user that may go, and all that it takes. */
export interface Candidate {
  readonly user: DatabaseUser;
  /** Undefined for a user that stands in as the default. */
  readonly credential: CredentialVersions | undefined;
  /** The version that may hold its login. */
  readonly versionId?: string | undefined;
  readonly judge: (observed: Observed) => UserVerdict;
  /** Its login was reported as compromised. @default false */
  readonly isRevoked?: boolean;
  /** The credential is to go: its deletion must still be wanted when the user goes. */
  readonly isEnding?: boolean;
  /** What must be done at the provider before the user can be deleted. */
  readonly prepare?: (guard: Guard) => Promise<void>;
}

/** Two readings of zero count when they are at least so far apart. */
export const secondReadingMs = 5_000;
/** A deletion with its two looks at the list takes so long at least. */
const longestDeletionMs = 60_000;
/** One target must not take the time of all; the next pass takes the rest. */
const mostAtOnce = 25;

/** Afterwards each candidate is gone, or reported with the reason why it is not. Answers whether all are gone. */
export async function retireUsers(candidates: readonly Candidate[], scene: Scene): Promise<boolean> {
  const { ports } = scene.rekey;
  const open: Open[] = [];
  const staying: string[] = [];
  for (const candidate of candidates)
    await guarded(candidate, scene, async () => {
      if (!(await hasTime(scene))) return hold(candidate, 'NO_TIME', scene);
      const [verdict, observed] = await firstVerdict(candidate, scene);
      if (verdict.say === 'keep') {
        await keep(candidate, verdict, scene);
        if (!mayBeGoing.has(verdict.reason)) staying.push(candidate.user.username);
      } else if (open.length < mostAtOnce) open.push({ candidate, verdict, observed });
      else hold(candidate, 'BUDGET', scene);
    });
  await dropNotes(staying, scene);
  if (open.length === 0) return candidates.length === 0;
  if (open.some(({ verdict }) => verdict.say === 'observe')) await ports.sleep(secondReadingMs);

  for (const { candidate } of open) {
    const { failed, isTold } = scene.notes.get(candidate.user.username) ?? {};
    scene.notes.set(candidate.user.username, {
      ...noteOf(candidate),
      ...(failed === undefined ? {} : { failed }),
      ...(isTold === undefined ? {} : { isTold }),
    });
  }
  let gone = 0;
  for (const { candidate, observed, verdict: first } of open)
    await guarded(candidate, scene, async () => {
      if (!(await hasTime(scene))) return hold(candidate, 'NO_TIME', scene);
      // The second reading comes right before the deletion: a vendor may end connections with it.
      const verdict =
        first.say === 'observe'
          ? candidate.judge({
              ...observed,
              readings: [...(observed.readings ?? []), await readSessions(candidate, scene)],
            })
          : first;
      const { username } = candidate.user;
      let came: 'gone' | 'stays' | 'waits' = 'stays';
      if (verdict.say === 'keep') await keep(candidate, verdict, scene);
      else if (verdict.say === 'retire') came = await retire({ candidate, verdict, observed }, scene);
      if (came === 'gone') gone += 1;
      // Not where it failed, now or when it was tried before: then it may be gone before the next pass.
      if (came !== 'waits' || scene.notes.get(username)?.failed === undefined) scene.notes.delete(username);
    });
  await saveNotes(scene);
  return gone === candidates.length;
}

const hasTime = async ({ rekey: { ports }, until }: Scene): Promise<boolean> =>
  until.getTime() - (await ports.now()).getTime() >= longestDeletionMs;

interface Open<Verdict = UserVerdict> {
  readonly candidate: Candidate;
  readonly verdict: Verdict;
  readonly observed: Observed;
}

async function firstVerdict(candidate: Candidate, scene: Scene): Promise<readonly [UserVerdict, Observed]> {
  let observed: Observed = {};
  let verdict = candidate.judge(observed);
  if (verdict.say === 'prove-current') {
    observed = { current: await proofOfCurrent(candidate, scene) };
    verdict = candidate.judge(observed);
  }
  if (verdict.say === 'ask-consumers') {
    observed = { ...observed, consumersBehind: await consumersBehind(candidate, scene) };
    verdict = candidate.judge(observed);
  }
  if (verdict.say === 'observe') {
    observed = { ...observed, readings: [await readSessions(candidate, scene)] };
    verdict = candidate.judge(observed);
  }
  return [verdict, observed];
}

/** What came of it: `stays` where it is not to go after all, `waits` where the next pass is to try. */
async function retire(
  { candidate, verdict, observed }: Open<Retire>,
  scene: Scene,
): Promise<'gone' | 'stays' | 'waits'> {
  const { user, credential } = candidate;
  const { rekey } = scene;
  const { ports } = rekey;
  if (scene.dryRun) {
    const { pausedSince: since } = scene;
    if (since === undefined) report(candidate, 'would-retire', verdict.evidence.drain, scene);
    else report(candidate, 'kept', 'PAUSED', scene, { since });
    return 'stays';
  }
  const provider = await scene.providerOf(credential ?? firstOf(scene.target));
  if (!scene.takeWrite(credential ?? firstOf(scene.target))) {
    hold(candidate, 'BUDGET', scene);
    return 'waits';
  }
  const guard = guardOf(candidate, observed, scene);
  // Before anything is said of it: an intent that is told and never acted on reads like a crash.
  await guard.ask(await ports.now());
  if (candidate.prepare !== undefined) await candidate.prepare(guard);

  const facts = factsOf(candidate, verdict.reason, scene);
  let { evidence } = verdict;
  // The intent first: whoever reads the record must find out who cut the connections and deleted the user, whatever happens from
  // here on. Killed after this line, the next pass finds the user listed and does it again, or not listed, and tells the outcome
  // by its note, which is stored between the intent and the deletion.
  const outcome = await betweenWords(
    {
      username: user.username,
      change: `${verdict.reason} ${verdict.evidence.drain}`,
      intent: { type: 'DatabaseUserRetired', detail: { ...facts, evidence } },
      failure: (failed) => ({
        type: 'DatabaseUserDeletionFailed',
        detail: { ...facts, ...failed, evidence },
      }),
    },
    async () => {
      // Before anything is sent: should this pass die, the next one tells the outcome of what was told here.
      await markTold(user.username, scene);
      if (verdict.endSessions) evidence = evidenceOf(await endSessions(candidate, endOfTime, guard, scene));
      return provider.deleteUser(user.username, guard, await ownLogin(candidate, scene));
    },
    scene,
  );
  // Where the bus does not take it, the note stands, and the next pass tells it.
  await ports.publish([{ type: 'DatabaseUserDeleted', detail: { ...facts, outcome, evidence } }]);
  report(candidate, outcome, evidence.drain, scene);
  return 'gone';
}

interface Words {
  /** The user that the note is kept under. */
  readonly username: string;
  /** What is done to it, and why: another change is told anew. */
  readonly change: string;
  readonly intent: RekeyEvent;
  readonly failure: (failed: FailedCall) => RekeyEvent;
}

/**
 * `act` after its intent, and where it fails, the outcome. What a vendor does not let go is tried in every pass, for months if
 * nobody mends it: an intent that the same change failed under stands, and an outcome is told when it is another than before. Told
 * first, noted afterwards: a crash between the two tells it twice, never not at all.
 */
export async function betweenWords<Answer>(
  { username, change, intent, failure }: Words,
  act: () => Promise<Answer>,
  { rekey: { ports, log, sha256 }, notes }: Scene,
): Promise<Answer> {
  const markOf = (text: string): string => Buffer.from(sha256(text).subarray(0, 6)).toString('base64url');
  const before = notes.get(username)?.failed;
  const changeMark = markOf(change);
  if (before?.startsWith(`${changeMark} `) !== true) await ports.publish([intent]);
  try {
    return await act();
  } catch (error) {
    const failed = failedCallOf(error);
    const result = `${changeMark} ${markOf(`${failed.code} ${failed.effect}`)}`;
    if (result === before) throw error;
    try {
      await ports.publish([failure(failed)]);
      const note = notes.get(username);
      if (note !== undefined) notes.set(username, { ...note, failed: result });
    } catch (refusal) {
      // What kept the user is the error to be seen: a bus that fails as well must not hide it. The next pass tells it.
      log('error', 'the failure could not be published', { username, code: codeOf(refusal) ?? 'DEFECT' });
    }
    throw error;
  }
}

/** Of a defect nobody knows what was done. */
const failedCallOf = (error: unknown): FailedCall => ({
  code: codeOf(error) ?? 'DEFECT',
  effect: error instanceof Error && 'effect' in error ? String(error.effect) : 'unknown',
});

const firstOf = ({ credentials }: Target): Credential => {
  const [first] = credentials;
  if (first === undefined) throw new Error('a target has at least one credential');
  return first;
};

/**
 * The reasons to take a user away: its credential is as it was when the verdict was made, no other credential adopts the user, the
 * login in AWSCURRENT still works where the verdict needed it, and nobody paused writes here.
 */
function guardOf(
  { user: { username }, credential, isEnding = false, isRevoked = false }: Candidate,
  { current }: Observed,
  scene: Scene,
): Guard {
  const { rekey, target, states, now } = scene;
  const paused = notPaused(target, rekey);
  if (credential === undefined) return Guard.of(paused);
  const adopters = states.filter(
    ({ name, spec }) => name !== credential.name && spec.adopt?.username === username,
  );
  const judged = [credential, ...adopters];
  const facts = judged.map(({ secret }) => labelsUnchanged(secret, rekey));
  if (isEnding) facts.push(paused, stillEnding(credential, now, rekey));
  else facts.push(specUnchangedAndNotPaused(storedSpec(credential), rekey, target));
  // A leaked login is also leaked for a credential that adopts its user, so adoption does not count. Otherwise an unreadable spec could
  // keep the user for ever, and would make each deletion list the fleet in an emergency.
  const isLeaked = isRevoked && isOwn(username, credential, rekey.sha256);
  if (!isLeaked || isEnding) {
    const readSpecs = slowReading(() => scene.specs(neededUntil(credential, scene)), rekey);
    facts.push(async () => {
      const beside = { target, specs: await readSpecs() };
      const names = new Set(judged.map(({ name }) => name));
      const adopted = isLeaked ? undefined : await whyAdopted(username, { ...beside, judged: names }, rekey);
      // A superseded user is known to be unused from its own secret. A user in use needs all secrets of the target.
      const all = new Set(target.credentials.map(({ name }) => name));
      return adopted ?? (isEnding ? whyUnjudged({ ...beside, judged: all }, rekey) : undefined);
    });
  }
  if (current !== undefined) {
    const prove = slowReading(() => proveCurrent(credential, scene), rekey);
    facts.push(async () => {
      const proof = await prove();
      return proof === 'accepted' ? undefined : proof.because;
    });
  }
  return Guard.of(...facts);
}

/**
 * The guard must see every spec stored before this instant. A superseded user has been unused for longer; before a deletion order, a
 * deployment may have declared an adopter.
 */
function neededUntil(credential: CredentialVersions, { now }: Scene): Date {
  const grace = new Date(now.getTime() - graceMarginMs);
  const { at = grace } = endingOf(credential, now) ?? {};
  return at > grace ? at : grace;
}

/** Whether the login in AWSCURRENT works, as a consumer would use it; tried once in a visit. */
function proofOfCurrent({ credential }: Candidate, scene: Scene): Promise<NonNullable<Observed['current']>> {
  if (credential === undefined) return Promise.resolve('accepted');
  const known = scene.proofs.get(credential.name) ?? proveCurrent(credential, scene);
  scene.proofs.set(credential.name, known);
  return known;
}

async function proveCurrent(
  credential: CredentialVersions,
  scene: Scene,
): Promise<NonNullable<Observed['current']>> {
  const home = homeOf(credential);
  const versionId = holderOf(credential.secret.labelsByVersion, 'AWSCURRENT');
  const isHere = home.spec.targetId === credential.spec.targetId;
  let opened: Promise<Provider> | undefined;
  const open = (): Promise<Provider> => {
    opened ??= isHere ? scene.providerOf(credential) : openTarget(home.spec, scene.until, scene.rekey);
    return opened;
  };
  try {
    const login =
      isHere || versionId === undefined
        ? await safeLogin(credential, versionId, scene)
        : await readSafeLogin(home, versionId, { ...scene, providerOf: open });
    if (login === undefined) return { because: 'AWSCURRENT holds no login of this target' };
    const provider = await open();
    return (await provider.verify(login)) === 'accepted'
      ? 'accepted'
      : { because: 'the login in AWSCURRENT is refused' };
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return { because: `the login in AWSCURRENT could not be tried (${codeOf(error)})` };
  }
}

/** The credential at the target that AWSCURRENT names: of one that has moved it may be another than this. */
function homeOf(credential: CredentialVersions): CredentialVersions {
  const current = credential.elsewhere?.find(({ labels }) => labels.includes('AWSCURRENT'));
  const spec = current === undefined ? credential.spec : specAt(credential.spec, current);
  return spec === undefined ? credential : { ...credential, spec };
}

function factsOf(
  { user: { username }, credential }: Candidate,
  reason: UserFacts['reason'],
  { target: { provider, targetId } }: Scene,
): UserFacts {
  return {
    credential: credential?.name ?? '',
    provider,
    target: targetId,
    strategy: credential?.spec.strategy ?? 'replace-user',
    username,
    reason,
  };
}

// Connections.

async function readSessions(candidate: Candidate, scene: Scene): Promise<Sessions> {
  const { user, credential } = candidate;
  const provider = await scene.providerOf(credential ?? firstOf(scene.target));
  let seen: Sessions | undefined;
  for (const login of await loginsFor(candidate, scene)) {
    seen = await provider.sessions(user.username, login);
    if (seen.observed) return seen;
  }
  if (seen !== undefined) return seen;
  const open = (await scene.list()).find(({ username }) => username === user.username)?.openConnections;
  return open === undefined
    ? { observed: false, reason: 'no login of this target is known to look with' }
    : { observed: true, open };
}

/** Of a user that goes no connection is spared, however far apart the clocks are. */
const endOfTime = new Date('9999-12-31T00:00:00Z');

/** The provider was asked to end those that were opened before `openedBefore`, there were none, or no login could ask. */
export async function endSessions(
  candidate: Candidate,
  openedBefore: Date,
  guard: Guard,
  scene: Scene,
): Promise<EndedSessions> {
  const { user, credential } = candidate;
  const provider = await scene.providerOf(credential ?? firstOf(scene.target));
  let ended: EndedSessions = { ended: false, reason: 'no login of this target is known to end them with' };
  for (const login of await loginsFor(candidate, scene)) {
    ended = await endedBy(provider, { username: user.username, login, openedBefore }, guard);
    if (ended.ended) break;
  }
  return ended;
}

export function evidenceOf(ended: EndedSessions): DrainEvidence {
  if (!ended.ended) return { drain: 'connections-not-ended', because: ended.reason };
  return ended.because === undefined
    ? { drain: 'connections-ended', because: 'the provider was asked to end them' }
    : { drain: 'no-connections', because: ended.because };
}

/** A user that must go goes, whether its connections can be ended or not. */
async function endedBy(
  provider: Provider,
  {
    username,
    login,
    openedBefore,
  }: { readonly username: string; readonly login: Login; readonly openedBefore: Date },
  guard: Guard,
): Promise<EndedSessions> {
  try {
    return await provider.endSessions(username, login, openedBefore, guard);
  } catch (error) {
    // What no longer holds for ending the connections holds no longer for taking the user away either.
    if (codeOf(error) === undefined || error instanceof RotationRefused) throw error;
    return { ended: false, reason: `asking for it failed with ${codeOf(error)}` };
  }
}

/** The user's own login, then others of the same target: which of them may look is for the provider to say. */
async function loginsFor(candidate: Candidate, scene: Scene): Promise<readonly Login[]> {
  const logins = [await ownLogin(candidate, scene), await currentLogin(candidate, scene)];
  return logins.filter(
    (login, index): login is Login =>
      login !== undefined && logins.findIndex((other) => other?.username === login.username) === index,
  );
}

/** A current one: of its own credential if it has one, else of any other. */
async function currentLogin({ credential }: Candidate, scene: Scene): Promise<Login | undefined> {
  for (const state of [...(credential === undefined ? [] : [credential]), ...scene.states]) {
    const login = await safeLogin(state, holderOf(state.secret.labelsByVersion, 'AWSCURRENT'), scene);
    if (login !== undefined) return login;
  }
  return undefined;
}

/** The user's own login, where Secrets Manager still has it. */
async function ownLogin(
  { user, credential, versionId }: Candidate,
  scene: Scene,
): Promise<Login | undefined> {
  if (credential === undefined) return undefined;
  const { labelsByVersion } = credential.secret;
  const versions = [
    versionId,
    ...(['AWSCURRENT', 'AWSPREVIOUS'] as const).map((label) => holderOf(labelsByVersion, label)),
  ];
  for (const version of new Set(versions)) {
    const login = await safeLogin(credential, version, scene);
    if (login?.username === user.username) return login;
  }
  return undefined;
}

/**
 * A stored login that may be used: it is of this target and of a user of this credential, and points where the provider says that its
 * users connect.
 */
export function safeLogin(
  credential: CredentialVersions,
  versionId: string | undefined,
  scene: Scene,
): Promise<Login | undefined> {
  const { secret } = credential;
  // What is scheduled for deletion cannot be read.
  if (versionId === undefined || secret.deletedAt !== undefined) return Promise.resolve(undefined);
  const key = `${secret.arn} ${versionId}`;
  const known = scene.logins.get(key) ?? readSafeLogin(credential, versionId, scene);
  scene.logins.set(key, known);
  return known;
}

async function readSafeLogin(
  credential: CredentialVersions,
  versionId: string,
  { rekey, providerOf }: Scene,
): Promise<Login | undefined> {
  let login: Login | undefined;
  try {
    login = await readLogin(versionId, credential, rekey);
  } catch (error) {
    if (error instanceof InputError || error instanceof RotationRefused) return undefined;
    throw error;
  }
  if (login === undefined) return undefined;
  const provider = await providerOf(credential);
  return sameEndpoint(login, await provider.endpoint()) ? login : undefined;
}

/** Which consumers have not moved; one that cannot be asked has not. */
async function consumersBehind(
  { credential }: Candidate,
  { rekey, until }: Scene,
): Promise<readonly string[]> {
  if (credential === undefined || credential.spec.consumers.length === 0) return [];
  const home = homeOf(credential);
  const behind: string[] = [];
  for (const opened of await openConsumers(home, home.secret.arn, until, rekey)) {
    try {
      const { say } = await opened.consumer.standing();
      if (say !== 'moved' && say !== 'unobservable') behind.push(consumerName(opened));
    } catch (error) {
      if (codeOf(error) === undefined) throw error;
      rekey.log('warn', 'a consumer could not be asked', {
        credential: home.name,
        consumer: consumerName(opened),
        code: codeOf(error),
      });
      behind.push(consumerName(opened));
    }
  }
  return behind;
}

// Notes: whose deletion was begun, so that its outcome is told also by a pass that only finds the user gone.

const noteSchema = z.object({
  credential: z.string(),
  strategy: z.string(),
  reason: z.enum(['superseded', 'revoked', 'credential-deleted', 'never-published']),
  /** The marks of a change that failed, and of what came of it, as both were told: words would not fit for all. */
  failed: z.optional(z.string()),
  /** The intent was published. Without it no outcome is told: the user went by another hand. */
  isTold: z.optional(z.literal(true)),
});
type Note = z.output<typeof noteSchema>;

const placeOf = ({ provider, targetId }: Pick<Target, 'provider' | 'targetId'>): string =>
  places.deletions(targetKey(provider, targetId));

/** By name of the user. Losing one only loses the word that a deletion was successful, when its pass died right after it. */
export async function readNotes(target: Target, rekey: Rekey): Promise<Pick<Scene, 'notes' | 'storedNotes'>> {
  const { notes: storedNotes } = await recallAll(placeOf(target), rekey);
  const notes = new Map(
    [...storedNotes].flatMap(([username, { document }]): [string, Note][] => {
      const { data } = noteSchema.safeParse(jsonOf(document));
      return data === undefined ? [] : [[username, data]];
    }),
  );
  return { notes, storedNotes };
}

/** One note a user: two passes at one target never write over what the other has noted of another user. */
async function saveNotes({ rekey, target, notes, storedNotes, dryRun }: Scene): Promise<void> {
  if (dryRun) return;
  // Of one that neither was told nor failed there is nothing to say, should it be gone.
  const documents = new Map(
    [...notes].flatMap(([username, note]): [string, string][] =>
      note.isTold || note.failed !== undefined ? [[username, JSON.stringify(note)]] : [],
    ),
  );
  await rememberAll(placeOf(target), documents, storedNotes, rekey);
}

async function markTold(username: string, scene: Scene): Promise<void> {
  const note = scene.notes.get(username);
  if (note === undefined || note.isTold) return;
  scene.notes.set(username, { ...note, isTold: true });
  await saveNotes(scene);
}

/** Of a user that is of use, or may not go now, no outcome is told if it is missing later: another hand deleted it. */
export async function dropNotes(usernames: readonly string[], scene: Scene): Promise<void> {
  const dropped = usernames.filter((username) => scene.notes.delete(username));
  if (dropped.length > 0) await saveNotes(scene);
}

/** Why a user stays that a pass before may have deleted: its login is refused, or its connections are not seen to end. */
const mayBeGoing: ReadonlySet<KeepReason> = new Set<KeepReason>(['STILL_CONNECTED', 'DRAIN_UNOBSERVED']);

/** What the event of its deletion will say, if it is deleted. */
function noteOf({ credential, judge }: Candidate): Note {
  const zero: Sessions = { observed: true, open: 0 };
  const verdict = judge({ current: 'accepted', consumersBehind: [], readings: [zero, zero] });
  return {
    credential: credential?.name ?? '',
    strategy: credential?.spec.strategy ?? 'replace-user',
    reason: verdict.say === 'retire' ? verdict.reason : 'superseded',
  };
}

/** Tells the outcome of deletions that a pass before began and did not live to tell. */
export async function tellOutcomes(scene: Scene): Promise<void> {
  const { rekey, target, listed, list, notes, dryRun } = scene;
  const isIn = (users: readonly DatabaseUser[], name: string) =>
    users.some(({ username }) => username === name);
  const missing = [...notes].filter(([username]) => !isIn(listed, username));
  if (missing.length === 0 || dryRun) return;
  // Absence counts only when it was seen twice.
  await rekey.ports.sleep(secondReadingMs);
  const again = await list();
  const gone = missing.filter(([username]) => !isIn(again, username));
  if (gone.length === 0) return;
  const { provider, targetId } = target;
  const outcomes = gone.flatMap(([username, { failed: _failed, isTold, ...note }]): RekeyEvent[] =>
    isTold
      ? [
          {
            type: 'DatabaseUserDeleted',
            detail: { ...note, provider, target: targetId, username, outcome: 'absent' },
          },
        ]
      : [],
  );
  if (outcomes.length > 0) await rekey.ports.publish(outcomes);
  for (const [username] of gone) notes.delete(username);
  await saveNotes(scene);
}

// Reports.

/** One user's trouble is its own: the others are seen to. */
async function guarded(candidate: Candidate, scene: Scene, use: () => Promise<void>): Promise<void> {
  const { user, credential } = candidate;
  try {
    await use();
  } catch (error) {
    const code = codeOf(error);
    const held = code === undefined ? undefined : holdOf[code];
    if (held !== undefined) {
      // Of a user that is of use after all no outcome is to be told should it ever be missing.
      if (held === 'LABELS_MOVED') scene.notes.delete(user.username);
      return hold(candidate, held, scene);
    }
    scene.rekey.log(code === 'BLOCKED' ? 'warn' : 'error', 'a user could not be retired', {
      credential: credential?.name,
      target: scene.target.targetId,
      username: user.username,
      code: code ?? 'DEFECT',
    });
    report(candidate, 'failed', code ?? 'DEFECT', scene);
    if (error instanceof ProviderError && error.code === 'BLOCKED')
      scene.findings.push(blocked(candidate, error.message.replace(/^BLOCKED: /, ''), scene));
    else if (!isOthers(error)) scene.errors.push(error);
  }
}

/** What ends a try and is nobody's failure: the next pass decides again. */
const holdOf: Readonly<Record<string, HoldReason>> = {
  SUPERSEDED: 'LABELS_MOVED',
  PAUSED: 'PAUSED',
  RATE_LIMITED: 'RATE_LIMITED',
};

export const codeOf = (error: unknown): string | undefined =>
  error instanceof ProviderError ||
  error instanceof StoreError ||
  error instanceof VerificationFailed ||
  error instanceof InputError ||
  error instanceof RotationRefused
    ? error.code
    : undefined;

/** Somebody else's trouble, or a person's to mend: reconcile-users finds what lasts. Anything else is a failure of this function. */
export const isOthers = (error: unknown): boolean =>
  codeOf(error) !== undefined && !(error instanceof StoreError);

/** One credential's trouble is its own. */
export async function isolateFailure(
  { name }: Pick<Credential, 'name'>,
  message: string,
  { rekey, target, errors, failed }: Scene,
  use: () => Promise<void>,
): Promise<void> {
  try {
    await use();
  } catch (error) {
    failed.push(name);
    rekey.log('error', message, {
      credential: name,
      target: target.targetId,
      code: codeOf(error) ?? 'DEFECT',
    });
    if (!isOthers(error)) errors.push(error);
  }
}

function report(
  { user: { username }, credential }: Pick<Candidate, 'user' | 'credential'>,
  outcome: UserReport['outcome'],
  because: UserReport['because'],
  { users }: Scene,
  { until, since }: { readonly until?: Date | undefined; readonly since?: Date } = {},
): void {
  users.push({
    username,
    ...(credential === undefined ? {} : { credential: credential.name }),
    outcome,
    because,
    ...(until === undefined ? {} : { until: until.toISOString() }),
    ...(since === undefined ? {} : { since: since.toISOString() }),
  });
}

/** Whether this pass does not know how the user stands: what was found of it before may be so still. */
export const isUnclear = ({ outcome, because }: UserReport): boolean =>
  (outcome === 'failed' && because !== 'BLOCKED') || holdReasons.some((reason) => reason === because);

export function hold(
  candidate: Pick<Candidate, 'user' | 'credential'>,
  reason: HoldReason,
  scene: Scene,
): void {
  report(candidate, 'kept', reason, scene);
}

async function keep(candidate: Candidate, verdict: Keep, scene: Scene): Promise<void> {
  // A login that is refused may belong to a user that another pass has deleted since the list was read: nothing to report.
  if (verdict.reason === 'DRAIN_UNOBSERVED' && !(await isStillListed(candidate, scene)))
    return report(candidate, 'absent', verdict.reason, scene);
  const until =
    verdict.reason === 'GRACE_RUNNING'
      ? verdict.until
      : verdict.reason === 'STILL_CONNECTED'
        ? verdict.deadline
        : undefined;
  report(candidate, 'kept', verdict.reason, scene, { until });
  if (verdict.reason === 'STILL_CONNECTED')
    scene.overdueMs.push(scene.now.getTime() - verdict.deadline.getTime());
  const finding = findingOf(candidate, verdict, scene);
  if (finding !== undefined) scene.findings.push(finding);
}

const isStillListed = async ({ user }: Candidate, { list }: Scene): Promise<boolean> =>
  (await list()).some(({ username }) => username === user.username);

const about = (
  { user: { username }, credential }: Candidate,
  { target: { provider, targetId } }: Scene,
): Pick<Finding, 'provider' | 'target' | 'credential' | 'username'> => ({
  provider,
  target: targetId,
  ...(credential === undefined ? {} : { credential: credential.name }),
  username,
});

function findingOf(candidate: Candidate, verdict: Keep, scene: Scene): Finding | undefined {
  const force = candidate.credential?.spec.drain.force === true;
  switch (verdict.reason) {
    case 'STILL_CONNECTED':
      return {
        kind: 'RetiredStillConnected',
        ...about(candidate, scene),
        details: `of no use since ${verdict.overdueSince.toISOString()}, still connected: ${whoIsConnected(verdict.open)}`,
        remedy: `restart or repair what is connected, so that it reads AWSCURRENT; ${force ? `what is left is cut at ${verdict.deadline.toISOString()}` : 'nothing is cut, as drain.force is not set'}`,
      };
    case 'DRAIN_UNOBSERVED':
      return {
        kind: 'DrainUnobservable',
        ...about(candidate, scene),
        details: verdict.because,
        remedy:
          'name a login that can see all sessions as adminSecret in the spec, or make sure yourself that nobody uses the user and delete it at the provider',
      };
    case 'CURRENT_UNPROVED': {
      const proved = candidate.judge({ current: 'accepted' });
      return proved.say === 'retire' && proved.reason === 'revoked'
        ? {
            kind: 'RevocationWaiting',
            ...about(candidate, scene),
            details: `its login was reported as compromised; the user stays until the login in AWSCURRENT is accepted: ${verdict.because}`,
            remedy:
              'let the vendor accept the login in AWSCURRENT, or send CredentialCompromised again with "evenIfLockedOut": true',
          }
        : undefined;
    }
    case 'PROTECTED':
    case 'DEFAULT_USER':
      return candidate.credential === undefined
        ? undefined
        : blocked(
            candidate,
            `the provider lists it as ${isDefault(verdict) ? 'the default user' : 'protected'}`,
            scene,
          );
    default:
      return undefined;
  }
}

const isDefault = ({ reason }: Keep): boolean => reason === 'DEFAULT_USER';

function blocked(candidate: Candidate, details: string, scene: Scene): Finding {
  return {
    kind: 'DeletionBlocked',
    ...about(candidate, scene),
    details,
    remedy: 'remove what holds the user, as the details say; the next pass deletes it by itself',
  };
}

/** Each of them once, and not more than a person would read. */
function whoIsConnected(open: readonly Session[] | number): string {
  if (typeof open === 'number') return `${open} connection${open === 1 ? '' : 's'}`;
  const counts = new Map<string, number>();
  for (const { applicationName, clientAddress } of open) {
    const who = `${applicationName === '' ? 'unnamed' : applicationName} from ${clientAddress === '' ? 'unknown' : clientAddress}`;
    counts.set(who, (counts.get(who) ?? 0) + 1);
  }
  const lines = [...counts].map(([who, count]) => (count === 1 ? who : `${who} (${count} times)`));
  return [...lines.slice(0, 20), ...(lines.length > 20 ? [`and ${lines.length - 20} more`] : [])].join(', ');
}
