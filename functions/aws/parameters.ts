import { GetParameterCommand, PutParameterCommand, type SSMClient } from '@aws-sdk/client-ssm';
import type { Ports } from '../core/ports.ts';
import { failureOf, isNamed } from './failure.ts';

/** The ports to the specs in Parameter Store. */
export function parameterStore(client: SSMClient): Pick<Ports, 'readSpec' | 'writeSpec'> {
  return {
    async readSpec({ parameter }) {
      try {
        const { Parameter } = await client.send(new GetParameterCommand({ Name: parameter }));
        return Parameter?.Value ?? 'absent';
      } catch (error) {
        if (isNamed(error, 'ParameterNotFound')) return 'absent';
        throw failureOf(error, `GetParameter of ${parameter}`, 'none');
      }
    },
    async writeSpec({ parameter, document }) {
      try {
        await client.send(
          new PutParameterCommand({ Name: parameter, Value: document, Type: 'String', Overwrite: false }),
        );
        return 'written';
      } catch (error) {
        if (isNamed(error, 'ParameterAlreadyExists')) return 'exists';
        throw failureOf(error, `PutParameter of ${parameter}`, 'unknown');
      }
    },
  };
}
