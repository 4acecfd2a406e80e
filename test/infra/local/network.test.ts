import { X509Certificate } from 'node:crypto';
import { request } from 'node:http';
import { fetch, ProxyAgent } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createCertificateAuthority, type Network, startNetwork } from '../../../infra/local/network.ts';

let network: Network;
let trusting: ProxyAgent;
beforeAll(async () => {
  network = await startNetwork({
    hosts: {
      'api.render.com': (incoming, response) => response.end(`render ${incoming.url}`),
      'cockroachlabs.cloud': (incoming, response) => incoming.pipe(response),
      '*.clusters.example:19539': (incoming, response) => response.end(`cluster ${incoming.headers.host}`),
    },
  });
  trusting = new ProxyAgent({ uri: network.proxyUrl, requestTls: { ca: network.caPem } });
});
afterAll(async () => {
  await trusting.close();
  await network.close();
});

const failureOf = async (url: string, dispatcher = trusting): Promise<string> => {
  try {
    return `answered ${(await fetch(url, { dispatcher })).status}`;
  } catch (error) {
    const { cause } = error as { cause?: Error & { code?: string } };
    return `${cause?.code ?? cause?.name} ${cause?.message}`;
  }
};

describe('a closed network', () => {
  test('leads each host to its stand-in over TLS', async () => {
    const render = await fetch('https://api.render.com/v1/postgres?limit=2', { dispatcher: trusting });
    expect(await render.text()).toBe('render /v1/postgres?limit=2');
    const echo = await fetch('https://cockroachlabs.cloud/', {
      dispatcher: trusting,
      method: 'POST',
      body: 'hello',
    });
    expect(await echo.text()).toBe('hello');
  });

  test('leads every host one label below a wildcard to its stand-in, on the port that it names', async () => {
    const of = async (url: string) => (await fetch(url, { dispatcher: trusting })).text();
    expect(await of('https://a.clusters.example:19539/')).toBe('cluster a.clusters.example:19539');
    expect(await of('https://b.clusters.example:19539/')).toBe('cluster b.clusters.example:19539');
    const wrong = [
      'https://a.clusters.example/',
      'https://clusters.example:19539/',
      'https://x.a.clusters.example:19539/',
      'https://api.render.com:19539/',
    ];
    for (const url of wrong) expect(await failureOf(url), url).not.toMatch(/^answered/);
    expect(network.refused.slice(-4)).toEqual([
      'a.clusters.example:443',
      'clusters.example:19539',
      'x.a.clusters.example:19539',
      'api.render.com:19539',
    ]);
  });

  test('lets nobody out, and records who was asked for', async () => {
    const before = network.refused.length;
    expect(await failureOf('https://example.com/')).not.toMatch(/^answered/);
    expect(await failureOf('https://api.render.com:8443/')).not.toMatch(/^answered/);
    expect(network.refused.slice(before)).toEqual(['example.com:443', 'api.render.com:8443']);
  });

  test('refuses plain HTTP through the proxy', async () => {
    const { port } = new URL(network.proxyUrl);
    const status = await new Promise((resolve, reject) => {
      request({ host: '127.0.0.1', port, path: 'http://example.com/x' }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .once('error', reject)
        .end();
    });
    expect(status).toBe(403);
    expect(network.refused.at(-1)).toBe('http://example.com/x');
  });

  test('is trusted only with its own authority', async () => {
    const wary = new ProxyAgent({ uri: network.proxyUrl });
    expect(await failureOf('https://api.render.com/', wary)).toMatch(/SELF_SIGNED|UNABLE_TO|issuer/);
    await wary.close();
  });
});

describe('a certificate authority', () => {
  test('signs for names and addresses', async () => {
    const authority = await createCertificateAuthority();
    const { cert } = await authority.certificate(['localhost', '127.0.0.1']);
    const made = new X509Certificate(cert);
    expect(made.checkIssued(new X509Certificate(authority.caPem))).toBe(true);
    expect([made.checkHost('localhost'), made.checkIP('127.0.0.1')]).toEqual(['localhost', '127.0.0.1']);
    expect([new X509Certificate(authority.caPem).ca, made.ca]).toEqual([true, false]);
  });
});
