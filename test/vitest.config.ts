import { defineConfig } from 'vitest/config';

// biome-ignore lint/style/noDefaultExport: vitest reads its configuration from the default export
export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts'],
    // Real servers and processes start in many suites; on two cores the default five seconds only measure load.
    testTimeout: 60_000,
    // Most of the time is spent waiting for engines and processes: leaving a core free, as is the default, would double it.
    maxWorkers: '100%',
    hookTimeout: 120_000,
  },
});
