import * as z from 'zod/mini';
import { type Finding, fingerprint } from '../core/findings.ts';
import { jsonOf } from '../core/json.ts';
import { places } from '../core/notes.ts';
import { forget, maxCharacters, recall, remember } from './notes.ts';
import type { Rekey } from './rekey.ts';

/** Which of the functions looks after the findings; each keeps its own list, so that none overwrites another's. */
export type Scope = 'reconcile' | 'retire' | 'schedule' | 'consumers';

export interface Announced {
  readonly scope: Scope;
  readonly place: string;
  /** Not everything could be looked at: what was noted and is not seen now counts as there still. @default false */
  readonly isPartial?: boolean;
  /** Findings that this pass could not check. If noted, they still count as present. @default none */
  readonly unknown?: readonly Omit<Finding, 'details' | 'remedy'>[];
}

/**
 * Publishes the findings that the pass before did not have, and answers since when each has been there. Every finding of the scope
 * and place must be given at once, the gravest first: what is missing counts as mended, and is published again should it come back.
 *
 * Published first, noted afterwards: a crash between the two says something twice, never not at all. So do two passes at once.
 * If the note cannot be read, all of them are published, once a pass. If it can be read and not be written, each function instance
 * publishes them once: see notes.ts.
 */
export async function announce(
  { scope, place, isPartial = false, unknown = [] }: Announced,
  findings: readonly Finding[],
  rekey: Rekey,
): Promise<readonly SeenFinding[]> {
  const { ports, sha256, log } = rekey;
  const note = { place: places.findings(scope), key: place };
  const stored = await recall(note, rekey);
  const before = stored === 'unreadable' ? new Map<string, string>() : notesIn(stored.document);
  const now = (await ports.now()).toISOString();
  const seen = findings.map((finding) => {
    const mark = markOf(finding, sha256);
    return { finding, mark, since: before.get(mark) ?? now };
  });
  const unknownMarks = new Set(unknown.map((about) => markOf({ ...about, details: '', remedy: '' }, sha256)));
  const notes = fitting([
    ...seen.map(({ mark, since }) => [mark, since] as const),
    ...[...before].filter(([mark]) => isPartial || unknownMarks.has(mark)),
  ]);
  const told = new Set(before.keys());
  const fresh = seen.filter(({ mark }) => notes.has(mark) && !told.has(mark) && told.add(mark));
  // Told without a note they would be told in every pass: they wait until others are mended.
  const waiting = seen.filter(({ mark }) => !notes.has(mark)).length;
  if (waiting > 0) log('warn', 'there are more findings than can be noted', { scope, place, waiting });
  // In the log, too: not everybody has a rule on the bus.
  for (const { finding } of fresh) log('warn', `found ${finding.kind}`, { ...finding });
  if (fresh.length > 0)
    await ports.publish(fresh.map(({ finding }) => ({ type: 'DriftFound', detail: finding })));
  if (stored !== 'unreadable') {
    if (notes.size > 0) await remember(note, documentOf(notes), stored, rekey);
    else if (stored.document !== undefined) await forget(note, rekey, stored);
  }
  return seen.map(({ finding, since }) => ({ ...finding, since: new Date(since) }));
}

export type SeenFinding = Finding & { readonly since: Date };

/** Since when each finding has been there, by its mark. */
type Notes = ReadonlyMap<string, string>;

/** 48 bits: enough for the findings of one place, and short enough for tens of thousands to fit into one note. */
const markOf = (finding: Finding, sha256: Rekey['sha256']): string =>
  Buffer.from(sha256(fingerprint(finding)).subarray(0, 6)).toString('base64url');

/** Marks by the instant since when they have been there: those of one pass share it. */
const documentSchema = z.record(z.iso.datetime(), z.string());

/** A corrupt document counts as absent: the only damage is that a finding is published twice. */
function notesIn(stored: string | undefined): Notes {
  const parsed = documentSchema.safeParse(stored === undefined ? {} : jsonOf(stored));
  const groups = Object.entries(parsed.data ?? {});
  return new Map(
    groups.flatMap(([since, marks]) => marks.split(' ').map((mark): [string, string] => [mark, since])),
  );
}

function documentOf(notes: Notes): string {
  const groups = Map.groupBy(notes.keys(), (mark) => notes.get(mark) ?? '');
  const sorted = [...groups].toSorted(([one], [other]) => (one < other ? -1 : 1));
  return JSON.stringify(
    Object.fromEntries(sorted.map(([since, marks]) => [since, marks.toSorted().join(' ')])),
  );
}

const charactersOf = { braces: 2, mark: 9, instant: 31 };

/** As many as fit into one note, in the given order. */
function fitting(all: Iterable<readonly [string, string]>): Notes {
  const notes = new Map<string, string>();
  const instants = new Set<string>();
  let left = maxCharacters - charactersOf.braces;
  for (const [mark, since] of all) {
    const size = charactersOf.mark + (instants.has(since) ? 0 : charactersOf.instant);
    if (notes.has(mark) || size > left) continue;
    notes.set(mark, since);
    instants.add(since);
    left -= size;
  }
  return notes;
}
