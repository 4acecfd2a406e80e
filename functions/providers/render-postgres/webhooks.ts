import { ProviderError } from '../../core/errors.ts';
import type { VendorWebhooks, WebhookDelivery } from '../../core/provider.ts';
import { eventIdPattern, type RenderApi, type RenderEvent } from './api.ts';

export const webhookEndpoint = 'render';

/** How the workspace's webhooks are doing, for the key that manages the database. */
export function vendorWebhooks(
  api: Pick<RenderApi, 'ownerId' | 'webhooks' | 'attempts' | 'event'>,
): VendorWebhooks {
  return {
    endpoint: webhookEndpoint,

    async standing(url) {
      // A key that may not even see the database says nothing of webhooks: that throws.
      const ownerId = await api.ownerId();
      try {
        const ours = (await api.webhooks(ownerId)).filter((webhook) => webhook.url === url);
        // Two of them while one replaces the other, which is how a secret is replaced: one that sends is enough.
        const one = ours.find(({ enabled }) => enabled) ?? ours[0];
        return one === undefined
          ? { is: 'absent' }
          : { is: one.enabled ? 'enabled' : 'disabled', id: one.id };
      } catch (error) {
        const status = error instanceof ProviderError ? error.facts.status : undefined;
        // 403 is declared nowhere and to be expected: only admins see webhooks. A workspace whose plan has none may say 404.
        if (status === undefined || ![401, 403, 404].includes(status)) throw error;
        return {
          is: 'unreadable',
          reason: `Render answers ${status} when asked for webhooks: only the API key of an admin of the workspace may see them`,
        };
      }
    },

    async deliveries(webhookId, sent) {
      const byEvent = new Map<string, WebhookDelivery>();
      for (const { eventId, eventType, sentAt, statusCode = 0 } of await api.attempts(webhookId, sent)) {
        // Should the bounds be read as less precise than they are.
        if (sentAt < sent.after || sentAt > sent.before) continue;
        const known = byEvent.get(eventId);
        const isDelivered = statusCode >= 200 && statusCode < 300;
        byEvent.set(eventId, {
          eventId,
          eventType,
          firstSentAt: known !== undefined && known.firstSentAt < sentAt ? known.firstSentAt : sentAt,
          isDelivered: isDelivered || known?.isDelivered === true,
        });
      }
      return [...byEvent.values()].sort(
        (one, other) => one.firstSentAt.getTime() - other.firstSentAt.getTime(),
      );
    },

    async event(id) {
      if (!eventIdPattern.test(id)) return 'absent';
      let event: RenderEvent;
      try {
        event = await api.event(id);
      } catch (error) {
        const status = error instanceof ProviderError ? error.facts.status : undefined;
        // All three are declared; whether Render answers at all for events about credentials is not documented.
        if (status === undefined || ![404, 406, 410].includes(status)) throw error;
        return 'absent';
      }
      if (event.id !== id)
        throw new ProviderError(`render-postgres: asked for the event ${id}, was told of another`, {
          code: 'UNREADABLE',
          effect: 'none',
          provider: 'render-postgres',
          operation: 'readEvent',
        });
      const username = usernameIn(event);
      return {
        id,
        type: event.type,
        ...(event.timestamp === undefined ? {} : { happenedAt: event.timestamp }),
        ...(event.serviceId === undefined ? {} : { target: event.serviceId }),
        ...(username === undefined ? {} : { username }),
      };
    },
  };
}

/**
 * No documented detail names a database user, so the likely places are looked at. In other events `user` is the person who did
 * it, by id and e-mail address (OpenAPI document): neither may get out, nor the name of a person.
 */
function usernameIn({ type, details }: RenderEvent): string | undefined {
  if (!/credentials/i.test(type)) return undefined;
  const { username, user } = details;
  const inner = typeof user === 'object' && user !== null ? (user as Record<string, unknown>) : {};
  return [username, user, inner['username'], inner['name']].find(
    (name): name is string => typeof name === 'string' && /^[^\s@\p{C}]{1,63}$/u.test(name),
  );
}
