import { defineConfig } from 'vitest/config';
import config from './vitest.config.ts';

// biome-ignore lint/style/noDefaultExport: vitest reads its configuration from the default export
export default defineConfig({
  ...config,
  test: {
    ...config.test,
    // Beside those that are here alone: suites whose invocations are killed at every call here, and elsewhere after each change.
    include: [
      'test/exhaustive/**/*.test.ts',
      'test/lifecycle/{create-user,delete-user,replicas,rotate-secret,update-consumers}.test.ts',
    ],
    exclude: [],
    testTimeout: 600_000,
    provide: { isExhaustive: true },
  },
});
