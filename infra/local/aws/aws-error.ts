/** An error as AWS answers it: `__type` and text in a JSON body, 400 for the caller's fault, 500 for the server's. */
export class AwsError extends Error {
  readonly status: number;
  constructor(name: string, message: string, status = 400) {
    super(message);
    this.name = name;
    this.status = status;
  }
}
