import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Ports } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { rotateSecret } from '../../functions/lifecycle/rotate-secret.ts';
import {
  type Made,
  minuteMs,
  type ProviderId,
  targets,
  useAdministrator,
  useCredentialWorld,
} from '../support/credential-world.ts';
import { token } from '../support/rekey.ts';

// Operators replace the vendor's keys while an instance still has the ones before.

const world = useCredentialWorld();
const { rekey, vendors, credential, move } = world;
const adminSecret = useAdministrator(world);

const replacement = 'canaryReplacement0123456789abcdef';
const providers = Object.keys(targets) as ProviderId[];
const originals: Partial<Record<ProviderId, string>> = {};

/** Which keys the vendors take: a test may add one and refuse the original. */
let isReplacementTaken = false;
let isOriginalTaken = true;
/** The keys that were sent, in order. */
let sent: string[] = [];

beforeEach(() => {
  vendors().keepSecret(replacement);
  isReplacementTaken = false;
  isOriginalTaken = true;
  sent = [];
  rekey().setWarm(true);
});
afterEach(async () => {
  rekey().setWarm(false);
  for (const [provider, value] of Object.entries(originals)) await store(provider as ProviderId, value);
});

const secretOf = (provider: ProviderId): string => targets[provider].apiKeySecret;
const store = (provider: ProviderId, SecretString: string) =>
  world.secrets('PutSecretValue', {
    SecretId: secretOf(provider),
    SecretString,
    ClientRequestToken: token(),
  });
async function replaceKey(provider: ProviderId): Promise<void> {
  const found = await world.secrets('GetSecretValue', { SecretId: secretOf(provider) });
  originals[provider] = (found as { SecretString: string }).SecretString;
  await store(provider, replacement);
}

/** Vendors that know the replacement by the name of the original key, once it is taken, and no original that is refused. */
const atVendor =
  (original: string, send: Ports['http']): Ports['http'] =>
  (request) => {
    const header = request.headers['authorization'];
    const key = (header instanceof Sensitive ? header.reveal() : '').replace('Bearer ', '');
    const isKey = key === original || key === replacement;
    if (isKey) sent.push(key === original ? 'original' : 'replacement');
    const isTaken = key === original ? isOriginalTaken : isReplacementTaken;
    const known = isTaken ? original : 'nobodysKey0123456789';
    const headers = isKey
      ? { ...request.headers, authorization: new Sensitive(`Bearer ${known}`) }
      : request.headers;
    return send({ ...request, headers });
  };

/** One step of the instance, at vendors that know its keys as a test says. */
function step(one: Made, Step: string, pending: string): Promise<void> {
  const [, original = ''] =
    Object.entries({
      'render-postgres': vendors().apiKeys.render,
      'cockroachdb-cloud': vendors().apiKeys.cockroachdb,
      'vultr-valkey': vendors().apiKeys.vultr,
      'zilliz-cloud': vendors().apiKeys.zilliz,
    }).find(([provider]) => provider === one.provider) ?? [];
  return world.invokeWith(
    ({ http }) => ({ http: atVendor(original, http) }),
    async (inner, until) => {
      const { ARN: secretId } = await rekey().describe(one.name);
      await rotateSecret({ step: Step, secretId, token: pending }, until, inner);
    },
  );
}
const steps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'] as const;

describe.each(providers)('a rotation at %s', (provider) => {
  test.each([1, 2, 3])(
    'goes on where the key is replaced and refused after %i of its steps',
    async (done) => {
      const one = await credential({ provider });
      move(minuteMs);
      const pending = await world.openRotation(one);
      for (const each of steps.slice(0, done)) await step(one, each, pending);
      expect(new Set(sent)).toEqual(new Set(['original']));
      await replaceKey(provider);
      isOriginalTaken = false;
      isReplacementTaken = true;
      sent = [];
      for (const each of steps.slice(done)) await step(one, each, pending);
      expect((await world.labels(one))['AWSCURRENT']).toBe(pending);
      expect(await world.works(await world.login(one))).toBe(true);
      // The calls that were under way when it was refused are sent again; no other goes out with it.
      expect(sent.lastIndexOf('original')).toBeLessThan(sent.indexOf('replacement'));
    },
  );

  test('fails where the stored key is refused as well, and sends no call twice', async () => {
    const one = await credential({ provider });
    move(minuteMs);
    const pending = await world.openRotation(one);
    isOriginalTaken = false;
    expect(await world.failureOf(step(one, 'createSecret', pending))).toMatchObject({
      code: 'UNAUTHORIZED',
      effect: 'none',
    });
    const once = sent.length;
    expect(once).toBeGreaterThan(0);
    await replaceKey(provider);
    sent = [];
    expect(await world.failureOf(step(one, 'createSecret', pending))).toMatchObject({ code: 'UNAUTHORIZED' });
    // With the replacement, which is not taken either, and not a third time.
    expect(sent.filter((key) => key === 'replacement').length).toBeLessThanOrEqual(once);
  });
});

test('a key that was replaced and still works is in use for five minutes at most', async () => {
  const one = await credential({ provider: 'zilliz-cloud' });
  const pending = await world.openRotation(one);
  isReplacementTaken = true;
  await step(one, 'createSecret', pending);
  await replaceKey('zilliz-cloud');
  sent = [];
  move(4 * minuteMs);
  await step(one, 'setSecret', pending);
  expect(new Set(sent)).toEqual(new Set(['original']));
  sent = [];
  move(2 * minuteMs);
  await step(one, 'testSecret', pending);
  await step(one, 'finishSecret', pending);
  expect(new Set(sent)).toEqual(new Set(['replacement']));
});

describe('an administrator whose password is changed between two steps', () => {
  const changed = 'Root-password_00000000000000002';
  const put = async (password: string): Promise<void> => {
    await vendors().cockroachdb.postgres.query(`ALTER ROLE root PASSWORD '${password}'`);
    await world.secrets('PutSecretValue', {
      SecretId: adminSecret,
      SecretString: JSON.stringify({ username: 'root', password }),
      ClientRequestToken: token(),
    });
  };
  afterEach(() => put('Root-password_00000000000000001'));

  test('is asked with the new one', async () => {
    vendors().keepSecret(changed);
    const one = await credential({ provider: 'cockroachdb-cloud' }, { adminSecret });
    move(minuteMs);
    const pending = await world.openRotation(one);
    await rekey().step(one.name, 'createSecret', pending);
    await put(changed);
    for (const each of steps.slice(1)) await rekey().step(one.name, each, pending);
    expect((await world.labels(one))['AWSCURRENT']).toBe(pending);
    expect(await world.works(await world.login(one))).toBe(true);
  });
});
