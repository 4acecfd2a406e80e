import { describe, expect, test } from 'vitest';
import type { Login } from '../../functions/core/provider.ts';
import {
  choosing,
  hourMs,
  type Made,
  minuteMs,
  targets,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { deaths } from '../support/rekey.ts';

// A credential that declares a right which the vendor does not know: whatever fails or dies, nobody gets a right that is not declared.

const world = useCredentialWorld();
const { vendors, rekey, credential, login, works, labels, putLabel, move } = world;

type Choosing = (typeof choosing)[number];
interface Vendor {
  /** What the spec declares, with a right that the vendor does not know beside one that it does. */
  readonly declared: object;
  /** The rights of a user beyond what is declared, asked of the engine. */
  readonly beyond: (username: string) => Promise<readonly string[]>;
  readonly authenticates: (login: Login) => Promise<boolean>;
  readonly faults: () => { inject(fault: never): void; clear(): void };
}

const vendorsOf: Record<Choosing, Vendor> = {
  'cockroachdb-cloud': {
    declared: { roles: ['orders_rw', 'no_such_role'] },
    async beyond(username) {
      const { postgres } = vendors().cockroachdb;
      const [user] = await postgres.query(
        'SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = $1',
        [username],
      );
      const granted = await postgres.query(
        `SELECT granted.rolname FROM pg_auth_members
         JOIN pg_roles AS granted ON granted.oid = pg_auth_members.roleid
         JOIN pg_roles AS member ON member.oid = pg_auth_members.member
         WHERE member.rolname = $1`,
        [username],
      );
      const roles = granted.map(({ rolname }) => String(rolname));
      return [
        ...roles.filter((role) => role !== 'orders_rw'),
        ...Object.keys(user ?? {}).filter((attribute) => user?.[attribute] === true),
      ];
    },
    authenticates: async (one) => {
      const client = await vendors()
        .connect(one, 'looks')
        .catch(() => undefined);
      await client?.end();
      return client !== undefined;
    },
    faults: () => vendors().cockroachdb.api.faults,
  },
  'vultr-valkey': {
    declared: { categories: ['+@read', '+@nosuch'], keys: ['orders:*'] },
    async beyond(username) {
      const answer = await vendors().vultr.engine.call('ACL', 'GETUSER', username);
      if (!Array.isArray(answer)) return [];
      const at = (field: string): string => String(answer[answer.indexOf(field) + 1]);
      const words = `${at('commands')} ${at('keys')}`.split(' ');
      return words.filter((word) => !['', '-@all', '+@read', '~orders:*'].includes(word));
    },
    authenticates: async (one) => {
      const client = await vendors()
        .connectToValkey(one)
        .catch(() => undefined);
      client?.disconnect();
      return client !== undefined;
    },
    faults: () => vendors().vultr.api.faults,
  },
  'zilliz-cloud': {
    declared: { roles: ['orders_rw', 'no_such_role'] },
    async beyond(username) {
      const users = cluster()?.users() ?? [];
      const { roles = [] } = users.find((user) => user.username === username) ?? {};
      return roles.filter((role) => role !== 'orders_rw');
    },
    authenticates: async ({ username, password }) =>
      cluster()?.authenticates(username, password.reveal()) === true,
    faults: () => vendors().zilliz.api.faults,
  },
};
const cluster = () => vendors().zilliz.api.clusters.get(targets['zilliz-cloud'].target.clusterId);

/** For a rotation a call and more. */
const allMs = 600_000;

const changing: ReadonlySet<string> = new Set([
  'http',
  'sql',
  'valkey',
  'writeSecret',
  'moveLabel',
  'publish',
]);

describe.each(choosing)(
  'S3: no failed rotation leaves rights behind: a declared right is unknown to %s,',
  (provider) => {
    const { declared, beyond, authenticates, faults } = vendorsOf[provider];

    /** What is held beyond the spec by whoever reads the secret, at any instant. */
    async function readable(one: Made): Promise<readonly string[]> {
      const held: string[] = [];
      for (const label of ['AWSPENDING', 'AWSCURRENT']) {
        const known = await rekey().login(one.name, label);
        if (known !== undefined && (await authenticates(known)))
          held.push(...(await beyond(known.username)).map((right) => `${label}: ${right}`));
      }
      return held;
    }
    const everybody = async (one: Made): Promise<readonly string[]> =>
      (await Promise.all((await world.usersAt(one)).map(beyond))).flat();

    /** Rotates with every death and every failure of the vendor in turn; answers what was wrong afterwards. */
    async function whatever(one: Made, left: readonly string[]): Promise<readonly string[]> {
      const wrong: string[] = [];
      let tries = 0;
      const settled = async (what: string): Promise<void> => {
        tries += 1;
        const atOnce = await readable(one);
        // Within the half hour in which a user that was never published goes.
        move(31 * minuteMs);
        await rekey().sweep();
        const [users, held] = [await world.usersAt(one), await everybody(one)];
        if (atOnce.length > 0 || held.length > 0) wrong.push(`${what}: ${[...atOnce, ...held].join(', ')}`);
        if (users.join() !== left.join()) wrong.push(`${what}: ${users.join(', ') || 'nobody'} left`);
        if ((await labels(one))['AWSPENDING'] !== undefined) wrong.push(`${what}: AWSPENDING stays`);
      };

      rekey().killAt(undefined);
      await rekey().rotate(one.name);
      const calls = [...rekey().calls];
      expect(rekey().failures).toMatchObject([{ code: 'ROLE_UNKNOWN' }]);
      await settled('nothing else');
      // A call that only reads leaves the same world before and after it.
      const places = deaths(calls).filter(({ name, when }) => when === 'after' || changing.has(name));
      for (const { call, when, name } of places) {
        let atDeath: readonly string[] = [];
        const look = async (): Promise<void> => {
          atDeath = await readable(one);
        };
        rekey().killAt({ call, when, look });
        await rekey().rotate(one.name);
        rekey().killAt(undefined);
        if (atDeath.length > 0) wrong.push(`at death ${when} call ${call} (${name}): ${atDeath.join(', ')}`);
        await settled(`killed ${when} call ${call} (${name})`);
      }
      const requests = calls.filter((name) => name === 'http').length;
      for (let skip = 0; skip < requests; skip += 1)
        for (const fault of [
          { kind: 'status', status: 403 },
          { kind: 'status', status: 500, applied: true },
          { kind: 'reset-after-apply' },
        ]) {
          faults().inject({ ...fault, operation: '*', skip } as never);
          await rekey().rotate(one.name);
          faults().clear();
          await settled(`${JSON.stringify(fault)} after ${skip} requests`);
        }
      expect(tries).toBeGreaterThan(10);
      return wrong;
    }

    test(
      'of its first user',
      async () => {
        // The first rotation comes to nothing before the vendor is asked for anything, so that each of the others is a first one.
        faults().inject({ operation: '*', kind: 'status', status: 403, times: 99 } as never);
        rekey().secretsManager.setVariants({ retryDelaysMs: [] });
        const one = await credential({ provider }, { privileges: declared });
        faults().clear();
        await putLabel(one, 'AWSPENDING', undefined);
        rekey().failures.length = 0;
        rekey().secretsManager.setVariants({ retryDelaysMs: [1_000] });
        expect(await whatever(one, [])).toEqual([]);
      },
      allMs,
    );

    test(
      'of a later rotation, and the current user works on',
      async () => {
        const one = await credential({ provider });
        move(hourMs);
        await world.storeSpec(one, { privileges: declared });
        const current = await login(one);
        rekey().secretsManager.setVariants({ retryDelaysMs: [1_000] });
        expect(await whatever(one, [current.username])).toEqual([]);
        expect(await works(current)).toBe(true);
      },
      allMs,
    );
  },
);
