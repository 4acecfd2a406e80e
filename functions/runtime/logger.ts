import { Logger } from '@aws-lambda-powertools/logger';
import type { Redactor } from '../core/sensitive.ts';
import type { Rekey } from '../lifecycle/rekey.ts';

/** Structured lines on standard output. Every text is scrubbed on its way out, whoever wrote it. */
export function createLog(level: 'DEBUG' | 'INFO' | 'WARN' | 'ERROR', redactor: Redactor): Rekey['log'] {
  const logger = new Logger({
    serviceName: 'rekey',
    logLevel: level,
    jsonReplacerFn: (_key, value: unknown) => (typeof value === 'string' ? redactor.scrub(value) : value),
  });
  return (severity, message, fields = {}) => logger[severity](message, { ...fields });
}
