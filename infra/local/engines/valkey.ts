import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { access, constants, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { Redis } from 'iovalkey';
import { exited, freePort, hasExited, watchOver } from './child.ts';
import { startValkeyStandIn } from './valkey-stand-in.ts';

/** What answers: a real server of this machine, or our own stand-in for one. */
export type ValkeyKind = (typeof servers)[number] | 'stand-in';

/** A Valkey that lives as long as this process and keeps nothing. Plain TCP on loopback. */
export interface Valkey {
  readonly kind: ValkeyKind;
  readonly host: '127.0.0.1';
  readonly port: number;
  readonly admin: { readonly user: string; readonly password: string };
  /** Runs one command as the administrator and answers its reply; an error reply is thrown. */
  call(...command: readonly string[]): Promise<unknown>;
  /** Afterwards neither a process nor a file is left. May be called again. */
  stop(): Promise<void>;
}

export interface ValkeyOptions {
  /** Where the run's own directory is made. @default the system's temporary directory */
  readonly directory?: string;
  /** Receives the server's log, line by line. It never holds a password. @default lines are dropped */
  readonly log?: (line: string) => void;
  /** The first port to try; a taken port is always replaced by a free one. @default a free port */
  readonly port?: number;
  /** @default the first of `valkey-server` and `redis-server` on the PATH, else our stand-in */
  readonly kind?: ValkeyKind;
}

const servers = ['valkey-server', 'redis-server'] as const;

async function onPath(name: string): Promise<string | undefined> {
  for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(directory, name);
    const isExecutable = await access(path, constants.X_OK).then(
      () => directory !== '',
      () => false,
    );
    if (isExecutable) return path;
  }
  return undefined;
}

/** The real servers that this machine has. */
export async function installedServers(): Promise<readonly (typeof servers)[number][]> {
  const paths = await Promise.all(servers.map(onPath));
  return servers.filter((_name, index) => paths[index] !== undefined);
}

/** Starts a Valkey of its own on a loopback port; ready for logins when the promise resolves. */
export async function startValkey(options: ValkeyOptions = {}): Promise<Valkey> {
  const kind = options.kind ?? (await installedServers())[0] ?? 'stand-in';
  const admin = { user: 'engine_admin', password: randomBytes(24).toString('base64url') };
  if (kind === 'stand-in') {
    const standIn = await startValkeyStandIn(admin);
    return handle({ kind, port: standIn.port, admin, end: () => standIn.close() });
  }
  const path = await onPath(kind);
  if (path === undefined) throw new Error(`${kind} is not on the PATH, expected an installed server`);
  const directory = await mkdtemp(join(options.directory ?? tmpdir(), 'valkey-'));
  try {
    const { server, port } = await serve({ path, directory, admin, options });
    const watch = watchOver(server, directory);
    watch.on('error', () => {}); // without /bin/sh there is no watch, and everything else still works
    server.once('exit', () => watch.kill('SIGKILL')); // its process id may soon be somebody else's
    const end = async (): Promise<void> => {
      for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
        if (hasExited(server)) break;
        server.kill(signal);
        if (await exited(server, 5_000)) break;
      }
      watch.kill('SIGKILL');
      await rm(directory, { recursive: true, force: true });
    };
    return handle({ kind, port, admin, end });
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

/** The configuration goes in over standard input: an argument would show the verifier to everybody on the machine. */
function configuration(port: number, directory: string, { user, password }: Valkey['admin']): string {
  const verifier = createHash('sha256').update(password).digest('hex');
  return [
    `port ${port}`,
    'bind 127.0.0.1',
    `dir ${JSON.stringify(directory)}`,
    'daemonize no',
    'save ""',
    'appendonly no',
    'databases 1',
    `user ${user} on #${verifier} ~* &* +@all`,
    'user default off resetpass',
    '',
  ].join('\n');
}

async function serve(run: {
  readonly path: string;
  readonly directory: string;
  readonly admin: Valkey['admin'];
  readonly options: ValkeyOptions;
}): Promise<{ server: ChildProcess; port: number }> {
  const { path, directory, admin, options } = run;
  const log = options.log ?? (() => {});
  // Between finding a free port and taking it somebody else may take it.
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const port = attempt === 0 && options.port !== undefined ? options.port : await freePort();
    const server = spawn(path, ['-'], {
      cwd: directory,
      env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C', TZ: 'UTC' },
      stdio: ['pipe', 'pipe', 'ignore'],
      detached: true, // Ctrl-C is for us; we end the server in our own order
    });
    const lines: string[] = [];
    const isReady = await new Promise<boolean>((resolve, reject) => {
      createInterface({ input: server.stdout }).on('line', (line) => {
        log(line);
        lines.push(line);
        if (line.includes('Ready to accept connections')) resolve(true);
      });
      server.once('error', reject);
      server.once('close', () => resolve(false));
      server.stdin.on('error', () => {}); // it has ended already; its log says why
      server.stdin.end(configuration(port, directory, admin));
    });
    if (isReady) return { server, port };
    if (!lines.some((line) => /Address already in use|Failed listening on port/.test(line)))
      throw new Error(`${path} ended before it was ready: ${lines.slice(-5).join(' | ')}`);
  }
  throw new Error(`${path} found every port taken in 5 attempts; free some ports of 127.0.0.1`);
}

function handle(run: {
  readonly kind: ValkeyKind;
  readonly port: number;
  readonly admin: Valkey['admin'];
  end(): Promise<void>;
}): Valkey {
  const { kind, port, admin, end } = run;
  const client = new Redis({
    host: '127.0.0.1',
    port,
    username: admin.user,
    password: admin.password,
    enableReadyCheck: false,
    lazyConnect: true,
  });
  client.on('error', () => {}); // the call under way says the same
  let stopping: Promise<void> | undefined;
  return {
    kind,
    host: '127.0.0.1',
    port,
    admin,
    call: (name = '', ...rest) => client.call(name, ...rest),
    stop: () => {
      stopping ??= (async () => {
        client.disconnect();
        await end();
      })();
      return stopping;
    },
  };
}
