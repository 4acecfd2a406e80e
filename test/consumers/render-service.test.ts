import { inspect } from 'node:util';
import fc from 'fast-check';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { renderService } from '../../functions/consumers/render-service.ts';
import type { Consumer, ConsumerStanding } from '../../functions/core/consumer.ts';
import { ProviderError } from '../../functions/core/errors.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { Sensitive, spellings } from '../../functions/core/sensitive.ts';
import type { Fault } from '../../infra/local/providers/faults.ts';
import type { RenderOperation, RenderPostgres } from '../../infra/local/providers/render-postgres.ts';
import type { RenderDeploySwitches, RenderService } from '../../infra/local/providers/render-services.ts';
import { asWanted } from '../support/guards.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
let render: RenderPostgres;
let service: RenderService;
let before = 0;
const shown: string[] = [];
const urls = {
  first: 'postgresql://orders_first:canaryFirst0123456789@dpg-a.example/orders?sslmode=require',
  second: 'postgresql://orders_second:canarySecond0123456789@dpg-a.example/orders?sslmode=require',
  byHand: 'postgresql://by_hand:canaryByHand0123456789@dpg-a.example/orders',
};
const versions = {
  first: '11111111-aaaa-4aaa-8aaa-111111111111',
  second: '22222222-bbbb-4bbb-8bbb-222222222222',
};
type Which = keyof typeof versions;

beforeAll(() => {
  render = vendors().render.api;
});
beforeEach(() => {
  for (const url of Object.values(urls)) vendors().keepSecret(url);
  service = render.addService({ name: 'orders-api', variables: { DATABASE_URL: urls.byHand, PORT: '8080' } });
  vendors().clock.move(1_000);
  before = render.calls.length;
  shown.length = 0;
});
afterEach(() => {
  const text = shown.join('\n');
  const secrets = Object.values(urls).flatMap((url) => [url, new URL(url).password]);
  expect(secrets.flatMap(spellings).filter((spelling) => text.includes(spelling))).toEqual([]);
});

const calls = (operation?: RenderOperation) =>
  render.calls
    .slice(before)
    .map((call) => call.operation)
    .filter((each) => operation === undefined || each === operation);
const inject = (fault: Fault<RenderOperation>): void => render.faults.inject(fault);
/** A deploy and all its stages. */
const aDeploy = 30_000;
const goOn = (ms = aDeploy): void => vendors().clock.move(ms);

interface OpenOptions {
  readonly which?: Which;
  readonly serviceId?: string;
  readonly field?: string;
  readonly apiKey?: string;
  readonly budgetMs?: number;
  readonly http?: Ports['http'];
}
/** A consumer of one invocation. All that it says and throws is kept. */
const open = ({
  which = 'first',
  serviceId = service.id,
  field = 'url',
  apiKey = vendors().apiKeys.render,
  budgetMs = 600_000,
  http,
}: OpenOptions = {}): Consumer => {
  const { clock, ports } = vendors();
  const until = new Date(clock.now().getTime() + budgetMs);
  const fields: Readonly<Record<string, string>> = {
    url: urls[which],
    password: new URL(urls[which]).password,
  };
  const consumer = renderService.open(
    {
      kind: 'render-service',
      serviceId,
      environmentVariable: 'DATABASE_URL',
      field,
      apiKeySecret: 'rekey/api-keys/render',
    },
    {
      credential: 'orders',
      secretArn: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:rekey/orders-a1b2c3',
      versionId: versions[which],
      field: (name) => (fields[name] === undefined ? undefined : new Sensitive(fields[name])),
    },
    { guard: asWanted, apiKey: new Sensitive(apiKey), until },
    ports(until, http === undefined ? {} : { http }),
  );
  const kept = (ask: () => Promise<ConsumerStanding>) => async () => {
    try {
      const standing = await ask();
      shown.push(inspect(standing, { depth: 8 }));
      return standing;
    } catch (error) {
      shown.push(inspect(error, { depth: 8 }));
      throw error;
    }
  };
  return { standing: kept(consumer.standing), advance: kept(consumer.advance) };
};
const failureOf = async (work: Promise<unknown>): Promise<ProviderError> => {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ProviderError)) throw new Error(`got ${String(error)}, expected a ProviderError`);
  return error;
};
/** Advances as a run of update-consumers would, until there is nothing left to do. */
const converge = async (options: OpenOptions = {}): Promise<ConsumerStanding> => {
  const consumer = open(options);
  let standing = await consumer.advance();
  for (let turn = 0; turn < 20 && (standing.say === 'moving' || standing.say === 'behind'); turn += 1) {
    goOn(10_000);
    standing = standing.say === 'moving' ? await consumer.standing() : await consumer.advance();
  }
  return standing;
};
/** An http port that dies at its n-th call, before it left or after it took effect. */
const dyingHttp = (at: number, when: 'before' | 'after'): Ports['http'] => {
  const send = vendors().http(vendors().network.proxyUrl);
  let made = 0;
  return async (request) => {
    made += 1;
    if (made < at) return send(request);
    if (made === at && when === 'after') await send(request);
    throw new Error('killed');
  };
};
const deploys = (): readonly string[] => service.deploys().map(({ status }) => status);

describe('a service that does not have the login', () => {
  test('gets the variable, its marker and one deploy, in this order', async () => {
    expect(await open().advance()).toMatchObject({ say: 'moving' });
    expect(calls()).toEqual([
      'readVariable',
      'readVariable',
      'listDeploys',
      'setVariable',
      'listDeploys',
      'setVariable',
      'startDeploy',
      'listDeploys',
    ]);
    const [, first] = service.deploys();
    expect(service.variables()).toEqual({
      DATABASE_URL: urls.first,
      DATABASE_URL_REKEY: `${versions.first} ${first?.id}`,
      PORT: '8080',
    });
    expect(deploys()).toEqual(['created', 'live']);
  });

  test('has moved once that deploy is live, and not before', async () => {
    const consumer = open();
    expect(await consumer.standing()).toEqual({ say: 'behind', details: 'DATABASE_URL holds another login' });
    await consumer.advance();
    const said: string[] = [];
    for (let turn = 0; turn < 4; turn += 1) {
      const { say } = await consumer.standing();
      said.push(`${deploys()[0]} ${say} ${service.running()['DATABASE_URL'] === urls.first}`);
      goOn(10_000);
    }
    expect(said).toEqual([
      'created moving false',
      'build_in_progress moving false',
      'update_in_progress moving false',
      'live moved true',
    ]);
    expect(await open().standing()).toEqual({ say: 'moved' });
  });

  test('says so without changing anything', async () => {
    await open().standing();
    expect(calls()).toEqual(['readVariable', 'readVariable', 'listDeploys']);
  });

  test('is told of a variable that is not there yet', async () => {
    service = render.addService({ name: 'fresh' });
    expect(await open().standing()).toEqual({ say: 'behind', details: 'DATABASE_URL is not set' });
    expect(await converge()).toEqual({ say: 'moved' });
    expect(service.running()['DATABASE_URL']).toBe(urls.first);
  });

  test('gets the field that its settings name', async () => {
    await open({ field: 'password' }).advance();
    expect(service.variables()['DATABASE_URL']).toBe('canaryFirst0123456789');
  });

  test('is not touched where the value has no such field', async () => {
    const want = {
      say: 'failed',
      details: 'the secret value has no field uri',
      remedy: 'correct field in the spec',
    };
    expect(await open({ field: 'uri' }).standing()).toEqual(want);
    expect(await open({ field: 'uri' }).advance()).toEqual(want);
    expect(calls()).toEqual([]);
  });

  test('is asked for by its own paths alone', async () => {
    await converge();
    const paths = new Set(render.calls.slice(before).map(({ method, path }) => `${method} ${path}`));
    const here = `/v1/services/${service.id}`;
    expect([...paths].toSorted()).toEqual([
      `GET ${here}/deploys`,
      `GET ${here}/env-vars/DATABASE_URL`,
      `GET ${here}/env-vars/DATABASE_URL_REKEY`,
      `POST ${here}/deploys`,
      `PUT ${here}/env-vars/DATABASE_URL`,
      `PUT ${here}/env-vars/DATABASE_URL_REKEY`,
    ]);
  });
});

describe('a service that has the login', () => {
  test('is left as it is, however often it is advanced', async () => {
    await converge();
    before = render.calls.length;
    for (let turn = 0; turn < 3; turn += 1) expect(await open().advance()).toEqual({ say: 'moved' });
    expect(new Set(calls())).toEqual(new Set(['readVariable', 'listDeploys']));
  });

  test('is moved on to the next one', async () => {
    await converge();
    expect(await open({ which: 'second' }).standing()).toMatchObject({ say: 'behind' });
    expect(await converge({ which: 'second' })).toEqual({ say: 'moved' });
    expect(service.running()['DATABASE_URL']).toBe(urls.second);
    expect(await open({ which: 'first' }).standing()).toMatchObject({ say: 'behind' });
  });

  test('has it still when somebody deploys anew, and when that fails', async () => {
    await converge();
    render.actor.deploy(service.id);
    expect(await open().standing()).toEqual({ say: 'moved' });
    goOn();
    expect(deploys()).toEqual(['live', 'deactivated', 'deactivated']);
    expect(await open().standing()).toEqual({ say: 'moved' });
    render.switches.deploys.ends = 'update_failed';
    render.actor.deploy(service.id);
    goOn();
    expect(deploys().slice(0, 2)).toEqual(['update_failed', 'live']);
    expect(await open().standing()).toEqual({ say: 'moved' });
  });

  test('is brought back when somebody puts another value into the variable', async () => {
    await converge();
    render.actor.setVariable(service.id, 'DATABASE_URL', urls.byHand);
    render.actor.deploy(service.id);
    goOn();
    expect(await open().standing()).toEqual({
      say: 'behind',
      details: 'DATABASE_URL was changed by somebody after rekey had set it',
    });
    expect(await converge()).toEqual({ say: 'moved' });
    expect(service.running()['DATABASE_URL']).toBe(urls.first);
  });

  test('is not fought over within one run', async () => {
    const consumer = open();
    await consumer.advance();
    render.actor.setVariable(service.id, 'DATABASE_URL', urls.byHand);
    expect(await consumer.advance()).toMatchObject({ say: 'behind', details: /by somebody/ });
    expect(calls('startDeploy')).toHaveLength(1);
    expect(service.variables()['DATABASE_URL']).toBe(urls.byHand);
  });
});

describe('whether a deploy counts', () => {
  test('one that somebody started before the variable was set does not', async () => {
    render.actor.deploy(service.id);
    inject({ operation: 'startDeploy', kind: 'pretend' });
    await open().advance();
    goOn();
    expect(deploys()).toEqual(['live', 'deactivated']);
    expect(service.running()['DATABASE_URL']).toBe(urls.byHand);
    expect(await open().standing()).toEqual({
      say: 'behind',
      details: 'no deploy has started since DATABASE_URL was set',
    });
  });

  test('one that somebody started just before the variable was set does not either', async () => {
    inject({
      operation: 'setVariable',
      kind: 'meanwhile',
      when: 'before',
      run: async () => void render.actor.deploy(service.id),
    });
    inject({ operation: 'startDeploy', kind: 'pretend' });
    await open().advance();
    goOn();
    expect(service.running()['DATABASE_URL']).toBe(urls.byHand);
    expect(await open().standing()).toMatchObject({ say: 'behind' });
  });

  test('one that somebody started afterwards does', async () => {
    inject({ operation: 'startDeploy', kind: 'status', status: 503 });
    await failureOf(open().advance());
    render.actor.deploy(service.id);
    goOn();
    expect(await open().standing()).toEqual({ say: 'moved' });
    expect(service.running()['DATABASE_URL']).toBe(urls.first);
  });

  test('order is that of creation, where Render tells it, and else that of the list', async () => {
    const json = [
      { deploy: { id: 'dep-old', status: 'live', createdAt: '2026-03-01T11:00:00.123456789Z' } },
      { deploy: { id: 'dep-new', status: 'update_in_progress', createdAt: '2026-03-01T11:59:59.5Z' } },
      { deploy: { id: 'dep-odd', status: null, createdAt: null } },
    ];
    inject({ operation: 'listDeploys', kind: 'status', status: 200, json, times: 2 });
    await open().advance();
    expect(service.variables()['DATABASE_URL_REKEY']).toBe(`${versions.first} dep-new`);
  });

  test('Render’s times are not needed', async () => {
    render.switches.deploys.createdAt = 'missing';
    expect(await converge()).toEqual({ say: 'moved' });
    expect(calls('startDeploy')).toHaveLength(1);
  });

  test('all do where there had never been one', async () => {
    inject({ operation: 'listDeploys', kind: 'status', status: 200, json: [], times: 2 });
    await open().advance();
    expect(service.variables()['DATABASE_URL_REKEY']).toBe(`${versions.first} none`);
  });

  test('a status that nobody knows yet may still become live', async () => {
    await open().advance();
    const json = [{ deploy: { id: 'dep-1', status: 'warming_up' } }];
    inject({ operation: 'listDeploys', kind: 'status', status: 200, json });
    expect(await open().standing()).toEqual({ say: 'moving', details: 'the deploy dep-1 is under way' });
  });
});

describe('a deploy that fails', () => {
  const ends: readonly Extract<RenderDeploySwitches['ends'], `${string}ed`>[] = [
    'build_failed',
    'pre_deploy_failed',
    'update_failed',
    'canceled',
  ];
  test.each(ends)('as %s is reported with a remedy, and no second one is started', async (end) => {
    render.switches.deploys.ends = end;
    const standing = await converge();
    const [{ id = '' } = {}] = service.deploys();
    expect(standing).toEqual({
      say: 'failed',
      details: `the deploy ${id} ended as ${end}`,
      remedy:
        'see in Render’s dashboard why, mend the service and deploy it again; the old user stays until then',
    });
    expect(await open().advance()).toEqual(standing);
    expect(calls('startDeploy')).toHaveLength(1);
    expect(service.running()['DATABASE_URL']).toBe(urls.byHand);
  });

  test('is mended by whoever deploys after it', async () => {
    render.switches.deploys.ends = 'build_failed';
    await converge();
    render.switches.deploys.ends = 'live';
    render.actor.deploy(service.id);
    expect(await open().standing()).toMatchObject({ say: 'moving' });
    goOn();
    expect(await open().standing()).toEqual({ say: 'moved' });
  });

  test('does not keep the next login from being brought', async () => {
    render.switches.deploys.ends = 'build_failed';
    await converge();
    render.switches.deploys.ends = 'live';
    expect(await converge({ which: 'second' })).toEqual({ say: 'moved' });
  });
});

describe('a deploy that Render does not start at once', () => {
  test('is found in the list where the answer has no body', async () => {
    render.switches.deploys.accepted = 202;
    expect(await converge()).toEqual({ say: 'moved' });
    expect(calls('startDeploy')).toHaveLength(1);
  });

  test('is waited for where it waits in Render’s queue', async () => {
    render.switches.deploys.whileUnderWay = 'queue';
    render.actor.deploy(service.id);
    expect(await open().advance()).toMatchObject({ say: 'moving' });
    expect(deploys()).toEqual(['queued', 'created', 'live']);
    expect(await converge()).toEqual({ say: 'moved' });
    expect(calls('startDeploy')).toHaveLength(1);
    expect(service.running()['DATABASE_URL']).toBe(urls.first);
  });

  test('is asked for once within a run, although the list does not know of it yet', async () => {
    render.switches.deploys.accepted = 202;
    render.switches.deploys.listed = { ms: 60_000 };
    const consumer = open();
    const accepted = { say: 'moving', details: 'a deploy was accepted and is not listed yet' };
    expect(await consumer.advance()).toEqual(accepted);
    goOn(30_000);
    expect(await consumer.advance()).toEqual(accepted);
    goOn(40_000);
    expect(await consumer.standing()).toEqual({ say: 'moved' });
    expect(calls('startDeploy')).toHaveLength(1);
  });

  test('is asked for again where it was accepted and never comes', async () => {
    inject({ operation: 'startDeploy', kind: 'pretend' });
    const consumer = open();
    await consumer.advance();
    goOn(121_000);
    expect(await consumer.standing()).toMatchObject({ say: 'behind' });
    expect(await consumer.advance()).toMatchObject({ say: 'moving' });
    expect(calls('startDeploy')).toHaveLength(2);
  });

  test('is asked for again when the one that was in its way (409) is over', async () => {
    render.switches.deploys.whileUnderWay = 'conflict';
    render.actor.deploy(service.id);
    expect(await open().advance()).toEqual({
      say: 'moving',
      details: 'another deploy is under way, beside which Render starts none',
    });
    expect(await converge()).toEqual({ say: 'moved' });
    expect(service.running()['DATABASE_URL']).toBe(urls.first);
  });
});

describe('an answer that is lost', () => {
  const lost: readonly ('reset-after-apply' | 'timeout-after-apply' | 'reset-mid-body')[] = [
    'reset-after-apply',
    'timeout-after-apply',
    'reset-mid-body',
  ];
  test.each(lost)('of a deploy that started (%s) starts no second one', async (kind) => {
    inject({ operation: 'startDeploy', kind });
    expect(await open().advance()).toMatchObject({ say: 'moving' });
    expect(await converge()).toEqual({ say: 'moved' });
    expect(calls('startDeploy')).toHaveLength(1);
    expect(deploys()).toEqual(['live', 'deactivated']);
  });

  test('of a deploy that did not start is said, and it is started the next time', async () => {
    inject({ operation: 'startDeploy', kind: 'status', status: 503 });
    const error = await failureOf(open().advance());
    expect([error.code, error.effect]).toEqual(['UNAVAILABLE', 'unknown']);
    expect(await converge()).toEqual({ say: 'moved' });
    expect(deploys()).toEqual(['live', 'deactivated']);
  });

  test.each(lost)('of a variable that was set (%s) is made up for the next time', async (kind) => {
    inject({ operation: 'setVariable', kind });
    expect((await failureOf(open().advance())).code).toBe('UNAVAILABLE');
    expect(await converge()).toEqual({ say: 'moved' });
    expect(service.running()['DATABASE_URL']).toBe(urls.first);
  });
});

describe('a run that dies', () => {
  const steps = [1, 2, 3, 4, 5, 6, 7, 8];
  const dead = steps.flatMap((at) => [
    { at, when: 'before' as const },
    { at, when: 'after' as const },
  ]);
  test.each(dead)('$when its call $at is made up for by the next', async ({ at, when }) => {
    await expect(open({ http: dyingHttp(at, when) }).advance()).rejects.toThrow('killed');
    expect(await converge()).toEqual({ say: 'moved' });
    expect(service.running()['DATABASE_URL']).toBe(urls.first);
    expect(service.variables()['PORT']).toBe('8080');
    expect(calls('startDeploy').length).toBeLessThanOrEqual(2);
  });

  test('between variable and marker costs a deploy that may be needless, and vouches for none', async () => {
    await expect(open({ http: dyingHttp(4, 'after') }).advance()).rejects.toThrow('killed');
    expect(service.variables()['DATABASE_URL']).toBe(urls.first);
    render.actor.deploy(service.id);
    goOn();
    expect(await open().standing()).toEqual({
      say: 'behind',
      details: 'no deploy is known to have started since DATABASE_URL was set',
    });
    expect(await converge()).toEqual({ say: 'moved' });
    expect(deploys()).toHaveLength(3);
  });

  test('while it takes back what somebody put into the variable vouches for no deploy with that', async () => {
    await converge();
    render.actor.setVariable(service.id, 'DATABASE_URL', urls.byHand);
    render.actor.deploy(service.id);
    goOn();
    // Three readings, the marker, the variable.
    await expect(open({ http: dyingHttp(5, 'after') }).advance()).rejects.toThrow('killed');
    expect(service.variables()['DATABASE_URL']).toBe(urls.first);
    expect(service.running()['DATABASE_URL']).toBe(urls.byHand);
    expect(await open().standing()).toMatchObject({ say: 'behind' });
    expect(await converge()).toEqual({ say: 'moved' });
    expect(service.running()['DATABASE_URL']).toBe(urls.first);
  });
});

describe('being asked too often', () => {
  test('is waited out as long as Render says', async () => {
    inject({ operation: 'startDeploy', kind: 'rate-limited', retryAfter: 30 });
    expect(await open().advance()).toMatchObject({ say: 'moving' });
    expect(vendors().waits).toEqual([30_000]);
  });

  test('is left to a later run where it lasts longer than this one', async () => {
    inject({ operation: 'setVariable', kind: 'rate-limited', retryAfter: 300 });
    const error = await failureOf(open({ budgetMs: 60_000 }).advance());
    expect([error.code, error.effect]).toEqual(['RATE_LIMITED', 'none']);
    expect(vendors().waits).toEqual([]);
  });

  test('is waited out where deploys of one service are what is too many', async () => {
    render.switches.deploys.limit = 1;
    await converge();
    expect(await converge({ which: 'second' })).toEqual({ say: 'moved' });
  });
});

describe('what no repetition mends is reported with its remedy', () => {
  const keyRemedy = 'store a valid API key, of somebody who may change the service, in rekey/api-keys/render';
  const serviceRemedy =
    'correct serviceId in the spec, give the key’s owner access, or take the consumer out of the spec';
  const dashboard = 'see in Render’s dashboard whether the service is suspended or cannot be deployed';

  test('a service that Render does not know', async () => {
    const serviceId = 'srv-00000000000000000000';
    const want = {
      say: 'failed',
      details: `Render refused listDeploys of ${serviceId} with status 404`,
      remedy: serviceRemedy,
    };
    expect(await open({ serviceId }).standing()).toEqual(want);
    expect(await open({ serviceId }).advance()).toEqual(want);
    expect(calls('setVariable')).toEqual([]);
  });

  test('a key that Render does not take', async () => {
    expect(await open({ apiKey: 'rnd_wrongKey0123456789' }).advance()).toEqual({
      say: 'failed',
      details: `Render refused readVariable of ${service.id} with status 401`,
      remedy: keyRemedy,
    });
  });

  const refusals: readonly { operation: RenderOperation; status: number; remedy: string }[] = [
    { operation: 'readVariable', status: 403, remedy: keyRemedy },
    { operation: 'setVariable', status: 403, remedy: keyRemedy },
    { operation: 'setVariable', status: 404, remedy: serviceRemedy },
    { operation: 'readVariable', status: 410, remedy: serviceRemedy },
    { operation: 'startDeploy', status: 400, remedy: dashboard },
    { operation: 'startDeploy', status: 406, remedy: dashboard },
  ];
  test.each(refusals)('$operation answered $status', async ({ operation, status, remedy }) => {
    inject({ operation, kind: 'status', status, json: { message: urls.first } });
    expect(await open().advance()).toEqual({
      say: 'failed',
      details: `Render refused ${operation} of ${service.id} with status ${status}`,
      remedy,
    });
  });

  test('but an answer that nobody can read is thrown', async () => {
    inject({ operation: 'listDeploys', kind: 'half-json' });
    expect((await failureOf(open().standing())).code).toBe('UNREADABLE');
    inject({ operation: 'readVariable', kind: 'status', status: 500, times: 10 });
    expect((await failureOf(open({ budgetMs: 20_000 }).standing())).code).toBe('UNAVAILABLE');
  });
});

test('whoever does what in whichever order: a service that is said to have moved runs with the login', async () => {
  render.switches.limits = { reads: 1e6, writes: 1e6 };
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('advance' as const),
        which: fc.constantFrom<Which>('first', 'second'),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('die' as const),
        which: fc.constantFrom<Which>('first', 'second'),
        at: fc.integer({ min: 1, max: 9 }),
        when: fc.constantFrom<'before' | 'after'>('before', 'after'),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('deploy' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('change' as const) }) },
    {
      weight: 4,
      arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(5_000, 15_000, 31_000) }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('switch' as const),
        ends: fc.constantFrom<RenderDeploySwitches['ends']>('live', 'live', 'update_failed', 'canceled'),
        whileUnderWay: fc.constantFrom<RenderDeploySwitches['whileUnderWay']>('start', 'queue', 'conflict'),
      }),
    },
  );
  let moved = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 14 }), async (steps) => {
      Object.assign(render.switches.deploys, { ends: 'live', whileUnderWay: 'start', limit: 1e6 });
      service = render.addService({ name: 'any', variables: { DATABASE_URL: urls.byHand } });
      for (const each of steps) {
        if (each.do === 'advance') await open(each).advance();
        if (each.do === 'die')
          await open({ which: each.which, http: dyingHttp(each.at, each.when) })
            .advance()
            .catch(() => undefined);
        if (each.do === 'deploy') render.actor.deploy(service.id);
        if (each.do === 'change') render.actor.setVariable(service.id, 'DATABASE_URL', urls.byHand);
        if (each.do === 'pass') goOn(each.ms);
        if (each.do === 'switch')
          Object.assign(render.switches.deploys, { ends: each.ends, whileUnderWay: each.whileUnderWay });
        for (const which of ['first', 'second'] as const)
          if ((await open({ which }).standing()).say === 'moved') {
            moved += 1;
            expect(service.running()['DATABASE_URL'] === urls[which]).toBe(true);
          }
      }
    }),
    { numRuns: 40, seed: 20_261_122 },
  );
  expect(moved).toBeGreaterThan(10);
});

describe('settings', () => {
  const good = {
    kind: 'render-service',
    serviceId: 'srv-d0local0render0demo0',
    environmentVariable: 'DATABASE_URL',
    apiKeySecret: 'rekey/api-keys/render',
  };

  test('have the url as their field, and name the service and its variable', () => {
    const parsed = renderService.schema.parse(good);
    expect(parsed.field).toBe('url');
    expect(renderService.label(parsed)).toBe('srv-d0local0render0demo0 DATABASE_URL');
    expect(renderService.apiKeySecret(parsed)).toBe('rekey/api-keys/render');
  });

  const wrong: readonly Readonly<Record<string, unknown>>[] = [
    { serviceId: '..' },
    { serviceId: 'srv-short' },
    { serviceId: 'srv-d0local0render0demo0/../..' },
    { serviceId: 'dpg-d0local0render0demo0' },
    { environmentVariable: '' },
    { environmentVariable: '..' },
    { environmentVariable: '1ST' },
    { environmentVariable: 'DATABASE-URL' },
    { environmentVariable: 'A'.repeat(101) },
    { field: '' },
    { field: '__proto__' },
    { apiKeySecret: 'rekey/orders' },
    { apiKeySecret: 'somewhere/else' },
    { surplus: true },
  ];
  test.each(wrong)('with %o are refused', (overrides) => {
    expect(renderService.schema.safeParse({ ...good, ...overrides }).success).toBe(false);
  });
});
