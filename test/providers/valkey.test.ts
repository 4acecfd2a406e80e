import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { createServer as createTlsServer, getCACertificates, setDefaultCACertificates } from 'node:tls';
import { inspect } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { RotationRefused, StoreError } from '../../functions/core/errors.ts';
import { Guard, type Objection } from '../../functions/core/guard.ts';
import { TransportError, type ValkeySession } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { codeOf, iovalkeyOverTls, verifyByAuth } from '../../functions/providers/valkey.ts';
import { startValkey, type Valkey } from '../../infra/local/engines/valkey.ts';
import { startValkeyFront, type ValkeyFront } from '../../infra/local/engines/valkey-front.ts';
import {
  type Certificate,
  type CertificateAuthority,
  createCertificateAuthority,
} from '../../infra/local/network.ts';

const password = 'Canary-password_000000000000001';
let valkey: Valkey;
let front: ValkeyFront;
let authority: CertificateAuthority;
let certificate: Certificate;
const closes: (() => void)[] = [];
const unhandled: unknown[] = [];
const keep = (error: unknown): void => void unhandled.push(error);

beforeAll(async () => {
  process.on('unhandledRejection', keep);
  process.on('uncaughtException', keep);
  authority = await createCertificateAuthority();
  certificate = await authority.certificate(['localhost']);
  valkey = await startValkey();
  front = await startValkeyFront({ valkey, certificate });
  await valkey.call('ACL', 'SETUSER', 'orders', 'on', `>${password}`, '-@all', '+get', '~orders:*');
  await valkey.call('SET', 'orders:latest', 'tea');
});
afterEach(() => {
  front.faults.clear();
  for (const close of closes.splice(0)) close();
  vi.restoreAllMocks();
  expect(unhandled).toEqual([]);
});
afterAll(async () => {
  await front.close();
  await valkey.stop();
  process.off('unhandledRejection', keep);
  process.off('uncaughtException', keep);
});

const session = (change: Partial<ValkeySession> = {}) => ({
  host: 'localhost',
  port: front.port,
  username: 'orders',
  password: new Sensitive(password),
  ca: authority.caPem,
  commands: [],
  timeoutMs: 5_000,
  guard: 'reads-only' as const,
  ...change,
});
const run = (change: Partial<ValkeySession> = {}) => iovalkeyOverTls(() => new Date())(session(change));

/** A server that does this with every connection, once TLS stands where there is a certificate. Answers its port. */
async function server(welcome: (socket: Socket) => void, tls?: Certificate): Promise<number> {
  const meet = (socket: Socket): void => {
    socket.on('error', () => {});
    closes.push(() => socket.destroy());
    welcome(socket);
  };
  const listener = tls === undefined ? createServer(meet) : createTlsServer(tls, meet);
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  closes.push(() => listener.close());
  return (listener.address() as AddressInfo).port;
}
const plainServer = (welcome: (socket: Socket) => void) => server(welcome);
const tlsServer = (welcome: (socket: Socket) => void) => server(welcome, certificate);

async function transportErrorOf(work: Promise<unknown>): Promise<TransportError> {
  const error = await work.catch((thrown: unknown) => thrown);
  if (!(error instanceof TransportError))
    expect.unreachable(`got ${inspect(error)}, expected a TransportError to be thrown`);
  for (let part: unknown = error; part instanceof Error; part = part.cause)
    expect(inspect(part, { showHidden: true, depth: 8 })).not.toContain(password);
  return error;
}

describe('a session', () => {
  test('is AUTH and the given commands, whose replies come in order', async () => {
    const outcome = await run({
      commands: [
        ['GET', 'orders:latest'],
        ['GET', 'orders:none'],
      ],
    });
    expect(outcome).toEqual({ say: 'accepted', replies: [{ value: 'tea' }, { value: null }] });
  });

  test('sends nothing beside: no INFO, no CLIENT, no SELECT', async () => {
    const sent: string[] = [];
    const port = await tlsServer((socket) =>
      socket.on('data', (chunk) => {
        sent.push(chunk.toString());
        socket.write('+OK\r\n');
      }),
    );
    await run({ port, commands: [['GET', 'orders:1']] });
    expect(sent).toEqual([
      `*3\r\n$4\r\nAUTH\r\n$6\r\norders\r\n$${password.length}\r\n${password}\r\n`,
      '*2\r\n$3\r\nGET\r\n$8\r\norders:1\r\n',
    ]);
  });

  test('with a refused or unknown command is accepted all the same, and says what was refused', async () => {
    const outcome = await run({
      commands: [['PING'], ['NOSUCH', 'a'], ['GET', 'x'], ['GET', 'orders:latest']],
    });
    expect(outcome).toEqual({
      say: 'accepted',
      replies: [
        { error: expect.stringMatching(/^NOPERM /) },
        { error: expect.stringMatching(/^ERR unknown command/) },
        { error: expect.stringMatching(/^NOPERM /) },
        { value: 'tea' },
      ],
    });
  });

  test('leaves when it is done', async () => {
    await run({ commands: [['GET', 'orders:latest']] });
    await expect.poll(() => front.connections('orders')).toEqual([]);
  });

  test('writes nothing to the console, whatever is answered', async () => {
    const spies = (['log', 'warn', 'error'] as const).map((name) => vi.spyOn(console, name));
    for (const text of [
      'ERR AUTH <password> called without any password configured for the default user. Are you sure?',
      "ERR wrong number of arguments for 'auth' command",
      'ERR Client sent AUTH, but no password is set',
    ]) {
      const port = await tlsServer((socket) => socket.on('data', () => socket.write(`-${text}\r\n`)));
      expect((await transportErrorOf(run({ port }))).message).toContain('answered AUTH with ERR');
    }
    expect(spies.flatMap(({ mock }) => mock.calls)).toEqual([]);
  });
});

describe('a guarded session', () => {
  const kill = ['CLIENT', 'KILL', 'USER', 'orders'] as const;
  /**
   * A session under a guard that was asked right before it. The server answers +OK; before the answer to AUTH `connectMs` pass, before
   * every other one `replyMs`. Answers the sent commands, how often the guard was asked, and the outcome.
   */
  async function guardedSession(
    fact: (asked: number) => Objection | undefined,
    { connectMs = 0, replyMs = 0 }: { readonly connectMs?: number; readonly replyMs?: number },
  ) {
    let nowMs = Date.parse('2026-03-01T12:00:00Z');
    const clock = () => new Date(nowMs);
    const sent: string[] = [];
    let isClosed = false;
    const port = await tlsServer((socket) => {
      socket.on('close', () => {
        isClosed = true;
      });
      socket.on('data', (chunk) => {
        nowMs += sent.length === 0 ? connectMs : replyMs;
        sent.push(/[A-Z]+/.exec(chunk.toString())?.[0] ?? '');
        socket.write('+OK\r\n');
      });
    });
    let asked = 0;
    const guard = Guard.of(async () => {
      asked += 1;
      return fact(asked);
    });
    await guard.ask(clock());
    const outcome = await iovalkeyOverTls(clock)(session({ port, commands: [kill, kill], guard })).catch(
      (thrown: unknown) => thrown,
    );
    await expect.poll(() => isClosed).toBe(true);
    return { sent, asked, outcome };
  }
  const objectsFrom = (first: number) => (asked: number) => (asked < first ? undefined : 'a label moved');
  const superseded = { code: 'SUPERSEDED', message: expect.stringContaining('this write was not sent') };

  test('whose connection took long asks its guard again: if it objects, no command is sent', async () => {
    const { sent, outcome } = await guardedSession(objectsFrom(2), { connectMs: 3_000 });
    expect(outcome).toBeInstanceOf(RotationRefused);
    expect(outcome).toMatchObject(superseded);
    expect(sent).toEqual(['AUTH']);
  });

  test('asks again before a later command, too: none is sent after an objection', async () => {
    const { sent, asked, outcome } = await guardedSession(objectsFrom(3), {
      connectMs: 3_000,
      replyMs: 3_000,
    });
    expect(outcome).toMatchObject(superseded);
    expect([sent, asked]).toEqual([['AUTH', 'CLIENT'], 3]);
  });

  test('does not ask again while the answer is fresh', async () => {
    const { sent, asked, outcome } = await guardedSession(objectsFrom(2), { connectMs: 500, replyMs: 500 });
    expect(outcome).toEqual({ say: 'accepted', replies: [{ value: 'OK' }, { value: 'OK' }] });
    expect([sent, asked]).toEqual([['AUTH', 'CLIENT', 'CLIENT'], 1]);
  });

  test('whose guard cannot be asked ends with that error', async () => {
    const failure = new StoreError('STORE_UNAVAILABLE', 'none', 'GetParameters failed');
    const { sent, outcome } = await guardedSession(
      (asked) => {
        if (asked > 1) throw failure;
        return undefined;
      },
      { connectMs: 3_000 },
    );
    expect(outcome).toBe(failure);
    expect(sent).toEqual(['AUTH']);
  });
});

describe('a rejection', () => {
  test.each(['wrong', password.toLowerCase(), `${password} `])(
    'is the server’s own WRONGPASS (%s)',
    async (text) => {
      expect(await run({ password: new Sensitive(text) })).toEqual({ say: 'rejected' });
    },
  );

  test('is what an unknown user gets', async () => {
    expect(await run({ username: 'nobody' })).toEqual({ say: 'rejected' });
  });

  const others = [
    'LOADING Valkey is loading the dataset in memory',
    'ERR max number of clients reached',
    "ERR unknown command 'AUTH', with args beginning with: ",
    'NOPERM User orders has no permissions',
    'WRONGPASSWORD of another kind',
    'something odd',
  ];
  test.each(others)('is not: %s', async (text) => {
    const port = await tlsServer((socket) => socket.on('data', () => socket.write(`-${text}\r\n`)));
    const { message, sent } = await transportErrorOf(run({ port }));
    expect(message).toMatch(/^localhost:\d+ answered AUTH with (LOADING|ERR|NOPERM|WRONGPASSWORD|an error)$/);
    expect(sent).toBe(true);
  });

  test('is not an answer that is no OK', async () => {
    const port = await tlsServer((socket) => socket.on('data', () => socket.write(':1\r\n')));
    expect((await transportErrorOf(run({ port }))).message).toContain('with something else than OK');
  });
});

describe('a session that breaks', () => {
  const breaks: Record<string, { welcome: (socket: Socket) => void; says: RegExp }> = {
    'in the middle of AUTH': {
      welcome: (socket) => socket.once('data', () => socket.destroy()),
      says: /no session with localhost:\d+ \((connection closed|ECONNRESET)\)/,
    },
    'in the middle of a reply': {
      welcome: (socket) =>
        socket.once('data', () => {
          socket.write('+O');
          setTimeout(() => socket.destroy(), 20);
        }),
      says: /\(connection closed\)/,
    },
    'with something that is no reply': {
      welcome: (socket) => socket.once('data', () => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')),
      says: /\(connection closed\)/,
    },
    'after AUTH': {
      welcome: (socket) =>
        socket.once('data', () => {
          socket.write('+OK\r\n');
          socket.once('data', () => socket.destroy());
        }),
      says: /\((connection closed|ECONNRESET)\)/,
    },
  };
  test.each(Object.entries(breaks))('%s says that it was begun', async (_when, { welcome, says }) => {
    const port = await tlsServer(welcome);
    const { message, sent } = await transportErrorOf(run({ port, commands: [['GET', 'x']] }));
    expect(message).toMatch(says);
    expect(sent).toBe(true);
  });

  test.each(['ECONNREFUSED', 'ENOTFOUND'])('before it began says so (%s)', async (code) => {
    const where = code === 'ENOTFOUND' ? { host: 'nobody.invalid' } : { port: 1 };
    const { message, sent } = await transportErrorOf(run(where));
    expect(message).toMatch(/^no session with .*\((ECONNREFUSED|ENOTFOUND|EAI_AGAIN)\)$/);
    expect(sent).toBe(false);
  });

  const silences: Record<string, { welcome: (socket: Socket) => void; isTls: boolean; sent: boolean }> = {
    'before TLS': { welcome: () => {}, isTls: false, sent: false },
    'after TLS': { welcome: () => {}, isTls: true, sent: true },
    'after AUTH': {
      welcome: (socket) => socket.once('data', () => socket.write('+OK\r\n')),
      isTls: true,
      sent: true,
    },
    'in the middle of a reply, byte by byte': {
      welcome: (socket) => {
        const timer = setInterval(() => socket.write('+'), 50);
        socket.once('close', () => clearInterval(timer));
      },
      isTls: true,
      sent: true,
    },
  };
  test.each(Object.entries(silences))(
    'by silence %s ends in time',
    async (_when, { welcome, isTls, sent }) => {
      const port = isTls ? await tlsServer(welcome) : await plainServer(welcome);
      const start = performance.now();
      const error = await transportErrorOf(run({ port, commands: [['GET', 'x']], timeoutMs: 300 }));
      expect(performance.now() - start).toBeLessThan(1_500);
      expect([error.message, error.sent]).toEqual([
        `no session with localhost:${port} (no answer in time)`,
        sent,
      ]);
    },
  );

  test('is not begun again', async () => {
    let connections = 0;
    const port = await tlsServer((socket) => {
      connections += 1;
      socket.once('data', () => socket.destroy());
    });
    await transportErrorOf(run({ port }));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(connections).toBe(1);
  });
});

describe('the server’s certificate', () => {
  const impostors: Record<string, { of: () => Promise<Certificate>; code: RegExp }> = {
    'of another name': {
      of: () => authority.certificate(['elsewhere.example']),
      code: /ERR_TLS_CERT_ALTNAME_INVALID/,
    },
    'of an unknown authority': {
      of: async () => (await createCertificateAuthority()).certificate(['localhost']),
      code: /CERT_|UNABLE_TO_|SELF_SIGNED/,
    },
  };
  test.each(Object.entries(impostors))(
    '%s: not even the name of the user is sent',
    async (_whose, { of, code }) => {
      const received: Buffer[] = [];
      const port = await server((socket) => socket.on('data', (chunk) => received.push(chunk)), await of());
      const { message, sent } = await transportErrorOf(run({ port }));
      expect(message).toMatch(code);
      expect([sent, received]).toEqual([false, []]);
    },
  );

  test('is judged by the public authorities where no other is given', async () => {
    const { ca: _ca, ...rest } = session();
    const { sent } = await transportErrorOf(iovalkeyOverTls(() => new Date())(rest));
    expect(sent).toBe(false);
    const before = getCACertificates('default');
    setDefaultCACertificates([...before, authority.caPem]);
    expect(await iovalkeyOverTls(() => new Date())(rest)).toEqual({ say: 'accepted', replies: [] });
    setDefaultCACertificates(before);
  });

  test('is asked for first: a server without TLS gets nothing that is ours', async () => {
    const received: Buffer[] = [];
    const port = await plainServer((socket) =>
      socket.on('data', (chunk) => {
        received.push(chunk);
        socket.write('-ERR Protocol error\r\n');
      }),
    );
    expect((await transportErrorOf(run({ port }))).sent).toBe(false);
    const bytes = Buffer.concat(received);
    expect(bytes[0], 'a ClientHello').toBe(0x16);
    expect(bytes.toString('latin1')).not.toMatch(/orders|Canary/);
  });
});

describe('verifying by AUTH', () => {
  const login = () => ({ ...session(), database: '0' });
  const ports = { valkey: iovalkeyOverTls(() => new Date()) };

  test('is the outcome of AUTH, and no command', async () => {
    const commands: unknown[] = [];
    const valkey = async (asked: ValkeySession) => {
      commands.push(asked.commands);
      return ports.valkey(asked);
    };
    expect(await verifyByAuth(login(), { valkey })).toBe('accepted');
    expect(await verifyByAuth({ ...login(), password: new Sensitive('no') }, { valkey })).toBe('rejected');
    expect(commands).toEqual([[], []]);
  });

  test('throws what to look at where nothing is certain', async () => {
    front.faults.inject({ kind: 'reset' });
    const error = await verifyByAuth(login(), ports).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ name: 'VerificationFailed', code: 'LOGIN_UNREACHABLE' });
    expect(String(error)).toMatch(/check the vendor's IP allow-list and the functions' way out/);
  });
});

test('the code of an error reply is its first word, where that is one', () => {
  expect(codeOf("NOPERM User x has no permissions to run the 'ping' command")).toBe('NOPERM');
  expect(codeOf('something odd')).toBe('an error');
});
