import { afterEach, describe, expect, test } from 'vitest';
import { specParameterName, specParameterPath } from '../../functions/core/names.ts';
import type { Ports } from '../../functions/core/ports.ts';
import type { Login } from '../../functions/core/provider.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import { readFleet } from '../../functions/lifecycle/fleet.ts';
import { addMember, listMemberNotes, noteMembers } from '../../functions/lifecycle/members.ts';
import {
  hourMs,
  type Made,
  minuteMs,
  type ProviderId,
  targets,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { token } from '../support/rekey.ts';

/** What the guard of a deletion knows of the other credentials of a target, and what must not come of what it does not know. */

const world = useCredentialWorld();
const { rekey, credential, login, works, move } = world;
const provider: ProviderId = 'zilliz-cloud';
const { clusterId } = targets[provider].target;
const other = 'in01-208240180a4faf8';
const key = `${provider}/${clusterId}`;

afterEach(() => {
  rekey().refuse();
  rekey().interruptAt(undefined);
});

type Call = Parameters<typeof deleteUsers>[0];
const pass = { is: 'pass', dryRun: false } as const;

/** delete-user; answers how often it listed the specs. */
async function sweep(call: Call, change: (ports: Ports) => Partial<Ports> = () => ({})): Promise<number> {
  let listings = 0;
  await world.invokeWith(
    (ports) => ({
      ...change(ports),
      listParameters: async (request) => {
        if (request.path === specParameterPath) listings += 1;
        return ports.listParameters(request);
      },
    }),
    (inner, until) => deleteUsers(call, until, inner),
  );
  return listings;
}

/** The spec of a credential that adopts the user of this login, and its password. */
async function adopting({ username, password }: Login): Promise<object> {
  const passwordSecret = `rekey/adopt/${username}-${token()}`;
  await world.secrets('CreateSecret', {
    Name: passwordSecret,
    ClientRequestToken: token(),
    SecretString: JSON.stringify({ username, password: password.reveal() }),
  });
  return { adopt: { username, passwordSecret } };
}
/** A credential whose first user was superseded long ago, as a pass of start-rotations notes it. */
async function rotated(): Promise<{ readonly made: Made; readonly superseded: Login }> {
  const made = await credential({ provider });
  const superseded = await login(made);
  move(hourMs);
  await rekey().rotate(made.name);
  move(26 * hourMs);
  await world.start();
  return { made, superseded };
}
/** As a deployment stores it: no function has seen it. */
async function deploy(more: object): Promise<string> {
  const name = `deployed-${token().slice(0, 8)}`;
  const spec = { provider, ...targets[provider], name, usernamePrefix: name.replace('-', '_'), ...more };
  await world.parameters('PutParameter', {
    Name: specParameterName(name),
    Value: JSON.stringify(spec),
    Type: 'String',
  });
  deployed.push(name);
  return name;
}
const deployed: string[] = [];
afterEach(async () => {
  for (const name of deployed.splice(0))
    await world.parameters('DeleteParameter', { Name: specParameterName(name) });
});
const noted = async (): Promise<readonly string[]> =>
  JSON.parse((await rekey().notes.stored('members'))[key] ?? '{"credentials":[]}').credentials;
const forgetNotes = async (): Promise<void> => {
  for (const each of Object.keys(await rekey().notes.stored('members')))
    await rekey().notes.ports.deleteNote({ place: 'members', key: each });
};

describe('the deletion of a user lists specs only once, for its pass', () => {
  test('of a superseded user', async () => {
    const { superseded } = await rotated();
    expect(await sweep(pass)).toBe(1);
    expect(await works(superseded)).toBe(false);
  });

  test('of a user whose credential goes, once a pass has read the fleet since the order', async () => {
    const made = await credential({ provider });
    const used = await login(made);
    move(hourMs);
    await world.direct(made, 'deleteSince');
    move(5 * minuteMs);
    await world.start();
    expect(await sweep(pass)).toBe(1);
    expect(await works(used)).toBe(false);
  });

  test('once if the deletion was ordered, however many users go', async () => {
    const { made, superseded } = await rotated();
    const used = await login(made);
    expect(await sweep(world.deletionOf(made))).toBe(1);
    expect([await works(used), await works(superseded)]).toEqual([false, false]);
  });
});

describe('I3: a user stays that another credential adopts', () => {
  test('if the credential was requested after the pass had read the fleet', async () => {
    const { superseded } = await rotated();
    const more = await adopting(superseded);
    rekey().interruptAt({
      call: 'http',
      when: 'before',
      by: async () => void (await credential({ provider }, more)),
    });
    expect(await sweep(pass)).toBe(1);
    expect(await works(superseded)).toBe(true);
  });

  test('as soon as create-user has stored its spec', async () => {
    const { superseded } = await rotated();
    const more = await adopting(superseded);
    // delete-user runs right after create-user has stored the spec.
    rekey().interruptAt({
      call: 'createParameter',
      when: 'after',
      by: async () => void (await rekey().sweep()),
    });
    await credential({ provider }, more);
    expect(await works(superseded)).toBe(true);
  });

  test('if a neighbour’s spec was edited by hand right before', async () => {
    const { superseded } = await rotated();
    const neighbour = await credential({ provider });
    await world.start();
    const more = await adopting(superseded);
    // Before the first call to the vendor, after the pass has read the fleet.
    rekey().interruptAt({
      call: 'http',
      when: 'before',
      by: async () => void (await world.storeSpec(neighbour, more)),
    });
    expect(await sweep(pass)).toBe(1);
    expect(await works(superseded)).toBe(true);
  });

  test.each(['here', 'elsewhere'] as const)(
    'if the credential was deployed, or moved here, before the deletion was ordered (it was %s)',
    async (was) => {
      const made = await credential({ provider });
      const used = await login(made);
      const more = await adopting(used);
      const name = was === 'elsewhere' ? await deploy({ target: { clusterId: other } }) : undefined;
      move(hourMs);
      await world.start();
      move(minuteMs);
      if (name === undefined) await deploy(more);
      else
        await world.parameters('PutParameter', {
          Name: specParameterName(name),
          Value: JSON.stringify({ provider, ...targets[provider], name, usernamePrefix: 'moved', ...more }),
          Type: 'String',
          Overwrite: true,
        });
      move(minuteMs);
      await sweep(world.deletionOf(made));
      expect(await works(used)).toBe(true);
    },
  );

  test('if the credential was deployed a quarter of an hour ago and no pass has noted the fleet since', async () => {
    const { superseded } = await rotated();
    const more = await adopting(superseded);
    move(minuteMs);
    await deploy(more);
    move(16 * minuteMs);
    // As the pass that read the fleet before it was deployed.
    const stale = await rekey().invoke(({ ports }) => ports.listParameters({ path: specParameterPath }));
    const before = stale.filter(({ parameter }) => !parameter.startsWith(`${specParameterPath}deployed-`));
    let isFirst = true;
    await world.invokeWith(
      (ports) => ({
        listParameters: async (request) => {
          if (request.path !== specParameterPath || !isFirst) return ports.listParameters(request);
          isFirst = false;
          return before;
        },
      }),
      (inner, until) => deleteUsers(pass, until, inner),
    );
    expect(isFirst).toBe(false);
    expect(await works(superseded)).toBe(true);
  });

  const unknown: Readonly<Record<string, () => Promise<unknown>>> = {
    'the table does not answer': async () => rekey().refuse('readNote', 'listNotes'),
    'there is no note': forgetNotes,
    'the note has expired': async () => {
      for (const [each, document] of Object.entries(await rekey().notes.stored('members'))) {
        const expiresAt = new Date(world.now().getTime() - 1_000);
        await rekey().notes.ports.writeNote({ place: 'members', key: each, document, expiresAt });
      }
    },
    'the note is no note': () => rekey().notes.put('members', key, '{"credentials":"all"}'),
    'the note is partial': async () => {
      await forgetNotes();
      await world.start();
      await rekey().notes.ports.deleteNote({ place: 'members', key });
      await rekey().invoke((context) => addMember({ name: 'x', provider, targetId: clusterId }, context));
    },
    'a spec that cannot be read may be of the target': async () => {
      await deploy({ target: { clusterId: 7 } });
      move(5 * minuteMs);
      await world.start();
      const document = JSON.parse((await rekey().notes.stored('members'))[key] ?? '') as object;
      expect(document).toMatchObject({ hasBrokenSpecs: true });
    },
  };
  test.each(Object.entries(unknown))('where the note does not tell of it: %s', async (_what, happen) => {
    const { superseded } = await rotated();
    const neighbour = await credential({ provider });
    await world.start();
    const more = await adopting(superseded);
    await happen();
    let isEdited = false;
    const listings = await sweep(pass, ({ http }) => ({
      http: async (request) => {
        if (!isEdited) await world.storeSpec(neighbour, more);
        isEdited = true;
        return http(request);
      },
    }));
    expect(isEdited).toBe(true);
    expect(listings).toBeGreaterThan(1);
    expect(await works(superseded)).toBe(true);
  });

  test('if its spec cannot be read because an operator edited it since the last pass', async () => {
    const { superseded } = await rotated();
    const neighbour = await credential({ provider });
    await world.start();
    const more = await adopting(superseded);
    await world.storeSpec(neighbour, { ...more, grace: 'a while' });
    await sweep(pass);
    expect(await works(superseded)).toBe(true);
  });
});

describe('the note of a target keeps a credential that create-user adds', () => {
  const name = 'young';
  const place = { name, provider, targetId: clusterId };
  const storeSpec = () =>
    world.parameters('PutParameter', {
      Name: specParameterName(name),
      Value: JSON.stringify({ provider, ...targets[provider], name, usernamePrefix: name }),
      Type: 'String',
    });
  afterEach(async () => {
    await world.parameters('DeleteParameter', { Name: specParameterName(name) }).catch(() => undefined);
    await forgetNotes();
  });

  /** What a pass does in turn, with the steps of create-user in between. */
  const orders: Readonly<Record<string, readonly ('list' | 'read' | 'note' | 'add' | 'store')[]>> = {
    'after the pass has listed the notes': ['list', 'add', 'store', 'read', 'note'],
    'after the pass has read the fleet': ['list', 'read', 'add', 'store', 'note'],
    'before the pass, whose reading does not have the spec yet': ['add', 'list', 'read', 'store', 'note'],
    'and stores the spec after the pass': ['add', 'list', 'read', 'note', 'store'],
  };
  describe.each([true, false])('(the target has a note: %s)', (hasNote) => {
    test.each(Object.entries(orders))('%s', async (_when, steps) => {
      const made = await credential({ provider });
      await forgetNotes();
      if (hasNote) await world.start();
      move(hourMs + minuteMs);
      await rekey().invoke(async (context) => {
        let before: Awaited<ReturnType<typeof listMemberNotes>> = 'unreadable';
        let fleet: Awaited<ReturnType<typeof readFleet>> | undefined;
        for (const step of steps) {
          if (step === 'list') before = await listMemberNotes(context);
          else if (step === 'read') fleet = await readFleet(context);
          else if (step === 'add') await addMember(place, context);
          else if (step === 'store') await storeSpec();
          else if (fleet !== undefined) await noteMembers(fleet, before, context);
        }
      });
      expect(await noted()).toContain(name);
      // The next pass completes what is partial.
      await world.start();
      expect(await noted()).toEqual([made.name, name].toSorted());
    });
  });

  test('until an hour has passed without a spec', async () => {
    const made = await credential({ provider });
    await rekey().invoke((context) => addMember(place, context));
    move(59 * minuteMs);
    await world.start();
    expect(await noted()).toContain(name);
    move(2 * minuteMs);
    await world.start();
    expect(await noted()).toEqual([made.name]);
  });

  test('although the note was about to expire', async () => {
    await credential({ provider });
    await rekey().notes.ports.writeNote({
      place: 'members',
      key,
      document: JSON.stringify({ credentials: [], hasBrokenSpecs: false }),
      expiresAt: new Date(world.now().getTime() + minuteMs),
    });
    await rekey().invoke((context) => addMember(place, context));
    move(30 * minuteMs);
    await world.start();
    expect(await noted()).toContain(name);
  });

  test('and no pass that could not replace a note says that it knows all specs', async () => {
    await credential({ provider });
    await forgetNotes();
    await rekey().invoke(async (context) => {
      const before = await listMemberNotes(context);
      const fleet = await readFleet(context);
      await addMember(place, context);
      await noteMembers(fleet, before, context);
    });
    expect(Object.keys(await rekey().notes.stored('members'))).toEqual([key]);
    await world.start();
    expect(Object.keys(await rekey().notes.stored('members')).toSorted()).toEqual(['fleet', key]);
  });
});

describe('while the table of notes cannot be written', () => {
  test('I3: a credential that adopts a user is not made, and the request comes again', async () => {
    const { superseded } = await rotated();
    const more = await adopting(superseded);
    const spec = { provider, ...targets[provider], name: 'adopter', usernamePrefix: 'adopter', ...more };
    rekey().refuse('writeNote');
    expect(await world.failureOf(rekey().request(spec))).toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect(await rekey().parameter(specParameterName('adopter'))).toBeUndefined();
    await expect(rekey().describe('adopter')).rejects.toThrow();
    rekey().refuse();
    await rekey().request(spec);
    expect((await rekey().login('adopter', 'AWSCURRENT'))?.username).toBe(superseded.username);
    expect(await sweep(pass)).toBe(1);
    expect(await works(superseded)).toBe(true);
    await world.parameters('DeleteParameter', { Name: specParameterName('adopter') });
  });

  test.each([
    ['takes no writes', ['writeNote']],
    ['cannot be reached', ['readNote', 'listNotes', 'writeNote', 'deleteNote']],
  ] as const)(
    'a credential that gets a user of its own is made all the same (the table %s)',
    async (_what, refused) => {
      rekey().refuse(...refused);
      const made = await credential({ provider });
      rekey().refuse();
      expect(await works(await login(made))).toBe(true);
    },
  );
});
