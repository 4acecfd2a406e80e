import { metricNamespace, metrics as units } from '../core/metrics.ts';
import type { Rekey } from '../lifecycle/rekey.ts';

/**
 * Readings in CloudWatch's embedded metric format on standard output. Each is written at once, so that an invocation that fails
 * or is cut off has lost none.
 */
export function createMeasure(log: Rekey['log']): Rekey['measure'] {
  return (metric, value) => {
    // JSON has no such number, and CloudWatch refuses the line.
    if (!Number.isFinite(value)) {
      log('error', 'a reading is no number', { metric });
      return;
    }
    const directive = {
      Namespace: metricNamespace,
      // One series a metric over all functions, as the alarms read it. CloudWatch wants one set of dimensions at least, and takes an
      // empty one (AWS documentation, format specification).
      Dimensions: [[]],
      Metrics: [{ Name: metric, Unit: units[metric] }],
    };
    const line = { _aws: { Timestamp: Date.now(), CloudWatchMetrics: [directive] }, [metric]: value };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  };
}
