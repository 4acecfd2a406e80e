import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { calendarFaults, openings } from '../../functions/core/calendar.ts';
import type { Directives } from '../../functions/core/directives.ts';
import {
  type Candidate,
  type DueVerdict,
  type Plan,
  planRotations,
  quarantineFindings,
  turnAt,
} from '../../functions/core/due.ts';
import type { VersionListing } from '../../functions/core/ports.ts';
import { type CredentialSpec, parseSpec, restMs } from '../../functions/core/spec.ts';
import { loadProvider } from '../../functions/providers/index.ts';

const sha256 = (text: string) => createHash('sha256').update(text).digest();
const parsed = await parseSpec(
  {
    name: 'orders-api',
    provider: 'cockroachdb-cloud',
    target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10' },
    apiKeySecret: 'rekey/api-keys/cockroachdb',
    usernamePrefix: 'orders_api',
  },
  { loadProvider, loadConsumer },
);

type SpecOverrides = Partial<Omit<CredentialSpec, 'definition' | 'rotation'>> & {
  readonly rotation?: Partial<CredentialSpec['rotation']>;
  readonly writes?: { readonly perMinute: number; readonly perRotation: number };
  readonly parallelRotations?: number;
};
const spec = ({
  rotation,
  writes = { perMinute: 600, perRotation: 3 },
  parallelRotations = 1,
  ...overrides
}: SpecOverrides = {}) => ({
  ...parsed,
  ...overrides,
  rotation: { every: 'P30D', blackouts: [], ...rotation },
  definition: {
    ...parsed.definition,
    capabilities: { ...parsed.definition.capabilities, writes, parallelRotations },
  },
});

interface Given extends SpecOverrides {
  readonly name?: string;
  readonly directives?: Directives;
  /** Id, when it was made, its labels. */
  readonly versions?: readonly (readonly [string, string, ...string[]])[];
  readonly lastRotatedAt?: string;
  /** When anything of the secret changed last. @default when it was rotated, or else its youngest version */
  readonly changedAt?: string;
  readonly rotationEnabled?: boolean;
  readonly deletedAt?: string;
  readonly secret?: 'absent' | 'unreadable';
}

/** Made on 1 January, rotated for the last time on 1 March at noon. */
const candidate = ({
  name = 'orders-api',
  directives = {},
  versions = [
    ['v1', '2026-01-01T12:00:00Z', 'AWSPREVIOUS'],
    ['v2', '2026-03-01T11:58:00Z', 'AWSCURRENT'],
  ],
  lastRotatedAt = '2026-03-01T12:00:00Z',
  changedAt = lastRotatedAt || (versions.at(-1)?.[1] ?? ''),
  rotationEnabled = true,
  deletedAt,
  secret,
  ...overrides
}: Given = {}): Candidate => {
  const listed = versions.map(
    ([versionId, createdAt, ...labels]): VersionListing => ({
      versionId,
      createdAt: new Date(createdAt),
      labels: new Set(labels),
    }),
  );
  return {
    name,
    spec: spec({ name, ...overrides }),
    directives,
    versions: listed,
    secret: secret ?? {
      arn: `arn:aws:secretsmanager:eu-central-1:123456789012:secret:rekey/${name}-AbCdEf`,
      name: `rekey/${name}`,
      rotationEnabled,
      labelsByVersion: new Map(
        listed.flatMap(({ versionId, labels }) => (labels.size > 0 ? [[versionId, labels]] : [])),
      ),
      ...(lastRotatedAt === '' ? {} : { lastRotatedAt: new Date(lastRotatedAt) }),
      changedAt: new Date(changedAt),
      ...(deletedAt === undefined ? {} : { deletedAt: new Date(deletedAt) }),
    },
  };
};
const fresh: Given = { versions: [['v1', '2026-03-01T12:00:00Z', 'AWSCURRENT']], lastRotatedAt: '' };

const plan = (now: string, ...candidates: readonly Candidate[]): Plan =>
  planRotations({ now: new Date(now), candidates }, sha256);
const text = (verdict: DueVerdict | undefined): string => {
  if (verdict?.say === 'start') return `start ${verdict.because} in ${verdict.inMinutes}`;
  if (verdict?.say !== 'hold') return verdict?.say ?? 'nothing';
  return verdict.until === undefined
    ? verdict.reason
    : `${verdict.reason} until ${verdict.until.toISOString().slice(0, 19)}`;
};
/** What is said of each, by name, in the order of the plan. */
const verdicts = ({ rotations }: Plan): readonly string[] =>
  rotations.map(({ candidate: { name }, verdict }) => `${name}: ${text(verdict)}`);
const verdict = (now: string, given: Given): string =>
  text(plan(now, candidate(given)).rotations[0]?.verdict);

describe('a credential', () => {
  const cases: Record<string, { now: string; given?: Given; want: string }> = {
    'is not due before its place in the last fifth of its interval': {
      now: '2026-03-20T12:00:00Z',
      want: 'NOT_DUE until 2026-03-25T15:43:36',
    },
    'is due from its place on': { now: '2026-03-25T15:43:37Z', want: 'start INTERVAL in 0' },
    'is due long after its deadline, in case nobody looked': {
      now: '2026-09-01T00:00:00Z',
      want: 'start INTERVAL in 0',
    },
    'that nobody could use yet is due at once, whatever its window and blackouts say': {
      now: '2026-03-01T12:01:00Z',
      given: {
        ...fresh,
        rotation: {
          window: { start: '02:00', length: 'PT3H', days: ['MO'], timeZone: 'UTC' },
          blackouts: [{ from: '2026-03-01', to: '2026-03-01' }],
        },
      },
      want: 'start FIRST in 0',
    },
    'that is due waits for its window': {
      now: '2026-03-31T06:00:00Z',
      given: { rotation: { window: { start: '02:00', length: 'PT3H', days: ['MO'], timeZone: 'UTC' } } },
      want: 'OUTSIDE_WINDOW until 2026-04-06T02:00:00',
    },
    'that is due waits for the end of a blackout': {
      now: '2026-04-02T12:00:00Z',
      given: { rotation: { blackouts: [{ from: '2026-04-01', to: '2026-04-05' }] } },
      want: 'BLACKED_OUT until 2026-04-06T00:00:00',
    },
    'is rotated before a blackout that covers the end of its interval': {
      now: '2026-03-22T00:00:00Z',
      given: { rotation: { blackouts: [{ from: '2026-03-24', to: '2026-04-05' }] } },
      want: 'start INTERVAL in 0',
    },
    'ordered to be rotated starts at once, outside its window and in a blackout': {
      now: '2026-03-05T12:00:00Z',
      given: {
        directives: { rotateBefore: new Date('2026-03-05T11:59:58Z') },
        rotation: {
          window: { start: '02:00', length: 'PT3H', days: ['MO'], timeZone: 'UTC' },
          blackouts: [{ from: '2026-03-05', to: '2026-03-05' }],
        },
      },
      want: 'start REQUESTED in 0',
    },
    'whose version is younger than the order has been rotated for it': {
      now: '2026-03-05T12:00:00Z',
      given: { directives: { rotateBefore: new Date('2026-03-01T11:57:59Z') } },
      want: 'NOT_DUE until 2026-03-25T15:43:36',
    },
    'that is revoked starts at once, in the grace of its last rotation, too': {
      now: '2026-03-01T12:05:00Z',
      given: {
        strategy: 'alternate-users',
        directives: { revokeBefore: new Date('2026-03-01T12:04:00Z') },
      },
      want: 'start REVOKED in 0',
    },
    'with two users and an order waits for the grace, as RotateSecret would be refused': {
      now: '2026-03-01T12:05:00Z',
      given: {
        strategy: 'alternate-users',
        directives: { rotateBefore: new Date('2026-03-01T12:04:00Z') },
      },
      want: 'GRACE_RUNNING until 2026-03-02T12:00:00',
    },
    'with two users waits for the grace from the last change, as somebody may have moved AWSCURRENT away and back':
      {
        now: '2026-03-11T12:05:00Z',
        given: {
          strategy: 'alternate-users',
          changedAt: '2026-03-11T12:00:00Z',
          directives: { rotateBefore: new Date('2026-03-11T12:04:00Z') },
        },
        want: 'GRACE_RUNNING until 2026-03-12T12:00:00',
      },
    'ordered by a clock that is fast is rotated once, and once more when that time is past, not once a minute':
      {
        now: '2026-03-01T12:00:30Z',
        given: { directives: { rotateBefore: new Date('2026-03-01T12:08:00Z') } },
        want: 'NOT_DUE until 2026-03-25T15:43:36',
      },
    'ordered by a clock that is fast is rotated at once where its version is old': {
      now: '2026-03-05T12:00:00Z',
      given: { directives: { revokeBefore: new Date('2026-03-05T12:08:00Z') } },
      want: 'start REVOKED in 0',
    },
    'that is to be deleted is left alone, an order notwithstanding': {
      now: '2026-04-05T12:00:00Z',
      given: {
        directives: {
          deleteSince: new Date('2026-04-05T11:00:00Z'),
          revokeBefore: new Date('2026-04-05T11:00:00Z'),
        },
      },
      want: 'ENDING',
    },
    'whose time is over is left alone': {
      now: '2026-04-05T12:00:00Z',
      given: { expiresAt: '2026-04-05T12:00:00Z' },
      want: 'ENDING',
    },
    'whose time is not over yet is rotated': {
      now: '2026-04-05T12:00:00Z',
      given: { expiresAt: '2026-04-05T12:00:01Z' },
      want: 'start INTERVAL in 0',
    },
    'without a secret is left alone': {
      now: '2026-04-05T12:00:00Z',
      given: { secret: 'absent' },
      want: 'DELETED',
    },
    'whose secret is scheduled for deletion is left alone': {
      now: '2026-04-05T12:00:00Z',
      given: { deletedAt: '2026-04-01T00:00:00Z' },
      want: 'DELETED',
    },
    'that could not be read is left alone': {
      now: '2026-04-05T12:00:00Z',
      given: { secret: 'unreadable' },
      want: 'UNREADABLE',
    },
    'whose rotation is switched off is left so, revoked or not': {
      now: '2026-04-05T12:00:00Z',
      given: { rotationEnabled: false, directives: { revokeBefore: new Date('2026-04-05T11:00:00Z') } },
      want: 'ROTATION_DISABLED',
    },
    'that is to adopt a user is never rotated before its secret names that user': {
      now: '2026-04-05T12:00:00Z',
      given: {
        ...fresh,
        adopt: { username: 'legacy', passwordSecret: 'rekey/adopt/legacy', retire: false },
        directives: { revokeBefore: new Date('2026-04-05T11:00:00Z') },
      },
      want: 'adopt',
    },
    'that has adopted a user is rotated when that one is due': {
      now: '2026-04-05T12:00:00Z',
      given: {
        adopt: { username: 'legacy', passwordSecret: 'rekey/adopt/legacy', retire: false },
        versions: [
          ['v1', '2026-03-01T12:00:00Z', 'AWSPREVIOUS'],
          ['v2', '2026-03-01T12:00:05Z', 'AWSCURRENT'],
        ],
        lastRotatedAt: '',
      },
      want: 'start INTERVAL in 0',
    },
    'whose rotation is in flight waits for it': {
      now: '2026-04-05T12:00:00Z',
      given: {
        versions: [
          ['v1', '2026-03-01T12:00:00Z', 'AWSCURRENT'],
          ['v2', '2026-04-05T11:30:01Z', 'AWSPENDING'],
        ],
      },
      want: 'TARGET_BUSY until 2026-04-05T12:00:01',
    },
    'whose rotation has been open for too long waits for a repair, as RotateSecret would be refused': {
      now: '2026-04-05T12:00:00Z',
      given: {
        versions: [
          ['v1', '2026-03-01T12:00:00Z', 'AWSCURRENT'],
          ['v2', '2026-04-05T11:30:00Z', 'AWSPENDING'],
        ],
      },
      want: 'AWAITS_REPAIR',
    },
    'that has no current version waits for a repair': {
      now: '2026-04-05T12:00:00Z',
      given: { versions: [['v1', '2026-03-01T12:00:00Z', 'AWSPREVIOUS']] },
      want: 'AWAITS_REPAIR',
    },
    'with both labels on one version has no rotation in flight: AWS leaves them so at times': {
      now: '2026-04-05T12:00:00Z',
      given: {
        versions: [
          ['v1', '2026-02-01T12:00:00Z', 'AWSPREVIOUS'],
          ['v2', '2026-03-01T12:00:00Z', 'AWSCURRENT', 'AWSPENDING'],
        ],
      },
      want: 'start INTERVAL in 0',
    },
    'counts its interval from a value that was put in by hand': {
      now: '2026-04-05T12:00:00Z',
      given: {
        versions: [
          ['v1', '2026-03-01T12:00:00Z', 'AWSPREVIOUS'],
          ['v2', '2026-04-01T12:00:00Z', 'AWSCURRENT'],
        ],
      },
      want: 'NOT_DUE until 2026-04-25T15:43:36',
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { now, given = {}, want }) => {
    expect(verdict(now, given)).toBe(want);
  });

  test('is in flight, too, where the list of versions does not have the new one yet', () => {
    const lagging = candidate({
      versions: [['v1', '2026-03-01T12:00:00Z', 'AWSCURRENT']],
    });
    const { secret } = lagging;
    if (typeof secret === 'string') throw new Error('it has a secret');
    const described = {
      ...secret,
      labelsByVersion: new Map([...secret.labelsByVersion, ['v2', new Set(['AWSPENDING'])]]),
      changedAt: new Date('2026-04-05T11:59:00Z'),
    };
    expect(verdicts(plan('2026-04-05T12:00:00Z', { ...lagging, secret: described }))).toEqual([
      'orders-api: TARGET_BUSY until 2026-04-05T12:29:00',
    ]);
  });

  test('is in flight, too, where the description lags behind the list', () => {
    const listed = candidate({
      versions: [
        ['v1', '2026-03-01T12:00:00Z', 'AWSCURRENT'],
        ['v2', '2026-04-05T11:59:00Z', 'AWSPENDING'],
      ],
    });
    const stale = candidate({ versions: [['v1', '2026-03-01T12:00:00Z', 'AWSCURRENT']] });
    expect(verdicts(plan('2026-04-05T12:00:00Z', { ...listed, secret: stale.secret }))).toEqual([
      'orders-api: TARGET_BUSY until 2026-04-05T12:29:00',
    ]);
  });
});

const week = ['MO', 'TU', 'WE', 'TH', 'FR', 'SA', 'SU'] as const;

/** Rotated last long enough ago that it is due in April. */
const due = (name: string, given: Given = {}): Candidate => candidate({ name, ...given });
const april = '2026-04-05T12:00:00Z';
const elsewhere = { targetId: 'b-target' };

describe('on one target', () => {
  test('one rotation starts at a time: the one that is overdue the longest', () => {
    expect(
      verdicts(
        plan(
          april,
          due('a'),
          due('b', {
            lastRotatedAt: '2026-02-01T12:00:00Z',
            versions: [['v1', '2026-02-01T12:00:00Z', 'AWSCURRENT']],
          }),
          due('c', elsewhere),
        ),
      ),
    ).toEqual(['b: start INTERVAL in 0', 'a: TARGET_BUSY', 'c: start INTERVAL in 0']);
  });

  test('what is revoked goes before what was requested, and both before what is overdue', () => {
    const rotateBefore = new Date('2026-04-05T11:00:00Z');
    expect(
      verdicts(
        plan(
          april,
          due('a'),
          due('b', { directives: { rotateBefore } }),
          due('c', { directives: { revokeBefore: new Date('2026-04-05T11:59:00Z') } }),
        ),
      ),
    ).toEqual(['c: start REVOKED in 0', 'b: TARGET_BUSY', 'a: TARGET_BUSY']);
  });

  test('nothing starts beside a rotation in flight, not even what is revoked, and its own does not count as urgent', () => {
    const inFlight: Given['versions'] = [
      ['v1', '2026-04-01T12:00:00Z', 'AWSCURRENT'],
      ['v2', '2026-04-05T11:50:00Z', 'AWSPENDING'],
    ];
    const { rotations } = plan(
      april,
      due('a', { versions: inFlight, directives: { rotateBefore: new Date('2026-04-05T11:49:00Z') } }),
      due('b', { directives: { revokeBefore: new Date('2026-04-05T11:59:00Z') } }),
    );
    expect(
      rotations.map(({ candidate: { name }, isUrgent, verdict }) => [name, isUrgent, text(verdict)]),
    ).toEqual([
      ['b', true, 'TARGET_BUSY until 2026-04-05T12:20:00'],
      ['a', false, 'TARGET_BUSY until 2026-04-05T12:20:00'],
    ]);
  });

  test('a rotation in flight that began before an order does not carry it out', () => {
    const { rotations } = plan(
      april,
      due('a', {
        versions: [
          ['v1', '2026-04-01T12:00:00Z', 'AWSCURRENT'],
          ['v2', '2026-04-05T11:50:00Z', 'AWSPENDING'],
        ],
        directives: { revokeBefore: new Date('2026-04-05T11:51:00Z') },
      }),
    );
    expect(rotations[0]?.isUrgent).toBe(true);
  });

  test('ten minutes lie between two starts, but an order does not wait for them', () => {
    const justDone = due('a', {
      versions: [
        ['v1', '2026-03-01T12:00:00Z', 'AWSPREVIOUS'],
        ['v2', '2026-04-05T11:55:00Z', 'AWSCURRENT'],
      ],
      lastRotatedAt: '2026-04-05T11:56:00Z',
    });
    expect(verdicts(plan(april, justDone, due('b')))[0]).toBe('b: SPACING until 2026-04-05T12:05:00');
    expect(verdicts(plan('2026-04-05T12:05:00Z', justDone, due('b')))[0]).toBe('b: start INTERVAL in 0');
    expect(
      verdicts(
        plan(april, justDone, due('b', { directives: { rotateBefore: new Date('2026-04-05T11:59:00Z') } })),
      )[0],
    ).toBe('b: start REQUESTED in 0');
  });

  test('the first value of a new secret is no start', () => {
    expect(
      verdicts(
        plan(
          '2026-04-05T12:00:00Z',
          due('a', { ...fresh, versions: [['v1', '2026-04-05T11:59:00Z', 'AWSCURRENT']] }),
          due('b'),
        ),
      ),
    ).toEqual(['b: start INTERVAL in 0', 'a: TARGET_BUSY']);
  });

  test('only a revocation starts while nobody knows about one of its credentials', () => {
    const unknown = due('z', { secret: 'unreadable' });
    expect(verdicts(plan(april, due('a'), unknown))).toEqual(['a: TARGET_BUSY', 'z: UNREADABLE']);
    const revoked = due('a', { directives: { revokeBefore: new Date('2026-04-05T11:59:00Z') } });
    expect(verdicts(plan(april, revoked, unknown))).toEqual(['a: start REVOKED in 0', 'z: UNREADABLE']);
    expect(plan(april, due('a'), unknown).targets[0]?.isWhole).toBe(false);
  });
});

/** Failed at these times on the day of `april`, and abandoned. */
const failing = (name: string, ...times: readonly string[]): Candidate =>
  due(name, {
    versions: [
      ['v0', '2026-01-01T12:00:00Z', 'AWSPREVIOUS'],
      ['v1', '2026-03-01T11:58:00Z', 'AWSCURRENT'],
      ...times.map(
        (time, index) => [`f${index}`, time.includes('T') ? time : `2026-04-05T${time}:00Z`] as const,
      ),
    ],
  });
/** Stuck since then, and open still. */
const stuckSince = (name: string, ...times: readonly string[]): Candidate => {
  const { versions, ...rest } = failing(name, ...times);
  return {
    ...rest,
    versions: versions.map((version, index) =>
      index === versions.length - 1 ? { ...version, labels: new Set(['AWSPENDING']) } : version,
    ),
  };
};
const succeededAt = (name: string, time: string): Candidate =>
  due(name, {
    versions: [
      ['v0', '2026-01-01T12:00:00Z', 'AWSPREVIOUS'],
      ['v1', `2026-04-05T${time}:00Z`, 'AWSCURRENT'],
    ],
    lastRotatedAt: `2026-04-05T${time}:30Z`,
  });
const ordered = (
  one: Candidate,
  order: 'rotateBefore' | 'revokeBefore',
  at = '2026-04-05T11:59:00Z',
): Candidate => ({ ...one, directives: { [order]: new Date(at) } });

describe('a credential whose rotations keep failing', () => {
  const quarantineOf = (now: string, one: Candidate) => plan(now, one).rotations[0]?.quarantine;

  test('is held after the third failure, for an hour from the last one', () => {
    expect(quarantineOf(april, failing('a', '09:00', '11:30'))).toBeUndefined();
    expect(verdicts(plan(april, failing('a', '09:00', '11:30')))).toEqual(['a: start INTERVAL in 0']);
    const third = failing('a', '09:00', '10:00', '11:30');
    expect(quarantineOf(april, third)).toEqual({
      failures: 3,
      firstFailedAt: new Date('2026-04-05T09:00:00Z'),
      until: new Date('2026-04-05T12:30:00Z'),
    });
    expect(verdicts(plan(april, third))).toEqual(['a: QUARANTINED until 2026-04-05T12:30:00']);
    expect(verdicts(plan('2026-04-05T12:30:00Z', third))).toEqual(['a: start INTERVAL in 0']);
  });

  test('is held twice as long after each further failure, up to a day', () => {
    expect(quarantineOf(april, failing('a', '08:00', '09:00', '10:00', '11:00'))?.until).toEqual(
      new Date('2026-04-05T13:00:00Z'),
    );
    const many = failing('a', ...Array.from({ length: 20 }, (_, index) => `11:${10 + index}`));
    expect(quarantineOf(april, many)?.until).toEqual(new Date('2026-04-06T11:29:00Z'));
  });

  test('counts an open rotation once it has had its time', () => {
    const stuck = stuckSince('a', '09:00', '10:00', '11:30');
    expect(quarantineOf('2026-04-05T11:59:59Z', stuck)).toBeUndefined();
    expect(quarantineOf(april, stuck)?.failures).toBe(3);
  });

  test('starts anew with a success of its own, and not with one of a neighbour', () => {
    const recovered = due('a', {
      versions: [
        ['v0', '2026-01-01T12:00:00Z', 'AWSPREVIOUS'],
        ['f1', '2026-02-01T12:00:00Z'],
        ['f2', '2026-02-02T12:00:00Z'],
        ['f3', '2026-02-03T12:00:00Z'],
        ['v1', '2026-03-01T11:58:00Z', 'AWSCURRENT'],
      ],
      lastRotatedAt: '',
    });
    expect(quarantineOf(april, recovered)).toBeUndefined();
    expect(
      verdicts(plan(april, failing('a', '09:00', '10:00', '11:30'), succeededAt('b', '11:45'))),
    ).toContain('a: QUARANTINED until 2026-04-05T12:30:00');
  });

  test('I28: takes no turn from its neighbours, however often it fails and whatever was ordered for it', () => {
    const open = failing('a', '09:00', '10:00', '11:00', '11:30', '11:40');
    const held = 'a: QUARANTINED until 2026-04-05T15:40:00';
    expect(verdicts(plan(april, open, due('b')))).toEqual(['b: start INTERVAL in 0', held]);
    expect(verdicts(plan(april, ordered(open, 'rotateBefore'), due('b')))).toEqual([
      'b: start INTERVAL in 0',
      held,
    ]);
    // Once its pause is over, too, and where one failure was no quarantine yet.
    const late = '2026-04-05T15:40:00Z';
    expect(verdicts(plan(late, open, due('b')))).toEqual(['b: start INTERVAL in 0', 'a: TARGET_BUSY']);
    expect(verdicts(plan(april, failing('a', '11:00'), due('b')))).toEqual([
      'b: start INTERVAL in 0',
      'a: TARGET_BUSY',
    ]);
  });

  test('I28: keeps no neighbour at a distance, as a rotation that failed has changed nothing', () => {
    expect(verdicts(plan(april, failing('a', '09:00', '10:00', '11:55'), due('b')))).toContain(
      'b: start INTERVAL in 0',
    );
  });

  test('is revoked all the same, after the neighbours that are due', () => {
    const open = ordered(failing('a', '09:00', '10:00', '11:30'), 'revokeBefore');
    expect(verdicts(plan(april, open))).toEqual(['a: start REVOKED in 0']);
    expect(verdicts(plan(april, open, due('b')))).toEqual(['b: start INTERVAL in 0', 'a: TARGET_BUSY']);
    // The neighbour has been rotated, and the next pass comes.
    expect(verdicts(plan('2026-04-05T12:05:00Z', open, succeededAt('b', '12:01'), due('c')))).toContain(
      'a: start REVOKED in 0',
    );
  });

  test('is revoked in a crowded window, too, as soon as the rotation of a neighbour has ended', () => {
    const crowd = Array.from({ length: 1_000 }, (_, index) => due(`m${index}`));
    const open = ordered(failing('a', '09:00', '10:00', '11:30'), 'revokeBefore');
    const starts = (now: string, ...all: readonly Candidate[]) =>
      verdicts(plan(now, ...all)).filter((line) => line.includes('start'));
    expect(starts(april, open, ...crowd)).toEqual(['m0: start INTERVAL in 0']);
    expect(starts('2026-04-05T12:00:45Z', open, succeededAt('m0', '12:00'), ...crowd.slice(1))).toEqual([
      'a: start REVOKED in 0',
    ]);
  });

  test('is named to the operator with its failures, the next try and what to do', () => {
    const [rotation] = plan(april, failing('a', '09:00', '10:00', '11:30')).rotations;
    if (rotation === undefined) throw new Error('there is one');
    expect(quarantineFindings(rotation)).toEqual([
      {
        kind: 'RotationQuarantined',
        provider: 'cockroachdb-cloud',
        target: parsed.targetId,
        credential: 'a',
        details:
          '3 rotations of a have failed one after the other since 2026-04-05T09:00:00.000Z; rekey tries the next one at 2026-04-05T12:30:00.000Z, and later ones at the latest a day after each failure, once its window is open',
        remedy:
          'do what README.md says for the code of the last CredentialRotationFailed of a; the next rotation that succeeds ends the quarantine',
      },
    ]);
    const [healthy] = plan(april, due('a')).rotations;
    expect(healthy && quarantineFindings(healthy)).toEqual([]);
  });
});

describe('the breaker of a target', () => {
  const stateOf = (now: string, ...candidates: readonly Candidate[]) =>
    plan(now, ...candidates).targets[0]?.breaker;

  test('is never opened by one credential alone', () => {
    const often = failing('a', ...Array.from({ length: 20 }, (_, index) => `11:${10 + index}`));
    expect(stateOf(april, often)).toEqual({ state: 'closed', failures: 20 });
    expect(stateOf(april, often, due('b'))).toEqual({ state: 'closed', failures: 20 });
  });

  test('opens with the second credential that fails, for an hour from then', () => {
    const given = [failing('a', '09:00', '11:45'), failing('b', '11:30')];
    expect(stateOf(april, ...given)).toEqual({
      state: 'opened',
      failures: 3,
      until: new Date('2026-04-05T12:30:00Z'),
    });
    expect(verdicts(plan(april, ...given, due('c')))).toEqual([
      'c: BREAKER_OPEN until 2026-04-05T12:30:00',
      'b: BREAKER_OPEN until 2026-04-05T12:30:00',
      'a: BREAKER_OPEN until 2026-04-05T12:30:00',
    ]);
  });

  test('stays open twice as long with each further credential, up to a day, and no longer for their retries', () => {
    const given = [failing('a', '10:00', '11:50'), failing('b', '10:10', '11:51'), failing('c', '11:20')];
    expect(verdicts(plan(april, ...given, due('d')))).toContain('d: BREAKER_OPEN until 2026-04-05T13:20:00');
    expect(verdicts(plan('2026-04-05T13:20:00Z', ...given, due('d')))).toContain('d: start INTERVAL in 0');
    const all = Array.from({ length: 20 }, (_, index) => failing(`c${index}`, `11:${10 + index}`));
    expect(stateOf(april, ...all)?.until).toEqual(new Date('2026-04-06T11:29:00Z'));
  });

  test('counts an open rotation once it has had its time', () => {
    const given = [failing('a', '09:00'), stuckSince('b', '11:30')];
    expect(stateOf('2026-04-05T11:59:59Z', ...given)).toEqual({ state: 'closed', failures: 1 });
    expect(stateOf(april, ...given)).toMatchObject({ state: 'opened', failures: 2 });
  });

  test('lets exactly one rotation try when its time is over: that of the credential that was tried least recently', () => {
    const given = [failing('a', '09:00', '10:55'), failing('b', '10:50'), due('c')];
    expect(stateOf(april, ...given)).toEqual({ state: 'half-open', failures: 3 });
    expect(verdicts(plan(april, ...given))).toEqual([
      'c: start INTERVAL in 0',
      'b: TARGET_BUSY',
      'a: TARGET_BUSY',
    ]);
    // An order that failed as well gets no trial before them.
    const requested = ordered(failing('d', '10:58'), 'rotateBefore', '2026-04-05T10:57:00Z');
    expect(verdicts(plan('2026-04-05T14:00:00Z', ...given.slice(1), requested))).toEqual([
      'c: start INTERVAL in 0',
      'd: TARGET_BUSY',
      'b: TARGET_BUSY',
    ]);
  });

  test('gives one trial although the vendor could take more at once, and does not count that of a quarantine', () => {
    const parallel = (one: Candidate): Candidate => ({
      ...one,
      spec: spec({ name: one.name, parallelRotations: 3 }),
    });
    const given = [failing('a', '09:00'), failing('b', '10:30'), due('c'), due('d')].map(parallel);
    const starts = verdicts(plan(april, ...given)).filter((line) => line.includes('start'));
    expect(starts).toEqual(['c: start INTERVAL in 0']);
    expect(plan(april, ...given).targets.map(({ maxInFlight }) => maxInFlight)).toEqual([1]);
    // Nor one a minute, as many as are due: the outcome of the first is not known yet.
    const crowd = Array.from({ length: 1_000 }, (_, index) => due(`m${index}`));
    expect(
      verdicts(plan(april, failing('a', '09:00'), failing('b', '10:30'), ...crowd)).filter((line) =>
        line.includes('start'),
      ),
    ).toHaveLength(1);
    // Open for the others, while the pause of this one is over.
    const ill = failing('a', '07:00', '08:00', '09:00');
    expect(verdicts(plan(april, ill, failing('b', '11:30'), due('c')))).toEqual([
      'c: BREAKER_OPEN until 2026-04-05T12:30:00',
      'a: start INTERVAL in 0',
      'b: BREAKER_OPEN until 2026-04-05T12:30:00',
    ]);
  });

  test('is closed by a success of any credential after them', () => {
    const given = [failing('a', '09:00', '10:00'), failing('b', '11:00'), succeededAt('c', '11:39')];
    expect(stateOf(april, ...given)).toEqual({ state: 'closed', failures: 0 });
  });

  test('I28: is not opened by one failure beside credentials that were ill while another one succeeded', () => {
    const ill = ['a', 'b'].map((name) => failing(name, '07:00', '08:00', '09:00', '11:00'));
    expect(stateOf(april, ...ill)).toMatchObject({ state: 'half-open', failures: 8 });
    const given = [...ill, succeededAt('c', '10:00'), failing('d', '11:30'), due('e')];
    expect(stateOf(april, ...given)).toEqual({ state: 'closed', failures: 1 });
    expect(verdicts(plan(april, ...given))).toContain('e: start INTERVAL in 0');
  });

  test('does not keep a revocation, but does keep what was requested', () => {
    const given = [failing('a', '11:20'), failing('b', '11:30')];
    expect(verdicts(plan(april, ...given, ordered(due('c'), 'revokeBefore')))).toContain(
      'c: start REVOKED in 0',
    );
    expect(verdicts(plan(april, ...given, ordered(due('c'), 'rotateBefore')))).toContain(
      'c: BREAKER_OPEN until 2026-04-05T12:30:00',
    );
  });
});

describe('the budget of an API key', () => {
  const onTargets = (count: number, given: Given = {}): readonly Candidate[] =>
    Array.from({ length: count }, (_, index) => due(`c${index}`, { targetId: `t${index}`, ...given }));

  test('is half of what the vendor takes a minute, spread over the minutes until the next pass', () => {
    // Ten writes a minute, five of them for us: two rotations of two writes.
    const given = onTargets(12, { writes: { perMinute: 10, perRotation: 2 } });
    expect(verdicts(plan(april, ...given)).map((line) => line.replace(/^c\d+: /, ''))).toEqual([
      ...['start INTERVAL in 0', 'start INTERVAL in 0', 'start INTERVAL in 1', 'start INTERVAL in 1'],
      ...['start INTERVAL in 2', 'start INTERVAL in 2', 'start INTERVAL in 3', 'start INTERVAL in 3'],
      ...['start INTERVAL in 4', 'start INTERVAL in 4'],
      ...['BUDGET until 2026-04-05T12:05:00', 'BUDGET until 2026-04-05T12:05:00'],
    ]);
  });

  test('gives a rotation that takes more than a minute’s share the minutes that it takes', () => {
    const given = onTargets(4, { writes: { perMinute: 4, perRotation: 4 } });
    expect(verdicts(plan(april, ...given))).toEqual([
      'c0: start INTERVAL in 0',
      'c1: start INTERVAL in 2',
      'c2: start INTERVAL in 4',
      'c3: BUDGET until 2026-04-05T12:05:00',
    ]);
  });

  test('counts what was started in the last minute, and nothing of other keys', () => {
    const writes = { perMinute: 4, perRotation: 2 };
    const justStarted = due('z', {
      writes,
      targetId: 'z',
      versions: [
        ['v1', '2026-04-01T11:58:00Z', 'AWSCURRENT'],
        ['v2', '2026-04-05T11:59:30Z', 'AWSPENDING'],
      ],
    });
    const [first, other] = onTargets(2, { writes });
    if (first === undefined || other === undefined) throw new Error('there are two');
    const foreign = { ...other, spec: { ...other.spec, apiKeySecret: 'rekey/api-keys/other' } };
    expect(verdicts(plan(april, first, foreign, justStarted)).slice(0, 2)).toEqual([
      'c0: start INTERVAL in 1',
      'c1: start INTERVAL in 0',
    ]);
  });

  test('starts nothing in a minute in which the window has closed', () => {
    const given = onTargets(2, {
      writes: { perMinute: 2, perRotation: 1 },
      rotation: { window: { start: '10:00', length: 'PT2H1M', days: ['SU'], timeZone: 'UTC' } },
    });
    expect(verdicts(plan(april, ...given))).toEqual([
      'c0: start INTERVAL in 0',
      'c1: OUTSIDE_WINDOW until 2026-04-12T10:00:00',
    ]);
  });
});

describe('rotations of one target at once', () => {
  const inFlight = (name: string, since: string, given: Given = {}): Candidate =>
    due(name, {
      ...given,
      versions: [
        ['v1', '2026-03-01T12:00:00Z', 'AWSCURRENT'],
        ['v2', `2026-04-05T${since}:00Z`, 'AWSPENDING'],
      ],
    });
  const orderedNow = (name: string, given: Given): Candidate => ordered(due(name, given), 'rotateBefore');

  test('are as many as its vendor can take', () => {
    const given: Given = { parallelRotations: 2 };
    const both = ['a', 'b', 'c'].map((name) => orderedNow(name, given));
    expect(verdicts(plan(april, ...both))).toEqual([
      'a: start REQUESTED in 0',
      'b: start REQUESTED in 0',
      'c: TARGET_BUSY',
    ]);
    expect(plan(april, ...both).targets.map(({ maxInFlight }) => maxInFlight)).toEqual([2]);
    const [one] = both;
    if (one === undefined) throw new Error('there are three');
    expect(verdicts(plan(april, one, inFlight('x', '11:50', given)))).toContain('a: start REQUESTED in 0');
    expect(
      verdicts(plan(april, one, inFlight('x', '11:50', given), inFlight('y', '11:40', given))),
    ).toContain('a: TARGET_BUSY until 2026-04-05T12:10:00');
  });

  test('leave a place to the routine ones of a crowded window beside one in flight', () => {
    const given: Given = { parallelRotations: 2 };
    const crowd = Array.from({ length: 2_000 }, (_, index) => due(`m${index}`, given));
    const starts = plan(april, inFlight('x', '11:50', given), ...crowd).rotations.flatMap(
      ({ verdict: says }) => (says.say === 'start' ? [says.inMinutes] : []),
    );
    expect(starts).toEqual([0, 1, 2, 3, 4]);
  });

  test('do not make routine rotations follow each other any sooner, where there is time', () => {
    const given: Given = { parallelRotations: 2 };
    expect(verdicts(plan(april, inFlight('x', '11:55', given), due('a', given)))).toContain(
      'a: SPACING until 2026-04-05T12:05:00',
    );
  });
});

describe('the spacing of a target', () => {
  const sundays = { window: { start: '11:00', length: 'PT2H', days: ['SU'], timeZone: 'UTC' } } as const;
  const many = (count: number, given: Given = {}): readonly Candidate[] =>
    Array.from({ length: count }, (_, index) =>
      due(`c${String(index).padStart(4, '0')}`, {
        rotation: { ...sundays, window: { ...sundays.window, days: ['SU'] } },
        ...given,
      }),
    );
  const startsOf = (now: string, ...candidates: readonly Candidate[]): readonly number[] =>
    plan(now, ...candidates).rotations.flatMap(({ verdict: says }) =>
      says.say === 'start' ? [says.inMinutes] : [],
    );

  test('is ten minutes where the window has time for all that are due in it', () => {
    // An hour is left for six.
    expect(startsOf(april, ...many(6))).toEqual([0]);
  });

  test('is what the window needs where more are due in it', () => {
    // An hour is left for thirty, so two minutes for each; the next pass comes in five.
    expect(startsOf(april, ...many(30))).toEqual([0, 2, 4]);
  });

  test('counts what is going to be due before the window closes', () => {
    const now = '2026-04-05T11:00:00Z';
    // The place of each is in these two hours, as the Sunday after them is kept in reserve.
    const later = many(60, {
      lastRotatedAt: '2026-03-15T12:00:00Z',
      versions: [['v1', '2026-03-15T11:58:00Z', 'AWSCURRENT']],
    });
    expect(startsOf(now, ...later)).toEqual([]);
    const [one, other] = many(2, { lastRotatedAt: '2026-03-01T12:00:00Z' });
    if (one === undefined || other === undefined) throw new Error('there are two');
    const named = [
      { ...one, name: 'one' },
      { ...other, name: 'other' },
    ];
    expect(startsOf(now, ...named)).toEqual([0]);
    expect(startsOf(now, ...named, ...later)).toEqual([0, 1]);
  });

  test('leaves nothing of the window unused by the passes, and keeps what the vendor can take', () => {
    expect(startsOf(april, ...many(1_000))).toEqual([0, 1, 2, 3, 4]);
    expect(startsOf(april, ...many(1_000, { parallelRotations: 3 }))).toEqual([
      0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4,
    ]);
    // Half of four writes a minute, and eight for each: one rotation in four minutes.
    expect(startsOf(april, ...many(1_000, { writes: { perMinute: 4, perRotation: 8 } }))).toEqual([0, 4]);
  });

  test('is never less than a rotation takes, whenever the passes come', () => {
    const now = '2026-04-05T12:00:20Z';
    expect(startsOf(now, succeededAt('z', '12:00'), ...many(1_000))).toEqual([1, 2, 3, 4]);
  });

  test('gives a first rotation half an hour, however many there are', () => {
    const made: Given = { ...fresh, versions: [['v1', '2026-04-05T11:59:00Z', 'AWSCURRENT']] };
    expect(startsOf(april, ...many(3, made))).toEqual([0]);
    expect(startsOf(april, ...many(15, made))).toEqual([0, 2, 4]);
  });

  test('is ten minutes, too, between credentials that have no window', () => {
    const always = many(100, { rotation: {} });
    expect(startsOf(april, ...always.slice(0, 50))).toEqual([0]);
    // A day for a thousand of them.
    expect(startsOf(april, ...many(1_000, { rotation: {} }))).toEqual([0, 1, 2, 4]);
  });

  test('lets no invocation sleep until a later minute while an order waits', () => {
    const other = ordered(due('other', elsewhere), 'rotateBefore');
    expect(
      plan(april, ...many(1_000), other)
        .rotations.map(({ verdict: says }) => text(says))
        .filter((says) => says.startsWith('start')),
    ).toEqual(['start REQUESTED in 0', 'start INTERVAL in 0']);
  });
});

/** What becomes of versions, minute by minute, where each start succeeds at once or fails and is given up at once. */
function liveThrough({
  from,
  days,
  isPass = () => true,
  credentials,
  isBroken = () => false,
  onStart = () => undefined,
}: {
  readonly from: string;
  readonly days: number;
  /** Whether there is a pass in this minute of the day. @default every five minutes */
  readonly isPass?: (minute: number) => boolean;
  readonly credentials: readonly Candidate[];
  readonly isBroken?: (name: string) => boolean;
  readonly onStart?: (name: string, at: number) => void;
}): ReadonlyMap<string, readonly number[]> {
  const start = Date.parse(from);
  let fleet = [...credentials];
  const at = new Map<string, number[]>(credentials.map(({ name }) => [name, []]));
  for (let now = start; now < start + days * 86_400_000; now += 5 * 60_000) {
    if (!isPass((now / 60_000) % (24 * 60))) continue;
    const starts = new Map(
      plan(new Date(now).toISOString(), ...fleet).rotations.flatMap(
        ({ candidate: { name }, verdict: says }) =>
          says.say === 'start' ? [[name, now + says.inMinutes * 60_000] as const] : [],
      ),
    );
    for (const [name, instant] of starts) {
      at.get(name)?.push(instant);
      onStart(name, instant);
    }
    if (starts.size > 0)
      fleet = fleet.map((one) => {
        const instant = starts.get(one.name);
        return instant === undefined ? one : rotatedAt(one, new Date(instant), isBroken(one.name));
      });
  }
  return at;
}

/** Secrets Manager keeps about a hundred versions. */
function rotatedAt(one: Candidate, instant: Date, fails: boolean): Candidate {
  const { secret, versions } = one;
  if (typeof secret === 'string') throw new Error('it has a secret');
  const made = { versionId: instant.toISOString(), createdAt: instant, labels: new Set<string>() };
  if (fails)
    return { ...one, secret: { ...secret, changedAt: instant }, versions: [...versions.slice(-99), made] };
  const current = versions.find(({ labels }) => labels.has('AWSCURRENT'));
  const labelled = [
    ...(current === undefined ? [] : [{ ...current, labels: new Set(['AWSPREVIOUS']) }]),
    { ...made, labels: new Set(['AWSCURRENT']) },
  ];
  return {
    ...one,
    versions: labelled,
    secret: {
      ...secret,
      changedAt: instant,
      lastRotatedAt: instant,
      labelsByVersion: new Map(labelled.map(({ versionId, labels }) => [versionId, labels])),
    },
  };
}

test('I28: in a hundred days a broken credential is tried once a day, and its healthy neighbours are never late', () => {
  const window = { start: '02:00', length: 'PT2H', days: [...week], timeZone: 'UTC' };
  const healthy = [
    due('monthly'),
    due('weekly', { rotation: { every: 'P7D' } }),
    due('nightly', { rotation: { every: 'P10D', window } }),
    due('on-sundays', { rotation: { every: 'P21D', window: { ...window, days: ['SU'] } } }),
  ];
  const from = '2026-03-20T00:00:00Z';
  const starts = liveThrough({
    from,
    days: 100,
    credentials: [due('broken', { rotation: { every: 'P7D' } }), ...healthy],
    isBroken: (name) => name === 'broken',
  });
  const tries = starts.get('broken') ?? [];
  const [first = 0] = tries;
  const later = tries.filter((at) => at >= first + 86_400_000);
  expect(tries.length).toBeGreaterThan(90);
  expect(tries.length - later.length).toBeLessThanOrEqual(7);
  for (const [index, at] of later.slice(1).entries())
    expect(at - (later[index] ?? 0)).toBeGreaterThanOrEqual(86_400_000);
  for (const { name, spec: wanted } of healthy) {
    const all = starts.get(name) ?? [];
    const days = Number(/\d+/.exec(wanted.rotation.every)?.[0]);
    expect(all.length).toBeGreaterThanOrEqual(Math.floor(100 / days));
    for (const [index, at] of all.slice(1).entries())
      expect(at - (all[index] ?? 0)).toBeLessThanOrEqual(days * 86_400_000);
  }
});

test('a thousand credentials of one target are rotated within their interval, each in its window', () => {
  const window = { start: '02:00', length: 'PT3H', days: [...week], timeZone: 'UTC' };
  const credentials = Array.from({ length: 1_000 }, (_, index) =>
    due(`c${index}`, {
      rotation: { every: 'P30D', window },
      // Declared in one deployment, and rotated for the first time one after the other.
      lastRotatedAt: new Date(Date.parse('2026-03-01T12:00:00Z') + index * 60_000).toISOString(),
      versions: [
        ['v1', new Date(Date.parse('2026-03-01T12:00:00Z') + index * 60_000).toISOString(), 'AWSCURRENT'],
      ],
    }),
  );
  const late: string[] = [];
  const minutes = new Map<number, number>();
  liveThrough({
    from: '2026-03-24T00:00:00Z',
    days: 8,
    // In no other can anything start.
    isPass: (minute) => 110 <= minute && minute < 310,
    credentials,
    onStart: (name, at) => {
      minutes.set(at, (minutes.get(at) ?? 0) + 1);
      const minute = (at / 60_000) % (24 * 60);
      if (minute < 120 || minute >= 300) late.push(`${name} outside its window`);
      if (at > Date.parse('2026-03-31T12:00:00Z') + Number(name.slice(1)) * 60_000) late.push(`${name} late`);
    },
  });
  expect(late).toEqual([]);
  expect([...minutes.values()].reduce((sum, count) => sum + count, 0)).toBe(1_000);
  // One at a time: no two in one minute.
  expect(Math.max(...minutes.values())).toBe(1);
});

test('a plan looks at each credential a bounded number of times: ten times as many cost ten times as much', () => {
  const looksAt = (count: number): number => {
    let looks = 0;
    const counting = <T extends object>(of: T): T =>
      new Proxy(of, {
        get(target, property, receiver) {
          looks += 1;
          return Reflect.get(target, property, receiver);
        },
      });
    const candidates = Array.from({ length: count }, (_, index) => {
      const one = failing(`c${index}`, ...(index % 3 === 0 ? ['09:00', '10:00'] : []));
      return counting({ ...one, versions: one.versions.map(counting) });
    });
    plan(april, ...candidates);
    return looks;
  };
  const thousand = looksAt(1_000);
  expect(thousand).toBeGreaterThan(1_000);
  // The names are compared when sorting, which is a little more than linear.
  expect(looksAt(10_000) / thousand).toBeLessThan(13);
});

test('the same snapshot gives the same plan, in whatever order it comes', () => {
  const all = [
    due('a'),
    due('b', elsewhere),
    due('c'),
    due('d', { directives: { rotateBefore: new Date(april) } }),
  ];
  expect(verdicts(plan(april, ...all.toReversed()))).toEqual(verdicts(plan(april, ...all)));
});

test('two hundred credentials with one interval and one last switch are spread over days', () => {
  const turns = Array.from({ length: 200 }, (_, index) =>
    turnAt({ name: `c${index}`, spec: spec() }, Date.parse('2026-03-01T12:00:00Z'), sha256),
  );
  const days = Map.groupBy(turns, (turn) => new Date(turn).toISOString().slice(0, 10));
  expect([...days.keys()].toSorted()).toEqual([
    '2026-03-24',
    '2026-03-25',
    '2026-03-26',
    '2026-03-27',
    '2026-03-28',
    '2026-03-29',
    '2026-03-30',
  ]);
  expect(Math.max(...[...days.values()].map(({ length }) => length))).toBeLessThan(60);
});

describe('the place in the interval', () => {
  const switchedAt = '2026-03-02T02:03:00Z';
  const days = ['MO', 'TU', 'WE', 'TH', 'FR', 'SA', 'SU'] as const;
  const nights = { start: '02:00', length: 'PT3H', days: [...days], timeZone: 'UTC' };
  const cases: Record<
    string,
    { rotation: Partial<CredentialSpec['rotation']>; from: string; until: string }
  > = {
    'leaves a tenth of a day in reserve where it is always open': {
      rotation: { every: 'P1D' },
      from: '2026-03-02T18:51:00Z',
      until: '2026-03-02T23:39:00Z',
    },
    'leaves a day in reserve of a month': {
      rotation: { every: 'P30D' },
      from: '2026-03-25T02:03:00Z',
      until: '2026-03-31T02:03:00Z',
    },
    'leaves the last window in reserve': {
      rotation: { every: 'P30D', window: { ...nights, days: ['MO'] } },
      from: '2026-03-23T02:00:00Z',
      until: '2026-03-23T05:00:00Z',
    },
    'leaves the last window in reserve, too, where a blackout lies between it and the one before': {
      rotation: {
        every: 'P90D',
        window: { ...nights, days: ['MO'] },
        blackouts: [{ from: '2026-04-25', to: '2026-05-20' }],
      },
      from: '2026-04-13T02:00:00Z',
      until: '2026-04-20T05:00:00Z',
    },
    'is the only window where there is but one': {
      rotation: { every: 'P8D', window: { ...nights, days: ['MO'] } },
      from: '2026-03-09T02:00:00Z',
      until: '2026-03-09T05:00:00Z',
    },
    'moves before a blackout that covers the rest': {
      rotation: { every: 'P30D', blackouts: [{ from: '2026-03-20', to: '2026-04-10' }] },
      from: '2026-03-13T00:00:00Z',
      until: '2026-03-19T00:00:00Z',
    },
    'moves into the first quarter where a blackout leaves nothing else': {
      rotation: { every: 'P30D', blackouts: [{ from: '2026-03-08', to: '2026-04-03' }] },
      from: '2026-03-02T02:03:00Z',
      until: '2026-03-07T00:00:00Z',
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { rotation, from, until }) => {
    const turns = Array.from({ length: 100 }, (_, index) =>
      turnAt({ name: `c${index}`, spec: spec({ rotation }) }, Date.parse(switchedAt), sha256),
    );
    expect(Math.min(...turns)).toBeGreaterThanOrEqual(Date.parse(from));
    expect(Math.max(...turns)).toBeLessThan(Date.parse(until));
    // Spread, not all at the beginning.
    expect(Math.max(...turns) - Math.min(...turns)).toBeGreaterThan(
      0.8 * (Date.parse(until) - Date.parse(from)) - 1_800_000,
    );
  });
});

const anyRotation = fc.record({
  every: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(90, 365, 998)).map((each) => `P${each}D`),
  window: fc.option(
    fc.record({
      start: fc
        .tuple(fc.integer({ min: 0, max: 23 }), fc.integer({ min: 0, max: 59 }))
        .map(([hour, minute]) => `${String(hour).padStart(2, '0')}:${String(minute).padStart(2, '0')}`),
      length: fc.integer({ min: 30, max: 1440 }).map((minutes) => `PT${minutes}M`),
      days: fc.subarray([...week], { minLength: 1 }),
      timeZone: fc.constantFrom(
        'UTC',
        'Europe/Berlin',
        'America/New_York',
        'Australia/Lord_Howe',
        'Antarctica/Troll',
      ),
    }),
    { nil: undefined },
  ),
  blackouts: fc.array(
    fc
      .tuple(fc.integer({ min: -30, max: 120 }), fc.integer({ min: 0, max: 25 }))
      .map(([day, length]) => ({ from: dateOf(day), to: dateOf(day + length) })),
    { maxLength: 4 },
  ),
});
const dateOf = (day: number): string =>
  new Date(Date.UTC(2026, 2, 1) + day * 86_400_000).toISOString().slice(0, 10);

test('passes every 15 minutes start any credential inside an opening and before its deadline, if its spec is valid', () => {
  const seen = { rested: 0, windows: 0, blackouts: 0 };
  fc.assert(
    fc.property(
      anyRotation,
      fc.constantFrom('replace-user', 'alternate-users' as const),
      fc.integer({ min: 0, max: 96 * 60 }),
      fc.integer({ min: 0, max: 899 }),
      fc.string({ minLength: 1, maxLength: 8 }),
      ({ window, ...rest }, strategy, minutes, phase, name) => {
        const wanted = spec({
          strategy: strategy === 'alternate-users' ? strategy : 'replace-user',
          rotation: { ...rest, ...(window === undefined ? {} : { window }) },
        });
        fc.pre(calendarFaults(wanted.rotation, restMs(wanted)).length === 0);
        const switchedAt = Date.UTC(2026, 2, 1) + minutes * 60_000;
        const everyMs = Number(/\d+/.exec(rest.every)?.[0]) * 86_400_000;
        const made = new Date(switchedAt).toISOString();
        const given = {
          ...candidate({
            name,
            lastRotatedAt: made,
            versions: [
              ['v1', '2025-01-01T00:00:00Z', 'AWSPREVIOUS'],
              ['v2', made, 'AWSCURRENT'],
            ],
          }),
          spec: { ...wanted, name },
        };
        // Passes at which nothing can happen by their own word are left out, but for the one just before.
        let pass = switchedAt + phase * 1_000;
        for (;;) {
          const { rotations } = planRotations({ now: new Date(pass), candidates: [given] }, sha256);
          const says = rotations[0]?.verdict;
          if (says?.say === 'start') break;
          const until = says?.say === 'hold' ? (says.until?.getTime() ?? 0) : 0;
          const next = Math.floor((until - pass) / 900_000);
          pass += Math.max(1, next) * 900_000;
          if (pass > switchedAt + everyMs) break;
        }
        expect(pass).toBeLessThan(switchedAt + everyMs);
        const at = new Date(pass);
        expect(openings(wanted.rotation, at, at)).toHaveLength(1);
        expect(pass).toBeGreaterThanOrEqual(switchedAt + restMs(wanted));
        // In the first quarter only where nothing after it is open for long enough.
        const quarter = switchedAt + everyMs / 4;
        const later = openings(wanted.rotation, new Date(quarter), new Date(switchedAt + everyMs)).map(
          (opening) =>
            Math.min(opening.until.getTime(), switchedAt + everyMs) -
            Math.max(opening.from.getTime(), quarter, switchedAt + restMs(wanted)),
        );
        if (pass < quarter) expect(Math.max(0, ...later)).toBeLessThan(1_800_000);
        if (restMs(wanted) > 0) seen.rested += 1;
        if (window !== undefined) seen.windows += 1;
        if (rest.blackouts.length > 0) seen.blackouts += 1;
      },
    ),
    { numRuns: 600 },
  );
  // The run was worth looking at.
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
});
