import { SSMClient } from '@aws-sdk/client-ssm';
import { parameterStore } from '../aws/parameters.ts';
import { patience } from './patience.ts';

/**
 * Parameter Store answers 40 readings a second for the whole account, and in an emergency all functions ask at once. A step of a rotation
 * that gives up is tried again by Secrets Manager only after a minute. The pauses between these attempts add up to 35 seconds mostly, and
 * to 51 at most. What is asked right before a write is of no use so late, so everything else has the attempts of the SDK.
 */
export const maxPatientAttempts = 8;

/** Parameter Store with clients of its own, apart from compose.ts so that a function starts without them. */
export const openParameters = (clock: () => Date): ReturnType<typeof parameterStore> =>
  parameterStore(
    new SSMClient({ requestHandler: patience }),
    clock,
    new SSMClient({ requestHandler: patience, maxAttempts: maxPatientAttempts }),
  );
