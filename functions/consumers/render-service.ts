import * as z from 'zod/mini';
import type {
  Consumer,
  ConsumerAccess,
  ConsumerDefinition,
  ConsumerStanding,
  WantedLogin,
} from '../core/consumer.ts';
import { type ProviderCode, ProviderError } from '../core/errors.ts';
import { apiKeySecretPrefix } from '../core/names.ts';
import type { Ports } from '../core/ports.ts';
import { Sensitive } from '../core/sensitive.ts';
import { callRender } from '../providers/render.ts';

// Settings.

const settingsSchema = z.strictObject({
  kind: z.literal('render-service'),
  /** The service that runs with the login, for example `srv-d1abc2d3e4f5g6h7i8j9`; `crn-…` for a cron job. */
  serviceId: z
    .string()
    .check(z.regex(/^(srv|crn)-[a-z0-9]{20}$/, { error: 'expected the id of a service, such as srv-…' })),
  /** The variable that holds the login. Give a whole one: two variables of one service can be seen half changed. */
  environmentVariable: z.string().check(
    z.regex(/^[A-Za-z][A-Za-z0-9_]{0,99}$/, {
      error: 'expected a letter, then up to 99 of A-Z, a-z, 0-9 and underscore, such as DATABASE_URL',
    }),
  ),
  /** Which field of the secret's value it gets. @default url */
  field: z._default(
    z
      .string()
      .check(
        z.regex(/^[a-z][A-Za-z0-9]{0,63}$/, { error: 'expected a field of the secret value, such as url' }),
      ),
    'url',
  ),
  apiKeySecret: z.string().check(
    z.regex(new RegExp(`^${apiKeySecretPrefix}[A-Za-z0-9/_+=.@-]+$`), {
      error: `expected the name of a secret under ${apiKeySecretPrefix}, where the functions may read it`,
    }),
  ),
});
type Settings = z.output<typeof settingsSchema>;

// Render's words (OpenAPI document, 2026-08). Open strings and optional fields: Render adds and leaves out without notice.

export const environmentVariableSchema = z.object({
  value: z.pipe(
    z.string(),
    z.transform((text) => new Sensitive(text)),
  ),
});

export const listedDeploysSchema = z.array(
  z.object({
    deploy: z.object({
      id: z.string(),
      status: z.nullish(z.string()),
      createdAt: z.nullish(z.string()),
    }),
  }),
);

interface Deploy {
  readonly id: string;
  readonly status: string;
}

/** Far more than start between two looks; what is older than these is older than whatever we look for. */
const listedDeploys = 50;

// Rules.

/** How long an accepted deploy may take until it is listed. Unpublished; ours. */
const settleMs = 120_000;

/**
 * Render keeps no time of a variable, so a second one stands beside it: `<versionId> <deploy>`, the newest deploy that was listed
 * *after* the variable had been set. Whatever deploy came later started with the variable; no clock has to be trusted for it.
 * Dying between the two leaves a variable without its marker: the next run writes the marker, and asks for a deploy that may
 * have been needless.
 */
interface Marker {
  readonly versionId: string;
  /** The id of a deploy, or `none` where there had never been one. */
  readonly deploy: string;
}

const markerOf = (text: Sensitive | undefined): Marker | undefined => {
  const [, versionId, deploy] = /^(\S+) (\S+)$/.exec(text?.reveal() ?? '') ?? [];
  return versionId === undefined || deploy === undefined ? undefined : { versionId, deploy };
};

/** Read in one go, before anything is decided. */
interface View {
  /** Undefined where it is not set. */
  readonly value: Sensitive | undefined;
  readonly marker: Marker | undefined;
  /** The newest first. */
  readonly deploys: readonly Deploy[];
}

function judge(
  { value, marker, deploys }: View,
  wanted: { readonly value: Sensitive; readonly versionId: string; readonly variable: string },
): ConsumerStanding {
  const { versionId, variable } = wanted;
  const isMarked = marker?.versionId === versionId;
  if (value?.equals(wanted.value) !== true)
    return {
      say: 'behind',
      details:
        value === undefined
          ? `${variable} is not set`
          : isMarked
            ? `${variable} was changed by somebody after rekey had set it`
            : `${variable} holds another login`,
    };
  if (!isMarked)
    return { say: 'behind', details: `no deploy is known to have started since ${variable} was set` };
  const at = deploys.findIndex(({ id }) => id === marker.deploy);
  const later = at === -1 ? deploys : deploys.slice(0, at);
  // Whichever of them is live, by whomever it was started: it runs with the variable. A newer one that failed changes nothing.
  if (later.some(({ status }) => status === 'live')) return { say: 'moved' };
  const underWay = later.find(({ status }) => !isOver(status));
  if (underWay !== undefined) return { say: 'moving', details: `the deploy ${underWay.id} is under way` };
  const [last] = later;
  if (last === undefined)
    return { say: 'behind', details: `no deploy has started since ${variable} was set` };
  return {
    say: 'failed',
    details: `the deploy ${last.id} ended as ${last.status}`,
    remedy:
      'see in Render’s dashboard why, mend the service and deploy it again; the old user stays until then',
  };
}

/** Any other status, those of tomorrow included, may still become `live`. */
const isOver = (status: string): boolean =>
  status === 'live' || status === 'deactivated' || status === 'canceled' || status.endsWith('_failed');

// Translation of failure.

/** What no repetition mends. Everything else is thrown, and the whole is tried again. */
const remedies: Readonly<Partial<Record<ProviderCode, (settings: Settings) => string>>> = {
  UNAUTHORIZED: ({ apiKeySecret }) =>
    `store a valid API key, of somebody who may change the service, in ${apiKeySecret}`,
  NOT_FOUND: () =>
    'correct serviceId in the spec, give the key’s owner access, or take the consumer out of the spec',
  REJECTED: () => 'see in Render’s dashboard whether the service is suspended or cannot be deployed',
};

async function orFailed(
  settings: Settings,
  work: () => Promise<ConsumerStanding>,
): Promise<ConsumerStanding> {
  try {
    return await work();
  } catch (error) {
    const remedy = error instanceof ProviderError ? remedies[error.code] : undefined;
    if (!(error instanceof ProviderError) || remedy === undefined) throw error;
    const { operation, status } = error.facts;
    return {
      say: 'failed',
      details: `Render refused ${operation} of ${settings.serviceId} with status ${status}`,
      remedy: remedy(settings),
    };
  }
}

// Factory.

export const renderService: ConsumerDefinition<Settings> = {
  kind: 'render-service',
  schema: settingsSchema,
  label: ({ serviceId, environmentVariable }) => `${serviceId} ${environmentVariable}`,
  apiKeySecret: ({ apiKeySecret }) => apiKeySecret,
  open(settings, wanted, { apiKey, ...access }, ports) {
    if (apiKey === undefined) throw new Error('a Render service is reached with an API key, got none');
    return open(settings, wanted, { apiKey, ...access }, ports);
  },
};

function open(
  settings: Settings,
  { versionId, field }: WantedLogin,
  { guard, ...access }: ConsumerAccess & { readonly apiKey: Sensitive },
  ports: Ports,
): Consumer {
  const { serviceId, environmentVariable: variable } = settings;
  const value = field(settings.field);
  if (value === undefined) {
    const failed = {
      say: 'failed',
      details: `the secret value has no field ${settings.field}`,
      remedy: 'correct field in the spec',
    } as const;
    return { standing: async () => failed, advance: async () => failed };
  }
  const wanted = { value, versionId, variable };
  const markerVariable = `${variable}_REKEY`;
  const api = callRender({ provider: 'render-service', secrets: [value], ...access }, ports);
  const here = ['services', serviceId];

  const read = async (name: string): Promise<Sensitive | undefined> => {
    try {
      const answer = await api.call({
        operation: 'readVariable',
        method: 'GET',
        path: [...here, 'env-vars', name],
        answer: environmentVariableSchema,
      });
      return answer.value;
    } catch (error) {
      // The variable or the whole service: which of the two, the list of deploys tells, as it is read in any case.
      if (error instanceof ProviderError && error.facts.status === 404) return undefined;
      throw error;
    }
  };
  /** Never the call without a name: it replaces the whole set of variables. */
  const set = async (name: string, text: Sensitive): Promise<void> => {
    await api.call({
      operation: 'setVariable',
      method: 'PUT',
      path: [...here, 'env-vars', name],
      body: { value: text },
      guard,
      isDestructive: false,
      answer: z.unknown(),
    });
  };
  const mark = (deploy: string): Promise<void> =>
    set(markerVariable, new Sensitive(`${versionId} ${deploy}`));
  const deploys = async (): Promise<readonly Deploy[]> => {
    const listed = await api.call({
      operation: 'listDeploys',
      method: 'GET',
      path: [...here, 'deploys'],
      query: { limit: String(listedDeploys) },
      answer: listedDeploysSchema,
    });
    const at = (text: string | null | undefined): number => Date.parse(text ?? '') || 0;
    return listed
      .toSorted((a, b) => at(b.deploy.createdAt) - at(a.deploy.createdAt))
      .map(({ deploy }) => ({ id: deploy.id, status: deploy.status ?? 'unknown' }));
  };
  const look = async (): Promise<View> => ({
    value: await read(variable),
    marker: markerOf(await read(markerVariable)),
    deploys: await deploys(),
  });

  /** Only within this invocation: against a second deploy while the first is accepted and not yet listed (202). */
  let askedAt: Date | undefined;
  /** Only within this invocation: whoever else writes the variable, such as a Blueprint, is reported and not fought. */
  let isSet = false;

  const stand = async (view: View): Promise<ConsumerStanding> => {
    const standing = judge(view, wanted);
    const isAsked = askedAt !== undefined && (await ports.now()).getTime() - askedAt.getTime() < settleMs;
    return standing.say === 'behind' && isAsked && view.value?.equals(wanted.value) === true
      ? { say: 'moving', details: 'a deploy was accepted and is not listed yet' }
      : standing;
  };

  async function advance(): Promise<ConsumerStanding> {
    const view = await look();
    const standing = await stand(view);
    if (standing.say !== 'behind') return standing;
    const holds = view.value?.equals(wanted.value) === true;
    if (!holds && isSet) return standing;

    let { marker } = view;
    if (!holds) {
      // A marker that names this version already would vouch, should we die after the next line, for deploys that started
      // with whatever somebody else had put into the variable.
      if (marker?.versionId === versionId) await set(markerVariable, new Sensitive('unset'));
      marker = undefined;
      await set(variable, wanted.value);
      isSet = true;
    }
    if (marker?.versionId !== versionId) {
      const [newest] = await deploys();
      marker = { versionId, deploy: newest?.id ?? 'none' };
      await mark(marker.deploy);
    }
    const outcome = await startDeploy();
    if (outcome === 'started') askedAt = await ports.now();
    const now = await stand({ value: wanted.value, marker, deploys: await deploys() });
    if (now.say !== 'behind') return now;
    if (outcome instanceof ProviderError) throw outcome;
    return { say: 'moving', details: 'another deploy is under way, beside which Render starts none' };
  }

  /** An error where the deploy may have started although no answer said so: the list tells. */
  async function startDeploy(): Promise<'started' | 'busy' | ProviderError> {
    try {
      await api.call({
        operation: 'startDeploy',
        method: 'POST',
        path: [...here, 'deploys'],
        // The present build with the new variable; 201 with the deploy, or 202 without a body where it has to wait.
        body: { deployMode: 'deploy_only' },
        guard,
        isDestructive: false,
        answer: z.unknown(),
      });
      return 'started';
    } catch (error) {
      if (error instanceof ProviderError && error.code === 'CONFLICT') return 'busy';
      if (error instanceof ProviderError && error.effect === 'unknown') return error;
      throw error;
    }
  }

  return {
    standing: () => orFailed(settings, async () => stand(await look())),
    advance: () => orFailed(settings, advance),
  };
}
