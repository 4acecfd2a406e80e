import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { VendorWebhooks } from '../../functions/core/provider.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { renderPostgres } from '../../functions/providers/render-postgres/provider.ts';
import type { Fault, FaultKind } from '../../infra/local/providers/faults.ts';
import { addRenderOrders } from '../../infra/local/providers/fixtures.ts';
import type {
  RenderDatabase,
  RenderOperation,
  RenderPostgres,
} from '../../infra/local/providers/render-postgres.ts';
import type { RenderWebhook } from '../../infra/local/providers/render-webhooks.ts';
import { isWrite, useTestVendors } from '../support/vendors.ts';
import { codeOf, failureOf, freshName } from './contract.ts';

const vendors = useTestVendors();
let render: RenderPostgres;
let database: RenderDatabase;
let receiver: Server;
let url: string;
/** What our side answers a webhook with; 0 is a broken connection. */
let answer = 200;
/** Events to which it answers 500 whatever else it answers. */
const refused = new Set<string>();
let before = 0;

beforeAll(async () => {
  render = vendors().render.api;
  database = await addRenderOrders(render, vendors().render.postgres);
  receiver = createServer((request, response) => {
    request.resume();
    if (answer === 0) request.socket.destroy();
    else response.writeHead(refused.has(String(request.headers['webhook-id'])) ? 500 : answer).end();
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/webhooks/render`;
});
afterAll(() => void receiver.close());
beforeEach(() => {
  answer = 200;
  before = render.calls.length;
  vendors().keepSecret('somebody@example.com');
});
afterEach(() => {
  for (const { id } of render.webhooks.list()) render.webhooks.remove(id);
  expect(vendors().requests.filter(isWrite), 'webhooks are only read').toEqual([]);
});

const always = { times: Number.POSITIVE_INFINITY };
const calls = (operation?: RenderOperation) =>
  render.calls.slice(before).filter((call) => operation === undefined || call.operation === operation);
const inject = (fault: Fault<RenderOperation>): void => render.faults.inject(fault);

/** Whatever it answers and throws is kept for the leak check. */
function open({ budgetMs = 180_000, postgresId = database.id, apiKey = vendors().apiKeys.render } = {}) {
  const until = new Date(vendors().clock.now().getTime() + budgetMs);
  const provider = renderPostgres.open(
    { target: { postgresId }, privileges: {}, apiKey: new Sensitive(apiKey), until },
    vendors().ports(until),
  );
  if (provider.webhooks === undefined) throw new Error('Render sends webhooks');
  return vendors().watch(Object.assign({}, provider, provider.webhooks));
}

/** A webhook at the vendor, whose secret may be seen nowhere. */
function add(options: { readonly url?: string; readonly ownerId?: string } = {}): RenderWebhook {
  const webhook = render.webhooks.add({ url, ...options });
  vendors().keepSecret(webhook.secret.replace(/^whsec_/, ''));
  return webhook;
}
/** As after the last attempt of an event: nothing is sent any more. */
async function disable(webhook: RenderWebhook): Promise<void> {
  render.switches.webhooks.retryDelaysMs = [];
  answer = 500;
  await send();
  answer = 200;
  expect(render.webhooks.list().find(({ id }) => id === webhook.id)?.isEnabled).toBe(false);
}

/** Until no attempt is under way. */
async function sent(): Promise<void> {
  for (let turns = 0; turns < 5; turns += 1) {
    await nextTurn();
    // Even without a delay a sender sleeps until the clock is moved.
    vendors().clock.move(0);
    while (render.webhooks.isBusy()) {
      turns = 0;
      await render.webhooks.oneEnded();
    }
  }
}
async function send(type = 'postgres_credentials_created'): Promise<string> {
  const event = render.webhooks.send({ type, serviceId: database.id, username: freshName() });
  await sent();
  return event.id;
}
async function pass(ms: number): Promise<void> {
  vendors().clock.move(ms);
  await sent();
}
const now = (): Date => vendors().clock.now();
/** The last day and a half, until now. */
const lately = () => ({ after: new Date(now().getTime() - 36 * 3_600_000), before: now() });

describe('how the webhook is doing', () => {
  test('is told by the one that points to exactly this URL', async () => {
    add({ url: `${url}2` });
    add({ url: url.slice(0, -1) });
    add({ url: `${url}/` });
    expect(await open().standing(url)).toEqual({ is: 'absent' });
    const webhook = add();
    expect(await open().standing(url)).toEqual({ is: 'enabled', id: webhook.id });
    await disable(webhook);
    expect(await open().standing(url)).toEqual({ is: 'disabled', id: webhook.id });
    render.webhooks.enable(webhook.id);
    expect(await open().standing(url)).toEqual({ is: 'enabled', id: webhook.id });
    render.webhooks.remove(webhook.id);
    expect(await open().standing(url)).toEqual({ is: 'absent' });
  });

  test('is absent where there is no webhook at all', async () => {
    expect(await open().standing(url)).toEqual({ is: 'absent' });
  });

  test('is asked for in the workspace of the database, and only there', async () => {
    add({ ownerId: 'tea-other000000000000' });
    expect(await open().standing(url)).toEqual({ is: 'absent' });
    expect(calls().map(({ operation, path, query }) => ({ operation, path, query }))).toEqual([
      { operation: 'getDatabase', path: `/v1/postgres/${database.id}`, query: {} },
      {
        operation: 'listWebhooks',
        path: '/v1/webhooks',
        query: { ownerId: 'tea-local0000000000000', limit: '100' },
      },
    ]);
  });

  test('is told of by the one that is enabled while it replaces another, whichever comes first', async () => {
    const first = add();
    await disable(first);
    const second = add();
    expect(await open().standing(url)).toEqual({ is: 'enabled', id: second.id });
    await disable(second);
    expect(await open().standing(url)).toEqual({ is: 'disabled', id: first.id });
    render.webhooks.enable(first.id);
    expect(await open().standing(url)).toEqual({ is: 'enabled', id: first.id });
  });

  test.each([99, 100, 150, 250])('is found behind %d webhooks of other things', async (others) => {
    for (let count = 0; count < others; count += 1) add({ url: `${url}${count}` });
    const { id } = add();
    expect(await open().standing(url)).toEqual({ is: 'enabled', id });
    const cursors = calls('listWebhooks').map(({ query }) => query['cursor']);
    expect(new Set(cursors).size).toBe(cursors.length);
  });

  test('is absent only once every page was read, the empty one after a full one too', async () => {
    for (let count = 0; count < 200; count += 1) add({ url: `${url}${count}` });
    expect(await open().standing(url)).toEqual({ is: 'absent' });
    expect(calls('listWebhooks')).toHaveLength(3);
  });

  test('is not said to be absent where a later page fails', async () => {
    for (let count = 0; count < 100; count += 1) add({ url: `${url}${count}` });
    add();
    inject({ operation: 'listWebhooks', kind: 'status', status: 500, skip: 1, ...always });
    expect(await codeOf(open({ budgetMs: 20_000 }).standing(url))).toBe('UNAVAILABLE none');
  });

  test('cannot be read by the key of somebody who is no admin, which is said and no failure', async () => {
    add();
    render.switches.webhooks.keyIsAdmin = false;
    expect(await open().standing(url)).toEqual({
      is: 'unreadable',
      reason:
        'Render answers 403 when asked for webhooks: only the API key of an admin of the workspace may see them',
    });
    expect(calls('listWebhooks')).toHaveLength(1);
  });

  test.each([401, 403, 404])('cannot be read where %d is answered', async (status) => {
    add();
    inject({ operation: 'listWebhooks', kind: 'status', status, json: { message: 'somebody@example.com' } });
    expect(await open().standing(url)).toEqual({
      is: 'unreadable',
      reason: expect.stringContaining(`answers ${status} when`),
    });
  });

  test.each([400, 406, 410, 307])('is no answer where %d is', async (status) => {
    inject({ operation: 'listWebhooks', kind: 'status', status });
    expect((await failureOf(open().standing(url))).facts).toMatchObject({ status, effect: 'none' });
  });

  test('is not unreadable for want of rights where the key may not even see the database', async () => {
    expect(await codeOf(open({ apiKey: 'revoked_canaryKey0123456789' }).standing(url))).toBe(
      'UNAUTHORIZED none',
    );
    expect(await codeOf(open({ postgresId: 'dpg-00000000000000000000-a' }).standing(url))).toBe(
      'NOT_FOUND none',
    );
    expect(calls('listWebhooks')).toEqual([]);
  });

  const owners: Record<string, unknown> = {
    'no owner': { id: 'dpg-1' },
    'an owner without an id': { owner: { email: 'somebody@example.com' } },
    'two owners in one': { owner: { id: 'tea-1,tea-2' } },
    'null for an owner': { owner: null },
  };
  test.each(Object.entries(owners))('is not asked of anybody where the database has %s', async (_, json) => {
    inject({ operation: 'getDatabase', kind: 'status', status: 200, json });
    const error = await failureOf(open().standing(url));
    expect([error.code, error.facts.operation]).toEqual(['UNREADABLE', 'readOwner']);
    expect(calls('listWebhooks')).toEqual([]);
  });

  const unlike: Record<string, object> = {
    'without "enabled"': { id: 'whk-00000000000000000000' },
    'with an id that is none': { id: '../postgres', enabled: true },
  };
  test.each(Object.entries(unlike))('is not guessed from a webhook %s', async (_what, fields) => {
    const json = [{ cursor: 'one', webhook: { url, secret: 'whsec_canarySecret0123456789', ...fields } }];
    vendors().keepSecret('whsec_canarySecret0123456789');
    inject({ operation: 'listWebhooks', kind: 'status', status: 200, json });
    expect(await codeOf(open().standing(url))).toBe('UNREADABLE none');
  });
});

describe('the events that were sent', () => {
  test('are those of the webhook, each with its type, its first attempt and its success', async () => {
    const { id } = add();
    add({ url: `${url}2` });
    const start = now();
    const created = await send();
    await pass(1_000);
    const deleted = await send('postgres_credentials_deleted');
    expect(await open().deliveries(id, lately())).toEqual([
      {
        eventId: created,
        eventType: 'postgres_credentials_created',
        firstSentAt: start,
        isDelivered: true,
      },
      {
        eventId: deleted,
        eventType: 'postgres_credentials_deleted',
        firstSentAt: new Date(start.getTime() + 1_000),
        isDelivered: true,
      },
    ]);
  });

  test.each([
    [199, false],
    [200, true],
    [204, true],
    [299, true],
    [300, false],
    [302, false],
    [401, false],
    [410, false],
    [500, false],
    [0, false],
  ])('and answered with %d are delivered: %s', async (status, isDelivered) => {
    const { id } = add();
    // An answer below 200 is no final one: Node would wait for another, so the row is as Render might show it.
    answer = status === 199 ? 200 : status;
    const eventId = await send();
    if (status === 199) {
      const json = rows([{ eventId, statusCode: 199 }]);
      inject({ operation: 'listDeliveries', kind: 'status', status: 200, json });
    }
    expect(await open().deliveries(id, lately())).toMatchObject([{ eventId, isDelivered }]);
  });

  const orders = ['newest-first', 'oldest-first'] as const;
  test.each(orders)('are one for all its attempts, which come %s', async (attemptOrder) => {
    render.switches.webhooks.attemptOrder = attemptOrder;
    const { id } = add();
    const start = now();
    answer = 500;
    const late = await send();
    await pass(5_000);
    const never = await send();
    refused.add(never);
    await pass(22_000);
    answer = 200;
    const atOnce = await send();
    await pass(88_000);
    expect(await open().deliveries(id, lately())).toEqual([
      expect.objectContaining({ eventId: late, firstSentAt: start, isDelivered: true }),
      expect.objectContaining({
        eventId: never,
        firstSentAt: new Date(start.getTime() + 5_000),
        isDelivered: false,
      }),
      expect.objectContaining({
        eventId: atOnce,
        firstSentAt: new Date(start.getTime() + 27_000),
        isDelivered: true,
      }),
    ]);
    expect(render.webhooks.attempts.filter(({ eventId }) => eventId === late)).toHaveLength(3);
    expect(render.webhooks.attempts.filter(({ eventId }) => eventId === never)).toHaveLength(3);
  });

  test('are asked for with both ends of the span, and only what is in it counts', async () => {
    const { id } = add();
    const early = await send();
    await pass(60_000);
    const after = now();
    const inTime = await send();
    await pass(60_000);
    const before = now();
    await pass(60_000);
    await send();
    expect(await open().deliveries(id, { after, before })).toMatchObject([{ eventId: inTime }]);
    expect(calls('listDeliveries').map(({ path, query }) => ({ path, query }))).toEqual([
      {
        path: `/v1/webhooks/${id}/events`,
        query: { sentAfter: after.toISOString(), sentBefore: before.toISOString(), limit: '100' },
      },
    ]);
    const json = rows([
      { eventId: early, sentAt: new Date(after.getTime() - 1).toISOString() },
      { eventId: inTime, sentAt: after.toISOString() },
      { eventId: inTime, sentAt: before.toISOString() },
      { eventId: early, sentAt: new Date(before.getTime() + 1).toISOString() },
    ]);
    inject({ operation: 'listDeliveries', kind: 'status', status: 200, json });
    expect(await open().deliveries(id, { after, before })).toMatchObject([{ eventId: inTime }]);
  });

  test('are none where nothing was sent', async () => {
    const { id } = add();
    expect(await open().deliveries(id, lately())).toEqual([]);
  });

  test.each([99, 100, 101, 250])('are read to the end, of %d attempts', async (count) => {
    const { id } = add();
    for (let made = 0; made < count; made += 1)
      render.webhooks.send({ type: 'deploy_ended', serviceId: 'srv-1' });
    await sent();
    const found = await open().deliveries(id, lately());
    expect(new Set(found.map(({ eventId }) => eventId)).size).toBe(count);
    expect(found).toHaveLength(count);
  });

  test('are not cut short where a later page fails', async () => {
    const { id } = add();
    for (let made = 0; made < 120; made += 1) render.webhooks.send({});
    await sent();
    inject({ operation: 'listDeliveries', kind: 'status', status: 404, skip: 1 });
    expect(await codeOf(open().deliveries(id, lately()))).toBe('NOT_FOUND none');
    inject({ operation: 'listDeliveries', kind: 'status', status: 503, skip: 1 });
    expect(await open().deliveries(id, lately())).toHaveLength(120);
  });

  test('whose list never ends, as a cursor comes again, are an error', async () => {
    const { id } = add();
    const json = rows(Array.from({ length: 100 }, () => ({})));
    inject({ operation: 'listDeliveries', kind: 'status', status: 200, json, ...always });
    const error = await failureOf(open().deliveries(id, lately()));
    expect([error.code, error.effect]).toEqual(['UNREADABLE', 'none']);
    expect(error.message).toContain('listDeliveries never ends (a cursor came twice)');
    expect(calls('listDeliveries')).toHaveLength(2);
  });

  test('whose list is longer than any should be are an error', async () => {
    const { id } = add();
    for (let page = 0; page < 200; page += 1) {
      const json = rows(Array.from({ length: 100 }, (_, row) => ({ cursor: `${page}-${row}` })));
      inject({ operation: 'listDeliveries', kind: 'status', status: 200, json });
    }
    const error = await failureOf(open().deliveries(id, lately()));
    expect(error.message).toContain('listDeliveries has more than 200 pages');
    expect(calls('listDeliveries')).toHaveLength(200);
  });

  /** Rows as Render sends them, with what is odd about each. */
  function rows(odd: readonly Readonly<Record<string, unknown>>[]): object[] {
    return odd.map(({ cursor = 'the-same', ...fields }, count) => ({
      cursor,
      webhookEvent: {
        id: `whe-${count}`,
        eventId: 'evt-00000000000000000000',
        eventType: 'postgres_credentials_created',
        sentAt: now().toISOString(),
        statusCode: 200,
        ...fields,
      },
    }));
  }
  const readRow = async (odd: Readonly<Record<string, unknown>>) => {
    const { id } = add();
    inject({ operation: 'listDeliveries', kind: 'status', status: 200, json: rows([odd]) });
    return open().deliveries(id, lately());
  };

  const failed: Record<string, Record<string, unknown>> = {
    'no status': { statusCode: undefined },
    'null for a status': { statusCode: null },
    'a status that is text': { statusCode: '200' },
    'no status and an error': { statusCode: undefined, error: 'context deadline exceeded' },
    'a status of 0': { statusCode: 0 },
  };
  test.each(Object.entries(failed))('with %s are not delivered', async (_what, odd) => {
    expect(await readRow(odd)).toMatchObject([{ isDelivered: false }]);
  });

  const types: Record<string, { given: unknown; want: string }> = {
    'of tomorrow': { given: 'postgres_credentials_renamed', want: 'postgres_credentials_renamed' },
    'as the other page spells it': {
      given: 'PostgresCredentialsCreated',
      want: 'PostgresCredentialsCreated',
    },
    'of two lines': { given: 'a\nb', want: 'unparsable' },
    'that is too long': { given: 'a'.repeat(129), want: 'unparsable' },
    'that is no text': { given: 7, want: 'unparsable' },
    'that is missing': { given: undefined, want: 'unparsable' },
  };
  test.each(Object.entries(types))('may be of a type %s', async (_what, { given, want }) => {
    expect(await readRow({ eventType: given })).toMatchObject([{ eventType: want }]);
  });

  test('carry instants of any precision and offset', async () => {
    for (const sentAt of [
      '2026-03-01T12:00:00Z',
      '2026-03-01T12:00:00.000294509Z',
      '2026-03-01T05:00:00-07:00',
    ]) {
      const { id } = add();
      inject({ operation: 'listDeliveries', kind: 'status', status: 200, json: rows([{ sentAt }]) });
      const span = { after: new Date('2026-03-01T11:00:00Z'), before: new Date('2026-03-01T13:00:00Z') };
      expect(await open().deliveries(id, span), sentAt).toMatchObject([
        { firstSentAt: new Date('2026-03-01T12:00:00Z') },
      ]);
    }
  });

  const unreadable: Record<string, Record<string, unknown>> = {
    'no event': { eventId: undefined },
    'an id that is none': { eventId: '../postgres' },
    'no instant': { sentAt: undefined },
    'an instant that is none': { sentAt: 'yesterday' },
  };
  test.each(Object.entries(unreadable))('are not guessed from a row with %s', async (_what, odd) => {
    const error = await failureOf(readRow(odd));
    expect([error.code, error.effect, error.facts.operation]).toEqual([
      'UNREADABLE',
      'none',
      'listDeliveries',
    ]);
  });

  test('hold nothing of what was answered to them', async () => {
    const responseBody = 'canaryResponseBody0123456789';
    vendors().keepSecret(responseBody);
    expect(await readRow({ responseBody, error: responseBody })).toEqual([
      {
        eventId: 'evt-00000000000000000000',
        eventType: 'postgres_credentials_created',
        firstSentAt: expect.any(Date),
        isDelivered: true,
      },
    ]);
  });

  test('of a webhook that is gone are not found, and none of one that is not shown', async () => {
    const { id } = add();
    render.switches.webhooks.keyIsAdmin = false;
    expect(await codeOf(open().deliveries(id, lately()))).toBe('UNAUTHORIZED none');
    render.switches.webhooks.keyIsAdmin = true;
    render.webhooks.remove(id);
    expect(await codeOf(open().deliveries(id, lately()))).toBe('NOT_FOUND none');
  });

  test.each(['..', '', 'whk-1/..', 'a b'])(
    'are not asked for by %j, which is no name for a URL',
    async (id) => {
      expect(await codeOf(open().deliveries(id, lately()))).toBe('NAME_REFUSED none');
      expect(calls()).toEqual([]);
    },
  );
});

describe('an event', () => {
  test('tells what happened to which database, and when, as Render writes it', async () => {
    add();
    const id = await send();
    expect(await open().event(id)).toEqual({
      id,
      type: 'postgres_credentials_created',
      happenedAt: expect.stringMatching(/^2026-03-0\dT\d\d:\d\d:\d\d\.\d{9}Z$/),
      target: database.id,
    });
    expect(calls().map(({ path, query }) => ({ path, query }))).toEqual([
      { path: `/v1/events/${id}`, query: {} },
    ]);
  });

  test('names the user where Render does', async () => {
    render.switches.webhooks.details = 'username';
    const { id, username } = render.webhooks.send({ serviceId: database.id, username: 'orders_by_hand' });
    expect(await open().event(id)).toMatchObject({ username });
  });

  test('names nobody where Render names the person who did it', async () => {
    render.switches.webhooks.details = 'user';
    const event = await open().event(await send());
    expect(event).toEqual({
      id: expect.any(String),
      type: 'postgres_credentials_created',
      happenedAt: expect.any(String),
      target: database.id,
    });
  });

  test.each([404, 406, 410] as const)('is absent where %d is answered', async (status) => {
    render.switches.webhooks.details = status;
    expect(await open().event(await send())).toBe('absent');
    expect(calls('getEvent')).toHaveLength(1);
  });

  test('that Render does not know is absent', async () => {
    expect(await open().event('evt-00000000000000000000')).toBe('absent');
  });

  test.each([400, 401, 403])('is not said to be absent where %d is answered', async (status) => {
    inject({ operation: 'getEvent', kind: 'status', status });
    expect((await failureOf(open().event(await send()))).facts).toMatchObject({ status, effect: 'none' });
  });

  test.each(['', '..', 'evt-', 'evt-1/..', 'evt-A', 'evt-a b', 'msg-1', `evt-${'a'.repeat(65)}`, 'xevt-a'])(
    'with the id %j, which is none of Render’s, is absent, and is not asked for',
    async (id) => {
      expect(await open().event(id)).toBe('absent');
      expect(calls()).toEqual([]);
    },
  );

  const id = 'evt-00000000000000000000';
  const type = 'postgres_credentials_deleted';
  const read = (json: object) => {
    inject({ operation: 'getEvent', kind: 'status', status: 200, json: { id, type, ...json } });
    return open().event(id);
  };

  const details: Record<string, { given: unknown; want: string | undefined }> = {
    'a username': { given: { username: 'orders_1' }, want: 'orders_1' },
    'a user that is text': { given: { user: 'orders_1' }, want: 'orders_1' },
    'a user with a username': { given: { user: { id: 'usr-1', username: 'orders_1' } }, want: 'orders_1' },
    'a user with a name': { given: { user: { name: 'orders_1' } }, want: 'orders_1' },
    'a username beside the person': {
      given: { username: 'orders_1', user: { id: 'usr-1', email: 'somebody@example.com', name: 'somebody' } },
      want: 'orders_1',
    },
    'a username of capitals and dashes': { given: { username: 'Orders-API.1' }, want: 'Orders-API.1' },
    'a username that is an address': { given: { username: 'somebody@example.com' }, want: undefined },
    'a user that is an address': { given: { user: 'somebody@example.com' }, want: undefined },
    'a user whose name is that of a person': { given: { user: { name: 'Jane Doe' } }, want: undefined },
    'a username of two lines': { given: { username: 'a\nb' }, want: undefined },
    'a username longer than any': { given: { username: 'a'.repeat(64) }, want: undefined },
    'an empty username': { given: { username: '' }, want: undefined },
    'a username that is no text': { given: { username: ['orders_1'] }, want: undefined },
    'null for a user': { given: { user: null }, want: undefined },
    'a list': { given: ['orders_1'], want: undefined },
    'a text': { given: 'orders_1', want: undefined },
    null: { given: null, want: undefined },
    nothing: { given: undefined, want: undefined },
  };
  test.each(Object.entries(details))('whose details are or have %s', async (_what, { given, want }) => {
    expect(await read({ details: given })).toEqual({
      id,
      type,
      ...(want === undefined ? {} : { username: want }),
    });
  });

  test('of another kind names no database user, as its user is a person', async () => {
    for (const other of ['postgres_restarted', 'postgres_created'])
      expect(await read({ type: other, details: { user: { name: 'jane' }, username: 'jane' } })).toEqual({
        id,
        type: other,
      });
  });

  test('as the other page spells it names the user too', async () => {
    expect(
      await read({ type: 'PostgresCredentialsDeleted', details: { username: 'orders_1' } }),
    ).toMatchObject({ username: 'orders_1' });
  });

  const odd: Record<string, { given: object; want: object }> = {
    'an instant that is none': { given: { timestamp: 'yesterday' }, want: {} },
    'an instant with an offset': {
      given: { timestamp: '2026-03-01T05:00:00-07:00' },
      want: { happenedAt: '2026-03-01T05:00:00-07:00' },
    },
    'a service that is none': { given: { serviceId: '../postgres' }, want: {} },
    'null everywhere': { given: { timestamp: null, serviceId: null, details: null }, want: {} },
    'a type that is no name': { given: { type: 'a\nb' }, want: { type: 'unparsable' } },
  };
  test.each(Object.entries(odd))('with %s leaves that out', async (_what, { given, want }) => {
    expect(await read(given)).toEqual({ id, type, ...want });
  });

  test('in place of another is an error', async () => {
    const error = await failureOf(read({ id: 'evt-11111111111111111111' }));
    expect([error.code, error.effect]).toEqual(['UNREADABLE', 'none']);
    expect(error.message).toContain(`asked for the event ${id}, was told of another`);
  });
});

describe('a question about webhooks', () => {
  type Asked = (webhooks: VendorWebhooks, at: { webhookId: string; eventId: string }) => Promise<unknown>;
  const questions: Record<string, { operation: RenderOperation; name: string; ask: Asked }> = {
    'whose workspace it is': {
      operation: 'getDatabase',
      name: 'readOwner',
      ask: (webhooks) => webhooks.standing(url),
    },
    'how the webhook is doing': {
      operation: 'listWebhooks',
      name: 'listWebhooks',
      ask: (webhooks) => webhooks.standing(url),
    },
    'what was sent': {
      operation: 'listDeliveries',
      name: 'listDeliveries',
      ask: (webhooks, { webhookId }) => webhooks.deliveries(webhookId, lately()),
    },
    'what happened': {
      operation: 'getEvent',
      name: 'readEvent',
      ask: (webhooks, { eventId }) => webhooks.event(eventId),
    },
  };
  const passing: Record<string, FaultKind> = {
    'no answer': { kind: 'timeout-before' },
    'a cut connection': { kind: 'reset-before' },
    'an answer that breaks off': { kind: 'reset-mid-body' },
    'status 429': { kind: 'rate-limited' },
    'status 500': { kind: 'status', status: 500 },
    'status 503': { kind: 'status', status: 503 },
    'a page of a gateway': { kind: 'html-body' },
    'an answer without an end': { kind: 'huge-body', bytes: 2_000_000 },
  };
  const lasting: Record<string, { given: FaultKind; want: string }> = {
    'status 429': { given: { kind: 'rate-limited', retryAfter: 86_400 }, want: 'RATE_LIMITED none' },
    'status 500': { given: { kind: 'status', status: 500 }, want: 'UNAVAILABLE none' },
    'status 503': { given: { kind: 'status', status: 503 }, want: 'UNAVAILABLE none' },
    'a cut connection': { given: { kind: 'reset-before' }, want: 'UNAVAILABLE none' },
    'a page of a gateway': { given: { kind: 'html-body' }, want: 'UNAVAILABLE none' },
    'a page with 200': { given: { kind: 'html-body', status: 200 }, want: 'UNREADABLE none' },
    'half of an answer': { given: { kind: 'half-json' }, want: 'UNREADABLE none' },
    'an empty answer': { given: { kind: 'empty-body' }, want: 'UNREADABLE none' },
    'no list and no object': { given: { kind: 'status', status: 200, json: 7 }, want: 'UNREADABLE none' },
    'a redirect': { given: { kind: 'redirect-307' }, want: 'REJECTED none' },
  };
  const across = <Row>(table: Record<string, Row>) =>
    Object.entries(questions).flatMap(([question, subject]) =>
      Object.entries(table).map(([what, row]) => ({ question, what, subject, row })),
    );
  const given = async () => {
    const { id: webhookId } = add();
    return { webhookId, eventId: await send() };
  };

  test.each(across(passing))('($question) is asked again after $what', async ({ subject, row }) => {
    const { operation, ask } = subject;
    const at = await given();
    const fine = JSON.stringify(await ask(open(), at));
    inject({ ...row, operation });
    expect(JSON.stringify(await ask(open(), at))).toBe(fine);
    expect(calls(operation)).toHaveLength(3);
  });

  test.each(across(lasting))('($question) ends in an error after $what', async ({ subject, row }) => {
    const { operation, name, ask } = subject;
    const at = await given();
    inject({ ...row.given, operation, ...always });
    const error = await failureOf(ask(open({ budgetMs: 30_000 }), at));
    expect([`${error.code} ${error.effect}`, error.facts.operation]).toEqual([row.want, name]);
  });

  test.each(Object.entries(questions))('(%s) waits as long as Render says', async (_question, subject) => {
    const at = await given();
    inject({ operation: subject.operation, kind: 'rate-limited', retryAfter: 7 });
    await subject.ask(open(), at);
    expect(vendors().waits).toContain(7_000);
  });

  test.each(Object.entries(questions))(
    '(%s) is not asked in an invocation that is over',
    async (_question, { ask }) => {
      const at = await given();
      expect(await codeOf(ask(open({ budgetMs: 0 }), at))).toBe('UNAVAILABLE none');
      expect(calls()).toEqual([]);
    },
  );
});
