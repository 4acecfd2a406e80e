import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { noteTable } from '../aws/notes.ts';
import { patience } from './patience.ts';

/** A pass can do without any of its notes: a table that does not answer must not take the time of its targets. */
const littlePatience = { ...patience, connectionTimeout: 1_000, requestTimeout: 3_000 };

/** The table of notes with a client of its own, apart from notes.ts so that a function starts without it. */
export const openNoteTable = (tableName: string, clock: () => Date): ReturnType<typeof noteTable> =>
  noteTable(new DynamoDBClient({ requestHandler: littlePatience, maxAttempts: 2 }), tableName, clock);
