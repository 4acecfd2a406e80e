import type { LoadWebhook, WebhookDefinition } from '../core/webhook.ts';

/** One line an endpoint, named as the last part of its route and of its secret. */
const webhooks: Readonly<Record<string, () => Promise<WebhookDefinition>>> = {
  render: async () => (await import('./render.ts')).renderWebhook,
};

/** The definition of an endpoint's webhooks, or undefined when rekey has none of that name. */
export const loadWebhook: LoadWebhook = async (endpoint) =>
  Object.hasOwn(webhooks, endpoint) ? webhooks[endpoint]?.() : undefined;
