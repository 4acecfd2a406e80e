import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Invocation } from '../../functions/core/events.ts';
import { startTestRekey, type TestRekey } from '../support/rekey.ts';
import { useTestVendors } from '../support/vendors.ts';

const vendors = useTestVendors();
const clusterId = 'in01-108240180a4faf8';
const keyArn = 'arn:aws:kms:eu-central-1:123456789012:key/mrk-0a1b2c3d4e5f60718293a4b5c6d7e8f9';
const minuteMs = 60_000;
let rekey: TestRekey;

beforeAll(async () => {
  vendors().zilliz.api.addCluster({ id: clusterId, name: 'orders', roles: ['orders_rw'] });
  rekey = await startTestRekey(vendors);
});
afterAll(() => rekey.stop());
beforeEach(() => {
  rekey.failures.length = 0;
  rekey.logged.length = 0;
  rekey.killAt(undefined);
  rekey.secretsManager.setVariants({
    // Nobody but rekey takes AWSPENDING off.
    pendingAfterRotation: 'with-current',
    replicationMs: 0,
    failingRegions: [],
    replicaRemovalMs: 0,
  });
});

let credentials = 0;
interface Made {
  readonly name: string;
  readonly prefix: string;
}
/** A credential that can be read in two other Regions. */
async function credential(replicas = [{ region: 'eu-west-1' }, { region: 'us-east-1' }]): Promise<Made> {
  credentials += 1;
  const [name, prefix] = [`orders-${credentials}`, `o${credentials}`];
  await rekey.request(
    {
      name,
      provider: 'zilliz-cloud',
      target: { clusterId },
      apiKeySecret: 'rekey/api-keys/zilliz',
      usernamePrefix: prefix,
      privileges: { roles: ['orders_rw'] },
    },
    { replicas },
  );
  await rekey.secretsManager.idle();
  return { name, prefix };
}

const slow = (replicationMs: number) => rekey.secretsManager.setVariants({ replicationMs });
const move = (ms: number): void => vendors().clock.move(ms);
interface Described {
  readonly KmsKeyId?: string;
  readonly DeletedDate?: number;
  readonly ReplicationStatus?: readonly { Region: string; Status: string; KmsKeyId: string }[];
}
const described = async ({ name }: Made): Promise<Described> => (await rekey.describe(name)) as Described;
const statuses = async (one: Made): Promise<Readonly<Record<string, string>>> =>
  Object.fromEntries(
    ((await described(one)).ReplicationStatus ?? []).map(({ Region, Status }) => [Region, Status]),
  );
const inSync = { 'eu-west-1': 'InSync', 'us-east-1': 'InSync' };
const worksNow = async ({ name }: Made): Promise<boolean> => {
  const login = await rekey.login(name, 'AWSCURRENT');
  return login !== undefined && vendors().logsIn(login);
};
const users = async ({ prefix }: Made): Promise<readonly string[]> =>
  ((await vendors().byProvider['zilliz-cloud']?.usernames({ clusterId })) ?? []).filter((username) =>
    username.startsWith(`${prefix}_`),
  );
/** What a run said that nobody asked it. */
const warnings = (): readonly string[] => rekey.logged.filter((line) => line.startsWith('replicas'));

describe('a credential requested on the bus', () => {
  test('lies under the key and in the Regions of the deployment', async () => {
    credentials += 1;
    const name = `orders-${credentials}`;
    await rekey.request(
      {
        name,
        provider: 'zilliz-cloud',
        target: { clusterId },
        apiKeySecret: 'rekey/api-keys/zilliz',
        usernamePrefix: `o${credentials}`,
      },
      {
        secretKeyArn: keyArn,
        replicas: [{ region: 'eu-west-1', keyArn: 'arn:own' }, { region: 'us-east-1' }],
      },
    );
    await rekey.secretsManager.idle();
    expect(await described({ name, prefix: '' })).toMatchObject({
      KmsKeyId: keyArn,
      ReplicationStatus: [
        { Region: 'eu-west-1', KmsKeyId: 'arn:own' },
        { Region: 'us-east-1', KmsKeyId: 'alias/aws/secretsmanager' },
      ],
    });
    expect(rekey.failures).toEqual([]);
  });
});

describe('a rotation of a replicated credential', () => {
  test('takes AWSPENDING off only when every replica has the new login', async () => {
    const one = await credential();
    slow(9_000);
    const version = await rekey.rotate(one.name);
    expect(await rekey.labels(one.name)).toMatchObject({ AWSCURRENT: version });
    expect((await rekey.labels(one.name))['AWSPENDING']).toBeUndefined();
    move(minuteMs);
    // None was left behind: in the stand-in that is for good.
    expect(await statuses(one)).toEqual(inSync);
    expect(warnings()).toEqual([]);
  });

  test('does not wait for ever: AWSPENDING stays on the current login, it says so, and the next one goes on', async () => {
    const one = await credential();
    slow(10 * minuteMs);
    const start = vendors().clock.now().getTime();
    const version = await rekey.rotate(one.name);
    expect(await rekey.labels(one.name)).toMatchObject({ AWSCURRENT: version, AWSPENDING: version });
    expect(vendors().clock.now().getTime() - start).toBeLessThan(minuteMs);
    expect(warnings()).toEqual([
      expect.stringMatching(/^replicas do not have the new login yet.*"regions":\["eu-west-1","us-east-1"\]/),
    ]);
    const next = await rekey.rotate(one.name);
    expect(await rekey.labels(one.name)).toMatchObject({ AWSCURRENT: next, AWSPENDING: next });
    move(20 * minuteMs);
    expect(await statuses(one)).toEqual(inSync);
    expect(await worksNow(one)).toBe(true);
    expect(rekey.failures).toEqual([]);
  });

  test('does not wait for one that has failed, and says which and why', async () => {
    const one = await credential();
    rekey.secretsManager.setVariants({ failingRegions: ['us-east-1'] });
    const start = vendors().clock.now().getTime();
    const version = await rekey.rotate(one.name);
    expect(await rekey.labels(one.name)).toMatchObject({ AWSCURRENT: version });
    expect((await rekey.labels(one.name))['AWSPENDING']).toBeUndefined();
    expect(vendors().clock.now().getTime() - start).toBeLessThan(10_000);
    expect(warnings()).toEqual([
      expect.stringMatching(
        /^replicas have failed.*"regions":\["us-east-1"\],"reasons":\["The KMS key is disabled or not found"\]/,
      ),
    ]);
    expect(await worksNow(one)).toBe(true);
    expect(rekey.failures).toEqual([]);
  });

  test('waits for the others although one has failed', async () => {
    const one = await credential();
    rekey.secretsManager.setVariants({ failingRegions: ['us-east-1'], replicationMs: 9_000 });
    await rekey.rotate(one.name);
    expect((await rekey.labels(one.name))['AWSPENDING']).toBeUndefined();
    rekey.secretsManager.setVariants({ failingRegions: [] });
    move(minuteMs);
    expect((await statuses(one))['eu-west-1']).toBe('InSync');
  });

  test('killed between any two calls and started again, it converges, and leaves no replica behind', async () => {
    const one = await credential();
    slow(9_000);
    rekey.killAt(undefined);
    await rekey.rotate(one.name);
    const calls = [...rekey.calls];
    const wrong: string[] = [];
    for (const { call, when, name: at } of rekey.deaths()) {
      // A credential has room for two users beside the new one.
      rekey.killAt(undefined);
      move(26 * 60 * minuteMs);
      await rekey.sweep();
      rekey.killAt({ call, when });
      const version = await rekey.rotate(one.name);
      move(minuteMs);
      const labels = await rekey.labels(one.name);
      const held = {
        'its version is current': labels['AWSCURRENT'] === version,
        'AWSPENDING is gone': labels['AWSPENDING'] === undefined,
        'the login works': await worksNow(one),
        'every replica has it': Object.values(await statuses(one)).every((status) => status === 'InSync'),
      };
      for (const [what, holds] of Object.entries(held))
        if (!holds) wrong.push(`killed ${when} call ${call} (${at}), not so: ${what}`);
    }
    expect(calls.length).toBeGreaterThan(15);
    expect(wrong).toEqual([]);
  });

  test('of which there is no replica waits for nothing', async () => {
    const [alone, replicated] = [await credential([]), await credential()];
    const looks = async ({ name }: Made): Promise<number> => {
      rekey.killAt(undefined);
      await rekey.rotate(name);
      return rekey.calls.filter((call) => call === 'describeSecret').length;
    };
    expect(await looks(replicated)).toBe((await looks(alone)) + 1);
    // The step once more, when the label is gone: nothing to wait for any more.
    const version = await rekey.rotate(replicated.name);
    rekey.killAt(undefined);
    await rekey.step(replicated.name, 'finishSecret', version);
    expect(rekey.calls.filter((call) => call === 'describeSecret')).toHaveLength(1);
  });
});

describe('deleting a replicated credential', () => {
  const order = ({ name }: Made): Extract<Invocation, { is: 'order' }> => ({
    is: 'order',
    order: 'CredentialDeletionRequested',
    credential: name,
    orderedAt: vendors().clock.now(),
  });
  const stageOf = ({ targets }: Awaited<ReturnType<TestRekey['sweep']>>, { name }: Made) =>
    targets.flatMap((target) => target.credentials).find((found) => found.credential === name)?.stage;
  /** Ordered, with nobody left to wait for: the next pass deletes. */
  async function emptied(): Promise<Made> {
    const one = await credential();
    move(60 * minuteMs);
    return one;
  }
  /** Passes until it is gone, as far as five do it; their stages. */
  async function untilGone(one: Made): Promise<readonly (string | undefined)[]> {
    const stages = [];
    for (let pass = 1; pass <= 5 && stages.at(-1) !== 'deleted'; pass += 1) {
      stages.push(stageOf(await rekey.sweep(pass === 1 ? order(one) : undefined), one));
      move(16 * minuteMs);
    }
    return stages;
  }

  test('takes the replicas first, and then the secret', async () => {
    const one = await emptied();
    rekey.killAt(undefined);
    expect((await untilGone(one)).at(-1)).toBe('deleted');
    const [removed, deleted] = ['removeReplicas', 'deleteSecret'].map((name) => rekey.calls.indexOf(name));
    expect(removed).toBeGreaterThan(0);
    expect(deleted).toBe((removed ?? 0) + 1);
    expect(await statuses(one)).toEqual({});
    expect((await described(one)).DeletedDate).toBeDefined();
    expect(await users(one)).toEqual([]);
  });

  test('waits for the next pass while a replica is in the way', async () => {
    const one = await emptied();
    rekey.secretsManager.setVariants({ replicaRemovalMs: 10 * minuteMs });
    const stages = await untilGone(one);
    expect(stages.slice(-2)).toEqual(['replicas-left', 'deleted']);
    expect((await described(one)).DeletedDate).toBeDefined();
    expect(
      rekey
        .published()
        .filter(({ detail }) => detail['credential'] === one.name)
        .filter((event) => event['detail-type'] === 'CredentialDeleted'),
    ).toHaveLength(1);
  });

  test('with one that has failed takes that as well', async () => {
    const one = await emptied();
    rekey.secretsManager.setVariants({ failingRegions: ['us-east-1'] });
    expect((await untilGone(one)).at(-1)).toBe('deleted');
  });

  test('killed between any two calls and started again, it converges to nothing', async () => {
    const measured = await emptied();
    rekey.killAt(undefined);
    expect(await untilGone(measured)).toEqual(['deleted']);
    const calls = [...rekey.calls];
    const near = calls.indexOf('removeReplicas');
    const wrong: string[] = [];
    // Before the replicas go it is the deletion of any credential, which has such a test of its own.
    for (const { call, when, name: at } of rekey.deaths().filter((death) => death.call > near - 1)) {
      const one = await emptied();
      rekey.killAt({ call, when });
      const wasKilled = await rekey.sweep(order(one)).then(
        () => false,
        () => true,
      );
      const stages = (await hasSpec(one)) ? await untilGone(one) : [];
      const held = {
        'it was killed': wasKilled,
        'the secret is on its way out': (await described(one)).DeletedDate !== undefined,
        'no replica is left': Object.keys(await statuses(one)).length === 0,
        'no user is left': (await users(one)).length === 0,
        'it is forgotten': !(await hasSpec(one)),
      };
      for (const [what, holds] of Object.entries(held))
        if (!holds) wrong.push(`killed ${when} call ${call} (${at}), not so: ${what}; ${stages}`);
    }
    expect(near).toBeGreaterThan(0);
    expect(wrong).toEqual([]);
  });

  const hasSpec = ({ name }: Made): Promise<boolean> =>
    rekey.parameters.call('GetParameter', { Name: `/rekey/credentials/${name}` }).then(
      () => true,
      () => false,
    );
});
