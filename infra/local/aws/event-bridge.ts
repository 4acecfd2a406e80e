import * as z from 'zod';
import type { Clock } from '../clock.ts';
import { AwsError } from './aws-error.ts';
import { type BusEvent, eventTime } from './bus-event.ts';
import {
  type DeliveryResult,
  deliverUnder,
  type FailedDelivery,
  type RetryDelay,
  type RetryPolicy,
} from './delivery.ts';
import { type EventPattern, matchesPattern, parsePattern } from './event-bridge/pattern.ts';
import { type Random, randomUuid, systemRandom } from './random.ts';
import { type AwsService, authorizationsBy, operation, serveOperation } from './service.ts';

export interface RuleTarget extends RetryPolicy {
  readonly arn: string;
  /** Queue for events that could not be delivered. @default such events are lost */
  readonly deadLetterArn?: string;
}

export interface Rule {
  readonly name: string;
  /** @default 'default' */
  readonly busName?: string;
  readonly pattern: unknown;
  readonly targets: readonly RuleTarget[];
}

/** Keeps the events of a bus, to be replayed. */
export interface EventArchive {
  readonly name: string;
  readonly busName: string;
  /** @default every event */
  readonly pattern?: unknown;
  /** @default for ever */
  readonly retentionDays?: number;
}

/** Which events of an archive are delivered again, and to which rules of their bus. */
export interface Replay {
  readonly name: string;
  readonly archiveName: string;
  /** By the events' own time: from this moment on, and before that one. */
  readonly from: Date;
  readonly until: Date;
  /** Names of rules. @default all of the bus */
  readonly ruleNames?: readonly string[];
}

/** An event that did not reach a target. */
export interface UndeliveredEvent extends FailedDelivery {
  readonly ruleName: string;
  readonly targetArn: string;
  /** Absent: nobody kept the event. */
  readonly deadLetterArn?: string;
  readonly event: BusEvent;
}

/**
 * What can go wrong with one event: refused in its entry of the answer, lost, delivered twice, or delivered only after
 * the next event.
 */
export type Disturbance =
  | { readonly do: 'fail'; readonly errorCode: string; readonly errorMessage: string }
  | { readonly do: 'drop' }
  | { readonly do: 'duplicate' }
  | { readonly do: 'reorder' };

export interface EventBridgeOptions {
  /** Twelve digits. */
  readonly account: string;
  readonly region: string;
  readonly clock: Clock;
  /** Hands an event to the target of a rule. */
  readonly deliver: (targetArn: string, event: BusEvent, rule: Rule) => Promise<DeliveryResult>;
  /** Buses besides `default`. */
  readonly buses?: readonly string[];
  /** Hears of each event that goes to a dead-letter queue. */
  readonly onDeadLetter?: (letter: UndeliveredEvent & { readonly deadLetterArn: string }) => void;
  /** Asked for each complete entry and each native event. @default none is disturbed */
  readonly disturb?: (event: BusEvent, busName: string) => Disturbance | undefined;
  /** @default exponential with jitter */
  readonly retryDelayMs?: RetryDelay;
  /** @default systemRandom */
  readonly random?: Random;
}

export interface EventBridge extends AwsService {
  addBus(name: string): void;
  addRule(rule: Rule): void;
  removeRule(name: string, busName?: string): void;
  /** Puts a native event on the default bus. */
  emit(event: BusEvent): void;
  /** Delivers old events again under their old ids, marked with `replay-name`. */
  replay(replayName: string, events: readonly BusEvent[], busName?: string): void;
  /** From now on the archive keeps what is put on its bus; what is replayed is not kept again. */
  addArchive(archive: EventArchive): void;
  /** What an archive holds, oldest first; what it held longer than its retention is gone. */
  archived(archiveName: string): readonly BusEvent[];
  /** Delivers a part of an archive again. Answers how many events that was. */
  startReplay(replay: Replay): number;
  /** Every accepted event of a bus, oldest first; without a name, of all buses. */
  history(busName?: string): readonly BusEvent[];
  /** Events in dead-letter queues. */
  deadLetters(): readonly UndeliveredEvent[];
  /** Events that no target got and no queue kept. */
  lost(): readonly UndeliveredEvent[];
  /** Resolves once nothing is being delivered; an event held back for reordering is let go first. */
  idle(): Promise<void>;
  /** Gives up what is being delivered; resolves once no target is being called. */
  stop(): Promise<void>;
}

const putEvents = z.object({
  Entries: z
    .array(
      z.object({
        Time: z.number().optional(),
        Source: z.string().optional(),
        Resources: z.array(z.string().max(2048)).optional(),
        DetailType: z.string().optional(),
        Detail: z.string().optional(),
        EventBusName: z
          .string()
          .min(1)
          .max(1600)
          .regex(/^(arn:aws[\w-]*:events:[a-z]+-[a-z]+-[\w-]+:[0-9]{12}:event-bus\/)?[.\-_A-Za-z0-9]+$/)
          .optional(),
        TraceHeader: z.string().min(1).max(500).optional(),
      }),
    )
    .min(1)
    .max(10),
});

interface Archived {
  readonly archive: EventArchive;
  readonly pattern: EventPattern | undefined;
  readonly kept: { readonly event: BusEvent; readonly at: number }[];
}

type Entry = z.output<typeof putEvents>['Entries'][number];
type EntryResult = { EventId: string } | { ErrorCode: string; ErrorMessage: string };

const sizeLimit = 1024 * 1024;
const nestingLimit = 1000;

/** As AWS counts: 14 bytes for a time, and the UTF-8 bytes of the texts. */
function sizeOf({ Time, Source, DetailType, Detail, Resources }: Entry): number {
  const texts = [Source, DetailType, Detail, ...(Resources ?? [])];
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text ?? ''), Time === undefined ? 0 : 14);
}

function nesting(json: string): number {
  let depth = 0;
  let deepest = 0;
  for (const [mark] of json.replaceAll(/"(?:[^"\\]+|\\.)*"/gs, '').matchAll(/[[\]{}]/g)) {
    depth += mark === '[' || mark === '{' ? 1 : -1;
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}

function detailOf(text: string): BusEvent['detail'] | undefined {
  if (nesting(text) > nestingLimit) return undefined;
  try {
    return z.record(z.string(), z.unknown()).safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** A condition key with what entries say; none where no entry says anything. In one order: the same values are judged once. */
function conditionKey(
  key: string,
  values: readonly (string | undefined)[],
): Record<string, readonly string[]> {
  const said = new Set(values.filter((value) => value !== undefined));
  return said.size === 0 ? {} : { [key]: [...said].sort() };
}

const missing = (member: string): EntryResult => ({
  ErrorCode: 'InvalidArgument',
  ErrorMessage: `Parameter ${member} is not valid. Reason: ${member} is a required argument.`,
});

/** EventBridge in memory: buses, rules, delivery with repetition and dead letters. */
export function createEventBridge({
  account,
  region,
  clock,
  deliver,
  buses = [],
  onDeadLetter = () => undefined,
  disturb = () => undefined,
  random = systemRandom,
  retryDelayMs = (attempt) => Math.min(600_000, 1000 * 2 ** (attempt - 1)) * (0.5 + random() / 2),
}: EventBridgeOptions): EventBridge {
  const knownBuses = new Set(['default', ...buses]);
  const rules = new Map<string, { rule: Rule; pattern: EventPattern }>();
  const archives = new Map<string, Archived>();
  const accepted: { busName: string; event: BusEvent }[] = [];
  const undelivered: UndeliveredEvent[] = [];
  const active = new Set<Promise<void>>();
  const stopping = new AbortController();
  let held: { busName: string; event: BusEvent }[] = [];

  function archiveOf(name: string): readonly BusEvent[] {
    const found = archives.get(name);
    if (found === undefined) throw new Error(`no event archive ${name}`);
    const { retentionDays = Number.POSITIVE_INFINITY } = found.archive;
    const oldest = clock.now().getTime() - retentionDays * 86_400_000;
    return found.kept.filter(({ at }) => at >= oldest).map(({ event }) => event);
  }

  const ruleKey = (name: string, busName: string) => `${busName}/${name}`;

  async function hand(rule: Rule, target: RuleTarget, event: BusEvent): Promise<void> {
    const { arn, deadLetterArn } = target;
    const outcome = await deliverUnder(target, () => deliver(arn, event, rule), {
      clock,
      retryDelayMs,
      signal: stopping.signal,
    });
    if (outcome === 'delivered' || outcome === 'stopped') return;
    const letter = { ruleName: rule.name, targetArn: arn, event, ...outcome };
    if (deadLetterArn === undefined) {
      undelivered.push(letter);
      return;
    }
    undelivered.push({ ...letter, deadLetterArn });
    onDeadLetter({ ...letter, deadLetterArn });
  }

  function route(busName: string, event: BusEvent, ruleNames?: readonly string[]): void {
    for (const { rule, pattern } of rules.values()) {
      if ((rule.busName ?? 'default') !== busName || !matchesPattern(pattern, event)) continue;
      if (ruleNames !== undefined && !ruleNames.includes(rule.name)) continue;
      for (const target of rule.targets) {
        // Later, so that the caller of PutEvents has its answer before a target sees the event.
        const delivery = Promise.resolve()
          .then(() => hand(rule, target, structuredClone(event)))
          .finally(() => active.delete(delivery));
        active.add(delivery);
      }
    }
  }

  function release(): void {
    const late = held;
    held = [];
    for (const { busName, event } of late) route(busName, event);
  }

  function accept(busName: string, event: BusEvent, disturbance: Disturbance | undefined): void {
    accepted.push({ busName, event });
    // Whatever becomes of its delivery: archives are for the events that did not arrive.
    for (const { archive, pattern, kept } of archives.values())
      if (archive.busName === busName && (pattern === undefined || matchesPattern(pattern, event)))
        kept.push({ event, at: clock.now().getTime() });
    if (disturbance?.do === 'reorder') {
      held.push({ busName, event });
      return;
    }
    if (disturbance?.do !== 'drop') route(busName, event);
    if (disturbance?.do === 'duplicate') route(busName, event);
    release();
  }

  function putEntry(entry: Entry): EntryResult {
    if (!entry.Source) return missing('Source');
    if (!entry.DetailType) return missing('DetailType');
    if (!entry.Detail) return missing('Detail');
    if (entry.DetailType.length > 128)
      return {
        ErrorCode: 'InvalidArgument',
        ErrorMessage:
          'Parameter DetailType is not valid. Reason: DetailType must not be longer than 128 characters.',
      };
    if (entry.Source.startsWith('aws.'))
      return { ErrorCode: 'NotAuthorizedForSourceException', ErrorMessage: 'Not authorized for the source.' };
    const detail = detailOf(entry.Detail);
    if (detail === undefined) return { ErrorCode: 'MalformedDetail', ErrorMessage: 'Detail is malformed.' };
    const busName = (entry.EventBusName ?? 'default').replace(/^.*:event-bus\//, '');
    const event: BusEvent = {
      version: '0',
      id: randomUuid(random),
      'detail-type': entry.DetailType,
      source: entry.Source,
      account,
      time: eventTime(entry.Time === undefined ? clock.now() : new Date(entry.Time * 1000)),
      region,
      resources: entry.Resources ?? [],
      detail,
    };
    const disturbance = disturb(event, busName);
    if (disturbance?.do === 'fail')
      return { ErrorCode: disturbance.errorCode, ErrorMessage: disturbance.errorMessage };
    // An event for a bus that does not exist is answered with an id and vanishes (recorded in localstack's snapshots).
    if (knownBuses.has(busName)) accept(busName, event, disturbance);
    return { EventId: event.id };
  }

  const operations = {
    PutEvents: operation(putEvents, ({ Entries }) => {
      if (Entries.reduce((sum, entry) => sum + sizeOf(entry), 0) >= sizeLimit)
        throw new AwsError(
          'ValidationException',
          'Total size of the entries in the request is over the limit.',
        );
      const results = Entries.map(putEntry);
      return { FailedEntryCount: results.filter((result) => 'ErrorCode' in result).length, Entries: results };
    }),
  };

  async function idle(): Promise<void> {
    release();
    while (active.size > 0) await Promise.all(active);
  }

  return {
    name: 'events',
    targetPrefix: 'AWSEvents',
    messageKey: 'message',
    internalErrorName: 'InternalException',
    authorizations: authorizationsBy(
      { PutEvents: putEvents },
      {
        // A bus that does not exist is judged as well.
        PutEvents: ({ Entries }) =>
          Object.entries(Object.groupBy(Entries, ({ EventBusName = 'default' }) => EventBusName)).map(
            ([bus, entries = []]) => ({
              action: 'events:PutEvents',
              resource: bus.startsWith('arn:') ? bus : `arn:aws:events:${region}:${account}:event-bus/${bus}`,
              // One call is judged as a whole: an entry that no policy allows takes the others with it.
              context: {
                ...conditionKey(
                  'events:source',
                  entries.map(({ Source }) => Source),
                ),
                ...conditionKey(
                  'events:detail-type',
                  entries.map(({ DetailType }) => DetailType),
                ),
              },
            }),
          ),
      },
    ),
    call: (name, input, context) => serveOperation(operations, name, input, context),
    addBus: (name) => void knownBuses.add(name),
    addRule(rule) {
      const busName = rule.busName ?? 'default';
      if (!knownBuses.has(busName))
        throw new Error(`no event bus ${busName} for rule ${rule.name}; add the bus first`);
      rules.set(ruleKey(rule.name, busName), { rule, pattern: parsePattern(rule.pattern) });
    },
    removeRule: (name, busName = 'default') => void rules.delete(ruleKey(name, busName)),
    emit(event) {
      const disturbance = disturb(event, 'default');
      // The service itself puts native events: nobody is told of a failed entry, the event is just missing.
      if (disturbance?.do !== 'fail') accept('default', event, disturbance);
    },
    replay(replayName, events, busName = 'default') {
      for (const event of events) route(busName, { ...event, 'replay-name': replayName });
    },
    addArchive(archive) {
      const { name, busName, pattern } = archive;
      if (!knownBuses.has(busName))
        throw new Error(`no event bus ${busName} for archive ${name}; add the bus first`);
      archives.set(name, {
        archive,
        pattern: pattern === undefined ? undefined : parsePattern(pattern),
        kept: [],
      });
    },
    archived: archiveOf,
    startReplay({ name, archiveName, from, until, ruleNames }) {
      const events = archiveOf(archiveName).filter(({ time }) => {
        const at = Date.parse(time);
        return at >= from.getTime() && at < until.getTime();
      });
      const busName = archives.get(archiveName)?.archive.busName ?? 'default';
      for (const event of events) route(busName, { ...event, 'replay-name': name }, ruleNames);
      return events.length;
    },
    history: (busName) =>
      accepted.filter((each) => busName === undefined || each.busName === busName).map(({ event }) => event),
    deadLetters: () => undelivered.filter((letter) => letter.deadLetterArn !== undefined),
    lost: () => undelivered.filter((letter) => letter.deadLetterArn === undefined),
    idle,
    async stop() {
      stopping.abort();
      await idle();
    },
  };
}
