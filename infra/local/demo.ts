import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge';
import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  ResourceNotFoundException,
  RotateSecretCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { credentialRequested } from '../../functions/core/events.ts';
import { eventSource, secretName } from '../../functions/core/names.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import { type Clients, startClients } from './clients.ts';
import type { Spec, World } from './world.ts';

/** What a run of the main job came to. */
export interface Outcome {
  readonly providers: readonly ProviderOutcome[];
  /** The price of having only one user, measured; undefined when no declared provider can do it. */
  readonly resetPassword?: Refusal;
  readonly seconds: number;
}

/** One rotation under `reset-password`, as consumers saw it who read AWSCURRENT before every login. */
export interface Refusal {
  readonly provider: string;
  readonly logins: number;
  readonly refusedLogins: number;
  /** From the start of the first refused login to the end of the last one. */
  readonly refusedForMs: number;
  /** What `CredentialRotated` promised. */
  readonly atMostMs: number;
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
  const { proxyUrl } = world.vendors.network;
  const before = await usersAtVendors(world);
  const stopTelling = tellEvents(world, tell);
  try {
    await request(eventBridge, deployment.stack.buses[0]?.name ?? '', specs, tell);
    const runs = await Promise.all(
      specs.map((spec) => rotateUnderLoad({ spec, secretsManager, proxyUrl, ca, tell, signal })),
    );
    await deployment.secretsManager.idle();
    await deployment.bus.idle();
    const after = await usersAtVendors(world);
    const resetPassword = await measureRefusal(world, {
      secretsManager,
      eventBridge,
      proxyUrl,
      ca,
      tell,
      signal,
    });
    const seconds = Math.round((Date.now() - startedAt) / 100) / 10;
    return {
      seconds,
      ...(resetPassword === undefined ? {} : { resetPassword }),
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
            ...new Set(clients.failures.map(({ username, code }) => `failed login: ${username}: ${code}`)),
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
  proxyUrl,
  ca,
  tell,
  signal,
}: DemoOptions & {
  spec: Spec;
  secretsManager: SecretsManagerClient;
  proxyUrl: string;
  ca: string;
}): Promise<Run> {
  const secretId = secretName(spec.name);
  let current = await untilCurrent(secretsManager, secretId, undefined, signal);
  const made = [current.username];
  const clients = startClients({ secretsManager, secretId, proxyUrl, ca, count: applications });
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

/** The first declared credential, once more, for somebody who can have only one user. */
async function measureRefusal(
  { deployment, specs }: World,
  {
    secretsManager,
    eventBridge,
    proxyUrl,
    ca,
    tell,
    signal,
  }: DemoOptions & {
    secretsManager: SecretsManagerClient;
    eventBridge: EventBridgeClient;
    proxyUrl: string;
    ca: string;
  },
): Promise<Refusal | undefined> {
  const able = await Promise.all(
    specs.map(async (spec) =>
      (await loadProvider(spec.provider))?.capabilities.strategies.includes('reset-password') ? [spec] : [],
    ),
  );
  const [declared] = able.flat();
  if (declared === undefined) return undefined;
  const name = `${declared.name.slice(0, 40)}-reset`;
  const document = {
    ...declared.document,
    name,
    usernamePrefix: `${String(declared.document['usernamePrefix']).slice(0, 13)}_reset`,
    strategy: 'reset-password',
  };
  await request(eventBridge, deployment.stack.buses[0]?.name ?? '', [{ ...declared, name, document }], tell);
  const secretId = secretName(name);
  const first = await untilCurrent(secretsManager, secretId, undefined, signal);
  const clients = startClients({
    secretsManager,
    secretId,
    proxyUrl,
    ca,
    count: applications,
    cacheMs: { shortest: 0, longest: 0 },
  });
  try {
    while (clients.logins < 4 * applications && !signal.aborted) await pause(20);
    await secretsManager.send(
      new RotateSecretCommand({ SecretId: secretId, ClientRequestToken: randomUUID() }),
    );
    const second = await untilCurrent(secretsManager, secretId, first.versionId, signal);
    const enough = clients.logins + 4 * applications;
    while (clients.logins < enough && !signal.aborted) await pause(20);
    await deployment.bus.idle();
    const rotated = deployment.bus
      .history()
      .find(({ detail }) => detail['versionId'] === second.versionId && 'currentRefusedAtMostMs' in detail);
    const { failures, logins } = clients;
    const refusedForMs =
      failures.length === 0
        ? 0
        : Math.max(...failures.map(({ endedAt }) => endedAt)) -
          Math.min(...failures.map(({ startedAt }) => startedAt));
    tell(name, `with one user only, AWSCURRENT was refused for ${refusedForMs} ms of its rotation`);
    return {
      provider: declared.provider,
      logins,
      refusedLogins: failures.length,
      refusedForMs,
      atMostMs: Number(rotated?.detail['currentRefusedAtMostMs'] ?? 0),
    };
  } finally {
    await clients.stop();
  }
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
    const description = await secretsManager
      .send(new DescribeSecretCommand({ SecretId: secretId }))
      .catch((error: unknown) => {
        // Requested, and not made yet.
        if (error instanceof ResourceNotFoundException) return undefined;
        throw error;
      });
    if (description === undefined) {
      await pause(100);
      continue;
    }
    const { VersionIdsToStages = {} } = description;
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

/** Who exists at each provider now, on all the targets that the specs name. */
async function usersAtVendors({ vendors, specs }: World): Promise<ReadonlyMap<string, readonly string[]>> {
  const users = new Map<string, readonly string[]>();
  const targets = new Map(specs.map((spec) => [JSON.stringify([spec.provider, spec.target]), spec]));
  for (const { provider, target } of targets.values()) {
    const here = (await vendors.byProvider[provider]?.usernames(target)) ?? [];
    users.set(provider, [...(users.get(provider) ?? []), ...here]);
  }
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
