// Conversion of traces to records. Each record has a size: the bytes that a Pipeline will count.

export interface Trace {
  scriptName: string | null;
  outcome: string;
  truncated: boolean;
  eventTimestamp: number | null;
  event: { request?: { headers: Record<string, string> } } | null;
  logs: { timestamp: number; message: unknown[] }[];
  exceptions: { message: string }[];
}

export interface Sized {
  record: object;
  size: number;
}

const EVENT_MARK = "PIPE_ME ";
const ERROR_MARK = "PIPE_ERR ";
const RAW_CHARS_MAX = 8192;
const CLIENT_CHARS_MAX = 512;
const FINE = ["ok", "canceled"];

/** Adds the records of one trace to both lists. */
export function readTrace(trace: Trace, events: Sized[], errors: Sized[]): void {
  let lines = 0;
  for (const log of trace.logs) {
    const line = log.message.filter((part) => typeof part === "string").join(" ");
    const mark = [EVENT_MARK, ERROR_MARK].find((each) => line.startsWith(each));
    if (mark === undefined) continue;
    lines++;
    const text = line.slice(mark.length);
    const found = readRecord(text);
    if (typeof found === "string") {
      errors.push(errorRecord(trace, log.timestamp, "unparsable_log", found, line));
    } else {
      (mark === EVENT_MARK ? events : errors).push({ record: found, size: bytesOf(text) });
    }
  }
  for (const [reason, detail] of troubles(trace, lines)) {
    errors.push(errorRecord(trace, trace.eventTimestamp ?? 0, reason, detail));
  }
}

/** The record of a line, or why it is none: one that does not parse does not affect the others. */
function readRecord(text: string): object | string {
  try {
    const record = JSON.parse(text);
    return isObject(record) ? record : "not a JSON object";
  } catch (error) {
    return (error as Error).message;
  }
}

/** A record of the errors stream, in the receiver's shape. */
function errorRecord(
  trace: Trace,
  receivedAt: number,
  reason: string,
  detail: string,
  raw = "",
): Sized {
  const headers = trace.event?.request?.headers ?? {};
  const client = (name: string) => (headers[name] ?? "").slice(0, CLIENT_CHARS_MAX);
  const record = {
    received_at: receivedAt,
    worker: trace.scriptName ?? "",
    reason,
    detail: detail.slice(0, RAW_CHARS_MAX).toWellFormed(),
    raw: raw.slice(0, RAW_CHARS_MAX).toWellFormed(),
    ip: client("cf-connecting-ip"),
    user_agent: client("user-agent"),
    country: client("cf-ipcountry"),
  };
  return { record, size: bytesOf(JSON.stringify(record)) };
}

/** [reason, detail] of each failure of the invocation itself. */
function troubles(trace: Trace, lines: number): [string, string][] {
  const found = trace.exceptions.map((each): [string, string] => [trace.outcome, each.message]);
  if (!found.length && !FINE.includes(trace.outcome)) {
    found.push([trace.outcome, `the invocation ended as ${trace.outcome}`]);
  }
  if (trace.truncated) {
    const detail = `the trace was over its budget: what was logged after ${lines} records is lost`;
    found.push(["truncated", detail]);
  }
  return found;
}

function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
