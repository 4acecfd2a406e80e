import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as z from 'zod';
import { webhookSecretPrefix } from '../../functions/core/names.ts';
import type { OnCall } from './aws/endpoint.ts';
import { publishedQuotas, type Quota } from './aws/quotas.ts';
import type { Variants } from './aws/secrets-manager/model.ts';
import { createMovableClock, type MovableClock } from './clock.ts';
import { type Deployment, startDeployment } from './deployment.ts';
import type { FunctionLogLine } from './lambda.ts';
import { createLifetime, settledTogether } from './lifetime.ts';
import type { RenderWebhook } from './providers/render-webhooks.ts';
import { type ApiKeys, startVendors, type Vendors } from './vendors.ts';

/** Everything on this machine: the vendors with their engines, and the stack deployed against them. */
export interface World {
  readonly vendors: Vendors;
  readonly deployment: Deployment;
  readonly clock: MovableClock;
  /** The specs that the template declares, as they stand in Parameter Store. */
  readonly specs: readonly Spec[];
  readonly apiKeys: ApiKeys;
  /** Render's webhook, which points to the deployed HTTP API. */
  readonly webhook: RenderWebhook;
  /** A file with the CA that clients must trust, in PEM. */
  readonly caFile: string;
  /** Afterwards no process, no socket and no file of the world is left. May be called again. */
  stop(): Promise<void>;
}

export interface WorldOptions {
  /** Hears of each part as it stands. */
  readonly onProgress?: (message: string) => void;
  readonly log?: (line: FunctionLogLine) => void;
  /** @default one that begins now */
  readonly clock?: MovableClock;
  readonly onCall?: OnCall;
  readonly variants?: Partial<Variants>;
  /** The clock of a world always moves, at least as fast as real time: a throttled client that waits is served. @default worldQuotas */
  readonly quotas?: readonly Quota[];
}

const valkeyKinds: Readonly<Record<Vendors['vultr']['engine']['kind'], string>> = {
  'valkey-server': 'the valkey-server of this machine',
  'redis-server': 'the redis-server of this machine',
  'stand-in': 'a stand-in for Valkey, as neither valkey-server nor redis-server is on the PATH',
};

/**
 * All but those of writes to Parameter Store. When the demo deletes five credentials at once, they exceed 3 writes a second for longer
 * than the SDK retries. The next pass then repeats a deletion and publishes a second `CredentialDeleted`, where the demo wants one.
 */
const worldQuotas: readonly Quota[] = publishedQuotas.filter(
  ({ calls }) => !calls.some((call) => call === 'ssm:PutParameter' || call === 'ssm:DeleteParameter'),
);

const root = fileURLToPath(new URL('../..', import.meta.url));

const specSchema = z.object({
  name: z.string(),
  provider: z.string(),
  target: z.record(z.string(), z.string()),
  apiKeySecret: z.string(),
  strategy: z.string(),
  privileges: z.object({ roles: z.array(z.string()).default([]) }),
  consumers: z.array(z.record(z.string(), z.string())),
});
/** What a run needs to know of a spec, beside the whole of it. */
export type Spec = z.output<typeof specSchema> & { readonly document: Readonly<Record<string, unknown>> };

/** Boots all of it, the parts that do not need each other side by side. */
export async function startWorld(options: WorldOptions = {}): Promise<World> {
  const { clock = createMovableClock(), onProgress = () => undefined, log = () => undefined } = options;
  const directory = await mkdtemp(join(tmpdir(), 'rekey-'));
  // Started as root, the engines run as somebody else, who has to get to their files below.
  await chmod(directory, 0o711);
  const apiKeys = {
    render: `rnd_${randomBytes(24).toString('base64url')}`,
    cockroachdb: `CCDB1_${randomBytes(24).toString('base64url')}`,
    vultr: randomBytes(18).toString('hex').toUpperCase(),
    zilliz: randomBytes(36).toString('hex'),
  };
  const lifetime = createLifetime();
  lifetime.add(() => rm(directory, { recursive: true, force: true }));
  try {
    const [vendors, template] = await settledTogether([
      startVendors({ directory, clock, apiKeys }).then((started) => {
        lifetime.add(() => started.stop());
        onProgress(
          `Render, CockroachDB Cloud, Vultr and Zilliz Cloud answer under their own names, the first two with a PostgreSQL engine each, Vultr with ${valkeyKinds[started.vultr.engine.kind]}`,
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
        specs.flatMap(({ provider, apiKeySecret, consumers }) => [
          [apiKeySecret, vendors.byProvider[provider]?.apiKey ?? ''],
          ...consumers.flatMap(({ kind = '', apiKeySecret: key }) =>
            key === undefined ? [] : [[key, vendors.byConsumer[kind]?.apiKey ?? '']],
          ),
        ]),
      ),
      outside: vendors.render.api.webhooks,
      log,
      quotas: options.quotas ?? worldQuotas,
      ...(options.onCall === undefined ? {} : { onCall: options.onCall }),
      ...(options.variants === undefined ? {} : { variants: options.variants }),
    });
    lifetime.add(() => deployment.stop());
    onProgress(`${specs.length} credentials are deployed; none has a user yet`);
    const webhook = await connectWebhook(vendors, deployment);
    onProgress(
      'Render tells of users that are made or deleted: its webhook points to the HTTP API of the stack',
    );
    return { vendors, deployment, clock, specs, apiKeys, webhook, caFile, stop: lifetime.end };
  } catch (error) {
    await lifetime.end();
    throw error;
  }
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

/** What people do once after a deployment: the webhook gets the address, and Secrets Manager the webhook's secret. */
async function connectWebhook({ render }: Vendors, deployment: Deployment): Promise<RenderWebhook> {
  const webhook = render.api.webhooks.add({ url: deployment.webhookUrl });
  await deployment.secretsManager.call('CreateSecret', {
    Name: `${webhookSecretPrefix}render`,
    SecretString: webhook.secret,
    ClientRequestToken: randomUUID(),
  });
  return webhook;
}

/** Makes the targets and consumers that the specs name, so that a run rehearses what `infra/credentials.ts` declares. */
async function prepareTargets(
  { byProvider, byConsumer, render }: Vendors,
  specs: readonly Spec[],
): Promise<void> {
  // Half a minute at Render: functions wait for it in real time.
  render.api.switches.deploys.stageMs = 200;
  for (const { provider, target, privileges, consumers } of specs) {
    await byProvider[provider]?.prepare(target, privileges.roles);
    for (const settings of consumers) await byConsumer[settings['kind'] ?? '']?.prepare(settings);
  }
}
