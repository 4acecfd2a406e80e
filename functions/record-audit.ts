import { parseAuditInvocation } from './core/audit.ts';
import { recordAudit } from './lifecycle/record-audit.ts';
import { sealAudit } from './lifecycle/seal-audit.ts';
import { openArchive } from './runtime/archive.ts';
import { handlerOf } from './runtime/compose.ts';
import { recordAuditEnvironment } from './runtime/env.ts';

/** Invoked by the bus with every event, and by its schedule to seal the days that are over. Answers where the record is, or the seals. */
export const handler = handlerOf(
  recordAuditEnvironment,
  async (event, until, rekey) => {
    const invocation = parseAuditInvocation(event);
    return invocation.is === 'pass'
      ? sealAudit(invocation, until, rekey)
      : recordAudit(invocation.event, rekey);
  },
  { openArchive },
);
