import type { MetricName } from '../core/metrics.ts';
import type { Ports } from '../core/ports.ts';
import type { Plugins } from '../core/spec.ts';
import type { Sha256 } from '../core/username.ts';
import type { Unwritten } from './unwritten.ts';

/** What every use case is given: the ways out, the providers, and two pure or harmless helpers. */
export interface Rekey extends Plugins {
  readonly ports: Ports;
  readonly sha256: Sha256;
  /** One structured line; values are scrubbed of known secrets on their way out. */
  readonly log: (
    level: 'info' | 'warn' | 'error',
    message: string,
    fields?: Readonly<Record<string, unknown>>,
  ) => void;
  /** One reading of a metric. */
  readonly measure: (metric: MetricName, value: number) => void;
  /** What this function instance could not note. @default nothing is kept in mind from one invocation to the next */
  readonly unwritten?: Unwritten;
}

/** Waits that grow from 200 ms: Secrets Manager is eventually consistent in everything (AWS documentation). */
export async function untilFound<T>(
  { sleep }: Pick<Ports, 'sleep'>,
  look: () => Promise<T>,
  isFound: (answer: T) => boolean,
  tries = 5,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await look();
    if (isFound(answer) || attempt >= tries) return answer;
    await sleep(100 * 2 ** attempt);
  }
}
