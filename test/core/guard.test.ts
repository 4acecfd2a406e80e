import { describe, expect, test } from 'vitest';
import { type Fact, freshMs, Guard, sendGuarded } from '../../functions/core/guard.ts';

const start = Date.parse('2026-03-01T12:00:00Z');
const at = (ms: number): Date => new Date(start + ms);

/** A fact that counts how often it was asked, and holds until a test says otherwise. */
function counted() {
  const state = { asked: 0, objection: undefined as string | undefined };
  const fact: Fact = async () => {
    state.asked += 1;
    return state.objection;
  };
  return { state, fact };
}

/** Sends once at that time; the clock stands still meanwhile. */
const sendAt = (guard: Guard, ms: number): Promise<unknown> =>
  sendGuarded(
    guard,
    () => at(ms),
    async () => 'sent',
  );

describe('a fact', () => {
  test('counts for freshMs from when it was asked for, and not a moment longer', async () => {
    const { state, fact } = counted();
    const guard = Guard.of(fact);
    await guard.ask(at(0));
    await sendAt(guard, freshMs);
    expect(state.asked).toBe(1);
    await sendAt(guard, freshMs + 1);
    expect(state.asked).toBe(2);
  });

  test('that guards have in common is asked once, and each other one as well', async () => {
    const [common, more] = [counted(), counted()];
    const guard = Guard.of(common.fact);
    const wider = guard.and(more.fact);
    await guard.ask(at(0));
    await sendAt(wider, 1_000);
    expect([common.state.asked, more.state.asked]).toEqual([1, 1]);
    // The first is stale now, the second is not.
    await sendAt(wider, freshMs + 500);
    expect([common.state.asked, more.state.asked]).toEqual([2, 1]);
  });

  test('that is stale stops a send, however fresh the others are', async () => {
    const [stale, fresh] = [counted(), counted()];
    const guard = Guard.of(stale.fact);
    await guard.ask(at(0));
    const wider = guard.and(fresh.fact);
    await sendAt(wider, freshMs);
    stale.state.objection = 'a label moved';
    await expect(sendAt(wider, freshMs + 1)).rejects.toMatchObject({ code: 'SUPERSEDED' });
    await expect(sendAt(guard, freshMs + 1)).rejects.toMatchObject({ code: 'SUPERSEDED' });
  });

  test('that did not hold is asked again by the next send', async () => {
    const { state, fact } = counted();
    const guard = Guard.of(fact);
    state.objection = 'a label moved';
    await expect(sendAt(guard, 0)).rejects.toMatchObject({ code: 'SUPERSEDED' });
    await expect(sendAt(guard, 0)).rejects.toMatchObject({ code: 'SUPERSEDED' });
    expect(state.asked).toBe(2);
  });
});

test('what a taking send needs beside is asked, though the guard itself is fresh', async () => {
  const [base, more] = [counted(), counted()];
  const guard = Guard.of(base.fact).takingOnlyIf(more.fact);
  await guard.ask(at(0));
  more.state.objection = 'another run has published this version';
  expect(await sendAt(guard, 0)).toBe('sent');
  await expect(sendAt(guard.taking, 0)).rejects.toMatchObject({ code: 'SUPERSEDED' });
  expect([base.state.asked, more.state.asked]).toEqual([1, 1]);
});
