import { type Directives, readDirectives, wrongDirectives } from '../core/directives.ts';
import { InputError } from '../core/errors.ts';
import { type Credential, targetKey } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { directivesPath, specParameterName, specParameterPath } from '../core/names.ts';
import type { ListedParameter } from '../core/ports.ts';
import { parseSpec } from '../core/spec.ts';
import { inParallel } from './in-parallel.ts';
import { readStandingOrders, type StandingOrders } from './orders.ts';
import type { Rekey } from './rekey.ts';

export interface Fleet {
  readonly credentials: readonly Credential[];
  /** Specs that cannot be read, or orders for them: nothing is done for them, and they are reported. */
  readonly broken: readonly BrokenSpec[];
}

export interface BrokenSpec {
  readonly name: string;
  readonly reason: string;
  /** The key of the target that it names; undefined where that cannot be read either. */
  readonly target: string | undefined;
}

/** Every credential that is wanted, in one reading: the cost grows with pages, not with credentials. */
export async function readFleet(rekey: Rekey): Promise<Fleet> {
  const { ports } = rekey;
  const [specs, orders] = await Promise.all([
    ports.listParameters({ path: specParameterPath }),
    ports.listParameters({ path: directivesPath }),
  ]);
  const { directives, wrong } = readDirectives(orders);
  const none: Directives = {};
  return sorted(
    await Promise.all(
      specs.map(({ parameter, document }) => {
        const name = parameter.slice(specParameterPath.length);
        return credentialOf({ name, document }, rekey, async () => {
          const unreadable = wrong.get(name);
          // Whatever else is done for it might be against that order.
          if (unreadable !== undefined) throw wrongDirectives(unreadable);
          return directives.get(name) ?? none;
        });
      }),
    ),
  );
}

const readingsAtOnce = 5;
/** From this many credentials on, one listing of all orders takes fewer calls than a reading for each credential. */
const minListed = 30;

/** The same of the credentials of these names, without the rest of the fleet. Those that have no spec any more are left out. */
export async function readFleetOf(names: readonly string[], rekey: Rekey): Promise<Fleet> {
  const { ports } = rekey;
  if (names.length >= minListed) {
    const parameters = await readSpecs(names.map(specParameterName), rekey);
    const specs: readonly ListedParameter[] = [...parameters].map(([parameter, document]) => ({
      parameter,
      document,
    }));
    const listParameters: typeof ports.listParameters = async (request) =>
      request.path === specParameterPath ? specs : ports.listParameters(request);
    return readFleet({ ...rekey, ports: { ...ports, listParameters } });
  }
  const read = await inParallel(names, readingsAtOnce, async (name) => {
    // The spec is worth reading even where an order is not: it tells which target must be spared.
    const parameter = specParameterName(name);
    const standing = readStandingOrders(name, ports, { isPatient: true });
    const document = await standing.then(
      (found) => found.document,
      async (error: unknown) => {
        if (!(error instanceof InputError)) throw error;
        return (await ports.readParameters({ parameters: [parameter] })).get(parameter);
      },
    );
    if (document === undefined) return [];
    return [await credentialOf({ name, document }, rekey, async () => (await standing).directives)];
  });
  return sorted(read.flat());
}

/** The same of one credential whose spec and orders the caller has read. */
export const fleetOf = async (
  name: string,
  { document, directives }: StandingOrders & { readonly document: string },
  rekey: Rekey,
): Promise<Fleet> => sorted([await credentialOf({ name, document }, rekey, async () => directives)]);

/** The documents of these parameters, ten a call; what is absent is left out. */
export async function readSpecs(
  parameters: readonly string[],
  { ports }: Rekey,
): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  for (let from = 0; from < parameters.length; from += 10) {
    const page = await ports.readParameters({ parameters: parameters.slice(from, from + 10) });
    for (const [parameter, document] of page) found.set(parameter, document);
  }
  return found;
}

const sorted = (read: readonly (Credential | BrokenSpec)[]): Fleet => ({
  credentials: read.filter((each): each is Credential => 'spec' in each),
  broken: read.filter((each): each is BrokenSpec => 'reason' in each),
});

async function credentialOf(
  { name, document }: { readonly name: string; readonly document: string },
  rekey: Rekey,
  readOrders: () => Promise<Directives>,
): Promise<Credential | BrokenSpec> {
  let target: string | undefined;
  try {
    const stored = jsonOf(document);
    target = await targetKeyIn(stored, rekey);
    const spec = await parseSpec(stored, rekey);
    if (spec.name !== name)
      return {
        name,
        target,
        reason: `name: expected ${name}, as in the parameter's own name, got ${spec.name}`,
      };
    return { name, spec, directives: await readOrders() };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { name, target, reason: error.message };
  }
}

/** The key of the target that a stored spec names, whatever else in it is wrong. */
export async function targetKeyIn(stored: unknown, { loadProvider }: Rekey): Promise<string | undefined> {
  if (stored === null || typeof stored !== 'object' || !('provider' in stored && 'target' in stored))
    return undefined;
  const definition = await loadProvider(String(stored.provider));
  const target = definition?.targetSchema.safeParse(stored.target);
  return definition === undefined || target?.success !== true
    ? undefined
    : targetKey(String(stored.provider), definition.targetId(target.data));
}

/** Whether a spec that cannot be read may be of this target, so that users there may be its own. */
export const mayHaveBrokenSpecs = (broken: readonly BrokenSpec[], key: string): boolean =>
  broken.some(({ target }) => target === undefined || target === key);
