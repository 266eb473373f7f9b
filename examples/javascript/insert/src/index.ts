// The insert Worker: each notified object is one bulk insert, streamed from R2 to ClickHouse.
//
// The gzip bytes pass unchanged from R2 to ClickHouse. An insert is idempotent per object (see
// tables.ts), so a redelivery, a requeue, or a crash between insert and ack changes nothing.

import { Database, UnreachableError, type Service } from "./database";
import { insertObject, TABLES } from "./tables";

interface Bucket {
  get(key: string, options?: object): Promise<StoredObject | null>;
}

interface StoredObject {
  size: number;
  etag: string;
  body: ReadableStream;
}

interface Message {
  id: string;
  attempts: number;
  body: unknown;
  ack(): void;
  retry(options: { delaySeconds: number }): void;
}

interface Env {
  INSERT_TIMEOUT_SECONDS: string;
  BACKOFF_BASE_SECONDS: string;
  BACKOFF_CAP_SECONDS: string;
  ATTEMPTS_MAX: string;
  CLICKHOUSE: Service;
  DEAD_LETTERS: { send(body: object): Promise<unknown> };
  [bucket: string]: unknown;
}

const ERROR_CHARS_MAX = 2000;

/** A failure that no retry can change. */
class HopelessError extends Error {}

export default {
  async queue(batch: { queue: string; messages: Message[] }, env: Env): Promise<void> {
    const database = new Database(env.CLICKHOUSE, Number(env.INSERT_TIMEOUT_SECONDS));
    let unreachable: unknown;
    for (const message of batch.messages) {
      try {
        if (unreachable) throw unreachable; // do not wait for a timeout per message
        await insert(database, env, batch.queue, message);
        message.ack();
      } catch (error) {
        if (error instanceof UnreachableError) unreachable = error;
        await failed(env, batch.queue, message, error as Error);
      }
    }
  },
};

async function insert(database: Database, env: Env, queue: string, message: Message) {
  const { bucket, key } = objectOf(message.body);
  const objects = env[TABLES[bucket].binding] as Bucket;
  const found = await objects.get(key);
  if (found === null || found.size === 0) {
    // No retry would help: there is nothing to insert.
    const error = found === null ? "the object is gone" : "the object is empty";
    const { id, attempts } = message;
    const row = { queue, message_id: id, bucket, object: key, attempts, error };
    await database.run("INSERT INTO insert_failures FORMAT JSONEachRow", JSON.stringify(row));
    return;
  }
  const unread = [found.body];
  /** The content of this version of the object. */
  const opened = async () => {
    if (unread.length) return unread.pop()!;
    const again = await objects.get(key, { onlyIf: { etagMatches: found.etag } });
    return again!.body;
  };
  const source = `${bucket}/${key}@${found.etag}`;
  await insertObject(database, bucket, source, opened, key.endsWith(".gz"));
}

/** Retries the message later, or sends it to the dead-letter queue with the error. */
async function failed(env: Env, queue: string, message: Message, error: Error): Promise<void> {
  const { attempts } = message;
  if (!(error instanceof HopelessError) && attempts < Number(env.ATTEMPTS_MAX)) {
    console.log(`insert failed, attempt ${attempts}: ${error.message}`);
    retry(env, message);
    return;
  }
  console.log(`insert given up after attempt ${attempts}: ${error.message}`);
  try {
    const body = isObject(message.body) ? message.body : { body: message.body };
    const failure = { queue, attempts, error: error.message.slice(0, ERROR_CHARS_MAX) };
    await env.DEAD_LETTERS.send({ ...body, failure });
    message.ack();
  } catch (second) {
    // After its last retry the platform moves it there itself, but without the error.
    console.log(`dead letter not sent: ${second}`);
    retry(env, message);
  }
}

/** Exponential backoff with full jitter. */
function retry(env: Env, message: Message): void {
  const longest = Number(env.BACKOFF_BASE_SECONDS) * 2 ** (Math.min(message.attempts, 32) - 1);
  const delay = Math.random() * Math.min(Number(env.BACKOFF_CAP_SECONDS), longest);
  message.retry({ delaySeconds: Math.max(1, Math.round(delay)) });
}

/** Bucket and key of a notification. */
function objectOf(body: unknown): { bucket: string; key: string } {
  const { bucket, object } = (body ?? {}) as { bucket?: string; object?: { key?: string } };
  if (typeof bucket !== "string" || typeof object?.key !== "string") {
    throw new HopelessError(`not a notification: ${JSON.stringify(body).slice(0, 200)}`);
  }
  if (!Object.hasOwn(TABLES, bucket)) {
    throw new HopelessError(`no table for objects of bucket '${bucket}'`);
  }
  return { bucket, key: object.key };
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
