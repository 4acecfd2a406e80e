import { describe, expect, test } from 'vitest';
import {
  firstSecretString,
  parseApiKey,
  parseSecretValue,
  parseUser,
  secretString,
} from '../../functions/core/secret-value.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { cockroachdbCloud } from '../../functions/providers/cockroachdb-cloud/provider.ts';
import { renderPostgres } from '../../functions/providers/render-postgres/provider.ts';

const login = {
  host: 'dpg-d1abc2d3e4f5g6h7i8j9-a.oregon-postgres.render.com',
  port: 5432,
  database: 'orders_ehyv',
  username: 'orders_api_abcdefghijkl',
  password: new Sensitive('p@ss/w:rd%20&é'),
};

describe('a secret value', () => {
  test('is never changed in its first form, as CloudFormation would write it over live passwords', () => {
    expect(firstSecretString).toBe('{"rekey":"no user yet; the first rotation makes one"}');
    expect(parseSecretValue(new Sensitive(firstSecretString), 'it')).toEqual({ kind: 'no-user' });
  });

  test('has AWS’s field names and a url that a client can use as it is', () => {
    const stored = secretString(login, {
      definition: renderPostgres,
      targetId: 'dpg-d1abc2d3e4f5g6h7i8j9-a',
    });
    const value: Record<string, unknown> = JSON.parse(stored.reveal());
    expect(Object.keys(value)).toEqual([
      'engine',
      'host',
      'port',
      'username',
      'password',
      'dbname',
      'url',
      'provider',
      'target',
    ]);
    const url = new URL(String(value['url']));
    expect([
      url.username,
      decodeURIComponent(url.password),
      url.hostname,
      url.port,
      url.pathname,
      url.search,
    ]).toEqual([
      'orders_api_abcdefghijkl',
      'p@ss/w:rd%20&é',
      'dpg-d1abc2d3e4f5g6h7i8j9-a.oregon-postgres.render.com',
      '5432',
      '/orders_ehyv',
      '?sslmode=require',
    ]);
  });

  test('gives back the login it was made of, its CA included', () => {
    const withCa = { ...login, ca: '-----BEGIN CERTIFICATE-----\nx' };
    const stored = secretString(withCa, { definition: cockroachdbCloud, targetId: 'c' });
    const value = parseSecretValue(stored, 'it');
    expect(value).toMatchObject({ kind: 'login', provider: 'cockroachdb-cloud', target: 'c' });
    expect(value.kind === 'login' && value.login).toMatchObject({ ...withCa, password: expect.anything() });
    expect(value.kind === 'login' && value.login.password.reveal()).toBe('p@ss/w:rd%20&é');
  });

  const damaged: Record<string, { given: string; says: string }> = {
    'that is not JSON': {
      given: 'hunter2-hunter2',
      says: 'AWSCURRENT: document: invalid input: expected object, received undefined',
    },
    'that is empty': { given: '', says: 'document:' },
    'that is half written': { given: '{"host":"h","password":"hunter2-hunter2"', says: 'document:' },
    'that lacks and twists fields': {
      given: '{"engine":"postgres","host":"","port":"5432","password":"hunter2-hunter2"}',
      says: 'port:',
    },
  };
  test.each(Object.entries(damaged))('%s is refused without a word of it', (_sentence, { given, says }) => {
    const parse = () => parseSecretValue(new Sensitive(given), 'AWSCURRENT');
    expect(parse).toThrow(says);
    expect(parse).toThrow('SECRET_INVALID');
    expect(parse).not.toThrow(/hunter2/);
  });
});

describe('an API key', () => {
  test.each(['rnd_abc', '{"apiKey":"rnd_abc"}', ' rnd_abc\n'])('is read from %j', (stored) => {
    expect(parseApiKey(new Sensitive(stored), 'it').reveal()).toBe('rnd_abc');
  });
  test.each(['', '{"key":"rnd_abc"}', '{broken rnd_abc', 'rnd abc', 'rnd_abc\r\nx-evil: 1'])(
    'is not read from %j, and the error shows nothing of it',
    (stored) => {
      const parse = () => parseApiKey(new Sensitive(stored), 'rekey/api-keys/render');
      expect(parse).toThrow(/^SECRET_INVALID: rekey\/api-keys\/render holds no API key/);
      expect(parse).not.toThrow(/rnd/);
    },
  );
});

test('an administrator is read in AWS’s field names, or refused with the fields that are wrong', () => {
  expect(parseUser(new Sensitive('{"username":"ops","password":"x"}'), 'it').username).toBe('ops');
  expect(() => parseUser(new Sensitive('{"user":"ops"}'), 'rekey/admin/c')).toThrow(/username: .*password: /);
});
