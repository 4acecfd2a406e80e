import {
  BatchGetSecretValueCommand,
  CreateSecretCommand,
  DeleteResourcePolicyCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  GetRandomPasswordCommand,
  GetResourcePolicyCommand,
  GetSecretValueCommand,
  ListSecretsCommand,
  type ListSecretsCommandInput,
  ListSecretVersionIdsCommand,
  PutResourcePolicyCommand,
  PutSecretValueCommand,
  RemoveRegionsFromReplicationCommand,
  ReplicateSecretToRegionsCommand,
  RestoreSecretCommand,
  RotateSecretCommand,
  TagResourceCommand,
  UntagResourceCommand,
  UpdateSecretCommand,
  UpdateSecretVersionStageCommand,
  ValidateResourcePolicyCommand,
} from '@aws-sdk/client-secrets-manager';
import { describe, expect, test } from 'vitest';
import { account, eventNames, functionArn, refusalOf, type System, startSystem, token } from '../support.ts';

const dayMs = 86_400_000;

const create = ({ secrets }: System, name: string, more: object = {}) =>
  secrets.send(new CreateSecretCommand({ Name: name, SecretString: `value of ${name}`, ...more }));

describe('identity', () => {
  test('an ARN ends in a hyphen and six characters, new ones when the name is used again', async () => {
    const system = await startSystem();
    const first = await create(system, 'rekey/app');
    await system.secrets.send(
      new DeleteSecretCommand({ SecretId: 'rekey/app', ForceDeleteWithoutRecovery: true }),
    );
    const second = await create(system, 'rekey/app');
    expect(first.ARN).toMatch(
      /^arn:aws:secretsmanager:eu-central-1:111122223333:secret:rekey\/app-[A-Za-z0-9]{6}$/,
    );
    expect(second.ARN).not.toBe(first.ARN);
    expect(
      (await refusalOf(system.secrets.send(new GetSecretValueCommand({ SecretId: first.ARN })))).name,
    ).toBe('ResourceNotFoundException');
  });

  test('an ARN without suffix finds a secret, unless its name ends like a suffix', async () => {
    const system = await startSystem();
    const plain = await create(system, 'app');
    const trap = await create(system, 'app-a1b2c3');
    const get = (SecretId = '') => system.secrets.send(new GetSecretValueCommand({ SecretId }));
    expect((await get(plain.ARN?.slice(0, -7))).Name).toBe('app');
    expect((await get(trap.ARN)).Name).toBe('app-a1b2c3');
    expect((await refusalOf(get(trap.ARN?.slice(0, -7)))).name).toBe('ResourceNotFoundException');
  });

  test('an ARN of another region finds nothing', async () => {
    const system = await startSystem();
    const { ARN = '' } = await create(system, 'app');
    const call = system.secrets.send(
      new DescribeSecretCommand({ SecretId: ARN.replace('eu-central-1', 'us-east-1') }),
    );
    expect((await refusalOf(call)).name).toBe('ResourceNotFoundException');
  });
});

describe('reading', () => {
  test('gives bytes back as they were written', async () => {
    const { secrets } = await startSystem();
    const bytes = new Uint8Array([0, 255, 128, 10]);
    await secrets.send(
      new CreateSecretCommand({ Name: 'app', SecretBinary: bytes, ClientRequestToken: token('v1') }),
    );
    const answer = await secrets.send(new GetSecretValueCommand({ SecretId: 'app' }));
    expect(answer).toMatchObject({
      VersionId: token('v1'),
      VersionStages: ['AWSCURRENT'],
      CreatedDate: new Date('2026-03-01T12:00:00Z'),
    });
    expect([...(answer.SecretBinary ?? [])]).toEqual([0, 255, 128, 10]);
    expect(answer.SecretString).toBeUndefined();
  });

  test('leaves the date, and not the time, of the access', async () => {
    const system = await startSystem();
    await create(system, 'app');
    const describeApp = () => system.secrets.send(new DescribeSecretCommand({ SecretId: 'app' }));
    expect((await describeApp()).LastAccessedDate).toBeUndefined();
    await system.secrets.send(new GetSecretValueCommand({ SecretId: 'app' }));
    expect((await describeApp()).LastAccessedDate).toEqual(new Date('2026-03-01T00:00:00Z'));
  });

  test('many at once reports failures one by one', async () => {
    const system = await startSystem();
    await create(system, 'a');
    await create(system, 'b');
    await system.secrets.send(new DeleteSecretCommand({ SecretId: 'b' }));
    const answer = await system.secrets.send(
      new BatchGetSecretValueCommand({ SecretIdList: ['a', 'b', 'c'] }),
    );
    expect(answer.SecretValues?.map(({ SecretString }) => SecretString)).toEqual(['value of a']);
    expect(answer.Errors).toEqual([
      {
        SecretId: 'b',
        ErrorCode: 'InvalidRequestException',
        Message: "You can't perform this operation on the secret because it was marked for deletion.",
      },
      {
        SecretId: 'c',
        ErrorCode: 'ResourceNotFoundException',
        Message: "Secrets Manager can't find the specified secret.",
      },
    ]);
  });

  test('many at once takes ids or filters, not both', async () => {
    const { secrets } = await startSystem();
    const both = { SecretIdList: ['a'], Filters: [{ Key: 'name' as const, Values: ['a'] }] };
    for (const input of [{}, both])
      expect((await refusalOf(secrets.send(new BatchGetSecretValueCommand(input)))).name).toBe(
        'InvalidParameterException',
      );
  });
});

describe('tags', () => {
  test('are absent, appended, replaced and at last an empty list', async () => {
    const system = await startSystem();
    await create(system, 'app');
    const tags = async () => (await system.secrets.send(new DescribeSecretCommand({ SecretId: 'app' }))).Tags;
    const tag = (Key: string, Value: string) =>
      system.secrets.send(new TagResourceCommand({ SecretId: 'app', Tags: [{ Key, Value }] }));
    expect(await tags()).toBeUndefined();
    await tag('team', 'a');
    await tag('stage', 'test');
    await tag('team', 'b');
    expect(await tags()).toEqual([
      { Key: 'team', Value: 'b' },
      { Key: 'stage', Value: 'test' },
    ]);
    await system.secrets.send(
      new UntagResourceCommand({ SecretId: 'app', TagKeys: ['team', 'stage', 'absent'] }),
    );
    expect(await tags()).toEqual([]);
  });
});

describe('deletion', () => {
  test('waits thirty days, during which the secret can be described but not read', async () => {
    const system = await startSystem();
    await create(system, 'app');
    const { DeletionDate } = await system.secrets.send(new DeleteSecretCommand({ SecretId: 'app' }));
    expect(DeletionDate).toEqual(new Date('2026-03-31T12:00:00Z'));
    const describeApp = () => system.secrets.send(new DescribeSecretCommand({ SecretId: 'app' }));
    expect((await describeApp()).DeletedDate).toEqual(DeletionDate);
    await system.clock.advance(30 * dayMs);
    expect((await refusalOf(describeApp())).name).toBe('ResourceNotFoundException');
    expect(eventNames(system.eventBridge.history()).slice(1)).toEqual([
      'StartSecretVersionDelete',
      'EndSecretVersionDelete',
    ]);
  });

  test('can be taken back', async () => {
    const system = await startSystem();
    await create(system, 'app');
    await system.secrets.send(new DeleteSecretCommand({ SecretId: 'app', RecoveryWindowInDays: 7 }));
    await system.secrets.send(new RestoreSecretCommand({ SecretId: 'app' }));
    await system.clock.advance(8 * dayMs);
    await expect(system.secrets.send(new GetSecretValueCommand({ SecretId: 'app' }))).resolves.toMatchObject({
      SecretString: 'value of app',
    });
  });

  test('by force succeeds for unknown and for scheduled secrets', async () => {
    const system = await startSystem();
    const force = () =>
      system.secrets.send(new DeleteSecretCommand({ SecretId: 'app', ForceDeleteWithoutRecovery: true }));
    expect(await force()).toMatchObject({ Name: 'app', DeletionDate: new Date('2026-03-01T12:00:00Z') });
    await create(system, 'app');
    await system.secrets.send(new DeleteSecretCommand({ SecretId: 'app' }));
    expect(await force()).toMatchObject({ Name: 'app', DeletionDate: new Date('2026-03-01T12:00:00Z') });
    await expect(create(system, 'app')).resolves.toMatchObject({ Name: 'app' });
  });

  test('by force takes its time where that variant is set, and the name with it', async () => {
    const system = await startSystem({ variants: { forcedDeletionMs: 5000 } });
    await create(system, 'app');
    await system.secrets.send(new DeleteSecretCommand({ SecretId: 'app', ForceDeleteWithoutRecovery: true }));
    expect((await refusalOf(create(system, 'app'))).name).toBe('InvalidRequestException');
    await system.clock.advance(5000);
    await expect(create(system, 'app')).resolves.toMatchObject({ Name: 'app' });
  });

  test.each([
    { variants: { secondDelete: 'error' as const }, want: 'refused' },
    { variants: { secondDelete: 'success' as const }, want: 'done' },
  ])('a second time is $want as the variant says', async ({ variants, want }) => {
    const system = await startSystem({ variants });
    await create(system, 'app');
    const remove = () => system.secrets.send(new DeleteSecretCommand({ SecretId: 'app' }));
    await remove();
    expect(
      await remove().then(
        () => 'done',
        () => 'refused',
      ),
    ).toBe(want);
  });

  test.each([
    { variants: { restoreLive: 'error' as const }, want: 'refused' },
    { variants: { restoreLive: 'success' as const }, want: 'done' },
  ])('restoring a live secret is $want as the variant says', async ({ variants, want }) => {
    const system = await startSystem({ variants });
    await create(system, 'app');
    const restore = system.secrets.send(new RestoreSecretCommand({ SecretId: 'app' }));
    expect(
      await restore.then(
        () => 'done',
        () => 'refused',
      ),
    ).toBe(want);
  });
});

describe('resource policies', () => {
  const denyDelete = JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      {
        Effect: 'Deny',
        Principal: { AWS: `arn:aws:iam::${account}:root` },
        Action: 'secretsmanager:DeleteSecret',
        Resource: '*',
      },
    ],
  });
  const open = JSON.stringify({
    Statement: { Effect: 'Allow', Principal: '*', Action: 'secretsmanager:*', Resource: '*' },
  });

  test('one that denies deletion to the account stops it until it is removed', async () => {
    const system = await startSystem();
    await create(system, 'app');
    const { secrets } = system;
    await secrets.send(new PutResourcePolicyCommand({ SecretId: 'app', ResourcePolicy: denyDelete }));
    expect((await secrets.send(new GetResourcePolicyCommand({ SecretId: 'app' }))).ResourcePolicy).toBe(
      denyDelete,
    );
    const remove = () => secrets.send(new DeleteSecretCommand({ SecretId: 'app' }));
    expect(await refusalOf(remove())).toMatchObject({ name: 'AccessDeniedException', status: 400 });
    await secrets.send(new DeleteResourcePolicyCommand({ SecretId: 'app' }));
    expect(
      (await secrets.send(new GetResourcePolicyCommand({ SecretId: 'app' }))).ResourcePolicy,
    ).toBeUndefined();
    await expect(remove()).resolves.toMatchObject({ Name: 'app' });
  });

  test('a broken one and, where asked, a public one are refused', async () => {
    const system = await startSystem();
    await create(system, 'app');
    const put = (ResourcePolicy: string) =>
      system.secrets.send(
        new PutResourcePolicyCommand({ SecretId: 'app', ResourcePolicy, BlockPublicPolicy: true }),
      );
    expect((await refusalOf(put('{'))).name).toBe('MalformedPolicyDocumentException');
    expect((await refusalOf(put(open))).name).toBe('PublicPolicyException');
  });

  test('validation tells a public one from a closed one', async () => {
    const { secrets } = await startSystem();
    const validate = async (ResourcePolicy: string) =>
      (await secrets.send(new ValidateResourcePolicyCommand({ ResourcePolicy }))).PolicyValidationPassed;
    expect([await validate(open), await validate(denyDelete)]).toEqual([false, true]);
  });
});

describe('listing', () => {
  async function startListed(): Promise<System> {
    const system = await startSystem();
    await create(system, 'rekey/orders', {
      Description: 'Orders API',
      Tags: [{ Key: 'team', Value: 'shop' }],
    });
    await system.clock.advance(1000);
    await create(system, 'rekey/search', {
      Description: 'search index',
      Tags: [{ Key: 'Team', Value: 'find' }],
    });
    await system.clock.advance(1000);
    await create(system, 'rds!cluster-1', { Description: 'managed' });
    await system.clock.advance(1000);
    await create(system, 'old', {});
    await system.secrets.send(new DeleteSecretCommand({ SecretId: 'old' }));
    return system;
  }
  const cases: Record<string, { input: ListSecretsCommandInput; want: string[] }> = {
    'shows the newest first and nothing that is to be deleted': {
      input: {},
      want: ['rds!cluster-1', 'rekey/search', 'rekey/orders'],
    },
    'shows what is to be deleted when asked': {
      input: { IncludePlannedDeletion: true, SortBy: 'name', SortOrder: 'asc' },
      want: ['old', 'rds!cluster-1', 'rekey/orders', 'rekey/search'],
    },
    'finds names by prefix': {
      input: { Filters: [{ Key: 'name', Values: ['rekey/o'] }] },
      want: ['rekey/orders'],
    },
    'minds case in names': { input: { Filters: [{ Key: 'name', Values: ['Rekey'] }] }, want: [] },
    'ignores case in descriptions': {
      input: { Filters: [{ Key: 'description', Values: ['ORDERS'] }] },
      want: ['rekey/orders'],
    },
    'minds case in tag keys': {
      input: { Filters: [{ Key: 'tag-key', Values: ['team'] }] },
      want: ['rekey/orders'],
    },
    'takes any value of a filter': {
      input: { Filters: [{ Key: 'tag-value', Values: ['shop', 'find'] }] },
      want: ['rekey/search', 'rekey/orders'],
    },
    'takes all filters together': {
      input: {
        Filters: [
          { Key: 'name', Values: ['rekey/'] },
          { Key: 'tag-value', Values: ['find'] },
        ],
      },
      want: ['rekey/search'],
    },
    'negates with an exclamation mark': {
      input: { Filters: [{ Key: 'name', Values: ['!rekey/'] }] },
      want: ['rds!cluster-1'],
    },
    'wants every word of a value': {
      input: { Filters: [{ Key: 'all', Values: ['orders shop'] }] },
      want: ['rekey/orders'],
    },
    'finds managed secrets by their owner': {
      input: { Filters: [{ Key: 'owning-service', Values: ['rds'] }] },
      want: ['rds!cluster-1'],
    },
  };
  test.each(Object.entries(cases))('%s', async (_sentence, { input, want }) => {
    const { secrets } = await startListed();
    const { SecretList = [] } = await secrets.send(new ListSecretsCommand(input));
    expect(SecretList.map(({ Name }) => Name)).toEqual(want);
  });

  test('goes on page by page, empty ones included', async () => {
    const { secrets, secretsManager } = await startListed();
    secretsManager.setVariants({ emptyPages: 1 });
    const pages: (string | undefined)[][] = [];
    let NextToken: string | undefined;
    do {
      const page = await secrets.send(
        new ListSecretsCommand({ MaxResults: 2, ...(NextToken && { NextToken }) }),
      );
      pages.push(page.SecretList?.map(({ Name }) => Name) ?? []);
      NextToken = page.NextToken;
    } while (NextToken !== undefined);
    expect(pages).toEqual([[], ['rds!cluster-1', 'rekey/search'], ['rekey/orders']]);
  });

  test('refuses a foreign token', async () => {
    const { secrets } = await startListed();
    const refusal = await refusalOf(secrets.send(new ListSecretsCommand({ NextToken: 'foreign' })));
    expect(refusal.name).toBe('InvalidNextTokenException');
  });

  test('names the versions of a secret in its own field', async () => {
    const system = await startSystem();
    await create(system, 'app', { ClientRequestToken: token('v1') });
    const { SecretList = [] } = await system.secrets.send(new ListSecretsCommand({}));
    expect(SecretList[0]?.SecretVersionsToStages).toEqual({ [token('v1')]: ['AWSCURRENT'] });
  });
});

describe('eventual consistency', () => {
  test('shows each kind of reader the state before the write as often as set', async () => {
    const system = await startSystem();
    await create(system, 'app', { ClientRequestToken: token('v1') });
    system.secretsManager.setVariants({
      staleReads: { GetSecretValue: 2, DescribeSecret: 1, ListSecretVersionIds: 1 },
    });
    const { secrets } = system;
    await secrets.send(
      new PutSecretValueCommand({ SecretId: 'app', ClientRequestToken: token('v2'), SecretString: 'two' }),
    );
    const get = async () => (await secrets.send(new GetSecretValueCommand({ SecretId: 'app' }))).SecretString;
    const labels = async () =>
      (await secrets.send(new DescribeSecretCommand({ SecretId: 'app' }))).VersionIdsToStages;
    const count = async () =>
      (await secrets.send(new ListSecretVersionIdsCommand({ SecretId: 'app' }))).Versions?.length;
    expect([await get(), await get(), await get()]).toEqual(['value of app', 'value of app', 'two']);
    expect([await labels(), await labels()]).toEqual([
      { [token('v1')]: ['AWSCURRENT'] },
      { [token('v1')]: ['AWSPREVIOUS'], [token('v2')]: ['AWSCURRENT'] },
    ]);
    expect([await count(), await count()]).toEqual([1, 2]);
  });

  test('hides a fresh secret from its first readers', async () => {
    const system = await startSystem({ variants: { staleReads: { DescribeSecret: 1 } } });
    await create(system, 'app');
    const describeApp = () => system.secrets.send(new DescribeSecretCommand({ SecretId: 'app' }));
    expect((await refusalOf(describeApp())).name).toBe('ResourceNotFoundException');
    await expect(describeApp()).resolves.toMatchObject({ Name: 'app' });
  });

  test('lets a listing lag behind by the time set, for new, changed and deleted secrets', async () => {
    const system = await startSystem({ variants: { listLagMs: 300_000 } });
    const list = async () =>
      ((await system.secrets.send(new ListSecretsCommand({}))).SecretList ?? []).map(
        ({ Name, Description = '' }) => `${Name} ${Description}`,
      );
    await create(system, 'app', { Description: 'old' });
    expect(await list()).toEqual([]);
    await system.clock.advance(300_000);
    await system.secrets.send(new UpdateSecretCommand({ SecretId: 'app', Description: 'new' }));
    expect(await list()).toEqual(['app old']);
    await system.clock.advance(300_000);
    await system.secrets.send(new DeleteSecretCommand({ SecretId: 'app', ForceDeleteWithoutRecovery: true }));
    expect(await list()).toEqual(['app new']);
    await system.clock.advance(300_000);
    expect(await list()).toEqual([]);
  });
});

describe('variants of a refusal', () => {
  test.each([
    {
      placeholderText: 'label' as const,
      want: "Secrets Manager can't find the specified secret value for staging label: AWSPENDING",
    },
    {
      placeholderText: 'version' as const,
      want: `Secrets Manager can't find the specified secret value for VersionId: ${token('v2')}`,
    },
  ])('a version without a value is named by its $placeholderText', async ({ placeholderText, want }) => {
    const system = await startSystem({
      variants: { placeholderText, retryDelaysMs: [] },
      invoke: async () => ({ ok: false, error: 'no' }),
    });
    await create(system, 'app');
    await system.secrets.send(
      new RotateSecretCommand({
        SecretId: 'app',
        ClientRequestToken: token('v2'),
        RotationLambdaARN: functionArn,
      }),
    );
    const read = system.secrets.send(
      new GetSecretValueCommand({ SecretId: 'app', VersionId: token('v2'), VersionStage: 'AWSPENDING' }),
    );
    expect(await refusalOf(read)).toEqual({ name: 'ResourceNotFoundException', message: want, status: 400 });
  });

  test.each([
    { updateWithUsedToken: 'success' as const, want: token('v1') },
    { updateWithUsedToken: 'error' as const, want: 'ResourceExistsException' },
  ])(
    'an update under a used token with the same data: $updateWithUsedToken',
    async ({ updateWithUsedToken, want }) => {
      const system = await startSystem({ variants: { updateWithUsedToken } });
      await create(system, 'app', { ClientRequestToken: token('v1') });
      const update = system.secrets.send(
        new UpdateSecretCommand({
          SecretId: 'app',
          ClientRequestToken: token('v1'),
          SecretString: 'value of app',
        }),
      );
      expect(
        await update.then(
          ({ VersionId }) => VersionId,
          (error: Error) => error.name,
        ),
      ).toBe(want);
    },
  );
});

describe('random passwords', () => {
  const ask = async (input: object) =>
    (await (await startSystem()).secrets.send(new GetRandomPasswordCommand(input))).RandomPassword ?? '';

  test('have 32 characters of every class', async () => {
    const password = await ask({});
    expect(password).toHaveLength(32);
    for (const kind of [/[a-z]/, /[A-Z]/, /[0-9]/, /[!-/:-@[-`{-~]/]) expect(password).toMatch(kind);
  });

  test('leave out what is excluded', async () => {
    const password = await ask({
      PasswordLength: 4096,
      ExcludePunctuation: true,
      ExcludeCharacters: 'O0Il1',
    });
    expect(password).toMatch(/^[A-HJ-NP-Za-km-z2-9]{4096}$/);
  });

  test('are refused when they cannot hold one of each class', async () => {
    const { secrets } = await startSystem();
    const call = secrets.send(new GetRandomPasswordCommand({ PasswordLength: 3 }));
    expect((await refusalOf(call)).name).toBe('InvalidParameterException');
  });
});

describe('events', () => {
  test('a label that reaches another version is announced as documented', async () => {
    const system = await startSystem();
    const { ARN } = await create(system, 'app', { ClientRequestToken: token('v1') });
    await system.secrets.send(
      new PutSecretValueCommand({
        SecretId: 'app',
        ClientRequestToken: token('v2'),
        SecretString: 'two',
        VersionStages: ['AWSCURRENT', 'AWSPENDING', 'blue'],
      }),
    );
    const updates = system.eventBridge
      .history()
      .filter(({ 'detail-type': type }) => type === 'Secret Label Updated');
    expect(updates.map(({ detail }) => `${detail['labelUpdated']} on ${detail['versionId']}`)).toEqual([
      `AWSCURRENT on ${token('v1')}`,
      `AWSCURRENT on ${token('v2')}`,
      `blue on ${token('v2')}`,
    ]);
    expect(updates[0]).toEqual({
      version: '0',
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      'detail-type': 'Secret Label Updated',
      source: 'aws.secretsmanager',
      account,
      time: '2026-03-01T12:00:00Z',
      region: 'eu-central-1',
      resources: [ARN],
      detail: { name: 'app', labelUpdated: 'AWSCURRENT', versionId: token('v1') },
    });
  });

  test.each([{ eventArnKey: 'arn' as const }, { eventArnKey: 'aRN' as const }])(
    'a call is logged without its value, with the ARN under $eventArnKey',
    async ({ eventArnKey }) => {
      const system = await startSystem({ variants: { eventArnKey } });
      const { ARN } = await create(system, 'app');
      await system.secrets.send(
        new PutSecretValueCommand({
          SecretId: 'app',
          ClientRequestToken: token('v2'),
          SecretString: 'canary-5f2b',
          RotationToken: 'canary-5f2b-rotation-token-0123456789',
        }),
      );
      const logged = system.eventBridge
        .history()
        .findLast(({ 'detail-type': type }) => type === 'AWS API Call via CloudTrail');
      expect(logged?.detail).toMatchObject({
        eventName: 'PutSecretValue',
        eventType: 'AwsApiCall',
        requestParameters: { secretId: 'app', clientRequestToken: token('v2') },
        responseElements: { [eventArnKey]: ARN, name: 'app', versionId: token('v2') },
      });
      expect(JSON.stringify(system.eventBridge.history())).not.toContain('canary-5f2b');
    },
  );

  test('without a trail only the native event is sent', async () => {
    const system = await startSystem({ variants: { trail: false } });
    await create(system, 'app');
    await system.secrets.send(new DeleteSecretCommand({ SecretId: 'app' }));
    expect(system.eventBridge.history().map(({ 'detail-type': type }) => type)).toEqual([
      'Secret Label Updated',
    ]);
  });
});

describe('a replicated secret', () => {
  const replicated = (system: System, ...regions: readonly string[]) =>
    create(system, 'app', { AddReplicaRegions: regions.map((Region) => ({ Region })) });
  const status = async ({ secrets }: System) =>
    (await secrets.send(new DescribeSecretCommand({ SecretId: 'app' }))).ReplicationStatus?.map(
      ({ Region, Status }) => `${Region} ${Status}`,
    );

  test('has a replica in every Region that is named, at once or later, and says where it comes from', async () => {
    const system = await startSystem();
    const made = await replicated(system, 'eu-west-1');
    expect(made.ReplicationStatus).toMatchObject([{ Region: 'eu-west-1', Status: 'InSync' }]);
    await system.secrets.send(
      new ReplicateSecretToRegionsCommand({
        SecretId: 'app',
        AddReplicaRegions: [{ Region: 'us-east-1', KmsKeyId: 'alias/own' }],
      }),
    );
    const described = await system.secrets.send(new DescribeSecretCommand({ SecretId: 'app' }));
    expect(described).toMatchObject({
      PrimaryRegion: 'eu-central-1',
      ReplicationStatus: [
        { Region: 'eu-west-1', Status: 'InSync', KmsKeyId: 'alias/aws/secretsmanager' },
        { Region: 'us-east-1', Status: 'InSync', KmsKeyId: 'alias/own' },
      ],
    });
  });

  test('that was never replicated says nothing of replicas', async () => {
    const system = await startSystem();
    await create(system, 'app');
    const described = await system.secrets.send(new DescribeSecretCommand({ SecretId: 'app' }));
    expect(described).not.toHaveProperty('ReplicationStatus');
    expect(described).not.toHaveProperty('PrimaryRegion');
  });

  test('has none in its own Region', async () => {
    const system = await startSystem();
    expect((await refusalOf(replicated(system, 'eu-central-1'))).name).toBe('InvalidParameterException');
  });

  test('takes a while to have every write, as long as the variant says', async () => {
    const system = await startSystem({ variants: { replicationMs: 5_000 } });
    await replicated(system, 'eu-west-1');
    expect(await status(system)).toEqual(['eu-west-1 InProgress']);
    await system.clock.advance(5_000);
    expect(await status(system)).toEqual(['eu-west-1 InSync']);
    await system.secrets.send(new PutSecretValueCommand({ SecretId: 'app', SecretString: 'two' }));
    expect(await status(system)).toEqual(['eu-west-1 InProgress']);
    await system.clock.advance(5_000);
    expect(await status(system)).toEqual(['eu-west-1 InSync']);
  });

  test('may fail in a Region, with a reason', async () => {
    const system = await startSystem({ variants: { failingRegions: ['us-east-1'] } });
    await replicated(system, 'eu-west-1', 'us-east-1');
    const described = await system.secrets.send(new DescribeSecretCommand({ SecretId: 'app' }));
    expect(described.ReplicationStatus).toMatchObject([
      { Region: 'eu-west-1', Status: 'InSync' },
      { Region: 'us-east-1', Status: 'Failed', StatusMessage: expect.any(String) },
    ]);
  });

  test('leaves a replica behind for good when AWSPENDING is taken off too early', async () => {
    const system = await startSystem({ variants: { replicationMs: 5_000 } });
    await replicated(system, 'eu-west-1');
    await system.clock.advance(5_000);
    const put = (id: string) =>
      system.secrets.send(
        new PutSecretValueCommand({
          SecretId: 'app',
          ClientRequestToken: token(id),
          SecretString: id,
          VersionStages: ['AWSPENDING'],
        }),
      );
    const takeOff = (id: string) =>
      system.secrets.send(
        new UpdateSecretVersionStageCommand({
          SecretId: 'app',
          VersionStage: 'AWSPENDING',
          RemoveFromVersionId: token(id),
        }),
      );
    await put('v2');
    await system.clock.advance(5_000);
    await takeOff('v2');
    await system.clock.advance(5_000);
    expect(await status(system)).toEqual(['eu-west-1 InSync']);
    await put('v3');
    await takeOff('v3');
    await system.clock.advance(dayMs);
    expect(await status(system)).toEqual(['eu-west-1 InProgress']);
  });

  test('is not deleted before its replicas, which may take a while to go', async () => {
    const system = await startSystem({ variants: { replicaRemovalMs: 60_000 } });
    const { ARN } = await replicated(system, 'eu-west-1', 'us-east-1');
    const remove = () => system.secrets.send(new DeleteSecretCommand({ SecretId: 'app' }));
    expect(await refusalOf(remove())).toMatchObject({
      name: 'InvalidParameterException',
      message: `You can't delete secret ${ARN} that still has replica regions [eu-west-1,us-east-1]`,
    });
    await system.secrets.send(
      new RemoveRegionsFromReplicationCommand({
        SecretId: 'app',
        RemoveReplicaRegions: ['eu-west-1', 'us-east-1', 'sa-east-1'],
      }),
    );
    expect((await refusalOf(remove())).name).toBe('InvalidParameterException');
    await system.clock.advance(60_000);
    expect(await status(system)).toBeUndefined();
    await remove();
  });
});
