import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';

const client = new SecretsManagerClient();

/** The least that a function which needs Secrets Manager can load: `npm run bench` compares the start of each function with it. */
export const handler = async (): Promise<string> => client.config.serviceId;
