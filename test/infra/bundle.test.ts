import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bundle, eagerFiles } from '../../infra/bundle.ts';

let directory: string;
let functions: string;
beforeEach(async () => {
  const root = await mkdtemp(join(tmpdir(), 'rekey-bundle-'));
  directory = join(root, 'out/functions');
  functions = join(root, 'functions');
  await mkdir(join(functions, 'core'), { recursive: true });
  await writeFile(join(functions, 'core/shared.ts'), 'export const shared: string = "said by both";');
  for (const name of ['first', 'second'])
    await writeFile(
      join(functions, `${name}.ts`),
      `import { createHash } from 'node:crypto';
       import { shared } from './core/shared.ts';
       export const handler = async () => createHash('sha256').update(shared + '${name}').digest('hex').length;`,
    );
});
afterEach(() => rm(join(functions, '..'), { recursive: true }));

const contents = async (where = directory): Promise<Readonly<Record<string, string>>> => {
  const files = (await readdir(where, { recursive: true, withFileTypes: true })).filter((each) =>
    each.isFile(),
  );
  const paths = files.map(({ parentPath, name }) => relative(where, join(parentPath, name))).sort();
  return Object.fromEntries(
    await Promise.all(paths.map(async (path) => [path, await readFile(join(where, path), 'utf8')])),
  );
};

type Module = { readonly handler: () => Promise<unknown> };

test('every handler is a directory that needs no other', async () => {
  await bundle({ functions, directory });
  const files = await contents();
  expect(Object.keys(files)).toEqual(['first/first.mjs', 'second/second.mjs']);
  expect(Object.values(files).filter((text) => text.includes('said by both'))).toHaveLength(2);
  const { handler } = (await import(join(directory, 'first/first.mjs'))) as Module;
  expect(await handler()).toBe(64);
});

describe('what a handler loads later', () => {
  beforeEach(async () => {
    await rm(join(functions, 'second.ts'));
    const part = (name: string) =>
      `import { Shared } from './${name}-shared.ts'; import { shared } from './shared.ts';
       export const answer = (given: unknown) => [shared, given instanceof Shared];`;
    for (const name of ['one', 'other']) {
      await writeFile(join(functions, `core/${name}.ts`), part(name));
      await writeFile(join(functions, `core/${name}-shared.ts`), `export class Shared { is = '${name}'; }`);
    }
    await writeFile(
      join(functions, 'first.ts'),
      `import { Shared as One } from './core/one-shared.ts';
       import { Shared as Other } from './core/other-shared.ts';
       import { shared } from './core/shared.ts';
       export const handler = async () => [
         shared,
         (await import('./core/one.ts')).answer(new One()),
         (await import('./core/other.ts')).answer(new Other()),
       ];`,
    );
  });

  test('shares with it one chunk, in which everything is only once', async () => {
    const { metafile } = await bundle({ functions, directory });
    expect(eagerFiles(metafile, 'first.mjs')).toHaveLength(2);
    expect(Object.values(await contents()).filter((text) => text.includes('said by both'))).toHaveLength(1);
    const { handler } = (await import(join(directory, 'first/first.mjs'))) as Module;
    expect(await handler()).toEqual(['said by both', ['said by both', true], ['said by both', true]]);
  });
});

test('a library in CommonJS gets what it requires of Node, and an error that it can handle for what nobody has', async () => {
  await mkdir(join(functions, 'core/library'), { recursive: true });
  await writeFile(
    join(functions, 'core/library/index.cjs'),
    `const { createHash } = require('crypto');
     let native = 'found'; try { native = require('pg-native'); } catch ({ code }) { native = code; }
     module.exports = { native, size: createHash('sha256').update('x').digest().length };`,
  );
  await writeFile(
    join(functions, 'first.ts'),
    `export const handler = async () => ({ ...(await import('./core/library/index.cjs')).default });`,
  );
  await bundle({ functions, directory });
  const { handler } = (await import(join(directory, 'first/first.mjs'))) as Module;
  expect(await handler()).toEqual({ native: 'MODULE_NOT_FOUND', size: 32 });
});

test('source maps lie beside the bundles, and only where they are asked for', async () => {
  const maps = join(directory, '../maps');
  await bundle({ functions, directory, maps });
  expect(Object.keys(await contents(maps))).toEqual(['first/first.mjs.map', 'second/second.mjs.map']);
  const files = await contents();
  expect(Object.keys(files)).toEqual(['first/first.mjs', 'second/second.mjs']);
  expect(Object.values(files).join()).not.toContain('sourceMappingURL');
  await rm(maps, { recursive: true });
  await bundle({ functions, directory });
  expect(await readdir(join(directory, '..'))).toEqual(['functions']);
});

test('the same sources give the same bytes, wherever they go, and a directory that has them is not touched', async () => {
  await bundle({ functions, directory });
  const before = await contents();
  const { ino } = await stat(directory);
  await bundle({ functions, directory });
  expect((await stat(directory)).ino).toBe(ino);
  const elsewhere = join(directory, '../../deeper/elsewhere');
  await bundle({ functions, directory: elsewhere });
  expect(await contents(elsewhere)).toEqual(before);
});

test('what an earlier bundle left behind is gone', async () => {
  await mkdir(join(directory, 'removed-handler'), { recursive: true });
  await writeFile(join(directory, 'removed-handler/removed-handler.mjs'), '');
  await bundle({ functions, directory });
  expect(await readdir(directory)).not.toContain('removed-handler');
  expect(await readdir(join(directory, '..'))).toEqual(['functions']);
});

test('several at one time leave one whole bundle', async () => {
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'old.mjs'), '');
  await Promise.all([1, 2, 3, 4].map(() => bundle({ functions, directory })));
  expect(Object.keys(await contents())).toHaveLength(2);
  expect(await readdir(join(directory, '..'))).toEqual(['functions']);
});

test('a directory without handlers is an error that says so', async () => {
  await expect(bundle({ functions: join(functions, 'core/..', 'none'), directory })).rejects.toThrow('none');
});
