import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { App, CfnOutput, Stack } from 'aws-cdk-lib';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { bundle } from './bundle.ts';
import { declareCredentials } from './credentials.ts';
import { Rekey } from './rekey.ts';

const { directory } = await bundle({ maps: fileURLToPath(new URL('../.build/maps', import.meta.url)) });

const stack = new Stack(new App(), 'Rekey', {
  description: 'rekey: credentials of databases that AWS does not run',
});
const rekey = new Rekey(stack, 'Rekey', { code: (handler) => Code.fromAsset(join(directory, handler)) });
declareCredentials(rekey);
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
new CfnOutput(stack, 'Dashboard', {
  description: 'What it is called in CloudWatch',
  value: rekey.dashboard.dashboardName,
});
