const pattern = /^P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$/;
const units = [604_800_000, 86_400_000, 3_600_000, 60_000, 1_000];

/** Milliseconds of an ISO 8601 duration of weeks, days and less (months and years have no fixed length), or undefined. */
export function durationMs(text: string): number | undefined {
  const match = pattern.exec(text);
  if (match === null || text.endsWith('T') || text === 'P') return undefined;
  return units.reduce((sum, unit, index) => sum + unit * Number(match[index + 1] ?? 0), 0);
}

/** Clocks differ by no more. */
export const skewMs = 10 * 60_000;
