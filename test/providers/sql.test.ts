import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { RotationRefused, StoreError } from '../../functions/core/errors.ts';
import { Guard, type Objection } from '../../functions/core/guard.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { pgSql } from '../../functions/providers/sql.ts';
import { type SqlFront, startSqlFront } from '../../infra/local/engines/sql-front.ts';
import { createCertificateAuthority } from '../../infra/local/network.ts';

/** What the server received after the login, oldest first: the texts of queries, and `Terminate`. */
const received: string[] = [];
let nowMs = 0;
const clock = () => new Date(nowMs);
/** By the clock of the guard, how long a login and each query take. */
let takes = { loginMs: 0, queryMs: 0 };
let server: Server;
let front: SqlFront;
let ca: string;

const message = (type: string, body: Buffer): Buffer => {
  const head = Buffer.from(`${type}\0\0\0\0`);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};
const readyForQuery = message('Z', Buffer.from('I'));

/** As much of a PostgreSQL as a session of simple queries needs; behind the front, which ends TLS. */
async function startServer(): Promise<Server> {
  const started = createServer((socket) => {
    let pending: Buffer = Buffer.alloc(0);
    let isStarted = false;
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      pending = Buffer.concat([pending, chunk]);
      for (;;) {
        const at = isStarted ? 1 : 0;
        if (pending.length < at + 4) return;
        const length = at + pending.readInt32BE(at);
        if (pending.length < length) return;
        const part = pending.subarray(0, length);
        pending = pending.subarray(length);
        if (!isStarted) {
          isStarted = true;
          nowMs += takes.loginMs;
          socket.write(Buffer.concat([message('R', Buffer.alloc(4)), readyForQuery]));
        } else if (part[0] === 0x58) {
          received.push('Terminate');
          socket.end();
        } else {
          received.push(part.subarray(5, -1).toString());
          nowMs += takes.queryMs;
          socket.write(Buffer.concat([message('C', Buffer.from('DONE\0')), readyForQuery]));
        }
      }
    });
  });
  started.listen(0, '127.0.0.1');
  await once(started, 'listening');
  return started;
}

beforeAll(async () => {
  const authority = await createCertificateAuthority();
  ca = authority.caPem;
  server = await startServer();
  const { port } = server.address() as AddressInfo;
  const certificate = await authority.certificate(['localhost']);
  front = await startSqlFront({ postgres: { host: '127.0.0.1', port }, certificate });
});
afterAll(async () => {
  await front.close();
  server.close();
});

describe('a guarded session', () => {
  /** A transaction under a guard that was asked right before it. Answers how often the guard was asked, and the outcome. */
  async function guardedTransaction(
    fact: (asked: number) => Objection | undefined,
    { loginMs = 0, queryMs = 0 }: { readonly loginMs?: number; readonly queryMs?: number },
  ) {
    nowMs = Date.parse('2026-03-01T12:00:00Z');
    takes = { loginMs, queryMs };
    received.length = 0;
    let asked = 0;
    const guard = Guard.of(async () => {
      asked += 1;
      return fact(asked);
    });
    await guard.ask(clock());
    const outcome = await pgSql(clock)({
      host: front.host,
      port: front.port,
      database: 'defaultdb',
      username: 'orders',
      password: new Sensitive('Canary-password_000000000000001'),
      ca,
      statements: ['BEGIN', 'GRANT orders_rw TO orders', 'COMMIT'].map((text) => ({ text })),
      timeoutMs: 5_000,
      guard,
    }).catch((thrown: unknown) => thrown);
    await expect.poll(() => received.at(-1)).toBe('Terminate');
    return { asked, outcome };
  }
  const objectsFrom = (first: number) => (asked: number) => (asked < first ? undefined : 'a label moved');
  const superseded = { code: 'SUPERSEDED', message: expect.stringContaining('this write was not sent') };

  test('whose connection took long asks its guard again: if it objects, no statement is sent', async () => {
    const { outcome } = await guardedTransaction(objectsFrom(2), { loginMs: 3_000 });
    expect(outcome).toBeInstanceOf(RotationRefused);
    expect(outcome).toMatchObject(superseded);
    expect(received).toEqual(['Terminate']);
  });

  test('asks again in the middle of a transaction: if it objects, the session ends without COMMIT', async () => {
    const { asked, outcome } = await guardedTransaction(objectsFrom(4), { loginMs: 3_000, queryMs: 3_000 });
    expect(outcome).toMatchObject(superseded);
    expect(received).toEqual(['BEGIN', 'GRANT orders_rw TO orders', 'Terminate']);
    expect(asked).toBe(4);
  });

  test('does not ask again while the answer is fresh', async () => {
    const { asked, outcome } = await guardedTransaction(objectsFrom(2), { loginMs: 500, queryMs: 500 });
    expect(outcome).toEqual({ say: 'accepted', rows: [[], [], []] });
    expect(received).toEqual(['BEGIN', 'GRANT orders_rw TO orders', 'COMMIT', 'Terminate']);
    expect(asked).toBe(1);
  });

  test('whose guard cannot be asked ends with that error', async () => {
    const failure = new StoreError('STORE_UNAVAILABLE', 'none', 'GetParameters failed');
    const { outcome } = await guardedTransaction(
      (asked) => {
        if (asked > 1) throw failure;
        return undefined;
      },
      { loginMs: 3_000 },
    );
    expect(outcome).toBe(failure);
    expect(received).toEqual(['Terminate']);
  });
});
