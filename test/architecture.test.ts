import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '..');
const files = readdirSync(join(root, 'functions'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => join('functions', file));

/** Static and dynamic imports, as paths from the root for our own files and as names for packages. */
function importsOf(file: string): readonly string[] {
  const text = readFileSync(join(root, file), 'utf8');
  const found = [...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom '([^']+)'|\bimport\('([^']+)'\)/gm)];
  return found.map(([, stat, dynamic]) => {
    const target = stat ?? dynamic ?? '';
    return target.startsWith('.') ? relative(root, resolve(root, dirname(file), target)) : target;
  });
}

interface Layer {
  readonly files: RegExp;
  readonly mayImport: readonly RegExp[];
  readonly advice: string;
}

const layers: readonly Layer[] = [
  {
    files: /^functions\/core\//,
    mayImport: [/^functions\/core\//, /^(zod\/mini|zod\/v4\/locales\/en\.js|temporal-polyfill)$/],
    advice: 'core is pure: take time, randomness, hashing and environment as arguments',
  },
  {
    files: /^functions\/lifecycle\//,
    mayImport: [/^functions\/(core|lifecycle)\//, /^zod\/mini$/],
    advice: 'a use case acts through the ports of core/ports.ts',
  },
  {
    files: /^functions\/providers\/[a-z-]+\//,
    mayImport: [/^functions\/core\//, /^functions\/providers\/[a-z-]+\.ts$/, /^zod\/mini$/],
    advice: 'a provider knows core and the shared seams beside it, never another provider or a driver',
  },
  {
    files: /^functions\/providers\/[a-z-]+(\.d)?\.ts$/,
    mayImport: [
      /^functions\/core\//,
      /^functions\/providers\//,
      /^(zod\/mini|undici|undici\/lib\/.*|pg|iovalkey)$/,
    ],
    advice: 'the seams are the only files that import a driver',
  },
  {
    files: /^functions\/consumers\/index\.ts$/,
    mayImport: [/^functions\/(core|consumers)\//],
    advice: 'the list names each kind of consumer, and loads it when it is asked for',
  },
  {
    files: /^functions\/consumers\/[a-z-]+\.ts$/,
    mayImport: [/^functions\/core\//, /^functions\/providers\/(?!index\.ts$)[a-z-]+\.ts$/, /^zod\/mini$/],
    advice: 'a kind of consumer knows core and the seams to the vendors, never another kind or a provider',
  },
  {
    files: /^functions\/webhooks\//,
    mayImport: [/^functions\/(core|webhooks)\//, /^(zod\/mini|node:crypto)$/],
    advice: 'webhooks are verified and read, and nothing else: pure over the bytes that arrived',
  },
  {
    files: /^functions\/aws\//,
    mayImport: [/^functions\/(core|aws)\//, /^@aws-sdk\//],
    advice: 'the adapters know core and the SDK',
  },
  {
    files: /^functions\/runtime\//,
    mayImport: [
      /^functions\/(core|lifecycle|aws|runtime)\//,
      /^functions\/providers\/[a-z-]+\.ts$/,
      /^functions\/(consumers|webhooks)\/index\.ts$/,
      /^zod\/mini$/,
      /^@aws-sdk\//,
      /^node:/,
    ],
    advice: 'runtime wires everything, and names no provider and no kind of consumer',
  },
  {
    files: /^functions\/[a-z-]+\.ts$/,
    mayImport: [/^functions\/(core|lifecycle|runtime)\//],
    advice: 'a handler parses, calls one use case and returns',
  },
];

describe('the direction of imports', () => {
  test.each(files)('%s imports only what its layer may', (file) => {
    const layer = layers.find((candidate) => candidate.files.test(file));
    expect(layer, `${file} belongs to no layer: see the list in this test`).toBeDefined();
    const own = /^functions\/providers\/([a-z-]+)\//.exec(file)?.[0];
    const wrong = importsOf(file).filter(
      (target) =>
        !(own !== undefined && target.startsWith(own)) &&
        !layer?.mayImport.some((allowed) => allowed.test(target)),
    );
    expect(wrong, layer?.advice).toEqual([]);
  });

  test('infra takes from functions only schemas, names, and the providers and consumers themselves', () => {
    const infra = readdirSync(join(root, 'infra'), { encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .flatMap((file) => importsOf(join('infra', file)).map((target) => ({ file, target })));
    const allowed =
      /^functions\/(core\/(capacity|names|notes|secret-value|spec|spec-schema|events|errors|metrics|consumer|provider|calendar|findings|queued-events)|runtime\/env|providers\/([a-z-]+\/provider|index)|consumers\/[a-z-]+)\.ts$/;
    expect(infra.filter(({ target }) => target.startsWith('functions/') && !allowed.test(target))).toEqual(
      [],
    );
  });
});

test('the evaluator of policies, which is AGPL, is of the development tree alone: one file of the local runner knows it', () => {
  const everywhere = ['functions', 'infra'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => join(folder, file)),
  );
  const importing = (name: RegExp) =>
    everywhere.filter((file) => importsOf(file).some((each) => name.test(each)));
  expect(importing(/^@cloud-copilot\//)).toEqual(['infra/local/authorization.ts']);
  // Nor by a detour: what is deployed, and what other apps take, imports nothing of the local runner.
  const deployed = everywhere.filter((file) => !file.startsWith('infra/local/'));
  expect(deployed.filter((file) => importsOf(file).some((each) => each.startsWith('infra/local/')))).toEqual(
    [],
  );
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const names = (list: object) => Object.keys(list).filter((name) => name.startsWith('@cloud-copilot/'));
  expect(names(dependencies)).toEqual([]);
  expect(names(devDependencies)).toContain('@cloud-copilot/iam-simulate');
});

describe('what is imported is what is loaded', () => {
  const lines = (file: string): readonly string[] =>
    readFileSync(join(root, file), 'utf8').match(/^(?:import|export)\b[^;]*?\bfrom '[^']+'/gm) ?? [];
  const everywhere = ['functions', 'infra', 'test'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => join(folder, file)),
  );

  test('zod is imported as a namespace: from `{ z }` esbuild cannot take what is not used', () => {
    const found = everywhere.flatMap((file) =>
      lines(file)
        .filter((line) => /'zod(\/mini)?'$/.test(line) && !/^import (type )?\* as z from /.test(line))
        .map((line) => `${file}: ${line}`),
    );
    expect(found, "write import * as z from 'zod/mini', or from 'zod'").toEqual([]);
  });

  test('undici is imported by its parts: its entry brings all of them', () => {
    const found = files
      .filter((file) => !file.endsWith('.d.ts'))
      .flatMap((file) =>
        lines(file)
          .filter((line) => line.endsWith("from 'undici'") && !line.startsWith('import type '))
          .map((line) => `${file}: ${line}`),
      );
    expect(found, 'take it from functions/providers/undici.ts').toEqual([]);
  });

  test('time zones come with a library that only the calendar imports, and the calendar is loaded where a spec needs it', () => {
    const importing = (target: string) => files.filter((file) => importsOf(file).includes(target));
    expect(importing('temporal-polyfill')).toEqual(['functions/core/calendar.ts']);
    expect(importing('functions/core/calendar.ts')).toEqual([
      'functions/core/due.ts',
      'functions/core/spec-schema.ts',
    ]);
    expect(lines('functions/core/spec-schema.ts').join('\n')).not.toContain('calendar');
  });

  test('the schema of specs is loaded with the first spec', () => {
    const importing = files.filter((file) =>
      lines(file).some(
        (line) => /from '[./a-z-]*\/spec-schema\.ts'$/.test(line) && !/^import type /.test(line),
      ),
    );
    expect(importing, 'take parseSpec and what else there is from spec.ts').toEqual([]);
  });
});

test('core has no clock, no randomness and no environment of its own', () => {
  const impure = /\bDate\.now\b|\bnew Date\(\)|\bMath\.random\b|\bprocess\b|\bsetTimeout\b|\bfetch\(/;
  const found = files
    .filter((file) => file.startsWith('functions/core/'))
    .filter((file) =>
      impure.test(readFileSync(join(root, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')),
    );
  expect(found, 'take it as an argument').toEqual([]);
});

test('nothing outside a provider’s folder branches on a provider’s name', () => {
  const ids = readdirSync(join(root, 'functions/providers'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
  expect(ids).toContain('render-postgres');
  const found = files
    .filter((file) => !/^functions\/providers\/([a-z-]+\/|index\.ts$)/.test(file))
    .filter((file) => ids.some((id) => readFileSync(join(root, file), 'utf8').includes(id)));
  expect(found, 'make the difference a capability or another arm of the union').toEqual([]);
});

test('nothing outside its own file branches on a kind of consumer', () => {
  const kinds = readdirSync(join(root, 'functions/consumers'))
    .map((file) => file.replace(/\.ts$/, ''))
    .filter((kind) => kind !== 'index');
  expect(kinds).toContain('render-service');
  const found = files
    .filter((file) => !file.startsWith('functions/consumers/'))
    .filter((file) => kinds.some((kind) => readFileSync(join(root, file), 'utf8').includes(`'${kind}'`)));
  expect(found, 'make the difference a part of the contract in core/consumer.ts').toEqual([]);
});

test('scripts run on the Node that Lambda runs, whatever is installed', () => {
  expect(process.versions.node).toMatch(/^24\./);
});

test('orders are kept and read in one place, which writes none over a later one', () => {
  const naming = files.filter(
    (file) =>
      file !== 'functions/core/directives.ts' &&
      /\bdirectiveParameter\b/.test(readFileSync(join(root, file), 'utf8')),
  );
  expect(naming, 'use keepDirective and its like').toEqual(['functions/lifecycle/orders.ts']);
});

test('only a use case decides why something is written: providers and consumers never make a guard', () => {
  const makers = files.filter(
    (file) =>
      /^functions\/(providers|consumers)\//.test(file) &&
      /\bGuard\s*\.\s*of\b/.test(readFileSync(join(root, file), 'utf8')),
  );
  expect(makers, 'pass on the guard that you were given; .and() adds a reason').toEqual([]);
});
