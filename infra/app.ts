import { App, CfnOutput, Stack } from 'aws-cdk-lib';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { loadConsumer } from '../functions/consumers/index.ts';
import { parseSpec } from '../functions/core/spec.ts';
import { loadProvider } from '../functions/providers/index.ts';
import { bundle } from './bundle.ts';
import { credentials } from './credentials.ts';
import { Rekey } from './rekey.ts';

const { directory } = await bundle();
const specs = await Promise.all(
  credentials.map((credential) => parseSpec(credential, { loadProvider, loadConsumer })),
);

const stack = new Stack(new App(), 'Rekey', {
  description: 'rekey: credentials of databases that AWS does not run',
});
const rekey = new Rekey(stack, 'Rekey', { code: Code.fromAsset(directory), credentials: specs });
new CfnOutput(stack, 'AlarmTopic', {
  description: 'Subscribe here to hear of alarms',
  value: rekey.alarms.topic.topicArn,
});
new CfnOutput(stack, 'WebhookUrl', {
  description: "Where Render's webhook has to point; its secret goes to rekey/webhooks/render",
  value: rekey.webhooks.renderUrl,
});
new CfnOutput(stack, 'AuditBucket', {
  description: 'Holds the audit trail',
  value: rekey.audit.bucket.bucketName,
});
