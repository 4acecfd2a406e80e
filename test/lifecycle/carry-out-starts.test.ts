import { describe, expect, test } from 'vitest';
import { StoreError } from '../../functions/core/errors.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { carryOutStarts } from '../../functions/lifecycle/carry-out-starts.ts';
import { hourMs, type Made, targets, useCredentialWorld } from '../support/credential-world.ts';

const world = useCredentialWorld();
const { rekey, credential, labels, move, direct } = world;
const rotationFunctionArn = 'arn:aws:lambda:eu-central-1:111122223333:function:rotate-secret';

const targetOf = ({ provider }: Made): string => {
  const [targetId = ''] = Object.values(targets[provider].target);
  return targetId;
};
/** Carries out one start for each, in one batch; answers the names of those that come again. */
async function carryOut(
  made: readonly Made[],
  change: (ports: Ports) => Partial<Ports> = () => ({}),
): Promise<readonly string[]> {
  const starts = made.map((one) => ({
    messageId: `message about ${one.name}`,
    provider: one.provider,
    targetId: targetOf(one),
    credential: one.name,
  }));
  const { batchItemFailures } = await world.invokeWith(change, (inner, until) =>
    carryOutStarts({ is: 'starts', starts }, { rotationFunctionArn }, until, inner),
  );
  await rekey().secretsManager.idle();
  return batchItemFailures.map(({ itemIdentifier }) => itemIdentifier.replace('message about ', ''));
}
const zilliz = { provider: 'zilliz-cloud' } as const;
const vultr = { provider: 'vultr-valkey' } as const;

describe('a start', () => {
  test('starts the rotation that it names, and no other that is due', async () => {
    const [one, other] = [await credential(zilliz), await credential(vultr)];
    move(hourMs);
    const before = [await labels(one), await labels(other)];
    for (const each of [one, other]) await direct(each, 'rotateBefore');
    expect(await carryOut([one])).toEqual([]);
    expect((await labels(one))['AWSPREVIOUS']).toBe(before[0]?.['AWSCURRENT']);
    expect(await labels(other)).toEqual(before[1]);
  });

  test('of a rotation that is not due starts nothing, and is done with', async () => {
    const one = await credential(zilliz);
    move(hourMs);
    const before = await labels(one);
    expect(await carryOut([one])).toEqual([]);
    expect(await labels(one)).toEqual(before);
  });

  test('of a credential that is gone is done with', async () => {
    const one = await credential(zilliz);
    await world.forget(one);
    expect(await carryOut([one])).toEqual([]);
  });

  test('waits for a rotation that is under way on its target, and holds back those behind it there, and no others', async () => {
    const [busy, held, behind, elsewhere] = [
      await credential(zilliz),
      await credential(zilliz),
      await credential(zilliz),
      await credential(vultr),
    ];
    move(hourMs);
    await world.openRotation(busy, 'createSecret');
    for (const each of [held, elsewhere]) await direct(each, 'rotateBefore');
    const before = await labels(elsewhere);
    expect(await carryOut([held, elsewhere, behind])).toEqual([held.name, behind.name]);
    expect((await labels(elsewhere))['AWSPREVIOUS']).toBe(before['AWSCURRENT']);
  });

  test('comes again where the stores could not be read', async () => {
    const one = await credential(zilliz);
    move(hourMs);
    await direct(one, 'rotateBefore');
    const down = (): Partial<Ports> => ({
      listParameters: async () => {
        throw new StoreError('STORE_UNAVAILABLE', 'none', 'throttled');
      },
    });
    expect(await carryOut([one], down)).toEqual([one.name]);
    expect(await carryOut([one])).toEqual([]);
    expect(Object.keys(await labels(one))).toContain('AWSPREVIOUS');
  });
});
