import { describe, expect, test } from 'vitest';
import { matchesPattern, parsePattern } from '../../../../../infra/local/aws/event-bridge/pattern.ts';

const event = {
  source: 'aws.secretsmanager',
  'detail-type': 'Secret Label Updated',
  account: '111122223333',
  resources: ['arn:secret:a', 'arn:secret:b'],
  detail: {
    name: 'rekey/orders',
    labelUpdated: 'AWSCURRENT',
    count: 3,
    isLast: false,
    note: null,
    users: [{ name: 'a' }, { name: 'b' }],
  },
};

const matching: Record<string, object> = {
  'every key that is named': { source: ['aws.secretsmanager'], detail: { labelUpdated: ['AWSCURRENT'] } },
  'one of several values': { detail: { labelUpdated: ['blue', 'AWSCURRENT'] } },
  'a number, a boolean and null': { detail: { count: [3], isLast: [false], note: [null] } },
  'one element of a list in the event': { resources: ['arn:secret:b'] },
  'one object of a list in the event': { detail: { users: { name: ['b'] } } },
  'a prefix': { detail: { name: [{ prefix: 'rekey/' }] } },
  'a prefix in any case': { detail: { name: [{ prefix: { 'equals-ignore-case': 'REKEY' } }] } },
  'a suffix': { detail: { name: [{ suffix: 'orders' }] } },
  'a suffix in any case': { detail: { name: [{ suffix: { 'equals-ignore-case': 'ORDERS' } }] } },
  'a text in any case': { detail: { labelUpdated: [{ 'equals-ignore-case': 'awscurrent' }] } },
  'a wildcard': { detail: { name: [{ wildcard: 're*/*s' }] } },
  'anything but a value': { detail: { labelUpdated: [{ 'anything-but': 'AWSPENDING' }] } },
  'anything but several values': {
    detail: { labelUpdated: [{ 'anything-but': ['AWSPENDING', 'AWSPREVIOUS'] }] },
  },
  'anything but a prefix': { detail: { name: [{ 'anything-but': { prefix: 'other/' } }] } },
  'anything but a number': { detail: { count: [{ 'anything-but': 4 }] } },
  'a member that exists': { detail: { name: [{ exists: true }] } },
  'a member that does not exist': {
    detail: { absent: [{ exists: false }] },
    other: { deep: [{ exists: false }] },
  },
  'a number in a range': { detail: { count: [{ numeric: ['>', 2, '<=', 3] }] } },
  'one of several patterns': { $or: [{ source: ['other'] }, { detail: { count: [3] } }] },
  'one of several patterns further down': { detail: { $or: [{ count: [9] }, { name: ['rekey/orders'] }] } },
};

const other: Record<string, object> = {
  'another value': { source: ['rekey'] },
  'one key that is missing': { source: ['aws.secretsmanager'], detail: { absent: ['x'] } },
  'a number against its text': { detail: { count: ['3'] } },
  'another prefix': { detail: { name: [{ prefix: 'orders' }] } },
  'a wildcard that leaves a rest': { detail: { name: [{ wildcard: 'rekey*order' }] } },
  'an escaped star': { detail: { name: [{ wildcard: 'rekey\\*' }] } },
  'anything but the value itself': { detail: { labelUpdated: [{ 'anything-but': ['AWSCURRENT'] }] } },
  'anything but a value, of a member that is missing': { detail: { absent: [{ 'anything-but': 'x' }] } },
  'a member that should not exist': { detail: { name: [{ exists: false }] } },
  'a number outside a range': { detail: { count: [{ numeric: ['>', 3] }] } },
  'a range of a text': { detail: { name: [{ numeric: ['>', 0] }] } },
  'none of several patterns': { $or: [{ source: ['other'] }, { detail: { count: [4] } }] },
};

describe('a pattern', () => {
  test.each(Object.entries(matching))('matches %s', (_sentence, pattern) => {
    expect(matchesPattern(parsePattern(pattern), event)).toBe(true);
  });
  test.each(Object.entries(other))('does not match %s', (_sentence, pattern) => {
    expect(matchesPattern(parsePattern(pattern), event)).toBe(false);
  });
});

describe('a pattern is refused when', () => {
  const refused: Record<string, object> = {
    'it is empty': {},
    'a value stands outside a list': { source: 'rekey' },
    'a list is empty': { source: [] },
    'an operator is unknown': { source: [{ like: 'x' }] },
    'a range has a wrong sign': { detail: { count: [{ numeric: ['!', 3] }] } },
    '$or holds a single pattern': { $or: [{ source: ['a'] }] },
    '$or holds values': { $or: ['a', 'b'] },
  };
  test.each(Object.entries(refused))('%s', (_sentence, pattern) => {
    expect(() => parsePattern(pattern)).toThrow();
  });
});
