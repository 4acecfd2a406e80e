import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Invocation } from '../../functions/core/events.ts';
import { secretName } from '../../functions/core/names.ts';
import type { Login } from '../../functions/core/provider.ts';
import { spellings } from '../../functions/core/sensitive.ts';
import { updateConsumers } from '../../functions/lifecycle/update-consumers.ts';
import type { Fault } from '../../infra/local/providers/faults.ts';
import { addRenderOrders } from '../../infra/local/providers/fixtures.ts';
import type {
  RenderDatabase,
  RenderOperation,
  RenderPostgres,
} from '../../infra/local/providers/render-postgres.ts';
import type { RenderService } from '../../infra/local/providers/render-services.ts';
import { startTestRekey, type TestRekey, withoutEvent } from '../support/rekey.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
let render: RenderPostgres;
let database: RenderDatabase;
let rekey: TestRekey;
let before = 0;

beforeAll(async () => {
  render = vendors().render.api;
  database = await addRenderOrders(render, vendors().render.postgres);
  rekey = await startTestRekey(vendors);
});
afterAll(() => rekey.stop());
beforeEach(() => {
  rekey.killAt(undefined);
  before = render.calls.length;
});

let names = 0;
const serviceConsumer = (service: RenderService, overrides: object = {}) => ({
  kind: 'render-service',
  serviceId: service.id,
  environmentVariable: 'DATABASE_URL',
  apiKeySecret: 'rekey/api-keys/render',
  ...overrides,
});
const bus = { kind: 'event-bridge', busName: 'orders' };
const addService = (): RenderService =>
  render.addService({ name: 'orders-api', variables: { PORT: '8080' } });

/** A credential with these consumers, after its first rotation. Answers its name. */
async function credential(consumers: readonly object[]): Promise<string> {
  names += 1;
  const name = `orders-${names}`;
  await rekey.request({
    name,
    provider: 'render-postgres',
    target: { postgresId: database.id },
    apiKeySecret: 'rekey/api-keys/render',
    usernamePrefix: `o${names}`,
    consumers,
  });
  await rekey.secretsManager.idle();
  return name;
}
const current = async (name: string): Promise<Login> => {
  const login = await rekey.login(name, 'AWSCURRENT');
  if (login === undefined) throw new Error(`${name} has no login, expected one after its first rotation`);
  return login;
};
/** Whether the service runs with the login that is in AWSCURRENT now, and can log in with it. */
const runsWithCurrent = async (service: RenderService, name: string): Promise<boolean> => {
  const { username, password, ...rest } = await current(name);
  const url = URL.parse(service.running()['DATABASE_URL'] ?? '');
  return (
    url?.username === username &&
    url.password === password.reveal() &&
    vendors().logsIn({ username, password, ...rest })
  );
};
const inject = (fault: Fault<RenderOperation>): void => render.faults.inject(fault);
const calls = (operation: RenderOperation) =>
  render.calls.slice(before).filter((call) => call.operation === operation);
/** What was published about a credential since it was made, by type. */
const published = (name: string, type: string) =>
  rekey
    .published()
    .filter((event) => event['detail-type'] === type && event.detail['credential'] === name)
    .map(({ detail }) => detail);
const moved = (name: string, overrides: Partial<Extract<Invocation, { is: 'label-moved' }>>) =>
  rekey.invoke((own, until) =>
    updateConsumers(
      {
        is: 'label-moved',
        secretName: secretName(name),
        label: 'AWSCURRENT',
        versionId: '00000000-0000-4000-8000-000000000000',
        ...overrides,
      },
      until,
      own,
    ),
  );

describe('when AWSCURRENT has moved', () => {
  test('the service runs with the new login, and an event says so', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service)]);
    await rekey.update(name);
    expect(await runsWithCurrent(service, name)).toBe(true);
    const { AWSCURRENT } = await rekey.labels(name);
    expect(published(name, 'ConsumerUpdated')).toEqual([
      {
        credential: name,
        provider: 'render-postgres',
        target: database.id,
        strategy: 'replace-user',
        versionId: AWSCURRENT,
        consumer: `render-service ${service.id} DATABASE_URL`,
        outcome: 'moved',
      },
    ]);
    expect(published(name, 'DriftFound')).toEqual([]);
    const password = (await current(name)).password.reveal();
    const said = JSON.stringify([rekey.logged, rekey.published(), rekey.bus.history('orders')]);
    expect(spellings(password).filter((spelling) => said.includes(spelling))).toEqual([]);
  });

  test('no consumer is changed or told before the bus has taken that, and it is said once a run', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service), bus]);
    const { AWSCURRENT: versionId = '' } = await rekey.labels(name);
    const run = rekey.invoke((own, until) =>
      updateConsumers(
        { is: 'label-moved', secretName: secretName(name), label: 'AWSCURRENT', versionId },
        until,
        { ...own, ports: withoutEvent('ConsumerUpdatePlanned', own.ports) },
      ),
    );
    await expect(run).rejects.toMatchObject({ code: 'EVENT_NOT_PUBLISHED' });
    expect(service.variables()).toEqual({ PORT: '8080' });
    expect(calls('startDeploy')).toEqual([]);
    expect(rekey.bus.history('orders').filter(({ detail }) => detail['credential'] === name)).toEqual([]);
    await rekey.update(name);
    const consumers = [`render-service ${service.id} DATABASE_URL`, 'event-bridge orders'];
    for (const type of ['ConsumerUpdatePlanned', 'ConsumerUpdated'])
      expect(
        published(name, type)
          .map(({ consumer }) => consumer)
          .toSorted(),
      ).toEqual(consumers.toSorted());
    expect(published(name, 'ConsumerUpdatePlanned')[0]).toMatchObject({ versionId, credential: name });
  });

  test('a consumer that runs with the login already is not announced', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service)]);
    await rekey.update(name);
    await rekey.update(name);
    expect(published(name, 'ConsumerUpdatePlanned')).toHaveLength(1);
  });

  test('a bus of the user’s own is told ids and nothing else', async () => {
    const name = await credential([bus]);
    await rekey.update(name);
    const { ARN } = await rekey.describe(name);
    const { AWSCURRENT } = await rekey.labels(name);
    const told = rekey.bus.history('orders').filter(({ detail }) => detail['credential'] === name);
    expect(told).toMatchObject([
      {
        source: 'rekey',
        'detail-type': 'CredentialChanged',
        detail: { credential: name, secretArn: ARN, versionId: AWSCURRENT },
        resources: [ARN],
      },
    ]);
    expect(Object.keys(told[0]?.detail ?? {}).toSorted()).toEqual(['credential', 'secretArn', 'versionId']);
    expect(published(name, 'ConsumerUpdated')).toMatchObject([
      { consumer: 'event-bridge orders', outcome: 'told' },
    ]);
  });

  test('many consumers are brought on together, each with its own outcome', async () => {
    const services = Array.from({ length: 7 }, addService);
    const name = await credential([...services.map((service) => serviceConsumer(service)), bus]);
    await rekey.update(name);
    for (const service of services) expect(await runsWithCurrent(service, name)).toBe(true);
    expect(published(name, 'ConsumerUpdated')).toHaveLength(8);
    expect(calls('startDeploy')).toHaveLength(7);
  });

  test('a second event of the same version starts no second deploy', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service)]);
    await rekey.update(name);
    await rekey.update(name);
    expect(calls('startDeploy')).toHaveLength(1);
  });

  test('an event of an older version brings the login of now', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service)]);
    const { AWSCURRENT: old = '' } = await rekey.labels(name);
    await rekey.rotate(name);
    await moved(name, { versionId: old });
    expect(await runsWithCurrent(service, name)).toBe(true);
  });

  test('again while a service is still on its way, it is left to the run for that', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service)]);
    inject({
      operation: 'startDeploy',
      kind: 'meanwhile',
      run: async () => void (await rekey.rotate(name)),
    });
    const { AWSCURRENT: versionId } = await rekey.labels(name);
    await rekey.update(name);
    expect(published(name, 'ConsumerUpdated')).toEqual([]);
    // It was written to, so it is said what came of that.
    expect(published(name, 'ConsumerLeftBehind')).toMatchObject([{ versionId, because: 'moving' }]);
    await rekey.update(name);
    expect(await runsWithCurrent(service, name)).toBe(true);
    expect(published(name, 'ConsumerUpdated')).toHaveLength(1);
    expect(published(name, 'DriftFound')).toEqual([]);
  });

  test('killed at any call and told again, it brings the service to the login', async () => {
    const service = addService();
    let name = await credential([serviceConsumer(service), bus]);
    render.switches.deploys.stageMs = 1_000;
    rekey.killAt(undefined);
    await rekey.update(name);
    const made = [...rekey.calls];
    const wrong: string[] = [];
    for (const { call, when, name: at } of rekey.deaths()) {
      // A credential has room for two users beside the new one.
      name = await credential([serviceConsumer(service), bus]);
      await rekey.rotate(name);
      rekey.killAt({ call, when });
      await rekey.update(name).catch(() => undefined);
      rekey.killAt(undefined);
      await rekey.update(name);
      if (!(await runsWithCurrent(service, name))) wrong.push(`killed ${when} call ${call} (${at})`);
    }
    expect(made.length).toBeGreaterThan(15);
    expect(wrong).toEqual([]);
  });
});

describe('what is none of its business', () => {
  const others: Record<string, Partial<Extract<Invocation, { is: 'label-moved' }>>> = {
    'another label': { label: 'BLUE' },
    'a vendor’s key': { secretName: 'rekey/api-keys/render' },
    'a secret of somebody else': { secretName: 'orders' },
    'a secret without a spec': { secretName: 'rekey/nobody' },
  };
  test.each(Object.entries(others))('%s is left alone', async (_what, overrides) => {
    const service = addService();
    const name = await credential([serviceConsumer(service)]);
    before = render.calls.length;
    await moved(name, overrides);
    expect(render.calls.slice(before)).toEqual([]);
    expect(service.variables()).toEqual({ PORT: '8080' });
  });

  test('a credential without consumers is left alone', async () => {
    const name = await credential([]);
    rekey.killAt(undefined);
    await rekey.update(name);
    expect(rekey.calls).toEqual(['readParameter']);
  });

  test('a secret that names no user yet is left alone', async () => {
    const service = addService();
    inject({ operation: 'getDatabase', kind: 'status', status: 400, times: 20 });
    const name = await credential([serviceConsumer(service)]);
    render.faults.clear();
    expect(await rekey.login(name, 'AWSCURRENT')).toBeUndefined();
    await rekey.update(name);
    expect(service.variables()).toEqual({ PORT: '8080' });
  });
});

describe('a consumer that does not come to the login', () => {
  const found = (name: string) =>
    published(name, 'DriftFound').map(({ kind, details }) => ({ kind, details }));

  test('as its deploy failed is reported once, and the others have theirs', async () => {
    const [failing, sound] = [addService(), addService()];
    const name = await credential([serviceConsumer(failing), serviceConsumer(sound)]);
    inject({
      operation: 'startDeploy',
      kind: 'meanwhile',
      when: 'before',
      run: async () => {
        render.switches.deploys.ends = 'update_failed';
      },
    });
    inject({
      operation: 'startDeploy',
      kind: 'meanwhile',
      when: 'before',
      run: async () => {
        render.switches.deploys.ends = 'live';
      },
    });
    await rekey.update(name);
    const isFirst = !(await runsWithCurrent(failing, name));
    const [bad, good] = isFirst ? [failing, sound] : [sound, failing];
    expect(await runsWithCurrent(good, name)).toBe(true);
    const [{ id = '' } = {}] = bad.deploys();
    const finding = {
      kind: 'ConsumerBehind',
      details: `render-service ${bad.id} DATABASE_URL: the deploy ${id} ended as update_failed`,
    };
    expect(found(name)).toEqual([finding]);
    const left = {
      consumer: `render-service ${bad.id} DATABASE_URL`,
      because: 'failed',
      secretArn: expect.stringContaining('rekey/'),
    };
    expect(published(name, 'ConsumerLeftBehind')).toMatchObject([left]);
    await rekey.update(name);
    expect(found(name)).toEqual([finding]);
    // Nothing was written this time.
    expect(published(name, 'ConsumerLeftBehind')).toHaveLength(1);
    expect(published(name, 'DriftFound')[0]).toMatchObject({
      provider: 'render-postgres',
      target: database.id,
      remedy: expect.stringContaining('Render’s dashboard'),
    });
  });

  test('within the time of a run is reported, and the run ends in time', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service)]);
    render.switches.deploys.ends = 'never';
    const start = vendors().clock.now().getTime();
    await rekey.update(name);
    const [{ id = '' } = {}] = service.deploys();
    expect(found(name)).toEqual([
      {
        kind: 'ConsumerBehind',
        details: `render-service ${service.id} DATABASE_URL: the deploy ${id} is under way`,
      },
    ]);
    expect(published(name, 'ConsumerLeftBehind')).toMatchObject([{ because: 'moving' }]);
    const took = vendors().clock.now().getTime() - start;
    expect(took).toBeGreaterThan(800_000);
    expect(took).toBeLessThan(890_000);
    expect(Math.max(...vendors().waits)).toBe(30_000);
    // Somebody mends it; the next run finds nothing more, so the same trouble would be news again.
    render.switches.deploys.ends = 'live';
    render.actor.deploy(service.id);
    await rekey.update(name);
    expect(Object.keys(await rekey.notes.stored('findings/consumers'))).not.toContain(name);
  });

  test('as its platform is down makes the run fail after the others had their turn', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service), bus]);
    inject({ operation: '*', kind: 'status', status: 503, times: Number.POSITIVE_INFINITY });
    await expect(rekey.update(name)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(published(name, 'ConsumerUpdated')).toMatchObject([{ outcome: 'told' }]);
    expect(found(name)).toEqual([
      {
        kind: 'ConsumerBehind',
        details: `render-service ${service.id} DATABASE_URL: it could not be asked (UNAVAILABLE)`,
      },
    ]);
    // It could not even be looked at: nothing was planned, and nothing is left behind.
    expect(published(name, 'ConsumerLeftBehind')).toEqual([]);
    render.faults.clear();
    await rekey.update(name);
    expect(await runsWithCurrent(service, name)).toBe(true);
  });

  test('as its platform refuses what is written is told to be left behind, each time that it was planned', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service)]);
    inject({ operation: 'startDeploy', kind: 'status', status: 503, times: Number.POSITIVE_INFINITY });
    for (let run = 1; run <= 2; run += 1)
      await expect(rekey.update(name)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(published(name, 'ConsumerUpdatePlanned')).toHaveLength(2);
    expect(published(name, 'ConsumerLeftBehind')).toMatchObject([
      { because: 'UNAVAILABLE' },
      { because: 'UNAVAILABLE' },
    ]);
    expect(found(name)).toHaveLength(1);
    render.faults.clear();
  });

  test('until its platform is up again is waited for', async () => {
    const service = addService();
    const name = await credential([serviceConsumer(service)]);
    inject({ operation: 'listDeploys', kind: 'status', status: 503, times: 8 });
    await rekey.update(name);
    expect(await runsWithCurrent(service, name)).toBe(true);
    expect(published(name, 'DriftFound')).toEqual([]);
  });

  test('as its key is gone is reported with what to do, and keeps nobody else from theirs', async () => {
    const [service, other] = [addService(), addService()];
    const name = await credential([
      serviceConsumer(other, { apiKeySecret: 'rekey/api-keys/gone' }),
      serviceConsumer(service),
    ]);
    await rekey.update(name);
    expect(await runsWithCurrent(service, name)).toBe(true);
    expect(published(name, 'DriftFound')).toMatchObject([
      {
        kind: 'ConsumerBehind',
        details: expect.stringContaining('rekey/api-keys/gone holds no API key'),
        remedy: 'store the key under the name that the spec gives, or correct the spec',
      },
    ]);
  });
});
