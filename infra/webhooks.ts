import { RemovalPolicy, Validations } from 'aws-cdk-lib';
import { AccessLogFormat } from 'aws-cdk-lib/aws-apigateway';
import { HttpApi, HttpMethod, HttpStage, LogGroupLogDestination } from 'aws-cdk-lib/aws-apigatewayv2';
import { HttpLambdaIntegration } from 'aws-cdk-lib/aws-apigatewayv2-integrations';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { LogGroup, type RetentionDays } from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';

export interface WebhooksProps {
  /** Verifies what came before it believes any of it. */
  readonly receiver: IFunction;
  readonly logRetention: RetentionDays;
}

/** The one door to the outside: a vendor posts its webhooks here, and so may anybody else, but slowly. */
export class Webhooks extends Construct {
  /** Where every vendor's webhook has to point, but for the name of its endpoint. */
  readonly baseUrl: string;
  /** Where Render's webhook has to point. */
  readonly renderUrl: string;

  constructor(scope: Construct, id: string, { receiver, logRetention }: WebhooksProps) {
    super(scope, id);
    const api = new HttpApi(this, 'Api', {
      apiName: 'rekey-webhooks',
      description: 'rekey: webhooks of the vendors',
      createDefaultStage: false,
    });
    const path = '/webhooks/';
    const routes = api.addRoutes({
      path: `${path}render`,
      methods: [HttpMethod.POST],
      integration: new HttpLambdaIntegration('Receiver', receiver),
    });
    for (const route of routes)
      Validations.of(route).acknowledge({
        id: 'AwsSolutions-APIG4',
        reason:
          'A vendor signs its webhooks and can do nothing else. The function verifies the bytes before it believes any of them, and the stage is throttled.',
      });
    // API Gateway adds each group to a policy of the account that holds 5120 characters, but for those of this prefix (AWS documentation).
    const log = new LogGroup(this, 'AccessLog', {
      logGroupName: '/aws/vendedlogs/rekey-webhooks',
      retention: logRetention,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    new HttpStage(this, 'Stage', {
      httpApi: api,
      stageName: '$default',
      autoDeploy: true,
      // A vendor sends one or two for a rotation, and repeats what was refused. The bound is for everybody else.
      throttle: { rateLimit: 5, burstLimit: 10 },
      accessLogSettings: {
        destination: new LogGroupLogDestination(log),
        format: AccessLogFormat.custom(accessLogLine),
      },
    });
    this.baseUrl = `${api.apiEndpoint}${path}`;
    this.renderUrl = `${this.baseUrl}render`;
  }
}

/** Who came when, and what became of it. No header and no body, so no signature either. */
const accessLogLine = JSON.stringify({
  requestId: '$context.requestId',
  time: '$context.requestTime',
  sourceIp: '$context.identity.sourceIp',
  route: '$context.routeKey',
  protocol: '$context.protocol',
  status: '$context.status',
  latencyMs: '$context.responseLatency',
  integrationStatus: '$context.integrationStatus',
  integrationLatencyMs: '$context.integrationLatency',
  integrationError: '$context.integrationErrorMessage',
});
