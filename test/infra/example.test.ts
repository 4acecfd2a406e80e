import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { expect, test } from 'vitest';
import { Shop } from './example.ts';

const env = { account: '111122223333', region: 'eu-central-1' };
const template = Template.fromStack(new Shop(new App(), 'Shop', { env }));

test('another app has three credentials on two vendors, and nothing else of rekey', () => {
  const count = (type: string) => Object.keys(template.findResources(type)).length;
  expect(
    ['AWS::SecretsManager::Secret', 'AWS::SSM::Parameter', 'AWS::SecretsManager::RotationSchedule'].map(
      count,
    ),
  ).toEqual([3, 3, 3]);
  // The function of the shop, and none of rekey's.
  expect(count('AWS::Lambda::Function')).toBe(1);
  const specs = Object.values(template.findResources('AWS::SSM::Parameter')).map(({ Properties }) =>
    JSON.parse(Properties.Value),
  );
  expect(specs.map(({ name, provider }) => [name, provider])).toEqual([
    ['shop-web', 'render-postgres'],
    ['shop-orders', 'cockroachdb-cloud'],
    ['shop-reports', 'cockroachdb-cloud'],
  ]);
  expect(specs[2].consumers).toEqual([{ kind: 'event-bridge', busName: 'shop' }]);
});

test('its function reads the login that it was granted and no other secret, and changes nothing', () => {
  const secrets = template.findResources('AWS::SecretsManager::Secret');
  const [granted] = Object.keys(secrets).filter(
    (id) => secrets[id]?.['Properties'].Name === 'rekey/shop-orders',
  );
  const statements = Object.values(template.findResources('AWS::IAM::Policy')).flatMap(
    ({ Properties }) => Properties.PolicyDocument.Statement,
  );
  expect(statements).toEqual([
    {
      Effect: 'Allow',
      Action: ['secretsmanager:GetSecretValue', 'secretsmanager:DescribeSecret'],
      Resource: { Ref: granted },
      // That it refuses no read of an application, database-credential.test.ts shows.
      Condition: {
        'ForAllValues:StringEquals': { 'secretsmanager:VersionStage': ['AWSCURRENT', 'AWSPREVIOUS'] },
        Null: { 'secretsmanager:VersionId': 'true' },
      },
    },
  ]);
  template.hasResourceProperties('AWS::Lambda::Function', {
    Environment: { Variables: { DATABASE_SECRET: 'rekey/shop-orders' } },
  });
});

test('no password is in the template: every secret begins with the value that names no user', () => {
  for (const { Properties } of Object.values(template.findResources('AWS::SecretsManager::Secret')))
    expect(Properties.SecretString).toBe('{"rekey":"no user yet; the first rotation makes one"}');
});
