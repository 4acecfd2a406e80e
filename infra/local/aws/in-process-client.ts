import { AwsError } from './aws-error.ts';
import type { AwsService } from './service.ts';

/**
 * A client of the SDK as far as the adapters go: `send`, without serialization, signatures and sockets between, which would
 * be half of what a lifecycle costs to play. That the adapters and the SDK agree with the wire is shown in test/aws.
 */
export function clientOf(service: AwsService): never {
  const send = async (command: {
    readonly constructor: { readonly name: string };
    readonly input: object;
  }) => {
    const operation = command.constructor.name.replace(/Command$/, '');
    try {
      return dated(await service.call(operation, command.input));
    } catch (error) {
      // What the adapters tell a refusal from a broken call by.
      if (error instanceof AwsError)
        Object.assign(error, { $metadata: { httpStatusCode: error.status, attempts: 1 } });
      throw error;
    }
  };
  return { send } as never;
}

/** On the wire instants are seconds; the SDK makes them dates. In place: the answer is a copy that belongs to nobody else. */
function dated(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const members = value as Record<string, unknown>;
  for (const key in members) {
    const member = members[key];
    if (typeof member === 'object') dated(member);
    else if (typeof member === 'number' && key.endsWith('Date')) members[key] = new Date(member * 1000);
  }
  return value;
}
