import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  inputCodes,
  providerCodes,
  refusalCodes,
  storeCodes,
  verificationCodes,
} from '../functions/core/errors.ts';

const root = resolve(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

describe('every code of an error is explained in one row of a table', () => {
  const rows = readme.split('\n').flatMap((line) => {
    const [, code, rest] = /^\| `([A-Z_]+)` *\|(.*)\|\s*$/.exec(line) ?? [];
    // A bar inside a cell is written `\|`.
    return code === undefined || rest === undefined ? [] : [{ code, cells: rest.split(/(?<!\\)\|/) }];
  });
  const codes = [...inputCodes, ...refusalCodes, ...providerCodes, ...verificationCodes, ...storeCodes];

  test.each(codes)('%s', (code) => {
    const own = rows.filter((row) => row.code === code);
    expect(own, `give ${code} one row in README.md, with its meaning and what to do`).toHaveLength(1);
    expect(own[0]?.cells.filter((cell) => cell.trim() === '')).toEqual([]);
  });
});

/** What stands in code: fenced blocks, and spans between backticks in the text around them. */
const blocks = [...readme.matchAll(/^```[^\n]*\n([\s\S]*?)^```/gm)].map(([, text = '']) => text);
const prose = readme.replaceAll(/^```[\s\S]*?^```/gm, '');
const spans = [...prose.matchAll(/`([^`\n]+)`/g)].map(([, text = '']) => text);

test('every npm command is a script, or npm’s own ci', () => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const commands = [...blocks, ...spans].flatMap((text) => [
    ...text.matchAll(/\bnpm (run )?([a-z][a-z0-9:-]*)/g),
  ]);
  expect(commands.length).toBeGreaterThan(0);
  // Without `run`, npm knows only a few scripts by their bare name.
  const wrong = commands.filter(([, run, name = '']) =>
    run === undefined && name === 'ci'
      ? false
      : !Object.hasOwn(scripts, name) || (run === undefined && !['start', 'test'].includes(name)),
  );
  expect(wrong.map(([command]) => command)).toEqual([]);
});

test('every path into the repository exists', () => {
  const links = [...prose.matchAll(/\]\(([^)\s#]+)(?:#[^)\s]*)?\)/g)]
    .map(([, target = '']) => target)
    .filter((target) => !/^[a-z][a-z0-9+.-]*:/i.test(target));
  // A path with a placeholder, say `functions/providers/<id>/`, is a pattern and not meant.
  const paths = spans.filter((text) => /^(\.\/)?(functions|infra|test)\/[\w./-]*$/.test(text));
  expect([...links, ...paths].filter((path) => !existsSync(join(root, path)))).toEqual([]);
});
