import { describe, expect, test } from 'vitest';
import { durationMs } from '../../functions/core/duration.ts';
import { InputError } from '../../functions/core/errors.ts';
import { parseSpec, specDocument } from '../../functions/core/spec.ts';
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

const wrong = async (document: unknown): Promise<string> => {
  const error = await parseSpec(document, loadProvider).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InputError);
  return (error as InputError).message;
};

describe('a spec', () => {
  test('is filled up with defaults', async () => {
    const { definition, ...spec } = await parseSpec(cockroach, loadProvider);
    expect(definition.id).toBe('cockroachdb-cloud');
    expect(spec).toEqual({
      ...cockroach,
      target: { clusterId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10', database: 'defaultdb' },
      targetId: '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10',
      strategy: 'replace-user',
      privileges: { roles: [] },
      rotation: { every: 'P30D' },
      grace: 'PT24H',
      verify: 'login',
    });
  });

  test('is the same document however its fields are ordered', async () => {
    const one = await parseSpec(render, loadProvider);
    const other = await parseSpec(Object.fromEntries(Object.entries(render).reverse()), loadProvider);
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
