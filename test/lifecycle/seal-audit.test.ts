import { createHash } from 'node:crypto';
import { DeleteObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { auditArchive } from '../../functions/aws/archive.ts';
import { parseAuditInvocation, type Seal } from '../../functions/core/audit.ts';
import { recordAudit } from '../../functions/lifecycle/record-audit.ts';
import { sealAudit } from '../../functions/lifecycle/seal-audit.ts';
import { verifyArchive } from '../../functions/lifecycle/verify-archive.ts';
import { startAwsEndpoint } from '../../infra/local/aws/endpoint.ts';
import { createS3 } from '../../infra/local/aws/s3.ts';
import { type ArchiveRekey, archiveRekey, auditEvent } from '../support/archive.ts';

async function record(archive: ArchiveRekey, number: number, time: string): Promise<string> {
  const invocation = parseAuditInvocation(auditEvent(number, time));
  if (invocation.is !== 'event') throw new Error('expected an event');
  return (await recordAudit(invocation.event, archive.rekey)).key;
}

const seal = (archive: ArchiveRekey, dryRun = false) => sealAudit({ dryRun }, archive.until(), archive.rekey);
const sealedOf = (archive: ArchiveRekey, day: string) =>
  JSON.parse(archive.objects.get(`seal/${day.replaceAll('-', '/')}.json`) ?? 'null');
const verify = ({ rekey }: ArchiveRekey, from: string, to: string) => verifyArchive({ from, to }, rekey);

/** Records on 1, 2 and 4 March, one of the 2nd that comes on the 4th; all are sealed. */
async function sealedDays() {
  const archive = archiveRekey('2026-03-01T12:00:00Z');
  const keys: string[] = [];
  for (const [number, time] of [
    [1, '2026-03-01T12:00:00Z'],
    [2, '2026-03-01T13:00:00Z'],
    [3, '2026-03-01T14:00:00Z'],
    [4, '2026-03-02T12:00:00Z'],
    [5, '2026-03-02T13:00:00Z'],
    [6, '2026-03-04T12:00:00Z'],
    [7, '2026-03-04T12:00:00Z'],
  ] as const) {
    archive.moveTo(time);
    // Each day is sealed on the next.
    if (number === 6) await seal(archive);
    keys.push(await record(archive, number, time));
  }
  keys.push(await record(archive, 8, '2026-03-02T14:00:00Z'));
  archive.moveTo('2026-03-05T04:00:00Z');
  await seal(archive);
  return { archive, keys };
}

const [one, two] = [1, 2].map(
  (number) => `audit/2026/03/01/00000000-0000-4000-8000-00000000000${number}.json`,
) as [string, string];

const six = 'audit/2026/03/04/00000000-0000-4000-8000-000000000006.json';
const eight = 'audit/2026/03/02/00000000-0000-4000-8000-000000000008.json';
const last = 'seal/2026/03/04.json';

/** The last seal with other contents, its count put right: no other seal betrays it. */
function rewriteLast(objects: Map<string, string>, change: (seal: Seal) => Omit<Seal, 'count'>): void {
  const { count: _count, ...seal } = { count: 0, ...change(JSON.parse(objects.get(last) ?? '')) };
  objects.set(last, JSON.stringify({ ...seal, count: seal.records.length + seal.late.length }));
}

describe('a seal', () => {
  test('lists the day’s records with their digests, and is chained to the seal of the day before', async () => {
    const { archive } = await sealedDays();
    expect(sealedOf(archive, '2026-03-01')).toEqual({
      version: 1,
      day: '2026-03-01',
      sealedAt: '2026-03-04T12:00:00.000Z',
      count: 3,
      records: [1, 2, 3].map((number) => ({
        key: `audit/2026/03/01/00000000-0000-4000-8000-00000000000${number}.json`,
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
      })),
      late: [],
    });
    const first = archive.rekey.sha256(archive.objects.get('seal/2026/03/01.json') ?? '');
    expect(sealedOf(archive, '2026-03-02')).toMatchObject({
      previous: { day: '2026-03-01', sha256: Buffer.from(first).toString('hex') },
      count: 2,
    });
  });

  test('is made for a day without records as well, so that the chain has no hole', async () => {
    const { archive } = await sealedDays();
    expect(sealedOf(archive, '2026-03-03')).toMatchObject({ count: 0, records: [], late: [] });
  });

  test('lists a record that came when its own day may have been sealed', async () => {
    const { archive } = await sealedDays();
    expect(sealedOf(archive, '2026-03-04')).toMatchObject({
      count: 3,
      late: [{ key: 'audit/2026/03/02/00000000-0000-4000-8000-000000000008.json' }],
    });
  });

  test('is made once, and its digest is logged', async () => {
    const { archive } = await sealedDays();
    const before = new Map(archive.objects);
    expect(await seal(archive)).toEqual({ sealed: [] });
    expect(archive.objects).toEqual(before);
    expect(archive.logged.filter((line) => line.includes('the day is sealed'))).toHaveLength(4);
    const { head } = await verify(archive, '2026-03-01', '2026-03-04');
    expect(archive.logged.at(-1)).toContain(head?.sha256);
  });

  test('is not made before three hours of the next day have passed', async () => {
    const archive = archiveRekey('2026-03-01T12:00:00Z');
    await record(archive, 1, '2026-03-01T12:00:00Z');
    archive.moveTo('2026-03-02T02:59:59Z');
    expect(await seal(archive)).toEqual({ sealed: [] });
    archive.moveTo('2026-03-02T03:00:00Z');
    expect((await seal(archive)).sealed).toMatchObject([{ day: '2026-03-01', count: 1 }]);
  });

  test('is made by none of a dry run, which says which there would be', async () => {
    const archive = archiveRekey('2026-03-01T12:00:00Z');
    await record(archive, 1, '2026-03-01T12:00:00Z');
    archive.moveTo('2026-03-03T04:00:00Z');
    expect(await seal(archive, true)).toEqual({ sealed: [{ day: '2026-03-01' }, { day: '2026-03-02' }] });
    expect(archive.keys('seal/')).toEqual([]);
  });

  test('is made for nothing as long as there is no record', async () => {
    const archive = archiveRekey('2026-03-03T04:00:00Z');
    expect(await seal(archive)).toEqual({ sealed: [] });
    expect(archive.measured).toEqual([{ AuditUnsealedAge: 0 }]);
  });
});

describe('a note of a late record', () => {
  const note = 'late/2026/03/04/00000000-0000-4000-8000-000000000009.json';
  const sealFourth = async (document: string) => {
    const { archive } = await sealedDays();
    archive.objects.delete(last);
    archive.objects.set(note, document);
    await seal(archive);
    return archive;
  };

  test('whose record was never written is in no seal', async () => {
    const archive = await sealFourth('{"key":"audit/2026/03/01/00000000-0000-4000-8000-000000000009.json"}');
    expect(sealedOf(archive, '2026-03-04')).toMatchObject({ count: 3, late: [expect.anything()] });
    expect(await verify(archive, '2026-03-01', '2026-03-04')).toMatchObject({ findings: [], records: 8 });
  });

  test('that somebody spoiled keeps no day from being sealed, and is logged', async () => {
    const archive = await sealFourth('{"key":"elsewhere"}');
    expect(sealedOf(archive, '2026-03-04')).toMatchObject({ count: 3 });
    expect(archive.logged).toContainEqual(
      `warn a note of a late record is spoiled or gone {"key":"${note}"}`,
    );
  });
});

describe('a pass', () => {
  test('that cannot read what is listed seals nothing, and the next one does', async () => {
    const archive = archiveRekey('2026-03-01T12:00:00Z');
    const key = await record(archive, 1, '2026-03-01T12:00:00Z');
    const document = archive.objects.get(key) ?? '';
    archive.moveTo('2026-03-02T04:00:00Z');
    archive.disturb((port) => {
      if (port === 'readArchive') archive.objects.delete(key);
    });
    await expect(seal(archive)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE', effect: 'none' });
    expect(archive.keys('seal/')).toEqual([]);
    archive.disturb();
    archive.objects.set(key, document);
    expect((await seal(archive)).sealed).toMatchObject([{ day: '2026-03-01', count: 1 }]);
  });

  test('reads of the days that are sealed nothing but the last seal', async () => {
    const { archive } = await sealedDays();
    archive.moveTo('2026-03-06T04:00:00Z');
    const asked: string[] = [];
    archive.disturb((port, key) => void asked.push(`${port} ${key}`));
    expect((await seal(archive)).sealed).toMatchObject([{ day: '2026-03-05' }]);
    expect(asked.filter((call) => /2026\/03\/0[1-4]/.test(call))).toEqual([`readArchive ${last}`]);
  });

  test('that has no time left leaves the rest to the next, and says since when a day waits', async () => {
    const archive = archiveRekey('2026-03-01T12:00:00Z');
    await record(archive, 1, '2026-03-01T12:00:00Z');
    archive.moveTo('2026-03-05T04:00:00Z');
    expect(await sealAudit({ dryRun: false }, archive.now(), archive.rekey)).toEqual({ sealed: [] });
    // Since the end of 1 March: three days and four hours.
    expect(archive.measured).toEqual([{ AuditUnsealedAge: 273_600 }]);
  });

  test('that dies anywhere, or loses any answer, is made good by the next', async () => {
    for (const isAfter of [false, true])
      for (let call = 1; call <= 25; call += 1) {
        const archive = archiveRekey('2026-03-01T12:00:00Z');
        await record(archive, 1, '2026-03-01T12:00:00Z');
        await record(archive, 2, '2026-03-01T13:00:00Z');
        archive.moveTo('2026-03-04T04:00:00Z');
        let calls = 0;
        const fail = () => {
          calls += 1;
          if (calls === call) throw new Error('out of reach');
        };
        if (isAfter) archive.disturb(undefined, fail);
        else archive.disturb(fail);
        await seal(archive).catch(() => undefined);
        archive.disturb();
        archive.moveTo('2026-03-04T05:00:00Z');
        await seal(archive);
        expect(archive.keys('seal/')).toHaveLength(3);
        expect(await verify(archive, '2026-03-01', '2026-03-03')).toMatchObject({ findings: [], records: 2 });
      }
  });

  test('that fails is counted', async () => {
    const archive = archiveRekey('2026-03-04T04:00:00Z');
    archive.disturb(() => {
      throw new Error('out of reach');
    });
    await expect(seal(archive)).rejects.toThrow('out of reach');
    expect(archive.measured).toEqual([{ AuditWriteFailed: 1 }]);
  });

  test('beside another one makes one chain with it, though they saw different things', async () => {
    const archive = archiveRekey('2026-03-01T12:00:00Z');
    await record(archive, 1, '2026-03-01T12:00:00Z');
    archive.moveTo('2026-03-04T04:00:00Z');
    // Between the look of the one and its write the other one seals the first day, later by its clock, and dies.
    const sealFirst = async () => {
      archive.moveTo('2026-03-04T04:00:02Z');
      await seal(archive);
      for (const later of ['seal/2026/03/02.json', 'seal/2026/03/03.json']) archive.objects.delete(later);
    };
    let other: Promise<unknown> | undefined;
    const { ports } = archive.rekey;
    const slow = {
      ...archive.rekey,
      ports: {
        ...ports,
        archive: async (request: { key: string; document: string }) => {
          other ??= sealFirst();
          await other;
          return ports.archive(request);
        },
      },
    };
    archive.moveTo('2026-03-04T04:00:01Z');
    expect((await sealAudit({ dryRun: false }, archive.until(), slow)).sealed).toMatchObject([
      { day: '2026-03-02' },
      { day: '2026-03-03' },
    ]);
    expect(sealedOf(archive, '2026-03-01')).toMatchObject({ sealedAt: '2026-03-04T04:00:02.000Z' });
    expect(await verify(archive, '2026-03-01', '2026-03-03')).toMatchObject({ findings: [], records: 1 });
  });
});

describe('the verifier', () => {
  test('finds nothing wrong with what was left alone, and counts every record, late ones too', async () => {
    const { archive } = await sealedDays();
    expect(await verify(archive, '2026-03-01', '2026-03-04')).toEqual({
      findings: [],
      records: 8,
      head: { day: '2026-03-04', sha256: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    expect(await verify(archive, '2026-03-02', '2026-03-02')).toMatchObject({ findings: [], records: 3 });
    // Before there was any record there was nothing to seal.
    expect(await verify(archive, '2026-02-20', '2026-03-01')).toMatchObject({ findings: [], records: 3 });
  });

  test('waits for the next seal with a late record that is noted, and with no other', async () => {
    const { archive } = await sealedDays();
    archive.moveTo('2026-03-05T09:00:00Z');
    const key = await record(archive, 9, '2026-03-01T15:00:00Z');
    expect((await verify(archive, '2026-03-01', '2026-03-04')).findings).toEqual([]);
    archive.objects.delete('late/2026/03/05/00000000-0000-4000-8000-000000000009.json');
    expect((await verify(archive, '2026-03-01', '2026-03-04')).findings).toEqual([
      { kind: 'RecordAdded', key, details: 'no seal lists it' },
    ]);
  });

  const tampered: Record<
    string,
    { tamper: (objects: Map<string, string>) => void; found: readonly (readonly [string, string])[] }
  > = {
    'a record that was deleted': {
      tamper: (objects) => objects.delete(one),
      found: [['RecordMissing', one]],
    },
    'a record that was edited': {
      tamper: (objects) => objects.set(one, (objects.get(one) ?? '').replace('orders-1', 'orders-9')),
      found: [['RecordChanged', one]],
    },
    'a record that was inserted': {
      tamper: (objects) => objects.set('audit/2026/03/01/forged.json', '{}'),
      found: [['RecordAdded', 'audit/2026/03/01/forged.json']],
    },
    'two records that changed places': {
      tamper: (objects) => {
        const [first = '', second = ''] = [objects.get(one), objects.get(two)];
        objects.set(one, second).set(two, first);
      },
      found: [
        ['RecordReordered', one],
        ['RecordReordered', two],
      ],
    },
    'a record that was moved to another day': {
      tamper: (objects) => {
        objects.set('audit/2026/03/02/moved.json', objects.get(one) ?? '');
        objects.delete(one);
      },
      found: [
        ['RecordMissing', one],
        ['RecordAdded', 'audit/2026/03/02/moved.json'],
      ],
    },
    'a day with another seal': {
      tamper: (objects) => {
        objects.delete(one);
        const seal = JSON.parse(objects.get('seal/2026/03/01.json') ?? '');
        objects.set(
          'seal/2026/03/01.json',
          JSON.stringify({ ...seal, count: 2, records: seal.records.slice(1) }),
        );
      },
      found: [['SealChanged', 'seal/2026/03/01.json']],
    },
    'a seal whose records were put in another order, though nothing is chained to it yet': {
      tamper: (objects) => {
        const seal = JSON.parse(objects.get('seal/2026/03/04.json') ?? '');
        objects.set('seal/2026/03/04.json', JSON.stringify({ ...seal, records: seal.records.toReversed() }));
      },
      found: [['RecordReordered', 'audit/2026/03/04/00000000-0000-4000-8000-000000000006.json']],
    },
    'a seal that was deleted in the middle': {
      tamper: (objects) => objects.delete('seal/2026/03/03.json'),
      found: [['SealMissing', 'seal/2026/03/03.json']],
    },
    'the first seal that was deleted': {
      tamper: (objects) => objects.delete('seal/2026/03/01.json'),
      found: [
        ['RecordAdded', one],
        ['RecordAdded', two],
        ['RecordAdded', 'audit/2026/03/01/00000000-0000-4000-8000-000000000003.json'],
        ['SealMissing', 'seal/2026/03/01.json'],
      ],
    },
    'the last seal that was deleted': {
      tamper: (objects) => objects.delete('seal/2026/03/04.json'),
      found: [['SealMissing', 'seal/2026/03/04.json']],
    },
    'a seal that nobody can read': {
      tamper: (objects) => objects.set('seal/2026/03/02.json', '{}'),
      found: [
        ['SealChanged', 'seal/2026/03/02.json'],
        ['SealUnreadable', 'seal/2026/03/02.json'],
      ],
    },
    'a record that was edited, and listed once more in the seal that nothing is chained to': {
      tamper: (objects) => {
        const document = (objects.get(one) ?? '').replace('orders-1', 'orders-9');
        objects.set(one, document);
        const sha256 = createHash('sha256').update(document).digest('hex');
        rewriteLast(objects, ({ late, ...seal }) => ({ ...seal, late: [{ key: one, sha256 }, ...late] }));
      },
      found: [['RecordChanged', one]],
    },
    'a record that was inserted with a note of a day that is sealed': {
      tamper: (objects) => {
        objects.set('audit/2026/03/01/forged.json', '{}');
        objects.set('late/2026/03/04/forged.json', '{"key":"audit/2026/03/01/forged.json"}');
      },
      found: [['RecordAdded', 'audit/2026/03/01/forged.json']],
    },
    'a seal that lists a record twice': {
      tamper: (objects) =>
        rewriteLast(objects, ({ records, ...seal }) => ({
          ...seal,
          records: records.toSpliced(1, 0, ...records.slice(0, 1)),
        })),
      found: [['RecordReordered', six]],
    },
    'a seal that lists a record of its own day as late': {
      tamper: (objects) =>
        rewriteLast(objects, ({ records, late, ...seal }) => ({
          ...seal,
          records: records.slice(1),
          late: [...late, ...records.slice(0, 1)],
        })),
      found: [['RecordReordered', six]],
    },
    'a seal that lists a late record as one of its own day': {
      tamper: (objects) =>
        rewriteLast(objects, ({ records, late, ...seal }) => ({
          ...seal,
          records: [...late, ...records],
          late: [],
        })),
      found: [['RecordReordered', eight]],
    },
    'a seal that does not count what it lists': {
      tamper: (objects) => objects.set(last, (objects.get(last) ?? '').replace('"count":3', '"count":4')),
      // With the only seal that lists it nobody can say of a late record that it was sealed.
      found: [
        ['SealUnreadable', last],
        ['RecordAdded', eight],
      ],
    },
    'a seal in the place of another': {
      tamper: (objects) => objects.set(last, objects.get('seal/2026/03/03.json') ?? ''),
      found: [
        ['SealUnreadable', last],
        ['RecordAdded', eight],
      ],
    },
    'a seal that begins a chain of its own': {
      tamper: (objects) => {
        const { previous: _previous, ...seal } = JSON.parse(objects.get('seal/2026/03/04.json') ?? '');
        objects.set('seal/2026/03/04.json', JSON.stringify(seal));
      },
      found: [['LinkBroken', 'seal/2026/03/04.json']],
    },
  };
  test.each(Object.entries(tampered))('finds %s, and names it', async (_title, { tamper, found }) => {
    const { archive } = await sealedDays();
    tamper(archive.objects);
    const { findings } = await verify(archive, '2026-03-01', '2026-03-04');
    const pairs = findings.map(({ kind, key }) => [kind, key]);
    expect(pairs.toSorted()).toEqual(found.toSorted());
  });

  test('looks at the seal before the days that it is asked for, as the first of them is chained to it', async () => {
    const { archive } = await sealedDays();
    const key = 'seal/2026/03/01.json';
    archive.objects.set(key, (archive.objects.get(key) ?? '').replace('12:00:00.000Z', '12:00:00.001Z'));
    expect((await verify(archive, '2026-03-02', '2026-03-02')).findings).toMatchObject([
      { kind: 'SealChanged', key },
    ]);
  });

  test('finds any one record that was deleted, edited, inserted or put in the place of another, by name', async () => {
    const { archive, keys } = await sealedDays();
    const whole = new Map(archive.objects);
    const any = fc.constantFrom(...keys);
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.record({ is: fc.constant('deleted' as const), key: any }),
          fc.record({
            is: fc.constant('edited' as const),
            key: any,
            at: fc.nat(),
            letter: fc.string({ minLength: 1, maxLength: 1 }),
          }),
          fc.record({
            is: fc.constant('inserted' as const),
            key: any,
            name: fc.stringMatching(/^[a-z0-9-]{1,40}$/),
          }),
          fc.record({ is: fc.constant('swapped' as const), key: any, other: any }),
          fc.record({ is: fc.constant('replaced' as const), key: any, document: fc.string() }),
        ),
        async (change) => {
          archive.objects.clear();
          for (const [key, document] of whole) archive.objects.set(key, document);
          const document = whole.get(change.key) ?? '';
          let named = [change.key];
          switch (change.is) {
            case 'deleted':
              archive.objects.delete(change.key);
              break;
            case 'edited': {
              const at = change.at % document.length;
              fc.pre(document[at] !== change.letter);
              archive.objects.set(change.key, document.slice(0, at) + change.letter + document.slice(at + 1));
              break;
            }
            case 'inserted':
              named = [change.key.replace(/[^/]+$/, `${change.name}.json`)];
              fc.pre(!whole.has(named[0] ?? ''));
              archive.objects.set(named[0] ?? '', document);
              break;
            case 'swapped':
              fc.pre(change.key !== change.other);
              named.push(change.other);
              archive.objects.set(change.key, whole.get(change.other) ?? '').set(change.other, document);
              break;
            case 'replaced':
              fc.pre(change.document !== document);
              archive.objects.set(change.key, change.document);
              break;
          }
          const { findings } = await verify(archive, '2026-03-01', '2026-03-04');
          // Each of them once, and no other record beside them.
          expect(findings.map(({ key }) => key)).toEqual(named.toSorted());
        },
      ),
    );
  });

  test('finds any change to any seal but the last, whose digest is in the log', async () => {
    const { archive } = await sealedDays();
    const whole = new Map(archive.objects);
    const { head } = await verify(archive, '2026-03-01', '2026-03-04');
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...archive.keys('seal/')),
        fc.nat(),
        fc.string({ minLength: 1, maxLength: 1 }),
        async (key, place, letter) => {
          const document = whole.get(key) ?? '';
          const at = place % document.length;
          fc.pre(document[at] !== letter);
          archive.objects.set(key, document.slice(0, at) + letter + document.slice(at + 1));
          const after = await verify(archive, '2026-03-01', '2026-03-04');
          archive.objects.set(key, document);
          const isLast = key === 'seal/2026/03/04.json';
          if (isLast) expect(after.head?.sha256).not.toBe(head?.sha256);
          else expect(after.findings.map(({ key: named }) => named)).toContain(key);
        },
      ),
    );
  });
});

test('whenever records come and seals are made, every record is in a seal once all days are over', async () => {
  const step = fc.record({
    /** Hours that pass before it. */
    hours: fc.integer({ min: 0, max: 30 }),
    /** How old the event is when it comes, in hours. */
    age: fc.integer({ min: 0, max: 100 }),
    seals: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
      const start = Date.parse('2026-03-10T00:00:00Z');
      const archive = archiveRekey('2026-03-10T00:00:00Z');
      let at = start;
      for (const [number, { hours, age, seals }] of steps.entries()) {
        at += hours * 3_600_000;
        archive.moveTo(new Date(at).toISOString());
        if (seals) await seal(archive);
        await record(archive, number, new Date(at - age * 3_600_000).toISOString());
      }
      archive.moveTo(new Date(at + 2 * 86_400_000).toISOString());
      await seal(archive);
      const last = archive.keys('seal/').at(-1)?.slice(5, 15).replaceAll('/', '-') ?? '';
      expect(await verify(archive, '2026-03-01', last)).toMatchObject({
        findings: [],
        records: steps.length,
      });
    }),
  );
});

test('in a bucket with a lock whoever hides or overlays a record is found, and the record is still there', async () => {
  const Bucket = 'rekey-audit';
  const s3 = createS3({ buckets: [{ name: Bucket, objectLock: { mode: 'COMPLIANCE', days: 365 } }] });
  const endpoint = await startAwsEndpoint({ services: [], otherwise: s3.serve });
  const client = new S3Client({
    endpoint: endpoint.url,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'AKIDTEST', secretAccessKey: 'not-a-key' },
  });
  onTestFinished(async () => {
    client.destroy();
    await endpoint.close();
  });
  const memory = archiveRekey('2026-03-01T12:00:00Z');
  const ports = { ...memory.rekey.ports, ...auditArchive(client, Bucket, memory.rekey.ports) };
  const archive = { ...memory, rekey: { ...memory.rekey, ports } };
  for (const number of [1, 2, 3]) await record(archive, number, '2026-03-01T12:00:00Z');
  archive.moveTo('2026-03-02T04:00:00Z');
  expect((await seal(archive)).sealed).toMatchObject([{ day: '2026-03-01', count: 3 }]);
  expect(await verify(archive, '2026-03-01', '2026-03-01')).toMatchObject({ findings: [], records: 3 });

  await client.send(new DeleteObjectCommand({ Bucket, Key: one }));
  await client.send(new PutObjectCommand({ Bucket, Key: two, Body: '{}' }));
  expect(await verify(archive, '2026-03-01', '2026-03-01')).toMatchObject({
    findings: [
      { kind: 'RecordMissing', key: one },
      { kind: 'RecordChanged', key: two },
    ],
    records: 1,
  });
  expect(s3.versions(Bucket, one)[0]?.body?.toString()).toContain('orders-1');
  expect(s3.versions(Bucket, two)[0]?.body?.toString()).toContain('orders-2');
});
