import { type Effect, StoreError } from '../core/errors.ts';
import type { Ports } from '../core/ports.ts';
import { changeFailureOf } from './guarded.ts';

/** An entry that a request of several did not get in, with the service's code for why. */
export interface RefusedEntry<Entry> {
  readonly entry: Entry;
  readonly code: string;
  /** Whether the same entry may be taken when it is sent again. */
  readonly mayPass: boolean;
  /** In the service's words. */
  readonly message?: string | undefined;
}

/** PutEvents and SendMessageBatch take as many (AWS documentation). */
const mostEntries = 10;
const mostAttempts = 5;

/**
 * Gets every entry in, or throws. An answer of 200 may hold failed entries, which the SDK does not see: they alone are sent
 * again while that may help.
 */
export async function sendAll<Entry>(
  entries: readonly Entry[],
  { call, things, to }: { readonly call: string; readonly things: string; readonly to: string },
  send: (entries: readonly Entry[]) => Promise<readonly RefusedEntry<Entry>[]>,
  { sleep }: Pick<Ports, 'sleep'>,
): Promise<void> {
  let taken = 0;
  const done = (): Effect => (taken === 0 ? 'none' : 'applied');
  for (let from = 0; from < entries.length; from += mostEntries) {
    let left = entries.slice(from, from + mostEntries);
    for (let attempt = 1; left.length > 0; attempt += 1) {
      if (attempt > 1) await sleep(100 * 2 ** (attempt - 1));
      const refused = await send(left).catch((error: unknown) => {
        throw changeFailureOf(error, `${call} on ${to}`, 'unknown', done());
      });
      taken += left.length - refused.length;
      const lasting = refused.find(({ mayPass }) => attempt >= mostAttempts || !mayPass);
      if (lasting !== undefined)
        throw new StoreError(
          'EVENT_NOT_PUBLISHED',
          done(),
          `${entries.length - taken} of ${entries.length} ${things} were not taken by ${to} (${lasting.code}); check that it exists, and the function's role`,
          lasting.message === undefined ? {} : { detail: { message: lasting.message } },
        );
      left = refused.map(({ entry }) => entry);
    }
  }
}
