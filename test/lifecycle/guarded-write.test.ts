import { expect, test } from 'vitest';
import { Guard } from '../../functions/core/guard.ts';
import type { HttpRequest, Ports } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { guardWrites } from '../../functions/lifecycle/guarded-write.ts';

/** The seam before ports that note what reaches them. */
function seam() {
  const left: string[] = [];
  const ports = guardWrites(
    {
      http: async () => {
        left.push('http');
        return { status: 200, headers: {}, body: new Sensitive('{}') };
      },
      sql: async () => {
        left.push('sql');
        return { say: 'accepted', rows: [] };
      },
      valkey: async () => {
        left.push('valkey');
        return { say: 'accepted', replies: [] };
      },
    } as unknown as Ports,
    () => new Date('2026-03-01T12:00:00Z'),
  );
  return { ports, left };
}

const place = { host: 'localhost', port: 1, username: 'orders', password: new Sensitive('x'), timeoutMs: 1 };
const http = (method: HttpRequest['method'], path: string) => ({
  method,
  url: new URL(`https://in01-1.aws-eu-central-1.zillizcloud.com:19530${path}`),
  headers: {},
  timeoutMs: 1,
  maxBodyBytes: 1,
  guard: 'reads-only' as const,
});
const sql = (text: string) => ({
  ...place,
  database: 'defaultdb',
  statements: [{ text }],
  guard: 'reads-only' as const,
});
const valkey = (...command: string[]) => ({ ...place, commands: [command], guard: 'reads-only' as const });

const questions: Record<string, (ports: Ports) => Promise<unknown>> = {
  'a GET': ({ http: send }) => send(http('GET', '/v2/clusters/in01-1')),
  'a POST to a path that lists': ({ http: send }) => send(http('POST', '/v2/vectordb/users/list')),
  'a POST to a path that describes': ({ http: send }) => send(http('POST', '/v2/vectordb/users/describe')),
  'a SELECT': ({ sql: send }) => send(sql('SELECT rolname\n FROM pg_roles')),
  'a SHOW': ({ sql: send }) => send(sql('SHOW session_id')),
  'CLIENT LIST': ({ valkey: send }) => send(valkey('CLIENT', 'LIST')),
};
test.each(Object.entries(questions))('%s passes as a question', async (_what, ask) => {
  const { ports, left } = seam();
  await ask(ports);
  expect(left).toHaveLength(1);
});

const changes: Record<string, (ports: Ports) => Promise<unknown>> = {
  'a DELETE': ({ http: send }) => send(http('DELETE', '/v2/clusters/in01-1')),
  'a POST to a path that drops': ({ http: send }) => send(http('POST', '/v2/vectordb/users/drop')),
  'a POST to a path that ends like a question': ({ http: send }) => send(http('POST', '/v2/services/list')),
  'a DROP': ({ sql: send }) => send(sql('DROP ROLE orders')),
  'a DROP behind a SELECT': ({ sql: send }) => send(sql('SELECT 1; DROP ROLE orders')),
  'a SELECT that ends sessions': ({ sql: send }) => send(sql('SELECT pg_terminate_backend(1)')),
  'CLIENT KILL': ({ valkey: send }) => send(valkey('CLIENT', 'KILL', 'USER', 'orders')),
};
test.each(Object.entries(changes))('%s is stopped where it says that it only reads', async (_what, ask) => {
  const { ports, left } = seam();
  await expect(ask(ports)).rejects.toThrow(/was about to leave without its reasons/);
  expect(left).toEqual([]);
});

test.each(['createParameter', 'deleteParameter'] as const)(
  '%s of a spec is stopped where it has no guard, and passes with one',
  async (name) => {
    const left: string[] = [];
    const port = async ({ parameter }: { parameter: string }) => left.push(parameter);
    const ports = guardWrites(
      { createParameter: port, deleteParameter: port } as unknown as Ports,
      () => new Date('2026-03-01T12:00:00Z'),
    );
    const call = { parameter: '/rekey/credentials/orders', document: '{}' };
    await expect(ports[name](call)).rejects.toThrow(/without its reasons/);
    expect(left).toEqual([]);
    await expect(ports[name]({ ...call, guard: Guard.of(async () => 'it is over') })).rejects.toThrow(
      /it is over/,
    );
    expect(left).toEqual([]);
    await ports[name]({ ...call, guard: Guard.of(async () => undefined) });
    expect(left).toEqual(['/rekey/credentials/orders']);
  },
);
