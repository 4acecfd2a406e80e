import { type Guard, sendGuarded } from '../core/guard.ts';
import type { HttpRequest, Leave, Ports, SqlSession, ValkeySession } from '../core/ports.ts';

/**
 * The seam that every call passes which may change something outside: vendors, secrets and their labels, consumers. The reasons of
 * a write are read again right before it leaves, each retry included. A call that says it only reads is looked at, so that none
 * passes for reading by mistake.
 */
export function guardWrites(ports: Ports, clock: () => Date): Ports {
  const leave = <Request extends { readonly guard: Leave }, Answer>(
    port: (request: Request) => Promise<Answer>,
    isWrite: (request: Request) => string | undefined,
  ): ((request: Request) => Promise<Answer>) => {
    return async (request) => {
      const { guard } = request;
      if (guard instanceof Object) return sendGuarded(guard, clock, () => port(request));
      const write = guard === 'reads-only' ? isWrite(request) : 'a call without a guard';
      if (write !== undefined) throw new Error(`${write} was about to leave without its reasons; give it a guard`);
      return port(request);
    };
  };
  const guarded = <Request extends { readonly guard: Guard }, Answer>(
    port: (request: Request) => Promise<Answer>,
  ): ((request: Request) => Promise<Answer>) => leave(port, () => 'a change of a secret');
  return {
    ...ports,
    http: leave(ports.http, writeOverHttp),
    sql: leave(ports.sql, writeBySql),
    valkey: leave(ports.valkey, writeByCommand),
    writeSecret: guarded(ports.writeSecret),
    moveLabel: guarded(ports.moveLabel),
    createSecret: guarded(ports.createSecret),
    startRotation: guarded(ports.startRotation),
    cancelRotation: guarded(ports.cancelRotation),
    removeReplicas: guarded(ports.removeReplicas),
    deleteSecret: guarded(ports.deleteSecret),
    notify: guarded(ports.notify),
  };
}

/** A POST may be a question: Milvus asks by nothing else. */
const writeOverHttp = ({ method }: HttpRequest): string | undefined =>
  method === 'GET' || method === 'POST' ? undefined : `an HTTP ${method}`;

const changesBySql = /\bpg_(terminate|cancel)_backend\b/i;

const writeBySql = ({ statements }: SqlSession): string | undefined =>
  statements.every(({ text }) => /^\s*(SELECT|SHOW)\b/i.test(text) && !changesBySql.test(text))
    ? undefined
    : 'SQL that is more than a question';

const questions: ReadonlySet<string> = new Set(['CLIENT LIST', 'CLIENT ID']);

const writeByCommand = ({ commands }: ValkeySession): string | undefined =>
  commands.every(([name = '', first = '']) => questions.has(`${name} ${first}`.toUpperCase()))
    ? undefined
    : 'a command that is more than a question';
