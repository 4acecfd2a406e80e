import {
  DeleteParameterCommand,
  GetParameterCommand,
  GetParametersByPathCommand,
  GetParametersCommand,
  type Parameter,
  PutParameterCommand,
  type SSMClient,
} from '@aws-sdk/client-ssm';
import type { Ports } from '../core/ports.ts';
import { failureOf, isNamed } from './failure.ts';
import { changeFailureOf, guarded } from './guarded.ts';
import { everyPage, unreadable } from './pages.ts';

type ParameterPorts = Pick<
  Ports,
  | 'readParameter'
  | 'readParameterDate'
  | 'readParameters'
  | 'createParameter'
  | 'writeParameter'
  | 'deleteParameter'
  | 'listParameters'
>;

/** The ports to Parameter Store. Guards use `clock`. `reader` makes the read calls. */
export function parameterStore(
  client: SSMClient,
  clock: () => Date = () => new Date(),
  reader: SSMClient = client,
): ParameterPorts {
  const putCommand = (parameter: string, document: string, Overwrite: boolean) =>
    new PutParameterCommand({ Name: parameter, Value: document, Type: 'String', Overwrite });

  const get = async (parameter: string): Promise<Parameter | undefined> => {
    try {
      return (await reader.send(new GetParameterCommand({ Name: parameter }))).Parameter;
    } catch (error) {
      if (isNamed(error, 'ParameterNotFound')) return undefined;
      throw failureOf(error, `GetParameter of ${parameter}`, 'none');
    }
  };

  return {
    readParameter: async ({ parameter }) => (await get(parameter))?.Value ?? 'absent',

    async readParameterDate({ parameter }) {
      const found = await get(parameter);
      if (found === undefined) return 'absent';
      if (found.LastModifiedDate === undefined)
        throw unreadable(`GetParameter of ${parameter}`, 'answered a parameter without its date');
      return found.LastModifiedDate;
    },

    async readParameters({ parameters }) {
      const names = [...new Set(parameters)];
      if (names.length === 0) return new Map();
      const call = `GetParameters of ${names.join(', ')}`;
      const { Parameters = [], InvalidParameters = [] } = await reader
        .send(new GetParametersCommand({ Names: names }))
        .catch((error: unknown) => {
          throw failureOf(error, call, 'none');
        });
      const found = new Map<string, string>();
      for (const { Name: name, Value: document } of Parameters) {
        if (name === undefined || document === undefined)
          throw unreadable(call, 'answered a parameter without its name or value');
        found.set(name, document);
      }
      // Absent is only what AWS says is not there: an order that is overlooked would count as none.
      const unanswered = names.filter((name) => !found.has(name) && !InvalidParameters.includes(name));
      if (unanswered.length > 0) throw unreadable(call, `did not answer ${unanswered.join(', ')}`);
      return found;
    },

    async createParameter({ parameter, document, guard }) {
      const command = putCommand(parameter, document, false);
      try {
        await client.send(guard === undefined ? command : guarded(command, guard, clock));
        return 'written';
      } catch (error) {
        if (isNamed(error, 'ParameterAlreadyExists')) return 'exists';
        throw changeFailureOf(error, `PutParameter of ${parameter}`, 'unknown');
      }
    },

    async writeParameter({ parameter, document }) {
      try {
        await client.send(putCommand(parameter, document, true));
      } catch (error) {
        throw failureOf(error, `PutParameter of ${parameter}`, 'unknown');
      }
    },

    async deleteParameter({ parameter, guard }) {
      const command = new DeleteParameterCommand({ Name: parameter });
      try {
        await client.send(guard === undefined ? command : guarded(command, guard, clock));
        return 'deleted';
      } catch (error) {
        if (isNamed(error, 'ParameterNotFound')) return 'absent';
        throw changeFailureOf(error, `DeleteParameter of ${parameter}`, 'unknown');
      }
    },

    listParameters({ path }) {
      const call = `GetParametersByPath of ${path}`;
      return everyPage(call, async (token) => {
        const { Parameters = [], NextToken } = await reader.send(
          new GetParametersByPathCommand({
            // As AWS documents it: without the slash at its end.
            Path: path.replace(/(?<=.)\/$/, ''),
            Recursive: true,
            NextToken: token,
          }),
        );
        const items = Parameters.map(({ Name: parameter, Value: document }) => {
          if (parameter === undefined || document === undefined)
            throw unreadable(call, 'answered a parameter without its name or value');
          return { parameter, document };
        });
        return { items, next: NextToken };
      });
    },
  };
}
