import { StoreError } from '../core/errors.ts';
import { type Guard, sendGuarded } from '../core/guard.ts';
import { failureOf } from './failure.ts';

/** Of a command, what lets us stand before each of its attempts. */
interface Command {
  readonly middlewareStack: {
    add(
      middleware: <Args, Answer>(next: (args: Args) => Promise<Answer>) => (args: Args) => Promise<Answer>,
      options: { readonly step: 'deserialize'; readonly priority: 'low'; readonly name: string },
    ): void;
  };
}

/**
 * The command, each attempt of which leaves only while the facts of `guard` hold. The SDK repeats a call by itself, after pauses
 * that nobody sees; the middleware is the innermost one, so nothing but the socket comes after it.
 */
export function guarded<C extends Command>(command: C, guard: Guard, clock: () => Date): C {
  let isUncertain = false;
  command.middlewareStack.add(
    (next) => async (args) => {
      let hasLeft = false;
      try {
        const answer = await sendGuarded(guard, clock, () => {
          hasLeft = true;
          return next(args);
        });
        isUncertain ||= (statusOf(answer) ?? 0) >= 500;
        return answer;
      } catch (error) {
        isUncertain ||= hasLeft;
        throw hasLeft ? error : new NotSent(error, isUncertain);
      }
    },
    { step: 'deserialize', priority: 'low', name: 'rekeyGuard' },
  );
  return command;
}

function statusOf(answer: unknown): number | undefined {
  if (answer === null || typeof answer !== 'object' || !('response' in answer)) return undefined;
  const { response } = answer;
  if (response === null || typeof response !== 'object' || !('statusCode' in response)) return undefined;
  return typeof response.statusCode === 'number' ? response.statusCode : undefined;
}

/**
 * The guard stopped an attempt. An error of its own on the way through the SDK, which would repeat a call for some errors, looks at
 * their causes, and writes into them.
 */
class NotSent extends Error {
  override readonly name = 'NotSent';
  readonly reason: unknown;
  /** Whether an earlier attempt left and its outcome is not known. */
  readonly isUncertain: boolean;
  constructor(reason: unknown, isUncertain: boolean) {
    super('a guard stopped the call');
    this.reason = reason;
    this.isUncertain = isUncertain;
  }
}

/**
 * What to throw where a guarded change failed. The guard's own error passes as it is: it is no failure of AWS, and nothing was sent.
 * Where an attempt before it may have been carried out, the error says that instead.
 */
export function changeFailureOf(error: unknown, ...[call, effect, before]: FailureArguments): unknown {
  if (!(error instanceof NotSent)) return failureOf(error, call, effect, before);
  const { reason, isUncertain } = error;
  if (!isUncertain) return reason;
  return new StoreError(
    'STORE_UNAVAILABLE',
    effect,
    `${call} may have been carried out: an attempt got no answer, and it was not repeated (${reason instanceof Error ? reason.message : String(reason)})`,
    { cause: reason },
  );
}

type FailureArguments = Parameters<typeof failureOf> extends [unknown, ...infer Rest] ? Rest : never;
