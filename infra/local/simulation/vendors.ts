import * as z from 'zod';
import { ProviderError } from '../../../functions/core/errors.ts';
import { type Guard, sendGuarded } from '../../../functions/core/guard.ts';
import type {
  AnyProviderDefinition,
  ChoosingProvider,
  DatabaseUser,
  IssuingProvider,
  LoadProvider,
  Provider,
  ProviderDefinition,
  UserPassword,
} from '../../../functions/core/provider.ts';
import { Sensitive } from '../../../functions/core/sensitive.ts';
import type { Clock } from '../clock.ts';

/**
 * Two vendors in memory, one that takes passwords and one that makes them, both as slow and as unreliable as wanted. They
 * remember every write, and know nothing of rekey.
 */
export interface SimulatedVendors {
  readonly loadProvider: LoadProvider;
  readonly targets: ReadonlyMap<string, SimulatedTarget>;
  /** Every write that a vendor carried out or refused for its rate. */
  readonly writes: readonly { readonly at: number; readonly apiKey: string }[];
}

export interface SimulatedTarget {
  readonly users: Map<string, SimulatedUser>;
  accepts(username: string, password: string): boolean;
}

export interface SimulatedUser {
  password: string;
  roles: string;
  isDefault: boolean;
  /** Connections that applications hold open. */
  connections: number;
}

export interface Disturbance {
  /** Asked before each call; the call fails before or after it took effect. */
  disturb(): 'fail-before' | 'fail-after' | undefined;
}

const targetSchema = z.strictObject({ id: z.string() });
/** Every vendor knows every role but this one. */
const unknownRole = 'nope';
const privilegesSchema = z.strictObject({ roles: z.string().default('orders_rw') });
type Target = z.output<typeof targetSchema>;
type Privileges = z.output<typeof privilegesSchema>;

const capabilities = {
  strategies: ['replace-user'],
  drainObservedBy: 'user-list',
  privilegesNeedLogin: false,
  demandsCurrentPassword: false,
  writes: { perMinute: 30, perRotation: 3 },
  parallelRotations: 1,
} as const;

export function createSimulatedVendors(
  { clock, apiKeyOf }: { clock: Clock; apiKeyOf: (key: Sensitive) => string },
  { disturb }: Disturbance,
): SimulatedVendors {
  const targets = new Map<string, SimulatedTarget>();
  const writes: { at: number; apiKey: string }[] = [];
  let made = 0;

  const targetOf = (id: string): SimulatedTarget => {
    const found = targets.get(id);
    if (found !== undefined) return found;
    const users = new Map<string, SimulatedUser>([
      ['owner', { password: 'known to the owner only', roles: 'all', isDefault: true, connections: 0 }],
    ]);
    const added = {
      users,
      accepts: (name: string, password: string) => users.get(name)?.password === password,
    };
    targets.set(id, added);
    return added;
  };

  /** A write leaves with its reasons, and a read without any. */
  const call = <T>(
    provider: string,
    operation: string,
    write: { readonly apiKey: string; readonly guard: Guard } | undefined,
    act: () => T,
  ): Promise<T> => {
    const send = () => exchange(provider, operation, write?.apiKey, act);
    return write === undefined ? send() : sendGuarded(write.guard, () => clock.now(), send);
  };

  async function exchange<T>(
    provider: string,
    operation: string,
    apiKey: string | undefined,
    act: () => T,
  ): Promise<T> {
    await clock.sleep(80);
    const what = disturb();
    const failure = (effect: 'none' | 'unknown') =>
      new ProviderError(`${provider} failed ${operation}`, {
        code: 'UNAVAILABLE',
        effect,
        provider,
        operation,
      });
    if (what === 'fail-before') throw failure(apiKey === undefined ? 'none' : 'unknown');
    if (apiKey !== undefined) writes.push({ at: clock.now().getTime(), apiKey });
    const answer = act();
    if (what === 'fail-after' && apiKey !== undefined) throw failure('unknown');
    return answer;
  }

  const listed = (id: string): readonly DatabaseUser[] =>
    [...targetOf(id).users].map(([username, { isDefault, connections }]) => ({
      username,
      isDefault,
      isProtected: isDefault || username === 'owner',
      openConnections: connections,
    }));

  function base(provider: string, id: string, apiKey: string, roles: string) {
    return {
      id: provider,
      readiness: async () => ({ ready: true }) as const,
      listUsers: () => call(provider, 'listUsers', undefined, () => listed(id)),
      endpoint: async () => ({ host: `${id}.simulated`, port: 5432, database: 'orders' }),
      deleteUser: (username: string, guard: Guard) =>
        call(provider, 'deleteUser', { apiKey, guard }, () => {
          const user = targetOf(id).users.get(username);
          if (user === undefined) return 'absent' as const;
          if (user.isDefault || username === 'owner')
            throw new ProviderError('it is protected', {
              code: 'BLOCKED',
              effect: 'none',
              provider,
              operation: 'deleteUser',
            });
          targetOf(id).users.delete(username);
          return 'deleted' as const;
        }),
      verify: ({ username, password }: UserPassword) =>
        call(provider, 'verify', undefined, () =>
          targetOf(id).accepts(username, password.reveal()) ? ('accepted' as const) : ('rejected' as const),
        ),
      privilegeDifferences: ({ username }: UserPassword) =>
        call(provider, 'privilegeDifferences', undefined, () =>
          targetOf(id).users.get(username)?.roles === roles ? [] : ['roles differ'],
        ),
      sessions: (username: string) =>
        call(provider, 'sessions', undefined, () => ({
          observed: true as const,
          open: targetOf(id).users.get(username)?.connections ?? 0,
        })),
      endSessions: (username: string, _login: UserPassword, _openedBefore: Date, guard: Guard) =>
        call(provider, 'endSessions', { apiKey, guard }, () => {
          const user = targetOf(id).users.get(username);
          if (user !== undefined) user.connections = 0;
          return { ended: true } as const;
        }),
    };
  }

  const choosing = (id: string, key: Sensitive, roles: string): ChoosingProvider => {
    const provider = 'simulated-choosing';
    const apiKey = apiKeyOf(key);
    const change = <T>(operation: string, guard: Guard, act: () => T): Promise<T> =>
      call(provider, operation, { apiKey, guard }, () => {
        if (roles === unknownRole)
          throw new ProviderError(`${provider} has no role ${roles}`, {
            code: 'ROLE_UNKNOWN',
            effect: 'none',
            provider,
            operation,
          });
        return act();
      });
    return {
      ...base(provider, id, apiKey, roles),
      passwords: 'chosen-by-us',
      createUser: ({ username, password }, guard) =>
        change('createUser', guard, () => {
          const { users } = targetOf(id);
          if (users.has(username)) return 'exists';
          users.set(username, { password: password.reveal(), roles, isDefault: false, connections: 0 });
          return 'created';
        }),
      setPassword: ({ username, next, isIdle = false }, guard) =>
        change('setPassword', guard, () => {
          const user = targetOf(id).users.get(username);
          if (user === undefined) return;
          user.password = next.reveal();
          if (isIdle) user.roles = roles;
        }),
      async applyPrivileges({ username }, guard) {
        const held = await call(provider, 'readPrivileges', undefined, () =>
          targetOf(id).users.get(username),
        );
        if (held === undefined || held.roles === roles) return;
        await change('applyPrivileges', guard, () => {
          held.roles = roles;
        });
      },
    };
  };

  const issuing = (id: string, key: Sensitive, roles: string): IssuingProvider => {
    const apiKey = apiKeyOf(key);
    const make = (username: string): void => {
      const { users } = targetOf(id);
      if (users.has(username)) return;
      for (const user of users.values()) user.isDefault = false;
      made += 1;
      users.set(username, {
        password: `issued-${made}`,
        roles,
        isDefault: true,
        connections: 0,
      });
    };
    return {
      ...base('simulated-issuing', id, apiKey, roles),
      passwords: 'chosen-by-provider',
      async issueUser(username, guard) {
        if (!targetOf(id).users.has(username))
          await call('simulated-issuing', 'issueUser', { apiKey, guard }, () => make(username));
        // A password can be read while its user is the default, and never again after that.
        const user = await call('simulated-issuing', 'readCredential', undefined, () =>
          targetOf(id).users.get(username),
        );
        if (user === undefined || !user.isDefault) return 'lost';
        return {
          host: `${id}.simulated`,
          port: 5432,
          database: 'orders',
          username,
          password: new Sensitive(user.password),
        };
      },
      placeDefault: (username, guard) =>
        call('simulated-issuing', 'placeDefault', { apiKey, guard }, () => make(username)),
    };
  };

  const definition = (
    id: string,
    passwords: Provider['passwords'],
    open: (target: string, apiKey: Sensitive, roles: string) => Provider,
  ): AnyProviderDefinition => {
    const typed: ProviderDefinition<Target, Privileges> = {
      id,
      engine: 'simulated',
      capabilities: { ...capabilities, passwords, passwordReadableAgain: 'never' },
      targetSchema,
      privilegesSchema,
      targetId: (target) => target.id,
      targetOf: ({ targetId }) => ({ id: targetId }),
      ready: (login) => ({ url: `simulated://${login.username}@${login.host}` }),
      open: ({ target, privileges, apiKey }) => open(target.id, apiKey, privileges.roles),
    };
    return typed as AnyProviderDefinition;
  };
  const definitions = new Map([
    ['simulated-choosing', definition('simulated-choosing', 'chosen-by-us', choosing)],
    ['simulated-issuing', definition('simulated-issuing', 'chosen-by-provider', issuing)],
  ]);
  return { loadProvider: async (id) => definitions.get(id), targets, writes };
}
