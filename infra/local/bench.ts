import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { bundle } from '../bundle.ts';
import { measureColdStarts, minimum } from './cold-start.ts';
import { type FleetBench, fleetTable, measureFleet } from './fleet/bench.ts';
import { signatureOf } from './providers/render-webhooks.ts';
import { measureVerification } from './verification.ts';
import { startWorld } from './world.ts';

interface Measured {
  /** For people. */
  readonly text: string;
  /** For programs. */
  readonly figures: unknown;
}

/**
 * `npm run bench` measures all of it, `npm run bench fleet` one section. With `-- --json` behind it, it prints one document instead of
 * tables.
 */
const sections: Readonly<Record<string, () => Promise<Measured>>> = {
  cold,
  webhook,
  verification,
  fleet,
};
const isJson = process.argv.includes('--json');
const wanted = process.argv.slice(2).filter((argument) => argument !== '--json');
const unknown = wanted.filter((name) => !(name in sections));
if (unknown.length > 0)
  throw new Error(
    `expected some of ${Object.keys(sections).join(', ')} and --json, got ${unknown.join(', ')}`,
  );
const figures: Record<string, unknown> = {};
for (const [name, measure] of Object.entries(sections)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const measured = await measure();
  figures[name] = measured.figures;
  if (!isJson) process.stdout.write(`${measured.text}\n`);
}
if (isJson) process.stdout.write(`${JSON.stringify(figures, undefined, 2)}\n`);

/** How long it takes to verify a webhook. */
async function verification(): Promise<Measured> {
  const figures = measureVerification();
  const { bodyBytes, ourMicroseconds: ours, standardWebhooksMicroseconds, hmacMicroseconds } = figures;
  const line = (name: string, microseconds: number): string =>
    `${name.padEnd(24)}${microseconds.toFixed(1).padStart(9)} µs${(microseconds / hmacMicroseconds).toFixed(2).padStart(9)}`;
  return {
    text: [
      `verification of a webhook of ${bodyBytes} bytes, as a multiple of the HMAC alone`,
      line('HMAC-SHA-256', hmacMicroseconds),
      line('rekey', ours),
      line('standardwebhooks', standardWebhooksMicroseconds),
    ].join('\n'),
    figures,
  };
}

/** What passes, orders and an emergency cost: on a virtual clock, so that the machine decides nothing but how long it takes. */
async function fleet(): Promise<Measured> {
  const fleets: FleetBench[] = [];
  for (const credentials of [100, 1_000, 10_000]) fleets.push(await measureFleet(credentials));
  return { text: fleetTable(fleets), figures: fleets };
}

/**
 * How long each function takes to be loaded, as a multiple of what a handler takes that only has a client of Secrets Manager: the
 * machine decides the rest.
 */
async function cold(): Promise<Measured> {
  const starts = await measureColdStarts(25);
  const least = starts.find(({ handler }) => handler === minimum);
  if (least === undefined) throw new Error(`expected a measurement of ${minimum}`);
  const row = (...cells: readonly string[]): string =>
    cells.map((cell, index) => (index === 0 ? cell.padEnd(24) : cell.padStart(9))).join('');
  const rows = starts.map(({ handler, eagerBytes, eagerFiles, importMs, cpuMs }) =>
    row(
      handler,
      (eagerBytes / 1024).toFixed(1),
      String(eagerFiles),
      importMs.toFixed(1),
      (importMs / least.importMs).toFixed(2),
      cpuMs.toFixed(1),
      (cpuMs / least.cpuMs).toFixed(2),
    ),
  );
  return {
    text: [row('cold start', 'KiB', 'files', 'ms', 'ratio', 'CPU ms', 'ratio'), ...rows].join('\n'),
    figures: starts,
  };
}

/**
 * How long a vendor waits for the answer to a webhook, over the local HTTP API and with the bundle that is deployed: in a process
 * that has to be started first, and in one that is warm. As ratios of one run, since the machine decides the rest; the vendor gives
 * up after 15 seconds (Render's webhook page).
 */
async function webhook(): Promise<Measured> {
  const vendorWaitsMs = 15_000;
  const [coldCalls, warmCalls] = [30, 300];

  const world = await startWorld();
  try {
    const { directory } = await bundle();
    const { deployment, webhook: endpoint, clock } = world;
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
          'webhook-signature': signatureOf(endpoint.secret, id, timestamp, body),
        },
        body,
      });
      if (status !== 200) throw new Error(`a webhook was answered with ${status}`);
      const took = performance.now() - start;
      // The records of the delivery are written meanwhile; they must not be in the way of the next one.
      await deployment.settled();
      return took;
    };
    const coldTimes: number[] = [];
    for (let call = 0; call < coldCalls; call += 1) {
      // Another deployment: the next call is for a new process.
      deployment.lambda.swapDirectory('rekey-receive-webhook', join(directory, 'receive-webhook'));
      // The API lets five a second in.
      clock.move(1_000);
      coldTimes.push(await deliver());
    }
    const warmTimes: number[] = [];
    for (let call = 0; call < warmCalls; call += 1) {
      clock.move(1_000);
      warmTimes.push(await deliver());
    }
    const at = (times: readonly number[], share: number): number =>
      times.toSorted((one, other) => one - other)[Math.ceil(times.length * share) - 1] ?? Number.NaN;
    const line = (name: string, times: readonly number[]): string =>
      `${name}  ${String(times.length).padStart(4)} calls  p50 ${at(times, 0.5).toFixed(1)} ms  p99 ${at(times, 0.99).toFixed(1)} ms  p99 is 1/${Math.floor(vendorWaitsMs / at(times, 0.99))} of what the vendor waits`;
    const coldToWarm = at(coldTimes, 0.5) / at(warmTimes, 0.5);
    const figuresOf = (times: readonly number[]) => ({
      calls: times.length,
      p50Ms: at(times, 0.5),
      p99Ms: at(times, 0.99),
      p99OfVendorWait: at(times, 0.99) / vendorWaitsMs,
    });
    return {
      text: [
        line('webhook, cold start', coldTimes),
        line('webhook, warm      ', warmTimes),
        `cold to warm, p50: ${coldToWarm.toFixed(1)}`,
      ].join('\n'),
      figures: { cold: figuresOf(coldTimes), warm: figuresOf(warmTimes), coldToWarm },
    };
  } finally {
    await world.stop();
  }
}
