import type { AnyConsumerDefinition, LoadConsumer } from '../core/consumer.ts';

/** One line a kind. Loaded when a credential with such a consumer is at hand. */
const consumers: Readonly<Record<string, () => Promise<AnyConsumerDefinition>>> = {
  'event-bridge': async () => (await import('./event-bridge.ts')).eventBridge,
  'render-service': async () => (await import('./render-service.ts')).renderService,
};

/** The definition of a kind of consumer, or undefined when rekey has none of that name. */
export const loadConsumer: LoadConsumer = async (kind) =>
  Object.hasOwn(consumers, kind) ? consumers[kind]?.() : undefined;
