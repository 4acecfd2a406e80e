import { randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  type Authorizer,
  createAuthorizer,
  type Decision,
  idlePermissions,
  type Permission,
  type Principal,
} from './authorization.ts';
import { type Alarms, createAlarms } from './aws/alarms.ts';
import { type DeliveryResult, letterAttributes } from './aws/delivery.ts';
import { type OnCall, startAwsEndpoint } from './aws/endpoint.ts';
import { createEventBridge, type EventBridge } from './aws/event-bridge.ts';
import { type EventSource, startEventSource } from './aws/event-source-mapping.ts';
import { type HttpApi, startHttpApi } from './aws/http-api.ts';
import { createParameters } from './aws/parameters.ts';
import { createQueues, type QueuedMessage, type Queues } from './aws/queues.ts';
import { createQuotas, type Quota, type Quotas } from './aws/quotas.ts';
import { createS3, type S3 } from './aws/s3.ts';
import { createScheduler, type Scheduler, type SchedulerOptions } from './aws/scheduler.ts';
import type { Variants } from './aws/secrets-manager/model.ts';
import { createSecretsManager, type SecretsManager } from './aws/secrets-manager.ts';
import type { Authorize } from './aws/service.ts';
import { startDynalite } from './aws/tables.ts';
import { createTopics, type Topics } from './aws/topics.ts';
import { type Clock, isMovable } from './clock.ts';
import {
  type AsyncFailure,
  type FunctionLogLine,
  functionOfAccessKeyId,
  type LambdaHost,
  startLambda,
} from './lambda.ts';
import { type LocalStack, readTemplate } from './template.ts';

/** The synthesized stack, alive: what `cdk deploy` would leave behind, on loopback. */
export interface Deployment {
  /** What AWS_ENDPOINT_URL must hold for the SDK or the CLI. */
  readonly endpointUrl: string;
  readonly region: string;
  readonly stack: LocalStack;
  readonly secretsManager: SecretsManager;
  readonly bus: EventBridge;
  readonly queues: Queues;
  readonly scheduler: Scheduler;
  readonly topics: Topics;
  readonly alarms: Alarms;
  readonly lambda: LambdaHost;
  readonly httpApis: readonly HttpApi[];
  readonly s3: S3;
  /** Judges every call of a function by its role, and all that services do on somebody's behalf, by the policies of the stack. */
  readonly authorizer: Pick<Authorizer, 'judged' | 'refusals'>;
  /** What the policies allow and nobody has needed so far. */
  idlePermissions(): Promise<readonly Permission[]>;
  /** Where a vendor's webhook has to point. Throws where the stack has no route for one. */
  readonly webhookUrl: string;
  /** The calls that reached the endpoint, S3 left out, and how many of them were throttled. */
  readonly callCounts: Quotas['counts'];
  /** What came to nothing and lies in a dead-letter queue: events, passes of schedules, messages. */
  readonly lostRequests: readonly LostRequest[];
  /**
   * Puts the clock forward by so many milliseconds, or to a moment, from one due time to the next: schedules, Secrets
   * Manager's own, retries and time-outs. At each of them waits until nothing runs any more. Afterwards all that was to
   * happen until then has happened. Needs a movable clock.
   */
  advance(to: number | Date, options?: AdvanceOptions): Promise<void>;
  /** Resolves once no function runs and nothing more happens before the clock goes on. */
  settled(): Promise<void>;
  /** Afterwards no process, socket or timer of the deployment is left. May be called again. */
  stop(): Promise<void>;
}

export interface AdvanceOptions {
  /**
   * `all` lets every schedule come whenever it is due. `sparse` leaves most of it out: a schedule comes once a day, at its
   * last time in 24 hours, and at its last time before the end. `everyMs` is the same with another step; for a window of two
   * hours it takes at most two hours. @default 'sparse'
   */
  readonly passes?: 'all' | 'sparse' | { readonly everyMs: number };
}

export interface LostRequest extends QueuedMessage {
  readonly queueName: string;
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
  /** Hold for calls to the endpoint, not for what CloudFormation does in a deployment. @default none */
  readonly quotas?: readonly Quota[];
  /** When a schedule of the form `rate(…)` comes for the first time. @default 'after-one-interval' */
  readonly firstRate?: SchedulerOptions['firstRate'];
  /** What goes on beside the stack and reaches into it, such as webhooks on their way: the clock waits for it, too. @default nothing */
  readonly outside?: UnderWay;
}

/** Something that runs, and has to end before the clock goes on. */
export interface UnderWay {
  isBusy(): boolean;
  /** Resolves as soon as one part of it that is under way now has ended; at once when there is none. */
  oneEnded(): Promise<void>;
}

const account = '123456789012';
const roleArn = (name: string): string => `arn:aws:iam::${account}:role/${name}`;
const region = 'eu-central-1';
const dayMs = 86_400_000;
/** How often the schedules look at the clock while nobody moves it. */
const heartbeatMs = 1_000;

/** Reads the template and makes it live: functions as processes, rules, schedules, queues, alarms, secrets and specs. */
export async function startDeployment(options: DeploymentOptions): Promise<Deployment> {
  const { clock, egress, log } = options;
  const queues = createQueues({ account, region, clock });

  /** What services do by themselves, after somebody was answered: the clock waits for it. */
  const errands = new Set<Promise<void>>();
  function runErrand(work: Promise<unknown>): void {
    const errand: Promise<void> = work.then(() => undefined).finally(() => errands.delete(errand));
    errands.add(errand);
  }

  // Whoever has no function's key is the administrator of the account, who may everything: the demo, the tests, a person.
  const authorize: Authorize = async (accessKeyId = '', authorization) => {
    const functionName = functionOfAccessKeyId(accessKeyId);
    if (functionName === undefined) return undefined;
    const decision = await authorizer.decide(functionPrincipal(functionName), authorization);
    return decision.allowed ? undefined : decision.message;
  };
  const functionPrincipal = (functionName: string): Principal => ({
    role: lambda.identityOf(functionName).roleName ?? 'none',
    session: functionName,
  });
  /** What a service may do for a resource of ours: `sourceArn` is what a policy knows it by. */
  const onBehalf = (
    service: `${string}.amazonaws.com`,
    sourceArn: string | undefined,
    action: string,
    resource: string,
  ): Promise<Decision> =>
    authorizer.decide(
      { service },
      {
        action,
        resource,
        context: {
          'aws:SourceAccount': account,
          ...(sourceArn === undefined ? {} : { 'aws:SourceArn': sourceArn }),
        },
      },
    );
  const actionOn = (targetArn: string): string =>
    isQueue(targetArn) ? 'sqs:SendMessage' : 'lambda:InvokeFunction';
  const isFunction = (arn: string) => stack.functions.some((each) => each.arn === arn);
  const isQueue = (arn: string) => stack.queues.some((each) => each.arn === arn);
  const noResource = (arn: string): DeliveryResult => ({
    ok: false,
    error: `no such target: ${arn}`,
    isFinal: true,
    code: 'NO_RESOURCE',
  });
  const noPermission = (error: string): DeliveryResult => ({
    ok: false,
    error,
    isFinal: true,
    code: 'NO_PERMISSIONS',
  });
  /** Invokes a function asynchronously, or sends a message. */
  async function hand(targetArn: string, payload: unknown, text: string): Promise<DeliveryResult> {
    if (isQueue(targetArn)) queues.send(targetArn, text);
    else await lambda.invoke(targetArn, payload, { async: true });
    return { ok: true };
  }

  const bus = createEventBridge({
    account,
    region,
    clock,
    deliver: async (targetArn, event, { name }): Promise<DeliveryResult> => {
      if (!isFunction(targetArn) && !isQueue(targetArn)) return noResource(targetArn);
      const decision = await onBehalf('events.amazonaws.com', ruleArn(name), actionOn(targetArn), targetArn);
      if (!decision.allowed) return noPermission(decision.message);
      return hand(targetArn, event, JSON.stringify(event));
    },
    onDeadLetter: ({ deadLetterArn, ruleName, targetArn, event, ...failure }) => {
      const RULE_ARN = ruleArn(ruleName);
      const keep = async () => {
        if ((await onBehalf('events.amazonaws.com', RULE_ARN, 'sqs:SendMessage', deadLetterArn)).allowed)
          queues.send(
            deadLetterArn,
            JSON.stringify(event),
            letterAttributes(failure, { RULE_ARN, TARGET_ARN: targetArn }),
          );
      };
      runErrand(keep());
    },
  });
  const ruleArn = (ruleName: string): string =>
    stack.rules.find(({ name }) => name === ruleName)?.arn ?? ruleName;

  /** Scheduler acts as the role of the schedule, which it has to assume first. */
  async function asSchedule(scheduleArn: string, resource: string): Promise<Decision> {
    const schedule = stack.schedules.find(({ arn }) => arn === scheduleArn);
    if (schedule === undefined) throw new Error(`no such schedule: ${scheduleArn}`);
    const { roleName: role } = schedule.target;
    const assumed = await onBehalf(
      'scheduler.amazonaws.com',
      // The group, not the schedule (AWS documentation).
      schedule.groupArn,
      'sts:AssumeRole',
      roleArn(role),
    );
    return assumed.allowed
      ? authorizer.decide({ role, session: schedule.name }, { action: actionOn(resource), resource })
      : assumed;
  }
  const scheduler = createScheduler({
    clock,
    ...(options.firstRate === undefined ? {} : { firstRate: options.firstRate }),
    deliver: async (targetArn, input, scheduleArn) => {
      if (!isFunction(targetArn) && !isQueue(targetArn)) return noResource(targetArn);
      const decision = await asSchedule(scheduleArn, targetArn);
      return decision.allowed ? hand(targetArn, JSON.parse(input), input) : noPermission(decision.message);
    },
    onLost: ({ deadLetterArn, scheduleArn, targetArn, scheduledAt, input, ...failure }) => {
      if (deadLetterArn === undefined) return;
      const more = {
        SCHEDULE_ARN: scheduleArn,
        TARGET_ARN: targetArn,
        SCHEDULED_TIME: scheduledAt.toISOString(),
      };
      const keep = async () => {
        if ((await asSchedule(scheduleArn, deadLetterArn)).allowed)
          queues.send(deadLetterArn, input, letterAttributes(failure, more));
      };
      runErrand(keep());
    },
  });
  const topics = createTopics({
    clock,
    invoke: async (functionArn, event, topicArn) => {
      const decision = await onBehalf('sns.amazonaws.com', topicArn, 'lambda:InvokeFunction', functionArn);
      if (decision.allowed) await lambda.invoke(functionArn, event, { async: true });
    },
    send: (queueArn, body, topicArn) => {
      const keep = async () => {
        if ((await onBehalf('sns.amazonaws.com', topicArn, 'sqs:SendMessage', queueArn)).allowed)
          queues.send(queueArn, body);
      };
      runErrand(keep());
    },
  });
  const alarms = createAlarms({
    account,
    region,
    clock,
    publish: (topicArn, message, subject, alarmArn) => {
      const publish = async () => {
        const keyArn = stack.topics.find(({ arn }) => arn === topicArn)?.keyArn;
        const needs = [
          { action: 'sns:Publish', resource: topicArn },
          // What is published is encrypted with a key of its own, which is made under the topic's (AWS documentation).
          ...(keyArn === undefined
            ? []
            : ['kms:GenerateDataKey', 'kms:Decrypt'].map((action) => ({ action, resource: keyArn }))),
        ];
        for (const { action, resource } of needs)
          if (!(await onBehalf('cloudwatch.amazonaws.com', alarmArn, action, resource)).allowed) return;
        topics.publish(topicArn, message, subject);
      };
      runErrand(publish());
    },
  });
  /** Secrets Manager names the account that it acts for, and no secret (AWS documentation). */
  const callsRotator = (functionArn: string) =>
    [
      { service: 'secretsmanager.amazonaws.com' },
      {
        action: 'lambda:InvokeFunction',
        resource: functionArn,
        context: { 'aws:SourceAccount': account },
      },
    ] as const;
  /** RotateSecret asks in the middle of its work, for which the answers have to be there. */
  const rotators = new Map<string, boolean>();
  const secretsManager = createSecretsManager({
    account,
    region,
    clock,
    emit: (event) => bus.emit(event),
    mayInvoke: (functionArn) => {
      const may = rotators.get(functionArn) ?? false;
      if (!may) runErrand(authorizer.decide(...callsRotator(functionArn)));
      return may;
    },
    invoke: async (functionArn, event) => {
      // The answer is that of when the rotation was attached; here the permission counts as needed.
      await authorizer.decide(...callsRotator(functionArn));
      const result = await lambda.invoke(functionArn, event);
      return result.ok ? { ok: true } : { ok: false, error: `${result.errorType}: ${result.errorMessage}` };
    },
    ...(options.variants === undefined ? {} : { variants: options.variants }),
  });
  const parameters = createParameters({ account, region, clock });
  const tables = await startDynalite({ account, region });
  const s3 = createS3({
    buckets: [],
    clock,
    authorize,
    ...(options.onCall === undefined ? {} : { onCall: options.onCall }),
  });
  const quotas = createQuotas({
    clock,
    ...(options.quotas === undefined ? {} : { quotas: options.quotas }),
  });
  const endpoint = await startAwsEndpoint({
    services: [secretsManager, bus, parameters, queues, tables.service].map(quotas.limit),
    // The only service of the stack that is spoken to in REST.
    otherwise: s3.serve,
    clock,
    authorize,
    ...(options.onCall === undefined ? {} : { onCall: options.onCall }),
  });
  const httpApis: HttpApi[] = [];
  const stack = await readServed().catch(async (error: unknown) => {
    await Promise.all(httpApis.map((api) => api.close()));
    await endpoint.close();
    await tables.stop();
    throw error;
  });
  const authorizer = createAuthorizer({ account, policies: stack.policies });
  /**
   * The stack as the functions see it. Only now is it known where a queue's URL points to; the template is read twice, as it is
   * what says which HTTP APIs there are, and functions are told the addresses that these have here.
   */
  async function readServed(): Promise<LocalStack> {
    const where = { account, region, queueOrigin: endpoint.url };
    const urls = new Map<string, string>();
    for (const { id, routes, throttle } of (await readTemplate(options.template, where)).httpApis) {
      const api = await startHttpApi({
        id,
        account,
        region,
        clock,
        routes,
        ...(throttle === undefined ? {} : { throttle }),
        mayInvoke: async (functionArn, sourceArn) =>
          (await onBehalf('apigateway.amazonaws.com', sourceArn, 'lambda:InvokeFunction', functionArn))
            .allowed,
        invoke: (functionArn, event) => lambda.invoke(functionArn, event),
      });
      httpApis.push(api);
      urls.set(id, api.url);
    }
    return readTemplate(options.template, { ...where, apiEndpoint: (id) => urls.get(id) ?? '' });
  }
  const lambda = startLambda({
    region,
    account,
    clock,
    log: (line) => {
      const write = async () => {
        if (!(await mayLog(line.functionName))) return;
        alarms.observeLine(line.line);
        log(line);
      };
      runErrand(write());
    },
    onAsyncFailure: (failure) => {
      const failed = stack.functions.find(({ arn }) => arn === failure.functionArn);
      if (failed?.onFailureArn === undefined || !isQueue(failed.onFailureArn)) return;
      const { name, onFailureArn: resource } = failed;
      const record = JSON.stringify(failureRecord(failure, clock.now()));
      const keep = async () => {
        const asked = { action: 'sqs:SendMessage', resource };
        if ((await authorizer.decide(functionPrincipal(name), asked)).allowed) queues.send(resource, record);
      };
      runErrand(keep());
    },
    onInvocation: (functionName, { ok }) => {
      for (const [metricName, value] of [
        ['Invocations', 1],
        ['Errors', ok ? 0 : 1],
      ] as const)
        alarms.observe({
          namespace: 'AWS/Lambda',
          metricName,
          dimensions: { FunctionName: functionName },
          at: clock.now(),
          value,
        });
    },
    extraEnvironment: {
      AWS_ENDPOINT_URL: endpoint.url,
      HTTPS_PROXY: egress.proxyUrl,
      NODE_EXTRA_CA_CERTS: egress.caFile,
    },
  });

  /** Whether a function's role lets it write its log; asked with the first line. */
  const logging = new Map<string, Promise<boolean>>();
  function mayLog(functionName: string): Promise<boolean> {
    const known = logging.get(functionName);
    if (known !== undefined) return known;
    const { logGroup } = lambda.identityOf(functionName);
    const resource = `arn:aws:logs:${region}:${account}:log-group:${logGroup}:log-stream:local`;
    const ask = async () => {
      for (const action of ['logs:CreateLogStream', 'logs:PutLogEvents'])
        if (!(await authorizer.decide(functionPrincipal(functionName), { action, resource })).allowed)
          return false;
      return true;
    };
    const asked = ask();
    logging.set(functionName, asked);
    return asked;
  }
  /** Throws as CloudFormation fails: with what AWS refuses the resource for. */
  async function deployedBy(logicalId: string, decision: Promise<Decision>): Promise<void> {
    const decided = await decision;
    if (!decided.allowed) throw new Error(`Resources.${logicalId}: ${decided.message}`);
  }

  const eventSources: EventSource[] = [];
  let heartbeat: NodeJS.Timeout | undefined;
  let isStopped = false;
  let isAdvancing = false;

  /** Starts what is due by the clock. */
  function tick(): void {
    scheduler.tick();
    secretsManager.tick();
  }

  function judgeAlarms(): void {
    for (const { name, arn } of stack.queues)
      for (const [metricName, value] of [
        ['ApproximateNumberOfMessagesVisible', queues.visibleCount(arn)],
        ['ApproximateAgeOfOldestMessage', queues.oldestAgeSeconds(arn)],
      ] as const)
        alarms.observe({
          namespace: 'AWS/SQS',
          metricName,
          dimensions: { QueueName: name },
          at: clock.now(),
          value,
        });
    alarms.evaluate();
  }

  const errand: UnderWay = {
    isBusy: () => errands.size > 0,
    oneEnded: () => Promise.race(errands),
  };
  async function settled(): Promise<void> {
    // Whatever follows from an answer follows within a turn, and what a function wrote before it is read within the next ones.
    for (let quietTurns = 0; quietTurns < 5; quietTurns += 1) {
      await nextTurn();
      for (const part of [
        lambda,
        authorizer,
        errand,
        ...httpApis,
        ...(options.outside === undefined ? [] : [options.outside]),
      ])
        while (part.isBusy()) {
          quietTurns = 0;
          await part.oneEnded();
        }
    }
  }

  async function advance(to: number | Date, { passes = 'sparse' }: AdvanceOptions = {}): Promise<void> {
    if (!isMovable(clock)) throw new Error('this clock cannot be moved; start with createMovableClock()');
    if (isAdvancing) throw new Error('the clock is being moved already; wait for the last advance');
    const until = typeof to === 'number' ? new Date(clock.now().getTime() + to) : to;
    const everyMs = passes === 'all' ? undefined : passes === 'sparse' ? dayMs : passes.everyMs;
    isAdvancing = true;
    try {
      await settled();
      tick();
      scheduler.thin(everyMs === undefined ? undefined : { everyMs, until });
      for (;;) {
        tick();
        await settled();
        judgeAlarms();
        while (errands.size > 0) await Promise.all(errands);
        if (isStopped) throw new Error('the deployment was stopped while the clock was moved');
        const now = clock.now();
        if (now >= until) return;
        const next = [scheduler.nextDue(), secretsManager.nextDue(), clock.nextWake()]
          .filter((due) => due !== undefined)
          // What is due and has not begun waits for something else than the clock.
          .filter((due) => due > now)
          .reduce((earliest, due) => (due < earliest ? due : earliest), until);
        if (everyMs !== undefined) alarms.leaveOut(now, next);
        clock.move(Math.max(0, next.getTime() - clock.now().getTime()));
      }
    } finally {
      scheduler.thin(undefined);
      isAdvancing = false;
    }
  }

  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopping ??= stopAll();
    return stopping;
  };
  async function stopAll(): Promise<void> {
    isStopped = true;
    clearInterval(heartbeat);
    // Before the host closes, or what fails for that reason would be handed out again.
    const ending = eventSources.map((source) => source.stop());
    queues.stop();
    await Promise.all(httpApis.map((api) => api.close()));
    await Promise.all([scheduler.stop(), secretsManager.stop(), bus.stop(), lambda.close()]);
    await Promise.all(ending);
    await Promise.all(errands);
    await endpoint.close();
    await tables.stop();
  }

  try {
    for (const record of stack.functions) {
      await deployedBy(
        record.logicalId,
        onBehalf('lambda.amazonaws.com', undefined, 'sts:AssumeRole', roleArn(record.roleName)),
      );
      lambda.addFunction(record);
      rotators.set(record.arn, (await authorizer.evaluate(...callsRotator(record.arn))).allowed);
    }
    for (const { name } of stack.buses) bus.addBus(name);
    for (const { redrive, ...queue } of stack.queues)
      queues.addQueue({ ...queue, ...(redrive === undefined ? {} : { redrive }) });
    for (const { arn } of stack.topics) topics.addTopic(arn);
    for (const { topicArn, protocol, endpoint: address, isRaw } of stack.subscriptions)
      if (protocol === 'lambda' || protocol === 'sqs')
        topics.subscribe({ topicArn, protocol, endpoint: address, isRaw });
    for (const alarm of stack.alarms) alarms.addAlarm(alarm);
    for (const rule of stack.rules.filter(({ isEnabled }) => isEnabled))
      bus.addRule({
        ...rule,
        targets: rule.targets.map(({ arn, deadLetterArn, retryPolicy }) => ({
          arn,
          ...retryPolicy,
          ...(deadLetterArn === undefined ? {} : { deadLetterArn }),
        })),
      });
    for (const { name, busName, pattern, retentionDays } of stack.archives)
      bus.addArchive({
        name,
        busName,
        ...(pattern === undefined ? {} : { pattern }),
        ...(retentionDays === undefined ? {} : { retentionDays }),
      });
    for (const { name, defaultRetention: objectLock } of stack.buckets)
      s3.addBucket({ name, ...(objectLock === undefined ? {} : { objectLock }) });
    for (const table of stack.tables) await tables.addTable(table);
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
    for (const mapping of stack.eventSources.filter(({ isEnabled }) => isEnabled)) {
      // Lambda receives as the function's role, and makes no mapping for one that may not.
      const functionName = mapping.functionArn.replace(/^.*:function:/, '');
      for (const action of ['sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes'])
        await deployedBy(
          mapping.logicalId,
          authorizer.decide(functionPrincipal(functionName), { action, resource: mapping.queueArn }),
        );
      eventSources.push(
        startEventSource(mapping, {
          region,
          queues,
          invoke: (functionArn, event) => lambda.invoke(functionArn, event),
        }),
      );
    }
    for (const { isEnabled, startAt, endAt, target, ...schedule } of stack.schedules) {
      const { deadLetterArn, retryPolicy, arn, input } = target;
      if (isEnabled)
        scheduler.addSchedule({
          ...schedule,
          ...(startAt === undefined ? {} : { startAt }),
          ...(endAt === undefined ? {} : { endAt }),
          target: { arn, input, ...retryPolicy, ...(deadLetterArn === undefined ? {} : { deadLetterArn }) },
        });
    }
    heartbeat = setInterval(() => {
      if (isAdvancing) return;
      tick();
      judgeAlarms();
    }, heartbeatMs);
  } catch (error) {
    await stop();
    throw error;
  }
  const deadLetterArns = new Set(
    [
      ...stack.rules.flatMap(({ targets }) => targets.map(({ deadLetterArn }) => deadLetterArn)),
      ...stack.schedules.map(({ target }) => target.deadLetterArn),
      ...stack.functions.map(({ onFailureArn }) => onFailureArn),
      ...stack.queues.map(({ redrive }) => redrive?.deadLetterArn),
    ].filter((arn) => arn !== undefined),
  );
  return {
    endpointUrl: endpoint.url,
    region,
    stack,
    secretsManager,
    bus,
    queues,
    scheduler,
    topics,
    alarms,
    lambda,
    httpApis,
    s3,
    authorizer,
    idlePermissions: () =>
      idlePermissions({ account, policies: stack.policies, granted: authorizer.granted }),
    get webhookUrl() {
      for (const { url, routes } of httpApis)
        for (const { routeKey } of routes) {
          const path = /^POST (\/webhooks\/.+)$/.exec(routeKey)?.[1];
          if (path !== undefined) return `${url}${path}`;
        }
      throw new Error('no HTTP API of the stack has a route POST /webhooks/…');
    },
    callCounts: quotas.counts,
    get lostRequests() {
      return stack.queues
        .filter(({ arn }) => deadLetterArns.has(arn))
        .flatMap(({ name, arn }) => queues.messages(arn).map((message) => ({ queueName: name, ...message })));
    },
    advance,
    settled,
    stop,
  };
}

/** What Lambda sends to an on-failure destination (AWS documentation). */
const failureRecord = ({ functionArn, requestId, payload, tries, result }: AsyncFailure, at: Date) => ({
  version: '1.0',
  timestamp: at.toISOString(),
  requestContext: {
    requestId,
    functionArn: `${functionArn}:$LATEST`,
    condition: 'RetriesExhausted',
    approximateInvokeCount: tries,
  },
  requestPayload: payload,
  responseContext: { statusCode: 200, executedVersion: '$LATEST', functionError: 'Unhandled' },
  responsePayload: result.ok
    ? result.payload
    : { errorType: result.errorType, errorMessage: result.errorMessage, trace: result.trace },
});

const token = (): string => randomBytes(16).toString('hex');
