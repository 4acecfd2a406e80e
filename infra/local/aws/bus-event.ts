/** An event as a target of an EventBridge rule receives it. */
export interface BusEvent {
  readonly version: '0';
  /** Stays the same over repeated delivery and replay. */
  readonly id: string;
  readonly 'detail-type': string;
  readonly source: string;
  readonly account: string;
  /** ISO 8601, whole seconds, UTC. */
  readonly time: string;
  readonly region: string;
  readonly resources: readonly string[];
  readonly detail: Readonly<Record<string, unknown>>;
  /** Only on an event that an archive replays. */
  readonly 'replay-name'?: string;
}

/** `2026-03-01T12:00:00Z`: event times carry no fraction. */
export const eventTime = (date: Date): string => date.toISOString().replace(/\.\d{3}Z$/, 'Z');
