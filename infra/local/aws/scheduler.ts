import type { Clock } from '../clock.ts';
import { eventTime } from './bus-event.ts';
import {
  type DeliveryResult,
  deliverUnder,
  type FailedDelivery,
  type RetryDelay,
  type RetryPolicy,
} from './delivery.ts';
import { type Random, randomUuid, systemRandom } from './random.ts';
import { type Occurrences, readScheduleExpression } from './schedule-expression.ts';

export interface Schedule {
  readonly arn: string;
  /** `rate(…)`, `cron(…)` or `at(…)`. */
  readonly expression: string;
  /** @default 'UTC' */
  readonly timeZone?: string;
  /** Before it nothing is due; a rate counts from it. @default when the schedule is added */
  readonly startAt?: Date;
  /** After it nothing is due. @default no end */
  readonly endAt?: Date;
  readonly target: ScheduleTarget;
}

export interface ScheduleTarget extends RetryPolicy {
  readonly arn: string;
  /** What the target gets: JSON for a function, a text for a queue. */
  readonly input: string;
  /** Queue for occurrences that did not reach the target. @default they are lost */
  readonly deadLetterArn?: string;
}

export interface LostOccurrence extends FailedDelivery {
  readonly scheduleArn: string;
  readonly targetArn: string;
  readonly deadLetterArn?: string;
  readonly scheduledAt: Date;
  readonly input: string;
}

export interface SchedulerOptions {
  readonly clock: Clock;
  /** Hands the input to the target. */
  readonly deliver: (targetArn: string, input: string, scheduleArn: string) => Promise<DeliveryResult>;
  /** Hears of each occurrence that reached no target. */
  readonly onLost?: (lost: LostOccurrence) => void;
  /** @default exponential with jitter */
  readonly retryDelayMs?: RetryDelay;
  /** @default systemRandom */
  readonly random?: Random;
  /**
   * Whether a rate without a start date is due for the first time as soon as it is added, as at AWS (AWS documentation), or
   * one interval later, so that a rehearsal begins in peace. @default 'after-one-interval'
   */
  readonly firstRate?: 'at-once' | 'after-one-interval';
}

/** Leaves out occurrences: each schedule comes at its last one within each `everyMs`, and at its last one before `until`. */
export interface Thinning {
  readonly everyMs: number;
  readonly until: Date;
}

export interface Scheduler {
  /** Throws for an expression that Scheduler would refuse. */
  addSchedule(schedule: Schedule): void;
  /** When the next schedule is due; undefined when none will be. */
  nextDue(): Date | undefined;
  /** Starts what is due by the clock, each schedule once, however much it missed; to be called now and then. */
  tick(): void;
  /** From now on leaves out occurrences, or no longer does. */
  thin(thinning: Thinning | undefined): void;
  /** Resolves once no target is being called and none is waiting to be called again. */
  idle(): Promise<void>;
  /** Gives up what is being delivered; resolves once no target is being called. */
  stop(): Promise<void>;
}

interface Planned {
  readonly schedule: Schedule;
  readonly occurrences: Occurrences;
  dueAt: number | undefined;
}

/** EventBridge Scheduler in memory: what it calls, when, and again. No flexible windows. */
export function createScheduler({
  clock,
  deliver,
  onLost = () => undefined,
  random = systemRandom,
  retryDelayMs = (attempt) => Math.min(600_000, 1000 * 2 ** (attempt - 1)) * (0.5 + random() / 2),
  firstRate = 'after-one-interval',
}: SchedulerOptions): Scheduler {
  const planned: Planned[] = [];
  const active = new Set<Promise<void>>();
  const stopping = new AbortController();
  let thinned: Thinning | undefined;
  const nowMs = () => clock.now().getTime();

  function nextAfter({ schedule, occurrences }: Omit<Planned, 'dueAt'>, after: number): number | undefined {
    // A schedule that starts then may be due at that very moment.
    const from = Math.max(after, (schedule.startAt?.getTime() ?? 0) - 1);
    const end = schedule.endAt?.getTime() ?? Number.POSITIVE_INFINITY;
    const coarse =
      thinned === undefined
        ? undefined
        : occurrences.last(from, Math.min(after + thinned.everyMs, thinned.until.getTime(), end));
    const next = coarse ?? occurrences.next(from);
    return next === undefined || next > end ? undefined : next;
  }

  async function fire({ target, arn: scheduleArn }: Schedule, dueAt: number): Promise<void> {
    const input = target.input
      .replaceAll('<aws.scheduler.schedule-arn>', scheduleArn)
      .replaceAll('<aws.scheduler.scheduled-time>', eventTime(new Date(dueAt)))
      .replaceAll('<aws.scheduler.execution-id>', randomUuid(random));
    let attempt = 0;
    const outcome = await deliverUnder(
      target,
      () => {
        attempt += 1;
        return deliver(
          target.arn,
          input.replaceAll('<aws.scheduler.attempt-number>', String(attempt)),
          scheduleArn,
        );
      },
      { clock, retryDelayMs, signal: stopping.signal },
    );
    if (outcome === 'delivered' || outcome === 'stopped') return;
    const { deadLetterArn } = target;
    onLost({
      scheduleArn,
      targetArn: target.arn,
      ...(deadLetterArn === undefined ? {} : { deadLetterArn }),
      scheduledAt: new Date(dueAt),
      input,
      ...outcome,
    });
  }

  async function idle(): Promise<void> {
    while (active.size > 0) await Promise.all(active);
  }

  return {
    addSchedule(schedule) {
      const madeAt = nowMs();
      const occurrences = readScheduleExpression(
        schedule.expression,
        schedule.startAt?.getTime() ?? madeAt,
        schedule.timeZone,
      );
      const isAtOnce = firstRate === 'at-once' || schedule.startAt !== undefined;
      const dueAt = nextAfter({ schedule, occurrences }, isAtOnce ? madeAt - 1 : madeAt);
      planned.push({ schedule, occurrences, dueAt });
    },
    nextDue() {
      const dues = planned.flatMap(({ dueAt }) => dueAt ?? []);
      return dues.length === 0 ? undefined : new Date(Math.min(...dues));
    },
    tick() {
      if (stopping.signal.aborted) return;
      const now = nowMs();
      for (const plan of planned) {
        if (plan.dueAt === undefined || plan.dueAt > now) continue;
        // After a jump only the last occurrence counts: whoever wants each goes from one to the next.
        const until = Math.min(now, plan.schedule.endAt?.getTime() ?? now);
        const dueAt = plan.occurrences.last(plan.dueAt, until) ?? plan.dueAt;
        plan.dueAt = nextAfter(plan, dueAt);
        const work: Promise<void> = fire(plan.schedule, dueAt).finally(() => active.delete(work));
        active.add(work);
      }
    },
    thin(thinning) {
      thinned = thinning;
      const now = nowMs();
      // What is due already stays due.
      for (const plan of planned)
        if (plan.dueAt === undefined || plan.dueAt > now) plan.dueAt = nextAfter(plan, now);
    },
    idle,
    async stop() {
      stopping.abort();
      await idle();
    },
  };
}
