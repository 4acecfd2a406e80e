import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import * as z from 'zod';
import { loadConsumer } from '../../functions/consumers/index.ts';
import { parseSecretValue, secretString } from '../../functions/core/secret-value.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { parseSpec, specDocument } from '../../functions/core/spec.ts';
import { loadProvider } from '../../functions/providers/index.ts';
import { bundle } from '../../infra/bundle.ts';
import { startWorld, type World } from '../../infra/local/world.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
let directory = '';
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'rekey-upgrade-'));
});
afterAll(() => rm(directory, { recursive: true }));

describe('the logical ids of what an update must not replace', () => {
  /** By the type: what would be lost, and the ids under which CloudFormation knows what people have deployed. */
  const pinned: Record<string, { readonly lost: string; readonly ids: readonly string[] }> = {
    'AWS::SecretsManager::Secret': {
      lost: 'the update fails, as a secret of that name exists; whoever deletes it by hand deletes the only password of a user',
      ids: [
        'RekeyordersrenderF53388AF',
        'RekeyorderscockroachC0A901DF',
        'Rekeyordersvalkey1833725E',
        'RekeyordersvectorsDD8DA451',
      ],
    },
    'AWS::SSM::Parameter': {
      lost: 'the update fails, as a parameter of that name exists; without its spec a credential is not rotated any more',
      ids: [
        'RekeyordersrenderSpec12F21F08',
        'RekeyorderscockroachSpec5A7AD4F5',
        'RekeyordersvalkeySpec8B59C309',
        'RekeyordersvectorsSpecB2DA008C',
      ],
    },
    'AWS::SecretsManager::RotationSchedule': {
      lost: 'rotations: the old schedule is deleted after the new one was made, and with it the rotation of the secret is turned off',
      ids: [
        'RekeyordersrenderRotationF4B06EE0',
        'RekeyorderscockroachRotationA270073B',
        'RekeyordersvalkeyRotation3D822A81',
        'RekeyordersvectorsRotation130C969A',
      ],
    },
    'AWS::S3::Bucket': {
      lost: 'the audit trail begins anew in another bucket, and its chain of seals ends',
      ids: ['RekeyAuditBucket12C5EA01'],
    },
    'AWS::Events::EventBus': {
      lost: 'the update fails, as a bus of that name exists; rules that other stacks have on it are lost with it',
      ids: ['RekeyBusCFAF4CDC'],
    },
    'AWS::Events::Archive': {
      lost: 'the update fails, as an archive of that name exists; a year of events that could be replayed is lost with it',
      ids: ['RekeyAuditEventsArchive118A1C9D'],
    },
    'AWS::SQS::Queue': {
      lost: 'what lies in them: orders and events that wait, requests that came to nothing, and targets that are to be looked at',
      ids: [
        'RekeyLostRequests0BA14983',
        'RekeyLostTargets97080D4C',
        'RekeyLostStartsB4872DC8',
        'RekeyTargets32824D5A',
        'RekeyUrgentTargetsD06AE756',
        'RekeyStarts9B3E9A0A',
        'RekeyCreateUserEvents8EF50457',
        'RekeyPauseEventsD7ECFE70',
        'RekeyStartRotationsEventsAE9FF27D',
        'RekeyDeleteUserEventsFB86533E',
        'RekeyReconcileUsersEventsFE2370A9',
        'RekeyUpdateConsumersEvents63666638',
      ],
    },
    'AWS::SNS::Topic': {
      lost: 'every subscription of people: alarms are told to nobody',
      ids: ['RekeyAlarmsTopic2A46250B'],
    },
    'AWS::KMS::Key': {
      lost: 'what is encrypted under the old key and not yet delivered',
      ids: ['RekeyAlarmsKey95311B25'],
    },
    'AWS::ApiGatewayV2::Api': {
      lost: 'the address that vendors know: their webhooks come to nothing until people enter the new one',
      ids: ['RekeyWebhooksApiD915E9AC'],
    },
    'AWS::Logs::LogGroup': {
      lost: 'the update fails, as a group of that name exists; a year of logs is lost with it',
      ids: [
        'RekeyRotateSecretLog4F5F7DD4',
        'RekeyCreateUserLog8F42D213',
        'RekeyStartRotationsLog1A23475D',
        'RekeyDeleteUserLog189494E0',
        'RekeyReceiveWebhookLogB8E3F95D',
        'RekeyWebhooksAccessLogAD96AB81',
        'RekeyReconcileUsersLog4A1C5204',
        'RekeyUpdateConsumersLogF8945EBE',
        'RekeyRecordAuditLogBA4798B8',
      ],
    },
    'AWS::Lambda::Function': {
      lost: 'the update fails, as a function of that name exists; without it no secret rotates',
      ids: [
        'RekeyRotateSecret082B7802',
        'RekeyCreateUser76578CF3',
        'RekeyStartRotations38EFBC82',
        'RekeyDeleteUserBF5CE428',
        'RekeyReceiveWebhook8F31EBF4',
        'RekeyReconcileUsers504EDFEB',
        'RekeyUpdateConsumers44DB3079',
        'RekeyRecordAudit36D6129B',
      ],
    },
    'AWS::Scheduler::ScheduleGroup': {
      lost: 'the update fails, as a group of that name exists',
      ids: ['RekeySchedules36E2FAC2'],
    },
    'AWS::Scheduler::Schedule': {
      lost: 'the update fails, as a schedule of that name exists; without it passes do not come',
      ids: [
        'RekeySchedulestartrotations8D93061E',
        'RekeyScheduledeleteuser1A25D51B',
        'RekeySchedulereconcileusersF8EE05DD',
        'RekeySchedulerecordaudit93AEADAB',
      ],
    },
  };
  let resources: Readonly<Record<string, { readonly Type: string }>> = {};
  beforeAll(async () => {
    const { context } = z
      .object({ context: z.record(z.string(), z.unknown()) })
      .parse(JSON.parse(await readFile(join(root, 'cdk.json'), 'utf8')));
    const output = join(directory, 'cdk.out');
    await promisify(execFile)(process.execPath, ['infra/app.ts'], {
      cwd: root,
      env: { ...process.env, CDK_OUTDIR: output, CDK_CONTEXT_JSON: JSON.stringify(context) },
    });
    ({ Resources: resources } = JSON.parse(await readFile(join(output, 'Rekey.template.json'), 'utf8')));
  });

  test.each(Object.entries(pinned))('%s', (type, { lost, ids }) => {
    const found = Object.keys(resources).filter((id) => resources[id]?.Type === type);
    expect(found, `with another id it is another one to CloudFormation; lost: ${lost}`).toEqual(ids);
  });
});

/** Each as the first version to have it wrote it. Whoever changes how it is read adds to this list, and takes nothing away. */
const storedSpecs: Record<string, { readonly text: string; readonly has: object }> = {
  'of Render, with all that there is': {
    text: '{"adopt":{"passwordSecret":"rekey/adopt/orders","retire":true,"username":"orders_app"},"apiKeySecret":"rekey/api-keys/render","consumers":[{"apiKeySecret":"rekey/api-keys/render","environmentVariable":"DATABASE_URL","field":"url","kind":"render-service","serviceId":"srv-d0local0render0demo0"},{"busName":"orders","kind":"event-bridge"}],"drain":{"deadline":"P7D","force":false},"expiresAt":"2028-12-31T18:00:00.000Z","grace":"P1D","name":"orders-render","privileges":{},"provider":"render-postgres","rotation":{"blackouts":[{"from":"2026-12-20","to":"2027-01-03"}],"every":"P30D","window":{"days":["MO","TU"],"length":"PT3H","start":"02:00","timeZone":"Europe/Berlin"}},"strategy":"replace-user","target":{"postgresId":"dpg-d0local0render0demo0-a"},"usernamePrefix":"orders","verify":"none"}',
    has: { targetId: 'dpg-d0local0render0demo0-a', verify: 'none', expiresAt: '2028-12-31T18:00:00.000Z' },
  },
  'of CockroachDB, with an administrator': {
    text: '{"adminSecret":"rekey/admin/orders","apiKeySecret":"rekey/api-keys/cockroachdb","consumers":[],"drain":{"deadline":"P7D","force":true},"grace":"PT24H","name":"orders-cockroach","privileges":{"objectsOwner":"orders_owner","roles":["orders_rw"]},"provider":"cockroachdb-cloud","rotation":{"blackouts":[],"every":"P30D"},"strategy":"alternate-users","target":{"clusterId":"0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10","database":"defaultdb"},"usernamePrefix":"orders","verify":"login"}',
    has: { strategy: 'alternate-users', adminSecret: 'rekey/admin/orders' },
  },
  'of Vultr': {
    text: '{"apiKeySecret":"rekey/api-keys/vultr","consumers":[],"drain":{"deadline":"P7D","force":false},"grace":"PT24H","name":"orders-valkey","privileges":{"categories":["+@read","+@write","-@dangerous"],"channels":[],"commands":["+client|list","+client|setname"],"keys":["orders:*"]},"provider":"vultr-valkey","rotation":{"blackouts":[],"every":"P30D"},"strategy":"replace-user","target":{"databaseId":"6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21"},"usernamePrefix":"orders","verify":"login"}',
    has: { targetId: '6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21' },
  },
  'of Zilliz Cloud': {
    text: '{"apiKeySecret":"rekey/api-keys/zilliz","consumers":[],"drain":{"deadline":"P7D","force":false},"grace":"PT24H","name":"orders-vectors","privileges":{"roles":["orders_rw"]},"provider":"zilliz-cloud","rotation":{"blackouts":[],"every":"P30D"},"strategy":"reset-password","target":{"clusterId":"in01-0local0zilliz"},"usernamePrefix":"orders","verify":"login"}',
    has: { strategy: 'reset-password', targetId: 'in01-0local0zilliz' },
  },
};
describe('a spec that the present version stored', () => {
  test.each(Object.entries(storedSpecs))(
    '%s is read, and written the same',
    async (_sentence, { text, has }) => {
      const spec = await parseSpec(JSON.parse(text), { loadProvider, loadConsumer });
      expect(spec).toMatchObject(has);
      // Another text would be another spec to every comparison, and a change set for nothing.
      expect(specDocument(spec)).toBe(text);
    },
  );
});

describe('a login that the present version stored', () => {
  const storedLogins: Record<string, string> = {
    'render-postgres':
      '{"engine":"postgres","host":"dpg-d0local0render0demo0-a.frankfurt-postgres.render.com","port":5432,"username":"orders_abcdefghijkl","password":"example","dbname":"orders","url":"postgresql://orders_abcdefghijkl:example@dpg-d0local0render0demo0-a.frankfurt-postgres.render.com:5432/orders?sslmode=require","provider":"render-postgres","target":"dpg-d0local0render0demo0-a"}',
    'cockroachdb-cloud':
      '{"engine":"postgres","host":"orders-1234.6wr.aws-eu-central-1.cockroachlabs.cloud","port":26257,"username":"orders_abcdefghijkl","password":"example","dbname":"defaultdb","url":"postgresql://orders_abcdefghijkl:example@orders-1234.6wr.aws-eu-central-1.cockroachlabs.cloud:26257/defaultdb?sslmode=verify-full","provider":"cockroachdb-cloud","target":"0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10"}',
    'vultr-valkey':
      '{"engine":"valkey","host":"vultr-prod-1.vultrdb.com","port":16752,"username":"orders_abcdefghijkl","password":"example","dbname":"0","url":"rediss://orders_abcdefghijkl:example@vultr-prod-1.vultrdb.com:16752/0","provider":"vultr-valkey","target":"6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21","ca":"-----BEGIN CERTIFICATE-----\\nexample\\n-----END CERTIFICATE-----\\n"}',
    'zilliz-cloud':
      '{"engine":"milvus","host":"in01-0local0zilliz.aws-eu-central-1.vectordb.zillizcloud.com","port":19530,"username":"orders_abcdefghijkl","password":"example","dbname":"default","url":"https://in01-0local0zilliz.aws-eu-central-1.vectordb.zillizcloud.com:19530","uri":"https://in01-0local0zilliz.aws-eu-central-1.vectordb.zillizcloud.com:19530","token":"orders_abcdefghijkl:example","provider":"zilliz-cloud","target":"in01-0local0zilliz"}',
  };
  test.each(Object.entries(storedLogins))(
    'of %s is read, and no field of it is lost when it is written',
    async (provider, text) => {
      const definition = await loadProvider(provider);
      if (definition === undefined) throw new Error(`no provider ${provider}`);
      const value = parseSecretValue(new Sensitive(text), 'rekey/orders');
      if (value.kind !== 'login') throw new Error('expected a login');
      const { target: targetId } = value;
      expect(value).toMatchObject({ provider });
      // Applications read these fields: more may come, and none may go.
      expect(JSON.parse(secretString(value.login, { definition, targetId }).reveal())).toMatchObject(
        JSON.parse(text),
      );
    },
  );
});

describe('a new version that is deployed in the middle of a rotation', () => {
  const said = 'another version of rekey starts';
  let world: World;
  /** Of each version, the bundles by the name of their function. */
  let bundles: readonly ReadonlyMap<string, string>[] = [];
  let started: string[] = [];

  beforeAll(async () => {
    world = await startWorld({
      log: ({ functionName, line }) => {
        if (line === said) started.push(functionName);
      },
    });
    // The same sources: what is shown is that nothing of a rotation lives in a process. The other version says that it is it.
    const { directory: other } = await bundle({ directory: join(directory, 'functions') });
    const { functions } = world.deployment.stack;
    const bundleOf = ({ handler }: { readonly handler: string }) => join(other, handler.split('.')[0] ?? '');
    for (const each of functions) {
      const file = join(bundleOf(each), `${each.handler.split('.')[0]}.mjs`);
      await writeFile(file, `${await readFile(file, 'utf8')}\nconsole.log(${JSON.stringify(said)});\n`);
    }
    bundles = [
      new Map(functions.map((each) => [each.name, each.directory])),
      new Map(functions.map((each) => [each.name, bundleOf(each)])),
    ];
    for (const { name } of world.specs) await rotate(name);
  });
  afterAll(() => world?.stop());

  async function rotate(name: string, ClientRequestToken: string = randomUUID()): Promise<void> {
    const { secretsManager } = world.deployment;
    await secretsManager.call('RotateSecret', { SecretId: `rekey/${name}`, ClientRequestToken });
    await world.deployment.settled();
    await secretsManager.idle();
  }

  async function current(name: string): Promise<{ readonly VersionId: string; readonly username: string }> {
    const value = await world.deployment.secretsManager.call('GetSecretValue', { SecretId: `rekey/${name}` });
    const { VersionId, SecretString } = z
      .object({ VersionId: z.string(), SecretString: z.string() })
      .parse(value);
    return { VersionId, ...z.object({ username: z.string() }).parse(JSON.parse(SecretString)) };
  }

  /** All functions run this bundle from now on; what runs already finishes with the old one, as at AWS. */
  const deploy = (to: ReadonlyMap<string, string>): void => {
    for (const [name, directory] of to) world.deployment.lambda.swapDirectory(name, directory);
  };

  test.each(['orders-render', 'orders-cockroach', 'orders-valkey', 'orders-vectors'])(
    'before every step of %s changes nothing about it, and can be taken back there',
    async (name) => {
      const spec = world.specs.find((each) => each.name === name);
      const vendor = world.vendors.byProvider[spec?.provider ?? ''];
      if (spec === undefined || vendor === undefined) throw new Error(`nothing is declared as ${name}`);
      const before = { ...(await current(name)), users: await vendor.usernames(spec.target) };
      const { lambda } = world.deployment;
      const invoke = lambda.invoke.bind(lambda);
      const ran: string[] = [];
      started = [];
      const spy = vi.spyOn(lambda, 'invoke').mockImplementation((called, payload, options) => {
        const { Step } = payload as { Step?: string };
        if (Step !== undefined) {
          deploy(bundles[ran.length % 2] ?? new Map());
          ran.push(Step);
        }
        return invoke(called, payload, options);
      });
      const token = randomUUID();
      await rotate(name, token);
      spy.mockRestore();
      const after = { ...(await current(name)), users: await vendor.usernames(spec.target) };
      // Each step once: none failed and came again. The second and the fourth were the other version's.
      expect(ran).toEqual(['createSecret', 'setSecret', 'testSecret', 'finishSecret']);
      expect(started.filter((starting) => starting === 'rekey-rotate-secret')).toHaveLength(2);
      // One user was made, who is the current one now. Whoever was before is still there.
      expect(after.VersionId).toBe(token);
      expect(after.username).not.toBe(before.username);
      expect(after.users.toSorted()).toEqual([...before.users, after.username].toSorted());
      expect(world.deployment.lostRequests).toEqual([]);
    },
  );
});
