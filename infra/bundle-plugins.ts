import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Plugin } from 'esbuild';

/**
 * The SDK's clients without what the functions never use. Where a file of the SDK is not as expected, it stays whole: the functions
 * get larger, which a test notices, and nothing else.
 */
export const leanSdk: Plugin = {
  name: 'lean-sdk',
  setup({ onLoad }) {
    // Lambda keeps the credentials in the environment. The other places bring STS, SSO and the readers of their files.
    onLoad({ filter: /\/@aws-sdk\/credential-provider-node\/dist-es\/index\.js$/ }, () => ({
      contents: "export { fromEnv as defaultProvider } from '@aws-sdk/credential-provider-env';",
    }));

    // Clients register every error that their service may answer, and so keep the class and the schema of each: 70 of the 77 KiB of
    // client-ssm. One that is not registered is thrown as the exception of the service, with the same name, message and metadata.
    onLoad(
      { filter: /\/@aws-sdk\/client-[a-z0-9-]+\/dist-es\/schemas\/schemas_\d+\.js$/ },
      async ({ path }) => {
        const text = await readFile(path, 'utf8');
        const constants = new Map(
          [...text.matchAll(/^const (\w+) = ("[^"]*");$/gm)].map(([, name = '', value = '']) => [
            name,
            value,
          ]),
        );
        return {
          contents: text
            .replaceAll(/^n\d+_registry\.registerError\(/gm, '/* @__PURE__ */ $&')
            // esbuild keeps every schema that has a computed name.
            .replaceAll(/\[(\w+)\]: /g, (whole, name: string) =>
              constants.has(name) ? `${constants.get(name)}: ` : whole,
            ),
        };
      },
    );

    // For the version alone.
    onLoad({ filter: /\/@aws-sdk\/client-[a-z0-9-]+\/package\.json$/ }, async ({ path }) => {
      const { version } = JSON.parse(await readFile(path, 'utf8'));
      return { contents: JSON.stringify({ version }), loader: 'json' };
    });
  },
};

/**
 * Makes the parts that a handler loads later import the handler. It has run by then, so that changes nothing at run time. But esbuild
 * sees that what both use is there already, and puts all of it into one chunk instead of one for each way of sharing.
 */
export function loadedAfter(handler: string): Plugin {
  return {
    name: 'loaded-after',
    setup({ onLoad, onResolve, resolve }) {
      const later = new Set<string>();
      onResolve({ filter: /^\.\.?\/.*\.ts$/ }, async ({ path, kind, importer, resolveDir, pluginData }) => {
        if (kind !== 'dynamic-import' || pluginData === later) return undefined;
        const resolved = await resolve(path, { kind, importer, resolveDir, pluginData: later });
        later.add(resolved.path);
        return resolved;
      });
      onLoad({ filter: /\.ts$/ }, async ({ path }) =>
        later.has(path)
          ? {
              contents: `${await readFile(path, 'utf8')}\nimport ${JSON.stringify(handler)};\n`,
              loader: 'ts',
              resolveDir: dirname(path),
            }
          : undefined,
      );
    },
  };
}
