import { createHmac, createSecretKey, timingSafeEqual } from 'node:crypto';
import { Webhook } from 'standardwebhooks';
import { verify } from '../../functions/webhooks/signature.ts';

export interface VerificationBench {
  readonly bodyBytes: number;
  /** Medians, in microseconds a webhook. */
  readonly ourMicroseconds: number;
  readonly standardWebhooksMicroseconds: number;
  /** An HMAC of the same bytes, compared in constant time: no verification can be cheaper. */
  readonly hmacMicroseconds: number;
}

const rounds = 21;
const callsARound = 500;

/**
 * What it takes to verify a webhook, beside the reference library and beside the HMAC alone. They take turns, so that other work on the
 * machine hits all of them alike.
 */
export function measureVerification(bodyBytes = 1_024): VerificationBench {
  const keyBytes = Buffer.alloc(32, 7);
  const key = createSecretKey(keyBytes);
  const library = new Webhook(keyBytes.toString('base64'));
  const now = new Date();
  const id = 'evt-bench0bench0bench0';
  const timestamp = String(Math.floor(now.getTime() / 1000));
  const text = JSON.stringify({ type: 'deploy_ended', filling: 'x'.repeat(bodyBytes) }).slice(
    0,
    bodyBytes - 2,
  );
  const body = Buffer.from(`${text}"}`);
  const signed = `${id}.${timestamp}.`;
  const mac = (): Buffer => createHmac('sha256', key).update(signed).update(body).digest();
  const sent = mac();
  const headers = {
    'webhook-id': id,
    'webhook-timestamp': timestamp,
    'webhook-signature': `v1,${sent.toString('base64')}`,
  };
  const subjects = {
    ours: () => verify({ headers, body }, [key], now).say === 'verified',
    standardWebhooks: () => library.verify(body.toString('utf8'), headers) !== undefined,
    hmac: () => timingSafeEqual(mac(), sent),
  };
  const times = Object.entries(subjects).map(([name, use]) => ({ name, use, taken: [] as number[] }));
  for (let round = 0; round < rounds; round += 1)
    for (const { name, use, taken } of times) {
      const start = performance.now();
      for (let call = 0; call < callsARound; call += 1)
        if (!use()) throw new Error(`expected ${name} to verify the webhook`);
      taken.push(((performance.now() - start) * 1000) / callsARound);
    }
  const [ours = Number.NaN, standardWebhooks = Number.NaN, hmac = Number.NaN] = times.map(
    ({ taken }) => taken.toSorted((one, other) => one - other)[Math.floor(rounds / 2)] ?? Number.NaN,
  );
  return {
    bodyBytes,
    ourMicroseconds: ours,
    standardWebhooksMicroseconds: standardWebhooks,
    hmacMicroseconds: hmac,
  };
}
