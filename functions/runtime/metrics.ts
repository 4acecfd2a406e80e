import { Metrics } from '@aws-lambda-powertools/metrics';
import { metricNamespace, metrics as units } from '../core/metrics.ts';
import type { Rekey } from '../lifecycle/rekey.ts';

/**
 * Readings in CloudWatch's embedded metric format on standard output. Each is written at once, so that an invocation that fails
 * or is cut off has lost none.
 */
export function createMeasure(log: Rekey['log']): Rekey['measure'] {
  const metrics = new Metrics({ namespace: metricNamespace });
  // One series a metric over all functions, as the alarms read it: Powertools would add `service`.
  metrics.clearDefaultDimensions();
  return (metric, value) => {
    // JSON has no such number, and CloudWatch refuses the line.
    if (!Number.isFinite(value)) {
      log('error', 'a reading is no number', { metric });
      return;
    }
    metrics
      // CloudWatch wants one set of dimensions at least, and takes an empty one (AWS documentation, format specification).
      .addDimensions({})
      .addMetric(metric, units[metric], value)
      .publishStoredMetrics();
  };
}
