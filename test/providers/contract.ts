import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { describe, expect, test } from 'vitest';
import {
  type ProviderCode,
  ProviderError,
  RotationRefused,
  VerificationFailed,
} from '../../functions/core/errors.ts';
import { Guard } from '../../functions/core/guard.ts';
import type { interpose, Ports } from '../../functions/core/ports.ts';
import type {
  Capabilities,
  ChoosingProvider,
  IssuingProvider,
  Login,
  Provider,
  UserPassword,
} from '../../functions/core/provider.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import type { Postgres } from '../../infra/local/engines/postgres.ts';
import { type LoginFaultKind, type SqlFront, startSqlFront } from '../../infra/local/engines/sql-front.ts';
import { createCertificateAuthority, startNetwork } from '../../infra/local/network.ts';
import type { FaultKind } from '../../infra/local/providers/faults.ts';
import { holding, isWrite, type TestVendors } from '../support/vendors.ts';

/** What is asked of a vendor, in words that no vendor uses. */
export type Operation = 'readiness' | 'list' | 'create' | 'remove' | 'setPassword';

/** A fault, for the first call unless it says otherwise. */
export type Trouble = FaultKind & { readonly times?: number; readonly skip?: number };

export interface OpenOptions {
  /** Of simulated time. @default 3 minutes */
  readonly budgetMs?: number;
  /** @default the valid one */
  readonly apiKey?: string;
  /** @default the way to the stand-ins */
  readonly http?: Ports['http'];
  /** @default the way to the stand-ins */
  readonly sql?: Ports['sql'];
  /** What every port is led through. @default nothing */
  readonly around?: Parameters<typeof interpose>[1];
}

/** One vendor on its stand-in, and what is quirky about it. */
export interface Subject<P extends Provider = Provider> {
  readonly vendors: TestVendors;
  /** Of the API that is asked first. */
  readonly host: string;
  /** Of the vendor's other APIs. @default none */
  readonly otherHosts?: readonly string[];
  open(options?: OpenOptions): P;
  /** Brings a user into being the way a rotation does; asked again, comes back with the same login. */
  bring(provider: P, username: string): Promise<Login>;
  /** Afterwards nothing at the vendor keeps the user from being deleted. */
  supersede(username: string): Promise<void>;
  inject(operation: Operation, trouble: Trouble): void;
  /** How often the vendor was asked for it in this test. */
  calls(operation: Operation): number;
  /** Everybody whom the vendor has, whatever it lists. */
  usernames(): Promise<readonly string[]>;
  /** A person deletes the user, past rekey. */
  deletedBySomebody(username: string): Promise<void>;
  /** One reading of the list, after so many others, is older than every user of ours. */
  listIsStale(skip?: number): void;
  /** Deletions reach the list so much later. */
  listLagsMs(ms: number): void;
  /** Names that stand in the list besides. */
  alsoListed(names: readonly string[]): void;
  /** Listed from the start, and never to be written to. */
  protectedUsers(): readonly string[];
  /** Why users may not be changed now, by what was done to the target. */
  readonly notReady: Readonly<
    Record<string, { readonly given: () => void; readonly reason: string; readonly isGone?: true }>
  >;
  /** Statuses under which the vendor says that it was asked too often. */
  readonly rateLimitStatuses: readonly number[];
  /** An application connects as this user and stays; nothing happens where nobody can. */
  linger(login: Login): Promise<unknown>;
  /** Somebody changes the rights of the user. @default a vendor with the same rights for everybody */
  drift?(username: string): Promise<unknown>;
  /** The provider with whatever the vendor asks of those who end sessions. @default as it is */
  ending?(options?: OpenOptions): P;
  readonly capabilities: Capabilities;
  /** Whether reads count against what the vendor lets one key write. */
  readonly readsCount: boolean;
}

/** What a subject needs besides where consumers speak SQL. */
export interface SqlSubject<P extends Provider = Provider> extends Subject<P> {
  readonly front: SqlFront;
  readonly engine: Postgres;
  /** Makes it impossible to see who is connected. */
  blind(): void;
  /** The provider with whatever the vendor asks of those who end sessions. */
  ending(options?: OpenOptions): P;
}

let made = 0;
/** A name that was never used before. */
export const freshName = (): string => {
  made += 1;
  return `orders_${made}`;
};

/** The `ProviderError` that the work ends in. */
export async function failureOf(work: Promise<unknown>): Promise<ProviderError> {
  const error = await work.catch((thrown: unknown) => thrown);
  if (!(error instanceof ProviderError))
    expect.unreachable(`got ${error}, expected a ProviderError to be thrown`);
  return error;
}

/** Code and effect of the failure. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  const { code, effect } = await failureOf(work);
  return `${code} ${effect}`;
}

/** What the work ended in, fine or not. */
const endOf = (work: Promise<unknown>): Promise<unknown> => work.catch((thrown: unknown) => thrown);

/** A user of ours that may be deleted. */
async function deletable(subject: Subject, provider = subject.open()): Promise<Login> {
  const login = await subject.bring(provider, freshName());
  await subject.supersede(login.username);
  return login;
}

const isThere = async (subject: Subject, { username }: { username: string }): Promise<boolean> =>
  (await subject.usernames()).includes(username);

/** What was sent to change something. */
const writesOf = ({ vendors }: Subject) => vendors.requests.filter(isWrite);

/** The same answer for every call from now on. */
const always = { times: Number.POSITIVE_INFINITY };

/** The vendor did it, and we were not told. */
const lostAnswers: Record<string, Trouble> = {
  'no answer came': { kind: 'timeout-after-apply' },
  'the connection was reset': { kind: 'reset-after-apply' },
  'the answer broke off': { kind: 'reset-mid-body' },
  'a 500 was answered': { kind: 'status', status: 500, applied: true, json: { message: 'internal error' } },
  'a 503 was answered': { kind: 'status', status: 503, applied: true },
  'a gateway answered with a page': { kind: 'html-body', applied: true },
  'a page came in place of the answer': { kind: 'html-body', status: 200, applied: true },
  'half the answer came': { kind: 'half-json' },
  'an empty answer came': { kind: 'empty-body' },
  'the answer did not end': { kind: 'huge-body', bytes: 2_000_000 },
};

/** The vendor did not do it, and we cannot know. */
const lostRequests: Record<string, Trouble> = {
  'no answer came': { kind: 'timeout-before' },
  'the connection was reset': { kind: 'reset-before' },
  'a 500 was answered': { kind: 'status', status: 500, json: { message: 'internal error' } },
  'a 503 was answered': { kind: 'status', status: 503 },
  'a gateway answered with a page': { kind: 'html-body' },
  'a page came in place of the answer': { kind: 'html-body', status: 200 },
};

/** Operations as callers of a provider know them; the user may be deleted. */
const asked = {
  readiness: (provider) => provider.readiness(),
  list: (provider) => provider.listUsers(),
  create: (provider, subject) => subject.bring(provider, freshName()),
  remove: (provider, _subject, username) => provider.deleteUser(username, holding),
} as const satisfies Partial<
  Record<Operation, (provider: Provider, subject: Subject, username: string) => Promise<unknown>>
>;
const operations = Object.keys(asked) as (keyof typeof asked)[];

/** Names that a database may hold and a URL must not (`..` is the database itself). */
const oddNames = [
  ...['..', '.', '', 'a/b', '%2e%2e', '.%2e', 'x y', 'ä', "o'brien", 'a;b', '-x', 'x\n', '\\', 'a?b', 'a#b'],
  'a'.repeat(64),
];

/** What every provider owes to the rest of rekey, whatever its vendor does. */
export function providerContract(name: string, make: () => Subject): void {
  describe(`${name}: readiness`, () => {
    test('users may be changed while the target is up', async () => {
      expect(await make().open().readiness()).toEqual({ ready: true });
    });

    test('every state in which users may not be changed is told, with its reason', async () => {
      const subject = make();
      for (const [state, { given, ...why }] of Object.entries(subject.notReady)) {
        given();
        expect(await subject.open().readiness(), state).toEqual({ ready: false, ...why });
      }
    });
  });

  describe(`${name}: the list`, () => {
    test('holds every user', async () => {
      const subject = make();
      const provider = subject.open();
      const logins = [
        await subject.bring(provider, freshName()),
        await subject.bring(provider, freshName()),
        await subject.bring(provider, freshName()),
      ];
      const listed = (await provider.listUsers()).map(({ username }) => username);
      expect(listed).toEqual(expect.arrayContaining(logins.map(({ username }) => username)));
      expect(new Set(listed).size).toBe(listed.length);
    });

    test('marks users that are never to be written to, and only those', async () => {
      const subject = make();
      const ours = await deletable(subject);
      const users = await subject.open().listUsers();
      const protectedUsers = users.filter(({ isProtected }) => isProtected).map(({ username }) => username);
      expect(protectedUsers).toEqual(expect.arrayContaining([...subject.protectedUsers()]));
      expect(protectedUsers).not.toContain(ours.username);
    });

    test('marks names that could address something else than a user', async () => {
      const subject = make();
      subject.alsoListed(oddNames);
      const users = await subject.open().listUsers();
      const unmarked = users.filter(
        ({ username, isProtected }) => oddNames.includes(username) && !isProtected,
      );
      expect(users.some(({ username }) => username === '..')).toBe(true);
      expect(unmarked).toEqual([]);
    });

    const unreadable: Record<string, { given: Trouble; code: ProviderCode; says: RegExp }> = {
      'an empty answer': {
        given: { kind: 'empty-body' },
        code: 'UNREADABLE',
        says: /got status 200 \(document: .*expected (array|object), received undefined\)/,
      },
      'a page in HTML': {
        given: { kind: 'html-body', status: 200 },
        code: 'UNREADABLE',
        says: /got status 200 \(document: .*expected (array|object), received undefined\)/,
      },
      'half an answer': {
        given: { kind: 'half-json' },
        code: 'UNREADABLE',
        says: /got status 200 \(document: .*expected (array|object), received undefined\)/,
      },
      'an answer of another shape': {
        given: { kind: 'status', status: 200, json: { users: 'none', error: null } },
        code: 'UNREADABLE',
        says: /got status 200 \(\w+: .*expected array, received/,
      },
      'an answer that does not end': {
        given: { kind: 'huge-body', bytes: 2_000_000 },
        code: 'UNAVAILABLE',
        says: /an answer of more than 1048576 bytes/,
      },
      'a page of a gateway': {
        given: { kind: 'html-body' },
        code: 'UNAVAILABLE',
        says: /got status 502/,
      },
      'a server error': {
        given: { kind: 'status', status: 500, json: { message: 'internal error' } },
        code: 'UNAVAILABLE',
        says: /got status 500 \(internal error\)/,
      },
      'a cut connection': { given: { kind: 'reset-before' }, code: 'UNAVAILABLE', says: /no connection/ },
      'an unknown target': {
        given: { kind: 'status', status: 404, json: { message: 'not found' } },
        code: 'NOT_FOUND',
        says: /got status 404 \(not found\); check the target/,
      },
    };
    test.each(Object.entries(unreadable))(
      'is not guessed from %s: the error says what came',
      async (_what, { given, code, says }) => {
        const subject = make();
        subject.inject('list', { ...given, ...always });
        const error = await failureOf(subject.open().listUsers());
        expect([error.code, error.effect, error.facts.operation]).toEqual([code, 'none', 'listUsers']);
        expect(error.message).toMatch(says);
      },
    );

    test.each(['timeout-before', 'reset-before', 'reset-mid-body', 'html-body'] as const)(
      'is asked for again after %s, as reading changes nothing',
      async (kind) => {
        const subject = make();
        subject.inject('list', { kind });
        expect(await subject.open().listUsers()).not.toEqual([]);
        expect(subject.calls('list')).toBe(2);
      },
    );

    test('creates and deletes nobody while it cannot be read', async () => {
      const subject = make();
      const { username } = await deletable(subject);
      const before = subject.calls('create');
      subject.inject('list', { kind: 'status', status: 500, ...always });
      const provider = subject.open({ budgetMs: 60_000 });
      expect(await codeOf(subject.bring(provider, freshName()))).toBe('UNAVAILABLE none');
      expect(await codeOf(provider.deleteUser(username, holding))).toBe('UNAVAILABLE none');
      expect([subject.calls('create') - before, subject.calls('remove')]).toEqual([0, 0]);
    });
  });

  describe(`${name}: the endpoint`, () => {
    test('is where users log in, whoever they are; asking changes nothing and shows no login', async () => {
      const subject = make();
      const { username: _username, password: _password, ...where } = await deletable(subject);
      const before = writesOf(subject).length;
      expect(await subject.open().endpoint()).toEqual(where);
      expect(writesOf(subject).length).toBe(before);
    });
  });

  describe(`${name}: the budget of a rotation`, () => {
    test('covers the life of a user, from the first look to its deletion', async () => {
      const subject = make();
      const spent = () => (subject.readsCount ? subject.vendors.requests.length : writesOf(subject).length);
      // Every step is an invocation of its own.
      await subject.open().readiness();
      await subject.open().endpoint();
      const login = await subject.bring(subject.open(), freshName());
      for (const _step of ['setSecret', 'testSecret', 'finishSecret']) {
        const provider = subject.open();
        await provider.endpoint();
        await provider.verify(login);
        await provider.privilegeDifferences(login);
      }
      const beforeOthers = spent();
      await subject.supersede(login.username);
      const others = spent() - beforeOthers;
      const retiring = subject.open();
      await retiring.listUsers();
      await retiring.sessions(login.username, login);
      await retiring.sessions(login.username, login);
      await retiring.deleteUser(login.username, holding);
      const { writes, parallelRotations } = subject.capabilities;
      const { perMinute, perRotation } = writes;
      expect(spent() - others).toBeGreaterThanOrEqual(2);
      expect(spent() - others).toBeLessThanOrEqual(perRotation);
      expect(perMinute).toBeGreaterThanOrEqual(perRotation);
      // None at once would be none at all; more than the budget of a minute would only wait.
      expect(parallelRotations).toBeGreaterThanOrEqual(1);
      expect(parallelRotations * perRotation).toBeLessThanOrEqual(perMinute);
    });
  });

  describe(`${name}: a new user`, () => {
    test('exists once and logs in', async () => {
      const subject = make();
      const provider = subject.open();
      const login = await subject.bring(provider, freshName());
      expect(await provider.verify(login)).toBe('accepted');
      expect((await subject.usernames()).filter((username) => username === login.username)).toHaveLength(1);
      expect((await provider.listUsers()).find(({ username }) => username === login.username)).toBeDefined();
      expect(subject.calls('create')).toBe(1);
    });

    test('is the same one when it is asked for again, by another invocation too', async () => {
      const subject = make();
      const first = await subject.bring(subject.open(), freshName());
      const again = await subject.bring(subject.open(), first.username);
      expect(again).toEqual(first);
      expect(again.password.equals(first.password)).toBe(true);
      expect(await subject.open().verify(first)).toBe('accepted');
      expect(subject.calls('create')).toBe(1);
    });

    test.each(Object.entries(lostAnswers))(
      'is one, not two, when it was made and %s',
      async (_how, given) => {
        const subject = make();
        const username = freshName();
        subject.inject('create', given);
        const first = await endOf(subject.bring(subject.open(), username));
        if (first instanceof Error) expect(first).toMatchObject({ facts: { effect: 'unknown' } });
        const login = await subject.bring(subject.open(), username);
        expect(await subject.open().verify(login)).toBe('accepted');
        expect(subject.calls('create')).toBe(1);
      },
    );

    test.each(Object.entries(lostRequests))(
      'that was never made as %s is not claimed to be there, and the next call makes it',
      async (_how, given) => {
        const subject = make();
        const username = freshName();
        subject.inject('create', given);
        expect((await failureOf(subject.bring(subject.open(), username))).effect).toBe('unknown');
        expect(await subject.usernames()).not.toContain(username);
        const login = await subject.bring(subject.open(), username);
        expect(await subject.open().verify(login)).toBe('accepted');
        expect(subject.calls('create')).toBe(2);
      },
    );

    test.each([400, 404])('that was refused with a %d was certainly not made', async (status) => {
      const subject = make();
      const username = freshName();
      subject.inject('create', { kind: 'status', status, json: { message: 'no' } });
      const { effect, facts } = await failureOf(subject.bring(subject.open(), username));
      expect([effect, facts.status]).toEqual(['none', status]);
      expect(await subject.usernames()).not.toContain(username);
    });

    test('is not made a second time because one reading of the list lacks it', async () => {
      const subject = make();
      const first = await subject.bring(subject.open(), freshName());
      subject.listIsStale();
      const again = await subject.bring(subject.open(), first.username);
      expect(again.password.equals(first.password)).toBe(true);
      expect(subject.calls('create')).toBe(1);
    });
  });

  describe(`${name}: a deletion`, () => {
    test('leaves neither the user nor its login', async () => {
      const subject = make();
      const login = await deletable(subject);
      const provider = subject.open();
      expect(await provider.deleteUser(login.username, holding)).toBe('deleted');
      expect(await isThere(subject, login)).toBe(false);
      expect((await provider.listUsers()).map(({ username }) => username)).not.toContain(login.username);
      expect(await provider.verify(login)).toBe('rejected');
    });

    test('of a user that is not there says so and asks for nothing', async () => {
      const subject = make();
      const login = await deletable(subject);
      const provider = subject.open();
      await provider.deleteUser(login.username, holding);
      expect(await provider.deleteUser(login.username, holding)).toBe('absent');
      expect(await provider.deleteUser(freshName(), holding)).toBe('absent');
      expect(subject.calls('remove')).toBe(1);
    });

    test('is not skipped because one reading of the list lacks the user', async () => {
      const subject = make();
      const login = await deletable(subject);
      subject.listIsStale();
      expect(await subject.open().deleteUser(login.username, holding)).toBe('deleted');
      expect(await isThere(subject, login)).toBe(false);
    });

    test('of a user whom somebody deleted in between is done', async () => {
      const subject = make();
      const { username } = await deletable(subject);
      const run = () => subject.deletedBySomebody(username);
      subject.inject('remove', { kind: 'meanwhile', when: 'before', run });
      expect(await subject.open().deleteUser(username, holding)).toBe('deleted');
    });

    test('that is answered with a 404 is not believed while the list has the user', async () => {
      const subject = make();
      const login = await deletable(subject);
      subject.inject('remove', { kind: 'status', status: 404, json: { message: 'not found' } });
      expect(await codeOf(subject.open({ budgetMs: 30_000 }).deleteUser(login.username, holding))).toBe(
        'NOT_FOUND none',
      );
      expect(await isThere(subject, login)).toBe(true);
      expect(subject.calls('remove')).toBe(1);
    });

    test('says nothing about a user whose target is not found', async () => {
      const subject = make();
      const { username } = await deletable(subject);
      subject.inject('list', { kind: 'status', status: 404, json: { message: 'not found' }, ...always });
      expect(await codeOf(subject.open().deleteUser(username, holding))).toBe('NOT_FOUND none');
      expect(subject.calls('remove')).toBe(0);
    });

    test.each(Object.entries(lostAnswers))('is done when it was done and %s', async (_how, given) => {
      const subject = make();
      const login = await deletable(subject);
      subject.inject('remove', given);
      expect(await subject.open().deleteUser(login.username, holding)).toBe('deleted');
      expect(await isThere(subject, login)).toBe(false);
      expect(subject.calls('remove')).toBe(1);
    });

    test.each(Object.entries(lostRequests))(
      'that was not done as %s is not claimed, and the next call does it',
      async (_how, given) => {
        const subject = make();
        const login = await deletable(subject);
        subject.inject('remove', given);
        expect(await codeOf(subject.open({ budgetMs: 30_000 }).deleteUser(login.username, holding))).toMatch(
          /^(UNAVAILABLE|UNREADABLE|NOT_SETTLED) unknown$/,
        );
        expect(await isThere(subject, login)).toBe(true);
        expect(await subject.open().deleteUser(login.username, holding)).toBe('deleted');
      },
    );

    test('with an unclear answer is not believed because one reading of the list lacks the user', async () => {
      const subject = make();
      const login = await deletable(subject);
      subject.inject('remove', { kind: 'reset-before' });
      subject.listIsStale(1);
      expect(await codeOf(subject.open({ budgetMs: 30_000 }).deleteUser(login.username, holding))).toBe(
        'UNAVAILABLE unknown',
      );
      expect(await isThere(subject, login)).toBe(true);
    });

    test.each([
      ['that is not there', 'absent'],
      ['that is', 'present'],
    ] as const)('of a user %s is over before the invocation is', async (_where, is) => {
      const subject = make();
      const { username } = is === 'absent' ? { username: freshName() } : await deletable(subject);
      const waited = subject.vendors.waits.length;
      // Enough for the calls themselves, and too little for a second look at the list.
      const end = await endOf(subject.open({ budgetMs: 1_500 }).deleteUser(username, holding));
      expect(end).toMatchObject({
        facts:
          is === 'absent'
            ? { code: 'UNAVAILABLE', effect: 'none', operation: 'deleteUser' }
            : { code: 'NOT_SETTLED', effect: 'unknown', operation: 'deleteUser' },
      });
      expect(subject.vendors.waits.slice(waited)).toEqual([]);
      expect(subject.calls('remove')).toBe(is === 'absent' ? 0 : 1);
    });

    test('that the vendor took is not said to have changed nothing because the list fails after it', async () => {
      const subject = make();
      const { username } = await deletable(subject);
      const run = async () =>
        subject.inject('list', { kind: 'status', status: 403, json: { message: 'no' }, ...always });
      subject.inject('remove', { kind: 'meanwhile', run });
      const error = await failureOf(subject.open().deleteUser(username, holding));
      expect([error.code, error.effect]).toEqual(['NOT_SETTLED', 'unknown']);
      expect(error.message).toContain('(UNAUTHORIZED)');
    });

    test('waits until the list agrees', async () => {
      const subject = make();
      const { username } = await deletable(subject);
      subject.listLagsMs(20_000);
      const start = subject.vendors.clock.now().getTime();
      expect(await subject.open().deleteUser(username, holding)).toBe('deleted');
      expect(subject.vendors.clock.now().getTime() - start).toBeGreaterThanOrEqual(20_000);
      expect(subject.calls('remove')).toBe(1);
    });

    test('is not called done while the list still has the user', async () => {
      const subject = make();
      const { username } = await deletable(subject);
      subject.listLagsMs(86_400_000);
      expect(await codeOf(subject.open({ budgetMs: 60_000 }).deleteUser(username, holding))).toBe(
        'NOT_SETTLED unknown',
      );
      expect(subject.calls('remove')).toBe(1);
    });
  });

  describe(`${name}: whom it never writes to`, () => {
    const writes = (provider: Provider, username: string): Record<string, () => Promise<unknown>> => {
      const password = new Sensitive('Canary-password_000000000000001');
      const login = { host: 'localhost', port: 1, database: 'defaultdb', username, password };
      return {
        delete: () => provider.deleteUser(username, holding),
        ...(provider.passwords === 'chosen-by-us'
          ? {
              create: () => provider.createUser(login, holding),
              'set the password of': () =>
                provider.setPassword({ username, current: [], next: password }, holding),
              'change the privileges of': () => provider.applyPrivileges(login, holding),
            }
          : {
              issue: () => provider.issueUser(username, holding),
              place: () => provider.placeDefault(username, holding),
            }),
      };
    };

    test('names that are no user names are refused before any request', async () => {
      const subject = make();
      for (const username of oddNames)
        for (const [what, write] of Object.entries(writes(subject.open(), username)))
          expect(await codeOf(write()), `${what} ${JSON.stringify(username)}`).toBe('NAME_REFUSED none');
      expect([subject.vendors.requests, subject.vendors.statements]).toEqual([[], []]);
    });

    test('nor when the vendor lists them', async () => {
      const subject = make();
      subject.alsoListed(oddNames);
      for (const { username } of await subject.open().listUsers())
        if (oddNames.includes(username))
          expect(await codeOf(subject.open().deleteUser(username, holding)), username).toBe(
            'NAME_REFUSED none',
          );
      expect(writesOf(subject)).toEqual([]);
    });

    test('protected users are refused before anything is changed', async () => {
      const subject = make();
      for (const username of subject.protectedUsers())
        expect(await codeOf(subject.open().deleteUser(username, holding)), username).toMatch(
          /^(NAME_REFUSED|BLOCKED) none$/,
        );
      expect(writesOf(subject)).toEqual([]);
    });
  });

  describe(`${name}: being asked too often`, () => {
    const patient: readonly (keyof typeof asked)[] = operations.filter((operation) => operation !== 'remove');
    test.each(patient)('makes %s wait as long as the vendor says', async (operation) => {
      const subject = make();
      for (const status of subject.rateLimitStatuses) {
        const { username } = await deletable(subject);
        const before = subject.calls(operation);
        subject.inject(operation, { kind: 'rate-limited', retryAfter: 7, status });
        await asked[operation](subject.open(), subject, username);
        expect(subject.vendors.waits, `status ${status}`).toContain(7_000);
        expect(subject.calls(operation) - before).toBeGreaterThanOrEqual(2);
      }
    });

    test('ends a deletion at once: what was true before a wait may not be true after it', async () => {
      const subject = make();
      for (const status of subject.rateLimitStatuses) {
        const login = await deletable(subject);
        const [removals, waits] = [subject.calls('remove'), subject.vendors.waits.length];
        subject.inject('remove', { kind: 'rate-limited', retryAfter: 7, status });
        const { code } = await failureOf(subject.open().deleteUser(login.username, holding));
        const after = [code, subject.calls('remove') - removals, subject.vendors.waits.length - waits];
        expect(after, `status ${status}`).toEqual(['RATE_LIMITED', 1, 0]);
        expect(await isThere(subject, login)).toBe(true);
      }
    });

    test('obeys a date too', async () => {
      const subject = make();
      const { clock, waits } = subject.vendors;
      for (const status of subject.rateLimitStatuses) {
        const retryAfter = new Date(clock.now().getTime() + 9_000);
        subject.inject('list', { kind: 'rate-limited', retryAfter, status });
        await subject.open().listUsers();
        expect(waits.at(-1), `status ${status}`).toBeGreaterThan(7_000);
        expect(clock.now().getTime()).toBeGreaterThanOrEqual(Math.floor(retryAfter.getTime() / 1000) * 1000);
      }
    });

    test('waits of its own accord where the vendor does not say how long', async () => {
      const subject = make();
      for (const [count, status] of subject.rateLimitStatuses.entries()) {
        subject.inject('list', { kind: 'rate-limited', status });
        await subject.open().listUsers();
        expect(subject.vendors.waits, `status ${status}`).toHaveLength(count + 1);
        expect(subject.vendors.waits.at(-1)).toBeGreaterThanOrEqual(500);
      }
    });

    test.each(operations)('ends %s where the wait would outlive the invocation', async (operation) => {
      const subject = make();
      const { username } = await deletable(subject);
      const before = subject.calls(operation);
      const start = subject.vendors.clock.now().getTime();
      subject.inject(operation, { kind: 'rate-limited', retryAfter: 86_400, ...always });
      const error = await failureOf(asked[operation](subject.open(), subject, username));
      expect([error.code, error.effect, error.facts.retryAfterMs]).toEqual([
        'RATE_LIMITED',
        'none',
        86_400_000,
      ]);
      expect(subject.calls(operation) - before).toBe(1);
      expect(subject.vendors.clock.now().getTime() - start).toBeLessThan(60_000);
    });

    test('sends nothing beyond the budget of the invocation', async () => {
      const subject = make();
      subject.inject('list', { kind: 'rate-limited', retryAfter: 10, ...always });
      expect(await codeOf(subject.open({ budgetMs: 25_000 }).listUsers())).toBe('RATE_LIMITED none');
      expect(subject.calls('list')).toBe(3);
    });

    test('starts nothing in an invocation that is over', async () => {
      const subject = make();
      const provider = subject.open({ budgetMs: 0 });
      for (const operation of operations)
        expect(await codeOf(asked[operation](provider, subject, freshName())), operation).toBe(
          'UNAVAILABLE none',
        );
      expect(operations.map((operation) => subject.calls(operation))).toEqual([0, 0, 0, 0]);
    });
  });

  describe(`${name}: a refusal of the API key`, () => {
    const cases = operations.flatMap((operation) => [401, 403].map((status) => ({ operation, status })));
    test.each(cases)(
      'with $status on $operation is never taken for absence',
      async ({ operation, status }) => {
        const subject = make();
        const login = await deletable(subject);
        const before = subject.calls(operation);
        subject.inject(operation, { kind: 'status', status, json: { message: 'no' }, ...always });
        const error = await failureOf(asked[operation](subject.open(), subject, login.username));
        expect([error.code, error.effect, error.facts.status]).toEqual(['UNAUTHORIZED', 'none', status]);
        expect(await isThere(subject, login)).toBe(true);
        expect(subject.calls(operation) - before).toBe(1);
      },
    );

    test('that was revoked stops everything', async () => {
      const subject = make();
      const provider = subject.open({ apiKey: 'revoked_canaryKey0123456789' });
      for (const operation of operations)
        expect(await codeOf(asked[operation](provider, subject, freshName())), operation).toBe(
          'UNAUTHORIZED none',
        );
    });

    test('leaves no trace of the key where the vendor repeats it', async () => {
      const subject = make();
      const apiKey = 'echoed+canary/Key=0123456789';
      const json = { message: `unknown key ${apiKey} ${encodeURIComponent(apiKey)}` };
      subject.vendors.keepSecret(apiKey);
      const http: Ports['http'] = async () => ({
        status: 401,
        headers: {},
        body: new Sensitive(JSON.stringify(json)),
      });
      const error = await failureOf(subject.open({ apiKey, http }).listUsers());
      expect(error.message).toContain('unknown key ‹redacted› ‹redacted›');
    });
  });

  describe(`${name}: the way to the vendor`, () => {
    test.each(operations)('does not follow a redirect of %s', async (operation) => {
      const subject = make();
      const { username } = await deletable(subject);
      subject.inject(operation, { kind: 'redirect-307', ...always });
      const error = await failureOf(asked[operation](subject.open(), subject, username));
      expect([error.effect, error.facts.status]).toEqual(['none', 307]);
      expect(error.message).toContain('a redirect, which is never followed');
      const hosts = subject.vendors.requests.map(({ url }) => new URL(url).host);
      expect(hosts.filter((host) => ![subject.host, ...(subject.otherHosts ?? [])].includes(host))).toEqual(
        [],
      );
    });

    const impostors: Record<
      string,
      (vendors: TestVendors) => Parameters<typeof startNetwork>[0]['authority']
    > = {
      'another name': ({ network }) => ({
        caPem: network.caPem,
        certificate: () => network.certificate(['elsewhere.example']),
      }),
      'an unknown authority': () => undefined,
    };
    test.each(Object.entries(impostors))(
      'sends nothing to an API with a certificate of %s',
      async (_whose, authorityOf) => {
        const subject = make();
        const { vendors } = subject;
        const hosts: (string | undefined)[] = [];
        const authority = authorityOf(vendors);
        const network = await startNetwork({
          hosts: {
            [subject.host]: ({ headers }, response) => {
              hosts.push(headers.host);
              response.end();
            },
          },
          ...(authority === undefined ? {} : { authority }),
        });
        const provider = subject.open({ http: vendors.http(network.proxyUrl) });
        const error = await failureOf(provider.listUsers());
        await network.close();
        expect(error.message).toMatch(/no connection \((ERR_TLS_|CERT_|UNABLE_TO_|SELF_SIGNED)/);
        expect(hosts).toEqual([]);
      },
    );
  });

  describe(`${name}: a login`, () => {
    /** A place of an attacker's, and how often somebody came. */
    async function trap() {
      let visits = 0;
      const server = createServer((socket) => {
        visits += 1;
        socket.on('error', () => undefined);
        socket.destroy();
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      const where = { host: 'localhost', port, database: 'elsewhere', ca: 'an attacker’s own CA' };
      return { where, visits: () => visits, close: () => server.close() };
    }

    test('goes nowhere but home, whatever address a stored one has', async () => {
      const subject = make();
      const { where, visits, close } = await trap();
      const login = await subject.bring(subject.open(), freshName());
      const current = await subject.bring(subject.open(), freshName());
      await subject.supersede(login.username);
      /** As a secret that somebody wrote would say. */
      const forged = { ...login, ...where };
      const stolen = { ...current, ...where };
      const later = new Date('2100-01-01T00:00:00Z');
      for (const provider of [subject.open(), subject.ending?.() ?? subject.open()]) {
        expect(await provider.verify(forged)).toBe('accepted');
        expect(await provider.privilegeDifferences(forged)).toEqual([]);
        if (provider.passwords === 'chosen-by-us') {
          await provider.applyPrivileges(forged, holding);
          expect(await provider.createUser(forged, holding)).toBe('exists');
        }
        for (const asker of [forged, stolen]) {
          await provider.sessions(login.username, asker);
          await provider.endSessions(login.username, asker, later, holding);
        }
      }
      const provider = subject.ending?.() ?? subject.open();
      expect(await provider.deleteUser(login.username, holding, forged)).toBe('deleted');
      close();
      expect(visits()).toBe(0);
    });
  });

  describe(`${name}: the reasons of a write`, () => {
    const later = new Date('2100-01-01T00:00:00Z');
    type Work = (provider: Provider, login: Login, guard: Guard) => Promise<unknown>;
    const fresh = (provider: Provider, guard: Guard): Promise<unknown> => {
      const username = freshName();
      const password = new Sensitive('Fresh-password_0000000000000001');
      return provider.passwords === 'chosen-by-us'
        ? provider.createUser({ username, password }, guard)
        : provider.issueUser(username, guard);
    };
    const choosing =
      (work: (provider: ChoosingProvider, login: Login, guard: Guard) => Promise<unknown>): Work =>
      async (provider, login, guard) =>
        provider.passwords === 'chosen-by-us' ? work(provider, login, guard) : 'not done here';
    const next = new Sensitive('Next-password_00000000000000001');
    const works: Record<string, Work> = {
      'a creation': (provider, _login, guard) => fresh(provider, guard),
      'a placeholder': async (provider, _login, guard) =>
        provider.passwords === 'chosen-by-provider'
          ? provider.placeDefault(freshName(), guard)
          : 'not done here',
      'a deletion': (provider, { username }, guard) => provider.deleteUser(username, guard),
      'ending sessions': (provider, login, guard) =>
        provider.endSessions(login.username, login, later, guard),
      'a new password': choosing((provider, { username, password }, guard) =>
        provider.setPassword({ username, current: [password], next }, guard),
      ),
      'a new password of an idle user': choosing((provider, { username }, guard) =>
        provider.setPassword({ username, current: [], next, isIdle: true }, guard),
      ),
      'the privileges': choosing((provider, login, guard) => provider.applyPrivileges(login, guard)),
    };

    test.each(Object.entries(works))(
      'are read again before each call of %s, and nothing leaves once one is gone',
      async (what, work) => {
        const subject = make();
        const { changes, clock } = subject.vendors;
        // After each change so much time passes that the answer about its reasons is no longer fresh.
        const around: OpenOptions['around'] = async (_name, _request, call) => {
          const before = changes.length;
          try {
            return await call();
          } finally {
            if (changes.length > before) clock.move(3_000);
          }
        };
        for (let allowed = 0; ; allowed += 1) {
          const login = await deletable(subject);
          if (what === 'the privileges') await subject.drift?.(login.username);
          const options = { around, budgetMs: 600_000 };
          const isAdmins = what === 'the privileges' || what === 'ending sessions';
          const provider = (isAdmins ? subject.ending?.(options) : undefined) ?? subject.open(options);
          const before = changes.length;
          const sent = () => changes.length - before;
          const guard = Guard.of(async () => (sent() < allowed ? undefined : 'a label moved'));
          const end = await endOf(work(provider, login, guard));
          if (!(end instanceof RotationRefused)) {
            expect(end).not.toBeInstanceOf(Error);
            expect(sent(), 'changes of a call that was let through').toBeLessThan(allowed + 1);
            return;
          }
          expect([end.code, sent()]).toEqual(['SUPERSEDED', allowed]);
          expect(end.message).toContain('a label moved; this write was not sent');
          expect(allowed).toBeLessThan(12);
        }
      },
    );

    test('are read again after a wait for the vendor: what waited is not sent', async () => {
      const subject = make();
      subject.inject('create', { kind: 'rate-limited', retryAfter: 7 });
      let looks = 0;
      const guard = Guard.of(async () => {
        looks += 1;
        return looks === 1 ? undefined : 'a label moved';
      });
      const before = await subject.usernames();
      const end = await endOf(fresh(subject.open(), guard));
      expect(end).toMatchObject({ name: 'RotationRefused', code: 'SUPERSEDED' });
      expect([subject.calls('create'), looks]).toEqual([1, 2]);
      expect(await subject.usernames()).toEqual(before);
    });
  });

  describe(`${name}: sessions seen with another user’s login`, () => {
    test('are never said to be none while there are some', async () => {
      const subject = make();
      const provider = subject.open();
      const gone = await subject.bring(provider, freshName());
      const current = await subject.bring(provider, freshName());
      await subject.linger(gone);
      const seen = await provider.sessions(gone.username, current);
      if (!seen.observed) expect(seen.reason).toMatch(/\w{4}/);
      else expect(typeof seen.open === 'number' ? seen.open : seen.open.length).toBe(1);
    });

    test('do not hold those of that login', async () => {
      const subject = make();
      const provider = subject.open();
      const gone = await subject.bring(provider, freshName());
      const current = await subject.bring(provider, freshName());
      await subject.linger(current);
      const seen = await provider.sessions(gone.username, current);
      if (seen.observed) expect(typeof seen.open === 'number' ? seen.open : seen.open.length).toBe(0);
    });
  });

  describe(`${name}: a trial login`, () => {
    test('is accepted with the right password and changes nothing', async () => {
      const subject = make();
      const login = await subject.bring(subject.open(), freshName());
      const before = writesOf(subject).length;
      expect(await subject.open().verify(login)).toBe('accepted');
      expect(writesOf(subject).length).toBe(before);
    });

    test('is rejected with a wrong password, and for an unknown user', async () => {
      const subject = make();
      const provider = subject.open();
      const login = await subject.bring(provider, freshName());
      const password = new Sensitive('Wrong-password_0000000000000001');
      expect(await provider.verify({ ...login, password })).toBe('rejected');
      expect(await provider.verify({ ...login, username: freshName() })).toBe('rejected');
    });
  });
}

/** As if the vendor said that the database is somewhere else. */
function openAt<P extends Provider>(subject: SqlSubject<P>, where: { port?: number; database?: string }): P {
  const { sql: wire } = subject.vendors.ports(new Date('2030-01-01T00:00:00Z'));
  return subject.open({ sql: (session) => wire({ ...session, ...where }) });
}

/** What a provider owes besides where consumers speak SQL. */
export function sqlContract(name: string, make: () => SqlSubject): void {
  describe(`${name}: a trial login over SQL`, () => {
    test('is one statement that changes nothing', async () => {
      const subject = make();
      const login = await subject.bring(subject.open(), freshName());
      const before = subject.vendors.statements.length;
      expect(await subject.open().verify(login)).toBe('accepted');
      expect(subject.vendors.statements.slice(before)).toEqual([['SELECT 1']]);
    });

    test('is rejected for a user that may not log in', async () => {
      const subject = make();
      const provider = subject.open();
      const login = await subject.bring(provider, freshName());
      await subject.engine.query(`ALTER ROLE ${login.username} NOLOGIN`);
      expect(await provider.verify(login)).toBe('rejected');
      await subject.engine.query(`ALTER ROLE ${login.username} LOGIN`);
      expect(await provider.verify(login)).toBe('accepted');
    });

    const refusals: readonly LoginFaultKind[] = [
      'password-refused',
      'no-login-privilege',
      'not-permitted',
      'rejected-by-configuration',
    ];
    test.each(refusals)('is rejected where the server says %s', async (kind) => {
      const subject = make();
      const login = await subject.bring(subject.open(), freshName());
      subject.vendors.faultLogins(subject.front, { kind, times: 1 });
      expect(await subject.open().verify(login)).toBe('rejected');
      expect(await subject.open().verify(login)).toBe('accepted');
    });

    const unclear: Record<string, (login: Login) => { kind: LoginFaultKind; user?: string }> = {
      'no answer, as outside of an IP allow-list': () => ({ kind: 'no-answer' }),
      'no answer after TLS': ({ username }) => ({ kind: 'no-answer', user: username }),
      'a reset connection': () => ({ kind: 'reset' }),
      'a connection reset after TLS': ({ username }) => ({ kind: 'reset', user: username }),
      'a router that does not know the target': () => ({ kind: 'routing-failed' }),
      'too many connections': () => ({ kind: 'too-many-connections' }),
      'a server that is starting up': () => ({ kind: 'starting-up' }),
    };
    test.each(Object.entries(unclear))('that meets %s is no rejection', async (_what, faultOf) => {
      const subject = make();
      const login = await subject.bring(subject.open(), freshName());
      subject.vendors.faultLogins(subject.front, faultOf(login));
      await expect(subject.open().verify(login)).rejects.toThrow(
        expect.objectContaining({ name: 'VerificationFailed', code: 'LOGIN_UNREACHABLE' }),
      );
    });

    test('at a closed port or in an unknown database is no rejection', async () => {
      const subject = make();
      const login = await subject.bring(subject.open(), freshName());
      for (const wrong of [{ port: await closedPort() }, { database: 'elsewhere' }]) {
        const error = await endOf(openAt(subject, wrong).verify(login));
        expect(error).toBeInstanceOf(VerificationFailed);
        expect(error).toMatchObject({ code: 'LOGIN_UNREACHABLE' });
      }
    });

    const servers: Record<string, (vendors: TestVendors) => Promise<{ key: string; cert: string }>> = {
      'another name': ({ network }) => network.certificate(['elsewhere.example']),
      'an unknown authority': async () =>
        (await createCertificateAuthority()).certificate(['localhost', '127.0.0.1']),
    };
    test.each(Object.entries(servers))(
      'sends no password to a server with a certificate of %s',
      async (_whose, certificateOf) => {
        const subject = make();
        const login = await subject.bring(subject.open(), freshName());
        const certificate = await certificateOf(subject.vendors);
        const front = await startSqlFront({ postgres: subject.engine, certificate });
        const end = await endOf(openAt(subject, { port: front.port }).verify(login));
        await front.close();
        expect(end).toMatchObject({ code: 'LOGIN_UNREACHABLE' });
        expect(front.logins, 'not even a user name').toEqual([]);
      },
    );

    test('sends no password to a server without TLS', async () => {
      const subject = make();
      const login = await subject.bring(subject.open(), freshName());
      const received: Buffer[] = [];
      const server = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.on('data', (chunk) => {
          received.push(chunk);
          socket.write('N');
        });
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      expect(await endOf(openAt(subject, { port }).verify(login))).toMatchObject({
        code: 'LOGIN_UNREACHABLE',
      });
      server.close();
      // SSLRequest: eight bytes, and nothing in them is ours.
      expect(Buffer.concat(received).toString('hex')).toBe('0000000804d2162f');
    });
  });

  describe(`${name}: sessions`, () => {
    test('are told by application and address, and the trial login is none', async () => {
      const subject = make();
      const provider = subject.open();
      const login = await subject.bring(provider, freshName());
      await subject.vendors.connect(login, 'orders-api');
      await subject.vendors.connect(login, 'orders-worker');
      await provider.verify(login);
      const sessions = async () => {
        const seen = await provider.sessions(login.username, login);
        if (!seen.observed || typeof seen.open === 'number') return seen;
        return seen.open
          .map(({ applicationName, clientAddress }) => `${applicationName} ${/^[\d.]+/.exec(clientAddress)}`)
          .sort();
      };
      // The server needs a moment to let go of a session that has said goodbye.
      await expect.poll(sessions).toEqual(['orders-api 127.0.0.1', 'orders-worker 127.0.0.1']);
    });

    test('of an intruder who calls himself rekey are counted, and ended like any other', async () => {
      const subject = make();
      const provider = subject.ending();
      const login = await subject.bring(provider, freshName());
      const intruder = await subject.vendors.connect(login, 'rekey');
      const ended = new Promise((resolve) => intruder.once('end', resolve));
      const count = async () => {
        const seen = await subject.open().sessions(login.username, login);
        return seen.observed ? (typeof seen.open === 'number' ? seen.open : seen.open.length) : seen.reason;
      };
      await expect.poll(count).toBe(1);
      const end = await provider.endSessions(
        login.username,
        login,
        new Date('2100-01-01T00:00:00Z'),
        holding,
      );
      expect(end).toEqual({ ended: true });
      await ended;
      await expect.poll(count).toBe(0);
    });

    test('that are still open after they were ended are not said to have ended', async () => {
      const subject = make();
      const login = await subject.bring(subject.open(), freshName());
      await subject.vendors.connect(login, 'rekey');
      // A server that says yes and does nothing.
      const { sql: wire } = subject.vendors.ports(new Date('2030-01-01T00:00:00Z'));
      const sql: Ports['sql'] = async (session) =>
        session.guard === 'reads-only' ? wire(session) : { say: 'accepted', rows: [[]] };
      const end = await subject
        .ending({ sql })
        .endSessions(login.username, login, new Date('2100-01-01T00:00:00Z'), holding);
      expect(end).toEqual({
        ended: false,
        reason: '1 session that was opened before is still open',
      });
    });

    test('of somebody else are not said to be ended by a login that may not', async () => {
      const subject = make();
      const provider = subject.open();
      const gone = await subject.bring(provider, freshName());
      const current = await subject.bring(provider, freshName());
      const client = await subject.vendors.connect(gone, 'orders-api');
      const end = await provider.endSessions(
        gone.username,
        current,
        new Date('2100-01-01T00:00:00Z'),
        holding,
      );
      expect(end).toEqual({ ended: false, reason: expect.stringMatching(/\w{4}/) });
      expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    });

    test('are ended if they are old, and the younger ones stay', async () => {
      const subject = make();
      const provider = subject.ending();
      const login = await subject.bring(provider, freshName());
      const old = await subject.vendors.connect(login, 'orders-old');
      const ended = new Promise((resolve) => old.once('end', resolve));
      const { rows } = await old.query('SELECT clock_timestamp() AS now');
      const young = await subject.vendors.connect(login, 'orders-young');
      expect(await provider.endSessions(login.username, login, rows[0].now, holding)).toEqual({
        ended: true,
      });
      await ended;
      expect((await young.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
      expect(await provider.verify(login)).toBe('accepted');
    });

    test('that could not be ended are not said to be', async () => {
      const subject = make();
      const login = await subject.bring(subject.open(), freshName());
      await subject.vendors.connect(login, 'orders-api');
      subject.vendors.faultLogins(subject.front, { kind: 'routing-failed' });
      expect(
        await subject.ending().endSessions(login.username, login, new Date('2100-01-01T00:00:00Z'), holding),
      ).toEqual({
        ended: false,
        reason: expect.stringMatching(/\w{4}/),
      });
    });

    test('of nobody are an empty set, or zero', async () => {
      const subject = make();
      const provider = subject.open();
      const login = await subject.bring(provider, freshName());
      const open = async () => {
        const seen = await provider.sessions(login.username, login);
        return seen.observed ? (typeof seen.open === 'number' ? seen.open : seen.open.length) : seen.reason;
      };
      await expect.poll(open).toBe(0);
    });

    test('that cannot be seen are not said to be none', async () => {
      const subject = make();
      const login = await subject.bring(subject.open(), freshName());
      await subject.vendors.connect(login, 'orders-api');
      subject.blind();
      expect(await subject.open().sessions(login.username, login)).toEqual({
        observed: false,
        reason: expect.stringMatching(/\w{4}/),
      });
    });
  });

  describe(`${name}: a deletion of what owns tables`, () => {
    test('that what the user owns stands in the way of is blocked, and not tried again', async () => {
      const subject = make();
      const login = await deletable(subject);
      const client = await subject.vendors.connect(login, 'orders-api');
      await client.query(`CREATE TABLE ${login.username}_notes (text text)`);
      const waited = subject.vendors.waits.length;
      const { code, effect, message } = await failureOf(
        subject.open().deleteUser(login.username, holding, login),
      );
      expect(`${code} ${effect}`).toBe('BLOCKED none');
      expect(message).toContain(`REASSIGN OWNED BY "${login.username}" TO <a role that stays>`);
      expect(await isThere(subject, login)).toBe(true);
      expect([subject.calls('remove'), subject.vendors.waits.length - waited]).toEqual([1, 0]);
    });
  });
}

/** What a subject needs besides where the vendor makes the password. */
export interface IssuingSubject extends Subject<IssuingProvider> {
  /** The user whose password the vendor tells now. */
  defaultUser(): string | undefined;
  /** How often a password was read at the vendor in this test. */
  passwordReads(): number;
}

/** What a provider owes besides where the vendor makes the password. */
export function issuingContract(name: string, make: () => IssuingSubject): void {
  describe(`${name}: a default user that nobody uses`, () => {
    test('is made once, becomes the default, and its password is read by nobody', async () => {
      const subject = make();
      const username = freshName();
      await subject.open().placeDefault(username, holding);
      expect(subject.defaultUser()).toBe(username);
      const listed = (await subject.open().listUsers()).find((user) => user.username === username);
      expect(listed).toMatchObject({ isDefault: true, isProtected: true });
      expect([subject.calls('create'), subject.passwordReads()]).toEqual([1, 0]);
    });

    test('makes the user before it one that can be deleted', async () => {
      const subject = make();
      const { username } = await subject.bring(subject.open(), freshName());
      expect(await codeOf(subject.open().deleteUser(username, holding))).toBe('BLOCKED none');
      subject.vendors.clock.move(1_000);
      await subject.open().placeDefault(freshName(), holding);
      expect(await subject.open().deleteUser(username, holding)).toBe('deleted');
    });

    test('is the same one when it is asked for again: nothing changes', async () => {
      const subject = make();
      const username = freshName();
      await subject.open().placeDefault(username, holding);
      const before = writesOf(subject).length;
      await subject.open().placeDefault(username, holding);
      expect([subject.defaultUser(), writesOf(subject).length - before]).toEqual([username, 0]);
    });

    test.each(Object.entries(lostAnswers))(
      'is one, not two, when it was made and %s',
      async (_how, given) => {
        const subject = make();
        const username = freshName();
        subject.inject('create', given);
        await endOf(subject.open().placeDefault(username, holding));
        await subject.open().placeDefault(username, holding);
        expect([subject.defaultUser(), subject.calls('create')]).toEqual([username, 1]);
      },
    );

    test.each(Object.entries(lostRequests))(
      'that was never made as %s is not claimed, and the next call makes it',
      async (_how, given) => {
        const subject = make();
        const username = freshName();
        subject.inject('create', given);
        expect((await failureOf(subject.open().placeDefault(username, holding))).effect).toBe('unknown');
        expect(await subject.usernames()).not.toContain(username);
        await subject.open().placeDefault(username, holding);
        expect(subject.defaultUser()).toBe(username);
      },
    );

    test('that somebody’s user has overtaken is left alone: the caller takes another name', async () => {
      const subject = make();
      const username = freshName();
      await subject.open().placeDefault(username, holding);
      await subject.supersede(username);
      const before = writesOf(subject).length;
      const error = await failureOf(subject.open().placeDefault(username, holding));
      expect([error.code, error.effect]).toEqual(['CONFLICT', 'none']);
      expect(error.message).toContain('make one of another name');
      expect(writesOf(subject).length - before).toBe(0);
      const next = freshName();
      subject.vendors.clock.move(1_000);
      await subject.open().placeDefault(next, holding);
      expect(subject.defaultUser()).toBe(next);
    });
  });

  describe(`${name}: a password that the vendor makes`, () => {
    test('is kept in a wrapper, and belongs to the user that was asked for', async () => {
      const subject = make();
      const username = freshName();
      const login = await subject.open().issueUser(username, holding);
      if (login === 'lost') return expect.unreachable('the password is lost, expected a login');
      expect(login.username).toBe(username);
      expect(login.password).toBeInstanceOf(Sensitive);
      expect(login.password.reveal().length).toBeGreaterThanOrEqual(16);
    });

    test('is lost once the vendor tells another one; the user is left alone', async () => {
      const subject = make();
      const provider = subject.open();
      const { username } = await subject.bring(provider, freshName());
      await subject.supersede(username);
      expect(await provider.issueUser(username, holding)).toBe('lost');
      expect(await isThere(subject, { username })).toBe(true);
      expect(subject.calls('remove')).toBe(0);
    });
  });
}

/** What a rotation does to have a user with this login, however often it is begun. */
export async function bringChosen(
  provider: ChoosingProvider,
  { username, password }: UserPassword,
): Promise<void> {
  const isMade = (await provider.createUser({ username, password }, holding)) === 'created';
  if (isMade) return;
  if ((await provider.verify({ username, password })) === 'accepted')
    return provider.applyPrivileges({ username, password }, holding);
  await provider.setPassword({ username, current: [], next: password, isIdle: true }, holding);
}

/** What a subject needs besides where the password is ours. */
export interface ChoosingSubject extends Subject<ChoosingProvider> {
  /** The password that `bring` gives to this user. */
  passwordOf(username: string): Sensitive;
  /** What this login may do beyond the declared rights, asked of the engine; undefined where nothing, or it does not log in. */
  overreach(login: Login): Promise<string | undefined>;
  /** The provider with a declared right that the vendor does not know. */
  openUnknown(options?: OpenOptions): ChoosingProvider;
  /** A person makes a user of this name and password, past rekey. */
  createdBySomebody(login: { username: string; password: Sensitive }): Promise<void>;
  /** Whether the vendor refuses the password that the user has already. */
  refusesSamePassword(isRefused: boolean): void;
}

/** What a provider owes besides where the password is ours. */
export function choosingContract(name: string, make: () => ChoosingSubject): void {
  /** With the current password, for vendors that demand it. */
  const changeOf = ({ username, password: current }: Login, next: Sensitive) => ({
    username,
    current: [current],
    next,
  });
  const next = (): Sensitive => new Sensitive(`Next-password_${String(Math.random()).slice(2, 18)}`);

  describe(`${name}: a rotation that dies`, () => {
    type Open = (subject: ChoosingSubject, options: OpenOptions) => ChoosingProvider;
    const opens: Record<string, Open> = {
      'on its own': (subject, options) => subject.open(options),
      'with what the vendor asks of administrators': (subject, options) =>
        subject.ending?.(options) ?? subject.open(options),
    };
    /** What is there before it, and what it does. */
    const lives: Record<string, (subject: ChoosingSubject, login: Login) => Promise<unknown>> = {
      'with a new user': async () => undefined,
      'with a user that another run left half-made': async (subject, { username }) => {
        await subject.createdBySomebody({ username, password: next() });
        await subject.drift?.(username);
      },
    };
    const cases = Object.keys(opens).flatMap((how) => Object.keys(lives).map((what) => ({ how, what })));

    test.each(cases)(
      'anywhere $what, $how, leaves no login with more than is declared, and done again it is as declared',
      async ({ how, what }) => {
        const open = opens[how] as Open;
        for (let calls = 0; ; calls += 1) {
          const subject = make();
          const username = freshName();
          const password = subject.passwordOf(username);
          const login = { ...(await subject.open().endpoint()), username, password };
          await lives[what]?.(subject, login);
          const around = killedAt(calls);
          const end = await endOf(bringChosen(open(subject, { around, budgetMs: 600_000 }), login));
          expect(await subject.overreach(login), `killed before call ${calls + 1}`).toBeUndefined();
          await bringChosen(open(subject, { budgetMs: 600_000 }), login);
          const provider = subject.open();
          const state = [await provider.verify(login), await provider.privilegeDifferences(login)];
          expect(state, `done again after call ${calls}`).toEqual(['accepted', []]);
          expect(await subject.overreach(login)).toBeUndefined();
          if (!(end instanceof Killed)) {
            expect(end).toBeUndefined();
            expect(calls).toBeGreaterThan(3);
            return;
          }
          expect(calls).toBeLessThan(60);
        }
      },
    );

    test('anywhere, where a declared right is unknown, leaves no login with any', async () => {
      for (let calls = 0; ; calls += 1) {
        const subject = make();
        const username = freshName();
        const password = subject.passwordOf(username);
        const login = { ...(await subject.open().endpoint()), username, password };
        const provider = subject.openUnknown({ around: killedAt(calls), budgetMs: 600_000 });
        const end = await endOf(provider.createUser(login, holding));
        expect(await subject.overreach(login), `killed before call ${calls + 1}`).toBeUndefined();
        if (end instanceof Killed) continue;
        expect(end).toMatchObject({ facts: { code: 'ROLE_UNKNOWN', effect: 'none' } });
        expect(await isThere(subject, login)).toBe(false);
        return;
      }
    });
  });

  describe(`${name}: a password that we choose`, () => {
    test('is what the endpoint takes', async () => {
      const subject = make();
      const provider = subject.open();
      const username = freshName();
      const login = { ...(await provider.endpoint()), username, password: subject.passwordOf(username) };
      expect(await provider.createUser(login, holding)).toBe('created');
      expect(await provider.verify(login)).toBe('accepted');
    });

    test('never goes to a user who is there already', async () => {
      const subject = make();
      const provider = subject.open();
      const theirs = { username: freshName(), password: next() };
      await subject.createdBySomebody(theirs);
      const endpoint = await provider.endpoint();
      const ours = { ...endpoint, ...theirs, password: next() };
      expect(await provider.createUser(ours, holding)).toBe('exists');
      expect(await provider.verify({ ...endpoint, ...theirs })).toBe('accepted');
      expect(await provider.verify(ours)).toBe('rejected');
      expect([subject.calls('create'), subject.calls('setPassword')]).toEqual([0, 0]);
    });

    test('replaces the one before', async () => {
      const subject = make();
      const provider = subject.open();
      const login = await subject.bring(provider, freshName());
      const password = next();
      await provider.setPassword(changeOf(login, password), holding);
      expect(await provider.verify({ ...login, password })).toBe('accepted');
      expect(await provider.verify(login)).toBe('rejected');
    });

    test.each([false, true])(
      'may be set twice, also where the vendor refuses that (%s)',
      async (isRefused) => {
        const subject = make();
        const provider = subject.open();
        const login = await subject.bring(provider, freshName());
        subject.refusesSamePassword(isRefused);
        const change = changeOf(login, next());
        await provider.setPassword(change, holding);
        await provider.setPassword(change, holding);
        expect(await provider.verify({ ...login, password: change.next })).toBe('accepted');
      },
    );

    test.each(Object.entries(lostAnswers))(
      'is set when it was set and %s: a login decides',
      async (_how, given) => {
        const subject = make();
        const provider = subject.open();
        const login = await subject.bring(provider, freshName());
        const before = subject.calls('setPassword');
        subject.inject('setPassword', given);
        const password = next();
        await provider.setPassword(changeOf(login, password), holding);
        expect(await provider.verify({ ...login, password })).toBe('accepted');
        expect(subject.calls('setPassword') - before).toBe(1);
      },
    );

    test('that takes effect long after the lost answer is found by trying', async () => {
      const subject = make();
      const provider = subject.open({ budgetMs: 600_000 });
      const login = await subject.bring(provider, freshName());
      const before = subject.calls('setPassword');
      subject.inject('setPassword', { kind: 'timeout-apply-later', ms: 200_000 });
      const password = next();
      await provider.setPassword(changeOf(login, password), holding);
      expect(await provider.verify({ ...login, password })).toBe('accepted');
      expect(subject.calls('setPassword') - before).toBe(1);
    });

    test.each(Object.entries(lostRequests))(
      'that was not set as %s is not claimed, and the old one works on',
      async (_how, given) => {
        const subject = make();
        const provider = subject.open({ budgetMs: 240_000 });
        const login = await subject.bring(provider, freshName());
        const before = subject.calls('setPassword');
        subject.inject('setPassword', given);
        const change = changeOf(login, next());
        expect((await failureOf(provider.setPassword(change, holding))).effect).toBe('unknown');
        expect(await provider.verify(login)).toBe('accepted');
        expect(await provider.verify({ ...login, password: change.next })).toBe('rejected');
        expect(subject.calls('setPassword') - before).toBe(1);
        await subject.open().setPassword(change, holding);
        expect(await provider.verify({ ...login, password: change.next })).toBe('accepted');
      },
    );

    const refused: Record<string, { given: Trouble; want: string }> = {
      'a bad request': {
        given: { kind: 'status', status: 400, json: { message: 'no' } },
        want: 'REJECTED none',
      },
      'a refused key': {
        given: { kind: 'status', status: 403, json: { message: 'no' } },
        want: 'UNAUTHORIZED none',
      },
      'a missing user': {
        given: { kind: 'status', status: 404, json: { message: 'no' } },
        want: 'NOT_FOUND none',
      },
      'a redirect': { given: { kind: 'redirect-307' }, want: 'REJECTED none' },
    };
    test.each(Object.entries(refused))(
      'refused with %s was certainly not set',
      async (_how, { given, want }) => {
        const subject = make();
        const provider = subject.open();
        const login = await subject.bring(provider, freshName());
        subject.inject('setPassword', given);
        expect(await codeOf(provider.setPassword(changeOf(login, next()), holding))).toBe(want);
        expect(await provider.verify(login)).toBe('accepted');
      },
    );

    test.each([false, true])(
      'is not waited for where the vendor is asked too often (idle: %s)',
      async (isIdle) => {
        const subject = make();
        const provider = subject.open();
        const login = await subject.bring(provider, freshName());
        const before = [subject.calls('setPassword'), subject.vendors.waits.length] as const;
        subject.inject('setPassword', { kind: 'rate-limited', retryAfter: 7 });
        const change = { ...changeOf(login, next()), isIdle };
        expect((await failureOf(provider.setPassword(change, holding))).code).toBe('RATE_LIMITED');
        expect(subject.calls('setPassword') - before[0]).toBe(1);
        expect(subject.vendors.waits.slice(before[1])).not.toContain(7_000);
        expect(await provider.verify(login)).toBe('accepted');
        await provider.setPassword(change, holding);
        expect(await provider.verify({ ...login, password: change.next })).toBe('accepted');
      },
    );

    test('leaves no trace where the vendor repeats it in an error', async () => {
      const subject = make();
      const provider = subject.open();
      const login = await subject.bring(provider, freshName());
      const password = next();
      const json = { message: `bad password "${password.reveal()}"`, details: [password.reveal()] };
      subject.inject('setPassword', { kind: 'status', status: 400, json });
      const { message } = await failureOf(provider.setPassword(changeOf(login, password), holding));
      expect(message).toContain('bad password \\"‹redacted›\\"');
    });
  });
}

class Killed extends Error {
  override readonly name = 'Killed';
}

/** From the call with this number on, none is made any more, as in a process that is gone. */
function killedAt(number: number): NonNullable<OpenOptions['around']> {
  let calls = 0;
  return async (name, _request, call) => {
    if (name === 'http' || name === 'sql' || name === 'valkey') calls += 1;
    if (calls > number) throw new Killed(`before call ${number + 1}`);
    return call();
  };
}

async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
