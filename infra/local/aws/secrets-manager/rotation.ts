import { pause } from '../../clock.ts';
import { AwsError } from '../aws-error.ts';
import { randomUuid } from '../random.ts';
import type { Operation } from '../service.ts';
import { addVersion, type Core, change, newToken, onSecret, purge, tokenOf } from './core.ts';
import { refusals } from './errors.ts';
import { holderOf, moveLabel } from './labels.ts';
import type { Secret, Version } from './model.ts';
import { nextWindow } from './schedule.ts';
import { schemas } from './schemas.ts';

export const rotationSteps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'] as const;
export type RotationStep = (typeof rotationSteps)[number];

/** What the rotation function receives. */
export interface RotationEvent {
  readonly Step: RotationStep;
  readonly SecretId: string;
  readonly ClientRequestToken: string;
  readonly RotationToken: string;
}

export type InvokeResult = { readonly ok: true } | { readonly ok: false; readonly error: string };

/** Calls the rotation function synchronously; a time-out is a failure like any other. */
export type InvokeRotation = (functionArn: string, event: RotationEvent) => Promise<InvokeResult>;

export interface RotationOptions {
  readonly invoke: InvokeRotation;
  /** Whether the function's policy lets Secrets Manager call it. @default always */
  readonly mayInvoke?: (functionArn: string) => boolean;
}

export interface Rotations {
  readonly operations: Readonly<Record<'RotateSecret' | 'CancelRotateSecret', Operation>>;
  /** A value was written: one that is not the open rotation's own abandons that rotation. */
  versionWritten(secret: Secret, version: Version): void;
  /** Nothing more is called for this secret. */
  endFor(secret: Secret): void;
  /** Starts every rotation that is due. */
  tick(): void;
  /** When the next rotation is due by its own schedule; undefined when none will be. */
  nextDue(): Date | undefined;
  /** Resolves once no rotation is running or waiting to be repeated. */
  idle(): Promise<void>;
  /** Ends all rotations where they stand and starts no more; resolves once no function is being called. */
  stop(): Promise<void>;
}

interface Run {
  token: string;
  readonly rotationToken: string;
  readonly ended: AbortController;
}

/** Builds what carries out rotations: the part of Secrets Manager that acts by itself. */
export function createRotations(core: Core, { invoke, mayInvoke = () => true }: RotationOptions): Rotations {
  const { clock, random, events, store, variants } = core;
  const runs = new Map<string, Run>();
  const active = new Set<Promise<void>>();
  let stopped = false;
  let succeeded = 0;

  function schedule(secret: Secret): void {
    const { rotation } = secret;
    delete rotation.nextDate;
    delete rotation.dueAt;
    const window = rotation.enabled ? nextWindow(rotation.rules, clock.now()) : undefined;
    if (window === undefined) return;
    // Shown as the last second of the window, for example 23:59:59.
    rotation.nextDate = new Date(window.end.getTime() - 1000);
    rotation.dueAt = dueIn(window);
  }

  function dueIn({ start, end }: { start: Date; end: Date }): Date {
    if (variants().windowStart === 'at-start') return start;
    return new Date(start.getTime() + Math.floor(random() * (end.getTime() - start.getTime())));
  }

  /** An earlier rotation that is not over: AWSPENDING on a version that is not current. */
  function pendingVersion(secret: Secret): Version | undefined {
    const holder = holderOf(secret, 'AWSPENDING');
    return holder?.labels.has('AWSCURRENT') ? undefined : holder;
  }

  function eventSecretId({ arn, name }: Secret): string {
    const form = variants().eventSecretId;
    return form === 'arn' ? arn : form === 'name' ? name : arn.slice(0, -7);
  }

  async function call(secret: Secret, run: Run, step: RotationStep): Promise<InvokeResult> {
    const functionArn = secret.rotation.lambdaArn;
    if (functionArn === undefined) return { ok: false, error: 'no rotation function' };
    try {
      return await invoke(functionArn, {
        Step: step,
        SecretId: eventSecretId(secret),
        ClientRequestToken: run.token,
        RotationToken: run.rotationToken,
      });
    } catch (error) {
      return { ok: false, error: error instanceof Error ? error.message : 'unknown' };
    }
  }

  async function deliver(secret: Secret, run: Run, step: RotationStep): Promise<InvokeResult> {
    const { stepDelivery } = variants();
    switch (stepDelivery) {
      case 'twice':
        await call(secret, run, step);
        return call(secret, run, step);
      case 'concurrently': {
        const [first] = await Promise.all([call(secret, run, step), call(secret, run, step)]);
        return first;
      }
      case 'once':
      case 'late':
        return call(secret, run, step);
      default:
        return stepDelivery satisfies never;
    }
  }

  /** Calls the four steps; answers the step that failed, if one did. */
  async function attempt(secret: Secret, run: Run): Promise<RotationStep | undefined> {
    for (const step of rotationSteps) {
      const result = await deliver(secret, run, step);
      if (run.ended.signal.aborted) return undefined;
      if (!result.ok) return step;
    }
    // A function that returns without having moved the label leaves the rotation unfinished.
    return secret.versions.get(run.token)?.labels.has('AWSCURRENT') ? undefined : 'finishSecret';
  }

  function succeed(secret: Secret, run: Run): void {
    succeeded += 1;
    const variant = variants().pendingAfterRotation;
    change(core, secret, () => {
      if (variant === 'gone' || (variant === 'alternating' && succeeded % 2 === 0))
        secret.versions.get(run.token)?.labels.delete('AWSPENDING');
      delete secret.rotation.openToken;
      secret.rotation.lastRotatedAt = clock.now();
      schedule(secret);
    });
    events.serviceEvent(secret, 'RotationSucceeded', { token: run.token });
  }

  function fail(secret: Secret, run: Run, step: RotationStep): void {
    events.serviceEvent(secret, 'RotationFailed', {
      token: run.token,
      errorMessage: `Error when executing lambda ${secret.rotation.lambdaArn} during ${step} step`,
    });
    // The next date stays where it is and so comes to lie in the past; the attempt is made again in the next window.
    const window = nextWindow(secret.rotation.rules, clock.now());
    if (window !== undefined && secret.rotation.enabled) secret.rotation.dueAt = dueIn(window);
  }

  function stillOpen(secret: Secret, run: Run): boolean {
    if (run.ended.signal.aborted) return false;
    const labels = secret.versions.get(run.token)?.labels;
    if (labels?.has('AWSPENDING') || labels?.has('AWSCURRENT')) return true;
    abandon(secret);
    return false;
  }

  async function rotate(secret: Secret, run: Run): Promise<void> {
    events.serviceEvent(secret, 'RotationStarted', { token: run.token });
    let failedStep = await attempt(secret, run);
    for (const delayMs of variants().retryDelaysMs) {
      if (failedStep === undefined) break;
      await pause(clock, delayMs, run.ended.signal);
      if (!stillOpen(secret, run)) return;
      const isReady = variants().retryToken === 'same' || hasRegistered(secret, run);
      failedStep = isReady ? await attempt(secret, run) : 'createSecret';
    }
    if (run.ended.signal.aborted) return;
    if (failedStep === undefined) succeed(secret, run);
    else fail(secret, run, failedStep);
    if (variants().stepDelivery !== 'late') return;
    for (const step of rotationSteps) if (!run.ended.signal.aborted) await call(secret, run, step);
  }

  async function test(secret: Secret, run: Run): Promise<void> {
    events.serviceEvent(secret, 'TestRotationStarted', { token: run.token });
    const result = await call(secret, run, 'testSecret');
    change(core, secret, () => secret.versions.delete(run.token));
    if (run.ended.signal.aborted) return;
    if (result.ok) events.serviceEvent(secret, 'TestRotationSucceeded', { token: run.token });
    else
      events.serviceEvent(secret, 'TestRotationFailed', {
        token: run.token,
        errorMessage: `Error when executing lambda ${secret.rotation.lambdaArn} during testSecret step`,
      });
  }

  /** The version exists, empty and with AWSPENDING, before the function is called for the first time. */
  function register(secret: Secret, run: Run, token: string): void {
    change(core, secret, () => moveLabel(secret, 'AWSPENDING', addVersion(core, secret, token, undefined)));
    run.token = token;
    secret.rotation.openToken = token;
  }

  /** As `register`, where nobody can be told that the secret has no room for another version. */
  function hasRegistered(secret: Secret, run: Run): boolean {
    try {
      register(secret, run, newToken(core));
      return true;
    } catch (error) {
      if (error instanceof AwsError) return false;
      throw error;
    }
  }

  function start(secret: Secret, run: Run, carryOut: (secret: Secret, run: Run) => Promise<void>): void {
    delete secret.rotation.dueAt;
    if (stopped) return;
    runs.set(secret.arn, run);
    // After the current call has been answered: RotateSecret does not wait for the function.
    const running = Promise.resolve()
      .then(() => carryOut(secret, run))
      .finally(() => {
        if (runs.get(secret.arn) === run) runs.delete(secret.arn);
        active.delete(running);
      });
    active.add(running);
  }

  const newRun = (token: string): Run => ({
    token,
    rotationToken: randomUuid(random),
    ended: new AbortController(),
  });

  function endFor(secret: Secret): void {
    runs.get(secret.arn)?.ended.abort();
    runs.delete(secret.arn);
  }

  function abandon(secret: Secret): void {
    const token = secret.rotation.openToken;
    if (token === undefined) return;
    endFor(secret);
    delete secret.rotation.openToken;
    const version = secret.versions.get(token);
    if (version?.labels.has('AWSPENDING') && !version.labels.has('AWSCURRENT'))
      change(core, secret, () => version.labels.delete('AWSPENDING'));
    schedule(secret);
    events.serviceEvent(secret, 'RotationAbandoned', { token });
  }

  const RotateSecret = onSecret(
    core,
    'RotateSecret',
    schemas.RotateSecret,
    { find: 'live', logged: true },
    (secret, input) => {
      const token = tokenOf(input, refusals.tokenMissingForRotation);
      const lambdaArn = input.RotationLambdaARN || secret.rotation.lambdaArn;
      if (lambdaArn === undefined) throw refusals.noRotationFunction();
      const rules = input.RotationRules ?? secret.rotation.rules;
      if (rules?.AutomaticallyAfterDays !== undefined && rules.ScheduleExpression !== undefined)
        throw refusals.rulesTwice();
      try {
        nextWindow(rules, clock.now());
      } catch (error) {
        throw refusals.scheduleInvalid(error instanceof RangeError ? error.message : 'unreadable');
      }
      if (!mayInvoke(lambdaArn)) throw refusals.mayNotInvoke();
      const answer = { ARN: secret.arn, Name: secret.name, VersionId: token };
      // The same request once more, as the SDK sends it after a lost answer.
      if (secret.versions.has(token) && (pendingVersion(secret)?.id ?? token) === token) return answer;
      if (pendingVersion(secret) !== undefined) throw refusals.rotationInProgress(variants().inProgressText);

      // Somebody took AWSPENDING off an open rotation: that one is over now.
      abandon(secret);
      const run = newRun(token);
      change(core, secret, () => {
        secret.rotation.enabled = true;
        secret.rotation.lambdaArn = lambdaArn;
        if (rules !== undefined) secret.rotation.rules = rules;
      });
      if (input.RotateImmediately === false) {
        const current = holderOf(secret, 'AWSCURRENT');
        const value = variants().testOnlyValue === 'copy' ? current?.value : undefined;
        change(core, secret, () => moveLabel(secret, 'AWSPENDING', addVersion(core, secret, token, value)));
        start(secret, run, test);
      } else {
        register(secret, run, token);
        start(secret, run, rotate);
      }
      schedule(secret);
      return answer;
    },
  );

  const CancelRotateSecret = onSecret(
    core,
    'CancelRotateSecret',
    schemas.CancelRotateSecret,
    { find: 'live', logged: true },
    (secret) => {
      const token = secret.rotation.openToken;
      endFor(secret);
      // Labels stay as they are, AWSPENDING on a half-made version included.
      change(core, secret, () => {
        secret.rotation.enabled = false;
        delete secret.rotation.openToken;
        schedule(secret);
      });
      return { ARN: secret.arn, Name: secret.name, ...(token !== undefined && { VersionId: token }) };
    },
  );

  const dueAtOf = ({ rotation, deletedAt }: Secret): Date | undefined =>
    rotation.enabled === true && deletedAt === undefined ? rotation.dueAt : undefined;

  function startDue(secret: Secret): void {
    const pending = pendingVersion(secret);
    if (pending === undefined) {
      abandon(secret);
      const run = newRun('');
      if (hasRegistered(secret, run)) start(secret, run, rotate);
      else fail(secret, run, 'createSecret');
    } else if (pending.id === secret.rotation.openToken) {
      start(secret, newRun(pending.id), rotate);
    } else {
      // A pending version that no rotation made blocks every rotation until somebody takes the label off.
      fail(secret, newRun(pending.id), 'createSecret');
    }
  }

  async function idle(): Promise<void> {
    while (active.size > 0) await Promise.all(active);
  }

  return {
    operations: { RotateSecret, CancelRotateSecret },
    endFor,
    versionWritten(secret, version) {
      const isOwn = version.id === secret.rotation.openToken;
      if (isOwn) return;
      abandon(secret);
      // A value written by hand counts as a rotation for AutomaticallyAfterDays.
      if (secret.rotation.rules?.AutomaticallyAfterDays !== undefined && version.labels.has('AWSCURRENT'))
        schedule(secret);
    },
    tick() {
      purge(core);
      if (stopped) return;
      const now = clock.now();
      for (const secret of [...store.all()]) {
        const dueAt = dueAtOf(secret);
        if (dueAt !== undefined && dueAt <= now && !runs.has(secret.arn)) startDue(secret);
      }
    },
    nextDue() {
      const dues = [...store.all()].flatMap((secret) => dueAtOf(secret)?.getTime() ?? []);
      return dues.length === 0 ? undefined : new Date(Math.min(...dues));
    },
    idle,
    async stop() {
      stopped = true;
      for (const run of runs.values()) run.ended.abort();
      await idle();
    },
  };
}
