import { VerificationFailed } from '../core/errors.ts';
import { sendGuarded } from '../core/guard.ts';
import { type Ports, TransportError, type ValkeyOutcome, type ValkeyReply } from '../core/ports.ts';
import type { Login } from '../core/provider.ts';

/**
 * The valkey port over the network, with `iovalkey`, which is loaded at the first login. TLS always, certificate and host
 * name verified. Beside AUTH and the given commands nothing is sent: a user with few rights is refused INFO, CLIENT and
 * PING, which says nothing about its password.
 *
 * Connecting may take longer than the guard's answer is fresh, so each command after AUTH asks the guard again right before it is sent.
 * If the guard objects, its error is thrown as it is and the connection is closed. `clock` is the one that guards are kept by.
 */
export function iovalkeyOverTls(clock: () => Date): Ports['valkey'] {
  return async ({ host, port, username, password, ca, commands, timeoutMs, guard }) => {
    // In a bundle a CommonJS package has this one export.
    const {
      default: { Redis, ReplyError },
    } = await import('iovalkey');
    const client = new Redis({
      host,
      port,
      tls: { rejectUnauthorized: true, ...(ca === undefined ? {} : { ca }) },
      lazyConnect: true,
      // INFO, which a user of few rights is refused.
      enableReadyCheck: false,
      enableOfflineQueue: false,
      retryStrategy: () => null,
      reconnectOnError: () => false,
      maxRetriesPerRequest: 0,
      autoResubscribe: false,
      connectTimeout: timeoutMs,
      // How long a goodbye may go unanswered before the socket is destroyed.
      disconnectTimeout: 100,
    });
    // What breaks the connection is told here and nowhere else; the pending call only says that it is closed.
    let failure: unknown;
    client.on('error', (error) => {
      failure ??= error;
    });
    let isAuthSent = false;
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () =>
        late.reject(new TransportError(`no session with ${host}:${port} (no answer in time)`, isAuthSent)),
      timeoutMs,
    );
    /** The reply to one command. An error reply is one; the library's error object holds the command, so it is let go. */
    const ask = async ([name = '', ...rest]: readonly string[]): Promise<ValkeyReply> => {
      try {
        return { value: await client.call(name, ...rest) };
      } catch (error) {
        if (error instanceof ReplyError && error instanceof Error) return { error: error.message };
        throw error;
      }
    };
    let isGuardAsked = false;
    const send = async (command: readonly string[]): Promise<ValkeyReply> => {
      if (guard === 'reads-only') return ask(command);
      isGuardAsked = true;
      return sendGuarded(guard, clock, () => {
        isGuardAsked = false;
        return ask(command);
      });
    };
    const converse = async (): Promise<ValkeyOutcome> => {
      await client.connect();
      isAuthSent = true;
      // Not given to the library: it would go on after a refusal, and write some of them to the console.
      const auth = await ask(['AUTH', username, password.reveal()]);
      if ('error' in auth) {
        if (/^WRONGPASS\b/.test(auth.error)) return { say: 'rejected' };
        throw new TransportError(`${host}:${port} answered AUTH with ${codeOf(auth.error)}`, true);
      }
      if (auth.value !== 'OK')
        throw new TransportError(`${host}:${port} answered AUTH with something else than OK`, true);
      const replies: ValkeyReply[] = [];
      for (const command of commands) replies.push(await send(command));
      return { say: 'accepted', replies };
    };
    try {
      return await Promise.race([converse(), late.promise]);
    } catch (error) {
      if (isGuardAsked || error instanceof TransportError) throw error;
      throw new TransportError(`no session with ${host}:${port} (${reasonOf(failure ?? error)})`, isAuthSent);
    } finally {
      clearTimeout(timer);
      client.disconnect();
    }
  };
}

/** The first word of an error reply is its code; the rest is the server's and may be long. */
export const codeOf = (reply: string): string => /^[A-Z]{1,20}\b/.exec(reply)?.[0] ?? 'an error';

/** A code where there is one: the library's own words name the command with its arguments. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'failure';
  return 'code' in error && typeof error.code === 'string' ? error.code : 'connection closed';
}

/** One login as a consumer would, and nothing else. Network trouble is its own error, never a no. */
export async function verifyByAuth(
  login: Login,
  { valkey }: Pick<Ports, 'valkey'>,
): Promise<'accepted' | 'rejected'> {
  try {
    // Unlike PING, AUTH is open to every user whatever its rights, so its answer is the whole proof.
    return (await valkey({ ...login, commands: [], timeoutMs: 15_000, guard: 'reads-only' })).say;
  } catch (error) {
    throw error instanceof TransportError ? unreachable(error) : error;
  }
}

/** The session failed before it could tell anything about the user. */
const unreachable = (error: TransportError): VerificationFailed =>
  new VerificationFailed(
    'LOGIN_UNREACHABLE',
    `${error.message}; check the vendor's IP allow-list and the functions' way out, or set "verify": "none" in the spec`,
    { cause: error },
  );
