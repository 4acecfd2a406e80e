import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { inspect } from 'node:util';
import { Redis } from 'iovalkey';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { Guard } from '../../functions/core/guard.ts';
import { type HttpRequest, interpose, type Ports, type SqlSession } from '../../functions/core/ports.ts';
import type { Login, Provider } from '../../functions/core/provider.ts';
import { Sensitive, spellings } from '../../functions/core/sensitive.ts';
import { guardWrites } from '../../functions/lifecycle/guarded-write.ts';
import { undiciHttp } from '../../functions/providers/http.ts';
import { pgSql } from '../../functions/providers/sql.ts';
import { iovalkeyOverTls } from '../../functions/providers/valkey.ts';
import { type ApiKeys, startVendors, type Vendors } from '../../infra/local/vendors.ts';
import { createMovableClock } from '../infra/local/providers/stand-in.ts';

/** All vendors, on real engines where there are any, and real ports to them on a clock that only waiting moves. */
export interface TestVendors extends Vendors {
  readonly clock: ReturnType<typeof createMovableClock>;
  readonly apiKeys: ApiKeys;
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
  /** Where each session of this test was opened, by SQL or Valkey's protocol, whoever logged in. */
  readonly places: readonly Place[];
  /** By which port each change of this test left, past its guard. */
  readonly changes: readonly string[];
  /** Forgets what was recorded and shown so far: for runs of many days, whose calls need more room than there is. */
  forget(): void;
  /** Takes a value as a secret, which may be seen nowhere. */
  keepSecret(value: string): void;
  /** The same provider; what it returns and throws is kept for the leak check. */
  watch<P extends Provider>(provider: P): P;
  /** A login fault; those that leave the client without an answer shorten its patience. */
  faultLogins<Fault extends { readonly kind: string }>(front: Faultable<Fault>, fault: Fault): void;
  /** Whether the login works for an application right now, rights included; asked past rekey. */
  logsIn(login: Login): Promise<boolean>;
  /** A session of an application, ended with the test. */
  connect(login: Login, applicationName: string): Promise<pg.Client>;
  /** The same where consumers speak Valkey's protocol. */
  connectToValkey(login: Login): Promise<Redis>;
}

/** What logins go through. */
interface Faultable<Fault> {
  readonly faults: { inject(fault: Fault): void };
}

type ProviderPorts = Pick<Ports, 'http' | 'sql' | 'valkey' | 'now' | 'sleep' | 'randomBytes'>;

/** The reasons of a write that nothing speaks against. */
export const holding = Guard.of();

/** Whether a request may change something. Milvus reads by POST, too. */
export const isWrite = ({ method, url }: RecordedRequest): boolean =>
  method !== 'GET' && !/\/v2\/vectordb\/\w+\/(list|describe)$/.test(url);

export interface RecordedRequest {
  readonly method: HttpRequest['method'];
  readonly url: string;
  /** Whether it was started when the invocation had no time left. */
  readonly isLate: boolean;
}

export type Place = Pick<SqlSession, 'host' | 'port' | 'ca'>;

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
    const apis: readonly Judged[] = apisOf(vendors);
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
      for (const [, password = ''] of value.reveal().matchAll(/"(?:newP|p)assword":"([^"\\]+)"/g))
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

const apisOf = ({ render, cockroachdb, vultr, zilliz }: Vendors) => [
  render.api,
  cockroachdb.api,
  vultr.api,
  zilliz.api,
];

/** Whether a request carries the reasons of a change. */
export const isChange = (request: unknown): boolean =>
  typeof request === 'object' && request !== null && 'guard' in request && request.guard instanceof Guard;

async function startTestVendors() {
  const directory = await mkdtemp(join(tmpdir(), 'rekey-vendors-'));
  await chmod(directory, 0o755); // the engines run as another user where this one is root
  const clock = createMovableClock('2026-03-01T12:00:00.123Z');
  const apiKeys = {
    render: 'rnd_canaryRenderKey0123456789',
    cockroachdb: 'CCDB1_canaryCockroachKey0123',
    vultr: 'CANARYVULTRKEY0123456789ABCDEFGHIJKL',
    zilliz: 'canaryZillizKey0123456789abcdef',
  };
  const { keepSecret, showText, show, leaks, forget } = createLeakCheck();
  const vendors = await startVendors({ directory, clock, apiKeys, log: showText });
  setDefaultCACertificates([...getCACertificates('default'), vendors.network.caPem]);

  const waits: number[] = [];
  const requests: RecordedRequest[] = [];
  const statements: (readonly string[])[] = [];
  const places: Place[] = [];
  const changes: string[] = [];
  const clients: pg.Client[] = [];
  const valkeyClients: Redis[] = [];
  let isLoginLost = false;

  const isAnswerLost = (): boolean =>
    apisOf(vendors).some(({ faults }) => faults.pending().some(({ kind }) => kind.startsWith('timeout')));
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
  const openSql = pgSql(() => clock.now());
  const openValkey = iovalkeyOverTls(() => clock.now());
  const real: ProviderPorts = {
    http: http(vendors.network.proxyUrl),
    sql: (session) => {
      const patienceMs = isLoginLost ? shortPatienceMs : longPatienceMs;
      return timed({ ...session, patienceMs }, (timeoutMs) => openSql({ ...session, timeoutMs }));
    },
    valkey: (session) => {
      const patienceMs = isLoginLost ? shortPatienceMs : longPatienceMs;
      return timed({ ...session, patienceMs }, (timeoutMs) => openValkey({ ...session, timeoutMs }));
    },
    now: async () => clock.now(),
    // A little real time too, so that what a stand-in does late gets done.
    sleep: async (ms) => {
      waits.push(ms);
      clock.move(ms);
      await pause(2);
    },
    // No jitter, so that waits can be told to the millisecond.
    randomBytes: async (size) => (size === 1 ? new Uint8Array(size) : randomBytes(size)),
  };
  /** A provider has no other ports than these. Writes pass the seam that every deployed one passes. */
  const ports: TestVendors['ports'] = (until, replaced = {}) => {
    const recorded = interpose({ ...real, ...replaced } as Ports, async (name, request, call) => {
      show(request);
      if (isChange(request)) changes.push(name);
      if (name === 'http') {
        const { method, url } = request as HttpRequest;
        requests.push({ method, url: url.href, isLate: clock.now() >= until });
      }
      if (name === 'sql' || name === 'valkey') {
        const { host, port, ca } = request as Place;
        places.push({ host, port, ...(ca === undefined ? {} : { ca }) });
      }
      if (name === 'sql') statements.push((request as SqlSession).statements.map(({ text }) => text));
      try {
        return show(await call());
      } catch (error) {
        throw show(error);
      }
    });
    const guarded = Object.entries(guardWrites(recorded, () => clock.now())).filter(
      ([name]) => name in recorded,
    );
    return new Proxy(Object.fromEntries(guarded) as unknown as Ports, {
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
    places,
    changes,
    forget() {
      for (const kept of [waits, requests, statements, places, changes]) kept.length = 0;
      forget();
      for (const key of Object.values(apiKeys)) keepSecret(key);
    },
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
    async logsIn(login) {
      const { host, port, username, password } = login;
      if (port === vendors.vultr.front.port) {
        const outcome = await openValkey({
          ...login,
          commands: [['GET', 'orders:latest']],
          timeoutMs: 10_000,
          guard: 'reads-only',
        });
        const [reply] = outcome.say === 'accepted' ? outcome.replies : [];
        return reply !== undefined && 'value' in reply;
      }
      const cluster = [...vendors.zilliz.api.clusters.values()].find((one) => one.host === host);
      if (cluster === undefined) {
        const statements = [{ text: 'SELECT count(*) FROM orders' }];
        const session = { ...login, statements, timeoutMs: 10_000 };
        return (await openSql({ ...session, guard: 'reads-only' })).say === 'accepted';
      }
      const roles = cluster.users().find((user) => user.username === username)?.roles;
      return cluster.authenticates(username, password.reveal()) && roles?.includes('orders_rw') === true;
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
    async connectToValkey({ host, port, username, password, ca }) {
      const client = new Redis({
        host,
        port,
        tls: ca === undefined ? {} : { ca },
        lazyConnect: true,
        enableReadyCheck: false,
        enableOfflineQueue: false,
        retryStrategy: () => null,
      });
      client.on('error', () => undefined);
      await client.connect();
      valkeyClients.push(client);
      await client.call('AUTH', username, password.reveal());
      return client;
    },
    async stop() {
      await vendors.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };

  const switched = apisOf(vendors).map(({ switches }) => ({
    switches,
    defaults: structuredClone(switches),
  }));
  return {
    vendors: all,
    leaks,
    /** Full rate-limit budgets, and nothing left of the test before. */
    begin() {
      clock.move(60_000);
      all.forget();
    },
    async end() {
      isLoginLost = false;
      for (const { switches, defaults } of switched) Object.assign(switches, structuredClone(defaults));
      for (const { faults } of apisOf(vendors)) faults.clear();
      for (const { front } of [vendors.render, vendors.cockroachdb, vendors.vultr]) front.faults.clear();
      for (const client of valkeyClients.splice(0)) client.disconnect();
      await Promise.all(clients.splice(0).map((client) => client.end()));
    },
  };
}
