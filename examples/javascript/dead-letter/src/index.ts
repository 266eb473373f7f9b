// The dead-letter Worker: writes a row of insert_failures per message, and keeps the message.
//
// An acked message is deleted, and a queue has one consumer; so each message is kept in `ingest-dlq`
// by a retry with the longest delay that the platform allows (24 h). `edgesim queue redrive
// ingest-dlq --to ingest` moves it back to its queue at any time before that. A redelivery writes no
// second row: the statement itself checks for an existing row.

import { type Failure, failureOf, statement } from "./failures";

interface Message {
  id: string;
  attempts: number;
  body: unknown;
  retry(options: { delaySeconds: number }): void;
}

interface Env {
  INSERT_TIMEOUT_SECONDS: string;
  RETRY_BASE_SECONDS: string;
  CLICKHOUSE: { fetch(url: string, init: RequestInit): Promise<Response> };
}

/** The longest delay that the platform allows. */
const KEEP_SECONDS = 86_400;

export default {
  async queue(batch: { queue: string; messages: Message[] }, env: Env): Promise<void> {
    for (const message of batch.messages) {
      try {
        await record(env, failureOf(batch.queue, message.id, message.body), message.attempts);
        message.retry({ delaySeconds: KEEP_SECONDS });
      } catch (error) {
        const delaySeconds = againIn(message.attempts, Number(env.RETRY_BASE_SECONDS));
        console.log(`failure not recorded, again in ${delaySeconds} s: ${error}`);
        message.retry({ delaySeconds });
      }
    }
  },
};

async function record(env: Env, failure: Failure, delivery: number): Promise<void> {
  const signal = AbortSignal.timeout(Number(env.INSERT_TIMEOUT_SECONDS) * 1000);
  const init = { method: "POST", body: statement(failure, delivery), signal };
  const answer = await env.CLICKHOUSE.fetch("http://clickhouse/", init);
  const text = (await answer.text()).trim();
  if (!answer.ok) throw new Error(`ClickHouse answered ${answer.status}: ${text.slice(0, 500)}`);
}

/** Backoff in seconds: doubles from `base` up to a day. */
function againIn(attempts: number, base: number): number {
  return Math.min(base * 2 ** Math.min(attempts - 1, 32), KEEP_SECONDS);
}
