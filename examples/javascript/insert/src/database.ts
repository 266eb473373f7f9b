// ClickHouse's HTTP interface through a service binding: runs one statement, classifies its error.

export interface Service {
  fetch(url: string, init: RequestInit): Promise<Response>;
}

/** Exception codes of ClickHouse caused by the rows, not by the server: a retry would fail again. */
const ABOUT_ROWS = new Set(
  ("6 25 26 27 33 38 41 53 69 70 72 117 128 130 131 306 321 349 407 467 469 563 632 760").split(" "),
);

/** ClickHouse refused a statement. `rowsRefused`: the cause is a row of the data. */
export class DatabaseError extends Error {
  constructor(
    message: string,
    readonly code = "",
  ) {
    super(message);
  }

  get rowsRefused(): boolean {
    return ABOUT_ROWS.has(this.code);
  }
}

/** Timeout, or a reply that is not ClickHouse's: the next statement would fail too. */
export class UnreachableError extends DatabaseError {}

export class Database {
  constructor(
    private readonly service: Service,
    private readonly seconds: number,
  ) {}

  /** Runs one statement and returns its result as text; `packed`: its data is gzip. */
  async run(
    sql: string,
    data: BodyInit = "",
    packed = false,
    settings: Record<string, string> = {},
  ): Promise<string> {
    const query = sql.split(/\s+/).join(" ").trim();
    const url = `http://clickhouse/?${new URLSearchParams({ query, ...settings })}`;
    const headers: Record<string, string> = packed ? { "content-encoding": "gzip" } : {};
    const signal = AbortSignal.timeout(this.seconds * 1000);
    let answer: Response;
    let text: string;
    try {
      answer = await this.service.fetch(url, { method: "POST", headers, body: data, signal });
      text = (await answer.text()).trim();
    } catch (error) {
      throw new UnreachableError(`ClickHouse gave no answer: ${(error as Error).message}`);
    }
    if (answer.ok) return text;
    const code = answer.headers.get("x-clickhouse-exception-code");
    const problem = `ClickHouse answered ${answer.status}: ${text.slice(0, 500)}`;
    throw code ? new DatabaseError(problem, code) : new UnreachableError(problem);
  }
}

/** A SQL string literal. */
export function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
