import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type AuditEvent,
  auditRecord,
  canonicalJson,
  dayAfter,
  isLate,
  lastOverDay,
  parseAuditInvocation,
  providerEventOf,
  receivedKey,
  recordKey,
} from '../../functions/core/audit.ts';
import { InputError } from '../../functions/core/errors.ts';

const recordedAt = new Date('2026-03-01T12:00:02.345Z');
const secretArn = 'arn:aws:secretsmanager:eu-central-1:111122223333:secret:rekey/orders-api-a1B2c3';
const versionId = 'f3c1a2b4-0000-4000-8000-000000000002';
const canary = 'canary-Pa55word';

/** An event as a rule's target gets it. */
const busEvent = (type: string, detail: object, more: object = {}) => ({
  version: '0',
  id: '6a7e8feb-b491-4cf7-a9f1-bf3703467718',
  'detail-type': type,
  source: 'rekey',
  account: '111122223333',
  time: '2026-03-01T12:00:00Z',
  region: 'eu-central-1',
  resources: [],
  detail,
  ...more,
});

function eventOf(given: object): AuditEvent {
  const invocation = parseAuditInvocation(given);
  if (invocation.is !== 'event') throw new Error('expected an event');
  return invocation.event;
}

const recordOf = (given: object) => auditRecord(eventOf(given), recordedAt);

const facts = { credential: 'orders-api', provider: 'acme', target: 'db-1', strategy: 'replace-user' };
const rotation = { ...facts, secretArn, versionId };

describe('the record', () => {
  test('of a rotation says who, what, when, of what, how it was proved, and by which token', () => {
    expect(
      recordOf(busEvent('CredentialRotated', { ...rotation, username: 'orders_abc', evidence: 'logged-in' })),
    ).toEqual({
      version: 1,
      id: '6a7e8feb-b491-4cf7-a9f1-bf3703467718',
      who: { actor: 'rekey', useCase: 'rotate-secret', account: '111122223333', region: 'eu-central-1' },
      what: 'CredentialRotated',
      nature: 'outcome',
      happenedAt: '2026-03-01T12:00:00.000Z',
      recordedAt: '2026-03-01T12:00:02.345Z',
      credential: 'orders-api',
      provider: 'acme',
      target: 'db-1',
      strategy: 'replace-user',
      username: 'orders_abc',
      evidence: { login: 'logged-in' },
      correlation: { secretArn, versionId },
    });
  });

  test('of a label that moved names the secret, the label and the version', () => {
    expect(
      recordOf(
        busEvent(
          'Secret Label Updated',
          { name: 'rekey/orders-api', labelUpdated: 'AWSCURRENT', versionId },
          { source: 'aws.secretsmanager', resources: [secretArn] },
        ),
      ),
    ).toMatchObject({
      who: { actor: 'secretsmanager' },
      nature: 'fact',
      credential: 'orders-api',
      evidence: { label: 'AWSCURRENT' },
      correlation: { secretName: 'rekey/orders-api', secretArn, versionId },
    });
  });

  test('of a vendor’s event has the vendor’s own id and time', () => {
    const detail = {
      provider: 'acme',
      providerEventId: 'evt-1',
      providerEventType: 'users_created',
      happenedAt: '2026-03-01T11:59:58.979294509Z',
      target: 'db-1',
      isCaughtUp: true,
    };
    expect(recordOf(busEvent('ProviderEventReceived', detail))).toMatchObject({
      who: { actor: 'vendor', provider: 'acme' },
      nature: 'fact',
      provider: 'acme',
      target: 'db-1',
      evidence: {
        providerEventType: 'users_created',
        happenedAt: '2026-03-01T11:59:58.979294509Z',
        isCaughtUp: true,
      },
      correlation: { providerEventId: 'evt-1' },
    });
  });

  test('of an order that changes nothing says which order it was, and why', () => {
    const because = 'the credential was rotated after the order was sent';
    const detail = {
      order: 'CredentialRotationRequested',
      credential: 'orders-api',
      orderedAt: '2026-03-01T11:00:00Z',
      because,
    };
    expect(recordOf(busEvent('OrderIgnored', detail))).toMatchObject({
      who: { actor: 'rekey' },
      nature: 'outcome',
      credential: 'orders-api',
      evidence: { order: 'CredentialRotationRequested', orderedAt: '2026-03-01T11:00:00Z', because },
    });
    const ofTarget = {
      order: 'RekeyResumed',
      provider: 'acme-postgres',
      target: 'db-1',
      orderedAt: '2026-03-01T11:00:00Z',
      because: 'nothing is paused there',
    };
    expect(recordOf(busEvent('OrderIgnored', ofTarget))).toMatchObject({
      provider: 'acme-postgres',
      target: 'db-1',
      evidence: { order: 'RekeyResumed' },
    });
  });

  test.each(['DatabaseUserAppeared', 'DatabaseUserDisappeared'])(
    'of a user that comes or goes says whose it is and which event of the vendor it was (%s)',
    (type) => {
      const detail = {
        provider: 'acme-postgres',
        target: 'db-1',
        username: 'orders_abc',
        standing: 'expected',
        credential: 'orders-api',
        versionId,
        providerEventId: 'evt-1',
      };
      expect(recordOf(busEvent(type, detail))).toMatchObject({
        who: { actor: 'rekey', useCase: 'reconcile-users' },
        nature: 'fact',
        provider: 'acme-postgres',
        target: 'db-1',
        username: 'orders_abc',
        credential: 'orders-api',
        evidence: { standing: 'expected' },
        correlation: { providerEventId: 'evt-1', versionId },
      });
      const missed = { provider: 'acme', target: 'db-1', username: 'Ünïcödé {{x}}', standing: 'foreign' };
      expect(recordOf(busEvent(type, { ...missed, isCaughtUp: true }))).toMatchObject({
        username: 'Ünïcödé {{x}}',
        evidence: { standing: 'foreign', isCaughtUp: true },
        correlation: {},
      });
    },
  );

  test('of a retirement has the reason and how it was known that nobody is connected', () => {
    const detail = {
      ...facts,
      username: 'orders_abc',
      reason: 'superseded',
      evidence: { drain: 'not-observed', because: 'the vendor cannot tell' },
    };
    expect(recordOf(busEvent('DatabaseUserRetired', detail))).toMatchObject({
      nature: 'intent',
      evidence: { reason: 'superseded', drain: 'not-observed', because: 'the vendor cannot tell' },
    });
  });

  test('of a deletion has what came of the connections, where that is known', () => {
    const detail = { ...facts, username: 'orders_abc', reason: 'revoked', outcome: 'deleted' };
    const evidence = { drain: 'connections-not-ended', because: 'only an administrator may' };
    expect(recordOf(busEvent('DatabaseUserDeleted', { ...detail, evidence })).evidence).toEqual({
      reason: 'revoked',
      outcome: 'deleted',
      drain: 'connections-not-ended',
      because: 'only an administrator may',
    });
    expect(recordOf(busEvent('DatabaseUserDeleted', detail)).evidence).toEqual({
      reason: 'revoked',
      outcome: 'deleted',
    });
  });

  test.each([
    ['DatabaseUserPlanned', 'intent'],
    ['DatabaseUserCreated', 'outcome'],
    ['DatabaseUserPasswordChanged', 'outcome'],
  ])('of a user that is made or changed says who did it (%s)', (type, nature) => {
    const detail = { ...facts, secretArn, username: 'orders_abc' };
    expect(recordOf(busEvent(type, { ...detail, versionId }))).toMatchObject({
      nature,
      who: { useCase: 'rotate-secret' },
    });
    // One that only stands in as the default.
    expect(recordOf(busEvent(type, detail)).who).toMatchObject({ useCase: 'delete-user' });
    expect(recordOf(busEvent(type, { ...detail, versionId, repair: 'apply-privileges' }))).toMatchObject({
      who: { useCase: 'reconcile-users' },
      evidence: { repair: 'apply-privileges' },
      correlation: { versionId },
    });
  });

  test.each([
    ['DatabaseSessionsEndPlanned', 'intent', { openedBefore: '2026-03-01T11:00:00.000Z' }],
    [
      'DatabaseSessionsEnded',
      'outcome',
      { openedBefore: '2026-03-01T11:00:00.000Z', outcome: 'not-ended', because: 'it may not' },
    ],
    ['ConsumerUpdatePlanned', 'intent', { consumer: 'event-bridge orders' }],
    ['ConsumerUpdated', 'outcome', { consumer: 'event-bridge orders', outcome: 'told' }],
    [
      'DriftRepairFailed',
      'outcome',
      { kind: 'PrivilegeDrift', details: 'd', repair: 'apply-privileges', code: 'C', effect: 'none' },
    ],
  ])('of a change beside users is whole (%s)', (type, nature, evidence) => {
    const record = recordOf(busEvent(type, { ...rotation, username: 'orders_abc', ...evidence }));
    expect(record).toMatchObject({ nature, who: { actor: 'rekey' }, credential: 'orders-api' });
    expect(record.evidence).toEqual(evidence);
  });

  test('of a request has of its spec only name, provider and strategy, and does not know who asked', () => {
    const spec = { name: 'orders-api', provider: 'acme', strategy: 'replace-user', password: canary };
    const record = recordOf(busEvent('CredentialRequested', { spec }));
    expect(record).toMatchObject({
      who: { actor: 'unknown' },
      nature: 'intent',
      credential: 'orders-api',
      provider: 'acme',
      strategy: 'replace-user',
      evidence: {},
    });
    expect(canonicalJson(record)).not.toContain(canary);
  });

  test('of an event that is not as its type says names what is wrong, and none of its values', () => {
    const record = recordOf(busEvent('CredentialRotated', { ...rotation, versionId: canary, username: 7 }));
    expect(record).toMatchObject({ what: 'CredentialRotated', nature: 'fact', who: { actor: 'unknown' } });
    expect(record.evidence['unreadable']).toMatch(/versionId: .*username: /);
    expect(canonicalJson(record)).not.toContain(canary);
  });

  test.each(['SomethingHappened', 'Secret Label Updated', 'toString', '__proto__'])(
    'of the type %s, which rekey has not, is kept as an event that nobody can read',
    (type) => {
      expect(recordOf(busEvent(type, { name: 'rekey/x', labelUpdated: 'l', versionId }))).toMatchObject({
        what: type,
        who: { actor: 'unknown' },
        evidence: { unreadable: 'no such type is known' },
      });
    },
  );

  test('never holds a field that its type does not name, whatever the event', () => {
    const types = [
      'CredentialRequested',
      'CredentialCompromised',
      'CredentialCreated',
      'CredentialRotated',
      'CredentialRotationFailed',
      'CredentialDeleted',
      'DatabaseUserPlanned',
      'DatabaseUserCreated',
      'DatabaseUserPasswordChanged',
      'DatabaseUserRetired',
      'DatabaseUserDeleted',
      'DatabaseSessionsEndPlanned',
      'DatabaseSessionsEnded',
      'ConsumerUpdatePlanned',
      'ConsumerUpdated',
      'ProviderEventReceived',
      'DatabaseUserAppeared',
      'DatabaseUserDisappeared',
      'DriftFound',
      'DriftRepaired',
      'DriftRepairFailed',
      'BreakerChanged',
      'OrderIgnored',
      'NoSuchType',
    ];
    const known = {
      ...rotation,
      username: 'orders_abc',
      reason: 'superseded',
      evidence: 'logged-in',
      consumer: 'c',
      openedBefore: 'o',
      outcome: 'moved',
      providerEventId: 'evt-1',
      providerEventType: 't',
      kind: 'ForeignUser',
      standing: 'foreign',
      details: 'd',
      state: 'opened',
      failures: 1,
      step: 'setSecret',
      code: 'C',
      effect: 'none',
      order: 'RekeyResumed',
      orderedAt: '2026-03-01T11:59:00Z',
      because: 'b',
    };
    fc.assert(
      fc.property(
        fc.constantFrom(...types),
        fc.dictionary(
          fc.string({ minLength: 1 }).filter((name) => !Object.hasOwn(known, name)),
          fc.constantFrom<unknown>(canary, { password: canary }, [canary]),
        ),
        (type, more) => {
          const evidence = { drain: 'nobody-connected-twice', password: canary };
          for (const detail of [{ ...more, ...known }, { ...more, ...known, evidence }, more])
            expect(canonicalJson(recordOf(busEvent(type, detail)))).not.toContain(canary);
        },
      ),
    );
  });

  test('is the same for a replay: its archive’s name is left out', () => {
    const event = busEvent('CredentialCompromised', { credential: 'orders-api' });
    expect(recordOf({ ...event, 'replay-name': canary })).toEqual(recordOf(event));
  });
});

describe('what is no event of ours', () => {
  const cases: Record<string, object> = {
    'of another source': busEvent('CredentialCreated', facts, { source: 'aws.s3' }),
    'of Secrets Manager, but no label': busEvent(
      'AWS API Call via CloudTrail',
      {},
      {
        source: 'aws.secretsmanager',
      },
    ),
    'about a secret of others': busEvent(
      'Secret Label Updated',
      { name: 'payroll', labelUpdated: 'AWSCURRENT', versionId },
      { source: 'aws.secretsmanager' },
    ),
    'with an id that would lead elsewhere': busEvent('CredentialCreated', facts, { id: '../seal/x' }),
    'without a time': busEvent('CredentialCreated', facts, { time: 'today' }),
  };
  test.each(Object.entries(cases))('%s is refused, without its values', (_title, given) => {
    expect(() => parseAuditInvocation(given)).toThrow(InputError);
    expect(() => parseAuditInvocation(given)).toThrow(/^EVENT_INVALID: /);
  });

  test.each([undefined, null, 'scheduled', {}, { pass: 'sometimes' }, { Records: [] }])(
    '%j is refused',
    (given) => {
      expect(() => parseAuditInvocation(given)).toThrow(/^EVENT_INVALID: /);
    },
  );

  test('a pass of the schedule is one', () => {
    expect(parseAuditInvocation({ pass: 'scheduled' })).toEqual({ is: 'pass', dryRun: false });
  });
});

describe('the key', () => {
  test('of a record is the day of the event, in UTC, and its id', () => {
    const event = eventOf(busEvent('CredentialCreated', facts, { time: '2026-03-01T00:30:00+01:00' }));
    expect(recordKey(event)).toBe('audit/2026/02/28/6a7e8feb-b491-4cf7-a9f1-bf3703467718.json');
  });

  test('of a vendor’s event is its provider and id, whatever that is made of', () => {
    const sha256 = (text: string) => createHash('sha256').update(text).digest();
    const event = eventOf(
      busEvent('ProviderEventReceived', {
        provider: 'acme',
        providerEventId: '../evt 1',
        providerEventType: 't',
      }),
    );
    const told = providerEventOf(event);
    expect(told).toMatchObject({ provider: 'acme', providerEventId: '../evt 1' });
    expect(receivedKey({ provider: 'acme', providerEventId: 'abc' }, sha256)).toBe(
      'received/acme/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.json',
    );
    expect(providerEventOf(eventOf(busEvent('CredentialCreated', facts)))).toBeUndefined();
  });
});

describe('canonical JSON', () => {
  test('has names in order, no spaces, and only ASCII', () => {
    expect(canonicalJson({ b: [2, { d: 'ä\u{1f511}', c: null }], a: undefined, A: true })).toBe(
      '{"A":true,"b":[2,{"c":null,"d":"\\u00e4\\ud83d\\udd11"}]}',
    );
  });

  test('is the same for the same value however it was put together, reads back as it, and is ASCII', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const document = canonicalJson(value);
        expect(JSON.parse(document)).toEqual(JSON.parse(JSON.stringify(value)));
        expect(canonicalJson(JSON.parse(document))).toBe(document);
        expect(document).toMatch(/^[\x20-\x7e]*$/);
      }),
    );
  });
});

describe('a day', () => {
  test('is followed by the next over the ends of months and years', () => {
    expect(['2026-02-28', '2028-02-28', '2026-12-31'].map((day) => dayAfter(day))).toEqual([
      '2026-03-01',
      '2028-02-29',
      '2027-01-01',
    ]);
  });

  test('may be sealed from three hours after its end', () => {
    expect(lastOverDay(new Date('2026-03-02T02:59:59.999Z'))).toBe('2026-02-28');
    expect(lastOverDay(new Date('2026-03-02T03:00:00Z'))).toBe('2026-03-01');
  });

  test('takes records without a note until two hours after its end', () => {
    const key = 'audit/2026/03/01/6a7e8feb.json';
    expect(isLate(key, new Date('2026-03-02T01:59:59.999Z'))).toBe(false);
    expect(isLate(key, new Date('2026-03-02T02:00:00Z'))).toBe(true);
  });
});
