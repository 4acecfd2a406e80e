import { parseRotationEvent } from './core/events.ts';
import { rotateSecret } from './lifecycle/rotate-secret.ts';
import { handlerOf } from './runtime/compose.ts';
import { rotateSecretEnvironment } from './runtime/env.ts';

/** Secrets Manager's rotation function: one of the four steps an invocation. */
export const handler = handlerOf(
  rotateSecretEnvironment,
  async (event, until, rekey) => {
    await rotateSecret(parseRotationEvent(event), until, rekey);
  },
  { isAwaited: true },
);
