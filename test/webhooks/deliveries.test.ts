import { createHash, createHmac } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { S3Client } from '@aws-sdk/client-s3';
import { expect, onTestFinished, test } from 'vitest';
import { auditArchive } from '../../functions/aws/archive.ts';
import { eventBridge } from '../../functions/aws/bus.ts';
import { parseAuditInvocation } from '../../functions/core/audit.ts';
import { StoreError } from '../../functions/core/errors.ts';
import type { MetricName } from '../../functions/core/metrics.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { Sensitive, spellings } from '../../functions/core/sensitive.ts';
import { parseWebhookRequest } from '../../functions/core/webhook.ts';
import { webhookReceiver } from '../../functions/lifecycle/receive-webhook.ts';
import { recordAudit } from '../../functions/lifecycle/record-audit.ts';
import { sealAudit } from '../../functions/lifecycle/seal-audit.ts';
import { verifyArchive } from '../../functions/lifecycle/verify-archive.ts';
import { loadWebhook } from '../../functions/webhooks/index.ts';
import { startAwsEndpoint } from '../../infra/local/aws/endpoint.ts';
import { createEventBridge } from '../../infra/local/aws/event-bridge.ts';
import { clientOf } from '../../infra/local/aws/in-process-client.ts';
import { createS3 } from '../../infra/local/aws/s3.ts';

const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const otherSecret = 'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz';
const day = '2026-07-15';
const bucket = 'rekey-audit';

/** A sequence of numbers that is the same in each run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
const idOf = (number: number): string => `evt-${String(number).padStart(20, '0')}`;

/** A clock that stands but for waits, which take no time. */
function createClock() {
  let now = new Date(`${day}T06:00:00Z`);
  const move = (ms: number): void => {
    now = new Date(now.getTime() + ms);
  };
  return { now: () => now, move, sleep: async (ms: number) => move(ms) };
}

interface Sent {
  readonly id: string;
  readonly at: Date;
  readonly secret?: string;
  readonly body?: string | Uint8Array;
  readonly base64?: boolean;
}
/** What the HTTP API makes of a delivery. */
function delivery({ id, at, base64 = false, ...given }: Sent) {
  const body = Buffer.from(
    given.body ??
      JSON.stringify({
        type: 'postgres_credentials_created',
        timestamp: at.toISOString(),
        data: { id, serviceId: 'dpg-d7sg9ln7f7vs73d9bg5g-a' },
      }),
  );
  const timestamp = String(Math.floor(at.getTime() / 1000));
  const key = Buffer.from((given.secret ?? secret).replace('whsec_', ''), 'base64');
  const mac = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64');
  return {
    version: '2.0',
    routeKey: 'POST /webhooks/render',
    headers: { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${mac}` },
    body: body.toString(base64 ? 'base64' : 'utf8'),
    isBase64Encoded: base64,
  };
}

/** A Rekey that has these ports, and notes each that is asked for. */
function rekeyOf(ports: Partial<Ports>, logged: string[] = []) {
  const asked = new Set<string>();
  const measured: Partial<Record<MetricName, number>> = {};
  const rekey = {
    ports: new Proxy(ports as Ports, {
      get(target, name: keyof Ports) {
        asked.add(name);
        return target[name];
      },
    }),
    loadProvider: async () => expect.unreachable('nothing here has any business with a provider'),
    loadConsumer: async () => expect.unreachable('nothing here has any business with a consumer'),
    loadWebhook,
    sha256: (text: string) => createHash('sha256').update(text).digest(),
    log: (level: string, message: string, fields = {}) =>
      void logged.push(`${level} ${message} ${JSON.stringify(fields)}`),
    measure: (metric: MetricName, value: number) => {
      measured[metric] = (measured[metric] ?? 0) + value;
    },
  };
  return { rekey, asked, measured, logged };
}

test('of ten thousand deliveries each distinct genuine event has one record, and the rest none, whatever is out of reach meanwhile', async () => {
  const pick = numbers(11);
  const clock = createClock();
  let isTrouble = true;
  const comes = (inHundred: number): boolean => isTrouble && pick(100) < inHundred;

  const s3 = createS3({
    buckets: [{ name: bucket, objectLock: { mode: 'COMPLIANCE', days: 365 } }],
    clock,
    onCall: () => (comes(3) ? { fault: pick(2) === 0 ? 'internal' : 'reset-after' } : undefined),
  });
  const endpoint = await startAwsEndpoint({ services: [], otherwise: s3.serve });
  const client = new S3Client({
    endpoint: endpoint.url,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'AKIDTEST', secretAccessKey: 'not-a-key' },
    maxAttempts: 1,
  });
  onTestFinished(async () => {
    client.destroy();
    await endpoint.close();
  });

  const recorder = rekeyOf({
    ...auditArchive(client, bucket, clock),
    now: async () => clock.now(),
  });
  const bus = createEventBridge({
    account: '123456789012',
    region: 'eu-central-1',
    clock,
    buses: ['rekey'],
    retryDelayMs: () => 1_000,
    disturb: () => {
      if (comes(2)) return { do: 'fail', errorCode: 'AccessDeniedException', errorMessage: 'not now' };
      if (comes(3)) return { do: 'duplicate' };
      return comes(3) ? { do: 'reorder' } : undefined;
    },
    async deliver(_arn, event) {
      const invocation = parseAuditInvocation(event);
      if (invocation.is !== 'event') return { ok: false, error: 'it is no event' };
      await recordAudit(invocation.event, recorder.rekey);
      return { ok: true };
    },
  });
  bus.addRule({
    name: 'audit',
    busName: 'rekey',
    pattern: { source: ['rekey'] },
    targets: [{ arn: 'record-audit' }],
  });

  const receiver = rekeyOf({
    now: async () => clock.now(),
    publish: eventBridge(clientOf(bus), 'rekey', clock),
    readSecret: async () => {
      if (comes(20)) throw new StoreError('STORE_UNAVAILABLE', 'none', 'GetSecretValue failed');
      return { versionId: 'version-1', value: new Sensitive(`${otherSecret}\n${secret}`) };
    },
  });
  const receive = webhookReceiver();
  const send = async (event: object): Promise<number> =>
    (await receive(parseWebhookRequest(event), receiver.rekey)).statusCode;

  const forged = 'whsec_Zm9yZ2VkZm9yZ2VkZm9yZ2VkZm9yZ2Vk';
  const genuine = Array.from({ length: 1_200 }, (_, index) => idOf(index));
  /** What the vendor has still to send, some of it again and again, and out of order; what is not taken comes back. */
  const queue = genuine.flatMap((id) => Array.from({ length: 1 + pick(2) }, () => id));
  for (let at = queue.length - 1; at > 0; at -= 1) {
    const other = pick(at + 1);
    [queue[at], queue[other]] = [queue[other] ?? '', queue[at] ?? ''];
  }
  const junk: readonly (() => object)[] = [
    () => delivery({ id: idOf(50_000 + pick(1_000)), at: clock.now(), secret: forged }),
    () => delivery({ id: idOf(pick(1_200)), at: clock.now(), secret: forged }),
    () => delivery({ id: idOf(pick(1_200)), at: new Date(clock.now().getTime() - 302_000) }),
    () => delivery({ id: idOf(50_000), at: clock.now(), body: Uint8Array.of(0x7b, 0xff), base64: true }),
    () => ({ ...delivery({ id: idOf(50_000), at: clock.now() }), body: '{}' }),
    () => ({ ...delivery({ id: idOf(50_000), at: clock.now() }), headers: {} }),
  ];
  const answers: Record<string, number> = {};
  for (let sent = 0; sent < 10_000; sent += 1) {
    clock.move(pick(4_000));
    // The vendor gets through in the end; so does everybody else.
    if (sent === 9_500) isTrouble = false;
    const isTurn = queue.length >= 10_000 - sent || pick(10_000 - sent) < queue.length * 2;
    const id = isTurn ? queue.pop() : undefined;
    const event =
      id === undefined
        ? (junk[pick(junk.length)]?.() ?? {})
        : delivery({ id, at: new Date(clock.now().getTime() - pick(300) * 1_000), base64: pick(2) === 0 });
    const status = await send(event);
    const kind = `${id === undefined ? 'forged' : 'genuine'} ${status}`;
    answers[kind] = (answers[kind] ?? 0) + 1;
    if (id !== undefined && status === 503) queue.splice(pick(queue.length + 1), 0, id);
    // A forgery while no secret is known is not told from anything else; its sender may come again.
    expect(kind).not.toBe('forged 200');
    expect(kind).not.toBe('genuine 401');
    if (sent % 50 === 0) await bus.idle();
  }
  isTrouble = false;
  expect(queue).toEqual([]);
  await bus.idle();
  expect(answers['genuine 503']).toBeGreaterThan(20);
  expect(answers['forged 401']).toBeGreaterThan(5_000);
  expect(bus.lost()).toEqual([]);

  const keys = s3.keys(bucket);
  const records = keys.filter((key) => key.startsWith('audit/'));
  const held = records.map((key) => JSON.parse(s3.versions(bucket, key)[0]?.body?.toString() ?? ''));
  expect(held.map(({ correlation }) => correlation.providerEventId).toSorted()).toEqual(genuine);
  expect(new Set(held.map(({ what }) => what))).toEqual(new Set(['ProviderEventReceived']));
  expect(keys.filter((key) => !key.startsWith('audit/')).every((key) => key.startsWith('received/'))).toBe(
    true,
  );
  // Written once: what came again, and what was tried again, changed nothing.
  expect(keys.filter((key) => s3.versions(bucket, key).length !== 1)).toEqual([]);

  // Nobody asked for a provider, a queue, or any secret but the one.
  expect([...receiver.asked].toSorted()).toEqual(['now', 'publish', 'readSecret']);
  expect([...recorder.asked].toSorted()).toEqual(['archive', 'now', 'readArchive']);
  const said = [...receiver.logged, ...recorder.logged, JSON.stringify(held)].join('\n');
  for (const key of [secret, otherSecret].map((each) => each.slice('whsec_'.length)))
    expect(spellings(key).filter((spelling) => said.includes(spelling))).toEqual([]);

  clock.move(86_400_000);
  const { sealed } = await sealAudit({ dryRun: false }, new Date('2027-01-01T00:00:00Z'), recorder.rekey);
  expect(sealed.reduce((sum, { count = 0 }) => sum + count, 0)).toBe(1_200);
  const last = sealed.at(-1)?.day ?? '';
  expect(await verifyArchive({ from: day, to: last }, recorder.rekey)).toMatchObject({
    findings: [],
    records: 1_200,
  });
}, 300_000);

test('ten thousand deliveries leave nothing in memory, at the receiver and at the recorder', async () => {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  const clock = createClock();
  const { rekey, measured } = rekeyOf({
    now: async () => clock.now(),
    readSecret: async () => ({ versionId: 'version-1', value: new Sensitive(secret) }),
    publish: async ([event]) => {
      const invocation = parseAuditInvocation({
        id: '6a7e8feb-b491-4cf7-a9f1-bf3703467718',
        'detail-type': event?.type,
        source: 'rekey',
        account: '111122223333',
        region: 'eu-central-1',
        time: clock.now().toISOString(),
        detail: event?.detail,
      });
      if (invocation.is === 'event') await recordAudit(invocation.event, rekey);
    },
    archive: async () => 'written',
  });
  const quiet = { ...rekey, log: () => undefined };
  const receive = webhookReceiver();
  /** So many deliveries, half of them forged, each of another event. Answers what the heap holds afterwards. */
  async function round(from: number, count: number): Promise<number> {
    for (let sent = from; sent < from + count; sent += 1) {
      clock.move(10);
      const forged = sent % 2 === 0 ? { secret: otherSecret } : {};
      const event = delivery({ id: idOf(sent), at: clock.now(), ...forged });
      expect((await receive(parseWebhookRequest(event), quiet)).statusCode).toBe(sent % 2 === 0 ? 401 : 200);
    }
    // What waits for the loop to turn is no leak.
    await new Promise(setImmediate);
    collect();
    collect();
    return process.memoryUsage().heapUsed;
  }
  rekey.log = () => undefined;
  await round(0, 2_000);
  const before = await round(2_000, 2_000);
  const after = await round(4_000, 6_000);
  expect(measured).toEqual({ WebhooksRejected: 5_000 });
  // A kept id alone would be some hundred bytes a delivery.
  expect((after - before) / 6_000).toBeLessThan(40);
}, 120_000);
