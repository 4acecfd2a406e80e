import type { Redactor } from '../core/sensitive.ts';
import type { Rekey } from '../lifecycle/rekey.ts';

const levels = ['DEBUG', 'INFO', 'WARN', 'ERROR'] as const;
type Level = (typeof levels)[number];

/**
 * Structured lines on standard output, with the names that Powertools gives them. Every text is scrubbed on its way out, whoever
 * wrote it. Powertools itself would take a quarter of the bytes that a function may load beside the client of Secrets Manager.
 */
export function createLog(level: Level, redactor: Redactor): Rekey['log'] {
  return (severity, message, fields = {}) => {
    const written: Level = severityLevels[severity];
    if (levels.indexOf(written) < levels.indexOf(level)) return;
    const own = {
      level: written,
      message,
      timestamp: new Date().toISOString(),
      service: 'rekey',
      xray_trace_id: /Root=([^;]+)/.exec(process.env['_X_AMZN_TRACE_ID'] ?? '')?.[1],
    };
    // Ours come first, and no field of the caller's takes the place of one.
    process.stdout.write(`${JSON.stringify({ ...own, ...fields, ...own }, writable(redactor))}\n`);
  };
}

const severityLevels = { info: 'INFO', warn: 'WARN', error: 'ERROR' } as const;

/** Makes JSON of what has none, and leaves out what contains itself. */
function writable(redactor: Redactor): (this: unknown, name: string, value: unknown) => unknown {
  const ancestors: { readonly value: object; readonly written: object }[] = [];
  return function (_name, value) {
    if (typeof value === 'string') return redactor.scrub(value);
    if (typeof value === 'bigint') return String(value);
    if (typeof value !== 'object' || value === null) return value;
    // `this` holds the value: whatever came after it belongs to what is written already.
    while (ancestors.length > 0 && ancestors.at(-1)?.written !== this) ancestors.pop();
    if (ancestors.some((ancestor) => ancestor.value === value)) return undefined;
    const written = value instanceof Error ? fieldsOf(value) : value;
    ancestors.push({ value, written });
    return written;
  };
}

function fieldsOf(error: Error): object {
  const { name, message, stack, cause } = error;
  return { ...error, name, message, stack, cause, ...('errors' in error ? { errors: error.errors } : {}) };
}
