import type { Ports } from '../core/ports.ts';
import {
  type ApiAccess,
  failureOfStatus,
  type VendorApi,
  type VendorApiOptions,
  type VendorFailure,
  type VendorResponse,
  vendorApi,
} from './http.ts';

const baseUrl = 'https://api.render.com/v1';

/** Render's API, for whichever of its products. Sources: Render's OpenAPI document (2026-08) and its rate-limit page. */
export const callRender = (
  options: Pick<VendorApiOptions, 'provider' | 'secrets'> &
    ApiAccess &
    Partial<Pick<VendorApiOptions, 'failureOf'>>,
  ports: Pick<Ports, 'http' | 'now' | 'sleep' | 'randomBytes'>,
): VendorApi =>
  vendorApi({ failureOf: renderFailureOf, ...options, baseUrl, requestIdHeader: 'render-request-id' }, ports);

export function renderFailureOf(response: VendorResponse, now: Date): VendorFailure | undefined {
  const failure = failureOfStatus(response, now);
  if (failure?.code !== 'RATE_LIMITED' || failure.retryAfterMs !== undefined) return failure;
  return { ...failure, retryAfterMs: resetMs(response.headers['ratelimit-reset'], now) };
}

/**
 * Ratelimit-Reset is "UTC epoch seconds" in Render's rate-limit page, but seconds to wait in its OpenAPI document and in
 * recorded answers. No wait is a billion seconds long, so the size tells.
 */
function resetMs(text: string | undefined, now: Date): number | undefined {
  if (text === undefined || !/^\d+$/.test(text)) return undefined;
  const seconds = Number(text);
  return seconds < 1e9 ? seconds * 1000 : Math.max(0, seconds * 1000 - now.getTime());
}
