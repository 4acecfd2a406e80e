import { SSMClient } from '@aws-sdk/client-ssm';
import { parameterStore } from '../aws/parameters.ts';
import { patience } from './patience.ts';

/**
 * Parameter Store answers 40 readings a second for the whole account, and in an emergency all functions ask at once. A step of a rotation that gives
 * up is tried again by Secrets Manager after a minute only; by then these attempts have been answered: the pauses between them add up to half a minute on average, and to
 * at most 51 s. Callers retry writes; pauses at their own pace.
 */
export const maxReadAttempts = 8;

/** Parameter Store with clients of its own, apart from compose.ts so that a function starts without them. */
export const openParameters = (clock: () => Date): ReturnType<typeof parameterStore> =>
  parameterStore(
    new SSMClient({ requestHandler: patience }),
    clock,
    new SSMClient({ requestHandler: patience, maxAttempts: maxReadAttempts }),
  );
