import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';

/** A loopback port that nobody listens on now; somebody else may take it before you do. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}

/** Ends the server and clears its directory once this process is gone, however it went. */
export function watchOver(server: ChildProcess, directory: string): ChildProcess {
  const script = [
    'read -r _', // returns when this process, which holds the other end of the pipe, is gone
    'kill -INT "$1"',
    'n=0; while kill -0 "$1" 2>/dev/null && [ "$n" -lt 50 ]; do sleep 0.1; n=$((n+1)); done',
    'kill -KILL "$1" 2>/dev/null',
    'rm -rf -- "$2"',
  ].join('; ');
  return spawn('/bin/sh', ['-c', script, 'engine-watch', String(server.pid), directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true, // or Ctrl-C would end the watch before what it watches
    cwd: '/',
  });
}

export const hasExited = (child: ChildProcess): boolean =>
  child.exitCode !== null || child.signalCode !== null;

/** Whether the child has exited within so many milliseconds. */
export async function exited(child: ChildProcess, patienceMs: number): Promise<boolean> {
  if (hasExited(child)) return true;
  const timer = AbortSignal.timeout(patienceMs);
  return once(child, 'exit', { signal: timer }).then(
    () => true,
    () => hasExited(child),
  );
}
