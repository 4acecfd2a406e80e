import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { CredentialState, Standing, Superseded } from '../../functions/core/generations.ts';
import type { DatabaseUser, Sessions } from '../../functions/core/provider.ts';
import { endingOf, judgeEndingUser, judgeUser, type Observed } from '../../functions/core/retirement.ts';
import { credentialState } from '../support/credentials.ts';

const versions = {
  v1: ['2026-02-01T00:00:00Z', 'AWSPREVIOUS'],
  v2: ['2026-03-01T00:00:00Z', 'AWSCURRENT'],
} as const;
/** By how their connections can be seen: in the user list, by SQL, in a client list, or not at all. */
const providers = {
  'user-list': 'render-postgres',
  sql: 'cockroachdb-cloud',
  'client-list': 'vultr-valkey',
  nothing: 'zilliz-cloud',
} as const;
type ObservedBy = keyof typeof providers;

const state = (observedBy: ObservedBy, spec: object = {}): Promise<CredentialState> =>
  credentialState({ provider: providers[observedBy], versions, spec });
const user: DatabaseUser = { username: 'orders_api_abcdefghijkl', isProtected: false };
const superseded = (credential: CredentialState, more: Partial<Superseded> = {}): Superseded => ({
  is: 'superseded',
  credential,
  since: new Date('2026-03-01T12:00:00Z'),
  isRevoked: false,
  mayGoUnproved: false,
  wasPublished: true,
  ...more,
});

const nobody: Sessions = { observed: true, open: 0 };
const noSessions: Sessions = { observed: true, open: [] };
const worker = { applicationName: 'worker', clientAddress: '10.0.0.7' };
const somebody: Sessions = { observed: true, open: [worker] };
const unseen: Sessions = { observed: false, reason: 'no rights' };
const unreachable: Sessions = { observed: false, reason: 'no answer', isUnreachable: true };
/** The default grace of 24 hours and the 15 minutes that clocks and late steps may take. */
const graceOver = new Date('2026-03-02T12:15:00Z');
const lastMoment = new Date('2026-03-02T12:14:59.999Z');
const moved = { current: 'accepted', consumersBehind: [] } as const;

describe('a superseded user', () => {
  const cases: Record<
    string,
    {
      by?: ObservedBy;
      spec?: object;
      standing?: Partial<Superseded>;
      user?: object;
      given: Observed;
      now?: Date;
      want: object;
    }
  > = {
    'stays while its grace runs, to the last moment': {
      given: { ...moved, readings: [nobody, nobody] },
      now: lastMoment,
      want: { say: 'keep', reason: 'GRACE_RUNNING', until: graceOver },
    },
    'waits for the login in AWSCURRENT to be tried when its grace is over': {
      given: {},
      want: { say: 'prove-current' },
    },
    'I25: stays while the login in AWSCURRENT is not known to work': {
      given: { current: { because: 'it is refused' }, consumersBehind: [], readings: [nobody, nobody] },
      want: { say: 'keep', reason: 'CURRENT_UNPROVED', because: 'it is refused' },
    },
    'is asked about at its consumers once the login in AWSCURRENT was accepted': {
      given: { current: 'accepted' },
      want: { say: 'ask-consumers' },
    },
    'that was never published goes a quarter of an hour after it was made, and waits for nobody': {
      standing: { wasPublished: false },
      given: {},
      now: new Date('2026-03-01T12:15:00Z'),
      want: { say: 'retire', reason: 'never-published', endSessions: false },
    },
    'that was never published stays while a late step may still be at work': {
      standing: { wasPublished: false },
      given: {},
      now: new Date('2026-03-01T12:14:59.999Z'),
      want: { say: 'keep', reason: 'GRACE_RUNNING', until: new Date('2026-03-01T12:15:00Z') },
    },
    'stays while a consumer is behind': {
      given: { current: 'accepted', consumersBehind: ['render-service srv-1'], readings: [nobody, nobody] },
      want: { say: 'keep', reason: 'CONSUMERS_BEHIND', consumers: ['render-service srv-1'] },
    },
    'is observed when nothing else keeps it': { given: moved, want: { say: 'observe' } },
    'is observed again after one reading of nobody': {
      given: { ...moved, readings: [nobody] },
      want: { say: 'observe' },
    },
    'goes after two readings of nobody': {
      given: { ...moved, readings: [nobody, noSessions] },
      want: {
        say: 'retire',
        reason: 'superseded',
        endSessions: false,
        evidence: { drain: 'nobody-connected-twice' },
      },
    },
    'stays when somebody is connected at the first reading': {
      given: { ...moved, readings: [somebody] },
      want: {
        say: 'keep',
        reason: 'STILL_CONNECTED',
        open: [worker],
        overdueSince: graceOver,
        deadline: new Date('2026-03-09T12:15:00Z'),
      },
    },
    'stays when somebody came back for the second reading': {
      given: { ...moved, readings: [nobody, { observed: true, open: 2 }] },
      want: { say: 'keep', reason: 'STILL_CONNECTED', open: 2 },
    },
    'stays past the deadline when nothing may be cut': {
      given: { ...moved, readings: [somebody, somebody] },
      now: new Date('2027-03-09T12:15:00Z'),
      want: { say: 'keep', reason: 'STILL_CONNECTED' },
    },
    'stays until the deadline where connections may be cut': {
      spec: { drain: { deadline: 'P1D', force: true } },
      given: { ...moved, readings: [somebody, somebody] },
      now: new Date('2026-03-03T12:14:59.999Z'),
      want: { say: 'keep', reason: 'STILL_CONNECTED', deadline: new Date('2026-03-03T12:15:00Z') },
    },
    'goes with its connections at the deadline where they may be cut': {
      spec: { drain: { deadline: 'P1D', force: true } },
      given: { ...moved, readings: [somebody] },
      now: new Date('2026-03-03T12:15:00Z'),
      want: {
        say: 'retire',
        reason: 'superseded',
        endSessions: true,
        evidence: {
          drain: 'connections-to-be-ended',
          because: 'somebody is still connected after the deadline, and drain.force is set',
        },
      },
    },
    'goes by the grace alone where the vendor tells nobody who is connected': {
      by: 'nothing',
      given: moved,
      want: { say: 'retire', endSessions: false, evidence: { drain: 'not-observed' } },
    },
    'goes by the grace alone where its login may not look at the clients, twice': {
      by: 'client-list',
      given: { ...moved, readings: [unseen, unseen] },
      want: {
        say: 'retire',
        endSessions: false,
        evidence: { drain: 'not-observed', because: 'no rights' },
      },
    },
    'is looked at again where the clients could not be seen once': {
      by: 'client-list',
      given: { ...moved, readings: [unseen] },
      want: { say: 'observe' },
    },
    'stays where the clients could be seen only once': {
      by: 'client-list',
      given: { ...moved, readings: [nobody, unseen] },
      want: { say: 'keep', reason: 'DRAIN_UNOBSERVED' },
    },
    'stays where the server could not be reached to see the clients': {
      by: 'client-list',
      given: { ...moved, readings: [unreachable, unreachable] },
      want: { say: 'keep', reason: 'DRAIN_UNOBSERVED', because: 'no answer' },
    },
    'goes by the grace alone where the spec says that the server is never reached': {
      by: 'client-list',
      spec: { verify: 'none' },
      given: { ...moved, readings: [unreachable, unreachable] },
      want: { say: 'retire', endSessions: false, evidence: { drain: 'not-observed' } },
    },
    'stays where sessions can be seen by SQL, but not by this login': {
      given: { ...moved, readings: [unseen] },
      want: { say: 'keep', reason: 'DRAIN_UNOBSERVED', because: 'no rights' },
    },
    'stays where the list says nothing of its connections': {
      by: 'user-list',
      given: { ...moved, readings: [nobody, unseen] },
      want: { say: 'keep', reason: 'DRAIN_UNOBSERVED', because: 'no rights' },
    },
    'that is revoked goes at once, with its connections, whatever its consumers do': {
      standing: { isRevoked: true },
      given: { current: 'accepted' },
      now: new Date('2026-03-01T12:00:00Z'),
      want: { say: 'retire', reason: 'revoked', endSessions: true },
    },
    'I25: that is revoked stays while the login that took its place is not known to work': {
      standing: { isRevoked: true },
      given: { current: { because: 'it is refused' } },
      want: { say: 'keep', reason: 'CURRENT_UNPROVED', because: 'it is refused' },
    },
    'that is revoked goes all the same where the order says so': {
      standing: { isRevoked: true, mayGoUnproved: true },
      given: {},
      want: { say: 'retire', reason: 'revoked', endSessions: true },
    },
    'that is revoked stays while it is the default': {
      by: 'user-list',
      standing: { isRevoked: true },
      user: { isProtected: true, isDefault: true },
      given: {},
      want: { say: 'keep', reason: 'DEFAULT_USER' },
    },
    'stays while it is the default': {
      by: 'user-list',
      user: { isProtected: true, isDefault: true },
      given: { ...moved, readings: [nobody, nobody] },
      want: { say: 'keep', reason: 'DEFAULT_USER' },
    },
    'stays where the vendor does not say whether it is the default': {
      by: 'user-list',
      user: { isProtected: true },
      given: { ...moved, readings: [nobody, nobody] },
      want: { say: 'keep', reason: 'PROTECTED' },
    },
    'that was never published has no consumers to wait for': {
      standing: { wasPublished: false },
      given: { readings: [nobody, nobody] },
      want: { say: 'retire', reason: 'never-published' },
    },
    'without a date that can be compared stays': {
      standing: { since: new Date(Number.NaN) },
      given: { ...moved, readings: [nobody, nobody] },
      want: { say: 'keep', reason: 'GRACE_RUNNING' },
    },
  };
  test.each(Object.entries(cases))(
    '%s',
    async (_sentence, { by = 'sql', spec, standing, user: more, given, now, want }) => {
      const one = { user: { ...user, ...more }, standing: superseded(await state(by, spec), standing) };
      expect(judgeUser(one, given, now ?? graceOver)).toMatchObject(want);
    },
  );
});

describe('a user that stands in as the default', () => {
  const placeholder: Standing = { is: 'placeholder' };
  test('goes when it is the default no more', () => {
    expect(
      judgeUser({ user: { ...user, isDefault: false }, standing: placeholder }, {}, graceOver),
    ).toMatchObject({
      say: 'retire',
    });
  });
  test('stays while it is, and while somebody looked its password up and uses it', () => {
    const standsIn = { ...user, isProtected: true, isDefault: true };
    expect(judgeUser({ user: standsIn, standing: placeholder }, {}, graceOver)).toMatchObject({
      say: 'keep',
      reason: 'DEFAULT_USER',
    });
    const used = { ...user, isDefault: false, openConnections: 1 };
    expect(judgeUser({ user: used, standing: placeholder }, {}, graceOver)).toMatchObject({
      say: 'keep',
      reason: 'STILL_CONNECTED',
    });
  });
});

describe('a user of a credential that is to go', () => {
  const ending = { at: new Date('2026-03-05T00:00:00Z'), reason: 'requested' } as const;
  const judged = async (
    given: Observed,
    { now = '2026-03-05T00:00:01Z', spec = {}, more = {}, revokeBefore = '' } = {},
  ) => {
    const credential = await state('sql', spec);
    const directives = revokeBefore === '' ? {} : { revokeBefore: new Date(revokeBefore) };
    return judgeEndingUser({ ...user, ...more }, { ...credential, directives }, ending, given, new Date(now));
  };

  test('has no grace, but is left while somebody is connected, until the deadline', async () => {
    expect(await judged({})).toEqual({ say: 'observe' });
    expect(await judged({ readings: [nobody, nobody] })).toMatchObject({
      say: 'retire',
      reason: 'credential-deleted',
      endSessions: false,
    });
    const deadline = new Date('2026-03-12T00:00:00Z');
    expect(await judged({ readings: [somebody] })).toMatchObject({ reason: 'STILL_CONNECTED', deadline });
    const force = { drain: { deadline: 'P7D', force: true } };
    expect(await judged({ readings: [somebody] }, { spec: force })).toMatchObject({ say: 'keep' });
    expect(
      await judged({ readings: [somebody] }, { spec: force, now: '2026-03-12T00:00:00Z' }),
    ).toMatchObject({ say: 'retire', reason: 'credential-deleted', endSessions: true });
  });

  test('goes with its connections where its password is revoked', async () => {
    expect(await judged({}, { revokeBefore: '2026-03-04T00:00:00Z' })).toEqual({
      say: 'retire',
      reason: 'revoked',
      endSessions: true,
      evidence: {
        drain: 'connections-to-be-ended',
        because: 'somebody may know the password who must not',
      },
    });
    // The newest version was made after the order: only what is older was revoked, and that goes by other rules.
    expect(await judged({}, { revokeBefore: '2026-02-04T00:00:00Z' })).toEqual({ say: 'observe' });
  });

  test('may be the default, which its caller replaces, but not protected for another reason', async () => {
    expect(await judged({}, { more: { isProtected: true, isDefault: true } })).toEqual({ say: 'observe' });
    expect(await judged({ readings: [nobody, nobody] }, { more: { isProtected: true } })).toEqual({
      say: 'keep',
      reason: 'PROTECTED',
    });
  });
});

describe('a credential', () => {
  test('is to go from its end on, or from the order, and not before', async () => {
    const { spec } = await credentialState({ versions, spec: { expiresAt: '2026-03-05T02:00:00+02:00' } });
    const before = new Date('2026-03-04T23:59:59.999Z');
    const end = new Date('2026-03-05T00:00:00Z');
    expect(endingOf({ spec, directives: {} }, before)).toBeUndefined();
    expect(endingOf({ spec, directives: {} }, end)).toEqual({ at: end, reason: 'expired' });
    const deleteSince = new Date('2026-03-01T00:00:00Z');
    expect(endingOf({ spec, directives: { deleteSince } }, before)).toEqual({
      at: deleteSince,
      reason: 'requested',
    });
    expect(endingOf({ spec: {}, directives: {} }, end)).toBeUndefined();
  });
});

const sessions: fc.Arbitrary<Sessions> = fc.oneof(
  fc.nat({ max: 2 }).map((open): Sessions => ({ observed: true, open })),
  fc.constant(somebody),
  fc.constant(noSessions),
  fc.constant(unseen),
);
const observations: fc.Arbitrary<Observed> = fc.record(
  {
    consumersBehind: fc.array(fc.constant('a'), { maxLength: 1 }),
    readings: fc.array(sessions, { maxLength: 3 }),
  },
  { requiredKeys: [] },
);
const times = fc.date({
  min: new Date('2026-03-01T00:00:00Z'),
  max: new Date('2027-03-01T00:00:00Z'),
  noInvalidDate: true,
});
const states = await Promise.all(
  (['user-list', 'sql', 'client-list', 'nothing'] as const).flatMap((by) =>
    [true, false].map((force) => state(by, { drain: { deadline: 'P1D', force } })),
  ),
);

test('no user that is of use, protected or not ours ever goes, whatever is observed and however late it is', () => {
  fc.assert(
    fc.property(
      fc.constantFrom<Standing['is']>('current', 'pending', 'idle', 'unversioned', 'protected', 'foreign'),
      fc.constantFrom(...states),
      observations,
      times,
      fc.boolean(),
      (is, credential, observed, now, isProtected) => {
        const standing: Standing =
          is === 'protected' || is === 'foreign' ? { is } : ({ is, credential } as Standing);
        expect(judgeUser({ user: { ...user, isProtected }, standing }, observed, now).say).toBe('keep');
      },
    ),
  );
});

test('a protected user never goes, superseded or revoked', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...states),
      observations,
      times,
      fc.boolean(),
      fc.boolean(),
      (credential, observed, now, isRevoked, isDefault) => {
        const verdict = judgeUser(
          {
            user: { ...user, isProtected: true, isDefault },
            standing: superseded(credential, { isRevoked }),
          },
          observed,
          now,
        );
        expect(verdict.say).not.toBe('retire');
      },
    ),
  );
});

test('a clock that is ten minutes ahead never shortens a grace, and nobody who is seen connected is cut before the deadline', () => {
  const skewMs = 600_000;
  fc.assert(
    fc.property(
      fc.constantFrom(...states),
      observations,
      times,
      fc.integer({ min: -skewMs, max: skewMs }),
      (credential, observed, truth, skew) => {
        const standing = superseded(credential);
        const verdict = judgeUser({ user, standing }, observed, new Date(truth.getTime() + skew));
        if (verdict.say !== 'retire') return;
        const afterMs = truth.getTime() - standing.since.getTime();
        expect(afterMs).toBeGreaterThanOrEqual(24 * 3_600_000);
        if (verdict.endSessions) expect(afterMs).toBeGreaterThanOrEqual(48 * 3_600_000);
        else if (credential.spec.definition.capabilities.drainObservedBy !== 'nothing') {
          expect(observed.readings?.length).toBeGreaterThanOrEqual(2);
          const open = (observed.readings ?? []).flatMap((reading) =>
            reading.observed ? [reading.open] : [],
          );
          for (const each of open) expect(typeof each === 'number' ? each : each.length).toBe(0);
        }
      },
    ),
  );
});
