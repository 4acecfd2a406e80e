import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import * as z from 'zod';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);
const configuration = z.object({ context: z.record(z.string(), z.unknown()) });

test('what `cdk deploy` deploys is synthesized without a warning, offline, and the same every time', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'rekey-synth-'));
  const templates = [];
  for (const name of ['first', 'second']) {
    const { stdout, stderr } = await run(
      process.execPath,
      ['node_modules/aws-cdk/bin/cdk', 'synth', '--quiet', '--output', join(directory, name)],
      // An egress proxy that refuses everything: a synth that wanted the network would say so.
      {
        cwd: root,
        env: {
          PATH: `${join(process.execPath, '..')}:/usr/bin:/bin`,
          HOME: directory,
          HTTPS_PROXY: 'http://127.0.0.1:9',
          HTTP_PROXY: 'http://127.0.0.1:9',
        },
      },
    );
    expect(`${stdout}${stderr}`).toBe('');
    templates.push(await readFile(join(directory, name, 'Rekey.template.json'), 'utf8'));
  }
  expect(templates[0]).toBe(templates[1]);
  await rm(directory, { recursive: true });
});

test('every feature flag that CDK recommends is set as it recommends', async () => {
  const { context } = configuration.parse(JSON.parse(await readFile(join(root, 'cdk.json'), 'utf8')));
  const recommended: unknown = JSON.parse(
    await readFile(join(root, 'node_modules/aws-cdk-lib/recommended-feature-flags.json'), 'utf8'),
  );
  expect(context).toMatchObject(recommended as object);
});
