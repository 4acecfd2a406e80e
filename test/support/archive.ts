import { createHash } from 'node:crypto';
import { interpose, type Ports } from '../../functions/core/ports.ts';
import type { Rekey } from '../../functions/lifecycle/rekey.ts';

type AuditPort = 'archive' | 'readArchive' | 'listArchive';

/** A Rekey with an archive in memory, a clock that stands, and nothing else. */
export function archiveRekey(start: string) {
  const objects = new Map<string, string>();
  const measured: Record<string, number>[] = [];
  const logged: string[] = [];
  let now = new Date(start);
  /** Called before each call to the archive; what it throws is the store's failure. */
  let disturb: (port: AuditPort, key: string) => void = () => undefined;
  /** The same after the call took effect. */
  let disturbAfter: typeof disturb = () => undefined;
  const archive: Pick<Ports, AuditPort> = {
    archive: async ({ key, document }) => {
      if (objects.has(key)) return 'exists';
      objects.set(key, document);
      return 'written';
    },
    readArchive: async ({ key }) => objects.get(key) ?? 'absent',
    listArchive: async ({ prefix }) => [...objects.keys()].filter((key) => key.startsWith(prefix)).sort(),
  };
  const unused = async (): Promise<never> => {
    throw new Error('the audit trail has no business there');
  };
  const ports: Ports = {
    http: unused,
    sql: unused,
    valkey: unused,
    describeSecret: unused,
    readSecret: unused,
    writeSecret: unused,
    moveLabel: unused,
    createSecret: unused,
    startRotation: unused,
    cancelRotation: unused,
    listVersions: unused,
    listSecrets: unused,
    removeReplicas: unused,
    deleteSecret: unused,
    readParameter: unused,
    readParameterDate: unused,
    readParameters: unused,
    createParameter: unused,
    writeParameter: unused,
    deleteParameter: unused,
    listParameters: unused,
    readNote: unused,
    listNotes: unused,
    writeNote: unused,
    deleteNote: unused,
    publish: unused,
    notify: unused,
    enqueue: unused,
    enqueueStart: unused,
    postpone: unused,
    setAside: unused,
    sleep: unused,
    randomBytes: unused,
    now: async () => now,
    ...archive,
  };
  const rekey: Rekey = {
    ports: interpose(ports, async (name, request, call) => {
      if (name !== 'archive' && name !== 'readArchive' && name !== 'listArchive') return call();
      const { key = '', prefix = '' } = request as { key?: string; prefix?: string };
      disturb(name, key + prefix);
      const answer = await call();
      disturbAfter(name, key + prefix);
      return answer;
    }),
    loadProvider: unused,
    loadConsumer: unused,
    sha256: (text) => createHash('sha256').update(text, 'utf8').digest(),
    log: (level, message, fields) => void logged.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`),
    measure: (metric, value) => void measured.push({ [metric]: value }),
  };
  return {
    rekey,
    objects,
    measured,
    logged,
    moveTo(instant: string) {
      now = new Date(instant);
    },
    now: () => now,
    /** A pass has as long as this, by the clock that stands. */
    until: () => new Date(now.getTime() + 890_000),
    disturb(before: typeof disturb = () => undefined, after: typeof disturb = () => undefined) {
      disturb = before;
      disturbAfter = after;
    },
    keys: (prefix: string) => [...objects.keys()].filter((key) => key.startsWith(prefix)).sort(),
  };
}
export type ArchiveRekey = ReturnType<typeof archiveRekey>;

/** An event with an id that tells which one it is. */
export const auditEvent = (number: number, time: string, more: object = {}): object => ({
  id: `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`,
  'detail-type': 'CredentialCreated',
  source: 'rekey',
  account: '111122223333',
  time,
  region: 'eu-central-1',
  detail: { credential: `orders-${number}`, provider: 'acme', target: 'db-1', strategy: 'replace-user' },
  ...more,
});
