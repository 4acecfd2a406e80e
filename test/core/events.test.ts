import { describe, expect, test } from 'vitest';
import { parseCredentialRequested, parseRotationEvent } from '../../functions/core/events.ts';

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
  test('carries the spec', () => {
    expect(
      parseCredentialRequested({
        source: 'app',
        time: '2026-03-01T12:00:00Z',
        'detail-type': 'CredentialRequested',
        detail: { spec: { name: 'a' } },
      }),
    ).toEqual({ document: { name: 'a' }, requestedAt: new Date('2026-03-01T12:00:00Z') });
  });
  test('that is something else is refused with every wrong field', () => {
    expect(() => parseCredentialRequested({ 'detail-type': 'Other', detail: { spec: 'x' } })).toThrow(
      /EVENT_INVALID: source: .*time: .*detail-type: .*detail\.spec: /,
    );
  });
});
