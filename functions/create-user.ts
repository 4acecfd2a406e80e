import { parseCredentialRequested } from './core/events.ts';
import { createUser } from './lifecycle/create-user.ts';
import { createUserEnvironment } from './runtime/env.ts';
import { openNotes } from './runtime/notes.ts';
import { queuedHandlerOf, type Use } from './runtime/queued-events.ts';

const create: Use<typeof createUserEnvironment> = async (event, until, rekey, environment) => {
  const creation = {
    rotationFunctionArn: environment.REKEY_ROTATION_FUNCTION_ARN,
    secretKeyArn: environment.REKEY_SECRET_KEY_ARN,
    replicas: environment.REKEY_REPLICAS,
  };
  await createUser(parseCredentialRequested(event), creation, until, rekey);
};

/** Takes `CredentialRequested` out of its queue. */
export const handler = queuedHandlerOf(
  createUserEnvironment,
  {
    direct: create,
    event: create,
    leastTimeMs: 45_000,
  },
  { openNotes },
);
