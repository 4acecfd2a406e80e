/** Without these the SDK waits for ever on a connection that nobody answers, and Lambda ends the step without a word. */
export const patience = { connectionTimeout: 3_000, requestTimeout: 15_000, throwOnRequestTimeout: true };
