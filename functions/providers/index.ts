import type { AnyProviderDefinition, LoadProvider } from '../core/provider.ts';

/** One line a provider. Loaded when a secret of that provider is at hand, so that a start pays only for what it uses. */
const providers: Readonly<Record<string, () => Promise<AnyProviderDefinition>>> = {
  'cockroachdb-cloud': async () => (await import('./cockroachdb-cloud/provider.ts')).cockroachdbCloud,
  'render-postgres': async () => (await import('./render-postgres/provider.ts')).renderPostgres,
  'vultr-valkey': async () => (await import('./vultr-valkey/provider.ts')).vultrValkey,
  'zilliz-cloud': async () => (await import('./zilliz-cloud/provider.ts')).zillizCloud,
};

/** The definition of a provider, or undefined when rekey has none of that id. */
export const loadProvider: LoadProvider = Object.assign(
  async (id: string) => (Object.hasOwn(providers, id) ? providers[id]?.() : undefined),
  { ids: Object.keys(providers) },
);
