import connect from 'undici/lib/api/api-connect.js';
import call from 'undici/lib/api/api-request.js';
import Agent from 'undici/lib/dispatcher/agent.js';
import Dispatcher from 'undici/lib/dispatcher/dispatcher.js';
import ProxyAgent from 'undici/lib/dispatcher/proxy-agent.js';

/**
 * What rekey uses of undici, by the parts: whole, it brings fetch, WebSocket, caches and mocks, and the first call to a vendor waits
 * for all of them. The package's own entry joins the parts in the same way.
 */
Object.assign(Dispatcher.prototype, { connect, request: call });

export const request = (
  { origin, pathname, search }: URL,
  {
    dispatcher,
    ...options
  }: Omit<Dispatcher.RequestOptions, 'origin' | 'path'> & {
    readonly dispatcher: Dispatcher;
  },
): Promise<Dispatcher.ResponseData> =>
  dispatcher.request({ ...options, origin, path: `${pathname}${search}` });

export { Agent, ProxyAgent };
