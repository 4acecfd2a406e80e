/** What a stand-in answers: JSON unless `text` is given, and no body at all when there is neither. */
export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: unknown;
  readonly text?: string;
}

/** Seconds, an instant (sent as an HTTP date), or any text as it is. Left out, the header is absent. */
export type RetryAfter = number | Date | string;

/**
 * What can go wrong between a client and a vendor. `applied` says whether the operation takes effect at the vendor
 * although the client is not told so.
 */
export type FaultKind =
  | { readonly kind: 'timeout-before' }
  | { readonly kind: 'timeout-after-apply' }
  /** No answer; the operation takes effect so many milliseconds later, when the client has long given up. */
  | { readonly kind: 'timeout-apply-later'; readonly ms: number }
  | { readonly kind: 'reset-before' }
  | { readonly kind: 'reset-after-apply' }
  /** Applied; the connection is cut in the middle of the answer. */
  | { readonly kind: 'reset-mid-body' }
  /** Applied; the answer begins and never ends, over an open connection. */
  | { readonly kind: 'stall-mid-body' }
  /** @default applied: false */
  | {
      readonly kind: 'status';
      readonly status: number;
      readonly applied?: boolean;
      readonly headers?: Readonly<Record<string, string>>;
      readonly json?: unknown;
      readonly text?: string;
    }
  /** The right answer, late. @default when: 'before' the operation takes effect */
  | { readonly kind: 'delay'; readonly ms: number; readonly when?: 'before' | 'after' }
  /** @default status: 502, applied: false */
  | { readonly kind: 'html-body'; readonly status?: number; readonly applied?: boolean }
  /** The status of the right answer without its body. @default applied: true */
  | { readonly kind: 'empty-body'; readonly status?: number; readonly applied?: boolean }
  /** @default status: 200, applied: true, bytes: 32 MiB */
  | {
      readonly kind: 'huge-body';
      readonly status?: number;
      readonly applied?: boolean;
      readonly bytes?: number;
    }
  /** The right answer, cut after half of its JSON. */
  | { readonly kind: 'half-json' }
  /** @default location: the same path on a host that is not the vendor's */
  | { readonly kind: 'redirect-307'; readonly location?: string }
  /** @default status: 429 */
  | { readonly kind: 'rate-limited'; readonly retryAfter?: RetryAfter; readonly status?: number }
  /** Answers success and does nothing. */
  | { readonly kind: 'pretend' }
  /** Answers what the same request was answered last time. */
  | { readonly kind: 'stale' }
  /** Lets somebody else act before or after the operation takes effect. @default when: 'after' */
  | { readonly kind: 'meanwhile'; readonly run: () => Promise<void>; readonly when?: 'before' | 'after' };

export type Fault<Operation extends string = string> = FaultKind & {
  /** `*` is every operation. */
  readonly operation: Operation | '*';
  /** How many calls it meets. @default 1 */
  readonly times?: number;
  /** How many calls pass before it meets the first one. @default 0 */
  readonly skip?: number;
  /** Only calls about this user, or about users named like this. @default any call of the operation */
  readonly username?: string | RegExp;
};

/** The faults that are still to come. */
export interface FaultBox<Operation extends string = string> {
  inject(fault: Fault<Operation>): void;
  /** Afterwards no fault is left. */
  clear(): void;
  /** Faults that have not met all their calls yet. */
  pending(): readonly Fault<Operation>[];
  /** The fault that this call meets; counts it. */
  take(call: {
    readonly operation: Operation;
    readonly username?: string | undefined;
  }): Fault<Operation> | undefined;
}

const isAbout = (wanted: string | RegExp | undefined, username = ''): boolean =>
  typeof wanted === 'object' ? wanted.test(username) : wanted === undefined || wanted === username;

/** An empty box of faults. The first fault that fits meets a call, so a call meets one at most. */
export function createFaultBox<Operation extends string>(): FaultBox<Operation> {
  let waiting: { fault: Fault<Operation>; skip: number; left: number }[] = [];
  return {
    inject(fault) {
      waiting.push({ fault, skip: fault.skip ?? 0, left: fault.times ?? 1 });
    },
    clear() {
      waiting = [];
    },
    pending: () => waiting.map(({ fault }) => fault),
    take({ operation, username }) {
      for (const entry of waiting) {
        const { fault } = entry;
        if (fault.operation !== '*' && fault.operation !== operation) continue;
        if (!isAbout(fault.username, username)) continue;
        if (entry.skip > 0) {
          entry.skip -= 1;
          continue;
        }
        entry.left -= 1;
        if (entry.left <= 0) waiting = waiting.filter((other) => other !== entry);
        return fault;
      }
      return undefined;
    },
  };
}

/** Retry-After as it goes over the wire. */
export const retryAfterHeader = (retryAfter: RetryAfter | undefined): Record<string, string> =>
  retryAfter === undefined
    ? {}
    : { 'retry-after': retryAfter instanceof Date ? retryAfter.toUTCString() : String(retryAfter) };

/** The operation that a fault is laid over. */
export interface FaultSubject {
  /** Carries the operation out. */
  act(): Promise<Answer>;
  /** The answer of success, without doing anything. */
  pretend(): Answer;
  /** What the same request was answered last time. */
  previous(): Answer | undefined;
  /** The vendor's words for being asked too often. */
  rateLimited(status: number, headers: Readonly<Record<string, string>>): Answer;
  sleep(ms: number): Promise<void>;
  readonly path: string;
}

/** What the client gets to see: an answer in full, half of it, a cut connection, or nothing for ever. */
export type Delivery =
  | { readonly deliver: 'answer'; readonly answer: Answer }
  /** @default rest: 'cut' */
  | { readonly deliver: 'half'; readonly answer: Answer; readonly rest?: 'stalled' }
  | { readonly deliver: 'reset' }
  | { readonly deliver: 'nothing' };

const page =
  '<!doctype html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>\n';
const answer = (value: Answer): Delivery => ({ deliver: 'answer', answer: value });

/** Carries the operation out, or not, the way the fault wants it. */
export async function meet(fault: FaultKind | undefined, subject: FaultSubject): Promise<Delivery> {
  if (fault === undefined) return answer(await subject.act());
  switch (fault.kind) {
    case 'timeout-before':
      return { deliver: 'nothing' };
    case 'timeout-after-apply':
      await subject.act();
      return { deliver: 'nothing' };
    case 'timeout-apply-later':
      void subject.sleep(fault.ms).then(() => subject.act());
      return { deliver: 'nothing' };
    case 'reset-before':
      return { deliver: 'reset' };
    case 'reset-after-apply':
      await subject.act();
      return { deliver: 'reset' };
    case 'reset-mid-body':
      return { deliver: 'half', answer: await subject.act() };
    case 'stall-mid-body':
      return { deliver: 'half', answer: await subject.act(), rest: 'stalled' };
    case 'status': {
      const { status, headers = {}, json, text } = fault;
      if (fault.applied === true) await subject.act();
      return answer({
        status,
        headers,
        ...(json === undefined ? {} : { json }),
        ...(text === undefined ? {} : { text }),
      });
    }
    case 'delay': {
      if (fault.when !== 'after') await subject.sleep(fault.ms);
      const late = await subject.act();
      if (fault.when === 'after') await subject.sleep(fault.ms);
      return answer(late);
    }
    case 'html-body':
      if (fault.applied === true) await subject.act();
      return answer({
        status: fault.status ?? 502,
        headers: { 'content-type': 'text/html; charset=utf-8' },
        text: page,
      });
    case 'empty-body': {
      const { status } = fault.applied === false ? subject.pretend() : await subject.act();
      return answer({ status: fault.status ?? status });
    }
    case 'huge-body':
      if (fault.applied !== false) await subject.act();
      return answer({
        status: fault.status ?? 200,
        json: { message: 'x'.repeat(fault.bytes ?? 32 * 1024 * 1024) },
      });
    case 'half-json': {
      const whole = await subject.act();
      const text = whole.text ?? JSON.stringify(whole.json ?? {});
      return answer({
        status: whole.status,
        headers: { ...whole.headers, 'content-type': 'application/json; charset=utf-8' },
        text: text.slice(0, Math.floor(text.length / 2)),
      });
    }
    case 'redirect-307':
      return answer({
        status: 307,
        headers: { location: fault.location ?? `https://elsewhere.example${subject.path}` },
      });
    case 'rate-limited':
      return answer(subject.rateLimited(fault.status ?? 429, retryAfterHeader(fault.retryAfter)));
    case 'pretend':
      return answer(subject.pretend());
    case 'stale':
      return answer(subject.previous() ?? (await subject.act()));
    case 'meanwhile': {
      if (fault.when === 'before') await fault.run();
      const result = await subject.act();
      if (fault.when !== 'before') await fault.run();
      return answer(result);
    }
    default:
      return fault satisfies never;
  }
}
