import { type Directives, readDirectives, wrongDirectives } from '../core/directives.ts';
import { InputError } from '../core/errors.ts';
import type { Credential } from '../core/fleet.ts';
import { jsonOf } from '../core/json.ts';
import { directivesPath, specParameterPath } from '../core/names.ts';
import { parseSpec } from '../core/spec.ts';
import type { Rekey } from './rekey.ts';

export interface Fleet {
  readonly credentials: readonly Credential[];
  /** Specs that cannot be read, or orders for them: nothing is done for them, and they are reported. */
  readonly broken: readonly BrokenSpec[];
}

export interface BrokenSpec {
  readonly name: string;
  readonly reason: string;
}

/** Every credential that is wanted, in one reading: the cost grows with pages, not with credentials. */
export async function readFleet(rekey: Rekey): Promise<Fleet> {
  const { ports } = rekey;
  const [specs, orders] = await Promise.all([
    ports.listParameters({ path: specParameterPath }),
    ports.listParameters({ path: directivesPath }),
  ]);
  const { directives, wrong } = readDirectives(orders);
  const read = await Promise.all(
    specs.map(async ({ parameter, document }): Promise<Credential | BrokenSpec> => {
      const name = parameter.slice(specParameterPath.length);
      try {
        const spec = await parseSpec(jsonOf(document), rekey);
        if (spec.name !== name)
          return { name, reason: `name: expected ${name}, as in the parameter's own name, got ${spec.name}` };
        const unreadable = wrong.get(name);
        // Whatever else is done for it might be against that order.
        if (unreadable !== undefined) throw wrongDirectives(unreadable);
        const none: Directives = {};
        return { name, spec, directives: directives.get(name) ?? none };
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        return { name, reason: error.message };
      }
    }),
  );
  return {
    credentials: read.filter((each): each is Credential => 'spec' in each),
    broken: read.filter((each): each is BrokenSpec => 'reason' in each),
  };
}
