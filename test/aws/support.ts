import { Guard } from '../../functions/core/guard.ts';

/** The reasons of a write that has none to lose. */
export const held = Guard.of();

/** An error as the SDK throws it. Its text says nothing that may be relied on. */
export const awsError = (name: string, { status = 400, attempts = 1 } = {}): Error =>
  Object.assign(new Error('a text that AWS may reword'), {
    name,
    $metadata: { httpStatusCode: status, attempts },
  });

/** No answer came: the SDK then knows no status. */
export const networkError = (): Error => Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' });

/** What a call that must fail rejects with. */
export const rejectionOf = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    (answer) => {
      throw new Error(`expected a rejection, got the answer ${JSON.stringify(answer)}`);
    },
    (error: unknown) => error,
  );
