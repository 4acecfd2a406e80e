import { Aws, type Duration, TimeZone } from 'aws-cdk-lib';
import { PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import {
  Schedule as EventBridgeSchedule,
  type IScheduleGroup,
  ScheduleExpression,
  ScheduleTargetInput,
  TimeWindow,
} from 'aws-cdk-lib/aws-scheduler';
import { LambdaInvoke } from 'aws-cdk-lib/aws-scheduler-targets';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';
import { scheduledPass } from '../functions/core/events.ts';

export interface ScheduleProps {
  /** Its name within the group. */
  readonly name: string;
  readonly description: string;
  readonly group: IScheduleGroup;
  readonly every: Duration;
  /** At this time of every day, UTC; for passes that come once a day. @default `every` counts from the deployment */
  readonly at?: { readonly hour: number };
  readonly handler: IFunction;
  /** Takes the passes that could not be delivered. */
  readonly lostRequests: IQueue;
}

/** Makes a function look after everything again and again. */
export class Schedule extends Construct {
  constructor(
    scope: Construct,
    id: string,
    { name, description, group, every, at, handler, lostRequests }: ScheduleProps,
  ) {
    super(scope, id);
    const role = new Role(this, 'Role', {
      // SourceArn of the group, as AWS advises: the schedule itself does not exist without the role.
      assumedBy: new ServicePrincipal('scheduler.amazonaws.com', {
        conditions: {
          StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID, 'aws:SourceArn': group.scheduleGroupArn },
        },
      }),
    });
    role.addToPolicy(
      new PolicyStatement({
        sid: 'Invoke',
        actions: ['lambda:InvokeFunction'],
        resources: [handler.functionArn],
      }),
    );
    role.addToPolicy(
      new PolicyStatement({
        sid: 'ReportFailure',
        actions: ['sqs:SendMessage'],
        resources: [lostRequests.queueArn],
      }),
    );
    new EventBridgeSchedule(this, 'Resource', {
      scheduleName: name,
      description,
      scheduleGroup: group,
      schedule:
        at === undefined
          ? ScheduleExpression.rate(every)
          : ScheduleExpression.cron({ hour: String(at.hour), minute: '0', timeZone: TimeZone.ETC_UTC }),
      timeWindow: TimeWindow.off(),
      target: new LambdaInvoke(handler, {
        // Left as it is: the target would let it call every version of the function.
        role: role.withoutPolicyUpdates(),
        input: ScheduleTargetInput.fromObject(scheduledPass),
        // The next pass does the work of one that is this late.
        maxEventAge: every,
        retryAttempts: 185,
        deadLetterQueue: lostRequests,
      }),
    });
  }
}
