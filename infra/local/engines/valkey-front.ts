import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { createSecureContext, TLSSocket } from 'node:tls';
import { createCommandReader, encodeResp, parseResp, RespError } from './resp.ts';
import type { Valkey } from './valkey.ts';
import { nameOf } from './valkey-acl.ts';

/** One client that has logged in and is still connected. */
export interface ValkeyConnection {
  readonly id: number;
  readonly user: string;
  /** `address:port` of the client, as the front sees it. */
  readonly clientAddress: string;
  close(): void;
}

export type ValkeyLoginFaultKind =
  /** WRONGPASS, as after a password change that has not reached the engine yet. */
  | 'password-refused'
  /** The address is not among the trusted ones: TCP is accepted, nothing is ever answered. */
  | 'no-answer'
  /** The connection is cut instead of an answer. */
  | 'reset'
  /** The engine has just started. */
  | 'loading'
  | 'too-many-connections'
  /** AUTH itself is not understood. */
  | 'unknown-command'
  /** Something that is no Valkey answers. */
  | 'garbage';

export interface ValkeyLoginFault {
  readonly kind: ValkeyLoginFaultKind;
  /** Only logins of this user. @default every user; `no-answer` and `reset` then act before TLS */
  readonly user?: string;
  /** How many logins it meets. @default every login until cleared */
  readonly times?: number;
}

/** Vendor rules of a front. They may be changed while it runs. */
export interface ValkeyFrontRules {
  /** What becomes of the commands that a managed Valkey keeps for itself. @default 'unknown' */
  disabled: 'unknown' | 'no-permission' | 'none';
}

/** The TLS front that clients of a stand-in log in to. */
export interface ValkeyFront {
  readonly host: 'localhost';
  readonly port: number;
  readonly rules: ValkeyFrontRules;
  readonly faults: { inject(fault: ValkeyLoginFault): void; clear(): void };
  /** Live connections that have logged in, of one user or of all. */
  connections(user?: string): readonly ValkeyConnection[];
  /** Cuts the live connections of one user or of all and says how many there were. */
  closeConnections(user?: string): number;
  /** Everybody who tried to log in, oldest first. */
  readonly logins: readonly string[];
  close(): Promise<void>;
}

export interface ValkeyFrontOptions {
  readonly valkey: Pick<Valkey, 'host' | 'port' | 'admin'>;
  /** PEM, valid for `localhost`. */
  readonly certificate: { readonly key: string; readonly cert: string };
}

/** As Aiven for Valkey does, whose service Vultr's looks like (aiven.io, restricted commands). */
const kept = new Set(
  (
    'acl config monitor debug command cluster save bgsave shutdown migrate replicaof slaveof failover lastsave ' +
    'bgrewriteaof'
  ).split(' '),
);

const parsed = (bytes: Buffer) => {
  try {
    return parseResp(bytes);
  } catch {
    return 'broken';
  }
};

const refusals: Partial<Record<ValkeyLoginFaultKind, string>> = {
  'password-refused': 'WRONGPASS invalid username-password pair or user is disabled.',
  loading: 'LOADING Valkey is loading the dataset in memory',
  'too-many-connections': 'ERR max number of clients reached',
  'unknown-command': "ERR unknown command 'AUTH', with args beginning with: ",
};

/**
 * Listens on a loopback port, ends TLS there and passes commands on to the engine, one after the other; the engine's own
 * administrator is nobody there.
 */
export async function startValkeyFront({ valkey, certificate }: ValkeyFrontOptions): Promise<ValkeyFront> {
  const secureContext = createSecureContext(certificate);
  const rules: ValkeyFrontRules = { disabled: 'unknown' };
  const sockets = new Set<Socket>();
  const live = new Map<number, ValkeyConnection>();
  const logins: string[] = [];
  let faults: { fault: ValkeyLoginFault; left: number }[] = [];
  let lastId = 0;

  const takeFault = (applies: (fault: ValkeyLoginFault) => boolean): ValkeyLoginFaultKind | undefined => {
    faults = faults.filter(({ left }) => left > 0);
    const found = faults.find(({ fault }) => applies(fault));
    if (found !== undefined) found.left -= 1;
    return found?.fault.kind;
  };
  const track = (socket: Socket): void => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => {}); // a peer that goes away is no news
    socket.once('close', () => sockets.delete(socket));
  };

  function refusalOfCommand(command: readonly string[], user: string | undefined): string | undefined {
    const [name = '', ...rest] = command;
    if (rules.disabled === 'none' || !kept.has(name.toLowerCase())) return undefined;
    return rules.disabled === 'unknown'
      ? `ERR unknown command '${name}', with args beginning with: ${rest.map((word) => `'${word}' `).join('')}`
      : `NOPERM User ${user ?? ''} has no permissions to run the '${nameOf(command)}' command`;
  }

  /** Whom a command would log in: AUTH and HELLO … AUTH. */
  function claimedBy(command: readonly string[]): string | undefined {
    const [name = '', ...rest] = command;
    if (/^auth$/i.test(name)) return rest.length > 1 ? rest[0] : 'default';
    const at = /^hello$/i.test(name) ? rest.findIndex((word) => /^auth$/i.test(word)) : -1;
    return at < 0 ? undefined : rest[at + 1];
  }

  const converse = (client: TLSSocket, plain: Socket): void => {
    const backend = connect(valkey.port, valkey.host);
    track(backend);
    lastId += 1;
    const id = lastId;
    const read = createCommandReader();
    const waiting: (readonly string[])[] = [];
    let user: string | undefined;
    let isBusy = false;
    let received: Buffer = Buffer.alloc(0);
    const end = (): void => {
      live.delete(id);
      client.destroy();
      backend.destroy();
    };
    client.once('close', end);
    backend.once('close', end);

    let claimed: string | undefined;
    const next = (): void => {
      while (!isBusy && waiting.length > 0) {
        const command = waiting.shift() ?? [];
        claimed = claimedBy(command);
        if (claimed !== undefined) {
          logins.push(claimed);
          const name = claimed;
          const fault = takeFault((each) => each.user === undefined || each.user === name);
          if (fault === 'no-answer') return;
          if (fault === 'reset') return void plain.resetAndDestroy();
          if (fault === 'garbage') return void client.write('HTTP/1.1 400 Bad Request\r\n\r\n');
          const said =
            fault === undefined && name === valkey.admin.user
              ? refusals['password-refused']
              : fault && refusals[fault];
          if (said !== undefined) {
            client.write(encodeResp(new RespError(said)));
            continue;
          }
        }
        const refusal = refusalOfCommand(command, user);
        if (refusal !== undefined) {
          client.write(encodeResp(new RespError(refusal)));
          continue;
        }
        isBusy = true;
        backend.write(encodeResp(command));
      }
    };
    client.on('data', (chunk: Buffer) => {
      try {
        waiting.push(...read(chunk));
      } catch {
        return end();
      }
      next();
    });
    backend.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      const reply = parsed(received);
      if (reply === undefined) return;
      if (reply === 'broken') return end();
      // One command is under way at a time, so this is the whole answer to it.
      if (claimed !== undefined && !(reply.value instanceof RespError)) {
        user = claimed;
        const close = (): void => void client.destroy();
        live.set(id, { id, user, clientAddress: `${plain.remoteAddress}:${plain.remotePort}`, close });
      }
      client.write(received.subarray(0, reply.end));
      received = received.subarray(reply.end);
      isBusy = false;
      next();
    });
  };

  const server = createServer((plain) => {
    track(plain);
    const blunt = takeFault(
      ({ user, kind }) => user === undefined && (kind === 'no-answer' || kind === 'reset'),
    );
    if (blunt === 'no-answer') return void plain.resume(); // reads, so that it notices the client's leaving
    if (blunt === 'reset') return void plain.resetAndDestroy();
    const client = new TLSSocket(plain, { isServer: true, secureContext });
    client.on('error', () => plain.destroy());
    client.once('secure', () => converse(client, plain));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });

  const connections = (user?: string): readonly ValkeyConnection[] =>
    [...live.values()].filter((connection) => user === undefined || connection.user === user);
  return {
    host: 'localhost',
    port: (server.address() as AddressInfo).port,
    rules,
    logins,
    faults: {
      inject(fault) {
        faults.push({ fault, left: fault.times ?? Number.POSITIVE_INFINITY });
      },
      clear() {
        faults = [];
      },
    },
    connections,
    closeConnections(user) {
      const chosen = connections(user);
      for (const connection of chosen) connection.close();
      return chosen.length;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}
