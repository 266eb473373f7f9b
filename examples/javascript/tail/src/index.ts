// The Tail Worker: PIPE_ME lines to the events Pipeline, PIPE_ERR lines to the errors Pipeline.
//
// Each line is parsed once, the order is kept, and each call makes one send per pipeline, or more if
// it would be too large. A trace is delivered once, so a failed send must lose no records but its
// own: the other sends are still made.

import { readTrace, type Sized, type Trace } from "./traces";

interface Pipeline {
  send(records: object[]): Promise<void>;
}

interface Env {
  PIPELINE: Pipeline;
  ERROR_PIPELINE: Pipeline;
}

const SEND_BYTES_MAX = 4_000_000;

export default {
  async tail(traces: Trace[], env: Env): Promise<void> {
    const events: Sized[] = [];
    const errors: Sized[] = [];
    for (const trace of traces) readTrace(trace, events, errors);
    const failures = [
      ...(await send(env.PIPELINE, events)),
      ...(await send(env.ERROR_PIPELINE, errors)),
    ];
    if (failures.length) throw failures[0]; // report the loss to the platform
  },
};

/** Sends all records; returns the exceptions of the sends that failed. */
async function send(pipeline: Pipeline, records: Sized[]): Promise<unknown[]> {
  const failures = [];
  for (const chunk of split(records, SEND_BYTES_MAX)) {
    try {
      await pipeline.send(chunk);
    } catch (error) {
      console.log(`${chunk.length} records lost: ${error}`);
      failures.push(error);
    }
  }
  return failures;
}

/** Lists of at most `limit` bytes; a larger record gets its own. */
function split(records: Sized[], limit: number): object[][] {
  const chunks: object[][] = [];
  let size = limit + 1;
  for (const each of records) {
    if (size + each.size > limit) {
      chunks.push([]);
      size = 0;
    }
    chunks[chunks.length - 1].push(each.record);
    size += each.size;
  }
  return chunks;
}
