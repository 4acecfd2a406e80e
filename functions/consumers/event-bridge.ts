import * as z from 'zod/mini';
import type { ConsumerDefinition } from '../core/consumer.ts';

const settingsSchema = z.strictObject({
  kind: z.literal('event-bridge'),
  /** A bus of the same account and region, for example `orders`. */
  busName: z
    .string()
    .check(z.regex(/^[/.\-_A-Za-z0-9]{1,256}$/, { error: 'expected the name of an event bus, not its ARN' })),
});

/** What stands on the bus: ids only, the login itself is read from Secrets Manager. */
export const credentialChanged = 'CredentialChanged';

/**
 * Whoever listens to a bus of the user's own. Told at least once: listeners take the second event of one `versionId` for the
 * first. Nobody sees whether they listened, so the grace alone keeps the old user alive for them.
 */
export const eventBridge: ConsumerDefinition<z.output<typeof settingsSchema>> = {
  kind: 'event-bridge',
  schema: settingsSchema,
  label: ({ busName }) => busName,
  apiKeySecret: () => undefined,
  open({ busName }, { credential, secretArn, versionId }, { guard }, { notify }) {
    const told = {
      say: 'unobservable',
      details: `the listeners of the bus ${busName} are told, and nobody sees whether they listened`,
    } as const;
    return {
      standing: async () => told,
      async advance() {
        await notify({
          busName,
          type: credentialChanged,
          detail: { credential, secretArn, versionId },
          resources: [secretArn],
          guard,
        });
        return told;
      },
    };
  },
};
