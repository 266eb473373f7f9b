// Rows of insert_failures and their INSERT statement.

export interface Failure {
  queue: string;
  message_id: string;
  bucket: string;
  object: string;
  attempts: number;
  error: string;
}

const COLUMNS = ["queue", "message_id", "bucket", "object", "attempts", "error"] as const;
const ATTEMPTS_MAX = 2 ** 16;
const BODY_CHARS_MAX = 500;

/** The row of a message: the insert Worker's failure record, else defaults from the message.
 *
 * `attempts` is 0 if the platform moved the message itself: it restarts the count.
 */
export function failureOf(queue: string, id: string, message: unknown): Failure {
  const body = fieldsOf(message);
  const told = fieldsOf(body.failure);
  const { attempts } = told;
  const is16Bit = Number.isInteger(attempts) && Number(attempts) >= 0 && Number(attempts) < ATTEMPTS_MAX;
  const shown = String(JSON.stringify(message)).slice(0, BODY_CHARS_MAX);
  const error = Object.keys(body).length ? "retries exhausted" : `not a notification: ${shown}`;
  return {
    queue: String(told.queue ?? queue),
    message_id: id,
    bucket: String(body.bucket ?? ""),
    object: String(fieldsOf(body.object).key ?? ""),
    attempts: is16Bit ? Number(attempts) : 0,
    error: String(told.error ?? error),
  };
}

/** The INSERT of a row; from the second delivery on, only if the message has no row yet. */
export function statement(row: Failure, delivery: number): string {
  const values = COLUMNS.map((column) => literal(row[column])).join(", ");
  const sql = `INSERT INTO insert_failures (${COLUMNS.join(", ")}) SELECT ${values}`;
  if (delivery === 1) return sql;
  const known = "SELECT message_id FROM insert_failures";
  return `${sql} WHERE ${literal(row.message_id)} NOT IN (${known})`;
}

function literal(value: string | number): string {
  if (typeof value === "number") return String(value);
  // A NUL ends a literal on some servers.
  const text = value.toWellFormed().replaceAll("\0", "");
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

function fieldsOf(value: unknown): Record<string, unknown> {
  const isFields = typeof value === "object" && value !== null && !Array.isArray(value);
  return isFields ? (value as Record<string, unknown>) : {};
}
