import { afterAll, beforeAll, expect, test } from 'vitest';
import { type LateWriters, startLateWriters } from '../support/late-writers.ts';
import { useTestVendors } from '../support/vendors.ts';
const vendors = useTestVendors();
let late: LateWriters;
beforeAll(async () => { late = await startLateWriters(vendors); });
afterAll(() => late.stop());
test('dbg', async () => {
  const [subject, scenario, world, call] = (process.env['CASE'] ?? '').split(';');
  const calls = await late.count(subject as never, scenario as never);
  console.log(calls.map(({name, kind}, i) => `${i+1} ${name} ${kind}`).join('\n'));
  late.rekey.logged.length = 0;
  const at = late.rekey.published().length;
  const v = await late.play({ subject, scenario, world, call: Number(call) } as never);
  console.log(late.rekey.published().slice(at).map((e) => `${e.time} ${e['detail-type']} ${JSON.stringify(e.detail)}`).join('\n'));
  console.log(late.rekey.logged.join('\n'));
  expect(v).toEqual([]);
}, 100_000);
