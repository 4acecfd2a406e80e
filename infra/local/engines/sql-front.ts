import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createSecureContext, TLSSocket } from 'node:tls';
import type { Postgres } from './postgres.ts';

/** A refusal as PostgreSQL's wire protocol carries it. */
export interface Refusal {
  /** SQLSTATE, for example `28P01`. */
  readonly code: string;
  readonly message: string;
}

/** What a client says in its StartupMessage, after the vendor's rules were applied to the name. */
export interface Login {
  readonly user: string;
  readonly database: string;
  readonly applicationName: string;
  /** `address:port` of the client, as the front sees it. */
  readonly clientAddress: string;
}

/** One client that has logged in and is still connected. */
export interface SqlConnection extends Login {
  readonly id: number;
  readonly startedAt: Date;
  close(): void;
}

export type LoginFaultKind =
  /** 28P01, as after a password change that has not reached every node yet. */
  | 'password-refused'
  /** The address is not on the allow-list: TCP is accepted, nothing is ever answered. */
  | 'no-answer'
  /** 28000 in CockroachDB's words. */
  | 'no-login-privilege'
  /** 28000 in PostgreSQL's words. */
  | 'not-permitted'
  /** 28000, the host-based rules. */
  | 'rejected-by-configuration'
  /** CockroachDB Cloud's router does not know the cluster. */
  | 'routing-failed'
  /** 53300. */
  | 'too-many-connections'
  /** 57P03. */
  | 'starting-up'
  /** The connection is cut instead of an answer. */
  | 'reset';

export interface LoginFault {
  readonly kind: LoginFaultKind;
  /** Only logins of this user. @default every user; `no-answer` and `reset` then act before TLS */
  readonly user?: string;
  /** How many logins it meets. @default every login until `until`, or until cleared */
  readonly times?: number;
  /** When it ends by itself. @default never */
  readonly until?: Date;
}

/** Vendor rules of a front. They may be changed while it runs. */
export interface SqlFrontRules {
  /** CockroachDB folds user names to lower case and NFC at login; PostgreSQL takes them as they are. */
  foldUsernames: boolean;
  /** The databases that may be reached; any other is answered with 3D000. @default all */
  hasDatabase?: (database: string) => boolean;
  /** Asked before a login reaches PostgreSQL; a refusal is answered in its place. */
  beforeLogin?: (login: Login) => Promise<Refusal | undefined>;
  /** Puts a simple query of the vendor's dialect into PostgreSQL's words. @default as it is */
  translate?: (sql: string) => string;
  /** Called after a transaction in which roles were changed, before the client hears that it is over. */
  afterRoleChange?: () => Promise<void>;
}

/** The TLS front that clients of a stand-in log in to. */
export interface SqlFront {
  readonly host: 'localhost';
  readonly port: number;
  readonly rules: SqlFrontRules;
  readonly faults: {
    inject(fault: LoginFault): void;
    clear(): void;
  };
  /** Live connections, of one user or of all. */
  connections(user?: string): readonly SqlConnection[];
  /** Cuts the live connections of one user or of all and says how many there were. */
  closeConnections(user?: string): number;
  /** Everybody who tried to log in, oldest first. */
  readonly logins: readonly Login[];
  close(): Promise<void>;
}

export interface SqlFrontOptions {
  readonly postgres: Pick<Postgres, 'host' | 'port'>;
  /** PEM, valid for `localhost` and `127.0.0.1`. */
  readonly certificate: { readonly key: string; readonly cert: string };
  readonly rules?: Partial<SqlFrontRules>;
  /** @default the system's clock */
  readonly now?: () => Date;
}

const protocolVersion = 196_608; // 3.0
const sslRequest = 80_877_103;
const gssRequest = 80_877_104;
const cancelRequest = 80_877_102;
const longestStartup = 10_000; // PostgreSQL's own limit

const refusals: Record<Exclude<LoginFaultKind, 'no-answer' | 'reset'>, (login: Login) => Refusal> = {
  'password-refused': ({ user }) => ({
    code: '28P01',
    message: `password authentication failed for user ${user}`,
  }),
  'no-login-privilege': ({ user }) => ({ code: '28000', message: `${user} does not have login privilege` }),
  'not-permitted': ({ user }) => ({ code: '28000', message: `role "${user}" is not permitted to log in` }),
  'rejected-by-configuration': () => ({ code: '28000', message: 'authentication rejected by configuration' }),
  'routing-failed': () => ({
    code: '08004',
    message: 'CodeParamsRoutingFailed: rejected by BackendConfigFromParams: Invalid cluster name',
  }),
  'too-many-connections': () => ({ code: '53300', message: 'sorry, too many clients already' }),
  'starting-up': () => ({ code: '57P03', message: 'the database system is starting up' }),
};

function errorResponse({ code, message }: Refusal): Buffer {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C${code}\0M${message}\0\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
}

/** The next message that has no type byte: SSLRequest, CancelRequest or StartupMessage. */
function untypedMessage(socket: Socket): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    let received: Buffer = Buffer.alloc(0);
    const finish = (message: Buffer | undefined): void => {
      socket.off('data', collect).off('end', giveUp).off('close', giveUp).off('error', giveUp);
      socket.pause();
      resolve(message);
    };
    const giveUp = (): void => finish(undefined);
    const collect = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 4) return;
      const length = received.readInt32BE(0);
      // More bytes than the message has would be clear text smuggled in before TLS.
      if (length < 8 || length > longestStartup || received.length > length) finish(undefined);
      else if (received.length === length) finish(received);
    };
    socket.on('data', collect).on('end', giveUp).on('close', giveUp).on('error', giveUp).resume();
  });
}

function startupParameters(message: Buffer): Map<string, string> {
  const texts = message.subarray(8).toString('utf8').split('\0');
  const pairs = new Map<string, string>();
  for (let at = 0; texts[at]; at += 2) pairs.set(texts[at] ?? '', texts[at + 1] ?? '');
  return pairs;
}

function startupMessage(parameters: ReadonlyMap<string, string>): Buffer {
  const body = Buffer.from(`${[...parameters].map(([key, value]) => `${key}\0${value}\0`).join('')}\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(body.length + 8, 0);
  head.writeInt32BE(protocolVersion, 4);
  return Buffer.concat([head, body]);
}

/** Passes the server's messages on; CommandComplete and ReadyForQuery are held until `heed` has returned. */
function serverMessages(heed: (type: 'C' | 'Z', body: string) => Promise<void>): Transform {
  let pending: Buffer = Buffer.alloc(0);
  let passing = 0; // bytes of a message that is not ours to look at
  return new Transform({
    async transform(chunk: Buffer, _encoding, done) {
      try {
        pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
        while (pending.length > 0) {
          if (passing > 0) {
            const part = pending.subarray(0, passing);
            passing -= part.length;
            pending = pending.subarray(part.length);
            this.push(part);
            continue;
          }
          if (pending.length < 5) break;
          const type = String.fromCharCode(pending[0] ?? 0);
          const length = pending.readInt32BE(1) + 1;
          if (type !== 'C' && type !== 'Z') {
            passing = length;
            continue;
          }
          if (pending.length < length) break;
          const message = pending.subarray(0, length);
          pending = pending.subarray(length);
          await heed(type, message.toString('latin1', 5));
          this.push(message);
        }
        done();
      } catch (error) {
        done(error instanceof Error ? error : new Error(String(error)));
      }
    },
  });
}

/** Passes a client's messages on, with the text of each simple query as `translate` has it. */
function clientMessages(translate: (sql: string) => string): Transform {
  let pending: Buffer = Buffer.alloc(0);
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      while (pending.length >= 5) {
        const length = pending.readInt32BE(1) + 1;
        if (pending.length < length) break;
        const message = pending.subarray(0, length);
        pending = pending.subarray(length);
        if (message[0] !== 0x51) {
          this.push(message);
          continue;
        }
        const text = Buffer.from(`${translate(message.subarray(5, -1).toString('utf8'))}\0`);
        const head = Buffer.from('Q\0\0\0\0');
        head.writeInt32BE(text.length + 4, 1);
        this.push(Buffer.concat([head, text]));
      }
      done();
    },
  });
}

/**
 * Listens on a loopback port, ends TLS there and passes everything after the StartupMessage on to PostgreSQL,
 * the SCRAM exchange byte by byte.
 */
export async function startSqlFront(options: SqlFrontOptions): Promise<SqlFront> {
  const { postgres, certificate } = options;
  const now = options.now ?? (() => new Date());
  const rules: SqlFrontRules = { foldUsernames: false, ...options.rules };
  const secureContext = createSecureContext(certificate);
  const sockets = new Set<Socket>();
  const live = new Map<number, SqlConnection>();
  const logins: Login[] = [];
  let faults: { fault: LoginFault; left: number }[] = [];
  let lastId = 0;

  const takeFault = (applies: (fault: LoginFault) => boolean): LoginFault | undefined => {
    faults = faults.filter(
      ({ fault, left }) => left > 0 && (fault.until === undefined || fault.until > now()),
    );
    const found = faults.find(({ fault }) => applies(fault));
    if (found !== undefined) found.left -= 1;
    return found?.fault;
  };

  const track = (socket: Socket): void => {
    sockets.add(socket);
    socket.setNoDelay(true); // a login is many small messages, and two hops double every wait
    socket.on('error', () => {}); // a peer that goes away is no news
    socket.once('close', () => sockets.delete(socket));
  };

  /** Reads, so that it notices the client's leaving. */
  const ignore = (socket: Socket): void => {
    socket.once('end', () => socket.destroy()).resume();
  };

  const openBackend = (): Promise<Socket> =>
    new Promise((resolve, reject) => {
      const backend = connect(postgres.port, postgres.host);
      track(backend);
      backend.once('error', reject).once('connect', () => resolve(backend));
    });

  /** Answers SSLRequest and gives the encrypted socket, or undefined when the client has gone or was turned away. */
  const secure = async (plain: Socket): Promise<TLSSocket | undefined> => {
    for (;;) {
      const message = await untypedMessage(plain);
      const code = message?.readInt32BE(4);
      if (message === undefined) return void plain.destroy();
      if (code === gssRequest) {
        plain.write('N');
      } else if (code === cancelRequest) {
        const backend = await openBackend();
        backend.end(message);
        return void plain.end();
      } else if (code === sslRequest) {
        plain.write('S');
        const encrypted = new TLSSocket(plain, { isServer: true, secureContext });
        encrypted.on('error', () => plain.destroy());
        return encrypted;
      } else {
        return void plain.end(errorResponse({ code: '28000', message: 'SSL/TLS required' }));
      }
    }
  };

  const refusalOf = async (login: Login): Promise<Refusal | 'no-answer' | 'reset' | undefined> => {
    const fault = takeFault(({ user }) => user === undefined || user === login.user);
    if (fault !== undefined)
      return fault.kind === 'no-answer' || fault.kind === 'reset' ? fault.kind : refusals[fault.kind](login);
    if (rules.hasDatabase?.(login.database) === false)
      return { code: '3D000', message: `database "${login.database}" does not exist` };
    return rules.beforeLogin?.(login);
  };

  const converse = async (client: TLSSocket, backend: Socket, login: Login): Promise<void> => {
    lastId += 1;
    const id = lastId;
    let rolesChanged = false;
    const towardsClient = serverMessages(async (type, body) => {
      if (type === 'C') {
        rolesChanged ||= /^(GRANT|REVOKE|CREATE|ALTER|DROP) ROLE\0$/.test(body);
        return;
      }
      if (!live.has(id)) live.set(id, { ...login, id, startedAt: now(), close: () => client.destroy() });
      if (!rolesChanged || body !== 'I') return;
      rolesChanged = false;
      await rules.afterRoleChange?.();
    });
    try {
      const { translate } = rules;
      await Promise.all([
        translate === undefined
          ? pipeline(client, backend)
          : pipeline(client, clientMessages(translate), backend),
        pipeline(backend, towardsClient, client),
      ]);
    } finally {
      live.delete(id);
      client.destroy();
      backend.destroy();
    }
  };

  const welcome = async (plain: Socket): Promise<void> => {
    const blunt = takeFault(
      ({ user, kind }) => user === undefined && (kind === 'no-answer' || kind === 'reset'),
    );
    if (blunt?.kind === 'no-answer') return void ignore(plain);
    if (blunt?.kind === 'reset') return void plain.resetAndDestroy();
    const client = await secure(plain);
    if (client === undefined) return;
    const message = await untypedMessage(client);
    if (message === undefined) return void client.destroy();
    if (message.readInt32BE(4) === cancelRequest) {
      (await openBackend()).end(message);
      return void client.end();
    }
    const parameters = startupParameters(message);
    const given = parameters.get('user') ?? '';
    const user = rules.foldUsernames ? given.normalize('NFC').toLowerCase() : given;
    const database = parameters.get('database') ?? user;
    const applicationName = parameters.get('application_name') ?? '';
    const login = {
      user,
      database,
      applicationName,
      clientAddress: `${plain.remoteAddress}:${plain.remotePort}`,
    };
    logins.push(login);
    const refusal = await refusalOf(login);
    if (refusal === 'no-answer') return void ignore(client);
    if (refusal === 'reset') return void plain.resetAndDestroy();
    if (refusal !== undefined) return void client.end(errorResponse(refusal));
    const backend = await openBackend();
    backend.write(startupMessage(new Map([...parameters, ['user', user], ['database', database]])));
    await converse(client, backend, login);
  };

  // A client that says goodbye hears that of PostgreSQL, which comes when its session is no longer listed. Answered at once, the
  // client would go on and find itself still connected.
  const server: Server = createServer({ allowHalfOpen: true }, (plain) => {
    track(plain);
    welcome(plain).catch(() => plain.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });

  const connections = (user?: string): SqlConnection[] =>
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
