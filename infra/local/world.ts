import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { z } from 'zod';
import type { OnCall } from './aws/endpoint.ts';
import type { Variants } from './aws/secrets-manager/model.ts';
import { type Clock, systemClock } from './clock.ts';
import { type Deployment, startDeployment } from './deployment.ts';
import type { FunctionLogLine } from './lambda.ts';
import { addCockroachdbOrders, addRenderOrders } from './providers/fixtures.ts';
import { startVendors, type Vendors } from './vendors.ts';

/** Everything on this machine: the vendors with their engines, and the stack deployed against them. */
export interface World {
  readonly vendors: Vendors;
  readonly deployment: Deployment;
  /** The specs that the template declares, as they stand in Parameter Store. */
  readonly specs: readonly Spec[];
  readonly apiKeys: { readonly render: string; readonly cockroachdb: string };
  /** A file with the CA that clients must trust, in PEM. */
  readonly caFile: string;
  /** Afterwards no process, no socket and no file of the world is left. May be called again. */
  stop(): Promise<void>;
}

export interface WorldOptions {
  /** Hears of each part as it stands. */
  readonly onProgress?: (message: string) => void;
  readonly log?: (line: FunctionLogLine) => void;
  readonly clock?: Clock;
  readonly onCall?: OnCall;
  readonly variants?: Partial<Variants>;
}

const root = fileURLToPath(new URL('../..', import.meta.url));

const specSchema = z.object({
  name: z.string(),
  provider: z.string(),
  target: z.record(z.string(), z.string()),
  apiKeySecret: z.string(),
  strategy: z.string(),
  privileges: z.object({ roles: z.array(z.string()).default([]) }),
});
/** What a run needs to know of a spec, beside the whole of it. */
export type Spec = z.output<typeof specSchema> & { readonly document: Readonly<Record<string, unknown>> };

/** Boots all of it, the parts that do not need each other side by side. */
export async function startWorld(options: WorldOptions = {}): Promise<World> {
  const { clock = systemClock, onProgress = () => undefined, log = () => undefined } = options;
  const directory = await mkdtemp(join(tmpdir(), 'rekey-'));
  // Started as root, the engines run as somebody else, who has to get to their files below.
  await chmod(directory, 0o711);
  const apiKeys = {
    render: `rnd_${randomBytes(24).toString('base64url')}`,
    cockroachdb: `CCDB1_${randomBytes(24).toString('base64url')}`,
  };
  const stops: (() => Promise<void>)[] = [() => rm(directory, { recursive: true, force: true })];
  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopping ??= (async () => {
      for (const end of stops.toReversed()) await end();
    })();
    return stopping;
  };
  try {
    const [vendors, template] = await settledTogether([
      startVendors({ directory, clock, apiKeys }).then((started) => {
        stops.push(() => started.stop());
        onProgress(
          'Render and CockroachDB Cloud answer under their own names, with a PostgreSQL engine each',
        );
        return started;
      }),
      synthesize(directory).then((path) => {
        onProgress('the stack is synthesized and its functions are bundled');
        return path;
      }),
    ]);
    const caFile = join(directory, 'ca.pem');
    await writeFile(caFile, vendors.network.caPem);
    const specs = await specsIn(template);
    await prepareTargets(vendors, specs);
    const deployment = await startDeployment({
      template,
      clock,
      egress: { proxyUrl: vendors.network.proxyUrl, caFile },
      secrets: Object.fromEntries(
        specs.map(({ provider, apiKeySecret }) => [apiKeySecret, keyOf(provider, apiKeys)]),
      ),
      log,
      ...(options.onCall === undefined ? {} : { onCall: options.onCall }),
      ...(options.variants === undefined ? {} : { variants: options.variants }),
    });
    stops.push(() => deployment.stop());
    onProgress(`${specs.length} credentials are deployed; none has a user yet`);
    return { vendors, deployment, specs, apiKeys, caFile, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** All results, or the first failure, but not before every one has ended: what a late one started has to be stopped. */
async function settledTogether<A, B>(work: readonly [Promise<A>, Promise<B>]): Promise<[A, B]> {
  await Promise.allSettled(work);
  return Promise.all(work);
}

/** Runs the CDK app as its command line would, without it: half the time. Answers the path of the template. */
async function synthesize(directory: string): Promise<string> {
  const output = join(directory, 'cdk.out');
  const { context } = z
    .object({ context: z.record(z.string(), z.unknown()) })
    .parse(JSON.parse(await readFile(join(root, 'cdk.json'), 'utf8')));
  await promisify(execFile)(process.execPath, ['infra/app.ts'], {
    cwd: root,
    env: { ...process.env, CDK_OUTDIR: output, CDK_CONTEXT_JSON: JSON.stringify(context) },
  });
  return join(output, 'Rekey.template.json');
}

async function specsIn(template: string): Promise<readonly Spec[]> {
  const { Resources } = z
    .object({ Resources: z.record(z.string(), z.object({ Type: z.string(), Properties: z.unknown() })) })
    .parse(JSON.parse(await readFile(template, 'utf8')));
  const parameter = z.object({ Value: z.string() });
  return Object.values(Resources)
    .filter(({ Type }) => Type === 'AWS::SSM::Parameter')
    .map(({ Properties }) => {
      const document = z.record(z.string(), z.unknown()).parse(JSON.parse(parameter.parse(Properties).Value));
      return { ...specSchema.parse(document), document };
    });
}

/** Makes the targets that the specs name, so that a run rehearses whatever `infra/credentials.ts` declares. */
async function prepareTargets({ render, cockroachdb }: Vendors, specs: readonly Spec[]): Promise<void> {
  for (const { provider, target, privileges } of specs) {
    const { postgresId, clusterId } = target;
    if (provider === 'render-postgres' && postgresId !== undefined && !render.api.databases.has(postgresId))
      await addRenderOrders(render.api, render.postgres, { id: postgresId });
    if (provider !== 'cockroachdb-cloud' || clusterId === undefined) continue;
    if (!cockroachdb.api.clusters.has(clusterId))
      await addCockroachdbOrders(cockroachdb.api, cockroachdb.postgres, { id: clusterId });
    for (const role of privileges.roles) await ensureRole(cockroachdb.postgres, role);
  }
}

async function ensureRole(postgres: Vendors['cockroachdb']['postgres'], role: string): Promise<void> {
  const [found] = await postgres.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [role]);
  if (found !== undefined) return;
  // Names of roles are checked by the spec's schema: letters, digits and underscores.
  await postgres.query(`CREATE ROLE "${role}" NOLOGIN`);
  await postgres.query(`GRANT SELECT ON orders TO "${role}"`, [], 'defaultdb');
}

const keyOf = (provider: string, keys: World['apiKeys']): string =>
  provider === 'render-postgres' ? keys.render : keys.cockroachdb;
