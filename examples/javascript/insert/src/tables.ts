// Tables by bucket, and idempotent inserts by deduplication tokens.
//
// An insert carries its object's identity as `insert_deduplication_token`; the table keeps the tokens
// of its last inserts, so a repeated object is inserted once. One object is one block: a block is
// atomic, and a repeated insert could be split into different blocks.

import { type Database, DatabaseError, quoted } from "./database";

const RAW_CHARS_MAX = 8192;
const SETTINGS = {
  async_insert: "0",
  input_format_skip_unknown_fields: "1",
  // A single block, up to 1 GiB in memory.
  min_insert_block_size_rows: "0",
  min_insert_block_size_bytes: "1073741824",
  // One client with a wrong clock must not have the whole object refused.
  max_partitions_per_insert_block: "0",
};
// Keeps the order of the lines: their numbers depend on it.
const IN_ORDER = { max_threads: "1", input_format_parallel_parsing: "0" };

/** A table: `time` is the column that objects have in milliseconds, `texts` are strings.
 *
 * `insert` accepts valid rows only. If it refuses an object, `salvage` inserts the lines that can be
 * rows and `refuse` records the others.
 */
class Table {
  readonly insert: string;
  readonly salvage: string;
  readonly #isRow: string;
  readonly #why: string;

  constructor(
    name: string,
    readonly binding: string,
    time: string,
    texts: string[],
  ) {
    const columns = [time, ...texts].join(", ");
    const structure = [`${time} Int64`, ...texts.map((each) => `${each} String`)].join(", ");
    // A DateTime64 would parse the number as seconds.
    this.insert = `INSERT INTO ${name} (${columns})
      SELECT fromUnixTimestamp64Milli(${time}, 'UTC') AS ${time}, ${texts.join(", ")}
      FROM input('${structure}') FORMAT JSONEachRow`;
    const number = `toInt64OrNull(JSONExtract(line, '${time}', 'String'))`;
    this.#isRow =
      `isValidJSON(line) AND JSONType(line) = 'Object' AND ${number} IS NOT NULL`;
    this.#why = `multiIf(NOT isValidUTF8(line), 'not UTF-8', NOT isValidJSON(line), 'not JSON',
      JSONType(line) != 'Object', 'not an object', 'no milliseconds in ${time}')`;
    this.salvage = `INSERT INTO ${name} (${columns})
      SELECT fromUnixTimestamp64Milli(assumeNotNull(${number}), 'UTC') AS ${time},
        ${texts.map(field).join(", ")}
      FROM input('line String') WHERE ${this.#isRow} FORMAT LineAsString`;
  }

  /** Statement: insert the other lines into `ingest_errors`, each with its number. */
  refuse(source: string): string {
    return `INSERT INTO ingest_errors (received_at, worker, reason, detail, raw)
      SELECT now64(3), 'insert', 'refused_row',
        concat(${quoted(source)}, ': line ', toString(number), ': ', ${this.#why}),
        substringUTF8(toValidUTF8(line), 1, ${RAW_CHARS_MAX})
      FROM (SELECT line, rowNumberInAllBlocks() + 1 AS number FROM input('line String'))
      WHERE replaceRegexpAll(line, '[ \\\\t\\\\r]', '') != '' AND NOT (${this.#isRow})
      FORMAT LineAsString`;
  }
}

function field(name: string): string {
  // A JSON object stays JSON text, as with JSONEachRow.
  if (name === "props") return "JSONExtractRaw(line, 'props')";
  return `JSONExtract(line, '${name}', 'String')`;
}

export const TABLES: Record<string, Table> = {
  events: new Table("events", "EVENTS", "ts", [
    ...["event", "player_id", "match_id", "session_id", "platform", "region", "build", "props"],
  ]),
  errors: new Table("ingest_errors", "ERRORS", "received_at", [
    ...["worker", "reason", "detail", "raw", "ip", "user_agent", "country"],
  ]),
};

/** Inserts an object's rows; `opened` returns its bytes, `source` names it and its version.
 *
 * If ClickHouse refuses rows, two more passes over the object insert the others, and the refused
 * lines into ingest_errors. All three inserts have deduplication tokens, so a retry is safe at any
 * point.
 */
export async function insertObject(
  database: Database,
  bucket: string,
  source: string,
  opened: () => Promise<ReadableStream>,
  packed: boolean,
): Promise<void> {
  const table = TABLES[bucket];
  const send = async (statement: string, token: string, more: Record<string, string> = {}) => {
    const settings = { ...SETTINGS, insert_deduplication_token: token, ...more };
    await database.run(statement, await opened(), packed, settings);
  };
  try {
    await send(table.insert, source);
  } catch (error) {
    if (!(error instanceof DatabaseError && error.rowsRefused)) throw error;
    console.log(`${source}: ${error.message}`);
    // The same token: the first insert left no rows, and a later retry of it would duplicate these.
    await send(table.salvage, source);
    await send(table.refuse(source), `${source}#refused`, IN_ORDER);
  }
}
