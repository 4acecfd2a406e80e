import { SSMClient } from '@aws-sdk/client-ssm';
import { parameterStore } from '../aws/parameters.ts';
import { patience } from './patience.ts';

/** Parameter Store with a client of its own, apart from compose.ts so that a function starts without it. */
export const openParameters = (clock: () => Date): ReturnType<typeof parameterStore> =>
  parameterStore(new SSMClient({ requestHandler: patience }), clock);
