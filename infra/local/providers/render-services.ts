import type * as z from 'zod';
import type {
  environmentVariableSchema,
  listedDeploysSchema,
} from '../../../functions/consumers/render-service.ts';
import type { Clock } from '../clock.ts';
import type { Answer } from './faults.ts';
import {
  type Handling,
  type Lag,
  type Lagging,
  lagging,
  Refused,
  type VendorRequest,
} from './vendor-http.ts';

export type RenderServiceOperation =
  | 'readVariable'
  | 'setVariable'
  | 'replaceVariables'
  | 'startDeploy'
  | 'listDeploys'
  | 'getDeploy'
  | 'getService'
  | 'deleteService'
  | 'changeService';

/** What Render's documents leave open about deploys, and how they go. */
export interface RenderDeploySwitches {
  /** What each stage takes, from `created` on. */
  stageMs: number;
  /** Where a deploy that starts now will end. */
  ends: 'live' | 'build_failed' | 'pre_deploy_failed' | 'update_failed' | 'canceled' | 'never';
  /** 201 with the deploy, or 202 without a body. */
  accepted: 201 | 202;
  /** How late the list knows of a new deploy. */
  listed: Lag;
  /** What is answered while another deploy is under way. */
  whileUnderWay: 'start' | 'queue' | 'conflict';
  /** Which variables a deploy starts with: those of when it was asked for, or of when it is put in place. */
  variablesOf: 'created' | 'update';
  createdAt: 'present' | 'missing';
  /** Deploys a minute and service. */
  limit: number;
}

export const deploySwitches = (): RenderDeploySwitches => ({
  stageMs: 10_000,
  ends: 'live',
  accepted: 201,
  listed: {},
  whileUnderWay: 'start',
  variablesOf: 'created',
  createdAt: 'present',
  limit: 10,
});

export interface RenderServiceOptions {
  /** @default a made id `srv-…` */
  readonly id?: string;
  readonly name: string;
  readonly variables?: Readonly<Record<string, string>>;
}

/** A service as its owner sees it. */
export interface RenderService {
  readonly id: string;
  readonly name: string;
  /** What the next deploy would start with. */
  variables(): Readonly<Record<string, string>>;
  /** What the deploy that is live now has started with; none where none is live. */
  running(): Readonly<Record<string, string>>;
  /** The newest first. */
  deploys(): readonly { readonly id: string; readonly status: string }[];
}

/** What other people do with a service, past rekey and past rate limits and faults. */
export interface RenderServiceActor {
  /** Answers the deploy's id. */
  deploy(serviceId: string): string;
  setVariable(serviceId: string, name: string, value: string | undefined): void;
  removeService(serviceId: string): void;
}

interface Change {
  readonly at: number;
  readonly name: string;
  readonly value: string | undefined;
}

interface Stage {
  readonly at: number;
  readonly status: string;
}

interface StoredDeploy {
  readonly id: string;
  readonly trigger: string;
  /** In the order of time; the last one lasts. */
  readonly stages: readonly Stage[];
  readonly listed: Lagging<boolean>;
  /** How many changes of the variables it has seen. */
  readonly changes: number;
}

interface StoredService {
  readonly id: string;
  readonly name: string;
  readonly changes: Change[];
  /** The oldest first. */
  readonly deploys: StoredDeploy[];
}

const refused = (status: number, message: string): Refused => new Refused({ status, json: { message } });
const wayOf: Readonly<Record<RenderDeploySwitches['ends'], readonly string[]>> = {
  live: ['created', 'build_in_progress', 'update_in_progress', 'live'],
  build_failed: ['created', 'build_in_progress', 'build_failed'],
  pre_deploy_failed: ['created', 'build_in_progress', 'pre_deploy_in_progress', 'pre_deploy_failed'],
  update_failed: ['created', 'build_in_progress', 'update_in_progress', 'update_failed'],
  canceled: ['created', 'build_in_progress', 'canceled'],
  never: ['created', 'build_in_progress', 'update_in_progress'],
};
const lasting: readonly string[] = ['live', 'build_failed', 'pre_deploy_failed', 'update_failed', 'canceled'];

// The client's own schemas, so that client and stand-in cannot disagree about a name.
type VariableBody = z.input<typeof environmentVariableSchema> & { readonly key: string };
type DeployBody = z.input<typeof listedDeploysSchema>[number]['deploy'];

/** Render's services: variables, and deploys that walk through their statuses by the clock. No instance runs. */
export function createRenderServices({
  clock,
  switches,
  instant,
  freshId,
}: {
  readonly clock: Clock;
  readonly switches: () => RenderDeploySwitches;
  /** A time in Render's spelling. */
  instant(date: Date): string;
  freshId(): string;
}) {
  const stored = new Map<string, StoredService>();
  const serviceOf = (id: string): StoredService => {
    const found = stored.get(id);
    if (found === undefined) throw refused(404, `not found: ${id}`);
    return found;
  };

  const variablesOf = (changes: readonly Change[]): ReadonlyMap<string, string> => {
    const values = new Map<string, string>();
    for (const { name, value } of changes)
      if (value === undefined) values.delete(name);
      else values.set(name, value);
    return values;
  };

  const endOf = ({ stages }: StoredDeploy): Stage | undefined => {
    const last = stages.at(-1);
    return last !== undefined && lasting.includes(last.status) ? last : undefined;
  };
  const wentLiveAt = (deploy: StoredDeploy): number | undefined => {
    const end = endOf(deploy);
    return end?.status === 'live' && end.at <= clock.now().getTime() ? end.at : undefined;
  };
  /** Of those that went live, the one that did so last. */
  const liveOf = ({ deploys }: StoredService): StoredDeploy | undefined =>
    deploys.reduce<StoredDeploy | undefined>((live, deploy) => {
      const at = wentLiveAt(deploy);
      return at !== undefined && at >= (live === undefined ? 0 : (wentLiveAt(live) ?? 0)) ? deploy : live;
    }, undefined);
  const statusOf = (service: StoredService, deploy: StoredDeploy): string => {
    if (wentLiveAt(deploy) !== undefined) return liveOf(service) === deploy ? 'live' : 'deactivated';
    const now = clock.now().getTime();
    return deploy.stages.findLast(({ at }) => at <= now)?.status ?? 'created';
  };
  const isUnderWay = (deploy: StoredDeploy): boolean => {
    const end = endOf(deploy);
    return end === undefined || end.at > clock.now().getTime();
  };

  const startDeploy = (service: StoredService, trigger: string, isQueued = false): StoredDeploy => {
    const { stageMs, ends, listed } = switches();
    const now = clock.now().getTime();
    const begin = isQueued
      ? Math.max(...service.deploys.filter(isUnderWay).map((deploy) => endOf(deploy)?.at ?? now))
      : now;
    const isListed = lagging(false, clock);
    isListed.set(true, listed);
    const deploy: StoredDeploy = {
      id: `dep-${freshId()}`,
      trigger,
      stages: [
        ...(isQueued ? [{ at: now, status: 'queued' }] : []),
        ...wayOf[ends].map((status, index) => ({ at: begin + index * stageMs, status })),
      ],
      listed: isListed,
      changes: service.changes.length,
    };
    service.deploys.push(deploy);
    return deploy;
  };

  const running = (service: StoredService): ReadonlyMap<string, string> => {
    const live = liveOf(service);
    if (live === undefined) return new Map();
    const updatedAt = live.stages.find(({ status }) => status === 'update_in_progress')?.at ?? 0;
    return variablesOf(
      switches().variablesOf === 'created'
        ? service.changes.slice(0, live.changes)
        : service.changes.filter(({ at }, index) => index < live.changes || at <= updatedAt),
    );
  };

  const bodyOf = (service: StoredService, deploy: StoredDeploy): DeployBody & Record<string, unknown> => {
    const [first] = deploy.stages;
    const end = endOf(deploy);
    return {
      id: deploy.id,
      status: statusOf(service, deploy),
      trigger: deploy.trigger,
      ...(switches().createdAt === 'present' ? { createdAt: instant(new Date(first?.at ?? 0)) } : {}),
      ...(end !== undefined && !isUnderWay(deploy) ? { finishedAt: instant(new Date(end.at)) } : {}),
    };
  };

  const listDeploys = (service: StoredService, query: URLSearchParams): Answer => {
    const unknown = [...query.keys()].find((name) => name !== 'limit' && name !== 'cursor');
    if (unknown !== undefined) throw refused(400, `the stand-in does not filter deploys by ${unknown}`);
    const limit = Math.min(100, Math.max(1, Number(query.get('limit') ?? 20)));
    const newestFirst = service.deploys.filter(({ listed }) => listed.read()).toReversed();
    const from = newestFirst.findIndex(({ id }) => `cursor-${id}` === query.get('cursor')) + 1;
    return {
      status: 200,
      json: newestFirst
        .slice(from, from + limit)
        .map((deploy) => ({ deploy: bodyOf(service, deploy), cursor: `cursor-${deploy.id}` })),
    };
  };

  const setVariable = (service: StoredService, name: string, value: string | undefined): void => {
    service.changes.push({ at: clock.now().getTime(), name, value });
  };

  const askedToDeploy = (service: StoredService): Answer => {
    const { whileUnderWay, accepted } = switches();
    const isBusy = service.deploys.some(isUnderWay);
    if (isBusy && whileUnderWay === 'conflict') throw refused(409, 'another deploy is in progress');
    const isQueued = isBusy && whileUnderWay === 'queue';
    const deploy = startDeploy(service, 'api', isQueued);
    return accepted === 202 || isQueued ? { status: 202 } : { status: 201, json: bodyOf(service, deploy) };
  };

  /** Undefined where the request is about no service. */
  function route({
    method,
    segments,
    query,
    json,
  }: VendorRequest): Handling<RenderServiceOperation> | undefined {
    const [version, kind, id = '', part, name, ...rest] = segments;
    if (version !== 'v1' || kind !== 'services' || id === '' || rest.length > 0) return undefined;
    const service = (): StoredService => serviceOf(id);
    if (part === undefined) {
      const operations = { GET: 'getService', DELETE: 'deleteService' } as const;
      const operation = method === 'GET' || method === 'DELETE' ? operations[method] : 'changeService';
      return {
        operation,
        async act() {
          const { name: called } = service();
          if (operation === 'deleteService') stored.delete(id);
          return operation === 'deleteService'
            ? { status: 204 }
            : { status: 200, json: { id, name: called } };
        },
      };
    }
    if (part === 'env-vars' && method === 'PUT' && (name === undefined || name === '')) {
      // The whole set is what the body says: every variable that is not in it is gone.
      const act = async (): Promise<Answer> => {
        for (const known of variablesOf(service().changes).keys()) setVariable(service(), known, undefined);
        return { status: 200, json: [] };
      };
      return { operation: 'replaceVariables', act };
    }
    if (part === 'env-vars' && name !== undefined && method === 'GET')
      return {
        operation: 'readVariable',
        async act() {
          const value = variablesOf(service().changes).get(name);
          if (value === undefined) throw refused(404, `not found: ${name}`);
          return { status: 200, json: { key: name, value } satisfies VariableBody };
        },
      };
    if (part === 'env-vars' && name !== undefined && method === 'PUT')
      return {
        operation: 'setVariable',
        async act() {
          const isObject = typeof json === 'object' && json !== null && 'value' in json;
          const value = isObject && typeof json.value === 'string' ? json.value : undefined;
          const at = service();
          if (value === undefined) throw refused(400, 'value is required');
          setVariable(at, name, value);
          return { status: 200, json: { key: name, value } satisfies VariableBody };
        },
      };
    if (part === 'deploys' && name === undefined && method === 'GET')
      return { operation: 'listDeploys', act: async () => listDeploys(service(), query) };
    if (part === 'deploys' && name === undefined && method === 'POST')
      return {
        operation: 'startDeploy',
        act: async () => askedToDeploy(service()),
        pretend: () => ({ status: 202 }),
      };
    if (part === 'deploys' && name !== undefined && method === 'GET')
      return {
        operation: 'getDeploy',
        async act() {
          const deploy = service().deploys.find((each) => each.id === name);
          if (deploy === undefined) throw refused(404, `not found: ${name}`);
          return { status: 200, json: bodyOf(service(), deploy) };
        },
      };
    return undefined;
  }

  const known = (id: string): StoredService => {
    const found = stored.get(id);
    if (found === undefined)
      throw new Error(`the stand-in has no service ${id}, expected one that was added`);
    return found;
  };
  const actor: RenderServiceActor = {
    deploy: (id) => startDeploy(known(id), 'manual').id,
    setVariable: (id, name, value) => setVariable(known(id), name, value),
    removeService: (id) => void stored.delete(id),
  };
  return {
    route,
    actor,
    /** A service that is live with what it was given. */
    add({ id, name, variables = {} }: RenderServiceOptions): RenderService {
      const made = id ?? `srv-${freshId()}`;
      const now = clock.now().getTime();
      const service: StoredService = {
        id: made,
        name,
        changes: Object.entries(variables).map(([variable, value]) => ({ at: now, name: variable, value })),
        deploys: [],
      };
      service.deploys.push({
        id: `dep-${freshId()}`,
        trigger: 'first_deploy',
        stages: [{ at: now, status: 'live' }],
        listed: lagging(true, clock),
        changes: service.changes.length,
      });
      stored.set(made, service);
      return {
        id: made,
        name,
        variables: () => Object.fromEntries(variablesOf(service.changes)),
        running: () => Object.fromEntries(running(service)),
        deploys: () =>
          service.deploys
            .map((deploy) => ({ id: deploy.id, status: statusOf(service, deploy) }))
            .toReversed(),
      };
    },
  };
}
