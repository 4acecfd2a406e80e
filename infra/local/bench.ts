import { randomUUID } from 'node:crypto';
import { bundle } from '../bundle.ts';
import { signatureOf } from './providers/render-webhooks.ts';
import { startWorld } from './world.ts';

/**
 * How long a vendor waits for the answer to a webhook, over the local HTTP API and with the bundle that is deployed: in a process
 * that has to be started first, and in one that is warm. As ratios of one run, since the machine decides the rest; the vendor gives
 * up after 15 seconds (Render's webhook page).
 */
const vendorWaitsMs = 15_000;
const [coldCalls, warmCalls] = [30, 300];

const world = await startWorld();
try {
  const { directory } = await bundle();
  const { deployment, webhook, clock } = world;
  const deliver = async (): Promise<number> => {
    const id = `evt-${randomUUID().replaceAll('-', '').slice(0, 20)}`;
    const at = clock.now();
    // Of a service that is none of ours: it is published and recorded, and nobody has to look.
    const body = Buffer.from(
      JSON.stringify({
        type: 'deploy_ended',
        timestamp: at.toISOString(),
        data: { id, serviceId: 'srv-d0bench0bench0bench0' },
      }),
    );
    const timestamp = String(Math.floor(at.getTime() / 1000));
    const start = performance.now();
    const { status } = await fetch(deployment.webhookUrl, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'webhook-id': id,
        'webhook-timestamp': timestamp,
        'webhook-signature': signatureOf(webhook.secret, id, timestamp, body),
      },
      body,
    });
    if (status !== 200) throw new Error(`a webhook was answered with ${status}`);
    const took = performance.now() - start;
    // The records of the delivery are written meanwhile; they must not be in the way of the next one.
    await deployment.settled();
    return took;
  };
  const cold: number[] = [];
  for (let call = 0; call < coldCalls; call += 1) {
    // Another deployment: the next call is for a new process.
    deployment.lambda.swapDirectory('rekey-receive-webhook', directory);
    // The API lets five a second in.
    clock.move(1_000);
    cold.push(await deliver());
  }
  const warm: number[] = [];
  for (let call = 0; call < warmCalls; call += 1) {
    clock.move(1_000);
    warm.push(await deliver());
  }
  const at = (times: readonly number[], share: number): number =>
    times.toSorted((one, other) => one - other)[Math.ceil(times.length * share) - 1] ?? Number.NaN;
  const line = (name: string, times: readonly number[]): string =>
    `${name}  ${String(times.length).padStart(4)} calls  p50 ${at(times, 0.5).toFixed(1)} ms  p99 ${at(times, 0.99).toFixed(1)} ms  p99 is 1/${Math.floor(vendorWaitsMs / at(times, 0.99))} of what the vendor waits`;
  process.stdout.write(
    `${line('webhook, cold start', cold)}\n${line('webhook, warm      ', warm)}\ncold to warm, p50: ${(at(cold, 0.5) / at(warm, 0.5)).toFixed(1)}\n`,
  );
} finally {
  await world.stop();
}
