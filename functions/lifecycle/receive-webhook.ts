import { InputError, StoreError } from '../core/errors.ts';
import { webhookSecretPrefix } from '../core/names.ts';
import {
  type LoadWebhook,
  mostBodyBytes,
  type WebhookDefinition,
  type WebhookRefusal,
  type WebhookRequest,
} from '../core/webhook.ts';
import type { Rekey } from './rekey.ts';

/** What the HTTP API answers; never a body, as a sender is to learn nothing. */
export interface WebhookAnswer {
  /**
   * 200: it is on the bus, or nobody would gain from its coming again. 401: nobody we know sent it. 503: send it again.
   * Never 3xx, and never 410, which tells a sender to stop (Standard Webhooks specification).
   */
  readonly statusCode: 200 | 401 | 503;
}

/** How long a secret is good without being read again: one that was taken away must stop counting soon. */
const keptMs = 300_000;
/** Between two readings: forgeries must not become calls of Secrets Manager. */
const restMs = 10_000;

const mostBase64 = 4 * Math.ceil(mostBodyBytes / 3);

/** What is known of an endpoint's secret. At most one an endpoint that exists: deliveries leave nothing behind. */
export interface Known {
  /** When it was read last, or was to be. */
  readonly triedAt: Date;
  /** What the last reading that succeeded brought. */
  readonly read?: { readonly at: Date; readonly verify: Verifier };
}
type Verifier = ReturnType<WebhookDefinition['verifierOf']>;

/**
 * Receives webhooks and remembers, while the function is warm, how to verify them. An authentic one is on the bus when 200 is
 * answered; nothing else is ever done because of one. There is no way to switch verification off.
 */
export function webhookReceiver(
  known = new Map<string, Known>(),
): (request: WebhookRequest, rekey: Rekey & { readonly loadWebhook: LoadWebhook }) => Promise<WebhookAnswer> {
  /** Reads the secret, unless that was tried just now. */
  async function learn(endpoint: string, definition: WebhookDefinition, rekey: Rekey): Promise<void> {
    const at = await rekey.ports.now();
    const before = known.get(endpoint);
    if (before !== undefined && msBetween(before.triedAt, at) < restMs) return;
    const verify = await readVerifier(endpoint, definition, rekey);
    // While Secrets Manager cannot be read, what was read before is good until its time is over.
    known.set(endpoint, {
      ...before,
      triedAt: at,
      ...(verify === undefined ? {} : { read: { at, verify } }),
    });
  }
  function verifierOf(endpoint: string, now: Date): Verifier | undefined {
    const read = known.get(endpoint)?.read;
    return read === undefined || msBetween(read.at, now) >= keptMs ? undefined : read.verify;
  }

  return async (request, rekey) => {
    const { ports, log, measure } = rekey;
    const { endpoint } = request;
    const definition = await rekey.loadWebhook(endpoint);
    if (definition === undefined)
      throw new InputError(
        'EVENT_INVALID',
        `routeKey: rekey has no webhooks of ${endpoint}; deploy the stack again`,
      );

    const turnAway = (reason: WebhookRefusal): WebhookAnswer => {
      measure('WebhooksRejected', 1);
      log('warn', 'a webhook was rejected', { endpoint, reason });
      return { statusCode: 401 };
    };
    const body = bytesOf(request);
    if (typeof body === 'string') return turnAway(body);

    const now = await ports.now();
    const delivery = { headers: request.headers, body };
    if (verifierOf(endpoint, now) === undefined) await learn(endpoint, definition, rekey);
    const verify = verifierOf(endpoint, now);
    if (verify === undefined) return deferred(rekey);
    let verdict = verify(delivery, now);
    if (verdict.say === 'refused' && verdict.reason === 'NO_MATCH') {
      // Another may have been stored since: the vendor's webhook was replaced by one with a secret of its own.
      await learn(endpoint, definition, rekey);
      verdict = verifierOf(endpoint, now)?.(delivery, now) ?? verdict;
    }
    if (verdict.say === 'refused') return turnAway(verdict.reason);

    const { event, oddities } = definition.read({ id: verdict.id, body });
    if (oddities.length > 0) {
      measure('WebhooksOdd', 1);
      log('warn', 'an authentic webhook is not as its vendor describes it', { ...event, oddities });
    }
    try {
      // Before the answer: once it is out, Lambda may stop us, and the vendor forgets the event. Dying between the two makes the
      // vendor send it again, with the same id.
      await ports.publish([{ type: 'ProviderEventReceived', detail: event }]);
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      log('error', error.message, { code: error.code, endpoint });
      return deferred(rekey);
    }
    log('info', 'a webhook was received', { ...event });
    return { statusCode: 200 };
  };
}

/** The vendor is to send it again: it has some tries over more than a day, and switches the webhook off after the last. */
function deferred({ measure }: Rekey): WebhookAnswer {
  measure('WebhooksDeferred', 1);
  return { statusCode: 503 };
}

async function readVerifier(
  endpoint: string,
  definition: WebhookDefinition,
  { ports, log }: Rekey,
): Promise<Verifier | undefined> {
  const secretId = `${webhookSecretPrefix}${endpoint}`;
  try {
    const stored = await ports.readSecret({ secretId });
    if (stored === 'absent')
      throw new InputError(
        'SECRET_INVALID',
        `there is no ${secretId}; create it with the signing secret of the webhook as its value`,
      );
    return definition.verifierOf(stored.value);
  } catch (error) {
    if (!(error instanceof InputError || error instanceof StoreError)) throw error;
    log('error', error.message, { code: error.code, secretId });
    return undefined;
  }
}

const msBetween = (a: Date, b: Date): number => Math.abs(a.getTime() - b.getTime());

/** The body as it was sent, or why it cannot be that. */
function bytesOf({ body, isBase64Encoded }: WebhookRequest): Uint8Array | WebhookRefusal {
  // Before it is decoded. A text has no more letters than bytes.
  if (body.length > (isBase64Encoded ? mostBase64 : mostBodyBytes)) return 'TOO_LARGE';
  // Half a pair of surrogates has no UTF-8, and would be replaced by something that was not sent.
  if (!isBase64Encoded) return body.isWellFormed() ? Buffer.from(body, 'utf8') : 'NOT_UTF8';
  const bytes = Buffer.from(body, 'base64');
  // Node decodes anything to something: only what it would write itself is what was meant.
  return bytes.toString('base64') === body ? bytes : 'NOT_BASE64';
}
