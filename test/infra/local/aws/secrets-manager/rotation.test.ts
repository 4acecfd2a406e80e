import {
  CancelRotateSecretCommand,
  CreateSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  PutSecretValueCommand,
  RotateSecretCommand,
  type RotateSecretCommandInput,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { describe, expect, test } from 'vitest';
import type { RotationEvent } from '../../../../../infra/local/aws/secrets-manager/rotation.ts';
import {
  eventNames,
  functionArn,
  labelsOf,
  refusalOf,
  rotateLikeTemplate,
  type SystemOptions,
  settle,
  startSystem,
  token,
} from '../support.ts';

const v1 = token('v1');
const v2 = token('v2');

/** `app` with v1, and a function like AWS's template of which `broken` steps fail. */
async function startRotating({
  broken = () => false,
  before = async () => undefined,
  ...options
}: SystemOptions & {
  broken?: (event: Pick<RotationEvent, 'Step'>) => boolean;
  before?: (event: RotationEvent) => Promise<void>;
} = {}) {
  const system = await startSystem({
    ...options,
    invoke: async (_arn, event) => {
      await before(event);
      return rotateLikeTemplate(system.secrets, event, broken);
    },
  });
  const { secrets } = system;
  const { ARN: arn = '' } = await secrets.send(
    new CreateSecretCommand({ Name: 'app', ClientRequestToken: v1, SecretString: 'one' }),
  );
  const rotate = (input: Partial<RotateSecretCommandInput> = {}) =>
    secrets.send(
      new RotateSecretCommand({
        SecretId: 'app',
        ClientRequestToken: v2,
        RotationLambdaARN: functionArn,
        ...input,
      }),
    );
  const describeApp = () => secrets.send(new DescribeSecretCommand({ SecretId: 'app' }));
  return { ...system, arn, rotate, describeApp };
}

describe('a rotation', () => {
  test('calls the four steps in order with the ARN, the token and one rotation token', async () => {
    const { rotate, secretsManager, calls, arn } = await startRotating();
    const answer = await rotate();
    expect(answer).toMatchObject({ ARN: arn, Name: 'app', VersionId: v2 });
    await secretsManager.idle();
    expect(calls.map(({ Step }) => Step)).toEqual([
      'createSecret',
      'setSecret',
      'testSecret',
      'finishSecret',
    ]);
    const [first] = calls;
    expect(first).toEqual({
      Step: 'createSecret',
      SecretId: arn,
      ClientRequestToken: v2,
      RotationToken: expect.stringMatching(/^[a-zA-Z0-9-]{36,256}$/),
    });
    expect(new Set(calls.map(({ RotationToken }) => RotationToken)).size).toBe(1);
  });

  test('leaves only AWSCURRENT and AWSPREVIOUS, and the new value', async () => {
    const { rotate, secretsManager, secrets, describeApp } = await startRotating();
    await rotate({ RotationRules: { AutomaticallyAfterDays: 1 } });
    await secretsManager.idle();
    expect(await labelsOf(secrets, 'app')).toEqual({ [v1]: ['AWSPREVIOUS'], [v2]: ['AWSCURRENT'] });
    const { SecretString } = await secrets.send(new GetSecretValueCommand({ SecretId: 'app' }));
    expect(SecretString).toBe(`value of ${v2}`);
    expect(await describeApp()).toMatchObject({
      RotationEnabled: true,
      RotationLambdaARN: functionArn,
      RotationRules: { AutomaticallyAfterDays: 1 },
      LastRotatedDate: new Date('2026-03-01T12:00:00Z'),
      NextRotationDate: new Date('2026-03-02T23:59:59Z'),
    });
  });

  test('registers an empty version with AWSPENDING before the first call', async () => {
    const seen: unknown[] = [];
    const { rotate, secretsManager, secrets } = await startRotating({
      before: async ({ Step, SecretId, ClientRequestToken }) => {
        if (Step !== 'createSecret') return;
        seen.push(await labelsOf(secrets, SecretId));
        const read = secrets.send(
          new GetSecretValueCommand({ SecretId, VersionId: ClientRequestToken, VersionStage: 'AWSPENDING' }),
        );
        seen.push((await refusalOf(read)).name);
      },
    });
    await rotate();
    await secretsManager.idle();
    expect(seen).toEqual([{ [v1]: ['AWSCURRENT'], [v2]: ['AWSPENDING'] }, 'ResourceNotFoundException']);
  });

  test('asked for twice with one token runs once', async () => {
    const { rotate, secretsManager, calls } = await startRotating();
    await rotate();
    await expect(rotate()).resolves.toMatchObject({ VersionId: v2 });
    await secretsManager.idle();
    await expect(rotate()).resolves.toMatchObject({ VersionId: v2 });
    await secretsManager.idle();
    expect(calls).toHaveLength(4);
  });

  test('asked for by two callers at once lets one through', async () => {
    const { rotate, secretsManager } = await startRotating();
    const outcomes = await Promise.allSettled([rotate(), rotate({ ClientRequestToken: token('v3') })]);
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    await secretsManager.idle();
  });

  test('that is refused leaves the secret unchanged', async () => {
    const { rotate, describeApp } = await startRotating({ mayInvoke: () => false });
    expect((await refusalOf(rotate())).name).toBe('AccessDeniedException');
    const { RotationEnabled, RotationLambdaARN, VersionIdsToStages } = await describeApp();
    expect({ RotationEnabled, RotationLambdaARN, VersionIdsToStages }).toEqual({
      RotationEnabled: undefined,
      RotationLambdaARN: undefined,
      VersionIdsToStages: { [v1]: ['AWSCURRENT'] },
    });
  });

  test('announces itself, the label that moved and its success', async () => {
    const { rotate, secretsManager, eventBridge } = await startRotating();
    await rotate();
    await secretsManager.idle();
    expect(eventNames(eventBridge.history())).toEqual([
      `AWSCURRENT on ${v1}`,
      'RotationStarted',
      `AWSCURRENT on ${v2}`,
      'RotationSucceeded',
    ]);
  });
});

describe('a failing rotation', () => {
  test('is repeated as a whole, with the same token, after growing waits', async () => {
    const broken = { setSecret: 2 };
    const { rotate, secretsManager, calls, clock, secrets } = await startRotating({
      broken: ({ Step }) => {
        if (Step !== 'setSecret' || broken.setSecret === 0) return false;
        broken.setSecret -= 1;
        return true;
      },
    });
    await rotate();
    await clock.advance(59_000);
    expect(calls.map(({ Step }) => Step)).toEqual(['createSecret', 'setSecret']);
    await clock.advance(1_000);
    expect(calls).toHaveLength(4);
    await clock.advance(300_000);
    await secretsManager.idle();
    expect(calls.slice(4).map(({ Step }) => Step)).toEqual([
      'createSecret',
      'setSecret',
      'testSecret',
      'finishSecret',
    ]);
    expect(new Set(calls.map(({ ClientRequestToken }) => ClientRequestToken))).toEqual(new Set([v2]));
    expect(await labelsOf(secrets, 'app')).toEqual({ [v1]: ['AWSPREVIOUS'], [v2]: ['AWSCURRENT'] });
  });

  test('is given up after its repetitions, leaves the pending version and says which step failed', async () => {
    const { rotate, secretsManager, clock, secrets, eventBridge, arn } = await startRotating({
      broken: ({ Step }) => Step === 'testSecret',
      variants: { retryDelaysMs: [1000, 2000] },
    });
    await rotate();
    await clock.advance(3000);
    await secretsManager.idle();
    expect(await labelsOf(secrets, 'app')).toEqual({ [v1]: ['AWSCURRENT'], [v2]: ['AWSPENDING'] });
    expect(eventBridge.history().at(-1)).toMatchObject({
      'detail-type': 'AWS Service Event via CloudTrail',
      source: 'aws.secretsmanager',
      detail: {
        eventName: 'RotationFailed',
        eventSource: 'secretsmanager.amazonaws.com',
        eventType: 'AwsServiceEvent',
        errorMessage: `Error when executing lambda ${functionArn} during testSecret step`,
        requestParameters: null,
        requestID: `Rotation-${arn}-${v2}`,
        additionalEventData: { SecretId: arn },
      },
    });
    expect((await refusalOf(rotate({ ClientRequestToken: token('v3') }))).message).toBe(
      "A previous rotation isn't complete. That rotation will be reattempted.",
    );
  });

  test('takes a new token for each repetition where that variant is set', async () => {
    const { rotate, clock, calls, secrets } = await startRotating({
      broken: ({ Step }) => Step === 'setSecret',
      variants: { retryDelaysMs: [1000], retryToken: 'new' },
    });
    await rotate();
    await clock.advance(1000);
    const second = calls.at(-1)?.ClientRequestToken ?? '';
    expect(second).not.toBe(v2);
    expect(await labelsOf(secrets, 'app')).toEqual({ [v1]: ['AWSCURRENT'], [second]: ['AWSPENDING'] });
  });

  test('counts a function that moves no label as failed', async () => {
    const system = await startSystem({ variants: { retryDelaysMs: [] } });
    await system.secretsManager.call('CreateSecret', {
      Name: 'app',
      SecretString: 'x',
      ClientRequestToken: v1,
    });
    await system.secrets.send(
      new RotateSecretCommand({ SecretId: 'app', ClientRequestToken: v2, RotationLambdaARN: functionArn }),
    );
    await system.secretsManager.idle();
    expect(eventNames(system.eventBridge.history()).at(-1)).toBe('RotationFailed');
    expect(await labelsOf(system.secrets, 'app')).toEqual({ [v1]: ['AWSCURRENT'], [v2]: ['AWSPENDING'] });
  });

  test('can be cleared by taking the label off, after which another rotation goes through', async () => {
    const state = { isBroken: true };
    const { rotate, clock, secrets, secretsManager, eventBridge } = await startRotating({
      broken: ({ Step }) => state.isBroken && Step === 'setSecret',
    });
    await rotate();
    await settle();
    await secrets.send(
      new UpdateSecretVersionStageCommand({
        SecretId: 'app',
        VersionStage: 'AWSPENDING',
        RemoveFromVersionId: v2,
      }),
    );
    state.isBroken = false;
    await rotate({ ClientRequestToken: token('v3') });
    await clock.advance(60_000);
    await secretsManager.idle();
    expect(await labelsOf(secrets, 'app')).toEqual({ [v1]: ['AWSPREVIOUS'], [token('v3')]: ['AWSCURRENT'] });
    expect(eventNames(eventBridge.history())).toContain('RotationAbandoned');
  });
});

describe('a rotation in progress', () => {
  test('is abandoned by a value under another token', async () => {
    const { rotate, secrets, secretsManager, calls, eventBridge } = await startRotating({
      before: async ({ Step, SecretId }) => {
        if (Step !== 'setSecret') return;
        await secrets.send(
          new PutSecretValueCommand({
            SecretId,
            ClientRequestToken: token('manual'),
            SecretString: 'by hand',
          }),
        );
      },
    });
    await rotate();
    await secretsManager.idle();
    expect(calls.map(({ Step }) => Step)).toEqual(['createSecret', 'setSecret']);
    expect(await labelsOf(secrets, 'app')).toEqual({
      [v1]: ['AWSPREVIOUS'],
      [token('manual')]: ['AWSCURRENT'],
    });
    expect(eventNames(eventBridge.history()).at(-1)).toBe('RotationAbandoned');
  });

  test('is cancelled: rotation is off, the label stays and the half-made version is named', async () => {
    const answers: (string | undefined)[] = [];
    const { rotate, secrets, secretsManager, calls, describeApp } = await startRotating({
      before: async ({ Step, SecretId }) => {
        if (Step === 'setSecret')
          answers.push((await secrets.send(new CancelRotateSecretCommand({ SecretId }))).VersionId);
      },
    });
    await rotate();
    await secretsManager.idle();
    expect(answers).toEqual([v2]);
    expect(calls.map(({ Step }) => Step)).toEqual(['createSecret', 'setSecret']);
    const { RotationEnabled, NextRotationDate, VersionIdsToStages } = await describeApp();
    expect({ RotationEnabled, NextRotationDate, VersionIdsToStages }).toEqual({
      RotationEnabled: false,
      NextRotationDate: undefined,
      VersionIdsToStages: { [v1]: ['AWSCURRENT'], [v2]: ['AWSPENDING'] },
    });
  });

  test('stops between two repetitions when the service stops', async () => {
    const { rotate, secretsManager, calls } = await startRotating({ broken: () => true });
    await rotate();
    await settle();
    await secretsManager.stop();
    expect(calls.map(({ Step }) => Step)).toEqual(['createSecret']);
  });
});

describe('configuring without rotating', () => {
  test.each([
    { testOnlyValue: 'copy' as const, want: 'one' },
    { testOnlyValue: 'empty' as const, want: 'ResourceNotFoundException' },
  ])(
    'calls only testSecret on a temporary pending version: $testOnlyValue',
    async ({ testOnlyValue, want }) => {
      const seen: unknown[] = [];
      const { rotate, secrets, secretsManager, calls, eventBridge } = await startRotating({
        variants: { testOnlyValue },
        before: async ({ SecretId, ClientRequestToken }) => {
          const read = secrets.send(
            new GetSecretValueCommand({
              SecretId,
              VersionId: ClientRequestToken,
              VersionStage: 'AWSPENDING',
            }),
          );
          seen.push(
            await read.then(
              ({ SecretString }) => SecretString,
              (error: Error) => error.name,
            ),
          );
        },
      });
      await rotate({
        RotateImmediately: false,
        RotationRules: { ScheduleExpression: 'cron(0 4 ? * MON *)' },
      });
      await secretsManager.idle();
      expect(calls.map(({ Step }) => Step)).toEqual(['testSecret']);
      expect(seen).toEqual([want]);
      expect(await labelsOf(secrets, 'app')).toEqual({ [v1]: ['AWSCURRENT'] });
      expect(eventNames(eventBridge.history()).slice(1)).toEqual([
        'TestRotationStarted',
        'TestRotationSucceeded',
      ]);
    },
  );
});

describe('a schedule', () => {
  test('starts a rotation within its window, and sets the next date only after success', async () => {
    const { rotate, secretsManager, clock, calls, describeApp } = await startRotating({
      variants: { windowStart: 'at-start' },
    });
    await rotate({
      RotateImmediately: false,
      RotationRules: { ScheduleExpression: 'rate(10 days)', Duration: '3h' },
    });
    await secretsManager.idle();
    expect((await describeApp()).NextRotationDate).toEqual(new Date('2026-03-11T02:59:59Z'));
    await clock.advance(Date.parse('2026-03-10T23:59:00Z') - clock.now().getTime());
    secretsManager.tick();
    await secretsManager.idle();
    expect(calls).toHaveLength(1);
    await clock.advance(60_000);
    secretsManager.tick();
    await secretsManager.idle();
    expect(calls).toHaveLength(5);
    expect(await describeApp()).toMatchObject({
      LastRotatedDate: new Date('2026-03-11T00:00:00Z'),
      NextRotationDate: new Date('2026-03-21T02:59:59Z'),
    });
  });

  test('that keeps failing leaves the next date in the past and tries the same token in the next window', async () => {
    const { rotate, secretsManager, clock, calls, describeApp } = await startRotating({
      variants: { windowStart: 'at-start', retryDelaysMs: [] },
      broken: ({ Step }) => Step === 'createSecret',
    });
    await rotate({ RotateImmediately: false, RotationRules: { AutomaticallyAfterDays: 1 } });
    await secretsManager.idle();
    for (const day of ['2026-03-02T00:00:00Z', '2026-03-03T00:00:00Z']) {
      await clock.advance(Date.parse(day) - clock.now().getTime());
      secretsManager.tick();
      await secretsManager.idle();
    }
    const tokens = calls.slice(1).map(({ ClientRequestToken }) => ClientRequestToken);
    expect(tokens).toHaveLength(2);
    expect(new Set(tokens).size).toBe(1);
    expect((await describeApp()).NextRotationDate).toEqual(new Date('2026-03-02T23:59:59Z'));
  });

  test('counts a value written by hand as a rotation when it goes by days', async () => {
    const { rotate, secretsManager, secrets, clock, describeApp } = await startRotating();
    await rotate({ RotateImmediately: false, RotationRules: { AutomaticallyAfterDays: 5 } });
    await secretsManager.idle();
    expect((await describeApp()).NextRotationDate).toEqual(new Date('2026-03-06T23:59:59Z'));
    await clock.advance(3 * 86_400_000);
    await secrets.send(new PutSecretValueCommand({ SecretId: 'app', SecretString: 'by hand' }));
    expect((await describeApp()).NextRotationDate).toEqual(new Date('2026-03-09T23:59:59Z'));
  });
});

describe('variants of a good rotation', () => {
  const current = ['AWSCURRENT'];
  const both = ['AWSCURRENT', 'AWSPENDING'];
  test.each([
    { pendingAfterRotation: 'gone' as const, want: [current, current] },
    { pendingAfterRotation: 'gone-with-move' as const, want: [current, current] },
    { pendingAfterRotation: 'with-current' as const, want: [both, both] },
    { pendingAfterRotation: 'alternating' as const, want: [both, current] },
  ])('AWSPENDING ends as $pendingAfterRotation says, twice', async ({ pendingAfterRotation, want }) => {
    const { rotate, secretsManager, secrets } = await startRotating({ variants: { pendingAfterRotation } });
    const seen: (string[] | undefined)[] = [];
    for (const label of ['v2', 'v3']) {
      await rotate({ ClientRequestToken: token(label) });
      await secretsManager.idle();
      seen.push((await labelsOf(secrets, 'app'))[token(label)]);
    }
    expect(seen).toEqual(want);
  });

  test.each([
    {
      eventSecretId: 'arn' as const,
      want: /^arn:aws:secretsmanager:eu-central-1:111122223333:secret:app-[A-Za-z0-9]{6}$/,
    },
    {
      eventSecretId: 'partial-arn' as const,
      want: /^arn:aws:secretsmanager:eu-central-1:111122223333:secret:app$/,
    },
    { eventSecretId: 'name' as const, want: /^app$/ },
  ])(
    'the event names the secret by $eventSecretId, and every form is found',
    async ({ eventSecretId, want }) => {
      const { rotate, secretsManager, secrets, calls } = await startRotating({ variants: { eventSecretId } });
      await rotate();
      await secretsManager.idle();
      expect(calls[0]?.SecretId).toMatch(want);
      expect((await labelsOf(secrets, 'app'))[v2]).toEqual(current);
    },
  );

  const four = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'];
  test.each([
    { stepDelivery: 'twice' as const, want: four.flatMap((step) => [step, step]) },
    { stepDelivery: 'concurrently' as const, want: four.flatMap((step) => [step, step]) },
    { stepDelivery: 'late' as const, want: [...four, ...four] },
  ])(
    'every step delivered $stepDelivery still ends with one new current version',
    async ({ stepDelivery, want }) => {
      const { rotate, secretsManager, secrets, calls } = await startRotating({ variants: { stepDelivery } });
      await rotate();
      await secretsManager.idle();
      expect(calls.map(({ Step }) => Step)).toEqual(want);
      expect((await labelsOf(secrets, 'app'))[v2]).toEqual(current);
    },
  );
});
