import { type BusEvent, eventTime } from '../bus-event.ts';
import { type Random, randomUuid } from '../random.ts';
import type { CallContext } from '../service.ts';
import type { Secret, Variants } from './model.ts';

/** Service events that CloudTrail records without an API call. */
export type ServiceEventName =
  | 'RotationStarted'
  | 'RotationSucceeded'
  | 'RotationFailed'
  | 'RotationAbandoned'
  | 'TestRotationStarted'
  | 'TestRotationSucceeded'
  | 'TestRotationFailed'
  | 'StartSecretVersionDelete'
  | 'CancelSecretVersionDelete'
  | 'EndSecretVersionDelete';

export interface EventSource {
  /** `Secret Label Updated`, for every label that moves except AWSPENDING and AWSPREVIOUS. */
  labelUpdated(secret: Secret, label: string, versionId: string): void;
  /** `AWS Service Event via CloudTrail`. */
  serviceEvent(
    secret: Secret,
    name: ServiceEventName,
    more?: { token?: string; errorMessage?: string },
  ): void;
  /** `AWS API Call via CloudTrail` for a call that changed something. */
  apiCall(
    secret: Secret,
    operation: string,
    input: object,
    versionId: string | undefined,
    context: CallContext,
  ): void;
}

const neverLogged = new Set(['SecretString', 'SecretBinary', 'RotationToken']);
const lowerFirst = (name: string) => name.charAt(0).toLowerCase() + name.slice(1);

export interface EventSourceOptions {
  readonly account: string;
  readonly region: string;
  readonly now: () => Date;
  readonly random: Random;
  readonly variants: () => Variants;
  readonly emit: (event: BusEvent) => void;
}

/** Builds the events that Secrets Manager puts on the default bus. */
export function createEventSource({
  account,
  region,
  now,
  random,
  variants,
  emit,
}: EventSourceOptions): EventSource {
  function send(detailType: string, resources: readonly string[], detail: BusEvent['detail']): void {
    emit({
      version: '0',
      id: randomUuid(random),
      'detail-type': detailType,
      source: 'aws.secretsmanager',
      account,
      time: eventTime(now()),
      region,
      resources,
      detail,
    });
  }
  const common = () => ({
    eventVersion: '1.08',
    eventTime: eventTime(now()),
    eventSource: 'secretsmanager.amazonaws.com',
    awsRegion: region,
    eventID: randomUuid(random),
    readOnly: false,
    managementEvent: true,
    recipientAccountId: account,
    eventCategory: 'Management',
  });
  return {
    labelUpdated(secret, label, versionId) {
      if (label === 'AWSPENDING' || label === 'AWSPREVIOUS') return;
      send('Secret Label Updated', [secret.arn], { name: secret.name, labelUpdated: label, versionId });
    },
    serviceEvent(secret, eventName, { token, errorMessage } = {}) {
      if (!variants().trail) return;
      send('AWS Service Event via CloudTrail', [], {
        ...common(),
        userIdentity: { accountId: account, invokedBy: 'secretsmanager.amazonaws.com' },
        eventName,
        sourceIPAddress: 'secretsmanager.amazonaws.com',
        userAgent: 'secretsmanager.amazonaws.com',
        ...(errorMessage !== undefined && { errorMessage }),
        requestParameters: null,
        responseElements: null,
        additionalEventData: { SecretId: secret.arn },
        ...(token !== undefined && { requestID: `Rotation-${secret.arn}-${token}` }),
        eventType: 'AwsServiceEvent',
      });
    },
    apiCall(secret, operation, input, versionId, { principal, requestId }) {
      if (!variants().trail) return;
      const requestParameters = Object.fromEntries(
        Object.entries(input).flatMap(([key, value]) =>
          value === undefined || neverLogged.has(key) ? [] : [[lowerFirst(key), value]],
        ),
      );
      send('AWS API Call via CloudTrail', [], {
        ...common(),
        userIdentity: { type: 'AssumedRole', accountId: account, accessKeyId: principal ?? 'ANONYMOUS' },
        eventName: operation,
        sourceIPAddress: '127.0.0.1',
        userAgent: 'aws-sdk',
        requestParameters,
        responseElements: {
          [variants().eventArnKey]: secret.arn,
          name: secret.name,
          ...(versionId !== undefined && { versionId }),
        },
        requestID: requestId ?? randomUuid(random),
        eventType: 'AwsApiCall',
      });
    },
  };
}
