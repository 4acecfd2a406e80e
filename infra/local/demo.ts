import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge';
import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  RotateSecretCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { credentialRequested } from '../../functions/core/events.ts';
import { eventSource, secretName } from '../../functions/core/names.ts';
import { type Clients, startClients } from './clients.ts';
import type { Spec, World } from './world.ts';

/** What a run of the main job came to. */
export interface Outcome {
  readonly providers: readonly ProviderOutcome[];
  readonly seconds: number;
}

export interface ProviderOutcome {
  readonly provider: string;
  readonly strategy: string;
  readonly rotations: number;
  readonly logins: number;
  readonly failedLogins: number;
  /** Users that rekey left at the provider: the current one and those in their grace. */
  readonly users: number;
  /** What is not as it should be; empty in a good run. */
  readonly problems: readonly string[];
}

export interface DemoOptions {
  /** One line of the timeline. */
  readonly tell: (subject: string, message: string) => void;
  readonly signal: AbortSignal;
}

const rotations = 3;
const loginsAtLeast = 1_000;
/** More would only wait for the two cores. */
const applications = 4;

/**
 * The main job: each declared credential is requested on the bus, and rotated three times while applications log in with
 * whatever they last read. A login that fails, a user too many or too few, is a problem of the outcome.
 */
export async function runDemo(world: World, { tell, signal }: DemoOptions): Promise<Outcome> {
  const { deployment, specs } = world;
  const startedAt = Date.now();
  const connection = {
    endpoint: deployment.endpointUrl,
    region: deployment.region,
    credentials: { accessKeyId: 'demo', secretAccessKey: 'demo' },
  };
  const secretsManager = new SecretsManagerClient(connection);
  const eventBridge = new EventBridgeClient(connection);
  const ca = await readFile(world.caFile, 'utf8');
  const before = await usersAtVendors(world);
  const stopTelling = tellEvents(world, tell);
  try {
    await request(eventBridge, deployment.stack.buses[0]?.name ?? '', specs, tell);
    const runs = await Promise.all(
      specs.map((spec) => rotateUnderLoad({ spec, secretsManager, ca, tell, signal })),
    );
    await deployment.secretsManager.idle();
    await deployment.bus.idle();
    const after = await usersAtVendors(world);
    const seconds = Math.round((Date.now() - startedAt) / 100) / 10;
    return {
      seconds,
      providers: runs.map(({ spec, clients, made }) => {
        const added = (after.get(spec.provider) ?? []).filter(
          (username) => !before.get(spec.provider)?.includes(username),
        );
        const expected = runs.filter((run) => run.spec.provider === spec.provider).flatMap((run) => run.made);
        return {
          provider: spec.provider,
          strategy: spec.strategy,
          rotations,
          logins: clients.logins,
          failedLogins: clients.failures.length,
          users: made.filter((username) => added.includes(username)).length,
          problems: [
            ...new Set(clients.failures.map((failure) => `failed login: ${failure}`)),
            ...(clients.logins < loginsAtLeast
              ? [`${clients.logins} logins, expected ${loginsAtLeast}`]
              : []),
            ...added.filter((name) => !expected.includes(name)).map((name) => `a user nobody knows: ${name}`),
            ...expected.filter((name) => !added.includes(name)).map((name) => `a user is missing: ${name}`),
            ...made
              .filter((name) => !clients.usernames.includes(name))
              .map((name) => `no application ever logged in as ${name}`),
          ],
        };
      }),
    };
  } finally {
    stopTelling();
    secretsManager.destroy();
    eventBridge.destroy();
  }
}

async function request(
  eventBridge: EventBridgeClient,
  busName: string,
  specs: readonly Spec[],
  tell: DemoOptions['tell'],
): Promise<void> {
  const { FailedEntryCount } = await eventBridge.send(
    new PutEventsCommand({
      Entries: specs.map((spec) => ({
        EventBusName: busName,
        Source: eventSource,
        DetailType: credentialRequested,
        Detail: JSON.stringify({ spec: spec.document }),
      })),
    }),
  );
  if (FailedEntryCount !== 0)
    throw new Error(`the bus took ${FailedEntryCount} requests fewer than were sent`);
  for (const { name } of specs) tell(name, 'requested on the bus');
}

interface Run {
  readonly spec: Spec;
  readonly clients: Clients;
  /** The users that AWSCURRENT named, one after the other. */
  readonly made: readonly string[];
}

async function rotateUnderLoad({
  spec,
  secretsManager,
  ca,
  tell,
  signal,
}: DemoOptions & { spec: Spec; secretsManager: SecretsManagerClient; ca: string }): Promise<Run> {
  const secretId = secretName(spec.name);
  let current = await untilCurrent(secretsManager, secretId, undefined, signal);
  const made = [current.username];
  const clients = startClients({ secretsManager, secretId, ca, count: applications });
  try {
    tell(spec.name, `${applications} applications log in as ${current.username}, again and again`);
    for (let rotation = 1; rotation <= rotations; rotation += 1) {
      // Long enough for every application to have read the new login, so that the last one is really left behind.
      const enough = Math.ceil((loginsAtLeast * rotation) / (rotations + 1));
      while (clients.logins < enough && !signal.aborted) await pause(50);
      signal.throwIfAborted();
      await secretsManager.send(
        new RotateSecretCommand({ SecretId: secretId, ClientRequestToken: randomUUID() }),
      );
      current = await untilCurrent(secretsManager, secretId, current.versionId, signal);
      made.push(current.username);
    }
    while (
      (clients.logins < loginsAtLeast || !clients.usernames.includes(current.username)) &&
      !signal.aborted
    )
      await pause(50);
  } finally {
    await clients.stop();
  }
  return { spec, clients, made };
}

const patienceMs = 50_000;

/** The current login once it is another than `versionId`, and no rotation is under way any more. */
async function untilCurrent(
  secretsManager: SecretsManagerClient,
  secretId: string,
  versionId: string | undefined,
  signal: AbortSignal,
): Promise<{ versionId: string; username: string }> {
  const giveUpAt = Date.now() + patienceMs;
  while (Date.now() < giveUpAt) {
    signal.throwIfAborted();
    const { VersionIdsToStages = {} } = await secretsManager.send(
      new DescribeSecretCommand({ SecretId: secretId }),
    );
    const isUnderWay = Object.values(VersionIdsToStages).some((labels) => labels.includes('AWSPENDING'));
    const value = await secretsManager.send(new GetSecretValueCommand({ SecretId: secretId }));
    const parsed: { username?: string } = JSON.parse(value.SecretString ?? '{}');
    if (!isUnderWay && parsed.username !== undefined && value.VersionId !== versionId)
      return { versionId: value.VersionId ?? '', username: parsed.username };
    await pause(100);
  }
  throw new Error(
    `${secretId} was not rotated within ${patienceMs / 1_000} s; see the functions' log with --verbose`,
  );
}

/** Who exists at each provider now, asked of the engines and not of rekey. */
async function usersAtVendors({ vendors, specs }: World): Promise<ReadonlyMap<string, readonly string[]>> {
  const users = new Map<string, string[]>();
  const add = (provider: string, names: readonly string[]) =>
    users.set(provider, [...(users.get(provider) ?? []), ...names]);
  for (const target of new Set(specs.map((spec) => spec.target['postgresId'])))
    if (target !== undefined)
      add(
        'render-postgres',
        (vendors.render.api.databases.get(target)?.users() ?? []).map((user) => user.username),
      );
  for (const target of new Set(specs.map((spec) => spec.target['clusterId'])))
    if (target !== undefined)
      add(
        'cockroachdb-cloud',
        ((await vendors.cockroachdb.api.clusters.get(target)?.users()) ?? []).map((user) => user.username),
      );
  return users;
}

/** Turns what rekey publishes into lines of the timeline, until the returned function is called. */
function tellEvents({ deployment }: World, tell: DemoOptions['tell']): () => void {
  let told = deployment.bus.history().length;
  const timer = setInterval(() => {
    const events = deployment.bus.history();
    for (const { source, 'detail-type': type, detail } of events.slice(told)) {
      if (source !== eventSource || typeof detail['credential'] !== 'string') continue;
      const sentence = sentences[type]?.(detail);
      if (sentence !== undefined) tell(detail['credential'], sentence);
    }
    told = events.length;
  }, 50);
  return () => clearInterval(timer);
}

const sentences: Readonly<Record<string, (detail: Readonly<Record<string, unknown>>) => string>> = {
  CredentialCreated: () => 'spec and secret are in place, the first rotation begins',
  DatabaseUserCreated: ({ username }) => `made the user ${username}, which nobody knows yet`,
  CredentialRotated: ({ username }) =>
    `AWSCURRENT is ${username} now, which has logged in; whoever was before stays through its grace`,
  CredentialRotationFailed: ({ step, code }) => `${step} failed with ${code}; Secrets Manager tries again`,
};
