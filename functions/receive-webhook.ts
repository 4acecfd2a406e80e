import { parseWebhookRequest } from './core/webhook.ts';
import { webhookReceiver } from './lifecycle/receive-webhook.ts';
import { handlerOf } from './runtime/compose.ts';
import { receiveWebhookEnvironment } from './runtime/env.ts';

const receive = webhookReceiver();

/** Invoked by the HTTP API, by anybody who knows its address. Answers its response: a status, and nothing more. */
export const handler = handlerOf(
  receiveWebhookEnvironment,
  (event, _until, rekey) => receive(parseWebhookRequest(event), rekey),
  { isAwaited: true },
);
