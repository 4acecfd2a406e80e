import { describe, expect, test } from 'vitest';
import { usernames } from '../../functions/core/username.ts';
import type { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import {
  choosing,
  graceOverMs,
  hourMs,
  type Made,
  minuteMs,
  type ProviderId,
  useAdministrator,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { sha256 } from '../support/credentials.ts';
import { token } from '../support/rekey.ts';

// Somebody who may write the secret of one credential, and somebody who holds a login that leaked: told as whole use cases.

const world = useCredentialWorld();
const { vendors, rekey, credential, compromise, login, works, labels, move } = world;

const adminSecret = useAdministrator(world);
/** What lets CockroachDB's sessions be ended. */
const asAdmin = (provider: ProviderId) => (provider === 'cockroachdb-cloud' ? { adminSecret } : {});

describe('S9: a stored login goes nowhere but home, nor does an administrator’s', () => {
  /** What the attacker writes over a value. */
  const alone: Record<string, object> = {
    'another host': { host: 'elsewhere.example' },
    'another port': { port: 25_432 },
    'another CA': { ca: '-----BEGIN CERTIFICATE-----\nAttackersOwn\n-----END CERTIFICATE-----\n' },
  };
  /** Each alone where a life is short, and all at once where it takes long. */
  const forgeriesOf = (provider: ProviderId): Record<string, object> =>
    provider === 'vultr-valkey' || provider === 'zilliz-cloud'
      ? alone
      : { 'another host, port and CA': Object.assign({}, ...Object.values(alone)) };
  const attackedLabels = ['AWSCURRENT', 'AWSPREVIOUS', 'AWSPENDING'] as const;
  const steps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'];

  async function forge(one: Made, label: string, forgery: object): Promise<string> {
    const version = token();
    const { ARN: secretArn } = await rekey().describe(one.name);
    const value = JSON.parse(await world.value(one, label === 'AWSPREVIOUS' ? label : 'AWSCURRENT'));
    // The name that a rotation of this token would choose, so that it is taken for its own.
    const { generation } = usernames({ secretArn, prefix: one.prefix }, sha256);
    const name =
      label === 'AWSPENDING' && one.spec['strategy'] === 'replace-user'
        ? { username: generation(version, 0) }
        : {};
    await world.putValue(one, label, JSON.stringify({ ...value, ...name, ...forgery }), version);
    return version;
  }
  /** Every function that may log in with what the secret holds. */
  async function everyFunction(one: Made, label: string, forgery: object): Promise<void> {
    // Within the hour in which the sessions of a revoked password are ended.
    await rekey().sweep();
    await rekey().update(one.name);
    if (label === 'AWSPENDING')
      for (const step of steps) {
        const version = await forge(one, label, forgery);
        await world.failureOf(rekey().step(one.name, step, version));
      }
    // testSecret alone, of a copy of the current value.
    else await world.failureOf(rekey().rotate(one.name, { immediately: false }));
    if (label === 'AWSPENDING') await forge(one, label, forgery);
    move(2 * hourMs);
    await world.reconcile();
    move(6 * hourMs);
    await world.reconcile();
    await rekey().start();
    await rekey().secretsManager.idle();
    move(graceOverMs);
    await rekey().sweep();
    // A rotation of its own, from whatever is current by now.
    rekey().secretsManager.setVariants({ retryDelaysMs: [] });
    await world.failureOf(rekey().rotate(one.name));
  }

  const cases = (['render-postgres', ...choosing] as const).flatMap((provider) =>
    attackedLabels.map((label) => ({ provider, label })),
  );
  test.each(cases)('$provider, $label', async ({ provider, label }) => {
    const isPair = provider !== 'render-postgres' && label === 'AWSPREVIOUS';
    const strategy =
      provider === 'render-postgres' ? 'replace-user' : isPair ? 'alternate-users' : 'reset-password';
    for (const [what, forgery] of Object.entries(forgeriesOf(provider))) {
      const one = await credential(
        { provider, strategy },
        { ...asAdmin(provider), grace: 'PT0S', consumers: [{ kind: 'event-bridge', busName: 'orders' }] },
      );
      const { host, port, ca } = await login(one);
      const home = { host, port, ...(ca === undefined ? {} : { ca }) };
      move(minuteMs);
      // Revoked, so that delete-user asks for the sessions of before to be ended.
      if (label === 'AWSCURRENT') await world.direct(one, 'revokeBefore');
      else await (isPair ? rekey().rotate(one.name) : compromise(one));
      move(minuteMs);
      const before = { places: vendors().places.length, requests: vendors().requests.length };
      const forged = await forge(one, label, forgery);
      if (isPair) {
        // The idle user is revoked and goes, and AWSPREVIOUS says with which login.
        move(minuteMs);
        await world.direct(one, 'revokeBefore');
        move(minuteMs);
        await world.putValue(one, 'AWSCURRENT', await world.value(one));
        await world.putLabel(one, 'AWSPREVIOUS', forged);
      }
      await everyFunction(one, label, forgery);
      const places = vendors().places.slice(before.places);
      const hosts = vendors()
        .requests.slice(before.requests)
        .map(({ url }) => new URL(url))
        .map((url) => `${url.hostname} ${url.port}`);
      expect(
        places.filter((place) => JSON.stringify(place) !== JSON.stringify(home)),
        what,
      ).toEqual([]);
      expect(
        hosts.filter((at) => at.startsWith('elsewhere.example') || at.endsWith(' 25432')),
        what,
      ).toEqual([]);
      // They did log in, at home.
      const logins = provider === 'zilliz-cloud' ? hosts.filter((at) => at.startsWith(host)) : places;
      expect(logins.length, what).toBeGreaterThan(0);
      if (provider === 'cockroachdb-cloud' && label === 'AWSPENDING')
        expect(world.published('DatabaseSessionsEndPlanned', one), what).not.toEqual([]);
      expect(await works(await login(one)), what).toBe(true);
      await world.forget(one);
    }
  });
});

describe('I4: an intruder who calls his session rekey', () => {
  const outcomes = (report: Awaited<ReturnType<typeof deleteUsers>>, { prefix }: Made) =>
    Object.fromEntries(
      report.targets
        .flatMap(({ users }) => users)
        .filter(({ username }) => username.startsWith(`${prefix}_`))
        .map(({ username, outcome, because }) => [username, `${outcome}: ${because}`]),
    );
  /** A client with the login that leaked, under the name that rekey gives its own sessions. */
  async function intrude(one: Made): Promise<() => Promise<boolean>> {
    const client = await vendors().connect(await login(one), 'rekey');
    return () =>
      client.query('SELECT 1').then(
        () => true,
        () => false,
      );
  }
  const providers = ['render-postgres', 'cockroachdb-cloud'] as const;

  test.each(providers)(
    'is counted: the user that he is connected as stays, and he is reported (%s)',
    async (provider) => {
      const one = await credential({ provider }, asAdmin(provider));
      const old = await login(one);
      const isConnected = await intrude(one);
      await rekey().rotate(one.name);
      move(graceOverMs);
      expect(outcomes(await rekey().sweep(), one)).toEqual({ [old.username]: 'kept: STILL_CONNECTED' });
      expect(await isConnected()).toBe(true);
      expect(world.found(one)).toEqual(['RetiredStillConnected']);
      // Our own sessions, which look for him, are not: without him, the user goes.
      const other = await credential({ provider }, asAdmin(provider));
      const { username } = await login(other);
      await rekey().rotate(other.name);
      move(graceOverMs);
      expect(outcomes(await rekey().sweep(), other)).toEqual({
        [username]: 'deleted: nobody-connected-twice',
      });
    },
  );

  test.each(providers)('is thrown out by CredentialCompromised (%s)', async (provider) => {
    const one = await credential({ provider }, asAdmin(provider));
    const old = await login(one);
    const isConnected = await intrude(one);
    move(minuteMs);
    await compromise(one);
    expect(outcomes(await rekey().sweep(), one)).toEqual({ [old.username]: 'deleted: connections-ended' });
    expect(await isConnected()).toBe(false);
    expect(world.published('DatabaseUserDeleted', one)).toEqual([
      expect.objectContaining({
        username: old.username,
        evidence: expect.objectContaining({ drain: 'connections-ended' }),
      }),
    ]);
  });

  test('is thrown out under reset-password, where the user stays (cockroachdb-cloud)', async () => {
    const one = await credential(
      { provider: 'cockroachdb-cloud', strategy: 'reset-password' },
      { adminSecret },
    );
    const isConnected = await intrude(one);
    // The server dates sessions by its own clock, and those before the switch are to end.
    move(Math.max(0, Date.now() - world.now().getTime()) + minuteMs);
    await compromise(one);
    expect(Object.values(outcomes(await rekey().sweep(), one))).toEqual([
      'sessions-ended: connections-ended',
    ]);
    expect(await isConnected()).toBe(false);
    expect(world.published('DatabaseSessionsEnded', one)).toEqual([
      expect.objectContaining({ outcome: 'ended', versionId: (await labels(one))['AWSCURRENT'] }),
    ]);
    expect(await works(await login(one))).toBe(true);
  });
});
