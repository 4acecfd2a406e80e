// What an attacker found in orders that come by the thousand, and in what is noted about them.

import { afterEach, describe, expect, test } from 'vitest';
import { type DirectiveKind, directiveParameter } from '../../functions/core/directives.ts';
import { StoreError } from '../../functions/core/errors.ts';
import type { StartTask } from '../../functions/core/fleet.ts';
import { specParameterName } from '../../functions/core/names.ts';
import { carryOutOrders, takeOrder } from '../../functions/lifecycle/carry-out-orders.ts';
import { deleteUsers } from '../../functions/lifecycle/delete-user.ts';
import {
  hourMs,
  type Made,
  minuteMs,
  targets,
  useAdministrator,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { functionArn, token } from '../support/rekey.ts';

const world = useCredentialWorld();
const adminSecret = useAdministrator(world);
const { vendors, rekey, credential, login, works, move, compromise, sweepQuarters } = world;
const zilliz = 'zilliz-cloud';
afterEach(() => {
  rekey().refuse();
  rekey().interruptAt(undefined);
});
const stands = ({ name }: Made, kind: DirectiveKind) => rekey().parameter(directiveParameter(name, kind));
const compromiseOf = ({ name }: Made, more: { evenIfLockedOut?: true } = {}) => ({
  is: 'order' as const,
  order: 'CredentialCompromised' as const,
  credential: name,
  orderedAt: world.now(),
  ...more,
});
async function take(order: ReturnType<typeof compromiseOf>) {
  const queued: StartTask[] = [];
  await world.invokeWith(
    () => ({ enqueueStart: async (starts) => void queued.push(...starts) }),
    (inner, until) => takeOrder(order, until, inner),
  );
  return queued.map(({ id, ...start }) => ({ ...start, messageId: id }));
}

describe('what is noted of a revocation', () => {
  test.each(['unreadable', 'as it is'] as const)(
    'I1, I4: days after a revocation, those who have logged in since stay connected in their grace (the note %s)',
    async (how) => {
      const made = await credential(
        { provider: 'cockroachdb-cloud', strategy: 'alternate-users' },
        { adminSecret },
      );
      move(30 * hourMs);
      await compromise(made);
      await sweepQuarters(3);
      move(30 * hourMs);
      await rekey().rotate(made.name);
      await sweepQuarters(3);
      expect((await rekey().notes.stored('revocations'))[made.name]).toBeDefined();
      expect(await stands(made, 'revokeBefore')).toBeDefined();
      move(30 * hourMs);
      // A consumer with a password that was made two rotations after the revocation.
      const client = await vendors().connect(await login(made), 'orders');
      move(Math.max(0, Date.now() - world.now().getTime()) + minuteMs);
      await rekey().rotate(made.name);
      expect(rekey().failures).toEqual([]);
      move(minuteMs);
      await world.invokeWith(
        (ports) => ({
          readNote: async (request) => {
            if (how === 'unreadable' && request.place === 'revocations')
              throw new StoreError('STORE_UNAVAILABLE', 'none', 'one throttled GetItem');
            return ports.readNote(request);
          },
        }),
        (inner, until) => deleteUsers({ is: 'pass', dryRun: false }, until, inner),
      );
      const isOpen = await client.query('SELECT 1').then(
        () => true,
        () => false,
      );
      await client.end().catch(() => undefined);
      expect(isOpen).toBe(true);
    },
  );
});

describe('I27: an order to revoke, or a part of it, that is taken away while it is carried out', () => {
  test('with an older order is stored again, although the rotation has begun, and the leaked user goes', async () => {
    const made = await credential({ provider: zilliz });
    const leaked = await login(made);
    // An order that is fulfilled: no version is as old.
    await world.direct(made, 'revokeBefore', new Date(world.now().getTime() - 3 * hourMs));
    move(hourMs);
    await rekey().sweep();
    move(15 * minuteMs);
    const starting = Promise.withResolvers<void>();
    const deleted = Promise.withResolvers<void>();
    let carried: Promise<unknown> | undefined;
    let beganAt = 0;
    let tookMs = Number.NaN;
    rekey().interruptAt({
      call: 'deleteParameter',
      when: 'before',
      by: async () => {
        beganAt = world.now().getTime();
        const starts = await take(compromiseOf(made));
        carried = world.invokeWith(
          (ports) => ({
            startRotation: async (request) => {
              starting.resolve();
              await deleted.promise;
              return ports.startRotation(request);
            },
          }),
          (inner, until) => carryOutOrders(starts, { rotationFunctionArn: functionArn }, until, inner),
        );
        await Promise.race([starting.promise, carried]);
        tookMs = world.now().getTime() - beganAt;
      },
    });
    await rekey().sweep();
    deleted.resolve();
    expect(carried).toBeDefined();
    const answer = await carried;
    await rekey().secretsManager.idle();
    expect(tookMs).toBeLessThan(2_000);
    expect((await login(made)).username).not.toBe(leaked.username);
    await rekey().sweep({ is: 'rotated', credential: made.name });
    await sweepQuarters(2);
    expect([answer, await stands(made, 'revokeBefore'), await works(leaked)]).toMatchObject([
      {},
      expect.any(String),
      false,
    ]);
  });

  test('is stored again: that it holds even if the credential is locked out', async () => {
    const made = await credential({ provider: zilliz });
    move(hourMs);
    const starts = await take(compromiseOf(made, { evenIfLockedOut: true }));
    await world.invokeWith(
      (ports) => ({
        startRotation: async (request) => {
          await world.parameters('DeleteParameter', { Name: directiveParameter(made.name, 'revokeAnyway') });
          return ports.startRotation(request);
        },
      }),
      (inner, until) => carryOutOrders(starts, { rotationFunctionArn: functionArn }, until, inner),
    );
    expect(await stands(made, 'revokeAnyway')).toBeDefined();
  });
});

describe('I3: the guard of a deletion', () => {
  test.each([true, false])(
    'is not told by a pass that runs beside it that an older note is complete (a pass: %s)',
    async (isBetween) => {
      const made = await credential({ provider: zilliz });
      const used = await login(made);
      move(hourMs);
      await world.start();
      move(4 * minuteMs);
      // A deployment declares who takes the user over, then the old credential is to go.
      const name = `deployed-${token().slice(0, 8)}`;
      const passwordSecret = `rekey/adopt/${name}`;
      await world.secrets('CreateSecret', {
        Name: passwordSecret,
        ClientRequestToken: token(),
        SecretString: JSON.stringify({ username: used.username, password: used.password.reveal() }),
      });
      await world.parameters('PutParameter', {
        Name: specParameterName(name),
        Value: JSON.stringify({
          provider: zilliz,
          ...targets[zilliz],
          name,
          usernamePrefix: name.replace('-', '_'),
          adopt: { username: used.username, passwordSecret },
        }),
        Type: 'String',
      });
      try {
        move(1_000);
        const deletion = world.deletionOf(made);
        // The event comes again after a throttled try.
        move(2 * minuteMs);
        let isPassed = !isBetween;
        await world.invokeWith(
          (ports) => ({
            readNote: async (request) => {
              if (request.place === 'members' && request.key === 'fleet' && !isPassed) {
                isPassed = true;
                await rekey().start();
              }
              return ports.readNote(request);
            },
          }),
          (inner, until) => deleteUsers(deletion, until, inner),
        );
        expect(isPassed).toBe(true);
        expect(await works(used)).toBe(true);
      } finally {
        await world.parameters('DeleteParameter', { Name: specParameterName(name) });
      }
    },
  );
});

describe('I27: a compromise that waits for its turn to be stored', () => {
  test.each([60_000, 0])(
    'comes again if no time is left for its visit (throttled for %i ms)',
    async (throttledMs) => {
      const made = await credential({ provider: zilliz });
      const first = await login(made);
      move(hourMs);
      await rekey().rotate(made.name);
      move(minuteMs);
      expect(await works(first)).toBe(true);
      const from = world.now().getTime();
      const throttled = async (): Promise<never> => {
        throw new StoreError('STORE_UNAVAILABLE', 'none', 'throttled');
      };
      const order = compromiseOf(made);
      const outcome = await rekey()
        .invoke(
          (inner, until) => {
            const isThrottled = () => world.now().getTime() - from < throttledMs;
            const { ports } = inner;
            return deleteUsers(order, until, {
              ...inner,
              ports: {
                ...ports,
                createParameter: async (r) => (isThrottled() ? throttled() : ports.createParameter(r)),
                writeParameter: async (r) => (isThrottled() ? throttled() : ports.writeParameter(r)),
              },
            });
          },
          // As much as functions/delete-user.ts asks for before it begins an event.
          150_000,
        )
        .catch((error: unknown) => String(error));
      const wasAcknowledged = typeof outcome !== 'string';
      expect({ wasAcknowledged, outcome, works: await works(first) }).not.toMatchObject({
        wasAcknowledged: true,
        works: true,
      });
    },
  );
});
