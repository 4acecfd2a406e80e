import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { bundle } from '../../infra/bundle.ts';

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

const contents = async (): Promise<Readonly<Record<string, string>>> =>
  Object.fromEntries(
    await Promise.all(
      (await readdir(directory))
        .sort()
        .map(async (name) => [name, await readFile(join(directory, name), 'utf8')]),
    ),
  );

test('every handler is a module, and what they share is stored once', async () => {
  await bundle({ functions, directory });
  const files = await contents();
  expect(Object.keys(files)).toEqual([
    expect.stringMatching(/^chunk-[A-Z0-9]+\.mjs$/),
    'first.mjs',
    'second.mjs',
  ]);
  expect(Object.values(files).filter((text) => text.includes('said by both'))).toHaveLength(1);
  const { handler } = (await import(join(directory, 'first.mjs'))) as { handler: () => Promise<number> };
  expect(await handler()).toBe(64);
});

test('the same sources give the same bytes, and a directory that has them is not touched', async () => {
  await bundle({ functions, directory });
  const before = await contents();
  const { ino } = await stat(directory);
  await bundle({ functions, directory });
  expect((await stat(directory)).ino).toBe(ino);
  await rm(directory, { recursive: true });
  await bundle({ functions, directory });
  expect(await contents()).toEqual(before);
});

test('what an earlier bundle left behind is gone', async () => {
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'removed-handler.mjs'), '');
  await bundle({ functions, directory });
  expect(Object.keys(await contents())).not.toContain('removed-handler.mjs');
  expect(await readdir(join(directory, '..'))).toEqual(['functions']);
});

test('several at one time leave one whole bundle', async () => {
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'old.mjs'), '');
  await Promise.all([1, 2, 3, 4].map(() => bundle({ functions, directory })));
  expect(Object.keys(await contents())).toHaveLength(3);
  expect(await readdir(join(directory, '..'))).toEqual(['functions']);
});

test('a directory without handlers is an error that says so', async () => {
  await expect(bundle({ functions: join(functions, 'core/..', 'none'), directory })).rejects.toThrow('none');
});
