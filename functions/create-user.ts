import { parseCredentialRequested } from './core/events.ts';
import { createUser } from './lifecycle/create-user.ts';
import { handlerOf } from './runtime/compose.ts';
import { createUserEnvironment } from './runtime/env.ts';

/** Invoked by the bus with `CredentialRequested`; an event that fails is retried and ends in the dead-letter queue. */
export const handler = handlerOf(createUserEnvironment, async (event, until, rekey, environment) => {
  const creation = {
    rotationFunctionArn: environment.REKEY_ROTATION_FUNCTION_ARN,
    secretKeyArn: environment.REKEY_SECRET_KEY_ARN,
    replicas: environment.REKEY_REPLICAS,
  };
  await createUser(parseCredentialRequested(event), creation, until, rekey);
});
