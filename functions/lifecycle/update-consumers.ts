import type { ConsumerStanding } from '../core/consumer.ts';
import { consumerDetails } from '../core/drift.ts';
import { ProviderError, RotationRefused } from '../core/errors.ts';
import type { CredentialFacts, Invocation } from '../core/events.ts';
import type { Finding } from '../core/findings.ts';
import { jsonOf } from '../core/json.ts';
import { credentialNameOf, specParameterName } from '../core/names.ts';
import { holderOf } from '../core/rotation.ts';
import { type CredentialSpec, parseSpec } from '../core/spec.ts';
import { announce } from './announce.ts';
import { consumerName, type OpenedConsumer, openConsumer, wantedLogin } from './consumers.ts';
import { inParallel } from './in-parallel.ts';
import { type Rekey, untilFound } from './rekey.ts';

/**
 * Afterwards every consumer of the credential runs with the login that is in AWSCURRENT now, or is reported. The event only says
 * when to look: the version that it names may not be the current one any more. What is lost when this dies, reconcile finds.
 *
 * Throws the first error of those that could not be asked, after all others were seen to: the event is then delivered again.
 */
export async function updateConsumers(
  event: Extract<Invocation, { readonly is: 'label-moved' }>,
  until: Date,
  rekey: Rekey,
): Promise<void> {
  const { ports } = rekey;
  const spec = event.label === 'AWSCURRENT' ? await specOf(event.secretName, rekey) : undefined;
  if (spec === undefined || spec.consumers.length === 0) return;
  const secret = await ports.describeSecret({ secretId: event.secretName });
  if (secret === 'absent' || secret.deletedAt !== undefined) return;
  // The event may be faster than the value (AWS documentation: all operations are eventually consistent). When it stays
  // another one, the label has moved again since.
  const wanted = await untilFound(
    ports,
    () => wantedLogin(spec, secret.arn, rekey),
    (found) => found?.versionId === event.versionId,
  );
  if (wanted === undefined) return;

  const isCurrent = async (): Promise<boolean> => {
    const now = await ports.describeSecret({ secretId: secret.arn });
    return now !== 'absent' && holderOf(now.labelsByVersion, 'AWSCURRENT') === wanted.versionId;
  };
  /** Another run sees to the login that is current now; after a pause, reconcile-users does. */
  const leave = async (because: string): Promise<void> => {
    rekey.log('info', 'the consumers are left to another run', { ...facts, because });
    await publishLeft(seen, rekey);
  };
  const facts = {
    credential: spec.name,
    provider: spec.provider,
    target: spec.targetId,
    strategy: spec.strategy,
    versionId: wanted.versionId,
  };
  let seen: readonly Seen[] = spec.consumers.map((declared) => ({
    opened: openConsumer(declared, { spec, wanted }, until, rekey),
    isNews: false,
    outcome: { say: 'behind', details: 'not asked yet' },
  }));
  for (let wait = firstWaitMs; ; wait = Math.min(wait * 2, longestWaitMs)) {
    seen = await lookAgain(seen);
    const ended = seen.flatMap(({ outcome }) => endedBecause(outcome) ?? [])[0];
    if (ended !== undefined) return leave(ended);
    await publishNews(seen, facts, rekey);
    const isSettled = seen.every(({ outcome }) => !mayChange(outcome));
    if (isSettled || (await ports.now()).getTime() + wait + lastLookMs >= until.getTime()) break;
    await ports.sleep(wait);
    if (!(await isCurrent())) return leave('AWSCURRENT has moved again');
  }

  await publishLeft(seen, rekey);
  const findings = seen.flatMap((each) => behind(spec, each) ?? []);
  await announce({ scope: 'consumers', place: spec.name }, findings, rekey);
  for (const { outcome } of seen) if (outcome.say === 'unclear') throw outcome.error;
}

interface Seen {
  readonly opened: OpenedConsumer;
  readonly outcome: Outcome;
  /** Whether the last look found it there for the first time. */
  readonly isNews: boolean;
}

/** Where a consumer stands, or why it could not be asked. */
type Outcome = ConsumerStanding | { readonly say: 'unclear'; readonly error: unknown };

const atOnce = 5;
const firstWaitMs = 2_000;
const longestWaitMs = 30_000;
/** One more look and the report of it take no longer. */
const lastLookMs = 20_000;

/** The spec behind a secret; undefined where the secret is none of a credential, or nobody wants that one any more. */
async function specOf(nameOfSecret: string, rekey: Rekey): Promise<CredentialSpec | undefined> {
  const name = credentialNameOf(nameOfSecret);
  if (name === undefined) return undefined;
  const document = await rekey.ports.readParameter({ parameter: specParameterName(name) });
  return document === 'absent' ? undefined : parseSpec(jsonOf(document), rekey);
}

/** One look at each that is not settled, with a step where it needs one; some at a time, as they share the rate of one key. */
const lookAgain = (seen: readonly Seen[]): Promise<readonly Seen[]> =>
  inParallel(seen, atOnce, async ({ opened, outcome }) => {
    const isNews = mayChange(outcome);
    return { opened, isNews, outcome: isNews ? await bringOn(opened, outcome) : outcome };
  });

/** An error of one must not keep the others from being seen to. */
async function bringOn({ consumer }: OpenedConsumer, before: Outcome): Promise<Outcome> {
  try {
    return before.say === 'moving' ? await consumer.standing() : await consumer.advance();
  } catch (error) {
    return { say: 'unclear', error };
  }
}

/** Why this run has no reason to write any more. */
const endedBecause = (outcome: Outcome): string | undefined =>
  outcome.say === 'unclear' &&
  outcome.error instanceof RotationRefused &&
  (outcome.error.code === 'SUPERSEDED' || outcome.error.code === 'PAUSED')
    ? outcome.error.message
    : undefined;

function mayChange(outcome: Outcome): boolean {
  if (outcome.say !== 'unclear') return outcome.say === 'moving' || outcome.say === 'behind';
  const { error } = outcome;
  return error instanceof ProviderError && (error.code === 'UNAVAILABLE' || error.code === 'RATE_LIMITED');
}

async function publishNews(
  seen: readonly Seen[],
  facts: CredentialFacts & { readonly versionId: string },
  { ports, log }: Rekey,
): Promise<void> {
  const news = seen.flatMap(({ opened, outcome: { say }, isNews }) =>
    isNews && (say === 'moved' || say === 'unobservable')
      ? [
          {
            ...facts,
            consumer: consumerName(opened),
            outcome: say === 'moved' ? ('moved' as const) : ('told' as const),
          },
        ]
      : [],
  );
  if (news.length > 0)
    await ports.publish(news.map((detail) => ({ type: 'ConsumerUpdated', detail }) as const));
  for (const detail of news) log('info', `the consumer was ${detail.outcome}`, detail);
}

/** What came of each that was written to and has not moved. */
async function publishLeft(seen: readonly Seen[], { ports }: Rekey): Promise<void> {
  const left = seen.flatMap(({ opened, outcome }) => {
    const intent = opened.intent();
    if (intent === undefined || outcome.say === 'moved' || outcome.say === 'unobservable') return [];
    return [{ ...intent, because: outcome.say === 'unclear' ? codeOf(outcome.error) : outcome.say }];
  });
  if (left.length > 0)
    await ports.publish(left.map((detail) => ({ type: 'ConsumerLeftBehind', detail }) as const));
}

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : 'DEFECT';

/** Undefined where there is nothing to find: it has moved, or nobody can see. */
function behind(
  { name, provider, targetId }: CredentialSpec,
  { opened, outcome }: Seen,
): Finding | undefined {
  const standing = outcome.say === 'unclear' ? unanswered(outcome.error) : outcome;
  if (standing.say === 'moved' || standing.say === 'unobservable') return undefined;
  return {
    kind: 'ConsumerBehind',
    provider,
    target: targetId,
    credential: name,
    details: consumerDetails(consumerName(opened), standing),
    remedy:
      standing.say === 'failed'
        ? standing.remedy
        : 'rekey goes on by itself; where it lasts, see on its platform what keeps the consumer from the login',
  };
}

/** Codes only: what the platform said changes from time to time. */
const unanswered = (error: unknown): ConsumerStanding => ({
  say: 'behind',
  details: `it could not be asked (${codeOf(error)})`,
});
