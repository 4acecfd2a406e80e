import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** The suites that take minutes, longest first: begun last, one of them would run alone when all others are over. */
const longest = [
  'e2e/start',
  'lifecycle/rotate-secret',
  'lifecycle/reconcile-users',
  'lifecycle/delete-user',
  'infra/upgrade',
  'e2e/bundles',
];
const rank = ({ moduleId }: TestSpecification): number => {
  const found = longest.findIndex((name) => moduleId.endsWith(`${name}.test.ts`));
  return found === -1 ? longest.length : found;
};

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b));
  }
}

// biome-ignore lint/style/noDefaultExport: vitest reads its configuration from the default export
export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts'],
    // Suites that take minutes each: `npm run test:exhaustive`.
    exclude: ['test/exhaustive/**'],
    // Real servers and processes start in many suites; on two cores the default five seconds only measure load.
    testTimeout: 60_000,
    // Much of the time is spent waiting for engines and processes: more workers than cores keep the cores busy meanwhile.
    maxWorkers: '200%',
    hookTimeout: 120_000,
    provide: { isExhaustive: false },
    sequence: { sequencer: LongestFirst },
  },
});
