import type * as z from 'zod';
import { AwsError } from './aws-error.ts';
import { validated } from './validation.ts';

/** What a service learns of a call beside its input. */
export interface CallContext {
  /** Access key id of the caller, where the request was signed. */
  readonly principal?: string;
  /** The id that is answered in `x-amzn-RequestId` and recorded in events. */
  readonly requestId?: string;
}

/** One thing that a caller has to be allowed. A call may need more than one. */
export interface Authorization {
  /** IAM's word, which is not always the operation: SendMessageBatch is `sqs:SendMessage`, ListObjectsV2 `s3:ListBucket`. */
  readonly action: string;
  /** An ARN without wildcards; `*` for an action that knows no resources. */
  readonly resource: string;
  /** By condition key; nothing that the action does not know. A key that AWS calls an array has a list, even of one. */
  readonly context?: Readonly<Record<string, string | readonly string[]>>;
}

/** Asks whether the caller with that access key may. Answers in AWS's words why it may not, nothing when it may. */
export type Authorize = (
  principal: string | undefined,
  authorization: Authorization,
) => Promise<string | undefined>;

/** One stand-in behind the endpoint. Inputs and outputs have their wire form: base64 blobs, epoch seconds. */
export interface AwsService {
  /** IAM prefix, for example `secretsmanager`. */
  readonly name: string;
  /** What stands before the dot in `X-Amz-Target`. */
  readonly targetPrefix: string;
  /** How the service spells the member that holds an error's text. */
  readonly messageKey: 'Message' | 'message';
  /** The name under which this service reports its own failure. */
  readonly internalErrorName: string;
  /** How it refuses what no policy allows. @default AccessDeniedException */
  readonly accessDenied?: (message: string) => AwsError;
  /** What a call asks of its caller's policies. Nothing where it is refused whoever calls: an operation or an input that cannot be. */
  authorizations(operation: string, input: unknown): readonly Authorization[];
  /** Serves one operation exactly as over the wire; throws `AwsError` for every refusal. */
  call(operation: string, input: unknown, context?: CallContext): Promise<unknown>;
}

/** One operation: bounds of its input, and what it does with an input inside them. */
export interface Operation {
  run(input: unknown, context: CallContext): unknown;
}

/** Ties an input schema to the function that serves it. */
export function operation<S extends z.ZodType>(
  schema: S,
  serve: (input: z.output<S>, context: CallContext) => unknown,
): Operation {
  return { run: (input, context) => serve(validated(schema, input), context) };
}

/** What a call asks for, by a table that has every operation. An input out of bounds asks for nothing: it is refused anyway. */
export function authorizationsBy<Schemas extends Readonly<Record<string, z.ZodType>>>(
  schemas: Schemas,
  asks: {
    readonly [Name in keyof Schemas]: (input: z.output<Schemas[Name]>) => readonly Authorization[];
  },
): AwsService['authorizations'] {
  return (name, input) => {
    if (!Object.hasOwn(schemas, name)) return [];
    const parsed = schemas[name]?.safeParse(input);
    return parsed?.success ? (asks[name]?.(parsed.data as z.output<Schemas[string]>) ?? []) : [];
  };
}

/** Finds and serves an operation. The answer is copied, so that no caller can reach into the state. */
export async function serveOperation(
  operations: Readonly<Record<string, Operation>>,
  name: string,
  input: unknown,
  context: CallContext = {},
): Promise<unknown> {
  const found = Object.hasOwn(operations, name) ? operations[name] : undefined;
  if (found === undefined) throw new AwsError('UnknownOperationException', `Operation ${name} is not known.`);
  const answer = await found.run(input, context);
  return JSON.parse(JSON.stringify(answer ?? {}));
}

/** Seconds since 1970, as the JSON protocols carry a timestamp. */
export const epochSeconds = (date: Date): number => date.getTime() / 1000;
