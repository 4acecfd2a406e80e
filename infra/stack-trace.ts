import { SourceMap } from 'node:module';
import { join, relative, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { sourceMaps } from './bundle.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * The text with every place in a bundle as the place in the sources. `maps` are those of the checked-out commit, by the bundle's file;
 * `unknown` are the files that it does not make: they were built from another commit.
 */
export function mapped(
  given: string,
  maps: ReadonlyMap<string, string>,
): { readonly text: string; readonly unknown: readonly string[] } {
  const read = new Map<string, SourceMap>();
  const unknown = new Set<string>();
  // Until a quote, as a place may be in a line of JSON.
  const places = /(?:file:\/\/)?[^\s()"]*?([\w-]+\.mjs):(\d+):(\d+)/g;
  const replaced = given.replaceAll(places, (whole, file: string, line: string, column: string) => {
    const document = maps.get(file);
    if (document === undefined) {
      unknown.add(file);
      return whole;
    }
    const map = read.get(file) ?? new SourceMap(JSON.parse(document));
    read.set(file, map);
    const origin = map.findOrigin(Number(line), Number(column));
    if (!('fileName' in origin)) return whole;
    // Sources are named from where the bundles of a checkout lie.
    const source = relative(root, resolve(join(root, '.build/functions/any'), origin.fileName));
    return `${source}:${origin.lineNumber}:${origin.columnNumber}`;
  });
  return { text: replaced, unknown: [...unknown] };
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const result = mapped(await text(process.stdin), await sourceMaps());
  process.stdout.write(result.text);
  if (result.unknown.length > 0)
    process.stderr.write(
      `not of this commit: ${result.unknown.join(', ')}; check out the one that is deployed, and run npm ci\n`,
    );
}
