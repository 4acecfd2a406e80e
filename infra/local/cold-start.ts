import { execFile } from 'node:child_process';
import { readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { build, type Metafile } from 'esbuild';
import { bundle, eagerFiles } from '../bundle.ts';

/** How one function starts. Times are medians over all starts. */
export interface ColdStart {
  readonly handler: string;
  /** The size and number of the files that are loaded before the first event. */
  readonly eagerBytes: number;
  readonly eagerFiles: number;
  readonly importMs: number;
  /** Of all threads. Other work on the machine makes the import longer, but hardly this. */
  readonly cpuMs: number;
}

/** The handler that only has a client of Secrets Manager. */
export const minimum = 'secrets-manager-client';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** What any of the functions reads from its environment when it is loaded. */
const environment = {
  AWS_REGION: 'eu-central-1',
  AWS_ACCESS_KEY_ID: 'local',
  AWS_SECRET_ACCESS_KEY: 'local',
  // Whatever a function sends while it is loaded is refused at once.
  AWS_ENDPOINT_URL: 'http://127.0.0.1:9',
  REKEY_EVENT_BUS_NAME: 'rekey',
  REKEY_ROTATION_FUNCTION_ARN: 'arn:aws:lambda:eu-central-1:123456789012:function:rekey-rotate-secret',
  REKEY_NOTE_TABLE_NAME: 'rekey',
  REKEY_TARGET_QUEUE_URL: 'https://sqs.eu-central-1.amazonaws.com/123456789012/rekey-targets',
  REKEY_URGENT_TARGET_QUEUE_URL: 'https://sqs.eu-central-1.amazonaws.com/123456789012/rekey-urgent-targets',
  REKEY_START_QUEUE_URL: 'https://sqs.eu-central-1.amazonaws.com/123456789012/rekey-starts.fifo',
  REKEY_LOST_REQUEST_QUEUE_URL: 'https://sqs.eu-central-1.amazonaws.com/123456789012/rekey-lost-requests',
  REKEY_WEBHOOK_BASE_URL: 'https://example.com/webhooks/',
  REKEY_AUDIT_BUCKET: 'rekey-audit',
};

const program = `
  const cpu = process.cpuUsage();
  const start = performance.now();
  await import(process.env.REKEY_BENCH_MODULE);
  const importMs = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  process.stdout.write(JSON.stringify({ importMs, cpuMs: (user + system) / 1000 }), () => process.exit());
`;

async function start(module: string): Promise<{ readonly importMs: number; readonly cpuMs: number }> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], {
    env: { ...environment, REKEY_BENCH_MODULE: pathToFileURL(module).href },
  });
  return JSON.parse(stdout);
}

/**
 * Loads every function, bundled as it is deployed, in new processes, and the minimum among them, as often as `starts` says. They
 * take turns, so that other work on the machine hits all of them alike; the minimum comes first in the answer.
 */
export async function measureColdStarts(starts: number): Promise<readonly ColdStart[]> {
  const directory = join(root, '.build/minimum');
  try {
    const { directory: bundles, metafile } = await bundle();
    const handlers = (await readdir(bundles)).sort();
    const subjects = [
      subject(minimum, join(directory, `${minimum}.mjs`), await bundleMinimum(directory)),
      ...handlers.map((handler) => subject(handler, join(bundles, handler, `${handler}.mjs`), metafile)),
    ];
    for (let turn = 0; turn < starts; turn += 1)
      for (const each of subjects) {
        const { importMs, cpuMs } = await start(each.module);
        each.importMs.push(importMs);
        each.cpuMs.push(cpuMs);
      }
    return subjects.map(({ module: _module, importMs, cpuMs, ...rest }) => ({
      ...rest,
      importMs: median(importMs),
      cpuMs: median(cpuMs),
    }));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function subject(handler: string, module: string, metafile: Metafile) {
  const eager = eagerFiles(metafile, basename(module));
  return {
    handler,
    module,
    eagerBytes: eager.reduce((sum, { bytes }) => sum + bytes, 0),
    eagerFiles: eager.length,
    importMs: [] as number[],
    cpuMs: [] as number[],
  };
}

/** As anybody would bundle it: nothing that bundle() does to get below this is in it. */
async function bundleMinimum(directory: string): Promise<Metafile> {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: [join(root, `infra/local/minimum/${minimum}.ts`)],
    outdir: directory,
    outExtension: { '.js': '.mjs' },
    chunkNames: 'chunk-[hash]',
    bundle: true,
    splitting: true,
    minify: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    mainFields: ['module', 'main'],
    metafile: true,
    logLevel: 'warning',
  });
  return metafile;
}

const median = (times: readonly number[]): number =>
  times.toSorted((one, other) => one - other)[Math.floor(times.length / 2)] ?? Number.NaN;
