import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { loadWebhook } from '../../functions/webhooks/index.ts';
import { renderWebhook } from '../../functions/webhooks/render.ts';

const id = 'evt-cph1rs3idesc73a2b2mg';
const read = (body: unknown, eventId = id) =>
  renderWebhook.read({
    id: eventId,
    body: Buffer.from(typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body)),
  });
const payload = (overrides: object = {}) => ({
  type: 'postgres_credentials_created',
  timestamp: '2026-07-15T12:00:00.979294509Z',
  data: { id, serviceId: 'dpg-d7sg9ln7f7vs73d9bg5g-a', serviceName: 'orders' },
  ...overrides,
});

describe('an authentic webhook of Render', () => {
  test('says what happened, when and to which service, and nothing that a person wrote', () => {
    expect(read(payload())).toEqual({
      event: {
        provider: 'render',
        providerEventId: 'evt-cph1rs3idesc73a2b2mg',
        providerEventType: 'postgres_credentials_created',
        happenedAt: '2026-07-15T12:00:00.979294509Z',
        target: 'dpg-d7sg9ln7f7vs73d9bg5g-a',
      },
      oddities: [],
    });
  });

  test.each([
    ['PostgresCredentialsCreated', 'postgres_credentials_created'],
    ['PostgresCredentialsDeleted', 'postgres_credentials_deleted'],
    ['postgres_credentials_deleted', 'postgres_credentials_deleted'],
    ['deploy_ended', 'deploy_ended'],
    ['something.of-tomorrow', 'something.of-tomorrow'],
    ['constructor', 'constructor'],
  ])('of type %s is an event of type %s', (type, want) => {
    const { event, oddities } = read(payload({ type }));
    expect(event.providerEventType).toBe(want);
    expect(oddities).toEqual([]);
  });

  test('without fields that came later, or with ones that are yet to come, is the same event', () => {
    const data = { id, serviceId: 'srv-d7sg9ln7f7vs73d9bg5g', status: 'failed', future: { deep: true } };
    expect(read(payload({ data, future: 1 })).event).toEqual({
      provider: 'render',
      providerEventId: id,
      providerEventType: 'postgres_credentials_created',
      happenedAt: '2026-07-15T12:00:00.979294509Z',
      target: 'srv-d7sg9ln7f7vs73d9bg5g',
    });
  });

  const partial: Record<string, { body: object; lacks: 'happenedAt' | 'target' }> = {
    'an instant that is none': { body: payload({ timestamp: 'yesterday' }), lacks: 'happenedAt' },
    'an instant that is a number': { body: payload({ timestamp: 1_784_116_800 }), lacks: 'happenedAt' },
    'no data': { body: payload({ data: undefined }), lacks: 'target' },
    'data that is a list': { body: payload({ data: [] }), lacks: 'target' },
    'a service that would lead elsewhere': {
      body: payload({ data: { id, serviceId: 'dpg-1/../../owners' } }),
      lacks: 'target',
    },
  };
  test.each(Object.entries(partial))('with %s is an event without it', (_sentence, { body, lacks }) => {
    const { event, oddities } = read(body);
    expect(event).not.toHaveProperty(lacks);
    expect(event.providerEventType).toBe('postgres_credentials_created');
    expect(oddities).toEqual([]);
  });

  const unreadable: Record<string, unknown> = {
    'with no body': '',
    'that is no JSON': 'type=postgres_credentials_created',
    'with a byte order mark': `\uFEFF${JSON.stringify(payload())}`,
    'that is not UTF-8': Uint8Array.of(0xff, 0xfe),
    'that is a list': [payload()],
    'that is nothing': 'null',
    'without a type': payload({ type: undefined }),
    'with a type that is no name': payload({ type: 'a type\nof two lines' }),
    'with a type longer than a name': payload({ type: 't'.repeat(129) }),
  };
  test.each(Object.entries(unreadable))('%s is still an event, and is remarked on', (_sentence, body) => {
    const { event, oddities } = read(body);
    expect(event).toMatchObject({ provider: 'render', providerEventId: id, providerEventType: 'unparsable' });
    expect(oddities).toEqual(['UNPARSABLE']);
  });

  test('whose body names another event goes by the signed header, and is remarked on', () => {
    const { event, oddities } = read(payload({ data: { id: 'evt-00000000000000000000' } }));
    expect(event.providerEventId).toBe('evt-cph1rs3idesc73a2b2mg');
    expect(oddities).toEqual(['OTHER_ID_IN_BODY']);
  });

  test('with an id of another form is an event, and is remarked on', () => {
    const { event, oddities } = read(payload({ data: {} }), 'msg_p5jXN8AQM9LWM0D4loKWxJek');
    expect(event.providerEventId).toBe('msg_p5jXN8AQM9LWM0D4loKWxJek');
    expect(oddities).toEqual(['UNUSUAL_ID']);
  });

  test('is read whatever it is, into an event of a bounded size that holds nothing else', () => {
    const known = ['provider', 'providerEventId', 'providerEventType', 'happenedAt', 'target'];
    const anything = fc.oneof(
      fc.json(),
      fc.record(
        { type: fc.jsonValue(), timestamp: fc.jsonValue(), data: fc.jsonValue() },
        { requiredKeys: [] },
      ),
      fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    );
    fc.assert(
      fc.property(anything, (body) => {
        const { event } = read(body);
        expect(known).toEqual(expect.arrayContaining(Object.keys(event)));
        expect(JSON.stringify(event).length).toBeLessThan(500);
      }),
      { numRuns: 1_000 },
    );
  });
});

test('an endpoint is known by its own name only', async () => {
  expect(await loadWebhook('render')).toBe(renderWebhook);
  for (const name of ['acme', '', 'constructor', '__proto__'])
    expect(await loadWebhook(name)).toBeUndefined();
});

test('a stored secret that is none is refused when it is read, and not at each delivery', () => {
  expect(() => renderWebhook.verifierOf(new Sensitive('whsec_'))).toThrow('SECRET_INVALID');
});
