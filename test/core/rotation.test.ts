import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { SecretDescription } from '../../functions/core/ports.ts';
import {
  type Choice,
  chooseUser,
  holderOf,
  isOwnUser,
  judge,
  openVersion,
  rotationStep,
} from '../../functions/core/rotation.ts';
import { usernames } from '../../functions/core/username.ts';

const sha256 = (text: string) => createHash('sha256').update(text).digest();
const token = '11111111-2222-4333-8444-555555555555';
const names = usernames(
  { secretArn: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:rekey/a-AbCdEf', prefix: 'orders' },
  sha256,
);

const facts = (overrides: Partial<SecretDescription> = {}): SecretDescription => ({
  arn: 'arn',
  name: 'rekey/a',
  rotationEnabled: true,
  labelsByVersion: new Map([
    ['current', new Set(['AWSCURRENT'])],
    [token, new Set(['AWSPENDING'])],
  ]),
  ...overrides,
});

describe('the version of an open rotation', () => {
  const labels = (...held: readonly string[]): ReadonlySet<string> => new Set(held);
  const cases: Record<
    string,
    {
      described: Record<string, readonly string[]>;
      listed?: Record<string, readonly string[]>;
      want: string | undefined;
    }
  > = {
    'is the one with AWSPENDING': { described: { v1: ['AWSCURRENT'], v2: ['AWSPENDING'] }, want: 'v2' },
    'is none where AWSPENDING is on the current one, as a rotation may end': {
      described: { v1: ['AWSPREVIOUS'], v2: ['AWSCURRENT', 'AWSPENDING'] },
      want: undefined,
    },
    'is known by the list where the description lags behind': {
      described: { v1: ['AWSCURRENT'] },
      listed: { v1: ['AWSCURRENT'], v2: ['AWSPENDING'] },
      want: 'v2',
    },
    'is known by the description where the list lags behind': {
      described: { v1: ['AWSCURRENT'], v2: ['AWSPENDING'] },
      listed: { v1: ['AWSCURRENT'] },
      want: 'v2',
    },
    'is none once either of them knows it to be current': {
      described: { v1: ['AWSCURRENT'], v2: ['AWSPENDING'] },
      listed: { v1: ['AWSPREVIOUS'], v2: ['AWSCURRENT'] },
      want: undefined,
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { described, listed = {}, want }) => {
    const labelsByVersion = new Map(
      Object.entries(described).map(([versionId, held]) => [versionId, labels(...held)]),
    );
    const versions = Object.entries(listed).map(([versionId, held]) => ({
      versionId,
      labels: labels(...held),
    }));
    expect(openVersion({ labelsByVersion }, versions)).toBe(want);
  });
});

describe('the rotation guard', () => {
  const cases: Record<string, { given: SecretDescription; want: string }> = {
    'lets a pending version of its token proceed': { given: facts(), want: 'proceed' },
    'refuses a secret that is scheduled for deletion, whatever its labels': {
      given: facts({ deletedAt: new Date('2026-03-01T12:00:00Z') }),
      want: 'DELETION_IN_PROGRESS',
    },
    'refuses a secret whose rotation is switched off': {
      given: facts({ rotationEnabled: false }),
      want: 'ROTATION_DISABLED',
    },
    'refuses a token that the secret does not know': {
      given: facts({ labelsByVersion: new Map([['current', new Set(['AWSCURRENT'])]]) }),
      want: 'VERSION_UNKNOWN',
    },
    'refuses a version that is not pending': {
      given: facts({ labelsByVersion: new Map([[token, new Set(['AWSPREVIOUS'])]]) }),
      want: 'VERSION_NOT_PENDING',
    },
    'calls a version done that is current': {
      given: facts({ labelsByVersion: new Map([[token, new Set(['AWSCURRENT'])]]) }),
      want: 'ALREADY_CURRENT',
    },
    'calls a version done that is current and still pending, as AWS leaves both labels there at times': {
      given: facts({ labelsByVersion: new Map([[token, new Set(['AWSCURRENT', 'AWSPENDING'])]]) }),
      want: 'ALREADY_CURRENT',
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { given, want }) => {
    const verdict = judge(given, token);
    expect(verdict.say === 'proceed' ? 'proceed' : verdict.reason).toBe(want);
  });

  test('proceeds in no state of the labels but one: this token pending and not current', () => {
    const labels = fc.uniqueArray(fc.constantFrom('AWSPENDING', 'AWSCURRENT', 'AWSPREVIOUS', 'custom'));
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.option(labels, { nil: undefined }),
        labels,
        (rotationEnabled, own, others) => {
          const labelsByVersion = new Map([['other', new Set(others)]]);
          if (own !== undefined) labelsByVersion.set(token, new Set(own));
          const proceeds = judge(facts({ rotationEnabled, labelsByVersion }), token).say === 'proceed';
          expect(proceeds).toBe(
            rotationEnabled && own?.includes('AWSPENDING') === true && !own.includes('AWSCURRENT'),
          );
        },
      ),
    );
  });
});

test('only the four camelCase steps are steps, not the spelling of one page of the guide', () => {
  expect(['createSecret', 'setSecret', 'testSecret', 'finishSecret'].map(rotationStep)).toEqual([
    'createSecret',
    'setSecret',
    'testSecret',
    'finishSecret',
  ]);
  expect(['create_secret', 'CREATESECRET', '', 'toString'].map(rotationStep)).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});

test('the holder of a label is the version that carries it, or nobody', () => {
  expect(holderOf(facts().labelsByVersion, 'AWSCURRENT')).toBe('current');
  expect(holderOf(facts().labelsByVersion, 'AWSPREVIOUS')).toBeUndefined();
});

describe('the user that a rotation chooses', () => {
  const choice = (overrides: Partial<Choice> = {}): Choice => ({
    strategy: 'replace-user',
    token,
    currentUsername: undefined,
    switchedAt: undefined,
    isSwitchUndated: false,
    graceMs: 86_400_000,
    now: new Date('2026-03-08T12:00:00Z'),
    ...overrides,
  });
  const [a, b] = [names.alternate('a'), names.alternate('b')];
  const cases: Record<string, { given: Choice; want: unknown }> = {
    'is a new one of this token under replace-user': {
      given: choice({ currentUsername: 'orders_old' }),
      want: { say: 'use', username: names.generation(token, 0) },
    },
    'is the first of the two on the first rotation under alternate-users': {
      given: choice({ strategy: 'alternate-users' }),
      want: { say: 'use', username: a },
    },
    'is the idle one of the two afterwards': {
      given: choice({
        strategy: 'alternate-users',
        currentUsername: a,
        switchedAt: new Date('2026-03-07T11:59:59Z'),
      }),
      want: { say: 'use', username: b },
    },
    'is the first again when the second is current': {
      given: choice({
        strategy: 'alternate-users',
        currentUsername: b,
        switchedAt: new Date('2026-03-07T12:00:00Z'),
      }),
      want: { say: 'use', username: a },
    },
    'is refused while consumers may still use the idle one': {
      given: choice({
        strategy: 'alternate-users',
        currentUsername: a,
        switchedAt: new Date('2026-03-07T12:00:01Z'),
      }),
      want: { say: 'refuse', reason: 'GRACE_RUNNING', until: new Date('2026-03-08T12:00:01Z') },
    },
    'is refused where somebody may have moved AWSCURRENT since the last date that is known': {
      given: choice({
        strategy: 'alternate-users',
        currentUsername: a,
        switchedAt: new Date('2026-01-01T12:00:00Z'),
        isSwitchUndated: true,
      }),
      want: { say: 'refuse', reason: 'SWITCH_UNDATED' },
    },
    'is the idle one all the same where its grace is none': {
      given: choice({
        strategy: 'alternate-users',
        currentUsername: a,
        graceMs: 0,
        isSwitchUndated: true,
      }),
      want: { say: 'use', username: b },
    },
    'is the one and only under reset-password': {
      given: choice({ strategy: 'reset-password' }),
      want: { say: 'use', username: names.only() },
    },
    'stays the current one under reset-password': {
      given: choice({ strategy: 'reset-password', currentUsername: 'orders_adopted' }),
      want: { say: 'use', username: 'orders_adopted' },
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { given, want }) => {
    expect(chooseUser(given, names)).toEqual(want);
  });

  test('is never the current one under alternate-users, even when a stored value says so', () => {
    const own = (username: string, currentUsername: string) =>
      isOwnUser(username, { strategy: 'alternate-users', token, currentUsername }, names, 5);
    expect([own(a, a), own(b, a), own('orders_foreign', a)]).toEqual([false, true, false]);
  });

  test('is recognised by the token it was made under, for every attempt and for no other token', () => {
    const own = (username: string) =>
      isOwnUser(username, { strategy: 'replace-user', token, currentUsername: undefined }, names, 5);
    expect(own(names.generation(token, 4))).toBe(true);
    expect(own(names.generation(token, 5))).toBe(false);
    expect(own(names.generation('99999999-2222-4333-8444-555555555555', 0))).toBe(false);
  });
});
