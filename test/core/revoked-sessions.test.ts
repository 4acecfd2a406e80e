import { expect, test } from 'vitest';
import { standings } from '../../functions/core/generations.ts';
import { revokedSessions } from '../../functions/core/revoked-sessions.ts';
import { credentialState, type Given, namesOf, sha256 } from '../support/credentials.ts';

const names = namesOf();
const [first, second] = [names.generation('v1', 0), names.generation('v2', 0)];
const [a, b] = [names.alternate('a'), names.alternate('b')];
const revokeBefore = new Date('2026-03-10T11:00:00Z');

/** Made at noon of the day before, and compromised; the next version was made at noon, and is current. */
const given = (more: Partial<Given> = {}): Given => ({
  versions: {
    v0: ['2026-03-01T12:00:00Z'],
    v1: ['2026-03-09T12:00:00Z', 'AWSPREVIOUS'],
    v2: ['2026-03-10T12:00:00Z', 'AWSCURRENT'],
  },
  current: first,
  previous: first,
  spec: { strategy: 'reset-password' },
  directives: { revokeBefore },
  lastRotatedAt: '2026-03-10T12:00:30Z',
  changedAt: '2026-03-10T12:05:00Z',
  ...more,
});

/** `settled so far` where no password is left as it was, and each user with the instant before which its sessions are to end. */
async function found(
  more: Partial<Given>,
  listed: readonly string[],
): Promise<readonly string[] | undefined> {
  const state = await credentialState(given(more));
  const users = listed.map((username) => ({ username, isProtected: false }));
  const { provider, targetId } = state.spec;
  const known = standings({ provider, targetId, users, credentials: [state] }, sha256);
  const sessions = revokedSessions(state, known, sha256);
  return (
    sessions && [
      ...(sessions.areAllPasswordsChanged ? ['all changed'] : []),
      ...sessions.users.map(({ user, openedBefore }) => `${user.username} ${openedBefore.toISOString()}`),
    ]
  );
}

const cases: Record<
  string,
  { given: Partial<Given>; listed: readonly string[]; want: readonly string[] | undefined }
> = {
  'the only user has a new password since the rotation that Secrets Manager has dated': {
    given: {},
    listed: [first],
    want: ['all changed', `${first} 2026-03-10T12:00:30.000Z`],
  },
  'where the date is of an earlier rotation, only the last change of all is known': {
    given: { lastRotatedAt: '2026-03-09T12:00:30Z' },
    listed: [first],
    want: ['all changed', `${first} 2026-03-10T12:05:00.000Z`],
  },
  'nothing is to be done before the next login is current': {
    given: { directives: { revokeBefore: new Date('2026-03-10T13:00:00Z') } },
    listed: [first],
    want: undefined,
  },
  'nor where the list lags behind and lacks the user': { given: {}, listed: [], want: undefined },
  'a user that was made since the order never had a revoked password, and the one before is retired': {
    given: { current: second, spec: { strategy: 'replace-user' } },
    listed: [first, second],
    want: ['all changed'],
  },
  'of two users the current one has a new password; the other one has to go first': {
    given: { current: a, previous: b, spec: { strategy: 'alternate-users' } },
    listed: [a, b],
    want: [`${a} 2026-03-10T12:00:30.000Z`],
  },
  'of two users both have a new password after one more rotation': {
    given: {
      current: b,
      previous: a,
      spec: { strategy: 'alternate-users' },
      versions: {
        v0: ['2026-03-01T12:00:00Z'],
        v1: ['2026-03-09T12:00:00Z'],
        v2: ['2026-03-10T12:00:00Z', 'AWSPREVIOUS'],
        v3: ['2026-03-12T12:00:00Z', 'AWSCURRENT'],
      },
      lastRotatedAt: '2026-03-12T12:00:30Z',
    },
    listed: [a, b],
    want: ['all changed', `${a} 2026-03-12T12:00:00.000Z`, `${b} 2026-03-12T12:00:30.000Z`],
  },
};
test.each(Object.entries(cases))('%s', async (_sentence, { given: more, listed, want }) => {
  expect(await found(more, listed)).toEqual(want);
});
