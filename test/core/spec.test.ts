import { describe, expect, test } from 'vitest';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { durationMs } from '../../functions/core/duration.ts';
import { InputError } from '../../functions/core/errors.ts';
import { backstopDays, parseSpec, specDocument } from '../../functions/core/spec.ts';
import { loadProvider } from '../../functions/providers/index.ts';

const render = {
  name: 'orders-api',
  provider: 'render-postgres',
  target: { postgresId: 'dpg-d1abc2d3e4f5g6h7i8j9-a' },
  apiKeySecret: 'rekey/api-keys/render',
  usernamePrefix: 'orders_api',
};
const cockroach = {
  name: 'orders-api',
  provider: 'cockroachdb-cloud',
  target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10' },
  apiKeySecret: 'rekey/api-keys/cockroachdb',
  usernamePrefix: 'orders_api',
};

const windowed = (window: object, rotation: object = {}) => ({
  ...render,
  rotation: { ...rotation, window: { start: '02:00', length: 'PT3H', ...window } },
});

const wrong = async (document: unknown): Promise<string> => {
  const error = await parseSpec(document, { loadProvider, loadConsumer }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InputError);
  return (error as InputError).message;
};

describe('a spec', () => {
  test('is told all that is wrong at once: consumers and times too, whatever else is', async () => {
    const message = await wrong({
      ...cockroach,
      name: 'No Name',
      grace: 'P20D',
      consumers: [{ kind: 'event-bridge', busName: 'no bus' }, { kind: 'nobody' }, {}],
    });
    expect(
      message
        .replace('SPEC_INVALID: ', '')
        .split('; ')
        .map((fault) => fault.split(': ')[0]),
    ).toEqual([
      'name',
      'consumers.2.kind',
      'grace',
      'rotate less often, or shorten the grace',
      'consumers.0.busName',
      'consumers.1.kind',
      'correct the spec and send it again, nothing was changed',
    ]);
  });

  test('is filled up with defaults', async () => {
    const { definition, ...spec } = await parseSpec(cockroach, { loadProvider, loadConsumer });
    expect(definition.id).toBe('cockroachdb-cloud');
    expect(spec).toEqual({
      ...cockroach,
      target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10', database: 'defaultdb' },
      targetId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10',
      strategy: 'replace-user',
      privileges: { roles: [] },
      rotation: { every: 'P30D', blackouts: [] },
      grace: 'PT24H',
      drain: { deadline: 'P7D', force: false },
      consumers: [],
      verify: 'login',
    });
  });

  test('is filled up with defaults in its parts, too', async () => {
    const { rotation, adopt, drain } = await parseSpec(
      {
        ...cockroach,
        rotation: { window: { start: '02:00', length: 'PT3H' } },
        adopt: { username: 'legacy', passwordSecret: 'rekey/adopt/legacy' },
        drain: { deadline: 'P1D' },
      },
      { loadProvider, loadConsumer },
    );
    expect(rotation).toEqual({
      every: 'P30D',
      window: {
        start: '02:00',
        length: 'PT3H',
        days: ['MO', 'TU', 'WE', 'TH', 'FR', 'SA', 'SU'],
        timeZone: 'UTC',
      },
      blackouts: [],
    });
    expect(adopt).toEqual({ username: 'legacy', passwordSecret: 'rekey/adopt/legacy', retire: false });
    expect(drain).toEqual({ deadline: 'P1D', force: false });
  });

  test('is the same after it was stored and read again, consumers and all', async () => {
    const full = {
      ...cockroach,
      rotation: {
        every: 'P30D',
        window: { start: '22:00', length: 'PT4H', days: ['MO'], timeZone: 'Europe/Berlin' },
        blackouts: [{ from: '2026-12-20', to: '2026-12-24' }],
      },
      consumers: [{ kind: 'event-bridge', busName: 'orders' }],
      expiresAt: '2026-12-31T18:00:00+01:00',
      adopt: { username: 'legacy', passwordSecret: 'rekey/adopt/legacy', retire: true },
    };
    const once = await parseSpec(full, { loadProvider, loadConsumer });
    const twice = await parseSpec(JSON.parse(specDocument(once)), { loadProvider, loadConsumer });
    expect(specDocument(twice)).toBe(specDocument(once));
    expect(twice.consumers).toEqual(once.consumers);
  });

  test('has a back-stop two days behind its own interval, and within what Secrets Manager takes', async () => {
    const days = async (every: string) =>
      backstopDays(
        await parseSpec({ ...render, grace: 'PT1H', rotation: { every } }, { loadProvider, loadConsumer }),
      );
    expect([await days('P1D'), await days('P30D'), await days('P998D')]).toEqual([3, 32, 1000]);
  });

  test('is the same document however its fields are ordered', async () => {
    const one = await parseSpec(render, { loadProvider, loadConsumer });
    const other = await parseSpec(Object.fromEntries(Object.entries(render).reverse()), {
      loadProvider,
      loadConsumer,
    });
    expect(specDocument(one)).toBe(specDocument(other));
  });

  test('that is wrong everywhere is answered once, with every field, what was expected and what to do', async () => {
    const message = await wrong({
      ...cockroach,
      name: 'Orders API',
      target: { clusterId: '../..', database: 'x y' },
      apiKeySecret: 'prod/other',
      usernamePrefix: 'Orders',
      privileges: { roles: ['admin', 'Bad Role'] },
      rotation: { every: 'PT3H' },
      grace: 'a day',
      consumer: [],
    });
    for (const field of [
      'name:',
      'target.clusterId:',
      'target.database:',
      'apiKeySecret:',
      'usernamePrefix:',
      'privileges.roles.0:',
      'privileges.roles.1:',
      'rotation.every:',
      'grace:',
      '"consumer"',
    ])
      expect(message).toContain(field);
    expect(message).toContain('SPEC_INVALID');
    expect(message).toContain('nothing was changed');
  });

  const cases: Record<string, { given: unknown; says: string }> = {
    'of an unknown provider says so': { given: { ...render, provider: 'mysql' }, says: 'got "mysql"' },
    'of a provider named like an inherited property says so': {
      given: { ...render, provider: 'constructor' },
      says: 'got "constructor"',
    },
    'with a strategy that the provider lacks names those it has': {
      given: { ...render, strategy: 'reset-password' },
      says: 'strategy: expected one that render-postgres can do (replace-user), got reset-password',
    },
    'that declares privileges on Render is refused, as there are none to declare': {
      given: { ...render, privileges: { roles: ['x'] } },
      says: 'privileges: unrecognized key: "roles"',
    },
    'that skips the login where rights must be taken away is refused': {
      given: { ...cockroach, verify: 'none' },
      says: 'verify: expected login',
    },
    'that is no object names the document': { given: 'orders', says: 'document:' },
    'that is nothing names the document': { given: undefined, says: 'document:' },
    'with an interval under a day is refused: Secrets Manager’s own schedule counts days': {
      given: { ...render, rotation: { every: 'PT12H' } },
      says: 'rotation.every: expected 1 to 998 whole days',
    },
    'with an interval of a part of a day is refused': {
      given: { ...render, rotation: { every: 'P1DT12H' } },
      says: 'rotation.every: expected 1 to 998 whole days',
    },
    'with an interval that leaves no room for the back-stop is refused': {
      given: { ...render, rotation: { every: 'P999D' } },
      says: 'rotation.every: expected 1 to 998 whole days',
    },
    'with a window in an unknown time zone is refused': {
      given: windowed({ timeZone: 'Europe/Bärlin' }),
      says: 'rotation.window.timeZone: expected a time zone of the IANA database',
    },
    'a grace so long that it would begin anew before it ends': {
      given: { ...render, rotation: { every: 'P1D' }, grace: 'PT13H' },
      says: 'grace: expected at most half of rotation.every (P1D), got PT13H',
    },
    'with an offset for a time zone is refused, as it knows no daylight-saving time': {
      given: windowed({ timeZone: '+02:00' }),
      says: 'rotation.window.timeZone: expected a time zone of the IANA database',
    },
    'with a window at a time that no clock shows is refused': {
      given: windowed({ start: '24:00' }),
      says: 'rotation.window.start: expected a time from 00:00 to 23:59',
    },
    'with a window on no day is refused': {
      given: windowed({ days: [] }),
      says: 'rotation.window.days: expected at least one day',
    },
    'with a window on a day that is none is refused': {
      given: windowed({ days: ['MON'] }),
      says: 'rotation.window.days.0:',
    },
    'with a window of no length is refused': {
      given: windowed({ length: 'PT0S' }),
      says: 'rotation.window.length: expected a duration longer than nothing',
    },
    'with a window longer than a day is refused': {
      given: windowed({ length: 'PT25H' }),
      says: 'rotation.window.length: expected at most PT24H',
    },
    'with a window that is too short to be met is refused': {
      given: windowed({ length: 'PT5M' }),
      says: 'rotation.window.length: expected at least PT30M',
    },
    'with an interval that its window cannot keep is refused, with one that it can': {
      given: windowed({ days: ['SA'] }, { every: 'P7D' }),
      says: 'rotation.every: expected at least P8D, got P7D',
    },
    'with an unknown field in its window is refused': {
      given: windowed({ timezone: 'UTC' }),
      says: 'rotation.window: unrecognized key: "timezone"',
    },
    'with a blackout of a date that is none is refused': {
      given: { ...render, rotation: { blackouts: [{ from: '2026-02-30', to: '2026-03-01' }] } },
      says: 'rotation.blackouts.0.from: expected a date such as 2026-12-20',
    },
    'with a blackout that ends before it begins is refused': {
      given: { ...render, rotation: { blackouts: [{ from: '2027-01-03', to: '2026-12-20' }] } },
      says: 'rotation.blackouts.0.to: expected a day not before 2027-01-03',
    },
    'with a blackout that outlasts its interval is refused': {
      given: {
        ...render,
        rotation: { every: 'P7D', blackouts: [{ from: '2026-12-20', to: '2027-01-03' }] },
      },
      says: 'rotation.every: expected at least P16D, got P7D, as the blackouts leave nothing open',
    },
    'with two users whose grace is as long as the interval is refused': {
      given: { ...cockroach, strategy: 'alternate-users', grace: 'P7D', rotation: { every: 'P7D' } },
      says: 'alternate-users waits for the grace',
    },
    'with an end that is no instant is refused': {
      given: { ...render, expiresAt: '2026-12-31' },
      says: 'expiresAt: expected an instant such as 2026-12-31T18:00:00Z',
    },
    'that adopts a user whom rekey could not address is refused': {
      given: { ...cockroach, adopt: { username: '..', passwordSecret: 'rekey/adopt/legacy' } },
      says: 'adopt.username: expected a lower-case letter',
    },
    'that would read the adopted login from anywhere is refused': {
      given: { ...cockroach, adopt: { username: 'legacy', passwordSecret: 'prod/other' } },
      says: 'adopt.passwordSecret: expected the name of a secret under rekey/adopt/',
    },
    'that adopts without saying whom names both fields': {
      given: { ...cockroach, adopt: {} },
      says: 'adopt.username: ',
    },
    'with a consumer of an unknown kind is refused': {
      given: { ...render, consumers: [{ kind: 'event-bridge', busName: 'orders' }, { kind: 'ftp' }] },
      says: 'consumers.1.kind: expected a kind of consumer that rekey has, got "ftp"',
    },
    'with a consumer named like an inherited property is refused': {
      given: { ...render, consumers: [{ kind: 'constructor' }] },
      says: 'consumers.0.kind: expected a kind of consumer that rekey has, got "constructor"',
    },
    'with a consumer that lacks a setting names the setting': {
      given: { ...render, consumers: [{ kind: 'event-bridge' }] },
      says: 'consumers.0.busName: ',
    },
    'with a consumer without a kind is refused': {
      given: { ...render, consumers: [{ busName: 'orders' }] },
      says: 'consumers.0.kind: ',
    },
    'with a deadline that is no duration is refused': {
      given: { ...render, drain: { deadline: 'a week' } },
      says: 'drain.deadline: expected an ISO 8601 duration',
    },
    'with a database id that would fold the path is refused': {
      given: { ...render, target: { postgresId: '..' } },
      says: 'target.postgresId:',
    },
  };
  test.each(Object.entries(cases))('%s', async (_sentence, { given, says }) => {
    expect(await wrong(given)).toContain(says);
  });
});

test.each([
  ['P30D', 2_592_000_000],
  ['PT24H', 86_400_000],
  ['P1DT2H3M4S', 93_784_000],
  ['P2W', 1_209_600_000],
  ['PT0S', 0],
  ['P', undefined],
  ['PT', undefined],
  ['P1M', undefined],
  ['30d', undefined],
  ['P1.5D', undefined],
  ['-P1D', undefined],
])('the duration %s is %s ms', (text, ms) => {
  expect(durationMs(text)).toBe(ms);
});
