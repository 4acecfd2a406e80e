import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Metafile, type OutputFile } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));

export interface BundleOptions {
  /** Where the handlers are, one `<handler>.ts` each. @default functions/ */
  readonly functions?: string;
  /** Where the bundle goes; what was there before is gone afterwards. @default .build/functions/ */
  readonly directory?: string;
}

/**
 * One directory with every handler as `<handler>.mjs` and the chunks they share: the asset of each function at AWS and
 * what local runs execute. The same sources give the same bytes.
 */
export async function bundle({
  functions = join(root, 'functions'),
  directory = join(root, '.build/functions'),
}: BundleOptions = {}): Promise<{ readonly directory: string; readonly metafile: Metafile }> {
  const sources = (await readdir(functions)).filter((name) => name.endsWith('.ts')).sort();
  if (sources.length === 0) throw new Error(`cannot bundle: no handler <name>.ts in ${functions}`);
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: sources.map((name) => join(functions, name)),
    outdir: directory,
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
    banner: { js: "import{createRequire}from'node:module';const require=createRequire(import.meta.url);" },
    metafile: true,
    sourcemap: false,
    write: false,
    logLevel: 'warning',
  });
  await replace(directory, outputFiles);
  return { directory, metafile };
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
async function replace(directory: string, files: readonly OutputFile[]): Promise<void> {
  if (await holdsExactly(directory, files)) return;
  const fresh = `${directory}.${randomUUID()}`;
  const old = `${directory}.${randomUUID()}`;
  try {
    await mkdir(fresh, { recursive: true });
    for (const { path, contents } of files) await writeFile(join(fresh, basename(path)), contents);
    // A directory with files in it cannot be renamed over, so the old one steps aside first.
    await rename(directory, old).catch(ignore('ENOENT'));
    // Somebody else was faster: their bundle comes from the same sources.
    await rename(fresh, directory).catch(ignore('ENOTEMPTY', 'EEXIST'));
  } finally {
    await rm(old, { recursive: true, force: true });
    await rm(fresh, { recursive: true, force: true });
  }
}

async function holdsExactly(directory: string, files: readonly OutputFile[]): Promise<boolean> {
  const present = await readdir(directory).catch(() => []);
  if (present.length !== files.length) return false;
  for (const { path, contents } of files) {
    const found = await readFile(join(directory, basename(path))).catch(() => undefined);
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
  const { metafile } = await bundle();
  const outputs = Object.entries(metafile.outputs).map(([path, { bytes }]) => ({
    path,
    kib: Math.ceil(bytes / 1024),
  }));
  for (const { path, kib } of [
    ...outputs.sort((a, b) => b.kib - a.kib),
    { path: 'all', kib: outputs.reduce((sum, each) => sum + each.kib, 0) },
  ])
    process.stdout.write(`${String(kib).padStart(6)} KiB  ${path}\n`);
}
