import { beforeEach, describe, expect, test } from 'vitest';
import type { SecretRead } from '../../functions/core/ports.ts';
import { Sensitive } from '../../functions/core/sensitive.ts';
import { createSecretMemory } from '../../functions/runtime/secret-memory.ts';

const secretId = 'rekey/orders';
let nowMs: number;
let asked: SecretRead[];
let current: string | undefined;
let memory: ReturnType<typeof createSecretMemory>;

beforeEach(() => {
  nowMs = Date.parse('2026-03-01T12:00:00Z');
  asked = [];
  current = 'v1';
  memory = createSecretMemory(() => new Date(nowMs));
});

/** One invocation's request. A label is on `current`; each version holds its own name. */
const read = (request: Partial<SecretRead>) =>
  memory.over(async (each) => {
    asked.push(each);
    const versionId = each.versionId ?? current;
    return versionId === undefined ? 'absent' : { versionId, value: new Sensitive(versionId) };
  })({ secretId, ...request });

describe('the value of a version', () => {
  test('is read once for requests of any invocation that take an earlier answer', async () => {
    await read({ versionId: 'v1', maxAgeMs: 1_000 });
    nowMs += 1_000;
    expect(await read({ versionId: 'v1', maxAgeMs: 1_000 })).toMatchObject({ versionId: 'v1' });
    expect(asked).toHaveLength(1);
    nowMs += 1;
    await read({ versionId: 'v1', maxAgeMs: 1_000 });
    expect(asked).toHaveLength(2);
  });

  test('is known from a reading by label as well', async () => {
    await read({ label: 'AWSCURRENT', maxAgeMs: 0 });
    await read({ versionId: 'v1', maxAgeMs: 1_000 });
    expect(asked).toHaveLength(1);
  });

  test('is read anew by whoever does not say that an earlier answer will do, and is not kept then', async () => {
    await read({ versionId: 'v1' });
    await read({ versionId: 'v1' });
    await read({ versionId: 'v1', maxAgeMs: 1_000 });
    expect(asked).toHaveLength(3);
  });

  test('of one secret is not taken for that of another', async () => {
    await read({ versionId: 'v1', maxAgeMs: 1_000 });
    await read({ secretId: 'rekey/invoices', versionId: 'v1', maxAgeMs: 1_000 });
    expect(asked).toHaveLength(2);
  });

  test('that is not there yet is asked for again', async () => {
    current = undefined;
    expect(await read({ label: 'AWSPENDING', maxAgeMs: 1_000 })).toBe('absent');
    current = 'v1';
    expect(await read({ label: 'AWSPENDING', maxAgeMs: 1_000 })).toMatchObject({ versionId: 'v1' });
  });
});

describe('what a label is on', () => {
  test('is read anew where no age is allowed, also within one instant', async () => {
    await read({ label: 'AWSCURRENT', maxAgeMs: 0 });
    current = 'v2';
    expect(await read({ label: 'AWSCURRENT', maxAgeMs: 0 })).toMatchObject({ versionId: 'v2' });
  });

  test('is what was answered last, once it was read anew', async () => {
    await read({ label: 'AWSCURRENT', maxAgeMs: 1_000 });
    current = 'v2';
    expect(await read({ label: 'AWSCURRENT', maxAgeMs: 1_000 })).toMatchObject({ versionId: 'v1' });
    await read({ label: 'AWSCURRENT', maxAgeMs: 0 });
    expect(await read({ label: 'AWSCURRENT', maxAgeMs: 1_000 })).toMatchObject({ versionId: 'v2' });
    current = undefined;
    await read({ label: 'AWSCURRENT', maxAgeMs: 0 });
    expect(await read({ label: 'AWSCURRENT', maxAgeMs: 1_000 })).toBe('absent');
  });
});

test('nothing is kept longer than five minutes, whatever age is allowed', async () => {
  await read({ versionId: 'v1', maxAgeMs: 3_600_000 });
  nowMs += 300_001;
  await read({ versionId: 'v1', maxAgeMs: 3_600_000 });
  expect(asked).toHaveLength(2);
});

test('a clock that went back proves nothing', async () => {
  await read({ versionId: 'v1', maxAgeMs: 1_000 });
  nowMs -= 1;
  await read({ versionId: 'v1', maxAgeMs: 1_000 });
  expect(asked).toHaveLength(2);
});

test('only the last 32 answers are kept', async () => {
  for (let version = 0; version < 40; version += 1) await read({ versionId: `v${version}`, maxAgeMs: 1_000 });
  asked = [];
  for (let version = 8; version < 40; version += 1) await read({ versionId: `v${version}`, maxAgeMs: 1_000 });
  expect(asked).toEqual([]);
  await read({ versionId: 'v7', maxAgeMs: 1_000 });
  expect(asked).toHaveLength(1);
});
