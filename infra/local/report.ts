import type { Outcome } from './demo.ts';

const columns: readonly {
  readonly title: string;
  readonly of: (row: Outcome['providers'][number]) => string;
}[] = [
  { title: 'provider', of: ({ provider }) => provider },
  { title: 'strategy', of: ({ strategy }) => strategy },
  { title: 'logins', of: ({ logins }) => String(logins) },
  { title: 'failed', of: ({ failedLogins }) => String(failedLogins) },
  { title: 'created', of: ({ created }) => String(created) },
  { title: 'rotated', of: ({ rotated }) => String(rotated) },
  { title: 'retired', of: ({ retired }) => String(retired) },
  { title: 'drift found', of: ({ driftFound }) => String(driftFound) },
  { title: 'repaired', of: ({ driftRepaired }) => String(driftRepaired) },
  { title: 'deleted', of: ({ deleted }) => String(deleted) },
  { title: 'users left', of: ({ users }) => String(users) },
];

/** The outcome as a table for people. */
export function table({ providers, resetPassword, webhooks, audit, access, days, seconds }: Outcome): string {
  const rows = [
    columns.map(({ title }) => title),
    ...providers.map((row) => columns.map(({ of }) => of(row))),
  ];
  const widths = columns.map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, index) => cell.padEnd(widths[index] ?? 0))
      .join('   ')
      .trimEnd();
  const [head = [], ...body] = rows;
  const problems = providers.flatMap((row) => row.problems.map((problem) => `${row.provider}: ${problem}`));
  return [
    line(head),
    widths.map((width) => '─'.repeat(width)).join('   '),
    ...body.map(line),
    '',
    ...(resetPassword === undefined ? [] : [refusal(resetPassword), '']),
    `Webhooks: ${webhooks.received} received. Of the users that came or went there ${webhooks.expected} were ours, as expected, and ${webhooks.foreign} foreign: reported.`,
    `${webhooks.caughtUp} of these events and users no webhook had told of: found by looking.`,
    '',
    `Audit trail: ${audit.records} records, ${audit.verified ? 'each as it was sealed, the chain of seals whole' : 'NOT as they were sealed'}.`,
    '',
    `Policies: ${access.judged} calls judged, ${access.problems.length === 0 ? 'none refused' : `${access.problems.length} kinds of them refused`}.`,
    '',
    ...[...problems, ...webhooks.problems, ...audit.problems, ...access.problems].map(
      (problem) => `NOT GOOD  ${problem}`,
    ),
    `${isGood({ providers, webhooks, audit, access }) ? 'Nobody was locked out and nobody is left over' : 'This run failed'}: ${days} days in ${seconds} s.`,
  ].join('\n');
}

const refusal = ({
  provider,
  logins,
  refusedLogins,
  refusedForMs,
  atMostMs,
}: NonNullable<Outcome['resetPassword']>) =>
  `For comparison, reset-password on ${provider}: ${refusedLogins} of ${logins} logins with AWSCURRENT were refused, within ${refusedForMs} ms
(announced: at most ${atMostMs} ms). Under replace-user that is 0.`;

/** The outcome as one JSON document. */
export function json({ providers, webhooks, audit, access, ...rest }: Outcome): string {
  const shown = <Part extends { readonly problems: unknown }>({ problems: _, ...part }: Part) => part;
  const document = {
    providers: providers.map(shown),
    webhooks: shown(webhooks),
    audit: shown(audit),
    // Somebody who reads only this has to learn what was refused.
    access: { ...shown(access), refused: access.problems },
    ...rest,
  };
  return JSON.stringify(document, null, 2);
}

export const isGood = ({
  providers,
  webhooks,
  audit,
  access,
}: Pick<Outcome, 'providers' | 'webhooks' | 'audit' | 'access'>): boolean =>
  audit.verified &&
  webhooks.problems.length === 0 &&
  access.problems.length === 0 &&
  providers.length > 0 &&
  providers.every(({ problems }) => problems.length === 0);
