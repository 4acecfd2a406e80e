import { describe, expect, test } from 'vitest';
import {
  parseCredentialRequested,
  parseInvocation,
  parseRotationEvent,
} from '../../functions/core/events.ts';

const event = {
  Step: 'createSecret',
  SecretId: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:rekey/a-AbCdEf',
  ClientRequestToken: '11111111-2222-4333-8444-555555555555',
  RotationToken: '99999999-2222-4333-8444-555555555555',
};

describe('a rotation event', () => {
  test('is read with its RotationToken, which then no longer prints', () => {
    const parsed = parseRotationEvent({ ...event, FutureField: 1 });
    expect(parsed.rotationToken?.reveal()).toBe('99999999-2222-4333-8444-555555555555');
    expect(JSON.stringify(parsed)).not.toContain('99999999');
  });

  test('needs no RotationToken, which only roles of other accounts are sent', () => {
    const { RotationToken: _none, ...without } = event;
    expect(parseRotationEvent(without)).not.toHaveProperty('rotationToken');
  });

  test('that is wrong everywhere is answered once, with every field and without the token', () => {
    const parse = () =>
      parseRotationEvent({
        SecretId: '',
        ClientRequestToken: 'short',
        RotationToken: 'not a token, but secret',
      });
    expect(parse).toThrow(/EVENT_INVALID: Step: .*SecretId: .*ClientRequestToken: .*RotationToken: /);
    expect(parse).not.toThrow(/but secret/);
  });

  test.each([undefined, null, 'createSecret', [], 7])('that is %j is refused', (given) => {
    expect(() => parseRotationEvent(given)).toThrow(/EVENT_INVALID: document: /);
  });
});

describe('a CredentialRequested event', () => {
  test('carries the spec, and the time that is the same in every delivery of it', () => {
    expect(
      parseCredentialRequested({
        source: 'app',
        'detail-type': 'CredentialRequested',
        time: '2026-03-01T12:00:00Z',
        detail: { spec: { name: 'a' } },
      }),
    ).toEqual({ spec: { name: 'a' }, requestedAt: new Date('2026-03-01T12:00:00Z') });
  });
  test('that is something else is refused with every wrong field', () => {
    expect(() =>
      parseCredentialRequested({ 'detail-type': 'Other', time: 'today', detail: { spec: 'x' } }),
    ).toThrow(/EVENT_INVALID: source: .*detail-type: .*time: .*detail\.spec: /);
  });
});

const time = '2026-03-01T12:00:00Z';
const at = new Date(time);

describe('an order', () => {
  const read = (type: string, detail: object): unknown =>
    parseInvocation({ 'detail-type': type, time, detail }, ['pass', 'order']);
  const order = (name: string) => ({ is: 'order', order: name, credential: 'orders-api', orderedAt: at });

  const cases: Record<string, { type: string; detail: object; want: object }> = {
    'may ask for a rotation': {
      type: 'CredentialRotationRequested',
      detail: { credential: 'orders-api' },
      want: order('CredentialRotationRequested'),
    },
    'may report a leak': {
      type: 'CredentialCompromised',
      detail: { credential: 'orders-api' },
      want: order('CredentialCompromised'),
    },
    'may report a leak that goes before everything else': {
      type: 'CredentialCompromised',
      detail: { credential: 'orders-api', evenIfLockedOut: true },
      want: { ...order('CredentialCompromised'), evenIfLockedOut: true },
    },
    'may say no to its option': {
      type: 'CredentialCompromised',
      detail: { credential: 'orders-api', evenIfLockedOut: false },
      want: order('CredentialCompromised'),
    },
    'may ask for a deletion': {
      type: 'CredentialDeletionRequested',
      detail: { credential: 'orders-api' },
      want: order('CredentialDeletionRequested'),
    },
    'may say that the target is gone': {
      type: 'CredentialDeletionRequested',
      detail: { credential: 'orders-api', targetIsGone: true },
      want: { ...order('CredentialDeletionRequested'), targetIsGone: true },
    },
  };
  test.each(Object.entries(cases))('%s', (_sentence, { type, detail, want }) => {
    expect(read(type, detail)).toStrictEqual(want);
  });

  const wrong: Record<string, { type: string; detail: object; message: RegExp }> = {
    'an option that is misspelt': {
      type: 'CredentialDeletionRequested',
      detail: { credential: 'orders-api', targetGone: true },
      message: /detail: .*targetGone/,
    },
    "another order's option": {
      type: 'CredentialCompromised',
      detail: { credential: 'orders-api', targetIsGone: true },
      message: /detail: .*targetIsGone/,
    },
    'an option where there is none': {
      type: 'CredentialRotationRequested',
      detail: { credential: 'orders-api', evenIfLockedOut: true },
      message: /detail: .*evenIfLockedOut/,
    },
    'an option that is no boolean, and a name that is none': {
      type: 'CredentialCompromised',
      detail: { credential: 'No', evenIfLockedOut: 'true' },
      message: /detail\.credential: expected the name.*detail\.evenIfLockedOut: /,
    },
    'a type that is no order': {
      type: 'CredentialForgotten',
      detail: { credential: 'orders-api' },
      message: /detail-type: expected CredentialRotationRequested, CredentialCompromised, /,
    },
  };
  test.each(Object.entries(wrong))('is refused with %s', (_sentence, { type, detail, message }) => {
    expect(() => read(type, detail)).toThrow(/^EVENT_INVALID: /);
    expect(() => read(type, detail)).toThrow(message);
  });
});

describe('an order to pause or resume', () => {
  const read = (type: string, detail: object): unknown =>
    parseInvocation({ 'detail-type': type, time, detail }, ['pause']);

  test.each(['RekeyPaused', 'RekeyResumed'])('%s is about everything, or about one target', (order) => {
    expect(read(order, {})).toStrictEqual({ is: 'pause', order, on: undefined, orderedAt: at });
    expect(read(order, { provider: 'acme', target: 'db-1' })).toStrictEqual({
      is: 'pause',
      order,
      on: { provider: 'acme', targetId: 'db-1' },
      orderedAt: at,
    });
  });

  const wrong: Record<string, { detail: object; message: RegExp }> = {
    'a provider without a target': { detail: { provider: 'acme' }, message: /detail\.target: / },
    'a target without a provider': { detail: { target: 'db-1' }, message: /detail\.provider: / },
    'a misspelt field': { detail: { provider: 'acme', targt: 'db-1' }, message: /detail: .*targt/ },
    'a credential': { detail: { credential: 'orders-api' }, message: /detail: .*credential/ },
    'names that lead elsewhere': {
      detail: { provider: '..', target: 'db-1/../all' },
      message: /detail\.provider: .*detail\.target: /,
    },
  };
  test.each(Object.entries(wrong))('is refused with %s', (_sentence, { detail, message }) => {
    expect(() => read('RekeyPaused', detail)).toThrow(/^EVENT_INVALID: /);
    expect(() => read('RekeyPaused', detail)).toThrow(message);
  });

  test('is refused by a function that takes none', () => {
    expect(() => parseInvocation({ 'detail-type': 'RekeyPaused', time, detail: {} }, ['order'])).toThrow(
      /EVENT_INVALID: got an event of detail type RekeyPaused or RekeyResumed.*; this function takes an event of/,
    );
  });
});

describe('a batch of starts', () => {
  const record = (messageId: string, body: string) => ({ messageId, body });
  const read = (...bodies: string[]): unknown =>
    parseInvocation({ Records: bodies.map((body, index) => record(`m-${index}`, body)) }, ['pass', 'starts']);

  test('says of each message which rotation of which target is to be started', () => {
    expect(
      read(
        '{"provider":"acme","targetId":"db-1","credential":"orders"}',
        '{"provider":"acme","targetId":"db-2","credential":"billing","orders":{"revokeBefore":"2026-03-01T12:00:00.000Z"}}',
      ),
    ).toStrictEqual({
      is: 'starts',
      starts: [
        { messageId: 'm-0', provider: 'acme', targetId: 'db-1', credential: 'orders' },
        {
          messageId: 'm-1',
          provider: 'acme',
          targetId: 'db-2',
          credential: 'billing',
          orders: { revokeBefore: new Date('2026-03-01T12:00:00Z') },
        },
      ],
    });
  });

  const wrong: Record<string, { body: string; message: RegExp }> = {
    'that is no JSON': { body: 'start orders', message: /Records\.0\.body: / },
    'with wrong names': {
      body: '{"provider":"..","targetId":"a/b","credential":"No"}',
      message: /body\.provider: .*body\.targetId: .*body\.credential: /,
    },
    'with more than it may say': {
      body: '{"provider":"acme","targetId":"db-1","credential":"orders","force":true}',
      message: /Records\.0\.body: .*force/,
    },
  };
  test.each(Object.entries(wrong))('is refused for a message %s', (_sentence, { body, message }) => {
    expect(() => read(body)).toThrow(/^EVENT_INVALID: /);
    expect(() => read(body)).toThrow(message);
  });

  test('is for the function that starts rotations: to another one, messages are those of targets', () => {
    const event = { Records: [record('m-0', '{}')] };
    expect(parseInvocation(event, ['messages'])).toMatchObject({ is: 'messages' });
    expect(() => parseInvocation(event, ['pass', 'order'])).toThrow('got messages of the queue of targets');
  });
});
