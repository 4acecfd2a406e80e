import { StoreError } from '../core/errors.ts';
import type { Invocation } from '../core/events.ts';
import { targetKey } from '../core/fleet.ts';
import { inParallel } from './in-parallel.ts';
import { notedMembers } from './members.ts';
import type { Rekey } from './rekey.ts';
import { noteReceived } from './watch-webhooks.ts';

/**
 * How long after an event its target is looked at. Events come in bursts, one look does for all of them; and the webhook about
 * a change of our own may be here before our own note of that change.
 */
const delaySeconds = 60;

/**
 * Makes reconcile look soon at what a vendor told about, where it is a target of ours, and notes that the vendor tells: not even
 * what happened is taken from the event, which only goes with the task, so that what is seen then can be matched with it. A target
 * that waits in the queue already is not queued again, as far as this function instance knows; looking twice is harmless, and an
 * event that is lost costs no more than the time until the next pass.
 *
 * `waiting` says until when a look at a target is still to come: targets of ours only, and only as long as they wait.
 */
export function providerEventHeeder(
  waiting = new Map<string, Date>(),
): (event: Extract<Invocation, { readonly is: 'provider-event' }>, rekey: Rekey) => Promise<void> {
  return async ({ target, because }, rekey) => {
    if (target === undefined) return;
    const { ports, log } = rekey;
    const now = await ports.now();
    for (const [id, until] of waiting) if (until <= now) waiting.delete(id);
    if (waiting.has(target)) return;
    const targets = await ownTargets(target, because.endpoint, rekey);
    if (targets.length === 0) return;
    await ports.enqueue(
      targets.map(({ provider, targetId }) => ({ provider, targetId, because, delaySeconds, urgent: true })),
    );
    // Counted from before the message was sent, so that the look is certain to come after every event that is not queued again.
    waiting.set(target, new Date(now.getTime() + delaySeconds * 1000));
    log('info', 'a target is looked at after an event of its vendor', {
      targets: targets.map(({ provider, targetId }) => targetKey(provider, targetId)),
    });
    await noteReceived(because.endpoint, rekey);
  };
}

/**
 * The targets of ours with this id, of the providers whose vendor sends to this endpoint. A target that the last pass of start-rotations
 * did not see yet is left to the next pass of reconcile-users. While no note can be read, each of these providers costs one look.
 */
async function ownTargets(
  targetId: string,
  endpoint: string,
  rekey: Rekey,
): Promise<readonly { readonly provider: string; readonly targetId: string }[]> {
  const { loadProvider } = rekey;
  const definitions = await Promise.all((loadProvider.ids ?? []).map((id) => loadProvider(id)));
  const places = definitions.flatMap((definition) =>
    definition?.webhookEndpoint === endpoint ? [{ provider: definition.id, targetId }] : [],
  );
  try {
    const noted = await inParallel(places, places.length, async (place) =>
      (await notedMembers(place, rekey)) === undefined ? [] : [place],
    );
    return noted.flat();
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    rekey.log('warn', 'whether a target is one of ours could not be looked up; it is looked at', {
      target: targetId,
      code: error.code,
    });
    return places;
  }
}
