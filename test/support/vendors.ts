import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { inspect } from 'node:util';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { type HttpRequest, interpose, type Ports, type SqlSession } from '../../functions/core/ports.ts';
import type { Login, Provider } from '../../functions/core/provider.ts';
import { Sensitive, spellings } from '../../functions/core/sensitive.ts';
import { undiciHttp } from '../../functions/providers/http.ts';
import { pgSql } from '../../functions/providers/sql.ts';
import type { LoginFault, SqlFront } from '../../infra/local/engines/sql-front.ts';
import { startVendors, type Vendors } from '../../infra/local/vendors.ts';
import { createMovableClock } from '../infra/local/providers/stand-in.ts';

/** Both vendors on real engines, and real ports to them on a clock that only waiting moves. */
export interface TestVendors extends Vendors {
  readonly clock: ReturnType<typeof createMovableClock>;
  readonly apiKeys: { readonly render: string; readonly cockroachdb: string };
  /** The ports of a provider in an invocation that ends at `until`. Some may be replaced; all are recorded. */
  ports(until: Date, replaced?: Partial<ProviderPorts>): Ports;
  /** An http port of its own, for other networks than this one. */
  http(proxyUrl: string): Ports['http'];
  /** Every wait of this test in milliseconds. */
  readonly waits: readonly number[];
  /** Every request of this test. */
  readonly requests: readonly RecordedRequest[];
  /** Every SQL text of this test, by session. */
  readonly statements: readonly (readonly string[])[];
  /** Takes a value as a secret, which may be seen nowhere. */
  keepSecret(value: string): void;
  /** The same provider; what it returns and throws is kept for the leak check. */
  watch<P extends Provider>(provider: P): P;
  /** A login fault; those that leave the client without an answer shorten its patience. */
  faultLogins(front: SqlFront, fault: LoginFault): void;
  /** A session of an application, ended with the test. */
  connect(login: Login, applicationName: string): Promise<pg.Client>;
}

type ProviderPorts = Pick<Ports, 'http' | 'sql' | 'now' | 'sleep' | 'randomBytes'>;

export interface RecordedRequest {
  readonly method: HttpRequest['method'];
  readonly url: string;
  /** Whether it was started when the invocation had no time left. */
  readonly isLate: boolean;
}

interface Judged {
  readonly catastrophes: readonly unknown[];
  readonly calls: readonly { readonly defect?: unknown }[];
}

/** What a client waits in real time where an answer never comes, and where it is sure to come on a busy machine. */
const shortPatienceMs = 400;
const longPatienceMs = 10_000;
/** Of simulated time: ten requests a second, as many as CockroachDB Cloud allows. */
const latencyMs = 100;

/**
 * Starts the vendors once for the file and ends each test with what must hold in all of them: nothing that would have hurt
 * a database was asked for, nothing was sent elsewhere or too late, the stand-ins were sound, and no secret was shown.
 */
export function useTestVendors(): () => TestVendors {
  let run: Awaited<ReturnType<typeof startTestVendors>> | undefined;
  const started = (): NonNullable<typeof run> => {
    if (run === undefined) throw new Error('the vendors are not started yet: ask inside a test or hook');
    return run;
  };
  beforeAll(async () => {
    run = await startTestVendors();
  });
  beforeEach(() => started().begin());
  afterEach(async () => {
    const { vendors, end, leaks } = started();
    await end();
    const apis: readonly Judged[] = [vendors.render.api, vendors.cockroachdb.api];
    expect(apis.flatMap(({ catastrophes }) => catastrophes)).toEqual([]);
    expect(apis.flatMap(({ calls }) => calls.filter(({ defect }) => defect !== undefined))).toEqual([]);
    expect(vendors.network.refused, 'requests to hosts that are not the vendors').toEqual([]);
    expect(vendors.requests.filter(({ isLate }) => isLate)).toEqual([]);
    expect(leaks()).toEqual([]);
  });
  afterAll(() => run?.vendors.stop());
  return () => started().vendors;
}

/** Keeps what anybody gets to see, and the secrets that may not be in it. */
function createLeakCheck() {
  const shown: string[] = [];
  const secrets = new Set<string>();
  /** Passwords wherever they come from: what the code wraps, and what lies open in the bodies that it wraps. */
  const learn = (value: unknown, name = '', depth = 0): void => {
    if (value instanceof Sensitive && name === 'body')
      for (const [, password = ''] of value.reveal().matchAll(/"password":"([^"\\]+)"/g))
        secrets.add(password);
    else if (value instanceof Sensitive) secrets.add(value.reveal().replace(/^Bearer /, ''));
    else if (typeof value === 'object' && value !== null && depth < 4)
      for (const [key, inner] of Object.entries(value)) learn(inner, key, depth + 1);
  };
  return {
    keepSecret: (value: string): void => void secrets.add(value),
    showText: (text: string): void => void shown.push(text),
    /** Errors with their causes, reasons, answers, and whatever goes through a port. */
    show<T>(value: T): T {
      learn(value);
      for (let error: unknown = value; error instanceof Error; error = error.cause)
        shown.push(error.message, error.stack ?? '', JSON.stringify(error));
      shown.push(inspect(value, { depth: 8, showHidden: true }));
      return value;
    },
    leaks(): readonly string[] {
      const text = shown.join('\n');
      return [...secrets]
        .flatMap((secret) => spellings(secret).filter((spelling) => spelling.length >= 8))
        .filter((spelling) => text.includes(spelling))
        .map((spelling) => text.slice(Math.max(0, text.indexOf(spelling) - 100)).slice(0, 200));
    },
    forget(): void {
      shown.length = 0;
      secrets.clear();
    },
  };
}

async function startTestVendors() {
  const directory = await mkdtemp(join(tmpdir(), 'rekey-vendors-'));
  await chmod(directory, 0o755); // the engines run as another user where this one is root
  const clock = createMovableClock('2026-03-01T12:00:00.123Z');
  const apiKeys = { render: 'rnd_canaryRenderKey0123456789', cockroachdb: 'CCDB1_canaryCockroachKey0123' };
  const { keepSecret, showText, show, leaks, forget } = createLeakCheck();
  const vendors = await startVendors({ directory, clock, apiKeys, log: showText });
  setDefaultCACertificates([...getCACertificates('default'), vendors.network.caPem]);

  const waits: number[] = [];
  const requests: RecordedRequest[] = [];
  const statements: (readonly string[])[] = [];
  const clients: pg.Client[] = [];
  let isLoginLost = false;

  const isAnswerLost = (): boolean =>
    [vendors.render.api, vendors.cockroachdb.api].some(({ faults }) =>
      faults.pending().some(({ kind }) => kind.startsWith('timeout')),
    );
  /** A call that waited in vain took all the time that it was given, by the clock of the test. */
  const timed = async <T>(
    { timeoutMs, patienceMs }: { timeoutMs: number; patienceMs: number },
    call: (timeoutMs: number) => Promise<T>,
  ): Promise<T> => {
    const start = performance.now();
    try {
      return await call(Math.min(timeoutMs, patienceMs));
    } catch (error) {
      if (performance.now() - start > patienceMs * 0.95) clock.move(timeoutMs);
      throw error;
    } finally {
      clock.move(latencyMs);
    }
  };
  const http = (proxyUrl: string): Ports['http'] => {
    const send = undiciHttp({ proxyUrl });
    return (request) => {
      const patienceMs = isAnswerLost() ? shortPatienceMs : longPatienceMs;
      return timed({ ...request, patienceMs }, (timeoutMs) => send({ ...request, timeoutMs }));
    };
  };
  const login = pgSql();
  const real: ProviderPorts = {
    http: http(vendors.network.proxyUrl),
    sql: (session) => {
      const patienceMs = isLoginLost ? shortPatienceMs : longPatienceMs;
      return timed({ ...session, patienceMs }, (timeoutMs) => login({ ...session, timeoutMs }));
    },
    now: async () => clock.now(),
    // A little real time too, so that what a stand-in does late gets done.
    sleep: async (ms) => {
      waits.push(ms);
      clock.move(ms);
      await pause(2);
    },
    randomBytes: async (size) => new Uint8Array(size),
  };
  /** A provider has no other ports than these. */
  const ports: TestVendors['ports'] = (until, replaced = {}) => {
    const recorded = interpose({ ...real, ...replaced } as Ports, async (name, request, call) => {
      show(request);
      if (name === 'http') {
        const { method, url } = request as HttpRequest;
        requests.push({ method, url: url.href, isLate: clock.now() >= until });
      }
      if (name === 'sql') statements.push((request as SqlSession).statements.map(({ text }) => text));
      try {
        return show(await call());
      } catch (error) {
        throw show(error);
      }
    });
    return new Proxy(recorded, {
      get(target, name, receiver) {
        if (name in target) return Reflect.get(target, name, receiver);
        throw new Error(`a provider used ${String(name)}, which is none of its ports`);
      },
    });
  };

  const all: TestVendors = {
    ...vendors,
    clock,
    apiKeys,
    ports,
    http,
    waits,
    requests,
    statements,
    keepSecret,
    watch: (provider) =>
      new Proxy(provider, {
        get(target, name, receiver) {
          const member: unknown = Reflect.get(target, name, receiver);
          if (typeof member !== 'function') return member;
          return async (...given: unknown[]) => {
            try {
              return show(await member(...given));
            } catch (error) {
              throw show(error);
            }
          };
        },
      }),
    faultLogins(front, fault) {
      isLoginLost ||= fault.kind === 'no-answer';
      front.faults.inject(fault);
    },
    async connect({ host, port, database, username, password, ca }, applicationName) {
      const client = new pg.Client({
        host,
        port,
        database,
        user: username,
        password: password.reveal(),
        application_name: applicationName,
        ssl: ca === undefined ? true : { ca },
      });
      client.on('error', () => undefined);
      await client.connect();
      clients.push(client);
      return client;
    },
    async stop() {
      await vendors.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };

  const switched = [vendors.render.api, vendors.cockroachdb.api].map(({ switches }) => ({
    switches,
    defaults: structuredClone(switches),
  }));
  return {
    vendors: all,
    leaks,
    /** Full rate-limit budgets, and nothing left of the test before. */
    begin() {
      clock.move(60_000);
      for (const kept of [waits, requests, statements]) kept.length = 0;
      forget();
      for (const key of Object.values(apiKeys)) keepSecret(key);
    },
    async end() {
      isLoginLost = false;
      for (const { switches, defaults } of switched) Object.assign(switches, structuredClone(defaults));
      for (const { api, front } of [vendors.render, vendors.cockroachdb]) {
        api.faults.clear();
        front.faults.clear();
      }
      await Promise.all(clients.splice(0).map((client) => client.end()));
    },
  };
}
