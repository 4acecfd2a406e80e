import { randomBytes } from 'node:crypto';
import { type OnCall, startAwsEndpoint } from './aws/endpoint.ts';
import { createEventBridge, type DeliveryResult, type EventBridge } from './aws/event-bridge.ts';
import { createParameters } from './aws/parameters.ts';
import type { Variants } from './aws/secrets-manager/model.ts';
import { createSecretsManager, type SecretsManager } from './aws/secrets-manager.ts';
import type { Clock } from './clock.ts';
import { type AsyncFailure, type FunctionLogLine, type LambdaHost, startLambda } from './lambda.ts';
import { type LocalStack, readTemplate } from './template.ts';

/** The synthesized stack, alive: what `cdk deploy` would leave behind, on loopback. */
export interface Deployment {
  /** What AWS_ENDPOINT_URL must hold for the SDK or the CLI. */
  readonly endpointUrl: string;
  readonly region: string;
  readonly stack: LocalStack;
  readonly secretsManager: SecretsManager;
  readonly bus: EventBridge;
  readonly lambda: LambdaHost;
  /** Requests that came to nothing: events that failed in the function, to the end of their retries. */
  readonly lostRequests: readonly AsyncFailure[];
  /** Afterwards no process and no socket of the deployment is left. */
  stop(): Promise<void>;
}

export interface DeploymentOptions {
  /** `<stack>.template.json` in a cloud assembly. */
  readonly template: string;
  readonly clock: Clock;
  /** How the functions reach the vendors. */
  readonly egress: { readonly proxyUrl: string; readonly caFile: string };
  /** Secrets that exist before the deployment, by name: API keys. */
  readonly secrets: Readonly<Record<string, string>>;
  readonly log: (line: FunctionLogLine) => void;
  readonly onCall?: OnCall;
  readonly variants?: Partial<Variants>;
}

const account = '123456789012';
const region = 'eu-central-1';

/** Reads the template and makes it live: functions as processes, rules, secrets, specs and rotation. */
export async function startDeployment(options: DeploymentOptions): Promise<Deployment> {
  const { clock, egress, log } = options;
  const stack = await readTemplate(options.template, { account, region });
  const lostRequests: AsyncFailure[] = [];

  const bus = createEventBridge({
    account,
    region,
    clock,
    buses: stack.buses.map(({ name }) => name),
    deliver: async (targetArn, event): Promise<DeliveryResult> => {
      if (!stack.functions.some(({ arn }) => arn === targetArn))
        return { ok: false, error: `no such target: ${targetArn}`, isFinal: true };
      await lambda.invoke(targetArn, event, { async: true });
      return { ok: true };
    },
  });
  const secretsManager = createSecretsManager({
    account,
    region,
    clock,
    emit: (event) => bus.emit(event),
    mayInvoke: (functionArn) =>
      stack.permissions.some(
        (permission) =>
          permission.functionArn === functionArn &&
          permission.principal === 'secretsmanager.amazonaws.com' &&
          permission.sourceAccount === account,
      ),
    invoke: async (functionArn, event) => {
      const result = await lambda.invoke(functionArn, event);
      return result.ok ? { ok: true } : { ok: false, error: `${result.errorType}: ${result.errorMessage}` };
    },
    ...(options.variants === undefined ? {} : { variants: options.variants }),
  });
  const parameters = createParameters({ account, region, clock });
  const endpoint = await startAwsEndpoint({
    services: [secretsManager, bus, parameters],
    clock,
    ...(options.onCall === undefined ? {} : { onCall: options.onCall }),
  });
  const lambda = startLambda({
    region,
    account,
    clock,
    log,
    onAsyncFailure: (failure) => lostRequests.push(failure),
    extraEnvironment: {
      AWS_ENDPOINT_URL: endpoint.url,
      HTTPS_PROXY: egress.proxyUrl,
      NODE_EXTRA_CA_CERTS: egress.caFile,
    },
  });
  const stop = async (): Promise<void> => {
    await secretsManager.stop();
    await bus.stop();
    await lambda.close();
    await endpoint.close();
  };

  try {
    for (const record of stack.functions) lambda.addFunction(record);
    for (const rule of stack.rules.filter(({ isEnabled }) => isEnabled))
      bus.addRule({
        ...rule,
        targets: rule.targets.map(({ arn, deadLetterArn, retryPolicy }) => ({
          arn,
          ...retryPolicy,
          ...(deadLetterArn === undefined ? {} : { deadLetterArn }),
        })),
      });
    const create = (service: typeof secretsManager | typeof parameters, operation: string, input: object) =>
      service.call(operation, input);
    for (const [name, value] of Object.entries(options.secrets))
      await create(secretsManager, 'CreateSecret', {
        Name: name,
        SecretString: value,
        ClientRequestToken: token(),
      });
    for (const { name, value } of stack.parameters)
      await create(parameters, 'PutParameter', { Name: name, Value: value, Type: 'String' });
    for (const { name, secretString, description } of stack.secrets)
      await create(secretsManager, 'CreateSecret', {
        Name: name,
        SecretString: secretString,
        Description: description,
        ClientRequestToken: token(),
      });
    for (const { secretName, functionArn, rules, rotateImmediately } of stack.rotations)
      await create(secretsManager, 'RotateSecret', {
        SecretId: secretName,
        ClientRequestToken: token(),
        RotationLambdaARN: functionArn,
        RotateImmediately: rotateImmediately,
        RotationRules: {
          AutomaticallyAfterDays: rules.automaticallyAfterDays,
          ScheduleExpression: rules.scheduleExpression,
          Duration: rules.duration,
        },
      });
    // What a deployment sets off, here the trial runs of each rotation, belongs to the deployment.
    await secretsManager.idle();
  } catch (error) {
    await stop();
    throw error;
  }
  return { endpointUrl: endpoint.url, region, stack, secretsManager, bus, lambda, lostRequests, stop };
}

const token = (): string => randomBytes(16).toString('hex');
