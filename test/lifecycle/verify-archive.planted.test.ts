import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { parseAuditInvocation } from '../../functions/core/audit.ts';
import { recordAudit } from '../../functions/lifecycle/record-audit.ts';
import { sealAudit } from '../../functions/lifecycle/seal-audit.ts';
import { verifyArchive } from '../../functions/lifecycle/verify-archive.ts';
import { archiveRekey, auditEvent } from '../support/archive.ts';

/** A record on each of 1, 2 and 4 March; all four days are sealed. */
async function sealedDays() {
  const archive = archiveRekey('2026-03-01T12:00:00Z');
  for (const [number, time] of [
    [1, '2026-03-01T12:00:00Z'],
    [2, '2026-03-02T12:00:00Z'],
    [3, '2026-03-04T12:00:00Z'],
  ] as const) {
    archive.moveTo(time);
    const invocation = parseAuditInvocation(auditEvent(number, time));
    if (invocation.is !== 'event') throw new Error('expected an event');
    await recordAudit(invocation.event, archive.rekey);
  }
  archive.moveTo('2026-03-05T04:00:00Z');
  await sealAudit({ dryRun: false }, archive.until(), archive.rekey);
  return archive;
}
const findings = async ({ rekey }: ReturnType<typeof archiveRekey>) =>
  (await verifyArchive({ from: '2026-03-01', to: '2026-03-04' }, rekey)).findings.map(({ kind, key }) => [
    kind,
    key,
  ]);

describe('I22: the verifier', () => {
  test('finds nothing in days that were left alone', async () => {
    expect(await findings(await sealedDays())).toEqual([]);
  });

  test('finds that every seal is gone, one finding for each day that has records', async () => {
    const archive = await sealedDays();
    for (const key of archive.keys('seal/')) archive.objects.delete(key);
    expect(await findings(archive)).toEqual([
      ['SealMissing', 'seal/2026/03/01.json'],
      ['SealMissing', 'seal/2026/03/02.json'],
      ['SealMissing', 'seal/2026/03/04.json'],
    ]);
  });

  test('finds a seal that is chained past the day before it', async () => {
    const archive = await sealedDays();
    const last = 'seal/2026/03/04.json';
    const earlier = archive.objects.get('seal/2026/03/02.json') ?? '';
    const previous = { day: '2026-03-02', sha256: createHash('sha256').update(earlier).digest('hex') };
    // The last seal, so that no later one betrays the change by its digest.
    archive.objects.set(last, JSON.stringify({ ...JSON.parse(archive.objects.get(last) ?? ''), previous }));
    expect(await findings(archive)).toEqual([['LinkBroken', last]]);
  });
});
