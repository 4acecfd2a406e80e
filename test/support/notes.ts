import { noteTable } from '../../functions/aws/notes.ts';
import { tableName } from '../../functions/core/notes.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { clientOf } from '../../infra/local/aws/in-process-client.ts';
import type { AwsService } from '../../infra/local/aws/service.ts';
import { createTables } from '../../infra/local/aws/tables.ts';

/** The table of notes in this process: its ports, and what is in it, expired or not. */
export function startNotes(clock: () => Date, limit: (service: AwsService) => AwsService = (all) => all) {
  const tables = createTables({
    account: '123456789012',
    region: 'eu-central-1',
    tables: [{ name: tableName, partitionKey: 'place', sortKey: 'key' }],
  });
  const ports: Pick<Ports, 'readNote' | 'listNotes' | 'writeNote' | 'deleteNote'> = noteTable(
    clientOf(limit(tables)),
    tableName,
    clock,
  );
  return {
    ports,
    /** Documents of a place, by key. */
    async stored(place: string): Promise<Readonly<Record<string, string>>> {
      const { Items } = (await tables.call('Query', {
        TableName: tableName,
        KeyConditionExpression: '#place = :place',
        ExpressionAttributeNames: { '#place': 'place' },
        ExpressionAttributeValues: { ':place': { S: place } },
      })) as { readonly Items: readonly { readonly key: { S: string }; readonly document: { S: string } }[] };
      return Object.fromEntries(Items.map(({ key, document }) => [key.S, document.S]));
    },
    /** Puts a document there as somebody at the table would. */
    put: (place: string, key: string, document: string) =>
      ports.writeNote({ place, key, document, expiresAt: new Date(clock().getTime() + 90 * 86_400_000) }),
  };
}
