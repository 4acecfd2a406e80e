import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Metafile } from 'esbuild';
import { leanSdk, loadedAfter } from './bundle-plugins.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

export interface BundleOptions {
  /** Where the handlers are, one `<handler>.ts` each. @default functions/ */
  readonly functions?: string;
  /** Where the bundles go; what was there before is gone afterwards. @default .build/functions/ */
  readonly directory?: string;
  /** Where the source maps go. Nothing that runs reads them. @default nowhere */
  readonly maps?: string;
}

/**
 * A directory for each handler, with the handler as `<handler>/<handler>.mjs` and the chunks that it loads: the asset of that function
 * at AWS, and what local runs execute. The same sources give the same bytes. A function runs alone, so nothing would be gained by
 * what two of them share: it would only be in more files, and with what only the other one uses.
 *
 * No compile cache comes with them. Here it saves a fifth of an import, but V8 takes one only from the version of Node, architecture and
 * user id that made it, and what deploys has neither Lambda's version nor its user.
 */
export async function bundle({
  functions = join(root, 'functions'),
  directory = join(root, '.build/functions'),
  maps,
}: BundleOptions = {}): Promise<{ readonly directory: string; readonly metafile: Metafile }> {
  const built = await buildAll(functions);
  const files = built.flatMap(({ files: each }) => each);
  await replace(
    directory,
    files.filter(({ path }) => !path.endsWith('.map')),
  );
  if (maps !== undefined)
    await replace(
      maps,
      files.filter(({ path }) => path.endsWith('.map')),
    );
  return {
    directory,
    metafile: {
      inputs: Object.assign({}, ...built.map(({ metafile }) => metafile.inputs)),
      outputs: Object.assign({}, ...built.map(({ metafile }) => metafile.outputs)),
    },
  };
}

/** The source map of every file that bundle() makes, by its name. */
export async function sourceMaps(functions = join(root, 'functions')): Promise<ReadonlyMap<string, string>> {
  const built = await buildAll(functions);
  return new Map(
    built.flatMap(({ files }) =>
      files
        .filter(({ path }) => path.endsWith('.map'))
        .map(({ path, contents }) => [basename(path, '.map'), Buffer.from(contents).toString('utf8')]),
    ),
  );
}

interface BuiltFile {
  /** Relative to the directory of all bundles. */
  readonly path: string;
  readonly contents: Uint8Array;
}

interface Built {
  readonly files: readonly BuiltFile[];
  readonly metafile: Metafile;
}

async function buildAll(functions: string): Promise<readonly Built[]> {
  const sources = (await readdir(functions)).filter((name) => name.endsWith('.ts')).sort();
  if (sources.length === 0) throw new Error(`cannot bundle: no handler <name>.ts in ${functions}`);
  return Promise.all(sources.map((name) => buildOne(join(functions, name))));
}

/** Libraries in CommonJS require modules of Node, and in a try what nobody has. node:module would be one more module for each file. */
const requireOfNode =
  "const require=id=>{const found=process.getBuiltinModule(id);if(found)return found;throw Object.assign(Error('no module '+id),{code:'MODULE_NOT_FOUND'})};";

async function buildOne(source: string): Promise<Built> {
  // Wherever the files will lie: the names of chunks depend on it, and so would the asset.
  const nominal = join(root, '.build/functions');
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: [source],
    outdir: join(nominal, basename(source, '.ts')),
    outExtension: { '.js': '.mjs' },
    chunkNames: 'chunk-[hash]',
    bundle: true,
    splitting: true,
    minify: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    mainFields: ['module', 'main'],
    // pg asks for its native twin inside a try.
    external: ['pg-native'],
    banner: { js: requireOfNode },
    plugins: [leanSdk, loadedAfter(source)],
    metafile: true,
    sourcemap: 'external',
    sourcesContent: false,
    write: false,
    logLevel: 'warning',
  });
  return {
    files: outputFiles.map(({ path, contents }) => ({ path: relative(nominal, path), contents })),
    metafile,
  };
}

/** What a handler loads before its first event: its own file and what that imports statically, over any number of files. */
export function eagerFiles(
  { outputs }: Metafile,
  handlerFile: string,
): readonly { readonly path: string; readonly bytes: number; readonly sources: readonly string[] }[] {
  const entry = Object.keys(outputs).find((path) => basename(path) === handlerFile);
  if (entry === undefined) throw new Error(`expected the bundle to have ${handlerFile}`);
  // A set goes on to what is added while it is walked.
  const loaded = new Set([entry]);
  for (const path of loaded)
    for (const { kind, path: imported } of outputs[path]?.imports ?? [])
      if (kind === 'import-statement' && imported in outputs) loaded.add(imported);
  return [...loaded].map((path) => ({
    path,
    bytes: outputs[path]?.bytes ?? 0,
    sources: Object.keys(outputs[path]?.inputs ?? {}),
  }));
}

/**
 * Puts exactly these files into the directory, all at once: a synth and a local run may bundle at the same time, and
 * neither may see half of the other's files. A directory that has them already is left as it is.
 */
async function replace(directory: string, files: readonly BuiltFile[]): Promise<void> {
  if (await holdsExactly(directory, files)) return;
  const fresh = `${directory}.${randomUUID()}`;
  const old = `${directory}.${randomUUID()}`;
  try {
    for (const { path, contents } of files) {
      await mkdir(dirname(join(fresh, path)), { recursive: true });
      await writeFile(join(fresh, path), contents);
    }
    // A directory with files in it cannot be renamed over, so the old one steps aside first.
    await rename(directory, old).catch(ignore('ENOENT'));
    // Somebody else was faster: their bundle comes from the same sources.
    await rename(fresh, directory).catch(ignore('ENOTEMPTY', 'EEXIST'));
  } finally {
    await rm(old, { recursive: true, force: true });
    await rm(fresh, { recursive: true, force: true });
  }
}

async function holdsExactly(directory: string, files: readonly BuiltFile[]): Promise<boolean> {
  const present = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  if (present.filter((entry) => entry.isFile()).length !== files.length) return false;
  for (const { path, contents } of files) {
    const found = await readFile(join(directory, path)).catch(() => undefined);
    if (found === undefined || !found.equals(contents)) return false;
  }
  return true;
}

const ignore =
  (...codes: readonly string[]) =>
  (error: NodeJS.ErrnoException): void => {
    if (!codes.includes(error.code ?? '')) throw error;
  };

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const { metafile } = await bundle({ maps: join(root, '.build/maps') });
  const outputs = Object.entries(metafile.outputs)
    .filter(([path]) => !path.endsWith('.map'))
    .map(([path, { bytes }]) => ({ path, bytes }));
  const handlers = Object.entries(Object.groupBy(outputs, ({ path }) => basename(dirname(path)))).map(
    ([handler, files = []]) => ({
      handler,
      start: sum(eagerFiles(metafile, `${handler}.mjs`)),
      whole: sum(files),
    }),
  );
  process.stdout.write(`${'start'.padStart(8)}${'whole'.padStart(8)}  KiB\n`);
  for (const { handler, start, whole } of handlers)
    process.stdout.write(`${kib(start).padStart(8)}${kib(whole).padStart(8)}  ${handler}\n`);
}

function sum(files: readonly { readonly bytes: number }[]): number {
  return files.reduce((bytes, file) => bytes + file.bytes, 0);
}

function kib(bytes: number): string {
  return String(Math.ceil(bytes / 1024));
}
