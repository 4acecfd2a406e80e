import {
  CreateSecretCommand,
  ListSecretVersionIdsCommand,
  PutSecretValueCommand,
  UpdateSecretCommand,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createSecretsManager } from '../../../../../infra/local/aws/secrets-manager.ts';
import {
  account,
  labelsOf,
  refusalOf,
  region,
  type System,
  startSystem,
  testClock,
  token,
} from '../support.ts';

type Move = { put: string; labels?: string[] } | { move: string; from?: string; to?: string };

async function carryOut({ secrets }: System, moves: readonly Move[]): Promise<void> {
  await secrets.send(
    new CreateSecretCommand({ Name: 'app', ClientRequestToken: token('v1'), SecretString: 'v1' }),
  );
  for (const each of moves)
    if ('put' in each)
      await secrets.send(
        new PutSecretValueCommand({
          SecretId: 'app',
          ClientRequestToken: token(each.put),
          SecretString: each.put,
          ...(each.labels && { VersionStages: each.labels }),
        }),
      );
    else
      await secrets.send(
        new UpdateSecretVersionStageCommand({
          SecretId: 'app',
          VersionStage: each.move,
          ...(each.to && { MoveToVersionId: token(each.to) }),
          ...(each.from && { RemoveFromVersionId: token(each.from) }),
        }),
      );
}

const pendingThenCurrent: Move[] = [
  { put: 'v2', labels: ['AWSPENDING'] },
  { move: 'AWSCURRENT', from: 'v1', to: 'v2' },
];

const cases: Record<string, { moves: Move[]; want: Record<string, string[]> }> = {
  'moving AWSCURRENT leaves AWSPENDING where it is': {
    moves: pendingThenCurrent,
    want: { v1: ['AWSPREVIOUS'], v2: ['AWSCURRENT', 'AWSPENDING'] },
  },
  'a new current value drops AWSPENDING from the version it supersedes': {
    moves: [...pendingThenCurrent, { put: 'v3' }],
    want: { v2: ['AWSPREVIOUS'], v3: ['AWSCURRENT'] },
  },
  'a new pending value takes AWSPENDING off the current version': {
    moves: [...pendingThenCurrent, { put: 'v3', labels: ['AWSPENDING'] }],
    want: { v1: ['AWSPREVIOUS'], v2: ['AWSCURRENT'], v3: ['AWSPENDING'] },
  },
  'the second move hides the version that was previous': {
    moves: [
      ...pendingThenCurrent,
      { put: 'v3', labels: ['AWSPENDING'] },
      { move: 'AWSCURRENT', from: 'v2', to: 'v3' },
    ],
    want: { v2: ['AWSPREVIOUS'], v3: ['AWSCURRENT', 'AWSPENDING'] },
  },
  'own labels stay while the service labels move': {
    moves: [
      { put: 'v2', labels: ['AWSCURRENT', 'PUT0'] },
      { put: 'v3', labels: ['AWSPENDING', 'PUT1'] },
      { move: 'AWSCURRENT', from: 'v2', to: 'v3' },
      { put: 'v4', labels: ['AWSPENDING', 'PUT2'] },
      { move: 'AWSCURRENT', from: 'v3', to: 'v4' },
    ],
    want: { v2: ['PUT0'], v3: ['AWSPREVIOUS', 'PUT1'], v4: ['AWSCURRENT', 'AWSPENDING', 'PUT2'] },
  },
  'a label put elsewhere leaves its old version': {
    moves: [
      { put: 'v2', labels: ['one', 'two', 'three'] },
      { put: 'v3', labels: ['one', 'two', 'four'] },
    ],
    want: { v1: ['AWSCURRENT'], v2: ['three'], v3: ['four', 'one', 'two'] },
  },
  'a label is removed when no target is named': {
    moves: [
      { put: 'v2', labels: ['AWSPENDING'] },
      { move: 'AWSPENDING', from: 'v2' },
    ],
    want: { v1: ['AWSCURRENT'] },
  },
  'moving back makes the newer version the previous one': {
    moves: [{ put: 'v2' }, { move: 'AWSCURRENT', from: 'v2', to: 'v1' }],
    want: { v1: ['AWSCURRENT'], v2: ['AWSPREVIOUS'] },
  },
};

describe('labels move as recorded from AWS', () => {
  test.each(Object.entries(cases))('%s', async (_sentence, { moves, want }) => {
    const system = await startSystem();
    await carryOut(system, moves);
    const labels = await labelsOf(system.secrets, 'app');
    expect(labels).toEqual(Object.fromEntries(Object.entries(want).map(([id, held]) => [token(id), held])));
  });
});

describe('writing values', () => {
  test('the labels in the answer are sorted and named once', async () => {
    const { secrets } = await startSystem();
    await secrets.send(new CreateSecretCommand({ Name: 'app', SecretString: 'one' }));
    const answer = await secrets.send(
      new PutSecretValueCommand({
        SecretId: 'app',
        SecretString: 'two',
        VersionStages: ['one', 'two', 'three', 'four', 'one'],
      }),
    );
    expect(answer.VersionStages).toEqual(['four', 'one', 'three', 'two']);
  });

  test('the same data under the same token is accepted and moves no label', async () => {
    const system = await startSystem();
    await carryOut(system, [{ put: 'v2' }, { put: 'v3' }, { put: 'v2' }]);
    expect(await labelsOf(system.secrets, 'app')).toEqual({
      [token('v2')]: ['AWSPREVIOUS'],
      [token('v3')]: ['AWSCURRENT'],
    });
  });

  test('the first version is current even when only another label is asked for', async () => {
    const { secrets } = await startSystem();
    const { VersionId } = await secrets.send(new CreateSecretCommand({ Name: 'app' }));
    expect(VersionId).toBeUndefined();
    expect(await labelsOf(secrets, 'app')).toEqual({});
    const answer = await secrets.send(
      new PutSecretValueCommand({ SecretId: 'app', SecretString: 'one', VersionStages: ['AWSPENDING'] }),
    );
    expect(answer.VersionStages).toEqual(['AWSCURRENT', 'AWSPENDING']);
  });

  test('creating twice with the same token and data gives the same answer', async () => {
    const { secrets } = await startSystem();
    const input = { Name: 'app', ClientRequestToken: token('v1'), SecretString: 'one' };
    const first = await secrets.send(new CreateSecretCommand(input));
    const second = await secrets.send(new CreateSecretCommand(input));
    expect(second).toMatchObject({ ARN: first.ARN, Name: 'app', VersionId: token('v1') });
  });

  test('an update with a value moves AWSCURRENT, one without answers no version', async () => {
    const { secrets } = await startSystem();
    await secrets.send(
      new CreateSecretCommand({ Name: 'app', ClientRequestToken: token('v1'), SecretString: 'a' }),
    );
    const described = await secrets.send(new UpdateSecretCommand({ SecretId: 'app', Description: 'a test' }));
    expect(described.VersionId).toBeUndefined();
    await secrets.send(
      new UpdateSecretCommand({ SecretId: 'app', ClientRequestToken: token('v2'), SecretString: 'b' }),
    );
    expect(await labelsOf(secrets, 'app')).toEqual({
      [token('v1')]: ['AWSPREVIOUS'],
      [token('v2')]: ['AWSCURRENT'],
    });
  });

  test('the compare-and-swap lets one of two movers through', async () => {
    const system = await startSystem();
    await carryOut(system, [
      { put: 'v2', labels: ['a'] },
      { put: 'v3', labels: ['b'] },
    ]);
    const move = (to: string) =>
      system.secrets.send(
        new UpdateSecretVersionStageCommand({
          SecretId: 'app',
          VersionStage: 'AWSCURRENT',
          RemoveFromVersionId: token('v1'),
          MoveToVersionId: token(to),
        }),
      );
    const outcomes = await Promise.allSettled([move('v2'), move('v3')]);
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  });

  test('AWSCURRENT can be moved but not removed', async () => {
    const { secrets } = await startSystem();
    await secrets.send(
      new CreateSecretCommand({ Name: 'app', ClientRequestToken: token('v1'), SecretString: 'a' }),
    );
    const call = secrets.send(
      new UpdateSecretVersionStageCommand({
        SecretId: 'app',
        VersionStage: 'AWSCURRENT',
        RemoveFromVersionId: token('v1'),
      }),
    );
    expect((await refusalOf(call)).name).toBe('InvalidParameterException');
  });

  test('a version without a label is listed only with the deprecated ones, and then without labels', async () => {
    const system = await startSystem();
    await carryOut(system, [{ put: 'v2' }, { put: 'v3' }]);
    const list = async (IncludeDeprecated: boolean) => {
      const { Versions = [] } = await system.secrets.send(
        new ListSecretVersionIdsCommand({ SecretId: 'app', IncludeDeprecated }),
      );
      return Versions.map(({ VersionId, VersionStages, KmsKeyIds }) => ({
        VersionId,
        VersionStages,
        KmsKeyIds,
      }));
    };
    const KmsKeyIds = ['DefaultEncryptionKey'];
    const labelled = [
      { VersionId: token('v2'), VersionStages: ['AWSPREVIOUS'], KmsKeyIds },
      { VersionId: token('v3'), VersionStages: ['AWSCURRENT'], KmsKeyIds },
    ];
    expect(await list(false)).toEqual(labelled);
    expect(await list(true)).toEqual([
      { VersionId: token('v1'), VersionStages: undefined, KmsKeyIds },
      ...labelled,
    ]);
  });

  test('a hundred versions within a day are the limit, a day later the oldest make room', async () => {
    const { secretsManager, clock } = await startSystem();
    const put = (n: number) =>
      secretsManager.call('PutSecretValue', {
        SecretId: 'app',
        SecretString: 'x',
        ClientRequestToken: token(`v${n}`),
      });
    await secretsManager.call('CreateSecret', {
      Name: 'app',
      SecretString: 'x',
      ClientRequestToken: token('v1'),
    });
    for (let n = 2; n <= 100; n += 1) await put(n);
    expect((await refusalOf(put(101))).name).toBe('LimitExceededException');
    await clock.advance(24 * 3_600_000);
    await expect(put(101)).resolves.toBeDefined();
  });
});

describe('whatever is called in whatever order', () => {
  const id = fc.constantFrom('v1', 'v2', 'v3', 'v4').map(token);
  const label = fc.constantFrom('AWSCURRENT', 'AWSPENDING', 'AWSPREVIOUS', 'blue');
  const call = fc.oneof(
    fc.record({
      operation: fc.constant('PutSecretValue'),
      input: fc.record(
        {
          ClientRequestToken: id,
          SecretString: fc.string({ minLength: 1 }),
          VersionStages: fc.array(label, { minLength: 1, maxLength: 4 }),
        },
        { requiredKeys: ['ClientRequestToken', 'SecretString'] },
      ),
    }),
    fc.record({
      operation: fc.constant('UpdateSecretVersionStage'),
      input: fc.record(
        { VersionStage: label, MoveToVersionId: id, RemoveFromVersionId: id },
        { requiredKeys: ['VersionStage'] },
      ),
    }),
  );

  test('a label is on one version, one version is current, and a value once written stays', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(call, { maxLength: 15 }), async (calls) => {
        const service = createSecretsManager({
          account,
          region,
          clock: testClock(),
          invoke: async () => ({ ok: true }),
          emit: () => undefined,
        });
        const SecretId = 'app';
        await service.call('CreateSecret', {
          Name: SecretId,
          ClientRequestToken: token('v1'),
          SecretString: 'one',
        });
        const values = new Map<string, unknown>([[token('v1'), 'one']]);
        for (const { operation, input } of calls) {
          await service.call(operation, { SecretId, ...input }).catch(() => undefined);
          const { VersionIdsToStages } = (await service.call('DescribeSecret', { SecretId })) as {
            VersionIdsToStages: Record<string, string[]>;
          };
          const held = Object.values(VersionIdsToStages).flat();
          expect(new Set(held).size).toBe(held.length);
          expect(held).toContain('AWSCURRENT');
          for (const VersionId of Object.keys(VersionIdsToStages)) {
            const { SecretString } = (await service.call('GetSecretValue', { SecretId, VersionId })) as {
              SecretString: string;
            };
            if (values.has(VersionId)) expect(SecretString).toBe(values.get(VersionId));
            values.set(VersionId, SecretString);
          }
        }
      }),
    );
  });
});
