import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseAuditInvocation } from '../../functions/core/audit.ts';
import { recordAudit } from '../../functions/lifecycle/record-audit.ts';
import { type ArchiveRekey, archiveRekey, auditEvent } from '../support/archive.ts';

const noon = '2026-03-01T12:00:00Z';

function record(archive: ArchiveRekey, given: object) {
  const invocation = parseAuditInvocation(given);
  if (invocation.is !== 'event') throw new Error('expected an event');
  return recordAudit(invocation.event, archive.rekey);
}

/** A delivery of a vendor's event; the bus gives each another id. */
const told = (number: number, providerEventId: string, time = noon) =>
  auditEvent(number, time, {
    'detail-type': 'ProviderEventReceived',
    detail: { provider: 'acme', providerEventId, providerEventType: 'users_created', target: 'db-1' },
  });

const recordOne = 'audit/2026/03/01/00000000-0000-4000-8000-000000000001.json';

test('an event has one record, in the folder of its own day', async () => {
  const archive = archiveRekey(noon);
  expect(await record(archive, auditEvent(1, noon))).toEqual({ key: recordOne, outcome: 'written' });
  expect([...archive.objects.keys()]).toEqual([recordOne]);
  expect(JSON.parse(archive.objects.get(recordOne) ?? '')).toMatchObject({
    what: 'CredentialCreated',
    credential: 'orders-1',
    recordedAt: '2026-03-01T12:00:00.000Z',
  });
});

test('a duplicate and a replay add nothing, and change nothing', async () => {
  const archive = archiveRekey(noon);
  await record(archive, auditEvent(1, noon));
  const before = new Map(archive.objects);
  archive.moveTo('2026-03-01T12:05:00Z');
  expect(await record(archive, auditEvent(1, noon))).toEqual({ key: recordOne, outcome: 'exists' });
  // Out of the bus's archive, weeks after its day was sealed.
  archive.moveTo('2026-04-01T12:00:00Z');
  expect(await record(archive, auditEvent(1, noon, { 'replay-name': 'again' }))).toEqual({
    key: recordOne,
    outcome: 'exists',
  });
  expect(archive.objects).toEqual(before);
});

describe('what a vendor tells again', () => {
  test('has the record of the first delivery, though it comes a day later and under another id of the bus', async () => {
    const archive = archiveRekey(noon);
    expect(await record(archive, told(1, 'evt-1'))).toEqual({ key: recordOne, outcome: 'written' });
    archive.moveTo('2026-03-02T21:00:00Z');
    expect(await record(archive, told(2, 'evt-1', '2026-03-02T21:00:00Z'))).toEqual({
      key: recordOne,
      outcome: 'exists',
    });
    expect(archive.keys('audit/')).toEqual([recordOne]);
    await record(archive, told(3, 'evt-2'));
    expect(archive.keys('audit/')).toHaveLength(2);
  });

  test('is recorded once more when its note was spoiled, and not lost', async () => {
    const archive = archiveRekey(noon);
    await record(archive, told(1, 'evt-1'));
    const [key = ''] = archive.keys('received/');
    archive.objects.set(key, '{"key":"seal/2026/03/01.json"}');
    expect(await record(archive, told(2, 'evt-1'))).toMatchObject({ outcome: 'written' });
    expect(archive.logged).toContainEqual(expect.stringContaining('spoiled'));
  });

  test('of two at once there is one record', async () => {
    const archive = archiveRekey(noon);
    await Promise.all([1, 2, 3].map((number) => record(archive, told(number, 'evt-1'))));
    expect(archive.keys('audit/')).toHaveLength(1);
  });
});

describe('a record that comes when its day may be sealed', () => {
  test('is noted on the day when it comes, before it is written', async () => {
    const archive = archiveRekey('2026-03-03T09:00:00Z');
    await record(archive, auditEvent(1, noon));
    expect([...archive.objects.keys()]).toEqual([
      'late/2026/03/03/00000000-0000-4000-8000-000000000001.json',
      recordOne,
    ]);
  });

  test('is not noted again by a duplicate', async () => {
    const archive = archiveRekey('2026-03-03T09:00:00Z');
    await record(archive, auditEvent(1, noon));
    archive.moveTo('2026-03-04T09:00:00Z');
    await record(archive, auditEvent(1, noon));
    expect(archive.keys('late/')).toHaveLength(1);
  });
});

test('a store that fails is counted, and the event comes again', async () => {
  const archive = archiveRekey(noon);
  const failure = new Error('out of reach');
  archive.disturb(() => {
    throw failure;
  });
  await expect(record(archive, auditEvent(1, noon))).rejects.toBe(failure);
  expect(archive.measured).toEqual([{ AuditWriteFailed: 1 }]);
  archive.disturb();
  expect(await record(archive, auditEvent(1, noon))).toMatchObject({ outcome: 'written' });
});

test('whatever comes in whatever order, however often, and wherever it dies: one record a distinct event', async () => {
  const delivery = fc.record({
    event: fc.integer({ min: 0, max: 11 }),
    isOfVendor: fc.boolean(),
    hour: fc.integer({ min: 0, max: 90 }),
    /** At which call the store fails, and whether it did its work. */
    failsAt: fc.option(fc.record({ call: fc.integer({ min: 1, max: 5 }), isAfter: fc.boolean() })),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(delivery, { maxLength: 40 }), async (deliveries) => {
      const archive = archiveRekey(noon);
      const distinct = new Set<string>();
      for (const [index, { event, isOfVendor, hour, failsAt }] of deliveries.entries()) {
        const at = new Date(Date.parse(noon) + hour * 3_600_000);
        archive.moveTo(at.toISOString());
        const given = isOfVendor
          ? told(1000 + index, `evt-${event}`, at.toISOString())
          : auditEvent(event, noon);
        distinct.add(`${isOfVendor} ${event}`);
        let calls = 0;
        const fail = (isAfter: boolean) => () => {
          if (isAfter === (failsAt?.isAfter ?? false)) calls += 1;
          if (failsAt !== null && failsAt.isAfter === isAfter && calls === failsAt.call)
            throw new Error('out of reach');
        };
        archive.disturb(fail(false), fail(true));
        await record(archive, given).catch(() => undefined);
        archive.disturb();
        await record(archive, given);
      }
      expect(archive.keys('audit/')).toHaveLength(distinct.size);
    }),
  );
});
