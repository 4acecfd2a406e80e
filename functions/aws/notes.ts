import {
  type AttributeValue,
  DeleteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
} from '@aws-sdk/client-dynamodb';
import type { Note, Ports } from '../core/ports.ts';
import { failureOf, isNamed } from './failure.ts';
import { everyPage, unreadable } from './pages.ts';

type NotePorts = Pick<Ports, 'readNote' | 'listNotes' | 'writeNote' | 'deleteNote'>;

type Item = Record<string, AttributeValue>;

/** Some of the attributes have names that DynamoDB reserves for its expressions. */
const names = {
  place: { '#place': 'place' },
  revision: { '#revision': 'revision' },
  absent: { '#revision': 'revision', '#expiresAt': 'expiresAt' },
};

/**
 * The ports to the table of notes. `place` is its partition key, `key` its sort key, `expiresAt` its TTL attribute. DynamoDB deletes an
 * expired item days later (AWS documentation), so expiry is judged here, by `clock`.
 */
export function noteTable(
  client: DynamoDBClient,
  TableName: string,
  clock: () => Date = () => new Date(),
): NotePorts {
  const addressOf = ({ place, key }: { place: string; key: string }) => ({
    place: { S: place },
    key: { S: key },
  });
  const isLive = ({ expiresAt, revision }: Note): boolean => expiresAt > clock() && !Number.isNaN(revision);

  const readNote: NotePorts['readNote'] = async (address) => {
    const call = `GetItem of ${address.place} ${address.key}`;
    const { Item } = await client
      .send(new GetItemCommand({ TableName, Key: addressOf(address), ConsistentRead: true }))
      .catch((error: unknown) => {
        throw failureOf(error, call, 'none');
      });
    if (Item === undefined) return 'absent';
    const note = noteIn(Item, call);
    return isLive(note) ? note : 'absent';
  };

  return {
    readNote,

    async listNotes({ place }) {
      const call = `Query of ${place}`;
      const notes = await everyPage(call, async (after) => {
        const { Items = [], LastEvaluatedKey } = await client.send(
          new QueryCommand({
            TableName,
            ConsistentRead: true,
            KeyConditionExpression: '#place = :place',
            ExpressionAttributeNames: names.place,
            ExpressionAttributeValues: { ':place': { S: place } },
            ExclusiveStartKey: after === undefined ? undefined : addressOf({ place, key: after }),
          }),
        );
        return { items: Items.map((item) => noteIn(item, call)), next: LastEvaluatedKey?.['key']?.S };
      });
      return notes.filter(isLive);
    },

    async writeNote({ place, key, document, expiresAt, ifRevision }) {
      // Drawn, not counted: counting would need a read, and two writers that count from the same note would draw level.
      const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
      // Of 48 bits, which a number holds.
      const revision = (high % 2 ** 16) * 2 ** 32 + low;
      const command = new PutItemCommand({
        TableName,
        Item: {
          ...addressOf({ place, key }),
          document: { S: document },
          revision: { N: String(revision) },
          expiresAt: { N: String(Math.ceil(expiresAt.getTime() / 1000)) },
        },
        ...conditionOf(ifRevision, clock()),
      });
      try {
        await client.send(command);
        return 'written';
      } catch (error) {
        if (!isNamed(error, 'ConditionalCheckFailedException'))
          throw failureOf(error, `PutItem of ${place} ${key}`, 'unknown');
      }
      // The SDK repeats calls by itself: an attempt before this one may have been carried out, and only its answer was lost.
      const stored = await readNote({ place, key });
      return stored !== 'absent' && stored.revision === revision ? 'written' : 'conflict';
    },

    async deleteNote({ place, key, ifRevision }) {
      const call = `DeleteItem of ${place} ${key}`;
      const command = new DeleteItemCommand({
        TableName,
        Key: addressOf({ place, key }),
        ReturnValues: 'ALL_OLD',
        ...conditionOf(ifRevision, clock()),
      });
      const answer = await client.send(command).catch((error: unknown) => {
        if (isNamed(error, 'ConditionalCheckFailedException')) return 'refused' as const;
        throw failureOf(error, call, 'unknown');
      });
      // The condition also fails where there is no note, and where an attempt of the SDK before this one has deleted it.
      if (answer === 'refused') return (await readNote({ place, key })) === 'absent' ? 'absent' : 'conflict';
      const { Attributes } = answer;
      return Attributes !== undefined && isLive(noteIn(Attributes, call)) ? 'deleted' : 'absent';
    },
  };
}

function conditionOf(ifRevision: number | 'absent' | undefined, now: Date) {
  if (ifRevision === undefined) return {};
  if (ifRevision === 'absent')
    return {
      ConditionExpression:
        'attribute_not_exists(#expiresAt) OR attribute_not_exists(#revision) OR #expiresAt <= :now',
      ExpressionAttributeNames: names.absent,
      ExpressionAttributeValues: { ':now': { N: String(Math.floor(now.getTime() / 1000)) } },
    };
  return {
    ConditionExpression: '#revision = :revision',
    ExpressionAttributeNames: names.revision,
    ExpressionAttributeValues: { ':revision': { N: String(ifRevision) } },
  };
}

function noteIn({ key, document, revision, expiresAt }: Item, call: string): Note {
  const expiresS = Number(expiresAt?.N);
  const note = {
    key: key?.S ?? '',
    // An item without these was put there by hand. It counts as none, and the next note is written over it.
    document: document?.S ?? '',
    revision: Number(revision?.N),
    expiresAt: new Date(expiresS * 1000),
  };
  if (note.key === '') throw unreadable(call, 'answered a note without its key');
  return note;
}
