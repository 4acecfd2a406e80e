import { afterEach, describe, expect, test } from 'vitest';
import { parseInvocation } from '../../functions/core/events.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import {
  hourMs,
  type Made,
  minuteMs,
  type ProviderId,
  targets,
  useAdministrator,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { takeAndCarryOut } from '../support/orders.ts';
import { functionArn, token } from '../support/rekey.ts';

/** An emergency is not over when it was begun: each test stops it half-way with ordinary steps, and looks whether it is carried out. */

const world = useCredentialWorld();
const {
  vendors,
  rekey,
  credential,
  compromise,
  login,
  works,
  labels,
  move,
  start,
  passHours,
  sweepQuarters,
  orderPause,
} = world;
const { clusterId } = targets['zilliz-cloud'].target;

const theirPassword = 'Legacy-password_0000000000000001';
const adminSecret = useAdministrator(world);
afterEach(async () => {
  vendors().zilliz.api.faults.clear();
  await world.parameters('DeleteParameter', { Name: '/rekey/pause/all' }).catch(() => undefined);
});

/** A credential that has adopted a user of this name. */
async function adopted(username: string, retire = false): Promise<Made> {
  await world.secrets('CreateSecret', {
    Name: `rekey/adopt/${username}`,
    ClientRequestToken: token(),
    SecretString: JSON.stringify({ username, password: theirPassword }),
  });
  const { actor } = vendors().zilliz.api;
  actor.createUser(clusterId, username, theirPassword);
  actor.grantRole(clusterId, username, 'orders_rw');
  const adopt = { username, passwordSecret: `rekey/adopt/${username}`, ...(retire ? { retire } : {}) };
  return credential({ provider: 'zilliz-cloud' }, { adopt });
}

/** CredentialCompromised as delete-user gets it, at the same time as start-rotations. */
const tellDeleteUser = ({ name }: Made, orderedAt = world.now()) =>
  rekey().sweep({ is: 'order', order: 'CredentialCompromised', credential: name, orderedAt });

async function intrude(made: Made): Promise<() => Promise<boolean>> {
  const client = await vendors().connect(await login(made), 'rekey');
  // The server dates sessions by its own clock, and those before the switch are to end.
  move(Math.max(0, Date.now() - world.now().getTime()) + minuteMs);
  return () =>
    client.query('SELECT 1').then(
      () => true,
      () => false,
    );
}

const settled = async ({ name }: Made): Promise<string | undefined> =>
  (await rekey().notes.stored('revocations'))[name];

describe('I4: an intruder is thrown out by CredentialCompromised', () => {
  const cockroach = (strategy: 'reset-password' | 'alternate-users') =>
    credential({ provider: 'cockroachdb-cloud', strategy }, { adminSecret });

  test('under reset-password, where reconcile-users rolled the rotation forward', async () => {
    const made = await cockroach('reset-password');
    move(2 * hourMs);
    const isConnected = await intrude(made);
    await world.direct(made, 'revokeBefore');
    move(minuteMs);
    const pending = await world.openRotation(made, 'createSecret', 'setSecret');
    move(5 * minuteMs);
    await start();
    await rekey().reconcile(rekey().takeMessages());
    expect((await labels(made))['AWSCURRENT']).toBe(pending);
    await sweepQuarters(3);
    expect(await isConnected()).toBe(false);
  });

  test('under reset-password, after a pause of two hours that began right after the switch', async () => {
    const made = await cockroach('reset-password');
    const isConnected = await intrude(made);
    await compromise(made);
    await orderPause('RekeyPaused');
    move(minuteMs);
    await rekey().sweep();
    move(2 * hourMs);
    await orderPause('RekeyResumed');
    await sweepQuarters(3);
    expect(await isConnected()).toBe(false);
  });

  test('under alternate-users, where he is connected as the idle user that becomes current', async () => {
    const made = await cockroach('alternate-users');
    const { username } = await login(made);
    const isConnected = await intrude(made);
    move(30 * hourMs);
    await rekey().rotate(made.name);
    move(30 * hourMs);
    await compromise(made);
    expect((await login(made)).username).toBe(username);
    await sweepQuarters(3);
    expect(await isConnected()).toBe(false);
  });

  test('under alternate-users, where a pause held the sweep until the user was the idle one again', async () => {
    const made = await cockroach('alternate-users');
    const isConnected = await intrude(made);
    move(30 * hourMs);
    await rekey().rotate(made.name);
    move(30 * hourMs);
    await compromise(made);
    await orderPause('RekeyPaused');
    move(minuteMs);
    await rekey().sweep();
    expect(world.found(made)).toContain('RevocationWaiting');
    move(30 * hourMs);
    await orderPause('RekeyResumed');
    await rekey().rotate(made.name);
    expect(await isConnected()).toBe(true);
    await sweepQuarters(3);
    expect(await isConnected()).toBe(false);
  });

  test('once: a session that was opened after it was on record stays', async () => {
    const made = await cockroach('reset-password');
    const isConnected = await intrude(made);
    await compromise(made);
    await sweepQuarters(1);
    expect(await isConnected()).toBe(false);
    const before = world.published('DatabaseSessionsEndPlanned', made).length;
    const again = await vendors().connect(await login(made), 'orders');
    move(5 * hourMs);
    await sweepQuarters(4);
    expect(world.published('DatabaseSessionsEndPlanned', made)).toHaveLength(before);
    expect((await again.query('SELECT 1')).rowCount).toBe(1);
    await again.end();
  });

  test('by the next order, too: what is on record is settled for the first one only', async () => {
    const made = await cockroach('reset-password');
    await compromise(made);
    await sweepQuarters(1);
    const first = await settled(made);
    expect(first).toBeDefined();
    const isConnected = await intrude(made);
    await compromise(made);
    await sweepQuarters(1);
    expect(await isConnected()).toBe(false);
    expect(Date.parse((await settled(made)) ?? '')).toBeGreaterThan(Date.parse(first ?? ''));
  });

  test('as soon as a login may do it: until then it is reported, told once and tried again', async () => {
    const made = await credential({ provider: 'cockroachdb-cloud', strategy: 'reset-password' });
    const isConnected = await intrude(made);
    await compromise(made);
    await sweepQuarters(8);
    expect(await isConnected()).toBe(true);
    expect(await settled(made)).toBeUndefined();
    expect(world.published('DatabaseSessionsEndPlanned', made)).toHaveLength(1);
    expect(world.published('DatabaseSessionsEnded', made)).toMatchObject([{ outcome: 'not-ended' }]);
    expect(world.found(made).filter((kind) => kind === 'RevokedSessionsOpen')).toHaveLength(1);
    await world.storeSpec(made, { adminSecret });
    await sweepQuarters(1);
    expect(await isConnected()).toBe(false);
    expect(world.published('DatabaseSessionsEnded', made)).toMatchObject([
      { outcome: 'not-ended' },
      { outcome: 'ended' },
    ]);
    expect(await settled(made)).toBeDefined();
  });

  test('under reset-password on Valkey, whose login may not end sessions, by a strategy that replaces the user', async () => {
    const made = await credential({ provider: 'vultr-valkey', strategy: 'reset-password' });
    const client = await vendors().connectToValkey(await login(made));
    move(Math.max(0, Date.now() - world.now().getTime()) + minuteMs);
    await compromise(made);
    await sweepQuarters(2);
    expect(world.found(made)).toContain('RevokedSessionsOpen');
    expect(await client.get('orders:latest')).toBeDefined();
    await world.storeSpec(made, { strategy: 'replace-user' });
    move(hourMs);
    await rekey().rotate(made.name);
    move(30 * hourMs);
    await sweepQuarters(2);
    await expect(client.get('orders:latest')).rejects.toThrow();
    expect(await settled(made)).toBeDefined();
  });

  test.each(['replace-user', 'alternate-users', 'reset-password'] as const)(
    'where every request logs in by itself that is on record after one pass (zilliz-cloud, %s)',
    async (strategy) => {
      const made = await credential({ provider: 'zilliz-cloud', strategy });
      move(30 * hourMs);
      await compromise(made);
      await sweepQuarters(4);
      expect(await settled(made)).toBeDefined();
      expect(world.published('DatabaseSessionsEndPlanned', made).length).toBeLessThanOrEqual(1);
      expect(world.found(made)).toEqual([]);
    },
  );
});

describe('I27: CredentialCompromised is carried out or reported', () => {
  test('within half an hour after two rotations, whose users are still in their grace', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    for (let rotation = 0; rotation < 2; rotation += 1) {
      move(hourMs);
      await rekey().rotate(made.name);
    }
    const leaked = await login(made);
    move(10 * minuteMs);
    await compromise(made);
    for (let minutes = 5; minutes <= 30; minutes += 5) {
      move(5 * minuteMs);
      await start();
      await rekey().reconcile(rekey().takeMessages());
      if (minutes % 15 === 0) await rekey().sweep();
    }
    expect((await login(made)).username, 'the login in AWSCURRENT').not.toBe(leaked.username);
  });

  test('where the leaked login is that of an adopted user, which stays', async () => {
    const made = await adopted('legacy');
    const leaked = await login(made);
    move(hourMs);
    await compromise(made);
    await passHours(26);
    const outcomes = [...world.found(made), ...((await works(leaked)) ? [] : ['refused'])];
    expect(outcomes).not.toEqual([]);
  });

  test('I20: although the clock of start-rotations is five minutes behind', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    const leaked = await login(made);
    move(minuteMs);
    const orderedAt = world.now();
    await world.invokeWith(
      ({ now }) => ({ now: async () => new Date((await now()).getTime() - 5 * minuteMs) }),
      (inner, until) =>
        takeAndCarryOut(
          { is: 'order', order: 'CredentialCompromised', credential: made.name, orderedAt },
          { rotationFunctionArn: functionArn },
          until,
          inner,
        ),
    );
    await rekey().secretsManager.idle();
    await passHours(2);
    expect(await works(leaked)).toBe(false);
  });

  test.each([-10, 10])(
    'I20: although the clocks of the functions are %i minutes from the others, and the rotation was a minute ago',
    async (minutes) => {
      const made = await credential({ provider: 'zilliz-cloud' });
      move(2 * minuteMs);
      await rekey().rotate(made.name);
      const leaked = await login(made);
      move(minuteMs);
      const orderedAt = world.now();
      await world.invokeWith(
        ({ now }) => ({ now: async () => new Date((await now()).getTime() + minutes * minuteMs) }),
        (inner, until) =>
          takeAndCarryOut(
            { is: 'order', order: 'CredentialCompromised', credential: made.name, orderedAt },
            { rotationFunctionArn: functionArn },
            until,
            inner,
          ),
      );
      await rekey().secretsManager.idle();
      await passHours(2);
      expect(await works(leaked)).toBe(false);
      const next = await labels(made);
      await passHours(3);
      expect(await labels(made)).toEqual(next);
    },
  );

  test('I20: although the event is dated by a clock that is nine minutes fast', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    const leaked = await login(made);
    move(minuteMs);
    const orderedAt = new Date(world.now().getTime() + 9 * minuteMs);
    const order = 'CredentialCompromised';
    await rekey().order({ is: 'order', order, credential: made.name, orderedAt });
    await rekey().secretsManager.idle();
    const next = await labels(made);
    expect((await login(made)).username).not.toBe(leaked.username);
    await passHours(2);
    expect(await works(leaked)).toBe(false);
    expect(await labels(made)).toEqual(next);
  });

  test.each(['zilliz-cloud', 'render-postgres'] as const)(
    'by delete-user, too: revoked users go within a minute, and within half an hour the rotation that waited for them is through (%s)',
    async (provider: ProviderId) => {
      const made = await credential({ provider });
      for (let rotation = 0; rotation < 2; rotation += 1) {
        move(hourMs);
        await rekey().rotate(made.name);
      }
      const leaked = await login(made);
      const older = (await world.usersAt(made)).filter((username) => username !== leaked.username);
      move(10 * minuteMs);
      const orderedAt = world.now();
      move(2_000);
      // start-rotations comes first, and moves a label while delete-user is at work.
      let isStarted = false;
      await world.invokeWith(
        ({ listVersions }) => ({
          listVersions: async (request) => {
            const answer = await listVersions(request);
            if (!isStarted) {
              isStarted = true;
              const order = 'CredentialCompromised';
              await rekey().order({ is: 'order', order, credential: made.name, orderedAt });
            }
            return answer;
          },
        }),
        (inner, until) =>
          deleteUsers(
            { is: 'order', order: 'CredentialCompromised', credential: made.name, orderedAt },
            until,
            inner,
          ),
      );
      await rekey().secretsManager.idle();
      expect((await world.usersAt(made)).filter((username) => older.includes(username))).toEqual([]);
      for (let minutes = 5; minutes <= 30; minutes += 5) {
        move(5 * minuteMs);
        await start();
        await rekey().reconcile(rekey().takeMessages());
      }
      expect((await login(made)).username).not.toBe(leaked.username);
    },
  );

  test('by delete-user alone, if start-rotations never gets the order: the next pass rotates', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    const leaked = await login(made);
    move(minuteMs);
    await tellDeleteUser(made);
    await start();
    await rekey().sweep();
    expect(await works(leaked)).toBe(false);
  });

  test('and rotations that fail again and again do not use up the versions that Secrets Manager keeps', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    move(minuteMs);
    vendors().zilliz.api.faults.inject({ operation: 'listUsers', kind: 'status', status: 403, times: 9_999 });
    await compromise(made);
    for (let minutes = 0; minutes < 8 * 60; minutes += 5) {
      move(5 * minuteMs);
      await start();
      await rekey().reconcile(rekey().takeMessages());
    }
    const { Versions } = (await world.secrets('ListSecretVersionIds', {
      SecretId: `rekey/${made.name}`,
      IncludeDeprecated: true,
      MaxResults: 100,
    })) as { Versions: readonly unknown[] };
    expect(Versions.length).toBeLessThan(25);
  });

  describe('of an adopted user', () => {
    const isReported = (made: Made) =>
      world.found(made).filter((kind) => kind === 'AdoptedLoginCompromised').length;

    test('once, until its password is another', async () => {
      const made = await adopted('elder');
      move(hourMs);
      await compromise(made);
      await sweepQuarters(4);
      expect(isReported(made)).toBe(1);
      vendors().zilliz.api.actor.setPassword(clusterId, 'elder', 'Another-password_000000000000001');
      await sweepQuarters(2);
      vendors().zilliz.api.actor.setPassword(clusterId, 'elder', theirPassword);
      await sweepQuarters(2);
      expect(isReported(made)).toBe(2);
    });

    test('not where the spec lets it retire: it goes', async () => {
      const made = await adopted('junior', true);
      const leaked = await login(made);
      move(hourMs);
      await compromise(made);
      await sweepQuarters(2);
      expect(await works(leaked)).toBe(false);
      expect(isReported(made)).toBe(0);
    });

    test('not where a rotation alone has replaced it', async () => {
      const made = await adopted('senior');
      move(hourMs);
      await rekey().rotate(made.name);
      move(30 * hourMs);
      await sweepQuarters(2);
      expect(isReported(made)).toBe(0);
    });
  });

  test('while the login in AWSCURRENT is refused, which keeps the leaked users', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    const leaked = await login(made);
    move(minuteMs);
    await compromise(made);
    const { username } = await login(made);
    await world.setPasswordByHand(made, username, 'Another-password_000000000000001');
    await rekey().sweep();
    expect(await works(leaked)).toBe(true);
    expect(world.found(made)).toContain('RevocationWaiting');
  });
});

describe('a pause', () => {
  const pause = (detail: object): unknown => ({
    'detail-type': 'RekeyPaused',
    time: world.now().toISOString(),
    detail,
  });
  const send = (detail: object) => rekey().order(parseInvocation(pause(detail), ['pause']));

  test.each([
    [
      { provider: 'render', target: 'dpg-d1abc2d3e4f5g6h7i8j9-a' },
      'EVENT_INVALID: detail.provider: expected a provider that rekey has (cockroachdb-cloud, render-postgres, vultr-valkey, zilliz-cloud), got render',
    ],
    [
      { provider: 'render-postgres', target: 'orders' },
      'EVENT_INVALID: detail.target: expected the id of a database, such as dpg-…-a, got orders',
    ],
    [
      { provider: 'cockroachdb-cloud', target: 'orders' },
      'EVENT_INVALID: detail.target: expected the UUID of the cluster, got orders',
    ],
  ])('of a target that cannot be, %j, is refused and not stored', async (detail, message) => {
    await expect(send(detail)).rejects.toThrow(message);
    expect(await rekey().parameter(`/rekey/pause/${detail.provider}/${detail.target}`)).toBeUndefined();
  });

  test('of a target that no spec names is kept, and reported by the next pass with those that there are', async () => {
    await credential({ provider: 'render-postgres' });
    const before = rekey().published().length;
    const mistyped = 'dpg-d1abc2d3e4f5g6h7i8j8-a';
    await send({ provider: 'render-postgres', target: mistyped });
    await rekey().start();
    const told = rekey().published().slice(before);
    expect(told.map(({ detail }) => detail)).toMatchObject([
      {
        kind: 'PauseWithoutTarget',
        target: mistyped,
        details: expect.stringContaining(targets['render-postgres'].target.postgresId),
      },
    ]);
    move(minuteMs);
    await orderPause('RekeyResumed', { provider: 'render-postgres', targetId: mistyped });
    await start();
    expect(rekey().published().slice(before)).toHaveLength(1);
  });

  test('that is over does not say that writes go on where another one stands', async () => {
    await orderPause('RekeyPaused');
    move(minuteMs);
    const on = { provider: 'zilliz-cloud', targetId: clusterId };
    await orderPause('RekeyPaused', on);
    move(minuteMs);
    await orderPause('RekeyResumed', on);
    expect(
      rekey()
        .logged.filter((line) => line.startsWith('a pause of writes is over'))
        .at(-1),
    ).toContain('"stillPaused":["all"]');
    move(minuteMs);
    await orderPause('RekeyResumed');
  });
});
