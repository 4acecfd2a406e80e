import { Agent } from 'node:https';
import type { Duplex } from 'node:stream';

type CreateConnection = Agent['createConnection'];

/** An early connection that nobody has asked for by then is closed: while a function is frozen, the other end hangs up. */
const maxUnusedMs = 10_000;

/**
 * Can open the first connection before it is asked for, so that a function goes on loading meanwhile. Where that fails, or comes to
 * nothing, it is as if it had not been tried: whoever asks gets a connection of their own, and its errors.
 */
export class EarlyAgent extends Agent {
  #early: { readonly host: string; readonly port: number; readonly socket: Duplex } | undefined;

  connectEarly(host: string, port = 443): void {
    const socket = super.createConnection({ ...this.options, host, port, servername: host });
    if (!socket) return;
    this.#early = { host, port, socket };
    // It never goes: an error that nobody listens to would end the process.
    socket.on('error', () => this.#drop());
    const unused = setTimeout(() => this.#drop(), maxUnusedMs).unref();
    socket.once('close', () => clearTimeout(unused));
    hold(socket, false);
  }

  override createConnection(
    ...[options, callback]: Parameters<CreateConnection>
  ): ReturnType<CreateConnection> {
    const early = this.#early;
    this.#early = undefined;
    if (early === undefined) return super.createConnection(options, callback);
    const { host, port, socket } = early;
    if (options.host === host && Number(options.port) === port && !socket.destroyed) {
      hold(socket, true);
      return socket;
    }
    socket.destroy();
    return super.createConnection(options, callback);
  }

  override destroy(): void {
    this.#drop();
    super.destroy();
  }

  #drop(): void {
    this.#early?.socket.destroy();
    this.#early = undefined;
  }
}

/** Whether the process is to stay because of it. */
function hold(socket: Duplex & { ref?: () => void; unref?: () => void }, isHeld: boolean): void {
  if (isHeld) socket.ref?.();
  else socket.unref?.();
}
