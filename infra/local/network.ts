import { X509Certificate } from 'node:crypto';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Server, type Socket } from 'node:net';
import { createSecureContext } from 'node:tls';
import { generate } from 'selfsigned';

/** A key with its certificate, both PEM. */
export interface Certificate {
  readonly key: string;
  readonly cert: string;
}

/** A certificate authority that lives in memory and dies with the process. */
export interface CertificateAuthority {
  /** What clients must trust, PEM. */
  readonly caPem: string;
  /** A server certificate for these host names or IP addresses. */
  certificate(hosts: readonly string[]): Promise<Certificate>;
}

const day = 86_400_000;
/** Long on both sides: the clock of a simulation may be far from ours. */
const validity = () => ({
  notBeforeDate: new Date(Date.now() - 30 * day),
  notAfterDate: new Date(Date.now() + 3650 * day),
});

/** Makes a certificate authority that nobody else trusts. */
export async function createCertificateAuthority(): Promise<CertificateAuthority> {
  const authority = await generate([{ name: 'commonName', value: 'rekey local authority' }], {
    ...validity(),
    keyType: 'ec',
    algorithm: 'sha256',
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
  });
  const ca = { key: authority.private, cert: authority.cert };
  return {
    caPem: ca.cert,
    async certificate(hosts) {
      const { private: key, cert } = await generate(
        [{ name: 'commonName', value: hosts[0] ?? 'localhost' }],
        {
          ...validity(),
          keyType: 'ec',
          algorithm: 'sha256',
          ca,
          extensions: [
            { name: 'basicConstraints', cA: false },
            { name: 'keyUsage', digitalSignature: true, critical: true },
            { name: 'extKeyUsage', serverAuth: true },
            {
              name: 'subjectAltName',
              altNames: hosts.map((host) =>
                /^[\d.]+$/.test(host) ? { type: 7 as const, ip: host } : { type: 2 as const, value: host },
              ),
            },
          ],
        },
      );
      if (!new X509Certificate(cert).verify(new X509Certificate(ca.cert).publicKey))
        throw new Error('the made certificate is not signed by its authority, expected a chain of two');
      return { key, cert };
    },
  };
}

/** A world in which only the named hosts exist. */
export interface Network {
  /** For HTTPS_PROXY. */
  readonly proxyUrl: string;
  /** For NODE_EXTRA_CA_CERTS, PEM. */
  readonly caPem: string;
  certificate(hosts: readonly string[]): Promise<Certificate>;
  /** Every `host:port` or URL that was asked for and does not exist here, oldest first. */
  readonly refused: readonly string[];
  close(): Promise<void>;
}

export interface NetworkOptions {
  /** What answers for `name`, which means port 443, or `name:port`; `*.name` is every host one label below it. */
  readonly hosts: Readonly<Record<string, RequestListener>>;
  /** @default a new one */
  readonly authority?: CertificateAuthority;
}

const listening = (server: Server): Promise<number> =>
  new Promise((resolve, reject) => {
    server
      .once('error', reject)
      .listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });

/**
 * Starts an HTTP CONNECT proxy that leads each named host to its stand-in and every other one nowhere, so that
 * bundles keep the vendors' real base URLs and still cannot leave the machine.
 */
export async function startNetwork({ hosts, authority }: NetworkOptions): Promise<Network> {
  const { caPem, certificate } = authority ?? (await createCertificateAuthority());
  const entries = Object.entries(hosts).map(([host, listener]) => {
    const [name = '', port = '443'] = host.split(':');
    return { name, port, listener };
  });
  const names = [...new Set(entries.map(({ name }) => name))];
  const served = new Map(entries.map(({ name, port, listener }) => [`${name}:${port}`, listener]));
  const contexts = new Map<string, ReturnType<typeof createSecureContext>>();
  for (const name of names) contexts.set(name, createSecureContext(await certificate([name])));
  /** What stands under the name itself, or under the wildcard that covers it. */
  const covering = <T>(known: ReadonlyMap<string, T>, host: string): T | undefined =>
    known.get(host) ?? known.get(host.replace(/^[^.]+/, '*'));

  const sockets = new Set<Socket>();
  const track = (socket: Socket): void => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => {}); // a peer that goes away is no news
    socket.once('close', () => sockets.delete(socket));
  };
  const refused: string[] = [];

  const fallback = await certificate(names.length > 0 ? names : ['localhost']);
  const site = createTlsServer(
    {
      ...fallback,
      SNICallback: (name, done) => {
        const context = covering(contexts, name);
        if (context === undefined) done(new Error(`no host ${name} here`));
        else done(null, context);
      },
    },
    (request, response) => {
      const [name = '', port = '443'] = (request.headers.host ?? '').split(':');
      const listener = covering(served, `${name}:${port}`);
      if (listener === undefined) {
        refused.push(name);
        response.writeHead(421).end();
      } else {
        listener(request, response);
      }
    },
  );
  site.on('connection', track);
  // A connection that we close while a client is about to use it again would look like a fault.
  site.keepAliveTimeout = 0;
  const sitePort = await listening(site);

  const proxy = createServer((request, response) => {
    refused.push(request.url ?? '');
    response
      .writeHead(403, { 'content-type': 'text/plain' })
      .end('only CONNECT to a known host is served here\n');
  });
  proxy.on('connection', track);
  proxy.on('connect', (request, client: Socket, head: Buffer) => {
    const target = request.url ?? '';
    if (covering(served, target) === undefined) {
      refused.push(target);
      client.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
      return;
    }
    const upstream = connect(sitePort, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection Established\r\n\r\n');
      if (head.length > 0) upstream.write(head);
      upstream.pipe(client).pipe(upstream);
    });
    track(upstream);
    upstream.once('close', () => client.destroy());
    client.once('close', () => upstream.destroy());
  });
  const proxyPort = await listening(proxy);

  const closed = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()));
  return {
    proxyUrl: `http://127.0.0.1:${proxyPort}`,
    caPem,
    certificate,
    refused,
    async close() {
      const ends = [closed(proxy), closed(site)];
      for (const socket of sockets) socket.destroy();
      await Promise.all(ends);
    },
  };
}
