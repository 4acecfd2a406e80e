import { SSMClient } from '@aws-sdk/client-ssm';
import { parameterStore } from '../aws/parameters.ts';
import { patience } from './patience.ts';

/**
 * It answers 40 readings a second for the whole account, and in an emergency all functions ask at once. A step of a rotation that gives
 * up is tried again by Secrets Manager after a minute only; by then these attempts, half a minute in all, have been answered. Writes are
 * tried again by whoever orders them: a pause at a pace of its own.
 */
const maxReadAttempts = 8;

/** Parameter Store with clients of its own, apart from compose.ts so that a function starts without them. */
export const openParameters = (clock: () => Date): ReturnType<typeof parameterStore> =>
  parameterStore(
    new SSMClient({ requestHandler: patience }),
    clock,
    new SSMClient({ requestHandler: patience, maxAttempts: maxReadAttempts }),
  );
