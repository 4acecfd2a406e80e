import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bundle, sourceMaps } from '../../infra/bundle.ts';
import { mapped } from '../../infra/stack-trace.ts';

let directory: string;
let maps: ReadonlyMap<string, string>;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'rekey-trace-'));
  await bundle({ directory: join(directory, 'functions') });
  maps = await sourceMaps();
});
afterAll(() => rm(directory, { recursive: true }));

/** What a function writes that is started with a wrong environment. */
async function failingStart(): Promise<string> {
  const module = join(directory, 'functions/rotate-secret/rotate-secret.mjs');
  const program = `await import(${JSON.stringify(module)})`;
  return promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], { env: {} }).then(
    () => 'nothing was thrown',
    ({ stderr }: { stderr: string }) => stderr,
  );
}

test('the places of a stack trace are those in the sources', async () => {
  const stack = await failingStart();
  expect(stack).toMatch(/at .*chunk-[A-Z0-9]+\.mjs:\d+:\d+/);
  const { text, unknown } = mapped(stack, maps);
  expect(unknown).toEqual([]);
  expect(text).toMatch(/at .*\(functions\/runtime\/env\.ts:\d+:\d+\)/);
  expect(text).toMatch(/at .*\(functions\/runtime\/compose\.ts:\d+:\d+\)/);
  expect(text).toMatch(/at .*functions\/rotate-secret\.ts:\d+:\d+/);
  expect(text).not.toMatch(/at .*\.mjs:/);
});

test('so are those in a line of JSON, as Lambda writes it', async () => {
  const line = JSON.stringify({ errorType: 'Error', stack: (await failingStart()).split('\n') });
  const { text } = mapped(line, maps);
  expect(JSON.parse(text).stack.join('\n')).toMatch(/functions\/rotate-secret\.ts:\d+:\d+/);
});

test('a file that this commit does not make is named, and left as it is', () => {
  const line = '    at Lu (file:///var/task/chunk-OTHER000.mjs:2:345)';
  expect(mapped(line, maps)).toEqual({ text: line, unknown: ['chunk-OTHER000.mjs'] });
});

test('every file of every function has its map', async () => {
  const files = await readdir(join(directory, 'functions'), { recursive: true });
  const names = files.filter((file) => file.endsWith('.mjs')).map((file) => file.replace(/^.*\//, ''));
  expect(names.filter((name) => !maps.has(name))).toEqual([]);
});
