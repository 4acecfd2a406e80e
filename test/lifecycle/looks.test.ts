import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { reconcileUsers } from '../../functions/lifecycle/reconcile-users.ts';
import { startTestRekey, type TestRekey, webhookBaseUrl } from '../support/rekey.ts';
import { useTestVendors } from '../support/vendors.ts';

/** Which targets a pass of reconcile-users queues, by how the last looks at them went. */

const vendors = useTestVendors();
const minuteMs = 60_000;
const clusterId = 'in01-aaaaaaaaaaaaaaa';
let rekey: TestRekey;
let name = '';
let credentials = 0;
beforeAll(async () => {
  rekey = await startTestRekey(vendors);
  vendors().zilliz.api.addCluster({ id: clusterId, name: 'orders', roles: ['orders_rw'] });
});
afterAll(() => rekey.stop());
beforeEach(async () => {
  credentials += 1;
  name = `orders-${credentials}`;
  await rekey.request({
    name,
    provider: 'zilliz-cloud',
    target: { clusterId },
    apiKeySecret: 'rekey/api-keys/zilliz',
    usernamePrefix: name.replaceAll('-', '_'),
    strategy: 'replace-user',
    privileges: { roles: ['orders_rw'] },
  });
  await rekey.secretsManager.idle();
});
afterEach(async () => {
  rekey.refuse();
  vendors().zilliz.api.actor.setStatus(clusterId, 'RUNNING');
  await rekey.parameters.call('DeleteParameter', { Name: `/rekey/credentials/${name}` });
  // The looks of one test are too old for the next one.
  move(120 * minuteMs);
});

const move = (ms: number) => vendors().clock.move(ms);
/** A pass, as its schedule makes it, and then the tasks that it queued. */
async function pass() {
  await rekey.invoke((inner, until) =>
    reconcileUsers({ is: 'pass', dryRun: false }, { webhookBaseUrl }, until, inner),
  );
  return rekey.takeMessages();
}
type Messages = Awaited<ReturnType<typeof pass>>;
const isQueued = ({ messages }: Messages) => messages.some(({ body }) => body.includes(clusterId));
/** A pass whose look begins 31 minutes later: the next pass, at the full hour, comes 29 minutes after it. */
async function lateLook(): Promise<void> {
  const queued = await pass();
  expect(isQueued(queued)).toBe(true);
  move(31 * minuteMs);
  await rekey.reconcile(queued);
  move(29 * minuteMs);
}

test('a look that saw the target half an hour before a pass does for that pass', async () => {
  await lateLook();
  expect(isQueued(await pass())).toBe(false);
});

test('a target that could not be entered is queued by the next pass, and no longer once it was seen', async () => {
  vendors().zilliz.api.actor.setStatus(clusterId, 'SUSPENDED');
  await lateLook();
  await lateLook();
  vendors().zilliz.api.actor.setStatus(clusterId, 'RUNNING');
  await lateLook();
  expect(isQueued(await pass())).toBe(false);
});

test('a target whose API key the vendor refuses is queued by the next pass', async () => {
  vendors().zilliz.api.faults.inject({ operation: '*', kind: 'status', status: 401, times: 1 });
  await lateLook();
  expect(isQueued(await pass())).toBe(true);
});

test('a target with a repair that failed is queued by the next pass', async () => {
  await lateLook();
  move(60 * minuteMs);
  const { username = '' } = (await rekey.login(name, 'AWSCURRENT')) ?? {};
  vendors().zilliz.api.actor.deleteUser(clusterId, username);
  rekey.refuse('createParameter', 'writeParameter');
  await lateLook();
  rekey.refuse();
  const queued = await pass();
  expect(isQueued(queued)).toBe(true);
  await rekey.reconcile(queued);
  expect(await rekey.parameter(`/rekey/directives/${name}/rotateBefore`)).toBeDefined();
});

test('a look that failed does for every task that was queued before it began: none piles up', async () => {
  vendors().zilliz.api.actor.setStatus(clusterId, 'SUSPENDED');
  const first = await pass();
  move(60 * minuteMs);
  const second = await pass();
  expect([isQueued(first), isQueued(second)]).toEqual([true, true]);
  move(10 * minuteMs);
  await rekey.reconcile(first);
  const before = vendors().requests.length;
  expect(before).toBeGreaterThan(0);
  await rekey.reconcile(second);
  expect(vendors().requests.length).toBe(before);
});
