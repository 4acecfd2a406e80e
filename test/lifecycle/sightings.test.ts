import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ProviderError } from '../../functions/core/errors.ts';
import type { UserSighting } from '../../functions/core/events.ts';
import type { TargetTask } from '../../functions/core/fleet.ts';
import type { HttpResponse, Ports } from '../../functions/core/ports.ts';
import type { VendorEvent, VendorWebhooks, WebhookStanding } from '../../functions/core/provider.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { reconcileUsers } from '../../functions/lifecycle/reconcile-users.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';
import { noteReceived } from '../../functions/lifecycle/watch-webhooks.ts';
import { addRenderOrders } from '../../infra/local/providers/fixtures.ts';
import {
  deaths,
  startTestRekey,
  type TestRekey,
  token,
  webhookBaseUrl,
  withoutEvent,
} from '../support/rekey.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const postgresId = 'dpg-d1abc2d3e4f5g6h7i8j9-a';
const hourMs = 3_600_000;
const foreignPassword = 'Somebodys-password_000000000001';
let rekey: TestRekey;

beforeAll(async () => {
  const { render } = vendors();
  await addRenderOrders(render.api, render.postgres, { id: postgresId });
  rekey = await startTestRekey(vendors);
});
afterAll(() => rekey.stop());

// A cluster a test, and whatever its vendor says of webhooks: Zilliz has none, so this is how one that has them would look.
let clusters = 0;
let clusterId = '';
let vendor: {
  webhooks: 'none' | 'some';
  standing: WebhookStanding | Error;
  events: Map<string, VendorEvent | Error>;
  asked: string[];
};
beforeEach(() => {
  clusters += 1;
  clusterId = `in01-${String(clusters).padStart(16, '0')}`;
  vendors().zilliz.api.addCluster({ id: clusterId, name: 'orders', roles: ['orders_rw'] });
  vendor = { webhooks: 'none', standing: { is: 'absent' }, events: new Map(), asked: [] };
  rekey.failures.length = 0;
  rekey.measured.length = 0;
  rekey.logged.length = 0;
  rekey.killAt(undefined);
});
afterEach(async () => {
  await rekey.secretsManager.idle();
  for (const { parameter } of await stored('/rekey/'))
    await rekey.parameters.call('DeleteParameter', { Name: parameter });
  await forgetSightings();
});

const webhooks: VendorWebhooks = {
  endpoint: 'acme',
  async standing(url) {
    vendor.asked.push(`standing ${url}`);
    if (vendor.standing instanceof Error) throw vendor.standing;
    return vendor.standing;
  },
  deliveries: async () => [],
  async event(id) {
    vendor.asked.push(`event ${id}`);
    const event = vendor.events.get(id) ?? 'absent';
    if (event instanceof Error) throw event;
    return event;
  },
};
/** The same world, where Zilliz sends webhooks if `vendor` says so. */
const withWebhooks = (given: Rekey): Rekey => ({
  ...given,
  loadProvider: async (id) => {
    const definition = await given.loadProvider(id);
    if (definition === undefined || vendor.webhooks === 'none') return definition;
    return { ...definition, open: (options, ports) => ({ ...definition.open(options, ports), webhooks }) };
  },
});

async function stored(path: string) {
  const answer = (await rekey.parameters.call('GetParametersByPath', { Path: path, Recursive: true })) as {
    Parameters: { Name: string; Value: string }[];
  };
  return answer.Parameters.map(({ Name: parameter, Value: document }) => ({ parameter, document }));
}
const noteKey = () => `zilliz-cloud/${clusterId}`;
const note = async (): Promise<string | undefined> => (await rekey.notes.stored('users'))[noteKey()];
async function forgetSightings(): Promise<void> {
  for (const place of ['users', 'webhooks'])
    for (const key of Object.keys(await rekey.notes.stored(place)))
      await rekey.notes.ports.deleteNote({ place, key });
}

/** A credential on the cluster of this test. */
async function credential(name = 'orders-api'): Promise<string> {
  await rekey.request({
    name: `${name}-${clusters}`,
    provider: 'zilliz-cloud',
    target: { clusterId },
    apiKeySecret: 'rekey/api-keys/zilliz',
    usernamePrefix: name.replaceAll('-', '_'),
    strategy: 'replace-user',
    privileges: { roles: ['orders_rw'] },
  });
  await rekey.secretsManager.idle();
  return `${name}-${clusters}`;
}
const username = async (name: string): Promise<string> =>
  (await rekey.login(name, 'AWSCURRENT'))?.username ?? 'nobody';
const create = (user: string) => vendors().zilliz.api.actor.createUser(clusterId, user, foreignPassword);
const remove = (user: string) => vendors().zilliz.api.actor.deleteUser(clusterId, user);

const event = (eventId: string, eventType = 'users_created') => ({ endpoint: 'acme', eventId, eventType });
const zillizKey = 'rekey/api-keys/zilliz';
const message = (because?: TargetTask['because']) => ({
  id: token(),
  body: JSON.stringify({
    provider: 'zilliz-cloud',
    targetId: clusterId,
    ...(because === undefined ? { watched: [zillizKey] } : { because }),
  }),
});
/** One look: that of a pass where there is no event, or of a webhook. */
const look = (causes: readonly TargetTask['because'][] = [undefined], change = (ports: Ports) => ports) =>
  rekey.invoke((given, until) => {
    const changed = withWebhooks(given);
    return reconcileUsers({ is: 'messages', messages: causes.map(message) }, { webhookBaseUrl }, until, {
      ...changed,
      ports: change(changed.ports),
    });
  });

/** Ports that let `list` decide what the list of users is. */
const listing =
  (list: (ask: () => Promise<HttpResponse>) => Promise<HttpResponse>) =>
  (ports: Ports): Ports => ({
    ...ports,
    http: (request) =>
      request.url.pathname.endsWith('/users/list') ? list(() => ports.http(request)) : ports.http(request),
  });

/** Who was told of on the cluster of this test. */
const sightings = () =>
  rekey
    .published()
    .filter(({ detail }) => detail['target'] === clusterId)
    .flatMap(({ 'detail-type': type, detail }) => {
      const what = /^DatabaseUser(Appeared|Disappeared)$/.exec(type)?.[1];
      return what === undefined ? [] : [{ what, ...(detail as unknown as UserSighting) }];
    });
const told = () => sightings().map(({ what, username: user, standing }) => `${what} ${user} ${standing}`);

describe('the users of a target', () => {
  test('are only noted at the first look, and nothing is told or written while they stay the same', async () => {
    const name = await credential();
    await look();
    expect(told()).toEqual([]);
    expect(JSON.parse((await note()) ?? '')).toEqual({
      foreign: ['db_admin'],
      expected: { [name]: [await username(name)] },
    });
    rekey.killAt(undefined);
    const lists = () => vendors().requests.filter(({ url }) => url.endsWith('/users/list')).length;
    const before = lists();
    await look();
    expect(lists() - before).toBe(1);
    expect(rekey.calls.filter((call) => call === 'writeNote' || call === 'publish')).toEqual([]);
    // Beside the notes of the target's members and of the findings.
    expect(rekey.calls.filter((call) => call === 'readNote')).toHaveLength(3);
    expect(told()).toEqual([]);
  });

  test('are told of once when they come and when they go, each with whose it is', async () => {
    const name = await credential();
    await look();
    const first = await username(name);
    const versionId = await rekey.rotate(name);
    const second = await username(name);
    create('meddler');
    await look();
    await look();
    expect(sightings()).toEqual([
      {
        what: 'Appeared',
        provider: 'zilliz-cloud',
        target: clusterId,
        username: second,
        standing: 'expected',
        credential: name,
        versionId,
      },
      {
        what: 'Appeared',
        provider: 'zilliz-cloud',
        target: clusterId,
        username: 'meddler',
        standing: 'foreign',
      },
    ]);
    remove('meddler');
    remove(first);
    await look();
    await look();
    expect(sightings().slice(2)).toMatchObject([
      { what: 'Disappeared', username: 'meddler', standing: 'foreign' },
      { what: 'Disappeared', username: first, standing: 'expected', credential: name },
    ]);
    expect(told()).toHaveLength(4);
  });

  test('that carry our prefix, and that no version made, are foreign', async () => {
    await credential();
    await look();
    create('orders_api_abcdefghijkl');
    await look();
    expect(told()).toEqual(['Appeared orders_api_abcdefghijkl foreign']);
  });

  test('that went with their credential are still known to have been ours', async () => {
    await credential('stays');
    const gone = await credential('goes');
    await look();
    const user = await username(gone);
    remove(user);
    await rekey.secretsManager.call('DeleteSecret', { SecretId: `rekey/${gone}` });
    await rekey.parameters.call('DeleteParameter', { Name: `/rekey/credentials/${gone}` });
    await look();
    expect(sightings()).toMatchObject([
      { what: 'Disappeared', username: user, standing: 'expected', credential: gone },
    ]);
  });

  test.each(['first', 'second'])(
    'that the %s list alone lacks because it lags behind are not gone',
    async (which) => {
      const name = await credential();
      create('colleague');
      create('leaver');
      await look();
      remove('leaver');
      let lists = 0;
      const lagging = listing(async (ask) => {
        lists += 1;
        if ((lists === 1) !== (which === 'first')) return ask();
        remove('colleague');
        const answer = await ask();
        create('colleague');
        return answer;
      });
      await look([undefined], lagging);
      expect(lists).toBe(2);
      await look();
      expect(told()).toEqual(['Disappeared leaver foreign']);
      expect(await note()).toContain('"colleague"');
      expect(await note()).toContain(await username(name));
    },
  );

  test('that come between two lists are told of by the next look, which knows their versions', async () => {
    const name = await credential();
    create('leaver');
    await look();
    remove('leaver');
    let lists = 0;
    await look(
      [undefined],
      listing(async (ask) => {
        lists += 1;
        if (lists === 2) await rekey.rotate(name);
        return ask();
      }),
    );
    expect(told()).toEqual(['Disappeared leaver foreign']);
    await look();
    expect(told()).toEqual(['Disappeared leaver foreign', `Appeared ${await username(name)} expected`]);
    expect(
      rekey
        .published()
        .filter(({ detail }) => detail['target'] === clusterId)
        .flatMap(({ detail }) => detail['kind'] ?? []),
    ).toEqual(['ForeignUser']);
  });

  test('are neither told of nor noted while the target cannot be seen as a whole', async () => {
    await credential();
    await look();
    const before = await note();
    create('meddler');
    vendors().zilliz.api.actor.setStatus(clusterId, 'SUSPENDED');
    await look();
    vendors().zilliz.api.actor.setStatus(clusterId, 'RUNNING');
    vendors().zilliz.api.faults.inject({ operation: '*', kind: 'status', status: 401, times: 99 });
    await look();
    vendors().zilliz.api.faults.clear();
    expect(told()).toEqual([]);
    expect(await note()).toBe(before);
    await look();
    expect(told()).toEqual(['Appeared meddler foreign']);
  });

  test('are neither told of nor noted while a part of what is needed to say whose they are cannot be read', async () => {
    const name = await credential();
    const keyless = `keyless-${clusters}`;
    const parameter = `/rekey/credentials/${keyless}`;
    const [spec] = await stored('/rekey/credentials/');
    await rekey.parameters.call('PutParameter', {
      Name: parameter,
      Value: JSON.stringify({
        ...(JSON.parse(spec?.document ?? '') as object),
        name: keyless,
        usernamePrefix: 'keyless',
        apiKeySecret: 'rekey/api-keys/none',
      }),
      Type: 'String',
    });
    await look();
    expect(await note()).toBeUndefined();
    await rekey.parameters.call('DeleteParameter', { Name: parameter });
    await look();
    expect(await note()).toContain(await username(name));
    create('meddler');
    await rekey.parameters.call('PutParameter', { Name: parameter, Value: spec?.document, Type: 'String' });
    // A spec under another name than its own cannot be read, but nothing of the target depends on it.
    await look();
    expect(told()).toEqual(['Appeared meddler foreign']);
  });

  test('of a spec that cannot be read are not taken for strangers, and told of when it is mended', async () => {
    const good = await credential('good');
    const broken = await credential('broken');
    const parameter = `/rekey/credentials/${broken}`;
    const [spec] = (await stored('/rekey/credentials/')).filter((each) => each.parameter === parameter);
    await look();
    const put = (Value: string) =>
      rekey.parameters.call('PutParameter', { Name: parameter, Value, Overwrite: true });
    await rekey.rotate(broken);
    await put('{}');
    await rekey.rotate(good);
    await look();
    await look();
    const mine = `Appeared ${await username(good)} expected`;
    expect(told()).toEqual([mine]);
    await put(spec?.document ?? '');
    await look();
    expect(told()).toEqual([mine, `Appeared ${await username(broken)} expected`]);
  });

  test('are noted anew where somebody spoiled the note', async () => {
    await credential();
    await look();
    await rekey.notes.put('users', noteKey(), 'no JSON');
    create('meddler');
    await look();
    expect(told()).toEqual([]);
    remove('meddler');
    await look();
    expect(told()).toEqual(['Disappeared meddler foreign']);
  });

  test('are told of twice at worst by two looks at once', async () => {
    await credential();
    create('leaver');
    await look();
    create('meddler');
    remove('leaver');
    await Promise.all([look(), look()]);
    await look();
    for (const each of ['Appeared meddler foreign', 'Disappeared leaver foreign']) {
      const times = told().filter((one) => one === each).length;
      expect(times).toBeGreaterThanOrEqual(1);
      expect(times).toBeLessThanOrEqual(2);
    }
    expect(new Set(told()).size).toBe(2);
  });

  test('are told of, wherever the look dies: once or twice, and nothing that is not so', async () => {
    const name = await credential();
    vendor.webhooks = 'some';
    vendor.standing = { is: 'enabled', id: 'whk-1' };
    const wrong: string[] = [];
    const play = async (kill: Parameters<TestRekey['killAt']>[0], place = 'nowhere') => {
      if (
        vendors()
          .zilliz.api.clusters.get(clusterId)
          ?.users()
          .some((user) => user.username === 'leaver') !== true
      )
        create('leaver');
      await forgetSightings();
      await look();
      const before = told().length;
      create('meddler');
      remove('leaver');
      rekey.killAt(kill);
      await look().catch(() => undefined);
      const calls = [...rekey.calls];
      rekey.killAt(undefined);
      await look();
      const said = told().slice(before);
      const counts = ['Appeared meddler foreign', 'Disappeared leaver foreign'].map(
        (each) => said.filter((one) => one === each).length,
      );
      await look();
      if (counts.some((count) => count < 1 || count > 2) || said.length !== (counts[0] ?? 0) * 2)
        wrong.push(`${place}: ${said.join(', ')}`);
      if (told().length !== before + said.length) wrong.push(`${place}: told again and again`);
      remove('meddler');
      return calls;
    };
    const calls = await play(undefined);
    expect(calls).toContain('publish');
    // A death after a read leaves the world as the one before it did.
    const reads = [
      ...['describeSecret', 'readSecret', 'listVersions', 'readParameter', 'listParameters'],
      ...['readNote', 'listNotes', 'http'],
    ];
    const places = deaths(calls).filter((_death, index) => !reads.includes(calls[index - 1] ?? ''));
    expect(places.length).toBeGreaterThan(5);
    for (const kill of places) await play(kill, `killed ${kill.when} call ${kill.call} (${kill.name})`);
    expect(wrong).toEqual([]);
    expect(await rekey.login(name, 'AWSCURRENT')).toBeDefined();
  }, 60_000);

  test('wait for a bus that is away: the task comes again', async () => {
    await credential();
    await look();
    create('meddler');
    const { batchItemFailures } = await look([undefined], (ports) =>
      withoutEvent('DatabaseUserAppeared', ports),
    );
    expect(batchItemFailures).toHaveLength(1);
    await look();
    expect(told()).toEqual(['Appeared meddler foreign']);
  });

  test('are too many for one note: those that have room are watched, and nobody is told of again and again', async () => {
    await credential();
    const many = Array.from({ length: 400 }, (_, index) =>
      `stranger_${String(index).padStart(4, '0')}_`.padEnd(1_000, 'x'),
    );
    const crowd = listing(async (ask) => {
      const answer = await ask();
      const body = JSON.parse(answer.body.reveal()) as { data: string[] };
      return { ...answer, body: new Sensitive(JSON.stringify({ ...body, data: [...body.data, ...many] })) };
    });
    for (let pass = 1; pass <= 3; pass += 1) await look([undefined], crowd);
    expect(told()).toEqual([]);
    expect(rekey.logged.filter((line) => line.startsWith('there are more users than'))).toHaveLength(3);
    expect((await note())?.length).toBeLessThanOrEqual(380_000);
    create('aaa_meddler');
    for (let pass = 1; pass <= 3; pass += 1) await look([undefined], crowd);
    remove('aaa_meddler');
    for (let pass = 1; pass <= 3; pass += 1) await look([undefined], crowd);
    expect(told()).toEqual(['Appeared aaa_meddler foreign', 'Disappeared aaa_meddler foreign']);
  });
});

describe('a look because of a webhook', () => {
  beforeEach(async () => {
    vendor.webhooks = 'some';
    vendor.standing = { is: 'enabled', id: 'whk-1' };
    await credential();
    create('leaver');
    await look();
    vendor.asked.length = 0;
  });
  const correlated = () =>
    sightings().map(({ username: user, providerEventId, isCaughtUp }) => [user, providerEventId, isCaughtUp]);

  test('asks the vendor only where something has changed, and looks after no webhook', async () => {
    await look([event('evt-1')]);
    expect(vendor.asked).toEqual([]);
    create('meddler');
    await look([event('evt-1')]);
    expect(vendor.asked).toEqual(['event evt-1']);
  });

  test('names the event of each user, by what the vendor says of it or as the only one that fits', async () => {
    create('one');
    create('two');
    remove('leaver');
    vendor.events.set('evt-1', { id: 'evt-1', type: 'users_created', target: clusterId, username: 'two' });
    await look([event('evt-1'), event('evt-2'), event('evt-3', 'users_deleted'), event('evt-1')]);
    expect(Object.fromEntries(correlated().map(([user, id]) => [user, id]))).toEqual({
      one: 'evt-2',
      two: 'evt-1',
      leaver: 'evt-3',
    });
    expect(vendor.asked.toSorted()).toEqual(['event evt-1', 'event evt-2', 'event evt-3']);
    // All of this was told by webhooks.
    expect(rekey.measured.filter(({ metric }) => metric === 'WebhooksMissed')).toEqual([]);
    expect(correlated().map(([, , isCaughtUp]) => isCaughtUp)).toEqual([undefined, undefined, undefined]);
  });

  test.each([
    ['of another target', { id: 'evt-1', type: 'users_created', target: 'in01-another', username: 'one' }],
    ['of another vendor', undefined],
  ])('makes nothing of an event %s', async (whose, details) => {
    create('one');
    if (details !== undefined) vendor.events.set('evt-1', details);
    await look([{ ...event('evt-1'), endpoint: whose === 'of another vendor' ? 'render' : 'acme' }]);
    expect(correlated()).toEqual([['one', undefined, undefined]]);
    if (whose === 'of another vendor') expect(vendor.asked).toEqual([]);
  });

  test('is not spoiled by a vendor that does not answer: the only one that fits is still that one', async () => {
    create('one');
    const facts = { code: 'UNAVAILABLE', effect: 'none', provider: 'acme', operation: 'readEvent' } as const;
    vendor.events.set('evt-1', new ProviderError('acme is away', facts));
    expect(await look([event('evt-1')])).toEqual({ batchItemFailures: [] });
    expect(correlated()).toEqual([['one', 'evt-1', undefined]]);
  });
});

describe('a look that no webhook caused', () => {
  const caughtUp = () => sightings().map(({ isCaughtUp }) => isCaughtUp);
  const missed = () =>
    rekey.measured.flatMap(({ metric, value }) => (metric === 'WebhooksMissed' ? [value] : []));

  test('says of a user that a webhook should have told of it, and counts it, where one is in use', async () => {
    vendor.webhooks = 'some';
    vendor.standing = { is: 'enabled', id: 'whk-1' };
    await credential();
    await look();
    create('one');
    create('two');
    await look();
    expect(caughtUp()).toEqual([true, true]);
    expect(missed()).toEqual([2]);
    expect(vendor.asked.filter((call) => call.startsWith('event'))).toEqual([]);
  });

  test.each([
    ['waits for the look of a webhook that was received just now', 'enabled', undefined],
    ['does not where that webhook is found switched off in the same look', 'disabled', true],
  ] as const)('%s', async (_what, is, isCaughtUp) => {
    vendor.webhooks = 'some';
    vendor.standing = { is: 'enabled', id: 'whk-1' };
    await credential();
    await look();
    await rekey.invoke((given) => noteReceived('acme', given));
    create('one');
    vendor.standing = { is, id: 'whk-1' };
    await look();
    expect(caughtUp()).toEqual([isCaughtUp]);
  });

  test.each<[string, 'none' | 'some', WebhookStanding]>([
    ['the vendor has none', 'none', { is: 'absent' }],
    ['there is none', 'some', { is: 'absent' }],
    ['the key may not see any', 'some', { is: 'unreadable', reason: 'no' }],
  ])('says nothing of the kind where %s', async (_why, has, standing) => {
    Object.assign(vendor, { webhooks: has, standing });
    await credential();
    await look();
    create('one');
    await look();
    expect(caughtUp()).toEqual([undefined]);
    expect(missed()).toEqual([]);
  });

  test('finds a webhook that is silent an hour after the first user that it should have told of', async () => {
    vendor.webhooks = 'some';
    vendor.standing = { is: 'enabled', id: 'whk-1' };
    await credential();
    await look();
    create('one');
    await look();
    const silent = () =>
      rekey
        .published()
        .filter(
          ({ detail }) =>
            detail['kind'] === 'WebhookDisabled' && String(detail['details']).startsWith('users'),
        ).length;
    const before = silent();
    vendors().clock.move(hourMs);
    await look();
    await look();
    expect(silent() - before).toBe(1);
  });

  test('is done with the users before it asks for webhooks, and does not suffer from them', async () => {
    vendor.webhooks = 'some';
    const facts = {
      code: 'UNAVAILABLE',
      effect: 'none',
      provider: 'acme',
      operation: 'listWebhooks',
    } as const;
    vendor.standing = new ProviderError('acme is away', facts);
    const name = await credential();
    await look();
    remove(await username(name));
    create('meddler');
    expect(await look()).toEqual({ batchItemFailures: [] });
    const kinds = rekey
      .published()
      .filter(({ detail }) => detail['target'] === clusterId && detail['kind'] !== undefined)
      .map(({ 'detail-type': type, detail }) => [type, detail['kind']]);
    expect(kinds).toEqual([
      ['DriftFound', 'SecretWithoutUser'],
      ['DriftFound', 'ForeignUser'],
      ['DriftRepaired', 'SecretWithoutUser'],
    ]);
    expect(told()).toHaveLength(2);
  });

  test('leaves the webhook to the next pass where there is no time left, and tells of the users', async () => {
    vendor.webhooks = 'some';
    await credential();
    await look();
    create('meddler');
    vendor.asked.length = 0;
    const slow = listing(async (ask) => {
      vendors().clock.move(40_000);
      return ask();
    });
    await rekey.invoke((given, until) => {
      const changed = withWebhooks(given);
      return reconcileUsers(
        { is: 'messages', messages: [message()] },
        { webhookBaseUrl },
        new Date(until.getTime() - 825_000),
        { ...changed, ports: slow(changed.ports) },
      );
    });
    expect(vendor.asked).toEqual([]);
    expect(told()).toEqual(['Appeared meddler foreign']);
  });

  test('asks for webhooks once a key, however many targets share it', async () => {
    vendor.webhooks = 'some';
    vendor.standing = { is: 'enabled', id: 'whk-1' };
    await credential('zzz');
    const late = clusterId;
    clusters += 1;
    clusterId = `in01-${String(clusters).padStart(16, '0')}`;
    vendors().zilliz.api.addCluster({ id: clusterId, name: 'orders', roles: ['orders_rw'] });
    await credential('aaa');
    await rekey.reconcile();
    const messages = rekey
      .takeMessages()
      .messages.filter(({ body }) => [late, clusterId].includes(JSON.parse(body).targetId));
    expect(messages).toHaveLength(2);
    await rekey.invoke((given, until) =>
      reconcileUsers({ is: 'messages', messages }, { webhookBaseUrl }, until, withWebhooks(given)),
    );
    expect(vendor.asked).toEqual([`standing ${webhookBaseUrl}acme`]);
    // Both know of it: a user of the other target is one that it should have told of, too.
    vendors().zilliz.api.actor.createUser(late, 'meddler', foreignPassword);
    clusterId = late;
    await look();
    expect(sightings()).toMatchObject([{ username: 'meddler', isCaughtUp: true }]);
  });
});

test('at Render, what its webhook did not bring is found: the event, the user, and that it is switched off', async () => {
  const { api } = vendors().render;
  // Nobody listens there, and the last failure switches it off.
  const nowhere = 'http://127.0.0.1:1/webhooks/';
  const webhook = api.webhooks.add({ url: `${nowhere}render` });
  api.webhooks.switches.retryDelaysMs = [];
  await rekey.request({
    name: 'orders-render',
    provider: 'render-postgres',
    target: { postgresId },
    apiKeySecret: 'rekey/api-keys/render',
    usernamePrefix: 'orders_render',
    strategy: 'replace-user',
  });
  await rekey.secretsManager.idle();
  const messages = [
    {
      id: token(),
      body: JSON.stringify({
        provider: 'render-postgres',
        targetId: postgresId,
        watched: ['rekey/api-keys/render'],
      }),
    },
  ];
  const pass = () =>
    rekey.invoke((given, until) =>
      reconcileUsers({ is: 'messages', messages }, { webhookBaseUrl: nowhere }, until, given),
    );
  await pass();
  api.webhooks.enable(webhook.id);
  await api.actor.createUser(postgresId, 'intruder');
  // It is sent as soon as time goes on.
  vendors().clock.move(1_000);
  await expect.poll(() => api.webhooks.list().some(({ isEnabled }) => isEnabled)).toBe(false);
  vendors().clock.move(2 * hourMs);
  await pass();
  const published = rekey
    .published()
    .filter(({ detail }) => detail['username'] === 'intruder' || detail['provider'] === 'render')
    .map(({ 'detail-type': type, detail }) => [type, detail['isCaughtUp'], detail['target']]);
  expect(published).toContainEqual(['DatabaseUserAppeared', true, postgresId]);
  expect(published.filter(([type]) => type === 'ProviderEventReceived').at(-1)).toEqual([
    'ProviderEventReceived',
    true,
    postgresId,
  ]);
  expect(
    rekey
      .published()
      .filter(({ detail }) => detail['kind'] === 'WebhookDisabled')
      .map(({ detail }) => detail),
  ).toContainEqual({
    kind: 'WebhookDisabled',
    provider: 'render-postgres',
    target: '',
    details: `the webhook ${webhook.id} of render is switched off`,
    remedy: expect.stringMatching(/switch it on again/),
  });
  api.webhooks.remove(webhook.id);
});
