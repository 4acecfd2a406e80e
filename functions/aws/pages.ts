import { StoreError } from '../core/errors.ts';
import { failureOf } from './failure.ts';

/** One page of a listing; `next` is the token of the page after it. */
export interface Page<Item> {
  readonly items: readonly Item[];
  readonly next: string | undefined;
}

/**
 * Every item of a listing. Only a missing token ends it: a page may be empty and have a successor (AWS documentation). Throws
 * rather than returning a part or asking for ever.
 */
export async function everyPage<Item>(
  call: string,
  ask: (token: string | undefined) => Promise<Page<Item>>,
): Promise<readonly Item[]> {
  const items: Item[] = [];
  const asked = new Set<string>();
  for (let token: string | undefined; ; ) {
    const page = await ask(token).catch((error: unknown) => {
      throw error instanceof StoreError ? error : failureOf(error, call, 'none');
    });
    items.push(...page.items);
    if (page.next === undefined || page.next === '') return items;
    if (asked.has(page.next)) throw unreadable(call, 'came back to a page that it had given before');
    asked.add(page.next);
    token = page.next;
  }
}

/** An answer that cannot be what the service knows. Nothing was changed; the next pass asks again. */
export const unreadable = (call: string, what: string): StoreError =>
  new StoreError('STORE_UNAVAILABLE', 'none', `${call} ${what}; it is tried again`);
