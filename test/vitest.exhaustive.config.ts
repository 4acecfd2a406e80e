import { defineConfig } from 'vitest/config';
import config from './vitest.config.ts';

// biome-ignore lint/style/noDefaultExport: vitest reads its configuration from the default export
export default defineConfig({
  ...config,
  test: { ...config.test, include: ['test/exhaustive/**/*.test.ts'], exclude: [] },
});
