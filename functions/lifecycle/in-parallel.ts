/** What `use` makes of each item, in the order of the items, with so many at work at most. After an error no further one begins. */
export async function inParallel<Item, Result>(
  items: readonly Item[],
  most: number,
  use: (item: Item) => Promise<Result>,
): Promise<readonly Result[]> {
  const left = [...items.entries()];
  const results: Result[] = [];
  const errors: unknown[] = [];
  const work = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined && errors.length === 0; next = left.shift()) {
      const [index, item] = next;
      try {
        results[index] = await use(item);
      } catch (error) {
        errors.push(error);
      }
    }
  };
  // Whoever is at work when another fails is waited for: nothing of it may go on behind the caller's back.
  await Promise.all(Array.from({ length: Math.min(most, items.length) }, work));
  if (errors.length > 0) throw errors[0];
  return results;
}
