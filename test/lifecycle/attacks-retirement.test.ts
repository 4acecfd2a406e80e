import { afterEach, describe, expect, test } from 'vitest';
import { directiveParameter } from '../../functions/core/directives.ts';
import { specParameterName } from '../../functions/core/names.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import {
  anotherPassword,
  hourMs,
  type Made,
  minuteMs,
  targets,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { token, withoutEvent } from '../support/rekey.ts';

/** What changed between the first reading of a pass of delete-user and its writes, and what such a pass must not destroy then. */

const world = useCredentialWorld();
const { vendors, rekey, credential, login, works, labels, putLabel, move } = world;
const { clusterId } = targets['zilliz-cloud'].target;
const dayMs = 24 * hourMs;

afterEach(() => {
  rekey().interruptAt(undefined);
  vendors().zilliz.api.faults.clear();
  vendors().vultr.api.faults.clear();
  vendors().zilliz.api.actor.setStatus(clusterId, 'RUNNING');
});

/** Credential on Zilliz without grace that was rotated: its first user may go. */
async function rotated() {
  const made = await credential({ provider: 'zilliz-cloud' }, { grace: 'PT0S' });
  const superseded = await login(made);
  move(hourMs);
  await rekey().rotate(made.name);
  move(hourMs);
  return { made, superseded };
}

/** Pause of all writes, or its end. */
const order = (type: 'RekeyPaused' | 'RekeyResumed') =>
  rekey().order({ is: 'pause', order: type, on: undefined, orderedAt: world.now() });

const orderDeletion = ({ name }: Made) =>
  ({
    is: 'order',
    order: 'CredentialDeletionRequested',
    credential: name,
    orderedAt: world.now(),
  }) as const;

describe('a user that another credential adopts', () => {
  /** Another credential adopts `user` before the next vendor call of a pass. */
  async function adoptDuringPass({ username, password }: Awaited<ReturnType<typeof login>>) {
    const passwordSecret = `rekey/adopt/${username}`;
    await world.secrets('CreateSecret', {
      Name: passwordSecret,
      ClientRequestToken: token(),
      SecretString: JSON.stringify({ username, password: password.reveal() }),
    });
    const adopting: Made[] = [];
    const by = async (): Promise<void> => {
      adopting.push(await credential({ provider: 'zilliz-cloud' }, { adopt: { username, passwordSecret } }));
    };
    rekey().interruptAt({ call: 'http', when: 'before', by });
    return async () => {
      const [one] = adopting;
      if (one === undefined) throw new Error('the pass made no call');
      return login(one);
    };
  }

  test('I3: is not retired by a pass that began before the adoption', async () => {
    const { superseded } = await rotated();
    const adopted = await adoptDuringPass(superseded);
    await rekey().sweep();
    expect((await adopted()).username).toBe(superseded.username);
    expect(await works(await adopted())).toBe(true);
    move(hourMs);
    await rekey().sweep();
    expect(await works(await adopted()), 'after the next pass').toBe(true);
  });

  test('I3: is not deleted with the credential that made it if the adoption came after the pass began', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    const current = await login(made);
    move(hourMs);
    const adopted = await adoptDuringPass(current);
    await rekey().sweep(orderDeletion(made));
    expect(await works(await adopted())).toBe(true);
    for (let passes = 0; passes < 4; passes += 1) {
      move(hourMs);
      await rekey().sweep();
    }
    expect(world.published('CredentialDeleted', made), 'the deletion goes on without that user').toHaveLength(
      1,
    );
    expect(await works(await adopted()), 'after the deletion').toBe(true);
  });
});

describe('a superseded user', () => {
  test('I3: stays if its grace was prolonged after the pass judged it', async () => {
    const { made, superseded } = await rotated();
    const by = () => world.storeSpec(made, { grace: 'P7D' });
    rekey().interruptAt({ call: 'http', when: 'before', by: async () => void (await by()) });
    await rekey().sweep();
    expect(await works(superseded)).toBe(true);
    expect(world.published('DatabaseUserRetired', made)).toEqual([]);
  });

  test('I25: stays if AWSCURRENT was refused after the pass had proved it', async () => {
    const { made, superseded } = await rotated();
    const { username } = await login(made);
    const by = async (): Promise<void> => {
      move(10 * minuteMs);
      await world.setPasswordByHand(made, username, anotherPassword);
    };
    // The note of the intent: the deletion has not left.
    rekey().interruptAt({ call: 'writeNote', when: 'after', by });
    await rekey().sweep();
    expect(await works(superseded), 'the last login that works').toBe(true);
  });
});

describe('sightings of a gone target', () => {
  const hide = () =>
    vendors().vultr.api.faults.inject({
      operation: 'getDatabase',
      kind: 'status',
      status: 404,
      json: { error: 'Not a valid Database Subscription UUID', status: 404 },
      times: 1000,
    });

  test('I8: do not count any more after the time of the credential was prolonged', async () => {
    const inTwoHours = new Date(world.now().getTime() + 2 * hourMs).toISOString();
    const made = await credential({ provider: 'vultr-valkey' }, { expiresAt: inTwoHours });
    move(3 * hourMs);
    for (let passes = 0; passes < 2; passes += 1) {
      hide();
      await rekey().sweep();
      move(hourMs / 4);
    }
    vendors().vultr.api.faults.clear();
    await world.storeSpec(made, { expiresAt: new Date(world.now().getTime() + 3 * dayMs).toISOString() });
    await rekey().sweep();
    move(3 * dayMs + hourMs);
    hide();
    await rekey().sweep();
    expect(world.published('CredentialDeleted', made)).toEqual([]);
    vendors().vultr.api.faults.clear();
    await rekey().sweep();
    expect(world.published('CredentialDeleted', made)).toHaveLength(1);
    expect(await world.usersAt(made)).toEqual([]);
  });

  test('I8: are reset by a pass that finds the target and cannot read its user list', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    move(hourMs);
    const { actor, faults } = vendors().zilliz.api;
    actor.setStatus(clusterId, 'DELETED');
    await rekey().sweep(orderDeletion(made));
    actor.setStatus(clusterId, 'RUNNING');
    faults.inject({ operation: 'listUsers', kind: 'status', status: 403, times: 1000 });
    move(30 * hourMs);
    await rekey().sweep();
    faults.clear();
    actor.setStatus(clusterId, 'DELETED');
    for (let passes = 0; passes < 2; passes += 1) {
      move(hourMs / 4);
      await rekey().sweep();
    }
    expect(world.published('CredentialDeleted', made)).toEqual([]);
  });
});

describe('DatabaseUserDeleted', () => {
  const toldOf = (made: Made, username: string) =>
    world.published('DatabaseUserDeleted', made).filter((detail) => detail['username'] === username);

  test('I22: is not published of a user that became current again and was then deleted by hand', async () => {
    const { made, superseded } = await rotated();
    const by = async (): Promise<void> => {
      move(minuteMs);
      await order('RekeyPaused');
    };
    rekey().interruptAt({ call: 'writeNote', when: 'after', by });
    await rekey().sweep();
    await putLabel(made, 'AWSCURRENT', (await labels(made))['AWSPREVIOUS']);
    move(minuteMs);
    await order('RekeyResumed');
    move(hourMs);
    await rekey().sweep();
    expect((await login(made)).username).toBe(superseded.username);
    expect(await works(superseded)).toBe(true);
    vendors().zilliz.api.actor.deleteUser(clusterId, superseded.username);
    await rekey().sweep();
    expect(toldOf(made, superseded.username)).toEqual([]);
  });

  test('I22: is not published of a user whose intent the bus refused', async () => {
    const { made, superseded } = await rotated();
    await world.failureOf(
      world.invokeWith(
        (ports) => withoutEvent('DatabaseUserRetired', ports),
        (inner, until) => deleteUsers({ is: 'pass', dryRun: false }, until, inner),
      ),
    );
    expect(await works(superseded)).toBe(true);
    vendors().zilliz.api.actor.deleteUser(clusterId, superseded.username);
    await rekey().sweep();
    expect(toldOf(made, superseded.username)).toEqual([]);
  });
});

describe('the late end of a deletion, after the credential was restored and requested anew', () => {
  /** The pass of a deletion stands still before it deletes `parameter`; meanwhile another one ends, and the credential is made anew. */
  async function lateDeletion(
    made: Made,
    parameter: string,
    meanwhile = async (): Promise<void> => undefined,
  ) {
    let late = 0;
    move(hourMs);
    const invocation = orderDeletion(made);
    const makeAnew = async (): Promise<void> => {
      move(20 * minuteMs);
      await rekey().sweep();
      await world.secrets('RestoreSecret', { SecretId: `rekey/${made.name}` });
      move(minuteMs);
      await rekey().request(made.spec);
      await rekey().secretsManager.idle();
      await meanwhile();
    };
    await world.failureOf(
      world.invokeWith(
        (ports) => ({
          deleteParameter: async (request) => {
            if (request.parameter === parameter && late === 0) {
              late += 1;
              await makeAnew();
            }
            return ports.deleteParameter(request);
          },
        }),
        (inner, until) => deleteUsers(invocation, until, inner),
      ),
    );
    expect(late, 'passes that stood still').toBe(1);
  }

  test('I27: does not take away the order to delete the new credential', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    const parameter = directiveParameter(made.name, 'deleteSince');
    await lateDeletion(made, parameter, async () => {
      move(minuteMs);
      await rekey().sweep(orderDeletion(made));
      expect(await rekey().parameter(parameter), 'the second order').toBeDefined();
    });
    for (let passes = 0; passes < 4; passes += 1) {
      move(hourMs);
      await rekey().sweep();
    }
    expect(await rekey().parameter(specParameterName(made.name))).toBeUndefined();
    expect(await world.usersAt(made)).toEqual([]);
  });

  test('I27: does not take away the spec of the new credential', async () => {
    const made = await credential({ provider: 'zilliz-cloud' });
    await lateDeletion(made, specParameterName(made.name));
    expect(await rekey().parameter(specParameterName(made.name))).toBeDefined();
    move(hourMs);
    await rekey().sweep();
    expect(await works(await login(made))).toBe(true);
  });
});
