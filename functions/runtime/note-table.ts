import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { noteTable } from '../aws/notes.ts';
import { patience } from './patience.ts';

/** The table of notes with a client of its own, apart from notes.ts so that a function starts without it. */
export const openNoteTable = (tableName: string, clock: () => Date): ReturnType<typeof noteTable> =>
  noteTable(new DynamoDBClient({ requestHandler: patience }), tableName, clock);
