import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer, get, type RequestOptions, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { DescribeSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { generate } from 'selfsigned';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { EarlyAgent } from '../../functions/runtime/early-agent.ts';

let certificate: { readonly private: string; readonly cert: string };
beforeAll(async () => {
  certificate = await generate([{ name: 'commonName', value: 'localhost' }], { keySize: 2048 });
});

let server: Server;
let agent: EarlyAgent;
/** TLS connections that the server has seen, and for each request over which of them it came. */
let connections = 0;
const requests: number[] = [];
beforeEach(async () => {
  connections = 0;
  requests.length = 0;
  const { private: key, cert } = certificate;
  server = createServer({ key, cert }, (request, response) => {
    requests.push(Number(Reflect.get(request.socket, 'number')));
    response.end('answered');
  });
  server.on('secureConnection', (socket) => {
    connections += 1;
    Reflect.set(socket, 'number', connections);
  });
  await once(server.listen(0, 'localhost'), 'listening');
  agent = new EarlyAgent({ keepAlive: true, ca: cert });
});
afterEach(() => {
  agent.destroy();
  server.close();
  server.closeAllConnections();
});

const port = (): number => (server.address() as AddressInfo).port;

async function ask(options: RequestOptions = {}): Promise<string> {
  const request = get({ host: 'localhost', port: port(), agent, ...options });
  const [response] = await once(request, 'response');
  return text(response);
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await pause(5);
}

describe('a connection that is opened early', () => {
  test('is there before the first request, and takes it and those after it', async () => {
    agent.connectEarly('localhost', port());
    await until(() => connections === 1);
    expect(await ask()).toBe('answered');
    // Until it is free again, which is not at once.
    await until(() => Object.keys(agent.freeSockets).length === 1);
    expect(await ask()).toBe('answered');
    expect({ connections, requests }).toEqual({ connections: 1, requests: [1, 1] });
  });

  test('takes a request that comes while it is being opened', async () => {
    agent.connectEarly('localhost', port());
    expect(await ask()).toBe('answered');
    expect(connections).toBe(1);
  });

  test('serves one request at a time: a second one has a connection of its own', async () => {
    agent.connectEarly('localhost', port());
    expect(await Promise.all([ask(), ask()])).toEqual(['answered', 'answered']);
    expect(connections).toBe(2);
  });

  test('is not used for another host', async () => {
    agent.connectEarly('localhost', port());
    expect(await ask({ host: '127.0.0.1', servername: 'localhost' })).toBe('answered');
    expect(requests).toHaveLength(1);
    await until(() => connections >= 1);
  });

  test('which the other end has closed is forgotten', async () => {
    agent.connectEarly('localhost', port());
    await until(() => connections === 1);
    server.closeAllConnections();
    await pause(50);
    expect(await ask()).toBe('answered');
    expect(requests).toEqual([2]);
  });

  test('that nobody has asked for is closed after ten seconds', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    agent.connectEarly('localhost', port());
    await until(() => connections === 1);
    vi.advanceTimersByTime(10_000);
    vi.useRealTimers();
    expect(await ask()).toBe('answered');
    expect(requests).toEqual([2]);
  });

  test('takes the first call of the SDK', async () => {
    const client = new SecretsManagerClient({
      region: 'eu-central-1',
      endpoint: `https://localhost:${port()}`,
      credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
      requestHandler: { httpsAgent: agent },
    });
    agent.connectEarly('localhost', port());
    await until(() => connections === 1);
    await expect(client.send(new DescribeSecretCommand({ SecretId: 'rekey/orders' }))).rejects.toThrow();
    expect(requests[0]).toBe(1);
    expect(connections).toBe(1);
    client.destroy();
  });

  test('trusts no other certificates than a request does', async () => {
    const strict = new EarlyAgent({ keepAlive: true });
    strict.connectEarly('localhost', port());
    await expect(ask({ agent: strict })).rejects.toThrow(/self-signed certificate/);
    strict.destroy();
  });

  const nowhere: Record<string, () => readonly [host: string, port: number]> = {
    refuses: () => ['127.0.0.1', 9],
    'has no address': () => ['no-such-host.invalid', 443],
  };
  test.each(Object.entries(nowhere))('to what %s harms nobody', async (_what, where) => {
    agent.connectEarly(...where());
    await pause(100);
    expect(await ask()).toBe('answered');
  });
});

test('a process that has opened one early ends as if it had not', async () => {
  const source = new URL('../../functions/runtime/early-agent.ts', import.meta.url).href;
  const program = `
    import { EarlyAgent } from ${JSON.stringify(source)};
    new EarlyAgent({ rejectUnauthorized: false }).connectEarly('localhost', ${port()});
    process.once('exit', (code) => process.stdout.write('ended with ' + code));
  `;
  const start = performance.now();
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [
    '--input-type=module',
    '--eval',
    program,
  ]);
  expect({ stdout, stderr }).toEqual({ stdout: 'ended with 0', stderr: '' });
  expect(performance.now() - start).toBeLessThan(9_000);
});
