/** An error as AWS answers it: `__type` and text in a JSON body, 400 for the caller's fault, 500 for the server's. */
export class AwsError extends Error {
  readonly status: number;
  /** What a service that once spoke the query protocol calls it in `x-amzn-query-error`. */
  readonly queryCode: string | undefined;
  constructor(name: string, message: string, status = 400, queryCode?: string) {
    super(message);
    this.name = name;
    this.status = status;
    this.queryCode = queryCode;
  }
}
